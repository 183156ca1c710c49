//! File locks that programs of the host wait for: every process that can read a file can lock it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use stockade::{Command, Sandbox, Stdio, profile};

use crate::attacks::common::{attempt, sandbox};
use crate::support::{exists, payload, stdout, with_payload};

payloads![("lock_file", lock_file)];

fn lock(file: File) -> nix::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

/// Locks a file, and keeps the lock until its input ends.
fn lock_file(args: &[String]) -> i32 {
    let locked = attempt("open", File::open(&args[0])).and_then(|file| attempt("lock", lock(file)));
    println!("holding");
    std::io::stdin().read_to_end(&mut vec![]).unwrap();
    drop(locked);
    0
}

/// A file of the host that everybody may read, in a directory of `/var` where services have theirs.
fn readable() -> Option<PathBuf> {
    let mut directories = vec![PathBuf::from("/var/lib"), "/var/cache".into(), "/var/log".into()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                directories.push(entry.path());
            } else if meta.is_file() && meta.permissions().mode() & 0o004 != 0 && File::open(entry.path()).is_ok() {
                return Some(entry.path());
            }
        }
    }
    None
}

fn unless_readable() -> Option<String> {
    readable().is_none().then(|| "/var has no file that everybody may read".into())
}

/// Whether the caller gets a lock on a file while a program in a sandbox tries to keep one.
fn is_locked(sandbox: &Sandbox, path: &Path) -> bool {
    let mut command: Command = payload("lock_file");
    command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = sandbox.spawn(&command).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| line != "holding").collect();
    let locked = lock(File::open(path).unwrap()).is_err();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{said:?}");
    assert_eq!(locked, said.iter().any(|line| line == "lock: done"), "{said:?}");
    locked
}

/// Attack 69: a lock on a file of the host's makes a database there wait.
#[apply(test)]
#[skip(unless_readable)]
fn files_in_var_are_not_locked_in_the_profiles() {
    let path = readable().expect("a file");
    assert!(is_locked(&sandbox(), &path), "by default it is, as the documentation of Root::host says");
    for profile in [profile::build_step(), profile::test(), profile::agent()] {
        assert!(!is_locked(&profile.map_root(with_payload), &path), "{}", path.display());
    }
}

#[apply(test)]
fn the_profiles_have_a_var_of_their_own() {
    for sandbox in [profile::build_step(), profile::test()] {
        let seen = stdout(
            &sandbox,
            "ls /var; readlink /var/run; ls -A /var/cache /var/log; echo x >/var/lib/file; ls /var/lib",
        );
        let mut names: Vec<&str> = seen.lines().collect();
        let tools = ["gems", "ghc", "ocaml", "texmf"].into_iter();
        let tools: Vec<&str> = tools.filter(|name| exists(Path::new("/var/lib").join(name))).collect();
        names.retain(|name| !tools.contains(name));
        let expected = ["cache", "lib", "lock", "log", "run", "tmp", "/run", "/var/cache:", "", "/var/log:", "file"];
        assert_eq!(names, expected, "{seen}");
        stdout(&sandbox, "cd /var/lock && echo x >/var/tmp/file");
        if exists("/var/lib") {
            let bound = sandbox.map_root(|root| root.bind("/var/lib", "/var/lib"));
            assert_eq!(stdout(&bound, "ls /var/lib"), names_in("/var/lib"));
        }
    }
}

fn names_in(directory: &str) -> String {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names.join("\n")
}
