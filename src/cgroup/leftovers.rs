//! Whose groups are whose, by their names, and what dead hosts have left.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::group::{Group, processes, tree, write};
use super::hierarchy::{HOST_LEAF, Version};
use crate::error::{Error, Result};

/// What every group's name begins with.
const PREFIX: &str = "stockade-";

/// Whose groups they are: a host by its pid namespace, its pid, and the time when it was started, in ticks.
#[derive(Clone)]
pub(super) struct Owner(pub String);

impl Owner {
    /// This process: it is looked up once, unless it is forked.
    pub fn this() -> Result<Self> {
        static KNOWN: Mutex<Option<Owner>> = Mutex::new(None);
        let find = || {
            let process = format!("{}-{}-", pid_namespace()?, std::process::id());
            let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            if known.as_ref().is_none_or(|owner| !owner.0.starts_with(&process)) {
                *known = Self::of("self");
            }
            known.clone()
        };
        find().ok_or_else(|| Error::host("reading /proc/self/stat")(nix::errno::Errno::ENOENT))
    }

    fn of(pid: &str) -> Option<Self> {
        let namespace = pid_namespace()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let number = stat.split_whitespace().next()?;
        // The name may contain anything; behind it the start time is the 20th field.
        let started = stat.rsplit(')').next()?.split_whitespace().nth(19)?;
        Some(Self(format!("{namespace}-{number}-{started}")))
    }

    pub fn new_name(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        format!("{PREFIX}{}-{}", self.0, COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the owner of a group, by its name, was of the same pid namespace and is no more.
    fn knows_dead(&self, group: &str) -> bool {
        let parts: Vec<&str> = group.split('-').collect();
        let ["stockade", namespace, pid, started, _] = parts[..] else { return false };
        self.is_dead(namespace, pid, started)
    }

    /// The same of a leaf that a host's processes were moved to.
    fn knows_dead_leaf(&self, leaf: &str) -> bool {
        let parts: Vec<&str> = leaf.strip_prefix(HOST_LEAF).into_iter().flat_map(|owner| owner.split('-')).collect();
        let [namespace, pid, started] = parts[..] else { return false };
        self.is_dead(namespace, pid, started)
    }

    fn is_dead(&self, namespace: &str, pid: &str, started: &str) -> bool {
        let here = self.0.split('-').next() == Some(namespace);
        let owner = format!("{namespace}-{pid}-{started}");
        here && pid.parse::<u32>().is_ok() && Self::of(pid).is_none_or(|living| living.0 != owner)
    }
}

fn pid_namespace() -> Option<String> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(link.to_string_lossy().chars().filter(char::is_ascii_digit).collect())
}

/// Removes, once in the life of this host, the groups that dead hosts have left in some places, with whoever is in them; and
/// the leaves that were made for dead hosts, once nobody is in them.
pub(super) fn sweep(places: &[PathBuf], owner: &Owner) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut left = vec![];
    for place in places.iter().filter(|place| swept.insert((*place).clone())) {
        for group in fs::read_dir(place).into_iter().flatten().flatten() {
            match group.file_name().to_str() {
                Some(name) if owner.knows_dead(name) => left.push(group),
                Some(name) if owner.knows_dead_leaf(name) => {
                    let _ = fs::remove_dir(group.path());
                }
                _ => {}
            }
        }
    }
    // All are killed before one is removed: in whichever hierarchy somebody is frozen or held.
    let left: Vec<Group> = left.iter().map(|group| Group::new(Version::V1, group.path(), &[])).collect();
    for group in &left {
        for (file, thaw) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let _ = write(&group.directory.join(file), thaw);
        }
        for pid in tree(&group.directory).iter().flat_map(|directory| processes(directory)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_hosts_that_are_no_more_are_left() {
        let this = Owner::this().expect("this process");
        assert!(!this.knows_dead(&format!("{PREFIX}{}-0", this.0)));
        let [namespace, pid, _] = this.0.split('-').collect::<Vec<_>>()[..] else { panic!("{}", this.0) };
        assert!(this.knows_dead(&format!("{PREFIX}{namespace}-{pid}-1-0")), "another process with this pid");
        assert!(!this.knows_dead(&format!("{PREFIX}1-{pid}-1-0")), "of another pid namespace");
        assert!(!this.knows_dead("stockade-something"));
        assert!(!this.knows_dead_leaf(&format!("{HOST_LEAF}{}", this.0)));
        assert!(this.knows_dead_leaf(&format!("{HOST_LEAF}{namespace}-{pid}-1")), "another process with this pid");
        assert!(
            !this.knows_dead(&format!("{HOST_LEAF}{namespace}-{pid}-1")),
            "who was moved there is not to be killed"
        );
    }
}
