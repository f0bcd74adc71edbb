//! Writes: one at a time, each in one transaction, and what they may do when the disk is full.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rusqlite::{Transaction, TransactionBehavior};

use super::ballast::{DiskFault, Reserve};
use super::{Durability, Result, Store, StoreError, Writers};

/// How long a write waits for others, of this process and of all together: nobody queues behind a store that is held.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long after one found the store held the next ones only try: what queues behind a guard of whoever waits, such
/// as a lock on a name, must not wait one after the other.
const HELD: Duration = Duration::from_secs(2);
/// How long they try.
const TRY_TIMEOUT: Duration = Duration::from_millis(20);

impl Store {
    /// Runs a write in one transaction, which is undone when the closure fails.
    ///
    /// # Errors
    /// [`StoreError::Full`] also while a part of the ballast is in use; [`StoreError::Busy`]; and what the closure says.
    pub(crate) fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.may_grow()?;
        self.write_freeing(durability, change)
    }

    /// Runs a write that makes nothing grow: it may go on while a part of the ballast is in use.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub(crate) fn write_freeing<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut writers = self.writers(self.patience())?;
        let value = self.commit(&mut writers, durability, change);
        self.wrote(writers, value)
    }

    /// Runs a write that must not fail for lack of space: it may use the ballast.
    ///
    /// # Errors
    /// [`StoreError::Full`] once the reserve is used up, and as [`Store::write`].
    pub(crate) fn write_reserved<T>(
        &self,
        durability: Durability,
        reserve: Reserve,
        change: impl FnMut(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.write_again(durability, || Some(reserve), change)
    }

    /// Likewise, as far as `reserve` says each time that the disk was found full.
    pub(crate) fn write_again<T>(
        &self,
        durability: Durability,
        reserve: impl Fn() -> Option<Reserve>,
        mut change: impl FnMut(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        // Held all the time: no other write of this process gets what the ballast gives up.
        let mut writers = self.writers(self.patience())?;
        let value = loop {
            match self.commit(&mut writers, durability, &mut change) {
                Err(StoreError::Full) => match reserve() {
                    Some(reserve) if self.shared.ballast.release(reserve)? => {}
                    _ => break Err(StoreError::Full),
                },
                outcome => break outcome,
            }
        };
        self.wrote(writers, value)
    }

    /// Refuses what would grow while a part of the ballast is in use, so that the rest stays.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub(crate) fn may_grow(&self) -> Result<()> {
        if self.shared.ballast.is_in_use() { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Returns what is wrong with the disk of the state directory, if anything is.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        self.shared.ballast.fault()
    }

    /// Makes the ballast, or makes it whole again, where there is room; a server does so now and then. Tells whether it
    /// is whole.
    pub fn restore_ballast(&self) -> Result<bool> {
        // No write uses it meanwhile.
        let _writers = self.writers(WRITE_TIMEOUT)?;
        self.shared.ballast.restore()
    }

    /// Returns how long a write may wait now.
    fn patience(&self) -> Duration {
        let held = self.shared.held_at.lock().is_some_and(|at| at.elapsed() < HELD);
        if held { TRY_TIMEOUT } else { WRITE_TIMEOUT }
    }

    fn writers(&self, patience: Duration) -> Result<MutexGuard<'_, Writers>> {
        let since = Instant::now();
        // For others of this process it is waited in any case: they are done soon, as each waits no longer than this.
        let writers = self.shared.writers.try_lock_for(WRITE_TIMEOUT).ok_or(StoreError::Busy)?;
        let left = patience.min(self.patience()).saturating_sub(since.elapsed()).max(TRY_TIMEOUT);
        writers.synced.busy_timeout(left)?;
        writers.lazy.busy_timeout(left)?;
        Ok(writers)
    }

    fn commit<T>(
        &self,
        writers: &mut Writers,
        durability: Durability,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let connection = match durability {
            Durability::Synced => &mut writers.synced,
            Durability::Lazy => &mut writers.lazy,
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = change(&transaction)?;
        #[cfg(test)]
        super::testing::before_commit(&transaction)?;
        self.shared.announced.follow(&transaction, self.state())?;
        #[cfg(test)]
        super::testing::crash_point();
        transaction.commit()?;
        #[cfg(test)]
        super::testing::crash_point();
        Ok(value)
    }

    /// Tells those who wait for a write of this one.
    fn wrote<T>(&self, writers: MutexGuard<'_, Writers>, outcome: Result<T>) -> Result<T> {
        *self.shared.held_at.lock() = matches!(outcome, Err(StoreError::Busy)).then(Instant::now);
        let value = outcome?;
        drop(writers);
        self.shared.changes.fetch_add(1, Ordering::Release);
        self.shared.changed.notify_waiters();
        Ok(value)
    }
}
