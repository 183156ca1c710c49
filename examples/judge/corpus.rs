//! The submissions, and the tests that they have to pass.

use std::fs;
use std::path::{Path, PathBuf};

use stockade::Collector;

use crate::Failure;
use crate::language::{LANGUAGES, Language};

/// A program that somebody has handed in.
pub struct Submission {
    /// The name of its file.
    pub name: String,
    pub language: &'static Language,
    /// The verdict that it must get, as its first line says.
    pub expected: String,
}

/// What a program reads, and what it must answer.
pub struct Test {
    pub input: Vec<u8>,
    pub answer: String,
}

impl Test {
    /// Whether an output is right: it must have the words of the answer, whatever space is between them.
    pub fn accepts(&self, output: &[u8]) -> bool {
        String::from_utf8_lossy(output).split_whitespace().eq(self.answer.split_whitespace())
    }
}

/// Where the submissions of a problem are.
pub const SUBMISSIONS: &str = "submissions";
/// Bytes of the longest source.
const LONGEST: u64 = 1 << 20;

/// The submissions of a problem, in the order of their names.
pub fn submissions(problem: &Path) -> Result<Vec<Submission>, Failure> {
    files(&problem.join(SUBMISSIONS))?.into_iter().map(|path| submission(problem, &path)).collect()
}

fn submission(problem: &Path, path: &Path) -> Result<Submission, Failure> {
    // Whoever has handed it in may have handed in a link.
    let file = Path::new(SUBMISSIONS).join(path.file_name().unwrap_or_default());
    let source = String::from_utf8(Collector::new().max_bytes(LONGEST).read(problem, file)?)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().unwrap_or_default();
    let language = LANGUAGES.iter().find(|language| extension == language.extension);
    let expected = source.lines().next().and_then(|line| line.split_once("Expected: "));
    Ok(Submission {
        language: language.ok_or_else(|| format!("{name} is in no language that is known here"))?,
        expected: expected.ok_or_else(|| format!("the first line of {name} has no \"Expected: \""))?.1.into(),
        name,
    })
}

/// The tests of a problem, in the order of their names: `N.in` with its answer `N.out`.
pub fn tests(problem: &Path) -> Result<Vec<Test>, Failure> {
    let inputs =
        files(&problem.join("tests"))?.into_iter().filter(|path| path.extension().is_some_and(|is| is == "in"));
    inputs.map(|input| Ok(Test { answer: read(&input.with_extension("out"))?, input: read(&input)?.into() })).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| format!("reading {}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, Failure> {
    Ok(fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))?)
}
