//! Best effort: the configurations to try in turn if the host does not support a best-effort layer.
//!
//! A layer is dropped only if a [`reference`] sandbox shows that the host does not support it. Every other failure
//! stays an error: a program could cause it, to be less confined the next time. No layer's own code belongs here.

mod reference;

use std::borrow::Cow;

use crate::compile::SandboxConfig;
use crate::confine::{Namespaces, Root, Seccomp, landlock_fallback};
use crate::error::{Error, Result};
use crate::launch::can_idmap;
use crate::layer::Layer;
use crate::outcome::Unenforced;

/// Calls `start` with a configuration and the layers that it lacks: first with all layers, and without each best-effort layer
/// that the host turns out not to support.
pub(crate) fn with_best_effort<T>(
    config: &SandboxConfig,
    start: impl Fn(&SandboxConfig, Vec<Unenforced>) -> Result<T>,
) -> Result<T> {
    let mut attempt = Attempt::new(config);
    loop {
        match start(&attempt.config, attempt.unenforced.clone()) {
            Err(error) => attempt = attempt.after(&error).ok_or(error)?,
            started => return started,
        }
    }
}

/// A configuration to try, and the requested layers that it does not have.
struct Attempt<'a> {
    config: Cow<'a, SandboxConfig>,
    unenforced: Vec<Unenforced>,
}

impl<'a> Attempt<'a> {
    fn new(config: &'a SandboxConfig) -> Self {
        Self { config: Cow::Borrowed(config), unenforced: vec![] }
    }

    /// The next configuration to try after a failure; `None` if the failure is an error.
    fn after(mut self, error: &Error) -> Option<Self> {
        let layer = error.layer().filter(|&layer| self.config.is_best_effort(layer))?;
        if layer == Layer::Namespaces {
            let lacking = reference::lacking_namespaces(&self.config);
            return if lacking.is_empty() { None } else { self.without_namespaces(lacking, error) };
        }
        let requested = self.requested(layer)?;
        if !reference::lacks_layer(&self.config, layer) {
            return None;
        }
        let config = self.config.to_mut();
        match layer {
            Layer::Root => drop_root(config)?,
            Layer::Cgroup => config.cgroup = None,
            Layer::Landlock => drop_landlock(config),
            _ => config.seccomp = Seccomp::unconfined(),
        }
        self.unenforced.push(Unenforced::new(requested, error));
        Some(self)
    }

    /// A description of what was requested of a layer, if it was requested.
    fn requested(&self, layer: Layer) -> Option<String> {
        let config = &self.config;
        match layer {
            Layer::Root => (!config.root.is_inherited()).then(|| config.root.to_string()),
            Layer::Cgroup => config.cgroup.as_ref().map(|cgroup| format!("{cgroup:?}")),
            Layer::Landlock => {
                let stand_in = config.stand_in.as_ref().filter(|_| config.stand_in_is_best_effort());
                config.landlock.as_ref().or(stand_in).map(ToString::to_string)
            }
            Layer::Seccomp => (!config.seccomp.is_unconfined()).then(|| config.seccomp.to_string()),
            _ => None,
        }
    }

    /// The configuration without some namespaces and without what needs them. `None` if a layer that needs them is not
    /// best-effort.
    fn without_namespaces(mut self, kinds: Namespaces, error: &Error) -> Option<Self> {
        let config = self.config.to_mut();
        config.namespaces -= kinds;
        let mut drop_layer =
            |layer, requested| self.unenforced.push(Unenforced { layer, requested, reason: error.to_string() });
        drop_layer(Layer::Namespaces, kinds.names());
        if kinds.contains(Namespaces::UTS) {
            (config.hostname, config.domain_name) = (None, None);
        }
        if kinds.contains(Namespaces::TIME) {
            config.time_offsets = None;
        }
        if kinds.contains(Namespaces::MOUNT) && config.root.needs_mount_namespace() {
            if !config.is_best_effort(Layer::Root) {
                return None;
            }
            drop_layer(Layer::Root, config.root.to_string());
            drop_root(config)?;
        }
        Some(self)
    }
}

/// Removes the root. With [`Sandbox::landlock_fallback`](crate::Sandbox::landlock_fallback), Landlock rules stand in
/// for it; `None` if they cannot.
fn drop_root(config: &mut SandboxConfig) -> Option<()> {
    if config.landlock_fallback {
        // The mounts by which the policy denies something are a part of the root.
        if let Some(landlock) = config.landlock.take() {
            let (covered, rules) = landlock.without_root(&config.root);
            if let Some(root) = covered {
                config.root = root;
            }
            config.landlock = Some(rules);
        }
        let facts = config.facts(can_idmap).ok()?;
        config.stand_in = Some(landlock_fallback::rules(&config.root, &facts).ok()?);
        config.landlock_fallback = false;
    }
    config.root = Root::inherit();
    Some(())
}

/// Removes the Landlock policy, or else the rules that stand in for the root. The mounts by which the policy denies
/// something need no Landlock.
fn drop_landlock(config: &mut SandboxConfig) {
    let Some(landlock) = config.landlock.take() else {
        config.stand_in = None;
        return;
    };
    if let Some(root) = landlock.cover(&config.root) {
        config.root = root;
    }
}
