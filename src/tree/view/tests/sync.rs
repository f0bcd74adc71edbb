//! Changes of a directory since a point: told page by page, from what a journal holds.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::Permission;
use crate::store::testing::now;
use crate::tree::{Change, Changes, Etag, Overwrite, Point};

/// What a page tells: members with their entity tags (none: removed), and how it ends.
struct Page {
    members: BTreeMap<String, Option<Option<Etag>>>,
    point: Point,
    truncated: bool,
}

impl Page {
    fn names(&self) -> Vec<&str> {
        self.members.keys().map(String::as_str).collect()
    }
}

fn begin(view: &View, since: Option<Point>, limit: usize) -> Changes {
    let changes = view.changes(&at("/a"), true, since, limit, now());
    changes.expect("begun").expect("the point is known")
}

fn end(mut changes: Changes) -> Page {
    let mut members = BTreeMap::new();
    loop {
        match changes.next_change().expect("told") {
            Change::Member(member) => {
                let path = String::from_utf8_lossy(member.path.as_bytes()).into_owned();
                let name = path.trim_start_matches('/').trim_start_matches("a/").to_owned();
                assert!(members.insert(name, member.entry.map(|entry| entry.etag)).is_none(), "told once");
            }
            Change::End { point, truncated } => return Page { members, point, truncated },
        }
    }
}

fn page(view: &View, since: Option<Point>, limit: usize) -> Page {
    end(begin(view, since, limit))
}

/// A directory that one user may read, with files.
fn directory(files: &[&str]) -> (House, View) {
    let house = House::new(&["/a", "/elsewhere"]);
    house.user("alice", &[("/a", Permission::R)]);
    for file in files {
        write(&house, &format!("/a/{file}"), file);
    }
    let view = house.view("alice");
    (house, view)
}

fn rename(house: &House, from: &str, to: &str) {
    fs::rename(host(house, from), host(house, to)).expect("renamed");
}

fn last(house: &House, view: &View) -> i64 {
    let journal = house.store.find_sync_journal(view.session().token(), &at("/a"), true, now());
    journal.expect("read").expect("there").last_number
}

#[test]
fn member_that_goes_before_it_is_told_and_comes_back_is_told_later() {
    let (house, view) = directory(&["x", "y"]);
    let changes = begin(&view, None, usize::MAX);
    rename(&house, "/a/x", "/elsewhere/x");
    let first = end(changes);
    assert_eq!((first.names(), first.truncated), (vec!["y"], false));
    rename(&house, "/elsewhere/x", "/a/x");
    let second = page(&view, Some(first.point), usize::MAX);
    assert_eq!(second.names(), ["x"], "though it is what the journal knew");
    assert_eq!(page(&view, Some(second.point), usize::MAX).names(), [""; 0]);
}

#[test]
fn member_that_changes_before_it_is_told_is_told_as_it_is_and_again_as_it_becomes() {
    let (house, view) = directory(&["x"]);
    let changes = begin(&view, None, usize::MAX);
    rename(&house, "/a/x", "/elsewhere/x");
    write(&house, "/a/x", "another");
    let first = end(changes);
    rename(&house, "/elsewhere/x", "/a/x");
    let second = page(&view, Some(first.point), usize::MAX);
    assert_eq!(second.names(), ["x"]);
    assert_ne!(first.members["x"], second.members["x"]);
    assert_eq!(second.members["x"], Some(view.stat(&at("/a/x")).expect("there").etag));
}

#[test]
fn removed_member_that_is_back_before_it_is_told_is_told_as_changed() {
    let (house, view) = directory(&["x"]);
    let first = page(&view, None, usize::MAX);
    fs::remove_file(host(&house, "/a/x")).expect("removed");
    let changes = begin(&view, Some(first.point), usize::MAX);
    write(&house, "/a/x", "again");
    let second = end(changes);
    assert!(second.members["x"].is_some(), "{:?}", second.members);
    let third = page(&view, Some(second.point), usize::MAX);
    assert_eq!(third.members, second.members, "the journal learns of it, and tells it once more");
    assert_eq!(page(&view, Some(third.point), usize::MAX).names(), [""; 0]);
}

#[test]
fn page_that_the_journal_fills_compares_nothing_and_the_last_one_does() {
    let (house, view) = directory(&["v", "w", "x", "y"]);
    let first = page(&view, None, 1);
    assert!(first.truncated);
    write(&house, "/a/z", "new");
    let known = last(&house, &view);
    let second = page(&view, Some(first.point), 1);
    assert_eq!((second.truncated, last(&house, &view)), (true, known), "nothing was looked for");
    let rest = page(&view, Some(second.point), 9);
    assert!(!rest.truncated && last(&house, &view) > known);
    let mut told: BTreeSet<&str> = first.names().into_iter().chain(second.names()).collect();
    told.extend(rest.names());
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["v", "w", "x", "y", "z"]);
}

#[test]
fn page_of_members_that_are_gone_from_the_journal_ends() {
    let (house, view) = directory(&["v", "w", "x", "y"]);
    let first = page(&view, None, 1);
    for name in ["v", "w", "x", "y"] {
        fs::remove_file(host(&house, &format!("/a/{name}"))).expect("removed");
    }
    let (mut point, mut told) = (first.point, BTreeMap::new());
    for round in 0.. {
        let page = page(&view, Some(point), 1);
        assert!(page.members.len() <= 1 && round < 9, "{:?}", page.members);
        told.extend(page.members);
        if !page.truncated {
            break;
        }
        assert!(page.point.number > point.number, "each page makes progress");
        point = page.point;
    }
    assert_eq!(told.get(first.names()[0]), Some(&None), "what the client has is removed: {told:?}");
    assert!(told.values().all(Option::is_none), "{told:?}");
}

#[test]
fn initial_pages_tell_no_removed_members_and_stay_valid_when_removals_are_forgotten() {
    let (house, view) = directory(&["old", "older"]);
    for number in 0..50 {
        write(&house, &format!("/a/{number}"), "");
    }
    let before = page(&view, None, usize::MAX).point;
    for number in 0..50 {
        fs::remove_file(host(&house, &format!("/a/{number}"))).expect("removed");
    }
    let stale = |point| {
        let changes = view.changes(&at("/a"), true, Some(point), 9, now());
        changes.expect("asked").is_none()
    };
    assert!(stale(before), "by the comparison of its own report");
    let full = page(&view, None, usize::MAX);
    assert_eq!((full.names(), full.truncated), (vec!["old", "older"], false), "MUST NOT tell of what was removed");
    let first = page(&view, None, 1);
    assert!(first.truncated && first.point.number < first.point.base);
    let second = page(&view, Some(first.point), 1);
    assert_eq!((second.members.len(), second.truncated), (1, false), "{:?}", second.members);
    assert_ne!(first.names(), second.names());
    let of_the_journal = Point { base: first.point.number, ..first.point };
    assert!(stale(of_the_journal), "who was there before can't be told what was removed");
}

#[test]
fn report_reads_so_many_rows_and_is_truncated_there() {
    let (house, view) = directory(&[]);
    for number in 0..1000 {
        write(&house, &format!("/a/{number}"), "");
    }
    let first = page(&view, None, usize::MAX);
    assert_eq!((first.members.len(), first.truncated), (600, true));
    let second = page(&view, Some(first.point), usize::MAX);
    assert_eq!((second.members.len(), second.truncated), (400, false));
}

#[test]
fn directory_with_too_many_members_is_refused_and_its_journal_stays_bounded() {
    let (house, view) = directory(&[]);
    house.tree.ensure_folder(&at("/a/0")).expect("made");
    for number in 0..2000 {
        write(&house, &format!("/a/0/{number}"), "");
    }
    let compare = || view.compare(&at("/a"), true, now());
    for round in 1..4 {
        assert!(matches!(compare(), Err(Error::NoSpace)));
        let journal = house.store.find_sync_journal(view.session().token(), &at("/a"), true, now());
        let rows = house.store.count_sync_entries(journal.expect("read").expect("there").id).expect("read");
        assert!(rows <= 4000, "{rows}");
        // All members have other names now.
        rename(&house, &format!("/a/{}", round - 1), &format!("/a/{round}"));
    }
    fs::remove_file(host(&house, "/a/3/0")).expect("removed");
    compare().expect("few enough");
}

#[test]
fn cancelled_work_ends_at_the_next_batch() {
    let (house, view) = directory(&["x"]);
    let mut changes = view.changes(&at("/a"), true, None, 9, now()).expect("begun").expect("known");
    let other = house.view("alice");
    view.cancellation().on_drop().disarm();
    assert!(view.cancellation().check().is_ok(), "what is done is not cancelled");
    drop(view.cancellation().on_drop());
    assert!(matches!(changes.next_change(), Err(Error::Ended(_))));
    assert!(matches!(view.compare(&at("/a"), true, now()), Err(Error::Ended(_))));
    assert!(other.compare(&at("/a"), true, now()).is_ok());
}

#[test]
fn cancelled_copy_leaves_nothing() {
    let house = House::new(&["/a"]);
    house.user("alice", &[("/", Permission::RW)]);
    write(&house, "/a/x", "content");
    let view = house.view("alice");
    drop(view.cancellation().on_drop());
    for source in ["/a", "/a/x"] {
        let copied = view.copy(&at(source), &at("/b"), true, Overwrite::No, &Claim::none());
        assert!(matches!(copied, Err(Error::Ended(_))), "{source}");
    }
    let other = house.view("alice");
    assert!(other.stat(&at("/b")).is_err());
    assert!(other.copy(&at("/a"), &at("/b"), true, Overwrite::No, &Claim::none()).is_ok());
}

#[test]
fn listing_waits_for_no_comparison() {
    let (house, view) = directory(&["x"]);
    let first = view.sync_point(&at("/a"), now()).expect("a point");
    write(&house, "/a/y", "new");
    let held = view.shared().journals.hold(&[&at(view.session().token().as_str()).join(&at("/a"))]);
    assert_eq!(view.sync_point(&at("/a"), now()).expect("a point"), first);
    drop(held);
    assert!(view.sync_point(&at("/a"), now()).expect("a point").number > first.number);
}
