//! The groups of one sandbox: made before its processes, removed after them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::group::{Entry, Group, failed};
use super::hierarchy::{Controller, HOST_LEAF, Version, Words};
use super::leftovers::sweep;
use super::members;
use super::owner::{Claim, unique};
use super::place::{Place, Spec};
use crate::error::{Error, Result};
use crate::outcome::Layer;
use crate::watch::Account;

/// The groups of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Made {
    groups: Vec<Group>,
    entries: Vec<Entry>,
    /// Says that this process lives, until they are removed.
    claim: Claim,
}

impl Made {
    /// Makes the groups and writes their limits. What dead hosts have left beside them is removed.
    pub fn create(spec: &Spec) -> Result<Self> {
        sweep(&spec.swept);
        let open = |place: &Place| {
            Directory::open(&place.parent).map(Arc::new).map_err(failed(
                "opening a cgroup".into(),
                "open",
                &place.parent,
            ))
        };
        let parents = spec.places.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut made = Self { claim: Claim::new(&parents), ..Self::default() };
        for (place, parent) in spec.places.iter().zip(&parents) {
            if place.version == Version::V2 {
                enable(place, parent, spec.below_own)?;
            }
            let (group, entry) = Group::make(place, parent, &made.claim.name, spec.entrant)?;
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
        self.groups.first().map(|group| members::processes(&group.directory)).unwrap_or_default()
    }

    /// Kills every process that is in it, until there is none.
    pub fn kill(&self) {
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        let Some(group) = self.groups.first() else { return };
        for _ in 0..ROUNDS {
            self.thaw();
            if !members::kill(&group.directory) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Lets all of its processes go on, also those that a program has frozen in a group of its own below.
    pub fn thaw(&self) {
        if let Some(group) = self.freezer() {
            members::thaw(&group.directory);
        }
    }

    fn freezer(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.contains(&Controller::Freezer))
    }

    /// Removes the groups if nobody is in them; else they are there still.
    pub fn remove(&mut self) -> bool {
        self.groups.iter_mut().all(Group::remove)
    }

    /// Stops all of its processes, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(group) = self.freezer() else {
            return Err(Error::invalid("the sandbox can't be frozen", "make its cgroup freezable: Cgroup::freezable"));
        };
        let (file, value) = match (group.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        group.directory.write(file, value).map_err(Error::host("freezing or thawing the sandbox"))
    }
}

/// Lets groups below a place of v2 have its controllers.
fn enable(place: &Place, parent: &Directory, below_own: bool) -> Result<()> {
    // What is started in the host's own cgroup meanwhile has to move as well.
    const ROUNDS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(1);
    const CONTROL: &str = "cgroup.subtree_control";
    // With processes the kernel gives a threaded controller on (cpu, pids), but then no process may enter the groups below
    // (EOPNOTSUPP); only the root may have both, and has no type.
    let movable = below_own && parent.read("cgroup.type").is_ok();
    let given = Words::in_directory(parent, CONTROL);
    for name in place.controllers.iter().filter_map(|controller| controller.v2()).filter(|name| !given.has(name)) {
        let give_on = || {
            if movable {
                make_room(parent)?;
            }
            parent.write(CONTROL, &format!("+{name}"))
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
                .on(place.parent.join(CONTROL))
        })?;
    }
    Ok(())
}

/// Moves the processes of the host's own cgroup to a leaf of it: a group of v2 with processes has no controllers to give.
fn make_room(own: &Directory) -> io::Result<()> {
    let processes = own.processes();
    if processes.is_empty() {
        return Ok(());
    }
    let name = format!("{HOST_LEAF}{}", unique());
    let leaf = match own.create(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => own.child(&name)?,
        other => other?,
    };
    for pid in processes {
        // One that has ended meanwhile needs no place.
        let _ = leaf.write("cgroup.procs", &pid.to_string());
    }
    Ok(())
}
