//! The modes of the terminal of this process, which change while the program has a terminal of its own.

use std::io;
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The modes of the terminal on standard input. `None` without one.
pub struct SavedModes(Option<Termios>);

impl SavedModes {
    /// Reads the modes that the terminal has now.
    pub fn read() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    /// Sets these modes. Returns those from before.
    ///
    /// Does nothing while another process group has the terminal.
    pub fn set(&self) -> Self {
        let is_ours = tcgetpgrp(io::stdin().as_fd()).is_ok_and(|group| group == getpgrp());
        let before = Self::read();
        if let Some(modes) = self.0.as_ref().filter(|_| is_ours) {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, modes);
        }
        before
    }
}
