//! Compiles a configuration and a command to a plan: first the decisions (`decisions.rs`), then the steps in their
//! order (`order.rs`). It is the only room that knows every layer; how a layer works does not belong here.

mod config;
mod decisions;
mod helper;
mod init;
mod job;
mod order;

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::{Cgroup, Spec};
use crate::confine::{Bounds, Policy};
use crate::error::{Error, Result};
use crate::outcome::{Enforcement, Unenforced};
#[cfg(feature = "_testing")]
use crate::plan::Part;
use crate::plan::{Plan, Stream, stub};
use crate::sys::priority::Preferences;
pub(crate) use config::Config;
use decisions::Decisions;
use job::search;
pub(crate) use job::{Job, StreamSource, Terminal};
use order::Order;

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
    config: &Config,
    job: &Job<'_>,
    unenforced: Vec<Unenforced>,
    can_idmap: fn(&Path) -> Option<bool>,
) -> Result<Compiled> {
    config.check_best_effort()?;
    let masked = with_landlock_masks(config);
    let config = masked.as_ref().unwrap_or(config);
    let env = job.env_over(&config.env);
    let job = &Job { env: &env, ..job.clone() };
    let mut descriptors = vec![];
    let mut enforcement = Enforcement::default();
    enforcement.unenforced = unenforced;
    let decisions = Decisions::new(config, can_idmap, &mut descriptors, &mut enforcement)?;
    let mut input = Arc::default();
    let mut lower = |stream: StreamSource| stream.lower(&mut descriptors, &mut input);
    let [stdin, stdout, stderr] = job.stdio.clone();
    let stdio = [lower(stdin)?, lower(stdout)?, lower(stderr)?];
    let search = search(job)?;
    let mut order = Order::new(decisions, descriptors, enforcement);
    let helper = order.helper(job, &stdio, &search)?;
    if helper.is_too_long() {
        return Err(Error::invalid("the plan has more than 65,535 values", "remove some of the mounts"));
    }
    let Order { decisions, enforcement, .. } = order;
    let (policy, helper_stays) = (decisions.supervised_policy(), decisions.helper_stays());
    let (cpus, limits_memory) = (config.cgroup.as_ref().and_then(Cgroup::cpus), config.limits_memory());
    let mut bounds = config.limits.bounds(cpus, limits_memory);
    for (limit, stream) in bounds.output.iter_mut().zip(&stdio[1..]) {
        // The kernel discards it.
        *limit = limit.filter(|_| *stream != Stream::Null);
    }
    let plan = Plan {
        stub: stub(&helper),
        helper,
        own_ids: decisions.ids.has_own_id().then_some(decisions.ids.own_ids),
        maps: decisions.ids.maps,
        helper_stays,
        stdio,
        input,
        descriptors: order.descriptors,
        handed: order.handed,
        id_mappings: order.id_mappings,
        placeholders: order.placeholders,
        most_written: bounds.file_size,
        owner: decisions.facts.privileged.then_some((decisions.ids.host_uid, decisions.ids.host_gid)),
        setup_timeout: config.setup_timeout,
        search,
        fault: None,
    };
    let supervision = Supervision {
        bounds,
        policy,
        needs_callback: config.seccomp.needs_callback(),
        reset_preferences: order.reset_preferences,
    };
    Ok(Compiled { plan, cgroup: decisions.cgroup, supervision, enforcement })
}

/// The same configuration, with mounts that mask what Landlock is to deny inside an allowed tree.
fn with_landlock_masks(config: &Config) -> Option<Config> {
    let root = config.landlock.as_ref()?.cover(&config.root)?;
    Some(Config { root, ..config.clone() })
}
