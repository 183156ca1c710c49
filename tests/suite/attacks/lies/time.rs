//! Time: programs that exit, stop or shift clocks when their time is up.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::ClockId;
use stockade::namespaces::TimeOffsets;
use stockade::{Child, Command, Limits, Namespaces, Outcome, Sandbox, Stdio, Termination};

use super::{MS, clock, number, run, signaled, unless_groups, verdict, with};
use crate::attacks::common::alone;
use crate::attacks::sys::{self, numbers};
use crate::support::{at_most, on_host, payload, sh, slowness, text};

fn now() -> Duration {
    clock(ClockId::CLOCK_MONOTONIC)
}

/// Sleeps, says what time it is, and exits with 0.
pub fn exit_after(args: &[String]) -> i32 {
    std::thread::sleep(Duration::from_millis(number(&args[0])));
    println!("{}", now().as_nanos());
    0
}

/// Attack 75: a program that exits with 0 at the moment at which its time is up.
#[apply(test)]
fn no_exit_at_the_limit_of_time_lies() {
    let limit = at_most(400 * MS);
    let limited = with(Limits::new().wall_time(limit));
    let mut seen = vec![];
    for percent in [10, 90, 95, 98, 99, 100, 300] {
        let before = now();
        let output = run(&limited, "exit_after", &[&(limit * percent / 100).as_millis().to_string()]);
        let outcome = output.outcome;
        seen.push(outcome.termination);
        match outcome.termination {
            Termination::WallTime => assert!(outcome.usage.wall_time >= limit, "{outcome}"),
            Termination::Exited(0) => {
                let ended = Duration::from_nanos(number(&text(&output.stdout))) - before;
                assert!(ended < limit + at_most(500 * MS), "it lived for {ended:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    let expected = [Termination::Exited(0), Termination::WallTime];
    assert_eq!([seen[0], *seen.last().unwrap()], expected, "far from the limit");
}

/// After how many milliseconds the handler is called, and how many it takes.
const ALARM: [u64; 2] = [100, 1000];

/// How many times longer all of it takes on a slow machine.
fn patience() -> u64 {
    u64::from(slowness().div_ceil(2))
}

/// A caller that a handler of its own keeps from looking at a program while that ends, and while its time runs out.
pub fn interrupted_caller(args: &[String]) -> i32 {
    let factor = patience();
    let limit = Duration::from_millis(300 * factor);
    let script = format!("sleep {}; exit 3", args[0]);
    let mut limits = vec![Limits::new().wall_time(limit)];
    if unless_groups().is_none() {
        limits.push(Limits::new().idle_timeout(limit));
    }
    for limits in limits {
        let sandbox = Sandbox::new().limits(limits);
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null());
        let mut child = sandbox.spawn(&command).unwrap();
        sys::alarm_that_takes(ALARM[0] * factor, ALARM[1] * factor);
        println!("{:?}", child.wait().unwrap().termination);
        let child = sandbox.spawn(command.stdout(Stdio::piped())).unwrap();
        sys::alarm_that_takes(ALARM[0] * factor, ALARM[1] * factor);
        println!("{:?}", child.wait_with_output().unwrap().outcome.termination);
    }
    0
}

/// Attack 75: the caller is held up from before the end of a program that ends in time until its time is up, and looks
/// then.
#[apply(test)]
fn no_handler_of_the_caller_lies_about_time() {
    let _alone = alone();
    let verdicts = |seconds: f64| {
        let said = on_host(&[], "interrupted_caller", &[&(seconds * patience() as f64).to_string()]);
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let ended = verdicts(0.1);
    assert!(!ended.is_empty() && ended.iter().all(|verdict| verdict == "Exited(3)"), "{ended:?}");
    // And from whoever has not ended by then nothing is taken.
    let over = verdicts(20.0);
    assert_eq!(over[..2], ["WallTime", "WallTime"]);
    assert!(over[2..].iter().all(|verdict| verdict == "Idle"), "{over:?}");
}

/// Stops whom it can.
pub fn stop(args: &[String]) -> i32 {
    let pid = match args[0].as_str() {
        "itself" => std::process::id() as i32,
        "group" => 0,
        "all" => -1,
        "init" => 1,
        "parent" => nix::unistd::getppid().as_raw(),
        other => panic!("{other}"),
    };
    let _ = numbers(libc::SYS_kill, &[pid.into(), libc::SIGSTOP.into()]);
    std::thread::sleep(60_000 * MS);
    0
}

/// The program has ended without anybody who waits for it.
fn ended_alone(mut child: Child) -> Outcome {
    let ready = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000u16));
    assert_eq!(ready, Ok(1), "it is ended though nobody waits");
    child.wait().unwrap()
}

/// Attack 75: a program that stops itself, its group, everybody, who keeps its time; clocks that are ahead, or behind.
#[apply(test)]
fn no_clock_and_no_stop_lies_about_time() {
    let limit = at_most(200 * MS);
    let limited = with(Limits::new().wall_time(limit));
    let is_soon = |outcome: &Outcome, later: Duration| {
        let time = limit..limit + later + at_most(5000 * MS);
        assert_eq!(outcome.termination, Termination::WallTime, "{outcome}");
        // The sandbox's own clock starts a moment before the program.
        assert!(time.contains(&(outcome.usage.wall_time + at_most(20 * MS))), "{outcome}");
    };
    for whom in ["itself", "group", "all", "init", "parent"] {
        is_soon(&run(&limited, "stop", &[whom]).outcome, Duration::ZERO);
    }
    for ahead in [1_000_000, -1] {
        let offsets = TimeOffsets::new().monotonic(ahead).boottime(ahead);
        let shifted = limited.clone().namespaces(Namespaces::all()).time_offsets(offsets);
        is_soon(&sh(&shifted, "sleep 20").outcome, Duration::ZERO);
        let longer = shifted.clone().limits(Limits::new().wall_time(at_most(20_000 * MS)));
        assert_eq!(verdict(&longer, "exit_after", &["1"]), Termination::Exited(0));
        is_soon(&ended_alone(shifted.spawn(payload("stop").arg("all")).unwrap()), 1000 * MS);
    }
    // A stop that is over in time is none.
    let in_time = with(Limits::new().wall_time(at_most(20_000 * MS)));
    let script = "{ sleep 0.2; kill -CONT $$; } & kill -STOP $$; wait; exit 3";
    assert_eq!(sh(&in_time, script).outcome.termination, Termination::Exited(3));
}

/// Attack 75: whatever a program does with the signal by which it is asked to end.
#[apply(test)]
fn no_grace_lies() {
    let limits = || Limits::new().kill_grace(at_most(300 * MS));
    let timed = with(limits().wall_time(at_most(150 * MS)));
    let wordy = with(limits().stdout_max(10).wall_time(at_most(20_000 * MS)));
    for (sandbox, why) in [(timed, Termination::WallTime), (wordy, Termination::Output)] {
        for reaction in ["", "exit 0", "kill -KILL $$", "kill -STOP $$", "trap - TERM; kill -TERM $$"] {
            let script = format!("trap '{reaction}' TERM; while :; do echo longer than that; sleep 0.01; done");
            let script = if why == Termination::WallTime { script.replace("echo", ": echo") } else { script };
            assert_eq!(sh(&sandbox, &script).outcome.termination, why, "{reaction}");
        }
    }
    // The same signal from itself is none of the caller's.
    let in_time = with(limits().wall_time(at_most(20_000 * MS)));
    assert_eq!(sh(&in_time, "kill -TERM $$; sleep 20").outcome.termination, signaled(libc::SIGTERM));
}
