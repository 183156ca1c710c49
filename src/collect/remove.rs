//! The removal of an untrusted directory. One directory is open at a time, however deep they are nested, and is entered
//! by a single name, so that nothing outside is reached and no path is too long.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno as NixErrno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::entry::{is_same, list, open_in, own_descriptors};
use crate::error::{Error, Result};
use crate::host_path::{HostPath, ResolveError};
use crate::unix::{Errno, ToErrno};

/// Names of a directory that are in memory at a time.
const BATCH: u64 = 256;
/// Number of levels whose names stay in memory. Deeper levels are listed again.
const LEVELS_WITH_NAMES: usize = 64;
/// Maximum number of times that a directory is listed.
const MAX_LISTINGS: u32 = 1 << 20;
/// Maximum number of times that an entry may change its type before it is removed.
const MAX_CHANGES: u32 = 100;
/// Maximum length of the path in an error (PATH_MAX). A program may nest directories deeper.
const MAX_PATH: usize = 4095;

/// Removes a directory that a program could write to, with its contents.
///
/// [`std::fs::remove_dir_all`] and `tempfile::TempDir::close` fail for a caller other than root if the program removed
/// the permission to read or enter a directory (the kernel itself creates the `work` directory of an
/// [`Overlay`](crate::mount::Overlay) with mode 000), and if directories are nested deeper than the caller may open
/// descriptors. This function
///
/// * sets the mode of each directory that belongs to the caller to 0700, through a descriptor of that directory;
/// * uses four descriptors and bounded memory, however deep directories are nested: for 256 names on each of 64 levels,
///   and for one name on each further level;
/// * removes symlinks and never follows one, nor enters another mount, even while a process of the program is running
///   and exchanges directories (openat2(2)).
///
/// It returns `Ok` if the directory does not exist, and ignores entries that are removed in the meantime. It can be
/// called repeatedly, and by several threads at the same time.
///
/// The last component of `directory` must not be a symlink, even with [`HostPath::follow_symlinks`]. If the path leads
/// through a directory that the program could write to, use [`HostPath::beneath`].
///
/// Kill the sandbox first ([`Child::wait`](crate::Child::wait), or drop the [`Child`](crate::Child)): a process that
/// keeps creating files can keep this function busy for as long as it runs.
///
/// # Errors
///
/// [`ErrorKind::Io`](crate::ErrorKind::Io) with the path of the first entry that cannot be removed, truncated after
/// 4095 bytes (`PATH_MAX`). Some entries may have been removed before. It happens if
///
/// * a directory that is not empty belongs to another user than the caller, for example that of a sandbox with
///   subordinate IDs (`EACCES`), or a file is in a sticky directory of another user (`EPERM`);
/// * a file or directory is immutable or append-only (`EPERM`). A sandboxed program cannot set these attributes, and
///   this function does not change them;
/// * an entry is a mount point (`EBUSY`);
/// * a process of the program keeps writing there (`ENOTEMPTY`) or moves directories (`ESTALE`);
/// * `directory` is a symlink or a file (`ENOTDIR`), or has no name, such as `/` and `..` (`EINVAL`);
/// * a seccomp filter of the caller denies openat2(2), or `/proc` is not mounted.
///
/// # Examples
///
/// ```
/// use stockade::collect::remove_dir_all;
/// use stockade::{Command, Root, Sandbox};
///
/// let out = tempfile::tempdir()?;
/// let sandbox = Sandbox::new().root(Root::host().bind_rw(out.path(), "/out"));
/// let script = "mkdir -p /out/a/b && touch /out/a/b/c && chmod 0 /out/a/b /out/a";
/// assert!(sandbox.status(Command::new("sh").args(["-c", script]))?.success());
///
/// // If the caller is not root, `close` fails.
/// let path = out.path().to_owned();
/// if out.close().is_err() {
///     remove_dir_all(&path)?;
/// }
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn remove_dir_all(directory: impl Into<HostPath>) -> Result<()> {
    let directory = directory.into();
    let shown = directory.unresolved();
    let failed = |call, errno: Errno, remedy| Error::collect("remove", &shown, call, errno, remedy);
    let is_gone = |errno: Errno| errno.number() == libc::ENOENT;
    let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let (parent, name) = match directory.open_parent() {
        Err(ResolveError { errno, .. }) if is_gone(errno) => return Ok(()),
        other => other.map_err(|ResolveError { call, errno, hint }| failed(call, errno, hint))?,
    };
    let root = match openat(&parent, &*name, handle, Mode::empty()) {
        Err(NixErrno::ENOENT) => return Ok(()),
        Err(NixErrno::ENOTDIR) => return Err(failed("openat", Errno::ENOTDIR, Some(NOT_A_DIRECTORY))),
        other => other.map_err(|errno| failed("openat", errno.to_errno(), hint_for_errno(errno)))?,
    };
    let mut walk = RemovalWalk { descriptors: own_descriptors()?, shown: &shown, levels: vec![] };
    walk.empty(root)?;
    match unlinkat(&parent, &*name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(NixErrno::ENOENT) => Ok(()),
        Err(errno) => Err(failed("unlinkat", errno.to_errno(), hint_for_errno(errno))),
    }
}

/// A directory between the root and the one that is being emptied.
struct RemovalLevel {
    name: CString,
    seen: FileStat,
    /// Names that are still to be removed.
    names: std::vec::IntoIter<CString>,
    listings: u32,
    changes: u32,
}

struct RemovalWalk<'a> {
    descriptors: OwnedFd,
    shown: &'a Path,
    levels: Vec<RemovalLevel>,
}

impl RemovalWalk<'_> {
    /// Removes the contents of a directory.
    fn empty(&mut self, root: OwnedFd) -> Result<()> {
        let mut current = root;
        self.enter(&current, c"".into())?;
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.names.next() {
                if let Some(below) = self.remove(&current, &name)? {
                    self.enter(&below, name)?;
                    current = below;
                }
                continue;
            }
            // There may be more names than a batch has, or new ones.
            let names = self.list(&current)?;
            let Some(level) = self.levels.last_mut() else { break };
            if names.len() > 0 && level.listings < MAX_LISTINGS {
                level.names = names;
                level.listings += 1;
                continue;
            }
            let Some(RemovalLevel { name, .. }) = self.levels.pop() else { break };
            if self.levels.is_empty() {
                break;
            }
            current = self.leave(&current, &name)?;
        }
        Ok(())
    }

    /// Starts to empty a directory.
    fn enter(&mut self, directory: &OwnedFd, name: CString) -> Result<()> {
        let seen = fstat(directory).map_err(|errno| self.failed(&name, "fstat", errno))?;
        if !Mode::from_bits_truncate(seen.st_mode).contains(Mode::S_IRWXU) {
            // If it belongs to another user, the next call fails.
            let number = directory.as_raw_fd().to_string();
            let _ = fchmodat(&self.descriptors, number.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
        }
        if self.levels.len() >= LEVELS_WITH_NAMES {
            self.levels.last_mut().into_iter().for_each(|above| above.names = vec![].into_iter());
        }
        // The names are listed in the next iteration.
        self.levels.push(RemovalLevel { name, seen, names: vec![].into_iter(), listings: 0, changes: 0 });
        Ok(())
    }

    fn list(&self, directory: &OwnedFd) -> Result<std::vec::IntoIter<CString>> {
        let listed = list(directory, BATCH);
        Ok(listed.map_err(|errno| self.failed(c"", "openat2", errno))?.0.into_iter())
    }

    /// Removes an entry, or returns it, if it is a directory that is not empty.
    fn remove(&mut self, directory: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>> {
        let removed = match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(NixErrno::EISDIR) => unlinkat(directory, name, UnlinkatFlags::RemoveDir),
            other => other,
        };
        let (call, errno) = match removed {
            Ok(()) | Err(NixErrno::ENOENT) => return Ok(None),
            Err(NixErrno::ENOTEMPTY) => {
                match open_in(directory, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
                    Ok(below) => return Ok(Some(below)),
                    Err(NixErrno::ENOENT) => return Ok(None),
                    Err(errno) => ("openat2", errno),
                }
            }
            Err(errno) => ("unlinkat", errno),
        };
        match errno {
            // The name refers to something else by now: list the directory again.
            NixErrno::ENOTDIR | NixErrno::ELOOP if self.may_retry() => Ok(None),
            _ => Err(self.failed(name, call, errno)),
        }
    }

    /// Returns to the parent directory, and removes the one that was emptied.
    fn leave(&mut self, directory: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
        let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above =
            openat(directory, "..", handle, Mode::empty()).map_err(|errno| self.failed(name, "openat", errno))?;
        let seen = fstat(&above).map_err(|errno| self.failed(name, "fstat", errno))?;
        // It may have been moved in the meantime.
        if !self.levels.last().is_some_and(|level| is_same(&level.seen, &seen)) {
            return Err(self.failed(name, "openat", NixErrno::ESTALE));
        }
        match unlinkat(&above, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(NixErrno::ENOENT) => Ok(above),
            // List it again.
            Err(NixErrno::ENOTEMPTY | NixErrno::ENOTDIR) if self.may_retry() => Ok(above),
            Err(errno) => Err(self.failed(name, "unlinkat", errno)),
        }
    }

    /// Counts a change of an entry in the current directory. Returns whether to try again.
    fn may_retry(&mut self) -> bool {
        self.levels.last_mut().is_some_and(|level| {
            level.changes += 1;
            level.changes <= MAX_CHANGES
        })
    }

    /// Returns the error of a call on an entry of the current directory, or with an empty name on the directory itself.
    fn failed(&self, name: &CStr, call: &'static str, errno: NixErrno) -> Error {
        let above = self.levels.iter().skip(1).map(|level| &*level.name);
        let mut path = self.shown.to_owned();
        for name in above.chain([name]).filter(|name| !name.is_empty()) {
            if path.as_os_str().len() + 1 + name.count_bytes() > MAX_PATH {
                break;
            }
            path.push(OsStr::from_bytes(name.to_bytes()));
        }
        Error::collect("remove", path, call, errno, hint_for_errno(errno))
    }
}

const NOT_A_DIRECTORY: &str = "it is a symlink or a file: remove it with std::fs::remove_file if it is yours";

fn hint_for_errno(errno: NixErrno) -> Option<&'static str> {
    match errno {
        NixErrno::EACCES | NixErrno::EPERM => Some(
            "it or its directory belongs to another user or is immutable (lsattr(1)): remove it as that user, in a sandbox with \
             the same identity, or as root after chattr(1)",
        ),
        NixErrno::EXDEV | NixErrno::EBUSY => Some("it is a mount point: unmount it first"),
        NixErrno::EROFS => Some("the mount is read-only: pass a path at which it is writable"),
        NixErrno::ENOTEMPTY | NixErrno::ESTALE | NixErrno::ENOTDIR | NixErrno::ELOOP => {
            Some("a process is changing it: kill the sandbox first (Child::wait, or drop the Child)")
        }
        _ => None,
    }
}
