//! The life of a token in this process, shared by all its sessions: what it may do as of an epoch,
//! and whether it has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::clock::Clock;
use super::last_used::{LastUsed, LastUsedTable};
use super::verified_secrets::{self, PhcDigest};
use crate::domain::{Login, Peer, Privileges, TokenExpiry, TokenId, TokenLimits, TreeAccess, UnixMillis, UploadRule};
use crate::store::{CredentialRow, EffectiveAccess, SecretHash, Store, StoreError};

/// How long a life without sessions is kept for the next request.
const IDLE_TOKEN_TTL: Duration = Duration::from_secs(60);

/// What a token may do, and until when, as of one epoch.
pub(super) struct TokenSnapshot {
    epoch: i64,
    pub(super) access: Arc<TreeAccess>,
    pub(super) limits: Arc<TokenLimits>,
    pub(super) upload_rule: Arc<UploadRule>,
    pub(super) privileges: Arc<Privileges>,
    /// The token's own row.
    pub(super) credentials: CachedCredentials,
    /// The token itself, and those above it.
    expiry_bounds: Vec<ExpiryBound>,
    revoked_or_disabled: bool,
}

/// What a token's row says of who shows it.
pub(super) struct CachedCredentials {
    pub(super) login: Login,
    /// Whether the owner or the token itself is dead whatever else holds.
    pub(super) revoked_or_disabled: bool,
    current_hash: Arc<DigestedSecretHash>,
    /// The secret before it, and until when.
    previous_hash: Option<(Arc<DigestedSecretHash>, UnixMillis)>,
}

/// What is kept of a secret, and what stands for its hash.
pub(super) struct DigestedSecretHash {
    pub(super) secret_hash: SecretHash,
    pub(super) digest: PhcDigest,
}

impl From<SecretHash> for DigestedSecretHash {
    fn from(secret_hash: SecretHash) -> Self {
        Self { digest: verified_secrets::phc_digest(&secret_hash.phc), secret_hash }
    }
}

impl From<CredentialRow> for CachedCredentials {
    fn from(row: CredentialRow) -> Self {
        let digested = |secret_hash| Arc::new(DigestedSecretHash::from(secret_hash));
        Self {
            login: row.login,
            revoked_or_disabled: row.revoked_or_disabled,
            current_hash: digested(row.secret_hash),
            previous_hash: row.previous_secret.map(|previous| (digested(previous.secret_hash), previous.valid_until)),
        }
    }
}

impl CachedCredentials {
    /// Returns what was kept of the present secret, and of the one before it while that is accepted beside it.
    pub(super) fn accepted_hashes(&self, now: UnixMillis) -> impl Iterator<Item = &Arc<DigestedSecretHash>> {
        let previous = self.previous_hash.as_ref().filter(|(_, valid_until)| now < *valid_until).map(|(hash, _)| hash);
        [Some(&self.current_hash), previous].into_iter().flatten()
    }
}

/// What one token of a chain adds to what bounds the caller's life.
struct ExpiryBound {
    expiry: TokenExpiry,
    last_used: Arc<LastUsed>,
}

impl ExpiryBound {
    fn deadline(&self) -> UnixMillis {
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

    /// Returns the instant at which the first token of the chain dies if none is used any more.
    pub(super) fn deadline(&self) -> UnixMillis {
        self.expiry_bounds.iter().map(ExpiryBound::deadline).min().unwrap_or(UnixMillis::MAX)
    }

    /// Ends the tokens of the chain for good that have expired by an instant.
    fn mark_expired(&self, steady_time: UnixMillis) {
        self.expiry_bounds
            .iter()
            .filter(|bound| bound.deadline() <= steady_time)
            .for_each(|bound| bound.last_used.expire());
    }

    /// Returns the instant at which a session that was proven of a hash ends by itself.
    pub(super) fn session_deadline(&self, secret_digest: &PhcDigest) -> UnixMillis {
        match &self.credentials.previous_hash {
            Some((previous, valid_until)) if previous.digest == *secret_digest => self.deadline().min(*valid_until),
            _ => self.deadline(),
        }
    }

    /// Tells whether the token is dead whatever the time.
    pub(super) fn is_revoked_or_disabled(&self) -> bool {
        self.revoked_or_disabled
    }

    /// Tells whether every token of the chain may be used by this peer.
    pub(super) fn allows_peer(&self, peer: &Peer) -> bool {
        self.privileges.limits.iter().all(|limits| limits.allows_peer(peer))
    }

    /// Tells whether the secret of a hash is the present one, or still accepted beside it.
    pub(super) fn accepts_secret(&self, secret_digest: &PhcDigest, now: UnixMillis) -> bool {
        self.credentials.accepted_hashes(now).any(|hash| hash.digest == *secret_digest)
    }

    /// Notes a use of the token itself.
    pub(super) fn record_use(&self, now: UnixMillis, peer: &Arc<Peer>) {
        if let Some(own_bound) = self.expiry_bounds.first() {
            own_bound.last_used.record(now, peer);
        }
    }
}

/// Where one session sits.
#[derive(Clone)]
pub(super) struct RegisteredSession {
    pub(super) peer: Arc<Peer>,
    pub(super) opened_at: UnixMillis,
    evicted: Arc<AtomicBool>,
}

/// The life of one token in this process.
pub(super) struct CachedToken {
    pub(super) token: TokenId,
    pub(super) login: Login,
    snapshot: ArcSwap<TokenSnapshot>,
    /// The store's count of writes at which the standing was last known to hold.
    seen_write_count: AtomicU64,
    reload_lock: Mutex<()>,
    invalidated: AtomicBool,
    changed: Notify,
    sessions: Mutex<HashMap<u64, RegisteredSession>>,
    last_requested_ms: AtomicI64,
}

impl CachedToken {
    fn load(token: TokenId, store: &Store, last_used: &LastUsedTable) -> Result<Option<Self>, StoreError> {
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
            last_requested_ms: AtomicI64::new(i64::MIN),
        }))
    }

    pub(super) fn snapshot(&self) -> Arc<TokenSnapshot> {
        self.snapshot.load_full()
    }

    pub(super) fn is_invalidated(&self) -> bool {
        self.invalidated.load(Ordering::Acquire)
    }

    /// Tells whether the token lives at this moment; ends it when it has expired. One that only a jump of the clock
    /// has expired may live again, in another life, once the clock is right.
    pub(super) fn check_live(
        &self,
        clock: &Clock,
        store: &Store,
        last_used: &LastUsedTable,
    ) -> Result<bool, StoreError> {
        if self.is_invalidated() {
            return Ok(false);
        }
        let now = clock.now();
        if now < self.snapshot.load().deadline() {
            return Ok(true);
        }
        // Another process may have written down a later use.
        self.reload(store, last_used)?;
        let snapshot = self.snapshot.load();
        if snapshot.deadline() <= now {
            snapshot.mark_expired(clock.steady_time());
            self.invalidate();
        }
        Ok(!self.is_invalidated())
    }

    /// Ends all sessions of this life, for good.
    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits for the next change of this life after the call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Makes sure that what this process wrote is taken into account; reads only when it wrote.
    pub(super) fn refresh(&self, store: &Store, last_used: &LastUsedTable) -> Result<(), StoreError> {
        let write_count = store.write_count();
        if self.seen_write_count.load(Ordering::Acquire) == write_count {
            return Ok(());
        }
        self.revalidate(store.epoch()?, store, last_used)?;
        self.seen_write_count.fetch_max(write_count, Ordering::AcqRel);
        Ok(())
    }

    /// Makes sure that the standing is no older than an epoch that was just read.
    pub(super) fn revalidate(&self, epoch: i64, store: &Store, last_used: &LastUsedTable) -> Result<(), StoreError> {
        if self.snapshot.load().epoch == epoch { Ok(()) } else { self.reload(store, last_used) }
    }

    /// Reads everything again.
    pub(super) fn reload(&self, store: &Store, last_used: &LastUsedTable) -> Result<(), StoreError> {
        // One at a time, so that an older reading never replaces a newer one.
        let _reloading = self.reload_lock.lock();
        match store.effective_access(self.token)? {
            Some(effective) => {
                let snapshot = TokenSnapshot::new(effective, last_used);
                let revoked_or_disabled = snapshot.revoked_or_disabled;
                self.snapshot.store(Arc::new(snapshot));
                if revoked_or_disabled {
                    self.invalidated.store(true, Ordering::Release);
                }
            }
            None => self.invalidated.store(true, Ordering::Release),
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Notes a session, and returns what tells it that it alone was ended.
    pub(super) fn register(&self, number: u64, peer: Arc<Peer>, opened_at: UnixMillis) -> Arc<AtomicBool> {
        let evicted = Arc::new(AtomicBool::new(false));
        self.sessions.lock().insert(number, RegisteredSession { peer, opened_at, evicted: evicted.clone() });
        evicted
    }

    /// Ends one session; tells whether it was there.
    pub(super) fn evict(&self, number: u64) -> bool {
        let session = self.sessions.lock().get(&number).cloned();
        if let Some(session) = &session {
            session.evicted.store(true, Ordering::Release);
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

/// All lives with a session, and those that had one lately: the next request finds them ready.
#[derive(Default)]
pub(super) struct TokenCache {
    tokens: Mutex<HashMap<TokenId, Arc<CachedToken>>>,
}

/// Tells whether anything but the table itself holds a life.
fn is_in_use(cached_token: &Arc<CachedToken>) -> bool {
    Arc::strong_count(cached_token) > 1 || !cached_token.is_empty()
}

impl TokenCache {
    /// Returns the life of a token that is in memory as the store has it at this moment.
    pub(super) fn get_current(&self, token: TokenId, now: UnixMillis, store: &Store) -> Option<Arc<CachedToken>> {
        let cached_token =
            self.get(token).filter(|cached_token| store.is_current_epoch(cached_token.snapshot.load().epoch))?;
        cached_token.last_requested_ms.store(now.as_millis(), Ordering::Relaxed);
        Some(cached_token)
    }

    /// Returns the life of a token, as of an epoch that was just read with its row; `None` for a
    /// token that ended meanwhile.
    pub(super) fn get_at_epoch(
        &self,
        token: TokenId,
        epoch: i64,
        now: UnixMillis,
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
        cached_token.last_requested_ms.store(now.as_millis(), Ordering::Relaxed);
        cached_token.revalidate(epoch, store, last_used)?;
        Ok((!cached_token.is_invalidated()).then_some(cached_token))
    }

    /// Returns the lives with an open session.
    pub(super) fn with_open_sessions(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().filter(|cached_token| !cached_token.is_empty()).cloned().collect()
    }

    /// Returns the lives whose end somebody waits for: with an open session, or held by a connection.
    pub(super) fn in_use(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().filter(|cached_token| is_in_use(cached_token)).cloned().collect()
    }

    /// Returns all lives in memory.
    pub(super) fn all(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().cloned().collect()
    }

    /// Forgets lives that have ended or had no session for a while.
    pub(super) fn evict_idle(&self, now: UnixMillis) {
        self.tokens.lock().retain(|_, cached_token| {
            if is_in_use(cached_token) {
                cached_token.last_requested_ms.store(now.as_millis(), Ordering::Relaxed);
                return true;
            }
            now.saturating_duration_since(UnixMillis::from_millis(
                cached_token.last_requested_ms.load(Ordering::Relaxed),
            )) < IDLE_TOKEN_TTL
                && !cached_token.is_invalidated()
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.tokens.lock().len()
    }

    /// Keeps a life that was just loaded, unless somebody was faster.
    fn insert_loaded(&self, cached_token: CachedToken) -> Arc<CachedToken> {
        let mut tokens = self.tokens.lock();
        match tokens.get(&cached_token.token) {
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
