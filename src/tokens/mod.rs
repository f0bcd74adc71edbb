//! A token's life: issue, rotate, narrow, revoke, and the policy that bounds it; and the users that
//! own tokens.
//!
//! Commands, the REST API and the console speak to this room, and say each time who asks
//! ([`Principal`]). What it refuses, it refuses before the first effect.

mod audit;
mod error;
mod expiring;
mod explain;
mod issue;
mod label;
mod lookup;
mod principal;
mod retention;
mod secret_hash;
mod sessions;
mod update;
mod user;

use crate::auth::{Authenticator, Clock};
use crate::domain::{Login, Policy, PolicySetting, Role};
use crate::store::{Store, StoreError, User};
use crate::tree::Tree;

pub use error::Error;
pub use expiring::TokenListSummary;
pub use issue::{IssuedToken, RequestedLifetime, TokenRequest};
pub use label::{LabelError, TokenLabel};
pub use lookup::{EffectiveToken, StateFilter, TokenQuery};
pub use principal::Principal;
pub use retention::RetentionReport;
pub use update::{NarrowRequest, RotatedToken};
pub use user::{CreatedUser, Grant, GrantTarget, HomeOption, UserProfile, UserRequest};

/// The result of an operation on tokens or users.
pub type Result<T> = std::result::Result<T, Error>;

/// Tokens and their owners; clones share the store.
#[derive(Clone)]
pub struct TokenService {
    store: Store,
    clock: Clock,
    tree: Option<Tree>,
    /// What holds uses in memory and runs argon2, in a server.
    auth: Option<Authenticator>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct ResultPage<T, K> {
    /// What is in it.
    pub items: Vec<T>,
    /// What to ask for the part after; `None` when this is the last.
    pub next: Option<K>,
}

impl<T, K> ResultPage<T, K> {
    /// Makes a page of no more than `limit` items; what was read beyond tells that there is more.
    pub(crate) fn from_items(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(key);
        Self { items, next }
    }
}

impl TokenService {
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
    /// all callers in turn ([`TokenService::issue_queued`], [`TokenService::rotate_queued`]).
    #[must_use]
    pub fn with_authenticator(self, auth: Authenticator) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Returns the store with the last uses in force.
    fn flushed_store(&self) -> &Store {
        if let Some(auth) = &self.auth {
            let _ = auth.flush_uses();
        }
        &self.store
    }

    /// Returns the policy.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn policy(&self, principal: &Principal) -> Result<Policy> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        Ok(self.store.policy()?)
    }

    /// Changes one key of the policy, as it is typed, and returns what holds then.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an unknown key or a bad value, and as [`TokenService::change_policy`].
    pub fn set_policy(&self, principal: &Principal, key: &str, value: &str) -> Result<Policy> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        self.change_policy(principal, &[PolicySetting::parse(key, value).map_err(Error::InvalidSetting)?])
    }

    /// Changes keys of the policy, all of them or none, and returns what holds then.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::InvalidSetting`] for a default lifetime above the maximum.
    pub fn change_policy(&self, principal: &Principal, settings: &[PolicySetting]) -> Result<Policy> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        match self.audited_store(principal).change_policy(settings) {
            Err(StoreError::InvalidSetting(why)) => Err(Error::InvalidSetting(why)),
            other => Ok(other?),
        }
    }

    /// Returns the store for changes in the name of whoever asks.
    fn audited_store(&self, principal: &Principal) -> Store {
        self.store.with_audit_context(principal.audit_context(self.clock.now()))
    }

    /// Returns a user, whoever asks.
    fn require_user(&self, login: &Login) -> Result<User> {
        self.store.user(login)?.ok_or_else(|| Error::UnknownUser(login.clone()))
    }
}

impl std::fmt::Debug for TokenService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
