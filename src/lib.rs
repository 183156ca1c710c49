#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_code)]

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
