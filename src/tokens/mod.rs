//! A token's life: issue, rotate, narrow, revoke, and the policy that bounds it; and the users that
//! own tokens.
//!
//! Commands, the REST API and the console speak to this room, and say each time who asks
//! ([`Authority`]). What it refuses, it refuses before the first effect.

mod attention;
mod audit;
mod authority;
mod change;
mod error;
mod explain;
mod issue;
mod label;
mod lookup;
mod seal;
mod sessions;
mod tidy;
mod user;

use crate::auth::{Authenticator, Clock};
use crate::domain::{Login, Policy, PolicySetting, Role};
use crate::store::{Store, StoreError, User};
use crate::tree::Tree;

pub use attention::Attention;
pub use authority::Authority;
pub use change::{Narrowing, Rotated};
pub use error::Error;
pub use issue::{Asked, Issued, TokenRequest};
pub use label::{Label, LabelError};
pub use lookup::{Effective, StateFilter, TokenQuery};
pub use tidy::Tidied;
pub use user::{CreatedUser, Grant, GrantPlace, Home, Profile, UserRequest};

/// The result of an operation on tokens or users.
pub type Result<T> = std::result::Result<T, Error>;

/// Tokens and their owners; clones share the store.
#[derive(Clone)]
pub struct Tokens {
    store: Store,
    clock: Clock,
    tree: Option<Tree>,
    /// What holds uses in memory and runs argon2, in a server.
    auth: Option<Authenticator>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T, K> {
    /// What is in it.
    pub items: Vec<T>,
    /// What to ask for the part after; `None` when this is the last.
    pub next: Option<K>,
}

impl<T, K> Page<T, K> {
    /// Makes a page of no more than `limit` items; what was read beyond tells that there is more.
    pub(crate) fn cut(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(key);
        Self { items, next }
    }
}

impl Tokens {
    /// Manages the tokens of a store, by a clock.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, tree: None, auth: None }
    }

    /// Takes the served folder, which scopes, grants and homes need.
    #[must_use]
    pub fn with_tree(self, tree: Tree) -> Self {
        Self { tree: Some(tree), ..self }
    }

    /// Takes what holds the last uses of tokens in memory, so that what is shown is in force, and what runs argon2 for
    /// all callers in turn ([`Tokens::issue_queued`], [`Tokens::rotate_queued`]).
    #[must_use]
    pub fn with_uses(self, auth: Authenticator) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Returns the store with the last uses in force.
    fn in_force(&self) -> &Store {
        if let Some(auth) = &self.auth {
            let _ = auth.flush_uses();
        }
        &self.store
    }

    /// Returns the policy.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn policy(&self, who: &Authority) -> Result<Policy> {
        who.caller()?.must(Role::ManagePolicy)?;
        Ok(self.store.policy()?)
    }

    /// Changes one key of the policy, as it is typed, and returns what holds then.
    ///
    /// # Errors
    /// [`Error::Setting`] for an unknown key or a bad value, and as [`Tokens::change_policy`].
    pub fn set_policy(&self, who: &Authority, key: &str, value: &str) -> Result<Policy> {
        who.caller()?.must(Role::ManagePolicy)?;
        self.change_policy(who, &[PolicySetting::parse(key, value).map_err(Error::Setting)?])
    }

    /// Changes keys of the policy, all of them or none, and returns what holds then.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Setting`] for a default lifetime above the maximum.
    pub fn change_policy(&self, who: &Authority, settings: &[PolicySetting]) -> Result<Policy> {
        who.caller()?.must(Role::ManagePolicy)?;
        match self.acting(who).change_policy(settings) {
            Err(StoreError::InvalidSetting(why)) => Err(Error::Setting(why)),
            other => Ok(other?),
        }
    }

    /// Returns the store for changes in the name of whoever asks.
    fn acting(&self, who: &Authority) -> Store {
        self.store.with_audit_context(who.author(self.clock.now()))
    }

    /// Returns a user, whoever asks.
    fn known(&self, login: &Login) -> Result<User> {
        self.store.user(login)?.ok_or_else(|| Error::UnknownUser(login.clone()))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
