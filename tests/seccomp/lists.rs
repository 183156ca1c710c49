//! Deny-lists and allow-lists by the names of calls, and which rule counts.

use stockade::{Action, Command, Error, Layer, Sandbox, Seccomp, SystemCall, Termination};

use crate::support::{Test, invalid, sh, stdout, text};
use crate::{EPERM, computing, priority, result, results, run, says, shell, tests, under};

pub const TESTS: &[Test] = tests![
    a_deny_list_refuses_what_it_names,
    a_deny_list_refuses_a_program_by_the_name_of_its_call,
    an_allow_list_refuses_what_it_does_not_name,
    an_empty_allow_list_lets_nothing_run,
    what_is_said_last_of_a_call_counts,
    the_strictest_of_several_rules_counts,
    every_error_number_can_be_given,
    refuse_with_replaces_errors_alone,
    what_is_logged_is_done,
    no_filter_is_none,
    a_program_is_executed_under_a_policy_without_execve_and_no_other_one,
    an_unknown_name_is_an_error_with_the_nearest_one,
    what_no_rule_can_be_is_refused,
    a_filter_holds_for_all_that_is_started,
    a_program_can_not_take_its_filter_off,
];

fn a_deny_list_refuses_what_it_names() {
    let calls = ["getppid", "gettid", "getpgid"];
    assert!(results(Seccomp::deny_list().deny(["mount"]), &calls).iter().all(|it| it.parse::<i64>().is_ok()));
    let [first, second, third] = &results(Seccomp::deny_list().deny(["getppid", "getpgid"]), &calls)[..] else {
        panic!("three results")
    };
    assert_eq!((first.as_str(), third.as_str()), (EPERM, EPERM));
    assert!(second.parse::<i64>().is_ok(), "{second}");
}

fn a_deny_list_refuses_a_program_by_the_name_of_its_call() {
    let script = "mkdir /tmp/dir && rmdir /tmp/dir && echo made; ln -s a /tmp/link && echo linked";
    assert_eq!(stdout(&under(Seccomp::deny_list().deny(["mount"])), script), "made\nlinked");
    let output = shell(Seccomp::deny_list().deny(["mkdir", "mkdirat"]), script);
    assert_eq!(text(&output.stdout), "linked");
    assert!(text(&output.stderr).contains("Operation not permitted"), "{}", text(&output.stderr));
}

fn an_allow_list_refuses_what_it_does_not_name() {
    let calls = ["getpriority:0,0", "sethostname", "uname:0"];
    assert_eq!(results(computing(), &calls), [&priority(), EPERM, "EFAULT"]);
    assert_eq!(results(computing().allow(["sethostname"]), &calls)[1], EPERM, "the kernel refuses it itself");
    assert_eq!(results(computing().deny(["uname"]), &calls), [&priority(), EPERM, EPERM]);
    assert_eq!(result(computing().otherwise(Action::Errno(libc::ENOSYS)), "sethostname"), "ENOSYS");
}

fn an_empty_allow_list_lets_nothing_run() {
    assert!(sh(&under(computing().allow(["execve", "wait4", "clone", "vfork"])), "true").outcome.success());
    // Not even its end: the loader runs into what is no instruction of a program.
    let outcome = shell(Seccomp::allow_list(), "echo ran");
    assert!(outcome.stdout.is_empty());
    assert!(matches!(outcome.outcome.termination, Termination::Signaled { .. }), "{}", outcome.outcome);
    let killed = shell(Seccomp::allow_list().otherwise(Action::Kill), "echo ran").outcome;
    assert!(matches!(killed.termination, Termination::Syscall(_)), "{killed}");
}

fn what_is_said_last_of_a_call_counts() {
    let first = || Seccomp::deny_list().deny(["getppid"]);
    assert_eq!(result(first(), "getppid"), EPERM);
    assert_eq!(result(first().on(["getppid"], Action::Errno(libc::EXDEV)), "getppid"), "EXDEV");
    assert!(result(first().deny(["gettid"]).allow(["getppid"]), "getppid").parse::<i64>().is_ok());
    // Also of rules with conditions.
    let conditional = Seccomp::deny_list().when("getppid", [], Action::Errno(libc::EXDEV)).allow(["getppid"]);
    assert!(result(conditional, "getppid").parse::<i64>().is_ok());
}

fn the_strictest_of_several_rules_counts() {
    let all = [Action::Allow, Action::Log, Action::Errno(0), Action::Errno(libc::EPERM), Action::Errno(libc::EXDEV)];
    let give = ["a pid", "a pid", "0", EPERM, "EXDEV"];
    for (strict, expected) in (0..all.len()).zip(give) {
        let mut rules: Vec<Action> = all[..=strict].to_vec();
        for _ in 0..2 {
            let policy = rules.iter().fold(Seccomp::deny_list(), |policy, &action| policy.when("getppid", [], action));
            let given = result(policy, "getppid");
            assert!(given == expected || strict < 2 && given.parse::<i64>().is_ok(), "{rules:?}: {given}");
            rules.reverse();
        }
    }
    let killing = Seccomp::deny_list().when("getppid", [], Action::Kill).when("getppid", [], Action::Errno(1));
    let outcome = run(&under(killing), "calls", &["getppid"]).outcome;
    assert_eq!(outcome.termination, Termination::Syscall(SystemCall::named("getppid").expect("a call")));
}

fn every_error_number_can_be_given() {
    for (errno, given) in [(0, "0"), (1, EPERM), (libc::ENOSYS, "ENOSYS"), (4095, "error 4095")] {
        assert_eq!(result(Seccomp::deny_list().on(["getppid"], Action::Errno(errno)), "getppid"), given);
        let recorded = Seccomp::deny_list().on(["getppid"], Action::Errno(errno)).record();
        assert_eq!(result(recorded, "getppid"), given, "by the host");
    }
    for errno in [-1, 4096, i32::MIN] {
        let (what, remedy) =
            invalid(&Sandbox::new().seccomp(Seccomp::deny_list().on(["getppid"], Action::Errno(errno))));
        assert_eq!(what, format!("the rule for getppid gives the error number {errno}"));
        assert_eq!(remedy, "error numbers are 0 to 4095 (errno(3))");
    }
}

fn refuse_with_replaces_errors_alone() {
    let policy = Seccomp::deny_list()
        .deny(["getppid"])
        .on(["getpgid"], Action::Log)
        .refuse_with(Action::Errno(libc::EXDEV))
        .deny(["getsid"]);
    let given = results(policy, &["getppid", "getpgid", "getsid", "gettid"]);
    assert_eq!((given[0].as_str(), given[2].as_str()), ("EXDEV", EPERM));
    assert!(given[1].parse::<i64>().is_ok() && given[3].parse::<i64>().is_ok(), "{given:?}");
    // What no rule matches, too.
    assert_eq!(result(computing().refuse_with(Action::Errno(libc::ENOSYS)), "sethostname"), "ENOSYS");
}

fn what_is_logged_is_done() {
    let output =
        run(&under(Seccomp::deny_list().on(["getpriority"], Action::Log).record()), "calls", &["getpriority:0,0"]);
    assert_eq!(text(&output.stdout), priority());
    assert_eq!(output.outcome.violations, []);
}

fn no_filter_is_none() {
    let mode = "sed -n 's/^Seccomp:\\t//p' /proc/self/status";
    let own: String = std::fs::read_to_string("/proc/self/status").expect("own status");
    let own = crate::support::field(&own, "Seccomp");
    let output = sh(&Sandbox::new().seccomp(Seccomp::unconfined()), mode);
    assert_eq!(text(&output.stdout), own, "as in the host");
    assert!(!output.outcome.enforced.has(Layer::Seccomp));
    let output = sh(&Sandbox::new(), mode);
    assert_eq!(text(&output.stdout), "2");
    assert!(output.outcome.enforced.has(Layer::Seccomp));
}

fn a_program_is_executed_under_a_policy_without_execve_and_no_other_one() {
    assert_eq!(says(&under(computing().allow(["execve"])), "exec", &["/bin/echo", "another"]), "another");
    assert_eq!(says(&under(computing()), "exec", &["/bin/echo", "another"]), "Some(EPERM)");
    let outcome = run(&under(Seccomp::pure_computation()), "exec", &["/bin/echo", "another"]).outcome;
    assert_eq!(crate::ended_for(&outcome), "execve");
    let output = run(&under(computing().record()), "exec", &["/bin/echo", "another"]);
    let refused: Vec<String> = output.outcome.violations.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["execve(\"/bin/echo\")"]);
}

fn an_unknown_name_is_an_error_with_the_nearest_one() {
    let policies: [fn(&'static str) -> Seccomp; 3] = [
        |name| Seccomp::new().deny([name]),
        |name| Seccomp::allow_list().allow(["read", name]),
        |name| Seccomp::deny_list().when(name, [], Action::Kill),
    ];
    for (name, nearest) in [("ptrce", "ptrace"), ("mnt", "mmap"), ("OPENAT", "openat"), ("", "bpf")] {
        for policy in policies {
            let Error::Invalid { what, remedy, .. } =
                Sandbox::new().seccomp(policy(name)).plan(Command::new("true")).unwrap_err()
            else {
                panic!("another error")
            };
            assert_eq!(what, format!("there is no system call {name:?}"));
            if nearest == "ptrace" {
                assert_eq!(remedy, format!("the nearest name is {nearest}; the names are those of syscalls(2)"));
            }
        }
    }
}

fn what_no_rule_can_be_is_refused() {
    let condition = |argument| stockade::Condition::new(argument, stockade::Comparison::Equal(1));
    let policy = |argument| Seccomp::deny_list().when("read", [condition(argument)], Action::Log);
    assert!(Sandbox::new().seccomp(policy(5)).status(Command::new("true")).expect("an outcome").success());
    let (what, remedy) = invalid(&Sandbox::new().seccomp(policy(6)));
    assert_eq!(
        (what.as_str(), remedy.as_str()),
        ("a rule for read looks at argument 6", "a system call has arguments 0 to 5")
    );
    let is = |value| stockade::Condition::new(0, stockade::Comparison::Equal(value));
    let calls = ["getppid", "gettid", "getpgid", "getsid", "getpid", "getuid", "getgid", "geteuid", "getegid", "umask"];
    let long = (0..1000).fold(Seccomp::deny_list(), |policy, value| {
        policy.when(calls[value % calls.len()], [is(value as u64)], Action::Errno(1))
    });
    let (what, remedy) = invalid(&Sandbox::new().seccomp(long));
    assert!(what.starts_with("the seccomp policy is a filter of ") && what.ends_with(" instructions"), "{what}");
    assert_eq!(remedy, "the kernel takes 4096: name fewer calls, or fewer conditions");
}

fn a_filter_holds_for_all_that_is_started() {
    let script = "mkdir /tmp/a || (mkdir /tmp/b || setsid sh -c 'mkdir /tmp/c || echo refused')";
    assert_eq!(text(&shell(Seccomp::new(), script).stdout), "");
    assert_eq!(text(&shell(Seccomp::new().deny(["mkdir", "mkdirat"]), script).stdout), "refused");
}

fn a_program_can_not_take_its_filter_off() {
    // What it adds can only refuse more: SECCOMP_SET_MODE_FILTER without a filter, prctl(PR_SET_SECCOMP, 0).
    let calls = ["seccomp:1,0,0", "prctl:22,0,0", "getppid"];
    assert_eq!(results(Seccomp::new().deny(["getppid"]), &calls), ["EFAULT", "EINVAL", EPERM]);
}
