//! Who makes a call that waits: what its paths mean, as its root, its working directory and its descriptors are meanwhile.
//!
//! Whatever is opened here is opened with `O_PATH`: nothing happens to it, and nothing blocks.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{Read, read_to_string};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlink, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Error, Result};
use crate::sys::attribute::attribute;
use crate::watch::Notification;

/// The thread that makes a call.
pub(super) struct Caller {
    /// Its directory in the host's `/proc`.
    proc: OwnedFd,
    root: OwnedFd,
}

/// What a path leads to.
pub(super) struct Place {
    /// Its path without symbolic links, from the root of the mount namespace on.
    pub path: PathBuf,
    /// What is there.
    pub file: Option<OwnedFd>,
    /// Whether it is on a mount that is read-only.
    pub is_read_only: bool,
}

/// Symbolic links that the kernel follows at most (path_resolution(7)).
const LINKS: usize = 40;

impl Caller {
    /// Who makes this call; none if nobody waits for its answer any more.
    pub fn of(call: &Notification<'_>) -> Result<Option<Self>> {
        let directory = format!("/proc/{}", call.pid());
        let opened = open(AT_FDCWD, OsStr::new(&directory)).and_then(|proc| {
            let root = follow(&proc, OsStr::new("root"))?;
            Ok(Self { proc, root })
        });
        match opened {
            // Then the pid was the caller's, and the descriptor stays so.
            _ if !call.is_waiting() => Ok(None),
            Ok(caller) => Ok(Some(caller)),
            Err(errno) => Err(Error::host("looking at the root of a process by /proc/[pid]/root")(errno)),
        }
    }

    /// One of its descriptors.
    pub fn descriptor(&self, number: u64) -> nix::Result<OwnedFd> {
        follow(&self.proc, OsStr::new(&self.link(number)))
    }

    /// What one of its descriptors is called in `/proc`.
    pub fn name_of(&self, number: u64) -> nix::Result<PathBuf> {
        readlinkat(&self.proc, self.link(number).as_str()).map(PathBuf::from)
    }

    fn link(&self, number: u64) -> String {
        // The kernel looks at the lower half of a descriptor alone.
        match number as i32 {
            libc::AT_FDCWD => "cwd".into(),
            number => format!("fd/{number}"),
        }
    }

    /// The value of an entry of its auxiliary vector (getauxval(3)).
    pub fn auxiliary(&self, entry: u64) -> Option<u64> {
        let file = openat(&self.proc, "auxv", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = vec![];
        File::from(file).read_to_end(&mut bytes).ok()?;
        let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        (0..bytes.len()).step_by(16).find(|&at| word(at) == Some(entry)).and_then(|at| word(at + 8))
    }

    /// Where a path leads that is relative to a descriptor, or to the working directory.
    pub fn locate(&self, directory: u64, path: &[u8], follows: bool) -> nix::Result<Place> {
        let start = match path {
            [] => return Err(Errno::ENOENT),
            [b'/', ..] => self.root.try_clone().map_err(|_| Errno::EMFILE)?,
            _ => self.descriptor(directory)?,
        };
        self.walk(start, path, follows || path.ends_with(b"/"))
    }

    /// path_resolution(7), in the caller's place: links in `/proc` that lead to descriptors and to the caller itself mean
    /// what they mean to the caller.
    fn walk(&self, start: OwnedFd, path: &[u8], follows: bool) -> nix::Result<Place> {
        let mut at = start;
        let mut todo = parts(path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let is_last = todo.is_empty();
            if name == ".." {
                if !same(&at, &self.root)? {
                    at = open(&at, &name)?;
                }
                continue;
            }
            let found = match open(&at, &name) {
                Err(Errno::ENOENT) if is_last => return Place::missing(&at, &name),
                found => found?,
            };
            if !is_link(&found)? {
                at = found;
            } else if is_last && !follows {
                return Place::found(found);
            } else if leads_to_descriptor(&at)? {
                at = follow(&at, &name)?;
            } else {
                links += 1;
                let text = self.text(&found, &name)?;
                if links > LINKS {
                    return Err(Errno::ELOOP);
                }
                if text.as_bytes().starts_with(b"/") {
                    at = self.root.try_clone().map_err(|_| Errno::EMFILE)?;
                }
                todo.extend(parts(text.as_bytes()));
            }
        }
        Place::found(at)
    }

    /// What a symbolic link says.
    fn text(&self, link: &OwnedFd, name: &OsStr) -> nix::Result<OsString> {
        match name.to_str() {
            Some("self" | "thread-self") if is_proc(link)? => self.number(link).map(Into::into),
            _ => readlinkat(link, ""),
        }
    }

    /// The number of its process in a `/proc`: that of the host, or of the innermost pid namespace.
    fn number(&self, of: &OwnedFd) -> nix::Result<String> {
        let file = openat(&self.proc, "status", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let status = read_to_string(File::from(file)).map_err(|_| Errno::ESRCH)?;
        let line = status.lines().find_map(|line| line.strip_prefix("NStgid:")).unwrap_or_default();
        let mut numbers = line.split_whitespace();
        let is_of_host = fstat(of)?.st_dev == fstat(&self.proc)?.st_dev;
        let number = if is_of_host { numbers.next() } else { numbers.last() };
        number.map(str::to_owned).ok_or(Errno::ESRCH)
    }

    /// What a socket is called by the kernel, such as `TCP`.
    pub fn protocol(&self, number: u64) -> Option<String> {
        let path = format!("/proc/self/fd/{}/{}", self.proc.as_raw_fd(), self.link(number));
        let name = attribute(Path::new(&path), c"system.sockprotoname").ok()?;
        CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(str::to_owned)
    }

    /// Whether a path leads to something, and to this very file if it is given.
    pub fn reaches(&self, path: &Path, file: Option<&OwnedFd>) -> bool {
        let found = self.locate(0, path.as_os_str().as_bytes(), false).ok().and_then(|place| place.file);
        found.is_some_and(|found| file.is_none_or(|file| same(&found, file).unwrap_or(false)))
    }
}

impl Place {
    fn missing(directory: &OwnedFd, name: &OsStr) -> nix::Result<Self> {
        Ok(Self { path: path_of(directory)?.join(name), file: None, is_read_only: is_read_only(directory) })
    }

    /// What has no path, such as a pipe or a file that was removed, is no place.
    pub fn found(file: OwnedFd) -> nix::Result<Self> {
        let path = path_of(&file)?;
        if !path.has_root() || fstat(&file)?.st_nlink == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(Self { path, is_read_only: is_read_only(&file), file: Some(file) })
    }

    /// The kind of what is there, as the bits of its mode; none if nothing is.
    pub fn kind(&self) -> SFlag {
        let stat = self.file.as_ref().and_then(|file| fstat(file).ok());
        stat.map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
    }
}

/// The parts of a path, the last one first.
fn parts(path: &[u8]) -> Vec<OsString> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

fn open(directory: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn follow(directory: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(directory, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

fn is_link(file: &OwnedFd) -> nix::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(file)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK)
}

fn is_read_only(file: &OwnedFd) -> bool {
    fstatvfs(file).is_ok_and(|info| info.flags().contains(FsFlags::ST_RDONLY))
}

fn same(one: &OwnedFd, other: &OwnedFd) -> nix::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn is_proc(file: impl AsFd) -> nix::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// The number of the root of every `/proc` (`PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

/// Whether links in a directory lead to what processes have open: those of `/proc` below its root.
fn leads_to_descriptor(directory: &OwnedFd) -> nix::Result<bool> {
    Ok(is_proc(directory)? && fstat(directory)?.st_ino != PROC_ROOT)
}

/// The path of a file that is open, from the root of its mount namespace on, or what the kernel says instead.
fn path_of(file: &OwnedFd) -> nix::Result<PathBuf> {
    readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str()).map(PathBuf::from)
}
