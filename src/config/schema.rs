//! The JSON Schema of [`Config`], for editors. It is generated from the types that read a configuration.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::descriptor_source::DescriptorNumber;
use super::keys::{Config, EXAMPLES};
use super::learned_source::LearnedSource;
use super::names::{CapabilityName, NamespaceName};
use super::rlimit_pair::{RlimitPair, SoftAndHard};
use super::root_base::RootBase;
use super::seccomp_source::SeccompSource;
use super::short_text::{Short, Typed};
use crate::capabilities::Capability;
use crate::confine::{Namespaces, Root, StoredPolicy};
use crate::flag_set::FlagSet;
use crate::learn::Learned;
use crate::stored::FormSchema;

/// Returns the schema as JSON.
pub fn schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = false).into_generator();
    let mut schema = generator.into_root_schema_for::<Config>();
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.insert(
            "$schema".into(),
            serde_json::json!({ "type": "string", "description": "The path of this schema, for editors." }),
        );
        properties
            .insert("version".into(), serde_json::json!({ "const": 1, "description": "The version of the format." }));
    }
    schema.into()
}

/// Returns the keys, each with an example as a line of TOML.
pub fn examples() -> &'static [(&'static str, &'static str)] {
    EXAMPLES
}

/// A value that a text or another schema describes.
fn text_or(names: &[&str], other: Schema) -> Schema {
    json_schema!({ "anyOf": [{ "type": "string", "examples": names }, other] })
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
        json_schema!({ "anyOf": [{ "type": ["integer", "string"], "minimum": 0 }, both] })
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
