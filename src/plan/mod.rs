//! The plan of a sandbox: for each of its processes the system calls to make, as plain data.
//!
//! Nothing here makes a system call, and nothing knows what a feature is: the features of `confine` write their calls
//! into a [`Program`], and `launch` runs them.

mod arena;
mod call;
pub(crate) mod helper;
pub(crate) mod init;
mod program;
mod report;
mod show;
mod stub;
mod syscalls;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use arena::{Address, Ref, Word};
pub(crate) use call::{Arg, Nr, OnError, Slot, flags, nr};
pub(crate) use program::{Input, Program, Step};
pub use report::Part;
pub(crate) use report::Report;
pub(crate) use stub::{header_bytes, stub};

use crate::outcome::Enforcement;

/// What a sandbox and a command were compiled to: the system calls of the sandbox's init and of the helper that
/// starts the command, in order.
///
/// Its `Display` lists every call under the step that it belongs to, with its real arguments; `<report>` and the like
/// stand for descriptors that get their numbers at the launch. A plan can be launched any number of times with
/// [`Plan::spawn`].
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) init: Option<Init>,
    pub(crate) helper: Process,
    pub(crate) stdio: [Stream; 3],
    pub(crate) pty: bool,
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
    pub(crate) detached: Vec<Detached>,
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
    /// `CLONE_NEW…` flags that it starts with.
    pub namespaces: u64,
    pub maps: Option<IdMaps>,
    /// Whether the helper joins a time namespace of the init.
    pub time: bool,
}

/// A line of `uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IdRange {
    /// First id inside the sandbox.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

impl IdRange {
    /// Where an id of the inside is on the host.
    pub(crate) fn to_outside(self, id: u32) -> Option<u32> {
        let offset = id.checked_sub(self.inside)?;
        (offset < self.count).then(|| self.outside + offset)
    }
}

/// The id maps of a user namespace, and who writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub uid: Vec<IdRange>,
    pub gid: Vec<IdRange>,
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

/// A mount that the host makes before the launch: a copy of `source` in which `uid` and `gid` of the disk appear as
/// other ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detached {
    pub source: PathBuf,
    pub uid: IdRange,
    pub gid: IdRange,
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
        init.chain([(&self.helper.stub, STUB), (&self.helper.image, "its image")]).collect()
    }

    pub(crate) fn program(&self, part: Part) -> Option<&Program> {
        let init = self.init.as_ref().map(|init| &init.process);
        match part {
            Part::InitStub => init.map(|process| &process.stub),
            Part::InitImage => init.map(|process| &process.image),
            Part::HelperStub => Some(&self.helper.stub),
            Part::HelperImage => Some(&self.helper.image),
        }
    }

    /// How many calls a part has, and whether the failure of each one fails the launch: the seam of the fault tests.
    #[doc(hidden)]
    pub fn calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        let calls = self.program(part).map(|program| &program.calls[..]).unwrap_or_default();
        calls.iter().map(|call| (call.nr.name, call.on_error == OnError::Fail)).collect()
    }

    /// The same plan with one call replaced by one that no kernel has, so that it fails with `ENOSYS`.
    #[doc(hidden)]
    #[must_use]
    pub fn with_fault(mut self, part: Part, call: usize) -> Self {
        self.fault = Some((part, call));
        self
    }
}
