//! What hears the calls of a program, and notes what they need.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::Learned;
use super::act::{Act, At};
use super::caller::{Caller, Place};
use super::executable::interpreter;
use crate::command::Command;
use crate::confine::FsAccess;
use crate::error::{Error, Result};
use crate::system_call::SystemCall;
use crate::watch::{Decision, Notification};

/// What has been heard so far.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub learned: Learned,
    /// Whether the program itself has been seen, whose execution can't be heard.
    pub knows_program: bool,
    /// Why the program can't be learned from.
    pub failure: Option<Error>,
    /// Paths that the program has made.
    made: BTreeSet<PathBuf>,
    /// Bytes that all of this takes.
    size: usize,
    /// Abstract names that it has bound.
    pub(super) bound: BTreeSet<Vec<u8>>,
}

/// A call, and who makes it.
pub(super) struct Scene<'a> {
    pub call: &'a Notification<'a>,
    pub caller: Caller,
}

impl Scene<'_> {
    pub fn arg(&self, number: usize) -> u64 {
        self.call.args()[number]
    }

    /// Where a path leads that the call names.
    pub fn locate(&self, (directory, path): At, follows: bool) -> nix::Result<Place> {
        self.locate_text(directory, &self.text(path)?, follows)
    }

    /// The same, where an empty path may mean the descriptor itself.
    pub fn locate_or_descriptor(&self, at: At, flags: u64, follows: bool) -> nix::Result<Place> {
        let text = self.text(at.1)?;
        match at.0 {
            Some(directory) if text.is_empty() && has(flags, libc::AT_EMPTY_PATH) => {
                Place::found(self.caller.descriptor(self.arg(directory))?)
            }
            directory => self.locate_text(directory, &text, follows),
        }
    }

    fn locate_text(&self, directory: Option<usize>, path: &[u8], follows: bool) -> nix::Result<Place> {
        let directory = directory.map_or(WORKING_DIRECTORY, |number| self.arg(number));
        self.caller.locate(directory, path, follows)
    }

    fn text(&self, number: usize) -> nix::Result<Vec<u8>> {
        self.call.string(number).map_err(errno)
    }
}

/// The number of an error of reading the caller's memory.
pub(super) fn errno(error: Error) -> Errno {
    error.errno().map_or(Errno::EFAULT, |errno| Errno::from_raw(errno.0))
}

/// What can't be looked up, the kernel refuses as well, unless it is the host that may not look.
fn looked(result: nix::Result<()>) -> Result<()> {
    match result {
        Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => {
            Err(Error::host("reading the memory of a process by process_vm_readv(2)")(errno))
        }
        _ => Ok(()),
    }
}

/// Whether this architecture has a call.
fn is_own(name: &str) -> bool {
    SystemCall::named(name).is_some()
}

/// As a directory of a call.
pub(super) const WORKING_DIRECTORY: u64 = libc::AT_FDCWD as u64;
/// The entry of the auxiliary vector with the path by which a program was executed (getauxval(3)).
const AT_EXECFN: u64 = 31;
/// Bytes of paths and names that are learned from one program.
const MOST: usize = 64 << 20;
/// Bytes that an entry takes beside its path or name.
const ENTRY: usize = 128;
/// Interpreters of interpreters that the kernel takes.
const INTERPRETERS: usize = 5;

pub(super) fn has(flags: u64, flag: i32) -> bool {
    flags & flag as u64 == flag as u64
}

impl Recorder {
    pub fn new() -> Self {
        let unheard = Learned::new().allow_calls(Learned::UNHEARD.iter().copied().filter(|name| is_own(name)));
        Self { learned: unheard, ..Self::default() }
    }

    /// What was learned of a command that has ended.
    pub fn finish(self, command: &Command) -> Result<Learned> {
        if self.knows_program {
            return Ok(self.learned);
        }
        // A program that makes no call that is heard is known by its path alone.
        match command.path() {
            Some(path) => Ok(self.learned.allow_paths([(path, FsAccess::READ_FILE | FsAccess::EXECUTE)])),
            None => Err(Error::invalid(
                "the program made no system call by which its path can be learned",
                "name it by its path instead of having it looked for in PATH",
            )),
        }
    }

    /// Notes a call, which is then made.
    pub fn hear(&mut self, call: &Notification<'_>) -> Decision {
        // Policies have no name for a call that is newer than the crate: the program does as on an older kernel.
        let Some(name) = call.system_call().name() else { return Decision::Errno(libc::ENOSYS) };
        if !self.learned.calls.contains(name) {
            self.learned.calls.insert(name.into());
        }
        match self.look(Act::of(name), call).and_then(|()| self.check_size()) {
            Ok(()) => Decision::Allow,
            Err(error) => {
                self.failure.get_or_insert(error);
                Decision::Kill
            }
        }
    }

    /// Counts an entry that is added.
    pub(super) fn count(&mut self, bytes: usize) {
        self.size += bytes + ENTRY;
    }

    fn check_size(&self) -> Result<()> {
        if self.size <= MOST {
            return Ok(());
        }
        Err(Error::invalid(
            format!("the program used more than {} MiB of paths and names, which are too many to learn", MOST >> 20),
            "learn from a smaller input, and allow whole directories by Learned::allow_paths(…)",
        ))
    }

    fn look(&mut self, act: Option<Act>, call: &Notification<'_>) -> Result<()> {
        if self.knows_program && act.is_none() {
            return Ok(());
        }
        let Some(caller) = Caller::of(call)? else { return Ok(()) };
        let scene = Scene { call, caller };
        if !std::mem::replace(&mut self.knows_program, true) {
            looked(self.program(&scene))?;
        }
        act.map_or(Ok(()), |act| looked(self.act(act, &scene)))
    }

    /// The program that makes its first call.
    fn program(&mut self, scene: &Scene<'_>) -> nix::Result<()> {
        let address = scene.caller.auxiliary(AT_EXECFN).ok_or(Errno::ESRCH)?;
        let path = scene.call.string_at(address).map_err(errno)?;
        self.execute(scene, scene.caller.locate(WORKING_DIRECTORY, &path, true)?);
        Ok(())
    }

    /// A file is executed, and with it the interpreters that it names.
    pub(super) fn execute(&mut self, scene: &Scene<'_>, program: Place) {
        let mut next = Some(program);
        for _ in 0..=INTERPRETERS {
            let Some(place) = next.filter(|place| place.kind() == SFlag::S_IFREG) else { return };
            self.allow(scene, &place, FsAccess::READ_FILE | FsAccess::EXECUTE);
            let named = place.file.as_ref().and_then(interpreter);
            next = named.and_then(|path| scene.caller.locate(WORKING_DIRECTORY, &path, true).ok());
        }
    }

    /// Something is done with what is at a place.
    pub(super) fn allow(&mut self, scene: &Scene<'_>, place: &Place, access: FsAccess) {
        self.allow_path(scene, &place.path, place.file.as_ref(), access);
    }

    /// Something is done in the directory of a place.
    pub(super) fn allow_beside(&mut self, scene: &Scene<'_>, place: &Place, access: FsAccess) {
        if let Some(directory) = place.path.parent() {
            self.allow_path(scene, directory, None, access);
        }
    }

    fn allow_path(&mut self, scene: &Scene<'_>, path: &Path, file: Option<&OwnedFd>, access: FsAccess) {
        let (kept, whole) = self.keeper(path);
        let known = self.learned.paths.get(kept).is_some_and(|known| known.contains(access | whole));
        // What a descriptor from outside leads to has no path inside.
        if !known && (kept != path || scene.caller.reaches(path, file)) {
            let len = kept.as_os_str().len();
            let before = self.learned.paths.len();
            *self.learned.paths.entry(kept.to_owned()).or_insert(FsAccess::empty()) |= access | whole;
            if self.learned.paths.len() > before {
                self.count(len);
            }
        }
    }

    /// A place is taken by something new. What is noted of it is its directory's from now on.
    pub(super) fn make(&mut self, scene: &Scene<'_>, place: &Place, access: FsAccess) {
        self.allow_beside(scene, place, access);
        if !self.made.insert(place.path.clone()) {
            return;
        }
        self.count(place.path.as_os_str().len());
        let paths = &mut self.learned.paths;
        let below = paths.range(place.path.clone()..).take_while(|(path, _)| path.starts_with(&place.path));
        let below: Vec<PathBuf> = below.map(|(path, _)| path.clone()).collect();
        let access: FsAccess = below.iter().filter_map(|path| paths.remove(path)).collect();
        if !access.is_empty() {
            self.allow_beside(scene, place, access);
        }
    }

    /// Something is done with a descriptor, which counts if it was opened by its path.
    pub(super) fn allow_opened(&mut self, path: &Path, access: FsAccess) {
        let (kept, _) = self.keeper(path);
        let opened =
            self.learned.paths.get(kept).filter(|it| it.intersects(FsAccess::READ_FILE | FsAccess::WRITE_FILE));
        if opened.is_some_and(|it| !it.contains(access)) {
            self.learned.paths.entry(kept.to_owned()).and_modify(|it| *it |= access);
        }
    }

    /// The path by which another run finds what is at a path, and what is added if that is more than it: of what the
    /// program has made the directory, and of what belongs to a process or a terminal the whole file system.
    fn keeper<'a>(&self, path: &'a Path) -> (&'a Path, FsAccess) {
        if let Some(whole) = whole(path) {
            return (whole, FsAccess::READ_DIR);
        }
        let made = path.ancestors().filter(|ancestor| self.made.contains(*ancestor)).last();
        (made.and_then(Path::parent).unwrap_or(path), FsAccess::empty())
    }
}

/// The file system whose files have no lasting names.
fn whole(path: &Path) -> Option<&'static Path> {
    let number = |below: &Path| {
        let first = below.components().next()?;
        first.as_os_str().to_str()?.parse::<u32>().ok()
    };
    ["/proc", "/dev/pts"]
        .map(Path::new)
        .into_iter()
        .find(|whole| path.strip_prefix(whole).ok().and_then(number).is_some())
}
