//! Counts of uses and refusals by hour: a few rows for each hour.

use rusqlite::{Row, params};

use super::columns::{get_u64, sql_limit, to_sql_integer};
use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{UnixMillis, UsageCount, UsageKind};

impl Store {
    /// Adds counts to the stored ones. A power cut may lose them.
    pub(crate) fn add_usage_counts(&self, counts: &[UsageCount]) -> Result<()> {
        self.write(WriteDurability::Lazy, |t| {
            let mut add = t.prepare_cached(
                "INSERT INTO counts (hour, protocol, refused, count) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (hour, protocol, refused) DO UPDATE SET count = counts.count + excluded.count",
            )?;
            for UsageCount { hour, protocol, kind, count } in counts {
                add.execute(params![hour, protocol.to_string(), *kind == UsageKind::Refusal, to_sql_integer(*count)])?;
            }
            Ok(())
        })
    }

    /// Returns the counts of the hours that begin at a time or later.
    pub fn usage_counts(&self, since: UnixMillis) -> Result<Vec<UsageCount>> {
        self.read(|c| {
            let query = "SELECT hour, protocol, refused, count FROM counts WHERE hour >= ?1 ORDER BY hour";
            let mut select = c.prepare_cached(query)?;
            let mut rows = select.query([since])?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                counts.push(usage_count_from_row(row)?);
            }
            Ok(counts)
        })
    }

    /// Deletes up to `limit` counts of hours that began before a time, and returns how many.
    pub(crate) fn delete_usage_counts_before(&self, before: UnixMillis, limit: usize) -> Result<usize> {
        let has_old =
            self.read(|c| Ok(c.prepare_cached("SELECT 1 FROM counts WHERE hour < ?1")?.exists([before])?))?;
        if !has_old {
            return Ok(0);
        }
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let delete = "DELETE FROM counts WHERE (hour, protocol, refused) IN
                (SELECT hour, protocol, refused FROM counts WHERE hour < ?1 ORDER BY hour LIMIT ?2)";
            Ok(t.prepare_cached(delete)?.execute((before, sql_limit(limit)))?)
        })
    }
}

fn usage_count_from_row(row: &Row<'_>) -> Result<UsageCount> {
    let protocol: String = row.get(1)?;
    let kind = if row.get(2)? { UsageKind::Refusal } else { UsageKind::Use };
    let protocol = protocol.parse().map_err(StoreError::Corrupt)?;
    Ok(UsageCount { hour: row.get(0)?, protocol, kind, count: get_u64(row, 3)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Protocol;
    use crate::store::testing::{now, open_temp_store};

    fn sample_count(hours: u64, kind: UsageKind, count: u64) -> UsageCount {
        let hour = now().start_of_hour().saturating_add(Duration::from_secs(hours * 3600));
        UsageCount { hour, protocol: Protocol::Sftp, kind, count }
    }

    #[test]
    fn counts_accumulate_per_hour_protocol_and_kind() {
        let (_temp_dir, store) = open_temp_store();
        let webdav = UsageCount { protocol: Protocol::Webdav, ..sample_count(0, UsageKind::Use, 5) };
        store
            .add_usage_counts(&[sample_count(0, UsageKind::Use, 1), webdav, sample_count(1, UsageKind::Use, 9)])
            .expect("added");
        store
            .add_usage_counts(&[sample_count(0, UsageKind::Use, 2), sample_count(0, UsageKind::Refusal, 4)])
            .expect("added");
        let stored = store.usage_counts(now().start_of_hour()).expect("read");
        assert_eq!(
            stored,
            [
                sample_count(0, UsageKind::Use, 3),
                sample_count(0, UsageKind::Refusal, 4),
                webdav,
                sample_count(1, UsageKind::Use, 9)
            ]
        );
        assert_eq!(store.usage_counts(sample_count(1, UsageKind::Use, 0).hour).expect("read").len(), 1);
    }

    #[test]
    fn counts_are_deleted_oldest_first_in_batches() {
        let (_temp_dir, store) = open_temp_store();
        let hours: Vec<_> = (0..10).map(|hour| sample_count(hour, UsageKind::Use, 1)).collect();
        store.add_usage_counts(&hours).expect("added");
        assert_eq!(store.delete_usage_counts_before(hours[5].hour, 3).expect("deleted"), 3);
        assert_eq!(store.usage_counts(UnixMillis::from_millis(0)).expect("read"), hours[3..]);
        assert_eq!(store.delete_usage_counts_before(hours[5].hour, 3).expect("deleted"), 2);
        assert_eq!(store.delete_usage_counts_before(hours[5].hour, 3).expect("deleted"), 0);
        assert_eq!(store.usage_counts(UnixMillis::from_millis(0)).expect("read"), hours[5..]);
    }
}
