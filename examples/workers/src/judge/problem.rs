//! Problems in directories: tests, limits, and a text for people. See README.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::job::{Checker, Data, Job, Limits, Priority, Program, Source, Test};

/// The file that describes a problem.
const FILE: &str = "problem.toml";

/// A problem, by which clients submit a program alone.
#[derive(Clone, Debug)]
pub struct Problem {
    pub description: Description,
    /// Its tests and programs, which may be outside its directory. No program that is judged may see them.
    pub paths: Vec<PathBuf>,
    tests: Vec<Test>,
    checker: Checker,
    interactor: Option<Program>,
    limits: Limits,
}

/// What clients see of a problem.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Name of the directory.
    pub name: String,
    pub title: String,
    pub statement: String,
    /// Names of the tests, in the order in which they are judged.
    pub tests: Vec<String>,
    pub limits: Limits,
}

/// [`FILE`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    title: String,
    #[serde(default)]
    statement: String,
    /// Directory of the tests: `NAME.in` with the answer `NAME.out`.
    #[serde(default = "default_tests")]
    tests: PathBuf,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    checker: DescribedChecker,
    interactor: Option<DescribedProgram>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DescribedChecker {
    Exact,
    #[default]
    Tokens,
    Float {
        absolute: f64,
        relative: f64,
    },
    Program(DescribedProgram),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedProgram {
    language: String,
    file: PathBuf,
}

fn default_tests() -> PathBuf {
    "tests".into()
}

impl Problem {
    /// Reads a problem.
    pub fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        let described: Described =
            toml::from_str(&read(&path)?).map_err(Failure::to(format!("read {}", path.display())))?;
        let mut paths = vec![directory.to_owned(), directory.join(described.tests)];
        let tests = tests(&paths[1])?;
        let mut program = |program: DescribedProgram| {
            let path = directory.join(program.file);
            let source = Source { name: None, text: read(&path)? };
            paths.push(path);
            Ok::<_, Failure>(Program { language: program.language, sources: vec![source] })
        };
        let problem = Self {
            description: Description {
                name: directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                title: described.title,
                statement: described.statement,
                tests: tests.iter().map(|test| test.name.clone()).collect(),
                limits: described.limits.clone(),
            },
            tests,
            checker: match described.checker {
                DescribedChecker::Exact => Checker::Exact,
                DescribedChecker::Tokens => Checker::Tokens,
                DescribedChecker::Float { absolute, relative } => Checker::Float { absolute, relative },
                DescribedChecker::Program(checker) => Checker::Program(program(checker)?),
            },
            interactor: described.interactor.map(&mut program).transpose()?,
            limits: described.limits,
            paths,
        };
        let python = Program { language: "python".into(), sources: vec![Source { name: None, text: String::new() }] };
        let job = problem.job("trial".into(), Priority::Normal, python);
        job.validate().map_err(|error| Failure::Worker(format!("failed to use {}: {error}", path.display())))?;
        Ok(problem)
    }

    /// Creates a job for a program.
    pub fn job(&self, id: String, priority: Priority, program: Program) -> Job {
        Job {
            id,
            priority,
            program,
            tests: self.tests.clone(),
            limits: self.limits.clone(),
            checker: self.checker.clone(),
            interactor: self.interactor.clone(),
            run_all: false,
        }
    }
}

/// Reads the problems of a directory: each is a directory with a file `problem.toml`.
pub fn problems(directory: &Path) -> Result<BTreeMap<String, Problem>, Failure> {
    let paths = files(directory)?.into_iter().filter(|path| path.join(FILE).is_file());
    let problems = paths.map(|path| {
        let problem = Problem::read(&path)?;
        Ok((problem.description.name.clone(), problem))
    });
    problems.collect()
}

/// Reads tests, in the order of their names: `NAME.in` with the answer `NAME.out`.
pub fn tests(directory: &Path) -> Result<Vec<Test>, Failure> {
    let inputs = files(directory)?.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "in"));
    let test = |input: PathBuf| {
        let name = input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let answer = input.with_extension("out");
        // A problem with an interactor needs no answers.
        let answer = if answer.exists() { read(&answer)? } else { String::new() };
        Ok(Test { name, input: Data::Text(read(&input)?), answer: Data::Text(answer) })
    };
    inputs.map(test).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = || Failure::to(format!("read {}", directory.display()));
    let entries = fs::read_dir(directory).map_err(failed())?;
    let mut files = entries.map(|entry| Ok(entry.map_err(failed())?.path())).collect::<Result<Vec<_>, Failure>>()?;
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::to(format!("read {}", path.display())))
}
