//! Several programs that are waited for together.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::{Child, wait_failed};
use crate::error::Result;
use crate::launch::poll_timeout;
use crate::outcome::Outcome;

/// A set of children that are waited for together, such as two programs that are connected by pipes. **Dropping it
/// kills the programs that still run.**
///
/// ```
/// use stockade::child::ChildSet;
/// use stockade::{Command, Sandbox};
///
/// let sandbox = Sandbox::new();
/// let (reader, writer) = std::io::pipe()?;
/// let mut children = ChildSet::new();
/// let speaker = children.add(sandbox.spawn(Command::new("echo").arg("hello").stdout(writer))?);
/// let listener = children.add(sandbox.spawn(Command::new("grep").args(["-q", "hello"]).stdin(reader))?);
/// while let Some((index, outcome)) = children.wait_next()? {
///     assert!(index == speaker || index == listener);
///     assert!(outcome.success());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct ChildSet {
    children: Vec<Child>,
    /// Whether [`ChildSet::wait_next`] has returned the outcome of each.
    returned: Vec<bool>,
}

impl ChildSet {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a child, and returns its index in the set.
    pub fn add(&mut self, child: Child) -> usize {
        self.children.push(child);
        self.returned.push(false);
        self.children.len() - 1
    }

    /// Returns the child at an index, for example to kill it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Child> {
        self.children.get_mut(index)
    }

    /// Waits until another program has exited, and returns its index and its outcome. Returns `None` when it has
    /// returned the outcomes of all.
    ///
    /// Enforces the limits of all programs while it waits, except those on output: use
    /// [`Sandbox::output`](crate::Sandbox::output) or [`Child::wait_with_output`] for these. Reads no pipes: read the
    /// piped streams of the programs yourself, for example on threads. Of programs that exit at the same time, it
    /// returns the one that was added first.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`]. An error concerns one program, which it does not name, and is returned once. The next
    /// call waits for the others.
    pub fn wait_next(&mut self) -> Result<Option<(usize, Outcome)>> {
        loop {
            let mut running = vec![];
            for (index, child) in self.children.iter_mut().enumerate().filter(|(index, _)| !self.returned[*index]) {
                match child.try_wait().transpose() {
                    Some(result) => {
                        self.returned[index] = true;
                        return result.map(|outcome| Some((index, outcome)));
                    }
                    None => running.push(&*child),
                }
            }
            if running.is_empty() {
                return Ok(None);
            }
            let deadline = running.iter().filter_map(|child| child.next_deadline()).min();
            let mut fds: Vec<_> = running.iter().map(|child| PollFd::new(child.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, poll_timeout(deadline)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(wait_failed(errno)),
            }
        }
    }
}
