//! Removal of stale cgroups: those of callers that died before they could remove them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::control_group::ControlGroup;
use super::directory::Directory;
use super::hierarchy::CALLER_LEAF;
use super::members;
use super::owner;

use crate::locks::lock;

/// Kills the processes in the cgroups of dead owners below these parents, and removes the cgroups. Removes empty leaves
/// to which processes of callers were moved. Each parent is looked at once in the life of this process.
pub(super) fn remove_stale(parents: &[PathBuf]) {
    static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut seen = lock(&SEEN);
    let mut stale = vec![];
    for parent in parents.iter().filter(|parent| seen.insert((*parent).clone())) {
        let Ok(parent) = Directory::open(parent).map(Arc::new) else { continue };
        for name in owner::stale_names(&parent) {
            stale.extend(ControlGroup::adopt(&parent, &name));
        }
        // The kernel refuses to remove one that has processes.
        for leaf in parent.names().iter().filter(|name| name.starts_with(CALLER_LEAF)) {
            let _ = parent.remove_empty(leaf);
        }
    }
    kill_and_remove(stale);
}

/// Kills all processes in these cgroups, and removes the cgroups.
fn kill_and_remove(mut groups: Vec<ControlGroup>) {
    const ROUNDS: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(1);
    // With the pids controller, a process that keeps forking while it is killed starts no others.
    for group in &groups {
        let _ = group.directory.write("pids.max", "0");
    }
    for _ in 0..ROUNDS {
        // All are killed before one is removed, because a process may be frozen in any hierarchy.
        for group in &groups {
            members::thaw(&group.directory);
            let _ = members::kill(&group.directory);
        }
        // Only a successful removal proves that a cgroup is empty: a process that is being cloned into it is not listed
        // yet.
        groups.retain_mut(|group| !group.remove());
        if groups.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
}
