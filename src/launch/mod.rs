//! Runs a plan: the images, the clones, the handshake over the id maps, and the reports of the processes.
//!
//! This is the one room with `unsafe` code. It knows what a plan is, and nothing of the features that wrote it.
#![deny(unsafe_op_in_unsafe_fn)]

mod affinity;
mod handed;
mod hindrance;
mod host;
mod identity;
mod idmap;
mod ids;
mod image;
mod interpreter;
mod layout;
mod listener;
mod pass;
mod placeholder;
mod privileged;
mod process;
mod reaper;
mod relay;
mod reopen;
mod reports;
mod running;
mod streams;
mod terminal;
pub(crate) mod trial;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollTimeout;
use nix::unistd::{pipe2, write};

use affinity::{Kept, Processors};
pub(crate) use idmap::can_idmap;
use ids::Reserved;
pub(crate) use listener::Listener;
use placeholder::Held;
use process::Process;

use crate::cgroup::Made;
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::plan::{Input, Part, Plan};
use crate::sys::priority::thread_has_deadlines;
use image::Image;
use layout::Layout;
use reports::{Channel, Watched};
use streams::Streams;

/// A sandbox whose program runs.
#[derive(Debug)]
pub(crate) struct Launched {
    creator: Creator,
    program: Process,
    /// The init, or a helper that stays: it ends when `control` closes.
    keeper: Process,
    /// Whether the kernel ends every process of the sandbox with the keeper.
    has_pid_namespace: bool,
    /// Both ends of the pipe whose closing ends the keeper. That the caller has the read end too keeps SIGPIPE from it.
    control: Option<(OwnedFd, OwnedFd)>,
    /// The host's ends of pipes.
    pub streams: [Option<OwnedFd>; 3],
    pub pty: Option<OwnedFd>,
    /// Where the calls come from that the seccomp filter hands to the host.
    pub listener: Option<Listener>,
    started: Instant,
    /// Of the descriptors that the program was handed.
    kept: handed::Kept,
    /// Removed when every process has ended.
    cgroup: Option<Made>,
    /// The host ID of the processes, released after them.
    reserved: Option<Reserved>,
    /// Let go when every process has ended.
    held: Vec<Held>,
}

/// The longest pause before a busy program is tried again; the pauses double from 1 ms.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// Starts what the plan says.
pub(crate) fn launch(plan: &Plan) -> Result<Launched> {
    reaper::collect();
    let deadline = Deadline::of(plan);
    let mut pause = Duration::from_millis(1);
    loop {
        match Launch::prepare(plan)?.run(deadline) {
            // Another thread of the host has just written the program, and a child of it that has not executed its
            // own yet holds a copy of the descriptor.
            Err(error) if error.is_busy() && pause <= LONGEST_PAUSE => std::thread::sleep(pause),
            other => return other,
        }
        pause *= 2;
    }
}

/// When a set-up that is not done is given up.
#[derive(Clone, Copy)]
struct Deadline {
    /// None lies beyond the end of the clock.
    at: Option<Instant>,
    limit: Duration,
}

impl Deadline {
    fn of(plan: &Plan) -> Self {
        let limit = plan.setup_timeout;
        Self { at: Instant::now().checked_add(limit), limit }
    }

    /// Time that is left, rounded up.
    fn left(self) -> PollTimeout {
        let Some(at) = self.at else { return PollTimeout::NONE };
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }
}

/// What the launch of a plan has open in the host.
struct Launch<'a> {
    plan: &'a Plan,
    own_id: u32,
    reserved: Option<Reserved>,
    pass: u64,
    host: OwnedFd,
    processors: Processors,
    /// Read end, for the processes of the sandbox, and write end.
    control: (OwnedFd, OwnedFd),
    mappings: Vec<Arc<OwnedFd>>,
    made: Option<host::Made>,
    cgroup: Option<Made>,
    held: Vec<Held>,
    streams: Streams,
}

/// The values of the inputs that the start of the helper brings.
#[derive(Default)]
struct Ends {
    report: RawFd,
    image: RawFd,
    data: RawFd,
    /// First and last descriptor of each gap between those that are kept.
    gaps: Vec<(u64, u64)>,
}

impl<'a> Launch<'a> {
    fn prepare(plan: &'a Plan) -> Result<Self> {
        // Asked first: what is opened from here on takes the lowest numbers.
        let inherited = streams::inherited();
        let control = pipe2(OFlag::O_CLOEXEC).map_err(Error::host("making the control pipe"))?;
        let reserved = plan.own_ids.map(|range| identity::own_id(&control.0, range)).transpose()?;
        let own_id = reserved.as_ref().map_or(0, |reserved| reserved.id);
        let host = process::own_pidfd().map_err(Error::host("opening a pidfd of the host"))?;
        let streams = Streams::open(plan, inherited, own_id, host.as_fd())?;
        let processors = Processors::of_thread();
        let mut launch = Self {
            plan,
            own_id,
            reserved,
            pass: pass::new(),
            host,
            processors,
            control,
            mappings: vec![],
            made: None,
            cgroup: None,
            held: vec![],
            streams,
        };
        for placeholder in &plan.placeholders {
            launch.held.extend(Held::take(placeholder)?);
        }
        for maps in &plan.id_mappings {
            launch.mappings.push(idmap::namespace(maps, own_id, launch.host.as_fd())?);
        }
        let ends = Ends::default();
        let made = host::make(&launch.layout(Part::Host, &|input| launch.input(input, &ends)));
        let made = made.map_err(|(call, errno)| reports::failure(plan, Part::Host, call, errno as i32))?;
        launch.made = Some(made);
        Ok(launch)
    }

    fn layout<'l>(&'l self, part: Part, resolve: &'l dyn Fn(Input) -> u64) -> Layout<'l> {
        let fault = self.plan.fault.filter(|(faulty, _)| *faulty == part).map(|(_, call)| call);
        Layout { program: self.plan.program(part), tag: part.tag(), fault, resolve }
    }

    /// The value of an input.
    fn input(&self, input: Input, ends: &Ends) -> u64 {
        let fd = match input {
            Input::Value(value) => return value,
            Input::Pass => return self.pass,
            Input::Comparison { instruction, shift } => {
                return u64::from(instruction) | (self.pass >> shift) << 32;
            }
            Input::OwnId => return self.own_id.into(),
            Input::OwnIdText(half) => return identity::text(self.own_id, half),
            Input::Affinity(word) => return self.processors.0[word as usize],
            Input::GapFirst(gap) => return ends.gap(gap).0,
            Input::GapLast(gap) => return ends.gap(gap).1,
            Input::FromHost(slot) => return self.made.as_ref().map_or(u64::MAX, |made| made.get(slot)),
            Input::Control => self.control.0.as_raw_fd(),
            Input::Host => self.host.as_raw_fd(),
            Input::Report => ends.report,
            Input::Image => ends.image,
            Input::Data => ends.data,
            Input::Descriptor(index) => self.plan.descriptors[index as usize].as_raw_fd(),
            Input::Stdio(number) => self.streams.program[number as usize],
            Input::Handed(index) => self.streams.further(index),
            Input::IdMapping(index) => self.mappings[index as usize].as_raw_fd(),
        };
        fd as u64
    }

    /// Starts the helper, and waits until the program runs.
    fn run(mut self, deadline: Deadline) -> Result<Launched> {
        let (channel, report) = Channel::new()?;
        let mut image = Image::new().map_err(image::refused)?;
        let mut ends = Ends { report: report.as_raw_fd(), data: image.data(), ..Ends::default() };
        let written = image.write(&self.layout(Part::Helper, &|input| self.input(input, &ends)));
        written.map_err(image::refused)?;
        ends.image = image.executable();
        ends.gaps = self.gaps(&ends);
        let memory = self.layout(Part::Stub, &|input| self.input(input, &ends)).in_place();
        let mut helper = self.start(memory)?;
        drop(report);
        // The helper is at work meanwhile, and fails where it finds no cgroup.
        let refused = self.make_cgroup(&channel).inspect_err(|_| channel.send_no_more()).err();
        let watched = Watched { plan: self.plan, helper: &helper, image: &image, deadline };
        let started = channel.hear(watched, refused, || self.write_maps(&helper));
        // The kernel counts a kill for the group of the process that it shares its memory with, which is the caller's.
        let out_of_memory = || self.cgroup.as_ref().is_some_and(Made::has_met_memory_limit);
        let started = started.map_err(|error| if out_of_memory() { error.for_memory() } else { error })?;
        helper.free_memory();
        let keeper = match started.init {
            Some(init) => {
                // It has nothing left to do but to exit.
                let _ = helper.has_ended(deadline.left());
                helper.finish().map_err(Error::host("waiting for the helper"))?;
                init
            }
            None => helper,
        };
        let (streams, kept) = self.streams.take();
        Ok(Launched {
            creator: Creator::this(),
            program: started.program,
            keeper,
            has_pid_namespace: !self.plan.helper_stays,
            control: Some(self.control),
            streams,
            pty: started.pty,
            listener: started.listener.map(Listener::new),
            started: started.at,
            kept,
            cgroup: self.cgroup.take(),
            reserved: self.reserved.take(),
            held: self.held,
        })
    }

    /// Makes the cgroup, and sends the helper what it is entered by.
    fn make_cgroup(&mut self, channel: &Channel) -> Result<()> {
        let Some(spec) = &self.plan.cgroup else { return Ok(()) };
        self.cgroup.insert(Made::create(spec)?).entries().try_for_each(|entry| channel.send(entry))
    }

    fn write_maps(&self, helper: &Process) -> Result<()> {
        if let Some(maps) = &self.plan.maps {
            identity::write(helper.pid(), maps, self.own_id)?;
        }
        write(&self.control.1, b"\x01").map_err(Error::host("letting the helper go on")).map(drop)
    }

    /// Starts the helper with its stub.
    fn start(&self, mut memory: Vec<u64>) -> Result<Process> {
        // With a cgroup to make, this thread has something to do meanwhile.
        let alone = self.plan.cgroup.is_none();
        let _kept = alone.then(|| Kept::on_one_of(self.processors));
        let cloned = interpreter::clone(0, &mut memory);
        cloned.map(|cloned| Process::new(cloned, memory)).map_err(|errno| refused("starting the helper", errno))
    }

    /// The gaps between the descriptors that an image keeps.
    fn gaps(&self, ends: &Ends) -> Vec<(u64, u64)> {
        let inputs = self.plan.helper.inputs();
        let mut kept: Vec<u64> = inputs.filter(|input| input.is_descriptor()).map(|i| self.input(i, ends)).collect();
        kept.push(ends.image as u64);
        gaps(kept)
    }
}

/// The gaps between descriptors that are kept.
fn gaps(mut kept: Vec<u64>) -> Vec<(u64, u64)> {
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
        Errno::EAGAIN if thread_has_deadlines() => Some(
            "a thread with the policy SCHED_DEADLINE can't start a process (sched(7)): spawn from another thread, or set \
             SCHED_FLAG_RESET_ON_FORK",
        ),
        Errno::ENOSPC => Some("the limit on user namespaces is reached: raise user.max_user_namespaces (sysctl)"),
        Errno::EPERM => Some("the seccomp profile of the container forbids it: allow clone and clone3"),
        Errno::EAGAIN => Some("the limit on processes is reached (RLIMIT_NPROC, pids.max)"),
        _ => None,
    };
    Error::set_up(step, "clone", errno, remedy)
}
