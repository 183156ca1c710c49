//! Saves and restores the modes of the caller's terminal. They belong to the terminal, so a program that inherits it changes
//! them for the caller too: they are restored when the sandbox is reaped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// A terminal of the caller, with its modes when they were read.
#[derive(Debug)]
pub(crate) struct Modes {
    terminal: OwnedFd,
    /// A structure of the kernel, because [`Termios`] cannot be shared between threads.
    modes: libc::termios,
}

impl Modes {
    /// Reads the modes. Returns `None` if another job is in the foreground of the terminal.
    pub fn read(terminal: OwnedFd) -> Option<Self> {
        let modes = tcgetattr(&terminal).ok().filter(|_| is_ours(terminal.as_fd()))?;
        Some(Self { terminal, modes: modes.into() })
    }

    /// Lets the terminal pass on each byte at once, and interpret none (cfmakeraw(3)).
    pub fn make_raw(&self) {
        let mut raw = Termios::from(self.modes);
        cfmakeraw(&mut raw);
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &raw);
    }

    /// Restores the modes if they have changed.
    pub fn restore(&self) {
        let modes = Termios::from(self.modes);
        if tcgetattr(&self.terminal).is_ok_and(|now| now != modes) && is_ours(self.terminal.as_fd()) {
            // If another job becomes the foreground job just now, SIGTTOU would stop the caller.
            let mut stop = SigSet::empty();
            stop.add(Signal::SIGTTOU);
            let before = stop.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &modes);
            let _ = before.map(|before| before.thread_set_mask());
        }
    }
}

/// Returns whether the caller is in the foreground of a terminal, or the terminal does not control the caller's
/// session.
fn is_ours(terminal: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(terminal) {
        Ok(foreground) => foreground == getpgrp(),
        Err(errno) => errno == Errno::ENOTTY,
    }
}
