//! Who: turns a credential into a [`Session`], keeps sessions honest, and nothing else makes one.
//!
//! On every request the token's row is judged as the store has it at that moment: read again, or found
//! unchanged by the announced epoch, which no change outruns. What memory holds on its own is only the proof that
//! this secret matched this hash. So revoking, expiring, narrowing or disabling, from any process, bites on the
//! next request by construction, and open sessions are told within a second.

mod clock;
mod clock_jumps;
mod hashing;
mod life;
mod pepper;
mod pool;
mod proof;
mod seal;
mod session;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod trail;
mod turns;
mod uses;
mod uses_socket;
mod watch;

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

use hashing::HashingPool;
use life::{Life, Lives, Row, Seal};
use pool::Pool;
use proof::{Claim, Print, Proofs};
use tally::Tally;
use throttle::Throttle;
use trail::{Source, Trail};
use turns::WorkTurns;
use uses::Uses;

pub use clock::Clock;
pub use seal::{Sealer, mint, mint_id, mint_secret, random};
pub use session::{CredentialId, Ended, Session};
pub use turns::{TooMuchWork, Turn};
pub use uses_socket::write_uses_of_servers;

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
pub enum Refusal {
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
    core: Arc<Core>,
}

/// A session that is open.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What tells it apart from the other sessions of this process.
    pub number: u64,
    /// Its token.
    pub token: TokenId,
    /// Its user.
    pub login: Login,
    /// Who is at the door.
    pub peer: Peer,
    /// Since when.
    pub since: UnixMillis,
}

/// What an authenticator and its sessions share.
struct Core {
    store: Store,
    clock: Clock,
    sealer: Sealer,
    /// Runs argon2, for proofs and for new secrets.
    hashing: Arc<HashingPool>,
    proofs: Arc<Proofs>,
    seal_runs: AtomicU64,
    throttle: Throttle,
    lives: Lives,
    uses: Uses,
    /// Held while uses are written down: a reader waits for those that somebody else has taken to write.
    writing_uses: Mutex<()>,
    /// When it was last logged that something could not be written down.
    warned_at: Mutex<Option<Instant>>,
    trail: Trail,
    tally: Tally,
    /// Turns of work that takes long.
    turns: WorkTurns,
    numbers: AtomicU64,
    watcher: Pool,
}

/// Why a credential was refused: for the log and the audit trail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Malformed,
    Unknown,
    WrongSecret,
    RetiredSecret,
    WrongLogin,
    Revoked,
    Expired,
    Disabled,
    NotFromHere,
    Throttled,
}

impl Fault {
    /// Says why in a few words.
    fn why(self) -> &'static str {
        match self {
            Fault::Malformed => "what was shown is no token",
            Fault::Unknown => "there is no such token",
            Fault::WrongSecret => "the secret is wrong",
            Fault::RetiredSecret => "the secret was replaced by a rotation",
            Fault::WrongLogin => "the token is not that user's",
            Fault::Revoked => "the token, or one above it, was revoked",
            Fault::Expired => "the token, or one above it, has expired",
            Fault::Disabled => "the user is disabled",
            Fault::NotFromHere => "the token's limits don't admit protocol, address or program",
            Fault::Throttled => "too many guesses from this address",
        }
    }

    /// Tells whether whoever is refused may be guessing. Whoever shows a secret that is or was right is not, whatever
    /// else is wrong: a name, an expired or revoked token, limits.
    fn is_guess(self) -> bool {
        match self {
            Fault::Malformed | Fault::Unknown | Fault::WrongSecret => true,
            Fault::RetiredSecret
            | Fault::WrongLogin
            | Fault::Revoked
            | Fault::Expired
            | Fault::Disabled
            | Fault::NotFromHere
            | Fault::Throttled => false,
        }
    }

    fn kind(self) -> EventKind {
        match self {
            Fault::RetiredSecret | Fault::Revoked | Fault::Expired => EventKind::DeadSecretUsed,
            _ => EventKind::AttemptRefused,
        }
    }
}

/// A credential that was refused, and the token and owner that it was shown for, where there are such.
struct Shown {
    fault: Fault,
    token: Option<TokenId>,
    login: Option<Login>,
}

/// How an attempt ends that gives no session.
enum Miss {
    Fault(Shown),
    Other(Refusal),
}

impl From<Refusal> for Miss {
    fn from(refusal: Refusal) -> Self {
        Miss::Other(refusal)
    }
}

impl From<StoreError> for Miss {
    fn from(error: StoreError) -> Self {
        Miss::Other(error.into())
    }
}

impl From<Fault> for Miss {
    fn from(fault: Fault) -> Self {
        Miss::Fault(Shown { fault, token: None, login: None })
    }
}

/// A token as it was shown, by whom where that is asked, and what is known of its secret.
struct Attempt<'a> {
    text: &'a TokenText,
    login: Option<&'a str>,
    peer: Option<&'a Peer>,
    claim: Claim,
    /// The hash that it was proven of lately.
    proven: Option<Print>,
    sealer: &'a Sealer,
    prefilter: OnceCell<[u8; 8]>,
}

impl Attempt<'_> {
    fn prefilter(&self) -> &[u8; 8] {
        self.prefilter.get_or_init(|| self.sealer.prefilter(self.text.secret()))
    }

    /// Tells whether it may be the one that was sealed: it was proven to be, or the prefilter lets it pass.
    fn fits(&self, seal: &Seal) -> bool {
        self.proven == Some(seal.print) || seal.sealed.prefilter.ct_eq(self.prefilter()).into()
    }
}

impl Authenticator {
    /// Makes an authenticator over a store; reads (and for a new store makes) the pepper.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read.
    pub fn new(store: Store, clock: Clock) -> Result<Self, StoreError> {
        let hashing = Arc::new(HashingPool::new()?);
        let core = Core {
            sealer: Sealer::open(&store)?,
            proofs: Arc::new(Proofs::new(clock.clone(), hashing.clone())?),
            hashing,
            seal_runs: AtomicU64::new(0),
            store,
            clock,
            throttle: Throttle::default(),
            lives: Lives::default(),
            uses: Uses::default(),
            writing_uses: Mutex::default(),
            warned_at: Mutex::default(),
            trail: Trail::default(),
            tally: Tally::default(),
            turns: WorkTurns::default(),
            numbers: AtomicU64::new(0),
            watcher: Pool::new("patgate-watch", 1)?,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Proves a caller. A right token gets in whatever others do from its address: only guesses are throttled, and
    /// they are known by checksum, id and prefilter, before anything that costs.
    ///
    /// # Errors
    /// [`Refusal`], the same for every wrong credential.
    pub async fn authenticate(&self, credential: Credential, peer: Peer) -> Result<Session, Refusal> {
        let (address, protocol) = (peer.address, peer.protocol);
        match self.core.prove(&credential, &peer).await {
            Ok((life, print)) => Ok(Session::open(self.core.clone(), life, peer, print)),
            Err(Miss::Other(refusal)) => {
                if matches!(refusal, Refusal::Busy) {
                    tracing::warn!(%address, %protocol, "a login was not checked: as many as may wait for argon2 do");
                }
                Err(refusal)
            }
            Err(Miss::Fault(shown)) => Err(self.core.denied(&shown, &peer)),
        }
    }

    /// Tells which live token a text is; nobody is let in by it, and its limits are not asked.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Store`].
    pub async fn recognise(&self, text: &[u8]) -> Result<Option<TokenId>, Refusal> {
        let Ok(shown) = TokenText::parse(text) else { return Ok(None) };
        match self.core.proven(self.core.attempt(&shown, None, None)).await {
            Ok((life, _)) => Ok(Some(life.token)),
            Err(Miss::Fault(_)) => Ok(None),
            Err(Miss::Other(refusal)) => Err(refusal),
        }
    }

    /// Watches the store for what ends or narrows open sessions, and writes uses down, until told to
    /// stop; flushes then.
    pub async fn watch(&self, stop: tokio_util::sync::CancellationToken) {
        tokio::join!(uses_socket::serve(self.core.clone(), stop.clone()), self.core.clone().watch(stop));
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
    pub fn sealer(&self) -> &Sealer {
        &self.core.sealer
    }

    /// Seals a secret as [`Sealer::seal`] does, when the turn of the user who asks for it comes. Nothing is computed
    /// for a caller who does not wait for it.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Store`].
    pub async fn seal(&self, user: &Login, secret: &Secret) -> Result<SecretHash, Refusal> {
        let (core, secret) = (self.core.clone(), secret.clone());
        let seal = move |memory: &mut seal::Argon2Memory| {
            core.seal_runs.fetch_add(1, Ordering::Relaxed);
            core.sealer.seal_with(&secret, memory)
        };
        Ok(self.core.hashing.run(user, seal).await.map_err(|hashing::HashingBusy| Refusal::Busy)??)
    }

    /// Returns how often argon2 has run for a new secret in [`Authenticator::seal`].
    pub fn seal_runs(&self) -> u64 {
        self.core.seal_runs.load(Ordering::Relaxed)
    }

    /// Returns the sessions that are open.
    pub fn sessions(&self) -> Vec<Opened> {
        let opened = |life: &Arc<Life>| {
            let (token, login) = (life.token, life.login.clone());
            let seats = life.seats().into_iter();
            seats.map(move |(number, place)| {
                let (peer, since) = ((*place.peer).clone(), place.since);
                Opened { number, token, login: login.clone(), peer, since }
            })
        };
        self.core.lives.open().iter().flat_map(opened).collect()
    }

    /// Writes down the uses that memory holds, so that whoever reads the store sees the expiration in force.
    /// Tells whether that was done.
    pub fn write_uses(&self) -> bool {
        self.core.write_uses()
    }

    /// Returns how often tokens were used and callers refused, where that is in memory alone: counts are written
    /// down once a minute.
    pub fn unwritten_counts(&self) -> Vec<UsageCount> {
        self.core.tally.unwritten()
    }

    /// Ends one session that is open, though its token lives; tells whether there was such a one.
    pub fn end_session(&self, token: TokenId, number: u64) -> bool {
        self.core.lives.open().iter().any(|life| life.token == token && life.unseat(number))
    }

    /// Returns how often argon2 has run for a proof: once for each first use of a secret.
    pub fn proof_runs(&self) -> u64 {
        self.core.proofs.runs()
    }
}

impl Core {
    async fn prove(&self, credential: &Credential, peer: &Peer) -> Result<(Arc<Life>, Print), Miss> {
        let text = TokenText::parse(&credential.token).map_err(|_| Fault::Malformed)?;
        self.proven(self.attempt(&text, credential.login.as_deref(), Some(peer))).await
    }

    /// Notes a refused attempt, and returns what its caller is told: to wait, after too many guesses.
    fn denied(&self, shown: &Shown, peer: &Peer) -> Refusal {
        let now = self.clock.now();
        match self.throttle.wait(peer.address, now).filter(|_| shown.fault.is_guess()) {
            Some(wait) => {
                self.refused(&Shown { fault: Fault::Throttled, token: None, login: None }, peer);
                Refusal::Throttled(wait)
            }
            None => {
                if shown.fault.is_guess() {
                    self.throttle.fail(peer.address, now);
                }
                self.refused(shown, peer);
                Refusal::Denied
            }
        }
    }

    fn attempt<'a>(&'a self, text: &'a TokenText, login: Option<&'a str>, peer: Option<&'a Peer>) -> Attempt<'a> {
        let claim = self.proofs.claim(text.id(), text.secret());
        let proven = self.proofs.remembered(&claim);
        Attempt { text, login, peer, claim, proven, sealer: &self.sealer, prefilter: OnceCell::new() }
    }

    /// Proves that a token is what it says, and that all else holds that is asked.
    async fn proven(&self, mut attempt: Attempt<'_>) -> Result<(Arc<Life>, Print), Miss> {
        if attempt.proven.is_none() {
            // Before the row is read, so that an unknown id costs as much as a known one.
            attempt.prefilter();
        }
        let (claim, text) = (attempt.claim, attempt.text);
        loop {
            let (life, seal) = self.claimed(&attempt)?;
            if attempt.proven == Some(seal.print) {
                return Ok((life, seal.print));
            }
            match self.proofs.prove(&life.login, claim, text.secret(), &seal.sealed.phc).await {
                // Proving took its time: everything is read again.
                Ok(true) => attempt.proven = Some(seal.print),
                Ok(false) => return Err(missed(Fault::WrongSecret, text.id(), life.login.clone())),
                Err(hashing::HashingBusy) => return Err(Refusal::Busy.into()),
            }
        }
    }

    /// Returns the life that an attempt claims, and the seal that its secret fits or has to be proven of, when all
    /// else holds.
    fn claimed(&self, attempt: &Attempt<'_>) -> Result<(Arc<Life>, Arc<Seal>), Miss> {
        let (token, now) = (attempt.text.id(), self.clock.now());
        let life = match self.lives.current(token, now, &self.store) {
            Some(life) => life,
            None => {
                let caller = self.store.credential_row(token)?.ok_or(Fault::Unknown)?;
                let (epoch, row) = (caller.epoch, Row::from(caller));
                // Refused before all that the token may do is read.
                self.fitting(&row, attempt, now)?;
                match self.lives.at(token, epoch, now, &self.store, &self.uses)? {
                    Some(life) => life,
                    None => return Err(missed(self.death(token)?, token, row.login)),
                }
            }
        };
        let seal = self.fitting(&life.standing().row, attempt, now)?;
        if !life.is_live(&self.clock, &self.store, &self.uses)? {
            return Err(missed(self.death(token)?, token, life.login.clone()));
        }
        if attempt.peer.is_some_and(|peer| !life.standing().admits(peer)) {
            return Err(missed(Fault::NotFromHere, token, life.login.clone()));
        }
        Ok((life, seal))
    }

    /// Returns the seal of a token's row that a secret fits, when the row lets the attempt pass.
    fn fitting(&self, row: &Row, attempt: &Attempt<'_>, now: UnixMillis) -> Result<Arc<Seal>, Miss> {
        let token = attempt.text.id();
        // The secret comes first: a wrong name with a right secret is no guess.
        let Some(seal) = row.seals(now).find(|seal| attempt.fits(seal)) else {
            let retired = self.store.is_retired_secret(token, attempt.prefilter())?;
            let fault = if retired { Fault::RetiredSecret } else { Fault::WrongSecret };
            return Err(missed(fault, token, row.login.clone()));
        };
        if attempt.login.is_some_and(|login| login != row.login.as_str()) {
            return Err(missed(Fault::WrongLogin, token, row.login.clone()));
        }
        if row.refused {
            return Err(missed(self.death(token)?, token, row.login.clone()));
        }
        Ok(seal.clone())
    }

    /// Finds out what a token died of.
    fn death(&self, token: TokenId) -> Result<Fault, StoreError> {
        let record = self.store.token(token, self.clock.now())?;
        Ok(match record.map(|record| record.state) {
            None | Some(TokenState::Revoked) => Fault::Revoked,
            Some(TokenState::Expired) => Fault::Expired,
            Some(TokenState::Live) => Fault::Disabled,
        })
    }

    /// Notes a refused attempt.
    fn refused(&self, shown: &Shown, peer: &Peer) {
        let Shown { fault, token, login } = shown;
        tracing::debug!(address = %peer.address, protocol = %peer.protocol, ?fault, "a caller was refused");
        let event = AuditEvent::new(self.clock.now(), fault.kind()).with_peer(peer).with_detail(fault.why());
        let event = AuditEvent { token: *token, user: login.clone(), ..event };
        self.tally.count(event.at, peer.protocol, UsageKind::Refusal);
        // Only its bearer can show a secret that was right once.
        let known = fault.kind() == EventKind::DeadSecretUsed;
        self.trail.note(if known { Source::Known } else { Source::Stranger }, event);
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

fn missed(fault: Fault, token: TokenId, login: Login) -> Miss {
    Miss::Fault(Shown { fault, token: Some(token), login: Some(login) })
}
