//! Users: made with a home or with grants, granted more or less, disabled, deleted.

use std::fmt;
use std::str::FromStr;

use super::error::at;
use super::{Error, PAGE, Result, Tokens};
use crate::domain::{Login, NodeId, Permission, Role, Scope, TreePath};
use crate::store::{Placed, StoreError, User};
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
pub enum GrantPlace {
    /// `/some/path`.
    Path(TreePath),
    /// `node:UUID`, which names a dangling grant too.
    Node(NodeId),
}

impl FromStr for GrantPlace {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.strip_prefix("node:") {
            Some(node) => node.parse().map(Self::Node),
            None => TreePath::parse(text.as_bytes()).map(Self::Path).map_err(|why| format!("{text:?}: {why}")),
        }
    }
}

impl fmt::Display for GrantPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrantPlace::Path(path) => path.fmt(f),
            GrantPlace::Node(node) => write!(f, "node:{node}"),
        }
    }
}

/// Whether a user gets a home of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// A folder of the login's name at the top of the tree, with `rw`.
    Own,
    /// None.
    No,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct UserRequest {
    /// The login.
    pub login: Login,
    /// What its tokens may be given.
    pub roles: Vec<Role>,
    /// What it may reach besides its home.
    pub grants: Vec<Grant>,
    /// Whether it gets a home.
    pub home: Home,
}

/// A user that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedUser {
    /// Its home.
    pub home: Option<TreePath>,
    /// Whether the home, with all that is in it, was there before.
    pub home_was_there: bool,
    /// What it may reach.
    pub grants: Vec<Grant>,
}

impl Tokens {
    /// Returns a user.
    ///
    /// # Errors
    /// [`Error::UnknownUser`].
    pub fn user(&self, login: &Login) -> Result<User> {
        self.store.user(login)?.ok_or_else(|| Error::UnknownUser(login.clone()))
    }

    /// Returns all users in the order of their logins.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn users(&self) -> Result<Vec<User>> {
        let mut users: Vec<User> = Vec::new();
        loop {
            let page = self.store.users(users.last().map(|user| &user.login), PAGE)?;
            let last = page.len() < PAGE;
            users.extend(page);
            if last {
                return Ok(users);
            }
        }
    }

    /// Returns what a user may reach, dangling grants too.
    ///
    /// # Errors
    /// [`Error::UnknownUser`].
    pub fn grants(&self, login: &Login) -> Result<Vec<Placed>> {
        self.user(login)?;
        Ok(self.store.grants(login)?)
    }

    /// Makes a user that reaches nothing.
    ///
    /// # Errors
    /// [`Error::UserExists`].
    pub fn create_user_alone(&self, login: &Login, roles: &[Role]) -> Result<()> {
        match self.store.create_user(login, roles, self.clock.now()) {
            Err(StoreError::Exists(_)) => Err(Error::UserExists(login.clone())),
            other => Ok(other?),
        }
    }

    /// Makes a user with its home and grants.
    ///
    /// # Errors
    /// [`Error::UserExists`], [`Error::NoPath`] for a grant on what is not there, [`Error::NoHome`] where
    /// no home can be made.
    pub fn create_user(&self, tree: &Tree, request: &UserRequest) -> Result<CreatedUser> {
        let UserRequest { login, roles, grants, home } = request;
        if self.store.user(login)?.is_some() {
            return Err(Error::UserExists(login.clone()));
        }
        let mut scopes = Vec::new();
        for grant in grants {
            scopes.push(Scope { node: named(tree, &grant.path)?, permission: grant.permission });
        }
        let mut created = CreatedUser { home: None, home_was_there: false, grants: grants.clone() };
        if let (Home::Own, Some(name)) = (home, login.home()) {
            let path = TreePath::root().child(&name);
            created.home_was_there = make_home(tree, &path)?;
            scopes.push(Scope { node: named(tree, &path)?, permission: Permission::RW });
            created.grants.push(Grant { path: path.clone(), permission: Permission::RW });
            created.home = Some(path);
        }
        self.create_user_alone(login, roles)?;
        for scope in scopes {
            self.store.grant(login, scope, self.clock.now())?;
        }
        Ok(created)
    }

    /// Gives a user a permission at a path, in place of the one it had there.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::NoPath`].
    pub fn grant(&self, tree: &Tree, login: &Login, grant: &Grant) -> Result<NodeId> {
        self.user(login)?;
        let node = named(tree, &grant.path)?;
        self.store.grant(login, Scope { node, permission: grant.permission }, self.clock.now())?;
        Ok(node)
    }

    /// Takes a grant back, a dangling one too.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::NoGrant`] when there is none.
    pub fn revoke_grant(&self, login: &Login, place: &GrantPlace) -> Result<()> {
        let fits = |grant: &Placed| match place {
            GrantPlace::Path(path) => grant.path.as_ref() == Some(path),
            GrantPlace::Node(node) => grant.scope.node == *node,
        };
        let found = self.grants(login)?.into_iter().find(fits);
        let grant = found.ok_or_else(|| Error::NoGrant { login: login.clone(), place: place.to_string() })?;
        self.store.revoke_grant(login, grant.scope.node)?;
        Ok(())
    }

    /// Disables a user: none of its tokens are accepted until it is enabled.
    ///
    /// # Errors
    /// [`Error::UnknownUser`].
    pub fn disable_user(&self, login: &Login) -> Result<()> {
        self.user(login)?;
        Ok(self.store.disable_user(login, self.clock.now())?)
    }

    /// Enables a user again.
    ///
    /// # Errors
    /// [`Error::UnknownUser`].
    pub fn enable_user(&self, login: &Login) -> Result<()> {
        self.user(login)?;
        Ok(self.store.enable_user(login)?)
    }

    /// Deletes a user with its tokens and grants; its files stay.
    ///
    /// # Errors
    /// [`Error::UnknownUser`].
    pub fn delete_user(&self, login: &Login) -> Result<()> {
        self.user(login)?;
        Ok(self.store.delete_user(login)?)
    }
}

fn named(tree: &Tree, path: &TreePath) -> Result<NodeId> {
    tree.mint(path).map_err(at(path))
}

/// Makes a home where none is; tells whether one was there.
fn make_home(tree: &Tree, path: &TreePath) -> Result<bool> {
    let was_there = match tree.mint(path) {
        Ok(_) => true,
        Err(tree::Error::Absent) => false,
        Err(tree::Error::Unsupported) => return Err(Error::NoHome(path.clone())),
        Err(other) => return Err(at(path)(other)),
    };
    match tree.ensure_folder(path) {
        Ok(()) => Ok(was_there),
        Err(tree::Error::NotFolder | tree::Error::Exists) => Err(Error::NoHome(path.clone())),
        Err(other) => Err(at(path)(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_as_they_are_typed() {
        let grant: Grant = "/a:b/c:rw".parse().expect("a grant");
        assert_eq!((grant.path.to_string(), grant.permission), ("/a:b/c".to_owned(), Permission::RW));
        for text in ["", "/a", "/a:", "/a:x", "/../a:r", ":", "/a//b:r"] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
        assert!("node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11".parse::<GrantPlace>().is_ok());
        assert!("node:5".parse::<GrantPlace>().is_err());
    }
}
