//! No link leads out.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::domain::Permission;
use crate::tree::{Attributes, EditMode, Kind, Overwrite, Timestamp};

const RW: Permission = Permission::RW;

fn house() -> (House, View) {
    let house = House::new(&["/box/sub", "/secret"]);
    house.user("alice", &[("/box", RW)]);
    write(&house, "/box/file", "mine");
    write(&house, "/secret/file", "secret");
    let view = house.view("alice");
    (house, view)
}

#[test]
fn links_that_lead_out_are_absent_in_every_way() {
    let (house, view) = house();
    put(&view, "/box/x", "x").expect("staging is there");
    let secret = host(&house, "/secret/file");
    symlink(&secret, host(&house, "/box/absolute")).expect("link");
    symlink("../secret/file", host(&house, "/box/out")).expect("link");
    symlink("../secret", host(&house, "/box/folder")).expect("link");
    symlink("sub/../../secret/file", host(&house, "/box/round")).expect("link");
    symlink("../../../../../../etc/passwd", host(&house, "/box/far")).expect("link");
    symlink("../.patgate", host(&house, "/box/staging")).expect("link");
    symlink("/proc/self/root", host(&house, "/box/magic")).expect("link");
    symlink("out", host(&house, "/box/chain")).expect("link");
    let reached = ["/box/absolute", "/box/out", "/box/round", "/box/far", "/box/staging", "/box/magic", "/box/chain"];
    for path in reached.into_iter().chain(["/box/folder", "/box/folder/file", "/box/magic/etc/passwd"]) {
        assert_eq!(said(view.stat(&at(path))), "absent", "{path}");
        assert_eq!(said(view.link_stat(&at(path))), "absent", "{path}");
        assert_eq!(said(get(&view, path)), "absent", "{path}");
        assert_eq!(said(view.read_link(&at(path))), "absent", "{path}");
        assert_eq!(said(view.remove_file(&at(path), &NONE)), "absent", "{path}");
        assert_eq!(said(view.rename(&at(path), &at("/box/new"), Overwrite::No, &NONE)), "absent", "{path}");
        assert_eq!(said(view.copy(&at(path), &at("/box/new"), true, Overwrite::No, &NONE)), "absent", "{path}");
        assert_ne!(said(view.edit(&at(path), EditMode::default(), &NONE)), "ok", "{path}");
    }
    assert_eq!(names(&view, "/box").expect("list"), ["file", "sub", "x"]);
    let unfollowed: Vec<_> = view.list(&at("/box"), false).expect("list").map(|e| e.expect("entry").name).collect();
    assert_eq!(unfollowed.len(), 3, "{unfollowed:?}");
    assert_eq!(said(put(&view, "/box/folder/new", "x")), "no parent");
    assert_eq!(content(&house, "/secret/file"), "secret");
}

#[test]
fn an_upload_over_a_link_that_leads_out_replaces_the_link() {
    let (house, view) = house();
    symlink("../secret/file", host(&house, "/box/out")).expect("link");
    put(&view, "/box/out", "mine").expect("put");
    assert_eq!(content(&house, "/secret/file"), "secret");
    assert_eq!(content(&house, "/box/out"), "mine");
    assert!(fs::symlink_metadata(host(&house, "/box/out")).expect("there").is_file());
}

#[test]
fn links_that_stay_inside_are_followed_and_name_the_real_place() {
    let (house, view) = house();
    write(&house, "/box/sub/real", "old");
    symlink("sub/real", host(&house, "/box/link")).expect("link");
    symlink("sub", host(&house, "/box/folder")).expect("link");
    assert_eq!(get(&view, "/box/link").expect("read"), "old");
    assert_eq!(get(&view, "/box/folder/real").expect("read"), "old");
    assert_eq!(view.canonical(&at("/box/folder/real")).expect("canonical"), at("/box/sub/real"));
    assert_eq!(view.canonical(&at("/box/folder/none")).expect("canonical"), at("/box/sub/none"));
    assert_eq!(view.read_link(&at("/box/link")).expect("target"), b"sub/real");
    assert_eq!(view.link_stat(&at("/box/link")).expect("stat").kind, Kind::Link);
    put(&view, "/box/link", "new").expect("put");
    assert_eq!(content(&house, "/box/sub/real"), "new");
    assert!(fs::symlink_metadata(host(&house, "/box/link")).expect("there").is_symlink());
    view.remove_file(&at("/box/link"), &NONE).expect("removes the link");
    assert_eq!(content(&house, "/box/sub/real"), "new");
}

#[test]
fn a_write_through_a_link_needs_the_right_where_it_leads() {
    let house = House::new(&["/all/box", "/all/other"]);
    house.user("alice", &[("/all", Permission::R), ("/all/box", Permission::W)]);
    write(&house, "/all/other/file", "old");
    symlink("../other/file", host(&house, "/all/box/link")).expect("link");
    let view = house.view("alice");
    assert_eq!(get(&view, "/all/box/link").expect("read"), "old");
    let touch = Attributes { modified: Some(Timestamp::default()), ..Attributes::default() };
    assert_eq!(said(view.set_attributes(&at("/all/box/link"), &touch, true, &NONE)), "forbidden");
    assert_eq!(view.stat(&at("/all/box/link")).expect("stat").permission, Permission::R);
    put(&view, "/all/box/link", "new").expect("the link is replaced");
    assert_eq!(content(&house, "/all/other/file"), "old");
}

#[test]
fn only_links_that_stay_inside_are_made() {
    let (house, view) = house();
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
        assert_eq!(said(view.symlink(target.as_bytes(), &at("/box/new"), &NONE)), outcome, "{target}");
        let _ = fs::remove_file(host(&house, "/box/new"));
    }
}

/// Makes directories of that depth below `/box` and returns the deepest.
fn deep(view: &View, depth: usize) -> String {
    let path = (0..depth).fold("/box".to_owned(), |path, level| format!("{path}/{level}"));
    for (end, _) in path.match_indices('/').skip(2).chain([(path.len(), "")]) {
        view.make_folder(&at(&path[..end]), &Attributes::default(), &NONE).expect("made");
    }
    path
}

#[test]
fn link_that_would_lead_out_from_its_new_place_is_not_moved() {
    for overwrite in [Overwrite::Yes, Overwrite::No, Overwrite::Posix, Overwrite::File] {
        let (house, view) = house();
        deep(&view, 3);
        view.symlink(b"../../secret/file", &at("/box/0/1/l"), &NONE).expect("stays inside");
        let rename = |from: &str, to: &str| said(view.rename(&at(from), &at(to), overwrite, &NONE));
        assert_eq!(rename("/box/0/1/l", "/box/l"), "forbidden", "the link alone");
        assert_eq!(rename("/box/0/1/l", "/box/0/l"), "forbidden");
        assert_eq!(rename("/box/0/1", "/box/one"), "forbidden", "with its directory");
        assert_eq!(rename("/box/0/1/l", "/box/0/1/k"), "ok", "nowhere new");
        assert_eq!(rename("/box/0/1/k", "/box/0/1/2/l"), "ok", "deeper");
        assert_eq!(rename("/box/0/1/2", "/box/0/two"), "ok", "as deep as it was made");
        assert_eq!(rename("/box/0/two", "/box/two"), "forbidden");
        assert_eq!(rename("/box/0", "/box/zero"), "ok", "a rename in one directory");
        assert_eq!(content(&house, "/secret/file"), "secret");
        assert!(fs::symlink_metadata(host(&house, "/box/zero/two/l")).is_ok());
    }
}

#[test]
fn links_of_an_administrator_move_as_long_as_they_lead_nowhere_new() {
    let (house, view) = house();
    deep(&view, 3);
    symlink("/etc/passwd", host(&house, "/box/0/1/absolute")).expect("link");
    let rename = |from: &str, to: &str| said(view.rename(&at(from), &at(to), Overwrite::No, &NONE));
    assert_eq!(rename("/box/0/1", "/box/one"), "ok", "absolute");
    symlink("../../../secret/file", host(&house, "/box/one/2/out")).expect("link");
    assert_eq!(rename("/box/one/2", "/box/0/2"), "ok", "to where it led");
    assert_eq!(rename("/box/0/2", "/box/2"), "forbidden", "above the root");
    assert_eq!(rename("/box/0/2", "/box/0/two"), "ok");
    assert_eq!(rename("/box/0", "/box/one/0"), "ok", "to what it may reach");
}

#[test]
fn replaced_directory_with_links_never_stands_where_they_lead_out() {
    let (house, view) = house();
    deep(&view, 3);
    view.symlink(b"../../../secret", &at("/box/0/1/2/l"), &NONE).expect("link");
    view.make_folder(&at("/box/new"), &Attributes::default(), &NONE).expect("made");
    view.rename(&at("/box/new"), &at("/box/0/1/2"), Overwrite::Yes, &NONE).expect("replaced");
    assert_eq!(names(&view, "/box/0/1/2").expect("list"), Vec::<String>::new());
    view.symlink(b"../../secret", &at("/box/0/1/l"), &NONE).expect("link");
    view.make_folder(&at("/box/new"), &Attributes::default(), &NONE).expect("made");
    view.rename(&at("/box/new"), &at("/box/0/1/l"), Overwrite::Yes, &NONE).expect("replaced");
    no_debris(&house);
}

#[test]
fn links_that_come_into_a_directory_while_it_moves_never_lead_out() {
    let (house, view) = house();
    deep(&view, 4);
    let stop = AtomicBool::new(false);
    let other = house.view("alice");
    let leads_out = |directory: &str| {
        let links = fs::read_dir(host(&house, directory)).into_iter().flatten().flatten();
        let texts = links.filter_map(|entry| fs::read_link(entry.path()).ok());
        texts.filter(|text| text.starts_with("../..")).count()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (place, text) in [("/box/0/1/2", "../../../secret"), ("/box/2", "inside")] {
                    let link = at(&format!("{place}/l"));
                    let _ = other.symlink(text.as_bytes(), &link, &NONE);
                    let _ = other.rename(&link, &at(&format!("{place}/3/l")), Overwrite::Yes, &NONE);
                    let _ = other.remove_file(&link, &NONE);
                    let _ = other.remove_file(&at(&format!("{place}/3/l")), &NONE);
                }
            }
        });
        for _ in 0..500 {
            let outcome = view.rename(&at("/box/0/1/2"), &at("/box/2"), Overwrite::No, &NONE);
            if outcome.is_ok() {
                assert_eq!(leads_out("/box/2") + leads_out("/box/2/3"), 0);
                while let Err(error) = view.rename(&at("/box/2"), &at("/box/0/1/2"), Overwrite::No, &NONE) {
                    assert!(matches!(error, Error::Precondition), "{error}");
                }
            } else {
                assert!(matches!(said(outcome), "forbidden" | "precondition"));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_folder_swapped_for_a_link_in_a_race_never_leads_out() {
    let (house, view) = house();
    write(&house, "/box/sub/file", "mine");
    let stop = AtomicBool::new(false);
    let (folder, link, away) = (host(&house, "/box/sub"), host(&house, "/link"), host(&house, "/away"));
    symlink("../secret", &link).expect("link");
    /// Ends the other thread, also when an assertion fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&folder, &away).expect("away");
                fs::rename(&link, &folder).expect("link in");
                fs::rename(&folder, &link).expect("link out");
                fs::rename(&away, &folder).expect("back");
            }
        });
        for turn in 0..2000 {
            match get(&view, "/box/sub/file") {
                Ok(text) => assert_ne!(text, "secret"),
                // Between open and read the folder may have left the scope.
                Err(error) => assert!(matches!(error, Error::Absent | Error::NoParent | Error::Ended(_)), "{error}"),
            }
            let _ = put(&view, "/box/sub/file", &format!("mine {turn}"));
        }
    });
    assert_eq!(content(&house, "/secret/file"), "secret");
    assert_eq!(fs::read_dir(host(&house, "/secret")).expect("list").count(), 1);
}
