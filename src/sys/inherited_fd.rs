//! Descriptors that a process has inherited by their number.

use std::os::fd::RawFd;

use nix::errno::Errno;

/// Closes a descriptor, which the process has inherited, when a program is executed (fcntl(2), `F_SETFD`). Closes nothing now.
pub(crate) fn close_on_exec(number: RawFd) -> nix::Result<()> {
    // SAFETY: the call takes numbers alone, and the descriptor stays open in this process.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(result).map(drop)
}
