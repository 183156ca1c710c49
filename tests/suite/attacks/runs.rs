//! State that one run of a sandbox could leave for the next run of the same sandbox.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command as Host, Stdio as HostStdio};

use stockade::{Cgroup, Layer, Outcome};

use crate::attacks::common::{Attempts, alone, attempt, sandbox, tell, unfiltered};
use crate::attacks::ipc::{KINDS, objects};
use crate::support::{eventually, own_path, payload, text};

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
        let run = |name: &str| -> (Attempts, Outcome) {
            let output = sandbox.output(payload(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
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
}
