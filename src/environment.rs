//! The caller's environment variables. No other file reads one: in a process with more privileges than whoever started it
//! (set-user-ID, file capabilities) none is used, since that user has written them.

use std::ffi::OsString;
use std::path::PathBuf;

use nix::unistd::{getegid, geteuid, getgid, getuid};

use crate::sys::auxiliary;

/// The value of a variable, unless it is empty or the process has more privileges than whoever started it.
pub(crate) fn var(name: &str) -> Option<OsString> {
    if is_privileged() { None } else { std::env::var_os(name).filter(|value| !value.is_empty()) }
}

/// The directory for temporary files: `TMPDIR`, or `/tmp`.
pub(crate) fn temp_dir() -> PathBuf {
    var("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from)
}

/// Whether the process has, or had when it was executed, more privileges than whoever started it (getauxval(3),
/// `AT_SECURE`).
fn is_privileged() -> bool {
    auxiliary::is_secure() || getuid() != geteuid() || getgid() != getegid()
}
