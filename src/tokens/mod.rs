//! A token's life: issue, rotate, narrow, revoke, and the policy that bounds it; and the users that
//! own tokens.
//!
//! Commands and the REST API speak to this room. What it refuses, it refuses before the first effect.

mod audit;
mod error;
mod issue;
mod label;
mod tidy;
mod user;

use crate::auth::{Clock, Sealer, mint_secret};
use crate::domain::{Lifetime, Login, Policy, TokenId, TokenText};
use crate::store::{Placed, Store, StoreError, TokenFilter, TokenRecord, TokenState};
use crate::tree::Tree;

pub use error::Error;
pub use issue::{Asked, Issued, TokenRequest};
pub use label::{Label, LabelError};
pub use tidy::Tidied;
pub use user::{CreatedUser, Grant, GrantPlace, Home, UserRequest};

/// The result of an operation on tokens or users.
pub type Result<T> = std::result::Result<T, Error>;

const PAGE: usize = 500;
const MAX_GRACE_SECONDS: u64 = 86_400;

/// Tokens and their owners; clones share the store.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
    clock: Clock,
}

/// A token whose secret was replaced.
#[derive(Debug)]
pub struct Rotated {
    /// The token, for the one time that it is shown.
    pub text: TokenText,
    /// What is kept of it.
    pub record: TokenRecord,
}

impl Tokens {
    /// Manages the tokens of a store, by a clock.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Returns what is kept of a token.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn find(&self, id: TokenId) -> Result<TokenRecord> {
        self.store.token(id, self.clock.now())?.ok_or(Error::UnknownToken(id))
    }

    /// Returns the tokens of one owner, or of all, in one state, or in any, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::UnknownUser`] for an unknown owner.
    pub fn list(&self, owner: Option<&Login>, state: Option<TokenState>) -> Result<Vec<TokenRecord>> {
        if let Some(owner) = owner {
            self.user(owner)?;
        }
        let filter = TokenFilter { owner: owner.cloned(), state };
        let mut tokens: Vec<TokenRecord> = Vec::new();
        loop {
            let after = tokens.last().map(|token| token.id);
            let page = self.store.tokens(&filter, after, PAGE, self.clock.now())?;
            let last = page.len() < PAGE;
            tokens.extend(page);
            if last {
                return Ok(tokens);
            }
        }
    }

    /// Revokes tokens, on disk when this returns; those already revoked stay as they are.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] when one of them is not there; none is revoked then.
    pub fn revoke(&self, ids: &[TokenId]) -> Result<()> {
        for id in ids {
            self.find(*id)?;
        }
        Ok(self.store.revoke_tokens(ids, self.clock.now())?)
    }

    /// Revokes all tokens of a user and returns how many had not been revoked before.
    ///
    /// # Errors
    /// [`Error::UnknownUser`].
    pub fn revoke_all(&self, owner: &Login) -> Result<usize> {
        self.user(owner)?;
        Ok(self.store.revoke_tokens_of(owner, self.clock.now())?)
    }

    /// Gives a token a new secret; the old one is accepted for `grace` longer, or not at all. The
    /// token's life stays as long as it was.
    ///
    /// # Errors
    /// [`Error::Grace`] for more than a day, [`Error::Dead`] for a token that is not accepted any more.
    pub fn rotate(&self, id: TokenId, grace: Option<Lifetime>) -> Result<Rotated> {
        if let Some(asked) = grace.filter(|grace| grace.as_secs() > MAX_GRACE_SECONDS) {
            return Err(Error::Grace(asked));
        }
        let record = self.find(id)?;
        if record.state != TokenState::Live {
            return Err(Error::Dead(id, record.state));
        }
        let secret = mint_secret()?;
        let sealed = Sealer::open(&self.store)?.seal(&secret)?;
        let until = grace.map(|grace| self.clock.now().after(grace.duration()));
        match self.store.rotate_token(id, &sealed, until) {
            Err(StoreError::Missing(_)) => Err(Error::Dead(id, TokenState::Revoked)),
            Err(other) => Err(other.into()),
            Ok(()) => Ok(Rotated { text: TokenText::new(id, secret), record: self.find(id)? }),
        }
    }

    /// Returns the policy.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn policy(&self) -> Result<Policy> {
        Ok(self.store.policy()?)
    }

    /// Changes one key of the policy, as it is typed, and returns what holds then.
    ///
    /// # Errors
    /// [`Error::Setting`] for an unknown key, a bad value, or a default above the maximum.
    pub fn set_policy(&self, key: &str, value: &str) -> Result<Policy> {
        match self.store.set_policy(key, value) {
            Err(StoreError::Setting(why)) => Err(Error::Setting(why)),
            other => Ok(other?),
        }
    }
}

/// Looks at the served folder where the nodes of grants or scopes are now; those that are not there
/// dangle, whatever the index says.
///
/// # Errors
/// [`Error::Tree`].
pub fn look(tree: &Tree, placed: &mut [Placed]) -> Result<()> {
    for placed in placed {
        placed.path = tree.locate(placed.scope.node).map_err(Error::Tree)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
