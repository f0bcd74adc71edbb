//! Tests of the node index over a file system in memory, with races and crashes at chosen points. Random sequences are
//! in `model.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::*;
use crate::store::PropertyUpdate;

type LookupInterferer = Box<dyn FnOnce(&InMemoryHost) + Send>;

/// A file system in memory: the entry at each path, and an interferer that runs at a chosen look-up.
#[derive(Default)]
pub(in crate::tree) struct InMemoryHost {
    entries: Mutex<BTreeMap<TreePath, InodeMetadata>>,
    next_inode: AtomicU64,
    lookups: AtomicU64,
    /// Whether the file system is unavailable.
    is_unavailable: AtomicBool,
    interferer: Mutex<Option<(u64, LookupInterferer)>>,
}

impl InMemoryHost {
    pub(in crate::tree) fn create(&self, path: &str, kind: EntryKind) {
        let inode = self.next_inode.fetch_add(1, Ordering::Relaxed) + 100;
        let metadata = InodeMetadata { kind, inode, birth_time: i64::try_from(inode).ok() };
        self.entries.lock().insert(tree_path(path), metadata);
    }

    pub(in crate::tree) fn rename(&self, from: &str, to: &str) {
        let mut entries = self.entries.lock();
        let (from, to) = (tree_path(from), tree_path(to));
        entries.retain(|path, _| !path.starts_with(&to));
        let moved: Vec<TreePath> = entries.keys().filter(|path| path.starts_with(&from)).cloned().collect();
        for path in moved {
            let below = path.strip_prefix(&from).expect("within");
            let metadata = entries.remove(&path).expect("there");
            entries.insert(to.join(&below), metadata);
        }
    }

    /// Runs `what` just before the `when`th look-up from now.
    fn interfere_at_lookup(&self, when: u64, what: impl FnOnce(&InMemoryHost) + Send + 'static) {
        *self.interferer.lock() = Some((self.lookups.load(Ordering::Relaxed) + when, Box::new(what)));
    }

    pub(in crate::tree) fn remove(&self, path: &str) {
        self.entries.lock().retain(|p, _| !p.starts_with(&tree_path(path)));
    }

    /// Returns the path of each entry, by inode.
    pub(in crate::tree) fn paths_by_inode(&self) -> HashMap<u64, TreePath> {
        self.entries.lock().iter().map(|(path, metadata)| (metadata.inode, path.clone())).collect()
    }
}

impl HostAccess for InMemoryHost {
    fn metadata(&self, path: &TreePath) -> Result<InodeMetadata> {
        let lookup = self.lookups.fetch_add(1, Ordering::Relaxed) + 1;
        let interferer = self.interferer.lock().take_if(|(when, _)| *when == lookup);
        if let Some((_, interfere)) = interferer {
            interfere(self);
        }
        if self.is_unavailable.load(Ordering::Relaxed) {
            return Err(crate::tree::TreeOutage::Missing.into());
        }
        self.entries.lock().get(path).copied().ok_or(Error::Absent)
    }

    fn changed_since(&self, _: &TreePath, _: i64) -> Result<bool> {
        Ok(false)
    }

    fn remove_subtree(&self, path: &TreePath) -> Result<()> {
        self.remove(&path.to_string());
        Ok(())
    }
}

pub(in crate::tree) struct IndexFixture {
    _state: tempfile::TempDir,
    pub(in crate::tree) store: Store,
    pub(in crate::tree) host: Arc<InMemoryHost>,
    pub(in crate::tree) index: NodeIndex,
}

impl IndexFixture {
    /// Creates a root with the directories `/a/b` and `/c` and the file `/a/b/f`.
    pub(in crate::tree) fn new() -> Self {
        let state = tempfile::tempdir().expect("dir");
        let store = Store::open(&state.path().join("state")).expect("store");
        let host = Arc::new(InMemoryHost::default());
        for (path, kind) in [
            ("/", EntryKind::Directory),
            ("/a", EntryKind::Directory),
            ("/a/b", EntryKind::Directory),
            ("/a/b/f", EntryKind::File),
            ("/c", EntryKind::Directory),
        ] {
            host.create(path, kind);
        }
        let index = open_index(&store, &host);
        index.recover().expect("recovered");
        Self { _state: state, store, host, index }
    }

    fn assign_id(&self, path: &str) -> NodeId {
        self.index.assign_id(&tree_path(path)).expect(path)
    }

    fn locate(&self, id: NodeId) -> Option<String> {
        self.index.locate(id).expect("located").map(|path| path.to_string())
    }

    pub(in crate::tree) fn find(&self, path: &str) -> Option<NodeId> {
        self.index.find_id(&tree_path(path)).expect("found")
    }

    pub(in crate::tree) fn rename(&self, from: &str, to: &str) {
        let change = self.index.begin_move(&tree_path(from), &tree_path(to)).expect("begun");
        self.host.rename(from, to);
        change.finish().expect("finished");
    }

    fn remove(&self, path: &str) {
        let change = self.index.begin_remove(&tree_path(path)).expect("begun");
        self.host.remove(path);
        change.finish().expect("finished");
    }

    fn set_property(&self, id: NodeId, value: &str) {
        let step = PropertyUpdate { namespace: "u", name: "p", value: Some(value) };
        let (alice, lazy) = (crate::store::testing::login("alice"), WriteDurability::Lazy);
        assert!(self.store.update_properties(id, &alice, &[step], lazy, |_| true).expect("set"));
    }

    fn property_values(&self, id: NodeId) -> Vec<String> {
        self.store.properties(id).expect("read").into_iter().map(|row| row.value).collect()
    }

    /// Returns the index of a second process over the same store and file system.
    fn other_process(&self) -> NodeIndex {
        open_index(&Store::open(self.store.state_dir()).expect("store"), &self.host)
    }

    /// Returns the index of the next start after a crash.
    fn restart(&self) -> NodeIndex {
        let index = self.other_process();
        index.recover().expect("recovered");
        index
    }
}

fn open_index(store: &Store, host: &Arc<InMemoryHost>) -> NodeIndex {
    NodeIndex::new(store.clone(), Arc::clone(host) as Arc<dyn HostAccess>, WriteDurability::Lazy)
}

pub(in crate::tree) fn tree_path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

#[test]
fn node_keeps_its_id_and_ancestors_get_ids() {
    let fixture = IndexFixture::new();
    let file = fixture.assign_id("/a/b/f");
    assert_eq!(fixture.assign_id("/a/b/f"), file);
    let paths: Vec<_> = fixture.index.list(&tree_path("/")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/f"]);
    let below: Vec<_> =
        fixture.index.list(&tree_path("/a/b")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(below, ["/a/b", "/a/b/f"]);
    assert!(matches!(fixture.index.assign_id(&tree_path("/a/x")), Err(Error::Absent)));
    assert!(matches!(fixture.index.assign_id(&tree_path("/a/b/f/x")), Err(Error::Absent)));
}

#[test]
fn symlink_gets_no_node_id() {
    let fixture = IndexFixture::new();
    fixture.host.create("/l", EntryKind::Symlink);
    assert!(matches!(fixture.index.assign_id(&tree_path("/l")), Err(Error::Unsupported)));
    let file = fixture.assign_id("/a/b/f");
    fixture.host.create("/a/b/f", EntryKind::Symlink);
    assert_eq!(fixture.locate(file), None);
}

#[test]
fn node_follows_renames_of_itself_and_its_ancestors() {
    let fixture = IndexFixture::new();
    let (file, directory) = (fixture.assign_id("/a/b/f"), fixture.assign_id("/a/b"));
    fixture.rename("/a/b/f", "/a/b/g");
    assert_eq!(fixture.locate(file).as_deref(), Some("/a/b/g"));
    fixture.rename("/a", "/c/z");
    assert_eq!(fixture.locate(file).as_deref(), Some("/c/z/b/g"));
    assert_eq!(fixture.locate(directory).as_deref(), Some("/c/z/b"));
    assert_eq!(fixture.find("/c/z/b"), Some(directory));
    assert!(fixture.store.intents().expect("read").is_empty());
}

#[test]
fn move_of_unnamed_entry_writes_nothing_to_store() {
    let fixture = IndexFixture::new();
    fixture.assign_id("/c");
    let before = fixture.store.data_version().expect("version");
    fixture.rename("/a/b/f", "/c/f");
    fixture.remove("/c/f");
    assert_eq!(fixture.store.data_version().expect("version"), before);
}

#[test]
fn replaced_file_keeps_its_id_and_gets_properties_of_new_content() {
    let fixture = IndexFixture::new();
    fixture.host.create("/a/tmp", EntryKind::File);
    let (file, saved) = (fixture.assign_id("/a/b/f"), fixture.assign_id("/a/tmp"));
    fixture.set_property(file, "old");
    fixture.set_property(saved, "new");
    fixture.rename("/a/tmp", "/a/b/f");
    assert_eq!(fixture.find("/a/b/f"), Some(file));
    assert_eq!(fixture.property_values(file), ["new"]);
    assert_eq!(fixture.locate(saved), None);
    fixture.host.create("/a/unnamed", EntryKind::File);
    fixture.rename("/a/unnamed", "/a/b/f");
    assert_eq!(fixture.find("/a/b/f"), Some(file));
    assert!(fixture.property_values(file).is_empty());
}

#[test]
fn replaced_directory_is_a_new_node() {
    let fixture = IndexFixture::new();
    let (moved, replaced, inner) = (fixture.assign_id("/c"), fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"));
    fixture.rename("/c", "/a/b");
    assert_eq!(fixture.find("/a/b"), Some(moved));
    assert_eq!((fixture.locate(replaced), fixture.locate(inner)), (None, None));
    fixture.host.create("/d", EntryKind::Directory);
    fixture.rename("/d", "/a/b");
    assert_eq!((fixture.find("/a/b"), fixture.locate(moved)), (None, None));
}

#[test]
fn removed_node_id_is_not_reused() {
    let fixture = IndexFixture::new();
    let (directory, file) = (fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"));
    fixture.remove("/a/b/f");
    fixture.host.create("/a/b/f", EntryKind::File);
    assert_eq!((fixture.find("/a/b/f"), fixture.locate(file)), (None, None));
    fixture.remove("/a");
    fixture.host.create("/a", EntryKind::Directory);
    fixture.host.create("/a/b", EntryKind::Directory);
    assert_ne!(fixture.assign_id("/a/b"), directory);
    assert_eq!(fixture.locate(directory), None);
}

#[test]
fn directory_swapped_outside_gateway_dangles_with_its_files() {
    let fixture = IndexFixture::new();
    let (directory, file) = (fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"));
    fixture.host.rename("/a/b", "/a/old");
    fixture.host.create("/a/b", EntryKind::Directory);
    fixture.host.create("/a/b/f", EntryKind::File);
    assert_eq!((fixture.locate(directory), fixture.locate(file)), (None, None));
    assert_eq!((fixture.find("/a/b"), fixture.find("/a/b/f")), (None, None));
    let named = fixture.index.list(&tree_path("/a")).expect("list");
    let dangling: Vec<_> = named.iter().map(|node| node.dangling).collect();
    assert_eq!(dangling, [false, true, true]);
    // Another entry gets the name, and the old id never becomes valid for it.
    assert_ne!(fixture.assign_id("/a/b/f"), file);
    assert_eq!((fixture.locate(directory), fixture.locate(file)), (None, None));
}

#[test]
fn swapped_directory_that_is_moved_gets_no_old_node_id() {
    let fixture = IndexFixture::new();
    let (directory, file) = (fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"));
    fixture.host.remove("/a/b");
    fixture.host.create("/a/b", EntryKind::Directory);
    fixture.host.create("/a/b/f", EntryKind::File);
    fixture.rename("/a/b/f", "/c/f");
    fixture.rename("/a/b", "/c/b");
    assert_eq!((fixture.locate(directory), fixture.locate(file)), (None, None));
    assert_eq!((fixture.find("/c/b"), fixture.find("/c/f")), (None, None));
}

#[test]
fn file_that_becomes_directory_is_a_new_node() {
    let fixture = IndexFixture::new();
    let file = fixture.assign_id("/a/b/f");
    fixture.host.remove("/a/b/f");
    fixture.host.create("/a/b/f", EntryKind::Directory);
    assert_eq!(fixture.locate(file), None);
    assert_ne!(fixture.assign_id("/a/b/f"), file);
}

#[test]
fn different_served_root_removes_no_node_until_repair() {
    let fixture = IndexFixture::new();
    let directory = fixture.assign_id("/a");
    let original_entries = fixture.host.entries.lock().clone();
    fixture.host.create("/", EntryKind::Directory);
    fixture.host.create("/a", EntryKind::Directory);
    assert!(matches!(fixture.index.assign_id(&tree_path("/a")), Err(Error::TreeMismatch)));
    *fixture.host.entries.lock() = original_entries;
    assert_eq!(fixture.locate(directory).as_deref(), Some("/a"));
    fixture.host.create("/", EntryKind::Directory);
    assert_eq!(fixture.index.repair().expect("repaired").len(), 1);
    assert!(fixture.index.assign_id(&tree_path("/a")).is_ok_and(|new| new != directory));
}

#[test]
fn unavailable_tree_settles_no_intent_and_removes_no_node() {
    let fixture = IndexFixture::new();
    let directory = fixture.assign_id("/a/b");
    let change = fixture.index.begin_remove(&tree_path("/a/b")).expect("begun");
    fixture.host.is_unavailable.store(true, Ordering::Relaxed);
    drop(change);
    fixture.index.recover().expect("the next start goes on without it");
    assert_eq!(fixture.store.intents().expect("read").len(), 1);
    assert!(matches!(fixture.index.locate(directory), Err(Error::Unavailable(_))));
    assert!(matches!(fixture.index.assign_id(&tree_path("/c")), Err(Error::Unavailable(_))));
    assert!(matches!(fixture.index.repair(), Err(Error::Unavailable(_))));
    fixture.host.is_unavailable.store(false, Ordering::Relaxed);
    fixture.index.recover().expect("recovered");
    assert!(fixture.store.intents().expect("read").is_empty());
    assert_eq!(fixture.locate(directory).as_deref(), Some("/a/b"));
}

#[test]
fn repair_removes_dangling_nodes_without_references() {
    let fixture = IndexFixture::new();
    let (used, unused) = (fixture.assign_id("/a/b/f"), fixture.assign_id("/c"));
    fixture.set_property(used, "kept");
    fixture.host.remove("/a/b");
    fixture.host.remove("/c");
    let dangling: Vec<_> = fixture.index.repair().expect("repaired").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(dangling, ["/a/b", "/a/b/f", "/c"]);
    let remaining: Vec<_> =
        fixture.index.list(&tree_path("/")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(remaining, ["/", "/a", "/a/b", "/a/b/f"]);
    assert_eq!(fixture.store.node(unused).expect("read"), None);
}

#[test]
fn concurrent_processes_assign_one_id_per_path() {
    let fixture = IndexFixture::new();
    let processes: Vec<NodeIndex> = (0..4).map(|_| fixture.other_process()).collect();
    for path in ["/a/b/f", "/a/b", "/c"] {
        let ids: Vec<NodeId> = std::thread::scope(|scope| {
            let assigning: Vec<_> =
                processes.iter().map(|index| scope.spawn(|| index.assign_id(&tree_path(path)))).collect();
            assigning.into_iter().map(|thread| thread.join().expect("thread").expect(path)).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{path}");
    }
}

#[test]
fn directory_swapped_while_id_is_assigned_gets_id_of_the_new_one() {
    // Assigning an id to /a looks up / and /a, and both again after the rows are written.
    for when in 1..=4 {
        let fixture = IndexFixture::new();
        fixture.host.interfere_at_lookup(when, |host| {
            host.rename("/a", "/old");
            host.create("/a", EntryKind::Directory);
        });
        let id = fixture.assign_id("/a");
        assert_eq!(fixture.locate(id).as_deref(), Some("/a"), "{when}");
        assert!(fixture.host.interferer.lock().is_none());
    }
}

#[test]
fn id_assigned_by_another_process_during_move_follows_it() {
    let fixture = IndexFixture::new();
    let other = fixture.other_process();
    let change = fixture.index.begin_move(&tree_path("/a"), &tree_path("/c/z")).expect("begun");
    let id = other.assign_id(&tree_path("/a/b")).expect("named");
    fixture.host.rename("/a", "/c/z");
    change.finish().expect("finished");
    assert_eq!(fixture.locate(id).as_deref(), Some("/c/z/b"));
}

#[test]
fn another_process_finds_moved_node_at_move_target() {
    let fixture = IndexFixture::new();
    let other = fixture.other_process();
    let directory = fixture.assign_id("/a");
    let change = fixture.index.begin_move(&tree_path("/a"), &tree_path("/z")).expect("begun");
    fixture.host.rename("/a", "/z");
    assert_eq!(other.assign_id(&tree_path("/z")).expect("named"), directory);
    change.finish().expect("finished");
    assert_eq!(fixture.locate(directory).as_deref(), Some("/z"));
}

#[test]
fn another_process_assigns_no_id_at_target_of_move_in_progress() {
    let fixture = IndexFixture::new();
    let other = fixture.other_process();
    let directory = fixture.assign_id("/a");
    let change = fixture.index.begin_move(&tree_path("/a"), &tree_path("/z")).expect("begun");
    // It first looks whether the move was done, which it was not, and then for the entry at the target.
    fixture.host.interfere_at_lookup(2, |host| host.rename("/a", "/z"));
    assert_eq!(other.assign_id(&tree_path("/z")).expect("named"), directory);
    change.finish().expect("finished");
    assert_eq!(fixture.locate(directory).as_deref(), Some("/z"));
}

#[test]
fn replacement_of_other_kind_keeps_its_own_id() {
    let fixture = IndexFixture::new();
    let (file, directory) = (fixture.assign_id("/a/b/f"), fixture.assign_id("/c"));
    fixture.rename("/a/b/f", "/c");
    assert_eq!((fixture.find("/c"), fixture.locate(directory)), (Some(file), None));
    let parent = fixture.assign_id("/a/b");
    fixture.rename("/a/b", "/c");
    assert_eq!((fixture.find("/c"), fixture.locate(file)), (Some(parent), None));
}

#[test]
fn changes_of_named_nodes_are_serialized_and_others_concurrent() {
    let fixture = IndexFixture::new();
    fixture.assign_id("/c");
    let unnamed = fixture.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun");
    assert!(fixture.index.change_lock.try_read().is_some());
    assert!(fixture.index.change_lock.try_write().is_none(), "nothing is named meanwhile");
    drop(unnamed);
    let named = fixture.index.begin_move(&tree_path("/c"), &tree_path("/a/c")).expect("begun");
    assert!(fixture.index.change_lock.try_read().is_none());
    drop(named);
    assert!(fixture.index.change_lock.try_write().is_some());
}

#[test]
fn unfinished_intent_is_settled_before_next_change() {
    let fixture = IndexFixture::new();
    let directory = fixture.assign_id("/a/b");
    fixture.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun").abandon_as_killed();
    fixture.host.rename("/a/b", "/c/b");
    fixture.assign_id("/c");
    assert_eq!(fixture.locate(directory).as_deref(), Some("/c/b"));
    fixture.index.begin_remove(&tree_path("/c/b")).expect("begun").abandon_as_killed();
    fixture.rename("/c", "/a/c");
    assert_eq!(fixture.locate(directory).as_deref(), Some("/a/c/b"), "what was not done is abandoned");
    assert!(fixture.store.intents().expect("read").is_empty());
}

impl IndexChange<'_> {
    /// Leaves a change as a killed process does, without its drop.
    pub(in crate::tree) fn abandon_as_killed(mut self) {
        self.state = IndexChangeState::Finished;
    }
}

/// Point at which a server is killed during a move or removal: before the file system changed, after it, or after
/// the index was updated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum KillPoint {
    BeforeHost,
    BeforeFinish,
    AfterFinish,
}

#[test]
fn kill_during_move_leaves_old_or_new_paths() {
    for killed in [KillPoint::BeforeHost, KillPoint::BeforeFinish, KillPoint::AfterFinish] {
        let fixture = IndexFixture::new();
        fixture.host.create("/c/b", EntryKind::Directory);
        let (directory, file, replaced) =
            (fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"), fixture.assign_id("/c/b"));
        let change = fixture.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun");
        if killed != KillPoint::BeforeHost {
            fixture.host.rename("/a/b", "/c/b");
        }
        if killed == KillPoint::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.abandon_as_killed()
        }
        let index = fixture.restart();
        let path = if killed == KillPoint::BeforeHost { "/a/b" } else { "/c/b" };
        let inner = format!("{path}/f");
        assert_eq!(index.locate(directory).expect("located"), Some(tree_path(path)), "{killed:?}");
        assert_eq!(index.locate(file).expect("located"), Some(tree_path(&inner)), "{killed:?}");
        let stays = (killed == KillPoint::BeforeHost).then(|| tree_path("/c/b"));
        assert_eq!(index.locate(replaced).expect("located"), stays, "{killed:?}");
        assert!(fixture.store.intents().expect("read").is_empty());
    }
}

#[test]
fn kill_during_file_replacement_leaves_one_id_or_both() {
    for killed in [KillPoint::BeforeHost, KillPoint::BeforeFinish, KillPoint::AfterFinish] {
        let fixture = IndexFixture::new();
        fixture.host.create("/c/g", EntryKind::File);
        let (source, target) = (fixture.assign_id("/a/b/f"), fixture.assign_id("/c/g"));
        let change = fixture.index.begin_move(&tree_path("/a/b/f"), &tree_path("/c/g")).expect("begun");
        if killed != KillPoint::BeforeHost {
            fixture.host.rename("/a/b/f", "/c/g");
        }
        if killed == KillPoint::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.abandon_as_killed()
        }
        let index = fixture.restart();
        let stays = (killed == KillPoint::BeforeHost).then(|| tree_path("/a/b/f"));
        assert_eq!(index.locate(source).expect("located"), stays, "{killed:?}");
        assert_eq!(index.locate(target).expect("located"), Some(tree_path("/c/g")), "{killed:?}");
    }
}

#[test]
fn kill_during_removal_leaves_node_or_removes_it() {
    for killed in [KillPoint::BeforeHost, KillPoint::BeforeFinish, KillPoint::AfterFinish] {
        let fixture = IndexFixture::new();
        let (directory, file) = (fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"));
        let change = fixture.index.begin_remove(&tree_path("/a/b")).expect("begun");
        if killed != KillPoint::BeforeHost {
            fixture.host.remove("/a/b");
        }
        if killed == KillPoint::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.abandon_as_killed()
        }
        let index = fixture.restart();
        let remains = killed == KillPoint::BeforeHost;
        assert_eq!(index.locate(directory).expect("located").is_some(), remains, "{killed:?}");
        assert_eq!(fixture.store.node(file).expect("read").is_some(), remains, "{killed:?}");
        assert!(fixture.store.intents().expect("read").is_empty());
    }
}

#[test]
fn file_created_after_interrupted_removal_is_a_new_node() {
    let fixture = IndexFixture::new();
    let file = fixture.assign_id("/a/b/f");
    fixture.index.begin_remove(&tree_path("/a/b/f")).expect("begun").abandon_as_killed();
    fixture.host.remove("/a/b/f");
    fixture.host.create("/a/b/f", EntryKind::File);
    assert_eq!(fixture.restart().locate(file).expect("located"), None);
}

#[test]
fn node_ids_follow_change_whose_later_step_fails() {
    let fixture = IndexFixture::new();
    let (directory, file) = (fixture.assign_id("/a/b"), fixture.assign_id("/a/b/f"));
    let moving = fixture.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun");
    fixture.host.rename("/a/b", "/c/b");
    drop(moving);
    assert_eq!(fixture.locate(directory).as_deref(), Some("/c/b"));
    let removing = fixture.index.begin_remove(&tree_path("/c/b/f")).expect("begun");
    fixture.host.remove("/c/b/f");
    drop(removing);
    assert_eq!(fixture.store.node(file).expect("read"), None);
    assert!(fixture.store.intents().expect("read").is_empty());
}

#[test]
fn change_refused_by_host_moves_no_node() {
    let fixture = IndexFixture::new();
    let directory = fixture.assign_id("/a/b");
    drop(fixture.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun"));
    drop(fixture.index.begin_remove(&tree_path("/a")).expect("begun"));
    assert_eq!(fixture.locate(directory).as_deref(), Some("/a/b"));
    assert!(fixture.store.intents().expect("read").is_empty());
}
