//! The node index against a host in memory, so that every race and crash can be staged.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::*;
use crate::store::PropertyUpdate;

type LookupInterferer = Box<dyn FnOnce(&InMemoryHost) + Send>;

/// A host in memory: what stands at each path, and what happens when the index looks.
#[derive(Default)]
pub(in crate::tree) struct InMemoryHost {
    entries: Mutex<BTreeMap<TreePath, InodeMetadata>>,
    next_inode: AtomicU64,
    lookups: AtomicU64,
    /// Whether the file system is not there.
    is_unavailable: AtomicBool,
    interferer: Mutex<Option<(u64, LookupInterferer)>>,
}

impl InMemoryHost {
    pub(in crate::tree) fn create(&self, path: &str, kind: EntryKind) {
        let inode = self.next_inode.fetch_add(1, Ordering::Relaxed) + 100;
        let facts = InodeMetadata { kind, inode, birth_time: i64::try_from(inode).ok() };
        self.entries.lock().insert(tree_path(path), facts);
    }

    pub(in crate::tree) fn rename(&self, from: &str, to: &str) {
        let mut entries = self.entries.lock();
        let (from, to) = (tree_path(from), tree_path(to));
        entries.retain(|path, _| !path.starts_with(&to));
        let moved: Vec<TreePath> = entries.keys().filter(|path| path.starts_with(&from)).cloned().collect();
        for path in moved {
            let below = path.strip_prefix(&from).expect("within");
            let facts = entries.remove(&path).expect("there");
            entries.insert(to.join(&below), facts);
        }
    }

    /// Does something just before the index asks for the `when`th time from now.
    fn interfere_at_lookup(&self, when: u64, what: impl FnOnce(&InMemoryHost) + Send + 'static) {
        *self.interferer.lock() = Some((self.lookups.load(Ordering::Relaxed) + when, Box::new(what)));
    }

    pub(in crate::tree) fn remove(&self, path: &str) {
        self.entries.lock().retain(|p, _| !p.starts_with(&tree_path(path)));
    }

    /// Returns where each entry stands, by inode.
    pub(in crate::tree) fn paths_by_inode(&self) -> HashMap<u64, TreePath> {
        self.entries.lock().iter().map(|(path, facts)| (facts.inode, path.clone())).collect()
    }
}

impl HostAccess for InMemoryHost {
    fn metadata(&self, path: &TreePath) -> Result<InodeMetadata> {
        let asked = self.lookups.fetch_add(1, Ordering::Relaxed) + 1;
        let meddler = self.interferer.lock().take_if(|(when, _)| *when == asked);
        if let Some((_, meddle)) = meddler {
            meddle(self);
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
    /// A root with the folder `/a/b`, the file `/a/b/f`, and the folder `/c`.
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

    /// A second process over the same state and host.
    fn other_process(&self) -> NodeIndex {
        open_index(&Store::open(self.store.state_dir()).expect("store"), &self.host)
    }

    /// The next start after a crash.
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
    let world = IndexFixture::new();
    let file = world.assign_id("/a/b/f");
    assert_eq!(world.assign_id("/a/b/f"), file);
    let paths: Vec<_> = world.index.list(&tree_path("/")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/f"]);
    let below: Vec<_> =
        world.index.list(&tree_path("/a/b")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(below, ["/a/b", "/a/b/f"]);
    assert!(matches!(world.index.assign_id(&tree_path("/a/x")), Err(Error::Absent)));
    assert!(matches!(world.index.assign_id(&tree_path("/a/b/f/x")), Err(Error::Absent)));
}

#[test]
fn symlink_gets_no_node_id() {
    let world = IndexFixture::new();
    world.host.create("/l", EntryKind::Symlink);
    assert!(matches!(world.index.assign_id(&tree_path("/l")), Err(Error::Unsupported)));
    let file = world.assign_id("/a/b/f");
    world.host.create("/a/b/f", EntryKind::Symlink);
    assert_eq!(world.locate(file), None);
}

#[test]
fn node_follows_renames_of_itself_and_its_ancestors() {
    let world = IndexFixture::new();
    let (file, folder) = (world.assign_id("/a/b/f"), world.assign_id("/a/b"));
    world.rename("/a/b/f", "/a/b/g");
    assert_eq!(world.locate(file).as_deref(), Some("/a/b/g"));
    world.rename("/a", "/c/z");
    assert_eq!(world.locate(file).as_deref(), Some("/c/z/b/g"));
    assert_eq!(world.locate(folder).as_deref(), Some("/c/z/b"));
    assert_eq!(world.find("/c/z/b"), Some(folder));
    assert!(world.store.intents().expect("read").is_empty());
}

#[test]
fn move_of_unnamed_entry_writes_nothing_to_store() {
    let world = IndexFixture::new();
    world.assign_id("/c");
    let before = world.store.data_version().expect("version");
    world.rename("/a/b/f", "/c/f");
    world.remove("/c/f");
    assert_eq!(world.store.data_version().expect("version"), before);
}

#[test]
fn replaced_file_keeps_its_id_and_gets_properties_of_new_content() {
    let world = IndexFixture::new();
    world.host.create("/a/tmp", EntryKind::File);
    let (file, saved) = (world.assign_id("/a/b/f"), world.assign_id("/a/tmp"));
    world.set_property(file, "old");
    world.set_property(saved, "new");
    world.rename("/a/tmp", "/a/b/f");
    assert_eq!(world.find("/a/b/f"), Some(file));
    assert_eq!(world.property_values(file), ["new"]);
    assert_eq!(world.locate(saved), None);
    world.host.create("/a/unnamed", EntryKind::File);
    world.rename("/a/unnamed", "/a/b/f");
    assert_eq!(world.find("/a/b/f"), Some(file));
    assert!(world.property_values(file).is_empty());
}

#[test]
fn replaced_directory_is_a_new_node() {
    let world = IndexFixture::new();
    let (moved, replaced, inner) = (world.assign_id("/c"), world.assign_id("/a/b"), world.assign_id("/a/b/f"));
    world.rename("/c", "/a/b");
    assert_eq!(world.find("/a/b"), Some(moved));
    assert_eq!((world.locate(replaced), world.locate(inner)), (None, None));
    world.host.create("/d", EntryKind::Directory);
    world.rename("/d", "/a/b");
    assert_eq!((world.find("/a/b"), world.locate(moved)), (None, None));
}

#[test]
fn removed_node_id_is_not_reused() {
    let world = IndexFixture::new();
    let (folder, file) = (world.assign_id("/a/b"), world.assign_id("/a/b/f"));
    world.remove("/a/b/f");
    world.host.create("/a/b/f", EntryKind::File);
    assert_eq!((world.find("/a/b/f"), world.locate(file)), (None, None));
    world.remove("/a");
    world.host.create("/a", EntryKind::Directory);
    world.host.create("/a/b", EntryKind::Directory);
    assert_ne!(world.assign_id("/a/b"), folder);
    assert_eq!(world.locate(folder), None);
}

#[test]
fn directory_swapped_outside_gateway_dangles_with_its_files() {
    let world = IndexFixture::new();
    let (folder, file) = (world.assign_id("/a/b"), world.assign_id("/a/b/f"));
    world.host.rename("/a/b", "/a/old");
    world.host.create("/a/b", EntryKind::Directory);
    world.host.create("/a/b/f", EntryKind::File);
    assert_eq!((world.locate(folder), world.locate(file)), (None, None));
    assert_eq!((world.find("/a/b"), world.find("/a/b/f")), (None, None));
    let named = world.index.list(&tree_path("/a")).expect("list");
    let dangling: Vec<_> = named.iter().map(|node| node.dangling).collect();
    assert_eq!(dangling, [false, true, true]);
    // The name goes to another node, and the old id never comes back to life there.
    assert_ne!(world.assign_id("/a/b/f"), file);
    assert_eq!((world.locate(folder), world.locate(file)), (None, None));
}

#[test]
fn swapped_directory_that_is_moved_gets_no_old_node_id() {
    let world = IndexFixture::new();
    let (folder, file) = (world.assign_id("/a/b"), world.assign_id("/a/b/f"));
    world.host.remove("/a/b");
    world.host.create("/a/b", EntryKind::Directory);
    world.host.create("/a/b/f", EntryKind::File);
    world.rename("/a/b/f", "/c/f");
    world.rename("/a/b", "/c/b");
    assert_eq!((world.locate(folder), world.locate(file)), (None, None));
    assert_eq!((world.find("/c/b"), world.find("/c/f")), (None, None));
}

#[test]
fn file_that_becomes_directory_is_a_new_node() {
    let world = IndexFixture::new();
    let file = world.assign_id("/a/b/f");
    world.host.remove("/a/b/f");
    world.host.create("/a/b/f", EntryKind::Directory);
    assert_eq!(world.locate(file), None);
    assert_ne!(world.assign_id("/a/b/f"), file);
}

#[test]
fn different_served_root_removes_no_node_until_repair() {
    let world = IndexFixture::new();
    let folder = world.assign_id("/a");
    let home = world.host.entries.lock().clone();
    world.host.create("/", EntryKind::Directory);
    world.host.create("/a", EntryKind::Directory);
    assert!(matches!(world.index.assign_id(&tree_path("/a")), Err(Error::TreeMismatch)));
    *world.host.entries.lock() = home;
    assert_eq!(world.locate(folder).as_deref(), Some("/a"));
    world.host.create("/", EntryKind::Directory);
    assert_eq!(world.index.repair().expect("repaired").len(), 1);
    assert!(world.index.assign_id(&tree_path("/a")).is_ok_and(|new| new != folder));
}

#[test]
fn unavailable_tree_settles_no_intent_and_removes_no_node() {
    let world = IndexFixture::new();
    let folder = world.assign_id("/a/b");
    let change = world.index.begin_remove(&tree_path("/a/b")).expect("begun");
    world.host.is_unavailable.store(true, Ordering::Relaxed);
    drop(change);
    world.index.recover().expect("the next start goes on without it");
    assert_eq!(world.store.intents().expect("read").len(), 1);
    assert!(matches!(world.index.locate(folder), Err(Error::Unavailable(_))));
    assert!(matches!(world.index.assign_id(&tree_path("/c")), Err(Error::Unavailable(_))));
    assert!(matches!(world.index.repair(), Err(Error::Unavailable(_))));
    world.host.is_unavailable.store(false, Ordering::Relaxed);
    world.index.recover().expect("recovered");
    assert!(world.store.intents().expect("read").is_empty());
    assert_eq!(world.locate(folder).as_deref(), Some("/a/b"));
}

#[test]
fn repair_removes_dangling_nodes_without_references() {
    let world = IndexFixture::new();
    let (used, unused) = (world.assign_id("/a/b/f"), world.assign_id("/c"));
    world.set_property(used, "kept");
    world.host.remove("/a/b");
    world.host.remove("/c");
    let dangling: Vec<_> = world.index.repair().expect("repaired").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(dangling, ["/a/b", "/a/b/f", "/c"]);
    let left: Vec<_> = world.index.list(&tree_path("/")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(left, ["/", "/a", "/a/b", "/a/b/f"]);
    assert_eq!(world.store.node(unused).expect("read"), None);
}

#[test]
fn concurrent_processes_assign_one_id_per_path() {
    let world = IndexFixture::new();
    let others: Vec<NodeIndex> = (0..4).map(|_| world.other_process()).collect();
    for path in ["/a/b/f", "/a/b", "/c"] {
        let ids: Vec<NodeId> = std::thread::scope(|scope| {
            let minting: Vec<_> =
                others.iter().map(|index| scope.spawn(|| index.assign_id(&tree_path(path)))).collect();
            minting.into_iter().map(|thread| thread.join().expect("thread").expect(path)).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{path}");
    }
}

#[test]
fn directory_swapped_while_id_is_assigned_gets_id_of_the_new_one() {
    // Naming /a asks for / and /a, and for both again once the rows are written.
    for when in 1..=4 {
        let world = IndexFixture::new();
        world.host.interfere_at_lookup(when, |host| {
            host.rename("/a", "/old");
            host.create("/a", EntryKind::Directory);
        });
        let id = world.assign_id("/a");
        assert_eq!(world.locate(id).as_deref(), Some("/a"), "{when}");
        assert!(world.host.interferer.lock().is_none());
    }
}

#[test]
fn id_assigned_by_another_process_during_move_follows_it() {
    let world = IndexFixture::new();
    let other = world.other_process();
    let change = world.index.begin_move(&tree_path("/a"), &tree_path("/c/z")).expect("begun");
    let id = other.assign_id(&tree_path("/a/b")).expect("named");
    world.host.rename("/a", "/c/z");
    change.finish().expect("finished");
    assert_eq!(world.locate(id).as_deref(), Some("/c/z/b"));
}

#[test]
fn another_process_finds_moved_node_at_move_target() {
    let world = IndexFixture::new();
    let other = world.other_process();
    let folder = world.assign_id("/a");
    let change = world.index.begin_move(&tree_path("/a"), &tree_path("/z")).expect("begun");
    world.host.rename("/a", "/z");
    assert_eq!(other.assign_id(&tree_path("/z")).expect("named"), folder);
    change.finish().expect("finished");
    assert_eq!(world.locate(folder).as_deref(), Some("/z"));
}

#[test]
fn another_process_assigns_no_id_at_target_of_move_in_progress() {
    let world = IndexFixture::new();
    let other = world.other_process();
    let folder = world.assign_id("/a");
    let change = world.index.begin_move(&tree_path("/a"), &tree_path("/z")).expect("begun");
    // It first looks whether the move was done, which it was not, and then for what stands at the target.
    world.host.interfere_at_lookup(2, |host| host.rename("/a", "/z"));
    assert_eq!(other.assign_id(&tree_path("/z")).expect("named"), folder);
    change.finish().expect("finished");
    assert_eq!(world.locate(folder).as_deref(), Some("/z"));
}

#[test]
fn replacement_of_other_kind_keeps_its_own_id() {
    let world = IndexFixture::new();
    let (file, folder) = (world.assign_id("/a/b/f"), world.assign_id("/c"));
    world.rename("/a/b/f", "/c");
    assert_eq!((world.find("/c"), world.locate(folder)), (Some(file), None));
    let parent = world.assign_id("/a/b");
    world.rename("/a/b", "/c");
    assert_eq!((world.find("/c"), world.locate(file)), (Some(parent), None));
}

#[test]
fn changes_of_named_nodes_are_serialized_and_others_concurrent() {
    let world = IndexFixture::new();
    world.assign_id("/c");
    let unnamed = world.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun");
    assert!(world.index.change_lock.try_read().is_some());
    assert!(world.index.change_lock.try_write().is_none(), "nothing is named meanwhile");
    drop(unnamed);
    let named = world.index.begin_move(&tree_path("/c"), &tree_path("/a/c")).expect("begun");
    assert!(world.index.change_lock.try_read().is_none());
    drop(named);
    assert!(world.index.change_lock.try_write().is_some());
}

#[test]
fn unfinished_intent_is_settled_before_next_change() {
    let world = IndexFixture::new();
    let folder = world.assign_id("/a/b");
    world.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun").abandon_as_killed();
    world.host.rename("/a/b", "/c/b");
    world.assign_id("/c");
    assert_eq!(world.locate(folder).as_deref(), Some("/c/b"));
    world.index.begin_remove(&tree_path("/c/b")).expect("begun").abandon_as_killed();
    world.rename("/c", "/a/c");
    assert_eq!(world.locate(folder).as_deref(), Some("/a/c/b"), "what was not done is abandoned");
    assert!(world.store.intents().expect("read").is_empty());
}

impl IndexChange<'_> {
    /// Leaves a change as a killed process does: nothing of it runs any more.
    pub(in crate::tree) fn abandon_as_killed(mut self) {
        self.state = IndexChangeState::Finished;
    }
}

/// Where a server may be killed during a move or removal: before the host changed, after it, or after
/// the index followed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum KillPoint {
    BeforeHost,
    BeforeFinish,
    AfterFinish,
}

#[test]
fn kill_during_move_leaves_old_or_new_paths() {
    for killed in [KillPoint::BeforeHost, KillPoint::BeforeFinish, KillPoint::AfterFinish] {
        let world = IndexFixture::new();
        world.host.create("/c/b", EntryKind::Directory);
        let (folder, file, replaced) = (world.assign_id("/a/b"), world.assign_id("/a/b/f"), world.assign_id("/c/b"));
        let change = world.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun");
        if killed != KillPoint::BeforeHost {
            world.host.rename("/a/b", "/c/b");
        }
        if killed == KillPoint::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.abandon_as_killed()
        }
        let index = world.restart();
        let place = if killed == KillPoint::BeforeHost { "/a/b" } else { "/c/b" };
        let inner = format!("{place}/f");
        assert_eq!(index.locate(folder).expect("located"), Some(tree_path(place)), "{killed:?}");
        assert_eq!(index.locate(file).expect("located"), Some(tree_path(&inner)), "{killed:?}");
        let stays = (killed == KillPoint::BeforeHost).then(|| tree_path("/c/b"));
        assert_eq!(index.locate(replaced).expect("located"), stays, "{killed:?}");
        assert!(world.store.intents().expect("read").is_empty());
    }
}

#[test]
fn kill_during_file_replacement_leaves_one_id_or_both() {
    for killed in [KillPoint::BeforeHost, KillPoint::BeforeFinish, KillPoint::AfterFinish] {
        let world = IndexFixture::new();
        world.host.create("/c/g", EntryKind::File);
        let (source, target) = (world.assign_id("/a/b/f"), world.assign_id("/c/g"));
        let change = world.index.begin_move(&tree_path("/a/b/f"), &tree_path("/c/g")).expect("begun");
        if killed != KillPoint::BeforeHost {
            world.host.rename("/a/b/f", "/c/g");
        }
        if killed == KillPoint::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.abandon_as_killed()
        }
        let index = world.restart();
        let stays = (killed == KillPoint::BeforeHost).then(|| tree_path("/a/b/f"));
        assert_eq!(index.locate(source).expect("located"), stays, "{killed:?}");
        assert_eq!(index.locate(target).expect("located"), Some(tree_path("/c/g")), "{killed:?}");
    }
}

#[test]
fn kill_during_removal_leaves_node_or_removes_it() {
    for killed in [KillPoint::BeforeHost, KillPoint::BeforeFinish, KillPoint::AfterFinish] {
        let world = IndexFixture::new();
        let (folder, file) = (world.assign_id("/a/b"), world.assign_id("/a/b/f"));
        let change = world.index.begin_remove(&tree_path("/a/b")).expect("begun");
        if killed != KillPoint::BeforeHost {
            world.host.remove("/a/b");
        }
        if killed == KillPoint::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.abandon_as_killed()
        }
        let index = world.restart();
        let stands = killed == KillPoint::BeforeHost;
        assert_eq!(index.locate(folder).expect("located").is_some(), stands, "{killed:?}");
        assert_eq!(world.store.node(file).expect("read").is_some(), stands, "{killed:?}");
        assert!(world.store.intents().expect("read").is_empty());
    }
}

#[test]
fn file_created_after_interrupted_removal_is_a_new_node() {
    let world = IndexFixture::new();
    let file = world.assign_id("/a/b/f");
    world.index.begin_remove(&tree_path("/a/b/f")).expect("begun").abandon_as_killed();
    world.host.remove("/a/b/f");
    world.host.create("/a/b/f", EntryKind::File);
    assert_eq!(world.restart().locate(file).expect("located"), None);
}

#[test]
fn nodes_follow_completed_change_when_later_step_fails() {
    let world = IndexFixture::new();
    let (folder, file) = (world.assign_id("/a/b"), world.assign_id("/a/b/f"));
    let moving = world.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun");
    world.host.rename("/a/b", "/c/b");
    drop(moving);
    assert_eq!(world.locate(folder).as_deref(), Some("/c/b"));
    let removing = world.index.begin_remove(&tree_path("/c/b/f")).expect("begun");
    world.host.remove("/c/b/f");
    drop(removing);
    assert_eq!(world.store.node(file).expect("read"), None);
    assert!(world.store.intents().expect("read").is_empty());
}

#[test]
fn change_refused_by_host_moves_no_node() {
    let world = IndexFixture::new();
    let folder = world.assign_id("/a/b");
    drop(world.index.begin_move(&tree_path("/a/b"), &tree_path("/c/b")).expect("begun"));
    drop(world.index.begin_remove(&tree_path("/a")).expect("begun"));
    assert_eq!(world.locate(folder).as_deref(), Some("/a/b"));
    assert!(world.store.intents().expect("read").is_empty());
}
