//! `--pty`: runs the program on a new pseudo-terminal, and copies between that and the terminal of this process.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use stockade::{Child, Command, Error, Outcome, Sandbox, Signal};

/// The character that ends the input (Ctrl-D).
const END_OF_INPUT: u8 = 4;
/// The interval at which a terminal that no process has open is polled again, in milliseconds.
const REOPEN_INTERVAL: u8 = 100;

/// Runs a command on a new pseudo-terminal. Returns an I/O error if copying from or to it fails.
pub fn run(sandbox: &Sandbox, mut command: Command) -> io::Result<Result<Outcome, Error>> {
    give(&mut command);
    let signals = signals()?;
    let mut child = match sandbox.spawn(command) {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let pty = child.pty.take().expect("a command with a terminal has its other side");
    let _raw = Raw::enter();
    let mut terminal = Terminal::new(pty, signals)?;
    terminal.copy(&child)?;
    let outcome = child.wait();
    // The last output may not have been copied yet.
    terminal.show()?;
    Ok(outcome)
}

/// Sets a pseudo-terminal for a command, with the size of this process's terminal.
pub fn give(command: &mut Command) {
    let size = size();
    command.pty(size.ws_row, size.ws_col);
}

/// Returns the size of this process's terminal, or the usual one if there is none.
fn size() -> Winsize {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let known = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().find_map(|fd| tcgetwinsize(fd).ok());
    known.filter(|size| size.ws_row > 0 && size.ws_col > 0).unwrap_or(Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    })
}

/// Blocks the signals that are passed on to the program: a new size, and requests to terminate.
fn signals() -> io::Result<SignalFd> {
    use NixSignal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
    let set: SigSet = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH].into_iter().collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// Raw mode of this process's terminal; the previous mode is restored on drop.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// The descriptors between which data is copied.
struct Terminal {
    /// The caller's side. Closing it kills the program (SIGHUP).
    pty: File,
    /// Whether no process has the program's side open. A process of its session may open it again.
    closed: bool,
    /// Standard input of this process, until end of file.
    input: Option<File>,
    output: File,
    signals: SignalFd,
    /// Input that the program's terminal has not accepted yet.
    typed: Vec<u8>,
    /// Whether the last line of the input is incomplete.
    within_line: bool,
}

/// An event to wait for.
#[derive(Clone, Copy)]
enum Event {
    Ended,
    Signal,
    Shown,
    Typed,
}

impl Terminal {
    fn new(pty: File, signals: SignalFd) -> io::Result<Self> {
        fcntl(&pty, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let input = Some(File::from(io::stdin().as_fd().try_clone_to_owned()?));
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { pty, closed: false, input, output, signals, typed: vec![], within_line: false })
    }

    /// Copies until the program has exited.
    fn copy(&mut self, child: &Child) -> io::Result<()> {
        loop {
            for event in self.wait(child)? {
                match event {
                    Event::Ended => return Ok(()),
                    Event::Signal => self.signal(child)?,
                    Event::Shown => self.show()?,
                    Event::Typed => self.read_input()?,
                }
            }
            self.type_in();
        }
    }

    fn wait(&self, child: &Child) -> io::Result<Vec<Event>> {
        let mut watched: Vec<(Event, BorrowedFd<'_>, PollFlags)> = vec![
            (Event::Ended, child.as_fd(), PollFlags::POLLIN),
            (Event::Signal, self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if !self.closed {
            let room = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            watched.push((Event::Shown, self.pty.as_fd(), PollFlags::POLLIN | room));
        }
        if let Some(input) = self.input.as_ref().filter(|_| self.typed.is_empty()) {
            watched.push((Event::Typed, input.as_fd(), PollFlags::POLLIN));
        }
        let mut fds: Vec<PollFd<'_>> = watched.iter().map(|&(_, fd, events)| PollFd::new(fd, events)).collect();
        // poll(2) does not wait for a terminal that is closed to be opened.
        match poll(&mut fds, if self.closed { REOPEN_INTERVAL.into() } else { PollTimeout::NONE }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened = watched.iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(false));
        let check_again = self.closed.then_some(Event::Shown);
        Ok(happened.map(|((event, ..), _)| *event).chain(check_again).collect())
    }

    fn signal(&mut self, child: &Child) -> io::Result<()> {
        let Some(info) = self.signals.read_signal()? else { return Ok(()) };
        let number = info.ssi_signo as i32;
        match number {
            libc::SIGWINCH => Ok(tcsetwinsize(&self.pty, size())?),
            _ => Ok(Signal::new(number).map_or(Ok(()), |signal| child.signal(signal))?),
        }
    }

    /// Copies the program's output so far.
    fn show(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            let read = self.pty.read(&mut buffer);
            // A read fails with EIO while no process has the program's side open.
            self.closed = !matches!(&read, Ok(1..)) && !read.as_ref().is_err_and(is_temporary);
            match read {
                Ok(count) if !self.closed => self.output.write_all(&buffer[..count])?,
                _ => return Ok(()),
            }
        }
    }

    fn read_input(&mut self) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let mut buffer = [0; 1024];
        match input.read(&mut buffer) {
            Ok(0) => {
                self.input = None;
                // If the line is incomplete, the first Ctrl-D only submits it (termios(3), VEOF).
                self.typed.resize(1 + usize::from(self.within_line), END_OF_INPUT);
            }
            Ok(count) => {
                self.typed.extend_from_slice(&buffer[..count]);
                self.within_line = !self.typed.ends_with(b"\n");
            }
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.input = None,
        }
        Ok(())
    }

    /// Passes on the input that the program's terminal accepts.
    fn type_in(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        match self.pty.write(&self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.typed.clear(),
        }
    }
}

/// Returns whether a failed read or write must be retried.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
