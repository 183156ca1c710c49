//! A submission that talks to an interactor: each in a sandbox of its own, joined by pipes.

use std::io::pipe;
use std::thread;
use std::time::Duration;

use stockade::mount::Operation;
use stockade::{Output, Signal, Stdio, Termination};

use super::check::{Checked, of_problem};
use super::compiler::Executable;
use super::failure::Failure;
use super::job::Allowed;
use super::sandboxes::{Host, OF_PROBLEM, command};
use super::verdict::Verdict;

/// The result of a conversation.
#[derive(Debug)]
pub struct Conversation {
    pub verdict: Verdict,
    pub submission: Output,
    pub checked: Checked,
}

/// Runs both programs until both have exited. The interactor gets the path of the input as its argument.
pub fn converse(
    host: &Host,
    submission: (&Executable, &Allowed),
    interactor: &Executable,
    input: &[u8],
    cpu: Option<u32>,
) -> Result<Conversation, Failure> {
    let failed = |error| Failure::sandbox("the interactor", &error);
    let pipes = || pipe().map_err(Failure::to("create a pipe"));
    let ((asked, ask), (answered, answer)) = (pipes()?, pipes()?);
    let (executable, allowed) = submission;
    let mut question = command(interactor.program.language()?.run);
    question.arg("/input").stdin(answered).stdout(ask).stderr(Stdio::piped());
    let mut reply = command(executable.program.language()?.run);
    reply.stdin(asked).stdout(answer).stderr(Stdio::piped());
    // It outlives the submission, whose limits decide.
    let wall = allowed.wall + Duration::from_secs(10);
    let interactor = host.program(interactor, &Allowed { wall, idle: wall, ..OF_PROBLEM }, cpu)?;
    let interactor = interactor.map_root(|root| root.with(Operation::file("/input", input, 0o444)));
    let interactor = interactor.spawn(question).map_err(failed)?;
    let submission = host
        .program(executable, allowed, cpu)?
        .spawn(reply)
        .map_err(|error| Failure::sandbox("the submission", &error))?;
    // The caller's ends of the pipes were in the commands: each program reads end of file when the other has exited.
    let killer = submission.killer();
    let (interactor, submission) = thread::scope(|scope| {
        let interactor = scope.spawn(move || {
            let output = interactor.wait_with_output();
            // Nothing reads from a submission that was rejected. One that was accepted exits by itself, and its exit
            // status counts.
            if !output.as_ref().is_ok_and(|output| output.outcome.success()) {
                let _ = killer.kill();
            }
            output
        });
        let submission = submission.wait_with_output();
        (interactor.join().expect("it does not panic"), submission)
    });
    let submission = submission.map_err(|error| Failure::sandbox("the submission", &error))?;
    let checked = of_problem("the interactor", &interactor.map_err(failed)?)?;
    let verdict = verdict(submission.outcome.termination, checked.is_right);
    Ok(Conversation { verdict, submission, checked })
}

/// Returns the verdict. A submission that was killed, or that failed to write to the interactor's closed pipe, was
/// rejected before: then the exit status of the interactor counts.
fn verdict(submission: Termination, is_right: bool) -> Verdict {
    match submission {
        Termination::Killed => Verdict::WrongAnswer,
        Termination::Signaled { signal: Signal::PIPE, .. } if !is_right => Verdict::WrongAnswer,
        Termination::Exited(_) if !is_right => Verdict::WrongAnswer,
        termination => Verdict::new(termination, is_right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_submission_is_wrong_however_it_exits_then() {
        assert_eq!(verdict(Termination::Exited(0), true), Verdict::Accepted);
        assert_eq!(verdict(Termination::Exited(1), true), Verdict::Exit(1));
        assert_eq!(verdict(Termination::Exited(1), false), Verdict::WrongAnswer);
        assert_eq!(verdict(Termination::Killed, false), Verdict::WrongAnswer);
        assert_eq!(verdict(Termination::signaled(Signal::PIPE, false), false), Verdict::WrongAnswer);
        assert_eq!(verdict(Termination::signaled(Signal::SEGV, false), false), Verdict::Signal(Signal::SEGV));
        assert_eq!(verdict(Termination::CpuTime, false), Verdict::CpuTime);
    }
}
