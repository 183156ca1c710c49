//! Collecting what a program writes: both streams at once, until the program has ended and what is left is read.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Running;
use crate::error::{Error, Result};

/// A stream that is being collected.
struct Collected {
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Collected {
    fn new(file: Option<File>) -> Result<Self> {
        if let Some(file) = &file {
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(reading)?;
        }
        Ok(Self { file, bytes: vec![] })
    }

    /// Takes what is there; a stream that has ended is closed.
    fn take(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.read_to_end(&mut self.bytes) {
            Ok(_) => self.file = None,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(reading(error)),
        }
        Ok(())
    }
}

/// Reads both streams until the program has ended, and then what is left in them.
pub(super) fn collect(streams: [Option<File>; 2], running: &dyn Running) -> Result<[Vec<u8>; 2]> {
    let [stdout, stderr] = streams;
    let mut collected = [Collected::new(stdout)?, Collected::new(stderr)?];
    loop {
        let mut fds = vec![PollFd::new(running.pidfd(), PollFlags::POLLIN)];
        let open = collected.iter().filter_map(|stream| stream.file.as_ref());
        fds.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(Error::host("waiting for output")(errno)),
        }
        let ended = fds[0].any().unwrap_or(false);
        if ended {
            running.end();
        }
        collected.iter_mut().try_for_each(Collected::take)?;
        if ended {
            return Ok(collected.map(|stream| stream.bytes));
        }
    }
}

fn reading(error: impl Into<crate::Errno>) -> Error {
    Error::host("reading the output")(error)
}
