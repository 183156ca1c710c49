//! One system call of a script: its number, its arguments, and where the script goes on if it fails. Which calls a
//! layer makes does not belong here.

use super::value::{Label, Ref, Slot};

/// A system call by number and name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyscallName {
    pub number: u32,
    pub name: &'static str,
}

/// A reference to it, which keeps calls small.
pub(crate) type Nr = &'static SyscallName;

/// The system call of a `libc::SYS_…` constant.
macro_rules! nr {
    ($sys:ident) => {
        &$crate::plan::SyscallName { number: libc::$sys as u32, name: stringify!($sys) }
    };
}
pub(crate) use nr;

/// Goes on with the script whose slots are at the first argument. The interpreter does that itself, with this number in the
/// place of a system call's.
pub(super) const SWITCH: Nr = &SyscallName { number: -3i16 as u16 as u32, name: "switch" };
/// The result is the first argument, in the same way.
pub(super) const VALUE: Nr = &SyscallName { number: -4i16 as u16 as u32, name: "value" };
/// Goes on with the script whose slots are at the stack pointer, in the same way.
pub(super) const SWITCH_TO_STACK: Nr = &SyscallName { number: -5i16 as u16 as u32, name: "switch to stack" };

/// An argument with the name of the constants that it is made of, as in `flags!(MS_REC | MS_PRIVATE)`.
macro_rules! flags {
    ($($flag:ident)|+) => {
        $crate::plan::Arg::Named(&$crate::plan::Constant {
            value: $(libc::$flag as u64)|+,
            name: concat!($("|", stringify!($flag)),+),
        })
    };
}
pub(crate) use flags;

/// A number with the names that it is made of, each after a bar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    pub value: u64,
    pub name: &'static str,
}

/// Names of single bits, as the manual pages have them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConstantNames(pub &'static [(u32, &'static str)]);

/// The names of `libc` constants that are bits.
macro_rules! names {
    ($($flag:ident),+ $(,)?) => {
        $crate::plan::ConstantNames(&[$((libc::$flag as u32, stringify!($flag))),+])
    };
}
pub(crate) use names;

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    Imm(u64),
    Named(&'static Constant),
    Octal(u32),
    /// Bits that are computed, with their names.
    Bits(u32, &'static ConstantNames),
    Slot(Slot),
    SlotAddress(Slot),
    Data(Ref),
}

impl Arg {
    /// `AT_FDCWD`. Absolute paths ignore it.
    pub const CWD: Self = Self::Named(&Constant { value: libc::AT_FDCWD as i64 as u64, name: "|AT_FDCWD" });
    /// A null pointer.
    pub const NULL: Self = Self::Named(&Constant { value: 0, name: "|NULL" });
    /// An argument that the call does not have.
    pub const NONE: Self = Self::Imm(0);

    /// Returns the number. `None` for a slot or an address.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Imm(value) => Some(value),
            Self::Named(constant) => Some(constant.value),
            Self::Octal(value) | Self::Bits(value, _) => Some(value.into()),
            Self::Slot(_) | Self::SlotAddress(_) | Self::Data(_) => None,
        }
    }
}

macro_rules! arg_from {
    ($($from:ty => |$value:ident| $to:expr),+ $(,)?) => {
        $(impl From<$from> for Arg { fn from($value: $from) -> Self { $to } })+
    };
}
arg_from! {
    u64 => |value| Self::Imm(value),
    u32 => |value| Self::Imm(value.into()),
    i32 => |value| Self::Imm(value as i64 as u64),
    Slot => |slot| Self::Slot(slot),
    Ref => |place| Self::Data(place),
}

impl Call {
    /// The arguments that the call has.
    pub fn args(&self) -> &[Arg] {
        &self.args[..self.arity as usize]
    }
}

/// What happens if a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The error is reported to the caller, and the process exits.
    Fail,
    /// The script goes on with the next call.
    Ignore,
    /// The script goes on at a label.
    Goto(Label),
    /// The script goes on at a label if the error is one of these, and fails otherwise.
    GotoIf([u8; 2], Label),
}

impl OnError {
    /// For error numbers below 256, which fit in the interpreter's table.
    pub fn goto_if(errors: [i32; 2], label: Label) -> Self {
        Self::GotoIf(errors.map(|errno| errno as u8), label)
    }
}

/// An entry of the table that the interpreter executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub nr: Nr,
    /// Six arguments. Those that the call does not have are [`Arg::NONE`].
    pub args: [Arg; 6],
    pub arity: u8,
    pub store: Option<Slot>,
    pub on_error: OnError,
    /// The call is made again for as long as it fails with `EAGAIN`.
    pub again: bool,
    pub above_zero: Option<Label>,
    pub step: u32,
}
