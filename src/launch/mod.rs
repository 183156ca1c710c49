//! Runs a plan: the images, the clones, the handshake over the id maps, and the reports of the processes.
//!
//! This is the one room with `unsafe` code. It knows what a plan is, and nothing of the features that wrote it.
#![deny(unsafe_op_in_unsafe_fn)]

mod host;
mod identity;
mod image;
mod interpreter;
mod layout;
mod process;
mod reports;
mod running;
mod strays;
mod streams;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};

use process::Process;

use crate::error::{Error, Result};
use crate::plan::{self, Birth, Init, Input, Part, Plan};
use layout::Layout;
use reports::{Channel, Heard};
use streams::Streams;

/// A sandbox whose program runs.
#[derive(Debug)]
pub(crate) struct Launched {
    program: Process,
    /// The init, and a helper that stays: both end when `control` closes.
    keepers: Vec<Process>,
    /// Whether the kernel ends every process of the sandbox with the first keeper.
    has_pid_namespace: bool,
    /// Write end of the pipe whose closing ends the keepers.
    _control: OwnedFd,
    /// The host's ends of pipes.
    pub streams: [Option<OwnedFd>; 3],
    pub pty: Option<OwnedFd>,
    started: Instant,
}

/// The longest pause before a busy program is tried again; the pauses double from 1 ms.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// Starts what the plan says.
pub(crate) fn launch(plan: &Plan) -> Result<Launched> {
    let mut launch = Launch::prepare(plan)?;
    let init = plan.init.as_ref().map(|init| launch.start_init(init)).transpose()?;
    let mut pause = Duration::from_millis(1);
    let (program, pty, helper) = loop {
        let (mut helper, channel) = launch.start_helper(init.as_ref())?;
        match channel.hear(plan, init.as_ref().map(|init| &init.channel))? {
            Heard::Started { program, pty } if plan.helper_stays => break (program, pty, Some(helper)),
            Heard::Started { program, pty } => {
                helper.wait().map_err(Error::host("waiting for the helper"))?;
                break (program, pty, None);
            }
            // Another thread of the host has just written the program, and a child of it that has not executed its
            // own yet holds a copy of the descriptor.
            Heard::Busy(_) if pause <= LONGEST_PAUSE => std::thread::sleep(pause),
            Heard::Busy(error) => return Err(error),
        }
        pause *= 2;
    };
    let started = Instant::now();
    let keepers = init.map(|init| init.process).into_iter().chain(helper).collect();
    let streams = std::mem::take(&mut launch.streams.host);
    let _control = launch.control.1;
    Ok(Launched { program, keepers, has_pid_namespace: !plan.helper_stays, _control, streams, pty, started })
}

/// What the launch of a plan has open in the host.
struct Launch<'a> {
    plan: &'a Plan,
    own_id: u32,
    host: OwnedFd,
    /// Read end, for the processes of the sandbox, and write end.
    control: (OwnedFd, OwnedFd),
    mappings: Vec<OwnedFd>,
    made: Option<host::Made>,
    streams: Streams,
}

/// An init that has its id maps.
struct StartedInit {
    process: Process,
    channel: Channel,
    /// Where the helper waits for it.
    gate: OwnedFd,
}

/// The values of the inputs that are not the same for both processes.
#[derive(Default)]
struct Ends {
    report: RawFd,
    gate: RawFd,
    init: RawFd,
    image: RawFd,
    /// First and last descriptor of each gap between those that are kept.
    gaps: Vec<(u64, u64)>,
}

impl<'a> Launch<'a> {
    fn prepare(plan: &'a Plan) -> Result<Self> {
        // Asked first: what is opened from here on takes the lowest numbers.
        let inherited = streams::inherited();
        let control = pipe2(OFlag::O_CLOEXEC).map_err(Error::host("making the control pipe"))?;
        let own_id = identity::own_id(&control.0, plan.own_ids)?;
        let host = process::own_pidfd().map_err(Error::host("opening a pidfd of the host"))?;
        let streams = Streams::open(plan, inherited, own_id)?;
        let mut launch = Self { plan, own_id, host, control, mappings: vec![], made: None, streams };
        for maps in &plan.id_mappings {
            launch.mappings.push(identity::namespace(maps, own_id, launch.host.as_fd())?);
        }
        let ends = Ends::default();
        let made = host::make(&launch.layout(Part::Host, &|input| launch.input(input, &ends)));
        let made = made.map_err(|(call, errno)| reports::failure(plan, Part::Host, call, errno as i32))?;
        launch.made = Some(made);
        Ok(launch)
    }

    fn layout<'l>(&'l self, part: Part, resolve: &'l dyn Fn(Input) -> u64) -> Layout<'l> {
        let fault = self.plan.fault.filter(|(faulty, _)| *faulty == part).map(|(_, call)| call);
        let program = self.plan.program(part).unwrap_or(&self.plan.host);
        Layout { program, tag: part.tag(), fault, resolve }
    }

    /// The value of an input.
    fn input(&self, input: Input, ends: &Ends) -> u64 {
        let fd = match input {
            Input::Value(value) => return value,
            Input::OwnId => return self.own_id.into(),
            Input::GapFirst(gap) => return ends.gap(gap).0,
            Input::GapLast(gap) => return ends.gap(gap).1,
            Input::FromHost(slot) => return self.made.as_ref().map_or(u64::MAX, |made| made.get(slot)),
            Input::Control => self.control.0.as_raw_fd(),
            Input::Host => self.host.as_raw_fd(),
            Input::Report => ends.report,
            Input::GateRead | Input::GateWrite => ends.gate,
            Input::Init => ends.init,
            Input::Image => ends.image,
            Input::Descriptor(index) => self.plan.descriptors[index as usize].as_raw_fd(),
            Input::Stdio(number) => self.streams.program[number as usize],
            Input::IdMapping(index) => self.mappings[index as usize].as_raw_fd(),
        };
        fd as u64
    }

    fn start_init(&self, init: &Init) -> Result<StartedInit> {
        let gate = pipe2(OFlag::O_CLOEXEC).map_err(Error::host("making a pipe"))?;
        let (channel, report) = Channel::new()?;
        let ends = Ends { report: report.as_raw_fd(), gate: gate.1.as_raw_fd(), ..Ends::default() };
        let process = self.start([Part::InitStub, Part::InitImage], ends, init.birth)?;
        drop((report, gate.1));
        let told = match &init.maps {
            Some(maps) => identity::write(process.pid(), maps, self.own_id),
            None => Ok(()),
        };
        // What the init has met is the cause of what the host meets with it.
        told.map_err(|error| channel.pending(self.plan).unwrap_or(error))?;
        write(&self.control.1, b"\x01").map_err(Error::host("letting the init go on"))?;
        Ok(StartedInit { process, channel, gate: gate.0 })
    }

    fn start_helper(&self, init: Option<&StartedInit>) -> Result<(Process, Channel)> {
        let (channel, report) = Channel::new()?;
        let ends = Ends {
            report: report.as_raw_fd(),
            gate: init.map_or(-1, |init| init.gate.as_raw_fd()),
            init: init.map_or(-1, |init| init.process.as_fd().as_raw_fd()),
            ..Ends::default()
        };
        Ok((self.start([Part::HelperStub, Part::HelperImage], ends, Birth::Cloned(0))?, channel))
    }

    /// Starts a process of the sandbox: returns when it has executed its image, or has failed and said so.
    fn start(&self, [stub, image]: [Part; 2], mut ends: Ends, birth: Birth) -> Result<Process> {
        let executable = image::executable(&self.layout(image, &|input| self.input(input, &ends)));
        let executable = executable.map_err(|errno| {
            let remedy = "set vm.memfd_noexec to 0 or 1, or TMPDIR to a file system where programs may be executed";
            let step = "writing an image to a memfd, or to an unnamed file in TMPDIR";
            Error::set_up(step, "memfd_create", errno, Some(remedy))
        })?;
        ends.image = executable.as_raw_fd();
        ends.gaps = self.gaps(image, &ends);
        let mut memory = self.layout(stub, &|input| self.input(input, &ends)).in_place();
        let (flags, launched) = match birth {
            Birth::Cloned(namespaces) => (namespaces, None),
            Birth::Launched { pid, pidfd } => (libc::CLONE_FILES as u64, Some((pid, pidfd))),
        };
        let cloned = interpreter::clone(flags | libc::CLONE_VFORK as u64, &mut memory)
            .map_err(|errno| refused("making the sandbox's namespaces", errno))?;
        let process = Process::new(cloned);
        match launched {
            None => Ok(process),
            Some((pid, pidfd)) => process::taken_over(process, memory[pid.0 as usize], memory[pidfd.0 as usize]),
        }
    }

    /// The gaps between the descriptors that an image keeps.
    fn gaps(&self, image: Part, ends: &Ends) -> Vec<(u64, u64)> {
        let inputs = self.plan.program(image).into_iter().flat_map(plan::Program::inputs);
        let mut kept: Vec<u64> = inputs.filter(|input| input.is_descriptor()).map(|i| self.input(i, ends)).collect();
        kept.push(ends.image as u64);
        kept.sort_unstable();
        let mut gaps = vec![];
        let mut first = 0;
        for fd in kept {
            if fd > first {
                gaps.push((first, fd - 1));
            }
            first = first.max(fd + 1);
        }
        gaps.push((first, u64::from(u32::MAX)));
        gaps
    }
}

impl Ends {
    /// A gap by index; past the last one, numbers that no descriptor has.
    fn gap(&self, index: u16) -> (u64, u64) {
        const NONE: u64 = u32::MAX as u64 - 1;
        self.gaps.get(index as usize).copied().unwrap_or((NONE, NONE))
    }
}

/// What a person does about a refused clone.
fn refused(step: &'static str, errno: Errno) -> Error {
    let remedy = match errno {
        Errno::ENOSPC => Some(
            "a limit on namespaces is reached: raise user.max_user_namespaces or its like for the other kinds (sysctl \
             user.max_net_namespaces …), or leave that namespace out",
        ),
        Errno::EPERM => Some(
            "this host forbids namespaces to this user: set kernel.unprivileged_userns_clone to 1 on Debian, allow \
             unshare and clone in the seccomp profile of the container, leave a chroot (in one the kernel makes no user \
             namespaces), or run as root",
        ),
        Errno::EAGAIN => Some("the limit on processes is reached (RLIMIT_NPROC, pids.max)"),
        Errno::EINVAL => Some("the kernel was built without one of these namespaces; leave it out"),
        _ => None,
    };
    Error::set_up(step, "clone", errno, remedy)
}
