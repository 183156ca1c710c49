//! Targets of operations: paths in the sandbox, resolved beneath its root, and created on file systems of the sandbox.
//! Paths of the host do not belong here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::advice::Need;
use crate::error::{Error, Result};
use crate::host_path::is_directory;
use crate::plan::{Label, OnError, Script, Slot, Step, flags};

/// The type of a mount point: that of what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MountPointKind {
    Directory,
    File,
}

/// Returns the type of mount point that a path of the host needs.
pub(super) fn kind_of(path: &Path) -> MountPointKind {
    if is_directory(path) { MountPointKind::Directory } else { MountPointKind::File }
}

/// A path in the sandbox, absolute and without `.` and `..`.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The path as it was specified, for messages.
    path: PathBuf,
    parts: Vec<OsString>,
}

/// Hints for calls that open or create a target.
const TARGET_HINTS: &[(i32, &str)] = &[
    (
        libc::EROFS,
        "it does not exist, and nothing is created on a file system of the host: create it there on the host, or use a path directly \
         below /, below a tmpfs, or below an overlay",
    ),
    (libc::ENOENT, "it does not exist inside the sandbox: create it, bind it before, or remove the operation"),
    (
        libc::EEXIST,
        "a dangling symlink, or a file of another type, exists there: use the path that the symlink leads to, or another path",
    ),
    (libc::ENOTDIR, "a component above it is not a directory: use another path"),
    (libc::EINVAL, "mount a directory over a directory, and a file over a file"),
    (libc::ELOOP, "it is, or leads through, a symlink that is not followed here: use the path that it leads to"),
    (libc::EACCES, "the sandbox's user may not enter a directory above it: grant access, or use another path"),
];

/// Hints for a symlink that is no longer the one that was there.
const CHANGED: &[(i32, &str)] = &[
    (libc::EAGAIN, "a symlink with another text is there now: remove it, or use another path"),
    (
        libc::EINVAL,
        "a symlink with the same text was there, and now it is something else: remove it, or use another path",
    ),
];

impl Target {
    /// Creates a target. Returns an error if the path is relative, is the root, or has `..` or a zero byte.
    pub fn new(path: &Path) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::invalid(
                format!("{path:?} is not a valid path in a sandbox: {why}"),
                "use an absolute path without `..` and zero bytes",
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
            return refuse(
                "it is the root itself, which Root::from_dir, Root::from_dir_rw, Root::from_overlay, Root::empty and Root::host create",
            );
        }
        Ok(Self { path: path.to_owned(), parts })
    }

    /// Returns the first `count` components as a path relative to the root.
    fn relative(&self, count: usize) -> OsString {
        self.parts[..count].join(OsStr::new("/"))
    }

    /// Returns the path relative to the root.
    fn full_relative(&self) -> OsString {
        self.relative(self.parts.len())
    }

    fn name(&self) -> &OsStr {
        &self.parts[self.parts.len() - 1]
    }

    /// Opens the target, which must exist.
    pub fn open(&self, helper: &mut Script, root: Slot) -> Slot {
        helper.open_target(root, &self.full_relative()).store("target")
    }

    /// Opens the target, and continues at `absent` if that fails with one of two errors.
    pub fn open_or(&self, helper: &mut Script, root: Slot, errors: [i32; 2], absent: Label) -> Slot {
        helper.open_target(root, &self.full_relative()).on_error(OnError::goto_if(errors, absent)).store("target")
    }

    /// Opens the target as the mount point of a file, and continues at `absent` if there is none.
    pub fn existing_file(&self, helper: &mut Script, root: Slot, absent: Label) -> Slot {
        self.step(helper, "open the mount point");
        let done = helper.label();
        let target = helper.slot("target");
        helper.open_target(root, &self.full_relative()).above_zero(done).ignore().store_in(target);
        let is_absent = OnError::goto_if([libc::ENOENT, libc::ENOTDIR], absent);
        helper.open_target_itself(root, &self.full_relative()).on_error(is_absent).store_in(target);
        helper.bind(done);
        target
    }

    /// Opens the target as a mount point, which is created if it is missing.
    ///
    /// A symlink that leads nowhere is itself the mount point of a file: it may lead to a directory of the host that
    /// the sandbox has anew, such as `/run`.
    pub fn mount_point(&self, helper: &mut Script, root: Slot, kind: MountPointKind) -> Slot {
        self.step(helper, "open the mount point");
        let done = helper.label();
        let target = helper.reusable_slot("target");
        helper.open_target(root, &self.full_relative()).above_zero(done).ignore().store_in(target);
        if kind == MountPointKind::File {
            helper.open_target_itself(root, &self.full_relative()).above_zero(done).ignore().store_in(target);
        }
        let parent = self.parent(helper, root);
        self.step(helper, "create the mount point");
        match kind {
            MountPointKind::Directory => helper.mkdirat(parent, self.name(), 0o755),
            MountPointKind::File => helper.create(parent, self.name(), 0o444),
        }
        close_unless(root, helper, parent);
        helper.open_target(root, &self.full_relative()).store_in(target);
        helper.bind(done);
        target
    }

    /// Opens the target as a directory to mount on, which is created if it is missing. A symlink in the path is an
    /// error.
    pub fn own_mount_point(&self, helper: &mut Script, root: Slot) -> Slot {
        let target = self.mount_point(helper, root, MountPointKind::Directory);
        self.step(helper, "open, following no symlinks, the mount point");
        helper.close(target);
        helper.open_beneath(root, &self.full_relative()).store_in(target)
    }

    /// Creates the target as a regular file with these contents, where the file system is the sandbox's own.
    pub fn file(&self, helper: &mut Script, root: Slot, contents: &[u8], mode: u32) {
        let parent = self.parent(helper, root);
        self.step(helper, "write the file");
        let file = helper.openat(parent, self.name(), flags!(O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC), mode);
        helper.write_contents(file, contents);
        helper.close(file);
        close_unless(root, helper, parent);
    }

    /// Creates the target as a directory, unless it exists.
    pub fn directory(&self, helper: &mut Script, root: Slot, mode: u32) {
        let (done, exists, target) = (helper.label(), helper.label(), helper.slot("target"));
        self.step(helper, "create the directory");
        // A file there does not count.
        helper.open_target_directory(root, &self.full_relative()).above_zero(exists).ignore().store_in(target);
        let parent = self.parent(helper, root);
        self.step(helper, "create the directory");
        helper.mkdirat(parent, self.name(), mode);
        close_unless(root, helper, parent);
        helper.jump(done);
        helper.bind(exists);
        helper.close(target);
        helper.bind(done);
    }

    /// Creates the target as a symlink. `is_known`: whether one with the same text was there when that was looked up. The
    /// host, or a program before this one, may have changed it since.
    pub fn symlink(&self, helper: &mut Script, root: Slot, text: &OsStr, is_known: bool) {
        let parent = self.parent(helper, root);
        self.step(helper, "create the symlink");
        helper.symlinkat(text, parent, self.name());
        if is_known {
            let (exists, done) = (helper.label(), helper.label());
            helper.last().on_error(OnError::goto_if([libc::EEXIST; 2], exists));
            helper.jump(done);
            helper.bind(exists);
            helper.step(Step::new("compare the text of the symlink").path(&self.path).remedies(CHANGED));
            helper.fail_unless_symlink(parent, self.name(), text);
            helper.bind(done);
        }
        close_unless(root, helper, parent);
    }

    /// Opens the directory above the target. Missing directories are created.
    fn parent(&self, helper: &mut Script, root: Slot) -> Slot {
        let mut parent = root;
        for count in 1..self.parts.len() {
            self.step(helper, "create the directories above");
            let (exists, next) = (helper.label(), helper.reusable_slot("directory"));
            helper.open_target(root, &self.relative(count)).above_zero(exists).ignore().store_in(next);
            helper.mkdirat(parent, &self.parts[count - 1], 0o755);
            helper.open_target(root, &self.relative(count)).store_in(next);
            helper.bind(exists);
            close_unless(root, helper, parent);
            parent = next;
        }
        parent
    }

    /// Begins a step on the target.
    pub fn step(&self, helper: &mut Script, name: &'static str) {
        helper.step(Step::new(name).path(&self.path).needs(Need::Mounts).remedies(TARGET_HINTS));
    }
}

/// Closes a directory above a target, unless it is the root.
fn close_unless(root: Slot, helper: &mut Script, directory: Slot) {
    if directory != root {
        helper.close_and_free(directory);
    }
}
