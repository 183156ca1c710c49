//! What a policy says of one system call.

use std::borrow::Cow;

/// What becomes of a system call. Where several rules match, the strictest counts: they stand here from the mildest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Action {
    /// The kernel does it.
    Allow,
    /// The kernel does it, and writes a line to the audit log or the kernel's (`SECCOMP_RET_LOG`).
    Log,
    /// A callback of the host decides: [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised). The program waits
    /// meanwhile.
    Notify,
    /// It fails with this error number, 0 to 4095; with 0 it does nothing and gives 0.
    Errno(i32),
    /// The sandbox is ended: [`Termination::Syscall`](crate::Termination::Syscall). Without a pid namespace and a cgroup
    /// that are the program, its process group, and who makes the call.
    Kill,
}

impl Action {
    /// Whether the call is not made, whatever the host says.
    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::Errno(_) | Self::Kill)
    }
}

/// How an argument is compared, as an unsigned number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Comparison {
    /// It is this.
    Equal(u64),
    /// It is anything else.
    NotEqual(u64),
    /// It is less.
    Less(u64),
    /// It is less or this.
    LessOrEqual(u64),
    /// It is greater.
    Greater(u64),
    /// It is greater or this.
    GreaterOrEqual(u64),
    /// Of the bits of `mask` those of `value` are set, and no others.
    Masked {
        /// Which bits count.
        mask: u64,
        /// What they are.
        value: u64,
    },
}

/// A condition on an argument of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// Whether its lower 32 bits alone count: all that the kernel looks at where a parameter is an `int`. Garbage in the
    /// others would get past a comparison of 64 bits.
    pub low_half: bool,
}

impl Condition {
    /// On all 64 bits: for pointers, sizes, and `unsigned long`.
    pub const fn new(argument: u8, comparison: Comparison) -> Self {
        Self { argument, comparison, low_half: false }
    }

    /// On the lower 32 bits: for `int` and `unsigned int`.
    pub const fn int(argument: u8, comparison: Comparison) -> Self {
        Self { argument, comparison, low_half: true }
    }

    /// Holds if an `int` argument is this number.
    pub(super) fn is(argument: u8, value: libc::c_int) -> Self {
        Self::int(argument, Comparison::Equal(u64::from(value as u32)))
    }

    /// Holds if an `int` argument is another number.
    pub(super) fn is_not(argument: u8, value: libc::c_int) -> Self {
        Self::int(argument, Comparison::NotEqual(u64::from(value as u32)))
    }

    /// Holds if all of these flags are set.
    pub(super) fn has(argument: u8, flags: libc::c_int) -> Self {
        Self::among(argument, flags, flags)
    }

    /// Holds if the bits of an argument that are in `mask` are these.
    pub(super) fn among(argument: u8, mask: libc::c_int, bits: libc::c_int) -> Self {
        let [mask, value] = [mask, bits].map(|bits| u64::from(bits as u32));
        Self::int(argument, Comparison::Masked { mask, value })
    }

    /// Whether it holds for these arguments.
    pub(super) fn holds(&self, args: &[u64; 6]) -> bool {
        let cut = |number: u64| if self.low_half { u64::from(number as u32) } else { number };
        let arg = cut(args.get(usize::from(self.argument)).copied().unwrap_or_default());
        match self.comparison {
            Comparison::Equal(value) => arg == cut(value),
            Comparison::NotEqual(value) => arg != cut(value),
            Comparison::Less(value) => arg < cut(value),
            Comparison::LessOrEqual(value) => arg <= cut(value),
            Comparison::Greater(value) => arg > cut(value),
            Comparison::GreaterOrEqual(value) => arg >= cut(value),
            Comparison::Masked { mask, value } => arg & cut(mask) == cut(value) & cut(mask),
        }
    }
}

/// A rule: a system call by its name, and what becomes of it if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rule {
    /// The name of the call.
    pub call: Cow<'static, str>,
    /// What must hold of its arguments.
    pub conditions: Vec<Condition>,
    /// What becomes of it.
    pub action: Action,
}
