//! What success means under durability `full`: on disk, for content as well as for what the store keeps beside it.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::domain::{Permission, TreePath};
use crate::store::testing::{FULL, NORMAL, take_commits};
use crate::tree::host::doom::take_sync;
use crate::tree::{
    Attributes, Durability, LockRequest, Options, Overwrite, Property, PropertyChange, PropertyName, Timestamp, Tree,
};

const RW: Permission = Permission::RW;

fn color() -> PropertyChange {
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "color".to_owned() };
    PropertyChange::Set(Property { name, value: "<c xmlns=\"urn:x\">red</c>".to_owned() })
}

fn lock() -> LockRequest {
    LockRequest { exclusive: true, deep: false, owner: String::new(), timeout: Duration::from_secs(60) }
}

/// Serves the folder of a house beside it, with another durability.
fn beside(house: &House, durability: Durability) -> (Tree, View) {
    let session = house.view("alice").session().clone();
    let options = Options { root: house.root.clone(), durability };
    let tree = Tree::attach(options, house.store.clone(), house.clock.clone()).expect("beside");
    let view = tree.view(session);
    (tree, view)
}

fn house() -> House {
    let house = House::new(&["/box"]);
    house.user("alice", &[("/box", RW)]);
    house
}

/// Returns how the last write of an operation was committed: whatever the store was told before is on disk with it.
fn committed(operation: impl FnOnce()) -> i64 {
    take_commits();
    operation();
    *take_commits().last().expect("written to the store")
}

#[test]
fn properties_tags_and_locks_are_committed_as_durably_as_content() {
    for (durability, synchronous) in [(Durability::Full, FULL), (Durability::Fast, NORMAL)] {
        let house = house();
        let (_tree, view) = beside(&house, durability);
        put(&view, "/box/f", "content").expect("put");
        let file = at("/box/f");
        let patch = |change| view.set_properties(&file, &[change], &Attributes::default(), &NONE).expect("changed");
        assert_eq!(committed(|| patch(color())), synchronous, "PROPPATCH, {durability:?}");
        let PropertyChange::Set(Property { name, .. }) = color() else { unreachable!() };
        assert_eq!(committed(|| patch(PropertyChange::Remove(name))), synchronous, "PROPPATCH, {durability:?}");
        patch(color());
        let copy = || view.copy(&file, &at("/box/copy"), true, Overwrite::No, &NONE).map(drop).expect("copied");
        assert_eq!(committed(copy), synchronous, "COPY with properties, {durability:?}");
        let label = || {
            let upload = view.stage(&at("/box/tagged"), None, &NONE).expect("staged");
            upload.label(vec!["red".parse().expect("a tag")]).expect("labelled");
            upload.commit(&NONE).map(drop).expect("put");
        };
        assert_eq!(committed(label), synchronous, "PUT with tags, {durability:?}");

        let take = |path: &str| view.lock(&at(path), &lock(), &NONE).expect("locked").0.token;
        let mut held = None;
        assert_eq!(committed(|| held = Some(take("/box/f"))), synchronous, "LOCK, {durability:?}");
        let token = held.expect("held");
        let refresh = || view.refresh_lock(&file, &token, Duration::from_secs(90)).map(drop).expect("refreshed");
        assert_eq!(committed(refresh), synchronous, "refresh, {durability:?}");
        assert_eq!(committed(|| view.unlock(&file, &token).expect("unlocked")), synchronous, "UNLOCK, {durability:?}");
        let token = take("/box/f");
        let tokens = [token];
        let claim = Claim { tokens: &tokens, judge: &|| Ok(()) };
        let remove = || view.remove_file(&file, &claim).expect("removed");
        assert_eq!(committed(remove), synchronous, "DELETE of what is locked, {durability:?}");
    }
}

#[test]
fn move_of_what_has_properties_is_written_down_on_disk_before_its_first_effect() {
    let house = house();
    let (_tree, view) = beside(&house, Durability::Full);
    put(&view, "/box/f", "content").expect("put");
    view.set_properties(&at("/box/f"), &[color()], &Attributes::default(), &NONE).expect("changed");
    take_commits();
    view.rename(&at("/box/f"), &at("/box/g"), Overwrite::No, &NONE).expect("moved");
    assert_eq!(take_commits().first(), Some(&FULL), "the next start finishes what the store has not heard of");
    assert_eq!(view.properties(&at("/box/g")).expect("read").len(), 1);
}

#[test]
fn times_that_proppatch_sets_are_on_disk() {
    let house = house();
    let (_tree, view) = beside(&house, Durability::Full);
    put(&view, "/box/f", "content").expect("put");
    view.make_folder(&at("/box/d"), &Attributes::default(), &NONE).expect("made");
    let modified = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
    for path in ["/box/f", "/box/d"] {
        let stat = || view.host().stat(&at(path)).expect("there");
        take_sync(&stat());
        let attributes = Attributes { modified, ..Attributes::default() };
        view.set_properties(&at(path), &[], &attributes, &NONE).expect("set");
        assert!(take_sync(&stat()), "{path}");
    }
}

/// Makes a tree of `count` small files in ten directories, behind the gateway's back.
fn furnish(root: &Path, count: usize) {
    for number in 0..count {
        let folder = root.join(format!("d{}", number % 10));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("f{number}")), format!("content of {number}")).expect("written");
    }
}

#[test]
fn copy_syncs_every_file_and_directory_that_it_has_made() {
    use std::os::unix::fs::PermissionsExt;
    let house = house();
    let (_tree, view) = beside(&house, Durability::Full);
    view.make_folder(&at("/box/s"), &Attributes::default(), &NONE).expect("made");
    furnish(&house.root.join("box/s"), 100);
    fs::create_dir(house.root.join("box/s/empty")).expect("a folder");
    // The server, which owns the copy, may not be able to open it again.
    let blind = house.root.join("box/s/d0/blind");
    fs::write(&blind, "content").expect("written");
    fs::set_permissions(&blind, fs::Permissions::from_mode(0o244)).expect("set");
    let is_readable = fs::File::open(&blind).is_ok();
    if !is_readable {
        fs::remove_file(&blind).expect("removed");
    }
    view.copy(&at("/box/s"), &at("/box/t"), true, Overwrite::No, &NONE).expect("copied");
    let mut unsynced = Vec::new();
    let mut check = |path: &TreePath| {
        if !take_sync(&view.host().stat(path).expect("there")) {
            unsynced.push(path.to_string());
        }
    };
    check(&at("/box/t"));
    view.host()
        .folder(&at("/box/t"))
        .expect("there")
        .each_below(
            || Ok::<(), Error>(()),
            |_, below, name, _| {
                check(&at("/box/t").join(&below.child(name)));
                Ok(())
            },
        )
        .expect("listed");
    assert_eq!(unsynced, Vec::<String>::new());
}
