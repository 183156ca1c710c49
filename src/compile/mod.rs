//! Compiles a configuration and a command to a plan: first the decisions (`decisions.rs`), then the steps in their
//! order (`order.rs`). It is the only room that knows every layer; how a layer works does not belong here.

mod config;
mod decisions;
mod helper;
mod init;
mod job;
mod order;
mod session_helper;

use std::fmt::{self, Display, Formatter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::{Cgroup, Spec};
use crate::confine::seccomp::SetUpUnderFilter;
use crate::confine::{Bounds, Capability, Namespaces, Policy};
use crate::error::{Error, Result};
use crate::outcome::{Enforcement, Unenforced};
#[cfg(feature = "_testing")]
use crate::plan::Part;
use crate::plan::{CommandPlan, Inherited, Plan, Search, Stream};
use crate::sys::priority::Preferences;
use crate::trace;
pub(crate) use config::SandboxConfig;
use decisions::Decisions;
use job::search;
pub(crate) use job::{Job, StreamSource, Terminal};
use order::Order;
pub(crate) use session_helper::{InsideAddress, Opened, SessionFrame};

/// A compiled sandbox and command: a plan of all system calls of the set-up.
///
/// [`Sandbox::plan`](crate::Sandbox::plan) creates it. It can be spawned any number of times.
///
/// Its `Display` lists every system call with its arguments, under the step to which it belongs. A placeholder such as
/// `<report>` stands for a value that is known only during the spawn, such as the number of a descriptor.
///
/// ```
/// use stockade::{Command, Sandbox};
///
/// let compiled = Sandbox::new().plan(Command::new("true"))?;
/// println!("{compiled}");
/// for _ in 0..2 {
///     assert!(compiled.spawn()?.wait()?.success());
/// }
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(crate) plan: Plan,
    pub(crate) cgroup: Option<Spec>,
    pub(crate) supervision: Supervision,
    pub(crate) enforcement: Enforcement,
}

/// What the caller supervises while the program runs.
#[derive(Clone, Debug)]
pub(crate) struct Supervision {
    pub bounds: Bounds,
    /// The policy that decides the calls which the seccomp filter passes to the caller, if there are any.
    pub policy: Option<Arc<Policy>>,
    /// Whether a callback decides some of them.
    pub needs_callback: bool,
    /// The caller's preferences that the program does not inherit. A thread that has others cannot launch the plan.
    pub reset_preferences: Preferences,
}

impl Display for Compiled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

#[cfg(feature = "_testing")]
impl Compiled {
    /// Returns the calls of a part, each with whether it is always made and its failure fails the launch. For fault
    /// tests.
    #[doc(hidden)]
    pub fn calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        self.plan.calls(part)
    }

    /// Replaces a call by one that no kernel has, so that it fails with `ENOSYS`. For fault tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_fault(self, part: Part, call: usize) -> Self {
        Self { plan: self.plan.with_fault(part, call), ..self }
    }
}

/// Compiles a sandbox and a command. `unenforced` are the layers that best effort has dropped already.
pub(crate) fn compile(
    config: &SandboxConfig,
    job: &Job<'_>,
    unenforced: Vec<Unenforced>,
    can_idmap: fn(&Path) -> Option<bool>,
) -> Result<Compiled> {
    trace::compiling(Some(job.program), || compile_untraced(config, job, unenforced, can_idmap))
}

fn compile_untraced(
    config: &SandboxConfig,
    job: &Job<'_>,
    unenforced: Vec<Unenforced>,
    can_idmap: fn(&Path) -> Option<bool>,
) -> Result<Compiled> {
    let masked = with_landlock_masks(config);
    let config = masked.as_ref().unwrap_or(config);
    let env = job.env_over(&config.env);
    let job = &Job { env: &env, ..job.clone() };
    let mut order = Order::of(config, SetUpUnderFilter::OfProgram, unenforced, can_idmap)?;
    let (stdio, input) = streams(job, &mut order.descriptors)?;
    let search = search(job)?;
    let helper = order.helper(job, &stdio, &search)?;
    let bounds = bounds(config, order.decisions.allows_tracing(), &stdio);
    let policy = order.decisions.supervised_policy();
    let supervision = Supervision {
        bounds,
        policy,
        needs_callback: config.seccomp.needs_callback(),
        reset_preferences: order.reset_preferences,
    };
    let inherited = order.inherited(stdio, input, bounds.file_size);
    let (cgroup, enforcement) = (order.decisions.cgroup.take(), std::mem::take(&mut order.enforcement));
    Ok(Compiled { plan: order.plan(helper, inherited, search)?, cgroup, supervision, enforcement })
}

/// A compiled session: its set-up, and what its commands depend on.
#[derive(Clone, Debug)]
pub struct CompiledSession {
    pub(crate) plan: Plan,
    pub(crate) cgroup: Option<Spec>,
    pub(crate) enforcement: Enforcement,
    /// The policy that decides the calls which the seccomp filter passes to the caller, if there are any.
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) frame: SessionFrame,
}

#[cfg(feature = "_testing")]
#[allow(missing_docs)]
impl CompiledSession {
    /// See [`Compiled::calls`].
    pub fn calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        self.plan.calls(part)
    }

    /// See [`Compiled::with_fault`].
    #[must_use]
    pub fn with_fault(self, part: Part, call: usize) -> Self {
        Self { plan: self.plan.with_fault(part, call), ..self }
    }
}

/// Compiles a session. `unenforced` are the layers that best effort has dropped already.
pub(crate) fn compile_session(
    config: &SandboxConfig,
    unenforced: Vec<Unenforced>,
    can_idmap: fn(&Path) -> Option<bool>,
) -> Result<CompiledSession> {
    trace::compiling(None, || compile_session_untraced(config, unenforced, can_idmap))
}

fn compile_session_untraced(
    config: &SandboxConfig,
    unenforced: Vec<Unenforced>,
    can_idmap: fn(&Path) -> Option<bool>,
) -> Result<CompiledSession> {
    let masked = with_landlock_masks(config);
    let config = masked.as_ref().unwrap_or(config);
    let mut order = Order::of(config, SetUpUnderFilter::OfSession, unenforced, can_idmap)?;
    check_session(&order.decisions)?;
    let helper = order.session()?;
    let frame = order.frame();
    // Those of every command.
    frame.rlimits()?;
    let policy = order.decisions.supervised_policy();
    let inherited = order.inherited([Stream::Null; 3], Arc::default(), None);
    let (cgroup, enforcement) = (order.decisions.cgroup.take(), std::mem::take(&mut order.enforcement));
    Ok(CompiledSession { plan: order.plan(helper, inherited, Search::default())?, cgroup, enforcement, policy, frame })
}

/// Refuses what a session cannot have.
fn check_session(decisions: &Decisions<'_>) -> Result<()> {
    if !decisions.creates(Namespaces::PID) {
        return Err(Error::invalid(
            "a session needs a PID namespace, with which its processes end, and in which they cannot reach what starts them",
            "add Namespaces::PID, or use Sandbox::spawn for each command",
        ));
    }
    // It is a word in the memory of each process that a command starts with.
    let reads_pass = decisions.config.capabilities.has(Capability::SysPtrace) && !decisions.creates(Namespaces::USER);
    if reads_pass && decisions.filter.is_some() {
        return Err(Error::invalid(
            "a session whose programs keep CAP_SYS_PTRACE without a user namespace of its own cannot have a seccomp filter: they \
             could read the number by which the filter lets the calls of its helper through",
            "add Namespaces::USER, remove the capability, set Seccomp::unconfined, or use Sandbox::spawn for each command",
        ));
    }
    if decisions.config.seccomp.needs_callback() {
        return Err(Error::invalid(
            "a session cannot have a seccomp policy with calls for a callback (Action::Notify)",
            "remove Action::Notify, or use Sandbox::spawn_supervised for each command",
        ));
    }
    Ok(())
}

/// Compiles a command of a session. Returns the limits that the caller enforces too.
pub(crate) fn compile_command(frame: &SessionFrame, job: &Job<'_>) -> Result<(CommandPlan, Bounds)> {
    trace::compiling(Some(job.program), || compile_command_untraced(frame, job))
}

fn compile_command_untraced(frame: &SessionFrame, job: &Job<'_>) -> Result<(CommandPlan, Bounds)> {
    let env = job.env_over(&frame.config.env);
    let job = &Job { env: &env, ..job.clone() };
    let (mut descriptors, mut handed) = (vec![], vec![]);
    let (stdio, input) = streams(job, &mut descriptors)?;
    let search = search(job)?;
    let script = order::command(frame, job, &stdio, &search, (&mut descriptors, &mut handed))?;
    let bounds = bounds(&frame.config, frame.allows_tracing, &stdio);
    let (most_written, owner) = (bounds.file_size, frame.owner);
    let inherited = Inherited { stdio, input, descriptors, handed, most_written, owner, without_terminals: true };
    Ok((frame.plan(script, inherited, search), bounds))
}

/// Compiles what a process of a session does to open something for the caller.
pub(crate) fn compile_opening(frame: &SessionFrame, opened: &Opened) -> Result<CommandPlan> {
    let inherited = Inherited {
        stdio: [Stream::Null; 3],
        input: Arc::default(),
        descriptors: vec![],
        handed: vec![],
        most_written: None,
        owner: None,
        without_terminals: true,
    };
    let script = session_helper::opening(frame, opened)?;
    Ok(frame.plan(script, inherited, Search::default()))
}

/// Returns the standard streams, and the bytes that the program reads from standard input.
fn streams(job: &Job<'_>, descriptors: &mut Vec<Arc<OwnedFd>>) -> Result<([Stream; 3], Arc<[u8]>)> {
    let mut input = Arc::default();
    let mut lower = |stream: StreamSource| stream.lower(descriptors, &mut input);
    let [stdin, stdout, stderr] = job.stdio.clone();
    let streams = [lower(stdin)?, lower(stdout)?, lower(stderr)?];
    Ok((streams, input))
}

/// Returns the limits that the caller enforces.
fn bounds(config: &SandboxConfig, allows_tracing: bool, stdio: &[Stream; 3]) -> Bounds {
    let (cpus, limits_memory) = (config.cgroup.as_ref().and_then(Cgroup::cpus), config.limits_memory());
    let mut bounds = config.limits.bounds(cpus, limits_memory, allows_tracing);
    for (limit, stream) in bounds.output.iter_mut().zip(&stdio[1..]) {
        // The kernel discards it.
        *limit = limit.filter(|_| *stream != Stream::Null);
    }
    bounds
}

/// The same configuration, with mounts that mask what Landlock is to deny inside an allowed tree.
fn with_landlock_masks(config: &SandboxConfig) -> Option<SandboxConfig> {
    let root = config.landlock.as_ref()?.cover(&config.root)?;
    Some(SandboxConfig { root, ..config.clone() })
}
