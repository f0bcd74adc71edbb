//! State of a token in this process, shared by all its sessions: its access as of one epoch, and whether it is still
//! valid.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::clock::Clock;
use super::last_used::{LastUsed, LastUsedTable};
use super::verified_secrets::{self, PhcDigest};
use crate::domain::{Login, Peer, Privileges, TokenExpiry, TokenId, TokenLimits, TreeAccess, UnixMillis, UploadRule};
use crate::store::{CredentialRow, EffectiveAccess, Store, StoreError, TokenProof};

/// Time for which a token without sessions stays in memory for its next request.
const IDLE_TOKEN_TTL: Duration = Duration::from_secs(60);

/// Access and expiration of a token as of one epoch.
pub(super) struct TokenSnapshot {
    epoch: i64,
    pub(super) access: Arc<TreeAccess>,
    pub(super) limits: Arc<TokenLimits>,
    pub(super) upload_rule: Arc<UploadRule>,
    pub(super) privileges: Arc<Privileges>,
    /// Row of the token itself.
    pub(super) credentials: CachedCredentials,
    /// Bounds of the token itself, then of each token above it.
    expiry_bounds: Vec<ExpiryBound>,
    revoked_or_disabled: bool,
}

/// Part of a token's row that a credential is checked against.
pub(super) struct CachedCredentials {
    pub(super) login: Login,
    /// Whether the token itself is revoked or its owner is disabled.
    pub(super) revoked_or_disabled: bool,
    current_proof: Arc<DigestedProof>,
    /// The proof before the last rotation, and the end of its grace period.
    previous_proof: Option<(Arc<DigestedProof>, UnixMillis)>,
}

/// What a session was opened by.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionProof {
    /// Digest of the proof that was shown; for a certificate, of the one that the token had then.
    pub(super) digest: PhcDigest,
    /// End of the certificate; [`UnixMillis::MAX`] without one.
    pub(super) valid_until: UnixMillis,
}

impl From<PhcDigest> for SessionProof {
    fn from(digest: PhcDigest) -> Self {
        Self { digest, valid_until: UnixMillis::MAX }
    }
}

/// Stored proof of a token, and the digest that identifies it in memory.
pub(super) struct DigestedProof {
    pub(super) proof: TokenProof,
    pub(super) digest: PhcDigest,
}

impl From<TokenProof> for DigestedProof {
    fn from(proof: TokenProof) -> Self {
        Self { digest: verified_secrets::phc_digest(proof.as_str()), proof }
    }
}

impl From<CredentialRow> for CachedCredentials {
    fn from(row: CredentialRow) -> Self {
        let digested = |proof| Arc::new(DigestedProof::from(proof));
        Self {
            login: row.login,
            revoked_or_disabled: row.revoked_or_disabled,
            current_proof: digested(row.proof),
            previous_proof: row.previous_proof.map(|previous| (digested(previous.proof), previous.valid_until)),
        }
    }
}

impl CachedCredentials {
    /// Returns the current proof, and the previous one during its grace period.
    pub(super) fn accepted_proofs(&self, now: UnixMillis) -> impl Iterator<Item = &Arc<DigestedProof>> {
        let previous = self.previous_proof.as_ref().filter(|(_, valid_until)| now < *valid_until).map(|(hash, _)| hash);
        [Some(&self.current_proof), previous].into_iter().flatten()
    }
}

/// Bound that one token of a chain sets on the expiration.
struct ExpiryBound {
    expiry: TokenExpiry,
    last_used: Arc<LastUsed>,
}

impl ExpiryBound {
    fn deadline(&self) -> UnixMillis {
        // Expired for good: a clock that is set back must not revive the token.
        if self.last_used.is_expired() { UnixMillis::EARLIEST } else { self.expiry.deadline(self.last_used.used_at()) }
    }
}

impl TokenSnapshot {
    fn new(effective: EffectiveAccess, last_used: &LastUsedTable) -> Self {
        let EffectiveAccess { credentials, chain, .. } = &effective;
        let revoked_or_disabled = credentials.revoked_or_disabled || chain.iter().any(|link| link.revoked);
        let expiry_bounds =
            chain.iter().map(|link| ExpiryBound { last_used: last_used.entry(link), expiry: link.expiry }).collect();
        let credentials = credentials.clone();
        let privileges = effective.into_privileges();
        // The first link is the token itself. What bounds uploads and peers is taken from the whole chain.
        let limits = privileges.limits.first().cloned().unwrap_or_default();
        Self {
            epoch: credentials.epoch,
            access: privileges.access.clone(),
            limits: Arc::new(limits),
            upload_rule: Arc::new(UploadRule::intersect(&privileges.limits)),
            privileges: Arc::new(privileges),
            credentials: CachedCredentials::from(credentials),
            revoked_or_disabled,
            expiry_bounds,
        }
    }

    /// Returns the epoch of the store that the snapshot was read at.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Returns the instant at which the first token of the chain expires if none is used any more.
    pub(super) fn deadline(&self) -> UnixMillis {
        self.expiry_bounds.iter().map(ExpiryBound::deadline).min().unwrap_or(UnixMillis::MAX)
    }

    /// Marks those tokens of the chain as expired for good that have expired by the steady time.
    fn mark_expired(&self, steady_time: UnixMillis) {
        self.expiry_bounds
            .iter()
            .filter(|bound| bound.deadline() <= steady_time)
            .for_each(|bound| bound.last_used.expire());
    }

    /// Returns the instant at which a session expires that a proof has opened.
    pub(super) fn session_deadline(&self, proof: &SessionProof) -> UnixMillis {
        let deadline = self.deadline().min(proof.valid_until);
        match &self.credentials.previous_proof {
            // A session of the previous proof ends with the grace period, however long the token is valid.
            Some((previous, valid_until)) if previous.digest == proof.digest => deadline.min(*valid_until),
            _ => deadline,
        }
    }

    /// Tells whether the token is invalid whatever the time.
    pub(super) fn is_revoked_or_disabled(&self) -> bool {
        self.revoked_or_disabled
    }

    /// Tells whether every token of the chain may be used by this peer.
    pub(super) fn allows_peer(&self, peer: &Peer) -> bool {
        self.privileges.limits.iter().all(|limits| limits.allows_peer(peer))
    }

    /// Tells whether a proof is the current one, or the previous one in its grace period, and a certificate still valid.
    pub(super) fn accepts_proof(&self, shown: &SessionProof, now: UnixMillis) -> bool {
        now < shown.valid_until && self.credentials.accepted_proofs(now).any(|proof| proof.digest == shown.digest)
    }

    /// Tells whether a use of the token itself is recorded at this very millisecond.
    pub(super) fn is_use_recorded_at(&self, now: UnixMillis) -> bool {
        self.expiry_bounds.first().is_none_or(|own_bound| own_bound.last_used.used_at() == now)
    }

    /// Records a use of the token itself, not of those above it.
    pub(super) fn record_use(&self, now: UnixMillis, boottime_ms: u64, peer: &Arc<Peer>) {
        // Not the tokens above: a child in use must not extend the window of an idle parent, which bounds it.
        if let Some(own_bound) = self.expiry_bounds.first() {
            own_bound.last_used.record(now, boottime_ms, peer);
        }
    }
}

/// Open session of a token.
#[derive(Clone)]
pub(super) struct RegisteredSession {
    pub(super) peer: Arc<Peer>,
    pub(super) opened_at: UnixMillis,
    evicted: Arc<AtomicBool>,
}

/// State of one token in this process.
pub(super) struct CachedToken {
    pub(super) token: TokenId,
    pub(super) login: Login,
    snapshot: ArcSwap<TokenSnapshot>,
    /// Count of the store's writes at which the snapshot was last known to be current.
    seen_write_count: AtomicU64,
    reload_lock: Mutex<()>,
    invalidated: AtomicBool,
    changed: Notify,
    sessions: Mutex<HashMap<u64, RegisteredSession>>,
    /// Running time of the machine at the last request. By the wall clock, one that is set back would keep idle tokens.
    last_requested_ms: AtomicU64,
}

impl CachedToken {
    fn load(token: TokenId, store: &Store, last_used: &LastUsedTable) -> Result<Option<Self>, StoreError> {
        // Counted before the read: a write that comes in between makes the next refresh read again.
        let write_count = store.write_count();
        let Some(effective) = store.effective_access(token)? else { return Ok(None) };
        let login = effective.credentials.login.clone();
        let snapshot = TokenSnapshot::new(effective, last_used);
        let invalidated = AtomicBool::new(snapshot.revoked_or_disabled);
        Ok(Some(Self {
            token,
            login,
            snapshot: ArcSwap::from_pointee(snapshot),
            seen_write_count: AtomicU64::new(write_count),
            reload_lock: Mutex::default(),
            invalidated,
            changed: Notify::new(),
            sessions: Mutex::default(),
            last_requested_ms: AtomicU64::new(0),
        }))
    }

    /// Returns the present snapshot. Not to be kept: what is returned spares the count of references, which all requests
    /// of a token would otherwise write.
    pub(super) fn snapshot(&self) -> Guard<Arc<TokenSnapshot>> {
        self.snapshot.load()
    }

    pub(super) fn is_invalidated(&self) -> bool {
        self.invalidated.load(Ordering::Acquire)
    }

    /// Tells whether the token is valid at this moment; invalidates it when it has expired. A token that only a jump of
    /// the clock has expired is loaded anew, and accepted, once the clock is right.
    pub(super) fn check_live(
        &self,
        now: UnixMillis,
        clock: &Clock,
        store: &Store,
        last_used: &LastUsedTable,
    ) -> Result<bool, StoreError> {
        if self.is_invalidated() {
            return Ok(false);
        }
        if now < self.snapshot.load().deadline() {
            return Ok(true);
        }
        // Another process may have written a later use, which extends a sliding window.
        self.reload(store, last_used)?;
        let snapshot = self.snapshot.load();
        // The wall clock decides about this request; only the steady time makes an expiration final.
        if snapshot.deadline() <= now {
            snapshot.mark_expired(clock.steady_time());
            self.invalidate();
        }
        Ok(!self.is_invalidated())
    }

    /// Closes all sessions of this cached token for good.
    pub(super) fn invalidate(&self) {
        // The flag before the notification: a waiter that wakes up reads it.
        self.invalidated.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits for the next change of this cached token after the call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Applies the writes of this process; reads the store only after one.
    pub(super) fn refresh(&self, store: &Store, last_used: &LastUsedTable) -> Result<(), StoreError> {
        // Counted before the epoch is read: a write after that is not taken for one that was seen.
        let write_count = store.write_count();
        if self.seen_write_count.load(Ordering::Acquire) == write_count {
            return Ok(());
        }
        self.revalidate(store.epoch()?, store, last_used)?;
        // Never back: a thread that was delayed would make all others read again.
        self.seen_write_count.fetch_max(write_count, Ordering::AcqRel);
        Ok(())
    }

    /// Brings the snapshot to an epoch that was just read from the store.
    pub(super) fn revalidate(&self, epoch: i64, store: &Store, last_used: &LastUsedTable) -> Result<(), StoreError> {
        if self.snapshot.load().epoch == epoch { Ok(()) } else { self.reload(store, last_used) }
    }

    /// Reads the token and its chain from the store again.
    pub(super) fn reload(&self, store: &Store, last_used: &LastUsedTable) -> Result<(), StoreError> {
        // One at a time, so that an older snapshot never replaces a newer one.
        let _reloading = self.reload_lock.lock();
        match store.effective_access(self.token)? {
            Some(effective) => {
                let snapshot = TokenSnapshot::new(effective, last_used);
                let revoked_or_disabled = snapshot.revoked_or_disabled;
                // The snapshot before the flag: the audit event of a closed session takes its reason from the snapshot.
                self.snapshot.store(Arc::new(snapshot));
                if revoked_or_disabled {
                    self.invalidated.store(true, Ordering::Release);
                }
            }
            // Deleted with its owner, or by retention.
            None => self.invalidated.store(true, Ordering::Release),
        }
        // For a valid token, too: waiters sleep until its deadline, which may have moved.
        self.changed.notify_waiters();
        Ok(())
    }

    /// Registers a session, and returns the flag that is set when it alone is evicted.
    pub(super) fn register(&self, number: u64, peer: Arc<Peer>, opened_at: UnixMillis) -> Arc<AtomicBool> {
        let evicted = Arc::new(AtomicBool::new(false));
        self.sessions.lock().insert(number, RegisteredSession { peer, opened_at, evicted: evicted.clone() });
        evicted
    }

    /// Evicts one session; returns whether it existed.
    pub(super) fn evict(&self, number: u64) -> bool {
        let session = self.sessions.lock().get(&number).cloned();
        if let Some(session) = &session {
            session.evicted.store(true, Ordering::Release);
            // Wakes the other sessions of the token, too; each reads its own flag and waits again.
            self.changed.notify_waiters();
        }
        session.is_some()
    }

    pub(super) fn unregister(&self, number: u64) {
        self.sessions.lock().remove(&number);
    }

    pub(super) fn sessions(&self) -> Vec<(u64, RegisteredSession)> {
        self.sessions.lock().iter().map(|(number, session)| (*number, session.clone())).collect()
    }

    fn is_empty(&self) -> bool {
        self.sessions.lock().is_empty()
    }
}

/// Tokens with a session, and those that were requested lately, ready for the next request.
#[derive(Default)]
pub(super) struct TokenCache {
    tokens: Mutex<HashMap<TokenId, Arc<CachedToken>>>,
}

/// Tells whether anything but the cache itself holds a token.
fn is_in_use(cached_token: &Arc<CachedToken>) -> bool {
    // One reference is the cache's own. Others are logins under way, and connections that wait for the token's end.
    Arc::strong_count(cached_token) > 1 || !cached_token.is_empty()
}

impl TokenCache {
    /// Returns a token from the cache, if the published epoch says that its snapshot is current.
    pub(super) fn get_current(&self, token: TokenId, boottime_ms: u64, store: &Store) -> Option<Arc<CachedToken>> {
        let cached_token =
            self.get(token).filter(|cached_token| store.is_current_epoch(cached_token.snapshot.load().epoch))?;
        cached_token.last_requested_ms.store(boottime_ms, Ordering::Relaxed);
        Some(cached_token)
    }

    /// Returns a token, from the cache or the store, as of an epoch that was just read with its row; `None` for one
    /// that has become invalid meanwhile.
    pub(super) fn get_at_epoch(
        &self,
        token: TokenId,
        epoch: i64,
        boottime_ms: u64,
        store: &Store,
        last_used: &LastUsedTable,
    ) -> Result<Option<Arc<CachedToken>>, StoreError> {
        let cached_token = match self.get(token) {
            Some(cached_token) => cached_token,
            None => match CachedToken::load(token, store, last_used)? {
                Some(cached_token) => self.insert_loaded(cached_token),
                None => return Ok(None),
            },
        };
        cached_token.last_requested_ms.store(boottime_ms, Ordering::Relaxed);
        // A cached snapshot may be older than the row that the secret was checked against.
        cached_token.revalidate(epoch, store, last_used)?;
        Ok((!cached_token.is_invalidated()).then_some(cached_token))
    }

    /// Returns the tokens with an open session.
    pub(super) fn with_open_sessions(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().filter(|cached_token| !cached_token.is_empty()).cloned().collect()
    }

    /// Returns the tokens whose invalidation somebody waits for: with an open session, or held by a connection.
    pub(super) fn in_use(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().filter(|cached_token| is_in_use(cached_token)).cloned().collect()
    }

    /// Returns all tokens in memory.
    pub(super) fn all(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().cloned().collect()
    }

    /// Removes tokens that are invalid, or had no session for [`IDLE_TOKEN_TTL`].
    pub(super) fn evict_idle(&self, boottime_ms: u64) {
        self.tokens.lock().retain(|_, cached_token| {
            // The idle time starts when the last user of the token is gone, not at its last login.
            if is_in_use(cached_token) {
                cached_token.last_requested_ms.store(boottime_ms, Ordering::Relaxed);
                return true;
            }
            let idle_ms = boottime_ms.saturating_sub(cached_token.last_requested_ms.load(Ordering::Relaxed));
            Duration::from_millis(idle_ms) < IDLE_TOKEN_TTL && !cached_token.is_invalidated()
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.tokens.lock().len()
    }

    /// Inserts a token that was just loaded, unless another thread was faster.
    fn insert_loaded(&self, cached_token: CachedToken) -> Arc<CachedToken> {
        let mut tokens = self.tokens.lock();
        match tokens.get(&cached_token.token) {
            // An invalidated token is replaced and never reset: a user that is enabled again can log in, while sessions
            // that have ended stay closed.
            Some(known) if !known.is_invalidated() => known.clone(),
            _ => {
                let cached_token = Arc::new(cached_token);
                tokens.insert(cached_token.token, cached_token.clone());
                cached_token
            }
        }
    }

    fn get(&self, token: TokenId) -> Option<Arc<CachedToken>> {
        let cached_token = self.tokens.lock().get(&token).cloned()?;
        (!cached_token.is_invalidated()).then_some(cached_token)
    }
}
