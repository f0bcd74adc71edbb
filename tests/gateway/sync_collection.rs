//! The `sync-collection` report (RFC 6578): which members it lists as changed and as removed, its pages, and the
//! lifetime of sync tokens. Random sequences of the same are in `sync_model.rs`.

use std::collections::BTreeSet;

use crate::support::{DavClient, Fixture, HttpResponse};

/// Content of a sync report: changed hrefs, removed hrefs, whether there are more, and the next token.
#[derive(Debug, PartialEq, Eq)]
struct SyncReport {
    changed: BTreeSet<String>,
    removed: BTreeSet<String>,
    is_truncated: bool,
    sync_token: String,
}

pub(crate) async fn sync_request(
    dav: &DavClient,
    path: &str,
    token: &str,
    level: &str,
    limit: Option<usize>,
) -> HttpResponse {
    let limit = limit.map(|most| format!("<limit><nresults>{most}</nresults></limit>")).unwrap_or_default();
    let body = format!(
        "<sync-collection xmlns=\"DAV:\"><sync-token>{token}</sync-token><sync-level>{level}</sync-level>{limit}\
         <prop><getetag/></prop></sync-collection>"
    );
    dav.send("REPORT", path, &[("depth", "0")], body).await
}

async fn sync_report(dav: &DavClient, path: &str, token: &str, level: &str, limit: Option<usize>) -> SyncReport {
    let answer = sync_request(dav, path, token, level, limit).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let text = answer.text();
    let inner = |part: &str, name: &str| {
        let rest = part.split(&format!("<D:{name}>")).nth(1).expect(name);
        rest.split('<').next().expect("text").to_owned()
    };
    let mut report = SyncReport {
        changed: BTreeSet::new(),
        removed: BTreeSet::new(),
        is_truncated: false,
        sync_token: inner(&text, "sync-token"),
    };
    for response in text.split("<D:response>").skip(1) {
        let href = inner(response, "href");
        if response.contains("</D:href><D:status>HTTP/1.1 404") {
            report.removed.insert(href);
        } else if response.contains("507 Insufficient Storage") {
            assert!(response.contains("<D:number-of-matches-within-limits/>") && href == path);
            report.is_truncated = true;
        } else {
            report.changed.insert(href);
        }
    }
    report
}

fn href_set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_contains_changes_made_by_anyone() {
    let mut gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    for name in ["/f/a", "/f/b", "/f/sub/c"] {
        gateway.write_host_file(name, name);
    }
    let first = sync_report(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!((first.changed, first.removed), (href_set(&["/dav/f/a", "/dav/f/b", "/dav/f/sub/"]), href_set(&[])));
    let deep = sync_report(&dav, "/dav/f/", "", "infinite", None).await;
    assert_eq!(deep.changed, href_set(&["/dav/f/a", "/dav/f/b", "/dav/f/sub/", "/dav/f/sub/c"]));
    let same = sync_report(&dav, "/dav/f/", &first.sync_token, "1", None).await;
    assert_eq!(
        (same.changed, same.removed, &same.sync_token),
        (href_set(&[]), href_set(&[]), &first.sync_token),
        "nothing changed"
    );

    assert_eq!(dav.put("/dav/f/a", "changed").await.status, 204);
    std::fs::remove_file(gateway.host_path("/f/b")).expect("removed");
    gateway.write_host_file("/f/new", "by the host");
    gateway.write_host_file("/f/sub/d", "by the host");
    assert_eq!(dav.send("MOVE", "/dav/f/sub/c", &[("destination", "/dav/c")], "").await.status, 201);
    gateway.restart().await;
    let dav = gateway.dav("alice", &token);
    let next = sync_report(&dav, "/dav/f/", &first.sync_token, "1", None).await;
    assert_eq!((next.changed, next.removed), (href_set(&["/dav/f/a", "/dav/f/new"]), href_set(&["/dav/f/b"])));
    let below = sync_report(&dav, "/dav/f/", &deep.sync_token, "infinite", None).await;
    assert_eq!(below.changed, href_set(&["/dav/f/a", "/dav/f/new", "/dav/f/sub/d"]));
    assert_eq!(below.removed, href_set(&["/dav/f/b", "/dav/f/sub/c"]), "what moved out counts as removed");

    std::fs::remove_dir_all(gateway.host_path("/f/sub")).expect("removed");
    gateway.write_host_file("/f/b", "again");
    let last = sync_report(&dav, "/dav/f/", &below.sync_token, "infinite", None).await;
    assert_eq!((last.changed, last.removed), (href_set(&["/dav/f/b"]), href_set(&["/dav/f/sub/", "/dav/f/sub/d"])));
    let second = sync_report(&dav, "/dav/f/", &first.sync_token, "1", None).await;
    assert_eq!(second.changed, href_set(&["/dav/f/a", "/dav/f/b", "/dav/f/new"]), "an older token is good for long");
    assert_eq!(second.removed, href_set(&["/dav/f/sub/"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_omits_hidden_members_and_removes_newly_hidden_ones() {
    let gateway = Fixture::start().await;
    for name in ["/f/open/a", "/f/closed/b", "/f/other/c"] {
        gateway.write_host_file(name, name);
    }
    gateway.create_user("alice", &["/f/open:r", "/f/other:r"]);
    gateway.create_user("bob", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    let first = sync_report(&dav, "/dav/f/", "", "infinite", None).await;
    let seen = ["/dav/f/open/", "/dav/f/open/a", "/dav/f/other/", "/dav/f/other/c"];
    assert_eq!(first.changed, href_set(&seen));
    assert_eq!(bob.status("DELETE", "/dav/f/closed/b").await, 204);
    assert_eq!(bob.put("/dav/f/closed/new", "x").await.status, 201);
    let same = sync_report(&dav, "/dav/f/", &first.sync_token, "infinite", None).await;
    assert_eq!((same.changed, same.removed), (href_set(&[]), href_set(&[])));
    gateway.run_cli(&["admin", "user", "revoke-grant", "alice", "/f/other"]);
    let less = sync_report(&dav, "/dav/f/", &first.sync_token, "infinite", None).await;
    assert_eq!((less.changed, less.removed), (href_set(&[]), href_set(&["/dav/f/other/", "/dav/f/other/c"])));
    assert_eq!(sync_request(&bob, "/dav/f/", &first.sync_token, "infinite", None).await.status, 403, "another token's");
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_is_paginated_and_unknown_sync_token_is_refused() {
    let gateway = Fixture::start().await;
    for number in 0..1500 {
        gateway.write_host_file(&format!("/f/{number}"), "");
    }
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let (mut seen, mut token, mut rounds) = (BTreeSet::new(), String::new(), 0);
    loop {
        let report = sync_report(&dav, "/dav/f/", &token, "1", Some(700)).await;
        assert!(report.changed.len() <= 700);
        assert!(report.changed.is_disjoint(&seen), "none is told twice");
        seen.extend(report.changed);
        (token, rounds) = (report.sync_token, rounds + 1);
        if !report.is_truncated {
            break;
        }
    }
    assert_eq!((seen.len(), rounds), (1500, 3));
    let long = sync_report(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(long.changed.len(), 1500);
    for wrong in ["urn:patgate:sync:99:1", "urn:patgate:sync:1:999999", "urn:x", "urn:patgate:sync:1:-1"] {
        let refused = sync_request(&dav, "/dav/f/", wrong, "1", None).await;
        assert_eq!(refused.status, 403, "{wrong}");
        assert!(refused.text().contains("<D:valid-sync-token/>"), "{}", refused.text());
    }
    assert_eq!(sync_request(&dav, "/dav/f/", &token, "infinite", None).await.status, 403, "a token of another depth");
    assert_eq!(sync_request(&dav, "/dav/f/", "", "2", None).await.status, 400);
    let deep = dav.send(
        "REPORT",
        "/dav/f/",
        &[("depth", "1")],
        "<sync-collection xmlns=\"DAV:\"><sync-level>1</sync-level><prop/></sync-collection>",
    );
    assert_eq!(deep.await.status, 400, "Depth is 0 where there is a sync-level");
    assert_eq!(sync_request(&dav, "/dav/missing/", "", "1", None).await.status, 404);
    let unknown = dav.send("REPORT", "/dav/f/", &[], "<expand-property xmlns=\"DAV:\"/>").await;
    assert_eq!(unknown.status, 403);
    assert!(unknown.text().contains("<D:supported-report/>"), "{}", unknown.text());
    assert!(sync_request(&dav, "/dav/f/1", "", "1", None).await.text().contains("<D:supported-report/>"), "a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_properties_include_sync_token_and_supported_reports() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/f/a", "");
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let body = "<propfind xmlns=\"DAV:\"><prop><sync-token/><supported-report-set/></prop></propfind>";
    let text = dav.send("PROPFIND", "/dav/f/", &[("depth", "0")], body).await.text();
    assert!(text.contains("<D:report><D:sync-collection/></D:report>"), "{text}");
    let token =
        text.split("<D:sync-token>").nth(1).and_then(|rest| rest.split('<').next()).expect("a token").to_owned();
    gateway.write_host_file("/f/b", "");
    assert_eq!(sync_report(&dav, "/dav/f/", &token, "1", None).await.changed, href_set(&["/dav/f/b"]));
    let all = dav.send("PROPFIND", "/dav/f/", &[("depth", "0")], "").await.text();
    assert!(!all.contains("sync-token"), "only when it is named");
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_sync_token_expires_after_90_days() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.write_host_file("/f/a", "");
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "300d"]));
    let days = |count: u64| std::time::Duration::from_secs(count * 24 * 3600);
    let first = sync_report(&dav, "/dav/f/", "", "1", None).await;
    gateway.clock.advance(days(89));
    let second = sync_report(&dav, "/dav/f/", &first.sync_token, "1", None).await;
    assert_eq!(second.changed, href_set(&[]), "it is still known, and in use");
    gateway.clock.advance(days(89));
    let third = sync_report(&dav, "/dav/f/", &second.sync_token, "1", None).await;
    assert_eq!(third.changed, href_set(&[]));
    gateway.clock.advance(days(90));
    let refused = sync_request(&dav, "/dav/f/", &third.sync_token, "1", None).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("<D:valid-sync-token/>"), "{}", refused.text());
    let new_report = sync_report(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(new_report.changed, href_set(&["/dav/f/a"]), "the client begins anew");
    assert_eq!(
        sync_request(&dav, "/dav/f/", &third.sync_token, "1", None).await.status,
        403,
        "an old token means nothing then"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_of_only_removed_members_terminates() {
    let gateway = Fixture::start().await;
    for number in 0..600 {
        gateway.write_host_file(&format!("/f/{number}"), "");
    }
    gateway.write_host_file("/f/stays", "");
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/f:r"));
    let first = sync_report(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(first.changed.len(), 601);
    for number in 0..600 {
        std::fs::remove_file(gateway.host_path(&format!("/f/{number}"))).expect("removed");
    }
    let initial = sync_report(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(
        (initial.changed, initial.removed),
        (href_set(&["/dav/f/stays"]), href_set(&[])),
        "RFC 6578 section 3.4"
    );
    let limited = sync_report(&dav, "/dav/f/", "", "1", Some(1)).await;
    assert_eq!((limited.changed, limited.is_truncated), (href_set(&["/dav/f/stays"]), false));
    let (mut token, mut removed, mut more) = (first.sync_token, BTreeSet::new(), true);
    while more {
        let report = sync_report(&dav, "/dav/f/", &token, "1", Some(250)).await;
        assert!(report.changed.is_empty() && (report.sync_token != token), "each page makes progress");
        removed.extend(report.removed);
        (token, more) = (report.sync_token, report.is_truncated);
    }
    assert_eq!(removed.len(), 600);
    assert_eq!(sync_report(&dav, "/dav/f/", &token, "1", Some(1)).await.removed, href_set(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_includes_readable_member_of_a_drop_box() {
    let gateway = Fixture::start().await;
    for name in ["/f/box/hidden", "/f/box/shown/a", "/f/box/letter"] {
        gateway.write_host_file(name, name);
    }
    gateway.create_user("alice", &["/f/box:w", "/f/box/shown:r"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let first = sync_report(&dav, "/dav/f/", "", "infinite", None).await;
    assert_eq!(first.changed, href_set(&["/dav/f/box/", "/dav/f/box/shown/", "/dav/f/box/shown/a"]));
    gateway.write_host_file("/f/box/shown/b", "new");
    assert_eq!(dav.put("/dav/f/box/mine", "x").await.status, 201);
    let second = sync_report(&dav, "/dav/f/", &first.sync_token, "infinite", None).await;
    assert_eq!(
        (second.changed, second.removed),
        (href_set(&["/dav/f/box/shown/b"]), href_set(&[])),
        "what is dropped is not listed"
    );
    gateway.run_cli(&["admin", "user", "grant", "alice", "/f/box/letter:r"]);
    let third = sync_report(&dav, "/dav/f/", &second.sync_token, "infinite", None).await;
    assert_eq!(third.changed, href_set(&["/dav/f/box/letter"]));
    gateway.run_cli(&["admin", "user", "revoke-grant", "alice", "/f/box/letter"]);
    gateway.run_cli(&["admin", "user", "revoke-grant", "alice", "/f/box/shown"]);
    let fourth = sync_report(&dav, "/dav/f/", &third.sync_token, "infinite", None).await;
    let hidden = ["/dav/f/box/letter", "/dav/f/box/shown/", "/dav/f/box/shown/a", "/dav/f/box/shown/b"];
    assert_eq!(
        (fourth.changed, fourth.removed),
        (href_set(&[]), href_set(&hidden)),
        "though it can be asked for by name"
    );
    assert_eq!(dav.send("PROPFIND", "/dav/f/box/letter", &[("depth", "0")], "").await.status, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_does_not_follow_a_link_that_replaced_a_directory() {
    let gateway = Fixture::start().await;
    for name in ["/f/d/a", "/f/d/e/b", "/f/other"] {
        gateway.write_host_file(name, name);
    }
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/f:r"));
    let first = sync_report(&dav, "/dav/f/", "", "infinite", None).await;
    let below = href_set(&["/dav/f/d/a", "/dav/f/d/e/", "/dav/f/d/e/b"]);
    assert!(below.is_subset(&first.changed));
    std::fs::rename(gateway.host_path("/f/d"), gateway.host_path("/f/aside")).expect("renamed");
    std::os::unix::fs::symlink("aside", gateway.host_path("/f/d")).expect("linked");
    let linked = sync_report(&dav, "/dav/f/", &first.sync_token, "infinite", None).await;
    assert_eq!(linked.removed, below, "a link is not walked through");
    assert!(linked.changed.contains("/dav/f/aside/e/b"));
    assert_eq!(dav.get("/dav/f/d/a").await.status, 200, "though what is behind it can be asked for");
    std::fs::remove_file(gateway.host_path("/f/d")).expect("removed");
    std::fs::rename(gateway.host_path("/f/aside"), gateway.host_path("/f/d")).expect("renamed");
    let restored = sync_report(&dav, "/dav/f/", &linked.sync_token, "infinite", None).await;
    assert_eq!(restored.changed, below);
    std::fs::rename(gateway.host_path("/f/d"), gateway.host_path("/out")).expect("renamed");
    let out = sync_report(&dav, "/dav/f/", &restored.sync_token, "infinite", None).await;
    assert_eq!(out.removed, &below | &href_set(&["/dav/f/d/"]), "what left the scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_report_lists_file_that_replaced_a_directory_as_changed() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/f/x/a", "");
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/f:rw"));
    let first = sync_report(&dav, "/dav/f/", "", "infinite", None).await;
    assert_eq!(dav.status("DELETE", "/dav/f/x/").await, 204);
    assert_eq!(dav.put("/dav/f/x", "file").await.status, 201);
    let second = sync_report(&dav, "/dav/f/", &first.sync_token, "infinite", None).await;
    assert_eq!(second.changed, href_set(&["/dav/f/x"]));
    assert_eq!(second.removed, href_set(&["/dav/f/x/a"]), "RFC 6578 section 3.5.1: it is changed, not removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_pagination_continues_after_a_restart() {
    let mut gateway = Fixture::start().await;
    for number in 0..5 {
        gateway.write_host_file(&format!("/f/{number}"), "");
    }
    let token = gateway.create_user_and_token("alice", "/f:r");
    let mut seen = BTreeSet::new();
    let mut report = sync_report(&gateway.dav("alice", &token), "/dav/f/", "", "1", Some(2)).await;
    seen.extend(report.changed);
    std::fs::remove_file(gateway.host_path("/f/3")).expect("removed");
    while report.is_truncated {
        gateway.restart().await;
        report = sync_report(&gateway.dav("alice", &token), "/dav/f/", &report.sync_token, "1", Some(2)).await;
        seen.extend(report.changed);
        seen = &seen - &report.removed;
    }
    assert_eq!(seen, href_set(&["/dav/f/0", "/dav/f/1", "/dav/f/2", "/dav/f/4"]));
}
