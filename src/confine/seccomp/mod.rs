//! seccomp: which system calls a program may make (seccomp(2), Linux's `Documentation/userspace-api/seccomp_filter.rst`).

mod baseline;
mod describe;
mod filter;
mod graph;
mod guards;
mod install;
mod lowering;
mod paths;
mod policy;
mod presets;
mod rule;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub(crate) use filter::{Filter, compile};
use guards::Granted;
pub(crate) use install::install;
pub(crate) use policy::Policy;
pub use rule::{Action, Comparison, Condition, Rule};

/// Which system calls a program may make. `Seccomp::new()` is the default of a sandbox.
///
/// A policy is a list of rules, and what becomes of a call that no rule matches. Names are those of the manual pages; one
/// that another architecture has and this one has not is passed over, and one that none has is an error of
/// [`Sandbox::plan`](crate::Sandbox::plan) that names the nearest one. Whatever the policy, calls of another ABI (32-bit
/// ones and x32 on x86_64) are refused: with `ENOSYS`, or, where the policy ends the sandbox for some call, by ending it:
/// [`Termination::ForeignSyscall`](crate::Termination::ForeignSyscall).
///
/// # What no rule allows
///
/// In every policy, whatever its rules allow, three things are denied. The only exception is a policy that denies nothing,
/// such as [`Seccomp::unconfined`].
///
/// - Creating a regular file with the set-user-ID or set-group-ID bit, or setting one of them (`EPERM`): chmod(2) and its
///   variants, open(2) and openat(2) with `O_CREAT` or `O_TMPFILE`, creat(2), mknod(2), mknodat(2). A filter cannot read the
///   mode that openat2(2) is passed, so openat2(2) gives `ENOSYS`. Allow them with [`Seccomp::allow_set_id_bits`].
/// - Huge pages of hugetlbfs (`ENOMEM`), which the memory limit of a cgroup does not count: mmap(2) with `MAP_HUGETLB`,
///   memfd_create(2) with `MFD_HUGETLB`, shmget(2) with `SHM_HUGETLB`. Allow them with [`Seccomp::allow_huge_pages`].
///   Transparent huge pages are counted, and not affected.
/// - Sockets of netlink(7) (`EAFNOSUPPORT`), whose buffers no cgroup counts. Allow them with [`Seccomp::allow_netlink`].
///
/// Without a PID namespace the program also finds the caller's processes. Then calls that change another process are denied
/// (`EPERM`): prlimit64(2) with new limits, sched_setaffinity(2), sched_setscheduler(2), sched_setparam(2), sched_setattr(2),
/// setpriority(2), ioprio_set(2), move_pages(2) and migrate_pages(2) take pid 0 only, which is the caller of the function;
/// process_vm_readv(2), process_vm_writev(2), process_madvise(2), pidfd_getfd(2) and kcmp(2) are denied. So
/// pthread_setaffinity_np(3), which passes the thread's number, fails there too.
///
/// io_uring makes such calls past every filter: a policy that allows io_uring_setup(2) allows set-user-ID files.
///
/// Its [`Display`](std::fmt::Display) is short, and with `{:#}` the whole list of its rules.
///
/// The program's own execve(2) is always let through, and with a policy that lacks it no other one.
///
/// ```
/// use stockade::{Action, Command, Comparison, Condition, Sandbox, Seccomp};
///
/// let policy = Seccomp::new()
///     .deny(["ptrace"])
///     .when("socket", [Condition::int(0, Comparison::NotEqual(libc::AF_UNIX as u64))], Action::Errno(libc::EAFNOSUPPORT));
/// let outcome = Sandbox::new().seccomp(policy).status(Command::new("true"))?;
/// assert!(outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Seccomp {
    otherwise: Action,
    rules: Vec<Rule>,
    record: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    granted: Granted,
}

impl Default for Seccomp {
    fn default() -> Self {
        Self::new()
    }
}

impl Seccomp {
    const fn of(otherwise: Action) -> Self {
        Self { otherwise, rules: vec![], record: false, granted: Granted::NOTHING }
    }

    /// Everything is allowed but what is denied by further calls.
    pub fn deny_list() -> Self {
        Self::of(Action::Allow)
    }

    /// Everything is refused with `EPERM` but what is allowed by further calls.
    pub fn allow_list() -> Self {
        Self::of(Action::Errno(libc::EPERM))
    }

    /// Allows set-user-ID and set-group-ID files, and openat2(2), as far as the rules do. For sandboxes that install
    /// packages, or that run sandboxes. Default: denied.
    ///
    /// A set-user-ID file in a writable bind stays on the host and belongs to the owner of that directory, which is root
    /// if root shared it: bind a directory that other users of the host cannot enter.
    #[must_use]
    pub fn allow_set_id_bits(mut self) -> Self {
        self.granted.set_id_bits = true;
        self
    }

    /// Allows huge pages of hugetlbfs (`MAP_HUGETLB`, `MFD_HUGETLB`, `SHM_HUGETLB`), as far as the rules do. Default: denied
    /// (`ENOMEM`, as where the machine has none).
    ///
    /// The memory limit of a cgroup does not count them. Limit them with
    /// [`Cgroup::hugetlb_max`](crate::Cgroup::hugetlb_max).
    #[must_use]
    pub fn allow_huge_pages(mut self) -> Self {
        self.granted.huge_pages = true;
        self
    }

    /// Allows sockets of netlink(7), as far as the rules do: presets allow `NETLINK_ROUTE` alone, by which programs list
    /// network interfaces and routes (getifaddrs(3), ip(8), `os.networkInterfaces()` of Node). Default: denied
    /// (`EAFNOSUPPORT`). Names of hosts are resolved without them.
    ///
    /// What waits in their buffers is memory that no cgroup counts: some 400 kB a socket. So the size of every socket's
    /// buffers stays as it is (`SO_SNDBUF` and `SO_RCVBUF` of setsockopt(2) have no effect), and a process has 64 descriptors
    /// ([`Resource::Nofile`](crate::Resource::Nofile)) unless [`Limits::rlimit`](crate::Limits::rlimit) sets another
    /// number. Limit the processes, too ([`Cgroup::pids_max`](crate::Cgroup::pids_max)): the product of both is the bound.
    #[must_use]
    pub fn allow_netlink(mut self) -> Self {
        self.granted.netlink = true;
        self
    }

    /// Whether sockets of netlink(7) are allowed by request.
    pub(crate) fn allows_netlink(&self) -> bool {
        self.granted.netlink
    }

    /// No filter at all.
    pub fn unconfined() -> Self {
        Self::deny_list()
    }

    /// Allows these calls, whatever was said of them before.
    #[must_use]
    pub fn allow<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.on(names, Action::Allow)
    }

    /// Refuses these calls with `EPERM`, whatever was said of them before.
    #[must_use]
    pub fn deny<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.on(names, Action::Errno(libc::EPERM))
    }

    /// Says what becomes of these calls, whatever was said of them before.
    #[must_use]
    pub fn on<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>, action: Action) -> Self {
        for call in names.into_iter().map(Into::into) {
            self.rules.retain(|rule| rule.call != call);
            self.rules.push(Rule { call, conditions: vec![], action });
        }
        self
    }

    /// Says what becomes of a call when all of these conditions hold of its arguments, beside what was said of it before.
    #[must_use]
    pub fn when(
        mut self,
        name: impl Into<Cow<'static, str>>,
        conditions: impl IntoIterator<Item = Condition>,
        action: Action,
    ) -> Self {
        self.rules.push(Rule { call: name.into(), conditions: conditions.into_iter().collect(), action });
        self
    }

    /// Refuses everything but these calls. What is refused of them so far stays so, and so does how: other calls that no
    /// rule refuses fail with `EPERM`, or as those that no rule matches.
    #[must_use]
    pub fn only<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names: BTreeSet<Cow<'static, str>> = names.into_iter().map(Into::into).collect();
        self.rules.retain(|rule| rule.action.refuses() || names.contains(&rule.call));
        if self.otherwise.refuses() {
            return self;
        }
        let action = std::mem::replace(&mut self.otherwise, Action::Errno(libc::EPERM));
        names.into_iter().fold(self, |policy, name| policy.when(name, [], action))
    }

    /// Has the host hear of whatever is allowed, but for these calls.
    pub(crate) fn hearing_all_but(mut self, unheard: &[&'static str]) -> Self {
        for rule in self.rules.iter_mut().filter(|rule| !rule.action.refuses()) {
            rule.action = if unheard.contains(&&*rule.call) { Action::Allow } else { Action::Notify };
        }
        if self.otherwise.refuses() {
            return self;
        }
        self.otherwise = Action::Notify;
        unheard.iter().fold(self, |policy, &name| policy.when(name, [], Action::Allow))
    }

    /// What becomes of a call that no rule matches.
    #[must_use]
    pub fn otherwise(mut self, action: Action) -> Self {
        self.otherwise = action;
        self
    }

    /// Has everything that is refused so far with an error number met by this instead, but for what gives 0.
    #[must_use]
    pub fn refuse_with(mut self, action: Action) -> Self {
        for said in self.rules.iter_mut().map(|rule| &mut rule.action).chain([&mut self.otherwise]) {
            if matches!(said, Action::Errno(1..)) {
                *said = action;
            }
        }
        self
    }

    /// Notes what is refused, with its arguments: [`Outcome::violations`](crate::Outcome::violations). A refused call then
    /// takes a way over the host, some ten times as long as without. Calls of another ABI are not noted.
    #[must_use]
    pub fn record(mut self) -> Self {
        self.record = true;
        self
    }

    /// The rules so far.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The default policy, with a listener if this one has one.
    pub(crate) fn reference(&self) -> Self {
        let listens = compile(self).is_ok_and(|filter| filter.policy.needs_listener());
        if listens { Self::new().record() } else { Self::new() }
    }

    /// The same policy for a program that has no PID namespace: what would change other processes is denied.
    pub(crate) fn among_other_processes(mut self) -> Self {
        self.granted.sees_other_processes = true;
        self
    }

    /// Whether there is nothing to filter.
    pub(crate) fn is_unconfined(&self) -> bool {
        self.otherwise == Action::Allow && self.rules.iter().all(|rule| rule.action == Action::Allow)
    }

    /// Whether a callback of the host is asked.
    pub(crate) fn asks(&self) -> bool {
        self.rules.iter().map(|rule| rule.action).chain([self.otherwise]).any(|action| action == Action::Notify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_call::SystemCall;

    /// What a policy says of a call with no arguments, and of one with a flag that makes a namespace.
    fn decides(seccomp: &Seccomp, name: &str) -> [Action; 2] {
        let policy = Policy::resolve(seccomp).expect("a policy");
        let number = SystemCall::named(name).expect(name).number();
        [0, libc::CLONE_NEWUSER as u64].map(|flags| policy.decide(number, &[flags, 0, 0, 0, 0, 0]))
    }

    const REFUSED: Action = Action::Errno(libc::EPERM);
    const MISSING: Action = Action::Errno(libc::ENOSYS);

    #[test]
    fn only_some_are_allowed_and_of_those_what_was_allowed_before() {
        let names = ["read", "clone", "clone3", "mount"];
        let narrow = Seccomp::new().only(names);
        assert_eq!(decides(&narrow, "read"), [Action::Allow; 2]);
        assert_eq!(decides(&narrow, "write"), [REFUSED; 2]);
        assert_eq!(decides(&narrow, "clone"), [Action::Allow, REFUSED]);
        assert_eq!(decides(&narrow, "mount"), [REFUSED; 2]);
        assert_eq!(decides(&Seccomp::new().only(["read"]), "clone3"), [MISSING; 2], "as it was refused");
        let listed = Seccomp::allow_list().allow(["read", "write"]).otherwise(Action::Kill).only(["read", "openat"]);
        for (name, action) in [("read", Action::Allow), ("write", Action::Kill), ("openat", Action::Kill)] {
            assert_eq!(decides(&listed, name), [action; 2], "{name}");
        }
        assert_eq!(decides(&Seccomp::deny_list().otherwise(Action::Log).only(["read"]), "read"), [Action::Log; 2]);
        assert_eq!(decides(&Seccomp::new().only::<&str>([]), "read"), [REFUSED; 2]);
    }

    #[test]
    fn what_is_allowed_is_heard_and_what_is_refused_is_refused() {
        let heard = Seccomp::new().hearing_all_but(&["read", "mount"]);
        assert_eq!(decides(&heard, "read"), [Action::Allow; 2]);
        assert_eq!(decides(&heard, "openat"), [Action::Notify; 2]);
        assert_eq!(decides(&heard, "clone"), [Action::Notify, REFUSED]);
        assert_eq!(decides(&heard, "mount"), [REFUSED; 2]);
        assert_eq!(decides(&heard, "clone3"), [MISSING; 2]);
        let listed = Seccomp::allow_list().allow(["read", "openat"]).hearing_all_but(&["read", "write"]);
        for (name, action) in [("read", Action::Allow), ("write", REFUSED), ("openat", Action::Notify)] {
            assert_eq!(decides(&listed, name), [action; 2], "{name}");
        }
    }
}
