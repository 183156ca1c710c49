//! The directory of a worker: its cache, and a directory for each action, which is used once.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use stockade::collect::remove_dir_all;

use super::failure::{Failure, Tried};

/// The file by which the directory of a worker is known.
const LOCK: &str = "lock";

#[derive(Debug)]
pub struct Workplace {
    directory: PathBuf,
    actions: PathBuf,
    cache: PathBuf,
    /// Locked for as long as the worker runs.
    _lock: File,
}

impl Workplace {
    /// Opens the directory of the worker, for this process alone, and removes what actions have left that were running
    /// when an earlier worker was killed.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let what = format!("open the directory {} of the worker", directory.display());
        fs::create_dir_all(directory).tried(&what)?;
        let directory = directory.canonicalize().tried(&what)?;
        if let Some(problem) = problem(&directory).tried(&what)? {
            return Err(Failure::precondition(format!("failed to {what}: {problem}")));
        }
        // No user of the host has a way to the files of actions.
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).tried(&what)?;
        let lock = File::create(directory.join(LOCK)).tried(&what)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => Failure::precondition(format!(
                "failed to {what}: another worker uses it: give each a --directory of its own"
            )),
            errno => Failure::internal(format!("failed to {what}: {errno}")),
        })?;
        let (actions, cache) = (directory.join("actions"), directory.join("cache"));
        remove_dir_all(&actions)?;
        fs::create_dir(&actions).tried(&what)?;
        Ok(Self { directory, actions, cache, _lock: lock })
    }

    /// The directory as a whole.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory in which those of actions are.
    pub fn actions(&self) -> &Path {
        &self.actions
    }

    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Creates the directory of an action.
    pub fn new_action(&self) -> Result<ActionDirectory, Failure> {
        let path = self.actions.join(uuid::Uuid::new_v4().to_string());
        let directory = ActionDirectory { path };
        for path in [directory.path.clone(), directory.root()] {
            fs::create_dir(&path).tried(format_args!("create {}", path.display()))?;
        }
        fs::set_permissions(directory.root(), Permissions::from_mode(0o755)).tried("set the mode of the input root")?;
        Ok(directory)
    }
}

/// Returns why a directory cannot be that of a worker. Files in it are removed, and files in the cache are trusted.
fn problem(directory: &Path) -> io::Result<Option<&'static str>> {
    let found = fs::metadata(directory)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(Some("it belongs to another user: give the worker a directory of its own"));
    }
    if found.mode() & 0o022 != 0 {
        return Ok(Some("other users may write to it: use one that is empty, and has the mode 700"));
    }
    let mut names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    // A new file system has it.
    names.retain(|name| name != "lost+found");
    let is_usable = names.is_empty() || names.iter().any(|name| name == LOCK);
    Ok((!is_usable).then_some("it has files that are no worker's: use an empty directory"))
}

/// The directory of an action. It is removed on drop, which may take a while.
#[derive(Debug)]
pub struct ActionDirectory {
    path: PathBuf,
}

/// The paths in the directory of an action.
#[derive(Clone, Debug)]
pub struct ActionPaths {
    pub root: PathBuf,
    pub outputs: PathBuf,
}

impl ActionDirectory {
    pub fn paths(&self) -> ActionPaths {
        ActionPaths { root: self.root(), outputs: self.outputs() }
    }

    /// The input root, to which the action writes.
    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// The copy of the outputs, which does not exist at first.
    pub fn outputs(&self) -> PathBuf {
        self.path.join("outputs")
    }
}

impl Drop for ActionDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove_dir_all(&self.path) {
            tracing::warn!(%error, "the directory of an action is removed when the worker starts again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_removed_at_the_start_and_a_second_worker_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker");
        let workplace = Workplace::open(&path).unwrap();
        let action = workplace.new_action().unwrap();
        let root = action.root();
        fs::write(root.join("half"), "half").unwrap();
        let refused = Workplace::open(&path).unwrap_err();
        assert!(refused.message.contains("another worker uses it") && root.join("half").exists(), "{refused}");
        // As if it were killed.
        std::mem::forget(action);
        drop(workplace);
        Workplace::open(&path).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_directory_with_other_files_or_for_other_users_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Workplace::open(path).unwrap_err().message;
        let home = directory.path().join("home");
        fs::create_dir_all(home.join("cache")).unwrap();
        fs::write(home.join("cache/precious"), "").unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        assert!(refused(&home).contains("no worker's"));
        assert!(home.join("cache/precious").exists() && home.metadata().unwrap().mode() & 0o777 == 0o755);
        let shared = directory.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
        assert!(refused(&shared).contains("other users"));
        let of_another = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&shared, Some(1000), None).unwrap();
            &shared
        } else {
            Path::new("/usr")
        };
        assert!(refused(of_another).contains("another user"));
        // A file system of its own.
        let own = directory.path().join("own");
        fs::create_dir_all(own.join("lost+found")).unwrap();
        drop(Workplace::open(&own).unwrap());
        Workplace::open(&own).unwrap();
    }

    #[test]
    fn the_directory_of_an_action_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let workplace = Workplace::open(&directory.path().join("worker")).unwrap();
        let action = workplace.new_action().unwrap();
        fs::create_dir_all(action.root().join("a/b")).unwrap();
        fs::set_permissions(action.root().join("a"), Permissions::from_mode(0o0)).unwrap();
        let path = action.path.clone();
        drop(action);
        assert!(!path.exists());
    }
}
