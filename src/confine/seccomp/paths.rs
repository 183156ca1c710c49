//! Which argument of a system call is a path: what a report of a refused call shows.

use crate::system_call::SystemCall;

/// Calls by the number of the argument.
#[rustfmt::skip]
const FIRST: &[&str] = &[
    "access", "acct", "chdir", "chmod", "chown", "chroot", "creat", "execve", "getxattr", "lchown", "lgetxattr", "link",
    "listxattr", "llistxattr", "lremovexattr", "lsetxattr", "lstat", "mkdir", "mknod", "open", "pivot_root", "readlink",
    "removexattr", "rename", "rmdir", "setxattr", "stat", "statfs", "swapoff", "swapon", "symlink", "truncate", "umount2",
    "unlink", "uselib", "utime", "utimes", "memfd_create",
];
#[rustfmt::skip]
const SECOND: &[&str] = &[
    "execveat", "faccessat", "faccessat2", "fchmodat", "fchmodat2", "fchownat", "fspick", "futimesat", "inotify_add_watch",
    "linkat", "mkdirat", "mknodat", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "newfstatat", "open_tree",
    "openat", "openat2", "quotactl", "readlinkat", "renameat", "renameat2", "statx", "unlinkat", "utimensat",
];

/// The argument of a call that points to a path, or the first of them.
pub(super) fn path_argument(number: i32) -> Option<usize> {
    let name = SystemCall(number).name()?;
    [FIRST, SECOND].iter().position(|names| names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_those_of_system_calls() {
        for name in FIRST.iter().chain(SECOND) {
            assert!(SystemCall::named(name).is_some() || SystemCall::is_elsewhere(name), "{name}");
        }
        assert_eq!(path_argument(libc::SYS_openat as i32), Some(1));
        assert_eq!(path_argument(libc::SYS_chdir as i32), Some(0));
        assert_eq!(path_argument(libc::SYS_read as i32), None);
    }
}
