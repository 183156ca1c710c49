//! Checkers: whether an output is right.

use stockade::mount::Operation;
use stockade::{Output, Termination};

use super::compiler::Executable;
use super::failure::Failure;
use super::report::{Excerpt, PROGRAM_EXCERPT};
use super::sandboxes::{Host, OF_PROBLEM, command};

/// A checker that is ready to run.
#[derive(Debug)]
pub enum ReadyChecker {
    Exact,
    Tokens,
    Float { absolute: f64, relative: f64 },
    Program(std::sync::Arc<Executable>),
}

/// What a checker decided, with its message if it is a program.
#[derive(Debug, Default)]
pub struct Checked {
    pub is_right: bool,
    pub message: Option<Excerpt>,
}

impl ReadyChecker {
    pub fn check(&self, host: &Host, cpu: Option<u32>, texts: &Texts<'_>) -> Result<Checked, Failure> {
        let is_right = match self {
            Self::Exact => texts.output == texts.answer,
            Self::Tokens => words(texts.output).eq(words(texts.answer)),
            &Self::Float { absolute, relative } => close(texts.output, texts.answer, absolute, relative),
            Self::Program(executable) => return by_program(executable, host, cpu, texts),
        };
        Ok(Checked { is_right, message: None })
    }
}

/// What a checker compares.
#[derive(Debug)]
pub struct Texts<'a> {
    pub input: &'a [u8],
    pub output: &'a [u8],
    pub answer: &'a [u8],
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn close(output: &[u8], answer: &[u8], absolute: f64, relative: f64) -> bool {
    let (mut output, mut answer) = (words(output), words(answer));
    loop {
        match (output.next(), answer.next()) {
            (None, None) => return true,
            (Some(found), Some(expected)) if found == expected => {}
            (Some(found), Some(expected)) => match (number(found), number(expected)) {
                (Some(found), Some(expected))
                    if (found - expected).abs() <= absolute.max(relative * expected.abs()) => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

/// Returns the number that a word is. Infinity and NaN are not numbers.
fn number(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Runs a checker in a sandbox of its own, which shows it three files.
fn by_program(checker: &Executable, host: &Host, cpu: Option<u32>, texts: &Texts<'_>) -> Result<Checked, Failure> {
    let files = [("/input", texts.input), ("/output", texts.output), ("/answer", texts.answer)];
    let sandbox = host.program(checker, &OF_PROBLEM, cpu)?.map_root(|root| {
        files.iter().fold(root, |root, (path, contents)| root.with(Operation::file(*path, *contents, 0o444)))
    });
    let mut command = command(checker.program.language()?.run);
    command.args(files.map(|(path, _)| path));
    let output = sandbox.output(command).map_err(|error| Failure::sandbox("the checker", &error))?;
    of_problem("the checker", &output)
}

/// Returns what a checker or an interactor decided by its exit status: 0 accepts, 1 and 2 reject. Any other termination is
/// a failure of the judge.
pub fn of_problem(what: &str, output: &Output) -> Result<Checked, Failure> {
    let is_right = match output.outcome.termination {
        Termination::Exited(0) => true,
        Termination::Exited(1 | 2) => false,
        termination @ (Termination::HostMemory | Termination::Killed) => {
            return Err(Failure::Worker(format!("{what} failed: {termination}")));
        }
        // It would fail again.
        termination => {
            let stderr =
                String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(PROGRAM_EXCERPT)]).into_owned();
            return Err(Failure::Job(format!("{what} failed: {termination}: {stderr}")));
        }
    };
    let message =
        (!output.stderr.is_empty()).then(|| Excerpt::new(&output.stderr, PROGRAM_EXCERPT, output.stderr_truncated));
    Ok(Checked { is_right, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(checker: &ReadyChecker, output: &str, answer: &str) -> bool {
        let texts = Texts { input: b"", output: output.as_bytes(), answer: answer.as_bytes() };
        checker.check(&Host::default(), None, &texts).unwrap().is_right
    }

    #[test]
    fn checkers_differ_in_white_space_and_numbers() {
        let float = ReadyChecker::Float { absolute: 1e-6, relative: 1e-3 };
        for (output, answer, exact, tokens, floats) in [
            ("1 2\n", "1 2\n", true, true, true),
            ("1  2", "1 2\n", false, true, true),
            ("1 2 3", "1 2", false, false, false),
            ("1", "1 2", false, false, false),
            ("", "1", false, false, false),
            ("1000.9", "1000", false, false, true),
            ("1001.1", "1000", false, false, false),
            ("0.0000009", "0", false, false, true),
            ("nan", "1", false, false, false),
            ("inf", "1", false, false, false),
            ("x 1.0", "x 1", false, false, true),
            ("y 1.0", "x 1", false, false, false),
            ("12", "1 2", false, false, false),
        ] {
            let found = [&ReadyChecker::Exact, &ReadyChecker::Tokens, &float].map(|one| holds(one, output, answer));
            assert_eq!(found, [exact, tokens, floats], "{output:?} against {answer:?}");
        }
    }
}
