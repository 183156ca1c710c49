//! The local cache: blobs in a directory of the worker, by their digests, up to a size. Programs never write there: an
//! input is a hard link that belongs to a user whom no sandbox has, or a copy.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use stockade::collect::remove_dir_all;
use tempfile::NamedTempFile;

use super::digest::BlobDigest;
use super::failure::{Failure, Tried};

/// The owner of cached files, if the worker is root: a user whom no sandbox maps, so that no program may change them.
const UNMAPPED: u32 = 65534;

/// Bytes that the cache leaves free on its file system, or a tenth of a small one: actions write to it, too.
const FREE: u64 = 1 << 30;

/// The modification time of all inputs: 2011-11-11 11:11:11 UTC. It tells a program nothing of the worker.
pub const MODIFIED: Duration = Duration::from_secs(1_321_009_871);

/// How inputs get into the directory of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Placement {
    /// Hard links of the cached files. Actions can read them, and neither change nor remove them. Requires root.
    HardLinks,
    /// Copies, or reflinks where the file system has them. Actions can change and remove them.
    Copies,
}

/// A cached file: a blob, with or without permission to execute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobKey {
    pub digest: BlobDigest,
    pub is_executable: bool,
}

impl BlobKey {
    fn file_name(self) -> String {
        let Self { digest, is_executable } = self;
        format!("{}-{}{}", digest.hash(), digest.size(), if is_executable { "-x" } else { "" })
    }

    fn of_file_name(name: &str) -> Option<Self> {
        let (name, is_executable) = name.strip_suffix("-x").map_or((name, false), |name| (name, true));
        let (hash, size) = name.split_once('-')?;
        Some(Self { digest: BlobDigest::from_hash(hash, size.parse().ok()?)?, is_executable })
    }

    fn other(self) -> Self {
        Self { is_executable: !self.is_executable, ..self }
    }
}

#[derive(Debug)]
pub struct BlobCache {
    directory: PathBuf,
    handle: OwnedFd,
    limit: u64,
    is_root: bool,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    files: HashMap<BlobKey, Cached>,
    bytes: u64,
    clock: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cached {
    used: u64,
    pins: u32,
}

impl BlobCache {
    /// Opens the cache in a directory, and removes what is damaged. After a restart of the machine all is removed: a file
    /// may have its size, and not its contents. A cache of another user is removed, too.
    pub fn open(directory: &Path, limit: u64) -> Result<Arc<Self>, Failure> {
        let what = format!("open the cache {}", directory.display());
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").tried(&what)?;
        let marker = directory.join("boot");
        let user = rustix::process::geteuid();
        let is_own = directory.symlink_metadata().is_ok_and(|found| found.uid() == user.as_raw());
        if !is_own || fs::read_to_string(&marker).ok().as_ref() != Some(&boot) {
            remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory).tried(&what)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700)).tried(&what)?;
        fs::write(&marker, boot).tried(&what)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(directory, flags, Mode::empty()).tried(&what)?;
        let is_root = user.is_root();
        let index = Mutex::new(load(directory).tried(&what)?);
        let cache = Arc::new(Self { directory: directory.to_owned(), handle, limit, is_root, index });
        cache.shrink(&mut cache.lock());
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these files in the cache until the value is dropped. Returns those that it lacks, too.
    pub fn pin(self: &Arc<Self>, keys: impl IntoIterator<Item = BlobKey>) -> (Pinned, Vec<BlobKey>) {
        let mut index = self.lock();
        let mut pinned = Pinned { cache: self.clone(), keys: vec![] };
        let mut missing = vec![];
        for key in keys {
            if index.use_file(key) {
                pinned.keys.push(key);
            } else {
                missing.push(key);
            }
        }
        (pinned, missing)
    }

    /// Returns a new file for a blob, which is in no one's way until it is inserted.
    pub fn new_file(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix("new-").tempfile_in(&self.directory)
    }

    /// Adds a blob from memory. The caller has checked its digest.
    pub fn insert_bytes(&self, key: BlobKey, bytes: &[u8], pinned: &mut Pinned) -> Result<(), Failure> {
        let mut file = self.new_file().tried("create a file in the cache")?;
        file.write_all(bytes).tried("write to the cache")?;
        self.insert(key, file, pinned)
    }

    /// Adds the file of a blob. The caller has checked its digest.
    pub fn insert(&self, key: BlobKey, file: NamedTempFile, pinned: &mut Pinned) -> Result<(), Failure> {
        let what = format!("add {} to the cache", key.digest);
        self.seal(file.as_file(), key.is_executable).tried(&what)?;
        let mut index = self.lock();
        // Under the lock, so that it is not removed before it is pinned.
        file.persist(self.directory.join(key.file_name())).tried(&what)?;
        index.add(key, 1);
        pinned.keys.push(key);
        self.shrink(&mut index);
        Ok(())
    }

    /// Adds a file that the worker has collected and digested, and takes it away from its place. It is there for the
    /// actions that follow, so that a failure is none of this one's.
    pub fn adopt(&self, key: BlobKey, path: &Path) {
        let adopted = File::open(path).and_then(|file| {
            self.seal(&file, key.is_executable)?;
            let mut index = self.lock();
            fs::rename(path, self.directory.join(key.file_name()))?;
            index.add(key, 0);
            self.shrink(&mut index);
            Ok(())
        });
        if let Err(error) = adopted {
            tracing::debug!(%error, "an output is not cached");
        }
    }

    /// Adds a file from the same blob with the other permission, if that is cached.
    pub fn insert_twin(self: &Arc<Self>, key: BlobKey, pinned: &mut Pinned) -> Result<bool, Failure> {
        let (twin, missing) = self.pin([key.other()]);
        if !missing.is_empty() {
            return Ok(false);
        }
        let what = "copy a file in the cache";
        let mut from = File::open(self.directory.join(key.other().file_name())).tried(what)?;
        let mut file = self.new_file().tried(what)?;
        io::copy(&mut from, file.as_file_mut()).tried(what)?;
        drop(twin);
        self.insert(key, file, pinned)?;
        Ok(true)
    }

    /// Places a pinned file in a directory, in which the name must be new.
    pub fn place(&self, key: BlobKey, placement: Placement, directory: impl AsFd, name: &str) -> Result<(), Failure> {
        let what = format!("place the input {name:?}");
        if placement == Placement::HardLinks {
            let linked = rustix::fs::linkat(&self.handle, key.file_name(), &directory, name, AtFlags::empty());
            match linked {
                // The file has as many links as it can have.
                Err(rustix::io::Errno::MLINK) => {}
                other => return other.tried(&what),
            }
        }
        self.copy_to(key, directory, name).tried(&what)?;
        Ok(())
    }

    /// Copies a pinned file into a directory, in which the name must be new. It is a reflink if the file system can.
    pub fn copy_to(&self, key: BlobKey, directory: impl AsFd, name: &str) -> io::Result<File> {
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if key.is_executable { 0o755 } else { 0o644 };
        let mut copy = File::from(rustix::fs::openat(directory, name, new, Mode::RUSR | Mode::WUSR)?);
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from = File::from(rustix::fs::openat(&self.handle, key.file_name(), read, Mode::empty())?);
        io::copy(&mut from, &mut copy)?;
        copy.set_permissions(Permissions::from_mode(mode))?;
        copy.set_modified(SystemTime::UNIX_EPOCH + MODIFIED)?;
        Ok(copy)
    }

    /// Makes a file one that no program can change.
    fn seal(&self, file: &File, is_executable: bool) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(if is_executable { 0o555 } else { 0o444 }))?;
        file.set_modified(SystemTime::UNIX_EPOCH + MODIFIED)?;
        if self.is_root {
            rustix::fs::fchown(file, Some(Uid::from_raw(UNMAPPED)), Some(Gid::from_raw(UNMAPPED)))?;
        }
        Ok(())
    }

    /// Removes the files that were not used for the longest time, until the rest is within the limit, and actions have room.
    fn shrink(&self, index: &mut Index) {
        let excess = index.bytes.saturating_sub(self.limit).max(self.shortage());
        if excess == 0 {
            return;
        }
        let unused = index.files.iter().filter(|(_, cached)| cached.pins == 0);
        let mut unused: Vec<_> = unused.map(|(key, cached)| (cached.used, *key)).collect();
        unused.sort_unstable_by_key(|(used, _)| *used);
        // Some more than needed, so that not each file that is added makes a list.
        let goal = index.bytes.saturating_sub(excess + index.bytes / 10);
        for (_, key) in unused {
            if index.bytes <= goal {
                break;
            }
            if let Err(error) = fs::remove_file(self.directory.join(key.file_name())) {
                tracing::warn!(%error, "a cached file cannot be removed");
            }
            index.files.remove(&key);
            index.bytes -= key.digest.size();
        }
    }

    /// Returns how many bytes the file system lacks that should be free. If it has no answer, the limit alone counts.
    fn shortage(&self) -> u64 {
        let Ok(found) = rustix::fs::fstatvfs(&self.handle) else { return 0 };
        let free = (found.f_blocks / 10 * found.f_frsize).min(FREE);
        free.saturating_sub(found.f_bavail * found.f_frsize)
    }

    /// Returns the bytes in the cache, and the number of files.
    pub fn size(&self) -> (u64, usize) {
        let index = self.lock();
        (index.bytes, index.files.len())
    }
}

impl Index {
    fn use_file(&mut self, key: BlobKey) -> bool {
        self.clock += 1;
        let used = self.clock;
        let cached = self.files.get_mut(&key);
        cached.map(|cached| *cached = Cached { used, pins: cached.pins + 1 }).is_some()
    }

    fn add(&mut self, key: BlobKey, pins: u32) {
        self.clock += 1;
        let used = self.clock;
        if !self.files.contains_key(&key) {
            self.bytes += key.digest.size();
        }
        let cached = self.files.entry(key).or_default();
        *cached = Cached { used, pins: cached.pins + pins };
    }
}

/// Files that stay in the cache until this is dropped.
#[derive(Debug)]
#[must_use = "the files may be removed when it is dropped"]
pub struct Pinned {
    cache: Arc<BlobCache>,
    keys: Vec<BlobKey>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut index = self.cache.lock();
        for key in &self.keys {
            if let Some(cached) = index.files.get_mut(key) {
                cached.pins = cached.pins.saturating_sub(1);
            }
        }
        self.cache.shrink(&mut index);
    }
}

/// Lists the files of the cache. One with another size than its name says is removed, and so is what is no blob.
fn load(directory: &Path) -> io::Result<Index> {
    let mut index = Index::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let key = name.to_str().and_then(BlobKey::of_file_name);
        match key {
            Some(key) if entry.metadata()?.len() == key.digest.size() => index.add(key, 0),
            _ if name == "boot" => {}
            _ => fs::remove_file(entry.path())?,
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> BlobKey {
        BlobKey { digest: BlobDigest::of(bytes), is_executable: false }
    }

    fn insert(cache: &Arc<BlobCache>, bytes: &[u8]) -> Pinned {
        let (mut pinned, _) = cache.pin([]);
        cache.insert_bytes(key(bytes), bytes, &mut pinned).unwrap();
        pinned
    }

    #[test]
    fn the_least_recently_used_files_are_removed_and_pinned_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(&directory.path().join("cache"), 25).unwrap();
        let contents: Vec<Vec<u8>> = (b'a'..b'e').map(|byte| vec![byte; 10]).collect();
        drop(insert(&cache, &contents[0]));
        drop(insert(&cache, &contents[1]));
        // It was used later than the second.
        drop(cache.pin([key(&contents[0])]));
        let pinned = insert(&cache, &contents[2]);
        let lacks = |index: usize| cache.pin([key(&contents[index])]).1.len() == 1;
        assert_eq!([lacks(0), lacks(1), lacks(2)], [false, true, false]);
        let more = insert(&cache, &contents[3]);
        assert_eq!((cache.size(), lacks(2)), ((20, 2), false));
        drop((pinned, more));
        // What the index has is what the directory has.
        let reopened = BlobCache::open(&directory.path().join("cache"), 25).unwrap();
        assert_eq!(reopened.size(), (20, 2));
    }

    #[test]
    fn damaged_files_and_those_of_another_boot_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let cache = BlobCache::open(&path, 1000).unwrap();
        drop((insert(&cache, b"first"), insert(&cache, b"second")));
        fs::write(path.join("new-half"), "half").unwrap();
        let damaged = path.join(key(b"first").file_name());
        fs::set_permissions(&damaged, Permissions::from_mode(0o600)).unwrap();
        fs::write(&damaged, "fir").unwrap();
        assert_eq!(BlobCache::open(&path, 1000).unwrap().size(), (6, 1));
        assert!(!path.join("new-half").exists() && !damaged.exists());
        fs::write(path.join("boot"), "another").unwrap();
        assert_eq!(BlobCache::open(&path, 1000).unwrap().size(), (0, 0));
    }

    #[test]
    fn a_file_is_cached_with_and_without_permission_to_execute() {
        let directory = tempfile::tempdir().unwrap();
        let cache = BlobCache::open(&directory.path().join("cache"), 1000).unwrap();
        let mut pinned = insert(&cache, b"script");
        let executable = key(b"script").other();
        assert!(
            !cache.insert_twin(BlobKey { digest: BlobDigest::of(b"?"), is_executable: true }, &mut pinned).unwrap()
        );
        assert!(cache.insert_twin(executable, &mut pinned).unwrap());
        let to = File::open(directory.path()).unwrap();
        cache.place(executable, Placement::Copies, &to, "copy").unwrap();
        cache.place(executable, Placement::HardLinks, &to, "link").unwrap();
        let mode = |name| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("copy"), mode("link")), (0o755, 0o555));
        let again = cache.place(executable, Placement::Copies, &to, "link").unwrap_err();
        assert!(again.message.contains("place the input \"link\""), "{again}");
    }
}
