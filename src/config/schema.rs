//! The JSON Schema of [`Config`], for editors. It is generated from the types that read a configuration.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::descriptor_source::DescriptorNumber;
use super::keys::{Config, EXAMPLES};
use super::learned_source::LearnedSource;
use super::named_choices::{CapabilityName, NamespaceName};
use super::reading::NOT_EMPTY;
use super::rlimit_pair::{RlimitPair, SoftAndHard};
use super::root_base::RootBase;
use super::seccomp_source::SeccompSource;
use super::short_text::{Short, Typed};
use crate::capabilities::Capability;
use crate::confine::{Namespaces, Root, StoredPolicy};
use crate::flag_set::FlagSet;
use crate::learn::Learned;
use crate::stored::{Amount, FormSchema};

/// Returns the schema as JSON.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<Config>());
    schema["title"] = "Configuration of a sandbox (stockade)".into();
    schema["properties"]["$schema"] =
        json!({ "type": "string", "description": "The path of this schema, for editors." });
    schema["properties"]["version"] = json!({ "const": 1, "description": "The version of the format." });
    schema["properties"].as_object_mut().into_iter().flatten().for_each(|(_, key)| without_null(key));
    for key in NOT_EMPTY {
        schema["properties"][key]["minItems"] = 1.into();
    }
    shorten(&mut schema);
    schema
}

/// Removes the null of a key that may be absent: a configuration does not take it.
fn without_null(key: &mut Value) {
    let Some(schema) = key.as_object_mut() else { return };
    schema.remove("default");
    if let Some(names) = schema.get_mut("type").and_then(Value::as_array_mut) {
        names.retain(|name| name != "null");
    }
    if let Some(alternatives) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        alternatives.retain(|one| one["type"] != "null");
    }
}

/// Keeps the first paragraph of each description, without the links of rustdoc.
fn shorten(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(description)) = object.get_mut("description") {
                let paragraph = description.split("\n\n").next().unwrap_or_default().replace('\n', " ");
                *description = without_links(&paragraph);
            }
            object.iter_mut().for_each(|(_, inner)| shorten(inner));
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

/// Writes `[text](target)` as `text`, and `[text]` alone too.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    for part in text.replace("[`", "`").split("`]") {
        match part.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, rest)) => plain.push_str(rest),
            None => plain.push_str(part),
        }
        plain.push('`');
    }
    plain.pop();
    plain
}

/// Returns the keys, each with an example as a line of TOML.
pub fn examples() -> &'static [(&'static str, &'static str)] {
    EXAMPLES
}

/// A value that a text or another schema describes.
fn text_or(names: &[&str], other: Schema) -> Schema {
    let text =
        if names.is_empty() { json!({ "type": "string" }) } else { json!({ "type": "string", "examples": names }) };
    json_schema!({ "anyOf": [text, other] })
}

impl<T: JsonSchema> FormSchema for Typed<T> {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> FormSchema for Short<T> {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        text_or(&[], generator.subschema_for::<T>())
    }
}

impl FormSchema for RootBase {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        text_or(&Self::NAMES, Root::base_schema(generator))
    }
}

impl FormSchema for RlimitPair {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        let both = generator.subschema_for::<SoftAndHard>();
        json_schema!({ "anyOf": [Amount::form_schema(generator), both] })
    }
}

impl FormSchema for CapabilityName {
    fn form_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": Capability::names().as_slice() })
    }
}

impl FormSchema for NamespaceName {
    fn form_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<String> = Namespaces::NAMED.iter().map(|(name, _)| name.to_lowercase()).collect();
        json_schema!({ "enum": names })
    }
}

impl FormSchema for DescriptorNumber {
    fn form_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A source that is a text, or a table with the schema of another type.
macro_rules! source_schema {
    ($($source:ty: $table:ty, $names:expr;)+) => {
        $(impl JsonSchema for $source {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($source).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                text_or(&$names, generator.subschema_for::<$table>())
            }
        })+
    };
}
source_schema! {
    SeccompSource: StoredPolicy, SeccompSource::NAMES;
    LearnedSource: Learned, ["learned.json"];
}
