//! The steps of a session that belong to no file of `confine`: those of its helper, which stays and clones the process of
//! each command, and those of that process. Their order is in `order.rs`.
//!
//! The helper is confined before it waits for the first command, so that each clone is from its beginning: none of the
//! steps of a command confines anything, and a program inside that stops or kills the process only keeps the command from
//! being executed.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::config::SandboxConfig;
use super::helper::{self, CgroupEntries, Placed, StartedMessage};
use super::init::poll;
use crate::confine::limits::Rlimits;
use crate::confine::no_zero;
use crate::error::{Error, Result};
use crate::plan::memory_map::{COMMAND, COMMAND_LEN, COMMANDS_LEN, LONG_COMMAND, LONG_COMMAND_LEN};
use crate::plan::message::{CommandHeader, FIRST_RECEIVED, Rights, header};
use crate::plan::report::{NOT_CLONED, PASSED, READY};
use crate::plan::{
    Arg, CommandPlan, HostId, Inherited, Input, OnError, Ref, Script, Search, Slot, Step, Word, flags, nr,
};

/// The number of the channel to the caller in a helper that waits, and in the processes that it clones.
const CHANNEL: u64 = 1;
/// The size of the control part of a message with the most descriptors that the kernel passes (unix(7), `SCM_MAX_FD`).
const CONTROL_LEN: usize = 1040;

/// Creates the cgroup namespace of a session, whose root is the session's cgroup: a process of its own enters the cgroup
/// and exits, since the helper is to stay outside, and a cgroup of v2 with processes cannot have cgroups with controllers
/// below it. `show` are the calls that mount what the programs see of it.
///
/// It is a child of the caller, which reaps it: an orphan of the helper would be one of the host, and init cannot exit
/// until that is reaped.
pub(crate) fn create_cgroup_namespace(
    helper: &mut Script,
    entries: &CgroupEntries,
    proc: Slot,
    show: impl FnOnce(&mut Script),
) {
    helper.step(Step::new("start the process that creates the cgroup namespace"));
    let parent = helper.label();
    let how = flags!(CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD);
    let clone = [how, Arg::NULL, Arg::SlotAddress(Script::COMMAND), Arg::NULL, Arg::NULL];
    helper.call(nr!(SYS_clone), clone).above_zero(parent);
    let process = &mut *helper;
    entries.enter(process);
    helper::create_cgroup_namespace(process);
    process.step(Step::new("open the cgroup namespace"));
    let namespace = process.openat(proc, "self/ns/cgroup", flags!(O_RDONLY | O_CLOEXEC), 0);
    show(process);
    process.exit(0);
    helper.bind(parent);
    helper.step(Step::new("enter the cgroup namespace"));
    // If the process was killed, for example since the memory limit is too low, the caller finds out by the end of the channel.
    let created = helper.label();
    helper.jump_if_set(namespace, created);
    helper.exit(0);
    helper.bind(created);
    helper.call(nr!(SYS_setns), [namespace.into(), flags!(CLONE_NEWCGROUP)]);
    helper.close(namespace);
}

/// Reserves the memory for the scripts of commands. No page of it exists until one is written.
pub(crate) fn reserve_memory(helper: &mut Script) {
    helper.step(Step::new("reserve memory for the scripts of commands"));
    for (address, len) in [(COMMAND, COMMANDS_LEN), (LONG_COMMAND, LONG_COMMAND_LEN)] {
        let how = flags!(MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE);
        let map = [address.into(), len.into(), flags!(PROT_READ | PROT_WRITE), how, (-1).into(), Arg::NONE];
        helper.call(nr!(SYS_mmap), map);
    }
}

/// Closes all descriptors but the pidfd of the caller, the channel, and a pidfd of init.
pub(crate) fn close_descriptors(helper: &mut Script) {
    helper.step(Step::new("close all descriptors that the helper does not need"));
    let init = helper.call(nr!(SYS_pidfd_open), [Script::INIT.into(), 0.into()]).store("pidfd of init");
    let [caller, report] = [Input::CallerPidfd, Input::Report].map(|input| helper.input(input));
    helper::keep_only(helper, [caller, report, init], OnError::Fail);
}

/// Tells the caller that the helper is confined and waits, and passes it the pidfd of init.
pub(crate) fn report_ready(helper: &mut Script) {
    helper.step(Step::new("report to the caller that the session is ready"));
    let tag = helper.value("ready", READY);
    // It has the number that `close_descriptors` has given it.
    let rights = Rights::new(helper, "pidfd of init", &[FIRST_RECEIVED - 1]);
    let pieces = [[Script::slot_word(tag), Word::Value(8)], [Script::slot_word(Script::INIT), Word::Value(8)]];
    let data = helper.arena.words(pieces.as_flattened(), "{<ready>, <pid of the init>}");
    let message = header(helper, data, pieces.len() as u64, &rights, "{<pid of the init>, [<pidfd of init>]}".into());
    helper.call(nr!(SYS_sendmsg), [CHANNEL.into(), message.into(), flags!(MSG_NOSIGNAL)]);
}

/// Waits for commands, until the caller closes the channel or exits. Clones a process for each, which goes on with the
/// script in the message. The message says where the script belongs, and whether the process shares the memory of the
/// helper: see [`CommandHeader`].
pub(crate) fn serve(helper: &mut Script) {
    helper.step(Step::new("wait for a command"));
    let request = CommandRequest::new(helper);
    let started = StartedMessage::new(helper, false, false);
    let [not_cloned, vanished] = [Script::COMMAND, started.program].map(|error| not_cloned(helper, error));
    let [next, ready, over, received, parent, failed, gone] = [(); 7].map(|()| helper.label());
    helper.bind(next);
    helper.call(nr!(SYS_close_range), [FIRST_RECEIVED.into(), u32::MAX.into(), Arg::NONE]).or_goto(over);
    // The kernel has written the size of the last message there.
    helper.set(request.room, CONTROL_LEN as u64);
    let readable = libc::POLLIN as u64;
    poll(helper, &[("<caller>", readable), ("<channel>", readable)], None, ready).or_goto(over);
    helper.bind(over);
    helper.exit(0);
    helper.bind(ready);
    // Without a message it was the caller that has exited.
    let peek = [CHANNEL.into(), Arg::SlotAddress(request.peek), flags!(MSG_PEEK | MSG_DONTWAIT)];
    helper.call(nr!(SYS_recvmsg), peek).or_goto(over).above_zero(received);
    helper.jump(over);
    helper.bind(received);
    helper.copy(request.address, request.script);
    let receive = [CHANNEL.into(), Arg::SlotAddress(request.header), flags!(MSG_CMSG_CLOEXEC | MSG_DONTWAIT)];
    helper.call(nr!(SYS_recvmsg), receive).or_goto(over);
    helper.call(nr!(SYS_clock_gettime), [flags!(CLOCK_REALTIME), Arg::SlotAddress(started.time)]).ignore();
    // The kernel writes the PID, so that the caller can reap the process even if the helper is killed now.
    let clone = [request.how.into(), request.address.into(), Arg::SlotAddress(Script::COMMAND), Arg::NULL, Arg::NULL];
    helper.call(nr!(SYS_clone), clone).or_goto(failed).above_zero(parent).store_in(Script::COMMAND);
    helper.switch_to_stack();
    helper.bind(parent);
    // A program may have killed the process. It is reaped at once if the caller ignores SIGCHLD.
    let open = [Script::COMMAND.into(), 0.into()];
    let gone_already = OnError::goto_if([libc::ESRCH, 0], gone);
    helper.call(nr!(SYS_pidfd_open), open).on_error(gone_already).store_in(started.program);
    for (label, message) in [(None, started.header), (Some(failed), not_cloned), (Some(gone), vanished)] {
        label.into_iter().for_each(|label| helper.bind(label));
        // The caller may have given up.
        let send = [FIRST_RECEIVED.into(), message.into(), flags!(MSG_NOSIGNAL)];
        helper.call(nr!(SYS_sendmsg), send).ignore();
        helper.jump(next);
    }
}

/// The structures of recvmsg(2) for a command, in slots, since the kernel changes them.
struct CommandRequest {
    /// The `struct msghdr` that reads the header alone, and leaves the message.
    peek: Slot,
    /// The `struct msghdr` that receives the message.
    header: Slot,
    /// The size of its control part.
    room: Slot,
    /// The address at which it places the script.
    script: Slot,
    /// The parts of the [`CommandHeader`].
    how: Slot,
    address: Slot,
}

impl CommandRequest {
    fn new(helper: &mut Script) -> Self {
        let control = helper.arena.buffer(CONTROL_LEN);
        let how = helper.value("flags of the clone", 0);
        let address = helper.value("address of the script", 0);
        let pieces = helper.pointer("&header of a command", how);
        helper.value("size", CommandHeader::LEN);
        let script = helper.value("script of a command", 0);
        helper.value("size", COMMAND_LEN);
        let message = |helper: &mut Script, count| {
            let message = helper.value("message", 0);
            helper.value("size of the name", 0);
            helper.pointer("&pieces", pieces);
            helper.value("pieces", count);
            message
        };
        let peek = message(helper, 1);
        for part in ["control", "size of the control part", "flags"] {
            helper.value(part, 0);
        }
        let header = message(helper, 2);
        helper.data_pointer("&control", control);
        let room = helper.value("size of the control part", 0);
        helper.value("flags", 0);
        Self { peek, header, room, script, how, address }
    }
}

/// Lays out the message that reports that there is no process. `error` holds the reason.
fn not_cloned(helper: &mut Script, error: Slot) -> Ref {
    let tag = helper.value("not cloned", NOT_CLONED);
    let pieces = [[Script::slot_word(tag), Word::Value(8)], [Script::slot_word(error), Word::Value(8)]];
    let data = helper.arena.words(pieces.as_flattened(), "{<not cloned>, <error>}");
    let zero = Word::Value(0);
    let words = [zero, zero, data.into(), Word::Value(pieces.len() as u64), zero, zero, zero];
    helper.arena.words(&words, "{<not cloned>, <error>}")
}

/// What the commands of a session depend on.
#[derive(Clone, Debug)]
pub(crate) struct SessionFrame {
    pub config: SandboxConfig,
    /// The number of cgroups that each command gets.
    pub groups: u16,
    /// The calls that carry the pass of the session's filter. `None` without a filter.
    pub carrying: Option<Vec<u32>>,
    /// The owner of the pipes of programs, if the caller may change it.
    pub owner: Option<(HostId, HostId)>,
    /// Whether others have the user of the programs.
    pub shares_user: bool,
    pub memory_is_limited: bool,
    /// Whether the processes of commands share the memory of the helper until they execute their programs.
    pub shares_memory: bool,
    /// Whether programs may trace one another.
    pub allows_tracing: bool,
}

impl SessionFrame {
    /// Returns the limits of each process of a program.
    pub fn rlimits(&self) -> Result<Rlimits> {
        let has_netlink = self.config.seccomp.allows_netlink();
        self.config.limits.of_process(self.shares_user, self.memory_is_limited, has_netlink)
    }

    /// Returns the plan of a process.
    pub fn plan(&self, script: Script, inherited: Inherited, search: Search) -> CommandPlan {
        let (setup_timeout, shares_memory) = (self.config.setup_timeout, self.shares_memory);
        CommandPlan { script, inherited, search, setup_timeout, shares_memory }
    }
}

/// Begins the script of a command.
pub(crate) fn begin_command(carrying: Option<&[u32]>) -> Script {
    /// Calls that the script has room for from the start.
    const CALLS: usize = 64;
    let mut process = Script::with_room("stockade: command", CALLS);
    if let Some(calls) = carrying {
        process.carry_pass(calls.to_vec());
    }
    process
}

/// Enters the cgroups of the command.
pub(crate) fn enter_cgroups(process: &mut Script, count: u16) {
    let entries: Vec<Slot> = (0..count).map(|index| process.input(Input::CgroupEntry(index))).collect();
    if !entries.is_empty() {
        helper::enter_cgroups(process, &entries);
    }
}

/// Moves the program's descriptors to their numbers. All others close when the program is executed.
pub(crate) fn place_descriptors(process: &mut Script, placed: &[Placed], kept: &[Slot]) {
    // Most have only standard streams, and all that was received has higher numbers.
    if placed.iter().all(|fd| fd.number < FIRST_RECEIVED) {
        process.step(Step::new("set up the program's descriptors"));
        for fd in placed {
            process.dup3(fd.source, fd.number.into(), Arg::NONE);
        }
    } else {
        helper::place_descriptors(process, placed, &[Input::Report], kept);
    }
}

/// Passes the caller a descriptor that the process has opened.
pub(crate) fn pass(process: &mut Script, fd: Slot) {
    process.step(Step::new("pass the descriptor to the caller"));
    let tag = process.value("passed", PASSED);
    let rights = Rights::new(process, "descriptor", &[0]);
    let data = process.arena.words(&[Script::slot_word(tag), Word::Value(8)], "{<passed>}");
    let message = header(process, data, 1, &rights, "{[<descriptor>]}".into());
    process.fcntl(fd, flags!(F_DUPFD_CLOEXEC), FIRST_RECEIVED.into()).store_in(rights.first);
    let report = process.input(Input::Report);
    process.call(nr!(SYS_sendmsg), [report.into(), message.into(), flags!(MSG_NOSIGNAL)]);
}

/// What a process of a session opens for the caller.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    /// A file, with the flags of open(2) and the mode of a new one.
    File(PathBuf, i32, u32),
    /// A socket that listens.
    Listening(InsideAddress),
    /// A socket that is connected.
    Connected(InsideAddress),
}

/// An address for sockets, as the kernel takes it.
#[derive(Clone, Debug)]
pub(crate) struct InsideAddress {
    family: i32,
    /// A `struct sockaddr`.
    bytes: Vec<u8>,
    shown: String,
}

impl InsideAddress {
    pub fn tcp(address: SocketAddr) -> Self {
        let (family, rest) = match address {
            SocketAddr::V4(v4) => (libc::AF_INET, [&v4.ip().octets()[..], &[0; 8]].concat()),
            SocketAddr::V6(v6) => {
                let (flow, scope) = (v6.flowinfo().to_ne_bytes(), v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, [&flow[..], &v6.ip().octets(), &scope].concat())
            }
        };
        let head = [(family as u16).to_ne_bytes(), address.port().to_be_bytes()];
        Self { family, bytes: [head.as_flattened(), &rest].concat(), shown: address.to_string() }
    }

    /// Returns an error for a path that is too long, or has a zero byte.
    pub fn unix(path: &Path) -> Result<Self> {
        /// The size of `sun_path` (unix(7)).
        const LONGEST: usize = 108;
        no_zero("the path of a socket", path.as_os_str())?;
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() || bytes.len() >= LONGEST {
            return Err(Error::invalid(
                format!("the path of a socket, {}, is empty or longer than 107 bytes", path.display()),
                "use a shorter one",
            ));
        }
        let family = (libc::AF_UNIX as u16).to_ne_bytes();
        Ok(Self {
            family: libc::AF_UNIX,
            bytes: [&family[..], bytes, b"\0"].concat(),
            shown: path.display().to_string(),
        })
    }
}

/// Compiles the script of a process that opens something for the caller, and exits.
pub(crate) fn opening(frame: &SessionFrame, opened: &Opened) -> Result<Script> {
    /// Connections that wait until they are accepted, as in the standard library.
    const BACKLOG: i32 = 128;
    let mut script = begin_command(frame.carrying.as_deref());
    let process = &mut script;
    helper::create_session(process);
    let fd = match opened {
        Opened::File(path, flags, mode) => {
            no_zero("the path of a file", path.as_os_str())?;
            if path.as_os_str().is_empty() {
                return Err(Error::invalid("the path of a file is empty", "name a file inside the session"));
            }
            process.step(Step::new("open inside the session").path(path).remedies(&[
                (libc::ENOENT, "create the file, or the directory in which it is to be created, by a command"),
                (libc::EISDIR, "name a file: this is a directory"),
                (libc::EACCES, "name a file that the sandbox's user may open"),
                (libc::EAGAIN, "kill the program that holds a lease on the file (fcntl(2), F_SETLEASE)"),
                (libc::ENXIO, "name a regular file: this is a FIFO, a socket or a device"),
            ]));
            // A FIFO that has no other end, or a device, must not block.
            process.open_file(path, flags | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK, *mode)
        }
        Opened::Listening(address) => {
            process.step(Step::new(format!("listen inside the session at {}", address.shown)).remedies(&[
                (libc::EACCES, "use a port of at least 1,024, or a directory that the sandbox's user may write to"),
                (libc::EADDRINUSE, "use port 0 for a free one, or remove the file that exists at the path"),
                (libc::EADDRNOTAVAIL, "use an address that the session's network has, such as 127.0.0.1"),
                (libc::ENOENT, "create the directory of the path, by a command"),
            ]));
            let (socket, place) = socket(process, address);
            let on = process.arena.bytes(&1i32.to_ne_bytes(), "[1]");
            let option = [socket.into(), flags!(SOL_SOCKET), flags!(SO_REUSEADDR), on.into(), 4.into()];
            process.call(nr!(SYS_setsockopt), option);
            process.call(nr!(SYS_bind), [socket.into(), place.into(), (address.bytes.len() as u64).into()]);
            process.call(nr!(SYS_listen), [socket.into(), BACKLOG.into()]);
            socket
        }
        Opened::Connected(address) => {
            process.step(Step::new(format!("connect inside the session to {}", address.shown)).remedies(&[
                (libc::ECONNREFUSED, "start a program of the session that listens there, or wait until it does"),
                (libc::ENOENT, "start a program of the session that listens there, or wait until it does"),
            ]));
            let (socket, place) = socket(process, address);
            process.call(nr!(SYS_connect), [socket.into(), place.into(), (address.bytes.len() as u64).into()]);
            socket
        }
    };
    pass(process, fd);
    process.exit(0);
    Ok(script)
}

/// Opens a socket. Returns it with the place of its address.
fn socket(process: &mut Script, address: &InsideAddress) -> (Slot, Ref) {
    let place = process.arena.bytes(&address.bytes, address.shown.clone());
    let kind = flags!(SOCK_STREAM | SOCK_CLOEXEC);
    (process.call(nr!(SYS_socket), [address.family.into(), kind, 0.into()]).store("socket"), place)
}
