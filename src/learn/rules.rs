//! What was learned as rules of Landlock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Learned;
use crate::confine::{FsAccess, Landlock};

/// What is done with directories alone.
const OF_DIRECTORY: FsAccess = FsAccess::all().difference(FsAccess::OF_FILE);

impl Learned {
    /// Rules for these paths, exactly, and ports. A file must be there when a program starts, as it was when this one was
    /// learned from; what programs make themselves is allowed by the rule for its directory.
    ///
    /// Where files are moved between directories, each of these gets the rights of all, since Landlock lets no file gain
    /// rights by being moved.
    pub fn landlock(&self) -> Landlock {
        let mut rules = self.paths.clone();
        let moves: Vec<&PathBuf> =
            self.paths.iter().filter(|(_, access)| access.contains(FsAccess::REFER)).map(|(path, _)| path).collect();
        let all: FsAccess = moves.iter().map(|path| above(&self.paths, path) | self.paths[*path]).collect();
        for path in moves {
            rules.insert(path.clone(), all);
        }
        let needed = rules.iter().filter(|(path, access)| !above(&rules, path).contains(**access));
        let landlock = needed.fold(Landlock::new(), |landlock, (path, access)| landlock.access(path, *access));
        let landlock = self.bind.iter().fold(landlock, |landlock, &port| landlock.bind_port(port));
        let landlock = self.connect.iter().fold(landlock, |landlock, &port| landlock.connect_port(port));
        if self.abstract_sockets { landlock.any_abstract_socket() } else { landlock }
    }

    /// The same with directories for files: what was done with one may be done with all in its directory, and below. For
    /// programs whose files have other names in another run. A file directly in `/` stays as it is.
    ///
    /// What has no right of a directory is taken for a file.
    #[must_use]
    pub fn by_directory(mut self) -> Self {
        for (path, access) in std::mem::take(&mut self.paths) {
            let directory = path.parent().filter(|above| !access.intersects(OF_DIRECTORY) && *above != Path::new("/"));
            let path = directory.map_or_else(|| path.clone(), Path::to_owned);
            let marked = if directory.is_some() { access | FsAccess::READ_DIR } else { access };
            *self.paths.entry(path).or_insert(FsAccess::empty()) |= marked;
        }
        self
    }
}

/// What rules for directories above a path allow there.
fn above(rules: &BTreeMap<PathBuf, FsAccess>, path: &Path) -> FsAccess {
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
    fn a_rule_that_one_above_includes_is_left_out() {
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
