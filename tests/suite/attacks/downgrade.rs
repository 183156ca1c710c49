//! Programs that make a layer of the next sandbox fail, so that best effort would start it without that layer.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command as Host, Stdio};

use stockade::cgroup::CgroupParent;
use stockade::identity::IdRange;
use stockade::{Cgroup, Error, Identity, Landlock, Layer, Root, Sandbox};

use crate::attacks::common::{Canary, open_directory};
use crate::support::{
    exists, on_host, refused, sh, shared_dir, stdout, unless_idmapped_mounts, unless_landlock_since, unless_mounts,
};

payloads![("full-quota", full_quota), ("no-processes", no_processes)];

const LAYERS: [Layer; 5] = [Layer::Namespaces, Layer::Root, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];

fn unless_landlock() -> Option<String> {
    unless_landlock_since((6, 12))
}

/// The sandbox must not start, with best effort as little as without, and for the same reason.
#[track_caller]
fn assert_no_downgrade(sandbox: &Sandbox) -> Error {
    let error = refused(sandbox);
    let effort = sandbox.clone().best_effort(LAYERS);
    // Which call fails first is up to the processes that make them.
    let again = refused(&effort);
    assert_eq!((again.layer(), again.errno()), (error.layer(), error.errno()), "{again}");
    error
}

/// A workspace that sandboxes write to, and a directory of the host that they must not change.
struct Place {
    dir: tempfile::TempDir,
    canary: Canary,
}

impl Place {
    fn new() -> Self {
        let dir = shared_dir();
        open_directory(&dir.path().join("work"));
        let canary = Canary::new(dir.path().join("canary"));
        Self { dir, canary }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// A program in a sandbox without the root that was requested writes to the host.
    fn assert_harm_without_root(&self) {
        let bare = Sandbox::new().root(Root::inherit()).identity(Identity::caller());
        stdout(&bare, &format!("echo > {}/harm", self.path("canary")));
        self.canary.assert_hit("harm");
    }
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn a_removed_mount_point_costs_no_root() {
    let place = Place::new();
    fs::create_dir(place.path("work/mount")).unwrap();
    place.assert_harm_without_root();
    let first = Sandbox::new().root(Root::host().bind_rw(place.path("work"), "/mnt"));
    let second = first.clone().map_root(|root| root.bind("/usr", "/mnt/mount"));
    assert!(sh(&second, "true").outcome.success(), "the mount point is there");
    // The directory is the caller's, and the program's in its idmapped mount.
    stdout(&first, "rm -r /mnt/mount");
    let error = assert_no_downgrade(&second);
    assert_eq!(error.layer(), Some(Layer::Root), "{error}");
    place.canary.assert_unchanged("a program without its root");
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn a_removed_bind_source_costs_no_root() {
    let place = Place::new();
    let source = place.path("work/source");
    fs::create_dir(&source).unwrap();
    let second = Sandbox::new().root(Root::host().bind_rw(&source, "/mnt"));
    assert!(sh(&second, "true").outcome.success());
    stdout(&Sandbox::new().root(Root::host().bind_rw(place.path("work"), "/mnt")), "rmdir /mnt/source");
    assert_no_downgrade(&second);
}

#[apply(test)]
#[skip(unless_landlock)]
fn a_deleted_path_of_a_rule_costs_no_landlock() {
    let place = Place::new();
    let rule = place.path("work/rule");
    fs::create_dir(&rule).unwrap();
    let landlock = Landlock::new().read_only("/").read_write(&rule);
    let with_root = |landlock| Sandbox::new().root(Root::inherit()).identity(Identity::caller()).landlock(landlock);
    let second = with_root(landlock);
    // The harm: what Landlock forbids is done without it.
    let harm = format!("echo > {}/harm", place.path("canary"));
    assert!(!sh(&second, &harm).outcome.success(), "the rule forbids it");
    place.assert_harm_without_root();
    stdout(&second, &format!("rmdir {rule} || true"));
    fs::remove_dir(&rule).or_else(|error| if exists(&rule) { Err(error) } else { Ok(()) }).unwrap();
    let error = assert_no_downgrade(&second);
    assert_eq!(error.layer(), Some(Layer::Landlock), "{error}");
    place.canary.assert_unchanged("a program without Landlock");
}

#[apply(test)]
fn a_removed_parent_costs_no_cgroup() {
    let parent = CgroupParent::Path("/stockade-removed".into());
    for cgroup in [Cgroup::new().pids_max(50), Cgroup::new().memory_max(64 << 20), Cgroup::new().freezable()] {
        let error = assert_no_downgrade(&Sandbox::new().cgroup(cgroup.parent(parent.clone())));
        assert_eq!(error.layer(), Some(Layer::Cgroup), "{error}");
    }
}

#[apply(test)]
#[only(User)]
fn ids_that_can_not_be_mapped_cost_no_namespaces() {
    let map = |inside| IdRange::new(inside, 0, 1);
    let identity = Identity::new().maps([map(1000)], [map(1000)]);
    assert_no_downgrade(&Sandbox::new().identity(identity));
}

#[apply(test)]
#[skip(unless_mounts)]
fn a_namespace_quota_that_is_used_up_costs_no_namespaces() {
    // One net namespace may exist, and a process that could be a program's has it.
    let limit = |count| format!("echo {count} >/proc/sys/user/max_net_namespaces && exec \"$@\"");
    on_host(&["unshare", "-Urm", "sh", "-c", &limit(0), "sh"], "full-quota", &["lacks"]);
    on_host(&["unshare", "-Urm", "sh", "-c", &limit(1), "sh"], "full-quota", &["full"]);
}

fn full_quota(args: &[String]) -> i32 {
    let sandbox = Sandbox::new().identity(Identity::caller());
    if args[0] == "lacks" {
        // The harm: the program is in the host's net namespace.
        let outcome = sh(&sandbox.best_effort(LAYERS), "true").outcome;
        assert_eq!(outcome.enforcement.unenforced.len(), 1, "{outcome:?}");
        return 0;
    }
    assert!(sh(&sandbox, "true").outcome.success(), "before");
    // The namespace of the sandbox before goes when the kernel finds the time.
    let hold = "until unshare -n sh -c 'echo held; read line || true' 2>/dev/null; do sleep 0.01; done";
    let mut holder =
        Host::new("sh").args(["-c", hold]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let error = assert_no_downgrade(&sandbox);
    assert_eq!(error.errno(), Some(stockade::Errno::ENOSPC), "{error}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    0
}

#[apply(test)]
#[only(User)]
fn a_limit_on_processes_that_is_reached_costs_nothing() {
    on_host(&["prlimit", "--nproc=1"], "no-processes", &[]);
}

fn no_processes(_: &[String]) -> i32 {
    let error = assert_no_downgrade(&Sandbox::new());
    assert_eq!(error.errno(), Some(stockade::Errno::EAGAIN), "{error}");
    0
}
