//! A caller proven to be a user with a live token.

use std::sync::Arc;

use crate::domain::{Access, Limits, Login, Peer, TokenId};

/// The session's token is dead, or no longer admits this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct Ended;

/// A caller proven to be a user with a live token; only [`super::Authenticator`] makes one.
///
/// Clones share one life: all end together, within a second of the token's death.
#[derive(Clone)]
pub struct Session {}

impl Session {
    /// Returns the user.
    pub fn login(&self) -> &Login {
        todo!()
    }

    /// Returns the token's id.
    pub fn token(&self) -> TokenId {
        todo!()
    }

    /// Returns who is at the door.
    pub fn peer(&self) -> &Peer {
        todo!()
    }

    /// Returns what may be reached at this moment. Costs no I/O.
    ///
    /// # Errors
    /// [`Ended`] once the token is dead.
    pub fn access(&self) -> Result<Arc<Access>, Ended> {
        todo!()
    }

    /// Returns the limits at this moment. Costs no I/O.
    pub fn limits(&self) -> Arc<Limits> {
        todo!()
    }

    /// Notes a use: an accepted request or a block transferred. Moves a sliding window.
    pub fn used(&self) {
        todo!()
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) {
        todo!()
    }
}
