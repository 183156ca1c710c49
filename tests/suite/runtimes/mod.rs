//! Runtimes of languages with threads, a JIT compiler or a garbage collector: they run in every sandbox that the crate
//! has ready.

use std::process::Command as Host;
use std::time::Duration;

use stockade::mount::Bind;
use stockade::{Cgroup, Command, Limits, Outcome, Output, Sandbox, Seccomp, Termination, profile};
use tempfile::TempDir;

use crate::support::{at_most, shared_dir, text, unless_root_with_groups, unless_runs};

/// A runtime, and the program in its language that does what its argument says.
struct Runtime {
    /// A program of it that the host may have.
    program: &'static str,
    file: &'static str,
    source: &'static str,
    /// The compiler, which the host runs in the directory of the source.
    compiler: &'static [&'static str],
    /// The command in the sandbox, which has that directory at `/program`.
    command: &'static [&'static str],
    /// Whether it lists the interfaces of the network to resolve a name, which takes netlink(7).
    lists_interfaces: bool,
    /// Whether it starts by executing other programs, which a submission may not.
    is_started_by_a_script: bool,
}

const JAVA: Runtime = Runtime {
    program: "javac",
    file: "Task.java",
    source: include_str!("programs/Task.java"),
    compiler: &["javac", "Task.java"],
    command: &["java", "-cp", "/program", "Task"],
    lists_interfaces: false,
    is_started_by_a_script: false,
};
const NODE: Runtime = Runtime {
    program: "node",
    file: "task.js",
    source: include_str!("programs/task.js"),
    compiler: &[],
    command: &["node", "/program/task.js"],
    lists_interfaces: false,
    is_started_by_a_script: false,
};
const PYTHON: Runtime = Runtime {
    program: "/usr/bin/python3",
    file: "task.py",
    source: include_str!("programs/task.py"),
    compiler: &[],
    command: &["/usr/bin/python3", "/program/task.py"],
    lists_interfaces: false,
    is_started_by_a_script: false,
};
const GO: Runtime = Runtime {
    program: "go",
    file: "task.go",
    source: include_str!("programs/task.go"),
    compiler: &["go", "build", "task.go"],
    command: &["/program/task"],
    lists_interfaces: false,
    is_started_by_a_script: false,
};
const MONO: Runtime = Runtime {
    program: "mcs",
    file: "task.cs",
    source: include_str!("programs/task.cs"),
    compiler: &["mcs", "task.cs"],
    command: &["mono", "/program/task.exe"],
    lists_interfaces: true,
    is_started_by_a_script: false,
};
const RUBY: Runtime = Runtime {
    program: "ruby",
    file: "task.rb",
    source: include_str!("programs/task.rb"),
    compiler: &[],
    command: &["ruby", "/program/task.rb"],
    lists_interfaces: false,
    is_started_by_a_script: false,
};
const PHP: Runtime = Runtime {
    program: "php",
    file: "task.php",
    source: include_str!("programs/task.php"),
    compiler: &[],
    command: &["php", "/program/task.php"],
    lists_interfaces: false,
    is_started_by_a_script: false,
};
const ERLANG: Runtime = Runtime {
    program: "erlc",
    file: "task.erl",
    source: include_str!("programs/task.erl"),
    compiler: &["erlc", "task.erl"],
    command: &[
        "erl",
        "-noshell",
        "-pa",
        "/program",
        "-eval",
        "task:main(init:get_plain_arguments()), halt().",
        "-extra",
    ],
    lists_interfaces: false,
    is_started_by_a_script: true,
};

impl Runtime {
    /// Returns why the runtime cannot be tested here.
    fn missing(&self) -> Option<String> {
        unless_runs(self.program)
    }

    /// Writes the program and compiles it.
    fn build(&self) -> TempDir {
        let place = shared_dir();
        std::fs::write(place.path().join(self.file), self.source).unwrap();
        if let [compiler, args @ ..] = self.compiler {
            let mut host = Host::new(compiler);
            // The directories that Go wants are its own.
            host.args(args)
                .current_dir(place.path())
                .env("GOCACHE", place.path().join("cache"))
                .env("GO111MODULE", "off");
            let output = host.output().unwrap();
            assert!(output.status.success(), "{host:?}: {}", text(&output.stderr));
        }
        place
    }

    fn run(&self, place: &TempDir, sandbox: &Sandbox, task: &str) -> Output {
        let root = |root: stockade::Root| root.with(Bind::new(place.path(), "/program").unmapped());
        let mut command = Command::new(self.command[0]);
        command.args(&self.command[1..]).arg(task);
        let limits = |limits: stockade::Limits| limits.wall_time(at_most(Duration::from_secs(60)));
        sandbox.clone().map_root(root).map_limits(limits).output(command).unwrap()
    }
}

/// The sandboxes in which a program may start others.
fn sandboxes() -> [(&'static str, Sandbox); 4] {
    [
        ("default", Sandbox::new()),
        ("build_step", profile::build_step()),
        ("test", profile::test()),
        ("agent", profile::agent()),
    ]
}

/// A judge for these languages, whose threads need more address space than they use: a cgroup limits the memory. An
/// ordinary user's has none here, and no limit on memory then.
fn judge() -> Sandbox {
    let sandbox = profile::judge().seccomp(Seccomp::runtime());
    if unless_root_with_groups().is_none() {
        sandbox.cgroup(Cgroup::new().memory_max(256 << 20).pids_max(256))
    } else {
        sandbox.limits(Limits::new())
    }
}

#[track_caller]
fn assert_says(output: &Output, what: &str, words: &[&str]) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.outcome.success(), "{what}: {}, {out:?}, stderr {err:?}", output.outcome);
    assert!(words.iter().any(|word| out.trim() == *word), "{what}: {out:?}, stderr {err:?}");
}

/// Runs the program in every sandbox.
fn assert_runs(runtime: &Runtime) {
    const TASKS: [(&str, &[&str]); 4] = [
        ("hello", &["hello"]),
        ("thread", &["thread"]),
        ("subprocess", &["child"]),
        ("resolve", &["127.0.0.1", "::1", "0:0:0:0:0:0:0:1"]),
    ];
    let place = runtime.build();
    for (name, mut sandbox) in sandboxes() {
        if runtime.lists_interfaces {
            sandbox = sandbox.map_seccomp(Seccomp::allow_netlink);
        }
        for (task, words) in TASKS {
            assert_says(&runtime.run(&place, &sandbox, task), &format!("{name} {task}"), words);
        }
    }
    for (task, words) in TASKS {
        let output = runtime.run(&place, &judge(), task);
        match task {
            // A submission starts no other program.
            _ if task == "subprocess" || runtime.is_started_by_a_script => {
                assert!(is_killed_for(&output.outcome, &["execve"]), "{}", output.outcome)
            }
            // It has no socket at all.
            "resolve" if runtime.lists_interfaces => {
                assert!(
                    matches!(output.outcome.termination, Termination::Exited(code) if code != 0),
                    "{}",
                    output.outcome
                );
            }
            _ => assert_says(&output, &format!("judge {task}"), words),
        }
    }
}

fn is_killed_for(outcome: &Outcome, calls: &[&str]) -> bool {
    matches!(outcome.termination, Termination::Syscall(call) if call.name().is_some_and(|name| calls.contains(&name)))
}

/// Runs the program into a limit on memory: it ends by that, or by an error of the runtime's own, and not by the time.
fn assert_memory_is_limited(runtime: &Runtime) {
    let place = runtime.build();
    let group = Cgroup::new().memory_max(256 << 20).pids_max(256);
    let judge = Some(("judge", judge())).filter(|_| !runtime.is_started_by_a_script);
    for (name, sandbox) in sandboxes().into_iter().chain(judge) {
        let output = runtime.run(&place, &sandbox.cgroup(group.clone()), "memory");
        let err = text(&output.stderr);
        let has_run_out = match output.outcome.termination {
            Termination::Memory => true,
            Termination::Exited(code) => code != 0 && err.to_lowercase().contains("memory"),
            Termination::Signaled { .. } => err.to_lowercase().contains("memory"),
            _ => false,
        };
        assert!(has_run_out, "{name}: {}, stderr {err:?}", output.outcome);
        println!("{name}: {}, {}", output.outcome, err.lines().next().unwrap_or_default());
    }
}

/// The tests of each runtime.
macro_rules! runtimes {
    ($($language:ident: $runtime:ident,)*) => {$(
        mod $language {
            use super::*;

            fn unless_installed() -> Option<String> {
                $runtime.missing()
            }

            #[apply(test)]
            #[skip(unless_installed)]
            fn runs_in_every_sandbox() {
                assert_runs(&$runtime);
            }

            #[apply(test)]
            #[only(Root)]
            #[skip(unless_root_with_groups)]
            #[skip(unless_installed)]
            fn ends_at_the_limit_on_memory() {
                assert_memory_is_limited(&$runtime);
            }
        }
    )*};
}

runtimes! {
    java: JAVA,
    node: NODE,
    python: PYTHON,
    go: GO,
    mono: MONO,
    ruby: RUBY,
    php: PHP,
    erlang: ERLANG,
}
