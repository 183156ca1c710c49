//! State that one run of a sandbox could leave for the next run of the same sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command as Host, Stdio as HostStdio};
use std::sync::Mutex;
use std::time::Duration;

use stockade::pool::Pool;
use stockade::{Cgroup, Command, Layer, Outcome, Output, Session};

use crate::attacks::common::{Attempts, alone, attempt, sandbox, tell, unfiltered};
use crate::attacks::ipc::{KINDS, objects};
use crate::support::{eventually, field, is_root, own_path, payload, text};

payloads![("run", first_run), ("run_again", second_run), ("both_runs", both_runs), ("serve", serve)];

/// A number that the objects of all runs have.
const KEY: &str = "4711";
const PORT: u16 = 4711;
/// Where a sandbox has memory of its own.
const FILES: [&str; 4] = ["/tmp/left", "/var/tmp/left", "/run/left", "/dev/shm/left"];
/// Bytes that the first run has in memory at once, and the processes that it has.
const MEMORY: usize = 64 << 20;
const PROCESSES: usize = 20;

fn abstract_socket() -> SocketAddr {
    SocketAddr::from_abstract_name("stockade-left").expect("a name")
}

/// A daemon that listens, and never ends by itself.
fn serve(_: &[String]) -> i32 {
    let _ = nix::unistd::setsid();
    let _sockets = (TcpListener::bind(("127.0.0.1", PORT)), UnixListener::bind_addr(&abstract_socket()));
    loop {
        std::thread::park();
    }
}

fn leave() {
    objects(KEY, libc::IPC_CREAT);
    for file in FILES {
        attempt(file, fs::write(file, "left"));
    }
    let memory = vec![1_u8; MEMORY];
    tell("memory", memory.iter().step_by(4096).map(|&byte| usize::from(byte)).sum::<usize>());
    let daemon =
        |_| Host::new(own_path()).args(["--payload", "serve"]).stdin(HostStdio::null()).spawn().expect("a daemon");
    // They are left behind.
    (0..PROCESSES).map(daemon).for_each(std::mem::forget);
    eventually("the daemons listen", || TcpStream::connect(("127.0.0.1", PORT)).is_ok());
    eventually("the daemons listen", || UnixStream::connect_addr(&abstract_socket()).is_ok());
}

fn look() {
    objects(KEY, 0);
    for file in FILES {
        attempt(file, fs::read(file));
    }
    attempt("port", TcpStream::connect(("127.0.0.1", PORT)));
    attempt("socket", UnixStream::connect_addr(&abstract_socket()));
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let pids = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    // Beside the init and this one.
    attempt("processes", if pids.count() > 2 { Ok(()) } else { Err("none") });
}

fn first_run(_: &[String]) -> i32 {
    leave();
    0
}

fn second_run(_: &[String]) -> i32 {
    look();
    0
}

fn both_runs(_: &[String]) -> i32 {
    leave();
    println!("then");
    look();
    0
}

/// Attack 25: files and objects in memory, sockets, processes, and what was counted.
#[apply(test)]
fn runs_see_nothing_of_earlier_runs() {
    let _alone = alone();
    let counted = sandbox().cgroup(Cgroup::new()).best_effort([Layer::Cgroup]);
    for sandbox in [counted.clone(), unfiltered(&counted)] {
        see_nothing_of_earlier_ones(&|command| sandbox.output(command));
    }
}

/// The same of a pool, whose sessions are started before the first run.
#[apply(test)]
fn sessions_of_a_pool_see_nothing_of_earlier_ones() {
    let _alone = alone();
    let counted = sandbox().cgroup(Cgroup::new()).best_effort([Layer::Cgroup]);
    for sandbox in [counted.clone(), unfiltered(&counted)] {
        let pool = Pool::new(sandbox, 3).expect("a pool");
        eventually("they are ready", || pool.stats().ready == 3);
        // Those that have run stay while the next one does.
        let taken = Mutex::new(vec![]);
        see_nothing_of_earlier_ones(&|command| {
            let session = pool.take()?;
            let before = session.usage();
            assert!(before.cpu_time.is_none_or(|time| time.value < Duration::from_millis(50)), "{before:?}");
            assert!(before.memory_peak.is_none_or(|peak| peak.value < 16 << 20), "{before:?}");
            let output = session.output(command);
            taken.lock().expect("no panic").push(session);
            output
        });
        let sessions = taken.into_inner().expect("no panic");
        if is_root() {
            let ids: BTreeSet<String> = sessions.iter().map(host_id).collect();
            assert_eq!(ids.len(), sessions.len(), "each has a host ID of its own: {ids:?}");
        }
    }
}

/// The host ID of the programs of a session.
fn host_id(session: &Session) -> String {
    let child = session.spawn(Command::new("sleep").arg("1000")).expect("a command");
    let status = fs::read_to_string(format!("/proc/{}/status", child.pid().number())).expect("its status");
    field(&status, "Uid").split_whitespace().next().expect("an ID").to_owned()
}

fn see_nothing_of_earlier_ones(output: &dyn Fn(&Command) -> stockade::Result<Output>) {
    let run = |name: &str| -> (Attempts, Outcome) {
        let output = output(&payload(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(output.outcome.success(), "{name}: {}, {}", output.outcome, text(&output.stderr));
        let said = text(&output.stdout);
        (Attempts::parse(said.split("then\n").last().unwrap_or_default()), output.outcome)
    };
    let everything = [&KINDS[..], &FILES[..], &["port", "socket", "processes"]].concat();
    run("both_runs").0.assert_done(&everything);

    let (_, first) = run("run");
    let (found, second) = run("run_again");
    found.assert_refused(&everything);
    // Where a cgroup counts it.
    let peaks = |outcome: &Outcome| {
        let usage = &outcome.usage;
        [usage.memory_peak.map(|peak| peak.value), usage.pids_peak.map(|peak| peak.value)]
    };
    for (before, after) in peaks(&first).into_iter().zip(peaks(&second)) {
        if let (Some(before), Some(after)) = (before, after) {
            assert!(after < before / 2, "{before}, and then {after}");
        }
    }
    assert_eq!(second.leaked, []);
}
