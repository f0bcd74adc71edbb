//! Who may do what: every operation against every permission.

use std::fs;

use super::*;
use crate::domain::Permission;
use crate::tree::{Attributes, EditMode, Kind, Overwrite, Timestamp};

const R: Permission = Permission::R;
const W: Permission = Permission::W;
const RW: Permission = Permission::RW;

/// Who looks at the box: no right at all, one for whom it is merely visible, and one for each permission.
const CALLERS: [(&str, &str, Permission); 5] = [
    ("nobody", "/other", RW),
    ("passer", "/top/box/sub/deep", RW),
    ("reader", "/top/box", R),
    ("dropper", "/top/box", W),
    ("writer", "/top/box", RW),
];

type Operation = (&'static str, fn(&View) -> Result<()>, [&'static str; 5]);

fn house() -> House {
    let house = House::new(&["/other", "/top/box/sub/deep", "/top/box/empty", "/top/beside"]);
    write(&house, "/top/box/file", "content");
    write(&house, "/top/beside/file", "content");
    write(&house, "/top/box/sub/file", "content");
    house
}

fn stat(view: &View, path: &str) -> Result<()> {
    view.stat(&at(path)).map(drop)
}

fn edit(view: &View, path: &str, mode: EditMode) -> Result<()> {
    view.edit(&at(path), mode, &NONE)?.write_at(b"x", 0)
}

fn make(view: &View, path: &str) -> Result<()> {
    view.make_folder(&at(path), &Attributes::default(), &NONE).map(drop)
}

fn rename(view: &View, from: &str, to: &str) -> Result<()> {
    view.rename(&at(from), &at(to), Overwrite::No, &NONE).map(drop)
}

fn copy(view: &View, from: &str, to: &str) -> Result<()> {
    view.copy(&at(from), &at(to), true, Overwrite::No, &NONE).map(drop)
}

const TOUCH: Attributes =
    Attributes { mode: None, size: None, accessed: None, modified: Some(Timestamp { seconds: 9, nanos: 0 }) };

#[test]
fn every_operation_needs_what_the_table_says() {
    const ALL: &str = "ok";
    const GONE: &str = "absent";
    const SHUT: &str = "forbidden";
    let table: [Operation; 30] = [
        ("stat file", |v| stat(v, "/top/box/file"), [GONE, GONE, ALL, ALL, ALL]),
        ("stat folder", |v| stat(v, "/top/box"), [GONE, ALL, ALL, ALL, ALL]),
        ("stat missing", |v| stat(v, "/top/box/none"), [GONE, GONE, GONE, GONE, GONE]),
        ("stat above", |v| stat(v, "/top"), [GONE, ALL, ALL, ALL, ALL]),
        ("stat beside", |v| stat(v, "/top/beside"), [GONE; 5]),
        ("list", |v| names(v, "/top/box").map(drop), [GONE, ALL, ALL, ALL, ALL]),
        ("list file", |v| names(v, "/top/box/file").map(drop), [GONE, GONE, "not folder", SHUT, "not folder"]),
        ("read", |v| get(v, "/top/box/file").map(drop), [GONE, GONE, ALL, SHUT, ALL]),
        ("read missing", |v| get(v, "/top/box/none").map(drop), [GONE; 5]),
        ("read folder", |v| get(v, "/top/box/sub").map(drop), [GONE, SHUT, "is folder", SHUT, "is folder"]),
        ("put new", |v| put(v, "/top/box/new", "x"), ["no parent", SHUT, SHUT, ALL, ALL]),
        ("put over", |v| put(v, "/top/box/file", "x"), ["no parent", SHUT, SHUT, ALL, ALL]),
        ("put over folder", |v| put(v, "/top/box/sub", "x"), ["no parent", SHUT, SHUT, "is folder", "is folder"]),
        ("put over root", |v| put(v, "/top/box", "x"), ["no parent", SHUT, SHUT, "is folder", "is folder"]),
        ("put in nowhere", |v| put(v, "/top/box/none/new", "x"), ["no parent"; 5]),
        ("put beside", |v| put(v, "/top/beside/new", "x"), ["no parent"; 5]),
        ("edit", |v| edit(v, "/top/box/file", EditMode::default()), [GONE, GONE, SHUT, ALL, ALL]),
        (
            "edit and read",
            |v| edit(v, "/top/box/file", EditMode { read: true, ..EditMode::default() }),
            [GONE, GONE, SHUT, SHUT, ALL],
        ),
        ("make folder", |v| make(v, "/top/box/new"), ["no parent", SHUT, SHUT, ALL, ALL]),
        ("remove file", |v| v.remove_file(&at("/top/box/file"), &NONE), [GONE, GONE, SHUT, ALL, ALL]),
        ("remove folder", |v| v.remove_folder(&at("/top/box/empty"), &NONE), [GONE, GONE, SHUT, ALL, ALL]),
        ("remove all", |v| v.remove_all(&at("/top/box/empty"), &NONE), [GONE, GONE, SHUT, ALL, ALL]),
        ("remove root", |v| v.remove_all(&at("/top/box"), &NONE), [GONE, SHUT, SHUT, SHUT, SHUT]),
        ("rename", |v| rename(v, "/top/box/file", "/top/box/new"), [GONE, GONE, SHUT, ALL, ALL]),
        ("rename root", |v| rename(v, "/top/box", "/top/new"), [GONE, SHUT, SHUT, SHUT, SHUT]),
        ("rename out", |v| rename(v, "/top/box/file", "/top/new"), [GONE, GONE, SHUT, SHUT, SHUT]),
        ("copy", |v| copy(v, "/top/box/file", "/top/box/new"), [GONE, GONE, SHUT, SHUT, ALL]),
        ("copy folder", |v| copy(v, "/top/box/sub", "/top/box/new"), [GONE, SHUT, SHUT, SHUT, ALL]),
        (
            "set attributes",
            |v| v.set_attributes(&at("/top/box/file"), &TOUCH, true, &NONE),
            [GONE, GONE, SHUT, ALL, ALL],
        ),
        ("hard link", |v| v.hard_link(&at("/top/box/file"), &at("/top/box/new"), &NONE), [GONE, GONE, SHUT, SHUT, ALL]),
    ];
    for (caller, (name, path, permission)) in CALLERS.into_iter().enumerate() {
        let house = house();
        house.user(name, &[(path, permission)]);
        let view = house.view(name);
        for (operation, run, expected) in &table {
            restore(&house);
            assert_eq!(said(run(&view)), expected[caller], "{operation} by {name}");
            if expected[caller] != "ok" {
                assert_eq!(content(&house, "/top/box/file"), "content", "{operation} by {name}");
            }
        }
    }
}

/// Puts everything back that an operation may have changed.
fn restore(house: &House) {
    for path in ["/top/box/new", "/top/new"] {
        let _ = fs::remove_file(host(house, path));
        let _ = fs::remove_dir_all(host(house, path));
    }
    fs::create_dir_all(host(house, "/top/box/empty")).expect("made");
    write(house, "/top/box/file", "content");
}

#[test]
fn a_merely_visible_folder_shows_constants_and_only_the_way_down() {
    let house = house();
    house.user("passer", &[("/top/box/sub/deep", RW)]);
    let view = house.view("passer");
    let before = view.stat(&at("/top/box")).expect("seen");
    fs::create_dir(host(&house, "/top/box/more")).expect("made");
    let after = view.stat(&at("/top/box")).expect("seen");
    assert_eq!(before, after);
    assert_eq!((after.links, after.modified, after.etag, after.created), (2, Timestamp::default(), None, None));
    assert_eq!(names(&view, "/").expect("list"), ["top"]);
    assert_eq!(names(&view, "/top/box").expect("list"), ["sub"]);
    // The room is the file system's, as it is told of what lies below.
    assert_eq!(said(view.space(&at("/top/box"))), "ok");
    assert_eq!(said(view.space(&at("/top/box/sub/deep"))), "ok");
}

#[test]
fn a_drop_box_shows_nothing_that_comes_from_content() {
    let house = house();
    house.user("dropper", &[("/top/box", W)]);
    let view = house.view("dropper");
    assert!(names(&view, "/top/box").expect("list").is_empty());
    let file = view.stat(&at("/top/box/file")).expect("by name");
    assert_eq!((file.size, file.etag, file.permission), (7, None, W));
    let before = view.stat(&at("/top/box")).expect("seen");
    write(&house, "/top/box/more", "x");
    assert_eq!(view.stat(&at("/top/box")).expect("seen"), before);
}

#[test]
fn what_cannot_be_read_does_not_become_readable_by_moving() {
    let house = house();
    house.user("dropper", &[("/top/box", W), ("/other", RW)]);
    let view = house.view("dropper");
    assert_eq!(said(rename(&view, "/top/box/file", "/other/file")), "forbidden");
    put(&view, "/other/mine", "x").expect("put");
    rename(&view, "/other/mine", "/top/box/mine").expect("into the drop box");
}

#[test]
fn a_hard_link_needs_one_grant_over_both_places() {
    let house = house();
    house.user("writer", &[("/top/box", RW), ("/other", RW)]);
    let view = house.view("writer");
    let link = |to: &str| said(view.hard_link(&at("/top/box/file"), &at(to), &NONE));
    assert_eq!(link("/other/file"), "forbidden");
    assert_eq!(link("/top/box/sub/file2"), "ok");
    assert_eq!(view.stat(&at("/top/box/file")).expect("stat").links, 2);
}

#[test]
fn a_granted_file_is_replaced_but_neither_removed_nor_moved() {
    let house = house();
    house.user("filer", &[("/top/box/file", RW)]);
    let view = house.view("filer");
    put(&view, "/top/box/file", "new").expect("replaced");
    assert_eq!(get(&view, "/top/box/file").expect("read"), "new");
    assert_eq!(names(&view, "/top/box").expect("list"), ["file"]);
    assert_eq!(said(view.remove_file(&at("/top/box/file"), &NONE)), "forbidden");
    assert_eq!(said(rename(&view, "/top/box/file", "/top/box/new")), "forbidden");
    assert_eq!(said(put(&view, "/top/box/new", "x")), "forbidden");
    fs::remove_file(host(&house, "/top/box/file")).expect("gone");
    fs::create_dir_all(host(&house, "/top/box/file/in")).expect("a folder instead");
    assert_eq!(said(view.stat(&at("/top/box/file"))), "absent");
    assert_eq!(said(view.stat(&at("/top/box/file/in"))), "absent");
}

#[test]
fn a_folder_swapped_behind_the_gateways_back_gives_nothing() {
    let house = house();
    house.user("writer", &[("/top/box", RW)]);
    house.user("filer", &[("/top/box/file", RW)]);
    let (view, filer) = (house.view("writer"), house.view("filer"));
    fs::rename(host(&house, "/top/box"), host(&house, "/top/moved")).expect("moved");
    fs::create_dir(host(&house, "/top/box")).expect("made");
    write(&house, "/top/box/file", "of somebody else");
    for view in [&view, &filer] {
        assert_eq!(said(view.stat(&at("/top/box/file"))), "absent");
        assert_eq!(said(get(view, "/top/box/file")), "absent");
        assert_eq!(said(put(view, "/top/box/file", "x")), "no parent");
        assert_eq!(said(names(view, "/top/box")), "absent");
        assert_eq!(said(view.stat(&at("/top"))), "absent");
        assert!(names(view, "/").expect("list").is_empty());
    }
    assert_eq!(content(&house, "/top/box/file"), "of somebody else");
}

#[test]
fn a_swap_for_a_link_gives_nothing_either() {
    let house = house();
    house.user("writer", &[("/top/box", RW)]);
    let view = house.view("writer");
    fs::rename(host(&house, "/top/box"), host(&house, "/top/moved")).expect("moved");
    std::os::unix::fs::symlink("moved", host(&house, "/top/box")).expect("link");
    assert_eq!(said(get(&view, "/top/box/file")), "absent");
    assert_eq!(said(put(&view, "/top/box/file", "x")), "no parent");
}

#[test]
fn special_files_and_the_gateways_own_folder_are_absent() {
    let house = house();
    house.user("writer", &[("/", RW)]);
    let view = house.view("writer");
    let _socket = std::os::unix::net::UnixListener::bind(host(&house, "/top/box/socket")).expect("socket");
    put(&view, "/top/box/new", "x").expect("put");
    assert!(house.root.join(".patgate").is_dir());
    assert_eq!(names(&view, "/top/box").expect("list"), ["empty", "file", "new", "sub"]);
    assert_eq!(names(&view, "/").expect("list"), ["other", "top"]);
    let socket = "/top/box/socket";
    assert_eq!(said(view.stat(&at(socket))), "absent");
    assert_eq!(said(view.link_stat(&at(socket))), "absent");
    assert_eq!(said(get(&view, socket)), "absent");
    assert_eq!(said(view.remove_file(&at(socket), &NONE)), "absent");
    assert_eq!(view.stat(&at("/top/box/sub")).expect("stat").kind, Kind::Folder);
}
