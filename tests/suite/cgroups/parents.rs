//! Cgroups of v2 below which none can be created, and callers that cannot move the processes of their own cgroup to a
//! leaf.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command as Host;
use std::sync::mpsc;

use nix::unistd::getpid;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::{Cgroup, Layer, Sandbox};

use crate::cgroups::errors::{disk, unless_a_disk};
use crate::cgroups::groups::{self, of_process, unless_cpuset, unless_io, unless_v2};
use crate::cgroups::sleeper;
use crate::support::listener::{hold, let_go};
use crate::support::{self, USER, eventually, on_host, text, unless_root};

payloads![
    ("no_cgroup_namespace_root", caller_without_a_place),
    ("beside_another_user", caller_beside_another_users_process),
    ("disturbed", caller_whose_leaf_is_removed),
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

#[apply(test)]
#[skip(unless_v2)]
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
        assert!(said.starts_with("pids_max cannot be enforced: the cgroup "), "{said}");
        assert!(said.contains(&format!("is threaded (its cgroup.type is {kind:?})")), "{said}");
        assert!(said.contains("choose another parent"), "{said}");
    }
}

/// The kernel limits what is written back for a group that its memory is counted for.
#[apply(test)]
#[skip(unless_v2_with_a_disk)]
fn buffered_writes_are_limited_below_a_parent_that_gives_io_alone() {
    let above = Made::below(&place(), "io-alone");
    above.write("cgroup.subtree_control", "+io");
    let (_, node) = disk().expect("a disk");
    let writes = IoMax::new().write_bytes(1 << 20);
    let cgroup = Cgroup::new().parent(above.parent()).io_max(node, writes);
    let mut child = sleeper(&Sandbox::new().cgroup(cgroup));
    assert!(of_process(child.pid().number(), "io").join("memory.max").exists(), "memory is counted beside it");
    child.kill().expect("its end");
    assert_eq!(child.wait().expect("an outcome").enforcement.unenforced, vec![]);
}

/// The kernel would give pids on, and let no process enter a group below.
#[apply(test)]
#[skip(unless_v2)]
fn a_parent_that_has_processes_is_left_as_it_is() {
    let group = Made::below(&place(), "busy");
    let mut other = Host::new("sleep").arg("1000").spawn().expect("a process");
    group.write("cgroup.procs", &other.id().to_string());
    let said = [Cgroup::new().pids_max(10), Cgroup::new().memory_max(64 << 20)]
        .map(|cgroup| support::refused(&Sandbox::new().cgroup(cgroup.parent(group.parent()))).to_string());
    let given = groups::read(&group.0, "cgroup.subtree_control");
    other.kill().and_then(|()| other.wait()).expect("its end");
    for said in said {
        assert!(said.contains("enable controllers of cgroups") && said.contains("has processes of its own"), "{said}");
    }
    assert_eq!(given, "");
}

#[apply(test)]
#[skip(unless_v2)]
fn a_leaf_cgroup_removed_by_another_caller_is_recreated() {
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
    paths.filter(|path| path.to_string_lossy().contains("/stockade-caller-")).collect()
}

/// A caller whose leaf is removed once, by somebody who sees it as soon as it opens something.
fn caller_whose_leaf_is_removed(args: &[String]) -> i32 {
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
#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_v2)]
fn a_caller_outside_of_mounted_cgroups_gets_an_error() {
    let said = on_host(&["unshare", "--cgroup"], "no_cgroup_namespace_root", &[]);
    let point = groups::hierarchy("memory").unwrap().point;
    let expected = format!(
        "memory_max cannot be enforced: the caller's cgroup is not below the cgroup that is mounted on {}",
        point.display()
    );
    assert!(said.starts_with(&expected), "{said}");
}

fn caller_without_a_place(_: &[String]) -> i32 {
    println!("{}", refusal(Cgroup::new().memory_max(64 << 20)));
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_cpuset)]
fn a_caller_that_cannot_move_all_processes_moves_none() {
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
    let caller = [own.to_str().expect("a path"), "--payload", "beside_another_user"];
    let output = inside(&[user.as_slice(), &caller].concat()).output().expect("a caller");
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
        let is_moved = format!("move process {pid} out of the cgroup /");
        assert!(said.contains(&is_moved) || said.contains("enable controllers of cgroups (cpuset"), "{said}");
        assert!(said.contains("belongs to another user"), "{said}");
        assert_eq!((left, groups.len()), (vec![pid], 0), "all are where they were, and no leaf is left: {said}");
    }
}

fn caller_beside_another_users_process(_: &[String]) -> i32 {
    let sandbox = Sandbox::new().cgroup(Cgroup::new().cpuset_cpus("0"));
    println!(
        "{}",
        sandbox.status(stockade::Command::new("true")).map_or_else(|error| error.to_string(), |_| "moved".into())
    );
    0
}
