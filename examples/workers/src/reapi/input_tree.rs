//! The input root of an action as messages: fetched, and checked, so that what is laid out has no name that leads
//! elsewhere, and not more entries than the worker allows.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prost::Message;

use super::blob_cache::BlobKey;
use super::cas::Cas;
use super::digest::BlobDigest;
use super::failure::Failure;
use super::proto::execution::{Directory, NodeProperties};

/// Levels of directories, of inputs and of outputs.
pub const DEEPEST: usize = 128;
/// Bytes of a name, and of the target of a symlink (`NAME_MAX`, `PATH_MAX`).
const LONGEST_NAME: usize = 255;
const LONGEST_TARGET: usize = 4095;
/// Bytes of the messages of directories that are kept for the actions that follow.
const KEPT: u64 = 64 << 20;
/// Bytes of a message that an entry takes on average, at most. They are read into memory before the entries are counted.
const BYTES_OF_ENTRY: u64 = 512;

/// A checked directory.
#[derive(Debug)]
pub struct InputDirectory {
    pub files: Vec<InputFile>,
    pub directories: Vec<(String, BlobDigest)>,
    pub symlinks: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct InputFile {
    pub name: String,
    pub key: BlobKey,
    /// What the action asks for beyond the contents. A file with this is a copy of its own.
    pub attributes: Option<Attributes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub mode: Option<u32>,
    pub modified: Option<SystemTime>,
}

/// A checked input root.
#[derive(Debug)]
pub struct InputTree {
    pub root: BlobDigest,
    directories: HashMap<BlobDigest, Arc<InputDirectory>>,
}

/// The limits on an input root.
#[derive(Clone, Copy, Debug)]
pub struct InputLimits {
    pub bytes: u64,
    pub entries: u64,
}

/// Checked directories of earlier actions, which share most of their inputs.
#[derive(Debug, Default)]
pub struct KnownDirectories(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    directories: HashMap<BlobDigest, Arc<InputDirectory>>,
    bytes: u64,
}

impl KnownDirectories {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, digest: &BlobDigest) -> Option<Arc<InputDirectory>> {
        self.lock().directories.get(digest).cloned()
    }

    fn add(&self, digest: BlobDigest, directory: Arc<InputDirectory>) {
        let mut known = self.lock();
        if known.bytes + digest.size() > KEPT {
            *known = Known::default();
        }
        if known.directories.insert(digest, directory).is_none() {
            known.bytes += digest.size();
        }
    }
}

impl InputTree {
    /// Fetches an input root, and checks it.
    pub async fn fetch(
        cas: &Cas,
        known: &KnownDirectories,
        root: BlobDigest,
        limits: InputLimits,
    ) -> Result<Self, Failure> {
        let mut tree = Self { root, directories: HashMap::new() };
        let mut level = HashSet::from([root]);
        let most_bytes = limits.entries.saturating_mul(BYTES_OF_ENTRY);
        let (mut entries, mut bytes) = (0, 0_u64);
        for _ in 0..=DEEPEST {
            if level.is_empty() {
                tree.measure(limits)?;
                return Ok(tree);
            }
            bytes = level.iter().fold(bytes, |bytes, digest| bytes.saturating_add(digest.size()));
            if bytes > most_bytes {
                return Err(limits.too_many());
            }
            let mut below = HashSet::new();
            for (digest, directory) in read(cas, known, level).await? {
                entries += directory.len();
                below.extend(directory.directories.iter().map(|(_, digest)| *digest));
                tree.directories.insert(digest, directory);
            }
            if entries > limits.entries {
                return Err(limits.too_many());
            }
            below.retain(|digest| !tree.directories.contains_key(digest));
            level = below;
        }
        Err(too_deep())
    }

    /// Returns a directory of the tree.
    pub fn get(&self, digest: &BlobDigest) -> &InputDirectory {
        &self.directories[digest]
    }

    pub fn root(&self) -> &InputDirectory {
        self.get(&self.root)
    }

    /// Returns the files of all directories, each once.
    pub fn keys(&self) -> HashSet<BlobKey> {
        self.directories.values().flat_map(|directory| directory.files.iter().map(|file| file.key)).collect()
    }

    /// Checks how much there is to lay out. A directory may be in many places, so that a few messages describe more than
    /// there is room for.
    fn measure(&self, limits: InputLimits) -> Result<(), Failure> {
        let mut measured: HashMap<BlobDigest, InputLimits> = HashMap::new();
        // From the leaves to the root: each directory once, after those in it.
        let mut path = vec![(self.root, 0)];
        while let Some((digest, visited)) = path.last_mut() {
            let directory = self.get(digest);
            if let Some((_, below)) = directory.directories.get(*visited) {
                *visited += 1;
                if !measured.contains_key(below) {
                    if path.len() > DEEPEST {
                        return Err(too_deep());
                    }
                    path.push((*below, 0));
                }
                continue;
            }
            let bytes = directory.files.iter().fold(0, |bytes: u64, file| bytes.saturating_add(file.key.digest.size()));
            let own = InputLimits { bytes, entries: directory.len() };
            let below = directory.directories.iter().map(|(_, digest)| measured[digest]);
            let all = below.fold(own, |all, below| InputLimits {
                bytes: all.bytes.saturating_add(below.bytes),
                entries: all.entries.saturating_add(below.entries),
            });
            limits.check(all)?;
            measured.insert(*digest, all);
            path.pop();
        }
        Ok(())
    }
}

/// Returns directories, of which those that are not known are read.
async fn read(
    cas: &Cas,
    known: &KnownDirectories,
    digests: HashSet<BlobDigest>,
) -> Result<Vec<(BlobDigest, Arc<InputDirectory>)>, Failure> {
    let (mut directories, mut unknown) = (vec![], vec![]);
    for digest in digests {
        match known.get(&digest) {
            Some(directory) => directories.push((digest, directory)),
            None => unknown.push(digest),
        }
    }
    let messages = cas.read(&unknown).await?;
    for digest in unknown {
        let message = Directory::decode(&*messages[&digest])
            .map_err(|error| Failure::invalid(format!("{digest} is no directory: {error}")))?;
        let directory = Arc::new(InputDirectory::check(message)?);
        known.add(digest, directory.clone());
        directories.push((digest, directory));
    }
    Ok(directories)
}

impl InputLimits {
    fn check(self, found: Self) -> Result<(), Failure> {
        if found.entries > self.entries {
            return Err(self.too_many());
        }
        if found.bytes > self.bytes {
            let message =
                format!("the files of the input root have more than {} bytes: raise --max-input-bytes", self.bytes);
            return Err(Failure::precondition(message));
        }
        Ok(())
    }

    fn too_many(self) -> Failure {
        let Self { entries, .. } = self;
        Failure::precondition(format!(
            "the input root has more than {entries} entries: raise --max-inputs of the worker"
        ))
    }
}

pub fn too_deep() -> Failure {
    Failure::invalid(format!("a path of the action has more than {DEEPEST} levels of directories, or is too long"))
}

impl InputDirectory {
    fn len(&self) -> u64 {
        (self.files.len() + self.directories.len() + self.symlinks.len()) as u64
    }

    /// Checks all names of a directory.
    fn check(message: Directory) -> Result<Self, Failure> {
        let mut names = HashSet::new();
        let mut check = |name: String| {
            check_name(&name)?;
            if names.insert(name.clone()) {
                Ok(name)
            } else {
                Err(Failure::invalid(format!("the input {name:?} is there twice")))
            }
        };
        let mut directory = Self { files: vec![], directories: vec![], symlinks: vec![] };
        for node in message.files {
            let digest = BlobDigest::required(node.digest.as_ref(), &format!("the input {:?}", node.name))?;
            let key = BlobKey { digest, is_executable: node.is_executable };
            let attributes = node.node_properties.as_ref().map(attributes).transpose()?.flatten();
            directory.files.push(InputFile { name: check(node.name)?, key, attributes });
        }
        for node in message.directories {
            let digest = BlobDigest::required(node.digest.as_ref(), &format!("the input {:?}", node.name))?;
            directory.directories.push((check(node.name)?, digest));
        }
        for node in message.symlinks {
            if node.target.is_empty() || node.target.contains('\0') || node.target.len() > LONGEST_TARGET {
                return Err(Failure::invalid(format!(
                    "the input {:?} has no target that a symlink can have",
                    node.name
                )));
            }
            directory.symlinks.push((check(node.name)?, node.target));
        }
        Ok(directory)
    }
}

/// Checks that a name is that of an entry of its directory.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let is_good = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']) && name.len() <= LONGEST_NAME;
    if is_good { Ok(()) } else { Err(Failure::invalid(format!("{name:?} is no name of a file"))) }
}

fn attributes(properties: &NodeProperties) -> Result<Option<Attributes>, Failure> {
    let modified = properties.mtime.as_ref().map(|time| {
        let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds < 1 << 35);
        let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let since = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
        since
            .map(|since| SystemTime::UNIX_EPOCH + since)
            .ok_or_else(|| Failure::invalid("a modification time of an input is out of range"))
    });
    // Without set-user-ID and the like, which an action has no use for.
    let mode = properties.unix_mode.map(|mode| mode & 0o777);
    let attributes = Attributes { mode, modified: modified.transpose()? };
    Ok((attributes.mode.is_some() || attributes.modified.is_some()).then_some(attributes))
}
