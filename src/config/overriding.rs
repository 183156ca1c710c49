//! How a value of a configuration gives way to that of another one.

use std::collections::BTreeMap;

pub(super) trait Overriding {
    /// Returns the value of both, in which the other decides.
    fn overridden_by(self, other: Self) -> Self;
}

impl<T> Overriding for Option<T> {
    fn overridden_by(self, other: Self) -> Self {
        other.or(self)
    }
}

impl<T> Overriding for Vec<T> {
    fn overridden_by(mut self, other: Self) -> Self {
        self.extend(other);
        self
    }
}

impl<K: Ord, V> Overriding for BTreeMap<K, V> {
    fn overridden_by(mut self, other: Self) -> Self {
        self.extend(other);
        self
    }
}
