//! Judging a job, from the sources to the result. It blocks: [`super::slots`] calls it on threads.

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use stockade::outcome::Enforcement;
use stockade::{Layer, Output, Termination};

use super::blobs::{self, digest_of};
use super::check::{Checked, ReadyChecker, Texts};
use super::compiler::{Compiled, Executable, compile};
use super::failure::Failure;
use super::interact::{Conversation, converse};
use super::job::{Allowed, Checker, Job, Program, Test};
use super::report::{Excerpt, Figures, JobResult, PROGRAM_EXCERPT, TestResult};
use super::sandboxes::{Host, OF_PROBLEM, command};
use super::scratch::Scratch;
use super::verdict::Verdict;

/// Number of compiled checkers and interactors that are kept.
const KEPT: usize = 32;

/// What judges jobs.
#[derive(Debug)]
pub struct Judge {
    host: Host,
    scratch: Scratch,
    blobs: Option<PathBuf>,
    /// Name of this worker in results.
    worker: String,
    /// CPU of each slot, repeated if there are more slots. If it is empty, the kernel chooses.
    cpus: Vec<u32>,
    enforcement: Enforcement,
    /// Compiled checkers and interactors, by the digest of their sources: those of a problem serve many jobs.
    of_problems: Mutex<HashMap<String, Arc<Executable>>>,
}

/// Settings of a judge.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: Host,
    /// Directory for compiled programs, which workers share.
    pub scratch: PathBuf,
    /// Directory of tests by digest.
    pub blobs: Option<PathBuf>,
    pub worker: String,
    pub cpus: Vec<u32>,
}

impl Judge {
    /// Prepares a directory, and runs a program in a sandbox as that of submissions, on each CPU. Returns an error if this
    /// host cannot enforce their limits.
    pub fn new(settings: Settings) -> Result<Self, Failure> {
        let Settings { mut host, scratch: shared, blobs, worker, cpus } = settings;
        let scratch = Scratch::create(&shared)?;
        host.hidden.extend(blobs.iter().cloned().chain([shared]));
        for path in &mut host.hidden {
            *path = path.canonicalize().map_err(Failure::to(format!("find {}", path.display())))?;
        }
        let mut enforcement = try_out(&host, cpus.first().copied())?;
        for &cpu in cpus.iter().skip(1) {
            enforcement = try_out(&host, Some(cpu))?;
        }
        Ok(Self { host, scratch, blobs, worker, cpus, enforcement, of_problems: Mutex::default() })
    }

    /// What is enforced on this host.
    pub fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    /// Judges a job. `on_test` is called after each test.
    ///
    /// # Errors
    ///
    /// [`Failure::Job`] if the job is invalid, and [`Failure::Worker`] if another attempt may succeed.
    pub fn judge(&self, job: &Job, slot: usize, on_test: impl Fn(&TestResult)) -> Result<JobResult, Failure> {
        job.validate()?;
        let cpu = self.cpus.get(slot % self.cpus.len().max(1)).copied();
        let (executable, log) = match compile(&self.host, &self.scratch, &job.program, cpu)? {
            Compiled::Executable(executable, log) => (executable, log),
            Compiled::Rejected(log) => return Ok(self.sign(JobResult::not_compiled(&job.id, log))),
        };
        let runs = Runs {
            judge: self,
            executable,
            allowed: job.limits.of(job.program.language()?),
            checker: self.checker(&job.checker, cpu)?,
            interactor: job.interactor.as_ref().map(|program| self.of_problem(program, cpu)).transpose()?,
            cpu,
        };
        let mut tests = vec![];
        for test in &job.tests {
            let result = runs.run(test)?;
            on_test(&result);
            let is_last = !job.run_all && result.verdict != Verdict::Accepted;
            tests.push(result);
            if is_last {
                break;
            }
        }
        Ok(self.sign(JobResult::judged(&job.id, log, tests)))
    }

    /// Adds the name of this worker, and what it does not enforce.
    pub fn sign(&self, result: JobResult) -> JobResult {
        let unenforced = self.enforcement.unenforced.iter();
        let unenforced = unenforced.map(|one| format!("{}: {}: {}", one.layer, one.requested, one.reason)).collect();
        JobResult { unenforced, worker: self.worker.clone(), ..result }
    }

    fn checker(&self, checker: &Checker, cpu: Option<u32>) -> Result<ReadyChecker, Failure> {
        Ok(match checker {
            Checker::Exact => ReadyChecker::Exact,
            Checker::Tokens => ReadyChecker::Tokens,
            &Checker::Float { absolute, relative } => ReadyChecker::Float { absolute, relative },
            Checker::Program(program) => ReadyChecker::Program(self.of_problem(program, cpu)?),
        })
    }

    /// Compiles a checker or an interactor, or returns one that was compiled before.
    fn of_problem(&self, program: &Program, cpu: Option<u32>) -> Result<Arc<Executable>, Failure> {
        let kept = || self.of_problems.lock().unwrap_or_else(PoisonError::into_inner);
        let json = serde_json::to_vec(program).map_err(Failure::to("identify a program"))?;
        let digest = digest_of(&json);
        if let Some(executable) = kept().get(&digest) {
            return Ok(executable.clone());
        }
        let executable = match compile(&self.host, &self.scratch, program, cpu)? {
            Compiled::Executable(executable, _) => Arc::new(executable),
            Compiled::Rejected(log) => {
                return Err(Failure::Job(format!("the checker or interactor does not compile: {}", log.log.text)));
            }
        };
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(digest, executable.clone());
        Ok(executable)
    }
}

/// Runs a program in a sandbox as that of submissions. Returns what was enforced.
fn try_out(host: &Host, cpu: Option<u32>) -> Result<Enforcement, Failure> {
    let python = Program { language: "python".into(), sources: vec![] };
    let sandbox = host.program(&Executable { program: python, directory: None }, &OF_PROBLEM, cpu)?;
    let outcome = sandbox.status(command(&["true"])).map_err(|error| {
        let failure = Failure::sandbox("a program under the limits of jobs", &error);
        match error.layer() {
            Some(Layer::Cgroup) => {
                Failure::Worker(format!("{failure}; --without-cgroup judges without what a cgroup limits"))
            }
            _ => failure,
        }
    })?;
    match outcome.success() {
        true => Ok(outcome.enforcement),
        false => Err(Failure::Worker(format!("a trial run of true {}", outcome.termination))),
    }
}

/// What the tests of a job have in common.
struct Runs<'a> {
    judge: &'a Judge,
    executable: Executable,
    allowed: Allowed,
    checker: ReadyChecker,
    interactor: Option<Arc<Executable>>,
    cpu: Option<u32>,
}

impl Runs<'_> {
    fn run(&self, test: &Test) -> Result<TestResult, Failure> {
        let blobs = self.judge.blobs.as_deref();
        let (input, answer) = (blobs::read(blobs, &test.input)?, blobs::read(blobs, &test.answer)?);
        if let Some(interactor) = &self.interactor {
            let Conversation { verdict, submission, checked } =
                converse(&self.judge.host, (&self.executable, &self.allowed), interactor, &input, self.cpu)?;
            return result(test, verdict, &submission, checked);
        }
        let sandbox = self.judge.host.program(&self.executable, &self.allowed, self.cpu)?;
        let mut command = command(self.executable.program.language()?.run);
        command.stdin_bytes(&*input);
        let output = sandbox.output(command).map_err(|error| Failure::sandbox("the submission", &error))?;
        // Other outputs are not worth a checker's time.
        let checked = match output.outcome.success() {
            true => {
                let texts = Texts { input: &input, output: &output.stdout, answer: &answer };
                self.checker.check(&self.judge.host, self.cpu, &texts)?
            }
            false => Checked::default(),
        };
        result(test, Verdict::new(output.outcome.termination, checked.is_right), &output, checked)
    }
}

/// Returns the result of a test, or an error if the run says nothing about the program.
fn result(test: &Test, verdict: Verdict, output: &Output, checked: Checked) -> Result<TestResult, Failure> {
    let termination = output.outcome.termination;
    if verdict == Verdict::Unknown || termination == Termination::HostMemory {
        return Err(Failure::Worker(format!("test {}: the submission was {termination}", test.name)));
    }
    Ok(TestResult {
        test: test.name.clone(),
        verdict,
        summary: verdict.to_string(),
        usage: Figures::new(&output.outcome),
        stdout: Excerpt::new(&output.stdout, PROGRAM_EXCERPT, output.stdout_truncated),
        stderr: Excerpt::new(&output.stderr, PROGRAM_EXCERPT, output.stderr_truncated),
        message: checked.message,
    })
}
