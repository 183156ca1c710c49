//! Entry points for fuzzing of private parsers. They exist only under `--cfg fuzzing`.
#![allow(missing_docs)]

use std::path::PathBuf;

use crate::child::Notification;
use crate::sys::seccomp_notify::Request;
use crate::syscall::ARCHITECTURE;

pub fn cgroup_figures(text: &str) {
    crate::cgroup::figures(text);
}

pub fn cgroup_places(mounts: &[u8], own: &[u8]) {
    crate::cgroup::places(mounts, own);
}

pub fn sub_ids(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    crate::confine::sub_ids(text, name, uid)
}

pub fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    crate::mountinfo::parse(table).into_iter().map(|line| line.point).collect()
}

/// What is read of a call of this process: the string that its first argument points to.
pub fn notified(number: i32, args: [u64; 6]) -> Option<Vec<u8>> {
    let pid = nix::unistd::getpid().as_raw();
    let request = Request { id: 0, pid, architecture: ARCHITECTURE, number, args };
    let notification = Notification::new(&request, &|_| true);
    let shown = format!("{notification:?}");
    assert!(!shown.is_empty());
    for argument in 0..8 {
        let _ = notification.bytes(argument, 64);
        let _ = notification.string(argument);
    }
    notification.string(0).ok()
}
