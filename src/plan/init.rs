//! The frame of the init's program: what comes before the features' calls, and what comes after them.

use std::time::Duration;

use super::arena::Word;
use super::call::{Arg, Label, OnError, Slot, flags, nr};
use super::program::{Input, Program, Step};

/// An empty program that waits until the host has written the id maps.
pub(crate) fn begin() -> Program {
    let mut init = Program::new("stockade: init");
    init.step(Step::new("waiting for the host to write the id maps"));
    let control = init.input(Input::Control);
    init.wait_for_byte(control);
    init.hide();
    init.step(Step::new("letting the kernel reap what is orphaned in the pid namespace"));
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0].map(Word::Value);
    let ignore = init.arena.words(&ignore, "{SIG_IGN}");
    init.call(nr!(SYS_rt_sigaction), [flags!(SIGCHLD), ignore.into(), Arg::NULL, 8u64.into()]);
    init.step(Step::new("leaving the session and the standard streams of the host"));
    init.call(nr!(SYS_setsid), []).ignore();
    for _ in 0..3 {
        // 0, 1 and 2 are taken, so that a descriptor is above 0.
        init.fcntl(control, flags!(F_DUPFD_CLOEXEC), Arg::NONE);
    }
    init
}

/// Lets the helper go on, and sleeps until the host closes the control pipe or ends, or until `time` has passed.
pub(crate) fn finish(init: &mut Program, time: Option<Duration>) {
    init.step(Step::new("closing everything else"));
    let watched = [Input::Control, Input::Host].map(|input| init.input(input));
    let (gate, report) = (init.input(Input::GateWrite), init.input(Input::Report));
    keep_alone(init, &[watched[0], watched[1], gate, report], OnError::Fail);
    init.step(Step::new("letting the command start"));
    let byte = init.arena.bytes(b"\x01", "\"\\1\"");
    init.write(gate, byte, 1);
    init.call(nr!(SYS_close_range), [2.into(), 3.into(), Arg::NONE]).ignore();
    init.step(Step::new("waiting for the end of the sandbox"));
    let over = wait_for_host(init, time);
    init.exit(TIME_IS_UP);
    init.bind(over);
    init.exit(0);
}

/// The exit status of a process that has ended the sandbox because the time was up.
pub(crate) const TIME_IS_UP: i32 = 3;

/// Moves `fds` to the numbers from 0 on, in order, and closes all others.
pub(super) fn keep_alone(program: &mut Program, fds: &[Slot], on_error: OnError) {
    // First out of each other's way.
    for &fd in fds {
        program.fcntl(fd, flags!(F_DUPFD_CLOEXEC), (fds.len() as u64).into()).on_error(on_error).store_in(fd);
    }
    for (number, &fd) in fds.iter().enumerate() {
        program.dup3(fd, number as u64, flags!(O_CLOEXEC)).on_error(on_error).store_in(fd);
    }
    program.call(nr!(SYS_close_range), [(fds.len() as u64).into(), u32::MAX.into(), Arg::NONE]).on_error(on_error);
}

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
