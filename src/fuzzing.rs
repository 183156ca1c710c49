//! Doors for fuzzing to what parses and is not public. They are there under `--cfg fuzzing` alone.
#![allow(missing_docs)]

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::watch::{Answer, Heard, Listen, Notification};

pub fn cgroup_figures(text: &str) {
    crate::cgroup::figures(text);
}

pub fn cgroup_places(mounts: &[u8], own: &str) {
    crate::cgroup::places(mounts, own);
}

pub fn sub_ids(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    crate::confine::sub_ids(text, name, uid)
}

pub fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    crate::mountinfo::parse(table).into_iter().map(|line| line.point).collect()
}

/// Whatever is asked of it waits.
#[derive(Debug)]
struct Waiting;

impl Listen for Waiting {
    fn next(&self, _: BorrowedFd<'_>) -> nix::Result<Option<Heard>> {
        Ok(None)
    }

    fn is_waiting(&self, _: u64) -> bool {
        true
    }

    fn answer(&self, _: u64, _: Answer) -> nix::Result<()> {
        Ok(())
    }

    fn kill(&self, _: &Heard) {}
}

/// What is read of a call of this process: the string that its first argument points to.
pub fn notified(number: i32, args: [u64; 6]) -> Option<Vec<u8>> {
    let heard = Heard { id: 0, pid: nix::unistd::getpid().as_raw(), number, is_foreign: false, args };
    let notification = Notification::new(&heard, &Waiting);
    let shown = format!("{notification:?}");
    assert!(!shown.is_empty());
    for argument in 0..8 {
        let _ = notification.bytes(argument, 64);
        let _ = notification.string(argument);
    }
    notification.string(0).ok()
}
