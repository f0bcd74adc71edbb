//! How often tokens were used and callers refused: a few rows an hour, added to now and then.

use rusqlite::{Row, params};

use super::audit::{number, unsigned};
use super::users::page;
use super::{Durability, Result, Store, StoreError};
use crate::domain::{Count, Counted, Time};

impl Store {
    /// Adds counts to those that are kept. A power cut may lose them.
    pub(crate) fn add_counts(&self, counts: &[Count]) -> Result<()> {
        self.write(Durability::Lazy, |t| {
            let mut add = t.prepare_cached(
                "INSERT INTO counts (hour, protocol, refused, count) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
            )?;
            for Count { hour, protocol, what, count } in counts {
                add.execute(params![hour, protocol.to_string(), *what == Counted::Refusal, number(*count)])?;
            }
            Ok(())
        })
    }

    /// Returns the counts of the hours that begin at an instant or later.
    pub fn counts(&self, since: Time) -> Result<Vec<Count>> {
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
    pub(crate) fn forget_counts(&self, before: Time, limit: usize) -> Result<usize> {
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

fn count(row: &Row<'_>) -> Result<Count> {
    let protocol: String = row.get(1)?;
    let what = if row.get(2)? { Counted::Refusal } else { Counted::Use };
    let protocol = protocol.parse().map_err(StoreError::Damaged)?;
    Ok(Count { hour: row.get(0)?, protocol, what, count: unsigned(row, 3)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Protocol;
    use crate::store::testing::{now, opened};

    fn of(hours: u64, what: Counted, count: u64) -> Count {
        let hour = now().hour().after(Duration::from_secs(hours * 3600));
        Count { hour, protocol: Protocol::Sftp, what, count }
    }

    #[test]
    fn counts_of_one_hour_are_added_up_and_told_apart() {
        let (_folder, store) = opened();
        let webdav = Count { protocol: Protocol::Webdav, ..of(0, Counted::Use, 5) };
        store.add_counts(&[of(0, Counted::Use, 1), webdav, of(1, Counted::Use, 9)]).expect("added");
        store.add_counts(&[of(0, Counted::Use, 2), of(0, Counted::Refusal, 4)]).expect("added");
        let kept = store.counts(now().hour()).expect("read");
        assert_eq!(kept, [of(0, Counted::Use, 3), of(0, Counted::Refusal, 4), webdav, of(1, Counted::Use, 9)]);
        assert_eq!(store.counts(of(1, Counted::Use, 0).hour).expect("read").len(), 1);
    }

    #[test]
    fn counts_leave_in_batches_the_oldest_first() {
        let (_folder, store) = opened();
        let hours: Vec<_> = (0..10).map(|hour| of(hour, Counted::Use, 1)).collect();
        store.add_counts(&hours).expect("added");
        assert_eq!(store.forget_counts(hours[5].hour, 3).expect("forgotten"), 3);
        assert_eq!(store.counts(Time::from_millis(0)).expect("read"), hours[3..]);
        assert_eq!(store.forget_counts(hours[5].hour, 3).expect("forgotten"), 2);
        assert_eq!(store.forget_counts(hours[5].hour, 3).expect("forgotten"), 0);
        assert_eq!(store.counts(Time::from_millis(0)).expect("read"), hours[5..]);
    }
}
