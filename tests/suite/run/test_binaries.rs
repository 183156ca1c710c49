//! `run --profile test` as a runner of cargo: the files and variables of the test binary, and processes that it leaves.

use std::fs;
use std::path::Path;
use std::process::Command as Host;

use super::{Ran, ran, stockade_run};
use crate::support::{shared_dir, unless_root_with_groups};
use tempfile::TempDir;

/// A package with a test binary, as cargo has both: the binary is a script.
fn package(script: &str) -> TempDir {
    let dir = shared_dir();
    let binary = dir.path().join("target/debug/deps/it-0");
    fs::create_dir_all(binary.parent().expect("a directory")).expect("the target directory");
    fs::create_dir(dir.path().join("target/tmp")).expect("CARGO_TARGET_TMPDIR");
    fs::write(dir.path().join("target/CACHEDIR.TAG"), "").expect("its tag");
    fs::write(dir.path().join("Cargo.lock"), "").expect("a lock file");
    fs::create_dir(dir.path().join("member")).expect("a member of the workspace");
    fs::write(dir.path().join("member/fixture"), "contents\n").expect("a fixture");
    fs::write(&binary, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    dir
}

/// Runs the binary of a package as cargo does, with these options.
fn runner(options: &[&str], package: &TempDir, variables: &[(&str, &str)]) -> Ran {
    let binary = package.path().join("target/debug/deps/it-0");
    let mut host: Host = stockade_run(["--profile", "test"].iter().chain(options));
    host.arg("--").arg(binary).arg("--list").current_dir(package.path().join("member")).envs(variables.iter().copied());
    ran(host)
}

const CARGO: (&str, &str) = ("CARGO_MANIFEST_DIR", "/package");

#[apply(test)]
fn a_test_binary_finds_the_files_of_its_package() {
    let script = "cat fixture ../Cargo.lock && cat $0 >/dev/null && echo $1 $PWD && ! touch new 2>/dev/null";
    let dir = package(script);
    let said = runner(&[], &dir, &[CARGO]).output();
    assert_eq!(said, format!("contents\n--list {}/member", dir.path().display()));
    // A program that cargo does not start gets nothing of this.
    assert_eq!(runner(&[], &dir, &[("CARGO_MANIFEST_DIR", "")]).status, 127);
}

#[apply(test)]
fn a_test_binary_has_an_empty_directory_for_temporary_files() {
    let dir = package("ls ../target/tmp && echo data > ../target/tmp/file && cat ../target/tmp/file");
    fs::write(dir.path().join("target/tmp/earlier"), "").expect("what an earlier test has left");
    assert_eq!(runner(&[], &dir, &[CARGO]).output(), "data");
    assert!(!Path::new(&dir.path().join("target/tmp/file")).exists());
}

#[apply(test)]
fn a_test_binary_gets_what_cargo_sets_and_no_token() {
    let dir = package("env");
    let given =
        [CARGO, ("CARGO_PKG_NAME", "it"), ("RUST_LOG", "debug"), ("NEXTEST", "1"), ("CARGO_REGISTRY_TOKEN", "secret")];
    let said = runner(&["--env", "OWN=1"], &dir, &given).output();
    for variable in ["CARGO_MANIFEST_DIR=/package", "CARGO_PKG_NAME=it", "RUST_LOG=debug", "NEXTEST=1", "OWN=1"] {
        assert!(said.lines().any(|line| line == variable), "{variable} is missing: {said}");
    }
    assert!(!said.contains("secret") && said.contains("HOME=/home/sandbox"), "{said}");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_groups)]
fn a_test_binary_that_leaves_processes_running_fails_by_their_names() {
    let dir = package("sleep 1000 >/dev/null 2>&1 & sleep 0.2; echo passed");
    let left = runner(&["--pids", "64"], &dir, &[CARGO]);
    assert_eq!((left.status, left.stdout.as_str()), (124, "passed"), "{left:?}");
    assert!(left.stderr.starts_with("stockade: the test left processes running: sleep ("), "{left:?}");
    // Without a cgroup they are killed as well, and not named.
    assert_eq!(runner(&[], &dir, &[CARGO]).output(), "passed");
}
