//! A contestant and an interactor in sandboxes of their own, joined by pipes: `cargo run --example interactive`.
//!
//! The interactor thinks of a number, and the contestant guesses. Each ends in its own way: when the interactor has
//! refused, nobody listens to the contestant any more, and it is killed. Exit status 1 if a verdict is not the one that is expected.

use std::error::Error;
use std::io::pipe;
use std::process::ExitCode;
use std::time::Duration;

use stockade::{Child, Command, Group, Limits, Outcome, Signal, Termination, profile};

/// The programs, as files in the sandboxes.
const INTERACTOR: &str = include_str!("programs/interactor.py");
const CONTESTANTS: [(&str, &str, Verdict); 6] = [
    ("right", include_str!("programs/right.py"), Verdict::Accepted),
    ("failing", include_str!("programs/failing.py"), Verdict::Crashed),
    ("wrong", include_str!("programs/wrong.py"), Verdict::WrongAnswer),
    ("flooding", include_str!("programs/flooding.py"), Verdict::WrongAnswer),
    ("silent", include_str!("programs/silent.py"), Verdict::Idle),
    ("dying", include_str!("programs/dying.py"), Verdict::Crashed),
];

/// What is said of a contestant.
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

/// How a game ended.
struct Game {
    contestant: Outcome,
    interactor: Outcome,
}

impl Game {
    /// What the contestant has done by itself counts. That it was killed, or wrote to nobody, came of the interactor's end.
    fn verdict(&self) -> Verdict {
        match self.contestant.termination {
            Termination::Idle | Termination::WallTime => Verdict::Idle,
            Termination::Signaled { signal, .. } if signal != Signal(libc::SIGPIPE) => Verdict::Crashed,
            Termination::Syscall(_) | Termination::ForeignSyscall(_) => Verdict::Crashed,
            // After a wrong answer it may have failed to write to nobody.
            Termination::Exited(code) if code != 0 && self.interactor.success() => Verdict::Crashed,
            _ if self.interactor.success() => Verdict::Accepted,
            _ => Verdict::WrongAnswer,
        }
    }
}

/// Time that a contestant may do nothing.
const IDLE: Duration = Duration::from_secs(1);
/// Time that each may take.
const WALL: Duration = Duration::from_secs(10);

/// Lets the two play until both have ended.
fn play(contestant: &str) -> Result<Game, Box<dyn Error>> {
    let ((guesses, guess), (answers, answer)) = (pipe()?, pipe()?);
    let mut group = Group::new();
    let limits = Limits::new().wall(WALL);
    // The host's ends of the pipes close with the commands, so that each side sees the end of the other.
    let interactor =
        group.add(start(INTERACTOR, Command::new("python3").stdin(guesses).stdout(answer), limits.clone())?);
    let contestant =
        group.add(start(contestant, Command::new("python3").stdin(answers).stdout(guess), limits.idle(IDLE))?);
    let mut outcomes = [const { None }; 2];
    while let Some((place, outcome)) = group.wait_next()? {
        let is_over = place == interactor && !outcome.success();
        outcomes[place] = Some(outcome);
        // Whose answer was right ends by itself, and how it does counts.
        if is_over && let Some(child) = group.get_mut(contestant) {
            child.kill()?;
        }
    }
    match outcomes {
        [Some(interactor), Some(contestant)] => Ok(Game { contestant, interactor }),
        _ => Err("a program has not ended".into()),
    }
}

/// Starts a program with a root that has Python, and itself: of the host it sees programs and libraries alone.
fn start(program: &str, command: impl Into<Command>, limits: Limits) -> stockade::Result<Child> {
    let sandbox = profile::judge().map_root(|root| root.file("/program.py", program)).limits(limits);
    sandbox.spawn(command.into().arg("/program.py"))
}
