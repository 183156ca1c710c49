//! A subscriber of the crate tracing that keeps what it gets.
//!
//! The first thread that reaches a span asks all subscribers whether they are interested, and tracing-core keeps the answer. It
//! misses a subscriber that another thread adds at that moment. So one lives from the beginning of the process to its end.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

/// A span or an event.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub is_span: bool,
    pub name: String,
    /// The name of the span that it is in.
    pub within: String,
    pub fields: BTreeMap<String, String>,
    pub is_closed: bool,
}

impl Seen {
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.name = value;
        } else {
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

/// A subscriber that keeps everything of the crate's.
#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    seen: Vec<Seen>,
    metadata: Vec<Option<&'static Metadata<'static>>>,
    entered: Vec<(ThreadId, usize)>,
    references: BTreeMap<usize, usize>,
}

impl Kept {
    fn current(&self) -> Option<usize> {
        let own = std::thread::current().id();
        self.entered.iter().rev().find(|(thread, _)| *thread == own).map(|(_, span)| *span)
    }

    fn keep(&mut self, mut seen: Seen, metadata: Option<&'static Metadata<'static>>) -> usize {
        seen.within = self.current().map(|span| self.seen[span].name.clone()).unwrap_or_default();
        self.seen.push(seen);
        self.metadata.push(metadata);
        self.seen.len() - 1
    }
}

fn index(id: &Id) -> usize {
    id.into_u64() as usize - 1
}

fn id(index: usize) -> Id {
    Id::from_non_zero_u64(NonZeroU64::MIN.saturating_add(index as u64))
}

impl Collector {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().expect("no panic"))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.with(|kept| kept.seen.clone())
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "stockade" || metadata.name() == "caller"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = Seen { is_span: true, name: span.metadata().name().to_owned(), ..Seen::default() };
        span.record(&mut seen);
        let index = self.with(|kept| kept.keep(seen, Some(span.metadata())));
        self.with(|kept| kept.references.insert(index, 1));
        id(index)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.with(|kept| values.record(&mut kept.seen[index(span)]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        self.with(|kept| kept.keep(seen, None));
    }

    fn enter(&self, span: &Id) {
        self.with(|kept| kept.entered.push((std::thread::current().id(), index(span))));
    }

    fn exit(&self, span: &Id) {
        let (own, left) = (std::thread::current().id(), index(span));
        self.with(|kept| {
            let last = kept.entered.iter().rposition(|entered| *entered == (own, left)).expect("it was entered");
            kept.entered.remove(last);
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.with(|kept| *kept.references.get_mut(&index(span)).expect("a span") += 1);
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        self.with(|kept| {
            let count = kept.references.get_mut(&index(&span)).expect("a span");
            *count -= 1;
            kept.seen[index(&span)].is_closed = *count == 0;
            *count == 0
        })
    }

    fn current_span(&self) -> Current {
        self.with(|kept| match kept.current() {
            Some(current) => Current::new(id(current), kept.metadata[current].expect("a span")),
            None => Current::none(),
        })
    }
}
