//! Memory of the caller that a program can fill: by its output, denied calls, leaked processes, and what is learned
//! from it.

use std::fs::File;
use std::time::Duration;

use stockade::seccomp::Action;
use stockade::{Cgroup, Command, Limits, Sandbox, Seccomp, Stdio};

use crate::attacks::common::{alone, sandbox};
use crate::attacks::sys;
use crate::support::{at_most, listed, payload, sh, slowness};
use stockade::Errno;

payloads![("refused_calls", refused_calls), ("many_paths", many_paths)];

const KEPT: usize = 16 << 20;

/// Attack 54: A program writes to both streams without end.
#[apply(test)]
fn only_part_of_excessive_output_is_kept() {
    let flood = "head -c 40000000 /dev/zero & head -c 30000000 /dev/zero >&2; wait";
    let unlimited = Limits::new().stdout_max(u64::MAX).stderr_max(u64::MAX);
    let output = sh(&Sandbox::new().limits(unlimited), flood);
    assert_eq!((output.stdout.len(), output.stderr.len()), (40_000_000, 30_000_000), "without a limit all is kept");
    assert!(!output.stdout_truncated && !output.stderr_truncated);

    let output = sh(&Sandbox::new(), flood);
    assert!(output.outcome.success(), "the program is not held up: {}", output.outcome);
    assert_eq!((output.stdout.len(), output.stderr.len()), (KEPT, KEPT));
    assert!(output.stdout_truncated && output.stderr_truncated);
    let usage = output.outcome.usage;
    assert_eq!(usage.stdout.map(|bytes| bytes.value), Some(40_000_000));
    assert_eq!(usage.stderr.map(|bytes| bytes.value), Some(30_000_000));

    let exact = format!("head -c {KEPT} /dev/zero; echo error >&2");
    let output = sh(&Sandbox::new(), &exact);
    assert_eq!((output.stdout.len(), output.stdout_truncated), (KEPT, false));
    assert_eq!((output.stderr.as_slice(), output.stderr_truncated), (b"error\n".as_slice(), false));

    // The same of a child whose streams the caller has piped itself.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", flood]).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = Sandbox::new().spawn(&command).unwrap().wait_with_output().unwrap();
    assert_eq!((output.stdout.len(), output.stdout_truncated, output.stderr_truncated), (KEPT, true, false));
}

fn refused_calls(args: &[String]) -> i32 {
    for number in 0..args[0].parse().unwrap() {
        let _ = sys::numbers(libc::SYS_getpriority, &[0, number]);
    }
    0
}

/// Attack 54: A program makes refused calls, each another one.
#[apply(test)]
fn refused_calls_beyond_the_list_are_counted() {
    let sandbox = sandbox().seccomp(Seccomp::new().on(["getpriority"], Action::Errno(Errno::EPERM)).record());
    for (calls, kept, omitted) in [(1000, 1000, 0), (3000, 1024, 1976)] {
        let outcome = sandbox.output(payload("refused_calls").arg(calls.to_string())).unwrap().outcome;
        assert!(outcome.success(), "{outcome}");
        assert_eq!((outcome.violations.len(), outcome.omitted.violations), (kept, omitted));
        assert_eq!(format!("{outcome:#}").contains("1976 more"), omitted > 0);
    }
}

/// Attack 54: A program leaves more processes behind than are named.
#[apply(test)]
#[only(Root)]
fn leaked_processes_beyond_the_list_are_counted() {
    let _turn = alone();
    let sandbox = Sandbox::new()
        .cgroup(Cgroup::new().pids_max(1200))
        .limits(Limits::new().wall_time(at_most(Duration::from_secs(60))));
    let script = "i=0; while [ $i -lt 1100 ]; do sleep 1000 & i=$((i+1)); done";
    let outcome = listed(|| sh(&sandbox, script).outcome);
    assert!(outcome.success(), "{outcome}");
    assert_eq!((outcome.leaked.len(), outcome.omitted.leaked), (1024, 76));
    assert!(outcome.to_string().contains("1100 leaked processes"), "{outcome}");
}

fn on_a_fast_machine() -> Option<String> {
    (slowness() > 1).then(|| "it takes some ten thousand calls that are heard".into())
}

fn many_paths(args: &[String]) -> i32 {
    let name = "n".repeat(250);
    std::env::set_current_dir("/tmp").unwrap();
    for _ in 0..14 {
        std::fs::create_dir(&name).unwrap();
        std::env::set_current_dir(&name).unwrap();
    }
    for number in 0..args[0].parse::<u32>().unwrap() {
        let _ = File::create(format!("{number:0250}"));
    }
    0
}

/// Attack 54: A program that is learned from uses paths without end.
#[apply(test)]
#[skip(on_a_fast_machine)]
fn learning_from_a_program_with_too_many_paths_fails() {
    let few = sandbox().learn(payload("many_paths").arg("10")).unwrap();
    assert!(few.1.success(), "{}", few.1);
    let error = sandbox().learn(payload("many_paths").arg("30000")).unwrap_err();
    assert!(error.to_string().contains("64 MiB of paths"), "{error}");
}
