//! Who may lock what, and what a lock shows of itself.

use std::time::Duration;

use super::*;
use crate::tree::testing::{House, at};
use crate::tree::{Kind, Property, PropertyChange, PropertyName};

const R: Permission = Permission::R;
const W: Permission = Permission::W;
const RW: Permission = Permission::RW;

fn house() -> House {
    let house = House::new(&["/a/b/c", "/a/d"]);
    house.user("ann", &[("/a", RW)]);
    house.user("bob", &[("/a", RW)]);
    house
}

fn ask(exclusive: bool, deep: bool) -> LockRequest {
    LockRequest { exclusive, deep, owner: String::new(), timeout: Duration::from_secs(60) }
}

fn take(view: &View, path: &str) -> Result<(Lock, bool)> {
    view.lock(&at(path), &ask(true, true), &Claim::none())
}

fn taken(view: &View, path: &str) -> LockToken {
    take(view, path).expect(path).0.token
}

fn with<'a>(tokens: &'a [LockToken]) -> Claim<'a> {
    Claim { tokens, judge: &|| Ok(()) }
}

fn label() -> Vec<PropertyChange> {
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "p".to_owned() };
    vec![PropertyChange::Set(Property { name, value: "<p xmlns='urn:x'/>".to_owned() })]
}

#[test]
fn locking_asks_for_the_right_to_write_there_and_for_a_new_file_in_its_folder() {
    let house = house();
    house.user("cid", &[("/a", R), ("/a/b", W)]);
    let cid = house.view("cid");
    assert!(matches!(take(&cid, "/a/d"), Err(Error::Forbidden)));
    assert!(matches!(take(&cid, "/a/new"), Err(Error::Forbidden)));
    assert!(matches!(take(&cid, "/"), Err(Error::Forbidden)));
    assert!(matches!(take(&cid, "/a/none/new"), Err(Error::NoParent)));
    assert!(matches!(take(&cid, "/z"), Err(Error::NoParent | Error::Absent | Error::Forbidden)));
    assert!(take(&cid, "/a/b").is_ok_and(|(lock, made)| lock.root == at("/a/b") && !made));
    assert!(house.view("ann").stat(&at("/a/new")).is_err(), "a refused lock makes no file");
}

#[test]
fn a_lock_where_nothing_is_makes_an_empty_file() {
    let house = house();
    let ann = house.view("ann");
    let (lock, made) = take(&ann, "/a/b/new").expect("locked");
    let entry = ann.stat(&at("/a/b/new")).expect("there");
    assert!(made && entry.kind == Kind::File && entry.size == 0);
    assert_eq!(ann.locks(&at("/a/b/new")).expect("read"), [lock]);
    assert!(matches!(take(&house.view("bob"), "/a/b/new"), Err(Error::Locked { token: None, .. })));
}

#[test]
fn a_lock_in_a_locked_folder_needs_that_folders_lock_and_leaves_nothing_without_it() {
    let house = house();
    let ann = house.view("ann");
    let folder = ann.lock(&at("/a/b"), &ask(true, false), &Claim::none()).expect("locked").0.token;
    assert!(matches!(take(&ann, "/a/b/new"), Err(Error::Locked { .. })));
    assert!(matches!(ann.stat(&at("/a/b/new")), Err(Error::Absent)));
    assert!(ann.locks(&at("/a/b/new")).expect("read").is_empty());
    assert!(ann.lock(&at("/a/b/new"), &ask(true, false), &with(&[folder])).expect("locked").1);
}

#[test]
fn the_judge_is_asked_before_a_lock_is_taken() {
    let house = house();
    let ann = house.view("ann");
    let claim = Claim { tokens: &[], judge: &|| Err(Error::Precondition) };
    for path in ["/a/b", "/a/b/new"] {
        assert!(matches!(ann.lock(&at(path), &ask(true, true), &claim), Err(Error::Precondition)));
        assert!(ann.locks(&at("/a/b")).expect("read").is_empty());
    }
    assert!(matches!(ann.stat(&at("/a/b/new")), Err(Error::Absent)));
}

#[test]
fn a_lock_is_refreshed_and_ended_by_its_user_alone() {
    let house = house();
    let (ann, bob) = (house.view("ann"), house.view("bob"));
    let token = taken(&ann, "/a/b");
    let refresh = |view: &View, path: &str| view.refresh_lock(&at(path), &token, Duration::from_secs(90));
    assert!(matches!(refresh(&bob, "/a/b"), Err(Error::Precondition)));
    assert!(matches!(refresh(&ann, "/a/d"), Err(Error::Precondition)));
    assert!(refresh(&ann, "/a/b/c").is_ok_and(|lock| lock.timeout == Duration::from_secs(90)));
    assert!(matches!(bob.unlock(&at("/a/b"), &token), Err(Error::Forbidden)));
    assert!(matches!(ann.unlock(&at("/a/d"), &token), Err(Error::Precondition)));
    ann.unlock(&at("/a/b/c"), &token).expect("ended");
    assert!(ann.locks(&at("/a/b")).expect("read").is_empty());
}

#[test]
fn a_narrow_token_leaves_the_locks_of_a_wide_one_alone() {
    let house = house();
    let (ann, narrow) = (house.view("ann"), house.scoped("ann", &[("/a/b", RW)]));
    let reader = house.scoped("ann", &[("/a", R)]);
    let (above, own) = (taken(&ann, "/a/d"), taken(&narrow, "/a/b"));
    assert!(matches!(narrow.unlock(&at("/a/d"), &above), Err(Error::Absent)));
    assert!(matches!(reader.unlock(&at("/a/b"), &own), Err(Error::Forbidden)));
    ann.unlock(&at("/a/d"), &above).expect("ended");
    narrow.unlock(&at("/a/b"), &own).expect("ended");
    let above = taken(&ann, "/a");
    assert!(matches!(narrow.unlock(&at("/a/b"), &above), Err(Error::Forbidden)));
    assert!(matches!(narrow.refresh_lock(&at("/a/b"), &above, Duration::MAX), Err(Error::Forbidden)));
    assert_eq!(narrow.locks(&at("/a/b/c")).expect("read").len(), 1, "but they bind it, and it can see so");
    assert!(matches!(take(&narrow, "/a/b"), Err(Error::Locked { .. })));
}

#[test]
fn what_is_hidden_or_merely_visible_shows_no_locks() {
    let house = house();
    house.user("cid", &[("/a/b", RW)]);
    let token = taken(&house.view("ann"), "/a");
    let cid = house.view("cid");
    assert!(cid.locks(&at("/a")).expect("read").is_empty());
    for path in ["/a/d", "/a/none"] {
        assert!(matches!(cid.locks(&at(path)), Err(Error::Absent)), "{path}");
        assert!(matches!(cid.unlock(&at(path), &token), Err(Error::Absent)), "{path}");
    }
}

#[test]
fn a_lock_taken_through_a_link_is_where_the_link_leads() {
    let house = house();
    std::os::unix::fs::symlink("../d", house.root.join("a/b/l")).expect("link");
    let (ann, bob) = (house.view("ann"), house.view("bob"));
    assert_eq!(take(&ann, "/a/b/l").expect("locked").0.root, at("/a/d"));
    assert!(matches!(take(&bob, "/a/d"), Err(Error::Locked { .. })));
    assert_eq!(bob.locks(&at("/a/b/l")).expect("read").len(), 1);
}

#[test]
fn a_lock_can_be_ended_after_its_folder_is_gone() {
    let house = house();
    let ann = house.view("ann");
    let token = taken(&ann, "/a/b/c");
    std::fs::remove_dir_all(house.root.join("a/b")).expect("removed");
    ann.unlock(&at("/a/b/c"), &token).expect("ended");
}

#[test]
fn locks_outlive_a_restart() {
    let house = house();
    taken(&house.view("ann"), "/a/b");
    let house = house.reopened();
    assert!(matches!(take(&house.view("bob"), "/a/b/c"), Err(Error::Locked { .. })));
}

#[test]
fn properties_ask_for_rights_locks_and_the_judge() {
    let house = house();
    house.user("cid", &[("/a/b", R), ("/a/d", W)]);
    let (ann, bob, cid) = (house.view("ann"), house.view("bob"), house.view("cid"));
    let set = |view: &View, path: &str, claim: &Claim<'_>| {
        view.set_properties(&at(path), &label(), &crate::tree::Attributes::default(), claim)
    };
    assert!(matches!(set(&cid, "/a/b", &Claim::none()), Err(Error::Forbidden)));
    assert!(matches!(set(&cid, "/a", &Claim::none()), Err(Error::Forbidden)));
    assert!(matches!(set(&cid, "/a/none", &Claim::none()), Err(Error::Absent)));
    let token = taken(&ann, "/a/b");
    assert!(matches!(set(&bob, "/a/b/c", &Claim::none()), Err(Error::Locked { .. })));
    let unmet = Claim { tokens: &[], judge: &|| Err(Error::Precondition) };
    assert!(matches!(set(&ann, "/a/d", &unmet), Err(Error::Precondition)));
    assert!(ann.properties(&at("/a/d")).expect("read").is_empty());
    set(&ann, "/a/b", &with(&[token])).expect("set");
    set(&cid, "/a/d", &Claim::none()).expect("set");
    assert_eq!(cid.properties(&at("/a/b")).expect("read").len(), 1);
    assert!(matches!(cid.properties(&at("/a/d")), Err(Error::Forbidden)));
    assert!(matches!(cid.properties_in(&at("/a")), Err(Error::Forbidden)));
    assert_eq!(ann.properties_in(&at("/a")).expect("read").len(), 2);
}

#[test]
fn a_node_that_is_out_of_reach_is_no_mount() {
    let house = house();
    house.user("cid", &[("/a/b", R)]);
    let (cid, ann) = (house.view("cid"), house.view("ann"));
    let (reached, hidden, above) = (
        ann.node_id(&at("/a/b/c")).expect("named"),
        ann.node_id(&at("/a/d")).expect("named"),
        ann.node_id(&at("/a")).expect("named"),
    );
    assert_eq!(cid.node_root(reached).expect("there"), at("/a/b/c"));
    assert!(matches!(cid.node_root(hidden), Err(Error::Absent)));
    assert!(matches!(cid.node_root(above), Err(Error::Absent)));
    assert!(matches!(cid.node_id(&at("/a/d")), Err(Error::Absent)));
}
