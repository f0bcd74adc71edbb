//! Who: turns a credential into a [`Session`], keeps sessions honest, and nothing else makes one.
//!
//! On every request the token's row is read again; what memory holds is only the proof that this
//! secret matched this hash. So revoking, expiring, narrowing or disabling, from any process, bites
//! on the next request by construction, and open sessions are told within a second.

mod clock;
mod life;
mod pepper;
mod pool;
mod proof;
mod seal;
mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod uses;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::domain::{Login, Peer, Time, TokenId, TokenText};
use crate::store::{Sealed, Store, StoreError};

use life::{Life, Lives};
use pool::Pool;
use proof::Proofs;
use throttle::Throttle;
use uses::Uses;

pub use clock::Clock;
pub use seal::{Sealer, mint, mint_secret, random};
pub use session::{Ended, Session};

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
    /// Too many failures from this address.
    #[error("too many failed attempts: try again in {} s", .0.as_secs().max(1))]
    Throttled(Duration),
    /// Too many first uses are being proven at once.
    #[error("the server is busy: try again")]
    Busy,
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
    /// Its token.
    pub token: TokenId,
    /// Its user.
    pub login: Login,
    /// Who is at the door.
    pub peer: Peer,
    /// Since when.
    pub since: Time,
}

/// What an authenticator and its sessions share.
struct Core {
    store: Store,
    clock: Clock,
    sealer: Sealer,
    proofs: Arc<Proofs>,
    throttle: Throttle,
    lives: Lives,
    uses: Uses,
    numbers: AtomicU64,
    watcher: Pool,
}

/// Why a credential was refused: for the log alone.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Malformed,
    Unknown,
    WrongSecret,
    WrongLogin,
    Dead,
    NotFromHere,
}

/// How an attempt ends that gives no session.
enum Miss {
    Fault(Fault),
    Other(Refusal),
}

impl<E: Into<Refusal>> From<E> for Miss {
    fn from(error: E) -> Self {
        Miss::Other(error.into())
    }
}

impl Authenticator {
    /// Makes an authenticator over a store; reads (and for a new store makes) the pepper.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read.
    pub fn new(store: Store, clock: Clock) -> Result<Self, StoreError> {
        let core = Core {
            sealer: Sealer::open(&store)?,
            proofs: Arc::new(Proofs::new(clock.clone())?),
            store,
            clock,
            throttle: Throttle::default(),
            lives: Lives::default(),
            uses: Uses::default(),
            numbers: AtomicU64::new(0),
            watcher: Pool::new("patgate-watch", 1)?,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Proves a caller.
    ///
    /// # Errors
    /// [`Refusal`], the same for every wrong credential.
    pub async fn authenticate(&self, credential: Credential, peer: Peer) -> Result<Session, Refusal> {
        let address = peer.address;
        let protocol = peer.protocol;
        match self.core.clone().prove(&credential, peer).await {
            Ok(session) => Ok(session),
            Err(Miss::Other(refusal)) => Err(refusal),
            Err(Miss::Fault(fault)) => {
                self.core.throttle.fail(address, self.core.clock.now());
                tracing::info!(%address, %protocol, ?fault, "a caller was refused");
                Err(Refusal::Denied)
            }
        }
    }

    /// Watches the store for what ends or narrows open sessions, and writes uses down, until told to
    /// stop; flushes then.
    pub async fn watch(&self, stop: tokio_util::sync::CancellationToken) {
        self.core.clone().watch(stop).await;
    }

    /// Returns the present instant of the clock that expiry is judged by.
    pub fn now(&self) -> Time {
        self.core.clock.now()
    }

    /// Returns what seals the secrets of new tokens.
    pub fn sealer(&self) -> &Sealer {
        &self.core.sealer
    }

    /// Returns the sessions that are open.
    pub fn sessions(&self) -> Vec<Opened> {
        let opened = |life: &Arc<Life>| {
            let (token, login) = (life.token, life.login.clone());
            let seats = life.seats().into_iter();
            seats.map(move |(peer, since)| Opened { token, login: login.clone(), peer: (*peer).clone(), since })
        };
        self.core.lives.open().iter().flat_map(opened).collect()
    }

    /// Returns how often argon2 has run: once for each first use of a secret.
    pub fn proof_runs(&self) -> u64 {
        self.core.proofs.runs()
    }
}

impl Core {
    async fn prove(self: Arc<Self>, credential: &Credential, peer: Peer) -> Result<Session, Miss> {
        let now = self.clock.now();
        let wait = self.throttle.wait(peer.address, now);
        let shown = match (TokenText::parse(&credential.token), wait) {
            (Ok(shown), _) => shown,
            (Err(_), Some(wait)) => return Err(Refusal::Throttled(wait).into()),
            (Err(_), None) => return Err(Miss::Fault(Fault::Malformed)),
        };
        let claim = self.proofs.claim(shown.id(), shown.secret());
        if let Some(wait) = wait.filter(|_| !self.proofs.remembers(&claim)) {
            return Err(Refusal::Throttled(wait).into());
        }
        // Computed before the row is read, so that an unknown id costs as much as a known one.
        let prefilter = self.sealer.prefilter(shown.secret());
        let mut proven = None;
        loop {
            let (life, phc) = self.claimed(credential, shown.id(), &prefilter, &peer)?;
            let print = proof::print(&phc);
            if proven == Some(print) || self.proofs.holds(&claim, &print) {
                return Ok(Session::open(self, life, peer, print));
            }
            match self.proofs.prove(claim, shown.secret(), &phc).await {
                // Proving took its time: everything is read again.
                Ok(true) => proven = Some(print),
                Ok(false) => return Err(Miss::Fault(Fault::WrongSecret)),
                Err(proof::QueueFull) => return Err(Refusal::Busy.into()),
            }
        }
    }

    /// Returns the life that a credential claims, and the hash that its secret has to fit, when all
    /// else holds.
    fn claimed(
        &self,
        credential: &Credential,
        token: TokenId,
        prefilter: &[u8; 8],
        peer: &Peer,
    ) -> Result<(Arc<Life>, String), Miss> {
        let now = self.clock.now();
        let caller = self.store.caller(token)?.ok_or(Miss::Fault(Fault::Unknown))?;
        if credential.login.as_ref().is_some_and(|login| login != caller.login.as_str()) {
            return Err(Miss::Fault(Fault::WrongLogin));
        }
        let fits = |sealed: &Sealed| bool::from(sealed.prefilter.ct_eq(prefilter));
        let old = caller.grace.filter(|grace| now < grace.until).map(|grace| grace.sealed);
        let sealed = [Some(caller.sealed), old].into_iter().flatten().find(fits);
        let sealed = sealed.ok_or(Miss::Fault(Fault::WrongSecret))?;
        if caller.refused {
            return Err(Miss::Fault(Fault::Dead));
        }
        let life = self.lives.at(token, caller.epoch, now, &self.store, &self.uses)?.ok_or(Miss::Fault(Fault::Dead))?;
        if !life.is_live(now, &self.store, &self.uses)? {
            return Err(Miss::Fault(Fault::Dead));
        }
        if !life.standing().admits(peer) {
            return Err(Miss::Fault(Fault::NotFromHere));
        }
        Ok((life, sealed.phc))
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
