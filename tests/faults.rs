//! Whatever fails at whichever call: the error says which, and nothing stays.
//!
//! Every call of several plans is made to fail in turn, by a call that no kernel has in its place.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stockade::{
    Cgroup, Command, Error, Identity, Mount, Namespaces, Overlay, Part, Plan, Proc, Root, Sandbox, Seccomp, TimeOffsets,
};
use support::{children, descriptors, is_root, sample, slowness};

fn main() -> ExitCode {
    support::run(
        tests![
            every_call_of_the_default_sandbox_may_fail,
            every_call_of_a_root_with_everything_may_fail if support::unless_mount_setattr,
            every_call_of_a_terminal_may_fail,
            every_call_in_a_cgroup_may_fail if support::unless_root,
            every_call_without_a_pid_namespace_may_fail,
            every_call_without_namespaces_may_fail,
            every_call_that_joins_may_fail,
            every_call_under_a_strict_filter_may_fail,
        ],
        &[],
    )
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
        let ours = |path: &PathBuf| path.to_string_lossy().contains("stockade");
        Self {
            children: children(),
            descriptors: descriptors(),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
            temporary: temporary.map(|entry| entry.path()).filter(ours).collect(),
        }
    }
}

/// The tests look at what the whole process has, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes each call fail in turn, or a sample of them.
fn attack(plan: &Plan) {
    plan.spawn().expect("the plan without a fault").wait().expect("its outcome");
    let before = Traces::now();
    let mut fatal = 0;
    for part in Part::ALL {
        for (index, (name, fails)) in sample(plan.calls(part).into_iter().enumerate()) {
            let faulty = plan.clone().with_fault(part, index);
            match faulty.spawn() {
                Err(Error::SetUp { step, call, errno, .. }) => {
                    assert!(!step.is_empty(), "{part:?} {index}");
                    if fails {
                        assert_eq!(call, name.trim_start_matches("SYS_"), "{part:?} {index}: {step}");
                        assert_eq!(errno.0, libc::ENOSYS, "{part:?} {index}: {step}");
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

fn true_in(sandbox: &Sandbox) -> Plan {
    sandbox.plan(Command::new("true")).expect("a plan")
}

fn every_call_of_the_default_sandbox_may_fail() {
    let _alone = alone();
    attack(&true_in(&Sandbox::new()));
}

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
        .mount(Overlay::new("/kept").lower(sub("lower2")).upper(sub("upper"), sub("work")))
        .mount(Proc::new("/proc2").subset_pid())
        .file("/hello", "world")
        .symlink("/hello", "/link")
        .mount(Mount::Dir { target: "/a/b".into(), mode: 0o700 })
        .mask("/etc/passwd")
        .mask("/opt")
        .read_only("/scratch");
    let offsets = TimeOffsets { monotonic: 10, boottime: 20 };
    let identity = Identity::new().uid(7).gid(8);
    let sandbox = Sandbox::new().root(root).hostname("h").domain_name("d").time_offsets(offsets).identity(identity);
    attack(&true_in(&sandbox));
    support::let_go_of_work(&dir.path().join("work"));
}

fn every_call_of_a_terminal_may_fail() {
    let _alone = alone();
    attack(&Sandbox::new().plan(Command::new("true").pty(24, 80)).expect("a plan"));
}

/// The caller sends descriptors to a helper that may have failed already, and leaves them unread.
fn every_call_in_a_cgroup_may_fail() {
    let _alone = alone();
    attack(&true_in(&Sandbox::new().cgroup(Cgroup::new().pids_max(50))));
}

fn every_call_without_a_pid_namespace_may_fail() {
    let _alone = alone();
    attack(&true_in(&Sandbox::new().namespaces(Namespaces::USER | Namespaces::MOUNT | Namespaces::UTS)));
}

fn every_call_without_namespaces_may_fail() {
    let _alone = alone();
    let sandbox = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    let plan = true_in(&sandbox);
    assert_eq!(plan.calls(Part::Host).len(), 0);
    attack(&plan);
}

fn every_call_that_joins_may_fail() {
    let _alone = alone();
    let mut holder = Sandbox::new().spawn(Command::new("sleep").arg("1000")).expect("a sandbox to join");
    let target = || stockade::NamespaceOf::pid(holder.id());
    let joined = Namespaces::USER | Namespaces::NET | Namespaces::UTS;
    let mut sandbox = Sandbox::new().join(joined, target());
    if is_root() {
        sandbox = sandbox.identity(Identity::new().uid(1000).gid(1000));
    }
    attack(&true_in(&sandbox));
    holder.kill().expect("the end of the sandbox that was joined");
}

/// Under a filter the set-up has to fail as it does without: also where the policy allows a call that fails, and not those
/// by which that is told, and where it hands what it refuses to a host that does not listen yet.
fn every_call_under_a_strict_filter_may_fail() {
    let _alone = alone();
    for policy in [Seccomp::allow_list(), Seccomp::allow_list().record()] {
        let policy = policy.allow(["openat2", "setsid", "prlimit64", "fchdir"]);
        attack(&Sandbox::new().seccomp(policy).plan(Command::new("/bin/true")).unwrap());
    }
}
