//! Killing a program from another thread.

use std::time::{Duration, Instant};

use super::{ended, line, marker, script, sleepers, spawn, state, tree, until};
use crate::support::{self, at_most, on_host, rounds, text};
use stockade::child::Killer;
use stockade::{Command, Limits, Namespaces, Root, Sandbox, Stdio, Termination};

payloads![("killers", holds_killers)];

/// The time after which a killer kills a program that waits.
const SOON: Duration = Duration::from_millis(50);

/// Has a killer kill from another thread, after some time, while `wait` waits. Returns how long `wait` went on after
/// that.
fn killed_meanwhile(killer: Killer, wait: impl FnOnce()) -> Duration {
    killed_after(SOON, killer, wait)
}

fn killed_after(time: Duration, killer: Killer, wait: impl FnOnce()) -> Duration {
    let thread = std::thread::spawn(move || {
        std::thread::sleep(time);
        let start = Instant::now();
        killer.kill().unwrap();
        start
    });
    wait();
    let end = Instant::now();
    end.duration_since(thread.join().expect("the other thread"))
}

/// The best of some tries: on a busy machine the thread that waits may be woken late.
fn is_prompt(mut once: impl FnMut() -> Duration) {
    let times: Vec<_> = (0..5).map(|_| once()).collect();
    assert!(times.iter().min().is_some_and(|best| *best < at_most(Duration::from_millis(20))), "{times:?}");
}

/// With and without what makes the kernel kill everything.
fn with_and_without_pid_namespace() -> [Sandbox; 3] {
    let without = Namespaces::all() - Namespaces::TIME - Namespaces::PID;
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    [Sandbox::new(), Sandbox::new().namespaces(without), bare]
}

#[apply(test)]
fn a_killer_wakes_the_thread_that_waits() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    for sandbox in with_and_without_pid_namespace() {
        // One that runs, one that ignores signals, and one that is stopped.
        for text in ["exec sleep 1000", "trap '' TERM INT HUP; while :; do sleep 1; done", "kill -STOP $$"] {
            is_prompt(|| {
                let mut child = sandbox.spawn(script(text).stdin(Stdio::null())).unwrap();
                let killer = child.killer();
                is_shared(&killer);
                killed_meanwhile(killer.clone(), || {
                    assert_eq!(child.wait().unwrap().termination, Termination::Killed, "{text}");
                })
            });
        }
    }
}

#[apply(test)]
fn a_killer_wakes_the_thread_that_collects_output() {
    for sandbox in with_and_without_pid_namespace() {
        is_prompt(|| {
            let mut command = script("echo before; sleep 1000 & exec sleep 1000");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = sandbox.spawn(&command).unwrap();
            // The program has written by then.
            killed_after(at_most(SOON), child.killer(), || {
                let output = child.wait_with_output().unwrap();
                assert_eq!(output.outcome.termination, Termination::Killed);
                assert_eq!(text(&output.stdout), "before");
            })
        });
    }
}

#[apply(test)]
fn a_killer_wakes_an_event_loop() {
    is_prompt(|| {
        let mut child = spawn("exec sleep 1000");
        killed_meanwhile(child.killer(), || {
            let (outcome, rounds) = support::wait_by_poll(&mut child);
            assert_eq!(outcome.termination, Termination::Killed);
            assert!(rounds <= 3, "{rounds}");
        })
    });
}

#[apply(test)]
fn a_killer_kills_everything_that_the_program_has_started() {
    let marker = marker();
    let mut child = spawn(&(tree(&marker) + "wait"));
    line(&mut child);
    assert_eq!(sleepers(&marker).len(), 6);
    child.killer().kill().unwrap();
    until("nobody is left, though nobody waits", || sleepers(&marker).is_empty());
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);

    // Without a PID namespace, its process group.
    for sandbox in with_and_without_pid_namespace().into_iter().skip(1) {
        let script_text = format!("sleep {marker} & echo ready; exec sleep {marker}");
        let mut child = sandbox.root(Root::inherit()).spawn(script(&script_text).stdout(Stdio::piped())).unwrap();
        line(&mut child);
        until("both run", || sleepers(&marker).len() == 2);
        child.killer().kill().unwrap();
        until("nobody is left, though nobody waits", || sleepers(&marker).is_empty());
        assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    }
}

#[apply(test)]
fn a_killer_does_nothing_after_the_end() {
    let mut child = spawn("exit 9");
    let killer = child.killer();
    until("its end", || ended(&child));
    killer.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(9), "it had exited before");
    killer.kill().unwrap();
    child.killer().kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(9));
    drop(child);
    killer.kill().unwrap();
}

#[apply(test)]
fn a_killer_does_not_wait_for_the_grace_period() {
    let limits = Limits::new().wall_time(Duration::from_millis(20)).kill_grace(Duration::from_secs(1000));
    let sandbox = Sandbox::new().limits(limits);
    is_prompt(|| {
        let mut child = sandbox.spawn(script("trap '' TERM; while :; do sleep 1; done").stdin(Stdio::null())).unwrap();
        // The limit is exceeded by then.
        killed_after(at_most(SOON), child.killer(), || {
            assert_eq!(child.wait().unwrap().termination, Termination::WallTime, "the limit was exceeded before");
        })
    });
}

#[apply(test)]
fn a_limit_that_is_exceeded_after_the_kill_does_not_count() {
    let sandbox = Sandbox::new().limits(Limits::new().wall_time(Duration::from_millis(300)));
    let mut child = sandbox.spawn(script("exec sleep 1000").stdin(Stdio::null())).unwrap();
    child.killer().kill().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
}

#[apply(test)]
fn a_killer_and_a_drop_at_the_same_time_leave_nothing() {
    for sandbox in with_and_without_pid_namespace() {
        let sandbox = sandbox.root(Root::inherit());
        for round in 0..rounds(60) {
            let child = sandbox.spawn(Command::new("sleep").arg("1000").stdin(Stdio::null())).unwrap();
            let (id, killers) = (child.pid().number() as i32, [child.killer(), child.killer()]);
            std::thread::scope(|scope| {
                for (index, killer) in killers.into_iter().enumerate() {
                    scope.spawn(move || {
                        // At another moment of the drop each time.
                        let pause = Duration::from_micros(u64::from(round) * 20 * index as u64);
                        let start = Instant::now();
                        while start.elapsed() < pause {}
                        killer.kill().unwrap();
                    });
                }
                drop(child);
            });
            assert_eq!(state(id), None, "it is reaped");
        }
    }
}

fn holds_killers(_: &[String]) -> i32 {
    let before = support::descriptors();
    let mut killers = vec![];
    for _ in 0..3 {
        let mut child = spawn("exec sleep 1000");
        killers.push(child.killer());
        killers[0].kill().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    }
    assert_eq!(support::descriptors(), before);
    i32::from(killers.iter().any(|killer| killer.kill().is_err()))
}

#[apply(test)]
fn a_killer_keeps_no_descriptor_open() {
    on_host(&[], "killers", &[]);
}
