//! CPU time and idleness: work that is done by others than the program, and callers that can't look.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::ClockId;
use stockade::outcome::Source;
use stockade::{Cgroup, Command, Layer, Limits, Stdio, Termination};

use super::{MB, MS, clock, counted, fork, number, run};
use crate::attacks::common::{alone, sandbox, unfiltered};
use crate::attacks::sys::numbers;
use crate::support::{at_most, on_host, payload, sh, slowness};

/// Uses CPU time.
fn burn(time: Duration) {
    let used = || clock(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let end = used() + time;
    while used() < end {
        (0..10_000).for_each(|number| _ = std::hint::black_box(number));
    }
}

/// Where a program can have its work done, and whether the kernel counts that for it at its end (getrusage(2)).
const APART: [(&str, bool); 10] = [
    ("itself", true),
    ("thread", true),
    ("child", true),
    ("child that nobody waits for", false),
    ("child without a signal", false),
    ("vforked child", false),
    ("orphan", false),
    ("sibling", false),
    ("stopped child", false),
    ("traced child", false),
];

/// Has so many milliseconds of CPU time used by somebody, and exits.
pub fn burn_apart(args: &[String]) -> i32 {
    let time = Duration::from_millis(number(&args[1]));
    let (mut over, working) = std::io::pipe().unwrap();
    let own = || i64::from(std::process::id());
    let work = || burn(time);
    let stopped = |pid| _ = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    match args[0].as_str() {
        "itself" => work(),
        "thread" => std::thread::spawn(move || burn(time)).join().unwrap(),
        "child" => drop(waitpid(fork(libc::SIGCHLD, work), None).unwrap()),
        "child that nobody waits for" => drop(fork(libc::SIGCHLD, work)),
        "child without a signal" => drop(fork(0, work)),
        "vforked child" => drop(fork(libc::CLONE_VFORK | libc::SIGCHLD, work)),
        "orphan" => {
            let leader = fork(libc::SIGCHLD, || {
                nix::unistd::setsid().unwrap();
                fork(libc::SIGCHLD, work);
            });
            waitpid(leader, None).unwrap();
        }
        "sibling" => drop(fork(libc::CLONE_PARENT, work)),
        "stopped child" => stopped(fork(libc::SIGCHLD, || {
            work();
            let _ = numbers(libc::SYS_kill, &[own(), libc::SIGSTOP.into()]);
        })),
        "traced child" => stopped(fork(libc::SIGCHLD, || {
            numbers(libc::SYS_ptrace, &[libc::PTRACE_TRACEME.into()]).expect("a tracer");
            work();
            let _ = numbers(libc::SYS_kill, &[own(), libc::SIGUSR1.into()]);
        })),
        other => panic!("{other}"),
    }
    drop(working);
    if !["stopped child", "traced child"].contains(&args[0].as_str()) {
        // Whoever works has it open.
        over.read_to_end(&mut vec![]).unwrap();
    }
    0
}

/// CPU time that is used, and what a program may take beside that.
fn burnt() -> (Duration, Duration) {
    if slowness() > 1 { (400 * MS, 300 * MS) } else { (120 * MS, 60 * MS) }
}

/// Attack 75: work that is done by processes of which the kernel does not tell their parent.
#[apply(test)]
fn no_process_lies_about_cpu_time() {
    let (time, more) = burnt();
    for (who, is_told) in APART {
        let outcome = run(&unfiltered(&sandbox()), "burn_apart", &[who, &time.as_millis().to_string()]).outcome;
        assert!(outcome.success(), "{who}: {outcome}");
        let cpu = outcome.usage.cpu_time.expect("CPU time");
        assert_eq!(cpu.value >= time, is_told, "{who}: {cpu:?}");
        assert!(cpu.value < time + more, "{who}: {cpu:?}");
        let parts = [outcome.usage.user_time, outcome.usage.system_time].map(|part| part.expect("a part"));
        for figure in parts.into_iter().chain([cpu]) {
            assert!(figure.source.is_lower_bound(), "{who}: {figure:?}");
        }
    }
}

/// Attack 75: the same in a group, which counts all of it, and by which a limit is kept.
#[apply(test)]
#[skip(super::unless_groups)]
fn no_process_lies_about_cpu_time_in_a_group() {
    let _alone = alone();
    let (time, more) = burnt();
    let sandbox = unfiltered(&counted());
    let limits = Limits::new().cpu_time(time / 2).wall_time(at_most(60_000 * MS));
    for (who, _) in APART {
        let args = [who, &time.as_millis().to_string()];
        let outcome = run(&sandbox, "burn_apart", &args).outcome;
        assert!(outcome.success(), "{who}: {outcome}");
        let cpu = outcome.usage.cpu_time.expect("CPU time");
        assert!((time..time + more).contains(&cpu.value), "{who}: {cpu:?}");
        assert!(!cpu.source.is_lower_bound(), "{who}: {cpu:?}");
        let outcome = run(&sandbox.clone().limits(limits.clone()), "burn_apart", &args).outcome;
        assert_eq!(outcome.termination, Termination::CpuTime, "{who}: {outcome}");
    }
}

/// Uses so many microseconds of CPU time in all, with what the way here has taken, and exits with 0.
pub fn burn_and_exit(args: &[String]) -> i32 {
    let used = clock(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    burn(Duration::from_micros(number(&args[0])).saturating_sub(used));
    0
}

/// Attack 75: a program that exits with 0 right before, or right after, it has used up its CPU time.
#[apply(test)]
#[skip(super::unless_groups)]
fn no_exit_at_the_limit_of_cpu_time_lies() {
    let _alone = alone();
    let limit = at_most(60 * MS);
    let limited = counted().limits(Limits::new().cpu_time(limit).wall_time(at_most(60_000 * MS)));
    let mut seen = vec![];
    for percent in [50, 90, 95, 97, 98, 99, 100, 101, 105, 200] {
        let outcome = run(&limited, "burn_and_exit", &[&(limit * percent / 100).as_micros().to_string()]).outcome;
        let used = outcome.usage.cpu_time.expect("CPU time");
        assert_eq!(used.source, Source::Cgroup);
        let expected = if used.value >= limit { Termination::CpuTime } else { Termination::Exited(0) };
        assert_eq!(outcome.termination, expected, "{percent} %: {outcome}");
        seen.push(outcome.termination);
    }
    assert_eq!([seen[0], *seen.last().unwrap()], [Termination::Exited(0), Termination::CpuTime]);
}

/// Others need CPUs too: with so much weight a program gets what it may have.
fn busy() -> Cgroup {
    Cgroup::new().cpu_weight(10_000)
}

/// Sleeps while a child is busy for so many milliseconds of time.
pub fn busy_child(args: &[String]) -> i32 {
    let time = Duration::from_millis(number(&args[0]));
    let child = fork(libc::SIGCHLD, || {
        let start = Instant::now();
        while start.elapsed() < time {}
    });
    waitpid(child, None).unwrap();
    0
}

/// Attack 75: a program that sleeps while its child works does something; one that has stopped, with all its children,
/// does not.
#[apply(test)]
#[skip(super::unless_groups)]
fn no_sleep_lies_about_idleness() {
    let _alone = alone();
    let limit = at_most(400 * MS);
    let limited = counted().cgroup(busy()).limits(Limits::new().idle_timeout(limit).wall_time(at_most(20_000 * MS)));
    let longer = (limit * 3).as_millis().to_string();
    let outcome = run(&limited, "busy_child", &[&longer]).outcome;
    assert_eq!(outcome.termination, Termination::Exited(0), "{outcome}");
    for whom in ["itself", "all"] {
        let outcome = run(&limited, "stop", &[whom]).outcome;
        assert_eq!(outcome.termination, Termination::Idle, "{outcome}");
        assert!(outcome.usage.wall_time >= limit, "{outcome}");
    }
    let forgotten = "sleep 20 & sleep 20 & kill -STOP $! & wait";
    assert_eq!(sh(&limited, forgotten).outcome.termination, Termination::Idle);
}

/// A caller that has no descriptor left while it waits.
pub fn caller_without_descriptors(_: &[String]) -> i32 {
    let limits = || Limits::new().wall_time(at_most(20_000 * MS));
    let idle = at_most(400 * MS);
    let longer = (idle * 3).as_millis().to_string();
    for (limits, cgroup, name, args) in [
        (limits().idle_timeout(idle), busy(), "busy_child", vec![longer.as_str()]),
        (limits().cpu_time(at_most(100 * MS)), Cgroup::new(), "busy_child", vec![longer.as_str()]),
        (limits(), Cgroup::new().memory_max(32 * MB), "use_memory", vec!["child", "64", "exit"]),
    ] {
        let mut command = payload(name);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = sandbox().cgroup(cgroup).limits(limits).spawn(&command).unwrap();
        let mut all = vec![];
        while let Ok(one) = File::open("/dev/null") {
            all.push(one);
        }
        let outcome = child.wait();
        drop(all);
        println!("{:?}", outcome.unwrap().termination);
    }
    0
}

/// Attack 75: figures that the caller can't read while it waits, for want of a descriptor, say nothing against the
/// program, nor for it.
#[apply(test)]
#[skip(super::unless_groups)]
fn no_want_of_descriptors_lies() {
    let _alone = alone();
    let said = on_host(&["prlimit", "--nofile=256:256"], "caller_without_descriptors", &[]);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["Exited(0)", "CpuTime", "Memory"]);
}

/// Attack 75: without a group a limit on CPU time holds for each process alone, and nobody is found idle, which is
/// said; and the caller sleeps while it waits.
#[apply(test)]
#[only(User)]
#[skip(super::unless_user_without_groups)]
fn no_lost_group_lies_or_keeps_the_caller_busy() {
    let sandbox = sandbox().best_effort([Layer::Cgroup]);
    let limited = |limits| sandbox.clone().limits(limits);
    let used = || clock(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let asleep = limited(Limits::new().cpu_time(10 * MS));
    let mut child = asleep.spawn(Command::new("sleep").arg("0.5").stdin(Stdio::null())).unwrap();
    let before = used();
    let outcome = child.wait().unwrap();
    assert!(used() - before < at_most(100 * MS), "it took the caller {:?}", used() - before);
    assert!(!outcome.enforcement.is_active(Layer::Cgroup), "{outcome}");
    assert!(outcome.usage.cpu_time.is_some_and(|cpu| cpu.source.is_lower_bound()), "{outcome}");

    let outcome = run(&limited(Limits::new().idle_timeout(100 * MS)), "busy_child", &["400"]).outcome;
    assert_eq!(outcome.termination, Termination::Exited(0), "{outcome}");
    assert!(!outcome.enforcement.is_active(Layer::Cgroup), "{outcome}");
}
