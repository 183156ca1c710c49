//! Properties of every configuration: it is plain data, and compiling it returns a plan or an error with a message.
//!
//! This has its own process, since it starts no program and so does not run as two users.

#[path = "support/strategies.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod strategies;

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stockade::namespaces::TimeOffsets;
use stockade::{Command, Error, ErrorKind, Namespaces, Sandbox, Stdio};
use strategies::{identity, namespaces, path, root};

/// A sandbox without limits, policies and other processes, in most cases one that can be set up.
fn sandbox() -> impl Strategy<Value = Sandbox> {
    let offsets = proptest::option::weighted(0.1, (any::<i64>(), any::<i64>()));
    let namespaces = prop_oneof![8 => Just(Namespaces::all() - Namespaces::TIME), 1 => namespaces()];
    let name = prop_oneof![8 => "[a-z]{1,9}", 1 => "\\PC{0,80}"];
    (namespaces, root(), identity(), name, offsets).prop_map(|(namespaces, root, identity, name, offsets)| {
        let sandbox =
            Sandbox::new().namespaces(namespaces).root(root).identity(identity).hostname(&name).domain_name(name);
        match offsets {
            Some((monotonic, boottime)) => {
                sandbox.time_offsets(TimeOffsets::new().monotonic(monotonic).boottime(boottime))
            }
            None => sandbox,
        }
    })
}

/// Whether a system call failed while a sandbox was set up.
fn is_set_up(error: &Error) -> bool {
    error.call().is_some() && matches!(error.kind(), ErrorKind::SetupFailed | ErrorKind::Unsupported)
}

proptest! {
    #[test]
    fn a_plan_is_made_or_refused_with_words(sandbox in sandbox(), cwd in path(), args in vec("\\PC{0,9}", 0..3)) {
        match sandbox.plan(Command::new("true").args(args).current_dir(cwd)) {
            Ok(plan) => prop_assert!(plan.to_string().contains("execve")),
            Err(error) => prop_assert!(is_set_up(&error) || !error.hint().unwrap_or_default().is_empty(), "{}", error),
        }
    }
}

#[test]
fn a_plan_is_launched_or_fails_with_a_typed_error() {
    let mut runner = TestRunner::default();
    let launched = Cell::new(0u32);
    let result = runner.run(&sandbox(), |sandbox| {
        let Ok(plan) = sandbox.plan(Command::new("true").stdout(Stdio::null())) else { return Ok(()) };
        match plan.spawn() {
            Ok(mut child) => {
                drop(child.wait().expect("an outcome"));
                launched.set(launched.get() + 1);
            }
            Err(error) if is_set_up(&error) => prop_assert!(error.step().is_some_and(|step| !step.is_empty())),
            Err(error) => {
                let of_program = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotExecutable);
                prop_assert!(of_program, "{}", error);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A strategy of sandboxes that are all refused tests nothing.
    assert!(launched.get() > 0);
}
