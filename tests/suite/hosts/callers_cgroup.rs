//! A caller whose cgroup belongs to its user, as below a user manager of systemd, and a program that mounts it.

use std::fs;
use std::path::PathBuf;

use nix::unistd::chown;

use stockade::outcome::GapKind;
use stockade::{Cgroup, Command, Sandbox, Seccomp};

use super::simulated::SimulatedHost;

payloads![("in_own_cgroup", in_own_cgroup)];

/// Where the cgroup of the caller is: the user of `SimulatedHost::of_user` owns it.
const DIRECTORY: &str = "STOCKADE_TESTS_CGROUP";
const OWNER: u32 = 1234;

/// A cgroup of v2 at the top. It is removed on drop.
struct Own(PathBuf);

impl Own {
    fn new() -> Option<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let point = table.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let own = Self(PathBuf::from(point).join(format!("stockade-owned-{}", std::process::id())));
        fs::create_dir(&own.0).ok()?;
        for entry in fs::read_dir(&own.0).ok()?.flatten() {
            chown(&entry.path(), Some(OWNER.into()), Some(OWNER.into())).ok()?;
        }
        chown(&own.0, Some(OWNER.into()), Some(OWNER.into())).ok()?;
        Some(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            println!("{} stays: {error}", self.0.display());
        }
    }
}

fn unless_cgroup2() -> Option<String> {
    Own::new().is_none().then(|| "root cannot create a cgroup of v2 here".into())
}

/// Whether a program changes the caller's cgroup, and whether the outcome has the gap. `None` if the sandbox cannot be
/// created.
fn changes(sandbox: &Sandbox) -> Option<(bool, bool)> {
    let file = PathBuf::from(std::env::var_os(DIRECTORY).expect("a cgroup")).join("cgroup.max.descendants");
    fs::write(&file, "1000").expect("the caller may write");
    let script = "mount -t cgroup2 none /mnt && echo 77 >/mnt/cgroup.max.descendants";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--cgroup", "sh", "-c", script]);
    let output = sandbox.output(command).ok()?;
    let has_gap = output.outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Cgroup);
    Some((fs::read_to_string(&file).expect("a limit") == "77\n", has_gap))
}

fn in_own_cgroup(_: &[String]) -> i32 {
    assert_eq!(changes(&Sandbox::new()), Some((false, false)), "the default sandbox");
    assert_eq!(changes(&Sandbox::new().nestable()), Some((true, true)), "a nestable sandbox");
    let without_filter = Sandbox::new().seccomp(Seccomp::unconfined());
    assert_eq!(changes(&without_filter), Some((true, true)), "a sandbox without a filter");
    if let Some((is_changed, has_gap)) = changes(&Sandbox::new().nestable().cgroup(Cgroup::new().pids_max(100))) {
        assert_eq!(is_changed, has_gap, "a nestable sandbox with a cgroup");
    }
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_cgroup2)]
fn a_program_that_can_mount_the_callers_cgroup_is_reported() {
    let own = Own::new().expect("a cgroup");
    let directory = own.0.to_str().expect("UTF-8");
    let host = SimulatedHost::after(&format!("echo $$ >{directory}/cgroup.procs")).of_user();
    host.env(DIRECTORY, directory).output("in_own_cgroup");
}
