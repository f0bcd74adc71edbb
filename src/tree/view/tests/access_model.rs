//! Tests of access in random sequences of grants, scopes, renames and removals: a session may do what grants and scopes
//! allow on the nodes that they were given for, and nothing else. Single operations are in `access.rs`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::Permission;
use crate::store::testing::{login, now};
use crate::tree::{AttributeChanges, OverwriteMode};

/// Path of the model: the names from the root.
type ModelPath = Vec<&'static str>;

/// Node of a grant or scope. A directory keeps its identity when it moves; a file is identified by its directory and
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ModelNode {
    Directory(u32),
    File(u32, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelEntry {
    Directory(u32),
    File,
}

type ModelGrants = Vec<(ModelNode, Permission)>;

/// Random action.
#[derive(Clone, Debug)]
enum ModelAction {
    CreateDirectory(ModelPath),
    CreateFile(ModelPath),
    Move(ModelPath, ModelPath),
    /// Move behind the gateway's back.
    MoveOutsideGateway(ModelPath, ModelPath),
    Remove(ModelPath),
    Grant(ModelPath, Permission),
    RevokeGrant(ModelPath),
    CreateToken(Vec<(ModelPath, Permission)>),
}

/// Expected tree, grants and scopes.
struct AccessModel {
    entries: BTreeMap<ModelPath, ModelEntry>,
    grants: ModelGrants,
    scopes: Vec<Option<ModelGrants>>,
    last_directory_id: u32,
    /// Whether nothing happened behind the gateway's back: then everything that is allowed also works.
    is_exact: bool,
}

impl AccessModel {
    fn new() -> Self {
        let entries = BTreeMap::from([(ModelPath::new(), ModelEntry::Directory(0))]);
        Self { entries, grants: ModelGrants::new(), scopes: vec![None], last_directory_id: 0, is_exact: true }
    }

    fn directory_id(&self, path: &[&'static str]) -> Option<u32> {
        match self.entries.get(path) {
            Some(ModelEntry::Directory(id)) => Some(*id),
            Some(ModelEntry::File) | None => None,
        }
    }

    fn node(&self, path: &[&'static str]) -> Option<ModelNode> {
        match self.entries.get(path)? {
            ModelEntry::Directory(id) => Some(ModelNode::Directory(*id)),
            ModelEntry::File => {
                let (name, parent) = path.split_last()?;
                Some(ModelNode::File(self.directory_id(parent)?, name))
            }
        }
    }

    /// Tells whether an entry can be created there.
    fn is_free(&self, path: &[&'static str]) -> bool {
        let parent = path.split_last().and_then(|(_, parent)| self.directory_id(parent));
        parent.is_some() && !self.entries.contains_key(path)
    }

    fn can_move(&self, from: &ModelPath, to: &ModelPath) -> bool {
        self.entries.contains_key(from) && !from.is_empty() && self.is_free(to) && !to.starts_with(from)
    }

    fn move_entries(&mut self, from: &ModelPath, to: &ModelPath) {
        let moved_paths: Vec<_> = self.entries.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved_paths {
            if let Some(kind) = self.entries.remove(&path) {
                self.entries.insert([to, &path[from.len()..]].concat(), kind);
            }
        }
    }

    fn all_grants(&mut self) -> impl Iterator<Item = &mut ModelGrants> {
        std::iter::once(&mut self.grants).chain(self.scopes.iter_mut().flatten())
    }

    /// Moves an entry, and its grants and scopes with it.
    fn rename(&mut self, from: &ModelPath, to: &ModelPath) {
        let before = self.node(from);
        self.move_entries(from, to);
        let after = self.node(to).expect("there");
        for grant in self.all_grants().flat_map(|grants| grants.iter_mut()) {
            if Some(&grant.0) == before.as_ref() {
                grant.0 = after.clone();
            }
        }
    }

    /// Removes an entry and everything below it, with the grants and scopes there.
    fn remove(&mut self, path: &ModelPath) {
        let below = self.entries.keys().filter(|entry| entry.starts_with(path));
        let removed: Vec<ModelNode> = below.filter_map(|entry| self.node(entry)).collect();
        let is_removed = |node: &ModelNode| match node {
            ModelNode::File(parent, _) if removed.contains(&ModelNode::Directory(*parent)) => true,
            node => removed.contains(node),
        };
        self.entries.retain(|entry, _| !entry.starts_with(path));
        self.all_grants().for_each(|grants| grants.retain(|(node, _)| !is_removed(node)));
    }

    fn permission_at(&self, scopes: Option<&ModelGrants>, path: &[&'static str]) -> Permission {
        let ancestry: Vec<ModelNode> = (0..=path.len()).filter_map(|depth| self.node(&path[..depth])).collect();
        let sum = |grants: &ModelGrants| {
            let matching = grants.iter().filter(|(node, _)| ancestry.contains(node));
            matching.fold(Permission::NONE, |sum, (_, permission)| sum | *permission)
        };
        scopes.map_or(Permission::RW, sum) & sum(&self.grants)
    }
}

/// Tree and model side by side.
struct ModelFixture {
    fixture: TreeFixture,
    model: AccessModel,
    admin: View,
    views: Vec<View>,
}

impl ModelFixture {
    fn new() -> Self {
        let fixture = TreeFixture::new(&[]);
        fixture.create_user("alice", &[]);
        fixture.create_user("admin", &[("/", Permission::RW)]);
        let (admin, unscoped) = (fixture.view("admin"), fixture.view("alice"));
        Self { fixture, model: AccessModel::new(), admin, views: vec![unscoped] }
    }

    /// Runs an action on both, where the model allows it.
    fn run_action(&mut self, action: &ModelAction) {
        let Self { fixture, model, admin, views } = self;
        match action {
            ModelAction::CreateDirectory(path) if model.is_free(path) => {
                model.last_directory_id += 1;
                model.entries.insert(path.clone(), ModelEntry::Directory(model.last_directory_id));
                admin
                    .create_directory(&tree_path(&path_text(path)), &AttributeChanges::default(), &NO_CONDITIONS)
                    .expect("created");
            }
            ModelAction::CreateFile(path) if model.is_free(path) => {
                model.entries.insert(path.clone(), ModelEntry::File);
                put(admin, &path_text(path), "content").expect("put");
            }
            ModelAction::Move(from, to) if model.can_move(from, to) => {
                model.rename(from, to);
                let (source, target) = (tree_path(&path_text(from)), tree_path(&path_text(to)));
                admin.rename(&source, &target, OverwriteMode::Refuse, &NO_CONDITIONS).expect("moved");
            }
            ModelAction::MoveOutsideGateway(from, to) if model.can_move(from, to) => {
                model.move_entries(from, to);
                model.is_exact = false;
                fs::rename(host_path(fixture, &path_text(from)), host_path(fixture, &path_text(to))).expect("moved");
            }
            ModelAction::Remove(path) if model.entries.contains_key(path) && !path.is_empty() => {
                model.remove(path);
                admin.remove_all(&tree_path(&path_text(path)), &NO_CONDITIONS).expect("removed");
            }
            ModelAction::Grant(path, permission) => {
                let Some(node) = model.node(path) else { return };
                model.grants.retain(|(granted, _)| *granted != node || !model.is_exact);
                model.grants.push((node, *permission));
                let scope = fixture.scope_on(&path_text(path), *permission);
                fixture.store.grant(&login("alice"), scope, now()).expect("granted");
            }
            ModelAction::RevokeGrant(path) if model.is_exact => {
                let Some(node) = model.node(path) else { return };
                model.grants.retain(|(granted, _)| *granted != node);
                let scope = fixture.scope_on(&path_text(path), Permission::R);
                fixture.store.revoke_grant(&login("alice"), scope.node).expect("taken back");
            }
            ModelAction::CreateToken(scopes) if views.len() < 4 => {
                let existing = scopes.iter().filter_map(|(path, p)| Some((path, model.node(path)?, *p)));
                let existing: Vec<_> = existing.collect();
                let typed: Vec<_> = existing.iter().map(|(path, _, p)| (path_text(path), *p)).collect();
                let typed: Vec<_> = typed.iter().map(|(path, p)| (path.as_str(), *p)).collect();
                views.push(fixture.scoped_view("alice", &typed));
                let grants = existing.into_iter().map(|(_, node, p)| (node, p)).collect();
                model.scopes.push(Some(grants));
            }
            ModelAction::CreateDirectory(_)
            | ModelAction::CreateFile(_)
            | ModelAction::Move(..)
            | ModelAction::MoveOutsideGateway(..)
            | ModelAction::Remove(_)
            | ModelAction::RevokeGrant(_)
            | ModelAction::CreateToken(_) => {}
        }
    }

    /// Compares reading and writing at every path, with every token.
    fn compare(&self) -> std::result::Result<(), TestCaseError> {
        for (view, scopes) in self.views.iter().zip(&self.model.scopes) {
            for (path, kind) in &self.model.entries {
                let may = self.model.permission_at(scopes.as_ref(), path);
                let (reads, writes) = match kind {
                    ModelEntry::Directory(_) => {
                        (self.lists_all(view, scopes.as_ref(), path)?, self.can_create(view, path))
                    }
                    ModelEntry::File => {
                        (get(view, &path_text(path)).is_ok(), put(view, &path_text(path), "content").is_ok())
                    }
                };
                for (done, needed) in [(reads, Permission::R), (writes, Permission::W)] {
                    prop_assert!(!done || may.allows(needed), "{needed} {} though it may {may}", path_text(path));
                    prop_assert!(
                        done || !may.allows(needed) || !self.model.is_exact,
                        "no {needed} {}",
                        path_text(path)
                    );
                }
            }
        }
        Ok(())
    }

    /// Tells whether a directory lists all of its entries; any other name that it lists must lead to a permitted node.
    fn lists_all(
        &self,
        view: &View,
        scopes: Option<&ModelGrants>,
        path: &ModelPath,
    ) -> std::result::Result<bool, TestCaseError> {
        let Ok(listed) = list_names(view, &path_text(path)) else { return Ok(false) };
        let below = |entry: &&ModelPath| entry.len() > path.len() && entry.starts_with(path);
        let below: Vec<_> = self.model.entries.keys().filter(below).collect();
        let all: BTreeSet<_> = below.iter().map(|entry| entry[path.len()]).collect();
        let reachable = below.iter().filter(|entry| self.model.permission_at(scopes, entry) != Permission::NONE);
        let allowed: BTreeSet<_> = reachable.map(|entry| entry[path.len()]).collect();
        if self.model.permission_at(scopes, path).allows(Permission::R) {
            return Ok(listed.iter().map(String::as_str).eq(all));
        }
        let unexpected = listed.iter().find(|name| !allowed.contains(name.as_str()));
        prop_assert_eq!(unexpected, None, "shown in {}", path_text(path));
        Ok(false)
    }

    /// Tells whether an entry can be created in a directory.
    fn can_create(&self, view: &View, path: &ModelPath) -> bool {
        let probe = tree_path(&path_text(&[path.as_slice(), &["probe"]].concat()));
        let is_created = view.create_directory(&probe, &AttributeChanges::default(), &NO_CONDITIONS).is_ok();
        if is_created {
            self.admin.remove_directory(&probe, &NO_CONDITIONS).expect("removed");
        }
        is_created
    }
}

fn path_text(path: &[&'static str]) -> String {
    format!("/{}", path.join("/"))
}

fn any_path() -> impl Strategy<Value = ModelPath> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4)
}

fn any_path_or_root() -> impl Strategy<Value = ModelPath> {
    prop_oneof![1 => Just(ModelPath::new()), 8 => any_path()]
}

fn any_permission() -> impl Strategy<Value = Permission> {
    prop_oneof![Just(Permission::R), Just(Permission::W), Just(Permission::RW)]
}

fn any_action(outside_moves: u32) -> impl Strategy<Value = ModelAction> {
    prop_oneof![
        6 => any_path().prop_map(ModelAction::CreateDirectory),
        3 => any_path().prop_map(ModelAction::CreateFile),
        6 => (any_path(), any_path()).prop_map(|(from, to)| ModelAction::Move(from, to)),
        outside_moves => (any_path(), any_path()).prop_map(|(from, to)| ModelAction::MoveOutsideGateway(from, to)),
        1 => any_path().prop_map(ModelAction::Remove),
        5 => (any_path_or_root(), any_permission()).prop_map(|(path, permission)| ModelAction::Grant(path, permission)),
        1 => any_path_or_root().prop_map(ModelAction::RevokeGrant),
        3 => proptest::collection::vec((any_path_or_root(), any_permission()), 1..3).prop_map(ModelAction::CreateToken),
    ]
}

/// Returns actions that begin with some directories and files, so that few of the others are without effect.
fn any_actions(outside_moves: u32) -> impl Strategy<Value = Vec<ModelAction>> {
    proptest::collection::vec(any_action(outside_moves), 1..24).prop_map(|actions| {
        let start = [
            ModelAction::CreateDirectory(vec!["a"]),
            ModelAction::CreateDirectory(vec!["a", "b"]),
            ModelAction::CreateDirectory(vec!["b"]),
            ModelAction::CreateFile(vec!["a", "c"]),
            ModelAction::CreateFile(vec!["a", "b", "c"]),
        ];
        start.into_iter().chain(actions).collect()
    })
}

fn run_actions(actions: &[ModelAction]) -> std::result::Result<(), TestCaseError> {
    let mut fixture = ModelFixture::new();
    for action in actions {
        fixture.run_action(action);
        fixture.compare()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn allowed_operations_match_grants_and_scopes(actions in any_actions(1).prop_map(|mut actions| {
        actions.retain(|action| !matches!(action, ModelAction::MoveOutsideGateway(..)));
        actions
    })) {
        run_actions(&actions)?;
    }

    #[test]
    fn changes_outside_gateway_never_extend_access(actions in any_actions(4)) {
        run_actions(&actions)?;
    }
}
