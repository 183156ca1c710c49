//! The removal of a hostile directory with all that is in it. One directory is open at a time, however deep they are nested,
//! and one name at a time leads on, so that nothing outside is reached and no path is too long.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno as NixErrno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::place::{is_same, list, open_in, own_descriptors};
use crate::error::{Errno, Error, Result};
use crate::host_path::{HostPath, Unresolved};

/// Names that are in memory at a time, of each directory.
const BATCH: u64 = 256;
/// How many directories on the way keep theirs. Those below list them again.
const KEPT: usize = 64;
/// How often a directory is listed.
const ROUNDS: u32 = 1 << 20;
/// How often an entry may become something else before it is removed.
const CHANGES: u32 = 100;
/// Bytes of a path that an error tells at most (PATH_MAX): a program may have nested directories deeper.
const LONGEST: usize = 4095;

/// Removes a directory that a program could write to, with everything in it.
///
/// `std::fs::remove_dir_all`, and so `tempfile::TempDir::close`, fails where the program has taken the right to read or
/// enter a directory from an ordinary user (mode 000, as the kernel gives it to the `work` directory of an
/// [`Overlay`](crate::Overlay)), and where directories are nested deeper than the caller may have descriptors. This function
///
/// * gives the caller the right to read, enter and change each directory that belongs to it (mode 0700), through a descriptor
///   of that very directory;
/// * takes four descriptors, however deep directories are nested, and memory for 256 names of each of 64 levels. Of the
///   levels below those one name each is in memory;
/// * removes symlinks, and never follows one, nor enters another mount, also while a process of the program lives and
///   exchanges what is there (openat2(2), since Linux 5.6).
///
/// What is gone already is no error, nor is a directory that does not exist: the function can be called again, and by several
/// threads at once. A symlink in the last component of `directory` is an error, also with
/// [`HostPath::follow_symlinks`]: it may lead anywhere. For paths that lead through a directory that the program could write to
/// use [`HostPath::beneath`].
///
/// Kill the sandbox first ([`Child::wait`](crate::Child::wait), or drop the [`Child`](crate::Child)): a process that goes on
/// creating files can keep the function busy for as long as it likes.
///
/// ```
/// use stockade::{Command, Root, Sandbox, remove_dir_all};
///
/// let out = tempfile::tempdir()?;
/// let sandbox = Sandbox::new().root(Root::host().bind_rw(out.path(), "/out"));
/// let script = "mkdir -p /out/a/b && touch /out/a/b/c && chmod 0 /out/a/b /out/a";
/// assert!(sandbox.status(Command::new("sh").args(["-c", script]))?.success());
///
/// // For an ordinary user `close` fails.
/// let path = out.path().to_owned();
/// if out.close().is_err() {
///     remove_dir_all(&path)?;
/// }
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Collect`] with the path of the first entry that can't be removed, what the kernel said, and what to do. What was
/// removed before stays removed, and what comes after it stays. Of a path that is longer than 4095 bytes (PATH_MAX) the error
/// has the beginning. It happens where
///
/// * a directory that is not empty belongs to another user than the caller, as one of a sandbox with sub-ids (`EACCES`), or a
///   file is in a sticky directory of another user (`EPERM`);
/// * a file or directory is immutable or append-only (`EPERM`). No sandboxed program can make it so, and the function does not
///   change it;
/// * something is mounted (`EBUSY`);
/// * a process of the program goes on to write there (`ENOTEMPTY`) or moves directories (`ESTALE`);
/// * `directory` is a symlink or a file (`ENOTDIR`), or has no name, such as `/` and `..` (`EINVAL`);
/// * openat2(2) is refused by a filter of system calls around the caller, or /proc is not mounted.
pub fn remove_dir_all(directory: impl Into<HostPath>) -> Result<()> {
    let directory = directory.into();
    let shown = directory.given();
    let failed = |call, errno: Errno, remedy| Error::collect("removing", &shown, call, errno, remedy);
    let is_gone = |errno: Errno| errno.0 == libc::ENOENT;
    let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let (parent, name) = match directory.open_parent() {
        Err(Unresolved { errno, .. }) if is_gone(errno) => return Ok(()),
        other => other.map_err(|Unresolved { call, errno, remedy }| failed(call, errno, remedy))?,
    };
    let root = match openat(&parent, &*name, handle, Mode::empty()) {
        Err(NixErrno::ENOENT) => return Ok(()),
        Err(NixErrno::ENOTDIR) => return Err(failed("openat", NixErrno::ENOTDIR.into(), Some(NO_DIRECTORY))),
        other => other.map_err(|errno| failed("openat", errno.into(), remedy_of(errno)))?,
    };
    let mut walk = Walk { descriptors: own_descriptors()?, shown: &shown, levels: vec![] };
    walk.empty(root)?;
    match unlinkat(&parent, &*name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(NixErrno::ENOENT) => Ok(()),
        Err(errno) => Err(failed("unlinkat", errno.into(), remedy_of(errno))),
    }
}

/// A directory on the way to the one that is being emptied.
struct Level {
    name: CString,
    seen: FileStat,
    /// Names in it that are still to be removed.
    names: std::vec::IntoIter<CString>,
    rounds: u32,
    changes: u32,
}

struct Walk<'a> {
    descriptors: OwnedFd,
    shown: &'a Path,
    levels: Vec<Level>,
}

impl Walk<'_> {
    /// Removes all that is in a directory.
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
            // Others may be there that there was no room for, or that have come.
            let names = self.list(&current)?;
            let Some(level) = self.levels.last_mut() else { break };
            if names.len() > 0 && level.rounds < ROUNDS {
                level.names = names;
                level.rounds += 1;
                continue;
            }
            let Some(Level { name, .. }) = self.levels.pop() else { break };
            if self.levels.is_empty() {
                break;
            }
            current = self.leave(&current, &name)?;
        }
        Ok(())
    }

    /// Begins with a directory.
    fn enter(&mut self, directory: &OwnedFd, name: CString) -> Result<()> {
        let seen = fstat(directory).map_err(|errno| self.failed(&name, "fstat", errno))?;
        if !Mode::from_bits_truncate(seen.st_mode).contains(Mode::S_IRWXU) {
            // Where it is another user's, the next call says so.
            let number = directory.as_raw_fd().to_string();
            let _ = fchmodat(&self.descriptors, number.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
        }
        if self.levels.len() >= KEPT {
            self.levels.last_mut().into_iter().for_each(|above| above.names = vec![].into_iter());
        }
        // The names are listed when it is looked at next.
        self.levels.push(Level { name, seen, names: vec![].into_iter(), rounds: 0, changes: 0 });
        Ok(())
    }

    fn list(&self, directory: &OwnedFd) -> Result<std::vec::IntoIter<CString>> {
        let listed = list(directory, BATCH);
        Ok(listed.map_err(|errno| self.failed(c"", "openat2", errno))?.0.into_iter())
    }

    /// Removes what a name in a directory stands for, or gives it, if it is a directory that is not empty.
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
            // Another one has the name by now: it is listed once more.
            NixErrno::ENOTDIR | NixErrno::ELOOP if self.may_change() => Ok(None),
            _ => Err(self.failed(name, call, errno)),
        }
    }

    /// Goes back to the directory above, and removes the one that was emptied.
    fn leave(&mut self, directory: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
        let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above =
            openat(directory, "..", handle, Mode::empty()).map_err(|errno| self.failed(name, "openat", errno))?;
        let seen = fstat(&above).map_err(|errno| self.failed(name, "fstat", errno))?;
        // It may have been moved elsewhere meanwhile.
        if !self.levels.last().is_some_and(|level| is_same(&level.seen, &seen)) {
            return Err(self.failed(name, "openat", NixErrno::ESTALE));
        }
        match unlinkat(&above, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(NixErrno::ENOENT) => Ok(above),
            // It is listed once more.
            Err(NixErrno::ENOTEMPTY | NixErrno::ENOTDIR) if self.may_change() => Ok(above),
            Err(errno) => Err(self.failed(name, "unlinkat", errno)),
        }
    }

    /// Whether an entry of the current directory may have become something else once more.
    fn may_change(&mut self) -> bool {
        self.levels.last_mut().is_some_and(|level| {
            level.changes += 1;
            level.changes <= CHANGES
        })
    }

    /// The error of a call on an entry of the current directory, or on that itself, which has no name then.
    fn failed(&self, name: &CStr, call: &'static str, errno: NixErrno) -> Error {
        let above = self.levels.iter().skip(1).map(|level| &*level.name);
        let mut path = self.shown.to_owned();
        for name in above.chain([name]).filter(|name| !name.is_empty()) {
            if path.as_os_str().len() + 1 + name.count_bytes() > LONGEST {
                break;
            }
            path.push(OsStr::from_bytes(name.to_bytes()));
        }
        Error::collect("removing", path, call, errno, remedy_of(errno))
    }
}

const NO_DIRECTORY: &str = "it is a symlink or a file: if it is yours, remove it by std::fs::remove_file";

fn remedy_of(errno: NixErrno) -> Option<&'static str> {
    match errno {
        NixErrno::EACCES | NixErrno::EPERM => Some(
            "it, or the directory that it is in, belongs to another user or is immutable (lsattr(1)): remove it as that user, \
             in a sandbox with the same identity, or as root after chattr(1)",
        ),
        NixErrno::EXDEV | NixErrno::EBUSY => Some("something is mounted there: unmount it first"),
        NixErrno::EROFS => Some("it is mounted read-only: remove it by a path at which it is writable"),
        NixErrno::ENOTEMPTY | NixErrno::ESTALE | NixErrno::ENOTDIR | NixErrno::ELOOP => {
            Some("a process changes it meanwhile: end the sandbox first (Child::wait, or drop it)")
        }
        _ => None,
    }
}
