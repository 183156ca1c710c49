//! The configuration that [`Sandbox`](crate::Sandbox) builds: plain data, one field for each layer. Checks that need
//! more than one field are in `decisions.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::confine::{
    Capabilities, Facts, Identity, Join, Landlock, Limits, Mode, Namespaces, Root, Seccomp, TimeOffsets,
};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::stored::Version;
#[cfg(feature = "serde")]
use crate::stored::{As, Escaped, Seconds};

/// The configuration of a sandbox.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default, rename = "Sandbox"))]
pub(crate) struct SandboxConfig {
    pub version: Version<1>,
    pub namespaces: Namespaces,
    #[cfg_attr(feature = "serde", serde(rename = "join"))]
    pub joins: Vec<Join>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Escaped>>"))]
    pub hostname: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Escaped>>"))]
    pub domain_name: Option<OsString>,
    pub time_offsets: Option<TimeOffsets>,
    #[cfg_attr(feature = "serde", serde(with = "As::<BTreeMap<Escaped, Escaped>>"))]
    pub env: BTreeMap<OsString, OsString>,
    pub identity: Identity,
    pub root: Root,
    pub keep_namespaces: bool,
    pub capabilities: Capabilities,
    #[cfg_attr(feature = "serde", serde(rename = "allow_new_privs"))]
    pub new_privs: bool,
    pub umask: Mode,
    pub landlock: Option<Landlock>,
    pub landlock_fallback: bool,
    /// The rules that stand in for the root on a host that denies it. They restrict the program in addition to
    /// `landlock`.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub stand_in: Option<Landlock>,
    pub seccomp: Seccomp,
    pub nestable: bool,
    pub best_effort: Vec<Layer>,
    pub limits: Limits,
    pub cgroup: Option<Cgroup>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Seconds>"))]
    pub setup_timeout: Duration,
    /// The kernel version for which a test compiles plans.
    #[cfg(feature = "_testing")]
    #[cfg_attr(feature = "serde", serde(skip))]
    pub kernel: Option<(u32, u32)>,
}

impl Default for SandboxConfig {
    /// The defaults of [`Sandbox`](crate::Sandbox).
    fn default() -> Self {
        Self {
            version: Version,
            namespaces: Namespaces::all() - Namespaces::TIME,
            joins: vec![],
            hostname: None,
            domain_name: None,
            time_offsets: None,
            env: BTreeMap::new(),
            identity: Identity::new(),
            root: Root::host(),
            keep_namespaces: false,
            capabilities: Capabilities::none(),
            new_privs: false,
            umask: Mode::new(0o022),
            landlock: None,
            landlock_fallback: false,
            stand_in: None,
            seccomp: Seccomp::new(),
            nestable: false,
            best_effort: vec![],
            limits: Limits::new(),
            cgroup: None,
            setup_timeout: Duration::from_secs(30),
            #[cfg(feature = "_testing")]
            kernel: None,
        }
    }
}

impl SandboxConfig {
    /// Reads the facts about the host that a plan depends on.
    pub fn facts(&self, can_idmap: fn(&Path) -> Option<bool>) -> Result<Facts> {
        #[cfg(feature = "_testing")]
        return Facts::read(self.kernel, can_idmap);
        #[cfg(not(feature = "_testing"))]
        Facts::read(None, can_idmap)
    }

    /// Whether a layer is best-effort.
    pub fn is_best_effort(&self, layer: Layer) -> bool {
        self.best_effort.contains(&layer) || (layer == Layer::Root && self.landlock_fallback)
    }

    /// Whether the rules that stand in for the root may be missing, and with them all of the root.
    pub fn stand_in_is_best_effort(&self) -> bool {
        [Layer::Root, Layer::Landlock].iter().all(|layer| self.best_effort.contains(layer))
    }

    /// Whether a cgroup limits memory.
    pub(super) fn limits_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Cgroup::limits_memory)
    }

    /// Refuses best effort for a layer that cannot be best-effort.
    pub(super) fn check_best_effort(&self) -> Result<()> {
        const OPTIONAL: [Layer; 5] = [Layer::Namespaces, Layer::Root, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];
        match self.best_effort.iter().find(|layer| !OPTIONAL.contains(layer)) {
            None => Ok(()),
            Some(layer) => Err(Error::invalid(
                format!("the layer {layer} cannot be best-effort"),
                format!("use only these: {}", OPTIONAL.map(|layer| layer.to_string()).join(", ")),
            )),
        }
    }
}
