//! What the processes of a sandbox say over their channels, turned back into the steps of the plan.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, sendmsg, shutdown, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Deadline;
use super::image::Image;
use super::layout::ENTRY;
use super::process::{LONGEST, Process};
use crate::error::{Error, Result};
use crate::plan::{Part, Pids, Plan, Program, Report, Search};
use crate::sys::pidfd;

/// The host's end of a channel.
pub(super) struct Channel(OwnedFd);

/// The processes of a sandbox whose program runs. The program comes first: it is ended and reaped before its init, which
/// can't end while it is a zombie.
pub(super) struct Started {
    pub program: Process,
    pub init: Option<Process>,
    pub pty: Option<OwnedFd>,
    pub listener: Option<OwnedFd>,
    /// When the program was started.
    pub at: Instant,
}

/// Milliseconds that a process may take to end when it was killed.
const PATIENCE: u8 = 100;

/// A set-up in progress.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    pub plan: &'a Plan,
    pub helper: &'a Process,
    pub image: &'a Image,
    pub deadline: Deadline,
}

impl Watched<'_> {
    /// What the helper has started so far.
    fn started(self) -> Pids {
        let slots: [u64; SLOTS] = self.image.slots();
        let [init, command] = [Program::INIT, Program::COMMAND].map(|slot| slots[slot.0 as usize] as i32);
        Pids { init, command }
    }

    /// The error for a set-up that takes too long: which call was begun last.
    fn timed_out(self) -> Error {
        let slots: [u64; SLOTS] = self.image.slots();
        let helper = &self.plan.helper;
        let (program, slots) = match slots[Program::PROGRESS.0 as usize] {
            0 => (&self.plan.stub, self.helper.memory()),
            _ => (helper, slots.as_slice()),
        };
        let [begun, table] = [Program::PROGRESS, Program::TABLE].map(|slot| slots[slot.0 as usize]);
        let call = program.calls.get((begun.saturating_sub(table) / ENTRY as u64) as usize);
        let step = call.and_then(|call| program.steps.get(call.step as usize));
        Error::SetUpTimedOut {
            step: step.map_or("starting the helper".into(), |step| step.what.clone().into_owned()),
            path: step.and_then(|step| step.path.clone()),
            limit: self.deadline.limit,
        }
    }
}

/// Slots with a meaning of their own.
const SLOTS: usize = Program::PROGRESS.0 as usize + 1;

/// A report with the descriptors that came along.
struct Received {
    report: Report,
    fds: Vec<OwnedFd>,
}

impl Channel {
    /// A channel, and the end that the process gets.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (host, process) = pair.map_err(Error::host("making a channel for reports"))?;
        Ok((Self(host), process))
    }

    /// Sends the process a descriptor. One that has ended has said why.
    pub fn send(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let fds = [fd.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let fd = self.0.as_raw_fd();
        match sendmsg::<()>(fd, &[IoSlice::new(b"\0")], &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(Error::host("passing the cgroup to the helper")(errno)),
        }
    }

    /// Has the process find an end where it waits for a descriptor.
    pub fn send_no_more(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// Waits until the program runs, or has failed to. A failure of the host's, `failed`, is the cause of the one that is
    /// reported then. Whatever was started is killed.
    pub fn hear(
        &self,
        watched: Watched<'_>,
        failed: Option<Error>,
        write_maps: impl Fn() -> Result<()>,
    ) -> Result<Started> {
        let started = self.hear_until_started(watched, failed, write_maps);
        started.inspect_err(|_| {
            // It starts no other process then.
            let _ = watched.helper.signal(libc::SIGKILL);
            let _ = watched.helper.has_ended(PATIENCE.into());
            end(watched.started());
        })
    }

    fn hear_until_started(
        &self,
        watched: Watched<'_>,
        failed: Option<Error>,
        write_maps: impl Fn() -> Result<()>,
    ) -> Result<Started> {
        let plan = watched.plan;
        let mut listener = None;
        let cause = |error| Err(failed.clone().unwrap_or(error));
        loop {
            if !self.is_ready(watched.deadline)? {
                return cause(watched.timed_out());
            }
            let received = self.receive(Report::longest(plan.search.candidates.len()))?;
            let Some(Received { report, fds }) = received else {
                return cause(Error::died("setting up the sandbox"));
            };
            match report {
                Report::MapsWanted => write_maps()?,
                Report::Listening => listener = fds.into_iter().next(),
                Report::Failed { part, call, errno } => return cause(failure(plan, part, call, errno)),
                Report::NotExecuted(failures) => return cause(not_executed(&plan.search, &failures)),
                // Of no sandbox.
                Report::Tried(_) => {}
                Report::Started(pids, at) => {
                    let started = Started { listener, ..started(pids, at, fds)? };
                    return failed.clone().map_or(Ok(started), Err);
                }
            }
        }
    }

    /// Waits for a report, or for the end of all who could make one; whether there is any in time.
    fn is_ready(&self, deadline: Deadline) -> Result<bool> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, deadline.left()) {
                Err(Errno::EINTR) => {}
                other => return other.map(|ready| ready > 0).map_err(Error::host("waiting for the sandbox")),
            }
        }
    }

    /// A report of that many bytes at most; `None` when nobody is left to make one.
    pub fn read(&self, longest: usize) -> Result<Option<Report>> {
        Ok(self.receive(longest)?.map(|received| received.report))
    }

    fn receive(&self, longest: usize) -> Result<Option<Received>> {
        let failed = Error::host("reading the reports of the sandbox");
        let mut bytes = vec![0; longest];
        let mut space = cmsg_space!([i32; 2]);
        let (len, is_cut) = loop {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let fd = self.0.as_raw_fd();
            match recvmsg::<()>(fd, &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(message) => break (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC)),
                // ECONNRESET: the other end has closed, and left unread what was sent to it. It is said once, before what was
                // received (unix(7)).
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(failed(errno)),
            }
        };
        let fds = descriptors(&space);
        if is_cut {
            // Those that the table of descriptors had no room for are not among them.
            return Err(failed(Errno::EMFILE));
        }
        if len == 0 {
            return Ok(None);
        }
        let report = Report::decode(&bytes[..len]).ok_or(Error::died("reading a report"))?;
        Ok(Some(Received { report, fds }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The processes that were started, and the terminal, by the descriptors that came along.
fn started(pids: Pids, at: Duration, fds: Vec<OwnedFd>) -> Result<Started> {
    let at = since(at);
    let mut fds = fds.into_iter();
    let Some(program) = fds.next().map(|pidfd| Process::from_parts(pids.command, pidfd)) else {
        return Err(Error::died("passing the pidfd of the program to the host"));
    };
    let init = match pids.init {
        0 => None,
        pid => match Process::of_child(pid) {
            Ok(init) => Some(init),
            Err(errno) => return Err(Error::host("opening a pidfd of the init")(errno)),
        },
    };
    Ok(Started { program, init, pty: fds.next(), listener: None, at })
}

/// An instant by its time since the epoch. It has just been, however the clock was set meanwhile.
fn since(epoch: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(1);
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(epoch);
    let now = Instant::now();
    now.checked_sub(passed.min(LONGEST)).unwrap_or(now)
}

/// Kills and reaps processes of which the pids alone are known: the command first, as in [`Started`]. A pid is nobody
/// else's while the process is not reaped; whoever is no child of the caller any more is left alone.
fn end(pids: Pids) {
    const PAUSE: Duration = Duration::from_millis(1);
    for pid in [pids.command, pids.init].into_iter().filter(|&pid| pid > 0) {
        let its = || Id::Pid(Pid::from_raw(pid));
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
        if waitid(its(), peek).is_err() {
            continue;
        }
        match pidfd::open(pid) {
            Ok(pidfd) if pid == pids.init => {
                // Somebody in its PID namespace may have given a child to the caller.
                let command = Some(pids.command).filter(|&pid| pid > 0);
                let _ = Process::from_parts(pid, pidfd).finish_init_of(command, || {});
            }
            Ok(pidfd) => drop(Process::from_parts(pid, pidfd)),
            // No descriptor is left.
            Err(_) => {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                let take = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
                let killed = Instant::now();
                while waitid(its(), take) == Ok(WaitStatus::StillAlive) && killed.elapsed() < LONGEST {
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// The descriptors in the control part of a message: `struct cmsghdr {size_t len; int level, type; int fds[]}`.
#[allow(unsafe_code)]
fn descriptors(control: &[u8]) -> Vec<OwnedFd> {
    const HEADER: usize = 16;
    let Some((len, rest)) = control.split_first_chunk() else { return vec![] };
    let fds = usize::from_ne_bytes(*len).saturating_sub(HEADER).min(rest.len().saturating_sub(8));
    let fds = rest.get(8..8 + fds).unwrap_or_default().chunks_exact(4);
    let fds = fds.map(|fd| i32::from_ne_bytes(fd.try_into().unwrap_or_default()));
    // SAFETY: the kernel has just put these descriptors into our table, and nobody else knows of them: our sockets get
    // no other control messages, and the buffer was zero before.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// The error for a call of the plan that has failed.
pub(super) fn failure(plan: &Plan, part: Part, call: usize, errno: i32) -> Error {
    failure_of(plan.program(part), call, errno)
}

/// The error for a call of a program that has failed.
pub(super) fn failure_of(program: &Program, call: usize, errno: i32) -> Error {
    let Some(call) = program.calls.get(call) else {
        return Error::died("reading a report");
    };
    let step = &program.steps[call.step as usize];
    let remedy = step.remedies.iter().find(|(known, _)| *known == errno).map(|(_, remedy)| *remedy);
    let name = call.nr.name.trim_start_matches("SYS_");
    let error = Error::set_up(step.what.as_ref(), name, crate::Errno(errno), None).advised(remedy).of(step.layer);
    match &step.path {
        Some(path) => error.on(path),
        None => error,
    }
}

/// Why none of the candidates could be executed: as execvp(3) decides it, a candidate that is there and refused counts
/// for more than those that are not.
fn not_executed(search: &Search, failures: &[(i32, bool)]) -> Error {
    let tried: Vec<(&PathBuf, i32, bool)> =
        search.candidates.iter().zip(failures).map(|(path, &(errno, visible))| (path, errno, visible)).collect();
    let absent = |errno| matches!(errno, libc::ENOENT | libc::ENOTDIR);
    let Some(&(path, errno, visible)) =
        tried.iter().find(|(_, errno, visible)| *visible || !absent(*errno)).or(tried.first())
    else {
        return not_found(search);
    };
    match errno {
        libc::ENOENT if visible => Error::NotExecutable {
            program: path.clone(),
            errno: crate::Errno(errno),
            remedy: Some(
                "the file is there, but its interpreter or dynamic loader (the first line of a script, or what \
                 `readelf -l` calls the interpreter) is not visible inside: bind that too, as with \
                 .bind(\"/usr\", \"/usr\") and .bind(\"/lib64\", \"/lib64\"), or use a static program"
                    .into(),
            ),
        },
        errno if absent(errno) => not_found(search),
        errno => Error::NotExecutable {
            program: path.clone(),
            errno: crate::Errno(errno),
            remedy: exec_remedy(errno).map(str::to_owned),
        },
    }
}

fn exec_remedy(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EACCES => Some(
            "it is not an executable file for the sandbox's user, a directory above it can't be entered by that user, \
             its mount is noexec, or the Landlock rules don't allow it",
        ),
        libc::ENOEXEC => Some("it is no program of this machine's format, or a script without a #! line"),
        libc::E2BIG => Some("the arguments and the environment are longer than the kernel's limit (execve(2))"),
        libc::ETXTBSY => Some("a process has it open for writing"),
        _ => None,
    }
}

fn not_found(search: &Search) -> Error {
    let on_host = search.candidates.iter().find(|path| path.is_absolute() && path.exists());
    let remedy = on_host.map(|path| {
        let program = path.display();
        // Of other directories, such as a home, the program alone: nothing else in them need be meant for it.
        let holds_programs = |directory: &&Path| directory.ends_with("bin") || directory.ends_with("sbin");
        let bound = path.parent().filter(holds_programs).unwrap_or(path).display().to_string();
        format!("{program} exists on the host, but is not visible inside; add .bind({bound:?}, {bound:?})")
    });
    let remedy = remedy.or_else(|| match &search.candidates[..] {
        [] | [_] => None,
        several => {
            let directories: Vec<String> =
                several.iter().filter_map(|path| Some(path.parent()?.display().to_string())).collect();
            Some(format!(
                "it is in none of {}; bind what has it, name it by its path, or set PATH (Command::env)",
                directories.join(":")
            ))
        }
    });
    Error::NotFound { program: search.program.clone(), searched: search.candidates.clone(), remedy }
}
