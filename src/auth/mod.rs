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
use work_permits::WorkTurns;
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
    work_permits: WorkTurns,
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
    fn from(refusal: AuthError) -> Self {
        AuthFailure::Error(refusal)
    }
}

impl From<StoreError> for AuthFailure {
    fn from(error: StoreError) -> Self {
        AuthFailure::Error(error.into())
    }
}

impl From<RejectionReason> for AuthFailure {
    fn from(fault: RejectionReason) -> Self {
        AuthFailure::Rejected(RejectedCredential { reason: fault, token: None, login: None })
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
    fn may_match(&self, seal: &DigestedSecretHash) -> bool {
        self.verified_digest == Some(seal.digest) || seal.secret_hash.prefilter.ct_eq(self.prefilter()).into()
    }
}

impl Authenticator {
    /// Makes an authenticator over a store; reads (and for a new store makes) the pepper.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read.
    pub fn new(store: Store, clock: Clock) -> Result<Self, StoreError> {
        let hashing = Arc::new(HashingPool::new()?);
        let core = AuthCore {
            hasher: SecretHasher::open(&store)?,
            verified_secrets: Arc::new(VerifiedSecrets::new(clock.clone(), hashing.clone())?),
            hashing_pool: hashing,
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
            work_permits: WorkTurns::default(),
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
            Ok((life, print)) => Ok(Session::open(self.core.clone(), life, peer, print)),
            Err(AuthFailure::Error(refusal)) => {
                if matches!(refusal, AuthError::Busy) {
                    tracing::warn!(%address, %protocol, "a login was not checked: as many as may wait for argon2 do");
                }
                Err(refusal)
            }
            Err(AuthFailure::Rejected(shown)) => Err(self.core.reject(&shown, &peer)),
        }
    }

    /// Tells which live token a text is; nobody is let in by it, and its limits are not asked.
    ///
    /// # Errors
    /// [`AuthError::Busy`], [`AuthError::Store`].
    pub async fn identify_token(&self, text: &[u8]) -> Result<Option<TokenId>, AuthError> {
        let Ok(shown) = TokenText::parse(text) else { return Ok(None) };
        match self.core.verify_attempt(self.core.new_attempt(&shown, None, None)).await {
            Ok((life, _)) => Ok(Some(life.token)),
            Err(AuthFailure::Rejected(_)) => Ok(None),
            Err(AuthFailure::Error(refusal)) => Err(refusal),
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
        let seal = move |memory: &mut secret_hash::Argon2Memory| {
            core.secret_hash_runs.fetch_add(1, Ordering::Relaxed);
            core.hasher.hash_with(&secret, memory)
        };
        Ok(self.core.hashing_pool.run(user, seal).await.map_err(|hashing_pool::HashingBusy| AuthError::Busy)??)
    }

    /// Returns how often argon2 has run for a new secret in [`Authenticator::hash_secret`].
    pub fn secret_hash_runs(&self) -> u64 {
        self.core.secret_hash_runs.load(Ordering::Relaxed)
    }

    /// Returns the sessions that are open.
    pub fn sessions(&self) -> Vec<OpenSession> {
        let opened = |life: &Arc<CachedToken>| {
            let (token, login) = (life.token, life.login.clone());
            let seats = life.sessions().into_iter();
            seats.map(move |(number, place)| {
                let (peer, since) = ((*place.peer).clone(), place.opened_at);
                OpenSession { number, token, login: login.clone(), peer, opened_at: since }
            })
        };
        self.core.token_cache.with_open_sessions().iter().flat_map(opened).collect()
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
        self.core.token_cache.with_open_sessions().iter().any(|life| life.token == token && life.evict(number))
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
    fn reject(&self, shown: &RejectedCredential, peer: &Peer) -> AuthError {
        let now = self.clock.now();
        match self.throttle.retry_after(peer.address, now).filter(|_| shown.reason.is_guess()) {
            Some(wait) => {
                self.record_rejection(
                    &RejectedCredential { reason: RejectionReason::Throttled, token: None, login: None },
                    peer,
                );
                AuthError::Throttled(wait)
            }
            None => {
                if shown.reason.is_guess() {
                    self.throttle.record_failure(peer.address, now);
                }
                self.record_rejection(shown, peer);
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
        let claim = self.verified_secrets.fingerprint(text.id(), text.secret());
        let proven = self.verified_secrets.verified_digest(&claim);
        AuthAttempt {
            text,
            login,
            peer,
            fingerprint: claim,
            verified_digest: proven,
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
        let (claim, text) = (attempt.fingerprint, attempt.text);
        loop {
            let (life, seal) = self.find_candidate(&attempt)?;
            if attempt.verified_digest == Some(seal.digest) {
                return Ok((life, seal.digest));
            }
            match self.verified_secrets.verify(&life.login, claim, text.secret(), &seal.secret_hash.phc).await {
                // Proving took its time: everything is read again.
                Ok(true) => attempt.verified_digest = Some(seal.digest),
                Ok(false) => {
                    return Err(rejected_for_token(RejectionReason::WrongSecret, text.id(), life.login.clone()));
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
        let life = match self.token_cache.get_current(token, now, &self.store) {
            Some(life) => life,
            None => {
                let caller = self.store.credential_row(token)?.ok_or(RejectionReason::Unknown)?;
                let (epoch, row) = (caller.epoch, CachedCredentials::from(caller));
                // Refused before all that the token may do is read.
                self.match_credentials(&row, attempt, now)?;
                match self.token_cache.get_at_epoch(token, epoch, now, &self.store, &self.last_used)? {
                    Some(life) => life,
                    None => return Err(rejected_for_token(self.inactive_reason(token)?, token, row.login)),
                }
            }
        };
        let seal = self.match_credentials(&life.snapshot().credentials, attempt, now)?;
        if !life.check_live(&self.clock, &self.store, &self.last_used)? {
            return Err(rejected_for_token(self.inactive_reason(token)?, token, life.login.clone()));
        }
        if attempt.peer.is_some_and(|peer| !life.snapshot().allows_peer(peer)) {
            return Err(rejected_for_token(RejectionReason::DeniedByLimits, token, life.login.clone()));
        }
        Ok((life, seal))
    }

    /// Returns the seal of a token's row that a secret fits, when the row lets the attempt pass.
    fn match_credentials(
        &self,
        row: &CachedCredentials,
        attempt: &AuthAttempt<'_>,
        now: UnixMillis,
    ) -> Result<Arc<DigestedSecretHash>, AuthFailure> {
        let token = attempt.text.id();
        // The secret comes first: a wrong name with a right secret is no guess.
        let Some(seal) = row.accepted_hashes(now).find(|seal| attempt.may_match(seal)) else {
            let retired = self.store.is_retired_secret(token, attempt.prefilter())?;
            let fault = if retired { RejectionReason::RetiredSecret } else { RejectionReason::WrongSecret };
            return Err(rejected_for_token(fault, token, row.login.clone()));
        };
        if attempt.login.is_some_and(|login| login != row.login.as_str()) {
            return Err(rejected_for_token(RejectionReason::WrongLogin, token, row.login.clone()));
        }
        if row.revoked_or_disabled {
            return Err(rejected_for_token(self.inactive_reason(token)?, token, row.login.clone()));
        }
        Ok(seal.clone())
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
    fn record_rejection(&self, shown: &RejectedCredential, peer: &Peer) {
        let RejectedCredential { reason: fault, token, login } = shown;
        tracing::debug!(address = %peer.address, protocol = %peer.protocol, ?fault, "a caller was refused");
        let event = AuditEvent::new(self.clock.now(), fault.event_kind()).with_peer(peer).with_detail(fault.describe());
        let event = AuditEvent { token: *token, user: login.clone(), ..event };
        self.usage_counters.increment(event.at, peer.protocol, UsageKind::Refusal);
        // Only its bearer can show a secret that was right once.
        let known = fault.event_kind() == EventKind::DeadSecretUsed;
        self.audit_buffer.record(if known { EventOrigin::Authenticated } else { EventOrigin::Unauthenticated }, event);
    }

    fn next_session_number(&self) -> u64 {
        self.session_numbers.fetch_add(1, Ordering::Relaxed)
    }
}

fn rejected_for_token(fault: RejectionReason, token: TokenId, login: Login) -> AuthFailure {
    AuthFailure::Rejected(RejectedCredential { reason: fault, token: Some(token), login: Some(login) })
}
