//! A cgroup in one hierarchy: created with its limits, removed with all cgroups below it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::alarm::OomAlarm;
use super::directory::Directory;
use super::hierarchy::{Controller, HierarchyVersion, SUBTREE_CONTROL, enabling};
use super::settings::TCP_BUFFERS;
use super::spec::{Entrant, File, GroupSpec};
use crate::advice::{Denial, Need};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::unix::{Errno, ToErrno};

/// A cgroup that was created. It is removed when it is dropped.
#[derive(Debug)]
pub(super) struct ControlGroup {
    pub version: HierarchyVersion,
    pub directory: Arc<Directory>,
    pub controllers: Vec<Controller>,
    /// The out-of-memory notification of a v1 cgroup below which the program may create others.
    pub alarm: Option<OomAlarm>,
    /// The cgroup above it whose limits hold for it, where that is not itself.
    limits: Option<Arc<Directory>>,
    parent: Arc<Directory>,
    /// The cgroup below it that the program enters, if that is another one.
    inside: Option<Arc<Directory>>,
    name: String,
    exists: bool,
}

/// The descriptors by which a process enters a cgroup.
#[derive(Debug)]
pub(super) struct GroupEntry {
    /// A process that writes `0` to this file enters the cgroup.
    pub file: OwnedFd,
    /// A process can be cloned into this directory. Only on v2.
    pub directory: Option<OwnedFd>,
}

/// The bytes by which a repeated limit on memory is larger. The kernel charges the cgroup inside first, with up to 64 pages
/// at once (`MEMCG_CHARGE_BATCH`), and must find the limit above exceeded: that is the sandbox's.
const BEYOND_LIMIT: u64 = 1 << 20;

/// The name of the cgroup below the one with the limits, which the program enters if it may own the files of the
/// limits. It is the root of the program's cgroup namespace, so that a mount of the hierarchy inside does not show the
/// limits.
const INSIDE: &str = "program";

/// Returns the error of a call on a file or directory of a cgroup.
pub(super) fn failed(step: String, call: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    let is_list = path.ends_with("cpuset.cpus") || path.ends_with("cpuset.mems");
    move |error| {
        let remedy = match error.raw_os_error() {
            Some(libc::ESTALE) => {
                "another user may write to the parent, and replaced this cgroup by their own: choose a parent that belongs to \
                 this user (CgroupParent::Path)"
            }
            Some(libc::ENODEV) if call == "open" => {
                "it must be a directory of a cgroup file system: choose another parent (CgroupParent::Path)"
            }
            Some(libc::ENOENT) if call == "write" => {
                "this cgroup has no such file: remove the limit, or pass a name that exists (the sizes of huge pages are in \
                 /sys/kernel/mm/hugepages)"
            }
            Some(libc::EACCES | libc::EINVAL | libc::ERANGE) if call == "write" && is_list => {
                "pass a subset of those of the parent: in a new cgroup of v1, cpuset.cpus and cpuset.mems are empty until they are \
                 written"
            }
            Some(libc::ENOENT) => {
                "it was removed in the meantime: create it again, or choose another parent (CgroupParent::Path)"
            }
            Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) if call == "write" => {
                "pass a value that the kernel accepts (cgroups(7)) and that the parent allows"
            }
            _ => {
                "choose a parent in which the caller may create cgroups, and whose limits allow it (CgroupParent::Path)"
            }
        };
        refused(step.clone(), call, error.to_errno(), remedy).on(&path)
    }
}

/// Returns the error of a call on a cgroup. `own` is the hint where it is not the host that denies cgroups to the caller.
pub(super) fn refused(step: String, call: &'static str, errno: Errno, own: &'static str) -> Error {
    // What the caller may not write may just be out of the range that the parent allows.
    let is_the_hosts = errno == Errno::EROFS || call == "mkdir" || step.starts_with("enable") && errno == Errno::EACCES;
    let need = is_the_hosts.then_some(Need::Cgroups);
    let advice = Denial { need, call, errno }.advice(Some(own));
    Error::set_up(step, call, errno, advice.as_deref()).of(Layer::Cgroup)
}

impl ControlGroup {
    /// Takes over the cgroup of a dead owner.
    pub fn adopt(parent: &Arc<Directory>, name: &str) -> Option<Self> {
        let directory = parent.child(name).ok()?;
        Some(Self::new(HierarchyVersion::V1, directory, &[], parent, name))
    }

    fn new(
        version: HierarchyVersion,
        directory: Directory,
        controllers: &[Controller],
        parent: &Arc<Directory>,
        name: &str,
    ) -> Self {
        let (parent, name) = (parent.clone(), name.to_owned());
        let (directory, controllers) = (Arc::new(directory), controllers.to_vec());
        Self { version, directory, controllers, alarm: None, limits: None, parent, inside: None, name, exists: true }
    }

    /// Creates a cgroup with its limits, and opens the descriptors by which the program enters it, or enters another
    /// one below it (see [`INSIDE`]).
    pub fn create(
        spec: &GroupSpec,
        parent: &Arc<Directory>,
        name: &str,
        entrant: Entrant,
    ) -> Result<(Self, GroupEntry)> {
        let creating = |at: &Path| failed("create a cgroup".into(), "mkdir", at);
        let directory = parent.create(name).map_err(creating(&parent.path.join(name)))?;
        let mut group = Self::new(spec.version, directory, &spec.controllers, parent, name);
        if spec.version == HierarchyVersion::V1 && spec.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(parent, &group.directory).map_err(Error::io(COPY_CPUSET))?;
        }
        spec.files.iter().try_for_each(|file| group.set(file))?;
        spec.files.iter().try_for_each(|file| group.check_set(file, &spec.parent))?;
        if entrant.may_own && spec.version == HierarchyVersion::V1 && spec.controllers.contains(&Controller::Memory) {
            group.alarm = OomAlarm::register(&group.directory);
        }
        if entrant.may_own && spec.version == HierarchyVersion::V2 {
            group.limit_nesting().map_err(creating(&group.directory.path))?;
        }
        if entrant.may_own && group.limits_those_below() {
            group.inside = Some(Arc::new(group.create_inside(spec).map_err(creating(&group.directory.path))?));
        }
        let file = group.open_entry()?;
        let clones = spec.version == HierarchyVersion::V2 && entrant.is_cloned_by_caller;
        let directory = clones.then(|| group.open(".", OFlag::O_PATH | OFlag::O_DIRECTORY)).transpose()?;
        Ok((group, GroupEntry { file, directory }))
    }

    /// The cgroup with the limits.
    pub fn limiting(&self) -> &Directory {
        self.limits.as_ref().unwrap_or(&self.directory)
    }

    /// The cgroup that processes enter.
    fn entered(&self) -> &Arc<Directory> {
        self.inside.as_ref().unwrap_or(&self.directory)
    }

    /// Opens a file of the cgroup that processes enter.
    fn open(&self, name: &str, how: OFlag) -> Result<OwnedFd> {
        let entered = self.entered();
        let path = entered.path.join(name);
        entered.file(name, how).map_err(io::Error::from).map_err(failed("open a cgroup".into(), "open", &path))
    }

    /// Opens the file by which a process enters.
    pub fn open_entry(&self) -> Result<OwnedFd> {
        // `tasks` moves only the thread that writes, without the lock that moving a whole process takes.
        self.open(if self.version == HierarchyVersion::V1 { "tasks" } else { "cgroup.procs" }, OFlag::O_WRONLY)
    }

    /// Has the kernel count and limit what is below it, which takes that no process is in it.
    pub fn pass_on(&self) -> Result<()> {
        if self.version == HierarchyVersion::V1 {
            return Ok(());
        }
        let entered = self.entered();
        let all = enabling(self.controllers.iter().filter_map(|controller| controller.v2()));
        let path = entered.path.join(SUBTREE_CONTROL);
        match all.is_empty() {
            true => Ok(()),
            false => entered.write(SUBTREE_CONTROL, &all).map_err(failed(
                "enable controllers for the commands of a session".into(),
                "write",
                &path,
            )),
        }
    }

    /// Creates a cgroup below the one that processes enter, without limits of its own, and opens the file by which a process
    /// enters it.
    pub fn create_below(&self, name: &str) -> Result<(Self, OwnedFd)> {
        let entered = self.entered();
        let directory =
            entered.create(name).map_err(failed("create a cgroup".into(), "mkdir", &entered.path.join(name)))?;
        let mut group = Self::new(self.version, directory, &self.controllers, entered, name);
        group.limits = Some(self.directory.clone());
        if self.version == HierarchyVersion::V1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(entered, &group.directory).map_err(Error::io(COPY_CPUSET))?;
        }
        let file = group.open_entry()?;
        Ok((group, file))
    }

    /// Writes a limit.
    fn set(&self, file: &File) -> Result<()> {
        match self.directory.write(&file.name, &file.value) {
            // A kernel without this file counts these buffers with other memory, or not at all.
            Err(error) if file.name == TCP_BUFFERS && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if file.of_swap && error.kind() == io::ErrorKind::NotFound && !has_swap() => Ok(()),
            result => {
                let step = format!("set {} of a cgroup, by writing {:?} to", file.setting, file.value);
                result.map_err(failed(step, "write", &self.directory.path.join(&file.name)))
            }
        }
    }

    /// Checks that all CPUs or memory nodes are in effect: v2 silently ignores those that the parent does not have.
    fn check_set(&self, file: &File, above: &Path) -> Result<()> {
        let effective = match (&*file.name, self.version) {
            ("cpuset.cpus", HierarchyVersion::V1) => "cpuset.effective_cpus",
            ("cpuset.mems", HierarchyVersion::V1) => "cpuset.effective_mems",
            ("cpuset.cpus", HierarchyVersion::V2) => "cpuset.cpus.effective",
            ("cpuset.mems", HierarchyVersion::V2) => "cpuset.mems.effective",
            _ => return Ok(()),
        };
        let step = || format!("read the effective {}", file.setting);
        let had = self.directory.read(effective);
        let had = had.map_err(|error| failed(step(), "read", &self.directory.path.join(effective))(error))?;
        if numbers(&had) == numbers(&file.value) {
            return Ok(());
        }
        let what = format!(
            "{} {:?} is not available below {}: it has {:?}",
            file.setting,
            file.value,
            above.display(),
            had.trim()
        );
        let remedy = format!(
            "pass a subset of {effective} of the parent, extend that one, or choose another parent (CgroupParent::Path)"
        );
        Err(Error::invalid(what, remedy).of(Layer::Cgroup))
    }

    /// Limits the cgroups that a program which owns its own may create below it. v1 has no such limit.
    fn limit_nesting(&self) -> io::Result<()> {
        self.directory.write("cgroup.max.descendants", "256")?;
        self.directory.write("cgroup.max.depth", "16")
    }

    /// Whether its limits apply to the cgroups below it.
    pub fn limits_those_below(&self) -> bool {
        self.controllers.iter().all(|controller| controller.is_hierarchical(self.version))
    }

    /// Whether there is something to measure in it, or to stop. On v2 one cgroup has all controllers.
    pub fn measures(&self) -> bool {
        self.version == HierarchyVersion::V2 || self.controllers.iter().any(|controller| controller.measures())
    }

    /// Creates the cgroup that the program enters.
    fn create_inside(&self, spec: &GroupSpec) -> io::Result<Directory> {
        let v1 = self.version == HierarchyVersion::V1;
        if v1 && self.controllers.contains(&Controller::Memory) {
            // Since Linux 5.11 this is always 1.
            let _ = self.directory.write("memory.use_hierarchy", "1");
        }
        let inside = self.directory.create(INSIDE)?;
        self.prepare(&inside, spec).inspect_err(|_| {
            let _ = self.directory.remove_empty(INSIDE);
        })?;
        Ok(inside)
    }

    /// Sets up the cgroup that the program enters.
    fn prepare(&self, inside: &Directory, spec: &GroupSpec) -> io::Result<()> {
        let v1 = self.version == HierarchyVersion::V1;
        // The kernel counts these buffers only in a cgroup that has a limit on them itself.
        for file in spec.files.iter().filter(|file| file.name == TCP_BUFFERS) {
            let _ = inside.write(&file.name, &file.value);
        }
        if v1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&self.directory, inside)?;
        }
        if !v1 {
            self.repeat_limits(inside, spec);
        }
        Ok(())
    }

    /// Writes the limits to the cgroup that the program enters too, of which it sees the files: runtimes size themselves
    /// by them. Those above are in force whether or not this succeeds. On v1 an OOM alarm would miss a limit below its
    /// cgroup.
    fn repeat_limits(&self, inside: &Directory, spec: &GroupSpec) {
        let all = enabling(self.controllers.iter().filter_map(|controller| controller.v2()));
        if self.directory.write(SUBTREE_CONTROL, &all).is_err() {
            return;
        }
        for File { name, value, .. } in &spec.files {
            let value = match value.parse::<u64>() {
                Ok(bytes) if name == "memory.max" => &bytes.saturating_add(BEYOND_LIMIT).to_string(),
                _ => value,
            };
            let _ = inside.write(name, value);
        }
    }

    /// Removes it with all cgroups below it. Returns false if it still exists, for example because a process is in it.
    pub fn remove(&mut self) -> bool {
        if self.inside.is_some() {
            // It takes no descriptor, of which the caller may have none left.
            let _ = self.directory.remove_empty(INSIDE);
        }
        self.exists = self.parent.remove(&self.name).is_err();
        !self.exists
    }

    /// Gives it up. Returns its parent and name, by which it can be removed.
    pub fn leave(&mut self) -> (Arc<Directory>, String) {
        self.exists = false;
        (self.parent.clone(), self.name.clone())
    }

    /// Removes it, and waits a short time for processes that are still exiting. The error is its path, if it still
    /// exists. It is given up then.
    pub fn remove_or_give_up(&mut self) -> std::result::Result<(), PathBuf> {
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..ROUNDS {
            if !self.exists || self.remove() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        self.exists = false;
        Err(self.directory.path.clone())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = self.remove_or_give_up();
    }
}

/// Parses a list of numbers such as `0-3,7` to sorted, merged ranges. `None` if it is not such a list.
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

/// Returns whether the machine has swap: the table has a line after its header.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

const COPY_CPUSET: &str = "copy cpuset.cpus and cpuset.mems from the parent of a cgroup";

/// Copies the CPUs and memory nodes of the parent: a new cgroup of v1 has none.
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
