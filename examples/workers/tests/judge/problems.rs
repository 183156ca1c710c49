//! Checkers, interactors, tests by digest, and what programs can see.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stockade_workers::judge::blobs::digest_of;
use stockade_workers::judge::failure::Failure;
use stockade_workers::judge::job::{Checker, Data, Job, Priority};
use stockade_workers::judge::problem::problems;
use stockade_workers::judge::report::JobResult;
use stockade_workers::judge::verdict::Verdict;
use tempfile::TempDir;

use crate::support::{job, judge, judge_hiding, program, tests_of};

fn verdict(job: &Job) -> JobResult {
    judge().judge.judge(job, 0, |_| {}).unwrap()
}

#[test]
fn a_checker_program_decides_and_its_message_is_kept() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("problems");
    let problems = problems(&directory).unwrap();
    let divisor = &problems["divisor"];
    let test = judge();
    for (source, expected, message) in [
        ("n = int(input())\nprint(next(d for d in range(2, n) if n % d == 0))", Verdict::Accepted, None),
        ("print(5)", Verdict::WrongAnswer, Some("5 is not a divisor of 12")),
        ("print()", Verdict::WrongAnswer, Some("expected one number, found 0 words")),
        // The checker is not asked about a program that has failed.
        ("print(3); exit(4)", Verdict::Exit(4), None),
    ] {
        let job = divisor.job("divisor".into(), Priority::Normal, program("python", source));
        let result = test.judge.judge(&job, 0, |_| {}).unwrap();
        assert_eq!(result.verdict, expected, "{source}: {result:?}");
        let found = result.tests.last().unwrap().message.as_ref().map(|message| message.text.trim());
        assert_eq!(found, message, "{source}");
    }
}

#[test]
fn a_checker_is_confined_and_its_failure_is_no_verdict() {
    let mut one = job("checker", program("python", "print(1)"), tests_of(&[("", "1")]));
    one.checker = Checker::Program(program("python", "import sys\nopen(sys.argv[2])\nexit(1)"));
    assert_eq!(verdict(&one).verdict, Verdict::WrongAnswer);
    for (source, error) in [
        ("exit(3)", "the checker failed: exited with 3"),
        ("import socket; socket.socket()", "the checker failed: killed for calling socket"),
        ("bytearray(1 << 30)", "the checker failed: memory limit exceeded"),
    ] {
        one.checker = Checker::Program(program("python", source));
        let failure = judge().judge.judge(&one, 0, |_| {}).unwrap_err();
        assert!(matches!(&failure, Failure::Job(text) if text.starts_with(error)), "{source}: {failure}");
    }
    one.checker = Checker::Program(program("c", "int main(void) { return missing; }"));
    let failure = judge().judge.judge(&one, 0, |_| {}).unwrap_err();
    assert!(failure.to_string().contains("does not compile"), "{failure}");
}

#[test]
fn submissions_talk_to_an_interactor() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interactive/programs");
    let read = |name: &str| fs::read_to_string(directory.join(format!("{name}.py"))).unwrap();
    let test = judge();
    for (name, expected) in [
        ("right", "Accepted"),
        ("wrong", "Wrong answer"),
        ("flooding", "Wrong answer"),
        ("silent", "Idle"),
        ("dying", "Forbidden call (kill)"),
        ("failing", "Runtime error (exit 1)"),
    ] {
        let mut job = job("interactive", program("python", &read(name)), tests_of(&[("617", "")]));
        job.interactor = Some(program("python", &read("interactor")));
        job.limits.idle_ms = Some(2000);
        let result = test.judge.judge(&job, 0, |_| {}).unwrap();
        assert_eq!(result.summary, expected, "{name}: {result:?}");
    }
}

/// Interactors in C, which is killed by SIGPIPE, and in Python, which exits with 120 if its output is not read.
#[test]
fn a_submission_that_does_not_read_or_does_not_stop_is_judged_by_its_interactor() {
    let c = "#include <stdio.h>\nint main(void) { char word[9]; for (int i = 0; i < 50000; i++) puts(\"question\");\n\
             fflush(stdout); return scanf(\"%8s\", word) != 1; }";
    let python = "import time\ntime.sleep(0.3)\nprint('question')";
    let line = "import sys\nline = sys.stdin.readline()\nsys.exit(len(line) < 9)";
    let flood = "import os\nwhile True: os.write(1, b'x' * 65536)";
    let test = judge();
    for (interactor, submission, expected) in [
        (program("c", c), "pass", Verdict::WrongAnswer),
        (program("c", c), "import os, time\nos.close(0)\ntime.sleep(0.5)", Verdict::WrongAnswer),
        (program("c", c), "print('answer')", Verdict::Accepted),
        (program("python", python), "pass", Verdict::Accepted),
        (program("python", python), "exit(3)", Verdict::Exit(3)),
        // It reads a line to its end, which is that of the limit on the submission's output.
        (program("python", line), flood, Verdict::Output),
        (program("python", line), "print('answer')", Verdict::WrongAnswer),
    ] {
        let mut job = job("pipes", program("python", submission), tests_of(&[("", "")]));
        job.interactor = Some(interactor);
        job.limits.cpu_ms = Some(5000);
        let result = test.judge.judge(&job, 0, |_| {});
        assert_eq!(result.as_ref().map(|result| result.verdict).ok(), Some(expected), "{submission}: {result:?}");
    }
}

/// A submission that hopes for the interactor's process, its files, or the answer.
#[test]
fn a_submission_cannot_reach_its_interactor() {
    let cheat = "import os\nfound = [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 2]\n\
                 found += [p for p in ('/input', '/src/secret') if os.path.exists(p)]\nprint(found, flush=True)";
    let interactor = "import sys\nline = input()\nsecret = open(sys.argv[1]).read()\n\
                      print(secret, line, file=sys.stderr)\nexit(0 if line == '[]' and secret == 'key' else 1)";
    let mut job = job("cheat", program("python", cheat), tests_of(&[("key", "")]));
    job.interactor = Some(program("python", interactor));
    let result = verdict(&job);
    assert_eq!(result.verdict, Verdict::Accepted, "{result:?}");
    assert_eq!(result.tests[0].message.as_ref().unwrap().text, "key []\n");
}

#[test]
fn tests_by_digest_are_read_from_a_directory_and_verified() {
    let test = judge();
    let blobs = test.directory.path().join("blobs");
    let (input, answer) = ("20 22", "42");
    for text in [input, answer] {
        fs::write(blobs.join(digest_of(text.as_bytes())), text).unwrap();
    }
    let mut one = job("digest", program("python", "print(sum(map(int, input().split())))"), tests_of(&[("", "")]));
    one.tests[0].input = Data::Sha256(digest_of(input.as_bytes()));
    one.tests[0].answer = Data::Sha256(digest_of(answer.as_bytes()));
    assert_eq!(test.judge.judge(&one, 0, |_| {}).unwrap().verdict, Verdict::Accepted);
    fs::write(blobs.join(digest_of(answer.as_bytes())), "43").unwrap();
    let failure = test.judge.judge(&one, 0, |_| {}).unwrap_err();
    assert!(
        matches!(&failure, Failure::Worker(text) if text.contains("has other contents than its name says")),
        "{failure}"
    );
    one.tests[0].answer = Data::Sha256(digest_of(b"missing"));
    let failure = test.judge.judge(&one, 0, |_| {}).unwrap_err();
    assert!(matches!(&failure, Failure::Worker(text) if text.contains("No such file")), "{failure}");
}

#[test]
fn all_tests_are_run_only_on_request() {
    let mut one = job("all", program("python", "print(1)"), tests_of(&[("", "1"), ("", "2"), ("", "1")]));
    let verdicts = |one: &Job| verdict(one).tests.iter().map(|test| test.verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&one), [Verdict::Accepted, Verdict::WrongAnswer]);
    one.run_all = true;
    assert_eq!(verdicts(&one), [Verdict::Accepted, Verdict::WrongAnswer, Verdict::Accepted]);
}

#[test]
fn several_sources_are_compiled_together_and_the_log_is_kept() {
    let mut one =
        job("sources", program("c", "#include \"two.h\"\nint main(void) { return TWO; }"), tests_of(&[("", "")]));
    let result = verdict(&one);
    assert_eq!(result.verdict, Verdict::CompileError);
    assert!(result.compiler.unwrap().log.text.contains("two.h: No such file"));
    let header = json!({"name": "two.h", "text": "#define TWO 2"});
    one.program.sources.push(serde_json::from_value(header).unwrap());
    assert_eq!(verdict(&one).verdict, Verdict::Exit(2));
}

#[test]
fn programs_import_their_other_sources() {
    let test = judge();
    for (language, text, name, other) in [
        ("python", "import other\nprint(other.x)", "other.py", "x = 6"),
        ("node", "console.log(require('./other.js'))", "other.js", "module.exports = 6"),
        ("rust", "mod other;\nfn main() { println!(\"{}\", other::X) }", "other.rs", "pub const X: i32 = 6;"),
        (
            "java",
            "public class Main { public static void main(String[] args) { System.out.println(Other.X); } }",
            "Other.java",
            "class Other { static int X = 6; }",
        ),
    ] {
        let mut one = job("imports", program(language, text), tests_of(&[("", "6")]));
        if !one.program.language().unwrap().is_present() {
            println!("skipped: {language} is not installed");
            continue;
        }
        one.program.sources.push(serde_json::from_value(json!({"name": name, "text": other})).unwrap());
        let result = test.judge.judge(&one, 0, |_| {}).unwrap();
        assert_eq!(result.verdict, Verdict::Accepted, "{language}: {result:?}");
    }
}

/// The directory of compiled programs, that of tests by digest, and the judge's own files.
#[test]
fn no_file_of_the_judge_is_visible() {
    let test = judge();
    let hidden = test.directory.path().display().to_string();
    assert!(Path::new(&hidden).exists());
    let source = format!("import os\nprint(os.path.exists({hidden:?}), os.listdir('/src'))");
    let one = job("hidden", program("python", &source), tests_of(&[("", "False ['program.py']")]));
    let result = test.judge.judge(&one, 0, |_| {}).unwrap();
    assert_eq!(result.verdict, Verdict::Accepted, "{result:?}");
}

/// Programs of the host are visible, and the judge's files can be among them.
#[test]
fn files_of_the_judge_are_hidden_among_programs_too() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can create files among the programs of the host");
        return;
    }
    let place = TempDir::new_in("/usr/local/share").unwrap();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = |name: &str| place.path().join(name);
    for name in ["problems/one/problem.toml", "tests/1.in", "tests/1.out", "checker.py", "interactor.py", "seen"] {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), name).unwrap();
    }
    let described = "title = '1'\ntests = '../../tests'\nchecker = {program = {language = 'python', file = '../../checker.py'}}\n\
                     interactor = {language = 'python', file = '../../interactor.py'}";
    fs::write(path("problems/one/problem.toml"), described).unwrap();
    let problem = problems(&path("problems")).unwrap().remove("one").unwrap();

    let source = format!(
        "import os\nfor top, _, names in os.walk({:?}):\n    for name in names:\n        try:\n            \
         print(open(os.path.join(top, name)).read())\n        except OSError:\n            pass",
        place.path()
    );
    let printed = |hidden| {
        let test = judge_hiding(hidden);
        let one = job("hidden", program("python", &source), tests_of(&[("", "")]));
        let mut words = test.judge.judge(&one, 0, |_| {}).unwrap().tests.remove(0).stdout.text;
        words.retain(|letter| letter != '\0');
        words
    };
    assert!(printed(vec![]).contains("tests/1.out"));
    // The directory of all problems contains that of this one.
    let hidden = problem.paths.into_iter().chain([path("problems")]);
    assert_eq!(printed(hidden.collect()).trim(), "seen");
}

#[test]
fn a_full_output_of_the_compiler_is_no_verdict_of_the_worker() {
    // 200 MiB of initialised data do not fit into the output directory.
    let source = "char a[200 << 20] = {1};\nint main(void) { return a[5]; }";
    assert_eq!(verdict(&job("full", program("c", source), tests_of(&[("", "")]))).verdict, Verdict::CompileError);
}

#[test]
fn invalid_jobs_name_the_field() {
    let valid = json!({
        "id": "a", "program": {"language": "c", "sources": [{"text": ""}]},
        "tests": [{"name": "1", "input": {"text": ""}}],
    });
    assert!(Job::parse(valid.to_string().as_bytes()).is_ok());
    let set = |pointer: &str, value: Value| {
        let mut job = valid.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        job.pointer_mut(parent).unwrap()[key] = value;
        Job::parse(job.to_string().as_bytes()).unwrap_err().to_string()
    };
    for (pointer, value, error) in [
        ("/id", json!("../a"), "id: use"),
        ("/id", json!(""), "id: use"),
        ("/program/language", json!("cobol"), "language: \"cobol\" is unknown"),
        ("/program/sources", json!([]), "sources of the program: use 1 to 32"),
        ("/program/sources", json!([{"text": ""}, {"text": ""}]), "a name is missing"),
        ("/program/sources", json!([{"text": ""}, {"text": "", "name": "../a.h"}]), "a name is missing, not plain"),
        ("/program/sources", json!([{"text": ""}, {"text": "", "name": "program.c"}]), "a name is missing, not plain"),
        ("/program/sources", json!([{"text": "x".repeat(2 << 20)}]), "use at most 1048576 bytes"),
        ("/tests", json!([]), "tests: use 1 to"),
        ("/tests", json!([{"name": "a/b", "input": {"text": ""}}]), "\"a/b\" is not a name"),
        ("/tests", json!([{"name": "1", "input": {"sha256": "../../etc/passwd"}}]), "a SHA-256 has 64"),
        ("/limits", json!({"cpu_ms": 0}), "limits: cpu_ms: use 1 to"),
        ("/limits", json!({"memory_bytes": 1}), "limits: memory_bytes: use"),
        ("/limits", json!({"cpu": 1}), "unknown field `cpu`"),
        ("/checker", json!({"float": {"absolute": -1.0, "relative": 0.0}}), "checker: an error is a number from 0"),
        ("/checker", json!("none"), "unknown variant `none`"),
        ("/unknown", json!(1), "unknown field `unknown`"),
    ] {
        let found = set(pointer, value.clone());
        assert!(found.starts_with("invalid job: ") && found.contains(error), "{pointer} {value}: {found}");
    }
}
