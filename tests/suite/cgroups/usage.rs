//! The reported usage, and leaked processes.

use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::time::Duration;

use stockade::outcome::Source;
use stockade::{Command, Stdio, Termination};

use crate::cgroups::groups::{entered_by, unless_accounts, unless_cpu, unless_peak};
use crate::cgroups::{MB, MS, eventually, group, quiet, succeeds, with, without};
use crate::support::{self, at_most, listed, sh, slowness, touched};

payloads![("named", named)];

#[apply(test)]
#[skip(unless_peak)]
fn usage_is_measured_by_the_cgroup() {
    let usage = sh(&without(), "true").outcome.usage;
    assert_eq!(usage.cpu_time.map(|cpu| cpu.source), Some(Source::Rusage), "without one");
    assert_eq!(usage.memory_peak, None);
    let usage = sh(&with(group()), "true").outcome.usage;
    let cpu = usage.cpu_time.expect("CPU time");
    assert_eq!(cpu.source, Source::Cgroup);
    assert!(cpu.value > Duration::ZERO && cpu.value < at_most(1000 * MS), "{cpu:?}");
    let peak = usage.memory_peak.expect("the peak of memory");
    assert_eq!(peak.source, Source::Cgroup);
    assert!(peak.value > 0);
    let [user, system] = [usage.user_time, usage.system_time].map(|time| time.expect("its parts"));
    assert_eq!([user.source, system.source], [Source::Cgroup; 2]);
}

#[apply(test)]
#[skip(unless_peak)]
fn memory_of_the_caller_is_not_counted() {
    let bytes = touched(300 << 20);
    let peak = sh(&with(group()), "true").outcome.usage.memory_peak.expect("the peak").value;
    assert!(peak < 20 * MB, "{peak}");
    let most = with(group()).status(quiet("true")).unwrap().usage.memory_peak.expect("the peak").value;
    assert!(most < 20 * MB, "{most}");
    drop(black_box(bytes));
}

#[apply(test)]
#[skip(unless_peak)]
fn memory_of_all_processes_is_summed() {
    let (_, one) = succeeds(&with(group()), "touch", &["24"]);
    let (_, two) = succeeds(&with(group()), "touch-twice", &["24"]);
    let [one, two] = [one, two].map(|outcome| outcome.usage.memory_peak.expect("the peak").value);
    assert!((24 * MB..40 * MB).contains(&one), "{one}");
    assert!((48 * MB..80 * MB).contains(&two), "{two}");
}

#[apply(test)]
#[skip(unless_accounts)]
fn reported_cpu_time_matches_the_programs_own_measure() {
    // The group counts the way to the program and its end too, which takes an emulated CPU a while.
    let (time, tolerance) = if slowness() > 1 { (2000, 100 * MS) } else { (500, 12 * MS) };
    let (said, outcome) = succeeds(&with(group()), "burn", &[&time.to_string()]);
    let own = Duration::from_micros(said.parse().unwrap());
    let counted = outcome.usage.cpu_time.expect("CPU time").value;
    assert!(own >= time * MS, "{own:?}");
    assert!(counted.abs_diff(own) <= tolerance, "{counted:?}, and it says {own:?}");
}

#[apply(test)]
#[skip(unless_cpu)]
fn cpu_time_of_unwaited_descendants_is_counted() {
    // The child is left behind busy, and killed with the sandbox.
    let script = format!("/payload --payload burn 20000 & sleep {}", at_most(1000 * MS).as_secs_f64());
    let of = |sandbox| sh(&sandbox, &script).outcome.usage.cpu_time.expect("CPU time");
    let missing = of(without());
    assert!(missing.value < at_most(150 * MS), "rusage does not count it");
    assert!(missing.source.is_lower_bound(), "{missing:?}");
    // Others need CPUs too: with so much weight it gets enough.
    let counted = of(with(group().cpu_weight(10_000)));
    assert!(counted.value > at_most(200 * MS) && !counted.source.is_lower_bound(), "{counted:?}");
}

#[apply(test)]
#[skip(unless_peak)]
fn usage_grows_while_the_program_runs() {
    let mut command = support::payload("burn");
    command.arg("20000").stdin(stockade::Stdio::null()).stdout(stockade::Stdio::null());
    let mut child = with(group()).spawn(&command).unwrap();
    let used = |child: &stockade::Child| {
        let cpu = child.usage().cpu_time.expect("CPU time");
        assert_eq!(cpu.source, Source::Cgroup);
        cpu.value
    };
    let mut last = used(&child);
    for _ in 0..3 {
        eventually("more is used", || used(&child) > last + 5 * MS);
        last = used(&child);
    }
    assert!(child.usage().memory_peak.expect("the peak").value > 0);
    child.kill().unwrap();
    let outcome = child.wait().unwrap();
    assert_eq!(outcome.termination, Termination::Killed);
    assert!(outcome.usage.cpu_time.unwrap().value >= last, "{outcome}");
    assert_eq!(child.usage(), outcome.usage, "afterwards it is that of the outcome");
}

#[apply(test)]
#[skip(unless_accounts)]
fn leaked_processes_are_reported_by_name() {
    const SCRIPT: &str = "sleep 1000 & setsid sleep 1000 & \
                          until [ $(grep -l '^sleep$' /proc/[0-9]*/comm 2>/dev/null | wc -l) = 2 ]; do :; done; exit 4";
    let outcome = listed(|| sh(&with(group()), SCRIPT).outcome);
    assert_eq!(outcome.termination, Termination::Exited(4));
    let names: Vec<_> = outcome.leaked.iter().map(|leaked| leaked.name.as_str()).collect();
    assert_eq!(names, ["sleep", "sleep"], "{outcome}");
    for leaked in &outcome.leaked {
        assert!(leaked.pid.number() > 0);
        let is_alive = support::processes(|line| line == "sleep 1000 ").contains(&(leaked.pid.number() as i32));
        assert!(!is_alive, "{leaked:?} has ended with the sandbox");
    }
    assert!(outcome.to_string().contains("2 leaked processes (sleep"), "{outcome}");
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_late_wait_reports_that_leaked_processes_are_unlisted() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & read go; echo done"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = with(group()).spawn(&command).expect("a shell");
    let members = entered_by(child.pid().number(), "memory").join("cgroup.procs");
    drop(child.stdin.take());
    let mut said = String::new();
    // To its end, which comes when everyone is killed; they leave the group a moment later.
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("its output");
    eventually("nobody is left", || fs::read_to_string(&members).is_ok_and(|pids| pids.is_empty()));
    let late = child.wait().expect("an outcome");
    assert_eq!((late.leaked.len(), late.omitted.leaked_late), (0, true), "{late:#}");
    assert!(format!("{late:#}").contains("killed before the caller waited"), "{late:#}");

    let asked = listed(|| with(group()).output(&command).expect("a shell").outcome);
    assert_eq!((asked.leaked.len(), asked.omitted.leaked_late), (1, false), "{asked:#}");
}

/// Takes a name that moves the cursor, and waits.
fn named(_: &[String]) -> i32 {
    nix::sys::prctl::set_name(c"a\xff\x1b[2J").unwrap();
    println!("named");
    loop {
        std::thread::park();
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn process_names_that_are_not_text_are_escaped() {
    let script = "/payload --payload named >/tmp/said & until [ -s /tmp/said ]; do :; done; exit 4";
    let outcome = listed(|| sh(&with(group()), script).outcome);
    let names: Vec<_> = outcome.leaked.iter().map(|leaked| leaked.name.as_str()).collect();
    assert_eq!(names, [r"a\xff\u{1b}[2J"], "{outcome}");
    assert!(!outcome.to_string().contains('\x1b'));
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_leaked_process_is_reported_without_cause() {
    for script in ["true", "sleep 0.1 & wait", "sleep 0.1 & wait; exit 3", "kill -KILL $$"] {
        assert_eq!(sh(&with(group()), script).outcome.leaked, [], "{script}");
    }
    let unknown = sh(&without(), "sleep 1000 & sleep 0.1").outcome.leaked;
    assert_eq!(unknown, [], "without a group nobody is known");
}
