//! A caller whose threads write programs and start them at the same time. For a moment each child has copies of the
//! descriptors of other threads, so executing a program fails with ETXTBSY.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as Host;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use stockade::{Child, Command, Limits, Root, Sandbox, Stdio, Termination};

use crate::attacks::common::{attack_on_host, tell};
use crate::support::{at_most, children, descriptors, rounds, shared_dir, text};

payloads![("caller_of_writers", caller_of_writers)];

const THREADS: usize = 16;
/// How long a program stays open for writing.
const PAUSE: Duration = Duration::from_millis(2);

/// A copy of cat(1), written and closed.
fn write_program(place: &Path, name: &str, contents: &[u8]) -> PathBuf {
    let path = place.join(name);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
    file.write_all(contents).unwrap();
    thread::sleep(PAUSE);
    path
}

/// Threads that do something with new programs, so often.
fn at_once(place: &Path, times: usize, work: impl Fn(PathBuf, String) + Sync) {
    let contents = fs::read("/bin/cat").unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (contents, work) = (&contents, &work);
            scope.spawn(move || {
                for round in 0..times {
                    let name = format!("program-{number}-{round}");
                    let program = write_program(place, &name, contents);
                    work(program.clone(), name);
                    fs::remove_file(program).unwrap();
                }
            });
        }
    });
}

/// How often a caller that forks finds its program busy, if every other child takes a moment until it executes
/// something.
fn busy_after_a_fork(place: &Path) -> usize {
    let busy = AtomicUsize::new(0);
    let turns = AtomicUsize::new(0);
    at_once(place, 8, |program, _| {
        let mut command = Host::new(program);
        command.arg("/dev/null");
        let moment = PAUSE * 5 * (turns.fetch_add(1, Ordering::Relaxed) % 2) as u32;
        // SAFETY: it sleeps, and nothing else.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                thread::sleep(moment);
                Ok(())
            });
        }
        match command.status() {
            Ok(status) => assert!(status.success()),
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => drop(busy.fetch_add(1, Ordering::Relaxed)),
            Err(error) => panic!("{error}"),
        }
    });
    busy.into_inner()
}

/// Arguments: a directory, and how often each thread writes a program and starts it.
fn caller_of_writers(args: &[String]) -> i32 {
    let (place, times) = (Path::new(&args[0]), args[1].parse().unwrap());
    tell("busy", busy_after_a_fork(place));
    let before = descriptors();
    let root = Root::host().with(stockade::mount::Bind::new(place, "/tmp/place").unmapped());
    let sandbox = Sandbox::new().root(root).limits(Limits::new().wall_time(at_most(Duration::from_secs(60))));
    at_once(place, times, |_, name| {
        let mut command = Command::new(format!("/tmp/place/{name}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let start = || -> Child { sandbox.spawn(&command).unwrap_or_else(|error| panic!("{name}: {error}")) };
        // One that lives beside the other, and would hold what it had got of it.
        let (beside, mut child) = (start(), start());
        child.stdin.take().unwrap().write_all(name.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.outcome.termination, Termination::Exited(0), "it reads to the end");
        assert_eq!(text(&output.stdout), name, "nobody reads another's pipe");
        drop(beside);
    });
    assert_eq!((descriptors(), children()), (before, vec![]));
    println!("ended: done");
    0
}

/// Attack 36: No program is found busy, and none holds the end of another's pipe. `STOCKADE_SPAWNS=100000` says how
/// many programs; by default there are few.
#[apply(test)]
fn threads_that_write_programs_and_start_them_disturb_no_other() {
    let place = shared_dir();
    let spawns = std::env::var("STOCKADE_SPAWNS").map_or(640, |spawns| spawns.parse().expect("a number"));
    let times = rounds(spawns).div_ceil(2 * THREADS as u32).to_string();
    let attempts = attack_on_host("caller_of_writers", &[place.path().to_str().unwrap(), &times]);
    assert_ne!(attempts.get("busy"), "0", "a caller that forks finds its own program busy");
    attempts.assert_done(&["ended"]);
}
