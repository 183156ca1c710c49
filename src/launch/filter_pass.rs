//! The pass of a sandbox: a random number. The seccomp filter allows a call of the set-up only with the pass as an
//! argument. The program never sees it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns a new pass: a keyed hash of a counter, with keys from getrandom(2), so that it cannot be derived from
/// earlier ones. The hash includes the PID, so that a forked child of the caller does not repeat the passes of its
/// parent.
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
