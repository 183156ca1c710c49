//! A contestant and an interactor in sandboxes of their own, joined by pipes: `cargo run --example interactive`.
//!
//! The interactor chooses a number, and the contestant guesses it. When the interactor rejects a guess, nothing reads
//! from the contestant any more, and it is killed. Exits with 1 if a verdict differs from the expected one.

use std::error::Error;
use std::io::pipe;
use std::process::ExitCode;
use std::time::Duration;

use stockade::child::ChildSet;
use stockade::{Child, Command, Limits, Outcome, Signal, Termination, profile};

/// The programs, which are files in the sandboxes.
const INTERACTOR: &str = include_str!("programs/interactor.py");
const CONTESTANTS: [(&str, &str, Verdict); 6] = [
    ("right", include_str!("programs/right.py"), Verdict::Accepted),
    ("failing", include_str!("programs/failing.py"), Verdict::Crashed),
    ("wrong", include_str!("programs/wrong.py"), Verdict::WrongAnswer),
    ("flooding", include_str!("programs/flooding.py"), Verdict::WrongAnswer),
    ("silent", include_str!("programs/silent.py"), Verdict::Idle),
    ("dying", include_str!("programs/dying.py"), Verdict::Crashed),
];

/// The verdict on a contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    WrongAnswer,
    Idle,
    Crashed,
}

fn main() -> ExitCode {
    let mut differ = 0;
    for (name, program, expected) in CONTESTANTS {
        match play(program) {
            Ok(game) => {
                let verdict = game.verdict();
                differ += u32::from(verdict != expected);
                println!("{name:<10} {verdict:?}");
                println!("           contestant: {}", game.contestant);
                println!("           interactor: {}", game.interactor);
            }
            Err(error) => {
                eprintln!("interactive: {name}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::from(u8::from(differ > 0))
}

/// The result of a game.
struct Game {
    contestant: Outcome,
    interactor: Outcome,
}

impl Game {
    /// Returns the verdict. If the contestant was killed, or wrote to a closed pipe, that is a consequence of the
    /// interactor's exit, and the exit status of the interactor counts.
    fn verdict(&self) -> Verdict {
        match self.contestant.termination {
            Termination::Idle | Termination::WallTime => Verdict::Idle,
            Termination::Signaled { signal, .. } if signal != Signal::PIPE => Verdict::Crashed,
            Termination::Syscall(_) | Termination::ForeignSyscall(_) => Verdict::Crashed,
            // After a wrong answer it may have failed to write to the closed pipe.
            Termination::Exited(code) if code != 0 && self.interactor.success() => Verdict::Crashed,
            _ if self.interactor.success() => Verdict::Accepted,
            _ => Verdict::WrongAnswer,
        }
    }
}

/// Idle timeout of a contestant.
const IDLE: Duration = Duration::from_secs(1);
/// Wall-clock limit of each program.
const WALL: Duration = Duration::from_secs(10);

/// Runs both programs until both have exited.
fn play(contestant: &str) -> Result<Game, Box<dyn Error>> {
    let ((guesses, guess), (answers, answer)) = (pipe()?, pipe()?);
    let mut group = ChildSet::new();
    let limits = Limits::new().wall_time(WALL);
    // The caller's ends of the pipes are closed with the commands, so that each program reads end of file when the
    // other exits.
    let interactor =
        group.add(start(INTERACTOR, Command::new("python3").stdin(guesses).stdout(answer), limits.clone())?);
    let contestant =
        group.add(start(contestant, Command::new("python3").stdin(answers).stdout(guess), limits.idle_timeout(IDLE))?);
    let mut outcomes = [const { None }; 2];
    while let Some((place, outcome)) = group.wait_next()? {
        let is_over = place == interactor && !outcome.success();
        outcomes[place] = Some(outcome);
        // A contestant whose answer was right exits by itself, and its exit status counts.
        if is_over && let Some(child) = group.get_mut(contestant) {
            child.kill()?;
        }
    }
    match outcomes {
        [Some(interactor), Some(contestant)] => Ok(Game { contestant, interactor }),
        _ => Err("a program has not terminated".into()),
    }
}

/// Starts a program with a root that shows the program itself and, of the host, only programs and libraries.
fn start(program: &str, command: impl Into<Command>, limits: Limits) -> stockade::Result<Child> {
    let sandbox = profile::judge().map_root(|root| root.file("/program.py", program)).limits(limits);
    sandbox.spawn(command.into().arg("/program.py"))
}
