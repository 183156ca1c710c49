//! One group: a directory in one hierarchy, made with its limits, and removed with whatever is below it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::alarm::Alarm;
use super::directory::Directory;
use super::files::TCP_BUFFERS;
use super::hierarchy::{Controller, Version};
use super::place::{Entrant, File, Place};
use crate::error::{Error, Result};
use crate::outcome::Layer;

/// A group that was made; it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Group {
    pub version: Version,
    pub directory: Directory,
    pub controllers: Vec<Controller>,
    /// Of a group of v1 below which the program may make others.
    pub alarm: Option<Alarm>,
    parent: Arc<Directory>,
    name: String,
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
pub(super) fn failed(step: String, call: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    let is_list = path.ends_with("cpuset.cpus") || path.ends_with("cpuset.mems");
    move |error| {
        let remedy = match error.raw_os_error() {
            Some(libc::ESTALE) => {
                "another user may write to the cgroup above, and has put a cgroup of their own in the place of this one: \
                 name a parent that belongs to this user (CgroupParent::Path)"
            }
            Some(libc::ENODEV) if call == "open" => {
                "it must be a directory of a cgroup file system: name another parent (CgroupParent::Path)"
            }
            Some(libc::ENOENT) if call == "write" => {
                "the kernel has no such file in this cgroup: leave the limit out, or name what is there (the sizes of huge \
                 pages are in /sys/kernel/mm/hugepages)"
            }
            Some(libc::EACCES | libc::EINVAL | libc::ERANGE) if call == "write" && is_list => {
                "name those that the cgroup above has: in a new one of v1, cpuset.cpus and cpuset.mems are empty until \
                 somebody writes them"
            }
            Some(libc::ENOENT) => {
                "it was removed meanwhile: create it again, or name another parent (CgroupParent::Path)"
            }
            Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) if call == "write" => {
                "the kernel does not take this value (see cgroups(7)), or the group above does not allow as much"
            }
            _ => "this user must be allowed to make cgroups there, and the group above must allow as much",
        };
        Error::set_up(step.clone(), call, error, Some(remedy)).of(Layer::Cgroup).on(&path)
    }
}

impl Group {
    /// One of a dead owner's, which is removed when it is dropped.
    pub fn adopt(parent: &Arc<Directory>, name: &str) -> Option<Self> {
        let directory = parent.child(name).ok()?;
        Some(Self::new(Version::V1, directory, &[], parent, name))
    }

    fn new(
        version: Version,
        directory: Directory,
        controllers: &[Controller],
        parent: &Arc<Directory>,
        name: &str,
    ) -> Self {
        let (parent, name) = (parent.clone(), name.to_owned());
        Self { version, directory, controllers: controllers.to_vec(), alarm: None, parent, name, is_there: true }
    }

    /// Makes a group with its limits, and opens what the program enters it by.
    /// Who may own it enters another one below, if it is limited there as well.
    pub fn make(place: &Place, parent: &Arc<Directory>, name: &str, entrant: Entrant) -> Result<(Self, Entry)> {
        let creating = |at: &Path| failed("making a cgroup".into(), "mkdir", at);
        let directory = parent.create(name).map_err(creating(&parent.path.join(name)))?;
        let mut group = Self::new(place.version, directory, &place.controllers, parent, name);
        if place.version == Version::V1 && place.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(parent, &group.directory).map_err(Error::host(INHERITING))?;
        }
        place.files.iter().try_for_each(|file| group.set(file))?;
        place.files.iter().try_for_each(|file| group.check_set(file, &place.parent))?;
        if entrant.may_own && place.version == Version::V1 && place.controllers.contains(&Controller::Memory) {
            group.alarm = Alarm::set(&group.directory);
        }
        if entrant.may_own && place.version == Version::V2 {
            group.limit_nesting().map_err(creating(&group.directory.path))?;
        }
        let inside = match entrant.may_own && group.is_hierarchical() {
            true => Some(group.make_inside(place).map_err(creating(&group.directory.path))?),
            false => None,
        };
        let inside = inside.as_ref().unwrap_or(&group.directory);
        // Of the one thread that writes: without the lock that moving a whole process takes.
        let v1 = place.version == Version::V1;
        let open = |name: &str, how: OFlag| {
            let path = inside.path.join(name);
            inside.file(name, how).map_err(failed("opening a cgroup".into(), "open", &path))
        };
        let file = open(if v1 { "tasks" } else { "cgroup.procs" }, OFlag::O_WRONLY)?;
        let clones = !v1 && entrant.is_cloned_by_caller;
        let directory = clones.then(|| open(".", OFlag::O_PATH | OFlag::O_DIRECTORY)).transpose()?;
        Ok((group, Entry { file, directory }))
    }

    /// Writes a limit.
    fn set(&self, file: &File) -> Result<()> {
        match self.directory.write(&file.name, &file.value) {
            // A kernel that has no such file counts these buffers with all other memory, or not at all.
            Err(error) if file.name == TCP_BUFFERS && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if file.of_swap && error.kind() == io::ErrorKind::NotFound && !has_swap() => Ok(()),
            result => {
                let step = format!("setting {} of a cgroup to {:?}", file.setting, file.value);
                result.map_err(failed(step, "write", &self.directory.path.join(&file.name)))
            }
        }
    }

    /// CPUs or memory nodes that the group above does not have are taken without an error on v2, and are not given.
    fn check_set(&self, file: &File, above: &Path) -> Result<()> {
        let effective = match (&*file.name, self.version) {
            ("cpuset.cpus", Version::V1) => "cpuset.effective_cpus",
            ("cpuset.mems", Version::V1) => "cpuset.effective_mems",
            ("cpuset.cpus", Version::V2) => "cpuset.cpus.effective",
            ("cpuset.mems", Version::V2) => "cpuset.mems.effective",
            _ => return Ok(()),
        };
        let step = || format!("reading what {} is in effect", file.setting);
        let had = self.directory.read(effective);
        let had = had.map_err(|error| failed(step(), "read", &self.directory.path.join(effective))(error))?;
        if numbers(&had) == numbers(&file.value) {
            return Ok(());
        }
        let what = format!(
            "{} = {:?} can't be had below {}: it gives {:?}",
            file.setting,
            file.value,
            above.display(),
            had.trim()
        );
        let remedy = format!(
            "name those that are in {effective} of the cgroup above and online, give that one more, or name another parent \
             (CgroupParent::Path)"
        );
        Err(Error::invalid(what, remedy).of(Layer::Cgroup))
    }

    /// Limits the groups that a program which owns its own may create below it. v1 has no such limit.
    fn limit_nesting(&self) -> io::Result<()> {
        self.directory.write("cgroup.max.descendants", "256")?;
        self.directory.write("cgroup.max.depth", "16")
    }

    fn is_hierarchical(&self) -> bool {
        self.controllers.iter().all(|controller| controller.is_hierarchical(self.version))
    }

    /// Makes the group that the program enters.
    fn make_inside(&self, place: &Place) -> io::Result<Directory> {
        let v1 = self.version == Version::V1;
        if v1 && self.controllers.contains(&Controller::Memory) {
            // Before Linux 5.11 it is not so by itself.
            let _ = self.directory.write("memory.use_hierarchy", "1");
        }
        let inside = self.directory.create(INSIDE)?;
        // The kernel counts those buffers only for the processes of a group that has a limit on them itself.
        for file in place.files.iter().filter(|file| file.name == TCP_BUFFERS) {
            let _ = inside.write(&file.name, &file.value);
        }
        if v1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&self.directory, &inside)?;
        }
        Ok(inside)
    }

    /// Removes it with whatever is below it; false, if it is there still, as while a process is in it.
    pub fn remove(&mut self) -> bool {
        self.is_there = self.parent.remove(&self.name).is_err();
        !self.is_there
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

/// The ranges of a list of numbers such as `0-3,7`, in order and as long as they can be; none for what is no such list.
fn numbers(list: &str) -> Option<Vec<(u32, u32)>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let parts = list.trim().split(',').filter(|part| !part.is_empty());
    let mut ranges = parts.map(range).collect::<Option<Vec<(u32, u32)>>>()?;
    ranges.sort_unstable();
    let mut whole: Vec<(u32, u32)> = vec![];
    for (first, last) in ranges {
        match whole.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => whole.push((first, last)),
        }
    }
    Some(whole)
}

/// Whether the machine has any swap: the table has a line beside its head.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

const INHERITING: &str = "giving a cgroup the CPUs and memory nodes of the one above";

/// A new group of v1 has no CPUs and no memory nodes.
fn inherit_cpuset(parent: &Directory, group: &Directory) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        group.write(file, parent.read(file)?.trim())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_compared_by_what_they_contain() {
        assert_eq!(numbers("0-3,7\n"), Some(vec![(0, 3), (7, 7)]));
        assert_eq!(numbers("7,1-3,0"), numbers("0-3,7"));
        assert_eq!(numbers("0,1,2"), numbers("0-2"));
        assert_eq!(numbers("\n"), Some(vec![]));
        assert_ne!(numbers("0-1"), numbers("0"));
        assert_eq!(numbers("0-x"), None);
    }
}
