//! Copying and reading from an untrusted directory. The walk goes from directory to directory by descriptors only.
//! Paths are for messages.

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

use super::entry::{EXECUTABLE, Entry, Failed, READABLE, UntrustedDirectory, is_same, list};
use super::selection::Selection;
use super::{Collected, Collector, SkipReason, Skipped, Symlink};
use crate::advice::shortage;
use crate::error::{Error, Result};
use crate::file_size;
use crate::host_path::{HostPath, ResolveError};
use crate::unix::{Errno, ToErrno};

/// The size of the copy buffer, in bytes.
const BUFFER_SIZE: u64 = 128 << 10;
/// Bytes of the longest path, without the terminating null.
const MAX_PATH: usize = libc::PATH_MAX as usize - 1;

pub(super) fn copy(collector: &Collector, from: &HostPath, selection: Selection, to: &HostPath) -> Result<Collected> {
    let source = UntrustedDirectory::open(from, collector.hard_links, collector.symlinks)?;
    let (from, shown) = (&*from.unresolved(), &*to.unresolved());
    let failed = |call, errno: Errno, hint| Error::collect("copy to", shown, call, errno, hint);
    let opened = to.open_parent().map_err(|ResolveError { call, errno, hint }| {
        let is_missing = errno.number() == libc::ENOENT;
        failed(call, errno, hint.or(is_missing.then_some("create the parent directory of the copy first")))
    });
    let (parent, name) = opened?;
    mkdirat(&parent, &*name, Mode::S_IRWXU).map_err(|errno| {
        let hint =
            (errno == NixErrno::EEXIST).then_some("the copy must be a new directory: pass a path that does not exist");
        failed("mkdirat", errno.to_errno(), hint)
    })?;
    let opened = openat(&parent, &*name, TARGET, Mode::empty());
    let target = opened.map_err(|errno| failed("openat", errno.to_errno(), None))?;
    let copied = CopyWalk::new(collector, &source, from, selection, shown, target).and_then(CopyWalk::run);
    if copied.is_err() {
        // The first error is reported.
        let _ = to.resolve(false).map(fs::remove_dir_all);
    }
    copied
}

pub(super) fn read(collector: &Collector, directory: &HostPath, path: &Path) -> Result<Vec<u8>> {
    let from = &*directory.unresolved();
    let mut names = vec![];
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(Error::leads_out(from, path)),
        }
    }
    let failed = |call, errno: Errno, hint| Error::collect("collect", from.join(path), call, errno, hint);
    let source = UntrustedDirectory::open(directory, collector.hard_links, false)?;
    let mut names = names.into_iter().peekable();
    let mut directory = None;
    while let Some(name) = names.next() {
        let name = CString::new(name.as_bytes()).map_err(|_| failed("openat2", Errno::EINVAL, None))?;
        let entry = source.look_up(directory.as_ref().unwrap_or(&source.root), &name);
        match entry.map_err(|Failed { call, errno }| failed(call, errno.to_errno(), None))? {
            Entry::Directory(found, _) => directory = Some(found),
            Entry::File(..) if names.peek().is_some() => {
                return Err(failed("openat2", Errno::ENOTDIR, None));
            }
            Entry::File(file, seen) => return contents(collector, from, path, file, &seen),
            Entry::Missing | Entry::Symlink(_) => {
                return Err(failed("openat2", Errno::ENOENT, Some("check that the program has written it")));
            }
            Entry::Skip(why) => {
                // The path without the names that were not looked up.
                let rest = names.count();
                let visited = path.ancestors().nth(rest).unwrap_or(path);
                return Err(skipped(from.join(visited), why));
            }
        }
    }
    Err(failed("openat2", Errno::EISDIR, Some("pass the path of a file, or copy the directory with Collector::copy")))
}

fn contents(collector: &Collector, from: &Path, path: &Path, file: File, seen: &FileStat) -> Result<Vec<u8>> {
    let failed = |call, errno| Error::collect("collect", from.join(path), call, errno, None);
    let size = size(seen);
    if size > collector.max_bytes {
        return Err(too_large(from, path, size, collector.max_bytes, 0));
    }
    let mut bytes = vec![];
    let reserved = usize::try_from(size).ok().and_then(|size| bytes.try_reserve_exact(size).ok());
    reserved.ok_or_else(|| failed("mmap", Errno::ENOMEM))?;
    file.take(size).read_to_end(&mut bytes).map_err(|error| failed("read", error.to_errno()))?;
    Ok(bytes)
}

/// A directory that is being copied.
struct CopyLevel {
    name: CString,
    source: OwnedFd,
    target: OwnedFd,
    names: std::vec::IntoIter<CString>,
    selection: Selection,
    /// Length of its path with a trailing slash, in bytes.
    length: usize,
}

struct CopyWalk<'a> {
    collector: &'a Collector,
    source: &'a UntrustedDirectory,
    from: &'a Path,
    to: &'a Path,
    /// The status of `to`, to recognize it if it is below `from`.
    target_stat: FileStat,
    levels: Vec<CopyLevel>,
    entries: u64,
    collected: Collected,
    buffer: Vec<u8>,
}

impl<'a> CopyWalk<'a> {
    fn new(
        collector: &'a Collector,
        source: &'a UntrustedDirectory,
        from: &'a Path,
        selection: Selection,
        to: &'a Path,
        target: OwnedFd,
    ) -> Result<Self> {
        let failed = |call, errno: NixErrno| Error::collect("copy to", to, call, errno, None);
        let target_stat = fstat(&target).map_err(|errno| failed("fstat", errno))?;
        // By the descriptor, because its name may refer to something else by now.
        source.set_directory_mode(&target).map_err(|errno| failed("fchmodat", errno))?;
        let buffer = vec![0; BUFFER_SIZE as usize];
        let collected = Collected::default();
        let mut walk = Self { collector, source, from, to, target_stat, levels: vec![], entries: 0, collected, buffer };
        let cloned = source.root.try_clone();
        let root = cloned.map_err(|error| Error::collect("collect from", from, "fcntl", error, None))?;
        let unreadable = |errno| Error::collect("collect from", from, "openat2", errno, hint_for_errno(errno));
        let names = walk.list(&root, &selection)?.map_err(unreadable)?;
        walk.levels.push(CopyLevel { name: c"".into(), source: root, target, names, selection, length: 0 });
        Ok(walk)
    }

    fn run(mut self) -> Result<Collected> {
        while let Some(level) = self.levels.last_mut() {
            match level.names.next() {
                Some(name) => self.copy_entry(name)?,
                None => drop(self.levels.pop()),
            }
        }
        Ok(self.collected)
    }

    fn copy_entry(&mut self, name: CString) -> Result<()> {
        let level = self.levels.last_mut().expect("an entry is of a directory");
        let selection = level.selection.take(&name);
        let level = self.current();
        if level.length + name.count_bytes() > MAX_PATH {
            let what = format!("a path below {:?} is longer than {MAX_PATH} bytes (PATH_MAX)", self.first_name(&name));
            return Err(self
                .exceeded(what, "change the program so that it nests directories less, or gives them shorter names"));
        }
        let entry = self.source.look_up(&level.source, &name);
        match entry.map_err(|Failed { call, errno }| self.failed(&name, call, errno))? {
            Entry::Directory(found, seen) => self.descend(name, found, &seen, selection),
            Entry::File(..) if !selection.is_whole() => Ok(()),
            Entry::File(file, seen) => self.copy_file(&name, file, &seen),
            Entry::Symlink(target) => self.add_symlink(&name, target),
            Entry::Skip(why) => {
                self.skip(&name, why);
                Ok(())
            }
            Entry::Missing => Ok(()),
        }
    }

    /// Returns the innermost directory that is being copied.
    fn current(&self) -> &CopyLevel {
        self.levels.last().expect("an entry is of a directory")
    }

    fn descend(&mut self, name: CString, source: OwnedFd, seen: &FileStat, selection: Selection) -> Result<()> {
        if is_same(seen, &self.target_stat) {
            let what = format!("the copy {:?} is below the source {:?}", self.to, self.from);
            return Err(Error::invalid(what, "copy to a directory that the program cannot write to"));
        }
        if self.levels.len() as u64 > self.collector.max_depth.into() {
            let what = format!("{:?} is deeper than {} levels", self.path(&name), self.collector.max_depth);
            return Err(self.exceeded(
                what,
                "raise Collector::max_depth, or change the program so that it nests directories less",
            ));
        }
        let names = match self.list(&source, &selection)? {
            Ok(names) => names,
            Err(errno) if shortage(errno).is_some() => return Err(self.failed(&name, "openat2", errno)),
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => {
                self.skip(&name, SkipReason::Unreadable(errno));
                return Ok(());
            }
        };
        let above = self.current();
        let failed = |call| move |errno| (call, errno);
        let created = mkdirat(&above.target, &*name, Mode::S_IRWXU).map_err(failed("mkdirat")).and_then(|()| {
            let target = openat(&above.target, &*name, TARGET, Mode::empty()).map_err(failed("openat"))?;
            self.source.set_directory_mode(&target).map_err(failed("fchmodat"))?;
            Ok(target)
        });
        let target = created.map_err(|(call, errno)| self.write_failed(&name, call, errno))?;
        let length = above.length + name.count_bytes() + 1;
        self.levels.push(CopyLevel { name, source, target, names, selection, length });
        self.collected.directories += 1;
        Ok(())
    }

    /// Returns the selected names in a directory, and counts them against the limit on entries.
    fn list(
        &mut self,
        directory: &OwnedFd,
        selection: &Selection,
    ) -> Result<Result<std::vec::IntoIter<CString>, Errno>> {
        let most = self.collector.max_entries;
        let listed = match selection.names() {
            Some(names) => {
                let names: Vec<_> = names.cloned().collect();
                let count = names.len() as u64;
                Ok((names, count))
            }
            None => list(directory, most - self.entries),
        };
        match listed {
            Ok((_, count)) if count > most - self.entries => {
                let what = format!("it has more than {most} entries");
                Err(self.exceeded(
                    what,
                    "raise Collector::max_entries, or change the program so that it creates fewer files",
                ))
            }
            Ok((names, count)) => {
                self.entries += count;
                Ok(Ok(names.into_iter()))
            }
            Err(errno) => Ok(Err(errno.to_errno())),
        }
    }

    fn copy_file(&mut self, name: &CStr, mut file: File, seen: &FileStat) -> Result<()> {
        let size = size(seen);
        if size > self.collector.max_bytes - self.collected.bytes {
            let (path, most) = (self.path(name), self.collector.max_bytes);
            return Err(too_large(self.from, &path, size, most, self.collected.bytes));
        }
        file_size::check(size)
            .map_err(|errno| self.write_failed(name, "write", errno).advised(Some(file_size::HINT.into())))?;
        let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = &self.current().target;
        let created = openat(target, name, new, Mode::S_IRUSR | Mode::S_IWUSR);
        let mut copy = File::from(created.map_err(|errno| self.write_failed(name, "openat", errno))?);
        let mut rest = size;
        while rest > 0 {
            let piece = &mut self.buffer[..rest.min(BUFFER_SIZE) as usize];
            let count = match file.read(piece) {
                // The file was truncated in the meantime.
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let removed = unlinkat(&self.current().target, name, UnlinkatFlags::NoRemoveDir);
                    removed.map_err(|errno| self.write_failed(name, "unlinkat", errno))?;
                    self.skip(name, SkipReason::Unreadable(error.to_errno()));
                    return Ok(());
                }
            };
            let written = copy.write_all(&piece[..count]);
            written.map_err(|error| self.write_failed(name, "write", error))?;
            rest -= count as u64;
        }
        let mode = if Mode::from_bits_truncate(seen.st_mode).contains(Mode::S_IXUSR) { EXECUTABLE } else { READABLE };
        fchmod(&copy, mode).map_err(|errno| self.write_failed(name, "fchmod", errno))?;
        self.collected.files += 1;
        self.collected.bytes += size - rest;
        Ok(())
    }

    /// Records the target of a symlink.
    fn add_symlink(&mut self, name: &CStr, target: OsString) -> Result<()> {
        let (path, size) = (self.path(name), target.len() as u64);
        if size > self.collector.max_bytes - self.collected.bytes {
            return Err(too_large(self.from, &path, size, self.collector.max_bytes, self.collected.bytes));
        }
        self.collected.bytes += size;
        self.collected.symlinks.push(Symlink { path, target: target.into() });
        Ok(())
    }

    fn skip(&mut self, name: &CStr, why: SkipReason) {
        let path = self.path(name);
        self.collected.skipped.push(Skipped { path, reason: why });
    }

    /// Returns the path of an entry of the innermost directory, relative to `from`.
    fn path(&self, name: &CStr) -> PathBuf {
        let above = self.levels.iter().skip(1).map(|level| &*level.name);
        above.chain([name]).map(|name| OsStr::from_bytes(name.to_bytes())).collect()
    }

    /// Returns the first name of that path.
    fn first_name<'b>(&'b self, name: &'b CStr) -> &'b OsStr {
        OsStr::from_bytes(self.levels.get(1).map_or(name, |level| &level.name).to_bytes())
    }

    fn exceeded(&self, what: String, hint: &'static str) -> Error {
        Error::exceeded("collect from", what, hint).on(self.from)
    }

    fn failed(&self, name: &CStr, call: &'static str, errno: impl ToErrno) -> Error {
        Error::collect("collect", self.from.join(self.path(name)), call, errno, None)
    }

    fn write_failed(&self, name: &CStr, call: &'static str, errno: impl ToErrno) -> Error {
        Error::collect("copy to", self.to.join(self.path(name)), call, errno, None)
    }
}

/// The flags for opening directories of the copy.
const TARGET: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
fn size(seen: &FileStat) -> u64 {
    seen.st_size.try_into().unwrap_or(0)
}

fn too_large(from: &Path, path: &Path, size: u64, most: u64, before: u64) -> Error {
    let after = if before > 0 { format!(", after {before} bytes of other files,") } else { String::new() };
    let what = format!("the {size} bytes of {path:?}{after} exceed the limit of {most} bytes");
    let hint = "raise Collector::max_bytes, or change the program so that it writes less";
    Error::exceeded("collect from", what, hint).on(from)
}

/// Returns the hint for a file that cannot be opened.
fn hint_for_errno(errno: Errno) -> Option<&'static str> {
    match errno.number() {
        libc::EACCES => Some("the caller may not read it: make the program set read permission, or collect as root"),
        libc::EAGAIN => Some("a process holds a lease on it (fcntl(2)): kill the sandbox first"),
        _ => None,
    }
}

/// Returns the error of [`read`] for an entry that [`copy`] skips.
fn skipped(path: PathBuf, reason: SkipReason) -> Error {
    let hint = match reason {
        SkipReason::Symlink => {
            "make the program write the file itself: symlinks are not followed, because they may lead anywhere"
        }
        SkipReason::Special => {
            "make the program write a regular file: opening any other may block, or trigger a device"
        }
        SkipReason::HardLink => {
            "make the program write a copy, or set Collector::hard_links: the file may be one that the program cannot read"
        }
        SkipReason::Mount => "collect from it with its own path",
        SkipReason::Unreadable(errno) => return Error::unreadable(path, errno, hint_for_errno(errno)),
    };
    Error::skipped(path, reason, hint)
}
