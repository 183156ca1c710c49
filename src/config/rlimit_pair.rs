//! The soft and the hard limit of a resource: one value for both, or a table.

use std::fmt::{self, Formatter};

use serde::de::value::{MapAccessDeserializer, StrDeserializer, U64Deserializer};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::stored::{Amount, As, Form};

/// A limit of setrlimit(2) that is both the soft and the hard one, or a table of both.
pub(super) struct RlimitPair;

#[derive(serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct SoftAndHard {
    #[serde(with = "As::<Amount>")]
    soft: u64,
    #[serde(with = "As::<Amount>")]
    hard: u64,
}

struct OneOrBoth;

impl<'de> Visitor<'de> for OneOrBoth {
    type Value = (u64, u64);

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a limit: a number, a size such as \"8MiB\", \"unlimited\", or a table such as { soft = 64, hard = 256 }",
        )
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(u64, u64), E> {
        let number: U64Deserializer<E> = number.into_deserializer();
        Amount::deserialize(number).map(|both| (both, both))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(u64, u64), E> {
        let text: StrDeserializer<'_, E> = text.into_deserializer();
        Amount::deserialize(text).map(|both| (both, both))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(u64, u64), M::Error> {
        SoftAndHard::deserialize(MapAccessDeserializer::new(map)).map(|SoftAndHard { soft, hard }| (soft, hard))
    }
}

impl Form<(u64, u64)> for RlimitPair {
    fn serialize<S: Serializer>(&(soft, hard): &(u64, u64), serializer: S) -> Result<S::Ok, S::Error> {
        SoftAndHard { soft, hard }.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u64, u64), D::Error> {
        deserializer.deserialize_any(OneOrBoth)
    }
}
