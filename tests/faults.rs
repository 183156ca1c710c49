//! Every call of several plans is made to fail in turn, by replacing it by a call that no kernel has. The error names
//! the step of that call, and nothing remains on the host.
//!
//! This has its own process, since it compares the descriptors, children and mounts of the whole process before and
//! after.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command as Host, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stockade::Errno;
use stockade::mount::{Operation, Overlay, Proc};
use stockade::namespaces::TimeOffsets;
use stockade::{Cgroup, Command, Compiled, Identity, Namespaces, Part, Root, Sandbox, Seccomp};
use support::{children, descriptors, is_root, sample, slowness};

/// Marks the run that has a directory for temporary files of its own.
const OWN_DIRECTORY: &str = "STOCKADE_TESTS_OWN_DIRECTORY";

/// Runs the tests in a process whose directory for temporary files no other process uses, since they look at what stays
/// there.
fn main() -> ExitCode {
    if std::env::var_os(OWN_DIRECTORY).is_some() {
        return support::run();
    }
    let directory = support::shared_dir();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("permissions");
    let status = Host::new(std::env::current_exe().expect("this program"))
        .args(std::env::args_os().skip(1))
        .env("TMPDIR", directory.path())
        .env(OWN_DIRECTORY, "1")
        .status()
        .expect("the run of the tests");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All that a launch could leave behind.
#[derive(Debug, PartialEq)]
struct Traces {
    children: Vec<i32>,
    descriptors: Vec<(String, PathBuf)>,
    mounts: String,
    temporary: Vec<PathBuf>,
}

impl Traces {
    fn now() -> Self {
        let temporary = fs::read_dir(std::env::temp_dir()).expect("temporary directory").flatten();
        Self {
            children: children(),
            descriptors: descriptors(),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
            temporary: temporary.map(|entry| entry.path()).collect(),
        }
    }
}

/// The tests look at what the whole process has, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes each call fail in turn, or a sample of them.
fn attack(plan: &Compiled) {
    let _ = plan.spawn().expect("the plan without a fault").wait().expect("its outcome");
    let before = Traces::now();
    let mut fatal = 0;
    for part in Part::ALL {
        for (index, (name, fails)) in sample(plan.calls(part).into_iter().enumerate()) {
            let faulty = plan.clone().with_fault(part, index);
            match faulty.spawn() {
                Err(error) if support::is_set_up(&error) => {
                    let (step, call) = (error.step().unwrap_or_default(), error.call().unwrap_or_default());
                    assert!(!step.is_empty(), "{part:?} {index}");
                    if fails {
                        assert_eq!(call, name.trim_start_matches("SYS_"), "{part:?} {index}: {step}");
                        assert_eq!(error.errno(), Some(Errno::ENOSYS), "{part:?} {index}: {step}");
                        fatal += 1;
                    }
                }
                Err(other) => assert!(!fails, "{part:?} {index} {name}: {other}"),
                Ok(child) => {
                    assert!(!fails || name == "SYS_exit_group", "{part:?} {index} {name} failed unnoticed");
                    drop(child);
                }
            }
            let after = Traces::now();
            assert_eq!(before, after, "after call {index} of {part:?}, {name}");
        }
    }
    assert!(fatal > 40 / slowness(), "only {fatal} calls were fatal");
}

fn true_in(sandbox: &Sandbox) -> Compiled {
    sandbox.plan(Command::new("true")).expect("a plan")
}

#[apply(test)]
fn every_call_of_the_default_sandbox_may_fail() {
    let _alone = alone();
    attack(&true_in(&Sandbox::new()));
}

#[apply(test)]
#[skip(support::unless_mount_setattr)]
fn every_call_of_a_root_with_everything_may_fail() {
    let _alone = alone();
    let dir = support::shared_dir();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("directory");
        path
    };
    let root = Root::host()
        .bind(sub("ro"), "/ro/deep")
        .bind_rw(sub("rw"), "/rw")
        .tmpfs("/scratch", 1 << 20)
        .overlay(sub("lower"), "/overlay")
        .with(Overlay::new("/kept").lower(sub("lower2")).upper(sub("upper"), sub("work")))
        .with(Proc::new("/proc2").subset_pid())
        .file("/hello", "world")
        .symlink("/hello", "/link")
        .with(Operation::create_dir("/a/b", 0o700))
        .mask("/etc/passwd")
        .mask("/opt")
        .read_only("/scratch");
    let offsets = TimeOffsets::new().monotonic(10).boottime(20);
    let identity = Identity::new().uid(7).gid(8);
    let sandbox = Sandbox::new().root(root).hostname("h").domain_name("d").time_offsets(offsets).identity(identity);
    attack(&true_in(&sandbox));
    support::let_go_of_work(&dir.path().join("work"));
}

#[apply(test)]
fn every_call_of_a_terminal_may_fail() {
    let _alone = alone();
    attack(&Sandbox::new().plan(Command::new("true").pty(24, 80)).expect("a plan"));
}

/// The caller sends descriptors to a helper that may have failed already, and leaves them unread.
#[apply(test)]
#[only(Root)]
fn every_call_in_a_cgroup_may_fail() {
    let _alone = alone();
    attack(&true_in(&Sandbox::new().cgroup(Cgroup::new().pids_max(50))));
}

#[apply(test)]
fn every_call_without_a_pid_namespace_may_fail() {
    let _alone = alone();
    attack(&true_in(&Sandbox::new().namespaces(Namespaces::USER | Namespaces::MOUNT | Namespaces::UTS)));
}

#[apply(test)]
fn every_call_without_namespaces_may_fail() {
    let _alone = alone();
    let sandbox = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    attack(&true_in(&sandbox));
}

#[apply(test)]
fn every_call_that_joins_may_fail() {
    let _alone = alone();
    let mut holder = Sandbox::new().spawn(Command::new("sleep").arg("1000")).expect("a sandbox to join");
    let target = || stockade::namespaces::NamespaceRef::pid(holder.pid());
    let joined = Namespaces::USER | Namespaces::NET | Namespaces::UTS;
    let mut sandbox = Sandbox::new().join(joined, target());
    if is_root() {
        sandbox = sandbox.identity(Identity::new().uid(1000).gid(1000));
    }
    attack(&true_in(&sandbox));
    holder.kill().expect("the end of the sandbox that was joined");
}

/// Under a filter the set-up has to fail as it does without: also where the policy allows a call that fails, and not
/// those by which that is told, and where it hands what it refuses to a caller that does not listen yet.
#[apply(test)]
fn every_call_under_a_strict_filter_may_fail() {
    let _alone = alone();
    for policy in [Seccomp::allow_list(), Seccomp::allow_list().record()] {
        let policy = policy.allow(["openat2", "setsid", "prlimit64", "fchdir"]);
        attack(&Sandbox::new().seccomp(policy).plan(Command::new("/bin/true")).unwrap());
    }
}
