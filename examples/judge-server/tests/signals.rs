//! What the program does when it gets a signal. It has its own file, since it runs the program, and not a server in the
//! process of the test.

mod support;

use std::net::SocketAddr;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::{answer, begin, long_time, runs, submission, terminate, until};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Starts the program, and returns it with the address that it prints.
async fn start() -> (Child, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_judge-server"));
    command.args(["--listen", "127.0.0.1:0", "--wall-time", "1000"]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut program = command.spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("it prints its address");
    let address = line.strip_prefix("listening on http://").expect("it prints its address");
    (program, address.parse().unwrap())
}

fn send(program: &Child, signal: Signal) {
    kill(Pid::from_raw(program.id().expect("it runs").try_into().unwrap()), signal).unwrap();
}

#[tokio::test]
async fn the_first_signal_waits_for_what_runs() {
    for (number, signal) in [(10, Signal::SIGINT), (11, Signal::SIGTERM)] {
        let (mut program, address) = start().await;
        let time = long_time(number);
        let mut client = begin(address, &submission("sh", &format!("sleep {time}; echo 1"), "1")).await;
        until("it runs", || runs(&time)).await;
        send(&program, signal);
        until_refused(address).await;
        terminate(&time);
        let (status, judged) = answer(&mut client).await;
        assert_eq!((status, &judged["verdict"]), (200, &json!("accepted")), "{judged}");
        assert!(program.wait().await.unwrap().success());
    }
}

/// Waits until the server no longer listens.
async fn until_refused(address: SocketAddr) {
    until("the server no longer listens", || std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn a_second_signal_kills_what_runs() {
    let (mut program, address) = start().await;
    let time = long_time(12);
    let _client = begin(address, &submission("sh", &format!("sleep {time}"), "")).await;
    until("it runs", || runs(&time)).await;
    send(&program, Signal::SIGTERM);
    // Two signals of the same kind that come at once count as one.
    send(&program, Signal::SIGINT);
    assert!(program.wait().await.unwrap().success());
    until("it was killed", || !runs(&time)).await;
}
