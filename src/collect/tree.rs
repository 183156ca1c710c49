//! The walk through a hostile directory. Descriptors alone lead from one directory to the next, on both sides; paths are
//! for people.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno as NixErrno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::place::{Entry, Failed, Source, is_same, list};
use super::{Collected, Collector, Left, Symlink, Unfit};
use crate::error::{Errno, Error, Result};
use crate::host_path::{HostPath, Unresolved};

/// Bytes that are copied at once.
const PIECE: u64 = 128 << 10;
/// Bytes of the longest path that can be named, without the null.
const LONGEST: usize = libc::PATH_MAX as usize - 1;

pub(super) fn copy(collector: &Collector, from: &HostPath, to: &HostPath) -> Result<Collected> {
    let source = Source::open(from, collector.hard_links, collector.symlinks)?;
    let (from, shown) = (&*from.given(), &*to.given());
    let failed = |call, errno: Errno, remedy| Error::collect("copying to", shown, call, errno, remedy);
    let opened = to.open_parent().map_err(|Unresolved { call, errno, remedy }| {
        let is_missing = errno.0 == libc::ENOENT;
        failed(call, errno, remedy.or(is_missing.then_some("the directory above the copy must exist")))
    });
    let (parent, name) = opened?;
    mkdirat(&parent, &*name, Mode::S_IRWXU).map_err(|errno| {
        let remedy = (errno == NixErrno::EEXIST).then_some("the copy is a new directory: name one that does not exist");
        failed("mkdirat", errno.into(), remedy)
    })?;
    let opened = openat(&parent, &*name, TARGET, Mode::empty());
    let target = opened.map_err(|errno| failed("openat", errno.into(), None))?;
    let copied = Walk::new(collector, &source, from, shown, target).and_then(Walk::run);
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = to.resolve(false).map(fs::remove_dir_all);
    }
    copied
}

pub(super) fn read(collector: &Collector, directory: &HostPath, path: &Path) -> Result<Vec<u8>> {
    let from = &*directory.given();
    let refused = |what: &str, remedy| Err(Error::invalid(format!("{path:?} below {from:?} {what}"), remedy));
    let mut names = vec![];
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return refused("may lead out of it", "name the file by its path below, without `..`"),
        }
    }
    let failed = |call, errno: Errno, remedy| Error::collect("collecting", from.join(path), call, errno, remedy);
    let source = Source::open(directory, collector.hard_links, false)?;
    let mut names = names.into_iter().peekable();
    let mut directory = None;
    while let Some(name) = names.next() {
        let name = CString::new(name.as_bytes()).map_err(|_| failed("openat2", Errno(libc::EINVAL), None))?;
        let entry = source.look(directory.as_ref().unwrap_or(&source.root), &name);
        match entry.map_err(|Failed { call, errno }| failed(call, errno.into(), None))? {
            Entry::Directory(found, _) => directory = Some(found),
            Entry::File(..) if names.peek().is_some() => return Err(failed("openat2", Errno(libc::ENOTDIR), None)),
            Entry::File(file, seen) => return contents(collector, from, path, file, &seen),
            Entry::Gone | Entry::Symlink(_) => return Err(failed("openat2", Errno(libc::ENOENT), None)),
            Entry::Unfit(Unfit::Unreadable(errno)) => return Err(failed("open", errno, remedy_of(errno))),
            Entry::Unfit(why) => {
                // Everything before the names that were not looked at.
                let rest = names.count();
                let place = path.ancestors().nth(rest).unwrap_or(path);
                return Err(Error::invalid(format!("{place:?} below {from:?} is {why}"), remedy_for(why)));
            }
        }
    }
    refused("is a directory", "name a file, or copy the directory with Collector::copy")
}

fn contents(collector: &Collector, from: &Path, path: &Path, file: File, seen: &FileStat) -> Result<Vec<u8>> {
    let failed = |call, errno| Error::collect("collecting", from.join(path), call, errno, None);
    let size = size(seen);
    if size > collector.max_bytes {
        return Err(too_large(from, path, size, collector.max_bytes, 0));
    }
    let mut bytes = vec![];
    let room = usize::try_from(size).ok().and_then(|size| bytes.try_reserve_exact(size).ok());
    room.ok_or_else(|| failed("mmap", Errno(libc::ENOMEM)))?;
    file.take(size).read_to_end(&mut bytes).map_err(|error| failed("read", error.into()))?;
    Ok(bytes)
}

/// A directory that is being copied.
struct Level {
    name: CString,
    source: OwnedFd,
    target: OwnedFd,
    names: std::vec::IntoIter<CString>,
    /// Bytes of the path to it, with the slash after it.
    length: usize,
}

struct Walk<'a> {
    collector: &'a Collector,
    source: &'a Source,
    from: &'a Path,
    to: &'a Path,
    /// What `to` is, so that it is known if it is met on the way.
    own: FileStat,
    levels: Vec<Level>,
    entries: u64,
    collected: Collected,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(
        collector: &'a Collector,
        source: &'a Source,
        from: &'a Path,
        to: &'a Path,
        target: OwnedFd,
    ) -> Result<Self> {
        let failed = |call, errno: NixErrno| Error::collect("copying to", to, call, errno, None);
        let own = fstat(&target).map_err(|errno| failed("fstat", errno))?;
        // The directory itself, whatever has its name by now.
        source.open_up(&target).map_err(|errno| failed("fchmodat", errno))?;
        let buffer = vec![0; PIECE as usize];
        let collected = Collected::default();
        let mut walk = Self { collector, source, from, to, own, levels: vec![], entries: 0, collected, buffer };
        let cloned = source.root.try_clone();
        let root = cloned.map_err(|error| Error::collect("collecting from", from, "fcntl", error, None))?;
        let unreadable = |errno| Error::collect("collecting from", from, "openat2", errno, remedy_of(errno));
        let names = walk.list(&root)?.map_err(unreadable)?;
        walk.levels.push(Level { name: c"".into(), source: root, target, names, length: 0 });
        Ok(walk)
    }

    fn run(mut self) -> Result<Collected> {
        while let Some(level) = self.levels.last_mut() {
            match level.names.next() {
                Some(name) => self.take(name)?,
                None => drop(self.levels.pop()),
            }
        }
        Ok(self.collected)
    }

    fn take(&mut self, name: CString) -> Result<()> {
        let level = self.current();
        if level.length + name.count_bytes() > LONGEST {
            let what = format!("a path below {:?} is longer than {LONGEST} bytes (PATH_MAX)", self.top(&name));
            return Err(self.exceeded(what, "have the program nest directories less, or give them shorter names"));
        }
        let entry = self.source.look(&level.source, &name);
        match entry.map_err(|Failed { call, errno }| self.failed(&name, call, errno))? {
            Entry::Directory(found, seen) => self.descend(name, found, &seen),
            Entry::File(file, seen) => self.copy(&name, file, &seen),
            Entry::Symlink(target) => self.note(&name, target),
            Entry::Unfit(why) => {
                self.leave(&name, why);
                Ok(())
            }
            Entry::Gone => Ok(()),
        }
    }

    /// The innermost directory of those that are being copied.
    fn current(&self) -> &Level {
        self.levels.last().expect("an entry is of a directory")
    }

    fn descend(&mut self, name: CString, source: OwnedFd, seen: &FileStat) -> Result<()> {
        if is_same(seen, &self.own) {
            let what = format!("the copy {:?} is below {:?}, which is to be copied", self.to, self.from);
            return Err(Error::invalid(what, "copy to a place that the program can't reach"));
        }
        if self.levels.len() as u64 > self.collector.max_depth.into() {
            let what = format!("{:?} is deeper than {} levels", self.path(&name), self.collector.max_depth);
            return Err(self.exceeded(what, "raise Collector::max_depth, or have the program nest directories less"));
        }
        let names = match self.list(&source)? {
            Ok(names) => names,
            Err(errno) if errno.limit().is_some() => return Err(self.failed(&name, "openat2", errno)),
            Err(Errno(libc::ENOENT)) => return Ok(()),
            Err(errno) => {
                self.leave(&name, Unfit::Unreadable(errno));
                return Ok(());
            }
        };
        let above = self.current();
        let failed = |call| move |errno| (call, errno);
        let made = mkdirat(&above.target, &*name, Mode::S_IRWXU).map_err(failed("mkdirat")).and_then(|()| {
            let target = openat(&above.target, &*name, TARGET, Mode::empty()).map_err(failed("openat"))?;
            self.source.open_up(&target).map_err(failed("fchmodat"))?;
            Ok(target)
        });
        let target = made.map_err(|(call, errno)| self.unwritten(&name, call, errno))?;
        let length = above.length + name.count_bytes() + 1;
        self.levels.push(Level { name, source, target, names, length });
        self.collected.directories += 1;
        Ok(())
    }

    /// The names in a directory. The limit on entries is of all together.
    fn list(&mut self, directory: &OwnedFd) -> Result<Result<std::vec::IntoIter<CString>, Errno>> {
        let most = self.collector.max_entries;
        match list(directory, most - self.entries) {
            Ok((_, count)) if count > most - self.entries => {
                let what = format!("it holds more than {most} entries");
                Err(self.exceeded(what, "raise Collector::max_entries, or have the program leave less"))
            }
            Ok((names, count)) => {
                self.entries += count;
                Ok(Ok(names.into_iter()))
            }
            Err(errno) => Ok(Err(errno.into())),
        }
    }

    fn copy(&mut self, name: &CStr, mut file: File, seen: &FileStat) -> Result<()> {
        let size = size(seen);
        if size > self.collector.max_bytes - self.collected.bytes {
            let (path, most) = (self.path(name), self.collector.max_bytes);
            return Err(too_large(self.from, &path, size, most, self.collected.bytes));
        }
        let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = &self.current().target;
        let made = openat(target, name, new, Mode::S_IRUSR | Mode::S_IWUSR);
        let mut copy = File::from(made.map_err(|errno| self.unwritten(name, "openat", errno))?);
        let mut rest = size;
        while rest > 0 {
            let piece = &mut self.buffer[..rest.min(PIECE) as usize];
            let count = match file.read(piece) {
                // It has become shorter.
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let removed = unlinkat(&self.current().target, name, UnlinkatFlags::NoRemoveDir);
                    removed.map_err(|errno| self.unwritten(name, "unlinkat", errno))?;
                    self.leave(name, Unfit::Unreadable(error.into()));
                    return Ok(());
                }
            };
            let written = copy.write_all(&piece[..count]);
            written.map_err(|error| self.unwritten(name, "write", error))?;
            rest -= count as u64;
        }
        let mode = if Mode::from_bits_truncate(seen.st_mode).contains(Mode::S_IXUSR) { OPEN } else { READABLE };
        fchmod(&copy, mode).map_err(|errno| self.unwritten(name, "fchmod", errno))?;
        self.collected.files += 1;
        self.collected.bytes += size - rest;
        Ok(())
    }

    /// Notes what a symbolic link says.
    fn note(&mut self, name: &CStr, target: OsString) -> Result<()> {
        let (path, size) = (self.path(name), target.len() as u64);
        if size > self.collector.max_bytes - self.collected.bytes {
            return Err(too_large(self.from, &path, size, self.collector.max_bytes, self.collected.bytes));
        }
        self.collected.bytes += size;
        self.collected.symlinks.push(Symlink { path, target: target.into() });
        Ok(())
    }

    fn leave(&mut self, name: &CStr, why: Unfit) {
        let path = self.path(name);
        self.collected.left.push(Left { path, why });
    }

    /// The path of an entry of the innermost directory, below `from`.
    fn path(&self, name: &CStr) -> PathBuf {
        let above = self.levels.iter().skip(1).map(|level| &*level.name);
        above.chain([name]).map(|name| OsStr::from_bytes(name.to_bytes())).collect()
    }

    /// The first name of that path.
    fn top<'b>(&'b self, name: &'b CStr) -> &'b OsStr {
        OsStr::from_bytes(self.levels.get(1).map_or(name, |level| &level.name).to_bytes())
    }

    fn exceeded(&self, what: String, remedy: &str) -> Error {
        Error::Exceeded { from: self.from.into(), what, remedy: remedy.into() }
    }

    fn failed(&self, name: &CStr, call: &'static str, errno: impl Into<Errno>) -> Error {
        Error::collect("collecting", self.from.join(self.path(name)), call, errno, None)
    }

    fn unwritten(&self, name: &CStr, call: &'static str, errno: impl Into<Errno>) -> Error {
        Error::collect("copying to", self.to.join(self.path(name)), call, errno, None)
    }
}

/// How the directories of the copy are opened.
const TARGET: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Of files, 0644.
const READABLE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IROTH);
/// Of directories and programs, 0755.
pub(super) const OPEN: Mode = READABLE.union(Mode::S_IXUSR).union(Mode::S_IXGRP).union(Mode::S_IXOTH);

fn size(seen: &FileStat) -> u64 {
    seen.st_size.try_into().unwrap_or(0)
}

fn too_large(from: &Path, path: &Path, size: u64, most: u64, before: u64) -> Error {
    let after = if before > 0 { format!(", after {before} of other files,") } else { String::new() };
    let what = format!("the {size} bytes of {path:?}{after} exceed the limit of {most} bytes");
    let remedy = "raise Collector::max_bytes, or have the program leave less".into();
    Error::Exceeded { from: from.into(), what, remedy }
}

/// What to do about what can't be opened.
fn remedy_of(errno: Errno) -> Option<&'static str> {
    match errno.0 {
        libc::EACCES => Some("the host's user may not read it: have the program leave it readable, or collect as root"),
        libc::EAGAIN => Some("a process holds a lease on it (fcntl(2)): end the program first"),
        _ => None,
    }
}

/// What to do about what is not taken.
fn remedy_for(why: Unfit) -> &'static str {
    match why {
        Unfit::Symlink => "it may lead anywhere, so it is not followed; have the program leave the file itself",
        Unfit::Special => "to open it may wait for ever, or set a device going; have the program leave a regular file",
        Unfit::HardLink => {
            "it may be one that the program may not read; have the program leave a copy, or allow it by \
             Collector::hard_links"
        }
        Unfit::Mount => "collect from it by its own path",
        Unfit::Unreadable(_) => "have the program leave it readable",
    }
}
