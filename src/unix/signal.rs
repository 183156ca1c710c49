//! Signals.

use std::fmt::{self, Display, Formatter};

use nix::sys::signal::Signal as NixSignal;

/// A signal (signal(7)). Its `Display` is the name, such as `SIGTERM`, or `SIGRTMIN+2` for a real-time signal.
///
/// ```
/// use stockade::Signal;
///
/// assert_eq!(Signal::KILL.number(), 9);
/// assert_eq!(Signal::new(15).unwrap().to_string(), "SIGTERM");
/// assert_eq!(Signal::new(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "i32", into = "i32"))]
pub struct Signal(i32);

/// The last signal that the kernel knows (`_NSIG`).
const LAST: i32 = 64;

/// The first real-time signal that a libc leaves to programs: glibc keeps 32 and 33 to itself, musl also 34.
const FIRST_REAL_TIME: i32 = 34;

macro_rules! signals {
    ($($name:ident = $number:ident: $what:literal;)+) => {
        impl Signal {
            $(#[doc = concat!("`", stringify!($number), "`: ", $what)]
            pub const $name: Self = Self(libc::$number);)+
        }
    };
}
signals! {
    HUP = SIGHUP: "the terminal was closed.";
    INT = SIGINT: "interrupt from the keyboard.";
    QUIT = SIGQUIT: "quit from the keyboard, with a core dump.";
    ILL = SIGILL: "illegal instruction.";
    TRAP = SIGTRAP: "trace or breakpoint trap.";
    ABRT = SIGABRT: "abort(3).";
    BUS = SIGBUS: "bad memory access, as of a mapped file that was truncated.";
    FPE = SIGFPE: "arithmetic error.";
    KILL = SIGKILL: "kills a process. It cannot be handled.";
    USR1 = SIGUSR1: "for programs to use.";
    SEGV = SIGSEGV: "invalid memory reference.";
    USR2 = SIGUSR2: "for programs to use.";
    PIPE = SIGPIPE: "write to a pipe that nothing reads.";
    ALRM = SIGALRM: "alarm(2) expired.";
    TERM = SIGTERM: "asks a process to terminate.";
    STKFLT = SIGSTKFLT: "stack fault of a coprocessor. The kernel does not send it.";
    CHLD = SIGCHLD: "a child exited or was stopped.";
    CONT = SIGCONT: "continues a stopped process.";
    STOP = SIGSTOP: "stops a process. It cannot be handled.";
    TSTP = SIGTSTP: "stop from the keyboard.";
    TTIN = SIGTTIN: "a background process reads the terminal.";
    TTOU = SIGTTOU: "a background process writes to the terminal.";
    URG = SIGURG: "urgent data on a socket.";
    XCPU = SIGXCPU: "`RLIMIT_CPU` was exceeded.";
    XFSZ = SIGXFSZ: "`RLIMIT_FSIZE` was exceeded.";
    VTALRM = SIGVTALRM: "a virtual timer expired.";
    PROF = SIGPROF: "a profiling timer expired.";
    WINCH = SIGWINCH: "the size of the terminal changed.";
    IO = SIGIO: "I/O is possible.";
    PWR = SIGPWR: "power failure.";
    SYS = SIGSYS: "bad system call, as one that a seccomp filter traps.";
}

impl Signal {
    /// Creates a signal from its number, 1 to 64. Returns `None` for any other number.
    pub const fn new(number: i32) -> Option<Self> {
        if 0 < number && number <= LAST { Some(Self(number)) } else { None }
    }

    /// Returns the number, 1 to 64.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Creates a signal from a number that the kernel has reported.
    pub(crate) const fn reported(number: i32) -> Self {
        Self(number)
    }
}

impl Display for Signal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match NixSignal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) if self.0 == FIRST_REAL_TIME => f.write_str("SIGRTMIN"),
            Err(_) if self.0 > FIRST_REAL_TIME => write!(f, "SIGRTMIN+{}", self.0 - FIRST_REAL_TIME),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// The error for a number that is no signal, which `Signal::try_from` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a signal: signals are numbered 1 to 64 (signal(7))")]
pub struct InvalidSignal(i32);

impl TryFrom<i32> for Signal {
    type Error = InvalidSignal;

    fn try_from(number: i32) -> Result<Self, InvalidSignal> {
        Self::new(number).ok_or(InvalidSignal(number))
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}
