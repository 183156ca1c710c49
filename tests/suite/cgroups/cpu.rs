//! Shares of the CPUs, and limits on CPU time.

use std::time::Duration;

use stockade::outcome::Source;
use stockade::{Cgroup, Command, Layer, Limits, Outcome, Sandbox, Stdio, Termination};

use crate::cgroups::groups::{
    self, is_v1, of_process, unless_accounts, unless_cpu, unless_cpuset, unless_v1, unless_v2,
};
use crate::cgroups::{MS, group, payload, sleeper, succeeds, with, without};
use crate::support::{self, at_most, field, stdout, unless_root, unless_user};

payloads![("cpu_limited", caller_with_a_limit)];

fn unless_root_with_accounts() -> Option<String> {
    unless_root().or_else(unless_accounts)
}

fn unless_user_without_a_place() -> Option<String> {
    unless_user().or_else(unless_v1)
}

fn cpu(outcome: &Outcome) -> Duration {
    let used = outcome.usage.cpu_time.expect("CPU time");
    assert_eq!(used.source, Source::Cgroup);
    used.value
}

#[apply(test)]
#[skip(unless_cpu)]
fn half_a_cpu_is_half_of_its_time() {
    let time = at_most(400 * MS);
    let wall = time.as_millis().to_string();
    // Others need CPUs too: with so much weight it gets what it may have.
    let used_of = |cgroup: Cgroup| cpu(&succeeds(&with(cgroup.cpu_weight(10_000)), "burn-wall", &[&wall]).1);
    assert!((0..10).any(|_| used_of(group()) > time * 4 / 5), "without a limit it has a CPU for itself");
    let used = used_of(group().cpu_max(0.5));
    assert!((time / 4..time * 3 / 4).contains(&used), "{used:?} of {time:?}");
}

#[apply(test)]
#[skip(unless_cpu)]
fn the_quota_applies_to_the_requested_period() {
    let read = |cgroup| {
        let child = sleeper(&with(cgroup));
        let own = of_process(child.pid().number(), "cpu");
        let said = if is_v1("cpu") {
            ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| groups::read(&own, file)).join(" ")
        } else {
            groups::read(&own, "cpu.max").replace("max", "-1")
        };
        said.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(read(group()), [-1, 100_000]);
    assert_eq!(read(group().cpu_max(0.5)), [50_000, 100_000]);
    assert_eq!(read(group().cpu_max(0.01)), [1000, 100_000]);
    assert_eq!(read(group().cpu_max_in(2.5, 20 * MS)), [50_000, 20_000]);
    assert_eq!(read(group().cpu_max_in(1.0, MS)), [1000, 1000]);
    assert_eq!(read(group().cpu_max_in(0.25, 1000 * MS)), [250_000, 1_000_000]);
    assert_eq!(read(group().cpu_max(1e6)), [100_000_000_000, 100_000]);
}

#[apply(test)]
#[skip(unless_cpu)]
fn weights_are_shares() {
    let read = |cgroup| {
        let child = sleeper(&with(cgroup));
        let file = groups::file("cpu", "cpu.shares", "cpu.weight");
        groups::read(&of_process(child.pid().number(), "cpu"), file).parse::<u64>().unwrap()
    };
    let is_v1 = is_v1("cpu");
    assert_eq!(read(group()), if is_v1 { 1024 } else { 100 });
    for (weight, shares) in [(1, 10), (100, 1024), (200, 2048), (10_000, 102_400)] {
        assert_eq!(read(group().cpu_weight(weight)), if is_v1 { shares } else { weight.into() }, "{weight}");
    }
}

/// What a program finds in its status.
fn seen(sandbox: &Sandbox, name: &str) -> String {
    field(&stdout(sandbox, "cat /proc/self/status"), name)
}

/// The numbers in a list such as `0-3,7`.
fn numbers(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    };
    list.split(',').flat_map(range).collect()
}

#[apply(test)]
#[skip(unless_cpuset)]
fn cpus_are_those_requested() {
    let all = seen(&with(group()), "Cpus_allowed_list");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(all, field(&own, "Cpus_allowed_list"), "all, without a limit");
    for cpu in numbers(&all) {
        let one = seen(&with(group().cpuset_cpus(cpu.to_string())), "Cpus_allowed_list");
        assert_eq!(one, cpu.to_string());
    }
    assert_eq!(seen(&with(group().cpuset_cpus(&all)), "Cpus_allowed_list"), all);
}

#[apply(test)]
#[skip(unless_cpuset)]
fn memory_nodes_are_those_requested() {
    let all = seen(&with(group()), "Mems_allowed_list");
    let first = numbers(&all)[0].to_string();
    assert_eq!(seen(&with(group().cpuset_mems(&first)), "Mems_allowed_list"), first);
}

/// The CPUs that this machine can have, and those that it has.
fn cpus_of_machine() -> [Vec<u32>; 2] {
    let file = |name: &str| std::fs::read_to_string(format!("/sys/devices/system/cpu/{name}")).unwrap_or_default();
    ["possible", "online"].map(|name| numbers(file(name).trim()))
}

/// v1 refuses them itself.
fn unless_cpus_are_lacking() -> Option<String> {
    let [possible, online] = cpus_of_machine();
    unless_v2().or_else(unless_cpuset).or_else(|| {
        (possible.len() <= online.len()).then(|| "all CPUs that this machine can have are there".to_owned())
    })
}

#[apply(test)]
#[skip(unless_cpus_are_lacking)]
fn cpus_that_the_group_above_lacks_are_an_error() {
    let [possible, online] = cpus_of_machine();
    let lacking = possible.iter().find(|cpu| !online.contains(cpu)).expect("one that is not there");
    for list in [lacking.to_string(), format!("{},{lacking}", online[0])] {
        // The kernel takes the list, and gives something else.
        let file = group().raw("cpuset.cpus", &list);
        for cgroup in [group().cpuset_cpus(&list), file] {
            let error = support::refused(&with(cgroup));
            assert_eq!(error.layer(), Some(Layer::Cgroup), "{error}");
            let said = error.to_string();
            assert!(said.contains(&format!(" {list:?} is not available below /")), "{said}");
            assert!(said.contains("it has \"0\""), "{said}");
        }
    }
}

fn limited(time: Duration) -> Sandbox {
    with(group()).limits(Limits::new().cpu_time(time).wall_time(at_most(30_000 * MS)))
}

/// The limit was kept, and that soon.
fn is_ended_at(limit: Duration, outcome: &Outcome) {
    assert_eq!(outcome.termination, Termination::CpuTime, "{outcome}");
    let used = cpu(outcome);
    assert!((limit..=limit + at_most(50 * MS)).contains(&used), "{used:?} of {limit:?}");
}

#[apply(test)]
#[skip(unless_accounts)]
fn programs_that_exceed_the_cpu_time_limit_are_killed() {
    let (_, free) = succeeds(&with(group()), "burn", &["400"]);
    assert!(cpu(&free) >= 400 * MS, "{free}");
    is_ended_at(200 * MS, &payload(&limited(200 * MS), "burn", &["20000"]).outcome);
    let mut command = support::payload("burn");
    is_ended_at(200 * MS, &limited(200 * MS).status(command.arg("20000")).unwrap());
    let mut child = limited(200 * MS).spawn(&command).unwrap();
    let outcome = loop {
        if let Some(outcome) = child.try_wait().unwrap() {
            break outcome;
        }
        std::thread::sleep(MS);
    };
    is_ended_at(200 * MS, &outcome);
}

#[apply(test)]
#[skip(unless_accounts)]
fn an_event_loop_keeps_cpu_time_without_spinning() {
    let mut command = support::payload("burn");
    command.arg("20000").stdin(Stdio::null());
    let mut child = limited(200 * MS).spawn(&command).unwrap();
    let (outcome, rounds) = support::wait_by_poll(&mut child);
    is_ended_at(200 * MS, &outcome);
    // It is polled every millisecond at most: as often as `Child::wait` does.
    let most = outcome.usage.wall_time.as_millis() as u32 + 5;
    assert!(rounds <= most, "{rounds} rounds in {:?}", outcome.usage.wall_time);
    println!("a limit on CPU time of 200 ms, by an event loop: {:?} in {rounds} rounds", cpu(&outcome));
}

#[apply(test)]
#[skip(unless_accounts)]
fn an_event_loop_keeps_idleness_without_spinning() {
    let mut child = idle(300 * MS).spawn(crate::cgroups::quiet("sleep").arg("20")).unwrap();
    let (outcome, rounds) = support::wait_by_poll(&mut child);
    assert_eq!(outcome.termination, Termination::Idle, "{outcome}");
    assert!((300 * MS..at_most(3000 * MS)).contains(&outcome.usage.wall_time), "{outcome}");
    // A poll in each quarter of the time, each maybe too early once.
    assert!(rounds <= 20, "{rounds} rounds");
}

#[apply(test)]
#[skip(unless_accounts)]
fn cpu_time_of_all_processes_is_summed() {
    is_ended_at(300 * MS, &payload(&limited(300 * MS), "burn-many", &["4", "20000"]).outcome);
}

#[apply(test)]
#[skip(unless_accounts)]
fn cpu_time_of_exited_processes_counts() {
    let script = "while :; do /payload --payload burn 40; done";
    let output = support::sh(&limited(300 * MS), script);
    is_ended_at(300 * MS, &output.outcome);
}

#[apply(test)]
#[skip(unless_accounts)]
fn programs_below_the_cpu_time_limit_are_not_killed() {
    let (_, outcome) = succeeds(&limited(10_000 * MS), "burn", &["200"]);
    assert!((200 * MS..at_most(1000 * MS)).contains(&cpu(&outcome)), "{outcome}");
    let script = format!("sleep {}; exit 3", at_most(600 * MS).as_secs_f64());
    let asleep = support::sh(&limited(at_most(200 * MS)), &script).outcome;
    assert_eq!(asleep.termination, Termination::Exited(3), "time that is slept does not count");
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_cpu_time_limit_of_zero_expires_at_once() {
    for none in [Duration::ZERO, Duration::from_nanos(1)] {
        let outcome = support::sh(&limited(none), "sleep 20").outcome;
        assert_eq!(outcome.termination, Termination::CpuTime, "{none:?}");
        assert!(outcome.usage.wall_time < at_most(5000 * MS), "{outcome}");
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_longest_cpu_time_limit_never_expires() {
    // A limit of the process stands behind it, which the kernel counts in nanoseconds.
    let nanoseconds = u64::MAX / 1_000_000_000;
    for seconds in [1 << 32, nanoseconds - 1, nanoseconds, nanoseconds + 1, 1 << 62, i64::MAX as u64, u64::MAX - 1] {
        let _ = succeeds(&limited(Duration::from_secs(seconds)), "burn", &["20"]);
    }
    let _ = succeeds(&limited(Duration::MAX), "burn", &["20"]);
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_cpu_time_limit_may_exceed_the_callers_rlimit() {
    for limit in ["50", "100", "200"] {
        support::on_host(&["prlimit", "--cpu=100:100"], "cpu_limited", &[limit]);
    }
}

/// A caller that limits a program to so many seconds.
fn caller_with_a_limit(args: &[String]) -> i32 {
    let limit = limited(Duration::from_secs(args[0].parse().expect("seconds")));
    let outcome = limit.status(crate::cgroups::quiet("true")).expect("a program");
    i32::from(!outcome.success())
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_accounts)]
fn a_cpu_time_limit_alone_creates_a_cgroup() {
    let sandbox = without().limits(Limits::new().cpu_time(100 * MS).wall_time(at_most(30_000 * MS)));
    is_ended_at(100 * MS, &payload(&sandbox, "burn", &["20000"]).outcome);
}

#[apply(test)]
#[only(User)]
#[skip(unless_user_without_a_place)]
fn a_cpu_time_limit_without_a_cgroup_parent_is_an_error() {
    let (what, remedy) = support::invalid(&without().limits(Limits::new().cpu_time(100 * MS)));
    assert!(what.contains("Limits::cpu_time or Limits::idle_timeout cannot be enforced"), "{what}");
    assert!(remedy.contains("CgroupParent::Path"), "{remedy}");
}

/// RLIMIT_CPU keeps it, of each process for itself, and to the next second.
#[apply(test)]
#[only(User)]
#[skip(unless_user_without_a_place)]
fn cpu_time_is_limited_with_a_best_effort_cgroup_too() {
    let sandbox = without().best_effort([Layer::Cgroup]);
    let limited = |cpu: Duration| sandbox.clone().limits(Limits::new().cpu_time(cpu).wall_time(at_most(30_000 * MS)));
    let outcome = payload(&limited(300 * MS), "burn", &["20000"]).outcome;
    assert_eq!(outcome.termination, Termination::CpuTime, "{outcome}");
    assert!(outcome.usage.cpu_time.unwrap().value < at_most(2000 * MS), "{outcome}");
    let [lost] = &outcome.enforcement.unenforced[..] else { panic!("{:?}", outcome.enforcement.unenforced) };
    assert!(lost.layer == Layer::Cgroup && lost.requested.contains("CPU time"), "{lost:?}");
    let mut command = support::payload("burn");
    let (by_poll, rounds) =
        support::wait_by_poll(&mut limited(300 * MS).spawn(command.arg("20000").stdin(Stdio::null())).unwrap());
    assert_eq!(by_poll.termination, Termination::CpuTime, "{by_poll}");
    assert!(rounds <= 10, "{rounds} rounds");
    let outcome = sandbox_true(&limited(300 * MS));
    assert_eq!(outcome.termination, Termination::Exited(0), "{outcome}");
}

fn sandbox_true(sandbox: &Sandbox) -> Outcome {
    sandbox.status(Command::new("true")).unwrap()
}

fn idle(time: Duration) -> Sandbox {
    with(group()).limits(Limits::new().idle_timeout(time).wall_time(at_most(30_000 * MS)))
}

#[apply(test)]
#[skip(unless_accounts)]
fn idle_programs_are_killed() {
    let outcome = support::sh(&idle(300 * MS), "sleep 20").outcome;
    assert_eq!(outcome.termination, Termination::Idle);
    assert!((300 * MS..at_most(3000 * MS)).contains(&outcome.usage.wall_time), "{outcome}");
    assert_eq!(idle(300 * MS).status(crate::cgroups::quiet("sleep").arg("20")).unwrap().termination, Termination::Idle);
    let short = support::sh(&idle(at_most(5000 * MS)), "sleep 0.3").outcome;
    assert_eq!(short.termination, Termination::Exited(0), "it ended before");
}

#[apply(test)]
#[skip(unless_accounts)]
fn an_idle_limit_of_zero_expires_at_once_and_the_longest_never() {
    for none in [Duration::ZERO, Duration::from_nanos(1)] {
        let outcome = support::sh(&idle(none), "sleep 20").outcome;
        assert_eq!(outcome.termination, Termination::Idle, "{none:?}");
        assert!(outcome.usage.wall_time < at_most(3000 * MS), "{outcome}");
    }
    for longest in [Duration::from_secs(i64::MAX as u64), Duration::MAX] {
        let _ = succeeds(&idle(longest), "burn", &["20"]);
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn occasional_activity_is_not_idle() {
    let _ = succeeds(&idle(400 * MS), "burn-wall", &["1200"]);
    // Longer than the time, in steps that are much shorter than it.
    let steps = "for n in $(seq 1 25); do sleep 0.1; /payload --payload burn 5; done";
    assert_eq!(support::sh(&idle(at_most(2000 * MS)), steps).outcome.termination, Termination::Exited(0));
}
