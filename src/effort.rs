//! Best effort: the configurations to try, one after the other, where the host lacks a layer that the sandbox may be
//! started without.
//!
//! A layer is left out only if a [`reference`] shows that the host lacks it. Every other failure stays an error: a program
//! could cause it, to be less confined the next time.

mod reference;

use std::borrow::Cow;

use crate::confine::{Config, Namespaces, Root, Seccomp};
use crate::error::Error;
use crate::outcome::{Layer, Lost};

/// A configuration to try, and what it lacks of the requested one.
pub(crate) struct Attempt<'a> {
    pub config: Cow<'a, Config>,
    pub lost: Vec<Lost>,
}

impl<'a> Attempt<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config: Cow::Borrowed(config), lost: vec![] }
    }

    /// The next configuration to try after a failure; `None` if the failure is an error.
    pub fn after(mut self, error: &Error) -> Option<Self> {
        let layer = error.layer().filter(|&layer| self.config.does_without(layer))?;
        if layer == Layer::Namespaces {
            let lacking = reference::lacking_namespaces(&self.config);
            return if lacking.is_empty() { None } else { self.without(lacking, error) };
        }
        let requested = self.requested(layer)?;
        if !reference::lacks_layer(&self.config, layer) {
            return None;
        }
        let config = self.config.to_mut();
        match layer {
            Layer::Root => config.root = Root::inherit(),
            Layer::Cgroup => config.cgroup = None,
            Layer::Landlock => config.landlock = None,
            _ => config.seccomp = Seccomp::unconfined(),
        }
        self.lost.push(Lost::new(requested, error));
        Some(self)
    }

    /// What was requested of a layer, if it was.
    fn requested(&self, layer: Layer) -> Option<String> {
        let config = &self.config;
        match layer {
            Layer::Root => (!config.root.is_inherited()).then(|| config.root.to_string()),
            Layer::Cgroup => config.cgroup.as_ref().map(|cgroup| format!("{cgroup:?}")),
            Layer::Landlock => config.landlock.as_ref().map(ToString::to_string),
            Layer::Seccomp => (!config.seccomp.is_unconfined()).then(|| config.seccomp.to_string()),
            _ => None,
        }
    }

    /// The configuration without some namespaces and what needs them; `None` if one of these layers must be kept.
    fn without(mut self, kinds: Namespaces, error: &Error) -> Option<Self> {
        let config = self.config.to_mut();
        config.namespaces -= kinds;
        let mut lose = |layer, requested| self.lost.push(Lost { layer, requested, why: error.to_string() });
        lose(Layer::Namespaces, kinds.names());
        if kinds.contains(Namespaces::UTS) {
            (config.hostname, config.domain_name) = (None, None);
        }
        if kinds.contains(Namespaces::TIME) {
            config.time_offsets = None;
        }
        if kinds.contains(Namespaces::MOUNT) && config.root.needs_mount_namespace() {
            if !config.does_without(Layer::Root) {
                return None;
            }
            lose(Layer::Root, config.root.to_string());
            config.root = Root::inherit();
        }
        Some(self)
    }
}
