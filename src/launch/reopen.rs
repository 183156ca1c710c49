//! Opens files of the caller's descriptors again: a pipe or a terminal with flags of its own, and a regular file that
//! is open for reading through a read-only mount.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::memory_file;
use super::process::Process;
use crate::plan::{Arg, Attributes, Change, Input, Script, Slot, nr};
use crate::sys::clone::ChildProcess;
use crate::sys::in_caller;
use crate::sys::layout::Layout;

fn link(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a pipe or a terminal again, with the same access and with flags of its own.
pub(super) fn description(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    // O_NONBLOCK: opening a FIFO or a serial line could wait for the other side.
    let how = (flags & OFlag::O_ACCMODE) | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let own = open(link(fd).as_str(), how, Mode::empty())?;
    fcntl(&own, FcntlArg::F_SETFL(flags & (OFlag::O_NONBLOCK | OFlag::O_DIRECT | OFlag::O_APPEND)))?;
    Ok(own)
}

/// The process that creates the mount.
pub(super) enum Mounter<'a> {
    /// The caller, if it has the privilege. With `idmap`, the mount has the ID mapping of this user namespace, so that
    /// the program may read the file.
    Caller { idmap: Option<&'a OwnedFd> },
    /// A child in a new user namespace and mount namespace, which opens the file by its path.
    Child,
}

/// Opens a regular file again through a read-only mount. Its contents, mode, times and attributes cannot be changed by
/// the new descriptor, which has an offset of its own.
pub(super) fn read_only(fd: BorrowedFd<'_>, stat: &FileStat, mounter: &Mounter<'_>) -> nix::Result<File> {
    let tree = match mounter {
        Mounter::Caller { idmap } => tree_of_caller(fd, *idmap)?,
        Mounter::Child => tree_of_child(&fs::read_link(link(fd)).map_err(errno)?)?,
    };
    let file = File::open(link(tree.as_fd())).map_err(errno)?;
    let found = fstat(&file)?;
    // The path may refer to another file by now.
    if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) || !is_read_only(file.as_fd()) {
        return Err(Errno::ESTALE);
    }
    Ok(file)
}

/// Returns whether a file stays read-only even if its descriptor is opened again.
pub(super) fn is_read_only(fd: BorrowedFd<'_>) -> bool {
    fstatvfs(fd).is_ok_and(|info| info.flags().contains(FsFlags::ST_RDONLY)) || memory_file::is_sealed(fd)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Appends the calls that create a read-only mount of one file. Returns the slot with its descriptor. `failed` is
/// called after each call that may fail.
fn calls(script: &mut Script, dir: Arg, path: &Path, idmap: bool, failed: impl Fn(&mut Script)) -> Slot {
    let tree = script.open_tree(dir, path);
    failed(script);
    if idmap {
        script.mount_idmap(tree, false, Input::IdMapping(0)).ignore();
    }
    script.mount_setattr(tree, Change::tree(Attributes::RDONLY | Attributes::SAFE));
    failed(script);
    tree
}

fn tree_of_caller(fd: BorrowedFd<'_>, idmap: Option<&OwnedFd>) -> nix::Result<OwnedFd> {
    let mut script = Script::new("stockade: read-only file");
    let dir = Arg::from(fd.as_raw_fd());
    let tree = calls(&mut script, dir, Path::new(""), idmap.is_some(), |_| {});
    let made = in_caller::execute(&layout(&script, &|input| match input {
        Input::IdMapping(_) => idmap.map_or(u64::MAX, |idmap| idmap.as_raw_fd() as u64),
        _ => u64::MAX,
    }));
    made.map_err(|(_, errno)| errno)?.take(tree).ok_or(Errno::EBADF)
}

/// Creates the mount in a child that shares the memory and the descriptors of the caller. It has exited when this
/// returns.
fn tree_of_child(path: &Path) -> nix::Result<OwnedFd> {
    if !path.is_absolute() {
        return Err(Errno::ENOENT);
    }
    let mut script = Script::new("stockade: read-only file");
    let (end, result) = (script.label(), script.slot("result"));
    let tree = calls(&mut script, Arg::CWD, path, false, |script| {
        script.last().or_goto(end);
    });
    script.call(nr!(SYS_getpid), []).store_in(result);
    script.bind(end);
    script.exit(0);
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_FILES;
    let mut process = Process::new(ChildProcess::clone(flags as u64, &layout(&script, &|_| u64::MAX))?);
    process.wait()?;
    let is_done = process.slot(result) != 0;
    let tree = process.child().take_descriptor(tree)?;
    if is_done { Ok(tree) } else { Err(Errno::ENOSYS) }
}

fn layout<'a>(script: &'a Script, resolve: &'a dyn Fn(Input) -> u64) -> Layout<'a> {
    Layout { script, tag: 0, fault: None, resolve }
}
