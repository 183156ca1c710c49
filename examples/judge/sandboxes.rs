//! The sandboxes of the compiler ([`profile::compile_untrusted`]) and of the program ([`profile::judge`]). Both show only
//! programs and libraries of the host, or nothing: the answers, other submissions and the judge's own files are on the
//! same disk, and a compiler can include every file that it can read (`.incbin`). The input comes through a pipe, which
//! gives no access to a directory.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use stockade::mount::{Bind, HostPath};
use stockade::{Cgroup, Command, Limits, Output, Root, Sandbox, Stdio, profile};
use tempfile::TempDir;

use crate::Failure;
use crate::corpus::{SUBMISSIONS, Submission, Test};
use crate::judged::Judged;
use crate::language::COMPILER_ENVIRONMENT;
use crate::verdict::Verdict;

/// Limits of a compiler with all its processes together. Go compiles its standard library each time.
const COMPILER_CPU: Duration = Duration::from_secs(60);
const COMPILER_MEMORY: u64 = 1 << 30;
const COMPILER_PROCESSES: u64 = 128;

/// Wall-clock limit and idle timeout of a program. Both are long: a program that waits for a CPU must not exceed them,
/// and a busy machine can delay it for more than a second.
const WALL: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(5);
/// Maximum size of standard output, and of standard error, in bytes.
const OUTPUT: u64 = 64 << 10;

/// The judge, with a directory for the output of compilers.
pub struct Judge<'a> {
    tests: &'a [Test],
    /// Directory of the tests and the submissions.
    problem: &'a Path,
    compiled: TempDir,
}

impl<'a> Judge<'a> {
    pub fn new(problem: &'a Path, tests: &'a [Test]) -> Result<Self, Failure> {
        let compiled = tempfile::Builder::new().prefix("judge-").tempdir()?;
        // The program of a root caller runs as another user, who must be able to enter the directory.
        fs::set_permissions(compiled.path(), Permissions::from_mode(0o755))?;
        Ok(Self { tests, problem, compiled })
    }

    /// Output directory of a submission's compiler. It holds untrusted data: no symlink in it is followed.
    fn directory(&self, submission: &Submission) -> HostPath {
        HostPath::beneath(self.compiled.path(), &submission.name)
    }

    /// Returns the source as a file of a sandbox.
    fn source(&self, submission: &Submission) -> Bind {
        let target = format!("/src/{}", submission.language.file);
        Bind::beneath(self.problem.join(SUBMISSIONS), &submission.name, target)
    }

    /// Compiles a submission. Returns a verdict if that fails.
    pub fn compile(&self, submission: &Submission, cpu: u32) -> Result<Option<Judged>, Failure> {
        let language = submission.language;
        let Some(compiler) = language.compile else { return Ok(None) };
        fs::create_dir(self.compiled.path().join(&submission.name))?;
        let root = |root: Root| {
            let root = root.mask(self.problem).bind_rw(self.directory(submission), "/out");
            let root = language.directory().into_iter().fold(root, |root, path| root.bind(path, "/toolchain"));
            root.with(self.source(submission))
        };
        let limits = |limits: Limits| limits.cpu_time(COMPILER_CPU).stdout_max(OUTPUT).stderr_max(OUTPUT);
        let cgroup = pinned(cpu).memory_max(COMPILER_MEMORY).pids_max(COMPILER_PROCESSES);
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).envs(COMPILER_ENVIRONMENT);
        let output = profile::compile_untrusted().map_root(root).map_limits(limits).cgroup(cgroup).output(command)?;
        Ok((!output.outcome.success()).then(|| {
            let mut judged = Judged::new();
            judged.count(&output.outcome);
            judged.decide(Verdict::CompileError, None, &output.stderr);
            judged
        }))
    }

    /// Runs a submission on the tests, up to the first that it fails.
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

    /// Returns the sandbox that a submission runs in, with only what its language needs.
    fn sandbox(&self, submission: &Submission, cpu: u32) -> Sandbox {
        let language = submission.language;
        let root = |root: Root| {
            let root = if language.is_static { Root::empty() } else { root.mask(self.problem) };
            match language.compile {
                Some(_) => root.bind(self.directory(submission), "/out"),
                None => root.with(self.source(submission)),
            }
        };
        let allowance = &language.allowance;
        let limits = Limits::new()
            .cpu_time(allowance.cpu)
            .wall_time(WALL)
            .idle_timeout(IDLE)
            .stdout_max(OUTPUT)
            .stderr_max(OUTPUT);
        let cgroup = pinned(cpu).memory_max(allowance.memory).pids_max(allowance.processes);
        profile::judge().map_root(root).seccomp((language.policy)()).limits(limits).cgroup(cgroup)
    }
}

/// Runs a command with an input, and collects its output.
fn with_input(sandbox: &Sandbox, mut command: Command, input: &[u8]) -> Result<Output, stockade::Error> {
    let mut child = sandbox.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let pipe = child.stdin.take();
    thread::scope(|scope| {
        // A program need not read all of its input: this write fails when it has exited.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input)));
        child.wait_with_output()
    })
}

/// Returns a cgroup for one CPU.
fn pinned(cpu: u32) -> Cgroup {
    Cgroup::new().cpuset_cpus(cpu.to_string())
}
