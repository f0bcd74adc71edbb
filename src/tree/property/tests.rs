//! Dead properties over the node index and a host in memory.

use super::*;
use crate::store::WriteDurability;
use crate::store::testing::login;
use crate::tree::Kind;
use crate::tree::index::tests::{World, at};

fn property(name: &str, value: &str) -> Property {
    Property { name: PropertyName { namespace: "urn:x".to_owned(), name: name.to_owned() }, value: value.to_owned() }
}

fn set(name: &str, value: &str) -> PropertyChange {
    PropertyChange::Set(property(name, value))
}

impl World {
    fn change(&self, path: &str, changes: &[PropertyChange]) -> Result<()> {
        self.index.change_properties(&at(path), &login("alice"), changes, || Ok(()))
    }

    fn values(&self, path: &str) -> Vec<String> {
        self.index.properties(&at(path)).expect("read").into_iter().map(|property| property.value).collect()
    }
}

#[test]
fn properties_are_set_and_removed_in_order_and_follow_their_node() {
    let world = World::new();
    let remove = |name: &str| PropertyChange::Remove(property(name, "").name);
    world.change("/a/b", &[set("x", "1"), set("y", "2"), remove("x"), set("y", "3"), remove("none")]).expect("changed");
    world.change("/a/b/f", &[set("x", "4")]).expect("changed");
    assert_eq!(world.values("/a/b"), ["3"]);
    world.rename("/a/b", "/c/b");
    assert_eq!(
        (world.values("/c/b"), world.values("/c/b/f"), world.values("/a/b")),
        (vec!["3".into()], vec!["4".into()], vec![])
    );
    world.host.remove("/c/b");
    world.host.make("/c/b", Kind::Folder);
    assert!(world.values("/c/b").is_empty(), "another folder has none of them");
}

#[test]
fn removing_properties_names_no_node() {
    let world = World::new();
    world.change("/a/b/f", &[PropertyChange::Remove(property("x", "").name)]).expect("changed");
    assert!(world.index.list(&at("/")).expect("list").is_empty());
    assert!(matches!(world.change("/a/none", &[set("x", "1")]), Err(Error::Absent)));
}

#[test]
fn an_entry_that_goes_while_it_is_named_gets_no_properties() {
    let world = World::new();
    let node = world.index.mint(&at("/c")).expect("named");
    world.store.delete_nodes(&[node]).expect("ended");
    let step = PropertyUpdate { namespace: "", name: "x", value: Some("1") };
    let changed = world.store.update_properties(node, &login("alice"), &[step], WriteDurability::Lazy, |_| true);
    assert!(matches!(changed, Err(StoreError::NotFound(_))), "{changed:?}");
    world.change("/a", &[set("x", "1")]).expect("changed");
    let source = world.find("/a").expect("named");
    world.store.copy_properties(&login("alice"), &[(Some(source), node)], WriteDurability::Lazy).expect("passed over");
    assert!(world.store.properties(node).expect("read").is_empty());
}

#[test]
fn a_change_of_no_property_leaves_the_store_alone() {
    let world = World::new();
    world.change("/c", &[set("x", "1")]).expect("changed");
    let before = world.store.data_version().expect("version");
    world.change("/c", &[]).expect("changed");
    assert!(matches!(
        world.index.change_properties(&at("/c"), &login("alice"), &[], || Err(Error::NoSpace)),
        Err(Error::NoSpace)
    ));
    assert_eq!(world.store.data_version().expect("version"), before);
}

#[test]
fn a_change_of_properties_is_all_or_nothing() {
    let world = World::new();
    world.change("/c", &[set("x", "old")]).expect("changed");
    let large = "v".repeat((64 << 10) + 1);
    assert!(matches!(world.change("/c", &[set("x", "new"), set("y", &large)]), Err(Error::NoSpace)));
    let many: Vec<_> = (0..1000).map(|n| set(&format!("n{n}"), "v")).collect();
    assert!(matches!(world.change("/c", &many), Err(Error::NoSpace)));
    let heavy: Vec<_> = (0..16).map(|n| set(&format!("n{n}"), &large[1..])).collect();
    assert!(matches!(world.change("/c", &heavy), Err(Error::NoSpace)));
    let refused =
        world.index.change_properties(&at("/c"), &login("alice"), &[set("x", "new")], || Err(Error::Forbidden));
    assert!(matches!(refused, Err(Error::Forbidden)));
    assert_eq!(world.values("/c"), ["old"]);
    world.change("/c", &many[1..]).expect("a thousand fit");
}

#[test]
fn the_properties_of_a_folders_entries_are_read_together() {
    let world = World::new();
    world.host.make("/a/b/g", Kind::File);
    world.host.make("/a/b/d", Kind::Folder);
    for path in ["/a/b", "/a/b/f", "/a/b/d"] {
        world.change(path, &[set("x", path), set("y", "2")]).expect("changed");
    }
    let read = |folder: &str| {
        let found = world.index.properties_in(&at(folder)).expect("read");
        let mut found: Vec<_> =
            found.into_iter().map(|(name, p)| (name.to_string(), p.len(), p[0].value.clone())).collect();
        found.sort();
        found
    };
    assert_eq!(read("/a/b"), [("d".into(), 2, "/a/b/d".into()), ("f".into(), 2, "/a/b/f".into())]);
    assert_eq!(read("/a"), [("b".into(), 2, "/a/b".into())]);
    assert!(read("/c").is_empty());
    world.host.make("/a/b/d", Kind::Folder);
    assert_eq!(read("/a/b"), [("f".into(), 2, "/a/b/f".into())], "a swapped folder shows none");
}

#[test]
fn a_copy_gets_the_properties_of_its_source_and_no_others() {
    let world = World::new();
    for path in ["/a/b", "/a/b/f"] {
        world.change(path, &[set("x", path)]).expect("changed");
    }
    for (path, kind) in [
        ("/c/b", Kind::Folder),
        ("/c/b/f", Kind::File),
        ("/c/g", Kind::File),
        ("/c/e", Kind::Folder),
        ("/c/e/f", Kind::File),
    ] {
        world.host.make(path, kind);
    }
    world.index.copy_properties(&at("/a/b"), &at("/c/b"), &login("alice"), true).expect("copied");
    assert_eq!((world.values("/c/b"), world.values("/c/b/f")), (vec!["/a/b".into()], vec!["/a/b/f".into()]));
    assert_ne!(world.find("/c/b/f"), world.find("/a/b/f"));
    world.index.copy_properties(&at("/a/b"), &at("/c/e"), &login("alice"), false).expect("copied");
    assert_eq!((world.values("/c/e"), world.values("/c/e/f")), (vec!["/a/b".into()], vec![]));
    world.index.copy_properties(&at("/c/g"), &at("/c/b/f"), &login("alice"), true).expect("copied");
    assert!(world.values("/c/b/f").is_empty());
    assert_eq!(world.values("/a/b/f"), ["/a/b/f"]);
    // What belonged to a folder that was swapped since is not the new one's to give.
    world.host.remove("/a/b");
    for path in ["/a/b", "/c/h", "/c/h/b"] {
        world.host.make(path, Kind::Folder);
    }
    world.change("/a", &[set("x", "a")]).expect("changed");
    world.index.copy_properties(&at("/a"), &at("/c/h"), &login("alice"), true).expect("copied");
    assert_eq!((world.values("/c/h"), world.values("/c/h/b")), (vec!["a".into()], vec![]));
}
