//! What the processes of a sandbox write to the channel of reports: records of 64-bit words, the first of which says
//! what kind of record it is.

use std::time::Duration;

/// The part of a plan that a report comes from, or that a fault is put into.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Part {
    Host,
    Stub,
    Helper,
}

impl Part {
    #[allow(missing_docs)]
    pub const ALL: [Self; 3] = [Self::Host, Self::Stub, Self::Helper];

    /// What the interpreter adds to the index of a call that has failed.
    pub(crate) fn tag(self) -> u64 {
        (self as u64 + 1) << 32
    }
}

/// `{STARTED, pid of the init, pid of the command, seconds, nanoseconds}` of its start by the real-time clock, with the pidfd of the command and the master of a terminal as passed
/// descriptors.
pub(crate) const STARTED: u64 = 16 << 32;
/// `{EXEC_FAILED, results of execve.., results of faccessat..}`
pub(crate) const EXEC_FAILED: u64 = 17 << 32;
/// `{MAPS_WANTED}`
pub(crate) const MAPS_WANTED: u64 = 18 << 32;
/// `{LISTENING}`, with the listener of the seccomp filter as a passed descriptor
pub(crate) const LISTENING: u64 = 19 << 32;
/// `{TRIED, slots ..}`
pub(crate) const TRIED: u64 = 20 << 32;

/// The processes beside the helper, as far as they are started; 0 stands for none.
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
    /// The helper waits for its id maps.
    MapsWanted,
    /// The seccomp filter is there, and somebody has to listen to it.
    Listening,
    /// The command runs, since then by the real-time clock, which no time namespace moves.
    Started(Pids, Duration),
    /// No candidate could be executed: for each, the errno and whether it is visible in the sandbox.
    NotExecuted(Vec<(i32, bool)>),
    /// What a program of trials has in its slots, from the first of its own on.
    Tried(Vec<u64>),
}

impl Report {
    /// Bytes of the longest record, for that many places where a program is looked for.
    pub fn longest(candidates: usize) -> usize {
        (8 + 16 * candidates).max(40)
    }

    /// `None` for what no process of a sandbox writes.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let words: Vec<u64> =
            record.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())).collect();
        match *words.first()? {
            STARTED => {
                Some(Self::Started(pids(words.get(1..3)?), Duration::new(*words.get(3)?, *words.get(4)? as u32)))
            }
            MAPS_WANTED => Some(Self::MapsWanted),
            LISTENING => Some(Self::Listening),
            TRIED => Some(Self::Tried(words)),
            EXEC_FAILED => {
                let (results, visible) = words[1..].split_at((words.len() - 1) / 2);
                let failures = results.iter().zip(visible);
                Some(Self::NotExecuted(failures.map(|(&result, &seen)| (-(result as i64) as i32, seen == 0)).collect()))
            }
            index => {
                let part = *Part::ALL.get(((index >> 32) as usize).checked_sub(1)?)?;
                let (call, errno) = (index as u32 as usize, *words.get(1)? as i32);
                Some(Self::Failed { part, call, errno })
            }
        }
    }
}

fn pids(words: &[u64]) -> Pids {
    Pids { init: words[0] as i32, command: words[1] as i32 }
}
