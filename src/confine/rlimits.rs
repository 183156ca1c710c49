//! Resource limits of the process (setrlimit(2)).

use crate::plan::{Arg, Program, Step, flags, nr};

/// No core is dumped. A limit of 1 byte is the one that holds for a program of the host too that
/// `kernel.core_pattern` pipes cores to: such a pipe has no regard for 0 (core(5); fs/coredump.c).
pub(crate) fn no_core(helper: &mut Program) {
    helper.step(Step::new("setting RLIMIT_CORE to 1 byte, which keeps cores from pipes too"));
    let limit: Vec<u8> = [1u64, 1].into_iter().flat_map(u64::to_ne_bytes).collect();
    let limit = helper.arena.bytes(&limit, "{rlim_cur = 1, rlim_max = 1}");
    helper.call(nr!(SYS_prlimit64), [Arg::NONE, flags!(RLIMIT_CORE), limit.into(), Arg::NULL]);
}
