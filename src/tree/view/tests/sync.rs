//! Tests of sync journals: the changes of a directory since a sync token, page by page. The report over WebDAV is
//! tested in `tests/gateway/sync_collection.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::Permission;
use crate::store::SyncEntry;
use crate::store::testing::{FULL, now, take_commits, take_query_count};
use crate::tree::sync_fingerprints::member_state;
use crate::tree::testing::{fail_read_after, take_read_count};
use crate::tree::{Etag, OverwriteMode, SyncChanges, SyncItem, SyncPoint};

/// Content of a page: members with their entity tags (`None`: removed), and its end.
struct ReportedPage {
    members: BTreeMap<String, Option<Option<Etag>>>,
    point: SyncPoint,
    truncated: bool,
}

impl ReportedPage {
    fn names(&self) -> Vec<&str> {
        self.members.keys().map(String::as_str).collect()
    }
}

fn begin_changes(view: &View, since: Option<SyncPoint>, limit: usize) -> SyncChanges {
    let changes = view.changes_since(&tree_path("/a"), true, since, limit, now());
    changes.expect("begun").expect("the point is known")
}

fn collect_page(mut changes: SyncChanges) -> ReportedPage {
    let mut members = BTreeMap::new();
    loop {
        match changes.next_item().expect("sent") {
            SyncItem::Member(member) => {
                let path = String::from_utf8_lossy(member.path.as_bytes()).into_owned();
                let name = path.trim_start_matches('/').trim_start_matches("a/").to_owned();
                assert!(members.insert(name, member.entry.map(|entry| entry.etag)).is_none(), "reported once");
            }
            SyncItem::PageEnd { point, truncated } => return ReportedPage { members, point, truncated },
        }
    }
}

fn report_page(view: &View, since: Option<SyncPoint>, limit: usize) -> ReportedPage {
    collect_page(begin_changes(view, since, limit))
}

/// Creates a directory with files that one user may read.
fn fixture_with_files(files: &[&str]) -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/a", "/elsewhere"]);
    fixture.create_user("alice", &[("/a", Permission::R)]);
    for file in files {
        write_outside_gateway(&fixture, &format!("/a/{file}"), file);
    }
    let view = fixture.view("alice");
    (fixture, view)
}

fn rename(fixture: &TreeFixture, from: &str, to: &str) {
    fs::rename(host_path(fixture, from), host_path(fixture, to)).expect("renamed");
}

fn last_change_number(fixture: &TreeFixture, view: &View) -> i64 {
    let journal = fixture.store.find_sync_journal(view.session().token(), &tree_path("/a"), true, now());
    journal.expect("read").expect("there").last_number
}

#[test]
fn member_removed_before_report_and_restored_is_reported_later() {
    let (fixture, view) = fixture_with_files(&["x", "y"]);
    let changes = begin_changes(&view, None, usize::MAX);
    rename(&fixture, "/a/x", "/elsewhere/x");
    let first = collect_page(changes);
    assert_eq!((first.names(), first.truncated), (vec!["y"], false));
    rename(&fixture, "/elsewhere/x", "/a/x");
    let second = report_page(&view, Some(first.point), usize::MAX);
    assert_eq!(second.names(), ["x"], "though it is what the journal knew");
    assert_eq!(report_page(&view, Some(second.point), usize::MAX).names(), [""; 0]);
}

#[test]
fn member_changed_before_report_is_reported_now_and_again_later() {
    let (fixture, view) = fixture_with_files(&["x"]);
    let changes = begin_changes(&view, None, usize::MAX);
    rename(&fixture, "/a/x", "/elsewhere/x");
    write_outside_gateway(&fixture, "/a/x", "another");
    let first = collect_page(changes);
    rename(&fixture, "/elsewhere/x", "/a/x");
    let second = report_page(&view, Some(first.point), usize::MAX);
    assert_eq!(second.names(), ["x"]);
    assert_ne!(first.members["x"], second.members["x"]);
    assert_eq!(second.members["x"], Some(view.stat(&tree_path("/a/x")).expect("there").etag));
}

#[test]
fn removed_member_restored_before_report_is_reported_as_changed() {
    let (fixture, view) = fixture_with_files(&["x"]);
    let first = report_page(&view, None, usize::MAX);
    fs::remove_file(host_path(&fixture, "/a/x")).expect("removed");
    let changes = begin_changes(&view, Some(first.point), usize::MAX);
    write_outside_gateway(&fixture, "/a/x", "again");
    let second = collect_page(changes);
    assert!(second.members["x"].is_some(), "{:?}", second.members);
    let third = report_page(&view, Some(second.point), usize::MAX);
    assert_eq!(third.members, second.members, "the journal learns of it, and tells it once more");
    assert_eq!(report_page(&view, Some(third.point), usize::MAX).names(), [""; 0]);
}

#[test]
fn only_last_page_compares_the_directory() {
    let (fixture, view) = fixture_with_files(&["v", "w", "x", "y"]);
    let first = report_page(&view, None, 1);
    assert!(first.truncated);
    write_outside_gateway(&fixture, "/a/z", "new");
    let known = last_change_number(&fixture, &view);
    let second = report_page(&view, Some(first.point), 1);
    assert_eq!((second.truncated, last_change_number(&fixture, &view)), (true, known), "nothing was looked for");
    let rest = report_page(&view, Some(second.point), 9);
    assert!(!rest.truncated && last_change_number(&fixture, &view) > known);
    let mut reported: BTreeSet<&str> = first.names().into_iter().chain(second.names()).collect();
    reported.extend(rest.names());
    assert_eq!(reported.into_iter().collect::<Vec<_>>(), ["v", "w", "x", "y", "z"]);
}

#[test]
fn pages_of_removed_members_make_progress_and_end() {
    let (fixture, view) = fixture_with_files(&["v", "w", "x", "y"]);
    let first = report_page(&view, None, 1);
    for name in ["v", "w", "x", "y"] {
        fs::remove_file(host_path(&fixture, &format!("/a/{name}"))).expect("removed");
    }
    let (mut point, mut reported) = (first.point, BTreeMap::new());
    for round in 0.. {
        let page = report_page(&view, Some(point), 1);
        assert!(page.members.len() <= 1 && round < 9, "{:?}", page.members);
        reported.extend(page.members);
        if !page.truncated {
            break;
        }
        assert!(page.point.number > point.number, "each page makes progress");
        point = page.point;
    }
    assert_eq!(reported.get(first.names()[0]), Some(&None), "what the client has is removed: {reported:?}");
    assert!(reported.values().all(Option::is_none), "{reported:?}");
}

#[test]
fn initial_sync_omits_removed_members_and_survives_journal_pruning() {
    let (fixture, view) = fixture_with_files(&["old", "older"]);
    for number in 0..50 {
        write_outside_gateway(&fixture, &format!("/a/{number}"), "");
    }
    let before = report_page(&view, None, usize::MAX).point;
    for number in 0..50 {
        fs::remove_file(host_path(&fixture, &format!("/a/{number}"))).expect("removed");
    }
    let stale = |point| {
        let changes = view.changes_since(&tree_path("/a"), true, Some(point), 9, now());
        changes.expect("asked").is_none()
    };
    assert!(stale(before), "by the comparison of its own report");
    let full = report_page(&view, None, usize::MAX);
    assert_eq!((full.names(), full.truncated), (vec!["old", "older"], false), "MUST NOT tell of what was removed");
    let first = report_page(&view, None, 1);
    assert!(first.truncated && first.point.number < first.point.base);
    let second = report_page(&view, Some(first.point), 1);
    assert_eq!((second.members.len(), second.truncated), (1, false), "{:?}", second.members);
    assert_ne!(first.names(), second.names());
    let of_the_journal = SyncPoint { base: first.point.number, ..first.point };
    assert!(stale(of_the_journal), "removals before the base are unknown");
}

#[test]
fn report_is_truncated_at_row_limit() {
    let (fixture, view) = fixture_with_files(&[]);
    for number in 0..1000 {
        write_outside_gateway(&fixture, &format!("/a/{number}"), "");
    }
    let first = report_page(&view, None, usize::MAX);
    assert_eq!((first.members.len(), first.truncated), (600, true));
    let second = report_page(&view, Some(first.point), usize::MAX);
    assert_eq!((second.members.len(), second.truncated), (400, false));
}

#[test]
fn directory_with_too_many_members_is_refused_and_its_journal_stays_bounded() {
    let (fixture, view) = fixture_with_files(&[]);
    fixture.tree.ensure_directory(&tree_path("/a/0")).expect("created");
    for number in 0..2000 {
        write_outside_gateway(&fixture, &format!("/a/0/{number}"), "");
    }
    let compare = || view.compare_with_journal(&tree_path("/a"), true, now());
    for round in 1..4 {
        assert!(matches!(compare(), Err(Error::NoSpace)));
        let journal = fixture.store.find_sync_journal(view.session().token(), &tree_path("/a"), true, now());
        let rows = fixture.store.count_sync_entries(journal.expect("read").expect("there").id).expect("read");
        assert!(rows <= 4000, "{rows}");
        // Every member has another name in the next round.
        rename(&fixture, &format!("/a/{}", round - 1), &format!("/a/{round}"));
    }
    fs::remove_file(host_path(&fixture, "/a/3/0")).expect("removed");
    compare().expect("few enough");
}

#[test]
fn number_recorded_by_cancelled_comparison_is_synced_before_it_is_reported() {
    let (fixture, view) = fixture_with_files(&["x"]);
    let journal = fixture.store.ensure_sync_journal(view.session().token(), &tree_path("/a"), true, now());
    let content_tag = Some(member_state(&view.stat(&tree_path("/a/x")).expect("there")));
    let recorded = SyncEntry { path: b"x".to_vec(), is_directory: false, content_tag };
    fixture.store.record_sync_entries(journal.expect("created").id, &[recorded]).expect("recorded");
    let compare = || view.compare_with_journal(&tree_path("/a"), true, now()).expect("compared");
    take_commits();
    assert_eq!(compare().number, 1, "this comparison records nothing");
    assert!(take_commits().contains(&FULL));
    assert_eq!(compare().number, 1);
    assert!(!take_commits().contains(&FULL), "it is on disk already");
    write_outside_gateway(&fixture, "/a/y", "new");
    assert_eq!(compare().number, 2);
    assert!(take_commits().contains(&FULL));
}

#[test]
fn cancelled_work_ends_at_the_next_batch() {
    let (fixture, view) = fixture_with_files(&["x"]);
    let mut changes = view.changes_since(&tree_path("/a"), true, None, 9, now()).expect("begun").expect("known");
    let other = fixture.view("alice");
    view.cancellation().cancel_on_drop().disarm();
    assert!(view.cancellation().check().is_ok(), "what is done is not cancelled");
    drop(view.cancellation().cancel_on_drop());
    assert!(matches!(changes.next_item(), Err(Error::SessionEnded(_))));
    assert!(matches!(view.compare_with_journal(&tree_path("/a"), true, now()), Err(Error::SessionEnded(_))));
    assert!(other.compare_with_journal(&tree_path("/a"), true, now()).is_ok());
}

#[test]
fn cancelled_copy_leaves_nothing() {
    let fixture = TreeFixture::new(&["/a"]);
    fixture.create_user("alice", &[("/", Permission::RW)]);
    write_outside_gateway(&fixture, "/a/x", "content");
    let view = fixture.view("alice");
    drop(view.cancellation().cancel_on_drop());
    for source in ["/a", "/a/x"] {
        let copied =
            view.copy(&tree_path(source), &tree_path("/b"), true, OverwriteMode::Refuse, &WriteConditions::none());
        assert!(matches!(copied, Err(Error::SessionEnded(_))), "{source}");
    }
    let other = fixture.view("alice");
    assert!(other.stat(&tree_path("/b")).is_err());
    assert!(
        other.copy(&tree_path("/a"), &tree_path("/b"), true, OverwriteMode::Refuse, &WriteConditions::none()).is_ok()
    );
}

#[test]
fn sync_point_does_not_wait_for_comparison() {
    let (fixture, view) = fixture_with_files(&["x"]);
    let first = view.sync_point(&tree_path("/a"), now()).expect("a point");
    write_outside_gateway(&fixture, "/a/y", "new");
    let journal_lock =
        view.shared().journal_locks.lock(&[&tree_path(view.session().token().as_str()).join(&tree_path("/a"))]);
    assert_eq!(view.sync_point(&tree_path("/a"), now()).expect("a point"), first);
    drop(journal_lock);
    assert!(view.sync_point(&tree_path("/a"), now()).expect("a point").number > first.number);
}

#[test]
fn read_error_during_comparison_reports_no_member_as_removed() {
    let (fixture, view) = fixture_with_files(&["x"]);
    fs::create_dir_all(host_path(&fixture, "/a/sub/below")).expect("created");
    write_outside_gateway(&fixture, "/a/sub/below/file", "content");
    let known = report_page(&view, None, usize::MAX);
    assert_eq!(known.names(), ["sub", "sub/below", "sub/below/file", "x"]);
    let mut reads = 0;
    loop {
        fail_read_after(Some(reads));
        let compared = view.compare_with_journal(&tree_path("/a"), true, now());
        if !fail_read_after(None) {
            compared.expect("compared");
            break;
        }
        let reported = report_page(&view, Some(known.point), usize::MAX);
        assert!(reported.names().is_empty(), "read {reads} failed: {:?}", reported.members);
        reads += 1;
    }
    assert!(reads > 4);
}

/// Creates a directory with 500 files, and returns their view.
fn fixture_with_many_files() -> (TreeFixture, View) {
    let (fixture, view) = fixture_with_files(&[]);
    for number in 0..500 {
        write_outside_gateway(&fixture, &format!("/a/{number}"), "old");
    }
    (fixture, view)
}

/// Returns a page, the numbers of reads of the host and of the database that it took, and that of commits.
fn counted_page(view: &View, since: Option<SyncPoint>) -> (ReportedPage, u32, u32, usize) {
    let _ = (take_read_count(), take_query_count(), take_commits());
    let page = report_page(view, since, usize::MAX);
    (page, take_read_count(), take_query_count(), take_commits().len())
}

#[test]
fn report_looks_at_each_member_once_and_asks_the_database_by_batch() {
    let (fixture, view) = fixture_with_many_files();
    let (first, reads, queries, commits) = counted_page(&view, None);
    assert_eq!((first.members.len(), first.truncated), (500, false));
    assert!(reads < 520 && queries < 10 && commits < 5, "first: {reads} reads, {queries} queries, {commits} commits");
    write_outside_gateway(&fixture, "/a/7", "another");
    let (delta, reads, queries, commits) = counted_page(&view, Some(first.point));
    assert_eq!(delta.names(), ["7"]);
    assert!(reads < 520 && queries < 15 && commits < 5, "delta: {reads} reads, {queries} queries, {commits} commits");
    fs::remove_file(host_path(&fixture, "/a/8")).expect("removed");
    let (delta, reads, queries, commits) = counted_page(&view, Some(delta.point));
    assert_eq!((delta.names(), delta.members["8"]), (vec!["8"], None));
    assert!(reads < 520 && queries < 20 && commits < 5, "removal: {reads} reads, {queries} queries, {commits} commits");
    let (delta, reads, queries, _) = counted_page(&view, Some(delta.point));
    assert!(delta.members.is_empty() && reads < 520 && queries < 15, "nothing: {reads} reads, {queries} queries");
}

#[test]
fn report_after_restart_finds_the_same_changes() {
    let (fixture, view) = fixture_with_many_files();
    let first = report_page(&view, None, usize::MAX);
    let journal = first.point.journal;
    let forget = || drop(view.shared().sync_fingerprints.take(journal));
    // What a restart forgets, before and after a member has a row of its own.
    write_outside_gateway(&fixture, "/a/7", "another");
    let mut point = report_page(&view, Some(first.point), usize::MAX).point;
    for number in 20..23 {
        forget();
        write_outside_gateway(&fixture, "/a/7", &format!("content {number}"));
        fs::remove_file(host_path(&fixture, &format!("/a/{number}"))).expect("removed");
        write_outside_gateway(&fixture, &format!("/a/new-{number}"), "new");
        let delta = report_page(&view, Some(point), usize::MAX);
        assert_eq!(delta.names(), [number.to_string().as_str(), "7", format!("new-{number}").as_str()]);
        assert!(delta.members[&number.to_string()].is_none());
        point = delta.point;
    }
    assert_eq!(report_page(&view, None, usize::MAX).members.len(), 500, "three have gone, and three are new");
    assert_eq!(report_page(&view, Some(first.point), usize::MAX).members.len(), 7, "all since then");
}

#[test]
fn comparison_during_first_report_ends_its_page_and_nothing_is_lost() {
    let (fixture, view) = fixture_with_files(&[]);
    for number in 0..590 {
        write_outside_gateway(&fixture, &format!("/a/{number}"), "old");
    }
    let mut changes = begin_changes(&view, None, usize::MAX);
    let SyncItem::Member(member) = changes.next_item().expect("sent") else { panic!("a member") };
    // Of the first batch, which is recorded and not yet sent.
    let changed = member.path.to_string();
    write_outside_gateway(&fixture, &changed, "changed since");
    view.compare_with_journal(&tree_path("/a"), true, now()).expect("compared");
    let first = collect_page(changes);
    assert!(first.truncated && first.members.len() < 590, "{}", first.members.len());
    let second = report_page(&view, Some(first.point), usize::MAX);
    assert!(!second.truncated && second.members.contains_key(changed.trim_start_matches("/a/")));
    let all: BTreeSet<&str> = first.names().into_iter().chain(second.names()).collect();
    assert_eq!(all.len(), 590);
    assert_eq!(report_page(&view, Some(second.point), usize::MAX).names(), [""; 0]);
}

#[test]
fn second_report_without_token_compares_and_reports_in_one_walk() {
    let (fixture, view) = fixture_with_many_files();
    let first = report_page(&view, None, usize::MAX);
    let forget = || drop(view.shared().sync_fingerprints.take(first.point.journal));
    for is_after_restart in [false, true] {
        write_outside_gateway(&fixture, "/a/7", &format!("another {is_after_restart}"));
        let (removed, added) = (format!("{}", 8 + u8::from(is_after_restart)), format!("new-{is_after_restart}"));
        fs::remove_file(host_path(&fixture, &format!("/a/{removed}"))).expect("removed");
        write_outside_gateway(&fixture, &format!("/a/{added}"), "new");
        if is_after_restart {
            forget();
        }
        let (second, reads, queries, commits) = counted_page(&view, None);
        assert_eq!((second.members.len(), second.truncated), (500, false));
        assert!(second.members.values().all(Option::is_some) && second.members.contains_key(&added));
        assert!(reads < 530 && queries < 30 && commits < 6, "{reads} reads, {queries} queries, {commits} commits");
        assert_eq!(report_page(&view, Some(second.point), usize::MAX).names(), [""; 0]);
        let since_first = report_page(&view, Some(first.point), usize::MAX);
        assert!(since_first.members[&removed].is_none() && since_first.members["7"].is_some());
        assert!(since_first.members.contains_key(&added));
    }
}

#[test]
fn comparison_during_second_report_loses_nothing() {
    let (fixture, view) = fixture_with_files(&[]);
    for number in 0..590 {
        write_outside_gateway(&fixture, &format!("/a/{number}"), "old");
    }
    report_page(&view, None, usize::MAX);
    let mut changes = begin_changes(&view, None, usize::MAX);
    let mut walked = BTreeSet::new();
    for _ in 0..500 {
        let SyncItem::Member(member) = changes.next_item().expect("sent") else { panic!("a member") };
        walked.insert(member.path.to_string());
    }
    // One member of the first batch, which was reported, and those of the next, which have to be recorded.
    let reported = walked.first().expect("some").clone();
    fs::remove_file(host_path(&fixture, &reported)).expect("removed");
    for number in 0..590 {
        let path = format!("/a/{number}");
        if !walked.contains(&path) {
            write_outside_gateway(&fixture, &path, "changed since");
        }
    }
    view.compare_with_journal(&tree_path("/a"), true, now()).expect("compared");
    let first = collect_page(changes);
    assert!(first.truncated);
    let second = report_page(&view, Some(first.point), usize::MAX);
    assert_eq!((second.members.len(), second.truncated), (590, false), "all are reported again");
    let name = reported.trim_start_matches("/a/");
    assert!(second.members[name].is_none(), "removed after it was reported");
    let entry = |name: &str| view.stat(&tree_path(&format!("/a/{name}"))).ok().map(|entry| entry.etag);
    assert!(second.members.iter().all(|(name, etag)| *etag == entry(name)));
    assert_eq!(report_page(&view, Some(second.point), usize::MAX).names(), [""; 0]);
}

#[test]
fn member_that_the_walk_of_a_second_report_misses_is_reported_at_its_end() {
    let (fixture, view) = fixture_with_files(&[]);
    fixture.tree.ensure_directory(&tree_path("/a/sub")).expect("created");
    for number in 0..511 {
        write_outside_gateway(&fixture, &format!("/a/{number}"), "old");
    }
    write_outside_gateway(&fixture, "/a/sub/file", "old");
    write_outside_gateway(&fixture, "/a/sub/other", "old");
    report_page(&view, None, usize::MAX);
    let mut changes = begin_changes(&view, None, usize::MAX);
    let mut next_path = || match changes.next_item().expect("sent") {
        SyncItem::Member(member) => Ok(member.path.to_string()),
        SyncItem::PageEnd { point, truncated } => Err((point, truncated)),
    };
    // All that is in `/a` itself, in one batch.
    (0..512).for_each(|_| drop(next_path().expect("a member")));
    rename(&fixture, "/a/sub/file", "/elsewhere/file");
    assert_eq!(next_path().expect("a member"), "/a/sub/other");
    rename(&fixture, "/elsewhere/file", "/a/sub/file");
    assert_eq!(next_path().expect("a member"), "/a/sub/file");
    let (point, truncated) = next_path().expect_err("the end");
    assert!(!truncated);
    assert_eq!(report_page(&view, Some(point), usize::MAX).names(), [""; 0]);
}
