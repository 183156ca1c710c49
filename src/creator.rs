//! Which process has created a value. A forked child has a copy of the value, and must not kill or remove what it
//! stands for.

/// The process that has created a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Creator(u32);

impl Creator {
    /// Returns the current process.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// Returns whether the current process is the creator, and not a forked child of it.
    pub fn is_this(self) -> bool {
        self.0 == std::process::id()
    }
}
