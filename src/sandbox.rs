//! The builder: [`Sandbox`], and the entry points that run a command in one. How a layer is enforced does not belong
//! here.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use crate::best_effort::with_best_effort;
use crate::cgroup::Cgroup;
use crate::child::{Callback, Child, Decision, Killer, Notification, ProgramSupervisor, Programs, Supervisor};
use crate::command::{Command, Stdio};
#[cfg(feature = "_testing")]
use crate::compile::CompiledSession;
use crate::compile::{Compiled, SandboxConfig, compile, compile_session};
use crate::confine::{
    Capabilities, Identity, Join, Landlock, Limits, Mode, NamespaceRef, Namespaces, Root, Seccomp, TimeOffsets,
    check_priorities,
};
use crate::error::{Error, Result};
use crate::launch::{Running, can_idmap, launch};
use crate::layer::Layer;
use crate::outcome::{Outcome, Output};
use crate::session::Session;
use crate::trace;

/// A description of a sandbox, as a builder. It is plain data, and each spawn creates a new sandbox from it.
///
/// `Sandbox::new()` is secure by default:
///
/// | layer | default |
/// |---|---|
/// | namespaces | all but time, a user namespace also for root |
/// | root | [`Root::host`]: the host's file system read-only, private `/tmp`, `/var/tmp`, `/run`, no home directories, no pseudo-terminals |
/// | network | a loopback of its own |
/// | identity | [`Identity::new`]: never user ID 0 on the host |
/// | capabilities | none in any set, the bounding set empty, securebits locked, `no_new_privs` |
/// | system calls | [`Seccomp::new`]: no calls that change the machine, create namespaces, or read kernel memory |
/// | descriptors | 0, 1 and 2 only; files that are open for reading stay read-only ([`Command::fd`]) |
/// | host name | `sandbox`, which resolves to `127.0.0.1` |
/// | core dumps | none |
/// | quotas of the user | a part of the caller's: [`Limits`] |
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
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Sandbox {
    pub(crate) config: SandboxConfig,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// Creates the default sandbox: see [`Sandbox`].
    pub fn new() -> Self {
        Self { config: SandboxConfig::default() }
    }

    /// Sets the namespaces that are created for the sandbox.
    ///
    /// Without [`Namespaces::PID`], processes can outlive the program: see [`Child`], "Leaked processes". If the caller
    /// is killed, the helper kills the program, and from Linux 6.9 on its process group. A program that may signal
    /// processes of its user can kill the helper first, and then outlives the caller.
    ///
    /// Default: all but time.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if an unprivileged caller
    /// ([`Identity`]) creates namespaces, but no user namespace, or if another setting needs a kind that is missing.
    #[must_use]
    pub fn namespaces(mut self, namespaces: Namespaces) -> Self {
        self.config.namespaces = namespaces;
        self
    }

    /// Joins existing namespaces of these kinds instead of creating new ones.
    ///
    /// The kinds are removed from those that are created ([`Sandbox::namespaces`]). A call adds to the namespaces of
    /// earlier calls.
    ///
    /// Default: no namespace is joined.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn):
    ///
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if a namespace cannot be opened.
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if a kind is joined twice, if a
    ///   later [`Sandbox::namespaces`] creates it as well, or if an unprivileged caller ([`Identity`]) joins namespaces
    ///   and neither creates nor joins a user namespace.
    ///
    /// When spawned:
    ///
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EINVAL`) if a descriptor is not a namespace of its
    ///   kind.
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) (`EPERM`) if the kernel denies joining, which
    ///   requires CAP_SYS_ADMIN in the user namespace that owns the namespace.
    ///
    /// See setns(2).
    #[must_use]
    pub fn join(mut self, kinds: Namespaces, target: NamespaceRef) -> Self {
        self.config.namespaces -= kinds;
        self.config.joins.push(Join { namespaces: kinds, target });
        self
    }

    /// Keeps a descriptor of each namespace of the sandbox open in [`Child::namespaces`], for tools such as
    /// nsenter(1), slirp4netns(1) and pasta(1).
    ///
    /// The set-up opens them before the program is executed. So they are those of this sandbox, whatever the program
    /// does and even if its PID is reused.
    ///
    /// Default: none is kept.
    ///
    /// # Errors
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the caller has no `/proc`.
    ///
    /// See namespaces(7).
    #[must_use]
    pub fn keep_namespaces(mut self) -> Self {
        self.config.keep_namespaces = true;
        self
    }

    /// Sets the host name inside, of at most 64 bytes. With [`Root::host`] and in the profiles it resolves to
    /// `127.0.0.1`: see [`Root::network_names`].
    ///
    /// Default: `sandbox`.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a longer name, for a name with a
    /// zero byte, or without [`Namespaces::UTS`].
    ///
    /// See sethostname(2).
    #[must_use]
    pub fn hostname(mut self, name: impl Into<OsString>) -> Self {
        self.config.hostname = Some(name.into());
        self
    }

    /// Sets the NIS domain name inside, of at most 64 bytes.
    ///
    /// Default: that of the caller.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::hostname`].
    ///
    /// See setdomainname(2).
    #[must_use]
    pub fn domain_name(mut self, name: impl Into<OsString>) -> Self {
        self.config.domain_name = Some(name.into());
        self
    }

    /// Sets the offsets of `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`, and adds [`Namespaces::TIME`], which they need.
    ///
    /// `CLOCK_REALTIME` cannot have an offset.
    ///
    /// Default: no time namespace.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if a later [`Sandbox::namespaces`]
    /// removes [`Namespaces::TIME`], or if that kind is joined.
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`ERANGE`) if a clock would be before 0
    /// or too far in the future.
    ///
    /// See time_namespaces(7).
    #[must_use]
    pub fn time_offsets(mut self, offsets: TimeOffsets) -> Self {
        self.config.namespaces |= Namespaces::TIME;
        self.config.time_offsets = Some(offsets);
        self
    }

    /// Sets an environment variable of all programs of the sandbox. A variable of the command
    /// ([`Command::env`]) with the same name replaces it. The default `PATH` of a command does not.
    ///
    /// Default: none. The profiles for builds, tests and agents set some: see [`profile`](crate::profile).
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let sandbox = Sandbox::new().env("LANG", "C.UTF-8").env("HOME", "/tmp");
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "echo $LANG $HOME"]).env("HOME", "/run");
    /// assert_eq!(sandbox.output(&command)?.stdout, b"C.UTF-8 /run\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.config.env.insert(key.into(), value.into());
        self
    }

    /// Removes an environment variable that [`Sandbox::env`] or a profile has set.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.config.env.remove(key.as_ref());
        self
    }

    /// Sets the user and group IDs of the program, and the ID maps of its user namespace.
    ///
    /// Default: [`Identity::new`].
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.config.identity = identity;
        self
    }

    /// Sets the file system that the program sees.
    ///
    /// Default: [`Root::host`].
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.config.root = root;
        self
    }

    /// Sets the capabilities of the program.
    ///
    /// Default: [`Capabilities::none`].
    #[must_use]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.config.capabilities = capabilities;
        self
    }

    /// Allows set-user-ID programs and programs with file capabilities to gain privileges, on mounts without `nosuid`.
    ///
    /// The program does not get `no_new_privs`. Privileges that it gains hold inside the user namespace of the sandbox
    /// only.
    ///
    /// Every mount that the sandbox creates is `nosuid`. So this has an effect only with [`Root::inherit`], without
    /// [`Namespaces::MOUNT`], or on mounts that the program creates itself.
    ///
    /// Default: `no_new_privs` is set, and such programs gain nothing.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the sandbox has a seccomp filter
    /// or Landlock rules, but no user namespace, and the caller is unprivileged ([`Identity`]).
    ///
    /// See prctl(2), `PR_SET_NO_NEW_PRIVS`.
    #[must_use]
    pub fn allow_new_privs(mut self) -> Self {
        self.config.new_privs = true;
        self
    }

    /// Sets the umask of the program: the permissions that files and directories which it creates do not get. The
    /// program can change it.
    ///
    /// Files in a writable bind get it too. With a umask of 0 other users of the host can write to files that the
    /// program creates with the mode 0666.
    ///
    /// Default: 0022, whatever that of the caller is.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a mode with bits other than
    /// 0777.
    ///
    /// See umask(2).
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let script = "cd /tmp; touch file; mkdir directory; stat -c %a file directory";
    /// let output = Sandbox::new().umask(0o007).output(Command::new("sh").args(["-c", script]))?;
    /// assert_eq!(output.stdout, b"660\n770\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn umask(mut self, mask: impl Into<Mode>) -> Self {
        self.config.umask = mask.into();
        self
    }

    /// Sets the Landlock policy: the files, TCP ports and processes that the program can access. What namespaces,
    /// mounts or permissions deny stays denied.
    ///
    /// Default: no policy.
    ///
    /// # Errors
    ///
    /// Those of [`Landlock`].
    ///
    /// Requires Linux 5.13. [`Landlock::new`] requires Linux 6.12: see [`Landlock`].
    ///
    /// See landlock(7).
    #[must_use]
    pub fn landlock(mut self, landlock: Landlock) -> Self {
        self.config.landlock = Some(landlock);
        self
    }

    /// Treats these layers as best-effort: if the host does not support one, the program starts without it, and
    /// [`Outcome::enforcement`] records which layer is unenforced and why.
    ///
    /// The layers can be [`Layer::Namespaces`], [`Layer::Root`], [`Layer::Cgroup`], [`Layer::Landlock`] and
    /// [`Layer::Seccomp`]. A call adds to the layers of earlier calls.
    ///
    /// A layer is unsupported only if a reference sandbox with that layer alone fails to start. The reference sandbox
    /// uses no path, ID or limit of the configuration. Every other failure is still an error, because a program could
    /// cause it in order to be less confined in the next run: a missing file or mount point, a removed
    /// [`CgroupParent::Path`](crate::cgroup::CgroupParent::Path), or an exhausted quota (`EAGAIN`, `EMFILE`, `ENOMEM`;
    /// `ENOSPC` unless that kind of namespace is limited to 0).
    ///
    /// Of the namespaces, only the kinds that the host does not support are skipped. Without a mount namespace the
    /// sandbox has no root of its own, so [`Layer::Root`] must be best-effort as well.
    ///
    /// Default: none. A layer that cannot be enforced is an error. [`Enforcement`](crate::outcome::Enforcement) lists
    /// the parts of layers that are no errors.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for any other layer.
    ///
    /// ```
    /// use stockade::{Command, Landlock, Layer, Sandbox};
    ///
    /// let landlock = Landlock::new().read_only("/");
    /// let sandbox = Sandbox::new().landlock(landlock).best_effort([Layer::Landlock]);
    /// let outcome = sandbox.status(Command::new("true"))?;
    /// for unenforced in &outcome.enforcement.unenforced {
    ///     println!("{}: {}", unenforced.layer, unenforced.reason);
    /// }
    /// # assert!(outcome.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn best_effort(mut self, layers: impl IntoIterator<Item = Layer>) -> Self {
        self.config.best_effort.extend(layers);
        self
    }

    /// Lets Landlock rules stand in for the [`Root`] if the host denies mounts, as most containers do.
    ///
    /// The rules are derived from the root: what it would show can be read, and what it would show writable can be
    /// written. So a program in a restricted container still sees no more than its workspace. The layer
    /// [`Layer::Root`] is then in [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced), and
    /// [`Layer::Landlock`] is active. If the host supports the root, nothing changes.
    ///
    /// The rules are in force in addition to those of [`Sandbox::landlock`], whose paths are then those of the host. A
    /// path that does not exist is skipped. What [`Landlock::deny`] and [`Landlock::deny_write`] deny becomes a part of
    /// the derived rules. [`Layer::Landlock`] in [`Sandbox::best_effort`] does not apply to these, unless
    /// [`Layer::Root`] is best-effort too.
    ///
    /// Where the rules stand in, this differs from a root:
    ///
    /// - **Paths are those of the host.** Bind each path to the same path: `bind_rw("/srv/work", "/srv/work")`. A bind
    ///   to another path is accessible at its source.
    /// - What the root would create does not exist: no private `/tmp`, no new `/proc` or `/dev`, no files and links of
    ///   [`Root::file`] and [`Root::symlink`], and no changes on top of an overlay, whose directories can be read only.
    ///   A file of the host that [`Root::file`] would cover is hidden. The program's environment needs a `TMPDIR` in a
    ///   writable bind.
    /// - What is hidden cannot be opened or listed, but its existence, size and times can be seen (stat(2)).
    /// - The program can connect to UNIX sockets of the host that its user may connect to, before Linux 7.1: see
    ///   [`GapKind::Sockets`](crate::outcome::GapKind::Sockets).
    ///
    /// A container that denies namespaces also needs `best_effort([Layer::Namespaces])`: without a network namespace
    /// the program has the network of the container, unless the seccomp policy denies sockets.
    ///
    /// Default: a root that cannot be created is an error.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn):
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if Landlock cannot stand in. This
    ///   is checked on every host. It is the case for a root other than [`Root::host`], [`Root::empty`] or
    ///   [`Root::inherit`], for [`Bind::from_fd`](crate::mount::Bind::from_fd), if a path inside a writable bind is
    ///   hidden (masked, or covered by another mount or a file), read-only, protected, or bound read-only, and if such a
    ///   path leads through a symlink of [`Root::symlink`], or of a bind to another path.
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the rules are needed and the kernel cannot
    ///   enforce them: Landlock with truncation requires Linux 6.2.
    ///
    /// ```
    /// use stockade::{Command, Layer, profile};
    ///
    /// let workspace = tempfile::tempdir()?;
    /// let sandbox = profile::agent()
    ///     .map_root(|root| root.bind_rw(workspace.path(), workspace.path()))
    ///     .best_effort([Layer::Namespaces])
    ///     .landlock_fallback();
    /// let outcome = sandbox.status(Command::new("touch").arg(workspace.path().join("file")))?;
    /// assert!(outcome.success() && workspace.path().join("file").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn landlock_fallback(mut self) -> Self {
        self.config.landlock_fallback = true;
        self
    }

    /// Lets the program create sandboxes itself, by this crate or by others. bubblewrap also needs
    /// [`Seccomp::allow_netlink`]. See [`guide::nesting`](crate::guide::nesting).
    ///
    /// - The seccomp policy also allows the system calls for namespaces and mounts, and creating set-user-ID files, as
    ///   [`Seccomp::allow_set_id_bits`] does. BPF filters of [`Seccomp::bpf`] still apply.
    /// - `/proc/keys` is visible, because the kernel denies an inner sandbox a new `/proc` where a part of the outer
    ///   one is covered. If the program has the caller's user ID, it can read the descriptions of the caller's keys:
    ///   [`GapKind::Keys`](crate::outcome::GapKind::Keys).
    /// - Landlock would deny mounts. So it is not used to deny sockets and FIFOs in read-only trees of the host:
    ///   [`GapKind::Sockets`](crate::outcome::GapKind::Sockets), [`GapKind::Fifos`](crate::outcome::GapKind::Fifos).
    /// - A program with the caller's user ID can mount cgroup file systems. If it is in a cgroup whose files belong to
    ///   that user, as those of a user manager of systemd do, it can freeze and kill the caller:
    ///   [`GapKind::Cgroup`](crate::outcome::GapKind::Cgroup). [`Sandbox::cgroup`] prevents that.
    /// - Process 1 of a PID namespace that the program creates cannot change its own limits and priority by its PID
    ///   ([`Seccomp`], Guards).
    /// - Only [`Cgroup::memory_max`] limits the file systems in memory and the pseudo-terminals that the program
    ///   mounts.
    /// - A program that keeps [`Capability::SysAdmin`](crate::capabilities::Capability::SysAdmin) can change the mounts
    ///   of the sandbox itself: make read-only binds writable, and remove masks
    ///   ([`GapKind::Mounts`](crate::outcome::GapKind::Mounts)). One that only has it in a user namespace that it
    ///   creates cannot.
    ///
    /// An inner sandbox has at most the files, limits and system calls of the outer one. It cannot create a cgroup,
    /// because the outer sandbox shows no writable cgroup.
    ///
    /// **Namespaces and mounts let a program reach much more of the kernel.** Most kernel bugs that gave a user root
    /// privileges required namespaces or mounts.
    ///
    /// Default: these calls are denied.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`] or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration):
    ///
    /// - with [`Sandbox::landlock`], because Landlock rules deny mounts;
    /// - without [`Namespaces::PID`];
    /// - with [`Root::protect`], [`Root::read_only`] or a git workspace: in a mount namespace of its own the program
    ///   can replace what they protect in a writable directory.
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let outcome = Sandbox::new().nestable().status(Command::new("unshare").args(["--user", "--map-root-user", "true"]))?;
    /// assert!(outcome.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn nestable(mut self) -> Self {
        self.config.nestable = true;
        self
    }

    /// Sets the seccomp policy: the system calls that the program can make.
    ///
    /// Default: [`Seccomp::new`].
    #[must_use]
    pub fn seccomp(mut self, policy: Seccomp) -> Self {
        self.config.seccomp = policy;
        self
    }

    /// Sets the limits on time, on output, and on each process.
    ///
    /// Default: [`Limits::new`], which limits core dumps, priorities and quotas of the user, but not time, memory or
    /// output.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Sets the cgroup of the sandbox, which limits and measures all of its processes together.
    ///
    /// Default: no cgroup.
    #[must_use]
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.config.cgroup = Some(cgroup);
        self
    }

    /// Sets the timeout of the set-up, which ends when the program is executed.
    ///
    /// The set-up takes some milliseconds. It takes longer if a file system does not respond, or if another process
    /// stops the set-up processes: one in a PID namespace that is joined, or, without a PID namespace, any process of
    /// the same user.
    ///
    /// The timeout does not apply to what the calling thread does itself. A privileged caller ([`Identity`]) opens the
    /// sources of binds, and every caller inspects the descriptors that it passes. A file system that does not respond
    /// blocks the thread in these calls. newuidmap(1) and newgidmap(1) have timeouts of their own, of 10 seconds each.
    ///
    /// [`Limits::wall_time`] begins when the program is executed.
    ///
    /// Default: 30 seconds.
    ///
    /// # Errors
    ///
    /// When spawned, [`ErrorKind::SetupTimedOut`](crate::ErrorKind::SetupTimedOut) if the timeout expires. The error
    /// names the step that was in progress. All set-up processes are killed.
    #[must_use]
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.config.setup_timeout = timeout;
        self
    }

    /// Compiles plans for this version of the kernel, whatever kernel runs: for tests of what older ones lack.
    #[cfg(feature = "_testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn as_on_kernel(mut self, major: u32, minor: u32) -> Self {
        self.config.kernel = Some((major, minor));
        self
    }

    /// Compiles the sandbox and a command, and starts no process of the sandbox. The `Display` of the result lists
    /// every system call that [`Sandbox::spawn`] would make, as strace(1) does.
    ///
    /// It resolves the sources of binds, and opens the namespaces to join. For
    /// [`CgroupParent::SystemdScope`](crate::cgroup::CgroupParent::SystemdScope) it moves the caller into a scope. For
    /// [`CgroupParent::Auto`](crate::cgroup::CgroupParent::Auto) it may execute systemctl(1), and moves no process. It
    /// does not check that the program exists.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfiguration`] if settings contradict each other, or a value is invalid.
    /// - [`ErrorKind::Unsupported`] if this host cannot provide a requested layer.
    /// - [`ErrorKind::SetupFailed`] if an object of the host that the plan needs cannot be opened, such as the source
    ///   of a bind.
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let plan = Sandbox::new().plan(Command::new("true"))?.to_string();
    /// assert!(plan.contains("# create the namespaces"), "{plan}");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// [`ErrorKind::InvalidConfiguration`]: crate::ErrorKind::InvalidConfiguration
    /// [`ErrorKind::Unsupported`]: crate::ErrorKind::Unsupported
    /// [`ErrorKind::SetupFailed`]: crate::ErrorKind::SetupFailed
    pub fn plan(&self, command: impl Into<Command>) -> Result<Compiled> {
        compile(&self.config, &command.into().job(inherited())?, vec![], can_idmap)
    }

    /// Spawns a command in a new sandbox. Returns when the program has been executed.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::plan`], and:
    ///
    /// - [`ErrorKind::SetupFailed`] if a system call of the set-up failed.
    /// - [`ErrorKind::SetupTimedOut`] if the set-up took longer than [`Sandbox::setup_timeout`].
    /// - [`ErrorKind::NotFound`] if the program does not exist inside the sandbox.
    /// - [`ErrorKind::NotExecutable`] if the program cannot be executed.
    ///
    /// No process, mount, cgroup or file of the sandbox remains when an error is returned.
    ///
    /// ```
    /// use stockade::{Command, Sandbox, Stdio};
    ///
    /// let mut child = Sandbox::new().spawn(Command::new("echo").arg("hello").stdout(Stdio::piped()))?;
    /// let output = child.wait_with_output()?;
    /// assert_eq!(output.stdout, b"hello\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// [`ErrorKind::SetupFailed`]: crate::ErrorKind::SetupFailed
    /// [`ErrorKind::SetupTimedOut`]: crate::ErrorKind::SetupTimedOut
    /// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
    /// [`ErrorKind::NotExecutable`]: crate::ErrorKind::NotExecutable
    pub fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        self.spawn_with(&command.into(), inherited(), None)
    }

    /// Spawns a command, with a callback that decides the system calls for which the policy has
    /// [`Action::Notify`](crate::seccomp::Action::Notify).
    ///
    /// The program waits in the call until the callback has returned. The callback runs on a thread of its own and
    /// decides one call at a time. If it panics, every later call fails with `ENOSYS`. If it never returns,
    /// [`Child::wait`] does not return either.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`].
    ///
    /// ```
    /// use stockade::seccomp::{Action, Decision};
    /// use stockade::{Command, Sandbox, Seccomp};
    ///
    /// let sandbox = Sandbox::new().seccomp(Seccomp::new().on(["mkdir", "mkdirat"], Action::Notify));
    /// let mut child = sandbox.spawn_supervised(Command::new("mkdir").arg("/tmp/new"), |notification| {
    ///     // The path is the first argument of mkdir(2), and the second of mkdirat(2).
    ///     let argument = usize::from(notification.call().name() == Some("mkdirat"));
    ///     match notification.string(argument) {
    ///         Ok(path) if path == b"/tmp/new" => Decision::Allow,
    ///         _ => Decision::Kill,
    ///     }
    /// })?;
    /// assert!(child.wait()?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn spawn_supervised(
        &self,
        command: impl Into<Command>,
        decide: impl FnMut(&Notification<'_>) -> Decision + Send + 'static,
    ) -> Result<Child> {
        self.spawn_with(&command.into(), inherited(), Some(Box::new(decide)))
    }

    /// Runs a command, and waits until the program has terminated.
    ///
    /// Does not enforce limits on output, and reports each as a gap
    /// ([`GapKind::Output`](crate::outcome::GapKind::Output)): use [`Sandbox::output`] or [`Child::wait_with_output`].
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::wait`], and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) with [`Command::pty`], since nothing
    /// would read the terminal.
    ///
    /// ```
    /// use stockade::{Command, Sandbox, Termination};
    ///
    /// let outcome = Sandbox::new().status(Command::new("sh").args(["-c", "exit 3"]))?;
    /// assert_eq!(outcome.termination, Termination::Exited(3));
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn status(&self, command: impl Into<Command>) -> Result<Outcome> {
        let command = command.into();
        command.check_unattended()?;
        self.spawn(command)?.wait()
    }

    /// Runs a command, and collects its standard output and standard error. Standard input is `/dev/null` unless the
    /// command sets it.
    ///
    /// Of each stream, at most [`Limits::stdout_max`] or [`Limits::stderr_max`] bytes are kept, by default the first 16
    /// MiB. See [`Child::wait_with_output`].
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::wait_with_output`], and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) with [`Command::pty`].
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let output = Sandbox::new().output(Command::new("cat"))?;
    /// assert!(output.outcome.success() && output.stdout.is_empty());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn output(&self, command: impl Into<Command>) -> Result<Output> {
        let (command, streams) = (command.into(), [Stdio::null(), Stdio::piped(), Stdio::piped()]);
        command.check_unattended()?;
        self.spawn_with(&command, streams, None)?.wait_with_output()
    }

    /// Runs a command on a pseudo-terminal ([`Command::pty`]) that is connected to the caller's terminal, and waits for it: see
    /// [`Child::interact`]. The pseudo-terminal has the size of the caller's terminal, or 24 rows and 80 columns, whatever
    /// [`Command::pty`] says.
    ///
    /// To leave a program that does not exit, use [`Sandbox::spawn`], [`Child::killer`] and [`Child::interact`].
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::interact`].
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// // For example a shell.
    /// assert!(Sandbox::new().interact(Command::new("tty"))?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn interact(&self, command: impl Into<Command>) -> Result<Outcome> {
        self.spawn(Command::for_interaction(command))?.interact()
    }

    /// Spawns a command. If the host does not support a best-effort layer, it tries again without that layer.
    pub(crate) fn spawn_with(
        &self,
        command: &Command,
        default: [Stdio; 3],
        callback: Option<Callback>,
    ) -> Result<Child> {
        trace::spawning(command.get_program(), None, Child::pid, || self.spawn_untraced(command, default, callback))
    }

    fn spawn_untraced(&self, command: &Command, default: [Stdio; 3], callback: Option<Callback>) -> Result<Child> {
        let job = command.job(default)?;
        let (compiled, launching) = with_best_effort(&self.config, |config, unenforced| {
            let compiled = compile(config, &job, unenforced, can_idmap)?;
            Launching::of(&compiled, callback.is_some()).map(|launching| (compiled, launching))
        })?;
        launching.child(&compiled, callback)
    }

    /// Starts a session: sets up the sandbox, and keeps it for commands.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] that are not about the command, and
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) without [`Namespaces::PID`], and for a
    ///   seccomp policy with calls for a callback ([`Action::Notify`](crate::seccomp::Action::Notify)).
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let session = Sandbox::new().start()?;
    /// assert!(session.status(Command::new("touch").arg("/tmp/file"))?.success());
    /// // The next command finds what the first has left.
    /// assert!(session.status(Command::new("test").args(["-f", "/tmp/file"]))?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn start(&self) -> Result<Session> {
        trace::starting(Session::number, || {
            with_best_effort(&self.config, |config, unenforced| {
                Session::launch(compile_session(config, unenforced, can_idmap)?)
            })
        })
    }

    /// Compiles the set-up of a session. For fault tests.
    #[cfg(feature = "_testing")]
    #[doc(hidden)]
    pub fn plan_session(&self) -> Result<CompiledSession> {
        compile_session(&self.config, vec![], can_idmap)
    }
}

/// # Modifiers
///
/// [`Sandbox::namespaces`], [`Sandbox::root`] and the like replace a setting. These methods change the current one, for
/// example that of a profile.
///
/// ```
/// use std::time::Duration;
/// use stockade::{Command, profile};
///
/// let sandbox = profile::test()
///     .map_root(|root| root.file("/fixture", "contents"))
///     .map_limits(|limits| limits.wall_time(Duration::from_secs(20)));
/// assert_eq!(sandbox.output(Command::new("cat").arg("/fixture"))?.stdout, b"contents");
/// # Ok::<(), stockade::Error>(())
/// ```
impl Sandbox {
    /// Changes the set of namespaces that are created: see [`Sandbox::namespaces`].
    #[must_use]
    pub fn map_namespaces(mut self, change: impl FnOnce(Namespaces) -> Namespaces) -> Self {
        self.config.namespaces = change(self.config.namespaces);
        self
    }

    /// Changes the file system that the program sees, usually by adding mounts: see [`Sandbox::root`].
    #[must_use]
    pub fn map_root(mut self, change: impl FnOnce(Root) -> Root) -> Self {
        self.config.root = change(self.config.root);
        self
    }

    /// Changes the limits: see [`Sandbox::limits`].
    #[must_use]
    pub fn map_limits(mut self, change: impl FnOnce(Limits) -> Limits) -> Self {
        self.config.limits = change(self.config.limits);
        self
    }

    /// Changes the seccomp policy: see [`Sandbox::seccomp`].
    #[must_use]
    pub fn map_seccomp(mut self, change: impl FnOnce(Seccomp) -> Seccomp) -> Self {
        self.config.seccomp = change(self.config.seccomp);
        self
    }

    /// Changes the Landlock policy: see [`Sandbox::landlock`]. Without a policy, `change` gets [`Landlock::new`].
    #[must_use]
    pub fn map_landlock(mut self, change: impl FnOnce(Landlock) -> Landlock) -> Self {
        self.config.landlock = Some(change(self.config.landlock.unwrap_or_default()));
        self
    }

    /// Changes the cgroup: see [`Sandbox::cgroup`]. Without a cgroup, `change` gets [`Cgroup::new`].
    #[must_use]
    pub fn map_cgroup(mut self, change: impl FnOnce(Cgroup) -> Cgroup) -> Self {
        self.config.cgroup = Some(change(self.config.cgroup.unwrap_or_default()));
        self
    }
}

impl Compiled {
    /// Spawns the command in a new sandbox: see [`Sandbox::spawn`].
    ///
    /// Any thread can spawn it. If the thread that called [`Sandbox::plan`] had a negative nice value, the program gets
    /// a nice value of 0, unless [`Limits::nice`] sets another.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`], and [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if
    /// this thread has a priority that the thread which called [`Sandbox::plan`] did not have, such as a real-time
    /// scheduling policy. The program would inherit it.
    pub fn spawn(&self) -> Result<Child> {
        check_priorities(self.supervision.reset_preferences)?;
        let program = self.plan.search.program.as_os_str();
        trace::spawning(program, None, Child::pid, || Launching::of(self, false)?.child(self, None))
    }
}

#[cfg(feature = "_testing")]
impl CompiledSession {
    /// Starts the session: see [`Sandbox::start`].
    pub fn start(&self) -> Result<Session> {
        Session::launch(self.clone())
    }
}

/// The default standard streams of a command that is spawned.
fn inherited() -> [Stdio; 3] {
    [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]
}

/// A launched plan that has no [`Child`] yet.
struct Launching(Running);

impl Launching {
    fn of(compiled: &Compiled, has_callback: bool) -> Result<Self> {
        if compiled.supervision.needs_callback && !has_callback {
            return Err(Error::invalid(
                "the seccomp policy has calls for a callback (Action::Notify), but there is no callback",
                "use Sandbox::spawn_supervised",
            ));
        }
        launch(&compiled.plan, compiled.cgroup.as_ref()).map(Self)
    }

    fn child(self, compiled: &Compiled, callback: Option<Callback>) -> Result<Child> {
        let mut launched = self.0;
        let (ends, pty) = (std::mem::take(&mut launched.streams), launched.pty.take());
        let namespaces = std::mem::take(&mut launched.namespaces);
        let namespaces = namespaces.into_iter().map(|(kind, fd)| (Namespaces::from_bits_truncate(kind), fd)).collect();
        let supervisor = match (&compiled.supervision.policy, launched.listener.take()) {
            (Some(policy), Some(listener)) => {
                let programs = Programs::one(Killer::of(&launched));
                Some(ProgramSupervisor::Own(Supervisor::start(listener, policy.clone(), callback, programs)?))
            }
            _ => None,
        };
        let mut enforcement = compiled.enforcement.clone();
        enforcement.unenforced.extend(launched.lost());
        trace::enforcement(&enforcement);
        Ok(Child::new(launched, ends, pty, namespaces, compiled.supervision.bounds, enforcement, supervisor))
    }
}
