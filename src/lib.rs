//! [security model]: guide::security_model
//! [builds]: guide::builds
//! [testing]: guide::testing
//! [judging]: guide::judging
//! [agents]: guide::agents
//! [concepts]: guide::concepts
//! [sessions]: guide::sessions
//! [asynchronous]: guide::asynchronous
//! [containers]: guide::containers
//! [cgroups]: guide::cgroups
//! [nesting]: guide::nesting
//! [troubleshooting]: guide::troubleshooting
//! [performance]: guide::performance
//! [comparison]: guide::comparison
//!
#![doc = include_str!("../README.md")]
//!
//! # Glossary
//!
//! The documentation and the source use these terms in this sense only:
//!
//! | term | meaning |
//! |---|---|
//! | caller, parent process | The process that links this crate and calls `spawn`. |
//! | privileged caller | A caller with the capabilities that the set-up needs, usually root: see [`Identity`]. Any other is *unprivileged*. |
//! | host | The machine outside the sandbox: its kernel, file system and users. Never the calling process. |
//! | program | The program that a sandbox runs, once it has been executed. |
//! | layer | One isolation mechanism: namespaces, root, seccomp, Landlock, cgroup, … See [`Layer`]. |
//! | compile | Translating a sandbox and a command to a plan: [`Sandbox::plan`], or the first part of each spawn. Errors "when compiled" occur in both, errors "when spawned" only in a spawn. |
//! | plan | The system calls of each set-up process, compiled from a sandbox and a command. See [`Compiled`]. |
//! | script | The part of a plan that one process executes. |
//! | set-up | The part of a spawn in which the set-up processes execute the plan. It ends when the program is executed. |
//! | helper | The set-up process that creates namespaces and mounts, and starts init and the program's process. |
//! | session | A sandbox that is kept for many commands: [`Session`]. A session of setsid(2) is always named as such. |
//! | init | Process 1 of the sandbox's PID namespace. |
//! | limit | A bound on a resource. A program *exceeds* it. |
//! | enforcement | The layers that were in force. A layer that was requested and is not in force is *unenforced*. See [`Enforcement`](outcome::Enforcement). |
//! | best-effort | A layer without which the sandbox starts if the host does not support it. See [`Sandbox::best_effort`]. |
//! | gap | Objects that the program can reach, or a resource that it can use without a bound, although the layers in force are meant to prevent it. See [`Gap`](outcome::Gap). |
//! | leaked | A process is leaked if it still runs when the program exits. See [`Outcome::leaked`]. |
//! | violation | A system call that the seccomp policy denied. See [`Violation`](outcome::Violation). |
//! | delegated | A cgroup below which the caller may create cgroups (cgroups(7)). |
//! | profile | A ready-made sandbox for a common use. See [`profile`]. |
//! | outcome | The result of a run: termination, resource usage, enforcement, leaked processes and violations. See [`Outcome`]. |
//!
//! # Architecture
//!
//! A sandbox is **described** as plain data, **compiled** to a plan, **launched** by a small interpreter in a process
//! image of its own, **supervised** through pidfds, and **reported** as an outcome.
//!
//! ```text
//!  Sandbox + Command ──compile──▶ Compiled ──launch──▶ Running ──▶ Child ──▶ Outcome
//! ```
//!
//! The source tree is divided into rooms. A room imports only rooms below it (`tests/rooms.rs` checks this):
//!
//! | room | contents |
//! |---|---|
//! | `guide` | The pages of the guide, without code: [`guide`]. |
//! | `config` | Configuration files that people write (feature `config`). |
//! | `test` | Tests in sandboxes of their own: [`test`](mod@test). |
//! | `profile` | Ready-made sandboxes: [`profile`]. |
//! | `learn` | The files and system calls that a program needs, learned by running it: [`Learned`](learn::Learned). |
//! | `fingerprint` | The digest of a description: `Sandbox::fingerprint` (feature `fingerprint`). |
//! | `probe` | The features that this host supports, found by trying them: [`Support`](probe::Support). |
//! | `tokio` | The entry points as async functions (feature `tokio`). |
//! | `pool` | Sessions that are kept ready: [`Pool`](pool::Pool). |
//! | `sandbox` | The builder, [`Sandbox`], and its entry points. |
//! | `session` | One sandbox for many commands: [`Session`]. |
//! | `best_effort` | The configurations to try if the host does not support a best-effort layer. |
//! | `command` | The description of a command: [`Command`], [`Stdio`]. |
//! | `child` | A running program, [`Child`]: waiting, limits of time and output, supervised system calls. |
//! | `compile` | The order of every set-up step, from top to bottom in `order.rs`, and the steps of the set-up processes themselves. |
//! | `confine` | One file for each layer: its public type, its checks, and the system calls that enforce it. |
//! | `launch` | Executing a plan: images, the handshake with the helper, reaping. |
//! | `cgroup` | Hierarchies, parents, limits and statistics: [`Cgroup`]. |
//! | `environment` | The caller's environment variables. |
//! | `sys` | Every use of `unsafe`: the interpreter, clone, and system calls that no crate wraps. |
//! | `plan` | Scripts of system calls as plain data: arguments, memory, display. It knows no layer. |
//! | `collect` | Copying and removing files that a program has written: [`Collector`](collect::Collector), [`remove_dir_all`](collect::remove_dir_all). |
//! | `trace` | Spans and events (feature `tracing`). |
//! | `outcome` | The result of a run: [`Outcome`]. |
//! | `host_path` | Paths of the host, and which symlinks in them are followed: [`HostPath`](mount::HostPath). |
//! | `syscall` | Names and numbers of system calls: [`SystemCall`](seccomp::SystemCall). |
//! | `error` | The error type: [`Error`]. |
//! | `advice` | What to do about an error: the table of causes and hints, and the facts that select a row. |
//! | `mountinfo` | The table of mounts. |
//! | `process_status` | The status of a process, as `/proc` shows it. |
//! | `proc_file` | Reading files of `/proc`. |
//! | `skip_reason` | The reasons why a file that a program wrote is not collected: [`SkipReason`](collect::SkipReason). |
//! | `stored` | The serialised form of values (feature `serde`): field formats, units, versions. |
//! | `flag_set` | Sets of flags as types, such as [`Namespaces`]. |
//! | `escape` | Bytes that a program controls, as text. |
//! | `creator` | The PID that created a value: a forked child must not release its resources. |
//! | `unix` | Numbers of the kernel as types: [`Errno`], [`Signal`], process IDs. |
//! | `locks` | How mutexes are locked. |
//! | `file_size` | The maximum size of the files that the caller may write. |
//! | `layer` | The names of the layers: [`Layer`]. |
//!
//! The processes of a sandbox are children of the caller:
//!
//! ```text
//!  caller ──┬── helper    creates the namespaces and mounts, starts the other two, and exits. It is outside the PID
//!           │             namespace. Without a PID namespace it stays, without any capability, to kill the program if
//!           │             the caller exits. In a session it stays, as confined as the programs, and clones a
//!           │             process for each command.
//!           ├── init      process 1 of the PID namespace. It exits when the caller closes a pipe or exits, when the
//!           │             wall-clock limit is exceeded, or when the program has exited. The kernel then kills the
//!           │             whole namespace.
//!           └── program   process 2 or later. It drops its privileges while the old root is detached, and is executed
//!                         when everything is set up. The kernel reports its status and resource usage to the caller.
//! ```
//!
//! A new layer consists of its file in `confine`, one line in `compile/order.rs`, and one method of [`Sandbox`]. They
//! are joined by its field and default in `compile/config.rs`, its check in `compile/decisions.rs`, its name in
//! [`Layer`], and the re-exports.
#![deny(missing_docs, unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// The examples of `test` show where it is called.
#![allow(clippy::test_attr_in_doctest)]

mod advice;
mod best_effort;
pub mod cgroup;
pub mod child;
pub mod collect;
mod command;
mod compile;
#[cfg(feature = "config")]
#[cfg_attr(docsrs, doc(cfg(feature = "config")))]
pub mod config;
mod confine;
mod creator;
mod environment;
mod error;
mod escape;
mod file_size;
#[cfg(feature = "fingerprint")]
mod fingerprint;
mod flag_set;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod guide;
mod host_path;
mod launch;
mod layer;
mod locks;
mod mountinfo;
pub mod outcome;
mod plan;
pub mod pool;
pub mod probe;
mod proc_file;
mod process_status;
pub mod profile;
mod sandbox;
mod session;
mod skip_reason;
mod stored;
mod sys;
mod syscall;
pub mod test;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub mod tokio;
mod trace;
mod unix;

// Stands last, so that `Sandbox::new` is the first method in the documentation of `Sandbox`.
pub mod learn;

#[doc(inline)]
pub use cgroup::Cgroup;
#[doc(inline)]
pub use child::Child;
pub use command::{Command, Stdio};
pub use compile::Compiled;
#[cfg(feature = "_testing")]
#[doc(hidden)]
pub use compile::CompiledSession;
pub use confine::{Capabilities, Identity, Landlock, Limits, Namespaces, Root, Seccomp};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "fingerprint")]
#[cfg_attr(docsrs, doc(cfg(feature = "fingerprint")))]
pub use fingerprint::Fingerprint;
pub use layer::Layer;
#[doc(inline)]
pub use outcome::{Outcome, Output, Termination};
#[cfg(feature = "_testing")]
#[doc(hidden)]
pub use plan::Part;
pub use sandbox::Sandbox;
pub use session::Session;
pub use unix::{Errno, Signal};

/// Rules, conditions and actions of a seccomp policy, names of system calls, and notifications of a callback.
///
/// The policy itself is [`Seccomp`], at the crate root.
pub mod seccomp {
    #[doc(inline)]
    pub use crate::child::{Decision, Notification};
    pub use crate::confine::{Action, Comparison, Condition, Rule};
    pub use crate::syscall::SystemCall;
}

/// Operations on the file system of a sandbox, such as [`Bind`](mount::Bind), and paths of the host.
///
/// The list of operations is [`Root`], at the crate root.
pub mod mount {
    pub use crate::confine::{Bind, HidePid, Inputs, Mode, Operation, Overlay, Proc, Tmpfs};
    pub use crate::host_path::HostPath;
}

/// Existing namespaces to join, and the clock offsets of a time namespace.
///
/// The set of the kinds that are created is [`Namespaces`], at the crate root.
pub mod namespaces {
    pub use crate::confine::{NamespaceRef, TimeOffsets};
}

/// The ranges of an ID map.
///
/// The IDs of the program are [`Identity`], at the crate root; [`Identity::maps`] takes these ranges.
pub mod identity {
    pub use crate::confine::IdRange;
}

/// The names of capabilities.
///
/// The set that a program keeps is [`Capabilities`], at the crate root.
pub mod capabilities {
    pub use crate::confine::{Capability, UnknownCapability};
}

/// The access rights of a Landlock policy.
///
/// The policy itself is [`Landlock`], at the crate root.
pub mod landlock {
    pub use crate::confine::FsAccess;
}

/// The resources of a process that can be limited, and the action when an output limit is exceeded.
///
/// The limits themselves are [`Limits`], at the crate root.
pub mod limits {
    pub use crate::confine::{Overflow, Resource};
}

/// Process IDs, and the error for a number that is no signal.
///
/// The type of signals is [`Signal`], at the crate root.
pub mod process {
    pub use crate::unix::{InvalidSignal, Pid};
}
