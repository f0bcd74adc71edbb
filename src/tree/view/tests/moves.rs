//! Renames, copies and removals of whole folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::domain::Permission;
use crate::tree::{Attributes, Overwrite, Property, PropertyChange, PropertyName};

const RW: Permission = Permission::RW;

fn house() -> (House, View) {
    let house = House::new(&["/box/a/b", "/box/c"]);
    house.user("alice", &[("/", RW)]);
    write(&house, "/box/a/b/file", "deep");
    write(&house, "/box/a/file", "shallow");
    let view = house.view("alice");
    (house, view)
}

fn rename(view: &View, from: &str, to: &str, overwrite: Overwrite) -> Result<bool> {
    view.rename(&at(from), &at(to), overwrite, &NONE)
}

fn copy(view: &View, from: &str, to: &str, overwrite: Overwrite) -> Result<bool> {
    view.copy(&at(from), &at(to), true, overwrite, &NONE)
}

fn tag(view: &View, path: &str, text: &str) {
    let name = PropertyName { namespace: "urn:x".into(), name: "tag".into() };
    let changes = [PropertyChange::Set(Property { name, value: format!("<tag xmlns=\"urn:x\">{text}</tag>") })];
    view.set_properties(&at(path), &changes, &Attributes::default(), &NONE).expect("set");
}

fn tags(view: &View, path: &str) -> Vec<String> {
    view.properties(&at(path)).expect("read").into_iter().map(|property| property.value).collect()
}

#[test]
fn nothing_goes_into_itself_or_onto_what_holds_it() {
    let (house, view) = house();
    for overwrite in [Overwrite::Yes, Overwrite::No, Overwrite::Posix] {
        for (from, to) in [("/box/a", "/box/a/b/x"), ("/box/a/b", "/box/a"), ("/box/a", "/box/a/b"), ("/box", "/box/x")]
        {
            assert_eq!(said(rename(&view, from, to, overwrite)), "overlap", "{from} {to}");
            assert_eq!(said(copy(&view, from, to, overwrite)), "overlap", "{from} {to}");
        }
        assert_eq!(said(copy(&view, "/box/a", "/box/a", overwrite)), "overlap");
    }
    assert_eq!(said(rename(&view, "/box/a", "/box/a", Overwrite::Yes)), "overlap");
    assert_eq!(said(rename(&view, "/box/a", "/box/a", Overwrite::Posix)), "ok");
    symlink("a", host(&house, "/box/link")).expect("link");
    assert_eq!(said(rename(&view, "/box/a", "/box/link/b/x", Overwrite::Yes)), "overlap");
    assert_eq!(said(copy(&view, "/box/link", "/box/a/b/x", Overwrite::Yes)), "overlap");
    assert_eq!(said(rename(&view, "/", "/box/x", Overwrite::Yes)), "forbidden");
    assert_eq!(said(copy(&view, "/box/a", "/", Overwrite::Yes)), "forbidden");
    assert_eq!(said(view.remove_all(&at("/"), &NONE)), "forbidden");
    assert_eq!(content(&house, "/box/a/b/file"), "deep");
    no_debris_of(&house);
}

fn no_debris_of(house: &House) {
    house.tree.settle();
    assert_eq!(staged(house).len(), 0);
}

#[test]
fn targets_are_replaced_as_each_protocol_asks() {
    use Overwrite::{No, Posix, Yes};
    let table = [
        ("/box/a/file", "/box/new", No, "ok", false),
        ("/box/a/file", "/box/a/b/file", No, "exists", false),
        ("/box/a/file", "/box/a/b/file", Yes, "ok", true),
        ("/box/a/file", "/box/a/b/file", Posix, "ok", true),
        ("/box/a/file", "/box/c", No, "exists", false),
        ("/box/a/file", "/box/c", Posix, "is folder", false),
        ("/box/a/file", "/box/c", Yes, "ok", true),
        ("/box/c", "/box/a/file", Posix, "not folder", false),
        ("/box/c", "/box/a/file", Yes, "ok", true),
        ("/box/a", "/box/c", Posix, "ok", true),
        ("/box/c", "/box/a", Posix, "not empty", false),
        ("/box/c", "/box/a", Yes, "ok", true),
        ("/box/none", "/box/x", Yes, "absent", false),
        ("/box/c", "/box/none/x", Yes, "no parent", false),
        ("/box/c", "/box/a/file/x", Yes, "no parent", false),
    ];
    for (from, to, overwrite, outcome, replaced) in table {
        let (house, view) = house();
        let result = rename(&view, from, to, overwrite);
        assert_eq!(result.as_ref().ok().copied().unwrap_or_default(), replaced, "{from} {to} {overwrite:?}");
        assert_eq!(said(result), outcome, "{from} {to} {overwrite:?}");
        assert_eq!(host(&house, from).exists(), outcome != "ok" && from != "/box/none", "{from} {to} {overwrite:?}");
        no_debris_of(&house);
        if overwrite != Posix {
            let (house, view) = self::house();
            assert_eq!(said(copy(&view, from, to, overwrite)), outcome, "copy {from} {to} {overwrite:?}");
            assert_eq!(host(&house, from).exists(), from != "/box/none");
            no_debris_of(&house);
        }
    }
}

#[test]
fn a_target_that_is_replaced_is_never_missing() {
    let (house, view) = house();
    let stop = AtomicBool::new(false);
    let target = host(&house, "/box/c");
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0u64;
            while !stop.load(Ordering::Relaxed) {
                assert!(target.exists());
                looks += 1;
            }
            looks
        });
        for turn in 0..100 {
            copy(&view, "/box/a", "/box/c", Overwrite::Yes).expect("copy");
            let next = format!("/box/{turn}");
            copy(&view, "/box/a", &next, Overwrite::No).expect("copy");
            rename(&view, &next, "/box/c", Overwrite::Yes).expect("rename");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(watch.join().expect("watch") > 0);
    });
    no_debris(&house);
}

#[test]
fn moving_one_name_of_a_file_onto_another_leaves_one() {
    let (house, view) = house();
    view.hard_link(&at("/box/a/file"), &at("/box/twin"), &NONE).expect("link");
    assert!(rename(&view, "/box/a/file", "/box/twin", Overwrite::Yes).expect("rename"));
    assert!(!host(&house, "/box/a/file").exists());
    assert_eq!(content(&house, "/box/twin"), "shallow");
}

#[test]
fn a_copy_is_whole_and_takes_along_only_links_that_stay_inside() {
    let (house, view) = house();
    symlink("b/file", host(&house, "/box/a/inside")).expect("link");
    symlink("../c", host(&house, "/box/a/beside")).expect("link");
    symlink("/etc", host(&house, "/box/a/out")).expect("link");
    let _socket = std::os::unix::net::UnixListener::bind(host(&house, "/box/a/socket")).expect("socket");
    fs::create_dir_all(host(&house, "/box/a/.patgate/x")).expect("made");
    assert!(!copy(&view, "/box/a", "/box/copy", Overwrite::No).expect("copy"));
    let mut found: Vec<_> =
        fs::read_dir(host(&house, "/box/copy")).expect("list").map(|e| e.expect("entry").file_name()).collect();
    found.sort();
    assert_eq!(found, ["b", "file", "inside"]);
    assert_eq!(content(&house, "/box/copy/inside"), "deep");
    assert!(!view.copy(&at("/box/a"), &at("/box/shallow"), false, Overwrite::No, &NONE).expect("copy"));
    assert_eq!(fs::read_dir(host(&house, "/box/shallow")).expect("list").count(), 0);
}

#[test]
fn properties_follow_a_rename_and_are_copied() {
    let (house, view) = house();
    tag(&view, "/box/a/b/file", "one");
    let node = view.node_id(&at("/box/a/b/file")).expect("node");
    rename(&view, "/box/a", "/box/moved", Overwrite::No).expect("rename");
    assert_eq!(view.node_id(&at("/box/moved/b/file")).expect("node"), node);
    assert_eq!(house.tree.locate(node).expect("located"), Some(at("/box/moved/b/file")));
    copy(&view, "/box/moved", "/box/copy", Overwrite::No).expect("copy");
    assert_eq!(tags(&view, "/box/copy/b/file"), tags(&view, "/box/moved/b/file"));
    assert_ne!(view.node_id(&at("/box/copy/b/file")).expect("node"), node);
    put(&view, "/box/moved/b/file", "new").expect("put");
    assert_eq!(view.node_id(&at("/box/moved/b/file")).expect("node"), node);
    view.remove_all(&at("/box/moved"), &NONE).expect("removed");
    assert_eq!(house.tree.locate(node).expect("located"), None);
    fs::create_dir_all(host(&house, "/box/moved/b")).expect("made");
    write(&house, "/box/moved/b/file", "another");
    assert!(tags(&view, "/box/moved/b/file").is_empty());
}

#[test]
fn a_folder_of_any_depth_leaves_in_one_step_and_goes_whole() {
    let (house, view) = house();
    let mut deep = host(&house, "/box/c");
    for _ in 0..600 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).expect("made");
    for number in 0..300 {
        fs::write(host(&house, "/box/c").join(number.to_string()), "x").expect("write");
    }
    copy(&view, "/box/c", "/box/copy", Overwrite::No).expect("copy");
    view.remove_all(&at("/box/c"), &NONE).expect("removed");
    assert!(!host(&house, "/box/c").exists());
    view.remove_all(&at("/box/copy"), &NONE).expect("removed");
    no_debris(&house);
}

/// Moves as to another file system: nothing can be mounted here, so what such a move does is asked for by itself.
pub(super) fn across(view: &View, from: &str, to: &str, overwrite: Overwrite) -> Result<bool> {
    let (source, stat) = view.removable(crate::domain::TreeOperation::Move, &at(from))?;
    view.move_across(&source, &stat, &view.spot(&at(to))?, overwrite, &NONE)
}

#[test]
fn a_move_to_another_file_system_copies_whole_and_removes() {
    let (house, view) = house();
    let replaced = across(&view, "/box/a", "/box/c", Overwrite::Yes).expect("moved");
    assert!(replaced && !host(&house, "/box/a").exists());
    assert_eq!(content(&house, "/box/c/b/file"), "deep");
    no_debris(&house);
}

#[test]
fn links_that_would_lead_out_do_not_move_to_another_file_system() {
    let house = House::new(&["/box/0/1/2", "/box/0/d", "/secret"]);
    house.user("alice", &[("/box", RW)]);
    let view = house.view("alice");
    view.symlink(b"../../../secret", &at("/box/0/1/2/l"), &NONE).expect("stays inside");
    for (from, to) in [("/box/0/1/2/l", "/box/l"), ("/box/0/1/2", "/box/2"), ("/box/0/1", "/box/1")] {
        assert_eq!(said(across(&view, from, to, Overwrite::No)), "forbidden", "{from}");
        assert!(fs::symlink_metadata(host(&house, to)).is_err(), "{to}");
    }
    symlink("/etc/passwd", host(&house, "/box/0/1/2/absolute")).expect("link");
    across(&view, "/box/0/1/2", "/box/0/d/2", Overwrite::No).expect("as deep as before");
    assert_eq!(fs::read_link(host(&house, "/box/0/d/2/l")).expect("a link"), std::path::Path::new("../../../secret"));
    no_debris(&house);
}

#[test]
fn nodes_follow_a_move_to_another_file_system_with_all_that_hangs_on_them() {
    let (house, view) = house();
    house.user("bob", &[("/box/a/b", Permission::R)]);
    let bob = house.view("bob");
    tag(&view, "/box/a/b/file", "one");
    let [top, folder, file, replaced] =
        ["/box/a", "/box/a/b", "/box/a/b/file", "/box/c"].map(|path| view.node_id(&at(path)).expect("named"));
    across(&view, "/box/a", "/box/c", Overwrite::Yes).expect("moved");
    let place = |id| house.tree.locate(id).expect("located").map(|path| path.to_string());
    let places = [top, folder, file, replaced].map(place);
    assert_eq!(places, [Some("/box/c".into()), Some("/box/c/b".into()), Some("/box/c/b/file".into()), None]);
    assert_eq!(tags(&view, "/box/c/b/file").len(), 1);
    assert_eq!(get(&bob, "/box/c/b/file").expect("granted"), "deep");
    across(&view, "/box/c/b/file", "/box/file", Overwrite::No).expect("moved");
    assert_eq!(place(file).as_deref(), Some("/box/file"));
    assert_eq!(tags(&view, "/box/file").len(), 1);
    assert_eq!(said(get(&bob, "/box/file")), "absent");
}

#[test]
fn a_folder_swapped_behind_the_gateways_back_gets_no_name_by_a_move_to_another_file_system() {
    let (house, view) = house();
    house.user("bob", &[("/box/a/b", Permission::R)]);
    let node = view.node_id(&at("/box/a/b")).expect("named");
    fs::rename(host(&house, "/box/a/b"), host(&house, "/box/old")).expect("renamed");
    fs::create_dir(host(&house, "/box/a/b")).expect("made");
    write(&house, "/box/a/b/file", "of another");
    across(&view, "/box/a", "/box/c", Overwrite::Yes).expect("moved");
    assert_eq!(house.tree.locate(node).expect("located"), None);
    assert_eq!(said(get(&house.view("bob"), "/box/c/b/file")), "absent");
}

#[test]
fn what_comes_into_a_folder_while_it_is_copied_to_another_file_system_is_not_lost() {
    let (house, view) = house();
    let changes: [&dyn Fn(); 5] = [
        &|| write(&house, "/box/a/b/new", "new"),
        &|| put(&view, "/box/a/b/file", "DEEP").expect("put"),
        &|| fs::remove_file(host(&house, "/box/a/b/file")).expect("removed"),
        &|| fs::rename(host(&house, "/box/a/b"), host(&house, "/box/a/d")).expect("renamed"),
        &|| {},
    ];
    for (number, change) in changes.iter().enumerate() {
        let (source, stat) = view.removable(crate::domain::TreeOperation::Move, &at("/box/a")).expect("there");
        let target = view.spot(&at("/box/c")).expect("there");
        let copied = view.copy_across(&source, &stat, &target).expect("copied");
        change();
        let moved = view.arrive(copied, &source, &target, Overwrite::Yes, &NONE);
        assert_eq!(said(moved), if number < 4 { "precondition" } else { "ok" }, "{number}");
        assert_eq!(host(&house, "/box/a/file").exists(), number < 4);
        assert_eq!(host(&house, "/box/c/file").exists(), number == 4);
    }
    no_debris(&house);
}

#[test]
fn what_comes_into_a_folder_while_it_is_taken_to_another_file_system_is_not_lost() {
    for target in ["/box/c", "/box/new"] {
        let (house, view) = house();
        let late = || {
            write(&house, "/box/a/b/late", "late");
            Ok(())
        };
        let (source, stat) = view.removable(crate::domain::TreeOperation::Move, &at("/box/a")).expect("there");
        let claim = Claim { tokens: &[], judge: &late };
        let moved = view.move_across(&source, &stat, &view.spot(&at(target)).expect("there"), Overwrite::Yes, &claim);
        assert_eq!(said(moved), "precondition");
        assert_eq!(content(&house, "/box/a/b/late"), "late");
        assert_eq!(content(&house, "/box/a/b/file"), "deep");
        assert!(host(&house, "/box/c").exists());
        assert!(!host(&house, target).join("b").exists(), "the copy is taken back");
        no_debris_of(&house);
    }
}

#[test]
fn a_move_to_another_file_system_replaces_as_posix_does() {
    let table = [
        ("/box/a/file", "/box/a/b/file", "ok"),
        ("/box/a/file", "/box/c", "is folder"),
        ("/box/c", "/box/a/file", "not folder"),
        ("/box/a", "/box/c", "ok"),
        ("/box/c", "/box/a", "not empty"),
    ];
    for (from, to, outcome) in table {
        let (house, view) = house();
        assert_eq!(said(across(&view, from, to, Overwrite::Posix)), outcome, "{from} {to}");
        assert_eq!(host(&house, from).exists(), outcome != "ok", "{from} {to}");
        assert!(host(&house, to).exists(), "{from} {to}");
        no_debris_of(&house);
    }
}

#[test]
fn a_folder_that_holds_what_can_not_be_copied_does_not_move_to_another_file_system() {
    let (house, view) = house();
    let inside = host(&house, "/box/a/b");
    let socket = || drop(std::os::unix::net::UnixListener::bind(inside.join("odd")).expect("bound"));
    let own = || fs::create_dir(inside.join(".patgate")).expect("made");
    let makes: [(&dyn Fn(), &str); 2] = [(&socket, "odd"), (&own, ".patgate")];
    for (make, name) in makes {
        make();
        assert_eq!(said(across(&view, "/box/a", "/box/c", Overwrite::Yes)), "unsupported", "{name}");
        assert!(inside.join(name).exists() && !host(&house, "/box/c/file").exists(), "{name}");
        let _ = fs::remove_file(inside.join(name));
    }
    fs::remove_dir(inside.join(".patgate")).expect("removed");
    across(&view, "/box/a", "/box/c", Overwrite::Yes).expect("moved");
    no_debris_of(&house);
}

#[test]
fn rename_past_the_longest_path_of_a_named_node_is_refused_before_its_first_effect() {
    let deep = format!("/box/n{}", format!("/{}", "d".repeat(250)).repeat(16));
    let house = House::new(&[&deep]);
    house.user("alice", &[("/", RW)]);
    let view = house.view("alice");
    let node = house.tree.mint(&at(&deep)).expect("named");
    let long = format!("/box/{}", "n".repeat(100));
    let refused = rename(&view, "/box/n", &long, Overwrite::No);
    assert!(matches!(refused, Err(Error::PathTooLong)), "{refused:?}");
    assert_eq!(house.tree.locate(node).expect("located"), Some(at(&deep)));
    assert!(rename(&view, "/box/n", "/box/nn", Overwrite::No).is_ok());
    assert_eq!(house.tree.locate(node).expect("located"), Some(at(&deep.replace("/n/", "/nn/"))));
}

#[test]
fn replaced_folder_that_would_not_fit_at_the_source_stands_there_at_no_time() {
    let way = |depth: usize| format!("/{}", "d".repeat(250)).repeat(depth);
    let house = House::new(&[&format!("/box{}", way(9)), &format!("/old{}", way(8))]);
    house.user("alice", &[("/", RW)]);
    let view = house.view("alice");
    let source = format!("/box{}/new", way(9));
    view.make_folder(&at(&source), &Attributes::default(), &NONE).expect("made");
    assert!(rename(&view, &source, "/old", Overwrite::Yes).expect("moved"));
    assert!(names(&view, "/old").expect("listed").is_empty());
    no_debris_of(&house);
}
