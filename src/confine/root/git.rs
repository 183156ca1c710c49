//! What of a workspace git(1) executes, or takes its configuration from, and a configuration names programs to execute
//! (`core.fsmonitor`, filters, hooks). Read from the workspace itself, in which nothing is believed, and from the caller's own
//! configuration, which may name a directory of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::unistd::User;

use super::git_config;
use super::protect::Absent;
use crate::collect::Collector;
use crate::environment;
use crate::plan::Placeholder;

/// Bytes of the longest file that is read.
const LONGEST: u64 = 1 << 20;
/// Submodules within submodules that are looked for, and submodules in all.
const DEEPEST: usize = 8;
const MOST: usize = 1000;

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

/// The paths below a workspace, or a git directory, that are to be protected.
pub(super) fn executed(source: &Path) -> Vec<(PathBuf, Absent)> {
    let home = environment::var("HOME").map(PathBuf::from);
    let hooks = Caller { home: home.clone() }.hooks();
    let mut workspace = Workspace { source, home, hooks, found: BTreeMap::new() };
    workspace.search();
    workspace.found.into_iter().collect()
}

struct Workspace<'a> {
    source: &'a Path,
    /// What `~` stands for.
    home: Option<PathBuf>,
    /// The values of `core.hooksPath` in the caller's own configuration.
    hooks: Vec<String>,
    found: BTreeMap<PathBuf, Absent>,
}

impl Workspace<'_> {
    fn search(&mut self) {
        let (dot, top) = (Path::new(".git"), Path::new(""));
        if self.source.join("HEAD").is_file() && self.source.join("objects").is_dir() {
            self.git_directory(top, top, DEEPEST);
        }
        match self.source.join(dot).symlink_metadata() {
            Ok(there) if there.is_dir() && !Placeholder::is_one(&there) => self.git_directory(dot, top, DEEPEST),
            // A worktree or a submodule: `gitdir: PATH`.
            Ok(there) if !there.is_dir() => {
                self.found.insert(dot.into(), Some(vec![]));
                // Its git directory may lie elsewhere.
                self.hooks_of_caller(top);
                let named = self.text(dot);
                let named = named.as_deref().and_then(|text| text.trim().strip_prefix("gitdir:"));
                if let Some(directory) = named.and_then(|path| self.below(top, path.trim())) {
                    self.git_directory(&directory, top, DEEPEST);
                    let common = self.text(&directory.join("commondir"));
                    if let Some(common) = common.and_then(|path| self.below(&directory, path.trim())) {
                        self.git_directory(&common, top, DEEPEST);
                    }
                }
            }
            // Or the program could make one, also of the workspace itself: git(1) takes a directory with `HEAD`, `objects`
            // and `refs` for a repository without a working tree.
            _ => {
                self.found.insert(dot.into(), None);
                self.found.insert("HEAD".into(), Some(vec![]));
            }
        }
    }

    /// What is executed of a git directory that belongs to a worktree, unless its configuration names another one; both are
    /// paths below the source.
    fn git_directory(&mut self, git: &Path, worktree: &Path, depth: usize) {
        if depth == 0 || self.found.len() > 8 * MOST {
            return;
        }
        self.found.insert(git.join("hooks"), None);
        self.found.insert(git.join("config"), Some(vec![]));
        self.found.insert(git.join("config.worktree"), Some(vec![]));
        // Another directory with another configuration and other hooks; this one says that it is here.
        self.found.insert(git.join("commondir"), Some(b".\n".to_vec()));
        for worktree in self.directories(&git.join("worktrees")) {
            // Where its files are, in which a file says that their git directory is here.
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
        // A submodule: whose git directory it is.
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

    /// A directory of hooks, as the configuration names it for a worktree. What it executes may lie beside it, as that of
    /// husky does (`.husky/_`): below the first directory that is hidden everything is protected. Of the worktree itself the
    /// hooks alone are.
    fn hooks(&mut self, worktree: &Path, value: &str) {
        let Some(path) = self.inside(worktree, value) else { return };
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

    fn hooks_of_caller(&mut self, worktree: &Path) {
        for value in self.hooks.clone() {
            self.hooks(worktree, &value);
        }
    }

    /// The git directories of submodules, whose names may have slashes.
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

    /// The directories in a directory below the source, as paths below it.
    fn directories(&self, directory: &Path) -> Vec<PathBuf> {
        let real = self.source.join(directory);
        if !real.symlink_metadata().is_ok_and(|there| there.is_dir()) {
            return vec![];
        }
        let entries = fs::read_dir(&real).into_iter().flatten().flatten().take(MOST);
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| directory.join(entry.file_name())).collect()
    }

    /// A path of a configuration, seen from a directory below the source, as one below the source. `None` if it leads out,
    /// or is the source.
    fn below(&self, from: &Path, path: &str) -> Option<PathBuf> {
        self.inside(from, path).filter(|below| below != Path::new(""))
    }

    /// The same, empty if it is the source.
    fn inside(&self, from: &Path, path: &str) -> Option<PathBuf> {
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

    /// A file below the source, as text.
    fn text(&self, path: &Path) -> Option<String> {
        let read = Collector::new().max_bytes(LONGEST).hard_links().read(self.source, path);
        read.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The settings of a configuration below the source, with those of the files that it includes, which are found as well.
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

/// The configuration that the caller's git has beside that of a repository (git-config(1), "FILES").
struct Caller {
    home: Option<PathBuf>,
}

impl Caller {
    /// The values of `core.hooksPath`.
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
            let there = fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() <= LONGEST);
            there.then(|| fs::read(path).ok()).flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        with_includes(file, text, |from, value| Some(from.parent()?.join(expand(value, self.home.as_deref())?)))
    }
}

/// The settings of a configuration with those of the files that it includes, whatever the conditions. `included` says where
/// such a file is, by the one that includes it and what that says.
fn with_includes(
    first: PathBuf,
    text: impl Fn(&Path) -> Option<String>,
    mut included: impl FnMut(&Path, &str) -> Option<PathBuf>,
) -> Vec<(String, String)> {
    let (mut read, mut left, mut all) = (BTreeSet::new(), vec![first], vec![]);
    while let Some(path) = left.pop().filter(|_| read.len() < MOST) {
        if !read.insert(path.clone()) {
            continue;
        }
        for (key, value) in git_config::settings(&text(&path).unwrap_or_default()) {
            if ["include.path", "includeif.path"].contains(&key.as_str()) {
                left.extend(included(&path, &value));
            }
            all.push((key, value));
        }
    }
    all
}

/// A path of a configuration, in which `~` and `~user` stand for homes.
fn expand(path: &str, home: Option<&Path>) -> Option<PathBuf> {
    let Some(rest) = path.strip_prefix('~') else { return Some(path.into()) };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    match user {
        "" => home.map(|home| home.join(rest)),
        user => User::from_name(user).ok()?.map(|user| user.dir.join(rest)),
    }
}
