//! One system call of a program: its number, its arguments, and where to go on.

use super::arena::Ref;

/// A system call by number and name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SystemCall {
    pub number: u32,
    pub name: &'static str,
}

/// As a call refers to it: plans are made often, and their calls are kept small.
pub(crate) type Nr = &'static SystemCall;

/// The system call of a `libc::SYS_…` constant.
macro_rules! nr {
    ($sys:ident) => {
        &$crate::plan::SystemCall { number: libc::$sys as u32, name: stringify!($sys) }
    };
}
pub(crate) use nr;

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

/// A word of the program's memory, which holds the result of a call or a value that the launch supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub u16);

/// A place in the list of calls, bound once the list is that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub u32);

/// A number with the names that it is made of, each after a bar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    pub value: u64,
    pub name: &'static str,
}

/// Names of single bits, as the manual pages have them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names(pub &'static [(u32, &'static str)]);

/// The names of `libc` constants that are bits.
macro_rules! names {
    ($($flag:ident),+ $(,)?) => {
        $crate::plan::Names(&[$((libc::$flag as u32, stringify!($flag))),+])
    };
}
pub(crate) use names;

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    Imm(u64),
    Named(&'static Constant),
    Octal(u32),
    /// Bits that were put together, with the names that they have.
    Bits(u32, &'static Names),
    Slot(Slot),
    SlotAddress(Slot),
    Data(Ref),
}

impl Arg {
    /// `AT_FDCWD`, which no path that is absolute looks at.
    pub const CWD: Self = Self::Named(&Constant { value: libc::AT_FDCWD as i64 as u64, name: "|AT_FDCWD" });
    /// A null pointer.
    pub const NULL: Self = Self::Named(&Constant { value: 0, name: "|NULL" });
    /// Nothing: an argument that the call does not have.
    pub const NONE: Self = Self::Imm(0);
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
    /// The arguments that the call was given.
    pub fn given(&self) -> &[Arg] {
        &self.args[..self.arity as usize]
    }
}

/// What a failed call leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It is reported to the host, and the program ends.
    Fail,
    /// The next call is made.
    Ignore,
    /// The program goes on elsewhere.
    Goto(Label),
    /// The program goes on elsewhere if the error is one of these, and fails otherwise.
    GotoIf([u8; 2], Label),
}

impl OnError {
    /// For error numbers that the interpreter's table has room for.
    pub fn goto_if(errors: [i32; 2], label: Label) -> Self {
        Self::GotoIf(errors.map(|errno| errno as u8), label)
    }
}

/// An entry of the table that the interpreter runs through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub nr: Nr,
    /// All six that a call can have; those that it has not are [`Arg::NONE`].
    pub args: [Arg; 6],
    pub arity: u8,
    pub store: Option<Slot>,
    pub on_error: OnError,
    /// The call is made again for as long as it fails with `EAGAIN`.
    pub again: bool,
    pub above_zero: Option<Label>,
    pub step: u32,
}
