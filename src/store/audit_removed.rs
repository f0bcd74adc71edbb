//! Removal of audit rows by retention: what is removed leaves its number and the hash of the last row of each run, so that
//! the rows after it can still be verified.

use rusqlite::{OptionalExtension, ToSql};

use super::audit_chain::ChainHash;
use super::columns::{get_u64, to_sql_integer};
use super::transactions::WriteTransaction;
use super::{Result, StoreError};

/// Deletes the rows of a `DELETE` statement without `RETURNING`, and records them as removed; returns how many.
pub(super) fn delete_events(t: &WriteTransaction<'_>, delete: &str, params: &[&dyn ToSql]) -> Result<usize> {
    let mut delete = t.prepare_cached(&format!("{delete} RETURNING id, hash"))?;
    let mut rows = delete.query(params)?;
    let mut removed: Vec<(u64, ChainHash)> = Vec::new();
    while let Some(row) = rows.next()? {
        removed.push((get_u64(row, 0)?, ChainHash::from_bytes(row.get(1)?)));
    }
    drop(rows);
    // The order of `RETURNING` is not defined.
    removed.sort_unstable_by_key(|(number, _)| *number);
    for run in removed.chunk_by(|(one, _), (next, _)| *next == one + 1) {
        if let (Some((first, _)), Some((last, hash))) = (run.first(), run.last()) {
            record_removed(t, *first, *last, hash)?;
        }
    }
    Ok(removed.len())
}

/// Records a run of removed rows, as one with the runs beside it.
pub(super) fn record_removed(t: &WriteTransaction<'_>, first: u64, last: u64, hash: &ChainHash) -> Result<()> {
    let mut before = t.prepare_cached("DELETE FROM removed_events WHERE last_id = ?1 RETURNING first_id")?;
    let first_id: Option<i64> =
        before.query_row([to_sql_integer(first.saturating_sub(1))], |row| row.get(0)).optional()?;
    let first_id = first_id.unwrap_or(to_sql_integer(first));
    // The run after these rows keeps the hash of its own last one.
    let mut extend_next = t.prepare_cached("UPDATE removed_events SET first_id = ?1 WHERE first_id = ?2")?;
    if extend_next.execute((first_id, to_sql_integer(last.saturating_add(1))))? > 0 {
        return Ok(());
    }
    let mut insert = t.prepare_cached("INSERT INTO removed_events (last_id, first_id, hash) VALUES (?1, ?2, ?3)")?;
    let inserted = insert.execute((to_sql_integer(last), first_id, hash.as_bytes()))?;
    if inserted == 1 { Ok(()) } else { Err(StoreError::Corrupt("the removed rows of the audit trail".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, EventKind};
    use crate::store::testing::{now, open_temp_store};
    use crate::store::{Store, WriteDurability};

    fn store_with_rows(count: usize) -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = open_temp_store();
        let events: Vec<_> = (0..count).map(|_| AuditEvent::new(now(), EventKind::TokenCreated)).collect();
        store.record_events(&events).expect("recorded");
        (temp_dir, store)
    }

    fn remove(store: &Store, numbers: &[i64]) {
        let list = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let delete = format!("DELETE FROM events WHERE id IN ({list})");
        let removed = store.write(WriteDurability::Lazy, |t| delete_events(t, &delete, &[])).expect("removed");
        assert_eq!(removed, numbers.len());
    }

    fn removed_runs(store: &Store) -> Vec<(i64, i64)> {
        let query = "SELECT first_id, last_id FROM removed_events ORDER BY last_id";
        store
            .read(|c| {
                let mut select = c.prepare(query)?;
                let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .expect("read")
    }

    #[test]
    fn neighbouring_runs_of_removed_rows_are_joined() {
        let (_temp_dir, store) = store_with_rows(12);
        for (numbers, runs) in [
            (&[3, 7][..], &[(3, 3), (7, 7)][..]),
            (&[5], &[(3, 3), (5, 5), (7, 7)]),
            (&[4], &[(3, 5), (7, 7)]),
            (&[8, 9, 12], &[(3, 5), (7, 9), (12, 12)]),
            (&[2, 6, 1], &[(1, 9), (12, 12)]),
            (&[10, 11], &[(1, 12)]),
        ] {
            remove(&store, numbers);
            assert_eq!(removed_runs(&store), runs);
            let report = store.verify_audit_chain(Vec::new()).expect("read");
            assert!(report.is_intact(), "{report:?}");
            assert_eq!((report.head.number, report.rows + report.removed), (12, 12));
        }
    }
}
