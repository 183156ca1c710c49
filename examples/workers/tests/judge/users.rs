//! Without a cgroup: refused, or said in each result.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{PROGRAM, job, program, tests_of};

/// Runs the program as the user 1000, in a directory that this user can reach.
fn as_user(directory: &TempDir, args: &[&str]) -> Output {
    let copy = directory.path().join("stockade-judge");
    fs::copy(PROGRAM, &copy).unwrap();
    let user = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(user).arg(copy).args(args).env("TMPDIR", directory.path()).current_dir("/");
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
    let path = directory.path().join("job.json");
    let source = "#include <stdio.h>\nint main(void) { puts(\"1\"); }";
    let one = job("user", program("c", source), tests_of(&[("", "1")]));
    fs::write(&path, serde_json::to_vec(&one).unwrap()).unwrap();
    let path = path.to_str().unwrap();

    let refused = as_user(&directory, &["judge", path]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    if refused.status.success() {
        println!("skipped: this host lets the user 1000 create a cgroup");
        return;
    }
    assert!(error.contains("under the limits of jobs") && error.contains("--without-cgroup"), "{error}");

    let judged = as_user(&directory, &["judge", path, "--without-cgroup"]);
    let result: Value = serde_json::from_slice(&judged.stdout).unwrap();
    assert_eq!(result["verdict"], "accepted", "{result}");
    assert!(result["unenforced"][0].as_str().unwrap().contains("cgroup"), "{result}");
    assert_eq!(result["tests"][0]["usage"]["cpu_is_lower_bound"], true);
    assert!(result["tests"][0]["usage"]["memory_peak_bytes"].is_null());
}
