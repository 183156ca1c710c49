//! When to look at what a program uses, and whether that is too much.

use std::time::{Duration, Instant};

use super::{Account, Bounds};
use crate::outcome::Termination;

/// CPU time that counts as doing something.
const SOMETHING: Duration = Duration::from_millis(1);
/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(1);

/// Time by which it may be noticed late that a process was killed for memory.
const MEMORY: Duration = Duration::from_millis(50);

/// Time until figures are looked at again that could not be read.
const UNREADABLE: Duration = Duration::from_millis(20);

/// The limits that are kept by looking: on the use of CPUs, too much of them and none at all; and that nobody goes on where
/// the kernel has killed a process for memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    /// When to look next; never, if nothing is limited.
    pub next: Option<Instant>,
    /// What had been used when it last did something, and when that was.
    seen: (Duration, Instant),
}

impl Meter {
    pub fn new(bounds: &Bounds, started: Instant) -> Self {
        let mut meter = Self { next: None, seen: (Duration::ZERO, started) };
        // Nothing has been used yet, which needs no look.
        if meter.look(&Account { cpu: Some(Duration::ZERO), ..Account::default() }, started, bounds).is_some() {
            meter.next = Some(started);
        }
        meter
    }

    /// Takes a look at what has been used.
    ///
    /// CPU time can't grow faster than the time times the CPUs, so that looking again when that might have become too
    /// much misses a limit by no more than the shortest time between two looks.
    pub fn look(&mut self, account: &Account, now: Instant, bounds: &Bounds) -> Option<Termination> {
        let mut next = vec![];
        if bounds.memory {
            if let Some(oom) = account.oom {
                return Some(oom.termination());
            }
            next.push(now.checked_add(MEMORY));
        }
        let used = match account.cpu {
            Some(used) => used,
            // It can't be read, as where the caller has no descriptor left, which says nothing against the program.
            None => {
                self.seen.1 = now;
                next.extend((bounds.cpu.is_some() || bounds.idle.is_some()).then(|| now.checked_add(UNREADABLE)));
                self.next = next.into_iter().flatten().min();
                return None;
            }
        };
        if let Some(limit) = bounds.cpu {
            if used >= limit {
                return Some(Termination::CpuTime);
            }
            let left = Duration::try_from_secs_f64((limit - used).as_secs_f64() / bounds.cpus.max(1.0));
            next.push(now.checked_add(left.unwrap_or(Duration::MAX).max(SHORTEST)));
        }
        if let Some(idle) = bounds.idle {
            if used.saturating_sub(self.seen.0) >= SOMETHING {
                self.seen = (used, now);
            } else if now.duration_since(self.seen.1) >= idle {
                return Some(Termination::Idle);
            }
            let over = self.seen.1.checked_add(idle);
            let soon = now.checked_add((idle / 4).max(SHORTEST));
            next.push(over.into_iter().chain(soon).min());
        }
        // What lies beyond the end of the clock is never.
        self.next = next.into_iter().flatten().min();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Oom;

    const MS: Duration = Duration::from_millis(1);

    fn used(cpu: Duration) -> Account {
        Account { cpu: Some(cpu), ..Account::default() }
    }

    #[test]
    fn it_looks_again_when_the_limit_may_be_reached() {
        let start = Instant::now();
        let bounds = Bounds { cpu: Some(100 * MS), cpus: 2.0, ..Bounds::default() };
        let mut meter = Meter::new(&bounds, start);
        assert_eq!(meter.next, Some(start + 50 * MS));
        assert_eq!(meter.look(&used(40 * MS), start + 50 * MS, &bounds), None);
        assert_eq!(meter.next, Some(start + 80 * MS), "60 ms of 2 CPUs are 30 ms");
        assert_eq!(meter.look(&used(100 * MS), start + 80 * MS, &bounds), Some(Termination::CpuTime));
    }

    #[test]
    fn the_longest_limit_is_never_reached() {
        let start = Instant::now();
        let bounds = Bounds { cpu: Some(Duration::MAX), cpus: 1.0, ..Bounds::default() };
        let mut meter = Meter::new(&bounds, start);
        assert_eq!((meter.look(&used(40 * MS), start, &bounds), meter.next), (None, None));
    }

    #[test]
    fn who_does_nothing_for_long_enough_is_idle() {
        let start = Instant::now();
        let bounds = Bounds { idle: Some(100 * MS), ..Bounds::default() };
        let mut meter = Meter::new(&bounds, start);
        assert_eq!(meter.look(&used(5 * MS), start + 60 * MS, &bounds), None, "it has done something");
        assert_eq!(meter.look(&used(5 * MS), start + 159 * MS, &bounds), None);
        assert_eq!(meter.next, Some(start + 160 * MS));
        assert_eq!(meter.look(&used(5 * MS), start + 160 * MS, &bounds), Some(Termination::Idle));
    }

    #[test]
    fn who_can_not_be_looked_at_is_not_idle() {
        let start = Instant::now();
        let bounds = Bounds { idle: Some(100 * MS), ..Bounds::default() };
        let mut meter = Meter::new(&bounds, start);
        assert_eq!(meter.look(&Account::default(), start + 100 * MS, &bounds), None);
        assert_eq!(meter.next, Some(start + 120 * MS));
        assert_eq!(meter.look(&used(Duration::ZERO), start + 120 * MS, &bounds), None, "it may have done something");
        assert_eq!(meter.look(&used(Duration::ZERO), start + 200 * MS, &bounds), Some(Termination::Idle));
    }

    #[test]
    fn who_lost_a_process_for_memory_is_ended() {
        let start = Instant::now();
        let bounds = Bounds { memory: true, ..Bounds::default() };
        let mut meter = Meter::new(&bounds, start);
        assert_eq!((meter.look(&used(MS), start, &bounds), meter.next), (None, Some(start + 50 * MS)));
        for (oom, why) in [(Oom::OwnLimit, Termination::Memory), (Oom::Above, Termination::HostMemory)] {
            let account = Account { oom: Some(oom), ..Account::default() };
            assert_eq!(meter.look(&account, start + 50 * MS, &bounds), Some(why));
        }
    }

    #[test]
    fn without_a_limit_nobody_looks() {
        assert_eq!(Meter::new(&Bounds::default(), Instant::now()).next, None);
    }
}
