//! The set-up processes that stay while the program runs, and what a program can gain by controlling one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use stockade::capabilities::Capability;
use stockade::namespaces::NamespaceRef;
use stockade::{Capabilities, Command, ErrorKind, Identity, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::attacks::common::{Attempts, Bystander, host_output, ids_of, line, sandbox, tell, unfiltered};
use crate::attacks::sys;
use crate::support::{at_most, children, field, is_root, payload, payload_on_host, unless_root, unless_root_can_pivot};

payloads![
    ("caller_of_every_configuration", caller_of_every_configuration),
    ("inject_into_init", inject_into_init),
    ("stop_everybody", stop_everybody),
    ("caller_of_two", caller_of_two),
    ("trace", trace),
    ("caller_with_a_child_of_its_own", caller_with_a_child_of_its_own),
];

fn unless_tracing() -> Option<String> {
    let other = (!cfg!(target_arch = "x86_64")).then(|| "the test knows the registers of x86_64 alone".into());
    unless_root().or(other).or_else(unless_root_can_pivot)
}

/// Every set of namespaces that can be created here.
fn every_set_of_namespaces() -> impl Iterator<Item = Namespaces> {
    let kinds: Vec<Namespaces> = (Namespaces::all() - Namespaces::TIME).iter().collect();
    let pivots = unless_root_can_pivot().is_none();
    let has_root = move |set: &Namespaces| pivots || set.contains(Namespaces::USER) || !set.contains(Namespaces::MOUNT);
    let sets = (0..1 << kinds.len()).map(move |number: u32| {
        let chosen = kinds.iter().enumerate().filter(|(index, _)| number >> index & 1 == 1);
        chosen.map(|(_, kind)| *kind).collect()
    });
    sets.filter(has_root)
}

/// A caller that starts a sandbox in every configuration, and looks at the process that stays beside the program.
fn caller_of_every_configuration(_: &[String]) -> i32 {
    let mut looked_at = 0;
    let own_group = nix::unistd::getpgrp().to_string();
    let kept = Capabilities::none().keep([Capability::SysPtrace]);
    for namespaces in every_set_of_namespaces() {
        let has_rights = is_root() || namespaces.contains(Namespaces::USER);
        let root = if namespaces.contains(Namespaces::MOUNT) { Root::host() } else { Root::inherit() };
        let plain = Sandbox::new().namespaces(namespaces).root(root);
        let mut sandboxes = vec![plain.clone(), plain.clone().identity(Identity::caller())];
        if has_rights {
            sandboxes.push(plain.clone().capabilities(kept.clone()).seccomp(Seccomp::unconfined()));
            sandboxes.push(plain.allow_new_privs());
        }
        for (index, sandbox) in sandboxes.iter().enumerate() {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = match sandbox.spawn(&sleep) {
                Ok(child) => child,
                Err(error) => {
                    assert!(!is_root() && !namespaces.contains(Namespaces::USER), "{namespaces:?}: {error}");
                    continue;
                }
            };
            let others: Vec<i32> = children().into_iter().filter(|&pid| pid as u32 != child.pid().number()).collect();
            let &[staying] = others.as_slice() else { panic!("{namespaces:?}: {others:?}") };
            let status = loop {
                // The helper confines itself while the program runs already.
                let status = fs::read_to_string(format!("/proc/{staying}/status")).unwrap();
                let is_asleep = field(&status, "State").starts_with('S') && field(&status, "Seccomp") == "2";
                if is_asleep || child.pid().number() == 0 {
                    break status;
                }
                std::thread::yield_now();
            };
            let what = format!("{namespaces:?} {index}: {status}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, set), "0000000000000000", "{set} of {what}");
            }
            // The bounding set counts at execve(2) alone, which the filter denies, and which adds nothing to no
            // capability under no_new_privs.
            assert_eq!(field(&status, "NoNewPrivs"), "1", "{what}");
            // Stopped, it would have the kernel send SIGHUP to the caller's whole group.
            assert_ne!(field(&status, "NSpgid").split('\t').next(), Some(own_group.as_str()), "{what}");
            // The files in /proc of a process that is not dumpable belong to root.
            let owner = fs::metadata(format!("/proc/{staying}/environ")).unwrap().uid();
            assert_eq!(owner, 0, "{what}");
            looked_at += 1;
        }
    }
    tell("looked at", looked_at);
    0
}

/// Attack 43: The process that stays has no capability and a filter, whichever namespaces there are.
#[apply(test)]
fn set_up_processes_that_stay_have_no_right_in_any_configuration() {
    let output = host_output(&mut payload_on_host("caller_of_every_configuration"));
    let looked_at: u32 = Attempts::parse(&output).get("looked at").parse().unwrap();
    assert!(looked_at >= 128, "{looked_at}");
}

/// Has PID 1, and a child of its own, make system calls, and tells what they answered.
#[cfg(target_arch = "x86_64")]
fn inject_into_init(args: &[String]) -> i32 {
    let status = fs::read_to_string("/proc/1/status").unwrap();
    tell("capabilities of init", field(&status, "CapEff"));
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let target = if args[0] == "init" { 1 } else { child.id() as i32 };
    tell("getppid", sys::inject(target, libc::SYS_getppid, [0; 3]).map(|_| ()));
    // The program's own filter would let it do that.
    tell(
        "socket",
        sys::inject(target, libc::SYS_socket, [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0]).map(|_| ()),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn inject_into_init(_: &[String]) -> i32 {
    1
}

/// Attack 43: A program that keeps CAP_SYS_PTRACE in the caller's user namespace traces PID 1, and has it make calls.
#[apply(test)]
#[only(Root)]
#[skip(unless_tracing)]
fn a_program_that_traces_init_gains_nothing() {
    let kept = Capabilities::none().keep([Capability::SysPtrace]);
    let all = Namespaces::all() - Namespaces::TIME - Namespaces::USER;
    let tracer = unfiltered(&sandbox()).namespaces(all).capabilities(kept);
    let run = |target: &str| {
        let output = tracer.output(payload("inject_into_init").arg(target)).unwrap();
        assert!(output.outcome.success(), "{output:?}");
        Attempts::parse(&crate::support::text(&output.stdout))
    };
    let other = run("child");
    assert_eq!((other.get("getppid"), other.get("socket")), ("Ok(())", "Ok(())"), "a process without a filter obeys");
    let init = run("init");
    assert_eq!(init.get("capabilities of init"), "\"0000000000000000\"");
    for call in ["getppid", "socket"] {
        assert_eq!(init.get(call), "Err(ENOSYS)", "it is traced, and its filter denies {call}");
    }
}

/// Traces a process, and does nothing more.
fn trace(args: &[String]) -> i32 {
    const SEIZE: i64 = 0x4206;
    sys::numbers(libc::SYS_ptrace, &[SEIZE, args[0].parse().unwrap(), 0, 0]).unwrap();
    println!("traces");
    loop {
        std::thread::park();
    }
}

/// Attack 52: a process beside the caller traces the program, so that the kernel tells nobody else of its end.
#[apply(test)]
fn a_program_whose_status_a_tracer_keeps_is_given_up() {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    let mut child = sandbox().spawn(&command).unwrap();
    let mut tracer = Bystander::start(payload_on_host("trace").arg(child.pid().number().to_string()));
    assert_eq!(tracer.line(), "traces");
    child.kill().unwrap();
    let start = Instant::now();
    let error = child.wait().unwrap_err();
    assert!(start.elapsed() < at_most(Duration::from_secs(15)), "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unkillable, "{error:?}");
    let expected =
        format!("it is traced by process {}: kill that process, or detach it (ptrace(2), PTRACE_DETACH)", tracer.pid());
    assert!(error.to_string().ends_with(&expected), "{error}");
    // In a group it keeps nobody from waiting for the others.
    let mut group = stockade::child::ChildSet::new();
    group.add(child);
    let other = group.add(sandbox().spawn(Command::new("true").stdin(Stdio::null())).unwrap());
    assert_eq!(group.wait_next().unwrap_err(), error);
    let (place, outcome) = group.wait_next().unwrap().unwrap();
    assert!(place == other && outcome.success(), "{outcome}");
    assert!(group.wait_next().unwrap().is_none());
}

/// Stops every other process that it sees, again and again.
fn stop_everybody(_: &[String]) -> i32 {
    println!("stops");
    loop {
        let _ = sys::numbers(libc::SYS_kill, &[-1, libc::SIGSTOP.into()]);
    }
}

/// A sandbox of the namespaces of another one.
fn joining(first: u32) -> Sandbox {
    let (uid, gid) = ids_of(first);
    let kinds = Namespaces::USER | Namespaces::PID | Namespaces::IPC;
    let namespaces = Namespaces::MOUNT | Namespaces::UTS;
    Sandbox::new()
        .namespaces(namespaces)
        .join(kinds, NamespaceRef::pid(first))
        .identity(Identity::new().uid(uid).gid(gid))
}

/// Attack 52: A member of the namespaces that a second command joins stops its process.
#[apply(test)]
fn a_member_that_stops_a_second_command_delays_it_to_the_deadline_at_most() {
    const LIMIT: Duration = Duration::from_millis(500);
    let mut first = sandbox().spawn(payload("stop_everybody").stdout(Stdio::piped())).unwrap();
    line(first.stdout.as_mut().unwrap());
    let mut stopped = 0;
    for _ in 0..40 {
        let begun = Instant::now();
        match joining(first.pid().number()).setup_timeout(LIMIT).spawn(Command::new("true")) {
            // The attacker was too late.
            Ok(child) => drop(child),
            Err(error) if error.kind() == ErrorKind::SetupTimedOut => {
                let text = error.to_string();
                assert!(text.contains(": the set-up timeout of 500ms expired: "), "{text}");
                assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
                stopped += 1;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(begun.elapsed() < LIMIT + at_most(Duration::from_secs(2)), "{:?}", begun.elapsed());
        if stopped == 3 {
            break;
        }
    }
    assert_ne!(stopped, 0, "no process was stopped: the attack must work here, or its failure proves nothing");
}

/// A caller with two programs in one PID namespace, which waits for the first, and then for the second.
fn caller_of_two(_: &[String]) -> i32 {
    let mut first = Sandbox::new().spawn(Command::new("cat").stdin(Stdio::piped())).unwrap();
    let mut second = joining(first.pid().number()).spawn(Command::new("sleep").arg("1000")).unwrap();
    tell("first", first.wait().unwrap().termination);
    let outcome = second.wait().unwrap();
    tell("second", outcome.termination);
    tell("has usage", outcome.usage.cpu_time.is_some());
    tell("children", children());
    0
}

/// Attack 52: A second command was joined to the first, and nobody waits for it.
#[apply(test)]
fn a_wait_depends_on_no_other_child() {
    let mut caller = Bystander::start(&mut payload_on_host("caller_of_two"));
    let told = Attempts::parse(&caller.finish(at_most(Duration::from_secs(8))));
    assert_eq!(told.get("first"), "Exited(0)");
    assert_eq!(told.get("second"), "Signaled { signal: Signal(9), core: false }");
    assert_eq!((told.get("has usage"), told.get("children")), ("true", "[]"));
}

/// A caller with a child that looks like what a program has given away: the zombie of another PID namespace, without
/// new privileges. Meanwhile a program gives it children.
fn caller_with_a_child_of_its_own(_: &[String]) -> i32 {
    let namespaces = libc::CLONE_NEWPID | if is_root() { 0 } else { libc::CLONE_NEWUSER };
    let own = match sys::clone(namespaces | libc::SIGCHLD) {
        Ok(0) => {
            let _ = nix::sys::prctl::set_no_new_privs();
            sys::exit(7);
        }
        own => nix::unistd::Pid::from_raw(own.unwrap() as i32),
    };
    let given = unfiltered(&sandbox()).output(payload("give_away_children").arg("plain")).unwrap();
    println!("{}", crate::support::text(&given.stdout));
    tell("children", children() == [own.as_raw()]);
    tell(
        "own",
        nix::sys::wait::waitpid(own, None).map(|status| format!("{status:?}").replace(&own.to_string(), "own")),
    );
    0
}

/// Attack 53: Children that a program gives to the caller are reaped, and nobody else's.
#[apply(test)]
fn a_child_of_the_callers_own_keeps_its_status() {
    let mut caller = Bystander::start(&mut payload_on_host("caller_with_a_child_of_its_own"));
    let told = Attempts::parse(&caller.finish(at_most(Duration::from_secs(10))));
    told.assert_done(&["child 0", "child 1", "child 5"]);
    assert_eq!(told.get("children"), "true");
    assert_eq!(told.get("own"), "Ok(\"Exited(Pid(own), 7)\")");
}
