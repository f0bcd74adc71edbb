//! The effective access of a token, joined from the rows of its chain, their scopes and its owner's grants.

use std::sync::Arc;

use rusqlite::Connection;

use super::located_scopes::{NodeRowCache, resolved_scopes};
use super::token_chain::MAX_CHAIN_TOKENS;
use super::token_proof::{PreviousProof, TokenProof};
use super::{Result, Store, StoreError, columns};
use crate::domain::{
    ChainLink, Login, Privileges, Role, Roles, TokenExpiry, TokenId, TokenLimits, TreeAccess, UnixMillis,
};

/// The part of a token's row that every request reads: what its secret is verified against, whether it is revoked, and
/// the epoch that tells whether a cached [`EffectiveAccess`] is current.
#[derive(Clone, Debug)]
pub(crate) struct CredentialRow {
    pub(crate) login: Login,
    /// Whether the token is revoked or its owner disabled.
    pub(crate) revoked_or_disabled: bool,
    /// What the token is proven by.
    pub(crate) proof: TokenProof,
    /// The proof before the last rotation, where its grace was not cleared yet.
    pub(crate) previous_proof: Option<PreviousProof>,
    /// Epoch at which the row was read.
    pub(crate) epoch: i64,
}

/// The access, limits and roles that follow from a token's row and those above it, as of one epoch.
#[derive(Clone, Debug)]
pub(crate) struct EffectiveAccess {
    /// The row of the token itself.
    pub(crate) credentials: CredentialRow,
    /// The access of the whole chain.
    pub(crate) access: TreeAccess,
    /// The token, its parent, and so on up.
    pub(crate) chain: Vec<ChainToken>,
    /// The roles of the owner.
    pub(crate) owner_roles: Roles,
}

impl EffectiveAccess {
    /// Returns the privileges of the token over its whole chain.
    pub(crate) fn into_privileges(self) -> Privileges {
        Privileges {
            roles: self.chain.iter().fold(self.owner_roles, |roles, link| roles.intersect(&link.roles)),
            hard_limit: self.chain.iter().map(|link| link.expiry.hard_limit()).min().unwrap_or(UnixMillis::MAX),
            limits: self.chain.into_iter().map(|link| link.limits).collect(),
            access: Arc::new(self.access),
        }
    }
}

/// One token of a chain: its expiration, limits and roles.
#[derive(Clone, Debug)]
pub(crate) struct ChainToken {
    pub(crate) token: TokenId,
    /// Time of its creation.
    pub(crate) created_at: UnixMillis,
    /// Last use that was written to the store.
    pub(crate) last_used_at: Option<UnixMillis>,
    /// Expiration of the token.
    pub(crate) expiry: TokenExpiry,
    /// Limits of the token.
    pub(crate) limits: TokenLimits,
    /// Roles of the token, which count only while its owner holds them.
    pub(crate) roles: Roles,
    /// Whether it was revoked.
    pub(crate) revoked: bool,
    /// Whether its expiration was recorded, which is final whatever the clock shows later.
    pub(crate) expired: bool,
}

impl Store {
    /// Reads the part of a token that every request needs, in one indexed query; `None` for an unknown id.
    pub(crate) fn credential_row(&self, token: TokenId) -> Result<Option<CredentialRow>> {
        self.read(|c| select_credential_row(c, token))
    }

    /// Reads the effective access of a token in one snapshot; `None` for an unknown id.
    pub(crate) fn effective_access(&self, token: TokenId) -> Result<Option<EffectiveAccess>> {
        self.snapshot(|c| {
            let Some(credentials) = select_credential_row(c, token)? else { return Ok(None) };
            let mut node_rows = NodeRowCache::default();
            let (mut chain, mut links) = (Vec::new(), Vec::new());
            let mut next = Some(token);
            while let Some(token) = next {
                // Creating tokens bounds the chain: only an edited or damaged database has a longer one or a cycle.
                if chain.len() > MAX_CHAIN_TOKENS {
                    return Err(StoreError::Corrupt(format!("the chain of tokens above {token} does not end")));
                }
                let (link, scoped, parent) = select_chain_token(c, token)?;
                // `scoped` decides and not the number of scopes: a token whose scopes all dangle allows nothing.
                let scopes = match scoped {
                    true => Some(resolved_scopes(
                        c,
                        &mut node_rows,
                        "SELECT node, permission FROM scopes WHERE token_id = ?1",
                        token,
                    )?),
                    false => None,
                };
                chain.push(link);
                links.push(ChainLink { token, scopes });
                next = parent;
            }
            // The grants of one owner suffice: a child always has the owner of its parent.
            const GRANTS_QUERY: &str = "SELECT node, permission FROM grants WHERE user_id =
                (SELECT user_id FROM tokens WHERE id = ?1)";
            let access = TreeAccess::new(resolved_scopes(c, &mut node_rows, GRANTS_QUERY, token)?, links);
            Ok(Some(EffectiveAccess { owner_roles: select_owner_roles(c, token)?, credentials, access, chain }))
        })
    }
}

fn select_credential_row(c: &Connection, token: TokenId) -> Result<Option<CredentialRow>> {
    let mut select = c.prepare_cached(
        "SELECT t.phc, t.prefilter, t.old_phc, t.old_prefilter, t.old_secret_until, u.login,
                t.revoked_at IS NOT NULL OR u.disabled_at IS NOT NULL, m.epoch,
                t.key_digest IS NOT NULL, t.old_key_digest IS NOT NULL
         FROM tokens t JOIN users u ON u.id = t.user_id JOIN meta m ON m.\"only\" = 1 WHERE t.id = ?1",
    )?;
    let mut rows = select.query([token])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let previous_proof = match row.get(2)? {
        Some(text) => {
            let proof = TokenProof::from_columns(text, row.get(3)?, row.get(9)?)?;
            Some(PreviousProof { proof, valid_until: row.get(4)? })
        }
        None => None,
    };
    Ok(Some(CredentialRow {
        proof: TokenProof::from_columns(row.get(0)?, row.get(1)?, row.get(8)?)?,
        previous_proof,
        login: row.get(5)?,
        revoked_or_disabled: row.get(6)?,
        epoch: row.get(7)?,
    }))
}

/// Returns the roles of a token's owner.
fn select_owner_roles(c: &Connection, token: TokenId) -> Result<Roles> {
    let mut select =
        c.prepare_cached("SELECT role FROM user_roles WHERE user_id = (SELECT user_id FROM tokens WHERE id = ?1)")?;
    Ok(select.query_map([token], |row| row.get::<_, Role>(0))?.collect::<Result<_, _>>()?)
}

fn select_chain_token(c: &Connection, token: TokenId) -> Result<(ChainToken, bool, Option<TokenId>)> {
    let mut select = c.prepare_cached(
        "SELECT created_at, hard_limit_at, window_ms, limits, revoked_at IS NOT NULL, scoped, parent, last_used_at,
            roles, expiry_recorded
         FROM tokens WHERE id = ?1",
    )?;
    let mut rows = select.query([token])?;
    let row = rows.next()?.ok_or_else(|| StoreError::Corrupt(format!("the parent {token} is gone")))?;
    let expiry = columns::expiry_from_row(row, 1)?;
    let link = ChainToken {
        token,
        created_at: row.get(0)?,
        last_used_at: row.get(7)?,
        expiry,
        limits: row.get(3)?,
        roles: row.get(8)?,
        revoked: row.get(4)?,
        expired: row.get(9)?,
    };
    Ok((link, row.get(5)?, row.get(6)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NodeIdentity, Permission, Scope, TreePath};
    use crate::store::NewTokenRow;
    use crate::store::testing::{
        delete_node, detach_node, id, insert_directory, insert_file, login, move_node, new_token, now, open_temp_store,
        scope, secret_proof,
    };

    const R: Permission = Permission::R;
    const RW: Permission = Permission::RW;

    fn tree_path(path: &str) -> TreePath {
        TreePath::parse(path.as_bytes()).expect("path")
    }

    /// A user with `/a/b` (node 2) and the file `/a/b/f` (node 3), granted `rw` on `/a` (node 1).
    fn store_with_nodes() -> (tempfile::TempDir, Store) {
        let (state, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        insert_directory(&store, 0, 0, "");
        insert_directory(&store, 1, 0, "a");
        insert_directory(&store, 2, 1, "b");
        insert_file(&store, 3, 2, "f");
        store.grant(&login("alice"), scope(1, RW), now()).expect("granted");
        (state, store)
    }

    fn create_token(store: &Store, name: &str, parent: Option<&str>, scopes: Option<Vec<Scope>>) {
        let new = NewTokenRow { parent: parent.map(id), scopes, ..new_token(name, "alice", TokenExpiry::Never) };
        store.add_token(&new).expect("stored");
    }

    fn effective_access(store: &Store, name: &str) -> EffectiveAccess {
        store.effective_access(id(name)).expect("read").expect("there")
    }

    #[test]
    fn scopes_follow_renamed_nodes() {
        let (_state, store) = store_with_nodes();
        create_token(&store, "aaaaaaaa", None, Some(vec![scope(2, R)]));
        let access = effective_access(&store, "aaaaaaaa").access;
        assert!(
            access.may(&tree_path("/a/b/x"), R)
                && !access.may(&tree_path("/a/b"), RW)
                && !access.may(&tree_path("/a"), R)
        );
        move_node(&store, 1, 0, "z");
        let access = effective_access(&store, "aaaaaaaa").access;
        assert!(access.may(&tree_path("/z/b"), R) && !access.may(&tree_path("/a/b"), R));
    }

    #[test]
    fn every_token_of_chain_narrows_access() {
        let (_state, store) = store_with_nodes();
        create_token(&store, "aaaaaaaa", None, Some(vec![scope(3, R)]));
        create_token(&store, "bbbbbbbb", Some("aaaaaaaa"), Some(vec![scope(1, RW)]));
        let effective = effective_access(&store, "bbbbbbbb");
        assert_eq!(effective.chain.iter().map(|link| link.token).collect::<Vec<_>>(), [id("bbbbbbbb"), id("aaaaaaaa")]);
        assert!(effective.access.may(&tree_path("/a/b/f"), R) && !effective.access.may(&tree_path("/a/b"), R));
    }

    #[test]
    fn resolved_scopes_carry_node_identity() {
        let (_state, store) = store_with_nodes();
        create_token(&store, "aaaaaaaa", None, Some(vec![scope(2, R), scope(3, RW)]));
        let access = effective_access(&store, "aaaaaaaa").access;
        let identities: Vec<_> =
            access.effective_grants().iter().filter_map(|root| root.sources.last()).map(|r| r.identity).collect();
        let (inode, birth_time) = (2, Some(20));
        assert_eq!(
            identities,
            [NodeIdentity::Directory { inode, birth_time }, NodeIdentity::File { inode, birth_time }]
        );
    }

    #[test]
    fn stored_token_with_only_dangling_scopes_has_no_access() {
        let (_state, store) = store_with_nodes();
        create_token(&store, "aaaaaaaa", None, Some(vec![scope(2, R)]));
        create_token(&store, "bbbbbbbb", None, None);
        delete_node(&store, 2);
        assert!(effective_access(&store, "aaaaaaaa").access.effective_grants().is_empty());
        assert_eq!(effective_access(&store, "bbbbbbbb").access.effective_grants().len(), 1);
        delete_node(&store, 1);
        assert!(
            effective_access(&store, "bbbbbbbb").access.effective_grants().is_empty(),
            "a grant whose node ended gives nothing"
        );
    }

    #[test]
    fn node_without_path_to_root_dangles() {
        let (_state, store) = store_with_nodes();
        create_token(&store, "aaaaaaaa", None, None);
        move_node(&store, 1, 2, "a");
        assert!(effective_access(&store, "aaaaaaaa").access.effective_grants().is_empty(), "a ring of ancestors ends");
        move_node(&store, 1, 0, "a");
        assert!(!effective_access(&store, "aaaaaaaa").access.effective_grants().is_empty());
        detach_node(&store, 1);
        assert!(
            effective_access(&store, "aaaaaaaa").access.effective_grants().is_empty(),
            "only the root stands below nothing"
        );
    }

    #[test]
    fn every_access_change_advances_epoch() {
        let (_state, store) = store_with_nodes();
        create_token(&store, "aaaaaaaa", None, Some(vec![scope(2, R)]));
        let mut last = store.epoch().expect("read");
        let mut moved = |what: &str| {
            let epoch =
                store.credential_row(id("aaaaaaaa")).expect("read").map_or(i64::MAX, |credentials| credentials.epoch);
            assert!(epoch > last, "{what}");
            last = store.epoch().expect("read");
        };
        move_node(&store, 2, 1, "c");
        moved("a rename");
        delete_node(&store, 2);
        moved("an end");
        store.grant(&login("alice"), scope(0, R), now()).expect("granted");
        moved("a grant");
        store.grant(&login("alice"), scope(0, RW), now()).expect("granted");
        moved("another permission");
        store.revoke_grant(&login("alice"), scope(0, R).node).expect("revoked");
        moved("a grant taken back");
        store.disable_user(&login("alice"), now()).expect("disabled");
        moved("a user disabled");
        store.enable_user(&login("alice")).expect("enabled");
        moved("a user enabled");
        store.rotate_token(id("aaaaaaaa"), &secret_proof("x", 0), None, now()).expect("rotated");
        moved("a rotation");
        store.revoke_tokens(&[id("aaaaaaaa")], now()).expect("revoked");
        moved("a revocation");
        store.delete_user(&login("alice")).expect("deleted");
        moved("a deletion");
    }
}
