//! The interpreter alone, on each architecture. It is assembled from the source of the crate with a table of the test,
//! and run in emulation on a machine of another architecture.

use crate::support;
use std::path::Path;
use std::process::Command;

/// An architecture: its assembler and linker, how its programs are run here, and its numbers of the system calls that
/// the table makes.
struct Architecture {
    source: &'static str,
    tools: [&'static str; 2],
    runner: &'static [&'static str],
    numbers: [(&'static str, u32); 6],
}

const X86_64: Architecture = Architecture {
    source: include_str!("../../src/sys/x86_64.s"),
    tools: ["as", "ld"],
    runner: if cfg!(target_arch = "x86_64") { &[] } else { &["qemu-x86_64"] },
    numbers: [("WRITE", 1), ("CLOSE", 3), ("READ", 0), ("TIMER_CREATE", 283), ("TIMER_SET", 286), ("EXIT_GROUP", 231)],
};

const AARCH64: Architecture = Architecture {
    source: include_str!("../../src/sys/aarch64.s"),
    tools: ["aarch64-linux-gnu-as", "aarch64-linux-gnu-ld"],
    runner: if cfg!(target_arch = "aarch64") { &[] } else { &["qemu-aarch64"] },
    numbers: [("WRITE", 64), ("CLOSE", 57), ("READ", 63), ("TIMER_CREATE", 85), ("TIMER_SET", 86), ("EXIT_GROUP", 94)],
};

/// A reason to skip an architecture: a tool that is missing.
fn missing(architecture: &Architecture) -> Option<String> {
    let tools = architecture.tools.iter().chain(architecture.runner);
    let mut absent = tools.filter(|tool| Command::new(tool).arg("--version").output().is_err());
    absent.next().map(|tool| format!("{tool} is not installed (Debian: binutils-aarch64-linux-gnu, qemu-user)"))
}

fn without_x86_64() -> Option<String> {
    missing(&X86_64)
}

fn without_aarch64() -> Option<String> {
    missing(&AARCH64)
}

fn run(command: &mut Command) -> std::process::Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn takes_every_way(architecture: &Architecture) {
    let dir = support::shared_dir();
    let file = |name: &str| dir.path().join(name);
    let assemble = |name: &str, source: &str| {
        let (text, object) = (file(&format!("{name}.s")), file(&format!("{name}.o")));
        std::fs::write(&text, source).expect("source");
        let numbers = architecture.numbers.iter().map(|(symbol, number)| format!("--defsym={symbol}={number}"));
        succeed(Command::new(architecture.tools[0]).args(numbers).arg("-o").args([&object, &text]));
        object
    };
    let objects =
        [assemble("interpreter", architecture.source), assemble("table", include_str!("interpreter/table.s"))];
    let program = file("program");
    let places = ["-Ttext=0x400000", "--section-start=.memory=0x410000", "--entry=stockade_image_entry"];
    succeed(Command::new(architecture.tools[1]).args(places).arg("-o").arg(&program).args(&objects));
    check(&program, architecture.runner);
}

fn check(program: &Path, runner: &[&str]) {
    let output = match runner {
        [] => run(&mut Command::new(program)),
        [emulator, ..] => run(Command::new(emulator).arg(program)),
    };
    let report = [(5u64 << 32) + 13, libc::EBADF as u64, 77, 78].map(u64::to_le_bytes);
    let expected = [&b"abcd"[..], report.as_flattened()].concat();
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected));
    assert_eq!(output.status.code(), Some(127));
}

#[apply(test)]
#[skip(without_x86_64)]
fn x86_64_takes_every_way_through_a_table() {
    takes_every_way(&X86_64);
}

#[apply(test)]
#[skip(without_aarch64)]
fn aarch64_takes_every_way_through_a_table() {
    takes_every_way(&AARCH64);
}
