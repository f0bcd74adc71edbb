//! Quotas on the rows and bytes that callers can add to the store, beside those of the policy.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::columns::{sql_limit, to_sql_integer};
use super::retention::delete_longest_inactive;
use super::transactions::WriteTransaction;
use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{Login, NodeId, PropertyQuota, StateLimits, UnixMillis, UserQuotaLimits};

/// Divisor of the number of tokens that still have place that gives those inserted before all are counted again.
const RECOUNT_DIVISOR: u64 = 100;

/// Number of rows whose user is cleared in one write.
const ATTRIBUTION_BATCH_ROWS: usize = 1000;

impl Store {
    /// Sets the quotas of the store.
    pub fn set_state_limits(&self, limits: StateLimits) {
        *self.inner.limits.lock() = limits;
        // The count was good for the former quota.
        self.inner.token_headroom.store(0, Ordering::Relaxed);
    }

    /// Returns the quotas of the store.
    pub(crate) fn state_limits(&self) -> StateLimits {
        *self.inner.limits.lock()
    }

    /// Makes place for one more token of a user: where the maximum number is stored, the user's tokens that have been
    /// inactive for longest are deleted before the end of their retention. Where the maximum of all users is stored and
    /// none of the user's is inactive, that of another user is: those who keep many must not keep others from having any.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`] where no token that could be deleted is inactive.
    pub(super) fn evict_inactive_tokens(&self, t: &WriteTransaction<'_>, user: i64, now: UnixMillis) -> Result<()> {
        let UserQuotaLimits { per_user, total } = self.state_limits().tokens;
        let per_user = to_sql_integer(per_user);
        // LIMIT stops the count at the quota.
        let of_user = "SELECT count(*) FROM (SELECT 1 FROM tokens WHERE user_id = ?2 LIMIT ?1) AS stored";
        let exceeded = || Err(StoreError::QuotaExceeded("the maximum number of stored tokens is reached"));
        while count(t, of_user, &[&per_user, &user])? >= per_user {
            if !delete_longest_inactive(t, Some(user), now)? {
                return exceeded();
            }
        }
        while !self.takes_token(t, total)? {
            if !delete_longest_inactive(t, Some(user), now)? && !delete_longest_inactive(t, None, now)? {
                return exceeded();
            }
        }
        Ok(())
    }

    /// Tells whether fewer than `total` tokens are stored, and takes the place of one that is inserted then.
    ///
    /// Counting reads a whole index while other writes wait. So a count is good for a part of the tokens that still have
    /// place: a small one, since commands of other processes insert tokens as well.
    fn takes_token(&self, t: &WriteTransaction<'_>, total: u64) -> Result<bool> {
        let headroom = &self.inner.token_headroom;
        if headroom.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(1)).is_ok() {
            return Ok(true);
        }
        let of_all = "SELECT count(*) FROM (SELECT 1 FROM tokens LIMIT ?1) AS stored";
        let places = total.saturating_sub(count(t, of_all, &[&to_sql_integer(total)])?.unsigned_abs());
        headroom.store(places / RECOUNT_DIVISOR, Ordering::Relaxed);
        Ok(places > 0)
    }

    /// Refuses `additional` named nodes where they would exceed the quotas; 0 checks those that the transaction has
    /// already inserted.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`].
    pub(super) fn enforce_node_quota(&self, c: &Connection, named_by: Option<&Login>, additional: u64) -> Result<()> {
        let UserQuotaLimits { per_user, total } = self.state_limits().named_nodes;
        if let Some(named_by) = named_by
            && amount(c, "nodes", named_by)?.saturating_add(additional) > per_user
        {
            return Err(StoreError::QuotaExceeded("the user has the maximum number of named files and directories"));
        }
        if total_amount(c, "nodes")?.saturating_add(additional) > total {
            return Err(StoreError::QuotaExceeded("the maximum number of named files and directories is reached"));
        }
        Ok(())
    }

    /// Sets the quota of dead properties.
    pub fn set_property_quota(&self, quota: PropertyQuota) {
        *self.inner.property_quota.lock() = quota;
    }

    /// Refuses `additional` bytes of dead properties of a user where they would exceed the quotas.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`]; [`StoreError::DiskFull`] where the disk has no space for them.
    pub(crate) fn check_property_quota(&self, writer: &Login, additional: u64) -> Result<()> {
        if additional == 0 {
            return Ok(());
        }
        self.check_may_grow()?;
        // Twice: the bytes are in the write-ahead log first, and in the database from the next checkpoint on.
        if self.inner.ballast_file.lacks_room(additional.saturating_mul(2)) {
            return Err(StoreError::DiskFull);
        }
        self.read(|c| {
            let usage = PropertyUsage::load(c, writer)?;
            self.enforce_property_quota(
                usage,
                PropertyUsage {
                    user_bytes: usage.user_bytes.saturating_add(additional),
                    total_bytes: usage.total_bytes.saturating_add(additional),
                },
            )
        })
    }

    /// Refuses `additional` named nodes of a user where they would exceed the quotas.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`].
    pub(crate) fn check_node_quota(&self, named_by: &Login, additional: usize) -> Result<()> {
        let additional = u64::try_from(additional).unwrap_or(u64::MAX);
        self.read(|c| self.enforce_node_quota(c, Some(named_by), additional))
    }

    /// Refuses dead properties beyond the quotas, except for a change that reduces them.
    pub(super) fn enforce_property_quota(&self, before: PropertyUsage, after: PropertyUsage) -> Result<()> {
        let PropertyQuota { per_user, total } = *self.inner.property_quota.lock();
        if after.user_bytes > per_user && after.user_bytes > before.user_bytes {
            return Err(StoreError::QuotaExceeded(
                "the properties that the user has set have reached their maximum size",
            ));
        }
        if after.total_bytes > total && after.total_bytes > before.total_bytes {
            return Err(StoreError::QuotaExceeded("all properties together have reached their maximum size"));
        }
        Ok(())
    }
}

impl Store {
    /// Clears the user of up to `limit` properties and nodes each that a deleted user had set or named, and returns how
    /// many. The rows stay: they belong to files.
    pub(crate) fn clear_attribution_to_removed_users(&self, limit: usize) -> Result<usize> {
        let select = "SELECT login FROM usage WHERE login <> '' AND login NOT IN (SELECT login FROM users) LIMIT 1";
        let login = self.read(|c| Ok(c.prepare_cached(select)?.query_row([], |row| row.get(0)).optional()?))?;
        login.map_or(Ok(0), |login: Login| self.clear_attribution_batch(&login, limit))
    }

    /// Clears the user of all properties and nodes that a deleted user had set or named, so that a new user of the same
    /// login starts with an unused quota.
    pub(super) fn clear_attribution_to(&self, login: &Login) -> Result<()> {
        while self.clear_attribution_batch(login, ATTRIBUTION_BATCH_ROWS)? > 0 {}
        Ok(())
    }

    fn clear_attribution_batch(&self, login: &Login, limit: usize) -> Result<usize> {
        let mut count = 0;
        // Rows are searched in reads of their own, so that no write waits for the search.
        if self.read(|c| amount(c, "nodes", login))? > 0 {
            let nodes = self.read(|c| {
                let mut select = c.prepare("SELECT id FROM nodes WHERE named_by = ?1 LIMIT ?2")?;
                let rows = select.query_map(params![login, sql_limit(limit)], |row| row.get::<_, NodeId>(0))?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })?;
            count += self.clear_attribution_of_rows(
                "UPDATE nodes SET named_by = '' WHERE id = ?1",
                nodes.iter().map(|node| (node,)),
            )?;
        }
        if self.read(|c| amount(c, "properties", login))? > 0 {
            let keys = self.read(|c| {
                let mut select =
                    c.prepare("SELECT node, namespace, name FROM properties WHERE writer = ?1 LIMIT ?2")?;
                let rows = select.query_map(params![login, sql_limit(limit)], |row| {
                    Ok((row.get::<_, NodeId>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
                })?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })?;
            let update = "UPDATE properties SET writer = '' WHERE node = ?1 AND namespace = ?2 AND name = ?3";
            count += self.clear_attribution_of_rows(
                update,
                keys.iter().map(|(node, namespace, name)| (node, namespace, name)),
            )?;
        }
        Ok(count)
    }

    fn clear_attribution_of_rows<P: rusqlite::Params>(
        &self,
        update: &str,
        rows: impl Iterator<Item = P>,
    ) -> Result<usize> {
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

/// Bytes that dead properties take.
#[derive(Clone, Copy, Debug)]
pub(super) struct PropertyUsage {
    user_bytes: u64,
    total_bytes: u64,
}

impl PropertyUsage {
    /// Reads the bytes of one user's properties, and of all.
    pub(super) fn load(c: &Connection, writer: &Login) -> Result<Self> {
        Ok(Self { user_bytes: amount(c, "properties", writer)?, total_bytes: total_amount(c, "properties")? })
    }
}

fn count(c: &Connection, sql: &str, params: &[&dyn ToSql]) -> Result<i64> {
    Ok(c.prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
}

/// Returns the amount of a resource that counts for one user.
fn amount(c: &Connection, resource: &str, login: &Login) -> Result<u64> {
    let select = "SELECT amount FROM usage WHERE resource = ?1 AND login = ?2";
    let amount: Option<i64> =
        c.prepare_cached(select)?.query_row(params![resource, login], |row| row.get(0)).optional()?;
    Ok(amount.unwrap_or(0).unsigned_abs())
}

/// Returns the amount of a resource in all.
pub(super) fn total_amount(c: &Connection, resource: &str) -> Result<u64> {
    let select = "SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) FROM usage WHERE resource = ?1";
    Ok(c.prepare_cached(select)?.query_row([resource], |row| row.get::<_, i64>(0))?.unsigned_abs())
}
