//! The deadline of the set-up, and timeouts of poll(2).

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// The deadline of a set-up.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    /// `None` if the deadline is later than the clock can represent.
    at: Option<Instant>,
    pub limit: Duration,
}

impl Deadline {
    pub fn of(limit: Duration) -> Self {
        Self { at: Instant::now().checked_add(limit), limit }
    }

    /// Returns the remaining time, as a timeout for poll(2).
    pub fn left(self) -> PollTimeout {
        poll_timeout(self.at)
    }
}

/// Returns the timeout of poll(2) for a deadline. Without a deadline there is no timeout.
pub(crate) fn poll_timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    // Rounded up, so that the deadline has expired when poll(2) returns.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
