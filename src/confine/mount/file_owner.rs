//! The owner of the files of a bind or an overlay.

/// The owner on the host whose files in a bind or an overlay appear as the program's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Owner {
    #[default]
    Caller,
    Ids(u32, u32),
    Nobody,
}

/// The methods that set the owner: the same for binds and overlays.
macro_rules! owner_methods {
    () => {
        /// Sets the user and group IDs on the host whose files appear as the program's own. Ignored if the caller is
        /// unprivileged ([`Identity`](crate::Identity)).
        ///
        /// Default: those of the caller. **If the caller has user ID 0, the program can then read all files of root in
        /// the tree.** In a bind of `/etc`, these include `/etc/shadow` and private keys. Use
        /// [`unmapped`](Self::unmapped) for directories of the system.
        #[must_use]
        pub fn owner(mut self, uid: u32, gid: u32) -> Self {
            self.owner = Owner::Ids(uid, gid);
            self
        }

        /// Maps no owner: all files belong to the overflow user, and only the permissions for others apply. Ignored if
        /// the caller is unprivileged ([`Identity`](crate::Identity)).
        #[must_use]
        pub fn unmapped(mut self) -> Self {
            self.owner = Owner::Nobody;
            self
        }
    };
}

pub(super) use owner_methods;
