//! The seccomp policy of a configuration: a preset, a file, or a table.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};

use super::nearest::nearest;
use super::short_text::{ShortText, TextOrTable};
use crate::confine::{Seccomp, StoredPolicy};
use crate::error::{Error, Result};
use crate::escape::decode;

/// A seccomp policy: a preset, a file, or rules.
///
/// Rules without a preset, in a table or in a file, are added to the policy of the profile, and not to a weaker one.
///
/// ```
/// use stockade::config::SeccompSource;
/// use stockade::Seccomp;
///
/// assert_eq!("container".parse::<SeccompSource>()?, Seccomp::container().into());
/// assert!("contaner".parse::<SeccompSource>().unwrap_err().to_string().contains("use \"container\""));
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SeccompSource(pub(super) SeccompKind);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum SeccompKind {
    Policy(Seccomp),
    File(PathBuf),
    Table(Box<StoredPolicy>),
}

impl SeccompSource {
    /// The names of policies.
    pub(super) const NAMES: [&'static str; 5] = ["default", "pure_computation", "runtime", "container", "unconfined"];

    /// Creates the policy that a file contains in the stored form, as JSON or TOML. The file is read when
    /// [`Config::sandbox`](super::Config::sandbox) is called.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(SeccompKind::File(path.into()))
    }
}

impl From<Seccomp> for SeccompSource {
    fn from(policy: Seccomp) -> Self {
        Self(SeccompKind::Policy(policy))
    }
}

impl FromStr for SeccompSource {
    type Err = Error;

    /// Reads the name of a policy, or the path of a file. A path has a slash or a dot in it.
    fn from_str(text: &str) -> Result<Self> {
        Self::of_text(text)
            .map_err(|hint| Error::invalid(format!("{text:?} is not the name of a seccomp policy"), hint))
    }
}

impl ShortText for SeccompSource {
    const EXPECTED: &'static str = "a seccomp policy: a name, the path of a file, or a table with rules";

    fn of_text(text: &str) -> std::result::Result<Self, String> {
        let policy = match text {
            "default" => Seccomp::new(),
            "pure_computation" | "pure-computation" => Seccomp::pure_computation(),
            "runtime" => Seccomp::runtime(),
            "container" => Seccomp::container(),
            "unconfined" => Seccomp::unconfined(),
            path if path.contains(['/', '.']) => return Ok(Self::file(OsString::from_vec(decode(path)))),
            _ => {
                return Err(match nearest(text, Self::NAMES) {
                    Some(nearest) => format!("use {nearest:?}, or \"./{text}\" for a file"),
                    None => format!("use one of {}, or \"./{text}\" for a file", Self::NAMES.join(", ")),
                });
            }
        };
        Ok(policy.into())
    }
}

/// Reads a table alone.
struct Table(SeccompSource);

impl ShortText for Table {
    const EXPECTED: &'static str = SeccompSource::EXPECTED;

    fn of_text(text: &str) -> std::result::Result<Self, String> {
        SeccompSource::of_text(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        StoredPolicy::deserialize(deserializer).map(|table| Self(SeccompSource(SeccompKind::Table(Box::new(table)))))
    }
}

impl<'de> Deserialize<'de> for SeccompSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable(std::marker::PhantomData)).map(|Table(source)| source)
    }
}
