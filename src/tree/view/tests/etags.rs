//! A tag changes with the content, and with nothing else.

use std::collections::HashSet;

use super::*;
use crate::domain::Permission;
use crate::tree::{Attributes, EditMode, Etag, Overwrite, Timestamp};

fn house() -> (House, View) {
    let house = House::new(&["/box"]);
    house.user("alice", &[("/box", Permission::RW)]);
    let view = house.view("alice");
    put(&view, "/box/file", "content").expect("put");
    (house, view)
}

fn tag(view: &View, path: &str) -> Etag {
    view.stat(&at(path)).expect("stat").etag.expect("tag")
}

#[test]
fn commits_within_one_tick_have_tags_of_their_own_and_the_answer_tells_them() {
    let (_house, view) = house();
    let mut seen = HashSet::from([tag(&view, "/box/file")]);
    for _ in 0..200 {
        let upload = view.stage(&at("/box/file"), None, &NONE).expect("stage");
        upload.write_at(b"samesize", 0).expect("write");
        let answered = upload.commit(&NONE).expect("commit").entry.etag.expect("tag");
        assert_eq!(answered, tag(&view, "/box/file"));
        let listed = view.list(&at("/box"), true).expect("list").next().expect("one").expect("entry");
        assert_eq!(listed.etag, Some(answered));
        assert_eq!(view.read(&at("/box/file")).expect("read").entry().etag, Some(answered));
        assert!(seen.insert(answered));
    }
}

#[test]
fn a_rename_a_mode_and_a_time_keep_the_tag() {
    let (_house, view) = house();
    let before = tag(&view, "/box/file");
    for seconds in [0, 1, 1_000_000_000, 4_000_000_000] {
        let modified = Some(Timestamp { seconds, nanos: 123 });
        let set = Attributes { modified, mode: Some(0o600), ..Attributes::default() };
        view.set_attributes(&at("/box/file"), &set, true, &NONE).expect("set");
        let entry = view.stat(&at("/box/file")).expect("stat");
        assert_eq!((entry.modified.seconds, entry.mode, entry.etag), (seconds, 0o600, Some(before)));
    }
    view.rename(&at("/box/file"), &at("/box/moved"), Overwrite::No, &NONE).expect("rename");
    assert_eq!(tag(&view, "/box/moved"), before);
}

#[test]
fn a_copy_has_a_tag_of_its_own() {
    let (_house, view) = house();
    view.copy(&at("/box/file"), &at("/box/copy"), true, Overwrite::No, &NONE).expect("copy");
    assert_ne!(tag(&view, "/box/copy"), tag(&view, "/box/file"));
}

#[test]
fn a_time_given_with_an_upload_is_kept_and_each_commit_still_has_its_tag() {
    let (_house, view) = house();
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let upload = view.stage(&at("/box/file"), None, &NONE).expect("stage");
        upload.write_at(b"content", 0).expect("write");
        let modified = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
        upload.set_attributes(&Attributes { modified, ..Attributes::default() }).expect("set");
        let entry = upload.commit(&NONE).expect("commit").entry;
        assert_eq!(entry.modified.seconds, 1_000_000_000);
        assert!(seen.insert(entry.etag.expect("tag")));
    }
}

#[test]
fn every_write_in_place_changes_the_tag_and_so_does_the_end() {
    let (_house, view) = house();
    let mut seen = HashSet::from([tag(&view, "/box/file")]);
    let editor = view.edit(&at("/box/file"), EditMode::default(), &NONE).expect("edit");
    assert!(!seen.insert(tag(&view, "/box/file")));
    for number in 0..50u8 {
        editor.write_at(&[number], 0).expect("write");
        assert!(seen.insert(tag(&view, "/box/file")));
    }
    editor.close().expect("close");
    assert!(seen.insert(tag(&view, "/box/file")));
    let cut = Attributes { size: Some(3), ..Attributes::default() };
    view.set_attributes(&at("/box/file"), &cut, true, &NONE).expect("cut");
    assert!(seen.insert(tag(&view, "/box/file")));
    assert_eq!(get(&view, "/box/file").expect("read").len(), 3);
}

#[test]
fn a_time_set_during_an_edit_is_kept_by_its_end() {
    let (_house, view) = house();
    let editor = view.edit(&at("/box/file"), EditMode::default(), &NONE).expect("edit");
    editor.write_at(b"new", 0).expect("write");
    let modified = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
    editor.set_attributes(&Attributes { modified, ..Attributes::default() }).expect("set");
    editor.close().expect("close");
    assert_eq!(view.stat(&at("/box/file")).expect("stat").modified.seconds, 1_000_000_000);
}

#[test]
fn a_change_behind_the_gateways_back_changes_the_tag() {
    let (house, view) = house();
    let before = tag(&view, "/box/file");
    write(&house, "/box/file", "another");
    assert_ne!(tag(&view, "/box/file"), before);
}
