//! The sandbox of a step. It has nothing of the host but its programs and the declared inputs, and no network.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use stockade::collect::Collector;
use stockade::mount::Tmpfs;
use stockade::{Command, Outcome, Output, Root, Sandbox, profile};
use tempfile::TempDir;

use crate::Failure;
use crate::diagnosis;
use crate::files::replace;
use crate::step::{OUT, Step, WORK};

/// A step that failed: how it terminated, what it wrote, and what it lacked.
#[derive(Debug)]
pub struct StepFailure {
    pub step: String,
    pub outcome: Outcome,
    pub stderr: String,
    pub accesses: diagnosis::Accesses,
}

impl std::error::Error for StepFailure {}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}\n{}", self.step, self.outcome.termination, self.stderr.trim_end())?;
        for path in &self.accesses.undeclared {
            write!(f, "\nundeclared input: {}: add it to the inputs of the step", path.display())?;
        }
        for address in &self.accesses.network {
            write!(f, "\nnetwork access: {address}: download it before the build, and declare it as an input")?;
        }
        Ok(())
    }
}

/// Returns the part of the sandbox that is the same for all steps. Its fingerprint is part of the key of the cache.
pub fn base() -> Sandbox {
    let root = Root::system().dev("/dev").with(Tmpfs::new("/tmp").size(1 << 30)).user_names();
    profile::build_step().root(root).env("HOME", "/tmp")
}

/// Returns the sandbox of a step.
pub fn sandbox(step: &Step, sources: &Path, out: &Path) -> Sandbox {
    let inputs = |root: Root| root.inputs(sources, WORK, &step.inputs).bind_rw(out, Path::new(WORK).join(OUT));
    base().map_root(inputs)
}

pub fn command(step: &Step) -> Command {
    let mut command = Command::new(&step.command[0]);
    command.args(&step.command[1..]).current_dir(WORK);
    command
}

/// The outputs of a step: untrusted files in a directory of its own.
pub struct Produced {
    directory: TempDir,
    outputs: Vec<PathBuf>,
}

impl Produced {
    /// Copies the outputs to a directory, and nothing else that the step has written. No symlink is followed, and what is
    /// not a file is an error.
    pub fn collect(&self, to: &Path) -> Result<(), Failure> {
        for output in &self.outputs {
            replace(&to.join(output), &Collector::new().read(self.directory.path(), output)?)?;
        }
        Ok(())
    }
}

/// Runs a step. A failure says what it lacked.
pub fn run(step: &Step, sources: &Path) -> Result<Produced, Failure> {
    let directory = scratch()?;
    let sandbox = sandbox(step, sources, directory.path());
    let Output { outcome, stderr, .. } = sandbox.output(command(step))?;
    let outputs = step.outputs.clone();
    if outcome.success() {
        return Ok(Produced { directory, outputs });
    }
    // Once more, and observed: the sandbox is the same, so it fails at the same place.
    let again = scratch()?;
    let accesses = diagnosis::observe(step, sources, again.path())?;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Err(StepFailure { step: step.name.clone(), outcome, stderr, accesses }.into())
}

/// Creates a directory for outputs. The program of a root caller runs as another user, who must be able to enter it.
fn scratch() -> Result<TempDir, Failure> {
    let directory = tempfile::Builder::new().prefix("build-step-").tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}
