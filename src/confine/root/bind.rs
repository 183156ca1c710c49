//! What is of the host's: opened by who can reach it, copied, restricted, and let go at the end if the program may write
//! there.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::lower::Builder;
use super::target::{Kind, Target, kind_of};
use super::{Bind, Owner};
use crate::confine::host::Host;
use crate::confine::mountinfo::HostMount;
use crate::error::{Error, Result};
use crate::host_path::{HostPath, Unresolved};
use crate::plan::{Attributes, Change, IdMaps, Input, Program, Slot, Step};

/// A mount to be let go, with those of its submounts that the host has writable.
pub(super) struct Writable {
    mount: Slot,
    /// What it will have, beside the attributes that each mount has on the host.
    attributes: Attributes,
    submounts: Vec<HostMount>,
}

pub(super) const SOURCE: &[(i32, &str)] = &[
    (libc::ENOENT, "it does not exist on the host"),
    (libc::EACCES, "the host's user can't enter a directory above it"),
    (libc::ELOOP, "it was replaced by a symlink after the plan was made"),
    (libc::EPERM, "this host forbids mounts in user namespaces, or to this user"),
    (libc::EINVAL, "the file system forbids to be bound, or its mounts are locked (a container's)"),
    (
        libc::ENOSYS,
        "the kernel, or the seccomp profile of a container, lacks a call of the mount interface (Linux 5.12)",
    ),
];

const IDMAP: &[(i32, &str)] = &[
    (
        libc::EINVAL,
        "its file system has no idmapped mounts (ext4 and xfs have them since Linux 5.12, btrfs 5.15, tmpfs 6.3): bind it read-only, use another file system, or say Identity::caller() to run as the host's own user",
    ),
    (
        libc::EPERM,
        "it is an idmapped mount already, or its file system belongs to another user namespace: bind it read-only, or say Identity::caller()",
    ),
];

/// What of a tree of mounts a program can come to see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Tree,
    /// The same, and it can't connect to the sockets in it, nor write to the FIFOs.
    CutOff,
    /// The mount at its top alone: those below may be of a file system that has no idmapped mounts.
    Top,
}

/// The place that a source names. `follow` says whether a symlink in its last component is followed by default.
pub(super) fn resolve_source(host: &Host, path: &HostPath, follow: bool) -> Result<PathBuf> {
    host.resolve(path, follow).map_err(|Unresolved { call, errno, remedy }| {
        let remedy = remedy.unwrap_or("it must exist on the host, and the caller must be able to reach it");
        Error::set_up("looking for what is to be mounted:", call, errno, Some(remedy)).on(path.given())
    })
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|info| info.flags().contains(FsFlags::ST_RDONLY))
}

impl Builder<'_> {
    /// The program that opens what is of the host's: the host's own, if it may make mounts, since the helper may be a
    /// user who can't reach it.
    fn opener(&mut self) -> &mut Program {
        if self.l.host.privileged { self.l.host_program } else { self.l.helper }
    }

    /// Closes what the helper itself has opened of the host's, so that nothing leads there any more.
    pub(super) fn close_source(&mut self, source: Slot) {
        if !self.l.host.privileged {
            self.l.helper.close(source);
        }
    }

    pub(super) fn open_source(&mut self, path: &Path) -> Slot {
        let opener = self.opener();
        opener.step(Step::new("opening").path(path).remedies(SOURCE));
        opener.open_source(path)
    }

    /// Runs calls that open something of the host's; the slot in the helper that holds it.
    pub(super) fn source(&mut self, path: &Path, open: impl FnOnce(&mut Program) -> Slot) -> Slot {
        let opener = self.opener();
        opener.step(Step::new("opening the source of a bind").path(path).remedies(SOURCE));
        let slot = open(opener);
        if self.l.host.privileged { self.l.helper.input(Input::FromHost(slot)) } else { slot }
    }

    /// A copy of a tree of the host's, with attributes, as its owner would see it. One that will be `writable` must show
    /// the right owner, or it is an error.
    pub(super) fn tree(
        &mut self,
        path: &Path,
        set: Attributes,
        owner: Owner,
        seen: Seen,
        writable: bool,
    ) -> Result<Slot> {
        let (privileged, has_setattr) = (self.l.host.privileged, self.has_setattr());
        let mapping = match self.id_mapping(owner) {
            Some(_) if !has_setattr && writable => {
                return Err(Error::invalid(
                    format!("{} can't be bound writable: the kernel has no idmapped mounts", path.display()),
                    "use Linux 5.12 or later, bind it read-only, or say Identity::caller()",
                ));
            }
            mapping => mapping.filter(|_| has_setattr),
        };
        let unmap = if seen == Seen::CutOff && owner == Owner::Nobody { self.unmap(path)? } else { None };
        let tree = self.source(path, |program| {
            let source = program.open_source(path);
            let tree = program.open_tree(source, "");
            if !privileged {
                program.close(source);
            }
            if let Some(unmap) = unmap {
                unmap.calls(program, tree, path);
            }
            if let Some(mapping) = mapping {
                program.step(Step::new("showing the owner's files as the program's").path(path).remedies(IDMAP));
                let added = program.mount_idmap(tree, seen != Seen::Top, Input::IdMapping(mapping));
                if !writable {
                    added.ignore();
                }
                program.step(Step::new("restricting the bind").path(path).remedies(SOURCE));
            }
            if has_setattr {
                program.mount_setattr(tree, Change::tree(set));
            }
            tree
        });
        if !has_setattr {
            self.restrict_by_remounts(tree, path, set, writable)?;
        }
        Ok(tree)
    }

    /// The index of the id mapping that shows the files of `owner` as the program's own.
    fn id_mapping(&mut self, owner: Owner) -> Option<u16> {
        let ids = match owner {
            _ if !self.l.host.privileged => return None,
            Owner::Nobody => return None,
            Owner::Caller => self.l.host.ids,
            Owner::Ids(uid, gid) => (uid, gid),
        };
        self.l.who.id_mapping(ids).map(|maps| self.mapping(maps))
    }

    /// The index of an id mapping.
    pub(super) fn mapping(&mut self, maps: IdMaps) -> u16 {
        let known = self.l.id_mappings.iter().position(|known| *known == maps);
        let index = known.unwrap_or_else(|| {
            self.l.id_mappings.push(maps);
            self.l.id_mappings.len() - 1
        });
        index as u16
    }

    pub(super) fn bind(&mut self, bind: &Bind) -> Result<()> {
        let source = resolve_source(self.l.host, &bind.source, !bind.writable)?;
        if bind.writable && is_read_only(&source) {
            return Err(Error::invalid(
                format!(
                    "{} can't be bound writable: the mount that it lies in is read-only on the host",
                    source.display()
                ),
                "bind it read-only, or an overlay of it",
            ));
        }
        if bind.writable && self.l.host.mounts()?.containing(&source).is_some_and(HostMount::is_cgroup) {
            let what =
                format!("{} can't be bound writable: the program could change its own limits there", source.display());
            return Err(Error::invalid(what, "bind it read-only, and set limits with Sandbox::cgroup"));
        }
        let mut attributes = Attributes::RDONLY | Attributes::NOSUID;
        attributes.set(Attributes::NODEV, !bind.devices);
        attributes.set(Attributes::NOEXEC, bind.noexec);
        let is_cut = source.is_dir() && bind.is_cut_off();
        let seen = if is_cut { Seen::CutOff } else { Seen::Tree };
        let tree = self.tree(&source, attributes, bind.owner, seen, bind.writable)?;
        self.attach(tree, &Target::new(&bind.target)?, kind_of(&source));
        if is_cut {
            self.cut_off(&source, &bind.target, bind.owner)?;
        }
        if bind.writable {
            self.writable_later(tree, attributes - Attributes::RDONLY, &source)?;
        }
        Ok(())
    }

    /// Notes a tree of the host's that the program may write to in the end.
    fn writable_later(&mut self, mount: Slot, attributes: Attributes, source: &Path) -> Result<()> {
        let mut submounts = self.submounts(source)?;
        submounts.retain(|mount| !mount.is_read_only() && !mount.is_cgroup());
        let mut attributes = attributes;
        if !self.has_setattr() {
            // Files are writable already.
            submounts.retain(|mount| kind_of(&source.join(&mount.point)) == Kind::Directory);
            attributes |= self.attributes_at(source)?;
            if kind_of(source) == Kind::File {
                return Ok(());
            }
        }
        self.writable.push(Writable { mount, attributes, submounts });
        Ok(())
    }

    /// Notes a mount of the sandbox's own that keeps its changes on the host.
    pub(super) fn writable_mount_later(&mut self, mount: Slot) {
        self.writable.push(Writable { mount, attributes: Attributes::SAFE, submounts: vec![] });
    }

    pub(super) fn let_go(&mut self) {
        for Writable { mount, attributes, submounts } in std::mem::take(&mut self.writable) {
            self.l.helper.step(Step::new("letting the program write to a bind").remedies(&[
                (libc::EPERM, "the mount is read-only on the host, or locked: bind it read-only"),
                (
                    libc::EACCES,
                    "a mount below it is one that this user may not enter: bind what is needed by itself, or use \
                             Linux 5.12",
                ),
            ]));
            self.set_top(mount, attributes);
            for below in submounts {
                let submount = self.l.helper.open_beneath(mount, below.point.as_os_str()).store("submount");
                self.set_top(submount, attributes | below.attributes);
            }
        }
    }
}
