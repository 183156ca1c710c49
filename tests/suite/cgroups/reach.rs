//! Changes of a program to its own limits and to those of others, if it has the mounts of its caller. [Attack 65]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use stockade::{
    Capabilities, Child, Command, Identity, Landlock, Layer, Namespaces, Root, Sandbox, Seccomp, Stdio, Termination,
};

use crate::cgroups::groups::{self, entered_by, is_v1, of_process, unless_limits};
use crate::cgroups::{group, sleeper, with};
use crate::support::{is_root, unless_landlock_since, unless_pivot_root, unless_user};

fn unless_limits_and_landlock() -> Option<String> {
    unless_limits().or_else(|| unless_landlock_since((6, 12)))
}

/// Who is root inside can't be root in a user namespace within. On an initramfs nobody can make one.
fn unless_user_with_namespaces() -> Option<String> {
    unless_user().or_else(unless_limits).or_else(unless_pivot_root)
}

fn unless_root_and_limits() -> Option<String> {
    crate::support::unless_root().or_else(unless_limits)
}

/// A sandbox with the root of its caller, whose program is the user that the files of its limits belong to.
fn inherited() -> Sandbox {
    let sandbox = with(group().memory_max(64 << 20).pids_max(50)).root(Root::inherit());
    match is_root() {
        true => sandbox.identity(Identity::caller().uid(0).gid(0)).capabilities(Capabilities::none()),
        false => sandbox,
    }
}

/// The same without a mount namespace: as root without a user namespace, in which it would have no rights over the
/// files.
fn shared() -> Sandbox {
    let kept = Namespaces::MOUNT | Namespaces::PID | Namespaces::TIME;
    let sandbox = inherited().namespaces(Namespaces::all() - kept);
    if is_root() {
        sandbox.identity(Identity::caller()).namespaces(Namespaces::all() - kept - Namespaces::USER)
    } else {
        sandbox
    }
}

/// The files of a group's limits of memory and processes, with what they say.
fn limits(pid: u32) -> Vec<(PathBuf, String)> {
    let file = |controller, v1, v2| {
        let path = of_process(pid, controller).join(groups::file(controller, v1, v2));
        let says = fs::read_to_string(&path).unwrap_or_default();
        (path, says)
    };
    vec![file("memory", "memory.limit_in_bytes", "memory.max"), file("pids", "pids.max", "pids.max")]
}

/// Has a program write to its limits and to those of a sibling, leave its group, and make another one. Tells which of
/// it was done.
struct Attack {
    child: Child,
    sibling: Child,
    before: Vec<(PathBuf, String)>,
    groups: PathBuf,
}

impl Attack {
    fn new(sandbox: &Sandbox) -> Self {
        Self::by(sandbox, "sh", &["-c"], "")
    }

    /// By a shell that something else starts, and that executes a script before.
    fn by(sandbox: &Sandbox, program: &str, args: &[&str], before: &str) -> Self {
        let sibling = sleeper(&with(group().memory_max(64 << 20).pids_max(50)));
        let script = "while read what file value; do
            case $what in
                write) echo $value 2>/dev/null >$file;;
                make) mkdir $file 2>/dev/null;;
            esac
        done; echo tried; sleep 1000";
        let mut command = Command::new(program);
        command.args(args).arg(format!("{before}\n{script}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sandbox.spawn(&command).expect("a program");
        let before: Vec<_> = [child.pid().number(), sibling.pid().number()].into_iter().flat_map(limits).collect();
        let groups = of_process(child.pid().number(), "pids");
        let mut orders = String::new();
        for (file, _) in &before {
            let value = if file.ends_with("pids.max") { "40" } else { "33554432" };
            orders += &format!("write {} {value}\n", file.display());
        }
        let tasks = if is_v1("pids") { "tasks" } else { "cgroup.procs" };
        orders += &format!("make {}\n", groups.join("made").display());
        orders += &format!("write {} 0\n", groups.join(tasks).display());
        use std::io::Write;
        child.stdin.take().expect("a pipe").write_all(orders.as_bytes()).expect("orders");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "tried"));
        Self { child, sibling, before, groups }
    }

    fn changed(&self) -> Vec<&Path> {
        let now = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let files = self.before.iter().filter(|(path, before)| now(path) != *before);
        let mut changed: Vec<_> = files.map(|(path, _)| path.as_path()).collect();
        if self.groups.join("made").exists() {
            changed.push(Path::new("made"));
        }
        changed
    }
}

#[apply(test)]
#[skip(unless_limits)]
fn limits_cannot_be_changed_with_the_callers_root() {
    let mut attack = Attack::new(&inherited());
    assert_eq!(attack.changed(), Vec::<&Path>::new());
    let own = entered_by(attack.child.pid().number(), "pids");
    assert!(own.ends_with("program"), "it is in the group below the limits: {}", own.display());
    drop(attack.sibling);
    attack.child.kill().unwrap();
    let outcome = attack.child.wait().unwrap();
    assert_eq!(outcome.termination, Termination::Killed);
    assert!(outcome.enforcement.unenforced.is_empty(), "{:?}", outcome.enforcement.unenforced);
}

/// In namespaces of its own, in which it has every right.
#[apply(test)]
#[only(User)]
#[skip(unless_user_with_namespaces)]
fn cgroups_stay_read_only_in_nested_namespaces() {
    let args = ["--user", "--map-root-user", "--mount", "sh", "-c"];
    let before =
        "exec 2>/dev/null; for point in $(awk '$9 ~ /^cgroup/ || $8 ~ /^cgroup/ {print $5}' /proc/self/mountinfo)
        do mount -o remount,rw,bind $point; umount -l $point; done";
    let attack = Attack::by(&inherited().seccomp(Seccomp::unconfined()), "unshare", &args, before);
    assert_eq!(attack.changed(), Vec::<&Path>::new());
}

#[apply(test)]
#[skip(unless_limits)]
fn limits_that_a_program_can_change_are_reported() {
    let mut attack = Attack::new(&shared());
    assert_eq!(attack.changed().len(), 5, "the attack must work here: {:?}", attack.changed());
    attack.child.kill().unwrap();
    let lost = attack.child.wait().unwrap().enforcement.unenforced;
    let [lost] = &lost[..] else { panic!("{lost:?}") };
    assert_eq!(lost.layer, Layer::Cgroup);
    assert!(lost.reason.contains("change its limits") && lost.reason.contains("MOUNT"), "{}", lost.reason);
}

#[apply(test)]
#[skip(unless_limits_and_landlock)]
fn landlock_rules_against_writing_protect_limits_too() {
    let rules = Landlock::new().read_only("/").any_tcp().any_signal().any_abstract_socket();
    let mut attack = Attack::new(&shared().landlock(rules.clone()));
    assert_eq!(attack.changed(), Vec::<&Path>::new());
    attack.child.kill().unwrap();
    assert_eq!(attack.child.wait().unwrap().enforcement.unenforced, vec![]);
    let mut child = sleeper(&shared().landlock(rules.read_write("/sys")));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().enforcement.unenforced.len(), 1);
}

/// By their owner alone, whatever is mounted.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_limits)]
fn programs_of_another_user_change_no_limits() {
    let kept = Namespaces::MOUNT | Namespaces::PID | Namespaces::TIME;
    let sandbox = with(group().memory_max(64 << 20).pids_max(50)).root(Root::inherit());
    let mut attack = Attack::new(&sandbox.namespaces(Namespaces::all() - kept));
    assert_eq!(attack.changed(), Vec::<&Path>::new());
    attack.child.kill().unwrap();
    assert_eq!(attack.child.wait().unwrap().enforcement.unenforced, vec![]);
}

/// Attack 65: the caller binds a directory writable in which cgroup file systems are mounted.
#[apply(test)]
fn limits_cannot_be_changed_through_a_writable_bind() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let last = table.lines().rfind(|line| line.contains(" - cgroup")).expect("a cgroup file system");
    let point = last.split(' ').nth(4).expect("a mount point");
    let bound = |source: &str| Sandbox::new().root(Root::host().bind_rw(source, "/tmp/cg"));
    let error = crate::support::refused(&bound(point)).to_string();
    assert!(error.contains("its own limits"), "{error}");
    let (above, name) = point.rsplit_once('/').unwrap();
    let script = format!("mkdir /tmp/cg/{name}/attack; echo 0 > /tmp/cg/{name}/cgroup.procs");
    match bound(above).output(stockade::Command::new("sh").args(["-c", &script])) {
        Ok(output) => {
            let said = crate::support::text(&output.stderr);
            assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
        }
        // A root caller's writable bind shows other owners, which a cgroup file system can't; what is above may be
        // read-only on the host, or be a file system that this user may not bind.
        Err(error) => assert!(error.hint().is_some(), "{error}"),
    }
}
