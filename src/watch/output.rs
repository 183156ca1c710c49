//! Collecting what a program writes: both streams at once, each up to its limit, and counting all of it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Bounds, Overflow, Running};
use crate::error::{Error, Result};
use crate::outcome::{Reading, Source};
use crate::sys::pipe;

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// Bytes of each stream that are kept if no limit is set.
const KEPT: u64 = 16 << 20;

/// What came from the two streams.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted(pub [Option<Reading<u64>>; 2]);

/// A stream that is being collected.
struct Stream {
    file: Option<File>,
    kept: Vec<u8>,
    count: Option<u64>,
    /// Bytes that are kept.
    most: u64,
    /// Whether a program that writes more is ended.
    ends: bool,
}

impl Stream {
    fn new(file: Option<File>, limit: Option<u64>, overflow: Overflow) -> Result<Self> {
        if let Some(file) = &file {
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(reading)?;
        }
        let count = file.is_some().then_some(0);
        Ok(Self {
            file,
            kept: vec![],
            count,
            most: limit.unwrap_or(KEPT),
            ends: limit.is_some() && overflow == Overflow::End,
        })
    }

    /// Takes a piece, if there is one; whether there may be more at once. A stream that has ended is closed.
    fn take(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        match file.read(buffer) {
            Ok(0) => self.file = None,
            Ok(len) => {
                let count = self.count.get_or_insert(0);
                let room = usize::try_from(self.most.saturating_sub(*count)).unwrap_or(usize::MAX);
                self.kept.extend_from_slice(&buffer[..len.min(room)]);
                *count += len as u64;
                return Ok(true);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(reading(error)),
        }
        Ok(false)
    }

    /// Takes what is there now, in however many pieces: a program can give its pipe another size, and have each write come
    /// as a piece of its own (pipe(2), `O_DIRECT`). What somebody goes on to write is left.
    fn take_all(&mut self, buffer: &mut [u8]) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let unread = pipe::unread(file.as_fd()).map_err(reading)?;
        let all = self.count.unwrap_or_default().saturating_add(unread);
        while self.count.is_some_and(|count| count < all) && self.take(buffer)? {}
        Ok(())
    }

    fn is_truncated(&self) -> bool {
        self.count.is_some_and(|count| count > self.most)
    }

    fn has_overflowed(&self) -> bool {
        self.ends && self.is_truncated()
    }
}

/// Standard output and standard error.
pub(super) struct Streams {
    streams: [Stream; 2],
    buffer: Vec<u8>,
}

impl Streams {
    pub fn new(files: [Option<File>; 2], bounds: &Bounds) -> Result<Self> {
        let [stdout, stderr] = files;
        let stream = |file, index: usize| Stream::new(file, bounds.output[index], bounds.overflow[index]);
        Ok(Self { streams: [stream(stdout, 0)?, stream(stderr, 1)?], buffer: vec![0; PIECE] })
    }

    /// Waits for something to read, or the end of the program, and reads; whether the program has ended.
    pub fn take_with(&mut self, running: &dyn Running, timeout: PollTimeout) -> Result<bool> {
        let mut fds = vec![PollFd::new(running.pidfd(), PollFlags::POLLIN)];
        let open = self.streams.iter().filter_map(|stream| stream.file.as_ref());
        fds.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::host("waiting for output")(errno)),
        }
        let ended = fds[0].any().unwrap_or(false);
        for stream in &mut self.streams {
            stream.take(&mut self.buffer)?;
        }
        Ok(ended)
    }

    /// Reads what is there. What somebody goes on to write, who is out of reach of an end, is not waited for.
    pub fn take(&mut self) -> Result<()> {
        self.streams.iter_mut().try_for_each(|stream| stream.take_all(&mut self.buffer))
    }

    /// Whether the program is to be ended for what it has written.
    pub fn overflowed(&self) -> bool {
        self.streams.iter().any(Stream::has_overflowed)
    }

    /// How much came from each stream, what was kept of it, and whether that is less.
    pub fn finish(self) -> (Counted, [(Vec<u8>, bool); 2]) {
        let count = |stream: &Stream| stream.count.map(|value| Reading { value, source: Source::Pipe });
        let counted = Counted([count(&self.streams[0]), count(&self.streams[1])]);
        (
            counted,
            self.streams.map(|stream| {
                let is_truncated = stream.is_truncated();
                (stream.kept, is_truncated)
            }),
        )
    }
}

fn reading(error: impl Into<crate::Errno>) -> Error {
    Error::host("reading the output")(error)
}
