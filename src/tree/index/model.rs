//! Tests of the node index in random sequences of changes, some interrupted by a crash, compared with a model.

use std::collections::HashMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::tests::{IndexFixture, tree_path};
use super::*;

#[derive(Clone, Debug)]
enum IndexStep {
    Create(String, EntryKind),
    AssignId(String),
    Rename(String, String, CrashPoint),
    Remove(String, CrashPoint),
}

/// Point at which the server is killed during a step, if it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CrashPoint {
    None,
    BeforeHost,
    AfterHost,
}

/// The model: the inode of each node, by id, and the ids of removed nodes.
struct IndexModel {
    fixture: Rc<IndexFixture>,
    live_nodes: HashMap<NodeId, u64>,
    removed_nodes: Vec<NodeId>,
}

impl IndexModel {
    fn run_step(&mut self, step: &IndexStep) {
        match step {
            IndexStep::Create(path, kind) => self.create(path, *kind),
            IndexStep::AssignId(path) => self.assign_id(path),
            IndexStep::Rename(from, to, crash) => self.rename(from, to, *crash),
            IndexStep::Remove(path, crash) => self.remove(path, *crash),
        }
        self.compare(step);
    }

    fn metadata(&self, path: &str) -> Option<InodeMetadata> {
        self.fixture.host.metadata(&tree_path(path)).ok()
    }

    fn create(&self, path: &str, kind: EntryKind) {
        let parent = tree_path(path).parent().and_then(|parent| self.fixture.host.metadata(&parent).ok());
        let parent_is_directory = parent.is_some_and(|parent| parent.kind == EntryKind::Directory);
        if parent_is_directory && self.metadata(path).is_none() {
            self.fixture.host.create(path, kind);
        }
    }

    fn assign_id(&mut self, path: &str) {
        let Ok(id) = self.fixture.index.assign_id(&tree_path(path)) else { return };
        assert!(!self.removed_nodes.contains(&id), "an id came back to life");
        for named in self.fixture.index.list(&TreePath::root()).expect("list") {
            let inode = self.fixture.host.metadata(&named.path).expect("there").inode;
            assert_eq!(*self.live_nodes.entry(named.id).or_insert(inode), inode);
        }
    }

    fn rename(&mut self, from: &str, to: &str, crash: CrashPoint) {
        let (source, target) = (tree_path(from), tree_path(to));
        let parent = target.parent().and_then(|parent| self.fixture.host.metadata(&parent).ok());
        let overlap = source.starts_with(&target) || target.starts_with(&source);
        let (Some(moved), false) = (self.metadata(from), overlap) else { return };
        if parent.is_none_or(|parent| parent.kind != EntryKind::Directory) {
            return;
        }
        let replaced = self.metadata(to);
        let fixture = Rc::clone(&self.fixture);
        let change = fixture.index.begin_move(&source, &target).expect("begun");
        if crash != CrashPoint::BeforeHost {
            let replaced_file =
                replaced.filter(|replaced| (replaced.kind, moved.kind) == (EntryKind::File, EntryKind::File));
            let kept_id = replaced_file.and_then(|replaced_file| self.node_by_inode(replaced_file.inode));
            self.remove_nodes(|path| path.starts_with(&target), kept_id);
            if let Some(kept_id) = kept_id {
                self.remove_nodes(|path| *path == source, None);
                self.live_nodes.insert(kept_id, moved.inode);
            }
            self.fixture.host.rename(from, to);
        }
        self.conclude(change, crash);
    }

    fn remove(&mut self, path: &str, crash: CrashPoint) {
        if self.metadata(path).is_none() || tree_path(path).is_root() {
            return;
        }
        let fixture = Rc::clone(&self.fixture);
        let change = fixture.index.begin_remove(&tree_path(path)).expect("begun");
        if crash != CrashPoint::BeforeHost {
            self.remove_nodes(|p| p.starts_with(&tree_path(path)), None);
            self.fixture.host.remove(path);
        }
        self.conclude(change, crash);
    }

    fn conclude(&self, change: IndexChange<'_>, crash: CrashPoint) {
        match crash {
            CrashPoint::None => change.finish().expect("finished"),
            CrashPoint::BeforeHost | CrashPoint::AfterHost => change.abandon_as_killed(),
        }
        if crash != CrashPoint::None {
            self.fixture.index.recover().expect("recovered");
        }
    }

    fn node_by_inode(&self, inode: u64) -> Option<NodeId> {
        self.live_nodes.iter().find(|(_, named)| **named == inode).map(|(id, _)| *id)
    }

    /// Removes the nodes whose paths match `gone`, except for one.
    fn remove_nodes(&mut self, is_removed: impl Fn(&TreePath) -> bool, but: Option<NodeId>) {
        let paths = self.fixture.host.paths_by_inode();
        let is_removed_node = |id: &NodeId, inode: &u64| Some(*id) != but && paths.get(inode).is_some_and(&is_removed);
        let removed: Vec<NodeId> =
            self.live_nodes.iter().filter(|(id, inode)| is_removed_node(id, inode)).map(|(id, _)| *id).collect();
        self.live_nodes.retain(|id, _| !removed.contains(id));
        self.removed_nodes.extend(removed);
    }

    fn compare(&self, step: &IndexStep) {
        let paths = self.fixture.host.paths_by_inode();
        for (id, inode) in &self.live_nodes {
            let location = self.fixture.index.locate(*id).expect("located");
            assert_eq!(location.as_ref(), paths.get(inode), "{step:?}");
        }
        for id in &self.removed_nodes {
            assert_eq!(self.fixture.index.locate(*id).expect("located"), None, "{step:?}");
        }
        assert!(self.fixture.store.intents().expect("read").is_empty(), "{step:?}");
    }
}

fn any_path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]", 1..3).prop_map(|parts| parts.join("/"))
}

fn any_step() -> impl Strategy<Value = IndexStep> {
    let crash = || prop_oneof![3 => Just(CrashPoint::None), 1 => Just(CrashPoint::BeforeHost), 1 => Just(CrashPoint::AfterHost)];
    let kind = prop_oneof![Just(EntryKind::File), Just(EntryKind::Directory)];
    prop_oneof![
        3 => (any_path(), kind).prop_map(|(path, kind)| IndexStep::Create(path, kind)),
        3 => any_path().prop_map(IndexStep::AssignId),
        3 => (any_path(), any_path(), crash()).prop_map(|(from, to, crash)| IndexStep::Rename(from, to, crash)),
        1 => (any_path(), crash()).prop_map(|(path, crash)| IndexStep::Remove(path, crash)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn node_ids_follow_random_changes_and_crashes(steps in proptest::collection::vec(any_step(), 1..100)) {
        let mut model = IndexModel { fixture: IndexFixture::new().into(), live_nodes: HashMap::new(), removed_nodes: Vec::new() };
        steps.iter().for_each(|step| model.run_step(step));
    }
}
