//! The descriptors of a command: those that the program gets, and the other ends, which the caller keeps.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::handed::{Handed, Kept, Program, give};
use crate::error::{Error, Result};
use crate::plan::{Plan, Stream};

/// The standard streams, and further descriptors.
#[derive(Default)]
pub(super) struct Streams {
    /// The descriptors that the program gets as its standard streams.
    pub program: [RawFd; 3],
    /// The same for those of the plan that are handed to it, by their index there.
    further: Vec<(u16, RawFd)>,
    /// The other ends of pipes.
    pub caller: [Option<OwnedFd>; 3],
    /// What the program gets; it closes once the program has its copies.
    handed: Handed,
}

const NAMES: [&str; 3] = ["standard input", "standard output", "standard error"];

impl Streams {
    pub fn open(plan: &Plan, inherited: [bool; 3], own_id: u32, caller: BorrowedFd<'_>) -> Result<Self> {
        let owner = plan.owner.map(|(uid, gid)| (uid.number(own_id), gid.number(own_id)));
        let program = Program { owner, most_written: plan.bounds.file_size, caller };
        let mut opened = Self::default();
        for (number, stream) in plan.stdio.into_iter().enumerate() {
            opened.program[number] = match stream {
                Stream::Inherit if inherited[number] => {
                    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
                    let fd = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()][number];
                    opened.handed.hand(fd, NAMES[number], &program)?
                }
                Stream::Inherit | Stream::Null | Stream::Pty => opened.handed.keep(null()?),
                Stream::Descriptor(index) => {
                    let fd = plan.descriptors[index as usize].as_fd();
                    opened.handed.hand(fd, NAMES[number], &program)?
                }
                Stream::Piped => {
                    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::host("making a pipe"))?;
                    give(&read, owner)?;
                    let (program, caller) = if number == 0 { (read, write) } else { (write, read) };
                    opened.caller[number] = Some(caller);
                    opened.handed.keep(program)
                }
            };
        }
        for &(index, number) in &plan.handed {
            let fd = plan.descriptors[index as usize].as_fd();
            let given = opened.handed.hand(fd, &format!("descriptor {number}"), &program)?;
            opened.further.push((index, given));
        }
        Ok(opened)
    }

    /// What the program gets for a descriptor of the plan.
    pub fn further(&self, index: u16) -> RawFd {
        self.further.iter().find(|(known, _)| *known == index).map_or(-1, |&(_, fd)| fd)
    }

    /// The caller's ends of pipes, and what stays for as long as the program has its descriptors.
    pub fn take(&mut self) -> ([Option<OwnedFd>; 3], Kept) {
        (std::mem::take(&mut self.caller), std::mem::take(&mut self.handed.kept))
    }
}

fn null() -> Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).map_err(Error::host("opening /dev/null"))
}

/// Which of the standard streams the caller has at all.
pub(super) fn inherited() -> [bool; 3] {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(|fd| fcntl(fd, FcntlArg::F_GETFD).is_ok())
}
