//! Sessions that are kept ready: [`Pool`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::locks::lock;
use crate::sandbox::Sandbox;
use crate::session::Session;

/// Sessions that a thread keeps ready, each for one taker. Many threads can share a pool.
///
/// A session that was taken is never used again: nothing of one taker is left for the next one. So a program that needs a fresh
/// sandbox starts in about the time that it takes without any.
///
/// A taker that finds none ready waits until one is started for it. So a pool wants as many sessions as are taken in a burst; a
/// larger one costs only memory. It does not limit how many sessions are in use at a time.
///
/// Dropping the pool ends the sessions that were not taken, and leaves the others to their takers.
///
/// ```
/// use std::io::Write;
///
/// use stockade::pool::Pool;
/// use stockade::{Command, Sandbox};
///
/// let pool = Pool::new(Sandbox::new(), 2)?;
/// for submission in ["echo first > /tmp/result; cat /tmp/result", "cat /tmp/result"] {
///     let session = pool.take()?;
///     session.create("/tmp/submission.sh")?.write_all(submission.as_bytes())?;
///     let output = session.output(Command::new("sh").arg("/tmp/submission.sh"))?;
///     // The second one finds nothing of the first.
///     assert_eq!(output.outcome.success(), submission.starts_with("echo"));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    builder: Option<JoinHandle<()>>,
    creator: Creator,
}

/// What a pool has done so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Sessions that are ready now.
    pub ready: usize,
    /// Takes that found a session ready.
    pub taken_ready: u64,
    /// Takes that found none ready, for which one was started.
    pub taken_unprepared: u64,
    /// Sessions that the thread could not start. Those that could not be started for a taker are not counted.
    pub failed: u64,
    /// Sessions that were found dead before they were taken.
    pub lost: u64,
    /// The last error of the thread. It stays when a later session was started.
    pub last_error: Option<Error>,
}

#[derive(Debug)]
struct Shared {
    sandbox: Sandbox,
    size: usize,
    state: Mutex<PoolState>,
    /// Notified when the thread has something to do.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PoolState {
    ready: VecDeque<Session>,
    /// The error of the thread that no taker has been told.
    untold: Option<Error>,
    is_shut_down: bool,
    stats: PoolStats,
}

/// The time after which a session is replaced that was taken, if more than half of the others are ready. Until then the taker has
/// the processors.
const DELAY: Duration = Duration::from_millis(5);

/// The first pause after a failure of the thread. Each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        lock(&self.state)
    }

    /// Keeps sessions ready, until the pool is shut down.
    fn build(&self) {
        // The caller's other threads handle signals.
        let _ = SigSet::all().thread_block();
        let mut pause = FIRST_PAUSE;
        let mut state = self.lock();
        loop {
            let is_idle = |state: &mut PoolState| !state.is_shut_down && state.ready.len() >= self.size;
            state = self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
            let is_on = |state: &mut PoolState| !state.is_shut_down;
            if state.ready.len() > self.size / 2 {
                // There are enough for now, and the taker is about to start a command.
                let waited = self.changed.wait_timeout_while(state, DELAY, is_on);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.is_shut_down {
                return;
            }
            drop(state);
            let started = self.sandbox.start();
            state = self.lock();
            match started {
                Ok(session) if state.is_shut_down => {
                    drop(state);
                    return drop(session);
                }
                Ok(session) => {
                    state.ready.push_back(session);
                    state.untold = None;
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    state.stats.failed += 1;
                    state.stats.last_error = Some(error.clone());
                    state.untold = Some(error);
                    let waited = self.changed.wait_timeout_while(state, pause, is_on);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

impl Pool {
    /// Creates a pool that keeps `size` sessions of a sandbox ready. The first one is started at once, the others by the thread.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::start`], [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if `size` is 0,
    /// and [`ErrorKind::Io`](crate::ErrorKind::Io) if the thread cannot be started.
    pub fn new(sandbox: Sandbox, size: usize) -> Result<Self> {
        if size == 0 {
            return Err(Error::invalid(
                "a pool of 0 sessions keeps none ready",
                "pass at least 1, or use Sandbox::start",
            ));
        }
        let first = sandbox.start()?;
        let state = PoolState { ready: VecDeque::from([first]), ..PoolState::default() };
        let shared = Arc::new(Shared { sandbox, size, state: Mutex::new(state), changed: Condvar::new() });
        let building = shared.clone();
        let builder = std::thread::Builder::new().name("stockade-pool".into()).spawn(move || building.build());
        let builder = builder.map_err(Error::io("start the thread that keeps sessions ready"))?;
        Ok(Self { shared, builder: Some(builder), creator: Creator::this() })
    }

    /// Takes a session. If none is ready, one is started, which takes the time of [`Sandbox::start`].
    ///
    /// # Errors
    ///
    /// If none is ready because the thread could not start any, the error of the thread, once. The thread tries again, after
    /// pauses from 50 ms to 10 s, and so does the next call. Otherwise those of [`Sandbox::start`], and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the pool was shut down.
    pub fn take(&self) -> Result<Session> {
        match self.take_ready() {
            Some(taken) => taken,
            None => self.start(),
        }
    }

    /// Takes a session that is ready. `None` if one has to be started: [`start`](Self::start).
    pub(crate) fn take_ready(&self) -> Option<Result<Session>> {
        // Dropped after the lock, since that takes a while.
        let mut dead = vec![];
        let mut state = self.shared.lock();
        loop {
            if state.is_shut_down {
                let error = Error::invalid("the pool was shut down", "create another one (Pool::new)");
                return Some(Err(error));
            }
            let Some(session) = state.ready.pop_front() else { break };
            self.shared.changed.notify_all();
            if session.is_alive() {
                state.stats.taken_ready += 1;
                return Some(Ok(session));
            }
            state.stats.lost += 1;
            dead.push(session);
        }
        state.untold.take().map(Err)
    }

    /// Starts a session for a taker.
    pub(crate) fn start(&self) -> Result<Session> {
        self.shared.lock().stats.taken_unprepared += 1;
        self.shared.sandbox.start()
    }

    /// Returns what the pool has done so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let state = self.shared.lock();
        PoolStats { ready: state.ready.len(), ..state.stats.clone() }
    }

    /// Ends the sessions that were not taken, and the thread. Does nothing if that was done. [`Pool::take`] is an error from
    /// then on.
    pub fn shut_down(&self) {
        let mut state = self.shared.lock();
        state.is_shut_down = true;
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        self.shared.changed.notify_all();
        drop(ready);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.creator.is_this() {
            self.shut_down();
            if let Some(builder) = self.builder.take() {
                // It does not panic.
                let _ = builder.join();
            }
        } else {
            // A forked child has no such thread, and the lock may be held for ever.
            std::mem::forget((self.builder.take(), self.shared.clone()));
        }
    }
}
