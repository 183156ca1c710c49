//! Priorities of the program: scheduling policy, nice value, I/O class, OOM score. A privileged priority of the caller
//! (real-time scheduling, a negative nice value or OOM score) is not inherited. Other limits are in `limits`.

use caps::{CapSet, Capability};

use super::Limits;
use crate::advice::Need;
use crate::error::{Error, Result};
use crate::outcome::{Gap, GapKind};
use crate::plan::{Arg, Constant, Script, Step, flags, nr};
use crate::sys::priority::{OOM_SCORE_ADJ, Preferences, Priorities};

const SCHEDULING: &[(i32, &str)] = &[
    (libc::EACCES, "a value below the caller's needs CAP_SYS_NICE: give it to the caller, or set a higher value"),
    (libc::EPERM, "a value below the caller's needs CAP_SYS_NICE: give it to the caller, or set a higher value"),
];

/// An option of prctl(2), since Linux 5.6. `libc` does not have it.
const SET_IO_FLUSHER: Constant = Constant { value: 57, name: "|PR_SET_IO_FLUSHER" };

/// Reads the caller's priorities.
pub(crate) fn inherited() -> Result<Priorities> {
    Priorities::of_thread().map_err(Error::io("read /proc/self/oom_score_adj"))
}

/// Sets the priorities of the program, and returns the preferences that it does not have. It is the first step, while
/// the process still has the caller's capabilities and `/proc`; later processes inherit the result. A value that is
/// already right takes no call, unless it was requested.
pub(crate) fn set(process: &mut Script, limits: &Limits, inherited: Priorities) -> Result<Preferences> {
    limits.check_priorities()?;
    let mut reset = inherited.preferences();
    if reset.contains(Preferences::REAL_TIME) {
        process.step(Step::new("reset the real-time scheduling policy"));
        let none = process.arena.bytes(&0i32.to_ne_bytes(), "{sched_priority = 0}");
        process.call(nr!(SYS_sched_setscheduler), [Arg::NONE, flags!(SCHED_OTHER), none.into()]);
    }
    if limits.nice.is_some() || reset.contains(Preferences::NICE) {
        let nice = limits.nice.unwrap_or(0);
        process.step(Step::new(format!("set the nice value to {nice}")).remedies(SCHEDULING));
        process.call(nr!(SYS_setpriority), [flags!(PRIO_PROCESS), Arg::NONE, nice.into()]);
        reset |= Preferences::NICE;
    }
    if reset.contains(Preferences::REAL_TIME_IO) {
        const PROCESS: u64 = 1;
        process.step(Step::new("reset the real-time I/O class"));
        process.call(nr!(SYS_ioprio_set), [PROCESS.into(), Arg::NONE, Arg::NONE]);
    }
    if reset.contains(Preferences::IO_FLUSHER) {
        process.step(Step::new("reset the IO_FLUSHER state"));
        process.prctl(Arg::Named(&SET_IO_FLUSHER), 0);
    }
    if limits.oom_score_adj.is_some() || reset.contains(Preferences::OOM_SCORE) {
        set_oom_score(process, limits.oom_score_adj.unwrap_or(0));
        reset |= Preferences::OOM_SCORE;
    }
    Ok(reset)
}

fn set_oom_score(process: &mut Script, score: i32) {
    let step = Step::new(format!("set the OOM score adjustment, by writing {score} to")).path(OOM_SCORE_ADJ);
    process.step(step.needs(Need::ProcFiles).remedies(&[(
        libc::EACCES,
        "a value below the caller's needs CAP_SYS_RESOURCE: give it to the caller, or set a higher value",
    )]));
    let text = score.to_string();
    let contents = process.arena.bytes(text.as_bytes(), format!("{text:?}"));
    process.write_file(OOM_SCORE_ADJ, contents, text.len());
}

/// Describes a preference that the program can regain: the kernel lets a process return to the lowest OOM score that a
/// process with CAP_SYS_RESOURCE has set (`__set_oom_adj` in fs/proc/base.c).
pub(crate) fn gap(inherited: Priorities) -> Option<Gap> {
    let sets_minimum = || caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(false);
    let can_be_restored = inherited.preferences().contains(Preferences::OOM_SCORE) && !sets_minimum();
    can_be_restored.then(|| {
        Gap::new(
            GapKind::OomScore,
            format!(
                "the program can restore the caller's oom_score_adj of {} if its /proc is writable, since it was set with \
                 CAP_SYS_RESOURCE, which the caller lacks",
                inherited.oom_score_adj
            ),
            "start the caller with an oom_score_adj of 0",
        )
    })
}

/// Refuses a thread with a preference that the plan does not reset, because another thread has compiled it.
pub(crate) fn check(reset: Preferences) -> Result<()> {
    let inherited = inherited()?.preferences() - reset;
    if inherited.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(
        format!(
            "the program would inherit {inherited} of this thread, which the thread that compiled the plan did not have"
        ),
        "compile the plan in the thread that spawns, or spawn from a thread without it",
    ))
}
