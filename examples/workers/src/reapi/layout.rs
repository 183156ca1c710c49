//! Laying out the input root of an action in a directory of the worker. Each directory is created here, and entered by the
//! descriptor of the one above it without following symlinks, so that no name leads out of it.

use std::fs::Permissions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::blob_cache::{BlobCache, BlobKey, Pinned, Placement};
use super::cas::Cas;
use super::digest::BlobDigest;
use super::failure::{Failure, Tried, blocking};
use super::input_tree::{InputDirectory, InputFile, InputTree};

/// The mode of directories: actions write beside their inputs.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// Puts all files of a tree into the cache, from where they are not removed until the value is dropped.
pub async fn fetch_files(cas: &Cas, cache: &std::sync::Arc<BlobCache>, tree: &InputTree) -> Result<Pinned, Failure> {
    let (mut pinned, missing) = cache.pin(tree.keys());
    let mut small = vec![];
    for key in missing {
        if cache.insert_twin(key, &mut pinned)? {
            continue;
        }
        if cas.is_large(&key.digest) {
            fetch_large(cas, cache, key, &mut pinned).await?;
        } else {
            small.push(key);
        }
    }
    // A batch at a time, so that the memory of the worker does not grow with the inputs.
    for keys in batches(&small) {
        let digests: Vec<BlobDigest> = keys.iter().map(|key| key.digest).collect();
        let blobs = cas.read(&digests).await?;
        for key in keys {
            cache.insert_bytes(*key, &blobs[&key.digest], &mut pinned)?;
        }
    }
    Ok(pinned)
}

fn batches(keys: &[BlobKey]) -> impl Iterator<Item = &[BlobKey]> {
    const BYTES: u64 = 16 << 20;
    let mut rest = keys;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |key: &&BlobKey| {
            bytes += key.digest.size() + 128;
            bytes < BYTES
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

async fn fetch_large(cas: &Cas, cache: &BlobCache, key: BlobKey, pinned: &mut Pinned) -> Result<(), Failure> {
    let file = cache.new_file().tried("create a file in the cache")?;
    cas.download(key.digest, file.as_file()).await.map_err(|failure| failure.during("fetch an input"))?;
    cache.insert(key, file, pinned)
}

/// Lays out a tree in an empty directory. Its files must be pinned.
pub async fn lay_out(
    tree: std::sync::Arc<InputTree>,
    cache: std::sync::Arc<BlobCache>,
    placement: Placement,
    directory: OwnedFd,
) -> Result<(), Failure> {
    blocking(move || {
        let layout = Layout { tree: &tree, cache: &cache, placement };
        layout.fill(tree.root(), &directory)
    })
    .await
}

struct Layout<'a> {
    tree: &'a InputTree,
    cache: &'a BlobCache,
    placement: Placement,
}

impl Layout<'_> {
    /// Fills a directory. The tree has few levels, which was checked.
    fn fill(&self, contents: &InputDirectory, directory: &OwnedFd) -> Result<(), Failure> {
        for file in &contents.files {
            self.place(file, directory)?;
        }
        for (name, target) in &contents.symlinks {
            let linked = rustix::fs::symlinkat(target, directory, name);
            linked.tried(format_args!("create the symlink {name:?}"))?;
        }
        for (name, digest) in &contents.directories {
            let below = create_directory(directory, name).tried(format_args!("create the directory {name:?}"))?;
            self.fill(self.tree.get(digest), &below)?;
        }
        Ok(())
    }

    fn place(&self, file: &InputFile, directory: &OwnedFd) -> Result<(), Failure> {
        let InputFile { name, key, attributes } = file;
        let Some(attributes) = attributes else {
            return self.cache.place(*key, self.placement, directory, name);
        };
        let what = format!("place the input {name:?}");
        let copy = self.cache.copy_to(*key, directory, name).tried(&what)?;
        if let Some(mode) = attributes.mode {
            copy.set_permissions(Permissions::from_mode(mode)).tried(&what)?;
        }
        if let Some(modified) = attributes.modified {
            copy.set_modified(modified).tried(&what)?;
        }
        Ok(())
    }
}

/// Creates a new directory, and opens it.
fn create_directory(parent: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdirat(&parent, name, DIRECTORY)?;
    let directory = open_directory(parent, name)?;
    // Whatever the umask is.
    rustix::fs::fchmod(&directory, DIRECTORY)?;
    Ok(directory)
}

fn open_directory(parent: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Creates the directories of a path in a directory that no program has written to yet, as far as they are missing. An
/// input that is in their place is an error, also if it is a symlink.
pub fn create_directories(directory: impl AsFd, path: &Path) -> Result<(), Failure> {
    let mut current = directory.as_fd().try_clone_to_owned().tried("copy a descriptor")?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let name = name.to_str().ok_or_else(|| Failure::invalid(format!("{path:?} is not UTF-8")))?;
        let created = match create_directory(&current, name) {
            Err(Errno::EXIST) => open_directory(&current, name),
            other => other,
        };
        current = match created {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(Failure::invalid(format!(
                    "the directory {path:?} for outputs leads through the input {name:?}, which is no directory"
                )));
            }
            other => other.tried(format_args!("create the directory {path:?}"))?,
        };
    }
    Ok(())
}
