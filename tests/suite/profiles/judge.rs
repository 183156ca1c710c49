//! `profile::judge`: submissions that compute, and submissions that try something else.

use std::fs::{self, File};
use std::process::{Command as Host, Output as HostOutput};
use std::time::Duration;

use stockade::mount::Bind;
use stockade::{Cgroup, Command, Output, Sandbox, Termination, profile};
use tempfile::TempDir;

use crate::support::{self, shared_dir, text, unless_compilers, unless_python};

fn unless_tools() -> Option<String> {
    unless_compilers().or_else(unless_python)
}

/// A submission, ready to run.
struct Submission {
    dir: TempDir,
    program: Vec<String>,
}

const C: &str = "c";
const CPP: &str = "c++";
const PYTHON: &str = "python";

impl Submission {
    fn new(language: &str, source: &str, options: &[&str]) -> Self {
        let dir = shared_dir();
        let (file, program) = (dir.path().join("source"), dir.path().join("program").display().to_string());
        fs::write(&file, source).expect("a source");
        if language == PYTHON {
            return Self { program: vec!["/usr/bin/python3".into(), file.display().to_string()], dir };
        }
        let mut compiler = Host::new(if language == C { "cc" } else { "c++" });
        compiler.args(["-O1", "-x", language]).args(options).arg(&file).args(["-o", &program]);
        let output = compiler.output().expect("a compiler");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Self { program: vec![program], dir }
    }

    fn input(&self) -> File {
        let path = self.dir.path().join("input");
        fs::write(&path, "1 2 39\n").expect("an input");
        File::open(&path).expect("an input")
    }

    fn in_profile(&self, sandbox: Sandbox) -> Output {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).stdin(self.input());
        // Where it is on the host, so that it is the same there.
        let shown = sandbox.map_root(|root| root.with(Bind::new(self.dir.path(), self.dir.path()).unmapped()));
        shown.output(command).expect("an outcome")
    }

    fn judged(&self) -> Output {
        self.in_profile(profile::judge())
    }

    fn on_host(&self) -> HostOutput {
        let mut host = Host::new(&self.program[0]);
        host.args(&self.program[1..]).current_dir(self.dir.path()).stdin(self.input());
        host.output().expect("the program")
    }
}

const SUM_C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int main(void) {
    long sum = 0, number, *kept = malloc(8 << 20);
    srand(time(0));
    while (scanf("%ld", &number) == 1) sum += kept[rand() % 1000] = number;
    printf("%ld\n", sum);
}"#;

const SUM_CPP: &str = r#"
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <stdexcept>
int main() {
    std::ios::sync_with_stdio(false);
    std::map<long, long> seen;
    auto start = std::chrono::steady_clock::now();
    for (long number; std::cin >> number;) seen[number]++;
    long sum = 0;
    for (auto &[number, count] : seen) sum += number * count;
    try { seen.at(-1); } catch (std::out_of_range &) { std::cout << sum << std::endl; }
    return std::chrono::steady_clock::now() < start;
}"#;

const SUM_PYTHON: &str = "
import bisect, collections, fractions, heapq, itertools, math, random, re, sys, time
sys.setrecursionlimit(100000)
def total(numbers): return numbers[0] + total(numbers[1:]) if numbers else 0
numbers = list(map(int, open('/dev/stdin').read().split()))
random.shuffle(numbers)
print(total(numbers))
";

#[apply(test)]
#[skip(unless_tools)]
fn correct_submissions_run_as_on_the_host() {
    let submissions = [
        (C, SUM_C, vec![]),
        (C, SUM_C, vec!["-static"]),
        (CPP, SUM_CPP, vec!["-std=c++17"]),
        (CPP, SUM_CPP, vec!["-std=c++17", "-static"]),
        (PYTHON, SUM_PYTHON, vec![]),
    ];
    for (language, source, options) in submissions {
        let submission = Submission::new(language, source, &options);
        let (host, judged) = (submission.on_host(), submission.judged());
        assert_eq!(text(&host.stdout), "42", "{language}");
        let said = text(&judged.stderr);
        assert!(judged.outcome.success(), "{language} {options:?}: {}: {said}", judged.outcome);
        assert_eq!((text(&judged.stdout).as_str(), said.as_str()), ("42", ""), "{language} {options:?}");
    }
}

#[apply(test)]
#[skip(unless_tools)]
fn non_computing_calls_kill_the_program_and_are_named() {
    let c = |body: &str| {
        let headers = "fcntl signal stdio stdlib sys/socket sys/syscall sys/wait unistd";
        let headers: String = headers.split(' ').map(|name| format!("#include <{name}.h>\n")).collect();
        Submission::new(
            C,
            &format!("#define _GNU_SOURCE\n{headers}int main(void) {{ {body} puts(\"went on\"); }}"),
            &["-w"],
        )
    };
    let python = |body: &str| Submission::new(PYTHON, &format!("{body}\nprint('went on')\n"), &[]);
    let clones = ["clone", "clone3", "fork", "vfork"];
    let opens = ["openat", "open", "openat2"];
    let cases: [(Submission, &[&str]); 9] = [
        (c("if (socket(AF_INET, SOCK_STREAM, 0) < 0) return 1;"), &["socket"]),
        (c("if (fork() == 0) _exit(0); wait(0);"), &clones),
        (c("if (kill(getpid(), 0) < 0) return 1;"), &["kill"]),
        (c("if (open(\"written\", O_CREAT | O_WRONLY, 0600) < 0) return 1; unlink(\"written\");"), &opens),
        (c("if (syscall(SYS_memfd_create, \"code\", 0) < 0) return 1;"), &["memfd_create"]),
        (python("import socket; socket.socket()"), &["socket"]),
        (python("import os\nif os.fork() == 0: os._exit(0)\nos.wait()"), &clones),
        (python("import os; os.kill(os.getppid(), 0)"), &["kill"]),
        (python("import os; open('written', 'w'); os.remove('written')"), &opens),
    ];
    for (submission, names) in cases {
        assert_eq!(text(&submission.on_host().stdout), "went on", "without the profile: {names:?}");
        let judged = submission.judged();
        let Termination::Syscall(call) = judged.outcome.termination else { panic!("{names:?}: {}", judged.outcome) };
        assert!(call.name().is_some_and(|name| names.contains(&name)), "{names:?}: {call}");
        assert_eq!(text(&judged.stdout), "", "{call}");
    }
}

#[apply(test)]
#[skip(unless_python)]
fn files_of_the_judge_are_invisible() {
    let secret = shared_dir();
    let answers = secret.path().join("answers").display().to_string();
    fs::write(&answers, "42").expect("the answers");
    let spy = "import sys, os\nfor path in sys.argv[1:]:\n    try: print(len(os.listdir(path)) if os.path.isdir(path) \
               else open(path).read())\n    except OSError as error: print(error.errno)\n";
    let mut spy = Submission::new(PYTHON, spy, &[]);
    spy.program.extend([answers, "/etc/passwd".into(), "/var".into(), "/usr/src".into()]);
    let host = text(&spy.on_host().stdout);
    assert!(host.starts_with("42\n") && host.contains("root:"), "without the profile: {host}");
    // ENOENT is 2; what is masked can't be opened.
    let masked = if support::exists("/usr/src") { 13 } else { 2 };
    let uid = if support::is_root() { 1000 } else { nix::unistd::geteuid().as_raw() };
    let own = format!("sandbox:x:{uid}:{uid}::/:/bin/sh");
    let known = "root:x:0:0::/:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin";
    assert_eq!(text(&spy.judged().stdout), format!("2\n{own}\n{known}\n\n2\n{masked}"));
}

#[apply(test)]
#[skip(unless_compilers)]
fn the_stack_may_exceed_8_mib() {
    let source = r#"
        #include <stdio.h>
        int deep(int left) { volatile char frame[1 << 20]; frame[0] = 1; return left ? deep(left - 1) + frame[0] : 0; }
        int main(int argc, char **argv) { printf("%d\n", deep(argc == 2 ? 400 : 100)); }"#;
    let mut submission = Submission::new(C, source, &["-O0"]);
    let host = submission.on_host();
    assert!(!host.status.success(), "more than the host's usual 8 MiB");
    assert_eq!(text(&submission.judged().stdout), "100");
    submission.program.push("deeper".into());
    assert!(!submission.judged().outcome.success());
}

#[apply(test)]
#[skip(unless_compilers)]
fn memory_is_limited() {
    // Nothing of it is touched: the host has enough.
    let source = r#"
        #include <sys/mman.h>
        int main(int argc, char **argv) {
            int kind = argc == 2 ? MAP_SHARED : MAP_PRIVATE;
            for (int part = 0; part < 16; part++)
                if (mmap(0, 128 << 20, PROT_READ, kind | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return 5;
        }"#;
    let mut submission = Submission::new(C, source, &[]);
    for _ in 0..2 {
        assert!(submission.on_host().status.success());
        assert_eq!(submission.judged().outcome.termination, Termination::Exited(5));
        submission.program.push("shared".into());
    }
}

fn unless_groups_and_compilers() -> Option<String> {
    support::unless_root_with_groups().or_else(unless_compilers)
}

/// Who reserves more than it uses runs, and who uses too much is judged for its memory.
#[apply(test)]
#[only(Root)]
#[skip(unless_groups_and_compilers)]
fn a_cgroup_limits_memory_in_place_of_the_address_space() {
    let source = r#"
        #include <string.h>
        #include <sys/mman.h>
        int main(int argc, char **argv) {
            size_t size = 1536u << 20;
            char *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) return 5;
            memset(memory, 1, argc == 2 ? size : 1 << 20);
        }"#;
    let mut submission = Submission::new(C, source, &[]);
    let limited = || profile::judge().cgroup(Cgroup::new().memory_max(128 << 20));
    assert_eq!(submission.judged().outcome.termination, Termination::Exited(5), "without a cgroup");
    assert_eq!(submission.in_profile(limited()).outcome.termination, Termination::Exited(0));
    submission.program.push("all".into());
    assert_eq!(submission.in_profile(limited()).outcome.termination, Termination::Memory);
}

#[apply(test)]
#[skip(unless_python)]
fn floods_and_sleepers_are_killed() {
    let flood = Submission::new(PYTHON, "for _ in range(9): print('x' * (1 << 20))\n", &[]);
    assert!(flood.on_host().stdout.len() > 9 << 20);
    let judged = flood.judged();
    assert_eq!((judged.outcome.termination, judged.stdout.len()), (Termination::Output, 8 << 20));
    let sleeper =
        Submission::new(PYTHON, "import time\nopen('/dev/stdin').read()\ntime.sleep(0.5)\nprint('woke')\n", &[]);
    assert_eq!(text(&sleeper.on_host().stdout), "woke");
    let short = profile::judge().map_limits(|limits| limits.wall_time(Duration::from_millis(250)));
    assert_eq!(sleeper.in_profile(short).outcome.termination, Termination::WallTime);
    assert_eq!(text(&sleeper.judged().stdout), "woke");
}
