//! Who: turns a credential into a [`Session`], keeps sessions honest, and nothing else makes one.
//!
//! On every request the token's row is judged as the store has it at that moment: read again, or found
//! unchanged by the announced epoch, which no change outruns. What memory holds on its own is only the proof that
//! this secret matched this hash. So revoking, expiring, narrowing or disabling, from any process, bites on the
//! next request by construction, and open sessions are told within a second.

mod audit_buffer;
mod clock;
mod clock_jumps;
mod hashing_pool;
mod last_used;
mod pepper;
mod random;
mod secret_hash;
mod session;
mod store_watcher;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod token_state;
mod usage_counters;
mod usage_flush_socket;
mod verified_secrets;
mod work_permits;
mod worker_pool;

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::domain::{
    AuditEvent, EventKind, Login, Peer, Secret, TokenId, TokenText, UnixMillis, UsageCount, UsageKind,
};
use crate::store::{SecretHash, Store, StoreError, TokenState};

use audit_buffer::{AuditBuffer, EventOrigin};
use hashing_pool::HashingPool;
use last_used::LastUsedTable;
use throttle::LoginThrottle;
use token_state::{CachedCredentials, CachedToken, DigestedSecretHash, TokenCache};
use usage_counters::UsageCounters;
use verified_secrets::{PhcDigest, SecretFingerprint, VerifiedSecrets};
use work_permits::WorkPermitPools;
use worker_pool::WorkerPool;

pub use clock::Clock;
pub use random::{fill_random, generate_secret, generate_token, generate_token_id};
pub use secret_hash::SecretHasher;
pub use session::{CredentialId, Session, SessionEnded};
pub use usage_flush_socket::request_usage_flush;
pub use work_permits::{TooMuchWork, WorkPermit};

/// What a caller shows: a login where the protocol carries one, and the token as it was sent.
#[derive(Clone)]
pub struct Credential {
    /// The user name of Basic or SSH; `None` for Bearer.
    pub login: Option<String>,
    /// The token's text, unparsed.
    pub token: zeroize::Zeroizing<Vec<u8>>,
}

/// Why nobody was let in. What a client is told never says more than this.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Wrong, unknown, expired, revoked, disabled, or not allowed from here: one answer for all.
    #[error("the user name or token is wrong")]
    Denied,
    /// Too many guesses from this address.
    #[error("too many failed attempts: try again in {} s", .0.as_secs().max(1))]
    Throttled(Duration),
    /// As many runs of argon2 as may wait do so, of this user or of all: for first uses of secrets and for new ones.
    #[error("the server is busy: try again")]
    Busy,
    /// The user has as many connections open as one may have.
    #[error("too many connections of this user are open: close one, or try again later")]
    TooManyConnections,
    /// The store failed; the text is for the log.
    #[error("the server has a fault")]
    Store(#[from] StoreError),
}

/// Proves callers; clones share all state.
#[derive(Clone)]
pub struct Authenticator {
    core: Arc<AuthCore>,
}

/// A session that is open.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// What tells it apart from the other sessions of this process.
    pub number: u64,
    /// Its token.
    pub token: TokenId,
    /// Its user.
    pub login: Login,
    /// Who is at the door.
    pub peer: Peer,
    /// Since when.
    pub opened_at: UnixMillis,
}

/// What an authenticator and its sessions share.
struct AuthCore {
    store: Store,
    clock: Clock,
    hasher: SecretHasher,
    /// Runs argon2, for proofs and for new secrets.
    hashing_pool: Arc<HashingPool>,
    verified_secrets: Arc<VerifiedSecrets>,
    secret_hash_runs: AtomicU64,
    throttle: LoginThrottle,
    token_cache: TokenCache,
    last_used: LastUsedTable,
    /// Held while uses are written down: a reader waits for those that somebody else has taken to write.
    flush_lock: Mutex<()>,
    /// When it was last logged that something could not be written down.
    warned_at: Mutex<Option<Instant>>,
    audit_buffer: AuditBuffer,
    usage_counters: UsageCounters,
    /// Turns of work that takes long.
    work_permits: WorkPermitPools,
    session_numbers: AtomicU64,
    watcher_pool: WorkerPool,
}

/// Why a credential was refused: for the log and the audit trail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectionReason {
    Malformed,
    Unknown,
    WrongSecret,
    RetiredSecret,
    WrongLogin,
    Revoked,
    Expired,
    Disabled,
    DeniedByLimits,
    Throttled,
}

impl RejectionReason {
    /// Says why in a few words.
    fn describe(self) -> &'static str {
        match self {
            RejectionReason::Malformed => "what was shown is no token",
            RejectionReason::Unknown => "there is no such token",
            RejectionReason::WrongSecret => "the secret is wrong",
            RejectionReason::RetiredSecret => "the secret was replaced by a rotation",
            RejectionReason::WrongLogin => "the token is not that user's",
            RejectionReason::Revoked => "the token, or one above it, was revoked",
            RejectionReason::Expired => "the token, or one above it, has expired",
            RejectionReason::Disabled => "the user is disabled",
            RejectionReason::DeniedByLimits => "the token's limits don't admit protocol, address or program",
            RejectionReason::Throttled => "too many guesses from this address",
        }
    }

    /// Tells whether whoever is refused may be guessing. Whoever shows a secret that is or was right is not, whatever
    /// else is wrong: a name, an expired or revoked token, limits.
    fn is_guess(self) -> bool {
        match self {
            RejectionReason::Malformed | RejectionReason::Unknown | RejectionReason::WrongSecret => true,
            RejectionReason::RetiredSecret
            | RejectionReason::WrongLogin
            | RejectionReason::Revoked
            | RejectionReason::Expired
            | RejectionReason::Disabled
            | RejectionReason::DeniedByLimits
            | RejectionReason::Throttled => false,
        }
    }

    fn event_kind(self) -> EventKind {
        match self {
            RejectionReason::RetiredSecret | RejectionReason::Revoked | RejectionReason::Expired => {
                EventKind::DeadSecretUsed
            }
            _ => EventKind::AttemptRefused,
        }
    }
}

/// A credential that was refused, and the token and owner that it was shown for, where there are such.
struct RejectedCredential {
    reason: RejectionReason,
    token: Option<TokenId>,
    login: Option<Login>,
}

/// How an attempt ends that gives no session.
enum AuthFailure {
    Rejected(RejectedCredential),
    Error(AuthError),
}

impl From<AuthError> for AuthFailure {
    fn from(error: AuthError) -> Self {
        AuthFailure::Error(error)
    }
}

impl From<StoreError> for AuthFailure {
    fn from(error: StoreError) -> Self {
        AuthFailure::Error(error.into())
    }
}

impl From<RejectionReason> for AuthFailure {
    fn from(reason: RejectionReason) -> Self {
        AuthFailure::Rejected(RejectedCredential { reason, token: None, login: None })
    }
}

/// A token as it was shown, by whom where that is asked, and what is known of its secret.
struct AuthAttempt<'a> {
    text: &'a TokenText,
    login: Option<&'a str>,
    peer: Option<&'a Peer>,
    fingerprint: SecretFingerprint,
    /// The hash that it was proven of lately.
    verified_digest: Option<PhcDigest>,
    hasher: &'a SecretHasher,
    prefilter: OnceCell<[u8; 8]>,
}

impl AuthAttempt<'_> {
    fn prefilter(&self) -> &[u8; 8] {
        self.prefilter.get_or_init(|| self.hasher.prefilter(self.text.secret()))
    }

    /// Tells whether it may be the one that was sealed: it was proven to be, or the prefilter lets it pass.
    fn may_match(&self, hash: &DigestedSecretHash) -> bool {
        self.verified_digest == Some(hash.digest) || hash.secret_hash.prefilter.ct_eq(self.prefilter()).into()
    }
}

impl Authenticator {
    /// Makes an authenticator over a store; reads (and for a new store makes) the pepper.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read.
    pub fn new(store: Store, clock: Clock) -> Result<Self, StoreError> {
        let hashing_pool = Arc::new(HashingPool::new()?);
        let core = AuthCore {
            hasher: SecretHasher::open(&store)?,
            verified_secrets: Arc::new(VerifiedSecrets::new(clock.clone(), hashing_pool.clone())?),
            hashing_pool,
            secret_hash_runs: AtomicU64::new(0),
            store,
            clock,
            throttle: LoginThrottle::default(),
            token_cache: TokenCache::default(),
            last_used: LastUsedTable::default(),
            flush_lock: Mutex::default(),
            warned_at: Mutex::default(),
            audit_buffer: AuditBuffer::default(),
            usage_counters: UsageCounters::default(),
            work_permits: WorkPermitPools::default(),
            session_numbers: AtomicU64::new(0),
            watcher_pool: WorkerPool::new("patgate-watch", 1)?,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Proves a caller. A right token gets in whatever others do from its address: only guesses are throttled, and
    /// they are known by checksum, id and prefilter, before anything that costs.
    ///
    /// # Errors
    /// [`AuthError`], the same for every wrong credential.
    pub async fn authenticate(&self, credential: Credential, peer: Peer) -> Result<Session, AuthError> {
        let (address, protocol) = (peer.address, peer.protocol);
        match self.core.verify_credential(&credential, &peer).await {
            Ok((cached_token, digest)) => Ok(Session::open(self.core.clone(), cached_token, peer, digest)),
            Err(AuthFailure::Error(error)) => {
                if matches!(error, AuthError::Busy) {
                    tracing::warn!(%address, %protocol, "a login was not checked: as many as may wait for argon2 do");
                }
                Err(error)
            }
            Err(AuthFailure::Rejected(rejected)) => Err(self.core.reject(&rejected, &peer)),
        }
    }

    /// Tells which live token a text is; nobody is let in by it, and its limits are not asked.
    ///
    /// # Errors
    /// [`AuthError::Busy`], [`AuthError::Store`].
    pub async fn identify_token(&self, text: &[u8]) -> Result<Option<TokenId>, AuthError> {
        let Ok(token_text) = TokenText::parse(text) else { return Ok(None) };
        match self.core.verify_attempt(self.core.new_attempt(&token_text, None, None)).await {
            Ok((cached_token, _)) => Ok(Some(cached_token.token)),
            Err(AuthFailure::Rejected(_)) => Ok(None),
            Err(AuthFailure::Error(error)) => Err(error),
        }
    }

    /// Watches the store for what ends or narrows open sessions, and writes uses down, until told to
    /// stop; flushes then.
    pub async fn watch(&self, stop: tokio_util::sync::CancellationToken) {
        tokio::join!(usage_flush_socket::serve(self.core.clone(), stop.clone()), self.core.clone().watch(stop));
    }

    /// Returns the present instant of the clock that expiry is judged by.
    pub fn now(&self) -> UnixMillis {
        self.core.clock.now()
    }

    /// Returns the clock that expiry is judged by.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// Returns what seals the secrets of new tokens.
    pub fn secret_hasher(&self) -> &SecretHasher {
        &self.core.hasher
    }

    /// Seals a secret as [`SecretHasher::hash`] does, when the turn of the user who asks for it comes. Nothing is computed
    /// for a caller who does not wait for it.
    ///
    /// # Errors
    /// [`AuthError::Busy`], [`AuthError::Store`].
    pub async fn hash_secret(&self, user: &Login, secret: &Secret) -> Result<SecretHash, AuthError> {
        let (core, secret) = (self.core.clone(), secret.clone());
        let job = move |memory: &mut secret_hash::Argon2Memory| {
            core.secret_hash_runs.fetch_add(1, Ordering::Relaxed);
            core.hasher.hash_with(&secret, memory)
        };
        Ok(self.core.hashing_pool.run(user, job).await.map_err(|hashing_pool::HashingBusy| AuthError::Busy)??)
    }

    /// Returns how often argon2 has run for a new secret in [`Authenticator::hash_secret`].
    pub fn secret_hash_runs(&self) -> u64 {
        self.core.secret_hash_runs.load(Ordering::Relaxed)
    }

    /// Returns the sessions that are open.
    pub fn sessions(&self) -> Vec<OpenSession> {
        let sessions_of = |cached_token: &Arc<CachedToken>| {
            let (token, login) = (cached_token.token, cached_token.login.clone());
            let sessions = cached_token.sessions().into_iter();
            sessions.map(move |(number, session)| {
                let (peer, opened_at) = ((*session.peer).clone(), session.opened_at);
                OpenSession { number, token, login: login.clone(), peer, opened_at }
            })
        };
        self.core.token_cache.with_open_sessions().iter().flat_map(sessions_of).collect()
    }

    /// Writes down the uses that memory holds, so that whoever reads the store sees the expiration in force.
    /// Tells whether that was done.
    pub fn flush_uses(&self) -> bool {
        self.core.flush_uses()
    }

    /// Returns how often tokens were used and callers refused, where that is in memory alone: counts are written
    /// down once a minute.
    pub fn unflushed_counts(&self) -> Vec<UsageCount> {
        self.core.usage_counters.unflushed()
    }

    /// Ends one session that is open, though its token lives; tells whether there was such a one.
    pub fn close_session(&self, token: TokenId, number: u64) -> bool {
        self.core
            .token_cache
            .with_open_sessions()
            .iter()
            .any(|cached_token| cached_token.token == token && cached_token.evict(number))
    }

    /// Returns how often argon2 has run for a proof: once for each first use of a secret.
    pub fn verification_runs(&self) -> u64 {
        self.core.verified_secrets.argon2_runs()
    }
}

impl AuthCore {
    async fn verify_credential(
        &self,
        credential: &Credential,
        peer: &Peer,
    ) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        let text = TokenText::parse(&credential.token).map_err(|_| RejectionReason::Malformed)?;
        self.verify_attempt(self.new_attempt(&text, credential.login.as_deref(), Some(peer))).await
    }

    /// Notes a refused attempt, and returns what its caller is told: to wait, after too many guesses.
    fn reject(&self, rejected: &RejectedCredential, peer: &Peer) -> AuthError {
        let now = self.clock.now();
        match self.throttle.retry_after(peer.address, now).filter(|_| rejected.reason.is_guess()) {
            Some(wait) => {
                self.record_rejection(
                    &RejectedCredential { reason: RejectionReason::Throttled, token: None, login: None },
                    peer,
                );
                AuthError::Throttled(wait)
            }
            None => {
                if rejected.reason.is_guess() {
                    self.throttle.record_failure(peer.address, now);
                }
                self.record_rejection(rejected, peer);
                AuthError::Denied
            }
        }
    }

    fn new_attempt<'a>(
        &'a self,
        text: &'a TokenText,
        login: Option<&'a str>,
        peer: Option<&'a Peer>,
    ) -> AuthAttempt<'a> {
        let fingerprint = self.verified_secrets.fingerprint(text.id(), text.secret());
        let verified_digest = self.verified_secrets.verified_digest(&fingerprint);
        AuthAttempt {
            text,
            login,
            peer,
            fingerprint,
            verified_digest,
            hasher: &self.hasher,
            prefilter: OnceCell::new(),
        }
    }

    /// Proves that a token is what it says, and that all else holds that is asked.
    async fn verify_attempt(&self, mut attempt: AuthAttempt<'_>) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        if attempt.verified_digest.is_none() {
            // Before the row is read, so that an unknown id costs as much as a known one.
            attempt.prefilter();
        }
        let (fingerprint, text) = (attempt.fingerprint, attempt.text);
        loop {
            let (cached_token, hash) = self.find_candidate(&attempt)?;
            if attempt.verified_digest == Some(hash.digest) {
                return Ok((cached_token, hash.digest));
            }
            match self
                .verified_secrets
                .verify(&cached_token.login, fingerprint, text.secret(), &hash.secret_hash.phc)
                .await
            {
                // Proving took its time: everything is read again.
                Ok(true) => attempt.verified_digest = Some(hash.digest),
                Ok(false) => {
                    return Err(rejected_for_token(
                        RejectionReason::WrongSecret,
                        text.id(),
                        cached_token.login.clone(),
                    ));
                }
                Err(hashing_pool::HashingBusy) => return Err(AuthError::Busy.into()),
            }
        }
    }

    /// Returns the life that an attempt claims, and the seal that its secret fits or has to be proven of, when all
    /// else holds.
    fn find_candidate(
        &self,
        attempt: &AuthAttempt<'_>,
    ) -> Result<(Arc<CachedToken>, Arc<DigestedSecretHash>), AuthFailure> {
        let (token, now) = (attempt.text.id(), self.clock.now());
        let cached_token = match self.token_cache.get_current(token, now, &self.store) {
            Some(cached_token) => cached_token,
            None => {
                let row = self.store.credential_row(token)?.ok_or(RejectionReason::Unknown)?;
                let (epoch, credentials) = (row.epoch, CachedCredentials::from(row));
                // Refused before all that the token may do is read.
                self.match_credentials(&credentials, attempt, now)?;
                match self.token_cache.get_at_epoch(token, epoch, now, &self.store, &self.last_used)? {
                    Some(cached_token) => cached_token,
                    None => return Err(rejected_for_token(self.inactive_reason(token)?, token, credentials.login)),
                }
            }
        };
        let hash = self.match_credentials(&cached_token.snapshot().credentials, attempt, now)?;
        if !cached_token.check_live(&self.clock, &self.store, &self.last_used)? {
            return Err(rejected_for_token(self.inactive_reason(token)?, token, cached_token.login.clone()));
        }
        if attempt.peer.is_some_and(|peer| !cached_token.snapshot().allows_peer(peer)) {
            return Err(rejected_for_token(RejectionReason::DeniedByLimits, token, cached_token.login.clone()));
        }
        Ok((cached_token, hash))
    }

    /// Returns the seal of a token's row that a secret fits, when the row lets the attempt pass.
    fn match_credentials(
        &self,
        credentials: &CachedCredentials,
        attempt: &AuthAttempt<'_>,
        now: UnixMillis,
    ) -> Result<Arc<DigestedSecretHash>, AuthFailure> {
        let token = attempt.text.id();
        // The secret comes first: a wrong name with a right secret is no guess.
        let Some(hash) = credentials.accepted_hashes(now).find(|hash| attempt.may_match(hash)) else {
            let retired = self.store.is_retired_secret(token, attempt.prefilter())?;
            let reason = if retired { RejectionReason::RetiredSecret } else { RejectionReason::WrongSecret };
            return Err(rejected_for_token(reason, token, credentials.login.clone()));
        };
        if attempt.login.is_some_and(|login| login != credentials.login.as_str()) {
            return Err(rejected_for_token(RejectionReason::WrongLogin, token, credentials.login.clone()));
        }
        if credentials.revoked_or_disabled {
            return Err(rejected_for_token(self.inactive_reason(token)?, token, credentials.login.clone()));
        }
        Ok(hash.clone())
    }

    /// Finds out what a token died of.
    fn inactive_reason(&self, token: TokenId) -> Result<RejectionReason, StoreError> {
        let record = self.store.token(token, self.clock.now())?;
        Ok(match record.map(|record| record.state) {
            None | Some(TokenState::Revoked) => RejectionReason::Revoked,
            Some(TokenState::Expired) => RejectionReason::Expired,
            Some(TokenState::Live) => RejectionReason::Disabled,
        })
    }

    /// Notes a refused attempt.
    fn record_rejection(&self, rejected: &RejectedCredential, peer: &Peer) {
        let RejectedCredential { reason, token, login } = rejected;
        tracing::debug!(address = %peer.address, protocol = %peer.protocol, ?reason, "a caller was refused");
        let event =
            AuditEvent::new(self.clock.now(), reason.event_kind()).with_peer(peer).with_detail(reason.describe());
        let event = AuditEvent { token: *token, user: login.clone(), ..event };
        self.usage_counters.increment(event.at, peer.protocol, UsageKind::Refusal);
        // Only its bearer can show a secret that was right once.
        let is_former_secret = reason.event_kind() == EventKind::DeadSecretUsed;
        self.audit_buffer
            .record(if is_former_secret { EventOrigin::Authenticated } else { EventOrigin::Unauthenticated }, event);
    }

    fn next_session_number(&self) -> u64 {
        self.session_numbers.fetch_add(1, Ordering::Relaxed)
    }
}

fn rejected_for_token(reason: RejectionReason, token: TokenId, login: Login) -> AuthFailure {
    AuthFailure::Rejected(RejectedCredential { reason, token: Some(token), login: Some(login) })
}
