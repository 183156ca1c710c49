//! Values that are a table, or a text for the usual case: `"data:/data"`.

use std::ffi::OsString;
use std::fmt::{self, Formatter};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::cgroup::CgroupParent;
use crate::confine::{Bind, Overlay, Tmpfs};
use crate::escape::decode;
use crate::stored::{Bytes, Form};

/// The form that serde gives a type, which it names: for the schema.
pub(super) struct Typed<T>(PhantomData<T>);

impl<T: Serialize + DeserializeOwned> Form<T> for Typed<T> {
    fn serialize<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}

/// A type that has a short text.
pub(super) trait ShortText: Sized {
    /// What is accepted, for errors.
    const EXPECTED: &'static str;

    fn of_text(text: &str) -> Result<Self, String>;
}

/// The stored form of a type, or its short text.
pub(super) struct Short<T>(PhantomData<T>);

impl<T: ShortText + Serialize + DeserializeOwned> Form<T> for Short<T> {
    fn serialize<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(TextOrTable(PhantomData))
    }
}

/// Reads a short text or a table.
pub(super) struct TextOrTable<T>(pub PhantomData<T>);

impl<'de, T: ShortText + serde::Deserialize<'de>> Visitor<'de> for TextOrTable<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::of_text(text).map_err(|cause| E::custom(format!("{text:?} is not {}: {cause}", T::EXPECTED)))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Splits `ONE` or `ONE:OTHER`.
fn split(text: &str) -> Result<(PathBuf, Option<PathBuf>), String> {
    let bytes = decode(text);
    let mut parts = bytes.split(|byte| *byte == b':').map(|part| PathBuf::from(OsString::from_vec(part.to_vec())));
    let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
    match (parts.next(), parts.next(), parts.next()) {
        (_, _, Some(_)) => Err("it has more than one colon, so a table must name the parts".into()),
        (Some(one), other, None) if !is_empty(&one) && !other.as_ref().is_some_and(is_empty) => Ok((one, other)),
        _ => Err("the part before or after the colon is empty".into()),
    }
}

/// The target of a text without a target is its source: see [`Config::resolve`](super::Config::resolve).
impl ShortText for Bind {
    const EXPECTED: &'static str =
        "a bind: \"SOURCE\", \"SOURCE:TARGET\", or a table such as { source = \"a:b\", target = \"/x\" }";

    fn of_text(text: &str) -> Result<Self, String> {
        let (source, target) = split(text)?;
        let target = target.unwrap_or_else(|| source.clone());
        Ok(Self::new(source, target))
    }
}

impl ShortText for Tmpfs {
    const EXPECTED: &'static str =
        "a tmpfs: \"TARGET\", \"TARGET:SIZE\", or a table such as { target = \"/scratch\", size = \"64MiB\" }";

    fn of_text(text: &str) -> Result<Self, String> {
        let (target, size) = split(text)?;
        let tmpfs = Self::new(target);
        match size {
            Some(size) => Ok(tmpfs.size(Bytes::read(&size.to_string_lossy())?)),
            None => Ok(tmpfs),
        }
    }
}

impl ShortText for Overlay {
    const EXPECTED: &'static str =
        "an overlay: \"LOWER:TARGET\", or a table such as { target = \"/x\", lower = [\"a\", \"b\"] }";

    fn of_text(text: &str) -> Result<Self, String> {
        match split(text)? {
            (lower, Some(target)) => Ok(Self::new(target).lower(lower)),
            (_, None) => Err("it has no colon".into()),
        }
    }
}

impl ShortText for CgroupParent {
    const EXPECTED: &'static str = "a cgroup: \"auto\", \"systemd_scope\", or a path that begins with /";

    fn of_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "systemd_scope" => Ok(Self::SystemdScope),
            path if path.starts_with('/') => Ok(Self::Path(OsString::from_vec(decode(path)).into())),
            _ => Err("it is no name, and no absolute path".into()),
        }
    }
}
