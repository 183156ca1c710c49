//! The conversion of learned paths and ports to Landlock rules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::learned::Learned;
use crate::confine::{FsAccess, Landlock};

/// Rights that exist for directories only.
const DIRECTORY_ONLY: FsAccess = FsAccess::all().difference(FsAccess::OF_FILE);

impl Learned {
    /// Returns a Landlock policy that allows exactly these paths and ports.
    ///
    /// A rule requires that its path exists when the program starts. Files that the program creates itself are allowed
    /// by the rule of their directory. If the program moved files between directories, all of these directories get the
    /// same rights, since Landlock denies a move by which a file would gain rights.
    pub fn landlock(&self) -> Landlock {
        let mut rules = self.paths.clone();
        let moves: Vec<&PathBuf> =
            self.paths.iter().filter(|(_, access)| access.contains(FsAccess::REFER)).map(|(path, _)| path).collect();
        let all: FsAccess = moves.iter().map(|path| inherited(&self.paths, path) | self.paths[*path]).collect();
        for path in moves {
            rules.insert(path.clone(), all);
        }
        let needed = rules.iter().filter(|(path, access)| !inherited(&rules, path).contains(**access));
        let landlock = needed.fold(Landlock::new(), |landlock, (path, access)| landlock.access(path, *access));
        let landlock = self.bind.iter().fold(landlock, |landlock, &port| landlock.bind_port(port));
        let landlock = self.connect.iter().fold(landlock, |landlock, &port| landlock.connect_port(port));
        if self.abstract_sockets { landlock.any_abstract_socket() } else { landlock }
    }

    /// Replaces each file by its directory, so that the rights on the file apply to everything in and below that
    /// directory.
    ///
    /// Use it for programs whose files have different names in each run. Files directly in `/` are not replaced. A path
    /// counts as a file if none of its rights applies only to directories.
    #[must_use]
    pub fn by_directory(mut self) -> Self {
        for (path, access) in std::mem::take(&mut self.paths) {
            let directory =
                path.parent().filter(|above| !access.intersects(DIRECTORY_ONLY) && *above != Path::new("/"));
            let path = directory.map_or_else(|| path.clone(), Path::to_owned);
            let marked = if directory.is_some() { access | FsAccess::READ_DIR } else { access };
            *self.paths.entry(path).or_insert(FsAccess::empty()) |= marked;
        }
        self
    }
}

/// Returns the rights that rules for the parent directories of a path give at it.
fn inherited(rules: &BTreeMap<PathBuf, FsAccess>, path: &Path) -> FsAccess {
    path.ancestors().skip(1).filter_map(|above| rules.get(above)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: FsAccess = FsAccess::READ_FILE;

    fn of(paths: &[(&str, FsAccess)]) -> Learned {
        Learned::new().allow_paths(paths.iter().copied())
    }

    fn rules(paths: &[(&str, FsAccess)]) -> Landlock {
        paths.iter().fold(Landlock::new(), |rules, (path, access)| rules.access(*path, *access))
    }

    #[test]
    fn rules_that_a_parent_includes_are_omitted() {
        let learned =
            of(&[("/a", READ | FsAccess::READ_DIR), ("/a/b", READ), ("/a/c", FsAccess::EXECUTE), ("/ab", READ)]);
        let expected = [("/a", READ | FsAccess::READ_DIR), ("/a/c", FsAccess::EXECUTE), ("/ab", READ)];
        assert_eq!(learned.landlock(), rules(&expected));
    }

    #[test]
    fn directories_that_files_are_moved_between_have_the_same_rights() {
        let (from, to) = (FsAccess::REFER | FsAccess::REMOVE_FILE, FsAccess::REFER | FsAccess::MAKE_REG);
        let learned = of(&[("/from", from), ("/x", READ), ("/x/to", to)]);
        assert_eq!(
            learned.landlock(),
            rules(&[("/from", from | to | READ), ("/x", READ), ("/x/to", from | to | READ)])
        );
    }

    #[test]
    fn files_are_merged_to_their_directories() {
        let learned = of(&[("/a/b", READ), ("/a/c", FsAccess::WRITE_FILE), ("/d", READ), ("/e/f", FsAccess::MAKE_DIR)]);
        let expected =
            [("/a", READ | FsAccess::WRITE_FILE | FsAccess::READ_DIR), ("/d", READ), ("/e/f", FsAccess::MAKE_DIR)];
        assert_eq!(learned.clone().by_directory(), of(&expected));
        assert_eq!(learned.clone().by_directory().by_directory(), learned.by_directory());
    }
}
