//! The features of a sandbox that this host supports.
//!
//! [`Support::probe`] tries each [`Feature`] once. For each feature that is missing, the result states the reason and
//! what to do. Features are tried instead of derived from the version of the kernel, because distributions backport
//! features, and containers and security modules deny them.
//!
//! ```
//! use stockade::probe::{Feature, Support};
//!
//! let support = Support::probe();
//! if !support.has(Feature::Sandbox) {
//!     eprint!("{support}");
//! }
//! ```

// `checks` has what is tried, `verdict` runs it and judges the results, `table` prints the report. This room may use
// every other room but `learn` and `profile`, and no room may use it.

mod checks;
mod feature;
mod table;
mod verdict;

use crate::stored::Version;
pub use feature::Feature;

/// The state of a feature: available, limited or unavailable.
///
/// ```
/// use stockade::probe::{Feature, State, Support};
///
/// let support = Support::probe();
/// let message = match support.finding(Feature::Overlay).map(|finding| &finding.state) {
///     Some(State::Available) => "overlays work".to_owned(),
///     Some(State::Limited { reason, .. }) => format!("overlays work in part: {reason}"),
///     Some(State::Unavailable { hint, .. }) => format!("to use overlays: {hint}"),
///     _ => "not probed".to_owned(),
/// };
/// assert!(message.contains("overlays"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum State {
    /// The feature works.
    Available,
    /// The feature works in part, or the crate can use a substitute.
    #[non_exhaustive]
    Limited {
        /// What was attempted, and the error that the kernel returned.
        reason: String,
        /// What to do, as an instruction.
        hint: String,
    },
    /// The feature does not work.
    #[non_exhaustive]
    Unavailable {
        /// What was attempted, and the error that the kernel returned.
        reason: String,
        /// What to do, as an instruction.
        hint: String,
    },
}

impl State {
    /// Creates the state of a feature that is available in part, for tests of code that reads a [`Support`].
    #[must_use]
    pub fn limited(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Limited { reason: reason.into(), hint: hint.into() }
    }

    /// Creates the state of a feature that is unavailable, for tests of code that reads a [`Support`].
    #[must_use]
    pub fn unavailable(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), hint: hint.into() }
    }
}

/// The result of probing one feature.
///
/// Its `Display` is one line of the table that [`Support`] prints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Finding {
    /// The feature.
    pub feature: Feature,
    /// The state of the feature.
    pub state: State,
    /// Details, such as a version or a directory. Empty if there are none.
    pub detail: String,
}

impl Finding {
    /// Returns what was attempted, and the error that the kernel returned. `None` if the feature is available.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Available => None,
            State::Limited { reason, .. } | State::Unavailable { reason, .. } => Some(reason),
        }
    }

    /// Returns what to do, as an instruction. `None` if the feature is available.
    pub fn hint(&self) -> Option<&str> {
        match &self.state {
            State::Available => None,
            State::Limited { hint, .. } | State::Unavailable { hint, .. } => Some(hint),
        }
    }
}

/// The features that this host supports for the caller.
///
/// Its `Display` is a report: a table of all features, followed by the reason and the hint for each one that is
/// missing. The example `doctor` prints it.
///
/// ```
/// use stockade::probe::{Feature, Support};
///
/// let support = Support::probe();
/// for feature in [Feature::CgroupMemory, Feature::Landlock] {
///     if let Some(hint) = support.finding(feature).and_then(|finding| finding.hint()) {
///         println!("{feature}: {hint}");
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Support {
    #[cfg_attr(feature = "serde", serde(default))]
    version: Version<1>,
    /// Kernel release (uname(2)).
    pub kernel: String,
    /// Effective user ID of the caller.
    pub uid: u32,
    /// Landlock ABI version. `None` if Landlock is unavailable (landlock_create_ruleset(2),
    /// `LANDLOCK_CREATE_RULESET_VERSION`).
    pub landlock_abi: Option<u32>,
    /// One result for each feature, in the order of [`Feature::ALL`].
    pub findings: Vec<Finding>,
}

impl Support {
    /// Tries all features, and returns the results.
    ///
    /// This takes some milliseconds, and uses child processes that exit at once. No process, mount, cgroup or
    /// descriptor remains. Results are not cached, since settings of the host can change.
    pub fn probe() -> Self {
        verdict::probe()
    }

    /// Returns the result for a feature.
    pub fn finding(&self, feature: Feature) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.feature == feature)
    }

    /// Returns whether a feature is available, at least in part.
    pub fn has(&self, feature: Feature) -> bool {
        self.finding(feature).is_some_and(|finding| !matches!(finding.state, State::Unavailable { .. }))
    }
}
