//! The two sandboxes: that of the compiler, and that of the program.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use stockade::{Cgroup, Command, Limits, Resource, Root, Sandbox};
use tempfile::TempDir;

use crate::Failure;
use crate::corpus::{Submission, Test};
use crate::verdict::{Judged, Verdict};

/// What a compiler may use. Go compiles its library anew each time.
const COMPILER_CPU: Duration = Duration::from_secs(60);
const COMPILER_WALL: Duration = Duration::from_secs(120);
const COMPILER_MEMORY: u64 = 1 << 30;
const COMPILER_PROCESSES: u64 = 128;
/// Bytes of a file that it may write.
const COMPILER_FILE: u64 = 64 << 20;

/// Time that a program may take, and that it may do nothing. Both are long: they must not decide over those who wait for
/// a CPU, and a busy machine can make anybody wait for more than a second.
const WALL: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(5);
/// Bytes that a program may write to each of standard output and standard error.
const OUTPUT: u64 = 64 << 10;

/// What Go and Java need to know. Nothing is kept in `/tmp`, which is the sandbox's own.
const COMPILER_ENVIRONMENT: [(&str, &str); 5] = [
    ("CGO_ENABLED", "0"),
    ("GOCACHE", "/tmp/go-cache"),
    ("GOPATH", "/tmp/go"),
    ("GOTOOLCHAIN", "local"),
    ("JAVA_TOOL_OPTIONS", "-XX:-UsePerfData -Xmx256m"),
];

/// The judge, with a directory for what the compilers make.
pub struct Judge<'a> {
    tests: &'a [Test],
    compiled: TempDir,
}

impl<'a> Judge<'a> {
    pub fn new(tests: &'a [Test]) -> Result<Self, Failure> {
        let compiled = tempfile::Builder::new().prefix("judge-").tempdir()?;
        // A sandbox of root's has another user, who must be able to look into it.
        fs::set_permissions(compiled.path(), Permissions::from_mode(0o755))?;
        Ok(Self { tests, compiled })
    }

    /// Where a submission is compiled to.
    fn directory(&self, submission: &Submission) -> PathBuf {
        self.compiled.path().join(&submission.name)
    }

    /// Compiles a submission. A verdict is the end of it.
    pub fn compile(&self, submission: &Submission, cpu: u32) -> Result<Option<Judged>, Failure> {
        let language = submission.language;
        let Some(compiler) = language.compile else { return Ok(None) };
        let directory = self.directory(submission);
        fs::create_dir(&directory)?;
        let mut root = Root::host().bind(&submission.path, source(submission)).bind_rw(&directory, "/out");
        if let Some(toolchain) = language.directory() {
            root = root.bind(toolchain, "/toolchain");
        }
        let limits = Limits::new().cpu(COMPILER_CPU).wall(COMPILER_WALL).stdout(OUTPUT).stderr(OUTPUT);
        let limits = limits.rlimit(Resource::Fsize, COMPILER_FILE, COMPILER_FILE);
        let cgroup = pinned(cpu).memory_max(COMPILER_MEMORY).pids_max(COMPILER_PROCESSES);
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).envs(COMPILER_ENVIRONMENT);
        let output = Sandbox::new().root(root).limits(limits).cgroup(cgroup).output(command)?;
        Ok((!output.outcome.success()).then(|| {
            let mut judged = Judged::new();
            judged.count(&output.outcome);
            judged.decide(Verdict::CompileError, None, &output.stderr);
            judged
        }))
    }

    /// Runs a submission on the tests, up to the first that it does not pass.
    pub fn run(&self, submission: &Submission, cpu: u32) -> Result<Judged, Failure> {
        let sandbox = self.sandbox(submission, cpu);
        let run = submission.language.run;
        let mut judged = Judged::new();
        for (number, test) in (1..).zip(self.tests) {
            let mut command = Command::new(run[0]);
            command.args(&run[1..]).stdin(File::open(&test.input)?);
            let output = sandbox.output(command)?;
            judged.count(&output.outcome);
            let verdict = Verdict::new(output.outcome.termination, test.accepts(&output.stdout));
            if verdict != Verdict::Accepted {
                judged.decide(verdict, Some(number), &output.stderr);
                break;
            }
        }
        Ok(judged)
    }

    /// The sandbox that a submission is run in: it sees what it needs, and no more.
    fn sandbox(&self, submission: &Submission, cpu: u32) -> Sandbox {
        let language = submission.language;
        let root = if language.is_static { Root::empty() } else { Root::host() };
        let root = match language.compile {
            Some(_) => root.bind(self.directory(submission), "/out"),
            None => root.bind(&submission.path, source(submission)),
        };
        let allowance = &language.allowance;
        let limits = Limits::new().cpu(allowance.cpu).wall(WALL).idle(IDLE).stdout(OUTPUT).stderr(OUTPUT);
        let cgroup = pinned(cpu).memory_max(allowance.memory).pids_max(allowance.processes);
        Sandbox::new().root(root).seccomp((language.policy)()).limits(limits).cgroup(cgroup)
    }
}

/// Where the sandboxes have the source of a submission.
fn source(submission: &Submission) -> String {
    format!("/src/program.{}", submission.language.extension)
}

/// A cgroup on one CPU.
fn pinned(cpu: u32) -> Cgroup {
    Cgroup::new().cpuset_cpus(cpu.to_string())
}
