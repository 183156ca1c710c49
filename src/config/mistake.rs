//! What is wrong in a configuration, and where: the error of the parsers and of serde, until it is an
//! [`Error`](crate::Error).

use std::fmt::{self, Display, Formatter};

use serde::de::{Expected, Unexpected};

use super::nearest::nearest;

/// What is wrong at a place of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    pub line: Option<usize>,
    /// The keys and positions that lead there, the innermost first.
    way: Vec<String>,
    cause: String,
    hint: Option<String>,
    /// The key that no table has, where that is what is wrong.
    pub unknown: Option<String>,
}

impl Mistake {
    pub fn new(cause: impl Into<String>) -> Self {
        Self { line: None, way: vec![], cause: cause.into(), hint: None, unknown: None }
    }

    /// Sets the line, unless it is known more exactly.
    pub fn at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }

    /// Adds the key of the table that it is in.
    pub fn within(mut self, key: &str) -> Self {
        self.way.push(key.to_owned());
        self
    }

    /// Adds the position in the list that it is in, from 0.
    pub fn in_item(mut self, position: usize) -> Self {
        self.way.push(format!("[{position}]"));
        self
    }

    /// Sets what to do.
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the outermost key.
    pub fn outermost(&self) -> Option<&str> {
        self.way.last().map(String::as_str)
    }

    /// Returns whether it is in a table or list of the file, and not at its top.
    pub fn is_nested(&self) -> bool {
        !self.way.is_empty()
    }

    /// The keys that lead there: `rw[1].owner`.
    fn place(&self) -> String {
        let mut place = String::new();
        for part in self.way.iter().rev() {
            if !place.is_empty() && !part.starts_with('[') {
                place.push('.');
            }
            place.push_str(part);
        }
        place
    }
}

/// Writes where it is and what is wrong, without what to do.
impl Display for Mistake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if self.is_nested() {
            write!(f, "`{}`: ", self.place())?;
        }
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Mistake {}

/// What was found, in the words of a person who writes a file.
fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value:?}"),
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Unit => "null".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a table".into(),
        Unexpected::Other(what) => what.into(),
        other => other.to_string(),
    }
}

/// What is accepted, in the same words. Types of the crate say it themselves.
fn accepted(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a boolean" => "true or false".into(),
        "a string" => "text in quotes".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" => {
            let bits: u32 = expected.trim_start_matches(|letter| !char::is_ascii_digit(&letter)).parse().unwrap_or(64);
            format!("a whole number from 0 to {}", if bits < 64 { (1u64 << bits) - 1 } else { u64::MAX })
        }
        "i32" | "i64" => "a whole number".into(),
        "f64" => "a number".into(),
        name if name.starts_with("struct ") => "a table".into(),
        name if name == "enum" || name.starts_with("enum ") || name.starts_with("variant ") => {
            "a name or a table".into()
        }
        _ => expected,
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What to use instead of an unknown name.
fn instead(name: &str, known: &[&str]) -> Option<String> {
    /// More are not read.
    const LISTED: usize = 24;
    match nearest(name, known.iter().copied()) {
        Some(nearest) => Some(format!("use `{nearest}`")),
        None if known.is_empty() => Some("remove it".into()),
        None if known.len() <= LISTED => Some(format!("use one of {}", listed(known))),
        None => None,
    }
}

impl serde::de::Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {}", accepted(expected), found(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {length} items", accepted(expected)))
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        let mistake = Self::new(format!("unknown name {name:?}"));
        instead(name, known).into_iter().fold(mistake, Self::hinted)
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let mut mistake = Self::new(format!("unknown key `{}`", name.escape_debug()));
        mistake.unknown = Some(name.to_owned());
        instead(name, known).into_iter().fold(mistake, Self::hinted)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(format!("the key `{name}` is missing")).hinted(format!("add `{name}`"))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new(format!("the key `{name}` is given twice")).hinted("remove one")
    }
}
