//! A text in TOML or JSON as one tree, in which each key and each value has its line. What the keys mean does not belong
//! here.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::value::RawValue;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mistake::Mistake;

/// The syntax of a configuration.
///
/// ```
/// use stockade::config::ConfigFormat;
///
/// assert_eq!(ConfigFormat::of("sandbox.json"), ConfigFormat::Json);
/// assert_eq!(ConfigFormat::of("sandbox.toml"), ConfigFormat::Toml);
/// assert_eq!(ConfigFormat::of("sandbox"), ConfigFormat::Toml);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigFormat {
    /// TOML 1.1.
    Toml,
    /// JSON.
    Json,
}

impl ConfigFormat {
    /// Returns the syntax of a file by its name: JSON if it ends in `.json`, else TOML.
    pub fn of(path: impl AsRef<Path>) -> Self {
        let is_json = path.as_ref().extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json { Self::Json } else { Self::Toml }
    }
}

/// A value with the line that it is on.
#[derive(Debug)]
pub(super) struct LocatedValue {
    pub line: usize,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Date(String),
    List(Vec<LocatedValue>),
    Table(Vec<(LocatedKey, LocatedValue)>),
}

/// A key with the line that it is on.
#[derive(Debug)]
pub(super) struct LocatedKey {
    pub line: usize,
    pub name: String,
}

/// The most bytes of a configuration.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// The most tables and lists within each other.
const MAX_DEPTH: usize = 64;

impl LocatedValue {
    pub fn parse(text: &str, format: ConfigFormat) -> Result<Self, Mistake> {
        if text.len() > MAX_BYTES {
            return Err(Mistake::new(format!("the text is longer than {} MiB", MAX_BYTES >> 20)));
        }
        match format {
            ConfigFormat::Toml => of_toml(text),
            // A byte order mark, which TOML allows.
            ConfigFormat::Json => of_json(text.strip_prefix('\u{feff}').unwrap_or(text)),
        }
    }
}

/// The bytes at which lines end.
struct LineEnds(Vec<usize>);

impl LineEnds {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// Returns the number of the line at a byte, from 1.
    fn line_at(&self, byte: usize) -> usize {
        self.0.partition_point(|end| *end < byte) + 1
    }
}

fn of_toml(text: &str) -> Result<LocatedValue, Mistake> {
    let lines = LineEnds::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        let mistake = Mistake::new(format!("it is not TOML: {message}"));
        error.span().map_or(mistake.clone(), |span| mistake.at(lines.line_at(span.start)))
    })?;
    Ok(LocatedValue { line: 1, content: toml_table(&lines, table.into_inner()) })
}

fn toml_table(lines: &LineEnds, table: DeTable<'_>) -> Content {
    let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
        let line = lines.line_at(key.span().start);
        let key = LocatedKey { line, name: key.into_inner().into_owned() };
        (key, toml_value(lines, value))
    };
    Content::Table(table.into_iter().map(entry).collect())
}

fn toml_value(lines: &LineEnds, value: Spanned<DeValue<'_>>) -> LocatedValue {
    let line = lines.line_at(value.span().start);
    let content = match value.into_inner() {
        DeValue::String(string) => Content::Text(string.into_owned()),
        DeValue::Boolean(boolean) => Content::Bool(boolean),
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            match (u64::from_str_radix(digits, radix), i64::from_str_radix(digits, radix)) {
                (Ok(number), _) => Content::Unsigned(number),
                (_, Ok(number)) => Content::Signed(number),
                // Larger than any number that a key takes.
                _ => Content::Float(digits.parse().unwrap_or(f64::INFINITY)),
            }
        }
        DeValue::Float(number) => Content::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(date) => Content::Date(date.to_string()),
        DeValue::Array(array) => Content::List(array.into_iter().map(|item| toml_value(lines, item)).collect()),
        DeValue::Table(table) => toml_table(lines, table),
    };
    LocatedValue { line, content }
}

fn of_json(text: &str) -> Result<LocatedValue, Mistake> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error, 1))?;
    JsonReader { text, lines: LineEnds::of(text) }.value(raw, 0)
}

fn not_json(error: &serde_json::Error, first: usize) -> Mistake {
    let message = error.to_string();
    // The position, which the mistake has.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(before, _)| before);
    Mistake::new(format!("it is not JSON: {message}")).at(first + error.line().saturating_sub(1))
}

/// Reads the parts of a JSON text, each of which is a slice of it.
struct JsonReader<'a> {
    text: &'a str,
    lines: LineEnds,
}

impl<'a> JsonReader<'a> {
    fn line(&self, part: &RawValue) -> usize {
        self.lines.line_at((part.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }

    fn read<T: serde::Deserialize<'a>>(&self, part: &'a RawValue) -> Result<T, Mistake> {
        serde_json::from_str(part.get()).map_err(|error| not_json(&error, self.line(part)))
    }

    fn value(&self, part: &'a RawValue, depth: usize) -> Result<LocatedValue, Mistake> {
        let line = self.line(part);
        if depth > MAX_DEPTH {
            return Err(
                Mistake::new(format!("there are more than {MAX_DEPTH} tables and lists within each other")).at(line)
            );
        }
        let content = match part.get().as_bytes().first() {
            Some(b'{') => self.table(part, depth)?,
            Some(b'[') => {
                let items: Vec<&RawValue> = self.read(part)?;
                Content::List(items.into_iter().map(|item| self.value(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Content::Text(self.read(part)?),
            Some(b't' | b'f') => Content::Bool(self.read(part)?),
            Some(b'n') => Content::Null,
            _ => {
                let number: serde_json::Number = self.read(part)?;
                match (number.as_u64(), number.as_i64()) {
                    (Some(number), _) => Content::Unsigned(number),
                    (_, Some(number)) => Content::Signed(number),
                    _ => Content::Float(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
        };
        Ok(LocatedValue { line, content })
    }

    fn table(&self, part: &'a RawValue, depth: usize) -> Result<Content, Mistake> {
        let JsonEntries(parts) = self.read(part)?;
        let (mut entries, mut names) = (Vec::with_capacity(parts.len()), BTreeSet::new());
        for (key, value) in parts {
            let key = LocatedKey { line: self.line(key), name: self.read(key)? };
            if !names.insert(key.name.clone()) {
                return Err(Mistake::new(format!("the key `{}` is given twice", key.name))
                    .at(key.line)
                    .hinted("remove one"));
            }
            let value = self.value(value, depth + 1).map_err(|mistake| mistake.within(&key.name))?;
            entries.push((key, value));
        }
        Ok(Content::Table(entries))
    }
}

/// The keys and values of a JSON object, in their order and with duplicates.
struct JsonEntries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for JsonEntries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Entries<'a> {
            type Value = JsonEntries<'a>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = vec![];
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(JsonEntries(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}
