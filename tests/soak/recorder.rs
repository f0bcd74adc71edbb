//! Takes down what all clients do: the history, and counts and latencies for the figures.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::history::{Change, History, Micros, Observation, Outcome, Seen, Span, Value};

/// Counts and the longest time of one kind of operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OperationFigures {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) longest: Micros,
}

/// The record of a run. All clients share it.
pub(crate) struct Recorder {
    started: Instant,
    next_number: AtomicU64,
    history: Mutex<History>,
    figures: Mutex<BTreeMap<&'static str, OperationFigures>>,
    faults: Mutex<Vec<String>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            // 1 is the value of what is allowed.
            next_number: AtomicU64::new(2),
            history: Mutex::default(),
            figures: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Micros {
        Micros::try_from(self.started.elapsed().as_micros()).expect("a short run")
    }

    /// Returns the time from `start` to now.
    pub(crate) fn since(&self, start: Micros) -> Span {
        Span { start, end: self.now() }
    }

    /// Returns a number for a content or operation that no other has.
    pub(crate) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn change(&self, change: Change) {
        self.history.lock().expect("no panic").changes.push(change);
    }

    /// Records the change of a token, grant, scope or lock, which has no entity tag.
    pub(crate) fn permission(&self, register: &str, value: Value, span: Span, outcome: Outcome) {
        let operation = self.new_number();
        self.change(Change { register: register.to_owned(), operation, value, span, outcome, etag: None });
    }

    pub(crate) fn observe(&self, register: &str, seen: Seen, span: Span, etag: Option<String>) {
        let observation = Observation { register: register.to_owned(), seen, span, etag };
        self.history.lock().expect("no panic").observations.push(observation);
    }

    pub(crate) fn count(&self, kind: &'static str, span: Span, outcome: Outcome) {
        let mut figures = self.figures.lock().expect("no panic");
        let figures = figures.entry(kind).or_default();
        match outcome {
            Outcome::Acknowledged => figures.acknowledged += 1,
            Outcome::Refused => figures.refused += 1,
            Outcome::Unknown => figures.unknown += 1,
        }
        // One whose connection was lost has waited for the end of the server.
        if outcome != Outcome::Unknown {
            figures.longest = figures.longest.max(span.end - span.start);
        }
    }

    /// Records what is wrong whatever the history says: a status that no request should have, a server that does not start.
    pub(crate) fn fault(&self, what: impl Into<String>) {
        let what = format!("at {} s: {}", self.now() / 1_000_000, what.into());
        println!("FAULT {what}");
        self.faults.lock().expect("no panic").push(what);
    }

    pub(crate) fn history(&self) -> History {
        self.history.lock().expect("no panic").clone()
    }

    pub(crate) fn operation_figures(&self) -> BTreeMap<&'static str, OperationFigures> {
        self.figures.lock().expect("no panic").clone()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().expect("no panic").clone()
    }
}
