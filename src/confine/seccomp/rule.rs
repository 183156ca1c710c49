//! A rule of a policy: a system call, conditions on its arguments, and the action. Plain data: nothing here knows the
//! kernel's filters or the numbers of system calls.

#[cfg(feature = "serde")]
use crate::stored::{As, Count};
use crate::unix::Errno;
use std::borrow::Cow;

/// The action of a rule: what the kernel does with a system call.
///
/// If several rules match a call, the strictest action applies. The actions are listed from the mildest to the
/// strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Action {
    /// The kernel executes the call.
    Allow,
    /// The kernel executes the call, and writes a line to the audit log or to its own log (`SECCOMP_RET_LOG`).
    Log,
    /// A callback of the caller decides, while the program waits: see
    /// [`Sandbox::spawn_supervised`](crate::Sandbox::spawn_supervised). Any other spawn of such a policy fails with
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration).
    ///
    /// Requires a seccomp listener, as [`Action::Kill`] does.
    Notify,
    /// The call is not executed, and fails with this error number, 0 to 4095 (errno(3)).
    ///
    /// With 0 the call returns 0 without an effect.
    Errno(Errno),
    /// All processes of the sandbox are killed: [`Termination::Syscall`](crate::Termination::Syscall).
    ///
    /// If the sandbox has neither a PID namespace nor a cgroup, only the program, its process group, and the process
    /// that made the call are killed.
    ///
    /// Requires a seccomp listener, of which a process can have one. When spawned,
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EBUSY`) if the caller already runs under a filter
    /// with a listener.
    Kill,
}

impl Action {
    /// Returns whether the call is never executed.
    pub(super) fn denies(self) -> bool {
        matches!(self, Self::Errno(_) | Self::Kill)
    }
}

/// A comparison of an argument of a system call with a number. Both are unsigned.
///
/// ```
/// use stockade::Seccomp;
/// use stockade::seccomp::{Action, Comparison, Condition};
///
/// // Files can be opened for reading only, and not be created.
/// let flags = (libc::O_ACCMODE | libc::O_CREAT) as u64;
/// let reads = Comparison::masked(flags, libc::O_RDONLY as u64);
/// let policy = Seccomp::allow_list().when("openat", [Condition::dword(2, reads)], Action::Allow);
/// assert_eq!(policy.rules()[0].to_string(), "openat if argument 2 as int & 0x43 == 0x0: allow");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Comparison {
    /// The argument is equal to the number.
    Equal(#[cfg_attr(feature = "serde", serde(with = "As::<Count>"))] u64),
    /// The argument is not equal to the number.
    NotEqual(#[cfg_attr(feature = "serde", serde(with = "As::<Count>"))] u64),
    /// The argument is less than the number.
    Less(#[cfg_attr(feature = "serde", serde(with = "As::<Count>"))] u64),
    /// The argument is less than or equal to the number.
    LessOrEqual(#[cfg_attr(feature = "serde", serde(with = "As::<Count>"))] u64),
    /// The argument is greater than the number.
    Greater(#[cfg_attr(feature = "serde", serde(with = "As::<Count>"))] u64),
    /// The argument is greater than or equal to the number.
    GreaterOrEqual(#[cfg_attr(feature = "serde", serde(with = "As::<Count>"))] u64),
    /// The bits of the argument that are set in `mask` are those of `value`: see [`Comparison::masked`].
    #[non_exhaustive]
    Masked {
        /// The bits that are compared.
        #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
        mask: u64,
        /// The values of these bits. Other bits are ignored.
        #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
        value: u64,
    },
}

impl Comparison {
    /// Creates a comparison of the bits of the argument that are set in `mask` with those of `value`:
    /// `argument & mask == value & mask`.
    #[must_use]
    pub const fn masked(mask: u64, value: u64) -> Self {
        Self::Masked { mask, value }
    }
}

/// A condition on one argument of a system call.
///
/// A filter can check the value of a pointer, but not the memory that it points to.
///
/// ```
/// use stockade::seccomp::{Action, Comparison, Condition};
/// use stockade::{Errno, Seccomp};
///
/// // `domain` of socket(2) is an int, `length` of truncate(2) is 64 bits long.
/// let domain = Condition::dword(0, Comparison::Equal(libc::AF_INET6 as u64));
/// let length = Condition::qword(1, Comparison::Greater(1 << 30));
/// let policy = Seccomp::new()
///     .when("socket", [domain], Action::Errno(Errno::EAFNOSUPPORT))
///     .when("truncate", [length], Action::Errno(Errno::EFBIG));
/// assert_eq!(domain.to_string(), "argument 0 as int == 0xa");
/// # assert_eq!(policy.rules().last().unwrap().conditions, [length]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Condition {
    /// The index of the argument, 0 to 5.
    pub argument: u8,
    /// The comparison that must hold.
    pub comparison: Comparison,
    /// Whether only the lower 32 bits are compared.
    ///
    /// If the parameter of the call is an `int`, the kernel ignores the upper 32 bits. A program could set them to
    /// evade a comparison of all 64 bits.
    #[cfg_attr(feature = "serde", serde(default))]
    pub low_half: bool,
}

impl Condition {
    /// Creates a condition on all 64 bits of an argument: for pointers, sizes, and `unsigned long`.
    #[must_use]
    pub const fn qword(argument: u8, comparison: Comparison) -> Self {
        Self { argument, comparison, low_half: false }
    }

    /// Creates a condition on the lower 32 bits of an argument: for `int` and `unsigned int`.
    #[must_use]
    pub const fn dword(argument: u8, comparison: Comparison) -> Self {
        Self { argument, comparison, low_half: true }
    }

    /// Creates a condition: an `int` argument is equal to this number.
    pub(super) fn is(argument: u8, value: libc::c_int) -> Self {
        Self::dword(argument, Comparison::Equal(u64::from(value as u32)))
    }

    /// Creates a condition: an `int` argument is not equal to this number.
    pub(super) fn is_not(argument: u8, value: libc::c_int) -> Self {
        Self::dword(argument, Comparison::NotEqual(u64::from(value as u32)))
    }

    /// Creates a condition: all of these flags are set.
    pub(super) fn has(argument: u8, flags: libc::c_int) -> Self {
        Self::masked(argument, flags, flags)
    }

    /// Creates a condition: the bits of an argument that are set in `mask` are these.
    pub(super) fn masked(argument: u8, mask: libc::c_int, bits: libc::c_int) -> Self {
        let [mask, value] = [mask, bits].map(|bits| u64::from(bits as u32));
        Self::dword(argument, Comparison::Masked { mask, value })
    }

    /// Returns whether the condition holds for these arguments.
    pub(super) fn holds(&self, args: &[u64; 6]) -> bool {
        let compared = |number: u64| if self.low_half { u64::from(number as u32) } else { number };
        let arg = compared(args.get(usize::from(self.argument)).copied().unwrap_or_default());
        match self.comparison {
            Comparison::Equal(value) => arg == compared(value),
            Comparison::NotEqual(value) => arg != compared(value),
            Comparison::Less(value) => arg < compared(value),
            Comparison::LessOrEqual(value) => arg <= compared(value),
            Comparison::Greater(value) => arg > compared(value),
            Comparison::GreaterOrEqual(value) => arg >= compared(value),
            Comparison::Masked { mask, value } => arg & compared(mask) == compared(value) & compared(mask),
        }
    }
}

/// A rule of a policy: the action for a system call if all conditions hold.
///
/// [`Seccomp::on`](crate::Seccomp::on) and [`Seccomp::when`](crate::Seccomp::when) create rules, and
/// [`Seccomp::rules`](crate::Seccomp::rules) returns them.
///
/// ```
/// use stockade::Seccomp;
/// use stockade::seccomp::Action;
///
/// let policy = Seccomp::allow_list().allow(["read"]).on(["ptrace"], Action::Kill);
/// let killing: Vec<&str> =
///     policy.rules().iter().filter(|rule| rule.action == Action::Kill).map(|rule| &*rule.call).collect();
/// assert_eq!(killing, ["ptrace"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Rule {
    /// The name of the system call, as in syscalls(2).
    pub call: Cow<'static, str>,
    /// The conditions on the arguments, all of which must hold. Without conditions, the rule always applies.
    #[cfg_attr(feature = "serde", serde(default))]
    pub conditions: Vec<Condition>,
    /// The action if all conditions hold.
    pub action: Action,
}
