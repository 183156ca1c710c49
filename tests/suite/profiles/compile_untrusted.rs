//! `profile::compile_untrusted`: compilers of sources that read files of the host, or never stop.

use std::fs;
use std::path::Path;
use std::process::Command as Host;
use std::time::{Duration, Instant};

use stockade::limits::Resource;
use stockade::{Command, Output, Root, Sandbox, Termination, profile};
use tempfile::TempDir;

use crate::support::{self, shared_dir, text, unless_compilers, unless_runs};

fn unless_step() -> Option<String> {
    unless_compilers().or_else(support::unless_idmapped_mounts)
}

fn unless_java() -> Option<String> {
    unless_step().or_else(|| unless_runs("javac"))
}

fn unless_go() -> Option<String> {
    unless_step().or_else(|| unless_runs("go"))
}

/// A source, and a directory for the output.
struct Source {
    dir: TempDir,
    name: &'static str,
}

impl Source {
    fn new(name: &'static str, text: &str) -> Self {
        let dir = shared_dir();
        fs::create_dir(dir.path().join("out")).expect("a directory");
        fs::write(dir.path().join(name), text).expect("a source");
        Self { dir, name }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn sandbox(&self, sandbox: Sandbox) -> Sandbox {
        let source = Path::new("/src").join(self.name);
        sandbox.map_root(|root| root.bind(self.path(self.name), source).bind_rw(self.path("out"), "/out"))
    }

    /// Compiles it in a sandbox.
    fn within(&self, sandbox: Sandbox, command: &[&str]) -> Output {
        let mut compiler = Command::new(command[0]);
        compiler.args(&command[1..]);
        self.sandbox(sandbox).output(compiler).expect("an outcome")
    }

    fn compiled(&self, command: &[&str]) -> Output {
        self.within(profile::compile_untrusted(), command)
    }

    /// All that the author of the source gets to see: the messages, and the output.
    fn seen(&self, output: &Output) -> String {
        let made = fs::read_dir(self.path("out")).expect("the outputs").flatten();
        let made: Vec<Vec<u8>> = made.map(|entry| fs::read(entry.path()).unwrap_or_default()).collect();
        [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat()
            + &String::from_utf8_lossy(&made.concat())
    }
}

/// The host's file system, as a sandbox without the guard.
fn unguarded() -> Sandbox {
    Sandbox::new().root(Root::host().bind("/etc", "/etc"))
}

const CC: [&str; 5] = ["cc", "-c", "/src/a.c", "-o", "/out/a.o"];

#[apply(test)]
#[skip(unless_step)]
fn honest_sources_compile() {
    let c = Source::new("a.c", "#include <stdio.h>\nint main(void) { puts(\"42\"); }\n");
    for command in [
        &["cc", "-O2", "-static", "/src/a.c", "-o", "/out/a"][..],
        &["cc", "-O2", "-flto", "-pipe", "/src/a.c", "-o", "/out/a"],
        &["cc", "-g", "-fsanitize=undefined", "/src/a.c", "-o", "/out/a"],
        &["c++", "-x", "c++", "/src/a.c", "-o", "/out/a"],
    ] {
        let output = c.compiled(command);
        assert!(output.outcome.success(), "{command:?}: {} {}", output.outcome, text(&output.stderr));
        let ran = Host::new(c.path("out/a")).output().expect("the program");
        assert_eq!(text(&ran.stdout), "42", "{command:?}");
    }
}

#[apply(test)]
#[skip(unless_java)]
fn honest_java_compiles() {
    let java = Source::new("Main.java", "public class Main { public static void main(String[] a) { } }\n");
    let output = java.compiled(&["javac", "-d", "/out", "/src/Main.java"]);
    assert!(output.outcome.success(), "{} {}", output.outcome, java.seen(&output));
    assert!(java.path("out/Main.class").exists());
}

#[apply(test)]
#[skip(unless_go)]
fn honest_go_compiles() {
    let go = Source::new("main.go", "package main\nimport \"fmt\"\nfunc main() { fmt.Println(42) }\n");
    let output = go.compiled(&["go", "build", "-o", "/out/main", "/src/main.go"]);
    assert!(output.outcome.success(), "{} {}", output.outcome, go.seen(&output));
    assert_eq!(text(&Host::new(go.path("out/main")).output().expect("the program").stdout), "42");
}

/// Each shows a line of the host's file without the profile, by another way.
#[apply(test)]
#[skip(unless_step)]
fn files_of_the_host_do_not_show() {
    let secret = shared_dir();
    let path = secret.path().join("answers.txt").display().to_string();
    fs::write(&path, "the_secret_answer 42;\n").expect("a file");
    let preprocess: &[&str] = &["cc", "-E", "/src/a.c"];
    let attacks: [(String, &[&str]); 6] = [
        (format!("#include \"{path}\"\n"), preprocess),
        (format!("#include \"{path}\"\n"), &CC),
        (format!("#include \"/src/../..{path}\"\n"), preprocess),
        (format!("__asm__(\".incbin \\\"{path}\\\"\");\n"), &CC),
        // The assembler quotes the line that it does not know.
        (format!("__asm__(\".include \\\"{path}\\\"\");\n"), &CC),
        (format!("int x = __has_include(\"{path}\") ? the_secret_answer : 0;\n"), &CC),
    ];
    for (source, command) in attacks {
        let attack = Source::new("a.c", &source);
        let shown = unguarded().map_root(|root| root.bind(secret.path(), secret.path()));
        let without = attack.within(shown, command);
        assert!(attack.seen(&without).contains("the_secret_answer"), "without the profile: {source}");
        let _ = fs::remove_file(attack.path("out/a.o"));
        let output = attack.compiled(command);
        let seen = attack.seen(&output).replace(&source, "");
        let reveals = seen.contains("the_secret_answer") && !source.contains("the_secret_answer");
        assert!(!reveals, "{source}: {seen}");
    }
}

#[apply(test)]
#[skip(unless_step)]
fn users_processes_and_mounts_of_the_host_do_not_show() {
    let include = |path: &str| Source::new("a.c", &format!("#include \"{path}\"\n"));
    for (path, shows) in [("/etc/passwd", "root:x:0:0:root"), ("/etc/hosts", "127.0.0.1"), ("/etc/os-release", "NAME=")]
    {
        let (attack, preprocess) = (include(path), ["cc", "-E", "/src/a.c"]);
        let without = attack.seen(&attack.within(unguarded(), &preprocess));
        assert!(without.contains(shows), "without the profile: {path}: {without}");
        let seen = attack.seen(&attack.compiled(&preprocess));
        match path {
            "/etc/passwd" => {
                let entries = seen.lines().filter(|line| line.contains(":x:")).count();
                assert_eq!(entries, 3, "its own user, root and nobody: {seen}");
                assert!(!seen.contains(shows), "{seen}");
            }
            "/etc/hosts" => assert!(seen.contains("sandbox"), "{seen}"),
            _ => assert!(seen.contains("No such file"), "{path}: {seen}"),
        }
    }
    // To preprocessors, files in /proc are empty. So this stands for code in the compiler.
    let empty = Source::new("a.c", "");
    for (path, shows) in [("/proc/cpuinfo", "processor"), ("/proc/meminfo", "MemTotal"), ("/proc/version", "Linux")] {
        let read = ["cat", path];
        assert!(empty.seen(&empty.within(unguarded(), &read)).contains(shows), "without the profile: {path}");
        let seen = empty.seen(&empty.compiled(&read));
        assert!(seen.contains("No such file"), "{path}: {seen}");
    }
    let environment = empty.seen(&empty.compiled(&["cat", "/proc/self/environ"]));
    let names: Vec<&str> = environment.split_terminator('\0').filter_map(|pair| pair.split('=').next()).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH"]);
    // The options of a compiler are the judge's, but nothing depends on that.
    for options in [["-include", "/etc/shadow"], ["-imacros", "/etc/shadow"], ["-specs=/etc/shadow", "-E"]] {
        let seen = empty.seen(&empty.compiled(&[&["cc", "-E", "/src/a.c"][..], &options[..]].concat()));
        assert!(seen.contains("No such file") || seen.contains("cannot read"), "{options:?}: {seen}");
    }
}

/// Nothing is waited for: what is endless, or what a terminal would say.
#[apply(test)]
#[skip(unless_step)]
fn devices_are_no_source() {
    let attack = Source::new("a.c", "#include \"/dev/stdin\"\nint x = the_input;\n");
    let mut compiler = Command::new("cc");
    compiler.args(["-E", "/src/a.c"]).stdin_bytes("the_input_of_the_caller\n");
    let given = attack.sandbox(profile::compile_untrusted()).output(compiler).expect("an outcome");
    assert!(attack.seen(&given).contains("the_input_of_the_caller"), "if the judge passes it");
    assert!(!attack.seen(&attack.compiled(&["cc", "-E", "/src/a.c"])).contains("the_input_of_the_caller"));
    for device in ["/dev/tty", "/dev/console", "/dev/random", "/dev/ptmx"] {
        let attack = Source::new("a.c", &format!("#include \"{device}\"\n"));
        let quick = profile::compile_untrusted().map_limits(|limits| {
            limits.wall_time(support::at_most(Duration::from_secs(20))).rlimit(Resource::Data, 64 << 20, 64 << 20)
        });
        let output = attack.within(quick, &CC);
        assert!(matches!(output.outcome.termination, Termination::Exited(1..)), "{device}: {}", output.outcome);
    }
}

/// A source that executes code in its compiler, as an LTO plug-in does, finds nothing either.
#[apply(test)]
#[skip(unless_step)]
fn code_in_the_compiler_finds_nothing() {
    let attack = Source::new(
        "plugin.c",
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n#include <sys/socket.h>\n#include <sys/ptrace.h>\n\
         __attribute__((constructor)) static void run(void) {\n\
         FILE *users = fopen(\"/etc/shadow\", \"r\");\n\
         printf(\"shadow %d environment %d home %d trace %d\\n\", !!users, !!getenv(\"CARGO_MANIFEST_DIR\") || !!getenv(\"USER\"),\n\
         access(\"/root\", F_OK) == 0 || access(\"/home/user\", F_OK) == 0, ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);\n\
         fflush(stdout); }\nint onload(void) { return 1; }\n",
    );
    let plugin = ["cc", "-shared", "-fPIC", "/src/plugin.c", "-o", "/out/plugin.so"];
    assert!(attack.compiled(&plugin).outcome.success());
    let link: &[&str] = &["ld", "-plugin", "/out/plugin.so", "/out/plugin.so", "-o", "/out/a"];
    let traced = |output: &Output| text(&output.stdout).contains("trace 1");
    assert!(traced(&attack.within(Sandbox::new(), link)), "without the profile it is executed, and may trace");
    let output = attack.compiled(link);
    assert_eq!(
        text(&output.stdout).lines().next(),
        Some("shadow 0 environment 0 home 0 trace 0"),
        "{}",
        attack.seen(&output)
    );
}

/// Bombs: each would use far more without the limit that stops it.
#[apply(test)]
#[skip(unless_step)]
fn bombs_are_stopped_by_limits() {
    let limited = |kind: Resource, value: u64| {
        profile::compile_untrusted().map_limits(|limits| limits.rlimit(kind, value, value))
    };
    // An endless file. Less than the limit, so that the test is quick.
    let endless = Source::new("a.c", "#include \"/dev/zero\"\n");
    let output = endless.within(limited(Resource::Data, 256 << 20), &CC);
    assert!(!output.outcome.success(), "{}", output.outcome);
    assert!(output.outcome.usage.memory_peak.is_none_or(|peak| peak.value < 400 << 20), "{:?}", output.outcome.usage);
    // A large object file from a short source.
    let large = Source::new("a.c", "char a[600 << 20] = {1};\n");
    let made = |output: &Output| {
        let size = fs::metadata(large.path("out/a.o")).map_or(0, |meta| meta.len());
        (output.outcome.success(), size)
    };
    assert!(!made(&large.compiled(&CC)).0);
    assert!(made(&large.compiled(&CC)).1 <= 256 << 20);
    // A computation without end.
    let start = Instant::now();
    let endless = Source::new(
        "a.cpp",
        "constexpr long f(long n) { long s = 0; for (long i = 0; i < n; i++) s += i; return s; }\nconstexpr long x = f(1L << 60);\n",
    );
    let compile = [
        "c++",
        "-fconstexpr-ops-limit=9223372036854775807",
        "-fconstexpr-loop-limit=2147483647",
        "-c",
        "/src/a.cpp",
        "-o",
        "/out/a.o",
    ];
    let output = endless.within(limited(Resource::Cpu, 1), &compile);
    assert!(
        !output.outcome.success() && start.elapsed() < support::at_most(Duration::from_secs(20)),
        "{}",
        output.outcome
    );
    let timed = profile::compile_untrusted().map_limits(|limits| limits.wall_time(Duration::from_millis(500)));
    assert_eq!(endless.within(timed, &compile).outcome.termination, Termination::WallTime);
}

#[apply(test)]
#[skip(unless_step)]
fn a_flood_of_messages_is_still_a_compile_error() {
    let source = "#define A _Pragma(\"message \\\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\\"\")\n#define B A A A A A A A A A A\n\
                  #define C B B B B B B B B B B\n#define D C C C C C C C C C C\n#define E D D D D D D D D D D\nE\n#error no\n";
    let flood = Source::new("a.c", source);
    let output = flood.compiled(&["cc", "-fno-diagnostics-show-caret", "-c", "/src/a.c", "-o", "/out/a.o"]);
    assert_eq!(
        (output.outcome.termination, output.stderr.len(), output.stderr_truncated),
        (Termination::Exited(1), 1 << 20, true)
    );
}
