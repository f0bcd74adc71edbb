//! Who asks for something to be done, and what of it is theirs to ask: the rule of "one's own", and
//! the roles that reach beyond it.
//!
//! One's own are the calling token and its descendants; a token without scopes, limits or parent also
//! reaches its owner's other tokens. What lies beyond needs a role, and acting on what is another
//! user's needs every role that the other has: nobody mints or rotates his way up. Making, changing and
//! rotating them needs a token without scopes, limits or parent, which no secret got so is wider than.
//! A role is given for no longer than one has it: a token with roles, made for another user or rotated,
//! dies no later than the one that asks. One without roles that is made under a role has no parent, and
//! lives as long as the policy gives: handing those out is what the role is for.

use std::sync::Arc;

use super::{Error, Result};
use crate::auth::{Session, SessionEnded, TooMuchWork, WorkPermit};
use crate::domain::{
    Actor, Login, PathAccess, Permission, Privileges, Role, Roles, SystemUser, TokenId, TreePath, UnixMillis,
};
use crate::store::{AuditContext, Store, TokenFilter, TokenRecord};

/// Who asks for something to be done.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A program that embeds the gateway: may do everything.
    Administrator,
    /// A user of the operating system who works on the state directory itself: may do everything.
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

/// Who asks, and how wide that is at this moment.
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
    /// Returns in whose name changes are made.
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

    /// Waits for a turn of a call of the store; who has no session needs none.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub(super) async fn acquire_store_permit(&self) -> Result<Option<WorkPermit>> {
        let Principal::Session(session) = self else { return Ok(None) };
        session.light_turn().await.map(Some).map_err(|TooMuchWork| Error::Busy)
    }

    /// Waits for another one, of work that has begun.
    ///
    /// # Errors
    /// [`Error::Busy`] where all users together have too much waiting.
    pub(super) async fn reacquire_store_permit(&self) -> Result<Option<WorkPermit>> {
        let Principal::Session(session) = self else { return Ok(None) };
        session.light_turn_again().await.map(Some).map_err(|TooMuchWork| Error::Busy)
    }

    /// Returns the user whose token asks.
    pub(super) fn login(&self) -> Option<&Login> {
        match self {
            Principal::Administrator | Principal::SystemUser(_) => None,
            Principal::Session(session) => Some(session.login()),
        }
    }

    /// Returns who asks, as of now.
    pub(super) fn authorized_caller(&self) -> Result<AuthorizedCaller> {
        match self {
            Principal::Administrator | Principal::SystemUser(_) => Ok(AuthorizedCaller::Administrator),
            Principal::Session(session) => {
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
    /// Makes sure that the caller has a role.
    pub(super) fn require_role(&self, role: Role) -> Result<()> {
        if self.has_role(role) { Ok(()) } else { Err(Error::Forbidden(role)) }
    }

    /// Makes sure that the caller may use a role that hands out the secrets of another user's tokens. A
    /// token that is narrow itself may not: a secret that it got so would not be bound as it is.
    pub(super) fn require_unrestricted(&self, role: Role) -> Result<()> {
        self.require_role(role)?;
        match self {
            AuthorizedCaller::Bearer(bearer) if !bearer.privileges.is_unrestricted() => Err(Error::RestrictedToken),
            AuthorizedCaller::Bearer(_) | AuthorizedCaller::Administrator => Ok(()),
        }
    }

    /// Makes sure that the caller has all of these roles.
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

    /// Makes sure that the caller may give a permission at a path: `admin`, and who has it there. A path
    /// that is hidden from the caller is as if it were not there.
    pub(super) fn require_access(&self, path: &TreePath, permission: Permission) -> Result<()> {
        let AuthorizedCaller::Bearer(TokenBearer { privileges, .. }) = self else { return Ok(()) };
        if self.has_role(Role::Admin) || privileges.access.may(path, permission) {
            return Ok(());
        }
        match privileges.access.path_access(path) {
            PathAccess::Absent => Err(Error::PathNotFound(path.clone())),
            PathAccess::Visible | PathAccess::Permitted(_) => Err(Error::Forbidden(Role::Admin)),
        }
    }

    /// Returns the bearer; the administrator bears no token.
    pub(super) fn bearer(&self) -> Option<&TokenBearer> {
        match self {
            AuthorizedCaller::Bearer(bearer) => Some(bearer),
            AuthorizedCaller::Administrator => None,
        }
    }

    /// Returns the bearer where what is asked for concerns its own user.
    pub(super) fn bearer_for(&self, login: &Login) -> Option<&TokenBearer> {
        self.bearer().filter(|bearer| bearer.login == *login)
    }

    /// Tells whether a user is the caller's own, and the token stands for all of it.
    pub(super) fn is_unrestricted_self(&self, login: &Login) -> bool {
        match self {
            AuthorizedCaller::Administrator => true,
            AuthorizedCaller::Bearer(bearer) => bearer.login == *login && bearer.privileges.is_unrestricted(),
        }
    }

    /// Tells whether the caller may know what its owner may reach beyond the token it asks with.
    pub(super) fn may_see_grants(&self) -> bool {
        match self {
            AuthorizedCaller::Administrator => true,
            AuthorizedCaller::Bearer(bearer) => {
                bearer.privileges.is_unrestricted() || self.has_role(Role::AuthenticationLookup)
            }
        }
    }

    /// Makes sure that the caller may look at a token; one that it may not is as if it were not there.
    pub(super) fn require_visible(&self, store: &Store, record: &TokenRecord) -> Result<()> {
        if self.has_role(Role::AuthenticationLookup) || self.owns_token(store, record)? {
            return Ok(());
        }
        Err(Error::UnknownToken(record.id))
    }

    /// Makes sure that the caller may do to a token what a role is for.
    pub(super) fn authorize_action(&self, store: &Store, record: &TokenRecord, role: Role) -> Result<()> {
        if self.owns_token(store, record)? {
            return Ok(());
        }
        if !self.has_role(role) {
            self.require_visible(store, record)?;
            return Err(Error::Forbidden(role));
        }
        if role == Role::GenerateTokens && self.bearer_for(&record.login).is_none() {
            self.require_unrestricted(role)?;
        }
        let owner = store.user(&record.login)?.ok_or(Error::UnknownToken(record.id))?;
        self.require_roles(&owner.roles)
    }

    /// Narrows a filter to what the caller may look at.
    pub(super) fn restrict_filter(&self, filter: &mut TokenFilter) -> Result<()> {
        let AuthorizedCaller::Bearer(bearer) = self else { return Ok(()) };
        if self.has_role(Role::AuthenticationLookup) {
            return Ok(());
        }
        if filter.owner.as_ref().is_some_and(|owner| *owner != bearer.login) {
            return Err(Error::Forbidden(Role::AuthenticationLookup));
        }
        filter.owner = Some(bearer.login.clone());
        filter.descendants_of = (!bearer.privileges.is_unrestricted()).then_some(bearer.token);
        Ok(())
    }

    /// Tells whether a token is one's own.
    fn owns_token(&self, store: &Store, record: &TokenRecord) -> Result<bool> {
        let AuthorizedCaller::Bearer(bearer) = self else { return Ok(true) };
        let own = record.id == bearer.token || self.is_unrestricted_self(&record.login);
        Ok(own || store.is_descendant(record.id, bearer.token)?)
    }
}
