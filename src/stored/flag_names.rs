//! Sets of flags as lists of names.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

use super::Form;
use crate::flag_set::FlagSet;

/// A list of names in lower case, such as `["user", "mount"]`.
pub(crate) struct FlagNames;

impl<T: FlagSet> Form<T> for FlagNames {
    fn serialize<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<String> = value.flag_names().map(str::to_lowercase).collect();
        serializer.collect_seq(names)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let flag = |name: String| {
            let known = T::NAMED.iter().find(|(known, _)| known.to_lowercase() == name);
            known.map(|(_, flag)| *flag).ok_or_else(|| {
                let names: Vec<String> = T::NAMED.iter().map(|(known, _)| known.to_lowercase()).collect();
                D::Error::custom(format!("unknown name {name:?}, expected one of {}", names.join(", ")))
            })
        };
        Vec::<String>::deserialize(deserializer)?.into_iter().map(flag).collect()
    }
}
