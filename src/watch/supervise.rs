//! Calls that a filter has handed to the host: a thread decides them, by the policy or by a callback, and notes what was
//! refused.

use std::fmt::{self, Debug, Formatter};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, pipe2};

use super::noted::Noted;
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::outcome::Termination;
use crate::system_call::SystemCall;

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub id: u64,
    /// The thread that makes it.
    pub pid: i32,
    pub number: i32,
    /// It is one of another ABI, where the number means something else.
    pub is_foreign: bool,
    pub args: [u64; 6],
}

/// What a waiting call is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// The kernel does it.
    Continue,
    Error(i32),
    Value(i64),
}

/// Where calls come from.
pub(crate) trait Listen: Debug + Send + Sync {
    /// The next call; none when `stop` is readable or hung up, or nobody can make one any more.
    fn next(&self, stop: BorrowedFd<'_>) -> nix::Result<Option<Heard>>;

    /// Whether a call waits still: while it does, its pid is nobody else's.
    fn is_waiting(&self, id: u64) -> bool;

    fn answer(&self, id: u64, answer: Answer) -> nix::Result<()>;

    /// Kills the process that makes a call, if the call waits still.
    fn kill(&self, heard: &Heard);
}

/// What a policy says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    Let,
    Refuse(i32),
    Ask,
    End,
}

/// A policy, as the thread sees it.
pub(crate) trait Rules: Debug + Send + Sync {
    fn ruling(&self, number: i32, args: &[u64; 6]) -> Ruling;

    /// The path that a call names, by the number of the argument that points to it.
    fn path_argument(&self, number: i32) -> Option<usize>;
}

/// What a callback makes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Decision {
    /// The kernel does it. What its pointers lead to may have changed since it was looked at, by another thread of the
    /// program: this is no way to keep a program from a path (seccomp_unotify(2)).
    Allow,
    /// It fails with this error number, 1 to 4095; with 0 it does nothing and gives 0, and with any other `ENOSYS`.
    Errno(i32),
    /// It is not done, and gives this to the program. What lies from -4095 to -1 is an error to it.
    Return(i64),
    /// The sandbox is ended.
    Kill,
}

/// A system call of the program, which waits until it is decided.
pub struct Notification<'a> {
    heard: &'a Heard,
    listener: &'a dyn Listen,
}

impl Debug for Notification<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x?} of {}", self.system_call(), self.heard.args, self.heard.pid)
    }
}

/// The largest error number (`MAX_ERRNO` of the kernel).
pub(crate) const LAST_ERRNO: i32 = 4095;

/// Bytes that are read at a time.
const LONGEST: usize = 1 << 20;
/// Bytes of the longest path (`PATH_MAX`), its end included.
const LONGEST_PATH: usize = 4096;
/// Memory is readable by pages of at least so many bytes.
const PAGE: u64 = 4096;

impl<'a> Notification<'a> {
    pub(crate) fn new(heard: &'a Heard, listener: &'a dyn Listen) -> Self {
        Self { heard, listener }
    }

    /// Which one.
    pub fn system_call(&self) -> SystemCall {
        SystemCall(self.heard.number)
    }

    /// Its arguments, as they are in the registers.
    pub fn args(&self) -> [u64; 6] {
        self.heard.args
    }

    /// The thread that makes it, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.heard.pid
    }

    /// `len` bytes that an argument points to: 1 MiB at most, since `len` may well be what the program says.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] if the memory can't be read (`EFAULT`; `EPERM` of a program without a user namespace that has hidden
    /// it, by `PR_SET_DUMPABLE` of prctl(2), unless the host is root), if the caller is not there any more (`ESRCH`), or for more
    /// bytes than that (`EMSGSIZE`).
    pub fn bytes(&self, argument: usize, len: usize) -> Result<Vec<u8>> {
        self.bytes_at(self.address(argument), len)
    }

    /// The string that an argument points to, without its terminating zero, of 4,095 bytes at most.
    ///
    /// # Errors
    ///
    /// Those of [`Notification::bytes`]; `ENAMETOOLONG` for a longer one.
    pub fn string(&self, argument: usize) -> Result<Vec<u8>> {
        self.string_at(self.address(argument))
    }

    /// Whether it waits still: while it does, what was found by its pid was the caller's.
    pub(crate) fn is_waiting(&self) -> bool {
        self.listener.is_waiting(self.heard.id)
    }

    fn address(&self, argument: usize) -> u64 {
        self.heard.args.get(argument).copied().unwrap_or_default()
    }

    /// `len` bytes of its memory.
    pub(crate) fn bytes_at(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        if len > LONGEST {
            return Err(self.unreadable(Errno::EMSGSIZE));
        }
        let bytes = self.read(address, len)?;
        if bytes.len() < len { Err(self.unreadable(Errno::EFAULT)) } else { Ok(bytes) }
    }

    /// A string in its memory.
    pub(crate) fn string_at(&self, mut address: u64) -> Result<Vec<u8>> {
        let mut text = vec![];
        while text.len() < LONGEST_PATH {
            // The next page may not be there.
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
        Err(self.unreadable(Errno::ENAMETOOLONG))
    }

    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let remote = [RemoteIoVec { base: address as usize, len }];
        let read = process_vm_readv(Pid::from_raw(self.heard.pid), &mut [IoSliceMut::new(&mut bytes)], &remote);
        let read = read.map_err(|errno| self.unreadable(errno))?;
        // Whose memory it was is known if the call waits still.
        if !self.is_waiting() {
            return Err(self.unreadable(Errno::ESRCH));
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    fn unreadable(&self, errno: Errno) -> Error {
        Error::host("reading what an argument of a system call points to")(errno)
    }
}

/// A callback that decides system calls.
pub(crate) type Callback = Box<dyn FnMut(&Notification<'_>) -> Decision + Send>;

/// The thread that decides. It ends with the sandbox.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Closed to stop it.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    noted: Arc<Mutex<Noted>>,
    creator: Creator,
}

/// What the thread works with.
struct Desk {
    listener: Box<dyn Listen>,
    rules: Arc<dyn Rules>,
    callback: Option<Callback>,
    end: Box<dyn Fn() + Send>,
    noted: Arc<Mutex<Noted>>,
}

impl Supervisor {
    /// Starts the thread. `end` ends the sandbox.
    pub fn start(
        listener: Box<dyn Listen>,
        rules: Arc<dyn Rules>,
        callback: Option<Callback>,
        end: Box<dyn Fn() + Send>,
    ) -> Result<Self> {
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).map_err(Error::host("making a pipe"))?;
        let noted = Arc::new(Mutex::new(Noted::default()));
        let mut desk = Desk { listener, rules, callback, end, noted: noted.clone() };
        let thread = std::thread::Builder::new().name("stockade-seccomp".into()).spawn(move || {
            // Those of the host are for its other threads.
            let _ = SigSet::all().thread_block();
            while let Ok(Some(heard)) = desk.listener.next(stopped.as_fd()) {
                desk.decide(&heard);
            }
        });
        let thread = thread.map_err(Error::host("starting the thread that decides system calls"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), noted, creator: Creator::this() })
    }

    /// Whether the thread has ended the sandbox.
    pub(super) fn has_ended_it(&self) -> bool {
        lock(&self.noted).ended_for.is_some()
    }

    /// Stops the thread of a sandbox that has ended; what it has noted.
    pub(super) fn finish(&mut self) -> Noted {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
        std::mem::take(&mut *lock(&self.noted))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A forked child has no such thread.
        if !self.creator.is_this() {
            std::mem::forget(self.thread.take());
        }
        self.finish();
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    fn decide(&mut self, heard: &Heard) {
        let answer = match self.ruling(heard) {
            Ruling::Let => Answer::Continue,
            Ruling::Refuse(errno) => {
                let (call, args, path) = self.said(heard);
                lock(&self.noted).add(call, args, path);
                errno_answer(errno)
            }
            Ruling::Ask => match self.ask(heard) {
                Decision::Allow => Answer::Continue,
                Decision::Errno(errno) => errno_answer(errno),
                Decision::Return(value) => Answer::Value(value),
                Decision::Kill => return self.end(heard),
            },
            Ruling::End => return self.end(heard),
        };
        if self.listener.answer(heard.id, answer).is_err() {
            // The kernel takes no such answer: the call must not wait for ever, and must not be made.
            let _ = self.listener.answer(heard.id, Answer::Error(libc::ENOSYS));
        }
    }

    /// Of other ABIs the filter hands over what ends the sandbox alone.
    fn ruling(&self, heard: &Heard) -> Ruling {
        if heard.is_foreign { Ruling::End } else { self.rules.ruling(heard.number, &heard.args) }
    }

    /// Asks the callback. After it has panicked, which it has said itself, all that it is asked fails.
    fn ask(&mut self, heard: &Heard) -> Decision {
        let Some(callback) = &mut self.callback else { return Decision::Kill };
        let notification = Notification::new(heard, &*self.listener);
        catch_unwind(AssertUnwindSafe(|| callback(&notification))).unwrap_or_else(|_| {
            *callback = Box::new(|_| Decision::Errno(libc::ENOSYS));
            Decision::Errno(libc::ENOSYS)
        })
    }

    /// Ends the sandbox; the call is never answered. Who makes it may be out of reach of the sandbox's end: without a pid
    /// namespace, in a session of its own.
    fn end(&self, heard: &Heard) {
        if heard.is_foreign {
            lock(&self.noted).ended_for.get_or_insert(Termination::ForeignSyscall(heard.number));
        } else {
            let (call, args, path) = self.said(heard);
            lock(&self.noted).end(call, args, path);
        }
        (self.end)();
        self.listener.kill(heard);
    }

    /// What a call says: which it is, its arguments, and the path that it names.
    fn said(&self, heard: &Heard) -> (SystemCall, [u64; 6], Option<Vec<u8>>) {
        let notification = Notification::new(heard, &*self.listener);
        let path = self.rules.path_argument(heard.number).and_then(|argument| notification.string(argument).ok());
        (notification.system_call(), heard.args, path)
    }
}

fn errno_answer(errno: i32) -> Answer {
    match errno {
        0 => Answer::Value(0),
        1..=LAST_ERRNO => Answer::Error(errno),
        // The program would take anything else for a result.
        _ => Answer::Error(libc::ENOSYS),
    }
}
