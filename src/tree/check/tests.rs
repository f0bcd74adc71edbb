//! Rights whose folder was swapped behind the gateway's back.

use crate::domain::Permission;
use crate::tree::testing::{House, at};
use crate::tree::{Claim, EditMode, Error, Overwrite};

#[test]
fn a_right_to_read_that_dangles_adds_nothing_to_a_drop_box() {
    let house = House::new(&["/box/sub", "/open"]);
    let file = house.root.join("box/sub/f");
    std::fs::write(&file, "ours").expect("file");
    house.user("ann", &[("/box", Permission::W), ("/box/sub", Permission::R), ("/open", Permission::RW)]);
    let ann = house.view("ann");
    let edit = || ann.edit(&at("/box/sub/f"), EditMode { read: true, ..EditMode::default() }, &Claim::none());
    let take_out = || ann.rename(&at("/box/sub/f"), &at("/open/f"), Overwrite::No, &Claim::none());
    assert!(ann.read(&at("/box/sub/f")).is_ok() && edit().is_ok());
    std::fs::rename(house.root.join("box/sub"), house.root.join("gone")).expect("renamed");
    std::fs::create_dir(house.root.join("box/sub")).expect("folder");
    std::fs::write(&file, "not ours").expect("file");
    assert!(matches!(ann.read(&at("/box/sub/f")), Err(Error::Forbidden)));
    assert!(matches!(edit(), Err(Error::Forbidden)));
    assert!(matches!(take_out(), Err(Error::Forbidden)), "nor can it be moved to where it is readable");
}
