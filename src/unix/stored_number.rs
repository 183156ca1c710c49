//! The stored form of a number that has a name: the name where people read it, the number elsewhere.

use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// A number of the kernel that manual pages name.
pub(crate) trait NamedNumber: Sized {
    /// What is read, for errors.
    const EXPECTED: &'static str;
    /// What a number is that is out of range, for errors.
    const OUT_OF_RANGE: &'static str;

    fn name(&self) -> Option<&'static str>;
    fn number(&self) -> i32;
    fn from_number(number: i32) -> Self;
    /// Returns the message of an error for an unknown name.
    fn from_name(name: &str) -> Result<Self, String>;
}

pub(crate) fn serialize<T: NamedNumber, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    match value.name().filter(|_| serializer.is_human_readable()) {
        Some(name) => serializer.serialize_str(name),
        None => serializer.serialize_i32(value.number()),
    }
}

pub(crate) fn deserialize<'de, T: NamedNumber, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(NameOrNumber(PhantomData))
    } else {
        i32::deserialize(deserializer).map(T::from_number)
    }
}

struct NameOrNumber<T>(PhantomData<T>);

impl<T: NamedNumber> NameOrNumber<T> {
    fn number<N: Copy + fmt::Display + TryInto<i32>, E: Error>(number: N) -> Result<T, E> {
        let known = number.try_into().map(T::from_number);
        known.map_err(|_| E::custom(format!("{number} {}", T::OUT_OF_RANGE)))
    }
}

impl<T: NamedNumber> Visitor<'_> for NameOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        T::from_name(name).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Self::number(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Self::number(number)
    }
}
