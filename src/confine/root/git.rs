//! What of a workspace git(1) executes, or takes its configuration from, and a configuration names programs to execute
//! (`core.fsmonitor`, filters, hooks). Read from the workspace itself, in which nothing is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::git_config;
use super::protect::Absent;
use crate::collect::Collector;
use crate::plan::Placeholder;

/// Bytes of the longest file that is read.
const LONGEST: u64 = 1 << 20;
/// Submodules within submodules that are looked for, and submodules in all.
const DEEPEST: usize = 8;
const MOST: usize = 1000;

/// The paths below a workspace, or a git directory, that are to be protected.
pub(super) fn executed(source: &Path) -> Vec<(PathBuf, Absent)> {
    let mut found = BTreeMap::new();
    let dot = Path::new(".git");
    if source.join("HEAD").is_file() && source.join("objects").is_dir() {
        git_directory(source, Path::new(""), Path::new(""), DEEPEST, &mut found);
    }
    match source.join(dot).symlink_metadata() {
        Ok(there) if there.is_dir() && !Placeholder::is_one(&there) => {
            git_directory(source, dot, Path::new(""), DEEPEST, &mut found)
        }
        // A worktree or a submodule: `gitdir: PATH`.
        Ok(there) if !there.is_dir() => {
            found.insert(dot.into(), Some(vec![]));
            let named = text(source, dot);
            let named = named.as_deref().and_then(|text| text.trim().strip_prefix("gitdir:"));
            if let Some(directory) = named.and_then(|path| below(source, Path::new(""), path.trim())) {
                git_directory(source, &directory, Path::new(""), DEEPEST, &mut found);
                let common = text(source, &directory.join("commondir"));
                if let Some(common) = common.and_then(|path| below(source, &directory, path.trim())) {
                    git_directory(source, &common, Path::new(""), DEEPEST, &mut found);
                }
            }
        }
        // Or the program could make one, also of the workspace itself: git(1) takes a directory with `HEAD`, `objects` and
        // `refs` for a repository without a working tree.
        _ => {
            found.insert(dot.into(), None);
            found.insert("HEAD".into(), Some(vec![]));
        }
    }
    found.into_iter().collect()
}

/// What is executed of a git directory that belongs to a worktree; both are paths below the source.
fn git_directory(source: &Path, git: &Path, worktree: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Absent>) {
    if depth == 0 || found.len() > 8 * MOST {
        return;
    }
    found.insert(git.join("hooks"), None);
    found.insert(git.join("config"), Some(vec![]));
    found.insert(git.join("config.worktree"), Some(vec![]));
    // Another directory with another configuration and other hooks; this one says that it is here.
    found.insert(git.join("commondir"), Some(b".\n".to_vec()));
    for worktree in directories(source, &git.join("worktrees")) {
        let files = [("commondir", vec![]), ("gitdir", vec![]), ("config.worktree", vec![])];
        found.extend(files.map(|(name, absent)| (worktree.join(name), Some(absent))));
    }
    let mut all = settings(source, &git.join("config"), found);
    all.extend(settings(source, &git.join("config.worktree"), found));
    for (key, value) in all {
        let place = match key.as_str() {
            "core.hookspath" => below(source, worktree, &value).map(|path| (path, None)),
            // A submodule: whose git directory it is.
            "core.worktree" => below(source, git, &value).map(|path| (path.join(".git"), Some(vec![]))),
            _ => None,
        };
        if let Some((path, absent)) = place.filter(|(path, _)| *path != git.join(".git") && *path != Path::new(".git"))
        {
            found.insert(path, absent);
        }
    }
    modules(source, &git.join("modules"), depth - 1, found);
}

/// The git directories of submodules, whose names may have slashes.
fn modules(source: &Path, directory: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Absent>) {
    if depth == 0 {
        return;
    }
    for module in directories(source, directory) {
        match source.join(&module).join("HEAD").symlink_metadata() {
            Ok(_) => git_directory(source, &module, &module, depth, found),
            Err(_) => modules(source, &module, depth - 1, found),
        }
    }
}

/// The directories in a directory below the source, as paths below it.
fn directories(source: &Path, directory: &Path) -> Vec<PathBuf> {
    let real = source.join(directory);
    if !real.symlink_metadata().is_ok_and(|there| there.is_dir()) {
        return vec![];
    }
    let entries = std::fs::read_dir(&real).into_iter().flatten().flatten().take(MOST);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| directory.join(entry.file_name())).collect()
}

/// A path, seen from a directory below the source, as one below the source. `None` if it leads out, or is the source.
fn below(source: &Path, from: &Path, path: &str) -> Option<PathBuf> {
    let mut whole = source.to_owned();
    for component in source.join(from).join(path).strip_prefix(source).ok()?.components() {
        match component {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            other => whole.push(other),
        }
    }
    whole.strip_prefix(source).ok().filter(|below| *below != Path::new("")).map(Path::to_owned)
}

/// A file below the source, as text.
fn text(source: &Path, path: &Path) -> Option<String> {
    let read = Collector::new().max_bytes(LONGEST).hard_links().read(source, path);
    read.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The settings of a configuration below the source, with those of the files that it includes, which are found as well.
fn settings(source: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Absent>) -> Vec<(String, String)> {
    let mut read = BTreeSet::new();
    let mut left = vec![path.to_owned()];
    let mut all = vec![];
    while let Some(path) = left.pop().filter(|_| read.len() < MOST) {
        if !read.insert(path.clone()) {
            continue;
        }
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        for (key, value) in git_config::settings(&text(source, &path).unwrap_or_default()) {
            if ["include.path", "includeif.path"].contains(&key.as_str())
                && let Some(included) = below(source, &directory, &value)
            {
                found.insert(included.clone(), Some(vec![]));
                left.push(included);
            }
            all.push((key, value));
        }
    }
    all
}
