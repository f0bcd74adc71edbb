//! Tests of links and moves that meet between check and effect: what another session does to a link, to its directory or
//! to those above, after the links of a move were checked, is noticed before the effect.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::domain::{Permission, TreeOperation};
use crate::tree::{AttributeChanges, OverwriteMode};

/// Directories of the user `alice`, who may write below `/box` and nowhere else.
const DIRECTORIES: [&str; 4] = ["/box/0/1/2/sub", "/box/0/other", "/box/side/deep", "/secret"];

fn fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&DIRECTORIES);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    write_outside_gateway(&fixture, "/secret/file", "secret");
    let view = fixture.view("alice");
    (fixture, view)
}

fn create_directory(view: &View, path: &str) {
    view.create_directory(&tree_path(path), &AttributeChanges::default(), &NO_CONDITIONS).expect(path);
}

fn rename(view: &View, from: &str, to: &str) {
    view.rename(&tree_path(from), &tree_path(to), OverwriteMode::Refuse, &NO_CONDITIONS).expect(from);
}

/// Checks the links of a move, has another session interfere, and repeats the check as just before the effect. Returns
/// whether source and target could be exchanged then, `changed` where the first check no longer holds, or the refusal.
fn recheck_after(fixture: &TreeFixture, (from, to): (&str, &str), interfere: &dyn Fn(&View)) -> String {
    let (view, other) = (fixture.view("alice"), fixture.view("alice"));
    let (source, _) = view.removal_slot(TreeOperation::Move, &tree_path(from)).expect("may be moved");
    let target = view.create_slot(&tree_path(to)).expect("may be created");
    let checked_links = match view.check_links(&source, &target, OverwriteMode::Replace) {
        Ok(checked_links) => checked_links,
        refused => return format!("first {}", outcome_name(refused)),
    };
    interfere(&other);
    let checked_move = match view.check_move(&source, &target, OverwriteMode::Replace, &NO_CONDITIONS) {
        Ok(checked_move) => checked_move,
        refused => return outcome_name(refused).to_owned(),
    };
    let move_guard = view.shared().link_moves.lock_exclusive();
    match view.recheck_links(&checked_links, &move_guard, &source, &target, &checked_move) {
        Ok(Some(confirmed)) if confirmed.may_exchange => "confirmed, may exchange".to_owned(),
        Ok(Some(_)) => "confirmed".to_owned(),
        Ok(None) => "changed".to_owned(),
        refused => outcome_name(refused).to_owned(),
    }
}

#[test]
fn change_below_a_checked_directory_makes_it_be_checked_again() {
    let move_up = ("/box/0/1/2", "/box/two");
    type Change = dyn Fn(&View);
    let cases: [(&str, &Change); 7] = [
        ("confirmed, may exchange", &|_| {}),
        ("confirmed, may exchange", &|other| create_directory(other, "/box/0/unrelated")),
        ("changed", &|other| {
            other.symlink(b"../../../x", &tree_path("/box/0/1/2/sub/l"), &NO_CONDITIONS).expect("stays inside");
        }),
        ("changed", &|other| {
            other.symlink(b"../x", &tree_path("/box/side/l"), &NO_CONDITIONS).expect("stays inside");
            rename(other, "/box/side/l", "/box/0/1/2/l");
        }),
        ("changed", &|other| {
            other.symlink(b"../x", &tree_path("/box/side/deep/l"), &NO_CONDITIONS).expect("stays inside");
            rename(other, "/box/side/deep", "/box/0/1/2/deep");
        }),
        ("changed", &|other| {
            create_directory(other, "/box/0/1/2/within");
            rename(other, "/box/0/1/2/sub", "/box/0/1/2/within/sub");
        }),
        // A link that arrived while the directory had another path.
        ("changed", &|other| {
            rename(other, "/box/0/1", "/box/one");
            other.symlink(b"../../x", &tree_path("/box/one/2/sub/l"), &NO_CONDITIONS).expect("stays inside");
            rename(other, "/box/one", "/box/0/1");
        }),
    ];
    for (number, (expected, interfere)) in cases.into_iter().enumerate() {
        let (fixture, _) = fixture();
        assert_eq!(recheck_after(&fixture, move_up, interfere), expected, "case {number}");
    }
}

#[test]
fn directory_that_took_the_name_of_a_checked_one_is_checked_itself() {
    let (fixture, _) = fixture();
    let outcome = recheck_after(&fixture, ("/box/0/1/2", "/box/two"), &|_| {
        fs::rename(host_path(&fixture, "/box/0/1/2"), host_path(&fixture, "/box/0/away")).expect("renamed");
        fs::create_dir(host_path(&fixture, "/box/0/1/2")).expect("created");
    });
    assert_eq!(outcome, "changed");
}

#[test]
fn link_copied_to_another_file_system_makes_its_directories_be_checked_again() {
    let (fixture, view) = fixture();
    view.symlink(b"../../x", &tree_path("/box/side/deep/l"), &NO_CONDITIONS).expect("stays inside");
    let outcome = recheck_after(&fixture, ("/box/0/1/2", "/box/two"), &|other| {
        let (source, stat) = other.removal_slot(TreeOperation::Move, &tree_path("/box/side/deep")).expect("there");
        let target = other.create_slot(&tree_path("/box/0/1/2/deep")).expect("there");
        let copied = other.copy_cross_device(&source, &stat, &target).expect("copied");
        other.commit_cross_device(copied, &source, &target, OverwriteMode::Refuse, &NO_CONDITIONS).expect("moved");
    });
    assert_eq!(outcome, "changed");
}

#[test]
fn directory_above_source_or_target_that_was_moved_refuses_the_move() {
    let interfere: &dyn Fn(&View) = &|other| rename(other, "/box/0/1", "/box/one");
    let (fixture, view) = fixture();
    view.symlink(b"../../x", &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("stays inside");
    for (moved, expected) in [
        (("/box/0/1/2", "/box/side/2"), "absent"),
        (("/box/0/1/2/l", "/box/0/other/l"), "absent"),
        (("/box/side/deep", "/box/0/1/deep"), "no parent"),
        (("/box/side/deep", "/box/0/1/2/deep"), "no parent"),
    ] {
        assert_eq!(recheck_after(&fixture, moved, interfere), expected, "{moved:?}");
        rename(&view, "/box/one", "/box/0/1");
    }
}

#[test]
fn link_that_was_replaced_after_its_check_is_judged_by_its_present_text() {
    for (text, expected) in [("x", "confirmed, may exchange"), ("../../../x", "forbidden")] {
        let (fixture, view) = fixture();
        view.symlink(b"../x", &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("stays inside");
        let outcome = recheck_after(&fixture, ("/box/0/1/2/l", "/box/side/l"), &|other| {
            other.remove_file(&tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("removed");
            other.symlink(text.as_bytes(), &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("stays inside");
        });
        assert_eq!(outcome, expected, "{text}");
    }
}

#[test]
fn replaced_entry_is_exchanged_only_where_its_links_may_be_at_the_path_of_the_source() {
    let (fixture, view) = fixture();
    let moved = ("/box/side", "/box/0/1/2");
    let link = |text: &'static [u8]| {
        move |other: &View| other.symlink(text, &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("stays inside")
    };
    assert_eq!(recheck_after(&fixture, moved, &|_| {}), "confirmed, may exchange");
    assert_eq!(recheck_after(&fixture, moved, &link(b"x")), "confirmed", "a link that nobody has checked");
    assert_eq!(recheck_after(&fixture, moved, &|_| {}), "confirmed, may exchange", "now it is checked");
    view.remove_file(&tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("removed");
    link(b"../../../secret")(&view);
    assert_eq!(recheck_after(&fixture, moved, &|_| {}), "confirmed", "it would lead out for a moment");
    assert_eq!(recheck_after(&fixture, ("/box/side", "/box/0/1/2/l"), &|_| {}), "confirmed", "the link itself");
    // Within one directory no link gets another destination.
    assert_eq!(recheck_after(&fixture, ("/box/0/other", "/box/0/1"), &|_| {}), "confirmed, may exchange");
}

#[test]
fn boundary_of_a_replaced_directory_is_that_of_the_source() {
    let fixture = TreeFixture::new(&["/box/a/b/d", "/other/a/new"]);
    fixture.create_user("alice", &[("/box", Permission::RW), ("/other/a", Permission::RW)]);
    let moved = ("/other/a/new", "/box/a/b/d");
    assert_eq!(recheck_after(&fixture, moved, &|_| {}), "confirmed, may exchange");
    let view = fixture.view("alice");
    view.symlink(b"../../x", &tree_path("/box/a/b/d/l"), &NO_CONDITIONS).expect("stays within /box");
    assert_eq!(recheck_after(&fixture, moved, &|_| {}), "confirmed", "from /other/a/new it would lead to /other");
}

#[test]
fn directory_stays_while_an_entry_below_may_be_restored() {
    let (fixture, view) = fixture();
    let pinned = view.shared().link_moves.lock_exclusive().pin(&tree_path("/box/0/1/2/sub"));
    for from in ["/box/0/1/2/sub", "/box/0/1/2", "/box/0/1", "/box/0"] {
        assert_eq!(recheck_after(&fixture, (from, "/box/moved"), &|_| {}), "changed", "{from}");
    }
    assert_eq!(recheck_after(&fixture, ("/box/0/other", "/box/moved"), &|_| {}), "confirmed, may exchange");
    drop(pinned);
    assert_eq!(recheck_after(&fixture, ("/box/0", "/box/moved"), &|_| {}), "confirmed, may exchange");
}

#[test]
fn link_is_not_created_in_a_directory_that_was_moved_since_its_check() {
    let (fixture, view) = fixture();
    let slot = view.create_slot(&tree_path("/box/0/1/2/l")).expect("may be created");
    view.check_new_link(&slot, b"../../../x").expect("stays inside");
    rename(&fixture.view("alice"), "/box/0/1/2", "/box/two");
    assert_eq!(outcome_name(view.create_link(&slot, b"../../../x")), "no parent");
    assert!(fs::symlink_metadata(host_path(&fixture, "/box/two/l")).is_err());
}

#[test]
fn copy_to_another_file_system_is_not_put_into_a_directory_that_was_moved() {
    let (fixture, view) = fixture();
    view.symlink(b"../../../x", &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("stays inside");
    let (source, stat) = view.removal_slot(TreeOperation::Move, &tree_path("/box/0/1/2")).expect("there");
    let target = view.create_slot(&tree_path("/box/side/deep/2")).expect("there");
    let copied = view.copy_cross_device(&source, &stat, &target).expect("copied");
    rename(&fixture.view("alice"), "/box/side/deep", "/box/deep");
    let moved = view.commit_cross_device(copied, &source, &target, OverwriteMode::Refuse, &NO_CONDITIONS);
    assert_eq!(outcome_name(moved), "no parent");
    assert!(fs::symlink_metadata(host_path(&fixture, "/box/deep/2")).is_err());
    assert!(fs::symlink_metadata(host_path(&fixture, "/box/0/1/2/l")).is_ok(), "the source stays");
}

#[test]
fn boundary_of_a_moved_link_is_that_of_its_new_path() {
    let fixture = TreeFixture::new(&["/box/a/b", "/other/a/b"]);
    fixture.create_user("alice", &[("/box", Permission::RW), ("/other/a", Permission::RW)]);
    let view = fixture.view("alice");
    let rename = |from: &str, to: &str| {
        outcome_name(view.rename(&tree_path(from), &tree_path(to), OverwriteMode::Refuse, &NO_CONDITIONS))
    };
    for path in ["/box/a/b/l", "/box/a/b/d/l"] {
        let _ = view.create_directory(&tree_path("/box/a/b/d"), &AttributeChanges::default(), &NO_CONDITIONS);
        view.symlink(b"../../x", &tree_path(path), &NO_CONDITIONS).expect("stays within /box");
    }
    assert_eq!(rename("/box/a/b/l", "/other/a/b/l"), "forbidden", "it would lead to /other");
    assert_eq!(rename("/box/a/b/d", "/other/a/d"), "forbidden", "with its directory");
    assert_eq!(rename("/box/a/b/d", "/other/a/b/d"), "ok", "it stays within /other/a");
    symlink("../../../other/a/x", host_path(&fixture, "/box/a/b/foreign")).expect("link");
    assert_eq!(rename("/box/a/b/foreign", "/other/a/b/foreign"), "absent", "no link of the scope");
}
