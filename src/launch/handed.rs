//! What a program gets for the descriptors that its caller hands to it. A descriptor is access to what it leads to, and
//! often to more than it was opened for: a file that is open for reading can be opened again for writing by
//! `/proc/self/fd`, and flags such as `O_NONBLOCK` are shared with the caller. So the program gets something else where
//! that can be had.
//!
//! | | open for | the program gets |
//! |---|---|---|
//! | regular file | reading | the file, opened again through a mount that is read-only |
//! | | writing or appending | a pipe, which a thread of the caller copies to the file |
//! | | reading and writing | the caller's descriptor |
//! | pipe, FIFO, terminal | anything | the same, opened again, with flags of its own |
//! | directory, namespace, `O_PATH` | | nothing: an error |
//! | socket, device, anything else | | the caller's descriptor |

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, Whence, fchown, lseek};

use super::idmap;
use super::relay::Relay;
use super::reopen::{self, MOST_COPIED, Mounter, is_same_description};
use super::terminal::Modes;
use crate::error::{Error, Result};
use crate::outcome::{Layer, Lost};
use crate::plan::{HostId, IdMaps, MapLine, Writer};

/// Of pipes without a name (statfs(2)).
const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);
/// Of namespaces.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Who gets the descriptors.
pub(super) struct Program<'a> {
    /// The program's user and group on the host, if the caller may give files away.
    pub owner: Option<(u32, u32)>,
    /// The bytes of the largest file that it may write (`RLIMIT_FSIZE`).
    pub most_written: Option<u64>,
    /// A pidfd of the caller.
    pub caller: BorrowedFd<'a>,
}

/// What stays for as long as the program has its descriptors.
#[derive(Debug, Default)]
pub(super) struct Kept {
    relays: Vec<(String, Relay)>,
    terminals: Vec<Modes>,
    /// What a descriptor still gives beyond what it was opened for, and why.
    pub lost: Vec<Lost>,
}

impl Kept {
    /// Writes what the program has written, and restores terminals. Returns which output could not be written.
    pub fn finish(&mut self) -> Vec<Lost> {
        self.terminals.drain(..).for_each(|modes| modes.restore());
        let failed = |(name, mut relay): (String, Relay)| {
            let remedy = "look at the file or pipe that it leads to: what the program wrote last is missing there";
            let error = |error: io::Error| lost(&name, "copying it to the caller's descriptor", "write", error, remedy);
            relay.finish().err().map(error)
        };
        self.relays.drain(..).filter_map(failed).collect()
    }
}

/// The descriptors of a program.
#[derive(Default)]
pub(super) struct Handed {
    /// Each of the caller's, with what the program gets for it.
    known: Vec<(RawFd, RawFd)>,
    /// What was opened for the program alone.
    opened: Vec<OwnedFd>,
    pub kept: Kept,
}

fn lost(name: &str, step: &str, call: &'static str, errno: impl Into<crate::Errno>, remedy: &str) -> Lost {
    let error = Error::set_up(format!("{name}: {step}"), call, errno, Some(remedy)).of(Layer::Descriptors);
    Lost::new(format!("{name} gives no more than it was opened for"), &error)
}

impl Handed {
    /// Keeps a descriptor until the program has it.
    pub fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.opened.push(fd);
        number
    }

    /// Returns what the program gets for a descriptor of the caller's; `name` is for errors.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for what leads out of the sandbox, or can't be handed in as it was opened.
    pub fn hand(&mut self, fd: BorrowedFd<'_>, name: &str, program: &Program<'_>) -> Result<RawFd> {
        let stat = fstat(fd).map_err(Error::host("looking at a descriptor"))?;
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(Error::host("looking at the flags of a descriptor"))?;
        let flags = OFlag::from_bits_retain(flags);
        let kind = SFlag::from_bits_retain(stat.st_mode) & SFlag::S_IFMT;
        if let Some((_, given)) = self.known.iter().find(|(known, _)| is_same_description(*known, fd.as_raw_fd())) {
            return Ok(*given);
        }
        let own = match kind {
            SFlag::S_IFDIR => return Err(refused(name, "a directory", "bind the directory: Root::bind(…)")),
            _ if flags.contains(OFlag::O_PATH) => {
                return Err(refused(name, "open as a place alone (O_PATH)", "open it for reading or writing"));
            }
            SFlag::S_IFREG => self.file(fd, name, &stat, flags, program)?,
            SFlag::S_IFIFO => self.pipe(fd, name, &stat, flags, program)?,
            SFlag::S_IFCHR => self.device(fd, name, &stat, flags),
            _ => None,
        };
        let number = own.map_or(fd.as_raw_fd(), |own| self.keep(own));
        self.known.push((fd.as_raw_fd(), number));
        Ok(number)
    }

    fn file(
        &mut self,
        fd: BorrowedFd<'_>,
        name: &str,
        stat: &FileStat,
        flags: OFlag,
        program: &Program<'_>,
    ) -> Result<Option<OwnedFd>> {
        if fstatfs(fd).is_ok_and(|info| info.filesystem_type() == NSFS_MAGIC) {
            return Err(refused(name, "a namespace", "join it: Sandbox::join(…)"));
        }
        match flags & OFlag::O_ACCMODE {
            OFlag::O_RDONLY => Ok(self.read_only(fd, name, stat, program)),
            OFlag::O_WRONLY => self.relay(fd, name, program).map(Some),
            _ if flags.contains(OFlag::O_APPEND) => {
                let what =
                    "a file that is open for reading and appending, and appending alone can't be enforced for it";
                Err(refused(name, what, "open it twice: for reading, and for appending"))
            }
            _ => Ok(None),
        }
    }

    fn read_only(&mut self, fd: BorrowedFd<'_>, name: &str, stat: &FileStat, program: &Program<'_>) -> Option<OwnedFd> {
        let is_owner = program.owner.is_none_or(|(uid, _)| uid == stat.st_uid);
        let is_readable = is_owner || stat.st_mode & Mode::S_IROTH.bits() != 0;
        if reopen::is_read_only(fd) && is_readable {
            return None;
        }
        let opened = match program.owner {
            None => reopen::read_only(fd, stat, &Mounter::Child),
            Some(owner) => {
                let idmap = if is_readable { None } else { as_owner(stat, owner, program.caller) };
                reopen::read_only(fd, stat, &Mounter::Caller { idmap: idmap.as_ref() })
            }
        };
        // It has no path, the kernel has no read-only mounts of a file, or this user may not make them.
        let opened = opened.or_else(|errno| reopen::copy(fd).map_err(|_| errno));
        let remedy = format!("hand in a pipe, or a file of {} MiB at most, which is copied", MOST_COPIED >> 20);
        let opened: Option<File> = opened
            .map_err(|errno| {
                let step = "opening it again through a read-only mount";
                self.kept.lost.push(lost(name, step, "open_tree", errno, &remedy));
            })
            .ok();
        let opened = opened?;
        // One that has no offset stays as it is.
        let _ = lseek(fd, 0, Whence::SeekCur).and_then(|offset| lseek(&opened, offset, Whence::SeekSet));
        Some(opened.into())
    }

    /// A pipe, of which a thread copies what is written to `to`.
    fn relay(&mut self, to: BorrowedFd<'_>, name: &str, program: &Program<'_>) -> Result<OwnedFd> {
        let copy = to.try_clone_to_owned().map_err(Error::host("copying a descriptor"))?;
        let (relay, pipe) = Relay::start(copy, program.most_written)?;
        give(&pipe, program.owner)?;
        self.kept.relays.push((name.into(), relay));
        Ok(pipe)
    }

    fn pipe(
        &mut self,
        fd: BorrowedFd<'_>,
        name: &str,
        stat: &FileStat,
        flags: OFlag,
        program: &Program<'_>,
    ) -> Result<Option<OwnedFd>> {
        let access = flags & OFlag::O_ACCMODE;
        match reopen::description(fd, flags) {
            Ok(own) => {
                if program.owner.is_some_and(|(uid, _)| uid != stat.st_uid) {
                    let _ = open_to_others(fd, stat, access);
                }
                Ok(Some(own))
            }
            // It belongs to another user, or nobody reads from it yet.
            Err(_) if access == OFlag::O_WRONLY => self.relay(fd, name, program).map(Some),
            Err(errno) => {
                self.kept.lost.push(shared(name, errno));
                Ok(None)
            }
        }
    }

    fn device(&mut self, fd: BorrowedFd<'_>, name: &str, stat: &FileStat, flags: OFlag) -> Option<OwnedFd> {
        // Another number is another terminal: who opens that one gets a new terminal.
        const MULTIPLEXER: u64 = libc::makedev(5, 2);
        const MEMORY: u32 = 1;
        if libc::major(stat.st_rdev) == MEMORY || stat.st_rdev == MULTIPLEXER || !is_terminal(fd) {
            return None;
        }
        let own = reopen::description(fd, flags).map_err(|errno| self.kept.lost.push(shared(name, errno))).ok();
        let copy = own.as_ref().map_or(fd, AsFd::as_fd).try_clone_to_owned().ok();
        self.kept.terminals.extend(copy.and_then(Modes::read));
        own
    }
}

fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    io::IsTerminal::is_terminal(&fd)
}

fn refused(name: &str, what: &str, remedy: &str) -> Error {
    Error::invalid(format!("{name} is {what}"), remedy)
}

/// A descriptor whose flags the program shares with the caller.
fn shared(name: &str, errno: Errno) -> Lost {
    let remedy = "hand in a pipe or a terminal of the caller's own user: the program can set O_NONBLOCK for the caller";
    lost(name, "opening it again with flags of its own", "openat", errno, remedy)
}

/// A user namespace in which the owner of a file appears as the program. It is not to be had for each file system.
fn as_owner(stat: &FileStat, (uid, gid): (u32, u32), caller: BorrowedFd<'_>) -> Option<OwnedFd> {
    let line = |of: u32, to: u32| vec![MapLine::one(of, HostId::Id(to))];
    let maps = IdMaps { uid: line(stat.st_uid, uid), gid: line(stat.st_gid, gid), writer: Writer::Host };
    idmap::new_namespace(&maps, 0, caller).ok()
}

/// Gives a new pipe to the program, so that it can be opened again, as `/dev/stdout`.
pub(super) fn give(pipe: &OwnedFd, owner: Option<(u32, u32)>) -> Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let given = fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    given.map_err(Error::host("giving a pipe to the program"))
}

/// Lets others open a pipe without a name again, as far as it is open. It can be reached by the processes that have it
/// open, and by those that may look into them.
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
