//! Cgroups are created for a sandbox and removed with it. Callers whose cgroups are counted are processes of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade::{Cgroup, Command, ErrorKind, Namespaces, Sandbox, Termination};

use crate::cgroups::groups::{is_v1, left_by, of_process, unless_accounts};
use crate::cgroups::{MS, eventually, group, quiet, sleeper, unfiltered, with, without};
use crate::support::{listed, on_host, processes, unless_pivot_root};

/// As for `a_program_that_mounts_its_cgroup_cannot_leave_it`.
fn unless_accounts_and_namespaces() -> Option<String> {
    unless_accounts().or_else(unless_pivot_root)
}

payloads![
    ("waits", caller_that_waits),
    ("keeps", caller_that_keeps_a_child),
    ("drops", caller_that_drops),
    ("fails", caller_that_fails),
    ("leaves", caller_that_leaves_processes),
    ("stays", caller_that_stays),
    ("many_threads", caller_with_threads),
];

/// With limits in many controllers, so that there are many groups.
fn much() -> Cgroup {
    group().memory_max(256 << 20).pids_max(100).cpu_weight(50)
}

/// This caller has as many groups as it has sandboxes with them, in each place.
fn none_is_left() {
    assert_eq!(left_by(std::process::id()), Vec::<std::path::PathBuf>::new());
}

fn has_groups() {
    assert!(!left_by(std::process::id()).is_empty(), "there are some meanwhile");
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_cgroup_remains_after_a_wait() {
    on_host(&[], "waits", &[]);
}

fn caller_that_waits(_: &[String]) -> i32 {
    assert!(with(much()).output(Command::new("true")).unwrap().outcome.success());
    assert!(with(much()).status(quiet("true")).unwrap().success());
    none_is_left();
    let mut child = sleeper(&with(much()));
    has_groups();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    drop(child);
    none_is_left();
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_cgroup_remains_while_an_exited_child_is_kept() {
    on_host(&[], "keeps", &[]);
}

fn caller_that_keeps_a_child(_: &[String]) -> i32 {
    let mut child = with(much()).spawn(quiet("sleep").arg("0.3")).unwrap();
    has_groups();
    let outcome = child.wait().unwrap();
    assert!(outcome.success());
    none_is_left();
    assert_eq!(child.usage(), outcome.usage);
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_cgroup_remains_after_a_drop() {
    on_host(&[], "drops", &[]);
}

fn caller_that_drops(_: &[String]) -> i32 {
    for namespaces in [Namespaces::all() - Namespaces::TIME, Namespaces::all() - Namespaces::TIME - Namespaces::PID] {
        let child = sleeper(&with(much()).namespaces(namespaces));
        has_groups();
        drop(child);
        none_is_left();
    }
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_cgroup_remains_after_a_failed_spawn() {
    on_host(&[], "fails", &[]);
}

fn caller_that_fails(_: &[String]) -> i32 {
    let error = with(much()).spawn(Command::new("no such program")).expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    none_is_left();
    let error = with(much()).spawn(Command::new("/etc/passwd")).expect_err("it is no program");
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error}");
    none_is_left();
    let mut command = Command::new("true");
    let error = with(much()).spawn(command.current_dir("/no/such/directory")).expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error}");
    none_is_left();
    let error = with(much().raw("cpu.no_such_file", "1")).spawn(Command::new("true")).expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error}");
    none_is_left();
    with(much()).plan(Command::new("true")).unwrap();
    none_is_left();
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_cgroup_of_leaked_processes_remains() {
    on_host(&[], "leaves", &[]);
}

fn caller_that_leaves_processes(_: &[String]) -> i32 {
    for namespaces in [Namespaces::all() - Namespaces::TIME, Namespaces::all() - Namespaces::TIME - Namespaces::PID] {
        let sandbox = with(much()).namespaces(namespaces);
        let script = "for n in 1 2 3 4 5 6 7 8 9; do setsid sleep 1000 & sleep 1000 & done; sleep 0.2";
        let outcome = listed(|| sandbox.status(quiet("sh").args(["-c", script])).unwrap());
        assert_eq!((outcome.termination, outcome.leaked.len()), (Termination::Exited(0), 18), "{outcome}");
        none_is_left();
    }
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_caller_stays_in_its_cgroup() {
    on_host(&[], "stays", &[]);
}

fn caller_that_stays(_: &[String]) -> i32 {
    let own = || fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = own();
    let child = sleeper(&with(much()));
    assert_ne!(
        of_process(child.pid().number(), "memory"),
        of_process(std::process::id(), "memory"),
        "the program is elsewhere"
    );
    assert_eq!(own(), before);
    drop(child);
    let _ = with(much()).spawn(Command::new("no such program"));
    assert_eq!(own(), before);
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn concurrent_spawns_get_cgroups_of_their_own() {
    on_host(&[], "many_threads", &[]);
}

fn caller_with_threads(_: &[String]) -> i32 {
    const THREADS: usize = 8;
    const EACH: usize = 4;
    let work = |_| {
        std::thread::spawn(|| {
            (0..EACH)
                .map(|_| sleeper(&with(much())))
                .map(|child| (of_process(child.pid().number(), "memory"), child))
                .collect()
        })
    };
    let threads: Vec<std::thread::JoinHandle<Vec<_>>> = (0..THREADS).map(work).collect();
    let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let names: BTreeSet<&Path> = all.iter().map(|(group, _)| group.as_path()).collect();
    assert_eq!(names.len(), THREADS * EACH);
    assert!(names.iter().all(|name| name.is_dir()));
    drop(all);
    none_is_left();
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn without_a_pid_namespace_the_cgroup_kills_processes_that_left_the_session() {
    let bare = |sandbox: Sandbox| sandbox.namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    let there = |time: &str| processes(|line| line == format!("sleep {time} "));
    let start = |sandbox: Sandbox, time: &str| {
        let script = format!("setsid sleep {time} & exec sleep 1000");
        let child = bare(sandbox).spawn(quiet("sh").args(["-c", &script])).unwrap();
        eventually("it sleeps", || !there(time).is_empty());
        child
    };
    let marker = |number: u32| format!("{}.{number}", 100_000 + std::process::id());
    let (free, bound, dropped) = (marker(1), marker(2), marker(3));

    drop(start(without(), &free));
    std::thread::sleep(100 * MS);
    let alive = there(&free);
    alive.iter().for_each(|&pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap());
    assert_eq!(alive.len(), 1, "without a group it lives on");

    let mut child = start(with(group()), &bound);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    eventually("it has ended", || there(&bound).is_empty());
    drop(start(with(group()), &dropped));
    eventually("it has ended", || there(&dropped).is_empty());
}

/// As `a_program_that_mounts_its_cgroup_cannot_leave_it`: who could leave it must not outlive it.
#[apply(test)]
#[skip(unless_accounts_and_namespaces)]
fn without_a_pid_namespace_the_cgroup_kills_processes_in_cgroups_below() {
    let time = format!("{}.4", 100_000 + std::process::id());
    let there = || processes(|line| line == format!("sleep {time} "));
    let own = format!(
        "{} && mkdir /tmp/inner && echo 0 >/tmp/inner/cgroup.procs; exec setsid sleep {time}",
        if is_v1("memory") { "mount -t cgroup -o memory none /tmp" } else { "mount -t cgroup2 none /tmp" }
    );
    let script = format!("unshare --user --keep-caps --mount --cgroup -- sh -c '{own}' & exec sleep 1000");
    let mut command = quiet("sh");
    command.args(["-c", &script]).stderr(stockade::Stdio::null());
    let child = unfiltered(group()).namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID).spawn(&command);
    eventually("it sleeps", || !there().is_empty());
    drop(child.unwrap());
    std::thread::sleep(200 * MS);
    let alive = there();
    alive.iter().for_each(|&pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap());
    assert_eq!(alive, Vec::<i32>::new());
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_cgroup_namespace_is_kept_on_request() {
    // The program's process creates it itself, inside its cgroup.
    let (kept, own) = crate::child::own_namespaces(&with(group()).keep_namespaces());
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), own.into_iter().collect());
}
