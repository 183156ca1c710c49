//! The recorder: receives the system calls of a program, and records the rights that they need.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::calling_process::{CallingProcess, Located};
use super::effects::{Effect, PathArguments};
use super::executable::interpreter;
use super::learned::Learned;
use crate::child::{Decision, Notification};
use crate::command::Command;
use crate::confine::FsAccess;
use crate::error::{Error, Result};
use crate::syscall::SystemCall;
use crate::unix;

/// What was observed so far.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub learned: Learned,
    /// Whether the program itself is recorded. Its execve(2) is not observed, so this is done on its first call.
    pub knows_program: bool,
    /// The error that stopped the recording.
    pub failure: Option<Error>,
    /// Paths that the program created.
    created: BTreeSet<PathBuf>,
    /// Memory used by all of this, in bytes.
    size: usize,
    /// Abstract addresses that the program bound.
    pub(super) bound: BTreeSet<Vec<u8>>,
}

/// An observed call, with the process that makes it.
pub(super) struct ObservedCall<'a> {
    pub call: &'a Notification<'a>,
    pub process: CallingProcess,
}

impl ObservedCall<'_> {
    pub fn arg(&self, number: usize) -> u64 {
        self.call.args()[number]
    }

    /// Resolves a path argument.
    pub fn locate(&self, (directory, path): PathArguments, follows: bool) -> nix::Result<Located> {
        self.locate_text(directory, &self.text(path)?, follows)
    }

    /// Resolves a path argument, where an empty path with `AT_EMPTY_PATH` means the descriptor itself.
    pub fn locate_or_descriptor(&self, at: PathArguments, flags: u64, follows: bool) -> nix::Result<Located> {
        let text = self.text(at.1)?;
        match at.0 {
            Some(directory) if text.is_empty() && has(flags, libc::AT_EMPTY_PATH) => {
                Located::found(self.process.descriptor(self.arg(directory))?)
            }
            directory => self.locate_text(directory, &text, follows),
        }
    }

    fn locate_text(&self, directory: Option<usize>, path: &[u8], follows: bool) -> nix::Result<Located> {
        let directory = directory.map_or(WORKING_DIRECTORY, |number| self.arg(number));
        self.process.locate(directory, path, follows)
    }

    fn text(&self, number: usize) -> nix::Result<Vec<u8>> {
        self.call.string(number).map_err(errno)
    }
}

/// Returns the errno of a failure to read the memory of the calling process.
pub(super) fn errno(error: Error) -> Errno {
    error.errno().map_or(Errno::EFAULT, |errno| Errno::from_raw(errno.number()))
}

/// Ignores an error in resolving what a call refers to: the kernel returns it to the program as well. An error means
/// that the caller may not inspect the process.
fn ignore_failed_lookup(result: nix::Result<()>) -> Result<()> {
    match result {
        Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => {
            Err(Error::io("read the memory of a process with process_vm_readv(2)")(errno))
        }
        _ => Ok(()),
    }
}

/// Returns whether this architecture has a system call.
fn exists_here(name: &str) -> bool {
    SystemCall::named(name).is_some()
}

/// The descriptor that stands for the working directory.
pub(super) const WORKING_DIRECTORY: u64 = libc::AT_FDCWD as u64;
/// The entry of the auxiliary vector with the path by which a program was executed (getauxval(3)).
const AT_EXECFN: u64 = 31;
/// Maximum memory for the paths and names of one program, in bytes.
const MAX_SIZE: usize = 64 << 20;
/// Memory that an entry takes in addition to its path or name, in bytes.
const ENTRY_OVERHEAD: usize = 128;
/// Maximum number of nested interpreters (`BINPRM_MAX_RECURSION`).
const MAX_INTERPRETERS: usize = 5;

pub(super) fn has(flags: u64, flag: i32) -> bool {
    flags & flag as u64 == flag as u64
}

impl Recorder {
    pub fn new() -> Self {
        let unobserved =
            Learned::new().allow_calls(Learned::UNOBSERVED.iter().copied().filter(|name| exists_here(name)));
        Self { learned: unobserved, ..Self::default() }
    }

    /// Returns the result, once the program has exited.
    pub fn finish(self, command: &Command) -> Result<Learned> {
        if self.knows_program {
            return Ok(self.learned);
        }
        // A program that made no observed call is known only by the path in the command.
        match command.path() {
            Some(path) => Ok(self.learned.allow_paths([(path, FsAccess::READ_FILE | FsAccess::EXECUTE)])),
            None => Err(Error::failure(
                "find the path of the program",
                "it made no observed system call",
                "pass an absolute path to Command::new instead of a name that is searched for in PATH",
            )),
        }
    }

    /// Records a call, and lets the kernel continue it.
    pub fn record(&mut self, call: &Notification<'_>) -> Decision {
        // The crate has no name for a newer system call. The program falls back as on an older kernel.
        let Some(name) = call.call().name() else { return Decision::Errno(unix::Errno::ENOSYS) };
        if !self.learned.calls.contains(name) {
            self.learned.calls.insert(name.into());
        }
        match self.inspect(Effect::of(name), call).and_then(|()| self.check_size()) {
            Ok(()) => Decision::Allow,
            Err(error) => {
                self.failure.get_or_insert(error);
                Decision::Kill
            }
        }
    }

    /// Counts the memory of a new entry.
    pub(super) fn count(&mut self, bytes: usize) {
        self.size += bytes + ENTRY_OVERHEAD;
    }

    fn check_size(&self) -> Result<()> {
        if self.size <= MAX_SIZE {
            return Ok(());
        }
        Err(Error::exceeded(
            "record what the program uses",
            format!("it used more than {} MiB of paths and names", MAX_SIZE >> 20),
            "learn from a run with less input, and allow whole directories with Learned::allow_paths",
        ))
    }

    fn inspect(&mut self, effect: Option<Effect>, call: &Notification<'_>) -> Result<()> {
        if self.knows_program && effect.is_none() {
            return Ok(());
        }
        let Some(process) = CallingProcess::of(call)? else { return Ok(()) };
        let observed = ObservedCall { call, process };
        if !std::mem::replace(&mut self.knows_program, true) {
            ignore_failed_lookup(self.record_program(&observed))?;
        }
        effect.map_or(Ok(()), |effect| ignore_failed_lookup(self.record_effect(effect, &observed)))
    }

    /// Records the program itself, which makes its first observed call.
    fn record_program(&mut self, observed: &ObservedCall<'_>) -> nix::Result<()> {
        let address = observed.process.auxiliary(AT_EXECFN).ok_or(Errno::ESRCH)?;
        let path = observed.call.string_at(address).map_err(errno)?;
        self.execute(observed, observed.process.locate(WORKING_DIRECTORY, &path, true)?);
        Ok(())
    }

    /// Records that a file is executed, with the interpreters that it names.
    pub(super) fn execute(&mut self, observed: &ObservedCall<'_>, program: Located) {
        let mut next = Some(program);
        for _ in 0..=MAX_INTERPRETERS {
            let Some(target) = next.filter(|target| target.kind() == SFlag::S_IFREG) else { return };
            self.allow(observed, &target, FsAccess::READ_FILE | FsAccess::EXECUTE);
            let named = target.file.as_ref().and_then(interpreter);
            next = named.and_then(|path| observed.process.locate(WORKING_DIRECTORY, &path, true).ok());
        }
    }

    /// Records rights at a path.
    pub(super) fn allow(&mut self, observed: &ObservedCall<'_>, target: &Located, access: FsAccess) {
        self.allow_path(observed, &target.path, target.file.as_ref(), access);
    }

    /// Records rights at the parent directory of a path.
    pub(super) fn allow_in_parent(&mut self, observed: &ObservedCall<'_>, target: &Located, access: FsAccess) {
        if let Some(directory) = target.path.parent() {
            self.allow_path(observed, directory, None, access);
        }
    }

    fn allow_path(&mut self, observed: &ObservedCall<'_>, path: &Path, file: Option<&OwnedFd>, access: FsAccess) {
        let (recorded, extra) = self.recorded_path(path);
        let known = self.learned.paths.get(recorded).is_some_and(|known| known.contains(access | extra));
        // A file of an inherited descriptor may have no path inside.
        if !known && (recorded != path || observed.process.reaches(path, file)) {
            let len = recorded.as_os_str().len();
            let before = self.learned.paths.len();
            *self.learned.paths.entry(recorded.to_owned()).or_insert(FsAccess::empty()) |= access | extra;
            if self.learned.paths.len() > before {
                self.count(len);
            }
        }
    }

    /// Records that a file is created. All rights on it are recorded at its directory from now on.
    pub(super) fn create(&mut self, observed: &ObservedCall<'_>, target: &Located, access: FsAccess) {
        self.allow_in_parent(observed, target, access);
        if !self.created.insert(target.path.clone()) {
            return;
        }
        self.count(target.path.as_os_str().len());
        let paths = &mut self.learned.paths;
        let below = paths.range(target.path.clone()..).take_while(|(path, _)| path.starts_with(&target.path));
        let below: Vec<PathBuf> = below.map(|(path, _)| path.clone()).collect();
        let access: FsAccess = below.iter().filter_map(|path| paths.remove(path)).collect();
        if !access.is_empty() {
            self.allow_in_parent(observed, target, access);
        }
    }

    /// Records rights on a descriptor, if the file was opened by its path.
    pub(super) fn allow_opened(&mut self, path: &Path, access: FsAccess) {
        let (recorded, _) = self.recorded_path(path);
        let opened = self
            .learned
            .paths
            .get(recorded)
            .filter(|known| known.intersects(FsAccess::READ_FILE | FsAccess::WRITE_FILE));
        if opened.is_some_and(|known| !known.contains(access)) {
            self.learned.paths.entry(recorded.to_owned()).and_modify(|known| *known |= access);
        }
    }

    /// Returns the path at which rights on a path are recorded, so that the next run finds it, and additional rights
    /// that this needs. For a file that the program created it is the directory, and for a file of a process or a
    /// terminal the whole file system.
    fn recorded_path<'a>(&self, path: &'a Path) -> (&'a Path, FsAccess) {
        if let Some(whole) = volatile_file_system(path) {
            return (whole, FsAccess::READ_DIR);
        }
        let created = path.ancestors().filter(|ancestor| self.created.contains(*ancestor)).last();
        (created.and_then(Path::parent).unwrap_or(path), FsAccess::empty())
    }
}

/// Returns the file system that a path is in, if names in it differ between runs.
fn volatile_file_system(path: &Path) -> Option<&'static Path> {
    let number = |below: &Path| {
        let first = below.components().next()?;
        first.as_os_str().to_str()?.parse::<u32>().ok()
    };
    ["/proc", "/dev/pts"]
        .map(Path::new)
        .into_iter()
        .find(|whole| path.strip_prefix(whole).ok().and_then(number).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn more_paths_than_fit_exceed_a_limit() {
        let mut recorder = Recorder::new();
        recorder.count(MAX_SIZE - ENTRY_OVERHEAD);
        recorder.check_size().expect("it fits");
        recorder.count(0);
        let error = recorder.check_size().expect_err("it does not fit");
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("64 MiB"), "{error}");
    }

    #[test]
    fn an_unknown_path_of_the_program_is_no_configuration_error() {
        assert!(Recorder::new().finish(&Command::new("/bin/true")).is_ok());
        let error = Recorder::new().finish(&Command::new("true")).expect_err("PATH was searched");
        assert_eq!((error.kind(), error.step()), (ErrorKind::Io, Some("find the path of the program")));
    }
}
