//! Journals of sync-collection reports (RFC 6578): the members of a collection and their state as a token's client was
//! told, each with the number of its last change.
//!
//! A journal belongs to one token, directory and depth. It is deleted when the token, or one above it, is revoked or
//! recorded as expired: in the same transaction, or, where it is large, by retention, so that no revocation waits for
//! it. Retention also deletes journals that were not requested for [`JOURNAL_IDLE_LIFETIME`]; they have expired by
//! then.
//!
//! The writes of a comparison are lazy, and all of them are synced before a client is given a number of them
//! ([`Store::flush_sync_journal`]): a number that was lost in a power cut would be assigned again, to another change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::columns::sql_limit;
use super::token_chain::inactive_token_sql;
use super::{Result, Store, WriteDurability};
use crate::domain::{TokenId, TreePath, UnixMillis};

/// Maximum number of journals of a token; the least recently used one is evicted.
const MAX_JOURNALS_PER_TOKEN: i64 = 32;
/// Maximum number of journals of all tokens of a user; the least recently used one is evicted.
const MAX_JOURNALS_PER_USER: i64 = 128;
/// Time without a request after which a journal expires.
pub(crate) const JOURNAL_IDLE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Maximum number of entries that are deleted in the transaction that revokes their tokens, which must not take long.
const MAX_ENTRIES_DELETED_AT_REVOCATION: i64 = 10_000;
/// Maximum number of stale journals in one round of retention.
const CLEANUP_BATCH_JOURNALS: i64 = 100;

/// Assigns the number of the next change.
const ADVANCE_JOURNAL: &str = "UPDATE journals SET last_number = last_number + 1 WHERE id = ?1";

/// The state of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncJournal {
    /// Id of the journal, never used again.
    pub(crate) id: i64,
    /// Highest number of a removed member whose entry was purged.
    pub(crate) purged_through: i64,
    /// Number of the last change.
    pub(crate) last_number: i64,
}

/// Counters of the lazy writes that assign ids of journals and numbers of changes.
pub(super) struct JournalWriteCounters {
    written: AtomicU64,
    synced: AtomicU64,
}

impl Default for JournalWriteCounters {
    fn default() -> Self {
        // One write is unsynced at first: an earlier process may have been killed before it synced its last ones.
        Self { written: AtomicU64::new(1), synced: AtomicU64::new(0) }
    }
}

/// A member of a journal with the number of its last change.
pub(crate) type NumberedSyncEntry = (i64, SyncEntry);

/// A member of the collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncEntry {
    /// Path relative to the directory.
    pub(crate) path: Vec<u8>,
    /// Whether it is, or was, a directory.
    pub(crate) is_directory: bool,
    /// Tag that changes with its content; `None` when it was removed.
    pub(crate) content_tag: Option<Vec<u8>>,
}

impl Store {
    /// Returns the journal of a token, directory and depth, if there is one that has not expired.
    pub(crate) fn find_sync_journal(
        &self,
        token: TokenId,
        directory: &TreePath,
        depth_infinity: bool,
        now: UnixMillis,
    ) -> Result<Option<SyncJournal>> {
        self.read(|connection| find_live_journal(connection, token, directory, depth_infinity, now))
    }

    /// Returns the journal of a token, directory and depth; creates it where there is none or it has expired.
    pub(crate) fn ensure_sync_journal(
        &self,
        token: TokenId,
        directory: &TreePath,
        depth_infinity: bool,
        now: UnixMillis,
    ) -> Result<SyncJournal> {
        self.write(WriteDurability::Lazy, |connection| {
            if let Some(journal) = find_live_journal(connection, token, directory, depth_infinity, now)? {
                // Never earlier: a use while the clock is set back would otherwise let the journal expire too soon.
                let sql = "UPDATE journals SET used_at = ?2 WHERE id = ?1 AND used_at < ?2";
                connection.prepare_cached(sql)?.execute(params![journal.id, now])?;
                return Ok(journal);
            }
            // An expired journal is not continued: retention may have deleted a part of its entries.
            let delete = "DELETE FROM journals WHERE token = ?1 AND path = ?2 AND depth_infinity = ?3";
            connection.prepare_cached(delete)?.execute(params![token, directory.as_bytes(), depth_infinity])?;
            let sql = "INSERT INTO journals (token, path, depth_infinity, purged_through, last_number, used_at) \
                 VALUES (?1, ?2, ?3, 0, 0, ?4) RETURNING id";
            let row = params![token, directory.as_bytes(), depth_infinity, now];
            let id = connection.prepare_cached(sql)?.query_row(row, |row| row.get(0))?;
            self.count_journal_write();
            let journal = SyncJournal { id, purged_through: 0, last_number: 0 };
            evict_excess_journals(connection, journal.id, token)?;
            Ok(journal)
        })
    }

    /// Deletes up to `limit` rows of the journals of inactive tokens, and of journals that have expired at `now`, and
    /// returns how many.
    pub(crate) fn delete_stale_sync_journals(&self, now: UnixMillis, limit: usize) -> Result<usize> {
        let stale =
            format!("SELECT id FROM journals WHERE {} OR used_at <= ?2 LIMIT ?1", inactive_token_sql("journals.token"));
        let stale = self.read(|connection| {
            let mut select = connection.prepare_cached(&stale)?;
            let rows = select
                .query_map(params![CLEANUP_BATCH_JOURNALS, now.saturating_sub(JOURNAL_IDLE_LIFETIME)], |row| {
                    row.get(0)
                })?;
            Ok(rows.collect::<rusqlite::Result<Vec<i64>>>()?)
        })?;
        if stale.is_empty() {
            return Ok(0);
        }
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let mut deleted = 0;
            for journal in stale {
                deleted += delete_journal_entries(t, journal, limit - deleted)?;
                if deleted >= limit {
                    break;
                }
            }
            Ok(deleted)
        })
    }

    /// Records changes in their order, each with a number of its own.
    pub(crate) fn record_sync_entries(&self, journal: i64, changes: &[SyncEntry]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(WriteDurability::Lazy, |connection| {
            self.count_journal_write();
            // The number comes from the journal within the statement, so that no two changes get the same one.
            let sql = "INSERT INTO journal_entries (journal, path, is_directory, content_tag, number) \
                 SELECT id, ?2, ?3, ?4, last_number + 1 FROM journals WHERE id = ?1 \
                 ON CONFLICT (journal, path) DO UPDATE SET is_directory = excluded.is_directory, \
                     content_tag = excluded.content_tag, number = excluded.number";
            let mut insert = connection.prepare_cached(sql)?;
            let mut advance = connection.prepare_cached(ADVANCE_JOURNAL)?;
            for SyncEntry { path, is_directory, content_tag } in changes {
                insert.execute(params![journal, path, is_directory, content_tag])?;
                advance.execute([journal])?;
            }
            Ok(())
        })
    }

    /// Returns the number of members of a journal that have rows and were not removed.
    #[cfg(test)]
    pub(crate) fn count_sync_entries(&self, journal: i64) -> Result<u64> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM journal_entries WHERE journal = ?1 AND content_tag IS NOT NULL";
            let count: i64 = connection.prepare_cached(sql)?.query_row([journal], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// Returns up to `limit` members after a path that were not removed, in the order of their paths.
    pub(crate) fn sync_entries_after(&self, journal: i64, path: &[u8], limit: usize) -> Result<Vec<SyncEntry>> {
        self.read(|connection| {
            let sql = "SELECT path, is_directory, content_tag FROM journal_entries \
                 WHERE journal = ?1 AND path > ?2 AND content_tag IS NOT NULL ORDER BY path LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![journal, path, limit], |row| {
                Ok(SyncEntry { path: row.get(0)?, is_directory: row.get(1)?, content_tag: row.get(2)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Returns up to `limit` members that changed after one number and up to another, in the order of their changes,
    /// each with its number. `None` where the journal was deleted, or entries of members that were removed after
    /// `removed_after` were purged.
    pub(crate) fn changed_sync_entries(
        &self,
        journal: i64,
        after: i64,
        to: i64,
        removed_after: i64,
        limit: usize,
    ) -> Result<Option<Vec<NumberedSyncEntry>>> {
        self.read(|connection| {
            let sql = "SELECT number, path, is_directory, content_tag FROM journal_entries \
                 WHERE journal = ?1 AND number > ?2 AND number <= ?3 ORDER BY number LIMIT ?4";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![journal, after, to, sql_limit(limit)], |row| {
                Ok((row.get(0)?, SyncEntry { path: row.get(1)?, is_directory: row.get(2)?, content_tag: row.get(3)? }))
            })?;
            let rows = rows.collect::<rusqlite::Result<_>>()?;
            // After the rows: entries that were purged before the rows were read have raised `purged_through` by now.
            let select = "SELECT purged_through <= ?2 FROM journals WHERE id = ?1";
            let is_complete: Option<bool> =
                connection.prepare_cached(select)?.query_row([journal, removed_after], |row| row.get(0)).optional()?;
            Ok(is_complete.unwrap_or(false).then_some(rows))
        })
    }

    /// Tells whether more than `count` members changed after a number, without those that were removed up to `base`.
    pub(crate) fn has_more_sync_changes(&self, journal: i64, after: i64, base: i64, count: usize) -> Result<bool> {
        self.read(|connection| {
            let sql = "SELECT 1 FROM journal_entries \
                 WHERE journal = ?1 AND number > ?2 AND (content_tag IS NOT NULL OR number > ?3) \
                 ORDER BY number LIMIT 1 OFFSET ?4";
            Ok(connection.prepare_cached(sql)?.exists(params![journal, after, base, sql_limit(count)])?)
        })
    }

    /// Gives the change of a member a new number after all others, if it still has this one.
    pub(crate) fn defer_sync_entry(&self, journal: i64, path: &[u8], number: i64) -> Result<()> {
        self.write(WriteDurability::Synced, |connection| {
            let sql = "UPDATE journal_entries SET number = (SELECT last_number + 1 FROM journals WHERE id = ?1) \
                 WHERE journal = ?1 AND path = ?2 AND number = ?3";
            if connection.prepare_cached(sql)?.execute(params![journal, path, number])? > 0 {
                connection.prepare_cached(ADVANCE_JOURNAL)?.execute([journal])?;
            }
            Ok(())
        })
    }

    /// Syncs all that was recorded up to now to disk. Costs nothing where that was done since the last record.
    pub(crate) fn flush_sync_journal(&self, journal: i64) -> Result<()> {
        let JournalWriteCounters { written, synced } = &self.inner.journal_writes;
        // Whoever has read a number sees its write counted, since that is counted before its commit.
        if synced.load(Ordering::Acquire) == written.load(Ordering::Acquire) {
            return Ok(());
        }
        let synced_through = self.write(WriteDurability::Synced, |connection| {
            // Read within the transaction: no other write is between its count and its commit then.
            let count = written.load(Ordering::Acquire);
            // An UPDATE without effect is a commit all the same, and a synced one makes all earlier lazy ones durable.
            let sql = "UPDATE journals SET last_number = last_number WHERE id = ?1";
            let updated = connection.prepare_cached(sql)?.execute([journal])?;
            // A journal that was deleted meanwhile leaves nothing to commit, and so nothing was synced.
            Ok(if updated > 0 { count } else { 0 })
        })?;
        synced.fetch_max(synced_through, Ordering::Release);
        Ok(())
    }

    /// Counts a lazy write of journals. It must be called within the transaction of the write.
    pub(super) fn count_journal_write(&self) {
        self.inner.journal_writes.written.fetch_add(1, Ordering::Release);
    }

    /// Deletes the entries of all but the last `keep` removed members; a client that has not been told of them has to
    /// synchronize from the start.
    pub(crate) fn purge_removed_sync_entries(&self, journal: i64, keep: u32) -> Result<()> {
        let oldest = |connection: &Connection| {
            let sql = "SELECT number FROM journal_entries WHERE journal = ?1 AND content_tag IS NULL \
                 ORDER BY number DESC LIMIT 1 OFFSET ?2";
            let number: Option<i64> =
                connection.prepare_cached(sql)?.query_row(params![journal, keep], |row| row.get(0)).optional()?;
            Ok(number)
        };
        let Some(number) = self.read(oldest)? else { return Ok(()) };
        // A packed member must not come back with the row that says that it was removed.
        self.unpack_sync_chunks(journal)?;
        self.write(WriteDurability::Lazy, |connection| {
            let sql = "DELETE FROM journal_entries WHERE journal = ?1 AND content_tag IS NULL AND number <= ?2";
            connection.prepare_cached(sql)?.execute([journal, number])?;
            // In the same transaction as the deletion: a client that needs the purged entries has to start over.
            let sql = "UPDATE journals SET purged_through = ?2 WHERE id = ?1";
            connection.prepare_cached(sql)?.execute([journal, number])?;
            Ok(())
        })
    }
}

/// Deletes the journals of tokens and of all their descendants, up to [`MAX_ENTRIES_DELETED_AT_REVOCATION`] entries.
pub(super) fn delete_journals_of(t: &Transaction<'_>, tokens: &[TokenId]) -> Result<()> {
    // `last` bounds the number of entries of a journal, so that they need not be counted.
    let mut delete = t.prepare_cached(
        "DELETE FROM journals WHERE id IN (
            WITH RECURSIVE descendants (id) AS (
                VALUES (?1)
                UNION SELECT child.id FROM descendants JOIN tokens child ON child.parent = descendants.id)
            SELECT id FROM (
                SELECT id, sum(last_number) OVER (ORDER BY last_number, id) AS running_total FROM journals
                WHERE token IN (SELECT id FROM descendants)
            ) AS totals
            WHERE running_total <= ?2)
         RETURNING last_number",
    )?;
    let mut remaining = MAX_ENTRIES_DELETED_AT_REVOCATION;
    for token in tokens {
        let deleted = delete.query_map(params![token, remaining], |row| row.get::<_, i64>(0))?;
        remaining -= deleted.sum::<rusqlite::Result<i64>>()?;
    }
    Ok(())
}

/// Evicts the least recently used journals beyond the maximum numbers, never the new one.
fn evict_excess_journals(t: &Transaction<'_>, new_journal: i64, token: TokenId) -> Result<()> {
    let of_token = "SELECT id FROM journals WHERE token = ?1";
    let of_user = "SELECT j.id FROM journals j JOIN tokens t ON t.id = j.token
         WHERE t.user_id = (SELECT user_id FROM tokens WHERE id = ?1)";
    for (candidates, limit) in [(of_token, MAX_JOURNALS_PER_TOKEN), (of_user, MAX_JOURNALS_PER_USER)] {
        // The new journal is sorted first, whatever the clock says, so that it is never evicted itself.
        let sql = format!(
            "DELETE FROM journals WHERE id IN ({candidates}) AND id NOT IN (SELECT id FROM journals WHERE id IN ({candidates})
                ORDER BY id = ?2 DESC, used_at DESC, id DESC LIMIT ?3)"
        );
        t.prepare_cached(&sql)?.execute(params![token, new_journal, limit])?;
    }
    Ok(())
}

/// Deletes a journal, or its first `limit` rows; returns the number of deleted rows.
fn delete_journal_entries(t: &Transaction<'_>, journal: i64, limit: usize) -> Result<usize> {
    let mut delete = t.prepare_cached(
        "DELETE FROM journal_entries WHERE journal = ?1 AND number IN
            (SELECT number FROM journal_entries WHERE journal = ?1 ORDER BY number LIMIT ?2)",
    )?;
    let deleted = delete.execute(params![journal, sql_limit(limit)])?;
    // As many as the limit: there may be more entries, so the journal stays for the next round.
    if deleted == limit {
        return Ok(deleted);
    }
    Ok(deleted + t.prepare_cached("DELETE FROM journals WHERE id = ?1")?.execute([journal])?)
}

fn find_live_journal(
    connection: &Connection,
    token: TokenId,
    directory: &TreePath,
    depth_infinity: bool,
    now: UnixMillis,
) -> Result<Option<SyncJournal>> {
    let sql = "SELECT id, purged_through, last_number FROM journals \
         WHERE token = ?1 AND path = ?2 AND depth_infinity = ?3 AND used_at > ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row(
        params![token, directory.as_bytes(), depth_infinity, now.saturating_sub(JOURNAL_IDLE_LIFETIME)],
        |row| Ok(SyncJournal { id: row.get(0)?, purged_through: row.get(1)?, last_number: row.get(2)? }),
    );
    Ok(row.optional()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::TokenExpiry;
    use crate::store::{NewTokenRow, testing};

    const ONE_HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn oldest_removed_sync_entries_are_purged() {
        let (_temp_dir, store) = testing::open_temp_store();
        store.create_user(&testing::login("alice"), &[], testing::now()).expect("user");
        let token_row = testing::new_token("aaaaaaaa", "alice", TokenExpiry::Never);
        store.add_token(&token_row).expect("stored");
        let token = token_row.id;
        let root = TreePath::root();
        let journal = store.ensure_sync_journal(token, &root, true, testing::now()).expect("created");
        assert_eq!(store.find_sync_journal(token, &root, true, testing::now()).expect("read"), Some(journal));
        assert_eq!(store.find_sync_journal(token, &root, false, testing::now()).expect("read"), None);
        let entry = |name: &str, tag: Option<&str>| SyncEntry {
            path: name.as_bytes().to_vec(),
            is_directory: false,
            content_tag: tag.map(|tag| tag.as_bytes().to_vec()),
        };
        store
            .record_sync_entries(journal.id, &[entry("a", Some("1")), entry("b", Some("1")), entry("c", Some("1"))])
            .expect("recorded");
        store
            .record_sync_entries(journal.id, &[entry("a", None), entry("b", None), entry("c", Some("2"))])
            .expect("recorded");
        assert_eq!(store.count_sync_entries(journal.id).expect("read"), 1);
        let changed = store.changed_sync_entries(journal.id, 0, 99, 0, 99).expect("read").expect("known");
        assert_eq!(changed, [(4, entry("a", None)), (5, entry("b", None)), (6, entry("c", Some("2")))]);
        let mut members = Vec::new();
        let visit = |path: &[u8], tag: Option<&[u8]>| members.push((path.to_vec(), tag.map(<[u8]>::to_vec)));
        store.visit_sync_members(journal.id, visit).expect("read");
        assert_eq!(members, [(b"a".to_vec(), None), (b"b".to_vec(), None), (b"c".to_vec(), Some(b"2".to_vec()))]);
        assert_eq!(store.sync_entries_after(journal.id, b"", 9).expect("read"), [entry("c", Some("2"))]);
        store.purge_removed_sync_entries(journal.id, 1).expect("deleted");
        let journal = store.find_sync_journal(token, &root, true, testing::now()).expect("read").expect("there");
        assert_eq!((journal.purged_through, journal.last_number), (4, 6));
        let changed =
            |after, removed_after| store.changed_sync_entries(journal.id, after, 99, removed_after, 99).expect("read");
        assert_eq!(changed(0, 4).map(|rows| rows.len()), Some(2));
        assert_eq!(changed(3, 3), None, "entries of members removed since were purged");
        assert!(store.has_more_sync_changes(journal.id, 0, 0, 1).expect("read"));
        assert!(!store.has_more_sync_changes(journal.id, 0, 0, 2).expect("read"));
        assert!(!store.has_more_sync_changes(journal.id, 0, 5, 1).expect("read"), "one of the two was removed before");
        store.defer_sync_entry(journal.id, b"c", 5).expect("nothing");
        assert_eq!(changed(4, 4), Some(vec![(5, entry("b", None)), (6, entry("c", Some("2")))]), "another number");
        store.defer_sync_entry(journal.id, b"b", 5).expect("deferred");
        store.flush_sync_journal(journal.id).expect("written");
        assert_eq!(changed(4, 4), Some(vec![(6, entry("c", Some("2"))), (7, entry("b", None))]));
    }
    fn store_with_tokens(tokens: &[(&str, &str, Option<&str>)]) -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = testing::open_temp_store();
        store.set_policy("max-tokens-per-user", "100").expect("set");
        for (name, owner, parent) in tokens {
            if store.user(&testing::login(owner)).expect("read").is_none() {
                store.create_user(&testing::login(owner), &[], testing::now()).expect("user");
            }
            let token_row = testing::new_token(name, owner, TokenExpiry::Hard(testing::now().saturating_add(ONE_HOUR)));
            store.add_token(&NewTokenRow { parent: parent.map(testing::id), ..token_row }).expect("stored");
        }
        (temp_dir, store)
    }

    /// Creates a journal with a number of members.
    fn begin_journal(store: &Store, token: &str, directory: &str, members: u32) -> i64 {
        let directory = TreePath::parse(directory.as_bytes()).expect("path");
        let journal =
            store.ensure_sync_journal(testing::id(token), &directory, true, testing::now()).expect("created").id;
        let entry = |number: u32| SyncEntry {
            path: number.to_string().into_bytes(),
            is_directory: false,
            content_tag: Some(b"1".to_vec()),
        };
        store.record_sync_entries(journal, &(0..members).map(entry).collect::<Vec<_>>()).expect("recorded");
        journal
    }

    /// Returns the tokens of the remaining journals, and the number of their entries.
    fn remaining_journals(store: &Store) -> (Vec<String>, i64) {
        let read = |c: &Connection| {
            let mut select = c.prepare("SELECT token FROM journals ORDER BY token, id")?;
            let tokens = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok((tokens, c.query_row("SELECT count(*) FROM journal_entries", [], |row| row.get(0))?))
        };
        store.read(read).expect("read")
    }

    const TOKEN_TREE: [(&str, &str, Option<&str>); 4] = [
        ("aaaaaaaa", "alice", None),
        ("bbbbbbbb", "alice", Some("aaaaaaaa")),
        ("cccccccc", "alice", Some("bbbbbbbb")),
        ("dddddddd", "alice", None),
    ];

    #[test]
    fn revocation_deletes_journals_of_token_and_descendants() {
        let (_temp_dir, store) = store_with_tokens(&TOKEN_TREE);
        for token in ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"] {
            begin_journal(&store, token, "/a", 3);
        }
        store.revoke_tokens(&[testing::id("bbbbbbbb")], testing::now()).expect("revoked");
        assert_eq!(remaining_journals(&store), (vec!["aaaaaaaa".to_owned(), "dddddddd".to_owned()], 6));
        assert_eq!(store.delete_stale_sync_journals(testing::now(), 99).expect("nothing"), 0, "of a live token");
        store.revoke_user_tokens(&testing::login("alice"), testing::now()).expect("revoked");
        assert_eq!(remaining_journals(&store), (vec![], 0));
    }

    #[test]
    fn recorded_expiration_deletes_journals_of_token() {
        let (_temp_dir, store) = store_with_tokens(&TOKEN_TREE[..1]);
        begin_journal(&store, "aaaaaaaa", "/a", 3);
        assert_eq!(store.mark_expired(testing::now(), 10).expect("nothing"), 0);
        assert_eq!(remaining_journals(&store).1, 3);
        assert_eq!(store.mark_expired(testing::now().saturating_add(ONE_HOUR), 10).expect("recorded"), 1);
        assert_eq!(remaining_journals(&store), (vec![], 0));
    }

    #[test]
    fn large_journal_does_not_delay_revocation() {
        let (_temp_dir, store) = store_with_tokens(&TOKEN_TREE);
        let long = u32::try_from(MAX_ENTRIES_DELETED_AT_REVOCATION).expect("small") + 1;
        begin_journal(&store, "aaaaaaaa", "/a", 3);
        begin_journal(&store, "aaaaaaaa", "/b", 0);
        begin_journal(&store, "bbbbbbbb", "/a", long);
        begin_journal(&store, "dddddddd", "/a", 3);
        store.revoke_tokens(&[testing::id("aaaaaaaa")], testing::now()).expect("revoked");
        assert_eq!(
            remaining_journals(&store),
            (vec!["bbbbbbbb".to_owned(), "dddddddd".to_owned()], i64::from(long) + 3)
        );
        assert_eq!(store.delete_stale_sync_journals(testing::now(), 10_000).expect("some"), 10_000);
        assert_eq!(remaining_journals(&store).1, 4);
        assert_eq!(
            store.delete_stale_sync_journals(testing::now(), 10_000).expect("the rest"),
            2,
            "an entry and the journal"
        );
        assert_eq!(remaining_journals(&store), (vec!["dddddddd".to_owned()], 3));
        assert_eq!(store.delete_stale_sync_journals(testing::now(), 10_000).expect("nothing"), 0);
    }

    #[test]
    fn journals_are_bounded_per_token_and_user_with_lru_eviction() {
        let names: Vec<String> = (0..6).map(|number| format!("aaaaaaa{number}")).collect();
        let mut tokens: Vec<_> = names.iter().map(|name| (name.as_str(), "alice", None)).collect();
        tokens.push(("bbbbbbbb", "bob", None));
        let (_temp_dir, store) = store_with_tokens(&tokens);
        begin_journal(&store, "bbbbbbbb", "/a", 1);
        let count = |token: &str| remaining_journals(&store).0.iter().filter(|other| *other == token).count();
        for name in &names[..4] {
            for number in 0..32 {
                begin_journal(&store, name, &format!("/{number}"), 0);
            }
        }
        begin_journal(&store, &names[0], "/one-more", 0);
        assert_eq!(count(&names[0]), 32, "a token's own");
        let later = testing::now().saturating_add(ONE_HOUR);
        let first = TreePath::parse(b"/1").expect("path");
        store.ensure_sync_journal(testing::id(&names[0]), &first, true, later).expect("used");
        begin_journal(&store, &names[4], "/a", 0);
        assert_eq!(remaining_journals(&store).0.len(), 129, "with that of bob");
        for name in [&names[0], &names[4]] {
            begin_journal(&store, name, "/new", 0);
        }
        assert!(
            store.find_sync_journal(testing::id(&names[0]), &first, true, testing::now()).expect("read").is_some(),
            "it was in use"
        );
        assert_eq!((remaining_journals(&store).0.len(), count("bbbbbbbb")), (129, 1));
    }

    #[test]
    fn idle_journal_expires_and_is_deleted() {
        let (_temp_dir, store) = store_with_tokens(&TOKEN_TREE);
        for (token, members) in [("aaaaaaaa", 3), ("dddddddd", 2)] {
            begin_journal(&store, token, "/a", members);
        }
        let (used, directory) = (testing::now().saturating_add(ONE_HOUR), TreePath::parse(b"/a").expect("path"));
        let id = |token: &str, now: UnixMillis| {
            store.find_sync_journal(testing::id(token), &directory, true, now).expect("read").map(|journal| journal.id)
        };
        store.ensure_sync_journal(testing::id("dddddddd"), &directory, true, used).expect("used");
        let end = testing::now().saturating_add(JOURNAL_IDLE_LIFETIME);
        assert!(id("aaaaaaaa", end.saturating_sub(ONE_HOUR)).is_some());
        assert_eq!((id("aaaaaaaa", end), id("dddddddd", end).is_some()), (None, true));
        let old = id("dddddddd", end);
        let new_journal = store
            .ensure_sync_journal(testing::id("dddddddd"), &directory, true, end.saturating_add(ONE_HOUR))
            .expect("created again");
        assert!(old != Some(new_journal.id) && new_journal.last_number == 0, "an expired journal is not continued");
        assert_eq!(store.delete_stale_sync_journals(end.saturating_sub(ONE_HOUR), 99).expect("nothing"), 0);
        assert_eq!(store.delete_stale_sync_journals(end, 99).expect("deleted"), 4);
        assert_eq!(remaining_journals(&store), (vec!["dddddddd".to_owned()], 0));
    }
}
