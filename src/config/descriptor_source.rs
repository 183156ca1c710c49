//! Descriptors of the program: files that are opened for it, and copies of the caller's own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::Serializer;

use crate::error::{Error, Result};
use crate::stored::{As, Escaped, Form};
use crate::sys::descriptor_copy;

/// What a descriptor of the program refers to. The files are opened when [`Config::command`](super::Config::command) is
/// called.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum DescriptorSource {
    /// `/dev/null`, opened for reading and writing.
    Null,
    /// A file of the host, opened for reading.
    Read(#[serde(with = "As::<Escaped>")] PathBuf),
    /// A file of the host, opened for writing. It is created, or emptied if it exists.
    Write(#[serde(with = "As::<Escaped>")] PathBuf),
    /// A file of the host, opened for writing at its end. It is created if it does not exist.
    Append(#[serde(with = "As::<Escaped>")] PathBuf),
    /// The caller's descriptor with this number.
    Caller(u16),
}

impl DescriptorSource {
    /// Opens the file, or copies the descriptor.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let of_path = |path: &Path, options: &mut std::fs::OpenOptions| {
            let opened = options.open(path);
            opened.map_err(|error| Error::collect("open", path, "open", error, None)).map(OwnedFd::from)
        };
        match self {
            Self::Null => of_path(Path::new("/dev/null"), File::options().read(true).write(true)),
            Self::Read(path) => of_path(path, File::options().read(true)),
            Self::Write(path) => of_path(path, File::options().write(true).create(true).truncate(true)),
            Self::Append(path) => of_path(path, File::options().append(true).create(true)),
            Self::Caller(number) => descriptor_copy::copy((*number).into()).map_err(|_| {
                Error::invalid(
                    format!("the caller has no descriptor {number} for the program"),
                    "open it before, or remove it from `descriptors`",
                )
            }),
        }
    }

    /// Returns the path of the host.
    pub(super) fn path(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Null | Self::Caller(_) => None,
            Self::Read(path) | Self::Write(path) | Self::Append(path) => Some(path),
        }
    }
}

/// The number of a descriptor, as a key.
pub(super) struct DescriptorNumber;

impl Form<u32> for DescriptorNumber {
    fn serialize<S: Serializer>(value: &u32, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Only one text for a number, so that a number has one key.
        let number = text.parse().ok().filter(|number: &u32| number.to_string() == text);
        number.ok_or_else(|| D::Error::custom(format!("{text:?} is not the number of a descriptor, such as 3")))
    }
}
