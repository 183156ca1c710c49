//! Hosts whose `/dev` or `/sys` lacks what others have.

use stockade::{Cgroup, Command, Root, Sandbox};

use super::simulated::SimulatedHost;
use crate::support::{is_root, text};

payloads![("limited", limited), ("on_gpus", on_gpus)];

/// A `/dev` with these nodes alone.
fn with_nodes(nodes: &str) -> SimulatedHost {
    SimulatedHost::with_root(
        &["dev"],
        &format!("mkdir dev; for node in {nodes}; do : >dev/$node; mount --bind /dev/$node dev/$node; done"),
    )
}

/// Finding H14: no terminal, no shared memory, no message queues.
#[apply(test)]
fn nodes_may_be_missing() {
    with_nodes("null zero random urandom full").assert_works();
    with_nodes("null urandom").assert_works();
    with_nodes("null").assert_works();
    with_nodes("").assert_works();
}

/// Writes what a program finds of GPUs, without and with them, each on one line. They are the null device here, which
/// is no device of the sandbox under its other names.
fn on_gpus(_: &[String]) -> i32 {
    let script = "ls /dev/kfd /dev/dri; ls /sys/dev/char /sys/class/mem; cat /sys/dev/char/1:3/dev
        echo discarded >/dev/dri/renderD128 && wc -c </dev/dri/renderD128; echo x >/sys/class/mem/null/uevent";
    for root in [Root::host(), Root::host().gpus()] {
        match Sandbox::new().root(root).output(Command::new("sh").args(["-c", script])) {
            Ok(output) => {
                let (found, errors) = (text(&output.stdout), text(&output.stderr));
                let found: Vec<&str> = found.split_whitespace().collect();
                println!("{} | {}", found.join(" "), errors.trim_end().replace('\n', "; "));
            }
            Err(error) => println!("{error}"),
        }
    }
    0
}

/// Finding G1.
#[apply(test)]
fn a_program_finds_the_gpus_of_the_host() {
    let host = |script: &str| {
        let nodes = "for node in null zero; do : >dev/$node; mount --bind /dev/$node dev/$node; done";
        SimulatedHost::with_root(&["dev"], &format!("mkdir dev; {nodes}; {script}"))
    };
    // Some are no devices of a GPU, or none at all.
    let gpus = "mkdir -p dev/dri/renderD130; : >dev/dri/renderD129
        for node in dri/card0 dri/renderD128 dri/renderD dri/renderD1x kfd nvidia nvidia0 nvidiactl; do
            : >dev/$node; mount --bind /dev/null dev/$node; done";
    let said = host(gpus).output("on_gpus");
    let (without, with) = said.trim_end().split_once('\n').unwrap_or_else(|| panic!("{said}"));
    assert!(without.starts_with(" | ls: "), "{without}");
    let (found, errors) = with.split_once(" | ").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(found, "/dev/kfd /dev/dri: renderD128 /sys/class/mem: null /sys/dev/char: 1:3 1:3 0", "{said}");
    assert!(errors.ends_with("/sys/class/mem/null/uevent: Read-only file system") && !errors.contains(';'), "{said}");
    let said = host("").output("on_gpus");
    let words =
        "failed to find the devices of a GPU /dev/dri: open: No such file or directory (ENOENT): load the driver";
    assert!(said.contains(words), "{said}");
}

/// Finding H14.
#[apply(test)]
fn sys_may_be_missing_or_empty() {
    SimulatedHost::with_root(&["sys"], ":").assert_works();
    SimulatedHost::with_root(&["sys"], "mkdir sys").assert_works();
}

const READ_ONLY_CGROUPS: &str =
    "for point in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do mount -o remount,bind,ro $point; done";

/// Finding H14.
#[apply(test)]
fn cgroup_file_systems_may_be_read_only() {
    SimulatedHost::after(READ_ONLY_CGROUPS).assert_works();
}

fn limited(_: &[String]) -> i32 {
    let error = Sandbox::new().cgroup(Cgroup::new().memory_max(64 << 20)).status(Command::new("true")).unwrap_err();
    println!("{error}");
    0
}

/// Finding H14: a cgroup that is requested is an error that says what is wrong, to root as to an ordinary user.
#[apply(test)]
#[skip(unless_cgroups)]
fn a_cgroup_without_its_file_system_is_an_error() {
    let no_controller = "the memory controller is not available in the caller's cgroup: mount a hierarchy with it, \
                         enable it in cgroup.subtree_control of every cgroup above, or choose another parent \
                         (CgroupParent::Path)";
    let covered = "is not visible: another file system covers its hierarchy: unmount that, or mount the cgroup file \
                   system there";
    let read_only = "the cgroup file system is read-only: run the container with a writable one of its own (";
    let denied = "may not create a cgroup in ";
    let check = |host: &SimulatedHost, words: &str| {
        let said = host.output("limited");
        assert!(said.starts_with("memory_max cannot be enforced: ") && said.contains(words), "{said}");
    };
    for (host, words) in [
        (SimulatedHost::with_root(&["sys"], "mkdir sys"), no_controller),
        (SimulatedHost::after("mount -t tmpfs tmpfs /sys/fs"), covered),
    ] {
        host.assert_works();
        check(&host, words);
        check(&host.of_user(), words);
    }
    let host = SimulatedHost::after(READ_ONLY_CGROUPS);
    // The kernel denies it to an ordinary user before it is found to be read-only.
    check(&host, if is_root() { read_only } else { denied });
    check(&host.of_user(), denied);
}

/// A reason to skip what needs the memory controller of the host.
fn unless_cgroups() -> Option<String> {
    let is_mounted = |path: &str| std::path::Path::new(path).exists();
    let is_any = is_mounted("/sys/fs/cgroup/memory/tasks") || is_mounted("/sys/fs/cgroup/cgroup.controllers");
    (!is_any).then(|| "the host has no memory controller".into())
}
