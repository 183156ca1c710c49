//! Namespaces: which are made, which are joined, and what is set in them before the program starts: names, clocks.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::host::Host;
use crate::error::{Error, Result};
use crate::plan::{Arg, Input, Names, Program, Step, flags, names, nr};

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
        Arg::Bits(self.bits(), &KINDS)
    }
}

/// What clone(2) and setns(2) call the kinds.
static KINDS: Names = names![
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

/// A descriptor means nothing to who reads it later: a configuration with one has no form.
#[cfg(feature = "serde")]
mod form {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Descriptor;

    const NONE: &str = "an open descriptor can't be stored: leave it out, and hand it in again after the rest was read";

    impl Serialize for Descriptor {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom(NONE))
        }
    }

    impl<'de> Deserialize<'de> for Descriptor {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom(NONE))
        }
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
    Fd(Descriptor),
}

/// Opens a file of a process. One that is just being executed can't be looked at until it has its own memory and ids, which
/// is after its spawn has returned.
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
                open_while_executed(&path).map(|file| Arc::new(file.into())).map_err(|error| {
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
    host: &Host,
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
    if !host.privileged && !chosen.all().contains(Namespaces::USER) && !chosen.all().is_empty() {
        return Err(Error::invalid(
            format!(
                "an ordinary user can't make or join namespaces ({}) without a user namespace",
                chosen.all().names()
            ),
            format!("add Namespaces::USER, or {}", host.way_to_rights()),
        ));
    }
    Ok(chosen)
}

/// Joins what exists; pids for its children. A user namespace gives rights over its own, and takes away those over the
/// host's: whichever order the kernel allows is taken.
pub(crate) fn join(chosen: &Chosen, helper: &mut Program) {
    let of = |user: bool| {
        let joined = chosen.joined.iter().filter(move |(kind, _)| (*kind == Namespaces::USER) == user);
        joined.copied().collect::<Vec<_>>()
    };
    let (user, others) = (of(true), of(false));
    let (user_first, end) = (helper.label(), helper.label());
    let set = |helper: &mut Program, (kind, index): (Namespaces, u16)| {
        let kind_name = kind.file();
        helper.step(Step::new(format!("joining a {kind_name} namespace")).remedies(&[
            (libc::EPERM, "this user has no rights over that namespace; join its user namespace too, or run as root"),
            (
                libc::EINVAL,
                "the descriptor is no namespace of this kind, or it is the user namespace that the host is in",
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

/// Makes the others, the user namespace first of all; that of pids for its children.
pub(crate) fn make(created: Namespaces, helper: &mut Program) {
    if created.is_empty() {
        return;
    }
    helper.step(Step::new("making the sandbox's namespaces").remedies(&[
        (
            libc::ENOSPC,
            "a limit on namespaces is reached: raise user.max_user_namespaces or its like for the other kinds (sysctl \
             user.max_net_namespaces …), or leave that namespace out",
        ),
        (
            libc::EPERM,
            "this host forbids namespaces to this user: set kernel.unprivileged_userns_clone to 1 on Debian, allow \
             unshare in the seccomp profile of the container, leave a chroot (in one the kernel makes no user \
             namespaces), or run as root",
        ),
        (libc::EINVAL, "the kernel was built without one of these namespaces; leave it out"),
    ]));
    helper.call(nr!(SYS_unshare), [created.arg()]);
}

/// Sets the clocks of the time namespace that was made, and enters it.
pub(crate) fn enter_time(helper: &mut Program, offsets: TimeOffsets) {
    if offsets != TimeOffsets::default() {
        helper.step(Step::new("setting the offsets of the clocks").path("/proc/self/timens_offsets").remedies(&[
            (libc::ERANGE, "a clock would be before 0 or after the year 2116; use a smaller offset"),
            (libc::ENOENT, "the kernel has no time namespaces (CONFIG_TIME_NS, since Linux 5.6)"),
        ]));
        let text = format!("monotonic {} 0\nboottime {} 0\n", offsets.monotonic, offsets.boottime);
        let bytes = helper.arena.bytes(text.as_bytes(), format!("{text:?}"));
        helper.write_file("/proc/self/timens_offsets", bytes, text.len());
    }
    helper.step(Step::new("entering the time namespace").path("/proc/self/ns/time_for_children"));
    let made = helper.openat(Arg::CWD, "/proc/self/ns/time_for_children", flags!(O_RDONLY | O_CLOEXEC), 0);
    helper.setns(made, flags!(CLONE_NEWTIME));
    helper.close(made);
}

/// Runs calls in a child that is in the pid namespace that was joined, and shares memory and descriptors with the helper.
pub(crate) fn in_joined_pids<T>(helper: &mut Program, calls: impl FnOnce(&mut Program) -> T) -> T {
    let parent = helper.label();
    let sharing = flags!(CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD);
    helper.call(nr!(SYS_clone), [sharing, Arg::NULL, Arg::NULL, Arg::NULL, Arg::NULL]).above_zero(parent);
    // What is in that namespace may stop it. It does not go on when the helper was killed for that.
    helper.prctl(flags!(PR_SET_PDEATHSIG), libc::SIGKILL).ignore();
    let result = calls(helper);
    helper.exit(0);
    helper.bind(parent);
    // A zombie would keep the init of that namespace from ending for as long as the helper stays.
    helper.reap();
    result
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
