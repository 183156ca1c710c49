//! The names of the isolation layers. How a layer is enforced is in `confine` and `cgroup`.

use std::fmt::{self, Display, Formatter};

/// A layer: one isolation mechanism. Errors and [`Enforcement`](crate::outcome::Enforcement) refer to it.
///
/// ```
/// use stockade::{Command, Layer, Sandbox};
///
/// let outcome = Sandbox::new().status(Command::new("true"))?;
/// assert!(outcome.enforcement.is_active(Layer::Seccomp));
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Layer {
    /// New or joined namespaces.
    Namespaces,
    /// A root file system of the sandbox's own.
    Root,
    /// User and group IDs other than those of the host's root, which the program also cannot change to. Not in force
    /// with [`Identity::caller`](crate::Identity::caller) if the caller has user or group ID 0, nor if ID maps or
    /// groups contain 0 on the host.
    Identity,
    /// Capability sets that are empty except for [`Capabilities::keep`](crate::Capabilities::keep), and cannot grow.
    /// Not in force if set-user-ID programs take effect ([`Sandbox::allow_new_privs`](crate::Sandbox::allow_new_privs))
    /// and the bounding set cannot be emptied.
    Capabilities,
    /// `no_new_privs`: set-user-ID programs and programs with file capabilities gain no privileges.
    NoNewPrivs,
    /// A Landlock policy.
    Landlock,
    /// A seccomp filter.
    Seccomp,
    /// A session without the caller's controlling terminal.
    Session,
    /// Restrictions of inherited descriptors: a file that is open for reading stays read-only, a file that is open for
    /// writing stays write-only, and flags of pipes and terminals are not shared. See
    /// [`Command::fd`](crate::Command::fd).
    Descriptors,
    /// A cgroup of the sandbox's own.
    Cgroup,
    /// Limits on time, on output, and on each process. A sandbox that requests no limit has no entry, although the
    /// defaults of [`Limits`](crate::Limits) apply.
    Limits,
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Identity => "identity",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no_new_privs",
            Self::Session => "session",
            Self::Limits => "limits",
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Descriptors => "descriptors",
        })
    }
}
