//! The report: a table, and JSON.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::corpus::Submission;
use crate::judged::Judged;
use crate::new_file::NewFile;
use crate::{Failure, Results};

impl Results {
    /// Returns the submissions with all runs of each.
    fn each(&self) -> impl Iterator<Item = (&Submission, Vec<&Judged>)> {
        let runs = |place| self.judged.iter().skip(place).step_by(self.submissions.len()).collect();
        self.submissions.iter().enumerate().map(move |(place, submission)| (submission, runs(place)))
    }
}

/// Returns whether a verdict differs from the expected one.
fn differs(submission: &Submission, judged: &Judged) -> bool {
    judged.verdict.to_string() != submission.expected
}

/// Prints a line for each submission, and returns how many verdicts differ from the expected ones.
pub fn table(out: &mut impl Write, results: &Results) -> io::Result<usize> {
    let mut differing = 0;
    line(out, ["submission", "language", "verdict", "test", "CPU", "wall", "memory"].map(str::to_owned))?;
    for (submission, runs) in results.each() {
        let others: Vec<_> = runs.iter().filter(|judged| differs(submission, judged)).collect();
        differing += others.len();
        row(out, submission, others.first().unwrap_or(&&runs[0]), &runs)?;
        if let Some(first) = others.first() {
            let (count, all, expected) = (others.len(), runs.len(), &submission.expected);
            writeln!(
                out,
                "    expected: {expected}; {count} of {all} runs differ; standard error: {:?}",
                first.stderr_line
            )?;
        }
    }
    let (submissions, runs) = (results.submissions.len(), results.judged.len());
    writeln!(out, "{submissions} submissions, {runs} verdicts, {differing} differ from the expected ones")?;
    Ok(differing)
}

/// Formats a verdict, with the maximum usage of all runs.
fn row(out: &mut impl Write, submission: &Submission, judged: &Judged, runs: &[&Judged]) -> io::Result<()> {
    let cpu = runs.iter().map(|run| run.cpu).max().unwrap_or_default();
    let wall = runs.iter().map(|run| run.wall).max().unwrap_or_default();
    let memory = runs.iter().map(|run| run.memory).max().unwrap_or_default();
    let cells = [
        submission.name.clone(),
        submission.language.name.to_owned(),
        judged.verdict.to_string(),
        judged.test.map_or_else(String::new, |test| test.to_string()),
        format!("{:.3} s", cpu.as_secs_f64()),
        format!("{:.3} s", wall.as_secs_f64()),
        format!("{:.1} MiB", memory as f64 / f64::from(1 << 20)),
    ];
    line(out, cells)
}

fn line(out: &mut impl Write, cells: [String; 7]) -> io::Result<()> {
    let [submission, language, verdict, test, cpu, wall, memory] = cells;
    writeln!(out, "{submission:<18} {language:<8} {verdict:<24} {test:>4} {cpu:>9} {wall:>9} {memory:>10}")
}

/// A file with a line of JSON for each run, in the order in which the runs were completed.
pub struct Json(Mutex<File>);

impl Json {
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let file = NewFile::at(path).and_then(|place| place.persist(place.begin()?));
        Ok(Self(Mutex::new(file.map_err(|error| format!("failed to create {}: {error}", path.display()))?)))
    }

    pub fn write(&self, submission: &Submission, judged: &Judged) -> Result<(), Failure> {
        let line = format!("{}\n", object(submission, judged));
        Ok(self
            .0
            .lock()
            .unwrap()
            .write_all(line.as_bytes())
            .map_err(|error| format!("failed to write JSON: {error}"))?)
    }
}

fn object(submission: &Submission, judged: &Judged) -> Value {
    json!({
        "submission": submission.name,
        "language": submission.language.name,
        "expected": submission.expected,
        "verdict": judged.verdict.to_string(),
        "as_expected": !differs(submission, judged),
        "test": judged.test,
        "cpu_seconds": judged.cpu.as_secs_f64(),
        "wall_seconds": judged.wall.as_secs_f64(),
        "memory_bytes": judged.memory,
        "stderr": judged.stderr_line,
    })
}
