//! What runs under the presets, and what they refuse, as their documentation says.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command as Host;

use stockade::{Bind, Command, Root, Sandbox, Seccomp, Signal, Stdio, Termination};
use tempfile::TempDir;

use crate::support::{Payload, Test, shared_dir, text, unless_root, with_payload};
use crate::{EPERM, bounded, ended_for, is_installed, result, results, run, says, shell, tests, under};

pub const TESTS: &[Test] = tests![
    c_computes_under_every_preset if unless_compilers,
    cpp_computes_under_every_preset if unless_compilers,
    rust_computes_under_every_preset,
    rust_that_is_linked_statically_computes_under_every_preset if unless_rustc,
    python_computes_under_every_preset if unless_python,
    a_program_aborts_under_every_preset,
    pure_computation_refuses_what_is_none,
    pure_computation_has_no_threads,
    pure_computation_has_no_name_service,
    pure_computation_asks_for_limits_and_sets_none,
    pure_computation_opens_files_for_reading_alone,
    shells_with_pipes_run_under_the_others,
    a_compiler_runs_under_the_others if unless_compilers,
    interpreters_with_threads_run_under_the_others,
    the_others_refuse_what_changes_the_machine,
    the_others_make_threads_and_no_namespaces,
];

pub const PAYLOADS: &[Payload] = &[("compute", compute), ("abort", abort)];

fn all() -> [(&'static str, Seccomp); 3] {
    let [new, container] = others();
    [("pure computation", Seccomp::pure_computation()), new, container]
}

/// Those under which programs of every kind run.
fn others() -> [(&'static str, Seccomp); 2] {
    [("the default", Seccomp::new()), ("container", Seccomp::container())]
}

const PYTHON: &str = "/usr/bin/python3";

fn unless(program: &str) -> Option<String> {
    (!is_installed(program)).then(|| format!("{program} is not installed"))
}

fn unless_compilers() -> Option<String> {
    unless("gcc").or_else(|| unless("g++"))
}

/// The toolchain belongs to whoever builds this, and the second run is another's.
fn unless_rustc() -> Option<String> {
    unless_root().or_else(|| unless("rustc"))
}

fn unless_python() -> Option<String> {
    unless(PYTHON)
}

/// Numbers on standard input: their sum, the root of the sum of their squares, and how many different ones there are.
const INPUT: &str = "3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2 3 8 4 6 2 6 4 3 3 8 3 2 7\n";
const OUTPUT: &str = "141 29.0689 9";

const C: &str = r#"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int order(const void *a, const void *b) { return *(int *)a - *(int *)b; }
int main(void) {
    int *numbers = malloc(64 << 20), count = 0, different = 0;
    long sum = 0;
    double squares = 0;
    if (!numbers) return 1;
    memset(numbers, 1, 64 << 20);
    while (scanf("%d", &numbers[count]) == 1) {
        sum += numbers[count];
        squares += (double)numbers[count] * numbers[count];
        count++;
    }
    qsort(numbers, count, sizeof *numbers, order);
    for (int i = 0; i < count; i++) different += !i || numbers[i] != numbers[i - 1];
    printf("%ld %.4f %d\n", sum, sqrt(squares), different);
    free(numbers);
    return 0;
}
"#;

const CPP: &str = r#"
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <set>
#include <stdexcept>
#include <vector>
int main() {
    std::vector<int> numbers;
    for (int number; std::cin >> number;) numbers.push_back(number);
    std::vector<char> room(64 << 20, 1);
    long sum = 0;
    double squares = 0;
    for (int number : numbers) sum += number, squares += double(number) * number;
    try {
        numbers.at(numbers.size());
    } catch (const std::out_of_range &) {
        std::set<int> different(numbers.begin(), numbers.end());
        std::cout << sum << ' ' << std::fixed << std::setprecision(4) << std::sqrt(squares) << ' ' << different.size() << std::endl;
    }
    return room.back() - 1;
}
"#;

const RUST: &str = r#"
use std::io::Read;
fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let numbers: Vec<i64> = text.split_whitespace().map(|it| it.parse().unwrap()).collect();
    let room = vec![1u8; 64 << 20];
    let squares: f64 = numbers.iter().map(|it| (it * it) as f64).sum();
    let different: std::collections::HashSet<_> = numbers.iter().collect();
    println!("{} {:.4} {}", numbers.iter().sum::<i64>(), squares.sqrt(), different.len() * room[1 << 20] as usize);
}
"#;

const PYTHON_SCRIPT: &str = r#"
import hashlib, json, math, random, re, sys
numbers = [int(word) for word in re.findall(r"\d+", sys.stdin.read())]
room = bytearray(64 << 20)
random.shuffle(numbers)
assert json.loads(json.dumps(numbers)) == numbers and len(hashlib.sha256(room).hexdigest()) == 64
print(sum(numbers), "%.4f" % math.sqrt(sum(number * number for number in numbers)), len(set(numbers)))
"#;

/// The same, as this binary does it, which is linked dynamically.
fn compute(_: &[String]) -> i32 {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("input");
    let numbers: Vec<i64> = text.split_whitespace().map(|it| it.parse().expect("a number")).collect();
    let squares: f64 = numbers.iter().map(|it| (it * it) as f64).sum();
    let different: std::collections::HashSet<_> = numbers.iter().collect();
    println!("{} {:.4} {}", numbers.iter().sum::<i64>(), squares.sqrt(), different.len());
    0
}

fn abort(_: &[String]) -> i32 {
    std::process::abort()
}

/// A directory with a source, and with the programs that compilers make of it.
struct Built(TempDir);

impl Built {
    fn new(name: &str, source: &str) -> Self {
        let built = Self(shared_dir());
        fs::write(built.0.path().join(name), source).expect("a source");
        fs::write(built.0.path().join("input"), INPUT).expect("the input");
        built
    }

    fn with(self, compiler: &str, args: &[&str]) -> Self {
        let output = Host::new(compiler).args(args).current_dir(self.0.path()).output().expect("a compiler");
        assert!(output.status.success(), "{compiler} {args:?}: {}", text(&output.stderr));
        self
    }

    fn input(&self) -> Stdio {
        File::open(self.0.path().join("input")).expect("the input").into()
    }

    /// It gives the result under every preset.
    fn computes(&self, program: &str, args: &[&str]) {
        for (preset, policy) in all() {
            let root = with_payload(Root::host()).mount(Bind::new(self.0.path(), "/mnt").unmapped());
            let sandbox = bounded(Sandbox::new().root(root).seccomp(policy));
            let mut command = Command::new(program);
            command.args(args).stdin(self.input());
            let output = sandbox.output(&command).unwrap_or_else(|error| panic!("{program}: {error}"));
            let said = text(&output.stderr);
            assert_eq!(output.outcome.termination, Termination::Exited(0), "{program} under {preset} said {said:?}");
            assert_eq!(text(&output.stdout), OUTPUT, "{program} under {preset}");
        }
    }
}

fn c_computes_under_every_preset() {
    let built = Built::new("a.c", C);
    let built = built.with("gcc", &["-O1", "-o", "dynamic", "a.c", "-lm"]);
    let built = built.with("gcc", &["-O1", "-static", "-o", "static", "a.c", "-lm"]);
    built.computes("/mnt/dynamic", &[]);
    built.computes("/mnt/static", &[]);
}

fn cpp_computes_under_every_preset() {
    let built = Built::new("a.cpp", CPP);
    let built = built.with("g++", &["-o", "dynamic", "a.cpp"]).with("g++", &["-static", "-o", "static", "a.cpp"]);
    built.computes("/mnt/dynamic", &[]);
    built.computes("/mnt/static", &[]);
}

fn rust_computes_under_every_preset() {
    Built::new("none", "").computes(crate::support::PAYLOAD, &["--payload", "compute"]);
}

fn rust_that_is_linked_statically_computes_under_every_preset() {
    let built = Built::new("a.rs", RUST);
    built.with("rustc", &["-C", "target-feature=+crt-static", "-o", "static", "a.rs"]).computes("/mnt/static", &[]);
}

fn python_computes_under_every_preset() {
    Built::new("a.py", PYTHON_SCRIPT).computes(PYTHON, &["/mnt/a.py"]);
}

fn a_program_aborts_under_every_preset() {
    for (preset, policy) in all() {
        let outcome = run(&under(policy), "abort", &[]).outcome;
        let aborted = matches!(outcome.termination, Termination::Signaled { signal: Signal(libc::SIGABRT), .. });
        assert!(aborted, "under {preset}: {outcome}");
    }
}

fn pure_computation_refuses_what_is_none() {
    let works = [
        "socket:2,2",
        "mkdirat:cwd,/tmp/dir,448",
        "memfd_create:name",
        "chdir:/tmp",
        "kill:0,0",
        "symlinkat:a,cwd,/tmp/a",
    ];
    for call in works {
        let given = result(Seccomp::new(), call);
        assert!(given.parse::<u32>().is_ok(), "{call} works elsewhere: {given}");
    }
    let others =
        ["clone:17", "execve:/bin/true", "ptrace:0", "setsid", "unshare", "mount", "bpf", "io_uring_setup", "setuid:0"];
    for call in works.into_iter().chain(others) {
        let outcome = run(&under(Seccomp::pure_computation()), "calls", &[call]).outcome;
        assert_eq!(Some(ended_for(&outcome)), call.split(':').next());
    }
}

fn pure_computation_has_no_threads() {
    assert_eq!(says(&under(Seccomp::new()), "thread", &[]), "7");
    let outcome = run(&under(Seccomp::pure_computation()), "thread", &[]).outcome;
    assert!(["clone", "clone3"].contains(&ended_for(&outcome)), "{outcome}");
}

fn pure_computation_asks_for_limits_and_sets_none() {
    assert_eq!(result(Seccomp::pure_computation(), "prlimit64:0,7,0,0"), "0");
    let outcome = run(&under(Seccomp::pure_computation()), "calls", &["prlimit64:0,7,1,0"]).outcome;
    assert_eq!(ended_for(&outcome), "prlimit64");
}

fn pure_computation_opens_files_for_reading_alone() {
    let open = |flags: i32| format!("openat:cwd,/tmp/../etc/passwd,{}", flags | libc::O_CLOEXEC);
    let reading = [0, libc::O_NOFOLLOW, libc::O_NONBLOCK | libc::O_NOCTTY].map(open);
    let given = results(Seccomp::pure_computation(), &reading.each_ref().map(String::as_str));
    assert_eq!(given, ["3", "4", "5"]);
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE | libc::O_RDWR] {
        let outcome = run(&under(Seccomp::pure_computation()), "calls", &[&open(flags)]).outcome;
        assert_eq!(ended_for(&outcome), "openat", "{flags:#o}");
        assert_eq!(outcome.violations[0].path.as_deref(), Some(Path::new("/tmp/../etc/passwd")));
    }
}

/// Which Python asks for when it looks for a user's home.
fn pure_computation_has_no_name_service() {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK].map(|family| format!("socket:{family},2"));
    assert_eq!(result(Seccomp::new(), &families[0]), "3");
    assert_eq!(result(Seccomp::pure_computation(), &families[0]), "EACCES");
    for family in &families[1..] {
        assert_eq!(ended_for(&run(&under(Seccomp::pure_computation()), "calls", &[family]).outcome), "socket");
    }
}

/// Runs a script under each of the other presets, and expects what it writes.
fn run_under_others(script: &str, expected: &str) {
    for (preset, policy) in others() {
        let output = shell(policy, script);
        let said = text(&output.stderr);
        assert_eq!(output.outcome.termination, Termination::Exited(0), "{script} under {preset} said {said:?}");
        assert_eq!(text(&output.stdout), expected, "{script} under {preset}");
    }
}

fn shells_with_pipes_run_under_the_others() {
    let script = "cd /tmp && for i in 3 1 2; do echo $i; done | sort | tee sorted | tr '\\n' ' ' && wc -l <sorted && \
                  cat <(echo substituted) && (sleep 0.01 & wait) && mkfifo p && (echo piped >p & cat p) && \
                  find . -name sorted | xargs rm && ls | grep -c sorted || true";
    run_under_others(&format!("exec bash -c {}", quoted(script)), "1 2 3 3\nsubstituted\npiped\n0");
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

fn a_compiler_runs_under_the_others() {
    let source = "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }";
    run_under_others(&format!("cd /tmp && printf %s {} >a.c && gcc -O2 -o a a.c && ./a", quoted(source)), "compiled");
    let program =
        "#include <iostream>\n#include <thread>\nint main() { std::thread([] { std::cout << \"ran\\n\"; }).join(); }";
    let script = format!("cd /tmp && printf %s {} >a.cpp && g++ -pthread -o a a.cpp && ./a", quoted(program));
    run_under_others(&script, "ran");
}

/// Those that are there.
fn interpreters_with_threads_run_under_the_others() {
    let python = "import subprocess, threading, socket, tempfile, multiprocessing as m\n\
                  t = threading.Thread(target=lambda: print(subprocess.check_output(['echo', 'child']).decode().strip()))\n\
                  t.start(); t.join()\n\
                  a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n\
                  tempfile.TemporaryFile().write(b'x')\n\
                  p = m.Process(target=print, args=('process',)); p.start(); p.join()";
    let node = "const {execFileSync} = require('child_process'); require('fs').writeFileSync('/tmp/a', 'x');\
                process.stdout.write(execFileSync('echo', ['child'])); setTimeout(() => console.log('later'), 10)";
    let java = "class Main { public static void main(String[] a) throws Exception { \
                var t = new Thread(() -> System.out.println(\"thread\")); t.start(); t.join(); } }";
    let scripts = [
        (PYTHON, format!("{PYTHON} -c {}", quoted(python)), "child\nprocess"),
        ("/usr/bin/node", format!("/usr/bin/node -e {}", quoted(node)), "child\nlater"),
        (
            "/usr/bin/javac",
            format!("cd /tmp && printf %s {} >Main.java && javac Main.java && java Main", quoted(java)),
            "thread",
        ),
    ];
    for (program, script, expected) in scripts {
        match is_installed(program) {
            true => run_under_others(&script, expected),
            false => println!("{program} is not installed, and not tested"),
        }
    }
}

fn the_others_refuse_what_changes_the_machine() {
    let calls =
        ["mount", "sethostname", "clock_settime", "reboot", "init_module", "kexec_load", "swapon", "bpf", "keyctl:0"];
    for (preset, policy) in others() {
        assert_eq!(results(policy, &calls), [EPERM; 9], "{preset}");
    }
    // Which is not only because the kernel asks for capabilities.
    let keyring = results(Seccomp::unconfined(), &["keyctl:0", "userfaultfd:1", "io_uring_setup:0,0"]);
    assert!(keyring.iter().all(|given| given != EPERM), "{keyring:?}");
    assert_eq!(results(Seccomp::new(), &["keyctl:0", "userfaultfd:1", "io_uring_setup:0,0"]), [EPERM; 3]);
}

fn the_others_make_threads_and_no_namespaces() {
    // Flags that the kernel itself finds wrong (EINVAL) are let through to it.
    let user = libc::CLONE_NEWUSER;
    let both = [format!("clone:{}", user | libc::CLONE_THREAD), format!("clone:{}", libc::CLONE_THREAD)];
    let both = both.each_ref().map(String::as_str);
    assert_eq!(results(Seccomp::unconfined(), &both), ["EINVAL"; 2]);
    for (preset, policy) in others() {
        assert_eq!(results(policy.clone(), &both), [EPERM, "EINVAL"], "{preset}");
        assert_eq!(results(policy.clone(), &["clone3", "unshare", "setns"]), ["ENOSYS", EPERM, EPERM], "{preset}");
        assert_eq!(says(&under(policy), "thread", &[]), "7");
    }
}
