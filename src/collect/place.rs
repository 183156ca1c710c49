//! Opening what is in a hostile directory: one component at a time, and nothing but its type is looked at before it is
//! known to be a regular file.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno as NixErrno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::Unfit;
use super::tree::OPEN;
use crate::error::{Errno, Error, Result};
use crate::host_path::{HostPath, REFUSED, Unresolved};

/// The host's own list of descriptors, by which a file is opened that is known already.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A directory that is collected from.
pub(super) struct Source {
    pub root: OwnedFd,
    descriptors: OwnedFd,
    hard_links: bool,
    /// Whether what symbolic links say is wanted.
    symlinks: bool,
}

/// What is found by a name.
pub(super) enum Entry {
    /// It can be looked into by [`Source::look`] and [`list`].
    Directory(OwnedFd, FileStat),
    /// Open for reading.
    File(File, FileStat),
    /// A symbolic link, with what it says.
    Symlink(OsString),
    Unfit(Unfit),
    /// There is nothing, or nothing any more.
    Gone,
}

/// A call that the host itself is in no state to make.
pub(super) struct Failed {
    pub call: &'static str,
    pub errno: NixErrno,
}

impl Source {
    pub fn open(from: &HostPath, hard_links: bool, symlinks: bool) -> Result<Self> {
        let failed = |call, errno: Errno, remedy| Error::collect("collecting from", from.given(), call, errno, remedy);
        let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let named = from.open(handle).map_err(|Unresolved { call, errno, remedy }| failed(call, errno, remedy))?;
        let refused = |errno| matches!(errno, NixErrno::ENOSYS | NixErrno::EPERM).then_some(REFUSED);
        let root = open_in(&named, c".", handle).map_err(|errno| failed("openat2", errno.into(), refused(errno)))?;
        Ok(Self { root, descriptors: own_descriptors()?, hard_links, symlinks })
    }

    /// Opens what a name in a directory stands for. An error means that the host can't go on.
    pub fn look(&self, directory: &OwnedFd, name: &CStr) -> Result<Entry, Failed> {
        let place = match open_in(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(place) => place,
            Err(NixErrno::ENOENT) => return Ok(Entry::Gone),
            Err(NixErrno::EXDEV) => return Ok(Entry::Unfit(Unfit::Mount)),
            Err(errno) => return unreadable("openat2", errno),
        };
        let seen = match fstat(&place) {
            Ok(seen) => seen,
            Err(errno) => return unreadable("fstat", errno),
        };
        if is_directory(&seen) {
            return Ok(Entry::Directory(place, seen));
        }
        if kind(&seen) == SFlag::S_IFLNK && self.symlinks {
            // Of that very link, whatever has the name by now.
            return readlinkat(&place, "")
                .map_or_else(|errno| unreadable("readlinkat", errno), |text| Ok(Entry::Symlink(text)));
        }
        if let Some(unfit) = self.unfit(&seen) {
            return Ok(Entry::Unfit(unfit));
        }
        // The type is of that very file, whatever has the name by now. O_NONBLOCK is for leases.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let number = place.as_raw_fd().to_string();
        let opened = openat(&self.descriptors, number.as_str(), flags, Mode::empty());
        let (file, now) = match opened.and_then(|file| fstat(&file).map(|now| (file, now))) {
            Ok(both) => both,
            Err(errno) => return unreadable("open", errno),
        };
        if !is_same(&seen, &now) {
            return unreadable("open", NixErrno::ESTALE);
        }
        Ok(self.unfit(&now).map_or_else(|| Entry::File(file.into(), now), Entry::Unfit))
    }

    /// Gives a directory of the copy its mode: the directory itself, whatever has its name by now.
    pub fn open_up(&self, directory: &OwnedFd) -> nix::Result<()> {
        let number = directory.as_raw_fd().to_string();
        fchmodat(&self.descriptors, number.as_str(), OPEN, FchmodatFlags::FollowSymlink)
    }

    fn unfit(&self, seen: &FileStat) -> Option<Unfit> {
        match kind(seen) {
            SFlag::S_IFREG if seen.st_nlink > 1 && !self.hard_links => Some(Unfit::HardLink),
            SFlag::S_IFREG => None,
            SFlag::S_IFLNK => Some(Unfit::Symlink),
            _ => Some(Unfit::Special),
        }
    }
}

/// The names in a directory in their order, at most one more than `most`, and how many there are.
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
    // A directory that is changed meanwhile may show a name twice (readdir(3)).
    names.dedup();
    Ok((names, count))
}

/// Whether two looks were at the same file.
pub(super) fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Opens a name in a directory, and nothing that is elsewhere.
pub(super) fn open_in(directory: impl AsFd, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let inside = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(directory, name, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(inside))
}

pub(super) fn own_descriptors() -> Result<OwnedFd> {
    let failed = |errno| {
        Error::collect("collecting by", DESCRIPTORS, "open", errno, Some("the host needs its /proc: mount one there"))
    };
    let handle = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let descriptors = open(DESCRIPTORS, handle, Mode::empty()).map_err(failed)?;
    if fstatfs(&descriptors).map_err(failed)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Ok(descriptors);
    }
    Err(Error::invalid(
        "/proc of the host is no proc file system",
        "mount one there: files are opened by /proc/self/fd",
    ))
}

/// What can't be opened is left, unless it is for want of something of the host's.
fn unreadable(call: &'static str, errno: NixErrno) -> Result<Entry, Failed> {
    let why = Errno::from(errno);
    if why.limit().is_some() { Err(Failed { call, errno }) } else { Ok(Entry::Unfit(Unfit::Unreadable(why))) }
}

pub(super) fn is_directory(seen: &FileStat) -> bool {
    kind(seen) == SFlag::S_IFDIR
}

fn kind(seen: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT
}
