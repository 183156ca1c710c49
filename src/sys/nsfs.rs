//! Relations between PID namespaces (ioctl_nsfs(2)).

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Opens the PID namespace that a PID namespace was created in. Returns `None` above the caller's own.
pub(crate) fn parent(namespace: &File) -> Option<File> {
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_PARENT) };
    // SAFETY: the kernel has just opened this descriptor for us.
    (fd >= 0).then(|| unsafe { File::from(OwnedFd::from_raw_fd(fd)) })
}

/// Returns the pid of a PID namespace's init, as the caller sees it (since Linux 6.11).
pub(crate) fn init(namespace: &File) -> Option<i32> {
    /// `NS_GET_PID_FROM_PIDNS` of `linux/nsfs.h`.
    const GET_PID: libc::Ioctl = 0x8004_b706u32 as libc::Ioctl;
    // SAFETY: the request takes a number.
    let pid = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_PID, 1) };
    (pid > 0).then_some(pid)
}
