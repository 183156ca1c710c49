//! Finds the paths of a workspace that git(1) executes, or reads its configuration from, which can name programs to
//! execute (`core.fsmonitor`, filters, hooks). The workspace is not trusted: its files only add paths to protect. The
//! caller's own configuration is read too, since it may name a directory of the workspace. How a path is protected is
//! in `protect`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::unistd::User;

use super::git_config;
use crate::collect::Collector;
use crate::environment;
use crate::plan::{Absent, Placeholder};

/// The largest file that is read, in bytes.
const MAX_FILE_SIZE: u64 = 1 << 20;
/// The maximum depth of submodules within submodules.
const MAX_DEPTH: usize = 8;
/// The maximum number of entries of a directory, and of configuration files, that are read.
const MAX_COUNT: usize = 1000;

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

/// Returns the paths to protect below a workspace or a git directory, each with the placeholder if nothing exists
/// there.
pub(super) fn executed_paths(source: &Path) -> Vec<(PathBuf, Absent)> {
    let home = environment::var("HOME").map(PathBuf::from);
    let hooks = GitUser { home: home.clone() }.hooks();
    let mut workspace = Workspace { source, home, hooks, found: BTreeMap::new() };
    workspace.search();
    workspace.found.into_iter().collect()
}

struct Workspace<'a> {
    source: &'a Path,
    /// The caller's home directory, for `~` in paths.
    home: Option<PathBuf>,
    /// The values of `core.hooksPath` in the caller's own configuration.
    hooks: Vec<String>,
    found: BTreeMap<PathBuf, Absent>,
}

impl Workspace<'_> {
    fn search(&mut self) {
        let (dot, top) = (Path::new(".git"), Path::new(""));
        if self.source.join("HEAD").is_file() && self.source.join("objects").is_dir() {
            self.git_directory(top, top, MAX_DEPTH);
        }
        match self.source.join(dot).symlink_metadata() {
            Ok(meta) if meta.is_dir() && !Placeholder::is_one(&meta) => self.git_directory(dot, top, MAX_DEPTH),
            // A worktree or a submodule: `gitdir: PATH`.
            Ok(meta) if !meta.is_dir() => {
                self.found.insert(dot.into(), Some(vec![]));
                // Its git directory may lie elsewhere.
                self.hooks_of_caller(top);
                let named = self.text(dot);
                let named = named.as_deref().and_then(|text| text.trim().strip_prefix("gitdir:"));
                if let Some(directory) = named.and_then(|path| self.below(top, path.trim())) {
                    self.git_directory(&directory, top, MAX_DEPTH);
                    let common = self.text(&directory.join("commondir"));
                    if let Some(common) = common.and_then(|path| self.below(&directory, path.trim())) {
                        self.git_directory(&common, top, MAX_DEPTH);
                    }
                }
            }
            // No repository. The program must not create one, nor make the workspace itself one: git(1) treats a
            // directory with `HEAD`, `objects` and `refs` as a bare repository.
            _ => {
                self.found.insert(dot.into(), None);
                self.found.insert("HEAD".into(), Some(vec![]));
            }
        }
    }

    /// Adds the paths of a git directory and of its worktree. Both are relative to the source. The configuration may
    /// name another worktree.
    fn git_directory(&mut self, git: &Path, worktree: &Path, depth: usize) {
        if depth == 0 || self.found.len() > 8 * MAX_COUNT {
            return;
        }
        self.found.insert(git.join("hooks"), None);
        self.found.insert(git.join("config"), Some(vec![]));
        self.found.insert(git.join("config.worktree"), Some(vec![]));
        // It could name another directory with another configuration and other hooks. The placeholder names this
        // directory.
        self.found.insert(git.join("commondir"), Some(b".\n".to_vec()));
        for worktree in self.directories(&git.join("worktrees")) {
            // The `.git` file of the linked worktree, which names this directory.
            if let Some(file) = self.text(&worktree.join("gitdir")).and_then(|path| self.below(&worktree, path.trim()))
            {
                self.found.insert(file, Some(vec![]));
            }
            let files = [("commondir", vec![]), ("gitdir", vec![]), ("config.worktree", vec![])];
            self.found.extend(files.map(|(name, absent)| (worktree.join(name), Some(absent))));
        }
        let mut all = self.settings(&git.join("config"));
        all.extend(self.settings(&git.join("config.worktree")));
        let of = |key: &str| -> Vec<String> {
            all.iter().filter(|(known, _)| known == key).map(|(_, value)| value.clone()).collect()
        };
        let mut worktrees = vec![worktree.to_owned()];
        // The worktree of a submodule, if this is its git directory.
        let named: Vec<PathBuf> = of("core.worktree").iter().filter_map(|value| self.below(git, value)).collect();
        for path in named {
            let file = path.join(".git");
            if file != git.join(".git") {
                self.found.insert(file, Some(vec![]));
            }
            worktrees.push(path);
        }
        for worktree in worktrees {
            of("core.hookspath").iter().for_each(|value| self.hooks(&worktree, value));
            self.hooks_of_caller(&worktree);
        }
        self.modules(&git.join("modules"), depth - 1);
    }

    /// Adds a directory of hooks that a configuration names (`core.hooksPath`). Hooks may execute files beside it, as
    /// those of husky do (`.husky/_`), so everything below the first hidden directory is protected. If the directory is
    /// the worktree itself, only the hooks are.
    fn hooks(&mut self, worktree: &Path, value: &str) {
        let Some(path) = self.below_or_source(worktree, value) else { return };
        let Ok(within) = path.strip_prefix(worktree) else {
            self.found.insert(path, None);
            return;
        };
        if within == Path::new("") {
            self.found.extend(HOOKS.map(|hook| (path.join(hook), Some(vec![]))));
            return;
        }
        let is_hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
        let parts = within.components().position(is_hidden).map_or(usize::MAX, |index| index + 1);
        let directory = worktree.join(within.components().take(parts).collect::<PathBuf>());
        if directory != Path::new(".git") {
            self.found.insert(directory, None);
        }
    }

    /// Adds the directories of hooks that the caller's own configuration names.
    fn hooks_of_caller(&mut self, worktree: &Path) {
        for value in self.hooks.clone() {
            self.hooks(worktree, &value);
        }
    }

    /// Adds the git directories of submodules, whose names may have slashes.
    fn modules(&mut self, directory: &Path, depth: usize) {
        if depth == 0 {
            return;
        }
        for module in self.directories(directory) {
            match self.source.join(&module).join("HEAD").symlink_metadata() {
                Ok(_) => self.git_directory(&module, &module, depth),
                Err(_) => self.modules(&module, depth - 1),
            }
        }
    }

    /// Returns the subdirectories of a directory. Paths are relative to the source.
    fn directories(&self, directory: &Path) -> Vec<PathBuf> {
        let real = self.source.join(directory);
        if !real.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return vec![];
        }
        let entries = fs::read_dir(&real).into_iter().flatten().flatten().take(MAX_COUNT);
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| directory.join(entry.file_name())).collect()
    }

    /// Resolves a path of a configuration, which is relative to `from`, to one below the source. `None` if it leads out
    /// of the source, or is the source.
    fn below(&self, from: &Path, path: &str) -> Option<PathBuf> {
        self.below_or_source(from, path).filter(|below| below != Path::new(""))
    }

    /// As [`below`](Self::below), but returns an empty path for the source itself.
    fn below_or_source(&self, from: &Path, path: &str) -> Option<PathBuf> {
        let path = expand(path, self.home.as_deref())?;
        let mut whole = self.source.to_owned();
        for component in self.source.join(from).join(path).strip_prefix(self.source).ok()?.components() {
            match component {
                Component::ParentDir => drop(whole.pop()),
                Component::CurDir => {}
                other => whole.push(other),
            }
        }
        whole.strip_prefix(self.source).ok().map(Path::to_owned)
    }

    /// Reads a file below the source.
    fn text(&self, path: &Path) -> Option<String> {
        let read = Collector::new().max_bytes(MAX_FILE_SIZE).hard_links().read(self.source, path);
        read.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the settings of a configuration below the source and of the files that it includes, and adds those files.
    fn settings(&mut self, path: &Path) -> Vec<(String, String)> {
        let mut included = vec![];
        let settings = with_includes(
            path.to_owned(),
            |path| self.text(path),
            |from, value| {
                let path = self.below(from.parent().unwrap_or(Path::new("")), value)?;
                included.push(path.clone());
                Some(path)
            },
        );
        self.found.extend(included.into_iter().map(|path| (path, Some(vec![]))));
        settings
    }
}

/// The configuration of the caller's git that does not belong to a repository (git-config(1), "FILES").
struct GitUser {
    home: Option<PathBuf>,
}

impl GitUser {
    /// Returns the values of `core.hooksPath`.
    fn hooks(&self) -> Vec<String> {
        let settings = self.files().into_iter().flat_map(|file| self.settings(file));
        settings.filter(|(key, _)| key == "core.hookspath").map(|(_, value)| value).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let named = |variable| environment::var(variable).map(PathBuf::from);
        let system = named("GIT_CONFIG_SYSTEM").unwrap_or_else(|| "/etc/gitconfig".into());
        let in_home = |path: &str| self.home.as_ref().map(|home| home.join(path));
        let in_config = named("XDG_CONFIG_HOME").or_else(|| in_home(".config")).map(|config| config.join("git/config"));
        let global: Vec<PathBuf> = match named("GIT_CONFIG_GLOBAL") {
            Some(file) => vec![file],
            None => in_config.into_iter().chain(in_home(".gitconfig")).collect(),
        };
        std::iter::once(system).chain(global).collect()
    }

    fn settings(&self, file: PathBuf) -> Vec<(String, String)> {
        let text = |path: &Path| {
            let is_readable = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE_SIZE);
            is_readable.then(|| fs::read(path).ok()).flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        with_includes(file, text, |from, value| Some(from.parent()?.join(expand(value, self.home.as_deref())?)))
    }
}

/// Reads the settings of a configuration and of the files that it includes, whatever the conditions. `included` returns
/// the path of an included file, from the file that includes it and the value there.
fn with_includes(
    first: PathBuf,
    text: impl Fn(&Path) -> Option<String>,
    mut included: impl FnMut(&Path, &str) -> Option<PathBuf>,
) -> Vec<(String, String)> {
    let (mut read, mut pending, mut all) = (BTreeSet::new(), vec![first], vec![]);
    while let Some(path) = pending.pop().filter(|_| read.len() < MAX_COUNT) {
        if !read.insert(path.clone()) {
            continue;
        }
        for (key, value) in git_config::settings(&text(&path).unwrap_or_default()) {
            if ["include.path", "includeif.path"].contains(&key.as_str()) {
                pending.extend(included(&path, &value));
            }
            all.push((key, value));
        }
    }
    all
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
