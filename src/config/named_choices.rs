//! Names that stand for a choice: profiles, kinds of identity, capabilities.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

use super::nearest::nearest;
use crate::capabilities::Capability;
use crate::confine::Namespaces;
use crate::flag_set::FlagSet;
use crate::identity::IdRange;
use crate::profile;
use crate::sandbox::Sandbox;
use crate::stored::Form;

/// A profile by its name: see [`profile`].
///
/// ```
/// use stockade::config::Profile;
/// use stockade::profile;
///
/// assert_eq!(Profile::BuildStep.sandbox(), profile::build_step());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Profile {
    /// [`profile::build_step`].
    BuildStep,
    /// [`profile::test`](profile::test()).
    Test,
    /// [`profile::compile_untrusted`].
    CompileUntrusted,
    /// [`profile::judge`].
    Judge,
    /// [`profile::agent`].
    Agent,
}

impl Profile {
    /// Returns the sandbox of the profile.
    pub fn sandbox(self) -> Sandbox {
        match self {
            Self::BuildStep => profile::build_step(),
            Self::Test => profile::test(),
            Self::CompileUntrusted => profile::compile_untrusted(),
            Self::Judge => profile::judge(),
            Self::Agent => profile::agent(),
        }
    }
}

/// The IDs of the program on the host: see [`Identity`](crate::Identity).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum IdentityKind {
    /// [`Identity::new`](crate::Identity::new).
    Default,
    /// [`Identity::caller`](crate::Identity::caller).
    Caller,
    /// [`Identity::sub_ids`](crate::Identity::sub_ids).
    SubIds,
    /// [`Identity::maps`](crate::Identity::maps).
    #[non_exhaustive]
    Maps {
        /// The ID map of users.
        uid: Vec<IdRange>,
        /// The ID map of groups.
        gid: Vec<IdRange>,
    },
}

/// The name of a namespace, such as `"net"`.
pub(super) struct NamespaceName;

impl Form<Namespaces> for NamespaceName {
    fn serialize<S: Serializer>(value: &Namespaces, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&value.flag_names().map(str::to_lowercase).collect::<Vec<_>>().join(" "))
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Namespaces, D::Error> {
        let (name, known) = (String::deserialize(deserializer)?, Namespaces::NAMED);
        let found = known.iter().find(|(known, _)| known.to_lowercase() == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|(name, _)| name.to_lowercase()).collect();
            let instead = nearest(&name, names.iter().map(String::as_str));
            let instead =
                instead.map_or_else(|| format!("use one of {}", names.join(", ")), |name| format!("use {name:?}"));
            D::Error::custom(format!("unknown namespace {name:?}: {instead}"))
        })
    }
}

/// A capability, with or without `CAP_`, in upper or lower case.
pub(super) struct CapabilityName;

impl CapabilityName {
    pub fn parse(text: &str) -> Result<Capability, String> {
        let name = text.to_uppercase();
        let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
        name.parse().map_err(|_| {
            let known = Capability::names();
            match nearest(&name, known) {
                Some(nearest) => format!("unknown capability {text:?}: use {nearest:?}"),
                None => format!("unknown capability {text:?}: use a name of capabilities(7), such as \"CAP_NET_RAW\""),
            }
        })
    }
}

impl Form<Capability> for CapabilityName {
    fn serialize<S: Serializer>(value: &Capability, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Capability, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
