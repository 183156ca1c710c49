//! Freezing and thawing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stockade::capabilities::Capability;
use stockade::{
    Capabilities, Cgroup, Child, Command, Identity, Layer, Limits, Namespaces, Root, Sandbox, Stdio, Termination,
};

use crate::cgroups::groups::{
    entered_by, is_v1, left_by, of_process, place, read, unless_accounts, unless_freezer, unless_v2,
};
use crate::cgroups::{MS, eventually, group, sleeper, unfiltered, with, without};
use crate::support::{self, at_most, is_root, on_host, unless_pivot_root, unless_user};
use stockade::ErrorKind;

payloads![("freezing", freezing), ("freezing_beside", freezing_beside), ("caller_of_the_frozen", caller_of_the_frozen)];

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
    child.usage().cpu_time.expect("CPU time").value
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

fn unless_no_cgroup_can_be_created() -> Option<String> {
    let sandbox = Sandbox::new().cgroup(Cgroup::new().freezable());
    sandbox.status(Command::new("true")).is_ok().then(|| "a cgroup can be created here".into())
}

#[apply(test)]
#[only(User)]
#[skip(unless_no_cgroup_can_be_created)]
fn a_sandbox_without_its_cgroup_says_why_it_is_not_frozen() {
    let sandbox = Sandbox::new().cgroup(Cgroup::new().freezable()).best_effort([Layer::Cgroup]);
    let mut child = sandbox.spawn(Command::new("sleep").arg("1000")).unwrap();
    for error in [child.freeze().unwrap_err(), child.thaw().unwrap_err()] {
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Unsupported, Some(Layer::Cgroup)), "{error}");
    }
    child.kill().unwrap();
    let outcome = child.wait().unwrap();
    assert_eq!(outcome.termination, Termination::Killed);
    assert!(outcome.enforcement.unenforced.iter().any(|missing| missing.layer == Layer::Cgroup), "{outcome:?}");
}

#[apply(test)]
fn there_is_nothing_to_freeze_after_the_outcome() {
    let mut child = Sandbox::new().spawn(Command::new("true")).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((child.freeze(), child.thaw()), (Ok(()), Ok(())));
}

#[apply(test)]
#[skip(unless_freezer)]
fn frozen_processes_do_nothing_until_thawed() {
    let mut child = burner(&freezable(), "burn", &["500"]);
    stops_and_goes_on(&mut child);
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(0));
}

#[apply(test)]
#[skip(unless_freezer)]
fn all_processes_are_frozen() {
    let mut child = burner(&freezable(), "burn-many", &["3", "20000"]);
    let processes = || read(&entered_by(child.pid().number(), "freezer"), "cgroup.procs").lines().count();
    eventually("there are its processes", || processes() == 4);
    stops_and_goes_on(&mut child);
}

/// It ends soon.
fn is_soon(start: Instant) {
    assert!(start.elapsed() < at_most(3000 * MS), "{:?}", start.elapsed());
}

#[apply(test)]
#[skip(unless_freezer)]
fn a_frozen_program_can_be_killed() {
    let mut child = burner(&freezable(), "burn", &["20000"]);
    child.freeze().unwrap();
    let start = Instant::now();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    is_soon(start);
}

#[apply(test)]
#[skip(unless_freezer)]
fn another_thread_can_kill_a_frozen_program() {
    for namespaces in [Namespaces::all() - Namespaces::TIME, Namespaces::USER | Namespaces::MOUNT] {
        let mut child = burner(&freezable().namespaces(namespaces), "burn", &["20000"]);
        child.freeze().unwrap();
        let killer = child.killer();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(50 * MS);
                killer.kill().unwrap();
            });
            assert_eq!(child.wait().unwrap().termination, Termination::Killed);
        });
        is_soon(start);
        killer.kill().unwrap();
    }
}

#[apply(test)]
#[skip(unless_freezer)]
fn a_frozen_child_can_be_dropped() {
    let child = sleeper(&freezable());
    let pid = child.pid().number();
    let own = of_process(pid, "freezer");
    child.freeze().unwrap();
    let start = Instant::now();
    drop(child);
    is_soon(start);
    assert!(!left_by(std::process::id()).contains(&own), "{} is there still", own.display());
}

#[apply(test)]
#[skip(unless_freezer)]
fn wall_time_passes_while_frozen() {
    let mut child = sleeper(&freezable().limits(Limits::new().wall_time(400 * MS)));
    child.freeze().unwrap();
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().termination, Termination::WallTime);
    is_soon(start);
}

#[apply(test)]
#[skip(unless_freezer)]
fn freezing_twice_is_no_error() {
    let mut child = burner(&freezable(), "burn", &["300"]);
    child.thaw().unwrap();
    child.freeze().unwrap();
    child.freeze().unwrap();
    child.thaw().unwrap();
    child.thaw().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(0));
}

#[apply(test)]
#[skip(unless_accounts)]
fn freezing_without_a_freezer_is_an_error() {
    for sandbox in [with(group()), without()] {
        let child = sleeper(&sandbox);
        for result in [child.freeze(), child.thaw()] {
            match result {
                Err(error) if error.kind() == ErrorKind::InvalidConfiguration => {
                    let (what, remedy) = support::words(&error);
                    assert!(what.contains("frozen") && remedy.contains("freezable"), "{what}: {remedy}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A program that is not in a root of its own can make no user namespaces, in which it could mount its group.
fn unless_freezer_and_namespaces() -> Option<String> {
    unless_freezer().or_else(unless_pivot_root)
}

fn unless_v2_and_namespaces() -> Option<String> {
    unless_user().or_else(unless_v2).or_else(unless_pivot_root)
}

/// A sandbox whose program can mount its group, and owns its files.
fn owning(cgroup: Cgroup) -> Sandbox {
    let sandbox = unfiltered(cgroup);
    if !is_root() {
        return sandbox;
    }
    let mounts = Capabilities::none().keep([Capability::SysAdmin]);
    sandbox.identity(Identity::caller().uid(0).gid(0)).capabilities(mounts)
}

/// A script in namespaces in which it may mount, if it may not yet.
fn mounting(script: &str) -> Command {
    let mut command = Command::new(if is_root() { "sh" } else { "unshare" });
    if !is_root() {
        command.args(["--user", "--map-root-user", "--mount", "--cgroup", "sh"]);
    }
    command.args(["-c", script]);
    command
}

/// Attack 68: a process in a group below, which is frozen, can't be killed on v1.
#[apply(test)]
#[skip(unless_freezer_and_namespaces)]
fn a_program_that_freezes_itself_below_its_group_is_killed() {
    // Other tests of this process have groups.
    on_host(&[], "freezing", &[]);
}

fn freezing(_: &[String]) -> i32 {
    let (mount, file, frozen) = match is_v1("freezer") {
        true => ("mount -t cgroup -o freezer none /tmp", "freezer.state", "FROZEN"),
        false => ("mount -t cgroup2 none /tmp", "cgroup.freeze", "1"),
    };
    let freeze = format!(
        "until {mount}; do sleep 0.1; done; mkdir -p /tmp/a/b && {{ sleep 1000 >/dev/null 2>&1 & }} &&
        echo $! >/tmp/a/b/cgroup.procs &&
        echo {frozen} >/tmp/a/b/{file} && cat /tmp/a/b/{file}"
    );
    for end in ["exit 3", "echo $$ >/tmp/a/b/cgroup.procs; sleep 1000"] {
        let sandbox = owning(group().freezable()).limits(Limits::new().wall_time(at_most(1000 * MS)));
        let start = Instant::now();
        let output = sandbox.output(mounting(&format!("{freeze}; {end}"))).unwrap();
        let said = support::text(&output.stdout);
        assert!(said.contains(frozen) || said.contains("FREEZING"), "the attack must work here: {said:?}");
        let expected = if end == "exit 3" { Termination::Exited(3) } else { Termination::WallTime };
        assert_eq!(output.outcome.termination, expected, "{said:?}");
        is_soon(start);
    }
    assert_eq!(left_by(std::process::id()), Vec::<std::path::PathBuf>::new());
    0
}

fn unless_v1_freezer() -> Option<String> {
    unless_freezer()
        .or_else(|| (!is_v1("freezer")).then(|| "the freezer of cgroup v2 keeps nobody from being killed".into()))
}

fn unless_v1_freezer_and_root() -> Option<String> {
    support::unless_root().or_else(unless_v1_freezer)
}

/// A group that a program makes below one of its user's.
const BELOW: &str = "below";

/// A freezer's group that belongs to a user, outside of every sandbox's; removed when it is dropped.
struct Beside(PathBuf);

impl Beside {
    fn new(owner: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("beside-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = place("freezer").unwrap().join(name);
        fs::create_dir(&path).unwrap();
        for file in ["", "cgroup.procs", "tasks", "freezer.state"] {
            chown(path.join(file), Some(owner), Some(owner)).unwrap();
        }
        Self(path)
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.write("freezer.state", "THAWED");
        let _ = fs::remove_dir(self.0.join(BELOW));
        // Whoever was in it has been killed.
        eventually("the group is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

/// Attack 68: a program that sees the caller's hierarchies and may write to a group there, such as one that is
/// delegated to its user, freezes itself or another process in it.
#[apply(test)]
#[skip(unless_v1_freezer)]
fn a_program_that_freezes_itself_beside_its_group_is_killed() {
    on_host(&[], "freezing_beside", &[]);
}

fn freezing_beside(_: &[String]) -> i32 {
    const OWN: u32 = 1_600_003_000;
    let owner = if is_root() { OWN } else { nix::unistd::geteuid().as_raw() };
    let namespaces = Namespaces::all() - Namespaces::TIME - Namespaces::MOUNT;
    let sandbox = Sandbox::new()
        .root(Root::inherit())
        .namespaces(if is_root() { namespaces - Namespaces::USER } else { namespaces })
        .identity(if is_root() { Identity::new().host_ids(OWN, 1) } else { Identity::new() })
        .limits(Limits::new().wall_time(at_most(1000 * MS)));
    let freeze = |group: &Beside, frozen: &str, below: &str, then: &str| {
        let group = group.0.display();
        let script = format!(
            "mkdir -p {group}/{below} && echo {frozen} >{group}/{below}/cgroup.procs && echo begin && \
             echo FROZEN >{group}/freezer.state; {then}"
        );
        Command::new("sh").args(["-c", &format!("sleep 1000 >/dev/null 2>&1 & {script}")]).clone()
    };
    for (frozen, below, then, expected) in [
        ("$$", "", "exec sleep 1000", Termination::WallTime),
        ("$!", "", "exit 3", Termination::Exited(3)),
        // The group of the process belongs to one that is frozen, and is not frozen itself.
        ("$$", BELOW, "exec sleep 1000", Termination::WallTime),
        ("$!", BELOW, "exit 3", Termination::Exited(3)),
    ] {
        let group = Beside::new(owner);
        let start = Instant::now();
        let output = sandbox.output(freeze(&group, frozen, below, then)).unwrap();
        assert_eq!(support::text(&output.stdout), "begin", "the attack must work here");
        assert_eq!(output.outcome.termination, expected, "{frozen} {below}");
        is_soon(start);
        if !below.is_empty() {
            fs::remove_dir(group.0.join(below)).unwrap();
        }
        // While a process is in the group, it can't be removed.
        fs::remove_dir(&group.0).unwrap();
        std::mem::forget(group);
    }
    0
}

/// An ordinary user whose program root freezes: says its pid, kills it when it is told to, and says what came of it.
fn caller_of_the_frozen(_: &[String]) -> i32 {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = Sandbox::new().spawn(&command).unwrap();
    println!("{}", child.pid().number());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    child.kill().unwrap();
    println!("{}", child.wait().unwrap_err());
    println!("{}", child.wait().unwrap_err());
    let start = Instant::now();
    drop(child);
    is_soon(start);
    println!("dropped");
    std::io::stdin().read_line(&mut line).unwrap();
    eventually("a later spawn reaps it", || {
        let _ = Sandbox::new().status(Command::new("true")).unwrap();
        support::children().is_empty()
    });
    0
}

/// It is left to be reaped later, and the error names the group.
#[apply(test)]
#[only(Root)]
#[skip(unless_v1_freezer_and_root)]
fn waiting_ends_if_another_process_keeps_the_program_frozen() {
    let place = support::shared_dir();
    let copy = place.path().join("tests");
    fs::copy(support::own_path(), &copy).unwrap();
    let group = Beside::new(0);
    let mut caller = std::process::Command::new(copy)
        .args(["--payload", "caller_of_the_frozen"])
        .current_dir("/")
        .uid(support::USER)
        .gid(support::USER)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut go = caller.stdin.take().unwrap();
    let mut said = BufReader::new(caller.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = said.next().unwrap();
    group.write("cgroup.procs", &pid);
    group.write("freezer.state", "FROZEN");
    let start = Instant::now();
    writeln!(go).unwrap();
    let error = said.next().unwrap();
    assert!(start.elapsed() < at_most(15_000 * MS), "{:?}", start.elapsed());
    let expected = format!(
        "failed to kill process {pid} of the sandbox: it was killed and does not terminate: it is frozen in the cgroup"
    );
    assert!(error.starts_with(&expected) && error.contains("freezer.state"), "{error}");
    assert_eq!(said.next().unwrap(), error, "told once, it stays the same");
    assert_eq!(said.next().unwrap(), "dropped");
    group.write("freezer.state", "THAWED");
    writeln!(go).unwrap();
    assert!(caller.wait().unwrap().success());
}

#[apply(test)]
fn files_that_stop_processes_are_refused() {
    for file in [
        "freezer.state",
        "freezer.self_freezing",
        "cgroup.freeze",
        "cgroup.kill",
        "cgroup.procs",
        "cgroup.type",
        "cgroup.subtree_control",
        "memory.force_empty",
        "memory.oom_control",
        "notify_on_release",
        "release_agent",
        "tasks",
    ] {
        let (what, remedy) = support::invalid(&with(group().raw(file, "1")));
        assert!(what.contains(file) && !remedy.is_empty(), "{what}: {remedy}");
    }
}

#[apply(test)]
#[only(User)]
#[skip(unless_v2_and_namespaces)]
fn groups_below_a_programs_own_are_limited() {
    let script = "mount -t cgroup2 none /tmp && n=0; while [ $n -lt 1000 ] && mkdir /tmp/$n 2>/dev/null; do \
                  n=$((n+1)); done; echo $n";
    let output = owning(group().pids_max(50)).output(mounting(script)).unwrap();
    assert_eq!(support::text(&output.stdout).trim(), "255", "{}", support::text(&output.stderr));
}
