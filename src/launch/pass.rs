//! The pass of a sandbox: a number by which the seccomp filter allows the calls of the set-up, and which the program never
//! learns.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns another number each time, which nobody can guess who knows the others: a hash under keys of getrandom(2). The
/// process ID is a part of it, so that a caller that forks does not repeat its own.
pub(super) fn new() -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    KEYS.hash_one((std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn no_pass_and_no_half_of_one_is_repeated() {
        let passes: BTreeSet<u64> = (0..1000).map(|_| super::new()).collect();
        assert_eq!(passes.len(), 1000);
        let halves: BTreeSet<u64> =
            (0..64).map(|_| super::new()).flat_map(|pass| [pass >> 32, pass as u32 as u64]).collect();
        assert_eq!(halves.len(), 128);
    }
}
