//! What a worker says when it starts, and does not start.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::job::directory;

const PROGRAM: &str = env!("CARGO_BIN_EXE_stockade-reapi");

#[test]
fn a_worker_with_too_few_descriptors_does_not_start() {
    let directory = directory();
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -n 100; exec timeout 20 \"$0\" --server http://127.0.0.1:1 --slots 4 --directory \"$1\"",
        PROGRAM,
    ]);
    let output = shell.arg(directory.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("4 slots need 192 open files"), "{message}");
}

#[test]
fn a_worker_with_less_memory_at_most_than_by_default_does_not_start() {
    let directory = directory();
    let mut worker = Command::new("timeout");
    worker.args(["20", PROGRAM, "--server", "http://127.0.0.1:1", "--memory", "4G", "--max-memory", "1G"]);
    let output = worker.arg("--directory").arg(directory.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("lower --memory too"), "{message}");
}

#[test]
fn a_worker_that_waits_for_a_server_can_be_terminated() {
    let directory = directory();
    // It accepts, and says nothing.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut worker = Command::new(PROGRAM);
    worker.args(["--without-cgroup", "--server", &format!("http://{}", server.local_addr().unwrap())]);
    worker.arg("--directory").arg(directory.path().join("worker")).stderr(Stdio::null());
    let mut worker = worker.spawn().unwrap();
    let (_connection, _) = server.accept().unwrap();
    let started = Instant::now();
    kill(Pid::from_raw(worker.id() as i32), Signal::SIGTERM).unwrap();
    assert!(worker.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
