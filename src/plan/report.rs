//! The records that set-up processes write to the report channel: 64-bit words, of which the first is the kind of
//! record.

use std::time::Duration;

/// The part of a plan that a report comes from, or that a fault is put into.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Part {
    Stub,
    Helper,
    Command,
    Loader,
}

impl Part {
    /// Those of a plan. `Command` is the script of a command of a session, and `Loader` the one that reads it from a file if it
    /// is large.
    #[cfg(feature = "_testing")]
    pub const ALL: [Self; 2] = [Self::Stub, Self::Helper];
    /// All whose calls can fail.
    const REPORTING: [Self; 4] = [Self::Stub, Self::Helper, Self::Command, Self::Loader];

    /// The number that the interpreter adds to the index of a failed call.
    pub(crate) fn tag(self) -> u64 {
        (self as u64 + 1) << 32
    }
}

/// `{STARTED, pid of init, pid of the program, seconds, nanoseconds}` (the start by the real-time clock), with the
/// pidfds of the program and of init and the master of the pseudo-terminal as passed descriptors.
pub(crate) const STARTED: u64 = 16 << 32;
/// `{EXEC_FAILED, results of execve.., results of faccessat..}`
pub(crate) const EXEC_FAILED: u64 = 17 << 32;
/// `{MAPS_WANTED}`
pub(crate) const MAPS_WANTED: u64 = 18 << 32;
/// `{LISTENING}`, with the listener of the seccomp filter as a passed descriptor
pub(crate) const LISTENING: u64 = 19 << 32;
/// `{TRIED, slots ..}`
pub(crate) const TRIED: u64 = 20 << 32;
/// `{NAMESPACE, flag of clone(2)}`, with a descriptor of the namespace as a passed descriptor
pub(crate) const NAMESPACE: u64 = 21 << 32;
/// `{READY, pid of init}`, with the pidfd of init as a passed descriptor
pub(crate) const READY: u64 = 22 << 32;
/// `{NOT_CLONED, result of clone}`
pub(crate) const NOT_CLONED: u64 = 23 << 32;
/// `{PASSED}`, with a descriptor that the process of a command has opened for the caller
pub(crate) const PASSED: u64 = 24 << 32;

/// The exit status of init, or of a helper that stays, when it has terminated the sandbox at the wall-clock limit.
pub(crate) const WALL_TIME_EXCEEDED: i32 = 3;
/// The same when the program had exited and the caller did not react.
pub(crate) const PROGRAM_EXITED: i32 = 4;

/// The PIDs of init and of the program. 0 until they are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pids {
    pub init: i32,
    pub command: i32,
}

/// A record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A call of the set-up failed.
    Failed { part: Part, call: usize, errno: i32 },
    /// The helper waits for its ID maps.
    MapsWanted,
    /// The seccomp filter is installed, and needs a supervisor.
    Listening,
    /// A namespace of this kind, a flag of clone(2).
    Namespace(u32),
    /// The program was executed. The time is that of its start, by the real-time clock, which time namespaces do not
    /// change.
    Started(Pids, Duration),
    /// No candidate could be executed: the errno of each, and whether it is visible in the sandbox.
    NotExecuted(Vec<(i32, bool)>),
    /// The helper of a session waits for commands, and this is its init.
    Ready(i32),
    /// The process of a command could not be cloned, because of this errno.
    NotCloned(i32),
    /// The process of a command has opened a descriptor for the caller.
    Passed,
    /// The slots of a script of probes, without the reserved ones.
    Tried(Vec<u64>),
}

impl Report {
    /// The size of the longest record in bytes, for this number of candidates.
    pub fn longest(candidates: usize) -> usize {
        (8 + 16 * candidates).max(40)
    }

    /// Decodes a record. `None` if no set-up process writes it.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let words: Vec<u64> =
            record.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())).collect();
        match *words.first()? {
            STARTED => {
                Some(Self::Started(pids(words.get(1..3)?), Duration::new(*words.get(3)?, *words.get(4)? as u32)))
            }
            MAPS_WANTED => Some(Self::MapsWanted),
            LISTENING => Some(Self::Listening),
            NAMESPACE => Some(Self::Namespace(*words.get(1)? as u32)),
            READY => Some(Self::Ready(*words.get(1)? as i32)),
            NOT_CLONED => Some(Self::NotCloned(-(*words.get(1)? as i64) as i32)),
            PASSED => Some(Self::Passed),
            TRIED => Some(Self::Tried(words)),
            EXEC_FAILED => {
                let (results, visible) = words[1..].split_at((words.len() - 1) / 2);
                let failures = results.iter().zip(visible);
                Some(Self::NotExecuted(failures.map(|(&result, &seen)| (-(result as i64) as i32, seen == 0)).collect()))
            }
            index => {
                let part = *Part::REPORTING.get(((index >> 32) as usize).checked_sub(1)?)?;
                let (call, errno) = (index as u32 as usize, *words.get(1)? as i32);
                Some(Self::Failed { part, call, errno })
            }
        }
    }
}

fn pids(words: &[u64]) -> Pids {
    Pids { init: words[0] as i32, command: words[1] as i32 }
}
