//! Tests of ETags: they change with the content, and with nothing else.

use std::collections::HashSet;

use super::*;
use crate::domain::Permission;
use crate::tree::{AttributeChanges, EditMode, Etag, OverwriteMode, Timestamp};

fn fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    put(&view, "/box/file", "content").expect("put");
    (fixture, view)
}

fn etag(view: &View, path: &str) -> Etag {
    view.stat(&tree_path(path)).expect("stat").etag.expect("tag")
}

#[test]
fn commits_within_one_clock_tick_return_distinct_etags() {
    let (_fixture, view) = fixture();
    let mut seen = HashSet::from([etag(&view, "/box/file")]);
    for _ in 0..200 {
        let upload = view.stage(&tree_path("/box/file"), None, &NO_CONDITIONS).expect("stage");
        upload.write_at(b"samesize", 0).expect("write");
        let answered = upload.commit(&NO_CONDITIONS).expect("commit").entry.etag.expect("tag");
        assert_eq!(answered, etag(&view, "/box/file"));
        let listed = view.list(&tree_path("/box"), true).expect("list").next().expect("one").expect("entry");
        assert_eq!(listed.etag, Some(answered));
        assert_eq!(view.read(&tree_path("/box/file")).expect("read").entry().etag, Some(answered));
        assert!(seen.insert(answered));
    }
}

#[test]
fn rename_chmod_and_utime_keep_etag() {
    let (_fixture, view) = fixture();
    let before = etag(&view, "/box/file");
    for seconds in [0, 1, 1_000_000_000, 4_000_000_000] {
        let modified = Some(Timestamp { seconds, nanos: 123 });
        let set = AttributeChanges { modified, mode: Some(0o600), ..AttributeChanges::default() };
        view.set_attributes(&tree_path("/box/file"), &set, true, &NO_CONDITIONS).expect("set");
        let entry = view.stat(&tree_path("/box/file")).expect("stat");
        assert_eq!((entry.modified.seconds, entry.mode, entry.etag), (seconds, 0o600, Some(before)));
    }
    view.rename(&tree_path("/box/file"), &tree_path("/box/moved"), OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("rename");
    assert_eq!(etag(&view, "/box/moved"), before);
}

#[test]
fn copy_has_its_own_etag() {
    let (_fixture, view) = fixture();
    view.copy(&tree_path("/box/file"), &tree_path("/box/copy"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("copy");
    assert_ne!(etag(&view, "/box/copy"), etag(&view, "/box/file"));
}

#[test]
fn upload_with_given_mtime_keeps_it_and_gets_new_etag() {
    let (_fixture, view) = fixture();
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let upload = view.stage(&tree_path("/box/file"), None, &NO_CONDITIONS).expect("stage");
        upload.write_at(b"content", 0).expect("write");
        let modified = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
        upload.set_attributes(&AttributeChanges { modified, ..AttributeChanges::default() }).expect("set");
        let entry = upload.commit(&NO_CONDITIONS).expect("commit").entry;
        assert_eq!(entry.modified.seconds, 1_000_000_000);
        assert!(seen.insert(entry.etag.expect("tag")));
    }
}

#[test]
fn in_place_write_and_close_change_etag() {
    let (_fixture, view) = fixture();
    let mut seen = HashSet::from([etag(&view, "/box/file")]);
    let editor = view.edit(&tree_path("/box/file"), EditMode::default(), &NO_CONDITIONS).expect("edit");
    assert!(!seen.insert(etag(&view, "/box/file")));
    for number in 0..50u8 {
        editor.write_at(&[number], 0).expect("write");
        assert!(seen.insert(etag(&view, "/box/file")));
    }
    editor.close().expect("close");
    assert!(seen.insert(etag(&view, "/box/file")));
    let truncate = AttributeChanges { size: Some(3), ..AttributeChanges::default() };
    view.set_attributes(&tree_path("/box/file"), &truncate, true, &NO_CONDITIONS).expect("cut");
    assert!(seen.insert(etag(&view, "/box/file")));
    assert_eq!(get(&view, "/box/file").expect("read").len(), 3);
}

#[test]
fn mtime_set_during_edit_survives_close() {
    let (_fixture, view) = fixture();
    let editor = view.edit(&tree_path("/box/file"), EditMode::default(), &NO_CONDITIONS).expect("edit");
    editor.write_at(b"new", 0).expect("write");
    let modified = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
    editor.set_attributes(&AttributeChanges { modified, ..AttributeChanges::default() }).expect("set");
    editor.close().expect("close");
    assert_eq!(view.stat(&tree_path("/box/file")).expect("stat").modified.seconds, 1_000_000_000);
}

#[test]
fn change_outside_gateway_changes_etag() {
    let (fixture, view) = fixture();
    let before = etag(&view, "/box/file");
    write_outside_gateway(&fixture, "/box/file", "another");
    assert_ne!(etag(&view, "/box/file"), before);
}
