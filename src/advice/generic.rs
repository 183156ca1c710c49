//! Hints by the error number alone, whatever the step.

use std::borrow::Cow;

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

/// Returns the hint for an error that no step and no row of the table explains. `call` has failed.
pub(crate) fn generic(errno: Errno, call: Option<&str>) -> Cow<'static, str> {
    let hint = match errno.number() {
        libc::EPERM | libc::EACCES => {
            "find what denies it to the caller, and allow it there: look at the permissions, at dmesg for a security \
             module, and at Seccomp and CapEff in /proc/self/status"
        }
        libc::ENOSYS => "use a newer kernel, or allow the call in the seccomp filter of the caller",
        libc::ENOENT => "check that the file exists where the caller runs (/proc, /sys and /dev must be mounted)",
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
        _ => match call {
            Some(call) => return errors_of(call).into(),
            None => "see errno(3) for the meaning of the error",
        },
    };
    hint.into()
}

/// Returns the hint that names the manual page of a system call, library function or program.
pub(super) fn errors_of(call: &str) -> String {
    let section = match call {
        "newuidmap" | "newgidmap" => 1,
        "realpath" => 3,
        _ => 2,
    };
    format!("see ERRORS in {call}({section})")
}
