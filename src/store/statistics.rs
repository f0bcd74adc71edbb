//! Figures of the store, for metrics.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::storage_quota::{self, StorageQuotaTotals};
use super::{DATABASE_FILE_NAME, Result, Store};
use crate::domain::{DurationCounts, StateLimits, UnixMillis};

/// Figures of the store that are read from the file system and from memory.
#[derive(Clone, Debug)]
pub struct StoreStatistics {
    /// Durations of writes since the start.
    pub write_durations: DurationCounts,
    /// Time of a small read; `None` where the store can't be read.
    pub read_duration: Option<Duration>,
    /// Size of the database.
    pub database_bytes: u64,
    /// Size of its write-ahead log.
    pub log_bytes: u64,
    /// Free space on the disk of the state directory.
    pub free_bytes: u64,
    /// Present size of the ballast; zero where there is none.
    pub ballast_bytes: u64,
    /// Full size of the ballast.
    pub ballast_target_bytes: u64,
    /// Whether the disk of the state directory has a fault.
    pub has_disk_fault: bool,
}

/// Numbers of rows, and the quotas on them. To count them reads indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Tokens that are neither revoked nor expired by their own row.
    pub live_tokens: u64,
    /// Expired tokens that were not revoked.
    pub expired_tokens: u64,
    /// Revoked tokens.
    pub revoked_tokens: u64,
    /// Users that are enabled.
    pub enabled_users: u64,
    /// Users that are disabled.
    pub disabled_users: u64,
    /// Networks that are banned automatically at this moment.
    pub automatic_bans: u64,
    /// Networks that an administrator has banned.
    pub manual_bans: u64,
    /// Named nodes.
    pub named_nodes: u64,
    /// Bytes of dead properties.
    pub property_bytes: u64,
    /// Maximum of the bytes of dead properties.
    pub max_property_bytes: u64,
    /// Bytes that count for the storage quotas of users, and those quotas.
    pub storage_quotas: StorageQuotaTotals,
    /// Maximum numbers of other rows.
    pub limits: StateLimits,
}

impl Store {
    /// Returns what the file system says of the store, and how long it takes to read and to write. May block.
    pub fn statistics(&self) -> StoreStatistics {
        let file_size = |name: String| std::fs::metadata(self.state_dir().join(name)).map_or(0, |file| file.len());
        let started_at = Instant::now();
        let is_readable = self.epoch().is_ok();
        let read_duration = started_at.elapsed();
        let ballast = &self.inner.ballast_file;
        StoreStatistics {
            write_durations: self.inner.write_durations.counts(),
            read_duration: is_readable.then_some(read_duration),
            database_bytes: file_size(DATABASE_FILE_NAME.to_owned()),
            log_bytes: file_size(format!("{DATABASE_FILE_NAME}-wal")),
            free_bytes: ballast.free_bytes(),
            ballast_bytes: ballast.allocated_bytes().unwrap_or(0),
            ballast_target_bytes: ballast.target_bytes(),
            has_disk_fault: ballast.disk_fault().is_some(),
        }
    }

    /// Counts rows.
    ///
    /// # Errors
    /// As any read.
    pub fn row_counts(&self, now: UnixMillis) -> Result<RowCounts> {
        let (limits, property_quota) = (self.state_limits(), *self.inner.property_quota.lock());
        self.snapshot(|c| {
            let tokens = count(c, "SELECT count(*) FROM tokens", &[])?;
            let revoked_tokens = count(c, "SELECT count(*) FROM tokens WHERE revoked_at IS NOT NULL", &[])?;
            // Each by an index that has inactive tokens alone.
            let recorded = "SELECT count(*) FROM tokens WHERE expiry_recorded = 1 AND revoked_at IS NULL";
            let due = "SELECT count(*) FROM tokens WHERE expires_at IS NOT NULL AND expires_at <= ?1 \
                 AND revoked_at IS NULL AND expiry_recorded = 0";
            let expired_tokens = count(c, recorded, &[])? + count(c, due, &[&now])?;
            let users = count(c, "SELECT count(*) FROM users", &[])?;
            let disabled_users = count(c, "SELECT count(*) FROM users WHERE disabled_at IS NOT NULL", &[])?;
            let bans = "SELECT count(*) FROM bans WHERE automatic = ?1 AND (until IS NULL OR until > ?2)";
            Ok(RowCounts {
                automatic_bans: count(c, bans, &[&1, &now])?,
                manual_bans: count(c, bans, &[&0, &now])?,
                live_tokens: tokens.saturating_sub(revoked_tokens + expired_tokens),
                expired_tokens,
                revoked_tokens,
                enabled_users: users.saturating_sub(disabled_users),
                disabled_users,
                named_nodes: super::quota::total_amount(c, "nodes")?,
                property_bytes: super::quota::total_amount(c, "properties")?,
                max_property_bytes: property_quota.total,
                storage_quotas: storage_quota::totals(c)?,
                limits,
            })
        })
    }
}

fn count(c: &Connection, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<u64> {
    Ok(c.prepare_cached(sql)?.query_row(params, |row| row.get::<_, i64>(0))?.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Ban, BanOrigin, TokenExpiry, UserQuotaLimits};
    use crate::store::testing;

    #[test]
    fn tokens_are_counted_by_their_own_status() {
        let (_temp_dir, store) = testing::open_temp_store();
        let now = testing::now();
        for user in ["alice", "bob"] {
            store.create_user(&testing::login(user), &[], now).expect("user");
        }
        let soon = TokenExpiry::Hard(now.saturating_add(Duration::from_secs(60)));
        for (name, expiry) in
            [("aaaaaaaa", TokenExpiry::Never), ("bbbbbbbb", soon), ("cccccccc", soon), ("dddddddd", TokenExpiry::Never)]
        {
            store.add_token(&testing::new_token(name, "alice", expiry)).expect("stored");
        }
        store.revoke_tokens(&[testing::id("cccccccc"), testing::id("dddddddd")], now).expect("revoked");
        store.set_state_limits(StateLimits {
            tokens: UserQuotaLimits { per_user: 5, total: 7 },
            ..StateLimits::default()
        });
        let by_status = |now| {
            let counts = store.row_counts(now).expect("counted");
            (counts.live_tokens, counts.expired_tokens, counts.revoked_tokens)
        };
        assert_eq!(by_status(now), (2, 0, 2));
        assert_eq!(by_status(now.saturating_add(Duration::from_secs(60))), (1, 1, 2));
        let counts = store.row_counts(now).expect("counted");
        assert_eq!((counts.automatic_bans, counts.manual_bans), (0, 0));
        let ban = |network: &str, until| Ban {
            network: network.parse().expect("a network"),
            since: now,
            until,
            origin: BanOrigin::Manual,
            repeats: 0,
            reason: String::new(),
        };
        store.add_ban(&ban("192.0.2.1", None)).expect("stored");
        store.add_ban(&ban("192.0.2.2", Some(now.saturating_add(Duration::from_secs(1))))).expect("stored");
        let manual_bans = |now| store.row_counts(now).expect("counted").manual_bans;
        assert_eq!((manual_bans(now), manual_bans(now.saturating_add(Duration::from_secs(1)))), (2, 1));
        assert_eq!((counts.enabled_users, counts.disabled_users, counts.limits.tokens.total), (2, 0, 7));
    }

    #[test]
    fn every_write_is_timed_once() {
        let (_temp_dir, store) = testing::open_temp_store();
        let writes = || store.statistics().write_durations.buckets.iter().sum::<u64>();
        let before = writes();
        store.set_policy("allow-never", "true").expect("written");
        store.create_user(&testing::login("alice"), &[], testing::now()).expect("user");
        assert_eq!(writes(), before + 2);
        let statistics = store.statistics();
        assert!(statistics.database_bytes > 0 && statistics.free_bytes > 0 && statistics.read_duration.is_some());
        assert!(statistics.has_disk_fault && statistics.ballast_bytes == 0, "no server has made a ballast");
    }
}
