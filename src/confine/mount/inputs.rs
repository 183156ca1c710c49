//! [`Inputs`]: a directory of the sandbox that shows declared files of the host, and nothing else. The system calls are in
//! `input_calls`, and what the paths lead to is looked up in `input_entries`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::file_owner::{Owner, owner_methods};
use crate::host_path::HostPath;
#[cfg(feature = "serde")]
use crate::stored::{As, Escaped};

/// A directory that shows declared files of the host, read-only, and nothing else: the inputs of a build step.
///
/// | an input that is | is shown as |
/// |---|---|
/// | a regular file | the file: a read-only bind. If a process of the host replaces it by another file (rename(2)), the program still sees the old one |
/// | a directory | the directory with everything in it, as [`Root::bind`](crate::Root::bind) shows it |
/// | a symlink | a symlink with the same text, which is resolved inside the sandbox. What it leads to must be declared too |
///
/// Files that are not declared do not exist there, whether or not they exist on the host. Directories above the inputs
/// have the permissions 0755. Nothing is written to the host, and nothing remains when the sandbox terminates.
///
/// Operations that follow can create mount points in it, for example [`Root::bind_rw`](crate::Root::bind_rw) for the
/// outputs. The program can write nothing in it.
///
/// # Symlinks and owners
///
/// Paths of the inputs are relative to a directory of the host. Symlinks are followed in the path of that directory, as in
/// [`Root::bind`](crate::Root::bind), and never below it: an input whose path leads through a symlink is an error.
///
/// An input has the rights that it would have if its directory was bound: see [`Bind`](crate::mount::Bind) for the files
/// of a privileged caller ([`Identity`](crate::Identity)), and the program's user must be able to enter the directories
/// below it on the host.
///
/// # Cost
///
/// Each input takes four system calls: create a mount point, copy a mount, attach it, close it. The time to start a program
/// with 10,000 inputs in 100 directories, from the call of `spawn` to its return (release build, 2 CPUs, Linux 6.18, the
/// fastest of 15 starts on a machine with other load; `benches/inputs.rs`):
///
/// | caller | this | [`Root::bind`](crate::Root::bind) for each |
/// |---|---|---|
/// | root | 133 ms | 656 ms |
/// | ordinary user | 123 ms | 614 ms |
///
/// Other ways were measured on the same machine as system calls alone, as an ordinary user. Copying the files to a tmpfs
/// takes 126 ms for 1 KiB each, grows with their size, and takes memory. A directory of hard links takes 84 ms, and 77 ms
/// to remove. An overlay of such a directory takes 200 ms, and 145 ms to remove. Hard links also change the inputs (their
/// number of links and ctime), need one file system and files of the caller's own, and remain if the caller is killed.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
///
/// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the path of an input is absolute, is
///   empty, or contains `.` or `..`; if inputs of two calls have the same path in the sandbox, or one is inside another; if
///   an input is a socket, a FIFO or a device; or if the directory is not one.
/// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if an input or the directory does not exist, or with
///   `ELOOP` if a path leads through a symlink.
/// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Linux 5.12.
///
/// Each names the path. Requires Linux 5.12.
///
/// ```
/// use stockade::mount::Inputs;
/// use stockade::{Command, Root, Sandbox};
///
/// let (sources, generated) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// std::fs::write(sources.path().join("main.c"), "#include \"config.h\"\n")?;
/// std::fs::write(sources.path().join("undeclared.h"), "")?;
/// std::fs::write(generated.path().join("config-1f2e.h"), "#define LEVEL 3\n")?;
///
/// let inputs = Inputs::new("/build")
///     .files(sources.path(), ["main.c"])
///     .files_as(generated.path(), [("config-1f2e.h", "include/config.h")]);
/// let sandbox = Sandbox::new().root(Root::host().with(inputs));
/// let output = sandbox.output(Command::new("find").args(["/build", "-type", "f"]))?;
/// let mut found: Vec<_> = std::str::from_utf8(&output.stdout)?.lines().collect();
/// found.sort();
/// assert_eq!(found, ["/build/include/config.h", "/build/main.c"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::stored_mounts::StoredInputs", into = "super::stored_mounts::StoredInputs")
)]
pub struct Inputs {
    pub(super) target: PathBuf,
    pub(super) sets: Vec<InputSet>,
    pub(super) owner: Owner,
}

/// The inputs from one directory of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(super) struct InputSet {
    pub directory: HostPath,
    /// Their paths in the sandbox, below the target, and below the directory.
    #[cfg_attr(feature = "serde", serde(with = "As::<BTreeMap<Escaped, Escaped>>"))]
    pub paths: BTreeMap<PathBuf, PathBuf>,
}

impl Inputs {
    /// Creates an empty directory at `target` in the sandbox, to which inputs are added.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), sets: vec![], owner: Owner::default() }
    }

    /// Adds inputs that have the same path below a directory of the host and below the target.
    #[must_use]
    pub fn files<P: Into<PathBuf>>(self, directory: impl Into<HostPath>, paths: impl IntoIterator<Item = P>) -> Self {
        self.files_as(directory, paths.into_iter().map(Into::into).map(|path: PathBuf| (path.clone(), path)))
    }

    /// Adds inputs as pairs: the path below a directory of the host, and the path below the target. Use it for files of a
    /// content-addressed store.
    ///
    /// Of two inputs of one call with the same path below the target, the last one counts.
    #[must_use]
    pub fn files_as<F: Into<PathBuf>, T: Into<PathBuf>>(
        mut self,
        directory: impl Into<HostPath>,
        paths: impl IntoIterator<Item = (F, T)>,
    ) -> Self {
        let paths = paths.into_iter().map(|(from, to)| (to.into(), from.into())).collect();
        self.sets.push(InputSet { directory: directory.into(), paths });
        self
    }

    owner_methods!();
}
