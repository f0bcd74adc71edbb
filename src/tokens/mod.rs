//! The life cycle of tokens: issue, rotate, narrow, revoke, and the policy that bounds them; and the users that
//! own tokens.
//!
//! Commands, the REST API and the console call this module, each time with the caller ([`Principal`]). Every refusal
//! comes before the first effect.

mod audit;
mod bans;
mod error;
mod expiring;
mod explain;
mod issue;
mod label;
mod lookup;
mod principal;
mod proof;
mod requests;
mod retention;
mod sessions;
mod update;
mod user;

use crate::auth::{Authenticator, Clock};
use crate::domain::{Login, Policy, PolicySetting, Role};
use crate::store::{Store, StoreError, User};
use crate::tree::Tree;

pub use bans::BanRequest;
pub use error::Error;
pub use expiring::TokenListSummary;
pub use issue::IssuedToken;
pub use label::{LabelError, TokenLabel};
pub use lookup::{EffectiveToken, StateFilter, TokenQuery};
pub use principal::Principal;
pub use requests::{NarrowRequest, RequestedLifetime, TokenRequest};
pub use retention::RetentionReport;
pub use update::{RotatedToken, Rotation};
pub use user::{CreatedUser, Grant, GrantTarget, HomeOption, UserProfile, UserRequest};

/// The result of an operation on tokens or users.
pub type Result<T> = std::result::Result<T, Error>;

/// The service that manages tokens and their owners. Clones share the store.
#[derive(Clone)]
pub struct TokenService {
    store: Store,
    clock: Clock,
    tree: Option<Tree>,
    /// The authenticator of a server, which holds unwritten uses and runs argon2.
    auth: Option<Authenticator>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct ResultPage<T, K> {
    /// The items of the page.
    pub items: Vec<T>,
    /// Key from which the next page continues; `None` on the last page.
    pub next: Option<K>,
}

impl<T, K> ResultPage<T, K> {
    /// Makes a page of at most `limit` items; items beyond that show that there is a next page.
    pub(crate) fn from_items(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(key);
        Self { items, next }
    }
}

impl TokenService {
    /// Creates a service for the tokens of a store.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, tree: None, auth: None }
    }

    /// Returns the service with the served directory, which scopes, grants and home directories need.
    #[must_use]
    pub fn with_tree(self, tree: Tree) -> Self {
        Self { tree: Some(tree), ..self }
    }

    /// Returns the service with the authenticator of a server: it holds unwritten uses of tokens, without which records
    /// would show outdated expirations, and runs argon2 for all callers in turn ([`TokenService::issue_queued`],
    /// [`TokenService::rotate_queued`]).
    #[must_use]
    pub fn with_authenticator(self, auth: Authenticator) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Returns the store after unwritten uses were written to it.
    fn flushed_store(&self) -> &Store {
        if let Some(auth) = &self.auth {
            // A failed flush, as on a full disk, only makes records show older uses: reading goes on.
            let _ = auth.flush_uses();
        }
        &self.store
    }

    /// Returns the policy.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without the role to manage the policy.
    pub fn policy(&self, principal: &Principal) -> Result<Policy> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        Ok(self.store.policy()?)
    }

    /// Sets one key of the policy from its text form, and returns the new policy.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an unknown key or an invalid value, and as [`TokenService::change_policy`].
    pub fn set_policy(&self, principal: &Principal, key: &str, value: &str) -> Result<Policy> {
        // The role before the parser: a caller without it learns nothing about keys and values.
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        self.change_policy(principal, &[PolicySetting::parse(key, value).map_err(Error::InvalidSetting)?])
    }

    /// Sets keys of the policy, all of them or none, and returns the new policy.
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

    /// Returns the store with the principal as the actor of changes.
    fn audited_store(&self, principal: &Principal) -> Store {
        self.store.with_audit_context(principal.audit_context(self.clock.now()))
    }

    /// Returns a user without any check of the caller.
    fn require_user(&self, login: &Login) -> Result<User> {
        self.store.user(login)?.ok_or_else(|| Error::UnknownUser(login.clone()))
    }
}

impl std::fmt::Debug for TokenService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenService").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
