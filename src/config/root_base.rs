//! The root that the mounts of a configuration change: a name, a directory, or a table.

use std::ffi::OsString;
use std::fmt::{self, Formatter};
use std::os::unix::ffi::OsStringExt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::nearest::nearest;
use crate::confine::Root;
use crate::escape::decode;
use crate::stored::Form;

/// `"host"`, `"system"`, `"empty"`, `"inherit"`, a path of the host with a slash in it, or the stored form of a base.
pub(super) struct RootBase;

impl RootBase {
    pub const NAMES: [&'static str; 4] = ["host", "system", "empty", "inherit"];

    /// Reads a name or a path. The error is what to use instead.
    pub fn of_text(text: &str) -> Result<Root, String> {
        match text {
            "host" => Ok(Root::host()),
            "system" => Ok(Root::system()),
            "empty" => Ok(Root::empty()),
            "inherit" => Ok(Root::inherit()),
            path if path.contains('/') => Ok(Root::from_dir(OsString::from_vec(decode(path)))),
            _ => Err(match nearest(text, Self::NAMES) {
                Some(nearest) => format!("use {nearest:?}, or \"./{text}\" for a directory"),
                None => {
                    format!("use \"host\", \"system\", \"empty\", \"inherit\", or \"./{text}\" for a directory")
                }
            }),
        }
    }
}

struct NameOrBase;

impl<'de> Visitor<'de> for NameOrBase {
    type Value = Root;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a root: \"host\", \"system\", \"empty\", \"inherit\", a path, or a table such as { from_dir_rw = \"./image\" }",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Root, E> {
        RootBase::of_text(text).map_err(|instead| E::custom(format!("unknown root {text:?}: {instead}")))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Root, M::Error> {
        Root::deserialize_base(MapAccessDeserializer::new(map))
    }
}

impl Form<Root> for RootBase {
    fn serialize<S: Serializer>(value: &Root, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Root, D::Error> {
        deserializer.deserialize_any(NameOrBase)
    }
}
