//! Groups of cgroup v2 that no other can be made below, and hosts that can make no room in their own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command as Host;
use std::sync::mpsc;

use nix::unistd::getpid;
use stockade::{Cgroup, CgroupParent, IoMax, Layer, Sandbox};

use crate::errors::{disk, unless_a_disk};
use crate::groups::{self, of_process, unless_cpuset, unless_io, unless_v2};
use crate::support::listener::{hold, let_go};
use crate::support::{self, Payload, Test, USER, eventually, on_host, text, unless_root};
use crate::{sleeper, tests};

pub const TESTS: &[Test] = tests![
    a_parent_for_threads_is_refused if unless_v2,
    buffered_writes_are_limited_below_a_parent_that_gives_io_alone if unless_v2_with_a_disk,
    a_parent_that_has_processes_is_left_as_it_is if unless_v2,
    a_leaf_that_another_caller_removes_is_made_again if unless_v2,
    a_host_below_no_mounted_cgroup_is_told_so if unless_root_and_v2,
    a_host_that_can_not_move_everybody_moves_nobody if unless_root_and_cpuset,
];

pub const PAYLOADS: &[Payload] = &[
    ("hidden", host_without_a_place),
    ("crowded", host_beside_another_users_process),
    ("disturbed", host_whose_leaf_is_removed),
];

fn unless_root_and_v2() -> Option<String> {
    unless_root().or_else(unless_v2)
}

fn unless_root_and_cpuset() -> Option<String> {
    unless_root_and_v2().or_else(unless_cpuset)
}

/// A group that is removed with those in it.
struct Made(PathBuf);

impl Made {
    fn below(above: &Path, name: &str) -> Self {
        let path = above.join(name);
        fs::create_dir(&path).expect("a group");
        Self(path)
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{value} to {file}: {error}"));
    }

    fn processes(&self) -> Vec<i32> {
        groups::read(&self.0, "cgroup.procs").lines().map(|line| line.parse().unwrap()).collect()
    }

    /// As the parent of other groups.
    fn parent(&self) -> CgroupParent {
        CgroupParent::Path(self.0.strip_prefix(groups::hierarchy("memory").unwrap().point).unwrap().to_owned())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        eventually("the group can be removed", || fs::remove_dir(&self.0).is_ok());
    }
}

fn unless_v2_with_a_disk() -> Option<String> {
    unless_v2().or_else(unless_io).or_else(unless_a_disk)
}

fn place() -> PathBuf {
    groups::place("memory").expect("a place for groups")
}

fn refusal(cgroup: Cgroup) -> String {
    let error = support::refused(&Sandbox::new().cgroup(cgroup));
    assert_eq!(error.layer(), Some(Layer::Cgroup), "{error}");
    error.to_string()
}

fn a_parent_for_threads_is_refused() {
    let domain = Made::below(&place(), "threads");
    domain.write("cgroup.subtree_control", "+pids");
    let threaded = Made::below(&domain.0, "inner");
    threaded.write("cgroup.type", "threaded");
    for (group, kind) in [(&domain, "domain threaded"), (&threaded, "threaded")] {
        // Why: no process may enter a group below.
        let inner = Made::below(&group.0, "tried");
        let entered = fs::write(inner.0.join("cgroup.procs"), getpid().to_string());
        assert_eq!(entered.expect_err("no process enters it").raw_os_error(), Some(libc::EOPNOTSUPP), "{kind}");
        drop(inner);

        let said = refusal(Cgroup::new().parent(group.parent()).pids_max(10));
        assert!(said.starts_with("pids_max can't be kept: the cgroup "), "{said}");
        assert!(said.contains(&format!("is for threads (its cgroup.type is {kind:?})")), "{said}");
        assert!(said.contains("name another parent"), "{said}");
    }
}

/// The kernel limits what is written back for a group that its memory is counted for.
fn buffered_writes_are_limited_below_a_parent_that_gives_io_alone() {
    let above = Made::below(&place(), "io-alone");
    above.write("cgroup.subtree_control", "+io");
    let (_, node) = disk().expect("a disk");
    let writes = IoMax { write_bytes: Some(1 << 20), ..IoMax::default() };
    let cgroup = Cgroup::new().parent(above.parent()).io_max(node, writes);
    let mut child = sleeper(&Sandbox::new().cgroup(cgroup));
    assert!(of_process(child.id(), "io").join("memory.max").exists(), "memory is counted beside it");
    child.kill().expect("its end");
    assert_eq!(child.wait().expect("an outcome").enforced.lost, vec![]);
}

/// The kernel would give pids on, and let no process enter a group below.
fn a_parent_that_has_processes_is_left_as_it_is() {
    let group = Made::below(&place(), "busy");
    let mut other = Host::new("sleep").arg("1000").spawn().expect("a process");
    group.write("cgroup.procs", &other.id().to_string());
    let said = [Cgroup::new().pids_max(10), Cgroup::new().memory_max(64 << 20)]
        .map(|cgroup| support::refused(&Sandbox::new().cgroup(cgroup.parent(group.parent()))).to_string());
    let given = groups::read(&group.0, "cgroup.subtree_control");
    other.kill().and_then(|()| other.wait()).expect("its end");
    for said in said {
        assert!(
            said.contains("enabling controllers of cgroups") && said.contains("has processes of its own"),
            "{said}"
        );
    }
    assert_eq!(given, "");
}

fn a_leaf_that_another_caller_removes_is_made_again() {
    let group = Made::below(&place(), "disturbed");
    let directory = group.0.to_str().expect("a path");
    let said = on_host(&["sh", "-c", "echo 0 >\"$0/cgroup.procs\"; exec \"$@\"", directory], "disturbed", &[directory]);
    for leaf in leaves(&group.0) {
        eventually("the leaf can be removed", || fs::remove_dir(&leaf).is_ok());
    }
    assert_eq!(said.trim(), "removed\nexited with 0");
}

fn leaves(group: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(group).expect("groups").flatten().map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().contains("/stockade-host-")).collect()
}

/// A host whose leaf is removed once, by somebody who sees it as soon as it opens something.
fn host_whose_leaf_is_removed(args: &[String]) -> i32 {
    let directory = PathBuf::from(&args[0]);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let listener = receiver.recv().expect("a listener");
        let mut is_removed = false;
        let_go(&listener, || {
            if !is_removed && leaves(&directory).iter().any(|leaf| fs::remove_dir(leaf).is_ok()) {
                is_removed = true;
                println!("removed");
            }
        });
    });
    let sandbox = Sandbox::new().cgroup(Cgroup::new().pids_max(10));
    let plan = sandbox.plan(stockade::Command::new("true")).expect("a plan");
    sender.send(hold(libc::SYS_openat)).expect("a receiver");
    match plan.spawn().and_then(|mut child| child.wait()) {
        Ok(outcome) => println!("{}", outcome.termination),
        Err(error) => println!("{error}"),
    }
    0
}

/// In a cgroup namespace that does not contain what is mounted.
fn a_host_below_no_mounted_cgroup_is_told_so() {
    let said = on_host(&["unshare", "--cgroup"], "hidden", &[]);
    let point = groups::hierarchy("memory").unwrap().point;
    let expected = format!(
        "memory_max can't be kept: the cgroup of this process is not below the one that is mounted on {}",
        point.display()
    );
    assert!(said.starts_with(&expected), "{said}");
}

fn host_without_a_place(_: &[String]) -> i32 {
    println!("{}", refusal(Cgroup::new().memory_max(64 << 20)));
    0
}

fn a_host_that_can_not_move_everybody_moves_nobody() {
    let group = Made::below(&place(), "crowded");
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        chown(group.0.join(file), Some(USER), Some(USER)).expect("it is the user's");
    }
    let inside = |command: &[&str]| {
        let mut shell = Host::new("sh");
        shell.args(["-c", "echo 0 >\"$0\"; exec \"$@\""]).arg(group.0.join("cgroup.procs")).args(command);
        shell
    };
    let mut other = inside(&["sleep", "1000"]).spawn().expect("a process of root's");
    eventually("it is there", || group.processes() == [other.id() as i32]);
    let own = support::own_path();
    let user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let host = [own.to_str().expect("a path"), "--payload", "crowded"];
    let output = inside(&[user.as_slice(), &host].concat()).output().expect("a host");
    let (said, left) = (text(&output.stdout), group.processes());
    let groups: Vec<_> = fs::read_dir(&group.0).unwrap().flatten().filter(|entry| entry.path().is_dir()).collect();
    other.kill().and_then(|()| other.wait()).expect("its end");
    for group in &groups {
        let _ = fs::remove_dir(group.path());
    }
    assert!(output.status.success(), "{said} {}", text(&output.stderr));
    // A kernel that lets the user move it has done that.
    if said.contains("moved") {
        assert_eq!((left, groups.len()), (vec![], 1), "{said}");
    } else {
        let pid = other.id() as i32;
        let is_moved = format!("moving process {pid} out of the cgroup /");
        assert!(said.contains(&is_moved) || said.contains("enabling controllers of cgroups (cpuset"), "{said}");
        assert!(said.contains("belongs to another user"), "{said}");
        assert_eq!((left, groups.len()), (vec![pid], 0), "all are where they were, and no leaf is left: {said}");
    }
}

fn host_beside_another_users_process(_: &[String]) -> i32 {
    let sandbox = Sandbox::new().cgroup(Cgroup::new().cpuset_cpus("0"));
    println!(
        "{}",
        sandbox.status(stockade::Command::new("true")).map_or_else(|error| error.to_string(), |_| "moved".into())
    );
    0
}
