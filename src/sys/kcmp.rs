//! Comparison of descriptors (kcmp(2)).

use std::os::fd::RawFd;

/// Returns whether two descriptors of this process refer to the same open file description, with one offset and one set
/// of flags. If a seccomp filter denies the call, only a descriptor and itself count as the same.
pub(crate) fn is_same_description(one: RawFd, other: RawFd) -> bool {
    const FILE: libc::c_int = 0;
    let own = std::process::id();
    // SAFETY: the call takes numbers alone.
    one == other || unsafe { libc::syscall(libc::SYS_kcmp, own, own, FILE, one, other) } == 0
}
