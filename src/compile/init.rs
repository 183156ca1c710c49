//! Init: PID 1 of a PID namespace that the sandbox creates. It shares the helper's small memory, and sleeps until the
//! sandbox terminates: the caller closes the control pipe or exits, the wall-clock limit is exceeded, or the program
//! has exited. The order of its steps is in `order.rs`.

use std::time::Duration;

use crate::launch::{Remaining, allow_only};
use crate::layer::Layer;
use crate::plan::report::{PROGRAM_EXITED, WALL_TIME_EXCEEDED};
use crate::plan::{Added, Arg, Flag, Input, Label, OnError, Script, Slot, Step, Word, flags, nr};

/// The init process: a clone of the helper, and a child of the caller.
#[derive(Clone, Copy)]
pub(crate) struct Init {
    /// Raised half-way when init has completed the steps before the program's start, and fully when it is confined.
    ready: Flag,
    /// Raised by the helper when the program's process was started.
    started: Flag,
    /// The pidfd of that process, in the descriptor table that init shares with the helper until then. `None` in a session,
    /// which does not end with a program.
    program: Option<Slot>,
    /// Where the helper goes on.
    helper: Label,
}

impl Init {
    /// Starts init. The calls that follow are its own, up to [`Init::back_to_helper`]. It waits for a program unless it is
    /// that of a session.
    pub fn start(helper: &mut Script, is_of_session: bool) -> Self {
        helper.step(Step::new("start init").remedies(&[(
            libc::EAGAIN,
            "a limit on processes is reached (RLIMIT_NPROC, pids.max, kernel.pid_max): raise it",
        )]));
        let (ready, started) = (helper.flag("init is ready"), helper.flag("the program's process was started"));
        let program = (!is_of_session).then(|| helper.slot("pidfd of the program"));
        let init = Self { ready, started, program, helper: helper.label() };
        helper.clear_on_exit(started);
        let how = flags!(CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD);
        // The kernel writes the pid before init runs, so the caller can read it even if the helper is killed.
        helper.clone(how, Arg::SlotAddress(Script::INIT), ready).above_zero(init.helper).store_in(Script::INIT);
        init
    }

    /// In init: reports to the helper that the steps before the program's start are complete, and waits for the
    /// program's process, if there is to be one.
    pub fn wait_for_program(self, process: &mut Script) {
        process.step(Step::new("tell the helper that init has started"));
        process.raise_half(self.ready);
        if self.program.is_none() {
            return;
        }
        process.step(Step::new("wait for the program's process").remedies(&[(
            libc::ETIMEDOUT,
            "the helper was killed from outside: look in the kernel's log for the reason, and spawn again",
        )]));
        process.wait_for(self.started);
        process.fail_if_cleared(self.started);
    }

    /// In init: moves the descriptors that it waits for to the first numbers. The others are closed last.
    pub fn close_descriptors(self, process: &mut Script) {
        process.step(Step::new("close all descriptors that init does not wait for"));
        process.call(nr!(SYS_unshare), [flags!(CLONE_FILES)]);
        // None of them has one of these numbers.
        let watched = [Input::Control, Input::CallerPidfd].map(|input| process.input(input));
        for (number, slot) in watched.into_iter().chain(self.program).enumerate() {
            process.dup3(slot, number as u64, flags!(O_CLOEXEC));
        }
    }

    /// In init: denies itself every call that it does not need, and sleeps until the sandbox terminates.
    pub fn sleep_until_the_end(self, process: &mut Script, wall_backstop: Option<Duration>, filter_is_optional: bool) {
        let calls = [nr!(SYS_close_range), nr!(SYS_gettid), nr!(SYS_futex)].map(Remaining::any);
        let on_error = if filter_is_optional { OnError::Ignore } else { OnError::Fail };
        process.within(Layer::Seccomp, |process| allow_only(process, &calls, on_error));
        // No failure can be reported from here on: the report channel closes before init tells that it is ready, so
        // that the program finds no such descriptor in it. The call cannot fail as unknown, since the stub has made it
        // before.
        let watched = WATCHED - u64::from(self.program.is_none());
        process.call(nr!(SYS_close_range), [watched.into(), u32::MAX.into(), Arg::NONE]).ignore();
        let failed = process.label();
        process.step(Step::new("tell the helper that init is ready"));
        process.raise_or_goto(self.ready, failed);
        // When init exits, the kernel kills every other process of the PID namespace.
        match self.program {
            Some(_) => wait_until_the_end(process, wall_backstop, |_| {}),
            None => wait_for_caller(process),
        }
        process.bind(failed);
        process.exit(127);
    }

    /// Ends the calls of init. The calls that follow are the helper's again.
    pub fn back_to_helper(self, helper: &mut Script) {
        helper.bind(self.helper);
    }

    /// In the helper: waits until init has completed the steps before the program's start. Fails if init has failed,
    /// which init reports itself.
    pub fn wait_started(self, helper: &mut Script) {
        wait_step(helper);
        helper.wait_for(self.ready);
        helper.fail_if_cleared(self.ready);
    }

    /// In the helper: gives init the pidfd of the program's process. If the helper exits from here on, `next` is
    /// cleared.
    pub fn give(self, helper: &mut Script, program: Slot, next: Flag) {
        helper.step(Step::new("pass the pidfd of the program to init"));
        let copy = helper.fcntl(program, flags!(F_DUPFD_CLOEXEC), Arg::NONE);
        if let Some(own) = self.program {
            copy.store_in(own);
        }
        helper.clear_on_exit(next);
        helper.raise(self.started);
    }

    /// In the helper: waits until init is confined, and holds no descriptors but those that it waits for.
    pub fn wait_confined(self, helper: &mut Script) {
        wait_step(helper);
        helper.wait_for_second(self.ready);
        helper.fail_if_cleared(self.ready);
    }
}

fn wait_step(helper: &mut Script) {
    let remedies =
        &[(libc::ETIMEDOUT, "init was killed from outside: look in the kernel's log for the reason, and spawn again")];
    helper.step(Step::new("wait for init").remedies(remedies));
}

/// In init: leaves the session and the process group of the helper, which may be the program's. A program can lower the
/// priority of a whole group.
pub(crate) fn leave_process_group(process: &mut Script) {
    process.step(Step::new("create a session of init"));
    process.call(nr!(SYS_setsid), []);
}

/// In init: has the kernel reap orphans.
pub(crate) fn reap_orphans(process: &mut Script) {
    process.step(Step::new("ignore SIGCHLD, so that orphans are reaped"));
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0].map(Word::Value);
    let ignore = process.arena.words(&ignore, "{SIG_IGN}");
    process.call(nr!(SYS_rt_sigaction), [flags!(SIGCHLD), ignore.into(), Arg::NULL, 8u64.into()]);
}

/// The number of descriptors that init, or a helper that stays, waits for: 0 is the control pipe, which the caller
/// closes to terminate the sandbox; 1 and 2 are pidfds of the caller and of the program.
pub(super) const WATCHED: u64 = 3;

/// The time that a waiting caller has to write to the control pipe once the program has exited.
const CALLER_TIME: Duration = Duration::from_millis(40);
/// The time that the caller then has to list leaked processes.
const LISTING: Duration = Duration::from_secs(1);

/// Sleeps until the sandbox is to terminate, makes the calls of `kill`, and exits.
pub(super) fn wait_until_the_end(process: &mut Script, wall_backstop: Option<Duration>, kill: impl Fn(&mut Script)) {
    const READABLE: u64 = libc::POLLIN as u64;
    process.step(Step::new("wait until the sandbox terminates"));
    let (exited, late, caller_waits, over) = (process.label(), process.label(), process.label(), process.label());
    let all = [("<control>", READABLE), ("<caller>", READABLE), ("<program>", READABLE)];
    poll(process, &all, wall_backstop, exited).or_goto(over);
    kill(process);
    process.exit(WALL_TIME_EXCEEDED);
    process.bind(exited);
    // A caller that waits writes to the pipe. One that has exited, or terminates the sandbox, closes it.
    poll(process, &all[..2], Some(CALLER_TIME), caller_waits).or_goto(late);
    process.bind(late);
    kill(process);
    process.exit(PROGRAM_EXITED);
    process.bind(caller_waits);
    poll(process, &[("<control>", 0), ("<caller>", READABLE)], Some(LISTING), over).or_goto(over);
    process.bind(over);
    kill(process);
    process.exit(0);
}

/// Sleeps until the caller closes the control pipe or exits, and exits.
fn wait_for_caller(process: &mut Script) {
    process.step(Step::new("wait until the session ends"));
    let over = process.label();
    let readable = libc::POLLIN as u64;
    poll(process, &[("<control>", readable), ("<caller>", readable)], None, over).or_goto(over);
    process.bind(over);
    process.exit(0);
}

/// Sleeps until one of the first descriptors is ready for its events or is hung up, and goes on at `ready` then. When
/// `time` has passed before, goes on with the next call.
///
/// It does not sleep again after an error, since a program of the same user can make the call fail every time: it can
/// lower the limit of descriptors (`RLIMIT_NOFILE`), which is also the most that the call accepts. A stop does not
/// interrupt the call, as the process handles no signals.
pub(super) fn poll<'a>(
    process: &'a mut Script,
    fds: &[(&str, u64)],
    time: Option<Duration>,
    ready: Label,
) -> Added<'a> {
    // struct pollfd {int fd; short events, revents}
    let entry = |(fd, (_, events)): (usize, &(&str, u64))| Word::Value(fd as u64 | events << 32);
    let entries: Vec<Word> = fds.iter().enumerate().map(entry).collect();
    let shown: Vec<String> =
        fds.iter().map(|(name, events)| format!("{{{name}, {}}}", if *events == 0 { "0" } else { "POLLIN" })).collect();
    let entries = process.arena.words(&entries, format!("[{}]", shown.join(", ")));
    let timeout = time.map_or(Arg::NULL, |time| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX) as u64;
        let words = [Word::Value(seconds), Word::Value(time.subsec_nanos().into())];
        process.arena.words(&words, format!("{{{}.{:09} s}}", seconds, time.subsec_nanos())).into()
    });
    let poll = [entries.into(), (fds.len() as u64).into(), timeout, Arg::NULL, 8.into()];
    process.call(nr!(SYS_ppoll), poll).above_zero(ready)
}
