//! The plan of a sandbox: for each of its processes the system calls to make, as plain data.
//!
//! Nothing here makes a system call, and nothing knows what a feature is: the features of `confine` write their calls
//! into a [`Program`], and `launch` runs them.

mod arena;
mod call;
pub(crate) mod helper;
pub(crate) mod init;
mod mounts;
mod program;
mod report;
mod show;
mod stub;
mod syscalls;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use arena::{Address, Word};
pub(crate) use call::{Arg, Call, Constant, Label, Names, Nr, OnError, Slot, flags, names, nr};
pub(crate) use mounts::{Attributes, Change};
pub(crate) use program::{Input, Program, Step};
pub use report::Part;
pub(crate) use report::Report;
pub(crate) use stub::{header_bytes, stub};

use crate::outcome::Enforcement;
use crate::watch::Bounds;

/// What a sandbox and a command were compiled to: the system calls of the host, of the sandbox's init, and of the
/// helper that starts the command, in order.
///
/// Its `Display` lists every call under the step that it belongs to, with its real arguments; `<report>` and the like
/// stand for descriptors that get their numbers at the launch. A plan can be launched any number of times with
/// [`Plan::spawn`].
#[derive(Clone, Debug)]
pub struct Plan {
    /// Made by the host before the launch; what they store is closed after it.
    pub(crate) host: Program,
    pub(crate) init: Option<Init>,
    pub(crate) helper: Process,
    /// No pid namespace ends with the sandbox: the helper stays and ends the command.
    pub(crate) helper_stays: bool,
    pub(crate) stdio: [Stream; 3],
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
    pub(crate) id_mappings: Vec<IdMaps>,
    /// Host ids of which the sandbox gets one for itself.
    pub(crate) own_ids: HostRange,
    /// What is kept while the command is watched.
    pub(crate) bounds: Bounds,
    /// Who the pipes of the command are given to, if the host may give them away.
    pub(crate) owner: Option<(HostId, HostId)>,
    pub(crate) search: Search,
    pub(crate) enforced: Enforcement,
    /// A call that is made to fail, for tests.
    pub(crate) fault: Option<(Part, usize)>,
}

/// The two programs of a process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Run by the child while it shares the memory of the host.
    pub stub: Program,
    /// Run in an image of its own.
    pub image: Program,
}

/// The init, and what the host does for it.
#[derive(Clone, Debug)]
pub(crate) struct Init {
    pub process: Process,
    pub birth: Birth,
    pub maps: Option<IdMaps>,
}

/// How the init comes into its namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    /// The host clones it with these `CLONE_NEW…` flags.
    Cloned(u64),
    /// The stub is a launcher: it joins namespaces that exist, and clones the init itself. Its slots hold the pid and
    /// the pidfd.
    Launched { pid: Slot, pidfd: Slot },
}

/// An id of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostId {
    Id(u32),
    /// The one that the sandbox gets for itself at the launch.
    Own,
}

impl HostId {
    /// The number, where the sandbox's own is known.
    pub fn number(self, own: u32) -> u32 {
        match self {
            Self::Id(id) => id,
            Self::Own => own,
        }
    }
}

/// A range of host ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostRange {
    pub first: u32,
    pub count: u32,
}

/// A line of `uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapLine {
    pub inside: u32,
    pub outside: HostId,
    pub count: u32,
}

impl MapLine {
    pub fn one(inside: u32, outside: HostId) -> Self {
        Self { inside, outside, count: 1 }
    }

    /// The host id of an id of the inside.
    pub fn to_outside(self, id: u32) -> Option<HostId> {
        let offset = id.checked_sub(self.inside).filter(|&offset| offset < self.count)?;
        match self.outside {
            HostId::Id(first) => first.checked_add(offset).map(HostId::Id),
            HostId::Own => Some(HostId::Own),
        }
    }
}

/// The id maps of a user namespace, and who writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub uid: Vec<MapLine>,
    pub gid: Vec<MapLine>,
    /// `setgroups` is denied first, as the kernel demands of an ordinary user.
    pub deny_setgroups: bool,
    /// By newuidmap and newgidmap, which know the ranges of `/etc/subuid`.
    pub by_helper_programs: bool,
}

/// A standard stream of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Inherit,
    Null,
    Piped,
    Descriptor(u16),
    Pty,
}

/// Where the command's program was looked for.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub program: PathBuf,
    pub candidates: Vec<PathBuf>,
}

impl Plan {
    fn programs(&self) -> Vec<(&Program, &'static str)> {
        const STUB: &str = "before its image is executed";
        let init = self.init.iter().flat_map(|init| [(&init.process.stub, STUB), (&init.process.image, "its image")]);
        let host = (!self.host.calls.is_empty()).then_some((&self.host, "in the host"));
        host.into_iter().chain(init).chain([(&self.helper.stub, STUB), (&self.helper.image, "its image")]).collect()
    }

    pub(crate) fn program(&self, part: Part) -> Option<&Program> {
        let init = self.init.as_ref().map(|init| &init.process);
        match part {
            Part::Host => Some(&self.host),
            Part::InitStub => init.map(|process| &process.stub),
            Part::InitImage => init.map(|process| &process.image),
            Part::HelperStub => Some(&self.helper.stub),
            Part::HelperImage => Some(&self.helper.image),
        }
    }

    /// The calls of a part, and of each one whether it is made in any case and its failure fails the launch: the seam
    /// of the fault tests.
    #[doc(hidden)]
    pub fn calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        let Some(program) = self.program(part) else { return vec![] };
        // What lies between a branch and its target may be passed over.
        let mut certain_from = 0;
        let calls = program.calls.iter().enumerate().map(|(index, call)| {
            let certain = index as u32 >= certain_from;
            certain_from = certain_from.max(program.furthest(call));
            (call.nr.name, certain && call.on_error == OnError::Fail)
        });
        calls.collect()
    }

    /// The same plan with one call replaced by one that no kernel has, so that it fails with `ENOSYS`.
    #[doc(hidden)]
    #[must_use]
    pub fn with_fault(mut self, part: Part, call: usize) -> Self {
        self.fault = Some((part, call));
        self
    }
}
