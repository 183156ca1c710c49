//! Files that appear as a whole.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes a file, of which another process sees all or nothing. Missing directories above it are created.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}
