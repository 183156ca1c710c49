//! The scheduling, I/O and OOM priorities of the caller (sched(7), ioprio_set(2), proc(5)).

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Read};

use bitflags::bitflags;

/// The file with the OOM score adjustment of the process that reads it.
pub(crate) const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// The priorities that a child inherits from the calling thread and its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Priorities {
    policy: libc::c_int,
    /// Whether children do not inherit the scheduling policy and nice value (sched(7), `SCHED_RESET_ON_FORK`).
    resets_on_fork: bool,
    pub nice: i32,
    io_class: i64,
    flushes_io: bool,
    pub oom_score_adj: i32,
}

bitflags! {
    /// Priorities above those of an ordinary thread. Each needs a capability or a raised limit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Preferences: u8 {
        /// A real-time scheduling policy, or the one with deadlines.
        const REAL_TIME = 1;
        const NICE = 1 << 1;
        const REAL_TIME_IO = 1 << 2;
        /// Memory without waiting for input and output, and writing that is not throttled (prctl(2),
        /// `PR_SET_IO_FLUSHER`).
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
    /// Reads the priorities of the calling thread. A value that the kernel does not return counts as the default.
    ///
    /// # Errors
    ///
    /// Fails if `oom_score_adj` cannot be read.
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
            // The kernel returns 20 minus the nice value, so that no result is negative.
            nice: if kept > 0 { 20 - kept as i32 } else { 0 },
            io_class: io >> CLASS_SHIFT,
            flushes_io: flushes == 1,
            oom_score_adj: oom_score_adj()?,
        })
    }

    /// Returns the priorities that a program of an ordinary user cannot have.
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

/// Returns whether the calling thread has the policy SCHED_DEADLINE, and therefore cannot clone (sched(7)).
pub(crate) fn thread_has_deadlines() -> bool {
    // With SCHED_RESET_ON_FORK the thread can clone, and the flag makes the numbers differ.
    policy_of_thread() == libc::SCHED_DEADLINE
}

/// Returns whether a process has this user ID, in this PID namespace or in a descendant.
pub(crate) fn user_has_process(id: u32) -> bool {
    // SAFETY: the call takes two numbers.
    let found = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_USER, id) };
    found >= 0
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
