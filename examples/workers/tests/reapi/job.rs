//! A runner with a storage in memory, and actions for it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use stockade::{Cgroup, Sandbox};
use stockade_workers::reapi::action::{ActionRunner, ActionSettings, Finished};
use stockade_workers::reapi::action_sandbox::{InputRoot, SandboxLimits};
use stockade_workers::reapi::blob_cache::{BlobCache, Placement};
use stockade_workers::reapi::input_tree::{InputLimits, KnownDirectories};
use stockade_workers::reapi::outputs::OutputLimits;
use stockade_workers::reapi::platform::Offer;
use stockade_workers::reapi::proto::execution::command::EnvironmentVariable;
use stockade_workers::reapi::proto::execution::platform::Property;
use stockade_workers::reapi::proto::execution::{
    Action, ActionResult, Command, Digest, Directory, DirectoryNode, FileNode, Platform, SymlinkNode,
};
use stockade_workers::reapi::slot::{self, Slot};
use stockade_workers::reapi::workplace::Workplace;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::fake_storage::FakeStorage;

pub struct Fixture {
    pub storage: FakeStorage,
    pub runner: ActionRunner,
    pub directory: TempDir,
    pub slot: Slot,
}

/// Returns a directory on a file system that has idmapped mounts, which that of /tmp may lack.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("reapi-").tempdir_in("/var/tmp").unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns whether this host has cgroups for the tests.
pub fn has_cgroup() -> bool {
    Sandbox::new()
        .cgroup(Cgroup::new().memory_max(1 << 30).pids_max(100))
        .status(stockade::Command::new("true"))
        .is_ok()
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ActionSettings)) -> Self {
        Self::in_directory(directory(), change).await
    }

    /// Returns a fixture with the directory of its worker in `directory`.
    pub async fn in_directory(directory: TempDir, change: impl FnOnce(&mut ActionSettings)) -> Self {
        let (storage, cas) = FakeStorage::start().await;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let workplace = Workplace::open(&directory.path().join("worker")).unwrap();
        let cache = BlobCache::open(workplace.cache(), 64 << 20).unwrap();
        let cgroup = has_cgroup();
        let mut settings = ActionSettings {
            worker: "test".into(),
            input_root: InputRoot::BesideHost,
            placement: if is_root() { Placement::HardLinks } else { Placement::Copies },
            offer: Offer { properties: vec![], memory: 256 << 20, most_memory: 1 << 30, network: false, cgroup },
            sandbox: SandboxLimits {
                pids: 64,
                stream: 1 << 20,
                cgroup,
                hidden: vec![workplace.directory().to_owned()],
            },
            outputs: OutputLimits { bytes: 64 << 20, entries: 20_000 },
            inputs: InputLimits { bytes: 100 << 20, entries: 10_000 },
            timeout: Duration::from_secs(60),
            longest_timeout: Duration::from_secs(60),
        };
        change(&mut settings);
        let runner = ActionRunner { cas, cache, workplace, settings, known: KnownDirectories::default() };
        let slot = slot::divide(1).unwrap().remove(0);
        Self { storage, runner, directory, slot }
    }

    /// Runs an action.
    pub async fn run(&self, job: &JobBuilder) -> Finished {
        let cancelled = CancellationToken::new();
        self.runner.run(&job.payload(&self.storage), &self.slot, &cancelled).await
    }

    /// Runs an action that must not fail for any reason of the worker's.
    #[track_caller]
    pub fn succeeded(finished: Finished) -> ActionResult {
        if let Some(failure) = finished.failure {
            panic!("{failure}");
        }
        let result = finished.result.unwrap();
        assert_eq!(result.exit_code, 0, "{}", String::from_utf8_lossy(&result.stderr_raw));
        result
    }

    /// Returns the directories of actions that are left.
    pub fn leftovers(&self) -> usize {
        std::fs::read_dir(self.actions()).unwrap().count()
    }

    pub fn actions(&self) -> PathBuf {
        self.directory.path().join("worker/actions")
    }
}

/// An action of a shell script.
#[derive(Clone, Default)]
pub struct JobBuilder {
    pub command: Command,
    pub root: Directory,
    pub timeout: Option<Duration>,
    /// The input root in the place of `root`.
    pub root_digest: Option<Digest>,
}

impl JobBuilder {
    pub fn script(script: &str) -> Self {
        Self::of(&["sh", "-c", script])
    }

    pub fn of(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { command: Command { arguments, ..Default::default() }, ..Default::default() }
    }

    pub fn outputs(mut self, paths: &[&str]) -> Self {
        self.command.output_paths = paths.iter().map(|&path| path.to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.environment_variables.push(EnvironmentVariable { name: name.into(), value: value.into() });
        self
    }

    pub fn file(mut self, name: &str, digest: Digest) -> Self {
        self.root.files.push(file(name, digest, false));
        self
    }

    pub fn executable(mut self, name: &str, digest: Digest) -> Self {
        self.root.files.push(file(name, digest, true));
        self
    }

    pub fn symlink(mut self, name: &str, target: &str) -> Self {
        self.root.symlinks.push(symlink(name, target));
        self
    }

    pub fn directory(mut self, name: &str, digest: Digest) -> Self {
        self.root.directories.push(DirectoryNode { name: name.into(), digest: Some(digest) });
        self
    }

    pub fn property(mut self, name: &str, value: &str) -> Self {
        let platform = self.command.platform.get_or_insert_with(Platform::default);
        platform.properties.push(Property { name: name.into(), value: value.into() });
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Stores the messages, and returns the payload of a lease.
    pub fn payload(&self, storage: &FakeStorage) -> Any {
        let root = self.root_digest.clone().unwrap_or_else(|| storage.add_message(&self.root));
        let action = Action {
            command_digest: Some(storage.add_message(&self.command)),
            input_root_digest: Some(root),
            timeout: self.timeout.map(|timeout| timeout.try_into().unwrap()),
            ..Default::default()
        };
        Any {
            type_url: "type.googleapis.com/build.bazel.remote.execution.v2.Action".into(),
            value: action.encode_to_vec(),
        }
    }
}

pub fn file(name: &str, digest: Digest, is_executable: bool) -> FileNode {
    FileNode { name: name.into(), digest: Some(digest), is_executable, ..Default::default() }
}

pub fn symlink(name: &str, target: &str) -> SymlinkNode {
    SymlinkNode { name: name.into(), target: target.into(), ..Default::default() }
}
