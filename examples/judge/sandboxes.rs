//! The two sandboxes: that of the compiler, and that of the program. Of the host both see programs and libraries alone
//! ([`profile::judge`]), or nothing at all: the answers, other submissions and the judge's own files are on the same disk, and
//! a compiler includes whatever file it can read (`.incbin`). The input comes by a pipe, beside which nothing lies.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use stockade::{
    Bind, Cgroup, Command, HostPath, Limits, Output, Resource, Root, Sandbox, Seccomp, Stdio, Tmpfs, profile,
};
use tempfile::TempDir;

use crate::Failure;
use crate::corpus::{SUBMISSIONS, Submission, Test};
use crate::verdict::{Judged, Verdict};

/// What a compiler may use. Go compiles its library anew each time.
const COMPILER_CPU: Duration = Duration::from_secs(60);
const COMPILER_WALL: Duration = Duration::from_secs(120);
const COMPILER_MEMORY: u64 = 1 << 30;
const COMPILER_PROCESSES: u64 = 128;
/// Bytes of a file that it may write, and of all its temporary files together.
const COMPILER_FILE: u64 = 64 << 20;
const COMPILER_TMP: u64 = 512 << 20;

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
    /// The directory with the tests and the submissions.
    problem: &'a Path,
    compiled: TempDir,
}

impl<'a> Judge<'a> {
    pub fn new(problem: &'a Path, tests: &'a [Test]) -> Result<Self, Failure> {
        let compiled = tempfile::Builder::new().prefix("judge-").tempdir()?;
        // A sandbox of root's has another user, who must be able to look into it.
        fs::set_permissions(compiled.path(), Permissions::from_mode(0o755))?;
        Ok(Self { tests, problem, compiled })
    }

    /// Where a submission is compiled to. A compiler has written there: no symlink in it is followed.
    fn directory(&self, submission: &Submission) -> HostPath {
        HostPath::beneath(self.compiled.path(), &submission.name)
    }

    /// Its source, as a file in a sandbox.
    fn source(&self, submission: &Submission) -> Bind {
        let target = format!("/src/program.{}", submission.language.extension);
        Bind::beneath(self.problem.join(SUBMISSIONS), &submission.name, target)
    }

    /// The programs and libraries of the host, but not the problem, wherever it lies.
    fn system(&self, root: Root, submission: &Submission) -> Root {
        let settings = submission.language.settings().into_iter();
        settings.fold(root, |root, path| root.bind(&path, &path)).mask(self.problem)
    }

    /// Compiles a submission. A verdict is the end of it.
    pub fn compile(&self, submission: &Submission, cpu: u32) -> Result<Option<Judged>, Failure> {
        let language = submission.language;
        let Some(compiler) = language.compile else { return Ok(None) };
        fs::create_dir(self.compiled.path().join(&submission.name))?;
        let root = |root: Root| {
            let scratch = Tmpfs::new("/tmp").size(COMPILER_TMP).mode(0o1777);
            let root = self.system(root, submission).mount(scratch).bind_rw(self.directory(submission), "/out");
            let root = language.directory().into_iter().fold(root, |root, path| root.bind(path, "/toolchain"));
            root.mount(self.source(submission))
        };
        let limits = Limits::new().cpu(COMPILER_CPU).wall(COMPILER_WALL).stdout(OUTPUT).stderr(OUTPUT);
        let limits = limits.rlimit(Resource::Fsize, COMPILER_FILE, COMPILER_FILE);
        let cgroup = pinned(cpu).memory_max(COMPILER_MEMORY).pids_max(COMPILER_PROCESSES);
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).envs(COMPILER_ENVIRONMENT);
        let sandbox = profile::judge().map_root(root).seccomp(Seccomp::new()).limits(limits).cgroup(cgroup);
        let output = sandbox.output(command)?;
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
            command.args(&run[1..]);
            let output = with_input(&sandbox, command, &test.input)?;
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
        let root = |root: Root| {
            let root = if language.is_static { Root::empty() } else { self.system(root, submission) };
            match language.compile {
                Some(_) => root.bind(self.directory(submission), "/out"),
                None => root.mount(self.source(submission)),
            }
        };
        let allowance = &language.allowance;
        let limits = Limits::new().cpu(allowance.cpu).wall(WALL).idle(IDLE).stdout(OUTPUT).stderr(OUTPUT);
        let cgroup = pinned(cpu).memory_max(allowance.memory).pids_max(allowance.processes);
        profile::judge().map_root(root).seccomp((language.policy)()).limits(limits).cgroup(cgroup)
    }
}

/// Runs a command that reads its input from a pipe, and collects what it writes.
fn with_input(sandbox: &Sandbox, mut command: Command, input: &[u8]) -> Result<Output, stockade::Error> {
    let mut child = sandbox.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let pipe = child.stdin.take();
    thread::scope(|scope| {
        // A program need not read all of it: the pipe ends with it.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input)));
        child.wait_with_output()
    })
}

/// A cgroup on one CPU.
fn pinned(cpu: u32) -> Cgroup {
    Cgroup::new().cpuset_cpus(cpu.to_string())
}
