//! Killed processes that are frozen in a cgroup outside of the sandbox. On v1 a frozen process does not terminate on
//! SIGKILL until it is thawed. On v2 it does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, HierarchyVersion};

const STATE: &str = "freezer.state";

/// Unfreezes a killed process and its threads. The process is moved to the caller's own cgroup, which is not frozen. If
/// that is not allowed, frozen cgroups that belong to this user are thawed: an ordinary user's program can freeze
/// itself in these.
pub(crate) fn release(pid: i32) {
    let frozen_in = frozen_cgroups(pid);
    let own = if frozen_in.is_empty() { None } else { own_group() };
    for directory in frozen_in {
        let moved = own.as_ref().is_some_and(|own| own.write("cgroup.procs", &pid.to_string()).is_ok());
        if !moved {
            for group in self_frozen(&directory.path).filter(Directory::is_own) {
                let _ = group.write(STATE, "THAWED");
            }
        }
    }
}

/// Returns those of a cgroup and its ancestors that are frozen themselves, and not only because an ancestor is.
fn self_frozen(path: &Path) -> impl Iterator<Item = Directory> + '_ {
    let groups = path.ancestors().map_while(|path| Directory::open(path).ok());
    groups.filter(|group| group.read("freezer.self_freezing").is_ok_and(|state| state.trim() == "1"))
}

/// Returns the cgroup because of which a process is frozen: the nearest one that is frozen itself.
pub(crate) fn frozen_cgroup(pid: i32) -> Option<PathBuf> {
    let path = frozen_cgroups(pid).into_iter().next()?.path;
    let frozen = self_frozen(&path).map(|group| group.path).next();
    Some(frozen.unwrap_or(path))
}

/// Returns the frozen v1 cgroups of the process and its threads.
fn frozen_cgroups(pid: i32) -> Vec<Directory> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let groups = threads.filter_map(|thread| fs::read(thread.path().join("cgroup")).ok());
    let groups: BTreeSet<Vec<u8>> = groups.collect();
    let paths: BTreeSet<PathBuf> = groups.iter().filter_map(|groups| v1_freezer(groups)).collect();
    let open = paths.into_iter().filter_map(|path| Directory::open(&path).ok());
    open.filter(|group| group.read(STATE).is_ok_and(|state| state.trim() != "THAWED")).collect()
}

fn own_group() -> Option<Directory> {
    let groups = fs::read("/proc/self/cgroup").ok()?;
    Directory::open(&v1_freezer(&groups)?).ok()
}

/// Returns the directory of the cgroup in the v1 freezer hierarchy, by the contents of `/proc/[pid]/cgroup`.
fn v1_freezer(groups: &[u8]) -> Option<PathBuf> {
    let hierarchies = Hierarchies::of(groups).ok()?;
    hierarchies
        .directory(Controller::Freezer)
        .filter(|(version, _)| *version == HierarchyVersion::V1)
        .map(|(_, path)| path)
}
