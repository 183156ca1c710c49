//! The mounted cgroup hierarchies, and the caller's cgroup in each of them.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::directory::Directory;
use super::{CgroupParent, unit};
use crate::error::{Error, Result};
use crate::mountinfo::{self, Line};
use crate::proc_file;
use crate::unix::{self, ToErrno};

/// A cgroup controller, by its name on v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuacct,
    Cpuset,
    Pids,
    Io,
    Hugetlb,
    Freezer,
}

impl Controller {
    /// The freezer comes first: a killed process does not terminate until it is thawed.
    pub const ALL: [Self; 8] =
        [Self::Freezer, Self::Memory, Self::Cpu, Self::Cpuacct, Self::Cpuset, Self::Pids, Self::Io, Self::Hugetlb];

    /// Returns whether limits of a cgroup apply to the cgroups below it: all but the throttling of v1.
    pub fn is_hierarchical(self, version: HierarchyVersion) -> bool {
        (self, version) != (Self::Io, HierarchyVersion::V1)
    }

    /// Returns whether it counts what processes use, or stops them. The others only limit it.
    pub fn measures(self) -> bool {
        matches!(self, Self::Memory | Self::Cpuacct | Self::Pids | Self::Io | Self::Freezer)
    }

    /// Returns the controller that a file belongs to, by the prefix of its name on v1 or v2.
    pub fn of_file(file: &str) -> Option<Self> {
        Some(match file.split('.').next()? {
            "memory" => Self::Memory,
            "cpu" => Self::Cpu,
            "cpuacct" => Self::Cpuacct,
            "cpuset" => Self::Cpuset,
            "pids" => Self::Pids,
            "io" | "blkio" => Self::Io,
            "hugetlb" => Self::Hugetlb,
            "freezer" => Self::Freezer,
            _ => return None,
        })
    }

    /// Returns the name on v1, a mount option of the hierarchy.
    pub fn v1(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::Freezer => "freezer",
        }
    }

    /// Returns the name in `cgroup.controllers` of v2. `None` if every cgroup of v2 has it.
    pub fn v2(self) -> Option<&'static str> {
        match self {
            Self::Cpuacct | Self::Freezer => None,
            Self::Io => Some("io"),
            other => Some(other.v1()),
        }
    }
}

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HierarchyVersion {
    V1,
    V2,
}

/// A mounted hierarchy.
pub(super) struct Hierarchy {
    version: HierarchyVersion,
    point: PathBuf,
    /// The cgroup that is visible at the mount point.
    root: PathBuf,
    /// The options of the file system, of which the controllers of a v1 hierarchy are some.
    controllers: Vec<String>,
    /// The controllers of a v1 hierarchy, separated by commas.
    names: String,
    /// The caller's cgroup.
    own: PathBuf,
}

/// The file of a cgroup of v2 with the controllers of the cgroups below it.
pub(super) const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// Returns what is written to [`SUBTREE_CONTROL`] to enable controllers.
pub(super) fn enabling<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

/// The prefix of the names of leaves to which the processes of a caller's cgroup were moved.
pub(super) const CALLER_LEAF: &str = "stockade-caller-";

/// The mounted hierarchies, with the parent below which cgroups are created.
pub(super) struct Hierarchies {
    mounted: Vec<Hierarchy>,
    /// The requested parent, relative to the root of each hierarchy. `None` for the caller's own cgroup.
    parent: Option<PathBuf>,
    /// Whether the caller's own cgroup is a scope that was delegated to it.
    is_delegated: bool,
    /// The controllers of the v2 cgroup, once read.
    offered: OnceCell<WordList>,
}

impl Hierarchies {
    pub fn read(parent: &CgroupParent) -> Result<Self> {
        let mut hierarchies = Self::of_caller(&mountinfo::table().map_err(Error::mounts)?)?;
        match parent {
            CgroupParent::Auto => {}
            CgroupParent::Path(path) => hierarchies.parent = Some(path.strip_prefix("/").unwrap_or(path).to_owned()),
            CgroupParent::SystemdScope => hierarchies.is_delegated = true,
        }
        Ok(hierarchies)
    }

    /// Returns the hierarchies for the caller, by the contents of `/proc/self/mountinfo`.
    pub fn of_caller(mounts: &[u8]) -> Result<Self> {
        let own = proc_file::read("/proc/self/cgroup").map_err(Error::io("read /proc/self/cgroup"))?;
        Ok(Self::new(mountinfo::parse_of_kind(mounts, b"cgroup"), &own, None))
    }

    /// Returns the hierarchies for a process, by the contents of `/proc/[pid]/cgroup`.
    pub fn of(own: &[u8]) -> Result<Self> {
        Ok(Self::new(mountinfo::read_of_kind(b"cgroup").map_err(Error::mounts)?, own, None))
    }

    fn new(mounts: Vec<Line>, own: &[u8], parent: Option<PathBuf>) -> Self {
        let mut mounted: Vec<Hierarchy> = vec![];
        for mount in mounts {
            let version = match mount.kind.as_slice() {
                b"cgroup" => HierarchyVersion::V1,
                b"cgroup2" => HierarchyVersion::V2,
                _ => continue,
            };
            let options = String::from_utf8_lossy(&mount.super_options).into_owned();
            let controllers: Vec<String> = options.split(',').map(str::to_owned).collect();
            let Some((names, own)) = own_cgroup(own, version, &controllers) else { continue };
            mounted.push(Hierarchy { version, point: mount.point, root: mount.root, controllers, names, own });
        }
        // In a cgroup namespace, a mount from outside may not show the caller's cgroup, while a mount made inside does:
        // prefer the latter.
        mounted.sort_by_key(|hierarchy| hierarchy.directory(None).is_none());
        Self { mounted, parent, is_delegated: false, offered: OnceCell::new() }
    }

    /// Whether this user may write to a cgroup of the caller, except in hierarchies that are left out. One that no
    /// mount shows may be writable: the program can mount it.
    pub fn are_writable(&self, is_left_out: impl Fn(&Hierarchy) -> bool) -> bool {
        let may_write = |hierarchy: &Hierarchy| match hierarchy.own.strip_prefix(&hierarchy.root) {
            Ok(own) => access(&hierarchy.point.join(own).join("cgroup.procs"), AccessFlags::W_OK).is_ok(),
            Err(_) => true,
        };
        self.mounted.is_empty() || self.mounted.iter().any(|hierarchy| !is_left_out(hierarchy) && may_write(hierarchy))
    }

    /// Looks up the parent directory for each controller.
    pub fn parents(self) -> Parents {
        let mut directories: Vec<ParentDirectory> = vec![];
        let mut by_controller = vec![];
        for controller in Controller::ALL {
            let Some((version, directory)) = self.directory(controller) else { continue };
            let known = directories.iter().position(|parent| parent.directory == directory);
            let index = known.unwrap_or_else(|| {
                let unit_above = self.unit_root(version);
                directories.push(ParentDirectory {
                    version,
                    directory,
                    unit_above,
                    obstacle: OnceCell::new(),
                    enabled: OnceCell::new(),
                });
                directories.len() - 1
            });
            by_controller.push((controller, index));
        }
        Parents { directories, by_controller, hierarchies: self }
    }

    /// Returns whether any mounted hierarchy has a controller.
    pub fn have(&self, controller: Controller) -> bool {
        self.mounted.iter().any(|hierarchy| hierarchy.has(controller))
    }

    /// Returns the directory up to which systemd units are looked for. `None` if the parent was requested explicitly.
    fn unit_root(&self, version: HierarchyVersion) -> Option<PathBuf> {
        let v2 = self.mounted.iter().find(|hierarchy| hierarchy.version == HierarchyVersion::V2);
        let is_looked_for = version == HierarchyVersion::V2 && self.parent.is_none() && !self.is_delegated;
        v2.filter(|_| is_looked_for).map(|hierarchy| hierarchy.point.clone())
    }

    /// Returns the systemd unit of a directory in the caller's own cgroup, if the unit is not delegated.
    pub fn undelegated(&self, version: HierarchyVersion, directory: &Path) -> Option<String> {
        unit::undelegated(directory, &self.unit_root(version)?)
    }

    /// Returns the mount point of a hierarchy that has a controller, but does not show the caller's cgroup.
    pub fn point_elsewhere(&self, controller: Controller) -> Option<&Path> {
        let mut hidden = self.mounted.iter().filter(|hierarchy| hierarchy.directory(None).is_none());
        hidden.find(|hierarchy| hierarchy.has(controller)).map(|hierarchy| &*hierarchy.point)
    }

    /// Returns the directory below which cgroups with a controller are created, and its version.
    pub fn directory(&self, controller: Controller) -> Option<(HierarchyVersion, PathBuf)> {
        let parent = self.parent.as_deref();
        let v1 = self.mounted.iter().find(|hierarchy| {
            let named = |name: &String| name == controller.v1();
            hierarchy.version == HierarchyVersion::V1 && hierarchy.controllers.iter().any(named)
        });
        let v2 = || self.mounted.iter().find(|hierarchy| hierarchy.version == HierarchyVersion::V2);
        if let Some(hierarchy) = v1 {
            return Some((HierarchyVersion::V1, hierarchy.directory(parent)?));
        }
        let directory = v2()?.directory(parent)?;
        let offered = || self.offered.get_or_init(|| WordList::of(&directory.join("cgroup.controllers")));
        let has = controller.v2().is_none_or(|name| offered().has(name));
        has.then_some((HierarchyVersion::V2, directory))
    }
}

fn is_missing(opened: &io::Result<Directory>) -> bool {
    opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A directory below which cgroups are created.
pub(super) struct ParentDirectory {
    pub version: HierarchyVersion,
    pub directory: PathBuf,
    /// The directory up to which the systemd unit of this directory is looked for.
    unit_above: Option<PathBuf>,
    obstacle: OnceCell<Option<Obstacle>>,
    /// The controllers that are enabled for child cgroups.
    enabled: OnceCell<WordList>,
}

/// Why no cgroup can be created in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The directory does not exist: the requested parent exists only in another hierarchy.
    Absent,
    /// No cgroup file system is visible there: its mount point is covered.
    Covered,
    /// The caller may not write there.
    NotAllowed(unix::Errno),
    /// It is in this systemd unit, which is not delegated.
    Undelegated(String),
    /// It is threaded (cgroups(7), "thread mode"), with this `cgroup.type`.
    Threaded(String),
}

impl ParentDirectory {
    /// Returns why no cgroup can be created here, if so.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        self.obstacle.get_or_init(|| self.find_obstacle()).as_ref()
    }

    fn find_obstacle(&self) -> Option<Obstacle> {
        match access(&self.directory, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => {}
            Err(Errno::ENOENT) if self.is_covered() => return Some(Obstacle::Covered),
            Err(Errno::ENOENT) => return Some(Obstacle::Absent),
            Err(errno) => return Some(Obstacle::NotAllowed(errno.to_errno())),
        }
        if let Some(unit) = self.unit_above.as_ref().and_then(|point| unit::undelegated(&self.directory, point)) {
            return Some(Obstacle::Undelegated(unit));
        }
        // v1 and the root of v2 have no such file.
        let kind = fs::read_to_string(self.directory.join("cgroup.type")).unwrap_or_default();
        let kind = kind.trim();
        (!matches!(kind, "" | "domain")).then(|| Obstacle::Threaded(kind.into()))
    }

    /// Returns whether the nearest directory that exists above this one is in another file system.
    fn is_covered(&self) -> bool {
        let seen = self.directory.ancestors().map(Directory::open).find(|opened| !is_missing(opened));
        seen.is_some_and(|opened| opened.is_err())
    }

    /// Returns whether cgroups can be created here.
    pub fn is_usable(&self) -> bool {
        self.obstacle().is_none()
    }

    /// Returns whether a child cgroup of v1 with a controller can have processes: those of the cpuset controller need
    /// CPUs and memory nodes of the parent.
    pub fn has_processors(&self, controller: Controller) -> bool {
        let has = |file: &str| fs::read_to_string(self.directory.join(file)).is_ok_and(|list| !list.trim().is_empty());
        controller != Controller::Cpuset || has("cpuset.cpus") && has("cpuset.mems")
    }

    /// Returns whether child cgroups have a controller already, so that no process must be moved.
    pub fn passes_on(&self, controller: Controller) -> bool {
        let enabled = || self.enabled.get_or_init(|| WordList::of(&self.directory.join(SUBTREE_CONTROL)));
        self.version == HierarchyVersion::V1 || controller.v2().is_none_or(|name| enabled().has(name))
    }
}

/// The parent directory for each controller.
pub(super) struct Parents {
    directories: Vec<ParentDirectory>,
    /// Indexes into `directories`.
    by_controller: Vec<(Controller, usize)>,
    hierarchies: Hierarchies,
}

impl Parents {
    pub fn of(&self, controller: Controller) -> Option<&ParentDirectory> {
        self.by_controller.iter().find(|(known, _)| *known == controller).map(|&(_, index)| &self.directories[index])
    }

    /// Returns all controllers of the v1 hierarchy that has a controller, separated by commas.
    pub fn v1_names(&self, controller: Controller) -> Option<&str> {
        let mut v1 = self.hierarchies.mounted.iter().filter(|hierarchy| hierarchy.version == HierarchyVersion::V1);
        v1.find(|hierarchy| hierarchy.has(controller)).map(|hierarchy| &*hierarchy.names)
    }

    /// Returns the requested parent, relative to the root of each hierarchy.
    pub fn parent(&self) -> Option<&Path> {
        self.hierarchies.parent.as_deref()
    }

    /// Returns whether a controller is unavailable because the host lacks it. Below a requested parent, which a program
    /// may have removed or changed, that is so only if no hierarchy has it.
    pub fn lack(&self, controller: Controller) -> bool {
        let is_usable = self.of(controller).is_some_and(ParentDirectory::is_usable);
        is_usable || self.parent().is_none() || !self.hierarchies.have(controller)
    }

    /// Returns the mount point of a hierarchy that has a controller, but does not show the caller's cgroup.
    pub fn point_elsewhere(&self, controller: Controller) -> Option<&Path> {
        self.hierarchies.point_elsewhere(controller)
    }

    pub fn directories(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|parent| parent.directory.clone()).collect()
    }
}

impl Hierarchy {
    /// Whether a cgroup with these controllers is one of this hierarchy.
    pub fn holds(&self, version: HierarchyVersion, controllers: &[Controller]) -> bool {
        self.version == version && controllers.iter().any(|&controller| self.has(controller))
    }

    fn has(&self, controller: Controller) -> bool {
        match self.version {
            HierarchyVersion::V1 => self.controllers.iter().any(|name| name == controller.v1()),
            HierarchyVersion::V2 => {
                let offered = WordList::of(&self.point.join("cgroup.controllers"));
                controller.v2().is_none_or(|name| offered.has(name))
            }
        }
    }

    /// Returns the directory of the parent cgroup. `None` if it is not visible at the mount point.
    fn directory(&self, parent: Option<&Path>) -> Option<PathBuf> {
        let own = match self.own.file_name() {
            Some(name) if name.to_string_lossy().starts_with(CALLER_LEAF) => self.own.parent()?,
            _ => &self.own,
        };
        let cgroup = parent.map_or_else(|| own.to_owned(), |parent| Path::new("/").join(parent));
        Some(self.point.join(cgroup.strip_prefix(&self.root).ok()?))
    }
}

/// Looks up all parents by these tables, below the own cgroup and below a requested one.
#[cfg(fuzzing)]
pub(crate) fn places(mounts: &[u8], own: &[u8]) {
    for parent in [None, Some("parent".into())] {
        let hierarchies = Hierarchies::new(mountinfo::parse(mounts), own, parent);
        for controller in Controller::ALL {
            hierarchies.directory(controller);
        }
    }
}

/// The words in a file of a cgroup. Empty if it cannot be read.
pub(super) struct WordList(String);

impl WordList {
    pub fn of(file: &Path) -> Self {
        Self(fs::read_to_string(file).unwrap_or_default())
    }

    pub fn in_directory(directory: &Directory, file: &str) -> Self {
        Self(directory.read(file).unwrap_or_default())
    }

    pub fn has(&self, word: &str) -> bool {
        self.0.split_whitespace().any(|has| has == word)
    }
}

/// Returns the controllers and the cgroup from the lines of `/proc/self/cgroup`: `id:controllers:path`, without
/// controllers on v2.
fn own_cgroup(own: &[u8], version: HierarchyVersion, controllers: &[String]) -> Option<(String, PathBuf)> {
    own.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        // A program that owns cgroups chooses their names, which need not be UTF-8.
        let (names, path) = (std::str::from_utf8(fields.next()?).ok()?, OsStr::from_bytes(fields.next()?));
        let here = match version {
            HierarchyVersion::V1 => {
                !names.is_empty() && names.split(',').all(|name| controllers.iter().any(|has| has == name))
            }
            HierarchyVersion::V2 => names.is_empty(),
        };
        here.then(|| (names.into(), path.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const OWN: &[u8] = b"4:memory:/docker/x/job\n1:cpu,cpuacct:/\n0::/user\n";

    fn directory(controller: Controller, parent: Option<&str>) -> Option<(HierarchyVersion, PathBuf)> {
        Hierarchies::new(mountinfo::parse(HYBRID.as_bytes()), OWN, parent.map(PathBuf::from)).directory(controller)
    }

    #[test]
    fn a_controller_is_found_where_it_is_mounted() {
        let v1 = |path: &str| Some((HierarchyVersion::V1, path.into()));
        assert_eq!(directory(Controller::Memory, None), v1("/sys/fs/cgroup/memory/job"));
        assert_eq!(directory(Controller::Cpuacct, None), v1("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(directory(Controller::Cpu, Some("judge")), v1("/sys/fs/cgroup/cpu,cpuacct/judge"));
        let v2 = Some((HierarchyVersion::V2, "/sys/fs/cgroup/unified/user".into()));
        assert_eq!(directory(Controller::Freezer, None), v2, "every group of v2 has it");
    }

    #[test]
    fn a_mount_that_shows_the_own_cgroup_is_preferred() {
        let mounts =
            "72 68 0:32 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n84 64 0:32 / /mnt rw - cgroup2 none rw\n";
        let found = Hierarchies::new(mountinfo::parse(mounts.as_bytes()), b"0::/job\n", None);
        assert_eq!(found.directory(Controller::Freezer), Some((HierarchyVersion::V2, "/mnt/job".into())));
    }

    #[test]
    fn hidden_and_missing_cgroups_are_none() {
        assert_eq!(directory(Controller::Memory, Some("elsewhere")), None, "outside of what is mounted");
        assert_eq!(directory(Controller::Io, None), None);
    }
}
