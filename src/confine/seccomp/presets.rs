//! The lists that a policy begins with.

use super::{Action, Comparison, Condition, Rule, Seccomp};
use crate::system_call::SystemCall;

/// What changes mounts, names, clocks, modules, power, accounting or quotas of a machine.
#[rustfmt::skip]
const MACHINE: &[&str] = &[
    "acct", "adjtimex", "chroot", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "fsconfig", "fsmount",
    "fsopen", "fspick", "init_module", "kexec_file_load", "kexec_load", "mount", "mount_setattr", "move_mount", "nfsservctl",
    "open_tree", "open_tree_attr", "pivot_root", "quotactl", "quotactl_fd", "reboot", "setdomainname", "sethostname",
    "settimeofday", "swapoff", "swapon", "umount2", "vhangup",
];
/// What looks into the kernel or at all of the machine, and what a bug of the kernel was often reached by.
#[rustfmt::skip]
const KERNEL: &[&str] = &[
    "add_key", "bpf", "fanotify_init", "io_uring_enter", "io_uring_register", "io_uring_setup", "iopl", "ioperm", "kcmp",
    "keyctl", "listns", "lookup_dcookie", "modify_ldt", "name_to_handle_at", "open_by_handle_at", "perf_event_open", "request_key",
    "syslog", "uselib", "userfaultfd", "ustat",
];
/// What keeps a policy for each range of a file in memory, in memory that no cgroup counts (mbind(2)).
const POLICIES: &[&str] = &["mbind", "set_mempolicy_home_node"];
/// What enters other namespaces.
const NAMESPACES: &[&str] = &["setns", "unshare"];

impl Seccomp {
    /// The default of a sandbox: everything is allowed but what an isolated program has no business with. It is refused
    /// with `EPERM` if nothing else is said:
    ///
    /// - what changes the machine: mounts, `chroot`, names, clocks, modules, kexec, swap, quotas, accounting;
    /// - `bpf`, `perf_event_open`, `userfaultfd`, io_uring, keyrings, file handles, `fanotify_init`, `syslog`, `kcmp`,
    ///   `modify_ldt`, port i/o;
    /// - namespaces: `unshare`, `setns`, and `clone` with their flags or `CLONE_PARENT`; `clone3`, whose flags a filter
    ///   can't see, gives `ENOSYS`, whereupon C libraries take `clone`;
    /// - sockets of other families than Unix, IPv4 and IPv6 (`EAFNOSUPPORT`), IPv4 and IPv6 of other protocols than TCP, UDP
    ///   and ICMP, netlink, where it is allowed, of others than `NETLINK_ROUTE` (`EPROTONOSUPPORT`); pairs of others than Unix sockets;
    ///   `TCP_ULP` and TCP-AO keys, filters of sockets, and IPv6 flow labels, of which a machine has 4,096 (`ENOPROTOOPT`);
    /// - requests of ioctl(2) that act on everybody's terminal: `TIOCSTI`, `TIOCLINUX`, `TIOCSETD`, `TIOCEXCL`, `TIOCCONS`,
    ///   `TIOCSLCKTRMIOS`, `TIOCVHANGUP`, those of virtual consoles, and stopping input or output (`TCXONC`);
    /// - requests of ioctl(2) for which the kernel loads modules: bridges, VLANs, encryption and verity of file systems;
    /// - contexts of asynchronous input and output (`io_setup` gives `ENOSYS`), of which a machine has 65,536;
    /// - what takes memory that no cgroup counts: policies for ranges of memory (`mbind`; `set_mempolicy` is allowed), attributes of
    ///   files of more than 512 bytes (`E2BIG`; `setxattrat`, whose size a filter can't see, gives `ENOSYS`), and larger
    ///   receive buffers of sockets (`SO_RCVBUF` of setsockopt(2) has no effect);
    /// - moving pages between memory nodes (`migrate_pages`, and `move_pages` with nodes), for which a kernel thread works on
    ///   each CPU;
    /// - leases and delegations of files, by which a program makes others wait that open them (`F_SETLEASE`, `F_SETDELEG`);
    /// - `personality` but for some values.
    ///
    /// What every policy denies is denied too: see [`Seccomp`]. A list of what is denied by its arguments is replaced by
    /// [`Seccomp::allow`], such as `.allow(["socket"])`.
    ///
    /// No module is loaded for what is denied. One is still looked for if the program executes a file of an unknown format
    /// (`binfmt-…`, before Linux 6.14), which no filter sees.
    ///
    /// What sets `RLIMIT_CORE` does nothing, and gives 0: a limit of 1 alone keeps cores from the pipe of
    /// `kernel.core_pattern` (core(5)), and 0 does not.
    ///
    /// What is left is much: [`Seccomp::pure_computation`] and [`Seccomp::container`] are allow-lists.
    pub fn new() -> Self {
        let mut policy = Self::deny_list();
        policy.rules.reserve(MACHINE.len() + KERNEL.len() + POLICIES.len() + NAMESPACES.len() + 64);
        for names in [MACHINE, KERNEL, POLICIES, NAMESPACES] {
            for &name in names {
                policy = policy.when(name, [], Action::Errno(libc::EPERM));
            }
        }
        policy.with_baseline()
    }

    /// For programs that read, compute and write, as an online judge runs them: an allow-list on which C, C++, Rust and
    /// Python run, linked statically or not. Anything else ends the sandbox:
    /// [`Termination::Syscall`](crate::Termination::Syscall).
    ///
    /// A Unix socket is refused with `EACCES` alone, since C libraries look for a cache there when somebody asks for a user's
    /// name or home, as Python does at its start.
    ///
    /// Files can be opened for reading alone, and not locked. There are no processes, threads, sockets, changes of the file
    /// system, or limits to set, so that Java, Go and Node don't run. tgkill(2), by which `abort` ends a program, reaches other
    /// processes of the same user if there is no pid namespace.
    pub fn pure_computation() -> Self {
        #[rustfmt::skip]
        const ALLOWED: &[&str] = &[
            // Descriptors that it has.
            "close", "dup", "dup2", "dup3", "fcntl", "fstat", "lseek", "poll", "ppoll", "pread64", "preadv", "preadv2",
            "pselect6", "pwrite64", "pwritev", "pwritev2", "read", "readv", "select", "write", "writev", "fadvise64",
            "fsync", "fdatasync", "ftruncate", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
            // Looking at files.
            "access", "faccessat", "faccessat2", "fstatfs", "getcwd", "getdents", "getdents64", "lstat", "newfstatat",
            "readlink", "readlinkat", "stat", "statfs", "statx",
            // Memory.
            "brk", "madvise", "mincore", "mlock", "mlock2", "mmap", "mprotect", "mremap", "munlock", "munmap", "mseal",
            "membarrier", "pkey_alloc", "pkey_free", "pkey_mprotect",
            // Itself, and the time.
            "arch_prctl", "clock_getres", "clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "get_robust_list",
            "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpgid", "getpgrp", "getpid", "getppid",
            "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "gettid",
            "gettimeofday", "getuid", "nanosleep", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
            "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sched_getaffinity", "sched_getparam",
            "sched_getscheduler", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "sysinfo", "tgkill",
            "time", "times", "uname", "alarm", "setitimer", "pause", "tkill",
        ];
        let mut policy = Self::allow_list().otherwise(Action::Kill).allow(ALLOWED.iter().copied());
        let reads = Comparison::Masked { mask: (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64, value: 0 };
        for (name, argument) in [("open", 1), ("openat", 2)] {
            policy = policy.when(name, [Condition::int(argument, reads)], Action::Allow);
        }
        for request in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIOCLEX] {
            policy = policy.when("ioctl", [Condition::is(1, request as libc::c_int)], Action::Allow);
        }
        // A limit may be asked for, and not set.
        policy = policy.when("prlimit64", [Condition::new(2, Comparison::Equal(0))], Action::Allow);
        for option in [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE] {
            policy = policy.when("prctl", [Condition::is(0, option)], Action::Allow);
        }
        policy
            .when("socket", [Condition::is(0, libc::AF_UNIX)], Action::Errno(libc::EACCES))
            .with_baseline()
            .deny_record_locks()
    }

    /// An allow-list of what the default profile of common container engines allows a container without capabilities, as
    /// their documentation lists it: all calls that the crate knows but those that need a capability, those that are not
    /// kept apart by namespaces, and old ones that had bugs. What is refused gives `EPERM`. What [`Seccomp::new`] denies by
    /// arguments is denied here too: sockets of other families, requests of ioctl(2), leases; and setting `RLIMIT_CORE` does
    /// nothing.
    pub fn container() -> Self {
        #[rustfmt::skip]
        const BEYOND: &[&str] = &[
            "get_mempolicy", "migrate_pages", "move_pages", "set_mempolicy", "stime", "sysfs", "_sysctl", "create_module", "get_kernel_syms",
            "query_module", "fanotify_mark", "lsm_set_self_attr", "map_shadow_stack", "process_madvise", "memfd_secret",
            "listmount", "statmount", "vm86", "vm86old", "ptrace", "process_vm_readv", "process_vm_writev", "getpmsg",
            "putpmsg", "uprobe", "uretprobe", "tuxcall", "security", "afs_syscall", "vserver", "umount",
        ];
        let refused =
            |name: &str| [MACHINE, KERNEL, POLICIES, NAMESPACES, BEYOND].iter().any(|names| names.contains(&name));
        let names = SystemCall::all().filter_map(SystemCall::name).filter(|name| !refused(name));
        let mut policy = Self::allow_list();
        policy.rules =
            names.map(|name| Rule { call: name.into(), conditions: vec![], action: Action::Allow }).collect();
        // C libraries take clone if clone3 is missing.
        policy.with_baseline().on(["clone3"], Action::Errno(libc::ENOSYS))
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
        for policy in [Seccomp::new(), Seccomp::pure_computation(), Seccomp::container()] {
            Policy::resolve(&policy).expect("a policy");
        }
    }

    #[test]
    fn the_default_refuses_what_an_isolated_program_has_no_business_with() {
        let default = Seccomp::new();
        let refused = Action::Errno(libc::EPERM);
        for name in ["mount", "bpf", "keyctl", "io_uring_setup", "unshare", "open_by_handle_at"] {
            assert_eq!(decides(&default, name, &[]), refused, "{name}");
        }
        assert_eq!(decides(&default, "clone", &[libc::SIGCHLD as u64]), Action::Allow);
        assert_eq!(decides(&default, "clone", &[libc::CLONE_NEWUSER as u64]), refused);
        assert_eq!(decides(&default, "clone3", &[]), Action::Errno(libc::ENOSYS));
        assert_eq!(decides(&default, "ioctl", &[0, libc::TIOCSTI | 0xdead_0000_0000]), refused);
        assert_eq!(decides(&default, "socket", &[libc::AF_VSOCK as u64]), Action::Errno(libc::EAFNOSUPPORT));
        assert_eq!(decides(&default, "socket", &[libc::AF_INET as u64, libc::SOCK_STREAM as u64]), Action::Allow);
        assert_eq!(decides(&default, "ptrace", &[]), Action::Allow);
        for mode in [0o4755, 0o2755, 0o6000] {
            assert_eq!(decides(&default, "fchmod", &[0, mode]), refused, "{mode:o}");
            assert_eq!(decides(&default, "fchmodat", &[0, 0, mode]), refused, "{mode:o}");
        }
        assert_eq!(decides(&default, "fchmodat", &[0, 0, 0o1777]), Action::Allow);
    }

    #[test]
    fn the_limit_of_cores_stays() {
        let (core, other) = (libc::RLIMIT_CORE.into(), libc::RLIMIT_NOFILE.into());
        for policy in [Seccomp::new(), Seccomp::container()] {
            for (name, args, decided) in [
                ("setrlimit", [core, 1, 0], Action::Errno(0)),
                ("setrlimit", [0xdead << 32 | core, 1, 0], Action::Errno(0)),
                ("setrlimit", [other, 1, 0], Action::Allow),
                ("prlimit64", [0, core, 1], Action::Errno(0)),
                ("prlimit64", [0, core, 1 << 32], Action::Errno(0)),
                ("prlimit64", [0, core, 0], Action::Allow),
                ("prlimit64", [0, other, 1], Action::Allow),
            ] {
                assert!(SystemCall::is_elsewhere(name) || decides(&policy, name, &args) == decided, "{name} {args:x?}");
            }
        }
        let strict = Seccomp::new().refuse_with(Action::Kill);
        assert_eq!(decides(&strict, "prlimit64", &[0, core, 1]), Action::Errno(0), "it is no refusal");
        assert_eq!(decides(&strict, "mount", &[]), Action::Kill);
    }

    #[test]
    fn pure_computation_reads_and_does_not_write() {
        let pure = Seccomp::pure_computation();
        assert_eq!(decides(&pure, "openat", &[0, 0, libc::O_CLOEXEC as u64]), Action::Allow);
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC] {
            assert_eq!(decides(&pure, "openat", &[0, 0, flags as u64]), Action::Kill, "{flags:#x}");
        }
        for name in ["fork", "clone", "execve", "socket", "kill", "ptrace"] {
            assert!(SystemCall::is_elsewhere(name) || decides(&pure, name, &[]) == Action::Kill, "{name}");
        }
        assert_eq!(decides(&pure, "socket", &[libc::AF_UNIX as u64]), Action::Errno(libc::EACCES));
        assert_eq!(decides(&pure, "socket", &[libc::AF_INET as u64]), Action::Kill);
        assert_eq!(decides(&pure, "prlimit64", &[0, 7, 0]), Action::Allow);
        assert_eq!(decides(&pure, "prlimit64", &[0, 7, 4096]), Action::Kill);
    }

    #[test]
    fn a_container_makes_processes_and_no_namespaces() {
        let container = Seccomp::container();
        assert_eq!(decides(&container, "clone", &[libc::SIGCHLD as u64]), Action::Allow);
        assert_eq!(decides(&container, "clone", &[libc::CLONE_NEWNS as u64]), Action::Errno(libc::EPERM));
        assert_eq!(decides(&container, "mount", &[]), Action::Errno(libc::EPERM));
        assert_eq!(decides(&container, "read", &[]), Action::Allow);
    }
}
