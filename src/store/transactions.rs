//! Writes: one at a time, each in one transaction, and what they may do when the disk is full.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rusqlite::{Transaction, TransactionBehavior};

use super::ballast::{BallastShare, DiskFault};
use super::{Result, Store, StoreError, WriteDurability, WriterConnections};

/// How long a write waits for others, of this process and of all together: nobody queues behind a store that is held.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long after one found the store held the next ones only try: what queues behind a guard of whoever waits, such
/// as a lock on a name, must not wait one after the other.
const BUSY_HOLDOFF: Duration = Duration::from_secs(2);
/// How long they try.
const BUSY_RETRY_TIMEOUT: Duration = Duration::from_millis(20);

impl Store {
    /// Runs a write in one transaction, which is undone when the closure fails.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] also while a part of the ballast is in use; [`StoreError::Busy`]; and what the closure says.
    pub(crate) fn write<T>(
        &self,
        durability: WriteDurability,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_may_grow()?;
        self.write_shrinking(durability, change)
    }

    /// Runs a write that makes nothing grow: it may go on while a part of the ballast is in use.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub(crate) fn write_shrinking<T>(
        &self,
        durability: WriteDurability,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut writers = self.lock_writers(self.lock_timeout())?;
        let value = self.commit(&mut writers, durability, change);
        self.publish_write(writers, value)
    }

    /// Runs a write that must not fail for lack of space: it may use the ballast.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] once the reserve is used up, and as [`Store::write`].
    pub(crate) fn write_with_ballast<T>(
        &self,
        durability: WriteDurability,
        share: BallastShare,
        change: impl FnMut(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write_with_ballast_if(durability, || Some(share), change)
    }

    /// Likewise, as far as `reserve` says each time that the disk was found full.
    pub(crate) fn write_with_ballast_if<T>(
        &self,
        durability: WriteDurability,
        share: impl Fn() -> Option<BallastShare>,
        mut change: impl FnMut(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        // Held all the time: no other write of this process gets what the ballast gives up.
        let mut writers = self.lock_writers(self.lock_timeout())?;
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
    }

    /// Refuses what would grow while a part of the ballast is in use, so that the rest stays.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`].
    pub(crate) fn check_may_grow(&self) -> Result<()> {
        if self.inner.ballast_file.is_in_use() { Err(StoreError::DiskFull) } else { Ok(()) }
    }

    /// Returns what is wrong with the disk of the state directory, if anything is.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        self.inner.ballast_file.disk_fault()
    }

    /// Makes the ballast, or makes it whole again, where there is room; a server does so now and then. Tells whether it
    /// is whole.
    pub fn restore_ballast(&self) -> Result<bool> {
        // No write uses it meanwhile.
        let _writers = self.lock_writers(WRITE_TIMEOUT)?;
        self.inner.ballast_file.restore()
    }

    /// Returns how long a write may wait now.
    fn lock_timeout(&self) -> Duration {
        let was_busy = self.inner.busy_at.lock().is_some_and(|at| at.elapsed() < BUSY_HOLDOFF);
        if was_busy { BUSY_RETRY_TIMEOUT } else { WRITE_TIMEOUT }
    }

    fn lock_writers(&self, timeout: Duration) -> Result<MutexGuard<'_, WriterConnections>> {
        let started_at = Instant::now();
        // For others of this process it is waited in any case: they are done soon, as each waits no longer than this.
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
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let connection = match durability {
            WriteDurability::Synced => &mut writers.synced,
            WriteDurability::Lazy => &mut writers.lazy,
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = change(&transaction)?;
        #[cfg(test)]
        super::testing::before_commit(&transaction)?;
        self.inner.epoch_file.publish(&transaction, self.state_dir())?;
        #[cfg(test)]
        super::testing::crash_point();
        transaction.commit()?;
        #[cfg(test)]
        super::testing::crash_point();
        Ok(value)
    }

    /// Tells those who wait for a write of this one.
    fn publish_write<T>(&self, writers: MutexGuard<'_, WriterConnections>, outcome: Result<T>) -> Result<T> {
        *self.inner.busy_at.lock() = matches!(outcome, Err(StoreError::Busy)).then(Instant::now);
        let value = outcome?;
        drop(writers);
        self.inner.write_count.fetch_add(1, Ordering::Release);
        self.inner.changed.notify_waiters();
        Ok(value)
    }
}
