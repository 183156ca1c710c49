//! The processes of a group and of those below it: killed, thawed, listed.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use super::directory::Directory;
use crate::sys::pidfd;

/// The pids of all, as the caller sees them.
pub(super) fn processes(group: &Directory) -> Vec<i32> {
    let mut all = vec![];
    group.walk(|directory| all.extend(directory.processes()));
    all
}

/// Kills all, and nobody else: a pid may be another process's by the time that it has been read. Returns whether there were
/// any that it can kill. This process is not among them.
pub(super) fn kill(group: &Directory) -> bool {
    /// How many descriptors are open at a time.
    const AT_ONCE: usize = 64;
    let mut any = false;
    let own = std::process::id() as i32;
    group.walk(|directory| {
        let mut pids = directory.listed();
        pids.retain(|&pid| pid != own);
        // Linux 5.14, on v2: all that there are, and that are started meanwhile, also below. Also those that this process
        // can't see.
        if !pids.is_empty() && directory.write("cgroup.kill", "1").is_ok() {
            any = true;
            return;
        }
        pids.retain(|&pid| pid > 0);
        any |= !pids.is_empty();
        for pids in pids.chunks(AT_ONCE) {
            let held: Vec<_> = pids.iter().filter_map(|&pid| Some((pid, pidfd::open(pid).ok()?))).collect();
            // Who has the pid now, after it was opened, is who was opened, or who was opened has ended.
            let still: BTreeSet<i32> = directory.processes().into_iter().collect();
            for (_, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                let _ = pidfd::send(pidfd.as_fd(), libc::SIGKILL);
            }
        }
    });
    any
}

/// Lets all go on: the freezer of v1 keeps those that it has frozen from ending, and a program that may write to groups
/// below its own can freeze itself there.
pub(super) fn thaw(group: &Directory) {
    group.walk(|directory| {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let _ = directory.write(file, thawed);
        }
    });
}
