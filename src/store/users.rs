//! Users, their roles and their grants.

use std::cell::Cell;

use rusqlite::{Connection, OptionalExtension, params};

use super::columns::sql_limit;
use super::located_scopes::{self, LocatedScope};
use super::transactions::WriteTransaction;
use super::{BallastShare, Result, Store, StoreError, WriteDurability, storage_quota};
use crate::domain::{
    AuditEvent, ByteSize, EventKind, Login, NodeId, Role, Roles, Scope, StorageAccount, TreePath, UnixMillis,
};

/// The row of a user, with its roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login.
    pub login: Login,
    /// Time of its creation.
    pub created_at: UnixMillis,
    /// Time at which it was disabled; `None` for an enabled user.
    pub disabled_at: Option<UnixMillis>,
    /// Roles that the user holds and its tokens may be given.
    pub roles: Roles,
    /// Maximum number of bytes of the files where the user may write; `None` for no quota.
    pub quota: Option<ByteSize>,
}

/// A change of a user; fields that are `None` stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserUpdate {
    /// Whether the user is to be disabled: none of its tokens is accepted then.
    pub disabled: Option<bool>,
    /// The new roles, in place of the present ones.
    pub roles: Option<Roles>,
    /// The new storage quota; `Some(None)` removes it.
    pub quota: Option<Option<ByteSize>>,
}

impl Store {
    /// Creates a user without grants.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the login is taken.
    pub fn create_user(&self, login: &Login, roles: &[Role], now: UnixMillis) -> Result<()> {
        self.create_user_with_grants(login, &roles.iter().copied().collect(), &[], None, now)
    }

    /// Creates a user with its roles, grants and storage quota in one transaction.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the login is taken, [`StoreError::NotFound`] for an unknown node.
    pub fn create_user_with_grants(
        &self,
        login: &Login,
        roles: &Roles,
        grants: &[Scope],
        quota: Option<ByteSize>,
        now: UnixMillis,
    ) -> Result<()> {
        // Before the transaction, since it may take many batches: a new user must not inherit the usage of a deleted
        // one.
        if self.user(login)?.is_none() {
            self.clear_attribution_to(login)?;
        }
        self.write(WriteDurability::Synced, |t| {
            // No row where the login is taken.
            let insert =
                "INSERT INTO users (login, created_at) VALUES (?1, ?2) ON CONFLICT (login) DO NOTHING RETURNING id";
            let inserted = t.prepare_cached(insert)?.query_row(params![login, now], |row| row.get(0)).optional()?;
            let user = inserted.ok_or_else(|| StoreError::AlreadyExists(format!("the user {login}")))?;
            insert_roles(t, user, roles)?;
            self.record_change(t, EventKind::UserCreated, |event| with_roles(event.with_user(login), roles))?;
            if quota.is_some() {
                self.set_quota(t, (user, login), quota)?;
            }
            grants.iter().try_for_each(|scope| self.insert_grant(t, (user, login), *scope, now))
        })
    }

    /// Applies a change to a user in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn update_user(&self, login: &Login, change: &UserUpdate, now: UnixMillis) -> Result<()> {
        // Only a change that takes something away may use the ballast. True until it was compared with the row: a disk
        // that is found full before that gets no ballast.
        let grants_more = Cell::new(true);
        let share = || (!grants_more.get()).then_some(BallastShare::Revocation);
        self.write_with_ballast_if(WriteDurability::Synced, share, |t| {
            let user = (user_id(t, login)?, login);
            let current_roles = self::select_roles(t, user.0)?;
            let adds_role =
                |roles: &Roles| roles.iter().any(|role| !current_roles.iter().any(|current| current == role));
            grants_more.set(
                change.disabled == Some(false)
                    || change.quota.is_some()
                    || change.roles.as_ref().is_some_and(adds_role),
            );
            if grants_more.get() {
                self.check_may_grow()?;
            }
            if let Some(roles) = &change.roles {
                self.replace_roles(t, user, roles)?;
            }
            if let Some(quota) = change.quota {
                self.set_quota(t, user, quota)?;
            }
            match change.disabled {
                Some(true) => self.disable(t, user, now),
                Some(false) => self.enable(t, user),
                None => Ok(()),
            }
        })
    }

    /// Finds a user by its login.
    pub fn user(&self, login: &Login) -> Result<Option<User>> {
        self.read(|c| {
            let mut select =
                c.prepare_cached("SELECT id, login, created_at, disabled_at, quota FROM users WHERE login = ?1")?;
            let mut rows = select.query([login])?;
            rows.next()?.map(|row| user_from_row(c, row)).transpose()
        })
    }

    /// Returns up to `limit` users in the order of their logins, those after `after`.
    pub fn users(&self, after: Option<&Login>, limit: usize) -> Result<Vec<User>> {
        self.read(|c| {
            let mut select = c.prepare_cached(
                "SELECT id, login, created_at, disabled_at, quota FROM users WHERE login > ?1 ORDER BY login LIMIT ?2",
            )?;
            let mut rows = select.query(params![after.map_or("", Login::as_str), sql_limit(limit)])?;
            let mut users = Vec::new();
            while let Some(row) = rows.next()? {
                users.push(user_from_row(c, row)?);
            }
            Ok(users)
        })
    }

    /// Disables a user: none of its tokens is accepted until it is enabled. No effect on a disabled user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn disable_user(&self, login: &Login, now: UnixMillis) -> Result<()> {
        let disable = |t: &WriteTransaction<'_>| self.disable(t, (user_id(t, login)?, login), now);
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Revocation, disable)
    }

    /// Enables a disabled user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn enable_user(&self, login: &Login) -> Result<()> {
        self.write(WriteDurability::Synced, |t| self.enable(t, (user_id(t, login)?, login)))
    }

    /// Deletes a user with its grants and tokens.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn delete_user(&self, login: &Login) -> Result<()> {
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Revocation, |t| {
            let user = user_id(t, login)?;
            t.execute("DELETE FROM users WHERE id = ?1", [user])?;
            self.record_change(t, EventKind::UserDeleted, |event| event.with_user(login))
        })
    }

    /// Grants a user a permission on a node, in place of the one that it had there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login or node.
    pub fn grant(&self, login: &Login, scope: Scope, now: UnixMillis) -> Result<()> {
        self.write(WriteDurability::Synced, |t| self.insert_grant(t, (user_id(t, login)?, login), scope, now))
    }

    /// Revokes a user's grant on a node, also a dangling one; tells whether there was one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn revoke_grant(&self, login: &Login, node: NodeId) -> Result<bool> {
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Revocation, |t| {
            let user = user_id(t, login)?;
            let delete = "DELETE FROM grants WHERE user_id = ?1 AND node = ?2";
            if t.execute(delete, params![user, node])? == 0 {
                return Ok(false);
            }
            let path = located_scopes::locate_node(t, node)?;
            self.record_change(t, EventKind::GrantRevoked, |event| {
                with_node_location(event.with_user(login), path, node)
            })?;
            Ok(true)
        })
    }

    /// Returns a user's grants with the paths of their nodes by the index.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn grants(&self, login: &Login) -> Result<Vec<LocatedScope>> {
        self.snapshot(|c| {
            let user = user_id(c, login)?;
            located_scopes::located_scopes(c, "SELECT node, permission FROM grants WHERE user_id = ?1", user)
        })
    }

    fn replace_roles(&self, t: &WriteTransaction<'_>, (user, login): (i64, &Login), roles: &Roles) -> Result<()> {
        if self::select_roles(t, user)? == *roles {
            return Ok(());
        }
        t.execute("DELETE FROM user_roles WHERE user_id = ?1", [user])?;
        insert_roles(t, user, roles)?;
        self.record_change(t, EventKind::UserRolesChanged, |event| with_roles(event.with_user(login), roles))
    }

    /// Sets or removes the storage quota of a user. A quota asks for a count of the files, also where it is the same.
    fn set_quota(&self, t: &WriteTransaction<'_>, (user, login): (i64, &Login), quota: Option<ByteSize>) -> Result<()> {
        let column = storage_quota::quota_column(quota);
        t.execute("UPDATE users SET quota = ?2 WHERE id = ?1", params![user, column])?;
        let account = StorageAccount::User(login.clone());
        match quota {
            Some(_) => storage_quota::open_account(t, &account)?,
            None => storage_quota::close_account(t, &account)?,
        }
        let detail = quota.map_or_else(|| "none".to_owned(), |quota| quota.to_string());
        self.record_change(t, EventKind::UserQuotaChanged, |event| event.with_user(login).with_detail(detail))
    }

    fn disable(&self, t: &WriteTransaction<'_>, (user, login): (i64, &Login), now: UnixMillis) -> Result<()> {
        let disable = "UPDATE users SET disabled_at = ?2 WHERE id = ?1 AND disabled_at IS NULL";
        match t.execute(disable, params![user, now])? {
            0 => Ok(()),
            _ => self.record_change(t, EventKind::UserDisabled, |event| event.with_user(login)),
        }
    }

    fn enable(&self, t: &WriteTransaction<'_>, (user, login): (i64, &Login)) -> Result<()> {
        match t.execute("UPDATE users SET disabled_at = NULL WHERE id = ?1 AND disabled_at IS NOT NULL", [user])? {
            0 => Ok(()),
            _ => self.record_change(t, EventKind::UserEnabled, |event| event.with_user(login)),
        }
    }

    fn insert_grant(
        &self,
        t: &WriteTransaction<'_>,
        (user, login): (i64, &Login),
        grant: Scope,
        now: UnixMillis,
    ) -> Result<()> {
        located_scopes::check_node_exists(t, grant.node)?;
        let mut select =
            t.prepare_cached("SELECT 1 FROM grants WHERE user_id = ?1 AND node = ?2 AND permission = ?3")?;
        if select.exists(params![user, grant.node, grant.permission])? {
            return Ok(());
        }
        let mut insert = t.prepare_cached(
            "INSERT INTO grants (user_id, node, permission, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (user_id, node) DO UPDATE SET permission = excluded.permission, created_at = excluded.created_at",
        )?;
        insert.execute(params![user, grant.node, grant.permission, now])?;
        let path = located_scopes::locate_node(t, grant.node)?;
        let describe = |event: AuditEvent| {
            with_node_location(event.with_user(login).with_detail(grant.permission.to_string()), path, grant.node)
        };
        self.record_change(t, EventKind::UserGranted, describe)
    }
}

fn insert_roles(t: &Connection, user: i64, roles: &Roles) -> Result<()> {
    let mut insert = t.prepare_cached("INSERT INTO user_roles (user_id, role) VALUES (?1, ?2)")?;
    roles.iter().try_for_each(|role| insert.execute(params![user, role]).map(drop))?;
    Ok(())
}

/// Adds the roles of a user to an event.
fn with_roles(event: AuditEvent, roles: &Roles) -> AuditEvent {
    if roles.is_empty() { event.with_detail("no roles") } else { event.with_detail(format!("roles {roles}")) }
}

/// Adds the path of a node to an event, or its id where it dangles.
fn with_node_location(event: AuditEvent, path: Option<TreePath>, node: NodeId) -> AuditEvent {
    match path {
        Some(path) => event.with_path(&path),
        None => event.with_detail(format!("node:{node}")),
    }
}

/// Returns the row id of a user.
pub(super) fn user_id(c: &Connection, login: &Login) -> Result<i64> {
    let mut select = c.prepare_cached("SELECT id FROM users WHERE login = ?1")?;
    let id = select.query_row([login], |row| row.get(0)).optional()?;
    id.ok_or_else(|| StoreError::NotFound(format!("the user {login}")))
}

fn user_from_row(c: &Connection, row: &rusqlite::Row<'_>) -> Result<User> {
    let roles = select_roles(c, row.get(0)?)?;
    let quota = storage_quota::quota_from_column(row.get(4)?);
    Ok(User { login: row.get(1)?, created_at: row.get(2)?, disabled_at: row.get(3)?, roles, quota })
}

fn select_roles(c: &Connection, user: i64) -> Result<Roles> {
    let mut select = c.prepare_cached("SELECT role FROM user_roles WHERE user_id = ?1 ORDER BY role")?;
    Ok(select.query_map([user], |role| role.get::<_, Role>(0))?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Permission;
    use crate::store::testing::{delete_node, insert_directory, login, node, now, open_temp_store, scope};

    #[test]
    fn duplicate_login_is_refused() {
        let (_temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[Role::ReadAudit, Role::Admin], now()).expect("user");
        let second = store.create_user(&login("alice"), &[], now());
        assert!(matches!(second, Err(StoreError::AlreadyExists(_))), "{second:?}");
        let user = store.user(&login("alice")).expect("read").expect("there");
        assert_eq!((user.roles.to_string().as_str(), user.disabled_at), ("admin, audit.read", None));
        assert!(store.user(&login("bob")).expect("read").is_none());
    }

    #[test]
    fn users_are_paged() {
        let (_temp_dir, store) = open_temp_store();
        for name in ["dora", "alice", "carol", "bob"] {
            store.create_user(&login(name), &[], now()).expect("user");
        }
        let page = store.users(None, 3).expect("read");
        assert_eq!(page.iter().map(|user| user.login.as_str()).collect::<Vec<_>>(), ["alice", "bob", "carol"]);
        let page = store.users(Some(&page[2].login), 3).expect("read");
        assert_eq!(page.iter().map(|user| user.login.as_str()).collect::<Vec<_>>(), ["dora"]);
    }

    #[test]
    fn user_changes_apply_and_errors_name_missing_user() {
        let (_temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        store.disable_user(&login("alice"), now()).expect("disabled");
        assert_eq!(store.user(&login("alice")).expect("read").and_then(|user| user.disabled_at), Some(now()));
        store.enable_user(&login("alice")).expect("enabled");
        assert_eq!(store.user(&login("alice")).expect("read").and_then(|user| user.disabled_at), None);
        store.delete_user(&login("alice")).expect("deleted");
        assert!(store.user(&login("alice")).expect("read").is_none());
        for refused in [store.disable_user(&login("alice"), now()), store.delete_user(&login("alice"))] {
            assert!(refused.expect_err("gone").to_string().contains("alice"));
        }
    }

    #[test]
    fn grant_replaces_previous_one_and_dangles_with_deleted_node() {
        let (_temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        let missing = store.grant(&login("alice"), scope(1, Permission::R), now());
        assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
        insert_directory(&store, 0, 0, "");
        insert_directory(&store, 1, 0, "a");
        store.grant(&login("alice"), scope(1, Permission::R), now()).expect("granted");
        store.grant(&login("alice"), scope(1, Permission::W), now()).expect("granted");
        let grants = store.grants(&login("alice")).expect("read");
        assert_eq!(grants.iter().map(LocatedScope::scope).collect::<Vec<_>>(), [scope(1, Permission::W)]);
        delete_node(&store, 1);
        assert_eq!(store.grants(&login("alice")).expect("read")[0].path, None);
        assert!(store.revoke_grant(&login("alice"), node(1)).expect("revoked"));
        assert!(!store.revoke_grant(&login("alice"), node(1)).expect("none"));
    }
}
