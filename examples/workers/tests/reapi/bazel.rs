//! Bazel, through BuildGrid and a worker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Engine, Worker, Workspace, runs, text};

/// The server may have the results of other tests.
const RUN_AGAIN: &str = "--noremote_accept_cached";

#[test]
fn bazel_builds_and_tests_remotely() {
    let Some(engine) = Engine::start("bazel_builds_and_tests_remotely") else { return };
    let _worker = Worker::start(engine.server, "bazel", &["--slots", "2"]);
    let workspace = Workspace::of_tests(engine.server);

    let targets = [RUN_AGAIN, "//:upper", "//:object", "//:main", "//:large", "//:large_sum", "//:isolation"];
    let output = workspace.build(&targets);
    assert!(output.contains("8 remote"), "{output}");
    assert_eq!(workspace.read("upper.txt"), "SOME WORDS\n");
    let (_, answer) = text(Command::new(workspace.path("bazel-bin/main")).output().unwrap());
    assert_eq!(answer, "42\n");
    // A tree, with a directory that is empty, and a symlink.
    let tree = workspace.path("bazel-bin/object.d/sub");
    assert_eq!(fs::read_to_string(tree.join("one")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(tree.join("link")).unwrap(), "one\n");
    assert!(workspace.path("bazel-bin/object.o").metadata().unwrap().len() > 100);
    // 20 MB went up, down to the next action, and to the client.
    let sum = text(Command::new("sha256sum").arg(workspace.path("bazel-bin/large.bin")).output().unwrap()).1;
    assert_eq!(sum.split(' ').next(), workspace.read("large.sum").split(' ').next());
    assert_eq!(workspace.path("bazel-bin/large.bin").metadata().unwrap().len(), 20_000_000);
    // No network, no home directories of the host, nothing to write to but the input root.
    let isolation = workspace.read("isolation.txt");
    let lines: Vec<_> = isolation.lines().map(str::trim).filter(|line| !line.starts_with("/home/")).collect();
    assert_eq!(lines, ["lo", "/build", "sandbox"]);

    let (code, output) = workspace.bazel(&["test", "--config=remote", "//:answer_test", "//:shell_test"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("2 tests pass"), "{output}");
    let log = fs::read_to_string(workspace.path("bazel-testlogs/shell_test/test.log")).unwrap();
    assert!(log.contains("tested in /build/"), "{log}");
}

#[test]
fn the_worker_of_an_ordinary_user_builds() {
    let Some(engine) = Engine::start("the_worker_of_an_ordinary_user_builds") else { return };
    let mut worker = Worker::start_as_user(engine.server, "ordinary", &["--slots", "2", "--without-cgroup"]);
    let workspace = Workspace::of_tests(engine.server);
    let output = workspace.build(&[RUN_AGAIN, "//:upper", "//:object", "//:main", "//:isolation"]);
    assert!(output.contains("6 remote"), "{output}");
    assert_eq!(workspace.read("upper.txt"), "SOME WORDS\n");
    let (_, answer) = text(Command::new(workspace.path("bazel-bin/main")).output().unwrap());
    assert_eq!(answer, "42\n");
    let isolation = workspace.read("isolation.txt");
    assert!(!isolation.contains("writes to") && isolation.starts_with("    lo\n"), "{isolation}");
    let (code, output) = workspace.bazel(&["test", "--config=remote", RUN_AGAIN, "//:answer_test", "//:shell_test"]);
    assert_eq!(code, Some(0), "{output}");
    // Its cache and its directory are those of a worker that is started again.
    worker.kill();
    worker.restart();
    workspace.build(&[RUN_AGAIN, "//:large", "//:large_sum"]);
    assert_eq!(worker.actions(), 0);
}

#[test]
fn outputs_are_inputs_of_other_actions_and_the_client_needs_none() {
    let Some(engine) = Engine::start("outputs_are_inputs_of_other_actions_and_the_client_needs_none") else { return };
    // More actions at a time than there is room for.
    let _worker = Worker::start(engine.server, "minimal", &[]);
    let workspace = Workspace::of_tests(engine.server);
    workspace.build(&["--jobs=50", "--remote_download_minimal", "//:sizes"]);
    assert!(!workspace.path("bazel-bin/size4194304.bin").exists());
    // Bazel 4 downloads symlinks in outputs always.
    workspace.build(&["//:sizes", "//:reads"]);
    let sizes = "0\n1\n4128639\n4128640\n4128641\n4128768\n4194303\n4194304\n4194305\n";
    assert_eq!(workspace.read("sizes.txt"), sizes);
    // Bazel names no empty directory of a tree as an input.
    assert_eq!(workspace.read("reads.txt"), "sub\nsub/link\nsub/one\nfrom a program\n");
}

#[test]
fn failures_and_timeouts_reach_bazel() {
    let Some(engine) = Engine::start("failures_and_timeouts_reach_bazel") else { return };
    let worker = Worker::start(engine.server, "failures", &["--max-outputs", "5000"]);
    let workspace = Workspace::of_tests(engine.server);
    let (code, output) = workspace.bazel(&["build", "--config=remote", "//:fails"]);
    assert!(code == Some(1) && output.contains("(Exit 3)") && output.contains("what went wrong"), "{output}");
    let (code, output) = workspace.bazel(&["test", "--config=remote", "--test_timeout=2", "//:sleeping_test"]);
    assert!(code == Some(3) && output.contains("TIMEOUT"), "{output}");
    assert!(!runs(&["sleep", "60.4242"]));
    // More outputs than the worker allows, and then an action as any other.
    let (code, output) = workspace.bazel(&["build", "--config=remote", "//:many_files"]);
    assert!(code != Some(0) && output.contains("Collector::max_entries"), "{output}");
    let unknown = "--remote_default_exec_properties=network=host";
    let (code, output) = workspace.bazel(&["build", "--config=remote", unknown, "//:upper"]);
    assert!(code != Some(0) && output.contains("network=host is not allowed"), "{output}");
    workspace.build(&["//:upper"]);
    assert_eq!(worker.actions(), 0);
}

#[test]
fn many_files_are_a_tree() {
    let Some(engine) = Engine::start("many_files_are_a_tree") else { return };
    let _worker = Worker::start(engine.server, "many", &[]);
    let workspace = Workspace::of_tests(engine.server);
    workspace.build(&["//:many_files"]);
    assert_eq!(fs::read_dir(workspace.path("bazel-bin/many_files.d")).unwrap().count(), 10_000);
}

/// The C sources of zstd, which cargo has downloaded with the package that has them.
fn zstd() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--all-features", "--manifest-path"]);
    let output = cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "zstd-sys").expect("the package zstd-sys");
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().join("zstd/lib")
}

/// Returns the digests of the objects of a build.
fn objects(workspace: &Workspace) -> Vec<String> {
    let mut find = Command::new("find");
    find.current_dir(workspace.path("bazel-bin/_objs")).args([".", "-name", "*.o", "-exec", "sha256sum", "{}", "+"]);
    let mut lines: Vec<_> = text(find.output().unwrap()).1.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_c_project_built_by_two_workers_has_the_objects_of_a_local_build() {
    let Some(engine) = Engine::start("a_c_project_built_by_two_workers_has_the_objects_of_a_local_build") else {
        return;
    };
    let sources = tempfile::tempdir().unwrap();
    crate::engine::copy(&zstd(), &sources.path().join("lib"));
    let build = "cc_library(\n    name = \"zstd\",\n    srcs = glob([\"lib/**/*.c\", \"lib/**/*.h\"]),\n    \
                 copts = [\"-O1\", \"-DZSTD_DISABLE_ASM=1\"],\n    includes = [\"lib\", \"lib/common\"],\n)\n";
    fs::write(sources.path().join("BUILD"), build).unwrap();
    fs::write(sources.path().join("WORKSPACE"), "").unwrap();

    let local = Workspace::new(engine.server, sources.path());
    let (code, output) = local.bazel(&["build", "--spawn_strategy=local", "//:zstd"]);
    assert_eq!(code, Some(0), "{output}");
    let workers = ["first", "second"].map(|name| Worker::start(engine.server, name, &["--slots", "1"]));
    let remote = Workspace::new(engine.server, sources.path());
    let output = remote.build(&["//:zstd"]);
    let (ours, theirs) = (objects(&remote), objects(&local));
    assert!(ours.len() > 30 && output.contains(" remote"), "{output}");
    assert_eq!(ours, theirs);
    let finished = workers.each_ref().map(|worker| worker.log().matches("an action has finished").count());
    assert!(finished.iter().all(|count| *count > 0), "both have worked: {finished:?}");
    println!("{} objects, of {finished:?} actions", ours.len());
}
