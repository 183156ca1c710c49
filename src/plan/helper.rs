//! The frame of the helper's program: it waits for the init, is confined by the features, and starts the command as
//! a child of the host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::arena::{Ref, Word};
use super::call::{Arg, OnError, Slot, flags, nr};
use super::init::{TIME_IS_UP, keep_alone, wait_for_host};
use super::program::{Input, Program, Step};
use super::report::{EXEC_FAILED, STARTED};

/// An empty program. With `stay` it will watch over the command until the sandbox ends.
pub(crate) fn begin(stay: bool) -> Program {
    let mut helper = Program::new("stockade: helper");
    helper.step(Step::new("resetting signals to their defaults"));
    helper.reset_signals();
    helper.hide();
    if stay {
        helper.input(Input::Control);
        helper.input(Input::Host);
    }
    helper
}

/// Waits until the init has set up the sandbox.
pub(crate) fn wait_for_init(helper: &mut Program) {
    helper.step(Step::new("waiting for the init"));
    let gate = helper.input(Input::GateRead);
    helper.wait_for_byte(gate);
}

/// A descriptor of the command: where it comes from, and its number in the command.
pub(crate) struct Placed {
    pub source: Slot,
    pub number: u32,
}

/// Descriptors that the helper has at most beside the copies that it makes: its inputs and a terminal.
const OTHERS: u32 = 32;

/// The first of a row of numbers that none of the command's descriptors is to have, and that is long enough for a copy
/// of each: the kernel gives a copy the lowest free number from there on.
fn row_for_copies(placed: &[Placed]) -> u32 {
    let row = placed.len() as u32 + OTHERS;
    let mut numbers: Vec<u32> = placed.iter().map(|fd| fd.number).collect();
    numbers.sort_unstable();
    let mut first: u32 = 3;
    for number in numbers {
        if number >= first.saturating_add(row) {
            break;
        }
        first = first.max(number.saturating_add(1));
    }
    first
}

/// Gives the command its descriptors, and nothing else: all others close when it is executed. `pty` is the master of
/// its terminal.
pub(crate) fn place_descriptors(helper: &mut Program, placed: &[Placed], pty: Option<Slot>) {
    helper.step(Step::new("giving the command its descriptors").remedies(&[
        (libc::EBADF, "the number of a descriptor is above RLIMIT_NOFILE; use a lower one"),
        (libc::EINVAL, "the number of a descriptor is above RLIMIT_NOFILE; use a lower one"),
        (libc::EMFILE, "RLIMIT_NOFILE of the host is too low for the command's descriptors"),
    ]));
    let base = row_for_copies(placed);
    let copies: Vec<Slot> = placed
        .iter()
        .map(|fd| {
            helper.fcntl(fd.source, flags!(F_DUPFD_CLOEXEC), base.into()).store(format!("copy for {}", fd.number))
        })
        .collect();
    let kept: Vec<Input> = helper.inputs().filter(|input| input.is_descriptor()).collect();
    for input in kept {
        let slot = helper.input(input);
        helper.fcntl(slot, flags!(F_SETFD), flags!(FD_CLOEXEC));
        if matches!(input, Input::Report | Input::Control | Input::Host) {
            // The helper goes on to need it, and its number may be one of the command's.
            helper.fcntl(slot, flags!(F_DUPFD_CLOEXEC), base.into()).store_in(slot);
        }
    }
    if let Some(master) = pty {
        helper.fcntl(master, flags!(F_DUPFD_CLOEXEC), base.into()).store_in(master);
    }
    for (fd, copy) in placed.iter().zip(copies) {
        helper.dup3(copy, fd.number.into(), Arg::NONE);
    }
}

/// A terminal of the sandbox's own `devpts`: the slots of its master and of its slave.
pub(crate) fn open_pty(helper: &mut Program, rows: u16, columns: u16) -> (Slot, Slot) {
    helper.step(Step::new("opening a terminal").path("/dev/ptmx").remedies(&[
        (libc::ENOENT, "a terminal needs /dev/ptmx inside the sandbox; add Root::dev(\"/dev\")"),
        (libc::ENOSPC, "kernel.pty.max terminals are open already"),
    ]));
    let master = helper.openat(Arg::CWD, "/dev/ptmx", flags!(O_RDWR | O_NOCTTY | O_CLOEXEC), 0);
    let unlocked = helper.arena.bytes(&0i32.to_ne_bytes(), "[0]");
    helper.ioctl(master, flags!(TIOCSPTLCK), unlocked.into());
    let slave = helper.ioctl(master, flags!(TIOCGPTPEER), flags!(O_RDWR | O_NOCTTY | O_CLOEXEC)).store("slave");
    let size: Vec<u8> = [rows, columns, 0, 0].into_iter().flat_map(u16::to_ne_bytes).collect();
    let size = helper.arena.bytes(&size, format!("{{rows = {rows}, columns = {columns}}}"));
    helper.ioctl(master, flags!(TIOCSWINSZ), size.into());
    (master, slave)
}

/// What is executed, and how its process begins.
pub(crate) struct Start<'a> {
    /// Paths to try, in order.
    pub candidates: &'a [PathBuf],
    pub argv: &'a [OsString],
    pub envp: &'a [OsString],
    pub new_session: bool,
    /// The master of the command's terminal, to hand to the host.
    pub pty: Option<Slot>,
    /// No pid namespace ends with the sandbox: the helper stays, and kills the command when the host is gone.
    pub stay: bool,
    /// When a helper that stays ends the command by itself.
    pub last_word: Option<Duration>,
}

/// Starts the command as a child of the host, reports its pid and pidfd, and ends.
///
/// `limit` sets what is the command's alone, and not the helper's.
pub(crate) fn start(helper: &mut Program, start: &Start<'_>, limit: impl FnOnce(&mut Program)) {
    helper.step(Step::new("starting the command").remedies(&[
        (libc::EAGAIN, "the limit on processes is reached (RLIMIT_NPROC, pids.max, kernel.pid_max)"),
        (libc::ENOMEM, "the pid namespace is ending, or memory is short"),
    ]));
    let report = helper.input(Input::Report);
    let message = Message::new(helper, start.pty);
    let parent = helper.label();
    let clone = [
        flags!(CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PIDFD | SIGCHLD),
        Arg::NULL,
        Arg::SlotAddress(message.fds),
        Arg::NULL,
        Arg::NULL,
    ];
    helper.call(nr!(SYS_clone), clone).above_zero(parent).store_in(message.pid);
    in_the_child(helper, start, report, limit);
    helper.bind(parent);
    helper.step(Step::new("reporting the command to the host"));
    let unsent = helper.label();
    if let Some(master) = start.pty {
        // The message was laid out before the number of the master was known, so the master moves to the number in it.
        helper.dup3(master, PTY_NUMBER, flags!(O_CLOEXEC)).or_goto(unsent);
    }
    helper.call(nr!(SYS_sendmsg), [report.into(), message.header.into(), flags!(MSG_NOSIGNAL)]).or_goto(unsent);
    if start.stay {
        watch(helper, &message, start.last_word);
    }
    helper.exit(0);
    // Without its pidfd the host can't have the command; with its pid it can at least reap it.
    helper.bind(unsent);
    helper.call(nr!(SYS_pidfd_send_signal), [message.fds.into(), flags!(SIGKILL), Arg::NULL, Arg::NONE]).ignore();
    helper.write(report, Arg::SlotAddress(message.tag), 16).ignore();
    helper.exit(127);
}

/// The number of a terminal's master when it is sent: the helper has no use for its standard streams any more.
const PTY_NUMBER: u64 = 2;

fn in_the_child(helper: &mut Program, start: &Start<'_>, report: Slot, limit: impl FnOnce(&mut Program)) {
    if start.new_session {
        helper.step(Step::new("making a session"));
        helper.call(nr!(SYS_setsid), []);
    }
    if start.pty.is_some() {
        helper.step(Step::new("making the terminal that of the session"));
        helper.ioctl(0, flags!(TIOCSCTTY), Arg::NONE);
    }
    limit(helper);
    helper.step(Step::new("executing the command"));
    let tag = helper.input(Input::Value(EXEC_FAILED));
    let argv = helper.vector(start.argv);
    let envp = helper.vector(start.envp);
    let results: Vec<Slot> = start.candidates.iter().map(|_| helper.slot("failure")).collect();
    let visible: Vec<Slot> = start.candidates.iter().map(|_| helper.slot("visible")).collect();
    let paths: Vec<Arg> = start.candidates.iter().map(|path| helper.text(path)).collect();
    for (&path, &result) in paths.iter().zip(&results) {
        let next = helper.label();
        helper.call(nr!(SYS_execve), [path, argv.into(), envp.into()]).or_goto(next).store_in(result);
        helper.bind(next);
    }
    for (&path, &seen) in paths.iter().zip(&visible) {
        helper.call(nr!(SYS_faccessat), [Arg::CWD, path, flags!(F_OK)]).ignore().store_in(seen);
    }
    helper.write(report, Arg::SlotAddress(tag), 8 + 16 * results.len());
    helper.exit(127);
}

/// `struct msghdr` with the pid as its data, and the pidfd (and the terminal's master) as passed descriptors.
struct Message {
    header: Ref,
    tag: Slot,
    pid: Slot,
    /// The number of the pidfd, with that of the master in the upper half.
    fds: Slot,
}

impl Message {
    fn new(helper: &mut Program, pty: Option<Slot>) -> Self {
        let tag = helper.input(Input::Value(STARTED));
        let pid = helper.slot("pid");
        let count = 1 + u64::from(pty.is_some());
        // struct cmsghdr {size_t len; int level, type; int fds[]}, in slots that follow one another: the kernel writes
        // the number of the pidfd into the last one when it clones
        let len = helper.input(Input::Value(16 + 4 * count));
        let rights = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
        helper.input(Input::Value(rights));
        let fds = helper.input(Input::Value(PTY_NUMBER << 32));
        let iovec = helper.arena.words(&[Program::slot_word(tag), Word::Value(16)], "{<pid>}");
        let zero = Word::Value(0);
        let control = Program::slot_word(len);
        let header = [zero, zero, iovec.into(), Word::Value(1), control, Word::Value(24), zero];
        let shown = if pty.is_some() { "{<pid>, [<pidfd>, <pty>]}" } else { "{<pid>, [<pidfd>]}" };
        Self { header: helper.arena.words(&header, shown), tag, pid, fds }
    }
}

/// Stays until the host is gone or ends the sandbox, then kills the command and its process group.
fn watch(helper: &mut Program, message: &Message, last_word: Option<Duration>) {
    helper.step(Step::new("waiting for the end of the sandbox"));
    let end = helper.label();
    helper.call(nr!(SYS_setsid), []).ignore();
    let copy = helper.fcntl(message.fds, flags!(F_DUPFD_CLOEXEC), Arg::NONE).ignore().store("pidfd");
    let watched = [Input::Control, Input::Host].map(|input| helper.input(input));
    keep_alone(helper, &[watched[0], watched[1], message.fds], OnError::Goto(end));
    // The copy is open still if the helper could not do what it wanted to wait with.
    let kill = |helper: &mut Program| {
        for pidfd in [message.fds, copy] {
            for whom in [flags!(PIDFD_SIGNAL_PROCESS_GROUP), Arg::NONE] {
                let call = [pidfd.into(), flags!(SIGKILL), Arg::NULL, whom];
                helper.call(nr!(SYS_pidfd_send_signal), call).ignore();
            }
        }
    };
    let over = wait_for_host(helper, last_word);
    kill(helper);
    helper.exit(TIME_IS_UP);
    helper.bind(over);
    helper.bind(end);
    kill(helper);
}
