//! The order in which a root is assembled: a tmpfs is mounted over the caller's root, the base and the operations are
//! mounted in it, and the helper changes its root to it. Binds of the host stay read-only until the end, so that the
//! kernel itself prevents that a mount point is created on the host. How an operation is carried out does not belong
//! here.

use std::fs;
use std::path::{Path, PathBuf};

use super::bind_calls::Reach;
use super::builder::{Builder, RootContext, make_mounts_private};
use super::cgroups;
use super::file_owner::Owner;
use super::host_root::{NOT_BOUND, default_mounts, hidden_homes};
use super::names::Position;
use super::operation::Operation;
use super::overlay_calls::StagedLayers;
use super::root::{Base, Root};
use super::source::{SOURCE_HINTS, resolve_source};
use super::synthetic::{open_proc, tmpfs_options};
use super::system_root::system_mounts;
use super::target::Target;
use super::tmpfs::Tmpfs;
use super::{gpu, parking, protect};
use crate::advice::Need;
use crate::confine::facts::Facts;
use crate::confine::identity::Resolved;
use crate::confine::namespaces::Namespaces;
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::layer::Layer;
use crate::plan::{Arg, Attributes, Change, HostId, Script, Slot, Step, flags, nr};

/// The size of the tmpfs that is the root, in bytes: for mount points, and for files if the root is writable.
const TOP_SIZE: u64 = 64 << 20;
const TOP_INODES: u64 = 1 << 16;

/// Returns the operations that the root consists of, the default ones first. `is_nestable`: whether the program may
/// mount a `/proc`, which the kernel denies if a part of the sandbox's is masked.
pub(crate) fn operations(root: &Root, facts: &Facts, identity: &Resolved, is_nestable: bool) -> Result<Vec<Operation>> {
    let is_caller = identity.host_uid == HostId::Id(facts.ids.0);
    let mut operations = match root.base {
        Base::Host => default_mounts(is_caller && !is_nestable),
        Base::System => system_mounts(),
        _ => vec![],
    };
    let replaces = |mount: &Operation, default: &Operation| match (mount, default) {
        // What is shown of the host is not needed below another mount.
        _ if root.base == Base::System => mount.covers() && default.target().starts_with(mount.target()),
        // A tmpfs replaces a default one at the same path.
        (Operation::Tmpfs(mount), Operation::Tmpfs(default)) => mount.target == default.target,
        _ => false,
    };
    operations.retain(|default| !root.operations.iter().any(|mount| replaces(mount, default)));
    for operation in &root.operations {
        match operation {
            Operation::Gpus => operations.extend(gpu::operations()?),
            other => operations.push(other.clone()),
        }
    }
    Ok(operations)
}

/// Returns an error if terminals are requested and there is no `/dev` for them.
pub(crate) fn check_terminals(root: &Root, operations: &[Operation]) -> Result<()> {
    if root.terminals > 0 && !operations.iter().any(|mount| matches!(mount, Operation::Dev(_))) {
        return Err(Error::invalid(
            "terminals require a /dev of the sandbox",
            "add Root::dev(\"/dev\"), or remove Root::terminals",
        ));
    }
    Ok(())
}

/// Opens the proc file systems of the operations, in the init of the PID namespace that they show.
pub(crate) fn open_procs(operations: &[Operation], init: &mut Script) -> Vec<Slot> {
    let procs = operations.iter().filter_map(|mount| if let Operation::Proc(proc) = mount { Some(proc) } else { None });
    procs.map(|proc| open_proc(init, proc)).collect()
}

/// Adds the calls that create the root, and that change the helper's root to it.
pub(crate) fn lower(root: &Root, operations: &[Operation], context: RootContext<'_>) -> Result<OldRoot> {
    // This is part of the mount namespace, whatever the root is.
    context.helper.within(Layer::Namespaces, make_mounts_private);
    if root.base == Base::Inherit {
        if !operations.is_empty() {
            return Err(Error::invalid(
                "Root::inherit() has operations",
                "remove them, or use Root::host() or Root::from_dir(\"/\")",
            ));
        }
        cgroups::make_read_only(context.helper, context.facts.has_setattr())?;
        return Ok(OldRoot::default());
    }
    // Before the sources, whose errors depend on the host.
    operations.iter().try_for_each(|mount| Target::new(mount.target()).map(drop))?;
    let homes = if root.base == Base::Host { hidden_homes(context.facts)? } else { vec![] };
    let parks = parking::is_needed(operations, context.facts)?;
    let needs_scratch = !context.facts.has_setattr()
        || matches!(root.base, Base::Overlay(_) | Base::WritableDir(_))
        || !homes.is_empty()
        || context.endpoints.may_mask(root, operations, context.facts)?
        || context.is_nestable
        || parks
        || operations.iter().any(needs_scratch);
    let scratch = needs_scratch.then(|| create_scratch(context.helper, operations));
    let top = Slot(0);
    let mut builder =
        Builder { context, root: top, scratch, names: 0, writable: vec![], parking: None, read_only_later: vec![] };
    if parks {
        builder.begin_parking(operations.len());
    }
    let (protected, placeholders) = protect::resolve(builder.context.facts, operations)?;
    builder.context.placeholders.extend(placeholders);
    let root_layers = match &root.base {
        Base::Overlay(overlay) => Some(builder.stage(overlay)?),
        _ => None,
    };
    let overlays = builder.stage_overlays(operations)?;
    builder.create_root(&root.base, root_layers)?;
    builder.base(&root.base)?;
    builder.hide(homes, operations)?;
    let mut overlays = overlays.into_iter();
    for (index, mount) in operations.iter().enumerate() {
        builder.hold_submounts();
        if mount.covers() {
            builder.context.endpoints.cover(mount.target());
        }
        let position = Position { base: &root.base, before: &operations[..index], after: &operations[index + 1..] };
        let names = builder.context.names;
        match mount {
            Operation::NetworkNames => builder.network_names(names, position)?,
            Operation::UserNames => builder.user_names(names, position)?,
            Operation::Overlay(overlay) => builder.overlay(overlay, overlays.next())?,
            Operation::Dev(target) => {
                let is_in_it = |mount: &Operation| mount.target() != target && mount.target().starts_with(target);
                builder.devices(&Target::new(target)?, position.after.iter().any(is_in_it))
            }
            Operation::Symlink { original, link } => builder.symlink(original, link, position)?,
            other => builder.operation(other)?,
        }
    }
    builder.copy_parked();
    builder.make_writable();
    builder.make_read_only();
    builder.protect(&protected)?;
    if !root.is_writable() {
        builder.context.helper.step(Step::new("make the root read-only").needs(Need::Mounts));
        builder.set_top(builder.root, Attributes::RDONLY | Attributes::SAFE);
    }
    builder.context.helper.step(Step::new("change the root at").path("/").needs(Need::Pivot));
    builder.context.helper.call(nr!(SYS_fchdir), [builder.root.into()]);
    if builder.context.namespaces.all().contains(Namespaces::USER) && builder.context.facts.root_is_initramfs()? {
        if builder.context.is_nestable {
            return Err(Error::unsupported(
                Layer::Root,
                "Sandbox::nestable requires pivot_root(2), which the kernel does not support for an initramfs",
                "move to another root (switch_root), or remove Sandbox::nestable",
            ));
        }
        chroot_over_initramfs(builder.context.helper);
        return Ok(OldRoot::default());
    }
    let dot = builder.context.helper.text(".");
    builder.context.helper.call(nr!(SYS_pivot_root), [dot, dot]);
    Ok(OldRoot(if scratch.is_some() { 2 } else { 1 }))
}

/// The mounts of the old root, which cover the new one: their number, 0 to 2. They are the caller's root, and the
/// scratch tmpfs that is attached over it.
#[derive(Default)]
#[must_use]
pub(crate) struct OldRoot(usize);

/// Detaches the old root. The kernel is slow at that, so the helper does it while the program's process gives up its
/// rights.
pub(crate) fn detach_old_root(helper: &mut Script, old: OldRoot) {
    for _ in 0..old.0 {
        helper.step(Step::new("detach the old root from").path("/").needs(Need::Mounts));
        let dot = helper.text(".");
        helper.call(nr!(SYS_umount2), [dot, flags!(MNT_DETACH)]);
    }
}

/// Returns whether an operation needs the scratch tmpfs.
fn needs_scratch(mount: &Operation) -> bool {
    matches!(mount, Operation::File { .. } | Operation::Mask(_) | Operation::Overlay(_) | Operation::Inputs(_))
}

/// Creates the scratch tmpfs. It is detached with the old root.
fn create_scratch(helper: &mut Script, operations: &[Operation]) -> Slot {
    /// The largest page size, in bytes.
    const PAGE: u64 = 1 << 16;
    let contents = operations.iter().map(|mount| match mount {
        Operation::File { contents, .. } => (contents.len() as u64).next_multiple_of(PAGE),
        _ => 0,
    });
    helper.step(Step::new("create a tmpfs for the set-up").needs(Need::Tmpfs));
    let options = tmpfs_options(0o700, contents.fold(TOP_SIZE, u64::saturating_add), TOP_INODES);
    let scratch = helper.file_system("tmpfs", &options, Attributes::SAFE);
    helper.move_mount_to(scratch, Arg::CWD, "/");
    helper.mkdirat(scratch, "empty-directory", 0);
    helper.create(scratch, "empty-file", 0);
    scratch
}

/// Changes the root by chroot(2), since pivot_root(2) cannot replace an initramfs. The initramfs stays below the new
/// root, and a process with CAP_SYS_CHROOT can go there. So no user namespace, which would grant that capability, can
/// be created inside (user_namespaces(7), `/proc/sys/user/max_user_namespaces`).
fn chroot_over_initramfs(helper: &mut Script) {
    helper.step(Step::new("deny user namespaces over an initramfs").needs(Need::ProcFiles));
    let none = helper.arena.bytes(b"0", "\"0\"");
    helper.write_file("/proc/sys/user/max_user_namespaces", none, 1);
    helper.step(Step::new("change the root over the initramfs at").path("/").needs(Need::Chroot));
    let dot = helper.text(".");
    helper.call(nr!(SYS_chroot), [dot]);
}

/// Changes the root to a directory by chroot(2), without a mount namespace.
pub(crate) fn change_root(script: &mut Script, facts: &Facts, path: &HostPath) -> Result<()> {
    let path = resolve_source(facts, path, true)?;
    script.step(Step::new("change the root to").path(&path).needs(Need::Chroot));
    // By a descriptor: chroot(2) would follow a symlink that has replaced the directory since.
    let directory = script.open_source(&path);
    script.call(nr!(SYS_fchdir), [directory.into()]);
    script.close(directory);
    let dot = script.text(".");
    script.call(nr!(SYS_chroot), [dot]);
    let slash = script.text("/");
    script.call(nr!(SYS_chdir), [slash]);
    Ok(())
}

impl Builder<'_> {
    /// Creates the mount that is the root, and attaches it over the caller's. `layers` are those of an overlay.
    fn create_root(&mut self, base: &Base, layers: Option<StagedLayers>) -> Result<()> {
        self.root = match (base, layers) {
            (Base::WritableDir(path), _) => self.writable_directory(path)?,
            (Base::Overlay(overlay), Some(layers)) => {
                if overlay.target != Path::new("/") {
                    return Err(Error::invalid(
                        format!("the overlay of a root is at {}", overlay.target.display()),
                        "use Overlay::new(\"/\"), or add it to another root with Root::with",
                    ));
                }
                self.overlay_mount(overlay, layers)
            }
            _ => {
                self.context.helper.step(Step::new("create the root").needs(Need::Tmpfs));
                let options = tmpfs_options(0o755, TOP_SIZE, TOP_INODES);
                self.context.helper.file_system("tmpfs", &options, Attributes::SAFE)
            }
        };
        self.context.helper.step(Step::new("attach the root").needs(Need::Mounts));
        self.context.helper.move_mount_to(self.root, Arg::CWD, "/");
        Ok(())
    }

    /// Copies the tree of a directory that is the root and that the program can write to.
    fn writable_directory(&mut self, path: &HostPath) -> Result<Slot> {
        let source = resolve_source(self.context.facts, path, false)?;
        if !source.is_dir() {
            let what = format!("{} cannot be the root: it is not a directory", source.display());
            return Err(Error::invalid(what, "use a directory"));
        }
        self.check_writable(&source)?;
        let tree = self.tree(&source, None, Attributes::RDONLY | Attributes::SAFE, Owner::Caller, Reach::Tree, true)?;
        self.make_writable_later(tree, Attributes::SAFE, &source)?;
        Ok(tree)
    }

    /// Binds the entries of the directory that is the base of the root.
    fn base(&mut self, base: &Base) -> Result<()> {
        let (path, hidden): (PathBuf, &[&str]) = match base {
            Base::Host => ("/".into(), &NOT_BOUND),
            Base::Dir(path) => (resolve_source(self.context.facts, path, true)?, &[]),
            Base::Empty | Base::System | Base::Inherit | Base::WritableDir(_) | Base::Overlay(_) => return Ok(()),
        };
        let listing = |error: std::io::Error| {
            let remedy = "pass a directory that the caller can read";
            Error::set_up("list the root directory", "getdents64", error, Some(remedy)).on(&path)
        };
        let mut entries: Vec<fs::DirEntry> =
            fs::read_dir(&path).and_then(Iterator::collect::<Result<_, _>>).map_err(listing)?;
        entries.retain(|entry| !hidden.iter().any(|hidden| entry.file_name() == *hidden));
        entries.sort_by_key(fs::DirEntry::file_name);
        let directory = self.open_source(&path);
        let mut trees = vec![];
        for entry in entries {
            let (name, kind) = (entry.file_name(), entry.file_type().map_err(listing)?);
            let shown = Path::new("/").join(&name);
            self.context.helper.step(Step::new("create the mount point").path(&shown));
            if kind.is_symlink() {
                let text = fs::read_link(entry.path()).map_err(listing)?;
                self.context.helper.symlinkat(text, self.root, &name);
                continue;
            }
            if kind.is_dir() {
                self.context.helper.mkdirat(self.root, &name, 0o755);
            } else {
                self.context.helper.create(self.root, &name, 0o444);
            }
            let unmap = self.unmap(&entry.path())?;
            let source = self.source(&entry.path(), |script| {
                let tree = script.open_tree(directory, &name);
                if let Some(unmap) = unmap {
                    unmap.calls(script, tree, &entry.path());
                }
                tree
            });
            if !self.has_setattr() {
                self.restrict_by_remounts(source, &entry.path(), Attributes::RDONLY | Attributes::SAFE, false)?;
            }
            self.context.helper.step(Step::new("bind").path(&shown).needs(Need::Mounts).remedies(SOURCE_HINTS));
            self.context.helper.move_mount_to(source, self.root, &name);
            self.context.helper.close(source);
            trees.push((entry.path(), shown));
        }
        self.context.helper.close(directory);
        if self.has_setattr() {
            let helper = &mut *self.context.helper;
            helper.step(Step::new("make the binds of the host read-only").needs(Need::Mounts));
            helper.mount_setattr(self.root, Change::tree(Attributes::RDONLY | Attributes::SAFE));
            helper.mount_setattr(self.root, Change::writable());
        }
        for (source, shown) in trees {
            self.cut_off(&source, &shown, Owner::Nobody)?;
        }
        Ok(())
    }

    /// Hides directories: with a mask, or with a small tmpfs if operations mount something below.
    fn hide(&mut self, directories: Vec<PathBuf>, operations: &[Operation]) -> Result<()> {
        for directory in directories {
            if operations.iter().any(|mount| mount.target().starts_with(&directory)) {
                self.tmpfs(&Tmpfs::new(directory).size(1 << 20).inodes(1 << 10))?;
            } else {
                self.mask_reachable(&Target::new(&directory)?);
            }
        }
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Bind(bind) => self.bind(bind)?,
            Operation::Inputs(inputs) => self.inputs(inputs)?,
            Operation::Tmpfs(tmpfs) => self.tmpfs(tmpfs)?,
            Operation::Proc(proc) => self.proc(proc)?,
            Operation::File { target, contents, mode, writable } => {
                self.file(&Target::new(target)?, contents, mode.checked(target)?, *writable)
            }
            Operation::CreateDir { target, mode } => {
                Target::new(target)?.directory(self.context.helper, self.root, mode.checked(target)?)
            }
            Operation::Mask(path) => self.mask(&Target::new(path)?),
            Operation::ReadOnly(path) => self.read_only(&Target::new(path)?)?,
            // These depend on the operations beside them, or on what was staged, or were replaced by others.
            Operation::Overlay(_)
            | Operation::Dev(_)
            | Operation::Protect(_)
            | Operation::Symlink { .. }
            | Operation::Gpus
            | Operation::NetworkNames
            | Operation::UserNames => {}
        }
        Ok(())
    }
}
