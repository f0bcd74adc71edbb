//! Tests of directory listings that fail, or whose directory is removed meanwhile.

use super::*;
use crate::domain::Permission;
use crate::tree::testing::fail_read_after;

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
