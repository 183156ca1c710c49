//! Which argument of a system call is a path, so that the record of a denied call can show it.

use crate::syscall::SystemCall;

/// Calls whose first argument points to a path, or the first one of two.
#[rustfmt::skip]
const FIRST: &[&str] = &[
    "access", "acct", "chdir", "chmod", "chown", "chroot", "creat", "execve", "getxattr", "lchown", "lgetxattr", "link",
    "listxattr", "llistxattr", "lremovexattr", "lsetxattr", "lstat", "mkdir", "mknod", "open", "pivot_root", "readlink",
    "removexattr", "rename", "rmdir", "setxattr", "stat", "statfs", "swapoff", "swapon", "symlink", "truncate", "umount2",
    "unlink", "uselib", "utime", "utimes", "memfd_create",
];
/// Calls whose second argument points to a path.
#[rustfmt::skip]
const SECOND: &[&str] = &[
    "execveat", "faccessat", "faccessat2", "fchmodat", "fchmodat2", "fchownat", "fspick", "futimesat", "inotify_add_watch",
    "linkat", "mkdirat", "mknodat", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "newfstatat", "open_tree",
    "openat", "openat2", "quotactl", "readlinkat", "renameat", "renameat2", "statx", "unlinkat", "utimensat",
];

/// Returns the index of the argument of a call that points to a path, or of the first one of them.
pub(super) fn path_argument(number: i32) -> Option<usize> {
    let name = SystemCall::new(number).name()?;
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
