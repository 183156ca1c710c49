//! Namespaces: the kinds that are created or joined, and the host name and clock offsets in them. What a namespace
//! contains, such as mounts, IDs and network interfaces, is in the file of that layer.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::facts::Facts;
use super::open_descriptor::Descriptor;
use crate::advice::Need;
use crate::error::{Error, Result};
use crate::flag_set::{FlagSet, flag_set};
use crate::plan::message::{Rights, header};
use crate::plan::report::NAMESPACE;
use crate::plan::{Arg, ConstantNames, Input, Script, Slot, Step, Word, flags, names, nr};
use crate::unix::Pid;

flag_set! {
    /// A set of kinds of namespaces.
    ///
    /// See namespaces(7).
    ///
    /// ```
    /// use stockade::{Command, Namespaces, Sandbox};
    ///
    /// // The default kinds without the network namespace: the program uses the network of the caller.
    /// let sandbox = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET);
    /// assert!(sandbox.status(Command::new("true"))?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub struct Namespaces: u32 in "stockade::Namespaces", "kinds", "Namespaces::USER", "Namespaces::NET";

    /// User and group IDs, and capabilities over the other namespaces (user_namespaces(7)).
    const USER = libc::CLONE_NEWUSER as u32;
    /// Mounts (mount_namespaces(7)). A [`Root`](crate::Root) with mounts requires it.
    const MOUNT = libc::CLONE_NEWNS as u32;
    /// Process IDs (pid_namespaces(7)). The kernel kills every process of the sandbox when its init exits.
    const PID = libc::CLONE_NEWPID as u32;
    /// Network interfaces, addresses, ports, and abstract UNIX sockets (network_namespaces(7)).
    const NET = libc::CLONE_NEWNET as u32;
    /// System V IPC and POSIX message queues (ipc_namespaces(7)).
    const IPC = libc::CLONE_NEWIPC as u32;
    /// Host name and domain name (uts_namespaces(7)).
    const UTS = libc::CLONE_NEWUTS as u32;
    /// The visible root of the cgroup hierarchies (cgroup_namespaces(7)).
    const CGROUP = libc::CLONE_NEWCGROUP as u32;
    /// Offsets of `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` (time_namespaces(7)).
    const TIME = libc::CLONE_NEWTIME as u32;
}

#[cfg(feature = "serde")]
crate::stored::as_form!(Namespaces, crate::stored::FlagNames);

impl Namespaces {
    /// The name of a single kind in `/proc/[pid]/ns/`.
    fn file(self) -> &'static str {
        match self {
            Self::USER => "user",
            Self::MOUNT => "mnt",
            Self::PID => "pid",
            Self::NET => "net",
            Self::IPC => "ipc",
            Self::UTS => "uts",
            Self::CGROUP => "cgroup",
            _ => "time",
        }
    }

    /// A readable list of the names.
    pub(crate) fn names(self) -> String {
        let names: Vec<&str> = self.iter().map(Self::file).collect();
        names.join(", ")
    }

    /// The set as an argument of a system call.
    pub(crate) fn arg(self) -> Arg {
        Arg::Bits(self.bits(), &KINDS)
    }
}

/// The names of the kinds in clone(2) and setns(2).
static KINDS: ConstantNames = names![
    CLONE_NEWUSER,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWNET,
    CLONE_NEWIPC,
    CLONE_NEWUTS,
    CLONE_NEWCGROUP,
    CLONE_NEWTIME,
];

/// A reference to existing namespaces to join with [`Sandbox::join`](crate::Sandbox::join): those of a process, or the
/// one of a descriptor.
///
/// See setns(2).
///
/// ```
/// use stockade::namespaces::NamespaceRef;
/// use stockade::{Command, Identity, Namespaces, Sandbox};
///
/// let running = Sandbox::new().hostname("server").spawn(Command::new("sleep").arg("60"))?;
///
/// // The network and the host name of the running sandbox, and the user namespace that owns them.
/// let kinds = Namespaces::USER | Namespaces::NET | Namespaces::UTS;
/// let client = Sandbox::new().join(kinds, NamespaceRef::pid(running.pid()));
/// # let is_root = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)?;
/// # let client = if is_root { client.identity(Identity::new().uid(1000).gid(1000)) } else { client };
/// assert_eq!(client.output(Command::new("uname").arg("-n"))?.stdout, b"server\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A privileged caller ([`Identity`](crate::Identity)) that joins a user namespace must set the IDs of the program,
/// since the ID maps are not known: `Identity::new().uid(1000).gid(1000)`.
///
/// The namespaces of `ip netns add build` are files:
/// `NamespaceRef::fd(File::open("/run/netns/build")?)`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NamespaceRef(NamespaceSource);

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
enum NamespaceSource {
    Pid(Pid),
    Fd(Descriptor),
}

/// Opens a file of a process. Access is denied for a moment while the process executes a program, even after its spawn
/// has returned.
fn open_while_executed(path: &str) -> io::Result<File> {
    const ROUNDS: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(1);
    for _ in 1..ROUNDS {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => std::thread::sleep(PAUSE),
            opened => return opened,
        }
    }
    File::open(path)
}

impl NamespaceRef {
    /// Refers to the namespaces of a process, by its PID in the caller's PID namespace. They are opened when the
    /// sandbox is compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn).
    pub fn pid(pid: impl Into<Pid>) -> Self {
        Self(NamespaceSource::Pid(pid.into()))
    }

    /// Refers to the namespace of a descriptor: an open file of `/proc/[pid]/ns/`, or a bind mount of one, as `ip netns
    /// add` creates them. Its kind must be the one that is joined: [`Sandbox::join`](crate::Sandbox::join) takes
    /// several kinds of a process, but one of a descriptor.
    pub fn fd(fd: impl Into<OwnedFd>) -> Self {
        Self(NamespaceSource::Fd(Descriptor(Arc::new(fd.into()))))
    }

    pub(crate) fn open(&self, kind: Namespaces) -> Result<Arc<OwnedFd>> {
        match &self.0 {
            NamespaceSource::Fd(fd) => Ok(fd.0.clone()),
            NamespaceSource::Pid(pid) => {
                let path = format!("/proc/{pid}/ns/{}", kind.file());
                open_while_executed(&path).map(|file| Arc::new(file.into())).map_err(|error| {
                    let step = format!("open the {} namespace of process {pid}", kind.file());
                    let remedy = "name a process that runs, and that this user may trace";
                    Error::set_up(step, "open", error, Some(remedy)).on(path)
                })
            }
        }
    }
}

/// Existing namespaces to join.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Join {
    pub namespaces: Namespaces,
    pub target: NamespaceRef,
}

/// The offsets of the clocks of a time namespace, in seconds. A clock with a negative offset is behind that of the
/// host.
///
/// [`Sandbox::time_offsets`](crate::Sandbox::time_offsets) sets them.
///
/// Default: 0.
///
/// See time_namespaces(7).
///
/// ```
/// use stockade::namespaces::TimeOffsets;
/// use stockade::{Command, Sandbox};
///
/// let sandbox = Sandbox::new().time_offsets(TimeOffsets::new().boottime(1_000_000));
/// let output = sandbox.output(Command::new("cat").arg("/proc/uptime"))?;
/// let uptime: f64 = String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().parse()?;
/// assert!(uptime > 1_000_000.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
pub struct TimeOffsets {
    /// The offset of `CLOCK_MONOTONIC`, in seconds.
    pub monotonic: i64,
    /// The offset of `CLOCK_BOOTTIME`, in seconds.
    pub boottime: i64,
}

impl TimeOffsets {
    /// Creates offsets of 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { monotonic: 0, boottime: 0 }
    }

    /// Sets the offset of `CLOCK_MONOTONIC`, in seconds.
    #[must_use]
    pub const fn monotonic(mut self, seconds: i64) -> Self {
        self.monotonic = seconds;
        self
    }

    /// Sets the offset of `CLOCK_BOOTTIME`, in seconds.
    #[must_use]
    pub const fn boottime(mut self, seconds: i64) -> Self {
        self.boottime = seconds;
        self
    }
}

/// The namespaces of a sandbox, checked.
pub(crate) struct Chosen {
    pub created: Namespaces,
    pub joined: Vec<(Namespaces, u16)>,
}

impl Chosen {
    pub fn joined_kinds(&self) -> Namespaces {
        self.joined.iter().map(|(kind, _)| *kind).collect()
    }

    /// The kinds that the program does not share with the caller.
    pub fn all(&self) -> Namespaces {
        self.created | self.joined_kinds()
    }
}

/// Checks the requested namespaces, and opens those that are joined.
pub(crate) fn choose(
    created: Namespaces,
    joins: &[Join],
    descriptors: &mut Vec<Arc<OwnedFd>>,
    facts: &Facts,
) -> Result<Chosen> {
    let mut chosen = Chosen { created, joined: vec![] };
    for Join { namespaces, target } in joins {
        for kind in namespaces.iter() {
            if chosen.all().contains(kind) {
                let name = kind.file();
                let flag = kind.flag_names().collect::<String>();
                return Err(Error::invalid(
                    format!("the {name} namespace is both created and joined, or joined twice"),
                    format!(
                        "join it once, and do not create it: map_namespaces(|created| created - Namespaces::{flag})"
                    ),
                ));
            }
            let index = crate::plan::share(descriptors, target.open(kind)?)?;
            chosen.joined.push((kind, index));
        }
    }
    if !facts.privileged && !chosen.all().contains(Namespaces::USER) && !chosen.all().is_empty() {
        return Err(Error::invalid(
            format!(
                "an unprivileged caller cannot create or join namespaces ({}) without a user namespace",
                chosen.all().names()
            ),
            format!("add Namespaces::USER, or {}", facts.way_to_rights()),
        ));
    }
    Ok(chosen)
}

/// Joins namespaces (a PID namespace for the children). A user namespace grants capabilities over the namespaces that
/// it owns, and removes those over all others. So the user namespace comes last, or first if the kernel refuses that
/// order.
pub(crate) fn join(chosen: &Chosen, helper: &mut Script) {
    let of = |user: bool| {
        let joined = chosen.joined.iter().filter(move |(kind, _)| (*kind == Namespaces::USER) == user);
        joined.copied().collect::<Vec<_>>()
    };
    let (user, others) = (of(true), of(false));
    let (user_first, end) = (helper.label(), helper.label());
    let set = |helper: &mut Script, (kind, index): (Namespaces, u16)| {
        let kind_name = kind.file();
        helper.step(Step::new(format!("join a {kind_name} namespace")).remedies(&[
            (
                libc::EPERM,
                "this user has no capabilities over that namespace: join its user namespace too, or run as root",
            ),
            (
                libc::EINVAL,
                "the descriptor is not a namespace of this kind, or it is the caller's user namespace: name another",
            ),
        ]));
        let fd = helper.input(Input::Descriptor(index));
        helper.setns(fd, kind.arg());
    };
    if !user.is_empty() {
        for &each in &others {
            set(helper, each);
            helper.last().or_goto(user_first);
        }
        user.iter().for_each(|&each| set(helper, each));
        helper.jump(end);
        helper.bind(user_first);
    }
    user.iter().chain(&others).for_each(|&each| set(helper, each));
    helper.bind(end);
}

/// Creates namespaces (a PID namespace for the children). The kernel creates the user namespace first.
pub(crate) fn create(created: Namespaces, helper: &mut Script) {
    if created.is_empty() {
        return;
    }
    helper.step(Step::new("create the namespaces").needs(Need::Namespaces(created.bits().into())));
    helper.call(nr!(SYS_unshare), [created.arg()]);
}

/// Sets the clock offsets of the new time namespace, and enters it.
pub(crate) fn enter_time(helper: &mut Script, offsets: TimeOffsets) {
    if offsets != TimeOffsets::default() {
        helper.step(
            Step::new("set the clock offsets").path("/proc/self/timens_offsets").needs(Need::ProcFiles).remedies(&[
                (libc::ERANGE, "a clock would be before 0 or after the year 2116: use a smaller offset"),
                (
                    libc::ENOENT,
                    "the kernel has no time namespaces (CONFIG_TIME_NS, since Linux 5.6): remove Namespaces::TIME",
                ),
            ]),
        );
        let text = format!("monotonic {} 0\nboottime {} 0\n", offsets.monotonic, offsets.boottime);
        let bytes = helper.arena.bytes(text.as_bytes(), format!("{text:?}"));
        helper.write_file("/proc/self/timens_offsets", bytes, text.len());
    }
    helper.step(
        Step::new("enter the time namespace")
            .path("/proc/self/ns/time_for_children")
            .needs(Need::Namespaces(libc::CLONE_NEWTIME as u64)),
    );
    let namespace = helper.openat(Arg::CWD, "/proc/self/ns/time_for_children", flags!(O_RDONLY | O_CLOEXEC), 0);
    helper.setns(namespace, flags!(CLONE_NEWTIME));
    helper.close(namespace);
}

/// Opens the caller's proc file system.
pub(crate) fn open_proc(helper: &mut Script) -> Slot {
    helper.step(Step::new("open").path("/proc").remedies(&[(
        libc::ENOENT,
        "the host has no /proc, by which namespaces are opened: mount it, or remove Sandbox::keep_namespaces",
    )]));
    helper.open_directory(Path::new("/proc"))
}

/// Opens namespaces of the process by a proc file system, and sends them to the caller.
pub(crate) fn send(process: &mut Script, proc: Slot, kinds: Namespaces) {
    process.step(Step::new("send the namespaces to the caller"));
    for kind in kinds.iter() {
        // The helper itself is outside the PID namespace that its children are in.
        let name = if kind == Namespaces::PID { "pid_for_children" } else { kind.file() };
        send_namespace(process, proc, name, kind.bits());
    }
}

/// Opens a namespace of the process, and sends its descriptor to the caller. `proc` is a proc file system that shows
/// the process, `name` the name of the file (proc(5), `/proc/PID/ns`), and `kind` the flag of clone(2).
fn send_namespace(process: &mut Script, proc: Slot, name: &'static str, kind: u32) {
    let tag = process.value("namespace", NAMESPACE);
    process.value("kind", kind.into());
    let rights = Rights::new(process, name, &[0]);
    let data = process.arena.words(&[Script::slot_word(tag), Word::Value(16)], "{<namespace>, <kind>}");
    let header = header(process, data, 1, &rights, format!("{{[<{name}>]}}"));
    let path = process.text(format!("self/ns/{name}"));
    let open = [proc.into(), path, flags!(O_RDONLY | O_CLOEXEC), Arg::NONE];
    process.call(nr!(SYS_openat), open).store_in(rights.first);
    let report = process.input(Input::Report);
    process.call(nr!(SYS_sendmsg), [report.into(), header.into(), flags!(MSG_NOSIGNAL)]);
    process.close(rights.first);
}

/// Makes calls in a child inside the joined PID namespace, which shares memory and descriptors with the helper.
pub(crate) fn in_joined_pids<T>(helper: &mut Script, calls: impl FnOnce(&mut Script) -> T) -> T {
    let parent = helper.label();
    let sharing = flags!(CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD);
    helper.call(nr!(SYS_clone), [sharing, Arg::NULL, Arg::NULL, Arg::NULL, Arg::NULL]).above_zero(parent);
    // A process of that namespace can stop the child. If the helper is killed meanwhile, the child is not to go on.
    helper.prctl(flags!(PR_SET_PDEATHSIG), libc::SIGKILL).ignore();
    let result = calls(helper);
    helper.exit(0);
    helper.bind(parent);
    // A zombie would keep the init of that namespace from exiting as long as the helper stays.
    helper.reap();
    result
}

/// The maximum length of a host name or domain name (uname(2)).
const LONGEST_NAME: usize = 64;

/// Sets the names of a new UTS namespace.
pub(crate) fn set_names(
    created: Namespaces,
    image: &mut Script,
    hostname: Option<&OsStr>,
    domain_name: Option<&OsStr>,
) -> Result<()> {
    let set = [(hostname, nr!(SYS_sethostname), "host name"), (domain_name, nr!(SYS_setdomainname), "domain name")];
    for (name, call, what) in set {
        let Some(name) = name else { continue };
        if !created.contains(Namespaces::UTS) {
            return Err(Error::invalid(
                format!("the {what} {name:?} cannot be set: it would be the caller's"),
                "add Namespaces::UTS, or remove the name",
            ));
        }
        let len = name.as_bytes().len();
        if len > LONGEST_NAME || name.as_bytes().contains(&0) {
            return Err(Error::invalid(
                format!("the {what} {name:?} cannot be set: it has {len} bytes, or contains a zero byte"),
                format!("use at most {LONGEST_NAME} bytes, none of them zero"),
            ));
        }
        image.step(Step::new(format!("set the {what}")));
        let text = image.text(name);
        image.call(call, [text, (len as u64).into()]);
    }
    Ok(())
}

/// Refuses clock offsets without a new time namespace.
pub(crate) fn check_offsets(created: Namespaces, offsets: Option<TimeOffsets>) -> Result<()> {
    match offsets {
        Some(_) if !created.contains(Namespaces::TIME) => Err(Error::invalid(
            "clock offsets need a new time namespace",
            "add Namespaces::TIME, or remove the offsets",
        )),
        _ => Ok(()),
    }
}
