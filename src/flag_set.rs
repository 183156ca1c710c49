//! Sets of flags, such as [`Namespaces`](crate::Namespaces), as plain types. The macro of the crate bitflags would show
//! its trait and its iterators in the public interface. The flags themselves do not belong here.

/// The names of the flags of a type.
pub(crate) trait FlagSet: Copy + FromIterator<Self> + 'static {
    /// The flags, each one bit, and sets of several flags, with their names.
    const NAMED: &'static [(&'static str, Self)];

    /// Returns the names of the flags in the set.
    fn flag_names(self) -> impl Iterator<Item = &'static str>;
}

/// Defines the type of a set of flags, with constants and operators.
///
/// What follows `in` is for the documentation: the path of the type, the word for its flags, and two of them.
macro_rules! flag_set {
    (
        $(#[$attribute:meta])*
        pub struct $Set:ident: $Bits:ident in $path:literal, $flags:literal, $a:literal, $b:literal;

        $($(#[$doc:meta])* const $NAME:ident = $bits:expr;)+
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $Set($Bits);

        impl $Set {
            $(
                $(#[$doc])*
                pub const $NAME: Self = Self($bits);
            )+

            /// Returns the empty set.
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "assert!(", stringify!($Set), "::empty().is_empty());\n",
                "```",
            )]
            #[must_use]
            pub const fn empty() -> Self {
                Self(0)
            }

            #[doc = concat!("Returns the set of all ", $flags, ".")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "assert!(", stringify!($Set), "::all().contains(", $a, "));\n",
                "```",
            )]
            #[must_use]
            pub const fn all() -> Self {
                Self(0 $(| Self::$NAME.0)+)
            }

            /// Returns whether the set is empty.
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "assert!(", stringify!($Set), "::empty().is_empty());\n",
                "assert!(!", $a, ".is_empty());\n",
                "```",
            )]
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            #[doc = concat!("Returns whether the set contains all ", $flags, " of the other.")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "let both = ", $a, " | ", $b, ";\n",
                "assert!(both.contains(", $a, "));\n",
                "assert!(!both.contains(", stringify!($Set), "::all()));\n",
                "```",
            )]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            #[doc = concat!("Returns whether the set contains at least one of the ", $flags, " of the other.")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "let both = ", $a, " | ", $b, ";\n",
                "assert!(both.intersects(", stringify!($Set), "::all()));\n",
                "assert!(!", $a, ".intersects(", $b, "));\n",
                "```",
            )]
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            #[doc = concat!("Returns the ", $flags, " that are in either set.")]
            ///
            /// This is the operator `|`, for constants.
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "const BOTH: ", stringify!($Set), " = ", $a, ".union(", $b, ");\n",
                "assert_eq!(BOTH, ", $a, " | ", $b, ");\n",
                "```",
            )]
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            #[doc = concat!("Returns the ", $flags, " of this set that are not in the other.")]
            ///
            /// This is the operator `-`, for constants.
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "const REST: ", stringify!($Set), " = ",
                stringify!($Set), "::all().difference(", $a, ");\n",
                "assert_eq!(REST, ", stringify!($Set), "::all() - ", $a, ");\n",
                "```",
            )]
            #[must_use]
            pub const fn difference(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            #[doc = concat!("Returns the ", $flags, " in the set, each as a set of its own.")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "let both = ", $a, " | ", $b, ";\n",
                "assert_eq!(both.iter().count(), 2);\n",
                "assert_eq!(both.iter().collect::<", stringify!($Set), ">(), both);\n",
                "```",
            )]
            pub fn iter(self) -> impl Iterator<Item = Self> {
                self.single().map(|(_, flag)| *flag)
            }

            /// The flags in the set, without the names for several.
            fn single(self) -> impl Iterator<Item = &'static (&'static str, Self)> {
                let named = <Self as $crate::flag_set::FlagSet>::NAMED.iter();
                named.filter(move |(_, flag)| flag.0.is_power_of_two() && self.contains(*flag))
            }

            /// Returns the bits that the kernel has for the flags.
            pub(crate) const fn bits(self) -> $Bits {
                self.0
            }

            /// Returns the flags that these bits of the kernel stand for. Ignores other bits.
            pub(crate) const fn from_bits_truncate(bits: $Bits) -> Self {
                Self(bits & Self::all().0)
            }
        }

        impl $crate::flag_set::FlagSet for $Set {
            const NAMED: &'static [(&'static str, Self)] = &[$((stringify!($NAME), Self::$NAME)),+];

            fn flag_names(self) -> impl Iterator<Item = &'static str> {
                self.single().map(|(name, _)| *name)
            }
        }

        #[cfg(feature = "_schema")]
        impl schemars::JsonSchema for $Set {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Set).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let names: Vec<String> =
                    <Self as $crate::flag_set::FlagSet>::NAMED.iter().map(|(name, _)| name.to_lowercase()).collect();
                schemars::json_schema!({ "type": "array", "items": { "enum": names } })
            }
        }

        #[doc = concat!("Writes the names of the ", $flags, ".")]
        impl std::fmt::Debug for $Set {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let names: Vec<&str> = $crate::flag_set::FlagSet::flag_names(*self).collect();
                let shown = if names.is_empty() { "empty".into() } else { names.join(" | ") };
                f.debug_tuple(stringify!($Set)).field(&format_args!("{shown}")).finish()
            }
        }

        impl std::ops::BitOr for $Set {
            type Output = Self;

            #[doc = concat!("Returns the ", $flags, " that are in either set.")]
            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl std::ops::BitOrAssign for $Set {
            #[doc = concat!("Adds the ", $flags, " of the other set.")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "let mut set = ", $a, ";\n",
                "set |= ", $b, ";\n",
                "assert!(set.contains(", $b, "));\n",
                "```",
            )]
            fn bitor_assign(&mut self, other: Self) {
                *self = self.union(other);
            }
        }

        impl std::ops::BitAnd for $Set {
            type Output = Self;

            #[doc = concat!("Returns the ", $flags, " that are in both sets.")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "let both = ", $a, " | ", $b, ";\n",
                "assert_eq!(both & ", $a, ", ", $a, ");\n",
                "```",
            )]
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl std::ops::Sub for $Set {
            type Output = Self;

            #[doc = concat!("Returns the ", $flags, " of this set that are not in the other.")]
            fn sub(self, other: Self) -> Self {
                self.difference(other)
            }
        }

        impl std::ops::SubAssign for $Set {
            #[doc = concat!("Removes the ", $flags, " of the other set.")]
            ///
            #[doc = concat!(
                "```\nuse ", $path, ";\n\n",
                "let mut set = ", stringify!($Set), "::all();\n",
                "set -= ", $b, ";\n",
                "assert!(!set.contains(", $b, "));\n",
                "```",
            )]
            fn sub_assign(&mut self, other: Self) {
                *self = self.difference(other);
            }
        }

        #[doc = concat!("Collects sets into one with all of their ", $flags, ".")]
        impl FromIterator<Self> for $Set {
            fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
                sets.into_iter().fold(Self::empty(), Self::union)
            }
        }
    };
}
pub(crate) use flag_set;
