//! Values that calls refer to: slots, labels, data, and inputs that only the launch knows.

use std::borrow::Cow;

/// A word of the script's memory, which holds the result of a call or an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub u16);

/// A position in the list of calls. It is bound when the list has that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub u32);

/// An item of an [`Arena`](super::arena::Arena), or a position inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ref {
    pub item: u32,
    pub plus: u32,
}

/// The content of a relocated word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Data(Ref),
    Slot(Slot),
    /// The value of an input, which need not be an address.
    Input(Input),
}

/// A word of a structure in an [`Arena`](super::arena::Arena).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Value(u64),
    Address(Address),
}

impl From<Ref> for Word {
    fn from(place: Ref) -> Self {
        Self::Address(Address::Data(place))
    }
}

/// The number of words of a CPU mask (sched_setaffinity(2)).
pub(crate) const AFFINITY_WORDS: usize = 16;

/// A value that only the launch knows: mostly the number of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The report channel to the caller.
    Report,
    /// The read end of the control pipe. The caller closes its write end to terminate the sandbox.
    Control,
    /// The pidfd of the caller.
    CallerPidfd,
    /// The image to execute.
    Image,
    /// The file that holds the image's data, which the caller reads too.
    Data,
    /// The first and the last descriptor of a gap between those that are kept.
    GapFirst(u16),
    GapLast(u16),
    /// A descriptor that the plan holds, by index.
    Descriptor(u16),
    /// A standard stream of the program.
    Stdio(u8),
    /// The descriptor that the program inherits for one that the plan holds, by index.
    Handed(u16),
    /// A file by which the process of a command enters a cgroup, by index.
    CgroupEntry(u16),
    /// A file that holds a script.
    ScriptFile,
    /// A user namespace with the maps of an ID mapping of the plan, by index.
    IdMapping(u16),
    /// The sandbox's own host ID.
    OwnId,
    /// The first or the second half of that ID as text.
    OwnIdText(u8),
    /// A word of the CPU mask of the caller. 0 if it is not known.
    Affinity(u8),
    /// The random number by which the seccomp filter allows the calls of the set-up. Each sandbox has its own.
    Pass,
    /// An instruction of the filter that compares half of the pass: the instruction without it, and the shift of that
    /// half.
    Comparison {
        instruction: u32,
        shift: u32,
    },
    /// A number, for a structure that consists of slots.
    Value(u64),
}

impl Input {
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Report => "<report>".into(),
            Self::Control => "<control>".into(),
            Self::CallerPidfd => "<pidfd of the caller>".into(),
            Self::Image => "<image>".into(),
            Self::Data => "<data of the image>".into(),
            Self::GapFirst(n) => format!("<first of gap {n}>").into(),
            Self::GapLast(n) => format!("<last of gap {n}>").into(),
            Self::Descriptor(n) => format!("<descriptor {n}>").into(),
            Self::Stdio(0) => "<stdin>".into(),
            Self::Stdio(1) => "<stdout>".into(),
            Self::Stdio(_) => "<stderr>".into(),
            Self::Handed(n) => format!("<descriptor {n}>").into(),
            Self::CgroupEntry(n) => format!("<cgroup {n}>").into(),
            Self::ScriptFile => "<script>".into(),
            Self::IdMapping(n) => format!("<ID mapping {n}>").into(),
            Self::OwnId | Self::OwnIdText(_) => "<own id>".into(),
            Self::Affinity(_) => "<processors>".into(),
            Self::Pass | Self::Comparison { .. } => "<pass>".into(),
            Self::Value(value) => format!("{value:#x}").into(),
        }
    }

    /// Whether the value is a descriptor that the child must keep.
    pub fn is_descriptor(self) -> bool {
        !matches!(
            self,
            Self::GapFirst(_)
                | Self::GapLast(_)
                | Self::Value(_)
                | Self::Pass
                | Self::Comparison { .. }
                | Self::OwnId
                | Self::OwnIdText(_)
                | Self::Affinity(_)
        )
    }
}
