//! The commands of a session whose system calls the caller decides: one filter has them all, so that each call has to be
//! attributed to the command that it belongs to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::killer::Killer;
use super::violations::ViolationLog;
use crate::process_status::ProcessStatus;

/// What the decisions about the calls of a program need: a handle that kills it, and its log.
#[derive(Clone, Debug)]
pub(super) struct Supervised {
    pub killer: Killer,
    pub log: Arc<Mutex<ViolationLog>>,
}

impl Supervised {
    pub fn new(killer: Killer) -> Self {
        Self { killer, log: Arc::default() }
    }

    pub fn log(&self) -> MutexGuard<'_, ViolationLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commands of a session that run, by their PIDs.
#[derive(Debug, Default)]
pub(crate) struct SessionCommands {
    state: Mutex<State>,
    /// Notified when a command was started, or could not be.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<i32, Supervised>,
    /// The number of commands that are being started: their programs may run already.
    starting: usize,
}

/// The time that a call waits until a command that is being started is known.
const START: Duration = Duration::from_secs(1);
/// The number of parents of a process among which the process of a command is searched.
const GENERATIONS: usize = 64;

impl SessionCommands {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a command, until the result is dropped.
    pub fn starting(self: &Arc<Self>) -> StartingCommand {
        self.lock().starting += 1;
        StartingCommand(self.clone())
    }

    /// Returns the command that a thread belongs to. `None` for a process that goes on after its command has exited.
    pub(super) fn of(&self, thread: i32) -> Option<Supervised> {
        let known = |state: &mut State| command_of(&state.running, thread);
        let state = self.lock();
        let unknown = |state: &mut State| state.starting > 0 && known(state).is_none();
        let waited = self.changed.wait_timeout_while(state, START, unknown);
        known(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Each command leads a session (setsid(2)). A process that has left it is found by its parents.
fn command_of(running: &BTreeMap<i32, Supervised>, thread: i32) -> Option<Supervised> {
    let mut next = thread;
    for _ in 0..GENERATIONS {
        let status = ProcessStatus::of(next).ok()?;
        let session = status.words("NSsid").next().and_then(|session| session.parse::<i32>().ok());
        if let Some(supervised) = session.and_then(|session| running.get(&session)) {
            return Some(supervised.clone());
        }
        next = status.field("PPid").parse().ok()?;
    }
    None
}

/// A command that is being started.
pub(crate) struct StartingCommand(Arc<SessionCommands>);

impl StartingCommand {
    /// Makes the command known.
    pub fn started(self, pid: i32, killer: Killer) -> SupervisedCommand {
        let supervised = Supervised::new(killer);
        self.0.lock().running.insert(pid, supervised.clone());
        SupervisedCommand { commands: self.0.clone(), pid, supervised }
    }
}

impl Drop for StartingCommand {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
        self.0.changed.notify_all();
    }
}

/// A command whose system calls the caller decides.
#[derive(Debug)]
pub(crate) struct SupervisedCommand {
    commands: Arc<SessionCommands>,
    pid: i32,
    supervised: Supervised,
}

impl SupervisedCommand {
    /// Returns the log of a command that has exited.
    pub(super) fn finish(&mut self) -> ViolationLog {
        self.commands.lock().running.remove(&self.pid);
        std::mem::take(&mut *self.supervised.log())
    }
}

impl Drop for SupervisedCommand {
    fn drop(&mut self) {
        self.commands.lock().running.remove(&self.pid);
    }
}
