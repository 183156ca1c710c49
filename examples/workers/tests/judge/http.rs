//! The HTTP front, with the judge in the same process.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
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
