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

/// Parses a size: as configuration files have it, or a number followed by `K`, `M`, `G` or `T`, which are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    const SHORT: [char; 4] = ['K', 'M', 'G', 'T'];
    let text = if text.ends_with(SHORT) { format!("{text}iB") } else { text.to_owned() };
    let wrong = || "it is not a size: use a number of bytes, or a number followed by K, M, G or T".to_owned();
    match config::size(&text).map_err(|_| wrong())? {
        0 => Err("a size of 0 bytes is too small".into()),
        size => Ok(size),
    }
}

/// Parses a time with its unit.
pub fn time(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|_| "a time is a number followed by ms, s, m or h, such as 10s or 1m30s".into())
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
