//! Host IDs of sandboxes. Each is reserved while a sandbox uses it.
//!
//! A reservation is a write lock (fcntl(2), `F_OFD_SETLK`) in a file that only root can open, on the byte whose offset
//! is the ID. The kernel releases the lock when the caller's descriptor closes, so that nothing has to be cleaned up.
//! An ID is also in use if a process has it: that process may outlive its caller for some milliseconds, or its caller
//! may have another `/run`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{Error, Result};
use crate::plan::HostRange;
use crate::sys::priority::user_has_process;

/// The directories that may contain the file. The second is for systems without `/run`.
const DIRECTORIES: [&str; 2] = ["/run/stockade", "/dev/stockade"];
const FILE: &str = "ids";

/// The host IDs that a privileged caller assigns by default. Users and other container managers do not use them by
/// custom.
pub(crate) const OWN_IDS: HostRange = HostRange { first: 0x7000_0000, count: 0x0f00_0000 };

/// A host ID that no other sandbox has until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    pub id: u32,
    lock: File,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Closing may not release the lock: a forked child of the caller may share the open file description.
        let _ = set_lock(&self.lock, libc::F_UNLCK, self.id);
    }
}

/// Reserves an ID of a range. The search begins at an ID that `seed` selects.
pub(super) fn reserve(range: HostRange, seed: u64) -> Result<Reserved> {
    let file = open()?;
    let count = range.count.max(1);
    let start = seed % u64::from(count);
    for offset in 0..u64::from(count) {
        let id = range.first + ((start + offset) % u64::from(count)) as u32;
        match set_lock(&file, libc::F_WRLCK, id) {
            Ok(()) if !user_has_process(id) => return Ok(Reserved { id, lock: file }),
            Ok(()) => set_lock(&file, libc::F_UNLCK, id).map_err(Error::io("release a host ID"))?,
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err(Error::io("lock a host ID")(errno)),
        }
    }
    Err(Error::exceeded(
        "reserve a host ID",
        format!("all {count} host IDs from {} on are in use by sandboxes", range.first),
        "wait until a sandbox terminates, or set a larger range: Identity::host_ids(first, count)",
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

/// Opens the file. The locks belong to the open file description, so every reservation opens it again.
fn open() -> Result<File> {
    let mut failure = None;
    for directory in DIRECTORIES.map(Path::new) {
        match open_in(directory) {
            Ok(file) => return Ok(file),
            // Another process may be able to use this directory: its reservations would not be seen in the next one.
            Err(error) if !is_missing(&error) => {
                failure = Some((directory, error));
                break;
            }
            Err(error) => failure = failure.or(Some((directory, error))),
        }
    }
    let (directory, error) = failure.unwrap_or((Path::new(DIRECTORIES[0]), io::ErrorKind::NotFound.into()));
    let remedy =
        "let the caller create this directory, or mount a file system for it: mount -t tmpfs -o mode=755 tmpfs /run";
    Err(Error::set_up("reserve a host ID in", "open", error, Some(remedy)).on(directory.join(FILE)))
}

/// Returns whether the directory does not exist and cannot be created.
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
                    // The caller may have another user ID, with the capabilities of root.
                    chown(directory, Some(0), Some(0))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            check_owner(&fs::symlink_metadata(directory)?)?;
            let file = open(true)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            fchown(&file, Some(0), Some(0))?;
            file
        }
        other => other?,
    };
    check_owner(&file.metadata()?)?;
    Ok(file)
}

/// Fails unless only root can access the file or directory: another user who opened the file could lock every ID.
fn check_owner(meta: &fs::Metadata) -> io::Result<()> {
    let is_private = meta.uid() == 0 && meta.mode() & 0o077 == 0;
    if is_private { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
