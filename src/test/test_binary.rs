//! A test binary that cargo has built: the files and environment variables that it needs in a sandbox.

use std::io;
use std::path::{Path, PathBuf};

use crate::command::Command;
use crate::confine::Tmpfs;
use crate::environment;
use crate::error::{Error, Result};
use crate::host_path::is_directory;
use crate::sandbox::Sandbox;

/// A test binary that cargo has built, with the files and environment variables that it needs: what a runner of cargo
/// (`CARGO_TARGET_…_RUNNER`) and a wrapper script of cargo-nextest execute in a sandbox.
///
/// | | |
/// |---|---|
/// | the workspace | bound read-only: the nearest directory above the working directory that has a `Cargo.lock`, but neither the home directory nor one above it; or else the working directory |
/// | the target directory | bound read-only, and empty at `tmp` in it (`CARGO_TARGET_TMPDIR`), a tmpfs of 1 GiB |
/// | the directories of `LD_LIBRARY_PATH` | bound read-only |
/// | the working directory | the caller's. cargo starts tests in the directory of their package |
/// | environment variables | those of [`is_passed`] |
///
/// The paths are those of the host, since a test finds its files by paths that were compiled into it. So the `/tmp` of the
/// sandbox is not empty if one of these directories is below the `/tmp` of the host.
///
/// ```
/// use stockade::{profile, test::TestBinary};
///
/// // cargo passes the path of a test binary, and arguments.
/// let binary = TestBinary::new("/usr/bin/true")?;
/// assert!(binary.bind(profile::test()).status(binary.command().arg("--list"))?.success());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TestBinary {
    path: PathBuf,
    directory: PathBuf,
    /// The target directory of cargo.
    target: Option<PathBuf>,
}

/// The variable with which closures are called in the test itself.
pub(super) const INLINE: &str = "STOCKADE_TEST_INLINE";

/// The size of `CARGO_TARGET_TMPDIR` in bytes, that of `/tmp` in the profile.
const TMPDIR_SIZE: u64 = 1 << 30;

impl TestBinary {
    /// Describes a binary by its path, with the working directory of the caller.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the binary or the working directory does not exist.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let failed = |step, error: io::Error| {
            Error::failure(step, error.to_string(), "run the tests again, in a directory that exists")
        };
        let path = path.as_ref();
        let path = path.canonicalize().map_err(|error| failed("find the test binary", error).on(path))?;
        let directory = std::env::current_dir().map_err(|error| failed("find the working directory", error))?;
        // cargo marks the directory, for programs that make backups.
        let target = path.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists()).map(Path::to_owned);
        Ok(Self { path, directory, target })
    }

    /// Describes the program that a runner executes, if cargo or cargo-nextest has started the runner
    /// (`CARGO_MANIFEST_DIR` is set), and the program is named by an absolute path, as they do.
    ///
    /// # Errors
    ///
    /// Those of [`TestBinary::new`].
    pub fn of_runner(program: impl AsRef<Path>) -> Result<Option<Self>> {
        let program = program.as_ref();
        let is_started_by_cargo = program.is_absolute() && environment::var("CARGO_MANIFEST_DIR").is_some();
        is_started_by_cargo.then(|| Self::new(program)).transpose()
    }

    /// Adds the files that the binary needs to a sandbox.
    #[must_use]
    pub fn bind(&self, sandbox: Sandbox) -> Sandbox {
        let tmp = self.target.as_deref().map(|target| target.join("tmp")).filter(|path| is_directory(path));
        sandbox.map_root(|root| {
            let root = self.directories().into_iter().fold(root, |root, path| root.bind(&path, &path));
            tmp.into_iter().fold(root, |root, path| root.with(Tmpfs::new(path).size(TMPDIR_SIZE).mode(0o1777)))
        })
    }

    /// Returns the directories to bind. None is below another.
    fn directories(&self) -> Vec<PathBuf> {
        let built = self.target.as_deref().or(self.path.parent()).unwrap_or(&self.path).to_owned();
        let libraries = environment::var("LD_LIBRARY_PATH").unwrap_or_default();
        let libraries = std::env::split_paths(&libraries).filter(|path| path.is_absolute() && is_directory(path));
        let mut found: Vec<PathBuf> = [workspace(&self.directory), built].into_iter().chain(libraries).collect();
        found.retain(|path| path.parent().is_some());
        found.sort();
        found.dedup_by(|later, earlier| later.starts_with(earlier));
        found
    }

    /// Returns the command that executes the binary without arguments, in the caller's working directory and with the
    /// variables of [`is_passed`].
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.directory).envs(environment::vars(is_passed));
        command
    }
}

/// Returns the directory whose files the tests of a package may read.
fn workspace(directory: &Path) -> PathBuf {
    let home = environment::var("HOME").map(PathBuf::from);
    let is_private = |path: &Path| home.as_deref().is_some_and(|home| home.starts_with(path));
    let mut above = directory.ancestors().take_while(|path| !is_private(path));
    above.find(|path| path.join("Cargo.lock").exists()).unwrap_or(directory).to_owned()
}

/// Returns whether a test in a sandbox gets this environment variable of the caller.
///
/// These are what cargo and cargo-nextest set for tests, and what changes how tests run or report. All others stay
/// outside: among them are tokens (`CARGO_REGISTRY_TOKEN`), and paths to what the sandbox does not show (`TMPDIR`,
/// `HOME`).
///
/// | variables | set by |
/// |---|---|
/// | `CARGO`, `CARGO_MANIFEST_DIR`, `CARGO_MANIFEST_PATH`, `CARGO_CRATE_NAME`, `CARGO_BIN_NAME`, `CARGO_PRIMARY_PACKAGE`, `CARGO_TARGET_TMPDIR`, `CARGO_PKG_…`, `CARGO_BIN_EXE_…`, `OUT_DIR`, `LD_LIBRARY_PATH` | cargo |
/// | `NEXTEST`, `NEXTEST_…` | cargo-nextest |
/// | `RUST_…` | the user, for the standard library (`RUST_BACKTRACE`), libtest (`RUST_TEST_THREADS`) and logs (`RUST_LOG`) |
/// | `PROPTEST_…`, `QUICKCHECK_…`, `INSTA_…` | the user, for crates of tests |
/// | `PATH`, `TZ`, `CI`, `NO_COLOR`, [`STOCKADE_TEST_INLINE`](super) | the user |
///
/// ```
/// use stockade::test::is_passed;
///
/// assert!(is_passed("CARGO_MANIFEST_DIR") && is_passed("RUST_BACKTRACE"));
/// assert!(!is_passed("CARGO_REGISTRY_TOKEN") && !is_passed("HOME"));
/// ```
#[must_use]
pub fn is_passed(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "CI",
        "LD_LIBRARY_PATH",
        "NEXTEST",
        "NO_COLOR",
        "OUT_DIR",
        "PATH",
        "TZ",
        INLINE,
    ];
    const PREFIXES: [&str; 7] =
        ["CARGO_BIN_EXE_", "CARGO_PKG_", "INSTA_", "NEXTEST_", "PROPTEST_", "QUICKCHECK_", "RUST_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
