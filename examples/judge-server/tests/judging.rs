//! What holds for submissions, over HTTP, with a server in this process. Started by root, it holds for an ordinary user
//! too: one test runs the others as the user 1000.

mod support;

use std::path::Path;
use std::process::Command;

use judge_server::sandboxes::Settings;
use judge_server::server::LARGEST_REQUEST;
use serde_json::{Value, json};
use support::{
    Server, answer, begin, long_time, patient, request, runs, settings, submission, submit, terminate, until,
};

/// A program that reports when it begins and when it ends, by a clock that all sandboxes share.
const TIMED: &str = "\
import sys, time
begin = time.monotonic()
time.sleep(0.3)
print(sum(map(int, sys.stdin.read().split())))
print(begin, time.monotonic(), file=sys.stderr)";

const ADDS_IN_C: &str = "\
#include <stdio.h>
int main(void) {
    int a, b;
    if (scanf(\"%d %d\", &a, &b) != 2) return 1;
    printf(\"%d\\n\", a + b);
}";

/// Returns the kinds of submissions, with the verdict on each, and with how many there are of them.
fn kinds(has_cgroup: bool) -> Vec<(Value, &'static str, usize)> {
    let adding = |language: &str, source: &str, expected: &str| {
        let mut adding = submission(language, source, expected);
        adding["input"] = json!("17 25\n");
        adding
    };
    let memory = match has_cgroup {
        true => "memory_limit",
        false => {
            println!("memory: without a cgroup, a program that allocates too much gets an error");
            "runtime_error"
        }
    };
    vec![
        (adding("python3", TIMED, "42"), "accepted", 12),
        (adding("sh", "read a b; echo $((a + b))", "42\n"), "accepted", 6),
        (adding("c", ADDS_IN_C, "42"), "accepted", 4),
        (adding("python3", TIMED, "43"), "wrong_answer", 4),
        (adding("sh", "echo 41", "42"), "wrong_answer", 4),
        (submission("c", "int main(void) { return missing; }", ""), "compile_error", 2),
        (submission("sh", "exit 3", ""), "runtime_error", 3),
        (submission("python3", "[][0]", ""), "runtime_error", 3),
        (submission("c", "int main(void) { __builtin_trap(); }", ""), "runtime_error", 2),
        (submission("sh", "while :; do sleep 1000 & done", ""), "runtime_error", 1),
        (submission("python3", "while True: pass", ""), "time_limit", 2),
        (submission("sh", "sleep 1000", ""), "time_limit", 2),
        (submission("python3", "x = 'x' * (4 << 30)", ""), memory, 2),
        (submission("sh", "yes", ""), "output_limit", 3),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_submissions_at_once_get_the_right_verdicts_and_two_run_at_a_time() {
    let server = Server::start(settings()).await;
    let address = server.address;
    let mut submitted = vec![];
    for (submission, expected, count) in kinds(server.has_cgroup()) {
        for _ in 0..count {
            let submission = submission.clone();
            submitted.push(tokio::spawn(async move {
                let answer = submit(address, &submission).await;
                (submission, expected, answer)
            }));
        }
    }
    assert_eq!(submitted.len(), 50);
    let mut times = vec![];
    for one in submitted {
        let (submission, expected, (status, judged)) = one.await.unwrap();
        assert_eq!((status, &judged["verdict"]), (200, &json!(expected)), "{submission}: {judged}");
        assert!(judged["usage"]["wall_seconds"].as_f64().unwrap() > 0.0, "{judged}");
        assert!(judged["usage"]["cpu_seconds"].as_f64().is_some(), "{judged}");
        // Either it is counted, or the answer says why not.
        let is_counted = judged["usage"]["memory_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        assert_eq!(is_counted, server.has_cgroup(), "{judged}");
        let unenforced = judged["unenforced"].as_array().unwrap();
        assert_eq!(unenforced.iter().all(|one| one["layer"] != "cgroup"), server.has_cgroup(), "{judged}");
        if submission["source"] == TIMED {
            let mut clock = judged["stderr"].as_str().unwrap().split_whitespace().map(|time| time.parse().unwrap());
            times.push((clock.next().unwrap(), clock.next().unwrap()));
        }
    }
    assert_eq!(times.len(), 16);
    let most = most_at_a_time(&times);
    assert!(most <= 2, "{most} ran at a time: {times:?}");
    until("the last one gives its place back", || server.statistics().running == 0).await;
    let statistics = server.statistics();
    assert_eq!((statistics.most_running, statistics.ended, statistics.waiting), (2, 50, 0));
    server.stop().await;
}

/// Returns how many of these periods overlap, at most.
fn most_at_a_time(periods: &[(f64, f64)]) -> usize {
    let at = |time| periods.iter().filter(|(begin, end)| (*begin..*end).contains(&time)).count();
    periods.iter().map(|(begin, _)| at(*begin)).max().unwrap_or(0)
}

#[test]
fn overlapping_periods_are_counted() {
    assert_eq!(most_at_a_time(&[(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]), 2);
    assert_eq!(most_at_a_time(&[(0.0, 3.0), (1.0, 3.0), (2.0, 4.0)]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_is_killed_when_its_client_disconnects() {
    let server = Server::start(patient()).await;
    let times = [1, 2].map(long_time);
    let mut clients = vec![];
    for time in &times {
        // The first one leaves the process group of the command.
        let source = format!("setsid sleep {time} & sleep {time}");
        clients.push(begin(server.address, &submission("sh", &source, "")).await);
    }
    until("both run", || times.iter().all(|time| runs(time))).await;

    // All places are taken.
    let mut next = begin(server.address, &submission("sh", "echo next", "next")).await;
    until("the next one waits", || server.statistics().waiting == 1).await;

    drop(clients.remove(0));
    let (status, judged) = answer(&mut next).await;
    assert_eq!((status, &judged["verdict"]), (200, &json!("accepted")), "{judged}");
    assert!(!runs(&times[0]), "the place was given away before the program was gone");
    assert!(runs(&times[1]), "the other client is still connected");

    drop(clients);
    until("no program runs", || !runs(&times[1])).await;
    until("both places are free", || server.statistics().running == 0).await;
    let (_, judged) = submit(server.address, &submission("python3", "print(1)", "1")).await;
    assert_eq!(judged["verdict"], "accepted", "{judged}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_waits_is_forgotten_when_its_client_disconnects() {
    let server = Server::start(patient()).await;
    let time = long_time(3);
    let sleeping = submission("sh", &format!("sleep {time}"), "");
    let running = [begin(server.address, &sleeping).await, begin(server.address, &sleeping).await];
    until("two run", || server.statistics().running == 2).await;
    let waiting = begin(server.address, &sleeping).await;
    until("the third waits", || server.statistics().waiting == 1).await;
    drop(waiting);
    until("none waits", || server.statistics().waiting == 0).await;
    assert_eq!(server.statistics().running, 2);
    drop(running);
    until("none runs", || server.statistics().running == 0 && !runs(&time)).await;
    assert_eq!(server.statistics().ended, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_submission_is_left_for_the_next_one() {
    let server = Server::start(patient()).await;
    let time = long_time(4);
    // The brackets keep grep(1) from finding itself.
    let processes = "for i in /proc/[0-9]*; do tr '\\0' ' ' < $i/cmdline; echo; done | grep -o '[s]leep 1000[0-9.]*'";
    let looks = format!("ls -A /work; {processes}; true");
    // What the first one leaves can be seen in its own sandbox.
    let leaves = format!(
        "echo secret > /work/secret
        setsid sleep {time} < /dev/null > /dev/null 2>&1 &
        until {processes} > /dev/null; do sleep 0.1; done
        {looks}"
    );
    let expected = format!("program.sh secret sleep {time}");
    let (_, judged) = submit(server.address, &submission("sh", &leaves, &expected)).await;
    assert_eq!(judged["verdict"], "accepted", "{judged}");
    let (_, judged) = submit(server.address, &submission("sh", &looks, "program.sh")).await;
    assert_eq!(judged["verdict"], "accepted", "{judged}");
    until("the process is gone", || !runs(&time)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_submission_is_an_error_with_its_status() {
    let server = Server::start(settings()).await;
    let valid = submission("sh", "echo 1", "1");
    let mut unknown_key = valid.clone();
    unknown_key["time_limit"] = json!(100);
    let mut large = valid.clone();
    large["input"] = json!("x".repeat(LARGEST_REQUEST));
    let json = "application/json";
    for (route, kind, body, expected) in [
        ("POST /submissions", json, "{\"language\": ".to_owned(), 400),
        ("POST /submissions", json, String::new(), 400),
        ("POST /submissions", json, "{}".into(), 422),
        ("POST /submissions", json, submission("cobol", "", "").to_string(), 422),
        ("POST /submissions", json, unknown_key.to_string(), 422),
        ("POST /submissions", json, large.to_string(), 413),
        ("POST /submissions", "text/plain", valid.to_string(), 415),
        ("GET /submissions", json, String::new(), 405),
        ("GET /nothing", json, String::new(), 404),
    ] {
        let (status, error) = request(server.address, route, kind, body.as_bytes()).await;
        assert_eq!(status, expected, "{route}: {error}");
        assert!(["error", "hint"].iter().all(|key| !error[key].as_str().unwrap().is_empty()), "{error}");
    }
    // None of them was run, and the server still judges.
    assert_eq!(server.statistics().ended, 0);
    let (status, judged) = request(server.address, "POST /submissions", json, valid.to_string().as_bytes()).await;
    assert_eq!((status, &judged["verdict"]), (200, &json!("accepted")), "{judged}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_host_is_an_error_with_its_text_and_hint() {
    let server = Server::start(settings()).await;
    server.judge.shut_down_sessions().await;
    let (status, error) = submit(server.address, &submission("sh", "", "")).await;
    assert_eq!(status, 500, "{error}");
    assert!(error["error"].as_str().unwrap().contains("the pool was shut down"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("Pool::new"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions_are_turned_away_when_too_many_wait() {
    let server = Server::start(Settings { waiting: 1, ..patient() }).await;
    let sleeping = submission("sh", "sleep 1000", "");
    let running = [begin(server.address, &sleeping).await, begin(server.address, &sleeping).await];
    until("two run", || server.statistics().running == 2).await;
    let waiting = begin(server.address, &sleeping).await;
    until("the third waits", || server.statistics().waiting == 1).await;
    let (status, error) = submit(server.address, &sleeping).await;
    assert_eq!((status, &error["error"]), (503, &json!("too many submissions are waiting")));
    drop((running, waiting));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answers_what_runs_and_turns_away_what_waits() {
    let server = Server::start(patient()).await;
    let address = server.address;
    let times = [5, 6].map(long_time);
    let slow = |time: &str| submission("sh", &format!("sleep {time}; echo done"), "done");
    let mut running = [begin(address, &slow(&times[0])).await, begin(address, &slow(&times[1])).await];
    until("both run", || times.iter().all(|time| runs(time))).await;
    let mut waiting = begin(address, &slow(&times[0])).await;
    until("the third waits", || server.statistics().waiting == 1).await;
    let stopping = server.stop();
    let (status, error) = answer(&mut waiting).await;
    assert_eq!((status, &error["error"]), (503, &json!("the server is shutting down")));
    times.iter().for_each(|time| terminate(time));
    for one in &mut running {
        let (status, judged) = answer(one).await;
        assert_eq!((status, &judged["verdict"]), (200, &json!("accepted")), "{judged}");
    }
    stopping.await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the server no longer listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_lists_numbers_and_what_is_not_enforced() {
    let server = Server::start(settings()).await;
    submit(server.address, &submission("sh", "", "")).await;
    until("it gives its place back", || server.statistics().running == 0).await;
    let (status, numbers) = request(server.address, "GET /status", "text/plain", b"").await;
    assert_eq!(status, 200, "{numbers}");
    assert_eq!(numbers["submissions"], json!({ "waiting": 0, "running": 0, "most_running": 1, "ended": 1 }));
    let unenforced = numbers["unenforced"].as_array().unwrap();
    assert_eq!(unenforced.iter().all(|one| one["layer"] != "cgroup"), server.has_cgroup(), "{numbers}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_this_holds_for_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: an ordinary user runs these tests already");
        return;
    }
    let _alone = support::alone().await;
    // That user may not be able to reach the directory of this executable.
    let copies = tempfile::Builder::new().prefix("judge-server-").tempdir().unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(copies.path(), permissions).unwrap();
    let copy = copies.path().join("judging");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let passed = tokio::task::spawn_blocking(move || run_as_user(&copy)).await.unwrap();
    assert!(passed, "a test fails for the user 1000");
}

/// Runs these tests as the user 1000, and prints what they print. Returns whether they pass.
fn run_as_user(executable: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(executable);
    command.arg("--show-output").current_dir("/");
    let output = command.output().expect("setpriv(1) can be executed");
    let lines = [output.stdout, output.stderr].map(|lines| String::from_utf8_lossy(&lines).into_owned());
    lines.iter().flat_map(|lines| lines.lines()).for_each(|line| println!("user 1000: {line}"));
    output.status.success()
}
