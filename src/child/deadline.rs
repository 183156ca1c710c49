//! The state of the limits that the caller enforces: when a limit expires, and which signal is due.

use std::time::Instant;

use crate::confine::Bounds;
use crate::outcome::Termination;

/// Whether a program has exceeded a limit, and whether it was terminated for that.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// No limit is exceeded. The wall-clock limit expires at this time, if there is one.
    Running(Option<Instant>),
    /// A limit is exceeded. SIGTERM was sent, and SIGKILL is sent at the time `until`.
    Terminating { reason: Termination, until: Option<Instant> },
    /// A limit is exceeded, and the sandbox was killed.
    Killed(Termination),
}

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitAction {
    Nothing,
    /// Send SIGTERM.
    Terminate,
    Kill,
}

impl Stage {
    pub fn new(bounds: &Bounds, started: Instant) -> Self {
        // A limit that expires later than the clock can represent is no limit.
        Self::Running(bounds.wall.and_then(|wall| started.checked_add(wall)))
    }

    /// Returns when [`Stage::advance`] must be called next.
    pub fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Running(until) | Self::Terminating { until, .. } => until,
            Self::Killed(_) => None,
        }
    }

    pub fn is_killed(&self) -> bool {
        matches!(self, Self::Killed(_))
    }

    /// Returns the limit that was exceeded first, if one was.
    pub fn exceeded(&self) -> Option<Termination> {
        match *self {
            Self::Running(_) => None,
            Self::Terminating { reason, .. } | Self::Killed(reason) => Some(reason),
        }
    }

    /// Advances to the stage at the time `now`. Returns the action that is due.
    pub fn advance(&mut self, now: Instant, bounds: &Bounds) -> LimitAction {
        match *self {
            Self::Running(Some(until)) if now >= until => self.exceed(Termination::WallTime, now, bounds),
            Self::Terminating { reason, until: Some(until) } if now >= until => {
                *self = Self::Killed(reason);
                LimitAction::Kill
            }
            _ => LimitAction::Nothing,
        }
    }

    /// Records that a limit is exceeded, unless another one was before. Returns the action that is due.
    pub fn exceed(&mut self, reason: Termination, now: Instant, bounds: &Bounds) -> LimitAction {
        match (&self, bounds.kill_grace) {
            (Self::Running(_), Some(grace)) => {
                *self = Self::Terminating { reason, until: now.checked_add(grace) };
                LimitAction::Terminate
            }
            (Self::Running(_), None) => {
                *self = Self::Killed(reason);
                LimitAction::Kill
            }
            _ => LimitAction::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bounds(wall: Duration, kill_grace: Option<Duration>) -> Bounds {
        Bounds { wall: Some(wall), kill_grace, ..Bounds::default() }
    }

    #[test]
    fn a_program_is_killed_when_its_time_has_expired() {
        let (start, bounds) = (Instant::now(), bounds(SECOND, None));
        let mut stage = Stage::new(&bounds, start);
        assert_eq!(stage.advance(start + SECOND - Duration::from_nanos(1), &bounds), LimitAction::Nothing);
        assert_eq!(stage.advance(start + SECOND, &bounds), LimitAction::Kill);
        assert_eq!((stage.exceeded(), stage.deadline()), (Some(Termination::WallTime), None));
    }

    #[test]
    fn with_a_grace_period_sigterm_comes_first_and_the_first_limit_counts() {
        let (start, bounds) = (Instant::now(), bounds(SECOND, Some(SECOND)));
        let mut stage = Stage::new(&bounds, start);
        assert_eq!(stage.exceed(Termination::Output, start, &bounds), LimitAction::Terminate);
        assert_eq!(stage.exceed(Termination::WallTime, start, &bounds), LimitAction::Nothing);
        assert_eq!(stage.deadline(), Some(start + SECOND));
        assert_eq!(stage.advance(start + SECOND, &bounds), LimitAction::Kill);
        assert_eq!(stage.exceeded(), Some(Termination::Output));
    }

    #[test]
    fn a_limit_of_zero_expires_at_once_and_the_longest_never() {
        let start = Instant::now();
        let none = bounds(Duration::ZERO, None);
        assert_eq!(Stage::new(&none, start).advance(start, &none), LimitAction::Kill);
        assert_eq!(Stage::new(&bounds(Duration::MAX, None), start).deadline(), None);
    }
}
