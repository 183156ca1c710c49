//! The groups of one sandbox: made before its processes, removed after them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::group::{Entry, Group, processes, tree, write};
use super::hierarchy::{Controller, HOST_LEAF, Version, Words};
use super::leftovers::{Owner, sweep};
use super::place::{Place, Spec};
use crate::error::{Error, Result};
use crate::outcome::Layer;
use crate::watch::Account;

/// The groups of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Made {
    groups: Vec<Group>,
    entries: Vec<Entry>,
}

impl Made {
    /// Makes the groups and writes their limits. What dead hosts have left beside them is removed.
    pub fn create(spec: &Spec) -> Result<Self> {
        let owner = Owner::this()?;
        sweep(&spec.swept, &owner);
        let mut made = Self::default();
        for place in &spec.places {
            if place.version == Version::V2 {
                enable(place, &owner, spec.below_own)?;
            }
            let (group, entry) = Group::make(place, &owner.new_name(), spec.entrant)?;
            made.groups.push(group);
            made.entries.push(entry);
        }
        Ok(made)
    }

    /// What the program enters them by: the file of each, and then the directory of the one that it can be cloned into.
    pub fn entries(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let directories = self.entries.iter().filter_map(|entry| entry.directory.as_ref());
        self.entries.iter().map(|entry| &entry.file).chain(directories).map(AsFd::as_fd)
    }

    /// What was used so far.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        for group in &self.groups {
            group.read(&mut account);
        }
        account
    }

    /// The processes that are in it, as the host sees them.
    pub fn processes(&self) -> Vec<i32> {
        let tree = self.groups.first().map(|group| tree(&group.directory)).unwrap_or_default();
        tree.iter().flat_map(|directory| processes(directory)).collect()
    }

    /// Kills every process that is in it, until there is none.
    pub fn kill(&self) {
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        if self.groups.iter().any(|group| write(&group.directory.join("cgroup.kill"), "1").is_ok()) {
            return;
        }
        for _ in 0..ROUNDS {
            let alive = self.processes();
            if alive.is_empty() {
                break;
            }
            for pid in alive {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes the groups if nobody is in them; else they are there still.
    pub fn remove(&mut self) -> bool {
        self.groups.iter_mut().all(Group::remove)
    }

    /// Stops all of its processes, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let group = self.groups.iter().find(|group| group.controllers.contains(&Controller::Freezer));
        let Some(group) = group else {
            return Err(Error::invalid("the sandbox can't be frozen", "make its cgroup freezable: Cgroup::freezable"));
        };
        let (file, value) = match (group.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        write(&group.directory.join(file), value).map_err(Error::host("freezing or thawing the sandbox"))
    }
}

/// Lets groups below a place of v2 have its controllers.
fn enable(place: &Place, owner: &Owner, below_own: bool) -> Result<()> {
    // What is started in the host's own cgroup meanwhile has to move as well.
    const ROUNDS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(1);
    let control = place.parent.join("cgroup.subtree_control");
    // With processes the kernel gives a threaded controller on (cpu, pids), but then no process may enter the groups below
    // (EOPNOTSUPP); only the root may have both, and has no type.
    let movable = below_own && place.parent.join("cgroup.type").exists();
    let given = Words::of(&control);
    for name in place.controllers.iter().filter_map(|controller| controller.v2()).filter(|name| !given.has(name)) {
        let give_on = || {
            if movable {
                make_room(&place.parent, owner)?;
            }
            write(&control, &format!("+{name}"))
        };
        let mut result = give_on();
        for _ in 1..ROUNDS {
            // A process may have been started there meanwhile.
            let is_busy = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
            if !movable || !is_busy {
                break;
            }
            std::thread::sleep(PAUSE);
            result = give_on();
        }
        result.map_err(|error| {
            let remedy = "the cgroup has processes of its own, or may not give the controller on: name another parent \
                          (CgroupParent::Path), or have a delegated scope (CgroupParent::SystemdScope, or systemd-run \
                          --user --scope -p Delegate=yes for the host)";
            Error::set_up(format!("enabling the {name} controller"), "write", error, Some(remedy))
                .of(Layer::Cgroup)
                .on(&control)
        })?;
    }
    Ok(())
}

/// Moves the processes of the host's own cgroup to a leaf of it: a group of v2 with processes has no controllers to give.
fn make_room(own: &Path, owner: &Owner) -> io::Result<()> {
    let processes = processes(own);
    if processes.is_empty() {
        return Ok(());
    }
    let leaf = own.join(format!("{HOST_LEAF}{}", owner.0));
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in processes {
        // One that has ended meanwhile needs no place.
        let _ = write(&leaf.join("cgroup.procs"), &pid.to_string());
    }
    Ok(())
}
