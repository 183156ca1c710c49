//! Where the groups of a sandbox are made, and what is written there: decided when the plan is made.

use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

use super::files::Setting;
use super::hierarchy::{Controller, Grounds, Hierarchies, Hindrance, Version};
use super::{Cgroup, CgroupParent, systemd};
use crate::error::{Error, Result};
use crate::outcome::{Layer, Lost};

/// The groups of a sandbox, one in each hierarchy that is needed.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(super) places: Vec<Place>,
    /// Where dead hosts may have left some.
    pub(super) swept: Vec<PathBuf>,
    /// They are made below the host's own, whose processes may have to move for it.
    pub(super) below_own: bool,
    pub(super) entrant: Entrant,
    /// What of the limits does not hold here, though their files are written.
    unenforced: Option<Lost>,
}

/// Who enters the groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrant {
    /// It may be who owns their files, from whom the limits are hidden.
    pub may_own: bool,
    /// Who starts it is the host's user still, and may clone it into a group of v2.
    pub is_cloned_by_caller: bool,
}

/// A directory below which a group is made.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub version: Version,
    pub parent: PathBuf,
    pub controllers: Vec<Controller>,
    pub files: Vec<File>,
}

/// A file of the group that is written.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// What the user calls it.
    pub setting: &'static str,
    pub name: String,
    pub value: String,
    pub of_swap: bool,
}

/// What tells how much was used.
const ACCOUNTS: [Controller; 4] = [Controller::Memory, Controller::Cpuacct, Controller::Pids, Controller::Io];

impl Spec {
    /// Finds the hierarchies that keep the limits. With `cpu_time` the CPU time must be counted. What can't be kept is an
    /// error, or is left to `lose`, if there is one.
    pub fn resolve(
        cgroup: &Cgroup,
        cpu_time: bool,
        entrant: Entrant,
        mut lose: Option<&mut Vec<Lost>>,
    ) -> Result<Self> {
        // The host is in another cgroup afterwards.
        if cgroup.parent == CgroupParent::SystemdScope {
            systemd::enter_scope()?;
        }
        if let CgroupParent::Path(path) = &cgroup.parent {
            let is_empty = path.as_os_str().is_empty();
            if is_empty || path.components().any(|part| part == Component::ParentDir) {
                let why = if is_empty { "its path is empty" } else { "its path contains \"..\"" };
                return Err(Error::invalid(
                    format!("the cgroup {path:?} can't be the parent: {why}"),
                    "name it by its path from the root of the hierarchy, as /proc/[pid]/cgroup has it",
                ));
            }
        }
        let grounds = Hierarchies::read(&cgroup.parent)?.grounds();
        let below_own = grounds.parent().is_none();
        if let CgroupParent::Path(path) = &cgroup.parent
            && !grounds.directories().iter().any(|directory| directory.is_dir())
        {
            return Err(Error::invalid(
                format!("the cgroup {} can't be the parent: no hierarchy has it", path.display()),
                "name it by its path from the root of the hierarchy, as /proc/[pid]/cgroup has it (without /sys/fs/cgroup); \
                 create it, with a subtree that is delegated to this user; or leave CgroupParent::Path out",
            )
            .of(Layer::Cgroup));
        }
        let mut spec = Self { places: vec![], swept: grounds.directories(), below_own, entrant, unenforced: None };
        let mut lost_if_lacking = |result: Result<()>, what: &str, controller| match (result, &mut lose) {
            (Err(error), Some(lost)) if error.layer().is_some() && grounds.lack(controller) => {
                lost.push(Lost::new(what, &error));
                Ok(())
            }
            (result, _) => result,
        };
        let settings = cgroup.settings()?;
        let asks_for_more = !settings.is_empty() || cpu_time || cgroup.freezable;
        for setting in settings {
            let place = spec.place(&grounds, setting.controller, setting.name);
            lost_if_lacking(place.and_then(|place| place.add(&setting)), setting.name, setting.controller)?;
        }
        if cgroup.limits_writes() {
            spec.cover_buffered_writes(&grounds)?;
        }
        if cpu_time {
            let placed = spec.place(&grounds, Controller::Cpuacct, "Limits::cpu or Limits::idle").map(drop);
            let what = "the CPU time of all processes together, which Limits::cpu and Limits::idle need";
            lost_if_lacking(placed, what, Controller::Cpuacct)?;
        }
        if cgroup.freezable {
            spec.place(&grounds, Controller::Freezer, "freezable")?;
        }
        for controller in ACCOUNTS {
            let Some(ground) = grounds.of(controller) else { continue };
            // A figure that can't be had is absent, and one that costs a group of its own.
            let costs = controller == Controller::Io && ground.version == Version::V1;
            if !costs && ground.may_make() && ground.may_give(controller) {
                spec.place(&grounds, controller, "accounting")?;
            }
        }
        // A cgroup was asked for: without one nothing is counted, and nobody is listed who was left behind.
        if spec.places.is_empty() && !asks_for_more {
            let placed = spec.place(&grounds, Controller::Cpuacct, "accounting").map(drop);
            lost_if_lacking(placed, "accounting", Controller::Cpuacct)?;
        }
        Ok(spec)
    }

    /// What is in force: the files that are written, or that the group counts. `None` if there is no group.
    pub fn enforced(&self) -> Option<String> {
        let files = self.places.iter().flat_map(|place| &place.files);
        let limits: Vec<String> = files.map(|file| format!("{} = {}", file.name, file.value)).collect();
        match (self.places.is_empty(), limits.is_empty()) {
            (true, _) => None,
            (false, true) => Some("accounting".into()),
            (false, false) => Some(limits.join(", ")),
        }
    }

    /// Which of the limits does not hold here, though its files are written.
    pub fn unenforced(&self) -> Option<&Lost> {
        self.unenforced.as_ref()
    }

    /// The kernel writes from the page cache to a disk for the group that the pages are charged to, which takes the memory
    /// controller in the hierarchy of the io controller, on v2.
    fn cover_buffered_writes(&mut self, grounds: &Grounds) -> Result<()> {
        let Some(io) = grounds.of(Controller::Io) else { return Ok(()) };
        let memory = grounds.of(Controller::Memory);
        if io.version == Version::V2 && memory.is_some_and(|memory| memory.version == Version::V2) {
            return self.place(grounds, Controller::Memory, "io_max").map(drop);
        }
        let (what, remedy) = match io.version {
            Version::V1 => (
                "cgroup v1 does not limit writes that go through the page cache, which are most",
                "use cgroup v2, or limit what the program can write: a tmpfs with a size, RLIMIT_FSIZE",
            ),
            Version::V2 => (
                "writes that go through the page cache are not limited without the memory controller beside the io controller",
                "have the group above give on the memory controller too (cgroup.subtree_control)",
            ),
        };
        let error = Error::invalid(what, remedy).of(Layer::Cgroup);
        self.unenforced = Some(Lost::new("io_max of buffered writes", &error));
        Ok(())
    }

    /// Whether the files of the limits may belong to the program.
    pub fn may_be_owned(&self) -> bool {
        self.entrant.may_own
    }

    /// How many groups the program enters.
    pub fn groups(&self) -> u16 {
        self.places.len() as u16
    }

    /// The one of them that it is cloned into, by index.
    pub fn born_in(&self) -> Option<u16> {
        let v2 = self.places.iter().position(|place| place.version == Version::V2);
        v2.filter(|_| self.entrant.is_cloned_by_caller).map(|index| index as u16)
    }

    fn place(&mut self, grounds: &Grounds, controller: Controller, name: &str) -> Result<&mut Place> {
        let refuse = |why: String, remedy: String| {
            Err(Error::invalid(format!("{name} can't be kept: {why}"), remedy).of(Layer::Cgroup))
        };
        let Some(ground) = grounds.of(controller) else {
            let (why, remedy) = absent(grounds, controller);
            return refuse(why, remedy);
        };
        if let Some(hindrance) = ground.hindrance() {
            let (why, remedy) = hindrance.words(&ground.directory);
            return refuse(why, remedy);
        }
        let known = self.places.iter().position(|place| place.parent == ground.directory);
        let index = known.unwrap_or_else(|| {
            let (version, parent) = (ground.version, ground.directory.clone());
            self.places.push(Place { version, parent, controllers: vec![], files: vec![] });
            self.places.len() - 1
        });
        let place = &mut self.places[index];
        if !place.controllers.contains(&controller) {
            place.controllers.push(controller);
        }
        Ok(place)
    }
}

impl Place {
    fn add(&mut self, setting: &Setting) -> Result<()> {
        let files = setting.files(self.version);
        if files.is_empty() {
            let remedy = match setting.name {
                "swap_max" => "set memory_max as well: cgroup v1 limits the sum of both",
                _ => "use cgroup v2, or leave it out",
            };
            let what = format!("{} can't be kept: cgroup v1 has no such limit", setting.name);
            return Err(Error::invalid(what, remedy).of(Layer::Cgroup));
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

/// Why a controller has no place, and what to do.
fn absent(grounds: &Grounds, controller: Controller) -> (String, String) {
    let name = controller.v1();
    if grounds.parent().is_none()
        && let Some(point) = grounds.point_elsewhere(controller)
    {
        let why = format!("the cgroup of this process is not below the one that is mounted on {}", point.display());
        let remedy = "mount the cgroup file system again in this process's cgroup namespace (`mount -t cgroup2 none DIR`), or \
                      start the process in that namespace";
        return (why, remedy.into());
    }
    let at = grounds.parent().map_or("here".into(), |parent| format!("in the cgroup /{}", parent.display()));
    (
        format!("no cgroup hierarchy of this host has the {name} controller {at}"),
        "mount one, enable the controller in cgroup.subtree_control above, or name another parent".into(),
    )
}

impl Hindrance {
    /// In words, and what to do.
    fn words(&self, directory: &Path) -> (String, String) {
        let directory = directory.display();
        match self {
            Self::Absent => (
                format!("there is no cgroup {directory}"),
                "create it in this hierarchy too, or name another parent (CgroupParent::Path)".into(),
            ),
            Self::NotAllowed => (
                format!("this user may make no cgroup in {directory}"),
                "have a delegated scope (CgroupParent::SystemdScope, or systemd-run --user --scope -p Delegate=yes for the \
                 host), have a subtree delegated to this user and name it (CgroupParent::Path), or run as root"
                    .into(),
            ),
            Self::Undelegated(unit) => (
                format!(
                    "this process is in {unit}, which systemd has not delegated: systemd would stop it when a sandbox runs out \
                     of memory"
                ),
                format!(
                    "set Delegate=yes in {unit}, use a scope of the process's own (CgroupParent::SystemdScope), start the process \
                     in one (systemd-run{} --scope -p Delegate=yes), or name the parent (CgroupParent::Path) if it is this \
                     process's to use",
                    if geteuid().is_root() { "" } else { " --user" }
                ),
            ),
            Self::Threaded(kind) => (
                format!("the cgroup {directory} is for threads (its cgroup.type is {kind:?}), and none for processes can be below it"),
                "name another parent (CgroupParent::Path), one whose cgroup.type is \"domain\"".into(),
            ),
        }
    }
}
