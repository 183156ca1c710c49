//! Landlock: which files, ports and processes a program reaches (landlock(7), since Linux 5.13).

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bitflags::bitflags;
use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

use super::Root;
use crate::error::{Error, Result};
use crate::outcome::Layer;
use crate::plan::{Arg, OnError, Program, Slot, Step, Word, flags, nr};

bitflags! {
    /// What may be done with the files below a path (landlock(7)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct FsAccess: u64 {
        /// Executing a file.
        const EXECUTE = AccessFs::Execute as u64;
        /// Opening a file for writing.
        const WRITE_FILE = AccessFs::WriteFile as u64;
        /// Opening a file for reading.
        const READ_FILE = AccessFs::ReadFile as u64;
        /// Opening a directory, or listing it.
        const READ_DIR = AccessFs::ReadDir as u64;
        /// Removing an empty directory, or renaming one.
        const REMOVE_DIR = AccessFs::RemoveDir as u64;
        /// Removing or renaming a file.
        const REMOVE_FILE = AccessFs::RemoveFile as u64;
        /// Making a character device.
        const MAKE_CHAR = AccessFs::MakeChar as u64;
        /// Making a directory.
        const MAKE_DIR = AccessFs::MakeDir as u64;
        /// Making a regular file.
        const MAKE_REG = AccessFs::MakeReg as u64;
        /// Making a Unix socket.
        const MAKE_SOCK = AccessFs::MakeSock as u64;
        /// Making a FIFO.
        const MAKE_FIFO = AccessFs::MakeFifo as u64;
        /// Making a block device.
        const MAKE_BLOCK = AccessFs::MakeBlock as u64;
        /// Making a symbolic link.
        const MAKE_SYM = AccessFs::MakeSym as u64;
        /// Linking or renaming into another directory (since Linux 5.19; never before).
        const REFER = AccessFs::Refer as u64;
        /// Truncating a file (since Linux 6.2; always before).
        const TRUNCATE = AccessFs::Truncate as u64;
        /// ioctl(2) on a device (since Linux 6.10; always before).
        const IOCTL_DEV = AccessFs::IoctlDev as u64;
        /// Connecting to a Unix socket by its path (since Linux 7.1; always before).
        const RESOLVE_UNIX = AccessFs::ResolveUnix as u64;

        /// Reading files and directories, and executing files.
        const READ_ONLY = Self::EXECUTE.bits() | Self::READ_FILE.bits() | Self::READ_DIR.bits();
        /// What can be done with a file that is no directory.
        const OF_FILE = Self::EXECUTE.bits() | Self::WRITE_FILE.bits() | Self::READ_FILE.bits() | Self::TRUNCATE.bits()
            | Self::IOCTL_DEV.bits() | Self::RESOLVE_UNIX.bits();
    }
}

/// What a program reaches, whoever it is and wherever its files are mounted. Also without a namespace, for instance in a
/// container that forbids them.
///
/// `Landlock::new()` denies everything: files, TCP ports, and signals and abstract Unix sockets to processes outside; each
/// method allows something. The newest ABI of the kernel is used. What an older one can't restrict is an error, or is
/// reported as lost if the layer is among those of [`Sandbox::best_effort`](crate::Sandbox::best_effort):
///
/// | restricts | since |
/// |---|---|
/// | files | Linux 5.13, and 6.2 for truncating them |
/// | TCP ports | Linux 6.7 |
/// | signals, abstract Unix sockets | Linux 6.12 |
///
/// Restricted where the kernel can, and not asked for: ioctl(2) on devices (6.10), Unix sockets by their paths (7.1).
///
/// Paths are absolute, and those that the program sees: of the host with [`Root::inherit`], and inside of the sandbox else. A rule is for
/// what is there when the program starts, and all that is below it.
///
/// ```
/// use stockade::{Command, Landlock, Sandbox};
///
/// let landlock = Landlock::new().read_only("/usr").read_only("/lib").read_only("/lib64").read_only("/etc");
/// let output = Sandbox::new().landlock(landlock).output(Command::new("/usr/bin/ls").arg("/proc"))?;
/// assert!(!output.outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Landlock {
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    paths: Vec<(PathBuf, FsAccess)>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    denied: Vec<PathBuf>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    read_only: Vec<PathBuf>,
    any_path: bool,
    bind: Vec<u16>,
    connect: Vec<u16>,
    any_tcp: bool,
    any_signal: bool,
    any_abstract_socket: bool,
}

impl Landlock {
    /// Everything is denied.
    pub fn new() -> Self {
        Self::default()
    }

    /// Files below a path may be read and executed, and directories be listed.
    #[must_use]
    pub fn read_only(self, path: impl Into<PathBuf>) -> Self {
        self.access(path, FsAccess::READ_ONLY)
    }

    /// Everything may be done below a path, as far as permissions and mounts let it.
    ///
    /// A path that is a symlink is followed. Without a mount namespace it is one of the host: name no path there that another
    /// program could have replaced by a symlink.
    #[must_use]
    pub fn read_write(self, path: impl Into<PathBuf>) -> Self {
        self.access(path, FsAccess::all())
    }

    /// What may be done below a path, beside what other rules for it or for what is above it say.
    #[must_use]
    pub fn access(mut self, path: impl Into<PathBuf>, access: FsAccess) -> Self {
        self.paths.push((path.into(), access));
        self
    }

    /// What is at a path can't be seen, though it is in a tree that is allowed. Landlock has no such rule: it is a mask in
    /// the sandbox's mount namespace, and an error without one. A rename on the host takes it away, as it does with
    /// [`Root::mask`].
    #[must_use]
    pub fn deny(mut self, path: impl Into<PathBuf>) -> Self {
        self.denied.push(path.into());
        self
    }

    /// What is at a path and below is read-only, though it is in a tree that may be written; by a mount, as
    /// [`Landlock::deny`]. In a writable bind the program can rename a directory above it: see [`Root::protect`].
    #[must_use]
    pub fn deny_write(mut self, path: impl Into<PathBuf>) -> Self {
        self.read_only.push(path.into());
        self
    }

    /// Leaves files to their permissions and mounts.
    #[must_use]
    pub fn any_path(mut self) -> Self {
        self.any_path = true;
        self
    }

    /// TCP sockets may be bound to a port; port 0 lets the kernel choose one.
    #[must_use]
    pub fn bind_port(mut self, port: u16) -> Self {
        self.bind.push(port);
        self
    }

    /// TCP sockets may be connected to a port.
    #[must_use]
    pub fn connect_port(mut self, port: u16) -> Self {
        self.connect.push(port);
        self
    }

    /// Leaves TCP to the network namespace.
    #[must_use]
    pub fn any_tcp(mut self) -> Self {
        self.any_tcp = true;
        self
    }

    /// Leaves signals to the pid namespace and the permissions.
    ///
    /// Without a PID namespace a sandbox keeps signals to its own processes also if it has no other Landlock rules (since
    /// Linux 6.12; before, that is among [`Enforcement::gaps`](crate::Enforcement::gaps)). This allows them.
    #[must_use]
    pub fn any_signal(mut self) -> Self {
        self.any_signal = true;
        self
    }

    /// Leaves abstract Unix sockets to the network namespace.
    #[must_use]
    pub fn any_abstract_socket(mut self) -> Self {
        self.any_abstract_socket = true;
        self
    }

    /// Of these rules what others allow too, with what those deny by mounts, and with the processes that they leave alone.
    pub(crate) fn within(mut self, others: &Self) -> Self {
        if !others.any_path {
            for (path, access) in &mut self.paths {
                let above = others.paths.iter().filter(|(above, _)| path.starts_with(above));
                *access &= above.map(|(_, access)| *access).collect::<FsAccess>();
            }
            self.paths.retain(|(_, access)| !access.is_empty());
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

    /// Refuses what is no absolute path.
    pub(super) fn check(&self) -> Result<()> {
        self.paths.iter().try_for_each(|(path, _)| {
            if !path.is_absolute() {
                let what = format!("the path of a Landlock rule {path:?} is relative");
                return Err(Error::invalid(what, "give an absolute path, as the program sees it"));
            }
            super::no_zero("the path of a Landlock rule", path.as_os_str())
        })
    }

    /// Whether signals to other processes were allowed.
    pub(super) fn allows_any_signal(&self) -> bool {
        self.any_signal
    }

    /// Whether files at a path or below may be written, or directories be created.
    pub(super) fn allows_changes_at(&self, path: &Path) -> bool {
        let changes = FsAccess::WRITE_FILE | FsAccess::MAKE_DIR | FsAccess::REMOVE_DIR;
        let covers = |rule: &Path| {
            // A rule is for what its path leads to.
            let rule = rule.canonicalize().unwrap_or_else(|_| rule.to_owned());
            path.starts_with(&rule) || rule.starts_with(path)
        };
        self.any_path || self.paths.iter().any(|(rule, access)| access.intersects(changes) && covers(rule))
    }

    /// The root with the masks of what is denied.
    pub(super) fn cover(&self, root: &Root) -> Option<Root> {
        if self.denied.is_empty() && self.read_only.is_empty() {
            return None;
        }
        let masked = self.denied.iter().fold(root.clone(), |root, path| root.mask(path));
        Some(self.read_only.iter().fold(masked, |root, path| root.read_only(path)))
    }
}

/// `3 paths, TCP ports …` as a report has it.
impl Display for Landlock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.any_path {
            true => f.write_str("any path")?,
            false => write!(f, "{} paths", self.paths.len())?,
        }
        match self.any_tcp {
            true => f.write_str(", any TCP port"),
            false => write!(f, ", TCP bind {:?} connect {:?}", self.bind, self.connect),
        }
    }
}

impl Landlock {
    /// Rules that restrict the same, and name no path or port.
    pub(crate) fn reference(&self) -> Self {
        Self { paths: vec![], denied: vec![], read_only: vec![], bind: vec![], connect: vec![], ..*self }
    }
}

/// What the running kernel has, as far as `landlock` knows it.
pub(super) fn newest() -> ABI {
    static NEWEST: OnceLock<ABI> = OnceLock::new();
    *NEWEST.get_or_init(|| {
        let has_fs = |abi| strict().handle_access(AccessFs::from_all(abi)).is_ok();
        let has_net = |abi| strict().handle_access(AccessNet::from_all(abi)).is_ok();
        let known = [ABI::V10, ABI::V9, ABI::V6, ABI::V5, ABI::V4, ABI::V3, ABI::V2, ABI::V1];
        let has = |abi: ABI| match abi {
            ABI::V10 | ABI::V4 => has_net(abi),
            ABI::V6 => strict().scope(Scope::from_all(abi)).is_ok(),
            _ => has_fs(abi),
        };
        known.into_iter().find(|&abi| has(abi)).unwrap_or(ABI::Unsupported)
    })
}

fn strict() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

/// What `landlock_create_ruleset` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handled {
    fs: FsAccess,
    net: u64,
    scopes: u64,
    abi: ABI,
}

impl Handled {
    /// What an ABI can do of what is asked for, and what it can't.
    pub fn negotiate(asked: &Landlock, abi: ABI) -> (Self, Vec<String>) {
        let fs = if asked.any_path {
            FsAccess::empty()
        } else {
            FsAccess::from_bits_truncate(AccessFs::from_all(abi).bits())
        };
        let tcp = AccessNet::BindTcp as u64 | AccessNet::ConnectTcp as u64;
        let net = if asked.any_tcp { 0 } else { AccessNet::from_all(abi).bits() & tcp };
        let wanted = [(asked.any_abstract_socket, Scope::AbstractUnixSocket), (asked.any_signal, Scope::Signal)];
        let wanted: u64 = wanted.into_iter().filter(|(any, _)| !any).map(|(_, scope)| scope as u64).sum();
        let scopes = Scope::from_all(abi).bits() & wanted;
        let mut lacks = vec![];
        let mut need = |asked: bool, since: ABI, what: &str, linux: &str| {
            if asked && abi < since {
                lacks.push(format!("{what} (since Linux {linux})"));
            }
        };
        need(!asked.any_path, ABI::V1, "reaching files", "5.13, with landlock among the security modules of the boot");
        need(!asked.any_path && abi >= ABI::V1, ABI::V3, "truncating files", "6.2");
        need(!asked.any_tcp, ABI::V4, "TCP", "6.7");
        need(!asked.any_abstract_socket, ABI::V6, "abstract Unix sockets", "6.12");
        need(!asked.any_signal, ABI::V6, "signals", "6.12");
        (Self { fs, net, scopes, abi }, lacks)
    }

    /// Whether signals reach the processes of the sandbox alone.
    pub fn scopes_signals(&self) -> bool {
        self.scopes & Scope::Signal as u64 != 0
    }

    /// Whether there is anything to restrict.
    pub fn is_empty(&self) -> bool {
        self.fs.is_empty() && self.net == 0 && self.scopes == 0
    }
}

/// `by ABI 7`.
impl Display for Handled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "by ABI {}", self.abi)
    }
}

/// What the kernel can't restrict, as an error.
pub(super) fn refuse(lacks: &[String]) -> Error {
    let what = format!("the kernel's Landlock can't keep the program from {}", lacks.join(", "));
    let remedy = "use a newer kernel, leave that to the namespaces (Landlock::any_tcp, any_signal, any_abstract_socket, \
                  any_path), or let the sandbox do without (Sandbox::best_effort)";
    Error::invalid(what, remedy).of(Layer::Landlock)
}

/// Rules that the defaults of a sandbox imply, without the user's asking. They are a ruleset of their own, so that both
/// hold.
pub(super) struct Implied {
    rules: Landlock,
    handled: Handled,
    /// Descriptors of the program that it may open for writing again, by `/proc/self/fd`.
    descriptors: Vec<u32>,
}

impl Implied {
    /// Opening files for writing, and connecting to sockets by their paths where the ABI has that, below these paths alone.
    pub fn writing_below(paths: Vec<PathBuf>, descriptors: Vec<u32>, abi: ABI) -> Self {
        let fs = FsAccess::from_bits_truncate(AccessFs::from_all(abi).bits());
        let writing = fs & (FsAccess::WRITE_FILE | FsAccess::RESOLVE_UNIX);
        let paths = paths.into_iter().map(|path| (path, writing));
        // Renaming into another directory is denied by every ruleset that does not allow it.
        let rules = Landlock { paths: paths.chain([("/".into(), FsAccess::REFER)]).collect(), ..Landlock::new() };
        Self { rules, handled: Handled { fs: writing | FsAccess::REFER, net: 0, scopes: 0, abi }, descriptors }
    }

    /// Signals, ptrace(2) and what takes the same right reach the processes of the sandbox alone. None where the ABI has no
    /// scope of signals.
    pub fn own_signals(abi: ABI) -> Option<Self> {
        let scopes = Scope::from_all(abi).bits() & Scope::Signal as u64;
        let handled = Handled { fs: FsAccess::empty(), net: 0, scopes, abi };
        (scopes != 0).then(|| Self { rules: Landlock::new(), handled, descriptors: vec![] })
    }

    /// Restricts the process that runs the program. A path that it can't reach needs no rule.
    pub fn restrict(&self, process: &mut Program) {
        let ruleset = create(process, &self.handled);
        for (path, access) in &self.rules.paths {
            allow_path(process, ruleset.into(), path, *access & self.handled.fs, true);
        }
        let access = self.handled.fs & FsAccess::OF_FILE;
        for &number in &self.descriptors {
            process.step(Step::new(format!("allowing descriptor {number} by Landlock")));
            let beneath = process.value("allowed", access.bits());
            process.value("descriptor", number.into());
            // What is no file that has a path needs no rule.
            let rule = [ruleset.into(), PATH_BENEATH.into(), Arg::SlotAddress(beneath), Arg::NONE];
            process.call(nr!(SYS_landlock_add_rule), rule).ignore();
        }
        enforce(process, ruleset);
    }
}

/// Of `linux/landlock.h`.
const PATH_BENEATH: u64 = 1;
const NET_PORT: u64 = 2;

/// Restricts the process that runs the program, and all that it starts.
pub(super) fn restrict(process: &mut Program, asked: &Landlock, handled: &Handled) {
    let ruleset = create(process, handled);
    if !handled.fs.is_empty() {
        // What the kernel doesn't restrict is allowed without a rule.
        let left_alone = |access: FsAccess| !access.is_empty() && !access.intersects(handled.fs);
        for (path, access) in asked.paths.iter().filter(|(_, access)| !left_alone(*access)) {
            allow_path(process, ruleset.into(), path, *access & handled.fs, false);
        }
    }
    if handled.net != 0 {
        for (ports, access) in [(&asked.bind, AccessNet::BindTcp), (&asked.connect, AccessNet::ConnectTcp)] {
            for &port in ports {
                allow_port(process, ruleset.into(), port, access as u64);
            }
        }
    }
    enforce(process, ruleset);
}

/// Makes a ruleset.
fn create(process: &mut Program, handled: &Handled) -> Slot {
    process.step(Step::new("making a Landlock ruleset").remedies(&[
        (libc::ENOSYS, "the kernel has no Landlock, or a seccomp filter of the surrounding container hides it"),
        (
            libc::EOPNOTSUPP,
            "Landlock is not among the security modules of the boot: add landlock to lsm= (kernel command line)",
        ),
    ]));
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

/// Restricts the process by a ruleset.
fn enforce(process: &mut Program, ruleset: Slot) {
    process.step(Step::new("restricting the program by Landlock").remedies(&[
        (
            libc::E2BIG,
            "the kernel puts 16 rulesets on top of one another, those of the caller among them: start fewer sandboxes \
             within one another, or leave the rules of this one out",
        ),
        (libc::EPERM, "without no_new_privs it takes CAP_SYS_ADMIN over the user namespace"),
    ]));
    process.call(nr!(SYS_landlock_restrict_self), [ruleset.into(), Arg::NONE]);
    process.close(ruleset);
}

/// A rule for a path that is a directory, or for a file, which has fewer rights.
/// `absent` says that it may be absent.
fn allow_path(process: &mut Program, ruleset: Arg, path: &Path, access: FsAccess, absent: bool) {
    process.step(Step::new("allowing by Landlock").path(path).remedies(&[
        (libc::ENOENT, "it does not exist inside the sandbox: leave the rule out, or bind it"),
        (libc::EACCES, "the sandbox's user can't reach it"),
        (libc::ENOMSG, "the rule allows nothing that this kernel restricts: leave it out"),
    ]));
    // struct landlock_path_beneath_attr {u64 allowed_access; int parent_fd}, in slots that follow one another
    let add = |process: &mut Program, attributes| {
        let rule = [ruleset, PATH_BENEATH.into(), Arg::SlotAddress(attributes), Arg::NONE];
        process.call(nr!(SYS_landlock_add_rule), rule);
    };
    let (is_file, done, gone) = (process.label(), process.label(), process.label());
    let beneath = process.value("allowed", access.bits());
    let fd = process.open_directory(path);
    if absent {
        process.last().or_goto(gone);
    }
    add(process, beneath);
    process.last().on_error(OnError::goto_if([libc::EINVAL; 2], is_file));
    process.jump(done);
    process.bind(is_file);
    let of_file = process.value("allowed for a file", (access & FsAccess::OF_FILE).bits());
    process.fcntl(fd, flags!(F_DUPFD_CLOEXEC), Arg::NONE).store("file");
    add(process, of_file);
    process.bind(done);
    // The copy, if there is one, closes when the program is executed.
    process.close(fd);
    process.bind(gone);
}

fn allow_port(process: &mut Program, ruleset: Arg, port: u16, access: u64) {
    process.step(Step::new(format!("allowing TCP port {port} by Landlock")));
    // struct landlock_net_port_attr {u64 allowed_access, port}
    let words = [access, port.into()].map(Word::Value);
    let attributes = process.arena.words(&words, format!("{{{access:#x}, {port}}}"));
    process.call(nr!(SYS_landlock_add_rule), [ruleset, NET_PORT.into(), attributes.into(), Arg::NONE]);
}
