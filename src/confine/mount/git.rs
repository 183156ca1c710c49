//! Finds the paths of a workspace that git(1) executes, or reads its configuration from, which can name programs to
//! execute (`core.fsmonitor`, filters, hooks). The workspace is not trusted: its files only add paths to protect. The
//! caller's own configuration is read too, since it may name a file or directory of the workspace. How a path is
//! protected is in `protect`.
//!
//! A program writes to the workspace in one sandbox, and the next sandbox searches it. So nothing that a program can
//! create, rename or remove may hide a path: what is found depends on files that each sandbox has protected, and what
//! cannot be searched is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::User;

use super::git_config;
use crate::collect::Collector;
use crate::environment;
use crate::error::{Error, Result};
use crate::host_path::{HostPath, is_directory};
use crate::launch::is_placeholder_directory;
use crate::plan::Absent;

/// The largest file that is read, in bytes.
const MAX_FILE_SIZE: u64 = 1 << 20;
/// The maximum number of paths to protect.
const MAX_PATHS: usize = 8000;
/// The maximum number of directories that are visited, and of entries in them.
const MAX_DIRECTORIES: usize = 200_000;
const MAX_ENTRIES: usize = 4_000_000;
/// The maximum depth of a path to protect, and of a directory that is visited. Each component takes a call.
const MAX_DEPTH: usize = 64;
/// The maximum number of symlinks in a path (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Settings of which the configuration of each git directory has one: git(1) writes them when it creates it.
const REPOSITORY_KEYS: [&str; 3] = ["core.repositoryformatversion", "core.bare", "core.worktree"];

/// The hooks that git executes (githooks(5)).
const HOOKS: [&str; 28] = [
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "p4-changelist",
    "p4-post-changelist",
    "p4-pre-submit",
    "p4-prepare-changelist",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-receive",
    "post-rewrite",
    "post-update",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "pre-receive",
    "prepare-commit-msg",
    "proc-receive",
    "push-to-checkout",
    "reference-transaction",
    "sendemail-validate",
    "update",
];

/// The paths to protect, relative to the source.
#[derive(Default)]
pub(super) struct GitPaths {
    /// What must not change, each with the placeholder if nothing exists there.
    pub read_only: BTreeMap<PathBuf, Absent>,
    /// Existing directories that must not be renamed or removed.
    pub kept: BTreeSet<PathBuf>,
}

/// Returns the paths to protect below a workspace or a git directory.
pub(super) fn search(source: &Path) -> Result<GitPaths> {
    let home = environment::var("HOME").map(PathBuf::from);
    let mut workspace = Workspace {
        source,
        home,
        hooks: vec![],
        found: GitPaths::default(),
        pending: vec![],
        known: BTreeSet::new(),
        directories: 0,
        entries: 0,
    };
    workspace.search()?;
    Ok(workspace.found)
}

/// A part of the search.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    GitDirectory {
        git: PathBuf,
        worktree: PathBuf,
        /// Whether no program can have created it, so that its configuration may include files outside of the source.
        is_trusted: bool,
    },
    /// A directory in which git directories of submodules are, whose names may have slashes.
    Modules(PathBuf),
}

/// A search. All paths are absolute. A program may have written those below the source. The others are trusted.
struct Workspace<'a> {
    source: &'a Path,
    /// The caller's home directory, for `~` in paths.
    home: Option<PathBuf>,
    /// The values of `core.hooksPath` in the caller's own configuration.
    hooks: Vec<String>,
    found: GitPaths,
    pending: Vec<Task>,
    /// Every task that was ever pending.
    known: BTreeSet<Task>,
    directories: usize,
    entries: usize,
}

impl Workspace<'_> {
    fn search(&mut self) -> Result<()> {
        for file in self.files_of_caller() {
            let settings = self.settings(file, true)?;
            self.hooks.extend(values(&settings, "core.hookspath"));
        }
        let (top, dot) = (self.source.to_owned(), self.source.join(".git"));
        if self.is_git_directory(&top) || top.join("commondir").is_file() {
            self.add(Task::GitDirectory { git: top.clone(), worktree: top.clone(), is_trusted: false })?;
        }
        match dot.symlink_metadata() {
            Ok(meta) if meta.is_dir() && !self.is_placeholder(&dot) => {
                self.add(Task::GitDirectory { git: dot, worktree: top.clone(), is_trusted: true })?;
                self.prevent_repository(&top)?;
            }
            // A worktree or a submodule: `gitdir: PATH`. If the path leads to no git directory, git(1) fails.
            Ok(meta) if !meta.is_dir() => {
                self.protect(&dot, Absent::EmptyFile)?;
                let text = self.text(&dot);
                let named = text.as_deref().and_then(|text| text.strip_prefix("gitdir: "));
                if let Some(git) = named.and_then(|line| self.resolve_line(&top, line)) {
                    self.add(Task::GitDirectory { git, worktree: top, is_trusted: true })?;
                }
            }
            // The program must not create a repository.
            _ => {
                self.protect(&dot, Absent::Directory)?;
                self.prevent_repository(&top)?;
            }
        }
        while let Some(task) = self.pending.pop() {
            match task {
                Task::GitDirectory { git, worktree, is_trusted } => self.git_directory(&git, &worktree, is_trusted)?,
                Task::Modules(directory) => self.modules(&directory)?,
            }
        }
        Ok(())
    }

    /// Prevents the program from making a directory itself a git directory. git(1) takes it for one if it contains a
    /// valid `HEAD`, among others, and if its `.git` is none: the program can remove `.git/HEAD`. An empty directory does
    /// not change what git(1) reports of a worktree.
    fn prevent_repository(&mut self, directory: &Path) -> Result<()> {
        let head = directory.join("HEAD");
        if head.symlink_metadata().is_err() || self.is_placeholder(&head) {
            return self.protect(&head, Absent::Directory);
        }
        // That of a git directory changes. No program can have created it: the branch above was taken then.
        if self.is_git_directory(directory) { Ok(()) } else { self.protect(&head, Absent::EmptyFile) }
    }

    /// Returns whether a directory is a git directory. Its configuration is protected, and its `objects` and `refs`
    /// cannot be removed, so a program cannot make this false. `HEAD` does not count, because the program can remove
    /// it.
    fn is_git_directory(&self, directory: &Path) -> bool {
        let exists = |name| directory.join(name).symlink_metadata().is_ok();
        let is_configured = || {
            let text = self.text(&directory.join("config")).unwrap_or_default();
            git_config::settings(&text).iter().any(|(key, _)| REPOSITORY_KEYS.contains(&key.as_str()))
        };
        exists("objects") && exists("refs") || exists("config") && is_configured()
    }

    /// Adds the paths of a git directory and of its worktrees.
    fn git_directory(&mut self, git: &Path, worktree: &Path, is_trusted: bool) -> Result<()> {
        self.protect(&git.join("hooks"), Absent::Directory)?;
        // It could name another directory with another configuration and other hooks. The placeholder names this
        // directory.
        self.protect(&git.join("commondir"), Absent::Dot)?;
        for name in ["objects", "refs"] {
            self.keep(git.join(name));
        }
        let mut settings = self.settings(git.join("config"), is_trusted)?;
        settings.extend(self.settings(git.join("config.worktree"), is_trusted)?);
        let mut worktrees = vec![worktree.to_owned()];
        for linked in self.directories(&git.join("worktrees"))? {
            let files = ["gitdir", "commondir"].map(|name| linked.join(name));
            if files.iter().all(|file| file.symlink_metadata().is_err()) {
                continue;
            }
            for file in &files {
                self.protect(file, Absent::EmptyFile)?;
            }
            settings.extend(self.settings(linked.join("config.worktree"), false)?);
            self.add(Task::Modules(linked.join("modules")))?;
            // The `.git` file of the linked worktree, which names this directory.
            let file = self.text(&files[0]).and_then(|line| self.resolve_line(&linked, &line));
            if let Some(file) = file {
                self.protect(&file, Absent::EmptyFile)?;
                worktrees.extend(file.parent().map(Path::to_owned));
            }
        }
        // The worktree of a submodule, if this is its git directory.
        for value in values(&settings, "core.worktree") {
            let Some(path) = self.resolve(git, &value) else { continue };
            if path.join(".git") != git && path != git {
                self.protect(&path.join(".git"), Absent::EmptyFile)?;
            }
            worktrees.push(path);
        }
        let hooks: Vec<String> = values(&settings, "core.hookspath").into_iter().chain(self.hooks.clone()).collect();
        for worktree in &worktrees {
            for value in &hooks {
                self.hooks(git, worktree, value)?;
            }
        }
        self.add(Task::Modules(git.join("modules")))?;
        // That of a linked worktree names the common directory.
        match self.text(&git.join("commondir")).and_then(|line| self.resolve_line(git, &line)) {
            Some(common) if common != git && (is_trusted || self.below(&common).is_some()) => {
                self.add(Task::GitDirectory { git: common, worktree: worktree.to_owned(), is_trusted })
            }
            _ => Ok(()),
        }
    }

    /// Adds a directory of hooks that a configuration names (`core.hooksPath`). Hooks may execute files beside it, as
    /// those of husky do (`.husky/_`), so everything below the first hidden directory is protected, unless that
    /// contains the git directory. If the directory contains the worktree, only the hooks are.
    fn hooks(&mut self, git: &Path, worktree: &Path, value: &str) -> Result<()> {
        let Some(path) = self.resolve(worktree, value) else { return Ok(()) };
        if worktree.starts_with(&path) || self.source.starts_with(&path) {
            return HOOKS.iter().try_for_each(|hook| self.protect(&path.join(hook), Absent::EmptyFile));
        }
        let is_hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
        let within = path.strip_prefix(worktree).unwrap_or(Path::new(""));
        let hidden = within
            .components()
            .position(is_hidden)
            .map(|index| worktree.join(within.components().take(index + 1).collect::<PathBuf>()));
        let directory = hidden.filter(|hidden| !git.starts_with(hidden)).unwrap_or(path);
        self.protect(&directory, Absent::Directory)
    }

    /// Searches a directory for git directories of submodules. A program can make a directory above one look like a git
    /// directory, so each is searched.
    fn modules(&mut self, directory: &Path) -> Result<()> {
        for module in self.directories(directory)? {
            if self.is_git_directory(&module) {
                let (git, worktree) = (module.clone(), module.clone());
                self.add(Task::GitDirectory { git, worktree, is_trusted: false })?;
            }
            self.add(Task::Modules(module))?;
        }
        Ok(())
    }

    /// Returns the subdirectories of a directory, and an error if it cannot be searched.
    fn directories(&mut self, directory: &Path) -> Result<Vec<PathBuf>> {
        let is_trusted = !directory.starts_with(self.source);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(vec![]),
            _ if is_trusted => Ok(vec![]),
            // A program may have made it unreadable.
            _ => {
                let hint = "allow the caller to read it, or remove it if a program has created it";
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
                Err(Error::set_up("read the git directory", "openat", errno, Some(hint)).on(directory))
            }
        };
        let is_symlink = match directory.symlink_metadata() {
            Ok(meta) => meta.is_symlink(),
            Err(error) => return failed(error),
        };
        if is_symlink {
            self.protect(directory, Absent::Directory)?;
        }
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return failed(error),
        };
        let (mut found, mut symlinks) = (vec![], vec![]);
        for entry in entries {
            self.entries += 1;
            self.check_size(directory)?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return failed(error),
            };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => found.push(entry.path()),
                Ok(kind) if kind.is_symlink() && is_directory(&entry.path()) => symlinks.push(entry.path()),
                _ => {}
            }
        }
        // A program could replace them, so they are an error.
        symlinks.iter().try_for_each(|path| self.protect(path, Absent::Directory))?;
        Ok(found)
    }

    fn add(&mut self, task: Task) -> Result<()> {
        self.directories += 1;
        self.check_size(self.source)?;
        if self.known.insert(task.clone()) {
            self.pending.push(task);
        }
        Ok(())
    }

    /// Adds a path that must not change, if it is below the source.
    fn protect(&mut self, path: &Path, absent: Absent) -> Result<()> {
        if let Some(below) = self.below(path) {
            self.found.read_only.insert(below, absent);
            self.check_size(path)?;
        }
        Ok(())
    }

    /// Adds a path that must not be renamed or removed, if it is a directory below the source.
    fn keep(&mut self, path: PathBuf) {
        let below = self.below(&path).filter(|_| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()));
        self.found.kept.extend(below);
    }

    fn below(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(self.source).ok().filter(|below| *below != Path::new("")).map(Path::to_owned)
    }

    /// Returns an error if there is too much to protect or to search: a program may have created it to hide the rest.
    fn check_size(&self, path: &Path) -> Result<()> {
        let is_deep = self.below(path).is_some_and(|below| below.components().count() > MAX_DEPTH);
        let is_large =
            self.found.read_only.len() > MAX_PATHS || self.directories > MAX_DIRECTORIES || self.entries > MAX_ENTRIES;
        if !is_deep && !is_large {
            return Ok(());
        }
        Err(Error::invalid(
            format!(
                "the git repository at {} is too large to protect: it has more than {MAX_PATHS} paths to protect, \
                 {MAX_DIRECTORIES} directories or {MAX_ENTRIES} entries to search, or {MAX_DEPTH} components in a \
                 path, the last at {}",
                self.source.display(),
                path.display()
            ),
            "remove the directories of submodules and worktrees that a program has created, pack those of large \
             submodules (git gc, git pack-refs --all), or bind the git directory read-only",
        ))
    }

    fn is_placeholder(&self, path: &Path) -> bool {
        HostPath::beneath(self.source, path.strip_prefix(self.source).unwrap_or(path))
            .open(OFlag::O_PATH)
            .is_ok_and(|directory| is_placeholder_directory(&directory))
    }

    /// Resolves a path of a configuration, which is relative to `from`.
    fn resolve(&self, from: &Path, path: &str) -> Option<PathBuf> {
        if path.is_empty() { None } else { self.follow(&from.join(expand(path, self.home.as_deref())?)) }
    }

    /// Resolves the path in a file of a single line.
    fn resolve_line(&self, from: &Path, line: &str) -> Option<PathBuf> {
        let path = line.trim_end_matches(['\n', '\r']);
        if path.is_empty() { None } else { self.follow(&from.join(path)) }
    }

    /// Resolves an absolute path. Below the source no symlink is followed, since a program may have created it. A path
    /// through one cannot be protected, which is an error later.
    fn follow(&self, path: &Path) -> Option<PathBuf> {
        let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
        let mut rest: Vec<OsString> = parts(path);
        let (mut whole, mut symlinks) = (PathBuf::from("/"), 0);
        while let Some(part) = rest.pop() {
            if part == OsStr::new("..") {
                whole.pop();
                continue;
            }
            if part != OsStr::new(".") {
                // The root replaces the path.
                whole.push(part);
            }
            if whole.starts_with(self.source) {
                continue;
            }
            if let Ok(target) = fs::read_link(&whole) {
                symlinks += 1;
                whole.pop();
                rest.extend(parts(&target));
            }
            if symlinks > MAX_SYMLINKS {
                return None;
            }
        }
        Some(whole)
    }

    /// Reads a file.
    fn text(&self, path: &Path) -> Option<String> {
        let bytes = match path.strip_prefix(self.source) {
            Ok(below) => {
                let collector = Collector::new().max_bytes(MAX_FILE_SIZE).hard_links();
                collector.read(self.source, below).ok()
            }
            Err(_) => read_outside(path),
        };
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the settings of a configuration and of the files that it includes, whatever the conditions, and protects
    /// all these files. Files outside of the source count only if the configuration is trusted.
    fn settings(&mut self, first: PathBuf, is_trusted: bool) -> Result<Vec<(String, String)>> {
        let (mut read, mut pending, mut all) = (BTreeSet::new(), vec![first], vec![]);
        while let Some(path) = pending.pop() {
            if !read.insert(path.clone()) {
                continue;
            }
            self.protect(&path, Absent::EmptyFile)?;
            let from = path.parent().unwrap_or(Path::new("/"));
            for (key, value) in git_config::settings(&self.text(&path).unwrap_or_default()) {
                if ["include.path", "includeif.path"].contains(&key.as_str()) {
                    let included = self.resolve(from, &value);
                    pending.extend(included.filter(|path| is_trusted || self.below(path).is_some()));
                }
                all.push((key, value));
            }
        }
        Ok(all)
    }

    /// Returns the files of the caller's configuration that does not belong to a repository (git-config(1), "FILES").
    fn files_of_caller(&self) -> Vec<PathBuf> {
        let named = |variable| environment::var(variable).map(PathBuf::from);
        let system = named("GIT_CONFIG_SYSTEM").unwrap_or_else(|| "/etc/gitconfig".into());
        let in_home = |path: &str| self.home.as_ref().map(|home| home.join(path));
        let in_config = named("XDG_CONFIG_HOME").or_else(|| in_home(".config")).map(|config| config.join("git/config"));
        let global: Vec<PathBuf> = match named("GIT_CONFIG_GLOBAL") {
            Some(file) => vec![file],
            None => in_config.into_iter().chain(in_home(".gitconfig")).collect(),
        };
        let files = std::iter::once(system).chain(global);
        files.filter_map(|file| self.follow(&std::path::absolute(file).ok()?)).collect()
    }
}

/// Returns the values of a setting.
fn values(settings: &[(String, String)], key: &str) -> Vec<String> {
    settings.iter().filter(|(known, _)| known == key).map(|(_, value)| value.clone()).collect()
}

/// Reads a regular file of limited size. A file of the kernel has no size, and reading one may have no end.
fn read_outside(path: &Path) -> Option<Vec<u8>> {
    let is_readable = |meta: &fs::Metadata| meta.is_file() && (1..=MAX_FILE_SIZE).contains(&meta.len());
    fs::metadata(path).ok().filter(is_readable)?;
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    file.metadata().ok().filter(is_readable)?;
    let mut bytes = vec![];
    file.take(MAX_FILE_SIZE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Expands `~` and `~user` in a path of a configuration.
fn expand(path: &str, home: Option<&Path>) -> Option<PathBuf> {
    let Some(rest) = path.strip_prefix('~') else { return Some(path.into()) };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    match user {
        "" => home.map(|home| home.join(rest)),
        user => User::from_name(user).ok()?.map(|user| user.dir.join(rest)),
    }
}
