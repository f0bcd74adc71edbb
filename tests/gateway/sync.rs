//! sync-collection (RFC 6578): a client's copy of a folder is kept in step, whoever changes the folder.

use std::collections::BTreeSet;

use crate::support::{Answer, Dav, Fixture};

/// What a report tells: changed hrefs, removed hrefs, whether there is more, and the next token.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    changed: BTreeSet<String>,
    gone: BTreeSet<String>,
    more: bool,
    token: String,
}

pub(crate) async fn ask(dav: &Dav, path: &str, token: &str, level: &str, limit: Option<usize>) -> Answer {
    let limit = limit.map(|most| format!("<limit><nresults>{most}</nresults></limit>")).unwrap_or_default();
    let body = format!(
        "<sync-collection xmlns=\"DAV:\"><sync-token>{token}</sync-token><sync-level>{level}</sync-level>{limit}\
         <prop><getetag/></prop></sync-collection>"
    );
    dav.send("REPORT", path, &[("depth", "0")], body).await
}

async fn sync(dav: &Dav, path: &str, token: &str, level: &str, limit: Option<usize>) -> Told {
    let answer = ask(dav, path, token, level, limit).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let text = answer.text();
    let inner = |part: &str, name: &str| {
        let rest = part.split(&format!("<D:{name}>")).nth(1).expect(name);
        rest.split('<').next().expect("text").to_owned()
    };
    let mut told =
        Told { changed: BTreeSet::new(), gone: BTreeSet::new(), more: false, token: inner(&text, "sync-token") };
    for response in text.split("<D:response>").skip(1) {
        let href = inner(response, "href");
        if response.contains("</D:href><D:status>HTTP/1.1 404") {
            told.gone.insert(href);
        } else if response.contains("507 Insufficient Storage") {
            assert!(response.contains("<D:number-of-matches-within-limits/>") && href == path);
            told.more = true;
        } else {
            told.changed.insert(href);
        }
    }
    told
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_since_a_token_is_told_whoever_changed_it() {
    let mut gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    for name in ["/f/a", "/f/b", "/f/sub/c"] {
        gateway.write(name, name);
    }
    let first = sync(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!((first.changed, first.gone), (set(&["/dav/f/a", "/dav/f/b", "/dav/f/sub/"]), set(&[])));
    let deep = sync(&dav, "/dav/f/", "", "infinite", None).await;
    assert_eq!(deep.changed, set(&["/dav/f/a", "/dav/f/b", "/dav/f/sub/", "/dav/f/sub/c"]));
    let same = sync(&dav, "/dav/f/", &first.token, "1", None).await;
    assert_eq!((same.changed, same.gone, &same.token), (set(&[]), set(&[]), &first.token), "nothing changed");

    assert_eq!(dav.put("/dav/f/a", "changed").await.status, 204);
    std::fs::remove_file(gateway.host("/f/b")).expect("removed");
    gateway.write("/f/new", "by the host");
    gateway.write("/f/sub/d", "by the host");
    assert_eq!(dav.send("MOVE", "/dav/f/sub/c", &[("destination", "/dav/c")], "").await.status, 201);
    gateway.restart().await;
    let dav = gateway.dav("alice", &token);
    let next = sync(&dav, "/dav/f/", &first.token, "1", None).await;
    assert_eq!((next.changed, next.gone), (set(&["/dav/f/a", "/dav/f/new"]), set(&["/dav/f/b"])));
    let below = sync(&dav, "/dav/f/", &deep.token, "infinite", None).await;
    assert_eq!(below.changed, set(&["/dav/f/a", "/dav/f/new", "/dav/f/sub/d"]));
    assert_eq!(below.gone, set(&["/dav/f/b", "/dav/f/sub/c"]), "what moved out counts as removed");

    std::fs::remove_dir_all(gateway.host("/f/sub")).expect("removed");
    gateway.write("/f/b", "again");
    let last = sync(&dav, "/dav/f/", &below.token, "infinite", None).await;
    assert_eq!((last.changed, last.gone), (set(&["/dav/f/b"]), set(&["/dav/f/sub/", "/dav/f/sub/d"])));
    let again = sync(&dav, "/dav/f/", &first.token, "1", None).await;
    assert_eq!(again.changed, set(&["/dav/f/a", "/dav/f/b", "/dav/f/new"]), "an older token is good for long");
    assert_eq!(again.gone, set(&["/dav/f/sub/"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_from_a_token_is_never_told_and_what_becomes_hidden_is_removed() {
    let gateway = Fixture::start().await;
    for name in ["/f/open/a", "/f/closed/b", "/f/other/c"] {
        gateway.write(name, name);
    }
    gateway.user("alice", &["/f/open:r", "/f/other:r"]);
    gateway.user("bob", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.token("alice", &["-e", "1h"]));
    let bob = gateway.dav("bob", &gateway.token("bob", &["-e", "1h"]));
    let first = sync(&dav, "/dav/f/", "", "infinite", None).await;
    let seen = ["/dav/f/open/", "/dav/f/open/a", "/dav/f/other/", "/dav/f/other/c"];
    assert_eq!(first.changed, set(&seen));
    assert_eq!(bob.status("DELETE", "/dav/f/closed/b").await, 204);
    assert_eq!(bob.put("/dav/f/closed/new", "x").await.status, 201);
    let same = sync(&dav, "/dav/f/", &first.token, "infinite", None).await;
    assert_eq!((same.changed, same.gone), (set(&[]), set(&[])));
    gateway.patgate(&["admin", "user", "revoke-grant", "alice", "/f/other"]);
    let less = sync(&dav, "/dav/f/", &first.token, "infinite", None).await;
    assert_eq!((less.changed, less.gone), (set(&[]), set(&["/dav/f/other/", "/dav/f/other/c"])));
    assert_eq!(ask(&bob, "/dav/f/", &first.token, "infinite", None).await.status, 403, "another token's");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_come_in_pieces_and_unknown_tokens_begin_anew() {
    let gateway = Fixture::start().await;
    for number in 0..1500 {
        gateway.write(&format!("/f/{number}"), "");
    }
    let dav = gateway.dav("alice", &gateway.login("alice", "/:rw"));
    let (mut seen, mut token, mut rounds) = (BTreeSet::new(), String::new(), 0);
    loop {
        let told = sync(&dav, "/dav/f/", &token, "1", Some(700)).await;
        assert!(told.changed.len() <= 700);
        assert!(told.changed.is_disjoint(&seen), "none is told twice");
        seen.extend(told.changed);
        (token, rounds) = (told.token, rounds + 1);
        if !told.more {
            break;
        }
    }
    assert_eq!((seen.len(), rounds), (1500, 3));
    let long = sync(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(long.changed.len(), 1500);
    for wrong in ["urn:patgate:sync:99:1", "urn:patgate:sync:1:999999", "urn:x", "urn:patgate:sync:1:-1"] {
        let refused = ask(&dav, "/dav/f/", wrong, "1", None).await;
        assert_eq!(refused.status, 403, "{wrong}");
        assert!(refused.text().contains("<D:valid-sync-token/>"), "{}", refused.text());
    }
    assert_eq!(ask(&dav, "/dav/f/", &token, "infinite", None).await.status, 403, "a token of another depth");
    assert_eq!(ask(&dav, "/dav/f/", "", "2", None).await.status, 400);
    let deep = dav.send(
        "REPORT",
        "/dav/f/",
        &[("depth", "1")],
        "<sync-collection xmlns=\"DAV:\"><sync-level>1</sync-level><prop/></sync-collection>",
    );
    assert_eq!(deep.await.status, 400, "Depth is 0 where there is a sync-level");
    assert_eq!(ask(&dav, "/dav/missing/", "", "1", None).await.status, 404);
    let unknown = dav.send("REPORT", "/dav/f/", &[], "<expand-property xmlns=\"DAV:\"/>").await;
    assert_eq!(unknown.status, 403);
    assert!(unknown.text().contains("<D:supported-report/>"), "{}", unknown.text());
    assert!(ask(&dav, "/dav/f/1", "", "1", None).await.text().contains("<D:supported-report/>"), "a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_tells_its_token_and_its_reports() {
    let gateway = Fixture::start().await;
    gateway.write("/f/a", "");
    let dav = gateway.dav("alice", &gateway.login("alice", "/:rw"));
    let body = "<propfind xmlns=\"DAV:\"><prop><sync-token/><supported-report-set/></prop></propfind>";
    let text = dav.send("PROPFIND", "/dav/f/", &[("depth", "0")], body).await.text();
    assert!(text.contains("<D:report><D:sync-collection/></D:report>"), "{text}");
    let token =
        text.split("<D:sync-token>").nth(1).and_then(|rest| rest.split('<').next()).expect("a token").to_owned();
    gateway.write("/f/b", "");
    assert_eq!(sync(&dav, "/dav/f/", &token, "1", None).await.changed, set(&["/dav/f/b"]));
    let all = dav.send("PROPFIND", "/dav/f/", &[("depth", "0")], "").await.text();
    assert!(!all.contains("sync-token"), "only when it is named");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_asks_with_is_unknown_after_ninety_days() {
    let gateway = Fixture::with_clock_by_hand().await;
    gateway.write("/f/a", "");
    gateway.user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.token("alice", &["-e", "300d"]));
    let days = |count: u64| std::time::Duration::from_secs(count * 24 * 3600);
    let first = sync(&dav, "/dav/f/", "", "1", None).await;
    gateway.clock.advance(days(89));
    let second = sync(&dav, "/dav/f/", &first.token, "1", None).await;
    assert_eq!(second.changed, set(&[]), "it is still known, and in use");
    gateway.clock.advance(days(89));
    let third = sync(&dav, "/dav/f/", &second.token, "1", None).await;
    assert_eq!(third.changed, set(&[]));
    gateway.clock.advance(days(90));
    let refused = ask(&dav, "/dav/f/", &third.token, "1", None).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("<D:valid-sync-token/>"), "{}", refused.text());
    let anew = sync(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(anew.changed, set(&["/dav/f/a"]), "the client begins anew");
    assert_eq!(ask(&dav, "/dav/f/", &third.token, "1", None).await.status, 403, "an old token means nothing then");
}

#[tokio::test(flavor = "multi_thread")]
async fn report_of_nothing_but_removed_members_ends() {
    let gateway = Fixture::start().await;
    for number in 0..600 {
        gateway.write(&format!("/f/{number}"), "");
    }
    gateway.write("/f/stays", "");
    let dav = gateway.dav("alice", &gateway.login("alice", "/f:r"));
    let first = sync(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!(first.changed.len(), 601);
    for number in 0..600 {
        std::fs::remove_file(gateway.host(&format!("/f/{number}"))).expect("removed");
    }
    let initial = sync(&dav, "/dav/f/", "", "1", None).await;
    assert_eq!((initial.changed, initial.gone), (set(&["/dav/f/stays"]), set(&[])), "RFC 6578 section 3.4");
    let limited = sync(&dav, "/dav/f/", "", "1", Some(1)).await;
    assert_eq!((limited.changed, limited.more), (set(&["/dav/f/stays"]), false));
    let (mut token, mut gone, mut more) = (first.token, BTreeSet::new(), true);
    while more {
        let told = sync(&dav, "/dav/f/", &token, "1", Some(250)).await;
        assert!(told.changed.is_empty() && (told.token != token), "each page makes progress");
        gone.extend(told.gone);
        (token, more) = (told.token, told.more);
    }
    assert_eq!(gone.len(), 600);
    assert_eq!(sync(&dav, "/dav/f/", &token, "1", Some(1)).await.gone, set(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn readable_member_of_a_drop_box_is_synchronized() {
    let gateway = Fixture::start().await;
    for name in ["/f/box/hidden", "/f/box/shown/a", "/f/box/letter"] {
        gateway.write(name, name);
    }
    gateway.user("alice", &["/f/box:w", "/f/box/shown:r"]);
    let dav = gateway.dav("alice", &gateway.token("alice", &["-e", "1h"]));
    let first = sync(&dav, "/dav/f/", "", "infinite", None).await;
    assert_eq!(first.changed, set(&["/dav/f/box/", "/dav/f/box/shown/", "/dav/f/box/shown/a"]));
    gateway.write("/f/box/shown/b", "new");
    assert_eq!(dav.put("/dav/f/box/mine", "x").await.status, 201);
    let second = sync(&dav, "/dav/f/", &first.token, "infinite", None).await;
    assert_eq!(
        (second.changed, second.gone),
        (set(&["/dav/f/box/shown/b"]), set(&[])),
        "what is dropped is not listed"
    );
    gateway.patgate(&["admin", "user", "grant", "alice", "/f/box/letter:r"]);
    let third = sync(&dav, "/dav/f/", &second.token, "infinite", None).await;
    assert_eq!(third.changed, set(&["/dav/f/box/letter"]));
    gateway.patgate(&["admin", "user", "revoke-grant", "alice", "/f/box/letter"]);
    gateway.patgate(&["admin", "user", "revoke-grant", "alice", "/f/box/shown"]);
    let fourth = sync(&dav, "/dav/f/", &third.token, "infinite", None).await;
    let hidden = ["/dav/f/box/letter", "/dav/f/box/shown/", "/dav/f/box/shown/a", "/dav/f/box/shown/b"];
    assert_eq!((fourth.changed, fourth.gone), (set(&[]), set(&hidden)), "though it can be asked for by name");
    assert_eq!(dav.send("PROPFIND", "/dav/f/box/letter", &[("depth", "0")], "").await.status, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_behind_a_link_that_replaced_their_directory_are_removed_and_come_back() {
    let gateway = Fixture::start().await;
    for name in ["/f/d/a", "/f/d/e/b", "/f/other"] {
        gateway.write(name, name);
    }
    let dav = gateway.dav("alice", &gateway.login("alice", "/f:r"));
    let first = sync(&dav, "/dav/f/", "", "infinite", None).await;
    let below = set(&["/dav/f/d/a", "/dav/f/d/e/", "/dav/f/d/e/b"]);
    assert!(below.is_subset(&first.changed));
    std::fs::rename(gateway.host("/f/d"), gateway.host("/f/aside")).expect("renamed");
    std::os::unix::fs::symlink("aside", gateway.host("/f/d")).expect("linked");
    let linked = sync(&dav, "/dav/f/", &first.token, "infinite", None).await;
    assert_eq!(linked.gone, below, "a link is not walked through");
    assert!(linked.changed.contains("/dav/f/aside/e/b"));
    assert_eq!(dav.get("/dav/f/d/a").await.status, 200, "though what is behind it can be asked for");
    std::fs::remove_file(gateway.host("/f/d")).expect("removed");
    std::fs::rename(gateway.host("/f/aside"), gateway.host("/f/d")).expect("renamed");
    let back = sync(&dav, "/dav/f/", &linked.token, "infinite", None).await;
    assert_eq!(back.changed, below);
    std::fs::rename(gateway.host("/f/d"), gateway.host("/out")).expect("renamed");
    let out = sync(&dav, "/dav/f/", &back.token, "infinite", None).await;
    assert_eq!(out.gone, &below | &set(&["/dav/f/d/"]), "what left the scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_in_the_place_of_a_directory_is_one_member_that_changed() {
    let gateway = Fixture::start().await;
    gateway.write("/f/x/a", "");
    let dav = gateway.dav("alice", &gateway.login("alice", "/f:rw"));
    let first = sync(&dav, "/dav/f/", "", "infinite", None).await;
    assert_eq!(dav.status("DELETE", "/dav/f/x/").await, 204);
    assert_eq!(dav.put("/dav/f/x", "file").await.status, 201);
    let second = sync(&dav, "/dav/f/", &first.token, "infinite", None).await;
    assert_eq!(second.changed, set(&["/dav/f/x"]));
    assert_eq!(second.gone, set(&["/dav/f/x/a"]), "RFC 6578 section 3.5.1: it is changed, not removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_after_a_restart() {
    let mut gateway = Fixture::start().await;
    for number in 0..5 {
        gateway.write(&format!("/f/{number}"), "");
    }
    let token = gateway.login("alice", "/f:r");
    let mut seen = BTreeSet::new();
    let mut told = sync(&gateway.dav("alice", &token), "/dav/f/", "", "1", Some(2)).await;
    seen.extend(told.changed);
    std::fs::remove_file(gateway.host("/f/3")).expect("removed");
    while told.more {
        gateway.restart().await;
        told = sync(&gateway.dav("alice", &token), "/dav/f/", &told.token, "1", Some(2)).await;
        seen.extend(told.changed);
        seen = &seen - &told.gone;
    }
    assert_eq!(seen, set(&["/dav/f/0", "/dav/f/1", "/dav/f/2", "/dav/f/4"]));
}
