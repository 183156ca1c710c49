//! Several programs that are watched together.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Child, waiting};
use crate::error::Result;
use crate::outcome::Outcome;

/// Programs that run together, such as two that talk to each other over pipes: they are told in the order in which they
/// end, while the limits of all are kept. Dropping it ends those that still run.
///
/// ```
/// use stockade::{Command, Group, Sandbox};
///
/// let sandbox = Sandbox::new();
/// let (reader, writer) = std::io::pipe()?;
/// let mut group = Group::new();
/// let speaker = group.add(sandbox.spawn(Command::new("echo").arg("hello").stdout(writer))?);
/// let listener = group.add(sandbox.spawn(Command::new("grep").args(["-q", "hello"]).stdin(reader))?);
/// while let Some((place, outcome)) = group.wait_next()? {
///     assert!(place == speaker || place == listener);
///     assert!(outcome.success());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Group {
    members: Vec<Child>,
    /// Whose end was told.
    told: Vec<bool>,
}

impl Group {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a program; its place.
    pub fn add(&mut self, child: Child) -> usize {
        self.members.push(child);
        self.told.push(false);
        self.members.len() - 1
    }

    /// The program at a place, to kill it, or to send it a signal.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Child> {
        self.members.get_mut(place)
    }

    /// Waits until another program has ended: its place, and what came of it. `None` when all were told. Of those that end
    /// at the same time the one that was added first is told first.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`]. A program that failed so is told by its error alone, once: the next call waits for the others.
    pub fn wait_next(&mut self) -> Result<Option<(usize, Outcome)>> {
        loop {
            let mut running = vec![];
            for (place, child) in self.members.iter_mut().enumerate().filter(|(place, _)| !self.told[*place]) {
                match child.try_wait().transpose() {
                    Some(result) => {
                        self.told[place] = true;
                        return result.map(|outcome| Some((place, outcome)));
                    }
                    None => running.push(&*child),
                }
            }
            if running.is_empty() {
                return Ok(None);
            }
            let timeout = running.iter().map(|child| child.patience()).filter(|time| *time != PollTimeout::NONE).min();
            let mut fds: Vec<_> = running.iter().map(|child| PollFd::new(child.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(waiting(errno)),
            }
        }
    }
}
