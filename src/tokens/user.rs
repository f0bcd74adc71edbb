//! Users: creation with a home directory and grants, roles, changes of grants, disabling and deletion.

use std::fmt;
use std::str::FromStr;

use super::error::path_error;
use super::principal::AuthorizedCaller;
use super::{Error, Principal, Result, ResultPage, TokenService};
use crate::domain::{ByteSize, Login, NodeId, Permission, Role, Roles, Scope, StorageAccount, StorageUsage, TreePath};
use crate::store::{LocatedScope, StoreError, User, UserUpdate};
use crate::tree::{self, Tree};

/// A grant in its text form: `/some/path:PERM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Path of the granted node.
    pub path: TreePath,
    /// Granted permission.
    pub permission: Permission,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let malformed = || format!("the grant {text:?} is malformed: give /some/path:PERM with PERM r, w or rw");
        let (path, permission) = text.rsplit_once(':').ok_or_else(malformed)?;
        let permission = permission.parse().map_err(|why| format!("the grant {text:?}: {why}"))?;
        let path = TreePath::parse_absolute(path).map_err(|why| format!("the grant {text:?}: {why}"))?;
        Ok(Self { path, permission })
    }
}

/// The node of a grant, by its path or its id.
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
            None => TreePath::parse_absolute(text).map(Self::Path),
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

/// Choice whether a new user gets a home directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeOption {
    /// A directory with the name of the login at the root of the tree, with a grant of `rw`.
    Create,
    /// No home directory.
    Skip,
}

/// A request for a new user.
#[derive(Clone, Debug)]
pub struct UserRequest {
    /// The login.
    pub login: Login,
    /// The roles, which its tokens may be given.
    pub roles: Roles,
    /// The grants besides that on its home directory.
    pub grants: Vec<Grant>,
    /// Whether it gets a home directory.
    pub home: HomeOption,
    /// Maximum number of bytes of the files where it may write.
    pub quota: Option<ByteSize>,
}

/// A user with its grants and its number of live tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserProfile {
    /// The user.
    pub user: User,
    /// Its grants with the current paths of their nodes, also dangling ones.
    pub grants: Vec<LocatedScope>,
    /// Number of its live tokens.
    pub live_tokens: u32,
    /// Bytes that count for its storage quota; `None` for a user without one.
    pub storage: Option<StorageUsage>,
}

/// A new user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedUser {
    /// Path of its home directory.
    pub home: Option<TreePath>,
    /// Whether the home directory existed before.
    pub home_existed: bool,
    /// All its grants.
    pub grants: Vec<Grant>,
}

impl TokenService {
    /// Returns a user.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for another user without the role to manage users, [`Error::UnknownUser`].
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

    /// Returns a user's grants with the current paths of their nodes, also dangling ones.
    ///
    /// # Errors
    /// As [`TokenService::user`].
    pub fn grants(&self, principal: &Principal, login: &Login) -> Result<Vec<LocatedScope>> {
        self.user(principal, login)?;
        self.located_grants(login)
    }

    /// Creates a user with its home directory and grants.
    ///
    /// # Errors
    /// [`Error::Forbidden`], also for a grant of a permission that the caller lacks there, and for a home directory
    /// that existed before and that the caller may not grant; [`Error::UserExists`], [`Error::PathNotFound`] for a
    /// grant on a path that is missing or hidden from the caller, [`Error::HomeNotDirectory`] where no home directory
    /// can be created.
    pub fn create_user(&self, principal: &Principal, request: &UserRequest) -> Result<CreatedUser> {
        let UserRequest { login, roles, grants, home, quota } = request;
        let caller = principal.authorized_caller()?;
        caller.require_role(Role::ManageUsers)?;
        caller.require_roles(roles)?;
        // Early, for the usual mistake; the insertion below decides.
        if self.store.user(login)?.is_some() {
            return Err(Error::UserExists(login.clone()));
        }
        let mut scopes = Vec::new();
        for grant in grants {
            // Before the path gets a node, so that a refused grant leaves no row.
            caller.require_access(&grant.path, grant.permission)?;
            scopes.push(Scope { node: self.ensure_node(principal, &grant.path)?, permission: grant.permission });
        }
        let mut created = CreatedUser { home: None, home_existed: false, grants: grants.clone() };
        if let (HomeOption::Create, Some(name)) = (home, login.home_name()) {
            // Before the first directory is created: naming the root fails where the served directory is another one
            // than the index belongs to.
            self.ensure_node(principal, &TreePath::root())?;
            let path = TreePath::root().child(&name);
            created.home_existed = create_home(&caller, self.tree.as_ref().ok_or(Error::NoServedRoot)?, &path)?;
            scopes.push(Scope { node: self.ensure_node(principal, &path)?, permission: Permission::RW });
            created.grants.push(Grant { path: path.clone(), permission: Permission::RW });
            created.home = Some(path);
        }
        // Last: a failure before it leaves an empty home directory and unused nodes, but no user without its grants.
        match self.audited_store(principal).create_user_with_grants(login, roles, &scopes, *quota, self.clock.now()) {
            Err(StoreError::AlreadyExists(_)) => Err(Error::UserExists(login.clone())),
            other => Ok(other.map(|()| created)?),
        }
    }

    /// Applies a change to a user in one transaction, and returns the user after it; its tokens lose the roles that it
    /// loses.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::Forbidden`] without every role that the user has or would get.
    pub fn update_user(&self, principal: &Principal, login: &Login, change: &UserUpdate) -> Result<UserProfile> {
        self.require_managed(principal, login)?;
        // The new roles, too: nobody gives roles that they lack.
        if let Some(roles) = &change.roles {
            principal.authorized_caller()?.require_roles(roles)?;
        }
        self.audited_store(principal).update_user(login, change, self.clock.now())?;
        // Without another check of the caller: one that disabled itself, or removed its own role, still gets the
        // answer.
        self.complete_profile(self.require_user(login)?)
    }

    /// Replaces the roles of a user.
    ///
    /// # Errors
    /// As [`TokenService::update_user`].
    pub fn set_roles(&self, principal: &Principal, login: &Login, roles: &Roles) -> Result<()> {
        let change = UserUpdate { roles: Some(roles.clone()), ..UserUpdate::default() };
        self.update_user(principal, login, &change).map(drop)
    }

    /// Sets the storage quota of a user, or removes it. Its files are counted anew.
    ///
    /// # Errors
    /// As [`TokenService::update_user`].
    pub fn set_quota(&self, principal: &Principal, login: &Login, quota: Option<ByteSize>) -> Result<()> {
        let change = UserUpdate { quota: Some(quota), ..UserUpdate::default() };
        self.update_user(principal, login, &change).map(drop)
    }

    /// Grants a user a permission at a path, in place of the one that it had there, and returns the node.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::PathNotFound`], [`Error::Forbidden`] without every role that the user has, and
    /// for a permission that the caller lacks there.
    pub fn grant(&self, principal: &Principal, login: &Login, grant: &Grant) -> Result<NodeId> {
        self.require_managed(principal, login)?;
        principal.authorized_caller()?.require_access(&grant.path, grant.permission)?;
        let node = self.ensure_node(principal, &grant.path)?;
        self.audited_store(principal).grant(login, Scope { node, permission: grant.permission }, self.clock.now())?;
        Ok(node)
    }

    /// Revokes a grant, also a dangling one.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::GrantNotFound`] when there is none, [`Error::Forbidden`] without every
    /// role that the user has.
    pub fn revoke_grant(&self, principal: &Principal, login: &Login, target: &GrantTarget) -> Result<()> {
        self.require_managed(principal, login)?;
        let is_target = |grant: &LocatedScope| match target {
            GrantTarget::Path(path) => grant.path.as_ref() == Some(path),
            GrantTarget::Node(node) => grant.node == *node,
        };
        // By the paths of the index, so that a grant on a directory that is missing can be revoked as well.
        let found = self.store.grants(login)?.into_iter().find(is_target);
        let grant = found.ok_or_else(|| Error::GrantNotFound { login: login.clone(), place: target.to_string() })?;
        self.audited_store(principal).revoke_grant(login, grant.node)?;
        Ok(())
    }

    /// Disables a user: none of its tokens is accepted until it is enabled.
    ///
    /// # Errors
    /// As [`TokenService::update_user`].
    pub fn disable_user(&self, principal: &Principal, login: &Login) -> Result<()> {
        let change = UserUpdate { disabled: Some(true), ..UserUpdate::default() };
        self.update_user(principal, login, &change).map(drop)
    }

    /// Enables a disabled user.
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
    /// [`Error::UnknownUser`], [`Error::Forbidden`] without every role that the user has.
    pub fn delete_user(&self, principal: &Principal, login: &Login) -> Result<()> {
        self.require_managed(principal, login)?;
        Ok(self.audited_store(principal).delete_user(login)?)
    }

    /// Completes a user by its grants and its number of live tokens, without any check of the caller.
    fn complete_profile(&self, user: User) -> Result<UserProfile> {
        let grants = self.located_grants(&user.login)?;
        let live_tokens = self.flushed_store().count_live_tokens(&user.login, self.clock.now())?;
        let storage = match user.quota {
            Some(_) => self.store.storage_usage(&StorageAccount::User(user.login.clone()))?,
            None => None,
        };
        Ok(UserProfile { user, grants, live_tokens, storage })
    }

    fn located_grants(&self, login: &Login) -> Result<Vec<LocatedScope>> {
        let mut grants = self.store.grants(login)?;
        self.refresh_locations(&mut grants)?;
        Ok(grants)
    }

    /// Returns a user, and requires that the caller may change it.
    fn require_managed(&self, principal: &Principal, login: &Login) -> Result<User> {
        let caller = principal.authorized_caller()?;
        caller.require_role(Role::ManageUsers)?;
        let user = self.require_user(login)?;
        caller.require_roles(&user.roles)?;
        Ok(user)
    }

    /// Returns the node of a path; a new node counts for the quota of the caller's user.
    fn ensure_node(&self, principal: &Principal, path: &TreePath) -> Result<NodeId> {
        self.tree
            .as_ref()
            .ok_or(Error::NoServedRoot)?
            .assign_node_id_for_user(path, principal.login())
            .map_err(path_error(path))
    }
}

/// Creates a home directory; tells whether it existed, in which case the caller must have the permission to grant it.
/// The result of `mkdir` decides, so that no entry can appear between a check and the creation.
fn create_home(caller: &AuthorizedCaller, tree: &Tree, path: &TreePath) -> Result<bool> {
    let existed = match tree.ensure_directory(path) {
        Ok(true) => return Ok(false),
        Ok(false) => Ok(true),
        Err(tree::Error::NotADirectory | tree::Error::AlreadyExists) => Err(Error::HomeNotDirectory(path.clone())),
        Err(other) => return Err(path_error(path)(other)),
    };
    // An existing directory may hold files of others: granting it needs the right to do so. Checked also before
    // `HomeNotDirectory` is returned, which tells that something else is there.
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
        for text in ["", "/a", "/a:", "/a:x", "/../a:r", ":", "/a//b:r", ":rw", "a:rw"] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
        assert!("node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11".parse::<GrantTarget>().is_ok());
        assert!(["node:5", "", "a"].iter().all(|text| text.parse::<GrantTarget>().is_err()));
    }
}
