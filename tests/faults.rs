//! Every call of several plans, and of the set-up and the commands of several sessions, is made to fail in turn, by
//! replacing it by a call that no kernel has. The error names the step of that call, nothing remains on the host, and a
//! session whose command could not be started goes on.
//!
//! This has its own process, since it compares the descriptors, children and mounts of the whole process before and
//! after.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command as Host, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stockade::Errno;
use stockade::mount::{Operation, Overlay, Proc};
use stockade::namespaces::TimeOffsets;
use stockade::{
    Cgroup, Command, Compiled, Error, Identity, Namespaces, Part, Root, Sandbox, Seccomp, Session, Signal, Termination,
};
use support::{children, descriptors, is_root, sample, slowness};

/// Marks the run that has a directory for temporary files of its own.
const OWN_DIRECTORY: &str = "STOCKADE_TESTS_OWN_DIRECTORY";

/// Runs the tests in a process whose directory for temporary files no other process uses, since they look at what stays
/// there.
fn main() -> ExitCode {
    if std::env::var_os(OWN_DIRECTORY).is_some() {
        return support::run();
    }
    // It takes in every orphan of the tests, and reaps none, as the first process of a container may. An init with an orphan
    // cannot exit.
    nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
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
    cgroups: Vec<PathBuf>,
}

impl Traces {
    fn now() -> Self {
        let temporary = fs::read_dir(std::env::temp_dir()).expect("temporary directory").flatten();
        Self {
            children: children(),
            descriptors: unnumbered(descriptors()),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
            temporary: temporary.map(|entry| entry.path()).collect(),
            cgroups: if is_root() { cgroups().into_iter().map(of_any_command).collect() } else { vec![] },
        }
    }
}

/// Cgroups of commands are numbered, and a session has that of the next one.
fn of_any_command(path: PathBuf) -> PathBuf {
    let part = |name: Component<'_>| match name.as_os_str().to_string_lossy().starts_with("command-") {
        true => PathBuf::from("command"),
        false => name.as_os_str().into(),
    };
    path.components().map(part).collect()
}

/// Descriptors without the numbers of those of commands.
fn unnumbered(descriptors: Vec<(String, PathBuf)>) -> Vec<(String, PathBuf)> {
    let mut unnumbered: Vec<_> = descriptors
        .into_iter()
        .map(|(number, path)| match of_any_command(path.clone()) {
            of_command if of_command != path => (String::new(), of_command),
            same => (number, same),
        })
        .collect();
    unnumbered.sort();
    unnumbered
}

/// The cgroups that this process has created.
fn cgroups() -> Vec<PathBuf> {
    let (mut seen, mut own) = (vec![PathBuf::from("/sys/fs/cgroup")], vec![]);
    let is_own = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("stockade-") && name.ends_with(&format!("-{}", std::process::id()))
    };
    while let Some(directory) = seen.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        seen.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        if directory.ancestors().any(is_own) {
            own.push(directory);
        }
    }
    own.sort();
    own
}

/// The tests look at what the whole process has, so they take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that fails: the part that it is in, and its index.
type Fault = (Part, usize);

/// Makes each call of some parts fail in turn, or a sample of them. `start` starts what they belong to, with a fault or
/// without, and `calls` are the calls that it makes. `after` is what holds after each attempt.
fn attack<T>(
    parts: &[Part],
    start: impl Fn(Option<Fault>) -> Result<T, Error>,
    calls: impl Fn(Part) -> Vec<(&'static str, bool)>,
    after: impl Fn(),
) {
    drop(start(None).expect("a start without a fault"));
    after();
    let before = Traces::now();
    for &part in parts {
        let calls = calls(part);
        assert!(!calls.is_empty(), "{part:?}");
        let mut fatal = 0;
        for (index, (name, fails)) in sample(calls.into_iter().enumerate()) {
            match start(Some((part, index))) {
                Err(error) => {
                    let step = error.step().unwrap_or_default();
                    assert!(!step.is_empty(), "{part:?} {index} {name}: {error}");
                    assert!(error.hint().is_some(), "{part:?} {index} {name}: {error}");
                    if fails {
                        assert_eq!(error.call(), Some(name.trim_start_matches("SYS_")), "{part:?} {index}: {error}");
                        assert_eq!(error.errno(), Some(Errno::ENOSYS), "{part:?} {index}: {error}");
                        fatal += 1;
                    }
                }
                Ok(started) => {
                    assert!(!fails || name == "SYS_exit_group", "{part:?} {index} {name} failed unnoticed");
                    drop(started);
                }
            }
            after();
            assert_eq!(before, Traces::now(), "after call {index} of {part:?}, {name}");
        }
        assert!(fatal > 0 || slowness() > 1, "no call of {part:?} was fatal");
    }
}

/// Attacks the set-up of a plan.
fn attack_plan(plan: &Compiled) {
    let start = |fault| match fault {
        Some((part, index)) => plan.clone().with_fault(part, index).spawn(),
        None => plan.spawn(),
    };
    attack(&Part::ALL, start, |part| plan.calls(part), || ());
}

/// How a program ends whose init exits.
const KILLED: Termination = Termination::signaled(Signal::KILL, false);

/// What the error of a command says if its session has ended.
const ENDED: &str = "the session has ended";

/// Attacks the set-up of a session, and what its helper does with commands. If that fails, the session has ended.
fn attack_session(sandbox: &Sandbox) {
    let plan = sandbox.plan_session().expect("a plan");
    let start = |fault: Option<Fault>| {
        let before = children();
        let session = match fault {
            Some((part, index)) => plan.clone().with_fault(part, index).start(),
            None => plan.start(),
        }?;
        let call = fault.map(|(part, index)| plan.calls(part)[index].0);
        let command = Command::new("/bin/true");
        let outcome = session.spawn(&command).and_then(|mut child| child.wait()).inspect_err(|error| {
            // A process that is not cloned, or does not go on with its script, is the failure of its command alone.
            let is_of_command = matches!(call, Some("SYS_clone" | "switch to stack"));
            let expected = if is_of_command { error.to_string() } else { ENDED.into() };
            // The init of a session may have exited just when the first command was started.
            let [_, next] = [(); 2].map(|()| run(&session, &command).expect_err("the session has failed").to_string());
            assert!(next.contains(&expected), "{call:?}: {error}, then {next}");
            assert!(is_of_command || children() == before, "{call:?}: the session has ended, and its processes run");
        })?;
        let is_killed_with_init = call == Some("SYS_ppoll") && outcome.termination == KILLED;
        assert!(outcome.success() || is_killed_with_init, "{call:?}: {outcome}");
        Ok(())
    };
    attack(&Part::ALL, start, |part| plan.calls(part), || ());
}

/// Runs a command to its end. It must succeed if it was started.
fn run(session: &Session, command: &Command) -> Result<(), Error> {
    let outcome = session.spawn(command)?.wait()?;
    assert!(outcome.success(), "{outcome}");
    Ok(())
}

/// Attacks what a process of a session does before it executes a program, or opens something.
fn attack_inside<T>(session: &Session, parts: &[Part], start: impl Fn() -> Result<T, Error>) {
    let start = |fault| {
        session.set_fault(fault);
        let started = start();
        session.set_fault(None);
        started
    };
    let goes_on = || run(session, &Command::new("/bin/true")).expect("the next command");
    // The next command is another one, so its calls are not those that are attacked.
    drop(start(None).expect("a start without a fault"));
    let calls: Vec<_> = parts.iter().map(|&part| (part, session.last_calls(part))).collect();
    let calls =
        |part| calls.iter().find(|(known, _)| *known == part).map(|(_, calls)| calls.clone()).unwrap_or_default();
    attack(parts, start, calls, goes_on);
}

fn true_in(sandbox: &Sandbox) -> Compiled {
    sandbox.plan(Command::new("true")).expect("a plan")
}

#[apply(test)]
fn every_call_of_the_default_sandbox_may_fail() {
    let _alone = alone();
    attack_plan(&true_in(&Sandbox::new()));
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
    attack_plan(&true_in(&sandbox));
    support::let_go_of_work(&dir.path().join("work"));
}

#[apply(test)]
fn every_call_of_a_terminal_may_fail() {
    let _alone = alone();
    attack_plan(&Sandbox::new().plan(Command::new("true").pty(24, 80)).expect("a plan"));
}

/// The caller sends descriptors to a helper that may have failed already, and leaves them unread.
#[apply(test)]
#[only(Root)]
fn every_call_in_a_cgroup_may_fail() {
    let _alone = alone();
    attack_plan(&true_in(&Sandbox::new().cgroup(Cgroup::new().pids_max(50))));
}

#[apply(test)]
fn every_call_without_a_pid_namespace_may_fail() {
    let _alone = alone();
    attack_plan(&true_in(&Sandbox::new().namespaces(Namespaces::USER | Namespaces::MOUNT | Namespaces::UTS)));
}

#[apply(test)]
fn every_call_without_namespaces_may_fail() {
    let _alone = alone();
    let sandbox = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    attack_plan(&true_in(&sandbox));
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
    attack_plan(&true_in(&sandbox));
    holder.kill().expect("the end of the sandbox that was joined");
}

/// A filter that allows a few calls of the set-up, and not those by which it reports.
fn strict() -> Seccomp {
    Seccomp::allow_list().allow(["openat2", "setsid", "prlimit64", "fchdir"])
}

/// Under a filter the set-up has to fail as it does without: also where the policy allows a call that fails, and not
/// those by which that is told, and where it hands what it refuses to a caller that does not listen yet.
#[apply(test)]
fn every_call_under_a_strict_filter_may_fail() {
    let _alone = alone();
    for policy in [strict(), strict().record()] {
        attack_plan(&Sandbox::new().seccomp(policy).plan(Command::new("/bin/true")).unwrap());
    }
}

fn with_cgroup() -> Sandbox {
    Sandbox::new().cgroup(Cgroup::new().pids_max(50))
}

/// What `true` calls.
const OF_TRUE: [&str; 19] = [
    "access",
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "exit_group",
    "faccessat",
    "fstat",
    "getrandom",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "pread64",
    "read",
    "rseq",
    "set_robust_list",
    "set_tid_address",
];

/// Under this filter the caller decides about the calls that are not allowed.
fn with_listener() -> Sandbox {
    Sandbox::new().seccomp(strict().record().allow(OF_TRUE))
}

#[apply(test)]
fn every_call_of_a_session_may_fail() {
    let _alone = alone();
    attack_session(&Sandbox::new());
}

#[apply(test)]
#[only(Root)]
fn every_call_of_a_session_in_a_cgroup_may_fail() {
    let _alone = alone();
    attack_session(&with_cgroup());
}

#[apply(test)]
fn every_call_of_a_session_under_a_strict_filter_may_fail() {
    let _alone = alone();
    attack_session(&with_listener());
}

#[apply(test)]
fn every_call_of_a_command_may_fail() {
    let _alone = alone();
    let mut sandboxes = vec![Sandbox::new(), with_listener()];
    sandboxes.extend(is_root().then(with_cgroup));
    for sandbox in sandboxes {
        let session = sandbox.start().expect("a session");
        let attack = |parts: &[Part], command: &Command| attack_inside(&session, parts, || run(&session, command));
        attack(&[Part::Command], &Command::new("true"));
        attack(&[Part::Command], Command::new("true").pty(24, 80));
        let file = || OwnedFd::from(fs::File::open("/dev/null").expect("a file"));
        attack(&[Part::Command], Command::new("true").fd(3, file()).fd(9, file()));
        // Its script is larger than a message.
        attack(&[Part::Command, Part::Loader], Command::new("true").args(vec!["x".repeat(100_000); 2]));
    }
}

#[apply(test)]
fn every_call_of_what_is_opened_inside_may_fail() {
    let _alone = alone();
    for sandbox in [Sandbox::new(), with_listener()] {
        let session = sandbox.start().expect("a session");
        let _listener = session.listen_unix("/tmp/socket").expect("a listener");
        let parts = [Part::Command];
        attack_inside(&session, &parts, || session.create("/tmp/file"));
        attack_inside(&session, &parts, || session.open("/etc/passwd"));
        attack_inside(&session, &parts, || session.listen_tcp("127.0.0.1:0".parse().expect("an address")));
        attack_inside(&session, &parts, || session.connect_unix("/tmp/socket"));
    }
}
