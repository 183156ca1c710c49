//! Processes: signals to processes outside of the sandbox, statuses of other processes than the program, and what
//! remains of a caller that is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command as Host, Stdio as HostStdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, wait, waitpid};
use nix::unistd::{Pid, setsid};
use stockade::outcome::GapKind;
use stockade::{Command, Identity, Landlock, Namespaces, Root, Sandbox, Seccomp, Signal, Stdio, Termination};

use crate::attacks::common::{
    Attempts, Bystander, anything, as_before, attack, attack_by, attack_on_host, attempt, first_line, here,
    in_namespaces, sandbox, tell, unfiltered,
};
use crate::attacks::sys::{self, Word};
use crate::support::listener::hold;
use crate::support::{
    self, at_most, children, kernel, own_path, payload, payload_on_host, sh, shared_dir, text, unless_landlock_since,
};

payloads![
    ("caller_of_killer", caller_of_killer),
    ("change_other", change_other),
    ("give_away_children", give_away_children),
    ("caller_of_given_children", caller_of_given_children),
    ("fork_on", fork_on),
    ("caller_with_few_pids", caller_with_few_pids),
    ("caller_in_a_loop", caller_in_a_loop),
    ("caller_of_daemons", caller_of_daemons),
    ("caller_of_a_mute_helper", caller_of_a_mute_helper),
    ("arena", arena),
    ("change_init", change_init),
    ("caller_of_changed_init", caller_of_changed_init),
];

/// Before, of a group of processes its leader alone is killed where no pid namespace ends with the sandbox.
fn unless_groups_are_signalled() -> Option<String> {
    (kernel() < (6, 9)).then(|| "groups are signalled by a pidfd since Linux 6.9".into())
}

const ALL: Namespaces = Namespaces::all().difference(Namespaces::TIME);

/// Signals to everybody: its group, all processes, pid 1, a pid of the host.
const KILLER: &str = "
    trap '' TERM
    test \"$2\" = all && { sleep 1000 & sibling=$!; }
    kill -TERM 0
    test \"$2\" = all && kill -KILL -1 && { wait $sibling; echo \"sibling: $?\"; }
    for signal in KILL STOP TERM; do test \"$2\" != all || kill -$signal 1; done
    kill -KILL $1 2>&-
    test \"$2\" != all || echo \"init: $(cut -d ' ' -f 3 /proc/1/stat)\"
    exit 4";

/// Changes init in every way that takes no right but its user. With the argument `leave` it leaves a process behind.
fn change_init(args: &[String]) -> i32 {
    const INIT: i64 = 1;
    let (none, first) = ([0; 16], [1; 8]);
    let limit = [Word::Number(INIT), Word::Number(libc::RLIMIT_NOFILE.into()), Word::Bytes(&none), Word::Number(0)];
    let idle = [Word::Number(INIT), Word::Number(libc::SCHED_IDLE.into()), Word::Bytes(&none[..4])];
    let affinity = [Word::Number(INIT), Word::Number(8), Word::Bytes(&first)];
    // An init that is not yet waiting would not wait with this limit, but end the sandbox at once.
    support::eventually("init waits", || {
        std::fs::read_to_string("/proc/1/stat").unwrap().rsplit(") ").next().unwrap().starts_with('S')
    });
    attempt("limit", sys::call(libc::SYS_prlimit64, &mut { limit }));
    attempt("policy", sys::call(libc::SYS_sched_setscheduler, &mut { idle }));
    attempt("affinity", sys::call(libc::SYS_sched_setaffinity, &mut { affinity }));
    let lowest = 19;
    for (what, kind, number) in [
        ("priority", libc::PRIO_PROCESS, INIT),
        ("priority of its group", libc::PRIO_PGRP, INIT),
        ("priority of its user", libc::PRIO_USER, 0),
    ] {
        attempt(what, sys::numbers(libc::SYS_setpriority, &[kind.into(), number, lowest]));
    }
    let (idle_class, user) = (3 << 13, nix::unistd::getuid().as_raw().into());
    for (what, kind, number) in [("i/o", 1, INIT), ("i/o of its group", 2, INIT), ("i/o of its user", 3, user)] {
        attempt(what, sys::numbers(libc::SYS_ioprio_set, &[kind, number, idle_class]));
    }
    if args.first().is_some_and(|arg| arg == "leave") {
        let mut setsid = Host::new("setsid");
        setsid.args(["--fork", "sleep", LEFT]).stdin(HostStdio::null()).stdout(HostStdio::null());
        assert!(setsid.status().unwrap().success());
    }
    0
}

/// The argument by which a process that is left behind is found.
const LEFT: &str = "1000.0625";

/// A caller that never waits for a program which has changed its init, and left a process behind.
fn caller_of_changed_init(_: &[String]) -> i32 {
    let mut command = payload("change_init");
    let child = unfiltered(&sandbox()).spawn(command.arg("leave").stdout(Stdio::null())).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(1000));
    drop(child);
    0
}

/// Attack 30: The program has the user of init, and so may lower its limits and its priority where no filter denies
/// that. Init terminates the sandbox nevertheless.
#[apply(test)]
fn init_cannot_be_kept_from_terminating_the_sandbox() {
    let free = attack(&unfiltered(&sandbox()), "change_init", &[]);
    free.assert_done(&["limit", "policy", "affinity", "priority", "priority of its group", "priority of its user"]);
    free.assert_done(&["i/o", "i/o of its group", "i/o of its user"]);
    let left = || support::processes(|line| line.contains(LEFT));
    let mut command = payload("change_init");
    let child = unfiltered(&sandbox()).spawn(command.arg("leave").stdout(Stdio::null())).unwrap();
    // Nobody waits. The program exits before long.
    std::thread::sleep(at_most(Duration::from_secs(1)));
    support::eventually("everything is killed", || left().is_empty());
    drop(child);
    assert_nothing_stays(&in_the_arena("caller_of_changed_init", "", 2));
}

/// Attack 27: A policy that denies anything denies changes of init.
#[apply(test)]
fn init_is_not_changed() {
    for policy in [Seccomp::new(), Seccomp::container(), Seccomp::deny_list().deny(["bpf"])] {
        attack(&sandbox().seccomp(policy), "change_init", &[]).assert_all_refused();
    }
}

/// Changes another process in every way that takes no right but its user; the same of its own.
fn change_other(args: &[String]) -> i32 {
    let other: i64 = args[0].parse().unwrap();
    let (mut cores, mask, none) = (vec![0; 16], [1, 0, 0, 0, 0, 0, 0, 0], [0; 8]);
    let core = i64::from(libc::RLIMIT_CORE);
    for (whose, pid) in [("", other), ("own ", 0)] {
        let zero = sys::Word::Number(0);
        // What it has.
        sys::call(
            libc::SYS_prlimit64,
            &mut [sys::Word::Number(0), sys::Word::Number(core), zero, sys::Word::Room(&mut cores)],
        )
        .unwrap();
        let tried = sys::call(
            libc::SYS_prlimit64,
            &mut [sys::Word::Number(pid), sys::Word::Number(core), sys::Word::Bytes(&cores), sys::Word::Number(0)],
        );
        attempt(&format!("{whose}limit"), tried);
        let tried = sys::call(
            libc::SYS_sched_setaffinity,
            &mut [sys::Word::Number(pid), sys::Word::Number(8), sys::Word::Bytes(&mask)],
        );
        attempt(&format!("{whose}affinity"), tried);
        let batch = i64::from(libc::SCHED_BATCH);
        let tried = sys::call(
            libc::SYS_sched_setscheduler,
            &mut [sys::Word::Number(pid), sys::Word::Number(batch), sys::Word::Bytes(&none)],
        );
        attempt(&format!("{whose}scheduler"), tried);
        attempt(&format!("{whose}priority"), sys::numbers(libc::SYS_setpriority, &[0, pid, 19]));
        attempt(
            &format!("{whose}priority of input and output"),
            sys::numbers(libc::SYS_ioprio_set, &[1, pid, 3 << 13]),
        );
    }
    attempt("signal", sys::numbers(libc::SYS_kill, &[other, 0]));
    attempt("OOM score", fs::write(format!("/proc/{other}/oom_score_adj"), "1000"));
    if args.len() > 1 {
        // Where it works it changes every process of the user.
        attempt("priority of a user", sys::numbers(libc::SYS_setpriority, &[2, 0, 19]));
    }
    0
}

/// Attack 48: Without a PID namespace a program changes the caller's other processes, which are of the same user.
#[apply(test)]
fn without_a_pid_namespace_other_processes_are_not_changed() {
    const OTHERS: [&str; 5] = ["limit", "affinity", "scheduler", "priority", "priority of input and output"];
    let mut other = Bystander::start(Host::new("sleep").arg("1000"));
    let pid = other.pid().to_string();
    let shared = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit()).identity(Identity::caller());
    let open = unfiltered(&shared).landlock(anything());
    let change = |sandbox: &Sandbox, all: bool| {
        let mut command = here("change_other");
        let output = sandbox.output(command.arg(&pid).args(all.then_some("all"))).unwrap();
        assert!(output.outcome.success(), "{output:?}");
        (Attempts::parse(&text(&output.stdout)), output.outcome.enforcement.gaps)
    };
    let (attempts, gaps) = change(&open, false);
    // The scheduling of a process that has more capabilities is out of reach, as that of root's is here.
    attempts.assert_done(if support::is_root() { &["limit", "signal"] } else { &OTHERS });
    attempts.assert_done(&["signal"]);
    assert!(gaps.iter().any(|gap| gap.kind == GapKind::Processes), "{gaps:?}");
    let (attempts, gaps) = change(&shared, true);
    attempts.assert_refused(&OTHERS);
    attempts.assert_refused(&["priority of a user"]);
    attempts.assert_done(&OTHERS.map(|what| format!("own {what}")).each_ref().map(String::as_str));
    match unless_landlock_since((6, 12)) {
        None => {
            attempts.assert_refused(&["signal"]);
            assert!(gaps.iter().all(|gap| gap.kind != GapKind::Signals), "{gaps:?}");
        }
        Some(_) => assert!(gaps.iter().any(|gap| gap.kind == GapKind::Signals), "{gaps:?}"),
    }
    // Whoever has the caller's /proc writes to the files there of its user.
    attempts.assert_done(&["OOM score"]);
    assert!(gaps.iter().any(|gap| gap.kind == GapKind::Processes && gap.description.contains("/proc")), "{gaps:?}");
    if unless_landlock_since((6, 2)).is_none() {
        let reading = Landlock::new().read_only("/").any_tcp().any_signal().any_abstract_socket();
        let (attempts, gaps) = change(&shared.clone().landlock(reading), false);
        attempts.assert_refused(&["OOM score"]);
        assert!(gaps.iter().all(|gap| gap.kind != GapKind::Processes), "{gaps:?}");
    }
    let older = shared.as_on_kernel(6, 6).status(Command::new("true")).unwrap();
    assert!(older.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Signals), "{older:?}");
    assert!(other.is_alive());
}

/// A caller, in a session of its own, with a sandbox whose program kills whomever it can.
fn caller_of_killer(args: &[String]) -> i32 {
    setsid().unwrap();
    let caller = Sandbox::new().identity(Identity::caller());
    let (sandbox, target, new_session) = match args[0].as_str() {
        "default" => (Sandbox::new(), "all", true),
        "caller" => (caller, "all", true),
        "group" => (caller, "one", false),
        // With any signal, which is what Landlock denies where there is no PID namespace.
        "any signal" => (caller.namespaces(ALL - Namespaces::PID).landlock(anything()), "one", true),
        _ => (caller.namespaces(ALL - Namespaces::PID), "one", true),
    };
    let mut command = Command::new("sh");
    command.args(["-c", KILLER, "sh", &std::process::id().to_string(), target]).new_session(new_session);
    let output = sandbox.output(&command).unwrap();
    println!("{}", text(&output.stdout));
    tell("termination", output.outcome.termination);
    0
}

/// Attack 27: `kill(-1, SIGKILL)`, and kill of pid 1, of the caller, of the caller's group.
#[apply(test)]
fn processes_outside_are_not_killed() {
    let run = |how: &str| {
        let output = payload_on_host("caller_of_killer").arg(how).stdin(HostStdio::null()).output().unwrap();
        (output.status, Attempts::parse(&text(&output.stdout)))
    };
    let (in_its_group, _) = run("group");
    assert_eq!(
        in_its_group.signal(),
        Some(libc::SIGTERM),
        "without a session of its own it reaches the caller's group"
    );
    let (with_its_pid, _) = run("any signal");
    assert_eq!(with_its_pid.signal(), Some(libc::SIGKILL), "without a pid namespace it reaches the caller");
    if unless_landlock_since((6, 12)).is_none() {
        let (restricted, _) = run("without a pid namespace");
        assert!(restricted.success(), "{restricted}");
    }
    for how in ["default", "caller"] {
        let (status, attempts) = run(how);
        assert!(status.success(), "{how}: {status}");
        assert_eq!(attempts.get("sibling"), "137", "it kills whom it may");
        assert!(["S", "R"].contains(&attempts.get("init")), "neither ended nor stopped: {attempts:?}");
        assert_eq!(attempts.get("termination"), "Exited(4)");
    }
}

/// Attack 27: Also where the program sees the host's processes, and is of the same user, it can't look into one.
#[apply(test)]
fn a_visible_caller_cannot_be_inspected() {
    let mut bystander = Bystander::start(&mut payload_on_host("keep_secret"));
    bystander.line();
    let pid = bystander.pid().to_string();
    attack_on_host("probe", &[&pid]).assert_done(&["exe", "root", "environ", "maps", "mem", "ptrace"]);
    let seen = sandbox().namespaces(ALL - Namespaces::PID).identity(Identity::caller());
    attack(&seen, "probe", &[&pid]).assert_all_refused();
    attack(&sandbox(), "probe", &[&pid]).assert_all_refused();
    assert!(bystander.is_alive());
}

/// Attack 28: Descendants end before the program, after it, and with other statuses.
#[apply(test)]
fn a_grandchild_fakes_no_status() {
    let ends = |script: &str| sh(&Sandbox::new(), script).outcome.termination;
    assert_eq!(ends("(exit 3) & exit 5"), Termination::Exited(5));
    assert_eq!(ends("(exit 3) & wait; exit 5"), Termination::Exited(5));
    assert_eq!(ends("(sleep 0.1; exit 3) & exit 5"), Termination::Exited(5));
    assert_eq!(ends("setsid sh -c 'exit 3' & wait; exit 5"), Termination::Exited(5));
    assert_eq!(ends("(setsid sh -c 'kill -9 $$' &) ; wait; exit 5"), Termination::Exited(5));
    let killed = Termination::signaled(Signal::KILL, false);
    assert_eq!(ends("(exit 0) & wait; kill -9 $$"), killed);
    assert_eq!(ends("sh -c 'kill -9 $PPID; exit 0'; exit 0"), killed);
}

/// Makes children of its own parent, by CLONE_PARENT: some end at once, others stay. It ends with 5 itself.
fn give_away_children(args: &[String]) -> i32 {
    let give = || sys::clone(libc::CLONE_PARENT | libc::SIGCHLD);
    match args[0].as_str() {
        // The kernel may forbid the namespaces.
        "nested" => drop(attempt("namespaces", sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID))),
        "chain" if give() == Ok(0) => {
            // Each gives the next one, and ends.
            let last = (0..3000).find(|_| give() != Ok(0));
            sys::exit(if last.is_some() { 9 } else { 8 });
        }
        _ => {}
    }
    for number in 0..6 {
        match give() {
            Ok(0) if number % 2 == 0 => sys::exit(9),
            Ok(0) => {
                std::thread::sleep(Duration::from_secs(1000));
                sys::exit(9)
            }
            result => drop(attempt(&format!("child {number}"), result.map(drop))),
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    5
}

fn caller_of_given_children(args: &[String]) -> i32 {
    if args[0] == "none" {
        let mut command = payload_on_host("give_away_children");
        let mut program = command.arg("plain").stdout(HostStdio::null()).spawn().unwrap();
        let first = wait().unwrap();
        let fooled = matches!(first, WaitStatus::Exited(pid, 9) if pid.as_raw() as u32 != program.id());
        attempt("fooled", fooled.then_some(()).ok_or(first));
        program.wait().unwrap();
        attempt("left", (!children().is_empty()).then_some(()).ok_or("none"));
        for child in children() {
            let _ = nix::sys::signal::kill(Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL);
        }
        return 0;
    }
    let sandbox = match args[0].as_str() {
        "default" => sandbox(),
        "unfiltered" => unfiltered(&sandbox()),
        _ => unfiltered(&sandbox().namespaces(ALL - Namespaces::PID)),
    };
    let mut command = payload("give_away_children");
    command.arg(&args[1]);
    let output = sandbox.output(&command).unwrap();
    println!("{}", text(&output.stdout));
    tell("termination", output.outcome.termination);
    tell("children", children());
    drop(sandbox.spawn(command.stdout(Stdio::null())).unwrap());
    tell("children after a drop", children());
    0
}

/// Attack 28: A program gives children to its own parent, which is the caller (clone(2), CLONE_PARENT).
#[apply(test)]
fn orphans_reparented_to_the_caller_fake_no_status_and_are_reaped() {
    let run = |sandbox: &str, how: &str| {
        let mut caller = Bystander::start(payload_on_host("caller_of_given_children").args([sandbox, how]));
        Attempts::parse(&caller.finish(Duration::from_secs(20)))
    };
    run("none", "plain").assert_done(&["fooled", "left"]);
    for (sandbox, how) in
        [("default", "plain"), ("unfiltered", "plain"), ("unfiltered", "nested"), ("unfiltered", "chain")]
    {
        let attempts = run(sandbox, how);
        assert_eq!(attempts.get("termination"), "Exited(5)", "{how}");
        assert_eq!((attempts.get("children"), attempts.get("children after a drop")), ("[]", "[]"), "{how}");
        // The filter alone stops it too.
        let given: &[&str] = if how == "nested" { &["child 0"] } else { &["child 0", "child 1", "child 5"] };
        if sandbox == "default" { attempts.assert_refused(given) } else { attempts.assert_done(given) }
    }
    // What has no pid namespace is not ended as a whole, and here the caller may keep children.
    assert_eq!(run("shared-pids", "plain").get("termination"), "Exited(5)");
}

/// Whether the number of pids can be limited in a pid namespace alone: elsewhere it would be the machine's.
fn unless_few_pids() -> Option<String> {
    (kernel() < (6, 14)).then(|| "kernel.pid_max is not by pid namespace before Linux 6.14".into())
}

/// Leaves a process that forks on and on, and ends with 5.
fn fork_on(_: &[String]) -> i32 {
    if sys::clone(libc::SIGCHLD) == Ok(0) {
        loop {
            if sys::clone(libc::SIGCHLD) == Ok(0) {
                sys::exit(9);
            }
            let _ = wait();
        }
    }
    5
}

fn caller_with_few_pids(_: &[String]) -> i32 {
    let spawned = || {
        let mut child = Host::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    };
    // After the first round the lowest pids are not used again.
    (0..400).for_each(|_| {
        spawned();
    });
    let first = spawned();
    attempt("a pid comes back", (0..1000).find(|_| spawned() == first).ok_or("never"));
    let mut ends = BTreeSet::new();
    for _ in 0..support::rounds(40) {
        let mut child = sandbox().spawn(payload("fork_on")).unwrap();
        let pid = child.pid().number();
        // Long enough for every pid to be used several times, while the program's end is still to be taken.
        std::thread::sleep(Duration::from_millis(100));
        ends.insert(format!("{:?}", child.wait().unwrap().termination));
        assert_eq!(child.pid().number(), pid);
    }
    tell("ends", ends);
    0
}

/// Attack 28: The pids wrap around while the caller has not asked for the program's status yet.
#[apply(test)]
#[skip(unless_few_pids)]
fn a_reused_pid_fakes_no_status() {
    let script = "echo 400 >/proc/sys/kernel/pid_max";
    let namespaces = ["-p", "-f", "--mount-proc"];
    let before = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let attempts = attack_by(&mut in_namespaces(&namespaces, script, &as_before(), "caller_with_few_pids", &[]));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/pid_max").unwrap(), before);
    attempts.assert_done(&["a pid comes back"]);
    assert_eq!(attempts.get("ends"), r#"{"Exited(5)"}"#);
}

/// A caller that makes one sandbox after another until it is killed.
fn caller_in_a_loop(args: &[String]) -> i32 {
    let place = &args[1];
    let root = Root::host().bind_rw(place, "/tmp/bound").mask("/etc/hostname").file("/tmp/file", "contents");
    let root = root.overlay("/etc", "/tmp/overlay");
    let sandbox = Sandbox::new().root(root);
    let sandbox = if args[0] == "default" { sandbox } else { sandbox.namespaces(ALL - Namespaces::PID) };
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        drop(sandbox.spawn(&command).unwrap());
    }
}

/// Descendants that ignore what can be ignored; `$1` makes them leave the group.
const DAEMONS: &str = "
    trap '' HUP INT TERM QUIT PIPE
    { for i in 1 2 3; do $1 sh -c 'sleep 1000 & echo; exec sleep 1000' & done; sleep 1000; } |
    { read one; read two; read three; echo ready; sleep 1000; }";

fn caller_of_daemons(args: &[String]) -> i32 {
    let leave = if args[0] == "shared-pids" { "" } else { "setsid" };
    let arguments = ["-c", DAEMONS, "sh", leave];
    if args[0] == "none" {
        Host::new("sh").args(arguments).spawn().unwrap().wait().unwrap();
        return 0;
    }
    let sandbox = Sandbox::new();
    let sandbox = if args[0] == "default" { sandbox } else { sandbox.namespaces(ALL - Namespaces::PID) };
    let _ = sandbox.status(Command::new("sh").args(arguments));
    0
}

/// A caller whose helper can't say that the program runs, which has started others meanwhile, until the caller is gone.
fn caller_of_a_mute_helper(_: &[String]) -> i32 {
    let _listener = hold(libc::SYS_sendmsg);
    let sandbox = Sandbox::new().namespaces(ALL - Namespaces::PID);
    let _ = sandbox.status(Command::new("sh").args(["-c", DAEMONS]));
    1
}

/// The init of a pid namespace, where a caller is started and killed again and again: nothing may stay of it.
/// Arguments: the caller's payload and its argument, how often, a directory for it, and how a command line begins that
/// has the test's own rights.
fn arena(args: &[String]) -> i32 {
    let (caller, how, rounds, place) = (&args[0], &args[1], args[2].parse::<u64>().unwrap(), &args[3]);
    let before: Vec<&str> = args[4].split_whitespace().collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut longest = Duration::ZERO;
    let own = own_path();
    for round in 0..rounds {
        let mut line: Vec<&std::ffi::OsStr> = before.iter().map(std::ffi::OsStr::new).collect();
        line.extend([own.as_os_str(), "--payload".as_ref(), caller.as_ref(), how.as_ref(), place.as_ref()]);
        let mut child = Host::new(line[0])
            .args(&line[1..])
            .env("TMPDIR", place)
            .stdin(HostStdio::null())
            .stdout(HostStdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(child.stdout.as_mut().unwrap()), "ready");
        // Steps that have no common factor with the time of a spawn; a kill may come at any of its calls.
        std::thread::sleep(Duration::from_micros(round * 37 % 15_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let killed = Instant::now();
        let mut left = survivors();
        while !left.is_empty() && killed.elapsed() < at_most(Duration::from_secs(3)) {
            std::thread::sleep(Duration::from_millis(1));
            left = survivors();
        }
        longest = longest.max(killed.elapsed());
        if !left.is_empty() {
            tell("survivors", format!("round {round}: {left:?}"));
            return 0;
        }
    }
    tell("survivors", "none");
    tell("longest", longest);
    attempt(
        "mounts are the same",
        (fs::read_to_string("/proc/self/mountinfo").unwrap() == mounts).then_some(()).ok_or(()),
    );
    tell("files", fs::read_dir(place).unwrap().count());
    0
}

/// The command lines of all processes of this pid namespace but its init, once what has ended is reaped.
fn survivors() -> Vec<String> {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| *pid != 1)
        .filter_map(|pid| {
            let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

fn in_the_arena(caller: &str, how: &str, rounds: u32) -> Attempts {
    let place = shared_dir();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let args = [caller, how, &support::rounds(rounds).to_string(), place.path().to_str().unwrap(), &as_before()];
    let namespaces = ["-p", "-f", "-m", "--mount-proc", "--kill-child"];
    let mut command = in_namespaces(&namespaces, ":", "", "arena", &args);
    let mut arena = Bystander::start(&mut command);
    Attempts::parse(&arena.finish(at_most(Duration::from_secs(120))))
}

#[track_caller]
fn assert_nothing_stays(attempts: &Attempts) {
    assert_eq!(attempts.get("survivors"), "\"none\"");
    attempts.assert_done(&["mounts are the same"]);
    assert_eq!(attempts.get("files"), "0");
}

const KILLS: u32 = 400;

/// Attack 30: The caller is killed at any call of the plan.
#[apply(test)]
fn a_caller_killed_while_it_spawns_leaves_nothing() {
    assert_nothing_stays(&in_the_arena("caller_in_a_loop", "default", KILLS));
}

/// Attack 30: The same where no pid namespace ends with the sandbox, but a helper watches over the program.
#[apply(test)]
fn a_caller_killed_while_it_spawns_without_a_pid_namespace_leaves_nothing() {
    assert_nothing_stays(&in_the_arena("caller_in_a_loop", "shared-pids", KILLS));
}

/// Attack 30: The caller is killed after the program's start and before the helper has reported it, where no pid
/// namespace ends with the sandbox.
#[apply(test)]
#[skip(unless_groups_are_signalled)]
fn a_caller_killed_before_it_learns_of_the_program_leaves_nothing() {
    assert_nothing_stays(&in_the_arena("caller_of_a_mute_helper", "", 5));
}

/// Attack 30: The caller is killed while the program and its descendants run.
#[apply(test)]
fn a_caller_killed_while_the_program_runs_leaves_nothing() {
    let without = in_the_arena("caller_of_daemons", "none", 1);
    assert_ne!(without.get("survivors"), "\"none\"", "without a sandbox they live on");
    assert_nothing_stays(&in_the_arena("caller_of_daemons", "default", 20));
    if unless_groups_are_signalled().is_none() {
        assert_nothing_stays(&in_the_arena("caller_of_daemons", "shared-pids", 20));
    }
}
