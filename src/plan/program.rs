//! A list of calls under construction: what a feature of `confine` writes its calls into.

use std::borrow::Cow;
use std::path::PathBuf;

use super::arena::{Address, Arena, Ref, Word};
use super::call::{Arg, Call, Label, Nr, OnError, Slot};
use crate::outcome::Layer;

/// What a group of calls is for: the words of an error message and of the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is being done, as it follows "while": "mounting a proc file system on /proc".
    pub what: Cow<'static, str>,
    /// The path that it is done to, if there is one.
    pub path: Option<PathBuf>,
    /// What a person can do about an errno.
    pub remedies: &'static [(i32, &'static str)],
    /// The layer of isolation that it belongs to.
    pub layer: Option<Layer>,
}

impl Step {
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), path: None, remedies: &[], layer: None }
    }

    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub fn remedies(mut self, remedies: &'static [(i32, &'static str)]) -> Self {
        self.remedies = remedies;
        self
    }
}

/// A value that only the launch knows: mostly the number of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The channel of reports to the host.
    Report,
    /// Read end of a pipe whose other end the host holds for as long as the sandbox may live.
    Control,
    /// pidfd of the host.
    Host,
    /// The image to execute.
    Image,
    /// The file that holds the image's data, which the caller reads too.
    Data,
    /// First and last descriptor of a gap between those that are kept.
    GapFirst(u16),
    GapLast(u16),
    /// A descriptor that the plan holds, by index.
    Descriptor(u16),
    /// A standard stream of the command.
    Stdio(u8),
    /// What the command gets for a descriptor that the plan holds, by index.
    Handed(u16),
    /// What a call of the host has stored: a descriptor.
    FromHost(Slot),
    /// A user namespace whose maps are an id mapping of the plan, by index.
    IdMapping(u16),
    /// The host id that the sandbox has for itself.
    OwnId,
    /// The first or the second half of the same as text.
    OwnIdText(u8),
    /// A word of the mask of processors that the program may use, or 0 if they are not known.
    Affinity(u8),
    /// The number by which the seccomp filter allows the set-up's calls: each sandbox has one of its own.
    Pass,
    /// An instruction of the filter that compares a half of it: without that half, and how far the half is shifted.
    Comparison {
        instruction: u32,
        shift: u32,
    },
    /// A number, for a message that is made of slots.
    Value(u64),
}

impl Input {
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Report => "<report>".into(),
            Self::Control => "<control>".into(),
            Self::Host => "<pidfd of the host>".into(),
            Self::Image => "<image>".into(),
            Self::Data => "<data of the image>".into(),
            Self::GapFirst(n) => format!("<first of gap {n}>").into(),
            Self::GapLast(n) => format!("<last of gap {n}>").into(),
            Self::Descriptor(n) => format!("<descriptor {n}>").into(),
            Self::Stdio(0) => "<stdin>".into(),
            Self::Stdio(1) => "<stdout>".into(),
            Self::Stdio(_) => "<stderr>".into(),
            Self::Handed(n) => format!("<descriptor {n}>").into(),
            Self::FromHost(Slot(n)) => format!("<{n} of the host>").into(),
            Self::IdMapping(n) => format!("<id mapping {n}>").into(),
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

/// Where a slot has its first value from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotInfo {
    pub name: Cow<'static, str>,
    /// Without one it is 0 at first.
    pub first: Option<Address>,
}

/// A list of calls with its data, for one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub title: &'static str,
    pub calls: Vec<Call>,
    pub arena: Arena,
    pub steps: Vec<Step>,
    pub slots: Vec<SlotInfo>,
    inputs: Vec<(Input, Slot)>,
    labels: Vec<Option<u32>>,
    layer: Option<Layer>,
    /// What certain calls, by their numbers, carry as their sixth argument, which none of them has.
    pass: Option<(Slot, Vec<u32>)>,
}

impl Program {
    /// Slots with a meaning of their own to the interpreter: see the head of its source.
    pub(super) const RESERVED: [&'static str; 9] =
        ["_", "<report>", "_", "_", "pid of the init", "pid of the command", "_", "_", "_"];
    /// Where the table begins, and the entry that was begun last by any process of the image: two addresses.
    pub const TABLE: Slot = Slot(6);
    pub const PROGRESS: Slot = Slot(8);

    /// The pids of the init and of the command, which come along with every report; 0 until they are started.
    pub const INIT: Slot = Slot(4);
    pub const COMMAND: Slot = Slot(5);

    pub fn new(title: &'static str) -> Self {
        Self::with_room(title, 0)
    }

    /// With room for a number of calls.
    pub fn with_room(title: &'static str, calls: usize) -> Self {
        let mut slots: Vec<_> =
            Self::RESERVED.iter().map(|&name| SlotInfo { name: name.into(), first: None }).collect();
        slots[1].first = Some(Address::Input(Input::Report));
        let inputs = vec![(Input::Report, Slot(1))];
        Self {
            title,
            calls: Vec::with_capacity(calls),
            arena: Arena::default(),
            steps: vec![],
            slots,
            inputs,
            labels: vec![],
            layer: None,
            pass: None,
        }
    }

    /// The calls from here on belong to `step`.
    pub fn step(&mut self, step: Step) {
        self.steps.push(Step { layer: self.layer, ..step });
    }

    /// The same with steps that all belong to a layer.
    pub fn of(self, layer: Layer) -> Self {
        Self { layer: Some(layer), ..self }
    }

    /// The steps that are begun in `calls` belong to a layer.
    pub fn within<T>(&mut self, layer: Layer, calls: impl FnOnce(&mut Self) -> T) -> T {
        let around = self.layer.replace(layer);
        let result = calls(self);
        self.layer = around;
        result
    }

    /// A slot for a result.
    pub fn slot(&mut self, name: impl Into<Cow<'static, str>>) -> Slot {
        self.slots.push(SlotInfo { name: name.into(), first: None });
        Slot((self.slots.len() - 1) as u16)
    }

    /// The slot that holds `input`.
    pub fn input(&mut self, input: Input) -> Slot {
        if let Some(&(_, slot)) = self.inputs.iter().find(|(known, _)| *known == input) {
            return slot;
        }
        // Its name is made when it is shown.
        let slot = self.slot("");
        self.slots[slot.0 as usize].first = Some(Address::Input(input));
        self.inputs.push((input, slot));
        slot
    }

    /// A slot of its own that holds a number at first.
    pub fn value(&mut self, name: impl Into<Cow<'static, str>>, value: u64) -> Slot {
        let slot = self.slot(name);
        self.slots[slot.0 as usize].first = Some(Address::Input(Input::Value(value)));
        slot
    }

    /// A slot of its own that holds the address of another one.
    pub fn pointer(&mut self, name: &'static str, to: Slot) -> Slot {
        let slot = self.slot(name);
        self.slots[slot.0 as usize].first = Some(Address::Slot(to));
        slot
    }

    /// What the launch has to supply.
    pub fn inputs(&self) -> impl Iterator<Item = Input> + '_ {
        self.inputs.iter().map(|&(input, _)| input)
    }

    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label((self.labels.len() - 1) as u32)
    }

    /// Binds a label to the next call.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = Some(self.calls.len() as u32);
    }

    /// The index of the call that a label stands for; 0 is none.
    pub fn target(&self, label: Option<Label>) -> u32 {
        label.and_then(|label| self.labels[label.0 as usize]).unwrap_or(0)
    }

    /// Whether a call or a slot has a number that the interpreter's table has no room for.
    pub fn is_too_long(&self) -> bool {
        self.calls.len().max(self.slots.len()) > u16::MAX.into()
    }

    /// How many descriptors are open at most: those that came from the host, and those that calls have stored.
    pub fn open_descriptors(&self) -> u32 {
        let inputs = self.inputs().filter(|input| input.is_descriptor()).count();
        let stored = self.calls.iter().filter(|call| call.store.is_some()).count();
        let closed = self.calls.iter().filter(|call| call.nr == super::nr!(SYS_close)).count();
        (inputs + stored.saturating_sub(closed)) as u32
    }

    /// The last call that a branch of `call` leads to.
    pub fn furthest(&self, call: &Call) -> u32 {
        let error = match call.on_error {
            OnError::Goto(label) | OnError::GotoIf(_, label) => Some(label),
            OnError::Fail | OnError::Ignore => None,
        };
        self.target(error).max(self.target(call.above_zero))
    }

    /// Appends a call that fails the program when it fails.
    pub fn call<const N: usize>(&mut self, nr: Nr, given: [Arg; N]) -> Added<'_> {
        let mut args = [Arg::NONE; 6];
        args[..N].copy_from_slice(&given);
        let pass = self.pass.as_ref().filter(|(_, carrying)| carrying.contains(&nr.number)).map(|&(pass, _)| pass);
        if let Some(pass) = pass {
            args[5] = pass.into();
        }
        let step = self.steps.len().saturating_sub(1) as u32;
        let call = Call {
            nr,
            args,
            arity: if pass.is_some() { 6 } else { N as u8 },
            again: false,
            store: None,
            on_error: OnError::Fail,
            above_zero: None,
            step,
        };
        self.calls.push(call);
        Added(self)
    }

    /// Has certain calls from here on carry the pass as their sixth argument, by which a filter lets them through.
    pub fn carry_pass(&mut self, calls: Vec<u32>) {
        self.pass = Some((self.input(Input::Pass), calls));
    }

    /// The calls from here on carry none any more.
    pub fn drop_pass(&mut self) {
        self.pass = None;
    }

    /// Goes on elsewhere: by a call that never fails and is never 0.
    pub fn jump(&mut self, label: Label) {
        self.call(super::nr!(SYS_gettid), []).above_zero(label);
    }

    /// The call that was appended last, to say more about it.
    pub fn last(&mut self) -> Added<'_> {
        Added(self)
    }

    /// A string in the arena.
    pub fn text(&mut self, text: impl AsRef<std::ffi::OsStr>) -> Arg {
        self.arena.text(text).into()
    }

    /// The addresses of `texts`, and a null pointer: what `execve` takes.
    pub fn vector<T: AsRef<std::ffi::OsStr>>(&mut self, texts: impl IntoIterator<Item = T>) -> Ref {
        let refs: Vec<Ref> = texts.into_iter().map(|text| self.arena.text(text)).collect();
        let shown: Vec<String> = refs.iter().map(|&place| self.arena.show(place)).collect();
        let words: Vec<Word> = refs.into_iter().map(Word::from).chain([Word::Value(0)]).collect();
        self.arena.words(&words, format!("[{}]", shown.join(", ")))
    }

    /// The address of a slot, as a word of a structure.
    pub fn slot_word(slot: Slot) -> Word {
        Word::Address(Address::Slot(slot))
    }
}

/// The call that was appended last, to say more about it.
pub(crate) struct Added<'a>(&'a mut Program);

impl Added<'_> {
    fn last(&mut self) -> &mut Call {
        let last = self.0.calls.len() - 1;
        &mut self.0.calls[last]
    }

    /// Keeps the result in a new slot.
    pub fn store(self, name: impl Into<Cow<'static, str>>) -> Slot {
        let slot = self.0.slot(name);
        self.store_in(slot)
    }

    /// Keeps the result in a slot that exists.
    pub fn store_in(mut self, slot: Slot) -> Slot {
        self.last().store = Some(slot);
        slot
    }

    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.last().on_error = on_error;
        self
    }

    pub fn ignore(self) -> Self {
        self.on_error(OnError::Ignore)
    }

    pub fn or_goto(self, label: Label) -> Self {
        self.on_error(OnError::Goto(label))
    }

    pub fn again(mut self) -> Self {
        self.last().again = true;
        self
    }

    pub fn above_zero(mut self, label: Label) -> Self {
        self.last().above_zero = Some(label);
        self
    }
}
