//! Limits of time, of output, and of the process: reached, not reached, and at their edges.

mod support;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade::{
    Child, Command, Error, Layer, Limits, Namespaces, Output, Overflow, Resource, Root, Sandbox, Signal, Source, Stdio,
    Termination,
};
use support::{sh, stdout, text, unless_user};

const MS: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    support::run(
        tests![
            a_program_is_ended_when_its_time_is_up,
            a_program_that_ends_in_time_is_not_touched,
            no_time_ends_at_once_and_the_longest_time_never,
            time_is_kept_to_20_ms,
            time_is_kept_when_the_host_does_not_wait,
            time_is_kept_without_a_pid_namespace,
            time_is_kept_while_output_is_collected,
            a_grace_lets_a_program_end_by_itself,
            a_grace_ends_too,
            output_up_to_the_limit_is_kept,
            a_byte_more_ends_the_program,
            a_limit_of_no_output_lets_none_through,
            a_flood_is_ended,
            what_is_too_much_can_be_forgotten,
            each_stream_has_its_own_limit,
            the_limits_of_the_process_are_the_programs,
            cpu_seconds_end_a_process,
            a_soft_limit_above_the_hard_one_is_refused,
            a_hard_limit_above_the_hosts_is_refused if unless_user,
            limits_are_reported_as_enforced,
        ],
        &[],
    )
}

fn with(limits: Limits) -> Sandbox {
    Sandbox::new().limits(limits)
}

fn wall(time: Duration) -> Sandbox {
    with(Limits::new().wall(time))
}

/// Runs a script, and how long that took.
fn timed(sandbox: &Sandbox, script: &str) -> (Output, Duration) {
    let start = Instant::now();
    let output = sh(sandbox, script);
    (output, start.elapsed())
}

fn a_program_is_ended_when_its_time_is_up() {
    let (output, time) = timed(&wall(300 * MS), "sleep 30 & sleep 30");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!(output.outcome.usage.wall >= 300 * MS, "{}", output.outcome);
    assert!(time < 5000 * MS, "{time:?}");
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

fn a_program_that_ends_in_time_is_not_touched() {
    assert_eq!(sh(&wall(60_000 * MS), "sleep 0.2; exit 3").outcome.termination, Termination::Exited(3));
    let killed = sh(&wall(60_000 * MS), "kill -KILL $$").outcome.termination;
    assert_eq!(killed, Termination::Signaled { signal: Signal::KILL, core: false });
}

fn no_time_ends_at_once_and_the_longest_time_never() {
    assert_eq!(sh(&wall(Duration::ZERO), "sleep 30").outcome.termination, Termination::WallTime);
    assert_eq!(sh(&wall(Duration::from_nanos(1)), "sleep 30").outcome.termination, Termination::WallTime);
    let grace = Limits::new().wall(Duration::MAX).kill_grace(Duration::MAX);
    assert_eq!(sh(&with(grace), "sleep 0.2").outcome.termination, Termination::Exited(0));
}

/// Runs a program up to its limit, again and again until it was ended in time: whatever else the machine does can make it
/// late. It is never ended earlier.
fn is_in_time(sandbox: &Sandbox, limit: Duration, how: &str, wait: impl Fn(&mut Child)) {
    const LATE: Duration = Duration::from_millis(20);
    let mut late = vec![];
    while late.len() < 30 && late.last().is_none_or(|late| *late > LATE) {
        let start = Instant::now();
        let mut child = sandbox.spawn(Command::new("sleep").arg("30").stdin(Stdio::null())).unwrap();
        wait(&mut child);
        let outcome = child.wait().unwrap();
        assert_eq!(outcome.termination, Termination::WallTime, "{how}");
        assert!((limit..=start.elapsed()).contains(&outcome.usage.wall), "{how}: {outcome}");
        late.push(outcome.usage.wall - limit);
    }
    println!("a wall-clock limit {how}: late by {late:?}");
    assert!(late.last().is_some_and(|late| *late <= LATE), "{how}: {late:?}");
}

fn time_is_kept_to_20_ms() {
    let limit = 100 * MS;
    for (init, sandbox) in [
        ("with an init", wall(limit)),
        ("without a pid namespace", wall(limit).namespaces(Namespaces::USER | Namespaces::MOUNT)),
    ] {
        is_in_time(&sandbox, limit, &format!("{init}, by the host"), |child| drop(child.wait().unwrap()));
        // The sandbox leaves the first word to the host.
        is_in_time(&sandbox, limit + 1000 * MS, &format!("{init}, by the sandbox"), has_ended_alone);
    }
}

/// The program has ended, by its pidfd, while nobody waits for it.
fn ends_alone(sandbox: &Sandbox) -> Termination {
    let mut child = sandbox.spawn(Command::new("sleep").arg("30").stdin(Stdio::null())).unwrap();
    has_ended_alone(&mut child);
    child.wait().unwrap().termination
}

fn has_ended_alone(child: &mut Child) {
    let ready = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000u16));
    assert_eq!(ready, Ok(1), "it is ended though the host does not wait");
}

fn time_is_kept_when_the_host_does_not_wait() {
    assert_eq!(ends_alone(&wall(200 * MS)), Termination::WallTime);
}

fn time_is_kept_without_a_pid_namespace() {
    let sandbox = wall(200 * MS).namespaces(Namespaces::USER | Namespaces::MOUNT);
    assert_eq!(ends_alone(&sandbox), Termination::WallTime);
    let none = wall(200 * MS).namespaces(Namespaces::empty()).root(Root::inherit());
    assert_eq!(ends_alone(&none), Termination::WallTime);
}

fn time_is_kept_while_output_is_collected() {
    let (output, time) = timed(&wall(300 * MS), "while :; do echo line; sleep 0.01; done");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!(text(&output.stdout).starts_with("line\nline"), "{}", text(&output.stdout));
    assert!(time < 5000 * MS, "{time:?}");
}

fn a_grace_lets_a_program_end_by_itself() {
    let script = "trap 'echo bye; exit 7' TERM; while :; do sleep 0.01; done";
    let without = sh(&wall(300 * MS), script);
    assert_eq!((without.outcome.termination, text(&without.stdout)), (Termination::WallTime, String::new()));
    let with = sh(&with(Limits::new().wall(300 * MS).kill_grace(20_000 * MS)), script);
    assert_eq!((with.outcome.termination, text(&with.stdout)), (Termination::WallTime, "bye".into()));
}

fn a_grace_ends_too() {
    let limits = Limits::new().wall(100 * MS).kill_grace(200 * MS);
    let (output, time) = timed(&with(limits), "trap '' TERM; while :; do sleep 0.01; done");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!((300 * MS..5000 * MS).contains(&time), "{time:?}");
}

const THOUSAND: &str = "head -c 1000 /dev/zero";

fn output_up_to_the_limit_is_kept() {
    for limit in [1000, 1001, u64::MAX] {
        let output = sh(&with(Limits::new().stdout(limit)), THOUSAND);
        assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Exited(0), 1000), "{limit}");
        let counted = output.outcome.usage.stdout.unwrap();
        assert_eq!((counted.value, counted.source), (1000, Source::Pipe));
    }
}

fn a_byte_more_ends_the_program() {
    for limit in [1, 999] {
        let output = sh(&with(Limits::new().stdout(limit)), THOUSAND);
        assert_eq!((output.outcome.termination, output.stdout.len() as u64), (Termination::Output, limit));
    }
}

fn a_limit_of_no_output_lets_none_through() {
    let none = with(Limits::new().stdout(0).stderr(0));
    assert_eq!(sh(&none, "true").outcome.termination, Termination::Exited(0));
    for script in ["echo", "echo >&2"] {
        let output = sh(&none, script);
        assert_eq!(output.outcome.termination, Termination::Output, "{script}");
        assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
    }
}

fn a_flood_is_ended() {
    let (output, time) = timed(&with(Limits::new().stdout(1 << 20)), "cat /dev/zero & cat /dev/zero");
    assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Output, 1 << 20));
    assert!(time < 5000 * MS, "{time:?}");
}

fn what_is_too_much_can_be_forgotten() {
    let limits = Limits::new().stdout(10).overflow(Overflow::Discard);
    let output = sh(&with(limits), "head -c 3000000 /dev/zero; exit 4");
    assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Exited(4), 10));
    assert_eq!(output.outcome.usage.stdout.unwrap().value, 3_000_000);
}

fn each_stream_has_its_own_limit() {
    let sandbox = with(Limits::new().stdout(5).stderr(3));
    let output = sh(&sandbox, "printf 12345; printf 123 >&2");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("12345".into(), "123".into()));
    assert_eq!(output.outcome.termination, Termination::Exited(0));
    assert_eq!(sh(&sandbox, "printf 12345; printf 1234 >&2").outcome.termination, Termination::Output);
}

fn the_limits_of_the_process_are_the_programs() {
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

fn cpu_seconds_end_a_process() {
    let sandbox = with(Limits::new().rlimit(Resource::Cpu, 1, 2));
    let output = sh(&sandbox, "while :; do :; done");
    assert_eq!(output.outcome.termination, Termination::Signaled { signal: Signal(libc::SIGXCPU), core: false });
}

fn a_soft_limit_above_the_hard_one_is_refused() {
    let limits = Limits::new().rlimit(Resource::Nofile, 30, 20);
    let error = with(limits).spawn(Command::new("true")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(error.remedy(), Some("the soft limit is above the hard one"));
}

fn a_hard_limit_above_the_hosts_is_refused() {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    stdout(&with(Limits::new().rlimit(Resource::Nofile, hard, hard)), "true");
    match with(Limits::new().rlimit(Resource::Nofile, hard, hard + 1)).spawn(Command::new("true")) {
        Err(Error::SetUp { step, call, errno, remedy, .. }) => {
            assert_eq!((step.as_str(), call, errno.0), ("limiting Nofile", "prlimit64", libc::EPERM));
            assert_eq!(remedy.as_deref(), Some("the hard limit is above the host's own: lower it"));
        }
        other => panic!("{other:?}"),
    }
}

fn limits_are_reported_as_enforced() {
    let enforced = |sandbox: &Sandbox| sh(sandbox, "true").outcome.enforced.has(Layer::Limits);
    assert!(enforced(&wall(10_000 * MS)));
    assert!(!enforced(&Sandbox::new()));
}
