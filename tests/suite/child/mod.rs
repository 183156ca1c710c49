//! A running program and its caller: waiting, output, signals, killing all of its processes, and its usage.

mod killer;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command as Host;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::{
    self, NAMESPACES, at_most, eventually, field, on_host, payload, rounds, slowness, text, with_payload,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade::identity::IdRange;
use stockade::namespaces::NamespaceRef;
use stockade::{Child, Command, Identity, Namespaces, Outcome, Root, Sandbox, Signal, Stdio, Termination};

payloads![("abort", abort), ("busy", busy), ("big", big_caller)];

/// A shell that runs a script.
fn script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn spawn(script_text: &str) -> Child {
    Sandbox::new().spawn(script(script_text).stdin(Stdio::null()).stdout(Stdio::piped())).unwrap()
}

/// Waits until the program has written a line, and gives that.
fn line(child: &mut Child) -> String {
    let mut line = vec![];
    let mut byte = [0];
    let stdout = child.stdout.as_mut().unwrap();
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    text(&line)
}

fn signaled(signal: i32) -> Termination {
    Termination::signaled(Signal::new(signal).expect("a signal"), false)
}

/// What a process of the host is doing (proc(5)): `Z` is a zombie, nothing is gone.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Waits until `done` holds, at most 10 seconds.
#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < at_most(Duration::from_secs(10)), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An argument of `sleep` that no other process of the host has.
fn marker() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("86400.{}{count:03}", std::process::id())
}

/// A script that starts children in the background, in sessions of their own and orphaned, and says so once they run.
fn tree(marker: &str) -> String {
    format!(
        "sleep {marker} & setsid sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) & \
         (trap '' TERM HUP INT; (sleep {marker} & sleep {marker}) &) & \
         until [ $(grep -lsz '^sleep$' /proc/[0-9]*/cmdline | wc -l) = 6 ]; do :; done; echo ready; "
    )
}

/// The processes of a tree: six that sleep, and none that run a script.
fn sleepers(marker: &str) -> Vec<i32> {
    support::processes(|line| line.starts_with(&format!("sleep {marker}")))
}

#[apply(test)]
fn every_exit_code_is_reported() {
    let plan = |code| Sandbox::new().plan(script(&format!("exit {code}"))).unwrap();
    for code in (0..=255).rev().step_by(slowness() as usize) {
        let outcome = plan(code).spawn().unwrap().wait().unwrap();
        assert_eq!(outcome.termination, Termination::Exited(code));
        assert_eq!((outcome.success(), outcome.termination.code()), (code == 0, Some(code)));
    }
}

#[apply(test)]
fn the_terminating_signal_is_reported() {
    let named = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGKILL,
        libc::SIGUSR1,
        libc::SIGSEGV,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGSYS,
    ];
    for signal in named.into_iter().chain([40, 64]) {
        let outcome = Sandbox::new().status(script(&format!("kill -{signal} $$; exit 99"))).unwrap();
        assert_eq!(outcome.termination, signaled(signal), "core dumps are off");
        assert_eq!((outcome.success(), outcome.termination.code()), (false, None));
    }
    assert_eq!(signaled(libc::SIGTERM).to_string(), "killed by SIGTERM");
    assert_eq!(signaled(40).to_string(), "killed by SIGRTMIN+6");
}

fn abort(_: &[String]) -> i32 {
    std::process::abort()
}

#[apply(test)]
fn abort_ends_by_sigabrt() {
    let sandbox = Sandbox::new().root(with_payload(Root::host()));
    assert_eq!(sandbox.status(payload("abort")).unwrap().termination, signaled(libc::SIGABRT));
    // A child of the program, which is not PID 1 either.
    assert_eq!(text(&support::sh(&Sandbox::new(), "(sh -c 'kill -ABRT $$') 2>/dev/null; echo $?").stdout), "134");
}

#[apply(test)]
fn a_program_that_kills_itself_is_not_reported_as_killed() {
    assert_eq!(Sandbox::new().status(script("kill -KILL $$")).unwrap().termination, signaled(libc::SIGKILL));
    let child = spawn("kill -KILL $$");
    until("its end", || ended(&child));
    assert_eq!(child.wait_with_output().unwrap().outcome.termination, signaled(libc::SIGKILL));
}

fn ended(child: &Child) -> bool {
    poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
}

#[apply(test)]
fn waiting_twice_returns_the_same_outcome() {
    let mut child = spawn("exit 7");
    let outcome = child.wait().unwrap();
    assert_eq!(outcome.termination, Termination::Exited(7));
    assert_eq!(child.wait().unwrap(), outcome);
    assert_eq!(child.try_wait().unwrap(), Some(outcome.clone()));
    child.kill().unwrap();
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap(), outcome);
    assert_eq!(child.wait_with_output().unwrap().outcome, outcome);
}

#[apply(test)]
fn try_wait_does_not_wait() {
    let mut child = Sandbox::new().spawn(Command::new("cat").stdin(Stdio::piped())).unwrap();
    for _ in 0..100 {
        assert_eq!(child.try_wait().unwrap(), None);
    }
    assert!(child.stdin.is_some(), "its input is still open");
    drop(child.stdin.take());
    let mut told = None;
    until("its end", || ended(&child));
    while told.is_none() {
        told = child.try_wait().unwrap();
    }
    assert!(told.unwrap().success());
}

#[apply(test)]
fn the_id_is_the_pid_on_the_host() {
    let mut child = spawn("echo $$; exec sleep 1000");
    let inside: i32 = line(&mut child).parse().unwrap();
    let id = child.pid().number() as i32;
    assert!(inside > 1, "it is not the init of the sandbox: {inside}");
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    assert_eq!(field(&status, "NSpid"), format!("{id}\t{inside}"));
    assert_eq!(field(&status, "PPid"), std::process::id().to_string(), "it is the caller's own child");
    drop(child);
    assert_eq!(state(id), None, "it is reaped");
}

#[apply(test)]
fn the_pidfd_becomes_readable_on_exit() {
    let mut child = Sandbox::new().spawn(Command::new("cat").stdin(Stdio::piped())).unwrap();
    assert!(!ended(&child));
    drop(child.stdin.take());
    let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 10_000u16), Ok(1));
    assert_eq!(child.try_wait().unwrap().map(|outcome| outcome.success()), Some(true));
}

#[apply(test)]
fn kill_terminates_the_program() {
    let mut child = spawn("trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done");
    line(&mut child);
    child.kill().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    assert_eq!(Termination::Killed.to_string(), "killed by the caller");
}

#[apply(test)]
fn kill_after_exit_changes_nothing() {
    let mut child = spawn("exit 9");
    until("its end", || ended(&child));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(9));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(9));
}

/// The program's user is not the caller's: a kill(2) of the caller's user alone would not reach it.
fn kill_of_another(identity: Identity, uid: u32) {
    let marker = marker();
    let sandbox = Sandbox::new().identity(identity);
    for explicitly in [true, false] {
        let mut child = sandbox.spawn(script(&(tree(&marker) + "wait")).stdout(Stdio::piped())).unwrap();
        line(&mut child);
        let status = fs::read_to_string(format!("/proc/{}/status", child.pid().number())).unwrap();
        assert_eq!(field(&status, "Uid").split('\t').next(), Some(uid.to_string().as_str()));
        assert_eq!(sleepers(&marker).len(), 6);
        if explicitly {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().termination, Termination::Killed);
        }
        drop(child);
        assert_eq!(sleepers(&marker), [0; 0]);
    }
}

#[apply(test)]
#[only(Root)]
fn kill_reaches_a_program_of_another_user() {
    let range = |outside| [IdRange::new(5, outside, 1)];
    kill_of_another(Identity::new().maps(range(54_321), range(54_321)), 54_321);
}

/// The first sub-ids of this user, of users and of groups.
fn sub_ids() -> Option<[u32; 2]> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    let first = |file| {
        let text = fs::read_to_string(file).ok()?;
        let mut fields = text.lines().map(|line| line.split(':'));
        fields.find_map(|mut line| (line.next()? == user.name).then(|| line.next()?.parse::<u32>().ok())?)
    };
    Some([first("/etc/subuid")?, first("/etc/subgid")?])
}

fn unless_user_with_sub_ids() -> Option<String> {
    let helper = Path::new("/usr/bin/newuidmap").exists();
    support::unless_user().or_else(|| (!helper || sub_ids().is_none()).then(|| "it takes newuidmap and sub-ids".into()))
}

#[apply(test)]
#[only(User)]
#[skip(unless_user_with_sub_ids)]
fn kill_reaches_a_program_of_a_sub_id() {
    let [uid, gid] = sub_ids().unwrap();
    let range = |outside| [IdRange::new(5, outside, 1)];
    kill_of_another(Identity::new().maps(range(uid), range(gid)), uid);
}

#[apply(test)]
fn signals_reach_the_program() {
    let mut child = spawn("trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.01; done");
    line(&mut child);
    child.signal(Signal::TERM).unwrap();
    assert_eq!(line(&mut child), "caught");
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(4));
    let mut child = spawn("echo ready; exec sleep 1000");
    line(&mut child);
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().termination, signaled(libc::SIGTERM), "it was asked, not killed");
    let mut child = spawn("echo ready; exec sleep 1000");
    line(&mut child);
    child.signal(Signal::KILL).unwrap();
    assert!(matches!(child.wait().unwrap().termination, Termination::Signaled { signal: Signal::KILL, .. }));
}

fn stopped(script: &str) -> Child {
    let mut child = spawn(script);
    line(&mut child);
    child.signal(Signal::STOP).unwrap();
    let id = child.pid().number() as i32;
    until("it is stopped", || state(id) == Some('T'));
    assert_eq!(child.try_wait().unwrap(), None, "a stop is no end");
    child
}

#[apply(test)]
fn a_stopped_program_continues() {
    let mut child = stopped(&format!(
        "echo ready; until [ -e /tmp/never ] || [ $((n += 1)) = {} ]; do sleep 0.001; done; exit 6",
        rounds(1000)
    ));
    child.signal(Signal::CONT).unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(6));
}

#[apply(test)]
fn a_stopped_program_can_be_killed() {
    let mut child = stopped("echo ready; exec sleep 1000");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    // One that stops itself, and is dropped.
    let mut child = spawn("echo ready; kill -STOP $$");
    line(&mut child);
    let id = child.pid().number() as i32;
    until("it is stopped", || state(id) == Some('T'));
    drop(child);
    assert_eq!(state(id), None);
}

#[apply(test)]
fn an_invalid_signal_number_is_an_error() {
    for number in [-1, 0, 65, 1000] {
        assert_eq!(Signal::new(number), None, "{number}");
    }
    for number in 1..=64 {
        assert_eq!(Signal::new(number).expect("a signal").number(), number);
    }
}

#[apply(test)]
fn dropping_the_child_kills_the_tree() {
    let marker = marker();
    // Without a sandbox the tree outlives its first process.
    let before = Host::new("sh").args(["-c", &format!("setsid sleep {marker} &")]).status().unwrap();
    assert!(before.success());
    until("the daemon of the host runs", || !sleepers(&marker).is_empty());
    for pid in sleepers(&marker) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    }
    until("the daemon of the host is gone", || sleepers(&marker).is_empty());

    let mut child = spawn(&(tree(&marker) + "wait"));
    line(&mut child);
    assert_eq!(sleepers(&marker).len(), 6);
    let id = child.pid().number() as i32;
    drop(child);
    assert_eq!(sleepers(&marker), [0; 0], "none is left when drop returns");
    assert_eq!(state(id), None, "the program is reaped");
}

#[apply(test)]
fn the_exit_of_the_program_kills_its_descendants() {
    let marker = marker();
    let mut child = spawn(&(tree(&marker) + "exit 3"));
    line(&mut child);
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(3));
    assert_eq!(sleepers(&marker), [0; 0], "none is left when wait returns");
}

/// Time from the last word of a program, which leaves a process behind, to the end of its output. Nobody waits for it.
fn time_to_the_end(mut stdout: impl Read) -> Duration {
    let mut said = [0; 5];
    stdout.read_exact(&mut said).expect("the program's last word");
    assert_eq!(&said, b"done\n");
    let start = Instant::now();
    assert_eq!(stdout.read(&mut said).expect("the end of the pipe"), 0);
    start.elapsed()
}

/// 50 ms, and what it takes to be woken by a busy machine.
fn is_soon(time: Duration) {
    assert!(time < at_most(Duration::from_millis(150)), "{time:?}");
}

#[apply(test)]
fn the_exit_of_the_program_kills_its_descendants_without_a_wait() {
    const SCRIPT: &str = "sleep 1 & setsid sleep 1 & echo done";
    let mut bare = Host::new("/bin/sh").args(["-c", SCRIPT]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let time = time_to_the_end(bare.stdout.take().unwrap());
    assert!(time > Duration::from_millis(900), "without a sandbox who is left holds the pipe: {time:?}");
    bare.wait().unwrap();

    let marker = marker();
    let mut child = spawn(&format!("sleep {marker} & setsid sleep {marker} & echo done"));
    is_soon(time_to_the_end(child.stdout.take().unwrap()));
    until("nobody is left", || sleepers(&marker).is_empty());
    assert_eq!(state(child.pid().number() as i32), Some('Z'), "the status is still the caller's");
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(0));
}

/// A signal to the group of a process whose number may be another's by now.
fn unless_groups_are_signaled() -> Option<String> {
    (support::kernel() < (6, 9)).then(|| "a helper can signal a process group by a pidfd since Linux 6.9".into())
}

#[apply(test)]
#[skip(unless_groups_are_signaled)]
fn without_a_pid_namespace_the_exit_of_the_program_kills_its_process_group() {
    let marker = marker();
    for namespaces in [Namespaces::all() - Namespaces::TIME - Namespaces::PID, Namespaces::empty()] {
        let sandbox = Sandbox::new().namespaces(namespaces).root(Root::inherit());
        let script_text = format!("sleep {marker} & echo done");
        let mut child = sandbox.spawn(script(&script_text).stdout(Stdio::piped())).unwrap();
        is_soon(time_to_the_end(child.stdout.take().unwrap()));
        until("nobody is left", || sleepers(&marker).is_empty());
        assert_eq!(child.wait().unwrap().termination, Termination::Exited(0));
    }
}

#[apply(test)]
fn dropping_the_child_without_a_pid_namespace_kills_the_program() {
    let marker = marker();
    for namespaces in [Namespaces::all() - Namespaces::TIME - Namespaces::PID, Namespaces::empty()] {
        let sandbox = Sandbox::new().namespaces(namespaces).root(Root::inherit());
        let script_text = format!("sleep {marker} & echo ready; exec sleep {marker}");
        let mut child = sandbox.spawn(script(&script_text).stdout(Stdio::piped())).unwrap();
        line(&mut child);
        until("both run", || sleepers(&marker).len() == 2);
        let id = child.pid().number() as i32;
        drop(child);
        assert_eq!(state(id), None);
        until("its process group is gone", || sleepers(&marker).is_empty());
    }
}

#[apply(test)]
fn output_of_any_size_is_collected_from_both_pipes_at_once() {
    // 10 MB on each, in turns that a reader of one pipe after the other would wait for forever.
    let both =
        "n=0; while [ $n -lt 10 ]; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; n=$((n+1)); done";
    let output = Sandbox::new().output(script(both)).unwrap();
    assert!(output.outcome.success());
    assert_eq!((output.stdout.len(), output.stderr.len()), (10_000_000, 10_000_000));
    let one = "head -c 10000000 /dev/zero >&2; exec 2>&-; head -c 10000000 /dev/zero";
    let output = Sandbox::new().output(script(one)).unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (10_000_000, 10_000_000));
    // A stream that was taken is not collected.
    let mut child = spawn("echo taken");
    let mut stdout = child.stdout.take().unwrap();
    assert!(child.wait_with_output().unwrap().stdout.is_empty());
    let mut taken = String::new();
    stdout.read_to_string(&mut taken).unwrap();
    assert_eq!(taken, "taken\n", "what was written is there after the end");
}

/// The output of a script, which must be had within 10 seconds.
fn output_soon(sandbox: Sandbox, text: &'static str) -> stockade::Output {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let output = sandbox.output(script(text)).unwrap();
        // Nobody listens any more if it took too long.
        let _ = sender.send(output);
    });
    receiver.recv_timeout(at_most(Duration::from_secs(10))).expect("a background process is not waited for")
}

#[apply(test)]
fn a_background_process_that_holds_the_pipes_is_not_waited_for() {
    let started = Instant::now();
    let output = Host::new("sh").args(["-c", "sleep 0.5 & echo done"]).output().unwrap();
    assert!(output.status.success() && started.elapsed() >= Duration::from_millis(500), "std::process waits for it");
    let output = output_soon(Sandbox::new(), "sleep 1000 & setsid sleep 1000 & echo done; echo err >&2");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("done".into(), "err".into()));
    let without = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    let output = output_soon(without, "sleep 1000 & echo done");
    assert_eq!(text(&output.stdout), "done");
}

#[apply(test)]
fn a_background_process_that_floods_the_pipes_is_not_waited_for() {
    let output = output_soon(Sandbox::new(), "setsid cat /dev/zero & setsid cat /dev/zero >&2 & sleep 0.01; exit 5");
    assert_eq!(output.outcome.termination, Termination::Exited(5));
}

#[apply(test)]
fn without_a_pid_namespace_output_of_leaked_processes_is_not_waited_for() {
    let sandbox = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    // It leaves the process group, and ends by SIGPIPE when the caller has closed its end.
    let output = output_soon(sandbox, "setsid cat /dev/zero & sleep 0.01; exit 5");
    assert_eq!(output.outcome.termination, Termination::Exited(5));
}

#[apply(test)]
fn a_child_can_be_waited_for_by_another_thread() {
    fn anywhere<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let mut child = anywhere(spawn("exit 8"));
    let outcome: Outcome = std::thread::spawn(move || child.wait().unwrap()).join().unwrap();
    assert_eq!(outcome.termination, Termination::Exited(8));
    // A signal from one thread while another looks after it.
    let child = spawn("exec sleep 1000");
    std::thread::scope(|scope| {
        scope.spawn(|| child.signal(Signal::TERM).unwrap());
        scope.spawn(|| until("its end", || ended(&child)));
    });
    assert_eq!(child.wait_with_output().unwrap().outcome.termination, signaled(libc::SIGTERM));
}

/// A program that asks to be killed with whoever has started it, as other crates ask in its place (prctl(2),
/// `PR_SET_PDEATHSIG`): that is the thread.
fn started_to_die_with_the_thread() -> std::process::Child {
    let program = Host::new("setpriv").args(["--pdeathsig", "KILL", "sleep", "1000"]).spawn().expect("setpriv");
    let name = format!("/proc/{}/comm", program.id());
    eventually("it runs", || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n"));
    program
}

#[apply(test)]
fn the_program_survives_the_thread_that_started_it() {
    let mut dies = std::thread::spawn(started_to_die_with_the_thread).join().unwrap();
    assert_eq!(dies.wait().unwrap().signal(), Some(libc::SIGKILL));

    let thread = std::thread::spawn(|| {
        let mut command = Command::new("cat");
        Sandbox::new().spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap()
    });
    let mut child = thread.join().unwrap();
    let mut buffer = [0; 5];
    for word in ["still", "alive", "there"] {
        assert_eq!(child.try_wait().unwrap(), None);
        child.stdin.as_mut().unwrap().write_all(word.as_bytes()).unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, word.as_bytes());
    }
    assert!(child.wait().unwrap().success());
}

/// CPU time of the calling thread so far.
fn own_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("scheduler statistics");
    Duration::from_nanos(stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

/// Uses this many milliseconds of CPU time.
fn busy(args: &[String]) -> i32 {
    let wanted = Duration::from_millis(args[0].parse().expect("milliseconds"));
    while own_cpu() < wanted {}
    0
}

/// The largest child of this process so far, in bytes.
fn largest_child() -> u64 {
    // SAFETY: plain data, for which all zeroes are valid, and which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    usage.ru_maxrss.unsigned_abs() * 1024
}

/// A caller that has touched 300 MB and has used half a second of CPU time.
fn big_caller(_: &[String]) -> i32 {
    const MEGABYTE: u64 = 1 << 20;
    let memory = support::touched(300 << 20);
    busy(&[at_most(Duration::from_millis(500)).as_millis().to_string()]);
    assert!(Host::new("true").status().unwrap().success());
    assert!(largest_child() > 300 * MEGABYTE, "a program of std::process seems as large as its caller");
    for sandbox in [Sandbox::new(), Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit())] {
        let usage = sandbox.status(Command::new("true")).unwrap().usage;
        let max_rss = usage.max_rss.expect("a figure").value;
        assert!(max_rss > 0 && max_rss < 20 * MEGABYTE, "{max_rss}");
        let cpu = usage.user_time.expect("a figure").value + usage.system_time.expect("a figure").value;
        assert!(cpu < at_most(Duration::from_millis(300)), "{cpu:?}");
    }
    drop(std::hint::black_box(memory));
    0
}

#[apply(test)]
fn usage_does_not_include_the_caller() {
    on_host(&[], "big", &[]);
}

#[apply(test)]
fn cpu_time_is_that_of_the_program() {
    let sandbox = Sandbox::new().root(with_payload(Root::host()));
    let usage = sandbox.status(payload("busy").arg("300")).unwrap().usage;
    let cpu = usage.user_time.unwrap().value + usage.system_time.unwrap().value;
    assert!(cpu > Duration::from_millis(270) && cpu < at_most(Duration::from_millis(600)), "{cpu:?}");
    assert!(usage.wall_time >= cpu.mul_f64(0.9), "{usage:?}");
    let bytes = 30_000_000 / slowness();
    let big = sandbox.status(script(&format!("x=$(head -c {bytes} /dev/zero | tr '\\0' x); :"))).unwrap().usage;
    assert!(big.max_rss.unwrap().value > bytes.into(), "{big:?}");
    let asleep = Sandbox::new().status(Command::new("sleep").arg("0.2")).unwrap().usage;
    assert!(
        asleep.wall_time >= Duration::from_millis(200) && asleep.wall_time < at_most(Duration::from_secs(10)),
        "{asleep:?}"
    );
    assert!(asleep.user_time.unwrap().value < at_most(Duration::from_millis(100)), "{asleep:?}");
}

#[apply(test)]
fn the_outcome_reports_enforcement() {
    use stockade::Layer;
    let enforced = Sandbox::new().status(Command::new("true")).unwrap().enforcement;
    let layers =
        [Layer::Namespaces, Layer::Root, Layer::Identity, Layer::Capabilities, Layer::NoNewPrivs, Layer::Session];
    assert!(layers.into_iter().all(|layer| enforced.is_active(layer)), "{enforced:?}");
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    let enforced = bare.status(Command::new("true").new_session(false)).unwrap().enforcement;
    assert!(![Layer::Namespaces, Layer::Root, Layer::Session].into_iter().any(|layer| enforced.is_active(layer)));
    assert!(enforced.is_active(Layer::Capabilities) && enforced.is_active(Layer::NoNewPrivs), "{enforced:?}");
}

/// The namespaces that a child has kept, as links in `/proc/PID/ns` show them.
fn kept(child: &Child) -> Vec<String> {
    let name = |kind: Namespaces| NAMESPACES.iter().find(|(known, _)| *known == kind).expect("one kind").1;
    let shown = |(kind, fd): &(Namespaces, std::os::fd::OwnedFd)| {
        let close_on_exec = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).expect("flags");
        assert_eq!(close_on_exec, libc::FD_CLOEXEC);
        format!("{}:[{}]", name(*kind), nix::sys::stat::fstat(fd).expect("metadata").st_ino)
    };
    child.namespaces().iter().map(shown).collect()
}

/// The namespaces that the program is in, and the caller is not.
const OWN_NAMESPACES: &str = "for name in user mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$name; done";

/// Those that the child has kept, and those of the program.
pub fn own_namespaces(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let mut child = sandbox.spawn(script(OWN_NAMESPACES).stdout(Stdio::piped())).expect("a child");
    let kept = kept(&child);
    let mut inside = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut inside).expect("output");
    assert!(child.wait().expect("an outcome").success());
    // They stay when the program has exited.
    assert_eq!(self::kept(&child), kept);
    let of_caller = |name: &&str| {
        let file = name.split(':').next().expect("a kind");
        fs::read_link(format!("/proc/thread-self/ns/{file}")).is_ok_and(|link| link.to_str() == Some(*name))
    };
    (kept, inside.lines().filter(|name| !of_caller(name)).map(str::to_owned).collect())
}

#[apply(test)]
fn namespaces_are_kept_on_request() {
    let child = Sandbox::new().spawn(Command::new("true")).expect("a child");
    assert!(child.namespaces().is_empty());
    let without_pid = Namespaces::all() - Namespaces::TIME - Namespaces::PID;
    for kinds in [Namespaces::all() - Namespaces::TIME, without_pid, Namespaces::all() - Namespaces::NET] {
        let sandbox = Sandbox::new().namespaces(kinds).keep_namespaces();
        let (kept, own) = own_namespaces(&sandbox);
        assert_eq!(kept, own, "{kinds:?}");
        assert_eq!(kept.len(), kinds.iter().count());
    }
    // Numbers of descriptors do not collide with those of the program.
    let mut command = Command::new("sh");
    command.args(["-c", "cat <&7; cat <&9"]).stdout(Stdio::piped());
    command
        .fd(7, fs::File::open("/proc/sys/kernel/ostype").expect("a file"))
        .fd(9, fs::File::open("/dev/null").expect("a file"));
    let child = Sandbox::new().keep_namespaces().spawn(&command).expect("a child");
    assert_eq!(child.namespaces().len(), 7);
    assert_eq!(child.wait_with_output().expect("output").stdout, b"Linux\n");
}

#[apply(test)]
fn a_kept_namespace_can_be_joined() {
    let first = Sandbox::new().hostname("first").keep_namespaces();
    let mut child = first.spawn(Command::new("sleep").arg("1000")).expect("a child");
    let join = |sandbox: Sandbox, (kind, fd): &(Namespaces, std::os::fd::OwnedFd)| {
        // Root has the right in the namespace of users too, and would have to choose IDs in it.
        let joined = *kind == Namespaces::UTS || *kind == Namespaces::USER && !support::is_root();
        let fd = NamespaceRef::fd(fd.try_clone().expect("a copy"));
        if joined { sandbox.join(*kind, fd) } else { sandbox }
    };
    let second = child.namespaces().iter().fold(Sandbox::new(), join);
    assert_eq!(support::stdout(&second, "uname -n"), "first");
    child.kill().expect("a kill");
    assert!(!child.wait().expect("an outcome").success());
}
