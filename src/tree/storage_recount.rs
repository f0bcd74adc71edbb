//! Counts of the files of accounts with a storage quota, beside changes: after each start, when a quota is set, when
//! the paths of an account change, and once a day, since files also change on the host.

use std::time::{Duration, Instant};

use super::fs::{Errno, ServedFs, none_if_vanished};
use super::recount_state::RecountState;
use super::{EntryKind, Result, Tree};
use crate::domain::{StorageAccount, TreePath, UnixMillis};

/// Time after which the files of an account are counted again.
const RECOUNT_INTERVAL_MS: i64 = 24 * 60 * 60 * 1000;
/// Time between two records of how far a count has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of attempts to read a directory while it does not change, before changes have to wait for it.
const QUIET_READ_ATTEMPTS: usize = 3;
/// Time after which the files of an account are counted anew whose directories were moved or removed meanwhile.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which the files of an account are counted anew after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The outcome of a look for an account to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageRecount {
    /// The files of an account were counted.
    Done,
    /// A directory was moved or removed meanwhile: the account will be counted anew, after some time.
    Restarted,
    /// The count has failed, and will be repeated after some time.
    Failed,
    /// No account is to be counted, but some will be after some time.
    Waiting,
    /// No account is to be counted.
    Idle,
    /// The count was stopped.
    Stopped,
}

/// What is in a directory.
struct DirectoryBytes {
    bytes: u64,
    directories: Vec<TreePath>,
}

impl Tree {
    /// Counts the files of one account that is due, until `is_stopped` returns true. For one thread of the process that
    /// serves the tree.
    ///
    /// # Errors
    /// [`super::Error::Store`] where it can't be read which accounts are due.
    pub fn recount_storage(&self, is_stopped: &dyn Fn() -> bool) -> Result<StorageRecount> {
        let (ledger, now) = (&self.shared.storage_ledger, self.shared.clock.now());
        // Also where nothing is due: it finds accounts whose paths have changed.
        let Some(quotas) = ledger.current_quotas()? else { return Ok(StorageRecount::Idle) };
        let store = self.shared.index.store();
        // Those whose count has failed or was begun anew come after all others: no account keeps another from its turn.
        let deferred_count = ledger.deferred_count();
        let due = match ledger.take_outdated() {
            Some(key) => Some(key),
            None => {
                let before = UnixMillis::from_millis(now.as_millis().saturating_sub(RECOUNT_INTERVAL_MS));
                let due = store.due_storage_recounts(before, deferred_count + 1)?;
                due.into_iter().find(|key| !ledger.is_deferred(key))
            }
        };
        let Some(key) = due else {
            return Ok(if deferred_count > 0 { StorageRecount::Waiting } else { StorageRecount::Idle });
        };
        let Some((account, paths)) = quotas.account_paths(&key) else {
            // A revoked token: nothing is to be counted for it.
            store.skip_recount(&key, now)?;
            return Ok(StorageRecount::Done);
        };
        ledger.between_changes(|recount| *recount = Some(RecountState::new(account.clone(), paths)));
        let outcome = self.count_account(&account, is_stopped);
        ledger.with_recount(|recount| *recount = None);
        if !matches!(outcome, Ok(StorageRecount::Done)) {
            ledger.mark_outdated(&account);
        }
        match outcome {
            Ok(StorageRecount::Restarted) => ledger.defer(&account, RESTART_INTERVAL),
            Err(_) => ledger.defer(&account, RETRY_INTERVAL),
            Ok(_) => {}
        }
        Ok(outcome.unwrap_or_else(|error| {
            tracing::warn!(%error, %account, "files can't be counted for a storage quota yet");
            StorageRecount::Failed
        }))
    }

    fn count_account(&self, account: &StorageAccount, is_stopped: &dyn Fn() -> bool) -> Result<StorageRecount> {
        let (ledger, store) = (&self.shared.storage_ledger, self.shared.index.store());
        let mut recorded_at = Instant::now();
        while let Some(path) = ledger.between_changes(|recount| recount.as_mut().and_then(RecountState::begin_next)) {
            if is_stopped() {
                return Ok(StorageRecount::Stopped);
            }
            self.count_directory(&path)?;
            if recorded_at.elapsed() > PROGRESS_INTERVAL {
                let bytes = ledger.with_recount(|recount| recount.as_ref().map_or(0, RecountState::bytes));
                store.record_recount_progress(account, bytes)?;
                recorded_at = Instant::now();
            }
            if ledger.with_recount(|recount| recount.as_ref().is_none_or(RecountState::is_restarted)) {
                return Ok(StorageRecount::Restarted);
            }
        }
        // No change is under way: the sum has all of them, and the next one changes the new number.
        ledger.between_changes(|recount| match recount.as_ref().filter(|recount| !recount.is_restarted()) {
            Some(recount) => {
                store.record_recount(account, recount.bytes(), self.shared.clock.now())?;
                Ok(StorageRecount::Done)
            }
            None => Ok(StorageRecount::Restarted),
        })
    }

    /// Counts the current directory of the count, or topmost file.
    fn count_directory(&self, path: &TreePath) -> Result<()> {
        let ledger = &self.shared.storage_ledger;
        for _ in 0..QUIET_READ_ATTEMPTS {
            let found = read_directory(&self.shared.fs, path)?;
            let is_counted = ledger.between_changes(|recount| match recount {
                Some(recount) if recount.has_current_changed() => {
                    recount.begin_again();
                    false
                }
                Some(recount) => {
                    recount.finish_current(found.bytes, found.directories);
                    true
                }
                None => true,
            });
            if is_counted {
                return Ok(());
            }
        }
        // A directory that always changes: changes of files that count for a quota wait until it is read.
        ledger.between_changes(|recount| {
            let found = read_directory(&self.shared.fs, path)?;
            if let Some(recount) = recount {
                recount.finish_current(found.bytes, found.directories);
            }
            Ok(())
        })
    }

    /// Asks for a count of the files of every account with a storage quota.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub fn request_storage_recounts(&self) -> Result<()> {
        Ok(self.shared.index.store().request_storage_recounts()?)
    }
}

/// Returns the bytes of the files in a directory, not below it, and its directories; of a file, its own bytes.
fn read_directory(fs: &ServedFs, path: &TreePath) -> Result<DirectoryBytes> {
    fs.check_available()?;
    let mut found = DirectoryBytes { bytes: 0, directories: Vec::new() };
    let stat = match fs.stat(path) {
        // Removed since it was listed.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(found),
        stat => stat?,
    };
    if !stat.is_directory() {
        found.bytes = if stat.kind == Some(EntryKind::File) { stat.size } else { 0 };
        return Ok(found);
    }
    let opened = fs.open_directory(path).and_then(|directory| Ok((directory.read_names()?, directory)));
    let Some((mut names, directory)) = none_if_vanished(opened)? else { return Ok(found) };
    loop {
        let batch = names.next_batch()?;
        if batch.is_empty() {
            return Ok(found);
        }
        for name in batch {
            match directory.stat_entry(&name) {
                Err(Errno::NOENT) => {}
                Ok(stat) if stat.is_directory() => found.directories.push(path.child(&name)),
                Ok(stat) if stat.kind == Some(EntryKind::File) => found.bytes = found.bytes.saturating_add(stat.size),
                // Links, sockets and devices have no bytes that count.
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
