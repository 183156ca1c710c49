//! Sessions with a cgroup: each command has one of its own below it.

use std::iter;
use std::time::Duration;

use stockade::cgroup::{CgroupParent, IoMax};
use stockade::{Cgroup, Command, ErrorKind, Limits, Sandbox, Session, Stdio, Termination};

use crate::cgroups::errors::{disk, unless_root_with_a_disk};
use crate::cgroups::groups::{self, left_by, unless_accounts, unless_freezer, unless_limits, unless_peak};
use crate::cgroups::{MB, MS, eventually, group, quiet, with};
use crate::support::{self, at_most, on_host, text};

payloads![("caller_with_a_session", caller_with_a_session), ("caller_with_leftovers", caller_with_leftovers)];

fn start(cgroup: Cgroup) -> Session {
    with(cgroup).start().unwrap_or_else(|error| panic!("{error}"))
}

fn script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn payload(session: &Session, name: &str, args: &[&str]) -> stockade::Output {
    session.output(support::payload(name).args(args)).unwrap_or_else(|error| panic!("{name} {args:?}: {error}"))
}

#[apply(test)]
#[skip(unless_peak)]
fn each_command_is_counted_by_itself_and_all_by_the_session() {
    let session = start(group());
    let large = payload(&session, "touch", &["64"]).outcome.usage;
    let small = payload(&session, "touch", &["1"]).outcome.usage;
    let peak = |usage: stockade::outcome::Usage| usage.memory_peak.expect("the peak").value;
    assert!(peak(large) >= 64 * MB && peak(small) < 32 * MB, "{} {}", peak(large), peak(small));
    assert!(peak(session.usage()) >= 64 * MB, "{:?}", session.usage());
    let used = |usage: stockade::outcome::Usage| usage.cpu_time.expect("CPU time").value;
    assert!(used(session.usage()) >= used(large) + used(small), "{:?}", session.usage());
}

#[apply(test)]
#[skip(unless_peak)]
fn the_limit_on_memory_holds_for_all_commands_together() {
    let session = start(group().memory_max(64 * MB));
    assert!(payload(&session, "touch", &["32"]).outcome.success());
    let killed = payload(&session, "touch", &["128"]).outcome;
    assert_eq!(killed.termination, Termination::Memory, "{killed}");
    // The session goes on, and no later command is blamed for it.
    let next = payload(&session, "touch", &["32"]).outcome;
    assert_eq!(next.termination, Termination::Exited(0), "{next}");
}

/// The kernel kills the process of a command that finds the memory used up before it is executed, and what shares its memory.
#[apply(test)]
#[skip(unless_limits)]
fn files_that_use_up_the_memory_end_no_session() {
    let session = start(group().memory_max(64 * MB));
    let filled = session.status(quiet("/bin/sh").args(["-c", "cat /dev/zero >/tmp/full"])).expect("a command");
    assert_eq!(filled.termination, Termination::Memory, "{filled}");
    // More arguments than what the killed program leaves: the kernel copies them before it executes the program.
    let mut large = quiet("true");
    large.args(iter::repeat_n("x".repeat(100_000), 15));
    let failed = (0..20).filter(|_| !session.status(large.clone()).is_ok_and(|outcome| outcome.success())).count();
    assert!(failed > 0, "the file does not use up the memory");
    drop(session.create("/tmp/full").expect("the file, cut off"));
    let outcome = session.status(quiet("true")).expect("the session goes on");
    assert!(outcome.success(), "{outcome}");
}

#[apply(test)]
#[skip(unless_limits)]
fn the_limit_on_processes_holds_for_all_commands_together() {
    let session = start(group().pids_max(8));
    let many = "for n in 1 2 3 4 5 6; do sleep 1000 >/dev/null 2>&1 & done; echo started";
    assert_eq!(text(&session.output(script(many)).unwrap().stdout), "started");
    let output = session.output(script("sleep 1000 & sleep 1000 & sleep 1000 & echo never")).unwrap();
    assert!(!output.outcome.success(), "{}", output.outcome);
    assert_ne!(text(&output.stdout), "never");
}

#[apply(test)]
#[skip(unless_accounts)]
fn everything_that_a_command_has_started_is_killed_with_it() {
    let session = start(group());
    let counting = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[s]leep 100[0-9]' | sort -u | tr '\\n' ' '";
    // It leaves its process group, so that only the cgroup has it.
    let mut child = session.spawn(script("setsid sleep 1001 & sleep 1002").stdin(Stdio::null())).unwrap();
    let mut other = session.spawn(quiet("sleep").arg("1003")).unwrap();
    eventually("all run", || {
        text(&session.output(script(counting)).unwrap().stdout) == "sleep 1001 sleep 1002 sleep 1003 "
    });
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    assert_eq!(text(&session.output(script(counting)).unwrap().stdout), "sleep 1003 ");
    assert_eq!(other.try_wait().unwrap(), None);
}

#[apply(test)]
#[skip(unless_accounts)]
fn what_goes_on_is_listed() {
    let session = start(group());
    let outcome = session.output(script("sleep 1000 >/dev/null 2>&1 & exit 3")).unwrap().outcome;
    assert_eq!(outcome.termination, Termination::Exited(3));
    assert_eq!(outcome.leaked.len(), 1, "{outcome}");
    let found = || session.output(script("cat /proc/[0-9]*/comm | grep sleep")).unwrap();
    // Its name is that of the shell until it is executed.
    eventually("it goes on", || text(&found().stdout) == "sleep");
    let found = found();
    assert_eq!(found.outcome.leaked, [], "it belongs to another command");
}

#[apply(test)]
#[skip(unless_accounts)]
fn each_command_has_its_own_cpu_time() {
    let limited = with(group()).limits(Limits::new().cpu_time(300 * MS).wall_time(at_most(60_000 * MS)));
    let session = limited.start().unwrap();
    for _ in 0..2 {
        let outcome = session.status(script("while :; do :; done").stdin(Stdio::null())).unwrap();
        assert_eq!(outcome.termination, Termination::CpuTime, "{outcome}");
        assert!(session.status(script("true").stdin(Stdio::null())).unwrap().success());
    }
    assert!(session.usage().cpu_time.expect("CPU time").value >= 600 * MS);
}

#[apply(test)]
#[skip(unless_freezer)]
fn a_session_and_each_command_can_be_frozen() {
    let session = start(group().freezable());
    let ticking = || script("while :; do echo; sleep 0.01; done");
    let mut one = session.spawn(ticking().stdout(Stdio::null()).stdin(Stdio::null())).unwrap();
    let used = |child: &stockade::Child| child.usage().cpu_time.expect("CPU time").value;
    let is_still = |child: &stockade::Child| {
        std::thread::sleep(100 * MS);
        let before = used(child);
        std::thread::sleep(300 * MS);
        used(child) < before + at_most(5 * MS)
    };
    eventually("it runs", || used(&one) > 20 * MS);
    session.freeze().unwrap();
    assert!(is_still(&one));
    session.thaw().unwrap();
    let before = used(&one);
    eventually("it goes on", || used(&one) > before + 20 * MS);
    let mut other = session.spawn(ticking().stdout(Stdio::null()).stdin(Stdio::null())).unwrap();
    one.freeze().unwrap();
    assert!(is_still(&one));
    let before = used(&other);
    eventually("the other one goes on", || used(&other) > before + 20 * MS);
    // A frozen one ends with the session.
    session.kill().unwrap();
    assert_eq!(one.wait().unwrap().termination, Termination::Killed);
    assert_eq!(other.wait().unwrap().termination, Termination::Killed);
}

#[apply(test)]
#[skip(unless_freezer)]
fn a_frozen_session_starts_no_command() {
    let session = start(group().freezable());
    session.freeze().unwrap();
    let error = session.spawn(quiet("true")).expect_err("it would not run");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("Session::thaw")), "{error}");
    drop(session.create("/tmp/file").unwrap());
    session.thaw().unwrap();
    assert!(session.status(quiet("true")).unwrap().success());
    session.kill().unwrap();
    session.freeze().unwrap();
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_usage_of_a_session_stays_when_it_has_ended() {
    let session = start(group());
    assert!(
        session
            .status(script("n=0; while test $n -lt 20000; do n=$((n + 1)); done").stdin(Stdio::null()))
            .unwrap()
            .success()
    );
    let before = session.usage();
    session.kill().unwrap();
    let after = session.usage();
    assert!(after.cpu_time.expect("CPU time").value >= before.cpu_time.expect("CPU time").value, "{after:?}");
    std::thread::sleep(20 * MS);
    assert_eq!(session.usage().wall_time, after.wall_time);
}

/// Also what leaves its process group, and when the program has exited in the grace period.
#[apply(test)]
#[skip(unless_accounts)]
fn a_limit_with_a_grace_period_kills_what_has_left_the_process_group() {
    let limits = Limits::new().wall_time(200 * MS).kill_grace(at_most(20_000 * MS));
    let session = with(group()).limits(limits).start().unwrap();
    let argument = format!("300001.{}", std::process::id());
    let sleeps = || support::processes(|line| line.contains(&argument));
    let all_run = script(&format!("setsid sleep {argument} & sleep {argument}")).stdin(Stdio::null()).clone();
    let outcome = session.status(all_run).unwrap();
    assert_eq!(outcome.termination, Termination::WallTime, "{outcome}");
    eventually("both are killed", || sleeps().is_empty());
}

#[apply(test)]
#[skip(unless_accounts)]
fn programs_see_the_cgroup_of_the_session_as_the_root() {
    let session = start(group());
    for _ in 0..2 {
        let output = session.output(script("cut -d: -f3 /proc/self/cgroup | sort -u")).unwrap();
        let said = text(&output.stdout);
        assert!(said.lines().any(|line| line.starts_with("/command-")), "{said}");
        assert!(!said.contains("stockade"), "{said}");
    }
}

/// On v1 the limits on a device do not apply below the cgroup that has them.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_a_disk)]
fn limits_of_a_block_device_apply_to_commands() {
    let (number, node) = disk().expect("a disk");
    let session = start(group().io_max(node, IoMax::new().read_bytes(1 << 20)));
    let child = session.spawn(quiet("sleep").arg("1000")).expect("a command");
    let pid = child.pid().number();
    let limits = if groups::is_v1("blkio") {
        groups::read(&groups::entered_by(pid, "blkio"), "blkio.throttle.read_bps_device")
    } else {
        groups::read(groups::entered_by(pid, "io").parent().expect("that of the session"), "io.max")
    };
    assert!(limits.starts_with(&number) && limits.contains("1048576"), "{limits:?}");
}

/// A caller that has created cgroups for a session and its commands, and has none left.
fn caller_with_a_session(args: &[String]) -> i32 {
    let cgroup = args.first().map_or(Cgroup::new(), |name| Cgroup::new().parent(CgroupParent::Path(name.into())));
    let own = std::process::id();
    for end in [|session| drop(session), |session: Session| session.kill().expect("its end")] {
        let session = Sandbox::new().cgroup(cgroup.clone()).start().expect("a session");
        for _ in 0..3 {
            drop(session.output(script("sleep 1000 >/dev/null 2>&1 &")).expect("a command"));
            drop(session.output(script("true")).expect("a command"));
            session.spawn(Command::new("missing")).expect_err("no such program");
        }
        assert!(!left_by(own).is_empty(), "it has cgroups");
        end(session);
        assert_eq!(left_by(own), Vec::<std::path::PathBuf>::new());
    }
    0
}

/// A caller whose commands leave processes: it has as many descriptors after many of them as after one.
fn caller_with_leftovers(args: &[String]) -> i32 {
    let cgroup = args.first().map_or(Cgroup::new(), |name| Cgroup::new().parent(CgroupParent::Path(name.into())));
    let own = std::process::id();
    let session = Sandbox::new().cgroup(cgroup).start().expect("a session");
    let leave = || {
        let outcome = session.output(script("setsid sleep 1000 >/dev/null 2>&1 &")).expect("a command").outcome;
        assert!(outcome.success() && outcome.leaked.len() == 1, "{outcome}");
    };
    // From the second one on, the cgroup of the next command exists.
    (0..2).for_each(|_| leave());
    let before = support::descriptors().len();
    (0..10).for_each(|_| leave());
    assert_eq!(support::descriptors().len(), before);
    drop(session);
    assert_eq!(left_by(own), Vec::<std::path::PathBuf>::new());
    0
}

#[apply(test)]
#[skip(unless_accounts)]
fn what_commands_leave_uses_up_no_descriptors_of_the_caller() {
    let name = crate::cgroups::delegation::name();
    on_host(&[], "caller_with_leftovers", &name.as_deref().into_iter().collect::<Vec<_>>());
}

#[apply(test)]
#[skip(unless_accounts)]
fn no_cgroup_of_a_session_is_left() {
    let name = crate::cgroups::delegation::name();
    on_host(&[], "caller_with_a_session", &name.as_deref().into_iter().collect::<Vec<_>>());
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_session_that_cannot_be_frozen_says_so() {
    let session = start(group());
    let error = session.freeze().expect_err("it is not freezable");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    assert!(session.usage().wall_time < Duration::from_secs(600));
}
