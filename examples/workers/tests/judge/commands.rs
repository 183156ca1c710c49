//! The command line, without a server.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{PROGRAM, job, program, tests_of};

/// Writes a job whose program prints 1 after some seconds.
fn job_file(directory: &TempDir, id: &str, seconds: u32) -> PathBuf {
    let source = format!("import time\ntime.sleep({seconds})\nprint(1)");
    let mut one = job(id, program("python", &source), tests_of(&[("", "1")]));
    (one.limits.wall_ms, one.limits.idle_ms) = (Some(60_000), Some(60_000));
    let path = directory.path().join(id);
    fs::write(&path, serde_json::to_vec(&one).unwrap()).unwrap();
    path
}

fn judge(directory: &TempDir) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("judge").arg("--scratch").arg(directory.path().join("scratch"));
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_file_that_is_no_job_does_not_keep_others_from_being_judged() {
    let directory = TempDir::new().unwrap();
    let bad = directory.path().join("bad");
    fs::write(&bad, r#"{"id": "bad"}"#).unwrap();
    let output = judge(&directory).arg(&bad).arg(job_file(&directory, "good", 0)).output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!((&result["id"], &result["verdict"]), (&"good".into(), &"accepted".into()));
    assert!(!output.status.success() && text(&output).contains("missing field `program`"), "{}", text(&output));
}

#[test]
fn a_signal_stops_it_and_the_next_one_removes_what_it_left() {
    let directory = TempDir::new().unwrap();
    let mut command = judge(&directory);
    let child = command.arg(job_file(&directory, "long", 50)).stderr(Stdio::piped()).spawn().unwrap();
    // Its handlers are older than the directory.
    let scratch = directory.path().join("scratch");
    crate::support::within(Duration::from_secs(60), "it has started", || {
        (fs::read_dir(&scratch).ok()?.count() == 1).then_some(())
    });
    thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && text(&output).contains("stopped by a signal"), "{}", text(&output));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let output = judge(&directory).arg(job_file(&directory, "next", 0)).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}

#[test]
fn each_cpu_is_tried_at_the_start() {
    let directory = TempDir::new().unwrap();
    let path = job_file(&directory, "cpus", 0);
    let output = judge(&directory).args(["--cpus", "0,4095"]).arg(path).output().unwrap();
    assert!(output.stdout.is_empty() && text(&output).contains("4095"), "{}", text(&output));
}

#[test]
fn errors_do_not_show_the_password_of_the_broker() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new(PROGRAM);
    let url = "amqp://user:secret@host:port/%2f";
    let output = command.args(["record", "--broker", url, "--results"]).arg(directory.path()).output().unwrap();
    assert!(text(&output).contains("the URL of the broker") && !text(&output).contains("secret"), "{}", text(&output));
}

#[test]
fn brokers_with_tls_are_refused_instead_of_used_without() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new(PROGRAM);
    let url = "amqps://user:secret@127.0.0.1:1/%2f";
    let output = command.args(["record", "--broker", url, "--results"]).arg(directory.path()).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("amqps:// is unsupported"), "{}", text(&output));
    assert!(!text(&output).contains("secret"), "{}", text(&output));
}
