//! Counts of token uses and refusals: kept in memory by the hour, written to the store once a minute.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{Protocol, UnixMillis, UsageCount, UsageKind};

/// Time between two writes of counts, and so the time whose counts a crash loses.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);

/// Counts that are not in the store yet.
#[derive(Default)]
pub(super) struct UsageCounters {
    pending: Mutex<PendingCounts>,
}

#[derive(Default)]
struct PendingCounts {
    counts: HashMap<(UnixMillis, Protocol, UsageKind), u64>,
    flushed_at: Option<UnixMillis>,
}

impl UsageCounters {
    /// Counts one use or refusal.
    pub(super) fn increment(&self, now: UnixMillis, protocol: Protocol, kind: UsageKind) {
        self.pending.lock().add((now.start_of_hour(), protocol, kind), 1);
    }

    /// Returns the counts that are not in the store.
    pub(super) fn unflushed(&self) -> Vec<UsageCount> {
        self.pending.lock().to_counts()
    }

    /// Takes the counts that are due to be written.
    pub(super) fn take_due(&self, now: UnixMillis) -> Vec<UsageCount> {
        let mut pending = self.pending.lock();
        // A clock that was set back must not delay the write.
        let due = pending.flushed_at.is_none_or(|at| now < at || now.saturating_duration_since(at) >= FLUSH_INTERVAL);
        if !due || pending.counts.is_empty() {
            return Vec::new();
        }
        pending.flushed_at = Some(now);
        pending.take()
    }

    /// Takes all counts that are not in the store.
    pub(super) fn take_all(&self) -> Vec<UsageCount> {
        self.pending.lock().take()
    }

    /// Takes back counts that could not be written.
    pub(super) fn restore(&self, counts: &[UsageCount]) {
        let mut pending = self.pending.lock();
        for UsageCount { hour, protocol, kind, count } in counts {
            pending.add((*hour, *protocol, *kind), *count);
        }
        // Due at the next flush: after another interval, a crash would lose the counts of two.
        pending.flushed_at = None;
    }
}

impl PendingCounts {
    fn add(&mut self, key: (UnixMillis, Protocol, UsageKind), by: u64) {
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(by);
    }

    fn to_counts(&self) -> Vec<UsageCount> {
        let count = |(&(hour, protocol, kind), &count)| UsageCount { hour, protocol, kind, count };
        self.counts.iter().map(count).collect()
    }

    fn take(&mut self) -> Vec<UsageCount> {
        let counts = self.to_counts();
        self.counts.clear();
        counts
    }
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
