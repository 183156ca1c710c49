//! Priorities: the program is preferred to no other process because its caller is. What the caller may do more than others
//! (real-time scheduling, a negative nice value, exemption from the OOM killer) is not inherited, but set on request.

use caps::{CapSet, Capability};

use super::Limits;
use crate::error::{Error, Result};
use crate::plan::{Arg, Constant, Program, Step, flags, nr};
use crate::sys::priority::{OOM_SCORE_ADJ, Preferences, Priorities};

const SCHEDULING: &[(i32, &str)] = &[
    (libc::EACCES, "a lower value than the caller's takes CAP_SYS_NICE: give it to the caller, or a higher value"),
    (libc::EPERM, "a lower value than the caller's takes CAP_SYS_NICE: give it to the caller, or a higher value"),
];

/// Of prctl(2), since Linux 5.6; libc does not have it.
const SET_IO_FLUSHER: Constant = Constant { value: 57, name: "|PR_SET_IO_FLUSHER" };

/// The caller's priorities.
pub(super) fn inherited() -> Result<Priorities> {
    Priorities::of_thread().map_err(Error::host("reading /proc/self/oom_score_adj"))
}

/// Sets the priorities that the program starts with, and returns which preferences it can't have any more. It comes first,
/// while the process has the rights and the `/proc` of the caller; what it starts inherits them. What is as it should be
/// already takes no call, unless it was requested.
pub(super) fn set(process: &mut Program, limits: &Limits, inherited: Priorities) -> Result<Preferences> {
    limits.check_priorities()?;
    let mut taken = inherited.preferences();
    if taken.contains(Preferences::REAL_TIME) {
        process.step(Step::new("giving up the caller's real-time scheduling"));
        let none = process.arena.bytes(&0i32.to_ne_bytes(), "{sched_priority = 0}");
        process.call(nr!(SYS_sched_setscheduler), [Arg::NONE, flags!(SCHED_OTHER), none.into()]);
    }
    if limits.nice.is_some() || taken.contains(Preferences::NICE) {
        let nice = limits.nice.unwrap_or(0);
        process.step(Step::new(format!("setting the nice value to {nice}")).remedies(SCHEDULING));
        process.call(nr!(SYS_setpriority), [flags!(PRIO_PROCESS), Arg::NONE, nice.into()]);
        taken |= Preferences::NICE;
    }
    if taken.contains(Preferences::REAL_TIME_IO) {
        const PROCESS: u64 = 1;
        process.step(Step::new("giving up the caller's real-time class of input and output"));
        process.call(nr!(SYS_ioprio_set), [PROCESS.into(), Arg::NONE, Arg::NONE]);
    }
    if taken.contains(Preferences::IO_FLUSHER) {
        process.step(Step::new("giving up the caller's state IO_FLUSHER"));
        process.prctl(Arg::Named(&SET_IO_FLUSHER), 0);
    }
    if limits.oom_score_adj.is_some() || taken.contains(Preferences::OOM_SCORE) {
        set_oom_score(process, limits.oom_score_adj.unwrap_or(0));
        taken |= Preferences::OOM_SCORE;
    }
    Ok(taken)
}

fn set_oom_score(process: &mut Program, score: i32) {
    let step = Step::new(format!("setting oom_score_adj to {score}")).path(OOM_SCORE_ADJ);
    process.step(step.remedies(&[(
        libc::EACCES,
        "a lower value than the caller's takes CAP_SYS_RESOURCE: give it to the caller, or a higher value",
    )]));
    let text = score.to_string();
    let contents = process.arena.bytes(text.as_bytes(), format!("{text:?}"));
    process.write_file(OOM_SCORE_ADJ, contents, text.len());
}

/// What the program can take back: the kernel remembers the lowest score that somebody with CAP_SYS_RESOURCE has set, and
/// lets everybody return to it (`__set_oom_adj` in fs/proc/base.c).
pub(super) fn gap(inherited: Priorities) -> Option<String> {
    let sets_minimum = || caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(false);
    let remains = inherited.preferences().contains(Preferences::OOM_SCORE) && !sets_minimum();
    remains.then(|| {
        format!(
            "the caller's oom_score_adj of {}: the program starts with another, and can take it back where its /proc is \
             writable, since it was set with CAP_SYS_RESOURCE, which the caller lacks: start the caller without it",
            inherited.oom_score_adj
        )
    })
}

/// Refuses a thread that is preferred in a way that a plan does not take away: another thread has made the plan.
pub(crate) fn check(taken: Preferences) -> Result<()> {
    let left = inherited()?.preferences() - taken;
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(
        format!(
            "the program would inherit {left}, which this thread has, and which the thread that made the plan had not"
        ),
        "make the plan in the thread that spawns, or spawn from a thread without it",
    ))
}
