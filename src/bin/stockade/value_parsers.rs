//! Parsers of values that several options have.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::builder::OsStringValueParser;
use stockade::config;

use crate::option_words::as_message;

/// Returns a parser of paths, which need not be UTF-8.
pub fn paths() -> OsStringValueParser {
    OsStringValueParser::new()
}

/// Parses a size, as configuration files have it.
pub fn size(text: &str) -> Result<u64, String> {
    config::size(text).map_err(|error| as_message(&error))
}

/// Parses a duration, as configuration files have it.
pub fn time(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|error| as_message(&error))
}

/// Parses the name of a capability, with or without `CAP_`, in upper or lower case.
pub fn capability(text: &str) -> Result<stockade::capabilities::Capability, String> {
    config::capability(text).map_err(|error| as_message(&error))
}

/// Parses `ONE` or `ONE:OTHER`.
pub fn split(text: &OsStr) -> Result<(&OsStr, Option<&OsStr>), String> {
    let mut parts = text.as_bytes().split(|&byte| byte == b':').map(OsStr::from_bytes);
    match (parts.next(), parts.next(), parts.next()) {
        (_, _, Some(_)) => Err("it has more than one colon: name its parts in a table by --set".into()),
        (Some(one), other, None) if !one.is_empty() && other != Some(OsStr::new("")) => Ok((one, other)),
        _ => Err("a part before or after the colon is empty".into()),
    }
}

/// Parses `ONE:OTHER`.
pub fn two(text: &OsStr) -> Result<(&OsStr, &OsStr), String> {
    match split(text)? {
        (one, Some(other)) => Ok((one, other)),
        (_, None) => Err("it has no colon".into()),
    }
}

/// Parses `NAME=VALUE`.
pub fn assignment(text: OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) if at > 0 => {
            Ok((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
        }
        Some(_) => Err("the name before = is empty".into()),
        None => Err("it has no =".into()),
    }
}
