//! What is watched: a sandbox whose program runs, whoever has started it.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::error::Result;
use crate::outcome::{Leaked, Lost, Termination};

/// A sandbox whose program runs. Dropping it ends the sandbox.
pub(crate) trait Running: Debug + Send + Sync {
    /// The program's pid.
    fn pid(&self) -> i32;

    /// The program's pidfd, which is readable when it has ended.
    fn pidfd(&self) -> BorrowedFd<'_>;

    /// When the program was started.
    fn started(&self) -> Instant;

    /// Sends a signal to the program.
    fn signal(&self, signal: i32) -> nix::Result<()>;

    /// Whether the program has ended, waiting for that as long as `timeout` says.
    fn has_ended(&self, timeout: PollTimeout) -> nix::Result<bool>;

    /// Kills every process of the sandbox; the program is still to be reaped.
    fn end(&self);

    /// Removes what keeps the program from ending after it was killed.
    fn unhinder(&self);

    /// Whether the program was killed so long ago that the kernel does not seem to let it end: [`Running::reap`] says why.
    fn is_overdue(&self) -> bool;

    /// Kills the program, and with it every process of its pid namespace, from another thread.
    fn killer(&self) -> nix::Result<Box<dyn Fn() + Send>>;

    /// Ends the sandbox, and takes the program's status. With `alone` nobody else was in its cgroup when it had ended.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnded`](crate::Error::NotEnded) if the program does not end. It is left to be reaped later.
    fn reap(&mut self, alone: bool) -> Result<Ended>;

    /// What the sandbox's cgroup has counted so far, if there is one.
    fn account(&self) -> Option<Account>;

    /// The first processes in the sandbox's cgroup beside the program, and how many more there are.
    fn others(&self) -> (Vec<Leaked>, u64);

    /// Stops all processes of the sandbox, or lets them go on.
    fn freeze(&self, frozen: bool) -> Result<()>;
}

/// What a cgroup has counted: all of the program and its descendants together. What its kernel does not count is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    pub cpu: Option<Duration>,
    pub cpu_user: Option<Duration>,
    pub cpu_system: Option<Duration>,
    pub memory_peak: Option<u64>,
    pub memory_pressure: Option<Duration>,
    /// Why the kernel has killed a process for memory, if it has.
    pub oom: Option<Oom>,
    pub pids_peak: Option<u64>,
    pub pids_refused: Option<u64>,
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
}

/// Why the kernel has killed a process for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oom {
    /// A limit of the sandbox's own was exceeded.
    OwnLimit,
    /// The memory of the machine, or of a group above, was used up.
    Above,
}

impl Oom {
    pub fn termination(self) -> Termination {
        match self {
            Self::OwnLimit => Termination::Memory,
            Self::Above => Termination::HostMemory,
        }
    }
}

/// How a program ended, and what the kernel counted of it, if nobody else has taken that.
pub(crate) struct Ended {
    pub how: How,
    pub rusage: Option<libc::rusage>,
    /// Of the sandbox's cgroup, to the end.
    pub account: Option<Account>,
    /// The sandbox ended itself, because the time was up.
    pub time_was_up: bool,
    /// The same because the program had ended: who else was there may not have been listed before.
    pub ended_itself: bool,
    /// What of the isolation was lost while it ran.
    pub lost: Vec<Lost>,
}

impl Ended {
    /// The bare end.
    pub fn of(how: How) -> Self {
        Self { how, rusage: None, account: None, time_was_up: false, ended_itself: false, lost: vec![] }
    }
}

/// What wait(2) says of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Exited(i32),
    Signaled {
        signal: i32,
        core: bool,
    },
    /// Another wait of the host took the status, and the kernel keeps no copy.
    Unknown,
}

/// The time that a resource usage holds, of user mode and of the kernel.
pub(super) fn times(rusage: &libc::rusage) -> [Duration; 2] {
    [rusage.ru_utime, rusage.ru_stime]
        .map(|time| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000))
}
