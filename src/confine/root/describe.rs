//! The root in a few words, for the report of what was enforced.

use std::fmt::{self, Display, Formatter};

use super::{Base, Root};

impl Display for Root {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.base {
            Base::Inherit => f.write_str("the host's")?,
            Base::Empty => f.write_str("an empty one")?,
            Base::Host => f.write_str("the host's, read-only")?,
            Base::Dir(path) => write!(f, "{path}, read-only")?,
        }
        match self.mounts.len() {
            0 => Ok(()),
            1 => f.write_str(", 1 operation"),
            count => write!(f, ", {count} operations"),
        }
    }
}
