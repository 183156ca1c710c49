//! Runs set-user-ID programs of the system, such as newuidmap(1), for callers that are ordinary users. They are
//! searched in fixed directories, checked, and executed by descriptor. `PATH` is not used, because a sandboxed program
//! may have written to its directories.

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
use crate::sys::xattr;

/// The directories that are searched. The last one is that of NixOS.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"];
/// The time that a program may take.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of bytes of its messages that are kept.
const MESSAGES: u64 = 4096;
/// The maximum number of symlinks in a path.
const LINKS: u32 = 40;

/// Runs a program with an empty environment, and returns its standard error. The exit status is not checked, because it
/// is lost if the caller ignores SIGCHLD.
pub(super) fn run(name: &'static str, args: impl IntoIterator<Item = String>) -> Result<String> {
    let program = find(name)?;
    let failed = |error: io::Error| Error::set_up(format!("start {name}"), "execve", error, None);
    let mut child = Command::new(by_descriptor(&program))
        .arg0(name)
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + EXIT_TIMEOUT;
    match messages(&mut child, deadline) {
        Ok(messages) => Ok(messages),
        Err(error) => {
            // An ordinary user may not be allowed to kill a set-user-ID program. A thread reaps it when it exits.
            let _ = child.kill();
            let _ = std::thread::Builder::new().name("stockade-reaper".into()).spawn(move || child.wait());
            let remedy =
                format!("check {name}: it has not exited within {EXIT_TIMEOUT:?}, or its messages cannot be read");
            Err(Error::set_up(format!("wait for {name}"), "poll", error, Some(&remedy)))
        }
    }
}

/// Reads the standard error of a child, and waits until it has exited.
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
    // An error means that another wait in the caller has taken the status.
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            return Err(late());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Finds, checks and opens the program with this name.
fn find(name: &'static str) -> Result<OwnedFd> {
    let step = format!("map IDs with {name}");
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
                "install the package uidmap (shadow-utils), so that it is in {}, or map only your own ID",
                DIRECTORIES.join(" or ")
            );
            Error::set_up(step, "open", Errno::ENOENT, Some(&remedy))
        }
        Some((path, why)) => {
            let remedy = format!(
                "{why}: install it as a set-user-ID program of root or with file capabilities, so that neither the file nor \
                 a directory of its path is writable by other users"
            );
            Error::set_up(step, "open", Errno::EACCES, Some(&remedy)).on(path)
        }
    })
}

/// The reason why a program is not executed.
enum Refusal {
    Absent,
    Untrusted(String),
}

impl From<Errno> for Refusal {
    fn from(_: Errno) -> Self {
        Self::Absent
    }
}

/// Opens a program. Checks it and every directory and symlink of its path, each by descriptor.
fn open(path: &Path) -> Result<OwnedFd, Refusal> {
    let look = |directory: &OwnedFd, name: &Path| {
        openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    };
    let top =
        || openat(nix::fcntl::AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut untrusted = None;
    let mut check = |at: &FileStat, what: &Path| {
        if at.st_uid != 0 || at.st_mode & 0o022 != 0 {
            untrusted.get_or_insert_with(|| format!("users other than root can write to {}", what.display()));
        }
    };
    // The components that are still to be resolved, the next one last.
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
    let has_capabilities = || xattr::get(&by_descriptor(&program), c"security.capability").is_ok();
    match untrusted {
        Some(why) => Err(Refusal::Untrusted(why)),
        None if !is_file => Err(Refusal::Untrusted("it is not a regular file".into())),
        None if stat.st_mode & libc::S_ISUID == 0 && !has_capabilities() => {
            Err(Refusal::Untrusted("it is not set-user-ID and has no file capabilities".into()))
        }
        None => Ok(program),
    }
}

fn by_descriptor(program: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", program.as_raw_fd()).into()
}
