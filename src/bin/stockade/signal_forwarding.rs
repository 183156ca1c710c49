//! Signals that this process receives while a program runs: they reach the program.
//!
//! They are blocked in every thread, and one thread reads them from a signalfd(2). So none of them ends this process, and
//! none interrupts it where it waits.

use std::fs;
use std::os::fd::AsFd;
use std::process::exit;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as Number, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use stockade::child::Killer;
use stockade::{Outcome, Signal, Termination};

use crate::description::Description;
use crate::exit_status;
use crate::failure::{CommandFailure, Result};
use crate::messages::say;
use crate::saved_modes::SavedModes;

/// The signals that are read. They are ignored if this process was started with them ignored, as by nohup(1).
const SIGNALS: [Number; 9] = [
    Number::SIGINT,
    Number::SIGTERM,
    Number::SIGHUP,
    Number::SIGQUIT,
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGWINCH,
    Number::SIGTSTP,
    Number::SIGCONT,
];

/// The time between two looks whether the program was started, while a signal waits for that.
const INTERVAL: Duration = Duration::from_millis(10);

/// The signals of this process, and the program that they are passed on to.
#[derive(Default)]
pub struct Forwarding {
    shared: Arc<SharedState>,
}

#[derive(Default)]
struct SharedState {
    /// Set when the program was started.
    killer: OnceLock<Killer>,
    killed_for: Mutex<Option<KilledFor>>,
}

/// Why this process has killed the program.
#[derive(Clone, Copy)]
pub struct KilledFor {
    signal: Signal,
    /// The time that the program had to terminate. `None` if a second signal came before.
    grace: Option<Duration>,
}

impl KilledFor {
    /// Says so, if it is what has ended the program, and returns the exit status.
    pub fn conclude(self, outcome: &Outcome, is_silent: bool) -> u8 {
        if outcome.termination != Termination::Killed {
            return exit_status::of_outcome(outcome);
        }
        match self.grace {
            _ if is_silent => {}
            Some(grace) => say(format_args!("killed {grace:?} after {}", self.signal)),
            None => say(format_args!("killed by a second {}", self.signal)),
        }
        exit_status::of_signal(self.signal)
    }
}

impl Forwarding {
    /// Blocks the signals in this thread and in those that it starts from now on, and starts one that passes them on.
    pub fn start(&self, description: &Description) -> Result<()> {
        let failed = |error: Errno| CommandFailure::io("read signals", &error.into());
        let signals: SigSet = SIGNALS.into_iter().collect();
        signals.thread_block().map_err(failed)?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        let mut forwarder = Forwarder {
            signals,
            shared: self.shared.clone(),
            grace: description.grace(),
            has_terminal: description.has_terminal(),
            shares_session: description.shares_session(),
            modes: SavedModes::read(),
            early: vec![],
            asked: false,
            ending: None,
        };
        let thread = thread::Builder::new().name("stockade-signals".into()).spawn(move || forwarder.run());
        thread.map(drop).map_err(|error| CommandFailure::io("start the thread that passes signals on", &error))
    }

    /// Passes the signals on by this handle from now on, also those that came before.
    pub fn reach(&self, killer: Killer) {
        let _ = self.shared.killer.set(killer);
    }

    /// Returns why this process has killed the program, if it has.
    pub fn killed_for(&self) -> Option<KilledFor> {
        *self.shared.killed_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that passes signals on.
struct Forwarder {
    signals: SignalFd,
    shared: Arc<SharedState>,
    grace: Duration,
    has_terminal: bool,
    shares_session: bool,
    modes: SavedModes,
    /// Signals that came before the program was started.
    early: Vec<siginfo>,
    /// Whether the program was asked to terminate.
    asked: bool,
    /// The signal that asked the program to terminate, and when it is killed.
    ending: Option<(Signal, Instant)>,
}

impl Forwarder {
    fn run(&mut self) {
        loop {
            while let Ok(Some(signal)) = self.signals.read_signal() {
                self.receive(&signal);
            }
            if self.is_started() {
                std::mem::take(&mut self.early).iter().for_each(|signal| self.act(signal));
            }
            self.kill_if_due();
            let _ = poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], self.timeout());
        }
    }

    /// The time until something is to be done without a signal.
    fn timeout(&self) -> PollTimeout {
        let due = self.ending.map(|(_, due)| due.saturating_duration_since(Instant::now()));
        let look = (!self.early.is_empty()).then_some(INTERVAL);
        // Rounded up, so that the time has come when poll(2) returns.
        let next = [due, look].into_iter().flatten().min().map(|left| left + Duration::from_micros(999));
        next.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
    }

    /// Whether the program was started, as far as this process knows.
    fn is_started(&self) -> bool {
        self.shared.killer.get().is_some()
    }

    /// Acts on a signal, or keeps it until the program was started.
    fn receive(&mut self, received: &siginfo) {
        let bit = 1u64.checked_shl(received.ssi_signo.wrapping_sub(1)).unwrap_or_default();
        if ignored() & bit == 0 {
            match self.is_started() {
                true => self.act(received),
                false => self.keep(*received),
            }
        }
    }

    /// Keeps a signal of the time of the set-up, which ends with this process: at the end of the grace period, or at a
    /// second SIGINT.
    fn keep(&mut self, received: siginfo) {
        let signal = Signal::new(received.ssi_signo as i32);
        if let Some(signal @ (Signal::INT | Signal::TERM | Signal::HUP)) = signal {
            if self.ending.is_some() && signal == Signal::INT {
                exit(exit_status::of_signal(signal).into());
            }
            self.expect_end(signal);
        }
        self.early.push(received);
    }

    fn expect_end(&mut self, signal: Signal) {
        if self.ending.is_none() {
            self.ending = Instant::now().checked_add(self.grace).map(|due| (signal, due));
        }
    }

    fn act(&mut self, received: &siginfo) {
        let Ok(number) = Number::try_from(received.ssi_signo as i32) else { return };
        let Some(signal) = Signal::new(number as i32) else { return };
        // The terminal has sent it to the program too.
        let is_shared = self.shares_session && received.ssi_code == SI_KERNEL;
        match number {
            Number::SIGINT | Number::SIGTERM | Number::SIGHUP => self.end(signal, is_shared),
            Number::SIGTSTP => self.stop(),
            Number::SIGCONT => self.pass(Killer::resume),
            // The terminal of the program has a size of its own, which the library changes.
            Number::SIGWINCH if self.has_terminal => {}
            _ if is_shared => {}
            Number::SIGWINCH | Number::SIGQUIT => self.pass(|killer| killer.signal_group(signal)),
            _ => self.pass(|killer| killer.signal(signal)),
        }
    }

    /// Calls the handle of the program, if it was started.
    fn pass(&self, send: impl FnOnce(&Killer) -> stockade::Result<()>) {
        if let Some(Err(error)) = self.shared.killer.get().map(send) {
            say(error);
        }
    }

    /// Asks the program to terminate. A second SIGINT kills it.
    fn end(&mut self, signal: Signal, is_shared: bool) {
        if self.asked && signal == Signal::INT {
            self.kill(KilledFor { signal, grace: None });
            return;
        }
        self.asked = true;
        self.expect_end(signal);
        match signal {
            _ if is_shared => {}
            Signal::TERM => self.pass(|killer| killer.signal(signal)),
            _ => self.pass(|killer| killer.signal_group(signal)),
        }
    }

    fn kill_if_due(&mut self) {
        if let Some((signal, _)) = self.ending.filter(|(_, due)| *due <= Instant::now()) {
            if !self.is_started() {
                exit(exit_status::of_signal(signal).into());
            }
            self.kill(KilledFor { signal, grace: Some(self.grace) });
            self.ending = None;
        }
    }

    /// Kills everything in the sandbox.
    fn kill(&self, reason: KilledFor) {
        self.shared.killed_for.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.pass(Killer::kill);
    }

    /// Stops the program and then this process, as the default action of SIGTSTP does. Continues the program when this
    /// process is continued, or was not stopped: the kernel stops no process whose group has no shell.
    fn stop(&self) {
        self.pass(Killer::stop);
        let during = self.has_terminal.then(|| self.modes.set());
        let stop = SigSet::from(Number::SIGTSTP);
        if stop.thread_unblock().is_ok() {
            let _ = raise(Number::SIGTSTP);
            let _ = stop.thread_block();
        }
        if let Some(modes) = during {
            modes.set();
        }
        self.pass(Killer::resume);
    }
}

/// The code of a signal that the kernel sends, as for keys of a terminal (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// Returns the signals that this process ignores, as bits.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
