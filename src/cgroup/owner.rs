//! The owner of a cgroup: a lock that proves that the process which created it is alive.
//!
//! The name of a cgroup contains a random number. While the owner is alive, it holds a write lock on the byte at that
//! offset in `cgroup.procs` of the parent (fcntl(2), `F_OFD_SETLK`). The kernel releases the lock with the last
//! descriptor, so that its absence proves that the owner is dead, independent of PID and time namespaces. The lock is
//! taken before the cgroup is created. A write lock takes write access to the file, which a sandboxed program does not
//! have. Read locks are ignored.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::directory::Directory;

use crate::locks;

/// The prefix of all names.
const PREFIX: &str = "stockade";
/// Stands for the number if the lock could not be taken. Such a cgroup is never considered stale.
const UNLOCKED: &str = "unlocked";
/// The file that is locked.
const LOCKED: &str = "cgroup.procs";

/// A name for the cgroups of a sandbox, and the locks that show that its owner is alive. They are released on drop.
#[derive(Debug, Default)]
pub(super) struct Claim {
    pub name: String,
    _locks: Vec<OwnedFd>,
}

impl Claim {
    /// Claims a new name below these parents. If a lock cannot be taken, for example because of a read lock of another
    /// process, the name contains [`UNLOCKED`]. Returns an error if no file can be opened, for want of descriptors.
    pub fn new(parents: &[Arc<Directory>]) -> nix::Result<Self> {
        const TRIES: u32 = 3;
        let pid = std::process::id();
        for number in (0..TRIES).map(|_| random()) {
            match parents.iter().map(|parent| lock(parent, number)).collect::<nix::Result<Vec<_>>>() {
                Ok(locks) => return Ok(Self { name: format!("{PREFIX}-{number:016x}-{pid}"), _locks: locks }),
                Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(Self { name: format!("{PREFIX}-{UNLOCKED}-{pid}-{:016x}", random()), _locks: vec![] })
    }
}

/// Returns 62 random bits, for a part of a name that is unique.
fn random() -> u64 {
    // A forked child has another PID and another time.
    RandomState::new().hash_one((std::process::id(), Instant::now())) >> 2
}

/// Returns a unique name of this process, which is always the same.
pub(super) fn process_name() -> String {
    static KNOWN: Mutex<Option<(u32, u64)>> = Mutex::new(None);
    let own = std::process::id();
    let mut known = locks::lock(&KNOWN);
    // A forked child needs a name of its own.
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

fn lock(parent: &Directory, number: u64) -> nix::Result<OwnedFd> {
    let file = parent.file(LOCKED, OFlag::O_RDWR)?;
    fcntl(&file, FcntlArg::F_OFD_SETLK(&flock(libc::F_WRLCK, number))).map(|_| file)
}

/// Returns the names of the child cgroups whose owners are dead.
pub(super) fn stale_names(parent: &Directory) -> Vec<String> {
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
        // Tests for a read lock, which only a write lock conflicts with.
        let mut found = flock(libc::F_RDLCK, number);
        let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found));
        asked.is_ok() && found.l_type == libc::F_UNLCK as i16
    };
    groups.filter(|(number, _)| is_free(*number)).map(|(_, name)| name).collect()
}
