//! Namespaces: which are made, which are joined, and what is set in them before the program starts: names, clocks.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::{Arg, Birth, Input, Names, Program, Step, flags, names, nr};

bitflags::bitflags! {
    /// Kinds of namespaces (namespaces(7)). The bits are those of clone(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct Namespaces: u32 {
        /// User and group ids, and capabilities over the other namespaces (user_namespaces(7)).
        const USER = libc::CLONE_NEWUSER as u32;
        /// Mounts (mount_namespaces(7)). A root of the sandbox's own needs it.
        const MOUNT = libc::CLONE_NEWNS as u32;
        /// Process ids (pid_namespaces(7)). With it the kernel ends every process of the sandbox at once.
        const PID = libc::CLONE_NEWPID as u32;
        /// Network devices, addresses, ports, abstract sockets (network_namespaces(7)).
        const NET = libc::CLONE_NEWNET as u32;
        /// System V IPC and POSIX message queues (ipc_namespaces(7)).
        const IPC = libc::CLONE_NEWIPC as u32;
        /// Host name and domain name (uts_namespaces(7)).
        const UTS = libc::CLONE_NEWUTS as u32;
        /// What is seen as the root of the cgroup hierarchies (cgroup_namespaces(7)).
        const CGROUP = libc::CLONE_NEWCGROUP as u32;
        /// Offsets of the monotonic and the boot-time clock (time_namespaces(7)).
        const TIME = libc::CLONE_NEWTIME as u32;
    }
}

impl Namespaces {
    /// The name that `/proc/[pid]/ns/` has for a single kind.
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

    /// A list of names, for people.
    pub(crate) fn names(self) -> String {
        let names: Vec<&str> = self.iter().map(Self::file).collect();
        names.join(", ")
    }

    /// The kinds as an argument of a call.
    pub(crate) fn arg(self) -> Arg {
        Arg::Bits(self.bits().into(), KINDS)
    }
}

/// What clone(2) and setns(2) call the kinds.
const KINDS: Names = names![
    CLONE_NEWUSER,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWNET,
    CLONE_NEWIPC,
    CLONE_NEWUTS,
    CLONE_NEWCGROUP,
    CLONE_NEWTIME,
];

/// An open descriptor as part of a configuration: copies of the configuration share it.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor(pub Arc<OwnedFd>);

impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Namespaces that exist, to be joined: by a process that is in them, or by a descriptor.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NamespaceOf(Source);

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Source {
    Pid(u32),
    #[cfg_attr(feature = "serde", serde(skip))]
    Fd(Descriptor),
}

impl NamespaceOf {
    /// Those of a process, by its pid as the host sees it. They are opened when the plan is made.
    pub fn pid(pid: u32) -> Self {
        Self(Source::Pid(pid))
    }

    /// The one that a descriptor refers to: a file of `/proc/[pid]/ns/`, or a bind mount of one, as `ip netns add`
    /// makes them.
    pub fn fd(fd: impl Into<OwnedFd>) -> Self {
        Self(Source::Fd(Descriptor(Arc::new(fd.into()))))
    }

    pub(crate) fn open(&self, kind: Namespaces) -> Result<Arc<OwnedFd>> {
        match &self.0 {
            Source::Fd(fd) => Ok(fd.0.clone()),
            Source::Pid(pid) => {
                let path = format!("/proc/{pid}/ns/{}", kind.file());
                File::open(&path).map(|file| Arc::new(file.into())).map_err(|error| {
                    let step = format!("opening the {} namespace of process {pid}", kind.file());
                    let remedy = "the process must be alive, and this user must be allowed to trace it";
                    Error::set_up(step, "open", error, Some(remedy)).on(path)
                })
            }
        }
    }
}

/// What the clocks of a time namespace are ahead by; a negative number of seconds is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TimeOffsets {
    /// Seconds that `CLOCK_MONOTONIC` is ahead.
    pub monotonic: i64,
    /// Seconds that `CLOCK_BOOTTIME` is ahead.
    pub boottime: i64,
}

/// The namespaces of a sandbox, as they were checked.
pub(crate) struct Chosen {
    pub created: Namespaces,
    pub joined: Vec<(Namespaces, u16)>,
}

impl Chosen {
    pub fn joined_kinds(&self) -> Namespaces {
        self.joined.iter().map(|(kind, _)| *kind).collect()
    }

    /// Everything that the program is in and the host is not.
    pub fn all(&self) -> Namespaces {
        self.created | self.joined_kinds()
    }
}

/// Checks the choice, and opens what is joined.
pub(crate) fn choose(
    created: Namespaces,
    joins: &[(Namespaces, NamespaceOf)],
    descriptors: &mut Vec<Arc<OwnedFd>>,
    privileged: bool,
) -> Result<Chosen> {
    let mut chosen = Chosen { created, joined: vec![] };
    for (kinds, target) in joins {
        for kind in kinds.iter() {
            if chosen.all().contains(kind) {
                let name = kind.file();
                return Err(Error::invalid(
                    format!("the {name} namespace is to be both made and joined, or joined twice"),
                    format!("take it out of the namespaces that are made: .namespaces(Namespaces::… - {kind:?})"),
                ));
            }
            let index = super::share(descriptors, target.open(kind)?);
            chosen.joined.push((kind, index));
        }
    }
    if !privileged && !chosen.all().contains(Namespaces::USER) && !chosen.all().is_empty() {
        return Err(Error::invalid(
            format!(
                "an ordinary user can't make or join namespaces ({}) without a user namespace",
                chosen.all().names()
            ),
            "add Namespaces::USER, or run as root",
        ));
    }
    Ok(chosen)
}

/// The stub's first calls, and how the init is born: cloned by the host, or by a launcher that joins first.
pub(crate) fn birth(chosen: &Chosen, stub: &mut Program) -> Birth {
    // What is in a time namespace is decided at an exec, so a clone can't make it.
    let cloned = u64::from((chosen.created - Namespaces::TIME).bits());
    if chosen.joined.is_empty() {
        return Birth::Cloned(cloned);
    }
    join(chosen, stub);
    stub.step(Step::new("starting the init in its namespaces"));
    let (pid, pidfd) = (stub.slot("pid of the init"), stub.slot("pidfd of the init"));
    let child = stub.label();
    let parent = stub.label();
    let sharing = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD) as u64;
    let args = [Arg::Imm(cloned | sharing), Arg::NULL, Arg::SlotAddress(pidfd), Arg::NULL, Arg::NULL];
    // The pid is stored by both, and the child, which shares the memory, runs first: it stores 0.
    stub.call(nr!(SYS_clone), args).above_zero(parent).store_in(pid);
    stub.jump(child);
    stub.bind(parent);
    stub.exit(0);
    stub.bind(child);
    Birth::Launched { pid, pidfd }
}

/// What a process joins that has a memory of its own: the kernel asks for that with the time, and with pids those who
/// are there already could look into the memory.
const BY_IMAGE: Namespaces = Namespaces::TIME.union(Namespaces::PID);

/// Joins what exists. A user namespace gives rights over its own, and takes away those over the host's: whichever
/// order the kernel allows is taken.
fn join(chosen: &Chosen, stub: &mut Program) {
    let of = |user: bool| {
        let joined = chosen.joined.iter().filter(move |(kind, _)| (*kind == Namespaces::USER) == user);
        joined.filter(|(kind, _)| !BY_IMAGE.contains(*kind)).copied().collect::<Vec<_>>()
    };
    let (user, others) = (of(true), of(false));
    let (user_first, end) = (stub.label(), stub.label());
    let set = |stub: &mut Program, (kind, index): (Namespaces, u16)| {
        let kind_name = kind.file();
        stub.step(Step::new(format!("joining a {kind_name} namespace")).remedies(&[
            (libc::EPERM, "this user has no rights over that namespace; join its user namespace too, or run as root"),
            (
                libc::EINVAL,
                "the descriptor is no namespace of this kind, or it is the user namespace that the host is in",
            ),
        ]));
        let fd = stub.input(Input::Descriptor(index));
        stub.setns(fd, kind.arg());
    };
    if !user.is_empty() {
        for &each in &others {
            set(stub, each);
            stub.last_or_goto(user_first);
        }
        user.iter().for_each(|&each| set(stub, each));
        stub.jump(end);
        stub.bind(user_first);
    }
    user.iter().chain(&others).for_each(|&each| set(stub, each));
    stub.bind(end);
}

/// Makes a time namespace, which the exec of the image will enter.
pub(crate) fn make_time(stub: &mut Program, offsets: TimeOffsets) {
    stub.step(Step::new("making a time namespace").remedies(&[
        (
            libc::EINVAL,
            "the kernel has no time namespaces (CONFIG_TIME_NS, since Linux 5.6); leave Namespaces::TIME out",
        ),
        (libc::ENOSPC, "raise user.max_time_namespaces (sysctl)"),
    ]));
    stub.call(nr!(SYS_unshare), [flags!(CLONE_NEWTIME)]);
    if offsets == TimeOffsets::default() {
        return;
    }
    stub.step(Step::new("setting the offsets of the clocks").path("/proc/self/timens_offsets").remedies(&[
        (libc::ERANGE, "a clock would be before 0 or after the year 2116; use a smaller offset"),
        (libc::ENOENT, "the kernel has no time namespaces (CONFIG_TIME_NS, since Linux 5.6)"),
    ]));
    let text = format!("monotonic {} 0\nboottime {} 0\n", offsets.monotonic, offsets.boottime);
    let fd = stub.openat(Arg::CWD, "/proc/self/timens_offsets", flags!(O_WRONLY | O_CLOEXEC), 0);
    let bytes = stub.arena.bytes(text.as_bytes(), format!("{text:?}"));
    stub.write(fd, bytes, text.len());
    stub.close(fd);
}

/// Joins namespaces that the init is in.
pub(crate) fn join_kinds(kinds: Namespaces, helper: &mut Program) {
    if kinds.is_empty() {
        return;
    }
    helper.step(Step::new("joining the sandbox"));
    let init = helper.input(Input::Init);
    helper.setns(init, kinds.arg());
}

/// Joins what the init has made and joined, and a pid namespace that exists, for the child.
///
/// An ordinary user has the right to that in the sandbox's user namespace, root perhaps only before it.
pub(crate) fn join_sandbox(chosen: &Chosen, helper: &mut Program) {
    let Some(&(_, index)) = chosen.joined.iter().find(|(kind, _)| *kind == Namespaces::PID) else {
        join_kinds(chosen.all(), helper);
        return;
    };
    helper.step(Step::new("joining the sandbox"));
    let init = helper.input(Input::Init);
    let rest = (chosen.all() - Namespaces::PID).arg();
    let has_rest = chosen.all() != Namespaces::PID;
    let pids = helper.input(Input::Descriptor(index));
    let (later, end) = (helper.label(), helper.label());
    helper.setns(pids, Namespaces::PID.arg());
    helper.last_or_goto(later);
    if has_rest {
        helper.setns(init, rest);
    }
    helper.jump(end);
    helper.bind(later);
    if has_rest {
        helper.setns(init, rest);
    }
    helper.setns(pids, Namespaces::PID.arg());
    helper.bind(end);
}

/// Runs calls in a child that is in the pid namespace that was joined, and shares memory and descriptors with the init.
pub(crate) fn in_joined_pids<T>(chosen: &Chosen, init: &mut Program, calls: impl FnOnce(&mut Program) -> T) -> T {
    let Some(&(_, index)) = chosen.joined.iter().find(|(kind, _)| *kind == Namespaces::PID) else {
        return calls(init);
    };
    let pids = init.input(Input::Descriptor(index));
    init.setns(pids, Namespaces::PID.arg());
    let parent = init.label();
    let sharing = flags!(CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD);
    init.call(nr!(SYS_clone), [sharing, Arg::NULL, Arg::NULL, Arg::NULL, Arg::NULL]).above_zero(parent);
    let result = calls(init);
    init.exit(0);
    init.bind(parent);
    result
}

/// Enters the time namespace that was made: older kernels (5.10 and 6.1 at least) don't do that at an exec, but
/// for children alone.
pub(crate) fn enter_time(image: &mut Program) {
    image.step(Step::new("entering the time namespace").path("/proc/self/ns/time_for_children"));
    let made = image.openat(Arg::CWD, "/proc/self/ns/time_for_children", flags!(O_RDONLY | O_CLOEXEC), 0);
    image.setns(made, flags!(CLONE_NEWTIME));
    image.close(made);
}

/// Joins the time namespaces that exist.
pub(crate) fn join_time(chosen: &Chosen, image: &mut Program) {
    for &(_, index) in chosen.joined.iter().filter(|(kind, _)| *kind == Namespaces::TIME) {
        image.step(Step::new("joining a time namespace"));
        let fd = image.input(Input::Descriptor(index));
        image.setns(fd, flags!(CLONE_NEWTIME));
    }
}

/// The longest host name or domain name (uname(2)).
const LONGEST_NAME: usize = 64;

/// Sets the names of a new UTS namespace.
pub(crate) fn set_names(
    created: Namespaces,
    image: &mut Program,
    hostname: Option<&OsStr>,
    domain_name: Option<&OsStr>,
) -> Result<()> {
    let set = [(hostname, nr!(SYS_sethostname), "host name"), (domain_name, nr!(SYS_setdomainname), "domain name")];
    for (name, call, what) in set {
        let Some(name) = name else { continue };
        if !created.contains(Namespaces::UTS) {
            return Err(Error::invalid(
                format!("the {what} {name:?} can't be set: it would be the host's"),
                "add Namespaces::UTS, or leave the name out",
            ));
        }
        let len = name.as_bytes().len();
        if len > LONGEST_NAME || name.as_bytes().contains(&0) {
            return Err(Error::invalid(
                format!("the {what} {name:?} can't be set: it has {len} bytes, or a zero byte among them"),
                format!("use at most {LONGEST_NAME} bytes, none of them zero"),
            ));
        }
        image.step(Step::new(format!("setting the {what}")));
        let text = image.text(name);
        image.call(call, [text, (len as u64).into()]);
    }
    Ok(())
}

/// Checks that offsets have a clock to be set on.
pub(crate) fn check_offsets(created: Namespaces, offsets: Option<TimeOffsets>) -> Result<()> {
    match offsets {
        Some(_) if !created.contains(Namespaces::TIME) => Err(Error::invalid(
            "time offsets need a time namespace of the sandbox's own",
            "add Namespaces::TIME, or leave the offsets out",
        )),
        _ => Ok(()),
    }
}
