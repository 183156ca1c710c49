//! The frame of the helper's program: what comes before and after the calls of the features. It starts the command as a
//! child of the host, and sees to it that the command is executed when everything stands.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::arena::{Address, Ref, Word};
use super::call::{Arg, Label, OnError, Slot, flags, nr};
use super::fixed_filter::Remaining;
use super::init::{Confine, Init, WATCHED, wait_for_end};
use super::message::{Rights, header, receive};
use super::place::{OFFSET, SLOTS, SLOTS_LEN};
use super::program::{Input, Program, Step};
use super::report::{EXEC_FAILED, MAPS_WANTED, STARTED};
use super::sync::Flag;
use crate::outcome::Layer;

/// Calls that a program has room for from the start.
const CALLS: usize = 512;

/// A program that has reset what it has inherited.
pub(crate) fn begin() -> Program {
    let mut helper = Program::with_room("stockade: helper", CALLS);
    share_data(&mut helper);
    helper.step(Step::new("leaving the numbers of the standard streams to them"));
    for input in OWN {
        let fd = helper.input(input);
        helper.fcntl(fd, flags!(F_SETFD), flags!(FD_CLOEXEC));
        helper.fcntl(fd, flags!(F_DUPFD_CLOEXEC), 3.into()).store_in(fd);
    }
    for _ in 0..3 {
        // 0, 1 and 2 are taken, so that a descriptor is above 0.
        let report = helper.input(Input::Report);
        helper.fcntl(report, flags!(F_DUPFD_CLOEXEC), Arg::NONE);
    }
    helper
}

/// Shares the slots with the caller, who finds in them which processes were started and which call was begun last,
/// whatever becomes of the processes. Nothing has been written to them before.
fn share_data(helper: &mut Program) {
    helper.step(Step::new("sharing its progress with the caller"));
    let data = helper.input(Input::Data);
    let (access, how) = (flags!(PROT_READ | PROT_WRITE), flags!(MAP_SHARED | MAP_FIXED));
    let map = [SLOTS.into(), SLOTS_LEN.into(), access, how, data.into(), OFFSET.into()];
    helper.call(nr!(SYS_mmap), map).ignore();
    helper.close(data);
}

/// Leaves the process group of the caller: the kernel sends SIGHUP to a whole group in which a process is stopped, once no
/// process of another group waits for it any more (setpgid(2), "orphaned process group"), and a program can stop a process
/// of the set-up where namespaces are joined. Signals of the caller's terminal are not for it either.
pub(crate) fn leave_process_group(helper: &mut Program) {
    helper.step(Step::new("leaving the process group of the caller"));
    helper.call(nr!(SYS_setsid), []);
}

/// What the helper needs to the end.
const OWN: [Input; 3] = [Input::Report, Input::Control, Input::Host];

/// The cgroups of the command, by their indices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Groups {
    pub count: u16,
    /// The one that the command's process can be cloned into.
    pub born_in: Option<u16>,
}

/// What the command's process enters its cgroups by: files in which it writes `0`.
struct Entries {
    /// Of the cgroup that the process can be cloned into, with its directory.
    born_in: Option<(Slot, Slot)>,
    others: Vec<Slot>,
}

impl Groups {
    /// Takes what the host has made while the helper was at work.
    fn receive(self, helper: &mut Program) -> Entries {
        if self.count > 0 {
            let step = Step::new("waiting for the host to make the cgroup");
            helper.step(
                step.remedies(&[(libc::EBADF, "RLIMIT_NOFILE of the host is too low for the cgroup's descriptors")]),
            );
        }
        let mut others: Vec<Slot> = (0..self.count).map(|group| receive(helper, format!("<cgroup {group}>"))).collect();
        let born_in = self.born_in.map(|group| {
            let directory = receive(helper, format!("<directory of cgroup {group}>"));
            (others.remove(group.into()), directory)
        });
        Entries { born_in, others }
    }
}

/// Enters cgroups: the one thread alone, which spares the kernel of v1 a lock.
fn enter_cgroups(process: &mut Program, entries: &[Slot]) {
    process.within(Layer::Cgroup, |process| {
        process.step(Step::new("entering the cgroup").remedies(&[
            (libc::EAGAIN, "the group above is at its limit of processes (pids.max)"),
            (
                libc::ENOSPC,
                "cpuset.cpus or cpuset.mems of the group above is empty, as in a new one of v1: write both there",
            ),
            (libc::EBUSY, "a cgroup of v2 that gives controllers on can't have processes of its own"),
            (libc::EACCES, "this user may not move processes there: it must own the nearest cgroup above both"),
            (libc::ENODEV, "another user has removed the cgroup: name a parent that belongs to this user alone (CgroupParent::Path)"),
        ]));
        for &entry in entries {
            let own = process.arena.bytes(b"0", "\"0\"");
            process.write(entry, own, 1);
        }
    });
}

/// Lets the command's process see nothing above the cgroups that it is in.
pub(crate) fn make_cgroup_namespace(process: &mut Program) {
    process.step(Step::new("making a cgroup namespace"));
    process.call(nr!(SYS_unshare), [flags!(CLONE_NEWCGROUP)]);
}

/// Has the host write the id maps.
pub(crate) fn ask_for_maps(helper: &mut Program) {
    helper.step(Step::new("waiting for the host to write the id maps"));
    let wanted = helper.value("maps wanted", MAPS_WANTED);
    let report = helper.input(Input::Report);
    helper.write(report, Arg::SlotAddress(wanted), 8);
    let control = helper.input(Input::Control);
    helper.wait_for_byte(control);
}

/// A descriptor of the command: where it comes from, and its number in the command.
pub(crate) struct Placed {
    pub source: Slot,
    pub number: u32,
}

/// The first of a row of numbers that none of the command's descriptors is to have, and that is long enough for a copy
/// of each, and for what the helper has beside them, `others` at most: the kernel gives a copy the lowest free number
/// from there on.
fn row_for_copies(placed: &[Placed], others: u32) -> u32 {
    let row = (placed.len() as u32).saturating_add(others);
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
    let base = row_for_copies(placed, helper.open_descriptors());
    let copies: Vec<Slot> = placed
        .iter()
        .map(|fd| {
            helper.fcntl(fd.source, flags!(F_DUPFD_CLOEXEC), base.into()).store(format!("copy for {}", fd.number))
        })
        .collect();
    let is_inherited = |input: &Input| input.is_descriptor() && !OWN.contains(input) && *input != Input::Data;
    let inherited: Vec<Input> = helper.inputs().filter(is_inherited).collect();
    for input in inherited {
        let slot = helper.input(input);
        helper.fcntl(slot, flags!(F_SETFD), flags!(FD_CLOEXEC));
    }
    // The number may be one of the command's.
    let own = OWN.map(|input| helper.input(input));
    for &slot in own.iter().chain(&pty) {
        helper.fcntl(slot, flags!(F_DUPFD_CLOEXEC), base.into()).store_in(slot);
    }
    for (fd, copy) in placed.iter().zip(copies) {
        helper.dup3(copy, fd.number.into(), Arg::NONE);
    }
}

/// A terminal of the sandbox's own `devpts`: the slots of its master and of its slave.
pub(crate) fn open_pty(helper: &mut Program, rows: u16, columns: u16) -> (Slot, Slot) {
    helper.step(Step::new("opening a terminal").path("/dev/ptmx").remedies(&[
        (
            libc::ENOENT,
            "the sandbox has no /dev/ptmx; add Root::dev(\"/dev\"), or Root::terminals where the root is joined",
        ),
        (libc::ENOSPC, "all terminals that this machine allows are in use: close some, or raise kernel.pty.max"),
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
    /// No pid namespace ends with the sandbox: the helper stays, and kills the command when the host is gone.
    pub stay: bool,
    /// The init of the pid namespace that ends with the sandbox.
    pub init: Option<Init>,
    /// The master of the command's terminal, to hand to the host.
    pub pty: Option<Slot>,
    /// When a helper that stays ends the command by itself.
    pub last_word: Option<Duration>,
    pub groups: Groups,
}

/// A command whose process was started, and waits until it may go on.
pub(crate) struct Waiting {
    message: Message,
    go: Flag,
    executed: Flag,
}

/// Starts the process of the command, as a child of the host.
///
/// It is confined by `confine` at once; what `enter` does comes when everything stands.
pub(crate) fn start(
    helper: &mut Program,
    start: &Start<'_>,
    confine: impl FnOnce(&mut Program),
    enter: impl FnOnce(&mut Program),
) -> Waiting {
    let entries = helper.within(Layer::Cgroup, |helper| start.groups.receive(helper));
    helper.step(Step::new("starting the command").remedies(&[
        (libc::EAGAIN, "the limit on processes is reached (RLIMIT_NPROC, pids.max, kernel.pid_max)"),
        (libc::ENOMEM, "the init was killed from outside, or memory is short"),
    ]));
    let message = Message::new(helper, start);
    let (go, executed) = (helper.flag("the command may go on"), helper.flag("the command is there"));
    if start.init.is_none() {
        helper.tell_of_end(go);
    }
    helper.call(nr!(SYS_clock_gettime), [flags!(CLOCK_REALTIME), Arg::SlotAddress(message.time)]);
    let parent = helper.label();
    clone_command(helper, executed, &entries, parent);
    leave_processor(helper);
    confine(helper);
    if start.new_session {
        helper.step(Step::new("making a session"));
        helper.call(nr!(SYS_setsid), []);
    }
    if start.pty.is_some() {
        helper.step(Step::new("making the terminal that of the session"));
        helper.ioctl(0, flags!(TIOCSCTTY), Arg::NONE);
    }
    helper
        .step(Step::new("waiting for the helper").remedies(&[(libc::ETIMEDOUT, "the helper was killed from outside")]));
    helper.wait_for(go);
    helper.need_raised(go);
    enter(helper);
    execute(helper, start);
    helper.drop_pass();
    helper.bind(parent);
    helper.step(Step::new("opening a pidfd of the command's process"));
    helper.call(nr!(SYS_pidfd_open), [Program::COMMAND.into(), 0.into()]).store_in(message.fds);
    if let Some(init) = start.init {
        init.give(helper, message.fds, go);
    }
    Waiting { message, go, executed }
}

/// Clones the command's process, which is in its cgroups then; the helper goes on at `parent`.
fn clone_command(helper: &mut Program, executed: Flag, entries: &Entries, parent: Label) {
    let (elsewhere, inside) = (helper.label(), helper.label());
    if let Some((_, directory)) = entries.born_in {
        let args = clone_args(helper, executed, directory);
        let size = (8 * CLONE_ARGS).into();
        // Refused where this user does not own what is above both cgroups, or by a filter that can't see into it.
        let cloned = helper.call(nr!(SYS_clone3), [Arg::SlotAddress(args), size]).or_goto(elsewhere);
        cloned.above_zero(parent).store_in(Program::COMMAND);
        helper.jump(inside);
        helper.bind(elsewhere);
    }
    // The kernel writes the pid before the process runs: the caller knows of it, whatever becomes of the helper.
    let how = flags!(CLONE_VM | CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD);
    helper.clone(how, Arg::SlotAddress(Program::COMMAND), executed).above_zero(parent).store_in(Program::COMMAND);
    if let Some((file, _)) = entries.born_in {
        enter_cgroups(helper, &[file]);
        helper.bind(inside);
    }
    if !entries.others.is_empty() {
        enter_cgroups(helper, &entries.others);
    }
}

/// Words of `struct clone_args` (clone(2), since Linux 5.7 with the cgroup).
const CLONE_ARGS: u64 = 11;

/// A `struct clone_args` in slots that follow one another: the first of them.
fn clone_args(helper: &mut Program, executed: Flag, directory: Slot) -> Slot {
    let flags = libc::CLONE_VM | libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID;
    let first = helper.value("clone_args", flags as u64 | CLONE_INTO_CGROUP);
    helper.value("pidfd", 0);
    executed.pointer(helper);
    helper.pointer("&pid", Program::COMMAND);
    // With CLONE_PARENT it is that of the helper, and 0 here.
    helper.value("exit_signal", 0);
    for name in ["stack", "stack_size", "tls", "set_tid", "set_tid_size"] {
        helper.value(name, 0);
    }
    helper.fcntl(directory, flags!(F_DUPFD_CLOEXEC), Arg::NONE).store("cgroup");
    first
}

/// clone3(2); beyond what `libc` has it as.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Lets the command go on, reports its pid and pidfd when it is executed, and ends; or, if no pid namespace ends with the
/// sandbox, stays without any right, which `confine` takes.
pub(crate) fn finish(
    helper: &mut Program,
    start: &Start<'_>,
    command: &Waiting,
    confine: Confine<impl FnOnce(&mut Program)>,
) {
    let Waiting { message, go, executed } = command;
    if start.stay && !confine.filter_is_optional {
        helper.within(Layer::Seccomp, Program::check_filters);
    }
    // The command may keep the processor to itself.
    leave_processor(helper);
    if let Some(init) = start.init {
        init.wait_confined(helper);
    }
    helper.step(Step::new("letting the command be executed"));
    helper.raise(*go);
    helper.wait_for(*executed);
    helper.step(Step::new("reporting the command to the host"));
    let report = helper.input(Input::Report);
    let unsent = helper.label();
    if let Some(master) = start.pty {
        // The message was laid out before the number of the master was known, so the master moves to the number in it.
        helper.dup3(master, PTY_NUMBER, flags!(O_CLOEXEC)).or_goto(unsent);
    }
    helper.call(nr!(SYS_sendmsg), [report.into(), message.header.into(), flags!(MSG_NOSIGNAL)]).or_goto(unsent);
    if start.stay {
        helper.reset_signals();
        (confine.rights)(helper);
        watch(helper, message, start.last_word, confine.filter_is_optional);
    }
    helper.exit(0);
    // Without its pidfd the host can't have the command; with its pid it can at least reap it.
    helper.bind(unsent);
    kill(helper, message.fds);
    helper.call(nr!(SYS_writev), [report.into(), message.data.into(), PIECES.into()]).ignore();
    helper.exit(127);
}

/// The number of a terminal's master when it is sent: the helper has no use for its standard streams any more.
const PTY_NUMBER: u64 = 0;

/// Executes the first candidate that can be; tells of each why it can't.
fn execute(helper: &mut Program, start: &Start<'_>) {
    helper.step(Step::new("executing the command"));
    let report = helper.input(Input::Report);
    let tag = helper.value("not executed", EXEC_FAILED);
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

/// Words of a mask of processors.
pub(crate) const MASK: usize = 16;

/// The set-up is kept on one processor; from here on the process may use those that the host may.
fn leave_processor(helper: &mut Program) {
    helper.step(Step::new("using every processor again that the host may use"));
    let words: [Word; MASK] = std::array::from_fn(|index| Word::Address(Address::Input(Input::Affinity(index as u8))));
    let mask = helper.arena.words(&words, "<processors>");
    let unchanged = helper.label();
    // EINVAL: there are none, and the set-up was not kept on one. EPERM: nor could it be, under the same seccomp filter.
    let set = [Arg::NONE, (8 * MASK as u64).into(), mask.into()];
    helper.call(nr!(SYS_sched_setaffinity), set).on_error(OnError::goto_if([libc::EINVAL, libc::EPERM], unchanged));
    helper.bind(unchanged);
}

/// `struct msghdr` with the pids of the init and of the command and the time as its data, and the command's pidfd and the terminal's
/// master as passed descriptors.
struct Message {
    header: Ref,
    /// The pieces of the data, as `struct iovec`.
    data: Ref,
    /// `struct timespec` of when its process was started, in two slots.
    time: Slot,
    /// The number of the command's pidfd, with that of the master in the upper half.
    fds: Slot,
}

/// Pieces of the data of a message.
const PIECES: u64 = 3;

impl Message {
    fn new(helper: &mut Program, start: &Start<'_>) -> Self {
        let tag = helper.value("started", STARTED);
        let count = 1 + u64::from(start.pty.is_some());
        // The number of the pidfd comes into the lower half.
        let rights = Rights::new(helper, count, "pidfd", PTY_NUMBER << 32);
        let time = helper.value("seconds", 0);
        helper.value("nanoseconds", 0);
        let pieces: [_; PIECES as usize] = [(tag, 8), (Program::INIT, 16), (time, 16)];
        let pieces = pieces.map(|(slot, len)| [Program::slot_word(slot), Word::Value(len)]);
        let data = helper.arena.words(pieces.as_flattened(), "{<pid of the init>, <pid>, <time>}");
        let passed = if start.pty.is_some() { "<pidfd>, <pty>" } else { "<pidfd>" };
        let shown = format!("{{<pid of the init>, <pid>, <time>, [{passed}]}}");
        Self { header: header(helper, data, PIECES, &rights, shown), data, time, fds: rights.fds }
    }
}

/// Kills the command and its process group: it may run already, and have started others.
fn kill(helper: &mut Program, pidfd: Slot) {
    for whom in [flags!(PIDFD_SIGNAL_PROCESS_GROUP), Arg::NONE] {
        helper.call(nr!(SYS_pidfd_send_signal), [pidfd.into(), flags!(SIGKILL), Arg::NULL, whom]).ignore();
    }
}

/// Stays until the sandbox is to end, then kills the command and its process group.
fn watch(helper: &mut Program, message: &Message, last_word: Option<Duration>, filter_is_optional: bool) {
    helper.step(Step::new("leaving the session of the caller, and closing what the helper does not wait for"));
    let failed = helper.label();
    helper.call(nr!(SYS_setsid), []).ignore();
    let copy = helper.fcntl(message.fds, flags!(F_DUPFD_CLOEXEC), Arg::NONE).ignore().store("pidfd");
    let [control, host] = [Input::Control, Input::Host].map(|input| helper.input(input));
    keep_alone(helper, [control, host, message.fds], failed);
    // It signals the program, whose pidfd is the third one, and not the caller, whose pidfd it has too.
    let signal = Remaining::with_first(nr!(SYS_pidfd_send_signal), WATCHED as u32 - 1);
    let on_error = if filter_is_optional { OnError::Ignore } else { OnError::Goto(failed) };
    helper.within(Layer::Seccomp, |helper| helper.allow_only(&[signal], on_error));
    wait_for_end(helper, last_word, |helper| kill(helper, message.fds));
    helper.bind(failed);
    // The copy is open still if the helper could not do what it wanted to wait with.
    kill(helper, message.fds);
    kill(helper, copy);
}

/// Moves `fds` to the numbers from 0 on, in order, and closes all others; goes on elsewhere when that fails.
fn keep_alone(helper: &mut Program, fds: [Slot; WATCHED as usize], failed: Label) {
    // First out of each other's way.
    for fd in fds {
        helper.fcntl(fd, flags!(F_DUPFD_CLOEXEC), WATCHED.into()).or_goto(failed).store_in(fd);
    }
    for (number, fd) in fds.into_iter().enumerate() {
        helper.dup3(fd, number as u64, flags!(O_CLOEXEC)).or_goto(failed).store_in(fd);
    }
    helper.call(nr!(SYS_close_range), [WATCHED.into(), u32::MAX.into(), Arg::NONE]).or_goto(failed);
}
