//! Limits on time, output and resources of a process: exceeded, not exceeded, and at their boundaries.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::listener::{hold, let_go_after};
use crate::support::{self, at_most, invalid, on_host, sh, stdout, text};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade::Errno;
use stockade::ErrorKind;
use stockade::limits::{Overflow, Resource};
use stockade::outcome::{GapKind, Source};
use stockade::{
    Child, Command, Layer, Limits, Namespaces, Outcome, Output, Root, Sandbox, Seccomp, Signal, Stdio, Termination,
};

const MS: Duration = Duration::from_millis(1);

payloads![("recurse", recurse), ("coreless", coreless), ("piped", piped), ("late", late),];

fn with(limits: Limits) -> Sandbox {
    Sandbox::new().limits(limits)
}

fn wall(time: Duration) -> Sandbox {
    with(Limits::new().wall_time(time))
}

/// Runs a script, and how long that took.
fn timed(sandbox: &Sandbox, script: &str) -> (Output, Duration) {
    let start = Instant::now();
    let output = sh(sandbox, script);
    (output, start.elapsed())
}

#[apply(test)]
fn a_program_is_killed_when_its_wall_time_is_exceeded() {
    let (output, time) = timed(&wall(300 * MS), "sleep 30 & sleep 30");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!(output.outcome.usage.wall_time >= 300 * MS, "{}", output.outcome);
    assert!(time < at_most(5000 * MS), "{time:?}");
    let outcome = wall(100 * MS).status(Command::new("sleep").arg("30")).unwrap();
    assert_eq!(outcome.termination, Termination::WallTime);
    let mut child = wall(100 * MS).spawn(Command::new("sleep").arg("30")).unwrap();
    let outcome = loop {
        if let Some(outcome) = child.try_wait().unwrap() {
            break outcome;
        }
        std::thread::sleep(MS);
    };
    assert_eq!(outcome.termination, Termination::WallTime);
}

#[apply(test)]
fn a_program_that_exits_in_time_is_not_killed() {
    assert_eq!(sh(&wall(60_000 * MS), "sleep 0.2; exit 3").outcome.termination, Termination::Exited(3));
    let killed = sh(&wall(60_000 * MS), "kill -KILL $$").outcome.termination;
    assert_eq!(killed, Termination::signaled(Signal::KILL, false));
}

#[apply(test)]
fn a_wall_time_of_zero_expires_at_once_and_the_longest_never() {
    assert_eq!(sh(&wall(Duration::ZERO), "sleep 30").outcome.termination, Termination::WallTime);
    assert_eq!(sh(&wall(Duration::from_nanos(1)), "sleep 30").outcome.termination, Termination::WallTime);
    assert_eq!(ends_alone(&wall(Duration::ZERO)), Termination::WallTime);
    let longest = i64::MAX as u64;
    for time in [Duration::from_secs(longest), Duration::from_secs(longest + 1), Duration::MAX] {
        let grace = Limits::new().wall_time(time).kill_grace(time);
        for limits in [grace, Limits::new().wall_time(time), Limits::new().kill_grace(time)] {
            assert_eq!(sh(&with(limits), "sleep 0.1").outcome.termination, Termination::Exited(0), "{time:?}");
        }
    }
}

/// Runs a program up to its limit, again and again until it was ended in time: whatever else the machine does can make
/// it late. It is never ended earlier, but for what passes before the program starts.
fn is_in_time(sandbox: &Sandbox, (limit, before): (Duration, Duration), how: &str, wait: impl Fn(&mut Child)) {
    let allowed = at_most(20 * MS);
    let mut late = vec![];
    while late.len() < 30 && late.last().is_none_or(|late| *late > allowed) {
        let start = Instant::now();
        let mut child = sandbox.spawn(Command::new("sleep").arg("30").stdin(Stdio::null())).unwrap();
        wait(&mut child);
        let outcome = child.wait().unwrap();
        assert_eq!(outcome.termination, Termination::WallTime, "{how}");
        assert!((limit - before..=start.elapsed()).contains(&outcome.usage.wall_time), "{how}: {outcome}");
        late.push(outcome.usage.wall_time.saturating_sub(limit));
    }
    println!("a wall-clock limit {how}: late by {late:?}");
    assert!(late.last().is_some_and(|late| *late <= allowed), "{how}: {late:?}");
}

#[apply(test)]
fn wall_time_is_enforced_within_20_ms() {
    let limit = 100 * MS;
    for (init, sandbox) in [
        ("with an init", wall(limit)),
        ("without a pid namespace", wall(limit).namespaces(Namespaces::USER | Namespaces::MOUNT)),
    ] {
        let by_caller = (limit, Duration::ZERO);
        is_in_time(&sandbox, by_caller, &format!("{init}, by the caller"), |child| drop(child.wait().unwrap()));
        // The sandbox leaves the first word to the caller. Its clock starts with its init.
        let by_sandbox = (limit + 1000 * MS, at_most(20 * MS));
        is_in_time(&sandbox, by_sandbox, &format!("{init}, by the sandbox"), has_ended_alone);
    }
}

#[apply(test)]
fn an_event_loop_keeps_the_time_without_spinning() {
    let limit = 100 * MS;
    for (init, sandbox) in [
        ("with an init", wall(limit)),
        ("without a pid namespace", wall(limit).namespaces(Namespaces::USER | Namespaces::MOUNT)),
    ] {
        is_in_time(&sandbox, (limit, Duration::ZERO), &format!("{init}, by an event loop"), |child| {
            let (_, rounds) = support::wait_by_poll(child);
            // At the start, when the time has expired, and when the program has exited; each may be too early once.
            assert!(rounds <= 6, "{init}: {rounds} rounds");
            assert_eq!(child.next_deadline(), None, "there is nothing more to do");
        });
    }
}

#[apply(test)]
fn an_event_loop_keeps_the_grace_period() {
    let sandbox = with(Limits::new().wall_time(100 * MS).kill_grace(200 * MS));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; while :; do sleep 0.01; done"]).stdin(Stdio::null());
    let (outcome, rounds) = support::wait_by_poll(&mut sandbox.spawn(&command).unwrap());
    assert_eq!(outcome.termination, Termination::WallTime);
    assert!((300 * MS..at_most(1000 * MS)).contains(&outcome.usage.wall_time), "{outcome}");
    assert!(rounds <= 10, "{rounds} rounds");
}

#[apply(test)]
fn without_a_limit_an_event_loop_has_no_deadline() {
    let sleep = |sandbox: Sandbox| sandbox.spawn(Command::new("sleep").arg("0.1").stdin(Stdio::null())).unwrap();
    let mut child = sleep(Sandbox::new().seccomp(Seccomp::new().deny(["ptrace"])));
    assert_eq!(child.next_deadline(), None);
    assert!(sleep(Sandbox::new()).next_deadline().is_some(), "a thread may be traced");
    let (outcome, rounds) = support::wait_by_poll(&mut child);
    assert!(outcome.success());
    assert!(rounds <= 3, "{rounds} rounds");
}

/// The program has ended, by its pidfd, while nobody waits for it.
fn ends_alone(sandbox: &Sandbox) -> Termination {
    let mut child = sandbox.spawn(Command::new("sleep").arg("30").stdin(Stdio::null())).unwrap();
    has_ended_alone(&mut child);
    child.wait().unwrap().termination
}

fn has_ended_alone(child: &mut Child) {
    let ready = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000u16));
    assert_eq!(ready, Ok(1), "it is ended though the caller does not wait");
}

#[apply(test)]
fn wall_time_is_enforced_without_a_wait() {
    assert_eq!(ends_alone(&wall(200 * MS)), Termination::WallTime);
}

#[apply(test)]
fn wall_time_is_enforced_without_a_pid_namespace() {
    let sandbox = wall(200 * MS).namespaces(Namespaces::USER | Namespaces::MOUNT);
    assert_eq!(ends_alone(&sandbox), Termination::WallTime);
    let none = wall(200 * MS).namespaces(Namespaces::empty()).root(Root::inherit());
    assert_eq!(ends_alone(&none), Termination::WallTime);
}

/// A caller whose helpers take some time to end, when they have killed their programs.
fn late(_: &[String]) -> i32 {
    let (sender, listener) = mpsc::channel();
    std::thread::spawn(move || let_go_after(&listener.recv().expect("a listener"), 30 * MS));
    sender.send(hold(libc::SYS_exit_group)).expect("a receiver");
    let sandbox = wall(200 * MS).namespaces(Namespaces::empty()).root(Root::inherit());
    println!("{:?}", ends_alone(&sandbox));
    0
}

#[apply(test)]
fn a_helper_that_exits_late_enforces_the_deadline() {
    assert_eq!(on_host(&[], "late", &[]).trim(), "WallTime");
}

#[apply(test)]
fn wall_time_is_enforced_while_output_is_collected() {
    let (output, time) = timed(&wall(300 * MS), "while :; do echo line; sleep 0.01; done");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!(text(&output.stdout).starts_with("line\nline"), "{}", text(&output.stdout));
    assert!(time < at_most(5000 * MS), "{time:?}");
}

#[apply(test)]
fn a_grace_period_lets_a_program_exit_by_itself() {
    let script = "trap 'echo bye; exit 7' TERM; while :; do sleep 0.01; done";
    let without = sh(&wall(300 * MS), script);
    assert_eq!((without.outcome.termination, text(&without.stdout)), (Termination::WallTime, String::new()));
    let with = sh(&with(Limits::new().wall_time(300 * MS).kill_grace(20_000 * MS)), script);
    assert_eq!((with.outcome.termination, text(&with.stdout)), (Termination::WallTime, "bye".into()));
}

#[apply(test)]
fn a_grace_period_expires() {
    // In which the program can say what it does with the signal.
    let before = at_most(100 * MS);
    let limits = Limits::new().wall_time(before).kill_grace(200 * MS);
    let (output, time) = timed(&with(limits), "trap '' TERM; while :; do sleep 0.01; done");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!((before + 200 * MS..at_most(5000 * MS)).contains(&time), "{time:?}");
    let none = Limits::new().wall_time(100 * MS).kill_grace(Duration::ZERO);
    let (output, time) = timed(&with(none), "trap '' TERM; while :; do sleep 0.01; done");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!((100 * MS..at_most(5000 * MS)).contains(&time), "{time:?}");
}

const THOUSAND: &str = "head -c 1000 /dev/zero";

#[apply(test)]
fn output_up_to_the_limit_is_kept() {
    for limit in [1000, 1001, u64::MAX] {
        let output = sh(&with(Limits::new().stdout_max(limit)), THOUSAND);
        assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Exited(0), 1000), "{limit}");
        let counted = output.outcome.usage.stdout.unwrap();
        assert_eq!((counted.value, counted.source), (1000, Source::Pipe));
    }
}

#[apply(test)]
fn one_byte_above_the_output_limit_kills_the_program() {
    for limit in [1, 999] {
        let output = sh(&with(Limits::new().stdout_max(limit)), THOUSAND);
        assert_eq!((output.outcome.termination, output.stdout.len() as u64), (Termination::Output, limit));
    }
}

#[apply(test)]
fn an_output_limit_of_zero_allows_none() {
    let none = with(Limits::new().stdout_max(0).stderr_max(0));
    assert_eq!(sh(&none, "true").outcome.termination, Termination::Exited(0));
    for script in ["echo", "echo >&2"] {
        let output = sh(&none, script);
        assert_eq!(output.outcome.termination, Termination::Output, "{script}");
        assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
    }
}

#[apply(test)]
fn a_flood_of_output_is_killed() {
    let (output, time) = timed(&with(Limits::new().stdout_max(1 << 20)), "cat /dev/zero & cat /dev/zero");
    assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Output, 1 << 20));
    assert!(time < at_most(5000 * MS), "{time:?}");
}

#[apply(test)]
fn excess_output_can_be_discarded() {
    let limits = Limits::new().stdout_max(10).overflow(Overflow::Discard);
    let output = sh(&with(limits), "head -c 3000000 /dev/zero; exit 4");
    assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Exited(4), 10));
    assert_eq!(output.outcome.usage.stdout.unwrap().value, 3_000_000);
}

#[apply(test)]
fn each_stream_at_the_edges_of_its_limit() {
    const FULL: u64 = 64 << 10; // What a pipe holds.
    let table = [(0, 0), (0, 1), (1, 1), (1, 2), (FULL, FULL), (FULL, FULL + 1), (u64::MAX, FULL + 1)];
    for ((limit, written), overflow) in
        table.into_iter().flat_map(|row| [(row, Overflow::Kill), (row, Overflow::Discard)])
    {
        for stream in [1, 2] {
            let limits = if stream == 1 { Limits::new().stdout_max(limit) } else { Limits::new().stderr_max(limit) };
            let output = sh(&with(limits.overflow(overflow)), &format!("head -c {written} /dev/zero >&{stream}"));
            let is_ended = written > limit && overflow == Overflow::Kill;
            let what = format!("{written} of {limit} bytes to {stream}, {overflow:?}");
            let end = if is_ended { Termination::Output } else { Termination::Exited(0) };
            assert_eq!(output.outcome.termination, end, "{what}");
            let kept = [output.stdout, output.stderr].map(|stream| stream.len() as u64);
            assert_eq!(kept[stream - 1], written.min(limit), "{what}");
        }
    }
}

#[apply(test)]
fn each_stream_has_its_own_limit() {
    let sandbox = with(Limits::new().stdout_max(5).stderr_max(3));
    let output = sh(&sandbox, "printf 12345; printf 123 >&2");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("12345".into(), "123".into()));
    assert_eq!(output.outcome.termination, Termination::Exited(0));
    assert_eq!(sh(&sandbox, "printf 12345; printf 1234 >&2").outcome.termination, Termination::Output);
}

#[apply(test)]
fn rlimits_are_set_for_the_program() {
    let limits = [
        (Resource::As, "Max address space", 1 << 30, 2 << 30),
        (Resource::Core, "Max core file size", 0, 0),
        (Resource::Cpu, "Max cpu time", 10, 20),
        (Resource::Data, "Max data size", 1 << 29, 1 << 30),
        (Resource::Fsize, "Max file size", 4096, 8192),
        (Resource::Memlock, "Max locked memory", 4096, 8192),
        (Resource::Msgqueue, "Max msgqueue size", 100, 200),
        (Resource::Nofile, "Max open files", 20, 30),
        (Resource::Nproc, "Max processes", 100, 200),
        (Resource::Rttime, "Max realtime timeout", 100, 200),
        (Resource::Sigpending, "Max pending signals", 10, 20),
        (Resource::Stack, "Max stack size", 1 << 20, 1 << 21),
    ];
    let set = limits.iter().fold(Limits::new(), |set, &(resource, _, soft, hard)| set.rlimit(resource, soft, hard));
    let seen = stdout(&with(set), "cat /proc/self/limits");
    for (resource, name, soft, hard) in limits {
        let line = seen.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {seen}"));
        let numbers: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(numbers, [soft.to_string(), hard.to_string()], "{resource:?}");
    }
    let tests = "head -c 5000 /dev/zero > /tmp/file; stat -c %s /tmp/file";
    assert_eq!(stdout(&Sandbox::new(), tests), "5000");
    assert_eq!(stdout(&with(Limits::new().rlimit(Resource::Fsize, 4096, 4096)), tests), "4096");
}

/// All of them, as `/proc/PID/limits` names them.
const RESOURCES: [(Resource, &str); 14] = [
    (Resource::As, "Max address space"),
    (Resource::Core, "Max core file size"),
    (Resource::Cpu, "Max cpu time"),
    (Resource::Data, "Max data size"),
    (Resource::Fsize, "Max file size"),
    (Resource::Memlock, "Max locked memory"),
    (Resource::Msgqueue, "Max msgqueue size"),
    (Resource::Nice, "Max nice priority"),
    (Resource::Nofile, "Max open files"),
    (Resource::Nproc, "Max processes"),
    (Resource::Rtprio, "Max realtime priority"),
    (Resource::Rttime, "Max realtime timeout"),
    (Resource::Sigpending, "Max pending signals"),
    (Resource::Stack, "Max stack size"),
];

/// The soft and the hard limit in `/proc/PID/limits`.
fn listed(limits: &str, name: &str) -> [u64; 2] {
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {limits}"));
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    [(); 2].map(|()| numbers.next().unwrap())
}

#[apply(test)]
fn rlimits_are_accepted_at_their_edges() {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    for ((resource, name), value) in
        RESOURCES.into_iter().flat_map(|known| [0, 1, u64::MAX].map(|value| (known, value)))
    {
        let sandbox = with(Limits::new().rlimit(resource, value, value).wall_time(20_000 * MS));
        let result = sandbox.output(Command::new("cat").arg("/proc/self/limits"));
        let what = format!("{resource:?} {value}: {result:?}");
        let [_, hard] = listed(&own, name);
        match (resource, value, result) {
            // Nobody may have more than the caller, root neither: it has no rights outside of its user namespace.
            (.., Err(error)) if value > hard => assert_eq!(error.errno(), Some(Errno::EPERM), "{what}"),
            // No program starts without memory; one that is linked dynamically opens files.
            (Resource::As | Resource::Data | Resource::Stack, 0 | 1, Ok(output)) => {
                assert!(matches!(output.outcome.termination, Termination::Signaled { .. }), "{what}");
            }
            (Resource::As | Resource::Data | Resource::Stack, 0 | 1, Err(error)) => {
                assert!(error.kind() == ErrorKind::NotExecutable || support::has_died(&error), "{what}");
            }
            // The first tick of the clock ends it, wherever it is then.
            (Resource::Cpu, 0, Ok(output)) => {
                let end = output.outcome.termination;
                assert!(end.success() || matches!(end, Termination::Signaled { signal: Signal::KILL, .. }), "{what}");
            }
            (Resource::Cpu, 0, Err(error)) => assert!(support::has_died(&error), "{what}"),
            (Resource::Nofile, 0 | 1, Ok(output)) => assert!(!output.outcome.success(), "{what}"),
            (_, _, Ok(output)) => {
                assert!(output.outcome.success() && value <= hard, "{what}");
                assert_eq!(listed(&text(&output.stdout), name), [value; 2], "{resource:?}");
            }
            (.., Err(_)) => panic!("{what}"),
        }
    }
}

/// Uses so much of a resource, with what the program has of it already.
const USE: &str = r#"
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

def check(result):
    if result in (-1, ctypes.c_void_p(-1).value): raise OSError(ctypes.get_errno(), "refused")
    return result

def map(size):
    return check(libc.mmap(None, size, 3, 0x22, -1, 0))

def used(name):
    lines = open("/proc/self/status").read().split("\n")
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

def queue(count):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    for _ in range(count): check(libc.sigqueue(os.getpid(), signal.SIGRTMIN, None))

def fork(count):
    for n in range(count):
        try:
            if os.fork() == 0: signal.pause()
        except BlockingIOError:
            return print(n)

{
    "Fsize": lambda n: os.ftruncate(os.open("/tmp/file", os.O_CREAT | os.O_RDWR), n),
    "Nofile": lambda n: os.dup2(0, n - 1),
    "Nproc": fork,
    "Memlock": lambda n: check(libc.mlock(map(n), n)),
    "Sigpending": queue,
    "As": lambda n: map(n - used("VmSize")),
    "Data": lambda n: map(n - used("VmData")),
}[sys.argv[1]](int(sys.argv[2]))"#;

fn use_so_much(resource: Resource, limit: u64, amount: u64) -> Output {
    let sandbox = with(Limits::new().rlimit(resource, limit, limit).wall_time(60_000 * MS));
    let args = ["-c", USE, &format!("{resource:?}"), &amount.to_string()];
    sandbox.output(Command::new("python3").args(args)).unwrap()
}

#[apply(test)]
#[skip(support::unless_python)]
fn rlimits_may_be_reached_and_not_exceeded() {
    for (resource, limit, step, error) in [
        (Resource::Fsize, 4096, 1, libc::EFBIG),
        (Resource::Nofile, 20, 1, libc::EBADF),
        (Resource::Memlock, 64 << 10, 4096, libc::ENOMEM),
        (Resource::Sigpending, 5, 1, libc::EAGAIN),
        (Resource::As, 256 << 20, 4096, libc::ENOMEM),
        (Resource::Data, 128 << 20, 4096, libc::ENOMEM),
    ] {
        for (limit, amount) in [(limit, limit), (limit, limit - step), (limit + step, limit + 1)] {
            let output = use_so_much(resource, limit, amount);
            assert!(output.outcome.success(), "{resource:?} {amount} of {limit}: {}", text(&output.stderr));
        }
        let output = use_so_much(resource, limit, limit + 1);
        let said = text(&output.stderr);
        assert!(said.contains(&format!("[Errno {error}]")), "{resource:?}: {}, {said}", output.outcome);
    }
}

/// A reason to skip what needs a count of processes that is the sandbox's own. Root's sandboxes have users of their
/// own.
fn unless_users_are_counted() -> Option<String> {
    let is_shared = !support::is_root() && support::kernel() < (5, 14);
    is_shared
        .then(|| "before Linux 5.14 a user's processes are counted over all user namespaces".into())
        .or_else(support::unless_python)
}

#[apply(test)]
#[skip(unless_users_are_counted)]
fn rlimit_nproc_counts_processes_of_the_user() {
    let started = |limit| text(&use_so_much(Resource::Nproc, limit, 100).stdout).parse::<u64>().unwrap();
    let counts = [10, 11, 20].map(started);
    // The program is one of them, and who keeps the sandbox may be.
    assert!((6..10).contains(&counts[0]), "{counts:?}");
    assert_eq!([counts[1], counts[2]], [counts[0] + 1, counts[0] + 10]);
    assert_eq!([started(0), started(1)], [0, 0], "the program itself starts");
}

/// Uses so many kilobytes of the main thread's stack.
fn recurse(args: &[String]) -> i32 {
    fn deeper(kilobytes: u64) -> u64 {
        let page = std::hint::black_box([1u8; 1024]);
        if kilobytes == 0 { 0 } else { deeper(kilobytes - 1) + u64::from(page[kilobytes as usize % 1024]) }
    }
    println!("{}", deeper(args[0].parse().unwrap()));
    0
}

#[apply(test)]
fn the_stack_does_not_exceed_its_limit() {
    let run = |limit, kilobytes: &str| {
        let sandbox = Sandbox::new().root(support::with_payload(Root::host()));
        let sandbox = sandbox.limits(Limits::new().rlimit(Resource::Stack, limit, limit));
        sandbox.output(support::payload("recurse").arg(kilobytes)).unwrap().outcome.termination
    };
    assert_eq!([run(1 << 20, "256"), run(8 << 20, "2048")], [Termination::Exited(0); 2]);
    assert!(matches!(run(1 << 20, "2048"), Termination::Signaled { .. }));
}

#[apply(test)]
fn rlimit_cpu_kills_a_process() {
    let ended =
        |soft, hard, script| sh(&with(Limits::new().rlimit(Resource::Cpu, soft, hard)), script).outcome.termination;
    let busy = "while :; do :; done";
    assert_eq!(ended(1, 2, busy), Termination::signaled(Signal::XCPU, false));
    assert_eq!(ended(1, 1, busy), Termination::signaled(Signal::KILL, false));
    match with(Limits::new().rlimit(Resource::Cpu, 0, 0)).status(Command::new("sh").args(["-c", busy])) {
        Ok(outcome) => assert_eq!(outcome.termination, Termination::signaled(Signal::KILL, false)),
        Err(error) => assert!(support::has_died(&error), "{error}"),
    }
    assert_eq!(ended(1, 1, "sleep 1.2"), Termination::Exited(0), "time that is slept does not count");
}

#[apply(test)]
fn a_soft_limit_above_the_hard_one_is_refused() {
    let limits = Limits::new().rlimit(Resource::Nofile, 30, 20);
    let error = with(limits).plan(Command::new("true")).unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::InvalidConfiguration, Some(Layer::Limits)));
    assert_eq!(
        error.to_string(),
        "the soft limit of RLIMIT_NOFILE is 30, and the hard limit 20: set a soft limit that is at most the hard limit"
    );
    stdout(&with(Limits::new().rlimit(Resource::Nofile, 30, 30)), "true");
}

#[apply(test)]
#[only(User)]
fn a_hard_limit_above_the_callers_is_refused() {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    stdout(&with(Limits::new().rlimit(Resource::Nofile, hard, hard)), "true");
    match with(Limits::new().rlimit(Resource::Nofile, hard, hard + 1)).spawn(Command::new("true")) {
        Err(error) => {
            let call = (error.step(), error.call(), error.errno());
            assert_eq!(call, (Some("set RLIMIT_NOFILE"), Some("prlimit64"), Some(Errno::EPERM)));
            assert_eq!(error.hint(), Some("lower the hard limit to the caller's, or give the caller CAP_SYS_RESOURCE"));
        }
        other => panic!("{other:?}"),
    }
}

/// The limits on output that were not enforced, as the outcome reports them.
fn unbounded(outcome: &Outcome) -> Vec<&str> {
    let gaps = outcome.enforcement.gaps.iter().filter(|gap| gap.kind == GapKind::Output);
    gaps.map(|gap| gap.description.as_str()).collect()
}

#[apply(test)]
fn a_limit_on_output_that_is_not_collected_is_reported_as_a_gap() {
    let sandbox = with(Limits::new().stdout_max(5).stderr_max(3));
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    };
    let stdout = "the limit of 5 bytes on standard output was not enforced, since the caller did not collect it";
    let stderr = "the limit of 3 bytes on standard error was not enforced, since the caller did not collect it";

    let collected = sandbox.output(shell("printf 12345; printf 123 >&2")).unwrap().outcome;
    assert_eq!((collected.success(), unbounded(&collected)), (true, vec![]), "{collected}");

    // The program writes more than the limit, and is not killed.
    let mut piped = shell("printf 123456; printf 1234 >&2");
    piped.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waited = sandbox.status(&piped).unwrap();
    assert_eq!((waited.success(), unbounded(&waited)), (true, vec![stdout, stderr]), "{waited}");
    let mut child = sandbox.spawn(&piped).unwrap();
    let polled = loop {
        if let Some(outcome) = child.try_wait().unwrap() {
            break outcome;
        }
    };
    assert_eq!(unbounded(&polled), [stdout, stderr]);
    assert_eq!(unbounded(&child.wait().unwrap()), [stdout, stderr], "every call returns the same");
    let mut gaps = polled.enforcement.gaps.iter().filter(|gap| gap.kind == GapKind::Output);
    assert!(gaps.all(|gap| gap.hint.contains("wait_with_output")), "{polled:?}");

    // Of the streams that are not piped, that to /dev/null needs no limit.
    let mut inherited = shell("printf 123456 >/dev/null");
    inherited.stdout(Stdio::inherit()).stderr(Stdio::piped());
    let outcome = sandbox.spawn(&inherited).unwrap().wait_with_output().unwrap().outcome;
    assert_eq!(unbounded(&outcome), [stdout]);
    inherited.stdout(Stdio::null());
    let outcome = sandbox.spawn(&inherited).unwrap().wait_with_output().unwrap().outcome;
    assert_eq!(unbounded(&outcome), [""; 0]);
    let none = Sandbox::new().status(&piped).unwrap();
    assert_eq!((none.success(), unbounded(&none)), (true, vec![]), "no limit was requested");
}

#[apply(test)]
fn limits_are_reported_as_enforced() {
    let enforced = |sandbox: &Sandbox| sh(sandbox, "true").outcome.enforcement.is_active(Layer::Limits);
    assert!(enforced(&wall(10_000 * MS)));
    assert!(!enforced(&Sandbox::new()));
}

/// A caller whose own hard limit on cores is 0.
fn coreless(_: &[String]) -> i32 {
    let seen = stdout(&Sandbox::new(), "cat /proc/self/limits");
    assert_eq!(listed(&seen, "Max core file size"), [0, 0]);
    0
}

#[apply(test)]
fn a_core_limit_of_zero_of_the_caller_is_kept() {
    on_host(&["prlimit", "--core=0:0"], "coreless", &[]);
    assert_eq!(listed(&stdout(&Sandbox::new(), "cat /proc/self/limits"), "Max core file size"), [1, 1]);
}

/// The same, where cores go to a pipe: its size is no limit there.
fn piped(_: &[String]) -> i32 {
    let (what, remedy) = invalid(&Sandbox::new());
    assert!(what.contains("kernel.core_pattern") && remedy.contains("RLIMIT_CORE"), "{what}: {remedy}");
    let said_so = with(Limits::new().rlimit(Resource::Core, 0, 0)).plan(Command::new("true"));
    assert!(said_so.is_ok(), "{said_so:?}");
    0
}

#[apply(test)]
#[only(Root)]
fn a_pipe_that_would_get_a_core_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = folder.path().join("core_pattern");
    std::fs::write(&pattern, "|/usr/bin/handler %p\n").unwrap();
    let script =
        format!("mount --bind {} /proc/sys/kernel/core_pattern && exec prlimit --core=0:0 \"$@\"", pattern.display());
    on_host(&["unshare", "--mount", "sh", "-c", &script, "sh"], "piped", &[]);
}
