//! A session that is launched: its helper, which clones a process for each command, and its init.

use std::cell::Cell;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollTimeout;

use super::control_pipe::ControlPipe;
use super::handshake::{self, Channel, Ready, Received, failure_of, not_executed, since};
use super::host_ids::Reserved;
use super::image::Image;
use super::kill_switch::KillSwitch;
use super::listener::Listener;
use super::placeholder::HeldPlaceholder;
use super::process::Process;
use super::reaper::Reaper;
use super::setup_deadline::Deadline;
use super::streams::{self, Streams};
use super::{Keeper, LONGEST_PAUSE, Launch, Running, memory_file, reaper, unkillable};
use crate::cgroup::{Account, CreatedCgroup};
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::plan::memory_map::{COMMAND, COMMAND_LEN, LONG_COMMAND, LONG_COMMAND_LEN};
use crate::plan::message::FIRST_RECEIVED;
use crate::plan::{CommandPlan, Input, Part, Pids, Report, Script, Step, nr};
use crate::sys::layout::{ImageWords, Layout};

/// The most descriptors that the kernel passes with a message (unix(7), `SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

/// The number of looks at an init that does not exit, after which no other thread is about to take over a process.
const UNREPORTED_ROUND: u32 = 4;

/// The processes of a session, and what they use. Dropping it kills and reaps all of them.
#[derive(Debug)]
pub(crate) struct LaunchedSession {
    creator: Creator,
    channel: Channel,
    /// The image of the helper, whose slots the caller can read.
    image: Image,
    pass: u64,
    own_id: u32,
    /// A pidfd of the caller.
    caller: OwnedFd,
    /// Namespaces of the session, with their kinds as flags of clone(2).
    pub namespaces: Vec<(u32, OwnedFd)>,
    /// The listener of the seccomp filter, if the policy passes calls to the caller.
    pub listener: Option<Listener>,
    started: Instant,
    is_kill_requested: AtomicBool,
    /// The number of cgroups of commands that were created.
    cgroups: AtomicU64,
    /// Removed after every process has exited.
    cgroup: Mutex<Option<CreatedCgroup>>,
    /// Cgroups of commands that have exited, with processes that go on.
    kept: Mutex<Vec<CreatedCgroup>>,
    /// `None` once the session has ended.
    processes: Mutex<Option<SessionProcesses>>,
}

#[derive(Debug)]
struct SessionProcesses {
    helper: Process,
    init: Process,
    control: ControlPipe,
    /// The host ID of the processes. Released after they have exited.
    reserved: Option<Reserved>,
    /// Released after every process has exited.
    placeholders: Vec<HeldPlaceholder>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LaunchedSession {
    pub(super) fn new(launch: Launch<'_>, helper: Process, channel: Channel, image: Image, ready: Ready) -> Self {
        let Launch { own_id, reserved, pass, caller, control, cgroup, placeholders, .. } = launch;
        let Ready { init, listener, namespaces } = ready;
        Self {
            creator: Creator::this(),
            channel,
            image,
            pass,
            own_id,
            caller,
            namespaces,
            listener: listener.map(Listener::new),
            started: Instant::now(),
            is_kill_requested: AtomicBool::new(false),
            cgroups: AtomicU64::new(0),
            cgroup: Mutex::new(cgroup),
            kept: Mutex::default(),
            processes: Mutex::new(Some(SessionProcesses { helper, init, control, reserved, placeholders })),
        }
    }

    /// Returns when the session was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Returns the current statistics of the session's cgroup, if there is one.
    pub fn account(&self) -> Option<Account> {
        lock(&self.cgroup).as_ref().and_then(CreatedCgroup::account)
    }

    /// Freezes all processes of the programs, or thaws them.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        lock(&self.cgroup).as_ref().unwrap_or(&CreatedCgroup::default()).freeze(frozen)
    }

    /// Returns whether [`end`](Self::end) was called.
    pub fn is_kill_requested(&self) -> bool {
        self.is_kill_requested.load(Ordering::Acquire)
    }

    /// Returns whether all processes were killed.
    pub fn has_ended(&self) -> bool {
        lock(&self.processes).is_none()
    }

    /// Returns whether its helper and its init have not exited.
    pub fn is_alive(&self) -> bool {
        let runs = |process: &Process| process.has_exited(PollTimeout::ZERO) == Ok(false);
        lock(&self.processes).as_ref().is_some_and(|processes| runs(&processes.helper) && runs(&processes.init))
    }

    /// Returns whether a process is in the PID namespace of the session.
    pub(super) fn has(&self, pid: i32) -> bool {
        let init = lock(&self.processes).as_ref().map(|processes| processes.init.pid());
        init.is_some_and(|init| Reaper::of(init, None).is_in_namespace(pid))
    }

    /// Keeps the cgroup of a command whose processes go on.
    pub(super) fn keep(&self, cgroup: CreatedCgroup) {
        let mut kept = lock(&self.kept);
        // Those of processes that have exited meanwhile.
        kept.retain_mut(|cgroup| !cgroup.remove());
        kept.push(cgroup);
    }

    /// Kills and reaps every process of the session. Does nothing once it has ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unkillable`](crate::ErrorKind::Unkillable) if init does not exit. It is reaped later then.
    pub fn end(&self) -> Result<()> {
        self.is_kill_requested.store(true, Ordering::Release);
        let Some(mut processes) = lock(&self.processes).take() else { return Ok(()) };
        // The helper first, so that it starts no further process.
        let _ = processes.helper.signal(libc::SIGKILL);
        let _ = processes.init.signal(libc::SIGKILL);
        // Where the caller may send no signals, both exit because of these.
        processes.control.close();
        self.channel.close();
        let mut cgroup = lock(&self.cgroup).take();
        let members = cgroup.as_ref().map(CreatedCgroup::members).unwrap_or_default();
        members.thaw();
        let _ = processes.helper.finish();
        let init = processes.init.pid();
        let rounds = Cell::new(0);
        let unblock = || {
            members.thaw();
            rounds.set(rounds.get() + 1);
            if rounds.get() == UNREPORTED_ROUND {
                self.reap_unreported();
            }
        };
        let ended = processes.init.finish_init_of(None, unblock).map_err(|errno| unkillable::explain(init, errno));
        lock(&self.kept).clear();
        if let Some(cgroup) = cgroup.take() {
            let _ = cgroup.remove_or_give_up();
        }
        if ended.is_err() {
            // A process still uses these.
            mem::forget((processes.reserved.take(), mem::take(&mut processes.placeholders)));
        }
        ended.map(drop)
    }

    /// Ends the session, unless this process is a forked child of the one that has started it.
    pub fn end_if_own(&self) -> Result<()> {
        if self.creator.is_this() { self.end() } else { Ok(()) }
    }

    /// Reaps the process that the helper has cloned last, if the helper was killed before it could report it. Init cannot exit
    /// before.
    fn reap_unreported(&self) {
        let slots: [u64; Script::COMMAND.0 as usize + 1] = self.image.slots();
        let command = slots[usize::from(Script::COMMAND.0)] as i32;
        if command > 0 && !reaper::is_registered(command) {
            handshake::kill_and_reap(Pids { command, init: 0 });
        }
    }

    /// Starts a command. Returns once its program was executed.
    pub fn spawn(self: &Arc<Self>, plan: &CommandPlan) -> Result<Running> {
        reaper::reap_abandoned();
        let deadline = Deadline::of(plan.setup_timeout);
        let mut pause = Duration::from_millis(1);
        loop {
            match self.spawn_once(plan, deadline) {
                // See `launch`.
                Err(error) if error.is_busy() && pause <= LONGEST_PAUSE => std::thread::sleep(pause),
                other => return other,
            }
            pause *= 2;
        }
    }

    fn spawn_once(self: &Arc<Self>, plan: &CommandPlan, deadline: Deadline) -> Result<Running> {
        // Checked first: descriptors that are opened from here on may take the numbers of closed standard streams.
        let is_open = streams::inherited();
        let mut streams = Streams::open(&plan.inherited, is_open, self.own_id, self.caller.as_fd())?;
        let mut cgroup = self.create_cgroup()?;
        let (channel, report) = Channel::new()?;
        self.send(plan, &Sent::new(plan, &report, &streams, cgroup.as_ref())?, deadline)?;
        drop(report);
        let Started { program, at, passed } = self.wait_until_executed(plan, &channel, deadline)?;
        if let Some(cgroup) = &mut cgroup {
            cgroup.close_entries();
        }
        let (streams, held) = streams.take();
        let members = cgroup.as_ref().map(CreatedCgroup::members).unwrap_or_default();
        let kill_switch = KillSwitch::new(&program, None, members, ControlPipe::closed());
        Ok(Running {
            creator: Creator::this(),
            program,
            keeper: Keeper::Session(self.clone()),
            kill_switch: Some(Arc::new(kill_switch)),
            streams,
            pty: passed,
            listener: None,
            namespaces: vec![],
            started: at,
            held,
            lost: vec![],
            cgroup,
            reserved: None,
            placeholders: vec![],
        })
    }

    /// Has a process of the session make the calls of a plan and exit. Returns the descriptor that it has opened for the caller.
    pub fn open(self: &Arc<Self>, plan: &CommandPlan) -> Result<OwnedFd> {
        let deadline = Deadline::of(plan.setup_timeout);
        let mut streams = Streams::default();
        let nothing = streams::null()?;
        streams.program = [nothing.as_raw_fd(); 3];
        let (channel, report) = Channel::new()?;
        self.send(plan, &Sent::new(plan, &report, &streams, None)?, deadline)?;
        drop(report);
        // It exits by itself.
        let Started { mut program, passed, .. } = self.wait_until_executed(plan, &channel, deadline)?;
        let _ = program.wait();
        passed.ok_or_else(|| Error::died("pass a descriptor to the caller"))
    }

    /// Creates the cgroup of a command, if the session has one.
    fn create_cgroup(&self) -> Result<Option<CreatedCgroup>> {
        let name = || format!("command-{}", self.cgroups.fetch_add(1, Ordering::Relaxed));
        lock(&self.cgroup).as_ref().map(|cgroup| cgroup.create_below(&name())).transpose()
    }

    /// Sends a command to the helper.
    fn send(&self, plan: &CommandPlan, sent: &Sent, deadline: Deadline) -> Result<()> {
        let at = |address| self.layout(&plan.script, sent, address);
        if plan.script.is_too_long() {
            return Err(Error::invalid("the command has more than 65,535 values", "pass fewer descriptors"));
        }
        let words = at(COMMAND);
        if words.bytes().len() as u64 <= COMMAND_LEN && self.channel.send_all(words.bytes(), &sent.fds, deadline)? {
            return Ok(());
        }
        // It is too large for a message.
        let words = at(LONG_COMMAND);
        let len = words.bytes().len() as u64;
        if len > LONG_COMMAND_LEN {
            let remedy = "pass fewer or shorter arguments and environment variables";
            return Err(Error::invalid("the command is larger than 32 MiB", remedy));
        }
        let file = memory_file::of_bytes(words.bytes())?;
        let fds: Vec<RawFd> = sent.fds.iter().copied().chain([file.as_raw_fd()]).collect();
        let reading = self.layout(&reading(&plan.script, len), sent, COMMAND);
        match self.channel.send_all(reading.bytes(), &fds, deadline)? {
            true => Ok(()),
            false => Err(Error::io("send a command to the helper of the session")(Errno::EMSGSIZE)),
        }
    }

    fn layout(&self, script: &Script, sent: &Sent, address: u64) -> ImageWords {
        let resolve = |input| match input {
            Input::Pass => self.pass,
            Input::OwnId => self.own_id.into(),
            Input::Value(value) => value,
            input => sent.number(input).into(),
        };
        Layout { script, tag: Part::Command.tag(), fault: None, resolve: &resolve }.at(address)
    }

    /// Waits until the program was executed: its process had the other end of the channel until then.
    fn wait_until_executed(&self, plan: &CommandPlan, channel: &Channel, deadline: Deadline) -> Result<Started> {
        let (mut program, mut passed, mut failed) = (None, None, None);
        loop {
            if !channel.is_ready(deadline)? {
                let error = Error::timed_out("execute the program", deadline.limit);
                if program.is_none() {
                    // The helper was stopped from outside. It could still start the process.
                    let _ = self.end();
                    return Err(error);
                }
                let remedy = "a program of the session has stopped the process, or the machine is slow: end the session, \
                              or raise the timeout (Sandbox::setup_timeout)";
                return Err(error.advised(Some(remedy.into())));
            }
            let received = channel.receive(Report::longest(plan.search.candidates.len()))?;
            let Some(Received { report, fds, is_cut }) = received else { break };
            if is_cut {
                failed = Some(handshake::cut());
            }
            match report {
                Report::Started(Pids { command, .. }, at) => match fds.into_iter().next() {
                    Some(pidfd) => program = Some((Process::from_parts(command, pidfd), since(at))),
                    // Nobody could wait for it.
                    None => handshake::kill_and_reap(Pids { command, init: 0 }),
                },
                Report::Passed => passed = fds.into_iter().next(),
                Report::Failed { call, errno, .. } => failed = Some(failure_of(&plan.script, call, errno)),
                Report::NotExecuted(failures) => failed = Some(not_executed(&plan.search, &failures)),
                Report::NotCloned(errno) => failed = Some(not_cloned(errno)),
                _ => failed = Some(Error::died("read a report")),
            }
        }
        match (program, failed) {
            (_, Some(error)) => Err(error),
            (Some((program, at)), None) => Ok(Started { program, at, passed }),
            (None, None) => Err(self.ended()),
        }
    }

    /// Returns the error of a command that was not started, because the helper has exited.
    fn ended(&self) -> Error {
        match self.is_kill_requested() {
            true => Error::session_ended(),
            false => Error::died("start the command"),
        }
    }

    /// Leaves the session to the process that has created it: see `Running::disown`.
    fn disown(&mut self) {
        // Not by locking: another thread may have held a lock when this process was forked.
        fn take<T: Default>(mutex: &mut Mutex<T>) -> T {
            mem::take(mutex.get_mut().unwrap_or_else(PoisonError::into_inner))
        }
        if let Some(mut processes) = take(&mut self.processes) {
            processes.helper.disown();
            processes.init.disown();
            mem::forget(processes);
        }
        mem::forget((take(&mut self.kept), take(&mut self.cgroup)));
    }
}

impl Drop for LaunchedSession {
    fn drop(&mut self) {
        if self.creator.is_this() {
            let _ = self.end();
        } else {
            self.disown();
        }
    }
}

/// The process of a command whose program was executed.
struct Started {
    program: Process,
    at: Instant,
    /// The descriptor that it has opened for the caller.
    passed: Option<OwnedFd>,
}

/// The descriptors that are sent with a command, in the order of their numbers in its process.
struct Sent {
    fds: Vec<RawFd>,
    /// The indices of those that the program inherits beside its standard streams.
    handed: Vec<u16>,
}

/// The number of descriptors before those in [`Sent::handed`]: the report channel and the standard streams.
const STANDARD: usize = 4;

impl Sent {
    fn new(plan: &CommandPlan, report: &OwnedFd, streams: &Streams, cgroup: Option<&CreatedCgroup>) -> Result<Self> {
        let mut handed: Vec<u16> = vec![];
        for &(index, _) in &plan.inherited.handed {
            if !handed.contains(&index) {
                handed.push(index);
            }
        }
        let entries = cgroup.into_iter().flat_map(CreatedCgroup::entries);
        let fds: Vec<RawFd> = [report.as_raw_fd()]
            .into_iter()
            .chain(streams.program)
            .chain(handed.iter().map(|&index| streams.further(index)))
            .chain(entries.map(|entry: BorrowedFd<'_>| entry.as_raw_fd()))
            .collect();
        // One more may be needed for the script.
        if fds.len() >= MOST_DESCRIPTORS {
            let remedy = format!("pass at most {}", MOST_DESCRIPTORS - 16);
            return Err(Error::invalid("a command of a session cannot have that many descriptors", remedy));
        }
        Ok(Self { fds, handed })
    }

    /// Returns the number of a descriptor in the process of the command.
    fn number(&self, input: Input) -> u32 {
        let position = match input {
            Input::Report => 0,
            Input::Stdio(number) => 1 + usize::from(number),
            Input::Handed(index) => STANDARD + self.handed.iter().position(|&known| known == index).unwrap_or_default(),
            Input::CgroupEntry(index) => STANDARD + self.handed.len() + usize::from(index),
            Input::ScriptFile => self.fds.len(),
            // Of the set-up alone.
            _ => return u32::MAX,
        };
        FIRST_RECEIVED + position as u32
    }
}

/// Compiles the script that reads a larger one from a file, and goes on with it.
fn reading(larger: &Script, len: u64) -> Script {
    let mut script = larger.with_same_pass();
    script.step(Step::new("read the script of the command"));
    let file = script.input(Input::ScriptFile);
    script.call(nr!(SYS_pread64), [file.into(), LONG_COMMAND.into(), len.into(), 0.into()]);
    script.switch_to(LONG_COMMAND);
    script
}

/// Returns the error of a process that could not be cloned.
fn not_cloned(errno: i32) -> Error {
    let remedy = match errno {
        libc::EAGAIN => Some(
            "the programs of the session have too many processes, or another limit on processes is reached (RLIMIT_NPROC, \
             pids.max, kernel.pid_max): end the session, or raise the limit",
        ),
        libc::ENOMEM => {
            Some("init was killed from outside, or memory is short: look in the kernel's log for the reason")
        }
        _ => None,
    };
    Error::set_up("start the process of the command", "clone", Errno::from_raw(errno), remedy)
}
