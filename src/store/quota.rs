//! Bounds on what callers can fill the store with, as far as it is no business of the policy.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::columns::sql_limit;
use super::retention::remove_longest_dead;
use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{Login, NodeId, PropertyQuota, StateLimits, UnixMillis, UserQuotaLimits};

/// Rows that are counted for nobody in one write.
const DISOWNED_AT_ONCE: usize = 1000;

impl Store {
    /// Bounds what callers can fill the store with.
    pub fn bound_state(&self, limits: StateLimits) {
        *self.inner.limits.lock() = limits;
    }

    /// Returns the bounds on what callers can fill the store with.
    pub(crate) fn state_limits(&self) -> StateLimits {
        *self.inner.limits.lock()
    }

    /// Makes room for one more token of a user: where as many are kept as may be, those of his that have been dead for
    /// longest go before their time.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`] where none of his is dead.
    pub(super) fn make_room_for_token(&self, t: &Transaction<'_>, user: i64, now: UnixMillis) -> Result<()> {
        let UserQuotaLimits { per_user, total: in_all } = self.state_limits().tokens;
        let rows = |sql: &str, bound: u64| -> Result<bool> {
            let enough = i64::try_from(bound).unwrap_or(i64::MAX);
            let rows = t.prepare_cached(sql)?.query_row(params![user, enough], |row| row.get::<_, i64>(0))?;
            Ok(rows >= enough)
        };
        let of_user = "SELECT count(*) FROM (SELECT 1 FROM tokens WHERE user_id = ?1 LIMIT ?2)";
        // The user is named for the number of parameters alone.
        let of_all = "SELECT count(*) FROM (SELECT 1 FROM tokens WHERE ?1 IS NOT NULL LIMIT ?2)";
        while rows(of_user, per_user)? || rows(of_all, in_all)? {
            if !remove_longest_dead(t, user, now)? {
                return Err(StoreError::QuotaExceeded("as many tokens are kept as may be"));
            }
        }
        Ok(())
    }

    /// Refuses `more` nodes than there are by now where they would be beyond the bounds; 0 judges those that were named
    /// within a transaction.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`].
    pub(super) fn fits_named_nodes(&self, c: &Connection, namer: Option<&Login>, more: u64) -> Result<()> {
        let UserQuotaLimits { per_user, total: in_all } = self.state_limits().named_nodes;
        if let Some(namer) = namer
            && amount(c, "nodes", namer)?.saturating_add(more) > per_user
        {
            return Err(StoreError::QuotaExceeded("the user has had as many files and directories named as may be"));
        }
        if amount_in_all(c, "nodes")?.saturating_add(more) > in_all {
            return Err(StoreError::QuotaExceeded("as many files and directories are named as may be"));
        }
        Ok(())
    }

    /// Bounds the space that dead properties may take.
    pub fn set_property_quota(&self, space: PropertyQuota) {
        *self.inner.property_quota.lock() = space;
    }

    /// Refuses so many more bytes of dead properties by a user.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`]; [`StoreError::DiskFull`] while nothing may grow.
    pub(crate) fn check_property_quota(&self, writer: &Login, more: u64) -> Result<()> {
        if more == 0 {
            return Ok(());
        }
        self.check_may_grow()?;
        // In the write-ahead log, and in the database once that is folded into it.
        if self.inner.ballast_file.lacks_room(more.saturating_mul(2)) {
            return Err(StoreError::DiskFull);
        }
        self.read(|c| {
            let held = PropertyUsage::load(c, writer)?;
            self.enforce_property_quota(
                held,
                PropertyUsage {
                    user_bytes: held.user_bytes.saturating_add(more),
                    total_bytes: held.total_bytes.saturating_add(more),
                },
            )
        })
    }

    /// Refuses so many more rows of nodes that a user has named.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`].
    pub(crate) fn may_name_nodes(&self, namer: &Login, more: usize) -> Result<()> {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.read(|c| self.fits_named_nodes(c, Some(namer), more))
    }

    /// Refuses dead properties beyond the bounds, but for a change by which they become less.
    pub(super) fn enforce_property_quota(&self, before: PropertyUsage, after: PropertyUsage) -> Result<()> {
        let PropertyQuota { per_user, total: all } = *self.inner.property_quota.lock();
        if after.user_bytes > per_user && after.user_bytes > before.user_bytes {
            return Err(StoreError::QuotaExceeded(
                "the properties that the user has set take as much space as they may",
            ));
        }
        if after.total_bytes > all && after.total_bytes > before.total_bytes {
            return Err(StoreError::QuotaExceeded("all properties together take as much space as they may"));
        }
        Ok(())
    }
}

impl Store {
    /// Counts for nobody what users who were removed had set and named, up to so many rows of each kind; tells how many.
    /// It belongs to files, which stay.
    pub(crate) fn disown_removed_users(&self, limit: usize) -> Result<usize> {
        let gone = "SELECT who FROM usage WHERE who <> '' AND who NOT IN (SELECT login FROM users) LIMIT 1";
        let who = self.read(|c| Ok(c.prepare_cached(gone)?.query_row([], |row| row.get(0)).optional()?))?;
        who.map_or(Ok(0), |who: Login| self.disown_rows_of(&who, limit))
    }

    /// Counts for nobody what was set and named by a user who was removed, so that another one of the same name begins
    /// anew.
    pub(super) fn disown_all_of(&self, who: &Login) -> Result<()> {
        while self.disown_rows_of(who, DISOWNED_AT_ONCE)? > 0 {}
        Ok(())
    }

    fn disown_rows_of(&self, who: &Login, limit: usize) -> Result<usize> {
        let mut count = 0;
        // Found apart from the writes, so that none waits for a search.
        if self.read(|c| amount(c, "nodes", who))? > 0 {
            let nodes = self.read(|c| {
                let mut select = c.prepare("SELECT id FROM nodes WHERE namer = ?1 LIMIT ?2")?;
                let rows = select.query_map(params![who, sql_limit(limit)], |row| row.get::<_, NodeId>(0))?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })?;
            count += self.disown("UPDATE nodes SET namer = '' WHERE id = ?1", nodes.iter().map(|node| (node,)))?;
        }
        if self.read(|c| amount(c, "properties", who))? > 0 {
            let keys = self.read(|c| {
                let mut select =
                    c.prepare("SELECT node, namespace, name FROM properties WHERE writer = ?1 LIMIT ?2")?;
                let rows = select.query_map(params![who, sql_limit(limit)], |row| {
                    Ok((row.get::<_, NodeId>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
                })?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })?;
            let disown = "UPDATE properties SET writer = '' WHERE node = ?1 AND namespace = ?2 AND name = ?3";
            count += self.disown(disown, keys.iter().map(|(node, namespace, name)| (node, namespace, name)))?;
        }
        Ok(count)
    }

    fn disown<P: rusqlite::Params>(&self, update: &str, rows: impl Iterator<Item = P>) -> Result<usize> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let mut update = t.prepare_cached(update)?;
            let mut count = 0;
            for row in rows {
                count += update.execute(row)?;
            }
            Ok(count)
        })
    }
}

/// Space that dead properties take, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PropertyUsage {
    user_bytes: u64,
    total_bytes: u64,
}

impl PropertyUsage {
    /// Reads how much those of a user take, and all.
    pub(super) fn load(c: &Connection, writer: &Login) -> Result<Self> {
        Ok(Self { user_bytes: amount(c, "properties", writer)?, total_bytes: amount_in_all(c, "properties")? })
    }
}

/// Returns how much of something there is by one user.
fn amount(c: &Connection, what: &str, who: &Login) -> Result<u64> {
    let own = "SELECT amount FROM usage WHERE what = ?1 AND who = ?2";
    let own: Option<i64> = c.prepare_cached(own)?.query_row(params![what, who], |row| row.get(0)).optional()?;
    Ok(own.unwrap_or(0).unsigned_abs())
}

/// Returns how much of something there is by all together.
fn amount_in_all(c: &Connection, what: &str) -> Result<u64> {
    let all = "SELECT coalesce(sum(amount), 0) FROM usage WHERE what = ?1";
    Ok(c.prepare_cached(all)?.query_row([what], |row| row.get::<_, i64>(0))?.unsigned_abs())
}
