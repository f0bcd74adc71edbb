//! Tests of dead properties over the node index and a file system in memory: atomic changes, and properties that follow
//! or leave with their node.

use super::*;
use crate::store::WriteDurability;
use crate::store::testing::login;
use crate::tree::EntryKind;
use crate::tree::dead_property::PropertyName;
use crate::tree::index::tests::{IndexFixture, tree_path};

fn property(name: &str, value: &str) -> DeadProperty {
    DeadProperty {
        name: PropertyName { namespace: "urn:x".to_owned(), name: name.to_owned() },
        value: value.to_owned(),
    }
}

fn set(name: &str, value: &str) -> PropertyChange {
    PropertyChange::Set(property(name, value))
}

impl IndexFixture {
    fn change_properties(&self, path: &str, changes: &[PropertyChange]) -> Result<()> {
        self.index.change_properties(&tree_path(path), &login("alice"), changes, || Ok(()))
    }

    fn values(&self, path: &str) -> Vec<String> {
        let Some(node) = self.index.find_id(&tree_path(path)).expect("read") else { return Vec::new() };
        let properties = self.index.node_properties(node).expect("read");
        properties.into_iter().map(|property| property.value).collect()
    }

    fn member_properties(&self, directory: &str) -> HashMap<EntryName, Vec<DeadProperty>> {
        let directory = tree_path(directory);
        match self.index.find_id(&directory).expect("read") {
            Some(node) => self.index.member_properties(node, &directory).expect("read"),
            None => HashMap::new(),
        }
    }
}

#[test]
fn properties_change_in_order_and_follow_their_node() {
    let fixture = IndexFixture::new();
    let remove = |name: &str| PropertyChange::Remove(property(name, "").name);
    fixture
        .change_properties("/a/b", &[set("x", "1"), set("y", "2"), remove("x"), set("y", "3"), remove("none")])
        .expect("changed");
    fixture.change_properties("/a/b/f", &[set("x", "4")]).expect("changed");
    assert_eq!(fixture.values("/a/b"), ["3"]);
    fixture.rename("/a/b", "/c/b");
    assert_eq!(
        (fixture.values("/c/b"), fixture.values("/c/b/f"), fixture.values("/a/b")),
        (vec!["3".into()], vec!["4".into()], vec![])
    );
    fixture.host.remove("/c/b");
    fixture.host.create("/c/b", EntryKind::Directory);
    assert!(fixture.values("/c/b").is_empty(), "another folder has none of them");
}

#[test]
fn removing_properties_assigns_no_node_id() {
    let fixture = IndexFixture::new();
    fixture.change_properties("/a/b/f", &[PropertyChange::Remove(property("x", "").name)]).expect("changed");
    assert!(fixture.index.list(&tree_path("/")).expect("list").is_empty());
    assert!(matches!(fixture.change_properties("/a/none", &[set("x", "1")]), Err(Error::Absent)));
}

#[test]
fn entry_removed_while_id_is_assigned_gets_no_properties() {
    let fixture = IndexFixture::new();
    let node = fixture.index.assign_id(&tree_path("/c")).expect("named");
    fixture.store.delete_nodes(&[node]).expect("ended");
    let step = PropertyUpdate { namespace: "", name: "x", value: Some("1") };
    let changed = fixture.store.update_properties(node, &login("alice"), &[step], WriteDurability::Lazy, |_| true);
    assert!(matches!(changed, Err(StoreError::NotFound(_))), "{changed:?}");
    fixture.change_properties("/a", &[set("x", "1")]).expect("changed");
    let source = fixture.find("/a").expect("named");
    fixture
        .store
        .copy_properties(&login("alice"), &[(Some(source), node)], WriteDurability::Lazy)
        .expect("passed over");
    assert!(fixture.store.properties(node).expect("read").is_empty());
}

#[test]
fn empty_property_change_does_not_write_to_store() {
    let fixture = IndexFixture::new();
    fixture.change_properties("/c", &[set("x", "1")]).expect("changed");
    let before = fixture.store.data_version().expect("version");
    fixture.change_properties("/c", &[]).expect("changed");
    assert!(matches!(
        fixture.index.change_properties(&tree_path("/c"), &login("alice"), &[], || Err(Error::NoSpace)),
        Err(Error::NoSpace)
    ));
    assert_eq!(fixture.store.data_version().expect("version"), before);
}

#[test]
fn property_changes_are_atomic() {
    let fixture = IndexFixture::new();
    fixture.change_properties("/c", &[set("x", "old")]).expect("changed");
    let large = "v".repeat((64 << 10) + 1);
    assert!(matches!(fixture.change_properties("/c", &[set("x", "new"), set("y", &large)]), Err(Error::NoSpace)));
    let many: Vec<_> = (0..1000).map(|n| set(&format!("n{n}"), "v")).collect();
    assert!(matches!(fixture.change_properties("/c", &many), Err(Error::NoSpace)));
    let heavy: Vec<_> = (0..16).map(|n| set(&format!("n{n}"), &large[1..])).collect();
    assert!(matches!(fixture.change_properties("/c", &heavy), Err(Error::NoSpace)));
    let refused = fixture
        .index
        .change_properties(&tree_path("/c"), &login("alice"), &[set("x", "new")], || Err(Error::Forbidden));
    assert!(matches!(refused, Err(Error::Forbidden)));
    assert_eq!(fixture.values("/c"), ["old"]);
    fixture.change_properties("/c", &many[1..]).expect("a thousand fit");
}

#[test]
fn properties_of_directory_entries_are_read_in_one_query() {
    let fixture = IndexFixture::new();
    fixture.host.create("/a/b/g", EntryKind::File);
    fixture.host.create("/a/b/d", EntryKind::Directory);
    for path in ["/a/b", "/a/b/f", "/a/b/d"] {
        fixture.change_properties(path, &[set("x", path), set("y", "2")]).expect("changed");
    }
    let read = |directory: &str| {
        let found = fixture.member_properties(directory);
        let mut found: Vec<_> =
            found.into_iter().map(|(name, p)| (name.to_string(), p.len(), p[0].value.clone())).collect();
        found.sort();
        found
    };
    assert_eq!(read("/a/b"), [("d".into(), 2, "/a/b/d".into()), ("f".into(), 2, "/a/b/f".into())]);
    assert_eq!(read("/a"), [("b".into(), 2, "/a/b".into())]);
    assert!(read("/c").is_empty());
    fixture.host.create("/a/b/d", EntryKind::Directory);
    assert_eq!(read("/a/b"), [("f".into(), 2, "/a/b/f".into())], "a swapped folder shows none");
}

#[test]
fn copy_gets_exactly_the_properties_of_its_source() {
    let fixture = IndexFixture::new();
    for path in ["/a/b", "/a/b/f"] {
        fixture.change_properties(path, &[set("x", path)]).expect("changed");
    }
    for (path, kind) in [
        ("/c/b", EntryKind::Directory),
        ("/c/b/f", EntryKind::File),
        ("/c/g", EntryKind::File),
        ("/c/e", EntryKind::Directory),
        ("/c/e/f", EntryKind::File),
    ] {
        fixture.host.create(path, kind);
    }
    fixture.index.copy_properties(&tree_path("/a/b"), &tree_path("/c/b"), &login("alice"), true).expect("copied");
    assert_eq!((fixture.values("/c/b"), fixture.values("/c/b/f")), (vec!["/a/b".into()], vec!["/a/b/f".into()]));
    assert_ne!(fixture.find("/c/b/f"), fixture.find("/a/b/f"));
    fixture.index.copy_properties(&tree_path("/a/b"), &tree_path("/c/e"), &login("alice"), false).expect("copied");
    assert_eq!((fixture.values("/c/e"), fixture.values("/c/e/f")), (vec!["/a/b".into()], vec![]));
    fixture.index.copy_properties(&tree_path("/c/g"), &tree_path("/c/b/f"), &login("alice"), true).expect("copied");
    assert!(fixture.values("/c/b/f").is_empty());
    assert_eq!(fixture.values("/a/b/f"), ["/a/b/f"]);
    // Properties of a directory that was swapped since are not copied from the new one.
    fixture.host.remove("/a/b");
    for path in ["/a/b", "/c/h", "/c/h/b"] {
        fixture.host.create(path, EntryKind::Directory);
    }
    fixture.change_properties("/a", &[set("x", "a")]).expect("changed");
    fixture.index.copy_properties(&tree_path("/a"), &tree_path("/c/h"), &login("alice"), true).expect("copied");
    assert_eq!((fixture.values("/c/h"), fixture.values("/c/h/b")), (vec!["a".into()], vec![]));
}
