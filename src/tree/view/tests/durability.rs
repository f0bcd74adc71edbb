//! Tests of durability `full`: a success is on disk, content as well as rows of the store.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::domain::{Permission, TreePath};
use crate::store::testing::{FULL, NORMAL, take_commits};
use crate::tree::fs::fault_injection::take_sync;
use crate::tree::{
    AttributeChanges, CommitDurability, DeadProperty, LockRequest, OverwriteMode, PropertyChange, PropertyName,
    Timestamp, Tree, TreeOptions,
};

const RW: Permission = Permission::RW;

fn color() -> PropertyChange {
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "color".to_owned() };
    PropertyChange::Set(DeadProperty { name, value: "<c xmlns=\"urn:x\">red</c>".to_owned() })
}

fn lock() -> LockRequest {
    LockRequest { exclusive: true, depth_infinity: false, owner: String::new(), timeout: Duration::from_secs(60) }
}

/// Attaches to the served directory a second time, with another durability.
fn attach_beside(fixture: &TreeFixture, durability: CommitDurability) -> (Tree, View) {
    let session = fixture.view("alice").session().clone();
    let options = TreeOptions { root: fixture.root_path.clone(), durability };
    let tree = Tree::attach(options, fixture.store.clone(), fixture.clock.clone()).expect("beside");
    let view = tree.view(session);
    (tree, view)
}

fn fixture() -> TreeFixture {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/box", RW)]);
    fixture
}

/// Returns the durability of an operation's last commit: a synced commit syncs the earlier ones too.
fn committed(operation: impl FnOnce()) -> i64 {
    take_commits();
    operation();
    *take_commits().last().expect("written to the store")
}

#[test]
fn properties_tags_and_locks_are_committed_as_durably_as_content() {
    for (durability, synchronous) in [(CommitDurability::Full, FULL), (CommitDurability::Fast, NORMAL)] {
        let fixture = fixture();
        let (_tree, view) = attach_beside(&fixture, durability);
        put(&view, "/box/f", "content").expect("put");
        let file = tree_path("/box/f");
        let patch = |change| {
            view.set_properties(&file, &[change], &AttributeChanges::default(), &NO_CONDITIONS).expect("changed")
        };
        assert_eq!(committed(|| patch(color())), synchronous, "PROPPATCH, {durability:?}");
        let PropertyChange::Set(DeadProperty { name, .. }) = color() else { unreachable!() };
        assert_eq!(committed(|| patch(PropertyChange::Remove(name))), synchronous, "PROPPATCH, {durability:?}");
        patch(color());
        let copy = || {
            view.copy(&file, &tree_path("/box/copy"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
                .map(drop)
                .expect("copied")
        };
        assert_eq!(committed(copy), synchronous, "COPY with properties, {durability:?}");
        let label = || {
            let upload = view.stage(&tree_path("/box/tagged"), None, &NO_CONDITIONS).expect("staged");
            upload.set_tags(vec!["red".parse().expect("a tag")]).expect("labelled");
            upload.commit(&NO_CONDITIONS).map(drop).expect("put");
        };
        assert_eq!(committed(label), synchronous, "PUT with tags, {durability:?}");

        let lock_path = |path: &str| view.lock(&tree_path(path), &lock(), &NO_CONDITIONS).expect("locked").lock.token;
        let mut lock_token = None;
        assert_eq!(committed(|| lock_token = Some(lock_path("/box/f"))), synchronous, "LOCK, {durability:?}");
        let token = lock_token.expect("held");
        let refresh = || view.refresh_lock(&file, &token, Duration::from_secs(90)).map(drop).expect("refreshed");
        assert_eq!(committed(refresh), synchronous, "refresh, {durability:?}");
        assert_eq!(committed(|| view.unlock(&file, &token).expect("unlocked")), synchronous, "UNLOCK, {durability:?}");
        let token = lock_path("/box/f");
        let tokens = [token];
        let conditions = WriteConditions { lock_tokens: &tokens, evaluate: &|| Ok(()) };
        let remove = || view.remove_file(&file, &conditions).expect("removed");
        assert_eq!(committed(remove), synchronous, "DELETE of what is locked, {durability:?}");
    }
}

#[test]
fn move_of_entry_with_properties_syncs_intent_before_any_change() {
    let fixture = fixture();
    let (_tree, view) = attach_beside(&fixture, CommitDurability::Full);
    put(&view, "/box/f", "content").expect("put");
    view.set_properties(&tree_path("/box/f"), &[color()], &AttributeChanges::default(), &NO_CONDITIONS)
        .expect("changed");
    take_commits();
    view.rename(&tree_path("/box/f"), &tree_path("/box/g"), OverwriteMode::Refuse, &NO_CONDITIONS).expect("moved");
    assert_eq!(take_commits().first(), Some(&FULL), "the next start finishes what the store has not heard of");
    assert_eq!(view.properties(&tree_path("/box/g")).expect("read").len(), 1);
}

#[test]
fn times_set_as_properties_are_synced() {
    let fixture = fixture();
    let (_tree, view) = attach_beside(&fixture, CommitDurability::Full);
    put(&view, "/box/f", "content").expect("put");
    view.create_directory(&tree_path("/box/d"), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    let modified = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
    for path in ["/box/f", "/box/d"] {
        let stat = || view.fs().stat(&tree_path(path)).expect("there");
        take_sync(&stat());
        let attributes = AttributeChanges { modified, ..AttributeChanges::default() };
        view.set_properties(&tree_path(path), &[], &attributes, &NO_CONDITIONS).expect("set");
        assert!(take_sync(&stat()), "{path}");
    }
}

/// Creates a tree of `count` small files in ten directories, behind the gateway's back.
fn populate(root: &Path, count: usize) {
    for number in 0..count {
        let directory = root.join(format!("d{}", number % 10));
        fs::create_dir_all(&directory).expect("temporary directory");
        fs::write(directory.join(format!("f{number}")), format!("content of {number}")).expect("written");
    }
}

#[test]
fn copy_syncs_every_created_file_and_directory() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture();
    let (_tree, view) = attach_beside(&fixture, CommitDurability::Full);
    view.create_directory(&tree_path("/box/s"), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    populate(&fixture.root_path.join("box/s"), 100);
    fs::create_dir(fixture.root_path.join("box/s/empty")).expect("temporary directory");
    // The server owns the copy, but its mode may not allow opening it again: it must be synced while it is open.
    let unreadable = fixture.root_path.join("box/s/d0/blind");
    fs::write(&unreadable, "content").expect("written");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o244)).expect("set");
    let is_readable = fs::File::open(&unreadable).is_ok();
    if !is_readable {
        fs::remove_file(&unreadable).expect("removed");
    }
    view.copy(&tree_path("/box/s"), &tree_path("/box/t"), true, OverwriteMode::Refuse, &NO_CONDITIONS).expect("copied");
    let mut unsynced = Vec::new();
    let mut check = |path: &TreePath| {
        if !take_sync(&view.fs().stat(path).expect("there")) {
            unsynced.push(path.to_string());
        }
    };
    check(&tree_path("/box/t"));
    view.fs()
        .open_directory(&tree_path("/box/t"))
        .expect("there")
        .walk(
            || Ok::<(), Error>(()),
            |_, below, name, _| {
                check(&tree_path("/box/t").join(&below.child(name)));
                Ok(())
            },
        )
        .expect("listed");
    assert_eq!(unsynced, Vec::<String>::new());
}
