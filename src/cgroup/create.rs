//! The cgroups of one sandbox: created before its processes, removed after them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control_group::{ControlGroup, GroupEntry, failed, refused};
use super::directory::Directory;
use super::hierarchy::{CALLER_LEAF, Controller, HierarchyVersion, SUBTREE_CONTROL, WordList, enabling};
use super::members::Members;
use super::owner::{Claim, process_name};
use super::spec::{GroupSpec, Spec};
use super::stale::remove_stale;
use super::stats::Account;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::unix::{Errno, ToErrno};

/// The cgroups of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct CreatedCgroup {
    groups: Vec<ControlGroup>,
    entries: Vec<GroupEntry>,
    /// Shows other callers that the owner is alive.
    claim: Claim,
}

/// Cgroups of a command whose processes go on, by their parents and names. It holds no descriptor of its own.
#[derive(Debug)]
pub(crate) struct LeftCgroup(Vec<(Arc<Directory>, String)>);

impl LeftCgroup {
    /// Removes them. Returns false if one still exists, because a process is in it.
    pub fn remove(&self) -> bool {
        self.0.iter().all(|(parent, name)| parent.remove(name).is_ok())
    }
}

impl CreatedCgroup {
    /// Creates the cgroups and writes their limits. Removes cgroups of dead callers below the same parents.
    pub fn create(spec: &Spec) -> Result<Self> {
        remove_stale(&spec.stale_parents);
        let open = |group_spec: &GroupSpec| {
            Directory::open(&group_spec.parent).map(Arc::new).map_err(failed(
                "open a cgroup".into(),
                "open",
                &group_spec.parent,
            ))
        };
        let parents = spec.groups.iter().map(open).collect::<Result<Vec<_>>>()?;
        let claim = Claim::new(&parents).map_err(Error::io("lock the name of a cgroup"))?;
        let mut created = Self { claim, ..Self::default() };
        for (group_spec, parent) in spec.groups.iter().zip(&parents) {
            if group_spec.version == HierarchyVersion::V2 {
                enable(group_spec, parent, spec.below_own)?;
            }
            let (group, entry) = ControlGroup::create(group_spec, parent, &created.claim.name, spec.entrant)?;
            created.groups.push(group);
            created.entries.push(entry);
        }
        Ok(created)
    }

    /// Has the kernel count what is below them, once the process that has entered them to create a cgroup namespace has exited.
    pub fn pass_on(&self) -> Result<()> {
        self.groups.iter().try_for_each(ControlGroup::pass_on)
    }

    /// Creates cgroups below these, for a command of a session. Their limits are those of these. Where a cgroup of its own
    /// has no use, or would be without limits, the command enters the session's.
    pub fn create_below(&self, name: &str) -> Result<Self> {
        let useful = |group: &ControlGroup| group.limits_those_below() && group.measures();
        let any_useful = self.groups.iter().any(useful);
        let mut created = Self::default();
        for above in &self.groups {
            let file = if useful(above) || !any_useful && above.limits_those_below() {
                let (group, file) = above.create_below(name)?;
                created.groups.push(group);
                file
            } else {
                above.open_entry()?
            };
            created.entries.push(GroupEntry { file, directory: None });
        }
        Ok(created)
    }

    /// Gives up the descriptors of cgroups that still have processes. Returns what removes them later.
    pub fn leave(mut self) -> LeftCgroup {
        LeftCgroup(self.groups.iter_mut().map(ControlGroup::leave).collect())
    }

    /// Returns the descriptors by which the program enters them: the file of each, then the directory that it can be
    /// cloned into.
    pub fn entries(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let directories = self.entries.iter().filter_map(|entry| entry.directory.as_ref());
        self.entries.iter().map(|entry| &entry.file).chain(directories).map(AsFd::as_fd)
    }

    /// Closes the descriptors by which the program entered them. They are kept open until the end, so that statistics
    /// can be read even if the caller is at its limit of open descriptors.
    pub fn close_entries(&mut self) {
        self.entries.clear();
    }

    /// Returns what was used so far. `None` if there is no cgroup.
    pub fn account(&self) -> Option<Account> {
        let mut account = Account::default();
        for group in &self.groups {
            group.read(&mut account);
        }
        (!self.groups.is_empty()).then_some(account)
    }

    /// Returns whether its memory limit was exceeded, whichever process was killed.
    pub fn exceeded_memory_limit(&self) -> bool {
        self.groups.iter().any(ControlGroup::exceeded_memory_limit)
    }

    /// Returns a handle to the processes in it, which outlives it.
    pub fn members(&self) -> Members {
        let directory = |group: &ControlGroup| group.directory.clone();
        Members { all: self.groups.first().map(directory), freezer: self.freezer().map(directory) }
    }

    fn freezer(&self) -> Option<&ControlGroup> {
        self.groups.iter().find(|group| group.controllers.contains(&Controller::Freezer))
    }

    /// Removes the cgroups. Returns false if one still exists, because a process is in it.
    pub fn remove(&mut self) -> bool {
        self.groups.iter_mut().all(ControlGroup::remove)
    }

    /// Removes the cgroups, and waits a short time for processes that are still exiting. Returns the path of one that
    /// still exists.
    pub fn remove_or_give_up(mut self) -> Option<PathBuf> {
        let left = self.groups.iter_mut().filter_map(|group| group.remove_or_give_up().err());
        left.fold(None, |first, path| first.or(Some(path)))
    }

    /// Freezes or thaws all of its processes.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(group) = self.freezer() else {
            return Err(Error::invalid("the sandbox cannot be frozen", "set Cgroup::freezable"));
        };
        let (file, value) = match (group.version, frozen) {
            (HierarchyVersion::V1, true) => ("freezer.state", "FROZEN"),
            (HierarchyVersion::V1, false) => ("freezer.state", "THAWED"),
            (HierarchyVersion::V2, true) => ("cgroup.freeze", "1"),
            (HierarchyVersion::V2, false) => ("cgroup.freeze", "0"),
        };
        group.directory.write(file, value).map_err(Error::io("freeze or thaw the sandbox"))
    }
}

/// Enables the needed controllers for cgroups below a parent of v2: all of them, or nothing is changed.
fn enable(group_spec: &GroupSpec, parent: &Directory, below_own: bool) -> Result<()> {
    // A process may be started in the caller's own cgroup in the meantime, and must be moved as well.
    const ROUNDS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(1);
    let enabled = WordList::in_directory(parent, SUBTREE_CONTROL);
    let needed = group_spec.controllers.iter().filter_map(|controller| controller.v2());
    let missing: Vec<&str> = needed.filter(|name| !enabled.has(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let value = enabling(missing.iter().copied());
    // In a cgroup with processes the kernel enables threaded controllers (cpu, pids), but then no process may enter the
    // cgroups below (EOPNOTSUPP). Only the root may have both, which has no `cgroup.type`.
    let must_be_empty = parent.read("cgroup.type").is_ok();
    let movable = below_own && must_be_empty;
    let write = || match must_be_empty && !parent.all_processes().is_empty() {
        true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        false => parent.write(SUBTREE_CONTROL, &value),
    };
    let mut leaf = CallerLeaf::default();
    for round in 1.. {
        if movable {
            leaf.fill(parent).inspect_err(|_| leaf.undo(parent))?;
        }
        let Err(error) = write() else { return Ok(()) };
        // A process may have been started there in the meantime.
        if movable && error.kind() == io::ErrorKind::ResourceBusy && round < ROUNDS {
            std::thread::sleep(PAUSE);
            continue;
        }
        leaf.undo(parent);
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM) => {
                "a process there belongs to another user, and the caller may not change its CPUs: start the caller in a cgroup of \
                 its own, or choose another parent (CgroupParent::Path)"
            }
            _ => {
                "the cgroup has processes of its own, or may not pass the controllers on: choose another parent \
                 (CgroupParent::Path), or use a delegated scope (CgroupParent::SystemdScope, or start the caller with systemd-run \
                 --user --scope -p Delegate=yes)"
            }
        };
        let step = format!("enable controllers of cgroups ({})", missing.join(", "));
        return Err(refused(step, "write", error.to_errno(), remedy).on(group_spec.parent.join(SUBTREE_CONTROL)));
    }
    Ok(())
}

/// The leaf to which the processes of the caller's own cgroup are moved: on v2 a cgroup with processes cannot pass
/// controllers on.
#[derive(Default)]
struct CallerLeaf {
    leaf: Option<Directory>,
    /// Whether this call created the leaf.
    is_new: bool,
    moved: Vec<i32>,
}

/// The file that lists the processes of a cgroup, and by which a process is moved into it.
const PROCESSES: &str = "cgroup.procs";

impl CallerLeaf {
    /// Moves all processes of the caller's cgroup to the leaf.
    fn fill(&mut self, own: &Directory) -> Result<()> {
        /// Another caller may remove the leaf while it is empty. Each caller does so once.
        const TRIES: u32 = 100;
        let is_gone = |error: &Error| matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV));
        let mut result = self.move_all(own);
        for _ in 1..TRIES {
            if !result.as_ref().is_err_and(is_gone) {
                break;
            }
            result = self.move_all(own);
        }
        result
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
        let leaf = leaf.map_err(failed("create a cgroup".into(), "mkdir", &own.path.join(&name)))?;
        let leaf = self.leaf.insert(leaf);
        for pid in processes {
            match leaf.write(PROCESSES, &pid.to_string()) {
                Ok(()) => self.moved.push(pid),
                // The process has exited.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => {
                    let step = format!(
                        "move process {pid} out of the cgroup {}, which must have no processes",
                        own.path.display()
                    );
                    let remedy = "the process belongs to another user, or may not be moved: start it or the caller in another cgroup, or \
                                  choose another parent (CgroupParent::Path)";
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
            // A process that has exited need not be moved.
            let _ = own.write(PROCESSES, &pid.to_string());
        };
        self.moved.drain(..).for_each(back);
        let Some(leaf) = self.leaf.take().filter(|_| self.is_new) else { return };
        for _ in 0..ROUNDS {
            // The kernel may report the leaf as busy for a moment, and a process may have been started there.
            leaf.processes().into_iter().for_each(back);
            if own.remove_empty(&leaf_name()).is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn leaf_name() -> String {
    format!("{CALLER_LEAF}{}", process_name())
}
