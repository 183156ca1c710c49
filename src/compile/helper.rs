//! The steps of the helper and of the program's process that belong to no file of `confine`: starting and ending the
//! set-up, entering the cgroup, and what the processes tell one another. The order of the steps is in `order.rs`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::init::{Init, WATCHED, wait_until_the_end};
use crate::advice::Need;
use crate::cgroup::ViewMount;
use crate::launch::{Remaining, allow_only};
use crate::layer::Layer;
use crate::plan::memory_map::{SLOTS, SLOTS_LEN, offset};
use crate::plan::message::{Rights, header, receive};
use crate::plan::report::{EXEC_FAILED, MAPS_WANTED, STARTED};
use crate::plan::{
    AFFINITY_WORDS, Address, Arg, Attributes, Flag, Input, Label, OnError, Ref, Script, Slot, Step, Word, flags, nr,
};

/// Calls that a script has room for from the start.
const CALLS: usize = 512;

/// Begins the script of the helper.
pub(crate) fn begin() -> Script {
    let mut helper = Script::with_room("stockade: helper", CALLS);
    share_data(&mut helper);
    helper.step(Step::new("move descriptors away from 0, 1 and 2"));
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

/// Shares the slots with the caller. They hold the pids of the processes that were started, and the call that was begun
/// last, so the caller can read them even if the processes are killed. Nothing has been written to them before.
fn share_data(helper: &mut Script) {
    helper.step(Step::new("map the memory that tells the caller the progress"));
    let data = helper.input(Input::Data);
    let (access, how) = (flags!(PROT_READ | PROT_WRITE), flags!(MAP_SHARED | MAP_FIXED));
    let map = [SLOTS.into(), SLOTS_LEN.into(), access, how, data.into(), offset().into()];
    helper.call(nr!(SYS_mmap), map).ignore();
    helper.close(data);
}

/// Leaves the process group of the caller, and so receives no signals of its terminal.
///
/// The kernel sends SIGHUP to a whole group that has a stopped process, once no process of another group waits for it
/// (setpgid(2), "orphaned process group"). A program can stop a set-up process where namespaces are joined.
pub(crate) fn leave_process_group(helper: &mut Script) {
    helper.step(Step::new("leave the caller's process group"));
    helper.call(nr!(SYS_setsid), []);
}

/// The descriptors that the helper needs until it exits.
pub(super) const OWN: [Input; 3] = [Input::Report, Input::Control, Input::CallerPidfd];

/// The cgroups of the program, by their indices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Groups {
    pub count: u16,
    /// The cgroup that the program's process can be cloned into.
    pub born_in: Option<u16>,
}

/// The files by which the program's process enters its cgroups: it writes `0` to each.
pub(crate) struct CgroupEntries {
    /// The file of the cgroup that the process can be cloned into, and the directory of that cgroup.
    born_in: Option<(Slot, Slot)>,
    others: Vec<Slot>,
}

impl Groups {
    /// Receives the files of the cgroups, which the caller has created while the helper was at work.
    pub fn receive(self, helper: &mut Script) -> CgroupEntries {
        if self.count > 0 {
            let step = Step::new("wait for the caller to create the cgroup");
            helper.step(step.remedies(&[(
                libc::EBADF,
                "the caller's RLIMIT_NOFILE is too low for the cgroup's descriptors: raise it",
            )]));
        }
        let mut others: Vec<Slot> = (0..self.count).map(|group| receive(helper, format!("<cgroup {group}>"))).collect();
        let born_in = self.born_in.map(|group| {
            let directory = receive(helper, format!("<directory of cgroup {group}>"));
            (others.remove(group.into()), directory)
        });
        CgroupEntries { born_in, others }
    }
}

impl CgroupEntries {
    /// Enters all of them.
    pub fn enter(&self, process: &mut Script) {
        let born_in = self.born_in.map(|(file, _)| file);
        let entries: Vec<Slot> = born_in.into_iter().chain(self.others.iter().copied()).collect();
        enter_cgroups(process, &entries);
    }
}

/// Enters cgroups. By the number 0 only this thread is moved, for which cgroup v1 takes one lock less.
pub(super) fn enter_cgroups(process: &mut Script, entries: &[Slot]) {
    process.within(Layer::Cgroup, |process| {
        process.step(Step::new("enter the cgroup").remedies(&[
            (libc::EAGAIN, "the limit on processes of the parent cgroup (pids.max) is reached: raise it"),
            (
                libc::ENOSPC,
                "cpuset.cpus or cpuset.mems of the parent cgroup is empty, as in a new one of v1: write to both",
            ),
            (
                libc::EBUSY,
                "a cgroup of v2 that enables controllers for its children cannot have processes of its own: choose a parent \
                 without processes of its own (CgroupParent::Path), or CgroupParent::Auto",
            ),
            (
                libc::EACCES,
                "this user may not move processes there: choose a parent in the caller's delegated subtree \
                 (CgroupParent::Path), or use CgroupParent::SystemdScope",
            ),
            (libc::ENODEV, "another user has removed the cgroup: name a parent that belongs to this user only (CgroupParent::Path)"),
        ]));
        for &entry in entries {
            let own = process.arena.bytes(b"0", "\"0\"");
            process.write(entry, own, 1);
        }
    });
}

/// Creates a cgroup namespace, whose root is the cgroup that the process is in.
pub(crate) fn create_cgroup_namespace(process: &mut Script) {
    process.step(Step::new("create a cgroup namespace").needs(Need::Namespaces(libc::CLONE_NEWCGROUP as u64)));
    process.call(nr!(SYS_unshare), [flags!(CLONE_NEWCGROUP)]);
}

/// The place of the mounts by which the program sees its cgroups.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Returns the mount point of a view.
pub(super) fn place_of(view: &ViewMount) -> PathBuf {
    match view.place.as_str() {
        "" => CGROUPS.into(),
        place => Path::new(CGROUPS).join(place),
    }
}

/// In a new cgroup namespace: mounts the cgroups that the process is in, read-only. A mount shows the root of the
/// namespace of the process that creates it.
pub(crate) fn show_cgroups(process: &mut Script, view: &[ViewMount]) {
    for mount in view {
        let place = place_of(mount);
        process.step(Step::new("mount a view of the cgroup on").path(&place).remedies(&[
            (libc::EPERM, "this host denies mounts of cgroups in a namespace: add Cgroup::hidden"),
            (libc::EBUSY, "the hierarchy was mounted with other controllers in the meantime: spawn again"),
        ]));
        let options: Vec<_> = mount.controllers.iter().map(|controller| (controller.as_str(), None)).collect();
        let attributes = Attributes::RDONLY | Attributes::SAFE | Attributes::NOEXEC;
        let tree = process.file_system(mount.kind, &options, attributes);
        process.move_mount_to(tree, Arg::CWD, &place);
        process.close(tree);
    }
}

/// Has the caller write the ID maps.
pub(crate) fn request_maps(helper: &mut Script) {
    helper.step(Step::new("wait for the caller to write the ID maps"));
    let wanted = helper.value("maps wanted", MAPS_WANTED);
    let report = helper.input(Input::Report);
    helper.write(report, Arg::SlotAddress(wanted), 8);
    let control = helper.input(Input::Control);
    helper.wait_for_byte(control);
}

/// A descriptor of the program: its source in the helper, and its number in the program.
pub(crate) struct Placed {
    pub source: Slot,
    pub number: u32,
}

/// The first number of a range that has none of the program's descriptors, with room for a copy of each and for
/// `others` descriptors of the helper. A copy gets the lowest free number from there on.
fn range_for_copies(placed: &[Placed], others: u32) -> u32 {
    let len = (placed.len() as u32).saturating_add(others);
    let mut numbers: Vec<u32> = placed.iter().map(|fd| fd.number).collect();
    numbers.sort_unstable();
    let mut first: u32 = 3;
    for number in numbers {
        if number >= first.saturating_add(len) {
            break;
        }
        first = first.max(number.saturating_add(1));
    }
    first
}

/// Moves the program's descriptors to their numbers. All others close when the program is executed. `own` and `kept` are
/// those that later calls need until then.
pub(crate) fn place_descriptors(helper: &mut Script, placed: &[Placed], own: &[Input], kept: &[Slot]) {
    helper.step(Step::new("set up the program's descriptors").remedies(&[
        (libc::EBADF, "the number of a descriptor is above RLIMIT_NOFILE: use a lower one"),
        (libc::EINVAL, "the number of a descriptor is above RLIMIT_NOFILE: use a lower one"),
        (libc::EMFILE, "the caller's RLIMIT_NOFILE is too low for the program's descriptors: raise it"),
    ]));
    let base = range_for_copies(placed, helper.open_descriptors());
    let copies: Vec<Slot> = placed
        .iter()
        .map(|fd| {
            helper.fcntl(fd.source, flags!(F_DUPFD_CLOEXEC), base.into()).store(format!("copy for {}", fd.number))
        })
        .collect();
    let is_inherited = |input: &Input| input.is_descriptor() && !own.contains(input) && *input != Input::Data;
    let inherited: Vec<Input> = helper.inputs().filter(is_inherited).collect();
    for input in inherited {
        let slot = helper.input(input);
        helper.fcntl(slot, flags!(F_SETFD), flags!(FD_CLOEXEC));
    }
    // Its number may be one of the program's.
    let own: Vec<Slot> = own.iter().map(|&input| helper.input(input)).collect();
    for &slot in own.iter().chain(kept) {
        helper.fcntl(slot, flags!(F_DUPFD_CLOEXEC), base.into()).store_in(slot);
    }
    for (fd, copy) in placed.iter().zip(copies) {
        helper.dup3(copy, fd.number.into(), Arg::NONE);
    }
}

/// Opens a pseudo-terminal of the sandbox's own `devpts`. Returns the slots of its master and of its slave.
pub(crate) fn open_pty(helper: &mut Script, rows: u16, columns: u16) -> (Slot, Slot) {
    helper.step(Step::new("open a pseudo-terminal").path("/dev/ptmx").remedies(&[
        (
            libc::ENOENT,
            "the sandbox has no /dev/ptmx: add Root::dev(\"/dev\"), or Root::terminals if the mount namespace is joined",
        ),
        (
            libc::ENOSPC,
            "close some terminals: a session has room for 16, and all sandboxes of this machine for kernel.pty.max",
        ),
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

/// The program's process: a clone of the helper, and a child of the caller. It waits until the helper lets it execute
/// the program.
pub(crate) struct ProgramProcess {
    message: StartedMessage,
    /// The pidfd of init, which is sent to the caller.
    init: Option<Slot>,
    /// The master of its pseudo-terminal, which is sent to the caller.
    pty: Option<Slot>,
    /// Raised by the helper: the program may be executed.
    go: Flag,
    /// Cleared by the kernel: the program was executed, or the process has exited.
    executed: Flag,
    /// Where the helper goes on.
    helper: Label,
    /// Where the helper goes on if it cannot report the start.
    unreported: Label,
}

impl ProgramProcess {
    /// Starts the process. The calls that follow are its own, up to [`ProgramProcess::back_to_helper`].
    pub fn start(helper: &mut Script, groups: Groups, init: Option<Init>, pty: Option<Slot>) -> Self {
        let entries = helper.within(Layer::Cgroup, |helper| groups.receive(helper));
        helper.step(Step::new("start the program's process").remedies(&[
            (libc::EAGAIN, "a limit on processes is reached (RLIMIT_NPROC, pids.max, kernel.pid_max): raise it"),
            (
                libc::ENOMEM,
                "init was killed from outside, or memory is short: look in the kernel's log for the reason, and spawn \
                 again",
            ),
        ]));
        let init = init.map(|_| helper.slot("pidfd of init"));
        let message = StartedMessage::new(helper, init.is_some(), pty.is_some());
        let (go, executed) = (helper.flag("the program may be executed"), helper.flag("the program is executed"));
        if init.is_none() {
            helper.clear_on_exit(go);
        }
        helper.call(nr!(SYS_clock_gettime), [flags!(CLOCK_REALTIME), Arg::SlotAddress(message.time)]);
        let program = Self { message, init, pty, go, executed, helper: helper.label(), unreported: helper.label() };
        clone_program(helper, executed, &entries, program.helper);
        program
    }

    /// Waits until the helper has set up everything else.
    pub fn wait_for_helper(&self, process: &mut Script) {
        process.step(Step::new("wait for the helper").remedies(&[(
            libc::ETIMEDOUT,
            "the helper was killed from outside: look in the kernel's log for the reason, and spawn again",
        )]));
        process.wait_for(self.go);
        process.fail_if_cleared(self.go);
    }

    /// Ends the calls of the program's process. The calls that follow are the helper's again.
    pub fn back_to_helper(&self, helper: &mut Script, init: Option<Init>) {
        helper.drop_pass();
        helper.bind(self.helper);
        helper.step(Step::new("open a pidfd of the program's process"));
        helper.call(nr!(SYS_pidfd_open), [Script::COMMAND.into(), 0.into()]).store_in(self.message.program);
        if let (Some(init), Some(pidfd)) = (init, self.init) {
            // The caller does not open it: init may have been reaped by then, and its PID reused.
            helper.call(nr!(SYS_pidfd_open), [Script::INIT.into(), 0.into()]).store_in(pidfd);
            init.give(helper, self.message.program, self.go);
        }
    }

    /// Lets the program be executed, and sends its pid and pidfd to the caller.
    pub fn execute_and_report(&self, helper: &mut Script) {
        helper.step(Step::new("allow the program to be executed"));
        helper.raise(self.go);
        helper.wait_for(self.executed);
        helper.step(Step::new("report the start to the caller"));
        let report = helper.input(Input::Report);
        // The message was laid out before the numbers of these descriptors were known, so they move to those in it.
        for (fd, number) in self.init.into_iter().chain(self.pty).zip(0u64..) {
            helper.dup3(fd, number, flags!(O_CLOEXEC)).or_goto(self.unreported);
        }
        let message = [report.into(), self.message.header.into(), flags!(MSG_NOSIGNAL)];
        helper.call(nr!(SYS_sendmsg), message).or_goto(self.unreported);
    }

    /// Exits. If the start could not be reported, the program is killed.
    pub fn exit(&self, helper: &mut Script) {
        helper.exit(0);
        // The caller needs the pidfd to supervise the program. With the pid it can at least reap it.
        helper.bind(self.unreported);
        kill(helper, self.message.program);
        let report = helper.input(Input::Report);
        helper.call(nr!(SYS_writev), [report.into(), self.message.data.into(), PIECES.into()]).ignore();
        helper.exit(127);
    }

    /// Waits until the sandbox is to terminate, then kills the program and its process group. Without a PID namespace,
    /// the helper does this instead of init.
    pub fn watch(&self, helper: &mut Script, wall_backstop: Option<Duration>, filter_is_optional: bool) {
        let pidfd = self.message.program;
        helper.step(Step::new("leave the caller's session and close all other descriptors"));
        let failed = helper.label();
        helper.call(nr!(SYS_setsid), []).ignore();
        let copy = helper.fcntl(pidfd, flags!(F_DUPFD_CLOEXEC), Arg::NONE).ignore().store("pidfd");
        let [control, caller] = [Input::Control, Input::CallerPidfd].map(|input| helper.input(input));
        keep_only(helper, [control, caller, pidfd], OnError::Goto(failed));
        // It may signal the program, whose pidfd is the third descriptor, and not the caller, whose pidfd it has too.
        let signal = Remaining::with_first(nr!(SYS_pidfd_send_signal), WATCHED as u32 - 1);
        let on_error = if filter_is_optional { OnError::Ignore } else { OnError::Goto(failed) };
        helper.within(Layer::Seccomp, |helper| allow_only(helper, &[signal], on_error));
        wait_until_the_end(helper, wall_backstop, |helper| kill(helper, pidfd));
        helper.bind(failed);
        // The copy is still open if the descriptors could not be moved.
        kill(helper, pidfd);
        kill(helper, copy);
    }
}

/// Creates a session, which has no controlling terminal.
pub(crate) fn create_session(process: &mut Script) {
    process.step(Step::new("create a session"));
    process.call(nr!(SYS_setsid), []);
}

/// Makes standard input the controlling terminal of the session.
pub(crate) fn set_controlling_terminal(process: &mut Script) {
    process.step(Step::new("set the controlling terminal"));
    process.ioctl(0, flags!(TIOCSCTTY), Arg::NONE);
}

/// Clones the program's process and puts it into its cgroups. The helper goes on at `parent`.
fn clone_program(helper: &mut Script, executed: Flag, entries: &CgroupEntries, parent: Label) {
    let (elsewhere, inside) = (helper.label(), helper.label());
    if let Some((_, directory)) = entries.born_in {
        let args = clone_args(helper, executed, directory);
        let size = (8 * CLONE_ARGS).into();
        // It fails if this user does not own the nearest cgroup above both, or if a filter denies clone3 because it
        // cannot read its arguments. The process then enters the cgroup itself.
        let cloned = helper.call(nr!(SYS_clone3), [Arg::SlotAddress(args), size]).or_goto(elsewhere);
        cloned.above_zero(parent).store_in(Script::COMMAND);
        helper.jump(inside);
        helper.bind(elsewhere);
    }
    // The kernel writes the pid before the process runs, so the caller can read it even if the helper is killed.
    let how = flags!(CLONE_VM | CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD);
    helper.clone(how, Arg::SlotAddress(Script::COMMAND), executed).above_zero(parent).store_in(Script::COMMAND);
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

/// Lays out a `struct clone_args` in consecutive slots. Returns the first of them.
fn clone_args(helper: &mut Script, executed: Flag, directory: Slot) -> Slot {
    let flags = libc::CLONE_VM | libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID;
    let first = helper.value("clone_args", flags as u64 | CLONE_INTO_CGROUP);
    helper.value("pidfd", 0);
    executed.pointer(helper);
    helper.pointer("&pid", Script::COMMAND);
    // With CLONE_PARENT the exit signal is that of the helper, and must be 0 here.
    helper.value("exit_signal", 0);
    for name in ["stack", "stack_size", "tls", "set_tid", "set_tid_size"] {
        helper.value(name, 0);
    }
    helper.fcntl(directory, flags!(F_DUPFD_CLOEXEC), Arg::NONE).store("cgroup");
    first
}

/// A flag of clone3(2), which `libc` has in a type that is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Executes the first candidate that can be executed. If there is none, reports for each candidate why.
pub(crate) fn execute(helper: &mut Script, candidates: &[PathBuf], argv: &[OsString], envp: &[OsString]) {
    helper.step(Step::new("execute the program"));
    let report = helper.input(Input::Report);
    let tag = helper.value("not executed", EXEC_FAILED);
    let argv = helper.vector(argv);
    let envp = helper.vector(envp);
    let results: Vec<Slot> = candidates.iter().map(|_| helper.slot("failure")).collect();
    let visible: Vec<Slot> = candidates.iter().map(|_| helper.slot("visible")).collect();
    let paths: Vec<Arg> = candidates.iter().map(|path| helper.text(path)).collect();
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

/// Lets the process use all processors that the caller may use. The set-up before ran on one of them.
pub(crate) fn restore_affinity(helper: &mut Script) {
    helper.step(Step::new("restore the CPU affinity of the caller"));
    let words: [Word; AFFINITY_WORDS] =
        std::array::from_fn(|index| Word::Address(Address::Input(Input::Affinity(index as u8))));
    let mask = helper.arena.words(&words, "<processors>");
    let unchanged = helper.label();
    // EINVAL: the mask is empty, since the set-up was not pinned. EPERM: a seccomp filter of the caller denies the
    // call, so the set-up could not be pinned either.
    let set = [Arg::NONE, (8 * AFFINITY_WORDS as u64).into(), mask.into()];
    helper.call(nr!(SYS_sched_setaffinity), set).on_error(OnError::goto_if([libc::EINVAL, libc::EPERM], unchanged));
    helper.bind(unchanged);
}

/// The message that reports the start: a `struct msghdr` with the pids of init and of the program and the time as its
/// data, and their pidfds and the pseudo-terminal's master as passed descriptors.
pub(super) struct StartedMessage {
    pub header: Ref,
    /// The pieces of the data, as `struct iovec`.
    data: Ref,
    /// A `struct timespec` of when the program's process was started, in two slots.
    pub time: Slot,
    /// The number of the program's pidfd, which a call writes. The other descriptors have the numbers from 0 on: the
    /// helper does not use its standard streams any more.
    pub program: Slot,
}

/// Pieces of the data of a message.
const PIECES: u64 = 3;

impl StartedMessage {
    pub fn new(helper: &mut Script, has_init: bool, has_pty: bool) -> Self {
        let tag = helper.value("started", STARTED);
        let passed = [(true, "<pidfd>"), (has_init, "<pidfd of init>"), (has_pty, "<pty>")];
        let passed: Vec<&str> =
            passed.into_iter().filter_map(|(is_passed, shown)| is_passed.then_some(shown)).collect();
        let numbers: Vec<u32> = [0].into_iter().chain(0..).take(passed.len()).collect();
        let rights = Rights::new(helper, "pidfd", &numbers);
        let time = helper.value("seconds", 0);
        helper.value("nanoseconds", 0);
        let pieces: [_; PIECES as usize] = [(tag, 8), (Script::INIT, 16), (time, 16)];
        let pieces = pieces.map(|(slot, len)| [Script::slot_word(slot), Word::Value(len)]);
        let data = helper.arena.words(pieces.as_flattened(), "{<pid of the init>, <pid>, <time>}");
        let shown = format!("{{<pid of the init>, <pid>, <time>, [{}]}}", passed.join(", "));
        Self { header: header(helper, data, PIECES, &rights, shown), data, time, program: rights.first }
    }
}

/// Kills the program and its process group, which may have other processes by now.
fn kill(helper: &mut Script, pidfd: Slot) {
    for whom in [flags!(PIDFD_SIGNAL_PROCESS_GROUP), Arg::NONE] {
        helper.call(nr!(SYS_pidfd_send_signal), [pidfd.into(), flags!(SIGKILL), Arg::NULL, whom]).ignore();
    }
}

/// Moves `fds` to the numbers from 0 on, in order, and closes all others.
pub(super) fn keep_only(helper: &mut Script, fds: [Slot; WATCHED as usize], on_error: OnError) {
    // First to numbers that none of them is to have.
    for fd in fds {
        helper.fcntl(fd, flags!(F_DUPFD_CLOEXEC), WATCHED.into()).on_error(on_error).store_in(fd);
    }
    for (number, fd) in fds.into_iter().enumerate() {
        helper.dup3(fd, number as u64, flags!(O_CLOEXEC)).on_error(on_error).store_in(fd);
    }
    helper.call(nr!(SYS_close_range), [WATCHED.into(), u32::MAX.into(), Arg::NONE]).on_error(on_error);
}
