//! The frame of the init's program: what comes before the features' calls, and what comes after them.

use super::arena::Word;
use super::call::{Arg, flags, nr};
use super::program::{Input, Program, Step};

/// An empty program that waits until the host has written the id maps.
pub(crate) fn begin() -> Program {
    let mut init = Program::new("stockade: init");
    init.step(Step::new("waiting for the host to write the id maps"));
    let control = init.input(Input::Control);
    let byte = init.arena.buffer(8);
    let go = init.label();
    init.read(control, byte, 1).above_zero(go);
    init.exit(0);
    init.bind(go);
    init
}

/// Keeps the init from being looked into, and lets the kernel reap what is orphaned in its pid namespace.
pub(crate) fn settle(init: &mut Program) {
    init.step(Step::new("preparing the init"));
    init.prctl(flags!(PR_SET_DUMPABLE), 0);
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0].map(Word::Value);
    let ignore = init.arena.words(&ignore, "{SIG_IGN}");
    init.call(nr!(SYS_rt_sigaction), [flags!(SIGCHLD), ignore.into(), Arg::NULL, 8u64.into()]);
}

/// Lets the helper go on, and sleeps until the host closes the control pipe or ends.
pub(crate) fn finish(init: &mut Program) {
    init.step(Step::new("letting the command start"));
    let (gate, report) = (init.input(Input::GateWrite), init.input(Input::Report));
    let byte = init.arena.bytes(b"\x01", "\"\\1\"");
    init.write(gate, byte, 1);
    init.close(gate);
    init.close(report);
    init.step(Step::new("waiting for the end of the sandbox"));
    wait_for_host(init);
    init.exit(0);
}

/// Sleeps until the host closes the control pipe or ends.
pub(crate) fn wait_for_host(program: &mut Program) {
    let (control, host) = (program.input(Input::Control), program.input(Input::Host));
    // The structures were laid out before the numbers of the descriptors were known, so the descriptors move to the
    // numbers in them; first out of each other's way.
    let again = program.label();
    for fd in [control, host] {
        program.fcntl(fd, flags!(F_DUPFD_CLOEXEC), 3.into()).store_in(fd);
    }
    for (fd, number) in [(control, WATCHED.0), (host, WATCHED.1)] {
        program.call(nr!(SYS_dup3), [fd.into(), number.into(), flags!(O_CLOEXEC)]);
    }
    program.call(nr!(SYS_close_range), [2u64.into(), u32::MAX.into(), Arg::NONE]);
    // struct pollfd {int fd; short events, revents}
    let entry = |fd: u64| fd | u64::from(libc::POLLIN as u16) << 32;
    let entries = [Word::Value(entry(WATCHED.0)), Word::Value(entry(WATCHED.1))];
    let entries = program.arena.words(&entries, format!("[{{{}, POLLIN}}, {{{}, POLLIN}}]", WATCHED.0, WATCHED.1));
    program.bind(again);
    program.call(nr!(SYS_ppoll), [entries.into(), 2u64.into(), Arg::NULL, Arg::NULL, 8u64.into()]).or_goto(again);
}

/// Where the control pipe and the pidfd of the host are while they are watched: the standard streams, which neither
/// the init nor a waiting helper has a use for.
const WATCHED: (u64, u64) = (0, 1);
