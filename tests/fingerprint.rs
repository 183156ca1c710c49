//! The fingerprint of a sandbox: equal for equal descriptions, and different for all others.
//!
//! This has its own process, since it starts no program and so does not run as two users.

#[path = "support/strategies.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod strategies;

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::identity::IdRange;
use stockade::limits::{Overflow, Resource};
use stockade::mount::{Bind, HostPath, Inputs, Operation, Overlay, Proc, Tmpfs};
use stockade::namespaces::{NamespaceRef, TimeOffsets};
use stockade::{
    Capabilities, Cgroup, ErrorKind, Fingerprint, Identity, Landlock, Layer, Limits, Namespaces, Root, Sandbox,
    Seccomp, profile,
};

fn fingerprint(sandbox: &Sandbox) -> Fingerprint {
    sandbox.fingerprint().expect("a fingerprint")
}

/// Removes what only the caller notices.
fn as_program_sees(sandbox: &Sandbox) -> Value {
    let mut value = serde_json::to_value(sandbox).expect("JSON");
    let table = value.as_object_mut().expect("a table");
    table.remove("setup_timeout");
    table.remove("keep_namespaces");
    if let Some(Value::Object(cgroup)) = table.get_mut("cgroup") {
        cgroup.remove("parent");
    }
    value
}

proptest! {
    #[test]
    fn a_copy_has_the_same_fingerprint(sandbox in strategies::sandbox()) {
        prop_assert_eq!(fingerprint(&sandbox), fingerprint(&sandbox.clone()));
        let stored = serde_json::to_string(&sandbox).expect("JSON");
        let read: Sandbox = serde_json::from_str(&stored).expect("a sandbox");
        prop_assert_eq!(fingerprint(&sandbox), fingerprint(&read));
    }

    #[test]
    fn other_descriptions_have_other_fingerprints(one in strategies::sandbox(), other in strategies::sandbox()) {
        let same = as_program_sees(&one) == as_program_sees(&other);
        prop_assert_eq!(fingerprint(&one) == fingerprint(&other), same);
    }

    #[test]
    fn one_setting_more_is_another_fingerprint(sandbox in strategies::sandbox(), index in any::<prop::sample::Index>()) {
        let all = changes();
        let (name, change) = &all[index.index(all.len())];
        let changed = change(sandbox.clone());
        let same = as_program_sees(&changed) == as_program_sees(&sandbox);
        prop_assert_eq!(fingerprint(&changed) == fingerprint(&sandbox), same, "{}", name);
    }

    #[test]
    fn what_only_the_caller_notices_changes_nothing(sandbox in strategies::sandbox(), seconds in 1..1000u64) {
        let time = Duration::from_secs(seconds);
        prop_assert_eq!(fingerprint(&sandbox.clone().setup_timeout(time)), fingerprint(&sandbox));
        prop_assert_eq!(fingerprint(&sandbox.clone().keep_namespaces()), fingerprint(&sandbox));
        let with = |parent: &str| sandbox.clone().map_cgroup(|cgroup| cgroup.parent(CgroupParent::Path(parent.into())));
        prop_assert_eq!(fingerprint(&with("/a")), fingerprint(&with("/b")));
    }
}

type Change = Box<dyn Fn(Sandbox) -> Sandbox>;

/// A change by each builder method.
fn changes() -> Vec<(&'static str, Change)> {
    let mut all: Vec<(&'static str, Change)> = vec![];
    let mut add = |name, change: fn(Sandbox) -> Sandbox| all.push((name, Box::new(change) as Change));
    add("namespaces", |s| s.map_namespaces(|kinds| kinds - Namespaces::IPC));
    add("join", |s| s.join(Namespaces::NET, NamespaceRef::pid(1)));
    add("hostname", |s| s.hostname("other"));
    add("domain_name", |s| s.domain_name("other"));
    add("time_offsets", |s| s.time_offsets(TimeOffsets::new().monotonic(5)));
    add("env", |s| s.env("A", "b"));
    add("env value", |s| s.env("A", "b").env("A", "c"));
    add("identity", |s| s.identity(Identity::caller()));
    add("identity uid", |s| s.identity(Identity::new().uid(7)));
    add("identity gid", |s| s.identity(Identity::new().gid(7)));
    add("identity groups", |s| s.identity(Identity::new().groups([7])));
    add("identity sub_ids", |s| s.identity(Identity::new().sub_ids()));
    add("identity host_ids", |s| s.identity(Identity::new().host_ids(9, 9)));
    add("identity maps", |s| s.identity(Identity::new().maps([IdRange::new(0, 1, 1)], [IdRange::new(0, 1, 1)])));
    add("root empty", |s| s.root(Root::empty()));
    add("root system", |s| s.root(Root::system()));
    add("root inherit", |s| s.root(Root::inherit()));
    add("root from_dir", |s| s.root(Root::from_dir("/srv")));
    add("root from_dir_rw", |s| s.root(Root::from_dir_rw("/srv")));
    add("root from_overlay", |s| s.root(Root::from_overlay(Overlay::new("/").lower("/srv"))));
    add("root writable", |s| s.map_root(Root::writable));
    add("root terminals", |s| s.map_root(|root| root.terminals(3)));
    add("bind", |s| s.map_root(|root| root.bind("/a", "/b")));
    add("bind source", |s| s.map_root(|root| root.bind("/c", "/b")));
    add("bind target", |s| s.map_root(|root| root.bind("/a", "/c")));
    add("bind beneath", |s| s.map_root(|root| root.bind(HostPath::beneath("/", "a"), "/b")));
    add("bind writable", |s| s.map_root(|root| root.bind_rw("/a", "/b")));
    add("bind noexec", |s| s.map_root(|root| root.with(Bind::new("/a", "/b").noexec())));
    add("bind devices", |s| s.map_root(|root| root.with(Bind::new("/a", "/b").devices())));
    add("bind sockets", |s| s.map_root(|root| root.with(Bind::new("/a", "/b").sockets())));
    add("bind owner", |s| s.map_root(|root| root.with(Bind::new("/a", "/b").owner(1, 1))));
    add("bind unmapped", |s| s.map_root(|root| root.with(Bind::new("/a", "/b").unmapped())));
    add("bind protect_git", |s| s.map_root(|root| root.with(Bind::new("/a", "/b").protect_git())));
    add("inputs", |s| s.map_root(|root| root.inputs("/a", "/b", ["c"])));
    add("inputs path", |s| s.map_root(|root| root.inputs("/a", "/b", ["d"])));
    add("inputs name", |s| s.map_root(|root| root.with(Inputs::new("/b").files_as("/a", [("c", "d")]))));
    add("inputs unmapped", |s| s.map_root(|root| root.with(Inputs::new("/b").files("/a", ["c"]).unmapped())));
    add("tmpfs", |s| s.map_root(|root| root.with(Tmpfs::new("/t"))));
    add("tmpfs size", |s| s.map_root(|root| root.tmpfs("/t", 1 << 20)));
    add("tmpfs mode", |s| s.map_root(|root| root.with(Tmpfs::new("/t").mode(0o700))));
    add("tmpfs inodes", |s| s.map_root(|root| root.with(Tmpfs::new("/t").inodes(9))));
    add("overlay", |s| s.map_root(|root| root.overlay("/a", "/b")));
    add("proc", |s| s.map_root(|root| root.proc("/proc")));
    add("proc subset", |s| s.map_root(|root| root.with(Proc::new("/proc").subset_pid())));
    add("dev", |s| s.map_root(|root| root.dev("/dev")));
    add("file", |s| s.map_root(|root| root.file("/f", "1")));
    add("file contents", |s| s.map_root(|root| root.file("/f", "2")));
    add("file_rw", |s| s.map_root(|root| root.file_rw("/f", "1")));
    add("file mode", |s| s.map_root(|root| root.with(Operation::file("/f", "1", 0o555))));
    add("symlink", |s| s.map_root(|root| root.symlink("a", "/l")));
    add("create_dir", |s| s.map_root(|root| root.create_dir("/d")));
    add("mask", |s| s.map_root(|root| root.mask("/m")));
    add("read_only", |s| s.map_root(|root| root.read_only("/m")));
    add("protect", |s| s.map_root(|root| root.protect("/m")));
    add("gpus", |s| s.map_root(Root::gpus));
    add("network_names", |s| s.map_root(Root::network_names));
    add("user_names", |s| s.map_root(Root::user_names));
    add("capabilities", |s| s.capabilities(Capabilities::none().keep([stockade::capabilities::Capability::Kill])));
    add("allow_new_privs", Sandbox::allow_new_privs);
    add("umask", |s| s.umask(0o077));
    add("landlock", |s| s.landlock(Landlock::new()));
    add("landlock path", |s| s.landlock(Landlock::new().read_only("/a")));
    add("landlock_fallback", Sandbox::landlock_fallback);
    add("seccomp", |s| s.seccomp(Seccomp::unconfined()));
    add("seccomp call", |s| s.map_seccomp(|policy| policy.deny(["getpid"])));
    add("nestable", Sandbox::nestable);
    add("best_effort", |s| s.best_effort([Layer::Cgroup]));
    add("limits wall_time", |s| s.limits(Limits::new().wall_time(Duration::from_secs(3))));
    add("limits wall_time fraction", |s| s.limits(Limits::new().wall_time(Duration::from_nanos(3_000_000_001))));
    add("limits cpu_time", |s| s.limits(Limits::new().cpu_time(Duration::from_secs(3))));
    add("limits idle_timeout", |s| s.limits(Limits::new().idle_timeout(Duration::from_secs(3))));
    add("limits kill_grace", |s| s.limits(Limits::new().kill_grace(Duration::from_secs(3))));
    add("limits stdout_max", |s| s.limits(Limits::new().stdout_max(3)));
    add("limits stderr_max", |s| s.limits(Limits::new().stderr_max(3)));
    add("limits overflow", |s| s.limits(Limits::new().overflow(Overflow::Discard)));
    add("limits stderr_overflow", |s| s.limits(Limits::new().stderr_overflow(Overflow::Discard)));
    add("limits rlimit", |s| s.limits(Limits::new().rlimit(Resource::Nofile, 7, 9)));
    add("limits address_space", |s| s.limits(Limits::new().address_space_without_cgroup(1 << 30)));
    add("limits nice", |s| s.limits(Limits::new().nice(3)));
    add("limits oom_score_adj", |s| s.limits(Limits::new().oom_score_adj(3)));
    add("cgroup", |s| s.cgroup(Cgroup::new()));
    add("cgroup memory_max", |s| s.cgroup(Cgroup::new().memory_max(1 << 20)));
    add("cgroup cpu_max", |s| s.cgroup(Cgroup::new().cpu_max(1.5)));
    add("cgroup pids_max", |s| s.cgroup(Cgroup::new().pids_max(5)));
    add("cgroup io_max", |s| s.cgroup(Cgroup::new().io_max("/dev/vda", IoMax::default())));
    add("cgroup raw", |s| s.cgroup(Cgroup::new().raw("cpu.idle", "1")));
    add("cgroup freezable", |s| s.cgroup(Cgroup::new().freezable()));
    all
}

#[test]
fn every_setting_counts_and_no_two_are_the_same() {
    let default = Sandbox::new();
    let before = serde_json::to_value(&default).expect("JSON");
    let (mut keys, mut seen) = (BTreeSet::new(), vec![("the default", fingerprint(&default))]);
    for (name, change) in changes() {
        let changed = change(default.clone());
        let digest = fingerprint(&changed);
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == digest) {
            panic!("{name} is as {other}");
        }
        seen.push((name, digest));
        let after = serde_json::to_value(&changed).expect("JSON");
        let differ = before.as_object().expect("a table").iter().filter(|(key, value)| after[key] != **value);
        keys.extend(differ.map(|(key, _)| key.clone()));
    }
    // A setting that is added to the sandbox is added above as well.
    let all: BTreeSet<String> = before.as_object().expect("a table").keys().cloned().collect();
    let without = ["version", "setup_timeout", "keep_namespaces"].map(String::from);
    assert_eq!(all.difference(&keys).cloned().collect::<Vec<_>>(), {
        let mut without = without.to_vec();
        without.sort();
        without
    });
}

/// It is the same in every process, on every machine, and with every release: if this fails, and the stored form has not
/// changed, the version of the digest has to be raised, and the changelog to say so.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_fingerprint_of_a_description_is_known() {
    let root = Root::system().dev("/dev").tmpfs("/tmp", 64 << 20).bind("/srv/in", "/in");
    let sandbox = Sandbox::new()
        .root(root)
        .seccomp(Seccomp::allow_list().allow(["read", "write"]))
        .limits(Limits::new().wall_time(Duration::from_millis(1500)))
        .cgroup(Cgroup::new().cpu_max(1.5).memory_max(1 << 30))
        .env("LANG", "C");
    assert_eq!(fingerprint(&sandbox).to_string(), "1a15f797fee1e50f80240f871630602adc773460fce7db8a90a67153633cabf8");
}

#[test]
fn profiles_differ() {
    let all =
        [profile::build_step(), profile::test(), profile::judge(), profile::agent(), profile::compile_untrusted()];
    let digests: BTreeSet<Fingerprint> = all.iter().map(fingerprint).collect();
    assert_eq!(digests.len(), all.len());
}

#[test]
fn what_is_open_or_not_finite_has_none() {
    let open = Sandbox::new().map_root(|root| root.with(Bind::from_fd(File::open("/").expect("a directory"), "/in")));
    let endless = Sandbox::new().cgroup(Cgroup::new().cpu_max(f64::INFINITY));
    for (sandbox, says) in [(open, "an open descriptor"), (endless, "finite")] {
        let error = sandbox.fingerprint().expect_err("no fingerprint");
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
        assert!(error.to_string().contains(says), "{error}");
    }
}
