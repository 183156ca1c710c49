//! Attributes of mounts (mount_setattr(2)).

use std::fmt::{self, Display, Formatter};

use super::call::{Arg, ConstantNames, names};

bitflags::bitflags! {
    /// Attributes of a mount: those of mount_setattr(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Attributes: u64 {
        const RDONLY = libc::MOUNT_ATTR_RDONLY;
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        const NODEV = libc::MOUNT_ATTR_NODEV;
        const NOEXEC = libc::MOUNT_ATTR_NOEXEC;
        const NOSYMFOLLOW = libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
}

impl Attributes {
    pub const SAFE: Self = Self::NOSUID.union(Self::NODEV);

    pub fn arg(self) -> Arg {
        static NAMES: ConstantNames =
            names![MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSYMFOLLOW];
        Arg::Bits(self.bits() as u32, &NAMES)
    }
}

/// A change of a mount's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub set: Attributes,
    pub clear: Attributes,
    /// No mount propagates to it or from it.
    pub private: bool,
    /// Of all mounts of the tree, not of the top one alone.
    pub recursive: bool,
}

impl Change {
    /// Sets attributes on a whole tree, and makes it private.
    pub fn tree(set: Attributes) -> Self {
        Self { set, clear: Attributes::empty(), private: true, recursive: true }
    }

    /// Sets attributes on one mount.
    pub fn top(set: Attributes) -> Self {
        Self { set, clear: Attributes::empty(), private: false, recursive: false }
    }

    /// Lets one mount be written to.
    pub fn writable() -> Self {
        Self { clear: Attributes::RDONLY, ..Self::top(Attributes::empty()) }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let private = if self.private { ", MS_PRIVATE" } else { "" };
        write!(f, "{{set = {}, clear = {}{private}}}", ShownAttributes(self.set), ShownAttributes(self.clear))
    }
}

/// Attributes as mount_setattr(2) names them.
struct ShownAttributes(Attributes);

impl Display for ShownAttributes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("0") } else { bitflags::parser::to_writer(&self.0, f) }
    }
}
