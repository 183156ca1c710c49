//! Set-user-ID programs of the system that do for an ordinary user what takes privileges: found in fixed directories,
//! checked, and executed by descriptor. `PATH` is not used: a program could have written what it leads to.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::{Error, Result};
use crate::sys::attribute::attribute;

/// Where they may be. The last one is NixOS's.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of its messages that are kept.
const MESSAGES: u64 = 4096;
/// Symbolic links that a path may lead through.
const LINKS: u32 = 40;

/// Runs a program of the system's, with an empty environment, and returns what it has written to standard error. Its
/// status may not be there to read, in a caller that ignores SIGCHLD.
pub(super) fn run(name: &'static str, args: impl IntoIterator<Item = String>) -> Result<String> {
    let program = find(name)?;
    let failed = |error: io::Error| Error::set_up(format!("starting {name}"), "execve", error, None);
    let mut child = Command::new(by_descriptor(&program))
        .arg0(name)
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    match messages(&mut child, deadline) {
        Ok(messages) => Ok(messages),
        Err(error) => {
            // A set-user-ID program may not be an ordinary user's to kill. Whenever it exits, it is reaped.
            let _ = child.kill();
            let _ = std::thread::Builder::new().name("stockade-reaper".into()).spawn(move || child.wait());
            let remedy =
                format!("it has not exited within {PATIENCE:?}, or its messages can't be read: look at {name}");
            Err(Error::set_up(format!("waiting for {name}"), "poll", error, Some(&remedy)))
        }
    }
}

/// Reads what a child writes, and waits until it has exited.
fn messages(child: &mut Child, deadline: Instant) -> io::Result<String> {
    const PAUSE: Duration = Duration::from_millis(1);
    let mut text = vec![];
    let late = || io::Error::from(Errno::ETIMEDOUT);
    if let Some(mut stderr) = child.stderr.take() {
        let mut chunk = [0; 512];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)], timeout) {
                Err(Errno::EINTR) => continue,
                Ok(0) => return Err(late()),
                other => other?,
            };
            let count = stderr.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            let room = (MESSAGES as usize).saturating_sub(text.len());
            text.extend_from_slice(&chunk[..count.min(room)]);
        }
    }
    // An error is that of a status which somebody else has taken.
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            return Err(late());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Opens the program of that name.
fn find(name: &'static str) -> Result<OwnedFd> {
    let step = format!("mapping ids with {name}");
    let mut refused = None;
    for directory in DIRECTORIES {
        let path = Path::new(directory).join(name);
        match open(&path) {
            Ok(program) => return Ok(program),
            Err(Refusal::Absent) => {}
            Err(Refusal::Untrusted(why)) => refused = refused.or(Some((path, why))),
        }
    }
    Err(match refused {
        None => {
            let remedy = format!(
                "install the package uidmap (shadow-utils), so that it is in {}, or map your own id alone",
                DIRECTORIES.join(" or ")
            );
            Error::set_up(step, "open", Errno::ENOENT, Some(&remedy))
        }
        Some((path, why)) => {
            let remedy = format!(
                "{why}: a program that is executed for the caller must be a set-user-ID program of root's, or have file \
                 capabilities, and neither it nor a directory above may be writable by others"
            );
            Error::set_up(step, "open", Errno::EACCES, Some(&remedy)).on(path)
        }
    })
}

/// Why a program is not executed.
enum Refusal {
    Absent,
    Untrusted(String),
}

impl From<Errno> for Refusal {
    fn from(_: Errno) -> Self {
        Self::Absent
    }
}

/// Opens a program, and checks it and every directory and link on the way to it, each by descriptor.
fn open(path: &Path) -> Result<OwnedFd, Refusal> {
    let look = |directory: &OwnedFd, name: &Path| {
        openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    };
    let top =
        || openat(nix::fcntl::AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut untrusted = None;
    let mut check = |at: &FileStat, what: &Path| {
        if at.st_uid != 0 || at.st_mode & 0o022 != 0 {
            untrusted.get_or_insert_with(|| format!("{} is writable by others than root", what.display()));
        }
    };
    // The names that are still to be followed, the next one last.
    let names = |path: &Path| -> Vec<PathBuf> {
        path.components().rev().map(|component| PathBuf::from(component.as_os_str())).collect()
    };
    let mut left = names(path);
    let mut passed: Vec<OwnedFd> = vec![top()?];
    let mut links = 0;
    while let Some(name) = left.pop() {
        match name.components().next() {
            Some(Component::RootDir) => passed.truncate(1),
            Some(Component::ParentDir) => passed.truncate(passed.len().saturating_sub(1).max(1)),
            Some(Component::Normal(_)) => {
                let above = passed.last().ok_or(Refusal::Absent)?;
                let opened = look(above, &name)?;
                let stat = fstat(&opened)?;
                if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFLNK {
                    check(&stat, &name);
                    passed.push(opened);
                    continue;
                }
                links += 1;
                if links > LINKS {
                    return Err(Refusal::Absent);
                }
                left.extend(names(Path::new(&readlinkat(&opened, "")?)));
            }
            _ => {}
        }
    }
    check(&fstat(&passed[0])?, Path::new("/"));
    let program = passed.pop().ok_or(Refusal::Absent)?;
    let stat = fstat(&program)?;
    let is_file = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
    let has_capabilities = || attribute(&by_descriptor(&program), c"security.capability").is_ok();
    match untrusted {
        Some(why) => Err(Refusal::Untrusted(why)),
        None if !is_file => Err(Refusal::Untrusted("it is no regular file".into())),
        None if stat.st_mode & libc::S_ISUID == 0 && !has_capabilities() => {
            Err(Refusal::Untrusted("it is neither set-user-ID nor has it file capabilities".into()))
        }
        None => Ok(program),
    }
}

fn by_descriptor(program: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", program.as_raw_fd()).into()
}
