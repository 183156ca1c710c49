//! Layers that a host does not support: the spawn returns an error that names the layer, or with best effort starts
//! without it and reports that. Every test shows the error first.

use std::collections::BTreeMap;

use crate::support::{self, on_host, refused};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use stockade::cgroup::CgroupParent;
use stockade::identity::IdRange;
use stockade::outcome::Enforcement;
use stockade::{Cgroup, Command, Identity, Landlock, Layer, Limits, Namespaces, Root, Sandbox, Seccomp};

payloads![
    ("unrestricted", caller_without_landlock),
    ("few_namespaces", caller_with_a_limit),
    ("unmounting", caller_without_mounts),
    ("no-cgroups", caller_without_cgroups),
];

/// What was in force for a program that ran.
fn enforced(sandbox: &Sandbox) -> Enforcement {
    let outcome = sandbox.status(Command::new("/bin/true")).unwrap_or_else(|error| panic!("{error}"));
    assert!(outcome.success(), "{outcome}");
    outcome.enforcement
}

/// The layers that were lost, each with what was asked for. None of them is in force.
fn lost(sandbox: &Sandbox) -> Vec<(Layer, String)> {
    let enforced = enforced(sandbox);
    assert!(!enforced.unenforced.iter().any(|lost| enforced.is_active(lost.layer)), "{enforced:?}");
    enforced.unenforced.into_iter().map(|lost| (lost.layer, lost.requested)).collect()
}

/// A way to a caller that may make no namespaces of a kind.
fn limited(limit: &str, payload_args: &[&str]) {
    let script = format!("echo 0 >/proc/sys/user/{limit} && exec \"$@\"");
    on_host(&["unshare", "-Urm", "sh", "-c", &script, "sh"], "few_namespaces", payload_args);
}

fn caller_with_a_limit(args: &[String]) -> i32 {
    let sandbox = Sandbox::new().identity(Identity::caller());
    let error = refused(&sandbox);
    assert_eq!(error.layer(), Some(Layer::Namespaces), "{error}");
    let effort = sandbox.clone().best_effort([Layer::Namespaces]);
    if args[0] == "net" {
        let enforced = enforced(&effort);
        assert_eq!(enforced.unenforced.len(), 1, "{enforced:?}");
        let lost = &enforced.unenforced[0];
        assert_eq!((lost.layer, lost.requested.as_str(), &lost.reason), (Layer::Namespaces, "net", &error.to_string()));
        assert!(enforced.is_active(Layer::Root), "{enforced:?}");
        assert!(!enforced.is_active(Layer::Namespaces), "one that was requested is missing: {enforced:?}");
        let kept = enforced.active().find(|active| active.layer == Layer::Namespaces).expect("the others");
        assert_eq!(kept.summary, "user, mnt, pid, ipc, uts, cgroup");
        return 0;
    }
    // Without a mount namespace there is no root of its own.
    let error = refused(&effort);
    assert!(support::is_invalid(&error) || support::is_set_up(&error), "{error}");
    let bare = sandbox.best_effort([Layer::Namespaces, Layer::Root]);
    let enforced = enforced(&bare);
    let layers: Vec<Layer> = enforced.unenforced.iter().map(|lost| lost.layer).collect();
    assert_eq!(layers, [Layer::Namespaces, Layer::Root], "{enforced:?}");
    assert!(!enforced.is_active(Layer::Namespaces) && !enforced.is_active(Layer::Root), "{enforced:?}");
    assert!(enforced.is_active(Layer::Seccomp) && enforced.is_active(Layer::NoNewPrivs), "what is left: {enforced:?}");
    0
}

#[apply(test)]
fn without_user_namespaces_there_are_none_and_no_root() {
    limited("max_user_namespaces", &["user"]);
}

#[apply(test)]
fn only_the_denied_namespace_is_skipped() {
    limited("max_net_namespaces", &["net"]);
}

/// A caller whose filter lets nobody make a file system, as a container's does.
fn caller_without_mounts(args: &[String]) -> i32 {
    let sandbox = Sandbox::new();
    assert!(lost(&sandbox).is_empty(), "before");
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let calls = [libc::SYS_fsopen, libc::SYS_open_tree, libc::SYS_pivot_root, libc::SYS_mount];
    // The last of them makes mounts private, without which there is no mount namespace.
    let all = args[0] == "all";
    let rules: BTreeMap<i64, _> = calls.into_iter().take(if all { 4 } else { 3 }).map(|call| (call, vec![])).collect();
    let answer = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("the filter is in force");
    let error = refused(&sandbox);
    if all {
        // Which of them is refused first is up to the processes that make them.
        assert!(matches!(error.layer(), Some(Layer::Namespaces | Layer::Root)), "{error}");
        let mut lost = lost(&sandbox.best_effort([Layer::Namespaces, Layer::Root]));
        lost.sort();
        assert_eq!(lost, [(Layer::Namespaces, "mnt".into()), (Layer::Root, "the host's, read-only".into())]);
        return 0;
    }
    assert_eq!(error.layer(), Some(Layer::Root), "{error}");
    if args[0] == "kept" {
        let other = refused(&sandbox.best_effort([Layer::Namespaces, Layer::Cgroup]));
        assert_eq!((other.layer(), other.errno()), (error.layer(), error.errno()));
        return 0;
    }
    let enforced = enforced(&sandbox.best_effort([Layer::Root]));
    assert_eq!(enforced.unenforced.len(), 1, "{enforced:?}");
    // Which call is refused first is up to the processes that make them.
    assert_eq!(enforced.unenforced[0].layer, Layer::Root);
    assert!(enforced.unenforced[0].reason.contains(": Operation not permitted (EPERM): "), "{enforced:?}");
    assert!(enforced.is_active(Layer::Namespaces) && !enforced.is_active(Layer::Root), "{enforced:?}");
    0
}

#[apply(test)]
fn the_root_is_unenforced_where_mounts_are_denied() {
    on_host(&[], "unmounting", &["lost"]);
    on_host(&[], "unmounting", &["all"]);
}

#[apply(test)]
fn a_root_that_must_be_kept_stays_an_error() {
    on_host(&[], "unmounting", &["kept"]);
}

#[apply(test)]
#[skip(support::unless_mounts)]
fn a_cgroup_that_cannot_be_created_is_unenforced() {
    let dir = support::shared_dir();
    support::in_mount_namespace("mount -t tmpfs none /sys/fs/cgroup", "no-cgroups", dir.path());
}

/// A caller whose cgroup file systems are not seen.
fn caller_without_cgroups(_: &[String]) -> i32 {
    let sandbox = Sandbox::new().cgroup(Cgroup::new().pids_max(50));
    let error = refused(&sandbox);
    assert_eq!(error.layer(), Some(Layer::Cgroup), "{error}");
    let sandbox = sandbox.best_effort([Layer::Cgroup]);
    let enforced = enforced(&sandbox);
    let lost: Vec<Layer> = enforced.unenforced.iter().map(|lost| lost.layer).collect();
    assert!(!lost.is_empty() && lost.iter().all(|&layer| layer == Layer::Cgroup), "{lost:?}");
    assert!(enforced.active().all(|active| active.layer != Layer::Cgroup), "no group: {enforced:?}");
    0
}

#[apply(test)]
fn mandatory_layers_cannot_be_best_effort() {
    for layer in [Layer::Identity, Layer::Capabilities, Layer::NoNewPrivs, Layer::Descriptors, Layer::Limits] {
        let error = refused(&Sandbox::new().best_effort([layer]));
        assert!(error.to_string().contains("cannot be best-effort"), "{error}");
        assert!(error.hint().is_some_and(|remedy| remedy.contains("seccomp")), "{error}");
    }
}

/// A requested parent may have been removed by a program.
#[apply(test)]
fn a_cgroup_whose_parent_is_missing_is_an_error() {
    let nowhere = Cgroup::new().parent(CgroupParent::Path("/nowhere".into())).pids_max(50);
    let sandbox = Sandbox::new().cgroup(nowhere);
    let error = refused(&sandbox);
    assert_eq!(error.layer(), Some(Layer::Cgroup), "{error}");
    assert_eq!(refused(&sandbox.best_effort([Layer::Cgroup])), error);
}

fn unless_landlock_of_files() -> Option<String> {
    (support::kernel() < (6, 2)).then(|| "Landlock has all rights of files since Linux 6.2".into())
}

#[apply(test)]
#[skip(unless_landlock_of_files)]
fn landlock_rights_of_newer_kernels_are_unenforced_and_the_rest_is_kept() {
    let everywhere = Landlock::new().read_only("/");
    let old = Sandbox::new().landlock(everywhere).as_on_kernel(6, 3);
    let error = refused(&old);
    let said = "the kernel's Landlock does not support restrictions of TCP (since Linux 6.7), abstract UNIX sockets \
                (since Linux 6.12), signals (since Linux 6.12)";
    assert!(error.to_string().starts_with(said), "{error}");
    assert_eq!(error.layer(), Some(Layer::Landlock));
    let enforced = enforced(&old.best_effort([Layer::Landlock]));
    assert_eq!(enforced.unenforced.len(), 1, "{enforced:?}");
    assert!(!enforced.is_active(Layer::Landlock), "not all of it: {enforced:?}");
    let in_part = enforced.active().any(|active| active.layer == Layer::Landlock);
    assert!(in_part, "files are restricted all the same: {enforced:?}");
    let none = Sandbox::new().landlock(Landlock::new()).as_on_kernel(5, 12).best_effort([Layer::Landlock]);
    assert_eq!(lost(&none).len(), 1);
}

/// A caller whose filter denies the call that restricts a process.
fn caller_without_landlock(_: &[String]) -> i32 {
    let root = || Root::host().tmpfs("/scratch", 1 << 20).file("/scratch/secret", "hidden");
    let policy = Landlock::new().read_only("/").read_write("/scratch").any_tcp().any_signal().any_abstract_socket();
    let read = |sandbox: &Sandbox| {
        let script = "cat /scratch/secret; echo x >/scratch/file && echo written";
        support::text(&support::sh(sandbox, script).stdout)
    };
    // With a filter the root may need Landlock too, to cut off FIFOs.
    let plain = Sandbox::new().root(root()).seccomp(Seccomp::unconfined());
    assert_eq!(read(&plain), "hiddenwritten");
    let denied = plain.landlock(policy.deny("/scratch/secret").deny_write("/scratch"));
    assert_eq!(read(&denied), "");
    support::filter::filter_calls(libc::EPERM, [libc::SYS_landlock_restrict_self]);
    assert_eq!(refused(&denied).layer(), Some(Layer::Landlock));
    let effort = denied.best_effort([Layer::Landlock]);
    assert_eq!(read(&effort), "", "the mounts need no Landlock");
    assert!(lost(&effort).iter().all(|(layer, _)| *layer == Layer::Landlock));
    0
}

#[apply(test)]
#[skip(unless_landlock_of_files)]
fn what_landlock_denies_by_mounts_is_denied_without_landlock() {
    on_host(&[], "unrestricted", &[]);
}

/// Best effort is about what a host can't give, and not about mistakes.
#[apply(test)]
fn invalid_configuration_stays_an_error() {
    let layers = [Layer::Namespaces, Layer::Root, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];
    let missing = Sandbox::new().root(Root::host().bind("/no-such-directory", "/mnt"));
    let unknown = Sandbox::new().seccomp(stockade::Seccomp::new().deny(["moumt"]));
    let twice =
        Sandbox::new().join(Namespaces::NET, stockade::namespaces::NamespaceRef::pid(1)).namespaces(Namespaces::NET);
    for sandbox in [missing, unknown, twice] {
        let error = refused(&sandbox);
        assert_eq!(refused(&sandbox.best_effort(layers)), error);
    }
}

#[apply(test)]
fn nothing_is_unenforced_where_everything_is_supported() {
    let layers = [Layer::Namespaces, Layer::Root, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];
    assert_eq!(lost(&Sandbox::new().best_effort(layers)), []);
}

const ALL: [Layer; 10] = [
    Layer::Namespaces,
    Layer::Root,
    Layer::Identity,
    Layer::Capabilities,
    Layer::NoNewPrivs,
    Layer::Session,
    Layer::Limits,
    Layer::Cgroup,
    Layer::Seccomp,
    Layer::Landlock,
];

/// The layers that are in force.
fn in_force(sandbox: &Sandbox, command: &Command) -> Vec<Layer> {
    let outcome = sandbox.status(command).unwrap_or_else(|error| panic!("{error}"));
    assert!(outcome.success(), "{outcome}");
    ALL.into_iter().filter(|&layer| outcome.enforcement.is_active(layer)).collect()
}

/// A limit on output takes no privilege, and a cgroup is asked for where this user may make one.
fn whole() -> Sandbox {
    let limited = Sandbox::new().limits(Limits::new().stdout_max(1 << 20));
    let counted = limited.clone().cgroup(Cgroup::new());
    if counted.plan(Command::new("true")).is_ok() { counted } else { limited }
}

#[apply(test)]
fn a_cgroup_without_limits_is_enforced_or_unenforced() {
    let enforced = enforced(&Sandbox::new().cgroup(Cgroup::new()).best_effort([Layer::Cgroup]));
    let is_lost = enforced.unenforced.iter().any(|lost| lost.layer == Layer::Cgroup && lost.requested == "accounting");
    assert_ne!(enforced.is_active(Layer::Cgroup), is_lost, "{enforced:?}");
}

#[apply(test)]
fn a_skipped_layer_is_not_reported_as_active() {
    let mut command = Command::new("/bin/true");
    let landlock = || Landlock::new().read_write("/").any_signal().any_abstract_socket().any_tcp();
    let restricted = |sandbox: Sandbox| match unless_landlock_of_files() {
        None => sandbox.landlock(landlock()),
        Some(reason) => {
            println!("without Landlock: {reason}");
            sandbox
        }
    };
    let sandbox = restricted(whole());
    let all = in_force(&sandbox, &command);
    let optional = [Layer::Landlock, Layer::Cgroup];
    assert!(ALL.iter().all(|layer| all.contains(layer) || optional.contains(layer)), "{all:?}");
    let without = |layers: &[Layer]| -> Vec<Layer> { all.iter().copied().filter(|l| !layers.contains(l)).collect() };
    // Without namespaces a program that is root can change its cgroup.
    let no_cgroup = restricted(Sandbox::new().limits(Limits::new().stdout_max(1 << 20)));
    let no_namespaces = no_cgroup.clone().namespaces(Namespaces::empty()).root(Root::inherit());
    let no_landlock = whole();
    let cases = [
        (no_namespaces.identity(Identity::caller()), vec![Layer::Namespaces, Layer::Root, Layer::Cgroup]),
        (no_cgroup, vec![Layer::Cgroup]),
        (sandbox.clone().root(Root::inherit()), vec![Layer::Root]),
        (sandbox.clone().seccomp(Seccomp::unconfined()), vec![Layer::Seccomp]),
        (sandbox.clone().allow_new_privs(), vec![Layer::NoNewPrivs]),
        (sandbox.clone().limits(Limits::new()), vec![Layer::Limits]),
        (no_landlock, vec![Layer::Landlock]),
    ];
    for (sandbox, mut missing) in cases {
        if support::is_root() && sandbox == sandbox.clone().identity(Identity::caller()) {
            missing.push(Layer::Identity);
        }
        // With best effort what can be had is in force all the same.
        let layers = [Layer::Namespaces, Layer::Root, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];
        let effort = sandbox.clone().best_effort(layers);
        for sandbox in [&sandbox, &effort] {
            assert_eq!(in_force(sandbox, &command), without(&missing), "without {missing:?}");
        }
    }
    command.new_session(false);
    assert_eq!(in_force(&sandbox, &command), without(&[Layer::Session]));
}

#[apply(test)]
fn ids_and_capabilities_of_root_are_not_reported_as_a_layer() {
    let has_identity = |identity| enforced(&Sandbox::new().identity(identity)).is_active(Layer::Identity);
    assert!(has_identity(Identity::new()));
    assert!(has_identity(Identity::new().uid(0).gid(0)), "0 inside is another ID on the host");
    assert_eq!(has_identity(Identity::caller()), !support::is_root());
    if support::is_root() {
        let range = |inside, outside| IdRange::new(inside, outside, 1);
        assert!(!has_identity(Identity::new().groups([0])), "the host's group 0");
        assert!(!has_identity(Identity::new().maps([range(1, 5), range(2, 0)], [range(1, 5)])), "setuid leads to root");
        assert!(has_identity(Identity::new().maps([range(1, 5)], [range(1, 5)])));
    }
    // Set-user-ID programs of the host have their effect where no set of capabilities is emptied.
    let gains = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit()).allow_new_privs();
    let gains = gains.seccomp(Seccomp::unconfined());
    assert_eq!(enforced(&gains).is_active(Layer::Capabilities), support::is_root(), "root empties the bounding set");
}
