//! The limit on processes, and what a program sees of its own cgroup.

use std::io::{BufRead, BufReader};

use stockade::capabilities::Capability;
use stockade::{Capabilities, Command, Identity, Namespaces, Sandbox, Stdio, Termination};

use crate::cgroups::groups::{self, entered_by, is_v1, of_process, unless_accounts, unless_limits};
use crate::cgroups::{group, sleeper, succeeds, unfiltered, with, without};
use crate::support::{self, fails, is_root, sh, stdout, text, unless_pivot_root};

/// A program that is not in a root of its own can make no user namespaces, in which it could mount its group.
fn unless_limits_and_namespaces() -> Option<String> {
    unless_limits().or_else(unless_pivot_root)
}

const AGAIN: i32 = libc::EAGAIN;

/// How many it could start, and the error that kept it from more.
fn started(sandbox: &Sandbox, what: &str, wanted: u32) -> (u32, i32) {
    let (said, _) = succeeds(sandbox, what, &[&wanted.to_string()]);
    let (count, error) = said.split_once(' ').unwrap_or_else(|| panic!("{said}"));
    (count.parse().unwrap(), error.parse().unwrap())
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_number_of_processes_is_exactly_limited() {
    assert_eq!(started(&with(group()), "spawn", 20), (20, 0));
    // The program is one of them.
    assert_eq!(started(&with(group().pids_max(5)), "spawn", 4), (4, 0));
    assert_eq!(started(&with(group().pids_max(5)), "spawn", 20), (4, AGAIN));
}

#[apply(test)]
#[skip(unless_accounts)]
fn threads_count_as_processes() {
    assert_eq!(started(&with(group()), "threads_up_to", 20), (20, 0));
    assert_eq!(started(&with(group().pids_max(5)), "threads_up_to", 20), (4, AGAIN));
}

#[apply(test)]
#[skip(unless_accounts)]
fn with_a_limit_of_one_process_only_the_program_runs() {
    assert_eq!(started(&with(group().pids_max(1)), "spawn", 20), (0, AGAIN));
}

#[apply(test)]
fn limits_of_zero_processes_and_zero_memory_are_refused() {
    let (what, remedy) = support::invalid(&with(group().pids_max(0)));
    assert!(what.contains("pids_max is 0") && remedy.contains("at least 1"), "{what}: {remedy}");
    let (what, remedy) = support::invalid(&with(group().memory_max(0)));
    assert!(what.contains("memory_max is 0") && remedy.contains("bytes"), "{what}: {remedy}");
}

#[apply(test)]
#[skip(unless_accounts)]
fn forks_denied_by_the_limit_are_counted() {
    let counted = |sandbox: &Sandbox| {
        let outcome = sandbox.output(support::payload("spawn").arg("20")).unwrap().outcome;
        (outcome.usage.pids_denied.map(|reading| reading.value), outcome.to_string())
    };
    let (none, said) = counted(&with(group()));
    assert!(none == Some(0) && !said.contains("refused"), "{none:?}: {said}");
    let (one, said) = counted(&with(group().pids_max(5)));
    assert!(one == Some(1) && said.contains("1 process denied by the limit"), "{one:?}: {said}");
    assert_eq!(counted(&without()).0, None, "nobody counts");
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_largest_number_of_processes_is_accepted() {
    // The kernel knows no more than 4 million pids, and takes no larger number.
    assert_eq!(started(&with(group().pids_max(1 << 22)), "spawn", 20), (20, 0));
    for count in [(1 << 22) + 1, i64::MAX as u64, u64::MAX] {
        assert_eq!(started(&with(group().pids_max(count)), "spawn", 20), (20, 0), "{count}");
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_init_is_outside_of_the_group() {
    let child = sleeper(&with(group()));
    for controller in ["memory", "cpuacct", "pids"] {
        let inside = groups::read(&entered_by(child.pid().number(), controller), "cgroup.procs");
        assert_eq!(inside, child.pid().number().to_string(), "{controller}");
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_program_does_not_see_the_path_of_its_cgroup() {
    let own = "cat /proc/self/cgroup";
    let host = with(group()).namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::CGROUP);
    assert!(stdout(&host, own).contains("/stockade-"), "it would see it without a namespace");
    for sandbox in [with(group()), without()] {
        let seen = stdout(&sandbox, own);
        assert!(!seen.is_empty() && seen.lines().all(|line| line.ends_with(":/")), "{seen}");
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_program_cannot_reach_its_limits() {
    let limited = group().memory_max(64 << 20).pids_max(50);
    let shown = with(limited.clone());
    let mounts = stdout(&shown, "cat /proc/self/mountinfo");
    let views: Vec<&str> = mounts.lines().filter(|line| line.contains(" - cgroup")).collect();
    assert!(!views.is_empty() && views.iter().all(|line| line.contains(" ro,")), "{mounts}");
    fails(&shown, "for file in $(find /sys/fs/cgroup -name cgroup.procs); do echo 0 >$file && exit 0; done; exit 1");
    let sandbox = with(limited.hidden());
    let mounts = stdout(&sandbox, "cat /proc/self/mountinfo");
    assert!(!mounts.contains(" - cgroup"), "{mounts}");
    assert_eq!(stdout(&sandbox, "find / -name 'tasks' -path '*cgroup*' -not -path '/proc/*' 2>/dev/null; true"), "");
    assert_eq!(stdout(&sandbox, "ls /sys/fs/cgroup 2>/dev/null | wc -l"), "0");
}

/// Mounts the hierarchy that has a controller.
fn mount_of(controller: &str) -> String {
    if is_v1(controller) {
        format!("mount -t cgroup -o {controller} none /tmp")
    } else {
        "mount -t cgroup2 none /tmp".into()
    }
}

/// In a user namespace of its own a program has the rights to mount, and sees its group at the root.
#[apply(test)]
#[skip(unless_limits_and_namespaces)]
fn a_program_that_mounts_its_cgroup_cannot_change_it() {
    mounts_its_group_and_writes_to_it("unshare --user --map-root-user --mount --cgroup --", &|sandbox| sandbox);
}

/// Nor may one do it that is the caller's user, to whom the files of the limits belong as all that the caller makes.
#[apply(test)]
#[skip(unless_limits_and_namespaces)]
fn a_program_with_the_callers_user_cannot_change_its_cgroup() {
    let mounts = Capabilities::none().keep([Capability::SysAdmin]);
    mounts_its_group_and_writes_to_it("", &|sandbox| {
        sandbox.identity(Identity::caller().uid(0).gid(0)).capabilities(mounts.clone())
    });
}

fn mounts_its_group_and_writes_to_it(by: &str, changed: &dyn Fn(Sandbox) -> Sandbox) {
    for (controller, v1, v2, value, wanted) in [
        ("memory", "memory.limit_in_bytes", "memory.max", "67108864", "1073741824"),
        (
            "memory",
            "memory.memsw.limit_in_bytes",
            "memory.oom.group",
            if is_v1("memory") { "67108864" } else { "1" },
            "0",
        ),
        ("pids", "pids.max", "pids.max", "50", "5000"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max", if is_v1("cpu") { "50000" } else { "50000 100000" }, "-1"),
    ] {
        let (file, mount) = (groups::file(controller, v1, v2), mount_of(controller));
        let own = format!("{mount} && (echo {wanted} >/tmp/{file}; cat /tmp/{file})");
        let script = format!("{by} sh -c '{own}'; echo tried; sleep 1000");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let sandbox = changed(unfiltered(group().memory_max(64 << 20).pids_max(50).cpu_max(0.5)));
        let mut child = sandbox.spawn(&command).unwrap();
        let group = of_process(child.pid().number(), controller);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "tried"));
        assert_eq!(groups::read(&group, file), value, "{file} after the program has written to it");
    }
}

/// Nor can it leave it: a group that it makes lies below, where the same limits hold.
#[apply(test)]
#[skip(unless_limits_and_namespaces)]
fn a_program_that_mounts_its_cgroup_cannot_leave_it() {
    let own = format!("{} && mkdir /tmp/inner && echo 0 >/tmp/inner/cgroup.procs && echo inner", mount_of("memory"));
    let script = format!(
        "unshare --user --map-root-user --mount --cgroup -- sh -c '{own}; head -c 200000000 /dev/zero | tail \
         >/dev/null' 2>&1"
    );
    let output = sh(&unfiltered(group().memory_max(64 << 20)), &script);
    assert_eq!(output.outcome.termination, Termination::Memory, "{}", text(&output.stdout));
    // The files are those of an ordinary caller, and so the program's.
    assert_eq!(text(&output.stdout).starts_with("inner"), !is_root(), "{}", text(&output.stdout));
}
