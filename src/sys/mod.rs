//! Every use of `unsafe`: system calls that no crate wraps, and the interpreter that executes scripts. The purpose of
//! the calls does not belong here.
//!
//! A function with a contract is an `unsafe fn`. Two safe functions execute a script in memory of the caller,
//! [`clone::ChildProcess::clone`] and [`in_caller::execute`]. A script can hold any number as a pointer, so they check
//! each call first, and refuse a script that could reach other memory than its own (`shared_memory.rs`).
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub(crate) mod affinity;
#[cfg(feature = "tokio")]
pub(crate) mod async_fd;
pub(crate) mod auxv;
pub(crate) mod clone;
#[cfg(feature = "config")]
pub(crate) mod descriptor_copy;
pub(crate) mod in_caller;
pub(crate) mod inherited_fd;
pub(crate) mod kcmp;
pub(crate) mod landlock_abi;
pub(crate) mod layout;
pub(crate) mod nsfs;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod prctl;
pub(crate) mod priority;
pub(crate) mod scm_rights;
pub(crate) mod seccomp_notify;
mod shared_memory;
pub(crate) mod wait;
pub(crate) mod window_size;
pub(crate) mod xattr;
