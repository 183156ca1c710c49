//! Cgroups of callers that were killed are removed by the next caller.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child as HostChild, Command as Host, Stdio as HostStdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};
use stockade::cgroup::CgroupParent;
use stockade::{Cgroup, Namespaces, Sandbox};

use crate::cgroups::groups::{self, left_by, unless_accounts, unless_freezer, unless_v1};
use crate::cgroups::{MS, eventually, group, quiet, with};
use crate::support::listener::hold;
use crate::support::{
    self, USER, at_most, children_of, in_mount_namespace, is_root, on_host, own_path, payload_on_host, processes,
    unless_mounts, unless_root,
};

/// One of these tests locks what the callers of the others would lock: their groups then say that they have no lock,
/// and are not swept.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

payloads![
    ("holder_of_groups", holder),
    ("next", next),
    ("mute", mute),
    ("next-in", next_in),
    ("usurp", usurp),
    ("breeder", breeder),
    ("breed", breed),
    ("heir", heir),
    ("generations", generations),
];

/// A caller that starts a sandbox and waits for the end of its input. The arguments: how its processes sleep, and how
/// long.
fn holder(args: &[String]) -> i32 {
    let (kind, time) = (args[0].as_str(), &args[1]);
    let sandbox = match kind {
        "contained" => with(limits()),
        "frozen" => bare(with(limits().freezable())),
        _ => bare(with(limits())),
    };
    let script = format!("setsid sleep {time} & exec sleep {time}");
    let child = sandbox.spawn(quiet("sh").args(["-c", &script])).unwrap();
    eventually("both sleep", || sleepers(time).len() == 2);
    if kind == "frozen" {
        child.freeze().unwrap();
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut vec![]).unwrap();
    drop(child);
    assert_eq!(left_by(std::process::id()), Vec::<PathBuf>::new());
    0
}

/// A caller that has made the groups of its sandbox, and never passes them to the helper: its sendmsg(2) is held.
fn mute(args: &[String]) -> i32 {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let listener: OwnedFd = receiver.recv().expect("a listener");
        poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).expect("a call that is held");
        println!("ready");
        loop {
            std::thread::park();
        }
    });
    // Before: the manager of a unit that it is in may be asked for that.
    let plan = with(limits()).plan(quiet("sleep").arg(&args[0])).expect("a plan");
    sender.send(hold(libc::SYS_sendmsg)).expect("a receiver");
    let _ = plan.spawn();
    1
}

/// A caller that comes later and needs the same groups.
fn next(_: &[String]) -> i32 {
    let status = with(limits().freezable()).status(quiet("true")).unwrap();
    assert!(status.success(), "{status}");
    0
}

fn limits() -> Cgroup {
    group().pids_max(50).memory_max(256 << 20)
}

fn bare(sandbox: Sandbox) -> Sandbox {
    sandbox.namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID)
}

/// Processes of a test: it has a time of its own to sleep.
fn sleepers(time: &str) -> Vec<i32> {
    processes(|line| line == format!("sleep {time} "))
}

fn time(number: u32) -> String {
    format!("{}.{number}", 200_000 + std::process::id())
}

/// A caller that holds a sandbox.
fn caller(kind: &str, time: &str) -> HostChild {
    let caller = ready("holder_of_groups", &[kind, time]);
    assert_eq!(sleepers(time).len(), 2);
    caller
}

/// A caller that has groups.
fn ready(payload: &str, args: &[&str]) -> HostChild {
    let caller = ready_by(payload_on_host(payload), args);
    assert!(!left_by(caller.id()).is_empty(), "it has groups");
    caller
}

fn ready_by(mut command: Host, args: &[&str]) -> HostChild {
    let mut caller = command.args(args).stdin(HostStdio::piped()).stdout(HostStdio::piped()).spawn().expect("a caller");
    let mut line = String::new();
    BufReader::new(caller.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    caller
}

fn killed(mut caller: HostChild) -> u32 {
    caller.kill().unwrap();
    caller.wait().unwrap();
    caller.id()
}

/// Nothing is left of a dead caller when the next one has started a sandbox.
fn is_swept(pid: u32, time: &str) {
    on_host(&[], "next", &[]);
    let deadline = std::time::Instant::now() + at_most(2000 * MS);
    while (!left_by(pid).is_empty() || !sleepers(time).is_empty()) && std::time::Instant::now() < deadline {
        std::thread::sleep(10 * MS);
    }
    let (groups, alive) = (left_by(pid), sleepers(time));
    for &pid in &alive {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for group in &groups {
        let _ = std::fs::write(group.join("freezer.state"), "THAWED");
        let _ = std::fs::write(group.join("cgroup.freeze"), "0");
    }
    eventually("they are gone", || sleepers(time).is_empty());
    for group in &groups {
        let _ = std::fs::remove_dir(group);
    }
    assert_eq!((groups, alive), (vec![], vec![]));
}

#[apply(test)]
#[skip(unless_accounts)]
fn cgroups_of_a_dead_caller_are_removed_by_the_next() {
    let _turn = turn();
    let time = time(1);
    let pid = killed(caller("contained", &time));
    eventually("the kernel ends the sandbox with its caller", || sleepers(&time).is_empty());
    is_swept(pid, &time);
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_caller_killed_before_it_hands_over_its_cgroups_leaves_no_process() {
    let _turn = turn();
    let time = time(5);
    let caller = ready("mute", &[&time]);
    eventually("its helper and its init are there", || children_of(caller.id()).len() == 2);
    let children = children_of(caller.id());
    let pid = killed(caller);
    // Who has ended has no arguments any more, also while nobody has reaped it.
    let is_alive = |child: &i32| std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| !line.is_empty());
    eventually("they end with the caller", || !children.iter().any(is_alive));
    is_swept(pid, &time);
}

#[apply(test)]
#[skip(unless_accounts)]
fn processes_of_a_dead_caller_are_killed_by_the_next() {
    let _turn = turn();
    let time = time(2);
    let pid = killed(caller("bare", &time));
    std::thread::sleep(100 * MS);
    is_swept(pid, &time);
}

/// How many processes may be in a group of those that start others.
const BROOD: u64 = 200;

/// A limit on processes alone, below a directory.
fn below(directory: &str) -> Cgroup {
    let path =
        Path::new(directory).strip_prefix(groups::hierarchy("pids").expect("a hierarchy").point).expect("a path");
    Cgroup::new().parent(CgroupParent::Path(path.to_owned())).pids_max(BROOD)
}

/// A caller whose program starts others all the time.
fn breeder(args: &[String]) -> i32 {
    let sandbox = bare(with(below(&args[0])));
    let child = sandbox.spawn(support::payload("breed").stdin(stockade::Stdio::null())).unwrap();
    let group = groups::of_process(child.pid().number(), "pids");
    assert_eq!(groups::read(&group, "pids.max"), BROOD.to_string());
    let are_there = || groups::read(&group, "pids.current").parse::<u64>().unwrap();
    eventually("they are many", || are_there() >= BROOD / 2);
    println!("ready");
    std::io::stdin().read_to_end(&mut vec![]).unwrap();
    0
}

/// Starts processes, each of which starts one and ends, for a minute at most.
#[allow(unsafe_code)]
fn breed(_: &[String]) -> i32 {
    let end = std::time::Instant::now() + 60_000 * MS;
    // SAFETY: there is no other thread, and the children do nothing but the same.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        if (0..BROOD / 2).any(|_| libc::fork() == 0) {
            while std::time::Instant::now() < end && libc::fork() <= 0 {}
            libc::_exit(0);
        }
    }
    std::thread::sleep(60_000 * MS);
    0
}

/// A caller that comes after such a caller.
fn heir(args: &[String]) -> i32 {
    let status = with(below(&args[0])).status(quiet("true")).unwrap();
    assert!(status.success(), "{status}");
    0
}

/// Such callers, one after the other.
fn generations(args: &[String]) -> i32 {
    let mut left = 0;
    for _ in 0..support::rounds(20) {
        killed(ready_by(payload_on_host("breeder"), &[&args[0]]));
        on_host(&[], "heir", &[&args[0]]);
        left += groups_in(Path::new(&args[0]));
    }
    println!("{left} groups are left");
    0
}

fn groups_in(directory: &Path) -> usize {
    fs::read_dir(directory).expect("a group").flatten().filter(|entry| entry.path().is_dir()).count()
}

fn unless_root_and_pid_namespace() -> Option<String> {
    unless_root().or_else(unless_pid_namespace)
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_pid_namespace)]
fn forking_processes_of_a_dead_caller_are_killed_by_the_next() {
    let _turn = turn();
    // In one hierarchy alone: in each, all are killed.
    let directory = groups::place("pids").expect("a place").join(format!("breeders-{}", std::process::id()));
    fs::create_dir(&directory).expect("a group");
    // The shell is the first process there, and reaps them at once: else the dead use up the limit.
    let mut shell = unshare(PID);
    shell.args(["sh", "-c", "\"$@\"; exit $?", "-"]).arg(own_path()).args(["--payload", "generations"]).arg(&directory);
    let output = shell.output().expect("a caller in a pid namespace");
    // Whatever is left has ended with the namespace.
    for group in fs::read_dir(&directory).expect("a group").flatten().filter(|entry| entry.path().is_dir()) {
        let _ = fs::remove_dir(group.path().join("program"));
        eventually("it can be removed", || fs::remove_dir(group.path()).is_ok());
    }
    fs::remove_dir(&directory).expect("it is empty");
    let [said, error] = [&output.stdout, &output.stderr].map(|text| support::text(text));
    assert_eq!((said.trim(), &*error), ("0 groups are left", ""));
}

fn unless_root_with_kill_of_groups() -> Option<String> {
    let is_missing = support::kernel() < (5, 14);
    unless_root().or_else(groups::unless_v2).or_else(|| unless_unshared(PID)).or_else(|| {
        is_missing.then(|| "processes that are not seen can be killed since Linux 5.14 (cgroup.kill)".to_owned())
    })
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_kill_of_groups)]
fn processes_invisible_to_the_next_caller_are_killed() {
    let _turn = turn();
    let time = time(8);
    let pid = killed(caller("bare", &time));
    on_host(&[["unshare"].as_slice(), PID].concat(), "next", &[]);
    is_swept(pid, &time);
}

#[apply(test)]
#[skip(unless_freezer)]
fn frozen_processes_of_a_dead_caller_are_killed_by_the_next() {
    let _turn = turn();
    let time = time(3);
    let pid = killed(caller("frozen", &time));
    is_swept(pid, &time);
}

#[apply(test)]
#[skip(unless_accounts)]
fn cgroups_of_a_living_caller_are_kept() {
    let _turn = turn();
    let time = time(4);
    let mut caller = caller("bare", &time);
    let before = left_by(caller.id());
    on_host(&[], "next", &[]);
    assert_eq!(left_by(caller.id()), before);
    assert_eq!(sleepers(&time).len(), 2);
    drop(caller.stdin.take());
    assert!(caller.wait().unwrap().success());
    assert_eq!((left_by(caller.id()), sleepers(&time)), (vec![], vec![]));
}

/// unshare(1) of namespaces, in which this is the same user.
fn unshare(namespaces: &[&str]) -> Host {
    let mut command = Host::new("unshare");
    if !is_root() {
        command.args(["--user", &format!("--map-user={USER}"), &format!("--map-group={USER}")]);
    }
    command.args(namespaces).arg("--");
    command
}

/// The payload `holder` in new namespaces.
fn holder_in(namespaces: &[&str]) -> Host {
    let mut command = unshare(namespaces);
    command.arg(own_path()).args(["--payload", "holder_of_groups"]);
    command
}

fn unless_unshared(namespaces: &[&str]) -> Option<String> {
    let made = unshare(namespaces).arg("true").stderr(HostStdio::null()).status();
    let refused = !made.is_ok_and(|status| status.success());
    unless_accounts().or_else(|| refused.then(|| format!("unshare(1) can't do {namespaces:?} here")))
}

const TIME: &[&str] = &["--time", "--boottime", "1000000", "--monotonic", "1000000"];
const PID: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc"];

/// Where exec(2) does not enter a new time namespace its children alone are in it, and it can start no thread.
fn unless_time_namespace() -> Option<String> {
    let own = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let entered = || {
        let output = unshare(TIME).args(["readlink", "/proc/self/ns/time"]).output().ok()?;
        (Path::new(String::from_utf8_lossy(&output.stdout).trim()) != own).then_some(())
    };
    let outside = || entered().is_none().then(|| "exec(2) enters no time namespace on this kernel".to_owned());
    unless_unshared(TIME).or_else(outside)
}

/// A user's own manager does not answer in another user namespace, where nobody knows then what it has delegated.
fn unless_pid_namespace() -> Option<String> {
    let is_managers = |place: &PathBuf| !is_root() && place.to_string_lossy().contains("/user@");
    unless_unshared(PID).or_else(|| {
        let place = groups::place("memory").filter(is_managers)?;
        Some(format!("in a user namespace the manager of {} does not answer", place.display()))
    })
}

/// The time at which a process was started, as this process sees it or as the reader `by` does.
fn start_time(stat: &str) -> String {
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).expect("a start time").to_owned()
}

/// Attack 61: pid and start time of an owner say nothing of its life.
#[apply(test)]
#[skip(unless_time_namespace)]
fn living_owners_in_another_time_namespace_are_not_swept() {
    let _turn = turn();
    let time = time(6);
    let mut caller = ready_by(holder_in(TIME), &["bare", &time]);
    let path = format!("/proc/{}/stat", caller.id());
    let seen_inside = Host::new("nsenter")
        .args(["--time", "--target", &caller.id().to_string(), "cat", &path])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if let Some(inside) = seen_inside.ok().filter(|stat| is_root() && !stat.is_empty()) {
        let outside = std::fs::read_to_string(&path).unwrap();
        assert_ne!(start_time(&inside), start_time(&outside), "its start time is another one there");
    }
    let before = left_by(caller.id());
    assert!(!before.is_empty(), "it has groups");
    on_host(&[], "next", &[]);
    assert_eq!((left_by(caller.id()), sleepers(&time).len()), (before, 2));
    drop(caller.stdin.take());
    assert!(caller.wait().unwrap().success());
    assert_eq!(sleepers(&time), Vec::<i32>::new());
}

#[apply(test)]
#[skip(unless_pid_namespace)]
fn dead_owners_in_another_pid_namespace_are_swept() {
    let _turn = turn();
    let time = time(7);
    // Which it calls by another pid than this process does.
    let groups = || {
        let mut groups = left_by(1);
        groups.extend(left_by(2));
        groups
    };
    let before = groups();
    let caller = ready_by(holder_in(PID), &["contained", &time]);
    let new = || groups().into_iter().filter(|group| !before.contains(group)).collect::<Vec<_>>();
    assert!(!new().is_empty(), "it has groups");
    on_host(&[], "next", &[]);
    assert!(!new().is_empty() && sleepers(&time).len() == 2, "it lives");
    killed(caller);
    eventually("the kernel ends the namespace", || sleepers(&time).is_empty());
    // A process has no arguments any more, but still its lock, while it exits.
    eventually("they are gone", || {
        on_host(&[], "next", &[]);
        new().is_empty()
    });
}

/// Locks all that no living owner has locked.
fn lock_as_reader(place: &Path) -> File {
    const PIECE: i64 = 1 << 52;
    let file = File::open(place.join("cgroup.procs")).expect("its processes");
    let (l_type, l_whence) = (libc::F_RDLCK as i16, libc::SEEK_SET as i16);
    let lock = |number: i64| {
        let piece = libc::flock { l_type, l_whence, l_start: number * PIECE, l_len: PIECE, l_pid: 0 };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&piece)).is_ok()
    };
    assert!((0..1024).filter(|&number| lock(number)).count() > 500, "a reader may lock");
    file
}

/// Attack 61: whoever may read a file may lock it as a reader.
#[apply(test)]
#[skip(unless_accounts)]
fn a_readers_lock_prevents_neither_a_spawn_nor_a_sweep() {
    let _turn = turn();
    let time = time(8);
    let locked: Vec<_> = groups::places().iter().map(|place| lock_as_reader(place)).collect();
    on_host(&[], "next", &[]);
    drop(locked);
    let caller = caller("bare", &time);
    let locked: Vec<_> = groups::places().iter().map(|place| lock_as_reader(place)).collect();
    let pid = killed(caller);
    is_swept(pid, &time);
    drop(locked);
}

/// A directory that looks as if a dead owner had left a process in it.
fn look_left(place: &Path, victim: u32) {
    let group = place.join(LOOKS_LEFT);
    fs::create_dir(&group).expect("a directory");
    for directory in [place, &group] {
        fs::write(directory.join("cgroup.procs"), format!("{victim}\n")).expect("a list of processes");
    }
}

/// A process that is killed when it is dropped.
struct Victim(HostChild);

impl Victim {
    fn new() -> Self {
        Self(Host::new("sleep").arg("1000").spawn().expect("a victim"))
    }

    fn is_alive(&mut self) -> bool {
        std::thread::sleep(50 * MS);
        self.0.try_wait().expect("its state").is_none()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attack 61: a parent's path leads out of the hierarchy to files that name a process.
#[apply(test)]
#[skip(unless_accounts)]
fn parents_that_leave_the_hierarchy_are_refused() {
    let _turn = turn();
    let (dir, mut victim) = (support::shared_dir(), Victim::new());
    look_left(dir.path(), victim.0.id());
    let up = format!("{}{}", "../".repeat(8), dir.path().strip_prefix("/").unwrap().display());
    for path in [up.clone(), format!("/{up}")] {
        let cgroup = Cgroup::new().parent(CgroupParent::Path(path.into()));
        let (what, remedy) = support::invalid(&with(cgroup));
        assert!(what.contains("..") && !remedy.is_empty(), "{what}: {remedy}");
    }
    assert!(victim.is_alive());
}

fn unless_root_with_mounts() -> Option<String> {
    unless_root().or_else(unless_accounts).or_else(unless_mounts)
}

/// Attack 61: the same by a mount.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_mounts)]
fn files_outside_of_cgroup_file_systems_name_no_process_to_kill() {
    let _turn = turn();
    let place = groups::place("memory").expect("a place").join(format!("mounted-{}", std::process::id()));
    fs::create_dir(&place).expect("a group");
    let mut victim = Victim::new();
    in_mount_namespace(
        &format!(
            "mount -t tmpfs none \"$dir\" && mkdir $dir/{LOOKS_LEFT} && for d in $dir $dir/{LOOKS_LEFT}; do echo {} \
             >$d/cgroup.procs; done",
            victim.0.id()
        ),
        "next-in",
        &place,
    );
    fs::remove_dir(&place).expect("it is empty");
    assert!(victim.is_alive());
}

const LOOKS_LEFT: &str = "stockade-0000000000000001-1";

/// An owner whose groups are made where a tmpfs lies over the group.
fn next_in(args: &[String]) -> i32 {
    let point = groups::hierarchy("memory").expect("a hierarchy").point;
    let path = Path::new(&args[0]).strip_prefix(&point).expect("a group below it").to_owned();
    let cgroup = Cgroup::new().memory_max(64 << 20).parent(CgroupParent::Path(path));
    let refused = with(cgroup).spawn(quiet("true")).expect_err("no group can be there");
    // On v2 it has no controllers, which is seen first.
    assert!(refused.to_string().contains("cgroup file system") || !groups::is_v1("memory"), "{refused}");
    0
}

/// Attack 61: a group whose path is longer than any path may be, made step by step.
#[apply(test)]
#[skip(unless_v1)]
fn groups_deeper_than_any_path_are_swept() {
    let _turn = turn();
    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};

    let place = groups::place("pids").expect("a place");
    let dead = place.join(format!("stockade-{:016x}-1", 0xdead_0000_0000_u64 + u64::from(std::process::id())));
    fs::create_dir(&dead).expect("a group");
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(&dead, how, Mode::empty()).expect("the group");
    let name = "x".repeat(200);
    for _ in 0..25 {
        mkdirat(&at, name.as_str(), Mode::S_IRWXU).expect("a group below");
        at = openat(&at, name.as_str(), how, Mode::empty()).expect("the group below");
    }
    drop(at);
    on_host(&[], "next", &[]);
    assert!(!dead.exists(), "{} is there still", dead.display());
}

fn unless_root_with_accounts() -> Option<String> {
    unless_root().or_else(unless_accounts)
}

/// The owner of a parent, who replaces every group that is empty by one of its own, until it is killed.
fn usurp(args: &[String]) -> i32 {
    println!("ready");
    loop {
        for group in fs::read_dir(&args[0]).into_iter().flatten().flatten() {
            let path = group.path();
            if fs::remove_dir(&path).is_ok() {
                let _ = fs::create_dir(&path);
            }
        }
    }
}

/// Attack 72: a sandbox is limited by a group of the caller's, or is refused.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_accounts)]
fn a_parents_owner_puts_no_group_of_its_own_in_the_place() {
    let _turn = turn();
    let hierarchy = groups::hierarchy("memory").expect("a hierarchy");
    let parent = groups::place("memory").expect("a place").join(format!("usurped-{}", std::process::id()));
    fs::create_dir(&parent).expect("a group");
    if !hierarchy.is_v1 {
        fs::write(parent.join("cgroup.subtree_control"), "+memory").expect("its controller");
    }
    chown(&parent, Some(USER.into()), Some(USER.into())).expect("its owner");
    let mut command = Host::new("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(own_path()).args(["--payload", "usurp"]);
    let usurper = Victim(ready_by(command, &[parent.to_str().expect("a name")]));
    let path = Path::new("/").join(parent.strip_prefix(&hierarchy.point).expect("a group below it"));
    let sandbox = with(Cgroup::new().parent(CgroupParent::Path(path)).memory_max(64 << 20));
    let (mut run, mut refused) = (0, 0);
    for _ in 0..support::rounds(100) {
        match sandbox.spawn(quiet("sleep").arg("1000")) {
            Ok(child) => {
                let group = groups::of_process(child.pid().number(), "memory");
                assert_eq!(fs::metadata(&group).expect("the group").uid(), 0, "{}", group.display());
                run += 1;
            }
            Err(error) => {
                assert!(error.hint().is_some(), "{error}");
                refused += 1;
            }
        }
    }
    drop(usurper);
    for group in fs::read_dir(&parent).expect("groups").flatten().filter(|entry| entry.path().is_dir()) {
        fs::remove_dir(group.path()).expect("it is empty");
    }
    fs::remove_dir(&parent).expect("it is empty");
    assert!(run + refused >= 3 && refused > 0, "the attack must work here: {run} run, {refused} refused");
}
