//! The submissions, and the tests that they must pass.

use std::fs;
use std::path::{Path, PathBuf};

use stockade::collect::Collector;

use crate::Failure;
use crate::language::{LANGUAGES, Language};

/// A submitted program.
pub struct Submission {
    /// Name of its file.
    pub name: String,
    pub language: &'static Language,
    /// Expected verdict, from its first line.
    pub expected: String,
}

/// An input, and the expected answer.
pub struct Test {
    pub input: Vec<u8>,
    pub answer: String,
}

impl Test {
    /// Returns whether an output is correct: its words must be those of the answer. White space of ASCII may differ.
    pub fn accepts(&self, output: &[u8]) -> bool {
        words(output).eq(words(self.answer.as_bytes()))
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Directory of the submissions of a problem.
pub const SUBMISSIONS: &str = "submissions";
/// Maximum size of a source, in bytes.
const LONGEST: u64 = 1 << 20;

/// Reads the submissions of a problem, in the order of their names.
pub fn submissions(problem: &Path) -> Result<Vec<Submission>, Failure> {
    files(&problem.join(SUBMISSIONS))?.into_iter().map(|path| submission(problem, &path)).collect()
}

fn submission(problem: &Path, path: &Path) -> Result<Submission, Failure> {
    // The file may be a symlink, which the collector does not follow.
    let file = Path::new(SUBMISSIONS).join(path.file_name().unwrap_or_default());
    let source = String::from_utf8(Collector::new().max_bytes(LONGEST).read(problem, file)?)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().unwrap_or_default();
    let language = LANGUAGES.iter().find(|language| extension == language.extension);
    let expected = source.lines().next().and_then(|line| line.split_once("Expected: "));
    Ok(Submission {
        language: language.ok_or_else(|| format!("the extension of {name} is not that of a supported language"))?,
        expected: expected.ok_or_else(|| format!("the first line of {name} has no \"Expected: \""))?.1.into(),
        name,
    })
}

/// Reads the tests of a problem, in the order of their names: `N.in` with its answer `N.out`.
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
