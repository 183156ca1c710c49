//! The parents of cgroups in tests. On v1, root delegates directories to an ordinary user during the run. On v2, every
//! user uses the cgroup that it is in.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::chown;

use stockade::{Cgroup, Command, Sandbox};

use crate::cgroups::groups::{CONTROLLERS, hierarchy, unless_accounts, unless_cpu, unless_cpuset, unless_io};
use crate::support::{USER, is_root};

/// Tells the run as an ordinary user what the directories are called.
const NAME: &str = "STOCKADE_TESTS_DELEGATED";

/// The directories. They are removed when it is dropped.
pub struct Delegated(Vec<PathBuf>);

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in &self.0 {
            if let Err(error) = remove(directory) {
                println!("{} stays: {error}", directory.display());
            }
        }
    }
}

/// Removes a group and those below it, of which the tests have left none if nothing is wrong.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten().filter(|entry| entry.path().is_dir()) {
        println!("{} was left", entry.path().display());
        remove(&entry.path())?;
    }
    fs::remove_dir(directory)
}

/// The name of the directories of v1 that this run may make groups in, if it is an ordinary user's.
pub fn name() -> Option<String> {
    std::env::var(NAME).ok().filter(|_| !is_root())
}

/// Makes the directories, unless root has made them already.
pub fn delegate() -> Option<Delegated> {
    if !is_root() {
        return None;
    }
    let name = format!("delegated-{}", std::process::id());
    let mut made = Delegated(vec![]);
    for controller in CONTROLLERS {
        let Some(point) = hierarchy(controller).filter(|found| found.is_v1).map(|found| found.point) else { continue };
        let directory = point.join(&name);
        if directory.exists() {
            continue;
        }
        if let Err(error) = fs::create_dir(&directory) {
            println!("{controller} can't be delegated to the ordinary user: {}: {error}", directory.display());
            continue;
        }
        made.0.push(directory.clone());
        give(&point, &directory);
    }
    if !made.0.is_empty() {
        // SAFETY: no other thread has been started.
        unsafe { std::env::set_var(NAME, &name) };
    }
    Some(made)
}

/// On v2 lets the group that this run is in give all of its controllers on, for which its processes move to a leaf of
/// it: who sets no limit gets those alone that are given on.
pub fn make_room() {
    if hierarchy("memory").is_none_or(|found| found.is_v1) {
        return;
    }
    let mut cgroup = Cgroup::new();
    if unless_accounts().is_none() {
        cgroup = cgroup.memory_max(1 << 30).pids_max(1000);
    }
    if unless_cpu().is_none() {
        cgroup = cgroup.cpu_weight(100);
    }
    if unless_cpuset().is_none() {
        cgroup = cgroup.cpuset_cpus("0");
    }
    if unless_io().is_none() {
        cgroup = cgroup.raw("io.max", "");
    }
    if cgroup != Cgroup::new() {
        let outcome = Sandbox::new().cgroup(cgroup).status(Command::new("true")).expect("a first group");
        assert!(outcome.success(), "{outcome}");
    }
}

/// Gives a directory to the ordinary user. A new one has no CPUs and no memory nodes. It gets much of the CPUs,
/// whatever else the caller does.
fn give(point: &Path, directory: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(list) = fs::read_to_string(point.join(file)) {
            fs::write(directory.join(file), list.trim()).expect("CPUs and memory nodes");
        }
    }
    let shares = directory.join("cpu.shares");
    if shares.exists() {
        fs::write(shares, "102400").expect("its share");
    }
    for path in [directory.to_owned(), directory.join("tasks"), directory.join("cgroup.procs")] {
        chown(&path, Some(USER.into()), Some(USER.into())).expect("the directory belongs to the user");
        assert_eq!(fs::metadata(&path).expect("its owner").uid(), USER);
    }
}
