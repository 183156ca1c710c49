//! Reads and parses `/proc/self/mountinfo` (proc_pid_mountinfo(5)). What the mounts mean for a sandbox is in
//! `confine::mount_table`.

use std::ffi::OsString;
use std::io::Result;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::proc_file;

/// A line: one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether it has a parent other than itself. An initramfs has none.
    pub has_parent: bool,
    /// Major and minor number of its file system, separated by a colon.
    pub device: Vec<u8>,
    /// The directory of its file system that is mounted.
    pub root: PathBuf,
    /// The mount point.
    pub point: PathBuf,
    /// The options of the mount, separated by commas.
    pub options: Vec<u8>,
    /// The type of the file system.
    pub kind: Vec<u8>,
    /// The options of the file system, separated by commas.
    pub super_options: Vec<u8>,
}

/// Reads the mounts that this process sees, in the order in which they were mounted.
pub(crate) fn read() -> Result<Vec<Line>> {
    Ok(parse(&table()?))
}

/// Reads the mounts of file systems whose types begin with `kind`.
pub(crate) fn read_of_kind(kind: &[u8]) -> Result<Vec<Line>> {
    Ok(parse_of_kind(&table()?, kind))
}

/// Reads the whole file.
pub(crate) fn table() -> Result<Vec<u8>> {
    proc_file::read("/proc/self/mountinfo")
}

/// Parses the lines of file systems whose types begin with `kind`.
pub(crate) fn parse_of_kind(table: &[u8], kind: &[u8]) -> Vec<Line> {
    let begin = [b" - ", kind].concat();
    let lines = table.split(|&byte| byte == b'\n');
    let of_kind = lines.filter(|line| line.windows(begin.len()).any(|window| window == begin));
    of_kind.filter_map(parse_line).collect()
}

/// Parses the whole file. Malformed lines are skipped.
pub(crate) fn parse(table: &[u8]) -> Vec<Line> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// Parses a line: ID, parent ID, device, root, mount point, options, optional fields, a dash, type, source, options of
/// the file system.
fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (id, parent) = (fields.next()?, fields.next()?);
    let device = fields.next()?.to_vec();
    let mut path = || Some(PathBuf::from(OsString::from_vec(unescape(fields.next()?))));
    let (root, point) = (path()?, path()?);
    let options = fields.next()?.to_vec();
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = rest.next()?.to_vec();
    let super_options = rest.nth(1).unwrap_or_default().to_vec();
    Some(Line { has_parent: id != parent, device, root, point, options, kind, super_options })
}

/// Decodes a field, in which space, tab, newline and backslash are escaped as a backslash and three octal digits.
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
