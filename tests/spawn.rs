//! What a spawn gives and what it promises, as a user of the crate sees it.

mod support;

use std::process::ExitCode;

use stockade::{Command, Sandbox, Termination};
use support::{stdout, text};

fn main() -> ExitCode {
    support::run(tests![exit_codes_come_back, output_is_collected], &[])
}

fn exit_codes_come_back() {
    let outcome = Sandbox::new().status(Command::new("sh").args(["-c", "exit 3"])).unwrap();
    assert_eq!(outcome.termination, Termination::Exited(3));
}

fn output_is_collected() {
    assert_eq!(stdout(&Sandbox::new(), "echo hello"), "hello");
    let output = support::sh(&Sandbox::new(), "echo out; echo err >&2");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
}
