//! What this host can do, found by trying: each thing that a sandbox may need is done once in a child that is thrown away,
//! and what fails is told with its reason and with what a person can do about it.
//!
//! It knows every other room, and none knows it.

mod feature;
mod judge;
mod remedy;
mod signs;
mod table;
mod trials;

pub use feature::Feature;

/// How far a feature can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum State {
    /// It was done, and the kernel allowed it.
    Available,
    /// It can be had in part, or something else stands in for it.
    Limited {
        /// What was tried, and what the kernel answered.
        reason: String,
        /// What a person can do about it.
        remedy: String,
    },
    /// It can't be had.
    Unavailable {
        /// What was tried, and what the kernel answered.
        reason: String,
        /// What a person can do about it.
        remedy: String,
    },
}

/// What was found out about a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Finding {
    /// The feature.
    pub feature: Feature,
    /// How far it can be had.
    pub state: State,
    /// What there is of it, in words: a version, a place. Empty if there is nothing to say.
    pub detail: String,
}

impl Finding {
    /// What was tried, and what the kernel answered, if it did not all go well.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Available => None,
            State::Limited { reason, .. } | State::Unavailable { reason, .. } => Some(reason),
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> Option<&str> {
        match &self.state {
            State::Available => None,
            State::Limited { remedy, .. } | State::Unavailable { remedy, .. } => Some(remedy),
        }
    }
}

/// What the host can do for this user. Its `Display` is a report for people: a table, and below it, for whatever is missing,
/// the reason and the remedy.
///
/// ```
/// use stockade::{Feature, Support};
///
/// let support = Support::probe();
/// if !support.has(Feature::Sandbox) {
///     eprint!("{support}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Support {
    /// Release of the kernel (uname(2)).
    pub kernel: String,
    /// Effective user id of the host.
    pub uid: u32,
    /// Version of the interface of Landlock, if there is one (landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`).
    pub landlock_abi: Option<u32>,
    /// One for each feature, in the order of [`Feature::ALL`].
    pub findings: Vec<Finding>,
}

impl Support {
    /// Tries everything. It takes some milliseconds, and leaves nothing: no process, mount, cgroup or descriptor.
    ///
    /// Nothing is kept: a host can change, by a sysctl or by what surrounds it.
    pub fn probe() -> Self {
        judge::probe()
    }

    /// What was found out about a feature.
    pub fn finding(&self, feature: Feature) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.feature == feature)
    }

    /// Whether a feature can be had, be it in part.
    pub fn has(&self, feature: Feature) -> bool {
        self.finding(feature).is_some_and(|finding| !matches!(finding.state, State::Unavailable { .. }))
    }
}
