//! `profile::build_step`: a compiler, with declared inputs and outputs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command as Host;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade::limits::Resource;
use stockade::{Command, Sandbox, Termination, profile};
use tempfile::TempDir;

use crate::support::{self, at_most, exists, fails, shared_dir, text, unless_compilers};

fn unless_step() -> Option<String> {
    unless_compilers().or_else(support::unless_idmapped_mounts)
}

/// Directories of sources, of outputs, and of a header that nobody has declared.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let dir = shared_dir();
        for name in ["src", "out", "elsewhere"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let tree = Self(dir);
        fs::write(tree.path("elsewhere/answer.h"), "#define ANSWER 42\n").expect("a header");
        fs::write(tree.path("src/part.c"), "int part(void) { return 40; }\n").expect("a source");
        let main = "#include <stdio.h>\nint part(void);\nint main(void) { printf(\"%d\\n\", part() + 2); }\n";
        fs::write(tree.path("src/main.c"), main).expect("a source");
        tree
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn sandbox(&self) -> Sandbox {
        profile::build_step().map_root(|root| root.bind(self.path("src"), "/src").bind_rw(self.path("out"), "/out"))
    }
}

#[apply(test)]
#[skip(unless_step)]
fn a_compiler_and_a_linker_make_a_program() {
    let tree = Tree::new();
    let step = |args: &[&str]| {
        let output = tree.sandbox().output(Command::new("cc").args(args)).expect("an outcome");
        assert!(output.outcome.success(), "{args:?}: {} {}", output.outcome, text(&output.stderr));
    };
    for part in ["main", "part"] {
        step(&["-O2", "-c", &format!("/src/{part}.c"), "-o", &format!("/out/{part}.o")]);
    }
    step(&["/out/main.o", "/out/part.o", "-o", "/out/program"]);
    let ran = Host::new(tree.path("out/program")).output().expect("the program");
    assert_eq!(text(&ran.stdout), "42");
    let owner = fs::metadata(tree.path("out/program")).expect("the program").uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw());
}

#[apply(test)]
#[skip(unless_step)]
fn an_input_that_was_not_declared_is_not_found() {
    let tree = Tree::new();
    fs::write(tree.path("src/hidden.c"), "#include \"answer.h\"\nint answer = ANSWER;\n").expect("a source");
    let elsewhere = tree.path("elsewhere");
    let args = |source: &str| ["-c", "-I", &elsewhere, source, "-o", "/dev/null"].map(str::to_owned);
    let host = Host::new("cc").args(args(&tree.path("src/hidden.c"))).output().expect("a compiler");
    assert!(host.status.success(), "{host:?}");
    let output = tree.sandbox().output(Command::new("cc").args(args("/src/hidden.c"))).expect("an outcome");
    assert!(!output.outcome.success() && text(&output.stderr).contains("answer.h: No such file"), "{output:?}");
    let declared = tree.sandbox().map_root(|root| root.bind(&elsewhere, &elsewhere));
    assert!(declared.status(Command::new("cc").args(args("/src/hidden.c"))).expect("an outcome").success());
}

/// Runs a script on the host, where `/src` and `/out` are the tree's.
fn on_host(tree: &Tree, script: &str) -> String {
    let script = script.replace("/src", &tree.path("src")).replace("/out", &tree.path("out"));
    let output = Host::new("bash").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{script}: {output:?}");
    text(&output.stdout)
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn sources_cannot_be_changed() {
    let tree = Tree::new();
    let script = "echo >>/src/part.c; touch /src/new";
    assert!(fails(&tree.sandbox(), script).contains("Read-only file system"));
    assert!(!exists(tree.path("src/new")));
    on_host(&tree, script);
    assert!(exists(tree.path("src/new")));
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn processes_that_a_step_leaves_running_are_killed() {
    let tree = Tree::new();
    let seconds = format!("71{}", std::process::id());
    let script = format!("setsid sleep {seconds} >/dev/null 2>&1 & kill -0 $! && echo $!");
    let left = on_host(&tree, &script).parse().expect("a pid");
    kill(Pid::from_raw(left), Signal::SIGKILL).expect("without the profile it runs on");
    let pid = support::stdout(&tree.sandbox(), &script);
    assert!(pid.parse::<u32>().is_ok(), "{pid}");
    assert!(support::processes(|line| line.trim().ends_with(&seconds)).is_empty());
}

/// On request: a profile has no limit on one file, by which much is ended that uses no space.
#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn file_size_is_limited() {
    let tree = Tree::new();
    // Sparse: it takes no space.
    let script = "truncate -s 5G /out/log";
    on_host(&tree, script);
    let size = || fs::metadata(Path::new(&tree.path("out/log"))).expect("the log").len();
    assert_eq!(size(), 5 << 30);
    fs::remove_file(tree.path("out/log")).expect("no log");
    let limited = tree.sandbox().map_limits(|limits| limits.rlimit(Resource::Fsize, 4 << 30, 4 << 30));
    let output = support::sh(&limited, script);
    assert!(!output.outcome.success() && size() == 0, "{output:?}");
    assert!(support::sh(&limited, "truncate -s 4G /out/log").outcome.success());
}

#[apply(test)]
fn scratch_files_have_a_place_of_a_known_size() {
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        crate::profiles::holds(&profile::build_step(), place, 1 << 30);
    }
}

#[apply(test)]
#[skip(support::unless_python)]
fn a_step_cannot_inspect_other_processes() {
    let script = "import ctypes; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0))";
    let traced = |sandbox: Sandbox| {
        text(&sandbox.output(Command::new("/usr/bin/python3").args(["-c", script])).expect("an outcome").stdout)
    };
    assert_eq!(traced(Sandbox::new()), "0");
    assert_eq!(traced(profile::build_step()), "-1");
}

#[apply(test)]
fn a_hanging_step_is_terminated_and_then_killed() {
    let short = || profile::build_step().map_limits(|limits| limits.wall_time(at_most(Duration::from_millis(300))));
    // As compilers do that remove what they have half made.
    let output = support::sh(&short(), "trap 'echo removed; exit 1' TERM; while :; do sleep 0.05; done");
    assert_eq!((output.outcome.termination, text(&output.stdout)), (Termination::WallTime, "removed".into()));
    let output = support::sh(&short(), "trap : TERM; while :; do sleep 0.05; done");
    assert_eq!(output.outcome.termination, Termination::WallTime);
    assert!(output.outcome.usage.wall_time >= Duration::from_secs(2), "{}", output.outcome);
}
