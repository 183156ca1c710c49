//! Programs that fail, are killed, hang, or cannot be executed while they are observed, and sandboxes in which learning
//! is impossible.

use std::time::{Duration, Instant};

use stockade::landlock::FsAccess;
use stockade::seccomp::Action;
use stockade::{Command, ErrorKind, Layer, Limits, Sandbox, Seccomp, Signal, Termination};

use crate::learn::deeds::deeds;
use crate::learn::{at, learn, learn_any, sandbox, shell, succeeds, unless_landlock};
use crate::support::at_most;

#[apply(test)]
fn a_program_that_fails_is_learned_from() {
    let (learned, outcome) = learn_any(&sandbox(), &deeds(&["read /etc/passwd", "read /nowhere", "read /etc/group"]));
    assert_eq!(outcome.termination, Termination::Exited(1));
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
    assert!(!learned.paths.contains_key("/etc/group".as_ref() as &std::path::Path), "it did not come to that");
}

#[apply(test)]
fn a_program_that_dies_is_learned_from() {
    let (learned, outcome) = learn_any(&sandbox(), &shell("read line </etc/passwd; kill -SEGV $$"));
    assert_eq!(outcome.termination, Termination::signaled(Signal::SEGV, false));
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
}

#[apply(test)]
fn a_hanging_program_is_killed_at_its_limit() {
    let begin = Instant::now();
    for script in
        ["read line </etc/passwd; sleep 1000", "read line </etc/passwd; while :; do umask 022 >/dev/null; done"]
    {
        let sandbox = sandbox().limits(Limits::new().wall_time(at_most(Duration::from_millis(500))));
        let (learned, outcome) = learn_any(&sandbox, &shell(script));
        assert_eq!(outcome.termination, Termination::WallTime, "{script}");
        assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
    }
    assert!(begin.elapsed() < at_most(Duration::from_secs(60)), "{:?}", begin.elapsed());
}

#[apply(test)]
fn descendants_are_learned_from_until_the_program_ends() {
    let script = "(read line </etc/passwd; setsid sh -c 'read line </etc/group; sleep 1000' & wait) & sleep 0.5";
    let (learned, outcome) = learn_any(&sandbox(), &shell(script));
    assert!(outcome.success(), "{outcome}");
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
}

#[apply(test)]
fn learning_from_a_missing_program_is_an_error() {
    let error = sandbox().learn(Command::new("/nowhere")).expect_err("no program");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[apply(test)]
fn learning_with_a_notify_policy_is_refused() {
    let sandbox = sandbox().seccomp(Seccomp::new().on(["mkdir"], Action::Notify));
    let error = sandbox.learn(Command::new("/bin/true")).expect_err("two that ask");
    assert!(error.kind() == ErrorKind::InvalidConfiguration && error.to_string().contains("Action::Notify"), "{error}");
}

#[apply(test)]
fn a_killing_policy_kills_while_learning() {
    let policy = Seccomp::new().on(["getpgid"], Action::Kill);
    let (learned, outcome) = learn_any(&sandbox().seccomp(policy), &deeds(&["read /etc/passwd", "group"]));
    let call = stockade::seccomp::SystemCall::named("getpgid").expect("a call");
    assert_eq!(outcome.termination, Termination::Syscall(call));
    assert!(!learned.calls.contains("getpgid") && outcome.violations.iter().any(|violation| violation.call == call));
}

#[apply(test)]
#[skip(unless_landlock)]
fn an_allow_list_is_narrowed() {
    let sandbox = sandbox().seccomp(Seccomp::container());
    let learned = learn(&sandbox, &deeds(&["read /etc/passwd"]));
    succeeds(&learned, &sandbox, &deeds(&["read /etc/passwd"]));
    crate::learn::fails(&learned, &sandbox, &deeds(&["read /etc/passwd", "group"]));
}

#[apply(test)]
fn learning_fails_without_its_filter() {
    let sandbox = sandbox().best_effort([Layer::Seccomp]).seccomp(Seccomp::new().deny(["no_such_call"]));
    // The policy can't be compiled, and there is no way without one.
    assert!(sandbox.learn(Command::new("/bin/true")).is_err());
    let learned = learn(&Sandbox::new().seccomp(Seccomp::unconfined()), &shell("exit 0"));
    assert!(learned.calls.contains("openat"), "{learned}");
}

#[apply(test)]
fn signals_are_delivered_while_calls_are_notified() {
    let script = "trap 'hits=x$hits' USR1
        (for number in $(seq 50); do kill -USR1 $$ 2>/dev/null; done) &
        for number in $(seq 200); do read line </etc/passwd || :; done
        wait
        exit 0";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]);
    let learned = learn(&sandbox(), &shell);
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
}
