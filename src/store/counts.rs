//! How often tokens were used and callers refused: a few rows an hour, added to now and then.

use rusqlite::{Row, params};

use super::audit::{number, unsigned};
use super::users::page;
use super::{Durability, Result, Store, StoreError};
use crate::domain::{UnixMillis, UsageCount, UsageKind};

impl Store {
    /// Adds counts to those that are kept. A power cut may lose them.
    pub(crate) fn add_counts(&self, counts: &[UsageCount]) -> Result<()> {
        self.write(Durability::Lazy, |t| {
            let mut add = t.prepare_cached(
                "INSERT INTO counts (hour, protocol, refused, count) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
            )?;
            for UsageCount { hour, protocol, kind: what, count } in counts {
                add.execute(params![hour, protocol.to_string(), *what == UsageKind::Refusal, number(*count)])?;
            }
            Ok(())
        })
    }

    /// Returns the counts of the hours that begin at an instant or later.
    pub fn counts(&self, since: UnixMillis) -> Result<Vec<UsageCount>> {
        self.read(|c| {
            let query = "SELECT hour, protocol, refused, count FROM counts WHERE hour >= ?1 ORDER BY hour";
            let mut select = c.prepare_cached(query)?;
            let mut rows = select.query([since])?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                counts.push(count(row)?);
            }
            Ok(counts)
        })
    }

    /// Forgets up to `limit` counts of hours that began before an instant, and returns how many.
    pub(crate) fn forget_counts(&self, before: UnixMillis, limit: usize) -> Result<usize> {
        let any = self.read(|c| Ok(c.prepare_cached("SELECT 1 FROM counts WHERE hour < ?1")?.exists([before])?))?;
        if !any {
            return Ok(0);
        }
        self.write_freeing(Durability::Lazy, |t| {
            let delete = "DELETE FROM counts WHERE (hour, protocol, refused) IN
                (SELECT hour, protocol, refused FROM counts WHERE hour < ?1 ORDER BY hour LIMIT ?2)";
            Ok(t.prepare_cached(delete)?.execute((before, page(limit)))?)
        })
    }
}

fn count(row: &Row<'_>) -> Result<UsageCount> {
    let protocol: String = row.get(1)?;
    let what = if row.get(2)? { UsageKind::Refusal } else { UsageKind::Use };
    let protocol = protocol.parse().map_err(StoreError::Damaged)?;
    Ok(UsageCount { hour: row.get(0)?, protocol, kind: what, count: unsigned(row, 3)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Protocol;
    use crate::store::testing::{now, opened};

    fn of(hours: u64, what: UsageKind, count: u64) -> UsageCount {
        let hour = now().start_of_hour().saturating_add(Duration::from_secs(hours * 3600));
        UsageCount { hour, protocol: Protocol::Sftp, kind: what, count }
    }

    #[test]
    fn counts_of_one_hour_are_added_up_and_told_apart() {
        let (_folder, store) = opened();
        let webdav = UsageCount { protocol: Protocol::Webdav, ..of(0, UsageKind::Use, 5) };
        store.add_counts(&[of(0, UsageKind::Use, 1), webdav, of(1, UsageKind::Use, 9)]).expect("added");
        store.add_counts(&[of(0, UsageKind::Use, 2), of(0, UsageKind::Refusal, 4)]).expect("added");
        let kept = store.counts(now().start_of_hour()).expect("read");
        assert_eq!(kept, [of(0, UsageKind::Use, 3), of(0, UsageKind::Refusal, 4), webdav, of(1, UsageKind::Use, 9)]);
        assert_eq!(store.counts(of(1, UsageKind::Use, 0).hour).expect("read").len(), 1);
    }

    #[test]
    fn counts_leave_in_batches_the_oldest_first() {
        let (_folder, store) = opened();
        let hours: Vec<_> = (0..10).map(|hour| of(hour, UsageKind::Use, 1)).collect();
        store.add_counts(&hours).expect("added");
        assert_eq!(store.forget_counts(hours[5].hour, 3).expect("forgotten"), 3);
        assert_eq!(store.counts(UnixMillis::from_millis(0)).expect("read"), hours[3..]);
        assert_eq!(store.forget_counts(hours[5].hour, 3).expect("forgotten"), 2);
        assert_eq!(store.forget_counts(hours[5].hour, 3).expect("forgotten"), 0);
        assert_eq!(store.counts(UnixMillis::from_millis(0)).expect("read"), hours[5..]);
    }
}
