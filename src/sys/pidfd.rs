//! Descriptors of processes (pidfd_open(2)). A signal sent by one reaches that process or none, even if its PID is
//! reused.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Opens a pidfd of the process that has this PID now.
pub(crate) fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the kernel has just opened this descriptor for us.
    Errno::result(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal.
pub(crate) fn send(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    send_with(pidfd, signal, 0)
}

/// Sends a signal to the process that has this PID now, or to the process group of a negative number.
pub(crate) fn send_to(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: the call takes two numbers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sends a signal to the processes of the group that the process leads, or has led (since Linux 6.9; before: `EINVAL`).
pub(crate) fn send_to_group(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    /// `PIDFD_SIGNAL_PROCESS_GROUP` of `linux/pidfd.h`.
    const PROCESS_GROUP: u32 = 1 << 2;
    send_with(pidfd, signal, PROCESS_GROUP)
}

fn send_with(pidfd: BorrowedFd<'_>, signal: i32, flags: u32) -> nix::Result<()> {
    let info = std::ptr::null::<()>();
    // SAFETY: the call takes a descriptor, two numbers and a null pointer, and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, flags) };
    Errno::result(result).map(drop)
}
