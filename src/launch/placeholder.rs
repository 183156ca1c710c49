//! Placeholders: files and directories that are created on the host at protected paths that do not exist, so that a
//! program cannot create them.
//!
//! A placeholder is empty or has contents without a meaning, and is marked by a modification time that no other file
//! has. A program can set that time too, so only a marked file with the contents of a placeholder, or a marked empty
//! directory, is one. Each sandbox that protects the path holds a shared lock on it (flock(2)), and the last sandbox
//! removes it. If its caller was killed, the placeholder remains. The next sandbox that protects the path recognizes
//! it, and removes it later.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, ftruncate, unlinkat, write};

use crate::error::{Error, Result};
use crate::file_size;
use crate::host_path::HostPath;
use crate::layer::Layer;
use crate::plan::{Absent, Placeholder};

/// The file or directory at a protected path. It is locked until this is dropped.
#[derive(Debug)]
pub(super) struct HeldPlaceholder {
    parent: OwnedFd,
    placeholder: Placeholder,
    lock: Flock<OwnedFd>,
}

/// The modification time of placeholders, in seconds.
const MARK: i64 = 437_133;
/// How often an attempt is repeated if another process holds an exclusive lock, and the pause before each.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// The same for a file without a mark. A sandbox that has created it marks or removes it in a shorter time.
const UNMARKED_TRIES: u32 = 10;

/// A call that failed.
type Failed = (&'static str, Errno);

impl HeldPlaceholder {
    /// Creates a placeholder, or locks an existing one. Returns `None` if the path has a file that is not a
    /// placeholder.
    pub fn take(placeholder: &Placeholder) -> Result<Option<Self>> {
        let failed = |(call, errno): Failed| {
            let remedy = match errno {
                Errno::EWOULDBLOCK => "kill the process that holds a lock on it",
                Errno::EROFS | Errno::EACCES => "create it as a user who may write there",
                Errno::ELOOP => "remove the symlink that has replaced it",
                Errno::EFBIG => file_size::HINT,
                Errno::EMFILE | Errno::ENFILE => "close descriptors of the caller, or raise its RLIMIT_NOFILE",
                _ => "create it yourself, or do not protect it",
            };
            let error = Error::set_up("create a placeholder for the protected path", call, errno, Some(remedy));
            error.on(placeholder.path()).of(Layer::Root)
        };
        // The path was resolved when it was compiled, so it contains no symlink unless one was created since.
        let parent = HostPath::beneath("/", placeholder.parent.strip_prefix("/").unwrap_or(&placeholder.parent));
        let parent = parent.open(OFlag::O_PATH | OFlag::O_DIRECTORY);
        let parent = parent.map_err(|error| failed((error.call, Errno::from_raw(error.errno.number()))))?;
        let mut unmarked_tries = 0;
        for _ in 0..TRIES {
            let lock = match placeholder.create(&parent).map_err(failed)? {
                Some(file) => placeholder.finish(&parent, file).map_err(failed)?,
                None => {
                    let file = match placeholder.open(&parent) {
                        Ok(file) => file,
                        Err(Errno::ENOENT) => continue,
                        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
                            return Err(failed(("openat", errno)));
                        }
                        // A placeholder can be read.
                        Err(_) => return Ok(None),
                    };
                    let is_marked = is_unchanged(&file);
                    if !is_marked && !placeholder.may_be(&file) {
                        return Ok(None);
                    }
                    match Flock::lock(file, FlockArg::LockSharedNonblock) {
                        Ok(lock) => lock,
                        Err((_, errno)) if is_marked && errno != Errno::EWOULDBLOCK => {
                            return Err(failed(("flock", errno)));
                        }
                        // It is the user's own, unless another sandbox is about to mark or remove it.
                        Err(_) if !is_marked && unmarked_tries == UNMARKED_TRIES => return Ok(None),
                        Err(_) => {
                            unmarked_tries += u32::from(!is_marked);
                            std::thread::sleep(PAUSE);
                            continue;
                        }
                    }
                }
            };
            // Another sandbox may have removed the file before this lock was taken.
            if placeholder.is_at(&parent, &lock) {
                return Ok(Some(Self { parent, placeholder: placeholder.clone(), lock }));
            }
        }
        Err(failed(("flock", Errno::EWOULDBLOCK)))
    }
}

impl Drop for HeldPlaceholder {
    fn drop(&mut self) {
        if is_unchanged(&self.lock) {
            self.placeholder.remove_if_last(&self.parent, &self.lock, is_unchanged);
        }
    }
}

impl Placeholder {
    /// Creates the file. Returns `None` if one exists.
    fn create(&self, parent: &OwnedFd) -> std::result::Result<Option<OwnedFd>, Failed> {
        let name: &OsStr = &self.name;
        let created = match self.absent.contents() {
            Some(contents) => {
                file_size::check(contents.len() as u64).map_err(|errno| ("write", errno))?;
                let new = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(parent, name, new, Mode::from_bits_truncate(0o644)).map_err(|errno| ("openat", errno))
            }
            None => {
                // A directory that cannot be opened could not be locked, so the descriptor is reserved before.
                let reserved = parent.try_clone().map_err(|_| ("fcntl", Errno::EMFILE))?;
                mkdirat(parent, name, Mode::from_bits_truncate(0o755)).map_err(|errno| ("mkdirat", errno)).and_then(
                    |()| {
                        drop(reserved);
                        self.open(parent).map_err(|errno| {
                            let _ = unlinkat(parent, name, UnlinkatFlags::RemoveDir);
                            ("openat", errno)
                        })
                    },
                )
            }
        };
        match created {
            Ok(file) => Ok(Some(file)),
            Err((_, Errno::EEXIST)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, parent: &OwnedFd) -> nix::Result<OwnedFd> {
        let kind = match self.absent {
            Absent::Directory => OFlag::O_DIRECTORY,
            _ => OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        };
        openat(parent, &*self.name, kind | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Returns whether a file may be a placeholder that another sandbox has created and not marked yet.
    fn may_be(&self, file: &OwnedFd) -> bool {
        match self.absent.contents().map(|contents| contents.len() as i64) {
            Some(size) => fstat(file).is_ok_and(|seen| seen.st_size == size || seen.st_size == 0),
            None => is_empty_directory(file),
        }
    }

    /// Locks a new file, writes its contents and marks it. Removes it if that fails.
    fn finish(&self, parent: &OwnedFd, file: OwnedFd) -> std::result::Result<Flock<OwnedFd>, Failed> {
        let (mut file, mut tries) = (file, 0);
        let lock = loop {
            match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(lock) => break lock,
                Err((unlocked, Errno::EWOULDBLOCK)) if tries < TRIES => {
                    (file, tries) = (unlocked, tries + 1);
                    std::thread::sleep(PAUSE);
                }
                Err((unlocked, errno)) => {
                    // No other sandbox could lock it either.
                    if self.is_at(parent, &unlocked) {
                        self.unlink(parent, &unlocked);
                    }
                    return Err(("flock", errno));
                }
            }
        };
        match self.fill(&lock).and_then(|()| mark(&lock)) {
            Ok(()) => Ok(lock),
            Err(error) => {
                // Another sandbox may hold it already, and removes it later if it is marked.
                let _ = if self.absent == Absent::Directory { Ok(()) } else { ftruncate(&*lock, 0) };
                let _ = mark(&lock);
                self.remove_if_last(parent, &lock, |_| true);
                Err(error)
            }
        }
    }

    fn fill(&self, file: &OwnedFd) -> std::result::Result<(), Failed> {
        let contents = self.absent.contents().unwrap_or_default();
        match write(file, contents) {
            _ if contents.is_empty() => Ok(()),
            Ok(written) if written == contents.len() => Ok(()),
            Ok(_) => Err(("write", Errno::ENOSPC)),
            Err(errno) => Err(("write", errno)),
        }
    }

    /// Removes the file if no other sandbox holds it, and if it still meets the condition then.
    fn remove_if_last(&self, parent: &OwnedFd, lock: &Flock<OwnedFd>, condition: impl Fn(&OwnedFd) -> bool) {
        let is_last = lock.relock(FlockArg::LockExclusiveNonblock).is_ok();
        if is_last && condition(lock) && self.is_at(parent, lock) {
            self.unlink(parent, lock);
        }
    }

    /// Returns whether the name still refers to this file.
    fn is_at(&self, parent: &OwnedFd, file: &OwnedFd) -> bool {
        let same = |one: FileStat, other: FileStat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
        let now = nix::sys::stat::fstatat(parent, &*self.name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| fstat(file).is_ok_and(|held| same(now, held)))
    }

    /// Removes the name of a file. A directory is removed only if it is empty.
    fn unlink(&self, parent: &OwnedFd, file: &OwnedFd) {
        let is_directory = fstat(file).is_ok_and(|seen| kind(&seen) == SFlag::S_IFDIR);
        let how = if is_directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        let _ = unlinkat(parent, &*self.name, how);
    }
}

/// Marks a file as a placeholder.
fn mark(file: &OwnedFd) -> std::result::Result<(), Failed> {
    let is_directory = fstat(file).is_ok_and(|seen| kind(&seen) == SFlag::S_IFDIR);
    let mode = Mode::from_bits_truncate(if is_directory { 0o755 } else { 0o644 });
    fchmod(file, mode).map_err(|errno| ("fchmod", errno))?;
    let time = TimeSpec::new(MARK, 0);
    futimens(file, &time, &time).map_err(|errno| ("futimens", errno))
}

/// Returns whether a file is a placeholder that was not changed since it was created. A marked directory counts even if
/// it is not empty, since it cannot be removed then.
fn is_unchanged(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|seen| {
        is_marked(&seen)
            && match kind(&seen) {
                SFlag::S_IFDIR => true,
                SFlag::S_IFREG => seen.st_nlink == 1 && has_contents_of_placeholder(file),
                _ => false,
            }
    })
}

/// Returns whether a directory, which may have been opened with `O_PATH`, is a placeholder and counts as absent.
pub(crate) fn is_placeholder_directory(directory: impl AsFd) -> bool {
    let is_marked = fstat(&directory).is_ok_and(|seen| kind(&seen) == SFlag::S_IFDIR && is_marked(&seen));
    is_marked && is_empty_directory(directory)
}

fn is_empty_directory(directory: impl AsFd) -> bool {
    let listed = Dir::openat(&directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let is_own = |name: &[u8]| [&b"."[..], b".."].contains(&name);
    listed.is_ok_and(|listed| {
        listed.into_iter().all(|entry| entry.is_ok_and(|entry| is_own(entry.file_name().to_bytes())))
    })
}

fn is_marked(seen: &FileStat) -> bool {
    seen.st_mtime == MARK && seen.st_mtime_nsec == 0
}

fn kind(seen: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT
}

/// Whether a file has the contents of a placeholder, perhaps of one for another use of the path.
fn has_contents_of_placeholder(file: &OwnedFd) -> bool {
    let mut start = [0; 8];
    let read = pread(file, &mut start, 0).unwrap_or(start.len());
    Absent::ALL.iter().any(|absent| absent.contents() == Some(&start[..read]))
}
