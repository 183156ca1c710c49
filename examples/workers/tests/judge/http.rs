//! The HTTP front, with the judge in the same process.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use stockade_workers::judge::failure::Failure;
use stockade_workers::judge::report::JobResult;
use stockade_workers::judge::store::Store;
use tempfile::TempDir;

use crate::support::{Server, agent, job, program, tests_of};

const SOON: Duration = Duration::from_secs(60);

fn submission(problem: &str, source: &str) -> Value {
    json!({"problem": problem, "language": "python", "source": source})
}

/// Reads the events of a job until the stream ends.
pub fn events(server: &Server, id: &str) -> Vec<(String, Value)> {
    let mut answer = agent().get(format!("{}/api/jobs/{id}/events", server.url)).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let event = |block: &str| {
        let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
        Some((field("event: ")?.to_owned(), serde_json::from_str(field("data: ")?).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[test]
fn a_program_is_submitted_polled_and_streamed() {
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &[]);
    let (_, problems) = server.get("/api/problems");
    let names: Vec<_> = problems.as_array().unwrap().iter().map(|problem| problem["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["divisor", "guess", "sum"]);
    // Clients see no answer.
    assert!(!problems.to_string().contains("1480758566563"));

    let right = "import sys\nprint(sum(map(int, sys.stdin.read().split())))";
    let (status, answer) = server.post("/api/submissions", submission("sum", right));
    assert_eq!(status, 202);
    let id = answer["id"].as_str().unwrap();
    let streamed = events(&server, id);
    let names: Vec<_> = streamed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["start", "test", "test", "test", "result"]);
    let result = server.result(id, SOON);
    assert_eq!((&result["verdict"], &result["tests"][2]["verdict"]), (&json!("accepted"), &json!("accepted")));
    assert_eq!(streamed[4].1, result);
    // The stream of a job that has ended is the same.
    assert_eq!(events(&server, id), streamed);

    let (_, answer) = server.post("/api/submissions", submission("sum", "print(6)"));
    let result = server.result(answer["id"].as_str().unwrap(), SOON);
    assert_eq!((&result["summary"], &result["tests"][1]["test"]), (&json!("Wrong answer"), &json!("2")));
}

#[test]
fn a_repeated_id_is_judged_once_and_results_survive_a_restart() {
    let directory = TempDir::new().unwrap();
    let results = directory.path().join("store");
    let args = ["--results", results.to_str().unwrap()];
    let mut server = Server::start(directory.path(), &args);
    let mut one = job("again", program("python", "print(1)"), tests_of(&[("", "1")]));
    server.submit(&one);
    assert_eq!(server.result("again", SOON)["verdict"], "accepted");
    one.program = program("python", "print(2)");
    server.submit(&one);
    assert_eq!(server.result("again", SOON)["verdict"], "accepted");
    server.process.signal(Signal::TERM);
    assert!(server.process.wait().success(), "{}", server.process.log());
    drop(server);

    let server = Server::start(directory.path(), &args);
    assert_eq!(server.result("again", SOON)["verdict"], "accepted");
    assert_eq!(events(&server, "again").len(), 3);
}

#[test]
fn a_server_that_is_stopped_judges_what_runs_and_one_that_is_killed_says_what_it_lost() {
    let directory = TempDir::new().unwrap();
    let results = directory.path().join("store");
    let args = ["--slots", "1", "--results", results.to_str().unwrap()];
    let slow = program("python", "import time\ntime.sleep(1.5)\nprint(1)");
    let mut server = Server::start(directory.path(), &args);
    server.submit(&job("drained", slow.clone(), tests_of(&[("", "1")])));
    server.submit(&job("waiting", slow.clone(), tests_of(&[("", "1")])));
    crate::support::within(SOON, "it runs", || (server.get("/api/jobs/drained").1["state"] == "running").then_some(()));
    server.process.signal(Signal::TERM);
    assert!(server.process.wait().success(), "{}", server.process.log());

    let mut server = Server::start(directory.path(), &args);
    assert_eq!(server.result("drained", SOON)["verdict"], "accepted");
    let lost = server.result("waiting", SOON);
    assert!(lost["verdict"] == "unknown" && lost["error"].as_str().unwrap().contains("submit it again"), "{lost}");
    // It is judged when it is submitted again, and the server is killed meanwhile.
    server.submit(&job("waiting", slow.clone(), tests_of(&[("", "1")])));
    server.submit(&job("killed", slow.clone(), tests_of(&[("", "1")])));
    crate::support::within(SOON, "it is judged", || {
        (server.get("/api/jobs/waiting").1["result"]["verdict"] == "accepted").then_some(())
    });
    server.process.signal(Signal::KILL);
    server.process.wait();

    let server = Server::start(directory.path(), &args);
    assert_eq!(server.result("waiting", SOON)["verdict"], "accepted");
    assert_eq!(server.result("killed", SOON)["verdict"], "unknown");
    // What the killed one left on disk is gone.
    assert_eq!(fs::read_dir(directory.path().join("scratch")).unwrap().count(), 1);
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &[]);
    let (status, answer) = server.post("/api/submissions", submission("none", ""));
    assert_eq!((status, answer["error"].as_str().unwrap()), (404, "the problem \"none\" is unknown"));
    let (status, answer) = server.post("/api/submissions", json!({"problem": "sum"}));
    assert_eq!(status, 422, "{answer}");
    let (status, answer) = server.post("/api/jobs", json!({"id": "x/y"}));
    assert_eq!(status, 422, "{answer}");
    let mut other = submission("sum", "");
    other["language"] = "cobol".into();
    assert_eq!(server.post("/api/submissions", other).0, 422);
    for path in ["/api/jobs/none", "/api/jobs/..%2f..%2fetc", "/api/jobs/none/events", "/nothing"] {
        let (status, answer) = server.get(path);
        assert!(status == 404 && answer["hint"].is_string(), "{path}: {status} {answer}");
    }
}

/// A directory is in the way, as a full disk could be.
#[test]
fn a_result_that_cannot_be_stored_now_is_stored_later() {
    let directory = TempDir::new().unwrap();
    let results = directory.path().join("store");
    let mut server = Server::start(directory.path(), &["--results", results.to_str().unwrap()]);
    server.submit(&job("blocked", program("python", "import time\ntime.sleep(1)\nprint(1)"), tests_of(&[("", "1")])));
    let obstacle = results.join("results/blocked.json");
    fs::create_dir(&obstacle).unwrap();
    crate::support::within(SOON, "it fails", || server.process.log().contains("trying again").then_some(()));
    server.submit(&job("other", program("python", "print(1)"), tests_of(&[("", "1")])));
    assert_eq!(server.result("other", SOON)["verdict"], "accepted");
    // It is stored even if the server is stopped meanwhile.
    server.process.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    fs::remove_dir(&obstacle).unwrap();
    assert!(server.process.wait().success(), "{}", server.process.log());
    assert!(fs::read_to_string(&obstacle).unwrap().contains("accepted"));
}

/// As a page of another site would, whose name resolves to the address of this server.
#[test]
fn requests_to_the_name_of_another_site_are_refused() {
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &["--host", "judge.example"]);
    let status = |host: &str| {
        let request = agent().get(format!("{}/api/problems", server.url)).header("Host", host);
        request.call().unwrap().status().as_u16()
    };
    assert_eq!(["judge.example", "localhost:1", "other.example"].map(status), [200, 200, 421]);
    // A page of another site can send such a request without asking.
    let request = agent().post(format!("{}/api/submissions", server.url)).header("Content-Type", "text/plain");
    assert_eq!(request.send(submission("sum", "").to_string()).unwrap().status().as_u16(), 415);
}

#[test]
fn idle_streams_are_limited_and_a_second_signal_ends_the_server_at_once() {
    const MOST: usize = 256;
    let directory = TempDir::new().unwrap();
    let results = directory.path().join("store");
    let mut server = Server::start(directory.path(), &["--results", results.to_str().unwrap()]);
    let mut long = job("long", program("python", "import time\ntime.sleep(50)"), tests_of(&[("", "")]));
    (long.limits.wall_ms, long.limits.idle_ms) = (Some(60_000), Some(60_000));
    server.submit(&long);
    crate::support::within(SOON, "it runs", || (server.get("/api/jobs/long").1["state"] == "running").then_some(()));
    let open = || {
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /api/jobs/long/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
    };
    let mut streams: Vec<_> = (0..MOST).map(|_| open()).collect();
    assert!(streams.iter().all(|(status, _)| status == "200"));
    assert_eq!(open().0, "503");
    assert_eq!(server.get("/api/jobs/long").0, 200);
    streams.clear();
    crate::support::within(SOON, "streams are free again", || (open().0 == "200").then_some(()));

    server.process.signal(Signal::TERM);
    crate::support::within(SOON, "it drains", || server.process.log().contains("a second signal").then_some(()));
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert!(!server.process.wait().success(), "{}", server.process.log());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let server = Server::start(directory.path(), &["--results", results.to_str().unwrap()]);
    assert_eq!(server.result("long", SOON)["verdict"], "unknown");
}

#[test]
fn a_job_that_cannot_be_sent_again_keeps_its_result() {
    let directory = TempDir::new().unwrap();
    let results = directory.path().join("store");
    let failure = JobResult::failed("again", &Failure::Worker("lost".into()));
    Store::open(&results).unwrap().record(&failure).unwrap();
    // No broker listens there.
    let broker = "amqp://guest:guest@127.0.0.1:1/%2f";
    let server = Server::start(directory.path(), &["--results", results.to_str().unwrap(), "--broker", broker]);
    let (status, answer) = server.post("/api/jobs", job("again", program("python", ""), tests_of(&[("", "")])));
    assert_eq!(status, 503, "{answer}");
    assert_eq!(server.result("again", SOON)["error"], "lost");
}

#[test]
fn the_page_allows_no_inline_script() {
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &[]);
    for path in ["/", "/judge.js", "/judge.css"] {
        let answer = agent().get(format!("{}{path}", server.url)).call().unwrap();
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }
}
