//! Tests of permissions: every operation with every permission, and what a visible or write-only directory reveals.
//! Random sequences are in `access_model.rs`.

use std::fs;

use super::*;
use crate::domain::Permission;
use crate::tree::{AttributeChanges, EditMode, EntryKind, OverwriteMode, Timestamp};

const R: Permission = Permission::R;
const W: Permission = Permission::W;
const RW: Permission = Permission::RW;

/// Callers of each operation: without a permission, with one that makes `/top/box` merely visible, and with each
/// permission on it.
const CALLERS: [(&str, &str, Permission); 5] = [
    ("nobody", "/other", RW),
    ("passer", "/top/box/sub/deep", RW),
    ("reader", "/top/box", R),
    ("dropper", "/top/box", W),
    ("writer", "/top/box", RW),
];

type OperationCase = (&'static str, fn(&View) -> Result<()>, [&'static str; 5]);

fn fixture() -> TreeFixture {
    let fixture = TreeFixture::new(&["/other", "/top/box/sub/deep", "/top/box/empty", "/top/beside"]);
    write_outside_gateway(&fixture, "/top/box/file", "content");
    write_outside_gateway(&fixture, "/top/beside/file", "content");
    write_outside_gateway(&fixture, "/top/box/sub/file", "content");
    fixture
}

fn stat(view: &View, path: &str) -> Result<()> {
    view.stat(&tree_path(path)).map(drop)
}

fn edit(view: &View, path: &str, mode: EditMode) -> Result<()> {
    view.edit(&tree_path(path), mode, &NO_CONDITIONS)?.write_at(b"x", 0)
}

fn create_directory(view: &View, path: &str) -> Result<()> {
    view.create_directory(&tree_path(path), &AttributeChanges::default(), &NO_CONDITIONS).map(drop)
}

fn rename(view: &View, from: &str, to: &str) -> Result<()> {
    view.rename(&tree_path(from), &tree_path(to), OverwriteMode::Refuse, &NO_CONDITIONS).map(drop)
}

fn copy(view: &View, from: &str, to: &str) -> Result<()> {
    view.copy(&tree_path(from), &tree_path(to), true, OverwriteMode::Refuse, &NO_CONDITIONS).map(drop)
}

const TOUCH_MODIFIED: AttributeChanges =
    AttributeChanges { mode: None, size: None, accessed: None, modified: Some(Timestamp { seconds: 9, nanos: 0 }) };

const ALLOWED: &str = "ok";
const ABSENT: &str = "absent";
const FORBIDDEN: &str = "forbidden";
/// Expected outcome of each operation for each of [`CALLERS`].
const OPERATION_CASES: [OperationCase; 30] = [
    ("stat file", |v| stat(v, "/top/box/file"), [ABSENT, ABSENT, ALLOWED, ALLOWED, ALLOWED]),
    ("stat directory", |v| stat(v, "/top/box"), [ABSENT, ALLOWED, ALLOWED, ALLOWED, ALLOWED]),
    ("stat missing", |v| stat(v, "/top/box/none"), [ABSENT, ABSENT, ABSENT, ABSENT, ABSENT]),
    ("stat above", |v| stat(v, "/top"), [ABSENT, ALLOWED, ALLOWED, ALLOWED, ALLOWED]),
    ("stat beside", |v| stat(v, "/top/beside"), [ABSENT; 5]),
    ("list", |v| list_names(v, "/top/box").map(drop), [ABSENT, ALLOWED, ALLOWED, ALLOWED, ALLOWED]),
    (
        "list file",
        |v| list_names(v, "/top/box/file").map(drop),
        [ABSENT, ABSENT, "not directory", FORBIDDEN, "not directory"],
    ),
    ("read", |v| get(v, "/top/box/file").map(drop), [ABSENT, ABSENT, ALLOWED, FORBIDDEN, ALLOWED]),
    ("read missing", |v| get(v, "/top/box/none").map(drop), [ABSENT; 5]),
    (
        "read directory",
        |v| get(v, "/top/box/sub").map(drop),
        [ABSENT, FORBIDDEN, "is directory", FORBIDDEN, "is directory"],
    ),
    ("put new", |v| put(v, "/top/box/new", "x"), ["no parent", FORBIDDEN, FORBIDDEN, ALLOWED, ALLOWED]),
    ("put over", |v| put(v, "/top/box/file", "x"), ["no parent", FORBIDDEN, FORBIDDEN, ALLOWED, ALLOWED]),
    (
        "put over directory",
        |v| put(v, "/top/box/sub", "x"),
        ["no parent", FORBIDDEN, FORBIDDEN, "is directory", "is directory"],
    ),
    ("put over root", |v| put(v, "/top/box", "x"), ["no parent", FORBIDDEN, FORBIDDEN, "is directory", "is directory"]),
    ("put in nowhere", |v| put(v, "/top/box/none/new", "x"), ["no parent"; 5]),
    ("put beside", |v| put(v, "/top/beside/new", "x"), ["no parent"; 5]),
    ("edit", |v| edit(v, "/top/box/file", EditMode::default()), [ABSENT, ABSENT, FORBIDDEN, ALLOWED, ALLOWED]),
    (
        "edit and read",
        |v| edit(v, "/top/box/file", EditMode { read: true, ..EditMode::default() }),
        [ABSENT, ABSENT, FORBIDDEN, FORBIDDEN, ALLOWED],
    ),
    (
        "create directory",
        |v| create_directory(v, "/top/box/new"),
        ["no parent", FORBIDDEN, FORBIDDEN, ALLOWED, ALLOWED],
    ),
    (
        "remove file",
        |v| v.remove_file(&tree_path("/top/box/file"), &NO_CONDITIONS),
        [ABSENT, ABSENT, FORBIDDEN, ALLOWED, ALLOWED],
    ),
    (
        "remove directory",
        |v| v.remove_directory(&tree_path("/top/box/empty"), &NO_CONDITIONS),
        [ABSENT, ABSENT, FORBIDDEN, ALLOWED, ALLOWED],
    ),
    (
        "remove all",
        |v| v.remove_all(&tree_path("/top/box/empty"), &NO_CONDITIONS),
        [ABSENT, ABSENT, FORBIDDEN, ALLOWED, ALLOWED],
    ),
    (
        "remove root",
        |v| v.remove_all(&tree_path("/top/box"), &NO_CONDITIONS),
        [ABSENT, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN],
    ),
    ("rename", |v| rename(v, "/top/box/file", "/top/box/new"), [ABSENT, ABSENT, FORBIDDEN, ALLOWED, ALLOWED]),
    ("rename root", |v| rename(v, "/top/box", "/top/new"), [ABSENT, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN]),
    ("rename out", |v| rename(v, "/top/box/file", "/top/new"), [ABSENT, ABSENT, FORBIDDEN, FORBIDDEN, FORBIDDEN]),
    ("copy", |v| copy(v, "/top/box/file", "/top/box/new"), [ABSENT, ABSENT, FORBIDDEN, FORBIDDEN, ALLOWED]),
    ("copy directory", |v| copy(v, "/top/box/sub", "/top/box/new"), [ABSENT, FORBIDDEN, FORBIDDEN, FORBIDDEN, ALLOWED]),
    (
        "set attributes",
        |v| v.set_attributes(&tree_path("/top/box/file"), &TOUCH_MODIFIED, true, &NO_CONDITIONS),
        [ABSENT, ABSENT, FORBIDDEN, ALLOWED, ALLOWED],
    ),
    (
        "hard link",
        |v| v.hard_link(&tree_path("/top/box/file"), &tree_path("/top/box/new"), &NO_CONDITIONS),
        [ABSENT, ABSENT, FORBIDDEN, FORBIDDEN, ALLOWED],
    ),
];

#[test]
fn every_operation_needs_the_documented_permission() {
    for (caller, (name, path, permission)) in CALLERS.into_iter().enumerate() {
        let fixture = fixture();
        fixture.create_user(name, &[(path, permission)]);
        let view = fixture.view(name);
        for (operation, run, expected) in &OPERATION_CASES {
            restore_entries(&fixture);
            assert_eq!(outcome_name(run(&view)), expected[caller], "{operation} by {name}");
            if expected[caller] != "ok" {
                assert_eq!(read_outside_gateway(&fixture, "/top/box/file"), "content", "{operation} by {name}");
            }
        }
    }
}

/// Restores every entry that an operation may have changed.
fn restore_entries(fixture: &TreeFixture) {
    for path in ["/top/box/new", "/top/new"] {
        let _ = fs::remove_file(host_path(fixture, path));
        let _ = fs::remove_dir_all(host_path(fixture, path));
    }
    fs::create_dir_all(host_path(fixture, "/top/box/empty")).expect("created");
    write_outside_gateway(fixture, "/top/box/file", "content");
}

#[test]
fn visible_directory_shows_constant_metadata_and_only_visible_children() {
    let fixture = fixture();
    fixture.create_user("passer", &[("/top/box/sub/deep", RW)]);
    let view = fixture.view("passer");
    let before = view.stat(&tree_path("/top/box")).expect("seen");
    fs::create_dir(host_path(&fixture, "/top/box/more")).expect("created");
    let after = view.stat(&tree_path("/top/box")).expect("seen");
    assert_eq!(before, after);
    assert_eq!((after.link_count, after.modified, after.etag, after.created), (2, Timestamp::default(), None, None));
    assert_eq!(list_names(&view, "/").expect("list"), ["top"]);
    assert_eq!(list_names(&view, "/top/box").expect("list"), ["sub"]);
    // The space is that of the file system, asked through an entry below that may be reached.
    assert_eq!(outcome_name(view.space(&tree_path("/top/box"))), "ok");
    assert_eq!(outcome_name(view.space(&tree_path("/top/box/sub/deep"))), "ok");
}

#[test]
fn write_only_directory_reveals_nothing_derived_from_content() {
    let fixture = fixture();
    fixture.create_user("dropper", &[("/top/box", W)]);
    let view = fixture.view("dropper");
    assert!(list_names(&view, "/top/box").expect("list").is_empty());
    let file = view.stat(&tree_path("/top/box/file")).expect("by name");
    assert_eq!((file.size, file.etag, file.permission), (7, None, W));
    let before = view.stat(&tree_path("/top/box")).expect("seen");
    write_outside_gateway(&fixture, "/top/box/more", "x");
    assert_eq!(view.stat(&tree_path("/top/box")).expect("seen"), before);
}

#[test]
fn unreadable_entry_cannot_be_moved_where_it_is_readable() {
    let fixture = fixture();
    fixture.create_user("dropper", &[("/top/box", W), ("/other", RW)]);
    let view = fixture.view("dropper");
    assert_eq!(outcome_name(rename(&view, "/top/box/file", "/other/file")), "forbidden");
    put(&view, "/other/mine", "x").expect("put");
    rename(&view, "/other/mine", "/top/box/mine").expect("into the drop box");
}

#[test]
fn hard_link_needs_one_grant_over_source_and_target() {
    let fixture = fixture();
    fixture.create_user("writer", &[("/top/box", RW), ("/other", RW)]);
    let view = fixture.view("writer");
    let link = |to: &str| outcome_name(view.hard_link(&tree_path("/top/box/file"), &tree_path(to), &NO_CONDITIONS));
    assert_eq!(link("/other/file"), "forbidden");
    assert_eq!(link("/top/box/sub/file2"), "ok");
    assert_eq!(view.stat(&tree_path("/top/box/file")).expect("stat").link_count, 2);
}

#[test]
fn granted_file_can_be_replaced_but_not_removed_or_moved() {
    let fixture = fixture();
    fixture.create_user("filer", &[("/top/box/file", RW)]);
    let view = fixture.view("filer");
    put(&view, "/top/box/file", "new").expect("replaced");
    assert_eq!(get(&view, "/top/box/file").expect("read"), "new");
    assert_eq!(list_names(&view, "/top/box").expect("list"), ["file"]);
    assert_eq!(outcome_name(view.remove_file(&tree_path("/top/box/file"), &NO_CONDITIONS)), "forbidden");
    assert_eq!(outcome_name(rename(&view, "/top/box/file", "/top/box/new")), "forbidden");
    assert_eq!(outcome_name(put(&view, "/top/box/new", "x")), "forbidden");
    fs::remove_file(host_path(&fixture, "/top/box/file")).expect("gone");
    fs::create_dir_all(host_path(&fixture, "/top/box/file/in")).expect("a directory instead");
    assert_eq!(outcome_name(view.stat(&tree_path("/top/box/file"))), "absent");
    assert_eq!(outcome_name(view.stat(&tree_path("/top/box/file/in"))), "absent");
}

#[test]
fn directory_swapped_outside_gateway_grants_nothing() {
    let fixture = fixture();
    fixture.create_user("writer", &[("/top/box", RW)]);
    fixture.create_user("filer", &[("/top/box/file", RW)]);
    let (view, filer) = (fixture.view("writer"), fixture.view("filer"));
    fs::rename(host_path(&fixture, "/top/box"), host_path(&fixture, "/top/moved")).expect("moved");
    fs::create_dir(host_path(&fixture, "/top/box")).expect("created");
    write_outside_gateway(&fixture, "/top/box/file", "of somebody else");
    for view in [&view, &filer] {
        assert_eq!(outcome_name(view.stat(&tree_path("/top/box/file"))), "absent");
        assert_eq!(outcome_name(get(view, "/top/box/file")), "absent");
        assert_eq!(outcome_name(put(view, "/top/box/file", "x")), "no parent");
        assert_eq!(outcome_name(list_names(view, "/top/box")), "absent");
        assert_eq!(outcome_name(view.stat(&tree_path("/top"))), "absent");
        assert!(list_names(view, "/").expect("list").is_empty());
    }
    assert_eq!(read_outside_gateway(&fixture, "/top/box/file"), "of somebody else");
}

#[test]
fn directory_swapped_for_symlink_grants_nothing() {
    let fixture = fixture();
    fixture.create_user("writer", &[("/top/box", RW)]);
    let view = fixture.view("writer");
    fs::rename(host_path(&fixture, "/top/box"), host_path(&fixture, "/top/moved")).expect("moved");
    std::os::unix::fs::symlink("moved", host_path(&fixture, "/top/box")).expect("link");
    assert_eq!(outcome_name(get(&view, "/top/box/file")), "absent");
    assert_eq!(outcome_name(put(&view, "/top/box/file", "x")), "no parent");
}

#[test]
fn special_files_and_reserved_directory_are_absent() {
    let fixture = fixture();
    fixture.create_user("writer", &[("/", RW)]);
    let view = fixture.view("writer");
    let _socket = std::os::unix::net::UnixListener::bind(host_path(&fixture, "/top/box/socket")).expect("socket");
    put(&view, "/top/box/new", "x").expect("put");
    assert!(fixture.root_path.join(".patgate").is_dir());
    assert_eq!(list_names(&view, "/top/box").expect("list"), ["empty", "file", "new", "sub"]);
    assert_eq!(list_names(&view, "/").expect("list"), ["other", "top"]);
    let socket = "/top/box/socket";
    assert_eq!(outcome_name(view.stat(&tree_path(socket))), "absent");
    assert_eq!(outcome_name(view.link_stat(&tree_path(socket))), "absent");
    assert_eq!(outcome_name(get(&view, socket)), "absent");
    assert_eq!(outcome_name(view.remove_file(&tree_path(socket), &NO_CONDITIONS)), "absent");
    assert_eq!(view.stat(&tree_path("/top/box/sub")).expect("stat").kind, EntryKind::Directory);
}
