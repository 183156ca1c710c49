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
use crate::failure::{Failure, Result};
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

/// The signals of this process, and the program that they are passed on to.
#[derive(Default)]
pub struct Forwarding {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
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
        let failed = |error: Errno| Failure::io("read signals", &error.into());
        let signals: SigSet = SIGNALS.into_iter().collect();
        signals.thread_block().map_err(failed)?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        let mut forwarder = Forwarder {
            signals,
            shared: self.shared.clone(),
            ignored: 0,
            grace: description.grace(),
            has_terminal: description.has_terminal(),
            shares_session: description.shares_session(),
            modes: SavedModes::read(),
            ending: None,
        };
        let thread = thread::Builder::new().name("stockade-signals".into()).spawn(move || forwarder.run());
        thread.map(drop).map_err(|error| Failure::io("start the thread that passes signals on", &error))
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
    shared: Arc<Shared>,
    /// The signals that this process ignores, as bits.
    ignored: u64,
    grace: Duration,
    has_terminal: bool,
    shares_session: bool,
    modes: SavedModes,
    /// The signal that asked the program to terminate, and when it is killed.
    ending: Option<(Signal, Instant)>,
}

impl Forwarder {
    fn run(&mut self) {
        self.ignored = ignored();
        loop {
            while let Ok(Some(signal)) = self.signals.read_signal() {
                self.receive(&signal);
            }
            self.kill_if_due();
            let timeout = self.ending.map_or(PollTimeout::NONE, |(_, due)| {
                // Rounded up, so that the time has come when poll(2) returns.
                let left = due.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let _ = poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    fn receive(&mut self, received: &siginfo) {
        let Ok(number) = Number::try_from(received.ssi_signo as i32) else { return };
        if self.ignored & (1 << (number as u32 - 1)) != 0 {
            return;
        }
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
        if self.shared.killer.get().is_none() {
            // The set-up is in progress. It ends with this process.
            exit(exit_status::of_signal(signal).into());
        }
        if self.ending.is_some() && signal == Signal::INT {
            self.kill(KilledFor { signal, grace: None });
            return;
        }
        if self.ending.is_none() {
            self.ending = Instant::now().checked_add(self.grace).map(|due| (signal, due));
        }
        match signal {
            _ if is_shared => {}
            Signal::TERM => self.pass(|killer| killer.signal(signal)),
            _ => self.pass(|killer| killer.signal_group(signal)),
        }
    }

    fn kill_if_due(&mut self) {
        if let Some((signal, _)) = self.ending.filter(|(_, due)| *due <= Instant::now()) {
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
