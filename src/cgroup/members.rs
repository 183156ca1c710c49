//! Listing, killing and thawing the processes of a cgroup and of those below it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use crate::sys::pidfd;

/// The processes of a sandbox, by the directories of its cgroups. Once these are removed there are none, even if the
/// names are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    /// A cgroup that contains all of them.
    pub(super) all: Option<Arc<Directory>>,
    /// The cgroup with the freezer.
    pub(super) freezer: Option<Arc<Directory>>,
}

impl Members {
    /// Returns their PIDs, in the PID namespace of the caller. Returns an error if not all can be listed.
    pub fn pids(&self) -> nix::Result<Vec<i32>> {
        let mut pids = vec![];
        if let Some(group) = &self.all {
            group.walk(|directory| pids.extend(directory.processes()))?;
        }
        Ok(pids)
    }

    /// Kills all processes, repeatedly until there are none.
    pub fn kill(&self) {
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        let Some(group) = &self.all else { return };
        for _ in 0..ROUNDS {
            self.thaw();
            // An error means that there may be some.
            if kill(group) == Ok(false) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Freezes all processes. Returns whether there is a freezer, and it does.
    pub fn freeze(&self) -> bool {
        let files = [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")];
        self.freezer.as_ref().is_some_and(|group| files.iter().any(|(file, value)| group.write(file, value).is_ok()))
    }

    /// Thaws all processes: see [`thaw`].
    pub fn thaw(&self) {
        if let Some(group) = &self.freezer {
            thaw(group);
        }
    }
}

/// Kills all processes of a cgroup except the caller, and no other process, although a PID may be reused after it was
/// read. Returns whether there were any that can be killed.
pub(super) fn kill(group: &Directory) -> nix::Result<bool> {
    /// The maximum number of descriptors that are open at a time.
    const BATCH: usize = 64;
    let mut any = false;
    let own = std::process::id() as i32;
    // All of v2 are killed by this, also where a program has made a cgroup inaccessible.
    if !group.all_processes().contains(&own) {
        let _ = group.write("cgroup.kill", "1");
    }
    group.walk(|directory| {
        let mut pids = directory.all_processes();
        pids.retain(|&pid| pid != own);
        // v2, since Linux 5.14: kills all processes of the cgroup and below it, including those that are being forked,
        // and those in other PID namespaces.
        if !pids.is_empty() && directory.write("cgroup.kill", "1").is_ok() {
            any = true;
            return;
        }
        pids.retain(|&pid| pid > 0);
        any |= !pids.is_empty();
        for pids in pids.chunks(BATCH) {
            let held: Vec<_> = pids.iter().filter_map(|&pid| Some((pid, pidfd::open(pid).ok()?))).collect();
            // A PID that is still listed after its pidfd was opened belongs to the process of the pidfd, or that
            // process has exited.
            let still: BTreeSet<i32> = directory.processes().into_iter().collect();
            for (_, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                let _ = pidfd::send(pidfd.as_fd(), libc::SIGKILL);
            }
        }
    })?;
    Ok(any)
}

/// Thaws all processes: a process that is frozen on v1 does not exit when it is killed, and a program that owns cgroups
/// below its own can freeze itself there.
pub(super) fn thaw(group: &Directory) {
    let _ = group.walk(|directory| {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let _ = directory.write(file, thawed);
        }
    });
}
