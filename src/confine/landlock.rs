//! The Landlock policy: the files, TCP ports and processes that a program can access (landlock(7)). Denials inside an
//! allowed tree are mounts, and in `mount/`.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use landlock::{ABI, Access, AccessFs, AccessNet, Scope};

use super::Root;
use crate::advice::Need;
use crate::error::{Error, Result};
use crate::flag_set::flag_set;
use crate::layer::Layer;
use crate::plan::{Arg, Label, OnError, Script, Slot, Step, Word, flags, nr};
use crate::stored::Version;
#[cfg(feature = "serde")]
use crate::stored::{As, Escaped, Plain, table_form};

flag_set! {
    /// A set of access rights to the files below a path.
    ///
    /// ```
    /// use stockade::landlock::FsAccess;
    /// use stockade::{Command, Landlock, Layer, Sandbox};
    ///
    /// let scratch = FsAccess::READ_ONLY | FsAccess::WRITE_FILE | FsAccess::TRUNCATE | FsAccess::MAKE_REG;
    /// let policy = Landlock::new().read_only("/").access("/tmp", scratch);
    /// let sandbox = Sandbox::new().landlock(policy).best_effort([Layer::Landlock]);
    /// let output = sandbox.output(Command::new("sh").args(["-c", "echo 42 > /tmp/file; cat /tmp/file"]))?;
    /// assert_eq!(output.stdout, b"42\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// See landlock(7).
    pub struct FsAccess: u64 in "stockade::landlock::FsAccess", "access rights", "FsAccess::READ_FILE",
        "FsAccess::WRITE_FILE";

    /// Executing a file.
    const EXECUTE = AccessFs::Execute as u64;
    /// Opening a file for writing.
    const WRITE_FILE = AccessFs::WriteFile as u64;
    /// Opening a file for reading.
    const READ_FILE = AccessFs::ReadFile as u64;
    /// Opening or listing a directory.
    const READ_DIR = AccessFs::ReadDir as u64;
    /// Removing an empty directory, or renaming one.
    const REMOVE_DIR = AccessFs::RemoveDir as u64;
    /// Removing or renaming a file.
    const REMOVE_FILE = AccessFs::RemoveFile as u64;
    /// Creating a character device.
    const MAKE_CHAR = AccessFs::MakeChar as u64;
    /// Creating a directory.
    const MAKE_DIR = AccessFs::MakeDir as u64;
    /// Creating a regular file.
    const MAKE_REG = AccessFs::MakeReg as u64;
    /// Creating a UNIX socket.
    const MAKE_SOCK = AccessFs::MakeSock as u64;
    /// Creating a FIFO.
    const MAKE_FIFO = AccessFs::MakeFifo as u64;
    /// Creating a block device.
    const MAKE_BLOCK = AccessFs::MakeBlock as u64;
    /// Creating a symbolic link.
    const MAKE_SYM = AccessFs::MakeSym as u64;
    /// Linking or renaming into another directory. Requires Linux 5.19; always denied before.
    const REFER = AccessFs::Refer as u64;
    /// Truncating a file. Requires Linux 6.2; not restricted before.
    const TRUNCATE = AccessFs::Truncate as u64;
    /// ioctl(2) on a device. Requires Linux 6.10; not restricted before.
    const IOCTL_DEV = AccessFs::IoctlDev as u64;
    /// Connecting to a UNIX socket by its path. Requires Linux 7.1; not restricted before.
    const RESOLVE_UNIX = AccessFs::ResolveUnix as u64;

    /// Reading files and directories, and executing files.
    const READ_ONLY = Self::EXECUTE.bits() | Self::READ_FILE.bits() | Self::READ_DIR.bits();
    /// Every access.
    const READ_WRITE = Self::READ_ONLY.bits() | Self::OF_FILE.bits() | Self::REMOVE_DIR.bits()
        | Self::REMOVE_FILE.bits() | Self::MAKE_CHAR.bits() | Self::MAKE_DIR.bits() | Self::MAKE_REG.bits()
        | Self::MAKE_SOCK.bits() | Self::MAKE_FIFO.bits() | Self::MAKE_BLOCK.bits() | Self::MAKE_SYM.bits()
        | Self::REFER.bits();
    /// The rights that apply to a file that is not a directory.
    const OF_FILE = Self::EXECUTE.bits() | Self::WRITE_FILE.bits() | Self::READ_FILE.bits() | Self::TRUNCATE.bits()
        | Self::IOCTL_DEV.bits() | Self::RESOLVE_UNIX.bits();
}

#[cfg(feature = "serde")]
crate::stored::as_form!(FsAccess, crate::stored::FlagNames);

#[cfg(feature = "serde")]
table_form!(
    /// A rule for a path.
    RuleTable { path: PathBuf as Escaped, access: FsAccess as Plain }
);

/// A Landlock policy: the files, TCP ports and processes that the program can access. It applies in addition to
/// permissions and mounts.
///
/// It also works without namespaces, for instance in a container that forbids them.
///
/// [`Landlock::new`] denies all access to files, TCP ports, and signals and abstract UNIX sockets of processes outside
/// of the sandbox. Each method allows something, except [`deny`](Landlock::deny) and
/// [`deny_write`](Landlock::deny_write). What can be restricted depends on the kernel:
///
/// | restricted | requires |
/// |---|---|
/// | files | Linux 5.13; truncating them, 6.2 |
/// | TCP ports | Linux 6.7 |
/// | signals, abstract UNIX sockets | Linux 6.12 |
/// | ioctl(2) on devices | Linux 6.10; not restricted before |
/// | UNIX sockets by their paths | Linux 7.1; not restricted before |
///
/// Paths are absolute and without `..`, and as the program sees them: inside the sandbox, or, with [`Root::inherit`],
/// on the host. A rule applies to the file or directory that exists at the path when the program starts, and to
/// everything below it.
///
/// Symlinks in a path are followed. But if it begins with the target of a writable bind, of a bind of
/// [`HostPath::beneath`](crate::mount::HostPath::beneath), or of an overlay with a directory for changes, none below
/// that target is: an earlier program could have created it. **In other directories that a program can write to they
/// are followed**: with [`Root::inherit`] and [`Root::from_dir_rw`](crate::Root::from_dir_rw), do not pass a path that a
/// program can replace by a symlink.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
///
/// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the policy restricts something of the first three
///   rows that the kernel cannot restrict. If the layer is best-effort
///   ([`Sandbox::best_effort`](crate::Sandbox::best_effort)), the rest is enforced, and
///   [`Outcome::enforcement`](crate::Outcome::enforcement) records the difference.
/// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the path of a rule is relative.
///
/// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the path of a rule does not exist, or
/// leads through a symlink that is not followed (`ELOOP`).
///
/// [`Landlock::new`] requires Linux 6.12. On an older kernel, allow what it cannot restrict: before 6.12 with
/// [`any_signal`](Landlock::any_signal) and [`any_abstract_socket`](Landlock::any_abstract_socket), before 6.7 also
/// with [`any_tcp`](Landlock::any_tcp), and before 6.2 also with [`any_path`](Landlock::any_path). Or make
/// [`Layer::Landlock`](crate::Layer::Landlock) best-effort. The layer itself requires Linux 5.13.
///
/// See landlock(7).
///
/// ```
/// use stockade::{Command, Landlock, Layer, Sandbox};
///
/// let landlock = Landlock::new().read_only("/usr").read_only("/lib").read_only("/lib64").read_only("/etc");
/// let sandbox = Sandbox::new().landlock(landlock).best_effort([Layer::Landlock]);
/// let outcome = sandbox.output(Command::new("/usr/bin/ls").arg("/proc"))?.outcome;
/// if outcome.enforcement.active().any(|active| active.layer == Layer::Landlock) {
///     assert!(!outcome.success());
/// }
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Landlock {
    version: Version<1>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<RuleTable>>", rename = "rules"))]
    paths: Vec<(PathBuf, FsAccess)>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<Escaped>>", rename = "deny"))]
    denied: Vec<PathBuf>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<Escaped>>", rename = "deny_write"))]
    read_only: Vec<PathBuf>,
    any_path: bool,
    #[cfg_attr(feature = "serde", serde(rename = "bind_port"))]
    bind: Vec<u16>,
    #[cfg_attr(feature = "serde", serde(rename = "connect_port"))]
    connect: Vec<u16>,
    any_tcp: bool,
    any_signal: bool,
    any_abstract_socket: bool,
    /// Whether a path that does not exist, or that the program cannot access, needs no rule.
    #[cfg_attr(feature = "serde", serde(skip))]
    skips_absent: bool,
    /// Whether the paths are resolved, so that a symlink in one has been created since.
    #[cfg_attr(feature = "serde", serde(skip))]
    is_resolved: bool,
}

impl Landlock {
    /// Creates a policy without paths, to which resolved paths are added.
    pub(crate) fn resolved() -> Self {
        Self { skips_absent: true, is_resolved: true, ..Self::default() }
    }

    /// Creates a policy that denies everything: see [`Landlock`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows reading and executing files, and listing directories, at a path and below.
    ///
    /// Shells also write to `/dev/null`: add `.read_write("/dev/null")` for them.
    #[must_use]
    pub fn read_only(self, path: impl Into<PathBuf>) -> Self {
        self.access(path, FsAccess::READ_ONLY)
    }

    /// Allows every access at a path and below, as far as permissions and mounts allow it.
    #[must_use]
    pub fn read_write(self, path: impl Into<PathBuf>) -> Self {
        self.access(path, FsAccess::READ_WRITE)
    }

    /// Allows these accesses at a path and below, in addition to other rules for the path and its parents.
    #[must_use]
    pub fn access(mut self, path: impl Into<PathBuf>, access: FsAccess) -> Self {
        self.paths.push((path.into(), access));
        self
    }

    /// Hides a path inside an allowed tree.
    ///
    /// Landlock has no such rule, so this masks the path with a mount, as [`Root::mask`] does. It requires a mount
    /// namespace, and a rename on the host removes the mask.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) without a mount namespace.
    #[must_use]
    pub fn deny(mut self, path: impl Into<PathBuf>) -> Self {
        self.denied.push(path.into());
        self
    }

    /// Denies writing at a path and below, inside a writable tree.
    ///
    /// This is a read-only mount, as of [`Root::read_only`], which requires a mount namespace. In a writable bind the
    /// program can rename a directory above the path: see [`Root::protect`].
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) without a mount namespace, and
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Linux 5.12.
    ///
    /// Requires Linux 5.12.
    #[must_use]
    pub fn deny_write(mut self, path: impl Into<PathBuf>) -> Self {
        self.read_only.push(path.into());
        self
    }

    /// Allows access to all files, as far as permissions and mounts allow it.
    #[must_use]
    pub fn any_path(mut self) -> Self {
        self.any_path = true;
        self
    }

    /// Allows binding TCP sockets to a port. Port 0 allows ports that the kernel chooses.
    #[must_use]
    pub fn bind_port(mut self, port: u16) -> Self {
        self.bind.push(port);
        self
    }

    /// Allows connecting TCP sockets to a port.
    #[must_use]
    pub fn connect_port(mut self, port: u16) -> Self {
        self.connect.push(port);
        self
    }

    /// Allows all TCP ports, as far as the network namespace allows it.
    #[must_use]
    pub fn any_tcp(mut self) -> Self {
        self.any_tcp = true;
        self
    }

    /// Allows signals to all processes, as far as the PID namespace and permissions allow it.
    ///
    /// Without a PID namespace, a sandbox denies signals to processes outside of it even if it has no Landlock policy.
    /// This method allows them. Before Linux 6.12 they are not denied, which is recorded in
    /// [`Enforcement::gaps`](crate::outcome::Enforcement::gaps).
    #[must_use]
    pub fn any_signal(mut self) -> Self {
        self.any_signal = true;
        self
    }

    /// Allows all abstract UNIX sockets, as far as the network namespace allows it.
    #[must_use]
    pub fn any_abstract_socket(mut self) -> Self {
        self.any_abstract_socket = true;
        self
    }

    /// The intersection of these rules and others, with the mounts and the scope of signals of the others.
    pub(crate) fn within(mut self, others: &Self) -> Self {
        if !others.any_path {
            let mut paths = both(&self.paths, &others.paths);
            paths.extend(both(&others.paths, &self.paths));
            paths.retain(|(_, access)| !access.is_empty());
            paths.dedup();
            self.paths = paths;
        }
        if !others.any_tcp {
            self.bind.retain(|port| others.bind.contains(port));
            self.connect.retain(|port| others.connect.contains(port));
        }
        Self {
            denied: others.denied.clone(),
            read_only: others.read_only.clone(),
            any_signal: others.any_signal,
            any_abstract_socket: self.any_abstract_socket && others.any_abstract_socket,
            ..self
        }
    }

    /// Refuses relative paths, and those with `..`: what it is above depends on the symlinks before it.
    pub(crate) fn check(&self) -> Result<()> {
        self.paths.iter().try_for_each(|(path, _)| {
            if path.components().any(|component| component == Component::ParentDir) {
                let what = format!("the path of a Landlock rule {path:?} contains `..`");
                return Err(Error::invalid(what, "use the path that it leads to"));
            }
            if !path.is_absolute() {
                let what = format!("the path of a Landlock rule {path:?} is relative");
                return Err(Error::invalid(what, "give an absolute path, as the program sees it"));
            }
            super::no_zero("the path of a Landlock rule", path.as_os_str())
        })
    }

    /// Whether signals to all processes are allowed.
    pub(crate) fn allows_any_signal(&self) -> bool {
        self.any_signal
    }

    /// Whether files at a path or below may be written, or directories be created.
    pub(crate) fn allows_changes_at(&self, path: &Path) -> bool {
        let changes = FsAccess::WRITE_FILE | FsAccess::MAKE_DIR | FsAccess::REMOVE_DIR;
        let covers = |rule: &Path| {
            // A rule applies to the target of a symlink.
            let rule = rule.canonicalize().unwrap_or_else(|_| rule.to_owned());
            path.starts_with(&rule) || rule.starts_with(path)
        };
        self.any_path || self.paths.iter().any(|(rule, access)| access.intersects(changes) && covers(rule))
    }

    /// The root with mounts that mask what is denied, and the rules without that. A path that is absent, where there is
    /// no such root, needs no rule.
    pub(crate) fn without_root(self, root: &Root) -> (Option<Root>, Self) {
        let covered = self.cover(root);
        (covered, Self { denied: vec![], read_only: vec![], skips_absent: true, ..self })
    }

    /// Whether something is denied, which takes mounts.
    pub(crate) fn needs_mounts(&self) -> bool {
        !self.denied.is_empty() || !self.read_only.is_empty()
    }

    /// The root with mounts that mask what is denied. `None` if nothing is.
    pub(crate) fn cover(&self, root: &Root) -> Option<Root> {
        if !self.needs_mounts() {
            return None;
        }
        let masked = self.denied.iter().fold(root.clone(), |root, path| root.mask(path));
        Some(self.read_only.iter().fold(masked, |root, path| root.read_only(path)))
    }
}

/// Ports, in words.
fn listed(ports: &[u16]) -> String {
    if ports.is_empty() {
        return "none".into();
    }
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

/// Writes a summary for reports: `3 paths, any TCP port`.
impl Display for Landlock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.any_path {
            true => f.write_str("any path")?,
            false => write!(f, "{} paths", self.paths.len())?,
        }
        match self.any_tcp {
            true => f.write_str(", any TCP port"),
            false => write!(f, ", TCP ports to bind: {}, to connect: {}", listed(&self.bind), listed(&self.connect)),
        }
    }
}

impl Landlock {
    /// Rules with the same restrictions, and without paths and ports.
    pub(crate) fn reference(&self) -> Self {
        Self { paths: vec![], denied: vec![], read_only: vec![], bind: vec![], connect: vec![], ..*self }
    }
}

/// Returns the first rules, as far as the others allow the same.
fn both(rules: &[(PathBuf, FsAccess)], others: &[(PathBuf, FsAccess)]) -> Vec<(PathBuf, FsAccess)> {
    let allowed = |path: &Path| -> FsAccess {
        others.iter().filter(|(above, _)| path.starts_with(above)).map(|(_, access)| *access).collect()
    };
    rules.iter().map(|(path, access)| (path.clone(), *access & allowed(path))).collect()
}

/// The ABI of the running kernel, or the newest one that this version of the crate knows.
pub(crate) fn current_abi() -> ABI {
    static CURRENT: OnceLock<ABI> = OnceLock::new();
    *CURRENT.get_or_init(|| match crate::sys::landlock_abi::current() {
        Err(_) | Ok(0) => ABI::Unsupported,
        Ok(1) => ABI::V1,
        Ok(2) => ABI::V2,
        Ok(3) => ABI::V3,
        Ok(4) => ABI::V4,
        Ok(5) => ABI::V5,
        Ok(6) => ABI::V6,
        Ok(7) => ABI::V7,
        Ok(8) => ABI::V8,
        Ok(9) => ABI::V9,
        Ok(_) => ABI::V10,
    })
}

/// The accesses that a ruleset handles: the argument of landlock_create_ruleset(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handled {
    fs: FsAccess,
    net: u64,
    scopes: u64,
    abi: ABI,
}

impl Handled {
    /// Returns the accesses that an ABI can restrict, and the names of requested ones that it cannot.
    pub fn negotiate(requested: &Landlock, abi: ABI) -> (Self, Vec<String>) {
        let fs = if requested.any_path {
            FsAccess::empty()
        } else {
            FsAccess::from_bits_truncate(AccessFs::from_all(abi).bits())
        };
        let tcp = AccessNet::BindTcp as u64 | AccessNet::ConnectTcp as u64;
        let net = if requested.any_tcp { 0 } else { AccessNet::from_all(abi).bits() & tcp };
        let wanted =
            [(requested.any_abstract_socket, Scope::AbstractUnixSocket), (requested.any_signal, Scope::Signal)];
        let wanted: u64 = wanted.into_iter().filter(|(any, _)| !any).map(|(_, scope)| scope as u64).sum();
        let scopes = Scope::from_all(abi).bits() & wanted;
        let mut unsupported = vec![];
        let mut need = |requested: bool, since: ABI, what: &str, linux: &str| {
            if requested && abi < since {
                unsupported.push(format!("{what} (since Linux {linux})"));
            }
        };
        need(!requested.any_path, ABI::V1, "file access", "5.13, with landlock enabled at boot");
        need(!requested.any_path && abi >= ABI::V1, ABI::V3, "truncating files", "6.2");
        need(!requested.any_tcp, ABI::V4, "TCP", "6.7");
        need(!requested.any_abstract_socket, ABI::V6, "abstract UNIX sockets", "6.12");
        need(!requested.any_signal, ABI::V6, "signals", "6.12");
        (Self { fs, net, scopes, abi }, unsupported)
    }

    /// Whether signals are limited to the processes of the sandbox.
    pub fn scopes_signals(&self) -> bool {
        self.scopes & Scope::Signal as u64 != 0
    }

    /// Whether the program cannot mount anything.
    pub fn denies_mounts(&self) -> bool {
        !self.fs.is_empty()
    }

    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.fs.is_empty() && self.net == 0 && self.scopes == 0
    }
}

/// Writes `by ABI 7`.
impl Display for Handled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "by ABI {}", self.abi)
    }
}

/// Whether an ABI restricts connecting to UNIX sockets by their paths.
pub(crate) fn restricts_sockets(abi: ABI) -> bool {
    FsAccess::from_bits_truncate(AccessFs::from_all(abi).bits()).contains(FsAccess::RESOLVE_UNIX)
}

/// The error for accesses that the kernel cannot restrict.
pub(crate) fn unsupported(unsupported: &[String], remedy: &'static str) -> Error {
    let what = format!("the kernel's Landlock does not support restrictions of {}", unsupported.join(", "));
    Error::unsupported(Layer::Landlock, what, remedy)
}

/// Rules, and which accesses they restrict. A program that has several rulesets can do what all of them allow.
pub(crate) struct Ruleset<'a> {
    pub rules: &'a Landlock,
    pub handled: Handled,
}

/// Writes a summary for reports: `3 paths, any TCP port, by ABI 7`.
impl Display for Ruleset<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.rules, self.handled)
    }
}

/// Rules that other layers imply. They are a ruleset of their own, in force in addition to the requested policy.
pub(crate) struct Implied {
    rules: Landlock,
    handled: Handled,
    /// Descriptors that the program may reopen for writing through `/proc/self/fd`.
    descriptors: Vec<u32>,
}

impl Implied {
    /// Rules that allow opening files for writing, and connecting to sockets by path if the ABI handles that, only
    /// below these paths.
    pub fn writing_below(paths: BTreeSet<PathBuf>, descriptors: Vec<u32>, abi: ABI) -> Self {
        let fs = FsAccess::from_bits_truncate(AccessFs::from_all(abi).bits());
        let writing = fs & (FsAccess::WRITE_FILE | FsAccess::RESOLVE_UNIX);
        let paths = paths.into_iter().map(|path| (path, writing));
        // Renaming into another directory is denied by every ruleset that does not allow it.
        let rules = Landlock { paths: paths.chain([("/".into(), FsAccess::REFER)]).collect(), ..Landlock::new() };
        Self { rules, handled: Handled { fs: writing | FsAccess::REFER, net: 0, scopes: 0, abi }, descriptors }
    }

    /// Rules that limit signals, ptrace(2) and the like to the processes of the sandbox. `None` if the ABI has no scope
    /// of signals.
    pub fn own_signals(abi: ABI) -> Option<Self> {
        let scopes = Scope::from_all(abi).bits() & Scope::Signal as u64;
        let handled = Handled { fs: FsAccess::empty(), net: 0, scopes, abi };
        (scopes != 0).then(|| Self { rules: Landlock::new(), handled, descriptors: vec![] })
    }

    /// Restricts the program's process. A path that it cannot access needs no rule.
    pub fn restrict(&self, process: &mut Script) {
        let ruleset = create(process, &self.handled);
        for (path, access) in &self.rules.paths {
            let opening = Opening { symlinks: Symlinks::Followed, tolerated: Tolerated::Everything };
            allow_path(process, ruleset.into(), path, *access & self.handled.fs, opening);
        }
        let access = self.handled.fs & FsAccess::OF_FILE;
        for &number in &self.descriptors {
            process.step(Step::new(format!("add a Landlock rule for descriptor {number}")));
            let beneath = process.value("allowed", access.bits());
            process.value("descriptor", number.into());
            // A descriptor that is not a file with a path needs no rule.
            let rule = [ruleset.into(), PATH_BENEATH.into(), Arg::SlotAddress(beneath), Arg::NONE];
            process.call(nr!(SYS_landlock_add_rule), rule).ignore();
        }
        enforce(process, ruleset);
    }
}

/// Types of rules, of `linux/landlock.h`.
const PATH_BENEATH: u64 = 1;
const NET_PORT: u64 = 2;

impl Ruleset<'_> {
    /// Restricts the program's process, and everything that it starts. `root` is what the paths of the rules are in.
    pub fn restrict(&self, process: &mut Script, root: &Root) {
        let Self { rules, handled } = self;
        let ruleset = create(process, handled);
        if !handled.fs.is_empty() {
            // The kernel rejects a rule without any handled access.
            let is_unhandled = |access: FsAccess| !access.is_empty() && !access.intersects(handled.fs);
            for (path, access) in rules.paths.iter().filter(|(_, access)| !is_unhandled(*access)) {
                let symlinks = match root.place_of_programs(path) {
                    _ if rules.is_resolved => Symlinks::Refused,
                    Some(place) => Symlinks::FollowedTo(place),
                    None => Symlinks::Followed,
                };
                let tolerated = if rules.skips_absent { Tolerated::Absence } else { Tolerated::Nothing };
                allow_path(process, ruleset.into(), path, *access & handled.fs, Opening { symlinks, tolerated });
            }
        }
        if handled.net != 0 {
            for (ports, access) in [(&rules.bind, AccessNet::BindTcp), (&rules.connect, AccessNet::ConnectTcp)] {
                for &port in ports {
                    allow_port(process, ruleset.into(), port, access as u64);
                }
            }
        }
        enforce(process, ruleset);
    }
}

/// How the path of a rule is opened.
struct Opening<'a> {
    symlinks: Symlinks<'a>,
    tolerated: Tolerated,
}

/// Which symlinks in a path are followed. Magic links never are.
enum Symlinks<'a> {
    Followed,
    /// Up to a directory, and none below it.
    FollowedTo(&'a Path),
    Refused,
}

/// The failures to open a path for which there is no rule then.
enum Tolerated {
    Nothing,
    /// The path does not exist, or the program cannot access it.
    Absence,
    Everything,
}

impl Opening<'_> {
    /// Opens the path, and continues at `gone` without it.
    fn open(&self, process: &mut Script, path: &Path, gone: Label) -> Slot {
        let (fd, above) = match self.symlinks {
            Symlinks::Followed => (process.open_directory(path), None),
            Symlinks::Refused => (process.open_source(path), None),
            Symlinks::FollowedTo(place) => {
                let above = process.open_directory(place);
                let below = path.strip_prefix(place).unwrap_or(path);
                (process.open_beneath(above, below.as_os_str()).store("directory"), Some(above))
            }
        };
        match self.tolerated {
            Tolerated::Nothing => {}
            Tolerated::Absence => {
                process.last().on_error(OnError::goto_if([libc::ENOENT, libc::EACCES], gone));
            }
            Tolerated::Everything => {
                process.last().or_goto(gone);
            }
        }
        if let Some(above) = above {
            process.close(above);
        }
        fd
    }
}

/// Creates a ruleset.
fn create(process: &mut Script, handled: &Handled) -> Slot {
    process.step(Step::new("create a Landlock ruleset").needs(Need::Landlock));
    // struct landlock_ruleset_attr {u64 handled_access_fs, handled_access_net, scoped}, as long as the ABI has it
    let size = match handled.abi {
        ABI::Unsupported | ABI::V1 | ABI::V2 | ABI::V3 => 8,
        ABI::V4 | ABI::V5 => 16,
        _ => 24u64,
    };
    let words = [handled.fs.bits(), handled.net, handled.scopes].map(Word::Value);
    let shown = format!("{{fs = {:#x}, net = {:#x}, scoped = {:#x}}}", handled.fs.bits(), handled.net, handled.scopes);
    let attributes = process.arena.words(&words, shown);
    process.call(nr!(SYS_landlock_create_ruleset), [attributes.into(), size.into(), Arg::NONE]).store("ruleset")
}

/// Enforces a ruleset on the process.
fn enforce(process: &mut Script, ruleset: Slot) {
    process.step(Step::new("enforce the Landlock ruleset").needs(Need::Landlock).remedies(&[
        (
            libc::E2BIG,
            "the kernel's limit of 16 nested rulesets, including the caller's, is reached: nest fewer sandboxes, or \
             remove the policy of this one",
        ),
        (
            libc::EPERM,
            "remove Sandbox::allow_new_privs: without no_new_privs this needs CAP_SYS_ADMIN in the user namespace",
        ),
    ]));
    process.call(nr!(SYS_landlock_restrict_self), [ruleset.into(), Arg::NONE]);
    process.close(ruleset);
}

/// Adds a rule for a path: a directory, or a file, to which fewer rights apply.
fn allow_path(process: &mut Script, ruleset: Arg, path: &Path, access: FsAccess, opening: Opening<'_>) {
    process.step(Step::new("add a Landlock rule for").path(path).remedies(&[
        (libc::ENOENT, "it does not exist inside the sandbox: remove the rule, or bind it"),
        (libc::EACCES, "the sandbox's user may not access it: change its permissions, or remove the rule"),
        (
            libc::ELOOP,
            "it leads through a symlink that a program may have created, or through a magic link (proc(5)), which are \
             not followed: use the path that it leads to",
        ),
        (libc::ENOMSG, "the rule allows nothing that this kernel restricts: remove it"),
    ]));
    // struct landlock_path_beneath_attr {u64 allowed_access; int parent_fd}, in slots that follow one another
    let add = |process: &mut Script, attributes| {
        let rule = [ruleset, PATH_BENEATH.into(), Arg::SlotAddress(attributes), Arg::NONE];
        process.call(nr!(SYS_landlock_add_rule), rule);
    };
    let (is_file, done, gone) = (process.label(), process.label(), process.label());
    let opened = opening.open(process, path, gone);
    let beneath = process.value("allowed", access.bits());
    // The slot of the opened path need not follow that of the access.
    let fd = process.fcntl(opened, flags!(F_DUPFD_CLOEXEC), Arg::NONE).store("parent");
    process.close(opened);
    add(process, beneath);
    process.last().on_error(OnError::goto_if([libc::EINVAL; 2], is_file));
    process.jump(done);
    process.bind(is_file);
    let of_file = process.value("allowed for a file", (access & FsAccess::OF_FILE).bits());
    process.fcntl(fd, flags!(F_DUPFD_CLOEXEC), Arg::NONE).store("file");
    add(process, of_file);
    process.bind(done);
    // A copy is closed when the program is executed.
    process.close(fd);
    process.bind(gone);
}

fn allow_port(process: &mut Script, ruleset: Arg, port: u16, access: u64) {
    process.step(Step::new(format!("add a Landlock rule for TCP port {port}")));
    // struct landlock_net_port_attr {u64 allowed_access, port}
    let words = [access, port.into()].map(Word::Value);
    let attributes = process.arena.words(&words, format!("{{{access:#x}, {port}}}"));
    process.call(nr!(SYS_landlock_add_rule), [ruleset, NET_PORT.into(), attributes.into(), Arg::NONE]);
}
