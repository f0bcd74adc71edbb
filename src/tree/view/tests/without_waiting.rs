//! Tests of views of async tasks: what may have to wait is refused before any effect, and everything else is as usual.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::domain::Permission;
use crate::tree::{AttributeChanges, LockRequest, OverwriteMode};

/// Tells whether an operation was refused because it may have to wait.
fn would_wait<T: std::fmt::Debug>(outcome: Result<T>) -> bool {
    match outcome {
        Err(Error::Filesystem(error)) => error.kind() == ErrorKind::WouldBlock,
        other => {
            other.expect("nothing else fails");
            false
        }
    }
}

fn remove(view: &View, path: &str) -> Result<()> {
    view.without_waiting().remove_all(&tree_path(path), &NO_CONDITIONS)
}

fn rename(view: &View, from: &str, to: &str) -> Result<bool> {
    view.without_waiting().rename(&tree_path(from), &tree_path(to), OverwriteMode::Replace, &NO_CONDITIONS)
}

fn fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/a/named", "/a/other"]);
    fixture.create_user("alice", &[("/", Permission::RW)]);
    for path in ["/a/one", "/a/two", "/a/named/file"] {
        write_outside_gateway(&fixture, path, "content");
    }
    let view = fixture.view("alice");
    (fixture, view)
}

#[test]
fn unnamed_entries_are_changed() {
    let (fixture, view) = fixture();
    assert!(!would_wait(rename(&view, "/a/one", "/a/three")));
    assert!(!would_wait(rename(&view, "/a/three", "/a/two")), "over a file");
    assert!(!would_wait(remove(&view, "/a/two")));
    assert!(!would_wait(remove(&view, "/a/other")), "a directory is moved out in one step");
    assert_eq!(list_names(&view, "/a").expect("listed"), ["named"]);
    drop(fixture);
}

#[test]
fn what_concerns_a_node_is_refused() {
    let (fixture, view) = fixture();
    // A grant names its directory.
    fixture.create_user("bob", &[("/a/named", Permission::R)]);
    assert!(would_wait(remove(&view, "/a/named")));
    assert!(would_wait(remove(&view, "/a")), "a node below");
    assert!(would_wait(rename(&view, "/a/named", "/a/moved")));
    assert!(would_wait(rename(&view, "/a/other", "/a/moved")), "a directory may be large");
    assert_eq!(list_names(&view, "/a").expect("listed"), ["named", "one", "other", "two"]);
    assert!(!would_wait(remove(&view, "/a/named/file")), "the file itself has no node");
    view.remove_all(&tree_path("/a/named"), &NO_CONDITIONS).expect("removed by a thread that may wait");
}

#[test]
fn nothing_is_changed_while_there_are_locks_or_others_change_names() {
    let (fixture, view) = fixture();
    let held = view.shared().path_locks.lock(&[&tree_path("/a/one"), &tree_path("/a/new")]);
    let create =
        |view: &View| view.create_directory(&tree_path("/a/new"), &AttributeChanges::default(), &NO_CONDITIONS);
    assert!(would_wait(create(&view.without_waiting())));
    assert!(would_wait(remove(&view, "/a/one")));
    assert!(would_wait(rename(&view, "/a/two", "/a/one")));
    drop(held);
    let request =
        LockRequest { exclusive: true, depth_infinity: false, owner: String::new(), timeout: Duration::from_secs(60) };
    view.lock(&tree_path("/a/other"), &request, &NO_CONDITIONS).expect("locked");
    assert!(would_wait(remove(&view, "/a/one")));
    assert!(would_wait(rename(&view, "/a/one", "/a/two")));
    assert_eq!(list_names(&view, "/a").expect("listed"), ["named", "one", "other", "two"]);
    drop(fixture);
}
