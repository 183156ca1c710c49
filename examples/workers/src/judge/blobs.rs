//! A directory of tests by digest: each file's name is the SHA-256 of its contents.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::job::Data;

/// Maximum size of a file, in bytes.
const LARGEST: u64 = 256 << 20;

/// Returns the bytes of a test. Returns an error if a file is missing, too large, or not what its name says.
pub fn read<'a>(directory: Option<&Path>, data: &'a Data) -> Result<Cow<'a, [u8]>, Failure> {
    let digest = match data {
        Data::Text(text) => return Ok(text.as_bytes().into()),
        Data::Sha256(digest) => digest,
    };
    let directory = directory.ok_or_else(|| {
        Failure::Worker(format!("failed to read the test {digest}: this worker has no directory of tests: use --blobs"))
    })?;
    let path = directory.join(digest);
    let mut bytes = vec![];
    let file = open(&path).map_err(Failure::to(format!("open {}", path.display())))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Failure::to(format!("read {}", path.display())))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::Worker(format!("{} is larger than {LARGEST} bytes", path.display())));
    }
    match digest_of(&bytes) == *digest {
        true => Ok(bytes.into()),
        false => Err(Failure::Worker(format!("{} has other contents than its name says", path.display()))),
    }
}

/// Opens a regular file. Sandboxes hide the directory, not what a symlink in it leads to, and a FIFO would never be read
/// to its end.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Returns the SHA-256 in hexadecimal digits.
pub fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_regular_files_are_tests() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(digest_of(name.as_bytes()));
        std::fs::write(path("file"), "file").unwrap();
        symlink(path("file"), path("link")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        let (sender, receiver) = mpsc::channel();
        let place = directory.path().to_owned();
        thread::spawn(move || {
            for name in ["file", "link", "directory", "fifo"] {
                let data = Data::Sha256(digest_of(name.as_bytes()));
                let bytes = read(Some(&place), &data).map(Cow::into_owned);
                sender.send((name, bytes)).unwrap();
            }
        });
        for expected in ["file", "link", "directory", "fifo"] {
            let (name, bytes) = receiver.recv_timeout(Duration::from_secs(20)).expect("it does not wait for the FIFO");
            assert_eq!(name, expected);
            match bytes {
                Ok(bytes) => assert!(name == "file" && bytes == b"file"),
                Err(error) => {
                    assert!(name != "file" && error.to_string().contains(&digest_of(name.as_bytes())), "{error}")
                }
            }
        }
    }
}
