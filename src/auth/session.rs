//! A caller proven to be a user with a live token.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::AuthCore;
use super::audit_buffer::EventOrigin;
use super::token_state::{CachedToken, TokenSnapshot};
use super::verified_secrets::PhcDigest;
use super::work_permits::{TooMuchWork, WorkPermit};
use crate::domain::{
    Actor, AuditEvent, EventKind, Login, Peer, Privileges, Roles, TokenId, TokenLimits, TreeAccess, TreePath,
    UnixMillis, UploadRule, UsageKind,
};

/// How many names of a path tell refused operations apart.
const DENIED_PATH_MAX_DEPTH: usize = 3;

/// The session's token is dead, no longer admits this peer, or no longer reaches what is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended, or may not do this here any more")]
pub struct SessionEnded;

/// What tells a token and one of its secrets from others, without showing anything of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialId(TokenId, PhcDigest);

/// A caller proven to be a user with a live token; only [`super::Authenticator`] makes one.
///
/// Clones share one life: all end together, within a second of the token's death.
#[derive(Clone)]
pub struct Session {
    handle: Arc<SessionHandle>,
}

/// What clones of a session share; open until the last of them is dropped.
struct SessionHandle {
    core: Arc<AuthCore>,
    cached_token: Arc<CachedToken>,
    peer: Arc<Peer>,
    secret_digest: PhcDigest,
    number: u64,
    evicted: Arc<AtomicBool>,
    /// The hour in which it was last counted as used.
    counted_hour_ms: AtomicI64,
}

impl Session {
    /// Opens a session for a caller whose proof was checked against the hash `proven` stands for.
    pub(super) fn open(
        core: Arc<AuthCore>,
        cached_token: Arc<CachedToken>,
        peer: Peer,
        secret_digest: PhcDigest,
    ) -> Self {
        let peer = Arc::new(peer);
        let number = core.next_session_number();
        let evicted = cached_token.register(number, peer.clone(), core.clock.now());
        Self {
            handle: Arc::new(SessionHandle {
                core,
                cached_token,
                peer,
                secret_digest,
                number,
                evicted,
                counted_hour_ms: AtomicI64::new(i64::MIN),
            }),
        }
    }

    /// Returns the user.
    pub fn login(&self) -> &Login {
        &self.handle.cached_token.login
    }

    /// Returns the token's id.
    pub fn token(&self) -> TokenId {
        self.handle.cached_token.token
    }

    /// Returns what tells the token and the secret that were shown from others.
    pub fn credential_id(&self) -> CredentialId {
        CredentialId(self.token(), self.handle.secret_digest)
    }

    /// Returns what tells it apart from the other sessions of this process.
    pub fn number(&self) -> u64 {
        self.handle.number
    }

    /// Returns who is at the door.
    pub fn peer(&self) -> &Peer {
        &self.handle.peer
    }

    /// Returns what may be reached at this moment. What this process changed counts at once, and is
    /// read again only then; otherwise this costs no I/O.
    ///
    /// # Errors
    /// [`SessionEnded`] once the token is dead, or when the store can't tell.
    pub fn access(&self) -> Result<Arc<TreeAccess>, SessionEnded> {
        self.handle.snapshot().map(|snapshot| snapshot.access.clone())
    }

    /// Returns the roles at this moment: those that the owner and every token of the chain have.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn roles(&self) -> Result<Roles, SessionEnded> {
        self.handle.snapshot().map(|snapshot| snapshot.privileges.roles.clone())
    }

    /// Returns how wide the token is at this moment, over its whole chain.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn privileges(&self) -> Result<Arc<Privileges>, SessionEnded> {
        self.handle.snapshot().map(|snapshot| snapshot.privileges.clone())
    }

    /// Returns what may be reached, as a new request is judged: the store is asked whether anything has
    /// changed, by whichever process. May block.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn revalidate(&self) -> Result<Arc<TreeAccess>, SessionEnded> {
        let SessionHandle { core, cached_token, .. } = &*self.handle;
        let revalidated =
            core.store.epoch().and_then(|epoch| cached_token.revalidate(epoch, &core.store, &core.last_used));
        if let Err(error) = revalidated {
            tracing::error!(token = %cached_token.token, %error, "a session ends: the store can't tell whether its token lives");
            return Err(SessionEnded);
        }
        self.access()
    }

    /// Returns the token's own limits at this moment. Costs no I/O.
    pub fn limits(&self) -> Arc<TokenLimits> {
        self.handle.cached_token.snapshot().limits.clone()
    }

    /// Returns what uploads must fit, by the token and all above it, as of the last [`Session::access`].
    pub fn upload_rule(&self) -> Arc<UploadRule> {
        self.handle.cached_token.snapshot().upload_rule.clone()
    }

    /// Returns the instant at which the session ends unless it is used before.
    pub fn deadline(&self) -> UnixMillis {
        self.handle.cached_token.snapshot().session_deadline(&self.handle.secret_digest)
    }

    /// Notes a use: an accepted request or a block transferred. Moves a sliding window; the first of an hour is
    /// counted.
    pub fn record_use(&self) {
        let SessionHandle { core, cached_token, peer, secret_digest, .. } = &*self.handle;
        let (snapshot, now) = (cached_token.snapshot(), core.clock.now());
        if !cached_token.is_invalidated() && now < snapshot.session_deadline(secret_digest) {
            snapshot.record_use(now, peer);
            self.handle.count_use(now);
        }
    }

    /// Tells the audit trail of an operation on the tree that was refused; those in one place are counted.
    pub fn record_denial(&self, reason: &str, path: Option<&TreePath>) {
        let SessionHandle { core, cached_token, peer, .. } = &*self.handle;
        let actor = Actor::Bearer { login: cached_token.login.clone(), token: cached_token.token };
        let event = AuditEvent::new(core.clock.now(), EventKind::AccessDenied)
            .with_user(&cached_token.login)
            .with_token(cached_token.token);
        let event = event.with_actor(actor).with_peer(peer).with_detail(reason);
        core.usage_counters.increment(event.at, peer.protocol, UsageKind::Refusal);
        let event = match path {
            Some(path) => event.with_path(&path.prefix(DENIED_PATH_MAX_DEPTH)),
            None => event,
        };
        core.audit_buffer.record(EventOrigin::Authenticated, event);
    }

    /// Waits for a turn of work that keeps a processor busy for long; it ends when what is returned is dropped.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub async fn acquire_work_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.heavy.acquire(self.login()).await
    }

    /// Waits for a turn of a call of the store, which waits for none of the user's longer work.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub async fn light_turn(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.light.acquire(self.login()).await
    }

    /// Waits for another such turn of work that has begun.
    ///
    /// # Errors
    /// [`TooMuchWork`] where all users together have too much waiting.
    pub async fn light_turn_again(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.light.acquire_followup(self.login()).await
    }

    /// Waits for a turn of ending what lets somebody in: tokens, grants, roles, users. It waits for no other work, and
    /// for no other token.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub async fn revoking_turn(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.revoking.acquire(&self.token()).await
    }

    /// Waits for another turn of work that has begun.
    ///
    /// # Errors
    /// [`TooMuchWork`] where all users together have too much waiting.
    pub async fn acquire_followup_permit(&self) -> Result<WorkPermit, TooMuchWork> {
        self.handle.core.work_permits.heavy.acquire_followup(self.login()).await
    }

    /// Waits until the token lets nobody in any more who shows this secret here. Unlike [`Session::closed`] it keeps no
    /// session open.
    pub fn credential_invalidated(&self) -> impl Future<Output = ()> + Send + 'static {
        let SessionHandle { core, cached_token, peer, secret_digest, .. } = &*self.handle;
        let (core, cached_token, peer, secret_digest) =
            (Arc::clone(core), Arc::clone(cached_token), Arc::clone(peer), *secret_digest);
        async move {
            loop {
                let changed = cached_token.changed();
                let Some(snapshot) = valid_snapshot(&core, &cached_token, &peer, &secret_digest) else { return };
                tokio::select! {
                    () = changed => {}
                    () = core.clock.sleep_until(snapshot.session_deadline(&secret_digest)) => {}
                }
            }
        }
    }

    /// Waits until the session has ended.
    pub async fn closed(&self) {
        loop {
            let changed = self.handle.cached_token.changed();
            let Ok(snapshot) = self.handle.snapshot() else { return self.handle.record_closed() };
            tokio::select! {
                () = changed => {}
                () = self.handle.core.clock.sleep_until(snapshot.session_deadline(&self.handle.secret_digest)) => {}
            }
        }
    }
}

impl SessionHandle {
    /// Returns what holds at this moment.
    fn snapshot(&self) -> Result<Arc<TokenSnapshot>, SessionEnded> {
        if self.evicted.load(Ordering::Acquire) {
            return Err(SessionEnded);
        }
        valid_snapshot(&self.core, &self.cached_token, &self.peer, &self.secret_digest).ok_or(SessionEnded)
    }
}

/// Returns what holds at this moment for a caller who has shown a secret; none once the token lets him in no more.
fn valid_snapshot(
    core: &AuthCore,
    cached_token: &CachedToken,
    peer: &Peer,
    secret_digest: &PhcDigest,
) -> Option<Arc<TokenSnapshot>> {
    if cached_token.is_invalidated() {
        return None;
    }
    let now = core.clock.now();
    let live = cached_token
        .refresh(&core.store, &core.last_used)
        .and_then(|()| cached_token.check_live(&core.clock, &core.store, &core.last_used));
    if let Err(error) = &live {
        tracing::error!(token = %cached_token.token, %error, "a session ends: the store can't tell whether its token lives");
    }
    let snapshot = cached_token.snapshot();
    let is_valid = live.unwrap_or(false) && snapshot.accepts_secret(secret_digest, now) && snapshot.allows_peer(peer);
    is_valid.then_some(snapshot)
}

impl SessionHandle {
    /// Counts the session as one in use, once an hour.
    fn count_use(&self, now: UnixMillis) {
        let hour = now.start_of_hour().as_millis();
        let is_counted = self.counted_hour_ms.load(Ordering::Relaxed) == hour;
        if !is_counted && self.counted_hour_ms.swap(hour, Ordering::Relaxed) != hour {
            self.core.usage_counters.increment(now, self.peer.protocol, UsageKind::Use);
        }
    }

    /// Notes that the session was ended, and why.
    fn record_closed(&self) {
        let Self { core, cached_token, peer, secret_digest, .. } = self;
        let (snapshot, now) = (cached_token.snapshot(), core.clock.now());
        let reason = if snapshot.deadline() <= now {
            "the token, or one above it, has expired"
        } else if snapshot.is_revoked_or_disabled() {
            "the token, or one above it, was revoked, or the user disabled"
        } else if !snapshot.accepts_secret(secret_digest, now) {
            "the secret was replaced by a rotation"
        } else if !snapshot.allows_peer(peer) {
            "the token's limits don't admit protocol, address or program any more"
        } else {
            "the token is gone, or the store can't tell whether it lives"
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
