//! Spans and events for the crate tracing: `docs/tracing.md`.

use std::time::Duration;

use stockade::{Command, Layer, Limits, Sandbox, Seccomp};
use tracing::info_span;

use crate::support::subscriber::{Collector, Seen};
use crate::support::{payload_on_host, text, unless_root_with_groups};

/// Spans and events of a function.
fn seen(act: impl FnOnce()) -> Vec<Seen> {
    let collector = Collector::default();
    tracing::subscriber::with_default(collector.clone(), act);
    collector.seen()
}

#[track_caller]
fn only<'a>(seen: &'a [Seen], name: &str) -> &'a Seen {
    let found: Vec<&Seen> = seen.iter().filter(|seen| seen.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {seen:#?}");
    found[0]
}

#[apply(test)]
fn a_run_has_spans_with_its_program_and_outcome() {
    let mut pid = 0;
    let seen = seen(|| {
        let mut child = Sandbox::new().spawn(Command::new("sh").args(["-c", "exit 3"])).expect("a child");
        pid = child.pid().number();
        let outcome = child.wait().expect("an outcome");
        assert_eq!(child.wait().expect("the same outcome"), outcome);
    });
    let [compile, spawn, wait] = ["compile", "spawn", "wait"].map(|name| only(&seen, name));
    assert_eq!((compile.field("program"), compile.within.as_str()), ("sh", "spawn"));
    assert_eq!((spawn.field("program"), spawn.field("pid")), ("sh", &*pid.to_string()));
    assert_eq!((wait.field("pid"), wait.field("termination")), (&*pid.to_string(), "exited with 3"));
    assert!(wait.field("wall_time").parse::<f64>().is_ok_and(|seconds| seconds > 0.0), "{wait:?}");
    assert!(!spawn.fields.contains_key("session") && !spawn.fields.contains_key("error"), "{spawn:?}");
    assert!(seen.iter().all(|seen| seen.is_closed == seen.is_span), "{seen:?}");
}

#[apply(test)]
fn a_spawn_that_fails_has_its_error() {
    let seen = seen(|| drop(Sandbox::new().spawn(Command::new("/no/such/program")).expect_err("no program")));
    let spawn = only(&seen, "spawn");
    assert!(spawn.field("error").contains("/no/such/program") && !spawn.fields.contains_key("pid"), "{spawn:?}");
}

#[apply(test)]
fn a_compiled_sandbox_has_spans_as_well() {
    let seen = seen(|| {
        let compiled = Sandbox::new().plan(Command::new("true")).expect("a plan");
        assert!(compiled.spawn().expect("a child").wait().expect("an outcome").success());
    });
    assert_eq!((only(&seen, "compile").within.as_str(), only(&seen, "spawn").field("program")), ("", "true"));
}

#[apply(test)]
fn the_commands_of_a_session_have_its_number() {
    let seen = seen(|| {
        let session = Sandbox::new().start().expect("a session");
        assert!(session.output(Command::new("true")).expect("an output").outcome.success());
    });
    let (start, spawn) = (only(&seen, "start"), only(&seen, "spawn"));
    assert_eq!(start.field("session"), spawn.field("session"));
    assert!(start.field("session").parse::<u32>().is_ok_and(|pid| pid > 0), "{start:?}");
    assert_eq!(only(&seen, "wait").field("termination"), "exited with 0");
    let compiled: Vec<&str> =
        seen.iter().filter(|seen| seen.name == "compile").map(|compile| compile.within.as_str()).collect();
    assert_eq!(compiled, ["start", "spawn"]);
}

#[apply(test)]
fn exceeded_limits_are_events() {
    let seen = seen(|| {
        let slow = Sandbox::new().limits(Limits::new().wall_time(Duration::from_millis(50)));
        drop(slow.status(Command::new("sleep").arg("1000")).expect("an outcome"));
        let loud = Sandbox::new().limits(Limits::new().stdout_max(10));
        drop(loud.output(Command::new("yes")).expect("an output"));
    });
    let limits: Vec<&Seen> = seen.iter().filter(|seen| seen.name == "limit exceeded").collect();
    assert_eq!(limits.iter().map(|limit| limit.field("limit")).collect::<Vec<_>>(), ["wall_time", "output"]);
    assert!(limits.iter().all(|limit| limit.within == "wait" && limit.fields.contains_key("pid")), "{limits:?}");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_groups)]
fn denied_processes_and_leaked_ones_are_events() {
    let seen = seen(|| {
        let sandbox = Sandbox::new().map_cgroup(|cgroup| cgroup.pids_max(4));
        let script = "sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & true";
        drop(sandbox.status(Command::new("sh").args(["-c", script])).expect("an outcome"));
    });
    let denied = only(&seen, "limit exceeded");
    assert_eq!(denied.field("limit"), "pids");
    assert!(denied.field("denied").parse::<u64>().is_ok_and(|denied| denied > 0), "{denied:?}");
    // It has the name of the shell until it is executed.
    let is_named = |seen: &Seen| seen.name == "process leaked" && ["sleep", "sh"].contains(&seen.field("name"));
    assert!(seen.iter().any(is_named), "{seen:?}");
}

#[apply(test)]
fn denied_system_calls_are_events() {
    let seen = seen(|| {
        let sandbox = Sandbox::new().seccomp(Seccomp::new().deny(["mkdir", "mkdirat"]).record());
        drop(sandbox.output(Command::new("mkdir").arg("/tmp/new\n")).expect("an output"));
    });
    let denied = only(&seen, "system call denied");
    assert!(denied.field("call").starts_with("mkdir") && denied.within == "wait", "{denied:?}");
    assert_eq!((denied.field("path"), denied.field("count")), (r"/tmp/new\n", "1"));
}

#[apply(test)]
fn layers_that_are_not_enforced_are_events() {
    let seen = seen(|| {
        // As on a host without Landlock.
        let sandbox = Sandbox::new().as_on_kernel(5, 10).map_landlock(|rules| rules.read_only("/"));
        drop(sandbox.best_effort([Layer::Landlock]).status(Command::new("true")).expect("an outcome"));
    });
    let missing: Vec<&Seen> = seen.iter().filter(|seen| seen.name == "layer unenforced").collect();
    assert!(missing.iter().any(|seen| seen.field("layer") == "landlock" && seen.within == "spawn"), "{seen:#?}");
    assert!(missing.iter().all(|seen| !seen.field("reason").is_empty() && !seen.field("requested").is_empty()));
    // Sockets of the host can be reached on such a kernel.
    assert!(seen.iter().any(|seen| seen.name == "gap" && seen.field("kind") == "Sockets"), "{seen:#?}");
}

#[apply(test)]
fn no_field_has_a_secret() {
    let seen = seen(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo secret-output; exit 1", "secret-argument"]);
        command.env("TOKEN", "secret-variable").stdin_bytes("secret-input");
        let sandbox = Sandbox::new().env("KEY", "secret-of-sandbox").map_root(|root| root.file("/key", "secret-file"));
        assert!(sandbox.output(&command).expect("an output").stdout.starts_with(b"secret-input"));
        let session = sandbox.start().expect("a session");
        assert!(session.output(&command).expect("an output").stdout.starts_with(b"secret-input"));
    });
    assert!(seen.len() > 6);
    assert!(!format!("{seen:?}").contains("secret"), "{seen:#?}");
}

payloads![("traced-task", traced_task)];

/// Runs programs by the async interface in a span, and prints the spans that are in it. The subscriber is that of the
/// whole process, since other threads are involved.
fn traced_task(_: &[String]) -> i32 {
    let collector = Collector::default();
    tracing::subscriber::set_global_default(collector.clone()).expect("the only subscriber");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limited = Sandbox::new().limits(Limits::new().wall_time(Duration::from_millis(50)));
    // The runtime has one thread, so that the span is that of the only task.
    info_span!("caller").in_scope(|| {
        runtime.block_on(async {
            drop(stockade::tokio::output(&limited, Command::new("sleep").arg("1000")).await.expect("an output"));
            drop(stockade::tokio::status(&Sandbox::new(), Command::new("true")).await.expect("an outcome"));
        });
    });
    for seen in collector.seen() {
        println!("{} in {:?}", seen.name, seen.within);
    }
    0
}

#[apply(test)]
fn spans_of_async_functions_are_in_that_of_their_task() {
    let output = payload_on_host("traced-task").output().expect("the payload");
    let printed = text(&output.stdout);
    let count = |line: &str| printed.lines().filter(|printed| *printed == line).count();
    assert_eq!((count(r#"spawn in "caller""#), count(r#"wait in "caller""#)), (2, 2), "{printed}");
    assert_eq!((count(r#"compile in "spawn""#), count(r#"limit exceeded in "wait""#)), (2, 1), "{printed}");
    assert!(output.status.success(), "{output:?}");
}
