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
use crate::error::{Errno, Error, Result};
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

    /// Closes what the program has entered them by, which is open until then so that the figures can be read at the end,
    /// whatever else the caller has opened meanwhile.
    pub fn make_room(&mut self) {
        self.entries.clear();
    }

    /// What was used so far, if there is a group that counts it.
    pub fn account(&self) -> Option<Account> {
        let mut account = Account::default();
        for group in &self.groups {
            group.read(&mut account);
        }
        (!self.groups.is_empty()).then_some(account)
    }

    /// Whether its limit on memory was met, whoever was killed for that.
    pub fn has_met_memory_limit(&self) -> bool {
        self.groups.iter().any(Group::has_met_memory_limit)
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

/// Lets groups below a place of v2 have its controllers: all of them, or nothing is changed.
fn enable(place: &Place, parent: &Directory, below_own: bool) -> Result<()> {
    // What is started in the host's own cgroup meanwhile has to move as well.
    const ROUNDS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(1);
    const CONTROL: &str = "cgroup.subtree_control";
    let given = Words::in_directory(parent, CONTROL);
    let needed = place.controllers.iter().filter_map(|controller| controller.v2());
    let missing: Vec<&str> = needed.filter(|name| !given.has(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let value: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    // With processes the kernel gives a threaded controller on (cpu, pids), but then no process may enter the groups below
    // (EOPNOTSUPP); only the root may have both, and has no type.
    let must_be_empty = parent.read("cgroup.type").is_ok();
    let movable = below_own && must_be_empty;
    let give = || match must_be_empty && !parent.listed().is_empty() {
        true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        false => parent.write(CONTROL, &value.join(" ")),
    };
    let mut room = Room::default();
    for round in 1.. {
        if movable {
            room.make(parent).inspect_err(|_| room.undo(parent))?;
        }
        let Err(error) = give() else { return Ok(()) };
        // A process may have been started there meanwhile.
        if movable && error.kind() == io::ErrorKind::ResourceBusy && round < ROUNDS {
            std::thread::sleep(PAUSE);
            continue;
        }
        room.undo(parent);
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM) => {
                "a process there belongs to another user, and this one may not change which CPUs it runs on: start this \
                 process in a cgroup without others, or name another parent (CgroupParent::Path)"
            }
            _ => {
                "the cgroup has processes of its own, or may not give the controllers on: name another parent \
                 (CgroupParent::Path), or have a delegated scope (CgroupParent::SystemdScope, or systemd-run --user --scope -p \
                 Delegate=yes for the host)"
            }
        };
        let step = format!("enabling controllers of cgroups ({})", missing.join(", "));
        let error = Error::set_up(step, "write", error, Some(remedy));
        return Err(error.of(Layer::Cgroup).on(place.parent.join(CONTROL)));
    }
    Ok(())
}

/// The leaf that the processes of the host's own cgroup are moved to: a group of v2 with processes has no controllers to give.
#[derive(Default)]
struct Room {
    leaf: Option<Directory>,
    /// The leaf did not exist before.
    is_new: bool,
    moved: Vec<i32>,
}

/// The file that lists the processes of a group, and by which they come into it.
const PROCESSES: &str = "cgroup.procs";

impl Room {
    /// Moves all processes that are there.
    fn make(&mut self, own: &Directory) -> Result<()> {
        /// Another caller's sweep may remove the leaf while it is empty. Each caller sweeps once.
        const TRIES: u32 = 100;
        let is_gone = |error: &Error| matches!(error.errno(), Some(Errno(libc::ENOENT | libc::ENODEV)));
        let mut made = self.move_all(own);
        for _ in 1..TRIES {
            if !made.as_ref().is_err_and(is_gone) {
                break;
            }
            made = self.move_all(own);
        }
        made
    }

    fn move_all(&mut self, own: &Directory) -> Result<()> {
        let processes = own.processes();
        if processes.is_empty() {
            return Ok(());
        }
        let name = leaf_name();
        let created = own.create(&name);
        self.is_new |= created.is_ok();
        let leaf = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => own.child(&name),
            other => other,
        };
        let leaf = leaf.map_err(failed("making a cgroup".into(), "mkdir", &own.path.join(&name)))?;
        let leaf = self.leaf.insert(leaf);
        for pid in processes {
            match leaf.write(PROCESSES, &pid.to_string()) {
                Ok(()) => self.moved.push(pid),
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => {
                    let step =
                        format!("moving process {pid} out of the cgroup {}, as all others there", own.path.display());
                    let remedy = "the process belongs to another user, or may not be moved: start it, or this one, in another \
                                  cgroup, or name another parent (CgroupParent::Path)";
                    let error = Error::set_up(step, "write", error, Some(remedy));
                    return Err(error.of(Layer::Cgroup).on(leaf.path.join(PROCESSES)));
                }
            }
        }
        Ok(())
    }

    /// Moves them back.
    fn undo(&mut self, own: &Directory) {
        const ROUNDS: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(1);
        let back = |pid: i32| {
            // One that has ended meanwhile needs no place.
            let _ = own.write(PROCESSES, &pid.to_string());
        };
        self.moved.drain(..).for_each(back);
        let Some(leaf) = self.leaf.take().filter(|_| self.is_new) else { return };
        for _ in 0..ROUNDS {
            // The kernel may take a moment to see that it is empty, and somebody may have been started there.
            leaf.processes().into_iter().for_each(back);
            if own.remove_empty(&leaf_name()).is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn leaf_name() -> String {
    format!("{HOST_LEAF}{}", unique())
}
