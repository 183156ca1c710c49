//! Without a cgroup: refused, or said in each result.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{PROGRAM, corpus, corpus_tests, job};

/// Verdicts that need no cgroup: limits on the CPU time of several processes, on memory and on idle time do.
const FREE: [&str; 7] = ["accepted", "wrong", "compile-error", "exit", "crash", "cheat", "forbidden"];

/// Runs the program as the user 1000, in a directory that this user can reach.
fn as_user(directory: &TempDir, args: &[&str], files: &[PathBuf]) -> Output {
    let copy = directory.path().join("stockade-judge");
    if !copy.exists() {
        fs::copy(PROGRAM, &copy).unwrap();
    }
    let user = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(user).arg(copy).args(args).args(files).env("TMPDIR", directory.path()).current_dir("/");
    command.output().unwrap()
}

#[test]
fn a_host_without_a_cgroup_is_refused_or_each_result_says_so() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run it as another user");
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let submissions = corpus().into_iter().filter(|one| FREE.iter().any(|free| one.name.starts_with(free)));
    let submissions: Vec<_> = submissions.collect();
    let file = |one: &crate::support::Submission| {
        let id = one.name.replace('.', "-");
        let path = directory.path().join(format!("{id}.json"));
        fs::write(&path, serde_json::to_vec(&job(&id, one.program.clone(), corpus_tests())).unwrap()).unwrap();
        path
    };
    let files: Vec<_> = submissions.iter().map(file).collect();

    let refused = as_user(&directory, &["judge"], &files[..1]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    if refused.status.success() {
        println!("skipped: this host lets the user 1000 create a cgroup");
        return;
    }
    assert!(error.contains("under the limits of jobs") && error.contains("--without-cgroup"), "{error}");

    let judged = as_user(&directory, &["judge", "--without-cgroup"], &files);
    let results = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert_eq!(results.lines().count(), files.len(), "{}", String::from_utf8_lossy(&judged.stderr));
    for (one, line) in submissions.iter().zip(results.lines()) {
        let result: Value = serde_json::from_str(line).unwrap();
        if result["error"].as_str().is_some_and(|error| error.contains("is not installed on this worker")) {
            println!("skipped: {}: this language is installed for root alone", one.name);
            continue;
        }
        assert_eq!(result["summary"], one.expected, "{}: {result}", one.name);
        assert!(result["unenforced"][0].as_str().unwrap().contains("cgroup"), "{result}");
        for test in result["tests"].as_array().unwrap() {
            assert_eq!(test["usage"]["cpu_is_lower_bound"], true);
            assert!(test["usage"]["memory_peak_bytes"].is_null());
        }
    }
}
