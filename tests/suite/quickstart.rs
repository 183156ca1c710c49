//! The example `quickstart`, which a reader of the README runs first.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command as Host, Output};

use crate::support::{self, example, exists, shared_dir, text};

/// A reason to skip what takes a C compiler.
fn unless_cc() -> Option<String> {
    let missing = Host::new("cc").arg("--version").output().err();
    missing.map(|error| format!("no C compiler, cc: {error}"))
}

fn unless_user_with_cc() -> Option<String> {
    support::unless_user().or_else(unless_cc)
}

#[apply(test)]
#[skip(unless_cc)]
fn quickstart_runs_from_any_directory_and_leaves_nothing() {
    let temporary = shared_dir();
    for directory in ["/", "/proc", temporary.path().to_str().unwrap()] {
        let mut host = Host::new(example("quickstart"));
        let output = host.current_dir(directory).env("TMPDIR", temporary.path()).output().expect("the example");
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{}\n{shown}\n{}", output.status, text(&output.stderr));
        assert_eq!(shown.matches("exited with 0").count(), 2, "{shown}");
        assert_eq!(verdicts(&output, "   "), ["denied"; 5], "{shown}");
        assert!(shown.ends_with("All 5 attempts were denied."), "{shown}");
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// The first words of the lines about the attempts.
fn verdicts(output: &Output, before: &str) -> Vec<String> {
    let shown = text(&output.stdout);
    let lines = shown.lines().filter_map(|line| line.strip_prefix(before)?.split_whitespace().next());
    lines.filter(|word| ["denied", "done"].contains(word)).map(str::to_owned).collect()
}

/// Root could do all five, and does not try it here.
#[apply(test)]
#[only(User)]
#[skip(unless_user_with_cc)]
fn the_attempts_succeed_where_nothing_isolates() {
    let dir = shared_dir();
    let program = dir.path().join("attempts");
    let source = dir.path().join("attempts.c");
    fs::write(&source, include_str!("../../examples/quickstart/attempts.c")).unwrap();
    let compiled =
        Host::new("cc").args(["-Wall", "-Wextra", "-Werror", "-o"]).args([&program, &source]).output().unwrap();
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let output = Host::new(&program).arg(dir.path()).args([name.trim_end(), &port]).output().unwrap();
    // The home, the processes and the network are there; /usr and root are not for an ordinary user.
    assert_eq!(verdicts(&output, ""), ["done", "done", "done", "denied", "denied"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!exists("/usr/written-by-attempts"));
}
