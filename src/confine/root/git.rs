//! What of a workspace git(1) executes, or takes its configuration from, and a configuration names programs to execute
//! (`core.fsmonitor`, filters, hooks). Read from the workspace itself, in which nothing is believed.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::protect::Absent;
use crate::collect::Collector;

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
        Ok(there) if there.is_dir() => git_directory(source, dot, Path::new(""), DEEPEST, &mut found),
        // A worktree or a submodule: `gitdir: PATH`.
        Ok(_) => {
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
        // Or the program could make one.
        Err(_) => {
            found.insert(dot.into(), None);
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
    for (key, value) in settings(source, &git.join("config")) {
        let place = match key.as_str() {
            "core.hookspath" => below(source, worktree, &value).map(|path| (path, None)),
            "include.path" => below(source, git, &value).map(|path| (path, Some(vec![]))),
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

/// The settings of a configuration (git-config(1)), as `section.key` in lower case; of sections with a name as well.
fn settings(source: &Path, path: &Path) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut settings = vec![];
    for line in text(source, path).unwrap_or_default().lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let name = header.split([']', ' ', '"']).next().unwrap_or_default().to_lowercase();
            section = if name == "includeif" { "include".into() } else { name };
        } else if let Some((key, value)) = line.split_once('=') {
            let key = format!("{section}.{}", key.trim().to_lowercase());
            settings.push((key, value.trim().trim_matches('"').to_owned()));
        }
    }
    settings
}
