//! The names and numbers of system calls (syscalls(2)), in a generated table for each architecture (see `generate`).
//! What is done with a call does not belong here.

mod aarch64;
mod x86_64;

use std::fmt::{self, Display, Formatter};

/// A system call, identified by its number on this architecture (syscalls(2)).
///
/// Its [`Display`] is the name, such as `ptrace`, or `system call 999` if this version of the crate does not know a
/// name. The serialized form (feature `serde`) is the name. In binary formats, and without a name, it is the number.
///
/// ```
/// use stockade::seccomp::SystemCall;
///
/// let call = SystemCall::named("openat").expect("a call of every architecture");
/// assert_eq!(call.number() as i64, libc::SYS_openat);
/// assert_eq!(SystemCall::named("opennat"), None);
/// assert_eq!(SystemCall::nearest("opennat"), "openat");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemCall(i32);

#[cfg(feature = "serde")]
mod stored_call {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    use super::SystemCall;
    use crate::unix::stored_number::{self, NamedNumber};

    impl NamedNumber for SystemCall {
        const EXPECTED: &'static str = "the name or the number of a system call";
        const OUT_OF_RANGE: &'static str = "is no number of a system call";

        fn name(&self) -> Option<&'static str> {
            Self::name(*self)
        }

        fn number(&self) -> i32 {
            self.0
        }

        fn from_number(number: i32) -> Self {
            Self(number)
        }

        fn from_name(name: &str) -> Result<Self, String> {
            Self::named(name).ok_or_else(|| {
                let nearest = Self::nearest(name);
                format!("this architecture has no system call {name:?}; the nearest name is {nearest:?}")
            })
        }
    }

    impl Serialize for SystemCall {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            stored_number::serialize(self, serializer)
        }
    }

    impl<'de> Deserialize<'de> for SystemCall {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            stored_number::deserialize(deserializer)
        }
    }
}

impl SystemCall {
    /// Creates the system call with this number on this architecture.
    #[must_use]
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// Returns the system call with this name, as in its manual page. `None` if this architecture has none.
    pub fn named(name: &str) -> Option<Self> {
        number(TABLE, name).map(Self)
    }

    /// Returns the name. `None` if this version of the crate does not know it.
    pub fn name(self) -> Option<&'static str> {
        TABLE.iter().find(|(_, number)| *number == self.0).map(|&(name, _)| name)
    }

    /// Returns the number on this architecture.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Returns all system calls of this architecture that this version of the crate knows, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|&(_, number)| Self(number))
    }

    /// Returns the name of a system call that is most similar to this one, for messages about a misspelled name.
    pub fn nearest(name: &str) -> &'static str {
        TABLE.iter().map(|(known, _)| *known).min_by_key(|known| distance(known, name)).unwrap_or_default()
    }

    /// Returns whether only another architecture has a system call with this name.
    pub fn is_elsewhere(name: &str) -> bool {
        number(TABLE, name).is_none()
            && [x86_64::TABLE, aarch64::TABLE].iter().any(|table| number(table, name).is_some())
    }
}

fn number(table: &[TableEntry], name: &str) -> Option<i32> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}

/// Formats the name, as `ptrace`, or `system call 999` without one.
impl Display for SystemCall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "system call {}", self.0),
        }
    }
}

/// The identifier of this architecture and its native ABI: `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of
/// `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_00b7;

/// The bit that numbers of x32 have (`__X32_SYSCALL_BIT`). No number of aarch64 has it.
pub(crate) const X32: u32 = 0x4000_0000;

/// Returns whether a call is one of another ABI, in which its number means another call.
pub(crate) fn is_foreign(architecture: u32, number: i32) -> bool {
    architecture != ARCHITECTURE || cfg!(target_arch = "x86_64") && number as u32 & X32 != 0
}

/// Returns the number of letters that must be replaced, inserted or removed to turn one word into another
/// (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut above_left = std::mem::replace(&mut row[0], line + 1);
        for column in 1..row.len() {
            let changed = above_left + usize::from(letter != to[column - 1]);
            above_left = row[column];
            row[column] = changed.min(above_left + 1).min(row[column - 1] + 1);
        }
    }
    row[to.len()]
}

/// The name and the number of a system call.
type TableEntry = (&'static str, i32);

/// The system calls of this architecture, by number.
#[cfg(target_arch = "x86_64")]
const TABLE: &[TableEntry] = x86_64::TABLE;
#[cfg(target_arch = "aarch64")]
const TABLE: &[TableEntry] = aarch64::TABLE;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use seccompiler::TargetArch;

    use super::*;

    #[test]
    fn a_call_is_found_by_its_name_and_its_number() {
        let read = SystemCall::named("read").expect("read");
        assert_eq!(read, SystemCall(libc::SYS_read as i32));
        assert_eq!(read.name(), Some("read"));
        assert_eq!(SystemCall::named("statmount"), Some(SystemCall(457)));
        assert_eq!(SystemCall(9999).to_string(), "system call 9999");
    }

    const BOTH: [(TargetArch, &[TableEntry]); 2] =
        [(TargetArch::x86_64, x86_64::TABLE), (TargetArch::aarch64, aarch64::TABLE)];

    #[test]
    fn names_and_numbers_are_unique() {
        for (_, table) in BOTH {
            let names: BTreeSet<&str> = table.iter().map(|entry| entry.0).collect();
            assert_eq!(names.len(), table.len());
            assert!(table.is_sorted_by(|(_, one), (_, other)| one < other) && table.len() > 300 && table[0].1 == 0);
        }
    }

    #[test]
    fn both_tables_have_the_newest_calls() {
        for (name, numbers) in [
            ("fchmodat2", [452, 452]),
            ("renameat", [264, 38]),
            ("sync_file_range", [277, 84]),
            ("openat2", [437, 437]),
            ("listns", [470, 470]),
        ] {
            assert_eq!(BOTH.map(|(_, table)| number(table, name)), numbers.map(Some), "{name}");
        }
        assert_eq!(number(aarch64::TABLE, "chmod"), None);
        // A policy that names it is valid on aarch64 too, where the rule is skipped.
        assert!(cfg!(target_arch = "x86_64") != SystemCall::is_elsewhere("chmod"));
        assert!(!SystemCall::is_elsewhere("openat") && !SystemCall::is_elsewhere("umount"));
    }

    /// Returns the number that seccompiler compiles a name to, if it knows the name.
    fn compiled(name: &str, architecture: TargetArch) -> Option<i32> {
        let filter = serde_json::json!({"one": {
            "mismatch_action": "allow", "match_action": "trap", "filter": [{"syscall": name}],
        }});
        let filters = seccompiler::compile_from_json(filter.to_string().as_bytes(), architecture).ok()?;
        // The filter loads the number, then compares it.
        let compares =
            filters["one"].windows(2).find(|pair| pair[0].code == 0x20 && pair[0].k == 0 && pair[1].code == 0x15);
        compares.map(|pair| pair[1].k as i32)
    }

    #[test]
    fn numbers_are_those_of_seccompiler() {
        for (architecture, table) in BOTH {
            let known = table.iter().filter_map(|&(name, number)| Some((name, number, compiled(name, architecture)?)));
            let known: Vec<_> = known.collect();
            assert!(known.len() > 290, "{} calls", known.len());
            for (name, number, theirs) in known {
                assert_eq!(number, theirs, "{name} on {architecture:?}");
            }
        }
    }

    #[test]
    fn numbers_are_those_of_libc() {
        for (name, number) in [
            ("openat2", libc::SYS_openat2),
            ("close_range", libc::SYS_close_range),
            ("seccomp", libc::SYS_seccomp),
            ("prlimit64", libc::SYS_prlimit64),
        ] {
            assert_eq!(SystemCall::named(name), Some(SystemCall(number as i32)));
        }
    }

    #[test]
    fn nearest_finds_the_intended_name() {
        assert_eq!(SystemCall::nearest("ptrce"), "ptrace");
        assert_eq!(SystemCall::nearest("moumt"), "mount");
        assert_eq!(SystemCall::nearest("open_at"), "openat");
    }
}
