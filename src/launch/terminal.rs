//! Saves and restores the modes of a terminal that a program inherits. The modes belong to the terminal, so a change by
//! the program also affects the caller. They are restored when the sandbox is reaped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// A terminal, with its modes before the program was started.
#[derive(Debug)]
pub(super) struct Modes {
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
