//! Deserialization from a tree with lines: every error gets the line and the keys that lead to it.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::document::{Content, LocatedKey, LocatedValue};
use super::mistake::Mistake;

impl LocatedValue {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.content {
            Content::Null => Unexpected::Unit,
            Content::Bool(value) => Unexpected::Bool(*value),
            Content::Unsigned(number) => Unexpected::Unsigned(*number),
            Content::Signed(number) => Unexpected::Signed(*number),
            Content::Float(number) => Unexpected::Float(*number),
            Content::Text(text) => Unexpected::Str(text),
            Content::Date(_) => Unexpected::Other("a date"),
            Content::List(_) => Unexpected::Seq,
            Content::Table(_) => Unexpected::Map,
        }
    }

    fn visit<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.content {
            Content::Null => visitor.visit_unit(),
            Content::Bool(value) => visitor.visit_bool(*value),
            Content::Unsigned(number) => visitor.visit_u64(*number),
            Content::Signed(number) => visitor.visit_i64(*number),
            Content::Float(number) => visitor.visit_f64(*number),
            Content::Text(text) => visitor.visit_borrowed_str(text),
            Content::Date(_) => Err(Mistake::invalid_type(self.unexpected(), &visitor)),
            Content::List(items) => visitor.visit_seq(Items { items: items.iter(), position: 0 }),
            Content::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
    }
}

impl<'de> Deserializer<'de> for &'de LocatedValue {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.visit(visitor).map_err(|mistake| mistake.at(self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.content {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    /// Takes a table alone. Derived code would read a list as the fields in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.content {
            Content::Table(_) => self.deserialize_any(visitor),
            _ => Err(Mistake::invalid_type(self.unexpected(), &visitor).at(self.line)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let result = match &self.content {
            Content::Text(name) => visitor.visit_enum(Choice { name, value: None }),
            Content::Table(entries) => match entries.as_slice() {
                [(key, value)] => {
                    visitor.visit_enum(Choice { name: &key.name, value: Some(value) }).map_err(|mistake| {
                        if mistake.line.is_some() { mistake.within(&key.name) } else { mistake.at(key.line) }
                    })
                }
                _ => Err(Mistake::new(format!("expected a table with one key, found {} keys", entries.len()))),
            },
            _ => Err(Mistake::invalid_type(self.unexpected(), &visitor)),
        };
        result.map_err(|mistake| mistake.at(self.line))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The items of a list.
struct Items<'de> {
    items: std::slice::Iter<'de, LocatedValue>,
    position: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some(item) = self.items.next() else { return Ok(None) };
        self.position += 1;
        let value = seed.deserialize(item).map_err(|mistake| mistake.at(item.line).in_item(self.position - 1))?;
        Ok(Some(value))
    }
}

/// The entries of a table.
struct Entries<'de> {
    entries: std::slice::Iter<'de, (LocatedKey, LocatedValue)>,
    value: Option<&'de (LocatedKey, LocatedValue)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        let name: StrDeserializer<'de, Mistake> = key.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|mistake| mistake.at(key.line))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mistake> {
        let Some((key, value)) = self.value.take() else { return Err(Mistake::new("a key has no value")) };
        seed.deserialize(value).map_err(|mistake| mistake.at(value.line).within(&key.name))
    }
}

/// A variant of an enumeration: a name, or a table with one key.
struct Choice<'de> {
    name: &'de str,
    value: Option<&'de LocatedValue>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Mistake> {
        let name: StrDeserializer<'de, Mistake> = self.name.into_deserializer();
        seed.deserialize(name).map(|variant| (variant, self))
    }
}

impl<'de> Choice<'de> {
    fn value(&self) -> Result<&'de LocatedValue, Mistake> {
        self.value.ok_or_else(|| Mistake::new(format!("`{}` takes a value: expected a table with that key", self.name)))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match self.value {
            None => Ok(()),
            Some(value) => {
                Err(Mistake::new(format!("{:?} takes no value: write it as text", self.name)).at(value.line))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mistake> {
        seed.deserialize(self.value()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.value()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, keys: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        self.value()?.deserialize_struct("", keys, visitor)
    }
}
