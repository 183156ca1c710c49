//! The JSON Schema of the forms: that of a field follows from the form that it names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::quantity::{SIZES, TIMES};
use super::{Amount, As, Bytes, BytesOrUnlimited, Count, Escaped, Finite, Octal, Plain, Read, Seconds, Version};

/// The schema of the values of a form.
pub(crate) trait FormSchema {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema;
}

/// The schema of the values of a type in a form.
pub(crate) trait TypedSchema<T> {
    fn typed_schema(generator: &mut SchemaGenerator) -> Schema;
}

impl<T, F: FormSchema> TypedSchema<T> for F {
    fn typed_schema(generator: &mut SchemaGenerator) -> Schema {
        F::form_schema(generator)
    }
}

impl<T: JsonSchema> TypedSchema<T> for Plain {
    fn typed_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T, F: TypedSchema<T>> JsonSchema for Read<T, F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<Self>().into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        F::typed_schema(generator)
    }
}

impl<const N: u32> JsonSchema for Version<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Version{N}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": N })
    }
}

impl<F: FormSchema> JsonSchema for As<F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<F>().into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        F::form_schema(generator)
    }
}

/// An absent key is `None`, so the value itself has the schema of the form.
impl<F: FormSchema> FormSchema for Option<F> {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        F::form_schema(generator)
    }
}

impl<F: FormSchema> FormSchema for Vec<F> {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": F::form_schema(generator) })
    }
}

impl<K, F: FormSchema> FormSchema for BTreeMap<K, F> {
    fn form_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": F::form_schema(generator) })
    }
}

/// The regular expression of a number with a unit. It accepts each text that is read, and refuses other units.
fn number_with(units: &[(&str, u128)]) -> String {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    format!(r"[0-9]+(\.[0-9]+)? *({})", names.join("|"))
}

/// The regular expression of a size, or of one of other texts.
fn size_or(others: &str) -> String {
    format!("^({}{others})$", number_with(SIZES))
}

macro_rules! form_schemas {
    ($($form:ty: $schema:tt),+ $(,)?) => {
        $(impl FormSchema for $form {
            fn form_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })+
    };
}
form_schemas! {
    Escaped: { "type": "string" },
    Bytes: {
        "type": ["integer", "string"], "minimum": 0, "pattern": size_or(""), "examples": ["256MiB", "1.5G", 4096]
    },
    BytesOrUnlimited: {
        "type": ["integer", "string"], "minimum": 0, "pattern": size_or("|unlimited"),
        "examples": ["256MiB", "unlimited"]
    },
    Amount: {
        "type": ["integer", "string"], "minimum": 0, "pattern": size_or("|unlimited"),
        "examples": [256, "8MiB", "unlimited"]
    },
    Count: {
        "type": ["integer", "string"], "minimum": 0, "pattern": format!("^(0x[0-9a-fA-F]+|{})$", number_with(&[("", 1)])),
        "examples": [64, "0x1f"]
    },
    Seconds: {
        "type": ["number", "string"], "minimum": 0, "pattern": format!("^({})+$", number_with(TIMES)),
        "examples": ["10s", "500ms", "1m30s"]
    },
    Octal: { "type": "string", "pattern": "^(0o)?[0-7]+$", "examples": ["0644"] },
    Finite: { "type": "number" },
}
