//! Resources that the launch supplies to the scripts of a plan: ID maps, streams, placeholders, and the search path of
//! the program.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};

/// What is created at a path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    Directory,
    EmptyFile,
    /// A file that names its own directory.
    Dot,
}

impl Absent {
    pub const ALL: [Self; 3] = [Self::Directory, Self::EmptyFile, Self::Dot];

    /// The contents of the file. `None` for a directory.
    pub fn contents(self) -> Option<&'static [u8]> {
        match self {
            Self::Directory => None,
            Self::EmptyFile => Some(b""),
            Self::Dot => Some(b".\n"),
        }
    }
}

/// A path of the host that must exist while the sandbox exists. It is created for that time if it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// The directory, resolved.
    pub parent: PathBuf,
    pub name: OsString,
    pub absent: Absent,
}

impl Placeholder {
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
}

/// A user or group ID of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostId {
    Id(u32),
    /// The ID of the sandbox's own, assigned at the launch.
    Own,
}

impl HostId {
    /// The number. `own` is the sandbox's own ID.
    pub fn number(self, own: u32) -> u32 {
        match self {
            Self::Id(id) => id,
            Self::Own => own,
        }
    }
}

/// A range of host IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostRange {
    pub first: u32,
    pub count: u32,
}

/// A line of `uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapLine {
    pub inside: u32,
    pub outside: HostId,
    pub count: u32,
}

impl MapLine {
    pub fn one(inside: u32, outside: HostId) -> Self {
        Self { inside, outside, count: 1 }
    }

    /// Whether it contains a host ID.
    pub fn has(self, outside: u32) -> bool {
        match self.outside {
            HostId::Id(first) => outside.checked_sub(first).is_some_and(|offset| offset < self.count),
            HostId::Own => false,
        }
    }

    /// The host ID of an ID inside.
    pub fn to_outside(self, id: u32) -> Option<HostId> {
        let offset = id.checked_sub(self.inside).filter(|&offset| offset < self.count)?;
        match self.outside {
            HostId::Id(first) => first.checked_add(offset).map(HostId::Id),
            HostId::Own => Some(HostId::Own),
        }
    }
}

/// The ID maps of a user namespace, and the process that writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub uid: Vec<MapLine>,
    pub gid: Vec<MapLine>,
    pub writer: MapWriter,
}

/// The process that writes ID maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapWriter {
    /// The helper itself, which may map its own ID.
    Process,
    Caller,
    /// newuidmap(1) and newgidmap(1), which allow the ranges of `/etc/subuid` and `/etc/subgid`.
    HelperPrograms,
}

/// A standard stream of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Inherit,
    Null,
    Piped,
    Descriptor(u16),
    /// The bytes of [`Inherited::input`].
    Input,
    Pty,
}

/// The descriptors that a program inherits, and those that the scripts of its plan name.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    pub stdio: [Stream; 3],
    /// What the program reads from a stream of [`Stream::Input`].
    pub input: Arc<[u8]>,
    pub descriptors: Vec<Arc<OwnedFd>>,
    /// The indices of those that the program inherits beside its standard streams, and their numbers in the program.
    pub handed: Vec<(u16, u32)>,
    /// Bytes of the largest file that the program may write (`RLIMIT_FSIZE`).
    pub most_written: Option<u64>,
    /// The owner of the program's pipes, if the caller may change it.
    pub owner: Option<(HostId, HostId)>,
    /// Whether a standard stream that is inherited is not the caller's terminal itself: what the program starts may go on after it.
    pub(crate) without_terminals: bool,
}

/// The paths at which the program is searched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    pub program: PathBuf,
    pub candidates: Vec<PathBuf>,
}

/// Returns the index of a descriptor among those of a plan, and adds it if it is new.
pub(crate) fn share(descriptors: &mut Vec<Arc<OwnedFd>>, fd: Arc<OwnedFd>) -> Result<u16> {
    let known = descriptors.iter().position(|known| Arc::ptr_eq(known, &fd));
    intern(descriptors, known, fd, "descriptors")
}

/// Returns the index of an item among those of a plan: the known one, or that of the item, which is added. Returns an
/// error if there are more than a script can refer to. `what` are the items.
pub(crate) fn intern<T>(items: &mut Vec<T>, known: Option<usize>, item: T, what: &str) -> Result<u16> {
    let index = u16::try_from(known.unwrap_or(items.len()))
        .map_err(|_| Error::invalid(format!("the plan has more than 65,536 {what}"), format!("use fewer {what}")))?;
    if known.is_none() {
        items.push(item);
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_items_than_a_script_can_refer_to_are_an_error() {
        let mut items: Vec<u32> = (0..65_535).collect();
        assert_eq!(intern(&mut items, Some(7), 7, "items").ok(), Some(7));
        assert_eq!(intern(&mut items, None, 65_535, "items").ok(), Some(u16::MAX));
        let error = intern(&mut items, None, 65_536, "items").expect_err("one too many");
        assert!(error.to_string().contains("more than 65,536 items"), "{error}");
        assert_eq!((items.len(), intern(&mut items, Some(9), 9, "items").ok()), (65_536, Some(9)));
    }
}
