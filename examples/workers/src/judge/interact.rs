//! A submission that talks to an interactor: each in a sandbox of its own, joined by pipes.

use std::io::{self, PipeReader, PipeWriter, Read, pipe};
use std::thread;
use std::time::Duration;

use stockade::mount::Operation;
use stockade::{Child, Output, Signal, Stdio, Termination};

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
///
/// Whatever the submission does, the interactor can go on to its verdict: it can always write, and reads no more than the
/// limit on the submission's output, and then end of file.
pub fn converse(
    host: &Host,
    submission: (&Executable, &Allowed),
    interactor: &Executable,
    input: &[u8],
    cpu: Option<u32>,
) -> Result<Conversation, Failure> {
    let failed = |error| Failure::sandbox("the interactor", &error);
    let pipes = || pipe().map_err(Failure::to("create a pipe"));
    let ((asked, ask), (said, say), (answered, answer)) = (pipes()?, pipes()?, pipes()?);
    let unread = asked.try_clone().map_err(Failure::to("copy a descriptor"))?;
    let (executable, allowed) = submission;
    let mut question = command(interactor.program.language()?.run);
    question.arg("/input").stdin(answered).stdout(ask).stderr(Stdio::piped());
    let mut reply = command(executable.program.language()?.run);
    reply.stdin(asked).stdout(say).stderr(Stdio::piped());
    // It outlives the submission, whose limits decide.
    let wall = allowed.wall + Duration::from_secs(10);
    let interactor = host.program(interactor, &Allowed { wall, idle: wall, ..OF_PROBLEM }, cpu)?;
    let interactor = interactor.map_root(|root| root.with(Operation::file("/input", input, 0o444)));
    let interactor = interactor.spawn(question).map_err(failed)?;
    let submission = host
        .program(executable, allowed, cpu)?
        .spawn(reply)
        .map_err(|error| Failure::sandbox("the submission", &error))?;
    // The caller's ends of these pipes were in the commands: each program reads end of file when the other has exited.
    let killer = submission.killer();
    thread::scope(|scope| {
        let interactor = scope.spawn(move || judged(interactor, || drop(killer.kill())));
        let relay = scope.spawn(move || relay(said, answer, allowed.output));
        let submission = submission.wait_with_output().map_err(|error| Failure::sandbox("the submission", &error));
        discard(unread);
        let checked = of_problem("the interactor", &interactor.join().expect("it does not panic").map_err(failed)?)?;
        let is_flood = relay.join().expect("it does not panic");
        let submission = submission?;
        let verdict = verdict(submission.outcome.termination, checked.is_right, is_flood);
        Ok(Conversation { verdict, submission, checked })
    })
}

/// Waits for the interactor, and kills the submission if it was rejected: nothing reads from it then. One that was accepted
/// exits by itself, and its exit status counts.
fn judged(interactor: Child, kill: impl FnOnce()) -> Result<Output, stockade::Error> {
    let output = interactor.wait_with_output();
    if !output.as_ref().is_ok_and(|output| output.outcome.success()) {
        kill();
    }
    output
}

/// Passes on what the submission writes, up to a number of bytes. Returns whether it wrote more.
fn relay(mut from: PipeReader, mut to: PipeWriter, most: u64) -> bool {
    // An error means that the interactor reads no more, so that the submission may write no more.
    let is_read = io::copy(&mut from.by_ref().take(most), &mut to).is_ok();
    drop(to);
    is_read && from.read(&mut [0]).is_ok_and(|bytes| bytes > 0)
}

/// Reads what the interactor has written to a submission that has exited, and goes on to write.
fn discard(mut unread: PipeReader) {
    let _ = io::copy(&mut unread, &mut io::sink());
}

/// Returns the verdict. A submission that was killed, or that failed to write to the interactor's closed pipe, was
/// rejected before: then the exit status of the interactor counts.
fn verdict(submission: Termination, is_right: bool, is_flood: bool) -> Verdict {
    match submission {
        _ if is_right && is_flood => Verdict::Output,
        Termination::Killed | Termination::Exited(_) | Termination::Signaled { signal: Signal::PIPE, .. }
            if !is_right =>
        {
            Verdict::WrongAnswer
        }
        termination => Verdict::new(termination, is_right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_submission_is_wrong_however_it_exits_then() {
        assert_eq!(verdict(Termination::Exited(0), true, false), Verdict::Accepted);
        assert_eq!(verdict(Termination::Exited(1), true, false), Verdict::Exit(1));
        assert_eq!(verdict(Termination::Exited(1), false, false), Verdict::WrongAnswer);
        assert_eq!(verdict(Termination::Killed, false, false), Verdict::WrongAnswer);
        assert_eq!(verdict(Termination::signaled(Signal::PIPE, false), false, false), Verdict::WrongAnswer);
        assert_eq!(verdict(Termination::signaled(Signal::SEGV, false), false, false), Verdict::Signal(Signal::SEGV));
        assert_eq!(verdict(Termination::CpuTime, false, false), Verdict::CpuTime);
        // Not by its interactor.
        assert_eq!(verdict(Termination::Killed, true, false), Verdict::Unknown);
        assert_eq!(verdict(Termination::signaled(Signal::PIPE, false), true, true), Verdict::Output);
        assert_eq!(verdict(Termination::signaled(Signal::PIPE, false), false, true), Verdict::WrongAnswer);
    }
}
