//! The supervisor: a thread that decides the system calls which the seccomp filter passes to the caller. It applies the
//! policy or a callback, and logs the calls that were denied.

use std::fmt::{self, Debug, Formatter};
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno as NixErrno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid as NixPid;

use super::killer::Killer;
use super::session_commands::{SessionCommands, Supervised};
use super::violations::ViolationLog;
use crate::confine::{LAST_ERRNO, Policy, Verdict};
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::launch::Listener;
use crate::locks::lock;
use crate::outcome::Termination;
use crate::sys::seccomp_notify::{Request, Response};
use crate::syscall::{SystemCall, is_foreign};
use crate::unix::{Errno, Pid};

/// The decision of a callback on a system call, for [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Decision {
    /// The kernel executes the call.
    ///
    /// The callback cannot restrict paths by this: between its check and the execution, another thread of the program
    /// may change the memory that the arguments point to (seccomp_unotify(2)).
    Allow,
    /// The call is not executed, and fails with this error number, 1 to 4095. With 0 it returns 0. With any other
    /// number it fails with `ENOSYS`.
    Errno(Errno),
    /// The call is not executed, and returns this value to the program. Values from -4095 to -1 are errors.
    Return(i64),
    /// The sandbox is killed: [`Termination::Syscall`].
    Kill,
}

/// A system call of the program that waits for the decision of the callback.
///
/// [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised) has an example.
pub struct Notification<'a> {
    request: &'a Request,
    /// Returns whether the call with an id still waits.
    is_waiting: &'a dyn Fn(u64) -> bool,
}

impl Debug for Notification<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x?} of {}", self.call(), self.request.args, self.request.pid)
    }
}

/// The maximum number of bytes of a read.
const LONGEST: usize = 1 << 20;
/// The maximum size of a path with its terminating zero byte (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;
/// The minimum size of a page, in bytes. A page is readable as a whole or not at all.
const PAGE: u64 = 4096;

impl<'a> Notification<'a> {
    pub(crate) fn new(request: &'a Request, is_waiting: &'a dyn Fn(u64) -> bool) -> Self {
        Self { request, is_waiting }
    }

    /// Returns the system call.
    pub fn call(&self) -> SystemCall {
        SystemCall::new(self.request.number)
    }

    /// Returns the arguments, as they are in the registers.
    pub fn args(&self) -> [u64; 6] {
        self.request.args
    }

    /// Returns the ID of the thread that makes the call, in the caller's PID namespace.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.request.pid)
    }

    /// Reads `len` bytes of memory that an argument points to, at most 1 MiB. `argument` is its index, 0 to 5.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with one of these error numbers:
    ///
    /// - `EFAULT` if the memory cannot be read, or if `argument` is above 5.
    /// - `ESRCH` if the process has exited.
    /// - `EMSGSIZE` if `len` is more than 1 MiB.
    /// - `EPERM` if the program has made its memory unreadable (`PR_SET_DUMPABLE` of prctl(2)). That is possible only
    ///   without a user namespace, if the caller lacks CAP_SYS_PTRACE.
    pub fn bytes(&self, argument: usize, len: usize) -> Result<Vec<u8>> {
        self.bytes_at(self.address(argument), len)
    }

    /// Reads the string that an argument points to, of at most 4,095 bytes. `argument` is its index, 0 to 5. The
    /// terminating zero byte is not returned.
    ///
    /// # Errors
    ///
    /// Those of [`Notification::bytes`], and `ENAMETOOLONG` for a longer string.
    pub fn string(&self, argument: usize) -> Result<Vec<u8>> {
        self.string_at(self.address(argument))
    }

    /// Returns whether it still waits. If it does, its PID has not been reused.
    pub(crate) fn is_waiting(&self) -> bool {
        (self.is_waiting)(self.request.id)
    }

    fn address(&self, argument: usize) -> u64 {
        self.request.args.get(argument).copied().unwrap_or_default()
    }

    /// Reads `len` bytes of its memory.
    pub(crate) fn bytes_at(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        if len > LONGEST {
            return Err(self.unreadable(NixErrno::EMSGSIZE));
        }
        let bytes = self.read(address, len)?;
        if bytes.len() < len { Err(self.unreadable(NixErrno::EFAULT)) } else { Ok(bytes) }
    }

    /// Reads a string in its memory.
    pub(crate) fn string_at(&self, mut address: u64) -> Result<Vec<u8>> {
        let mut text = vec![];
        while text.len() < LONGEST_PATH {
            // Reads at most to the end of the page, because the next page may not be mapped.
            let piece = self.read(address, (PAGE - address % PAGE) as usize)?;
            if let Some(end) = piece.iter().position(|&byte| byte == 0) {
                text.extend_from_slice(&piece[..end]);
                if text.len() < LONGEST_PATH {
                    return Ok(text);
                }
                break;
            }
            address = address.wrapping_add(piece.len() as u64);
            text.extend(piece);
        }
        Err(self.unreadable(NixErrno::ENAMETOOLONG))
    }

    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let remote = [RemoteIoVec { base: address as usize, len }];
        let read = process_vm_readv(NixPid::from_raw(self.request.pid), &mut [IoSliceMut::new(&mut bytes)], &remote);
        let read = read.map_err(|errno| self.unreadable(errno))?;
        // If the call no longer waits, the PID may have been reused.
        if !self.is_waiting() {
            return Err(self.unreadable(NixErrno::ESRCH));
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    fn unreadable(&self, errno: NixErrno) -> Error {
        Error::io("read what an argument of a system call points to")(errno)
    }
}

/// A callback that decides system calls.
pub(crate) type Callback = Box<dyn FnMut(&Notification<'_>) -> Decision + Send>;

/// The programs whose calls a supervisor decides, with their logs.
pub(crate) enum Programs {
    /// That of a sandbox.
    One(Supervised),
    /// The commands of a session.
    Session(Arc<SessionCommands>),
}

impl Programs {
    /// The program of a sandbox, with a handle that kills it.
    pub fn one(killer: Killer) -> Self {
        Self::One(Supervised::new(killer))
    }

    /// Returns the program that a call belongs to. `None` for a process of a session whose command has exited.
    fn of(&self, request: &Request) -> Option<Supervised> {
        match self {
            Self::One(program) => Some(program.clone()),
            Self::Session(commands) => commands.of(request.pid),
        }
    }
}

/// The supervisor thread. It exits with the sandbox.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// A write to it stops the thread. Closing a pipe would not: a forked child of the caller may have a copy.
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// The log of the one program.
    log: Arc<Mutex<ViolationLog>>,
    creator: Creator,
}

/// The state of the thread.
struct SupervisorThread {
    listener: Listener,
    policy: Arc<Policy>,
    callback: Option<Callback>,
    programs: Programs,
}

impl Supervisor {
    /// Starts the thread.
    pub fn start(
        listener: Listener,
        policy: Arc<Policy>,
        callback: Option<Callback>,
        programs: Programs,
    ) -> Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(Error::io("create an eventfd"))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let log = match &programs {
            Programs::One(program) => program.log.clone(),
            Programs::Session(_) => Arc::default(),
        };
        let mut supervisor = SupervisorThread { listener, policy, callback, programs };
        let thread = std::thread::Builder::new().name("stockade-seccomp".into()).spawn(move || {
            // The caller's other threads handle signals.
            let _ = SigSet::all().thread_block();
            while let Ok(Some(request)) = supervisor.listener.next(stopped.as_fd()) {
                supervisor.decide(&request);
            }
        });
        let thread = thread.map_err(Error::io("start the thread that decides system calls"))?;
        Ok(Self { stop, thread: Some(thread), log, creator: Creator::this() })
    }

    /// Stops the thread after the processes of the sandbox have exited, and returns its log.
    pub(super) fn finish(&mut self) -> ViolationLog {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // The thread does not panic.
            let _ = thread.join();
        }
        std::mem::take(&mut *lock(&self.log))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.creator.is_this() {
            self.finish();
        } else {
            // A forked child has no such thread, and the lock of the log may be held for ever.
            std::mem::forget(self.thread.take());
        }
    }
}

impl SupervisorThread {
    fn decide(&mut self, request: &Request) {
        let response = match self.verdict(request) {
            Verdict::Allow => Response::Continue,
            Verdict::Deny(errno) => {
                let (call, args, path) = self.describe(request);
                if let Some(program) = self.programs.of(request) {
                    program.log().add(call, args, path);
                }
                errno_response(errno)
            }
            Verdict::AskCallback => match self.ask(request) {
                Decision::Allow => Response::Continue,
                Decision::Errno(errno) => errno_response(errno.number()),
                Decision::Return(value) => Response::Value(value),
                Decision::Kill => return self.kill(request),
            },
            Verdict::Kill => return self.kill(request),
        };
        if self.listener.answer(request.id, response).is_err() {
            // The kernel has rejected the response. The call must neither wait forever nor be executed.
            let _ = self.listener.answer(request.id, Response::Error(libc::ENOSYS));
        }
    }

    /// Returns the verdict of the policy. The filter passes a call of another ABI only to have the sandbox killed.
    fn verdict(&self, request: &Request) -> Verdict {
        if is_foreign(request.architecture, request.number) {
            Verdict::Kill
        } else {
            self.policy.verdict(request.number, &request.args)
        }
    }

    /// Calls the callback. If it panics, the panic hook reports that, and all calls that it would decide fail from then
    /// on.
    fn ask(&mut self, request: &Request) -> Decision {
        let Some(callback) = &mut self.callback else { return Decision::Kill };
        let listener = &self.listener;
        let is_waiting = |id| listener.is_waiting(id);
        let notification = Notification::new(request, &is_waiting);
        catch_unwind(AssertUnwindSafe(|| callback(&notification))).unwrap_or_else(|_| {
            *callback = Box::new(|_| Decision::Errno(Errno::ENOSYS));
            Decision::Errno(Errno::ENOSYS)
        })
    }

    /// Kills the program, and does not respond to the call. Also kills the process that makes the call: without a PID
    /// namespace, and in a session, a process that has left the program's own session (setsid(2)) is not killed with it.
    fn kill(&self, request: &Request) {
        if let Some(program) = self.programs.of(request) {
            if is_foreign(request.architecture, request.number) {
                program.log().killed_for.get_or_insert(Termination::ForeignSyscall(request.number));
            } else {
                let (call, args, path) = self.describe(request);
                program.log().add_kill(call, args, path);
            }
            let _ = program.killer.kill();
        }
        self.listener.kill(request);
    }

    /// Returns the call, its arguments, and its path if it has one.
    fn describe(&self, request: &Request) -> (SystemCall, [u64; 6], Option<Vec<u8>>) {
        let is_waiting = |id| self.listener.is_waiting(id);
        let notification = Notification::new(request, &is_waiting);
        let path = self.policy.path_argument(request.number).and_then(|argument| notification.string(argument).ok());
        (notification.call(), request.args, path)
    }
}

fn errno_response(errno: i32) -> Response {
    match errno {
        0 => Response::Value(0),
        1..=LAST_ERRNO => Response::Error(errno),
        // The program would take any other number for a result.
        _ => Response::Error(libc::ENOSYS),
    }
}
