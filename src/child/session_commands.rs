//! The commands of a session whose system calls the caller decides: one filter has them all, so that each call has to be
//! attributed to the command that it belongs to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::killer::Killer;
use super::violations::ViolationLog;
use crate::creator::Creator;
use crate::locks::lock;
use crate::process_status::ProcessStatus;

/// What the decisions about the calls of a program need: a handle that kills it, and its log.
#[derive(Clone, Debug)]
pub(crate) struct Supervised {
    pub(super) killer: Killer,
    pub(super) log: Arc<Mutex<ViolationLog>>,
}

impl Supervised {
    pub(super) fn new(killer: Killer) -> Self {
        Self { killer, log: Arc::default() }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, ViolationLog> {
        lock(&self.log)
    }
}

/// The commands of a session that run, by their PIDs.
#[derive(Debug, Default)]
pub(crate) struct SessionCommands {
    state: Mutex<KnownCommands>,
    /// Notified when a command was started, or could not be.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct KnownCommands {
    running: BTreeMap<i32, Supervised>,
    /// The last commands that have exited.
    ended: VecDeque<i32>,
    /// The number of commands that are being started: their programs may run already.
    starting: usize,
    /// Until when calls wait for that.
    until: Option<Instant>,
}

/// The time from the start of a command in which calls wait until it is known. A program can keep a command from being started, and
/// make calls that belong to none.
const START: Duration = Duration::from_secs(1);
/// The number of parents of a process among which the process of a command is searched.
const GENERATIONS: usize = 64;

impl SessionCommands {
    fn lock(&self) -> MutexGuard<'_, KnownCommands> {
        lock(&self.state)
    }

    /// Announces a command, until the result is dropped.
    pub fn starting(self: &Arc<Self>) -> StartingCommand {
        let mut state = self.lock();
        state.starting += 1;
        state.until = Instant::now().checked_add(START);
        drop(state);
        StartingCommand(self.clone())
    }

    /// Returns the command that a thread belongs to. `None` for a process that goes on after its command has exited.
    pub(super) fn of(&self, thread: i32) -> Option<Supervised> {
        let known = |state: &mut KnownCommands| command_of(&state.running, thread);
        let state = self.lock();
        // A process that goes on after its command waits for nobody.
        let session = session_of(thread);
        let unknown = |state: &mut KnownCommands| {
            state.starting > 0
                && !session.is_some_and(|session| state.ended.contains(&session))
                && known(state).is_none()
        };
        let left = state.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let waited = self.changed.wait_timeout_while(state, left, unknown);
        known(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Returns the session of a process (setsid(2)), as the caller sees it.
fn session_of(thread: i32) -> Option<i32> {
    ProcessStatus::of(thread).ok()?.words("NSsid").next()?.parse().ok()
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
        let mut state = self.0.lock();
        state.ended.retain(|&ended| ended != pid);
        state.running.insert(pid, supervised.clone());
        drop(state);
        SupervisedCommand { commands: self.0.clone(), pid, supervised, creator: Creator::this() }
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
    creator: Creator,
}

impl SupervisedCommand {
    /// Returns the log of a command that has exited.
    pub(super) fn finish(&mut self) -> ViolationLog {
        self.forget();
        std::mem::take(&mut *self.supervised.log())
    }

    fn forget(&self) {
        /// The number of commands that have exited and are remembered.
        const REMEMBERED: usize = 256;
        // In a forked child, another thread may have held the lock when it was forked.
        if !self.creator.is_this() {
            return;
        }
        let mut state = self.commands.lock();
        // A later command may have got its PID.
        let is_own = |known: &Supervised| Arc::ptr_eq(&known.log, &self.supervised.log);
        if state.running.get(&self.pid).is_some_and(is_own) {
            state.running.remove(&self.pid);
            state.ended.truncate(REMEMBERED - 1);
            state.ended.push_front(self.pid);
        }
    }
}

impl Drop for SupervisedCommand {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_not_forgotten_with_an_earlier_one_of_the_same_pid() {
        let commands = Arc::new(SessionCommands::default());
        let first = commands.starting().started(7, Killer::of_none());
        let second = commands.starting().started(7, Killer::of_none());
        drop(first);
        assert!(commands.lock().running.contains_key(&7));
        assert!(commands.lock().ended.is_empty());
        drop(second);
        assert!(!commands.lock().running.contains_key(&7));
    }

    /// A program that keeps a command from being started, and makes calls that belong to none.
    #[test]
    fn calls_wait_for_a_command_that_is_started_only_for_a_time() {
        let commands = Arc::new(SessionCommands::default());
        let own = std::process::id() as i32;
        let _starting = commands.starting();
        let begin = Instant::now();
        for _ in 0..10 {
            assert!(commands.of(own).is_none());
        }
        assert!((START..3 * START).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }
}
