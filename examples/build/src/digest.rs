//! Digests of files, and of lists of texts without ambiguity.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// Returns a digest as hexadecimal digits.
fn hex(digest: Sha256) -> String {
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn of_bytes(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// Returns the digest of a list: of the length and the bytes of each element.
pub fn of_list<'a>(elements: impl IntoIterator<Item = &'a [u8]>) -> String {
    hex(elements.into_iter().fold(Sha256::new(), |digest, element| {
        digest.chain_update((element.len() as u64).to_le_bytes()).chain_update(element)
    }))
}

/// The digests of source files, each of which is read once in a build.
#[derive(Default)]
pub struct FileDigests(Mutex<HashMap<PathBuf, String>>);

impl FileDigests {
    /// Returns the digest of a file, or of a directory with everything in it.
    pub fn of(&self, path: &Path) -> io::Result<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(digest) = known {
            return Ok(digest);
        }
        let digest =
            of_path(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), digest.clone());
        Ok(digest)
    }
}

fn of_path(path: &Path) -> io::Result<String> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return Ok(of_list([b"link", fs::read_link(path)?.as_os_str().as_encoded_bytes()]));
    }
    if !kind.is_dir() {
        return Ok(of_list([b"file", &*fs::read(path)?]));
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut parts = vec![b"directory".to_vec()];
    for entry in entries {
        parts.push(entry.file_name().into_encoded_bytes());
        parts.push(of_path(&entry.path())?.into_bytes());
    }
    Ok(of_list(parts.iter().map(Vec::as_slice)))
}
