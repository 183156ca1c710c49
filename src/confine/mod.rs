//! What a program is kept from, one file a feature: its type, its lowering to calls, its tests. Here they are put
//! together to a plan.
//!
//! A feature writes calls into a [`Program`](crate::plan::Program); nothing here makes one.

mod capabilities;
mod compile;
mod host;
mod identity;
mod landlock;
mod limits;
mod mountinfo;
mod namespaces;
mod network;
mod priorities;
mod quotas;
mod root;
mod seccomp;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::outcome::Layer;
use crate::plan::Stream;

pub use capabilities::Capabilities;
pub(crate) use compile::compile;
pub(crate) use host::Host;
#[cfg(fuzzing)]
pub(crate) use identity::sub_ids;
pub(crate) use identity::write_maps;
pub use identity::{IdRange, Identity};
pub use landlock::{FsAccess, Landlock};
pub use limits::{Limits, Resource};
pub(crate) use namespaces::Descriptor;
pub use namespaces::{NamespaceOf, Namespaces, TimeOffsets};
pub(crate) use network::loopback_up;
pub(crate) use priorities::check as check_priorities;
pub use root::{Bind, HidePid, Mount, Overlay, Proc, Root, Tmpfs};
pub use seccomp::{Action, Comparison, Condition, Rule, Seccomp};

/// What a sandbox is: plain data.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Config {
    pub namespaces: Namespaces,
    pub joins: Vec<(Namespaces, NamespaceOf)>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form", default))]
    pub hostname: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form", default))]
    pub domain_name: Option<OsString>,
    pub time_offsets: Option<TimeOffsets>,
    pub identity: Identity,
    pub root: Root,
    pub capabilities: Capabilities,
    pub new_privs: bool,
    pub landlock: Option<Landlock>,
    pub seccomp: Seccomp,
    pub best_effort: Vec<Layer>,
    pub limits: Limits,
    pub cgroup: Option<Cgroup>,
    pub setup_timeout: Duration,
    /// The version of the kernel that is believed to run, for tests.
    pub kernel: Option<(u32, u32)>,
}

impl Config {
    /// Whether the sandbox may do without a layer that can't be had.
    pub fn does_without(&self, layer: Layer) -> bool {
        self.best_effort.contains(&layer)
    }

    /// Refuses best effort for a layer that every sandbox needs.
    fn check_best_effort(&self) -> Result<()> {
        const OPTIONAL: [Layer; 5] = [Layer::Namespaces, Layer::Root, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];
        match self.best_effort.iter().find(|layer| !OPTIONAL.contains(layer)) {
            None => Ok(()),
            Some(layer) => Err(Error::invalid(
                format!("the layer {layer} can't be best-effort"),
                format!("name these alone: {}", OPTIONAL.map(|layer| layer.to_string()).join(", ")),
            )),
        }
    }
}

/// What a command is, as far as a plan depends on it.
pub(crate) struct Job<'a> {
    pub program: &'a OsStr,
    pub arg0: Option<&'a OsStr>,
    pub args: &'a [OsString],
    pub env: &'a BTreeMap<OsString, OsString>,
    pub cwd: Option<&'a Path>,
    pub stdio: [Source; 3],
    /// Descriptors by their number in the program.
    pub fds: &'a [(u32, Descriptor)],
    pub new_session: bool,
    pub pty: Option<Terminal>,
}

/// Where a standard stream leads.
#[derive(Clone)]
pub(crate) enum Source {
    Plain(Stream),
    Descriptor(Descriptor),
}

impl Source {
    fn lower(self, descriptors: &mut Vec<Arc<OwnedFd>>) -> Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Descriptor(fd) => Stream::Descriptor(share(descriptors, fd.0)),
        }
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Terminal {
    pub rows: u16,
    pub columns: u16,
}

/// The index of a descriptor among those of a plan.
pub(crate) fn share(descriptors: &mut Vec<Arc<OwnedFd>>, fd: Arc<OwnedFd>) -> u16 {
    let known = descriptors.iter().position(|known| Arc::ptr_eq(known, &fd));
    known.unwrap_or_else(|| {
        descriptors.push(fd);
        descriptors.len() - 1
    }) as u16
}

/// Refuses a text with a zero byte.
fn no_zero(what: &str, text: &OsStr) -> Result<()> {
    if text.as_bytes().contains(&0) {
        let remedy = "the kernel ends a string at a zero byte: leave it out";
        return Err(Error::invalid(format!("{what} {text:?} contains a zero byte"), remedy));
    }
    Ok(())
}
