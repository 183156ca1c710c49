//! Which controllers are available for a sandbox: found by creating and removing a cgroup in each hierarchy.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{AccessFlags, access};

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, HierarchyVersion, SUBTREE_CONTROL};
use super::owner::Claim;
use super::{Cgroup, CgroupParent};
use crate::error::Result;
use crate::unix::{Errno, ToErrno};

/// The result for a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Cgroups with it can be created below a directory.
    Groups { v2: bool, below: PathBuf },
    /// The same, after the processes of that directory were moved to a leaf.
    AfterMove { below: PathBuf },
    /// The directory is in this systemd unit, which is not delegated.
    Undelegated { below: PathBuf, unit: String },
    /// Creating a cgroup failed.
    Refused { v2: bool, below: PathBuf, errno: Errno },
    /// Cgroups can be created, but the parent may not pass the controller on.
    NotPassedOn { below: PathBuf, errno: Errno },
    /// No hierarchy has it for this parent.
    Absent,
}

/// Tries every controller, in the order of [`Controller::ALL`]. Returns its name on v2 and the result.
pub(crate) fn probe() -> Result<Vec<(&'static str, Found)>> {
    let hierarchies = Hierarchies::read(&CgroupParent::Auto)?;
    let mut tried = BTreeMap::new();
    let found = Controller::ALL.map(|controller| {
        let found = match hierarchies.directory(controller) {
            None => Found::Absent,
            Some((version, below)) => {
                // Without a trailing slash.
                let below: PathBuf = below.components().collect();
                if let Some(unit) = hierarchies.undelegated(version, &below) {
                    return (controller.v2().unwrap_or(controller.v1()), Found::Undelegated { below, unit });
                }
                let result = tried.entry(below.clone()).or_insert_with(|| create_and_remove(&below, version));
                classify(controller, version, below, result)
            }
        };
        (controller.v2().unwrap_or(controller.v1()), found)
    });
    Ok(found.to_vec())
}

impl Cgroup {
    /// Returns whether the host lacks a controller that the limits need, or the caller may not create a cgroup with it.
    /// Below a requested parent, which a program may have removed or changed, that is so only if no hierarchy has it.
    pub(crate) fn is_lacking(&self) -> bool {
        let Ok(settings) = self.settings() else { return false };
        let freezer = self.freezable.then_some(Controller::Freezer);
        let mut needed = settings.iter().map(|setting| setting.controller).chain(freezer);
        if let CgroupParent::Path(_) = self.parent {
            return Hierarchies::read(&CgroupParent::Auto)
                .is_ok_and(|all| needed.any(|controller| !all.have(controller)));
        }
        let lacks = |found: &Found| match found {
            Found::Groups { .. } | Found::AfterMove { .. } => false,
            Found::Undelegated { .. } => true,
            Found::Refused { errno, .. } => matches!(errno.number(), libc::EACCES | libc::EPERM | libc::EROFS),
            Found::NotPassedOn { .. } | Found::Absent => true,
        };
        let Ok(found) = probe() else { return false };
        let name = |controller: Controller| controller.v2().unwrap_or(controller.v1());
        needed.any(|needed| found.iter().any(|(known, found)| *known == name(needed) && lacks(found)))
    }
}

/// Creates and removes a cgroup. Returns the controllers that it had on v2.
fn create_and_remove(parent: &Path, version: HierarchyVersion) -> Result<String, Errno> {
    let parent = [Arc::new(Directory::open(parent).map_err(|error| error.to_errno())?)];
    // Another caller would remove a cgroup without a claim as stale.
    let claim = Claim::new(&parent).map_err(|errno| errno.to_errno())?;
    let group = parent[0].create(&claim.name).map_err(|error| error.to_errno())?;
    let has = match version {
        HierarchyVersion::V1 => String::new(),
        HierarchyVersion::V2 => group.read("cgroup.controllers").unwrap_or_default(),
    };
    parent[0].remove_empty(&claim.name).map_err(|errno| errno.to_errno())?;
    Ok(has)
}

fn classify(
    controller: Controller,
    version: HierarchyVersion,
    below: PathBuf,
    created: &Result<String, Errno>,
) -> Found {
    let v2 = version == HierarchyVersion::V2;
    let has = match created {
        Err(errno) => return Found::Refused { v2, below, errno: *errno },
        Ok(has) => has,
    };
    match controller.v2().filter(|_| v2) {
        Some(name) if !has.split_whitespace().any(|word| word == name) => could_be_enabled(below),
        _ => Found::Groups { v2, below },
    }
}

/// Returns whether a parent could enable a controller. It is not tried, because that changes every child cgroup.
fn could_be_enabled(below: PathBuf) -> Found {
    if let Err(errno) = access(&below.join(SUBTREE_CONTROL), AccessFlags::W_OK) {
        return Found::NotPassedOn { below, errno: errno.to_errno() };
    }
    // Only the root has no such file, and it may have processes nevertheless.
    let is_top = !below.join("cgroup.type").exists();
    let is_empty = fs::read_to_string(below.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty());
    if is_top || is_empty { Found::Groups { v2: true, below } } else { Found::AfterMove { below } }
}
