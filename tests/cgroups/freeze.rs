//! Freezing and thawing.

use std::time::{Duration, Instant};

use stockade::{Child, Error, Limits, Sandbox, Stdio, Termination};

use crate::groups::{entered_by, left_by, of_process, read, unless_accounts, unless_freezer};
use crate::support::{self, Test, at_most};
use crate::tests;
use crate::{MS, eventually, group, sleeper, with, without};

pub const TESTS: &[Test] = tests![
    who_is_frozen_does_nothing_until_it_is_thawed if unless_freezer,
    all_processes_are_frozen if unless_freezer,
    who_is_frozen_can_be_killed if unless_freezer,
    who_is_frozen_can_be_dropped if unless_freezer,
    time_goes_on_for_who_is_frozen if unless_freezer,
    freezing_twice_is_no_error if unless_freezer,
    what_is_not_freezable_can_not_be_frozen if unless_accounts,
];

fn freezable() -> Sandbox {
    with(group().freezable())
}

fn burner(sandbox: &Sandbox, name: &str, args: &[&str]) -> Child {
    let mut command = support::payload(name);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    sandbox.spawn(&command).unwrap()
}

/// CPU time that it has used, by its group.
fn used(child: &Child) -> Duration {
    child.usage().cpu.expect("CPU time").value
}

fn stops_and_goes_on(child: &mut Child) {
    eventually("it runs", || used(child) > 50 * MS);
    child.freeze().unwrap();
    // Whoever is in the kernel freezes on its way out of it.
    std::thread::sleep(100 * MS);
    let before = used(child);
    std::thread::sleep(300 * MS);
    let after = used(child);
    assert!(after < before + at_most(5 * MS), "{before:?}, then {after:?}");
    assert_eq!(child.try_wait().unwrap(), None);
    child.thaw().unwrap();
    eventually("it goes on", || used(child) > after + 50 * MS);
}

fn who_is_frozen_does_nothing_until_it_is_thawed() {
    let mut child = burner(&freezable(), "burn", &["500"]);
    stops_and_goes_on(&mut child);
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(0));
}

fn all_processes_are_frozen() {
    let mut child = burner(&freezable(), "burn-many", &["3", "20000"]);
    let processes = || read(&entered_by(child.id(), "freezer"), "cgroup.procs").lines().count();
    eventually("there are its processes", || processes() == 4);
    stops_and_goes_on(&mut child);
}

/// It ends soon.
fn is_soon(start: Instant) {
    assert!(start.elapsed() < at_most(3000 * MS), "{:?}", start.elapsed());
}

fn who_is_frozen_can_be_killed() {
    let mut child = burner(&freezable(), "burn", &["20000"]);
    child.freeze().unwrap();
    let start = Instant::now();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    is_soon(start);
}

fn who_is_frozen_can_be_dropped() {
    let child = sleeper(&freezable());
    let pid = child.id();
    let own = of_process(pid, "freezer");
    child.freeze().unwrap();
    let start = Instant::now();
    drop(child);
    is_soon(start);
    assert!(!left_by(std::process::id()).contains(&own), "{} is there still", own.display());
}

fn time_goes_on_for_who_is_frozen() {
    let mut child = sleeper(&freezable().limits(Limits::new().wall(400 * MS)));
    child.freeze().unwrap();
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().termination, Termination::WallTime);
    is_soon(start);
}

fn freezing_twice_is_no_error() {
    let mut child = burner(&freezable(), "burn", &["300"]);
    child.thaw().unwrap();
    child.freeze().unwrap();
    child.freeze().unwrap();
    child.thaw().unwrap();
    child.thaw().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(0));
}

fn what_is_not_freezable_can_not_be_frozen() {
    for sandbox in [with(group()), without()] {
        let child = sleeper(&sandbox);
        for result in [child.freeze(), child.thaw()] {
            match result {
                Err(Error::Invalid { what, remedy, .. }) => {
                    assert!(what.contains("frozen") && remedy.contains("freezable"), "{what}: {remedy}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
