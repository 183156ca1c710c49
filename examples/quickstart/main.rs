//! Compiles a C program in one sandbox and runs it in another. There the program tries five things that a sandbox must
//! deny, and the results are printed.
//!
//! `cargo run --example quickstart`, as root or as an ordinary user. It needs a C compiler.

use std::error::Error;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{User, geteuid};
use stockade::ErrorKind;
use stockade::mount::Bind;
use stockade::{Command, Output, Root, Sandbox};
use tempfile::TempDir;

const SOURCE: &str = include_str!("attempts.c");
/// Number of things that the program tries.
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

    println!("1. Compile: the compiler can read the host, write to one directory, and has no network.");
    let output = compile(sources.path(), results.path())?;
    println!("   cc {}\n", output.outcome);

    println!("2. Run: the root of the program contains only the program itself, a new /proc, and a read-only /usr.");
    // The program tries to access a listener, a process and a home directory outside of the sandbox.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let process = fs::read_to_string("/proc/self/comm")?;
    let home = User::from_uid(geteuid())?.map_or_else(|| "/root".into(), |user| user.dir);
    let sandbox = Sandbox::new()
        // The compiler's output is bound without following a symlink that the compiler may have left.
        .root(
            Root::empty()
                .with(Bind::beneath(results.path(), "attempts", "/attempts"))
                .bind("/usr", "/usr")
                .proc("/proc"),
        );
    let output = sandbox.output(Command::new("/attempts").arg(home).args([process.trim_end(), &port]))?;
    println!("   attempts {}\n", output.outcome);

    println!("What the program tried, and the errors of the kernel:");
    show(&output)
}

/// Compiles the program. Returns an error that names what is missing.
fn compile(sources: &Path, results: &Path) -> Result<Output, Box<dyn Error>> {
    let sandbox = Sandbox::new().root(Root::host().bind(sources, "/src").bind_rw(results, "/out"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-static", "-o", "/out/attempts", "/src/attempts.c"]);
    let output = match sandbox.output(cc) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("no C compiler (cc) was found: install the package gcc, \
                        with libc6-dev on Debian and Ubuntu, with glibc-static on Fedora"
                .into());
        }
        result => result?,
    };
    if output.outcome.success() {
        return Ok(output);
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "cc {}; if the static C library is missing, install libc6-dev (Debian, Ubuntu) or glibc-static \
         (Fedora)\n{messages}",
        output.outcome
    )
    .into())
}

/// Prints the program's report. Returns an error if an attempt succeeded.
fn show(output: &Output) -> Result<(), Box<dyn Error>> {
    let mut denied = 0;
    for line in String::from_utf8(output.stdout.clone())?.lines() {
        let [result, attempt, answer] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("unexpected line in the program's report: {line:?}").into());
        };
        denied += usize::from(result == "denied");
        println!("   {result:<9}{attempt:<26}{answer}");
    }
    if denied == ATTEMPTS && output.outcome.success() {
        println!("\nAll {ATTEMPTS} attempts were denied.");
        return Ok(());
    }
    Err(format!("{denied} of {ATTEMPTS} attempts were denied, and the program {}", output.outcome).into())
}

/// Creates a temporary directory that every user can enter, because the program of a root caller runs as another user.
fn directory() -> std::io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("quickstart-").tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}
