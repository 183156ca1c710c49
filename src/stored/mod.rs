//! The stored form of values (feature `serde`): how configurations, policies and outcomes are written as JSON, TOML or
//! any other format, and read back exactly. What a value means does not belong here.
//!
//! Fields name their form: `#[serde(with = "As::<Option<Bytes>>")]`. A format that people read gets text and numbers
//! that they would write themselves; a compact one, which does not describe its data, gets the plain value.

#[cfg(feature = "serde")]
mod escaped;
#[cfg(feature = "serde")]
mod flag_names;
#[cfg(feature = "_schema")]
mod form_schema;
#[cfg(feature = "serde")]
mod quantity;
mod version;

#[cfg(feature = "serde")]
pub(crate) use escaped::Escaped;
#[cfg(feature = "serde")]
pub(crate) use flag_names::FlagNames;
#[cfg(feature = "serde")]
pub(crate) use form::{As, Form, Plain, Read, Written, as_form, at_most_one, table_form, table_schema};
#[cfg(feature = "_schema")]
pub(crate) use form_schema::FormSchema;
#[cfg(feature = "serde")]
pub(crate) use quantity::{Amount, Bytes, BytesOrUnlimited, Count, Figure, Finite, Octal, Seconds};
pub(crate) use version::Version;

#[cfg(feature = "serde")]
mod form {
    use std::collections::BTreeMap;
    use std::marker::PhantomData;

    use serde::de::{DeserializeOwned, Deserializer};
    use serde::ser::{Serialize, Serializer};

    /// A form in which a value is stored.
    pub(crate) trait Form<T> {
        fn serialize<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error>;

        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>;
    }

    /// Stores a field in a form: for the attribute `#[serde(with = "As::<…>")]`.
    pub(crate) struct As<F>(PhantomData<F>);

    impl<F> As<F> {
        pub fn serialize<T, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
        where
            F: Form<T>,
        {
            F::serialize(value, serializer)
        }

        pub fn deserialize<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>
        where
            F: Form<T>,
        {
            F::deserialize(deserializer)
        }
    }

    /// A value to be written in a form.
    pub(crate) struct Written<'a, T, F>(&'a T, PhantomData<F>);

    impl<'a, T, F> Written<'a, T, F> {
        pub fn new(value: &'a T) -> Self {
            Self(value, PhantomData)
        }
    }

    impl<T, F: Form<T>> Serialize for Written<'_, T, F> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            F::serialize(self.0, serializer)
        }
    }

    fn written<T, F: Form<T>>(value: &T) -> Written<'_, T, F> {
        Written::new(value)
    }

    /// A value that was read in a form.
    pub(crate) struct Read<T, F>(pub T, PhantomData<F>);

    impl<T, F> Read<T, F> {
        pub fn new(value: T) -> Self {
            Self(value, PhantomData)
        }
    }

    impl<'de, T, F: Form<T>> serde::Deserialize<'de> for Read<T, F> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            F::deserialize(deserializer).map(|value| Self(value, PhantomData))
        }
    }

    /// The form that serde gives a type.
    pub(crate) struct Plain;

    impl<T: Serialize + DeserializeOwned> Form<T> for Plain {
        fn serialize<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
            value.serialize(serializer)
        }

        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
            T::deserialize(deserializer)
        }
    }

    impl<T, F: Form<T>> Form<Option<T>> for Option<F> {
        fn serialize<S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
            value.as_ref().map(written::<T, F>).serialize(serializer)
        }

        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
            let read = <Option<Read<T, F>> as serde::Deserialize>::deserialize(deserializer)?;
            Ok(read.map(|read| read.0))
        }
    }

    impl<T, F: Form<T>> Form<Vec<T>> for Vec<F> {
        fn serialize<S: Serializer>(value: &Vec<T>, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(value.iter().map(written::<T, F>))
        }

        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
            let read = <Vec<Read<T, F>> as serde::Deserialize>::deserialize(deserializer)?;
            Ok(read.into_iter().map(|read| read.0).collect())
        }
    }

    impl<T, F: Form<T>> Form<[T; 6]> for [F; 6] {
        fn serialize<S: Serializer>(value: &[T; 6], serializer: S) -> Result<S::Ok, S::Error> {
            value.each_ref().map(written::<T, F>).serialize(serializer)
        }

        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[T; 6], D::Error> {
            let read = <[Read<T, F>; 6] as serde::Deserialize>::deserialize(deserializer)?;
            Ok(read.map(|read| read.0))
        }
    }

    /// Defines the form of a tuple: a table with a key for each element.
    ///
    /// `table_form!(RlimitTable { resource: Resource as Plain, soft: u64 as Amount })`. Attributes of serde apply to
    /// reading.
    macro_rules! table_form {
        ($(#[doc = $doc:literal])* $name:ident { $($(#[$attribute:meta])* $key:ident: $type:ty as $form:ty),+ $(,)? }) => {
            $(#[doc = $doc])*
            struct $name;

            $crate::stored::table_schema!($name { $($(#[$attribute])* $key: $type as $form),+ });

            impl $crate::stored::Form<($($type),+)> for $name {
                fn serialize<S: serde::Serializer>(
                    ($($key),+): &($($type),+),
                    serializer: S,
                ) -> std::result::Result<S::Ok, S::Error> {
                    #[derive(serde::Serialize)]
                    struct Table<'a> {
                        $($key: $crate::stored::Written<'a, $type, $form>,)+
                    }
                    let table = Table { $($key: $crate::stored::Written::new($key)),+ };
                    serde::Serialize::serialize(&table, serializer)
                }

                fn deserialize<'de, D: serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> std::result::Result<($($type),+), D::Error> {
                    #[derive(serde::Deserialize)]
                    #[serde(deny_unknown_fields)]
                    struct Table {
                        $($(#[$attribute])* $key: $crate::stored::Read<$type, $form>,)+
                    }
                    let table = <Table as serde::Deserialize>::deserialize(deserializer)?;
                    Ok(($(table.$key.0),+))
                }
            }
        };
    }
    pub(crate) use table_form;

    /// The JSON Schema of the table: that of a struct with these fields.
    #[cfg(feature = "_schema")]
    macro_rules! table_schema {
        ($name:ident { $($(#[$attribute:meta])* $key:ident: $type:ty as $form:ty),+ }) => {
            const _: () = {
                #[derive(schemars::JsonSchema)]
                #[serde(deny_unknown_fields)]
                #[allow(dead_code, reason = "it has the schema alone")]
                struct Table {
                    $($(#[$attribute])* $key: $crate::stored::Read<$type, $form>,)+
                }

                impl $crate::stored::FormSchema for $name {
                    fn form_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                        <Table as schemars::JsonSchema>::json_schema(generator)
                    }
                }
            };
        };
    }
    #[cfg(not(feature = "_schema"))]
    macro_rules! table_schema {
        ($($of:tt)*) => {};
    }
    pub(crate) use table_schema;

    /// Returns an error if more than one of these keys is present: those of methods of which the last call counts.
    pub(crate) fn at_most_one(keys: &[(&str, bool)]) -> Result<(), String> {
        let present: Vec<&str> = keys.iter().filter(|(_, is_present)| *is_present).map(|(key, _)| *key).collect();
        match present.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("the keys {} exclude each other: keep one", present.join(" and "))),
        }
    }

    impl<K: Ord, V, FK: Form<K>, FV: Form<V>> Form<BTreeMap<K, V>> for BTreeMap<FK, FV> {
        fn serialize<S: Serializer>(value: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(value.iter().map(|(key, value)| (written::<K, FK>(key), written::<V, FV>(value))))
        }

        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error> {
            struct Entries<K, V, FK, FV>(PhantomData<(K, V, FK, FV)>);

            impl<'de, K: Ord, V, FK: Form<K>, FV: Form<V>> serde::de::Visitor<'de> for Entries<K, V, FK, FV> {
                type Value = BTreeMap<K, V>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map")
                }

                fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                    let mut entries = BTreeMap::new();
                    while let Some((key, value)) = map.next_entry::<Read<K, FK>, Read<V, FV>>()? {
                        if entries.insert(key.0, value.0).is_some() {
                            return Err(serde::de::Error::custom("a key is given twice: remove one"));
                        }
                    }
                    Ok(entries)
                }
            }
            deserializer.deserialize_map(Entries(PhantomData::<(K, V, FK, FV)>))
        }
    }

    /// Gives a type the form that another marker names.
    macro_rules! as_form {
        ($type:ty, $form:ty) => {
            impl serde::Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    <$form as $crate::stored::Form<Self>>::serialize(self, serializer)
                }
            }

            impl<'de> serde::Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    <$form as $crate::stored::Form<Self>>::deserialize(deserializer)
                }
            }
        };
    }
    pub(crate) use as_form;
}
