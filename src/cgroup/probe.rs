//! What groups this host could make for a sandbox: found by making one in each place, and removing it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{AccessFlags, access};

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, Version};
use super::owner::Claim;
use super::{Cgroup, CgroupParent};
use crate::error::{Errno, Result};

/// What was found of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Groups that have it can be made below a directory.
    Groups { v2: bool, below: PathBuf },
    /// The same, when the processes that are there have been moved to a leaf of it.
    AfterMove { below: PathBuf },
    /// It is in this unit of systemd's, which is not delegated.
    Undelegated { below: PathBuf, unit: String },
    /// A group was refused.
    Refused { v2: bool, below: PathBuf, errno: Errno },
    /// Groups can be made, but the one above may not give it to them.
    NotGiven { below: PathBuf, errno: Errno },
    /// No hierarchy has it here.
    Absent,
}

/// Tries every controller, in the order of [`Controller::ALL`]: its name on v2, and what was found.
pub(crate) fn probe() -> Result<Vec<(&'static str, Found)>> {
    let hierarchies = Hierarchies::read(&CgroupParent::Auto)?;
    let mut tried = BTreeMap::new();
    let found = Controller::ALL.map(|controller| {
        let found = match hierarchies.place(controller) {
            None => Found::Absent,
            Some((version, below)) => {
                // Without a slash at its end.
                let below: PathBuf = below.components().collect();
                if let Some(unit) = hierarchies.undelegated(version, &below) {
                    return (controller.v2().unwrap_or(controller.v1()), Found::Undelegated { below, unit });
                }
                let result = tried.entry(below.clone()).or_insert_with(|| make_and_remove(&below, version));
                judge(controller, version, below, result)
            }
        };
        (controller.v2().unwrap_or(controller.v1()), found)
    });
    Ok(found.to_vec())
}

impl Cgroup {
    /// Whether the host lacks a controller that the limits need, or this user may make no group with it. Below a requested
    /// parent, which may have been removed or changed by a program, it is lacking only if no hierarchy has it.
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
            Found::Refused { errno, .. } => matches!(errno.0, libc::EACCES | libc::EPERM | libc::EROFS),
            Found::NotGiven { .. } | Found::Absent => true,
        };
        let Ok(found) = probe() else { return false };
        let name = |controller: Controller| controller.v2().unwrap_or(controller.v1());
        needed.any(|needed| found.iter().any(|(known, found)| *known == name(needed) && lacks(found)))
    }
}

/// Makes a group, and gives the controllers that it has on v2.
fn make_and_remove(parent: &Path, version: Version) -> Result<String, Errno> {
    let parent = [Arc::new(Directory::open(parent)?)];
    // Another caller would sweep one that nobody has claimed.
    let claim = Claim::new(&parent);
    let group = parent[0].create(&claim.name)?;
    let has = match version {
        Version::V1 => String::new(),
        Version::V2 => group.read("cgroup.controllers").unwrap_or_default(),
    };
    parent[0].remove_empty(&claim.name)?;
    Ok(has)
}

fn judge(controller: Controller, version: Version, below: PathBuf, made: &Result<String, Errno>) -> Found {
    let v2 = version == Version::V2;
    let has = match made {
        Err(errno) => return Found::Refused { v2, below, errno: *errno },
        Ok(has) => has,
    };
    match controller.v2().filter(|_| v2) {
        Some(name) if !has.split_whitespace().any(|word| word == name) => given_later(below),
        _ => Found::Groups { v2, below },
    }
}

/// Whether a group that does not give a controller on could do so. It is not tried: it would change every group below.
fn given_later(below: PathBuf) -> Found {
    if let Err(errno) = access(&below.join("cgroup.subtree_control"), AccessFlags::W_OK) {
        return Found::NotGiven { below, errno: errno.into() };
    }
    // The one at the top may have processes all the same, and alone has no such file.
    let is_top = !below.join("cgroup.type").exists();
    let is_empty = fs::read_to_string(below.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty());
    if is_top || is_empty { Found::Groups { v2: true, below } } else { Found::AfterMove { below } }
}
