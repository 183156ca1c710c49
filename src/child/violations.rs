//! A log of the system calls that the supervisor has denied. Its size is bounded.

use std::collections::HashMap;

use crate::outcome::{Termination, Violation};
use crate::syscall::SystemCall;

/// The maximum number of different violations.
const KEPT: usize = 1024;

/// Distinguishes violations of the same system call.
#[derive(Debug, PartialEq, Eq, Hash)]
enum CallTarget {
    Path(Vec<u8>),
    Args([u64; 6]),
}

/// The number of times that a violation has occurred.
#[derive(Debug)]
struct Times {
    /// Its index in the order of first occurrence.
    index: usize,
    /// The arguments of the first occurrence.
    args: [u64; 6],
    count: u64,
}

/// The violations of one sandbox.
#[derive(Debug, Default)]
pub(super) struct ViolationLog {
    denied: HashMap<(SystemCall, CallTarget), Times>,
    /// The number of denied calls that were not kept.
    pub omitted: u64,
    /// The call for which the sandbox was killed.
    pub killed_for: Option<Termination>,
}

impl ViolationLog {
    /// Adds a denied call. `path` is its path argument.
    pub fn add(&mut self, call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>) {
        self.keep(KEPT, call, args, path);
    }

    /// Adds a call for which the sandbox is killed. The first one is always kept, even if the log is full.
    pub fn add_kill(&mut self, call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>) {
        let kept = if self.killed_for.is_none() { usize::MAX } else { KEPT };
        self.killed_for.get_or_insert(Termination::Syscall(call));
        self.keep(kept, call, args, path);
    }

    fn keep(&mut self, most: usize, call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>) {
        let index = self.denied.len();
        let key = (call, path.map_or(CallTarget::Args(args), CallTarget::Path));
        if let Some(times) = self.denied.get_mut(&key) {
            times.count += 1;
        } else if index < most {
            self.denied.insert(key, Times { index, args, count: 1 });
        } else {
            self.omitted += 1;
        }
    }

    /// Takes the violations, in the order of first occurrence.
    pub fn violations(&mut self) -> Vec<Violation> {
        let mut denied: Vec<_> = std::mem::take(&mut self.denied).into_iter().collect();
        denied.sort_unstable_by_key(|(_, times)| times.index);
        let violation = |((call, target), Times { args, count, .. })| match target {
            CallTarget::Path(path) => Violation::new(call, args, Some(path), count),
            CallTarget::Args(_) => Violation::new(call, args, None, count),
        };
        denied.into_iter().map(violation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: SystemCall = SystemCall::new(0);

    #[test]
    fn the_same_is_counted_and_another_is_kept_in_order() {
        let mut log = ViolationLog::default();
        for (argument, path) in [(1, Some("/b")), (2, None), (3, Some("/b")), (2, None), (4, Some("/a")), (5, None)] {
            log.add(READ, [argument; 6], path.map(Into::into));
        }
        let kept: Vec<_> = log.violations().into_iter().map(|it| (it.args[0], it.path, it.count)).collect();
        let expected = [(1, Some("/b".into()), 2), (2, None, 2), (4, Some("/a".into()), 1), (5, None, 1)];
        assert_eq!(kept, expected);
    }

    #[test]
    fn the_call_for_which_the_sandbox_was_killed_is_kept_beyond_the_bound() {
        let mut log = ViolationLog::default();
        (0..2000).for_each(|number| log.add(READ, [number; 6], None));
        (0..2000).for_each(|number| log.add_kill(SystemCall::new(1), [number; 6], None));
        assert_eq!(log.killed_for, Some(Termination::Syscall(SystemCall::new(1))));
        let kept = log.violations();
        assert_eq!(kept.len(), KEPT + 1);
        assert_eq!(log.omitted, 2000 - KEPT as u64 + 1999);
        assert_eq!(kept[KEPT].call, SystemCall::new(1));
    }
}
