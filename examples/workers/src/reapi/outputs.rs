//! The outputs of an action. What it has written is hostile: the collector copies the requested paths, follows nothing, and
//! reports symlinks as data. Only the copy is read here.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use prost::Message;
use stockade::collect::{Collected, Collector};

use super::blob_cache::{BlobCache, BlobKey};
use super::cas::{Contents, Upload};
use super::digest::BlobDigest;
use super::failure::{Failure, Tried};
use super::input_tree::{DEEPEST, check_name, too_deep};
use super::proto::execution::{
    ActionResult, Command, Directory, DirectoryNode, FileNode, OutputDirectory, OutputFile, OutputSymlink, SymlinkNode,
    Tree,
};
use super::workplace::ActionPaths;

/// Bytes of a path, so that there is room for the directory before it (`PATH_MAX`).
const LONGEST_PATH: usize = 3500;

/// An output that a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedPath {
    /// As the client has written it, and reads it again.
    pub given: String,
    /// Below the input root.
    pub below: PathBuf,
    pub kind: RequestedKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedKind {
    File,
    Directory,
    /// Of `output_paths`: what it is is seen when it is there.
    Any,
}

/// Returns the outputs of a command. A path must not lead out of the input root. All directories on the way to them are
/// created, so that they count as entries too.
pub fn requested(command: &Command, most: u64) -> Result<Vec<RequestedPath>, Failure> {
    use RequestedKind::{Any, Directory, File};
    let lists = if command.output_paths.is_empty() {
        vec![(&command.output_files, File), (&command.output_directories, Directory)]
    } else {
        vec![(&command.output_paths, Any)]
    };
    let paths = lists.into_iter().flat_map(|(paths, kind)| paths.iter().map(move |path| (path, kind)));
    let mut requested = vec![];
    let mut directories = HashSet::new();
    for (given, kind) in paths {
        let below = resolve(&command.working_directory, given)?;
        for directory in below.ancestors().skip(1) {
            if !directories.insert(directory.to_owned()) {
                break;
            }
        }
        requested.push(RequestedPath { given: given.clone(), below, kind });
        if (requested.len() + directories.len()) as u64 > most {
            return Err(too_many(most));
        }
    }
    Ok(requested)
}

fn too_many(most: u64) -> Failure {
    Failure::precondition(format!("the outputs have more than {most} entries: raise --max-outputs of the worker"))
}

/// Returns a path below the input root, by names alone.
pub fn resolve(directory: &str, path: &str) -> Result<PathBuf, Failure> {
    let mut resolved = PathBuf::new();
    for part in [directory, path] {
        for component in Path::new(part).components() {
            let leads_out = match component {
                Component::Normal(name) => {
                    check_name(&name.to_string_lossy())?;
                    resolved.push(name);
                    false
                }
                Component::CurDir => false,
                Component::ParentDir => !resolved.pop(),
                Component::RootDir | Component::Prefix(_) => true,
            };
            if leads_out {
                return Err(Failure::invalid(format!("the path {part:?} is none below the input root")));
            }
        }
    }
    if resolved.iter().count() > DEEPEST || resolved.as_os_str().len() > LONGEST_PATH {
        return Err(too_deep());
    }
    Ok(resolved)
}

/// The limits on outputs.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    pub bytes: u64,
    pub entries: u64,
}

/// What an action has produced, and the blobs of it.
#[derive(Debug, Default)]
pub struct Produced {
    pub result: ActionResult,
    pub uploads: Vec<Upload>,
    /// Files of the copy, for the cache.
    files: Vec<(BlobKey, PathBuf)>,
    /// Entries of all trees. Outputs may overlap, and each has its own tree.
    entries: u64,
}

impl Produced {
    /// Copies the outputs of an action, and reads the copy.
    pub fn collect(
        directory: &ActionPaths,
        requested: &[RequestedPath],
        limits: OutputLimits,
    ) -> Result<Self, Failure> {
        if requested.is_empty() {
            return Ok(Self::default());
        }
        let collector = Collector::new().max_bytes(limits.bytes).max_entries(limits.entries).max_depth(DEEPEST as u32);
        // Hard links are between files of the action: those of others are on other mounts.
        let collector = collector.symlinks().hard_links();
        let paths = requested.iter().map(|path| Path::new(".").join(&path.below));
        let collected = collector.copy_only(&directory.root, paths, &directory.outputs)?;
        for skipped in &collected.skipped {
            tracing::warn!(%skipped, "an output is not reported");
        }
        let mut produced = Self::default();
        let root = produced.read(&directory.outputs, &collected)?;
        for path in requested {
            produced.report(&root, path);
            if produced.entries > limits.entries {
                return Err(too_many(limits.entries));
            }
        }
        Ok(produced)
    }

    /// Gives the files of the copy to the cache. They must have been uploaded.
    pub fn give_to(self, cache: &BlobCache) {
        for (key, path) in self.files {
            cache.adopt(key, &path);
        }
    }

    fn read(&mut self, copy: &Path, collected: &Collected) -> Result<Node, Failure> {
        let mut root = Node::default();
        self.read_directory(copy, &mut root)?;
        for link in &collected.symlinks {
            let names: Vec<_> = link.path.iter().map(|name| utf8(Path::new(name))).collect::<Result<_, _>>()?;
            let Some((name, above)) = names.split_last() else { continue };
            let mut node = &mut root;
            for name in above {
                node = node.directories.entry(name.clone()).or_default();
            }
            node.symlinks.insert(name.clone(), utf8(&link.target)?);
        }
        Ok(root)
    }

    fn read_directory(&mut self, directory: &Path, node: &mut Node) -> Result<(), Failure> {
        let what = "read the outputs";
        for entry in fs::read_dir(directory).tried(what)? {
            let entry = entry.tried(what)?;
            let (name, path) = (utf8(Path::new(&entry.file_name()))?, entry.path());
            let metadata = entry.metadata().tried(what)?;
            if metadata.is_dir() {
                let mut below = Node::default();
                self.read_directory(&path, &mut below)?;
                node.directories.insert(name, below);
                continue;
            }
            let digest = BlobDigest::of_reader(fs::File::open(&path).tried(what)?).tried(what)?;
            let is_executable = metadata.permissions().mode() & 0o100 != 0;
            node.files.insert(name, (digest, is_executable));
            self.uploads.push(Upload { digest, contents: Contents::File(path.clone()) });
            self.files.push((BlobKey { digest, is_executable }, path));
        }
        Ok(())
    }

    /// Adds an output to the result, if it is there and is of the kind that was asked for.
    fn report(&mut self, root: &Node, requested: &RequestedPath) {
        use RequestedKind::{Any, Directory, File};
        let RequestedPath { given, below, kind } = requested;
        let path = given.clone();
        let Some((directory, name)) = root.find(below) else { return };
        let Some(name) = name else {
            // The input root itself.
            return self.add_directory(path, root);
        };
        if let Some((digest, is_executable)) = directory.files.get(name).filter(|_| *kind != Directory) {
            let digest = Some((*digest).into());
            self.result.output_files.push(OutputFile {
                path,
                digest,
                is_executable: *is_executable,
                ..Default::default()
            });
        } else if let Some(target) = directory.symlinks.get(name) {
            let link = OutputSymlink { path, target: target.clone(), ..Default::default() };
            match kind {
                Any => self.result.output_symlinks.push(link),
                File => self.result.output_file_symlinks.push(link),
                Directory => self.result.output_directory_symlinks.push(link),
            }
        } else if let Some(below) = directory.directories.get(name).filter(|_| *kind != File) {
            self.add_directory(path, below);
        }
    }

    fn add_directory(&mut self, path: String, node: &Node) {
        self.entries += node.entries();
        let mut tree = Tree::default();
        let mut known = HashSet::new();
        let (root, _) = node.message(&mut tree.children, &mut known);
        tree.root = Some(root);
        let upload = Upload::bytes(tree.encode_to_vec());
        let tree_digest = Some(upload.digest.into());
        self.uploads.push(upload);
        self.result.output_directories.push(OutputDirectory { path, tree_digest, ..Default::default() });
    }
}

/// A directory of the copy, with the symlinks that the collector has reported.
#[derive(Debug, Default)]
struct Node {
    files: BTreeMap<String, (BlobDigest, bool)>,
    directories: BTreeMap<String, Node>,
    symlinks: BTreeMap<String, String>,
}

impl Node {
    /// Returns the directory above a path, and the last name. `None` if the directory does not exist.
    fn find<'a>(&'a self, path: &'a Path) -> Option<(&'a Self, Option<&'a str>)> {
        let mut names = path.iter().map(|name| name.to_str());
        let Some(last) = names.next_back() else { return Some((self, None)) };
        let mut node = self;
        for name in names {
            node = node.directories.get(name?)?;
        }
        Some((node, Some(last?)))
    }

    /// Returns the number of entries in it and below it.
    fn entries(&self) -> u64 {
        let own = self.files.len() + self.directories.len() + self.symlinks.len();
        own as u64 + self.directories.values().map(Self::entries).sum::<u64>()
    }

    /// Returns the message of the directory, and adds those below it, each once.
    fn message(&self, children: &mut Vec<Directory>, known: &mut HashSet<BlobDigest>) -> (Directory, BlobDigest) {
        let mut message = Directory::default();
        for (name, (digest, is_executable)) in &self.files {
            let (name, digest) = (name.clone(), Some((*digest).into()));
            message.files.push(FileNode { name, digest, is_executable: *is_executable, ..Default::default() });
        }
        for (name, below) in &self.directories {
            let (child, digest) = below.message(children, known);
            if known.insert(digest) {
                children.push(child);
            }
            message.directories.push(DirectoryNode { name: name.clone(), digest: Some(digest.into()) });
        }
        for (name, target) in &self.symlinks {
            message.symlinks.push(SymlinkNode { name: name.clone(), target: target.clone(), ..Default::default() });
        }
        let digest = BlobDigest::of(&message.encode_to_vec());
        (message, digest)
    }
}

/// Returns a name or a target as the text that messages need.
fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::precondition(format!(
            "the action has written {path:?}, which is not UTF-8: the protocol has no way to report it"
        ))
    })
}
