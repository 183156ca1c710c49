//! The caller's environment variables. No other file reads them. A process that has gained privileges (set-user-ID,
//! file capabilities) uses none, because an unprivileged user controls them.

use std::ffi::OsString;
use std::path::PathBuf;

use nix::unistd::{getegid, geteuid, getgid, getuid};

use crate::sys::auxv;

/// Reads a variable. Returns `None` if it is empty, or if the process has gained privileges.
pub(crate) fn var(name: &str) -> Option<OsString> {
    if is_privileged() { None } else { std::env::var_os(name).filter(|value| !value.is_empty()) }
}

/// Returns the variables with a name for which `is_used` returns true. None if the process has gained privileges.
pub(crate) fn vars(is_used: impl Fn(&str) -> bool) -> impl Iterator<Item = (OsString, OsString)> {
    let all = (!is_privileged()).then(std::env::vars_os).into_iter().flatten();
    all.filter(move |(name, _)| name.to_str().is_some_and(&is_used))
}

/// Returns the directory for temporary files: `TMPDIR`, or `/tmp`.
pub(crate) fn temp_dir() -> PathBuf {
    var("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from)
}

/// Returns whether the process has gained privileges (getauxval(3), `AT_SECURE`).
fn is_privileged() -> bool {
    auxv::is_secure() || getuid() != geteuid() || getgid() != getegid()
}
