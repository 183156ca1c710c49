//! A terminal of the program's own, shown on the caller's: everything is copied both ways while the program runs.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use stockade::{Child, Command, Error, Outcome, Result, Sandbox, Signal};

/// What the end of the input is typed as.
const END_OF_INPUT: u8 = 4;
/// Milliseconds after which a terminal that nobody has open is looked at again.
const LOOK_AGAIN: u8 = 100;

/// Runs a command on a terminal of its own.
pub fn run(sandbox: &Sandbox, mut command: Command) -> Result<Outcome> {
    give(&mut command);
    let signals = signals().map_err(failed)?;
    let mut child = sandbox.spawn(command)?;
    let pty = child.pty.take().expect("a command with a terminal has its other side");
    let _raw = Raw::enter();
    let mut terminal = Terminal::new(pty, signals).map_err(failed)?;
    terminal.copy(&child).map_err(failed)?;
    let outcome = child.wait()?;
    // What the program wrote last is still to be shown.
    terminal.show().map_err(failed)?;
    Ok(outcome)
}

/// Gives a command a terminal of the size of the caller's.
pub fn give(command: &mut Command) {
    let size = size();
    command.pty(size.ws_row, size.ws_col);
}

fn failed(error: io::Error) -> Error {
    Error::Host { what: "copying from and to the terminal", errno: (&error).into(), remedy: None }
}

/// The size of the caller's terminal, or the customary one where there is none.
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

/// The signals that are not left to their defaults: a new size, and what asks this process to end, which is for the
/// program to decide.
fn signals() -> io::Result<SignalFd> {
    use NixSignal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
    let set: SigSet = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH].into_iter().collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// The caller's terminal hands every byte on, while this lives.
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

/// The ends that are copied between.
struct Terminal {
    /// The host's side. To close it would end the program (SIGHUP).
    pty: File,
    /// Nobody has the program's side open. A process of its session may open it again.
    closed: bool,
    /// The caller's input, until its end.
    input: Option<File>,
    output: File,
    signals: SignalFd,
    /// Input that the program's terminal has not taken yet.
    typed: Vec<u8>,
    /// The last line of the input has no end so far.
    within_line: bool,
}

/// What there is to wait for.
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

    /// Copies until the program has ended.
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
        match poll(&mut fds, if self.closed { LOOK_AGAIN.into() } else { PollTimeout::NONE }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened = watched.iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(false));
        let look_again = self.closed.then_some(Event::Shown);
        Ok(happened.map(|((event, ..), _)| *event).chain(look_again).collect())
    }

    fn signal(&mut self, child: &Child) -> io::Result<()> {
        let Some(info) = self.signals.read_signal()? else { return Ok(()) };
        let number = info.ssi_signo as i32;
        match number {
            libc::SIGWINCH => Ok(tcsetwinsize(&self.pty, size())?),
            _ => Ok(child.signal(Signal(number))?),
        }
    }

    /// Shows what the program has written so far.
    fn show(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            let read = self.pty.read(&mut buffer);
            // EIO says so.
            self.closed = !matches!(&read, Ok(1..)) && !read.as_ref().is_err_and(passing);
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
                // Within a line the first one hands on what was typed, and no more.
                self.typed.resize(1 + usize::from(self.within_line), END_OF_INPUT);
            }
            Ok(count) => {
                self.typed.extend_from_slice(&buffer[..count]);
                self.within_line = !self.typed.ends_with(b"\n");
            }
            Err(error) if passing(&error) => {}
            Err(_) => self.input = None,
        }
        Ok(())
    }

    /// Hands on what the program's terminal takes.
    fn type_in(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        match self.pty.write(&self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(error) if passing(&error) => {}
            Err(_) => self.typed.clear(),
        }
    }
}

/// Whether a read or a write is merely to be tried again.
fn passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
