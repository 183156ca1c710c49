//! Copying and removing files that a program wrote.
//!
//! A sandboxed program controls everything in a directory that it can write to: a file may be a symlink to
//! `/etc/shadow`, a FIFO, or a petabyte of zeros, and may change while it is read. [`Collector`] copies or reads
//! regular files from such a directory. [`remove_dir_all`] removes one.

// `entry` opens what is in the directory, `copy` copies it as `selection` says, `remove` removes it. Nothing in there is trusted: no name,
// type or size, nor that anything is still what it was a moment ago. This room needs no other room but `error`,
// `host_path`, `skip_reason` and `unix`.

mod copy;
mod entry;
mod remove;
mod selection;

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::host_path::HostPath;
pub use crate::skip_reason::SkipReason;
use crate::stored::Version;
#[cfg(feature = "serde")]
use crate::stored::{As, Bytes, Count, Escaped};
pub use remove::remove_dir_all;
use selection::Selection;

/// A copier of regular files and directories out of a directory of the host that a program could write to
/// ([`Root::bind_rw`](crate::Root::bind_rw)).
///
/// The program decides what a name in such a directory refers to. `std::fs::read(out.join("answer"))` follows a symlink
/// to any file that the caller can read, blocks forever on a FIFO, and fills the memory with a sparse file. A collector
///
/// * opens nothing outside of the directory, through any symlink, mount or `..`, even while a process of the program is
///   running and exchanges files (openat2(2));
/// * opens only regular files and directories, so that it neither blocks nor triggers a device;
/// * skips files with several hard links, because one of the links may be to a file that the program itself cannot
///   read;
/// * copies no more than its limits allow. Of each file it copies as many bytes as the file had when it was opened.
///   Holes of a sparse file count as bytes;
/// * creates new files that belong to the caller, with mode 0644, or 0755 if the owner may execute the original, and
///   directories with mode 0755, whatever the umask. Owners, times, set-user-ID bits and extended attributes are not
///   copied.
///
/// Collect files after the program has exited ([`Child::wait`](crate::Child::wait)). Before that they may be
/// incomplete.
///
/// ```
/// use stockade::collect::{Collector, SkipReason};
/// use stockade::{Command, Root, Sandbox};
///
/// let out = tempfile::tempdir()?;
/// let sandbox = Sandbox::new().root(Root::host().bind_rw(out.path(), "/out"));
/// let script = "mkdir /out/lib; echo 42 > /out/lib/answer; ln -s /etc/shadow /out/link; mkfifo /out/pipe";
/// assert!(sandbox.status(Command::new("sh").args(["-c", script]))?.success());
///
/// let results = tempfile::tempdir()?;
/// let copy = results.path().join("copy");
/// let collector = Collector::new().max_bytes(16 << 20).max_entries(100);
/// let collected = collector.copy(out.path(), &copy)?;
///
/// assert_eq!(std::fs::read_to_string(copy.join("lib/answer"))?, "42\n");
/// assert_eq!((collected.files, collected.directories, collected.bytes), (1, 1, 3));
/// let skipped = collected.skipped.iter().map(|skipped| (skipped.path.to_str().unwrap(), skipped.reason));
/// let skipped: Vec<_> = skipped.collect();
/// assert_eq!(skipped, [("link", SkipReason::Symlink), ("pipe", SkipReason::Special)]);
///
/// // Reads a single file.
/// assert_eq!(collector.read(out.path(), "lib/answer")?, b"42\n");
/// let error = collector.read(out.path(), "link").unwrap_err();
/// assert_eq!(error.skip_reason(), Some(SkipReason::Symlink));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Collector {
    version: Version<1>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Bytes>"))]
    max_bytes: u64,
    #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
    max_entries: u64,
    max_depth: u32,
    hard_links: bool,
    symlinks: bool,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            version: Version,
            max_bytes: 1 << 30,
            max_entries: 10_000,
            max_depth: 64,
            hard_links: false,
            symlinks: false,
        }
    }
}

impl Collector {
    /// Creates a collector with the default limits: 1 GiB in total, 10,000 entries, and directories nested 64 levels
    /// deep.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the size of all files together, in bytes, including the targets of symlinks with
    /// [`symlinks`](Self::symlinks).
    ///
    /// [`read`](Self::read) holds this many bytes in memory.
    ///
    /// Default: 1 GiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Limits the number of entries in all directories together, including those that are skipped.
    ///
    /// The names of all entries of a directory are held in memory while it is copied, and the paths of skipped entries
    /// in [`Collected::skipped`].
    ///
    /// Default: 10,000.
    #[must_use]
    pub fn max_entries(mut self, count: u64) -> Self {
        self.max_entries = count;
        self
    }

    /// Limits the depth of nested directories. 0 allows no directories, and 1 allows directories without
    /// subdirectories.
    ///
    /// Each level uses two descriptors of the caller while it is copied. Regardless of this limit no path may be longer
    /// than 4095 bytes (`PATH_MAX`).
    ///
    /// Default: 64.
    #[must_use]
    pub fn max_depth(mut self, levels: u32) -> Self {
        self.max_depth = levels;
        self
    }

    /// Copies files with several hard links as well.
    ///
    /// A program can create a hard link to a file of another user on the same mount, unless `fs.protected_hardlinks` is
    /// 1 (link(2)). A privileged caller would then copy a file that the program itself cannot read.
    ///
    /// Default: they are skipped as [`SkipReason::HardLink`].
    #[must_use]
    pub fn hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }

    /// Reports the targets of symlinks in [`Collected::symlinks`].
    ///
    /// No symlink is ever followed, or created in the copy: the program decides where it leads, and a reader of the
    /// copy would follow it. To recreate one, check its target and call [`std::os::unix::fs::symlink`].
    ///
    /// Default: they are skipped as [`SkipReason::Symlink`].
    #[must_use]
    pub fn symlinks(mut self) -> Self {
        self.symlinks = true;
        self
    }

    /// Copies all regular files and directories below `from` to `to`, a new directory.
    ///
    /// What cannot be copied is skipped and listed in [`Collected::skipped`]. A directory that cannot be listed is
    /// skipped as a whole. Entries that are removed during the copy are ignored.
    ///
    /// `to` should be where the program cannot write. If the path of `from` or `to` leads through a directory that the
    /// program could write to, use [`HostPath::beneath`], which follows no symlinks below a trusted directory:
    /// `HostPath::beneath(workspace, "out")`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) if a limit of the collector is exceeded.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if `from` cannot be read, `to` exists or cannot be created, the last
    ///   component of either is a symlink, or a seccomp filter of the caller denies openat2(2).
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if `to` is below `from`.
    ///
    /// On an error `to` is removed again, unless the caller is at its limit of open descriptors.
    pub fn copy(&self, from: impl Into<HostPath>, to: impl Into<HostPath>) -> Result<Collected> {
        copy::copy(self, &from.into(), Selection::Whole, &to.into())
    }

    /// Copies only these paths below `from` to `to`, a new directory: files, and directories with everything in them.
    ///
    /// It is for a program whose outputs are known by their paths, in a directory with other files. The directories
    /// above a path are created in the copy. A path that does not exist, or that leads through a regular file, is
    /// ignored. A symlink in a path is not followed: it is skipped, or reported with [`symlinks`](Self::symlinks), as
    /// an entry at its own path. Paths do not count against [`max_entries`](Self::max_entries) twice if one is below
    /// another. The path `.` is all of `from`.
    ///
    /// ```
    /// use std::os::unix::fs::symlink;
    /// use stockade::collect::Collector;
    ///
    /// let work = tempfile::tempdir()?;
    /// std::fs::create_dir(work.path().join("lib"))?;
    /// std::fs::write(work.path().join("lib/answer"), "42")?;
    /// std::fs::write(work.path().join("lib/scratch"), "41")?;
    /// symlink("/etc", work.path().join("more"))?;
    ///
    /// let copy = work.path().with_extension("copy");
    /// let outputs = ["lib/answer", "more/hostname", "missing"];
    /// let collected = Collector::new().symlinks().copy_only(work.path(), outputs, &copy)?;
    /// assert_eq!(std::fs::read_to_string(copy.join("lib/answer"))?, "42");
    /// assert_eq!((collected.files, collected.directories), (1, 1));
    /// assert_eq!(collected.symlinks[0].path.to_str(), Some("more"));
    /// # std::fs::remove_dir_all(copy)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`copy`](Self::copy), and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if a path is absolute, or contains
    /// `..` or a null byte.
    pub fn copy_only<P: AsRef<Path>>(
        &self,
        from: impl Into<HostPath>,
        paths: impl IntoIterator<Item = P>,
        to: impl Into<HostPath>,
    ) -> Result<Collected> {
        let from = from.into();
        let selection = Selection::of_paths(&from.unresolved(), paths)?;
        copy::copy(self, &from, selection, &to.into())
    }

    /// Reads one file, by its path below `from`.
    ///
    /// Of the limits only [`max_bytes`](Self::max_bytes) applies.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if `path` is absolute or contains
    ///   `..`.
    /// - [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) if the file is larger than
    ///   [`max_bytes`](Self::max_bytes).
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be read, or the last component of `from` is a
    ///   symlink. If [`copy`](Self::copy) would skip the file, or a directory on the way to it,
    ///   [`Error::skip_reason`](crate::Error::skip_reason) returns why. If the file does not exist,
    ///   [`Error::errno`](crate::Error::errno) is `ENOENT`, and `EISDIR` if it is a directory.
    pub fn read(&self, from: impl Into<HostPath>, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        copy::read(self, &from.into(), path.as_ref())
    }
}

/// The result of [`Collector::copy`]: what was copied, and what was skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
#[must_use = "`skipped` lists what was not copied"]
pub struct Collected {
    version: Version<1>,
    /// Number of files copied.
    #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
    pub files: u64,
    /// Number of directories created, without `to` itself.
    #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
    pub directories: u64,
    /// Size of all files together, and of the targets in [`symlinks`](Self::symlinks), in bytes.
    #[cfg_attr(feature = "serde", serde(with = "As::<Bytes>"))]
    pub bytes: u64,
    /// Symlinks with their targets, in the order of [`skipped`](Self::skipped). Empty without [`Collector::symlinks`].
    pub symlinks: Vec<Symlink>,
    /// Entries that were not copied. The entries of each directory are sorted by name, and those of a subdirectory are
    /// listed in its place.
    pub skipped: Vec<Skipped>,
}

/// A symlink that a program created, as data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Symlink {
    /// Path below the collected directory. The program chose the names in it.
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
    pub path: PathBuf,
    /// Target of the symlink, which may be any path.
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
    pub target: PathBuf,
}

/// An entry that was not copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Skipped {
    /// Path below the collected directory. The program chose the names in it: they may contain newlines, and need not
    /// be UTF-8.
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
    pub path: PathBuf,
    /// The reason.
    pub reason: SkipReason,
}

impl Display for Skipped {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.reason)
    }
}
