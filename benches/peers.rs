//! What it takes to start the command `stockade run`, against bubblewrap with the same isolation: as processes, in turn, in
//! one run. Prints the ratio of the medians; `-- --test` runs everything once.
//!
//! Both create all namespaces but that of time, a root with `/usr` read-only, new `/proc`, `/dev` and `/tmp`, and no filter
//! of system calls. stockade does more: the program gets a user of its own, loses its capabilities, and is not process 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often each is run.
const ROUNDS: usize = 300;
/// What the ratio to bubblewrap should be at most.
const GOAL: f64 = 1.0;

/// A static program that does nothing, in a directory.
fn program(folder: &Path) -> PathBuf {
    let (source, path) = (folder.join("true.c"), folder.join("true"));
    fs::write(&source, "int main(void) { return 0; }\n").expect("source");
    let cc = Command::new("cc").args(["-O2", "-static", "-o"]).args([&path, &source]).status();
    assert!(cc.expect("cc (Debian: gcc, libc6-dev)").success(), "cc failed");
    path
}

fn stockade(folder: &Path, filter: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
    command.args(["run", "--root", "empty", "--ro", "/usr", "--tmpfs", "/tmp", "--seccomp", filter, "--ro"]);
    command.arg(format!("{}:/program", folder.display())).args(["--", "/program/true"]);
    command
}

fn bubblewrap(folder: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
    ]);
    command.args(["--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind"]).arg(folder).args([
        "/program",
        "--",
        "/program/true",
    ]);
    command
}

/// Runs a command once.
fn run(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status();
    let time = start.elapsed();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
    time
}

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { ROUNDS };
    if Command::new("bwrap").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("not measured: bwrap is not installed (Debian: bubblewrap)");
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    let program = program(folder.path());
    let mut commands = [
        ("the program alone", Command::new(&program)),
        ("stockade run --seccomp unconfined", stockade(folder.path(), "unconfined")),
        ("bwrap", bubblewrap(folder.path())),
        ("stockade run", stockade(folder.path(), "default")),
        ("stockade --version", Command::new(env!("CARGO_BIN_EXE_stockade"))),
    ];
    commands[4].1.arg("--version").stdout(Stdio::null());
    let mut times = commands.each_ref().map(|_| vec![]);
    for _ in 0..rounds {
        for ((_, command), times) in commands.iter_mut().zip(&mut times) {
            times.push(run(command));
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    });
    for ((name, _), median) in commands.iter().zip(medians) {
        println!("{name:<36} {median:6.2} ms  {:5.2} of bwrap", median / medians[2]);
    }
    let ratio = medians[1] / medians[2];
    println!("stockade run / bwrap: {ratio:.2} (goal: at most {GOAL})");
}
