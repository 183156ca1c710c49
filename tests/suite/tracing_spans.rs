//! Spans and events for the crate tracing: `docs/tracing.md`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use stockade::{Command, Layer, Limits, Sandbox, Seccomp};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, info_span};
use tracing_core::span::Current;

use crate::support::{payload_on_host, text, unless_root_with_groups};

/// A span or an event.
#[derive(Clone, Debug, Default)]
struct Seen {
    is_span: bool,
    name: String,
    /// The name of the span that it is in.
    within: String,
    fields: BTreeMap<String, String>,
    is_closed: bool,
}

impl Seen {
    #[track_caller]
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.name = value;
        } else {
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

/// A subscriber that keeps everything of the crate's.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    seen: Vec<Seen>,
    metadata: Vec<Option<&'static Metadata<'static>>>,
    entered: Vec<(ThreadId, usize)>,
    references: BTreeMap<usize, usize>,
}

impl Kept {
    fn current(&self) -> Option<usize> {
        let own = std::thread::current().id();
        self.entered.iter().rev().find(|(thread, _)| *thread == own).map(|(_, span)| *span)
    }

    fn keep(&mut self, mut seen: Seen, metadata: Option<&'static Metadata<'static>>) -> usize {
        seen.within = self.current().map(|span| self.seen[span].name.clone()).unwrap_or_default();
        self.seen.push(seen);
        self.metadata.push(metadata);
        self.seen.len() - 1
    }
}

fn index(id: &Id) -> usize {
    id.into_u64() as usize - 1
}

fn id(index: usize) -> Id {
    Id::from_non_zero_u64(NonZeroU64::MIN.saturating_add(index as u64))
}

impl Collector {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().expect("no panic"))
    }

    fn seen(&self) -> Vec<Seen> {
        self.with(|kept| kept.seen.clone())
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "stockade" || metadata.name() == "caller"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = Seen { is_span: true, name: span.metadata().name().to_owned(), ..Seen::default() };
        span.record(&mut seen);
        let index = self.with(|kept| kept.keep(seen, Some(span.metadata())));
        self.with(|kept| kept.references.insert(index, 1));
        id(index)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.with(|kept| values.record(&mut kept.seen[index(span)]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        self.with(|kept| kept.keep(seen, None));
    }

    fn enter(&self, span: &Id) {
        self.with(|kept| kept.entered.push((std::thread::current().id(), index(span))));
    }

    fn exit(&self, span: &Id) {
        let (own, left) = (std::thread::current().id(), index(span));
        self.with(|kept| {
            let last = kept.entered.iter().rposition(|entered| *entered == (own, left)).expect("it was entered");
            kept.entered.remove(last);
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.with(|kept| *kept.references.get_mut(&index(span)).expect("a span") += 1);
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        self.with(|kept| {
            let count = kept.references.get_mut(&index(&span)).expect("a span");
            *count -= 1;
            kept.seen[index(&span)].is_closed = *count == 0;
            *count == 0
        })
    }

    fn current_span(&self) -> Current {
        self.with(|kept| match kept.current() {
            Some(current) => Current::new(id(current), kept.metadata[current].expect("a span")),
            None => Current::none(),
        })
    }
}

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
