//! The channel between the caller and the set-up processes: reads their reports, and turns a failed call into the error
//! of the step that it belongs to.

use std::io::IoSlice;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::control_pipe::ControlPipe;
use super::image::Image;
use super::process::{MAX_EXIT_TIME, Process};
use super::setup_deadline::Deadline;
use crate::advice::Denial;
use crate::error::{Error, Result};
use crate::plan::message::CommandHeader;
use crate::plan::{Part, Pids, Plan, Report, Script, Search, Slot};
use crate::sys::layout::ENTRY;
use crate::sys::pidfd;
use crate::sys::scm_rights;
use crate::unix;

/// The caller's end of a channel.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// The processes of a sandbox whose program was executed. The fields are dropped in this order: the program is reaped
/// before its init, which cannot exit while a process of its PID namespace is a zombie.
pub(super) struct Started {
    pub program: Process,
    pub init: Option<Process>,
    pub pty: Option<OwnedFd>,
    pub listener: Option<OwnedFd>,
    /// Namespaces of the sandbox, with their kinds as flags of clone(2).
    pub namespaces: Vec<(u32, OwnedFd)>,
    /// When the program was started.
    pub at: Instant,
}

/// The init of a session whose helper waits for commands.
pub(super) struct Ready {
    pub init: Process,
    pub listener: Option<OwnedFd>,
    /// Namespaces of the session, with their kinds as flags of clone(2).
    pub namespaces: Vec<(u32, OwnedFd)>,
}

/// What became of a message to the helper of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Sent,
    TooLarge,
    HelperExited,
}

/// The time that a killed helper may take to exit, in milliseconds.
const EXIT_TIMEOUT: u8 = 100;

/// A set-up in progress.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    pub plan: &'a Plan,
    pub helper: &'a Process,
    pub image: &'a Image,
    pub control: &'a ControlPipe,
    pub deadline: Deadline,
}

impl Watched<'_> {
    /// Returns the error of a set-up that exceeded its time limit. It names the step of the call that was started last.
    fn timed_out(self) -> Error {
        const PROGRESS_SLOTS: [Slot; 2] = [Script::PROGRESS, Script::TABLE];
        let slots: [u64; SLOTS] = self.image.slots();
        let (program, [current, table]) = match PROGRESS_SLOTS.map(|slot| slots[slot.0 as usize]) {
            [0, _] => (&self.plan.stub, PROGRESS_SLOTS.map(|slot| self.helper.slot(slot))),
            of_image => (&self.plan.helper, of_image),
        };
        let call = program.calls.get((current.saturating_sub(table) / ENTRY as u64) as usize);
        let step = call.and_then(|call| program.steps.get(call.step as usize));
        let what = step.map_or("start the helper".into(), |step| step.what.clone());
        let error = Error::timed_out(what, self.deadline.limit);
        match step.and_then(|step| step.path.clone()) {
            Some(path) => error.on(path),
            None => error,
        }
    }
}

/// The number of reserved slots.
const SLOTS: usize = Script::PROGRESS.0 as usize + 1;

/// A report, with the descriptors that were passed with it.
pub(super) struct Received {
    pub report: Report,
    pub fds: Vec<OwnedFd>,
    /// Whether the caller is at its limit of open descriptors, so that some were not received.
    pub is_cut: bool,
}

/// The error of a report of which not all descriptors were received.
pub(super) fn cut() -> Error {
    Error::io(READ)(Errno::EMFILE)
}

const READ: &str = "read the reports of the sandbox";

/// What came before the last report of a set-up.
#[derive(Default)]
pub(super) struct Earlier {
    listener: Option<OwnedFd>,
    namespaces: Vec<(u32, OwnedFd)>,
}

/// Makes the result of a set-up of its last report. `None` for another report.
pub(super) type Take<T> = fn(Received, Earlier) -> Option<Result<T>>;

impl Channel {
    /// Creates a channel. Returns it with the end of the set-up processes.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (host, process) = pair.map_err(Error::io("create a channel for reports"))?;
        Ok((Self(host), process))
    }

    /// Sends a descriptor to the helper. Ignores that the helper has exited, because its report says why.
    pub fn send(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let fds = [fd.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let fd = self.0.as_raw_fd();
        match sendmsg::<()>(fd, &[IoSlice::new(b"\0")], &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(Error::io("pass the cgroup to the helper")(errno)),
        }
    }

    /// Sends a command to the helper of a session, and waits until there is room for it.
    pub fn send_all(
        &self,
        header: CommandHeader,
        script: &[u8],
        fds: &[RawFd],
        deadline: Deadline,
    ) -> Result<Delivery> {
        let header = header.bytes();
        let failed = || Error::io("send a command to the helper of the session");
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            let sent = {
                let rights = [ControlMessage::ScmRights(fds)];
                sendmsg::<()>(self.0.as_raw_fd(), &[&header, script].map(IoSlice::new), &rights, flags, None)
            };
            match sent {
                Ok(_) => return Ok(Delivery::Sent),
                Err(Errno::EMSGSIZE) => return Ok(Delivery::TooLarge),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                    match poll(&mut fds, deadline.left()) {
                        Ok(0) => {
                            return Err(Error::timed_out(
                                "send a command to the helper of the session",
                                deadline.limit,
                            ));
                        }
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(errno) => return Err(failed()(errno)),
                    }
                }
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => return Ok(Delivery::HelperExited),
                Err(errno) => return Err(failed()(errno)),
            }
        }
    }

    /// Ends the connection: the helper of a session exits.
    pub fn close(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }

    /// Announces that no descriptor follows, so that the helper does not wait for one.
    pub fn send_no_more(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// Waits for the last report of the set-up, which is the one that `take` accepts. On an error, kills the processes that
    /// were started. If the caller's own part of the set-up has failed with `failed`, that error is returned: the error that
    /// the helper reports is its consequence.
    pub fn wait_until<T>(
        &self,
        watched: Watched<'_>,
        failed: Option<Error>,
        write_maps: impl Fn() -> Result<()>,
        take: Take<T>,
    ) -> Result<T> {
        let taken = self.receive_until(watched, failed, write_maps, take);
        taken.inspect_err(|_| {
            // The helper is killed first, so that it starts no further process.
            let _ = watched.helper.signal(libc::SIGKILL);
            // Where the caller may send no signals, the processes exit because the pipe closes.
            watched.control.close();
            let _ = watched.helper.has_exited(EXIT_TIMEOUT.into());
            kill_and_reap(watched.image.started());
        })
    }

    fn receive_until<T>(
        &self,
        watched: Watched<'_>,
        failed: Option<Error>,
        write_maps: impl Fn() -> Result<()>,
        take: Take<T>,
    ) -> Result<T> {
        let plan = watched.plan;
        let mut earlier = Earlier::default();
        let cause = |error| Err(failed.clone().unwrap_or(error));
        loop {
            if !self.is_ready(watched.deadline)? {
                return cause(watched.timed_out());
            }
            let received = self.receive(Report::longest(plan.search.candidates.len()))?;
            let Some(Received { report, fds, is_cut }) = received else {
                return cause(Error::died("set up the sandbox"));
            };
            if is_cut {
                return Err(cut());
            }
            match report {
                Report::MapsWanted => write_maps()?,
                Report::Namespace(kind) => earlier.namespaces.extend(fds.into_iter().map(|fd| (kind, fd))),
                Report::Listening => earlier.listener = fds.into_iter().next(),
                Report::Failed { part, call, errno } => return cause(failure(plan, part, call, errno)),
                Report::NotExecuted(failures) => return cause(not_executed(&plan.search, &failures)),
                report => {
                    let Some(taken) = take(Received { report, fds, is_cut }, mem::take(&mut earlier)) else {
                        return cause(Error::died("read a report"));
                    };
                    return taken.and_then(|taken| failed.clone().map_or(Ok(taken), Err));
                }
            }
        }
    }

    /// Waits for a report, or until every process that could send one has exited. Returns false if the deadline
    /// expired.
    pub(super) fn is_ready(&self, deadline: Deadline) -> Result<bool> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, deadline.left()) {
                Err(Errno::EINTR) => {}
                other => return other.map(|ready| ready > 0).map_err(Error::io("wait for the sandbox")),
            }
        }
    }

    /// Reads a report of at most `longest` bytes. Returns `None` if every process that could send one has exited.
    pub fn read(&self, longest: usize) -> Result<Option<Report>> {
        Ok(self.receive(longest)?.map(|received| received.report))
    }

    pub(super) fn receive(&self, longest: usize) -> Result<Option<Received>> {
        let mut bytes = vec![0; longest];
        let message = scm_rights::receive(self.0.as_fd(), &mut bytes).map_err(Error::io(READ))?;
        if message.len == 0 {
            return Ok(None);
        }
        let report = Report::decode(&bytes[..message.len]).ok_or(Error::died("read a report"))?;
        Ok(Some(Received { report, fds: message.fds, is_cut: message.is_cut }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes the report of a start: the processes, and the pseudo-terminal.
pub(super) fn started(Received { report, fds, .. }: Received, earlier: Earlier) -> Option<Result<Started>> {
    let Report::Started(pids, at) = report else { return None };
    Some(processes(pids, at, fds).map(|started| {
        let Earlier { listener, namespaces } = earlier;
        Started { listener, namespaces, ..started }
    }))
}

/// Takes the report that a session is ready.
pub(super) fn ready(Received { report, fds, .. }: Received, earlier: Earlier) -> Option<Result<Ready>> {
    let Report::Ready(init) = report else { return None };
    let pidfd = fds.into_iter().next().ok_or_else(|| Error::died("pass the pidfd of init to the caller"));
    Some(pidfd.map(|pidfd| {
        let Earlier { listener, namespaces } = earlier;
        Ready { init: Process::from_parts(init, pidfd), listener, namespaces }
    }))
}

/// Returns the processes that were started, and the pseudo-terminal, from the descriptors that were passed.
fn processes(pids: Pids, at: Duration, fds: Vec<OwnedFd>) -> Result<Started> {
    let at = since(at);
    let lost = || Error::died("pass the pidfds of the processes to the caller");
    let mut fds = fds.into_iter();
    let program = fds.next().ok_or_else(lost)?;
    let init = match pids.init {
        0 => None,
        pid => Some((pid, fds.next().ok_or_else(lost)?)),
    };
    // A process is taken over, and so reaped on an error, only if both can be.
    let program = Process::from_parts(pids.command, program);
    let init = init.map(|(pid, pidfd)| Process::from_parts(pid, pidfd));
    Ok(Started { program, init, pty: fds.next(), listener: None, namespaces: vec![], at })
}

/// Converts the time of the start, by the real-time clock, to an [`Instant`]. The start was just now, so a large
/// difference means that the clock was set in the meantime, and is cut off.
pub(super) fn since(epoch: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(1);
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(epoch);
    let now = Instant::now();
    now.checked_sub(passed.min(LONGEST)).unwrap_or(now)
}

/// Kills and reaps processes by their PIDs: the program first, as in [`Started`]. The PID of a child is not reused
/// until it is reaped. A process that is no longer a child of the caller is not killed.
pub(super) fn kill_and_reap(pids: Pids) {
    const PAUSE: Duration = Duration::from_millis(1);
    for pid in [pids.command, pids.init].into_iter().filter(|&pid| pid > 0) {
        let process = || Id::Pid(Pid::from_raw(pid));
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
        if waitid(process(), peek).is_err() {
            continue;
        }
        match pidfd::open(pid) {
            Ok(pidfd) if pid == pids.init => {
                // A process in its PID namespace may have created a child of the caller (clone(2), `CLONE_PARENT`).
                let command = Some(pids.command).filter(|&pid| pid > 0);
                let _ = Process::from_parts(pid, pidfd).finish_init_of(command, || {});
            }
            Ok(pidfd) => drop(Process::from_parts(pid, pidfd)),
            // The caller is at its limit of open descriptors.
            Err(_) => {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                let take = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
                let killed = Instant::now();
                while waitid(process(), take) == Ok(WaitStatus::StillAlive) && killed.elapsed() < MAX_EXIT_TIME {
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Returns the error of a call of the plan that has failed.
pub(super) fn failure(plan: &Plan, part: Part, call: usize, errno: i32) -> Error {
    failure_of(plan.script(part), call, errno)
}

/// Returns the error of a call of a script that has failed.
pub(super) fn failure_of(script: &Script, call: usize, errno: i32) -> Error {
    let Some(call) = script.calls.get(call) else {
        return Error::died("read a report");
    };
    let step = &script.steps[call.step as usize];
    let remedy = step.remedies.iter().find(|(known, _)| *known == errno).map(|(_, remedy)| *remedy);
    let name = call.nr.name.trim_start_matches("SYS_");
    let errno = unix::Errno::new(errno);
    let advice = Denial { need: step.need, call: name, errno }.advice(remedy);
    let error = Error::set_up(step.what.clone(), name, errno, None).advised(advice).of(step.layer);
    match &step.path {
        Some(path) => error.on(path),
        None => error,
    }
}

/// Returns the error if no candidate could be executed. Like execvp(3), it reports the first candidate that exists,
/// before those that do not.
pub(super) fn not_executed(search: &Search, failures: &[(i32, bool)]) -> Error {
    let tried: Vec<(&PathBuf, i32, bool)> =
        search.candidates.iter().zip(failures).map(|(path, &(errno, visible))| (path, errno, visible)).collect();
    let absent = |errno| matches!(errno, libc::ENOENT | libc::ENOTDIR);
    let Some(&(path, errno, visible)) =
        tried.iter().find(|(_, errno, visible)| *visible || !absent(*errno)).or(tried.first())
    else {
        return not_found(search);
    };
    match errno {
        libc::ENOENT if visible => Error::not_executable(path.clone(), unix::Errno::ENOENT, Some(NO_INTERPRETER)),
        errno if absent(errno) => not_found(search),
        errno => Error::not_executable(path.clone(), unix::Errno::new(errno), exec_remedy(errno)),
    }
}

/// The hint for a file that exists and whose interpreter does not.
const NO_INTERPRETER: &str = "the file exists, but its interpreter or dynamic loader (the first line of a script, or what \
     `readelf -l` calls the interpreter) is not visible inside: bind that too, for example with .bind(\"/usr\", \"/usr\") \
     and .bind(\"/lib64\", \"/lib64\"), or use a static program";

fn exec_remedy(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EACCES => Some(
            "make it a file that the sandbox's user may execute, in directories that this user may enter, or remove \
             noexec from its mount, or allow it in the Landlock rules",
        ),
        libc::ENOEXEC => Some("use a program in an executable format of this machine, or add a #! line to the script"),
        libc::E2BIG => Some(
            "pass fewer or shorter arguments and environment variables: they exceed the kernel's limit (execve(2))",
        ),
        libc::ETXTBSY => Some("close the file in the process that has it open for writing"),
        _ => None,
    }
}

/// Directories of packages, of which each needs others.
const STORES: [&str; 2] = ["/nix/store", "/gnu/store"];

/// The most symlinks that the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Returns what must be visible inside for a program of the host: the directory of its path, and where each link leads.
fn needed_binds(program: &Path) -> Vec<PathBuf> {
    let (mut needed, mut path) = (vec![], program.to_owned());
    for _ in 0..MAX_LINKS {
        // The whole directory only if it is for programs. Another one, such as a home, may contain private files.
        let holds_programs = |directory: &&Path| directory.ends_with("bin") || directory.ends_with("sbin");
        let store = STORES.into_iter().map(Path::new).find(|store| path.starts_with(store));
        let bound = store.or(path.parent().filter(holds_programs)).unwrap_or(&path).to_owned();
        if !needed.contains(&bound) {
            needed.push(bound);
        }
        let (Ok(link), Some(directory)) = (path.read_link(), path.parent()) else { break };
        // By its words, since a directory that is bound is no link inside.
        path = directory.join(link).components().fold(PathBuf::new(), |mut path, component| {
            match component {
                Component::ParentDir => drop(path.pop()),
                component => path.push(component),
            }
            path
        });
    }
    needed
}

/// Returns the hint for a program that exists on the host.
fn bind_hint(program: &Path) -> String {
    let needed = needed_binds(program);
    let binds: Vec<String> = needed.iter().map(|path| format!(".bind({path:?}, {path:?})")).collect();
    let (name, binds) = (program.display(), binds.join(", "));
    match program.canonicalize() {
        Ok(target) if needed.len() > 1 => format!(
            "{name} leads to {} on the host, which is not visible inside: add what is missing of {binds}",
            target.display()
        ),
        _ => format!("{name} exists on the host, but is not visible inside: add {binds}"),
    }
}

fn not_found(search: &Search) -> Error {
    let on_host = search.candidates.iter().find(|path| path.is_absolute() && path.exists());
    let remedy = on_host.map(|path| bind_hint(path));
    let remedy = remedy.unwrap_or_else(|| match &search.candidates[..] {
        [] | [_] => "pass the path of a program that exists inside, or bind the directory that contains it".into(),
        several => {
            let directories: Vec<String> =
                several.iter().filter_map(|path| Some(path.parent()?.display().to_string())).collect();
            format!(
                "it is in none of {}: bind the directory that contains it, use its path as the name, or set PATH \
                 (Command::env)",
                directories.join(":")
            )
        }
    });
    Error::not_found(search.program.clone(), search.candidates.clone(), remedy)
}
