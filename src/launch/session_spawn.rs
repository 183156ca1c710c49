//! Starts commands of a session: sends their scripts to its helper, and waits until their programs were executed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::busy::while_busy;
use super::command_memory::SharedPart;
use super::control_pipe::ControlPipe;
use super::handshake::{self, Channel, Delivery, Received, failure_of, not_executed, since};
use super::kill_switch::KillSwitch;
use super::live_session::LaunchedSession;
use super::process::Process;
use super::running::{Keeper, Running};
use super::setup_deadline::Deadline;
use super::streams::{self, Streams};
use super::{memory_file, reaper};
use crate::cgroup::{CreatedCgroup, Members, freezer};
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::locks::lock;
use crate::plan::memory_map::{COMMAND_LEN, LONG_COMMAND, LONG_COMMAND_LEN};
use crate::plan::message::{CommandHeader, FIRST_RECEIVED};
use crate::plan::{CommandPlan, Input, Part, Pids, Report, Script, Step, nr};
use crate::sys::layout::{ImageWords, Layout};

/// The most descriptors that the kernel passes with a message (unix(7), `SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

impl LaunchedSession {
    /// Starts a command. Returns once its program was executed.
    pub fn spawn(self: &Arc<Self>, plan: &CommandPlan) -> Result<Running> {
        self.check_creator()?;
        if self.is_frozen() {
            return Err(Error::invalid("the session is frozen", "call Session::thaw"));
        }
        reaper::reap_abandoned();
        let deadline = Deadline::of(plan.setup_timeout);
        while_busy(|| self.spawn_once(plan, deadline))
    }

    fn spawn_once(self: &Arc<Self>, plan: &CommandPlan, deadline: Deadline) -> Result<Running> {
        // Checked first: descriptors that are opened from here on may take the numbers of closed standard streams.
        let is_open = streams::inherited();
        let mut streams = Streams::open(&plan.inherited, is_open, self.own_id, self.caller.as_fd())?;
        let mut cgroup = self.create_cgroup()?;
        let (channel, report) = Channel::new()?;
        let part = self.send(plan, &Sent::new(plan, &report, &streams, cgroup.as_ref())?, deadline)?;
        drop(report);
        let members = cgroup.as_ref().map(CreatedCgroup::members).unwrap_or_default();
        let StartedCommand { program, at, passed } =
            self.wait_until_executed(plan, &channel, part, deadline, &members)?;
        // While the program runs: before, its process enters its cgroups, which takes the same lock in the kernel.
        if let Some(cgroup) = lock(&self.cgroup).as_ref() {
            self.command_cgroups.prepare(cgroup);
        }
        if program.exited_before_execution() {
            return Err(self.ended_or(Error::never_executed()));
        }
        if let Some(cgroup) = &mut cgroup {
            cgroup.close_entries();
        }
        let (streams, held) = streams.take();
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
        self.check_creator()?;
        let deadline = Deadline::of(plan.setup_timeout);
        let mut streams = Streams::default();
        streams.program = [streams.null()?; 3];
        let (channel, report) = Channel::new()?;
        let part = self.send(plan, &Sent::new(plan, &report, &streams, None)?, deadline)?;
        drop(report);
        // It exits by itself.
        let StartedCommand { mut program, passed, .. } =
            self.wait_until_executed(plan, &channel, part, deadline, &Members::default())?;
        let _ = program.wait();
        passed.ok_or_else(|| self.ended_or(Error::died("pass a descriptor to the caller")))
    }

    /// Refuses a forked child of the process that has started the session: it could not wait for what it starts.
    pub(super) fn check_creator(&self) -> Result<()> {
        match self.creator.is_this() {
            true => Ok(()),
            false => Err(Error::invalid(
                "the session belongs to the process that has started it, of which this one is a forked child",
                "start another session in this process",
            )),
        }
    }

    /// Creates the cgroup of a command, if the session has one.
    fn create_cgroup(&self) -> Result<Option<CreatedCgroup>> {
        lock(&self.cgroup).as_ref().map(|cgroup| self.command_cgroups.take(cgroup)).transpose()
    }

    /// Sends a command to the helper. Returns the part of the helper's memory that its process shares, if it does. If the
    /// helper has exited, ends the session.
    fn send(&self, plan: &CommandPlan, sent: &Sent, deadline: Deadline) -> Result<Option<SharedPart<'_>>> {
        let at = |address| self.layout(Part::Command, &plan.script, sent, address);
        if plan.script.is_too_long() {
            return Err(Error::invalid("the command has more than 65,535 values", "pass fewer descriptors"));
        }
        let part = if plan.shares_memory { self.memory.take() } else { None };
        let header = part.as_ref().map_or_else(CommandHeader::copied, SharedPart::header);
        let words = at(header.address);
        if words.bytes().len() as u64 <= COMMAND_LEN {
            match self.channel.send_all(header, words.bytes(), &sent.fds, deadline) {
                Ok(Delivery::Sent) => return Ok(part),
                Ok(Delivery::TooLarge) => {}
                Ok(Delivery::HelperExited) => return Err(self.end_without_helper()),
                Err(error) => {
                    part.into_iter().for_each(SharedPart::release);
                    return Err(error);
                }
            }
        }
        part.into_iter().for_each(SharedPart::release);
        self.send_long(plan, sent, deadline).map(|()| None)
    }

    /// Sends a command whose script is too large for a message.
    fn send_long(&self, plan: &CommandPlan, sent: &Sent, deadline: Deadline) -> Result<()> {
        let words = self.layout(Part::Command, &plan.script, sent, LONG_COMMAND);
        let len = words.bytes().len() as u64;
        if len > LONG_COMMAND_LEN {
            let remedy = "pass fewer or shorter arguments and environment variables";
            return Err(Error::invalid("the command is larger than 32 MiB", remedy));
        }
        let file = memory_file::of_bytes(words.bytes())?;
        let fds: Vec<RawFd> = sent.fds.iter().copied().chain([file.as_raw_fd()]).collect();
        let header = CommandHeader::copied();
        let loader = self.layout(Part::Loader, &loader(&plan.script, len), sent, header.address);
        match self.channel.send_all(header, loader.bytes(), &fds, deadline)? {
            Delivery::Sent => Ok(()),
            Delivery::TooLarge => Err(Error::io("send a command to the helper of the session")(Errno::EMSGSIZE)),
            Delivery::HelperExited => Err(self.end_without_helper()),
        }
    }

    /// Ends a session whose helper has exited. Returns the error of the command.
    fn end_without_helper(&self) -> Error {
        let error = self.ended();
        let _ = self.end();
        error
    }

    fn layout(&self, part: Part, script: &Script, sent: &Sent, address: u64) -> ImageWords {
        let resolve = |input| match input {
            Input::Pass => self.pass,
            Input::OwnId => self.own_id.into(),
            Input::Value(value) => value,
            input => sent.number(input).into(),
        };
        #[cfg(feature = "_testing")]
        let fault = lock(&self.faults).of(part, script);
        #[cfg(not(feature = "_testing"))]
        let fault = None;
        Layout { script, tag: part.tag(), fault, resolve: &resolve }.at(address)
    }

    /// Waits until the program was executed: its process had the other end of the channel until then, and `part`, which is
    /// released. On an error, kills the process; `members` are those of its cgroup.
    fn wait_until_executed(
        &self,
        plan: &CommandPlan,
        channel: &Channel,
        part: Option<SharedPart<'_>>,
        deadline: Deadline,
        members: &Members,
    ) -> Result<StartedCommand> {
        let mut received = FromProcess { is_over: true, ..FromProcess::default() };
        let result = self.receive_until_executed(plan, channel, deadline, &mut received);
        let FromProcess { program, passed, mut has_released, is_over } = received;
        let result = match (program, result) {
            (Some((program, at)), Ok(())) => Ok(StartedCommand { program, at, passed }),
            (program, result) => {
                if let Some((mut program, _)) = program {
                    // It may be frozen.
                    let pid = program.pid();
                    has_released |= program
                        .finish_while(|| {
                            members.thaw();
                            freezer::release(pid);
                        })
                        .is_ok();
                }
                // The helper was killed, or stopped, from outside, and may have started the process nevertheless.
                let error = result.err().unwrap_or_else(|| self.ended());
                if is_over {
                    let _ = self.end();
                }
                Err(error)
            }
        };
        part.filter(|_| has_released).into_iter().for_each(SharedPart::release);
        result
    }

    /// Receives reports up to the end of the channel. Returns the first error among them.
    fn receive_until_executed(
        &self,
        plan: &CommandPlan,
        channel: &Channel,
        deadline: Deadline,
        from: &mut FromProcess,
    ) -> Result<()> {
        let mut failed = Ok(());
        loop {
            if !channel.is_ready(deadline)? {
                return Err(timed_out(plan, deadline));
            }
            let received = channel.receive(Report::longest(plan.search.candidates.len()))?;
            let Some(Received { report, fds, is_cut }) = received else {
                from.has_released = true;
                return failed;
            };
            if is_cut {
                failed = Err(handshake::cut());
            }
            from.is_over &= !matches!(report, Report::Started(..) | Report::NotCloned(_));
            match report {
                Report::Started(Pids { command, .. }, at) => match fds.into_iter().next() {
                    Some(pidfd) => from.program = Some((Process::from_parts(command, pidfd), since(at))),
                    // Nobody could wait for it.
                    None => handshake::kill_and_reap(Pids { command, init: 0 }),
                },
                Report::Passed => from.passed = fds.into_iter().next(),
                Report::Failed { part: Part::Loader, call, errno } => {
                    failed = Err(failure_of(&loader(&plan.script, 0), call, errno));
                }
                Report::Failed { call, errno, .. } => failed = Err(failure_of(&plan.script, call, errno)),
                Report::NotExecuted(failures) => failed = Err(not_executed(&plan.search, &failures)),
                Report::NotCloned(libc::ENOMEM) if self.init_has_exited() => {
                    from.is_over = true;
                    failed = Err(self.ended());
                }
                // It was killed and reaped.
                Report::NotCloned(libc::ESRCH) => failed = Err(Error::never_executed()),
                Report::NotCloned(errno) => failed = Err(not_cloned(errno)),
                _ => failed = Err(Error::died("read a report")),
            }
        }
    }

    /// Returns whether init has exited, or does so soon. No process can be cloned since it began to.
    fn init_has_exited(&self) -> bool {
        /// The time that it takes to kill the processes of the session, in milliseconds.
        const EXIT_TIME: u8 = 200;
        lock(&self.processes).as_ref().is_none_or(|processes| processes.init.has_exited(EXIT_TIME.into()) == Ok(true))
    }

    /// Returns the error of a command that was not started, because the helper or init has exited.
    fn ended(&self) -> Error {
        self.ended_or(Error::died("start the command"))
    }

    /// Returns the error of a process that was killed: if the caller has ended the session, that is why.
    fn ended_or(&self, other: Error) -> Error {
        if self.is_kill_requested() { Error::session_ended() } else { other }
    }
}

/// The process of a command whose program was executed.
struct StartedCommand {
    program: Process,
    at: Instant,
    /// The descriptor that it has opened for the caller.
    passed: Option<OwnedFd>,
}

/// What was received from the helper and from the process of a command.
#[derive(Default)]
struct FromProcess {
    program: Option<(Process, Instant)>,
    passed: Option<OwnedFd>,
    /// Whether the process does not have the memory of the helper any more.
    has_released: bool,
    /// Whether no command can be started: the helper does not answer, or init has exited.
    is_over: bool,
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

/// Returns the error of a process that did not answer in time.
fn timed_out(plan: &CommandPlan, deadline: Deadline) -> Error {
    let opens = plan.search.candidates.is_empty();
    let (step, remedy) = match opens {
        true => (
            "open a file or a socket inside the session",
            "have the program that listens accept connections, kill the one that has stopped the process, or raise \
             Sandbox::setup_timeout",
        ),
        false => (
            "execute the program",
            "kill the program of the session that has stopped the process, end the session, or raise \
             Sandbox::setup_timeout",
        ),
    };
    Error::timed_out(step, deadline.limit).advised(Some(remedy.into()))
}

/// Compiles the script that reads a larger one from a file, and goes on with it.
fn loader(larger: &Script, len: u64) -> Script {
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
            "raise the limit on processes that is reached (RLIMIT_NPROC, pids.max, kernel.pid_max), or end the session, \
             whose programs may have too many",
        ),
        libc::ENOMEM => {
            Some("init was killed from outside, or memory is short: look in the kernel's log for the reason")
        }
        _ => None,
    };
    Error::set_up("start the process of the command", "clone", Errno::from_raw(errno), remedy)
}
