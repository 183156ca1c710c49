//! Copies of descriptors that the caller names by their numbers.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Duplicates the descriptor with this number, as dup(2) does.
pub(crate) fn copy(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes numbers, and does not change what the descriptor refers to.
    let copy = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just created this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
