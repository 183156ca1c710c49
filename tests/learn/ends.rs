//! Programs that fail, die, hang, or are never run while they are learned from, and sandboxes in which nothing can be
//! learned.

use std::time::{Duration, Instant};

use stockade::{Action, Command, Error, FsAccess, Layer, Limits, Sandbox, Seccomp, Signal, Termination};

use crate::deeds::deeds;
use crate::support::{Test, at_most};
use crate::{at, learn, learn_any, sandbox, shell, succeeds, unless_landlock};

pub const TESTS: &[Test] = crate::tests![
    a_program_that_fails_is_learned_from,
    a_program_that_dies_is_learned_from,
    a_program_that_hangs_ends_at_its_limit,
    descendants_are_learned_from_until_the_program_ends,
    a_program_that_is_not_there_is_an_error,
    a_policy_that_asks_is_refused,
    a_policy_that_kills_does_so,
    an_allow_list_is_narrowed if unless_landlock,
    learning_never_does_without_its_filter,
    signals_come_while_calls_are_heard,
];

fn a_program_that_fails_is_learned_from() {
    let (learned, outcome) = learn_any(&sandbox(), &deeds(&["read /etc/passwd", "read /nowhere", "read /etc/group"]));
    assert_eq!(outcome.termination, Termination::Exited(1));
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
    assert!(!learned.paths.contains_key("/etc/group".as_ref() as &std::path::Path), "it did not come to that");
}

fn a_program_that_dies_is_learned_from() {
    let (learned, outcome) = learn_any(&sandbox(), &shell("read line </etc/passwd; kill -SEGV $$"));
    assert_eq!(outcome.termination, Termination::Signaled { signal: Signal(libc::SIGSEGV), core: false });
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
}

fn a_program_that_hangs_ends_at_its_limit() {
    let begin = Instant::now();
    for script in
        ["read line </etc/passwd; sleep 1000", "read line </etc/passwd; while :; do umask 022 >/dev/null; done"]
    {
        let sandbox = sandbox().limits(Limits::new().wall(at_most(Duration::from_millis(500))));
        let (learned, outcome) = learn_any(&sandbox, &shell(script));
        assert_eq!(outcome.termination, Termination::WallTime, "{script}");
        assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
    }
    assert!(begin.elapsed() < at_most(Duration::from_secs(60)), "{:?}", begin.elapsed());
}

fn descendants_are_learned_from_until_the_program_ends() {
    let script = "(read line </etc/passwd; setsid sh -c 'read line </etc/group; sleep 1000' & wait) & sleep 0.5";
    let (learned, outcome) = learn_any(&sandbox(), &shell(script));
    assert!(outcome.success(), "{outcome}");
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
}

fn a_program_that_is_not_there_is_an_error() {
    let error = sandbox().learn(Command::new("/nowhere")).expect_err("no program");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

fn a_policy_that_asks_is_refused() {
    let sandbox = sandbox().seccomp(Seccomp::new().on(["mkdir"], Action::Notify));
    let error = sandbox.learn(Command::new("/bin/true")).expect_err("two that ask");
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("Action::Notify"), "{error}");
}

fn a_policy_that_kills_does_so() {
    let policy = Seccomp::new().on(["getpgid"], Action::Kill);
    let (learned, outcome) = learn_any(&sandbox().seccomp(policy), &deeds(&["read /etc/passwd", "group"]));
    let call = stockade::SystemCall::named("getpgid").expect("a call");
    assert_eq!(outcome.termination, Termination::Syscall(call));
    assert!(!learned.calls.contains("getpgid") && outcome.violations.iter().any(|violation| violation.call == call));
}

fn an_allow_list_is_narrowed() {
    let sandbox = sandbox().seccomp(Seccomp::container());
    let learned = learn(&sandbox, &deeds(&["read /etc/passwd"]));
    succeeds(&learned, &sandbox, &deeds(&["read /etc/passwd"]));
    crate::fails(&learned, &sandbox, &deeds(&["read /etc/passwd", "group"]));
}

fn learning_never_does_without_its_filter() {
    let sandbox = sandbox().best_effort([Layer::Seccomp]).seccomp(Seccomp::new().deny(["no_such_call"]));
    // The policy can't be compiled, and there is no way without one.
    assert!(sandbox.learn(Command::new("/bin/true")).is_err());
    let learned = learn(&Sandbox::new().seccomp(Seccomp::unconfined()), &shell("exit 0"));
    assert!(learned.calls.contains("openat"), "{learned}");
}

fn signals_come_while_calls_are_heard() {
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
