//! The fill level of pipes (ioctl(2)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Returns the number of unread bytes in a pipe (`FIONREAD`).
pub(crate) fn unread(pipe: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, which is ours.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(result).map(|_| bytes.unsigned_abs().into())
}
