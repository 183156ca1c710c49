//! Launches a plan: writes the image, clones the helper, answers its requests, and reads its reports.
//!
//! This room knows plans. It does not know the layers that wrote their calls.

mod busy;
mod command_cgroups;
mod command_memory;
mod control_pipe;
mod descriptors;
mod filter_pass;
mod handshake;
mod host_ids;
mod id_maps;
mod idmapped_mount;
mod image;
mod kill_switch;
mod listener;
mod live_session;
mod memory_file;
mod minimal_filter;
mod placeholder;
pub(crate) mod probe_script;
mod process;
mod reaper;
mod relay;
mod reopen;
mod running;
mod session_spawn;
mod setuid_helpers;
mod setup_deadline;
mod streams;
mod terminal;
mod traced_threads;
mod unkillable;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use busy::while_busy;
use command_cgroups::CommandCgroups;
use command_memory::CommandMemory;
use control_pipe::ControlPipe;
pub(crate) use host_ids::OWN_IDS;
use host_ids::Reserved;
pub(crate) use idmapped_mount::{can_idmap, maps_of_nobody};
pub(crate) use kill_switch::KillSwitch;
pub(crate) use listener::Listener;
pub(crate) use live_session::LaunchedSession;
use live_session::SessionProcesses;
pub(crate) use minimal_filter::{NO_ROOM, Remaining, allow_only, check_filters};
use placeholder::HeldPlaceholder;
pub(crate) use placeholder::is_placeholder_directory;
use process::Process;
use running::Keeper;
pub(crate) use running::{ReapedSandbox, Running};
use setup_deadline::Deadline;
pub(crate) use setup_deadline::poll_timeout;
pub(crate) use terminal::Modes;

use crate::cgroup::{CreatedCgroup, Spec};
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::plan::{Input, Part, Pids, Plan};
use crate::sys::affinity::{PinnedCpu, Processors};
use crate::sys::layout::Layout;
use handshake::{Channel, Ready, Started, Watched};
use image::Image;
use streams::Streams;

/// Launches a plan. Returns once the program was executed.
pub(crate) fn launch(plan: &Plan, cgroup: Option<&Spec>) -> Result<Running> {
    reaper::reap_abandoned();
    let deadline = Deadline::of(plan.setup_timeout);
    while_busy(|| Launch::prepare(plan, cgroup)?.run(deadline))
}

/// Launches the set-up of a session. Returns once its helper waits for commands.
pub(crate) fn launch_session(plan: &Plan, cgroup: Option<&Spec>) -> Result<LaunchedSession> {
    reaper::reap_abandoned();
    Launch::prepare(plan, cgroup)?.run_session(Deadline::of(plan.setup_timeout))
}

/// A launch in progress, with the resources that it holds in the caller.
struct Launch<'a> {
    plan: &'a Plan,
    spec: Option<&'a Spec>,
    own_id: u32,
    reserved: Option<Reserved>,
    pass: u64,
    /// A pidfd of the caller.
    caller: OwnedFd,
    processors: Processors,
    control: ControlPipe,
    /// User namespaces with the ID mappings of idmapped mounts.
    mappings: Vec<Arc<OwnedFd>>,
    cgroup: Option<CreatedCgroup>,
    placeholders: Vec<HeldPlaceholder>,
    streams: Streams,
}

/// What a set-up has started.
struct StartedHelper<T> {
    helper: Process,
    channel: Channel,
    image: Image,
    /// What was made of the last report.
    taken: T,
}

/// The inputs whose values are known only when the image of the helper is created.
#[derive(Default)]
struct ImageInputs {
    report: RawFd,
    image: RawFd,
    data: RawFd,
    /// The first and the last descriptor of each gap between those that the image keeps.
    gaps: Vec<(u64, u64)>,
}

impl<'a> Launch<'a> {
    fn prepare(plan: &'a Plan, spec: Option<&'a Spec>) -> Result<Self> {
        // Checked first: descriptors that are opened from here on may take the numbers of closed standard streams.
        let inherited = streams::inherited();
        let control = ControlPipe::new().map_err(Error::io("create the control pipe"))?;
        let reserved = plan.own_ids.map(|range| id_maps::own_id(&control, range)).transpose()?;
        let own_id = reserved.as_ref().map_or(0, |reserved| reserved.id);
        let caller = process::own_pidfd().map_err(Error::io("open a pidfd of the caller"))?;
        let streams = Streams::open(&plan.inherited, inherited, own_id, caller.as_fd())?;
        let processors = Processors::of_thread();
        let mut launch = Self {
            plan,
            spec,
            own_id,
            reserved,
            pass: filter_pass::new(),
            caller,
            processors,
            control,
            mappings: vec![],
            cgroup: None,
            placeholders: vec![],
            streams,
        };
        for placeholder in &plan.placeholders {
            launch.placeholders.extend(HeldPlaceholder::take(placeholder)?);
        }
        for maps in &plan.id_mappings {
            launch.mappings.push(idmapped_mount::namespace(maps, own_id, launch.caller.as_fd())?);
        }
        Ok(launch)
    }

    fn layout<'l>(&'l self, part: Part, resolve: &'l dyn Fn(Input) -> u64) -> Layout<'l> {
        let fault = self.plan.fault.filter(|(faulty, _)| *faulty == part).map(|(_, call)| call);
        Layout { script: self.plan.script(part), tag: part.tag(), fault, resolve }
    }

    /// Returns the value of an input.
    fn input(&self, input: Input, image_inputs: &ImageInputs) -> u64 {
        let fd = match input {
            Input::Value(value) => return value,
            Input::Pass => return self.pass,
            Input::Comparison { instruction, shift } => {
                return u64::from(instruction) | (self.pass >> shift) << 32;
            }
            Input::OwnId => return self.own_id.into(),
            Input::OwnIdText(half) => return id_maps::text(self.own_id, half),
            Input::Affinity(word) => return self.processors.0[word as usize],
            Input::GapFirst(gap) => return image_inputs.gap(gap).0,
            Input::GapLast(gap) => return image_inputs.gap(gap).1,
            Input::Control => self.control.read_end(),
            Input::CallerPidfd => self.caller.as_raw_fd(),
            Input::Report => image_inputs.report,
            Input::Image => image_inputs.image,
            Input::Data => image_inputs.data,
            Input::Descriptor(index) => self.plan.inherited.descriptors[index as usize].as_raw_fd(),
            Input::Stdio(number) => self.streams.program[number as usize],
            Input::Handed(index) => self.streams.further(index),
            // Of commands of a session alone.
            Input::CgroupEntry(_) | Input::ScriptFile => -1,
            Input::IdMapping(index) => self.mappings[index as usize].as_raw_fd(),
        };
        fd as u64
    }

    /// Starts the helper, and waits until the program was executed.
    fn run(mut self, deadline: Deadline) -> Result<Running> {
        let StartedHelper { helper, taken: started, .. } = self.set_up(deadline, handshake::started)?;
        self.running(helper, started, deadline)
    }

    /// Starts the helper of a session, and waits until it is confined.
    fn run_session(mut self, deadline: Deadline) -> Result<LaunchedSession> {
        let StartedHelper { helper, channel, image, taken: ready } = self.set_up(deadline, handshake::ready)?;
        if let Some(cgroup) = &self.cgroup {
            // The process that has created the cgroup namespace.
            handshake::kill_and_reap(Pids { init: 0, ..image.started() });
            cgroup.pass_on()?;
        }
        image.close_off().map_err(Error::io("change the mode of the helper's image"))?;
        let Self { own_id, reserved, pass, caller, control, cgroup, placeholders, .. } = self;
        let Ready { init, listener, namespaces } = ready;
        Ok(LaunchedSession {
            creator: Creator::this(),
            channel,
            memory: CommandMemory::default(),
            image,
            pass,
            own_id,
            init: init.pid(),
            caller,
            namespaces,
            listener: listener.map(Listener::new),
            started: Instant::now(),
            is_kill_requested: AtomicBool::new(false),
            is_frozen: AtomicBool::new(false),
            ending: Mutex::default(),
            has_ended: AtomicBool::new(false),
            last: Mutex::default(),
            cgroup: Mutex::new(cgroup),
            command_cgroups: CommandCgroups::default(),
            processes: Mutex::new(Some(SessionProcesses { helper, init, control, reserved, placeholders })),
            #[cfg(feature = "_testing")]
            faults: Mutex::default(),
        })
    }

    /// Starts the helper, and waits until `take` accepts a report.
    fn set_up<T>(&mut self, deadline: Deadline, take: handshake::Take<T>) -> Result<StartedHelper<T>> {
        let (channel, report) = Channel::new()?;
        let mut image = Image::new().map_err(image::refused)?;
        let mut image_inputs = ImageInputs { report: report.as_raw_fd(), data: image.data(), ..ImageInputs::default() };
        let written = image.write(&self.layout(Part::Helper, &|input| self.input(input, &image_inputs)));
        written.map_err(image::refused)?;
        image_inputs.image = image.executable();
        image_inputs.gaps = self.gaps(&image_inputs);
        let helper = self.start(&self.layout(Part::Stub, &|input| self.input(input, &image_inputs)))?;
        drop(report);
        // The helper runs at the same time. If it receives no descriptor of the cgroup, it fails too, and its report
        // says less about the cause than this error.
        let cgroup_error = self.create_cgroup(&channel).inspect_err(|_| channel.send_no_more()).err();
        let control = &self.control;
        let watched = Watched { plan: self.plan, helper: &helper, image: &image, control, deadline };
        let taken = channel.wait_until(watched, cgroup_error, || self.write_maps(&helper), take);
        // The kernel kills a process of the set-up if the memory limit is too low for it. The kill is counted in the
        // caller's cgroup if the process still shared the caller's memory, so only the limit itself is checked.
        let out_of_memory = || self.cgroup.as_ref().is_some_and(CreatedCgroup::exceeded_memory_limit);
        let taken = taken.map_err(|error| if out_of_memory() { error.for_memory() } else { error })?;
        Ok(StartedHelper { helper, channel, image, taken })
    }

    /// Takes over the processes of a sandbox whose program was executed.
    fn running(mut self, mut helper: Process, started: Started, deadline: Deadline) -> Result<Running> {
        if started.init.is_some() {
            // The helper exits by itself now. Waiting here avoids killing it, which takes longer.
            let _ = helper.has_exited(deadline.left());
            helper.finish().map_err(Error::io("wait for the helper"))?;
        }
        let keeper = started.init.map_or_else(|| Keeper::Helper(helper), Keeper::Init);
        let (streams, held) = self.streams.take();
        let members = self.cgroup.as_ref().map(CreatedCgroup::members).unwrap_or_default();
        let init = if let Keeper::Init(init) = &keeper { Some(init) } else { None };
        let kill_switch = KillSwitch::new(&started.program, init, members, self.control);
        Ok(Running {
            creator: Creator::this(),
            program: started.program,
            keeper,
            kill_switch: Some(Arc::new(kill_switch)),
            streams,
            pty: started.pty,
            listener: started.listener.map(Listener::new),
            namespaces: started.namespaces,
            started: started.at,
            held,
            lost: vec![],
            cgroup: self.cgroup.take(),
            reserved: self.reserved.take(),
            placeholders: self.placeholders,
        })
    }

    /// Creates the cgroup, and sends the helper the descriptors by which the program enters it.
    fn create_cgroup(&mut self, channel: &Channel) -> Result<()> {
        let Some(spec) = self.spec else { return Ok(()) };
        self.cgroup.insert(CreatedCgroup::create(spec)?).entries().try_for_each(|entry| channel.send(entry))
    }

    /// Writes the ID maps of the helper's user namespace, and resumes the helper.
    fn write_maps(&self, helper: &Process) -> Result<()> {
        if let Some(maps) = &self.plan.maps {
            id_maps::write(helper.pid(), maps, self.own_id)?;
        }
        self.control.write().map_err(Error::io("resume the helper"))
    }

    /// Clones the helper, which first executes the stub.
    fn start(&self, stub: &Layout<'_>) -> Result<Process> {
        // The helper runs on the CPU of this thread, unless this thread creates a cgroup at the same time.
        let waits = self.spec.is_none();
        let _pinned = waits.then(|| PinnedCpu::on_one_of(self.processors));
        Process::clone(0, stub, "start the helper")
    }

    /// Returns the gaps between the descriptors that the image keeps.
    fn gaps(&self, image_inputs: &ImageInputs) -> Vec<(u64, u64)> {
        let inputs = self.plan.helper.inputs();
        let mut kept: Vec<u64> =
            inputs.filter(|input| input.is_descriptor()).map(|i| self.input(i, image_inputs)).collect();
        kept.push(image_inputs.image as u64);
        gaps(kept)
    }
}

/// Returns the ranges of descriptor numbers that are not in `kept`, which the stub closes. Each is a first and a last
/// number.
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

impl ImageInputs {
    /// Returns a gap by index. After the last one, returns a range of numbers that no descriptor has.
    fn gap(&self, index: u16) -> (u64, u64) {
        const NONE: u64 = u32::MAX as u64 - 1;
        self.gaps.get(index as usize).copied().unwrap_or((NONE, NONE))
    }
}
