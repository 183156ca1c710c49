//! Groups are made for a sandbox and go with it. Hosts whose groups are counted are processes of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade::{Cgroup, Command, Error, Namespaces, Sandbox, Termination};

use crate::groups::{is_v1, left_by, of_process, unless_accounts};
use crate::support::{Payload, Test, listed, on_host, processes, unless_pivot_root};
use crate::tests;
use crate::{MS, eventually, group, quiet, sleeper, unfiltered, with, without};

pub const TESTS: &[Test] = tests![
    no_group_stays_after_a_wait if unless_accounts,
    no_group_stays_while_a_child_that_has_ended_is_kept if unless_accounts,
    no_group_stays_after_a_drop if unless_accounts,
    no_group_stays_after_a_failed_spawn if unless_accounts,
    no_group_stays_of_processes_left_behind if unless_accounts,
    the_host_stays_where_it_is if unless_accounts,
    threads_that_spawn_at_once_get_groups_of_their_own if unless_accounts,
    without_a_pid_namespace_the_group_ends_who_has_left_the_session if unless_accounts,
    without_a_pid_namespace_the_group_ends_who_has_made_one_below_it if unless_accounts_and_namespaces,
];

/// As for `a_program_that_mounts_its_group_can_not_leave_it`.
fn unless_accounts_and_namespaces() -> Option<String> {
    unless_accounts().or_else(unless_pivot_root)
}

pub const PAYLOADS: &[Payload] = &[
    ("waits", host_that_waits),
    ("keeps", host_that_keeps_a_child),
    ("drops", host_that_drops),
    ("fails", host_that_fails),
    ("leaves", host_that_leaves_processes),
    ("stays", host_that_stays),
    ("many", host_with_threads),
];

/// With limits in many controllers, so that there are many groups.
fn much() -> Cgroup {
    group().memory_max(256 << 20).pids_max(100).cpu_weight(50)
}

/// This host has as many groups as it has sandboxes with them, in each place.
fn none_is_left() {
    assert_eq!(left_by(std::process::id()), Vec::<std::path::PathBuf>::new());
}

fn has_groups() {
    assert!(!left_by(std::process::id()).is_empty(), "there are some meanwhile");
}

fn no_group_stays_after_a_wait() {
    on_host(&[], "waits", &[]);
}

fn host_that_waits(_: &[String]) -> i32 {
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

fn no_group_stays_while_a_child_that_has_ended_is_kept() {
    on_host(&[], "keeps", &[]);
}

fn host_that_keeps_a_child(_: &[String]) -> i32 {
    let mut child = with(much()).spawn(quiet("sleep").arg("0.3")).unwrap();
    has_groups();
    let outcome = child.wait().unwrap();
    assert!(outcome.success());
    none_is_left();
    assert_eq!(child.usage(), outcome.usage);
    0
}

fn no_group_stays_after_a_drop() {
    on_host(&[], "drops", &[]);
}

fn host_that_drops(_: &[String]) -> i32 {
    for namespaces in [Namespaces::all() - Namespaces::TIME, Namespaces::all() - Namespaces::TIME - Namespaces::PID] {
        let child = sleeper(&with(much()).namespaces(namespaces));
        has_groups();
        drop(child);
        none_is_left();
    }
    0
}

fn no_group_stays_after_a_failed_spawn() {
    on_host(&[], "fails", &[]);
}

fn host_that_fails(_: &[String]) -> i32 {
    let error = with(much()).spawn(Command::new("no such program")).expect_err("there is none");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    none_is_left();
    let error = with(much()).spawn(Command::new("/etc/passwd")).expect_err("it is no program");
    assert!(matches!(error, Error::NotExecutable { .. }), "{error}");
    none_is_left();
    let mut command = Command::new("true");
    let error = with(much()).spawn(command.current_dir("/no/such/directory")).expect_err("there is none");
    assert!(matches!(error, Error::SetUp { .. }), "{error}");
    none_is_left();
    let error = with(much().raw("cpu.no_such_file", "1")).spawn(Command::new("true")).expect_err("there is none");
    assert!(matches!(error, Error::SetUp { .. }), "{error}");
    none_is_left();
    with(much()).plan(Command::new("true")).unwrap();
    none_is_left();
    0
}

fn no_group_stays_of_processes_left_behind() {
    on_host(&[], "leaves", &[]);
}

fn host_that_leaves_processes(_: &[String]) -> i32 {
    for namespaces in [Namespaces::all() - Namespaces::TIME, Namespaces::all() - Namespaces::TIME - Namespaces::PID] {
        let sandbox = with(much()).namespaces(namespaces);
        let script = "for n in 1 2 3 4 5 6 7 8 9; do setsid sleep 1000 & sleep 1000 & done; sleep 0.2";
        let outcome = listed(|| sandbox.status(quiet("sh").args(["-c", script])).unwrap());
        assert_eq!((outcome.termination, outcome.leaked.len()), (Termination::Exited(0), 18), "{outcome}");
        none_is_left();
    }
    0
}

fn the_host_stays_where_it_is() {
    on_host(&[], "stays", &[]);
}

fn host_that_stays(_: &[String]) -> i32 {
    let own = || fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = own();
    let child = sleeper(&with(much()));
    assert_ne!(of_process(child.id(), "memory"), of_process(std::process::id(), "memory"), "the program is elsewhere");
    assert_eq!(own(), before);
    drop(child);
    let _ = with(much()).spawn(Command::new("no such program"));
    assert_eq!(own(), before);
    0
}

fn threads_that_spawn_at_once_get_groups_of_their_own() {
    on_host(&[], "many", &[]);
}

fn host_with_threads(_: &[String]) -> i32 {
    const THREADS: usize = 8;
    const EACH: usize = 4;
    let work = |_| {
        std::thread::spawn(|| {
            (0..EACH).map(|_| sleeper(&with(much()))).map(|child| (of_process(child.id(), "memory"), child)).collect()
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

fn without_a_pid_namespace_the_group_ends_who_has_left_the_session() {
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

/// As `a_program_that_mounts_its_group_can_not_leave_it`: who could leave it must not outlive it.
fn without_a_pid_namespace_the_group_ends_who_has_made_one_below_it() {
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
