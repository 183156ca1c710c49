//! The lines of `/proc/self/mountinfo` (proc(5)).

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// What is mounted somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// It is at the bottom of all: an initramfs has no parent but itself.
    pub has_parent: bool,
    /// Major and minor number of its file system, with a colon between.
    pub device: Vec<u8>,
    /// The directory of its file system that is seen.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Of the mount, between commas.
    pub options: Vec<u8>,
    pub kind: Vec<u8>,
    /// Of the file system, between commas.
    pub super_options: Vec<u8>,
}

/// The mounts that this process sees, in the order in which they were made.
pub(crate) fn read() -> Result<Vec<Line>> {
    Ok(parse(&table()?))
}

/// Those of them of file systems whose names begin with `kind`.
pub(crate) fn read_of_kind(kind: &[u8]) -> Result<Vec<Line>> {
    let table = table()?;
    let begin = [b" - ", kind].concat();
    let lines = table.split(|&byte| byte == b'\n');
    let of_kind = lines.filter(|line| line.windows(begin.len()).any(|window| window == begin));
    Ok(of_kind.filter_map(parse_line).collect())
}

fn table() -> Result<Vec<u8>> {
    /// Bytes that are asked for at once: the kernel walks its list of mounts for each piece.
    const PIECE: usize = 16 << 10;
    let mut table = Vec::with_capacity(PIECE);
    let read = File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut table));
    read.map_err(Error::host("reading /proc/self/mountinfo"))?;
    Ok(table)
}

/// Lines that are none are passed over.
pub(crate) fn parse(table: &[u8]) -> Vec<Line> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// A line: id, parent, device, root, mount point, options, optional fields, a dash, kind, source, options of the file
/// system.
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
