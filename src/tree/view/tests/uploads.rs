//! Tests of staged uploads and edits in place: when they become visible, and what is checked again at commit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::auth::Clock;
use crate::domain::{ByteSize, Permission, TokenLimits};
use crate::store::testing::{login, now, set_limits};
use crate::tree::fs::fault_injection::take_syscall_counts;
use crate::tree::{
    AttributeChanges, CommitDurability, EditMode, LockRequest, LockToken, OverwriteMode, Tree, TreeOptions,
};

const RW: Permission = Permission::RW;

fn fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/box/sub"]);
    fixture.create_user("alice", &[("/box", RW)]);
    fixture.create_user("bob", &[("/box", RW)]);
    let view = fixture.view("alice");
    write_outside_gateway(&fixture, "/box/file", "old");
    (fixture, view)
}

fn lock(view: &View, path: &str) -> LockToken {
    let request =
        LockRequest { exclusive: true, depth_infinity: true, owner: String::new(), timeout: Duration::from_secs(600) };
    view.lock(&tree_path(path), &request, &NO_CONDITIONS).expect("locked").lock.token
}

#[test]
fn upload_is_invisible_before_commit_and_leaves_nothing_when_dropped() {
    let (fixture, view) = fixture();
    let upload = view.stage(&tree_path("/box/file"), Some(3), &NO_CONDITIONS).expect("stage");
    upload.write_at(b"new", 0).expect("write");
    assert_eq!(get(&view, "/box/file").expect("read"), "old");
    assert_eq!(upload.stat().expect("stat").size, 3);
    let staged = staged_entries(&fixture).pop().expect("one");
    assert_eq!(staged.metadata().expect("stat").permissions().mode() & 0o777, 0o600);
    drop(upload);
    assert_eq!(get(&view, "/box/file").expect("read"), "old");
    assert_staging_empty(&fixture);
}

#[test]
fn commit_rechecks_locks_conditions_and_permissions() {
    let (fixture, view) = fixture();
    let stage = |path: &str| {
        let upload = view.stage(&tree_path(path), None, &NO_CONDITIONS).expect("stage");
        upload.write_at(b"new", 0).expect("write");
        upload
    };
    let upload = stage("/box/file");
    let token = lock(&fixture.view("bob"), "/box/file");
    assert_eq!(outcome_name(upload.write_at(b"more", 0)), "locked");
    assert_eq!(outcome_name(upload.commit(&NO_CONDITIONS)), "locked");
    fixture.view("bob").unlock(&tree_path("/box/file"), &token).expect("unlocked");

    let upload = stage("/box/file");
    let refuse = || Err(Error::PreconditionFailed);
    assert_eq!(outcome_name(upload.commit(&WriteConditions { lock_tokens: &[], evaluate: &refuse })), "precondition");

    let upload = stage("/box/new");
    fs::create_dir(host_path(&fixture, "/box/new")).expect("created");
    assert_eq!(outcome_name(upload.commit(&NO_CONDITIONS)), "is directory");

    let upload = stage("/box/sub/new");
    fs::remove_dir(host_path(&fixture, "/box/sub")).expect("removed");
    assert_eq!(outcome_name(upload.commit(&NO_CONDITIONS)), "no parent");

    let upload = stage("/box/file");
    fixture
        .store
        .revoke_grant(&login("alice"), fixture.tree.assign_node_id(&tree_path("/box")).expect("node"))
        .expect("revoked");
    assert_eq!(outcome_name(upload.write_at(b"more", 0)), "ended");
    assert_eq!(outcome_name(upload.commit(&NO_CONDITIONS)), "ended");
    assert_eq!(read_outside_gateway(&fixture, "/box/file"), "old");
    assert_staging_empty(&fixture);
}

#[test]
fn own_lock_allows_write_with_its_token() {
    let (fixture, view) = fixture();
    let token = lock(&view, "/box");
    assert_eq!(outcome_name(put(&view, "/box/file", "x")), "locked");
    assert_eq!(outcome_name(put(&view, "/box/sub/new", "x")), "locked");
    let tokens = [token];
    let conditions = WriteConditions { lock_tokens: &tokens, evaluate: &|| Ok(()) };
    let upload = view.stage(&tree_path("/box/sub/new"), None, &conditions).expect("stage");
    upload.commit(&conditions).expect("commit");
    assert_eq!(outcome_name(fixture.view("bob").stage(&tree_path("/box/file"), None, &conditions).map(drop)), "locked");
    assert_eq!(outcome_name(view.remove_all(&tree_path("/box/sub"), &NO_CONDITIONS)), "locked");
    view.remove_all(&tree_path("/box/sub"), &conditions).expect("removed");
}

#[test]
fn lock_below_prevents_move_and_removal_of_directory() {
    let (fixture, view) = fixture();
    put(&view, "/box/sub/file", "x").expect("put");
    let token = lock(&fixture.view("bob"), "/box/sub/file");
    assert_eq!(outcome_name(view.remove_all(&tree_path("/box/sub"), &NO_CONDITIONS)), "locked");
    assert_eq!(
        outcome_name(view.rename(
            &tree_path("/box/sub"),
            &tree_path("/box/new"),
            OverwriteMode::Refuse,
            &NO_CONDITIONS
        )),
        "locked"
    );
    fixture.view("bob").unlock(&tree_path("/box/sub/file"), &token).expect("unlocked");
    view.rename(&tree_path("/box/sub"), &tree_path("/box/new"), OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("renamed");
}

#[test]
fn one_of_concurrent_creates_succeeds() {
    let (_house, view) = fixture();
    let won = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let upload = view.stage(&tree_path("/box/one"), None, &NO_CONDITIONS).expect("stage");
                let fresh = || match view.stat(&tree_path("/box/one")) {
                    Err(Error::Absent) => Ok(()),
                    Ok(_) => Err(Error::PreconditionFailed),
                    Err(error) => Err(error),
                };
                if upload.commit(&WriteConditions { lock_tokens: &[], evaluate: &fresh }).is_ok() {
                    won.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}

#[test]
fn revoked_token_closes_open_files_and_listings() {
    let (fixture, view) = fixture();
    let reader = view.read(&tree_path("/box/file")).expect("read");
    let editor = view.edit(&tree_path("/box/file"), EditMode::default(), &NO_CONDITIONS).expect("edit");
    let upload = view.stage(&tree_path("/box/new"), None, &NO_CONDITIONS).expect("stage");
    let mut listing = view.list(&tree_path("/box"), true).expect("list");
    fixture.store.revoke_tokens(&[view.session().token()], now()).expect("revoked");
    assert_eq!(outcome_name(reader.read_at(&mut [0; 8], 0)), "ended");
    assert_eq!(outcome_name(editor.write_at(b"x", 0)), "ended");
    assert_eq!(outcome_name(upload.write_at(b"x", 0)), "ended");
    assert_eq!(outcome_name(upload.commit(&NO_CONDITIONS)), "ended");
    assert_eq!(listing.next().map(outcome_name), Some("ended"));
    assert_eq!(listing.next().map(outcome_name), Some("host"), "no end, as of a complete listing");
    assert_eq!(outcome_name(view.stat(&tree_path("/box/file"))), "ended");
    assert_eq!(read_outside_gateway(&fixture, "/box/file"), "old");
}

#[test]
fn open_file_survives_rename_of_its_directory() {
    let (fixture, _) = fixture();
    put(&fixture.view("bob"), "/box/sub/file", "content").expect("put");
    let view = fixture.scoped_view("alice", &[("/box/sub", Permission::R)]);
    let reader = view.read(&tree_path("/box/sub/file")).expect("read");
    let owner = fixture.view("bob");
    owner
        .rename(&tree_path("/box/sub"), &tree_path("/box/moved"), OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("rename");
    assert_eq!(reader.read_at(&mut [0; 16], 0).expect("read on"), 7);
    assert_eq!(get(&view, "/box/moved/file").expect("read"), "content");
    assert_eq!(outcome_name(get(&view, "/box/sub/file")), "absent");
    owner
        .rename(&tree_path("/box/moved/file"), &tree_path("/box/out"), OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("rename");
    fixture
        .store
        .revoke_grant(&login("bob"), fixture.tree.assign_node_id(&tree_path("/box")).expect("node"))
        .expect("revoked");
    assert_eq!(outcome_name(reader.read_at(&mut [0; 16], 0)), "ended");
}

#[test]
fn size_limit_applies_to_every_way_to_create_or_grow_a_file() {
    let (fixture, view) = fixture();
    write_outside_gateway(&fixture, "/box/big", "12345678");
    let max_file_size = Some(ByteSize::from_bytes(4));
    set_limits(&fixture.store, view.session().token(), &TokenLimits { max_file_size, ..TokenLimits::default() });
    let (file, big, new) = (tree_path("/box/file"), tree_path("/box/big"), tree_path("/box/new"));
    assert_eq!(outcome_name(view.stage(&new, Some(5), &NO_CONDITIONS).map(drop)), "too large");
    let upload = view.stage(&new, None, &NO_CONDITIONS).expect("stage");
    upload.write_at(b"1234", 0).expect("fits");
    assert_eq!(outcome_name(upload.write_at(b"5", 4)), "too large");
    let grow = AttributeChanges { size: Some(5), ..AttributeChanges::default() };
    assert_eq!(outcome_name(upload.set_attributes(&grow)), "too large");
    let editor = view.edit(&file, EditMode::default(), &NO_CONDITIONS).expect("edit");
    assert_eq!(outcome_name(editor.write_at(b"xx", 3)), "too large");
    assert_eq!(outcome_name(editor.set_attributes(&grow)), "too large");
    let appender = view.edit(&file, EditMode { append: true, ..EditMode::default() }, &NO_CONDITIONS).expect("edit");
    assert_eq!(outcome_name(appender.write_at(b"xx", 0)), "too large");
    assert_eq!(outcome_name(view.set_attributes(&file, &grow, true, &NO_CONDITIONS)), "too large");
    assert_eq!(outcome_name(view.copy(&big, &new, true, OverwriteMode::Refuse, &NO_CONDITIONS)), "too large");
    assert_eq!(
        outcome_name(view.copy(
            &tree_path("/box"),
            &tree_path("/box/sub/x"),
            false,
            OverwriteMode::Refuse,
            &NO_CONDITIONS
        )),
        "ok"
    );
    assert_eq!(outcome_name(view.rename(&big, &new, OverwriteMode::Refuse, &NO_CONDITIONS)), "too large");
    assert_eq!(outcome_name(view.hard_link(&big, &new, &NO_CONDITIONS)), "too large");
    drop(upload);
    assert_staging_empty(&fixture);
}

#[test]
fn replaced_file_keeps_mode_and_new_file_gets_umask_default() {
    let (fixture, view) = fixture();
    let mode = |path: &str| fs::metadata(host_path(&fixture, path)).expect("stat").permissions().mode() & 0o7777;
    fs::set_permissions(host_path(&fixture, "/box/file"), fs::Permissions::from_mode(0o751)).expect("set");
    put(&view, "/box/file", "x").expect("put");
    put(&view, "/box/new", "x").expect("put");
    write_outside_gateway(&fixture, "/box/made", "x");
    assert_eq!((mode("/box/file"), mode("/box/new")), (0o751, mode("/box/made")));
    let upload = view.stage(&tree_path("/box/set"), None, &NO_CONDITIONS).expect("stage");
    upload.set_attributes(&AttributeChanges { mode: Some(0o6711), ..AttributeChanges::default() }).expect("set");
    assert_eq!(upload.commit(&NO_CONDITIONS).expect("commit").entry.mode, 0o711);
    assert_eq!(mode("/box/set"), 0o711);
}

#[test]
fn edit_mode_flags_are_honoured() {
    let (fixture, view) = fixture();
    let mode = EditMode::default();
    let edit = |path: &str, mode| view.edit(&tree_path(path), mode, &NO_CONDITIONS);
    assert_eq!(outcome_name(edit("/box/none", mode)), "absent");
    assert_eq!(outcome_name(edit("/box/none/none", mode)), "absent");
    assert_eq!(outcome_name(edit("/box/none/none", EditMode { create: true, ..mode })), "no parent");
    assert_eq!(outcome_name(edit("/box/sub", mode)), "is directory");
    let exclusive = EditMode { create: true, exclusive: true, ..mode };
    assert_eq!(outcome_name(edit("/box/file", exclusive)), "exists");
    let created = edit("/box/made", exclusive).expect("created");
    created.write_at(b"made", 0).expect("write");
    assert_eq!(outcome_name(created.read_at(&mut [0; 4], 0)), "wrong mode");
    let both = edit("/box/made", EditMode { read: true, append: true, ..mode }).expect("edit");
    both.write_at(b" more", 0).expect("append");
    let mut buffer = [0; 16];
    let count = both.read_at(&mut buffer, 0).expect("read");
    assert_eq!(&buffer[..count], b"made more");
    edit("/box/file", EditMode { truncate: true, ..mode }).expect("edit").close().expect("close");
    assert_eq!(read_outside_gateway(&fixture, "/box/file"), "");
}

#[test]
fn in_place_edit_respects_locks_acquired_later() {
    let (fixture, view) = fixture();
    let editor = view.edit(&tree_path("/box/file"), EditMode::default(), &NO_CONDITIONS).expect("edit");
    editor.write_at(b"one", 0).expect("write");
    let token = lock(&fixture.view("bob"), "/box/file");
    assert_eq!(outcome_name(editor.write_at(b"two", 0)), "locked");
    fixture.view("bob").unlock(&tree_path("/box/file"), &token).expect("unlocked");
    editor.write_at(b"two", 0).expect("write");
}

#[test]
fn start_clears_staging_and_second_server_is_refused() {
    let (fixture, view) = fixture();
    drop(view);
    write_outside_gateway(&fixture, ".patgate/left", "debris");
    fs::create_dir_all(host_path(&fixture, ".patgate/folder/with/depth")).expect("created");
    write_outside_gateway(&fixture, ".patgate/folder/with/depth/file", "debris");
    let TreeFixture { store, root_path: root, .. } = &fixture;
    let options = TreeOptions { root: root.clone(), durability: CommitDurability::Full };
    let refused = Tree::open(options.clone(), store.clone(), Clock::system()).err();
    assert!(matches!(refused, Some(Error::Filesystem(_))));
    Tree::attach(options, store.clone(), Clock::system()).expect("beside a server");
    assert!(host_path(&fixture, ".patgate/left").exists());
    let fixture = fixture.restart();
    assert_staging_empty(&fixture);
}

#[test]
fn start_does_not_wait_until_debris_is_removed() {
    let (fixture, view) = fixture();
    drop(view);
    for number in 0..200 {
        fs::create_dir_all(host_path(&fixture, &format!(".patgate/left/{number}/full"))).expect("created");
    }
    take_syscall_counts();
    let fixture = fixture.restart();
    // Each of them is opened to be removed, by another thread.
    assert!(take_syscall_counts().opens < 100);
    assert_staging_empty(&fixture);
}

#[test]
fn second_state_directory_cannot_open_same_root() {
    let (fixture, _) = fixture();
    let other = tempfile::tempdir().expect("temporary directory");
    let store = crate::store::Store::open(other.path()).expect("store");
    let options = TreeOptions { root: fixture.root_path.clone(), durability: CommitDurability::Full };
    assert!(matches!(Tree::open(options, store, Clock::system()), Err(Error::Filesystem(_))));
}

#[test]
fn full_durability_supports_all_operations() {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/box", RW)]);
    let session = fixture.view("alice").session().clone();
    let TreeFixture { tree, store, root_path: root, .. } = &fixture;
    let options = TreeOptions { root: root.clone(), durability: CommitDurability::Full };
    let full = Tree::attach(options, store.clone(), Clock::system()).expect("beside");
    let view = full.view(session);
    put(&view, "/box/file", "x").expect("put");
    view.create_directory(&tree_path("/box/sub"), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    view.copy(&tree_path("/box/sub"), &tree_path("/box/copy"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("copied");
    view.copy(&tree_path("/box/file"), &tree_path("/box/copy/file"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("copied");
    view.rename(&tree_path("/box/file"), &tree_path("/box/sub/file"), OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("renamed");
    let editor = view.edit(&tree_path("/box/sub/file"), EditMode::default(), &NO_CONDITIONS).expect("edit");
    editor.write_at(b"y", 0).expect("write");
    editor.close().expect("close");
    view.remove_all(&tree_path("/box/copy"), &NO_CONDITIONS).expect("removed");
    full.wait_for_background_deletes();
    tree.wait_for_background_deletes();
    assert_eq!(read_outside_gateway(&fixture, "/box/sub/file"), "y");
}
