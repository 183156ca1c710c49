//! What is watched: a sandbox whose program runs, whoever has started it.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

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

    /// Ends the sandbox, and takes the program's status.
    fn reap(&mut self) -> nix::Result<Ended>;
}

/// How a program ended, and the kernel's account of it, if nobody else has taken that.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub how: How,
    pub account: Option<libc::rusage>,
    /// The sandbox ended itself, because the time was up.
    pub time_was_up: bool,
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

/// The time that an account holds, of user mode and of the kernel.
pub(super) fn times(account: &libc::rusage) -> [Duration; 2] {
    [account.ru_utime, account.ru_stime]
        .map(|time| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000))
}
