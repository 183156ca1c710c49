//! System calls whose callback, caller or sandbox exits before the response or responds late, and the resources that
//! the caller keeps.

use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade::seccomp::{Action, Decision};
use stockade::{Limits, Seccomp, Stdio, Termination};

use crate::seccomp::{MS, ended_for, eventually, priority, result, run, shell, silent, succeeded, supervised, under};
use crate::support::{at_most, exists, text};

const ASKED: &str = "getpriority";

fn asking() -> Seccomp {
    Seccomp::new().on([ASKED], Action::Notify)
}

#[apply(test)]
fn a_panicking_callback_denies_the_call_and_the_policy_holds() {
    let calls = ["getpriority:0,0", "getpriority:0,1", "getppid", "getpriority:0,0"];
    let callback = |call: &stockade::seccomp::Notification<'_>| {
        assert_eq!(call.args()[1], 0, "a panic that the test wants");
        Decision::Allow
    };
    let child = supervised(asking().deny(["getppid"]).record(), "calls", &calls, callback);
    let (given, outcome) = succeeded(child);
    assert_eq!(given, [&priority(), "ENOSYS", "EPERM", "ENOSYS"]);
    assert_eq!(outcome.violations.iter().map(|it| it.call.name()).collect::<Vec<_>>(), [Some("getppid")]);
    let killing = asking().on(["getppid"], Action::Kill);
    let output = supervised(killing, "calls", &calls, |_| panic!("a panic that the test wants")).wait_with_output();
    assert_eq!(ended_for(&output.expect("an outcome").outcome), "getppid");
}

#[apply(test)]
fn a_slow_callback_delays_only_its_calls() {
    let start = Instant::now();
    let child = supervised(asking(), "calls", &["getpriority:0,0", "getpgid", "getpriority:0,0"], |_| {
        thread::sleep(300 * MS);
        Decision::Allow
    });
    let (given, _) = succeeded(child);
    assert_eq!((&given[0], &given[2]), (&priority(), &priority()));
    assert!(start.elapsed() >= 600 * MS);
}

#[apply(test)]
fn limits_hold_while_a_callback_decides() {
    let (sender, asked) = mpsc::channel();
    let sandbox = under(asking()).limits(Limits::new().wall_time(at_most(1_000 * MS)));
    let mut command = crate::support::payload("calls");
    command.arg("getpriority:0,0").stdout(Stdio::null());
    let mut child = sandbox
        .spawn_supervised(&command, move |call| {
            sender.send(call.pid().number()).expect("a receiver");
            // It is over by then, whatever is decided.
            eventually("the caller is killed", || {
                call.bytes(0, 0).is_err() || !exists(format!("/proc/{}", call.pid()))
            });
            Decision::Allow
        })
        .expect("a child");
    let outcome = child.wait().expect("an outcome");
    assert_eq!(outcome.termination, Termination::WallTime);
    assert_eq!(asked.iter().count(), 1);
}

#[apply(test)]
fn a_calling_process_that_dies_is_reported_as_gone() {
    let (sender, answers) = mpsc::channel();
    let child = supervised(asking(), "calls", &["getpriority:0,0"], move |call| {
        let pid = Pid::from_raw(call.pid().number() as i32);
        kill(pid, Signal::SIGTERM).expect("a signal that it does not handle");
        // SIGTERM may have ended it.
        assert!(matches!(kill(pid, Signal::SIGKILL), Ok(()) | Err(nix::errno::Errno::ESRCH)));
        eventually("it is gone", || call.string(0).is_err_and(|error| error.to_string().contains("ESRCH")));
        let error = call.bytes(0, 8).expect_err("no memory");
        sender.send(error.to_string()).expect("a receiver");
        Decision::Allow
    });
    let outcome = child.wait_with_output().expect("an outcome").outcome;
    assert!(matches!(outcome.termination, Termination::Signaled { .. }), "{outcome}");
    let said = answers.recv().expect("an answer");
    assert!(
        said.starts_with("failed to read what an argument of a system call points to: ") && said.contains("ESRCH"),
        "{said}"
    );
}

/// Starts a program whose call waits until the second is dropped or sent to; the first gets its pid.
fn held() -> (stockade::Child, mpsc::Receiver<u32>, mpsc::Sender<()>) {
    let ((sender, asked), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let child = supervised(asking(), "calls", &["getpriority:0,0"], move |call| {
        sender.send(call.pid().number()).expect("a receiver");
        let _: Result<(), _> = gone.recv();
        Decision::Allow
    });
    (child, asked, go)
}

#[apply(test)]
fn a_child_can_be_dropped_while_its_call_is_decided() {
    let (child, asked, go) = held();
    let pid = asked.recv().expect("a call");
    assert!(exists(format!("/proc/{pid}")));
    let dropping = thread::spawn(move || drop(child));
    eventually("the program is gone", || !exists(format!("/proc/{pid}")));
    // The callback may use what it has borrowed until it has returned.
    assert!(!dropping.is_finished());
    drop(go);
    dropping.join().expect("the drop");
}

#[apply(test)]
fn a_child_can_be_killed_while_its_call_is_decided() {
    let (mut child, asked, go) = held();
    asked.recv().expect("a call");
    child.kill().expect("its end");
    drop(go);
    assert_eq!(child.wait().expect("an outcome").termination, Termination::Killed);
}

#[apply(test)]
fn refused_calls_are_recorded_with_their_paths_and_counted() {
    let policy = Seccomp::new().deny(["mkdir", "mkdirat", "chdir", "getppid"]).record();
    let calls = [
        "mkdirat:cwd,/tmp/a,448",
        "mkdirat:cwd,/tmp/b,448",
        "getppid:1",
        "mkdirat:cwd,/tmp/a,511",
        "getppid:2",
        "getppid:1",
        "chdir:0",
        "mkdirat:cwd,/tmp/a,448",
    ];
    let output = run(&under(policy), "calls", &calls);
    assert!(text(&output.stdout).lines().all(|line| line == "EPERM"));
    let said: Vec<String> = output.outcome.violations.iter().map(ToString::to_string).collect();
    let none = "0x0, 0x0, 0x0, 0x0, 0x0";
    let expected = [
        "mkdirat(\"/tmp/a\") 3 times".to_owned(),
        "mkdirat(\"/tmp/b\")".into(),
        format!("getppid(0x1, {none}) 2 times"),
        format!("getppid(0x2, {none})"),
        // A pointer that leads nowhere.
        format!("chdir(0x0, {none})"),
    ];
    assert_eq!(said, expected);
    let first = &output.outcome.violations[0];
    assert_eq!((first.path.as_deref(), first.count), (Some("/tmp/a".as_ref()), 3));
    assert_eq!((first.args[0] as i32, first.args[2]), (libc::AT_FDCWD, 448), "those of the first time");
    assert!(format!("{:#}", output.outcome).contains("mkdirat(\"/tmp/a\") 3 times"));
    let json = serde_json::to_string(&output.outcome).expect("JSON");
    assert_eq!(serde_json::from_str::<stockade::Outcome>(&json).expect("an outcome"), output.outcome);
}

/// A program names what it likes, and a report of it is made all the same.
#[apply(test)]
fn paths_that_are_not_text_are_escaped() {
    let policy = Seccomp::deny_list().deny(["mkdir", "mkdirat"]).record();
    let outcome = shell(policy, r"mkdir $(printf '/tmp/a\377\033[2J'); true").outcome;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(b"/tmp/a\xff\x1b[2J"));
    assert_eq!(outcome.violations[0].path.as_deref(), Some(path));
    let json = serde_json::to_string(&outcome).expect("JSON");
    assert!(json.contains(r#""/tmp/a\\xff\u001b[2J""#), "{json}");
    assert_eq!(serde_json::from_str::<stockade::Outcome>(&json).expect("an outcome"), outcome);
    let shown = format!("{outcome:#}");
    assert!(shown.is_ascii() && !shown.contains('\x1b'), "{shown}");
}

#[apply(test)]
fn recorded_violations_are_bounded() {
    let calls = ["mkdir", "mkdirat", "getppid"];
    let output = run(&under(Seccomp::new().deny(calls).record()), "many_calls", &["3000"]);
    assert_eq!(text(&output.stdout), "done");
    let violations = &output.outcome.violations;
    assert_eq!(violations.len(), 1024);
    assert_eq!(violations[0].args, [0; 6]);
    assert_eq!(violations[1023].path.as_deref(), Some("/tmp/511".as_ref()));
    // What the sandbox is ended for stands there still.
    let killing = Seccomp::new().deny(calls).on(["swapon"], Action::Kill).record();
    let output = shell(killing.clone(), "/payload --payload many 3000; /payload --payload calls swapon:/swap");
    assert_eq!(ended_for(&output.outcome), "swapon");
    let last = output.outcome.violations.last().expect("a violation");
    assert_eq!(last.to_string(), "swapon(\"/swap\")");
}

#[apply(test)]
fn violations_are_recorded_only_on_request() {
    let output = run(&under(Seccomp::new().deny(["getppid"])), "calls", &["getppid"]);
    assert_eq!((text(&output.stdout).as_str(), output.outcome.violations), ("EPERM", vec![]));
    assert_eq!(result(Seccomp::new().deny(["getppid"]).record(), "getppid"), "EPERM");
    // Nor what the set-up did, under any policy.
    let sandbox = under(crate::seccomp::computing().record());
    assert_eq!(sandbox.status(silent("true")).expect("an outcome").violations, []);
}
