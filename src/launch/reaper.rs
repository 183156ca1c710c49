//! Reaping of processes that are in the way of an init: the kernel keeps it until every process of its PID namespace has
//! been reaped, and a program can give children to the caller (clone(2), `CLONE_PARENT`). No process is reaped that is
//! not proved to be in that namespace, or in the session of the program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::process;
use crate::cgroup::freezer;
use crate::sys::pidfd;
use crate::watch::Ended;

/// The processes that a [`process::Process`] stands for, each with its status if it was reaped on behalf of that.
static KNOWN: Mutex<BTreeMap<Name, Option<Ended>>> = Mutex::new(BTreeMap::new());

/// Processes that were killed and did not end while somebody waited for them.
static LEFT: Mutex<Vec<(Name, OwnedFd)>> = Mutex::new(vec![]);
static ANY_LEFT: AtomicBool = AtomicBool::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a process is known by: its pid, and a number that no process of this pid had before. Once its status was taken, here
/// or by another wait of the caller's, the kernel gives the pid to others, for one of which another `Process` may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub pid: i32,
    number: u64,
}

pub(super) fn register(pid: i32) -> Name {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let name = Name { pid, number: NUMBERS.fetch_add(1, Ordering::Relaxed) };
    lock(&KNOWN).insert(name, None);
    name
}

/// Forgets a process that is reaped; its status, if it was reaped here.
pub(super) fn forget(name: Name) -> Option<Ended> {
    lock(&KNOWN).remove(&name).flatten()
}

/// Takes over a process that was killed and does not end: it is reaped by a later [`collect`].
pub(super) fn leave(name: Name, pidfd: OwnedFd) {
    lock(&LEFT).push((name, pidfd));
    ANY_LEFT.store(true, Ordering::Relaxed);
}

/// Where the status is kept of the process that has a pid now.
fn place_of(known: &mut BTreeMap<Name, Option<Ended>>, pid: i32) -> Option<&mut Option<Ended>> {
    let names = Name { pid, number: 0 }..=Name { pid, number: u64::MAX };
    known.range_mut(names).next_back().map(|(_, kept)| kept)
}

/// Reaps those that were left, as far as they have ended.
pub(super) fn collect() {
    if ANY_LEFT.load(Ordering::Relaxed) {
        let mut left = lock(&LEFT);
        left.retain(|(name, pidfd)| {
            let is_there = matches!(process::take_status(pidfd.as_fd(), libc::WNOHANG), Ok(None));
            if !is_there {
                forget(*name);
            }
            is_there
        });
        ANY_LEFT.store(!left.is_empty(), Ordering::Relaxed);
    }
}

/// Calls `act` if the status of a process that somebody waits for was not taken, so that its pid is nobody else's. It is not
/// taken here meanwhile.
pub(super) fn while_unreaped(name: Name, pidfd: BorrowedFd<'_>, act: impl FnOnce()) {
    let known = lock(&KNOWN);
    if matches!(known.get(&name), Some(None)) && process::is_unreaped(pidfd) {
        act();
    }
}

/// Reaps what keeps an init from ending.
pub(super) struct Reaper {
    init: i32,
    /// The init's PID namespace, where the kernel tells: not to an ordinary user, when an init that can't be looked into is
    /// exiting already.
    namespace: Option<Id>,
    /// The session that the program leads, or has led.
    session: Option<i32>,
    /// How often each process that nobody waits for was seen.
    seen: BTreeMap<i32, u8>,
}

/// Device and inode of a namespace.
type Id = (u64, u64);

impl Reaper {
    /// For an init that was killed and is not reaped, and the pid that the program of its sandbox had.
    pub fn of(init: i32, program: Option<i32>) -> Self {
        let namespace = open_namespace(init).as_ref().and_then(identify);
        Self { init, namespace, session: program, seen: BTreeMap::new() }
    }

    /// Reaps the zombies among the caller's children that the program or its descendants have started. The status of one
    /// that somebody else waits for is kept for them.
    pub fn reap(&mut self) {
        /// A process that was just started may not be registered yet.
        const SIGHTINGS: u8 = 3;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Opened first: what is found out is about this process, and no other that has its pid later.
            let Ok(pidfd) = pidfd::open(pid) else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            if pid == self.init || field(&status, "NSpid").split_whitespace().count() < 2 {
                continue;
            }
            // A leader whose threads have not ended is a zombie too.
            if self.is_around(pid) {
                freezer::release(pid);
            }
            if !is_zombie_in_namespace(&status, std::process::id()) {
                continue;
            }
            let mut known = lock(&KNOWN);
            if let Some(kept) = place_of(&mut known, pid) {
                if let Ok(Some(ended)) = process::take_status(pidfd.as_fd(), libc::WNOHANG) {
                    *kept = Some(ended);
                }
                continue;
            }
            drop(known);
            if self.is_session(&status) || self.is_around(pid) {
                let sightings = self.seen.entry(pid).or_default();
                *sightings += 1;
                if *sightings >= SIGHTINGS {
                    let _ = process::take_status(pidfd.as_fd(), libc::WNOHANG);
                }
            }
        }
    }

    /// A process in the PID namespace that has not ended, beside the init.
    pub fn member(&self) -> Option<i32> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|&pid| pid != self.init && self.is_around(pid))
    }

    /// Whether a process is in the session of the program: it is a descendant then.
    fn is_session(&self, status: &str) -> bool {
        let session = field(status, "NSsid").split_whitespace().next();
        self.session.is_some_and(|leader| session == Some(leader.to_string().as_str()))
    }

    /// Whether a process is in the PID namespace of the init, or in one within.
    fn is_around(&self, pid: i32) -> bool {
        let mut next = open_namespace(pid);
        while let Some(namespace) = next {
            if self.is_of_init(&namespace) {
                return true;
            }
            next = parent_of(&namespace);
        }
        false
    }

    fn is_of_init(&self, namespace: &File) -> bool {
        match self.namespace {
            Some(id) => identify(namespace) == Some(id),
            None => first_of(namespace) == Some(self.init),
        }
    }
}

/// A line of `/proc/[pid]/status`.
pub(super) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).unwrap_or_default()
}

/// Whether a process, by its `/proc/[pid]/status`, is a zombie among the children of `parent`, and in a PID namespace
/// below.
fn is_zombie_in_namespace(status: &str, parent: u32) -> bool {
    field(status, "State").starts_with('Z')
        && field(status, "PPid") == parent.to_string()
        && field(status, "NSpid").split_whitespace().count() > 1
}

/// The PID namespace of a process: also of a zombie, until it is reaped.
fn open_namespace(pid: i32) -> Option<File> {
    File::open(format!("/proc/{pid}/ns/pid")).ok()
}

fn identify(namespace: &File) -> Option<Id> {
    namespace.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The PID namespace around one; none above the caller's (ioctl_nsfs(2)).
#[allow(unsafe_code)]
fn parent_of(namespace: &File) -> Option<File> {
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_PARENT) };
    // SAFETY: the kernel has just opened this descriptor for us.
    (fd >= 0).then(|| unsafe { File::from(OwnedFd::from_raw_fd(fd)) })
}

/// The pid of a PID namespace's init as the caller sees it (since Linux 6.11).
#[allow(unsafe_code)]
fn first_of(namespace: &File) -> Option<i32> {
    /// `NS_GET_PID_FROM_PIDNS` of `linux/nsfs.h`.
    const GET_PID: libc::Ioctl = 0x8004_b706u32 as libc::Ioctl;
    // SAFETY: the request takes a number.
    let pid = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_PID, 1) };
    (pid > 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_told_by_state_parent_and_namespace() {
        const STATUS: &str = "Name:\tx\nState:\tZ (zombie)\nPPid:\t7\nNSpid:\t90\t3\n";
        assert!(is_zombie_in_namespace(STATUS, 7));
        assert!(!is_zombie_in_namespace(STATUS, 8));
        for (from, to) in [("Z (zombie)", "S (sleeping)"), ("90\t3", "90")] {
            assert!(!is_zombie_in_namespace(&STATUS.replace(from, to), 7), "{to}");
        }
    }

    #[test]
    fn a_process_is_in_its_own_namespace_and_in_those_around() {
        let own = std::process::id() as i32;
        assert!(Reaper::of(own, None).is_around(own));
        let elsewhere = Reaper { namespace: Some((0, 0)), ..Reaper::of(own, None) };
        assert!(!elsewhere.is_around(own));
    }
}
