//! A policy as text: its `Display` and its stored form.

use stockade::seccomp::{Action, Comparison, Condition};
use stockade::{Command, Layer, Sandbox, Seccomp};

use crate::seccomp::computing;
use crate::support::sh;
use stockade::Errno;

/// One with each thing that a policy can say.
fn of_everything() -> Seccomp {
    let mask = Comparison::masked(3, 1);
    let comparisons = [
        Comparison::Equal(u64::MAX),
        Comparison::NotEqual(0),
        Comparison::Less(1 << 63),
        Comparison::LessOrEqual(2),
        Comparison::Greater(3),
        Comparison::GreaterOrEqual(4),
        mask,
    ];
    let policy = comparisons.into_iter().zip(0..).fold(Seccomp::allow_list(), |policy, (comparison, argument)| {
        policy.when("ioctl", [Condition::qword(argument % 6, comparison), Condition::dword(0, mask)], Action::Allow)
    });
    policy
        .allow(["read", "write"])
        .on(["mkdir"], Action::Notify)
        .on(["rmdir"], Action::Log)
        .on(["chdir"], Action::Errno(Errno::new(0)))
        .on(["ptrace"], Action::Kill)
        .on(["chmod"], Action::Errno(Errno::new(4000)))
        .record()
}

#[apply(test)]
fn every_kind_of_policy_survives_serde() {
    for policy in [
        Seccomp::new(),
        Seccomp::unconfined(),
        Seccomp::allow_list(),
        Seccomp::pure_computation(),
        Seccomp::container(),
        computing().record(),
        of_everything(),
    ] {
        let json = serde_json::to_string(&policy).expect("JSON");
        assert_eq!(serde_json::from_str::<Seccomp>(&json).expect("a policy"), policy, "{json}");
        let sandbox = Sandbox::new().seccomp(policy);
        let json = serde_json::to_string(&sandbox).expect("JSON");
        assert_eq!(serde_json::from_str::<Sandbox>(&json).expect("a sandbox"), sandbox, "{json}");
    }
    for wrong in ["{\"default_action\":\"maybe\"}", "{\"rules\":[{}]}", "{\"denied\":[]}", "7"] {
        assert!(serde_json::from_str::<Seccomp>(wrong).is_err(), "{wrong}");
    }
}

#[apply(test)]
fn a_policy_is_displayed_as_a_summary_and_in_full() {
    assert_eq!(Seccomp::allow_list().to_string(), "0 system calls");
    assert_eq!(Seccomp::deny_list().deny(["mount", "bpf"]).record().to_string(), "all but 2 system calls, recording");
    let policy = Seccomp::allow_list()
        .allow(["read", "write"])
        .on(["mkdir"], Action::Notify)
        .on(["chdir"], Action::Errno(Errno::new(0)))
        .on(["ptrace"], Action::Kill)
        .on(["chmod"], Action::Errno(Errno::new(4000)))
        .on(["rmdir"], Action::Log)
        .when(
            "socket",
            [Condition::dword(0, Comparison::Equal(1)), Condition::qword(2, Comparison::Less(9))],
            Action::Allow,
        )
        .when("ioctl", [Condition::dword(1, Comparison::masked(3, 1))], Action::Errno(Errno::ENOTTY))
        .allow_set_id_bits()
        .allow_huge_pages()
        .record();
    assert_eq!(policy.to_string(), "3 system calls, recording");
    assert_eq!(
        format!("{policy:#}"),
        "read, write: allow\n\
         rmdir: allow and log\n\
         mkdir: ask the caller\n\
         chdir: return 0\n\
         chmod: error 4000\n\
         ptrace: kill the sandbox\n\
         socket if argument 0 as int == 0x1 and argument 2 < 0x9: allow\n\
         ioctl if argument 1 as int & 0x3 == 0x1: ENOTTY\n\
         socket if argument 0 as int == 0x10: EAFNOSUPPORT, unless a rule is stricter\n\
         prlimit64 if argument 0 as int == 0x1 and argument 2 != 0x0: EPERM, unless a rule is stricter\n\
         sched_setaffinity if argument 0 as int == 0x1: EPERM, unless a rule is stricter\n\
         sched_setscheduler if argument 0 as int == 0x1: EPERM, unless a rule is stricter\n\
         sched_setparam if argument 0 as int == 0x1: EPERM, unless a rule is stricter\n\
         sched_setattr if argument 0 as int == 0x1: EPERM, unless a rule is stricter\n\
         setpriority if argument 1 as int == 0x1: EPERM, unless a rule is stricter\n\
         setpriority if argument 0 as int == 0x2: EPERM, unless a rule is stricter\n\
         ioprio_set if argument 1 as int == 0x1: EPERM, unless a rule is stricter\n\
         ioprio_set if argument 0 as int == 0x3: EPERM, unless a rule is stricter\n\
         all others: EPERM\n\
         denied calls are recorded"
    );
    let default = format!("{:#}", Seccomp::new());
    assert!(
        default.contains("\nclone3, io_setup, setxattrat: ENOSYS\n") && default.ends_with("\nall others: allow"),
        "{default}"
    );
    let guards = ["chmod if argument 1 as int & 0x800 == 0x800: EPERM", "openat2: ENOSYS", "shmget if argument 2"];
    assert!(guards.iter().all(|guard| default.contains(&format!("\n{guard}"))), "{default}");
    assert!(!format!("{:#}", Seccomp::unconfined()).contains("openat2"));
}

#[apply(test)]
fn the_plan_and_the_outcome_name_the_policy() {
    let sandbox = Sandbox::new().seccomp(Seccomp::deny_list().deny(["mount", "bpf"]));
    let plan = sandbox.plan(Command::new("true")).expect("a plan").to_string();
    let line = plan.lines().find(|line| line.contains(" seccomp(") && line.contains("<filter")).expect("the call");
    assert!(line.contains("<filter of all but 2 system calls>"), "{line}");
    let outcome = sh(&sandbox, "true").outcome;
    let said = outcome.enforcement.active().find(|active| active.layer == Layer::Seccomp).expect("the layer");
    assert_eq!(said.summary, "all but 2 system calls");
}
