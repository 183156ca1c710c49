//! The root as calls: a tmpfs is made and attached over the host's root, the base and the operations are mounted in
//! it in order, and the init moves there. What is of the host's is attached read-only first and is let go at the end,
//! so that the kernel itself keeps every mount point from being created on the host.

use std::fs;
use std::path::{Path, PathBuf};

use super::bind::{SOURCE, Writable, resolve_source};
use super::target::{Kind, Target};
use super::{Base, Mount, Root};
use crate::confine::host::Host;
use crate::confine::identity::Resolved;
use crate::confine::mountinfo::Table;
use crate::confine::namespaces::{Chosen, Namespaces};
use crate::error::{Error, Result};
use crate::plan::{Arg, Attributes, Change, IdMaps, OnError, Program, Slot, Step, flags, nr};

/// What the root is lowered into, and what it depends on.
pub(crate) struct Lowering<'a> {
    pub init: &'a mut Program,
    /// The calls of a privileged host, which opens what it binds itself.
    pub host_program: &'a mut Program,
    pub id_mappings: &'a mut Vec<IdMaps>,
    pub host: &'a Host,
    pub who: &'a Resolved,
    pub chosen: &'a Chosen,
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
    /// The mounts of the host, once they were needed.
    pub table: Option<Table>,
}

const MAKE: &[(i32, &str)] = &[
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

/// The calls that make the root, and move the init there.
pub(crate) fn lower(root: &Root, l: Lowering<'_>) -> Result<()> {
    l.init.step(Step::new("keeping mounts from propagating").path("/").remedies(MAKE));
    let private = [Arg::NULL, l.init.text("/"), Arg::NULL, flags!(MS_REC | MS_PRIVATE), Arg::NULL];
    l.init.call(nr!(SYS_mount), private);
    if root.base == Base::Inherit {
        return if root.mounts.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid("Root::inherit() can have no operations", "use Root::host() or Root::dir(\"/\")"))
        };
    }
    let mut mounts = if root.base == Base::Host { l.host.default_mounts() } else { vec![] };
    mounts.extend(root.mounts.iter().cloned());
    let scratch = (!l.host.has_setattr() || mounts.iter().any(needs_scratch)).then(|| scratch(l.init));
    let top = Slot(0);
    let mut builder = Builder { l, root: top, scratch, names: 0, writable: vec![], table: None };
    let overlays = builder.stage_overlays(&mounts)?;
    builder.make_root();
    builder.base(&root.base)?;
    let mut overlays = overlays.into_iter();
    for mount in &mounts {
        match mount {
            Mount::Overlay(overlay) => builder.overlay(overlay, overlays.next())?,
            other => builder.mount(other)?,
        }
    }
    builder.let_go();
    if !root.writable {
        builder.l.init.step(Step::new("making the root read-only"));
        builder.set_top(builder.root, Attributes::RDONLY | Attributes::SAFE);
    }
    let may_chroot = builder.l.chosen.all().contains(Namespaces::USER);
    pivot(builder.l.init, builder.root, if scratch.is_some() { 2 } else { 1 }, may_chroot);
    Ok(())
}

fn needs_scratch(mount: &Mount) -> bool {
    matches!(mount, Mount::File { .. } | Mount::Mask(_) | Mount::Overlay(_))
}

/// A tmpfs that goes when the old root goes.
fn scratch(init: &mut Program) -> Slot {
    init.step(Step::new("making a tmpfs for the set-up").remedies(MAKE));
    let scratch = init.file_system("tmpfs", &[("mode", Some("0700".into()))], Attributes::SAFE);
    init.move_mount_to(scratch, Arg::CWD, "/");
    init.mkdirat(scratch, "nothing", 0);
    init.create(scratch, "nobody", 0);
    scratch
}

/// Moves the init to the new root, and takes the old one away.
///
/// `covered` is how many mounts lie below the new root: the host's root, and what the set-up has attached over it.
fn pivot(init: &mut Program, root: Slot, covered: usize, may_chroot: bool) {
    init.step(Step::new("changing the root").path("/").remedies(&[(
        libc::EINVAL,
        "the host's root is an initramfs, which can't be pivoted from, and without a user namespace it is not safe to \
         leave it below: add Namespaces::USER, or let the host move to another root (switch_root)",
    )]));
    init.call(nr!(SYS_fchdir), [root.into()]);
    let dot = init.text(".");
    let (cant_pivot, done) = (init.label(), init.label());
    let pivoted = init.call(nr!(SYS_pivot_root), [dot, dot]);
    if may_chroot {
        pivoted.on_error(OnError::GotoIf([libc::EINVAL; 2], cant_pivot));
    }
    // They lie over the new root now, the one that was attached last on top.
    for _ in 0..covered {
        init.call(nr!(SYS_umount2), [dot, flags!(MNT_DETACH)]);
    }
    if may_chroot {
        init.jump(done);
        init.bind(cant_pivot);
        chroot_over_initramfs(init);
        init.bind(done);
    }
    let slash = init.text("/");
    init.call(nr!(SYS_chdir), [slash]);
}

/// An initramfs can't be pivoted from, and stays below the new root. Whoever has CAP_SYS_CHROOT can go there, so nobody may
/// make a user namespace within, which would give it (user_namespaces(7), `/proc/sys/user/max_user_namespaces`).
fn chroot_over_initramfs(init: &mut Program) {
    init.step(Step::new("forbidding user namespaces within, over an initramfs"));
    let limit = init.openat(Arg::CWD, "/proc/sys/user/max_user_namespaces", flags!(O_WRONLY | O_CLOEXEC), 0);
    let none = init.arena.bytes(b"0", "\"0\"");
    init.write(limit, none, 1);
    init.close(limit);
    init.step(Step::new("changing the root over an initramfs").path("/").remedies(MAKE));
    let dot = init.text(".");
    init.call(nr!(SYS_chroot), [dot]);
}

/// Changes the root where there is no mount namespace.
pub(crate) fn change_root(program: &mut Program, path: &Path) -> Result<()> {
    let path = resolve_source(path)?;
    program.step(Step::new("changing the root").path(&path).remedies(&[(
        libc::EPERM,
        "chroot takes root, or a user namespace: run as root, or add Namespaces::USER or Namespaces::MOUNT",
    )]));
    let text = program.text(&path);
    program.call(nr!(SYS_chroot), [text]);
    let slash = program.text("/");
    program.call(nr!(SYS_chdir), [slash]);
    Ok(())
}

impl Builder<'_> {
    fn make_root(&mut self) {
        let init = &mut *self.l.init;
        init.step(Step::new("making the root").remedies(MAKE));
        self.root = init.file_system("tmpfs", &[("mode", Some("0755".into()))], Attributes::SAFE);
        init.move_mount_to(self.root, Arg::CWD, "/");
    }

    /// The entries of the directory that the root is made from.
    fn base(&mut self, base: &Base) -> Result<()> {
        let (path, hidden): (PathBuf, &[&str]) = match base {
            Base::Host => ("/".into(), &["proc", "sys", "dev", "tmp", "run", "home", "root", "lost+found"]),
            Base::Dir(path) => (resolve_source(path)?, &[]),
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
        for entry in entries {
            let (name, kind) = (entry.file_name(), entry.file_type().map_err(listing)?);
            let shown = Path::new("/").join(&name);
            self.l.init.step(Step::new("making the place of a top-level entry").path(&shown));
            if kind.is_symlink() {
                let text = fs::read_link(entry.path()).map_err(listing)?;
                self.l.init.symlinkat(text, self.root, &name);
                continue;
            }
            if kind.is_dir() {
                self.l.init.mkdirat(self.root, &name, 0o755);
            } else {
                self.l.init.create(self.root, &name, 0o444);
            }
            let source = self.source(&entry.path(), |program| program.open_tree(directory, &name));
            if !self.has_setattr() {
                self.restrict_by_remounts(source, &entry.path(), Attributes::RDONLY | Attributes::SAFE, false)?;
            }
            self.l.init.step(Step::new("binding").path(&shown).remedies(SOURCE));
            self.l.init.move_mount_to(source, self.root, &name);
            self.l.init.close(source);
        }
        if self.has_setattr() {
            let init = &mut *self.l.init;
            init.step(Step::new("making everything of the host's read-only").remedies(MAKE));
            init.mount_setattr(self.root, Change::tree(Attributes::RDONLY | Attributes::SAFE));
            init.mount_setattr(self.root, Change::writable());
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
            Mount::Symlink { text, link } => Target::new(link)?.symlink(self.l.init, self.root, text),
            Mount::Dir { target, mode } => Target::new(target)?.directory(self.l.init, self.root, *mode),
            Mount::Mask(path) => self.mask(&Target::new(path)?),
            Mount::ReadOnly(path) => self.read_only(&Target::new(path)?)?,
            Mount::Overlay(_) => {}
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, mount: Slot, target: &Target, kind: Kind) {
        let place = target.mount_point(self.l.init, self.root, kind);
        target.step(self.l.init, "mounting");
        self.l.init.move_mount(mount, place);
        self.l.init.close(place);
    }

    /// The same for a file system of the kernel's, which no symlink may lead elsewhere.
    pub(super) fn attach_own(&mut self, mount: Slot, target: &Target) {
        let place = target.own_mount_point(self.l.init, self.root);
        target.step(self.l.init, "mounting");
        self.l.init.move_mount(mount, place);
        self.l.init.close(place);
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
            Kind::Directory => self.l.init.mkdirat(scratch, &name, 0o755),
            Kind::File => self.l.init.create(scratch, &name, 0o600),
        }
        self.l.init.move_mount_to(mount, scratch, &name);
        name
    }

    pub(super) fn scratch(&self) -> Slot {
        self.scratch.unwrap_or(Slot(0))
    }
}
