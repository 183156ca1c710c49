//! The version of a stored form.

/// The version of a form that is stored by itself: a field, so that it stands beside the others in every format.
///
/// It is always written. Where it is absent the version is 1. Another version than `N` is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Version<const N: u32>;

#[cfg(feature = "serde")]
impl<const N: u32> serde::Serialize for Version<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(N)
    }
}

#[cfg(feature = "serde")]
impl<'de, const N: u32> serde::Deserialize<'de> for Version<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            version if version == N => Ok(Self),
            other => Err(serde::de::Error::custom(format!(
                "version {other} of the stored form is unknown: this version of the crate reads version {N}"
            ))),
        }
    }
}
