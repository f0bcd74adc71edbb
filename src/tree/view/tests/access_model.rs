//! Whatever is granted, scoped, renamed, moved and deleted, in whatever order: a session may do what
//! grants and scopes say of the nodes they were given on, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::Permission;
use crate::store::testing::{login, now};
use crate::tree::{AttributeChanges, OverwriteMode};

/// A path of the model: the names from the root.
type ModelPath = Vec<&'static str>;

/// What grants and scopes are given on. A folder is itself wherever it goes; a file is its folder and
/// its name there.
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

/// What somebody does.
#[derive(Clone, Debug)]
enum ModelAction {
    CreateDirectory(ModelPath),
    CreateFile(ModelPath),
    Move(ModelPath, ModelPath),
    /// A move behind the gateway's back.
    MoveOutsideGateway(ModelPath, ModelPath),
    Remove(ModelPath),
    Grant(ModelPath, Permission),
    RevokeGrant(ModelPath),
    CreateToken(Vec<(ModelPath, Permission)>),
}

/// The tree, grants and scopes as the rule has them.
struct AccessModel {
    entries: BTreeMap<ModelPath, ModelEntry>,
    grants: ModelGrants,
    scopes: Vec<Option<ModelGrants>>,
    last_directory_id: u32,
    /// Whether nothing happened behind the gateway's back: then all that is allowed works, too.
    is_exact: bool,
}

impl AccessModel {
    fn new() -> Self {
        let entries = BTreeMap::from([(ModelPath::new(), ModelEntry::Directory(0))]);
        Self { entries, grants: ModelGrants::new(), scopes: vec![None], last_directory_id: 0, is_exact: true }
    }

    fn directory_id(&self, way: &[&'static str]) -> Option<u32> {
        match self.entries.get(way) {
            Some(ModelEntry::Directory(id)) => Some(*id),
            Some(ModelEntry::File) | None => None,
        }
    }

    fn node(&self, way: &[&'static str]) -> Option<ModelNode> {
        match self.entries.get(way)? {
            ModelEntry::Directory(id) => Some(ModelNode::Directory(*id)),
            ModelEntry::File => {
                let (name, parent) = way.split_last()?;
                Some(ModelNode::File(self.directory_id(parent)?, name))
            }
        }
    }

    /// Tells whether something new can be made there.
    fn is_free(&self, way: &[&'static str]) -> bool {
        let parent = way.split_last().and_then(|(_, parent)| self.directory_id(parent));
        parent.is_some() && !self.entries.contains_key(way)
    }

    fn can_move(&self, from: &ModelPath, to: &ModelPath) -> bool {
        self.entries.contains_key(from) && !from.is_empty() && self.is_free(to) && !to.starts_with(from)
    }

    fn move_entries(&mut self, from: &ModelPath, to: &ModelPath) {
        let carried: Vec<_> = self.entries.keys().filter(|way| way.starts_with(from)).cloned().collect();
        for way in carried {
            if let Some(kind) = self.entries.remove(&way) {
                self.entries.insert([to, &way[from.len()..]].concat(), kind);
            }
        }
    }

    fn all_grants(&mut self) -> impl Iterator<Item = &mut ModelGrants> {
        std::iter::once(&mut self.grants).chain(self.scopes.iter_mut().flatten())
    }

    /// Moves an entry; what was given on it goes with it.
    fn rename(&mut self, from: &ModelPath, to: &ModelPath) {
        let before = self.node(from);
        self.move_entries(from, to);
        let after = self.node(to).expect("there");
        for right in self.all_grants().flat_map(|rights| rights.iter_mut()) {
            if Some(&right.0) == before.as_ref() {
                right.0 = after.clone();
            }
        }
    }

    /// Removes an entry and all below it; what was given there ends.
    fn remove(&mut self, way: &ModelPath) {
        let inside = self.entries.keys().filter(|entry| entry.starts_with(way));
        let gone: Vec<ModelNode> = inside.filter_map(|entry| self.node(entry)).collect();
        let ended = |node: &ModelNode| match node {
            ModelNode::File(folder, _) if gone.contains(&ModelNode::Directory(*folder)) => true,
            node => gone.contains(node),
        };
        self.entries.retain(|entry, _| !entry.starts_with(way));
        self.all_grants().for_each(|rights| rights.retain(|(node, _)| !ended(node)));
    }

    fn permission_at(&self, scopes: Option<&ModelGrants>, way: &[&'static str]) -> Permission {
        let line: Vec<ModelNode> = (0..=way.len()).filter_map(|depth| self.node(&way[..depth])).collect();
        let sum = |rights: &ModelGrants| {
            let given = rights.iter().filter(|(node, _)| line.contains(node));
            given.fold(Permission::NONE, |sum, (_, permission)| sum | *permission)
        };
        scopes.map_or(Permission::RW, sum) & sum(&self.grants)
    }
}

/// The house beside its model.
struct ModelFixture {
    fixture: TreeFixture,
    model: AccessModel,
    admin: View,
    views: Vec<View>,
}

impl ModelFixture {
    fn new() -> Self {
        let house = TreeFixture::new(&[]);
        house.create_user("alice", &[]);
        house.create_user("admin", &[("/", Permission::RW)]);
        let (admin, whole) = (house.view("admin"), house.view("alice"));
        Self { fixture: house, model: AccessModel::new(), admin, views: vec![whole] }
    }

    /// Does something to both, where the model says that it can be done.
    fn run_action(&mut self, deed: &ModelAction) {
        let Self { fixture: house, model, admin, views } = self;
        match deed {
            ModelAction::CreateDirectory(way) if model.is_free(way) => {
                model.last_directory_id += 1;
                model.entries.insert(way.clone(), ModelEntry::Directory(model.last_directory_id));
                admin
                    .create_directory(&tree_path(&path_text(way)), &AttributeChanges::default(), &NO_CONDITIONS)
                    .expect("made");
            }
            ModelAction::CreateFile(way) if model.is_free(way) => {
                model.entries.insert(way.clone(), ModelEntry::File);
                put(admin, &path_text(way), "content").expect("put");
            }
            ModelAction::Move(from, to) if model.can_move(from, to) => {
                model.rename(from, to);
                let (source, target) = (tree_path(&path_text(from)), tree_path(&path_text(to)));
                admin.rename(&source, &target, OverwriteMode::Refuse, &NO_CONDITIONS).expect("moved");
            }
            ModelAction::MoveOutsideGateway(from, to) if model.can_move(from, to) => {
                model.move_entries(from, to);
                model.is_exact = false;
                fs::rename(host_path(house, &path_text(from)), host_path(house, &path_text(to))).expect("moved");
            }
            ModelAction::Remove(way) if model.entries.contains_key(way) && !way.is_empty() => {
                model.remove(way);
                admin.remove_all(&tree_path(&path_text(way)), &NO_CONDITIONS).expect("removed");
            }
            ModelAction::Grant(way, permission) => {
                let Some(node) = model.node(way) else { return };
                model.grants.retain(|(granted, _)| *granted != node || !model.is_exact);
                model.grants.push((node, *permission));
                let scope = house.scope_on(&path_text(way), *permission);
                house.store.grant(&login("alice"), scope, now()).expect("granted");
            }
            ModelAction::RevokeGrant(way) if model.is_exact => {
                let Some(node) = model.node(way) else { return };
                model.grants.retain(|(granted, _)| *granted != node);
                let scope = house.scope_on(&path_text(way), Permission::R);
                house.store.revoke_grant(&login("alice"), scope.node).expect("taken back");
            }
            ModelAction::CreateToken(scopes) if views.len() < 4 => {
                let there = scopes.iter().filter_map(|(way, p)| Some((way, model.node(way)?, *p)));
                let there: Vec<_> = there.collect();
                let typed: Vec<_> = there.iter().map(|(way, _, p)| (path_text(way), *p)).collect();
                let typed: Vec<_> = typed.iter().map(|(path, p)| (path.as_str(), *p)).collect();
                views.push(house.scoped_view("alice", &typed));
                let rights = there.into_iter().map(|(_, node, p)| (node, p)).collect();
                model.scopes.push(Some(rights));
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

    /// Tries everything everywhere with every token.
    fn compare(&self) -> std::result::Result<(), TestCaseError> {
        for (view, scopes) in self.views.iter().zip(&self.model.scopes) {
            for (way, kind) in &self.model.entries {
                let may = self.model.permission_at(scopes.as_ref(), way);
                let (reads, writes) = match kind {
                    ModelEntry::Directory(_) => {
                        (self.lists_all(view, scopes.as_ref(), way)?, self.can_create(view, way))
                    }
                    ModelEntry::File => {
                        (get(view, &path_text(way)).is_ok(), put(view, &path_text(way), "content").is_ok())
                    }
                };
                for (done, needed) in [(reads, Permission::R), (writes, Permission::W)] {
                    prop_assert!(!done || may.allows(needed), "{needed} {} though it may {may}", path_text(way));
                    prop_assert!(done || !may.allows(needed) || !self.model.is_exact, "no {needed} {}", path_text(way));
                }
            }
        }
        Ok(())
    }

    /// Tells whether a folder shows all that is in it; what else it shows leads to what may be reached.
    fn lists_all(
        &self,
        view: &View,
        scopes: Option<&ModelGrants>,
        way: &ModelPath,
    ) -> std::result::Result<bool, TestCaseError> {
        let Ok(shown) = list_names(view, &path_text(way)) else { return Ok(false) };
        let inside = |entry: &&ModelPath| entry.len() > way.len() && entry.starts_with(way);
        let below: Vec<_> = self.model.entries.keys().filter(inside).collect();
        let all: BTreeSet<_> = below.iter().map(|entry| entry[way.len()]).collect();
        let reach = below.iter().filter(|entry| self.model.permission_at(scopes, entry) != Permission::NONE);
        let leading: BTreeSet<_> = reach.map(|entry| entry[way.len()]).collect();
        if self.model.permission_at(scopes, way).allows(Permission::R) {
            return Ok(shown.iter().map(String::as_str).eq(all));
        }
        let strange = shown.iter().find(|name| !leading.contains(name.as_str()));
        prop_assert_eq!(strange, None, "shown in {}", path_text(way));
        Ok(false)
    }

    /// Tells whether something can be made in a folder.
    fn can_create(&self, view: &View, way: &ModelPath) -> bool {
        let probe = tree_path(&path_text(&[way.as_slice(), &["probe"]].concat()));
        let made = view.create_directory(&probe, &AttributeChanges::default(), &NO_CONDITIONS).is_ok();
        if made {
            self.admin.remove_directory(&probe, &NO_CONDITIONS).expect("removed");
        }
        made
    }
}

fn path_text(way: &[&'static str]) -> String {
    format!("/{}", way.join("/"))
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

fn any_action(thieves: u32) -> impl Strategy<Value = ModelAction> {
    prop_oneof![
        6 => any_path().prop_map(ModelAction::CreateDirectory),
        3 => any_path().prop_map(ModelAction::CreateFile),
        6 => (any_path(), any_path()).prop_map(|(from, to)| ModelAction::Move(from, to)),
        thieves => (any_path(), any_path()).prop_map(|(from, to)| ModelAction::MoveOutsideGateway(from, to)),
        1 => any_path().prop_map(ModelAction::Remove),
        5 => (any_path_or_root(), any_permission()).prop_map(|(way, permission)| ModelAction::Grant(way, permission)),
        1 => any_path_or_root().prop_map(ModelAction::RevokeGrant),
        3 => proptest::collection::vec((any_path_or_root(), any_permission()), 1..3).prop_map(ModelAction::CreateToken),
    ]
}

/// Some folders and files to begin with, so that few deeds are about nothing.
fn any_actions(thieves: u32) -> impl Strategy<Value = Vec<ModelAction>> {
    proptest::collection::vec(any_action(thieves), 1..24).prop_map(|deeds| {
        let start = [
            ModelAction::CreateDirectory(vec!["a"]),
            ModelAction::CreateDirectory(vec!["a", "b"]),
            ModelAction::CreateDirectory(vec!["b"]),
            ModelAction::CreateFile(vec!["a", "c"]),
            ModelAction::CreateFile(vec!["a", "b", "c"]),
        ];
        start.into_iter().chain(deeds).collect()
    })
}

fn run_actions(deeds: &[ModelAction]) -> std::result::Result<(), TestCaseError> {
    let mut pair = ModelFixture::new();
    for deed in deeds {
        pair.run_action(deed);
        pair.compare()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn allowed_operations_match_grants_and_scopes(deeds in any_actions(1).prop_map(|mut deeds| {
        deeds.retain(|deed| !matches!(deed, ModelAction::MoveOutsideGateway(..)));
        deeds
    })) {
        run_actions(&deeds)?;
    }

    #[test]
    fn changes_outside_gateway_never_extend_access(deeds in any_actions(4)) {
        run_actions(&deeds)?;
    }
}
