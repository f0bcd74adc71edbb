//! Who may reach what: grants, narrowed by the scopes of a token and of all tokens above it.
//!
//! ```text
//! may(session, node, op) = some grant of the user on node or an ancestor allows op
//!                      AND every token of the chain has no scopes, or one on node or an ancestor allows op
//! ```
//!
//! Two rights on one line of ancestors meet in the deeper of the two places, with what both allow.
//! So the whole rule folds, once, into a list of [`Root`]s, and asking is finding a root above.

use std::collections::BTreeSet;
use std::fmt;

use super::{Name, Permission, Scope, TokenId, TreePath};

/// What a node was recognised by when it was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A folder: its inode and its birth time in nanoseconds since 1970, where the file system has one.
    Folder {
        /// The inode number.
        inode: u64,
        /// The birth time.
        born: Option<i64>,
    },
    /// A file: the folder that holds it (and its name there), so that replacing it keeps it, and one
    /// of the same name in a folder that was swapped is another.
    File {
        /// The inode number of the folder.
        inode: u64,
        /// The birth time of the folder.
        born: Option<i64>,
    },
}

impl Identity {
    /// Tells whether what is recorded and what is found are the same directory. A birth time that one side lacks decides
    /// nothing: a kernel or file system may begin to tell it, or cease to.
    pub fn matches(self, found: Self) -> bool {
        let born = |one: Option<i64>, other: Option<i64>| one.is_none() || other.is_none() || one == other;
        match (self, found) {
            (Self::Folder { inode, born: one }, Self::Folder { inode: other, born: two })
            | (Self::File { inode, born: one }, Self::File { inode: other, born: two }) => {
                inode == other && born(one, two)
            }
            (Self::Folder { .. }, Self::File { .. }) | (Self::File { .. }, Self::Folder { .. }) => false,
        }
    }
}

/// A grant or scope whose node was found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Where the node is.
    pub path: TreePath,
    /// The node and what is allowed there.
    pub scope: Scope,
    /// What must stand at the path for it to be this node.
    pub identity: Identity,
}

/// One token of a chain: the calling token or one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The token.
    pub token: TokenId,
    /// What its scopes reach; `None` for a token without scopes, which narrows nothing. An empty
    /// list is a token whose every scope dangles: it reaches nothing.
    pub scopes: Option<Vec<Reach>>,
}

/// A place at which a permission begins, and all that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Where it begins.
    pub path: TreePath,
    /// What is allowed there and below.
    pub permission: Permission,
    /// The grant, and the scope of each narrowing token, that together give it.
    pub from: Vec<Reach>,
}

/// How a path stands to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Something may be done there.
    Permitted(Permission),
    /// It lies above a permitted node: it can be walked through.
    Visible,
    /// It is as if it were not there.
    Absent,
}

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No grant of the user allows it there.
    NoGrant,
    /// This token's scopes do not allow it there.
    OutOfScope(TokenId),
    /// It would need a permission above the root of the tree.
    TopOfTree,
    /// What was granted or scoped there is another folder now, or gone.
    Swapped,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::NoGrant => f.write_str("no grant of the user allows it there"),
            Denial::OutOfScope(token) => write!(f, "the scopes of the token {token} do not allow it there"),
            Denial::TopOfTree => f.write_str("the root of the tree can't be made, moved or removed"),
            Denial::Swapped => f.write_str("the folder that was granted or scoped was replaced by another"),
        }
    }
}

/// All that a session may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    grants: Vec<Reach>,
    layers: Vec<Layer>,
    roots: Vec<Root>,
}

impl Access {
    /// Folds the user's grants and the chain of tokens into what they allow together.
    pub fn new(grants: Vec<Reach>, layers: Vec<Layer>) -> Self {
        let mut roots: Vec<Root> = grants
            .iter()
            .map(|g| Root { path: g.path.clone(), permission: g.scope.permission, from: vec![g.clone()] })
            .collect();
        for scopes in layers.iter().filter_map(|layer| layer.scopes.as_ref()) {
            roots = outermost(roots.iter().flat_map(|root| scopes.iter().filter_map(|s| meet(root, s))).collect());
        }
        Self { roots: outermost(roots), grants, layers }
    }

    /// Returns the places where permissions begin, none within another that allows as much.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Tells whether one token alone, without scopes, stands behind this.
    pub fn is_unscoped(&self) -> bool {
        matches!(&self.layers[..], [Layer { scopes: None, .. }])
    }

    /// Returns what the scopes of the chain leave of the grants, each at the node where it begins; `None` where
    /// no token of it has scopes.
    pub fn scopes(&self) -> Option<Vec<Scope>> {
        self.layers.iter().find(|layer| layer.scopes.is_some())?;
        let left = |root: &Root| {
            let begins = root.from.iter().find(|reach| reach.path == root.path)?;
            Some(Scope { node: begins.scope.node, permission: root.permission })
        };
        Some(self.roots.iter().filter_map(left).collect())
    }

    /// Returns all that is allowed at a path.
    pub fn permission(&self, path: &TreePath) -> Permission {
        self.above(path).fold(Permission::NONE, |sum, root| sum | root.permission)
    }

    /// Tells whether all of `needed` is allowed at a path.
    pub fn may(&self, path: &TreePath, needed: Permission) -> bool {
        self.permission(path).allows(needed)
    }

    /// Tells how a path stands.
    pub fn standing(&self, path: &TreePath) -> Standing {
        let permission = self.permission(path);
        if permission != Permission::NONE {
            Standing::Permitted(permission)
        } else if path.is_root() || self.roots.iter().any(|root| root.path.is_within(path)) {
            Standing::Visible
        } else {
            Standing::Absent
        }
    }

    /// Returns the topmost ancestor of a path (or itself) at which all of `needed` is allowed: where
    /// resolution is anchored, so that whatever a link below it reaches is allowed too.
    pub fn anchor(&self, path: &TreePath, needed: Permission) -> Option<&TreePath> {
        let fits = self.above(path).map(|root| &root.path).filter(|place| self.may(place, needed));
        fits.min_by_key(|place| place.as_bytes().len())
    }

    /// Returns the roots at or above a path: all that gives a permission there.
    pub fn above(&self, path: &TreePath) -> impl Iterator<Item = &Root> {
        self.roots.iter().filter(|root| path.is_within(&root.path))
    }

    /// Tells whether one root, and not two joined, allows `needed` at both paths.
    pub fn together(&self, one: &TreePath, other: &TreePath, needed: Permission) -> bool {
        self.above(one).any(|root| other.is_within(&root.path) && root.permission.allows(needed))
    }

    /// Returns the entries of a merely visible folder: the next steps down to what may be reached.
    pub fn way_down(&self, folder: &TreePath) -> BTreeSet<Name> {
        let below = self.roots.iter().filter_map(|root| root.path.below(folder));
        below.filter_map(|rest| rest.names().next()).collect()
    }

    /// Tells whether a path is in the listing of the folder that holds it: all that can be read is, and the way
    /// down to what may be reached. In a drop box it is not, though it can be asked for by name.
    pub fn is_listed(&self, path: &TreePath) -> bool {
        let Some(folder) = path.parent() else { return true };
        self.may(&folder, Permission::R) || self.roots.iter().any(|root| root.path.is_within(path))
    }

    /// Returns the deepest place that holds everything that may be reached; the root when nothing may.
    pub fn start(&self) -> TreePath {
        let mut places = self.roots.iter().map(|root| &root.path);
        let Some(first) = places.next() else { return TreePath::root() };
        places.fold(first.clone(), |common, place| {
            let mut start = common;
            while !place.is_within(&start) {
                start = start.parent().unwrap_or_default();
            }
            start
        })
    }

    /// Explains a decision: the roots that allow it, or the first rule that doesn't.
    ///
    /// # Errors
    /// The [`Denial`], exactly when [`Access::may`] is false.
    pub fn explain(&self, path: &TreePath, needed: Permission) -> Result<Vec<&Root>, Denial> {
        if self.may(path, needed) {
            return Ok(self.above(path).collect());
        }
        if !allow(&self.grants, path, needed) {
            return Err(Denial::NoGrant);
        }
        Err(self.narrowed_by(path, needed).map_or(Denial::NoGrant, Denial::OutOfScope))
    }

    /// Returns the first token of the chain whose scopes don't allow all of `needed` at a path, whatever the
    /// grants say.
    pub fn narrowed_by(&self, path: &TreePath, needed: Permission) -> Option<TokenId> {
        let narrows = |layer: &&Layer| layer.scopes.as_ref().is_some_and(|scopes| !allow(scopes, path, needed));
        self.layers.iter().find(narrows).map(|layer| layer.token)
    }
}

fn allow(reaches: &[Reach], path: &TreePath, needed: Permission) -> bool {
    let above = reaches.iter().filter(|reach| path.is_within(&reach.path));
    above.fold(Permission::NONE, |sum, reach| sum | reach.scope.permission).allows(needed)
}

fn meet(root: &Root, scope: &Reach) -> Option<Root> {
    let path = if scope.path.is_within(&root.path) {
        &scope.path
    } else if root.path.is_within(&scope.path) {
        &root.path
    } else {
        return None;
    };
    let permission = root.permission & scope.scope.permission;
    let from = root.from.iter().chain([scope]).cloned().collect();
    (permission != Permission::NONE).then(|| Root { path: path.clone(), permission, from })
}

/// Drops each root within another that allows as much, so that the list stays short.
fn outermost(mut roots: Vec<Root>) -> Vec<Root> {
    roots.sort_by(|a, b| {
        (a.path.as_bytes().len(), b.permission.bits()).cmp(&(b.path.as_bytes().len(), a.permission.bits()))
    });
    let mut kept: Vec<Root> = Vec::new();
    for root in roots {
        if !kept.iter().any(|k| root.path.is_within(&k.path) && k.permission.allows(root.permission)) {
            kept.push(root);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeId;
    use proptest::prelude::*;

    fn reach(path: &str, permission: Permission) -> Reach {
        let path = TreePath::parse(path.as_bytes()).expect("path");
        let scope = Scope { node: NodeId::from_bytes([0; 16]), permission };
        Reach { path, scope, identity: Identity::File { inode: 1, born: None } }
    }

    #[test]
    fn birth_time_decides_only_where_both_sides_have_one() {
        let folder = |inode, born| Identity::Folder { inode, born };
        for (recorded, found, same) in [
            (folder(1, Some(5)), folder(1, Some(5)), true),
            (folder(1, Some(5)), folder(1, Some(6)), false),
            (folder(1, Some(5)), folder(1, None), true),
            (folder(1, None), folder(1, Some(6)), true),
            (folder(1, None), folder(2, None), false),
            (folder(1, None), Identity::File { inode: 1, born: None }, false),
        ] {
            assert_eq!(recorded.matches(found), same, "{recorded:?} {found:?}");
        }
    }

    fn layer(scopes: Option<Vec<Reach>>) -> Layer {
        Layer { token: "JhxND7ci".parse().expect("id"), scopes }
    }

    fn at(path: &str) -> TreePath {
        TreePath::parse(path.as_bytes()).expect("path")
    }

    const R: Permission = Permission::R;
    const W: Permission = Permission::W;
    const RW: Permission = Permission::RW;

    #[test]
    fn grants_reach_what_is_below_them() {
        let access = Access::new(vec![reach("/a", RW), reach("/b/c", R)], vec![layer(None)]);
        assert!(access.may(&at("/a/x/y"), RW));
        assert!(access.may(&at("/b/c/d"), R) && !access.may(&at("/b/c/d"), W));
        assert_eq!(access.standing(&at("/")), Standing::Visible);
        assert_eq!(access.standing(&at("/b")), Standing::Visible);
        assert_eq!(access.standing(&at("/b/x")), Standing::Absent);
        assert_eq!(access.standing(&at("/ab")), Standing::Absent);
    }

    #[test]
    fn scopes_narrow_and_never_widen() {
        let grants = vec![reach("/a", R), reach("/b", RW)];
        let access = Access::new(grants, vec![layer(Some(vec![reach("/", W), reach("/b/c", RW)]))]);
        assert_eq!(access.permission(&at("/a")), Permission::NONE);
        assert_eq!(access.permission(&at("/b")), W);
        assert_eq!(access.permission(&at("/b/c")), RW);
        assert_eq!(access.explain(&at("/a"), R), Err(Denial::OutOfScope("JhxND7ci".parse().expect("id"))));
        assert_eq!(access.explain(&at("/a"), W), Err(Denial::NoGrant));
    }

    #[test]
    fn the_scopes_that_count_are_those_that_the_chain_and_the_grants_leave() {
        let node = |n| NodeId::from_bytes([n; 16]);
        let at_node = |path, permission, n| {
            let mut reach = reach(path, permission);
            reach.scope.node = node(n);
            reach
        };
        let grants = vec![at_node("/a", RW, 1), at_node("/b", R, 2)];
        let above = layer(Some(vec![at_node("/", R, 0), at_node("/c", RW, 3)]));
        let own = layer(Some(vec![at_node("/a/x", RW, 4), at_node("/b", RW, 2)]));
        let scope = |n, permission| Scope { node: node(n), permission };
        let scopes = Access::new(grants.clone(), vec![own, above.clone()]).scopes().expect("narrowed");
        assert_eq!(scopes, [scope(2, R), scope(4, R)]);
        let inherited = Access::new(grants.clone(), vec![layer(None), above]).scopes().expect("narrowed from above");
        assert_eq!(inherited, [scope(1, R), scope(2, R)]);
        assert_eq!(Access::new(grants, vec![layer(None)]).scopes(), None);
    }

    #[test]
    fn a_token_whose_scopes_all_dangle_reaches_nothing() {
        let access = Access::new(vec![reach("/", RW)], vec![layer(Some(Vec::new()))]);
        assert_eq!(access.scopes(), Some(Vec::new()));
        assert_eq!(access.standing(&at("/a")), Standing::Absent);
        assert_eq!(access.standing(&at("/")), Standing::Visible);
        assert!(access.way_down(&at("/")).is_empty());
    }

    #[test]
    fn the_anchor_is_the_topmost_place_that_allows_all() {
        let access = Access::new(vec![reach("/a", R), reach("/a/b", W)], vec![]);
        assert_eq!(access.anchor(&at("/a/b/c"), R), Some(&at("/a")));
        assert_eq!(access.anchor(&at("/a/b/c"), W), Some(&at("/a/b")));
        assert_eq!(access.anchor(&at("/a/b/c"), RW), Some(&at("/a/b")));
        assert_eq!(access.anchor(&at("/a/x"), W), None);
        assert!(!access.together(&at("/a/b/c"), &at("/a/b/d"), RW));
    }

    #[test]
    fn the_way_down_and_the_start_show_only_what_leads_somewhere() {
        let access = Access::new(vec![reach("/t/a/x", R), reach("/t/b", R)], vec![]);
        let names = |folder| access.way_down(&at(folder)).iter().map(Name::to_string).collect::<Vec<_>>();
        assert_eq!(names("/"), ["t"]);
        assert_eq!(names("/t"), ["a", "b"]);
        assert_eq!(names("/t/a"), ["x"]);
        assert_eq!(access.start(), at("/t"));
        assert_eq!(Access::new(vec![reach("/t/a/x", R)], vec![]).start(), at("/t/a/x"));
    }

    fn reaches() -> impl Strategy<Value = Vec<Reach>> {
        let one = (proptest::collection::vec("[ab]", 0..4), 1u8..4)
            .prop_map(|(parts, bits)| reach(&parts.join("/"), Permission::from_bits(bits).expect("bits")));
        proptest::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn the_folded_roots_say_what_the_rule_says(
            grants in reaches(),
            scopes in proptest::collection::vec(proptest::option::of(reaches()), 0..4),
            parts in proptest::collection::vec("[ab]", 0..5),
            bits in 1u8..4,
        ) {
            let path = at(&parts.join("/"));
            let sum = |list: &[Reach]| list.iter().filter(|r| path.is_within(&r.path))
                .fold(Permission::NONE, |sum, r| sum | r.scope.permission);
            let by_rule = scopes.iter().flatten().fold(sum(&grants), |p, list| p & sum(list));
            let access = Access::new(grants.clone(), scopes.iter().cloned().map(layer).collect());
            prop_assert_eq!(access.permission(&path), by_rule);
            let needed = Permission::from_bits(bits).expect("bits");
            prop_assert_eq!(access.explain(&path, needed).is_ok(), by_rule.allows(needed));
            if let Some(anchor) = access.anchor(&path, needed) {
                prop_assert!(path.is_within(anchor) && access.may(anchor, needed));
            } else {
                prop_assert!(!by_rule.allows(needed));
            }
        }
    }
}
