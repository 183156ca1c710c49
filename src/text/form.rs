//! Paths and names in data, as [`super`] writes them. By default serde makes names an array of numbers, and fails for paths
//! that are no UTF-8, which a program can have chosen.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{decode, encode};

pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_text().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Encoded::deserialize(deserializer).map(T::of_text)
}

/// What has a form of text.
pub(crate) trait Text {
    type Encoded: Serialize + DeserializeOwned;

    fn to_text(&self) -> Self::Encoded;

    fn of_text(encoded: Self::Encoded) -> Self;
}

impl Text for OsString {
    type Encoded = String;

    fn to_text(&self) -> String {
        encode(self.as_bytes())
    }

    fn of_text(encoded: String) -> Self {
        Self::from_vec(decode(&encoded))
    }
}

impl Text for PathBuf {
    type Encoded = String;

    fn to_text(&self) -> String {
        encode(self.as_os_str().as_bytes())
    }

    fn of_text(encoded: String) -> Self {
        OsString::of_text(encoded).into()
    }
}

impl<T: Text> Text for Option<T> {
    type Encoded = Option<T::Encoded>;

    fn to_text(&self) -> Self::Encoded {
        self.as_ref().map(T::to_text)
    }

    fn of_text(encoded: Self::Encoded) -> Self {
        encoded.map(T::of_text)
    }
}

impl<T: Text> Text for Vec<T> {
    type Encoded = Vec<T::Encoded>;

    fn to_text(&self) -> Self::Encoded {
        self.iter().map(T::to_text).collect()
    }

    fn of_text(encoded: Self::Encoded) -> Self {
        encoded.into_iter().map(T::of_text).collect()
    }
}

impl Text for BTreeMap<OsString, OsString> {
    type Encoded = BTreeMap<String, String>;

    fn to_text(&self) -> Self::Encoded {
        self.iter().map(|(key, value)| (key.to_text(), value.to_text())).collect()
    }

    fn of_text(encoded: Self::Encoded) -> Self {
        encoded.into_iter().map(|(key, value)| (OsString::of_text(key), OsString::of_text(value))).collect()
    }
}

/// Pairs of a path and something that has a form of its own.
impl<T: Serialize + DeserializeOwned + Clone> Text for Vec<(PathBuf, T)> {
    type Encoded = Vec<(String, T)>;

    fn to_text(&self) -> Self::Encoded {
        self.iter().map(|(path, other)| (path.to_text(), other.clone())).collect()
    }

    fn of_text(encoded: Self::Encoded) -> Self {
        encoded.into_iter().map(|(path, other)| (PathBuf::of_text(path), other)).collect()
    }
}

/// The same as a map.
impl<T: Serialize + DeserializeOwned + Clone> Text for BTreeMap<PathBuf, T> {
    type Encoded = BTreeMap<String, T>;

    fn to_text(&self) -> Self::Encoded {
        self.iter().map(|(path, other)| (path.to_text(), other.clone())).collect()
    }

    fn of_text(encoded: Self::Encoded) -> Self {
        encoded.into_iter().map(|(path, other)| (PathBuf::of_text(path), other)).collect()
    }
}
