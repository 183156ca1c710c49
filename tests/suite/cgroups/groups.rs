//! The cgroups as the caller sees them, found without the crate.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::cgroups::delegation;
use crate::support::{self, is_root};

pub const CONTROLLERS: [&str; 7] = ["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer"];

/// A hierarchy that is mounted.
pub struct Hierarchy {
    pub is_v1: bool,
    pub point: PathBuf,
    /// What is seen at the mount point.
    root: String,
}

/// The hierarchy that has a controller: one of v1, else that of v2.
pub fn hierarchy(controller: &str) -> Option<Hierarchy> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let of = |kind: &str| {
        table.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mount: Vec<&str> = mount.split(' ').collect();
            let filesystem: Vec<&str> = filesystem.split(' ').collect();
            let is_v1 = kind == "cgroup";
            let has = !is_v1 || filesystem[2].split(',').any(|option| option == controller);
            let found = Hierarchy { is_v1, point: mount[4].into(), root: mount[3].into() };
            (filesystem[0] == kind && has).then_some(found)
        })
    };
    of("cgroup").or_else(|| of("cgroup2"))
}

/// The directory of the group that a process is in.
pub fn entered_by(pid: u32, controller: &str) -> PathBuf {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups of a process");
    of_table(&table, controller).unwrap_or_else(|| panic!("no {controller} in {table}"))
}

/// The same of the group with its limits: that of a program who may own their files lies below it.
pub fn of_process(pid: u32, controller: &str) -> PathBuf {
    support::with_limits(&entered_by(pid, controller)).to_owned()
}

fn of_table(table: &str, controller: &str) -> Option<PathBuf> {
    let found = hierarchy(controller)?;
    let path = table.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let is_here = if found.is_v1 { names.split(',').any(|name| name == controller) } else { names.is_empty() };
        is_here.then_some(path)
    })?;
    let seen = Path::new(path).strip_prefix(&found.root).ok()?;
    Some(found.point.join(seen))
}

/// The directory that groups with a controller are made in.
pub fn place(controller: &str) -> Option<PathBuf> {
    if let Some(name) = delegation::name() {
        return Some(hierarchy(controller).filter(|found| found.is_v1)?.point.join(name));
    }
    if !is_root() && hierarchy(controller)?.is_v1 {
        return None;
    }
    let own = of_table(&fs::read_to_string("/proc/self/cgroup").expect("own groups"), controller)?;
    let is_leaf = own.file_name().is_some_and(|name| name.to_string_lossy().starts_with("stockade-caller-"));
    Some(if is_leaf { own.parent()?.to_owned() } else { own })
}

/// The directories that groups are made in, each once.
pub fn places() -> Vec<PathBuf> {
    let mut places: Vec<_> = CONTROLLERS.iter().filter_map(|controller| place(controller)).collect();
    places.sort();
    places.dedup();
    places
}

/// The groups that a caller of this pid has made and that are there still.
pub fn left_by(pid: u32) -> Vec<PathBuf> {
    let groups = places().into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let is_its = |name: &str| name.starts_with("stockade-") && name.split('-').nth(2) == Some(&pid.to_string());
    groups.map(|entry| entry.path()).filter(|path| is_its(&path.file_name().unwrap().to_string_lossy())).collect()
}

/// What a file of a group says.
pub fn read(group: &Path, file: &str) -> String {
    let path = group.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// A reason to skip what needs groups with these controllers.
fn unless(controllers: &[&str]) -> Option<String> {
    controllers
        .iter()
        .find_map(|&controller| {
            let may_make = |place: &PathBuf| access(place, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
            let is_there = |place: &PathBuf| {
                let is_of_all = ["cpuacct", "freezer"].contains(&controller);
                let name = if controller == "blkio" { "io" } else { controller };
                let given = || fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
                hierarchy(controller).is_some_and(|found| found.is_v1)
                    || is_of_all
                    || given().split_whitespace().any(|has| has == name)
            };
            let usable = place(controller).filter(may_make).filter(is_there);
            usable.is_none().then(|| format!("this user may make no cgroup with the {controller} controller here"))
        })
        .or_else(|| undelegated(controllers))
}

/// Nobody but systemd makes groups in a unit of its that is not delegated.
fn undelegated(controllers: &[&str]) -> Option<String> {
    if !Path::new("/run/systemd/system").exists() || delegation::name().is_some() {
        return None;
    }
    let place = controllers.iter().filter(|controller| !is_v1(controller)).find_map(|controller| place(controller))?;
    let is_unit = |path: &&Path| path.extension().is_some_and(|kind| kind == "service" || kind == "scope");
    let unit = place.ancestors().find(is_unit)?;
    let mut systemctl = std::process::Command::new("systemctl");
    if !is_root() {
        systemctl.arg("--user").env("XDG_RUNTIME_DIR", format!("/run/user/{}", support::USER));
    }
    let output = systemctl.args(["show", "-p", "Delegate", "--value"]).arg(unit.file_name()?).output().ok()?;
    (support::text(&output.stdout) != "yes").then(|| format!("{} is not delegated", unit.display()))
}

/// What is counted.
pub fn unless_accounts() -> Option<String> {
    unless(&["memory", "cpuacct", "pids"])
}

/// The same and the most memory that was in use.
pub fn unless_peak() -> Option<String> {
    let is_missing = hierarchy("memory").is_some_and(|found| !found.is_v1) && support::kernel() < (5, 19);
    unless_accounts()
        .or_else(|| is_missing.then(|| "cgroup v2 counts the peak of memory since Linux 5.19 (memory.peak)".into()))
}

pub fn unless_cpu() -> Option<String> {
    unless(&["cpu", "cpuacct"])
}

pub fn unless_cpuset() -> Option<String> {
    unless(&["cpuset"])
}

pub fn unless_io() -> Option<String> {
    unless(&["blkio"])
}

pub fn unless_hugetlb() -> Option<String> {
    unless(&["hugetlb"])
}

pub fn unless_freezer() -> Option<String> {
    unless(&["freezer", "memory"])
}

/// Whether a controller is one of v1 here.
pub fn is_v1(controller: &str) -> bool {
    hierarchy(controller).is_some_and(|found| found.is_v1)
}

/// What is of v1 alone.
pub fn unless_v1() -> Option<String> {
    let missing = ["memory", "cpu", "cpuacct", "pids"].iter().find(|controller| !is_v1(controller));
    missing.map(|controller| format!("this host has no {controller} hierarchy of cgroup v1")).or_else(unless_limits)
}

/// What is of v2 alone.
pub fn unless_v2() -> Option<String> {
    let other = ["memory", "cpu", "pids"].iter().find(|controller| is_v1(controller));
    other
        .map(|controller| format!("the {controller} controller of this host is one of cgroup v1"))
        .or_else(unless_limits)
}

/// What files of the usual limits are read or written for.
pub fn unless_limits() -> Option<String> {
    unless(&["memory", "cpu", "cpuacct", "pids"])
}

/// The file that a limit stands in, by its names on both versions.
pub fn file<'a>(controller: &str, v1: &'a str, v2: &'a str) -> &'a str {
    if is_v1(controller) { v1 } else { v2 }
}
