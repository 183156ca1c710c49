//! Lays out a script in memory, as the interpreter reads it: slots, the table of calls, and data.

use crate::plan::{Address, Arg, Call, Input, OnError, Script};

/// Bytes of an entry of the table.
pub(crate) const ENTRY: usize = 64;
/// The number of a system call that no kernel has. A fault test puts it in the place of another. The interpreter extends
/// its sign: with the bit of x32 in it, filters of this crate deny the call at once, without the caller.
const NO_CALL: u32 = 0xfffe;

/// A script, with what its layout depends on.
pub(crate) struct Layout<'a> {
    pub script: &'a Script,
    /// The number that is added to the index of a call in a report.
    pub tag: u64,
    /// The index of a call that is made to fail.
    pub fault: Option<usize>,
    /// Returns the value of an input.
    pub resolve: &'a dyn Fn(Input) -> u64,
}

/// The words of an image, to be written to a file.
pub(crate) struct ImageWords(Vec<u64>);

impl ImageWords {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: every byte of a word is a valid byte, and the slice covers exactly the words.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(self.0.as_slice())) }
    }
}

impl Layout<'_> {
    /// The size of the memory, in words.
    pub fn words(&self) -> usize {
        (self.data_offset() + self.script.arena.len()).div_ceil(8)
    }

    fn table_offset(&self) -> usize {
        self.script.slots.len() * 8
    }

    fn data_offset(&self) -> usize {
        self.table_offset() + self.script.calls.len() * ENTRY
    }

    /// Lays out the script at its own address in this process.
    pub fn in_place(&self) -> Vec<u64> {
        let mut memory = vec![0; self.words()];
        let base = memory.as_ptr() as u64;
        self.fill(&mut memory, base);
        memory
    }

    /// Lays out the script for memory that begins at `base`.
    pub fn at(&self, base: u64) -> ImageWords {
        let mut memory = vec![0; self.words()];
        self.fill(&mut memory, base);
        ImageWords(memory)
    }

    fn fill(&self, memory: &mut [u64], base: u64) {
        let (slots, rest) = memory.split_at_mut(self.script.slots.len());
        let (table, data) = rest.split_at_mut(self.script.calls.len() * ENTRY / 8);
        for (slot, info) in slots.iter_mut().zip(&self.script.slots) {
            *slot = info.first.map_or(0, |first| self.address(first, base));
        }
        slots[6] = base + self.table_offset() as u64;
        slots[7] = self.tag;
        for (index, (call, entry)) in self.script.calls.iter().zip(table.chunks_exact_mut(ENTRY / 8)).enumerate() {
            self.entry(call, self.fault == Some(index), base, entry);
        }
        let bytes = self.script.arena.relocated(|address| self.address(address, base));
        for (word, bytes) in data.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
    }

    fn address(&self, address: Address, base: u64) -> u64 {
        match address {
            Address::Data(place) => base + (self.data_offset() + self.script.arena.offset(place)) as u64,
            Address::Slot(slot) => base + u64::from(slot.0) * 8,
            Address::Input(input) => (self.resolve)(input),
        }
    }

    fn entry(&self, call: &Call, faulty: bool, base: u64, entry: &mut [u64]) {
        let mut mask = 0u64;
        for (index, arg) in call.args().iter().enumerate() {
            entry[1 + index] = match *arg {
                Arg::Imm(_) | Arg::Bits(..) | Arg::Named(_) | Arg::Octal(_) => arg.number().unwrap_or_default(),
                Arg::Slot(slot) => {
                    mask |= 1 << index;
                    slot.0.into()
                }
                Arg::SlotAddress(slot) => self.address(Address::Slot(slot), base),
                Arg::Data(place) => self.address(Address::Data(place), base),
            };
        }
        let (on_error, errors, label) = match call.on_error {
            OnError::Fail => (0, [0, 0], None),
            OnError::Ignore => (1, [0, 0], None),
            OnError::Goto(label) => (2, [0, 0], Some(label)),
            OnError::GotoIf(errors, label) => (2, errors, Some(label)),
        };
        let target = self.script.target(label);
        let on_error = on_error | u64::from(call.again) << 7;
        let number = if faulty { NO_CALL } else { call.nr.number };
        let store = call.store.map_or(0, |slot| slot.0);
        let number = u64::from(number as u16) | u64::from(errors[0]) << 16 | u64::from(errors[1]) << 24;
        entry[0] = number | u64::from(store) << 32 | mask << 48 | on_error << 56;
        entry[7] = u64::from(target) | u64::from(self.script.target(call.above_zero)) << 32;
    }
}
