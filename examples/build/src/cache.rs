//! The cache: the outputs of steps, by a key of all that they depend on. Contents are stored once, by their digest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use stockade::Fingerprint;

use crate::Failure;
use crate::digest::{self, FileDigests};
use crate::files::replace;
use crate::step::Step;

/// A key of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// What is the same for all steps of a build.
pub struct Keys<'a> {
    /// The digest of the sandbox without inputs and outputs, which count by their contents.
    pub sandbox: Fingerprint,
    /// The versions of the tools, which the sandbox shows from the host.
    pub tools: String,
    pub sources: &'a Path,
    pub files: FileDigests,
}

impl Keys<'_> {
    pub fn of(&self, step: &Step) -> io::Result<Key> {
        let mut parts = vec![self.sandbox.as_bytes().to_vec(), self.tools.clone().into_bytes()];
        // Each list begins with its length, so that an element of one is not one of the next.
        parts.push(step.command.len().to_le_bytes().to_vec());
        parts.extend(step.command.iter().map(|word| word.clone().into_bytes()));
        parts.push(step.outputs.len().to_le_bytes().to_vec());
        parts.extend(step.outputs.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec()));
        for input in &step.inputs {
            parts.push(input.as_os_str().as_encoded_bytes().to_vec());
            parts.push(self.files.of(&self.sources.join(input))?.into_bytes());
        }
        Ok(Key(digest::of_list(parts.iter().map(Vec::as_slice))))
    }
}

/// A directory with the results of steps. Several builds can use it at once.
pub struct Cache {
    actions: PathBuf,
    contents: PathBuf,
}

/// The outputs of a step, and the digests of their contents.
type Action = BTreeMap<PathBuf, String>;

impl Cache {
    pub fn open(directory: &Path) -> io::Result<Self> {
        let cache = Self { actions: directory.join("actions"), contents: directory.join("contents") };
        fs::create_dir_all(&cache.actions)?;
        fs::create_dir_all(&cache.contents)?;
        Ok(cache)
    }

    /// Writes the outputs of a step to a directory, if the cache has all of them. A damaged entry is as none.
    pub fn restore(&self, key: &Key, out: &Path) -> Result<bool, Failure> {
        let Ok(action) = fs::read(self.actions.join(&key.0)) else { return Ok(false) };
        let Ok(action) = serde_json::from_slice::<Action>(&action) else { return Ok(false) };
        let read = |digest: &String| {
            fs::read(self.contents.join(digest)).ok().filter(|bytes| digest::of_bytes(bytes) == *digest)
        };
        let outputs: Option<Vec<_>> = action.iter().map(|(path, digest)| Some((path, read(digest)?))).collect();
        for (path, bytes) in outputs.iter().flatten() {
            replace(&out.join(path), bytes)?;
        }
        Ok(outputs.is_some())
    }

    /// Stores the outputs of a step, which are in a directory.
    pub fn store(&self, key: &Key, step: &Step, out: &Path) -> Result<(), Failure> {
        let mut action = Action::new();
        for output in &step.outputs {
            let bytes = fs::read(out.join(output))?;
            let digest = digest::of_bytes(&bytes);
            replace(&self.contents.join(&digest), &bytes)?;
            action.insert(output.clone(), digest);
        }
        // Last, so that what an action names exists.
        replace(&self.actions.join(&key.0), &serde_json::to_vec(&action)?)?;
        Ok(())
    }
}
