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
    fn from(sealed: SecretHash) -> Self {
        Self { digest: verified_secrets::phc_digest(&sealed.phc), secret_hash: sealed }
    }
}

impl From<CredentialRow> for CachedCredentials {
    fn from(caller: CredentialRow) -> Self {
        let seal = |sealed| Arc::new(DigestedSecretHash::from(sealed));
        Self {
            login: caller.login,
            revoked_or_disabled: caller.revoked_or_disabled,
            current_hash: seal(caller.secret_hash),
            previous_hash: caller.previous_secret.map(|grace| (seal(grace.secret_hash), grace.valid_until)),
        }
    }
}

impl CachedCredentials {
    /// Returns what was kept of the present secret, and of the one before it while that is accepted beside it.
    pub(super) fn accepted_hashes(&self, now: UnixMillis) -> impl Iterator<Item = &Arc<DigestedSecretHash>> {
        let old = self.previous_hash.as_ref().filter(|(_, until)| now < *until).map(|(seal, _)| seal);
        [Some(&self.current_hash), old].into_iter().flatten()
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
    fn new(reached: EffectiveAccess, uses: &LastUsedTable) -> Self {
        let EffectiveAccess { credentials: caller, chain, .. } = &reached;
        let refused = caller.revoked_or_disabled || chain.iter().any(|link| link.revoked);
        let bounds =
            chain.iter().map(|link| ExpiryBound { last_used: uses.entry(link), expiry: link.expiry }).collect();
        let caller = caller.clone();
        let width = reached.into_privileges();
        let limits = width.limits.first().cloned().unwrap_or_default();
        Self {
            epoch: caller.epoch,
            access: width.access.clone(),
            limits: Arc::new(limits),
            upload_rule: Arc::new(UploadRule::intersect(&width.limits)),
            privileges: Arc::new(width),
            credentials: CachedCredentials::from(caller),
            revoked_or_disabled: refused,
            expiry_bounds: bounds,
        }
    }

    /// Returns the instant at which the first token of the chain dies if none is used any more.
    pub(super) fn deadline(&self) -> UnixMillis {
        self.expiry_bounds.iter().map(ExpiryBound::deadline).min().unwrap_or(UnixMillis::MAX)
    }

    /// Ends the tokens of the chain for good that have expired by an instant.
    fn mark_expired(&self, steady: UnixMillis) {
        self.expiry_bounds.iter().filter(|bound| bound.deadline() <= steady).for_each(|bound| bound.last_used.expire());
    }

    /// Returns the instant at which a session that was proven of a hash ends by itself.
    pub(super) fn session_deadline(&self, proven: &PhcDigest) -> UnixMillis {
        match &self.credentials.previous_hash {
            Some((old, until)) if old.digest == *proven => self.deadline().min(*until),
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
    pub(super) fn accepts_secret(&self, proven: &PhcDigest, now: UnixMillis) -> bool {
        self.credentials.accepted_hashes(now).any(|seal| seal.digest == *proven)
    }

    /// Notes a use of the token itself.
    pub(super) fn record_use(&self, now: UnixMillis, peer: &Arc<Peer>) {
        if let Some(own) = self.expiry_bounds.first() {
            own.last_used.record(now, peer);
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
    fn load(token: TokenId, store: &Store, uses: &LastUsedTable) -> Result<Option<Self>, StoreError> {
        let seen = store.write_count();
        let Some(reached) = store.effective_access(token)? else { return Ok(None) };
        let login = reached.credentials.login.clone();
        let standing = TokenSnapshot::new(reached, uses);
        let over = AtomicBool::new(standing.revoked_or_disabled);
        Ok(Some(Self {
            token,
            login,
            snapshot: ArcSwap::from_pointee(standing),
            seen_write_count: AtomicU64::new(seen),
            reload_lock: Mutex::default(),
            invalidated: over,
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
    pub(super) fn check_live(&self, clock: &Clock, store: &Store, uses: &LastUsedTable) -> Result<bool, StoreError> {
        if self.is_invalidated() {
            return Ok(false);
        }
        let now = clock.now();
        if now < self.snapshot.load().deadline() {
            return Ok(true);
        }
        // Another process may have written down a later use.
        self.reload(store, uses)?;
        let standing = self.snapshot.load();
        if standing.deadline() <= now {
            standing.mark_expired(clock.steady_time());
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
    pub(super) fn refresh(&self, store: &Store, uses: &LastUsedTable) -> Result<(), StoreError> {
        let changes = store.write_count();
        if self.seen_write_count.load(Ordering::Acquire) == changes {
            return Ok(());
        }
        self.revalidate(store.epoch()?, store, uses)?;
        self.seen_write_count.fetch_max(changes, Ordering::AcqRel);
        Ok(())
    }

    /// Makes sure that the standing is no older than an epoch that was just read.
    pub(super) fn revalidate(&self, epoch: i64, store: &Store, uses: &LastUsedTable) -> Result<(), StoreError> {
        if self.snapshot.load().epoch == epoch { Ok(()) } else { self.reload(store, uses) }
    }

    /// Reads everything again.
    pub(super) fn reload(&self, store: &Store, uses: &LastUsedTable) -> Result<(), StoreError> {
        // One at a time, so that an older reading never replaces a newer one.
        let _reloading = self.reload_lock.lock();
        match store.effective_access(self.token)? {
            Some(reached) => {
                let standing = TokenSnapshot::new(reached, uses);
                let refused = standing.revoked_or_disabled;
                self.snapshot.store(Arc::new(standing));
                if refused {
                    self.invalidated.store(true, Ordering::Release);
                }
            }
            None => self.invalidated.store(true, Ordering::Release),
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Notes a session, and returns what tells it that it alone was ended.
    pub(super) fn register(&self, number: u64, peer: Arc<Peer>, since: UnixMillis) -> Arc<AtomicBool> {
        let over = Arc::new(AtomicBool::new(false));
        self.sessions.lock().insert(number, RegisteredSession { peer, opened_at: since, evicted: over.clone() });
        over
    }

    /// Ends one session; tells whether it was there.
    pub(super) fn evict(&self, number: u64) -> bool {
        let place = self.sessions.lock().get(&number).cloned();
        if let Some(place) = &place {
            place.evicted.store(true, Ordering::Release);
            self.changed.notify_waiters();
        }
        place.is_some()
    }

    pub(super) fn unregister(&self, number: u64) {
        self.sessions.lock().remove(&number);
    }

    pub(super) fn sessions(&self) -> Vec<(u64, RegisteredSession)> {
        self.sessions.lock().iter().map(|(number, place)| (*number, place.clone())).collect()
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
fn is_in_use(life: &Arc<CachedToken>) -> bool {
    Arc::strong_count(life) > 1 || !life.is_empty()
}

impl TokenCache {
    /// Returns the life of a token that is in memory as the store has it at this moment.
    pub(super) fn get_current(&self, token: TokenId, now: UnixMillis, store: &Store) -> Option<Arc<CachedToken>> {
        let life = self.get(token).filter(|life| store.is_current_epoch(life.snapshot.load().epoch))?;
        life.last_requested_ms.store(now.as_millis(), Ordering::Relaxed);
        Some(life)
    }

    /// Returns the life of a token, as of an epoch that was just read with its row; `None` for a
    /// token that ended meanwhile.
    pub(super) fn get_at_epoch(
        &self,
        token: TokenId,
        epoch: i64,
        now: UnixMillis,
        store: &Store,
        uses: &LastUsedTable,
    ) -> Result<Option<Arc<CachedToken>>, StoreError> {
        let life = match self.get(token) {
            Some(life) => life,
            None => match CachedToken::load(token, store, uses)? {
                Some(life) => self.insert_loaded(life),
                None => return Ok(None),
            },
        };
        life.last_requested_ms.store(now.as_millis(), Ordering::Relaxed);
        life.revalidate(epoch, store, uses)?;
        Ok((!life.is_invalidated()).then_some(life))
    }

    /// Returns the lives with an open session.
    pub(super) fn with_open_sessions(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().filter(|life| !life.is_empty()).cloned().collect()
    }

    /// Returns the lives whose end somebody waits for: with an open session, or held by a connection.
    pub(super) fn in_use(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().filter(|life| is_in_use(life)).cloned().collect()
    }

    /// Returns all lives in memory.
    pub(super) fn all(&self) -> Vec<Arc<CachedToken>> {
        self.tokens.lock().values().cloned().collect()
    }

    /// Forgets lives that have ended or had no session for a while.
    pub(super) fn evict_idle(&self, now: UnixMillis) {
        self.tokens.lock().retain(|_, life| {
            if is_in_use(life) {
                life.last_requested_ms.store(now.as_millis(), Ordering::Relaxed);
                return true;
            }
            now.saturating_duration_since(UnixMillis::from_millis(life.last_requested_ms.load(Ordering::Relaxed)))
                < IDLE_TOKEN_TTL
                && !life.is_invalidated()
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.tokens.lock().len()
    }

    /// Keeps a life that was just loaded, unless somebody was faster.
    fn insert_loaded(&self, life: CachedToken) -> Arc<CachedToken> {
        let mut lives = self.tokens.lock();
        match lives.get(&life.token) {
            Some(known) if !known.is_invalidated() => known.clone(),
            _ => {
                let life = Arc::new(life);
                lives.insert(life.token, life.clone());
                life
            }
        }
    }

    fn get(&self, token: TokenId) -> Option<Arc<CachedToken>> {
        let life = self.tokens.lock().get(&token).cloned()?;
        (!life.is_invalidated()).then_some(life)
    }
}
