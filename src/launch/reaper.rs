//! Reaps processes that prevent an init from exiting. An init exits only after every process of its PID namespace was
//! reaped, and a program can create processes that are children of the caller (clone(2), `CLONE_PARENT`). A process is
//! reaped only if it is in that PID namespace or in the session of the program. Other children of the caller are never
//! reaped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::traced_threads;
use crate::cgroup::freezer;
use crate::locks::lock;
use crate::process_status::ProcessStatus;
use crate::sys::wait::{self, Exit};
use crate::sys::{nsfs, pidfd};

/// The processes that have a [`Process`](super::process::Process). Each has its status if the reaper has reaped it.
static KNOWN: Mutex<BTreeMap<ProcessKey, Option<Exit>>> = Mutex::new(BTreeMap::new());

/// Processes that were killed and did not exit in time.
static ABANDONED: Mutex<Vec<(ProcessKey, OwnedFd)>> = Mutex::new(vec![]);
static ANY_ABANDONED: AtomicBool = AtomicBool::new(false);

/// Identifies a process: its PID, and a serial number that distinguishes it from later processes with the same PID. The
/// kernel may reuse the PID once the status was taken, here or by other code in the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessKey {
    pub pid: i32,
    serial: u64,
}

/// Registers a child of the caller that was just started.
pub(super) fn register(pid: i32) -> ProcessKey {
    static SERIALS: AtomicU64 = AtomicU64::new(0);
    let key = ProcessKey { pid, serial: SERIALS.fetch_add(1, Ordering::Relaxed) };
    lock(&KNOWN).insert(key, None);
    key
}

/// Returns whether a process with this PID has a [`Process`](super::process::Process).
pub(super) fn is_registered(pid: i32) -> bool {
    status_of(&mut lock(&KNOWN), pid).is_some()
}

/// Removes a process that was reaped. Returns its status if the reaper has reaped it.
pub(super) fn forget(key: ProcessKey) -> Option<Exit> {
    lock(&KNOWN).remove(&key).flatten()
}

/// Takes over a process that was killed and does not exit. A later [`reap_abandoned`] reaps it.
pub(super) fn abandon(key: ProcessKey, pidfd: OwnedFd) {
    lock(&ABANDONED).push((key, pidfd));
    ANY_ABANDONED.store(true, Ordering::Relaxed);
}

/// Returns the status entry of the process that has this PID now.
fn status_of(known: &mut BTreeMap<ProcessKey, Option<Exit>>, pid: i32) -> Option<&mut Option<Exit>> {
    let keys = ProcessKey { pid, serial: 0 }..=ProcessKey { pid, serial: u64::MAX };
    known.range_mut(keys).next_back().map(|(_, status)| status)
}

/// Reaps the abandoned processes that have exited.
pub(super) fn reap_abandoned() {
    if ANY_ABANDONED.load(Ordering::Relaxed) {
        let mut abandoned = lock(&ABANDONED);
        abandoned.retain(|(key, pidfd)| {
            let still_runs = matches!(wait::take_status(pidfd.as_fd(), libc::WNOHANG), Ok(None));
            if !still_runs {
                forget(*key);
            }
            still_runs
        });
        ANY_ABANDONED.store(!abandoned.is_empty(), Ordering::Relaxed);
    }
}

/// Calls `action` if a process was not reaped, so that its PID was not reused. The reaper does not reap it during the
/// call.
pub(super) fn while_unreaped(key: ProcessKey, pidfd: BorrowedFd<'_>, action: impl FnOnce()) {
    let known = lock(&KNOWN);
    if matches!(known.get(&key), Some(None)) && wait::is_unreaped(pidfd) {
        action();
    }
}

/// Reaps the processes that prevent one init from exiting.
pub(super) struct Reaper {
    init: i32,
    /// The init's PID namespace. `None` if it cannot be opened: an ordinary user may not open that of an init which is
    /// not dumpable, or which is exiting already.
    namespace: Option<NamespaceId>,
    /// The session that the program leads, or has led.
    session: Option<i32>,
    /// How often each unregistered process was seen.
    seen: BTreeMap<i32, u8>,
}

/// The device and inode of a namespace.
type NamespaceId = (u64, u64);

impl Reaper {
    /// Creates a reaper for an init that was killed and not reaped. `program` is the PID that the sandbox's program
    /// had.
    pub fn of(init: i32, program: Option<i32>) -> Self {
        let namespace = open_namespace(init).as_ref().and_then(identify);
        Self { init, namespace, session: program, seen: BTreeMap::new() }
    }

    /// Reaps the zombies among the caller's children that the program or its descendants have created. The status of a
    /// registered process is kept for its [`Process`](super::process::Process).
    pub fn reap(&mut self) {
        /// A process is reaped when it was seen this often. A child that was just started may not be registered yet.
        const SIGHTINGS: u8 = 3;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Opened first: if the PID is reused after that, the status is not taken from the other process.
            let Ok(pidfd) = pidfd::open(pid) else { continue };
            let Ok(status) = ProcessStatus::read(entry.path().join("status")) else { continue };
            if pid == self.init || status.words("NSpid").count() < 2 {
                continue;
            }
            // Also for a zombie: it may be the leader of threads that have not exited.
            if self.is_in_namespace(pid) {
                freezer::release(pid);
                traced_threads::reap(pid);
            }
            if !is_zombie_in_namespace(&status, std::process::id()) {
                continue;
            }
            let mut known = lock(&KNOWN);
            if let Some(known_status) = status_of(&mut known, pid) {
                if let Ok(Some(exit)) = wait::take_status(pidfd.as_fd(), libc::WNOHANG) {
                    *known_status = Some(exit);
                }
                continue;
            }
            drop(known);
            if self.is_in_session(&status) || self.is_in_namespace(pid) {
                let sightings = self.seen.entry(pid).or_default();
                *sightings += 1;
                if *sightings >= SIGHTINGS {
                    let _ = wait::take_status(pidfd.as_fd(), libc::WNOHANG);
                }
            }
        }
    }

    /// Returns the PID of a process, other than the init, that is still in the PID namespace.
    pub fn member(&self) -> Option<i32> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|&pid| pid != self.init && self.is_in_namespace(pid))
    }

    /// Returns whether a process is in the session of the program, and therefore its descendant.
    fn is_in_session(&self, status: &ProcessStatus) -> bool {
        let session = status.words("NSsid").next();
        self.session.is_some_and(|leader| session == Some(leader.to_string().as_str()))
    }

    /// Returns whether a process is in the PID namespace of the init, or in a descendant of that.
    fn is_in_namespace(&self, pid: i32) -> bool {
        let mut next = open_namespace(pid);
        while let Some(namespace) = next {
            if self.is_namespace_of_init(&namespace) {
                return true;
            }
            next = nsfs::parent(&namespace);
        }
        false
    }

    fn is_namespace_of_init(&self, namespace: &File) -> bool {
        match self.namespace {
            Some(id) => identify(namespace) == Some(id),
            None => nsfs::init(namespace) == Some(self.init),
        }
    }
}

/// Returns whether a process is a zombie child of the caller in a PID namespace of a sandbox.
pub(super) fn is_zombie_inside(pid: i32) -> bool {
    ProcessStatus::of(pid).is_ok_and(|status| is_zombie_in_namespace(&status, std::process::id()))
}

/// Returns whether a process is a zombie child of `parent` in a descendant PID namespace, by its status.
fn is_zombie_in_namespace(status: &ProcessStatus, parent: u32) -> bool {
    status.field("State").starts_with('Z')
        && status.field("PPid") == parent.to_string()
        && status.words("NSpid").count() > 1
}

/// Opens the PID namespace of a process. Also works for a zombie that was not reaped.
fn open_namespace(pid: i32) -> Option<File> {
    File::open(format!("/proc/{pid}/ns/pid")).ok()
}

fn identify(namespace: &File) -> Option<NamespaceId> {
    namespace.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_recognized_by_state_parent_and_namespace() {
        const STATUS: &str = "Name:\tx\nState:\tZ (zombie)\nPPid:\t7\nNSpid:\t90\t3\n";
        let is_zombie = |status: &str, parent| is_zombie_in_namespace(&ProcessStatus::parse(status.as_bytes()), parent);
        assert!(is_zombie(STATUS, 7));
        assert!(!is_zombie(STATUS, 8));
        for (from, to) in [("Z (zombie)", "S (sleeping)"), ("90\t3", "90")] {
            assert!(!is_zombie(&STATUS.replace(from, to), 7), "{to}");
        }
    }

    #[test]
    fn a_process_is_in_its_own_namespace_and_in_no_other() {
        let own = std::process::id() as i32;
        assert!(Reaper::of(own, None).is_in_namespace(own));
        let elsewhere = Reaper { namespace: Some((0, 0)), ..Reaper::of(own, None) };
        assert!(!elsewhere.is_in_namespace(own));
    }
}
