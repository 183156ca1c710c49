//! Processes that the freezer of cgroup v1 keeps from ending, in a group that the sandbox did not make. A frozen process
//! of v1 does not die of SIGKILL until it is thawed. The freezer of v2 lets SIGKILL end a frozen process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, Version};

const STATE: &str = "freezer.state";

/// Lets a process that was killed go on, if a freezer holds it or a thread of it: it is moved to the caller's own group,
/// which is not frozen. Where this user may not do that, groups that hold it are thawed if they belong to this user, as
/// those do in which an ordinary user's program can freeze itself.
pub(crate) fn release(pid: i32) {
    let holders = holders(pid);
    let own = if holders.is_empty() { None } else { own_group() };
    for directory in holders {
        let moved = own.as_ref().is_some_and(|own| own.write("cgroup.procs", &pid.to_string()).is_ok());
        if !moved {
            for group in frozen_up(&directory.path).filter(Directory::is_own) {
                let _ = group.write(STATE, "THAWED");
            }
        }
    }
}

/// The groups that were frozen themselves, of one and those above it: the freezer holds whoever is below each.
fn frozen_up(place: &Path) -> impl Iterator<Item = Directory> + '_ {
    let groups = place.ancestors().map_while(|place| Directory::open(place).ok());
    groups.filter(|group| group.read("freezer.self_freezing").is_ok_and(|state| state.trim() == "1"))
}

/// The group by which a freezer holds a process: its own, or the nearest one above that is frozen itself.
pub(crate) fn holder(pid: i32) -> Option<PathBuf> {
    let place = holders(pid).into_iter().next()?.path;
    let frozen = frozen_up(&place).map(|group| group.path).next();
    Some(frozen.unwrap_or(place))
}

/// The groups of v1 in which the process and its threads are, as far as they are frozen.
fn holders(pid: i32) -> Vec<Directory> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let groups = threads.filter_map(|thread| fs::read_to_string(thread.path().join("cgroup")).ok());
    let groups: BTreeSet<String> = groups.collect();
    let places: BTreeSet<PathBuf> = groups.iter().filter_map(|groups| place_in(groups)).collect();
    let open = places.into_iter().filter_map(|place| Directory::open(&place).ok());
    open.filter(|group| group.read(STATE).is_ok_and(|state| state.trim() != "THAWED")).collect()
}

fn own_group() -> Option<Directory> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    Directory::open(&place_in(&groups)?).ok()
}

/// The directory of the group that the freezer of v1 has, by the contents of a file such as `/proc/self/cgroup`.
fn place_in(groups: &str) -> Option<PathBuf> {
    let hierarchies = Hierarchies::of(groups).ok()?;
    hierarchies.place(Controller::Freezer).filter(|(version, _)| *version == Version::V1).map(|(_, place)| place)
}
