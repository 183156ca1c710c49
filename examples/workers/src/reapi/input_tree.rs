//! The input root of an action as messages: fetched, and checked, so that what is laid out has no name that leads
//! elsewhere, and not more entries than the worker allows.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prost::Message;

use super::blob_cache::BlobKey;
use super::cas::Cas;
use super::digest::BlobDigest;
use super::failure::Failure;
use super::proto::execution::{Directory, NodeProperties};

/// Levels of directories.
const DEEPEST: usize = 128;
/// Bytes of a name, and of the target of a symlink (`NAME_MAX`, `PATH_MAX`).
const LONGEST_NAME: usize = 255;
const LONGEST_TARGET: usize = 4095;
/// Decoded directories that are kept for the actions that follow.
const KEPT: usize = 20_000;

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

/// Checked directories of earlier actions, which share most of their inputs.
#[derive(Debug, Default)]
pub struct KnownDirectories(Mutex<HashMap<BlobDigest, Arc<InputDirectory>>>);

impl KnownDirectories {
    fn get(&self, digest: &BlobDigest) -> Option<Arc<InputDirectory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn add(&self, digest: BlobDigest, directory: Arc<InputDirectory>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(digest, directory);
    }
}

impl InputTree {
    /// Fetches an input root, and checks it. `most` is the number of entries that it may have.
    pub async fn fetch(cas: &Cas, known: &KnownDirectories, root: BlobDigest, most: usize) -> Result<Self, Failure> {
        let mut tree = Self { root, directories: HashMap::new() };
        let mut level = HashSet::from([root]);
        let mut entries = 0;
        for _ in 0..=DEEPEST {
            if level.is_empty() {
                tree.count(most)?;
                return Ok(tree);
            }
            let (found, unknown): (Vec<_>, Vec<_>) = level.drain().partition(|digest| known.get(digest).is_some());
            let fetched = cas.read(&unknown).await?;
            for (digest, bytes) in fetched {
                let message = Directory::decode(&*bytes)
                    .map_err(|error| Failure::invalid(format!("{digest} is no directory: {error}")))?;
                known.add(digest, Arc::new(InputDirectory::check(message)?));
            }
            for digest in found.into_iter().chain(unknown) {
                let directory = known.get(&digest);
                let directory = directory.ok_or_else(|| Failure::internal("a directory is known no more"))?;
                entries += directory.len();
                let below = directory.directories.iter().map(|(_, digest)| *digest);
                level.extend(below.filter(|digest| !tree.directories.contains_key(digest)));
                tree.directories.insert(digest, directory);
            }
            if entries > most {
                return Err(too_many(most));
            }
            level.retain(|digest| !tree.directories.contains_key(digest));
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

    /// Checks how many entries there are to lay out. A directory may be in many places, so that a few messages describe
    /// more entries than there is room for.
    fn count(&self, most: usize) -> Result<(), Failure> {
        let mut counts: HashMap<BlobDigest, usize> = HashMap::new();
        // From the leaves to the root: each directory once, after those in it.
        let mut path = vec![(self.root, 0)];
        while let Some((digest, visited)) = path.last_mut() {
            let directory = self.get(digest);
            if let Some((_, below)) = directory.directories.get(*visited) {
                *visited += 1;
                if !counts.contains_key(below) {
                    if path.len() > DEEPEST {
                        return Err(too_deep());
                    }
                    path.push((*below, 0));
                }
                continue;
            }
            let below = directory.directories.iter().map(|(_, digest)| counts[digest]);
            let count = below.fold(directory.len(), usize::saturating_add);
            if count > most {
                return Err(too_many(most));
            }
            counts.insert(*digest, count);
            path.pop();
        }
        Ok(())
    }
}

fn too_many(most: usize) -> Failure {
    Failure::precondition(format!("the input root has more than {most} entries: raise --max-inputs of the worker"))
}

fn too_deep() -> Failure {
    Failure::invalid(format!("the input root has more than {DEEPEST} levels of directories"))
}

impl InputDirectory {
    fn len(&self) -> usize {
        self.files.len() + self.directories.len() + self.symlinks.len()
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
    if is_good { Ok(()) } else { Err(Failure::invalid(format!("{name:?} is no name of an input"))) }
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
