//! Authentication: turns a credential into a [`Session`] and revalidates open sessions. No other module creates one.
//!
//! Every request is checked against the token's row as the store has it at that moment: read again, or known to be
//! unchanged by the published epoch, which is written before any change commits. The only fact that memory holds on its
//! own is that this secret matched this hash. So revoking, expiring, narrowing or disabling, from any process, holds
//! from the next request, and open sessions end or narrow within a second.

mod attempt;
mod audit_buffer;
mod auth_statistics;
mod authentication_counters;
mod clock;
mod clock_jumps;
mod defender;
mod hashing_pool;
mod key_login;
mod last_used;
mod pepper;
mod random;
mod rejection_reason;
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

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::domain::{
    Actor, AuditEvent, EventKind, Login, Peer, Secret, TokenId, TokenText, UnixMillis, UsageCount, UsageKind,
};
use crate::store::{SecretHash, Store, StoreError, TokenState};
use parking_lot::Mutex;

use attempt::AuthAttempt;
use audit_buffer::{AuditBuffer, EventOrigin};
use authentication_counters::{AuthOutcome, AuthenticationCounters};
use defender::Defender;
use hashing_pool::HashingPool;
use last_used::LastUsedTable;
use rejection_reason::RejectionReason;
use throttle::LoginThrottle;
use token_state::{CachedCredentials, CachedToken, DigestedProof, SessionProof, TokenCache};
use usage_counters::UsageCounters;
use verified_secrets::{PhcDigest, VerifiedSecrets};
use work_permits::WorkPermitPools;
use worker_pool::WorkerPool;

pub use auth_statistics::AuthStatistics;
pub use clock::Clock;
pub use defender::{AddressRefusal, DefenderSettings};
pub use random::{fill_random, generate_secret, generate_token, generate_token_id};
pub use secret_hash::SecretHasher;
pub use session::{CredentialId, CurrentAccess, Session, SessionEnded};
pub use usage_flush_socket::request_usage_flush;
pub use work_permits::{TooMuchWork, WorkPermit};

/// Credential of a request: a login where the protocol carries one, and the token as it was sent.
#[derive(Clone)]
pub struct Credential {
    /// The user name of Basic or SSH; `None` for Bearer.
    pub login: Option<String>,
    /// Text of the token, unparsed.
    pub token: zeroize::Zeroizing<Vec<u8>>,
}

/// Reason why authentication failed, in the detail that a client may see.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credential is wrong, unknown, expired, revoked, disabled, or excluded by the token's limits: one answer for
    /// all.
    #[error("the user name or token is wrong")]
    Denied,
    /// Too many guesses came from this address; holds the time after which the next one is checked.
    #[error("too many failed attempts: try again in {} s", .0.as_secs().max(1))]
    Throttled(Duration),
    /// The queue for argon2 is full, for this user or in total. Affects first uses of secrets, and new secrets.
    #[error("the server is busy: try again")]
    Busy,
    /// The user has as many open connections as the limit allows.
    #[error("too many connections of this user are open: close one, or try again later")]
    TooManyConnections,
    /// The store failed. The source is for the log and never reaches a client.
    #[error("internal server error")]
    Store(#[from] StoreError),
}

/// Authenticates callers. Clones share all state.
#[derive(Clone)]
pub struct Authenticator {
    core: Arc<AuthCore>,
}

/// Open session, as listed for users and administrators.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// Number that is unique among the sessions of this process.
    pub number: u64,
    /// Token that opened the session.
    pub token: TokenId,
    /// User that owns the token.
    pub login: Login,
    /// Protocol, address and program of the client.
    pub peer: Peer,
    /// Instant at which the session was opened.
    pub opened_at: UnixMillis,
}

/// State that an authenticator and its sessions share.
struct AuthCore {
    store: Store,
    clock: Clock,
    hasher: SecretHasher,
    /// Runs argon2, to verify secrets and to hash new ones.
    hashing_pool: Arc<HashingPool>,
    verified_secrets: Arc<VerifiedSecrets>,
    secret_hash_runs: AtomicU64,
    throttle: LoginThrottle,
    defender: Defender,
    token_cache: TokenCache,
    last_used: LastUsedTable,
    /// Held while uses are written to the store, so that a reader waits for those that another thread has taken.
    flush_lock: Mutex<()>,
    /// Instant of the last warning about a failed write.
    warned_at: Mutex<Option<Instant>>,
    audit_buffer: AuditBuffer,
    usage_counters: UsageCounters,
    authentication_counters: AuthenticationCounters,
    /// Permits for work on blocking threads.
    work_permits: WorkPermitPools,
    session_numbers: AtomicU64,
    watcher_pool: WorkerPool,
}

/// Rejected credential, with the token that it names and that token's owner where they exist.
struct RejectedCredential {
    reason: RejectionReason,
    token: Option<TokenId>,
    login: Option<Login>,
}

/// Outcome of an attempt that opens no session.
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

impl Authenticator {
    /// Creates an authenticator for a store. Reads the pepper, and creates it for a new store.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist or can't be read, or when no thread can be
    /// started.
    pub fn new(store: Store, clock: Clock) -> Result<Self, StoreError> {
        let hashing_pool = Arc::new(HashingPool::new()?);
        let core = AuthCore {
            // A missing or foreign pepper fails the start: every stored prefilter would reject its own secret.
            hasher: SecretHasher::open(&store)?,
            verified_secrets: Arc::new(VerifiedSecrets::new(clock.clone(), hashing_pool.clone())?),
            hashing_pool,
            secret_hash_runs: AtomicU64::new(0),
            store,
            clock,
            throttle: LoginThrottle::default(),
            defender: Defender::default(),
            token_cache: TokenCache::default(),
            last_used: LastUsedTable::default(),
            flush_lock: Mutex::default(),
            warned_at: Mutex::default(),
            audit_buffer: AuditBuffer::default(),
            usage_counters: UsageCounters::default(),
            authentication_counters: AuthenticationCounters::default(),
            work_permits: WorkPermitPools::default(),
            session_numbers: AtomicU64::new(0),
            // A thread of its own: sessions have to end within a second also while all blocking threads are busy.
            watcher_pool: WorkerPool::new("patgate-watch", 1)?,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Authenticates a caller. A valid token is accepted whatever others send from its address: only guesses are
    /// throttled, and checksum, id and prefilter tell them apart before argon2 runs.
    ///
    /// # Errors
    /// [`AuthError`]; [`AuthError::Denied`] for every wrong credential alike.
    pub async fn authenticate(&self, credential: Credential, peer: Peer) -> Result<Session, AuthError> {
        let verified = self.core.verify_credential(&credential, &peer).await;
        self.conclude(verified, peer)
    }

    /// Opens the session of a caller that has shown a proof, or counts and records the failure.
    fn conclude(
        &self,
        verified: Result<(Arc<CachedToken>, impl Into<SessionProof>), AuthFailure>,
        peer: Peer,
    ) -> Result<Session, AuthError> {
        let (address, protocol) = (peer.address, peer.protocol);
        let counters = &self.core.authentication_counters;
        match verified {
            Ok((cached_token, proof)) => {
                counters.count(protocol, AuthOutcome::ACCEPTED);
                Ok(Session::open(self.core.clone(), cached_token, peer, proof.into()))
            }
            Err(AuthFailure::Error(error)) => {
                counters.count(protocol, AuthOutcome::failed(&error));
                // Logged here, because the audit trail has no event for it: no credential was rejected.
                if matches!(error, AuthError::Busy) {
                    tracing::warn!(%address, %protocol, "a login was not verified: the queue for argon2 is full");
                }
                Err(error)
            }
            Err(AuthFailure::Rejected(rejected)) => {
                let error = self.core.reject(&rejected, &peer);
                counters.count(protocol, AuthOutcome::rejected(rejected.reason, &error));
                Err(error)
            }
        }
    }

    /// Returns why nothing is accepted from an address; `None` where it is neither denied nor banned. To be asked before a
    /// credential is read.
    pub fn address_refusal(&self, address: IpAddr) -> Option<AddressRefusal> {
        let AuthCore { defender, clock, store, .. } = &*self.core;
        defender.refusal(address, clock.now(), clock.boottime(), store)
    }

    /// Replaces the settings of the defender.
    pub fn set_defender_settings(&self, settings: DefenderSettings) {
        self.core.defender.set_settings(settings);
        self.core.close_refused_sessions();
    }

    /// Returns the id of the valid token with this text. Opens no session, and ignores the token's limits.
    ///
    /// # Errors
    /// [`AuthError::Busy`], [`AuthError::Store`].
    pub async fn identify_token(&self, text: &[u8]) -> Result<Option<TokenId>, AuthError> {
        let Ok(token_text) = TokenText::parse(text) else { return Ok(None) };
        // Neither login nor peer: introspection and revocation (RFC 7662, RFC 7009) may be requested from elsewhere
        // than where the token is used.
        match self.core.verify_attempt(self.core.new_attempt(&token_text, None, None)).await {
            Ok((cached_token, _)) => Ok(Some(cached_token.token)),
            Err(AuthFailure::Rejected(_)) => Ok(None),
            Err(AuthFailure::Error(error)) => Err(error),
        }
    }

    /// Watches the store for changes that end or narrow open sessions, and writes uses to it, until `stop` is
    /// cancelled; then writes all that memory holds.
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

    /// Returns the hasher for the secrets of new tokens.
    pub fn secret_hasher(&self) -> &SecretHasher {
        &self.core.hasher
    }

    /// Hashes a secret as [`SecretHasher::hash`] does, in the user's share of the queue. The job of a caller that has
    /// gone is not run.
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

    /// Returns how many times argon2 has run in [`Authenticator::hash_secret`].
    pub fn secret_hash_runs(&self) -> u64 {
        self.core.secret_hash_runs.load(Ordering::Relaxed)
    }

    /// Returns the open sessions.
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

    /// Writes the uses that memory holds, so that readers of the store see the expiration in force. Returns whether
    /// that succeeded.
    pub fn flush_uses(&self) -> bool {
        self.core.flush_uses()
    }

    /// Returns the counts of uses and refusals that are not in the store yet; they are written once a minute.
    pub fn unflushed_counts(&self) -> Vec<UsageCount> {
        self.core.usage_counters.unflushed()
    }

    /// Closes one open session although its token is valid; returns whether it existed.
    pub fn close_session(&self, token: TokenId, number: u64) -> bool {
        self.core
            .token_cache
            .with_open_sessions()
            .iter()
            .any(|cached_token| cached_token.token == token && cached_token.evict(number))
    }

    /// Returns how many times argon2 has run to verify a secret: once for each first use.
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

    /// Records a rejected attempt, and returns the error for its caller: after too many guesses, one that says to wait.
    fn reject(&self, rejected: &RejectedCredential, peer: &Peer) -> AuthError {
        let now = self.clock.boottime();
        if rejected.reason.is_guess() {
            self.count_for_ban(peer);
        }
        // After the credential was checked: otherwise one guesser would lock out valid tokens from its address.
        match self.throttle.retry_after(peer.address, now).filter(|_| rejected.reason.is_guess()) {
            Some(wait) => {
                // Without token and login, so that all throttled guesses of an address are one audit row.
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

    /// Counts a guess, and records the ban that it leads to.
    fn count_for_ban(&self, peer: &Peer) {
        let Some(ban) = self.defender.record_failure(peer.address, self.clock.now(), self.clock.boottime()) else {
            return;
        };
        // A token that was used from there a moment ago, of which the store doesn't know yet.
        let network = ban.network.first_address();
        if self.last_used.new_addresses().iter().any(|seen| seen.network == network) {
            self.defender.remember_address(network, true, self.clock.boottime());
        }
        tracing::warn!(network = %ban.network, protocol = %peer.protocol, "banned: {}", ban.reason);
        let event = AuditEvent::new(self.clock.now(), EventKind::BanAdded).with_actor(Actor::Server).with_peer(peer);
        let event = event.with_detail(ban.describe());
        self.audit_buffer.record(EventOrigin::Unauthenticated, event);
    }

    /// Closes the sessions from addresses that an administrator has banned or denied.
    fn close_refused_sessions(&self) {
        let now = self.clock.now();
        for cached_token in self.token_cache.with_open_sessions() {
            for (number, session) in cached_token.sessions() {
                if self.defender.is_refused_by_administrator(session.peer.address, now) {
                    cached_token.evict(number);
                }
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
        AuthAttempt::new(text, login, peer, fingerprint, verified_digest, &self.hasher)
    }

    /// Verifies the secret of an attempt, and that its token is valid for the login and peer.
    async fn verify_attempt(&self, mut attempt: AuthAttempt<'_>) -> Result<(Arc<CachedToken>, PhcDigest), AuthFailure> {
        if attempt.verified_digest.is_none() {
            // Before the row is read, so that an unknown id costs as much time as a known one.
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
                .verify(&cached_token.login, fingerprint, text.secret(), hash.proof.as_str())
                .await
            {
                // The token may have been revoked or rotated while argon2 ran: the next round checks everything again.
                Ok(true) => attempt.verified_digest = Some(hash.digest),
                // The 64 bits of the prefilter agreed by chance, or the row is damaged.
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

    /// Returns the token that an attempt names, and the hash that its secret matches or has to be verified against,
    /// when everything else is valid.
    fn find_candidate(&self, attempt: &AuthAttempt<'_>) -> Result<(Arc<CachedToken>, Arc<DigestedProof>), AuthFailure> {
        let (token, now, boottime_ms) = (attempt.text.id(), self.clock.now(), self.clock.boottime_ms());
        // The fast path reads the published epoch and no row, and answers as a read of the database would.
        let cached_token = match self.token_cache.get_current(token, boottime_ms, &self.store) {
            Some(cached_token) => cached_token,
            None => {
                let row = self.store.credential_row(token)?.ok_or(RejectionReason::Unknown)?;
                let (epoch, credentials) = (row.epoch, CachedCredentials::from(row));
                // Rejected by this one row: a guess must not cost the reads of a chain with scopes and grants.
                self.match_credentials(&credentials, attempt, now)?;
                match self.token_cache.get_at_epoch(token, epoch, boottime_ms, &self.store, &self.last_used)? {
                    Some(cached_token) => cached_token,
                    // A token above it is revoked, or its row was deleted since.
                    None => return Err(rejected_for_token(self.inactive_reason(token)?, token, credentials.login)),
                }
            }
        };
        // Against the snapshot, too: a rotation may have come between the read of the row and that of the chain.
        let hash = self.match_credentials(&cached_token.snapshot().credentials, attempt, now)?;
        self.check_token(&cached_token, attempt.peer, now)?;
        Ok((cached_token, hash))
    }

    /// Checks that a token whose proof was shown is live, and may be used by a peer.
    fn check_token(&self, cached_token: &CachedToken, peer: Option<&Peer>, now: UnixMillis) -> Result<(), AuthFailure> {
        let token = cached_token.token;
        // By the clock at every request: a token that expires moves no epoch.
        if !cached_token.check_live(now, &self.clock, &self.store, &self.last_used)? {
            return Err(rejected_for_token(self.inactive_reason(token)?, token, cached_token.login.clone()));
        }
        // Last: a rejection by limits tells the audit trail that somebody has the right secret, perhaps stolen.
        if peer.is_some_and(|peer| !cached_token.snapshot().allows_peer(peer)) {
            return Err(rejected_for_token(RejectionReason::DeniedByLimits, token, cached_token.login.clone()));
        }
        Ok(())
    }

    /// Returns the hash in a token's row that the secret may match, when the row accepts the attempt.
    fn match_credentials(
        &self,
        credentials: &CachedCredentials,
        attempt: &AuthAttempt<'_>,
        now: UnixMillis,
    ) -> Result<Arc<DigestedProof>, AuthFailure> {
        let token = attempt.text.id();
        // The secret comes first: a wrong user name with a right secret is not a guess.
        let Some(hash) = credentials.accepted_proofs(now).find(|hash| attempt.may_match(hash)) else {
            // Only for a wrong secret: a successful login costs no look-up of the secrets that rotations have replaced.
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

    /// Finds out why a token is not valid any more.
    fn inactive_reason(&self, token: TokenId) -> Result<RejectionReason, StoreError> {
        // Read for the audit trail alone: the client gets the same answer for every reason.
        let record = self.store.token(token, self.clock.now())?;
        Ok(match record.map(|record| record.state) {
            None | Some(TokenState::Revoked) => RejectionReason::Revoked,
            Some(TokenState::Expired) => RejectionReason::Expired,
            // The token and those above it are valid, so that its owner must be disabled.
            Some(TokenState::Live) => RejectionReason::Disabled,
        })
    }

    /// Records a rejected attempt in the log, the counts and the audit trail.
    fn record_rejection(&self, rejected: &RejectedCredential, peer: &Peer) {
        let RejectedCredential { reason, token, login } = rejected;
        tracing::debug!(address = %peer.address, protocol = %peer.protocol, ?reason, "a credential was rejected");
        let event =
            AuditEvent::new(self.clock.now(), reason.event_kind()).with_peer(peer).with_detail(reason.describe());
        let event = AuditEvent { token: *token, user: login.clone(), ..event };
        self.usage_counters.increment(event.at, peer.protocol, UsageKind::Refusal);
        // Only its bearer knows a secret that was valid once, so such an event is charged to the user. Guesses can't
        // use up the user's rows.
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
