//! The sandbox as its user says it: a builder over the configuration of the features.

mod change;

use std::ffi::OsString;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::command::{Command, Stdio};
use crate::confine::{
    Capabilities, Config, Identity, Landlock, Limits, NamespaceOf, Namespaces, Root, Seccomp, TimeOffsets,
    check_priorities, compile,
};
use crate::effort::Attempt;
use crate::error::{Error, Result};
use crate::launch::{Launched, can_idmap, launch};
use crate::outcome::{Layer, Outcome, Output};
use crate::plan::Plan;
use crate::watch::{Callback, Child, Decision, Notification, Running, Supervisor};

/// What a program is isolated by. Plain data: one value describes any number of sandboxes, each of its own.
///
/// `Sandbox::new()` is secure by default:
///
/// | layer | default |
/// |---|---|
/// | namespaces | all but time, a user namespace also for root |
/// | root | [`Root::host`]: the host's file system read-only, private `/tmp`, `/var/tmp`, `/run`, no homes, no pseudo-terminals |
/// | network | a loopback of its own |
/// | identity | [`Identity::new`]: never the host's root |
/// | capabilities | none in any set, the bounding set empty, securebits locked, `no_new_privs` |
/// | system calls | [`Seccomp::new`]: not what changes the machine, makes namespaces, or looks into the kernel |
/// | descriptors | 0, 1 and 2 alone; files that are open for reading stay read-only ([`Command::fd`]) |
/// | host name | `sandbox` |
/// | core dumps | none |
/// | quotas of the user | a fraction of the caller's: [`Limits`] |
///
/// ```
/// use stockade::{Command, Sandbox};
///
/// let output = Sandbox::new().output(Command::new("id").arg("-u"))?;
/// assert!(output.outcome.success());
/// assert_ne!(output.stdout, b"0\n");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sandbox {
    pub(crate) config: Config,
}

/// Time for the set-up by default.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// The default: see above.
    pub fn new() -> Self {
        let config = Config {
            namespaces: Namespaces::all() - Namespaces::TIME,
            joins: vec![],
            hostname: None,
            domain_name: None,
            time_offsets: None,
            identity: Identity::new(),
            root: Root::host(),
            capabilities: Capabilities::none(),
            new_privs: false,
            landlock: None,
            seccomp: Seccomp::new(),
            best_effort: vec![],
            limits: Limits::new(),
            cgroup: None,
            setup_timeout: SETUP_TIMEOUT,
            kernel: None,
        };
        Self { config }
    }

    /// The namespaces that are made for it. Default: all but time.
    ///
    /// Without [`Namespaces::PID`] the kernel does not end what the program has left behind: its process group, and what is in
    /// its cgroup, if it has one, is killed, and no process that has left both; and, if it is the host that has died, on a kernel before 6.9 the program alone. A program that kills its
    /// own user's processes can end the watch over it then.
    #[must_use]
    pub fn namespaces(mut self, namespaces: Namespaces) -> Self {
        self.config.namespaces = namespaces;
        self
    }

    /// Joins namespaces that exist instead of making them: those of `kinds` (setns(2)). They are not among the ones
    /// that are made any more.
    #[must_use]
    pub fn join(mut self, kinds: Namespaces, target: NamespaceOf) -> Self {
        self.config.namespaces -= kinds;
        self.config.joins.push((kinds, target));
        self
    }

    /// The host name inside. Default `sandbox`. At most 64 bytes (sethostname(2)).
    #[must_use]
    pub fn hostname(mut self, name: impl Into<OsString>) -> Self {
        self.config.hostname = Some(name.into());
        self
    }

    /// The NIS domain name inside. Default: the host's. At most 64 bytes (setdomainname(2)).
    #[must_use]
    pub fn domain_name(mut self, name: impl Into<OsString>) -> Self {
        self.config.domain_name = Some(name.into());
        self
    }

    /// What the clocks inside are ahead by. Needs [`Namespaces::TIME`], which it adds (time_namespaces(7), since Linux
    /// 5.6). The real-time clock can't be moved.
    #[must_use]
    pub fn time_offsets(mut self, offsets: TimeOffsets) -> Self {
        self.config.namespaces |= Namespaces::TIME;
        self.config.time_offsets = Some(offsets);
        self
    }

    /// Who the program is. Default: [`Identity::new`].
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.config.identity = identity;
        self
    }

    /// The file system that it sees. Default: [`Root::host`].
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.config.root = root;
        self
    }

    /// Which capabilities it has. Default: [`Capabilities::none`].
    #[must_use]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.config.capabilities = capabilities;
        self
    }

    /// Lets set-user-id programs and those with file capabilities have their effect, as far as mounts without `nosuid` show
    /// them: without `no_new_privs` (prctl(2)). They never gain what is outside of the sandbox's user namespace. A seccomp
    /// filter and Landlock then take a user namespace, or root.
    #[must_use]
    pub fn allow_new_privs(mut self) -> Self {
        self.config.new_privs = true;
        self
    }

    /// Which files, ports and processes it reaches, beside what namespaces and mounts leave it. Default: no such rules.
    #[must_use]
    pub fn landlock(mut self, landlock: Landlock) -> Self {
        self.config.landlock = Some(landlock);
        self
    }

    /// Treats these layers as best-effort: if the host lacks one, the program is started without it, and
    /// [`Outcome::enforced`] records what was lost and why. It is for [`Layer::Namespaces`], [`Layer::Root`],
    /// [`Layer::Cgroup`], [`Layer::Landlock`] and [`Layer::Seccomp`]. Default: none, so that a layer that can't be
    /// enforced is an error.
    ///
    /// That the host lacks a layer is found by starting a reference sandbox with that layer alone, which depends on no path,
    /// ID or limit of the configuration. Every other failure stays an error: a missing file or mount point, a removed
    /// [`CgroupParent::Path`](crate::CgroupParent::Path), a quota that is used up (EAGAIN, EMFILE, ENOMEM; ENOSPC unless the
    /// limit on that kind of namespace is 0). A program could cause these, to be less confined the next time.
    ///
    /// Only the kinds of namespaces that the host lacks are left out. Without a mount namespace there is no root of the
    /// sandbox's own: [`Layer::Root`] must be best-effort as well.
    #[must_use]
    pub fn best_effort(mut self, layers: impl IntoIterator<Item = Layer>) -> Self {
        self.config.best_effort.extend(layers);
        self
    }

    /// Which system calls it may make. Default: [`Seccomp::new`].
    #[must_use]
    pub fn seccomp(mut self, policy: Seccomp) -> Self {
        self.config.seccomp = policy;
        self
    }

    /// Sets what the program may use. Default: [`Limits::new`], which limits neither time, memory nor output, but core dumps,
    /// priorities and quotas of the user, such as 1,024 descriptors.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// What it may use together with all that it starts, and a count of what they used. Default: no cgroup of its own.
    #[must_use]
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.config.cgroup = Some(cgroup);
        self
    }

    /// Sets the time that setting up the sandbox may take, until the program is executed. When it expires everything that was
    /// started is killed, and `spawn` returns [`Error::SetUpTimedOut`](crate::Error::SetUpTimedOut), which names the step
    /// that was in progress.
    ///
    /// The set-up takes some milliseconds. It takes longer if a file system does not answer, or if a process stops it: one
    /// in a PID namespace that is joined, or, without a PID namespace, any of the same user.
    ///
    /// What the thread that spawns does itself has no such limit: where the caller has root's capabilities it opens the
    /// sources of binds, and it looks at the descriptors that are handed over. A file system that does not answer keeps it
    /// there. newuidmap(1) and newgidmap(1) have 10 seconds each beside this.
    ///
    /// Default: 30 seconds. [`Limits::wall`] begins when the program is executed.
    #[must_use]
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.config.setup_timeout = timeout;
        self
    }

    /// Makes plans for a kernel of this version, whatever runs: for tests of what older ones lack.
    #[doc(hidden)]
    #[must_use]
    pub fn as_on_kernel(mut self, major: u32, minor: u32) -> Self {
        self.config.kernel = Some((major, minor));
        self
    }

    /// What will be done for a command, call by call, without doing it. The listing reads like strace.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for what can't be had, and [`Error::SetUp`](crate::Error::SetUp) for
    /// what the plan needs and the host has not, such as the source of a bind.
    pub fn plan(&self, command: impl Into<Command>) -> Result<Plan> {
        compile(&self.config, &command.into().job(inherited()), vec![], can_idmap)
    }

    /// Starts a command, and returns when it runs: a sandbox that can't be made, and a program that can't be executed,
    /// are errors.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::plan`]; [`Error::SetUp`](crate::Error::SetUp) for a call that failed,
    /// [`Error::NotFound`](crate::Error::NotFound) and [`Error::NotExecutable`](crate::Error::NotExecutable) for the
    /// program. Nothing is left behind then.
    pub fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        self.start(&command.into(), inherited(), None)
    }

    /// The same with a callback, on a thread of its own, that decides the calls of [`Action::Notify`](crate::Action::Notify)
    /// while they wait: one at a time, so that each waits for those before it. A callback that panics leaves the program with `ENOSYS` for each of them; one that never returns
    /// keeps [`Child::wait`] from returning.
    ///
    /// ```
    /// use stockade::{Action, Command, Decision, Sandbox, Seccomp};
    ///
    /// let sandbox = Sandbox::new().seccomp(Seccomp::new().on(["mkdir", "mkdirat"], Action::Notify));
    /// let mut child = sandbox.spawn_supervised(Command::new("mkdir").arg("/tmp/new"), |call| {
    ///     match call.string(usize::from(call.system_call().name() == Some("mkdirat"))) {
    ///         Ok(path) if path == b"/tmp/new" => Decision::Allow,
    ///         _ => Decision::Kill,
    ///     }
    /// })?;
    /// assert!(child.wait()?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`].
    pub fn spawn_supervised(
        &self,
        command: impl Into<Command>,
        decide: impl FnMut(&Notification<'_>) -> Decision + Send + 'static,
    ) -> Result<Child> {
        self.start(&command.into(), inherited(), Some(Box::new(decide)))
    }

    /// Runs a command, and waits for its end.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::wait`].
    pub fn status(&self, command: impl Into<Command>) -> Result<Outcome> {
        self.spawn(command)?.wait()
    }

    /// Runs a command without input, and collects what it writes: of each stream the first 16 MiB, or as much as
    /// [`Limits::stdout`] and [`Limits::stderr`] allow. See [`Child::wait_with_output`].
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::wait_with_output`].
    pub fn output(&self, command: impl Into<Command>) -> Result<Output> {
        let streams = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        self.start(&command.into(), streams, None)?.wait_with_output()
    }

    /// Starts a command, and does without the layers that it may do without if it must.
    fn start(&self, command: &Command, default: [Stdio; 3], mut callback: Option<Callback>) -> Result<Child> {
        let job = command.job(default);
        let mut attempt = Attempt::new(&self.config);
        loop {
            let started = compile(&attempt.config, &job, attempt.lost.clone(), can_idmap)
                .and_then(|plan| Launching::of(&plan, callback.is_some()).map(|launching| (plan, launching)));
            match started {
                Ok((plan, launching)) => return launching.child(&plan, callback.take()),
                Err(error) => match attempt.after(&error) {
                    Some(next) => attempt = next,
                    None => return Err(error),
                },
            }
        }
    }
}

impl Plan {
    /// Starts what the plan says: see [`Sandbox::spawn`].
    ///
    /// The thread may be another than the one that has made the plan. Where that one had a negative nice value, the program has
    /// 0, unless [`Limits::nice`] says otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`]. [`Error::Invalid`](crate::Error::Invalid) if this thread is preferred to others in a way in
    /// which the one that has made the plan was not, such as by a real-time scheduling policy: the program would inherit it.
    pub fn spawn(&self) -> Result<Child> {
        check_priorities(self.taken)?;
        Launching::of(self, false)?.child(self, None)
    }
}

/// What a command's standard streams are if nothing is said.
fn inherited() -> [Stdio; 3] {
    [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]
}

/// A plan that was launched.
struct Launching(Launched);

impl Launching {
    fn of(plan: &Plan, has_callback: bool) -> Result<Self> {
        if plan.asks && !has_callback {
            return Err(Error::invalid(
                "the seccomp policy asks a callback (Action::Notify), and there is none",
                "start the command with Sandbox::spawn_supervised",
            ));
        }
        launch(plan).map(Self)
    }

    fn child(self, plan: &Plan, callback: Option<Callback>) -> Result<Child> {
        let mut launched = self.0;
        let (ends, pty) = (std::mem::take(&mut launched.streams), launched.pty.take());
        let supervisor = match (&plan.rules, launched.listener.take()) {
            (Some(rules), Some(listener)) => {
                let killer = launched.killer().map_err(Error::host("copying the pidfd of the program"))?;
                Some(Supervisor::start(Box::new(listener), rules.clone(), callback, killer)?)
            }
            _ => None,
        };
        let mut enforced = plan.enforced.clone();
        enforced.lose(launched.lost());
        Ok(Child::new(Box::new(launched), ends, pty, plan.bounds, enforced, supervisor))
    }
}
