//! The program is cloned into its v2 cgroup instead of being moved there, which would take a lock of all processes. The
//! caller is an ordinary user with a delegated directory, and sees only the v2 hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Host;

use nix::unistd::chown;
use stockade::cgroup::CgroupParent;
use stockade::{Cgroup, Command, Compiled, Error, Limits, Part, Sandbox, Termination};

use crate::cgroups::MS;
use crate::cgroups::groups::hierarchy;
use crate::support::{self, USER, own_path, shared_dir, unless_root};

payloads![("born", caller_of_the_born)];

/// Where v2 is mounted: no controller of v1 is without a name.
fn hierarchy_of_v2() -> Option<PathBuf> {
    hierarchy("").filter(|found| !found.is_v1).map(|found| found.point)
}

fn unless_v2() -> Option<String> {
    let none = || hierarchy_of_v2().is_none().then(|| "no hierarchy of cgroup v2 is mounted".into());
    unless_root().or_else(none)
}

/// A directory of v2 that the ordinary user owns, with a leaf for the caller.
struct Given(PathBuf);

impl Given {
    fn new(point: &Path) -> Self {
        let given = Self(point.join(format!("delegated-born-{}", std::process::id())));
        fs::create_dir_all(given.leaf()).expect("directories in the hierarchy");
        for directory in [&given.0, &given.leaf()] {
            for path in [directory.clone(), directory.join("cgroup.procs")] {
                chown(&path, Some(USER.into()), Some(USER.into())).expect("it belongs to the user");
            }
        }
        given
    }

    fn leaf(&self) -> PathBuf {
        self.0.join("caller")
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for directory in [self.leaf(), self.0.clone()] {
            if let Err(error) = fs::remove_dir(&directory) {
                println!("{} stays: {error}", directory.display());
            }
        }
    }
}

#[apply(test)]
#[only(Root)]
#[skip(unless_v2)]
fn the_program_is_created_inside_its_v2_cgroup() {
    let given = Given::new(&hierarchy_of_v2().expect("v2"));
    let place = shared_dir();
    let copy = place.path().join("tests");
    fs::copy(own_path(), &copy).expect("a copy that the user can execute");
    let script = "echo 0 >\"$2/cgroup.procs\"
        for m in $(awk '$3 == \"cgroup\" { print $2 }' /proc/mounts); do umount \"$m\"; done
        exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$0\" --payload born \"$1\"";
    let output = Host::new("timeout")
        .args(["-s", "KILL", "600", "unshare", "--mount", "sh", "-euc", script])
        .arg(&copy)
        .arg(given.0.file_name().expect("a name"))
        .arg(given.leaf())
        .output()
        .expect("a caller");
    assert!(output.status.success(), "{}: {}", output.status, support::text(&output.stderr));
}

fn caller_of_the_born(args: &[String]) -> i32 {
    let cgroup = Cgroup::new().parent(CgroupParent::Path((&args[0]).into()));
    // The CPU time is what a group of v2 counts without any controller.
    let sandbox = Sandbox::new().cgroup(cgroup).limits(Limits::new().cpu_time(60_000 * MS));
    let plan = sandbox.plan(Command::new("/bin/sleep").arg("1000")).expect("a plan");
    let calls = plan.calls(Part::Helper);
    let at = |name: &str, from: usize| {
        let found = calls.iter().skip(from).position(|(call, _)| *call == name);
        from + found.unwrap_or_else(|| panic!("no {name} in {plan}"))
    };
    let born = at("SYS_clone3", 0);
    let moved = at("SYS_write", at("SYS_clone", born));
    let spawn = |plan: Compiled| -> Result<(), Error> {
        let mut child = plan.spawn()?;
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", child.pid().number())).expect("its groups");
        let prefix = format!("/{}/stockade-", args[0]);
        assert!(groups.lines().any(|line| line.contains(&prefix) && line.ends_with("/program")), "{groups}");
        child.kill().expect("its end");
        assert_eq!(child.wait().expect("an outcome").termination, Termination::Killed);
        Ok(())
    };
    spawn(plan.clone()).expect("a program in its group");
    spawn(plan.clone().with_fault(Part::Helper, moved)).expect("it is not moved when it is born there");
    spawn(plan.with_fault(Part::Helper, born)).expect("it is moved when the kernel has no clone3");
    0
}
