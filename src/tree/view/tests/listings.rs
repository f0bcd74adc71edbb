//! Tests of directory listings that fail, or whose directory is removed meanwhile.

use super::*;
use crate::domain::Permission;
use crate::tree::testing::fail_read_after;
use crate::tree::{OpenRequest, OverwriteMode, SessionFiles};

#[test]
fn listing_that_fails_never_reports_its_end() {
    let fixture = TreeFixture::new(&["/box", "/box/one", "/box/two"]);
    fixture.create_user("alice", &[("/box", Permission::R)]);
    fixture.create_user("walker", &[("/box/one", Permission::R), ("/box/two", Permission::R)]);
    for login in ["alice", "walker"] {
        let view = fixture.view(login);
        let mut reads = 0;
        loop {
            let mut listing = view.list(&tree_path("/box"), true).expect("listed");
            fail_read_after(Some(reads));
            let failed = listing.any(|entry| entry.is_err());
            if !fail_read_after(None) {
                assert!(!failed);
                break;
            }
            assert!(failed, "{login}: the error of read {reads} was lost");
            assert!(listing.next().is_some_and(|entry| entry.is_err()), "{login}: ended after an error");
            assert!(listing.check().is_err());
            reads += 1;
        }
        assert!(reads > 1, "{login}");
    }
}

#[test]
fn listing_of_a_removed_directory_ends() {
    let fixture = TreeFixture::new(&["/box", "/box/d"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    let listing = view.list(&tree_path("/box/d"), true).expect("listed");
    fs::remove_dir(host_path(&fixture, "/box/d")).expect("removed");
    assert_eq!(listing.map(|entry| entry.map(drop)).collect::<Result<Vec<()>>>().expect("no error"), []);
}

#[test]
fn renamed_visible_directory_lists_way_to_granted_node() {
    let fixture = TreeFixture::new(&["/a", "/a/way", "/a/way/granted", "/a/way/hidden"]);
    fixture.create_user("alice", &[("/", Permission::RW)]);
    fixture.create_user("walker", &[("/a/way/granted", Permission::R)]);
    let walker = fixture.view("walker");
    for (renamed, to) in [("/a/way", "/a/moved"), ("/a", "/b")] {
        let opened = if renamed == "/a" { "/a/moved" } else { renamed };
        let listing = walker.list(&tree_path(opened), true).expect("listed");
        let alice = fixture.view("alice");
        alice
            .rename(&tree_path(renamed), &tree_path(to), OverwriteMode::Refuse, &WriteConditions::none())
            .expect("renamed");
        // Another directory at the old path is not the one that was opened.
        fixture.tree.ensure_directory(&tree_path(opened)).expect("created");
        let entry = listing.directory_entry().expect("visible at its new path");
        assert_eq!((entry.name, entry.mode), (tree_path(opened).name().expect("a name").as_bytes().to_vec(), 0o755));
        let names: Vec<_> = listing.map(|entry| entry.expect("no error").name).collect();
        assert_eq!(names, [b"granted"], "{renamed}");
        fs::remove_dir(host_path(&fixture, opened)).expect("removed");
        if renamed == "/a" {
            fs::remove_dir(host_path(&fixture, "/a")).expect("removed");
        }
    }
    let listing = walker.list(&tree_path("/b/moved"), true).expect("listed");
    fs::rename(host_path(&fixture, "/b/moved/granted"), host_path(&fixture, "/b/granted")).expect("renamed");
    assert_eq!(listing.map(|entry| entry.map(drop)).collect::<Result<Vec<()>>>().expect("no error"), []);
}

#[test]
fn io_error_never_hides_staged_upload_of_session() {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/", Permission::RW)]);
    let files = SessionFiles::new(fixture.view("alice"));
    let request = OpenRequest { write: true, create: true, truncate: true, ..OpenRequest::default() };
    let _open = files.open(&tree_path("/box/new"), &request).expect("opened");
    let list = || files.list(&tree_path("/box"))?.map(|entry| Ok(entry?.name)).collect::<Result<Vec<_>>>();
    let stat = || Ok(vec![files.stat(&tree_path("/box/new"))?.name]);
    for (number, read) in [&list as &dyn Fn() -> Result<Vec<Vec<u8>>>, &stat].into_iter().enumerate() {
        for reads in 0.. {
            fail_read_after(Some(reads));
            let found = read();
            let failed = fail_read_after(None);
            match found {
                Ok(names) => assert_eq!(names, [b"new"], "{number}: the error of read {reads} hid it"),
                Err(error) => assert!(failed && error.is_outage(), "{number}: read {reads}: {error}"),
            }
            if !failed {
                assert!(reads > 1);
                break;
            }
        }
    }
}
