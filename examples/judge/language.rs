//! The languages of submissions: how each is compiled and run, and its limits.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use stockade::Seccomp;

// `examples/workers` has these modules too.
use super::policy;

/// Search path inside the sandboxes. The tools must be in these directories.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Environment that Go and Java need. `/tmp` is private to the sandbox, so nothing is kept there.
pub const COMPILER_ENVIRONMENT: [(&str, &str); 5] = [
    ("CGO_ENABLED", "0"),
    ("GOCACHE", "/tmp/go-cache"),
    ("GOPATH", "/tmp/go"),
    ("GOTOOLCHAIN", "local"),
    ("JAVA_TOOL_OPTIONS", "-XX:-UsePerfData -Xmx256m"),
];

/// A language. In the sandboxes the source is `/src/FILE`, and the compiler's output is in `/out`.
pub struct Language {
    pub name: &'static str,
    pub extension: &'static str,
    /// Name of the source in the sandboxes.
    pub file: &'static str,
    /// Command that succeeds if the tools are installed.
    pub probe: &'static [&'static str],
    /// Whether the probe prints the directory of the tools, for tools outside the search path. The sandboxes show it as
    /// `/toolchain`.
    has_directory: bool,
    /// Command that compiles the source, if the language is compiled.
    pub compile: Option<&'static [&'static str]>,
    pub run: &'static [&'static str],
    /// Whether the program is static, and needs no other file.
    pub is_static: bool,
    pub allowance: Allowance,
    /// Seccomp policy of the program.
    pub policy: fn() -> Seccomp,
    /// Directory that the probe has printed; `None` inside if the probe has failed.
    found: OnceLock<Option<PathBuf>>,
}

/// Limits of a program.
#[derive(PartialEq)]
pub struct Allowance {
    pub cpu: Duration,
    pub memory: u64,
    pub processes: u64,
}

/// Limits of most languages: many times what a correct program needs, and soon exceeded by one that allocates in a
/// loop.
const PLAIN: Allowance = Allowance { cpu: Duration::from_millis(400), memory: 32 << 20, processes: 16 };
/// Limits of languages whose runtimes start with threads and memory of their own.
pub const HEAVY: Allowance = Allowance { cpu: Duration::from_secs(3), memory: 256 << 20, processes: 64 };

/// C. The others state how they differ from it.
fn c() -> Language {
    Language {
        name: "C",
        extension: "c",
        file: "program.c",
        probe: &["gcc", "--version"],
        has_directory: false,
        compile: Some(&["gcc", "-O2", "-static", "-o", "/out/program", "/src/program.c"]),
        run: &["/out/program"],
        is_static: true,
        allowance: PLAIN,
        policy: policy::computation,
        found: OnceLock::new(),
    }
}

/// All languages.
pub static LANGUAGES: LazyLock<[Language; 7]> = LazyLock::new(|| {
    [
        c(),
        Language {
            name: "C++",
            extension: "cpp",
            file: "program.cpp",
            probe: &["g++", "--version"],
            compile: Some(&["g++", "-O2", "-static", "-o", "/out/program", "/src/program.cpp"]),
            ..c()
        },
        Language {
            name: "Rust",
            extension: "rs",
            file: "program.rs",
            probe: &["rustc", "--print", "sysroot"],
            has_directory: true,
            compile: Some(&[
                "/toolchain/bin/rustc",
                "-Ctarget-feature=+crt-static",
                "-O",
                "-o",
                "/out/program",
                "/src/program.rs",
            ]),
            ..c()
        },
        Language {
            name: "Go",
            extension: "go",
            file: "program.go",
            probe: &["go", "env", "GOROOT"],
            has_directory: true,
            compile: Some(&["/toolchain/bin/go", "build", "-o", "/out/program", "/src/program.go"]),
            allowance: HEAVY,
            policy: Seccomp::runtime,
            ..c()
        },
        Language {
            name: "Java",
            extension: "java",
            // A public class must be in a file of its name.
            file: "Main.java",
            probe: &["javac", "-version"],
            compile: Some(&["javac", "-sourcepath", "/src", "-d", "/out", "/src/Main.java"]),
            run: &["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-cp", "/out", "Main"],
            is_static: false,
            allowance: HEAVY,
            policy: Seccomp::runtime,
            ..c()
        },
        Language {
            name: "Node",
            extension: "js",
            file: "program.js",
            probe: &["node", "--version"],
            compile: None,
            run: &["node", "/src/program.js"],
            is_static: false,
            allowance: HEAVY,
            policy: Seccomp::runtime,
            ..c()
        },
        Language {
            name: "Python",
            extension: "py",
            file: "program.py",
            probe: &["python3", "--version"],
            compile: None,
            // It would write what it has compiled of imported files beside them.
            run: &["python3", "-B", "/src/program.py"],
            is_static: false,
            ..c()
        },
    ]
});

impl Language {
    /// Whether its tools are installed.
    pub fn is_present(&self) -> bool {
        self.found.get_or_init(|| self.look()).is_some()
    }

    /// Directory of the tools, if it is outside the search path.
    pub fn directory(&self) -> Option<&PathBuf> {
        self.found.get_or_init(|| self.look()).as_ref().filter(|_| self.has_directory)
    }

    fn look(&self) -> Option<PathBuf> {
        let mut probe = Command::new(self.probe[0]);
        probe.args(&self.probe[1..]);
        if !self.has_directory {
            probe.env("PATH", PATH);
        }
        let output = probe.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().into())
    }
}
