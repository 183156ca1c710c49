//! The name of a blob: the SHA-256 of its contents, and its size. One that comes from the network is checked once, here.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::proto::execution::Digest;

/// A checked digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobDigest {
    hash: [u8; 32],
    size: u64,
}

impl BlobDigest {
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: Sha256::digest(bytes).into(), size: bytes.len() as u64 }
    }

    /// Reads a file to its end.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut digesting = Digesting::default();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(digesting.finish()),
                count => digesting.add(&buffer[..count]),
            }
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    pub fn hash(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checks the digest that a message must have.
    pub fn required(digest: Option<&Digest>, what: &str) -> Result<Self, Failure> {
        digest.ok_or_else(|| Failure::invalid(format!("{what} has no digest")))?.try_into()
    }

    pub fn from_hash(hash: &str, size: u64) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if hash.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hash.as_bytes().chunks(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self { hash: bytes, size })
    }
}

/// A digest of contents that come in pieces.
#[derive(Default)]
pub struct Digesting(Sha256, u64);

impl Digesting {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.1
    }

    pub fn finish(self) -> BlobDigest {
        BlobDigest { hash: self.0.finalize().into(), size: self.1 }
    }
}

/// Formats it as in the names of resources: `hash/size`.
impl Display for BlobDigest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash(), self.size)
    }
}

impl From<BlobDigest> for Digest {
    fn from(digest: BlobDigest) -> Self {
        Self { hash: digest.hash(), size_bytes: digest.size as i64 }
    }
}

impl TryFrom<&Digest> for BlobDigest {
    type Error = Failure;

    fn try_from(digest: &Digest) -> Result<Self, Failure> {
        let size = u64::try_from(digest.size_bytes).ok();
        size.and_then(|size| Self::from_hash(&digest.hash, size)).ok_or_else(|| {
            let Digest { hash, size_bytes } = digest;
            Failure::invalid(format!("{hash:?} of {size_bytes} bytes is no digest: use SHA-256 in lower case"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_lower_case_digits_and_a_size() {
        let good = Digest::from(BlobDigest::of(b"hello"));
        assert_eq!(good.hash, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(BlobDigest::try_from(&good).unwrap(), BlobDigest::of(b"hello"));
        assert_eq!(BlobDigest::of_reader(&b"hello"[..]).unwrap(), BlobDigest::of(b"hello"));
        let hash = good.hash.clone();
        let bad =
            [("../../../etc/passwd".to_owned(), 5), (hash.to_uppercase(), 5), (hash[1..].to_owned(), 5), (hash, -1)];
        for (hash, size_bytes) in bad {
            let error = BlobDigest::try_from(&Digest { hash, size_bytes }).unwrap_err();
            assert!(error.message.contains("is no digest"), "{error}");
        }
    }
}
