//! What was enforced: the layers in force, what is missing of them, and the gaps that they leave.

use std::fmt::{self, Display, Formatter};

use crate::error::Error;
use crate::escape::printable;
use crate::layer::Layer;

/// A requested layer, or a part of one, that is not in force: see [`Enforcement`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Unenforced {
    /// The layer.
    pub layer: Layer,
    /// The requested setting, or a setting that it implies, in a few words. What
    /// [`Cgroup::memory_max`](crate::Cgroup::memory_max) implies for swap is not named besides it.
    pub requested: String,
    /// The reason: what was attempted, the error that the kernel returned, and what to do.
    pub reason: String,
}

impl Unenforced {
    /// Returns that something of the layer that an error is about is not in force.
    pub(crate) fn new(requested: impl Into<String>, error: &Error) -> Self {
        // An error without a layer never comes here.
        let layer = error.layer().unwrap_or(Layer::Limits);
        Self { layer, requested: requested.into(), reason: error.to_string() }
    }
}

/// A layer that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ActiveLayer {
    /// The layer.
    pub layer: Layer,
    /// The settings of the layer, in one line.
    pub summary: String,
}

/// The kind of a [`Gap`]: the objects that it exposes to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum GapKind {
    /// UNIX sockets in read-only trees of the host, to which the program can connect: see [`Root`](crate::Root).
    Sockets,
    /// FIFOs in read-only trees of the host, which the program can write to.
    Fifos,
    /// The limits, scheduling, priority or OOM scores of other processes of the program's user.
    Processes,
    /// Other processes of the program's user, to which the program can send signals.
    Signals,
    /// The pseudo-terminals of the host.
    Terminals,
    /// The OOM score adjustment of the program, which it can lower to an earlier value of the caller's.
    OomScore,
    /// Kernel memory of network connections, which no cgroup counts.
    NetworkMemory,
    /// The keys of the caller's user (keyrings(7)), of which the program can read the descriptions.
    Keys,
    /// Paths in writable directories that [`Root::protect`](crate::Root::protect),
    /// [`Root::read_only`](crate::Root::read_only) or a git workspace protects, which the program can replace.
    ProtectedPaths,
    /// The mounts of the sandbox, which the program can change: those of read-only trees, and those that hide a path.
    Mounts,
    /// The cgroup of the caller, whose processes the program can limit, freeze and kill.
    Cgroup,
    /// Output above [`Limits::stdout_max`](crate::Limits::stdout_max) or
    /// [`Limits::stderr_max`](crate::Limits::stderr_max), since the stream was not collected.
    Output,
}

/// A gap in the enforcement: objects that the program can reach or use without a bound, although the layers in force
/// are meant to prevent it.
///
/// ```
/// use stockade::outcome::{Enforcement, GapKind};
///
/// /// Whether a service behind a UNIX socket of the host needs protection of its own.
/// fn exposes_services(enforcement: &Enforcement) -> bool {
///     enforcement.gaps.iter().any(|gap| matches!(gap.kind, GapKind::Sockets | GapKind::Fifos))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Gap {
    /// The kind of these objects.
    pub kind: GapKind,
    /// The objects that the program can reach, and the circumstances.
    pub description: String,
    /// What to do to close the gap, as an instruction.
    pub hint: String,
}

impl Gap {
    pub(crate) fn new(kind: GapKind, description: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, description: printable(&description.into()), hint: hint.into() }
    }
}

/// Formats the description and the hint, in one line.
impl Display for Gap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.description, self.hint)
    }
}

/// The layers of isolation that were in force while the program ran.
///
/// A requested layer that cannot be enforced at all is an error of `spawn`, unless
/// [`Sandbox::best_effort`](crate::Sandbox::best_effort) names it. Then the program runs, and
/// [`Enforcement::unenforced`] lists the layer.
///
/// Some parts of a layer are not errors. They are listed in `unenforced` even without best effort:
///
/// - the quotas of the user, if `/proc/sys` is read-only for the caller ([`Limits`](crate::Limits));
/// - a descriptor that the program shares with the caller, or whose output could not be copied completely
///   ([`Command::fd`](crate::Command::fd));
/// - a mount below a writable bind that an unprivileged caller cannot reach, and that stays read-only
///   ([`Bind::writable`](crate::mount::Bind::writable));
/// - limits that the program can change, because it has no mount namespace ([`Cgroup`](crate::Cgroup));
/// - the limit on writes through the page cache ([`Cgroup::io_max`](crate::Cgroup::io_max));
/// - a process that was killed and does not terminate ([`Child::wait`](crate::Child::wait)).
///
/// Check this list after each run that must be fully confined.
///
/// A layer that is only partly in force is in `unenforced` and in [`Enforcement::active`], and
/// [`Enforcement::is_active`] returns `false` for it.
///
/// ```
/// use stockade::{Cgroup, Command, Layer, Sandbox};
///
/// let sandbox = Sandbox::new().cgroup(Cgroup::new().pids_max(64)).best_effort([Layer::Cgroup]);
/// // A trusted program, to see what an untrusted one would be confined by.
/// let enforcement = sandbox.status(Command::new("true"))?.enforcement;
///
/// assert!(enforcement.is_active(Layer::Namespaces) && enforcement.is_active(Layer::Seccomp));
/// for active in enforcement.active() {
///     println!("{}: {}", active.layer, active.summary);
/// }
/// for missing in &enforcement.unenforced {
///     println!("without {}: {}", missing.requested, missing.reason); // where this user may create no cgroups
/// }
/// for gap in &enforcement.gaps {
///     println!("gap: {gap}");
/// }
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
pub struct Enforcement {
    active: Vec<ActiveLayer>,
    /// The requested layers, or parts of them, that are not in force.
    pub unenforced: Vec<Unenforced>,
    /// What the program can reach although the layers in force are meant to prevent it, because the kernel lacks a
    /// feature or the configuration leaves it open. A requested layer that is missing is in `unenforced`, not here.
    pub gaps: Vec<Gap>,
}

impl Enforcement {
    /// Returns the layers that are fully or partly in force, in the order of [`Layer`].
    pub fn active(&self) -> impl Iterator<Item = &ActiveLayer> {
        self.active.iter()
    }

    /// Returns whether a layer is fully in force: no part of it is in [`Enforcement::unenforced`].
    pub fn is_active(&self, layer: Layer) -> bool {
        let is_missing = self.unenforced.iter().any(|missing| missing.layer == layer);
        !is_missing && self.active.iter().any(|active| active.layer == layer)
    }

    /// Records that a layer is in force.
    pub(crate) fn activate(&mut self, layer: Layer, summary: impl Into<String>) {
        let place = self.active.partition_point(|active| active.layer <= layer);
        self.active.insert(place, ActiveLayer { layer, summary: summary.into() });
    }
}
