//! A directory for compiled programs. It is removed at the end, and by the next worker if this one is killed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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
        DirBuilder::new().recursive(true).mode(0o700).create(shared).map_err(failed("create"))?;
        // In a shared directory such as /tmp, another user may have created it, or a symlink.
        let whole = open(shared).map_err(failed("open the directory"))?;
        let metadata = whole.metadata().map_err(failed("inspect"))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            let shared = shared.display();
            return Err(Failure::Worker(format!("{shared} belongs to another user: use another with --scratch")));
        }
        whole.set_permissions(fs::Permissions::from_mode(0o700)).map_err(failed("change permissions of"))?;
        // Until this one's directory is locked, no other worker removes it.
        flock(&whole, FlockOperation::LockExclusive).map_err(io::Error::from).map_err(failed("lock"))?;
        remove_stale(shared);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(shared).map_err(failed("write to"))?;
        let lock = open(directory.path()).map_err(failed("lock a directory in"))?;
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

/// Opens a directory. Symlinks and FIFOs are errors.
fn open(directory: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(directory)
}

/// Removes the directories that no worker has locked.
fn remove_stale(shared: &Path) {
    for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
        let is_worker = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(directory) = open(&entry.path()) else { continue };
        if is_worker && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn directories_of_others_and_symlinks_are_refused() {
        let place = TempDir::new().unwrap();
        let (own, link) = (place.path().join("own"), place.path().join("link"));
        symlink(&own, &link).unwrap();
        assert!(Scratch::create(&link).is_err() && !own.exists());
        drop(Scratch::create(&own).unwrap());
        assert!(Scratch::create(&link).is_err());
        if rustix::process::geteuid().is_root() {
            chown(&own, Some(1000), None).unwrap();
            assert!(Scratch::create(&own).unwrap_err().to_string().contains("belongs to another user"));
        }
    }

    #[test]
    fn what_others_left_in_it_blocks_nothing_and_leads_nowhere() {
        let (shared, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let kept = outside.path().join("kept");
        fs::write(&kept, "").unwrap();
        symlink(outside.path(), shared.path().join("worker-link")).unwrap();
        fs::create_dir(shared.path().join("worker-stale")).unwrap();
        assert!(Command::new("mkfifo").arg(shared.path().join("worker-fifo")).status().unwrap().success());
        let (sender, receiver) = mpsc::channel();
        let path = shared.path().to_owned();
        thread::spawn(move || sender.send(Scratch::create(&path)));
        let scratch = receiver.recv_timeout(Duration::from_secs(20)).expect("it does not wait for the FIFO").unwrap();
        assert!(kept.exists() && !shared.path().join("worker-stale").exists());
        assert_eq!(fs::metadata(shared.path()).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scratch);
    }
}
