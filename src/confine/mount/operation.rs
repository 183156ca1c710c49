//! [`Operation`]: an element of the list that a [`Root`](super::Root) carries out. A type with options of its own has
//! its own file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::bind::Bind;
use super::inputs::Inputs;
use super::mode::Mode;
use super::overlay::Overlay;
use super::proc::Proc;
use super::tmpfs::Tmpfs;
#[cfg(feature = "serde")]
use crate::stored::{As, Escaped};

/// A set-up operation on the file system of a sandbox: an element of the ordered list that [`Root`](crate::Root)
/// carries out.
///
/// [`Root::with`](crate::Root::with) adds one. The builder types convert into it.
///
/// ```
/// use stockade::mount::{Bind, Operation, Tmpfs};
/// use stockade::{Command, Root, Sandbox};
///
/// let operations: [Operation; 3] = [
///     Tmpfs::new("/work").size(1 << 20).into(),
///     Operation::file("/work/run", "#!/bin/sh\necho ran\n", 0o555),
///     Bind::new("/usr/share", "/work/share").unmapped().into(),
/// ];
/// let root = operations.into_iter().fold(Root::host(), Root::with);
/// assert_eq!(Sandbox::new().root(root).output(Command::new("/work/run"))?.stdout, b"ran\n");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Operation {
    /// Binds a tree of the host.
    Bind(Bind),
    /// Shows declared files of the host in a directory of its own.
    Inputs(Inputs),
    /// Mounts a file system in memory.
    Tmpfs(Tmpfs),
    /// Mounts an overlay of directories of the host, with the program's changes on top.
    Overlay(Overlay),
    /// Mounts a `/proc` of the processes of the sandbox.
    Proc(Proc),
    /// Mounts a minimal `/dev`: see [`Root::dev`](crate::Root::dev).
    Dev(#[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))] PathBuf),
    /// Creates a regular file: see [`Operation::file`] and [`Operation::file_rw`].
    #[non_exhaustive]
    File {
        /// The path in the sandbox.
        #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
        target: PathBuf,
        /// The contents.
        #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
        contents: Vec<u8>,
        /// The permissions.
        mode: Mode,
        /// Whether the program can write to it.
        #[cfg_attr(feature = "serde", serde(default))]
        writable: bool,
    },
    /// Creates a symbolic link: see [`Operation::symlink`].
    #[non_exhaustive]
    Symlink {
        /// The text of the link.
        #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
        original: OsString,
        /// The path of the link in the sandbox.
        #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
        link: PathBuf,
    },
    /// Creates a directory: see [`Operation::create_dir`].
    #[non_exhaustive]
    CreateDir {
        /// The path in the sandbox.
        #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
        target: PathBuf,
        /// The permissions.
        mode: Mode,
    },
    /// Adds the GPUs of the host: see [`Root::gpus`](crate::Root::gpus).
    Gpus,
    /// Lets programs resolve the host name and names of the network: see
    /// [`Root::network_names`](crate::Root::network_names).
    NetworkNames,
    /// Gives the program's user and group a name: see [`Root::user_names`](crate::Root::user_names).
    UserNames,
    /// Hides a path: see [`Root::mask`](crate::Root::mask).
    Mask(#[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))] PathBuf),
    /// Makes a path read-only, with everything below it: see [`Root::read_only`](crate::Root::read_only).
    ReadOnly(#[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))] PathBuf),
    /// Protects a path in a writable bind from changes and replacement: see [`Root::protect`](crate::Root::protect).
    Protect(#[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))] PathBuf),
}

impl Operation {
    /// Creates a read-only regular file with these contents and permissions. Missing directories above it are created
    /// with the permissions 0755. It covers an existing file.
    pub fn file(target: impl Into<PathBuf>, contents: impl Into<Vec<u8>>, mode: impl Into<Mode>) -> Self {
        Self::File { target: target.into(), contents: contents.into(), mode: mode.into(), writable: false }
    }

    /// Creates a regular file with these contents and permissions, to which the program can write. It belongs to the
    /// program's user, and is lost with the sandbox.
    ///
    /// The file is a mount point. The program can change and truncate it, but not rename or remove it (`EBUSY`), which
    /// programs do that replace a file by a new one. Put such a file into a [`Tmpfs`], or a directory that is bound.
    ///
    /// It is kept in memory. All files of a sandbox together can grow by 64 MiB beyond their contents, and then writing
    /// fails with `ENOSPC`.
    ///
    /// ```
    /// use stockade::mount::Operation;
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let root = Root::host().with(Operation::file_rw("/settings", "color=auto\n", 0o600));
    /// let script = "echo level=3 >> /settings && cat /settings";
    /// let output = Sandbox::new().root(root).output(Command::new("sh").args(["-c", script]))?;
    /// assert_eq!(output.stdout, b"color=auto\nlevel=3\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn file_rw(target: impl Into<PathBuf>, contents: impl Into<Vec<u8>>, mode: impl Into<Mode>) -> Self {
        Self::File { target: target.into(), contents: contents.into(), mode: mode.into(), writable: true }
    }

    /// Creates a symbolic link at `link` with the text `original` (symlink(2)). If a symlink with the same text is
    /// there already, this has no effect. Missing directories above it are created with the permissions 0755.
    pub fn symlink(original: impl Into<OsString>, link: impl Into<PathBuf>) -> Self {
        Self::Symlink { original: original.into(), link: link.into() }
    }

    /// Creates a directory with these permissions, unless one exists. Its file system must belong to the sandbox. A
    /// directory of the host at that path stays visible.
    ///
    /// A file, or a symlink that does not lead to a directory, at the path is an error (`EEXIST`).
    pub fn create_dir(target: impl Into<PathBuf>, mode: impl Into<Mode>) -> Self {
        Self::CreateDir { target: target.into(), mode: mode.into() }
    }

    /// Returns the path in the sandbox that the operation is about.
    pub(super) fn target(&self) -> &Path {
        match self {
            Self::Bind(Bind { target, .. })
            | Self::Inputs(Inputs { target, .. })
            | Self::Tmpfs(Tmpfs { target, .. })
            | Self::Overlay(Overlay { target, .. })
            | Self::Proc(Proc { target, .. })
            | Self::File { target, .. }
            | Self::CreateDir { target, .. }
            | Self::Symlink { link: target, .. }
            | Self::Dev(target)
            | Self::Mask(target)
            | Self::ReadOnly(target)
            | Self::Protect(target) => target,
            Self::NetworkNames | Self::UserNames => Path::new("/etc"),
            Self::Gpus => Path::new("/dev"),
        }
    }

    /// Returns whether the operation hides what was at its path.
    pub(super) fn covers(&self) -> bool {
        let completes = matches!(self, Self::NetworkNames | Self::UserNames | Self::Gpus);
        !completes
            && !matches!(self, Self::CreateDir { .. } | Self::Symlink { .. } | Self::ReadOnly(_) | Self::Protect(_))
    }
}

macro_rules! operation_from {
    ($($kind:ident),+) => {
        $(impl From<$kind> for Operation { fn from(operation: $kind) -> Self { Self::$kind(operation) } })+
    };
}
operation_from!(Bind, Inputs, Tmpfs, Overlay, Proc);
