//! The limits that are enforced by polling the statistics of a cgroup: when to read them, and whether a limit is
//! exceeded.

use std::time::{Duration, Instant};

use crate::cgroup::Account;
use crate::confine::Bounds;
use crate::outcome::Termination;

/// The CPU time that a program must use between two polls to count as active.
const ACTIVE: Duration = Duration::from_millis(1);
/// The minimum time between two polls.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The time between two polls for kills because of memory.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// The time until statistics that could not be read are polled again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Polls CPU time, for [`Limits::cpu_time`](crate::Limits::cpu_time) and
/// [`Limits::idle_timeout`](crate::Limits::idle_timeout), and kills because of memory: when the kernel has killed one
/// process, the whole sandbox is killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsagePoller {
    /// When to poll next. `None` if no limit needs polling.
    pub due: Option<Instant>,
    /// The CPU time when the program was last active, and the time of that poll.
    active: (Duration, Instant),
}

impl UsagePoller {
    pub fn new(bounds: &Bounds, started: Instant) -> Self {
        let mut poller = Self { due: None, active: (Duration::ZERO, started) };
        // Sets the first deadline. No CPU time has been used yet.
        if poller.check(&Account { cpu: Some(Duration::ZERO), ..Account::default() }, started, bounds).is_some() {
            poller.due = Some(started);
        }
        poller
    }

    /// Returns the limit that is exceeded. If none is, sets the time of the next poll.
    ///
    /// CPU time grows at most by the number of CPUs for each unit of time. The next poll is when the limit can be
    /// exceeded at the earliest, so it is late by at most the minimum time between two polls.
    pub fn check(&mut self, account: &Account, now: Instant, bounds: &Bounds) -> Option<Termination> {
        let mut next = vec![];
        if bounds.memory {
            if let Some(oom) = account.oom {
                return Some(oom.termination());
            }
            next.push(now.checked_add(MEMORY_INTERVAL));
        }
        let used = match account.cpu {
            Some(used) => used,
            // The statistics cannot be read, for example because the caller is at its limit of open descriptors. The
            // program counts as active, since it may have been.
            None => {
                self.active.1 = now;
                next.extend((bounds.cpu.is_some() || bounds.idle.is_some()).then(|| now.checked_add(RETRY_INTERVAL)));
                self.due = next.into_iter().flatten().min();
                return None;
            }
        };
        if let Some(limit) = bounds.cpu {
            if used >= limit {
                return Some(Termination::CpuTime);
            }
            let left = Duration::try_from_secs_f64((limit - used).as_secs_f64() / bounds.cpus.max(1.0));
            next.push(now.checked_add(left.unwrap_or(Duration::MAX).max(MIN_INTERVAL)));
        }
        if let Some(idle) = bounds.idle {
            if used.saturating_sub(self.active.0) >= ACTIVE {
                self.active = (used, now);
            } else if now.duration_since(self.active.1) >= idle {
                return Some(Termination::Idle);
            }
            let over = self.active.1.checked_add(idle);
            let soon = now.checked_add((idle / 4).max(MIN_INTERVAL));
            next.push(over.into_iter().chain(soon).min());
        }
        // A time later than the clock can represent is never reached.
        self.due = next.into_iter().flatten().min();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Oom;

    const MS: Duration = Duration::from_millis(1);

    fn used(cpu: Duration) -> Account {
        Account { cpu: Some(cpu), ..Account::default() }
    }

    #[test]
    fn it_polls_again_when_the_limit_may_be_reached() {
        let start = Instant::now();
        let bounds = Bounds { cpu: Some(100 * MS), cpus: 2.0, ..Bounds::default() };
        let mut poller = UsagePoller::new(&bounds, start);
        assert_eq!(poller.due, Some(start + 50 * MS));
        assert_eq!(poller.check(&used(40 * MS), start + 50 * MS, &bounds), None);
        assert_eq!(poller.due, Some(start + 80 * MS), "60 ms of 2 CPUs are 30 ms");
        assert_eq!(poller.check(&used(100 * MS), start + 80 * MS, &bounds), Some(Termination::CpuTime));
    }

    #[test]
    fn the_longest_limit_is_never_reached() {
        let start = Instant::now();
        let bounds = Bounds { cpu: Some(Duration::MAX), cpus: 1.0, ..Bounds::default() };
        let mut poller = UsagePoller::new(&bounds, start);
        assert_eq!((poller.check(&used(40 * MS), start, &bounds), poller.due), (None, None));
    }

    #[test]
    fn a_program_without_cpu_time_for_long_enough_is_idle() {
        let start = Instant::now();
        let bounds = Bounds { idle: Some(100 * MS), ..Bounds::default() };
        let mut poller = UsagePoller::new(&bounds, start);
        assert_eq!(poller.check(&used(5 * MS), start + 60 * MS, &bounds), None, "it was active");
        assert_eq!(poller.check(&used(5 * MS), start + 159 * MS, &bounds), None);
        assert_eq!(poller.due, Some(start + 160 * MS));
        assert_eq!(poller.check(&used(5 * MS), start + 160 * MS, &bounds), Some(Termination::Idle));
    }

    #[test]
    fn a_program_whose_figures_can_not_be_read_is_not_idle() {
        let start = Instant::now();
        let bounds = Bounds { idle: Some(100 * MS), ..Bounds::default() };
        let mut poller = UsagePoller::new(&bounds, start);
        assert_eq!(poller.check(&Account::default(), start + 100 * MS, &bounds), None);
        assert_eq!(poller.due, Some(start + 120 * MS));
        assert_eq!(poller.check(&used(Duration::ZERO), start + 120 * MS, &bounds), None, "it may have been active");
        assert_eq!(poller.check(&used(Duration::ZERO), start + 200 * MS, &bounds), Some(Termination::Idle));
    }

    #[test]
    fn a_program_that_lost_a_process_for_memory_has_exceeded_its_limit() {
        let start = Instant::now();
        let bounds = Bounds { memory: true, ..Bounds::default() };
        let mut poller = UsagePoller::new(&bounds, start);
        assert_eq!((poller.check(&used(MS), start, &bounds), poller.due), (None, Some(start + 50 * MS)));
        for (oom, why) in [(Oom::OwnLimit, Termination::Memory), (Oom::Above, Termination::HostMemory)] {
            let account = Account { oom: Some(oom), ..Account::default() };
            assert_eq!(poller.check(&account, start + 50 * MS, &bounds), Some(why));
        }
    }

    #[test]
    fn without_a_limit_nothing_is_polled() {
        assert_eq!(UsagePoller::new(&Bounds::default(), Instant::now()).due, None);
    }
}
