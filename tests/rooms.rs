//! The architecture: the rooms of the crate, as its documentation lists them from top to bottom, import only rooms
//! below them, and no two files import each other.
//!
//! This has its own process, since it reads source files alone and so does not run as two users.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module path such as `confine::mount::bind`; that of the crate root is empty.
type Module = Vec<String>;

struct File {
    path: PathBuf,
    /// Code without comments, strings and tests.
    code: String,
}

/// What is left of a source file without comments, strings and the module of its tests.
fn code(text: &str) -> String {
    let tests = text.find("\nmod tests {").and_then(|tests| text[..tests].rfind("#[cfg(test)]"));
    let text = &text[..tests.unwrap_or(text.len())];
    let mut code = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('/', Some('/')) => {
                let _ = letters.by_ref().find(|letter| *letter == '\n');
                code.push('\n');
            }
            ('"', _) => {
                while let Some(letter) = letters.next() {
                    match letter {
                        '\\' => drop(letters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ('\'', Some('"')) => {
                letters.next();
                letters.next();
            }
            _ => code.push(letter),
        }
    }
    code
}

fn collect(directory: &Path, module: &Module, files: &mut BTreeMap<Module, File>) {
    for entry in fs::read_dir(directory).expect("a folder of sources").flatten() {
        let path = entry.path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut inner = module.clone();
        if path.is_dir() {
            inner.push(name);
            collect(&path, &inner, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            if !["mod", "lib"].contains(&name.as_str()) {
                inner.push(name);
            }
            let code = code(&fs::read_to_string(&path).expect("a source file"));
            files.insert(inner, File { path, code });
        }
    }
}

fn sources() -> BTreeMap<Module, File> {
    let mut files = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &vec![], &mut files);
    files
}

/// The sources of the library. Those of the command are another crate, to which it is a dependency.
fn of_library() -> BTreeMap<Module, File> {
    let is_command = |module: &Module| module.first().is_some_and(|folder| folder == "bin");
    sources().into_iter().filter(|(module, _)| !is_command(module)).collect()
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()];
    };
    let prefix = expand(tree[..open].trim_end_matches("::")).remove(0);
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start, mut paths) = (0, 0, vec![]);
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    paths.extend(expand(&inner[start..at]));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths.into_iter().map(|path| [prefix.clone(), path].concat()).collect()
}

/// The use declarations of a file: whether each hands names on, and its paths.
fn uses(code: &str) -> Vec<(bool, Vec<Vec<String>>)> {
    let mut found = vec![];
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line..at].trim();
        let is_declaration =
            before.is_empty() || before == "pub" || before.starts_with("pub(") && before.ends_with(')');
        if is_declaration {
            let end = code[at..].find(';').map_or(code.len(), |end| at + end);
            found.push((before.starts_with("pub"), expand(&code[at + 4..end])));
        }
    }
    found
}

/// The paths in a file's code that begin with `crate`, `super` or `self`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut found = vec![];
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].chars().next_back().is_some_and(|letter| is_word(letter) || letter == ':') {
                continue;
            }
            let end = code[at..].find(|letter| !is_word(letter) && letter != ':').map_or(code.len(), |end| at + end);
            // The list of a use declaration.
            if code[end..].starts_with('{') {
                continue;
            }
            found.push(code[at..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
    }
    found
}

/// The module and the rest of a path that a module names.
fn absolute(files: &BTreeMap<Module, File>, module: &Module, path: &[String]) -> Option<(Module, Vec<String>)> {
    let mut at = module.clone();
    let mut rest = path;
    match rest.first().map(String::as_str)? {
        "crate" => {
            at.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        // A module within, or another crate.
        first => {
            let within = [at.as_slice(), &[first.to_owned()]].concat();
            if !files.contains_key(&within) {
                return None;
            }
        }
    }
    while let Some(part) = rest.first() {
        let within = [at.as_slice(), std::slice::from_ref(part)].concat();
        if !files.contains_key(&within) {
            break;
        }
        at = within;
        rest = &rest[1..];
    }
    Some((at, rest.to_vec()))
}

/// The file that defines what a path names, through every file that hands the name on.
fn definition(files: &BTreeMap<Module, File>, module: &Module, path: &[String]) -> Option<Module> {
    let (at, rest) = absolute(files, module, path)?;
    let Some(name) = rest.first() else { return Some(at) };
    for (hands_on, paths) in uses(&files[&at].code) {
        for path in paths.iter().filter(|path| hands_on && path.last() == Some(name)) {
            if path.as_slice() != rest.as_slice() {
                return definition(files, &at, path);
            }
        }
    }
    Some(at)
}

/// What each file imports.
fn imports(files: &BTreeMap<Module, File>) -> BTreeMap<&Module, BTreeSet<Module>> {
    let of = |module: &Module, file: &File| {
        let declared = uses(&file.code).into_iter().filter(|(hands_on, _)| !hands_on).flat_map(|(_, paths)| paths);
        let named = declared.chain(inline_paths(&without_handing_on(&file.code)));
        let mut found: BTreeSet<Module> = named.filter_map(|path| definition(files, module, &path)).collect();
        found.remove(module);
        found
    };
    files.iter().map(|(module, file)| (module, of(module, file))).collect()
}

/// Code without declarations that only hand names on.
fn without_handing_on(code: &str) -> String {
    let is_kept = |item: &&str| {
        let item = item.trim_start();
        !(item.starts_with("pub") && item.split_once("use ").is_some_and(|(before, _)| !before.contains(['{', '}'])))
    };
    code.split_inclusive(';').filter(is_kept).collect()
}

/// The rooms that the documentation of the crate lists, from top to bottom.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let listed = text.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    listed.map(str::to_owned).collect()
}

/// What each file hands on under a name of its own: an import too.
fn handed_on(files: &BTreeMap<Module, File>, module: &Module) -> BTreeSet<Module> {
    let paths = uses(&files[module].code).into_iter().filter(|(hands_on, _)| *hands_on).flat_map(|(_, paths)| paths);
    paths.filter_map(|path| definition(files, module, &path)).collect()
}

#[test]
fn rooms_import_rooms_below_them_only() {
    let (files, rooms) = (of_library(), rooms());
    assert!(rooms.len() > 15, "the list in lib.rs was found: {rooms:?}");
    let floor = |room: &String| rooms.iter().position(|listed| listed == room);
    for (module, mut imported) in imports(&files) {
        let Some(room) = module.first().filter(|room| *room != "fuzzing") else { continue };
        imported.extend(handed_on(&files, module));
        let own = floor(room).unwrap_or_else(|| panic!("{room} is not in the list of rooms in lib.rs"));
        for other in imported.iter().filter_map(|other| other.first()).filter(|other| *other != room) {
            let below = floor(other).is_some_and(|floor| floor > own);
            assert!(below, "{} imports {other}, which is not below {room}", files[module].path.display());
        }
    }
    let folders: BTreeSet<&String> = files.keys().filter_map(|module| module.first()).collect();
    let unknown: Vec<&String> = rooms.iter().filter(|room| !folders.contains(room)).collect();
    assert!(unknown.is_empty(), "listed in lib.rs, and not there: {unknown:?}");
}

#[test]
fn no_two_files_import_each_other() {
    let files = of_library();
    let imports = imports(&files);
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 300, "imports were found");
    for start in files.keys() {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![(start.clone(), vec![start.clone()])]);
        while let Some((at, way)) = todo.pop() {
            for next in &imports[&at] {
                let way: Vec<Module> = way.iter().chain([next]).cloned().collect();
                let shown: Vec<String> = way.iter().map(|module| module.join("::")).collect();
                assert!(next != start, "a circle of imports: {}", shown.join(" -> "));
                if seen.insert(next.clone()) {
                    todo.push((next.clone(), way));
                }
            }
        }
    }
}

#[test]
fn no_two_files_have_the_same_name() {
    let mut names = BTreeMap::new();
    for file in sources().into_values().filter(|file| !file.path.ends_with("mod.rs")) {
        let name = file.path.file_name().expect("a name").to_owned();
        if let Some(other) = names.insert(name, file.path.clone()) {
            panic!("{} and {} have the same name", file.path.display(), other.display());
        }
    }
    assert!(names.len() > 100, "files were found");
}

#[test]
fn unsafe_code_stands_in_sys_alone() {
    let is_word_at = |code: &str, at: usize| !code[at + 6..].starts_with(is_word) && !code[..at].ends_with(is_word);
    let mut blocks = 0;
    for (module, file) in sources() {
        let uses = file.code.match_indices("unsafe").filter(|(at, _)| is_word_at(&file.code, *at)).count();
        assert!(uses == 0 || module.first().is_some_and(|room| room == "sys"), "{} has unsafe", file.path.display());
        blocks += uses;
    }
    assert!(blocks > 10, "the unsafe code of sys was found");
}

#[test]
fn no_two_types_have_the_same_name() {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    // The async interface has the names of the blocking one, and what stands in for spans those of spans.
    let is_twin =
        |path: &Path| path.ends_with("trace/no_spans.rs") || path.parent().is_some_and(|room| room.ends_with("tokio"));
    for file in sources().values().filter(|file| !is_twin(&file.path)) {
        for line in file.code.lines() {
            let declaration =
                line.strip_prefix("pub").map_or(line, |rest| rest.split_once(' ').map_or(rest, |(_, rest)| rest));
            let kind = ["struct ", "enum ", "union ", "trait "].iter().find_map(|kind| declaration.strip_prefix(kind));
            let Some(rest) = kind else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            places.entry(name.into()).or_default().push(file.path.clone());
        }
    }
    assert!(places.len() > 150, "types were found: {}", places.len());
    let twice: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "types with one name: {twice:?}");
}
