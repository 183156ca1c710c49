//! The baseline: rules by which every preset denies calls with certain arguments. A later rule for the same call by
//! name ([`Seccomp::allow`]) replaces them; what nothing may replace is in `guards`.

use super::{Action, Comparison, Condition, Rule, Seccomp};
use crate::unix::Errno;

/// Flags of clone(2) that create namespaces, and `CLONE_PARENT`, with which a program could create children of the
/// caller that the caller does not know.
const CLONE_FLAGS: [libc::c_int; 9] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWTIME,
    libc::CLONE_PARENT,
];

/// The allowed arguments of personality(2): the default, no address space randomisation, which debuggers set
/// (`ADDR_NO_RANDOMIZE`), an old kernel version in uname(2) (`UNAME26`), and both. 0xffffffff returns the current
/// value.
const PERSONALITIES: [libc::c_int; 5] = [0, 0x0002_0000, 0x0004_0000, 0x0006_0000, -1];

/// The allowed families of sockets.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// The Internet families, and the bit in which they differ.
const INTERNET: (libc::c_int, libc::c_int) = (libc::AF_INET, libc::AF_INET ^ libc::AF_INET6);
/// The allowed protocols of datagram sockets, with that of each family's ping sockets.
const DATAGRAMS: [(libc::c_int, [libc::c_int; 3]); 2] = [
    (libc::AF_INET, [0, libc::IPPROTO_UDP, libc::IPPROTO_ICMP]),
    (libc::AF_INET6, [0, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6]),
];
/// The bits of a socket's type that are no flags (`SOCK_TYPE_MASK`).
const TYPE: libc::c_int = 0xf;

/// Requests of ioctl(2) that affect all users of a terminal: input, exclusive use, line discipline (for which the
/// kernel loads modules), console output, locks of its modes, hang-up.
const TERMINAL: [libc::Ioctl; 7] = [
    libc::TIOCSTI,
    libc::TIOCLINUX,
    libc::TIOCEXCL,
    libc::TIOCSETD,
    libc::TIOCCONS,
    // TIOCSLCKTRMIOS and TIOCVHANGUP, which libc does not have everywhere.
    0x5457,
    0x5437,
];
/// Ranges of requests of ioctl(2): those of virtual consoles: keyboard, font and screen (`linux/kd.h`), and switching
/// (`linux/vt.h`); and those for which the kernel loads modules without checking a capability: bridges (SIOCGIFBR,
/// SIOCSIFBR, SIOCBRADDBR, SIOCBRDELBR), VLANs and frame relay (SIOCADDDLCI, SIOCDELDLCI, SIOCGIFVLAN, SIOCSIFVLAN).
const RANGES: [[u64; 2]; 5] =
    [[0x4b00, 0x4bff], [0x5600, 0x56ff], [0x8940, 0x8941], [0x8980, 0x8983], [0x89a0, 0x89a1]];
/// Requests for which the kernel loads ciphers and digests of file systems: FS_IOC_SET_ENCRYPTION_POLICY,
/// FS_IOC_ADD_ENCRYPTION_KEY, FS_IOC_ENABLE_VERITY.
const FILE_SYSTEMS: [u32; 3] = [0x800c_6613, 0xc050_6617, 0x4080_6685];
/// Options of TCP for which the kernel loads modules: TCP_ULP, and TCP_AO_ADD_KEY, by its digest.
const TCP_OPTIONS: [libc::c_int; 2] = [31, 38];
/// IPV6_FLOWLABEL_MGR: creates a flow label, of which all networks of the machine together have 4,096 (`FL_MAX_SIZE`).
const FLOW_LABELS: (libc::c_int, libc::c_int) = (libc::IPPROTO_IPV6, 32);

/// Options of every socket that install a filter: SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF,
/// SO_ATTACH_REUSEPORT_EBPF. The kernel compiles it into memory that no cgroup counts and that all filters of the
/// machine share (`net.core.bpf_jit_limit`).
const SOCKET_FILTERS: [libc::c_int; 4] = [26, 50, 51, 52];

/// Calls that set an extended attribute, whose size is the fourth argument.
const ATTRIBUTES: [&str; 3] = ["setxattr", "lsetxattr", "fsetxattr"];
/// The largest size of an extended attribute, in bytes. A file can have two that are access control lists, which a
/// tmpfs keeps in memory that no cgroup counts. This size is about what a cgroup is charged for an empty directory.
const LARGEST_ATTRIBUTE: u64 = 512;

/// Commands of fcntl(2) that lock a range of a file.
const RECORD_LOCKS: [libc::c_int; 4] = [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];

/// Commands of fcntl(2) that block other programs which open a file: F_SETLEASE, F_SETDELEG.
const LEASES: [libc::c_int; 2] = [libc::F_SETLEASE, 1040];

/// The actions of `TCXONC` that suspend a terminal for all its users.
const SUSPEND: [libc::c_int; 2] = [libc::TCOOFF, libc::TCIOFF];

/// The rules of the baseline.
struct Denied(Vec<Rule>);

impl Denied {
    fn add(&mut self, call: &'static str, conditions: impl Into<Vec<Condition>>, errno: i32) {
        self.0.push(Rule {
            call: call.into(),
            conditions: conditions.into(),
            action: Action::Errno(Errno::new(errno)),
        });
    }

    fn namespaces(&mut self) {
        // On all architectures that the crate has, the flags are the first argument.
        CLONE_FLAGS.iter().for_each(|&kind| self.add("clone", [Condition::has(0, kind)], libc::EPERM));
        self.add("clone3", [], libc::ENOSYS);
    }

    /// The kernel looks for a module for any other family and protocol.
    fn sockets(&mut self) {
        self.add("socket", FAMILIES.map(|family| Condition::is_not(0, family)), libc::EAFNOSUPPORT);
        // No other allowed family has pairs.
        self.add("socketpair", [Condition::is_not(0, libc::AF_UNIX)], libc::EAFNOSUPPORT);
        let (family, difference) = INTERNET;
        let internet = Condition::masked(0, !difference, family);
        let is = |kind| Condition::masked(1, TYPE, kind);
        // Types are streams (1), datagrams (2) and raw (3). SOCK_PACKET (10) belongs to another family.
        for others in [is(0), Condition::has(1, 4), Condition::has(1, 8)] {
            self.add("socket", [internet, others], libc::ESOCKTNOSUPPORT);
        }
        let streams = [0, libc::IPPROTO_TCP].map(|protocol| Condition::is_not(2, protocol));
        self.add("socket", [&[internet, is(libc::SOCK_STREAM)][..], &streams].concat(), libc::EPROTONOSUPPORT);
        for (family, protocols) in DATAGRAMS {
            let kind = [Condition::is(0, family), is(libc::SOCK_DGRAM)];
            let others = protocols.map(|protocol| Condition::is_not(2, protocol));
            self.add("socket", [&kind[..], &others].concat(), libc::EPROTONOSUPPORT);
        }
        // Raw sockets require a capability. The kernel looks for a module for protocol 0 only.
        self.add("socket", [internet, is(libc::SOCK_RAW), Condition::is(2, 0)], libc::EPROTONOSUPPORT);
        let netlink = [Condition::is(0, libc::AF_NETLINK), Condition::is_not(2, libc::NETLINK_ROUTE)];
        self.add("socket", netlink, libc::EPROTONOSUPPORT);
        let options = TCP_OPTIONS.map(|option| (libc::IPPROTO_TCP, option)).into_iter();
        let filters = SOCKET_FILTERS.map(|option| (libc::SOL_SOCKET, option));
        for (level, option) in options.chain(filters).chain([FLOW_LABELS]) {
            self.add("setsockopt", [Condition::is(1, level), Condition::is(2, option)], libc::ENOPROTOOPT);
        }
    }

    /// The kernel reads only the lower half of a request.
    fn requests(&mut self) {
        for request in TERMINAL.map(|request| request as u32).into_iter().chain(FILE_SYSTEMS) {
            self.add("ioctl", [Condition::is(1, request as libc::c_int)], libc::EPERM);
        }
        for action in SUSPEND {
            let stops = [Condition::is(1, libc::TCXONC as libc::c_int), Condition::is(2, action)];
            self.add("ioctl", stops, libc::EPERM);
        }
        for [first, last] in RANGES {
            let between = [Comparison::GreaterOrEqual(first), Comparison::LessOrEqual(last)];
            self.add("ioctl", between.map(|comparison| Condition::dword(1, comparison)), libc::EPERM);
        }
    }

    fn personalities(&mut self) {
        self.add("personality", PERSONALITIES.map(|persona| Condition::is_not(0, persona)), libc::EPERM);
    }

    /// Setting RLIMIT_CORE succeeds without an effect. Programs that set it to 0, to have no secrets in core dumps,
    /// exit if that fails.
    fn cores(&mut self) {
        let core = libc::RLIMIT_CORE as libc::c_int;
        self.add("setrlimit", [Condition::is(0, core)], 0);
        self.add("prlimit64", [Condition::is(1, core), Condition::qword(2, Comparison::NotEqual(0))], 0);
    }

    /// Asynchronous I/O fails as on a kernel without it, which programs expect.
    fn aio_contexts(&mut self) {
        // All processes of the machine together have `fs.aio-max-nr` of them, 65,536.
        self.add("io_setup", [], libc::ENOSYS);
    }

    /// Memory that no cgroup counts.
    fn uncounted_memory(&mut self) {
        let large = Condition::qword(3, Comparison::Greater(LARGEST_ATTRIBUTE));
        ATTRIBUTES.iter().for_each(|call| self.add(call, [large], libc::E2BIG));
        self.add("setxattrat", [], libc::ENOSYS);
        // A socket's queue of errors has the size of its receive buffer. Programs that request a larger one work with
        // it.
        let buffer = [Condition::is(1, libc::SOL_SOCKET), Condition::is(2, libc::SO_RCVBUF)];
        self.add("setsockopt", buffer, 0);
    }

    /// Moving pages keeps a kernel thread busy on every CPU. Asking where pages are is allowed.
    fn page_migration(&mut self) {
        self.add("migrate_pages", [], libc::EPERM);
        self.add("move_pages", [Condition::qword(3, Comparison::NotEqual(0))], libc::EPERM);
    }

    fn leases(&mut self) {
        LEASES.iter().for_each(|&command| self.add("fcntl", [Condition::is(1, command)], libc::EPERM));
    }
}

impl Seccomp {
    /// Adds the rules for those calls that the policy allows unconditionally.
    pub(super) fn with_baseline(mut self) -> Self {
        let mut denied = Denied(vec![]);
        denied.namespaces();
        denied.sockets();
        denied.requests();
        denied.personalities();
        denied.cores();
        denied.leases();
        denied.aio_contexts();
        denied.uncounted_memory();
        denied.page_migration();
        let rules: Vec<Rule> = denied.0.into_iter().filter(|rule| self.allows_all_of(&rule.call)).collect();
        self.rules.extend(rules);
        self
    }

    /// Denies locks on ranges of files (`F_SETLK`, `F_SETLKW`, `F_OFD_SETLK`, `F_OFD_SETLKW` of fcntl(2)) with
    /// `ENOLCK`.
    ///
    /// The kernel uses about 200 bytes for each lock, which no cgroup counts and no limit bounds: a program can use a
    /// gibibyte of the machine's memory within seconds. Databases (SQLite), package managers and some build tools need
    /// such locks. flock(2) is not denied.
    ///
    /// Default: allowed, except by [`Seccomp::pure_computation`].
    #[must_use]
    pub fn deny_record_locks(self) -> Self {
        RECORD_LOCKS.into_iter().fold(self, |policy, command| {
            policy.when("fcntl", [Condition::is(1, command)], Action::Errno(Errno::ENOLCK))
        })
    }

    /// Returns whether a call is allowed whatever its arguments are.
    fn allows_all_of(&self, call: &str) -> bool {
        let unconditional = self.rules.iter().find(|rule| rule.call == call && rule.conditions.is_empty());
        !unconditional.map_or(self.default_action, |rule| rule.action).denies()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::seccomp::Policy;
    use crate::syscall::SystemCall;

    fn presets() -> [Policy; 2] {
        [Seccomp::new(), Seccomp::container()].map(|policy| Policy::resolve(&policy.allow_netlink()).expect("a policy"))
    }

    fn allows(policy: &Policy, name: &str, args: [libc::c_int; 3]) -> bool {
        let [a, b, c] = args.map(|arg| u64::from(arg as u32) | 0xdead << 32);
        let number = SystemCall::named(name).expect(name).number();
        policy.decide(number, &[a, b, c, 0, 0, 0]) == Action::Allow
    }

    #[test]
    fn sockets_are_allowed_by_family_type_and_protocol() {
        use libc::{
            AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW, SOCK_STREAM,
        };
        let allowed = |[family, kind, protocol]: [libc::c_int; 3]| match family {
            AF_UNIX => true,
            AF_NETLINK => protocol == libc::NETLINK_ROUTE,
            AF_INET | AF_INET6 => match kind & TYPE {
                SOCK_STREAM => [0, 6].contains(&protocol),
                SOCK_DGRAM => [0, 17, if family == AF_INET { 1 } else { 58 }].contains(&protocol),
                SOCK_RAW => protocol != 0,
                _ => false,
            },
            _ => false,
        };
        let flags = [0, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC];
        for policy in presets() {
            for (family, kind) in (-1..50).flat_map(|family| (-1..17).map(move |kind| (family, kind))) {
                for (protocol, flags) in
                    (-1..300).step_by(3).chain([0, 1, 6, 17, 58, 132, 262]).zip(flags.into_iter().cycle())
                {
                    let args = [family, kind | flags, protocol];
                    assert_eq!(allows(&policy, "socket", args), allowed(args), "{args:?}");
                    assert_eq!(allows(&policy, "socketpair", args), family == AF_UNIX, "{args:?}");
                }
            }
        }
    }

    #[test]
    fn requests_that_act_on_everybody_are_denied() {
        for policy in presets() {
            for (action, is_allowed) in [(libc::TCOOFF, false), (libc::TCIOFF, false), (libc::TCOON, true)] {
                assert_eq!(allows(&policy, "ioctl", [0, libc::TCXONC as libc::c_int, action]), is_allowed, "{action}");
            }
            for request in [libc::TIOCSTI, libc::TIOCEXCL, libc::TIOCSETD, 0x4b3a, 0x5606, 0x8940, 0x8982] {
                assert!(!allows(&policy, "ioctl", [0, request as libc::c_int, 0]), "{request:#x}");
            }
            for request in
                [libc::TCGETS, libc::TCSETS, libc::TIOCGWINSZ, libc::TIOCSCTTY, libc::FIONREAD, libc::SIOCGIFCONF]
            {
                assert!(allows(&policy, "ioctl", [0, request as libc::c_int, 0]), "{request:#x}");
            }
        }
    }

    #[test]
    fn memory_that_no_cgroup_counts_is_denied() {
        for policy in presets() {
            for name in ["mbind", "set_mempolicy_home_node", "setxattrat"] {
                assert!(SystemCall::named(name).is_none() || !allows(&policy, name, [0; 3]), "{name}");
            }
            let decides = |name: &str, args| policy.decide(SystemCall::named(name).expect(name).number(), &args);
            for name in ATTRIBUTES {
                assert_eq!(decides(name, [0, 0, 0, 512, 0, 0]), Action::Allow);
                for size in [513, 1 << 32] {
                    assert_eq!(decides(name, [0, 0, 0, size, 0, 0]), Action::Errno(Errno::E2BIG));
                }
            }
            assert!(!allows(&policy, "setsockopt", [0, libc::SOL_SOCKET, libc::SO_RCVBUF]));
        }
    }

    #[test]
    fn flow_labels_of_the_machine_and_work_on_every_cpu_are_denied() {
        for policy in presets() {
            assert!(!allows(&policy, "setsockopt", [0, libc::IPPROTO_IPV6, 32]));
            assert!(allows(&policy, "setsockopt", [0, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY]));
            assert!(!allows(&policy, "migrate_pages", [0; 3]));
        }
        let [default, _] = presets();
        let moves = |nodes| default.decide(SystemCall::named("move_pages").unwrap().number(), &[0, 1, 8, nodes, 0, 0]);
        assert_eq!([moves(0), moves(1 << 32)], [Action::Allow, Action::Errno(Errno::EPERM)]);
    }

    #[test]
    fn record_locks_are_denied_on_request() {
        let denying = [Seccomp::new().deny_record_locks(), Seccomp::pure_computation()];
        for policy in denying.map(|policy| Policy::resolve(&policy).expect("a policy")) {
            assert!(RECORD_LOCKS.iter().all(|&command| !allows(&policy, "fcntl", [0, command, 0])));
            assert!(allows(&policy, "fcntl", [0, libc::F_GETFL, 0]));
        }
        assert!(presets().iter().all(|policy| allows(policy, "fcntl", [0, libc::F_SETLK, 0])));
    }

    #[test]
    fn leases_are_denied_in_every_preset() {
        let pure = Policy::resolve(&Seccomp::pure_computation()).expect("a policy");
        for policy in presets().iter().chain([&pure]) {
            assert!(!allows(policy, "fcntl", [0, libc::F_SETLEASE, libc::F_WRLCK]));
            assert!(!allows(policy, "fcntl", [0, 1040, libc::F_WRLCK]));
            assert!(allows(policy, "fcntl", [0, libc::F_GETLEASE, 0]));
        }
    }
}
