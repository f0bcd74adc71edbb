//! Tests of symbolic links: none leads outside of the tree, whatever is moved, copied or swapped.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::domain::Permission;
use crate::tree::{AttributeChanges, EditMode, EntryKind, OverwriteMode, Timestamp};

const RW: Permission = Permission::RW;

fn fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/box/sub", "/secret"]);
    fixture.create_user("alice", &[("/box", RW)]);
    write_outside_gateway(&fixture, "/box/file", "mine");
    write_outside_gateway(&fixture, "/secret/file", "secret");
    let view = fixture.view("alice");
    (fixture, view)
}

#[test]
fn symlinks_leading_out_are_absent_for_every_operation() {
    let (fixture, view) = fixture();
    put(&view, "/box/x", "x").expect("staging is there");
    let secret = host_path(&fixture, "/secret/file");
    symlink(&secret, host_path(&fixture, "/box/absolute")).expect("link");
    symlink("../secret/file", host_path(&fixture, "/box/out")).expect("link");
    symlink("../secret", host_path(&fixture, "/box/folder")).expect("link");
    symlink("sub/../../secret/file", host_path(&fixture, "/box/round")).expect("link");
    symlink("../../../../../../etc/passwd", host_path(&fixture, "/box/far")).expect("link");
    symlink("../.patgate", host_path(&fixture, "/box/staging")).expect("link");
    symlink("/proc/self/root", host_path(&fixture, "/box/magic")).expect("link");
    symlink("out", host_path(&fixture, "/box/chain")).expect("link");
    let escaping = ["/box/absolute", "/box/out", "/box/round", "/box/far", "/box/staging", "/box/magic", "/box/chain"];
    for path in escaping.into_iter().chain(["/box/folder", "/box/folder/file", "/box/magic/etc/passwd"]) {
        assert_eq!(outcome_name(view.stat(&tree_path(path))), "absent", "{path}");
        assert_eq!(outcome_name(view.link_stat(&tree_path(path))), "absent", "{path}");
        assert_eq!(outcome_name(get(&view, path)), "absent", "{path}");
        assert_eq!(outcome_name(view.read_link(&tree_path(path))), "absent", "{path}");
        assert_eq!(outcome_name(view.remove_file(&tree_path(path), &NO_CONDITIONS)), "absent", "{path}");
        assert_eq!(
            outcome_name(view.rename(&tree_path(path), &tree_path("/box/new"), OverwriteMode::Refuse, &NO_CONDITIONS)),
            "absent",
            "{path}"
        );
        assert_eq!(
            outcome_name(view.copy(
                &tree_path(path),
                &tree_path("/box/new"),
                true,
                OverwriteMode::Refuse,
                &NO_CONDITIONS
            )),
            "absent",
            "{path}"
        );
        assert_ne!(outcome_name(view.edit(&tree_path(path), EditMode::default(), &NO_CONDITIONS)), "ok", "{path}");
    }
    assert_eq!(list_names(&view, "/box").expect("list"), ["file", "sub", "x"]);
    let unfollowed: Vec<_> =
        view.list(&tree_path("/box"), false).expect("list").map(|e| e.expect("entry").name).collect();
    assert_eq!(unfollowed.len(), 3, "{unfollowed:?}");
    assert_eq!(outcome_name(put(&view, "/box/folder/new", "x")), "no parent");
    assert_eq!(read_outside_gateway(&fixture, "/secret/file"), "secret");
}

#[test]
fn upload_over_symlink_leading_out_replaces_the_symlink() {
    let (fixture, view) = fixture();
    symlink("../secret/file", host_path(&fixture, "/box/out")).expect("link");
    put(&view, "/box/out", "mine").expect("put");
    assert_eq!(read_outside_gateway(&fixture, "/secret/file"), "secret");
    assert_eq!(read_outside_gateway(&fixture, "/box/out"), "mine");
    assert!(fs::symlink_metadata(host_path(&fixture, "/box/out")).expect("there").is_file());
}

#[test]
fn contained_symlinks_are_followed_to_canonical_path() {
    let (fixture, view) = fixture();
    write_outside_gateway(&fixture, "/box/sub/real", "old");
    symlink("sub/real", host_path(&fixture, "/box/link")).expect("link");
    symlink("sub", host_path(&fixture, "/box/folder")).expect("link");
    assert_eq!(get(&view, "/box/link").expect("read"), "old");
    assert_eq!(get(&view, "/box/folder/real").expect("read"), "old");
    assert_eq!(view.canonical(&tree_path("/box/folder/real")).expect("canonical"), tree_path("/box/sub/real"));
    assert_eq!(view.canonical(&tree_path("/box/folder/none")).expect("canonical"), tree_path("/box/sub/none"));
    assert_eq!(view.read_link(&tree_path("/box/link")).expect("target"), b"sub/real");
    assert_eq!(view.link_stat(&tree_path("/box/link")).expect("stat").kind, EntryKind::Symlink);
    put(&view, "/box/link", "new").expect("put");
    assert_eq!(read_outside_gateway(&fixture, "/box/sub/real"), "new");
    assert!(fs::symlink_metadata(host_path(&fixture, "/box/link")).expect("there").is_symlink());
    view.remove_file(&tree_path("/box/link"), &NO_CONDITIONS).expect("removes the link");
    assert_eq!(read_outside_gateway(&fixture, "/box/sub/real"), "new");
}

#[test]
fn write_through_symlink_needs_permission_on_its_target() {
    let fixture = TreeFixture::new(&["/all/box", "/all/other"]);
    fixture.create_user("alice", &[("/all", Permission::R), ("/all/box", Permission::W)]);
    write_outside_gateway(&fixture, "/all/other/file", "old");
    symlink("../other/file", host_path(&fixture, "/all/box/link")).expect("link");
    let view = fixture.view("alice");
    assert_eq!(get(&view, "/all/box/link").expect("read"), "old");
    let touch = AttributeChanges { modified: Some(Timestamp::default()), ..AttributeChanges::default() };
    assert_eq!(
        outcome_name(view.set_attributes(&tree_path("/all/box/link"), &touch, true, &NO_CONDITIONS)),
        "forbidden"
    );
    assert_eq!(view.stat(&tree_path("/all/box/link")).expect("stat").permission, Permission::R);
    put(&view, "/all/box/link", "new").expect("the link is replaced");
    assert_eq!(read_outside_gateway(&fixture, "/all/other/file"), "old");
}

#[test]
fn only_contained_symlinks_are_created() {
    let (fixture, view) = fixture();
    for (target, outcome) in [
        ("file", "ok"),
        ("../box/file", "forbidden"),
        ("./sub/.//file", "ok"),
        ("sub/../file", "forbidden"),
        ("sub/./../file", "forbidden"),
        ("none/yet", "ok"),
        ("/box/file", "forbidden"),
        ("../secret/file", "forbidden"),
        ("sub/../../secret", "forbidden"),
        (".patgate/x", "forbidden"),
        ("", "forbidden"),
    ] {
        assert_eq!(
            outcome_name(view.symlink(target.as_bytes(), &tree_path("/box/new"), &NO_CONDITIONS)),
            outcome,
            "{target}"
        );
        let _ = fs::remove_file(host_path(&fixture, "/box/new"));
    }
}

/// Creates nested directories of that depth below `/box`, and returns the deepest.
fn create_nested(view: &View, depth: usize) -> String {
    let path = (0..depth).fold("/box".to_owned(), |path, level| format!("{path}/{level}"));
    for (end, _) in path.match_indices('/').skip(2).chain([(path.len(), "")]) {
        view.create_directory(&tree_path(&path[..end]), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    }
    path
}

#[test]
fn symlink_that_would_lead_out_after_move_is_refused() {
    for overwrite in [OverwriteMode::Replace, OverwriteMode::Refuse, OverwriteMode::Posix, OverwriteMode::FileOnly] {
        let (fixture, view) = fixture();
        create_nested(&view, 3);
        view.symlink(b"../../secret/file", &tree_path("/box/0/1/l"), &NO_CONDITIONS).expect("stays inside");
        let rename = |from: &str, to: &str| {
            outcome_name(view.rename(&tree_path(from), &tree_path(to), overwrite, &NO_CONDITIONS))
        };
        assert_eq!(rename("/box/0/1/l", "/box/l"), "forbidden", "the link alone");
        assert_eq!(rename("/box/0/1/l", "/box/0/l"), "forbidden");
        assert_eq!(rename("/box/0/1", "/box/one"), "forbidden", "with its directory");
        assert_eq!(rename("/box/0/1/l", "/box/0/1/k"), "ok", "nowhere new");
        assert_eq!(rename("/box/0/1/k", "/box/0/1/2/l"), "ok", "deeper");
        assert_eq!(rename("/box/0/1/2", "/box/0/two"), "ok", "as deep as it was made");
        assert_eq!(rename("/box/0/two", "/box/two"), "forbidden");
        assert_eq!(rename("/box/0", "/box/zero"), "ok", "a rename in one directory");
        assert_eq!(read_outside_gateway(&fixture, "/secret/file"), "secret");
        assert!(fs::symlink_metadata(host_path(&fixture, "/box/zero/two/l")).is_ok());
    }
}

#[test]
fn foreign_symlink_moves_while_its_destination_is_unchanged() {
    let (fixture, view) = fixture();
    create_nested(&view, 3);
    symlink("/etc/passwd", host_path(&fixture, "/box/0/1/absolute")).expect("link");
    let rename = |from: &str, to: &str| {
        outcome_name(view.rename(&tree_path(from), &tree_path(to), OverwriteMode::Refuse, &NO_CONDITIONS))
    };
    assert_eq!(rename("/box/0/1", "/box/one"), "ok", "absolute");
    symlink("../../../secret/file", host_path(&fixture, "/box/one/2/out")).expect("link");
    assert_eq!(rename("/box/one/2", "/box/0/2"), "ok", "to where it led");
    assert_eq!(rename("/box/0/2", "/box/2"), "forbidden", "above the root");
    assert_eq!(rename("/box/0/2", "/box/0/two"), "ok");
    assert_eq!(rename("/box/0", "/box/one/0"), "ok", "within the boundary");
}

#[test]
fn replaced_directory_is_never_placed_where_its_symlinks_lead_out() {
    let (fixture, view) = fixture();
    create_nested(&view, 3);
    view.symlink(b"../../../secret", &tree_path("/box/0/1/2/l"), &NO_CONDITIONS).expect("link");
    view.create_directory(&tree_path("/box/new"), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    view.rename(&tree_path("/box/new"), &tree_path("/box/0/1/2"), OverwriteMode::Replace, &NO_CONDITIONS)
        .expect("replaced");
    assert_eq!(list_names(&view, "/box/0/1/2").expect("list"), Vec::<String>::new());
    view.symlink(b"../../secret", &tree_path("/box/0/1/l"), &NO_CONDITIONS).expect("link");
    view.create_directory(&tree_path("/box/new"), &AttributeChanges::default(), &NO_CONDITIONS).expect("created");
    view.rename(&tree_path("/box/new"), &tree_path("/box/0/1/l"), OverwriteMode::Replace, &NO_CONDITIONS)
        .expect("replaced");
    assert_staging_empty(&fixture);
}

#[test]
fn symlinks_added_during_directory_move_never_lead_out() {
    let (fixture, view) = fixture();
    create_nested(&view, 4);
    let stop = AtomicBool::new(false);
    let other = fixture.view("alice");
    let leads_out = |directory: &str| {
        let links = fs::read_dir(host_path(&fixture, directory)).into_iter().flatten().flatten();
        let texts = links.filter_map(|entry| fs::read_link(entry.path()).ok());
        texts.filter(|text| text.starts_with("../..")).count()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (directory, text) in [("/box/0/1/2", "../../../secret"), ("/box/2", "inside")] {
                    let link = tree_path(&format!("{directory}/l"));
                    let _ = other.symlink(text.as_bytes(), &link, &NO_CONDITIONS);
                    let _ = other.rename(
                        &link,
                        &tree_path(&format!("{directory}/3/l")),
                        OverwriteMode::Replace,
                        &NO_CONDITIONS,
                    );
                    let _ = other.remove_file(&link, &NO_CONDITIONS);
                    let _ = other.remove_file(&tree_path(&format!("{directory}/3/l")), &NO_CONDITIONS);
                }
            }
        });
        for _ in 0..500 {
            let outcome =
                view.rename(&tree_path("/box/0/1/2"), &tree_path("/box/2"), OverwriteMode::Refuse, &NO_CONDITIONS);
            if outcome.is_ok() {
                assert_eq!(leads_out("/box/2") + leads_out("/box/2/3"), 0);
                while let Err(error) =
                    view.rename(&tree_path("/box/2"), &tree_path("/box/0/1/2"), OverwriteMode::Refuse, &NO_CONDITIONS)
                {
                    assert!(matches!(error, Error::PreconditionFailed), "{error}");
                }
            } else {
                assert!(matches!(outcome_name(outcome), "forbidden" | "precondition"));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn directory_swapped_for_symlink_in_race_never_leads_out() {
    let (fixture, view) = fixture();
    write_outside_gateway(&fixture, "/box/sub/file", "mine");
    let stop = AtomicBool::new(false);
    let (directory, link, moved_away) =
        (host_path(&fixture, "/box/sub"), host_path(&fixture, "/link"), host_path(&fixture, "/away"));
    symlink("../secret", &link).expect("link");
    /// Stops the other thread, also when an assertion fails.
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&directory, &moved_away).expect("away");
                fs::rename(&link, &directory).expect("link in");
                fs::rename(&directory, &link).expect("link out");
                fs::rename(&moved_away, &directory).expect("back");
            }
        });
        for round in 0..2000 {
            match get(&view, "/box/sub/file") {
                Ok(text) => assert_ne!(text, "secret"),
                // Between open and read the directory may have left the scope.
                Err(error) => {
                    assert!(matches!(error, Error::Absent | Error::NoParent | Error::SessionEnded(_)), "{error}")
                }
            }
            let _ = put(&view, "/box/sub/file", &format!("mine {round}"));
        }
    });
    assert_eq!(read_outside_gateway(&fixture, "/secret/file"), "secret");
    assert_eq!(fs::read_dir(host_path(&fixture, "/secret")).expect("list").count(), 1);
}
