//! Who: turns a credential into a [`Session`], keeps sessions honest, and nothing else makes one.
//!
//! On every request the token's row is read again; what memory holds is only the proof that this
//! secret matched this hash. So revoking, expiring, narrowing or disabling, from any process, bites
//! on the next request by construction, and open sessions are told within a second.

mod clock;
mod pepper;
mod seal;
mod session;

use std::time::Duration;

use crate::domain::{Peer, Time};
use crate::store::{Store, StoreError};

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
pub struct Authenticator {}

impl Authenticator {
    /// Makes an authenticator over a store; reads (and for a new store makes) the pepper.
    ///
    /// # Errors
    /// [`StoreError`] when the pepper is missing though tokens exist, or can't be read.
    pub fn new(_store: Store, _clock: Clock) -> Result<Self, StoreError> {
        todo!()
    }

    /// Proves a caller.
    ///
    /// # Errors
    /// [`Refusal`], the same for every wrong credential.
    pub async fn authenticate(&self, _credential: Credential, _peer: Peer) -> Result<Session, Refusal> {
        todo!()
    }

    /// Watches the store for what ends or narrows open sessions, and writes uses down, until told to
    /// stop; flushes then.
    pub async fn watch(&self, _stop: tokio_util::sync::CancellationToken) {
        todo!()
    }

    /// Returns the clock that expiry is judged by.
    pub fn now(&self) -> Time {
        todo!()
    }
}
