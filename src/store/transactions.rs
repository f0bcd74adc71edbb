//! Writes: one at a time, each in one transaction, with access to the ballast when the disk is full.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rusqlite::{Transaction, TransactionBehavior};

use super::audit_chain::ChainHead;
use super::ballast::{BallastShare, DiskFault};
use super::epoch::EpochChange;
use super::{Result, Store, StoreError, WriteDurability, WriterConnections};

/// Maximum time that a write waits for other writes, of this process and of all processes together: callers must not
/// pile up behind a locked database.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time after a write found the database locked during which further ones only try briefly: callers that queue behind
/// a lock of a waiting one, such as that of a path, must not wait for the full time one after the other.
const BUSY_HOLDOFF: Duration = Duration::from_secs(2);
/// Maximum time that a write waits within [`BUSY_HOLDOFF`].
const BUSY_RETRY_TIMEOUT: Duration = Duration::from_millis(20);

/// The transaction of a write.
pub(crate) struct WriteTransaction<'a> {
    transaction: Transaction<'a>,
    /// Last row of the audit trail; `None` until the first event of this transaction reads it. All further ones continue
    /// from there without a query, since the write lock keeps every other process from adding rows.
    pub(super) audit_head: Cell<Option<ChainHead>>,
}

impl<'a> Deref for WriteTransaction<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Transaction<'a> {
        &self.transaction
    }
}

impl Store {
    /// Runs a write in one transaction, which is rolled back when the closure fails.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], also while a part of the ballast is in use; [`StoreError::Busy`]; and the closure's
    /// errors.
    pub(crate) fn write<T>(
        &self,
        durability: WriteDurability,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_may_grow()?;
        self.write_shrinking(durability, change)
    }

    /// Runs a write that doesn't make the database grow: it is allowed while a part of the ballast is in use.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub(crate) fn write_shrinking<T>(
        &self,
        durability: WriteDurability,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.time_write(|| {
            let mut writers = self.lock_writers(self.lock_timeout())?;
            let value = self.commit(&mut writers, durability, change);
            self.publish_write(writers, value)
        })
    }

    /// Runs a write that must not fail for lack of space: it may use its share of the ballast.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] once that share is used up, and as [`Store::write`].
    pub(crate) fn write_with_ballast<T>(
        &self,
        durability: WriteDurability,
        share: BallastShare,
        change: impl FnMut(&WriteTransaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write_with_ballast_if(durability, || Some(share), change)
    }

    /// Runs a write as [`Store::write_with_ballast`] does; `share` decides each time that the disk was found full.
    pub(crate) fn write_with_ballast_if<T>(
        &self,
        durability: WriteDurability,
        share: impl Fn() -> Option<BallastShare>,
        mut change: impl FnMut(&WriteTransaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.time_write(|| {
            // Locked during all attempts, so that no other write of this process takes the space that the ballast
            // releases.
            let mut writers = self.lock_writers(self.lock_timeout())?;
            // After a rollback the closure runs again as a whole, so it must not have effects outside of the transaction
            // that can't be repeated.
            let value = loop {
                match self.commit(&mut writers, durability, &mut change) {
                    Err(StoreError::DiskFull) => match share() {
                        Some(share) if self.inner.ballast_file.release(share)? => {}
                        _ => break Err(StoreError::DiskFull),
                    },
                    outcome => break outcome,
                }
            };
            self.publish_write(writers, value)
        })
    }

    /// Counts the duration of a write, with its wait for others, whether it succeeds or not.
    fn time_write<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        let started_at = Instant::now();
        let outcome = write();
        self.inner.write_durations.record(started_at.elapsed());
        outcome
    }

    /// Refuses writes that make the database grow while a part of the ballast is in use, so that the rest is kept.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`].
    pub(crate) fn check_may_grow(&self) -> Result<()> {
        if self.inner.ballast_file.is_in_use() { Err(StoreError::DiskFull) } else { Ok(()) }
    }

    /// Returns the fault of the state directory's disk, if it has one.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        self.inner.ballast_file.disk_fault()
    }

    /// Creates the ballast or restores it to its full size where there is space; a server does so at intervals. Tells
    /// whether it has its full size.
    pub fn restore_ballast(&self) -> Result<bool> {
        // Locked, so that no write of this process releases a part at the same time.
        let _writers = self.lock_writers(WRITE_TIMEOUT)?;
        self.inner.ballast_file.restore()
    }

    /// Returns the maximum time that a write may wait now.
    fn lock_timeout(&self) -> Duration {
        let was_busy = self.inner.busy_at.lock().is_some_and(|at| at.elapsed() < BUSY_HOLDOFF);
        if was_busy { BUSY_RETRY_TIMEOUT } else { WRITE_TIMEOUT }
    }

    fn lock_writers(&self, timeout: Duration) -> Result<MutexGuard<'_, WriterConnections>> {
        let started_at = Instant::now();
        // The mutex is waited for in any case: its holder is done soon, as it waits no longer than this itself.
        let writers = self.inner.writers.try_lock_for(WRITE_TIMEOUT).ok_or(StoreError::Busy)?;
        let remaining = timeout.min(self.lock_timeout()).saturating_sub(started_at.elapsed()).max(BUSY_RETRY_TIMEOUT);
        writers.synced.busy_timeout(remaining)?;
        writers.lazy.busy_timeout(remaining)?;
        Ok(writers)
    }

    fn commit<T>(
        &self,
        writers: &mut WriterConnections,
        durability: WriteDurability,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<T>,
    ) -> Result<(T, EpochChange)> {
        let connection = match durability {
            WriteDurability::Synced => &mut writers.synced,
            WriteDurability::Lazy => &mut writers.lazy,
        };
        // IMMEDIATE takes the write lock before the closure reads: its checks stay true until the commit. A deferred
        // transaction would fail with SQLITE_BUSY, without waiting, where another process commits before its first
        // write.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let transaction = WriteTransaction { transaction, audit_head: Cell::new(None) };
        let value = change(&transaction)?;
        #[cfg(test)]
        super::testing::before_commit(&transaction)?;
        // Published before the commit, both under the write lock: a cache that trusts the epoch file depends on this
        // order.
        let epoch_change = self.inner.epoch_file.publish(&transaction, self.state_dir())?;
        #[cfg(test)]
        super::testing::crash_point();
        transaction.transaction.commit()?;
        #[cfg(test)]
        super::testing::crash_point();
        Ok((value, epoch_change))
    }

    /// Counts a finished write, and wakes those that wait for a new epoch ([`Store::changed`]).
    fn publish_write<T>(
        &self,
        writers: MutexGuard<'_, WriterConnections>,
        outcome: Result<(T, EpochChange)>,
    ) -> Result<T> {
        // Any other outcome, also another error, shows that the lock was free: the hold-off ends.
        *self.inner.busy_at.lock() = matches!(outcome, Err(StoreError::Busy)).then(Instant::now);
        let (value, epoch_change) = outcome?;
        // Unlocked first: tasks that are woken below may write themselves.
        drop(writers);
        // Before the wake-up, so that whoever wakes sees the new count.
        self.inner.write_count.fetch_add(1, Ordering::Release);
        // Most writes, such as those of locks and properties, concern no session.
        if epoch_change == EpochChange::Published {
            self.inner.changed.notify_waiters();
        }
        Ok(value)
    }
}
