//! Placeholders on the host: what stands where a protected path does not exist, so that a program can't create it.
//!
//! One is empty, or has contents that mean nothing, and carries a time of modification that nothing else has. Each sandbox that
//! protects its place holds a shared lock on it (flock(2)), and the last one that ends removes it. If that caller was killed,
//! the next one that protects the place finds the mark and removes it in the end.

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
use crate::host_path::HostPath;
use crate::outcome::Layer;
use crate::plan::Placeholder;

/// What stands at a protected path, and stays as long as this is held.
#[derive(Debug)]
pub(super) struct Held {
    parent: OwnedFd,
    placeholder: Placeholder,
    lock: Flock<OwnedFd>,
}

/// How often a lock is tried again that another process holds alone, and the pause before.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

impl Held {
    /// Creates a placeholder, or holds what is there. Nothing is held of what can't be one.
    pub fn take(placeholder: &Placeholder) -> Result<Option<Self>> {
        let failed = |call: &'static str, errno: Errno| {
            let remedy = match errno {
                Errno::EWOULDBLOCK => "another process holds a lock on it: end that process",
                Errno::EROFS | Errno::EACCES => "create it there yourself, as who may write there",
                Errno::ELOOP => "it was replaced by a symlink: remove that",
                _ => "create it there yourself, or do not protect it",
            };
            let error = Error::set_up("keeping a place for what is protected:", call, errno, Some(remedy));
            error.on(placeholder.path()).of(Layer::Root)
        };
        // Already resolved: no symlink is left in it.
        let parent = HostPath::beneath("/", placeholder.parent.strip_prefix("/").unwrap_or(&placeholder.parent));
        let parent = parent.open(OFlag::O_PATH | OFlag::O_DIRECTORY);
        let parent = parent.map_err(|error| failed(error.call, Errno::from_raw(error.errno.0)))?;
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
                // What can't be read is no placeholder.
                Err(_) => return Ok(None),
            };
            let is_marked = !is_new && is_marked(&file);
            if !is_new && !is_marked && !placeholder.may_be(&file) {
                return Ok(None);
            }
            match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(lock) => {
                    // Whoever has removed it meanwhile has had the lock before.
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

impl Drop for Held {
    fn drop(&mut self) {
        let alone = is_marked(&*self.lock) && self.lock.relock(FlockArg::LockExclusiveNonblock).is_ok();
        if alone && is_marked(&*self.lock) && self.placeholder.is_at(&self.parent, &self.lock) {
            // Of a directory this removes an empty one alone.
            let _ = unlinkat(&self.parent, &*self.placeholder.name, self.placeholder.unlink());
        }
    }
}

impl Placeholder {
    fn create(&self, parent: &OwnedFd) -> std::result::Result<OwnedFd, (&'static str, Errno)> {
        let name: &OsStr = &self.name;
        if self.contents.is_none() {
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

    /// Whether it may be one that is not marked yet.
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

    /// Whether the name still stands for this file.
    fn is_at(&self, parent: &OwnedFd, file: &Flock<OwnedFd>) -> bool {
        let same = |one: FileStat, other: FileStat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
        let now = nix::sys::stat::fstatat(parent, &*self.name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| fstat(&**file).is_ok_and(|held| same(now, held)))
    }

    fn unlink(&self) -> UnlinkatFlags {
        if self.contents.is_none() { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir }
    }
}

/// Whether this is a placeholder, and nobody has written to it since.
fn is_marked(file: impl AsFd) -> bool {
    const FILE: SFlag = SFlag::S_IFREG;
    fstat(file).is_ok_and(|seen| {
        let kind = SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT;
        let only_name = kind != FILE || seen.st_nlink == 1;
        seen.st_mtime == Placeholder::MARK && seen.st_mtime_nsec == 0 && only_name
    })
}
