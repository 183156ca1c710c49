#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_code)]

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("stockade runs on Linux on x86_64 and aarch64 alone: it is made of Linux's own system calls");

mod command;
mod confine;
mod error;
mod launch;
mod outcome;
mod plan;
mod sandbox;
mod watch;

pub use command::{Command, Stdio};
pub use confine::{
    Bind, HidePid, IdRange, Identity, Mount, NamespaceOf, Namespaces, Overlay, Proc, Root, TimeOffsets, Tmpfs,
};
pub use error::{Errno, Error, Result};
pub use outcome::{Enforcement, Layer, Outcome, Output, Reading, Signal, Source, Termination, Usage};
#[doc(hidden)]
pub use plan::Part;
pub use plan::Plan;
pub use sandbox::Sandbox;
pub use watch::Child;
