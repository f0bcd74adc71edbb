//! Tests of WebDAV locks through the view: who may take, refresh and release them, and who can see them. The lock table
//! itself is tested in `tree/lock/tests.rs`.

use std::time::Duration;

use super::*;
use crate::tree::testing::{TreeFixture, tree_path};
use crate::tree::{DeadProperty, EntryKind, PropertyChange, PropertyName};

const R: Permission = Permission::R;
const W: Permission = Permission::W;
const RW: Permission = Permission::RW;

fn fixture() -> TreeFixture {
    let fixture = TreeFixture::new(&["/a/b/c", "/a/d"]);
    fixture.create_user("ann", &[("/a", RW)]);
    fixture.create_user("bob", &[("/a", RW)]);
    fixture
}

fn lock_request(exclusive: bool, depth_infinity: bool) -> LockRequest {
    LockRequest { exclusive, depth_infinity, owner: String::new(), timeout: Duration::from_secs(60) }
}

fn acquire_lock(view: &View, path: &str) -> Result<AcquiredLock> {
    view.lock(&tree_path(path), &lock_request(true, true), &WriteConditions::none())
}

fn acquired_token(view: &View, path: &str) -> LockToken {
    acquire_lock(view, path).expect(path).lock.token
}

fn with_tokens<'a>(tokens: &'a [LockToken]) -> WriteConditions<'a> {
    WriteConditions { lock_tokens: tokens, evaluate: &|| Ok(()) }
}

fn property_changes() -> Vec<PropertyChange> {
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "p".to_owned() };
    vec![PropertyChange::Set(DeadProperty { name, value: "<p xmlns='urn:x'/>".to_owned() })]
}

#[test]
fn lock_needs_write_permission_and_new_file_needs_it_on_parent() {
    let fixture = fixture();
    fixture.create_user("cid", &[("/a", R), ("/a/b", W)]);
    let cid = fixture.view("cid");
    assert!(matches!(acquire_lock(&cid, "/a/d"), Err(Error::Forbidden)));
    assert!(matches!(acquire_lock(&cid, "/a/new"), Err(Error::Forbidden)));
    assert!(matches!(acquire_lock(&cid, "/"), Err(Error::Forbidden)));
    assert!(matches!(acquire_lock(&cid, "/a/none/new"), Err(Error::NoParent)));
    assert!(matches!(acquire_lock(&cid, "/z"), Err(Error::NoParent | Error::Absent | Error::Forbidden)));
    assert!(
        acquire_lock(&cid, "/a/b")
            .is_ok_and(|acquired| acquired.lock.root == tree_path("/a/b") && !acquired.has_created_file)
    );
    assert!(fixture.view("ann").stat(&tree_path("/a/new")).is_err(), "a refused lock makes no file");
}

#[test]
fn lock_on_unmapped_path_creates_empty_file() {
    let fixture = fixture();
    let ann = fixture.view("ann");
    let AcquiredLock { lock, has_created_file: created, .. } = acquire_lock(&ann, "/a/b/new").expect("locked");
    let entry = ann.stat(&tree_path("/a/b/new")).expect("there");
    assert!(created && entry.kind == EntryKind::File && entry.size == 0);
    assert_eq!(ann.locks(&tree_path("/a/b/new")).expect("read"), [lock]);
    assert!(matches!(acquire_lock(&fixture.view("bob"), "/a/b/new"), Err(Error::Locked { token: None, .. })));
}

#[test]
fn lock_on_unmapped_path_needs_token_of_parent_lock() {
    let fixture = fixture();
    let ann = fixture.view("ann");
    let directory_token =
        ann.lock(&tree_path("/a/b"), &lock_request(true, false), &WriteConditions::none()).expect("locked").lock.token;
    assert!(matches!(acquire_lock(&ann, "/a/b/new"), Err(Error::Locked { .. })));
    assert!(matches!(ann.stat(&tree_path("/a/b/new")), Err(Error::Absent)));
    assert!(ann.locks(&tree_path("/a/b/new")).expect("read").is_empty());
    assert!(
        ann.lock(&tree_path("/a/b/new"), &lock_request(true, false), &with_tokens(&[directory_token]))
            .expect("locked")
            .has_created_file
    );
}

#[test]
fn conditions_are_evaluated_before_lock_is_acquired() {
    let fixture = fixture();
    let ann = fixture.view("ann");
    let conditions = WriteConditions { lock_tokens: &[], evaluate: &|| Err(Error::PreconditionFailed) };
    for path in ["/a/b", "/a/b/new"] {
        assert!(matches!(
            ann.lock(&tree_path(path), &lock_request(true, true), &conditions),
            Err(Error::PreconditionFailed)
        ));
        assert!(ann.locks(&tree_path("/a/b")).expect("read").is_empty());
    }
    assert!(matches!(ann.stat(&tree_path("/a/b/new")), Err(Error::Absent)));
}

#[test]
fn lock_is_refreshed_and_released_only_by_its_user() {
    let fixture = fixture();
    let (ann, bob) = (fixture.view("ann"), fixture.view("bob"));
    let token = acquired_token(&ann, "/a/b");
    let refresh = |view: &View, path: &str| view.refresh_lock(&tree_path(path), &token, Duration::from_secs(90));
    assert!(matches!(refresh(&bob, "/a/b"), Err(Error::PreconditionFailed)));
    assert!(matches!(refresh(&ann, "/a/d"), Err(Error::PreconditionFailed)));
    assert!(refresh(&ann, "/a/b/c").is_ok_and(|lock| lock.timeout == Duration::from_secs(90)));
    assert!(matches!(bob.unlock(&tree_path("/a/b"), &token), Err(Error::Forbidden)));
    assert!(matches!(ann.unlock(&tree_path("/a/d"), &token), Err(Error::PreconditionFailed)));
    ann.unlock(&tree_path("/a/b/c"), &token).expect("ended");
    assert!(ann.locks(&tree_path("/a/b")).expect("read").is_empty());
}

#[test]
fn scoped_token_cannot_release_locks_outside_its_scope() {
    let fixture = fixture();
    let (ann, narrow) = (fixture.view("ann"), fixture.scoped_view("ann", &[("/a/b", RW)]));
    let reader = fixture.scoped_view("ann", &[("/a", R)]);
    let (parent_lock, own_lock) = (acquired_token(&ann, "/a/d"), acquired_token(&narrow, "/a/b"));
    assert!(matches!(narrow.unlock(&tree_path("/a/d"), &parent_lock), Err(Error::Absent)));
    assert!(matches!(reader.unlock(&tree_path("/a/b"), &own_lock), Err(Error::Forbidden)));
    ann.unlock(&tree_path("/a/d"), &parent_lock).expect("ended");
    narrow.unlock(&tree_path("/a/b"), &own_lock).expect("ended");
    let parent_lock = acquired_token(&ann, "/a");
    assert!(matches!(narrow.unlock(&tree_path("/a/b"), &parent_lock), Err(Error::Forbidden)));
    assert!(matches!(narrow.refresh_lock(&tree_path("/a/b"), &parent_lock, Duration::MAX), Err(Error::Forbidden)));
    assert_eq!(narrow.locks(&tree_path("/a/b/c")).expect("read").len(), 1, "but they bind it, and it can see so");
    assert!(matches!(acquire_lock(&narrow, "/a/b"), Err(Error::Locked { .. })));
}

#[test]
fn absent_or_visible_directory_shows_no_locks() {
    let fixture = fixture();
    fixture.create_user("cid", &[("/a/b", RW)]);
    let token = acquired_token(&fixture.view("ann"), "/a");
    let cid = fixture.view("cid");
    assert!(cid.locks(&tree_path("/a")).expect("read").is_empty());
    for path in ["/a/d", "/a/none"] {
        assert!(matches!(cid.locks(&tree_path(path)), Err(Error::Absent)), "{path}");
        assert!(matches!(cid.unlock(&tree_path(path), &token), Err(Error::Absent)), "{path}");
    }
}

#[test]
fn lock_through_symlink_is_rooted_at_its_target() {
    let fixture = fixture();
    std::os::unix::fs::symlink("../d", fixture.root_path.join("a/b/l")).expect("link");
    let (ann, bob) = (fixture.view("ann"), fixture.view("bob"));
    assert_eq!(acquire_lock(&ann, "/a/b/l").expect("locked").lock.root, tree_path("/a/d"));
    assert!(matches!(acquire_lock(&bob, "/a/d"), Err(Error::Locked { .. })));
    assert_eq!(bob.locks(&tree_path("/a/b/l")).expect("read").len(), 1);
}

#[test]
fn lock_can_be_released_after_its_directory_is_gone() {
    let fixture = fixture();
    let ann = fixture.view("ann");
    let token = acquired_token(&ann, "/a/b/c");
    std::fs::remove_dir_all(fixture.root_path.join("a/b")).expect("removed");
    ann.unlock(&tree_path("/a/b/c"), &token).expect("ended");
}

#[test]
fn locks_survive_restart() {
    let fixture = fixture();
    acquired_token(&fixture.view("ann"), "/a/b");
    let fixture = fixture.restart();
    assert!(matches!(acquire_lock(&fixture.view("bob"), "/a/b/c"), Err(Error::Locked { .. })));
}

#[test]
fn set_properties_checks_permissions_locks_and_conditions() {
    let fixture = fixture();
    fixture.create_user("cid", &[("/a/b", R), ("/a/d", W)]);
    let (ann, bob, cid) = (fixture.view("ann"), fixture.view("bob"), fixture.view("cid"));
    let set = |view: &View, path: &str, conditions: &WriteConditions<'_>| {
        view.set_properties(
            &tree_path(path),
            &property_changes(),
            &crate::tree::AttributeChanges::default(),
            conditions,
        )
    };
    assert!(matches!(set(&cid, "/a/b", &WriteConditions::none()), Err(Error::Forbidden)));
    assert!(matches!(set(&cid, "/a", &WriteConditions::none()), Err(Error::Forbidden)));
    assert!(matches!(set(&cid, "/a/none", &WriteConditions::none()), Err(Error::Absent)));
    let token = acquired_token(&ann, "/a/b");
    assert!(matches!(set(&bob, "/a/b/c", &WriteConditions::none()), Err(Error::Locked { .. })));
    let unmet = WriteConditions { lock_tokens: &[], evaluate: &|| Err(Error::PreconditionFailed) };
    assert!(matches!(set(&ann, "/a/d", &unmet), Err(Error::PreconditionFailed)));
    assert!(ann.properties(&tree_path("/a/d")).expect("read").is_empty());
    set(&ann, "/a/b", &with_tokens(&[token])).expect("set");
    set(&cid, "/a/d", &WriteConditions::none()).expect("set");
    assert_eq!(cid.properties(&tree_path("/a/b")).expect("read").len(), 1);
    assert!(matches!(cid.properties(&tree_path("/a/d")), Err(Error::Forbidden)));
    assert!(matches!(cid.resolve(&tree_path("/a")).expect("seen").member_properties(), Err(Error::Forbidden)));
    assert_eq!(ann.resolve(&tree_path("/a")).expect("seen").member_properties().expect("read").len(), 2);
}

#[test]
fn node_root_is_absent_outside_access() {
    let fixture = fixture();
    fixture.create_user("cid", &[("/a/b", R)]);
    let (cid, ann) = (fixture.view("cid"), fixture.view("ann"));
    let (reached, hidden, above) = (
        ann.node_id(&tree_path("/a/b/c")).expect("named"),
        ann.node_id(&tree_path("/a/d")).expect("named"),
        ann.node_id(&tree_path("/a")).expect("named"),
    );
    assert_eq!(cid.node_root(reached).expect("there"), tree_path("/a/b/c"));
    assert!(matches!(cid.node_root(hidden), Err(Error::Absent)));
    assert!(matches!(cid.node_root(above), Err(Error::Absent)));
    assert!(matches!(cid.node_id(&tree_path("/a/d")), Err(Error::Absent)));
}
