//! What dead owners have left is killed and removed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::directory::Directory;
use super::group::Group;
use super::hierarchy::HOST_LEAF;
use super::members;
use super::owner;

/// Removes, once in the life of this process, the groups that dead owners have left below some others, with the processes
/// that are in them; and the leaves that callers' processes were moved to, once they are empty.
pub(super) fn sweep(parents: &[PathBuf]) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut left = vec![];
    for parent in parents.iter().filter(|parent| swept.insert((*parent).clone())) {
        let Ok(parent) = Directory::open(parent).map(Arc::new) else { continue };
        for name in owner::dead(&parent) {
            left.extend(Group::adopt(&parent, &name));
        }
        // The kernel keeps one that has processes.
        for leaf in parent.names().iter().filter(|name| name.starts_with(HOST_LEAF)) {
            let _ = parent.remove_empty(leaf);
        }
    }
    end(left);
}

/// Kills all that are in some groups, and removes the groups.
fn end(mut groups: Vec<Group>) {
    const ROUNDS: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(1);
    // Where the controller is: a process that goes on to start others while it is killed starts none.
    for group in &groups {
        let _ = group.directory.write("pids.max", "0");
    }
    for _ in 0..ROUNDS {
        // All are killed before one is removed: in whichever hierarchy a process is frozen or held.
        for group in &groups {
            members::thaw(&group.directory);
            members::kill(&group.directory);
        }
        // That nobody was there to kill proves nothing: who is being started is not listed yet.
        groups.retain_mut(|group| !group.remove());
        if groups.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
}
