//! Session of an authenticated caller with a valid token.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::Guard;

use super::AuthCore;
use super::audit_buffer::EventOrigin;
use super::token_state::{CachedToken, SessionProof, TokenSnapshot};
use super::verified_secrets::PhcDigest;
use super::work_permits::{TooMuchWork, WorkPermit};
use crate::domain::{
    Actor, AuditEvent, EventKind, Login, Peer, Privileges, Roles, TokenId, TokenLimits, TreeAccess, TreePath,
    UnixMillis, UploadRule, UsageKind,
};

/// Number of path components by which the audit trail tells denied operations apart.
const DENIED_PATH_MAX_DEPTH: usize = 3;

/// Time for which a session answers further requests of its connection, in milliseconds. A full authentication each
/// minute keeps the verified secret in memory, and bounds it there.
const MAX_REUSE_MS: u64 = 60_000;

/// Error of a session whose token is not valid any more, excludes this peer, or no longer grants access to an open
/// entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended, or its token no longer allows this")]
pub struct SessionEnded;

/// Identifies a token and one of its secrets without revealing the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialId(TokenId, PhcDigest);

/// Authenticated caller with a valid token; only [`super::Authenticator`] creates one.
///
/// Clones share one state: all end together, within a second after the token is revoked or expires.
#[derive(Clone)]
pub struct Session {
    handle: Arc<SessionHandle>,
    /// Start of the hour in which this request, or longer use of the session, was last counted.
    counted_hour_ms: Arc<AtomicI64>,
}

/// Access of a session at this moment, for use at once.
pub struct CurrentAccess(Guard<Arc<TokenSnapshot>>);

impl Deref for CurrentAccess {
    type Target = TreeAccess;

    fn deref(&self) -> &TreeAccess {
        &self.0.access
    }
}

/// State that clones of a session share. The session is open until the last of them is dropped.
struct SessionHandle {
    core: Arc<AuthCore>,
    cached_token: Arc<CachedToken>,
    peer: Arc<Peer>,
    proof: SessionProof,
    number: u64,
    evicted: Arc<AtomicBool>,
    /// Whether a use was recorded for the client of this session.
    peer_recorded: AtomicBool,
    /// Running time of the machine when the session was opened.
    opened_boottime_ms: u64,
}

impl Session {
    /// Opens a session for a caller that has shown a proof.
    pub(super) fn open(core: Arc<AuthCore>, cached_token: Arc<CachedToken>, peer: Peer, proof: SessionProof) -> Self {
        let peer = Arc::new(peer);
        let number = core.next_session_number();
        let evicted = cached_token.register(number, peer.clone(), core.clock.now());
        let opened_boottime_ms = core.clock.boottime_ms();
        Self {
            handle: Arc::new(SessionHandle {
                core,
                cached_token,
                peer,
                proof,
                number,
                evicted,
                peer_recorded: AtomicBool::new(false),
                opened_boottime_ms,
            }),
            counted_hour_ms: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// Returns the session for a further request with the same credential from the same client, if that would be
    /// authenticated now as the one was that opened this session: judged by the store's published epoch, the clock and the
    /// limits. `None` when in doubt, and once the session has been open for [`MAX_REUSE_MS`].
    pub fn reuse(&self) -> Option<Self> {
        let SessionHandle { core, cached_token, opened_boottime_ms, .. } = &*self.handle;
        let is_fresh = core.clock.boottime_ms().saturating_sub(*opened_boottime_ms) < MAX_REUSE_MS;
        let is_current = || core.store.is_current_epoch(cached_token.snapshot().epoch());
        let is_valid = is_fresh && is_current() && self.handle.snapshot().is_ok();
        is_valid.then(|| Self { handle: Arc::clone(&self.handle), counted_hour_ms: Arc::new(AtomicI64::new(i64::MIN)) })
    }

    /// Returns the login of the user.
    pub fn login(&self) -> &Login {
        &self.handle.cached_token.login
    }

    /// Returns the token's id.
    pub fn token(&self) -> TokenId {
        self.handle.cached_token.token
    }

    /// Returns the id of the token and secret that opened the session.
    pub fn credential_id(&self) -> CredentialId {
        CredentialId(self.token(), self.handle.proof.digest)
    }

    /// Returns a number that is unique among the sessions of this process.
    pub fn number(&self) -> u64 {
        self.handle.number
    }

    /// Returns protocol, address and program of the client.
    pub fn peer(&self) -> &Peer {
        &self.handle.peer
    }

    /// Returns the access that the token grants at this moment. Changes of this process count at once; the store is
    /// read only after one, otherwise this costs no I/O.
    ///
    /// # Errors
    /// [`SessionEnded`] once the token is not valid any more, or when the store can't be read.
    pub fn access(&self) -> Result<Arc<TreeAccess>, SessionEnded> {
        self.handle.snapshot().map(|snapshot| snapshot.access.clone())
    }

    /// Returns what [`Session::access`] does, for use at once. All sessions of a token share the count of references to its
    /// access; what is returned leaves it alone.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn current_access(&self) -> Result<CurrentAccess, SessionEnded> {
        self.handle.snapshot().map(CurrentAccess)
    }

    /// Returns the roles at this moment: those that the owner and every token of the chain hold.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn roles(&self) -> Result<Roles, SessionEnded> {
        self.handle.snapshot().map(|snapshot| snapshot.privileges.roles.clone())
    }

    /// Returns the privileges of the token at this moment, intersected over its whole chain.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn privileges(&self) -> Result<Arc<Privileges>, SessionEnded> {
        self.handle.snapshot().map(|snapshot| snapshot.privileges.clone())
    }

    /// Returns the access that the token grants, as for a new request: reads the store's epoch, so that changes of
    /// every process count. May block.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn revalidate(&self) -> Result<Arc<TreeAccess>, SessionEnded> {
        let SessionHandle { core, cached_token, .. } = &*self.handle;
        // The epoch of the database, not the published one: a change by another program (sqlite3) counts, too.
        let revalidated =
            core.store.epoch().and_then(|epoch| cached_token.revalidate(epoch, &core.store, &core.last_used));
        // Fails closed: without the store nothing tells whether the token was revoked.
        if let Err(error) = revalidated {
            tracing::error!(token = %cached_token.token, %error, "a session ends: its token can't be read");
            return Err(SessionEnded);
        }
        self.access()
    }

    /// Returns the token's own limits at this moment. Costs no I/O.
    pub fn limits(&self) -> Arc<TokenLimits> {
        self.handle.cached_token.snapshot().limits.clone()
    }

    /// Returns the epoch of the store that the last [`Session::access`] was read at.
    pub(crate) fn access_epoch(&self) -> i64 {
        self.handle.cached_token.snapshot().epoch()
    }

    /// Returns the rule that uploads must satisfy, intersected over the token's chain, as of the last
    /// [`Session::access`].
    pub fn upload_rule(&self) -> Arc<UploadRule> {
        self.handle.cached_token.snapshot().upload_rule.clone()
    }

    /// Returns the instant at which the session ends unless it is used before.
    pub fn deadline(&self) -> UnixMillis {
        self.handle.cached_token.snapshot().session_deadline(&self.handle.proof)
    }

    /// Records a use: an accepted request or a block transferred. Extends a sliding window; the first use of an hour is
    /// counted.
    pub fn record_use(&self) {
        let SessionHandle { core, cached_token, peer, proof, peer_recorded, .. } = &*self.handle;
        let (snapshot, now) = (cached_token.snapshot(), core.clock.now());
        // A late use revives nothing: one after the deadline, or after a revocation, is dropped.
        if !cached_token.is_invalidated() && now < snapshot.session_deadline(proof) {
            // Once a millisecond is enough: all sessions of the token write to the same place.
            if !(peer_recorded.load(Ordering::Relaxed) && snapshot.is_use_recorded_at(now)) {
                snapshot.record_use(now, core.clock.boottime_ms(), peer);
                peer_recorded.store(true, Ordering::Relaxed);
            }
            self.count_use(now);
        }
    }

    /// Counts a request, or a longer use once an hour.
    fn count_use(&self, now: UnixMillis) {
        let hour = now.start_of_hour().as_millis();
        let is_counted = self.counted_hour_ms.load(Ordering::Relaxed) == hour;
        // The swap decides between threads: of two first uses in an hour one is counted.
        if !is_counted && self.counted_hour_ms.swap(hour, Ordering::Relaxed) != hour {
            self.handle.core.usage_counters.increment(now, self.handle.peer.protocol, UsageKind::Use);
        }
    }

    /// Records a denied operation on the tree in the audit trail; those below one path prefix are counted together.
    pub fn record_denial(&self, reason: &str, path: Option<&TreePath>) {
        let SessionHandle { core, cached_token, peer, .. } = &*self.handle;
        let actor = Actor::Bearer { login: cached_token.login.clone(), token: cached_token.token };
        let event = AuditEvent::new(core.clock.now(), EventKind::AccessDenied)
            .with_user(&cached_token.login)
            .with_token(cached_token.token);
        let event = event.with_actor(actor).with_peer(peer).with_detail(reason);
        // Before the buffer merges repeated events: statistics count every refusal.
        core.usage_counters.increment(event.at, peer.protocol, UsageKind::Refusal);
        let event = match path {
            // Shortened, so that a client that probes a million names fills one row and not the trail.
            Some(path) => event.with_path(&path.prefix(DENIED_PATH_MAX_DEPTH)),
            None => event,
        };
        core.audit_buffer.record(EventOrigin::Authenticated, event);
    }

    /// Waits for a permit for work that keeps a processor busy for long. Dropping the permit releases it.
    ///
    /// # Errors
    /// [`TooMuchWork`] when the user, or all users together, have too much work waiting.
    pub async fn acquire_heavy_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.heavy.acquire(self.login()).await
    }

    /// Waits for a permit for a call of the store, which doesn't wait for the user's longer work.
    ///
    /// # Errors
    /// As [`Session::acquire_heavy_permit`].
    pub async fn acquire_light_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.light.acquire(self.login()).await
    }

    /// Waits for another light permit for work that has begun.
    ///
    /// # Errors
    /// [`TooMuchWork`] when all users together have too much work waiting.
    pub async fn acquire_light_followup_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.light.acquire_followup(self.login()).await
    }

    /// Waits for a permit for revoking access: of tokens, grants, roles, users. Waits neither for other work nor for
    /// other tokens.
    ///
    /// # Errors
    /// [`TooMuchWork`] when the token, or all tokens together, have too much work waiting.
    pub async fn acquire_revocation_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.revocation.acquire(&self.token()).await
    }

    /// Waits for another heavy permit for work that has begun.
    ///
    /// # Errors
    /// [`TooMuchWork`] when all users together have too much work waiting.
    pub async fn acquire_heavy_followup_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.heavy.acquire_followup(self.login()).await
    }

    /// Waits until the token rejects this secret from this peer. Unlike that of [`Session::closed`], the future keeps
    /// no session open.
    pub fn credential_invalidated(&self) -> impl Future<Output = ()> + Send + 'static {
        let SessionHandle { core, cached_token, peer, proof, .. } = &*self.handle;
        // Clones of the parts, not of the session: a connection that only watches must not count as an open session.
        let (core, cached_token, peer, proof) = (Arc::clone(core), Arc::clone(cached_token), Arc::clone(peer), *proof);
        async move {
            loop {
                // Registered before the check, or a change between the two would be missed.
                let changed = cached_token.changed();
                let deadline = valid_snapshot(&core, &cached_token, &peer, &proof)
                    .map(|snapshot| snapshot.session_deadline(&proof));
                let Some(deadline) = deadline else { return };
                tokio::select! {
                    () = changed => {}
                    () = core.clock.sleep_until(deadline) => {}
                }
            }
        }
    }

    /// Waits until the session has ended.
    pub async fn closed(&self) {
        loop {
            // Registered before the check, as in `credential_invalidated`.
            let changed = self.handle.cached_token.changed();
            let deadline = self.handle.snapshot().map(|snapshot| snapshot.session_deadline(&self.handle.proof));
            let Ok(deadline) = deadline else { return self.handle.record_closed() };
            tokio::select! {
                () = changed => {}
                () = self.handle.core.clock.sleep_until(deadline) => {}
            }
        }
    }
}

impl SessionHandle {
    /// Returns the token's snapshot, while the session is open.
    fn snapshot(&self) -> Result<Guard<Arc<TokenSnapshot>>, SessionEnded> {
        // An eviction ends this session alone; its token stays valid.
        if self.evicted.load(Ordering::Acquire) {
            return Err(SessionEnded);
        }
        valid_snapshot(&self.core, &self.cached_token, &self.peer, &self.proof).ok_or(SessionEnded)
    }
}

/// Returns the token's current snapshot, while it accepts this secret from this peer.
fn valid_snapshot(
    core: &AuthCore,
    cached_token: &CachedToken,
    peer: &Peer,
    proof: &SessionProof,
) -> Option<Guard<Arc<TokenSnapshot>>> {
    // Without a read: an invalidated object never becomes valid again. A new login loads another one.
    if cached_token.is_invalidated() {
        return None;
    }
    let now = core.clock.now();
    // First the writes of this process, which may have moved the deadline, then the deadline.
    let live = cached_token
        .refresh(&core.store, &core.last_used)
        .and_then(|()| cached_token.check_live(now, &core.clock, &core.store, &core.last_used));
    if let Err(error) = &live {
        tracing::error!(token = %cached_token.token, %error, "a session ends: its token can't be read");
    }
    // Taken after the checks, each of which may have replaced it.
    let snapshot = cached_token.snapshot();
    // Fails closed when the store can't be read. The secret is checked again, since a rotation may have retired it.
    let is_valid = live.unwrap_or(false) && snapshot.accepts_proof(proof, now) && snapshot.allows_peer(peer);
    is_valid.then_some(snapshot)
}

impl SessionHandle {
    /// Records in the audit trail that the session has ended, and why.
    fn record_closed(&self) {
        let Self { core, cached_token, peer, proof, .. } = self;
        let (snapshot, now) = (cached_token.snapshot(), core.clock.now());
        let reason = if snapshot.deadline() <= now {
            "the token, or one above it, has expired"
        } else if snapshot.is_revoked_or_disabled() {
            "the token, or one above it, was revoked, or the user disabled"
        } else if !snapshot.accepts_proof(proof, now) {
            "the secret was replaced by a rotation"
        } else if !snapshot.allows_peer(peer) {
            "the token's limits now exclude the protocol, address or program"
        } else {
            "the token was deleted, or the store can't be read"
        };
        let event =
            AuditEvent::new(now, EventKind::SessionEnded).with_user(&cached_token.login).with_token(cached_token.token);
        core.audit_buffer
            .record(EventOrigin::Authenticated, event.with_actor(Actor::Server).with_peer(peer).with_detail(reason));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("login", self.login()).field("token", &self.token()).finish_non_exhaustive()
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.cached_token.unregister(self.number);
    }
}
