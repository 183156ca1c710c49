//! The plan of a sandbox: a script of system calls for each set-up process, as plain data.
//!
//! The layers of `confine` append calls to a [`Script`], and `launch` has the interpreter execute it. Nothing here
//! makes a system call. Of the layers it knows only the name that a failed call is reported under. It also holds the plain
//! data that the launch needs beside the scripts, such as ID maps and placeholders.

mod arena;
mod attempt;
mod call;
mod display;
#[cfg(feature = "_testing")]
mod fault;
mod flag;
pub(crate) mod memory_map;
pub(crate) mod message;
mod mount_attr;
mod mount_syscalls;
pub(crate) mod report;
mod resources;
mod script;
mod stub;
mod syscalls;
mod value;

use std::time::Duration;

pub(crate) use call::{Arg, Call, Constant, ConstantNames, Nr, OnError, SyscallName, flags, names, nr};
#[cfg(feature = "_testing")]
pub(crate) use fault::CommandFaults;
pub(crate) use flag::Flag;
pub(crate) use mount_attr::{Attributes, Change};
#[cfg(feature = "_testing")]
pub use report::Part;
#[cfg(not(feature = "_testing"))]
pub(crate) use report::Part;
pub(crate) use report::{Pids, Report};
pub(crate) use resources::{
    Absent, HostId, HostRange, IdMaps, Inherited, MapLine, MapWriter, Placeholder, Search, Stream, intern, share,
};
pub(crate) use script::{Added, Script, Step};
pub(crate) use stub::stub;
pub(crate) use value::{AFFINITY_WORDS, Address, Input, Label, Ref, Slot, Word};

/// The system calls of the helper, init and the program's process, in order.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Calls of the helper while it still shares the caller's memory.
    pub(crate) stub: Script,
    /// Calls of the helper in an image of its own, with those of init and of the program's process.
    pub(crate) helper: Script,
    /// The ID maps of the user namespace. The helper requests those that it cannot write itself.
    pub(crate) maps: Option<IdMaps>,
    pub(crate) inherited: Inherited,
    pub(crate) id_mappings: Vec<IdMaps>,
    /// The host IDs from which the sandbox gets one of its own.
    pub(crate) own_ids: Option<HostRange>,
    /// Placeholders on the host, which prevent the program from creating these paths.
    pub(crate) placeholders: Vec<Placeholder>,
    /// The time that the set-up may take.
    pub(crate) setup_timeout: Duration,
    pub(crate) search: Search,
    /// A call that a test makes fail.
    pub(crate) fault: Option<(Part, usize)>,
}

/// The calls of the process of a command in a session, which is a clone of the session's helper.
#[derive(Clone, Debug)]
pub(crate) struct CommandPlan {
    pub(crate) script: Script,
    pub(crate) inherited: Inherited,
    pub(crate) search: Search,
    /// The time that the set-up of the process may take.
    pub(crate) setup_timeout: Duration,
    /// Whether the process shares the memory of the helper until it executes its program.
    pub(crate) shares_memory: bool,
}

impl Plan {
    fn scripts(&self) -> Vec<(&Script, &'static str)> {
        let parts = [(&self.stub, "before its image is executed"), (&self.helper, "its image")];
        parts.into_iter().filter(|(script, _)| !script.calls.is_empty()).collect()
    }

    pub(crate) fn script(&self, part: Part) -> &Script {
        match part {
            Part::Stub => &self.stub,
            Part::Helper | Part::Command | Part::Loader => &self.helper,
        }
    }
}
