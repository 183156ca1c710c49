//! Pipes.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Bytes that were written to a pipe and not yet read (ioctl(2), `FIONREAD`).
pub(crate) fn unread(pipe: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, which is ours.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(result).map(|_| bytes.unsigned_abs().into())
}
