//! Tests of grants on directories that were swapped outside of the gateway.

use crate::domain::Permission;
use crate::tree::testing::{TreeFixture, tree_path};
use crate::tree::{EditMode, Error, OverwriteMode, WriteConditions};

#[test]
fn dangling_read_grant_does_not_open_write_only_directory() {
    let fixture = TreeFixture::new(&["/box/sub", "/open"]);
    let file = fixture.root_path.join("box/sub/f");
    std::fs::write(&file, "ours").expect("file");
    fixture.create_user("ann", &[("/box", Permission::W), ("/box/sub", Permission::R), ("/open", Permission::RW)]);
    let ann = fixture.view("ann");
    let edit =
        || ann.edit(&tree_path("/box/sub/f"), EditMode { read: true, ..EditMode::default() }, &WriteConditions::none());
    let take_out =
        || ann.rename(&tree_path("/box/sub/f"), &tree_path("/open/f"), OverwriteMode::Refuse, &WriteConditions::none());
    assert!(ann.read(&tree_path("/box/sub/f")).is_ok() && edit().is_ok());
    std::fs::rename(fixture.root_path.join("box/sub"), fixture.root_path.join("gone")).expect("renamed");
    std::fs::create_dir(fixture.root_path.join("box/sub")).expect("folder");
    std::fs::write(&file, "not ours").expect("file");
    assert!(matches!(ann.read(&tree_path("/box/sub/f")), Err(Error::Forbidden)));
    assert!(matches!(edit(), Err(Error::Forbidden)));
    assert!(matches!(take_out(), Err(Error::Forbidden)), "nor can it be moved to where it is readable");
}
