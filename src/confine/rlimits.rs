//! Resource limits of the process (setrlimit(2)).

use nix::sys::resource::{Resource, getrlimit};

use crate::error::{Error, Result};
use crate::plan::helper::Placed;
use crate::plan::{Arg, Program, Step, flags, nr};

/// No core is dumped. A limit of 1 byte is the one that holds for a program of the host too that
/// `kernel.core_pattern` pipes cores to: such a pipe has no regard for 0 (core(5); fs/coredump.c).
pub(crate) fn no_core(helper: &mut Program) {
    helper.step(Step::new("setting RLIMIT_CORE to 1 byte, which keeps cores from pipes too"));
    let limit = helper.arena.bytes([1u64, 1].map(u64::to_ne_bytes).as_flattened(), "{rlim_cur = 1, rlim_max = 1}");
    helper.call(nr!(SYS_prlimit64), [Arg::NONE, flags!(RLIMIT_CORE), limit.into(), Arg::NULL]);
}

/// Refuses numbers that no descriptor of the program can have (getrlimit(2), `RLIMIT_NOFILE`).
pub(crate) fn check_numbers(placed: &[Placed]) -> Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::host("reading RLIMIT_NOFILE"))?;
    match placed.iter().map(|fd| fd.number).find(|&number| u64::from(number) >= soft && number > 2) {
        Some(number) => Err(Error::invalid(
            format!("a descriptor can't have the number {number}: RLIMIT_NOFILE is {soft}"),
            "use a lower number, or raise the limit of the host",
        )),
        None => Ok(()),
    }
}
