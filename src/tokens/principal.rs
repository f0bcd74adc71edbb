//! The caller of an operation and its authorization: the rule of a caller's own tokens, and the roles that allow more.
//!
//! A caller's own tokens are the calling token and its descendants; a token without scopes, limits or parent may also
//! act on its owner's other tokens. All others need a role, and acting on another user's tokens needs every role that
//! the other user has, so that nobody gains privileges by creating or rotating tokens. Creating, changing and rotating
//! them needs a token without scopes, limits or parent, since a secret that is got so must not exceed the calling
//! token. Nobody passes a role on for longer than they have it: a token with roles that is created for another user or
//! rotated expires with the calling token at the latest. A token without roles that is created under a role has no
//! parent, and may live as long as the policy allows: handing out such tokens is the purpose of the role.

use std::sync::Arc;

use super::{Error, Result};
use crate::auth::{Session, SessionEnded, TooMuchWork, WorkPermit};
use crate::domain::{
    Actor, Login, PathAccess, Permission, Privileges, Role, Roles, SystemUser, TokenId, TreePath, UnixMillis,
};
use crate::store::{AuditContext, Store, TokenFilter, TokenRecord};

/// The caller of an operation.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A program that embeds the gateway, with all rights.
    Administrator,
    /// A user of the operating system who works on the state directory, with all rights.
    SystemUser(SystemUser),
    /// A caller with a token.
    Session(Session),
}

impl From<Session> for Principal {
    fn from(session: Session) -> Self {
        Principal::Session(session)
    }
}

impl From<SessionEnded> for Error {
    fn from(SessionEnded: SessionEnded) -> Self {
        Error::SessionEnded
    }
}

/// A caller with its privileges at this moment.
pub(super) enum AuthorizedCaller {
    Administrator,
    Bearer(TokenBearer),
}

/// A caller with a token.
#[derive(Clone)]
pub(super) struct TokenBearer {
    pub(super) login: Login,
    pub(super) token: TokenId,
    pub(super) privileges: Arc<Privileges>,
}

impl Principal {
    /// Returns the actor and peer that changes are recorded with.
    pub(super) fn audit_context(&self, at: UnixMillis) -> AuditContext {
        match self {
            Principal::Administrator => AuditContext { actor: Actor::Administrator, peer: None, at },
            Principal::SystemUser(user) => AuditContext { actor: Actor::SystemUser(user.clone()), peer: None, at },
            Principal::Session(session) => {
                let actor = Actor::Bearer { login: session.login().clone(), token: session.token() };
                AuditContext { actor, peer: Some(session.peer().clone()), at }
            }
        }
    }

    /// Waits for a permit for work in the store; a caller without a session needs none.
    ///
    /// # Errors
    /// [`Error::Busy`] where the user, or all users together, have too much work waiting.
    pub(super) async fn acquire_store_permit(&self) -> Result<Option<WorkPermit>> {
        let Principal::Session(session) = self else { return Ok(None) };
        session.acquire_light_permit().await.map(Some).map_err(|TooMuchWork| Error::Busy)
    }

    /// Waits for another permit for an operation that has begun.
    ///
    /// # Errors
    /// [`Error::Busy`] where all users together have too much work waiting.
    pub(super) async fn reacquire_store_permit(&self) -> Result<Option<WorkPermit>> {
        let Principal::Session(session) = self else { return Ok(None) };
        session.acquire_light_followup_permit().await.map(Some).map_err(|TooMuchWork| Error::Busy)
    }

    /// Returns the owner of the calling token.
    pub(super) fn login(&self) -> Option<&Login> {
        match self {
            Principal::Administrator | Principal::SystemUser(_) => None,
            Principal::Session(session) => Some(session.login()),
        }
    }

    /// Returns the caller with its privileges at this moment.
    pub(super) fn authorized_caller(&self) -> Result<AuthorizedCaller> {
        match self {
            Principal::Administrator | Principal::SystemUser(_) => Ok(AuthorizedCaller::Administrator),
            Principal::Session(session) => {
                // Read anew for each operation, so that a revoked or narrowed token is refused by the next one.
                let privileges = session.privileges()?;
                Ok(AuthorizedCaller::Bearer(TokenBearer {
                    login: session.login().clone(),
                    token: session.token(),
                    privileges,
                }))
            }
        }
    }
}

impl AuthorizedCaller {
    /// Requires that the caller has a role.
    pub(super) fn require_role(&self, role: Role) -> Result<()> {
        if self.has_role(role) { Ok(()) } else { Err(Error::Forbidden(role)) }
    }

    /// Requires that the caller may use a role that hands out the secrets of another user's tokens. A restricted token
    /// may not: a secret that it gets so would not have its restrictions.
    pub(super) fn require_unrestricted(&self, role: Role) -> Result<()> {
        self.require_role(role)?;
        match self {
            AuthorizedCaller::Bearer(bearer) if !bearer.privileges.is_unrestricted() => Err(Error::RestrictedToken),
            AuthorizedCaller::Bearer(_) | AuthorizedCaller::Administrator => Ok(()),
        }
    }

    /// Requires that the caller has all of these roles.
    pub(super) fn require_roles(&self, roles: &Roles) -> Result<()> {
        roles.iter().try_for_each(|role| self.require_role(role))
    }

    /// Tells whether the caller has a role.
    pub(super) fn has_role(&self, role: Role) -> bool {
        match self {
            AuthorizedCaller::Administrator => true,
            AuthorizedCaller::Bearer(bearer) => bearer.privileges.roles.includes(role),
        }
    }

    /// Requires that the caller may grant a permission at a path: with the role `admin`, or with that permission there.
    /// A path that is hidden from the caller is answered as a missing one.
    pub(super) fn require_access(&self, path: &TreePath, permission: Permission) -> Result<()> {
        let AuthorizedCaller::Bearer(TokenBearer { privileges, .. }) = self else { return Ok(()) };
        if self.has_role(Role::Admin) || privileges.access.may(path, permission) {
            return Ok(());
        }
        match privileges.access.path_access(path) {
            // Not `Forbidden`, which would reveal that the path exists.
            PathAccess::Absent => Err(Error::PathNotFound(path.clone())),
            PathAccess::Visible | PathAccess::Permitted(_) => Err(Error::Forbidden(Role::Admin)),
        }
    }

    /// Returns the bearer of the calling token; `None` for the administrator.
    pub(super) fn bearer(&self) -> Option<&TokenBearer> {
        match self {
            AuthorizedCaller::Bearer(bearer) => Some(bearer),
            AuthorizedCaller::Administrator => None,
        }
    }

    /// Returns the bearer of the calling token where its owner is this user.
    pub(super) fn bearer_for(&self, login: &Login) -> Option<&TokenBearer> {
        self.bearer().filter(|bearer| bearer.login == *login)
    }

    /// Tells whether the caller has an unrestricted token of this user.
    pub(super) fn is_unrestricted_self(&self, login: &Login) -> bool {
        match self {
            AuthorizedCaller::Administrator => true,
            AuthorizedCaller::Bearer(bearer) => bearer.login == *login && bearer.privileges.is_unrestricted(),
        }
    }

    /// Tells whether the caller may see grants beyond the access of the calling token.
    pub(super) fn may_see_grants(&self) -> bool {
        match self {
            AuthorizedCaller::Administrator => true,
            AuthorizedCaller::Bearer(bearer) => {
                bearer.privileges.is_unrestricted() || self.has_role(Role::AuthenticationLookup)
            }
        }
    }

    /// Requires that the caller may see a token; others are answered as missing ones.
    pub(super) fn require_visible(&self, store: &Store, record: &TokenRecord) -> Result<()> {
        if self.has_role(Role::AuthenticationLookup) || self.owns_token(store, record)? {
            return Ok(());
        }
        Err(Error::UnknownToken(record.id))
    }

    /// Requires that the caller may do to a token what a role allows: on its own tokens, or with the role.
    pub(super) fn authorize_action(&self, store: &Store, record: &TokenRecord, role: Role) -> Result<()> {
        if self.owns_token(store, record)? {
            return Ok(());
        }
        if !self.has_role(role) {
            // A caller who may not even see the token is told that it doesn't exist.
            self.require_visible(store, record)?;
            return Err(Error::Forbidden(role));
        }
        // Changing or rotating it hands out a secret or bounds that must not exceed those of the calling token.
        if role == Role::GenerateTokens && self.bearer_for(&record.owner).is_none() {
            self.require_unrestricted(role)?;
        }
        // The owner, and with it the token, was deleted since the record was read.
        let owner = store.user(&record.owner)?.ok_or(Error::UnknownToken(record.id))?;
        self.require_roles(&owner.roles)
    }

    /// Narrows a filter to the tokens that the caller may see.
    pub(super) fn restrict_filter(&self, filter: &mut TokenFilter) -> Result<()> {
        let AuthorizedCaller::Bearer(bearer) = self else { return Ok(()) };
        if self.has_role(Role::AuthenticationLookup) {
            return Ok(());
        }
        if filter.owner.as_ref().is_some_and(|owner| *owner != bearer.login) {
            return Err(Error::Forbidden(Role::AuthenticationLookup));
        }
        filter.owner = Some(bearer.login.clone());
        // A restricted token sees only itself and its descendants.
        filter.descendants_of = (!bearer.privileges.is_unrestricted()).then_some(bearer.token);
        Ok(())
    }

    /// Tells whether a token is the caller's own.
    fn owns_token(&self, store: &Store, record: &TokenRecord) -> Result<bool> {
        let AuthorizedCaller::Bearer(bearer) = self else { return Ok(true) };
        let own = record.id == bearer.token || self.is_unrestricted_self(&record.owner);
        Ok(own || store.is_descendant(record.id, bearer.token)?)
    }
}
