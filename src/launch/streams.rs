//! The standard streams of a command: the ends that the program gets, and those that the host keeps.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use crate::error::{Error, Result};
use crate::plan::{Plan, Stream};

/// The three standard streams.
#[derive(Default)]
pub(super) struct Streams {
    /// The descriptors that the program gets.
    pub program: [RawFd; 3],
    /// The other ends of pipes.
    pub host: [Option<OwnedFd>; 3],
    /// What closes once the program has its copies.
    _ends: Vec<OwnedFd>,
}

impl Streams {
    pub fn open(plan: &Plan, inherited: [bool; 3], own_id: u32) -> Result<Self> {
        let mut opened = Self::default();
        for (number, stream) in plan.stdio.into_iter().enumerate() {
            opened.program[number] = match stream {
                Stream::Inherit if inherited[number] => number as RawFd,
                Stream::Inherit | Stream::Null | Stream::Pty => opened.keep(null()?),
                Stream::Descriptor(index) => plan.descriptors[index as usize].as_raw_fd(),
                Stream::Piped => {
                    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::host("making a pipe"))?;
                    if let Some((uid, gid)) = plan.owner {
                        // It can be opened again then, as /dev/stdout.
                        let (uid, gid) = (Uid::from_raw(uid.number(own_id)), Gid::from_raw(gid.number(own_id)));
                        fchown(&read, Some(uid), Some(gid)).map_err(Error::host("giving a pipe to the program"))?;
                    }
                    let (program, host) = if number == 0 { (read, write) } else { (write, read) };
                    opened.host[number] = Some(host);
                    opened.keep(program)
                }
            };
        }
        Ok(opened)
    }

    fn keep(&mut self, fd: OwnedFd) -> RawFd {
        self._ends.push(fd);
        self._ends[self._ends.len() - 1].as_raw_fd()
    }
}

fn null() -> Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).map_err(Error::host("opening /dev/null"))
}

/// Which of the standard streams the host has at all.
pub(super) fn inherited() -> [bool; 3] {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(|fd| fcntl(fd, FcntlArg::F_GETFD).is_ok())
}
