//! Resource limits of the process (setrlimit(2)).

use nix::sys::resource::{Resource, getrlimit};

use crate::error::{Error, Result};
use crate::plan::helper::{self, Placed};
use crate::plan::{Arg, Program, Step, flags, nr};

/// No core is dumped. A limit of 1 byte is the one that holds for a program of the host too that
/// `kernel.core_pattern` pipes cores to: such a pipe has no regard for 0 (core(5); fs/coredump.c).
pub(crate) fn no_core(helper: &mut Program) {
    helper.step(Step::new("setting RLIMIT_CORE to 1 byte, which keeps cores from pipes too"));
    set(helper, flags!(RLIMIT_CORE), 1, 1);
}

fn set(program: &mut Program, resource: Arg, soft: u64, hard: u64) {
    let limit = [soft, hard].map(u64::to_ne_bytes);
    let limit = program.arena.bytes(limit.as_flattened(), format!("{{rlim_cur = {soft}, rlim_max = {hard}}}"));
    program.call(nr!(SYS_prlimit64), [Arg::NONE, resource, limit.into(), Arg::NULL]);
}

/// The limit on descriptors of the host, which the program has too, where the helper needs room above it for a moment.
pub(crate) struct Descriptors {
    soft: u64,
    hard: u64,
    needed: u64,
}

impl Descriptors {
    /// Refuses numbers that no descriptor can have.
    pub fn for_numbers(placed: &[Placed]) -> Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::host("reading RLIMIT_NOFILE"))?;
        let highest = placed.iter().map(|fd| u64::from(fd.number)).max().unwrap_or(0);
        if highest >= soft {
            return Err(Error::invalid(
                format!("a descriptor can't have the number {highest}: RLIMIT_NOFILE is {soft}"),
                "use a lower number, or raise the limit of the host",
            ));
        }
        let needed = highest + helper::room_for(placed);
        if needed > hard && highest > 2 {
            return Err(Error::invalid(
                format!("there is no room to place a descriptor at {highest}: the hard limit RLIMIT_NOFILE is {hard}"),
                "use a lower number",
            ));
        }
        Ok(Self { soft, hard, needed })
    }

    pub fn raise(&self, helper: &mut Program) {
        if self.needed > self.soft {
            helper.step(Step::new("raising RLIMIT_NOFILE while the descriptors are placed"));
            set(helper, flags!(RLIMIT_NOFILE), self.hard, self.hard);
        }
    }

    pub fn restore(&self, helper: &mut Program) {
        if self.needed > self.soft {
            helper.step(Step::new("setting RLIMIT_NOFILE back"));
            set(helper, flags!(RLIMIT_NOFILE), self.soft, self.hard);
        }
    }
}
