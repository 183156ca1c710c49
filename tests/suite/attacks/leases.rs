//! Effects of a program on other users of files that it may only read: leases make them wait, and watches show which
//! files they open.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use stockade::{Sandbox, Seccomp, Stdio, profile};

use crate::attacks::common::{Attempts, attempt, bare, here, line, tell};
use crate::attacks::sys::{Word, call, numbers};
use crate::support::{payload, shared_dir, with_payload};

payloads![("lease", lease), ("watch", watch)];

/// Struct delegation {u32 flags; u16 type; u16 pad}, of Linux 6.19.
const F_SETDELEG: i64 = 1040;

fn lease(args: &[String]) -> i32 {
    // The signal that asks for the lease would end the process.
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGIO);
    asked.thread_block().unwrap();
    let file = File::open(&args[0]).unwrap();
    let fd = i64::from(file.as_raw_fd());
    let delegation = [&0u32.to_ne_bytes()[..], &(libc::F_RDLCK as u16).to_ne_bytes(), &[0; 2]].concat();
    let words = &mut [Word::Number(fd), Word::Number(F_SETDELEG), Word::Bytes(&delegation)];
    attempt("delegation", call(libc::SYS_fcntl, words));
    let garbage = 0x1234 << 32;
    let leased = numbers(libc::SYS_fcntl, &[fd, garbage | i64::from(libc::F_SETLEASE), i64::from(libc::F_RDLCK)]);
    attempt("lease", leased);
    std::thread::sleep(Duration::from_secs(600));
    0
}

/// What a holder is told, and whether the caller can open the file for writing meanwhile.
fn held(sandbox: &Sandbox, file: &Path) -> (Attempts, bool) {
    let mut holder = sandbox.spawn(here("lease").arg(file).stdout(Stdio::piped())).unwrap();
    let said: Vec<String> = (0..2).map(|_| line(holder.stdout.as_mut().unwrap())).collect();
    let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(file);
    let blocked = opened.is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN));
    holder.kill().unwrap();
    let _ = holder.wait().unwrap();
    (Attempts::parse(&said.join("\n")), blocked)
}

/// Attack 55: A lease on a file that the program can only read makes every other process wait that opens it for
/// writing.
#[apply(test)]
fn leases_are_denied_in_every_preset() {
    let place = shared_dir();
    let file = place.path().join("file");
    fs::write(&file, "text").unwrap();
    let (attempts, blocked) = held(&bare(), &file);
    attempts.assert_done(&["lease"]);
    assert!(blocked, "the attack must work here");
    for policy in [Seccomp::new(), Seccomp::container(), Seccomp::pure_computation()] {
        let (attempts, blocked) = held(&bare().seccomp(policy), &file);
        assert_eq!([attempts.get("lease"), attempts.get("delegation")], ["EPERM"; 2]);
        assert!(!blocked);
    }
}

/// Watches a directory, and says which file in it was opened.
fn watch(args: &[String]) -> i32 {
    let directory = File::open(&args[0]).unwrap();
    let notified = &[directory.as_raw_fd().into(), libc::F_NOTIFY.into(), 0];
    attempt("dnotify", numbers(libc::SYS_fcntl, notified));
    let made = numbers(libc::SYS_inotify_init1, &[0]);
    let watched = made.and_then(|fd| {
        let path = format!("{}\0", args[0]);
        let words = &mut [Word::Number(fd), Word::Bytes(path.as_bytes()), Word::Number(libc::IN_OPEN.into())];
        call(libc::SYS_inotify_add_watch, words).map(|_| fd)
    });
    let Some(fd) = attempt("inotify", watched) else { return 0 };
    // struct inotify_event {int wd; u32 mask, cookie, len; char name[]}
    let mut event = [0; 272];
    let read = call(libc::SYS_read, &mut [Word::Number(fd), Word::Room(&mut event), Word::Number(272)]);
    let seen = read.map(|len| String::from_utf8_lossy(&event[16..len as usize]).trim_end_matches('\0').to_owned());
    tell("seen", seen);
    0
}

/// What a program that watches a directory is told, while the caller opens a file in it.
fn watching(sandbox: Sandbox) -> Attempts {
    let place = shared_dir();
    fs::write(place.path().join("secret"), "text").unwrap();
    let sandbox = sandbox.map_root(|root| with_payload(root).bind(place.path(), "/place"));
    let mut child = sandbox.spawn(payload("watch").arg("/place").stdout(Stdio::piped())).unwrap();
    let mut said = line(child.stdout.as_mut().unwrap());
    said = format!("{said}\n{}\n", line(child.stdout.as_mut().unwrap()));
    File::open(place.path().join("secret")).unwrap();
    child.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    Attempts::parse(&said)
}

/// Attack 55: A program that may only read a directory is told of every file there that others open.
#[apply(test)]
fn an_agent_cannot_watch_files_of_the_host() {
    let watched = watching(profile::agent().seccomp(Seccomp::container()));
    watched.assert_done(&["inotify"]);
    assert_eq!(watched.get("seen"), "Ok(\"secret\")");
    let agent = watching(profile::agent());
    assert_eq!(agent.get("inotify"), "ENOSYS");
    agent.assert_refused(&["dnotify"]);
}
