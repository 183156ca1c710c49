//! [`Child::interact`]: copies between the terminal of the caller and that of a program.

use std::io::{self, ErrorKind, Read, Stdin, Stdout, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Child, Pty};
use crate::error::{Error, Result};
use crate::launch::{Modes, poll_timeout};
use crate::outcome::Outcome;
use crate::sys::window_size;

/// The time between two looks at the size of the caller's terminal, and at a terminal that no process has open.
const INTERVAL: Duration = Duration::from_millis(100);
/// The character that ends the input (Ctrl-D).
const END_OF_INPUT: u8 = 4;
/// The size of a terminal where the caller has none: rows and columns.
const USUAL_SIZE: [u16; 2] = [24, 80];

impl Child {
    /// Connects the program's pseudo-terminal to the caller's terminal, and waits until the program has exited.
    ///
    /// What is typed goes to the program, also Ctrl-C and Ctrl-Z: the caller's terminal is in raw mode meanwhile, unless the
    /// caller is in the background. Its modes are restored when this returns or panics, but not when a signal ends the caller:
    /// block such signals, and pass them on by [`Killer::signal`](super::Killer::signal). A change of the size of the caller's
    /// terminal reaches the program within 100 ms.
    ///
    /// The input is the caller's standard input, and the output goes to its standard output, also where these are no terminals.
    /// The end of the input is typed as Ctrl-D. Bytes that [`std::io::stdin`] has buffered are not part of the input.
    ///
    /// Enforces the limits as [`Child::wait`] does, and not those on output. A caller that is blocked because nothing reads its
    /// output enforces none.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the command has no
    ///   [`Command::pty`](crate::Command::pty), or [`Child::pty`] was taken.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if the input cannot be read or the output cannot be written. The program goes
    ///   on, until it is killed or this `Child` is dropped.
    /// - Those of [`Child::wait`].
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let mut child = Sandbox::new().spawn(Command::new("tty").pty(24, 80))?;
    /// assert!(child.interact()?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn interact(&mut self) -> Result<Outcome> {
        let Some(pty) = self.pty.take() else {
            return Err(Error::invalid(
                "the program has no terminal to connect to",
                "call Command::pty, and do not take Child::pty",
            ));
        };
        let result = Interaction::new(&pty).and_then(|mut interaction| interaction.run(self));
        self.pty = Some(pty);
        result
    }
}

/// Returns the size of the caller's terminal. `None` if it has none, or its size was never set.
fn size_of_callers() -> Option<[u16; 2]> {
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let known = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().find_map(|fd| window_size::get(fd).ok());
    known.filter(|size| !size.contains(&0))
}

/// Returns the size that a terminal for [`Child::interact`] should have from the beginning.
pub(crate) fn first_size() -> [u16; 2] {
    size_of_callers().unwrap_or(USUAL_SIZE)
}

/// The raw mode of the caller's terminal. Dropping it restores the previous modes.
struct Raw(Option<Modes>);

impl Raw {
    fn enter() -> Self {
        let modes = stdin().as_fd().try_clone_to_owned().ok().and_then(Modes::read);
        modes.iter().for_each(Modes::make_raw);
        Self(modes)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.iter().for_each(Modes::restore);
    }
}

/// A terminal that does not block. Dropping it restores its flags.
struct NonBlocking<'a>(&'a Pty, OFlag);

impl<'a> NonBlocking<'a> {
    fn new(pty: &'a Pty) -> nix::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(pty, FcntlArg::F_GETFL)?);
        fcntl(pty, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(pty, flags))
    }
}

impl Drop for NonBlocking<'_> {
    fn drop(&mut self) {
        let _ = fcntl(self.0, FcntlArg::F_SETFL(self.1));
    }
}

/// What is copied between two terminals.
struct Interaction<'a> {
    pty: NonBlocking<'a>,
    stdin: Stdin,
    stdout: Stdout,
    size: Option<[u16; 2]>,
    /// Whether no process has the program's side open. A process of its session may open it again.
    is_closed: bool,
    /// Whether the input has ended.
    has_ended: bool,
    /// Whether the last line of the input is incomplete.
    is_within_line: bool,
    /// Input that the program's terminal has not accepted yet.
    typed: Vec<u8>,
    _raw: Raw,
}

/// What can be copied.
#[derive(Clone, Copy, Debug, Default)]
struct Readiness {
    input: bool,
    pty: bool,
}

impl<'a> Interaction<'a> {
    fn new(pty: &'a Pty) -> Result<Self> {
        let stdout = stdout();
        (&stdout).flush().map_err(Error::io("write the output of the caller"))?;
        Ok(Self {
            pty: NonBlocking::new(pty).map_err(Error::io("set the flags of the terminal"))?,
            stdin: stdin(),
            stdout,
            size: None,
            is_closed: false,
            has_ended: false,
            is_within_line: false,
            typed: vec![],
            _raw: Raw::enter(),
        })
    }

    /// Copies until the program has exited.
    fn run(&mut self, child: &mut Child) -> Result<Outcome> {
        loop {
            self.follow_size();
            if child.has_exited(PollTimeout::ZERO)? {
                break;
            }
            let next = Instant::now().checked_add(INTERVAL);
            let ready = self.wait(child, [next, child.next_deadline()].into_iter().flatten().min())?;
            if ready.input {
                self.read_input();
            }
            if ready.pty {
                self.show()?;
            }
            self.type_in();
        }
        let outcome = child.wait();
        // The last output may not have been copied yet.
        self.show()?;
        outcome
    }

    /// Gives the program's terminal the size of the caller's.
    fn follow_size(&mut self) {
        let size = size_of_callers();
        if size != self.size
            && let Some(size) = size
        {
            let _ = window_size::set(self.pty.0.as_fd(), size);
        }
        self.size = size;
    }

    /// Waits until something can be copied or the program has exited.
    fn wait(&self, child: &Child, until: Option<Instant>) -> Result<Readiness> {
        let when = |condition: bool, flags: PollFlags| if condition { flags } else { PollFlags::empty() };
        let takes_input = self.typed.is_empty();
        let mut watched: Vec<(BorrowedFd<'_>, PollFlags)> = vec![(child.as_fd(), PollFlags::POLLIN)];
        // Where no process has it open, poll(2) would return at once.
        if !self.is_closed {
            watched.push((self.pty.0.as_fd(), PollFlags::POLLIN | when(!takes_input, PollFlags::POLLOUT)));
        }
        if takes_input && !self.has_ended {
            watched.push((self.stdin.as_fd(), PollFlags::POLLIN));
        }
        let mut fds: Vec<PollFd<'_>> = watched.iter().map(|&(fd, events)| PollFd::new(fd, events)).collect();
        match poll(&mut fds, poll_timeout(until)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Readiness::default()),
            Err(errno) => return Err(Error::io("wait for the terminal")(errno)),
        }
        let mut happened = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(false));
        let pty = if self.is_closed { true } else { happened.next().unwrap_or(false) };
        Ok(Readiness { pty, input: happened.next().unwrap_or(false) })
    }

    /// Copies what the program has shown so far, and at most what a terminal holds many times over: a process of a session may
    /// go on writing.
    fn show(&mut self) -> Result<()> {
        const READS: usize = 128;
        let mut buffer = [0; 8192];
        for _ in 0..READS {
            let read = self.pty.0.read(&mut buffer);
            self.is_closed = matches!(read, Ok(0));
            match read {
                Ok(count @ 1..) => self.write(&buffer[..count]).map_err(Error::io("write the program's output"))?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = self.stdout.lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 1024];
        match nix::unistd::read(self.stdin.as_fd(), &mut buffer) {
            Ok(count @ 1..) => {
                self.typed.extend_from_slice(&buffer[..count]);
                self.is_within_line = !self.typed.ends_with(b"\n");
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            _ => {
                self.has_ended = true;
                // If the line is incomplete, the first Ctrl-D only submits it (termios(3), VEOF).
                self.typed.resize(1 + usize::from(self.is_within_line), END_OF_INPUT);
            }
        }
    }

    /// Passes on the input that the program's terminal accepts.
    fn type_in(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        match self.pty.0.write(&self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.typed.clear(),
        }
    }
}
