//! A thread that writes to a descriptor of the caller's what a program writes to a pipe, so that the program never holds
//! the caller's descriptor.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::unistd::pipe2;

use crate::error::{Error, Result};

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// Bytes that are read at most once the sandbox has ended: as much as the largest pipe holds (fcntl(2), `F_SETPIPE_SZ`).
const LAST: usize = (1 << 20) + PIECE;
/// Bytes that a pipe takes without blocking when poll(2) reports that it can be written to (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;
/// How long a pipe that nobody reads is waited for once the sandbox has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running relay. Dropping it writes what is in the pipe, and stops the thread.
#[derive(Debug)]
pub(super) struct Relay {
    /// Written to, to stop the thread: a child that the caller has forked may have a copy, so that closing is not enough.
    /// Writing to it raises no SIGPIPE when the thread has ended, as a pipe would.
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Relay {
    /// Starts a relay to `to`, of `most` bytes at most. Returns it with the write end of its pipe.
    pub fn start(to: OwnedFd, most: Option<u64>) -> Result<(Self, OwnedFd)> {
        let failed = Error::host("creating a pipe");
        let (from, pipe) = pipe2(OFlag::O_CLOEXEC).map_err(&failed)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(Error::host("creating an eventfd"))?;
        let stop = Arc::new(stop);
        fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(&failed)?;
        let copy = Copy { from: from.into(), to: to.into(), stopped: stop.clone(), left: most.unwrap_or(u64::MAX) };
        let thread = std::thread::Builder::new().name("stockade-relay".into()).spawn(move || {
            // Signals are for the caller's other threads. A closed pipe or a file at its limit is an error here.
            let _ = SigSet::all().thread_block();
            copy.run()
        });
        let thread = thread.map_err(Error::host("starting the thread that relays output"))?;
        Ok((Self { stop, thread: Some(thread) }, pipe))
    }

    /// Writes what is in the pipe, stops the thread, and returns why it could not write everything.
    pub fn finish(&mut self) -> io::Result<()> {
        let _ = self.stop.write(1);
        // The thread does not panic.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(Ok(()))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// What the thread works with. The program gets EPIPE once this is dropped.
struct Copy {
    from: File,
    to: File,
    stopped: Arc<EventFd>,
    left: u64,
}

impl Copy {
    fn run(mut self) -> io::Result<()> {
        let is_pipe = self.to.metadata()?.file_type().is_fifo();
        let mut buffer = vec![0; PIECE];
        let mut last = LAST;
        loop {
            let is_last = self.wait()?;
            match self.from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(len);
                    if is_pipe {
                        self.write_to_pipe(&buffer[..most])?
                    } else {
                        self.to.write_all(&buffer[..most])?
                    }
                    self.left -= most as u64;
                    if most < len {
                        return Err(Errno::EFBIG.into());
                    }
                    last = if is_last { last.saturating_sub(len) } else { LAST };
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && is_last => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            // Somebody out of reach of the sandbox's end may go on to write.
            if last == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for something to read, or for the end of the sandbox. Returns whether it has ended.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [&self.from.as_fd(), &self.stopped.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        ignore_signals(poll(&mut fds, PollTimeout::NONE))?;
        Ok(fds[1].any().unwrap_or(false))
    }

    /// Writes to a pipe that may be full, without blocking for longer than the sandbox lives.
    fn write_to_pipe(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let to = || PollFd::new(self.to.as_fd(), PollFlags::POLLOUT);
            let mut fds = [to(), PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN)];
            ignore_signals(poll(&mut fds, PollTimeout::NONE))?;
            if !fds[0].any().unwrap_or(false) && fds[1].any().unwrap_or(false) {
                let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
                if ignore_signals(poll(&mut [to()], patience))? == 0 {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            match self.to.write(&bytes[..bytes.len().min(PIPE_PIECE)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A wait that a signal has interrupted is begun again.
fn ignore_signals(result: nix::Result<i32>) -> io::Result<i32> {
    match result {
        Err(Errno::EINTR) => Ok(1),
        other => Ok(other?),
    }
}
