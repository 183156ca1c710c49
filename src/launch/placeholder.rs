//! Placeholders: files and directories that are created on the host at protected paths that do not exist, so that a
//! program cannot create them.
//!
//! A placeholder is empty or has contents without a meaning, and is marked by a modification time that no other file
//! has. Each sandbox that protects the path holds a shared lock on it (flock(2)), and the last sandbox removes it. If
//! its caller was killed, the placeholder remains. The next sandbox that protects the path recognizes it by the mark,
//! and removes it later.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result};
use crate::file_size;
use crate::host_path::HostPath;
use crate::layer::Layer;
use crate::plan::Placeholder;

/// The file or directory at a protected path. It is locked until this is dropped.
#[derive(Debug)]
pub(super) struct HeldPlaceholder {
    parent: OwnedFd,
    placeholder: Placeholder,
    lock: Flock<OwnedFd>,
}

/// How often an attempt is repeated if another process holds an exclusive lock, and the pause before each.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

impl HeldPlaceholder {
    /// Creates a placeholder, or locks an existing one. Returns `None` if the path has a file that is not a
    /// placeholder.
    pub fn take(placeholder: &Placeholder) -> Result<Option<Self>> {
        let failed = |call: &'static str, errno: Errno| {
            let remedy = match errno {
                Errno::EWOULDBLOCK => "kill the process that holds a lock on it",
                Errno::EROFS | Errno::EACCES => "create it as a user who may write there",
                Errno::ELOOP => "remove the symlink that has replaced it",
                Errno::EFBIG => file_size::HINT,
                _ => "create it yourself, or do not protect it",
            };
            let error = Error::set_up("create a placeholder for the protected path", call, errno, Some(remedy));
            error.on(placeholder.path()).of(Layer::Root)
        };
        // The path was resolved when it was compiled, so it contains no symlink unless one was created since.
        let parent = HostPath::beneath("/", placeholder.parent.strip_prefix("/").unwrap_or(&placeholder.parent));
        let parent = parent.open(OFlag::O_PATH | OFlag::O_DIRECTORY);
        let parent = parent.map_err(|error| failed(error.call, Errno::from_raw(error.errno.number())))?;
        for _ in 0..TRIES {
            let created = match placeholder.create(&parent) {
                Ok(file) => Some(file),
                Err((_, Errno::EEXIST)) => None,
                Err((call, errno)) => return Err(failed(call, errno)),
            };
            let is_new = created.is_some();
            let file = match created.map_or_else(|| placeholder.open(&parent), Ok) {
                Ok(file) => file,
                Err(Errno::ENOENT) => continue,
                // A placeholder can be read.
                Err(_) => return Ok(None),
            };
            let is_marked = !is_new && is_marked(&file);
            if !is_new && !is_marked && !placeholder.may_be(&file) {
                return Ok(None);
            }
            match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(lock) => {
                    // Another sandbox may have removed the file before this lock was taken.
                    if placeholder.is_at(&parent, &lock) {
                        if is_new {
                            placeholder.finish(&lock).map_err(|errno| failed("futimens", errno))?;
                        }
                        return Ok(Some(Self { parent, placeholder: placeholder.clone(), lock }));
                    }
                }
                Err(_) if !is_marked && !is_new => return Ok(None),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Err(failed("flock", Errno::EWOULDBLOCK))
    }
}

impl Drop for HeldPlaceholder {
    fn drop(&mut self) {
        let is_last = is_marked(&*self.lock) && self.lock.relock(FlockArg::LockExclusiveNonblock).is_ok();
        if is_last && is_marked(&*self.lock) && self.placeholder.is_at(&self.parent, &self.lock) {
            // A directory is removed only if it is empty.
            let _ = unlinkat(&self.parent, &*self.placeholder.name, self.placeholder.unlink());
        }
    }
}

impl Placeholder {
    fn create(&self, parent: &OwnedFd) -> std::result::Result<OwnedFd, (&'static str, Errno)> {
        let name: &OsStr = &self.name;
        if let Some(contents) = &self.contents {
            file_size::check(contents.len() as u64).map_err(|errno| ("write", errno))?;
        } else {
            mkdirat(parent, name, Mode::from_bits_truncate(0o755)).map_err(|errno| ("mkdirat", errno))?;
            return self.open(parent).map_err(|errno| ("openat", errno));
        }
        let new = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(parent, name, new, Mode::from_bits_truncate(0o644)).map_err(|errno| ("openat", errno))
    }

    fn open(&self, parent: &OwnedFd) -> nix::Result<OwnedFd> {
        let kind = if self.contents.is_none() { OFlag::O_DIRECTORY } else { OFlag::O_NONBLOCK | OFlag::O_NOCTTY };
        openat(parent, &*self.name, kind | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Returns whether a file may be a placeholder that another sandbox has created and not marked yet.
    fn may_be(&self, file: &OwnedFd) -> bool {
        let size = self.contents.as_ref().map(|contents| contents.len() as i64);
        fstat(file).is_ok_and(|seen| size.is_none_or(|size| seen.st_size == size || seen.st_size == 0))
    }

    /// Writes its contents and marks it.
    fn finish(&self, file: &Flock<OwnedFd>) -> nix::Result<()> {
        if let Some(contents) = &self.contents {
            let copy = file.try_clone().map_err(|_| Errno::EMFILE)?;
            File::from(copy).write_all(contents).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        }
        fchmod(&**file, Mode::from_bits_truncate(if self.contents.is_none() { 0o755 } else { 0o644 }))?;
        futimens(&**file, &TimeSpec::new(Placeholder::MARK, 0), &TimeSpec::new(Placeholder::MARK, 0))
    }

    /// Returns whether the name still refers to this file.
    fn is_at(&self, parent: &OwnedFd, file: &Flock<OwnedFd>) -> bool {
        let same = |one: FileStat, other: FileStat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
        let now = nix::sys::stat::fstatat(parent, &*self.name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| fstat(&**file).is_ok_and(|held| same(now, held)))
    }

    fn unlink(&self) -> UnlinkatFlags {
        if self.contents.is_none() { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir }
    }
}

/// Returns whether a file is a placeholder that was not changed since it was created.
fn is_marked(file: impl AsFd) -> bool {
    const FILE: SFlag = SFlag::S_IFREG;
    fstat(file).is_ok_and(|seen| {
        let kind = SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT;
        let only_name = kind != FILE || seen.st_nlink == 1;
        seen.st_mtime == Placeholder::MARK && seen.st_mtime_nsec == 0 && only_name
    })
}
