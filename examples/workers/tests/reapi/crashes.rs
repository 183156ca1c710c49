//! Workers and servers that are killed, and actions that are cancelled, with Bazel as the client.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::engine::{Engine, Worker, Workspace, runs, text, wait_until};

/// What the target `slow` runs.
const SLEEP: &[&str] = &["sleep", "12.4242"];
const LONG: Duration = Duration::from_secs(300);

fn slow(workspace: &Workspace) -> std::process::Child {
    // Another action for each test: the server has the results of earlier ones.
    let own = format!("--action_env=WORKSPACE={}", workspace.path("").display());
    let mut command = workspace.command(&["build", "--config=remote", &own, "//:slow"]);
    let bazel = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the action runs", LONG, || runs(SLEEP));
    bazel
}

/// Waits until Bazel has built it.
fn finish(bazel: std::process::Child, workspace: &Workspace) {
    let (code, output) = text(bazel.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(workspace.read("slow.txt"), "done\n");
}

#[test]
fn the_action_of_a_killed_worker_runs_again_and_nothing_stays() {
    let Some(engine) = Engine::start("the_action_of_a_killed_worker_runs_again_and_nothing_stays") else { return };
    let mut worker = Worker::start(engine.server, "killed", &[]);
    let workspace = Workspace::of_tests(engine.server);
    let bazel = slow(&workspace);
    worker.kill();
    let gone = wait_until("the action is gone", Duration::from_secs(2), || !runs(SLEEP));
    println!("the action of a killed worker was gone after {gone:?}");
    assert_eq!(worker.actions(), 1, "its files are left");
    worker.restart();
    finish(bazel, &workspace);
    assert_eq!(worker.actions(), 0);
}

#[test]
fn a_server_that_is_killed_gets_the_result_later() {
    let Some(engine) = Engine::start("a_server_that_is_killed_gets_the_result_later") else { return };
    let worker = Worker::start(engine.server, "outlives", &[]);
    let workspace = Workspace::of_tests(engine.server);
    let bazel = slow(&workspace);
    engine.server.restart();
    finish(bazel, &workspace);
    assert_eq!(worker.log().matches("an action begins").count(), 1, "{}", worker.log());
}

#[test]
fn a_cancelled_action_is_killed_within_a_heartbeat() {
    let Some(engine) = Engine::start("a_cancelled_action_is_killed_within_a_heartbeat") else { return };
    let _worker = Worker::start(engine.server, "cancelled", &[]);
    let workspace = Workspace::of_tests(engine.server);
    let mut bazel = slow(&workspace);
    let operations =
        "select operations.name from operations join jobs on operations.job_name = jobs.name where jobs.stage = 3";
    let operation = engine.server.query(operations).remove(0);
    let address = engine.server.address();
    let said = engine.server.bgd(&["operation", "--remote", &address, "--instance-name", "", "cancel", &operation]);
    // The heartbeat of these workers is 5 s.
    let gone = wait_until("the action is gone", Duration::from_secs(10), || !runs(SLEEP));
    println!("a cancelled action was gone after {gone:?}; {said}");
    bazel.kill().unwrap();
    bazel.wait().unwrap();
}

#[test]
fn a_terminated_worker_finishes_its_action() {
    let Some(engine) = Engine::start("a_terminated_worker_finishes_its_action") else { return };
    let mut worker = Worker::start(engine.server, "terminated", &[]);
    let workspace = Workspace::of_tests(engine.server);
    let bazel = slow(&workspace);
    worker.terminate();
    assert!(worker.wait().success());
    finish(bazel, &workspace);
    worker.restart();
}

#[test]
fn two_hundred_actions_survive_a_worker_that_is_killed_again_and_again() {
    let Some(engine) = Engine::start("two_hundred_actions_survive_a_worker_that_is_killed_again_and_again") else {
        return;
    };
    let server = engine.server;
    let _steady = Worker::start(server, "steady", &["--slots", "2"]);
    let mut dying = Worker::start(server, "dying", &["--slots", "2"]);
    let workspace = Workspace::of_tests(server);
    let before = count(server, "select count(*) from jobs where stage = 4");
    let done = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killing = scope.spawn(|| {
            let mut kills = 0;
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2500));
                // In mid-action.
                if dying.actions() > 0 {
                    dying.kill();
                    dying.restart();
                    kills += 1;
                }
            }
            kills
        });
        let mut command = workspace.command(&["build", "--config=remote", "--jobs=20", "//:numbers"]);
        let built = command.output().unwrap();
        done.store(true, Ordering::Relaxed);
        let (code, output) = text(built);
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains("200 remote"), "{output}");
        killing.join().unwrap()
    });
    for number in 0..200 {
        assert_eq!(workspace.read(&format!("number{number}.txt")), format!("{}\n", number * number));
    }
    let completed = count(server, "select count(*) from jobs where stage = 4") - before;
    let again = count(server, "select count(*) from jobs where n_tries > 1");
    println!("the worker was killed {kills} times; {completed} actions were completed, {again} of them at a later try");
    assert_eq!(completed, 200, "each is reported once");
    assert!(kills >= 3 && again > 0, "{kills} {again}");
}

fn count(server: &crate::engine::Server, sql: &str) -> i64 {
    server.query(sql)[0].parse().unwrap()
}
