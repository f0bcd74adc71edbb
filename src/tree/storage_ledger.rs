//! The ledger of storage quotas: which accounts a path counts for, and the changes of their bytes.
//!
//! The files below the paths where a user or token may write count for its quota, whoever has put them there. So the
//! number is what a walk over those paths finds, and can always be found anew (see [`super::storage_recount`]); no file
//! has to remember who has written it. A change of a file is charged to every account whose paths cover it. Growth is
//! charged before its effect and undone if that fails; what becomes free is subtracted after it. A kill in between
//! leaves too much counted, never too little, and the count that follows each start corrects it.
//!
//! A count goes on beside changes. Each change holds the gate as a reader from before its effect until the ledger has
//! followed; the count takes it as a writer when it is done with a directory, so that no change is half known then.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::Result;
use super::byte_change::ByteChange;
use super::path_locks::{PathGuards, PathLocks};
use super::recount_state::RecountState;
use crate::domain::{ByteSize, Login, QuotaSpace, StorageAccount, TokenId, TreePath};
use crate::store::{StorageCharge, StorageQuotaRow, Store};

/// Epoch of the empty table before the first look at the store, whose epochs are positive.
const NO_EPOCH: i64 = -1;

/// The ledger of one tree.
pub(super) struct StorageLedger {
    store: Store,
    quotas: ArcSwap<QuotaTable>,
    reload_lock: Mutex<()>,
    /// Serializes the changes of the files at a path, from the look at their sizes to the effect.
    size_locks: PathLocks,
    gate: RwLock<()>,
    recount: Mutex<Option<RecountState>>,
    /// Accounts whose files are to be counted since their paths have changed, or a charge was lost.
    outdated_accounts: Mutex<BTreeSet<StorageAccount>>,
    /// Accounts that are not to be counted before a time, since their last count did not come to its end: meanwhile the
    /// others have their turn.
    deferred_accounts: Mutex<HashMap<String, Instant>>,
}

/// The accounts with a quota, as of one epoch of the store.
pub(super) struct QuotaTable {
    epoch: i64,
    rows: Vec<StorageQuotaRow>,
    by_path: HashMap<TreePath, Vec<usize>>,
}

/// The user and the tokens of a session, whose quotas bound its changes.
pub(super) struct ChargedSession<'a> {
    pub(super) login: &'a Login,
    pub(super) tokens: Vec<TokenId>,
    pub(super) epoch: i64,
}

/// A change under way: the gate is held, and the table of quotas stays the same.
pub(super) struct OpenChange<'a> {
    ledger: &'a StorageLedger,
    table: Arc<QuotaTable>,
    _gate: RwLockReadGuard<'a, ()>,
    _sizes: Option<PathGuards<'a>>,
}

impl QuotaTable {
    fn new(epoch: i64, rows: Vec<StorageQuotaRow>) -> Self {
        let mut by_path: HashMap<TreePath, Vec<usize>> = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            for path in &row.paths {
                by_path.entry(path.clone()).or_default().push(index);
            }
        }
        Self { epoch, rows, by_path }
    }

    /// Returns the accounts that a path counts for. The paths of one account don't overlap, so each comes once.
    fn covering(&self, path: &TreePath) -> impl Iterator<Item = &StorageQuotaRow> {
        let above = (0..=path.depth()).filter_map(|depth| self.by_path.get(&path.prefix(depth)));
        above.flatten().map(|index| &self.rows[*index])
    }

    /// Returns the account with a key of the store, and its paths.
    pub(super) fn account_paths(&self, key: &str) -> Option<(StorageAccount, Vec<TreePath>)> {
        let found = self.rows.iter().find(|row| row.account.to_string() == key);
        found.map(|row| (row.account.clone(), row.paths.clone()))
    }

    fn row(&self, account: &StorageAccount) -> Option<&StorageQuotaRow> {
        self.rows.iter().find(|row| row.account == *account)
    }
}

impl StorageLedger {
    /// Creates the ledger; the quotas are read at their first use.
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            quotas: ArcSwap::from_pointee(QuotaTable::new(NO_EPOCH, Vec::new())),
            reload_lock: Mutex::default(),
            size_locks: PathLocks::new(),
            gate: RwLock::default(),
            recount: Mutex::default(),
            outdated_accounts: Mutex::default(),
            deferred_accounts: Mutex::default(),
        }
    }

    /// Returns the quotas as of an epoch of the store or a later one; `None` where there are none. Then this costs a
    /// comparison.
    fn quotas_at(&self, epoch: i64) -> Result<Option<Arc<QuotaTable>>> {
        let table = self.quotas.load();
        if table.epoch == epoch || self.store.is_current_epoch(table.epoch) {
            // Not cloned where there are none: that would be a write to memory that all requests share.
            return Ok((!table.rows.is_empty()).then(|| Arc::clone(&table)));
        }
        drop(table);
        Ok(Some(self.reload()?).filter(|table| !table.rows.is_empty()))
    }

    /// Returns the present quotas; `None` where there are none.
    pub(super) fn current_quotas(&self) -> Result<Option<Arc<QuotaTable>>> {
        self.quotas_at(0)
    }

    fn reload(&self) -> Result<Arc<QuotaTable>> {
        let _reloading = self.reload_lock.lock();
        let before = self.quotas.load_full();
        if self.store.is_current_epoch(before.epoch) {
            return Ok(before);
        }
        let (epoch, rows) = self.store.storage_quotas()?;
        let table = Arc::new(QuotaTable::new(epoch, rows));
        // Other paths have other files: what was counted for the account is void.
        for row in &before.rows {
            if table.row(&row.account).is_some_and(|now| now.paths != row.paths) {
                self.mark_outdated(&row.account);
            }
        }
        self.quotas.store(Arc::clone(&table));
        Ok(table)
    }

    /// Begins a change of files at these paths; `None` where they count for no account. Until it ends, no other change
    /// at these paths begins.
    pub(super) fn begin(&self, epoch: i64, paths: &[&TreePath]) -> Result<Option<OpenChange<'_>>> {
        if !self.is_counted(epoch, paths)? {
            return Ok(None);
        }
        // Before the gate: whoever waits here keeps no count waiting.
        let sizes = self.size_locks.lock(paths);
        let Some(table) = self.quotas_at(epoch)? else { return Ok(None) };
        // Waits behind a count that waits, which would never get its turn otherwise.
        Ok(Some(OpenChange { ledger: self, table, _gate: self.gate.read(), _sizes: Some(sizes) }))
    }

    /// Tells whether one of these paths counts for an account.
    pub(super) fn is_counted(&self, epoch: i64, paths: &[&TreePath]) -> Result<bool> {
        let Some(table) = self.quotas_at(epoch)? else { return Ok(false) };
        Ok(paths.iter().any(|path| table.covering(path).next().is_some()))
    }

    /// Begins a change as [`StorageLedger::begin`] does, as a part of another one of this thread.
    pub(super) fn begin_within(&self, epoch: i64, paths: &[&TreePath]) -> Result<Option<OpenChange<'_>>> {
        let Some(table) = self.quotas_at(epoch)? else { return Ok(None) };
        if paths.iter().all(|path| table.covering(path).next().is_none()) {
            return Ok(None);
        }
        // Recursive: a reader that waited behind the writer could wait for another one of its own thread.
        Ok(Some(OpenChange { ledger: self, table, _gate: self.gate.read_recursive(), _sizes: None }))
    }

    /// Returns the space that the quotas of a session leave at a path: that of the account with the least space.
    pub(super) fn space(
        &self,
        session: &ChargedSession<'_>,
        path: &TreePath,
    ) -> Result<Option<(StorageAccount, QuotaSpace)>> {
        let Some(table) = self.quotas_at(session.epoch)? else { return Ok(None) };
        let mut least: Option<(StorageAccount, QuotaSpace)> = None;
        for row in table.covering(path).filter(|row| session.owns(&row.account)) {
            let used = self.store.storage_usage(&row.account)?.map_or(0, |usage| usage.used);
            let space = QuotaSpace { max: row.max, used };
            if least.as_ref().is_none_or(|(_, least)| space.available() < least.available()) {
                least = Some((row.account.clone(), space));
            }
        }
        Ok(least)
    }

    /// Asks for a count of the files of an account; one that is under way starts anew.
    pub(super) fn mark_outdated(&self, account: &StorageAccount) {
        if let Some(recount) = &mut *self.recount.lock()
            && recount.account() == account
        {
            recount.restart();
        }
        self.outdated_accounts.lock().insert(account.clone());
    }

    /// Tells whether an account is marked to be counted.
    #[cfg(test)]
    pub(super) fn is_outdated(&self, account: &StorageAccount) -> bool {
        self.outdated_accounts.lock().contains(account)
    }

    /// Returns the key of an account that is outdated, which is no longer marked so then; none that is deferred.
    pub(super) fn take_outdated(&self) -> Option<String> {
        let mut outdated = self.outdated_accounts.lock();
        let account = outdated.iter().find(|account| !self.is_deferred(&account.to_string())).cloned()?;
        outdated.remove(&account);
        Some(account.to_string())
    }

    /// Keeps an account from being counted for some time.
    pub(super) fn defer(&self, account: &StorageAccount, time: Duration) {
        self.deferred_accounts.lock().insert(account.to_string(), Instant::now() + time);
    }

    /// Tells whether an account is not to be counted yet.
    pub(super) fn is_deferred(&self, key: &str) -> bool {
        self.deferred_accounts.lock().contains_key(key)
    }

    /// Returns how many accounts are not to be counted yet.
    pub(super) fn deferred_count(&self) -> usize {
        let mut deferred = self.deferred_accounts.lock();
        let now = Instant::now();
        deferred.retain(|_, until| *until > now);
        deferred.len()
    }

    /// Waits until no change is under way and keeps others from beginning, then changes the state of the count.
    pub(super) fn between_changes<T>(&self, act: impl FnOnce(&mut Option<RecountState>) -> T) -> T {
        let _gate = self.gate.write();
        act(&mut self.recount.lock())
    }

    /// Changes the state of the count while changes go on.
    pub(super) fn with_recount<T>(&self, act: impl FnOnce(&mut Option<RecountState>) -> T) -> T {
        act(&mut self.recount.lock())
    }
}

impl ChargedSession<'_> {
    fn owns(&self, account: &StorageAccount) -> bool {
        match account {
            StorageAccount::User(login) => login == self.login,
            StorageAccount::Token(token) => self.tokens.contains(token),
        }
    }
}

impl OpenChange<'_> {
    /// Returns for each account the sum of its changes. Those of the session have their bound, unless `session` is
    /// `None`: then all changes are only recorded.
    fn charges(&self, session: Option<&ChargedSession<'_>>, changes: &[ByteChange<'_>]) -> Vec<StorageCharge> {
        let mut charges: Vec<StorageCharge> = Vec::new();
        for change in changes.iter().filter(|change| change.delta != 0) {
            for row in self.table.covering(change.path) {
                match charges.iter_mut().find(|charge| charge.account == row.account) {
                    Some(charge) => charge.delta = charge.delta.saturating_add(change.delta),
                    None => {
                        let is_bound = session.is_some_and(|session| session.owns(&row.account));
                        let (account, max) = (row.account.clone(), is_bound.then_some(row.max));
                        charges.push(StorageCharge { account, delta: change.delta, max });
                    }
                }
            }
        }
        charges
    }

    /// Tells whether both paths count for the same accounts.
    pub(super) fn counts_alike(&self, one: &TreePath, other: &TreePath) -> bool {
        let accounts = |path: &TreePath| self.table.covering(path).map(|row| &row.account).collect::<BTreeSet<_>>();
        accounts(one) == accounts(other)
    }

    /// Begins a count that is under way anew, if its account has one of these paths, between which a directory is moved.
    pub(super) fn restart_recount(&self, one: &TreePath, other: &TreePath) {
        if let Some(recount) = &mut *self.ledger.recount.lock() {
            let is_counted = |path| self.table.covering(path).any(|row| row.account == *recount.account());
            if is_counted(one) || is_counted(other) {
                recount.restart();
            }
        }
    }

    /// Marks the accounts that a path counts for as outdated.
    pub(super) fn mark_covering(&self, path: &TreePath) {
        self.table.covering(path).for_each(|row| self.ledger.mark_outdated(&row.account));
    }

    /// Marks the accounts that only one of both paths counts for as outdated.
    pub(super) fn mark_differing(&self, one: &TreePath, other: &TreePath) {
        for (path, unless) in [(one, other), (other, one)] {
            let kept: BTreeSet<_> = self.table.covering(unless).map(|row| &row.account).collect();
            self.table
                .covering(path)
                .filter(|row| !kept.contains(&row.account))
                .for_each(|row| self.ledger.mark_outdated(&row.account));
        }
    }

    /// Charges the growth of accounts, before its effect. Returns the quota that it would exceed, if any: nothing is
    /// charged then.
    pub(super) fn charge_growth(
        &self,
        session: Option<&ChargedSession<'_>>,
        changes: &[ByteChange<'_>],
    ) -> Result<Option<(StorageAccount, ByteSize)>> {
        let charges: Vec<_> = self.charges(session, changes).into_iter().filter(|charge| charge.delta > 0).collect();
        if charges.is_empty() {
            return Ok(None);
        }
        let exceeded = self.ledger.store.charge_storage(&charges)?;
        Ok(exceeded.and_then(|account| Some((account.clone(), self.table.row(&account)?.max))))
    }

    /// Takes back what [`OpenChange::charge_growth`] has charged, after the effect has failed.
    pub(super) fn undo_growth(&self, changes: &[ByteChange<'_>]) {
        let charges = self.charges(None, changes).into_iter().filter(|charge| charge.delta > 0);
        self.record(charges.map(|charge| StorageCharge { delta: -charge.delta, ..charge }).collect());
    }

    /// Follows the effect of changes whose growth is charged: subtracts what has become free, and tells the count.
    pub(super) fn finish(&self, changes: &[ByteChange<'_>]) {
        let charges = self.charges(None, changes).into_iter().filter(|charge| charge.delta < 0);
        self.record(charges.collect());
        if let Some(recount) = &mut *self.ledger.recount.lock() {
            let account = recount.account().clone();
            for change in changes {
                if self.table.covering(change.path).any(|row| row.account == account) {
                    recount.follow(change);
                }
            }
        }
    }

    /// Applies charges after their effect. Where that fails, too much stays counted until the next count.
    fn record(&self, charges: Vec<StorageCharge>) {
        if charges.is_empty() {
            return;
        }
        if let Err(error) = self.ledger.store.charge_storage(&charges) {
            tracing::warn!(%error, "the files of users with a quota are counted anew: a change was not recorded");
            charges.iter().for_each(|charge| self.ledger.mark_outdated(&charge.account));
        }
    }
}
