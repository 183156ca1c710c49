//! Who has created a group, and the proof that they are still there.
//!
//! A group's name contains a number of its own, and as long as its owner lives the owner holds a write lock on the byte of
//! that number in `cgroup.procs` of the group above (fcntl(2), `F_OFD_SETLK`). The kernel releases the lock with the last
//! descriptor, so that its absence proves the owner's death, in whichever pid or time namespace it was and whoever may see
//! it. The lock is taken before the group is created. To hold such a lock takes the right to write to the file, which a
//! program has not; a reader's lock is not looked at.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::directory::Directory;

/// What every group's name begins with.
const PREFIX: &str = "stockade";
/// What stands in the place of the number where no lock could be had. Such a group is never taken for a dead owner's.
const UNLOCKED: &str = "unlocked";
/// The file that is locked.
const LOCKED: &str = "cgroup.procs";

/// A name for groups, and the locks that say that its owner lives. They are released when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Claim {
    pub name: String,
    _locks: Vec<OwnedFd>,
}

impl Claim {
    /// Claims a name below each of some groups. Where one can't be locked, as by a reader's lock of somebody else, the name
    /// says so.
    pub fn new(parents: &[Arc<Directory>]) -> Self {
        const TRIES: u32 = 3;
        let pid = std::process::id();
        for number in (0..TRIES).map(|_| random()) {
            let locks = parents.iter().map(|parent| lock(parent, number)).collect::<Option<Vec<_>>>();
            if let Some(locks) = locks {
                return Self { name: format!("{PREFIX}-{number:016x}-{pid}"), _locks: locks };
            }
        }
        Self { name: format!("{PREFIX}-{UNLOCKED}-{pid}-{:016x}", random()), _locks: vec![] }
    }
}

/// A part of a name that no other process has, nor this one twice: 62 bits.
fn random() -> u64 {
    // A forked child has its own pid, and another time.
    RandomState::new().hash_one((std::process::id(), Instant::now())) >> 2
}

/// A name of this process, for what it makes once in its life.
pub(super) fn unique() -> String {
    static KNOWN: Mutex<Option<(u32, u64)>> = Mutex::new(None);
    let own = std::process::id();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    // A forked child has another one.
    let (pid, number) = known.filter(|(pid, _)| *pid == own).unwrap_or_else(|| (own, random()));
    *known = Some((pid, number));
    format!("{number:016x}-{pid}")
}

fn flock(kind: i32, number: u64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: number as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

fn lock(parent: &Directory, number: u64) -> Option<OwnedFd> {
    let file = parent.file(LOCKED, OFlag::O_RDWR).ok()?;
    fcntl(&file, FcntlArg::F_OFD_SETLK(&flock(libc::F_WRLCK, number))).ok()?;
    Some(file)
}

/// The names of the groups right below one whose owners are proved to be dead.
pub(super) fn dead(parent: &Directory) -> Vec<String> {
    let numbered = |name: String| {
        let (number, pid) = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split_once('-')?;
        pid.parse::<u32>().ok()?;
        Some((u64::from_str_radix(number, 16).ok().filter(|_| number.len() == 16)?, name))
    };
    let mut groups = parent.names().into_iter().filter_map(numbered).peekable();
    if groups.peek().is_none() {
        return vec![];
    }
    let Ok(file) = parent.file(LOCKED, OFlag::O_RDONLY) else { return vec![] };
    let is_free = |number: u64| {
        // Asked for as a reader, whom nobody hinders but a writer.
        let mut found = flock(libc::F_RDLCK, number);
        let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found));
        asked.is_ok() && found.l_type == libc::F_UNLCK as i16
    };
    groups.filter(|(number, _)| is_free(*number)).map(|(_, name)| name).collect()
}
