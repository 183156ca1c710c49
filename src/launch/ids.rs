//! Host IDs of sandboxes, each reserved for as long as it is used.
//!
//! A reservation is a write lock on the byte of the ID's number in a file that root alone can open (fcntl(2),
//! `F_OFD_SETLK`). The kernel releases it with the caller's descriptor, so that nothing is left to clean up. Processes that
//! outlive their caller for some milliseconds, or whose caller has another `/run`, are found by their user ID.
#![allow(unsafe_code)]

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{Error, Result};
use crate::plan::HostRange;

/// Where the file may be: the second place is for systems without the first.
const DIRECTORIES: [&str; 2] = ["/run/stockade", "/dev/stockade"];
const FILE: &str = "ids";

/// A host ID that no other sandbox has until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    pub id: u32,
    lock: File,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // A forked child of the caller may have the description open still.
        let _ = set_lock(&self.lock, libc::F_UNLCK, self.id);
    }
}

/// Reserves an ID of a range. `seed` says where the search begins.
pub(super) fn reserve(range: HostRange, seed: u64) -> Result<Reserved> {
    let file = open()?;
    let count = range.count.max(1);
    let start = seed % u64::from(count);
    for offset in 0..u64::from(count) {
        let id = range.first + ((start + offset) % u64::from(count)) as u32;
        match set_lock(&file, libc::F_WRLCK, id) {
            Ok(()) if !is_in_use(id) => return Ok(Reserved { id, lock: file }),
            Ok(()) => set_lock(&file, libc::F_UNLCK, id).map_err(Error::host("releasing a host id"))?,
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err(Error::host("locking a host id")(errno)),
        }
    }
    Err(Error::invalid(
        format!("all {count} host ids from {} on are in use by sandboxes", range.first),
        "wait until a sandbox ends, or give a larger range: Identity::host_ids(first, count)",
    ))
}

fn set_lock(file: &File, kind: i32, id: u32) -> nix::Result<()> {
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: libc::off_t::from(id),
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

/// Whether a process has this user ID, in this pid namespace or one below.
fn is_in_use(id: u32) -> bool {
    // SAFETY: the call takes two numbers.
    let found = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_USER, id) };
    found >= 0
}

/// Opens the file. Each open file description has locks of its own.
fn open() -> Result<File> {
    let mut failure = None;
    for directory in DIRECTORIES.map(Path::new) {
        match open_in(directory) {
            Ok(file) => return Ok(file),
            // Not where somebody else may have a reservation that is not seen.
            Err(error) if !is_missing(&error) => {
                failure = Some((directory, error));
                break;
            }
            Err(error) => failure = failure.or(Some((directory, error))),
        }
    }
    let (directory, error) = failure.unwrap_or((Path::new(DIRECTORIES[0]), io::ErrorKind::NotFound.into()));
    let remedy = "let the caller create this directory, for root alone: mount -t tmpfs -o mode=755 tmpfs /run";
    Err(Error::set_up("reserving a host id in", "open", error, Some(remedy)).on(directory.join(FILE)))
}

/// Whether there is no directory to create a file in.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ReadOnlyFilesystem)
}

fn open_in(directory: &Path) -> io::Result<File> {
    let path = directory.join(FILE);
    let open = |create| {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        File::options().read(true).write(true).create(create).mode(0o600).custom_flags(flags).open(&path)
    };
    let file = match open(false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o700).create(directory) {
                Ok(()) => {
                    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
                    // The caller may have root's capabilities and another user ID.
                    chown(directory, Some(0), Some(0))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            is_roots(&fs::symlink_metadata(directory)?)?;
            let file = open(true)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            fchown(&file, Some(0), Some(0))?;
            file
        }
        other => other?,
    };
    is_roots(&file.metadata()?)?;
    Ok(file)
}

/// Whoever else can open the file could hold locks.
fn is_roots(meta: &fs::Metadata) -> io::Result<()> {
    let is_private = meta.uid() == 0 && meta.mode() & 0o077 == 0;
    if is_private { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
