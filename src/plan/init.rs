//! The init: PID 1 of a pid namespace that was made. It runs in the helper's small memory, and sleeps until the
//! sandbox ends.

use std::time::Duration;

use super::arena::Word;
use super::call::{Arg, Label, OnError, flags, nr};
use super::fixed_filter::Remaining;
use super::program::{Input, Program, Step};
use super::sync::Flag;
use crate::outcome::Layer;

/// An init that was started.
pub(crate) struct Init {
    ready: Flag,
}

/// What confines a set-up process that stays.
pub(crate) struct Confine<F> {
    /// Drops every capability, and sets `no_new_privs`.
    pub rights: F,
    /// Whether it goes on without a filter where none can be installed.
    pub filter_is_optional: bool,
}

/// Starts the init, as a child of the host. `before` is what it does in the pid namespace while it shares the helper's
/// descriptors, which is done when the helper has waited for it.
pub(crate) fn start<T>(
    helper: &mut Program,
    time: Option<Duration>,
    before: impl FnOnce(&mut Program) -> T,
    confine: Confine<impl FnOnce(&mut Program)>,
) -> (Init, T) {
    helper.step(Step::new("starting the init").remedies(&[
        (libc::EAGAIN, "the limit on processes is reached (RLIMIT_NPROC, pids.max, kernel.pid_max)"),
        (libc::ENOMEM, "memory is short"),
    ]));
    let ready = helper.flag("the init is ready");
    let parent = helper.label();
    let how = flags!(CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD);
    // The kernel writes the pid before the init runs: the caller knows of it from then on.
    helper.clone(how, Arg::SlotAddress(Program::INIT), ready).above_zero(parent).store_in(Program::INIT);
    let result = in_the_init(helper, ready, time, before, confine);
    helper.bind(parent);
    (Init { ready }, result)
}

/// Waits until the init is ready; fails if it has failed, which it has said itself.
pub(crate) fn wait(helper: &mut Program, init: &Init) {
    helper.step(Step::new("waiting for the init").remedies(&[(libc::ETIMEDOUT, "the init was killed from outside")]));
    helper.wait_for(init.ready);
    helper.need_raised(init.ready);
}

fn in_the_init<T>(
    helper: &mut Program,
    ready: Flag,
    time: Option<Duration>,
    before: impl FnOnce(&mut Program) -> T,
    confine: Confine<impl FnOnce(&mut Program)>,
) -> T {
    helper.step(Step::new("letting the kernel reap what is orphaned in the pid namespace"));
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0].map(Word::Value);
    let ignore = helper.arena.words(&ignore, "{SIG_IGN}");
    helper.call(nr!(SYS_rt_sigaction), [flags!(SIGCHLD), ignore.into(), Arg::NULL, 8u64.into()]);
    let result = before(helper);
    helper.step(Step::new("keeping nothing but what the init waits for"));
    helper.call(nr!(SYS_unshare), [flags!(CLONE_FILES)]);
    for (number, input) in [Input::Control, Input::Host].into_iter().enumerate() {
        let fd = helper.input(input);
        helper.dup3(fd, number as u64, flags!(O_CLOEXEC));
    }
    (confine.rights)(helper);
    let calls = [nr!(SYS_close_range), nr!(SYS_gettid), nr!(SYS_futex)].map(Remaining::any);
    let on_error = if confine.filter_is_optional { OnError::Ignore } else { OnError::Fail };
    helper.within(Layer::Seccomp, |helper| helper.allow_only(&calls, on_error));
    // Nothing can be reported from here on: the program is started when the init has told that it is ready, and finds
    // no descriptor in it that leads anywhere. It is known to the kernel: the stub has made this call too.
    helper.call(nr!(SYS_close_range), [2.into(), u32::MAX.into(), Arg::NONE]).ignore();
    let failed = helper.label();
    helper.step(Step::new("telling the helper that the init is ready"));
    helper.raise_or_goto(ready, failed);
    helper.step(Step::new("waiting for the end of the sandbox"));
    let over = wait_for_host(helper, time);
    helper.exit(TIME_IS_UP);
    helper.bind(over);
    helper.exit(0);
    helper.bind(failed);
    helper.exit(127);
    result
}

/// The exit status of a process that has ended the sandbox because the time was up.
pub(crate) const TIME_IS_UP: i32 = 3;

/// Sleeps until the host closes the control pipe, which is at 0, or ends; its pidfd is at 1. The label is where the
/// program goes on then; it goes on with the next call when `time` has passed before.
pub(super) fn wait_for_host(program: &mut Program, time: Option<Duration>) -> Label {
    // struct pollfd {int fd; short events, revents}
    let entry = |fd: u64| Word::Value(fd | u64::from(libc::POLLIN as u16) << 32);
    let entries = program.arena.words(&[entry(0), entry(1)], "[{<control>, POLLIN}, {<host>, POLLIN}]");
    let timeout = time.map_or(Arg::NULL, |time| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX) as u64;
        let words = [Word::Value(seconds), Word::Value(time.subsec_nanos().into())];
        program.arena.words(&words, format!("{{{}.{:09} s}}", seconds, time.subsec_nanos())).into()
    });
    let (again, over) = (program.label(), program.label());
    program.bind(again);
    // The kernel writes the time that is left back, so that an interrupted call goes on with it.
    let poll = [entries.into(), 2.into(), timeout, Arg::NULL, 8.into()];
    program.call(nr!(SYS_ppoll), poll).or_goto(again).above_zero(over);
    over
}
