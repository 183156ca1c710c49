//! Programs that attack the commands after them, and what starts these (attacks 10 and 32).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid;
use stockade::capabilities::Capability;
use stockade::{Capabilities, Errno, ErrorKind, Limits, Namespaces, Sandbox, Stdio, Termination, profile};

use super::{MS, script, session, start, stdout};
use crate::attacks::common::{Attempts, attempt, sandbox, tell, unfiltered};
use crate::attacks::sys;
use crate::support::{at_most, on_host, payload, rounds, text, with_payload};

payloads![
    ("use_up_processes", use_up),
    ("signal_others", signal_others),
    ("kill_all", kill_all),
    ("caller_of_killed_commands", caller_of_killed_commands),
    ("trace_others", trace_others),
    ("trace_and_keep", trace_and_keep),
    ("find_helper", find_helper)
];

/// Processes that this one sees, but for itself and init.
fn others() -> Vec<i32> {
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| pid != 1 && pid != own).collect()
}

/// The name of a process.
fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Starts as many processes as there can be, and stays.
fn use_up(_: &[String]) -> i32 {
    let mut started = vec![];
    while let Ok(child) = std::process::Command::new("sleep").arg("1000").spawn() {
        started.push(child);
    }
    println!("used up");
    std::thread::sleep(Duration::from_secs(1000));
    0
}

/// Sends a signal to every other process, on and on. It says so when it begins.
fn signal_others(args: &[String]) -> i32 {
    let signal = NixSignal::try_from(args[0].parse::<i32>().expect("a number")).expect("a signal");
    println!("begins");
    loop {
        for pid in others() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Kills every other process, on and on, but for init, which is not killed from inside.
fn kill_all(_: &[String]) -> i32 {
    println!("begins");
    loop {
        let _ = kill(Pid::from_raw(-1), NixSignal::SIGKILL);
    }
}

/// A caller whose commands are killed while they are started.
fn caller_of_killed_commands(_: &[String]) -> i32 {
    let session = start(&unfiltered(&sandbox()));
    let mut attacker = session.spawn(payload("kill_all").stdout(Stdio::piped())).expect("the attacker");
    std::io::Read::read_exact(attacker.stdout.as_mut().expect("its output"), &mut [0; 7]).expect("its beginning");
    let killed = (0..rounds(3000))
        .filter(|_| {
            let ended = session.status(stockade::Command::new("true").stdin(Stdio::null()));
            !ended.is_ok_and(|outcome| outcome.success())
        })
        .count();
    assert!(killed > 0, "no command was killed");
    drop(attacker);
    // The status of a command is lost before Linux 6.15.
    session.create("/tmp/file").expect("the session goes on");
    0
}

/// Traces every other process that has not executed its program yet, reads its memory, and opens its files, until a file
/// tells it to end. It says what it could do, and how often it has tried.
fn trace_others(_: &[String]) -> i32 {
    println!("begins");
    let (mut tried, mut done) = (0_u64, BTreeSet::new());
    while !fs::exists("/tmp/end").unwrap_or(false) {
        for pid in others() {
            let before = name(pid);
            let files = ["mem", "environ", "maps", "syscall", "exe", "root", "cwd", "fd", "auxv"];
            let read = |file: &str| {
                let path = format!("/proc/{pid}/{file}");
                match file {
                    "exe" | "root" | "cwd" => fs::read_link(path).is_ok(),
                    "fd" => fs::read_dir(path).is_ok(),
                    "mem" => fs::File::options().write(true).open(path).is_ok(),
                    _ => fs::read(path).is_ok_and(|bytes| !bytes.is_empty()),
                }
            };
            let could: Vec<&str> = files.into_iter().filter(|file| read(file)).collect();
            tried += 1;
            // Its name is that of the program as soon as it is executed.
            let is_program = |name: &str| matches!(name, "" | "payload" | "sh" | "true" | "sleep");
            if !is_program(&before) && before == name(pid) {
                tried += 1_000_000;
                done.extend(could.iter().map(|what| format!("{what} of {before:?}")));
            } else if before == "sleep" {
                done.extend(could.iter().map(|what| format!("{what} of a program")));
            }
        }
    }
    tell("tried", tried);
    for what in done {
        println!("{what}: done");
    }
    0
}

/// Looks for the helper by every number that a process here can have, and signals all that it may.
fn find_helper(_: &[String]) -> i32 {
    let own = std::process::id() as i32;
    let reached =
        |pid: i32| kill(Pid::from_raw(pid), None).is_ok() || fs::exists(format!("/proc/{pid}")).unwrap_or(false);
    let found: Vec<i32> = (1..=32_768).filter(|&pid| pid != own && reached(pid)).collect();
    tell("found", found);
    attempt("all processes", kill(Pid::from_raw(-1), NixSignal::SIGKILL));
    for which in [libc::PRIO_USER, libc::PRIO_PGRP, libc::PRIO_PROCESS] {
        // SAFETY: it takes numbers alone.
        tell("priorities", unsafe { libc::setpriority(which, 0, 19) });
    }
    0
}

/// Every restriction that a program can find out about is the same in a session as in a sandbox of its own, for the first
/// command and for later ones.
#[apply(test)]
fn every_command_is_confined_as_the_program_of_a_sandbox() {
    let workspace = crate::support::shared_dir();
    fs::set_permissions(workspace.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let limited = Limits::new().rlimit(stockade::limits::Resource::Nofile, 64, 64);
    let sandboxes = [
        ("default", sandbox()),
        ("limits", sandbox().limits(limited)),
        ("unconfined", unfiltered(&sandbox())),
        ("test", profile::test().map_root(with_payload)),
        ("agent", profile::agent().map_root(with_payload)),
        ("umask", sandbox().umask(0o077).hostname("other")),
        ("new privileges", sandbox().allow_new_privs()),
    ];
    for (kind, sandbox) in sandboxes {
        let own = sandbox.output(payload("restricted")).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let own = Attempts::parse(&text(&own.stdout));
        let session = start(&sandbox);
        for round in 0..3 {
            let output = session.output(payload("restricted")).unwrap();
            let inside = Attempts::parse(&text(&output.stdout));
            // Its namespaces are its own; Landlock, by which an ordinary user's sandbox denies FIFOs, is compared by attempts.
            for what in own.names().filter(|what| !["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"].contains(what))
            {
                assert_eq!(inside.get(what), own.get(what), "{kind}, command {round}: {what}");
            }
            assert_eq!(inside.get("leads its session"), "true");
        }
        let look = "cat /proc/self/limits; ls -l /proc/self/fd | sed 's/.* -> //' | grep -v '^/proc\\|pipe\\|total'; cat /proc/1/comm; \
                    cat /proc/sys/kernel/hostname; grep -c . /proc/self/mountinfo; sort /proc/mounts";
        let of_sandbox = text(&sandbox.output(script(look)).unwrap().stdout);
        assert!(of_sandbox.lines().count() > 20, "{of_sandbox}");
        // Names of directories of the test's own, and sizes that depend on what else runs.
        // A session has a place for the terminals of its commands.
        let private = |text: &str| {
            let lines = text.lines().filter(|line| !line.contains("devpts")).map(|line| format!("{line}\n"));
            lines.collect::<String>().replace(|c: char| c.is_ascii_digit(), "")
        };
        let of_session = private(&stdout(&session, look));
        let of_sandbox = private(&of_sandbox);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let differences: Vec<String> = lines(&of_session).symmetric_difference(&lines(&of_sandbox)).cloned().collect();
        assert!(differences.is_empty(), "{kind}: {differences:#?}");
    }
}

#[apply(test)]
fn no_program_reaches_what_starts_the_others() {
    for sandbox in [sandbox(), unfiltered(&sandbox())] {
        let session = start(&sandbox);
        let priority = stdout(&session, "nice");
        let output = session.output(payload("find_helper")).unwrap();
        let found = Attempts::parse(&text(&output.stdout));
        assert_eq!(found.get("found"), "[1]", "only init is there");
        // The helper lives, and its priority is as before.
        assert_eq!(stdout(&session, "nice"), priority);
        // By its process group neither: the group of a command is its own.
        let output = session.output(script("kill -KILL 0; sleep 10")).unwrap();
        assert_eq!(output.outcome.termination, Termination::signaled(stockade::Signal::KILL, false));
        assert_eq!(stdout(&session, "echo works"), "works");
    }
}

/// A process that is being started is stopped, but never less confined.
#[apply(test)]
fn a_command_that_is_stopped_while_it_is_started_is_an_error_in_time() {
    let timeout = 1000 * MS;
    let sandbox = unfiltered(&sandbox()).setup_timeout(at_most(timeout));
    for (signal, kinds) in [
        (libc::SIGSTOP, [ErrorKind::SetupTimedOut, ErrorKind::SetupFailed]),
        (libc::SIGKILL, [ErrorKind::SetupFailed, ErrorKind::SetupFailed]),
        // Before Linux 5.16 a dump of memory kills all processes that share it.
        (libc::SIGQUIT, [ErrorKind::SetupFailed, ErrorKind::SetupFailed]),
    ] {
        let session = start(&sandbox);
        let mut attacker = payload("signal_others");
        let mut attacker = session.spawn(attacker.arg(signal.to_string()).stdout(Stdio::piped())).unwrap();
        let mut begun = [0; 7];
        std::io::Read::read_exact(attacker.stdout.as_mut().unwrap(), &mut begun).unwrap();
        let mut failed = 0;
        for _ in 0..rounds(60) {
            let begin = Instant::now();
            match session.spawn(payload("restricted").stdout(Stdio::piped())) {
                Err(error) => {
                    assert!(kinds.contains(&error.kind()), "{error}");
                    failed += 1;
                }
                // It was stopped or killed after the program was executed, which another name shows, or has not exited yet.
                Ok(mut child) => {
                    let name = fs::read_to_string(format!("/proc/{}/comm", child.pid().number())).unwrap_or_default();
                    if name.trim_end() != "payload" {
                        let error = child.wait().expect_err("a program that was never executed");
                        assert!(kinds.contains(&error.kind()), "{error}");
                        failed += 1;
                    }
                }
            }
            assert!(begin.elapsed() < at_most(timeout) * 4, "{:?}", begin.elapsed());
        }
        println!("signal {signal}: {failed} were not started");
        attacker.kill().unwrap();
        assert_eq!(attacker.wait().unwrap().termination, Termination::Killed);
        // The session goes on.
        let output = session.output(payload("restricted")).unwrap();
        assert_eq!(Attempts::parse(&text(&output.stdout)).get("NoNewPrivs"), "1");
    }
}

/// A caller that ignores SIGCHLD finds no process where another one has to reap it.
#[apply(test)]
fn commands_that_are_killed_while_they_are_started_end_no_session() {
    on_host(&[], "caller_of_killed_commands", &[]);
    on_host(&["env", "--ignore-signal=CHLD"], "caller_of_killed_commands", &[]);
}

/// Attack 10: The number that lets the calls of the helper through the filter is in the memory of every process that is started.
#[apply(test)]
#[only(Root)]
fn a_session_whose_programs_can_trace_them_has_no_filter() {
    let tracing = |sandbox: Sandbox| {
        let kept = Capabilities::none().keep([Capability::SysPtrace]);
        sandbox.map_namespaces(|created| created - Namespaces::USER).capabilities(kept)
    };
    let error = tracing(sandbox()).start().expect_err("they could read the number");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    assert!(error.to_string().contains("CAP_SYS_PTRACE"), "{error}");
    for works in
        [tracing(sandbox()).map_namespaces(|created| created | Namespaces::USER), tracing(unfiltered(&sandbox()))]
    {
        assert_eq!(stdout(&start(&works), "echo works"), "works");
    }
}

/// Attack 10: While commands are started again and again, a program traces them and reads their memory and files.
#[apply(test)]
fn no_program_traces_a_command_before_it_is_executed() {
    let session = start(&unfiltered(&sandbox()));
    let mut attacker = payload("trace_others");
    let mut attacker = session.spawn(attacker.stdout(Stdio::piped())).unwrap();
    let mut sleeper = session.spawn(stockade::Command::new("sleep").arg("1000")).unwrap();
    for _ in 0..rounds(3000) {
        let outcome = session.status(stockade::Command::new("true").stdin(Stdio::null())).unwrap();
        assert!(outcome.success() || matches!(outcome.termination, Termination::Signaled { .. }), "{outcome}");
    }
    session.create("/tmp/end").unwrap();
    sleeper.kill().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(attacker.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(attacker.wait().unwrap().success());
    let found = Attempts::parse(&said);
    println!("{found:?}");
    // The attack works on a program that has been executed. The rights that `mem` takes are those of tracing.
    found.assert_done(&["mem of a program", "environ of a program", "exe of a program"]);
    let others: Vec<&str> = found.done().filter(|what| !what.ends_with("of a program")).collect();
    assert!(others.is_empty(), "{others:?}");
    let tried: u64 = found.get("tried").parse().expect("a number");
    assert!(tried >= 1_000_000, "no process was seen before its program was executed: {tried}");
}

/// Traces every process that it can, and lets none go.
fn trace_and_keep(_: &[String]) -> i32 {
    println!("begins");
    loop {
        for pid in others() {
            let _ = sys::ptrace(pid);
        }
    }
}

/// A program that traces others keeps the caller from reaping them, so it is killed.
#[apply(test)]
fn a_program_that_traces_commands_delays_no_outcome() {
    // What is traced is stopped, until its limit.
    let session = start(&unfiltered(&sandbox()).limits(Limits::new().wall_time(200 * MS)));
    for _ in 0..rounds(5) {
        let mut attacker = payload("trace_and_keep");
        let mut attacker = session.spawn(attacker.stdout(Stdio::piped())).unwrap();
        std::io::Read::read_exact(attacker.stdout.as_mut().unwrap(), &mut [0; 7]).unwrap();
        let begin = Instant::now();
        for _ in 0..5 {
            // It may be killed by the end of the attacker, or have exited before it is traced.
            let outcome = session.output(script("sleep 0.05")).unwrap().outcome;
            let ends = [Termination::Exited(0), Termination::WallTime];
            assert!(ends.contains(&outcome.termination) || outcome.termination.signal().is_some(), "{outcome}");
        }
        assert!(begin.elapsed() < at_most(5000 * MS), "{:?}", begin.elapsed());
        attacker.kill().unwrap();
        let _ = attacker.wait().unwrap();
    }
    let output = session.output(script("echo works")).unwrap();
    assert_eq!(text(&output.stdout), "works");
}

/// A program that a later command executes leads to the helper's image, which has the pass of the filter.
#[apply(test)]
fn the_image_of_the_helper_cannot_be_executed_again() {
    let session = start(&unfiltered(&sandbox()));
    stdout(
        &session,
        "ln -s /proc/self/exe /tmp/link; printf '#!/proc/self/exe\n' >/tmp/script; chmod 755 /tmp/script; \
         ln -s /proc/thread-self/exe /tmp/thread",
    );
    // What the link leads to can be executed where it is a program.
    assert_eq!(stdout(&session, "cp /bin/true /tmp/true; /tmp/true && echo runs"), "runs");
    for path in ["/tmp/link", "/tmp/script", "/tmp/thread", "/proc/self/exe"] {
        let error = session.spawn(stockade::Command::new(path)).expect_err("it would be the helper's image");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotExecutable, Some(Errno::EACCES)), "{path}: {error}");
    }
}

/// Files of the session's root that a program has exchanged lead a later command nowhere else.
#[apply(test)]
fn what_a_program_leaves_does_not_redirect_a_later_command() {
    let session = session();
    stdout(
        &session,
        "mkdir /tmp/bin; ln -s /proc/1/exe /tmp/bin/ls; ln -s /proc/1/root/etc /tmp/etc; ln -s /proc/1/cwd /tmp/cwd",
    );
    let error = session.spawn(stockade::Command::new("/tmp/bin/ls")).expect_err("no rights to init");
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error}");
    session.open("/tmp/etc/hostname").expect_err("no rights to init");
    let error = session.spawn(script("true").current_dir("/tmp/cwd")).expect_err("a magic link");
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error}");
    assert_eq!(stdout(&session, "echo works"), "works");
}

/// A program that uses up what the sandbox's user has prevents further commands, and nothing else.
#[apply(test)]
fn a_program_that_uses_up_its_processes_prevents_no_end() {
    let limits = Limits::new().rlimit(stockade::limits::Resource::Nproc, 20, 20);
    let session = start(&sandbox().limits(limits));
    let mut bomb = payload("use_up_processes");
    let mut bomb = session.spawn(bomb.stdin(Stdio::null()).stdout(Stdio::piped())).unwrap();
    let mut used_up = [0; 7];
    std::io::Read::read_exact(bomb.stdout.as_mut().unwrap(), &mut used_up).unwrap();
    // Whether it starts depends on the limit that its own process has.
    match session.spawn(script("true").stderr(Stdio::null())) {
        Ok(mut child) => drop(child.wait().unwrap()),
        Err(error) => assert!(error.to_string().contains("(EAGAIN)"), "{error}"),
    }
    let begin = Instant::now();
    session.kill().unwrap();
    assert!(begin.elapsed() < at_most(5000 * MS), "{:?}", begin.elapsed());
    assert_eq!(bomb.wait().unwrap().termination, Termination::Killed);
}

#[apply(test)]
fn other_sessions_are_out_of_reach() {
    let (one, other) = (session(), session());
    one.create("/tmp/file").unwrap();
    other.open("/tmp/file").expect_err("another sandbox");
    let count = "set -- /proc/[0-9]*; echo $#";
    let pids = stdout(&other, count);
    let _running = one.spawn(script("sleep 1000")).unwrap();
    assert_eq!(stdout(&other, count), pids);
    let kinds = [Namespaces::USER, Namespaces::NET, Namespaces::IPC, Namespaces::MOUNT, Namespaces::PID];
    for kind in kinds {
        let of = |session: &stockade::Session| {
            let (_, fd) = session.namespaces().iter().find(|(known, _)| *known == kind).unwrap();
            std::os::unix::fs::MetadataExt::ino(&fs::File::from(fd.try_clone().unwrap()).metadata().unwrap())
        };
        assert_ne!(of(&one), of(&other));
    }
}
