//! The modes of a terminal that a program is handed: they belong to the terminal, so that a program can change them for
//! the caller too. They are set back when the sandbox ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The modes of a terminal at the start of a program.
#[derive(Debug)]
pub(super) struct Modes {
    terminal: OwnedFd,
    /// As the kernel has them: they can be shared between threads.
    modes: libc::termios,
}

impl Modes {
    /// Reads the modes, unless another job has the terminal at the moment.
    pub fn read(terminal: OwnedFd) -> Option<Self> {
        let modes = tcgetattr(&terminal).ok().filter(|_| is_ours(terminal.as_fd()))?;
        Some(Self { terminal, modes: modes.into() })
    }

    /// Sets the modes back if they have changed.
    pub fn restore(&self) {
        let modes = Termios::from(self.modes);
        if tcgetattr(&self.terminal).is_ok_and(|now| now != modes) && is_ours(self.terminal.as_fd()) {
            // Should another job get the terminal just now, this must not stop the caller.
            let mut stop = SigSet::empty();
            stop.add(Signal::SIGTTOU);
            let before = stop.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &modes);
            let _ = before.map(|before| before.thread_set_mask());
        }
    }
}

/// Whether the caller is the foreground job of a terminal, or the terminal has no jobs of the caller's session.
fn is_ours(terminal: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(terminal) {
        Ok(foreground) => foreground == getpgrp(),
        Err(errno) => errno == Errno::ENOTTY,
    }
}
