//! Priorities: the program is preferred to no other process because its caller is. What the caller may do more than others
//! (real-time scheduling, a negative nice value, exemption from the OOM killer) is not inherited, but set on request.

use std::fs;

use super::Limits;
use crate::error::{Error, Result};
use crate::plan::{Arg, Program, Step, flags, nr};
use crate::sys::priority::Priorities;

/// The file that says how likely the OOM killer is to choose a process (proc(5)).
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Sets the priorities that the program starts with. It comes first, while the process has the rights and the `/proc` of the
/// caller; what it starts inherits them. What is as it should be already takes no call.
pub(super) fn set(process: &mut Program, limits: &Limits) -> Result<()> {
    limits.check_priorities()?;
    let inherited = Priorities::of_thread();
    if inherited.is_real_time {
        process.step(Step::new("giving up the caller's real-time scheduling"));
        let none = process.arena.bytes(&0i32.to_ne_bytes(), "{sched_priority = 0}");
        process.call(nr!(SYS_sched_setscheduler), [Arg::NONE, flags!(SCHED_OTHER), none.into()]);
    }
    let nice = limits.nice.unwrap_or(inherited.nice.max(0));
    if nice != inherited.nice {
        process.step(Step::new(format!("setting the nice value to {nice}")).remedies(&[
            (
                libc::EACCES,
                "a lower value than the caller's takes CAP_SYS_NICE: give it to the caller, or a higher value",
            ),
            (
                libc::EPERM,
                "a lower value than the caller's takes CAP_SYS_NICE: give it to the caller, or a higher value",
            ),
        ]));
        process.call(nr!(SYS_setpriority), [flags!(PRIO_PROCESS), Arg::NONE, nice.into()]);
    }
    if inherited.has_real_time_io {
        const PROCESS: u64 = 1;
        process.step(Step::new("giving up the caller's real-time class of input and output"));
        process.call(nr!(SYS_ioprio_set), [PROCESS.into(), Arg::NONE, Arg::NONE]);
    }
    set_oom_score(process, limits.oom_score_adj)
}

fn set_oom_score(process: &mut Program, requested: Option<i32>) -> Result<()> {
    let text = fs::read_to_string(OOM_SCORE_ADJ).map_err(Error::host("reading /proc/self/oom_score_adj"))?;
    let inherited: i32 = text.trim().parse().unwrap_or_default();
    let score = requested.unwrap_or(inherited.max(0));
    if score == inherited {
        return Ok(());
    }
    let step = Step::new(format!("setting oom_score_adj to {score}")).path(OOM_SCORE_ADJ);
    process.step(step.remedies(&[(
        libc::EACCES,
        "a lower value than the caller's takes CAP_SYS_RESOURCE: give it to the caller, or a higher value",
    )]));
    let text = score.to_string();
    let contents = process.arena.bytes(text.as_bytes(), format!("{text:?}"));
    process.write_file(OOM_SCORE_ADJ, contents, text.len());
    Ok(())
}
