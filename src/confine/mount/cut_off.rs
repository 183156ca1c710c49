//! The calls that cut off the sockets and FIFOs of a tree. Which way is used is decided in
//! [`endpoints`](super::endpoints).

use std::path::{Path, PathBuf};

use super::builder::Builder;
use super::endpoints::can_idmap;
use super::file_owner::Owner;
use super::source::SOURCE_HINTS;
use super::target::Target;
use crate::advice::Need;
use crate::confine::mount_table::HostMount;
use crate::error::Result;
use crate::plan::{Input, Script, Slot, Step};

/// Unmaps the owners of a tree: to the program, its files belong to no user ID.
pub(super) struct Unmap {
    mapping: u16,
    /// Whether all mounts of the tree are unmapped, or the one at its top alone. The kernel changes no single mount
    /// below the top of a tree that is not attached.
    whole: bool,
}

impl Unmap {
    /// Adds the calls to a script.
    pub fn calls(&self, script: &mut Script, tree: Slot, path: &Path) {
        script.step(Step::new("cut off the sockets and FIFOs of").path(path).needs(Need::Mounts).remedies(&[(
            libc::EINVAL,
            "a file system without idmapped mounts was mounted there after the mounts were read: spawn again",
        )]));
        script.mount_idmap(tree, self.whole, Input::IdMapping(self.mapping));
        script.step(Step::new("bind").path(path).needs(Need::Mounts).remedies(SOURCE_HINTS));
    }
}

impl Builder<'_> {
    /// Returns how the owners of a read-only tree of the host are unmapped. `None` if no mount of it supports that.
    pub(super) fn unmap(&mut self, path: &Path) -> Result<Option<Unmap>> {
        let Some(maps) = self.context.endpoints.unmapped.clone() else { return Ok(None) };
        let (top, whole) = self.unmappable(path)?;
        Ok(if top { Some(Unmap { mapping: self.mapping(maps)?, whole }) } else { None })
    }

    /// Returns whether the mount at the top of a tree can be unmapped, and whether all of its mounts can.
    fn unmappable(&self, path: &Path) -> Result<(bool, bool)> {
        let (table, attempt) = (self.context.facts.mounts()?, self.context.facts.can_idmap);
        let can = |mount: &HostMount| mount.has_endpoints() && can_idmap(mount, attempt);
        let top = table.containing(path).is_some_and(can);
        Ok((top, top && table.below(path).into_iter().all(can)))
    }

    /// Cuts off the endpoints of an attached read-only tree of the host, in the mounts whose owners could not be
    /// unmapped: masks the sockets, and notes the tree for Landlock.
    pub(super) fn cut_off(&mut self, source: &Path, target: &Path, owner: Owner) -> Result<()> {
        let facts = self.context.facts;
        let is_unmapped = owner == Owner::Nobody && self.context.endpoints.unmapped.is_some();
        let (top, whole) = if is_unmapped { self.unmappable(source)? } else { (false, false) };
        let table = facts.mounts()?;
        let mut reachable: Vec<&Path> = vec![];
        if !top && table.containing(source).is_some_and(HostMount::has_endpoints) {
            reachable.push(source);
        }
        if !whole {
            let below = table.below(source).into_iter().filter(|mount| mount.has_endpoints());
            reachable.extend(below.map(|mount| mount.point.as_path()));
        }
        if reachable.is_empty() {
            return Ok(());
        }
        let target_of = |path: &Path| match path.strip_prefix(source) {
            Ok(below) if below.as_os_str().is_empty() => Some(target.to_owned()),
            below => below.ok().map(|below| target.join(below)),
        };
        self.context.endpoints.reachable.extend(reachable.iter().filter_map(|path| target_of(path)));
        if !self.context.endpoints.needs_masks(target) {
            return Ok(());
        }
        let sockets = self.context.endpoints.sockets(table)?;
        let found = sockets.iter().filter(|socket| {
            // In a mount whose owners are not unmapped.
            let mount = table.containing(socket);
            mount.is_some_and(|mount| {
                reachable.iter().any(|path| *path == mount.point || *path == source && source.starts_with(&mount.point))
            })
        });
        let places: Vec<PathBuf> = found.filter_map(|socket| target_of(socket)).collect();
        for place in places {
            self.mask_reachable(&Target::new(&place)?);
        }
        Ok(())
    }
}
