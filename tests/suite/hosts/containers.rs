//! Containers: the default filters of runtimes, with the capabilities and the masks that come with them.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command as Host;

use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use stockade::probe::{Feature, Support};
use stockade::{Command, Identity, Sandbox};

use super::simulated::SimulatedHost;
use crate::support::is_root;

payloads![("in_container", in_container), ("without_setfcap", without_setfcap)];

/// Makes root the ordinary user of the tests.
const AS_USER: &str = "setpriv --reuid=1000 --regid=1000 --clear-groups";

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Lets system calls fail with an error number, from here on.
pub fn deny(errno: i32, rules: Rules) {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("the filter is in force");
}

fn all(calls: &[i64]) -> Rules {
    calls.iter().map(|&call| (call, vec![])).collect()
}

/// clone(2) with a flag of a namespace.
fn clone_of_namespaces() -> Rules {
    /// The mask in the profile of Docker.
    const KINDS: u64 = 0x7e02_0000;
    let bits = (0..64).map(|bit| 1 << bit).filter(|bit| KINDS & bit != 0);
    let rule = |bit| {
        let has = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit);
        SeccompRule::new(vec![has.expect("a condition")]).expect("a rule")
    };
    BTreeMap::from([(libc::SYS_clone, bits.map(rule).collect())])
}

const OF_MOUNTS: [i64; 9] = [
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_umount2,
];

/// What no default profile allows without CAP_SYS_ADMIN and other capabilities that no container has by default.
const OF_ADMINISTRATORS: [i64; 13] = [
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_fanotify_init,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
];

/// What the profiles of Docker and of containerd never allow.
const NEVER: [i64; 9] = [
    libc::SYS_add_key,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_pivot_root,
    libc::SYS_request_key,
    libc::SYS_swapon,
    libc::SYS_userfaultfd,
    libc::SYS_move_pages,
];

/// The calls that the guide adds to Docker's profile.
const OF_GUIDE: [(&str, i64); 14] = [
    ("clone", libc::SYS_clone),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("pivot_root", libc::SYS_pivot_root),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
];

/// The capabilities of Docker's and of containerd's containers. Podman's lack the last three.
const CAPABILITIES: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
];

/// Keeps these capabilities alone.
fn keep(kept: &[Capability]) {
    let kept: CapsHashSet = kept.iter().copied().collect();
    if !is_root() {
        return;
    }
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).is_ok_and(|has| has) {
            caps::drop(None, CapSet::Bounding, capability).expect("a smaller bounding set");
        }
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set).expect("capabilities");
        caps::set(None, set, &held.intersection(&kept).copied().collect()).expect("fewer capabilities");
    }
}

/// Executes a program under what a runtime restricts.
fn in_container(args: &[String]) -> i32 {
    let (runtime, program) = args.split_first().expect("a runtime");
    match runtime.as_str() {
        "docker" | "kubernetes" => {
            keep(&CAPABILITIES);
            deny(libc::ENOSYS, all(&[libc::SYS_clone3]));
            let calls = [&OF_MOUNTS[..], &OF_ADMINISTRATORS, &NEVER, &[libc::SYS_unshare]].concat();
            deny(libc::EPERM, all(&calls).into_iter().chain(clone_of_namespaces()).collect());
        }
        "docker with the profile of the guide" => {
            keep(&CAPABILITIES);
            deny(libc::ENOSYS, all(&[libc::SYS_clone3]));
            let denied = [&OF_MOUNTS[..], &OF_ADMINISTRATORS, &NEVER].concat();
            let is_added = |number: &i64| OF_GUIDE.iter().any(|(_, added)| added == number);
            let denied: Vec<i64> = denied.into_iter().filter(|number| !is_added(number)).collect();
            deny(libc::EPERM, all(&denied));
        }
        // Its profile has what CAP_SYS_ADMIN takes, but for pivot_root(2).
        "docker --cap-add SYS_ADMIN" => {
            keep(&[&CAPABILITIES[..], &[Capability::CAP_SYS_ADMIN]].concat());
            deny(libc::EPERM, all(&NEVER));
        }
        "podman" => {
            keep(&CAPABILITIES[..11]);
            deny(libc::EPERM, all(&OF_ADMINISTRATORS));
        }
        "docker unconfined" => keep(&CAPABILITIES),
        "docker unconfined --cap-add SYS_ADMIN" => keep(&[&CAPABILITIES[..], &[Capability::CAP_SYS_ADMIN]].concat()),
        "podman unconfined --cap-add SYS_ADMIN" => keep(&[&CAPABILITIES[..11], &[Capability::CAP_SYS_ADMIN]].concat()),
        "old podman" => {
            keep(&CAPABILITIES[..11]);
            deny(libc::ENOSYS, all(&[libc::SYS_mount_setattr, libc::SYS_landlock_create_ruleset]));
        }
        // The profile docker-default of AppArmor, where the filter allows everything.
        "apparmor" => deny(libc::EACCES, all(&[libc::SYS_mount, libc::SYS_move_mount, libc::SYS_umount2])),
        "apparmor of Ubuntu" => deny(libc::EPERM, all(&[libc::SYS_fsopen, libc::SYS_mount])),
        // A runtime that drops one capability alone.
        "without CAP_SETFCAP" => {
            let all: Vec<Capability> = caps::all().into_iter().filter(|it| *it != Capability::CAP_SETFCAP).collect();
            keep(&all);
        }
        other => panic!("no runtime {other}"),
    }
    let error = Host::new(&program[0]).args(&program[1..]).exec();
    panic!("{}: {error}", program[0]);
}

impl SimulatedHost {
    fn run_by(self, runtime: &str) -> Self {
        self.by(&format!("/mnt/payload --payload in_container '{runtime}'"))
    }
}

/// What runtimes mask and make read-only in a container.
const MASKS: &str = "for path in proc/keys proc/kcore proc/timer_list; do
        [ ! -e $path ] || mount --bind /dev/null $path; done
    for path in proc/bus proc/fs proc/irq proc/sys; do
        [ ! -e $path ] || { mount --bind $path $path; mount -o remount,bind,ro $path; }; done";

/// The machine as a container with the file by which its runtime is known.
fn container(file: &str) -> SimulatedHost {
    let run = "mount -t tmpfs -o mode=755 tmpfs run";
    SimulatedHost::with_root(&["run"], &format!("mkdir run; {run}; mkdir -p $(dirname {file}); : >{file}; {MASKS}"))
}

const DOCKER: &str = ".dockerenv";
const PODMAN: &str = "run/.containerenv";
const KUBERNETES: &str = "run/secrets/kubernetes.io/token";

const PROFILE: &str =
    "a seccomp filter denies it, probably that of the container: run the container with a profile that allows it ";

/// Root without CAP_SYS_ADMIN is refused before any call, since its program would be host user 0.
fn root_or(words: &str, way: &str) -> String {
    if !is_root() {
        return words.into();
    }
    format!(
        "the caller is the host's root without CAP_SYS_ADMIN: its program would be host user 0: give the caller these \
         capabilities ({way}), run it as another user, or allow it with Identity::caller()"
    )
}

/// Finding H14.
#[apply(test)]
fn a_container_of_docker_is_told_to_change_its_profile() {
    let words = format!(
        "unshare: Operation not permitted (EPERM): {PROFILE}(docker run --security-opt seccomp=profile.json, or \
         seccomp=unconfined for everything)"
    );
    container(DOCKER).run_by("docker").answers().assert_all(&root_or(&words, "docker run --cap-add SYS_ADMIN"));
    if is_root() {
        container(DOCKER).run_by("docker").by(AS_USER).answers().assert_all(&words);
    }
}

/// Finding H14.
#[apply(test)]
fn a_pod_is_told_to_change_its_profile() {
    let words = format!(
        "unshare: Operation not permitted (EPERM): {PROFILE}(securityContext.seccompProfile, or type Unconfined for \
         everything)"
    );
    let words = root_or(&words, "securityContext.capabilities.add: [SYS_ADMIN]");
    container(KUBERNETES).run_by("kubernetes").answers().assert_all(&words);
}

/// Finding H14: the filter allows everything, as in a pod without a profile, and the masks are left.
#[apply(test)]
fn a_container_without_a_filter_is_told_to_unmask_proc() {
    container(DOCKER).answers().assert_all(
        "fsmount: Operation not permitted (EPERM): a part of /proc is covered (/proc/keys), so the kernel denies a new \
         one (\"mount too revealing\"): run the container with an unmasked /proc (docker run --security-opt \
         systempaths=unconfined), or use no PID namespace (Namespaces::PID)",
    );
}

/// Finding H14.
#[apply(test)]
#[only(Root)]
fn a_container_whose_profile_lacks_pivot_root_is_told_so() {
    SimulatedHost::with_root(&[], ": >.dockerenv").run_by("docker --cap-add SYS_ADMIN").answers().assert_all(&format!(
        "failed to change the root at /: pivot_root: Operation not permitted (EPERM): {PROFILE}(docker run"
    ));
}

/// Finding H14.
#[apply(test)]
fn a_container_of_podman_is_told_to_change_its_profile() {
    let podman = || SimulatedHost::with_root(&["run"], &format!("mkdir run; : >{PODMAN}"));
    for (runtime, call) in [
        ("podman", "failed to set the host name: sethostname: Operation not permitted (EPERM)"),
        ("old podman", "mount_setattr: Function not implemented (ENOSYS)"),
    ] {
        let words = root_or(&format!("{call}: {PROFILE}(podman run"), "podman run --cap-add SYS_ADMIN");
        podman().run_by(runtime).answers().assert_all(&words);
        if is_root() {
            podman().run_by(runtime).by(AS_USER).answers().assert_all(&format!("{call}: {PROFILE}(podman run"));
        }
    }
}

/// Finding H14.
#[apply(test)]
#[only(Root)]
fn masks_of_a_container_with_cap_sys_admin_are_named() {
    container(DOCKER)
        .run_by("docker --cap-add SYS_ADMIN")
        .answers()
        .assert_all("a part of /proc is covered (/proc/keys)");
}

/// Finding H14.
#[apply(test)]
#[only(Root)]
fn a_container_whose_apparmor_profile_denies_mounts_is_told_so() {
    let profile = "mount -t tmpfs tmpfs /sys/module; mkdir -p /sys/module/apparmor/parameters; \
        echo Y >/sys/module/apparmor/parameters/enabled; echo 'docker-default (enforce)' >/mnt/profile";
    // The file of the caller, which is known when it runs.
    let bind = "sh -c 'mount --bind /mnt/profile /proc/$$/attr/current; exec \"$@\"' sh";
    SimulatedHost::after(profile).by(bind).run_by("apparmor").answers().assert_all(
        "Permission denied (EACCES): the AppArmor profile docker-default of the caller denies it: allow mount, umount, \
         pivot_root and userns in it, or ",
    );
}

/// Finding H14: a container that is run as the hints for the others say.
#[apply(test)]
fn what_the_hints_for_containers_say_suffices() {
    let container = |file: &str| SimulatedHost::with_root(&["run"], &format!("mkdir -p $(dirname {file}); : >{file}"));
    for (file, runtime) in [
        (DOCKER, "docker unconfined --cap-add SYS_ADMIN"),
        (PODMAN, "podman unconfined --cap-add SYS_ADMIN"),
        (KUBERNETES, "docker unconfined --cap-add SYS_ADMIN"),
    ] {
        container(file).run_by(runtime).assert_works();
    }
    container(DOCKER).run_by("docker unconfined").of_user().assert_works();
}

/// The profile that the guide makes from Docker's, with the other option that it names.
#[apply(test)]
fn the_profile_of_the_guide_suffices() {
    let page = include_str!("../../../docs/containers.md");
    let (_, names) = page.split_once("names: [").expect("the names of calls");
    let names: Vec<&str> = names.split(']').next().unwrap_or_default().split('"').skip(1).step_by(2).collect();
    assert_eq!(names, OF_GUIDE.map(|(name, _)| name));
    let unmasked = || SimulatedHost::with_root(&[], ": >.dockerenv");
    unmasked().of_user().run_by("docker with the profile of the guide").assert_works();
    let docker = unmasked().of_user().run_by("docker");
    docker.answers().assert_all(&format!("unshare: Operation not permitted (EPERM): {PROFILE}(docker run"));
}

fn without_setfcap(_: &[String]) -> i32 {
    let error = Sandbox::new().identity(Identity::caller()).status(Command::new("true")).expect_err("a refusal");
    let support = Support::probe();
    let finding = support.findings.iter().find(|finding| finding.feature == Feature::IdMaps).expect("a finding");
    assert_eq!(error.hint(), finding.hint());
    println!("{error}");
    0
}

/// Finding H14: the capability is named, and no security module.
#[apply(test)]
#[only(Root)]
fn a_missing_setfcap_is_named() {
    let host = SimulatedHost::after(":").run_by("without CAP_SETFCAP");
    let said = host.output("without_setfcap");
    let words = "Operation not permitted (EPERM): give the caller CAP_SETFCAP, which the kernel requires to map host \
                 ID 0 into a user namespace (since Linux 5.12)";
    assert!(said.ends_with(words), "{said}");
    // The program of a sandbox is another user by default.
    host.assert_works();
}
