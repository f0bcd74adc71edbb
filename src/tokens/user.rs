//! Users: made with a home or with grants, granted more or less, disabled, deleted.

use std::fmt;
use std::str::FromStr;

use super::error::path_error;
use super::principal::AuthorizedCaller;
use super::{Error, Principal, Result, ResultPage, TokenService};
use crate::domain::{Login, NodeId, Permission, Role, Roles, Scope, TreePath};
use crate::store::{LocatedScope, StoreError, User, UserUpdate};
use crate::tree::{self, Tree};

/// A grant as it is typed: `/some/path:PERM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where.
    pub path: TreePath,
    /// What.
    pub permission: Permission,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let malformed = || format!("the grant {text:?} is malformed: give /some/path:PERM with PERM r, w or rw");
        let (path, permission) = text.rsplit_once(':').ok_or_else(malformed)?;
        let permission = permission.parse().map_err(|why| format!("the grant {text:?}: {why}"))?;
        let path = TreePath::parse(path.as_bytes()).map_err(|why| format!("the grant {text:?}: {why}"))?;
        Ok(Self { path, permission })
    }
}

/// What a grant is known by: its node, or the path where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantTarget {
    /// `/some/path`.
    Path(TreePath),
    /// `node:UUID`, which names a dangling grant too.
    Node(NodeId),
}

impl FromStr for GrantTarget {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.strip_prefix("node:") {
            Some(node) => node.parse().map(Self::Node),
            None => TreePath::parse(text.as_bytes()).map(Self::Path).map_err(|why| format!("{text:?}: {why}")),
        }
    }
}

impl fmt::Display for GrantTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrantTarget::Path(path) => path.fmt(f),
            GrantTarget::Node(node) => write!(f, "node:{node}"),
        }
    }
}

/// Whether a user gets a home of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeOption {
    /// A folder of the login's name at the top of the tree, with `rw`.
    Create,
    /// None.
    Skip,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct UserRequest {
    /// The login.
    pub login: Login,
    /// What its tokens may be given.
    pub roles: Roles,
    /// What it may reach besides its home.
    pub grants: Vec<Grant>,
    /// Whether it gets a home.
    pub home: HomeOption,
}

/// All there is to know of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserProfile {
    /// The user.
    pub user: User,
    /// What it may reach and where that is now, dangling grants too.
    pub grants: Vec<LocatedScope>,
    /// How many of its tokens are live.
    pub live_tokens: u32,
}

/// A user that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedUser {
    /// Its home.
    pub home: Option<TreePath>,
    /// Whether the home, with all that is in it, was there before.
    pub home_existed: bool,
    /// What it may reach.
    pub grants: Vec<Grant>,
}

impl TokenService {
    /// Returns a user.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a user that is not the caller's own, [`Error::UnknownUser`].
    pub fn user(&self, principal: &Principal, login: &Login) -> Result<User> {
        let caller = principal.authorized_caller()?;
        if !caller.is_unrestricted_self(login) {
            caller.require_role(Role::ManageUsers)?;
        }
        self.require_user(login)
    }

    /// Returns a user with its grants.
    ///
    /// # Errors
    /// As [`TokenService::user`].
    pub fn profile(&self, principal: &Principal, login: &Login) -> Result<UserProfile> {
        self.complete_profile(self.user(principal, login)?)
    }

    /// Returns up to `limit` users with their grants, as [`TokenService::users`].
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn profiles(
        &self,
        principal: &Principal,
        after: Option<&Login>,
        limit: usize,
    ) -> Result<ResultPage<UserProfile, Login>> {
        let ResultPage { items, next } = self.users(principal, after, limit)?;
        Ok(ResultPage {
            items: items.into_iter().map(|user| self.complete_profile(user)).collect::<Result<_>>()?,
            next,
        })
    }

    /// Returns up to `limit` users in the order of their logins, those after `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn users(&self, principal: &Principal, after: Option<&Login>, limit: usize) -> Result<ResultPage<User, Login>> {
        principal.authorized_caller()?.require_role(Role::ManageUsers)?;
        let users = self.store.users(after, limit + 1)?;
        Ok(ResultPage::from_items(users, limit, |user| user.login.clone()))
    }

    /// Returns what a user may reach and where that is now, dangling grants too.
    ///
    /// # Errors
    /// As [`TokenService::user`].
    pub fn grants(&self, principal: &Principal, login: &Login) -> Result<Vec<LocatedScope>> {
        self.user(principal, login)?;
        self.located_grants(login)
    }

    /// Makes a user with its home and grants.
    ///
    /// # Errors
    /// [`Error::Forbidden`], also for a grant of more than the caller itself may do there, and for a home that
    /// was there before; [`Error::UserExists`], [`Error::PathNotFound`] for a grant on what is not there or hidden
    /// from the caller, [`Error::HomeNotDirectory`] where no home can be made.
    pub fn create_user(&self, principal: &Principal, request: &UserRequest) -> Result<CreatedUser> {
        let UserRequest { login, roles, grants, home } = request;
        let caller = principal.authorized_caller()?;
        caller.require_role(Role::ManageUsers)?;
        caller.require_roles(roles)?;
        if self.store.user(login)?.is_some() {
            return Err(Error::UserExists(login.clone()));
        }
        let mut scopes = Vec::new();
        for grant in grants {
            caller.require_access(&grant.path, grant.permission)?;
            scopes.push(Scope { node: self.ensure_node(principal, &grant.path)?, permission: grant.permission });
        }
        let mut created = CreatedUser { home: None, home_existed: false, grants: grants.clone() };
        if let (HomeOption::Create, Some(name)) = (home, login.home_name()) {
            // Nothing is made in another served folder than nodes were named in.
            self.ensure_node(principal, &TreePath::root())?;
            let path = TreePath::root().child(&name);
            created.home_existed = create_home(&caller, self.tree.as_ref().ok_or(Error::NoServedRoot)?, &path)?;
            scopes.push(Scope { node: self.ensure_node(principal, &path)?, permission: Permission::RW });
            created.grants.push(Grant { path: path.clone(), permission: Permission::RW });
            created.home = Some(path);
        }
        match self.audited_store(principal).create_user_with_grants(login, roles, &scopes, self.clock.now()) {
            Err(StoreError::AlreadyExists(_)) => Err(Error::UserExists(login.clone())),
            other => Ok(other.map(|()| created)?),
        }
    }

    /// Changes a user, all of it or nothing, and returns it as it is then; its tokens lose the roles that it loses.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::Forbidden`] without each role that the user has or would get.
    pub fn update_user(&self, principal: &Principal, login: &Login, change: &UserUpdate) -> Result<UserProfile> {
        self.require_managed(principal, login)?;
        if let Some(roles) = &change.roles {
            principal.authorized_caller()?.require_roles(roles)?;
        }
        self.audited_store(principal).update_user(login, change, self.clock.now())?;
        // Whoever disabled itself, or took its role, is told of it all the same.
        self.complete_profile(self.require_user(login)?)
    }

    /// Gives a user these roles and no others.
    ///
    /// # Errors
    /// As [`TokenService::update_user`].
    pub fn set_roles(&self, principal: &Principal, login: &Login, roles: &Roles) -> Result<()> {
        let change = UserUpdate { roles: Some(roles.clone()), ..UserUpdate::default() };
        self.update_user(principal, login, &change).map(drop)
    }

    /// Gives a user a permission at a path, in place of the one it had there.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::PathNotFound`], [`Error::Forbidden`] without each role that the user has, and
    /// for more than the caller itself may do there.
    pub fn grant(&self, principal: &Principal, login: &Login, grant: &Grant) -> Result<NodeId> {
        self.require_managed(principal, login)?;
        principal.authorized_caller()?.require_access(&grant.path, grant.permission)?;
        let node = self.ensure_node(principal, &grant.path)?;
        self.audited_store(principal).grant(login, Scope { node, permission: grant.permission }, self.clock.now())?;
        Ok(node)
    }

    /// Takes a grant back, a dangling one too.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::GrantNotFound`] when there is none, [`Error::Forbidden`] without each
    /// role that the user has.
    pub fn revoke_grant(&self, principal: &Principal, login: &Login, target: &GrantTarget) -> Result<()> {
        self.require_managed(principal, login)?;
        let is_target = |grant: &LocatedScope| match target {
            GrantTarget::Path(path) => grant.path.as_ref() == Some(path),
            GrantTarget::Node(node) => grant.scope.node == *node,
        };
        let found = self.store.grants(login)?.into_iter().find(is_target);
        let grant = found.ok_or_else(|| Error::GrantNotFound { login: login.clone(), place: target.to_string() })?;
        self.audited_store(principal).revoke_grant(login, grant.scope.node)?;
        Ok(())
    }

    /// Disables a user: none of its tokens are accepted until it is enabled.
    ///
    /// # Errors
    /// As [`TokenService::update_user`].
    pub fn disable_user(&self, principal: &Principal, login: &Login) -> Result<()> {
        let change = UserUpdate { disabled: Some(true), ..UserUpdate::default() };
        self.update_user(principal, login, &change).map(drop)
    }

    /// Enables a user again.
    ///
    /// # Errors
    /// As [`TokenService::update_user`].
    pub fn enable_user(&self, principal: &Principal, login: &Login) -> Result<()> {
        let change = UserUpdate { disabled: Some(false), ..UserUpdate::default() };
        self.update_user(principal, login, &change).map(drop)
    }

    /// Deletes a user with its tokens and grants; its files stay.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::Forbidden`] without each role that the user has.
    pub fn delete_user(&self, principal: &Principal, login: &Login) -> Result<()> {
        self.require_managed(principal, login)?;
        Ok(self.audited_store(principal).delete_user(login)?)
    }

    /// Completes a user, whoever asks.
    fn complete_profile(&self, user: User) -> Result<UserProfile> {
        let grants = self.located_grants(&user.login)?;
        let live_tokens = self.flushed_store().count_live_tokens(&user.login, self.clock.now())?;
        Ok(UserProfile { user, grants, live_tokens })
    }

    fn located_grants(&self, login: &Login) -> Result<Vec<LocatedScope>> {
        let mut grants = self.store.grants(login)?;
        self.refresh_locations(&mut grants)?;
        Ok(grants)
    }

    /// Returns a user that the caller may change.
    fn require_managed(&self, principal: &Principal, login: &Login) -> Result<User> {
        let caller = principal.authorized_caller()?;
        caller.require_role(Role::ManageUsers)?;
        let user = self.require_user(login)?;
        caller.require_roles(&user.roles)?;
        Ok(user)
    }

    /// Names the node at a path, counted for the user who asks.
    fn ensure_node(&self, principal: &Principal, path: &TreePath) -> Result<NodeId> {
        self.tree.as_ref().ok_or(Error::NoServedRoot)?.mint_for(path, principal.login()).map_err(path_error(path))
    }
}

/// Makes a home where none is; tells whether one was there, which is the caller's to give away then. Making it
/// decides, so that nothing can come there between a look and that.
fn create_home(caller: &AuthorizedCaller, tree: &Tree, path: &TreePath) -> Result<bool> {
    let existed = match tree.ensure_directory(path) {
        Ok(true) => return Ok(false),
        Ok(false) => Ok(true),
        Err(tree::Error::NotADirectory | tree::Error::AlreadyExists) => Err(Error::HomeNotDirectory(path.clone())),
        Err(other) => return Err(path_error(path)(other)),
    };
    caller.require_access(path, Permission::RW).map_err(|_| Error::Forbidden(Role::Admin))?;
    existed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_grants_parse() {
        let grant: Grant = "/a:b/c:rw".parse().expect("a grant");
        assert_eq!((grant.path.to_string(), grant.permission), ("/a:b/c".to_owned(), Permission::RW));
        for text in ["", "/a", "/a:", "/a:x", "/../a:r", ":", "/a//b:r"] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
        assert!("node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11".parse::<GrantTarget>().is_ok());
        assert!("node:5".parse::<GrantTarget>().is_err());
    }
}
