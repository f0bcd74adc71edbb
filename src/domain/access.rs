//! The access rule: grants, narrowed by the scopes of a token and of all tokens above it.
//!
//! ```text
//! may(session, node, op) = some grant of the user on node or an ancestor allows op
//!                      AND every token of the chain has no scopes, or one on node or an ancestor allows op
//! ```
//!
//! Two permissions on one line of ancestors intersect at the deeper of the two paths, with what both allow. So the
//! whole rule is folded, once, into a list of [`EffectiveGrant`]s, and a query looks for those at or above its path.

use std::collections::BTreeSet;
use std::fmt;

use super::{EntryName, Permission, Scope, TokenId, TreePath};

/// Identity of a node, recorded when it was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeIdentity {
    /// A directory: its inode and its birth time in nanoseconds since 1970, where the file system has one.
    Directory {
        /// The inode number.
        inode: u64,
        /// The birth time.
        birth_time: Option<i64>,
    },
    /// A file: the identity of its parent directory (beside its name there), so that a file that replaces it is the
    /// same node, and a file of the same name in another directory is not.
    File {
        /// The inode number of the parent directory.
        inode: u64,
        /// The birth time of the parent directory.
        birth_time: Option<i64>,
    },
}

impl NodeIdentity {
    /// Tells whether a recorded identity matches the one that is found. A birth time that one side lacks is ignored: a
    /// kernel or file system may begin to report it, or cease to.
    pub fn matches(self, found: Self) -> bool {
        let births_match = |one: Option<i64>, other: Option<i64>| one.is_none() || other.is_none() || one == other;
        match (self, found) {
            (Self::Directory { inode, birth_time: one }, Self::Directory { inode: other, birth_time: two })
            | (Self::File { inode, birth_time: one }, Self::File { inode: other, birth_time: two }) => {
                inode == other && births_match(one, two)
            }
            (Self::Directory { .. }, Self::File { .. }) | (Self::File { .. }, Self::Directory { .. }) => false,
        }
    }
}

/// A grant or scope with the path and identity of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedScope {
    /// Path of the node.
    pub path: TreePath,
    /// The node and the permission on it.
    pub scope: Scope,
    /// Identity that the entry at the path must have to be this node.
    pub identity: NodeIdentity,
}

/// One token of a chain: the calling token or one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The token.
    pub token: TokenId,
    /// Its scopes; `None` for a token without scopes, which narrows nothing. An empty list is that of a token whose
    /// scopes all dangle: it allows nothing.
    pub scopes: Option<Vec<ResolvedScope>>,
}

/// A permission on a path and below, with the grants and scopes that it results from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveGrant {
    /// Path at which the permission begins.
    pub path: TreePath,
    /// Permission on that path and below.
    pub permission: Permission,
    /// The grant and the scope of each token with scopes that it results from.
    pub sources: Vec<ResolvedScope>,
}

/// Access of a session to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAccess {
    /// The session has this permission on the path.
    Permitted(Permission),
    /// The path is above a permitted node: it can be traversed.
    Visible,
    /// The path is answered as if it did not exist.
    Absent,
}

/// The reason why an operation is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessDenial {
    /// No grant of the user allows it at the path.
    NoGrant,
    /// The scopes of this token do not allow it at the path.
    OutOfScope(TokenId),
    /// The operation needs a permission on the parent of the root.
    TreeRoot,
    /// The granted or scoped directory was replaced or removed.
    NodeReplaced,
}

impl fmt::Display for AccessDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessDenial::NoGrant => f.write_str("no grant of the user allows it there"),
            AccessDenial::OutOfScope(token) => write!(f, "the scopes of the token {token} do not allow it there"),
            AccessDenial::TreeRoot => f.write_str("the root of the tree can't be created, moved or removed"),
            AccessDenial::NodeReplaced => {
                f.write_str("the directory that was granted or scoped was replaced by another")
            }
        }
    }
}

/// The access of a session to the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeAccess {
    grants: Vec<ResolvedScope>,
    chain: Vec<ChainLink>,
    effective_grants: Vec<EffectiveGrant>,
}

impl TreeAccess {
    /// Folds the user's grants and the chain of tokens into effective grants.
    pub fn new(grants: Vec<ResolvedScope>, chain: Vec<ChainLink>) -> Self {
        let mut effective: Vec<EffectiveGrant> = grants
            .iter()
            .map(|g| EffectiveGrant { path: g.path.clone(), permission: g.scope.permission, sources: vec![g.clone()] })
            .collect();
        // Token by token: each list of scopes is intersected with what the chain has left so far. Redundant grants are
        // dropped after each step, since their number could otherwise multiply with every token.
        for scopes in chain.iter().filter_map(|link| link.scopes.as_ref()) {
            effective = drop_redundant_grants(
                effective.iter().flat_map(|grant| scopes.iter().filter_map(|s| intersect(grant, s))).collect(),
            );
        }
        Self { effective_grants: drop_redundant_grants(effective), grants, chain }
    }

    /// Returns the effective grants, without those below another one that allows as much.
    pub fn effective_grants(&self) -> &[EffectiveGrant] {
        &self.effective_grants
    }

    /// Returns the tokens of the chain: the calling one, its parent, and so on up.
    pub fn chain_tokens(&self) -> impl Iterator<Item = TokenId> {
        self.chain.iter().map(|link| link.token)
    }

    /// Returns the topmost paths at which, and below which, files may be created or changed, in path order.
    pub fn writable_paths(&self) -> Vec<TreePath> {
        let writable = self.effective_grants.iter().filter(|grant| grant.permission.allows(Permission::W));
        let mut paths: Vec<_> = writable.map(|grant| grant.path.clone()).collect();
        paths.sort();
        paths.dedup();
        let is_top = |path: &TreePath| !paths.iter().any(|above| above != path && path.starts_with(above));
        paths.iter().filter(|path| is_top(path)).cloned().collect()
    }

    /// Tells whether the chain is a single token without scopes.
    pub fn is_unscoped(&self) -> bool {
        matches!(&self.chain[..], [ChainLink { scopes: None, .. }])
    }

    /// Returns the effective grants as scopes, each on the node where it begins; `None` where no token of the chain has
    /// scopes.
    pub fn effective_scopes(&self) -> Option<Vec<Scope>> {
        self.chain.iter().find(|link| link.scopes.is_some())?;
        let narrowed = |grant: &EffectiveGrant| {
            let origin = grant.sources.iter().find(|scope| scope.path == grant.path)?;
            Some(Scope { node: origin.scope.node, permission: grant.permission })
        };
        Some(self.effective_grants.iter().filter_map(narrowed).collect())
    }

    /// Returns the whole permission on a path.
    pub fn permission_at(&self, path: &TreePath) -> Permission {
        // A union: the permissions of several grants on one line of ancestors add up.
        self.grants_covering(path).fold(Permission::NONE, |sum, grant| sum | grant.permission)
    }

    /// Tells whether all of `needed` is allowed on a path.
    pub fn may(&self, path: &TreePath, needed: Permission) -> bool {
        self.permission_at(path).allows(needed)
    }

    /// Returns the access to a path: permitted, visible or absent.
    pub fn path_access(&self, path: &TreePath) -> PathAccess {
        let permission = self.permission_at(path);
        if permission != Permission::NONE {
            PathAccess::Permitted(permission)
        // The root is visible to everyone, so that a client without any access can connect and sees an empty directory.
        } else if path.is_root() || self.effective_grants.iter().any(|grant| grant.path.starts_with(path)) {
            PathAccess::Visible
        } else {
            PathAccess::Absent
        }
    }

    /// Returns the topmost ancestor of a path (or the path itself) on which all of `needed` is allowed. Path resolution
    /// is anchored there, so that whatever a symbolic link below it leads to is allowed, too.
    pub fn anchor(&self, path: &TreePath, needed: Permission) -> Option<&TreePath> {
        // `may` counts grants further up as well: two of them may together allow what neither does alone.
        let candidates = self.grants_covering(path).map(|grant| &grant.path).filter(|path| self.may(path, needed));
        candidates.min_by_key(|path| path.as_bytes().len())
    }

    /// Returns the effective grants at or above a path.
    pub fn grants_covering(&self, path: &TreePath) -> impl Iterator<Item = &EffectiveGrant> {
        self.effective_grants.iter().filter(|grant| path.starts_with(&grant.path))
    }

    /// Tells whether a single effective grant allows `needed` on both paths.
    pub fn single_grant_allows(&self, one: &TreePath, other: &TreePath, needed: Permission) -> bool {
        self.grants_covering(one).any(|grant| other.starts_with(&grant.path) && grant.permission.allows(needed))
    }

    /// Returns the entries of a directory that is only visible: the next components of the paths to permitted nodes.
    pub fn visible_children(&self, directory: &TreePath) -> BTreeSet<EntryName> {
        let below = self.effective_grants.iter().filter_map(|grant| grant.path.strip_prefix(directory));
        below.filter_map(|rest| rest.names().next()).collect()
    }

    /// Tells whether a path is in the listing of its parent directory: it is where that can be read, and on the way to
    /// permitted nodes. In a drop box (`w` without `r`) it is not, though it can be requested by name.
    pub fn is_listed(&self, path: &TreePath) -> bool {
        let Some(directory) = path.parent() else { return true };
        self.may(&directory, Permission::R) || self.effective_grants.iter().any(|grant| grant.path.starts_with(path))
    }

    /// Returns the deepest common ancestor of all permitted nodes; the root where there are none.
    pub fn common_ancestor(&self) -> TreePath {
        let mut paths = self.effective_grants.iter().map(|grant| &grant.path);
        let Some(first) = paths.next() else { return TreePath::root() };
        paths.fold(first.clone(), |common, path| {
            let mut start = common;
            while !path.starts_with(&start) {
                start = start.parent().unwrap_or_default();
            }
            start
        })
    }

    /// Returns the effective grants that allow `needed` on a path.
    ///
    /// # Errors
    /// The [`AccessDenial`] of the first rule that denies it, exactly when [`TreeAccess::may`] is false.
    pub fn explain(&self, path: &TreePath, needed: Permission) -> Result<Vec<&EffectiveGrant>, AccessDenial> {
        if self.may(path, needed) {
            return Ok(self.grants_covering(path).collect());
        }
        // Grants before scopes: no scope can give what the user was not granted.
        if !scopes_allow(&self.grants, path, needed) {
            return Err(AccessDenial::NoGrant);
        }
        Err(self.denying_token(path, needed).map_or(AccessDenial::NoGrant, AccessDenial::OutOfScope))
    }

    /// Returns the first token of the chain whose scopes don't allow all of `needed` on a path, whatever the grants
    /// allow.
    pub fn denying_token(&self, path: &TreePath, needed: Permission) -> Option<TokenId> {
        let denies = |link: &&ChainLink| link.scopes.as_ref().is_some_and(|scopes| !scopes_allow(scopes, path, needed));
        self.chain.iter().find(denies).map(|link| link.token)
    }
}

fn scopes_allow(scopes: &[ResolvedScope], path: &TreePath, needed: Permission) -> bool {
    let covering = scopes.iter().filter(|scope| path.starts_with(&scope.path));
    covering.fold(Permission::NONE, |sum, scope| sum | scope.scope.permission).allows(needed)
}

fn intersect(grant: &EffectiveGrant, scope: &ResolvedScope) -> Option<EffectiveGrant> {
    let path = if scope.path.starts_with(&grant.path) {
        &scope.path
    } else if grant.path.starts_with(&scope.path) {
        &grant.path
    } else {
        return None;
    };
    let permission = grant.permission & scope.scope.permission;
    let sources = grant.sources.iter().chain([scope]).cloned().collect();
    (permission != Permission::NONE).then(|| EffectiveGrant { path: path.clone(), permission, sources })
}

/// Drops each grant below another one that allows as much, so that the list stays short.
fn drop_redundant_grants(mut grants: Vec<EffectiveGrant>) -> Vec<EffectiveGrant> {
    // Shorter paths, and larger permissions at the same length, first: a grant that makes another one redundant is kept
    // before that one is looked at.
    grants.sort_by(|a, b| {
        (a.path.as_bytes().len(), b.permission.bits()).cmp(&(b.path.as_bytes().len(), a.permission.bits()))
    });
    let mut kept: Vec<EffectiveGrant> = Vec::new();
    for grant in grants {
        if !kept.iter().any(|other| grant.path.starts_with(&other.path) && other.permission.allows(grant.permission)) {
            kept.push(grant);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeId;
    use proptest::prelude::*;

    fn resolved_scope(path: &str, permission: Permission) -> ResolvedScope {
        let path = TreePath::parse(path.as_bytes()).expect("path");
        let scope = Scope { node: NodeId::from_bytes([0; 16]), permission };
        ResolvedScope { path, scope, identity: NodeIdentity::File { inode: 1, birth_time: None } }
    }

    #[test]
    fn birth_time_is_compared_only_if_both_sides_have_one() {
        let directory = |inode, birth_time| NodeIdentity::Directory { inode, birth_time };
        for (recorded, found, same) in [
            (directory(1, Some(5)), directory(1, Some(5)), true),
            (directory(1, Some(5)), directory(1, Some(6)), false),
            (directory(1, Some(5)), directory(1, None), true),
            (directory(1, None), directory(1, Some(6)), true),
            (directory(1, None), directory(2, None), false),
            (directory(1, None), NodeIdentity::File { inode: 1, birth_time: None }, false),
        ] {
            assert_eq!(recorded.matches(found), same, "{recorded:?} {found:?}");
        }
    }

    fn chain_link(scopes: Option<Vec<ResolvedScope>>) -> ChainLink {
        ChainLink { token: "JhxND7ci".parse().expect("id"), scopes }
    }

    fn tree_path(path: &str) -> TreePath {
        TreePath::parse(path.as_bytes()).expect("path")
    }

    const R: Permission = Permission::R;
    const W: Permission = Permission::W;
    const RW: Permission = Permission::RW;

    #[test]
    fn grants_inherit_downward() {
        let access = TreeAccess::new(vec![resolved_scope("/a", RW), resolved_scope("/b/c", R)], vec![chain_link(None)]);
        assert!(access.may(&tree_path("/a/x/y"), RW));
        assert!(access.may(&tree_path("/b/c/d"), R) && !access.may(&tree_path("/b/c/d"), W));
        assert_eq!(access.path_access(&tree_path("/")), PathAccess::Visible);
        assert_eq!(access.path_access(&tree_path("/b")), PathAccess::Visible);
        assert_eq!(access.path_access(&tree_path("/b/x")), PathAccess::Absent);
        assert_eq!(access.path_access(&tree_path("/ab")), PathAccess::Absent);
    }

    #[test]
    fn scopes_narrow_and_never_widen() {
        let grants = vec![resolved_scope("/a", R), resolved_scope("/b", RW)];
        let access =
            TreeAccess::new(grants, vec![chain_link(Some(vec![resolved_scope("/", W), resolved_scope("/b/c", RW)]))]);
        assert_eq!(access.permission_at(&tree_path("/a")), Permission::NONE);
        assert_eq!(access.permission_at(&tree_path("/b")), W);
        assert_eq!(access.permission_at(&tree_path("/b/c")), RW);
        assert_eq!(access.explain(&tree_path("/a"), R), Err(AccessDenial::OutOfScope("JhxND7ci".parse().expect("id"))));
        assert_eq!(access.explain(&tree_path("/a"), W), Err(AccessDenial::NoGrant));
    }

    #[test]
    fn effective_scopes_intersect_chain_and_grants() {
        let node = |n| NodeId::from_bytes([n; 16]);
        let at_node = |path, permission, n| {
            let mut scope = resolved_scope(path, permission);
            scope.scope.node = node(n);
            scope
        };
        let grants = vec![at_node("/a", RW, 1), at_node("/b", R, 2)];
        let above = chain_link(Some(vec![at_node("/", R, 0), at_node("/c", RW, 3)]));
        let own = chain_link(Some(vec![at_node("/a/x", RW, 4), at_node("/b", RW, 2)]));
        let scope = |n, permission| Scope { node: node(n), permission };
        let scopes = TreeAccess::new(grants.clone(), vec![own, above.clone()]).effective_scopes().expect("narrowed");
        assert_eq!(scopes, [scope(2, R), scope(4, R)]);
        let inherited = TreeAccess::new(grants.clone(), vec![chain_link(None), above])
            .effective_scopes()
            .expect("narrowed from above");
        assert_eq!(inherited, [scope(1, R), scope(2, R)]);
        assert_eq!(TreeAccess::new(grants, vec![chain_link(None)]).effective_scopes(), None);
    }

    #[test]
    fn token_with_only_dangling_scopes_has_no_access() {
        let access = TreeAccess::new(vec![resolved_scope("/", RW)], vec![chain_link(Some(Vec::new()))]);
        assert_eq!(access.effective_scopes(), Some(Vec::new()));
        assert_eq!(access.path_access(&tree_path("/a")), PathAccess::Absent);
        assert_eq!(access.path_access(&tree_path("/")), PathAccess::Visible);
        assert!(access.visible_children(&tree_path("/")).is_empty());
    }

    #[test]
    fn anchor_is_topmost_ancestor_that_allows_operation() {
        let access = TreeAccess::new(vec![resolved_scope("/a", R), resolved_scope("/a/b", W)], vec![]);
        assert_eq!(access.anchor(&tree_path("/a/b/c"), R), Some(&tree_path("/a")));
        assert_eq!(access.anchor(&tree_path("/a/b/c"), W), Some(&tree_path("/a/b")));
        assert_eq!(access.anchor(&tree_path("/a/b/c"), RW), Some(&tree_path("/a/b")));
        assert_eq!(access.anchor(&tree_path("/a/x"), W), None);
        assert!(!access.single_grant_allows(&tree_path("/a/b/c"), &tree_path("/a/b/d"), RW));
    }

    #[test]
    fn visible_children_lead_only_to_permitted_nodes() {
        let access = TreeAccess::new(vec![resolved_scope("/t/a/x", R), resolved_scope("/t/b", R)], vec![]);
        let names = |directory| {
            access.visible_children(&tree_path(directory)).iter().map(EntryName::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("/"), ["t"]);
        assert_eq!(names("/t"), ["a", "b"]);
        assert_eq!(names("/t/a"), ["x"]);
        assert_eq!(access.common_ancestor(), tree_path("/t"));
        assert_eq!(TreeAccess::new(vec![resolved_scope("/t/a/x", R)], vec![]).common_ancestor(), tree_path("/t/a/x"));
    }

    fn resolved_scopes() -> impl Strategy<Value = Vec<ResolvedScope>> {
        let one = (proptest::collection::vec("[ab]", 0..4), 1u8..4)
            .prop_map(|(parts, bits)| resolved_scope(&parts.join("/"), Permission::from_bits(bits).expect("bits")));
        proptest::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn effective_grants_match_access_rule(
            grants in resolved_scopes(),
            scopes in proptest::collection::vec(proptest::option::of(resolved_scopes()), 0..4),
            parts in proptest::collection::vec("[ab]", 0..5),
            bits in 1u8..4,
        ) {
            let path = tree_path(&parts.join("/"));
            let sum = |list: &[ResolvedScope]| list.iter().filter(|r| path.starts_with(&r.path))
                .fold(Permission::NONE, |sum, r| sum | r.scope.permission);
            let by_rule = scopes.iter().flatten().fold(sum(&grants), |p, list| p & sum(list));
            let access = TreeAccess::new(grants.clone(), scopes.iter().cloned().map(chain_link).collect());
            prop_assert_eq!(access.permission_at(&path), by_rule);
            let needed = Permission::from_bits(bits).expect("bits");
            prop_assert_eq!(access.explain(&path, needed).is_ok(), by_rule.allows(needed));
            if let Some(anchor) = access.anchor(&path, needed) {
                prop_assert!(path.starts_with(anchor) && access.may(anchor, needed));
            } else {
                prop_assert!(!by_rule.allows(needed));
            }
        }
    }
}
