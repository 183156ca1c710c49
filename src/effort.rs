//! What a sandbox does without when a layer can't be had and it may do without: the configurations to try, one after the
//! other.

use std::borrow::Cow;
use std::vec;

use nix::unistd::geteuid;

use crate::confine::{Config, Namespaces, Root, Seccomp};
use crate::error::Error;
use crate::outcome::{Layer, Lost};

/// A configuration to try, and what it lacks of the one that was asked for.
pub(crate) struct Attempt<'a> {
    pub config: Cow<'a, Config>,
    pub lost: Vec<Lost>,
    /// Single namespaces to leave out are being tried.
    trial: Option<Trial>,
}

/// Which namespace is to blame is found by leaving out one at a time.
struct Trial {
    /// With all of them.
    whole: Config,
    /// How that failed.
    why: String,
    lost: Vec<Lost>,
    left: vec::IntoIter<Namespaces>,
}

impl<'a> Attempt<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config: Cow::Borrowed(config), lost: vec![], trial: None }
    }

    /// What to try when this has failed; none if nothing is left that the sandbox may do without.
    pub fn after(mut self, error: &Error) -> Option<Self> {
        let layer = error.layer();
        let blames_namespaces = layer.is_none_or(|layer| layer == Layer::Namespaces);
        if let Some(trial) = self.trial.take().filter(|_| blames_namespaces) {
            return trial.next();
        }
        let layer = layer.filter(|&layer| self.config.does_without(layer))?;
        let lost = Lost::new(self.requested(layer), error);
        match layer {
            Layer::Namespaces if self.config.namespaces.is_empty() && self.config.joins.is_empty() => return None,
            Layer::Namespaces => {
                let kinds =
                    self.config.namespaces.iter().filter(|&kind| kind != Namespaces::USER || geteuid().is_root());
                let left: Vec<Namespaces> = kinds.chain([self.config.namespaces]).collect();
                let left = left.into_iter();
                return Trial { whole: self.config.into_owned(), why: lost.why, lost: self.lost, left }.next();
            }
            Layer::Root if !self.config.root.is_inherited() => self.config.to_mut().root = Root::inherit(),
            Layer::Cgroup if self.config.cgroup.is_some() => self.config.to_mut().cgroup = None,
            Layer::Landlock if self.config.landlock.is_some() => self.config.to_mut().landlock = None,
            Layer::Seccomp if !self.config.seccomp.is_unconfined() => {
                self.config.to_mut().seccomp = Seccomp::unconfined()
            }
            _ => return None,
        }
        self.lost.push(lost);
        Some(self)
    }

    /// What was asked for of a layer.
    fn requested(&self, layer: Layer) -> String {
        match layer {
            Layer::Namespaces => self.config.namespaces.names(),
            Layer::Root => self.config.root.to_string(),
            Layer::Cgroup => format!("{:?}", self.config.cgroup),
            Layer::Landlock => self.config.landlock.as_ref().map(ToString::to_string).unwrap_or_default(),
            _ => self.config.seccomp.to_string(),
        }
    }
}

impl Trial {
    fn next<'a>(mut self) -> Option<Attempt<'a>> {
        while let Some(kinds) = self.left.next() {
            let mut lost = self.lost.clone();
            let Some(config) = without(&self.whole, kinds, &self.why, &mut lost) else { continue };
            return Some(Attempt { config: Cow::Owned(config), lost, trial: Some(self) });
        }
        None
    }
}

/// A configuration without some namespaces and what needs them, if it may do without that.
fn without(whole: &Config, kinds: Namespaces, why: &str, lost: &mut Vec<Lost>) -> Option<Config> {
    let mut config = whole.clone();
    config.namespaces -= kinds;
    if config.namespaces.is_empty() {
        config.joins.clear();
    }
    let mut lose = |layer, requested| lost.push(Lost { layer, requested, why: why.to_owned() });
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
    Some(config)
}
