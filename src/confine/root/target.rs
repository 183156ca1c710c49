//! Places in the sandbox's tree: resolved beneath its root, and created where the file system is its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::plan::{Label, OnError, Program, Slot, Step};

/// What a mount point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// What kind of mount point a path of the host takes.
pub(super) fn kind_of(path: &Path) -> Kind {
    if path.is_dir() { Kind::Directory } else { Kind::File }
}

/// A path in the sandbox, absolute and without `.` and `..`.
#[derive(Clone, Debug)]
pub(super) struct Target {
    shown: PathBuf,
    parts: Vec<OsString>,
}

/// What a person does when a place can't be created.
const CREATE: &[(i32, &str)] = &[
    (
        libc::EROFS,
        "the place does not exist and would have to be created on the host's file system, where nothing is created: \
         create it there yourself, or choose a place directly below /, below a tmpfs, or below an overlay",
    ),
    (libc::ENOENT, "it does not exist inside the sandbox: create it, bind it before, or leave it out"),
    (libc::EEXIST, "there is a symlink that leads nowhere, or something that is not of this kind"),
    (libc::ENOTDIR, "something above it is not a directory"),
    (libc::EINVAL, "a directory can't be mounted over a file, nor a file over a directory"),
    (libc::ELOOP, "it is, or leads through, a symlink that is not followed here"),
    (libc::EACCES, "a directory above it can't be entered by the sandbox's user"),
];

impl Target {
    pub fn new(path: &Path) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::invalid(
                format!("{path:?} is no place in a sandbox: {why}"),
                "give an absolute path without `..` and zero bytes",
            ))
        };
        if !path.is_absolute() {
            return refuse("it is relative");
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return refuse("it contains a zero byte");
        }
        let mut parts = vec![];
        for component in path.components() {
            match component {
                Component::Normal(part) => parts.push(part.to_owned()),
                Component::ParentDir => return refuse("it contains `..`"),
                _ => {}
            }
        }
        if parts.is_empty() {
            return refuse("it is the root itself, which Root::dir, Root::empty and Root::host decide");
        }
        Ok(Self { shown: path.to_owned(), parts })
    }

    /// The path relative to the root, of the first `count` parts.
    fn relative(&self, count: usize) -> OsString {
        self.parts[..count].join(OsStr::new("/"))
    }

    fn whole(&self) -> OsString {
        self.relative(self.parts.len())
    }

    fn name(&self) -> &OsStr {
        &self.parts[self.parts.len() - 1]
    }

    /// Opens what is there, and fails if nothing is.
    pub fn open(&self, helper: &mut Program, root: Slot) -> Slot {
        helper.open_target(root, &self.whole()).store("target")
    }

    /// Opens what is there, and goes on elsewhere if that fails with one of two errors.
    pub fn open_or(&self, helper: &mut Program, root: Slot, errors: [i32; 2], absent: Label) -> Slot {
        helper.open_target(root, &self.whole()).on_error(OnError::goto_if(errors, absent)).store("target")
    }

    /// Opens the place of a mount, which is created if it is missing.
    pub fn mount_point(&self, helper: &mut Program, root: Slot, kind: Kind) -> Slot {
        self.step(helper, "opening the mount point");
        let done = helper.label();
        let target = helper.slot("target");
        helper.open_target(root, &self.whole()).above_zero(done).ignore().store_in(target);
        let parent = self.parent(helper, root);
        self.step(helper, "creating the mount point");
        match kind {
            Kind::Directory => helper.mkdirat(parent, self.name(), 0o755),
            Kind::File => helper.create(parent, self.name(), 0o444),
        }
        helper.open_target(root, &self.whole()).store_in(target);
        helper.bind(done);
        target
    }

    /// The place of a mount that must be there itself, or be created: a symlink at it is refused.
    pub fn own_mount_point(&self, helper: &mut Program, root: Slot) -> Slot {
        let target = self.mount_point(helper, root, Kind::Directory);
        self.step(helper, "opening the mount point, which must not be reached by a symlink");
        helper.open_beneath(root, &self.whole()).store_in(target)
    }

    /// Makes a directory, unless there is one.
    pub fn directory(&self, helper: &mut Program, root: Slot, mode: u32) {
        let done = helper.label();
        self.step(helper, "making the directory");
        helper.open_target(root, &self.whole()).above_zero(done).ignore();
        let parent = self.parent(helper, root);
        self.step(helper, "making the directory");
        helper.mkdirat(parent, self.name(), mode);
        helper.bind(done);
    }

    /// Makes a symlink.
    pub fn symlink(&self, helper: &mut Program, root: Slot, text: &OsStr) {
        let parent = self.parent(helper, root);
        self.step(helper, "making the symlink");
        helper.symlinkat(text, parent, self.name());
    }

    /// Opens the directory above it; what is missing of it is created.
    fn parent(&self, helper: &mut Program, root: Slot) -> Slot {
        let mut parent = root;
        for count in 1..self.parts.len() {
            self.step(helper, "creating the directory above");
            let (exists, next) = (helper.label(), helper.slot("directory"));
            helper.open_target(root, &self.relative(count)).above_zero(exists).ignore().store_in(next);
            helper.mkdirat(parent, &self.parts[count - 1], 0o755);
            helper.open_target(root, &self.relative(count)).store_in(next);
            helper.bind(exists);
            parent = next;
        }
        parent
    }

    pub fn step(&self, helper: &mut Program, what: &'static str) {
        helper.step(Step::new(what).path(&self.shown).remedies(CREATE));
    }
}
