//! What `learn` has recorded, in a configuration: a file, or its contents.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer};

use super::short_text::{ShortText, TextOrTable};
use crate::escape::decode;
use crate::learn::Learned;

/// A [`Learned`], or the file that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LearnedSource {
    /// A file in the stored form, as JSON or TOML.
    File(PathBuf),
    /// The value.
    Value(Learned),
}

impl ShortText for Inner {
    const EXPECTED: &'static str = "the path of a file, or what it contains as a table";

    fn of_text(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(OsString::from_vec(decode(text)));
        match path.extension().is_some_and(|extension| extension == "rs") {
            true => Err("it is Rust code: let the program be learned to a file whose name ends in .json".into()),
            false => Ok(Self(LearnedSource::File(path))),
        }
    }
}

/// Reads the table as a [`Learned`].
struct Inner(LearnedSource);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Learned::deserialize(deserializer).map(LearnedSource::Value).map(Self)
    }
}

impl<'de> Deserialize<'de> for LearnedSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable(std::marker::PhantomData)).map(|Inner(source)| source)
    }
}
