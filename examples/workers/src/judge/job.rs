//! A job: what to judge, as clients and the broker send it in JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::language::{LANGUAGES, Language};

/// Maximum size of all sources of a program, in bytes.
pub const LARGEST_SOURCES: usize = 1 << 20;
/// Maximum size of all inline tests of a job, in bytes. Larger ones are sent by digest.
pub const LARGEST_TESTS: usize = 4 << 20;
const MOST_SOURCES: usize = 32;
const MOST_TESTS: usize = 1000;

/// A program to judge, with its tests and limits.
///
/// ```
/// use stockade_workers::judge::job::Job;
///
/// let job = r#"{
///     "id": "example-1",
///     "program": {"language": "python", "sources": [{"text": "print(sum(map(int, input().split())))"}]},
///     "tests": [{"name": "1", "input": {"text": "1 2"}, "answer": {"text": "3"}}]
/// }"#;
/// assert_eq!(Job::parse(job.as_bytes())?.id, "example-1");
/// # Ok::<(), stockade_workers::judge::failure::Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Identifies the job: a job with the same ID is the same job, and has one result. 1 to 64 ASCII letters, digits,
    /// `_` and `-`.
    pub id: String,
    /// Default: normal.
    #[serde(default)]
    pub priority: Priority,
    pub program: Program,
    /// Judged in this order.
    pub tests: Vec<Test>,
    #[serde(default)]
    pub limits: Limits,
    /// Default: tokens.
    #[serde(default)]
    pub checker: Checker,
    /// A program that the submission talks to, instead of reading the input. The checker is not used then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactor: Option<Program>,
    /// Whether to run the tests that follow one that was not passed. Default: no.
    #[serde(default)]
    pub run_all: bool,
}

/// Jobs of a higher priority are judged first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    /// All priorities, from the highest to the lowest.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// The sources of a program in a language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Name of the language in lower case: `c`, `c++`, `rust`, `go`, `java`, `node` or `python`.
    pub language: String,
    /// The first is the program. It can include or import the others by their names.
    pub sources: Vec<Source>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// File name. Required for all but the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    pub name: String,
    pub input: Data,
    /// What the checker compares with. Default: nothing.
    #[serde(default)]
    pub answer: Data,
}

/// Bytes of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    Text(String),
    /// SHA-256 in lower-case hexadecimal digits, which is the name of a file in the worker's directory `--blobs`.
    Sha256(String),
}

impl Default for Data {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// Limits of the program for each test. What is missing is the default of the language, or else of this judge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU time of all processes together, in milliseconds. Decides most verdicts, since it does not grow with the load
    /// of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Wall-clock time, in milliseconds. Default: 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Time without using any CPU, in milliseconds. Default: 5,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Memory of all processes together, in bytes. Requires a cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Number of processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Size of standard output, and of standard error, in bytes. Default: 65,536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
}

/// Limits with the defaults filled in.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub cpu: Duration,
    pub wall: Duration,
    pub idle: Duration,
    pub memory: u64,
    pub processes: u64,
    pub output: u64,
}

/// How an output is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checker {
    /// All bytes are those of the answer.
    Exact,
    /// The words are those of the answer. White space may differ.
    #[default]
    Tokens,
    /// As `tokens`, but a number may differ from that of the answer by one of these errors.
    Float { absolute: f64, relative: f64 },
    /// A program that gets the paths of the input, the output and the answer as arguments. It exits with 0 to accept the
    /// output, and with 1 or 2 to reject it. Its standard error is the message. Any other exit is a failure of the judge.
    Program(Program),
}

impl Job {
    /// Reads and validates a job.
    pub fn parse(json: &[u8]) -> Result<Self, Failure> {
        let job: Self = serde_json::from_slice(json).map_err(|error| Failure::Job(error.to_string()))?;
        job.validate()?;
        Ok(job)
    }

    /// Returns an error that names the first invalid field.
    pub fn validate(&self) -> Result<(), Failure> {
        check(is_id(&self.id), "id: use 1 to 64 ASCII letters, digits, \"_\" and \"-\"")?;
        self.program.validate("the program")?;
        check((1..=MOST_TESTS).contains(&self.tests.len()), format!("tests: use 1 to {MOST_TESTS}"))?;
        for test in &self.tests {
            let name = &test.name;
            check(
                is_file_name(name),
                format!("tests: {name:?} is not a name: use ASCII letters, digits, and \"._-\""),
            )?;
            test.input.validate(name)?;
            test.answer.validate(name)?;
        }
        check(self.inline() <= LARGEST_TESTS, format!("tests: use digests for more than {LARGEST_TESTS} bytes"))?;
        self.limits.validate()?;
        match &self.checker {
            Checker::Program(program) => program.validate("the checker")?,
            &Checker::Float { absolute, relative } => {
                let is_error = |error: f64| error.is_finite() && error >= 0.0;
                check(is_error(absolute) && is_error(relative), "checker: an error is a number from 0")?;
            }
            Checker::Exact | Checker::Tokens => {}
        }
        self.interactor.as_ref().map_or(Ok(()), |program| program.validate("the interactor"))
    }
}

impl Job {
    /// Size of all texts, in bytes.
    pub fn size(&self) -> usize {
        let checker = if let Checker::Program(program) = &self.checker { Some(program) } else { None };
        let programs = [&self.program].into_iter().chain(checker).chain(&self.interactor);
        programs.map(Program::size).sum::<usize>() + self.inline()
    }

    /// Size of the tests that are not sent by digest.
    fn inline(&self) -> usize {
        self.tests.iter().map(|test| test.input.inline() + test.answer.inline()).sum()
    }
}

impl Program {
    /// Returns the language.
    pub fn language(&self) -> Result<&'static Language, Failure> {
        let named = LANGUAGES.iter().find(|language| language.name.eq_ignore_ascii_case(&self.language));
        let names = || LANGUAGES.iter().map(|language| language.name.to_lowercase()).collect::<Vec<_>>().join(", ");
        named.ok_or_else(|| Failure::Job(format!("language: {:?} is unknown: use one of {}", self.language, names())))
    }

    fn validate(&self, what: &str) -> Result<(), Failure> {
        let program = self.language()?.file;
        check(
            (1..=MOST_SOURCES).contains(&self.sources.len()),
            format!("sources of {what}: use 1 to {MOST_SOURCES} files"),
        )?;
        check(self.size() <= LARGEST_SOURCES, format!("sources of {what}: use at most {LARGEST_SOURCES} bytes"))?;
        let mut names: Vec<_> = self.sources[1..].iter().map(|source| source.name.as_deref().unwrap_or("")).collect();
        let is_free = |name: &&str| is_file_name(name) && **name != *program;
        check(names.iter().all(is_free), format!("sources of {what}: a name is missing, not plain, or {program:?}"))?;
        names.sort_unstable();
        check(names.windows(2).all(|two| two[0] != two[1]), format!("sources of {what}: two have the same name"))
    }

    fn size(&self) -> usize {
        self.sources.iter().map(|source| source.text.len()).sum()
    }

    /// Returns the files with their paths inside the sandboxes.
    pub fn files(&self) -> Result<Vec<(String, &str)>, Failure> {
        let program = self.language()?.file;
        let path = |place, source: &Source| match (place, &source.name) {
            (1.., Some(name)) => format!("/src/{name}"),
            _ => format!("/src/{program}"),
        };
        Ok(self.sources.iter().enumerate().map(|(place, one)| (path(place, one), one.text.as_str())).collect())
    }
}

impl Data {
    fn inline(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Sha256(_) => 0,
        }
    }

    fn validate(&self, test: &str) -> Result<(), Failure> {
        let Self::Sha256(digest) = self else { return Ok(()) };
        let is_digit = |letter: u8| matches!(letter, b'0'..=b'9' | b'a'..=b'f');
        let is_digest = digest.len() == 64 && digest.bytes().all(is_digit);
        check(is_digest, format!("test {test}: a SHA-256 has 64 lower-case hexadecimal digits"))
    }
}

impl Limits {
    fn validate(&self) -> Result<(), Failure> {
        const HOUR: u64 = 3_600_000;
        within("cpu_ms", self.cpu_ms, 1, HOUR)?;
        within("wall_ms", self.wall_ms, 1, HOUR)?;
        within("idle_ms", self.idle_ms, 1, HOUR)?;
        within("memory_bytes", self.memory_bytes, 1 << 20, 64 << 30)?;
        within("processes", self.processes, 1, 4096)?;
        within("output_bytes", self.output_bytes, 1, 64 << 20)
    }

    /// Fills in the defaults of a language.
    pub fn of(&self, language: &Language) -> Allowed {
        let milliseconds = |value: Option<u64>, default| value.map_or(default, Duration::from_millis);
        Allowed {
            cpu: milliseconds(self.cpu_ms, language.allowance.cpu),
            wall: milliseconds(self.wall_ms, Duration::from_secs(10)),
            idle: milliseconds(self.idle_ms, Duration::from_secs(5)),
            memory: self.memory_bytes.unwrap_or(language.allowance.memory),
            processes: self.processes.unwrap_or(language.allowance.processes),
            output: self.output_bytes.unwrap_or(64 << 10),
        }
    }
}

fn within(name: &str, value: Option<u64>, least: u64, most: u64) -> Result<(), Failure> {
    let is_within = value.is_none_or(|value| (least..=most).contains(&value));
    check(is_within, format!("limits: {name}: use {least} to {most}"))
}

fn check(holds: bool, error: impl Into<String>) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Job(error.into())) }
}

/// Returns whether a text is the ID of a job. It is also a file name.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn is_file_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=100).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_plain)
}
