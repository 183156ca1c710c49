//! The stored form of binds and overlays: a key for each method. Those of which the last call counts exclude each
//! other.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bind::Bind;
use super::file_owner::Owner;
use super::inputs::{InputSet, Inputs};
use super::overlay::{Overlay, Upper};
use crate::confine::open_descriptor::Descriptor;
use crate::host_path::HostPath;
use crate::stored::{As, Bytes, Escaped, Plain, at_most_one, table_form};

#[derive(serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename = "Bind")]
pub(super) struct StoredBind {
    source: StoredSource,
    #[serde(with = "As::<Escaped>")]
    target: PathBuf,
    #[serde(default)]
    writable: bool,
    #[serde(default)]
    noexec: bool,
    #[serde(default)]
    devices: bool,
    #[serde(default)]
    sockets: bool,
    #[serde(with = "As::<Option<OwnerTable>>", default)]
    owner: Option<(u32, u32)>,
    #[serde(default)]
    unmapped: bool,
    #[serde(default)]
    protect_git: bool,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename = "Overlay")]
pub(super) struct StoredOverlay {
    #[serde(with = "As::<Escaped>")]
    target: PathBuf,
    #[serde(default)]
    lower: Vec<HostPath>,
    #[serde(with = "As::<Option<Bytes>>", default)]
    upper_tmpfs: Option<u64>,
    #[serde(with = "As::<Option<UpperTable>>", default)]
    upper: Option<(HostPath, HostPath)>,
    #[serde(with = "As::<Option<OwnerTable>>", default)]
    owner: Option<(u32, u32)>,
    #[serde(default)]
    unmapped: bool,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename = "Inputs")]
pub(super) struct StoredInputs {
    #[serde(with = "As::<Escaped>")]
    target: PathBuf,
    #[serde(default)]
    files: Vec<InputSet>,
    #[serde(with = "As::<Option<OwnerTable>>", default)]
    owner: Option<(u32, u32)>,
    #[serde(default)]
    unmapped: bool,
}

/// The source of a bind: a path, or an open descriptor, which is an error when it is written.
enum StoredSource {
    Path(HostPath),
    Descriptor(Descriptor),
}

#[cfg(feature = "_schema")]
impl schemars::JsonSchema for StoredSource {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StoredSource".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<HostPath>()
    }
}

impl Serialize for StoredSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => path.serialize(serializer),
            Self::Descriptor(fd) => fd.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StoredSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HostPath::deserialize(deserializer).map(Self::Path)
    }
}

table_form!(
    /// A user and a group.
    OwnerTable { uid: u32 as Plain, gid: u32 as Plain }
);

table_form!(
    /// The directories of an upper layer.
    UpperTable { upper: HostPath as Plain, work: HostPath as Plain }
);

impl Owner {
    /// Returns the keys `owner` and `unmapped`.
    fn keys(self) -> (Option<(u32, u32)>, bool) {
        match self {
            Self::Caller => (None, false),
            Self::Ids(uid, gid) => (Some((uid, gid)), false),
            Self::Nobody => (None, true),
        }
    }

    fn of_keys(owner: Option<(u32, u32)>, unmapped: bool) -> Result<Self, String> {
        at_most_one(&[("owner", owner.is_some()), ("unmapped", unmapped)])?;
        Ok(match owner {
            Some((uid, gid)) => Self::Ids(uid, gid),
            None if unmapped => Self::Nobody,
            None => Self::Caller,
        })
    }
}

impl From<Bind> for StoredBind {
    fn from(Bind { source, fd, target, writable, noexec, devices, sockets, owner, git: protect_git }: Bind) -> Self {
        let (owner, unmapped) = owner.keys();
        let source = fd.map_or(StoredSource::Path(source), StoredSource::Descriptor);
        Self { source, target, writable, noexec, devices, sockets, owner, unmapped, protect_git }
    }
}

impl TryFrom<StoredBind> for Bind {
    type Error = String;

    fn try_from(stored: StoredBind) -> Result<Self, String> {
        let StoredBind { source, target, writable, noexec, devices, sockets, owner, unmapped, protect_git: git } =
            stored;
        let owner = Owner::of_keys(owner, unmapped)?;
        let StoredSource::Path(source) = source else { return Err("an open descriptor is not stored".into()) };
        Ok(Self { source, fd: None, target, writable, noexec, devices, sockets, owner, git })
    }
}

impl From<Inputs> for StoredInputs {
    fn from(Inputs { target, sets: files, owner }: Inputs) -> Self {
        let (owner, unmapped) = owner.keys();
        Self { target, files, owner, unmapped }
    }
}

impl TryFrom<StoredInputs> for Inputs {
    type Error = String;

    fn try_from(StoredInputs { target, files: sets, owner, unmapped }: StoredInputs) -> Result<Self, String> {
        Ok(Self { target, sets, owner: Owner::of_keys(owner, unmapped)? })
    }
}

impl From<Overlay> for StoredOverlay {
    fn from(Overlay { target, lowers: lower, upper, owner }: Overlay) -> Self {
        let (owner, unmapped) = owner.keys();
        let (upper_tmpfs, upper) = match upper {
            Upper::Tmpfs { size } => (size, None),
            Upper::Dirs { upper, work } => (None, Some((upper, work))),
        };
        Self { target, lower, upper_tmpfs, upper, owner, unmapped }
    }
}

impl TryFrom<StoredOverlay> for Overlay {
    type Error = String;

    fn try_from(stored: StoredOverlay) -> Result<Self, String> {
        let StoredOverlay { target, lower: lowers, upper_tmpfs: size, upper, owner, unmapped } = stored;
        at_most_one(&[("upper_tmpfs", size.is_some()), ("upper", upper.is_some())])?;
        let upper = match upper {
            Some((upper, work)) => Upper::Dirs { upper, work },
            None => Upper::Tmpfs { size },
        };
        Ok(Self { target, lowers, upper, owner: Owner::of_keys(owner, unmapped)? })
    }
}
