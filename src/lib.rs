#![doc = include_str!("../README.md")]
//!
//! # Architecture
//!
//! A sandbox is **said** as plain data, **compiled** to lists of system calls, **run** by an interpreter of some sixty
//! instructions in a process image of its own, **watched** through pidfds, and **reported** as a typed outcome.
//!
//! ```text
//!  Sandbox + Command ──compile──▶ Plan ──launch──▶ init + program ──watch──▶ Outcome
//! ```
//!
//! * `sandbox`, `command`: what a user says. Nothing touches the kernel.
//! * [`profile`]: sandboxes as a starting point for some uses, said as any user would say them.
//! * `confine`: one file a feature; each writes its calls into a `Program` of the plan. `confine::compile` alone knows
//!   all of them and the order in which they come. Whatever can be refused beforehand is refused here.
//! * `plan`: calls, the bytes that they point to, the step that each belongs to. The same list is executed, shown
//!   ([`Plan`]'s `Display`), and attacked by the tests, which make each call fail in turn.
//! * `launch`: the only room with `unsafe`. A program becomes a small static executable in a memfd; a child that shares
//!   the host's memory for some microseconds (`CLONE_VM`) runs the interpreter on the calls of a stub, which closes the
//!   host's descriptors and executes it. From there on nothing of the host is in the process, nor in those that it
//!   starts, which share its few pages.
//! * `watch`: [`Child`]: waiting, signals, output, the end.
//! * `outcome`, `error`: what is told.
//! * `host_path`: paths of the host, and which symlinks in them are followed ([`HostPath`]).
//! * `collect`: what a program has left in a directory, taken out by the host ([`Collector`]), and removed ([`remove_dir_all`]).
//! * `learn`: what a program needs ([`Learned`]), by a sandbox whose calls are heard.
//! * `support`: what the host can do ([`Support`]), found by launching programs of trials.
//!
//! The processes of a sandbox are children of the host:
//!
//! ```text
//!  host ──┬── helper    becomes the program's user, makes the namespaces, the mounts and the names, starts the two
//!         │             others as the host's children, and ends. It is outside of the pid namespace. If none is made, it
//!         │             stays without any right, to kill the program when the host is gone.
//!         ├── init      PID 1 of the pid namespace: sleeps until the host closes a pipe or ends; the kernel kills the
//!         │             namespace with it.
//!         └── program   PID 2 or later. It gives up every right while the old root is taken away, and is executed when
//!                       everything stands. The kernel itself tells the host its status and usage.
//! ```
//!
//! An arrow between rooms points down the list: `confine` knows `plan` and not `launch`, `launch` knows `plan` and not
//! `confine`, `plan` knows neither.
#![deny(missing_docs, unsafe_code)]

mod cgroup;
mod collect;
mod command;
mod confine;
mod creator;
mod effort;
mod environment;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host_path;
mod launch;
mod learn;
mod mountinfo;
mod outcome;

mod plan;
pub mod profile;
mod sandbox;
#[doc = include_str!("../docs/security-model.md")]
pub mod security_model {}
mod support;
mod sys;
mod system_call;
mod text;
mod watch;

pub use caps::Capability;
pub use cgroup::{Cgroup, CgroupParent, IoMax};
pub use collect::{Collected, Collector, Left, Symlink, Unfit, remove_dir_all};
pub use command::{Command, Stdio};
pub use confine::{
    Action, Bind, Capabilities, Comparison, Condition, FsAccess, HidePid, IdRange, Identity, Landlock, Limits, Mount,
    NamespaceOf, Namespaces, Overlay, Proc, Resource, Root, Rule, Seccomp, TimeOffsets, Tmpfs,
};
pub use error::{Errno, Error, Result, SystemdFailure};
pub use host_path::HostPath;
pub use learn::Learned;
pub use outcome::{
    Enforcement, Layer, Leaked, Lost, Omitted, Outcome, Output, Reading, Signal, Source, Termination, Usage, Violation,
};
#[doc(hidden)]
pub use plan::Part;
pub use plan::Plan;
pub use sandbox::Sandbox;
pub use support::{Feature, Finding, State, Support};
pub use system_call::SystemCall;
pub use watch::{Child, Decision, Group, Notification, Overflow};
