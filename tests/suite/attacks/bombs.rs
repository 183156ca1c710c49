//! Programs that use as many resources as they can, and do not exit when they should. Each is stopped by a limit soon
//! after it exceeds it, and the host stays responsive.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stockade::mount::Tmpfs;
use stockade::{Cgroup, Command, Limits, Output, Root, Sandbox, Termination};

use crate::attacks::common::alone;
use crate::support::{at_most, children, listed, text, unless_python, unless_root};

/// Time by which a bomb may be late, and by which it may make the host late: 200 and 250 ms on an idle machine, and
/// more where other tests run beside it.
const LATE: Duration = Duration::from_millis(800);
const HOST_LATE: Duration = Duration::from_millis(500);

/// Long enough for a bomb to get where it can't go on.
fn wall() -> Duration {
    at_most(Duration::from_millis(700))
}

fn unless_root_with_python() -> Option<String> {
    unless_root().or_else(unless_python)
}

fn limits() -> Limits {
    Limits::new().wall_time(wall()).stdout_max(1 << 20).stderr_max(1 << 20)
}

/// Memory that no bomb here is without, as well as processes: the machine is to live.
fn cgroup() -> Cgroup {
    Cgroup::new().memory_max(64 << 20).pids_max(32)
}

/// Runs a bomb beside a clock of the host's that wants to go on every 10 ms, and looks for what it has left.
#[track_caller]
fn explode(sandbox: &Sandbox, command: &Command) -> Output {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let (before, over) = (mounts(), AtomicBool::new(false));
    let (output, took, latest) = std::thread::scope(|scope| {
        let clock = scope.spawn(|| {
            let mut latest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                const TICK: Duration = Duration::from_millis(10);
                let start = Instant::now();
                std::thread::sleep(TICK);
                latest = latest.max(start.elapsed().saturating_sub(TICK));
            }
            latest
        });
        let start = Instant::now();
        let output = sandbox.output(command).expect("a sandbox");
        let took = start.elapsed();
        over.store(true, Ordering::Relaxed);
        (output, took, clock.join().expect("a clock"))
    });
    assert!(took < wall() + at_most(LATE), "{command:?} took {took:?}: {}", output.outcome);
    assert!(latest < at_most(HOST_LATE), "the host was late by {latest:?} under {command:?}");
    assert_eq!(mounts(), before, "{command:?}");
    output
}

/// What is left of the bombs of this process.
fn assert_nothing_left() {
    let own = format!("-{}-", std::process::id());
    let left = |folder: fs::DirEntry| {
        let groups = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        let names = groups.map(|group| group.file_name().to_string_lossy().into_owned());
        // On v2 the caller is in a leaf of its own.
        names.filter(|name| name.contains(&own) && !name.starts_with("stockade-caller-")).count()
    };
    let groups: usize = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(left).sum();
    assert_eq!(groups, 0, "cgroups are left");
}

fn python(script: &str) -> Command {
    Command::new("python3").args(["-c", script]).clone()
}

fn how(output: &Output) -> (Termination, String) {
    (output.outcome.termination, text(&output.stdout).trim().to_owned())
}

const FORKS: &str = "
import os, time
n = 1
try:
    while True:
        if os.fork() == 0: time.sleep(1000)
        n += 1
except BlockingIOError:
    print(n, flush=True)
time.sleep(1000)";

const THREADS: &str = "
import threading, time
n = 1
try:
    while True:
        threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
        n += 1
except RuntimeError:
    print(n, flush=True)
time.sleep(1000)";

/// Attack 26: A process that forks, and one that starts threads, until it can't. With a higher limit it comes further.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_python)]
fn processes_and_threads_do_not_exceed_the_limit() {
    let _alone = alone();
    for bomb in [FORKS, THREADS] {
        for most in [8, 24] {
            let sandbox = Sandbox::new().cgroup(cgroup().pids_max(most)).limits(limits());
            assert_eq!(how(&explode(&sandbox, &python(bomb))), (Termination::WallTime, most.to_string()));
        }
    }
    assert_nothing_left();
}

/// Attack 26: Each of its processes forks on: nobody is left to count.
#[apply(test)]
#[only(Root)]
fn fork_bombs_are_killed_in_time() {
    let _alone = alone();
    let sandbox = Sandbox::new().cgroup(cgroup()).limits(limits());
    let output = explode(&sandbox, Command::new("sh").args(["-c", "bomb() { bomb | bomb & }; bomb; sleep 1000"]));
    assert_ne!(output.outcome.termination, Termination::Exited(0));
    assert_nothing_left();
}

/// Attack 26: Memory of one process, of many, and of a file in memory. With more memory each comes to its end.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_python)]
fn memory_and_files_in_memory_do_not_exceed_the_limit() {
    let _alone = alone();
    let bombs =
        ["x = bytearray(100 << 20)", "f = open('/tmp/file', 'wb')\nfor _ in range(100): f.write(bytes(1 << 20))"];
    for bomb in bombs {
        let enough = Sandbox::new().cgroup(cgroup().memory_max(400 << 20)).limits(limits());
        assert_eq!(explode(&enough, &python(bomb)).outcome.termination, Termination::Exited(0), "{bomb}");
        let sandbox = Sandbox::new().cgroup(cgroup()).limits(limits());
        assert_eq!(explode(&sandbox, &python(bomb)).outcome.termination, Termination::Memory, "{bomb}");
    }
    let forks = "import os, time\nfor _ in range(5):\n  if os.fork() == 0: x = bytearray(30 << 20); \
                 time.sleep(9)\ntime.sleep(9)";
    let sandbox = Sandbox::new().cgroup(cgroup()).limits(limits());
    let output = explode(&sandbox, &python(forks));
    // The kernel ends one of the five, the caller all others.
    assert_eq!(output.outcome.termination, Termination::Memory);
    let peak = output.outcome.usage.memory_peak.expect("a count").value;
    assert!((50 << 20..=64 << 20).contains(&peak), "{peak}");
    assert_nothing_left();
}

/// Attack 26: Files, and inodes, and space that is only reserved. Where more is allowed, more is taken.
#[apply(test)]
#[skip(unless_python)]
fn file_systems_in_memory_do_not_exceed_their_size() {
    let _alone = alone();
    let root = |size, inodes| Root::host().with(Tmpfs::new("/data").size(size).inodes(inodes).mode(0o777));
    let bombs = [
        ("import os\nf = os.open('/data/x', os.O_CREAT | os.O_RDWR)\nos.posix_fallocate(f, 0, 3 << 20)", 1 << 20, 100),
        ("for n in range(50): open(f'/data/{n}', 'w')", 4 << 20, 20),
        ("f = open('/data/x', 'wb')\nfor _ in range(3): f.write(bytes(1 << 20))", 1 << 20, 100),
    ];
    for (bomb, size, inodes) in bombs {
        let run = |size, inodes| explode(&Sandbox::new().root(root(size, inodes)).limits(limits()), &python(bomb));
        assert!(run(16 << 20, 1000).outcome.success(), "{bomb}");
        let output = run(size, inodes);
        assert_eq!(output.outcome.termination, Termination::Exited(1), "{bomb}");
        assert!(text(&output.stderr).contains("[Errno 28]"), "{bomb}: {}", text(&output.stderr));
    }
}

/// Attack 26: Programs that stop themselves, ignore SIGTERM, or leave descendants in other sessions.
#[apply(test)]
#[only(Root)]
fn programs_that_resist_termination_are_killed_in_time() {
    let _alone = alone();
    let sandbox = Sandbox::new().cgroup(cgroup()).limits(limits());
    for script in ["kill -STOP $$", "trap '' TERM INT HUP; while :; do sleep 1; done", "while :; do :; done"] {
        let output = explode(&sandbox, Command::new("sh").args(["-c", script]));
        assert_eq!(output.outcome.termination, Termination::WallTime, "{script}");
    }
    let asked = Sandbox::new().cgroup(cgroup()).limits(limits().wall_time(wall() / 2).kill_grace(wall() / 2));
    let output = explode(&asked, Command::new("sh").args(["-c", "trap '' TERM; while :; do :; done"]));
    assert_eq!(output.outcome.termination, Termination::WallTime);
    let daemons = "for n in 1 2 3; do setsid sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 & done; \
                   until [ $(grep -l '^sleep$' /proc/[0-9]*/comm 2>/dev/null | wc -l) -ge 6 ]; do :; done; exit 3";
    let outcome = listed(|| explode(&sandbox, Command::new("sh").args(["-c", daemons])).outcome);
    assert_eq!(outcome.termination, Termination::Exited(3));
    assert!(outcome.leaked.len() >= 6, "{:?}", outcome.leaked);
    let alive = |pid: u32| children().contains(&(pid as i32)) || fs::exists(format!("/proc/{pid}")).unwrap_or(false);
    assert!(outcome.leaked.iter().all(|leaked| !alive(leaked.pid.number())), "{:?}", outcome.leaked);
    assert_nothing_left();
}

/// Attack 26: Output without end.
#[apply(test)]
fn floods_of_output_are_stopped_at_the_limit() {
    let _alone = alone();
    let output = explode(&Sandbox::new().limits(limits()), &Command::new("yes"));
    assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Output, 1 << 20));
}
