//! Reads files of the proc file system, which tell no size beforehand.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The size of the buffer at first, in bytes. The kernel walks its list again for each read(2) of a table.
const BUFFER_SIZE: usize = 16 << 10;

/// Reads a whole file.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(BUFFER_SIZE);
    // A `File` would ask for its size and position first.
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file of text.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
