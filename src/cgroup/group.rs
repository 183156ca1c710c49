//! One group: a directory in one hierarchy, made with its limits, and removed with whatever is below it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hierarchy::{Controller, Version};
use super::place::{Entrant, File, Place};
use crate::error::{Error, Result};
use crate::outcome::Layer;

/// A group that was made; it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Group {
    pub version: Version,
    pub directory: PathBuf,
    pub controllers: Vec<Controller>,
    is_there: bool,
}

/// How a process comes into a group.
#[derive(Debug)]
pub(super) struct Entry {
    /// Who writes `0` to it is in the group.
    pub file: OwnedFd,
    /// Who is cloned into it is in the group: of v2 alone.
    pub directory: Option<OwnedFd>,
}

/// The group that the program enters, below the one with the limits, where the files of the limits may belong to it: it is
/// the root of the program's cgroup namespace, so that whoever manages to mount the hierarchy inside does not see them.
const INSIDE: &str = "program";

/// The error of a call on a file or directory of a group.
fn failed(step: String, call: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| {
        let remedy = match error.raw_os_error() {
            Some(libc::ENOENT) if call == "write" => {
                "the kernel has no such file in this cgroup: leave the limit out, or name what is there (the sizes of huge \
                 pages are in /sys/kernel/mm/hugepages)"
            }
            Some(libc::EINVAL | libc::ERANGE) if call == "write" => {
                "the kernel does not take this value: see cgroups(7)"
            }
            _ => "this user must be allowed to make cgroups there, and the group above must allow as much",
        };
        Error::set_up(step.clone(), call, error, Some(remedy)).of(Layer::Cgroup).on(path)
    }
}

impl Group {
    /// One that is there, and is removed when it is dropped.
    pub fn new(version: Version, directory: PathBuf, controllers: &[Controller]) -> Self {
        Self { version, directory, controllers: controllers.to_vec(), is_there: true }
    }

    /// Makes a group with its limits, and opens what the program enters it by.
    /// Who may own it enters another one below, if it is limited there as well.
    pub fn make(place: &Place, name: &str, entrant: Entrant) -> Result<(Self, Entry)> {
        let directory = place.parent.join(name);
        fs::create_dir(&directory).map_err(failed("making a cgroup".into(), "mkdir", &directory))?;
        let group = Self::new(place.version, directory, &place.controllers);
        if place.version == Version::V1 && place.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&place.parent, &group.directory).map_err(Error::host(INHERITING))?;
        }
        place.files.iter().try_for_each(|file| group.set(file))?;
        let inside = match entrant.may_own && group.is_hierarchical() {
            true => group.make_inside().map_err(failed("making a cgroup".into(), "mkdir", &group.directory))?,
            false => group.directory.clone(),
        };
        // Of the one thread that writes: without the lock that moving a whole process takes.
        let v1 = place.version == Version::V1;
        let file = inside.join(if v1 { "tasks" } else { "cgroup.procs" });
        let open = |path: &Path, options: &mut OpenOptions| {
            let opened = options.open(path).map(OwnedFd::from);
            opened.map_err(failed("opening a cgroup".into(), "open", path))
        };
        let file = open(&file, OpenOptions::new().write(true))?;
        let mut place_alone = OpenOptions::new();
        place_alone.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
        let clones = !v1 && entrant.is_cloned_by_caller;
        let directory = clones.then(|| open(&inside, &mut place_alone)).transpose()?;
        Ok((group, Entry { file, directory }))
    }

    /// Writes a limit.
    fn set(&self, file: &File) -> Result<()> {
        let path = self.directory.join(&file.name);
        match write(&path, &file.value) {
            Err(error) if file.of_swap && error.kind() == io::ErrorKind::NotFound && !has_swap() => Ok(()),
            result => {
                let step = format!("setting {} of a cgroup to {:?}", file.setting, file.value);
                result.map_err(failed(step, "write", &path))
            }
        }
    }

    fn is_hierarchical(&self) -> bool {
        self.controllers.iter().all(|controller| controller.is_hierarchical(self.version))
    }

    /// Makes the group that the program enters.
    fn make_inside(&self) -> io::Result<PathBuf> {
        let v1 = self.version == Version::V1;
        if v1 && self.controllers.contains(&Controller::Memory) {
            // Before Linux 5.11 it is not so by itself.
            let _ = write(&self.directory.join("memory.use_hierarchy"), "1");
        }
        let inside = self.directory.join(INSIDE);
        fs::create_dir(&inside)?;
        if v1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&self.directory, &inside)?;
        }
        Ok(inside)
    }

    /// Removes it with whatever is below it; false, if somebody is in it still.
    pub fn remove(&mut self) -> bool {
        let removed = tree(&self.directory).iter().rev().try_for_each(fs::remove_dir);
        let is_busy = removed.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
        self.is_there = is_busy;
        !is_busy
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..ROUNDS {
            if !self.is_there || self.remove() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// A group and all below it, each before those that are below it.
pub(super) fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let below = below(directory);
        found.extend(below);
        next += 1;
    }
    found
}

/// The groups right below one.
fn below(directory: &Path) -> Vec<PathBuf> {
    // Each is a link of it, beside its own two: most have none, and need not be listed.
    if fs::metadata(directory).is_ok_and(|metadata| metadata.nlink() <= 2) {
        return vec![];
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

pub(super) fn processes(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect()
}

/// Whether the machine has any swap: the table has a line beside its head.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

const INHERITING: &str = "giving a cgroup the CPUs and memory nodes of the one above";

/// A new group of v1 has no CPUs and no memory nodes.
fn inherit_cpuset(parent: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        write(&group.join(file), fs::read_to_string(parent.join(file))?.trim())?;
    }
    Ok(())
}
