//! The guards: rules that hold in every policy, whatever its own rules allow. They prevent that a program leaves
//! something on the host, or exhausts what no cgroup limits, through calls that every program needs. What only a preset
//! denies is in `baseline`.

use super::{Action, Comparison, Condition, Rule};
use crate::unix::Errno;

/// The guards that a policy is exempt from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Exemptions {
    pub set_id_bits: bool,
    pub huge_pages: bool,
    pub netlink: bool,
    /// No exemption, but a guard that is added: the program has no PID namespace, and can name the caller's processes.
    pub sees_other_processes: bool,
}

impl Exemptions {
    pub const NONE: Self = Self { set_id_bits: false, huge_pages: false, netlink: false, sees_other_processes: false };
}

/// Calls with the index of the argument that is the mode of a file, whatever their other arguments are.
const MODES: [(&str, u8); 7] =
    [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1), ("mknod", 1), ("mknodat", 2)];
/// Calls with the index of their flags. The argument after it is a mode if the flags create a file. Otherwise C
/// libraries pass what the register happens to hold.
const OPENS: [(&str, u8); 2] = [("open", 1), ("openat", 2)];
/// The flags that create a file. `O_TMPFILE` contains `O_DIRECTORY`.
const CREATE_FLAGS: [libc::c_int; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];
const SET_ID_BITS: [libc::mode_t; 2] = [libc::S_ISUID, libc::S_ISGID];
/// Calls with the index of their flags, and the flag that requests huge pages.
const HUGE_PAGES: [(&str, u8, libc::c_int); 3] = [
    ("mmap", 3, libc::MAP_HUGETLB),
    ("memfd_create", 1, libc::MFD_HUGETLB as libc::c_int),
    ("shmget", 2, libc::SHM_HUGETLB),
];

/// Options that set the size of a socket's buffers.
const BUFFER_SIZES: [libc::c_int; 2] = [libc::SO_SNDBUF, libc::SO_RCVBUF];

/// Returns the guards of a policy.
pub(super) fn rules(exemptions: Exemptions) -> Vec<Rule> {
    let mut rules = vec![];
    if !exemptions.set_id_bits {
        set_id_bits(&mut rules);
    }
    if !exemptions.huge_pages {
        let denied = |(call, argument, flag)| rule(call, [Condition::has(argument, flag)], libc::ENOMEM);
        rules.extend(HUGE_PAGES.map(denied));
    }
    if exemptions.netlink {
        // The buffers keep the kernel's default sizes. Programs that request larger ones see success.
        let ignored = |option| rule("setsockopt", [Condition::is(1, libc::SOL_SOCKET), Condition::is(2, option)], 0);
        rules.extend(BUFFER_SIZES.map(ignored));
    } else {
        rules.push(rule("socket", [Condition::is(0, libc::AF_NETLINK)], libc::EAFNOSUPPORT));
    }
    if exemptions.sees_other_processes {
        other_processes(&mut rules);
    } else {
        init(&mut rules);
    }
    rules
}

/// Calls whose first argument is the pid of the process that they change.
const SCHEDULERS: [&str; 4] = ["sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"];
/// Calls whose first argument is the kind of what the second one identifies, and the kinds for a process, a process
/// group and a user.
const PRIORITIES: [(&str, [libc::c_int; 3]); 2] = [
    (
        "setpriority",
        [libc::PRIO_PROCESS as libc::c_int, libc::PRIO_PGRP as libc::c_int, libc::PRIO_USER as libc::c_int],
    ),
    ("ioprio_set", [1, 2, 3]),
];
/// The PID of init, and the ID of its process group.
const INIT: libc::c_int = 1;

/// Denies changes of init, which has the user of the program. With lower limits or a lower priority it might not
/// terminate the sandbox in time.
fn init(rules: &mut Vec<Rule>) {
    let sets_limit = Condition::qword(2, Comparison::NotEqual(0));
    rules.push(rule("prlimit64", [Condition::is(0, INIT), sets_limit], libc::EPERM));
    rules.extend(SCHEDULERS.map(|call| rule(call, [Condition::is(0, INIT)], libc::EPERM)));
    for (call, [_, _, user]) in PRIORITIES {
        rules.push(rule(call, [Condition::is(1, INIT)], libc::EPERM));
        rules.push(rule(call, [Condition::is(0, user)], libc::EPERM));
    }
}

/// Denies changes of other processes. The kernel allows them for every process of the same user.
fn other_processes(rules: &mut Vec<Rule>) {
    let sets_limit = Condition::qword(2, Comparison::NotEqual(0));
    rules.push(rule("prlimit64", [Condition::is_not(0, 0), sets_limit], libc::EPERM));
    rules.extend(SCHEDULERS.map(|call| rule(call, [Condition::is_not(0, 0)], libc::EPERM)));
    for (call, [process, ..]) in PRIORITIES {
        rules.push(rule(call, [Condition::is_not(0, process)], libc::EPERM));
        rules.push(rule(call, [Condition::is_not(1, 0)], libc::EPERM));
    }
    let inspections = ["process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"];
    rules.extend(inspections.map(|call| rule(call, [], libc::EPERM)));
    rules.extend(["move_pages", "migrate_pages"].map(|call| rule(call, [Condition::is_not(0, 0)], libc::EPERM)));
}

/// Denies creating set-user-ID and set-group-ID files.
fn set_id_bits(rules: &mut Vec<Rule>) {
    for bit in SET_ID_BITS.map(|bit| bit as libc::c_int) {
        let denied = |(call, argument)| rule(call, [Condition::has(argument, bit)], libc::EPERM);
        rules.extend(MODES.map(denied));
        for ((call, flags), create) in OPENS.into_iter().flat_map(|open| CREATE_FLAGS.map(|create| (open, create))) {
            let conditions = [Condition::has(flags, create), Condition::has(flags + 1, bit)];
            rules.push(rule(call, conditions, libc::EPERM));
        }
    }
    rules.push(rule("openat2", [], libc::ENOSYS));
}

fn rule(call: &'static str, conditions: impl Into<Vec<Condition>>, errno: i32) -> Rule {
    Rule { call: call.into(), conditions: conditions.into(), action: Action::Errno(Errno::new(errno)) }
}

#[cfg(test)]
mod tests {
    use crate::confine::seccomp::{Action, Condition, Policy, Seccomp};
    use crate::syscall::SystemCall;
    use crate::unix::Errno;

    const DENIED: Action = Action::Errno(Errno::EPERM);
    const NO_MEMORY: Action = Action::Errno(Errno::ENOMEM);

    /// `None` if this architecture does not have the call.
    fn decides(seccomp: &Seccomp, name: &str, args: &[u64]) -> Option<Action> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let number = SystemCall::named(name)?.number();
        Some(Policy::resolve(seccomp).expect("a policy").decide(number, &all))
    }

    /// Calls that create a set-user-ID or set-group-ID file.
    fn set_id_calls() -> Vec<(&'static str, Vec<u64>)> {
        let [create, temporary] =
            [libc::O_CREAT | libc::O_RDWR, libc::O_TMPFILE | libc::O_RDWR].map(|flags| flags as u64);
        let with = |mode: u64| {
            [
                ("chmod", vec![0, mode]),
                ("fchmod", vec![0, mode]),
                ("fchmod", vec![0, mode | 0xdead << 32]),
                ("fchmodat", vec![0, 0, mode]),
                ("fchmodat2", vec![0, 0, mode, 0]),
                ("creat", vec![0, mode]),
                ("mknod", vec![0, mode | 0o100_000, 0]),
                ("mknodat", vec![0, 0, mode | 0o100_000, 0]),
                ("open", vec![0, create, mode]),
                ("open", vec![0, temporary, mode]),
                ("openat", vec![0, 0, create, mode]),
                ("openat", vec![0, 0, temporary, mode]),
            ]
        };
        [0o4755, 0o2755, 0o6000].into_iter().flat_map(with).collect()
    }

    #[test]
    fn no_rule_allows_set_id_bits() {
        let everything = Seccomp::allow_list().allow(SystemCall::all().filter_map(SystemCall::name));
        let notifying = Seccomp::deny_list().on(["fchmod", "openat", "openat2"], Action::Notify);
        let narrow = Seccomp::new().only(["chmod", "openat", "fchmod", "openat2"]);
        for policy in
            [Seccomp::new(), Seccomp::container(), everything, notifying, narrow, Seccomp::deny_list().deny(["bpf"])]
        {
            for (name, args) in set_id_calls() {
                assert!(
                    decides(&policy, name, &args).is_none_or(|action| action == DENIED),
                    "{name} {args:x?} in {policy:#}"
                );
            }
            assert_eq!(decides(&policy, "openat2", &[]), Some(Action::Errno(Errno::ENOSYS)));
        }
        let strict = Seccomp::pure_computation();
        for (name, args) in set_id_calls() {
            assert!(decides(&strict, name, &args).is_none_or(|action| action == Action::Kill), "{name} {args:x?}");
        }
    }

    #[test]
    fn other_modes_are_not_affected() {
        for policy in [Seccomp::new(), Seccomp::container()] {
            let (create, read) = (libc::O_CREAT as u64, libc::O_DIRECTORY as u64);
            for (name, args) in [
                ("fchmod", vec![0, 0o1777]),
                ("mknodat", vec![0, 0, 0o10_644]),
                ("openat", vec![0, 0, create, 0o1777]),
                // Without a flag that creates a file, the mode is not looked at.
                ("openat", vec![0, 0, read, 0o6777]),
                ("mkdirat", vec![0, 0, 0o6777]),
            ] {
                assert_eq!(decides(&policy, name, &args), Some(Action::Allow), "{name} {args:x?}");
            }
        }
    }

    #[test]
    fn no_rule_allows_huge_pages() {
        let huge = [
            ("mmap", vec![0, 0, 0, (libc::MAP_HUGETLB | libc::MAP_PRIVATE) as u64]),
            ("memfd_create", vec![0, u64::from(libc::MFD_HUGETLB) | 0xdead << 32]),
            ("shmget", vec![0, 0, (libc::SHM_HUGETLB | libc::IPC_CREAT) as u64]),
        ];
        for policy in [Seccomp::new(), Seccomp::container()] {
            for (name, args) in &huge {
                assert_eq!(decides(&policy, name, args), Some(NO_MEMORY), "{name}");
                assert_eq!(decides(&policy, name, &[0; 4]), Some(Action::Allow), "{name}");
                assert_eq!(decides(&policy.clone().allow_huge_pages(), name, args), Some(Action::Allow), "{name}");
            }
        }
        assert_eq!(decides(&Seccomp::pure_computation(), "mmap", &huge[0].1), Some(NO_MEMORY));
    }

    #[test]
    fn no_rule_allows_netlink() {
        let everything = Seccomp::allow_list().allow(SystemCall::all().filter_map(SystemCall::name));
        let (netlink, unsupported) = ([libc::AF_NETLINK as u64, 3, 0], Action::Errno(Errno::EAFNOSUPPORT));
        let buffer = [3, libc::SOL_SOCKET as u64, libc::SO_SNDBUF as u64, 1, 4];
        for policy in [Seccomp::new(), Seccomp::container(), everything] {
            assert_eq!(decides(&policy, "socket", &netlink), Some(unsupported));
            assert_eq!(decides(&policy, "setsockopt", &buffer), Some(Action::Allow));
            let exempt = policy.allow_netlink();
            assert_eq!(decides(&exempt, "socket", &netlink), Some(Action::Allow));
            assert_eq!(decides(&exempt, "setsockopt", &buffer), Some(Action::Errno(Errno::new(0))), "without effect");
        }
    }

    #[test]
    fn a_guard_is_never_milder_than_the_policy() {
        let mode = |value| Condition::is(2, value);
        let policy = Seccomp::allow_list().default_action(Action::Kill).when("mknodat", [mode(0o644)], Action::Allow);
        assert_eq!(decides(&policy, "mknodat", &[0, 0, 0o644]), Some(Action::Allow));
        assert_eq!(decides(&policy, "mknodat", &[0, 0, 0o4644]), Some(Action::Kill));
        assert_eq!(decides(&Seccomp::new().deny(["openat2"]), "openat2", &[]), Some(DENIED), "the rule is stricter");
    }

    #[test]
    fn set_id_bits_are_allowed_if_requested() {
        let policy = Seccomp::container().allow_set_id_bits();
        for (name, args) in set_id_calls().into_iter().chain([("openat2", vec![])]) {
            assert!(decides(&policy, name, &args).is_none_or(|action| action == Action::Allow), "{name}");
        }
    }
}
