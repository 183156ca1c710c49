//! System calls that kill the sandbox, in any of its processes.

use std::io::{BufRead, BufReader, Write, stderr, stdout};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command as Host, Stdio as Pipe};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, setsid};
use stockade::seccomp::{Action, SystemCall};
use stockade::{Cgroup, Output, Sandbox, Seccomp, Termination};

use crate::seccomp::payloads::told;
use crate::seccomp::{EPERM, among_the_hosts, ended_for, eventually, run, under};
use crate::support::{exists, own_path, text};

payloads![("by", by), ("in-session", in_session)];

const CALL: &str = "mkdirat:cwd,/tmp/forbidden,448";
const NAME: &str = "mkdirat";

fn killing() -> Seccomp {
    Seccomp::new().on([NAME], Action::Kill)
}

fn refusing() -> Seccomp {
    Seccomp::new().deny([NAME])
}

/// Has the call made by someone, and tells what it gave.
fn by(args: &[String]) -> i32 {
    match args[0].as_str() {
        "itself" => println!("{}", told(CALL)),
        "a thread" => println!("{}", std::thread::spawn(|| told(CALL)).join().expect("a thread")),
        "a child" => print!("{}", child(&["calls", CALL])),
        "a grandchild" => print!("{}", child(&["by", "a child"])),
        "a thread of a child" => print!("{}", child(&["by", "a thread"])),
        other => panic!("who is {other}?"),
    }
    0
}

fn child(args: &[&str]) -> String {
    let output = Host::new(own_path()).arg("--payload").args(args).output().expect("a child");
    assert!(output.status.signal().is_none(), "{}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

const MAKERS: [&str; 5] = ["itself", "a thread", "a child", "a grandchild", "a thread of a child"];

/// The sandbox is ended for the call, and nobody lives to tell what it gave.
fn is_ended(output: &Output, by: &str) {
    assert_eq!(ended_for(&output.outcome), NAME, "by {by}");
    assert_eq!(output.outcome.termination, Termination::Syscall(SystemCall::new(libc::SYS_mkdirat as i32)));
    assert_eq!(text(&output.stdout), "", "by {by}");
    let calls: Vec<String> = output.outcome.violations.iter().map(ToString::to_string).collect();
    assert_eq!(calls, ["mkdirat(\"/tmp/forbidden\")"]);
}

fn ends(sandbox: impl Fn(Seccomp) -> Sandbox) {
    for by in MAKERS {
        assert_eq!(text(&run(&sandbox(refusing()), "by", &[by]).stdout), EPERM, "by {by}");
        let output = run(&sandbox(killing()), "by", &[by]);
        is_ended(&output, by);
        assert_eq!(output.outcome.to_string().split(" after").next(), Some("killed for calling mkdirat"));
    }
}

#[apply(test)]
fn a_killing_call_of_any_process_kills_the_sandbox() {
    ends(under);
}

#[apply(test)]
fn a_killing_call_kills_the_sandbox_without_a_pid_namespace() {
    ends(among_the_hosts);
}

#[apply(test)]
#[only(Root)]
fn a_killing_call_kills_the_sandbox_in_a_cgroup() {
    ends(|policy| under(policy).cgroup(Cgroup::new().pids_max(64)));
    ends(|policy| among_the_hosts(policy).cgroup(Cgroup::new().pids_max(64)));
}

/// With two arguments it starts one with the second alone, and ends when that has made its call; that one leaves the
/// session, tells its pid and what the call gave, which itself or a thread of it makes, and stays.
#[allow(clippy::zombie_processes, reason = "it is left behind")]
fn in_session(args: &[String]) -> i32 {
    if args[0] == "start" {
        let mut command = Host::new(own_path());
        command.args(["--payload", "in-session", &args[1]]).stdin(Pipe::null()).stderr(Pipe::piped());
        let mut child = command.spawn().expect("a child");
        let made = BufReader::new(child.stderr.take().expect("a pipe")).lines().next();
        return if made.is_some() { 0 } else { 1 };
    }
    setsid().expect("a session");
    println!("{}", getpid());
    let by_thread = args[0] == "thread";
    let given = if by_thread { std::thread::spawn(|| told(CALL)).join().expect("a thread") } else { told(CALL) };
    // Nobody may read that any more, which is no reason to end.
    let _ = writeln!(stdout(), "{given}").and_then(|()| writeln!(stderr(), "made"));
    std::thread::sleep(Duration::from_secs(30));
    0
}

/// The pid that it told, as the host has it without a pid namespace.
fn pid(output: &Output) -> Pid {
    let said = text(&output.stdout);
    Pid::from_raw(said.lines().next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("a pid: {said:?}")))
}

/// Whether a process lives, and is no zombie that its new parent has not waited for yet.
fn lives(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    exists(format!("/proc/{pid}")) && !status.contains("\nState:\tZ") && status.contains("\nState:")
}

#[apply(test)]
fn processes_that_left_the_session_are_killed_for_their_call() {
    for by in ["itself", "thread"] {
        // Nothing else would end it.
        let output = run(&among_the_hosts(refusing()), "in-session", &["start", by]);
        let left = pid(&output);
        assert!(lives(left), "{}", text(&output.stdout));
        kill(left, Signal::SIGKILL).expect("its end");
        assert_eq!(text(&output.stdout), format!("{left}\n{EPERM}"));

        let output = run(&among_the_hosts(killing()), "in-session", &["start", by]);
        let left = pid(&output);
        eventually("the one that made the call is killed", || !lives(left));
        assert_eq!(text(&output.stdout), left.to_string());
        assert_eq!(ended_for(&output.outcome), NAME);

        let output = run(&under(killing()), "in-session", &["start", by]);
        assert_eq!(ended_for(&output.outcome), NAME);
    }
}

#[apply(test)]
fn a_killing_call_is_not_executed() {
    let place = crate::support::shared_dir();
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
    let sandbox = |policy| {
        let root = crate::support::with_payload(stockade::Root::host());
        under(policy).root(root.with(stockade::mount::Bind::new(place.path(), "/mnt").writable().unmapped()))
    };
    let call = "mkdirat:cwd,/mnt/made,448";
    let ended = run(&sandbox(killing()), "calls", &[call]);
    assert_eq!(ended_for(&ended.outcome), NAME);
    assert!(!exists(place.path().join("made")));
    assert_eq!(text(&run(&sandbox(Seccomp::new()), "calls", &[call]).stdout), "0");
    assert!(exists(place.path().join("made")));
}

/// Who is ended for a call is told from one that ends by the signal of that name.
#[apply(test)]
fn the_kernel_itself_kills_for_no_call() {
    let output = crate::seccomp::shell(killing(), "kill -SYS $$");
    let signal = stockade::Signal::SYS;
    assert!(matches!(output.outcome.termination, Termination::Signaled { signal: it, .. } if it == signal));
    assert_eq!(output.outcome.violations, []);
}
