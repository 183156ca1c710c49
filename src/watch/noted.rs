//! What the thread that decides system calls has noted of them: bounded, whatever a program does.

use std::collections::HashMap;

use crate::outcome::{Termination, Violation};
use crate::system_call::SystemCall;

/// Different violations that are kept.
const KEPT: usize = 1024;

/// What tells a violation from others of the same call.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Named {
    Path(Vec<u8>),
    Args([u64; 6]),
}

/// How often one came.
#[derive(Debug)]
struct Times {
    /// How many others came before it first did.
    place: usize,
    /// The arguments then.
    args: [u64; 6],
    count: u64,
}

#[derive(Debug, Default)]
pub(super) struct Noted {
    refused: HashMap<(SystemCall, Named), Times>,
    /// How many refused calls are not kept.
    pub omitted: u64,
    /// What the sandbox was ended for.
    pub ended_for: Option<Termination>,
}

impl Noted {
    /// A call was refused; `path` is what it named.
    pub fn add(&mut self, call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>) {
        self.keep(KEPT, call, args, path);
    }

    /// The sandbox is ended for a call. What it is ended for first is kept, whatever came before.
    pub fn end(&mut self, call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>) {
        let kept = if self.ended_for.is_none() { usize::MAX } else { KEPT };
        self.ended_for.get_or_insert(Termination::Syscall(call));
        self.keep(kept, call, args, path);
    }

    fn keep(&mut self, most: usize, call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>) {
        let place = self.refused.len();
        let key = (call, path.map_or(Named::Args(args), Named::Path));
        if let Some(times) = self.refused.get_mut(&key) {
            times.count += 1;
        } else if place < most {
            self.refused.insert(key, Times { place, args, count: 1 });
        } else {
            self.omitted += 1;
        }
    }

    /// In the order in which they came first.
    pub fn violations(&mut self) -> Vec<Violation> {
        let mut refused: Vec<_> = std::mem::take(&mut self.refused).into_iter().collect();
        refused.sort_unstable_by_key(|(_, times)| times.place);
        let violation = |((call, named), Times { args, count, .. })| match named {
            Named::Path(path) => Violation::new(call, args, Some(path), count),
            Named::Args(_) => Violation::new(call, args, None, count),
        };
        refused.into_iter().map(violation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: SystemCall = SystemCall(0);

    #[test]
    fn the_same_is_counted_and_another_is_kept_in_order() {
        let mut noted = Noted::default();
        for (argument, path) in [(1, Some("/b")), (2, None), (3, Some("/b")), (2, None), (4, Some("/a")), (5, None)] {
            noted.add(READ, [argument; 6], path.map(Into::into));
        }
        let kept: Vec<_> = noted.violations().into_iter().map(|it| (it.args[0], it.path, it.count)).collect();
        let expected = [(1, Some("/b".into()), 2), (2, None, 2), (4, Some("/a".into()), 1), (5, None, 1)];
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_the_sandbox_was_ended_for_is_kept_beyond_the_bound() {
        let mut noted = Noted::default();
        (0..2000).for_each(|number| noted.add(READ, [number; 6], None));
        (0..2000).for_each(|number| noted.end(SystemCall(1), [number; 6], None));
        assert_eq!(noted.ended_for, Some(Termination::Syscall(SystemCall(1))));
        let kept = noted.violations();
        assert_eq!(kept.len(), KEPT + 1);
        assert_eq!(noted.omitted, 2000 - KEPT as u64 + 1999);
        assert_eq!(kept[KEPT].call, SystemCall(1));
    }
}
