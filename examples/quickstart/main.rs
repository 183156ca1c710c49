//! What the crate is for, in one go: a program is compiled in one sandbox and run in another, and tells what it could
//! not do there.
//!
//! `cargo run --example quickstart`, as root or as anybody, wherever there is a C compiler.

use std::error::Error;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{User, geteuid};
use stockade::{Bind, Command, Output, Root, Sandbox};
use tempfile::TempDir;

const SOURCE: &str = include_str!("attempts.c");
/// How many things the program tries.
const ATTEMPTS: usize = 5;

fn main() -> ExitCode {
    match quickstart() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn quickstart() -> Result<(), Box<dyn Error>> {
    let (sources, results) = (directory()?, directory()?);
    fs::write(sources.path().join("attempts.c"), SOURCE)?;

    println!("1. The compiler: it sees its sources read-only, writes to one directory, and has no network.");
    let output = compile(sources.path(), results.path())?;
    println!("   cc {}\n", output.outcome);

    println!("2. The program: its root is empty but for itself, a /proc of its own, and /usr to look at.");
    // What it will look for: a listener and a process of the host, and a home.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let process = fs::read_to_string("/proc/self/comm")?;
    let home = User::from_uid(geteuid())?.map_or_else(|| "/root".into(), |user| user.dir);
    let sandbox = Sandbox::new()
        // What one program has written is bound for the next without following a symlink that it may have left.
        .root(
            Root::empty()
                .mount(Bind::beneath(results.path(), "attempts", "/attempts"))
                .bind("/usr", "/usr")
                .proc("/proc"),
        );
    let output = sandbox.output(Command::new("/attempts").arg(home).args([process.trim_end(), &port]))?;
    println!("   attempts {}\n", output.outcome);

    println!("What it tried, and what the kernel answered:");
    show(&output)
}

/// Compiles the program, or says what is missing.
fn compile(sources: &Path, results: &Path) -> Result<Output, Box<dyn Error>> {
    let sandbox = Sandbox::new().root(Root::host().bind(sources, "/src").bind_rw(results, "/out"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-static", "-o", "/out/attempts", "/src/attempts.c"]);
    let output = match sandbox.output(cc) {
        Err(stockade::Error::NotFound { .. }) => {
            return Err("there is no C compiler (cc) here: install the package gcc, \
                        with libc6-dev on Debian and Ubuntu, with glibc-static on Fedora"
                .into());
        }
        result => result?,
    };
    if output.outcome.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "cc {}; if the static C library is missing, install libc6-dev (Debian, Ubuntu) or glibc-static (Fedora)\n{said}",
        output.outcome
    )
    .into())
}

/// Shows what the program has reported. That it could do a single one of the things is an error.
fn show(output: &Output) -> Result<(), Box<dyn Error>> {
    let mut refused = 0;
    for line in String::from_utf8(output.stdout.clone())?.lines() {
        let [verdict, what, answer] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("the program said {line:?}").into());
        };
        refused += usize::from(verdict == "refused");
        println!("   {verdict:<9}{what:<26}{answer}");
    }
    if refused == ATTEMPTS && output.outcome.success() {
        println!("\nAll {ATTEMPTS} were refused.");
        return Ok(());
    }
    Err(format!("{refused} of {ATTEMPTS} attempts were refused, and the program {}", output.outcome).into())
}

/// A temporary directory that a user who is not its owner can look into, as a sandbox of root's may be.
fn directory() -> std::io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("quickstart-").tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}
