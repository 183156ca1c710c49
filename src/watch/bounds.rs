//! What a program may take of time and may write, as the host keeps it.

use std::time::{Duration, Instant};

use crate::outcome::Termination;

/// What becomes of a program that writes more to a stream than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Overflow {
    /// It is ended: [`Termination::Output`].
    #[default]
    End,
    /// It goes on, and what it writes beyond the limit is read and forgotten.
    Discard,
}

/// The limits that are kept while a program is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub wall: Option<Duration>,
    /// CPU time of all processes together.
    pub cpu: Option<Duration>,
    /// CPUs that they can use at a time.
    pub cpus: f64,
    /// Time without any CPU time.
    pub idle: Option<Duration>,
    /// Whether memory is limited.
    pub memory: bool,
    pub kill_grace: Option<Duration>,
    /// Bytes of standard output and standard error.
    pub output: [Option<u64>; 2],
    /// What becomes of a program that writes more to each of them.
    pub overflow: [Overflow; 2],
    /// Bytes of the largest file that the program may write.
    pub file_size: Option<u64>,
}

/// Where a program stands with its limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// It may run until then, or for ever.
    Running(Option<Instant>),
    /// It has been asked to end, for a reason, and has time until then.
    Asked { why: Termination, until: Option<Instant> },
    /// It was killed, for a reason.
    Killed(Termination),
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    Ask,
    Kill,
}

impl Stage {
    pub fn new(bounds: &Bounds, started: Instant) -> Self {
        // What lies beyond the end of the clock is no limit.
        Self::Running(bounds.wall.and_then(|wall| started.checked_add(wall)))
    }

    /// When something is to be done next, if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Running(until) | Self::Asked { until, .. } => until,
            Self::Killed(_) => None,
        }
    }

    pub fn is_killed(&self) -> bool {
        matches!(self, Self::Killed(_))
    }

    /// Why the program was ended, if it was.
    pub fn why(&self) -> Option<Termination> {
        match *self {
            Self::Running(_) => None,
            Self::Asked { why, .. } | Self::Killed(why) => Some(why),
        }
    }

    /// What the time brings.
    pub fn advance(&mut self, now: Instant, bounds: &Bounds) -> Action {
        match *self {
            Self::Running(Some(until)) if now >= until => self.exceed(Termination::WallTime, now, bounds),
            Self::Asked { why, until: Some(until) } if now >= until => {
                *self = Self::Killed(why);
                Action::Kill
            }
            _ => Action::Nothing,
        }
    }

    /// A limit is exceeded. What a program is ended for first is what counts.
    pub fn exceed(&mut self, why: Termination, now: Instant, bounds: &Bounds) -> Action {
        match (&self, bounds.kill_grace) {
            (Self::Running(_), Some(grace)) => {
                *self = Self::Asked { why, until: now.checked_add(grace) };
                Action::Ask
            }
            (Self::Running(_), None) => {
                *self = Self::Killed(why);
                Action::Kill
            }
            _ => Action::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bounds(wall: Duration, kill_grace: Option<Duration>) -> Bounds {
        Bounds { wall: Some(wall), kill_grace, ..Bounds::default() }
    }

    #[test]
    fn a_program_is_killed_when_its_time_is_up() {
        let (start, bounds) = (Instant::now(), bounds(SECOND, None));
        let mut stage = Stage::new(&bounds, start);
        assert_eq!(stage.advance(start + SECOND - Duration::from_nanos(1), &bounds), Action::Nothing);
        assert_eq!(stage.advance(start + SECOND, &bounds), Action::Kill);
        assert_eq!((stage.why(), stage.deadline()), (Some(Termination::WallTime), None));
    }

    #[test]
    fn with_a_grace_it_is_asked_first_and_the_first_reason_counts() {
        let (start, bounds) = (Instant::now(), bounds(SECOND, Some(SECOND)));
        let mut stage = Stage::new(&bounds, start);
        assert_eq!(stage.exceed(Termination::Output, start, &bounds), Action::Ask);
        assert_eq!(stage.exceed(Termination::WallTime, start, &bounds), Action::Nothing);
        assert_eq!(stage.deadline(), Some(start + SECOND));
        assert_eq!(stage.advance(start + SECOND, &bounds), Action::Kill);
        assert_eq!(stage.why(), Some(Termination::Output));
    }

    #[test]
    fn no_time_ends_at_once_and_the_longest_never() {
        let start = Instant::now();
        let none = bounds(Duration::ZERO, None);
        assert_eq!(Stage::new(&none, start).advance(start, &none), Action::Kill);
        assert_eq!(Stage::new(&bounds(Duration::MAX, None), start).deadline(), None);
    }
}
