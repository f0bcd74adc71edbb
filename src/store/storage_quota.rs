//! Storage quotas: the accounts that have one, and the bytes that are counted for each.
//!
//! An account has a row as long as it has a quota. Its bytes are raised before files grow and lowered after they
//! shrink, so that at no moment, also after a kill, less is counted than is stored; a count of the files corrects the
//! rest.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::located_scopes::{NodeRowCache, resolved_scopes};
use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{ByteSize, Login, StorageAccount, StorageUsage, TokenId, TreeAccess, TreePath, UnixMillis};

/// An account with a quota, and the topmost paths whose files count for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageQuotaRow {
    pub(crate) account: StorageAccount,
    pub(crate) max: ByteSize,
    pub(crate) paths: Vec<TreePath>,
}

/// Use of the quota of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageUse {
    pub(crate) account: StorageAccount,
    /// Bytes that are counted.
    pub(crate) used: u64,
    pub(crate) max: ByteSize,
}

/// A change of the bytes of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageCharge {
    pub(crate) account: StorageAccount,
    /// Number of bytes to add, or to subtract.
    pub(crate) delta: i64,
    /// Maximum of the sum, for bytes that are added.
    pub(crate) max: Option<ByteSize>,
}

/// Use of all quotas of users together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageQuotaTotals {
    /// Sum of the bytes that are stored.
    pub used: u64,
    /// Sum of the quotas.
    pub max: u64,
}

impl Store {
    /// Returns the accounts with a quota, and the epoch from which on they are current.
    pub(crate) fn storage_quotas(&self) -> Result<(i64, Vec<StorageQuotaRow>)> {
        // Read first: a change during the reads below moves the epoch past this one.
        let epoch = self.epoch()?;
        let mut rows = self.snapshot(select_user_quotas)?;
        for token in self.read(select_tokens_with_quota)? {
            let Some(effective) = self.effective_access(token)? else { continue };
            let Some(max) = effective.chain.first().and_then(|link| link.limits.quota) else { continue };
            let paths = effective.access.writable_paths();
            rows.push(StorageQuotaRow { account: StorageAccount::Token(token), max, paths });
        }
        Ok((epoch, rows))
    }

    /// Returns how much of each quota is used.
    pub(crate) fn storage_use(&self) -> Result<Vec<StorageUse>> {
        let (_, rows) = self.storage_quotas()?;
        let with_use = |row: StorageQuotaRow| {
            let used = self.storage_usage(&row.account)?.map_or(0, |usage| usage.used);
            Ok(StorageUse { account: row.account, used, max: row.max })
        };
        rows.into_iter().map(with_use).collect()
    }

    /// Returns login, stored bytes and quota of users with a storage quota, in the order of their logins, `max_users` of
    /// them at most.
    pub fn user_storage(&self, max_users: usize) -> Result<Vec<(Login, u64, u64)>> {
        self.read(|c| {
            let mut select = c.prepare_cached(
                "SELECT u.login, s.used, u.quota FROM users u JOIN storage_usage s ON s.account = 'user:' || u.login
                 WHERE u.quota IS NOT NULL ORDER BY u.login LIMIT ?1",
            )?;
            let bytes = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(|n| n.max(0).unsigned_abs());
            let rows = select
                .query_map([signed(max_users as u64)], |row| Ok((row.get(0)?, bytes(row, 1)?, bytes(row, 2)?)))?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
    }

    /// Changes the bytes of accounts, of all or of none. Returns the account whose quota would be exceeded, if any.
    pub(crate) fn charge_storage(&self, charges: &[StorageCharge]) -> Result<Option<StorageAccount>> {
        let exceeded = self.write_shrinking(WriteDurability::Lazy, |t| {
            for charge in charges {
                if !apply_charge(t, charge)? {
                    // The error rolls back what was charged to other accounts.
                    return Err(StoreError::QuotaExceeded("the storage quota is used up"));
                }
            }
            Ok(())
        });
        match exceeded {
            Err(StoreError::QuotaExceeded(_)) => Ok(self.first_exceeded(charges)?),
            other => other.map(|()| None),
        }
    }

    /// Returns the account whose quota is the reason for a refused charge.
    fn first_exceeded(&self, charges: &[StorageCharge]) -> Result<Option<StorageAccount>> {
        let bounded = charges.iter().filter_map(|charge| charge.max.map(|max| (charge, max)));
        let mut least: Option<(i64, &StorageCharge)> = None;
        for (charge, max) in bounded {
            let used = self.storage_usage(&charge.account)?.map_or(0, |usage| usage.used);
            let space = signed(max.bytes()).saturating_sub(signed(used)).saturating_sub(charge.delta);
            if least.is_none_or(|(least, _)| space < least) {
                least = Some((space, charge));
            }
        }
        Ok(least.map(|(_, charge)| charge.account.clone()))
    }

    /// Returns the bytes that are counted for an account; `None` for one without a quota.
    pub fn storage_usage(&self, account: &StorageAccount) -> Result<Option<StorageUsage>> {
        self.read(|c| select_usage(c, account))
    }

    /// Returns accounts whose files are to be counted, `max` of them at most: those that never were or for which that was
    /// asked, and then those whose last count was the longest ago, if that was before `before`.
    pub(crate) fn due_storage_recounts(&self, before: UnixMillis, max: usize) -> Result<Vec<String>> {
        self.read(|c| {
            let mut select = c.prepare_cached(
                "SELECT account FROM storage_usage WHERE coalesce(counted_at, 0) < ?1
                 ORDER BY coalesce(counted_at, 0), account LIMIT ?2",
            )?;
            let accounts = select.query_map(params![before, signed(max as u64)], |row| row.get(0))?;
            Ok(accounts.collect::<std::result::Result<_, _>>()?)
        })
    }

    /// Asks for a count of the files of every account.
    pub(crate) fn request_storage_recounts(&self) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            t.execute("UPDATE storage_usage SET counted_at = NULL, recount_bytes = NULL", [])?;
            Ok(())
        })
    }

    /// Records how far a count of files has come.
    pub(crate) fn record_recount_progress(&self, account: &StorageAccount, bytes: u64) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let update = "UPDATE storage_usage SET recount_bytes = ?2 WHERE account = ?1";
            t.execute(update, params![account.to_string(), signed(bytes)])?;
            Ok(())
        })
    }

    /// Records that an account needs no count.
    pub(crate) fn skip_recount(&self, account: &str, now: UnixMillis) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let update = "UPDATE storage_usage SET counted_at = ?2, recount_bytes = NULL WHERE account = ?1";
            t.execute(update, params![account, now])?;
            Ok(())
        })
    }

    /// Records the bytes that a count of files has found.
    pub(crate) fn record_recount(&self, account: &StorageAccount, bytes: u64, now: UnixMillis) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let update = "UPDATE storage_usage SET used = ?2, counted_at = ?3, recount_bytes = NULL WHERE account = ?1";
            t.execute(update, params![account.to_string(), signed(bytes), now])?;
            Ok(())
        })
    }
}

/// Reads the sums over all users with a quota.
pub(super) fn totals(c: &Connection) -> Result<StorageQuotaTotals> {
    let mut select = c.prepare_cached(
        "SELECT coalesce(sum(s.used), 0), coalesce(sum(u.quota), 0)
         FROM users u JOIN storage_usage s ON s.account = 'user:' || u.login WHERE u.quota IS NOT NULL",
    )?;
    let sum = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(select.query_row([], |row| Ok(StorageQuotaTotals { used: sum(row, 0)?, max: sum(row, 1)? }))?)
}

/// Begins to count for an account, or, where it is counted already, asks for a new count.
pub(super) fn open_account(t: &Transaction<'_>, account: &StorageAccount) -> Result<()> {
    let mut insert = t.prepare_cached(
        "INSERT INTO storage_usage (account, used) VALUES (?1, 0)
         ON CONFLICT (account) DO UPDATE SET counted_at = NULL",
    )?;
    insert.execute([account.to_string()])?;
    Ok(())
}

/// Ends the count for an account.
pub(super) fn close_account(t: &Transaction<'_>, account: &StorageAccount) -> Result<()> {
    t.prepare_cached("DELETE FROM storage_usage WHERE account = ?1")?.execute([account.to_string()])?;
    Ok(())
}

/// Reads the bytes that are counted for an account.
pub(super) fn select_usage(c: &Connection, account: &StorageAccount) -> Result<Option<StorageUsage>> {
    let mut select =
        c.prepare_cached("SELECT used, counted_at, recount_bytes FROM storage_usage WHERE account = ?1")?;
    let usage = |row: &rusqlite::Row<'_>| {
        Ok(StorageUsage {
            used: row.get::<_, i64>(0)?.max(0).unsigned_abs(),
            counted_at: row.get(1)?,
            recount_bytes: row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
        })
    };
    Ok(select.query_row([account.to_string()], usage).optional()?)
}

/// Returns a quota as its column has it.
pub(super) fn quota_column(quota: Option<ByteSize>) -> Option<i64> {
    quota.map(|quota| signed(quota.bytes()))
}

/// Reads a quota from its column.
pub(super) fn quota_from_column(value: Option<i64>) -> Option<ByteSize> {
    value.map(|bytes| ByteSize::from_bytes(bytes.unsigned_abs()))
}

/// Applies a charge; returns false, without an effect, where it would exceed the quota.
fn apply_charge(t: &Transaction<'_>, charge: &StorageCharge) -> Result<bool> {
    let StorageCharge { account, delta, max } = charge;
    let account = account.to_string();
    // A subtraction of more than is counted shows that the count was wrong: a count of the files corrects it.
    let mut update = t.prepare_cached(
        "UPDATE storage_usage SET used = CASE WHEN used + ?2 < 0 THEN 0 ELSE used + ?2 END
         WHERE account = ?1 AND (?2 <= 0 OR CAST(?3 AS BIGINT) IS NULL OR used + ?2 <= ?3)",
    )?;
    if update.execute(params![account, delta, quota_column(*max)])? > 0 {
        return Ok(true);
    }
    // Without a row, the quota was removed since it was read.
    Ok(!t.prepare_cached("SELECT 1 FROM storage_usage WHERE account = ?1")?.exists([account])?)
}

fn select_user_quotas(c: &Connection) -> Result<Vec<StorageQuotaRow>> {
    let mut select = c.prepare_cached("SELECT id, login, quota FROM users WHERE quota IS NOT NULL")?;
    let users = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut node_rows = NodeRowCache::default();
    let mut rows = Vec::new();
    for user in users {
        let (id, login, quota): (i64, Login, Option<i64>) = user?;
        const GRANTS_QUERY: &str = "SELECT node, permission FROM grants WHERE user_id = ?1";
        let access = TreeAccess::new(resolved_scopes(c, &mut node_rows, GRANTS_QUERY, id)?, Vec::new());
        let Some(max) = quota_from_column(quota) else { continue };
        rows.push(StorageQuotaRow { account: StorageAccount::User(login), max, paths: access.writable_paths() });
    }
    Ok(rows)
}

/// Returns the tokens that have a quota of their own and aren't revoked.
fn select_tokens_with_quota(c: &Connection) -> Result<Vec<TokenId>> {
    let mut select = c.prepare_cached(
        "SELECT t.id FROM storage_usage s JOIN tokens t ON s.account = 'token:' || t.id
         WHERE s.account LIKE 'token:%' AND t.revoked_at IS NULL",
    )?;
    Ok(select.query_map([], |row| row.get(0))?.collect::<std::result::Result<_, _>>()?)
}

/// Returns a number of bytes as SQL has it.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
