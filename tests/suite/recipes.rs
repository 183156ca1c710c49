//! The recipes for tests of other languages (`examples/testing`): tests that listen on one port and create one file
//! collide together, and pass in sandboxes of their own.

use std::fs;
use std::path::Path;
use std::process::Command as Host;

use tempfile::TempDir;

use crate::support::{COMMAND, example, shared_dir, text, unless_runs};

/// Puts the files of a recipe into a directory that every user can read.
macro_rules! recipe {
    ($folder:literal: $($file:literal)*) => {{
        let dir = shared_dir();
        $({
            let place = dir.path().join($file);
            fs::write(&place, include_str!(concat!("../../examples/testing/", $folder, "/", $file))).expect("a file");
        })*
        dir
    }};
}

/// What a command in the directory of a recipe printed, and whether it succeeded.
fn printed(dir: &TempDir, mut host: Host) -> (bool, String) {
    let output = host
        .current_dir(dir)
        .env("STOCKADE", format!("{} run", example(COMMAND).display()))
        .output()
        .expect("a command");
    (output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// `stockade run` with a program and the files of a recipe in one sandbox.
fn together(dir: &TempDir) -> Host {
    let mut host = Host::new(example(COMMAND));
    host.args(["run", "--profile", "test", "--env", "STOCKADE_TEST_INLINE=1", "--ro"]).arg(dir.path());
    host.arg("--cwd").arg(dir.path()).arg("--");
    host
}

const PYTEST: [&str; 6] = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "."];

fn unless_pytest() -> Option<String> {
    let runs = Host::new("/usr/bin/python3").args(["-m", "pytest", "--version"]).output();
    let is_there = runs.is_ok_and(|output| output.status.success());
    (!is_there).then(|| "pytest can't be run: Debian has it in python3-pytest".into())
}

#[apply(test)]
#[skip(unless_pytest)]
fn each_test_of_pytest_has_a_sandbox_of_its_own() {
    let dir = recipe!("pytest": "conftest.py" "test_port.py");
    let mut one = together(&dir);
    one.arg("/usr/bin/python3").args(PYTEST);
    let (success, said) = printed(&dir, one);
    assert!(!success && said.contains("3 failed, 1 passed, 1 skipped") && said.contains("FileExistsError"), "{said}");

    let mut each = Host::new("/usr/bin/python3");
    each.args(PYTEST).env("PYTHONDONTWRITEBYTECODE", "1");
    let (success, said) = printed(&dir, each);
    assert!(success && said.contains("4 passed, 1 skipped"), "{said}");
}

#[apply(test)]
#[skip(unless_pytest)]
fn a_test_of_pytest_that_fails_in_its_sandbox_fails() {
    let dir = recipe!("pytest": "conftest.py");
    fs::write(dir.path().join("test_wrong.py"), "def test_wrong():\n    assert 1 + 1 == 3\n").expect("a test");
    let mut each = Host::new("/usr/bin/python3");
    each.args(PYTEST).env("PYTHONDONTWRITEBYTECODE", "1");
    let (success, said) = printed(&dir, each);
    assert!(!success && said.contains("1 failed") && said.contains("assert (1 + 1) == 3"), "{said}");
}

fn unless_node() -> Option<String> {
    unless_runs("node")
}

#[apply(test)]
#[skip(unless_node)]
fn each_file_of_node_tests_has_a_sandbox_of_its_own() {
    let dir = recipe!("node": "each-file.sh" "a.test.mjs" "b.test.mjs");
    let files = ["a.test.mjs", "b.test.mjs"];
    let mut one = together(&dir);
    one.args(["node", "--test"]).args(files);
    let (success, said) = printed(&dir, one);
    assert!(!success && said.contains("pass 1") && said.contains("fail 1"), "{said}");

    let each = |files: &[&str]| {
        let mut host = Host::new("sh");
        host.arg("each-file.sh").args(files);
        printed(&dir, host)
    };
    let (success, said) = each(&files);
    assert!(success && said.matches("pass 1").count() == 2 && !said.contains("fail 1"), "{said}");

    let wrong = "import test from 'node:test';\ntest('wrong', () => { throw new Error('wrong'); });\n";
    fs::write(Path::new(dir.path()).join("c.test.mjs"), wrong).expect("a test");
    let (success, said) = each(&["a.test.mjs", "c.test.mjs"]);
    assert!(!success && said.contains("pass 1") && said.contains("fail 1"), "{said}");
}
