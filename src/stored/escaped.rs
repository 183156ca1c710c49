//! Paths, names and contents as text. By default serde makes names an array of numbers, and fails for paths that are no
//! UTF-8, which a program can have chosen.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serializer};

use super::Form;
use crate::escape::{decode, encode};

/// Any bytes as text, in which bytes that are no UTF-8 are escapes such as `\xff`.
pub(crate) struct Escaped;

fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(bytes))
}

fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(|text| decode(&text))
}

impl Form<OsString> for Escaped {
    fn serialize<S: Serializer>(value: &OsString, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(value.as_bytes(), serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OsString, D::Error> {
        deserialize(deserializer).map(OsString::from_vec)
    }
}

impl Form<PathBuf> for Escaped {
    fn serialize<S: Serializer>(value: &PathBuf, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(value.as_os_str().as_bytes(), serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        deserialize(deserializer).map(|bytes| OsString::from_vec(bytes).into())
    }
}

impl Form<Vec<u8>> for Escaped {
    fn serialize<S: Serializer>(value: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(value, serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserialize(deserializer)
    }
}

impl Form<Arc<[u8]>> for Escaped {
    fn serialize<S: Serializer>(value: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(value, serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        deserialize(deserializer).map(Into::into)
    }
}
