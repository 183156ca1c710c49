//! Open descriptors in a configuration. They cannot be stored.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An open descriptor as part of a configuration: copies of the configuration share it.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor(pub Arc<OwnedFd>);

impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Descriptor {}

/// A descriptor number has no meaning in another process, so a configuration with one cannot be serialised.
#[cfg(feature = "serde")]
mod form {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Descriptor;

    const NONE: &str =
        "an open descriptor cannot be serialised: remove it, and add it again after the rest was deserialised";

    impl Serialize for Descriptor {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom(NONE))
        }
    }

    impl<'de> Deserialize<'de> for Descriptor {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom(NONE))
        }
    }
}
