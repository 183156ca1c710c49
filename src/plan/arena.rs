//! The data that the calls of a script point to: strings, structures, buffers. Addresses are not known yet: a word that
//! holds one is recorded as a relocation, and filled in when the script is laid out in memory (`sys/layout.rs`).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::mount_attr::Change;
use super::value::{Address, Ref, Word};

/// How an item is displayed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Show {
    Text,
    Buffer,
    Described(Cow<'static, str>),
    Attributes(Change),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    offset: usize,
    len: usize,
    show: Show,
}

/// The data of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    items: Vec<Item>,
    relocations: Vec<(usize, Address)>,
}

impl Arena {
    fn put(&mut self, bytes: &[u8], show: Show) -> Ref {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.items.push(Item { offset, len: bytes.len(), show });
        Ref { item: (self.items.len() - 1) as u32, plus: 0 }
    }

    /// Adds a string with its terminating zero byte. It must contain no other one.
    pub fn text(&mut self, text: impl AsRef<OsStr>) -> Ref {
        let place = self.put(text.as_ref().as_bytes(), Show::Text);
        self.bytes.push(0);
        self.items[place.item as usize].len += 1;
        place
    }

    /// Adds a structure or file contents, displayed as `description`.
    pub fn bytes(&mut self, bytes: &[u8], description: impl Into<Cow<'static, str>>) -> Ref {
        self.put(bytes, Show::Described(description.into()))
    }

    /// Adds a zeroed buffer that a call fills.
    pub fn buffer(&mut self, len: usize) -> Ref {
        self.put(&vec![0; len], Show::Buffer)
    }

    /// Adds a structure of 64-bit words, some of which hold addresses.
    pub fn words(&mut self, words: &[Word], description: impl Into<Cow<'static, str>>) -> Ref {
        let at = self.put(&vec![0; words.len() * 8], Show::Described(description.into()));
        let offset = self.items[at.item as usize].offset;
        for (index, word) in words.iter().enumerate() {
            let place = offset + index * 8;
            match *word {
                Word::Value(value) => self.bytes[place..place + 8].copy_from_slice(&value.to_ne_bytes()),
                Word::Address(address) => self.relocations.push((place, address)),
            }
        }
        at
    }

    /// Adds the `struct mount_attr` of a change.
    pub fn attributes(&mut self, change: Change) -> Ref {
        let propagation = if change.private { libc::MS_PRIVATE } else { 0 };
        let words = [change.set.bits(), change.clear.bits(), propagation, 0];
        self.put(words.map(u64::to_ne_bytes).as_flattened(), Show::Attributes(change))
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The offset of an item in bytes.
    pub fn offset(&self, place: Ref) -> usize {
        self.items[place.item as usize].offset + place.plus as usize
    }

    /// The number of bytes from a position to the end of its item.
    pub fn room(&self, place: Ref) -> usize {
        self.items.get(place.item as usize).map_or(0, |item| item.len.saturating_sub(place.plus as usize))
    }

    /// The bytes, with every relocated word filled in by `resolve`.
    pub fn relocated(&self, resolve: impl Fn(Address) -> u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for &(place, address) in &self.relocations {
            bytes[place..place + 8].copy_from_slice(&resolve(address).to_ne_bytes());
        }
        bytes
    }

    /// Displays an item.
    pub fn show(&self, place: Ref) -> String {
        let item = &self.items[place.item as usize];
        match &item.show {
            Show::Text => {
                let text = &self.bytes[item.offset..item.offset + item.len.saturating_sub(1)];
                format!("{:?}", String::from_utf8_lossy(text))
            }
            Show::Buffer => format!("<{} bytes>", item.len),
            Show::Described(text) => text.clone().into_owned(),
            Show::Attributes(change) => change.to_string(),
        }
    }
}
