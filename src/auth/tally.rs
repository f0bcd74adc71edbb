//! How often tokens are used and callers refused: counted in memory by the hour, written down once a minute.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{Protocol, UnixMillis, UsageCount, UsageKind};

/// How often counts are written down, and so how much of them a crash may lose.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was counted and is not written down yet.
#[derive(Default)]
pub(super) struct Tally {
    sheet: Mutex<Sheet>,
}

#[derive(Default)]
struct Sheet {
    counts: HashMap<(UnixMillis, Protocol, UsageKind), u64>,
    written_at: Option<UnixMillis>,
}

impl Tally {
    /// Counts one more.
    pub(super) fn count(&self, now: UnixMillis, protocol: Protocol, what: UsageKind) {
        self.sheet.lock().add((now.start_of_hour(), protocol, what), 1);
    }

    /// Returns what is not written down.
    pub(super) fn unwritten(&self) -> Vec<UsageCount> {
        self.sheet.lock().read()
    }

    /// Takes what is due to be written down.
    pub(super) fn due(&self, now: UnixMillis) -> Vec<UsageCount> {
        let mut sheet = self.sheet.lock();
        // A clock that was set back keeps nothing waiting.
        let due = sheet.written_at.is_none_or(|at| now < at || now.saturating_duration_since(at) >= INTERVAL);
        if !due || sheet.counts.is_empty() {
            return Vec::new();
        }
        sheet.written_at = Some(now);
        sheet.take()
    }

    /// Takes all that is not written down.
    pub(super) fn all(&self) -> Vec<UsageCount> {
        self.sheet.lock().take()
    }

    /// Takes counts back that could not be written down.
    pub(super) fn take_back(&self, counts: &[UsageCount]) {
        let mut sheet = self.sheet.lock();
        for UsageCount { hour, protocol, kind: what, count } in counts {
            sheet.add((*hour, *protocol, *what), *count);
        }
    }
}

impl Sheet {
    fn add(&mut self, key: (UnixMillis, Protocol, UsageKind), more: u64) {
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(more);
    }

    fn read(&self) -> Vec<UsageCount> {
        let count = |(&(hour, protocol, what), &count)| UsageCount { hour, protocol, kind: what, count };
        self.counts.iter().map(count).collect()
    }

    fn take(&mut self) -> Vec<UsageCount> {
        let counts = self.read();
        self.counts.clear();
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::from_millis(1_777_968_000_000).saturating_add(Duration::from_secs(seconds))
    }

    fn total(counts: &[UsageCount]) -> u64 {
        counts.iter().map(|count| count.count).sum()
    }

    #[test]
    fn counts_are_due_once_a_minute_and_none_is_lost() {
        let tally = Tally::default();
        let mut written = Vec::new();
        for second in 0..600 {
            tally.count(at(second), Protocol::Webdav, UsageKind::Use);
            written.extend(Some(tally.due(at(second))).filter(|counts| !counts.is_empty()));
        }
        assert_eq!(written.len(), 10);
        tally.take_back(&written[3]);
        assert_eq!(total(&tally.unwritten()), 119, "what was taken back, and the last minute");
        assert_eq!(written.iter().map(|counts| total(counts)).sum::<u64>() - 60 + total(&tally.all()), 600);
        assert!(tally.all().is_empty());
    }

    #[test]
    fn each_hour_protocol_and_outcome_has_a_count_of_its_own() {
        let tally = Tally::default();
        let counted = [
            (0, Protocol::Sftp, UsageKind::Use),
            (1, Protocol::Sftp, UsageKind::Use),
            (1, Protocol::Sftp, UsageKind::Refusal),
            (3599, Protocol::Api, UsageKind::Use),
            (3600, Protocol::Sftp, UsageKind::Use),
        ];
        for (second, protocol, what) in counted {
            tally.count(at(second), protocol, what);
        }
        let all = tally.all();
        assert_eq!((all.len(), total(&all)), (4, 5));
        let twice = UsageCount { hour: at(0), protocol: Protocol::Sftp, kind: UsageKind::Use, count: 2 };
        assert!(all.contains(&twice), "{all:?}");
    }
}
