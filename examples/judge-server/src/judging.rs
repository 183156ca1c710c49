//! Judging a submission, in sessions that are kept ready. Dropping the future of [`Judge::judge`] kills what it runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use stockade::outcome::Enforcement;
use stockade::pool::PoolStats;
use stockade::tokio::{Pool, Session};
use stockade::{Command, Output};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::failure::Failure;
use crate::places::{Place, Places, Statistics};
use crate::sandboxes::{self, Settings};
use crate::submission::{EXECUTABLE, Submission, command};
use crate::verdict::Judged;

/// Maximum size of an executable, in bytes.
const LARGEST_EXECUTABLE: u64 = 32 << 20;

/// The judge: two pools of sessions, and the places of the submissions that run.
#[derive(Debug)]
pub struct Judge {
    places: Places,
    /// A session has the same limits for all of its commands, so compilers and programs have sessions of their own.
    compilers: Pool,
    programs: Pool,
    enforcement: Enforcement,
}

impl Judge {
    /// Starts the sessions that are kept ready.
    pub async fn new(settings: &Settings) -> stockade::Result<Self> {
        let compilers = Pool::new(sandboxes::compiler(), 1).await?;
        let programs = Pool::new(sandboxes::program(settings), settings.at_once).await?;
        let enforcement = programs.take().await?.enforcement().clone();
        Ok(Self { places: Places::new(settings.at_once, settings.waiting), compilers, programs, enforcement })
    }

    /// Waits for a place, and judges a submission.
    ///
    /// If the future is dropped, what runs is killed. The place is given to the next submission when all of it is gone.
    pub async fn judge(&self, submission: Submission) -> Result<Judged, Failure> {
        let place = Arc::new(self.places.take().await?);
        let Submission { language, source, input, expected } = submission;
        let mut program = language.program();
        program.stdin_bytes(input);
        let Some(compiler) = language.compiler() else {
            let room = Room::open(&self.programs, &place).await?;
            room.write(language.source(), source.into()).await?;
            return room.judge(program, &expected).await;
        };
        let room = Room::open(&self.compilers, &place).await?;
        room.write(language.source(), source.into()).await?;
        let compiled = room.session().output(compiler).await?;
        if !compiled.outcome.success() {
            return Judged::of_compiler(&compiled).ok_or_else(|| terminated(&compiled));
        }
        let executable = room.read(EXECUTABLE, LARGEST_EXECUTABLE).await?;
        drop(room);
        let room = Room::open(&self.programs, &place).await?;
        room.write(EXECUTABLE, executable).await?;
        // A file that the judge creates inside is not executable.
        let chmod = room.session().output(command(&["chmod", "755", EXECUTABLE])).await?;
        if !chmod.outcome.success() {
            return Err(terminated(&chmod));
        }
        room.judge(program, &expected).await
    }

    /// Turns away the submissions that wait, and those that come later. Those that run go on.
    pub fn close(&self) {
        self.places.close();
    }

    /// Ends the sessions that are kept ready.
    pub async fn shut_down_sessions(&self) {
        tokio::join!(self.compilers.shut_down(), self.programs.shut_down());
    }

    /// Returns what is enforced for each program on this host.
    pub fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    pub fn statistics(&self) -> Statistics {
        self.places.statistics()
    }

    /// Returns what the pool of the programs' sessions has done.
    pub fn pool(&self) -> PoolStats {
        self.programs.stats()
    }
}

fn terminated(output: &Output) -> Failure {
    Failure::Terminated(output.outcome.termination)
}

/// A session of a submission, with its place. Dropping it kills what runs in the session, and then gives up the place.
struct Room(Option<(Session, Arc<Place>)>);

impl Room {
    async fn open(pool: &Pool, place: &Arc<Place>) -> Result<Self, Failure> {
        Ok(Self(Some((pool.take().await?, place.clone()))))
    }

    fn session(&self) -> &Session {
        let (session, _) = self.0.as_ref().expect("it is taken when this is dropped");
        session
    }

    /// Runs the program, and compares its output.
    async fn judge(&self, program: Command, expected: &str) -> Result<Judged, Failure> {
        let output = self.session().output(program).await?;
        Judged::of_program(&output, expected).ok_or_else(|| terminated(&output))
    }

    /// Writes a file inside.
    async fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        let file = self.session().create(path).await?;
        on_file(file, move |mut file| file.write_all(&bytes)).await
    }

    /// Reads a file inside. A longer one than `most` bytes is an error.
    async fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let file = self.session().open(path).await?;
        on_file(file, move |file| {
            let mut bytes = vec![];
            match file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
                true => Err(io::ErrorKind::FileTooLarge.into()),
                false => Ok(bytes),
            }
        })
        .await
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let (Some((session, place)), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let Err(error) = session.kill().await {
                eprintln!("judge-server: {error}");
            }
            drop(place);
        });
    }
}

/// Uses a file on a thread that may block, and closes it there.
async fn on_file<T: Send + 'static>(
    file: File,
    function: impl FnOnce(File) -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = spawn_blocking(move || function(file)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(Failure::File)
}
