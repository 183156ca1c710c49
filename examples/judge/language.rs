//! The languages that submissions are written in: how each is compiled and run, and what it may use.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use stockade::Seccomp;

use crate::policy;

/// Where a sandbox looks for programs, and so where the tools must be.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A language. In the sandboxes a source is `/src/program.EXTENSION`, and what the compiler makes of it is in `/out`.
pub struct Language {
    pub name: &'static str,
    pub extension: &'static str,
    /// Runs on a host that has the tools.
    pub probe: &'static [&'static str],
    /// The probe says in which directory the tools are, if they are not among the host's programs. It is seen as
    /// `/toolchain`.
    has_directory: bool,
    /// The compiler, if there is one.
    pub compile: Option<&'static [&'static str]>,
    pub run: &'static [&'static str],
    /// The program needs nothing but itself.
    pub is_static: bool,
    pub allowance: Allowance,
    /// Which system calls the program may make.
    pub policy: fn() -> Seccomp,
    /// The directory that the probe has told; `None` inside if the probe has failed.
    found: OnceLock<Option<PathBuf>>,
}

/// What a program may use.
pub struct Allowance {
    pub cpu: Duration,
    pub memory: u64,
    pub processes: u64,
}

/// That of most: many times what any of them needs, and soon used up by those who want more.
const PLAIN: Allowance = Allowance { cpu: Duration::from_millis(400), memory: 32 << 20, processes: 16 };
/// That of languages whose runtimes start with threads and memory of their own.
const HEAVY: Allowance = Allowance { cpu: Duration::from_secs(3), memory: 256 << 20, processes: 64 };

/// C. The others say in what they differ from it.
fn c() -> Language {
    Language {
        name: "C",
        extension: "c",
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

/// All of them.
pub static LANGUAGES: LazyLock<[Language; 7]> = LazyLock::new(|| {
    [
        c(),
        Language {
            name: "C++",
            extension: "cpp",
            probe: &["g++", "--version"],
            compile: Some(&["g++", "-O2", "-static", "-o", "/out/program", "/src/program.cpp"]),
            ..c()
        },
        Language {
            name: "Rust",
            extension: "rs",
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
            probe: &["go", "env", "GOROOT"],
            has_directory: true,
            compile: Some(&["/toolchain/bin/go", "build", "-o", "/out/program", "/src/program.go"]),
            allowance: HEAVY,
            policy: policy::runtime,
            ..c()
        },
        Language {
            name: "Java",
            extension: "java",
            probe: &["javac", "-version"],
            compile: Some(&["javac", "-d", "/out", "/src/program.java"]),
            run: &["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-cp", "/out", "Main"],
            is_static: false,
            allowance: HEAVY,
            policy: policy::runtime,
            ..c()
        },
        Language {
            name: "Node",
            extension: "js",
            probe: &["node", "--version"],
            compile: None,
            run: &["node", "/src/program.js"],
            is_static: false,
            allowance: HEAVY,
            policy: policy::runtime,
            ..c()
        },
        Language {
            name: "Python",
            extension: "py",
            probe: &["python3", "--version"],
            compile: None,
            run: &["python3", "/src/program.py"],
            is_static: false,
            ..c()
        },
    ]
});

impl Language {
    /// Whether its tools are on this host.
    pub fn is_present(&self) -> bool {
        self.found.get_or_init(|| self.look()).is_some()
    }

    /// What it needs of `/etc`: Debian has Java's settings there.
    pub fn settings(&self) -> Vec<PathBuf> {
        if self.name != "Java" {
            return vec![];
        }
        let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("java"));
        ours.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// Where they are, if they are not among the host's programs.
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
