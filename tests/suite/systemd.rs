//! A scope of systemd's, for callers that may make no cgroup where they are. Each caller that is moved is a process of
//! its own. Where systemd does not run the machine, what is said of that is tested; `tests/vm/run 6.1-systemd` boots
//! one.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Host, Stdio as HostStdio};
use std::time::{Duration, Instant};

use crate::support::{
    self, COMMAND, at_most, eventually, example, is_root, on_host, payload_on_host, refused, shared_dir, text,
    unless_root, with_limits,
};
use stockade::cgroup::CgroupParent;
use stockade::{Cgroup, Child, Command, Layer, Limits, Sandbox, Stdio, Termination};

const MB: u64 = 1 << 20;

/// A program that uses 100 MB of memory.
const EATER: [&str; 5] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];

payloads![
    ("refused", caller_that_is_refused),
    ("once", caller_that_spawns_twice),
    ("plan", caller_that_plans),
    ("threads_in_a_scope", caller_with_threads),
    ("memory", caller_that_limits_memory),
    ("processes", caller_that_limits_processes),
    ("cpu", caller_that_limits_cpu),
    ("killed", caller_that_is_killed),
    ("auto", caller_that_asks_for_its_own_cgroup),
    ("path", caller_that_names_its_own_cgroup),
    ("hidden_unit", caller_that_hides_its_unit),
];

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn unless_systemd() -> Option<String> {
    (!has_systemd()).then(|| "systemd does not run this machine: tests/vm/run 6.1-systemd".into())
}

fn unless_no_systemd() -> Option<String> {
    has_systemd().then(|| "systemd runs this machine".into())
}

fn unless_dbus_daemon() -> Option<String> {
    let found = Host::new("dbus-daemon").arg("--version").output();
    found.err().map(|error| format!("no D-Bus, dbus-daemon: {error}"))
}

/// A reason to skip what needs a manager that this user can have a scope of.
fn unless_manager() -> Option<String> {
    let v1 = || (!Path::new("/sys/fs/cgroup/cgroup.controllers").exists()).then(|| "cgroup v1 is not delegated".into());
    let bus = if is_root() { "/run/dbus/system_bus_socket".into() } else { format!("/run/user/{}/bus", support::USER) };
    let none =
        || (!Path::new(&bus).exists()).then(|| format!("there is no {bus}: loginctl enable-linger makes a user's"));
    unless_systemd().or_else(v1).or_else(none)
}

fn unless_user_manager() -> Option<String> {
    support::unless_user().or_else(unless_manager)
}

fn unless_cpu() -> Option<String> {
    let user = format!("/sys/fs/cgroup/user.slice/user-{0}.slice/user@{0}.service", support::USER);
    let manager = if is_root() { "/sys/fs/cgroup" } else { &user };
    let has = |controllers: String| controllers.split_whitespace().any(|controller| controller == "cpu");
    let delegated = || fs::read_to_string(Path::new(manager).join("cgroup.controllers")).is_ok_and(has);
    unless_manager().or_else(|| (!delegated()).then(|| format!("{manager} has no cpu controller (systemd 252)")))
}

/// A sandbox with a group in a scope.
fn with(cgroup: Cgroup) -> Sandbox {
    Sandbox::new()
        .cgroup(cgroup.parent(CgroupParent::SystemdScope))
        .limits(Limits::new().wall_time(Duration::from_secs(60)))
}

fn sleeper(sandbox: &Sandbox) -> Child {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null());
    sandbox.spawn(&command).expect("a sleeper")
}

/// The directory of the cgroup that a process is in.
fn group_of(pid: u32) -> PathBuf {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups of a process");
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("one of v2");
    Path::new("/sys/fs/cgroup").join(path)
}

/// The directory of the scope that a directory is in.
fn scope_above(directory: &Path) -> Option<PathBuf> {
    let is_scope = |path: &&Path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with("stockade-") && name.ends_with(".scope"))
    };
    directory.ancestors().find(is_scope).map(Path::to_owned)
}

/// The scope that the caller is in.
fn own_scope() -> Option<PathBuf> {
    scope_above(&group_of(std::process::id()))
}

/// The scope that a program is in, which must be the caller's own.
fn scope_of(child: &Child) -> PathBuf {
    let scope = scope_above(&group_of(child.pid().number())).expect("the program is in a scope");
    assert_eq!(own_scope(), Some(scope.clone()), "the caller is in it");
    scope
}

/// Says which scope it was, for the test to see that it is gone with the caller.
fn told(scope: &Path) -> i32 {
    assert!(scope.is_dir());
    println!("{}", scope.display());
    0
}

/// The scope and its unit are no more.
fn is_gone(scope: &Path) {
    eventually("the scope's cgroup is gone", || !scope.exists());
    let mut systemctl = Host::new("systemctl");
    if !is_root() {
        systemctl.arg("--user").env("XDG_RUNTIME_DIR", format!("/run/user/{}", support::USER));
    }
    let units =
        systemctl.args(["list-units", "--all", "--plain", "--no-legend", "*.scope"]).output().expect("systemctl");
    assert!(units.status.success(), "{}", text(&units.stderr));
    let name = scope.file_name().unwrap().to_string_lossy().into_owned();
    assert!(!text(&units.stdout).contains(&name), "{}", text(&units.stdout));
}

/// Runs a caller that has a scope, and sees that it is gone afterwards.
fn caller(name: &str) {
    let said = on_host(&[], name, &[]);
    let scope = said.lines().last().unwrap_or_default();
    assert!(scope.ends_with(".scope"), "{said}");
    is_gone(Path::new(scope));
}

/// What a caller is told that is refused, by this address of its bus.
fn refusal(address: Option<&str>) -> String {
    let mut caller = payload_on_host("refused");
    for variable in ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"] {
        caller.env_remove(variable);
    }
    if let Some(address) = address {
        caller.env("DBUS_SYSTEM_BUS_ADDRESS", address).env("DBUS_SESSION_BUS_ADDRESS", address);
    }
    let output = caller.output().expect("a caller");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn caller_that_is_refused(_: &[String]) -> i32 {
    let before = group_files();
    let error = refused(&with(Cgroup::new().memory_max(64 * MB)));
    assert_eq!(group_files(), before, "it stays where it is");
    let failure = error.systemd_failure().unwrap_or_else(|| panic!("{error:?}"));
    println!("{failure:?}\n{:?}\n{error}", error.io_kind());
    0
}

fn group_files() -> String {
    fs::read_to_string("/proc/self/cgroup").expect("own cgroups")
}

/// What the bus is called in messages, and where it is by default.
fn bus_that_is_asked() -> (&'static str, String) {
    match is_root() {
        true => ("the system's", "unix:path=/run/dbus/system_bus_socket".into()),
        false => ("the user's", format!("unix:path=/run/user/{}/bus", support::USER)),
    }
}

#[apply(test)]
#[skip(unless_no_systemd)]
fn the_error_without_systemd_says_what_was_looked_for() {
    let (whose, address) = bus_that_is_asked();
    let expected = format!(
        "NoManager\nNotFound\nfailed to connect to {whose} bus {address}: No such file or directory (ENOENT): systemd \
         does not run this machine: use CgroupParent::Auto, or CgroupParent::Path with a cgroup in which the caller \
         may create others"
    );
    assert_eq!(refusal(None), expected);
}

#[apply(test)]
#[skip(unless_systemd)]
fn a_missing_bus_is_named() {
    let (whose, _) = bus_that_is_asked();
    let remedy = match is_root() {
        true => "start it (package dbus)",
        false => {
            "start a user manager (log in, or run `loginctl enable-linger 1000`), and set DBUS_SESSION_BUS_ADDRESS or \
             XDG_RUNTIME_DIR if its bus is elsewhere"
        }
    };
    let expected = format!(
        "NoBus\nNotFound\nfailed to connect to {whose} bus unix:path=/nowhere/bus: No such file or directory (ENOENT): \
         {remedy}"
    );
    assert_eq!(refusal(Some("unix:path=/nowhere/bus")), expected);
}

#[apply(test)]
fn a_bus_that_never_answers_is_an_error_in_time() {
    let place = shared_dir();
    let socket = place.path().join("bus");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let address = format!("unix:path={}", socket.display());
    let start = Instant::now();
    let said = refusal(Some(&address));
    assert!((24..60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let (whose, _) = bus_that_is_asked();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["TimedOut", "TimedOut"]);
    let option = if is_root() { "" } else { "--user " };
    let unit =
        lines[2].split_whitespace().find(|word| word.starts_with("stockade-")).expect("the unit").trim_end_matches(':');
    let expected = format!(
        "failed to ask {whose} systemd for the scope {unit}: no answer in 25s on {address}: see `systemctl \
         {option}status` and `journalctl {option}-u {unit}`"
    );
    assert_eq!(lines[2], expected);
}

/// A bus of one's own, on which nobody is and that can start nobody.
const LONELY_BUS: &str = r#"<busconfig><listen>unix:path=BUS</listen><auth>EXTERNAL</auth>
    <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
    <allow user="*"/></policy></busconfig>"#;

/// A process that ends with the test.
struct Mortal(std::process::Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("SIGKILL, and the end");
    }
}

#[apply(test)]
#[skip(unless_dbus_daemon)]
fn a_bus_without_systemd_is_named() {
    let place = shared_dir();
    let (configuration, socket) = (place.path().join("configuration"), place.path().join("bus"));
    fs::write(&configuration, LONELY_BUS.replace("BUS", socket.to_str().unwrap())).expect("its configuration");
    let mut bus = Host::new("dbus-daemon");
    let bus = bus.arg("--nofork").arg(format!("--config-file={}", configuration.display()));
    let _bus = Mortal(bus.stderr(HostStdio::null()).spawn().expect("a bus"));
    eventually("the bus listens", || UnixStream::connect(&socket).is_ok());

    let address = format!("unix:path={}", socket.display());
    let said = refusal(Some(&address));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["NoManager", "NotFound"], "{said}");
    let (whose, _) = bus_that_is_asked();
    assert!(lines[2].starts_with(&format!("failed to ask {whose} systemd for the scope stockade-")), "{said}");
    let variable = if is_root() { "DBUS_SYSTEM_BUS_ADDRESS" } else { "DBUS_SESSION_BUS_ADDRESS" };
    let expected = format!(
        "The name org.freedesktop.systemd1 was not provided by any .service files \
         (org.freedesktop.DBus.Error.ServiceUnknown): no systemd is on the bus {address}: set {variable} to the \
         address of its bus"
    );
    assert!(lines[2].ends_with(&expected), "{said}");
}

/// The system's manager lets no ordinary user start a unit.
#[apply(test)]
#[only(User)]
#[skip(unless_user_manager)]
fn a_manager_that_denies_the_scope_is_named() {
    let said = refusal(Some("unix:path=/run/dbus/system_bus_socket"));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["Refused", "PermissionDenied"], "{said}");
    assert!(lines[2].starts_with("failed to ask the user's systemd for the scope stockade-"), "{said}");
    let remedy = "allow it in the policy of the bus and in polkit (org.freedesktop.systemd1.manage-units), or choose \
                  another parent (CgroupParent::Path)";
    assert!(lines[2].ends_with(remedy), "{said}");
}

#[apply(test)]
#[skip(unless_manager)]
fn a_caller_is_moved_to_a_scope_once() {
    caller("once");
}

fn caller_that_spawns_twice(_: &[String]) -> i32 {
    assert_eq!(own_scope(), None, "not yet");
    if !is_root() {
        let auto = Sandbox::new().cgroup(Cgroup::new().memory_max(64 * MB));
        let (what, _) = support::words(&refused(&auto));
        assert!(what.contains("the caller may not create a cgroup in"), "{what}");
    }
    let first = sleeper(&with(Cgroup::new().memory_max(64 * MB).pids_max(20)));
    let scope = scope_of(&first);
    let group = group_of(first.pid().number());
    assert_eq!(fs::read_to_string(with_limits(&group).join("memory.max")).unwrap(), format!("{}\n", 64 * MB));
    let second = sleeper(&with(Cgroup::new().pids_max(20)));
    assert_eq!(scope_of(&second), scope, "the second is in the same");
    assert_ne!(group_of(second.pid().number()), group);
    drop(first);
    assert!(!group.exists() && !with_limits(&group).exists(), "its group is gone, the other's is not");
    assert!(group_of(second.pid().number()).exists());
    drop(second);
    let left: Vec<_> = fs::read_dir(&scope).unwrap().flatten().filter(|entry| entry.path().is_dir()).collect();
    assert_eq!(left.len(), 1, "the caller's leaf: {left:?}");
    told(&scope)
}

#[apply(test)]
#[skip(unless_manager)]
fn planning_moves_the_caller_to_a_scope() {
    caller("plan");
}

fn caller_that_plans(_: &[String]) -> i32 {
    with(Cgroup::new().pids_max(20)).plan(Command::new("true")).expect("a plan");
    told(&own_scope().expect("the caller's scope"))
}

#[apply(test)]
#[skip(unless_manager)]
fn threads_that_spawn_at_once_share_the_scope() {
    caller("threads_in_a_scope");
}

fn caller_with_threads(_: &[String]) -> i32 {
    let spawn = || sleeper(&with(Cgroup::new().pids_max(20)));
    let children: Vec<Child> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(spawn)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    let scopes: Vec<PathBuf> = children.iter().map(scope_of).collect();
    assert!(scopes.iter().all(|scope| *scope == scopes[0]), "{scopes:?}");
    told(&scopes[0])
}

#[apply(test)]
#[skip(unless_manager)]
fn memory_is_limited_in_a_scope() {
    caller("memory");
}

fn caller_that_limits_memory(_: &[String]) -> i32 {
    let ends = |cgroup| with(cgroup).output(Command::new(EATER[0]).args(&EATER[1..])).expect("an eater").outcome;
    assert_eq!(ends(Cgroup::new()).termination, Termination::Exited(0), "without a limit it may");
    let limited = ends(Cgroup::new().memory_max(64 * MB));
    assert_eq!(limited.termination, Termination::Memory, "{limited}");
    told(&own_scope().expect("a scope"))
}

#[apply(test)]
#[skip(unless_manager)]
fn processes_are_limited_in_a_scope() {
    caller("processes");
}

fn caller_that_limits_processes(_: &[String]) -> i32 {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 10 & done; echo all";
    let starts = |max| {
        let output =
            with(Cgroup::new().pids_max(max)).output(Command::new("sh").args(["-c", script])).expect("a shell");
        text(&output.stdout) == "all"
    };
    assert!(starts(20));
    assert!(!starts(5));
    told(&own_scope().expect("a scope"))
}

#[apply(test)]
#[skip(unless_cpu)]
fn cpu_time_is_limited_in_a_scope() {
    caller("cpu");
}

fn caller_that_limits_cpu(_: &[String]) -> i32 {
    let sandbox = with(Cgroup::new().cpu_max(0.2)).limits(Limits::new().wall_time(Duration::from_secs(3)));
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
    let mut child = sandbox.spawn(&command).expect("a busy program");
    let limit = with_limits(&group_of(child.pid().number())).join("cpu.max");
    assert_eq!(fs::read_to_string(limit).unwrap(), "20000 100000\n");
    let outcome = child.wait().expect("its end");
    assert_eq!(outcome.termination, Termination::WallTime);
    let used = outcome.usage.cpu_time.expect("its CPU time").value;
    assert!(used < Duration::from_millis(1200), "{used:?} of 3 s");
    told(&own_scope().expect("a scope"))
}

#[apply(test)]
#[skip(unless_manager)]
fn a_scope_is_removed_when_its_caller_is_killed() {
    let mut caller = payload_on_host("killed").stdout(HostStdio::piped()).spawn().expect("a caller");
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(caller.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut line).expect("its scope");
    let scope = PathBuf::from(line.trim());
    assert!(scope.is_dir(), "{line:?}");
    caller.kill().expect("its end");
    caller.wait().expect("its end");
    is_gone(&scope);
}

fn caller_that_is_killed(_: &[String]) -> i32 {
    let child = sleeper(&with(Cgroup::new().pids_max(20)));
    told(&scope_of(&child));
    std::thread::sleep(Duration::from_secs(600));
    1
}

#[apply(test)]
#[skip(unless_manager)]
fn run_limits_in_a_scope() {
    let output = Host::new(example(COMMAND))
        .args(["run", "--cgroup-parent", "systemd", "--memory", "64M", "--report", "-", "--"])
        .args(EATER)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(124), "{} {}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains(r#""termination":"memory""#), "{}", text(&output.stdout));
}

/// A caller in a unit of its own: whether it is delegated, and what the caller is asked to do. A service's `Result` is
/// told by systemd-run(1).
fn in_unit(kind: &str, delegated: bool, payload: &str) -> std::process::Output {
    let mut unit = Host::new("systemd-run");
    if !is_root() {
        unit.arg("--user").env("XDG_RUNTIME_DIR", format!("/run/user/{}", support::USER));
    }
    // A service has none of this process's environment.
    unit.arg("--collect").arg(format!("--setenv=STOCKADE_TESTS_SLOW={}", support::slowness()));
    unit.args(if kind == "scope" { ["--scope"].as_slice() } else { &["--wait", "--pipe"] });
    if delegated {
        unit.args(["-p", "Delegate=yes"]);
    }
    unit.arg(support::own_path()).args(["--payload", payload]);
    unit.output().expect("systemd-run(1)")
}

fn eater(parent: CgroupParent) -> Sandbox {
    Sandbox::new().cgroup(Cgroup::new().parent(parent).memory_max(64 * MB))
}

/// Says what becomes of a sandbox that needs more memory than it may have, and that it has lived through that.
fn ends(sandbox: &Sandbox, moment: Duration) -> i32 {
    match sandbox.output(Command::new(EATER[0]).args(&EATER[1..])) {
        Ok(output) => println!("{:?}", output.outcome.termination),
        Err(error) => println!("{:?}: {error}", error.layer()),
    }
    // systemd has a moment to act.
    std::thread::sleep(moment);
    println!("alive");
    0
}

fn caller_that_asks_for_its_own_cgroup(_: &[String]) -> i32 {
    let without = eater(CgroupParent::Auto).best_effort([Layer::Cgroup]).output(Command::new("true"));
    let lost = without.expect("a sandbox without a cgroup").outcome.enforcement.unenforced;
    println!("{}", if lost.is_empty() { "nothing lost" } else { "limits lost" });
    ends(&eater(CgroupParent::Auto), Duration::from_secs(2))
}

/// A cgroup namespace with a mount of its own shows the unit as the root of the hierarchy, without its name.
fn caller_that_hides_its_unit(_: &[String]) -> i32 {
    const SCRIPT: &str =
        "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" --payload auto";
    let mut caller = Host::new("unshare");
    caller.args(["--cgroup", "--mount", "sh", "-c", SCRIPT]).arg(support::own_path());
    panic!("unshare(1): {}", caller.exec());
}

/// What `CgroupParent::Auto` did in every unit: the group is below the caller's own, whose processes are in a leaf.
fn caller_that_names_its_own_cgroup(_: &[String]) -> i32 {
    let own = group_of(std::process::id());
    let leaf = own.join("leaf");
    fs::create_dir(&leaf).expect("a leaf");
    fs::write(leaf.join("cgroup.procs"), "0").expect("this process in it");
    fs::write(own.join("cgroup.subtree_control"), "+memory").expect("memory for those below");
    let path = own.strip_prefix("/sys/fs/cgroup").expect("a cgroup").to_owned();
    // It ends long before, stopped by systemd.
    ends(&eater(CgroupParent::Path(path)), at_most(Duration::from_secs(20)))
}

/// What a caller in a unit that is not delegated was told, which has lost its limits and lives.
fn refusal_in(kind: &str, payload: &str) -> String {
    let output = in_unit(kind, false, payload);
    let said = text(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    let ends = (lines.first(), lines.last());
    assert_eq!(ends, (Some(&"limits lost"), Some(&"alive")), "{said} {}", text(&output.stderr));
    lines[1].to_owned()
}

#[apply(test)]
#[skip(unless_manager)]
fn in_an_undelegated_unit_no_cgroup_is_created() {
    for kind in ["service", "scope"] {
        let said = refusal_in(kind, "auto");
        assert!(said.starts_with("Some(Cgroup): memory_max cannot be enforced: the caller is in run-"), "{said}");
        assert!(said.contains(&format!(".{kind}, which systemd has not delegated")), "{said}");
        assert!(said.contains("Delegate=yes"), "{said}");
    }
    // Why: systemd takes it for the service's own failure.
    let output = in_unit("service", false, "path");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success() && !said.contains("alive"), "the service is stopped: {said}");
    assert!(said.contains("oom-kill"), "{said}");
}

fn unless_root_and_manager() -> Option<String> {
    unless_root().or_else(unless_manager)
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_manager)]
fn a_unit_that_a_cgroup_namespace_hides_is_not_delegated_unless_it_says_so() {
    let said = refusal_in("service", "hidden_unit");
    assert!(said.contains("the caller is in a unit whose name its cgroup namespace hides"), "{said}");
    let output = in_unit("service", true, "hidden_unit");
    let said = text(&output.stdout);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["nothing lost", "Memory", "alive"], "{}", text(&output.stderr));
}

#[apply(test)]
#[skip(unless_manager)]
fn in_a_delegated_unit_an_oom_kill_is_confined_to_the_sandbox() {
    for kind in ["service", "scope"] {
        let output = in_unit(kind, true, "auto");
        let said = text(&output.stdout);
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            ["nothing lost", "Memory", "alive"],
            "{kind} {}",
            text(&output.stderr)
        );
        assert!(output.status.success(), "{kind}: {}", text(&output.stderr));
    }
}
