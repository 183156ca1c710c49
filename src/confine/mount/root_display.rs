//! A summary of the root, for the report of what was enforced.

use std::fmt::{self, Display, Formatter};

use super::root::{Base, Root};

/// Formats a summary, as `the host's, read-only, 2 operations`.
impl Display for Root {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.base {
            Base::Inherit => f.write_str("the caller's")?,
            Base::Empty => f.write_str("empty")?,
            Base::System => f.write_str("programs and libraries of the host, read-only")?,
            Base::Host => f.write_str("the host's, read-only")?,
            Base::Dir(path) => write!(f, "{path}, read-only")?,
            Base::WritableDir(path) => write!(f, "{path}, writable")?,
            Base::Overlay(overlay) => {
                f.write_str("an overlay of ")?;
                let mut separator = "";
                for lower in &overlay.lowers {
                    write!(f, "{separator}{lower}")?;
                    separator = " and ";
                }
            }
        }
        match self.operations.len() {
            0 => Ok(()),
            1 => f.write_str(", 1 operation"),
            count => write!(f, ", {count} operations"),
        }
    }
}
