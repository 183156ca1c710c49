//! The root as calls: a tmpfs is made and attached over the host's root, the base and the operations are mounted in
//! it in order, and the helper moves there. What is of the host's is attached read-only first and is let go at the end,
//! so that the kernel itself keeps every mount point from being created on the host.

use std::fs;
use std::path::{Path, PathBuf};

use super::bind::{SOURCE, Writable, resolve_source};
use super::cgroups;
use super::endpoints::Endpoints;
use super::own::{open_proc, tmpfs_options};
use super::protect;
use super::target::{Kind, Target};
use super::{Base, Mount, Owner, Root, Tmpfs};
use crate::confine::host::{Host, LEFT_OUT};
use crate::confine::identity::Resolved;
use crate::confine::namespaces::{Chosen, Namespaces};
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::outcome::Layer;
use crate::plan::init::Init;
use crate::plan::{Arg, Attributes, Change, HostId, IdMaps, Placeholder, Program, Slot, Step, flags, nr};

/// What the root is lowered into, and what it depends on.
pub(crate) struct Lowering<'a> {
    pub helper: &'a mut Program,
    /// The calls of a privileged host, which opens what it binds itself.
    pub host_program: &'a mut Program,
    pub id_mappings: &'a mut Vec<IdMaps>,
    pub host: &'a Host,
    pub who: &'a Resolved,
    pub chosen: &'a Chosen,
    pub procs: &'a mut Procs,
    pub placeholders: &'a mut Vec<Placeholder>,
    /// How many terminals each `/dev` has room for.
    pub terminals: u32,
    pub endpoints: &'a mut Endpoints,
}

/// The proc file systems that the init makes.
pub(crate) struct Procs {
    /// The init, as long as it was not waited for.
    pub init: Option<Init>,
    pub made: std::vec::IntoIter<Slot>,
}

impl Procs {
    /// Waits until they are made.
    pub fn wait(&mut self, helper: &mut Program) {
        if let Some(init) = self.init.take() {
            init.wait(helper);
        }
    }
}

/// A root under construction.
pub(super) struct Builder<'a> {
    pub l: Lowering<'a>,
    pub root: Slot,
    /// A tmpfs of the set-up alone: files that are bound, and layers of overlays.
    scratch: Option<Slot>,
    names: usize,
    /// Mounts that are read-only until everything else stands.
    pub writable: Vec<Writable>,
}

/// What the root itself holds: mount points, and what a program writes there if it may.
const TOP_SIZE: u64 = 64 << 20;
const TOP_INODES: u64 = 1 << 16;

pub(super) const MAKE: &[(i32, &str)] = &[
    (
        libc::EPERM,
        "this host forbids mounts in user namespaces (AppArmor on Ubuntu 24.04, SELinux, a container's seccomp profile): allow them for this program, or run as root",
    ),
    (
        libc::ENOSYS,
        "the kernel, or the seccomp profile of a container, lacks a call of the mount interface (Linux 5.12)",
    ),
    (libc::ENODEV, "the kernel has no such file system"),
];

/// What is mounted in the root, in order.
pub(crate) fn mounts(root: &Root, host: &Host, who: &Resolved) -> Vec<Mount> {
    let is_caller = who.host_uid == HostId::Id(host.ids.0);
    let mut mounts = if root.base == Base::Host { host.default_mounts(is_caller) } else { vec![] };
    // A tmpfs that is to be there instead of a default one.
    let replaces = |mount: &Mount, default: &Mount| match (mount, default) {
        (Mount::Tmpfs(mount), Mount::Tmpfs(default)) => mount.target == default.target,
        _ => false,
    };
    mounts.retain(|default| !root.mounts.iter().any(|mount| replaces(mount, default)));
    mounts.extend(root.mounts.iter().cloned());
    mounts
}

/// Refuses terminals that no `/dev` has a place for.
pub(crate) fn check_terminals(root: &Root, mounts: &[Mount]) -> Result<()> {
    if root.terminals > 0 && !mounts.iter().any(|mount| matches!(mount, Mount::Dev(_))) {
        return Err(Error::invalid(
            "the sandbox has no /dev of its own, in which the requested terminals would be",
            "add Root::dev(\"/dev\"), or leave Root::terminals out",
        ));
    }
    Ok(())
}

/// The proc file systems among the mounts, made by a process of the pid namespace that they show.
pub(crate) fn open_procs(mounts: &[Mount], init: &mut Program) -> Vec<Slot> {
    let procs = mounts.iter().filter_map(|mount| if let Mount::Proc(proc) = mount { Some(proc) } else { None });
    procs.map(|proc| open_proc(init, proc)).collect()
}

fn keep_from_propagating(helper: &mut Program) {
    helper.step(Step::new("keeping mounts from propagating").path("/").remedies(MAKE));
    let private = [Arg::NULL, helper.text("/"), Arg::NULL, flags!(MS_REC | MS_PRIVATE), Arg::NULL];
    helper.call(nr!(SYS_mount), private);
}

/// The calls that make the root, and move the helper there.
pub(crate) fn lower(root: &Root, mounts: &[Mount], l: Lowering<'_>) -> Result<Covering> {
    // It is what makes a mount namespace one, whatever the root is.
    l.helper.within(Layer::Namespaces, keep_from_propagating);
    if root.base == Base::Inherit {
        if !mounts.is_empty() {
            return Err(Error::invalid(
                "Root::inherit() can have no operations",
                "use Root::host() or Root::dir(\"/\")",
            ));
        }
        cgroups::make_read_only(l.helper, l.host.has_setattr())?;
        return Ok(Covering::default());
    }
    let homes = if root.base == Base::Host { l.host.hidden_homes()? } else { vec![] };
    let needs_scratch = !l.host.has_setattr()
        || !homes.is_empty()
        || l.endpoints.may_mask(root, mounts, l.host)?
        || mounts.iter().any(needs_scratch);
    let scratch = needs_scratch.then(|| scratch(l.helper, mounts));
    let top = Slot(0);
    let mut builder = Builder { l, root: top, scratch, names: 0, writable: vec![] };
    let (protected, placeholders) = protect::resolve(builder.l.host, mounts)?;
    builder.l.placeholders.extend(placeholders);
    let overlays = builder.stage_overlays(mounts)?;
    builder.make_root();
    builder.base(&root.base)?;
    builder.hide(homes, mounts)?;
    let mut overlays = overlays.into_iter();
    for mount in mounts {
        if mount.covers() {
            builder.l.endpoints.cover(mount.target());
        }
        match mount {
            Mount::Overlay(overlay) => builder.overlay(overlay, overlays.next())?,
            other => builder.mount(other)?,
        }
    }
    builder.let_go();
    builder.protect(&protected)?;
    if !root.writable {
        builder.l.helper.step(Step::new("making the root read-only"));
        builder.set_top(builder.root, Attributes::RDONLY | Attributes::SAFE);
    }
    builder.l.helper.step(Step::new("changing the root").path("/").remedies(PIVOT));
    builder.l.helper.call(nr!(SYS_fchdir), [builder.root.into()]);
    if builder.l.chosen.all().contains(Namespaces::USER) && builder.l.host.root_is_initramfs()? {
        chroot_over_initramfs(builder.l.helper);
        return Ok(Covering::default());
    }
    let dot = builder.l.helper.text(".");
    builder.l.helper.call(nr!(SYS_pivot_root), [dot, dot]);
    Ok(Covering(if scratch.is_some() { 2 } else { 1 }))
}

const PIVOT: &[(i32, &str)] = &[(
    libc::EINVAL,
    "the host's root is an initramfs, which can't be pivoted from, and without a user namespace it is not safe to leave it \
     below: add Namespaces::USER, or let the host move to another root (switch_root)",
)];

/// How many mounts lie over the new root, which is the working directory: the host's root, and what the set-up has attached
/// over it.
#[derive(Default)]
#[must_use]
pub(crate) struct Covering(usize);

/// Takes the old root away. It takes the kernel its time.
pub(crate) fn take_away(helper: &mut Program, old: Covering) {
    for _ in 0..old.0 {
        helper.step(Step::new("taking the old root away").path("/"));
        let dot = helper.text(".");
        helper.call(nr!(SYS_umount2), [dot, flags!(MNT_DETACH)]);
    }
}

fn needs_scratch(mount: &Mount) -> bool {
    matches!(mount, Mount::File { .. } | Mount::Mask(_) | Mount::Overlay(_))
}

/// A tmpfs that goes when the old root goes.
fn scratch(helper: &mut Program, mounts: &[Mount]) -> Slot {
    const PAGE: u64 = 1 << 16;
    let contents = mounts.iter().map(|mount| match mount {
        Mount::File { contents, .. } => (contents.len() as u64).next_multiple_of(PAGE),
        _ => 0,
    });
    helper.step(Step::new("making a tmpfs for the set-up").remedies(MAKE));
    let options = tmpfs_options(0o700, contents.fold(TOP_SIZE, u64::saturating_add), TOP_INODES);
    let scratch = helper.file_system("tmpfs", &options, Attributes::SAFE);
    helper.move_mount_to(scratch, Arg::CWD, "/");
    helper.mkdirat(scratch, "nothing", 0);
    helper.create(scratch, "nobody", 0);
    scratch
}

/// An initramfs can't be pivoted from, and stays below the new root. Whoever has CAP_SYS_CHROOT can go there, so nobody may
/// make a user namespace within, which would give it (user_namespaces(7), `/proc/sys/user/max_user_namespaces`).
fn chroot_over_initramfs(helper: &mut Program) {
    helper.step(Step::new("forbidding user namespaces within, over an initramfs"));
    let none = helper.arena.bytes(b"0", "\"0\"");
    helper.write_file("/proc/sys/user/max_user_namespaces", none, 1);
    helper.step(Step::new("changing the root over an initramfs").path("/").remedies(MAKE));
    let dot = helper.text(".");
    helper.call(nr!(SYS_chroot), [dot]);
}

/// Changes the root where there is no mount namespace.
pub(crate) fn change_root(program: &mut Program, host: &Host, path: &HostPath) -> Result<()> {
    let path = resolve_source(host, path, true)?;
    program.step(Step::new("changing the root").path(&path).remedies(&[(
        libc::EPERM,
        "chroot takes root, or a user namespace: run as root, or add Namespaces::USER or Namespaces::MOUNT",
    )]));
    // By a descriptor: chroot(2) would follow a symlink that has appeared there since.
    let directory = program.open_source(&path);
    program.call(nr!(SYS_fchdir), [directory.into()]);
    program.close(directory);
    let dot = program.text(".");
    program.call(nr!(SYS_chroot), [dot]);
    let slash = program.text("/");
    program.call(nr!(SYS_chdir), [slash]);
    Ok(())
}

impl Builder<'_> {
    fn make_root(&mut self) {
        let helper = &mut *self.l.helper;
        helper.step(Step::new("making the root").remedies(MAKE));
        self.root = helper.file_system("tmpfs", &tmpfs_options(0o755, TOP_SIZE, TOP_INODES), Attributes::SAFE);
        helper.move_mount_to(self.root, Arg::CWD, "/");
    }

    /// The entries of the directory that the root is made from.
    fn base(&mut self, base: &Base) -> Result<()> {
        let (path, hidden): (PathBuf, &[&str]) = match base {
            Base::Host => ("/".into(), &LEFT_OUT),
            Base::Dir(path) => (resolve_source(self.l.host, path, true)?, &[]),
            Base::Empty | Base::Inherit => return Ok(()),
        };
        let listing = |error: std::io::Error| {
            let remedy = "it must be a directory that the host's user can read";
            Error::set_up("listing the root directory", "getdents64", error, Some(remedy)).on(&path)
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
            self.l.helper.step(Step::new("making the place of a top-level entry").path(&shown));
            if kind.is_symlink() {
                let text = fs::read_link(entry.path()).map_err(listing)?;
                self.l.helper.symlinkat(text, self.root, &name);
                continue;
            }
            if kind.is_dir() {
                self.l.helper.mkdirat(self.root, &name, 0o755);
            } else {
                self.l.helper.create(self.root, &name, 0o444);
            }
            let unmap = if kind.is_dir() { self.unmap(&entry.path())? } else { None };
            let source = self.source(&entry.path(), |program| {
                let tree = program.open_tree(directory, &name);
                if let Some(unmap) = unmap {
                    unmap.calls(program, tree, &entry.path());
                }
                tree
            });
            if !self.has_setattr() {
                self.restrict_by_remounts(source, &entry.path(), Attributes::RDONLY | Attributes::SAFE, false)?;
            }
            self.l.helper.step(Step::new("binding").path(&shown).remedies(SOURCE));
            self.l.helper.move_mount_to(source, self.root, &name);
            self.close_source(source);
            if kind.is_dir() {
                trees.push((entry.path(), shown));
            }
        }
        self.close_source(directory);
        if self.has_setattr() {
            let helper = &mut *self.l.helper;
            helper.step(Step::new("making everything of the host's read-only").remedies(MAKE));
            helper.mount_setattr(self.root, Change::tree(Attributes::RDONLY | Attributes::SAFE));
            helper.mount_setattr(self.root, Change::writable());
        }
        for (source, shown) in trees {
            self.cut_off(&source, &shown, Owner::Nobody)?;
        }
        Ok(())
    }

    /// Hides directories. One in which mount points follow can hold them.
    fn hide(&mut self, directories: Vec<PathBuf>, mounts: &[Mount]) -> Result<()> {
        for directory in directories {
            if mounts.iter().any(|mount| mount.target().starts_with(&directory)) {
                self.tmpfs(&Tmpfs::new(directory).size(1 << 20).inodes(1 << 10))?;
            } else {
                self.mask_reachable(&Target::new(&directory)?);
            }
        }
        Ok(())
    }

    fn mount(&mut self, mount: &Mount) -> Result<()> {
        match mount {
            Mount::Bind(bind) => self.bind(bind)?,
            Mount::Tmpfs(tmpfs) => self.tmpfs(tmpfs)?,
            Mount::Proc(proc) => self.proc(proc)?,
            Mount::Dev(target) => self.devices(&Target::new(target)?),
            Mount::File { target, contents, mode } => self.file(&Target::new(target)?, contents, *mode),
            Mount::Symlink { text, link } => Target::new(link)?.symlink(self.l.helper, self.root, text),
            Mount::Dir { target, mode } => Target::new(target)?.directory(self.l.helper, self.root, *mode),
            Mount::Mask(path) => self.mask(&Target::new(path)?),
            Mount::ReadOnly(path) => self.read_only(&Target::new(path)?)?,
            Mount::Overlay(_) | Mount::Protect(_) => {}
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, mount: Slot, target: &Target, kind: Kind) {
        let place = target.mount_point(self.l.helper, self.root, kind);
        target.step(self.l.helper, "mounting");
        self.l.helper.move_mount(mount, place);
        self.l.helper.close(place);
    }

    /// The same for a file system of the kernel's, which no symlink may lead elsewhere.
    pub(super) fn attach_own(&mut self, mount: Slot, target: &Target) {
        let place = target.own_mount_point(self.l.helper, self.root);
        target.step(self.l.helper, "mounting");
        self.l.helper.move_mount(mount, place);
        self.l.helper.close(place);
    }

    /// A name in the scratch tmpfs.
    pub(super) fn name(&mut self) -> String {
        self.names += 1;
        self.names.to_string()
    }

    /// Attaches a mount under a new name in the scratch tmpfs.
    pub(super) fn put(&mut self, mount: Slot, kind: Kind) -> String {
        let (name, scratch) = (self.name(), self.scratch());
        match kind {
            Kind::Directory => self.l.helper.mkdirat(scratch, &name, 0o755),
            Kind::File => self.l.helper.create(scratch, &name, 0o600),
        }
        self.l.helper.move_mount_to(mount, scratch, &name);
        name
    }

    pub(super) fn scratch(&self) -> Slot {
        self.scratch.unwrap_or(Slot(0))
    }
}
