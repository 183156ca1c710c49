//! Collects standard output and standard error at the same time. Keeps each stream up to its limit, and counts all
//! bytes.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
#[cfg(feature = "tokio")]
use std::os::fd::BorrowedFd;

use nix::errno::Errno as NixErrno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::confine::{Bounds, Overflow};
use crate::error::{Error, Result};
use crate::launch::Running;
use crate::outcome::{Reading, Source};
use crate::sys::pipe;
use crate::unix::ToErrno;

/// The maximum number of bytes of a read.
const PIECE: usize = 64 << 10;

/// The maximum number of bytes of each stream that are kept if no limit is set.
const KEPT: u64 = 16 << 20;

/// The number of bytes that were read from each stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted(pub [Option<Reading<u64>>; 2]);

/// A stream that is being collected.
#[derive(Debug)]
struct CapturedStream {
    file: Option<File>,
    kept: Vec<u8>,
    count: Option<u64>,
    /// The maximum number of bytes that are kept.
    most: u64,
    /// Whether the program is killed if it writes more.
    kills: bool,
}

impl CapturedStream {
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
            kills: limit.is_some() && overflow == Overflow::Kill,
        })
    }

    /// Reads once, without blocking. Returns whether more data may be available. Closes the stream at end of file.
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

    /// Reads the data that is in the pipe now. That may take many reads: a program can change the size of the pipe, and
    /// make it return each write separately (pipe(2), `O_DIRECT`). Data that is written later is not read.
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
        self.kills && self.is_truncated()
    }
}

/// Standard output and standard error.
#[derive(Debug)]
pub(super) struct CapturedStreams {
    streams: [CapturedStream; 2],
    buffer: Vec<u8>,
}

impl CapturedStreams {
    pub fn new(files: [Option<File>; 2], bounds: &Bounds) -> Result<Self> {
        let [stdout, stderr] = files;
        let stream = |file, index: usize| CapturedStream::new(file, bounds.output[index], bounds.overflow[index]);
        Ok(Self { streams: [stream(stdout, 0)?, stream(stderr, 1)?], buffer: vec![0; PIECE] })
    }

    /// Returns the streams that are open.
    #[cfg(feature = "tokio")]
    pub fn open(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [0, 1].map(|index| self.streams[index].file.as_ref().map(AsFd::as_fd))
    }

    /// Returns whether there is data that was not read. A stream of which all was read is not waited for twice.
    #[cfg(feature = "tokio")]
    pub fn has_unread(&self) -> Result<bool> {
        let mut open = self.streams.iter().filter_map(|stream| stream.file.as_ref());
        open.try_fold(false, |any, file| pipe::unread(file.as_fd()).map(|unread| any || unread > 0)).map_err(reading)
    }

    /// Waits for data, or until the program has exited, and reads the data. Returns whether the program has exited.
    pub fn take_with(&mut self, running: &Running, timeout: PollTimeout) -> Result<bool> {
        let mut fds = vec![PollFd::new(running.pidfd(), PollFlags::POLLIN)];
        let open = self.streams.iter().filter_map(|stream| stream.file.as_ref());
        fds.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(NixErrno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for output")(errno)),
        }
        let has_exited = fds[0].any().unwrap_or(false);
        for stream in &mut self.streams {
            stream.take(&mut self.buffer)?;
        }
        Ok(has_exited)
    }

    /// Reads the remaining data. Does not wait for data that a process which was not killed may write later.
    pub fn take(&mut self) -> Result<()> {
        self.streams.iter_mut().try_for_each(|stream| stream.take_all(&mut self.buffer))
    }

    /// Returns whether a limit is exceeded because of which the program must be killed.
    pub fn has_overflowed(&self) -> bool {
        self.streams.iter().any(CapturedStream::has_overflowed)
    }

    /// Returns the number of bytes of each stream, and the bytes that were kept, with whether they are truncated.
    pub fn finish(self) -> (Counted, [(Vec<u8>, bool); 2]) {
        let count = |stream: &CapturedStream| stream.count.map(|value| Reading { value, source: Source::Pipe });
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

fn reading(error: impl ToErrno) -> Error {
    Error::io("read the output")(error)
}
