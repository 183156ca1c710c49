//! The headers of a C source, declared by looking for `#include "…"` in it and in them. Conditions are not evaluated: a
//! header that is not compiled is an input too.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The headers that files name, each of which is read once.
pub struct Includes<'a> {
    sources: &'a Path,
    known: HashMap<PathBuf, Vec<PathBuf>>,
}

impl<'a> Includes<'a> {
    pub fn new(sources: &'a Path) -> Self {
        Self { sources, known: HashMap::new() }
    }

    /// Returns a source and all headers that it includes, relative to the directory of the sources.
    pub fn of(&mut self, source: &Path) -> io::Result<BTreeSet<PathBuf>> {
        let (mut found, mut next) = (BTreeSet::new(), vec![source.to_owned()]);
        while let Some(path) = next.pop() {
            if found.insert(path.clone()) {
                next.extend(self.named_in(&path)?);
            }
        }
        Ok(found)
    }

    fn named_in(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if let Some(named) = self.known.get(path) {
            return Ok(named.clone());
        }
        let text = fs::read(self.sources.join(path))?;
        let text = String::from_utf8_lossy(&text);
        let directory = path.parent().unwrap_or(Path::new(""));
        let named: Vec<PathBuf> = text
            .lines()
            .filter_map(quoted)
            .filter_map(|name| beneath(&directory.join(name)))
            .filter(|path| self.sources.join(path).is_file())
            .collect();
        self.known.insert(path.to_owned(), named.clone());
        Ok(named)
    }
}

/// Returns the name in a line `#include "name"`.
fn quoted(line: &str) -> Option<&str> {
    let directive = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
    directive.trim_start().strip_prefix('"')?.split('"').next()
}

/// Returns a relative path without `..`, unless it leads out of the sources.
fn beneath(path: &Path) -> Option<PathBuf> {
    path.components().try_fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir => return plain.pop().then_some(plain),
            _ => return None,
        }
        Some(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_by_their_directives() {
        assert_eq!(quoted("#include \"a/b.h\" /* why */"), Some("a/b.h"));
        assert_eq!(quoted("  #  include\t\"b.h\""), Some("b.h"));
        assert_eq!(quoted("#include <stdio.h>"), None);
        assert_eq!(quoted("// include \"b.h\""), None);
        assert_eq!(beneath(Path::new("a/../b/./c.h")), Some("b/c.h".into()));
        assert_eq!(beneath(Path::new("a/../../c.h")), None);
    }

    #[test]
    fn headers_of_headers_are_inputs() {
        let sources = tempfile::tempdir().expect("a directory");
        fs::create_dir(sources.path().join("lib")).expect("a directory");
        for (name, text) in [
            ("lib/a.c", "#include \"b.h\"\n#include \"../top.h\"\n#include \"missing.h\"\n"),
            ("lib/b.h", "#include \"a.c\"\n"),
            ("top.h", "#if 0\n#include \"lib/c.h\"\n#endif\n"),
            ("lib/c.h", ""),
            ("other.h", ""),
        ] {
            fs::write(sources.path().join(name), text).expect("a file");
        }
        let found = Includes::new(sources.path()).of(Path::new("lib/a.c")).expect("the headers");
        assert_eq!(found, ["lib/a.c", "lib/b.h", "lib/c.h", "top.h"].map(PathBuf::from).into());
    }
}
