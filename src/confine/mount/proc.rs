//! [`Proc`]: a `/proc` of the processes of the sandbox. The system calls are in `synthetic`.

#[cfg(feature = "serde")]
use crate::stored::{As, Escaped};
use std::path::PathBuf;

/// A `/proc` that shows the processes of the sandbox (proc(5)).
///
/// Without a PID namespace it is the `/proc` of the caller, read-only. It is also read-only if the program has user ID
/// 0 on the host ([`Identity::caller`](crate::Identity::caller)).
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if [`Proc::hidepid`] or
/// [`Proc::subset_pid`] is set without a new PID namespace.
///
/// ```
/// use stockade::mount::Proc;
/// use stockade::{Command, Root, Sandbox};
///
/// let sandbox = Sandbox::new().root(Root::host().with(Proc::new("/proc").subset_pid()));
/// assert!(!sandbox.output(Command::new("cat").arg("/proc/cpuinfo"))?.outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Proc {
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
    pub(super) target: PathBuf,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) hidepid: Option<HidePid>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) subset_pid: bool,
}

/// The visibility in `/proc` of processes that the program may not trace (proc(5), `hidepid`).
///
/// A program with group ID 0 on the host sees all processes. With [`Identity::caller`](crate::Identity::caller), the
/// program of a caller with group ID 0 has that group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum HidePid {
    /// Their directories are visible, but not accessible (`hidepid=1`).
    NoAccess = 1,
    /// Their directories are not visible (`hidepid=2`).
    Invisible = 2,
    /// Their directories are not visible, even to a program with group ID 0 (`hidepid=4`).
    Ptraceable = 4,
}

impl Proc {
    /// Creates a `/proc` at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), hidepid: None, subset_pid: false }
    }

    /// Sets the visibility of processes that the program may not trace.
    ///
    /// Default: all processes are visible.
    #[must_use]
    pub fn hidepid(mut self, hidepid: HidePid) -> Self {
        self.hidepid = Some(hidepid);
        self
    }

    /// Shows processes only, and no `/proc/sys`, `/proc/cpuinfo` and the like (`subset=pid`).
    ///
    /// Default: all files are shown.
    #[must_use]
    pub fn subset_pid(mut self) -> Self {
        self.subset_pid = true;
        self
    }
}
