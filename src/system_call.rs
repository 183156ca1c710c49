//! The names and numbers of the kernel's system calls on this architecture (syscalls(2)).

mod aarch64;
mod x86_64;

use std::fmt::{self, Display, Formatter};

/// A system call, by its number on this architecture. As data (feature `serde`) it is its name, or its number where this version
/// of the crate knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "form::Form", try_from = "form::Form")
)]
pub struct SystemCall(pub i32);

#[cfg(feature = "serde")]
mod form {
    use std::borrow::Cow;

    use super::SystemCall;

    /// A call as data.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    pub enum Form {
        Name(Cow<'static, str>),
        Number(i32),
    }

    impl From<SystemCall> for Form {
        fn from(call: SystemCall) -> Self {
            call.name().map_or(Self::Number(call.0), |name| Self::Name(name.into()))
        }
    }

    impl TryFrom<Form> for SystemCall {
        type Error = String;

        fn try_from(form: Form) -> Result<Self, String> {
            match form {
                Form::Number(number) => Ok(Self(number)),
                Form::Name(name) => Self::named(&name).ok_or_else(|| {
                    format!(
                        "{name:?} is no system call of this architecture; the nearest name is {:?}",
                        Self::nearest(&name)
                    )
                }),
            }
        }
    }
}

impl SystemCall {
    /// By its name, as in its manual page.
    pub fn named(name: &str) -> Option<Self> {
        number(TABLE, name).map(Self)
    }

    /// Its name, if this version of the crate knows one.
    pub fn name(self) -> Option<&'static str> {
        TABLE.iter().find(|(_, number)| *number == self.0).map(|&(name, _)| name)
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// All that this version of the crate knows.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|&(_, number)| Self(number))
    }

    /// The known name that is most like one that is not.
    pub fn nearest(name: &str) -> &'static str {
        TABLE.iter().map(|(known, _)| *known).min_by_key(|known| distance(known, name)).unwrap_or_default()
    }

    /// Whether another architecture has a call of this name, though this one has none.
    pub fn is_elsewhere(name: &str) -> bool {
        number(TABLE, name).is_none()
            && [x86_64::TABLE, aarch64::TABLE].iter().any(|table| number(table, name).is_some())
    }
}

fn number(table: &[Entry], name: &str) -> Option<i32> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}

/// `ptrace`, or `system call 999` without a name.
impl Display for SystemCall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "system call {}", self.0),
        }
    }
}

/// This architecture and its own ABI: `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls of x32 have this bit (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
pub(crate) const X32: u32 = 0x4000_0000;

/// Whether a call is one of another ABI, where its number means another call.
pub(crate) fn is_foreign(architecture: u32, number: i32) -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_x32 = number as u32 & X32 != 0;
    #[cfg(not(target_arch = "x86_64"))]
    let is_x32 = false;
    architecture != ARCHITECTURE || is_x32
}

/// How many letters have to be changed, put in or left out to make one word of another.
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

/// A name and its number.
type Entry = (&'static str, i32);

/// The calls of this architecture, by number.
#[cfg(target_arch = "x86_64")]
const TABLE: &[Entry] = x86_64::TABLE;
#[cfg(target_arch = "aarch64")]
const TABLE: &[Entry] = aarch64::TABLE;

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

    const BOTH: [(TargetArch, &[Entry]); 2] =
        [(TargetArch::x86_64, x86_64::TABLE), (TargetArch::aarch64, aarch64::TABLE)];

    #[test]
    fn no_name_and_no_number_stands_twice() {
        for (_, table) in BOTH {
            let names: BTreeSet<&str> = table.iter().map(|entry| entry.0).collect();
            assert_eq!(names.len(), table.len());
            assert!(table.is_sorted_by(|(_, one), (_, other)| one < other) && table.len() > 300 && table[0].1 == 0);
        }
    }

    #[test]
    fn the_newest_calls_are_there_on_both_architectures() {
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
        // On aarch64 it is passed over, and on none it is an error.
        assert!(cfg!(target_arch = "x86_64") != SystemCall::is_elsewhere("chmod"));
        assert!(!SystemCall::is_elsewhere("openat") && !SystemCall::is_elsewhere("umount"));
    }

    /// The number that seccompiler compiles a name to, if it knows it.
    fn compiled(name: &str, architecture: TargetArch) -> Option<i32> {
        let filter = serde_json::json!({"one": {
            "mismatch_action": "allow", "match_action": "trap", "filter": [{"syscall": name}],
        }});
        let filters = seccompiler::compile_from_json(filter.to_string().as_bytes(), architecture).ok()?;
        // It loads the number, and compares it.
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
    fn the_nearest_name_is_the_one_that_was_meant() {
        assert_eq!(SystemCall::nearest("ptrce"), "ptrace");
        assert_eq!(SystemCall::nearest("moumt"), "mount");
        assert_eq!(SystemCall::nearest("open_at"), "openat");
    }
}
