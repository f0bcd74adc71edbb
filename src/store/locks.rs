//! WebDAV write locks, stored so that they survive a restart.

use std::time::Duration;

use rusqlite::params;

use super::columns::parse_stored_path;
use super::{BallastShare, Result, Store, WriteDurability};
use crate::domain::{Login, TreePath, UnixMillis};

/// The row of a write lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockRow {
    /// The lock token.
    pub(crate) token: String,
    /// Path of the locked resource.
    pub(crate) path: TreePath,
    /// Whether the lock has depth infinity.
    pub(crate) depth_infinity: bool,
    /// Whether the lock is exclusive.
    pub(crate) exclusive: bool,
    /// Login of the user who holds the lock.
    pub(crate) login: Login,
    /// The client's owner element.
    pub(crate) owner: String,
    /// Timeout that the lock was granted.
    pub(crate) timeout: Duration,
    /// Time at which the lock expires.
    pub(crate) expires_at: UnixMillis,
}

impl Store {
    /// Returns the locks that expire after `now`, and deletes the others.
    pub(crate) fn load_unexpired_locks(&self, now: UnixMillis) -> Result<Vec<LockRow>> {
        self.write_shrinking(WriteDurability::Lazy, |connection| {
            connection.execute("DELETE FROM locks WHERE expires_at <= ?1", [now])?;
            let sql = "SELECT token, path, depth_infinity, exclusive, login, owner, timeout_ms, expires_at FROM locks";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            let mut locks = Vec::new();
            while let Some(row) = rows.next()? {
                locks.push(LockRow {
                    token: row.get(0)?,
                    path: parse_stored_path(&row.get::<_, Vec<u8>>(1)?)?,
                    depth_infinity: row.get(2)?,
                    exclusive: row.get(3)?,
                    login: row.get(4)?,
                    owner: row.get(5)?,
                    timeout: Duration::from_millis(row.get::<_, i64>(6)?.unsigned_abs()),
                    expires_at: row.get(7)?,
                });
            }
            Ok(locks)
        })
    }

    /// Inserts a new lock.
    pub(crate) fn put_lock(&self, lock: &LockRow, durability: WriteDurability) -> Result<()> {
        self.write(durability, |connection| {
            let sql = "INSERT INTO locks \
                 (token, path, depth_infinity, exclusive, login, owner, timeout_ms, expires_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            connection.prepare_cached(sql)?.execute(params![
                lock.token,
                lock.path.as_bytes(),
                lock.depth_infinity,
                lock.exclusive,
                lock.login,
                lock.owner,
                i64::try_from(lock.timeout.as_millis()).unwrap_or(i64::MAX),
                lock.expires_at,
            ])?;
            Ok(())
        })
    }

    /// Updates timeout and expiration of a stored lock; one that was deleted meanwhile stays deleted.
    pub(crate) fn prolong_lock(&self, lock: &LockRow, durability: WriteDurability) -> Result<()> {
        self.write(durability, |connection| {
            let sql = "UPDATE locks SET timeout_ms = ?2, expires_at = ?3 WHERE token = ?1";
            let timeout = i64::try_from(lock.timeout.as_millis()).unwrap_or(i64::MAX);
            connection.prepare_cached(sql)?.execute(params![lock.token, timeout, lock.expires_at])?;
            Ok(())
        })
    }

    /// Deletes locks. May use the ballast: an unlock that already happened must be recorded.
    pub(crate) fn delete_locks(&self, tokens: &[&str], durability: WriteDurability) -> Result<()> {
        self.write_with_ballast(durability, BallastShare::Narrowing, |connection| {
            let mut statement = connection.prepare_cached("DELETE FROM locks WHERE token = ?1")?;
            tokens.iter().try_for_each(|token| statement.execute([token]).map(drop))?;
            Ok(())
        })
    }
}
