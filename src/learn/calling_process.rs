//! The process that makes an observed system call. Its paths are resolved with its root, working directory and
//! descriptors, while the call waits for an answer.
//!
//! All files are opened with `O_PATH`, so that nothing happens to them and nothing blocks.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlink, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::child::Notification;
use crate::error::{Error, Result};
use crate::process_status::ProcessStatus;
use crate::sys::xattr;

/// The thread that makes a call.
pub(super) struct CallingProcess {
    /// Its directory in the caller's `/proc`.
    proc: OwnedFd,
    root: OwnedFd,
}

/// The result of resolving a path.
pub(super) struct Located {
    /// Absolute path without symlinks, from the root of the mount namespace.
    pub path: PathBuf,
    /// The file. `None` if it does not exist.
    pub file: Option<OwnedFd>,
    /// Whether the mount is read-only.
    pub is_read_only: bool,
}

/// Maximum number of symlinks in a path (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl CallingProcess {
    /// Opens the process that makes this call. `None` if the call was interrupted, so that it no longer waits for an
    /// answer.
    pub fn of(call: &Notification<'_>) -> Result<Option<Self>> {
        let directory = format!("/proc/{}", call.pid());
        let opened = open(AT_FDCWD, OsStr::new(&directory)).and_then(|proc| {
            let root = follow(&proc, OsStr::new("root"))?;
            Ok(Self { proc, root })
        });
        match opened {
            // If the call is still waiting, the PID was not reused before it was opened.
            _ if !call.is_waiting() => Ok(None),
            Ok(caller) => Ok(Some(caller)),
            Err(errno) => Err(Error::io("open the root directory of a process through /proc/[pid]/root")(errno)),
        }
    }

    /// Opens the file of one of its descriptors.
    pub fn descriptor(&self, number: u64) -> nix::Result<OwnedFd> {
        follow(&self.proc, OsStr::new(&self.link(number)))
    }

    /// Returns the target of the `/proc` link of one of its descriptors.
    pub fn descriptor_target(&self, number: u64) -> nix::Result<PathBuf> {
        readlinkat(&self.proc, self.link(number).as_str()).map(PathBuf::from)
    }

    fn link(&self, number: u64) -> String {
        // The kernel uses only the lower 32 bits of a descriptor.
        match number as i32 {
            libc::AT_FDCWD => "cwd".into(),
            number => format!("fd/{number}"),
        }
    }

    /// Returns the value of an entry of its auxiliary vector (getauxval(3)).
    pub fn auxiliary(&self, entry: u64) -> Option<u64> {
        let file = openat(&self.proc, "auxv", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = vec![];
        File::from(file).read_to_end(&mut bytes).ok()?;
        let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        (0..bytes.len()).step_by(16).find(|&at| word(at) == Some(entry)).and_then(|at| word(at + 8))
    }

    /// Resolves a path relative to a descriptor or to the working directory.
    pub fn locate(&self, directory: u64, path: &[u8], follows: bool) -> nix::Result<Located> {
        let start = match path {
            [] => return Err(Errno::ENOENT),
            [b'/', ..] => self.root.try_clone().map_err(|_| Errno::EMFILE)?,
            _ => self.descriptor(directory)?,
        };
        self.walk(start, path, follows || path.ends_with(b"/"))
    }

    /// Resolves a path as the kernel does for this process (path_resolution(7)), including links in `/proc` to its
    /// descriptors and to itself.
    fn walk(&self, start: OwnedFd, path: &[u8], follows: bool) -> nix::Result<Located> {
        let mut at = start;
        let mut todo = components(path);
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
                Err(Errno::ENOENT) if is_last => return Located::missing(&at, &name),
                found => found?,
            };
            if !is_link(&found)? {
                at = found;
            } else if is_last && !follows {
                return Located::found(found);
            } else if leads_to_descriptor(&at)? {
                at = follow(&at, &name)?;
            } else {
                links += 1;
                let text = self.target(&found, &name)?;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP);
                }
                if text.as_bytes().starts_with(b"/") {
                    at = self.root.try_clone().map_err(|_| Errno::EMFILE)?;
                }
                todo.extend(components(text.as_bytes()));
            }
        }
        Located::found(at)
    }

    /// Returns the target of a symlink.
    fn target(&self, link: &OwnedFd, name: &OsStr) -> nix::Result<OsString> {
        match name.to_str() {
            Some("self" | "thread-self") if is_proc(link)? => self.pid_in(link).map(Into::into),
            _ => readlinkat(link, ""),
        }
    }

    /// Returns its PID as a `/proc` shows it: that of the caller, or of the innermost PID namespace.
    fn pid_in(&self, of: &OwnedFd) -> nix::Result<String> {
        let file = openat(&self.proc, "status", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut bytes = vec![];
        File::from(file).read_to_end(&mut bytes).map_err(|_| Errno::ESRCH)?;
        let status = ProcessStatus::parse(&bytes);
        let mut numbers = status.words("NStgid");
        let is_callers = fstat(of)?.st_dev == fstat(&self.proc)?.st_dev;
        let number = if is_callers { numbers.next() } else { numbers.last() };
        number.map(str::to_owned).ok_or(Errno::ESRCH)
    }

    /// Returns the protocol of a socket, such as `TCP`.
    pub fn protocol(&self, number: u64) -> Option<String> {
        let path = format!("/proc/self/fd/{}/{}", self.proc.as_raw_fd(), self.link(number));
        let name = xattr::get(Path::new(&path), c"system.sockprotoname").ok()?;
        CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(str::to_owned)
    }

    /// Returns whether a path resolves to a file, and to this file if one is given.
    pub fn reaches(&self, path: &Path, file: Option<&OwnedFd>) -> bool {
        let found = self.locate(0, path.as_os_str().as_bytes(), false).ok().and_then(|target| target.file);
        found.is_some_and(|found| file.is_none_or(|file| same(&found, file).unwrap_or(false)))
    }
}

impl Located {
    fn missing(directory: &OwnedFd, name: &OsStr) -> nix::Result<Self> {
        Ok(Self { path: path_of(directory)?.join(name), file: None, is_read_only: is_read_only(directory) })
    }

    /// Returns an error for a file without a path, such as a pipe or a removed file.
    pub fn found(file: OwnedFd) -> nix::Result<Self> {
        let path = path_of(&file)?;
        if !path.has_root() || fstat(&file)?.st_nlink == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(Self { path, is_read_only: is_read_only(&file), file: Some(file) })
    }

    /// Returns the file type bits of its mode. Empty if it does not exist.
    pub fn kind(&self) -> SFlag {
        let stat = self.file.as_ref().and_then(|file| fstat(file).ok());
        stat.map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
    }
}

/// Returns the components of a path, the last one first.
fn components(path: &[u8]) -> Vec<OsString> {
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

/// The inode number of the root of every `/proc` (`PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

/// Returns whether symlinks in a directory lead to open files of a process: those in `/proc` below its root.
fn leads_to_descriptor(directory: &OwnedFd) -> nix::Result<bool> {
    Ok(is_proc(directory)? && fstat(directory)?.st_ino != PROC_ROOT)
}

/// Returns the path of an open file from the root of its mount namespace, or a description of a file without a path.
fn path_of(file: &OwnedFd) -> nix::Result<PathBuf> {
    readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str()).map(PathBuf::from)
}
