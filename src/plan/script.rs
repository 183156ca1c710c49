//! A script under construction: the list of calls, to which the layers of `confine` append theirs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;

use super::arena::Arena;
use super::call::{Arg, Call, Nr, OnError, SWITCH, SWITCH_TO_STACK, VALUE};
use super::value::{Address, Input, Label, Ref, Slot, Word};
use crate::advice::Need;
use crate::layer::Layer;

/// The purpose of a group of calls, as errors and the plan's display name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// A verb with its object, as it follows "failed to": "mount a proc file system on".
    pub what: Cow<'static, str>,
    /// The path that it is about, if there is one.
    pub path: Option<PathBuf>,
    /// What it needs of the host, by which [`advice`](crate::advice) explains its failure.
    pub need: Option<Need>,
    /// Hints about what the configuration asks for, by errno.
    pub remedies: &'static [(i32, &'static str)],
    /// The layer that it belongs to.
    pub layer: Option<Layer>,
}

impl Step {
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), path: None, need: None, remedies: &[], layer: None }
    }

    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub fn needs(mut self, need: Need) -> Self {
        self.need = Some(need);
        self
    }

    pub fn remedies(mut self, remedies: &'static [(i32, &'static str)]) -> Self {
        self.remedies = remedies;
        self
    }
}

/// The name and the initial value of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotInfo {
    pub name: Cow<'static, str>,
    /// The initial value. `None` is 0.
    pub first: Option<Address>,
}

/// A place among the calls, and the calls that are to be inserted there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mark {
    at: usize,
    calls: Vec<Call>,
    /// The labels that are bound to these calls.
    labels: Vec<Label>,
    free: FreeSlots,
}

/// Slots whose values no later call uses, by their names. The calls at a mark precede others that were added before, so
/// they have slots of their own.
type FreeSlots = BTreeMap<Cow<'static, str>, Vec<Slot>>;

/// The calls of one process, with their data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub title: &'static str,
    pub calls: Vec<Call>,
    pub arena: Arena,
    pub steps: Vec<Step>,
    pub slots: Vec<SlotInfo>,
    inputs: Vec<(Input, Slot)>,
    labels: Vec<Option<u32>>,
    /// The index of the step that calls are added to.
    step: u32,
    layer: Option<Layer>,
    mark: Mark,
    free: FreeSlots,
    /// The pass, and the numbers of the calls that carry it as their sixth argument, which they do not use. The seccomp
    /// filter lets these calls through.
    pass: Option<(Slot, Vec<u32>)>,
}

impl Script {
    /// Slots that the interpreter uses: see the head of its source.
    pub(crate) const RESERVED: [&'static str; 9] =
        ["_", "<report>", "_", "_", "pid of the init", "pid of the command", "_", "_", "_"];
    /// The address of the table, and of the entry that a process of the image has begun last.
    pub const TABLE: Slot = Slot(6);
    pub const PROGRESS: Slot = Slot(8);

    /// The PIDs of init and of the program's process, which are part of every report. 0 until they are started.
    pub const INIT: Slot = Slot(4);
    pub const COMMAND: Slot = Slot(5);

    pub fn new(title: &'static str) -> Self {
        Self::with_room(title, 0)
    }

    /// Creates a script with room for a number of calls.
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
            step: 0,
            layer: None,
            mark: Mark::default(),
            free: FreeSlots::default(),
            pass: None,
        }
    }

    /// Creates a script for a process under the same filter, whose calls carry the pass like those that are added to this
    /// one from here on.
    pub fn with_same_pass(&self) -> Self {
        let mut script = Self::new(self.title);
        if let Some((_, calls)) = &self.pass {
            script.carry_pass(calls.clone());
        }
        script
    }

    /// Begins a step: the calls from here on belong to it.
    pub fn step(&mut self, step: Step) {
        self.steps.push(Step { layer: self.layer, ..step });
        self.step = self.steps.len() as u32 - 1;
    }

    /// Marks the place before the next call.
    pub fn mark(&mut self) {
        self.mark.at = self.calls.len();
    }

    /// Adds calls whose place is the mark, after those that were added there before. They are part of the script once
    /// [`insert_at_mark`](Self::insert_at_mark) was called.
    pub fn at_mark<T>(&mut self, calls: impl FnOnce(&mut Self) -> T) -> T {
        let (step, labels) = (self.step, self.labels.len());
        self.exchange_with_mark();
        let result = calls(self);
        self.exchange_with_mark();
        self.mark.labels.extend((labels..self.labels.len()).map(|index| Label(index as u32)));
        self.step = step;
        result
    }

    fn exchange_with_mark(&mut self) {
        mem::swap(&mut self.calls, &mut self.mark.calls);
        mem::swap(&mut self.free, &mut self.mark.free);
    }

    /// Inserts the calls that were added at the mark.
    pub fn insert_at_mark(&mut self) {
        let Mark { at, calls, labels, .. } = &mut self.mark;
        let (first, count) = (*at as u32, calls.len() as u32);
        let mut is_marked = vec![false; self.labels.len()];
        labels.drain(..).for_each(|label| is_marked[label.0 as usize] = true);
        for (target, is_marked) in self.labels.iter_mut().zip(is_marked) {
            *target = target.map(|call| match is_marked {
                true => call + first,
                false if call > first => call + count,
                false => call,
            });
        }
        self.calls.splice(*at..*at, calls.drain(..));
    }

    /// Sets the layer of the steps that `calls` begins.
    pub fn within<T>(&mut self, layer: Layer, calls: impl FnOnce(&mut Self) -> T) -> T {
        let around = self.layer.replace(layer);
        let result = calls(self);
        self.layer = around;
        result
    }

    /// Adds a slot for a result.
    pub fn slot(&mut self, name: impl Into<Cow<'static, str>>) -> Slot {
        self.slots.push(SlotInfo { name: name.into(), first: None });
        Slot((self.slots.len() - 1) as u16)
    }

    /// Returns a slot for a result: a free one of this name, or a new one.
    pub fn reusable_slot(&mut self, name: &'static str) -> Slot {
        self.free.get_mut(name).and_then(Vec::pop).unwrap_or_else(|| self.slot(name))
    }

    /// Lets the slot of a result be used again. No call that is added from here on may use its value.
    pub fn free(&mut self, slot: Slot) {
        let name = self.slots[slot.0 as usize].name.clone();
        self.free.entry(name).or_default().push(slot);
    }

    /// Adds a slot that holds the address of data.
    pub fn data_pointer(&mut self, name: &'static str, to: Ref) -> Slot {
        let slot = self.slot(name);
        self.slots[slot.0 as usize].first = Some(Address::Data(to));
        slot
    }

    /// Returns the slot that holds an input, and adds it if it is new.
    pub fn input(&mut self, input: Input) -> Slot {
        if let Some(&(_, slot)) = self.inputs.iter().find(|(known, _)| *known == input) {
            return slot;
        }
        // Its name is computed when it is displayed.
        let slot = self.slot("");
        self.slots[slot.0 as usize].first = Some(Address::Input(input));
        self.inputs.push((input, slot));
        slot
    }

    /// Adds a slot with a number as its initial value.
    pub fn value(&mut self, name: impl Into<Cow<'static, str>>, value: u64) -> Slot {
        let slot = self.slot(name);
        self.slots[slot.0 as usize].first = Some(Address::Input(Input::Value(value)));
        slot
    }

    /// Adds a slot that holds the address of another one.
    pub fn pointer(&mut self, name: &'static str, to: Slot) -> Slot {
        let slot = self.slot(name);
        self.slots[slot.0 as usize].first = Some(Address::Slot(to));
        slot
    }

    /// The inputs that the launch has to supply.
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

    /// The index of the call that a label is bound to. 0 for none.
    pub fn target(&self, label: Option<Label>) -> u32 {
        label.and_then(|label| self.labels[label.0 as usize]).unwrap_or(0)
    }

    /// Whether there are more slots than the interpreter's table can refer to.
    pub fn is_too_long(&self) -> bool {
        self.slots.len() > u16::MAX.into()
    }

    /// The maximum number of open descriptors: those inherited from the caller, and those that calls have stored.
    pub fn open_descriptors(&self) -> u32 {
        let mut is_closed = vec![false; self.slots.len()];
        for call in self.calls.iter().filter(|call| call.nr == super::nr!(SYS_close)) {
            if let Arg::Slot(slot) = call.args[0] {
                is_closed[slot.0 as usize] = true;
            }
        }
        let is_open = |slot: &Slot| !is_closed[slot.0 as usize];
        let inputs = self.inputs.iter().filter(|(input, slot)| input.is_descriptor() && is_open(slot)).count();
        let stored = self.calls.iter().filter_map(|call| call.store).filter(is_open).count();
        (inputs + stored) as u32
    }

    /// The number of descriptors that are open at once, where most are. It may be a few too high, since it counts every
    /// result that is stored.
    pub fn most_descriptors(&self) -> u64 {
        let mut is_open = vec![false; self.slots.len()];
        for (_, slot) in self.inputs.iter().filter(|(input, _)| input.is_descriptor()) {
            is_open[slot.0 as usize] = true;
        }
        let mut open = is_open.iter().filter(|&&is_open| is_open).count();
        let mut most = open;
        for call in &self.calls {
            let (slot, opens) = match (call.store, call.args[0]) {
                (Some(slot), _) => (slot, true),
                (None, Arg::Slot(slot)) if call.nr == super::nr!(SYS_close) => (slot, false),
                _ => continue,
            };
            match (mem::replace(&mut is_open[slot.0 as usize], opens), opens) {
                (false, true) => open += 1,
                (true, false) => open -= 1,
                _ => {}
            }
            most = most.max(open);
        }
        most as u64
    }

    /// Appends a call. If it fails, the error is reported and the process exits, unless the result is changed to say
    /// otherwise.
    pub fn call<const N: usize>(&mut self, nr: Nr, given: [Arg; N]) -> Added<'_> {
        let mut args = [Arg::NONE; 6];
        args[..N].copy_from_slice(&given);
        let pass = self.pass.as_ref().filter(|(_, carrying)| carrying.contains(&nr.number)).map(|&(pass, _)| pass);
        if let Some(pass) = pass {
            args[5] = pass.into();
        }
        let call = Call {
            nr,
            args,
            arity: if pass.is_some() { 6 } else { N as u8 },
            again: false,
            store: None,
            on_error: OnError::Fail,
            above_zero: None,
            step: self.step,
        };
        self.calls.push(call);
        Added(self)
    }

    /// Makes certain calls from here on carry the pass as their sixth argument, by which the seccomp filter allows
    /// them.
    pub fn carry_pass(&mut self, calls: Vec<u32>) {
        self.pass = Some((self.input(Input::Pass), calls));
    }

    /// Ends that: the calls from here on carry no pass.
    pub fn drop_pass(&mut self) {
        self.pass = None;
    }

    /// Goes on at a label, by a call that never fails and never returns 0.
    pub fn jump(&mut self, label: Label) {
        self.call(super::nr!(SYS_gettid), []).above_zero(label);
    }

    /// Goes on with another script, whose slots are at an address. It is laid out for that address, and all that it has
    /// in common with this one is the process.
    pub fn switch_to(&mut self, slots: u64) {
        self.call(SWITCH, [slots.into()]);
    }

    /// Goes on, in a clone, with the script whose address was passed to clone(2) as the stack: registers are all that a
    /// clone which shares the memory has of its own. Neither script uses a stack.
    pub fn switch_to_stack(&mut self) {
        self.call(SWITCH_TO_STACK, []);
    }

    /// Sets a slot to a number, other than 0.
    pub fn set(&mut self, slot: Slot, value: u64) {
        self.call(VALUE, [value.into()]).store_in(slot);
    }

    /// Sets a slot to the value of another one, other than 0.
    pub fn copy(&mut self, from: Slot, to: Slot) {
        self.call(VALUE, [from.into()]).store_in(to);
    }

    /// Goes on at the label if a slot holds a number above 0.
    pub fn jump_if_set(&mut self, slot: Slot, label: Label) {
        self.call(VALUE, [slot.into()]).above_zero(label);
    }

    /// Returns the last call, to change it.
    pub fn last(&mut self) -> Added<'_> {
        Added(self)
    }

    /// Adds a string to the arena.
    pub fn text(&mut self, text: impl AsRef<std::ffi::OsStr>) -> Arg {
        self.arena.text(text).into()
    }

    /// Adds an array of strings that ends with a null pointer, as execve(2) takes it.
    pub fn vector<T: AsRef<std::ffi::OsStr>>(&mut self, texts: impl IntoIterator<Item = T>) -> Ref {
        let refs: Vec<Ref> = texts.into_iter().map(|text| self.arena.text(text)).collect();
        let shown: Vec<String> = refs.iter().map(|&place| self.arena.show(place)).collect();
        let words: Vec<Word> = refs.into_iter().map(Word::from).chain([Word::Value(0)]).collect();
        self.arena.words(&words, format!("[{}]", shown.join(", ")))
    }

    /// Returns the address of a slot, as a word of a structure.
    pub fn slot_word(slot: Slot) -> Word {
        Word::Address(Address::Slot(slot))
    }
}

/// The last call of a script, to change it.
pub(crate) struct Added<'a>(&'a mut Script);

impl Added<'_> {
    fn last(&mut self) -> &mut Call {
        let last = self.0.calls.len() - 1;
        &mut self.0.calls[last]
    }

    /// Stores the result in a new slot.
    pub fn store(self, name: impl Into<Cow<'static, str>>) -> Slot {
        let slot = self.0.slot(name);
        self.store_in(slot)
    }

    /// Stores the result in an existing slot.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::nr;

    #[test]
    fn labels_lead_to_the_same_calls_when_others_are_inserted() {
        let mut script = Script::new("");
        let (first, last, inner) = (script.label(), script.label(), script.label());
        script.bind(first);
        script.call(nr!(SYS_getpid), []);
        script.mark();
        script.call(nr!(SYS_getppid), []).above_zero(last);
        script.at_mark(|script| {
            let skipped = script.label();
            script.call(nr!(SYS_getuid), []).above_zero(skipped);
            script.bind(skipped);
            script.call(nr!(SYS_getgid), []);
        });
        script.call(nr!(SYS_gettid), []);
        script.bind(last);
        script.call(nr!(SYS_sync), []);
        script.insert_at_mark();
        script.at_mark(|script| script.call(nr!(SYS_getsid), []).above_zero(inner).ignore().store("session"));
        script.bind(inner);
        script.insert_at_mark();
        let names: Vec<&str> = script.calls.iter().map(|call| call.nr.name.trim_start_matches("SYS_")).collect();
        assert_eq!(names, ["getpid", "getsid", "getuid", "getgid", "getppid", "gettid", "sync"]);
        let targets: Vec<u32> =
            script.calls.iter().filter_map(|call| call.above_zero).map(|label| script.target(Some(label))).collect();
        assert_eq!((script.target(Some(first)), targets), (0, vec![7, 3, 6]));
    }

    #[test]
    fn a_slot_is_used_again_once_it_is_free_and_not_by_calls_at_the_mark() {
        let mut script = Script::new("");
        let one = script.reusable_slot("fd");
        let other = script.reusable_slot("fd");
        script.close_and_free(one);
        let marked = script.at_mark(|script| script.reusable_slot("fd"));
        assert!(![one, other].contains(&marked));
        assert_ne!(script.reusable_slot("other"), one);
        assert_eq!(script.reusable_slot("fd"), one);
        assert_ne!(script.reusable_slot("fd"), other);
    }

    #[test]
    fn descriptors_are_counted_where_most_are_open() {
        let mut script = Script::new("");
        let inherited = script.most_descriptors();
        for _ in 0..3 {
            let fd = script.call(nr!(SYS_epoll_create1), [0.into()]).store("fd");
            script.close(fd);
        }
        let (one, other) = (script.slot("fd"), script.slot("fd"));
        for slot in [one, other, other] {
            script.call(nr!(SYS_epoll_create1), [0.into()]).store_in(slot);
        }
        script.close(one);
        script.close(one);
        assert_eq!(script.most_descriptors(), inherited + 2);
    }
}
