//! Which hierarchies the host has, and where in each of them it is.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::directory::Directory;
use super::{CgroupParent, unit};
use crate::error::{Error, Result};
use crate::mountinfo::{self, Line};

/// What limits and counts, by its name on v2.
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
    /// The freezer first: who is frozen ends when it is thawed.
    pub const ALL: [Self; 8] =
        [Self::Freezer, Self::Memory, Self::Cpu, Self::Cpuacct, Self::Cpuset, Self::Pids, Self::Io, Self::Hugetlb];

    /// Whether what limits a group limits those below it: all but the throttling of v1.
    pub fn is_hierarchical(self, version: Version) -> bool {
        (self, version) != (Self::Io, Version::V1)
    }

    /// By the name that files of either version begin with.
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

    /// The name that a v1 hierarchy is mounted with.
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

    /// The name in `cgroup.controllers`; none for what every group of v2 has.
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
pub(super) enum Version {
    V1,
    V2,
}

/// A hierarchy that is mounted.
struct Hierarchy {
    version: Version,
    point: PathBuf,
    /// The cgroup that is seen at the mount point.
    root: PathBuf,
    /// Of v1.
    controllers: Vec<String>,
    /// The host's cgroup.
    own: PathBuf,
}

/// What the name of a leaf begins with that the processes of hosts were moved to.
pub(super) const HOST_LEAF: &str = "stockade-host-";

/// The hierarchies of the host, and below which cgroup of theirs groups are made.
pub(super) struct Hierarchies {
    mounted: Vec<Hierarchy>,
    /// Below the root of each; without one it is the host's own.
    parent: Option<PathBuf>,
    /// The host's own is in a scope that was delegated to it.
    is_delegated: bool,
    /// What the cgroup of v2 has, once it was asked.
    offered: OnceCell<Words>,
}

impl Hierarchies {
    pub fn read(parent: &CgroupParent) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(Error::host("reading /proc/self/cgroup"))?;
        let mut hierarchies = Self::of(&own)?;
        match parent {
            CgroupParent::Auto => {}
            CgroupParent::Path(path) => hierarchies.parent = Some(path.strip_prefix("/").unwrap_or(path).to_owned()),
            CgroupParent::SystemdScope => hierarchies.is_delegated = true,
        }
        Ok(hierarchies)
    }

    /// Those of a process, by the contents of its file in `/proc`.
    pub fn of(own: &str) -> Result<Self> {
        Ok(Self::new(mountinfo::read_of_kind(b"cgroup")?, own, None))
    }

    fn new(mounts: Vec<Line>, own: &str, parent: Option<PathBuf>) -> Self {
        let mut mounted: Vec<Hierarchy> = vec![];
        for mount in mounts {
            let version = match mount.kind.as_slice() {
                b"cgroup" => Version::V1,
                b"cgroup2" => Version::V2,
                _ => continue,
            };
            let options = String::from_utf8_lossy(&mount.super_options).into_owned();
            let controllers: Vec<String> = options.split(',').map(str::to_owned).collect();
            let Some(own) = own_cgroup(own, version, &controllers) else { continue };
            mounted.push(Hierarchy { version, point: mount.point, root: mount.root, controllers, own });
        }
        // In a cgroup namespace what was mounted outside of it may show another cgroup, and what was mounted since shows its own.
        mounted.sort_by_key(|hierarchy| hierarchy.directory(None).is_none());
        Self { mounted, parent, is_delegated: false, offered: OnceCell::new() }
    }

    /// Where groups with each controller are made, looked up once.
    pub fn grounds(self) -> Grounds {
        let mut grounds: Vec<Ground> = vec![];
        let mut of = vec![];
        for controller in Controller::ALL {
            let Some((version, directory)) = self.place(controller) else { continue };
            let known = grounds.iter().position(|ground| ground.directory == directory);
            let index = known.unwrap_or_else(|| {
                let unit_above = self.unit_root(version);
                grounds.push(Ground {
                    version,
                    directory,
                    unit_above,
                    hindrance: OnceCell::new(),
                    given: OnceCell::new(),
                });
                grounds.len() - 1
            });
            of.push((controller, index));
        }
        Grounds { grounds, of, hierarchies: self }
    }

    /// Whether a hierarchy that is mounted has a controller, wherever.
    pub fn have(&self, controller: Controller) -> bool {
        self.mounted.iter().any(|hierarchy| hierarchy.has(controller))
    }

    /// Where systemd's units are looked for above a directory: nowhere, if the parent was named.
    fn unit_root(&self, version: Version) -> Option<PathBuf> {
        let v2 = self.mounted.iter().find(|hierarchy| hierarchy.version == Version::V2);
        let is_looked_for = version == Version::V2 && self.parent.is_none() && !self.is_delegated;
        v2.filter(|_| is_looked_for).map(|hierarchy| hierarchy.point.clone())
    }

    /// The unit of systemd's that a directory of this process's own group is in, if it is not delegated.
    pub fn undelegated(&self, version: Version, directory: &Path) -> Option<String> {
        unit::undelegated(directory, &self.unit_root(version)?)
    }

    /// Where a hierarchy with a controller is mounted of which this process's group is not seen.
    pub fn point_elsewhere(&self, controller: Controller) -> Option<&Path> {
        let mut hidden = self.mounted.iter().filter(|hierarchy| hierarchy.directory(None).is_none());
        hidden.find(|hierarchy| hierarchy.has(controller)).map(|hierarchy| &*hierarchy.point)
    }

    /// The directory below which groups with a controller are made, and its version.
    pub fn place(&self, controller: Controller) -> Option<(Version, PathBuf)> {
        let parent = self.parent.as_deref();
        let v1 = self.mounted.iter().find(|hierarchy| {
            let named = |name: &String| name == controller.v1();
            hierarchy.version == Version::V1 && hierarchy.controllers.iter().any(named)
        });
        let v2 = || self.mounted.iter().find(|hierarchy| hierarchy.version == Version::V2);
        if let Some(hierarchy) = v1 {
            return Some((Version::V1, hierarchy.directory(parent)?));
        }
        let directory = v2()?.directory(parent)?;
        let offered = || self.offered.get_or_init(|| Words::of(&directory.join("cgroup.controllers")));
        let has = controller.v2().is_none_or(|name| offered().has(name));
        has.then_some((Version::V2, directory))
    }
}

/// A directory below which groups are made.
pub(super) struct Ground {
    pub version: Version,
    pub directory: PathBuf,
    /// Up to where a unit of systemd's is looked for that it is in.
    unit_above: Option<PathBuf>,
    hindrance: OnceCell<Option<Hindrance>>,
    /// What groups below have.
    given: OnceCell<Words>,
}

/// Why no group can be made somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// There is no such directory: a parent that was named is in another hierarchy alone.
    Absent,
    /// This user may not write there.
    NotAllowed,
    /// It is in this unit of systemd's, which is not delegated.
    Undelegated(String),
    /// It is for threads (cgroups(7), "thread mode"): its `cgroup.type`.
    Threaded(String),
}

impl Ground {
    /// Why no group can be made here, if none can.
    pub fn hindrance(&self) -> Option<&Hindrance> {
        self.hindrance.get_or_init(|| self.find_hindrance()).as_ref()
    }

    fn find_hindrance(&self) -> Option<Hindrance> {
        match access(&self.directory, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Some(Hindrance::Absent),
            Err(_) => return Some(Hindrance::NotAllowed),
        }
        if let Some(unit) = self.unit_above.as_ref().and_then(|point| unit::undelegated(&self.directory, point)) {
            return Some(Hindrance::Undelegated(unit));
        }
        // v1 has no such file, nor has the root of v2.
        let kind = fs::read_to_string(self.directory.join("cgroup.type")).unwrap_or_default();
        let kind = kind.trim();
        (!matches!(kind, "" | "domain")).then(|| Hindrance::Threaded(kind.into()))
    }

    /// Whether groups can be made here.
    pub fn may_make(&self) -> bool {
        self.hindrance().is_none()
    }

    /// Whether a group below can have a controller without that processes are moved for it.
    pub fn may_give(&self, controller: Controller) -> bool {
        let given = || self.given.get_or_init(|| Words::of(&self.directory.join("cgroup.subtree_control")));
        self.version == Version::V1 || controller.v2().is_none_or(|name| given().has(name))
    }
}

/// The directory for every controller that a hierarchy has here.
pub(super) struct Grounds {
    grounds: Vec<Ground>,
    /// By index.
    of: Vec<(Controller, usize)>,
    hierarchies: Hierarchies,
}

impl Grounds {
    pub fn of(&self, controller: Controller) -> Option<&Ground> {
        self.of.iter().find(|(known, _)| *known == controller).map(|&(_, index)| &self.grounds[index])
    }

    /// The requested parent, as [`Hierarchies`] has it.
    pub fn parent(&self) -> Option<&Path> {
        self.hierarchies.parent.as_deref()
    }

    /// Whether a controller that can't be used here is one that the host lacks. Below a requested parent, which may have
    /// been removed or changed by a program, it is lacking only if no hierarchy has it.
    pub fn lack(&self, controller: Controller) -> bool {
        let has_place = self.of(controller).is_some_and(Ground::may_make);
        has_place || self.parent().is_none() || !self.hierarchies.have(controller)
    }

    /// Where a hierarchy with a controller is mounted of which this process's group is not seen.
    pub fn point_elsewhere(&self, controller: Controller) -> Option<&Path> {
        self.hierarchies.point_elsewhere(controller)
    }

    pub fn directories(&self) -> Vec<PathBuf> {
        self.grounds.iter().map(|ground| ground.directory.clone()).collect()
    }
}

impl Hierarchy {
    fn has(&self, controller: Controller) -> bool {
        match self.version {
            Version::V1 => self.controllers.iter().any(|name| name == controller.v1()),
            Version::V2 => {
                let offered = Words::of(&self.point.join("cgroup.controllers"));
                controller.v2().is_none_or(|name| offered.has(name))
            }
        }
    }

    /// `None` if it is not seen at the mount point.
    fn directory(&self, parent: Option<&Path>) -> Option<PathBuf> {
        let own = match self.own.file_name() {
            Some(name) if name.to_string_lossy().starts_with(HOST_LEAF) => self.own.parent()?,
            _ => &self.own,
        };
        let cgroup = parent.map_or_else(|| own.to_owned(), |parent| Path::new("/").join(parent));
        Some(self.point.join(cgroup.strip_prefix(&self.root).ok()?))
    }
}

/// Where groups would be made by these tables, below the host's own and below a parent.
#[cfg(fuzzing)]
pub(crate) fn places(mounts: &[u8], own: &str) {
    for parent in [None, Some("parent".into())] {
        let hierarchies = Hierarchies::new(mountinfo::parse(mounts), own, parent);
        for controller in Controller::ALL {
            hierarchies.place(controller);
        }
    }
}

/// The words of a file of a cgroup; none, if it can't be read.
pub(super) struct Words(String);

impl Words {
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

/// The path in a line of `/proc/self/cgroup`: `id:controllers:path`, without controllers on v2.
fn own_cgroup(own: &str, version: Version, controllers: &[String]) -> Option<PathBuf> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let here = match version {
            Version::V1 => !names.is_empty() && names.split(',').all(|name| controllers.iter().any(|has| has == name)),
            Version::V2 => names.is_empty(),
        };
        here.then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const OWN: &str = "4:memory:/docker/x/job\n1:cpu,cpuacct:/\n0::/user\n";

    fn place(controller: Controller, parent: Option<&str>) -> Option<(Version, PathBuf)> {
        Hierarchies::new(mountinfo::parse(HYBRID.as_bytes()), OWN, parent.map(PathBuf::from)).place(controller)
    }

    #[test]
    fn a_controller_is_found_where_it_is_mounted() {
        let v1 = |path: &str| Some((Version::V1, path.into()));
        assert_eq!(place(Controller::Memory, None), v1("/sys/fs/cgroup/memory/job"));
        assert_eq!(place(Controller::Cpuacct, None), v1("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(place(Controller::Cpu, Some("judge")), v1("/sys/fs/cgroup/cpu,cpuacct/judge"));
        let v2 = Some((Version::V2, "/sys/fs/cgroup/unified/user".into()));
        assert_eq!(place(Controller::Freezer, None), v2, "every group of v2 has it");
    }

    #[test]
    fn of_two_mounts_of_a_hierarchy_the_one_that_shows_the_own_cgroup_counts() {
        let mounts =
            "72 68 0:32 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n84 64 0:32 / /mnt rw - cgroup2 none rw\n";
        let found = Hierarchies::new(mountinfo::parse(mounts.as_bytes()), "0::/job\n", None);
        assert_eq!(found.place(Controller::Freezer), Some((Version::V2, "/mnt/job".into())));
    }

    #[test]
    fn what_is_not_seen_or_not_there_is_none() {
        assert_eq!(place(Controller::Memory, Some("elsewhere")), None, "outside of what is mounted");
        assert_eq!(place(Controller::Io, None), None);
    }
}
