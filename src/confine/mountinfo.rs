//! The mounts of the host, from `/proc/self/mountinfo` (proc(5)): which of them lie below a path.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A mount of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostMount {
    pub point: PathBuf,
    pub read_only: bool,
}

/// The mounts strictly below a path, each place once: the one on top.
pub(crate) fn below(path: &Path) -> Result<Vec<HostMount>> {
    let table = fs::read("/proc/self/mountinfo")
        .map_err(|error| Error::Host { what: "reading /proc/self/mountinfo", errno: (&error).into() })?;
    Ok(parse_below(&table, path))
}

fn parse_below(table: &[u8], path: &Path) -> Vec<HostMount> {
    let mut found: Vec<HostMount> = vec![];
    for mount in table.split(|&byte| byte == b'\n').filter_map(parse) {
        if mount.point == path || !mount.point.starts_with(path) {
            continue;
        }
        // A later mount covers an earlier one at its place, and what is below.
        found.retain(|earlier| !earlier.point.starts_with(&mount.point));
        found.push(mount);
    }
    found
}

/// A line: id, parent, device, root, mount point, options, and more that is of no interest here.
fn parse(line: &[u8]) -> Option<HostMount> {
    let mut fields = line.split(|&byte| byte == b' ').skip(4);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let read_only = fields.next()?.split(|&byte| byte == b',').any(|option| option == b"ro");
    Some(HostMount { point, read_only })
}

/// Blank, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
        2 1 8:2 / /data rw,nosuid shared:1 - ext4 /dev/b rw\n\
        3 2 8:3 / /data/two\\040words ro,nodev - ext4 /dev/c rw\n\
        4 2 8:4 / /data/x rw - ext4 /dev/d rw\n\
        5 4 8:5 / /data/x/y rw - ext4 /dev/e rw\n\
        6 2 8:6 / /data/x ro - ext4 /dev/f rw\n\
        7 1 8:7 / /database ro - ext4 /dev/g rw\n\
        half a line\n";

    #[test]
    fn mounts_below_a_path_are_found_with_the_one_on_top() {
        let mount = |point: &str, read_only| HostMount { point: point.into(), read_only };
        assert_eq!(parse_below(TABLE, Path::new("/data")), [mount("/data/two words", true), mount("/data/x", true)]);
        assert_eq!(parse_below(TABLE, Path::new("/data/x")), [mount("/data/x/y", false)]);
        assert_eq!(parse_below(TABLE, Path::new("/nowhere")), []);
    }
}
