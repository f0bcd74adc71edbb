//! Counts of token uses and refusals: kept in memory by the hour, written to the store once a minute.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{COUNTER_STRIPES, Protocol, UnixMillis, UsageCount, UsageKind, stripe_of_thread};

/// Time between two writes of counts, and so the time whose counts a crash loses.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);

type CountTable = HashMap<(UnixMillis, Protocol, UsageKind), u64>;

/// Counts that are not in the store yet.
#[derive(Default)]
pub(super) struct UsageCounters {
    /// A thread adds to one of these, so that requests at the same time seldom wait for one another.
    stripes: [CountStripe; COUNTER_STRIPES],
    flushed_at: Mutex<Option<UnixMillis>>,
}

/// Counts of some threads, in cache lines of their own.
#[derive(Default)]
#[repr(align(128))]
struct CountStripe(Mutex<CountTable>);

impl UsageCounters {
    /// Counts one use or refusal.
    pub(super) fn increment(&self, now: UnixMillis, protocol: Protocol, kind: UsageKind) {
        add(&mut self.stripes[stripe_of_thread()].0.lock(), (now.start_of_hour(), protocol, kind), 1);
    }

    /// Returns the counts that are not in the store.
    pub(super) fn unflushed(&self) -> Vec<UsageCount> {
        self.sum(|table| table.clone())
    }

    /// Takes the counts that are due to be written.
    pub(super) fn take_due(&self, now: UnixMillis) -> Vec<UsageCount> {
        let mut flushed_at = self.flushed_at.lock();
        // A clock that was set back must not delay the write.
        let due = flushed_at.is_none_or(|at| now < at || now.saturating_duration_since(at) >= FLUSH_INTERVAL);
        let counts = if due { self.take_all() } else { Vec::new() };
        if !counts.is_empty() {
            *flushed_at = Some(now);
        }
        counts
    }

    /// Takes all counts that are not in the store.
    pub(super) fn take_all(&self) -> Vec<UsageCount> {
        self.sum(std::mem::take)
    }

    /// Takes back counts that could not be written.
    pub(super) fn restore(&self, counts: &[UsageCount]) {
        // Due at the next flush: after another interval, a crash would lose the counts of two.
        *self.flushed_at.lock() = None;
        let mut table = self.stripes[stripe_of_thread()].0.lock();
        for UsageCount { hour, protocol, kind, count } in counts {
            add(&mut table, (*hour, *protocol, *kind), *count);
        }
    }

    fn sum(&self, read: impl Fn(&mut CountTable) -> CountTable) -> Vec<UsageCount> {
        let mut sums = CountTable::new();
        for stripe in &self.stripes {
            for (key, count) in read(&mut stripe.0.lock()) {
                add(&mut sums, key, count);
            }
        }
        sums.into_iter().map(|((hour, protocol, kind), count)| UsageCount { hour, protocol, kind, count }).collect()
    }
}

fn add(table: &mut CountTable, key: (UnixMillis, Protocol, UsageKind), by: u64) {
    let count = table.entry(key).or_default();
    *count = count.saturating_add(by);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds_in(seconds: u64) -> UnixMillis {
        UnixMillis::from_millis(1_777_968_000_000).saturating_add(Duration::from_secs(seconds))
    }

    fn total(counts: &[UsageCount]) -> u64 {
        counts.iter().map(|count| count.count).sum()
    }

    #[test]
    fn counts_are_flushed_once_per_interval_without_loss() {
        let counters = UsageCounters::default();
        let mut written = Vec::new();
        for second in 0..600 {
            counters.increment(seconds_in(second), Protocol::Webdav, UsageKind::Use);
            written.extend(Some(counters.take_due(seconds_in(second))).filter(|counts| !counts.is_empty()));
        }
        assert_eq!(written.len(), 10);
        counters.restore(&written[3]);
        assert_eq!(total(&counters.unflushed()), 119, "what was taken back, and the last minute");
        assert_eq!(written.iter().map(|counts| total(counts)).sum::<u64>() - 60 + total(&counters.take_all()), 600);
        assert!(counters.take_all().is_empty());
    }

    #[test]
    fn counts_are_keyed_by_hour_protocol_and_kind() {
        let counters = UsageCounters::default();
        let counted = [
            (0, Protocol::Sftp, UsageKind::Use),
            (1, Protocol::Sftp, UsageKind::Use),
            (1, Protocol::Sftp, UsageKind::Refusal),
            (3599, Protocol::Api, UsageKind::Use),
            (3600, Protocol::Sftp, UsageKind::Use),
        ];
        for (second, protocol, kind) in counted {
            counters.increment(seconds_in(second), protocol, kind);
        }
        let all = counters.take_all();
        assert_eq!((all.len(), total(&all)), (4, 5));
        let twice = UsageCount { hour: seconds_in(0), protocol: Protocol::Sftp, kind: UsageKind::Use, count: 2 };
        assert!(all.contains(&twice), "{all:?}");
    }
}
