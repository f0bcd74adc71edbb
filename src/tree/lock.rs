//! Write locks (RFC 4918 section 6): on canonical paths, kept in the store, enforced on both protocols.
//!
//! All unexpired locks are in memory, sorted by path, and written through to the store; one process serves
//! a tree, so nobody else writes them. A check costs one atomic load while no lock exists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::lock_token::LockToken;
use super::{Error, Result};
use crate::auth::Clock;
use crate::domain::{Login, TreePath, UnixMillis};
use crate::store::{LockRow, Store, StoreError, WriteDurability};

/// Maximum lifetime of a lock between two refreshes; a longer or infinite timeout is shortened to it.
pub(super) const LOCK_MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const LOCK_MIN_LIFETIME: Duration = Duration::from_secs(1);
/// Maximum size of a lock's owner element, which is held in memory: with the number of locks it bounds their memory.
const LOCK_OWNER_MAX_BYTES: usize = 8 << 10;

/// Parameters of a LOCK request.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// Whether the lock is exclusive rather than shared.
    pub exclusive: bool,
    /// Whether the lock covers all descendants (`Depth: infinity`).
    pub depth_infinity: bool,
    /// The client's owner element, as XML text (may be empty).
    pub owner: String,
    /// Requested timeout; clamped to between one second and 24 hours.
    pub timeout: Duration,
}

/// An unexpired lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DavLock {
    /// Token of the lock.
    pub token: LockToken,
    /// Canonical path on which the lock was taken.
    pub root: TreePath,
    /// Whether the lock covers all descendants of its root.
    pub depth_infinity: bool,
    /// Whether the lock is exclusive rather than shared.
    pub exclusive: bool,
    /// User that took the lock.
    pub login: Login,
    /// The client's owner element, as XML text (may be empty).
    pub owner: String,
    /// Timeout that was granted by the last LOCK.
    pub timeout: Duration,
    /// Time at which the lock expires unless it is refreshed.
    pub expires: UnixMillis,
}

/// The locks of one tree.
pub(super) struct LockTable {
    store: Store,
    clock: Clock,
    /// Whether a lock is synced to disk before its LOCK, refresh or UNLOCK is answered.
    durability: WriteDurability,
    live: RwLock<LiveLocks>,
    count: AtomicUsize,
    generation: AtomicU64,
    acquisition_lock: RwLock<()>,
    /// Serializes LOCK, refresh and UNLOCK, from their look at the table in memory until the store is updated. Acquired
    /// before the other locks of this struct, so that checks never wait for the disk.
    requests: Mutex<()>,
    /// Epoch of the store at which locks of removed users were last searched.
    users_checked_epoch: AtomicI64,
}

impl LockTable {
    /// Loads the unexpired locks from the store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn open(store: Store, clock: Clock, durability: WriteDurability) -> Result<Self> {
        let now = clock.now();
        let mut live = LiveLocks::default();
        for row in store.load_unexpired_locks(now)? {
            let mut lock = DavLock::from(row);
            // A clock that was set back since the lock was stored must not extend its lifetime.
            lock.expires = lock.expires.min(now.saturating_add(LOCK_MAX_LIFETIME));
            let deadline = clock.boottime() + lock.expires.saturating_duration_since(now);
            live.insert(lock, deadline);
        }
        let count = AtomicUsize::new(live.by_token.len());
        Ok(Self {
            store,
            clock,
            durability,
            live: RwLock::new(live),
            count,
            generation: AtomicU64::new(0),
            acquisition_lock: RwLock::default(),
            requests: Mutex::default(),
            users_checked_epoch: AtomicI64::new(0),
        })
    }

    /// Returns a number that changes whenever a lock is taken, refreshed or removed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Blocks new locks until the guard is dropped, so that a check under it is still true at the effect.
    /// Acquire it after the commit locks of paths and before a change of the index begins, at most once per thread.
    pub(super) fn freeze(&self) -> RwLockReadGuard<'_, ()> {
        self.acquisition_lock.read()
    }

    /// Does what [`LockTable::freeze`] does, if nobody acquires a lock at this moment.
    pub(super) fn try_freeze(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.acquisition_lock.try_read()
    }

    /// Checks that a request may change an entry or, for a directory, its members (RFC 4918 section 7.4). It must have
    /// submitted the tokens of the locks that cover the path and belong to its user: that of an exclusive lock, or one
    /// of those of shared locks.
    ///
    /// # Errors
    /// [`Error::Locked`].
    pub(super) fn check_write(&self, path: &TreePath, login: &Login, tokens: &[LockToken]) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        check_submitted_tokens(&self.without_expired().covering(path), login, tokens)
    }

    /// Checks that a request may remove or move an entry and everything below it.
    ///
    /// # Errors
    /// [`Error::Locked`] for the first lock on the path, above it or below it whose token was not submitted.
    pub(super) fn check_subtree(&self, path: &TreePath, login: &Login, tokens: &[LockToken]) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let live = self.without_expired();
        check_submitted_tokens(&live.covering(path), login, tokens)?;
        live.locks_below(path).try_for_each(|locks| match locks.first() {
            // One check per root, by all locks that cover it: the token of a shared lock above satisfies one below.
            Some(lock) => check_submitted_tokens(&live.covering(&lock.root), login, tokens),
            None => Ok(()),
        })
    }

    /// Takes a lock; it is on disk when this returns, where durability asks for it.
    ///
    /// # Errors
    /// [`Error::Locked`] when a conflicting lock covers the path or, for depth infinity, is below it, whoever owns that
    /// (RFC 4918 section 6.1); [`Error::Store`] with a quota error when the user, or all users together, hold too many
    /// locks, or the owner element is too large.
    pub(super) fn acquire(&self, path: &TreePath, request: &LockRequest, login: &Login) -> Result<DavLock> {
        let _request = self.requests.lock();
        // Memory before the store: writes are refused from here on, also while the disk is slow.
        let lock = self.insert_new(path, request, login)?;
        if let Err(error) = self.store.put_lock(&LockRow::from(&lock), self.durability) {
            self.forget(&lock.token);
            return Err(error.into());
        }
        // The entry may have been removed before the store knew of the lock: its row would come back at the next start.
        if !self.live.read().by_token.contains_key(&lock.token) {
            self.store.delete_locks(&[lock.token.as_str()], WriteDurability::Lazy)?;
        }
        Ok(lock)
    }

    /// Adds a new lock to the table in memory, from where it is enforced at once.
    fn insert_new(&self, path: &TreePath, request: &LockRequest, login: &Login) -> Result<DavLock> {
        // Waits for every commit that has checked the locks and not yet had its effect.
        let _exclusive = self.acquisition_lock.write();
        // Expired locks must neither conflict nor count in the quota.
        drop(self.without_expired());
        let mut live = self.live.write();
        if let Some(other) = live.conflict(path, request) {
            return Err(locked_error(other, login));
        }
        let limits = self.store.state_limits().locks;
        let count = live.by_login.get(login).copied().unwrap_or_default();
        if count as u64 >= limits.per_user {
            return Err(StoreError::QuotaExceeded("the user holds as many locks as may be").into());
        }
        if live.by_token.len() as u64 >= limits.total {
            return Err(StoreError::QuotaExceeded("all users together hold as many locks as may be").into());
        }
        if request.owner.len() > LOCK_OWNER_MAX_BYTES {
            return Err(StoreError::QuotaExceeded("the owner element of the lock is too long").into());
        }
        let timeout = request.timeout.clamp(LOCK_MIN_LIFETIME, LOCK_MAX_LIFETIME);
        let lock = DavLock {
            token: random_lock_token()?,
            root: path.clone(),
            depth_infinity: request.depth_infinity,
            exclusive: request.exclusive,
            login: login.clone(),
            owner: request.owner.clone(),
            timeout,
            expires: self.clock.now().saturating_add(timeout),
        };
        live.insert(lock.clone(), self.clock.boottime() + timeout);
        self.mark_changed(&live);
        Ok(lock)
    }

    fn forget(&self, token: &LockToken) {
        let mut live = self.live.write();
        live.remove(token);
        self.mark_changed(&live);
    }

    /// Restarts the timeout of a lock of the user that covers the path (RFC 4918 section 9.10.2).
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when the token names no such lock.
    pub(super) fn refresh(
        &self,
        path: &TreePath,
        token: &LockToken,
        login: &Login,
        timeout: Duration,
    ) -> Result<DavLock> {
        let _request = self.requests.lock();
        let is_own = |lock: &&DavLock| lock.token == *token && lock.login == *login;
        let own = self.without_expired().covering(path).into_iter().find(is_own).cloned();
        let mut lock = own.ok_or(Error::PreconditionFailed)?;
        lock.timeout = timeout.clamp(LOCK_MIN_LIFETIME, LOCK_MAX_LIFETIME);
        lock.expires = self.clock.now().saturating_add(lock.timeout);
        // The store before memory: a refresh that the store refuses must not extend the lock in memory.
        self.store.prolong_lock(&LockRow::from(&lock), self.durability)?;
        let mut live = self.live.write();
        // It has expired meanwhile, or its entry was removed.
        if !live.by_token.contains_key(token) {
            return Err(Error::PreconditionFailed);
        }
        live.remove(token);
        live.insert(lock.clone(), self.clock.boottime() + lock.timeout);
        self.mark_changed(&live);
        Ok(lock)
    }

    /// Removes a lock of the user that covers the path (UNLOCK, RFC 4918 section 9.11).
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when no lock with this token covers the path, [`Error::Forbidden`] when the lock
    /// is another user's.
    pub(super) fn release(&self, path: &TreePath, token: &LockToken, login: &Login) -> Result<()> {
        let _request = self.requests.lock();
        let lock = self.without_expired().covering(path).into_iter().find(|lock| lock.token == *token).cloned();
        if lock.ok_or(Error::PreconditionFailed)?.login != *login {
            return Err(Error::Forbidden);
        }
        // The store first: if that fails, UNLOCK reports an error and the lock is still enforced.
        self.store.delete_locks(&[token.as_str()], self.durability)?;
        self.forget(token);
        Ok(())
    }

    /// Returns the locks that cover a path: those on the path itself, and those of depth infinity on its ancestors.
    pub(super) fn covering(&self, path: &TreePath) -> Vec<DavLock> {
        if self.is_empty() {
            return Vec::new();
        }
        self.without_expired().covering(path).into_iter().cloned().collect()
    }

    /// Returns the roots of all locks, each with whether a lock there has depth infinity.
    pub(super) fn roots(&self) -> Vec<(TreePath, bool)> {
        if self.is_empty() {
            return Vec::new();
        }
        let live = self.without_expired();
        let roots = live.by_path.values().filter_map(|locks| {
            let root = locks.first()?.root.clone();
            Some((root, locks.iter().any(|lock| lock.depth_infinity)))
        });
        roots.collect()
    }

    /// Removes the locks at and below a path that was removed or moved away: a lock never moves
    /// (RFC 4918 section 7.6). The change is done already: if the store fails, their rows stay until they expire.
    pub(super) fn remove_subtree(&self, path: &TreePath) {
        let select = |live: &LiveLocks| {
            live.locks_at(path).chain(live.locks_below(path)).flatten().map(|l| l.token.clone()).collect()
        };
        self.remove_after_effect(select)
    }

    /// Removes the locks below a path at which an entry was replaced; a lock on the path itself is kept.
    pub(super) fn remove_below(&self, path: &TreePath) {
        self.remove_after_effect(|live| live.locks_below(path).flatten().map(|l| l.token.clone()).collect());
    }

    fn remove_after_effect(&self, select: impl Fn(&LiveLocks) -> Vec<LockToken>) {
        if let Err(error) = self.remove_matching(select, self.durability) {
            tracing::warn!(%error, "locks of a removed or moved entry stay in the store until they expire");
        }
    }

    /// Removes the locks of users who were removed. It searches only when the store's epoch has changed, as it does
    /// when a user is removed.
    pub(super) fn release_for_removed_users(&self) -> Result<()> {
        // Read before the search: a user who is removed meanwhile moves the epoch and is found by the next call.
        let epoch = self.store.epoch()?;
        if self.users_checked_epoch.load(Ordering::Relaxed) == epoch {
            return Ok(());
        }
        let mut removed = HashSet::new();
        let logins: Vec<Login> = self.live.read().by_login.keys().cloned().collect();
        for login in logins {
            if self.store.user(&login)?.is_none() {
                removed.insert(login);
            }
        }
        self.remove_matching(|live| live.owned_by(&removed), WriteDurability::Lazy)?;
        self.users_checked_epoch.store(epoch, Ordering::Relaxed);
        Ok(())
    }

    fn remove_matching(
        &self,
        select: impl Fn(&LiveLocks) -> Vec<LockToken>,
        durability: WriteDurability,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut live = self.live.write();
        let tokens = select(&live);
        if tokens.is_empty() {
            return Ok(());
        }
        for token in &tokens {
            live.remove(token);
        }
        self.mark_changed(&live);
        // Released first: checks of locks never wait for the disk.
        drop(live);
        let tokens: Vec<&str> = tokens.iter().map(LockToken::as_str).collect();
        Ok(self.store.delete_locks(&tokens, durability)?)
    }

    /// Tells whether no lock exists.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Removes the expired locks and returns the others.
    fn without_expired(&self) -> RwLockReadGuard<'_, LiveLocks> {
        let now = self.clock.boottime();
        let live = self.live.read();
        if live.expired(now).is_empty() {
            return live;
        }
        // Released before the removal, which takes the write lock: this one can't be upgraded.
        drop(live);
        if let Err(error) = self.remove_matching(|live| live.expired(now), WriteDurability::Lazy) {
            tracing::warn!(%error, "expired locks stay in the store until the next start");
        }
        self.live.read()
    }

    fn mark_changed(&self, live: &LiveLocks) {
        // The count before the generation: a reader of the new generation also sees the new count.
        self.count.store(live.by_token.len(), Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

#[derive(Default)]
struct LiveLocks {
    by_path: BTreeMap<Box<[u8]>, Vec<DavLock>>,
    by_token: HashMap<LockToken, (TreePath, Duration)>,
    /// By time since boot, so that no change of the wall clock expires or prolongs a lock.
    by_expiry: BTreeSet<(Duration, LockToken)>,
    by_login: HashMap<Login, usize>,
}

impl LiveLocks {
    fn insert(&mut self, lock: DavLock, deadline: Duration) {
        self.by_token.insert(lock.token.clone(), (lock.root.clone(), deadline));
        self.by_expiry.insert((deadline, lock.token.clone()));
        *self.by_login.entry(lock.login.clone()).or_default() += 1;
        self.by_path.entry(lock.root.as_bytes().into()).or_default().push(lock);
    }

    fn remove(&mut self, token: &LockToken) {
        let Some((root, deadline)) = self.by_token.remove(token) else { return };
        let Some(locks) = self.by_path.get_mut(root.as_bytes()) else { return };
        let removed: Vec<DavLock> = locks.extract_if(.., |lock| lock.token == *token).collect();
        if locks.is_empty() {
            self.by_path.remove(root.as_bytes());
        }
        for lock in removed {
            self.by_expiry.remove(&(deadline, lock.token));
            if let Some(count) = self.by_login.get_mut(&lock.login) {
                *count -= 1;
                if *count == 0 {
                    self.by_login.remove(&lock.login);
                }
            }
        }
    }

    fn covering(&self, path: &TreePath) -> Vec<&DavLock> {
        let above = std::iter::successors(path.parent(), TreePath::parent);
        let mut locks: Vec<&DavLock> = self.locks_at(path).flatten().collect();
        for root in above {
            locks.extend(self.locks_at(&root).flatten().filter(|lock| lock.depth_infinity));
        }
        locks
    }

    fn locks_at(&self, path: &TreePath) -> impl Iterator<Item = &Vec<DavLock>> {
        self.by_path.get(path.as_bytes()).into_iter()
    }

    fn locks_below(&self, path: &TreePath) -> impl Iterator<Item = &Vec<DavLock>> {
        // Paths below `a` start with `a/`, and `0` is the byte after `/`: the range skips `a-b`, which sorts before
        // `a/`.
        let (from, to) = ([path.as_bytes(), b"/"].concat(), [path.as_bytes(), b"0"].concat());
        let range: (Bound<&[u8]>, Bound<&[u8]>) = match path.is_root() {
            true => (Bound::Excluded(b""), Bound::Unbounded),
            false => (Bound::Included(&from), Bound::Excluded(&to)),
        };
        self.by_path.range::<[u8], _>(range).map(|(_, locks)| locks)
    }

    fn conflict(&self, path: &TreePath, request: &LockRequest) -> Option<&DavLock> {
        // Only shared locks are compatible with each other (RFC 4918 section 9.10.5).
        let conflicts = |lock: &&DavLock| request.exclusive || lock.exclusive;
        let covering = self.covering(path).into_iter().find(conflicts);
        covering.or_else(|| self.locks_below(path).filter(|_| request.depth_infinity).flatten().find(conflicts))
    }

    fn owned_by(&self, logins: &HashSet<Login>) -> Vec<LockToken> {
        if logins.is_empty() {
            return Vec::new();
        }
        let locks = self.by_path.values().flatten();
        locks.filter(|lock| logins.contains(&lock.login)).map(|lock| lock.token.clone()).collect()
    }

    fn expired(&self, now: Duration) -> Vec<LockToken> {
        self.by_expiry.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, token)| token.clone()).collect()
    }
}

/// Checks the submitted tokens against all locks that cover one path.
fn check_submitted_tokens(covering: &[&DavLock], login: &Login, tokens: &[LockToken]) -> Result<()> {
    let submitted = |lock: &DavLock| lock.login == *login && tokens.contains(&lock.token);
    let exclusive = covering.iter().find(|lock| lock.exclusive && !submitted(lock));
    // The token of one shared lock is enough, since each of their holders may write.
    let shared = || {
        let mut shared = covering.iter().filter(|lock| !lock.exclusive).peekable();
        let first = shared.peek().copied();
        first.filter(|_| !shared.any(|lock| submitted(lock)))
    };
    exclusive.or_else(shared).map_or(Ok(()), |lock| Err(locked_error(lock, login)))
}

fn locked_error(lock: &DavLock, login: &Login) -> Error {
    let token = (lock.login == *login).then(|| lock.token.clone());
    Error::Locked { root: lock.root.clone(), token }
}

fn random_lock_token() -> std::result::Result<LockToken, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Random(error.to_string()))?;
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Ok(LockToken::new(id.urn().to_string()))
}

impl From<LockRow> for DavLock {
    fn from(row: LockRow) -> Self {
        let LockRow { token, path, depth_infinity, exclusive, login, owner, timeout, expires_at: expires } = row;
        Self { token: LockToken::new(token), root: path, depth_infinity, exclusive, login, owner, timeout, expires }
    }
}

impl From<&DavLock> for LockRow {
    fn from(lock: &DavLock) -> Self {
        Self {
            token: lock.token.as_str().to_owned(),
            path: lock.root.clone(),
            depth_infinity: lock.depth_infinity,
            exclusive: lock.exclusive,
            login: lock.login.clone(),
            owner: lock.owner.clone(),
            timeout: lock.timeout,
            expires_at: lock.expires,
        }
    }
}

#[cfg(test)]
mod tests;
