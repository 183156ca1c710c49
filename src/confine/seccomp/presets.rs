//! The presets: `Seccomp::new`, `pure_computation`, `runtime` and `container`. What they deny by arguments is in
//! `baseline`.

use super::{Action, Comparison, Condition, Rule, Seccomp};
use crate::syscall::SystemCall;
use crate::unix::Errno;

/// Calls that change mounts, names, clocks, modules, power, accounting or quotas of the machine.
#[rustfmt::skip]
const MACHINE: &[&str] = &[
    "acct", "adjtimex", "chroot", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "fsconfig", "fsmount",
    "fsopen", "fspick", "init_module", "kexec_file_load", "kexec_load", "mount", "mount_setattr", "move_mount", "nfsservctl",
    "open_tree", "open_tree_attr", "pivot_root", "quotactl", "quotactl_fd", "reboot", "setdomainname", "sethostname",
    "settimeofday", "swapoff", "swapon", "umount2", "vhangup",
];
/// Calls that inspect the kernel or the whole machine, and those through which bugs of the kernel were often exploited.
#[rustfmt::skip]
const KERNEL: &[&str] = &[
    "add_key", "bpf", "fanotify_init", "io_uring_enter", "io_uring_register", "io_uring_setup", "iopl", "ioperm", "kcmp",
    "keyctl", "listns", "lookup_dcookie", "modify_ldt", "name_to_handle_at", "open_by_handle_at", "perf_event_open", "request_key",
    "syslog", "uselib", "userfaultfd", "ustat",
];
/// Calls that set a memory policy for a range of a file. The kernel keeps it in memory that no cgroup counts
/// (mbind(2)).
const MEMORY_POLICIES: &[&str] = &["mbind", "set_mempolicy_home_node"];
/// Calls that enter other namespaces.
const NAMESPACES: &[&str] = &["setns", "unshare"];

/// The calls by which a sandbox in the sandbox is set up.
#[rustfmt::skip]
const NESTING: &[&str] = &[
    "chroot", "clone", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root",
    "setdomainname", "sethostname", "setns", "umount2", "unshare",
];

impl Seccomp {
    /// Creates the default policy: a deny-list of calls that an isolated program does not need.
    ///
    /// It denies the following, with `EPERM` unless another error number is named:
    ///
    /// - changes of the machine: mounts, `chroot`, names, clocks, modules, kexec, swap, quotas, accounting;
    /// - `bpf`, `perf_event_open`, `userfaultfd`, io_uring, keyrings, file handles, `fanotify_init`, `syslog`, `kcmp`,
    ///   `modify_ldt`, port I/O;
    /// - namespaces: `unshare`, `setns`, and `clone` with the flags of namespaces or `CLONE_PARENT`. `clone3`, whose
    ///   flags a filter cannot see, fails with `ENOSYS`, and C libraries then use `clone`;
    /// - sockets of other families than UNIX, IPv4 and IPv6 (`EAFNOSUPPORT`); IPv4 and IPv6 sockets of other protocols
    ///   than TCP, UDP and ICMP (`EPROTONOSUPPORT`); netlink sockets, if they are allowed, of other protocols than
    ///   `NETLINK_ROUTE` (`EPROTONOSUPPORT`); socket pairs of other families than UNIX (`EAFNOSUPPORT`);
    /// - socket options (`ENOPROTOOPT`): `TCP_ULP`, TCP-AO keys, socket filters, and IPv6 flow labels, of which a
    ///   machine has 4,096;
    /// - ioctl(2) requests that affect other users of a terminal: `TIOCSTI`, `TIOCLINUX`, `TIOCSETD`, `TIOCEXCL`,
    ///   `TIOCCONS`, `TIOCSLCKTRMIOS`, `TIOCVHANGUP`, those of virtual consoles, and stopping input or output
    ///   (`TCXONC`);
    /// - ioctl(2) requests for which the kernel loads modules: bridges, VLANs, encryption and verity of file systems;
    /// - asynchronous I/O contexts, of which a machine has 65,536 (`io_setup` fails with `ENOSYS`);
    /// - memory that no cgroup counts: policies for ranges of memory (`mbind`; `set_mempolicy` is allowed), extended
    ///   attributes of more than 512 bytes (`E2BIG`; `setxattrat`, whose size a filter cannot see, fails with
    ///   `ENOSYS`), and larger receive buffers of sockets (`SO_RCVBUF` of setsockopt(2) has no effect);
    /// - moving pages between memory nodes (`migrate_pages`, and `move_pages` with nodes), which keeps a kernel thread
    ///   busy on each CPU;
    /// - leases and delegations of files, which block other programs that open them (`F_SETLEASE`, `F_SETDELEG`);
    /// - `personality`, except for some values.
    ///
    /// [`Seccomp`] describes the guards of every policy. [`Seccomp::allow`] replaces all rules for a call:
    /// `.allow(["socket"])` allows sockets of all families and protocols.
    ///
    /// The kernel loads no module for a denied call. Before Linux 6.14 it searches for a module if the program executes
    /// a file of an unknown format (`binfmt-…`), which a filter cannot deny.
    ///
    /// Calls that set `RLIMIT_CORE` return 0 without an effect. The limit of 1 that a sandbox has prevents core dumps
    /// through the pipe of `kernel.core_pattern` (core(5)); a limit of 0 would not.
    ///
    /// [`Seccomp::pure_computation`] and [`Seccomp::container`] are allow-lists, which deny more.
    pub fn new() -> Self {
        let mut policy = Self::deny_list();
        policy.rules.reserve(MACHINE.len() + KERNEL.len() + MEMORY_POLICIES.len() + NAMESPACES.len() + 64);
        for names in [MACHINE, KERNEL, MEMORY_POLICIES, NAMESPACES] {
            for &name in names {
                policy = policy.when(name, [], Action::Errno(Errno::EPERM));
            }
        }
        policy.with_baseline()
    }

    /// Creates an allow-list for programs that read, compute and write, such as submissions to an online judge.
    ///
    /// C, C++, Rust and Python programs run with it, linked statically or dynamically. Any other call kills the
    /// sandbox: [`Termination::Syscall`](crate::Termination::Syscall).
    ///
    /// Files can be opened for reading only, and not be locked. Processes, threads and sockets cannot be created, the
    /// file system cannot be changed, and limits cannot be set. So Java, Go and Node do not run.
    ///
    /// Creating a UNIX socket fails with `EACCES` and does not kill the sandbox: C libraries try to connect to a cache
    /// when they look up a user's name or home directory, as Python does when it starts.
    ///
    /// Without a PID namespace, tgkill(2), which abort(3) uses, can kill other processes of the same user.
    pub fn pure_computation() -> Self {
        #[rustfmt::skip]
        const ALLOWED: &[&str] = &[
            // Open descriptors.
            "close", "dup", "dup2", "dup3", "fcntl", "fstat", "lseek", "poll", "ppoll", "pread64", "preadv", "preadv2",
            "pselect6", "pwrite64", "pwritev", "pwritev2", "read", "readv", "select", "write", "writev", "fadvise64",
            "fsync", "fdatasync", "ftruncate", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
            // Metadata of files.
            "access", "faccessat", "faccessat2", "fstatfs", "getcwd", "getdents", "getdents64", "lstat", "newfstatat",
            "readlink", "readlinkat", "stat", "statfs", "statx",
            // Memory.
            "brk", "madvise", "mincore", "mlock", "mlock2", "mmap", "mprotect", "mremap", "munlock", "munmap", "mseal",
            "membarrier", "pkey_alloc", "pkey_free", "pkey_mprotect",
            // The process itself, and the time.
            "arch_prctl", "clock_getres", "clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "get_robust_list",
            "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpgid", "getpgrp", "getpid", "getppid",
            "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "gettid",
            "gettimeofday", "getuid", "nanosleep", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
            "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sched_getaffinity", "sched_getparam",
            "sched_getscheduler", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "sysinfo", "tgkill",
            "time", "times", "uname", "alarm", "setitimer", "pause", "tkill",
        ];
        let mut policy = Self::allow_list().default_action(Action::Kill).allow(ALLOWED.iter().copied());
        let reads = Comparison::Masked { mask: (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64, value: 0 };
        for (name, argument) in [("open", 1), ("openat", 2)] {
            policy = policy.when(name, [Condition::dword(argument, reads)], Action::Allow);
        }
        for request in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIOCLEX] {
            policy = policy.when("ioctl", [Condition::is(1, request as libc::c_int)], Action::Allow);
        }
        // Limits can be read, and not be set.
        policy = policy.when("prlimit64", [Condition::qword(2, Comparison::Equal(0))], Action::Allow);
        for option in [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE] {
            policy = policy.when("prctl", [Condition::is(0, option)], Action::Allow);
        }
        policy
            .when("socket", [Condition::is(0, libc::AF_UNIX)], Action::Errno(Errno::EACCES))
            .with_baseline()
            .deny_record_locks()
    }

    /// Creates a deny-list for programs of a language with threads, a JIT compiler or a garbage collector, such as
    /// submissions to an online judge in Java, Node or Go.
    ///
    /// Such a runtime starts threads, maps memory that is writable and executable, reads its settings, and creates
    /// pipes and temporary files of its own. The policy is [`Seccomp::new`] with these changes:
    ///
    /// - A call that its rules deny kills the sandbox ([`Termination::Syscall`](crate::Termination::Syscall)), with the
    ///   exceptions that follow. Guards keep their error numbers: see [`Seccomp`].
    /// - `execve`, `execveat` and `kill` kill the sandbox.
    /// - `socket` fails with `EACCES`, because runtimes and C libraries try one when they look up a name, and continue
    ///   without it. `socketpair` of UNIX sockets is allowed.
    /// - `clone3` and `io_uring_setup` fail with `ENOSYS`, because C libraries and runtimes try them first.
    ///
    /// Use it with [`profile::judge`](crate::profile::judge), and limit the memory by a
    /// [`Cgroup`](crate::Cgroup::memory_max): these runtimes reserve more address space than they use.
    ///
    /// ```
    /// use stockade::{Cgroup, Command, Layer, Seccomp, profile};
    ///
    /// let sandbox = profile::judge()
    ///     .seccomp(Seccomp::runtime())
    ///     .cgroup(Cgroup::new().memory_max(256 << 20).pids_max(64))
    ///     .best_effort([Layer::Cgroup]); // where this user may create no cgroups
    /// let output = sandbox.output(Command::new("echo").arg("42"))?;
    /// assert_eq!(output.stdout, b"42\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn runtime() -> Self {
        Self::new()
            .deny_with(Action::Kill)
            .on(["execve", "execveat", "kill"], Action::Kill)
            .on(["clone3", "io_uring_setup"], Action::Errno(Errno::ENOSYS))
            .on(["socket"], Action::Errno(Errno::EACCES))
    }

    /// Allows the calls by which a program creates sandboxes.
    pub(crate) fn allow_nesting(self) -> Self {
        if self.is_unconfined() { self } else { self.allow(NESTING.iter().copied()).allow_set_id_bits() }
    }

    /// Creates an allow-list of the calls that common container engines allow a container without capabilities by
    /// default, as their documentation lists them.
    ///
    /// It denies calls that require a capability, calls that namespaces do not isolate, obsolete calls, and calls that
    /// this version of the crate does not know. They fail with `EPERM`.
    ///
    /// The rules of [`Seccomp::new`] for arguments apply too: sockets of other families, ioctl(2) requests and leases
    /// are denied, and setting `RLIMIT_CORE` has no effect.
    pub fn container() -> Self {
        #[rustfmt::skip]
        const ALSO_DENIED: &[&str] = &[
            "get_mempolicy", "migrate_pages", "move_pages", "set_mempolicy", "stime", "sysfs", "_sysctl", "create_module", "get_kernel_syms",
            "query_module", "fanotify_mark", "lsm_set_self_attr", "map_shadow_stack", "process_madvise", "memfd_secret",
            "listmount", "statmount", "vm86", "vm86old", "ptrace", "process_vm_readv", "process_vm_writev", "getpmsg",
            "putpmsg", "uprobe", "uretprobe", "tuxcall", "security", "afs_syscall", "vserver", "umount",
        ];
        let is_denied = |name: &str| {
            [MACHINE, KERNEL, MEMORY_POLICIES, NAMESPACES, ALSO_DENIED].iter().any(|names| names.contains(&name))
        };
        let names = SystemCall::all().filter_map(SystemCall::name).filter(|name| !is_denied(name));
        let mut policy = Self::allow_list();
        policy.rules =
            names.map(|name| Rule { call: name.into(), conditions: vec![], action: Action::Allow }).collect();
        // C libraries use clone if clone3 fails with ENOSYS.
        policy.with_baseline().on(["clone3"], Action::Errno(Errno::ENOSYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::seccomp::Policy;

    fn decides(seccomp: &Seccomp, name: &str, args: &[u64]) -> Action {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let number = SystemCall::named(name).expect(name).number();
        Policy::resolve(seccomp).expect("a policy").decide(number, &all)
    }

    #[test]
    fn every_name_of_the_presets_is_known() {
        for policy in [Seccomp::new(), Seccomp::pure_computation(), Seccomp::runtime(), Seccomp::container()] {
            Policy::resolve(&policy).expect("a policy");
        }
    }

    #[test]
    fn the_default_denies_calls_that_an_isolated_program_does_not_need() {
        let default = Seccomp::new();
        let denied = Action::Errno(Errno::EPERM);
        for name in ["mount", "bpf", "keyctl", "io_uring_setup", "unshare", "open_by_handle_at"] {
            assert_eq!(decides(&default, name, &[]), denied, "{name}");
        }
        assert_eq!(decides(&default, "clone", &[libc::SIGCHLD as u64]), Action::Allow);
        assert_eq!(decides(&default, "clone", &[libc::CLONE_NEWUSER as u64]), denied);
        assert_eq!(decides(&default, "clone3", &[]), Action::Errno(Errno::ENOSYS));
        assert_eq!(decides(&default, "ioctl", &[0, libc::TIOCSTI | 0xdead_0000_0000]), denied);
        assert_eq!(decides(&default, "socket", &[libc::AF_VSOCK as u64]), Action::Errno(Errno::EAFNOSUPPORT));
        assert_eq!(decides(&default, "socket", &[libc::AF_INET as u64, libc::SOCK_STREAM as u64]), Action::Allow);
        assert_eq!(decides(&default, "ptrace", &[]), Action::Allow);
        for mode in [0o4755, 0o2755, 0o6000] {
            assert_eq!(decides(&default, "fchmod", &[0, mode]), denied, "{mode:o}");
            assert_eq!(decides(&default, "fchmodat", &[0, 0, mode]), denied, "{mode:o}");
        }
        assert_eq!(decides(&default, "fchmodat", &[0, 0, 0o1777]), Action::Allow);
    }

    #[test]
    fn the_core_limit_cannot_be_changed() {
        let (core, other) = (libc::RLIMIT_CORE.into(), libc::RLIMIT_NOFILE.into());
        for policy in [Seccomp::new(), Seccomp::container()] {
            for (name, args, decided) in [
                ("setrlimit", [core, 1, 0], Action::Errno(Errno::new(0))),
                ("setrlimit", [0xdead << 32 | core, 1, 0], Action::Errno(Errno::new(0))),
                ("setrlimit", [other, 1, 0], Action::Allow),
                ("prlimit64", [0, core, 1], Action::Errno(Errno::new(0))),
                ("prlimit64", [0, core, 1 << 32], Action::Errno(Errno::new(0))),
                ("prlimit64", [0, core, 0], Action::Allow),
                ("prlimit64", [0, other, 1], Action::Allow),
            ] {
                assert!(SystemCall::is_elsewhere(name) || decides(&policy, name, &args) == decided, "{name} {args:x?}");
            }
        }
        let strict = Seccomp::new().deny_with(Action::Kill);
        assert_eq!(
            decides(&strict, "prlimit64", &[0, core, 1]),
            Action::Errno(Errno::new(0)),
            "deny_with does not replace it"
        );
        assert_eq!(decides(&strict, "mount", &[]), Action::Kill);
    }

    #[test]
    fn pure_computation_allows_reading_and_not_writing() {
        let pure = Seccomp::pure_computation();
        assert_eq!(decides(&pure, "openat", &[0, 0, libc::O_CLOEXEC as u64]), Action::Allow);
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC] {
            assert_eq!(decides(&pure, "openat", &[0, 0, flags as u64]), Action::Kill, "{flags:#x}");
        }
        for name in ["fork", "clone", "execve", "socket", "kill", "ptrace"] {
            assert!(SystemCall::is_elsewhere(name) || decides(&pure, name, &[]) == Action::Kill, "{name}");
        }
        assert_eq!(decides(&pure, "socket", &[libc::AF_UNIX as u64]), Action::Errno(Errno::EACCES));
        assert_eq!(decides(&pure, "socket", &[libc::AF_INET as u64]), Action::Kill);
        assert_eq!(decides(&pure, "prlimit64", &[0, 7, 0]), Action::Allow);
        assert_eq!(decides(&pure, "prlimit64", &[0, 7, 4096]), Action::Kill);
    }

    #[test]
    fn runtime_allows_threads_and_no_other_program() {
        let runtime = Seccomp::runtime();
        assert_eq!(decides(&runtime, "clone", &[libc::CLONE_THREAD as u64]), Action::Allow);
        assert_eq!(decides(&runtime, "mprotect", &[0, 0, libc::PROT_EXEC as u64]), Action::Allow);
        for name in ["execve", "kill", "mount", "bpf"] {
            assert_eq!(decides(&runtime, name, &[]), Action::Kill, "{name}");
        }
        assert_eq!(decides(&runtime, "socket", &[libc::AF_INET as u64]), Action::Errno(Errno::EACCES));
    }

    #[test]
    fn container_allows_processes_and_not_namespaces() {
        let container = Seccomp::container();
        assert_eq!(decides(&container, "clone", &[libc::SIGCHLD as u64]), Action::Allow);
        assert_eq!(decides(&container, "clone", &[libc::CLONE_NEWNS as u64]), Action::Errno(Errno::EPERM));
        assert_eq!(decides(&container, "mount", &[]), Action::Errno(Errno::EPERM));
        assert_eq!(decides(&container, "read", &[]), Action::Allow);
    }
}
