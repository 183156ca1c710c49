//! The standard streams and other descriptors of a program, and the ends of pipes that the caller keeps.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::descriptors::{Handed, HeldForProgram, Recipient, give, is_terminal};
use super::memory_file;
use crate::error::{Error, Result};
use crate::plan::{Inherited, Stream};

/// The descriptors of a launch.
#[derive(Default)]
pub(super) struct Streams {
    /// The descriptors that become the program's standard streams.
    pub program: [RawFd; 3],
    /// The descriptors that the program inherits in addition, each with the index in the plan of the one that it stands
    /// for.
    further: Vec<(u16, RawFd)>,
    /// The caller's ends of pipes.
    pub caller: [Option<OwnedFd>; 3],
    /// The descriptors that are open only for the program.
    handed: Handed,
    /// The one among them that is `/dev/null`.
    null: Option<RawFd>,
}

const NAMES: [&str; 3] = ["standard input", "standard output", "standard error"];

impl Streams {
    pub fn open(given: &Inherited, is_open: [bool; 3], own_id: u32, caller: BorrowedFd<'_>) -> Result<Self> {
        let owner = given.owner.map(|(uid, gid)| (uid.number(own_id), gid.number(own_id)));
        let program = Recipient { owner, most_written: given.most_written, caller };
        let mut opened = Self::default();
        for (number, stream) in given.stdio.into_iter().enumerate() {
            opened.program[number] = match stream {
                Stream::Inherit if is_open[number] => {
                    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
                    let fd = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()][number];
                    match given.without_terminals && is_terminal(fd) {
                        true if number == 0 => opened.null()?,
                        true => opened.handed.hand_copied(fd, NAMES[number], &program)?,
                        false => opened.handed.hand(fd, NAMES[number], &program)?,
                    }
                }
                Stream::Inherit | Stream::Null | Stream::Pty => opened.null()?,
                Stream::Input => opened.handed.keep(memory_file::of_bytes(&given.input)?.into()),
                Stream::Descriptor(index) => {
                    let fd = given.descriptors[index as usize].as_fd();
                    opened.handed.hand(fd, NAMES[number], &program)?
                }
                Stream::Piped => {
                    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::io("create a pipe"))?;
                    give(&read, owner)?;
                    let (program, caller) = if number == 0 { (read, write) } else { (write, read) };
                    opened.caller[number] = Some(caller);
                    opened.handed.keep(program)
                }
            };
        }
        for &(index, number) in &given.handed {
            let fd = given.descriptors[index as usize].as_fd();
            let given = opened.handed.hand(fd, &format!("descriptor {number}"), &program)?;
            opened.further.push((index, given));
        }
        Ok(opened)
    }

    /// Returns a descriptor of `/dev/null`, which is opened once.
    pub fn null(&mut self) -> Result<RawFd> {
        if self.null.is_none() {
            let null = File::options().read(true).write(true).open("/dev/null").map_err(Error::io("open /dev/null"))?;
            self.null = Some(self.handed.keep(null.into()));
        }
        Ok(self.null.unwrap_or(-1))
    }

    /// Returns the descriptor that the program inherits for one of the plan.
    pub fn further(&self, index: u16) -> RawFd {
        self.further.iter().find(|(known, _)| *known == index).map_or(-1, |&(_, fd)| fd)
    }

    /// Takes the caller's ends of pipes, and the relays and terminals.
    pub fn take(&mut self) -> ([Option<OwnedFd>; 3], HeldForProgram) {
        (std::mem::take(&mut self.caller), std::mem::take(&mut self.handed.held))
    }
}

/// Returns which of the standard streams are open in the caller.
pub(super) fn inherited() -> [bool; 3] {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(|fd| fcntl(fd, FcntlArg::F_GETFD).is_ok())
}
