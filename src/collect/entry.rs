//! Opening entries of an untrusted directory: one component at a time, and only for reading its type until it is known
//! to be a regular file.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno as NixErrno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::SkipReason;
use crate::advice::shortage;
use crate::error::{Error, Result};
use crate::host_path::{HostPath, NO_OPENAT2, ResolveError};
use crate::unix::{Errno, ToErrno};

/// The descriptors of the caller, by which an `O_PATH` descriptor is reopened for reading.
const DESCRIPTORS: &str = "/proc/self/fd";
/// The hint if that directory does not exist.
const MOUNT_PROC: &str = "mount /proc: files are opened through /proc/self/fd";

/// The mode of files in a copy: 0644.
pub(super) const READABLE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IROTH);
/// The mode of directories and programs in a copy: 0755.
pub(super) const EXECUTABLE: Mode = READABLE.union(Mode::S_IXUSR).union(Mode::S_IXGRP).union(Mode::S_IXOTH);

/// A directory that is collected from.
pub(super) struct UntrustedDirectory {
    pub root: OwnedFd,
    descriptors: OwnedFd,
    hard_links: bool,
    /// Whether the targets of symlinks are reported.
    symlinks: bool,
}

/// The result of looking up a name.
pub(super) enum Entry {
    /// A directory, for [`UntrustedDirectory::look_up`] and [`list`].
    Directory(OwnedFd, FileStat),
    /// A regular file, open for reading.
    File(File, FileStat),
    /// The target of a symlink.
    Symlink(OsString),
    Skip(SkipReason),
    /// The entry does not exist, or not any more.
    Missing,
}

/// A call that failed because the caller is short of a resource.
pub(super) struct Failed {
    pub call: &'static str,
    pub errno: NixErrno,
}

impl UntrustedDirectory {
    pub fn open(from: &HostPath, hard_links: bool, symlinks: bool) -> Result<Self> {
        let failed =
            |call, errno: Errno, remedy| Error::collect("collect from", from.unresolved(), call, errno, remedy);
        let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let named = from.open(handle).map_err(|ResolveError { call, errno, hint }| failed(call, errno, hint))?;
        let refused = |errno| matches!(errno, NixErrno::ENOSYS | NixErrno::EPERM).then_some(NO_OPENAT2);
        let root =
            open_in(&named, c".", handle).map_err(|errno| failed("openat2", errno.to_errno(), refused(errno)))?;
        Ok(Self { root, descriptors: own_descriptors()?, hard_links, symlinks })
    }

    /// Opens an entry of a directory by its name. An error means that the caller cannot continue.
    pub fn look_up(&self, directory: &OwnedFd, name: &CStr) -> Result<Entry, Failed> {
        let handle = match open_in(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(handle) => handle,
            Err(NixErrno::ENOENT) => return Ok(Entry::Missing),
            Err(NixErrno::EXDEV) => return Ok(Entry::Skip(SkipReason::Mount)),
            Err(errno) => return unreadable("openat2", errno),
        };
        let seen = match fstat(&handle) {
            Ok(seen) => seen,
            Err(errno) => return unreadable("fstat", errno),
        };
        if is_directory(&seen) {
            return Ok(Entry::Directory(handle, seen));
        }
        if kind(&seen) == SFlag::S_IFLNK && self.symlinks {
            // By the descriptor, because the name may refer to something else by now.
            return readlinkat(&handle, "")
                .map_or_else(|errno| unreadable("readlinkat", errno), |text| Ok(Entry::Symlink(text)));
        }
        if let Some(reason) = self.skip_reason(&seen) {
            return Ok(Entry::Skip(reason));
        }
        // By the descriptor, so that the type is that of this file. O_NONBLOCK is for leases.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let number = handle.as_raw_fd().to_string();
        let opened = openat(&self.descriptors, number.as_str(), flags, Mode::empty());
        let (file, now) = match opened.and_then(|file| fstat(&file).map(|now| (file, now))) {
            Ok(both) => both,
            Err(errno) => return unreadable("open", errno),
        };
        if !is_same(&seen, &now) {
            return unreadable("open", NixErrno::ESTALE);
        }
        Ok(self.skip_reason(&now).map_or_else(|| Entry::File(file.into(), now), Entry::Skip))
    }

    /// Sets the mode of a directory of the copy, by its descriptor.
    pub fn set_directory_mode(&self, directory: &OwnedFd) -> nix::Result<()> {
        let number = directory.as_raw_fd().to_string();
        fchmodat(&self.descriptors, number.as_str(), EXECUTABLE, FchmodatFlags::FollowSymlink)
    }

    fn skip_reason(&self, seen: &FileStat) -> Option<SkipReason> {
        match kind(seen) {
            SFlag::S_IFREG if seen.st_nlink > 1 && !self.hard_links => Some(SkipReason::HardLink),
            SFlag::S_IFREG => None,
            SFlag::S_IFLNK => Some(SkipReason::Symlink),
            _ => Some(SkipReason::Special),
        }
    }
}

/// Returns the sorted names in a directory, at most `most`, and how many there are, at most one more than that.
pub(super) fn list(directory: &OwnedFd, most: u64) -> nix::Result<(Vec<CString>, u64)> {
    let mut listing = Dir::from_fd(open_in(directory, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
    let mut names = vec![];
    let mut count = 0;
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        count += 1;
        if count > most {
            break;
        }
        names.push(name.to_owned());
    }
    names.sort_unstable();
    // A directory that is changed in the meantime may contain a name twice (readdir(3)).
    names.dedup();
    Ok((names, count))
}

/// Returns whether two results of stat(2) are of the same file.
pub(super) fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Opens a name in a directory, and nothing outside of it.
pub(super) fn open_in(directory: impl AsFd, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let inside = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(directory, name, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(inside))
}

pub(super) fn own_descriptors() -> Result<OwnedFd> {
    let failed = |errno| Error::collect("open", DESCRIPTORS, "open", errno, Some(MOUNT_PROC));
    let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let descriptors = open(DESCRIPTORS, handle, Mode::empty()).map_err(failed)?;
    if fstatfs(&descriptors).map_err(failed)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Ok(descriptors);
    }
    let error = Error::failure("open", "/proc of the caller is not a proc file system", MOUNT_PROC);
    Err(error.on(DESCRIPTORS))
}

/// Skips an entry that cannot be opened, unless that is because the caller is short of a resource.
fn unreadable(call: &'static str, errno: NixErrno) -> Result<Entry, Failed> {
    let reason = errno.to_errno();
    match shortage(reason) {
        Some(_) => Err(Failed { call, errno }),
        None => Ok(Entry::Skip(SkipReason::Unreadable(reason))),
    }
}

pub(super) fn is_directory(seen: &FileStat) -> bool {
    kind(seen) == SFlag::S_IFDIR
}

fn kind(seen: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT
}
