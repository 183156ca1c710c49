//! What a filter adds to each system call of the program: a program that times calls, in sandboxes with and without
//! one, in turns. The least times are compared, since all that another program does to this one makes it slower.
//! `-- --test` runs everything once.

use std::fs;
use std::path::{Path, PathBuf};

use stockade::mount::Bind;
use stockade::{Command, Root, Sandbox, Seccomp};
use tempfile::TempDir;

/// What is called: no rule is for it; no rule is for it, in the middle of the table; rules look at its arguments.
const CALLS: [&str; 3] = ["getppid", "getpriority", "ioctl"];

/// What a filter should add to a call at most, in nanoseconds. Any filter at all takes the kernel its time, since a
/// call then goes through `syscall_trace_enter`: the rest is what the filter itself takes.
const GOAL: f64 = 40.0;

/// Nanoseconds for each of the calls.
type Times = [f64; CALLS.len()];

/// No filter, one of a single rule, by which the kernel's own share is known, and the presets.
fn policies() -> [(&'static str, Seccomp); 6] {
    [
        ("Seccomp::unconfined()", Seccomp::unconfined()),
        ("one rule for swapon", Seccomp::deny_list().deny(["swapon"])),
        ("Seccomp::new()", Seccomp::new()),
        ("Seccomp::new(), recording", Seccomp::new().record()),
        ("pure_computation()", Seccomp::pure_computation()),
        ("container()", Seccomp::container()),
    ]
}

/// The program, linked statically.
fn build(folder: &TempDir) -> PathBuf {
    let [source, program] = ["calls.c", "calls"].map(|name| folder.path().join(name));
    fs::write(&source, include_str!("calls.c")).expect("source");
    let cc = std::process::Command::new("cc").args(["-O2", "-static", "-o"]).args([&program, &source]).status();
    assert!(cc.expect("cc (Debian: gcc, libc6-dev)").success(), "cc failed");
    program
}

/// Runs the program once.
fn times(program: &Path, policy: &Seccomp, calls: u32) -> Times {
    let root = Root::host().with(Bind::new(program, "/program").unmapped());
    let sandbox = Sandbox::new().root(root).seccomp(policy.clone());
    let output = sandbox.output(Command::new("/program").arg(calls.to_string())).expect("a sandbox");
    assert!(output.outcome.success(), "{}", output.outcome);
    let said = String::from_utf8(output.stdout).expect("text");
    let times: Vec<f64> = said.split_whitespace().map(|time| time.parse().expect("a number")).collect();
    times.try_into().expect("a time for each call")
}

/// Prints what each policy adds to what a call costs without a filter.
fn compare(program: &Path, rounds: u32, calls: u32) {
    let policies = policies();
    let mut least = [[f64::INFINITY; CALLS.len()]; 6];
    for _ in 0..rounds {
        for ((_, policy), least) in policies.iter().zip(&mut least) {
            let times = times(program, policy, calls);
            least.iter_mut().zip(times).for_each(|(least, time)| *least = least.min(time));
        }
    }
    println!("\nwhat a filter adds to a system call (least of {rounds} rounds, goal {GOAL} ns)");
    println!("{:<28}{}", "", CALLS.map(|call| format!("{call:>14}")).concat());
    let cells = |times: Times, sign: &str| times.map(|time| format!("{:>14}", format!("{sign}{time:.1} ns"))).concat();
    println!("{:<28}{}", policies[0].0, cells(least[0], ""));
    for ((name, _), times) in policies.iter().zip(least).skip(1) {
        let added = std::array::from_fn(|call| times[call] - least[0][call]);
        println!("{name:<28}{}", cells(added, "+"));
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let program = build(&folder);
    let smoke = std::env::args().any(|arg| arg == "--test");
    let (rounds, calls) = if smoke { (1, 100) } else { (10, 20_000) };
    compare(&program, rounds, calls);
}
