//! The decisions about a sandbox's cgroups, made when it is compiled: their parents, and the files to write.

use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

use super::hierarchy::{Controller, Hierarchies, Hierarchy, HierarchyVersion, Obstacle, ParentDirectory, Parents};
use super::settings::Setting;
use super::{Cgroup, CgroupParent, systemd};
use crate::advice::{Denial, Need};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::outcome::Unenforced;

/// The cgroups of a sandbox, one in each hierarchy that is needed.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(super) groups: Vec<GroupSpec>,
    /// The parents below which cgroups of dead callers are removed.
    pub(super) stale_parents: Vec<PathBuf>,
    /// Whether the parent is the caller's own cgroup, whose processes may have to be moved to a leaf.
    pub(super) below_own: bool,
    pub(super) entrant: Entrant,
    /// A limit that is not fully enforced on this host, although its files are written.
    unenforced: Option<Unenforced>,
    /// The mounts by which the program sees its cgroups.
    view: Vec<ViewMount>,
}

/// A mount by which the program sees its cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViewMount {
    /// The path below `/sys/fs/cgroup`.
    pub place: String,
    /// The type of the file system.
    pub kind: &'static str,
    /// The controllers of a v1 hierarchy.
    pub controllers: Vec<String>,
}

/// The process that enters the cgroups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrant {
    /// Whether it may own the files of the limits, so that it runs in a cgroup below them.
    pub may_own: bool,
    /// Whether its parent still has the caller's user ID, and may clone it into a cgroup of v2.
    pub is_cloned_by_caller: bool,
}

/// A cgroup to create, in one hierarchy.
#[derive(Clone, Debug)]
pub(super) struct GroupSpec {
    pub version: HierarchyVersion,
    pub parent: PathBuf,
    pub controllers: Vec<Controller>,
    pub files: Vec<File>,
}

/// A file of the cgroup to write.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Name of the method that sets the limit.
    pub setting: &'static str,
    pub name: String,
    pub value: String,
    pub of_swap: bool,
}

/// The controllers that count usage.
const ACCOUNTING: [Controller; 4] = [Controller::Memory, Controller::Cpuacct, Controller::Pids, Controller::Io];

impl Spec {
    /// Finds the hierarchies that enforce the limits. With `cpu_time` the CPU time must be counted. A limit that cannot
    /// be enforced is an error, or is added to `unenforced`, if that is given and this host lacks the controller.
    pub fn resolve(
        cgroup: &Cgroup,
        cpu_time: bool,
        entrant: Entrant,
        mut unenforced: Option<&mut Vec<Unenforced>>,
    ) -> Result<Self> {
        // This moves the caller to another cgroup, so it comes first.
        if cgroup.parent == CgroupParent::SystemdScope {
            systemd::enter_scope()?;
        }
        if let CgroupParent::Path(path) = &cgroup.parent {
            let is_empty = path.as_os_str().is_empty();
            if is_empty || path.components().any(|part| part == Component::ParentDir) {
                let why = if is_empty { "its path is empty" } else { "its path contains \"..\"" };
                return Err(Error::invalid(
                    format!("the cgroup {path:?} cannot be the parent: {why}"),
                    "pass its path from the root of the hierarchy, as in /proc/[pid]/cgroup",
                ));
            }
        }
        let parents = Hierarchies::read(&cgroup.parent)?.parents();
        let below_own = parents.parent().is_none();
        if let CgroupParent::Path(path) = &cgroup.parent
            && !parents.directories().iter().any(|directory| directory.is_dir())
        {
            return Err(Error::invalid(
                format!("the cgroup {} cannot be the parent: it does not exist in any hierarchy", path.display()),
                "pass its path from the root of the hierarchy, as in /proc/[pid]/cgroup (without /sys/fs/cgroup), create it, or \
                 remove CgroupParent::Path",
            )
            .of(Layer::Cgroup));
        }
        let mut spec = Self {
            groups: vec![],
            stale_parents: parents.directories(),
            below_own,
            entrant,
            unenforced: None,
            view: vec![],
        };
        let mut or_unenforced = |result: Result<()>, what: &str, controller| match (result, &mut unenforced) {
            (Err(error), Some(lost)) if error.layer().is_some() && parents.lack(controller) => {
                lost.push(Unenforced::new(what, &error));
                Ok(false)
            }
            (result, _) => result.map(|()| true),
        };
        let settings = cgroup.settings()?;
        let asks_for_more = !settings.is_empty() || cpu_time || cgroup.freezable;
        let mut lost = vec![];
        for setting in settings {
            // It is missing because the other limit is, which is reported already.
            if setting.part_of.is_some_and(|whole| lost.contains(&whole)) {
                continue;
            }
            let group = spec.group(&parents, setting.controller, setting.name);
            if !or_unenforced(group.and_then(|group| group.add(&setting)), setting.name, setting.controller)? {
                lost.push(setting.name);
            }
        }
        if cgroup.limits_writes() {
            spec.cover_buffered_writes(&parents)?;
        }
        if cpu_time {
            let group = spec.group(&parents, Controller::Cpuacct, "Limits::cpu_time or Limits::idle_timeout").map(drop);
            let what = "counting the CPU time of all processes, which Limits::cpu_time and Limits::idle_timeout need";
            or_unenforced(group, what, Controller::Cpuacct)?;
        }
        if cgroup.freezable {
            spec.group(&parents, Controller::Freezer, "freezable")?;
        }
        for controller in ACCOUNTING {
            let Some(parent) = parents.of(controller) else { continue };
            // Statistics that are unavailable, or would need an additional cgroup, are omitted.
            let costs = controller == Controller::Io && parent.version == HierarchyVersion::V1;
            if !costs && parent.is_usable() && parent.passes_on(controller) {
                spec.group(&parents, controller, "accounting")?;
            }
        }
        // Without any cgroup nothing would be counted, and leaked processes would not be listed.
        if spec.groups.is_empty() && !asks_for_more {
            let group = spec.group(&parents, Controller::Cpuacct, "accounting").map(drop);
            or_unenforced(group, "accounting", Controller::Cpuacct)?;
        }
        if !cgroup.hidden {
            spec.show(cgroup, &parents)?;
        }
        Ok(spec)
    }

    /// Decides how the program sees its cgroups.
    fn show(&mut self, cgroup: &Cgroup, parents: &Parents) -> Result<()> {
        /// The Java runtime uses the limits of v1 only if it sees all of these and memory.
        const WITH_MEMORY: [Controller; 3] = [Controller::Cpu, Controller::Cpuacct, Controller::Cpuset];
        let is_v1 = |controller| parents.of(controller).filter(|parent| parent.version == HierarchyVersion::V1);
        if cgroup.limits_size() && is_v1(Controller::Memory).is_some() {
            for controller in WITH_MEMORY {
                let can_have = |parent: &&ParentDirectory| parent.is_usable() && parent.has_processors(controller);
                if is_v1(controller).filter(can_have).is_some() {
                    self.group(parents, controller, "the view of the cgroup")?;
                }
            }
        }
        let has_v1 = self.groups.iter().any(|group| group.version == HierarchyVersion::V1);
        self.view = self.groups.iter().filter_map(|group| group.view(parents, has_v1)).collect();
        Ok(())
    }

    /// Returns the mounts by which the program sees its cgroups.
    pub fn view(&self) -> &[ViewMount] {
        &self.view
    }

    /// Returns a summary of what is enforced: the files that are written, or "accounting". `None` if there is no
    /// cgroup.
    pub fn enforced(&self) -> Option<String> {
        let files = self.groups.iter().flat_map(|group| &group.files);
        let limits: Vec<String> = files.map(|file| format!("{} = {}", file.name, file.value)).collect();
        match (self.groups.is_empty(), limits.is_empty()) {
            (true, _) => None,
            (false, true) => Some("accounting".into()),
            (false, false) => Some(limits.join(", ")),
        }
    }

    /// Returns the limit that is not fully enforced on this host, although its files are written.
    pub fn unenforced(&self) -> Option<&Unenforced> {
        self.unenforced.as_ref()
    }

    /// Adds the memory controller, which v2 needs to attribute writes from the page cache to a cgroup. Without it,
    /// records that cached writes are not limited.
    fn cover_buffered_writes(&mut self, parents: &Parents) -> Result<()> {
        let Some(io) = parents.of(Controller::Io) else { return Ok(()) };
        let memory = parents.of(Controller::Memory);
        if io.version == HierarchyVersion::V2 && memory.is_some_and(|memory| memory.version == HierarchyVersion::V2) {
            return self.group(parents, Controller::Memory, "io_max").map(drop);
        }
        let (what, remedy) = match io.version {
            HierarchyVersion::V1 => (
                "cgroup v1 does not limit writes through the page cache",
                "use cgroup v2, or limit what the program can write by a tmpfs with a size or RLIMIT_FSIZE",
            ),
            HierarchyVersion::V2 => (
                "writes through the page cache are not limited without the memory controller in the hierarchy of the io controller",
                "enable the memory controller in cgroup.subtree_control of the parent",
            ),
        };
        let error = Error::unsupported(Layer::Cgroup, what, remedy);
        self.unenforced = Some(Unenforced::new("io_max for writes through the page cache", &error));
        Ok(())
    }

    /// Returns whether the files of the limits may belong to the program.
    pub fn may_be_owned(&self) -> bool {
        self.entrant.may_own
    }

    /// Whether the program stays in a cgroup of the caller to which this user may write. `spec`: the cgroups that the
    /// program enters; `mounts`: the contents of `/proc/self/mountinfo`.
    pub fn leaves_writable(spec: Option<&Self>, mounts: &[u8]) -> bool {
        let enters = |hierarchy: &Hierarchy| {
            let mut groups = spec.iter().flat_map(|spec| &spec.groups);
            groups.any(|group| hierarchy.holds(group.version, &group.controllers))
        };
        Hierarchies::of_caller(mounts).map_or(true, |hierarchies| hierarchies.are_writable(enters))
    }

    /// Returns how many cgroups the program enters.
    pub fn groups(&self) -> u16 {
        self.groups.len() as u16
    }

    /// Returns the index of the cgroup that the program is cloned into.
    pub fn born_in(&self) -> Option<u16> {
        let v2 = self.groups.iter().position(|group| group.version == HierarchyVersion::V2);
        v2.filter(|_| self.entrant.is_cloned_by_caller).map(|index| index as u16)
    }

    /// Returns the cgroup with a controller, which is added if necessary.
    fn group(&mut self, parents: &Parents, controller: Controller, name: &str) -> Result<&mut GroupSpec> {
        let refuse = |why: String, remedy: String| {
            Err(Error::unsupported(Layer::Cgroup, format!("{name} cannot be enforced: {why}"), remedy))
        };
        let Some(parent) = parents.of(controller) else {
            let (why, remedy) = absent(parents, controller);
            return refuse(why, remedy);
        };
        if let Some(obstacle) = parent.obstacle() {
            let (why, remedy) = obstacle.describe(&parent.directory);
            return refuse(why, remedy);
        }
        let known = self.groups.iter().position(|group| group.parent == parent.directory);
        let index = known.unwrap_or_else(|| {
            let (version, parent) = (parent.version, parent.directory.clone());
            self.groups.push(GroupSpec { version, parent, controllers: vec![], files: vec![] });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        if !group.controllers.contains(&controller) {
            group.controllers.push(controller);
        }
        Ok(group)
    }
}

impl GroupSpec {
    /// Returns the mount by which the program sees this cgroup. With v1 hierarchies, that of v2 is in a directory too.
    fn view(&self, parents: &Parents, has_v1: bool) -> Option<ViewMount> {
        if self.version == HierarchyVersion::V2 {
            let place = if has_v1 { "unified" } else { "" };
            return Some(ViewMount { place: place.into(), kind: "cgroup2", controllers: vec![] });
        }
        let names = parents.v1_names(*self.controllers.first()?)?;
        let controllers = names.split(',').map(str::to_owned).collect();
        Some(ViewMount { place: names.into(), kind: "cgroup", controllers })
    }

    fn add(&mut self, setting: &Setting) -> Result<()> {
        let files = setting.files(self.version);
        if files.is_empty() {
            let remedy = match setting.name {
                "swap_max" => "set memory_max as well: cgroup v1 limits the sum of both",
                _ => "use cgroup v2, or remove this limit",
            };
            let what = format!("{} cannot be enforced: cgroup v1 has no such limit", setting.name);
            return Err(Error::unsupported(Layer::Cgroup, what, remedy));
        }
        self.files.extend(files.iter().map(|(name, value)| File {
            setting: setting.name,
            name: name.clone(),
            value: value.clone(),
            of_swap: setting.of_swap,
        }));
        Ok(())
    }
}

/// Returns why a controller is unavailable, and what to do.
fn absent(parents: &Parents, controller: Controller) -> (String, String) {
    let name = controller.v1();
    if parents.parent().is_none()
        && let Some(point) = parents.point_elsewhere(controller)
    {
        let why = format!("the caller's cgroup is not below the cgroup that is mounted on {}", point.display());
        let remedy = "mount the cgroup file system in the caller's cgroup namespace (`mount -t cgroup2 none DIR`), or start \
                      the caller in the namespace of that mount";
        return (why, remedy.into());
    }
    let at = parents
        .parent()
        .map_or("in the caller's cgroup".into(), |parent| format!("in the cgroup /{}", parent.display()));
    (
        format!("the {name} controller is not available {at}"),
        "mount a hierarchy with it, enable it in cgroup.subtree_control of every cgroup above, or choose another parent \
         (CgroupParent::Path)"
            .into(),
    )
}

impl Obstacle {
    /// Returns a description, and what to do.
    fn describe(&self, directory: &Path) -> (String, String) {
        let directory = directory.display();
        match self {
            Self::Absent => (
                format!("the cgroup {directory} does not exist"),
                "create it in this hierarchy too, or choose another parent (CgroupParent::Path)".into(),
            ),
            Self::Covered => (
                format!("the cgroup {directory} is not visible: another file system covers its hierarchy"),
                "unmount that, or mount the cgroup file system there".into(),
            ),
            Self::NotAllowed(errno) => {
                let denial = Denial { need: Some(Need::Cgroups), call: "access", errno: *errno };
                let own = "choose a parent in which the caller may create cgroups (CgroupParent::Path)";
                let remedy = denial.advice(Some(own)).unwrap_or_default();
                (format!("the caller may not create a cgroup in {directory}"), remedy.into())
            }
            Self::Undelegated(unit) => (
                format!(
                    "the caller is in {unit}, which systemd has not delegated: systemd would stop the unit if a sandbox ran out \
                     of memory"
                ),
                format!(
                    "set Delegate=yes in {unit}, use a delegated scope (CgroupParent::SystemdScope, or start the caller with \
                     systemd-run{} --scope -p Delegate=yes), or choose a parent that the caller manages (CgroupParent::Path)",
                    if geteuid().is_root() { "" } else { " --user" }
                ),
            ),
            Self::Threaded(kind) => (
                format!(
                    "the cgroup {directory} is threaded (its cgroup.type is {kind:?}), and has no cgroups for processes below it"
                ),
                "choose another parent (CgroupParent::Path), one whose cgroup.type is \"domain\"".into(),
            ),
        }
    }
}
