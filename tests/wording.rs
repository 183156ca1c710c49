//! The words of errors, as the source has them: each step is an infinitive, and each hint says what to do.
//!
//! This has its own process, since it reads source files alone and so does not run as two users.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/wording.rs"]
mod wording;

/// A token of Rust.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

use Token::{Mark, Text, Word};

impl Token {
    fn is(&self, what: &str) -> bool {
        match self {
            Word(word) => word == what,
            Mark(mark) => what.chars().eq([*mark]),
            Text(_) => false,
        }
    }
}

/// Reads the tokens of a file without comments and the module of its tests.
fn tokens(source: &str) -> Vec<Token> {
    let tests = source.find("\nmod tests {").and_then(|tests| source[..tests].rfind("#[cfg(test)]"));
    let mut letters = source[..tests.unwrap_or(source.len())].chars().peekable();
    let mut found = vec![];
    while let Some(letter) = letters.next() {
        match letter {
            '/' if letters.peek() == Some(&'/') => drop(letters.by_ref().find(|letter| *letter == '\n')),
            '"' => found.push(Text(text(&mut letters))),
            '\'' => {
                // A character, or a lifetime.
                let mut ahead = letters.clone();
                match (ahead.next(), ahead.next()) {
                    (Some('\\'), Some(_)) => drop(letters.by_ref().skip(2).find(|letter| *letter == '\'')),
                    (Some(_), Some('\'')) => drop(letters.by_ref().nth(1)),
                    _ => {}
                }
            }
            _ if letter.is_alphanumeric() || letter == '_' => {
                let mut word = String::from(letter);
                while let Some(next) = letters.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                found.push(Word(word));
            }
            _ if letter.is_whitespace() => {}
            _ => found.push(Mark(letter)),
        }
    }
    found
}

/// Reads a string literal after its opening quote.
fn text(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => match letters.next() {
                Some('\n') => while letters.next_if(|next| next.is_whitespace()).is_some() {},
                Some(escaped) => text.push(escaped),
                None => break,
            },
            _ => text.push(letter),
        }
    }
    text
}

struct File {
    path: PathBuf,
    tokens: Vec<Token>,
}

fn sources() -> Vec<File> {
    let mut files = vec![];
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let tokens = tokens(&fs::read_to_string(&path).expect("a source file"));
                files.push(File { path, tokens });
            }
        }
    }
    files
}

/// Returns where the bracket at `open` closes.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Mark('(' | '[' | '{') => depth += 1,
            Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// Returns the arguments of the call whose opening parenthesis is at `open`.
fn arguments(tokens: &[Token], open: usize) -> Vec<&[Token]> {
    let end = closing(tokens, open);
    let (mut found, mut start, mut at) = (vec![], open + 1, open + 1);
    while at < end {
        match tokens[at] {
            Mark('(' | '[' | '{') => at = closing(tokens, at),
            Mark(',') => {
                found.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.push(&tokens[start..end.max(start)]);
    found.retain(|argument| !argument.is_empty());
    found
}

/// Returns the tokens from `at` to the next of `ends` outside of brackets.
fn until<'a>(tokens: &'a [Token], at: usize, ends: &str) -> &'a [Token] {
    let mut end = at;
    while end < tokens.len() && !matches!(tokens[end], Mark(mark) if ends.contains(mark)) {
        end = if matches!(tokens[end], Mark('(' | '[' | '{')) { closing(tokens, end) + 1 } else { end + 1 };
    }
    &tokens[at..end.min(tokens.len())]
}

/// Where names are declared: the file, and the number of the token after the name.
type Declarations = BTreeMap<String, Vec<(usize, usize)>>;

/// The source, with the declarations in it.
struct Sources {
    files: Vec<File>,
    constants: Declarations,
    variables: Declarations,
    functions: Declarations,
}

impl Sources {
    fn read() -> Self {
        let mut read =
            Self { files: sources(), constants: <_>::default(), variables: <_>::default(), functions: <_>::default() };
        for (number, file) in read.files.iter().enumerate() {
            for (at, pair) in file.tokens.windows(2).enumerate() {
                let [Word(keyword), Word(name)] = pair else { continue };
                let declarations = match keyword.as_str() {
                    "const" | "static" => &mut read.constants,
                    "let" => &mut read.variables,
                    "fn" => &mut read.functions,
                    _ => continue,
                };
                declarations.entry(name.clone()).or_default().push((number, at + 2));
            }
        }
        read
    }

    /// Returns the texts of an expression of a file, through the constants, variables and functions in it.
    fn texts(&self, file: usize, expression: &[Token]) -> Vec<String> {
        let mut reader = Reader { sources: self, file, seen: BTreeSet::new(), texts: vec![] };
        reader.read(expression);
        reader.texts
    }
}

struct Reader<'a> {
    sources: &'a Sources,
    file: usize,
    seen: BTreeSet<String>,
    texts: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, expression: &[Token]) {
        let mut at = 0;
        while at < expression.len() {
            let is_method = at > 0 && expression[at - 1].is(".");
            let precedes = |mark| expression.get(at + 1).is_some_and(|next| next.is(mark));
            match &expression[at] {
                // A pattern.
                Text(_) if precedes("|") || precedes("=") => {}
                Text(text) => self.texts.push(text.clone()),
                // A condition, and what is matched.
                Word(word) if ["if", "match"].contains(&word.as_str()) => at += condition(&expression[at..]),
                Word(word) if word == "format" && precedes("!") => {
                    self.read(arguments(expression, at + 2)[0]);
                    at = closing(expression, at + 2);
                }
                Word(word) if is_method && PASSING.contains(&word.as_str()) => {}
                Word(_) if is_method && precedes("(") => at = closing(expression, at + 1),
                Word(word) if precedes("(") && word.starts_with(char::is_lowercase) => {
                    self.declared(&self.sources.functions, word, |tokens, at| {
                        let body = at + until(tokens, at, "{").len();
                        &tokens[body + 1..closing(tokens, body)]
                    });
                    at = closing(expression, at + 1);
                }
                // The fields of a struct.
                Word(word) if precedes("{") && word.starts_with(char::is_uppercase) => {
                    at = closing(expression, at + 1);
                }
                Word(word) if word.chars().all(|letter| letter.is_uppercase() || letter == '_') => {
                    self.declared(&self.sources.constants, word, value);
                }
                Word(word) if NAMES.iter().any(|name| word.contains(name)) => {
                    self.declared(&self.sources.variables, word, value);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads what a name is declared to be: a constant of any file, or a variable or function of this one.
    fn declared(&mut self, declarations: &Declarations, name: &str, part: fn(&[Token], usize) -> &[Token]) {
        if !self.seen.insert(name.to_owned()) {
            return;
        }
        let is_constant = std::ptr::eq(declarations, &self.sources.constants);
        for &(file, at) in declarations.get(name).into_iter().flatten() {
            if is_constant || file == self.file {
                self.read(part(&self.sources.files[file].tokens, at));
            }
        }
    }
}

/// Methods whose arguments may be the text.
const PASSING: &[&str] = &["map", "or", "or_else", "then", "then_some", "unwrap_or", "unwrap_or_else"];
/// Parts of the names of variables that are a step or a hint.
const NAMES: &[&str] = &["advice", "hint", "remed", "step", "what"];

/// Returns the value of a declaration.
fn value(tokens: &[Token], at: usize) -> &[Token] {
    until(tokens, at + until(tokens, at, "=").len() + 1, ";")
}

/// Returns the length of a condition, which a block or an arrow follows.
fn condition(tokens: &[Token]) -> usize {
    let is_arrow = |at: usize| tokens[at].is("=") && tokens.get(at + 1).is_some_and(|next| next.is(">"));
    let mut at = 0;
    while at < tokens.len() && !tokens[at].is("{") && !is_arrow(at) {
        at = if matches!(tokens[at], Mark('(' | '[')) { closing(tokens, at) + 1 } else { at + 1 };
    }
    at
}

/// The functions that create an error, with the number of the argument that is the step, and of that which is the hint.
const ERRORS: &[(&str, Option<usize>, Option<usize>)] = &[
    ("invalid", None, Some(1)),
    ("misconfigured", None, Some(2)),
    ("unsupported", None, Some(2)),
    ("failure", Some(0), Some(2)),
    ("not_set_up", Some(0), Some(2)),
    ("exceeded", Some(0), Some(2)),
    ("skipped", None, Some(2)),
    ("unreadable", None, Some(2)),
    ("set_up", Some(0), Some(3)),
    ("collect", Some(0), Some(4)),
    ("not_executable", None, Some(2)),
    ("not_found", None, Some(2)),
    ("unkillable", None, Some(2)),
    ("systemd", Some(0), Some(3)),
    ("timed_out", Some(0), None),
    ("died", Some(0), None),
    ("io", Some(0), None),
];

/// The verbs with which a step begins.
const STEPS: &str = "\
    add allow attach bind bring call change check close collect compare connect copy create cut deny detach drop duplicate empty \
    enable enforce enter execute find freeze ignore inspect install join keep kill leave limit list listen lock make map \
    mount move open pass probe protect query raise read record register release remount remove report reserve reset resolve \
    restore resume send set start stat tell use wait write";

/// Returns whether a step is an infinitive, as it follows "failed to". One that begins with `{` continues another.
fn is_step(step: &str) -> bool {
    step.starts_with('{') || STEPS.split_whitespace().any(|verb| step.split(' ').next() == Some(verb))
}

/// Returns the steps and the hints in the source, each with its file.
fn messages() -> [BTreeMap<String, PathBuf>; 2] {
    let sources = Sources::read();
    let [mut steps, mut hints] = [BTreeMap::new(), BTreeMap::new()];
    for (number, file) in sources.files.iter().enumerate() {
        let tokens = &file.tokens;
        let texts = |expression| sources.texts(number, expression).into_iter().map(|text| (text, file.path.clone()));
        for at in 1..tokens.len() {
            let Word(name) = &tokens[at] else { continue };
            if tokens[at - 1].is("fn") {
                // Hints by the error number alone.
                if file.path.ends_with("advice/generic.rs") {
                    let body = at + until(tokens, at, "{").len();
                    hints.extend(texts(&tokens[body + 1..closing(tokens, body)]));
                }
                continue;
            }
            if !tokens.get(at + 1).is_some_and(|token| token.is("(")) {
                continue;
            }
            let owner = at.checked_sub(3).filter(|_| tokens[at - 1].is(":")).map(|owner| &tokens[owner]);
            let given = arguments(tokens, at + 1);
            if owner.is_some_and(|owner| owner.is("Error")) {
                let Some((_, step, hint)) = ERRORS.iter().find(|(known, ..)| known == name) else { continue };
                steps.extend(step.and_then(|step| given.get(step)).into_iter().flat_map(|step| texts(step)));
                hints.extend(hint.and_then(|hint| given.get(hint)).into_iter().flat_map(|hint| texts(hint)));
            } else if owner.is_some_and(|owner| owner.is("Step")) && name == "new" {
                steps.extend(texts(given[0]));
            } else if owner.is_some_and(|owner| owner.is("Gap")) && name == "new" {
                hints.extend(texts(given[2]));
            } else if ["remedies", "advised", "advice"].contains(&name.as_str()) && !given.is_empty() {
                hints.extend(texts(given[0]));
            }
        }
    }
    [steps, hints]
}

#[track_caller]
fn assert_all(texts: &BTreeMap<String, PathBuf>, least: usize, is_right: fn(&str) -> bool) {
    assert!(texts.len() > least, "only {} were found", texts.len());
    let wrong = texts.iter().filter(|(text, _)| !is_right(text));
    let wrong: Vec<String> = wrong.map(|(text, path)| format!("{}: {text}", path.display())).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), texts.len(), wrong.join("\n"));
}

#[test]
fn hints_are_instructions() {
    let [_, mut hints] = messages();
    // A part of a hint, or one that begins with a value.
    hints.retain(|hint, _| hint.starts_with(char::is_alphabetic));
    assert_all(&hints, 200, wording::is_instruction);
}

#[test]
fn steps_are_infinitives() {
    let [steps, _] = messages();
    assert_all(&steps, 150, is_step);
}

#[test]
fn what_is_no_instruction_is_found() {
    for right in [
        "remove it, or use a newer kernel",
        "as root, run `true`",
        "if the kernel is old, use a newer one",
        "the list is full: remove an entry",
    ] {
        assert!(wording::is_instruction(right), "{right}");
    }
    for wrong in
        ["", "it is not executable", "the kernel is old: a newer one", "if it is old", "removed in the meantime"]
    {
        assert!(!wording::is_instruction(wrong), "{wrong}");
    }
    assert!(is_step("mount a tmpfs on") && !is_step("the mount of a tmpfs"));
}

/// The messages that a page of the guide quotes, with `…` for what differs: in the columns of its tables that are named so.
fn quoted(page: &str) -> Vec<&str> {
    let (mut column, mut found) = (None, vec![]);
    for line in page.lines() {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        match column {
            _ if !line.starts_with('|') => column = None,
            None => column = cells.position(|name| ["message", "printed"].contains(&name)).or(Some(usize::MAX)),
            Some(column) => {
                let cell = cells.nth(column).unwrap_or_default();
                match cell.strip_prefix("``") {
                    Some(code) => found.push(code.trim_end_matches('`').trim_end()),
                    None => found.extend(cell.split('`').skip(1).step_by(2)),
                }
            }
        }
    }
    found
}

/// The parts of a quoted message that stand in the sources: not the names of calls, and not the words for error numbers.
fn parts(message: &str) -> impl Iterator<Item = &str> {
    let pieces = message.trim_start_matches("failed to ").split('…').flat_map(|piece| piece.split(": "));
    let is_answer =
        |piece: &str| piece.starts_with(char::is_uppercase) && piece.ends_with(')') && piece.contains(" (E");
    pieces.map(str::trim).filter(move |piece| piece.contains(' ') && !is_answer(piece))
}

#[test]
fn messages_of_the_guide_are_those_of_the_sources() {
    let texts: String = sources()
        .into_iter()
        .flat_map(|file| file.tokens)
        .filter_map(|token| if let Text(text) = token { Some(text + "\n") } else { None })
        .collect();
    for (page, least) in [(include_str!("../docs/troubleshooting.md"), 40), (include_str!("../docs/cgroups.md"), 12)] {
        let messages = quoted(page);
        assert!(messages.len() >= least, "{messages:?}");
        for message in messages {
            assert!(parts(message).next().is_some() || message == "killed by …", "nothing of {message:?} is checked");
            for part in parts(message) {
                assert!(texts.contains(part), "{part:?} of {message:?} is in no source");
            }
        }
    }
    assert!(!texts.contains("a message that no source has"), "or this proves nothing");
}
