//! The init: PID 1 of a pid namespace that was made. It runs in the helper's small memory, and sleeps until the
//! sandbox ends: when the caller says so or is gone, when the time is up, or when the program has ended.

use std::time::Duration;

use super::arena::Word;
use super::call::{Arg, Label, OnError, Slot, flags, nr};
use super::fixed_filter::Remaining;
use super::program::{Input, Program, Step};
use super::sync::Flag;
use crate::outcome::Layer;

/// An init that was started.
#[derive(Clone, Copy)]
pub(crate) struct Init {
    /// Raised when it has done what is done before the program is started, and once more when it is confined.
    ready: Flag,
    /// Raised by the helper when the program's process was started.
    started: Flag,
    /// A descriptor of that process, in the table that both share until then.
    program: Slot,
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
    helper.step(
        Step::new("starting the init")
            .remedies(&[(libc::EAGAIN, "the limit on processes is reached (RLIMIT_NPROC, pids.max, kernel.pid_max)")]),
    );
    let (ready, started) = (helper.flag("the init is ready"), helper.flag("the program's process was started"));
    let init = Init { ready, started, program: helper.slot("pidfd of the program") };
    helper.tell_of_end(started);
    let parent = helper.label();
    let how = flags!(CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD);
    // The kernel writes the pid before the init runs: the caller knows of it from then on.
    helper.clone(how, Arg::SlotAddress(Program::INIT), ready).above_zero(parent).store_in(Program::INIT);
    let result = in_the_init(helper, init, time, before, confine);
    helper.bind(parent);
    (init, result)
}

impl Init {
    /// Waits until the init has done what comes before the program; fails if it has failed, which it has said itself.
    pub fn wait(self, helper: &mut Program) {
        self.step(helper);
        helper.wait_for(self.ready);
        helper.need_raised(self.ready);
    }

    /// Gives the init the program's process to wait for, by a descriptor of it. From here on the helper's end is told by
    /// `next`.
    pub fn give(self, helper: &mut Program, program: Slot, next: Flag) {
        helper.step(Step::new("giving the init the program to wait for"));
        helper.fcntl(program, flags!(F_DUPFD_CLOEXEC), Arg::NONE).store_in(self.program);
        helper.tell_of_end(next);
        helper.raise(self.started);
    }

    /// Waits until the init is confined, and holds nothing but what it waits for.
    pub fn wait_confined(self, helper: &mut Program) {
        self.step(helper);
        helper.wait_for_second(self.ready);
        helper.need_raised(self.ready);
    }

    fn step(self, helper: &mut Program) {
        let remedies = &[(libc::ETIMEDOUT, "the init was killed from outside")];
        helper.step(Step::new("waiting for the init").remedies(remedies));
    }
}

fn in_the_init<T>(
    helper: &mut Program,
    init: Init,
    time: Option<Duration>,
    before: impl FnOnce(&mut Program) -> T,
    confine: Confine<impl FnOnce(&mut Program)>,
) -> T {
    helper.step(Step::new("letting the kernel reap what is orphaned in the pid namespace"));
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0].map(Word::Value);
    let ignore = helper.arena.words(&ignore, "{SIG_IGN}");
    helper.call(nr!(SYS_rt_sigaction), [flags!(SIGCHLD), ignore.into(), Arg::NULL, 8u64.into()]);
    let result = before(helper);
    helper.step(Step::new("telling the helper that the init has begun"));
    helper.raise_half(init.ready);
    helper.step(
        Step::new("waiting for the program's process")
            .remedies(&[(libc::ETIMEDOUT, "the helper was killed from outside")]),
    );
    helper.wait_for(init.started);
    helper.need_raised(init.started);
    helper.step(Step::new("keeping nothing but what the init waits for"));
    helper.call(nr!(SYS_unshare), [flags!(CLONE_FILES)]);
    // None of them has one of these numbers.
    let watched = [helper.input(Input::Control), helper.input(Input::Host), init.program];
    for (number, slot) in watched.into_iter().enumerate() {
        helper.dup3(slot, number as u64, flags!(O_CLOEXEC));
    }
    (confine.rights)(helper);
    let calls = [nr!(SYS_close_range), nr!(SYS_gettid), nr!(SYS_futex)].map(Remaining::any);
    let on_error = if confine.filter_is_optional { OnError::Ignore } else { OnError::Fail };
    helper.within(Layer::Seccomp, |helper| helper.allow_only(&calls, on_error));
    // Nothing can be reported from here on: the program is started when the init has told that it is ready, and finds
    // no descriptor in it that leads anywhere. It is known to the kernel: the stub has made this call too.
    helper.call(nr!(SYS_close_range), [WATCHED.into(), u32::MAX.into(), Arg::NONE]).ignore();
    let failed = helper.label();
    helper.step(Step::new("telling the helper that the init is ready"));
    helper.raise_or_goto(init.ready, failed);
    // The kernel ends everybody else with the init.
    wait_for_end(helper, time, |_| {});
    helper.bind(failed);
    helper.exit(127);
    result
}

/// The exit status of a process that has ended the sandbox because the time was up.
pub(crate) const TIME_IS_UP: i32 = 3;
/// The same because the program had ended, and the caller did nothing about it.
pub(crate) const PROGRAM_HAS_ENDED: i32 = 4;

/// Descriptors that such a process waits for, by their numbers: the control pipe, which the host closes to end the sandbox,
/// and pidfds of the host and of the program.
pub(super) const WATCHED: u64 = 3;

/// How long a caller that waits may take to say so, when the program has ended.
const GREETING: Duration = Duration::from_millis(40);
/// How long it may take then to list what the program has left behind.
const LISTING: Duration = Duration::from_secs(1);

/// Sleeps until the sandbox is to end, makes the calls of `end`, and exits.
pub(super) fn wait_for_end(program: &mut Program, time: Option<Duration>, end: impl Fn(&mut Program)) {
    const READABLE: u64 = libc::POLLIN as u64;
    program.step(Step::new("waiting for the end of the sandbox"));
    let (ended, greeted, over) = (program.label(), program.label(), program.label());
    poll(program, &[("<control>", READABLE), ("<host>", READABLE), ("<program>", READABLE)], time, ended);
    end(program);
    program.exit(TIME_IS_UP);
    program.bind(ended);
    // A caller that is there writes to the pipe; one that is gone, or ends the sandbox, closes it.
    poll(program, &[("<control>", READABLE), ("<host>", READABLE)], Some(GREETING), greeted);
    end(program);
    program.exit(PROGRAM_HAS_ENDED);
    program.bind(greeted);
    poll(program, &[("<control>", 0), ("<host>", READABLE)], Some(LISTING), over);
    program.bind(over);
    end(program);
    program.exit(0);
}

/// Sleeps until one of the first descriptors is ready for its events, or is hung up, and goes on elsewhere then; with the next
/// call when `time` has passed before.
fn poll(program: &mut Program, fds: &[(&str, u64)], time: Option<Duration>, ready: Label) {
    // struct pollfd {int fd; short events, revents}
    let entry = |(fd, (_, events)): (usize, &(&str, u64))| Word::Value(fd as u64 | events << 32);
    let entries: Vec<Word> = fds.iter().enumerate().map(entry).collect();
    let shown: Vec<String> =
        fds.iter().map(|(name, events)| format!("{{{name}, {}}}", if *events == 0 { "0" } else { "POLLIN" })).collect();
    let entries = program.arena.words(&entries, format!("[{}]", shown.join(", ")));
    let timeout = time.map_or(Arg::NULL, |time| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX) as u64;
        let words = [Word::Value(seconds), Word::Value(time.subsec_nanos().into())];
        program.arena.words(&words, format!("{{{}.{:09} s}}", seconds, time.subsec_nanos())).into()
    });
    let again = program.label();
    program.bind(again);
    // The kernel writes the time that is left back, so that an interrupted call goes on with it.
    let poll = [entries.into(), (fds.len() as u64).into(), timeout, Arg::NULL, 8.into()];
    program.call(nr!(SYS_ppoll), poll).or_goto(again).above_zero(ready);
}
