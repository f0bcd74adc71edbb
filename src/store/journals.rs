//! What of a folder a token was told of: the members and their state, each with the number of its last change.
//!
//! One journal belongs to one token, folder and depth, and goes with the token. All writes are lazy: what a power
//! cut takes from a journal is found again when the folder is next compared with it.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Durability, Result, Store};
use crate::domain::{Time, TokenId, TreePath};

/// How many journals a token may have; the one that rested longest goes.
const MOST: i64 = 32;

/// A journal, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// Its id.
    pub(crate) id: i64,
    /// What went before this number is forgotten.
    pub(crate) floor: i64,
    /// The number of the last change.
    pub(crate) last: i64,
}

/// A member of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The way to it from the folder.
    pub(crate) path: Vec<u8>,
    /// Whether it is, or was, a folder.
    pub(crate) folder: bool,
    /// What tells its content apart; `None` when it has gone.
    pub(crate) mark: Option<Vec<u8>>,
}

impl Store {
    /// Returns the journal of a token, folder and depth, if there is one.
    pub(crate) fn find_journal(&self, token: TokenId, folder: &TreePath, deep: bool) -> Result<Option<Journal>> {
        self.read(|connection| find(connection, token, folder, deep))
    }

    /// Returns the journal of a token, folder and depth; begins it where there is none.
    pub(crate) fn journal(&self, token: TokenId, folder: &TreePath, deep: bool, now: Time) -> Result<Journal> {
        self.write(Durability::Lazy, |connection| {
            let sql = "INSERT INTO journals (token, path, deep, floor, last, used_at) VALUES (?1, ?2, ?3, 0, 0, ?4) \
                 ON CONFLICT DO UPDATE SET used_at = excluded.used_at";
            connection.prepare_cached(sql)?.execute(params![token, folder.as_bytes(), deep, now])?;
            let sql = "DELETE FROM journals WHERE token = ?1 AND id NOT IN \
                 (SELECT id FROM journals WHERE token = ?1 ORDER BY used_at DESC, id DESC LIMIT ?2)";
            connection.prepare_cached(sql)?.execute(params![token, MOST])?;
            let found = find(connection, token, folder, deep)?;
            found.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
        })
    }

    /// Returns what tells apart the members at these paths, as far as the journal knows them.
    pub(crate) fn marks(&self, journal: i64, paths: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        self.read(|connection| {
            let sql = "SELECT mark FROM journal_entries WHERE journal = ?1 AND path = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let mut one = |path: &&[u8]| {
                let mark: Option<Option<Vec<u8>>> =
                    statement.query_row(params![journal, path], |row| row.get(0)).optional()?;
                Ok(mark.flatten())
            };
            paths.iter().map(&mut one).collect()
        })
    }

    /// Notes changes in their order, each with a number of its own.
    pub(crate) fn note_marks(&self, journal: i64, changes: &[Mark]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(Durability::Lazy, |connection| {
            let sql = "INSERT OR REPLACE INTO journal_entries (journal, path, folder, mark, number) \
                 SELECT id, ?2, ?3, ?4, last + 1 FROM journals WHERE id = ?1";
            let mut note = connection.prepare_cached(sql)?;
            let mut count = connection.prepare_cached("UPDATE journals SET last = last + 1 WHERE id = ?1")?;
            for Mark { path, folder, mark } in changes {
                note.execute(params![journal, path, folder, mark])?;
                count.execute([journal])?;
            }
            Ok(())
        })
    }

    /// Returns how many members a journal knows that have not gone.
    pub(crate) fn count_marks(&self, journal: i64) -> Result<u64> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM journal_entries WHERE journal = ?1 AND mark IS NOT NULL";
            let count: i64 = connection.prepare_cached(sql)?.query_row([journal], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// Returns the members that have not gone, behind one, in the order of their paths.
    pub(crate) fn marks_behind(&self, journal: i64, path: &[u8], most: usize) -> Result<Vec<Mark>> {
        self.read(|connection| {
            let sql = "SELECT path, folder, mark FROM journal_entries \
                 WHERE journal = ?1 AND path > ?2 AND mark IS NOT NULL ORDER BY path LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![journal, path, most], |row| {
                Ok(Mark { path: row.get(0)?, folder: row.get(1)?, mark: row.get(2)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Returns the members that changed after one number and up to another, in the order of their changes, each with
    /// its number.
    pub(crate) fn changed_marks(&self, journal: i64, after: i64, to: i64, most: usize) -> Result<Vec<(i64, Mark)>> {
        self.read(|connection| {
            let sql = "SELECT number, path, folder, mark FROM journal_entries \
                 WHERE journal = ?1 AND number > ?2 AND number <= ?3 ORDER BY number LIMIT ?4";
            let mut statement = connection.prepare_cached(sql)?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![journal, after, to, most], |row| {
                Ok((row.get(0)?, Mark { path: row.get(1)?, folder: row.get(2)?, mark: row.get(3)? }))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Forgets all but the last `keep` members that have gone; who was told of less has to begin anew.
    pub(crate) fn forget_gone(&self, journal: i64, keep: u32) -> Result<()> {
        let oldest = |connection: &Connection| {
            let sql = "SELECT number FROM journal_entries WHERE journal = ?1 AND mark IS NULL \
                 ORDER BY number DESC LIMIT 1 OFFSET ?2";
            let number: Option<i64> =
                connection.prepare_cached(sql)?.query_row(params![journal, keep], |row| row.get(0)).optional()?;
            Ok(number)
        };
        let Some(number) = self.read(oldest)? else { return Ok(()) };
        self.write(Durability::Lazy, |connection| {
            let sql = "DELETE FROM journal_entries WHERE journal = ?1 AND mark IS NULL AND number <= ?2";
            connection.prepare_cached(sql)?.execute([journal, number])?;
            connection.prepare_cached("UPDATE journals SET floor = ?2 WHERE id = ?1")?.execute([journal, number])?;
            Ok(())
        })
    }
}

fn find(connection: &Connection, token: TokenId, folder: &TreePath, deep: bool) -> Result<Option<Journal>> {
    let sql = "SELECT id, floor, last FROM journals WHERE token = ?1 AND path = ?2 AND deep = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row(params![token, folder.as_bytes(), deep], |row| {
        Ok(Journal { id: row.get(0)?, floor: row.get(1)?, last: row.get(2)? })
    });
    Ok(row.optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn what_has_gone_is_forgotten_in_its_turn() {
        let (_folder, store) = testing::opened();
        store.create_user(&testing::login("alice"), &[], testing::now()).expect("user");
        let new = testing::token("aaaaaaaa", "alice", crate::domain::Expiry::Never);
        store.add_token(&new).expect("kept");
        let token = new.id;
        let root = TreePath::root();
        let journal = store.journal(token, &root, true, testing::now()).expect("begun");
        assert_eq!(store.find_journal(token, &root, true).expect("read"), Some(journal));
        assert_eq!(store.find_journal(token, &root, false).expect("read"), None);
        let mark = |name: &str, mark: Option<&str>| Mark {
            path: name.as_bytes().to_vec(),
            folder: false,
            mark: mark.map(|mark| mark.as_bytes().to_vec()),
        };
        store
            .note_marks(journal.id, &[mark("a", Some("1")), mark("b", Some("1")), mark("c", Some("1"))])
            .expect("noted");
        store.note_marks(journal.id, &[mark("a", None), mark("b", None), mark("c", Some("2"))]).expect("noted");
        assert_eq!(store.count_marks(journal.id).expect("read"), 1);
        let changed = store.changed_marks(journal.id, 0, 99, 99).expect("read");
        assert_eq!(changed, [(4, mark("a", None)), (5, mark("b", None)), (6, mark("c", Some("2")))]);
        assert_eq!(store.marks(journal.id, &[b"c", b"a", b"x"]).expect("read"), [Some(b"2".to_vec()), None, None]);
        assert_eq!(store.marks_behind(journal.id, b"", 9).expect("read"), [mark("c", Some("2"))]);
        store.forget_gone(journal.id, 1).expect("forgotten");
        let journal = store.find_journal(token, &root, true).expect("read").expect("there");
        assert_eq!((journal.floor, journal.last), (4, 6));
        assert_eq!(store.changed_marks(journal.id, 0, 99, 99).expect("read").len(), 2);
    }
}
