//! Ranges of IDs, and those that `/etc/subuid` and `/etc/subgid` assign to a user (subuid(5)).

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::layer::Layer;

/// A range of mapped IDs: a line of `uid_map` or `gid_map`.
///
/// See user_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct IdRange {
    /// The first ID inside the sandbox.
    pub inside: u32,
    /// The first ID in the caller's user namespace.
    pub outside: u32,
    /// The number of IDs.
    pub count: u32,
}

impl IdRange {
    /// Creates a range that maps `count` IDs, beginning with `inside` in the sandbox, to as many in the caller's user
    /// namespace, beginning with `outside`.
    #[must_use]
    pub const fn new(inside: u32, outside: u32, count: u32) -> Self {
        Self { inside, outside, count }
    }

    /// Whether it contains `count` IDs from `first` on.
    pub(crate) fn covers(self, first: u32, count: u32) -> bool {
        first.checked_sub(self.inside).is_some_and(|offset| u64::from(offset) + u64::from(count) <= self.count.into())
    }

    /// The ID on the host of an ID inside, if the range contains it.
    pub(crate) fn to_outside(self, id: u32) -> Option<u32> {
        self.covers(id, 1).then(|| self.outside.wrapping_add(id - self.inside))
    }
}

/// Reads the ranges of a user, by name or by number, from a sub-ID file. Invalid lines are skipped, as newuidmap does.
pub(crate) fn read_sub_ids(path: &Path, name: &str, uid: u32) -> Result<Vec<(u32, u32)>> {
    let none = || {
        let remedy = format!(
            "as root, add a range that /etc/subuid and /etc/subgid assign to no other user, for example: usermod \
             --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
        );
        let what = format!("{} assigns no subordinate IDs to {name}", path.display());
        Error::unsupported(Layer::Identity, what, remedy)
    };
    let text = fs::read_to_string(path).map_err(|_| none())?;
    let ranges = sub_ids(&text, name, uid);
    if ranges.is_empty() { Err(none()) } else { Ok(ranges) }
}

/// Parses the ranges of a user from the text of a sub-ID file.
pub(crate) fn sub_ids(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        first.checked_add(count)?;
        (owner == name || owner == number).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}
