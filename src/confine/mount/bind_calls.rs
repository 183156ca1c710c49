//! Binds: a tree of the host is opened and copied, its attributes are restricted, and it is attached. A writable one is
//! made writable at the end, when no mount point is created any more.

use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::bind::Bind;
use super::builder::{Builder, PendingWritable};
use super::descriptor::Pinned;
use super::endpoints::is_idmappable;
use super::file_owner::Owner;
use super::source::SOURCE_HINTS;
use super::target::{MountPointKind, Target, kind_of};
use crate::advice::Need;
use crate::confine::mount_table::HostMount;
use crate::confine::open_descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::host_path::{HostPath, status};
use crate::layer::Layer;
use crate::outcome::Unenforced;
use crate::plan::{Attributes, Change, Input, Script, Slot, Step};
use crate::unix::Errno;

const IDMAP_HINTS: &[(i32, &str)] = &[
    (
        libc::EINVAL,
        "its file system has no idmapped mounts (ext4 and xfs have them since Linux 5.12, btrfs 5.15, tmpfs 6.3): bind it read-only, use another file system, or use Identity::caller() to run as the caller's user (for root: user 0 of the host)",
    ),
    (
        libc::EPERM,
        "it is an idmapped mount already, or its file system belongs to another user namespace: bind it read-only, or use Identity::caller() (for root: user 0 of the host)",
    ),
];

/// The step by which the files of an owner are shown as the program's.
const MAP_OWNERS: &str = "map the owners of";

/// The part of a tree of mounts that a program can reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All mounts.
    Tree,
    /// All mounts, but the program cannot connect to sockets in them, nor write to FIFOs.
    TreeWithoutEndpoints,
    /// Only the mount at the top. Those below may be of a file system without idmapped mounts.
    Top,
}

/// Has an automount point mount what it stands for. No other path of the host does, because that can fail or hang. If
/// it fails, the automount point itself is bound.
fn mount_automatically(source: &Path) {
    let _ = statvfs(source);
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|info| info.flags().contains(FsFlags::ST_RDONLY))
}

/// Returns the error for a mount whose owners cannot be mapped. `way` is what the user can do instead.
fn not_idmappable(path: &Path, mount: &HostMount, way: &str) -> Error {
    let hint = format!(
        "the mount at {}, of type {}, has no idmapped mounts (ext4 and xfs have them since Linux 5.12, btrfs 5.15, \
         tmpfs 6.3, overlayfs and most of FUSE do not): use a directory of another file system (in a container a \
         volume), {way}, or use Identity::caller() to run as the caller's user (for root, user 0 of the host)",
        mount.point.display(),
        String::from_utf8_lossy(&mount.kind)
    );
    Error::set_up(MAP_OWNERS, "mount_setattr", Errno::EINVAL, Some(&hint)).of(Layer::Root).on(path)
}

impl Builder<'_> {
    /// Copies a tree of the host, or that of a descriptor of the caller, sets attributes, and shows the files of
    /// `owner` as the program's. If the tree will be `writable` and its owner cannot be mapped, that is an error.
    pub(super) fn tree(
        &mut self,
        path: &Path,
        fd: Option<&Descriptor>,
        set: Attributes,
        owner: Owner,
        reach: Reach,
        writable: bool,
    ) -> Result<Slot> {
        let has_setattr = self.has_setattr();
        let mapping = match self.id_mapping(owner)? {
            Some(_) if !has_setattr && writable => {
                return Err(Error::unsupported(
                    Layer::Root,
                    format!("{} cannot be bound writable: the kernel has no idmapped mounts", path.display()),
                    "use Linux 5.12 or later, bind it read-only, or use Identity::caller() (for root: user 0 of the host)",
                ));
            }
            mapping => mapping.filter(|_| has_setattr),
        };
        if mapping.is_some() {
            match writable {
                true => self.check_idmappable(path, reach)?,
                false => self.check_readable(path)?,
            }
        }
        let unmap =
            if reach == Reach::TreeWithoutEndpoints && owner == Owner::Nobody { self.unmap(path)? } else { None };
        let opened = fd.map(|fd| self.pin(fd, path)).transpose()?;
        let tree = self.source(path, |script| {
            let source = match &opened {
                Some(Pinned::Input(input)) => script.input(*input),
                Some(Pinned::File(file)) => file.open(script, path),
                None => script.open_source(path),
            };
            let tree = script.open_tree(source, "");
            // A descriptor of the caller may be the source of several binds.
            if !matches!(opened, Some(Pinned::Input(_))) {
                script.close_and_free(source);
            }
            if let Some(unmap) = unmap {
                unmap.calls(script, tree, path);
            }
            if let Some(mapping) = mapping {
                script.step(Step::new(MAP_OWNERS).path(path).needs(Need::Mounts).remedies(IDMAP_HINTS));
                let added = script.mount_idmap(tree, reach != Reach::Top, Input::IdMapping(mapping));
                if !writable {
                    added.ignore();
                }
                script.step(
                    Step::new("set the mount attributes of").path(path).needs(Need::Mounts).remedies(SOURCE_HINTS),
                );
            }
            if has_setattr {
                script.mount_setattr(tree, Change::tree(set));
            }
            tree
        });
        if !has_setattr {
            self.restrict_by_remounts(tree, path, set, writable)?;
        }
        Ok(tree)
    }

    /// Returns an error if a mount of a tree that will be writable has no idmapped mounts, so that files which the
    /// program creates there would belong to a stranger.
    fn check_idmappable(&self, path: &Path, reach: Reach) -> Result<()> {
        let (table, attempt) = (self.context.facts.mounts()?, self.context.facts.can_idmap);
        let below = if reach == Reach::Top { vec![] } else { table.below(path) };
        let mut mounts = table.containing(path).into_iter().chain(below);
        match mounts.find(|mount| is_idmappable(mount, attempt) == Some(false)) {
            Some(mount) => Err(not_idmappable(path, mount, "bind it read-only")),
            None => Ok(()),
        }
    }

    /// Returns an error if only its owner may read the source of a read-only bind, and that owner cannot be mapped: the
    /// program would see nothing of it.
    fn check_readable(&self, path: &Path) -> Result<()> {
        let readable_by_all = |mode| match kind_of(path) {
            MountPointKind::Directory => mode & 0o005 == 0o005,
            MountPointKind::File => mode & 0o004 != 0,
        };
        if status(path).is_ok_and(|status| readable_by_all(status.st_mode)) {
            return Ok(());
        }
        let (table, attempt) = (self.context.facts.mounts()?, self.context.facts.can_idmap);
        match table.containing(path) {
            Some(mount) if is_idmappable(mount, attempt) == Some(false) => {
                Err(not_idmappable(path, mount, "let other users read it"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the index of the ID mapping that shows the files of `owner` as the program's. `None` if no mapping is
    /// needed.
    fn id_mapping(&mut self, owner: Owner) -> Result<Option<u16>> {
        let ids = match owner {
            _ if !self.context.facts.privileged => return Ok(None),
            Owner::Nobody => return Ok(None),
            Owner::Caller => self.context.facts.ids,
            Owner::Ids(uid, gid) => (uid, gid),
        };
        self.context.identity.id_mapping(ids).map(|maps| self.mapping(maps)).transpose()
    }

    /// Returns an error if a path of the host must not be writable, or cannot be.
    pub(super) fn check_writable(&self, source: &Path) -> Result<()> {
        if is_read_only(source) {
            return Err(Error::invalid(
                format!("{} cannot be bound writable: its mount is read-only on the host", source.display()),
                "bind it read-only, or mount an overlay of it",
            ));
        }
        if self.context.facts.mounts()?.containing(source).is_some_and(HostMount::is_cgroup) {
            let what =
                format!("{} cannot be bound writable: the program could change its own limits", source.display());
            return Err(Error::invalid(what, "bind it read-only, and set limits with Sandbox::cgroup"));
        }
        Ok(())
    }

    /// Carries out [`Operation::Bind`](super::Operation::Bind).
    pub(super) fn bind(&mut self, bind: &Bind) -> Result<()> {
        let source = bind.resolve_source(self.context.facts)?;
        mount_automatically(&source);
        if bind.writable {
            self.check_writable(&source)?;
        }
        let mut attributes = Attributes::RDONLY | Attributes::NOSUID;
        attributes.set(Attributes::NODEV, !bind.devices);
        attributes.set(Attributes::NOEXEC, bind.noexec);
        let without_endpoints = kind_of(&source) == MountPointKind::Directory && bind.is_cut_off();
        let reach = if without_endpoints { Reach::TreeWithoutEndpoints } else { Reach::Tree };
        let tree = self.tree(&source, bind.fd.as_ref(), attributes, bind.owner, reach, bind.writable)?;
        let tree = self.park(tree, &source, kind_of(&source));
        self.attach(tree, &Target::new(&bind.target)?, kind_of(&source));
        if without_endpoints {
            self.cut_off(&source, &bind.target, bind.owner)?;
        }
        if bind.writable {
            self.make_writable_later(tree, attributes - Attributes::RDONLY, &source)?;
        } else {
            self.context.helper.close_and_free(tree);
        }
        Ok(())
    }

    /// Adds a tree of the host to those that are made writable at the end.
    pub(super) fn make_writable_later(&mut self, mount: Slot, attributes: Attributes, source: &Path) -> Result<()> {
        let mut submounts = self.submounts(source)?;
        submounts.retain(|mount| !mount.is_read_only() && !mount.is_cgroup());
        let mut attributes = attributes;
        if !self.has_setattr() {
            // Binds of single files are writable from the start: see `restrict_by_remounts`.
            submounts.retain(|mount| kind_of(&source.join(&mount.point)) == MountPointKind::Directory);
            attributes |= self.attributes_at(source)?;
            if kind_of(source) == MountPointKind::File {
                self.context.helper.close(mount);
                return Ok(());
            }
        }
        self.leave_unreachable_read_only(source, &mut submounts);
        self.writable.push(PendingWritable { mount, path: source.to_owned(), attributes, submounts });
        Ok(())
    }

    /// Removes the submounts that an ordinary user cannot reach, such as those below a directory of another user. The
    /// helper cannot reach them either. They stay read-only.
    fn leave_unreachable_read_only(&mut self, source: &Path, submounts: &mut Vec<HostMount>) {
        if self.context.facts.privileged {
            return;
        }
        let has_setattr = self.has_setattr();
        submounts.retain(|mount| {
            // Without mount_setattr(2) the helper also has to enter the submount itself.
            let place = if has_setattr { mount.point.clone() } else { mount.point.join(".") };
            let Err(error) = HostPath::beneath(source, place).open(OFlag::O_PATH) else { return true };
            if error.errno.number() != libc::EACCES {
                return true;
            }
            let path = source.join(&mount.point);
            let requested = format!("a writable bind of {}", path.display());
            let remedy = "it stays read-only: let the caller enter the directories above it, or run as root";
            let error = Error::set_up("make writable the mount", error.call, error.errno, Some(remedy));
            self.context.unenforced.push(Unenforced::new(requested, &error.on(path).of(Layer::Root)));
            false
        });
    }

    /// Opens the submounts of the writable binds so far, before the next operation can mount something over them. A path
    /// leads to what covers a mount, which must not be made writable.
    pub(super) fn hold_submounts(&mut self) {
        let mut held = vec![];
        for PendingWritable { mount, path, attributes, submounts } in &mut self.writable {
            for below in submounts.drain(..) {
                let path = path.join(&below.point);
                make_writable_step(self.context.helper, &path);
                let submount = open_submount(self.context.helper, *mount, &below);
                let attributes = *attributes | below.attributes;
                held.push(PendingWritable { mount: submount, path, attributes, submounts: vec![] });
            }
        }
        self.writable.extend(held);
    }

    /// Adds a mount of the sandbox, whose changes go to the host, to those that are made writable at the end.
    pub(super) fn make_mount_writable_later(&mut self, mount: Slot, path: &Path) {
        let path = path.to_owned();
        self.writable.push(PendingWritable { mount, path, attributes: Attributes::SAFE, submounts: vec![] });
    }

    /// Makes the pending mounts writable. Submounts that no operation can have covered are opened one after another,
    /// since they may be more than the descriptors that the caller may have.
    pub(super) fn make_writable(&mut self) {
        for PendingWritable { mount, path, attributes, submounts } in std::mem::take(&mut self.writable) {
            make_writable_step(self.context.helper, &path);
            self.set_top(mount, attributes);
            for below in submounts {
                make_writable_step(self.context.helper, &path.join(&below.point));
                let submount = open_submount(self.context.helper, mount, &below);
                self.set_top(submount, attributes | below.attributes);
                self.context.helper.close_and_free(submount);
            }
            if mount != self.root {
                self.context.helper.close(mount);
            }
        }
    }
}

fn make_writable_step(helper: &mut Script, path: &Path) {
    helper.step(Step::new("make writable the mount").path(path).needs(Need::Mounts).remedies(&[
        (libc::EPERM, "the mount is read-only on the host, or locked: bind it read-only"),
        (
            libc::EACCES,
            "the sandbox's user may not enter it, or a directory above it: bind only the directories that the \
             program needs, or grant access",
        ),
    ]));
}

/// Opens a submount of a writable bind, which nothing covers.
fn open_submount(helper: &mut Script, mount: Slot, below: &HostMount) -> Slot {
    let submount = helper.reusable_slot("submount");
    helper.open_beneath(mount, below.point.as_os_str()).store_in(submount)
}
