//! An example in TOML, as JSON.

use serde_json::{Map, Value};

use super::document::{ConfigFormat, Content, LocatedValue};

/// Returns a line of TOML as a key and value of JSON.
pub(super) fn json_example(line: &str) -> String {
    let shown = match LocatedValue::parse(line, ConfigFormat::Toml).as_ref().map(value) {
        Ok(value) => value.to_string(),
        Err(_) => line.to_owned(),
    };
    shown.trim_start_matches('{').strip_suffix('}').unwrap_or(&shown).to_owned()
}

fn value(located: &LocatedValue) -> Value {
    match &located.content {
        Content::Null => Value::Null,
        Content::Bool(boolean) => (*boolean).into(),
        Content::Unsigned(number) => (*number).into(),
        Content::Signed(number) => (*number).into(),
        Content::Float(number) => (*number).into(),
        Content::Text(text) | Content::Date(text) => text.as_str().into(),
        Content::List(items) => items.iter().map(value).collect(),
        Content::Table(entries) => {
            Value::Object(entries.iter().map(|(key, item)| (key.name.clone(), value(item))).collect::<Map<_, _>>())
        }
    }
}
