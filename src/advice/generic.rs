//! Hints by the error number alone, whatever the step.

use crate::unix::Errno;

/// Returns the hint for a resource of which the caller or the machine is short. It is more certain than that of a step.
pub(crate) fn shortage(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EMFILE => Some("the caller is at its limit of open descriptors: close some, or raise RLIMIT_NOFILE"),
        Errno::ENFILE => Some("the machine is at its limit of open files: raise fs.file-max (sysctl)"),
        Errno::ETOOMANYREFS => Some(
            "this user has too many descriptors in flight over UNIX sockets (unix(7)): raise the caller's soft limit \
             RLIMIT_NOFILE, or terminate what has sent them",
        ),
        Errno::ENOMEM => Some(
            "memory is short, or a limit on it is reached: terminate other processes, or raise the limit (memory.max \
             of the caller's cgroup, RLIMIT_AS)",
        ),
        _ => None,
    }
}

/// Returns the hint for an error that no step and no row of the table explains.
pub(crate) fn generic(errno: Errno) -> &'static str {
    match errno.number() {
        libc::EPERM | libc::EACCES => {
            "find what denies it to the caller (permissions, a security module, a seccomp filter), and allow it there"
        }
        libc::ENOSYS => "use a newer kernel, or allow the call in the seccomp filter of the caller",
        libc::ENOENT => "pass a path that exists",
        libc::ENOTDIR => "pass a path whose components but the last are directories",
        libc::ELOOP => "pass a path without symlinks",
        libc::EAGAIN => {
            "terminate other processes of this user, or raise RLIMIT_NPROC and pids.max of the caller's cgroup"
        }
        libc::ENOSPC | libc::EDQUOT => "free space on the file system, or raise the quota",
        libc::EROFS => "use a directory of a file system that is writable",
        libc::EIO => "look in the kernel's log for a device that fails",
        libc::EBADF => {
            "close only descriptors that the caller has opened itself: it may have closed one of the sandbox"
        }
        _ => "see the manual page of the call for the meaning of the error",
    }
}
