//! Deny-lists and allow-lists by names of calls, and the precedence of rules.

use stockade::seccomp::{Action, SystemCall};
use stockade::{Command, Layer, Sandbox, Seccomp, Termination};

use crate::seccomp::{EPERM, computing, priority, result, results, run, says, shell, under};
use crate::support::{invalid, sh, stdout, text};
use stockade::Errno;
use stockade::ErrorKind;

#[apply(test)]
fn a_deny_list_denies_what_it_names() {
    let calls = ["getppid", "gettid", "getpgid"];
    assert!(results(Seccomp::deny_list().deny(["mount"]), &calls).iter().all(|it| it.parse::<i64>().is_ok()));
    let [first, second, third] = &results(Seccomp::deny_list().deny(["getppid", "getpgid"]), &calls)[..] else {
        panic!("three results")
    };
    assert_eq!((first.as_str(), third.as_str()), (EPERM, EPERM));
    assert!(second.parse::<i64>().is_ok(), "{second}");
}

#[apply(test)]
fn a_deny_list_denies_execve_by_name() {
    let script = "mkdir /tmp/dir && rmdir /tmp/dir && echo made; ln -s a /tmp/link && echo linked";
    assert_eq!(stdout(&under(Seccomp::deny_list().deny(["mount"])), script), "made\nlinked");
    let output = shell(Seccomp::deny_list().deny(["mkdir", "mkdirat"]), script);
    assert_eq!(text(&output.stdout), "linked");
    assert!(text(&output.stderr).contains("Operation not permitted"), "{}", text(&output.stderr));
}

#[apply(test)]
fn an_allow_list_denies_what_it_does_not_name() {
    let calls = ["getpriority:0,0", "sethostname", "uname:0"];
    assert_eq!(results(computing(), &calls), [&priority(), EPERM, "EFAULT"]);
    assert_eq!(results(computing().allow(["sethostname"]), &calls)[1], EPERM, "the kernel refuses it itself");
    assert_eq!(results(computing().deny(["uname"]), &calls), [&priority(), EPERM, EPERM]);
    assert_eq!(result(computing().default_action(Action::Errno(Errno::ENOSYS)), "sethostname"), "ENOSYS");
}

#[apply(test)]
fn an_empty_allow_list_lets_nothing_run() {
    assert!(sh(&under(computing().allow(["execve", "wait4", "clone", "vfork"])), "true").outcome.success());
    // Not even its end: the loader runs into what is no instruction of a program.
    let outcome = shell(Seccomp::allow_list(), "echo ran");
    assert!(outcome.stdout.is_empty());
    assert!(matches!(outcome.outcome.termination, Termination::Signaled { .. }), "{}", outcome.outcome);
    let killed = shell(Seccomp::allow_list().default_action(Action::Kill), "echo ran").outcome;
    assert!(matches!(killed.termination, Termination::Syscall(_)), "{killed}");
}

#[apply(test)]
fn the_last_rule_of_a_call_counts() {
    let first = || Seccomp::deny_list().deny(["getppid"]);
    assert_eq!(result(first(), "getppid"), EPERM);
    assert_eq!(result(first().on(["getppid"], Action::Errno(Errno::EXDEV)), "getppid"), "EXDEV");
    assert!(result(first().deny(["gettid"]).allow(["getppid"]), "getppid").parse::<i64>().is_ok());
    // Also of rules with conditions.
    let conditional = Seccomp::deny_list().when("getppid", [], Action::Errno(Errno::EXDEV)).allow(["getppid"]);
    assert!(result(conditional, "getppid").parse::<i64>().is_ok());
}

#[apply(test)]
fn the_strictest_of_several_rules_counts() {
    let all = [
        Action::Allow,
        Action::Log,
        Action::Errno(Errno::new(0)),
        Action::Errno(Errno::EPERM),
        Action::Errno(Errno::EXDEV),
    ];
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
    let killing =
        Seccomp::deny_list().when("getppid", [], Action::Kill).when("getppid", [], Action::Errno(Errno::new(1)));
    let outcome = run(&under(killing), "calls", &["getppid"]).outcome;
    assert_eq!(outcome.termination, Termination::Syscall(SystemCall::named("getppid").expect("a call")));
}

#[apply(test)]
fn calls_fail_with_every_error_number() {
    for (errno, given) in [(0, "0"), (1, EPERM), (libc::ENOSYS, "ENOSYS"), (4095, "error 4095")] {
        assert_eq!(result(Seccomp::deny_list().on(["getppid"], Action::Errno(Errno::new(errno))), "getppid"), given);
        let recorded = Seccomp::deny_list().on(["getppid"], Action::Errno(Errno::new(errno))).record();
        assert_eq!(result(recorded, "getppid"), given, "by the supervisor");
    }
    for errno in [-1, 4096, i32::MIN] {
        let (what, remedy) =
            invalid(&Sandbox::new().seccomp(Seccomp::deny_list().on(["getppid"], Action::Errno(Errno::new(errno)))));
        assert_eq!(what, format!("the seccomp rule for getppid has the error number {errno}"));
        assert_eq!(remedy, "use an error number from 0 to 4095 (errno(3))");
    }
}

#[apply(test)]
fn deny_with_replaces_only_errors() {
    let policy = Seccomp::deny_list()
        .deny(["getppid"])
        .on(["getpgid"], Action::Log)
        .deny_with(Action::Errno(Errno::EXDEV))
        .deny(["getsid"]);
    let given = results(policy, &["getppid", "getpgid", "getsid", "gettid"]);
    assert_eq!((given[0].as_str(), given[2].as_str()), ("EXDEV", EPERM));
    assert!(given[1].parse::<i64>().is_ok() && given[3].parse::<i64>().is_ok(), "{given:?}");
    // What no rule matches, too.
    assert_eq!(result(computing().deny_with(Action::Errno(Errno::ENOSYS)), "sethostname"), "ENOSYS");
}

#[apply(test)]
fn logged_calls_are_executed() {
    let output =
        run(&under(Seccomp::deny_list().on(["getpriority"], Action::Log).record()), "calls", &["getpriority:0,0"]);
    assert_eq!(text(&output.stdout), priority());
    assert_eq!(output.outcome.violations, []);
}

#[apply(test)]
fn no_filter_is_installed_when_unconfined() {
    let mode = "sed -n 's/^Seccomp:\\t//p' /proc/self/status";
    let own: String = std::fs::read_to_string("/proc/self/status").expect("own status");
    let own = crate::support::field(&own, "Seccomp");
    let output = sh(&Sandbox::new().seccomp(Seccomp::unconfined()), mode);
    assert_eq!(text(&output.stdout), own, "as in the caller");
    assert!(!output.outcome.enforcement.is_active(Layer::Seccomp));
    let output = sh(&Sandbox::new(), mode);
    assert_eq!(text(&output.stdout), "2");
    assert!(output.outcome.enforcement.is_active(Layer::Seccomp));
}

#[apply(test)]
fn only_the_first_execve_is_allowed_by_a_policy_without_execve() {
    assert_eq!(says(&under(computing().allow(["execve"])), "exec", &["/bin/echo", "another"]), "another");
    assert_eq!(says(&under(computing()), "exec", &["/bin/echo", "another"]), "Some(EPERM)");
    let outcome = run(&under(Seccomp::pure_computation()), "exec", &["/bin/echo", "another"]).outcome;
    assert_eq!(crate::seccomp::ended_for(&outcome), "execve");
    let output = run(&under(computing().record()), "exec", &["/bin/echo", "another"]);
    let refused: Vec<String> = output.outcome.violations.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["execve(\"/bin/echo\")"]);
}

#[apply(test)]
fn the_error_of_an_unknown_call_suggests_the_nearest() {
    let policies: [fn(&'static str) -> Seccomp; 3] = [
        |name| Seccomp::new().deny([name]),
        |name| Seccomp::allow_list().allow(["read", name]),
        |name| Seccomp::deny_list().when(name, [], Action::Kill),
    ];
    for (name, nearest) in [("ptrce", "ptrace"), ("mnt", "mmap"), ("OPENAT", "openat"), ("", "bpf")] {
        for policy in policies {
            let error = Sandbox::new().seccomp(policy(name)).plan(Command::new("true")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
            let (what, remedy) = crate::support::words(&error);
            assert_eq!(what, format!("the seccomp policy names an unknown system call: {name:?}"));
            if nearest == "ptrace" {
                assert_eq!(remedy, format!("use a name of syscalls(2), such as {nearest}"));
            }
        }
    }
}

#[apply(test)]
fn invalid_rules_are_refused() {
    let condition = |argument| stockade::seccomp::Condition::qword(argument, stockade::seccomp::Comparison::Equal(1));
    let policy = |argument| Seccomp::deny_list().when("read", [condition(argument)], Action::Log);
    assert!(Sandbox::new().seccomp(policy(5)).status(Command::new("true")).expect("an outcome").success());
    let (what, remedy) = invalid(&Sandbox::new().seccomp(policy(6)));
    assert_eq!(
        (what.as_str(), remedy.as_str()),
        ("the seccomp rule for read has a condition on argument 6", "use an argument from 0 to 5")
    );
    let is = |value| stockade::seccomp::Condition::qword(0, stockade::seccomp::Comparison::Equal(value));
    let calls = ["getppid", "gettid", "getpgid", "getsid", "getpid", "getuid", "getgid", "geteuid", "getegid", "umask"];
    let long = (0..1000).fold(Seccomp::deny_list(), |policy, value| {
        policy.when(calls[value % calls.len()], [is(value as u64)], Action::Errno(Errno::new(1)))
    });
    let (what, remedy) = invalid(&Sandbox::new().seccomp(long));
    assert!(
        what.starts_with("the seccomp filter has ") && what.ends_with(" instructions, and the kernel allows 4096"),
        "{what}"
    );
    assert_eq!(remedy, "use fewer rules, or fewer conditions");
}

#[apply(test)]
fn a_filter_holds_for_all_that_is_started() {
    let script = "mkdir /tmp/a || (mkdir /tmp/b || setsid sh -c 'mkdir /tmp/c || echo refused')";
    assert_eq!(text(&shell(Seccomp::new(), script).stdout), "");
    assert_eq!(text(&shell(Seccomp::new().deny(["mkdir", "mkdirat"]), script).stdout), "refused");
}

#[apply(test)]
fn a_program_cannot_remove_its_filter() {
    // What it adds can only refuse more: SECCOMP_SET_MODE_FILTER without a filter, prctl(PR_SET_SECCOMP, 0).
    let calls = ["seccomp:1,0,0", "prctl:22,0,0", "getppid"];
    assert_eq!(results(Seccomp::new().deny(["getppid"]), &calls), ["EFAULT", "EINVAL", EPERM]);
}
