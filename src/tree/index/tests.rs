//! The node index against a host in memory, so that every race and crash can be staged.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::*;
use crate::store::PropertyUpdate;

type Meddler = Box<dyn FnOnce(&Host) + Send>;

/// A host in memory: what stands at each path, and what happens when the index looks.
#[derive(Default)]
pub(in crate::tree) struct Host {
    entries: Mutex<BTreeMap<TreePath, Facts>>,
    births: AtomicU64,
    asked: AtomicU64,
    /// Whether the file system is not there.
    gone: AtomicBool,
    meddler: Mutex<Option<(u64, Meddler)>>,
}

impl Host {
    pub(in crate::tree) fn make(&self, path: &str, kind: Kind) {
        let inode = self.births.fetch_add(1, Ordering::Relaxed) + 100;
        let facts = Facts { kind, inode, born: i64::try_from(inode).ok() };
        self.entries.lock().insert(at(path), facts);
    }

    pub(in crate::tree) fn rename(&self, from: &str, to: &str) {
        let mut entries = self.entries.lock();
        let (from, to) = (at(from), at(to));
        entries.retain(|path, _| !path.starts_with(&to));
        let moved: Vec<TreePath> = entries.keys().filter(|path| path.starts_with(&from)).cloned().collect();
        for path in moved {
            let below = path.strip_prefix(&from).expect("within");
            let facts = entries.remove(&path).expect("there");
            entries.insert(to.join(&below), facts);
        }
    }

    /// Does something just before the index asks for the `when`th time from now.
    fn meddle(&self, when: u64, what: impl FnOnce(&Host) + Send + 'static) {
        *self.meddler.lock() = Some((self.asked.load(Ordering::Relaxed) + when, Box::new(what)));
    }

    pub(in crate::tree) fn remove(&self, path: &str) {
        self.entries.lock().retain(|p, _| !p.starts_with(&at(path)));
    }

    /// Returns where each entry stands, by inode.
    pub(in crate::tree) fn places(&self) -> HashMap<u64, TreePath> {
        self.entries.lock().iter().map(|(path, facts)| (facts.inode, path.clone())).collect()
    }
}

impl Hands for Host {
    fn ask(&self, path: &TreePath) -> Result<Facts> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let meddler = self.meddler.lock().take_if(|(when, _)| *when == asked);
        if let Some((_, meddle)) = meddler {
            meddle(self);
        }
        if self.gone.load(Ordering::Relaxed) {
            return Err(crate::tree::Outage::Missing.into());
        }
        self.entries.lock().get(path).copied().ok_or(Error::Absent)
    }

    fn changed_since(&self, _: &TreePath, _: i64) -> Result<bool> {
        Ok(false)
    }

    fn clear(&self, path: &TreePath) -> Result<()> {
        self.remove(&path.to_string());
        Ok(())
    }
}

pub(in crate::tree) struct World {
    _state: tempfile::TempDir,
    pub(in crate::tree) store: Store,
    pub(in crate::tree) host: Arc<Host>,
    pub(in crate::tree) index: Index,
}

impl World {
    /// A root with the folder `/a/b`, the file `/a/b/f`, and the folder `/c`.
    pub(in crate::tree) fn new() -> Self {
        let state = tempfile::tempdir().expect("dir");
        let store = Store::open(&state.path().join("state")).expect("store");
        let host = Arc::new(Host::default());
        for (path, kind) in [
            ("/", Kind::Folder),
            ("/a", Kind::Folder),
            ("/a/b", Kind::Folder),
            ("/a/b/f", Kind::File),
            ("/c", Kind::Folder),
        ] {
            host.make(path, kind);
        }
        let index = index(&store, &host);
        index.recover().expect("recovered");
        Self { _state: state, store, host, index }
    }

    fn mint(&self, path: &str) -> NodeId {
        self.index.mint(&at(path)).expect(path)
    }

    fn locate(&self, id: NodeId) -> Option<String> {
        self.index.locate(id).expect("located").map(|path| path.to_string())
    }

    pub(in crate::tree) fn find(&self, path: &str) -> Option<NodeId> {
        self.index.find(&at(path)).expect("found")
    }

    pub(in crate::tree) fn rename(&self, from: &str, to: &str) {
        let change = self.index.begin_move(&at(from), &at(to)).expect("begun");
        self.host.rename(from, to);
        change.finish().expect("finished");
    }

    fn remove(&self, path: &str) {
        let change = self.index.begin_remove(&at(path)).expect("begun");
        self.host.remove(path);
        change.finish().expect("finished");
    }

    fn label(&self, id: NodeId, value: &str) {
        let step = PropertyUpdate { namespace: "u", name: "p", value: Some(value) };
        let (alice, lazy) = (crate::store::testing::login("alice"), WriteDurability::Lazy);
        assert!(self.store.update_properties(id, &alice, &[step], lazy, |_| true).expect("set"));
    }

    fn labels(&self, id: NodeId) -> Vec<String> {
        self.store.properties(id).expect("read").into_iter().map(|row| row.value).collect()
    }

    /// A second process over the same state and host.
    fn other_process(&self) -> Index {
        index(&Store::open(self.store.state_dir()).expect("store"), &self.host)
    }

    /// The next start after a crash.
    fn restart(&self) -> Index {
        let index = self.other_process();
        index.recover().expect("recovered");
        index
    }
}

fn index(store: &Store, host: &Arc<Host>) -> Index {
    Index::new(store.clone(), Arc::clone(host) as Arc<dyn Hands>, WriteDurability::Lazy)
}

pub(in crate::tree) fn at(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

#[test]
fn a_node_keeps_its_name_and_names_its_ancestors() {
    let world = World::new();
    let file = world.mint("/a/b/f");
    assert_eq!(world.mint("/a/b/f"), file);
    let paths: Vec<_> = world.index.list(&at("/")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/f"]);
    let below: Vec<_> = world.index.list(&at("/a/b")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(below, ["/a/b", "/a/b/f"]);
    assert!(matches!(world.index.mint(&at("/a/x")), Err(Error::Absent)));
    assert!(matches!(world.index.mint(&at("/a/b/f/x")), Err(Error::Absent)));
}

#[test]
fn a_link_is_never_named() {
    let world = World::new();
    world.host.make("/l", Kind::Link);
    assert!(matches!(world.index.mint(&at("/l")), Err(Error::Unsupported)));
    let file = world.mint("/a/b/f");
    world.host.make("/a/b/f", Kind::Link);
    assert_eq!(world.locate(file), None);
}

#[test]
fn a_node_follows_renames_of_itself_and_of_what_is_above() {
    let world = World::new();
    let (file, folder) = (world.mint("/a/b/f"), world.mint("/a/b"));
    world.rename("/a/b/f", "/a/b/g");
    assert_eq!(world.locate(file).as_deref(), Some("/a/b/g"));
    world.rename("/a", "/c/z");
    assert_eq!(world.locate(file).as_deref(), Some("/c/z/b/g"));
    assert_eq!(world.locate(folder).as_deref(), Some("/c/z/b"));
    assert_eq!(world.find("/c/z/b"), Some(folder));
    assert!(world.store.intents().expect("read").is_empty());
}

#[test]
fn a_move_of_what_has_no_name_writes_nothing() {
    let world = World::new();
    world.mint("/c");
    let before = world.store.data_version().expect("version");
    world.rename("/a/b/f", "/c/f");
    world.remove("/c/f");
    assert_eq!(world.store.data_version().expect("version"), before);
}

#[test]
fn a_replaced_file_keeps_its_id_and_takes_the_properties_of_what_replaced_it() {
    let world = World::new();
    world.host.make("/a/tmp", Kind::File);
    let (file, saved) = (world.mint("/a/b/f"), world.mint("/a/tmp"));
    world.label(file, "old");
    world.label(saved, "new");
    world.rename("/a/tmp", "/a/b/f");
    assert_eq!(world.find("/a/b/f"), Some(file));
    assert_eq!(world.labels(file), ["new"]);
    assert_eq!(world.locate(saved), None);
    world.host.make("/a/unnamed", Kind::File);
    world.rename("/a/unnamed", "/a/b/f");
    assert_eq!(world.find("/a/b/f"), Some(file));
    assert!(world.labels(file).is_empty());
}

#[test]
fn a_replaced_folder_is_another_node() {
    let world = World::new();
    let (moved, replaced, inner) = (world.mint("/c"), world.mint("/a/b"), world.mint("/a/b/f"));
    world.rename("/c", "/a/b");
    assert_eq!(world.find("/a/b"), Some(moved));
    assert_eq!((world.locate(replaced), world.locate(inner)), (None, None));
    world.host.make("/d", Kind::Folder);
    world.rename("/d", "/a/b");
    assert_eq!((world.find("/a/b"), world.locate(moved)), (None, None));
}

#[test]
fn a_removed_node_ends_and_its_successor_is_another() {
    let world = World::new();
    let (folder, file) = (world.mint("/a/b"), world.mint("/a/b/f"));
    world.remove("/a/b/f");
    world.host.make("/a/b/f", Kind::File);
    assert_eq!((world.find("/a/b/f"), world.locate(file)), (None, None));
    world.remove("/a");
    world.host.make("/a", Kind::Folder);
    world.host.make("/a/b", Kind::Folder);
    assert_ne!(world.mint("/a/b"), folder);
    assert_eq!(world.locate(folder), None);
}

#[test]
fn a_folder_swapped_behind_the_gateways_back_dangles_and_so_do_its_files() {
    let world = World::new();
    let (folder, file) = (world.mint("/a/b"), world.mint("/a/b/f"));
    world.host.rename("/a/b", "/a/old");
    world.host.make("/a/b", Kind::Folder);
    world.host.make("/a/b/f", Kind::File);
    assert_eq!((world.locate(folder), world.locate(file)), (None, None));
    assert_eq!((world.find("/a/b"), world.find("/a/b/f")), (None, None));
    let named = world.index.list(&at("/a")).expect("list");
    let dangling: Vec<_> = named.iter().map(|node| node.dangling).collect();
    assert_eq!(dangling, [false, true, true]);
    // The name goes to another node, and the old id never comes back to life there.
    assert_ne!(world.mint("/a/b/f"), file);
    assert_eq!((world.locate(folder), world.locate(file)), (None, None));
}

#[test]
fn a_swapped_folder_that_is_moved_takes_no_old_name_along() {
    let world = World::new();
    let (folder, file) = (world.mint("/a/b"), world.mint("/a/b/f"));
    world.host.remove("/a/b");
    world.host.make("/a/b", Kind::Folder);
    world.host.make("/a/b/f", Kind::File);
    world.rename("/a/b/f", "/c/f");
    world.rename("/a/b", "/c/b");
    assert_eq!((world.locate(folder), world.locate(file)), (None, None));
    assert_eq!((world.find("/c/b"), world.find("/c/f")), (None, None));
}

#[test]
fn a_file_that_becomes_a_folder_is_another_node() {
    let world = World::new();
    let file = world.mint("/a/b/f");
    world.host.remove("/a/b/f");
    world.host.make("/a/b/f", Kind::Folder);
    assert_eq!(world.locate(file), None);
    assert_ne!(world.mint("/a/b/f"), file);
}

#[test]
fn another_served_folder_ends_no_node_until_repair() {
    let world = World::new();
    let folder = world.mint("/a");
    let home = world.host.entries.lock().clone();
    world.host.make("/", Kind::Folder);
    world.host.make("/a", Kind::Folder);
    assert!(matches!(world.index.mint(&at("/a")), Err(Error::OtherTree)));
    *world.host.entries.lock() = home;
    assert_eq!(world.locate(folder).as_deref(), Some("/a"));
    world.host.make("/", Kind::Folder);
    assert_eq!(world.index.repair().expect("repaired").len(), 1);
    assert!(world.index.mint(&at("/a")).is_ok_and(|new| new != folder));
}

#[test]
fn no_intent_is_concluded_and_no_node_ends_while_the_tree_is_not_there() {
    let world = World::new();
    let folder = world.mint("/a/b");
    let change = world.index.begin_remove(&at("/a/b")).expect("begun");
    world.host.gone.store(true, Ordering::Relaxed);
    drop(change);
    world.index.recover().expect("the next start goes on without it");
    assert_eq!(world.store.intents().expect("read").len(), 1);
    assert!(matches!(world.index.locate(folder), Err(Error::Unavailable(_))));
    assert!(matches!(world.index.mint(&at("/c")), Err(Error::Unavailable(_))));
    assert!(matches!(world.index.repair(), Err(Error::Unavailable(_))));
    world.host.gone.store(false, Ordering::Relaxed);
    world.index.recover().expect("recovered");
    assert!(world.store.intents().expect("read").is_empty());
    assert_eq!(world.locate(folder).as_deref(), Some("/a/b"));
}

#[test]
fn repair_drops_what_has_ended_and_nobody_names() {
    let world = World::new();
    let (used, unused) = (world.mint("/a/b/f"), world.mint("/c"));
    world.label(used, "kept");
    world.host.remove("/a/b");
    world.host.remove("/c");
    let dangling: Vec<_> = world.index.repair().expect("repaired").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(dangling, ["/a/b", "/a/b/f", "/c"]);
    let left: Vec<_> = world.index.list(&at("/")).expect("list").iter().map(|n| n.path.to_string()).collect();
    assert_eq!(left, ["/", "/a", "/a/b", "/a/b/f"]);
    assert_eq!(world.store.node(unused).expect("read"), None);
}

#[test]
fn two_processes_that_name_one_path_get_one_id() {
    let world = World::new();
    let others: Vec<Index> = (0..4).map(|_| world.other_process()).collect();
    for path in ["/a/b/f", "/a/b", "/c"] {
        let ids: Vec<NodeId> = std::thread::scope(|scope| {
            let minting: Vec<_> = others.iter().map(|index| scope.spawn(|| index.mint(&at(path)))).collect();
            minting.into_iter().map(|thread| thread.join().expect("thread").expect(path)).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{path}");
    }
}

#[test]
fn a_folder_swapped_while_it_is_named_gets_the_name_of_what_stands_there_at_the_end() {
    // Naming /a asks for / and /a, and for both again once the rows are written.
    for when in 1..=4 {
        let world = World::new();
        world.host.meddle(when, |host| {
            host.rename("/a", "/old");
            host.make("/a", Kind::Folder);
        });
        let id = world.mint("/a");
        assert_eq!(world.locate(id).as_deref(), Some("/a"), "{when}");
        assert!(world.host.meddler.lock().is_none());
    }
}

#[test]
fn what_another_process_names_during_a_move_follows_it() {
    let world = World::new();
    let other = world.other_process();
    let change = world.index.begin_move(&at("/a"), &at("/c/z")).expect("begun");
    let id = other.mint(&at("/a/b")).expect("named");
    world.host.rename("/a", "/c/z");
    change.finish().expect("finished");
    assert_eq!(world.locate(id).as_deref(), Some("/c/z/b"));
}

#[test]
fn another_process_that_names_the_target_of_a_move_finds_the_moved_node() {
    let world = World::new();
    let other = world.other_process();
    let folder = world.mint("/a");
    let change = world.index.begin_move(&at("/a"), &at("/z")).expect("begun");
    world.host.rename("/a", "/z");
    assert_eq!(other.mint(&at("/z")).expect("named"), folder);
    change.finish().expect("finished");
    assert_eq!(world.locate(folder).as_deref(), Some("/z"));
}

#[test]
fn another_process_names_nothing_where_a_move_is_about_to_arrive() {
    let world = World::new();
    let other = world.other_process();
    let folder = world.mint("/a");
    let change = world.index.begin_move(&at("/a"), &at("/z")).expect("begun");
    // It first looks whether the move was done, which it was not, and then for what stands at the target.
    world.host.meddle(2, |host| host.rename("/a", "/z"));
    assert_eq!(other.mint(&at("/z")).expect("named"), folder);
    change.finish().expect("finished");
    assert_eq!(world.locate(folder).as_deref(), Some("/z"));
}

#[test]
fn a_file_that_replaces_a_folder_keeps_its_own_id_and_so_does_a_folder_that_replaces_a_file() {
    let world = World::new();
    let (file, folder) = (world.mint("/a/b/f"), world.mint("/c"));
    world.rename("/a/b/f", "/c");
    assert_eq!((world.find("/c"), world.locate(folder)), (Some(file), None));
    let parent = world.mint("/a/b");
    world.rename("/a/b", "/c");
    assert_eq!((world.find("/c"), world.locate(file)), (Some(parent), None));
}

#[test]
fn changes_of_named_nodes_go_one_at_a_time_and_others_side_by_side() {
    let world = World::new();
    world.mint("/c");
    let unnamed = world.index.begin_move(&at("/a/b"), &at("/c/b")).expect("begun");
    assert!(world.index.gate.try_read().is_some());
    assert!(world.index.gate.try_write().is_none(), "nothing is named meanwhile");
    drop(unnamed);
    let named = world.index.begin_move(&at("/c"), &at("/a/c")).expect("begun");
    assert!(world.index.gate.try_read().is_none());
    drop(named);
    assert!(world.index.gate.try_write().is_some());
}

#[test]
fn an_intent_is_made_up_for_when_the_index_could_not_follow_at_once() {
    let world = World::new();
    let folder = world.mint("/a/b");
    world.index.begin_move(&at("/a/b"), &at("/c/b")).expect("begun").die();
    world.host.rename("/a/b", "/c/b");
    world.mint("/c");
    assert_eq!(world.locate(folder).as_deref(), Some("/c/b"));
    world.index.begin_remove(&at("/c/b")).expect("begun").die();
    world.rename("/c", "/a/c");
    assert_eq!(world.locate(folder).as_deref(), Some("/a/c/b"), "what was not done is abandoned");
    assert!(world.store.intents().expect("read").is_empty());
}

impl Change<'_> {
    /// Leaves a change as a killed process does: nothing of it runs any more.
    pub(in crate::tree) fn die(mut self) {
        self.begun = Begun::Over;
    }
}

/// Where a server may be killed during a move or removal: before the host changed, after it, or after
/// the index followed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    BeforeHost,
    BeforeFinish,
    AfterFinish,
}

#[test]
fn a_server_killed_during_a_move_leaves_the_old_or_the_new_names() {
    for killed in [Killed::BeforeHost, Killed::BeforeFinish, Killed::AfterFinish] {
        let world = World::new();
        world.host.make("/c/b", Kind::Folder);
        let (folder, file, replaced) = (world.mint("/a/b"), world.mint("/a/b/f"), world.mint("/c/b"));
        let change = world.index.begin_move(&at("/a/b"), &at("/c/b")).expect("begun");
        if killed != Killed::BeforeHost {
            world.host.rename("/a/b", "/c/b");
        }
        if killed == Killed::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.die()
        }
        let index = world.restart();
        let place = if killed == Killed::BeforeHost { "/a/b" } else { "/c/b" };
        let inner = format!("{place}/f");
        assert_eq!(index.locate(folder).expect("located"), Some(at(place)), "{killed:?}");
        assert_eq!(index.locate(file).expect("located"), Some(at(&inner)), "{killed:?}");
        let stays = (killed == Killed::BeforeHost).then(|| at("/c/b"));
        assert_eq!(index.locate(replaced).expect("located"), stays, "{killed:?}");
        assert!(world.store.intents().expect("read").is_empty());
    }
}

#[test]
fn a_server_killed_while_a_file_replaces_a_file_leaves_one_id_or_both() {
    for killed in [Killed::BeforeHost, Killed::BeforeFinish, Killed::AfterFinish] {
        let world = World::new();
        world.host.make("/c/g", Kind::File);
        let (source, target) = (world.mint("/a/b/f"), world.mint("/c/g"));
        let change = world.index.begin_move(&at("/a/b/f"), &at("/c/g")).expect("begun");
        if killed != Killed::BeforeHost {
            world.host.rename("/a/b/f", "/c/g");
        }
        if killed == Killed::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.die()
        }
        let index = world.restart();
        let stays = (killed == Killed::BeforeHost).then(|| at("/a/b/f"));
        assert_eq!(index.locate(source).expect("located"), stays, "{killed:?}");
        assert_eq!(index.locate(target).expect("located"), Some(at("/c/g")), "{killed:?}");
    }
}

#[test]
fn a_server_killed_during_a_removal_leaves_the_node_or_ends_it() {
    for killed in [Killed::BeforeHost, Killed::BeforeFinish, Killed::AfterFinish] {
        let world = World::new();
        let (folder, file) = (world.mint("/a/b"), world.mint("/a/b/f"));
        let change = world.index.begin_remove(&at("/a/b")).expect("begun");
        if killed != Killed::BeforeHost {
            world.host.remove("/a/b");
        }
        if killed == Killed::AfterFinish {
            change.finish().expect("finished")
        } else {
            change.die()
        }
        let index = world.restart();
        let stands = killed == Killed::BeforeHost;
        assert_eq!(index.locate(folder).expect("located").is_some(), stands, "{killed:?}");
        assert_eq!(world.store.node(file).expect("read").is_some(), stands, "{killed:?}");
        assert!(world.store.intents().expect("read").is_empty());
    }
}

#[test]
fn a_file_put_in_place_of_one_whose_removal_was_cut_off_is_another_node() {
    let world = World::new();
    let file = world.mint("/a/b/f");
    world.index.begin_remove(&at("/a/b/f")).expect("begun").die();
    world.host.remove("/a/b/f");
    world.host.make("/a/b/f", Kind::File);
    assert_eq!(world.restart().locate(file).expect("located"), None);
}

#[test]
fn names_follow_a_change_that_was_done_though_what_came_after_it_failed() {
    let world = World::new();
    let (folder, file) = (world.mint("/a/b"), world.mint("/a/b/f"));
    let moving = world.index.begin_move(&at("/a/b"), &at("/c/b")).expect("begun");
    world.host.rename("/a/b", "/c/b");
    drop(moving);
    assert_eq!(world.locate(folder).as_deref(), Some("/c/b"));
    let removing = world.index.begin_remove(&at("/c/b/f")).expect("begun");
    world.host.remove("/c/b/f");
    drop(removing);
    assert_eq!(world.store.node(file).expect("read"), None);
    assert!(world.store.intents().expect("read").is_empty());
}

#[test]
fn a_change_that_the_host_refused_changes_no_name() {
    let world = World::new();
    let folder = world.mint("/a/b");
    drop(world.index.begin_move(&at("/a/b"), &at("/c/b")).expect("begun"));
    drop(world.index.begin_remove(&at("/a")).expect("begun"));
    assert_eq!(world.locate(folder).as_deref(), Some("/a/b"));
    assert!(world.store.intents().expect("read").is_empty());
}
