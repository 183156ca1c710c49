//! Which process has created something. A forked child of it has copies of its values, and must not end what they stand for.

/// The process that has created something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Creator(u32);

impl Creator {
    /// This process.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// Whether this process is the creator, and not a forked child of it.
    pub fn is_this(self) -> bool {
        self.0 == std::process::id()
    }
}
