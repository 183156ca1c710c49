//! The example `judge`, with submissions that cheat: knowing the paths of the answers does not help a submission to
//! read them.

use std::fs;
use std::path::Path;
use std::process::Command as Host;

use crate::support::{example, text, unless_compilers, unless_python, unless_root_with_groups};
use stockade::{Command, Root, Sandbox};

/// The judge limits, compiles and interprets.
fn unless_judge() -> Option<String> {
    unless_root_with_groups().or_else(unless_compilers).or_else(unless_python)
}

/// Submissions that look for the answer by its path, with the verdict that each must get.
const CHEATS: [(&str, &str); 5] = [
    ("incbin.c", include_str!("judge/incbin.c")),
    ("include.cpp", include_str!("judge/include.cpp")),
    ("open.c", include_str!("judge/open.c")),
    ("open.py", include_str!("judge/open.py")),
    ("beside.py", include_str!("../../examples/judge/submissions/cheat-beside.py")),
];

/// Attack 66: The answers lie beside the input, and where the compiler may include them.
#[apply(test)]
#[only(Root)]
#[skip(unless_judge)]
fn submissions_cannot_reach_the_answers() {
    // Not in /tmp, which is private in every sandbox, unless the build is there as a whole.
    let problem = tempfile::Builder::new().prefix("problem-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let answer = problem.path().join("tests/1.out");
    for directory in ["tests", "submissions"] {
        fs::create_dir(problem.path().join(directory)).unwrap();
    }
    fs::write(problem.path().join("tests/1.in"), "1 2 3\n").unwrap();
    fs::write(&answer, "6\n").unwrap();
    let path = answer.to_str().unwrap();
    if ["/root", "/home", "/tmp", "/run"].iter().all(|hidden| !path.starts_with(hidden)) {
        let sandbox = Sandbox::new().root(Root::host());
        let output = sandbox.output(Command::new("cat").arg(path)).unwrap();
        assert_eq!(text(&output.stdout), "6", "the attack must work here");
    }
    for (name, source) in CHEATS {
        fs::write(problem.path().join("submissions").join(name), source.replace("@ANSWER@", path)).unwrap();
    }
    assert_expected(problem.path(), CHEATS.len());
}

/// Every submission gets the verdict that its first line says.
fn assert_expected(problem: &Path, count: usize) {
    let output = Host::new(example("judge")).arg("--problem").arg(problem).output().expect("the example");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains(&format!("{count} submissions")), "{out}");
}
