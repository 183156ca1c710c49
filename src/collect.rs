//! What a program has left in a directory, taken out by the host. Nothing there is believed: no name, no type, no size, and
//! not that anything is still what it was a moment ago.
//!
//! [`place`] opens what is there, [`tree`] copies it, [`remove`] removes it. No other room is needed for it, and none may come in but errors.

mod place;
mod remove;
mod tree;

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use crate::error::{Errno, Result};
use crate::host_path::HostPath;
pub use remove::remove_dir_all;

/// Takes out what a program has left in a directory of the host's that it could write to
/// ([`Root::bind_rw`](crate::Root::bind_rw)): copies of regular files and directories, and nothing else.
///
/// What a name in such a directory leads to is up to the program: `std::fs::read(out.join("answer"))` reads the file of the
/// host's that a symbolic link of that name leads to, waits for ever for a FIFO, and fills the memory with a file that
/// is a petabyte of nothing. A collector
///
/// * opens nothing outside of the directory, by any link, mount or `..`, also while a process of the program lives and
///   exchanges what is there (openat2(2), since Linux 5.6);
/// * opens nothing that is no regular file or directory, and so neither waits for anything nor sets a device going;
/// * takes no file that has other names (hard links), by which a program can have left one that it may not read itself;
/// * copies no more than its limits allow: of a file the bytes that it has when it is opened. Whether the file is sparse makes
///   no difference: its holes are bytes;
/// * makes copies that are new files of the host's user, with mode 0644, or 0755 if the owner may execute the original, and
///   directories with 0755, whatever the umask. Owners, times, set-user-id bits and extended attributes are not carried
///   over.
///
/// ```
/// use stockade::{Collector, Command, Root, Sandbox, Unfit};
///
/// let out = tempfile::tempdir()?;
/// let sandbox = Sandbox::new().root(Root::host().bind_rw(out.path(), "/out"));
/// let script = "mkdir /out/lib; echo 42 > /out/lib/answer; ln -s /etc/shadow /out/link; mkfifo /out/pipe";
/// assert!(sandbox.status(Command::new("sh").args(["-c", script]))?.success());
///
/// let place = tempfile::tempdir()?;
/// let kept = place.path().join("kept");
/// let collector = Collector::new().max_bytes(16 << 20).max_entries(100);
/// let collected = collector.copy(out.path(), &kept)?;
///
/// assert_eq!(std::fs::read_to_string(kept.join("lib/answer"))?, "42\n");
/// assert_eq!((collected.files, collected.directories, collected.bytes), (1, 1, 3));
/// let left: Vec<_> = collected.left.iter().map(|left| (left.path.to_str().unwrap(), left.why)).collect();
/// assert_eq!(left, [("link", Unfit::Symlink), ("pipe", Unfit::Special)]);
///
/// // One file, if that is all.
/// assert_eq!(collector.read(out.path(), "lib/answer")?, b"42\n");
/// assert_eq!(
///     collector.read(out.path(), "link").unwrap_err().to_string(),
///     format!(
///         "\"link\" below {:?} is a symbolic link: it may lead anywhere, so it is not followed; have the program leave the \
///          file itself",
///         out.path()
///     )
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Files are best collected when the program has ended ([`Child::wait`](crate::Child::wait)): before, they may be incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Collector {
    max_bytes: u64,
    max_entries: u64,
    max_depth: u32,
    hard_links: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    symlinks: bool,
}

impl Default for Collector {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_entries: 10_000, max_depth: 64, hard_links: false, symlinks: false }
    }
}

impl Collector {
    /// A collector of at most 1 GiB in all, 10,000 entries, and directories 64 levels deep, which takes no files that have
    /// other names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of all files together, and of what symbolic links say if they are wanted ([`symlinks`](Self::symlinks)). Default
    /// 1 GiB.
    ///
    /// With [`read`](Self::read) they are in memory all at once.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Entries in all directories together, also those that are left. Default 10,000. The names of a directory are in
    /// memory while it is copied, and the paths of what is left stay in [`Collected::left`].
    #[must_use]
    pub fn max_entries(mut self, count: u64) -> Self {
        self.max_entries = count;
        self
    }

    /// How deep directories may be nested: with 0 there may be none, with 1 those that hold files alone. Default 64. Each
    /// level takes two descriptors of the host while it is copied, and however high the limit is, no path may be longer
    /// than 4095 bytes (PATH_MAX), from which on no program of the host could use it.
    #[must_use]
    pub fn max_depth(mut self, levels: u32) -> Self {
        self.max_depth = levels;
        self
    }

    /// Takes also files that have other names. By default they are left: where the program could make a link to a file of
    /// another user (link(2): on the same mount, and unless `fs.protected_hardlinks` is 1), a root host would read it in
    /// the program's stead.
    #[must_use]
    pub fn hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }

    /// Tells what symbolic links say, in [`Collected::symlinks`]. By default they are left, as [`Unfit::Symlink`]. In no case is
    /// one followed, or made in the copy: where it leads is up to the program, and whoever reads the copy would follow it.
    /// Make those that you want by `std::os::unix::fs::symlink` when you have looked at where they lead.
    #[must_use]
    pub fn symlinks(mut self) -> Self {
        self.symlinks = true;
        self
    }

    /// Copies all regular files and directories below `from` to `to`, a directory that is made, and must not exist yet.
    ///
    /// A symlink in the last component of `from` or `to` is an error, since the program may have left it there. For paths
    /// that lead through a directory that the program could write to use [`HostPath::beneath`], which follows none below a
    /// trusted directory: `HostPath::beneath(workspace, "out")`. `to` should be where the program can't write.
    ///
    /// What can't be copied is skipped, and listed in [`Collected::left`]; what is removed meanwhile is passed over. A
    /// directory that can't be listed is skipped as a whole.
    ///
    /// # Errors
    ///
    /// [`Error::Exceeded`](crate::Error::Exceeded) if there is more than a limit allows;
    /// [`Error::Collect`](crate::Error::Collect) if `from` can't be read or is a symlink, `to` exists or can't be written to, or if a filter of
    /// system calls around the host refuses openat2(2), without which there is no safe way;
    /// [`Error::Invalid`](crate::Error::Invalid) if `to` is below `from`. Then nothing of `to` stays, unless the host may
    /// not open one descriptor more to remove it by.
    pub fn copy(&self, from: impl Into<HostPath>, to: impl Into<HostPath>) -> Result<Collected> {
        tree::copy(self, &from.into(), &to.into())
    }

    /// Reads one file, by its path below `from`. The limit on bytes holds; those on entries and depth are for
    /// [`copy`](Self::copy). A symlink in the last component of `from` is an error, as it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if the path, or a directory in it, is anything that `copy` would leave,
    /// if the path leads to a directory, or if it is absolute or has `..` in it;
    /// [`Error::Exceeded`](crate::Error::Exceeded) if the file is larger than the limit;
    /// [`Error::Collect`](crate::Error::Collect) if it can't be read, with the [`io::ErrorKind`](std::io::ErrorKind)
    /// `NotFound` if there is none.
    pub fn read(&self, from: impl Into<HostPath>, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        tree::read(self, &from.into(), path.as_ref())
    }
}

/// What came of [`Collector::copy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Collected {
    /// Files that were copied.
    pub files: u64,
    /// Directories that were made, without `to` itself.
    pub directories: u64,
    /// Bytes of all files together, and of what symbolic links say.
    pub bytes: u64,
    /// Symbolic links, if they are wanted ([`Collector::symlinks`]), in the order of [`Collected::left`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub symlinks: Vec<Symlink>,
    /// What was not copied, and why: a directory's entries in the order of their names, and what is in a directory in the
    /// place of that.
    pub left: Vec<Left>,
}

/// A symbolic link that a program has left, as data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Symlink {
    /// Its path below the directory that was collected from, in the words of the program.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    pub path: PathBuf,
    /// What it says: a path that may lead anywhere.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    pub target: PathBuf,
}

/// What was not copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Left {
    /// Its path below the directory that was collected from. The names in it are the program's: they may hold newlines, and
    /// need not be UTF-8.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    pub path: PathBuf,
    /// Why.
    pub why: Unfit,
}

impl Display for Left {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.why)
    }
}

/// Why something was not collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Unfit {
    /// A symbolic link.
    Symlink,
    /// A FIFO, a socket or a device.
    Special,
    /// A file that has other names: see [`Collector::hard_links`].
    HardLink,
    /// Something is mounted there.
    Mount,
    /// The kernel refuses the host to read it. It is `EACCES` where the program has taken the right from the host's user, and
    /// `EAGAIN` where it holds a lease on the file (fcntl(2)), which the host would have to wait for.
    Unreadable(Errno),
}

impl Display for Unfit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink => f.write_str("a symbolic link"),
            Self::Special => f.write_str("a FIFO, a socket or a device"),
            Self::HardLink => f.write_str("a file that has other names (hard links)"),
            Self::Mount => f.write_str("a place where something is mounted"),
            Self::Unreadable(errno) => write!(f, "unreadable: {errno}"),
        }
    }
}
