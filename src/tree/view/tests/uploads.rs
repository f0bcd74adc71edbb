//! Staged uploads and edits in place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::auth::Clock;
use crate::domain::{ByteSize, Permission, TokenLimits};
use crate::store::testing::{login, now, set_limits};
use crate::tree::{Attributes, Durability, EditMode, LockRequest, LockToken, Options, Overwrite, Tree};

const RW: Permission = Permission::RW;

fn house() -> (House, View) {
    let house = House::new(&["/box/sub"]);
    house.user("alice", &[("/box", RW)]);
    house.user("bob", &[("/box", RW)]);
    let view = house.view("alice");
    write(&house, "/box/file", "old");
    (house, view)
}

fn lock(view: &View, path: &str) -> LockToken {
    let request = LockRequest { exclusive: true, deep: true, owner: String::new(), timeout: Duration::from_secs(600) };
    view.lock(&at(path), &request, &NONE).expect("locked").0.token
}

#[test]
fn an_upload_is_seen_by_nobody_before_its_commit_and_drops_without_debris() {
    let (house, view) = house();
    let upload = view.stage(&at("/box/file"), Some(3), &NONE).expect("stage");
    upload.write_at(b"new", 0).expect("write");
    assert_eq!(get(&view, "/box/file").expect("read"), "old");
    assert_eq!(upload.stat().expect("stat").size, 3);
    let staged = staged(&house).pop().expect("one");
    assert_eq!(staged.metadata().expect("stat").permissions().mode() & 0o777, 0o600);
    drop(upload);
    assert_eq!(get(&view, "/box/file").expect("read"), "old");
    no_debris(&house);
}

#[test]
fn a_commit_is_judged_again() {
    let (house, view) = house();
    let stage = |path: &str| {
        let upload = view.stage(&at(path), None, &NONE).expect("stage");
        upload.write_at(b"new", 0).expect("write");
        upload
    };
    let upload = stage("/box/file");
    let token = lock(&house.view("bob"), "/box/file");
    assert_eq!(said(upload.write_at(b"more", 0)), "locked");
    assert_eq!(said(upload.commit(&NONE)), "locked");
    house.view("bob").unlock(&at("/box/file"), &token).expect("unlocked");

    let upload = stage("/box/file");
    let refuse = || Err(Error::Precondition);
    assert_eq!(said(upload.commit(&Claim { tokens: &[], judge: &refuse })), "precondition");

    let upload = stage("/box/new");
    fs::create_dir(host(&house, "/box/new")).expect("made");
    assert_eq!(said(upload.commit(&NONE)), "is folder");

    let upload = stage("/box/sub/new");
    fs::remove_dir(host(&house, "/box/sub")).expect("removed");
    assert_eq!(said(upload.commit(&NONE)), "no parent");

    let upload = stage("/box/file");
    house.store.revoke_grant(&login("alice"), house.tree.mint(&at("/box")).expect("node")).expect("revoked");
    assert_eq!(said(upload.write_at(b"more", 0)), "ended");
    assert_eq!(said(upload.commit(&NONE)), "ended");
    assert_eq!(content(&house, "/box/file"), "old");
    no_debris(&house);
}

#[test]
fn ones_own_lock_lets_pass_who_shows_its_token() {
    let (house, view) = house();
    let token = lock(&view, "/box");
    assert_eq!(said(put(&view, "/box/file", "x")), "locked");
    assert_eq!(said(put(&view, "/box/sub/new", "x")), "locked");
    let tokens = [token];
    let claim = Claim { tokens: &tokens, judge: &|| Ok(()) };
    let upload = view.stage(&at("/box/sub/new"), None, &claim).expect("stage");
    upload.commit(&claim).expect("commit");
    assert_eq!(said(house.view("bob").stage(&at("/box/file"), None, &claim).map(drop)), "locked");
    assert_eq!(said(view.remove_all(&at("/box/sub"), &NONE)), "locked");
    view.remove_all(&at("/box/sub"), &claim).expect("removed");
}

#[test]
fn a_lock_below_keeps_the_folder_where_it_is() {
    let (house, view) = house();
    put(&view, "/box/sub/file", "x").expect("put");
    let token = lock(&house.view("bob"), "/box/sub/file");
    assert_eq!(said(view.remove_all(&at("/box/sub"), &NONE)), "locked");
    assert_eq!(said(view.rename(&at("/box/sub"), &at("/box/new"), Overwrite::No, &NONE)), "locked");
    house.view("bob").unlock(&at("/box/sub/file"), &token).expect("unlocked");
    view.rename(&at("/box/sub"), &at("/box/new"), Overwrite::No, &NONE).expect("renamed");
}

#[test]
fn of_many_who_make_one_name_one_wins() {
    let (_house, view) = house();
    let won = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let upload = view.stage(&at("/box/one"), None, &NONE).expect("stage");
                let fresh = || match view.stat(&at("/box/one")) {
                    Err(Error::Absent) => Ok(()),
                    Ok(_) => Err(Error::Precondition),
                    Err(error) => Err(error),
                };
                if upload.commit(&Claim { tokens: &[], judge: &fresh }).is_ok() {
                    won.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}

#[test]
fn a_dead_token_ends_what_is_open() {
    let (house, view) = house();
    let reader = view.read(&at("/box/file")).expect("read");
    let editor = view.edit(&at("/box/file"), EditMode::default(), &NONE).expect("edit");
    let upload = view.stage(&at("/box/new"), None, &NONE).expect("stage");
    let mut listing = view.list(&at("/box"), true).expect("list");
    house.store.revoke_tokens(&[view.session().token()], now()).expect("revoked");
    assert_eq!(said(reader.read_at(&mut [0; 8], 0)), "ended");
    assert_eq!(said(editor.write_at(b"x", 0)), "ended");
    assert_eq!(said(upload.write_at(b"x", 0)), "ended");
    assert_eq!(said(upload.commit(&NONE)), "ended");
    assert_eq!(listing.next().map(said), Some("ended"));
    assert!(listing.next().is_none());
    assert_eq!(said(view.stat(&at("/box/file"))), "ended");
    assert_eq!(content(&house, "/box/file"), "old");
}

#[test]
fn what_is_open_stays_open_when_its_folder_is_renamed() {
    let (house, _) = house();
    put(&house.view("bob"), "/box/sub/file", "content").expect("put");
    let view = house.scoped("alice", &[("/box/sub", Permission::R)]);
    let reader = view.read(&at("/box/sub/file")).expect("read");
    let owner = house.view("bob");
    owner.rename(&at("/box/sub"), &at("/box/moved"), Overwrite::No, &NONE).expect("rename");
    assert_eq!(reader.read_at(&mut [0; 16], 0).expect("read on"), 7);
    assert_eq!(get(&view, "/box/moved/file").expect("read"), "content");
    assert_eq!(said(get(&view, "/box/sub/file")), "absent");
    owner.rename(&at("/box/moved/file"), &at("/box/out"), Overwrite::No, &NONE).expect("rename");
    house.store.revoke_grant(&login("bob"), house.tree.mint(&at("/box")).expect("node")).expect("revoked");
    assert_eq!(said(reader.read_at(&mut [0; 16], 0)), "ended");
}

#[test]
fn the_size_limit_holds_for_every_way_to_make_a_file() {
    let (house, view) = house();
    write(&house, "/box/big", "12345678");
    let max_file_size = Some(ByteSize::from_bytes(4));
    set_limits(&house.store, view.session().token(), &TokenLimits { max_file_size, ..TokenLimits::default() });
    let (file, big, new) = (at("/box/file"), at("/box/big"), at("/box/new"));
    assert_eq!(said(view.stage(&new, Some(5), &NONE).map(drop)), "too large");
    let upload = view.stage(&new, None, &NONE).expect("stage");
    upload.write_at(b"1234", 0).expect("fits");
    assert_eq!(said(upload.write_at(b"5", 4)), "too large");
    let grow = Attributes { size: Some(5), ..Attributes::default() };
    assert_eq!(said(upload.set_attributes(&grow)), "too large");
    let editor = view.edit(&file, EditMode::default(), &NONE).expect("edit");
    assert_eq!(said(editor.write_at(b"xx", 3)), "too large");
    assert_eq!(said(editor.set_attributes(&grow)), "too large");
    let appender = view.edit(&file, EditMode { append: true, ..EditMode::default() }, &NONE).expect("edit");
    assert_eq!(said(appender.write_at(b"xx", 0)), "too large");
    assert_eq!(said(view.set_attributes(&file, &grow, true, &NONE)), "too large");
    assert_eq!(said(view.copy(&big, &new, true, Overwrite::No, &NONE)), "too large");
    assert_eq!(said(view.copy(&at("/box"), &at("/box/sub/x"), false, Overwrite::No, &NONE)), "ok");
    assert_eq!(said(view.rename(&big, &new, Overwrite::No, &NONE)), "too large");
    assert_eq!(said(view.hard_link(&big, &new, &NONE)), "too large");
    drop(upload);
    no_debris(&house);
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_new_one_is_not_private() {
    let (house, view) = house();
    let mode = |path: &str| fs::metadata(host(&house, path)).expect("stat").permissions().mode() & 0o7777;
    fs::set_permissions(host(&house, "/box/file"), fs::Permissions::from_mode(0o751)).expect("set");
    put(&view, "/box/file", "x").expect("put");
    put(&view, "/box/new", "x").expect("put");
    write(&house, "/box/made", "x");
    assert_eq!((mode("/box/file"), mode("/box/new")), (0o751, mode("/box/made")));
    let upload = view.stage(&at("/box/set"), None, &NONE).expect("stage");
    upload.set_attributes(&Attributes { mode: Some(0o6711), ..Attributes::default() }).expect("set");
    assert_eq!(upload.commit(&NONE).expect("commit").entry.mode, 0o711);
    assert_eq!(mode("/box/set"), 0o711);
}

#[test]
fn edits_open_as_they_are_asked_to() {
    let (house, view) = house();
    let mode = EditMode::default();
    let edit = |path: &str, mode| view.edit(&at(path), mode, &NONE);
    assert_eq!(said(edit("/box/none", mode)), "absent");
    assert_eq!(said(edit("/box/none/none", mode)), "absent");
    assert_eq!(said(edit("/box/none/none", EditMode { create: true, ..mode })), "no parent");
    assert_eq!(said(edit("/box/sub", mode)), "is folder");
    let exclusive = EditMode { create: true, exclusive: true, ..mode };
    assert_eq!(said(edit("/box/file", exclusive)), "exists");
    let made = edit("/box/made", exclusive).expect("made");
    made.write_at(b"made", 0).expect("write");
    assert_eq!(said(made.read_at(&mut [0; 4], 0)), "wrong mode");
    let both = edit("/box/made", EditMode { read: true, append: true, ..mode }).expect("edit");
    both.write_at(b" more", 0).expect("append");
    let mut buffer = [0; 16];
    let count = both.read_at(&mut buffer, 0).expect("read");
    assert_eq!(&buffer[..count], b"made more");
    edit("/box/file", EditMode { truncate: true, ..mode }).expect("edit").close().expect("close");
    assert_eq!(content(&house, "/box/file"), "");
}

#[test]
fn an_edit_in_place_meets_locks_that_come_later() {
    let (house, view) = house();
    let editor = view.edit(&at("/box/file"), EditMode::default(), &NONE).expect("edit");
    editor.write_at(b"one", 0).expect("write");
    let token = lock(&house.view("bob"), "/box/file");
    assert_eq!(said(editor.write_at(b"two", 0)), "locked");
    house.view("bob").unlock(&at("/box/file"), &token).expect("unlocked");
    editor.write_at(b"two", 0).expect("write");
}

#[test]
fn a_start_sweeps_staging_and_two_servers_never_share_a_tree() {
    let (house, view) = house();
    drop(view);
    write(&house, ".patgate/left", "debris");
    fs::create_dir_all(host(&house, ".patgate/folder/with/depth")).expect("made");
    write(&house, ".patgate/folder/with/depth/file", "debris");
    let House { store, root, .. } = &house;
    let options = Options { root: root.clone(), durability: Durability::Full };
    let refused = Tree::open(options.clone(), store.clone(), Clock::system()).err();
    assert!(matches!(refused, Some(Error::Host(_))));
    Tree::attach(options, store.clone(), Clock::system()).expect("beside a server");
    assert!(host(&house, ".patgate/left").exists());
    let house = house.reopened();
    no_debris(&house);
}

#[test]
fn the_store_of_another_state_does_not_open_the_same_folder() {
    let (house, _) = house();
    let other = tempfile::tempdir().expect("folder");
    let store = crate::store::Store::open(other.path()).expect("store");
    let options = Options { root: house.root.clone(), durability: Durability::Full };
    assert!(matches!(Tree::open(options, store, Clock::system()), Err(Error::Host(_))));
}

#[test]
fn full_durability_does_all_that_fast_does() {
    let house = House::new(&["/box"]);
    house.user("alice", &[("/box", RW)]);
    let session = house.view("alice").session().clone();
    let House { tree, store, root, .. } = &house;
    let options = Options { root: root.clone(), durability: Durability::Full };
    let full = Tree::attach(options, store.clone(), Clock::system()).expect("beside");
    let view = full.view(session);
    put(&view, "/box/file", "x").expect("put");
    view.make_folder(&at("/box/sub"), &Attributes::default(), &NONE).expect("made");
    view.copy(&at("/box/sub"), &at("/box/copy"), true, Overwrite::No, &NONE).expect("copied");
    view.copy(&at("/box/file"), &at("/box/copy/file"), true, Overwrite::No, &NONE).expect("copied");
    view.rename(&at("/box/file"), &at("/box/sub/file"), Overwrite::No, &NONE).expect("renamed");
    let editor = view.edit(&at("/box/sub/file"), EditMode::default(), &NONE).expect("edit");
    editor.write_at(b"y", 0).expect("write");
    editor.close().expect("close");
    view.remove_all(&at("/box/copy"), &NONE).expect("removed");
    full.settle();
    tree.settle();
    assert_eq!(content(&house, "/box/sub/file"), "y");
}
