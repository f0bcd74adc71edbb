//! What a token may reach, joined from all the rows that say so.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::tokens::{Grace, Sealed};
use super::{Result, Store, StoreError, columns};
use crate::domain::{
    ChainLink, Login, NodeId, NodeIdentity, Permission, Privileges, ResolvedScope, Role, Roles, Scope, TokenExpiry,
    TokenId, TokenLimits, TreeAccess, TreePath, UnixMillis,
};

/// How many tokens may stand above one another: what a request has to read stays bounded.
pub(super) const MAX_CHAIN: usize = 32;

/// A grant or scope, and where its node is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The node and what is allowed there.
    pub scope: Scope,
    /// Where the node is; `None` when it dangles.
    pub path: Option<TreePath>,
}

/// What is read of a token at every request: what proves it, what kills it, and the epoch that
/// tells whether a [`Reached`] still holds.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The owner.
    pub(crate) login: Login,
    /// Whether the owner or the token itself is dead whatever else holds.
    pub(crate) refused: bool,
    /// What the present secret was sealed to.
    pub(crate) sealed: Sealed,
    /// The secret before it, and until when.
    pub(crate) grace: Option<Grace>,
    /// The epoch at which this was read.
    pub(crate) epoch: i64,
}

/// All that follows from a token's row and the rows above it, as of one epoch.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// The row of the token itself.
    pub(crate) caller: Caller,
    /// What may be reached.
    pub(crate) access: TreeAccess,
    /// The token, its parent, and so on up.
    pub(crate) chain: Vec<Link>,
    /// What the owner may give its tokens.
    pub(crate) held: Roles,
}

impl Reached {
    /// Returns what bounds the token over its whole chain.
    pub(crate) fn width(self) -> Privileges {
        Privileges {
            roles: self.chain.iter().fold(self.held, |held, link| held.intersect(&link.roles)),
            hard_limit: self.chain.iter().map(|link| link.expiry.hard_limit()).min().unwrap_or(UnixMillis::MAX),
            limits: self.chain.into_iter().map(|link| link.limits).collect(),
            access: Arc::new(self.access),
        }
    }
}

/// One token of a chain: what bounds its life and who may use it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// The token.
    pub(crate) token: TokenId,
    /// When it was made.
    pub(crate) created_at: UnixMillis,
    /// When it was last used, as far as is written down.
    pub(crate) last_used_at: Option<UnixMillis>,
    /// When it dies.
    pub(crate) expiry: TokenExpiry,
    /// What it is limited to.
    pub(crate) limits: TokenLimits,
    /// What it may do through the REST API beyond its own tokens, while its owner holds that.
    pub(crate) roles: Roles,
    /// Whether it was revoked.
    pub(crate) revoked: bool,
    /// Whether it was noted that it has expired, which holds whatever the clock shows.
    pub(crate) expired: bool,
}

impl Store {
    /// Reads what every request needs of a token, in one indexed read; `None` for an unknown id.
    pub(crate) fn caller(&self, token: TokenId) -> Result<Option<Caller>> {
        self.read(|c| caller(c, token))
    }

    /// Reads all that a token may do; `None` for an unknown id.
    pub(crate) fn reach(&self, token: TokenId) -> Result<Option<Reached>> {
        self.snapshot(|c| {
            let Some(caller) = caller(c, token)? else { return Ok(None) };
            let mut nodes = Nodes::default();
            let (mut chain, mut layers) = (Vec::new(), Vec::new());
            let mut next = Some(token);
            while let Some(token) = next {
                if chain.len() > MAX_CHAIN {
                    return Err(StoreError::Damaged(format!("the chain of tokens above {token} does not end")));
                }
                let (link, scoped, parent) = link(c, token)?;
                let scopes = match scoped {
                    true => {
                        Some(reaches(c, &mut nodes, "SELECT node, permission FROM scopes WHERE token_id = ?1", token)?)
                    }
                    false => None,
                };
                chain.push(link);
                layers.push(ChainLink { token, scopes });
                next = parent;
            }
            const GRANTS: &str = "SELECT node, permission FROM grants WHERE user_id =
                (SELECT user_id FROM tokens WHERE id = ?1)";
            let access = TreeAccess::new(reaches(c, &mut nodes, GRANTS, token)?, layers);
            Ok(Some(Reached { held: held(c, token)?, caller, access, chain }))
        })
    }
}

fn caller(c: &Connection, token: TokenId) -> Result<Option<Caller>> {
    let mut select = c.prepare_cached(
        "SELECT t.phc, t.prefilter, t.old_phc, t.old_prefilter, t.old_until, u.login,
                t.revoked_at IS NOT NULL OR u.disabled_at IS NOT NULL, m.epoch
         FROM tokens t JOIN users u ON u.id = t.user_id JOIN meta m ON m.only = 1 WHERE t.id = ?1",
    )?;
    let mut rows = select.query([token])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let grace = match row.get(2)? {
        Some(phc) => Some(Grace { sealed: Sealed { phc, prefilter: row.get(3)? }, until: row.get(4)? }),
        None => None,
    };
    Ok(Some(Caller {
        sealed: Sealed { phc: row.get(0)?, prefilter: row.get(1)? },
        grace,
        login: row.get(5)?,
        refused: row.get(6)?,
        epoch: row.get(7)?,
    }))
}

/// Returns the roles of a token's owner.
fn held(c: &Connection, token: TokenId) -> Result<Roles> {
    let mut select =
        c.prepare_cached("SELECT role FROM user_roles WHERE user_id = (SELECT user_id FROM tokens WHERE id = ?1)")?;
    Ok(select.query_map([token], |row| row.get::<_, Role>(0))?.collect::<Result<_, _>>()?)
}

fn link(c: &Connection, token: TokenId) -> Result<(Link, bool, Option<TokenId>)> {
    let mut select = c.prepare_cached(
        "SELECT created_at, hard_at, window_ms, limits, revoked_at IS NOT NULL, scoped, parent, last_used_at,
            roles, expiry_noted
         FROM tokens WHERE id = ?1",
    )?;
    let mut rows = select.query([token])?;
    let row = rows.next()?.ok_or_else(|| StoreError::Damaged(format!("the parent {token} is gone")))?;
    let expiry = columns::expiry(row, 1)?;
    let link = Link {
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

/// Refuses a node that was never named or has ended.
pub(super) fn named(c: &Connection, node: NodeId) -> Result<()> {
    let mut select = c.prepare_cached("SELECT 1 FROM nodes WHERE id = ?1")?;
    if select.exists([node])? { Ok(()) } else { Err(StoreError::Missing(format!("the node {node}"))) }
}

/// Returns where a node is; `None` when it dangles.
pub(super) fn place(c: &Connection, node: NodeId) -> Result<Option<TreePath>> {
    Ok(Nodes::default().place(c, node)?.map(|(path, _)| path))
}

/// Reads grants or scopes with where their nodes are.
pub(super) fn placed(c: &Connection, query: &str, of: impl rusqlite::ToSql) -> Result<Vec<Placed>> {
    let mut nodes = Nodes::default();
    let scopes = scopes(c, query, of)?.into_iter();
    scopes.map(|scope| Ok(Placed { scope, path: nodes.place(c, scope.node)?.map(|(path, _)| path) })).collect()
}

/// Reads grants or scopes; leaves those out that dangle.
fn reaches(c: &Connection, nodes: &mut Nodes, query: &str, of: impl rusqlite::ToSql) -> Result<Vec<ResolvedScope>> {
    let mut found = Vec::new();
    for scope in scopes(c, query, of)? {
        if let Some((path, identity)) = nodes.place(c, scope.node)? {
            found.push(ResolvedScope { path, scope, identity });
        }
    }
    Ok(found)
}

fn scopes(c: &Connection, query: &str, of: impl rusqlite::ToSql) -> Result<Vec<Scope>> {
    let mut select = c.prepare_cached(query)?;
    let scope = |row: &rusqlite::Row<'_>| Ok(Scope { node: row.get(0)?, permission: row.get::<_, Permission>(1)? });
    Ok(select.query_map([of], scope)?.collect::<Result<_, _>>()?)
}

/// The nodes' rows read so far in one go: ancestors are mostly shared.
#[derive(Default)]
struct Nodes(HashMap<NodeId, Option<Node>>);

#[derive(Clone)]
struct Node {
    parent: Option<NodeId>,
    name: Vec<u8>,
    folder: bool,
    inode: Option<i64>,
    born: Option<i64>,
}

impl Nodes {
    /// Returns where a node is and what it was recognised by; `None` when it dangles: it has no row,
    /// or its ancestors don't lead to the root.
    fn place(&mut self, c: &Connection, id: NodeId) -> Result<Option<(TreePath, NodeIdentity)>> {
        let Some(node) = self.row(c, id)? else { return Ok(None) };
        let holder = match (node.folder, node.parent) {
            (true, _) => Some(node.clone()),
            (false, Some(parent)) => self.row(c, parent)?,
            (false, None) => None,
        };
        let Some((Some(inode), born)) = holder.map(|holder| (holder.inode, holder.born)) else { return Ok(None) };
        let inode = inode.cast_unsigned();
        let identity = if node.folder {
            NodeIdentity::Directory { inode, birth_time: born }
        } else {
            NodeIdentity::File { inode, birth_time: born }
        };
        Ok(self.path(c, node)?.map(|path| (path, identity)))
    }

    fn path(&mut self, c: &Connection, node: Node) -> Result<Option<TreePath>> {
        let mut names = Vec::new();
        let mut length = 0;
        let mut here = node;
        while let Some(parent) = here.parent {
            length += here.name.len() + 1;
            names.push(here.name);
            match self.row(c, parent)? {
                Some(row) if row.folder && length <= 4096 => here = row,
                _ => return Ok(None),
            }
        }
        if !here.name.is_empty() {
            return Ok(None);
        }
        names.reverse();
        Ok(TreePath::parse(&names.join(&b'/')).ok())
    }

    fn row(&mut self, c: &Connection, id: NodeId) -> Result<Option<Node>> {
        if let Some(known) = self.0.get(&id) {
            return Ok(known.clone());
        }
        let mut select = c.prepare_cached("SELECT parent, name, folder, inode, born FROM nodes WHERE id = ?1")?;
        let node = |row: &rusqlite::Row<'_>| {
            Ok(Node {
                parent: row.get(0)?,
                name: row.get(1)?,
                folder: row.get(2)?,
                inode: row.get(3)?,
                born: row.get(4)?,
            })
        };
        let found = select.query_row([id], node).optional()?;
        self.0.insert(id, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewToken;
    use crate::store::testing::{file, folder, id, login, now, opened, orphan, remove, rename, scope, token};

    const R: Permission = Permission::R;
    const RW: Permission = Permission::RW;

    fn at(path: &str) -> TreePath {
        TreePath::parse(path.as_bytes()).expect("path")
    }

    /// A user with `/a/b` (node 2) and the file `/a/b/f` (node 3), granted `rw` on `/a` (node 1).
    fn world() -> (tempfile::TempDir, Store) {
        let (state, store) = opened();
        store.create_user(&login("alice"), &[], now()).expect("user");
        folder(&store, 0, 0, "");
        folder(&store, 1, 0, "a");
        folder(&store, 2, 1, "b");
        file(&store, 3, 2, "f");
        store.grant(&login("alice"), scope(1, RW), now()).expect("granted");
        (state, store)
    }

    fn made(store: &Store, name: &str, parent: Option<&str>, scopes: Option<Vec<Scope>>) {
        let new = NewToken { parent: parent.map(id), scopes, ..token(name, "alice", TokenExpiry::Never) };
        store.add_token(&new).expect("kept");
    }

    fn reached(store: &Store, name: &str) -> Reached {
        store.reach(id(name)).expect("read").expect("there")
    }

    #[test]
    fn scopes_narrow_grants_wherever_the_node_goes() {
        let (_state, store) = world();
        made(&store, "aaaaaaaa", None, Some(vec![scope(2, R)]));
        let access = reached(&store, "aaaaaaaa").access;
        assert!(access.may(&at("/a/b/x"), R) && !access.may(&at("/a/b"), RW) && !access.may(&at("/a"), R));
        rename(&store, 1, 0, "z");
        let access = reached(&store, "aaaaaaaa").access;
        assert!(access.may(&at("/z/b"), R) && !access.may(&at("/a/b"), R));
    }

    #[test]
    fn every_token_of_the_chain_narrows() {
        let (_state, store) = world();
        made(&store, "aaaaaaaa", None, Some(vec![scope(3, R)]));
        made(&store, "bbbbbbbb", Some("aaaaaaaa"), Some(vec![scope(1, RW)]));
        let reached = reached(&store, "bbbbbbbb");
        assert_eq!(reached.chain.iter().map(|link| link.token).collect::<Vec<_>>(), [id("bbbbbbbb"), id("aaaaaaaa")]);
        assert!(reached.access.may(&at("/a/b/f"), R) && !reached.access.may(&at("/a/b"), R));
    }

    #[test]
    fn nodes_carry_what_they_were_recognised_by() {
        let (_state, store) = world();
        made(&store, "aaaaaaaa", None, Some(vec![scope(2, R), scope(3, RW)]));
        let access = reached(&store, "aaaaaaaa").access;
        let identities: Vec<_> =
            access.effective_grants().iter().filter_map(|root| root.sources.last()).map(|r| r.identity).collect();
        let (inode, birth_time) = (2, Some(20));
        assert_eq!(
            identities,
            [NodeIdentity::Directory { inode, birth_time }, NodeIdentity::File { inode, birth_time }]
        );
    }

    #[test]
    fn a_token_whose_scopes_all_dangle_reaches_nothing() {
        let (_state, store) = world();
        made(&store, "aaaaaaaa", None, Some(vec![scope(2, R)]));
        made(&store, "bbbbbbbb", None, None);
        remove(&store, 2);
        assert!(reached(&store, "aaaaaaaa").access.effective_grants().is_empty());
        assert_eq!(reached(&store, "bbbbbbbb").access.effective_grants().len(), 1);
        remove(&store, 1);
        assert!(
            reached(&store, "bbbbbbbb").access.effective_grants().is_empty(),
            "a grant whose node ended gives nothing"
        );
    }

    #[test]
    fn a_node_whose_ancestors_do_not_lead_to_the_root_dangles() {
        let (_state, store) = world();
        made(&store, "aaaaaaaa", None, None);
        rename(&store, 1, 2, "a");
        assert!(reached(&store, "aaaaaaaa").access.effective_grants().is_empty(), "a ring of ancestors ends");
        rename(&store, 1, 0, "a");
        assert!(!reached(&store, "aaaaaaaa").access.effective_grants().is_empty());
        orphan(&store, 1);
        assert!(reached(&store, "aaaaaaaa").access.effective_grants().is_empty(), "only the root stands below nothing");
    }

    #[test]
    fn whatever_may_change_an_access_moves_the_epoch() {
        let (_state, store) = world();
        made(&store, "aaaaaaaa", None, Some(vec![scope(2, R)]));
        let mut last = store.epoch().expect("read");
        let mut moved = |what: &str| {
            let epoch = store.caller(id("aaaaaaaa")).expect("read").map_or(i64::MAX, |caller| caller.epoch);
            assert!(epoch > last, "{what}");
            last = store.epoch().expect("read");
        };
        rename(&store, 2, 1, "c");
        moved("a rename");
        remove(&store, 2);
        moved("an end");
        store.grant(&login("alice"), scope(0, R), now()).expect("granted");
        moved("a grant");
        store.grant(&login("alice"), scope(0, RW), now()).expect("granted");
        moved("another permission");
        store.revoke_grant(&login("alice"), scope(0, R).node).expect("taken back");
        moved("a grant taken back");
        store.disable_user(&login("alice"), now()).expect("disabled");
        moved("a user disabled");
        store.enable_user(&login("alice")).expect("enabled");
        moved("a user enabled");
        store
            .rotate_token(id("aaaaaaaa"), &crate::store::Sealed { phc: "x".to_owned(), prefilter: [0; 8] }, None)
            .expect("rotated");
        moved("a rotation");
        store.revoke_tokens(&[id("aaaaaaaa")], now()).expect("revoked");
        moved("a revocation");
        store.delete_user(&login("alice")).expect("deleted");
        moved("a deletion");
    }
}
