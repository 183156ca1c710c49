//! A program laid out in memory: its slots, the table of its calls, and its data, as the interpreter reads them.

use crate::plan::{Address, Arg, Call, Input, OnError, Program};

/// Bytes of an entry of the table.
pub(super) const ENTRY: usize = 64;
/// A system call that no kernel has: what a fault test puts in the place of another.
const NO_CALL: u32 = 0x7fff_ffff;

/// How a program is laid out beside its calls.
pub(super) struct Layout<'a> {
    pub program: &'a Program,
    /// What is added to the index of a call in a report.
    pub tag: u64,
    /// A call that is made to fail.
    pub fault: Option<usize>,
    /// The value of an input.
    pub resolve: &'a dyn Fn(Input) -> u64,
}

impl Layout<'_> {
    /// Words of memory that the program takes.
    pub fn words(&self) -> usize {
        (self.data_offset() + self.program.arena.len()).div_ceil(8)
    }

    fn table_offset(&self) -> usize {
        self.program.slots.len() * 8
    }

    fn data_offset(&self) -> usize {
        self.table_offset() + self.program.calls.len() * ENTRY
    }

    /// The program for a host in this process: it runs where it stands.
    pub fn in_place(&self) -> Vec<u64> {
        let mut memory = vec![0; self.words()];
        let base = memory.as_ptr() as u64;
        self.fill(&mut memory, base);
        memory
    }

    /// The program for memory that begins at `base`.
    pub fn at(&self, base: u64) -> Vec<u64> {
        let mut memory = vec![0; self.words()];
        self.fill(&mut memory, base);
        memory
    }

    fn fill(&self, memory: &mut [u64], base: u64) {
        let (slots, rest) = memory.split_at_mut(self.program.slots.len());
        let (table, data) = rest.split_at_mut(self.program.calls.len() * ENTRY / 8);
        for (slot, info) in slots.iter_mut().zip(&self.program.slots) {
            *slot = info.first.map_or(0, |first| self.address(first, base));
        }
        slots[6] = base + self.table_offset() as u64;
        slots[7] = self.tag;
        for (index, (call, entry)) in self.program.calls.iter().zip(table.chunks_exact_mut(ENTRY / 8)).enumerate() {
            self.entry(call, self.fault == Some(index), base, entry);
        }
        let bytes = self.program.arena.relocated(|address| self.address(address, base));
        for (word, bytes) in data.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
    }

    fn address(&self, address: Address, base: u64) -> u64 {
        match address {
            Address::Data(place) => base + (self.data_offset() + self.program.arena.offset(place)) as u64,
            Address::Slot(slot) => base + u64::from(slot.0) * 8,
            Address::Input(input) => (self.resolve)(input),
        }
    }

    fn entry(&self, call: &Call, faulty: bool, base: u64, entry: &mut [u64]) {
        let mut mask = 0u64;
        for (index, arg) in call.given().iter().enumerate() {
            entry[1 + index] = match *arg {
                Arg::Imm(value) => value,
                Arg::Bits(value, _) => value.into(),
                Arg::Named(constant) => constant.value,
                Arg::Octal(mode) => mode.into(),
                Arg::Slot(slot) => {
                    mask |= 1 << index;
                    slot.0.into()
                }
                Arg::SlotAddress(slot) => self.address(Address::Slot(slot), base),
                Arg::Data(place) => self.address(Address::Data(place), base),
            };
        }
        let (on_error, target) = match call.on_error {
            OnError::Fail => (0, 0),
            OnError::Ignore => (1, 0),
            OnError::Goto(label) => (2, self.program.target(Some(label))),
            OnError::GotoIf([one, other], label) => {
                (2, self.program.target(Some(label)) | u32::from(one) << 16 | u32::from(other) << 24)
            }
        };
        let on_error = on_error | u64::from(call.again) << 7;
        let number = if faulty { NO_CALL } else { call.nr.number };
        let store = call.store.map_or(0, |slot| slot.0);
        entry[0] = u64::from(number) | u64::from(store) << 32 | mask << 48 | on_error << 56;
        entry[7] = u64::from(target) | u64::from(self.program.target(call.above_zero)) << 32;
    }
}
