//! One session for the commands of an agent: they share a workspace, a server goes on between them, and each has its own limits
//! and outcome.
//!
//! `cargo run --example agent`, as root or as an ordinary user, or `-- --shell` for a shell in the session. It needs Python.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use stockade::{Command, Limits, Session, Termination, profile};

/// The time that a command may take.
const LIMIT: Duration = Duration::from_secs(2);
const SERVER: &str = "127.0.0.1:8000";

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        None => work(),
        Some("--shell") => shell(),
        Some(_) => Err("usage: agent [--shell]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs commands as an agent would.
fn work() -> Result<(), Box<dyn Error>> {
    let workspace = tempfile::tempdir()?;
    let session = start(workspace.path())?;

    session.create("/workspace/page.html")?.write_all(b"made by the caller\n")?;
    run(&session, "echo 'made by a command' >> page.html; cat page.html")?;

    // What is left in the background writes elsewhere than to the pipes of the command.
    run(&session, "python3 -m http.server --bind 127.0.0.1 8000 >server.log 2>&1 & echo started")?;
    println!("the server answers: {}", get(&session, "/page.html")?.trim_end());

    let outcome = run(&session, "sleep 1000 & sleep 1000")?;
    if outcome != Termination::WallTime {
        return Err("the limit was not enforced".into());
    }
    println!("the server still answers: {}", get(&session, "/page.html")?.trim_end());

    session.kill()?;
    println!("the workspace has {:?}", names(workspace.path())?);
    Ok(())
}

fn start(workspace: &std::path::Path) -> stockade::Result<Session> {
    profile::agent()
        .map_root(|root| root.bind_rw(workspace, "/workspace"))
        .limits(Limits::new().wall_time(LIMIT).stdout_max(1 << 20).stderr_max(1 << 20))
        .start()
}

/// Runs a script in the workspace, and prints what it says and how it ends.
fn run(session: &Session, script: &str) -> stockade::Result<Termination> {
    let output = session.output(Command::new("sh").args(["-c", script]).current_dir("/workspace"))?;
    println!("$ {script}");
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("[{}]", output.outcome);
    Ok(output.outcome.termination)
}

/// Requests a page of the server inside, as the caller.
fn get(session: &Session, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = connect(session, SERVER.parse()?)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
    Ok(body.replace('\n', "; "))
}

/// Connects to a server inside, which may not listen yet.
fn connect(session: &Session, address: SocketAddr) -> stockade::Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match session.connect_tcp(address) {
            Err(error)
                if error.io_kind() == ErrorKind::ConnectionRefused && begin.elapsed() < Duration::from_secs(30) =>
            {
                sleep(Duration::from_millis(20));
            }
            connected => return connected,
        }
    }
}

fn names(directory: &std::path::Path) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Runs a shell in a session, at the terminal of this process.
fn shell() -> Result<(), Box<dyn Error>> {
    let workspace = tempfile::tempdir()?;
    let session =
        profile::agent().map_root(|root| root.bind_rw(workspace.path(), "/workspace")).limits(Limits::new()).start()?;
    let outcome = session.interact(Command::new("sh").current_dir("/workspace"))?;
    println!("[{outcome}]");
    Ok(())
}
