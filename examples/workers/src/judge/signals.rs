//! SIGINT and SIGTERM.

use super::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to terminate.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, Failure> {
        let open = |kind| signal(kind).map_err(Failure::to("handle signals"));
        Ok(Self { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())? })
    }

    /// Waits for one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
