//! The audit trail with its chain, row by row: for exports, and to verify it.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::audit_chain::{AuditRow, ChainHash, ChainHead, ChainItem, ChainReport, ChainVerifier, RemovedRows};
use super::columns::{get_u64, sql_limit, to_sql_integer};
use super::{Result, Store, sqlite};
use crate::domain::UnixMillis;

/// Number of rows that are read at once to verify them.
const VERIFY_PAGE_ROWS: usize = 5000;

/// Query for the last row of the chain, whether or not retention removed it.
const CHAIN_HEAD_QUERY: &str = "SELECT id, hash FROM events UNION ALL SELECT last_id, hash FROM removed_events
     ORDER BY id DESC LIMIT 1";

/// A page of the audit trail with its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainPage {
    /// Rows and removed runs, in the order of their numbers.
    pub items: Vec<ChainItem>,
    /// Highest number that a row of the trail was ever given, where the store knows it.
    pub last_number: Option<u64>,
}

impl Store {
    /// Returns up to `limit` rows and removed runs with higher numbers than `after`, in the order of their numbers.
    pub fn audit_chain(&self, after: u64, limit: usize) -> Result<ChainPage> {
        self.snapshot(|c| read_chain_page(c, after, limit))
    }

    /// Returns the last row of the audit trail.
    pub fn audit_head(&self) -> Result<ChainHead> {
        self.read(read_chain_head)
    }

    /// Verifies the audit trail; it must have the rows of the noted heads, or have removed them by retention.
    pub fn verify_audit_chain(&self, noted_heads: Vec<ChainHead>) -> Result<ChainReport> {
        // In one snapshot, so that what is written meanwhile is left out as a whole.
        self.snapshot(|c| {
            let mut verifier = ChainVerifier::new(noted_heads);
            let mut after = 0;
            loop {
                let page = read_chain_page(c, after, VERIFY_PAGE_ROWS)?;
                page.items.iter().for_each(|item| verifier.add(item));
                let Some(last) = page.items.last() else { return Ok(verifier.finish(page.last_number)) };
                after = last.number();
            }
        })
    }
}

/// Returns the last row of the chain. Its number is the highest that any row was given: where rows are missing at the end,
/// the next one leaves their numbers free, so that they stay missing.
pub(super) fn read_insert_position(c: &Connection) -> Result<ChainHead> {
    let head = read_chain_head(c)?;
    let drawn = sqlite::last_drawn_id(c, "events")?.unwrap_or_default();
    Ok(ChainHead { number: head.number.max(drawn), ..head })
}

/// Returns the last row of the chain.
pub(super) fn read_chain_head(c: &Connection) -> Result<ChainHead> {
    let mut select = c.prepare_cached(CHAIN_HEAD_QUERY)?;
    let mut rows = select.query([])?;
    match rows.next()? {
        Some(row) => Ok(ChainHead { number: get_u64(row, 0)?, hash: ChainHash::from_bytes(row.get(1)?) }),
        None => Ok(ChainHead::START),
    }
}

fn read_chain_page(c: &Connection, after: u64, limit: usize) -> Result<ChainPage> {
    let last_number = sqlite::last_drawn_id(c, "events")?;
    let params = (to_sql_integer(after), sql_limit(limit));
    let mut select = c.prepare_cached(
        "SELECT id, at, kind, \"user\", token, actor, address, client, protocol, path, count, detail, hash FROM events
         WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut items = Vec::new();
    let mut rows = select.query(params)?;
    while let Some(row) = rows.next()? {
        items.push(ChainItem::Row(Box::new(chain_row(row)?)));
    }
    let mut select = c.prepare_cached(
        "SELECT first_id, last_id, hash FROM removed_events WHERE last_id > ?1 ORDER BY last_id LIMIT ?2",
    )?;
    let mut rows = select.query(params)?;
    while let Some(row) = rows.next()? {
        let hash = ChainHash::from_bytes(row.get(2)?);
        items.push(ChainItem::Removed(RemovedRows {
            removed_from: get_u64(row, 0)?,
            removed_to: get_u64(row, 1)?,
            hash,
        }));
    }
    items.sort_by_key(ChainItem::number);
    items.truncate(limit);
    Ok(ChainPage { items, last_number })
}

/// Reads a row. No value of it is judged: one that is not text of UTF-8 has another hash than the row.
fn chain_row(row: &Row<'_>) -> Result<AuditRow> {
    let text = |column: usize| -> Result<Option<String>> {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Real(number) => Some(number.to_string()),
        })
    };
    let unix_ms: i64 = row.get(1)?;
    Ok(AuditRow {
        id: get_u64(row, 0)?,
        at: UnixMillis::from_millis(unix_ms).to_string(),
        unix_ms,
        event: text(2)?.unwrap_or_default(),
        user: text(3)?,
        token: text(4)?,
        by: text(5)?,
        address: text(6)?,
        client: text(7)?,
        protocol: text(8)?,
        path: text(9)?,
        count: row.get(10)?,
        detail: text(11)?,
        hash: ChainHash::from_bytes(row.get(12)?),
    })
}

/// Chains the rows of a trail that has no hashes yet, and records the numbers that have no row as removed.
pub(super) fn chain_existing_rows(c: &Connection) -> Result<()> {
    let mut head = ChainHead::START;
    loop {
        // By pages: rows must not be updated while they are being read.
        let page = read_chain_page(c, head.number, VERIFY_PAGE_ROWS)?;
        let Some(last) = page.items.last().map(ChainItem::number) else { break };
        let mut update = c.prepare_cached("UPDATE events SET hash = ?2 WHERE id = ?1")?;
        for item in &page.items {
            let ChainItem::Row(row) = item else { continue };
            insert_unknown_rows(c, head, row.id)?;
            let hash = row.expected_hash(&head.hash);
            update.execute((to_sql_integer(row.id), hash.as_bytes()))?;
            head = ChainHead { number: row.id, hash };
        }
        head.number = last;
    }
    let end = sqlite::last_drawn_id(c, "events")?.unwrap_or(head.number).saturating_add(1);
    insert_unknown_rows(c, head, end)
}

/// Records the numbers between a row and the next one as removed before there was a chain. The next row follows the former.
fn insert_unknown_rows(c: &Connection, head: ChainHead, next: u64) -> Result<()> {
    if next <= head.number.saturating_add(1) {
        return Ok(());
    }
    let mut insert = c.prepare_cached("INSERT INTO removed_events (last_id, first_id, hash) VALUES (?1, ?2, ?3)")?;
    insert.execute((to_sql_integer(next - 1), to_sql_integer(head.number + 1), head.hash.as_bytes()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, EventKind};
    use crate::store::testing::{execute_externally, login, now, older_state_dir, open_temp_store};

    fn store_with_rows(count: u64) -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = open_temp_store();
        record(&store, count);
        (temp_dir, store)
    }

    fn record(store: &Store, count: u64) {
        let event =
            |_| AuditEvent::new(now(), EventKind::AccessDenied).with_user(&login("alice")).with_detail("wri,te");
        store.record_events(&(0..count).map(event).collect::<Vec<_>>()).expect("recorded");
    }

    fn verify(store: &Store) -> ChainReport {
        store.verify_audit_chain(Vec::new()).expect("read")
    }

    fn faulty_rows(store: &Store) -> Vec<u64> {
        verify(store).faults.iter().map(|fault| fault.row).collect()
    }

    #[test]
    fn changed_missing_and_reordered_rows_are_named() {
        for (change, rows) in [
            ("UPDATE events SET detail = 'other' WHERE id = 4", &[4][..]),
            ("UPDATE events SET at = at + 1 WHERE id = 4", &[4]),
            ("UPDATE events SET count = 2, kind = 'none' WHERE id = 4", &[4]),
            ("UPDATE events SET detail = 'te', path = 'wri' WHERE id = 4", &[4]),
            ("UPDATE events SET client = '', detail = NULL WHERE id = 4", &[4]),
            ("UPDATE events SET hash = (SELECT hash FROM events WHERE id = 2) WHERE id = 4", &[4, 5]),
            ("DELETE FROM events WHERE id = 1", &[1]),
            ("DELETE FROM events WHERE id IN (4, 5, 7)", &[4, 7]),
            ("DELETE FROM events WHERE id >= 9", &[9]),
            ("DELETE FROM events", &[1]),
            (
                "UPDATE events SET id = 100 WHERE id = 4; UPDATE events SET id = 4 WHERE id = 5;
                 UPDATE events SET id = 5 WHERE id = 100",
                &[4, 5, 6],
            ),
            ("UPDATE events SET id = 11 WHERE id = 4", &[4, 11]),
        ] {
            let (_temp_dir, store) = store_with_rows(10);
            assert!(verify(&store).is_intact());
            execute_externally(&store, change);
            assert_eq!(faulty_rows(&store), rows, "{change}");
            record(&store, 20);
            assert!(faulty_rows(&store).starts_with(&rows[..1]), "{change}: rows that follow hide nothing");
        }
    }

    #[test]
    fn noted_head_shows_truncation_and_replacement_and_is_covered_by_retention() {
        let (_temp_dir, store) = store_with_rows(10);
        let noted = store.audit_head().expect("read");
        assert_eq!((noted.number, noted, verify(&store).head), (10, noted.to_string().parse().expect("a head"), noted));
        let is_intact = |head: ChainHead| store.verify_audit_chain(vec![head]).expect("read").is_intact();
        record(&store, 2);
        assert!(is_intact(noted));
        assert!(!is_intact(ChainHead { number: 10, hash: ChainHash::START }));
        assert!(!is_intact(ChainHead { number: 13, hash: noted.hash }));
        // The rows are written again, with other content and a valid chain.
        execute_externally(&store, "DELETE FROM events");
        store.write(crate::store::WriteDurability::Lazy, |t| sqlite::forget_drawn_ids(t, "events")).expect("written");
        assert!(verify(&store).is_intact());
        assert!(!is_intact(noted), "the trail ends before it");
        store.record_events(&[AuditEvent::new(now(), EventKind::PolicyChanged)]).expect("recorded");
        record(&store, 12);
        assert!(verify(&store).is_intact());
        assert!(!is_intact(noted), "another row has its number");
        let head = store.audit_head().expect("read");
        store.delete_events_before(UnixMillis::MAX, 100).expect("deleted");
        record(&store, 1);
        assert!(is_intact(head) && is_intact(ChainHead { number: 5, hash: head.hash }), "retention removed them");
        assert_eq!(verify(&store).rows, 1);
    }

    #[test]
    fn rows_of_an_older_database_are_chained_by_migration() {
        let temp_dir = older_state_dir(16);
        let older = rusqlite::Connection::open(temp_dir.path().join("patgate.db")).expect("opens");
        older
            .execute_batch(
                "INSERT INTO events (at, kind, \"user\") VALUES (1, 'user.created', 'a'), (2, 'user.created', 'b'),
                    (3, 'user.created', 'c'), (4, 'user.created', 'd'), (5, 'user.created', 'e'), (6, 'policy.changed', NULL);
                 DELETE FROM events WHERE id IN (1, 3, 4, 6)",
            )
            .expect("filled");
        drop(older);
        let store = Store::open(temp_dir.path()).expect("migrated");
        let report = verify(&store);
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.rows, report.removed, report.head.number), (2, 4, 6));
        record(&store, 1);
        assert_eq!((verify(&store).is_intact(), store.latest_event_id().expect("read")), (true, 7));
        execute_externally(&store, "UPDATE events SET \"user\" = 'f' WHERE id = 5");
        assert_eq!(faulty_rows(&store), [5]);
    }

    #[test]
    fn pages_continue_each_other_while_retention_removes_rows() {
        let (_temp_dir, store) = store_with_rows(10);
        let mut verifier = ChainVerifier::new(Vec::new());
        let first = store.audit_chain(0, 4).expect("read");
        assert_eq!(first.items.iter().map(ChainItem::number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        store
            .write(crate::store::WriteDurability::Lazy, |t| {
                super::super::audit_removed::delete_events(t, "DELETE FROM events WHERE id < 8", &[])
            })
            .expect("deleted");
        let rest = store.audit_chain(4, 100).expect("read");
        assert_eq!(rest.items.iter().map(ChainItem::number).collect::<Vec<_>>(), [7, 8, 9, 10]);
        first.items.iter().chain(&rest.items).for_each(|item| verifier.add(item));
        let report = verifier.finish(rest.last_number);
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.rows, report.removed), (7, 3));
    }

    #[test]
    fn rows_of_several_processes_form_one_chain() {
        let (_temp_dir, store) = store_with_rows(1);
        let other = Store::open(store.state_dir()).expect("opens");
        std::thread::scope(|scope| {
            for store in [&store, &other] {
                scope.spawn(|| (0..50).for_each(|_| record(store, 2)));
            }
        });
        let report = verify(&store);
        assert!(report.is_intact() && report.rows == 201, "{report:?}");
    }
}
