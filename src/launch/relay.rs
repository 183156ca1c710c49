//! A relay: a thread that copies the output of a program from a pipe to a descriptor of the caller. The program
//! inherits only the pipe.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::unistd::pipe2;

use crate::error::{Error, Result};

/// The maximum number of bytes of a read.
const PIECE: usize = 64 << 10;
/// The maximum number of bytes that are read after the sandbox was reaped: the capacity of the largest pipe (fcntl(2),
/// `F_SETPIPE_SZ`).
const LAST: usize = (1 << 20) + PIECE;
/// The number of bytes that a pipe accepts without blocking after poll(2) has reported `POLLOUT` (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;
/// The time to wait for a reader if the target is a full pipe, after the sandbox was reaped.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that a slow reader may take in all, after the sandbox was reaped.
const SLOW_TIMEOUT: Duration = Duration::from_secs(10);

/// A running relay. Dropping it copies the remaining output, and stops the thread.
#[derive(Debug)]
pub(super) struct Relay {
    /// A write to it stops the thread. Closing a pipe would not: a forked child of the caller may have a copy. Writing
    /// to a pipe would raise SIGPIPE if the thread has exited.
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Relay {
    /// Starts a relay that copies at most `most` bytes to `to`. Returns it with the write end of its pipe.
    pub fn start(to: OwnedFd, most: Option<u64>) -> Result<(Self, OwnedFd)> {
        let failed = Error::io("create a pipe");
        let (from, pipe) = pipe2(OFlag::O_CLOEXEC).map_err(&failed)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(Error::io("create an eventfd"))?;
        let stop = Arc::new(stop);
        fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(&failed)?;
        let copy = Copy {
            from: from.into(),
            to: to.into(),
            stopped: stop.clone(),
            left: most.unwrap_or(u64::MAX),
            until: None,
        };
        let thread = std::thread::Builder::new().name("stockade-relay".into()).spawn(move || {
            // The caller's other threads handle signals. With SIGPIPE and SIGXFSZ blocked, a write to a closed pipe or
            // to a file at its maximum size only fails.
            let _ = SigSet::all().thread_block();
            copy.run()
        });
        let thread = thread.map_err(Error::io("start the thread that relays output"))?;
        Ok((Self { stop, thread: Some(thread) }, pipe))
    }

    /// Copies the remaining output, and stops the thread. Returns an error if not all output could be written.
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

/// The state of the thread. When it is dropped, the read end of the pipe closes, and the program gets `EPIPE`.
struct Copy {
    from: File,
    to: File,
    stopped: Arc<EventFd>,
    left: u64,
    /// When a slow reader is given up. `None` before the sandbox was reaped.
    until: Option<Instant>,
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
            // A process that was not killed with the sandbox may continue to write.
            if last == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for output, or until the sandbox is reaped. Returns whether it is reaped.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [&self.from.as_fd(), &self.stopped.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        ignore_signals(poll(&mut fds, PollTimeout::NONE))?;
        Ok(fds[1].any().unwrap_or(false))
    }

    /// Writes to a pipe. If it is full, waits for a reader, but only a limited time after the sandbox was reaped.
    fn write_to_pipe(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let to = || PollFd::new(self.to.as_fd(), PollFlags::POLLOUT);
            let mut fds = [to(), PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN)];
            ignore_signals(poll(&mut fds, PollTimeout::NONE))?;
            if !fds[0].any().unwrap_or(false) && fds[1].any().unwrap_or(false) {
                let until = *self.until.get_or_insert_with(|| Instant::now() + SLOW_TIMEOUT);
                let left = until.saturating_duration_since(Instant::now()).min(UNREAD_TIMEOUT);
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                if ignore_signals(poll(&mut [to()], timeout))? == 0 {
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

/// Reports a wait that a signal has interrupted as ready, so that the caller of this function retries.
fn ignore_signals(result: nix::Result<i32>) -> io::Result<i32> {
    match result {
        Err(Errno::EINTR) => Ok(1),
        other => Ok(other?),
    }
}
