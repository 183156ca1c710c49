//! The root as calls: a tmpfs is made and attached over the host's root, the base and the operations are mounted in
//! it in order, and the init moves there. What is of the host's is attached read-only first and is let go at the end,
//! so that the kernel itself keeps every mount point from being created on the host.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::target::{Kind, Target, kind_of};
use super::{Base, Bind, Mount, Owner, Proc, Root, Tmpfs};
use crate::confine::host::Host;
use crate::confine::identity::Resolved;
use crate::confine::mountinfo::{HostMount, Table};
use crate::confine::namespaces::{self, Chosen, Namespaces};
use crate::error::{Error, Result};
use crate::plan::{Arg, Attributes, Change, IdMaps, Input, Program, Slot, Step, flags, nr};

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
    root: Slot,
    /// A tmpfs of the set-up alone: files that are bound, and layers of overlays.
    scratch: Option<Slot>,
    names: usize,
    /// Mounts that are read-only until everything else stands.
    writable: Vec<Writable>,
    /// The mounts of the host, once they were needed.
    pub table: Option<Table>,
}

/// A mount to be let go, with those of its submounts that the host has writable.
struct Writable {
    mount: Slot,
    /// What it will have, beside the attributes that each mount has on the host.
    attributes: Attributes,
    submounts: Vec<HostMount>,
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

const SOURCE: &[(i32, &str)] = &[
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
        "its file system has no idmapped mounts (ext4 and xfs have them since Linux 5.12, btrfs 5.15, overlay 5.19, tmpfs 6.3): bind it read-only, use another file system, or say Identity::caller() to run as the host's own user",
    ),
    (
        libc::EPERM,
        "it is an idmapped mount already, or its file system belongs to another user namespace: bind it read-only, or say Identity::caller()",
    ),
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
    let old_interface = l.host.kernel < (5, 12);
    let scratch = (old_interface || mounts.iter().any(needs_scratch)).then(|| scratch(l.init));
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
    pivot(builder.l.init, builder.root, if scratch.is_some() { 2 } else { 1 });
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
fn pivot(init: &mut Program, root: Slot, covered: usize) {
    init.step(Step::new("changing the root").path("/").remedies(MAKE));
    init.call(nr!(SYS_fchdir), [root.into()]);
    let dot = init.text(".");
    let (cant_pivot, done) = (init.label(), init.label());
    init.call(nr!(SYS_pivot_root), [dot, dot]).or_goto(cant_pivot);
    // They lie over the new root now, the one that was attached last on top.
    for _ in 0..covered {
        init.call(nr!(SYS_umount2), [dot, flags!(MNT_DETACH)]);
    }
    init.jump(done);
    // An initramfs can't be pivoted from: it stays below, where nobody without capabilities comes to.
    init.bind(cant_pivot);
    init.call(nr!(SYS_chroot), [dot]);
    init.bind(done);
    let slash = init.text("/");
    init.call(nr!(SYS_chdir), [slash]);
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

/// What a path of the host is, once every symlink in it is followed.
pub(super) fn resolve_source(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| Error::SetUp {
        step: "looking for what is to be mounted:".into(),
        path: Some(path.to_owned()),
        call: "realpath",
        errno: (&error).into(),
        remedy: Some("it must exist on the host, and the host's user must be able to reach it".into()),
    })
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|info| info.flags().contains(FsFlags::ST_RDONLY))
}

/// A limit of a tmpfs. The kernel takes 0 for none.
pub(super) fn limit(
    option: &'static str,
    what: &str,
    value: Option<u64>,
) -> Result<Option<(&'static str, Option<String>)>> {
    match value {
        Some(0) => Err(Error::invalid(
            format!("a tmpfs can't be limited to 0 {what}: the kernel takes that for no limit"),
            "limit it to at least 1, or make the directory read-only",
        )),
        value => Ok(value.map(|value| (option, Some(value.to_string())))),
    }
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
        let listing = |error: std::io::Error| Error::SetUp {
            step: "listing the root directory".into(),
            path: Some(path.clone()),
            call: "getdents64",
            errno: (&error).into(),
            remedy: Some("it must be a directory that the host's user can read".into()),
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

    /// The program that opens what is of the host's: the host's own, if it may make mounts, since the init may be a
    /// user who can't reach it.
    fn opener(&mut self) -> &mut Program {
        if self.l.host.privileged { self.l.host_program } else { self.l.init }
    }

    fn open_source(&mut self, path: &Path) -> Slot {
        let opener = self.opener();
        opener.step(Step::new("opening").path(path).remedies(SOURCE));
        opener.open_source(path)
    }

    /// Runs calls that open something of the host's; the slot in the init that holds it.
    pub(super) fn source(&mut self, path: &Path, open: impl FnOnce(&mut Program) -> Slot) -> Slot {
        let opener = self.opener();
        opener.step(Step::new("opening the source of a bind").path(path).remedies(SOURCE));
        let slot = open(opener);
        if self.l.host.privileged { self.l.init.input(Input::FromHost(slot)) } else { slot }
    }

    /// A copy of a tree of the host's, with attributes, as its owner would see it. One that will be `writable` must show
    /// the right owner, or it is an error.
    pub(super) fn tree(&mut self, path: &Path, set: Attributes, owner: Owner, writable: bool) -> Result<Slot> {
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
        let tree = self.source(path, |program| {
            let source = program.open_source(path);
            let tree = program.open_tree(source, "");
            if !privileged {
                program.close(source);
            }
            if let Some(mapping) = mapping {
                program.step(Step::new("showing the owner's files as the program's").path(path).remedies(IDMAP));
                let namespace = program.input(Input::IdMapping(mapping));
                let added = program.mount_idmap(tree, namespace);
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
        let maps = self.l.who.id_mapping(ids)?;
        let known = self.l.id_mappings.iter().position(|known| *known == maps);
        let index = known.unwrap_or_else(|| {
            self.l.id_mappings.push(maps);
            self.l.id_mappings.len() - 1
        });
        Some(index as u16)
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

    fn bind(&mut self, bind: &Bind) -> Result<()> {
        let source = resolve_source(&bind.source)?;
        if bind.writable && is_read_only(&source) {
            return Err(Error::invalid(
                format!(
                    "{} can't be bound writable: the mount that it lies in is read-only on the host",
                    source.display()
                ),
                "bind it read-only, or an overlay of it",
            ));
        }
        let mut attributes = Attributes::RDONLY | Attributes::NOSUID;
        attributes.set(Attributes::NODEV, !bind.devices);
        attributes.set(Attributes::NOEXEC, bind.noexec);
        let tree = self.tree(&source, attributes, bind.owner, bind.writable)?;
        self.attach(tree, &Target::new(&bind.target)?, kind_of(&source));
        if bind.writable {
            self.writable_later(tree, attributes - Attributes::RDONLY, &source)?;
        }
        Ok(())
    }

    /// Notes a tree of the host's that the program may write to in the end.
    fn writable_later(&mut self, mount: Slot, attributes: Attributes, source: &Path) -> Result<()> {
        let mut submounts = self.submounts(source)?;
        submounts.retain(|mount| !mount.is_read_only());
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

    fn let_go(&mut self) {
        for Writable { mount, attributes, submounts } in std::mem::take(&mut self.writable) {
            self.l.init.step(
                Step::new("letting the program write to a bind")
                    .remedies(&[(libc::EPERM, "the mount is read-only on the host, or locked: bind it read-only")]),
            );
            self.set_top(mount, attributes);
            for below in submounts {
                let submount = self.l.init.open_beneath(mount, below.point.as_os_str()).store("submount");
                self.set_top(submount, attributes | below.attributes);
            }
        }
    }

    fn tmpfs(&mut self, tmpfs: &Tmpfs) -> Result<()> {
        let target = Target::new(&tmpfs.target)?;
        let mut options = vec![("mode", Some(format!("{:o}", tmpfs.mode)))];
        options.extend(limit("size", "bytes", tmpfs.size)?);
        options.extend(limit("nr_inodes", "inodes", tmpfs.inodes)?);
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::NOEXEC, tmpfs.noexec);
        target.step(self.l.init, "making a tmpfs for");
        let mount = self.l.init.file_system("tmpfs", &options, attributes);
        self.attach(mount, &target, Kind::Directory);
        self.l.init.close(mount);
        Ok(())
    }

    fn proc(&mut self, proc: &Proc) -> Result<()> {
        let target = Target::new(&proc.target)?;
        let safe = Attributes::SAFE | Attributes::NOEXEC;
        if !self.l.chosen.all().contains(Namespaces::PID) {
            if proc.hidepid.is_some() || proc.subset_pid {
                return Err(Error::invalid(
                    "the options of /proc need one of the sandbox's own",
                    "add Namespaces::PID, or leave hidepid and subset_pid out",
                ));
            }
            let tree = self.tree(Path::new("/proc"), safe | Attributes::RDONLY, Owner::Nobody, false)?;
            self.attach_own(tree, &target);
            return Ok(());
        }
        let mut options = vec![];
        options.extend(proc.hidepid.map(|hidepid| ("hidepid", Some((hidepid as u8).to_string()))));
        options.extend(proc.subset_pid.then(|| ("subset", Some("pid".into()))));
        self.l.init.step(Step::new("mounting a proc file system on").path(&proc.target).remedies(&[
            (
                libc::EPERM,
                "the /proc of this container is partly masked, so the kernel refuses a new one: run the container \
                 with an unmasked /proc, or leave Namespaces::PID out and share the container's processes",
            ),
            (libc::EINVAL, "the kernel does not know an option (hidepid by name and subset since Linux 5.8)"),
        ]));
        let mount =
            namespaces::in_joined_pids(self.l.chosen, self.l.init, |init| init.file_system("proc", &options, safe));
        self.attach_own(mount, &target);
        self.l.init.close(mount);
        Ok(())
    }

    /// A name in the scratch tmpfs.
    pub(super) fn name(&mut self) -> String {
        self.names += 1;
        self.names.to_string()
    }

    pub(super) fn scratch(&self) -> Slot {
        self.scratch.unwrap_or(Slot(0))
    }

    fn file(&mut self, target: &Target, contents: &[u8], mode: u32) {
        let (name, scratch) = (self.name(), self.scratch());
        let init = &mut *self.l.init;
        target.step(init, "writing the contents of");
        let file = init.openat(scratch, &name, flags!(O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC), mode);
        let bytes = init.arena.bytes(contents, format!("<{} bytes>", contents.len()));
        init.write(file, bytes, contents.len());
        init.close(file);
        let tree = init.open_tree(scratch, &name);
        self.restrict_own(tree, Kind::File, Attributes::RDONLY | Attributes::SAFE);
        self.attach(tree, target, Kind::File);
        self.l.init.close(tree);
    }

    fn mask(&mut self, target: &Target) {
        let (file, absent) = (self.l.init.label(), self.l.init.label());
        target.step(self.l.init, "masking");
        let place = target.open_or(self.l.init, self.root, absent);
        let directory = self.nothing("nothing", Kind::Directory);
        self.l.init.move_mount(directory, place).or_goto(file);
        self.l.init.jump(absent);
        self.l.init.bind(file);
        let nobody = self.nothing("nobody", Kind::File);
        self.l.init.move_mount(nobody, place);
        self.l.init.bind(absent);
    }

    /// A mount of something in the scratch tmpfs that nobody can open.
    fn nothing(&mut self, name: &str, kind: Kind) -> Slot {
        let tree = self.l.init.open_tree(self.scratch(), name);
        self.restrict_own(tree, kind, Attributes::RDONLY | Attributes::SAFE | Attributes::NOEXEC);
        tree
    }

    fn read_only(&mut self, target: &Target) -> Result<()> {
        if !self.has_setattr() {
            return Err(Error::invalid(
                "Root::read_only needs mount_setattr(2), to be recursive",
                "use Linux 5.12 or later, or bind the parts read-only",
            ));
        }
        target.step(self.l.init, "making read-only");
        let place = target.open(self.l.init, self.root);
        let tree = self.l.init.open_tree(place, "");
        self.l.init.mount_setattr(tree, Change::tree(Attributes::RDONLY));
        self.l.init.move_mount(tree, place);
        self.l.init.close(place);
        self.l.init.close(tree);
        Ok(())
    }
}
