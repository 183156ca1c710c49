//! The seccomp policy: which system calls a program may make (seccomp(2), Linux's
//! `Documentation/userspace-api/seccomp_filter.rst`). `Seccomp` describes, `Policy` decides, `Filter` is what the
//! kernel runs.
//!
//! What answers the calls that a filter hands to the caller is no part of it: that is the supervisor in `child`.

// Stands first, so that `Seccomp::new` is the first method in the documentation.
mod presets;

mod baseline;
mod bpf;
mod decision_graph;
mod filter;
mod guards;
mod install;
mod path_arguments;
mod policy;
mod policy_display;
mod raw_bpf;
mod rule;
#[cfg(feature = "serde")]
mod stored_policy;

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::Result;
use crate::plan::Word;
use crate::unix::Errno;
pub(crate) use filter::{Filter, SetUpUnderFilter, compile};
use guards::Exemptions;
pub(crate) use install::{carrying, install, install_programs};
pub(crate) use policy::{LAST_ERRNO, Policy, Verdict};
pub use rule::{Action, Comparison, Condition, Rule};
#[cfg(feature = "config")]
pub(crate) use stored_policy::StoredPolicy;

/// A seccomp policy: the system calls that a program may make.
///
/// A policy is a list of rules, and a default action for calls that no rule matches. The names of calls are those of
/// syscalls(2). A rule for a call that exists only on another architecture is skipped, so that one policy works on all
/// of them.
///
/// Every policy denies calls of another ABI (32-bit calls, and x32 on x86_64) with `ENOSYS`. If the policy has
/// [`Action::Kill`] for any call, the sandbox is killed instead:
/// [`Termination::ForeignSyscall`](crate::Termination::ForeignSyscall).
///
/// The execve(2) that starts the program is always allowed. A policy that denies execve(2) applies to later calls.
///
/// The [`Display`](std::fmt::Display) form is a summary, and the alternate form (`{:#}`) lists all rules.
///
/// Default: [`Seccomp::new`].
///
/// ```
/// use stockade::seccomp::{Action, Comparison, Condition};
/// use stockade::{Command, Errno, Sandbox, Seccomp};
///
/// let other_family = Condition::dword(0, Comparison::NotEqual(libc::AF_UNIX as u64));
/// let policy = Seccomp::new()
///     .deny(["ptrace"])
///     .when("socket", [other_family], Action::Errno(Errno::EAFNOSUPPORT));
/// let outcome = Sandbox::new().seccomp(policy).status(Command::new("true"))?;
/// assert!(outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Guards
///
/// Every policy denies the following, whatever its rules allow. The only exception is a policy that denies nothing,
/// such as [`Seccomp::unconfined`].
///
/// - Creating a regular file with the set-user-ID or set-group-ID bit, or setting one of them (`EPERM`): chmod(2) and
///   its variants, open(2) and openat(2) with `O_CREAT` or `O_TMPFILE`, creat(2), mknod(2), mknodat(2). A filter cannot
///   read the mode that openat2(2) is passed, so openat2(2) fails with `ENOSYS`. Allow them with
///   [`Seccomp::allow_set_id_bits`].
/// - Huge pages of hugetlbfs (`ENOMEM`), which the memory limit of a cgroup does not count: mmap(2) with `MAP_HUGETLB`,
///   memfd_create(2) with `MFD_HUGETLB`, shmget(2) with `SHM_HUGETLB`. Allow them with [`Seccomp::allow_huge_pages`].
///   Transparent huge pages are counted, and not denied.
/// - Sockets of netlink(7) (`EAFNOSUPPORT`), whose buffers no cgroup counts. Allow them with
///   [`Seccomp::allow_netlink`].
/// - Changes of process 1, the init that terminates the sandbox (`EPERM`): prlimit64(2) with new limits,
///   sched_setaffinity(2), sched_setscheduler(2), sched_setparam(2), sched_setattr(2), setpriority(2) and ioprio_set(2).
///   The last two are also denied for all processes of a user.
///
/// Without a PID namespace, the program sees the processes of the caller's PID namespace. Then calls that change or
/// inspect another process fail with `EPERM`:
///
/// - The process argument of prlimit64(2) with new limits, sched_setaffinity(2), sched_setscheduler(2),
///   sched_setparam(2), sched_setattr(2), setpriority(2), ioprio_set(2), move_pages(2) and migrate_pages(2) must be 0,
///   the calling process. So pthread_setaffinity_np(3), which passes a thread ID, fails.
/// - process_vm_readv(2), process_vm_writev(2), process_madvise(2), pidfd_getfd(2) and kcmp(2) are denied.
///
/// No filter applies to the operations of io_uring(7): a policy that allows io_uring_setup(2) allows set-user-ID files.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration)
///
/// - if no architecture has a call with the name in a rule (the error suggests a similar name);
/// - if a condition has an argument other than 0 to 5;
/// - if an action has an error number other than 0 to 4095;
/// - if the filter would have more than 4096 instructions.
///
/// See seccomp(2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "stored_policy::StoredPolicy", into = "stored_policy::StoredPolicy"))]
pub struct Seccomp {
    default_action: Action,
    rules: Vec<Rule>,
    record: bool,
    exemptions: Exemptions,
    bpf: Vec<Vec<u8>>,
}

impl Default for Seccomp {
    fn default() -> Self {
        Self::new()
    }
}

impl Seccomp {
    const fn with_default(default_action: Action) -> Self {
        Self { default_action, rules: vec![], record: false, exemptions: Exemptions::NONE, bpf: vec![] }
    }

    /// Creates a policy without rules that allows every call. Deny calls with [`Seccomp::deny`], [`Seccomp::on`] or
    /// [`Seccomp::when`].
    ///
    /// While it denies nothing, it has no guards, like [`Seccomp::unconfined`]. The first rule that denies a call adds
    /// them.
    pub fn deny_list() -> Self {
        Self::with_default(Action::Allow)
    }

    /// Creates a policy that denies every call with `EPERM`. Allow calls with [`Seccomp::allow`] or [`Seccomp::when`].
    pub fn allow_list() -> Self {
        Self::with_default(Action::Errno(Errno::EPERM))
    }

    /// Removes the guard against set-user-ID and set-group-ID files. The rules then decide about these calls and
    /// openat2(2).
    ///
    /// Use it for sandboxes that install packages, or that run sandboxes. A set-user-ID file in a writable bind remains
    /// on the host. It belongs to the owner of the bound directory, which may be root. So bind a directory that other
    /// users of the host cannot enter.
    ///
    /// Default: denied (`EPERM`; openat2(2): `ENOSYS`).
    #[must_use]
    pub fn allow_set_id_bits(mut self) -> Self {
        self.exemptions.set_id_bits = true;
        self
    }

    /// Removes the guard against huge pages of hugetlbfs (`MAP_HUGETLB`, `MFD_HUGETLB`, `SHM_HUGETLB`). The rules then
    /// decide about them.
    ///
    /// The memory limit of a cgroup does not count them. Limit them with
    /// [`Cgroup::hugetlb_max`](crate::Cgroup::hugetlb_max).
    ///
    /// Default: denied (`ENOMEM`, as on a machine that has no huge pages).
    #[must_use]
    pub fn allow_huge_pages(mut self) -> Self {
        self.exemptions.huge_pages = true;
        self
    }

    /// Removes the guard against sockets of netlink(7). The rules then decide about them.
    ///
    /// Presets allow the protocol `NETLINK_ROUTE` only. Programs list network interfaces and routes with it
    /// (getifaddrs(3), ip(8), `os.networkInterfaces()` of Node). Host names are resolved without it, except by Mono.
    ///
    /// The buffers of these sockets are memory that no cgroup counts, about 400 kB per socket. Two limits bound it: the
    /// sizes of all socket buffers are fixed (`SO_SNDBUF` and `SO_RCVBUF` of setsockopt(2) have no effect), and a
    /// process has 64 descriptors ([`Resource::Nofile`](crate::limits::Resource::Nofile)) unless
    /// [`Limits::rlimit`](crate::Limits::rlimit) sets another number. Limit the number of processes too, with
    /// [`Cgroup::pids_max`](crate::Cgroup::pids_max).
    ///
    /// Default: denied (`EAFNOSUPPORT`).
    #[must_use]
    pub fn allow_netlink(mut self) -> Self {
        self.exemptions.netlink = true;
        self
    }

    /// Returns whether [`Seccomp::allow_netlink`] was called.
    pub(crate) fn allows_netlink(&self) -> bool {
        self.exemptions.netlink
    }

    /// Creates a policy that denies nothing. No filter is installed.
    pub fn unconfined() -> Self {
        Self::deny_list()
    }

    /// Allows these calls. Replaces earlier rules for them.
    #[must_use]
    pub fn allow<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.on(names, Action::Allow)
    }

    /// Denies these calls with `EPERM`. Replaces earlier rules for them.
    #[must_use]
    pub fn deny<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.on(names, Action::Errno(Errno::EPERM))
    }

    /// Sets the action for these calls. Replaces earlier rules for them.
    #[must_use]
    pub fn on<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>, action: Action) -> Self {
        for call in names.into_iter().map(Into::into) {
            self.rules.retain(|rule| rule.call != call);
            self.rules.push(Rule { call, conditions: vec![], action });
        }
        self
    }

    /// Sets the action for a call whose arguments meet all of these conditions. Earlier rules for the call are kept.
    ///
    /// If several rules match, the strictest action applies: see [`Action`].
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

    /// Narrows the policy to these calls: each of them keeps its rules and actions, and every other call is denied.
    ///
    /// No call that was denied before is allowed. Another call is denied by its own rule if that denies it, or else by
    /// the default action if that denies calls, or else with `EPERM`.
    #[must_use]
    pub fn only<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names: BTreeSet<Cow<'static, str>> = names.into_iter().map(Into::into).collect();
        self.rules.retain(|rule| rule.action.denies() || names.contains(&rule.call));
        if self.default_action.denies() {
            return self;
        }
        let action = std::mem::replace(&mut self.default_action, Action::Errno(Errno::EPERM));
        names.into_iter().fold(self, |policy, name| policy.when(name, [], action))
    }

    /// Notifies the caller of every allowed call, but for these.
    pub(crate) fn notify_all_but(mut self, except: &[&'static str]) -> Self {
        for rule in self.rules.iter_mut().filter(|rule| !rule.action.denies()) {
            rule.action = if except.contains(&&*rule.call) { Action::Allow } else { Action::Notify };
        }
        if self.default_action.denies() {
            return self;
        }
        self.default_action = Action::Notify;
        except.iter().fold(self, |policy, &name| policy.when(name, [], Action::Allow))
    }

    /// Sets the action for calls that no rule matches.
    ///
    /// Default: that of the constructor.
    #[must_use]
    pub fn default_action(mut self, action: Action) -> Self {
        self.default_action = action;
        self
    }

    /// Replaces every [`Action::Errno`] (except number 0) in the rules and the default action with `action`. Guards
    /// keep their error numbers: see [`Seccomp`]. For example, `deny_with(Action::Kill)` kills the sandbox for every
    /// call that a rule denies.
    #[must_use]
    pub fn deny_with(mut self, action: Action) -> Self {
        for known in self.rules.iter_mut().map(|rule| &mut rule.action).chain([&mut self.default_action]) {
            if matches!(known, Action::Errno(errno) if errno.number() > 0) {
                *known = action;
            }
        }
        self
    }

    /// Records denied calls and their arguments in [`Outcome::violations`](crate::Outcome::violations).
    ///
    /// A thread of the caller then decides every denied call, which takes about ten times as long. Calls of another ABI
    /// are not recorded.
    ///
    /// Default: not recorded.
    ///
    /// # Errors
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EBUSY`) if the caller already runs
    /// under a filter with a listener: see [`Action::Kill`].
    #[must_use]
    pub fn record(mut self) -> Self {
        self.record = true;
        self
    }

    /// Adds a compiled program of the kernel's packet filter (classic BPF), as an array of `struct sock_filter` in the
    /// byte order of the machine. libseccomp (seccomp_export_bpf(3)) and others write such programs.
    ///
    /// It is installed in addition to the policy, and can only deny more: of the results of all programs and of the
    /// policy, the kernel takes the strictest (seccomp(2)). What it denies is not recorded by [`Seccomp::record`].
    ///
    /// No process answers `SECCOMP_RET_USER_NOTIF`: such a call fails with `ENOSYS`. `SECCOMP_RET_TRACE` denies nothing,
    /// since a program can trace its child and let it make the call. An instruction that returns it is an error. If the
    /// result is computed (`BPF_RET | BPF_A`), the call fails with `ENOSYS`.
    ///
    /// It applies to the program alone: the calls of the set-up, among them the execve(2) that starts the program, are
    /// allowed before it is asked. **It must check the architecture itself** (`seccomp_data.arch`), since numbers of
    /// calls differ between architectures; calls of another one are denied by the policy, unless that is
    /// [`Seccomp::unconfined`].
    ///
    /// Default: none.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the kernel would reject the
    /// program: its length is 0 or no multiple of 8, it has more than 4,084 instructions (4,096, less 12 that are
    /// added), or an instruction is invalid, which the error names.
    ///
    /// See seccomp(2), `struct sock_fprog`, and `kernel/seccomp.c`, `seccomp_check_filter`.
    ///
    /// ```
    /// use stockade::{Command, Sandbox, Seccomp};
    ///
    /// // Loads the number of the call, and denies uname(2) with EPERM.
    /// let instructions: [(u16, u8, u8, u32); 4] = [
    ///     (0x20, 0, 0, 0),
    ///     (0x15, 0, 1, libc::SYS_uname as u32),
    ///     (0x06, 0, 0, 0x0005_0000 | libc::EPERM as u32),
    ///     (0x06, 0, 0, 0x7fff_0000),
    /// ];
    /// let mut program = vec![];
    /// for (code, if_true, if_false, value) in instructions {
    ///     program.extend(code.to_ne_bytes());
    ///     program.extend([if_true, if_false]);
    ///     program.extend(u32::to_ne_bytes(value));
    /// }
    /// let sandbox = Sandbox::new().seccomp(Seccomp::new().bpf(program));
    /// assert!(!sandbox.output(Command::new("uname"))?.outcome.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn bpf(mut self, program: impl Into<Vec<u8>>) -> Self {
        self.bpf.push(program.into());
        self
    }

    /// Checks the compiled programs, and returns their instructions with those that let the set-up through.
    pub(crate) fn programs(&self) -> Result<Vec<Vec<Word>>> {
        self.bpf.iter().map(|program| raw_bpf::lower(program)).collect()
    }

    /// Returns the rules, in the order in which they were added. They do not include the guards.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the default policy, with a listener if this one needs one. Probes of what the host supports install it.
    pub(crate) fn reference(&self) -> Self {
        let listens = compile(self, SetUpUnderFilter::OfProgram).is_ok_and(|filter| filter.policy.needs_listener());
        if listens { Self::new().record() } else { Self::new() }
    }

    /// Adds the guard for a program without a PID namespace: calls that change other processes are denied.
    pub(crate) fn guard_other_processes(mut self) -> Self {
        self.exemptions.sees_other_processes = true;
        self
    }

    /// Returns whether the policy denies nothing, so that no filter is needed.
    pub(crate) fn is_unconfined(&self) -> bool {
        self.default_action == Action::Allow && self.rules.iter().all(|rule| rule.action == Action::Allow)
    }

    /// Returns whether the policy needs a callback: some call has [`Action::Notify`].
    pub(crate) fn needs_callback(&self) -> bool {
        self.rules.iter().map(|rule| rule.action).chain([self.default_action]).any(|action| action == Action::Notify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::SystemCall;

    /// The actions of a policy for a call without arguments, and for one with a flag that creates a namespace.
    fn decides(seccomp: &Seccomp, name: &str) -> [Action; 2] {
        let policy = Policy::resolve(seccomp).expect("a policy");
        let number = SystemCall::named(name).expect(name).number();
        [0, libc::CLONE_NEWUSER as u64].map(|flags| policy.decide(number, &[flags, 0, 0, 0, 0, 0]))
    }

    const DENIED: Action = Action::Errno(Errno::EPERM);
    const MISSING: Action = Action::Errno(Errno::ENOSYS);

    #[test]
    fn only_allows_the_listed_calls_that_were_allowed_before() {
        let names = ["read", "clone", "clone3", "mount"];
        let narrow = Seccomp::new().only(names);
        assert_eq!(decides(&narrow, "read"), [Action::Allow; 2]);
        assert_eq!(decides(&narrow, "write"), [DENIED; 2]);
        assert_eq!(decides(&narrow, "clone"), [Action::Allow, DENIED]);
        assert_eq!(decides(&narrow, "mount"), [DENIED; 2]);
        assert_eq!(decides(&Seccomp::new().only(["read"]), "clone3"), [MISSING; 2], "the rule that denied it is kept");
        let listed =
            Seccomp::allow_list().allow(["read", "write"]).default_action(Action::Kill).only(["read", "openat"]);
        for (name, action) in [("read", Action::Allow), ("write", Action::Kill), ("openat", Action::Kill)] {
            assert_eq!(decides(&listed, name), [action; 2], "{name}");
        }
        assert_eq!(decides(&Seccomp::deny_list().default_action(Action::Log).only(["read"]), "read"), [Action::Log; 2]);
        assert_eq!(decides(&Seccomp::new().only::<&str>([]), "read"), [DENIED; 2]);
    }

    #[test]
    fn allowed_calls_notify_and_denied_calls_stay_denied() {
        let notifying = Seccomp::new().notify_all_but(&["read", "mount"]);
        assert_eq!(decides(&notifying, "read"), [Action::Allow; 2]);
        assert_eq!(decides(&notifying, "openat"), [Action::Notify; 2]);
        assert_eq!(decides(&notifying, "clone"), [Action::Notify, DENIED]);
        assert_eq!(decides(&notifying, "mount"), [DENIED; 2]);
        assert_eq!(decides(&notifying, "clone3"), [MISSING; 2]);
        let listed = Seccomp::allow_list().allow(["read", "openat"]).notify_all_but(&["read", "write"]);
        for (name, action) in [("read", Action::Allow), ("write", DENIED), ("openat", Action::Notify)] {
            assert_eq!(decides(&listed, name), [action; 2], "{name}");
        }
    }
}
