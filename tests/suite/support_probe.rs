//! The probe reports the features of a host correctly, on this machine and on hosts that deny some. Each missing
//! feature has a reason and a hint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::filter::filter;
use crate::support::{self, COMMAND, children, descriptors, example, is_root, on_host, text};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use stockade::mount::Overlay;
use stockade::probe::{Feature, Finding, State, Support};
use stockade::{Cgroup, Command, Identity, Layer, Namespaces, Root, Sandbox, Seccomp, Termination};

payloads![
    ("probe_again", caller_that_finds_the_same),
    ("traceless", caller_without_traces),
    ("timed", caller_with_a_clock),
    ("probe_without_namespaces", caller_without_namespaces),
    ("probe_under_a_filter", caller_under_a_filter),
    ("probe_that_fails_late", caller_that_refuses_late),
    ("unfiltered", caller_without_filters),
    ("probe_of_a_masked_proc", caller_with_a_masked_proc),
    ("read-only", caller_with_read_only_cgroups),
    ("probe_of_noexec_memfds", caller_without_executable_memfds),
];

fn find(support: &Support, feature: Feature) -> &Finding {
    support.finding(feature).unwrap_or_else(|| panic!("{feature} is not in {support}"))
}

/// Asserts that something is missing, for this reason, and with a remedy that begins so: what follows may depend on the
/// container that the tests run in.
#[track_caller]
fn unavailable(support: &Support, feature: Feature, reason: &str, remedy: &str) {
    let finding = find(support, feature);
    assert_eq!(finding.state, State::unavailable(reason, finding.hint().unwrap_or_default()), "{feature}");
    assert!(finding.hint().is_some_and(|hint| hint.starts_with(remedy)), "{feature}: {finding:?}");
}

#[track_caller]
fn available(support: &Support, features: &[Feature]) {
    for &feature in features {
        assert_eq!(find(support, feature).state, State::Available, "{feature}");
    }
}

fn runs(sandbox: &Sandbox) -> bool {
    sandbox.status(Command::new("true")).is_ok_and(|outcome| outcome.success())
}

#[apply(test)]
fn every_feature_has_one_finding() {
    let support = Support::probe();
    let features: Vec<Feature> = support.findings.iter().map(|finding| finding.feature).collect();
    assert_eq!(features, Feature::ALL);
    let report = support.to_string();
    for finding in &support.findings {
        let line = format!("\n{:19}", finding.feature);
        assert_eq!(report.matches(&line).count(), 1, "{line:?} in\n{report}");
        for words in [finding.reason(), finding.hint()].into_iter().flatten() {
            assert!(!words.is_empty(), "{finding:?}");
            assert!(words.lines().all(|line| report.contains(line)), "{words:?} in\n{report}");
        }
    }
    let json = serde_json::to_string(&support).expect("JSON");
    assert_eq!(serde_json::from_str::<Support>(&json).expect("the same"), support);
    assert_eq!(support.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(support.landlock_abi.is_some(), support.has(Feature::Landlock));
}

#[apply(test)]
fn findings_match_what_works() {
    let support = Support::probe();
    let one = |kinds: Namespaces| Sandbox::new().namespaces(kinds).root(Root::inherit()).identity(Identity::caller());
    let outside = if is_root() { Namespaces::empty() } else { Namespaces::USER };
    let kinds = [
        (Feature::UserNamespace, Namespaces::USER),
        (Feature::MountNamespace, Namespaces::MOUNT),
        (Feature::PidNamespace, Namespaces::PID),
        (Feature::NetNamespace, Namespaces::NET),
        (Feature::IpcNamespace, Namespaces::IPC),
        (Feature::UtsNamespace, Namespaces::UTS),
        (Feature::CgroupNamespace, Namespaces::CGROUP),
        (Feature::TimeNamespace, Namespaces::TIME),
    ];
    for (feature, kind) in kinds {
        assert_eq!(support.has(feature), runs(&one(outside | kind)), "{feature}");
    }
    assert_eq!(support.has(Feature::Sandbox), runs(&Sandbox::new()));
    let dir = support::shared_dir();
    let overlay = Sandbox::new().root(Root::host().with(Overlay::new("/overlay").lower(dir.path())));
    assert_eq!(support.has(Feature::Overlay), runs(&overlay));
    let empty = Sandbox::new().root(Root::empty().bind("/usr", "/usr").proc("/proc"));
    let made = !empty.status(Command::new("/nowhere")).is_err_and(|error| support::is_set_up(&error));
    assert_eq!(support.has(Feature::Proc) && support.has(Feature::PivotRoot), made);
    if is_root() {
        let writable = runs(&Sandbox::new().root(Root::host().bind_rw(dir.path(), "/rw")));
        let detail = &find(&support, Feature::IdmappedMounts).detail;
        assert!(writable || !detail.contains(&std::env::temp_dir().display().to_string()), "{detail}");
    } else {
        unavailable(
            &support,
            Feature::IdmappedMounts,
            "failed to create an idmapped mount of /: open_tree: Operation not permitted (EPERM)",
            "do nothing: only root may create idmapped mounts, and the sandboxes of other users do not need them",
        );
    }
    // Every kernel that the crate runs on has these.
    available(&support, &[Feature::Pidfd, Feature::CloseRange, Feature::Openat2, Feature::SeccompErrno]);
}

#[apply(test)]
fn controllers_that_are_found_keep_limits() {
    let support = Support::probe();
    let limits = [
        (Feature::CgroupMemory, Cgroup::new().memory_max(64 << 20)),
        (Feature::CgroupCpu, Cgroup::new().cpu_max(1.0)),
        (Feature::CgroupPids, Cgroup::new().pids_max(64)),
        (Feature::CgroupCpuset, Cgroup::new().cpuset_cpus("0")),
        (Feature::CgroupFreezer, Cgroup::new().freezable()),
    ];
    for (feature, cgroup) in limits {
        assert_eq!(support.has(feature), runs(&Sandbox::new().cgroup(cgroup)), "{feature}: {support}");
    }
}

#[apply(test)]
fn sub_ids_are_found_where_they_can_be_mapped() {
    let sandbox = Sandbox::new().identity(Identity::new().sub_ids());
    let support = Support::probe();
    assert_eq!(support.has(Feature::SubIds), runs(&sandbox), "{support}");
    if !support.has(Feature::SubIds) {
        assert!(find(&support, Feature::SubIds).reason().is_some_and(|reason| !reason.ends_with(':')));
    }
}

#[apply(test)]
fn several_threads_find_the_same() {
    let one = Support::probe();
    let several: Vec<_> = (0..4).map(|_| std::thread::spawn(Support::probe)).collect();
    for other in several {
        assert_eq!(other.join().expect("a probe"), one);
    }
}

/// A caller that was told what another one has found.
fn caller_that_finds_the_same(args: &[String]) -> i32 {
    let other: Support = serde_json::from_str(&args[0]).expect("findings");
    assert_eq!(Support::probe(), other);
    0
}

#[apply(test)]
fn a_caller_that_ignores_its_children_finds_the_same() {
    let found = serde_json::to_string(&Support::probe()).expect("JSON");
    on_host(&["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"], "probe_again", &[&found]);
    on_host(&[], "probe_again", &[&found]);
    on_host(&["sh", "-c", "exec \"$@\" <&- 2>&-", "sh"], "probe_again", &[&found]);
}

/// Directories of cgroups that this process has made.
fn own_groups() -> Vec<PathBuf> {
    let own = format!("-{}-", std::process::id());
    let mut found = vec![];
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with("stockade-") && name.contains(&own) {
                    found.push(entry.path());
                }
                next.push(entry.path());
            }
        }
    }
    found
}

fn caller_without_traces(_: &[String]) -> i32 {
    let now = || {
        let temporary = fs::read_dir(std::env::temp_dir()).expect("temporary directory").flatten();
        let ours = |path: &PathBuf| path.to_string_lossy().contains("stockade");
        let temporary: Vec<PathBuf> = temporary.map(|entry| entry.path()).filter(ours).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let kept = ["Seccomp", "NoNewPrivs", "CapEff", "Uid", "SigBlk", "SigIgn", "Cpus_allowed", "Threads", "Umask"];
        let status = kept.map(|name| support::field(&status, name));
        (children(), descriptors(), mounts, temporary, own_groups(), status)
    };
    let before = now();
    for _ in 0..3 {
        Support::probe();
        assert_eq!(now(), before);
    }
    0
}

#[apply(test)]
fn a_probe_leaves_nothing() {
    on_host(&[], "traceless", &[]);
}

/// Processor time of this process and of its children.
fn processor_time() -> Duration {
    let used = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
        let usage = getrusage(who).expect("usage");
        [usage.user_time(), usage.system_time()]
            .map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs()))
    });
    used.as_flattened().iter().sum()
}

/// Tells how long a probe takes. On a busy machine it waits for a quiet moment.
fn caller_with_a_clock(_: &[String]) -> i32 {
    const RUNS: usize = 20;
    const PATIENCE: Duration = Duration::from_secs(60);
    let longest = support::at_most(Duration::from_millis(50));
    let begin = Instant::now();
    let used = processor_time();
    let probe = || {
        let start = Instant::now();
        Support::probe();
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..RUNS).map(|_| probe()).collect();
    times.sort();
    let used = (processor_time() - used) / RUNS as u32;
    println!(
        "a probe takes {:?} (median of {RUNS}; the best {:?}), {used:?} of them a processor",
        times[RUNS / 2],
        times[0]
    );
    assert!(used < longest, "{used:?}");
    let mut best = times[0];
    while best >= longest && begin.elapsed() < PATIENCE {
        best = best.min(probe());
    }
    assert!(best < longest, "{best:?}");
    0
}

#[apply(test)]
fn a_probe_takes_at_most_50_ms() {
    println!("{}", on_host(&[], "timed", &[]));
}

/// A way to a caller whose user namespace may make none of these namespaces.
fn without(limit: &str) -> String {
    format!("echo 0 >/proc/sys/user/{limit} && exec \"$@\"")
}

const NO_USER_NAMESPACES: &str = "user.max_user_namespaces is 0: as root, run `sysctl -w \
                                  user.max_user_namespaces=15000`, and make it permanent in /etc/sysctl.d; in a \
                                  container do so on its host";

/// A caller that is at a limit on namespaces.
fn caller_without_namespaces(args: &[String]) -> i32 {
    let support = Support::probe();
    let kind = args[0].as_str();
    let none = "No space left on device (ENOSPC)";
    let remedy = NO_USER_NAMESPACES.replace("user_namespaces", &format!("{kind}_namespaces"));
    if kind == "user" {
        unavailable(
            &support,
            Feature::UserNamespace,
            &format!("failed to create a user namespace: unshare: {none}"),
            &remedy,
        );
        let needs = "not tried, because it needs an unavailable feature: user namespace";
        for feature in [Feature::IdMaps, Feature::MountNamespace, Feature::PidNamespace, Feature::SubIds] {
            unavailable(&support, feature, needs, &remedy);
        }
    } else {
        unavailable(
            &support,
            Feature::NetNamespace,
            &format!("failed to create a net namespace: unshare: {none}"),
            &remedy,
        );
        let needs = "not tried, because it needs an unavailable feature: net namespace";
        unavailable(&support, Feature::Loopback, needs, &remedy);
        available(&support, &[Feature::UserNamespace, Feature::MountNamespace, Feature::Tmpfs, Feature::Proc]);
    }
    let error = Sandbox::new().status(Command::new("true")).err();
    assert_eq!(find(&support, Feature::Sandbox).hint(), error.as_ref().and_then(|error| error.hint()));
    if !is_root() {
        assert_eq!(find(&support, Feature::Sandbox).hint(), Some(remedy.as_str()));
    }
    available(&support, &[Feature::Clone3, Feature::Pidfd, Feature::Memfd]);
    0
}

#[apply(test)]
fn the_error_names_the_limit_on_user_namespaces() {
    let script = without("max_user_namespaces");
    on_host(&["unshare", "-Urm", "sh", "-c", &script, "sh"], "probe_without_namespaces", &["user"]);
}

#[apply(test)]
fn the_error_names_the_limit_on_network_namespaces() {
    let script = without("max_net_namespaces");
    on_host(&["unshare", "-Urm", "sh", "-c", &script, "sh"], "probe_without_namespaces", &["net"]);
}

/// If the first argument has one of these bits.
fn having(bits: impl IntoIterator<Item = i32>) -> Vec<SeccompRule> {
    let rule = |bit: i32| {
        let bit = u64::from(bit.cast_unsigned());
        let has = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit);
        SeccompRule::new(vec![has.expect("a condition")]).expect("a rule")
    };
    bits.into_iter().map(rule).collect()
}

/// The calls of mounts that the profiles of container runtimes refuse.
const MOUNTS: [i64; 9] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
];

/// The kinds of namespaces but for user namespaces.
const BUT_USER: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWTIME,
];

/// How the hint begins; the rest depends on the container that the tests run in.
const FILTER: &str = "a seccomp filter denies it, probably that of ";
const REFUSED: &str = "Operation not permitted (EPERM)";

/// A caller in a container as Docker makes them by default.
fn caller_under_a_filter(_: &[String]) -> i32 {
    let mut rules = BTreeMap::from(MOUNTS.map(|call| (call, vec![])));
    rules.extend([
        (libc::SYS_unshare, vec![]),
        (libc::SYS_setns, vec![]),
        (libc::SYS_clone, having([libc::CLONE_NEWUSER].into_iter().chain(BUT_USER))),
    ]);
    filter(libc::EPERM, rules);
    filter(libc::ENOSYS, BTreeMap::from([(libc::SYS_clone3, vec![]), (libc::SYS_landlock_create_ruleset, vec![])]));
    let support = Support::probe();
    unavailable(
        &support,
        Feature::UserNamespace,
        &format!("failed to create a user namespace: unshare: {REFUSED}"),
        FILTER,
    );
    if is_root() {
        unavailable(
            &support,
            Feature::PidNamespace,
            &format!("failed to create a pid namespace: unshare: {REFUSED}"),
            FILTER,
        );
        let needs = "not tried, because it needs an unavailable feature: mount namespace";
        unavailable(&support, Feature::Tmpfs, needs, FILTER);
    }
    let lacking = "Function not implemented (ENOSYS)";
    let clone3 = format!("failed to start a child with clone3: clone3: {lacking}");
    unavailable(&support, Feature::Clone3, &clone3, "do nothing: the crate uses clone(2) instead");
    let landlock = format!("failed to query the ABI version of Landlock: landlock_create_ruleset: {lacking}");
    let without = "use a kernel with CONFIG_SECURITY_LANDLOCK, since Linux 5.13";
    unavailable(&support, Feature::Landlock, &landlock, if support::kernel() < (5, 13) { without } else { FILTER });
    assert_eq!(support.landlock_abi, None);
    let sandbox = find(&support, Feature::Sandbox);
    assert_eq!(sandbox.hint(), find(&support, Feature::UserNamespace).hint());
    assert!(sandbox.reason().is_some_and(|reason| reason.ends_with(REFUSED)), "{sandbox:?}");
    assert!(!support.has(Feature::Sandbox) && !runs(&Sandbox::new()));
    available(&support, &[Feature::Pidfd, Feature::Memfd, Feature::CloseRange, Feature::Seccomp, Feature::SeccompLog]);
    assert!(children().is_empty());
    0
}

#[apply(test)]
fn a_filter_like_that_of_a_container_is_named() {
    on_host(&[], "probe_under_a_filter", &[]);
}

/// A caller that lets user namespaces be made, and refuses what they are made for, as AppArmor does on Ubuntu 24.04.
fn caller_that_refuses_late(_: &[String]) -> i32 {
    let mut rules = BTreeMap::from(MOUNTS.map(|call| (call, vec![])));
    rules.insert(libc::SYS_unshare, having(BUT_USER));
    filter(libc::EPERM, rules);
    let support = Support::probe();
    available(&support, &[Feature::UserNamespace, Feature::IdMaps]);
    unavailable(
        &support,
        Feature::MountNamespace,
        &format!("failed to create a mount namespace: unshare: {REFUSED}"),
        FILTER,
    );
    assert!(!support.has(Feature::Sandbox) && !runs(&Sandbox::new()));
    0
}

#[apply(test)]
fn denials_after_the_user_namespace_are_found_by_trying() {
    on_host(&[], "probe_that_fails_late", &[]);
}

/// A caller that lets no filter of system calls be installed.
fn caller_without_filters(_: &[String]) -> i32 {
    filter(libc::EINVAL, BTreeMap::from([(libc::SYS_seccomp, vec![])]));
    let support = Support::probe();
    let seccomp = find(&support, Feature::Seccomp);
    assert!(matches!(seccomp.state, State::Unavailable { .. }), "{seccomp:?}");
    let sandbox = find(&support, Feature::Sandbox);
    assert!(sandbox.reason().is_some_and(|reason| reason.contains("seccomp: Invalid argument")), "{sandbox:?}");
    assert_eq!(sandbox.hint(), seccomp.hint());
    // The processes of the set-up have a filter, whatever the program's policy is.
    let unconfined = Sandbox::new().seccomp(Seccomp::unconfined());
    assert!(!runs(&Sandbox::new()) && !runs(&unconfined) && runs(&unconfined.best_effort([Layer::Seccomp])));
    0
}

#[apply(test)]
fn missing_seccomp_is_why_the_default_sandbox_is_unavailable() {
    on_host(&[], "unfiltered", &[]);
}

/// The way to a caller in a mount namespace of its own, where a script is run first.
fn after_mounts(script: &str) -> Vec<String> {
    let mut way = vec!["unshare", "-m"];
    if !is_root() {
        way.extend(["-U", "--map-current-user", "--keep-caps"]);
    }
    let script = format!("{script} && exec \"$@\"");
    way.extend(["sh", "-c", &script, "sh"]);
    way.into_iter().map(str::to_owned).collect()
}

fn on_host_after_mounts(script: &str, name: &str) {
    let way = after_mounts(script);
    let way: Vec<&str> = way.iter().map(String::as_str).collect();
    on_host(&way, name, &[]);
}

fn unless_it_works(script: &str) -> Option<String> {
    let way = after_mounts(script);
    let output = std::process::Command::new(&way[0]).args(&way[1..]).arg("true").output().ok()?;
    (!output.status.success()).then(|| format!("mounts can't be made here: {}", text(&output.stderr)))
}

const MASK: &str = "mount --bind /dev/null /proc/uptime";

fn unless_proc_can_be_masked() -> Option<String> {
    unless_it_works(MASK)
}

fn caller_with_a_masked_proc(_: &[String]) -> i32 {
    let support = Support::probe();
    let remedy = "a part of /proc is covered (/proc/uptime), so the kernel denies a new one (\"mount too revealing\"): \
                  run the container with an unmasked /proc (";
    unavailable(&support, Feature::Proc, &format!("failed to mount a new /proc: fsmount: {REFUSED}"), remedy);
    available(&support, &[Feature::UserNamespace, Feature::PidNamespace, Feature::Tmpfs]);
    // Overlays in user namespaces exist since Linux 5.11.
    assert_eq!(support.has(Feature::Overlay), support::kernel() >= (5, 11), "{support}");
    assert!(!runs(&Sandbox::new()));
    let sandbox = find(&support, Feature::Sandbox);
    assert_eq!(sandbox.hint(), find(&support, Feature::Proc).hint());
    assert_eq!(sandbox.reason(), Some(&*format!("failed to mount a proc file system on /proc: fsmount: {REFUSED}")));
    0
}

#[apply(test)]
#[skip(unless_proc_can_be_masked)]
fn a_masked_proc_is_named() {
    on_host_after_mounts(MASK, "probe_of_a_masked_proc");
}

const READ_ONLY: &str = "for point in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do mount -o remount,bind,ro \
                         $point || exit 1; done";

fn unless_cgroups_can_be_read_only() -> Option<String> {
    unless_it_works(READ_ONLY)
}

fn caller_with_read_only_cgroups(_: &[String]) -> i32 {
    let support = Support::probe();
    let remedy = "the cgroup file system is read-only: run the container with a writable one of its own (";
    let mut refused = 0;
    for feature in [Feature::CgroupMemory, Feature::CgroupCpu, Feature::CgroupPids, Feature::CgroupFreezer] {
        let finding = find(&support, feature);
        let Some(below) = finding.detail.split(" below ").nth(1) else { continue };
        let reason = format!("failed to create a cgroup in {below}: mkdir: Read-only file system (EROFS)");
        unavailable(&support, feature, &reason, remedy);
        refused += 1;
    }
    assert!(refused > 0, "{support}");
    available(&support, &[Feature::Sandbox]);
    0
}

#[apply(test)]
#[skip(unless_cgroups_can_be_read_only)]
fn read_only_cgroups_are_named() {
    on_host_after_mounts(READ_ONLY, "read-only");
}

const MEMFD_NOEXEC: &str = "/proc/sys/vm/memfd_noexec";

fn unless_memfd_noexec() -> Option<String> {
    let absent = || (!Path::new(MEMFD_NOEXEC).exists()).then(|| "it takes vm.memfd_noexec (Linux 6.3)".to_owned());
    support::unless_root().or_else(absent)
}

/// A caller in a pid namespace where no memfd may be executed; perhaps nothing in TMPDIR either.
fn caller_without_executable_memfds(args: &[String]) -> i32 {
    let support = Support::probe();
    let reason = "failed to create an executable memfd: memfd_create: Permission denied (EACCES)".to_owned();
    let remedy =
        "as root, set vm.memfd_noexec to 0 or 1 (sysctl); until then the crate uses an unnamed file in TMPDIR, whose \
         file system must not be mounted noexec"
            .to_owned();
    let finding = find(&support, Feature::Memfd);
    if args[0] == "stood in" {
        assert_eq!(finding.state, State::limited(reason, remedy));
        available(&support, &[Feature::Sandbox, Feature::UserNamespace]);
    } else {
        assert_eq!(finding.state, State::unavailable(reason, remedy.clone()));
        assert!(!support.has(Feature::Sandbox) && !runs(&Sandbox::new()));
        assert_eq!(find(&support, Feature::Sandbox).hint(), Some(remedy.as_str()));
        let reason = find(&support, Feature::UserNamespace).reason().expect("nothing was tried");
        assert_eq!(reason, "failed to execute the image: execveat: Permission denied (EACCES)");
    }
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_memfd_noexec)]
fn memfds_that_may_not_execute_are_named() {
    let temporary = support::shared_dir();
    let variable = format!("TMPDIR={}", temporary.path().display());
    for (mount, how) in [("", "stood in"), ("mount -t tmpfs -o noexec tmpfs $TMPDIR &&", "forbidden")] {
        let script = format!("echo 2 >{MEMFD_NOEXEC} && {mount} exec \"$@\"");
        let way = ["env", &variable, "unshare", "-m", "-p", "-f", "--mount-proc", "sh", "-c", &script, "sh"];
        on_host(&way, "probe_of_noexec_memfds", &[how]);
    }
}

#[apply(test)]
fn the_doctor_prints_the_report() {
    let support = Support::probe();
    let output = std::process::Command::new(example(COMMAND)).arg("doctor").output().expect("the doctor");
    assert_eq!(text(&output.stdout), support.to_string().trim_end());
    assert_eq!(output.status.success(), support.has(Feature::Sandbox));
    let output = std::process::Command::new(example(COMMAND)).args(["doctor", "--json"]).output().expect("the doctor");
    assert_eq!(serde_json::from_slice::<Support>(&output.stdout).expect("findings"), support);
    let outcome = Sandbox::new().status(Command::new("true")).map(|outcome| outcome.termination);
    assert_eq!(output.status.success(), outcome.is_ok_and(|termination| termination == Termination::Exited(0)));
}

#[apply(test)]
fn the_doctor_of_a_host_without_user_namespaces_fails() {
    let script = without("max_user_namespaces");
    let mut command = std::process::Command::new("unshare");
    command.args(["-Urm", "sh", "-c", &script, "sh"]).arg(example(COMMAND)).arg("doctor");
    let output = command.output().expect("unshare");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("default sandbox    unavailable"), "{said}");
    assert_eq!(said.matches(&format!("  hint: {NO_USER_NAMESPACES}")).count(), 1, "{said}");
}
