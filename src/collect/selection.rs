//! Which paths of a directory are copied: all, or those of a list with everything below them.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::error::{Error, Result};

/// The selected part of a directory.
#[derive(Debug)]
pub(super) enum Selection {
    /// Everything in it.
    Whole,
    /// These entries, and of each what is selected below it.
    Entries(BTreeMap<CString, Selection>),
}

impl Selection {
    /// Selects paths that are relative to `from`.
    pub fn of_paths<P: AsRef<Path>>(from: &Path, paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut selection = Self::Entries(BTreeMap::new());
        paths.into_iter().try_for_each(|path| selection.add(from, path.as_ref()))?;
        Ok(selection)
    }

    fn add(&mut self, from: &Path, path: &Path) -> Result<()> {
        let mut place = self;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => CString::new(name.as_bytes()).map_err(|_| {
                    Error::invalid(format!("{path:?} contains a null byte"), "pass the path of a file that can exist")
                })?,
                Component::CurDir => continue,
                _ => return Err(Error::leads_out(from, path)),
            };
            place = match place {
                // A path above selects it already.
                Self::Whole => return Ok(()),
                Self::Entries(entries) => entries.entry(name).or_insert_with(|| Self::Entries(BTreeMap::new())),
            };
        }
        *place = Self::Whole;
        Ok(())
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Returns the selected names. `None` if the directory must be listed.
    pub fn names(&self) -> Option<impl Iterator<Item = &CString>> {
        match self {
            Self::Whole => None,
            Self::Entries(entries) => Some(entries.keys()),
        }
    }

    /// Returns what is selected below an entry. Each entry is visited once.
    pub fn take(&mut self, name: &CStr) -> Self {
        match self {
            Self::Whole => Self::Whole,
            Self::Entries(entries) => entries.remove(name).unwrap_or_else(|| Self::Entries(BTreeMap::new())),
        }
    }

    fn take_all(&mut self) -> BTreeMap<CString, Self> {
        match self {
            Self::Whole => BTreeMap::new(),
            Self::Entries(entries) => std::mem::take(entries),
        }
    }
}

/// Level by level: a path of some thousand names would overflow the stack if each level dropped the next one.
impl Drop for Selection {
    fn drop(&mut self) {
        let mut rest = vec![self.take_all()];
        while let Some(entries) = rest.pop() {
            rest.extend(entries.into_values().map(|mut selection| selection.take_all()));
        }
    }
}
