//! By how much the caller is preferred to others (sched(7), ioprio_set(2), proc(5)).
#![allow(unsafe_code)]

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Read};

use bitflags::bitflags;

/// The file that says how likely the OOM killer is to choose a process.
pub(crate) const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// What a child inherits of the calling thread, and of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Priorities {
    policy: libc::c_int,
    /// Whether its children have none of its scheduling (sched(7), `SCHED_RESET_ON_FORK`).
    resets_on_fork: bool,
    pub nice: i32,
    io_class: i64,
    flushes_io: bool,
    pub oom_score_adj: i32,
}

bitflags! {
    /// Ways in which a thread is preferred to an ordinary one. Each takes a capability, or a limit that somebody has raised.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Preferences: u8 {
        /// A real-time scheduling policy, or the one with deadlines.
        const REAL_TIME = 1;
        const NICE = 1 << 1;
        const REAL_TIME_IO = 1 << 2;
        /// Memory without waiting for input and output, and writing that is not throttled (prctl(2), `PR_SET_IO_FLUSHER`).
        const IO_FLUSHER = 1 << 3;
        const OOM_SCORE = 1 << 4;
    }
}

const NAMES: [&str; 5] = [
    "a real-time scheduling policy",
    "a negative nice value",
    "real-time input and output",
    "the state IO_FLUSHER",
    "a negative oom_score_adj",
];

impl Display for Preferences {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().enumerate().filter(|(bit, _)| self.bits() >> bit & 1 == 1);
        f.write_str(&names.map(|(_, name)| *name).collect::<Vec<_>>().join(", "))
    }
}

impl Priorities {
    /// Those of the calling thread. What the kernel does not tell is taken for the default.
    ///
    /// # Errors
    ///
    /// `oom_score_adj` can't be read.
    pub fn of_thread() -> io::Result<Self> {
        const PROCESS: libc::c_int = 1;
        const CLASS_SHIFT: i64 = 13;
        const GET_IO_FLUSHER: libc::c_int = 58;
        // SAFETY: the calls take numbers alone.
        let (kept, io, flushes) = unsafe {
            (
                libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
                libc::syscall(libc::SYS_ioprio_get, PROCESS, 0),
                libc::syscall(libc::SYS_prctl, GET_IO_FLUSHER, 0, 0, 0, 0),
            )
        };
        let policy = policy_of_thread();
        Ok(Self {
            policy: policy & !libc::SCHED_RESET_ON_FORK,
            resets_on_fork: policy & libc::SCHED_RESET_ON_FORK != 0,
            // The kernel gives 20 less the nice value, so that no result is negative.
            nice: if kept > 0 { 20 - kept as i32 } else { 0 },
            io_class: io >> CLASS_SHIFT,
            flushes_io: flushes == 1,
            oom_score_adj: oom_score_adj()?,
        })
    }

    /// What a program of an ordinary user could not have.
    pub fn preferences(self) -> Preferences {
        const REAL_TIME: i64 = 1;
        let real_time = matches!(self.policy, libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE);
        let mut found = Preferences::empty();
        found.set(Preferences::REAL_TIME, real_time && !self.resets_on_fork);
        found.set(Preferences::NICE, self.nice < 0 && !self.resets_on_fork);
        found.set(Preferences::REAL_TIME_IO, self.io_class == REAL_TIME);
        found.set(Preferences::IO_FLUSHER, self.flushes_io);
        found.set(Preferences::OOM_SCORE, self.oom_score_adj < 0);
        found
    }
}

/// Whether the calling thread has deadlines, and so can't clone (sched(7)).
pub(crate) fn thread_has_deadlines() -> bool {
    // With the flag it can.
    policy_of_thread() == libc::SCHED_DEADLINE
}

fn policy_of_thread() -> libc::c_int {
    // SAFETY: the call takes a number alone.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    policy.max(0) as libc::c_int
}

fn oom_score_adj() -> io::Result<i32> {
    let mut text = [0; 8];
    let len = File::open(OOM_SCORE_ADJ)?.read(&mut text)?;
    let number = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
