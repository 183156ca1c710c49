//! The plan of a sandbox: for each of its processes the system calls to make, as plain data.
//!
//! Nothing here makes a system call, and nothing knows what a feature is: the features of `confine` write their calls
//! into a [`Program`], and `launch` runs them.

mod arena;
mod call;
mod fixed_filter;
pub(crate) mod helper;
pub(crate) mod init;
mod message;
mod mounts;
pub(crate) mod place;
mod program;
mod report;
mod show;
mod stub;
mod sync;
mod syscalls;
mod trial;

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use arena::{Address, Word};
pub(crate) use call::{Arg, Call, Constant, Label, Names, OnError, Slot, SystemCall, flags, names, nr};
pub(crate) use fixed_filter::NO_ROOM;
pub(crate) use message::Listener;
pub(crate) use mounts::{Attributes, Change};
pub(crate) use program::{Added, Input, Program, Step};
pub use report::Part;
pub(crate) use report::{Pids, Report};
pub(crate) use stub::stub;

use crate::cgroup::Spec;
use crate::outcome::Enforcement;
use crate::sys::priority::Preferences;
use crate::watch::{Bounds, Rules};

/// What a sandbox and a command were compiled to: the system calls of the host, and of the helper with the init and the
/// command that it starts, in order.
///
/// Its `Display` lists every call under the step that it belongs to, with its real arguments; `<report>` and the like
/// stand for descriptors that get their numbers at the launch. A plan can be launched any number of times with
/// [`Plan::spawn`].
#[derive(Clone, Debug)]
pub struct Plan {
    /// Made by the host before the launch; what they store is closed after it.
    pub(crate) host: Program,
    /// Made by the child of the host while it shares the host's memory.
    pub(crate) stub: Program,
    /// Made by it in an image of its own: the rest, also of the init and of the command until it is executed.
    pub(crate) helper: Program,
    /// The id maps. The helper asks for those that it can't write itself.
    pub(crate) maps: Option<IdMaps>,
    /// No pid namespace ends with the sandbox: the helper stays and ends the command.
    pub(crate) helper_stays: bool,
    pub(crate) stdio: [Stream; 3],
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
    /// Those of them that the command gets beside its standard streams, each with its number there.
    pub(crate) handed: Vec<(u16, u32)>,
    pub(crate) id_mappings: Vec<IdMaps>,
    /// Host ids of which the sandbox gets one for itself.
    pub(crate) own_ids: Option<HostRange>,
    pub(crate) cgroup: Option<Spec>,
    /// What is kept from being created on the host.
    pub(crate) placeholders: Vec<Placeholder>,
    /// What is kept while the command is watched.
    pub(crate) bounds: Bounds,
    /// Who the pipes of the command are given to, if the host may give them away.
    pub(crate) owner: Option<(HostId, HostId)>,
    /// What decides the calls that the seccomp filter hands to the host, if it does.
    pub(crate) rules: Option<Arc<dyn Rules>>,
    /// Whether a callback is asked.
    pub(crate) asks: bool,
    /// What the set-up may take.
    pub(crate) setup_timeout: Duration,
    /// The preferences of the caller that the program does not inherit: a thread that has others can't launch the plan.
    pub(crate) taken: Preferences,
    pub(crate) search: Search,
    pub(crate) enforced: Enforcement,
    /// A call that is made to fail, for tests.
    pub(crate) fault: Option<(Part, usize)>,
}

/// A path of the host at which something must stand while the sandbox lives: what is there, or what is created for that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// The directory, resolved.
    pub parent: PathBuf,
    pub name: OsString,
    /// Contents of a file; a directory if there are none.
    pub contents: Option<Vec<u8>>,
}

impl Placeholder {
    /// The time of modification of placeholders, in seconds: early in 1970.
    pub const MARK: i64 = 437_133;

    /// Whether a directory or file is a placeholder, which counts as absent.
    pub fn is_one(there: &Metadata) -> bool {
        there.mtime() == Self::MARK && there.mtime_nsec() == 0
    }

    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
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

impl HostRange {
    /// The ids that a root caller gives away by default: none of them belongs to a user or to another container manager's
    /// customary ranges.
    pub const OWN: Self = Self { first: 0x7000_0000, count: 0x0f00_0000 };
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

    /// Whether an id of the host's is in it.
    pub fn has(self, outside: u32) -> bool {
        match self.outside {
            HostId::Id(first) => outside.checked_sub(first).is_some_and(|offset| offset < self.count),
            HostId::Own => false,
        }
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
    pub writer: Writer,
}

impl IdMaps {
    /// Maps by which no owner of a file has an id. Groups keep theirs, for what they may read.
    pub fn of_nobody(groups: impl IntoIterator<Item = HostId>) -> Self {
        // The kernel wants a line at least: no file system gives this id away.
        const NONE: u32 = u32::MAX - 2;
        let none = MapLine::one(NONE, HostId::Id(HostRange::OWN.first));
        let groups = groups.into_iter().filter_map(|group| match group {
            HostId::Id(id) => Some(MapLine::one(id, group)),
            HostId::Own => None,
        });
        Self { uid: vec![none], gid: [none].into_iter().chain(groups).collect(), writer: Writer::Host }
    }
}

/// Who writes id maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The process itself, which may map its own id.
    Process,
    Host,
    /// newuidmap and newgidmap, which know the ranges of `/etc/subuid`.
    HelperPrograms,
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
        let parts =
            [(&self.host, "in the host"), (&self.stub, "before its image is executed"), (&self.helper, "its image")];
        parts.into_iter().filter(|(program, _)| !program.calls.is_empty()).collect()
    }

    pub(crate) fn program(&self, part: Part) -> &Program {
        match part {
            Part::Host => &self.host,
            Part::Stub => &self.stub,
            Part::Helper => &self.helper,
        }
    }

    /// The calls of a part, and of each one whether it is made in any case and its failure fails the launch: the seam
    /// of the fault tests.
    #[doc(hidden)]
    pub fn calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        let program = self.program(part);
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
