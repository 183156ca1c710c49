//! The descriptors that a program inherits from its caller.
//!
//! A descriptor often grants more access than it was opened for. A file that is open for reading can be opened again
//! for writing through `/proc/self/fd`, and flags such as `O_NONBLOCK` are shared with the caller. Therefore the
//! program inherits a replacement where one is possible:
//!
//! | caller's descriptor | open for | the program inherits |
//! |---|---|---|
//! | regular file | reading | the file, opened again through a read-only mount |
//! | | writing or appending | a pipe; a thread of the caller copies from it to the file |
//! | | reading and writing | the caller's descriptor |
//! | pipe, FIFO, terminal | any access | the same, opened again, with flags of its own |
//! | directory, namespace, `O_PATH` | | none: an error is returned |
//! | socket, device, any other | | the caller's descriptor |

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, Whence, fchown, lseek};

use super::idmapped_mount;
use super::memory_file::{self, MAX_COPY};
use super::relay::Relay;
use super::reopen::{self, Mounter};
use super::terminal::Modes;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::outcome::Unenforced;
use crate::plan::{HostId, IdMaps, MapLine, MapWriter};
use crate::sys::kcmp::is_same_description;
use crate::unix::ToErrno;

/// The file system of unnamed pipes (statfs(2)).
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);
/// The file system of namespaces.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// The program that inherits the descriptors.
pub(super) struct Recipient<'a> {
    /// The program's user and group on the host, if the caller may change the owner of files.
    pub owner: Option<(u32, u32)>,
    /// The maximum size of a file that it may write (`RLIMIT_FSIZE`), in bytes.
    pub most_written: Option<u64>,
    /// A pidfd of the caller.
    pub caller: BorrowedFd<'a>,
}

/// A descriptor of the caller that the program is to inherit.
struct CallerDescriptor<'a> {
    fd: BorrowedFd<'a>,
    /// For errors.
    name: &'a str,
    stat: FileStat,
    /// The access and the status flags (fcntl(2), `F_GETFL`).
    flags: OFlag,
    program: &'a Recipient<'a>,
}

impl<'a> CallerDescriptor<'a> {
    fn of(fd: BorrowedFd<'a>, name: &'a str, program: &'a Recipient<'a>) -> Result<Self> {
        let stat = fstat(fd).map_err(Error::io("inspect a descriptor"))?;
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(Error::io("read the flags of a descriptor"))?;
        Ok(Self { fd, name, stat, flags: OFlag::from_bits_retain(flags), program })
    }
}

/// The relays, and the modes of terminals to restore. They are kept until the sandbox is reaped.
#[derive(Debug, Default)]
pub(super) struct HeldForProgram {
    relays: Vec<(String, Relay)>,
    terminals: Vec<Modes>,
    /// The descriptors that could not be replaced.
    pub lost: Vec<Unenforced>,
}

impl HeldForProgram {
    /// Copies the program's remaining output, and restores the modes of terminals. Returns the descriptors to which
    /// output could not be written.
    pub fn finish(&mut self) -> Vec<Unenforced> {
        self.terminals.drain(..).for_each(|modes| modes.restore());
        let failed = |(name, mut relay): (String, Relay)| {
            let remedy = "check the file or pipe that it refers to: the end of the program's output is missing there";
            let step = format!("copy {name} to the caller's descriptor");
            let error = |error: io::Error| lost(&name, step, "write", error, remedy);
            relay.finish().err().map(error)
        };
        self.relays.drain(..).filter_map(failed).collect()
    }
}

/// The descriptors that a program inherits.
#[derive(Default)]
pub(super) struct Handed {
    /// Each descriptor of the caller, with the one that the program inherits for it.
    known: Vec<(RawFd, RawFd)>,
    /// Descriptors that were opened for the program. They are closed when it has its copies.
    opened: Vec<OwnedFd>,
    pub held: HeldForProgram,
}

/// Records that a descriptor of the program grants more access than it was opened for.
fn lost(name: &str, step: String, call: &'static str, errno: impl ToErrno, remedy: &str) -> Unenforced {
    let error = Error::set_up(step, call, errno, Some(remedy)).of(Layer::Descriptors);
    Unenforced::new(format!("{name} gives no more than it was opened for"), &error)
}

impl Handed {
    /// Keeps a descriptor open until the program has inherited it. Returns its number.
    pub fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.opened.push(fd);
        number
    }

    /// Returns the descriptor that the program inherits for one of the caller. `name` is for errors.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the descriptor gives access to
    /// files outside of the sandbox, or if the access that it was opened for cannot be enforced.
    pub fn hand(&mut self, fd: BorrowedFd<'_>, name: &str, program: &Recipient<'_>) -> Result<RawFd> {
        if let Some(given) = self.given_for(fd) {
            return Ok(given);
        }
        let descriptor = CallerDescriptor::of(fd, name, program)?;
        let CallerDescriptor { stat, flags, .. } = descriptor;
        let kind = SFlag::from_bits_retain(stat.st_mode) & SFlag::S_IFMT;
        let own = match kind {
            SFlag::S_IFDIR => return Err(refused(name, "a directory", "bind the directory: Root::bind(…)")),
            _ if flags.contains(OFlag::O_PATH) => {
                return Err(refused(name, "open only as a location (O_PATH)", "open it for reading or writing"));
            }
            SFlag::S_IFREG => self.replace_file(&descriptor)?,
            SFlag::S_IFIFO => self.replace_pipe(&descriptor)?,
            SFlag::S_IFCHR => self.replace_terminal(&descriptor),
            _ => None,
        };
        let number = own.map_or(fd.as_raw_fd(), |own| self.keep(own));
        self.known.push((fd.as_raw_fd(), number));
        Ok(number)
    }

    /// Returns a pipe that the program inherits for a descriptor of the caller, to which a thread copies what is written to the pipe.
    pub fn hand_copied(&mut self, fd: BorrowedFd<'_>, name: &str, program: &Recipient<'_>) -> Result<RawFd> {
        if let Some(given) = self.given_for(fd) {
            return Ok(given);
        }
        let pipe = self.relay(&CallerDescriptor::of(fd, name, program)?)?;
        let number = self.keep(pipe);
        self.known.push((fd.as_raw_fd(), number));
        Ok(number)
    }

    /// Returns what the program inherits already for a descriptor of the caller.
    fn given_for(&self, fd: BorrowedFd<'_>) -> Option<RawFd> {
        self.known.iter().find(|(known, _)| is_same_description(*known, fd.as_raw_fd())).map(|&(_, given)| given)
    }

    /// Returns the replacement for a regular file. `None` if the program inherits the caller's descriptor.
    fn replace_file(&mut self, descriptor: &CallerDescriptor<'_>) -> Result<Option<OwnedFd>> {
        let &CallerDescriptor { fd, name, flags, .. } = descriptor;
        if fstatfs(fd).is_ok_and(|info| info.filesystem_type() == NSFS_MAGIC) {
            return Err(refused(name, "a namespace", "join it: Sandbox::join(…)"));
        }
        match flags & OFlag::O_ACCMODE {
            OFlag::O_RDONLY => Ok(self.replace_read_only(descriptor)),
            OFlag::O_WRONLY => self.relay(descriptor).map(Some),
            _ if flags.contains(OFlag::O_APPEND) => {
                let what =
                    "a file that is open for reading and appending, and appending alone cannot be enforced for it";
                Err(refused(name, what, "open it twice: for reading, and for appending"))
            }
            _ => Ok(None),
        }
    }

    /// Returns the replacement for a regular file that is open for reading: the file on a read-only mount, or a copy.
    fn replace_read_only(&mut self, descriptor: &CallerDescriptor<'_>) -> Option<OwnedFd> {
        let CallerDescriptor { fd, name, stat, program, .. } = descriptor;
        let is_owner = program.owner.is_none_or(|(uid, _)| uid == stat.st_uid);
        let is_readable = is_owner || stat.st_mode & Mode::S_IROTH.bits() != 0;
        if reopen::is_read_only(*fd) && is_readable {
            return None;
        }
        let opened = match program.owner {
            None => reopen::read_only(*fd, stat, &Mounter::Child),
            Some(owner) => {
                let idmap = if is_readable { None } else { as_owner(stat, owner, program.caller) };
                reopen::read_only(*fd, stat, &Mounter::Caller { idmap: idmap.as_ref() })
            }
        };
        // The file may have no path, the kernel may not support this mount, or the user may not create it.
        let opened = opened.or_else(|errno| memory_file::copy(*fd).map_err(|_| errno));
        let remedy = format!("pass a pipe, or a file of at most {} MiB, which is copied", MAX_COPY >> 20);
        let opened: Option<File> = opened
            .map_err(|errno| {
                let step = format!("open {name} again through a read-only mount");
                self.held.lost.push(lost(name, step, "open_tree", errno, &remedy));
            })
            .ok();
        let opened = opened?;
        // Some files have no offset.
        let _ = lseek(fd, 0, Whence::SeekCur).and_then(|offset| lseek(&opened, offset, Whence::SeekSet));
        Some(opened.into())
    }

    /// Returns a pipe from which a thread copies to `to`.
    fn relay(&mut self, to: &CallerDescriptor<'_>) -> Result<OwnedFd> {
        let copy = to.fd.try_clone_to_owned().map_err(Error::io("copy a descriptor"))?;
        let (relay, pipe) = Relay::start(copy, to.program.most_written)?;
        give(&pipe, to.program.owner)?;
        self.held.relays.push((to.name.into(), relay));
        Ok(pipe)
    }

    /// Returns the replacement for a pipe. `None` if the program inherits the caller's descriptor.
    fn replace_pipe(&mut self, descriptor: &CallerDescriptor<'_>) -> Result<Option<OwnedFd>> {
        let CallerDescriptor { fd, name, stat, flags, program } = descriptor;
        let access = *flags & OFlag::O_ACCMODE;
        match reopen::description(*fd, *flags) {
            Ok(own) => {
                if program.owner.is_some_and(|(uid, _)| uid != stat.st_uid) {
                    let _ = open_to_others(*fd, stat, access);
                }
                Ok(Some(own))
            }
            // The pipe belongs to another user, or no process has opened it for reading yet.
            Err(_) if access == OFlag::O_WRONLY => self.relay(descriptor).map(Some),
            Err(errno) => {
                self.held.lost.push(shared(name, errno));
                Ok(None)
            }
        }
    }

    /// Returns the replacement for a terminal, and saves its modes. `None` for any other device.
    fn replace_terminal(&mut self, descriptor: &CallerDescriptor<'_>) -> Option<OwnedFd> {
        let &CallerDescriptor { fd, name, stat, flags, .. } = descriptor;
        // /dev/ptmx, which creates another terminal each time that it is opened.
        const MULTIPLEXER: u64 = libc::makedev(5, 2);
        const MEMORY: u32 = 1;
        if libc::major(stat.st_rdev) == MEMORY || stat.st_rdev == MULTIPLEXER || !is_terminal(fd) {
            return None;
        }
        let own = reopen::description(fd, flags).map_err(|errno| self.held.lost.push(shared(name, errno))).ok();
        let copy = own.as_ref().map_or(fd, AsFd::as_fd).try_clone_to_owned().ok();
        self.held.terminals.extend(copy.and_then(Modes::read));
        own
    }
}

pub(super) fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    io::IsTerminal::is_terminal(&fd)
}

fn refused(name: &str, what: &str, remedy: &'static str) -> Error {
    Error::invalid(format!("{name} is {what}"), remedy)
}

/// Records that the program shares the flags of a descriptor with the caller.
fn shared(name: &str, errno: Errno) -> Unenforced {
    let remedy =
        "the program can set O_NONBLOCK for the caller: pass a pipe or a terminal that belongs to the caller's user";
    lost(name, format!("open {name} again with flags of its own"), "openat", errno, remedy)
}

/// Returns a user namespace for an idmapped mount on which the program is the owner of a file. `None` if none can be
/// created.
fn as_owner(stat: &FileStat, (uid, gid): (u32, u32), caller: BorrowedFd<'_>) -> Option<OwnedFd> {
    let line = |of: u32, to: u32| vec![MapLine::one(of, HostId::Id(to))];
    let maps = IdMaps { uid: line(stat.st_uid, uid), gid: line(stat.st_gid, gid), writer: MapWriter::Caller };
    idmapped_mount::new_namespace(&maps, 0, caller).ok()
}

/// Makes the program the owner of a new pipe, so that the program can open it again, for example as `/dev/stdout`.
pub(super) fn give(pipe: &OwnedFd, owner: Option<(u32, u32)>) -> Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let given = fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    given.map_err(Error::io("duplicate a pipe for the program"))
}

/// Allows all users to open an unnamed pipe again, for the access that its descriptor has. Only processes that have it
/// open, and processes that may access `/proc/[pid]/fd` of those, can find it.
fn open_to_others(fd: BorrowedFd<'_>, stat: &FileStat, access: OFlag) -> nix::Result<()> {
    let others = match access {
        OFlag::O_RDONLY => Mode::S_IROTH,
        OFlag::O_WRONLY => Mode::S_IWOTH,
        _ => Mode::S_IROTH | Mode::S_IWOTH,
    };
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if mode.contains(others) || fstatfs(fd)?.filesystem_type() != PIPEFS_MAGIC {
        return Ok(());
    }
    fchmod(fd, mode | others)
}
