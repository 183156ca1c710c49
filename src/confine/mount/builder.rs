//! The builder of a root: its state, and the calls that several operations share. Each operation is in a file of its
//! own, and their order in `assemble`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::endpoints::Endpoints;
use super::source::SOURCE_HINTS;
use super::target::{MountPointKind, Target};
use crate::advice::Need;
use crate::confine::facts::Facts;
use crate::confine::identity::Resolved;
use crate::confine::mount_table::HostMount;
use crate::confine::namespaces::Chosen;
use crate::error::Result;
use crate::outcome::Unenforced;
use crate::plan::{Arg, Attributes, IdMaps, Placeholder, Script, Slot, Step, flags, intern, nr};

/// The scripts that the calls of a root are added to, and the decisions that they depend on.
pub(crate) struct RootContext<'a> {
    pub helper: &'a mut Script,
    pub id_mappings: &'a mut Vec<IdMaps>,
    pub facts: &'a Facts,
    pub identity: &'a Resolved,
    pub namespaces: &'a Chosen,
    pub proc_mounts: &'a mut ProcMounts,
    pub placeholders: &'a mut Vec<Placeholder>,
    /// Descriptors of the caller that the plan holds.
    pub descriptors: &'a mut Vec<Arc<OwnedFd>>,
    /// The maximum number of terminals of each `/dev`.
    pub terminals: u32,
    pub endpoints: &'a mut Endpoints,
    pub unenforced: &'a mut Vec<Unenforced>,
    pub names: Names<'a>,
    /// Whether the program may mount, so that what a mount shows must be a place where others can be mounted.
    pub is_nestable: bool,
}

/// What the names of a sandbox depend on, apart from its root and its IDs.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// The host name, if it is the sandbox's own.
    pub host: Option<&'a OsStr>,
    /// Whether the network is one that existed before the sandbox.
    pub shares_network: bool,
    /// The home directory of the program's user, if one is set.
    pub home: Option<&'a OsStr>,
}

/// Adds the calls that wait for init to a script.
pub(crate) type WaitForInit = Box<dyn FnOnce(&mut Script)>;

/// The proc file systems that init opens: they show the PID namespace of the process that opens them.
pub(crate) struct ProcMounts {
    /// Waits until init has opened them. `None` once the wait was added.
    pub wait_for_init: Option<WaitForInit>,
    pub opened: std::vec::IntoIter<Slot>,
}

impl ProcMounts {
    /// Adds the calls that wait until they are open, unless they were added before.
    pub fn wait(&mut self, helper: &mut Script) {
        if let Some(wait) = self.wait_for_init.take() {
            wait(helper);
        }
    }
}

/// Adds the calls that create a root to the scripts.
pub(super) struct Builder<'a> {
    pub context: RootContext<'a>,
    pub root: Slot,
    /// A tmpfs that exists during the set-up only, for files that are bound and for layers of overlays.
    pub scratch: Option<Slot>,
    /// The number of names in `scratch` that are in use.
    pub names: usize,
    /// Mounts that stay read-only until all other operations were carried out.
    pub writable: Vec<PendingWritable>,
    /// Where sources are kept that are too many for descriptors.
    pub parking: Option<Parking>,
    /// File systems that are made read-only at the end, since operations create entries in them.
    pub read_only_later: Vec<PendingReadOnly>,
}

/// The tmpfs that the sources of binds are attached to, in the mount namespace where they are opened, its copy, and the
/// number of sources.
pub(super) struct Parking {
    pub tmpfs: Slot,
    pub copy: Slot,
    pub count: usize,
}

/// A file system of the sandbox to be made read-only at the end, with all its attributes.
pub(super) struct PendingReadOnly {
    pub mount: Slot,
    pub step: &'static str,
    pub attributes: Attributes,
}

/// A mount to be made writable at the end, with those of its submounts that are writable on the host. A submount for
/// which a descriptor is held is one of its own.
pub(super) struct PendingWritable {
    pub mount: Slot,
    /// The source on the host, or the mount point of a mount of the sandbox.
    pub path: PathBuf,
    /// The attributes that it gets, besides those that each mount has on the host.
    pub attributes: Attributes,
    pub submounts: Vec<HostMount>,
}

pub(super) fn make_mounts_private(helper: &mut Script) {
    helper.step(Step::new("make mounts private below").path("/").needs(Need::Mounts));
    let private = [Arg::NULL, helper.text("/"), Arg::NULL, flags!(MS_REC | MS_PRIVATE), Arg::NULL];
    helper.call(nr!(SYS_mount), private);
}

impl Builder<'_> {
    /// Returns whether the kernel has mount_setattr(2).
    pub(super) fn has_setattr(&self) -> bool {
        self.context.facts.has_setattr()
    }

    /// Adds the calls of `open`, which open a path of the host: where they are needed, or at the mark if the caller may
    /// mount. The helper may become a user that cannot access the path, and loses the caller's rights to its mount.
    fn opening(&mut self, open: impl FnOnce(&mut Script) -> Slot) -> Slot {
        if self.context.facts.privileged { self.context.helper.at_mark(open) } else { open(self.context.helper) }
    }

    /// Opens a path of the host.
    pub(super) fn open_source(&mut self, path: &Path) -> Slot {
        self.opening(|script| {
            script.step(Step::new("open").path(path).needs(Need::Mounts).remedies(SOURCE_HINTS));
            script.open_source(path)
        })
    }

    /// Opens the source of a bind by the calls of `open`.
    pub(super) fn source(&mut self, path: &Path, open: impl FnOnce(&mut Script) -> Slot) -> Slot {
        self.opening(|script| {
            script.step(Step::new("open the bind source").path(path).needs(Need::Mounts).remedies(SOURCE_HINTS));
            open(script)
        })
    }

    /// Returns the index of an ID mapping, and adds it to the plan if it is new.
    pub(super) fn mapping(&mut self, maps: IdMaps) -> Result<u16> {
        let is_known = |known: &IdMaps| *known == maps;
        let known = self.context.id_mappings.iter().position(is_known);
        intern(self.context.id_mappings, known, maps, "ID mappings")
    }

    /// Attaches a mount to its mount point, which is created if it is missing.
    pub(super) fn attach(&mut self, mount: Slot, target: &Target, kind: MountPointKind) {
        let place = target.mount_point(self.context.helper, self.root, kind);
        target.step(self.context.helper, "attach a mount to");
        self.context.helper.move_mount(mount, place);
        self.context.helper.close_and_free(place);
    }

    /// Attaches a file system of the kernel to its mount point, as [`attach`](Self::attach), but follows no symlink.
    pub(super) fn attach_own(&mut self, mount: Slot, target: &Target) {
        let place = target.own_mount_point(self.context.helper, self.root);
        target.step(self.context.helper, "attach a mount to");
        self.context.helper.move_mount(mount, place);
        self.context.helper.close(place);
    }

    /// Returns an unused name in the scratch tmpfs.
    pub(super) fn new_name(&mut self) -> String {
        self.names += 1;
        self.names.to_string()
    }

    /// Attaches a mount to a new mount point in the scratch tmpfs, and returns its name.
    pub(super) fn attach_in_scratch(&mut self, mount: Slot, kind: MountPointKind) -> String {
        let (name, scratch) = (self.new_name(), self.scratch());
        match kind {
            MountPointKind::Directory => self.context.helper.mkdirat(scratch, &name, 0o755),
            MountPointKind::File => self.context.helper.create(scratch, &name, 0o600),
        }
        self.context.helper.move_mount_to(mount, scratch, &name);
        name
    }

    /// Returns the slot of the scratch tmpfs.
    pub(super) fn scratch(&self) -> Slot {
        self.scratch.unwrap_or(Slot(0))
    }
}
