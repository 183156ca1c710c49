//! The layers of isolation, one file each: its public type, its checks, and the system calls that enforce it.
//!
//! A layer appends calls to a [`Script`](crate::plan::Script); the order of the layers is in `compile/order.rs`, and
//! nothing here makes a system call of a sandbox. Facts about the host that more than one layer needs are in `facts`.

pub(crate) mod capabilities;
mod capability_names;
pub(crate) mod facts;
pub(crate) mod identity;
pub(crate) mod landlock;
pub(crate) mod landlock_fallback;
pub(crate) mod limits;
pub(crate) mod mount;
mod mount_table;
pub(crate) mod namespaces;
pub(crate) mod network;
mod open_descriptor;
pub(crate) mod priorities;
pub(crate) mod quotas;
pub(crate) mod seccomp;
pub(crate) mod secure_bits;
mod sub_ids;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result};

pub use capabilities::Capabilities;
pub use capability_names::{Capability, UnknownCapability};
pub(crate) use facts::Facts;
pub use identity::Identity;
pub(crate) use identity::write_maps;
pub use landlock::{FsAccess, Landlock};
pub(crate) use limits::Bounds;
pub use limits::{Limits, Overflow, Resource};
#[cfg(feature = "config")]
pub(crate) use mount::HostSources;
pub use mount::{Bind, HidePid, Inputs, Mode, Operation, Overlay, Proc, Root, Tmpfs};
pub(crate) use namespaces::Join;
pub use namespaces::{NamespaceRef, Namespaces, TimeOffsets};
pub(crate) use network::loopback_up;
pub(crate) use open_descriptor::Descriptor;
pub(crate) use priorities::check as check_priorities;
#[cfg(feature = "config")]
pub(crate) use seccomp::StoredPolicy;
pub use seccomp::{Action, Comparison, Condition, Rule, Seccomp};
pub(crate) use seccomp::{LAST_ERRNO, Policy, Verdict};
pub use sub_ids::IdRange;
#[cfg(fuzzing)]
pub(crate) use sub_ids::sub_ids;

/// Refuses a string that contains a zero byte.
pub(crate) fn no_zero(what: &str, text: &OsStr) -> Result<()> {
    if text.as_bytes().contains(&0) {
        let remedy = "remove the zero byte: the kernel ends a string there";
        return Err(Error::invalid(format!("{what} {text:?} contains a zero byte"), remedy));
    }
    Ok(())
}
