//! A directory for compiled programs. It is removed at the end, and by the next worker if this one is killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::failure::Failure;

/// A locked directory below one that workers share.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    // While it is open, other workers leave the directory alone.
    _lock: File,
}

const PREFIX: &str = "worker-";

impl Scratch {
    /// Creates a directory, and removes those of workers that were killed.
    pub fn create(shared: &Path) -> Result<Self, Failure> {
        let failed = |what| Failure::to(format!("{what} {}", shared.display()));
        fs::create_dir_all(shared).map_err(failed("create"))?;
        let metadata = fs::symlink_metadata(shared).map_err(failed("inspect"))?;
        // In a shared directory such as /tmp, another user may have created it.
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(Failure::Worker(format!("{} is not a directory of this user", shared.display())));
        }
        fs::set_permissions(shared, fs::Permissions::from_mode(0o700)).map_err(failed("change permissions of"))?;
        // Until this one's directory is locked, no other worker removes it.
        let whole = File::open(shared).map_err(failed("open"))?;
        flock(&whole, FlockOperation::LockExclusive).map_err(io::Error::from).map_err(failed("lock"))?;
        remove_stale(shared);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(shared).map_err(failed("write to"))?;
        let lock = File::open(directory.path()).map_err(failed("lock a directory in"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .map_err(failed("lock a directory in"))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Creates a directory that the programs of sandboxes can read.
    pub fn directory(&self) -> Result<TempDir, Failure> {
        let failed = || Failure::to(format!("create a directory in {}", self.directory.path().display()));
        let directory = TempDir::new_in(self.directory.path()).map_err(failed())?;
        // The programs of a root caller run as another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).map_err(failed())?;
        Ok(directory)
    }
}

/// Removes the directories that no worker has locked.
fn remove_stale(shared: &Path) {
    for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
        let is_worker = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(directory) = File::open(entry.path()) else { continue };
        if is_worker && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
