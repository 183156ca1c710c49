//! Descriptors of the caller's, opened again: flags of its own for a pipe or a terminal, and for a file that is open for
//! reading a mount that is read-only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::sys::uio::pread;

use super::layout::Layout;
use super::process::Process;
use super::{host, interpreter};
use crate::plan::{Arg, Attributes, Change, Input, Part, Program, Slot, nr};

/// Bytes of a file that is copied because it can't be opened again read-only.
pub(super) const MOST_COPIED: i64 = 16 << 20;

/// What keeps a memfd as it is: without one of these it can be written to, truncated or extended.
const SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// Whether two descriptors of this process are copies of each other, with one offset and one set of flags (kcmp(2)). Where a
/// filter of the caller's denies to ask, only a descriptor and itself are.
#[allow(unsafe_code)]
pub(super) fn is_same_description(one: RawFd, other: RawFd) -> bool {
    const FILE: libc::c_int = 0;
    let own = std::process::id();
    // SAFETY: the call takes numbers alone.
    one == other || unsafe { libc::syscall(libc::SYS_kcmp, own, own, FILE, one, other) } == 0
}

fn link(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a pipe or a terminal again: with the same access, and with flags of its own.
pub(super) fn description(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    // Whoever opens a named pipe or a serial line may have to wait for the other side.
    let how = (flags & OFlag::O_ACCMODE) | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let own = open(link(fd).as_str(), how, Mode::empty())?;
    fcntl(&own, FcntlArg::F_SETFL(flags & (OFlag::O_NONBLOCK | OFlag::O_DIRECT | OFlag::O_APPEND)))?;
    Ok(own)
}

/// Who makes the mount.
pub(super) enum Mounter<'a> {
    /// The caller, which may make mounts. A file that the program may not read otherwise is shown with the owners that
    /// this user namespace has.
    Caller { idmap: Option<&'a OwnedFd> },
    /// A child in a user namespace and a mount namespace of its own, where it finds the file by its path.
    Child,
}

/// A regular file that is open for reading, opened again through a mount that is read-only: neither its contents nor its
/// mode, times and attributes can be changed by that. It has an offset of its own.
pub(super) fn read_only(fd: BorrowedFd<'_>, stat: &FileStat, mounter: &Mounter<'_>) -> nix::Result<File> {
    let tree = match mounter {
        Mounter::Caller { idmap } => tree_of_caller(fd, *idmap)?,
        Mounter::Child => tree_of_child(&fs::read_link(link(fd)).map_err(errno)?)?,
    };
    let file = File::open(link(tree.as_fd())).map_err(errno)?;
    let found = fstat(&file)?;
    // The path may lead to another file by now.
    if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) || !is_read_only(file.as_fd()) {
        return Err(Errno::ESTALE);
    }
    Ok(file)
}

/// Whether nothing can be written by a descriptor, however it is opened again.
pub(super) fn is_read_only(fd: BorrowedFd<'_>) -> bool {
    let sealed = || SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS).unwrap_or(0)).contains(SEALS);
    fstatvfs(fd).is_ok_and(|info| info.flags().contains(FsFlags::ST_RDONLY)) || sealed()
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The calls that make a mount of one file, and the slot that it is stored in. `failed` follows each call.
fn calls(program: &mut Program, dir: Arg, path: &Path, idmap: bool, failed: impl Fn(&mut Program)) -> Slot {
    let tree = program.open_tree(dir, path);
    failed(program);
    if idmap {
        program.mount_idmap(tree, false, Input::IdMapping(0)).ignore();
    }
    program.mount_setattr(tree, Change::tree(Attributes::RDONLY | Attributes::SAFE));
    failed(program);
    tree
}

fn tree_of_caller(fd: BorrowedFd<'_>, idmap: Option<&OwnedFd>) -> nix::Result<OwnedFd> {
    let mut program = Program::new("stockade: read-only file");
    let dir = Arg::from(fd.as_raw_fd());
    let tree = calls(&mut program, dir, Path::new(""), idmap.is_some(), |_| {});
    let made = host::make(&layout(&program, &|input| match input {
        Input::IdMapping(_) => idmap.map_or(u64::MAX, |idmap| idmap.as_raw_fd() as u64),
        _ => u64::MAX,
    }));
    made.map_err(|(_, errno)| errno)?.take(tree).ok_or(Errno::EBADF)
}

/// The child shares the memory and the descriptors of the caller, and has ended when this returns.
#[allow(unsafe_code)]
fn tree_of_child(path: &Path) -> nix::Result<OwnedFd> {
    if !path.is_absolute() {
        return Err(Errno::ENOENT);
    }
    let mut program = Program::new("stockade: read-only file");
    let (end, result) = (program.label(), program.slot("result"));
    let tree = calls(&mut program, Arg::CWD, path, false, |program| {
        program.last().or_goto(end);
    });
    program.call(nr!(SYS_getpid), []).store_in(result);
    program.bind(end);
    program.exit(0);
    let mut memory = layout(&program, &|_| u64::MAX).in_place();
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_FILES;
    let cloned = interpreter::clone(flags as u64, &mut memory)?;
    let mut process = Process::new(cloned, memory);
    process.wait()?;
    // SAFETY: the slots lie in that memory, to which the process has written through a pointer.
    let [tree, result] =
        [tree, result].map(|slot| unsafe { std::ptr::read_volatile(&raw const process.memory()[slot.0 as usize]) });
    if (tree as i64) <= 0 {
        return Err(Errno::from_raw(-(tree as i64) as i32));
    }
    // SAFETY: the process has opened this descriptor in the table that it shared with us, and nobody else knows of it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as RawFd) };
    if result == 0 { Err(Errno::ENOSYS) } else { Ok(tree) }
}

fn layout<'a>(program: &'a Program, resolve: &'a dyn Fn(Input) -> u64) -> Layout<'a> {
    Layout { program, tag: Part::Host.tag(), fault: None, resolve }
}

/// A copy of a file in memory, which nobody can write to.
pub(super) fn copy(fd: BorrowedFd<'_>) -> nix::Result<File> {
    let mut copy = File::from(memfd()?);
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let len = match pread(fd, &mut buffer, at) {
            Ok(0) => break,
            Ok(len) => len,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        at += len as i64;
        if at > MOST_COPIED {
            return Err(Errno::EFBIG);
        }
        copy.write_all(&buffer[..len]).map_err(errno)?;
    }
    copy.set_permissions(fs::Permissions::from_mode(0o444)).map_err(errno)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS))?;
    File::options().read(true).open(link(copy.as_fd())).map_err(errno)
}

fn memfd() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(c"stockade: copy", flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL)) {
        // Linux before 6.3.
        Err(Errno::EINVAL) => memfd_create(c"stockade: copy", flags),
        other => other,
    }
}
