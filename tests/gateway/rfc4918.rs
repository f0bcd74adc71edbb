//! Requirements of RFC 4918 that no other test covers. `tests/rfc4918.md` lists what the RFC says that a server must
//! do, with the tests that cover it; a test here checks that those exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::support::{DavClient, Fixture, HttpResponse, LOCK_BODY};

const SHARED_LOCK_BODY: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><shared/></lockscope><locktype><write/></locktype></lockinfo>"#;

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

async fn propfind(dav: &DavClient, path: &str, names: &str) -> String {
    let body = format!("<propfind xmlns=\"DAV:\"><prop>{names}</prop></propfind>");
    dav.send("PROPFIND", path, &[("depth", "0")], body).await.text()
}

async fn lock(dav: &DavClient, path: &str, depth: &str, body: &'static str) -> HttpResponse {
    dav.send("LOCK", path, &[("depth", depth), ("timeout", "Second-600")], body).await
}

/// Locks a resource and returns the lock token, with its brackets.
async fn lock_token(dav: &DavClient, path: &str, depth: &str) -> String {
    let answer = lock(dav, path, depth, LOCK_BODY).await;
    assert!(answer.status == 200 || answer.status == 201, "{}", answer.text());
    answer.header("lock-token").to_owned()
}

/// A method, a path, headers and a body.
type WebdavRequest<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str);

async fn is_locked(dav: &DavClient, path: &str) -> bool {
    propfind(dav, path, "<lockdiscovery/>").await.contains("<D:activelock>")
}

/// The names of all functions in the Rust files below a folder.
fn collect_function_names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_function_names(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            let names = text.lines().filter_map(|line| line.split("fn ").nth(1)?.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    collect_function_names(&root.join("src"), &mut known);
    collect_function_names(&root.join("tests"), &mut known);
    let table = std::fs::read_to_string(root.join("tests/rfc4918.md")).expect("the table");
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| section") && !line.starts_with("| ---"))
        .collect();
    assert!(rows.len() > 80, "the table has {} rows", rows.len());
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().expect("a column").trim();
        let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || last.starts_with("not done:"), "no test: {row}");
        for name in names {
            assert!(known.contains(name), "there is no test {name}: {row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_lists_each_member_once_with_uniform_hrefs() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/f/a b", "x");
    gateway.write_host_file("/f/sub/c", "x");
    let dav = dav_as_alice(&gateway).await;
    for path in ["/dav/f", "/dav/f/"] {
        let text = dav.send("PROPFIND", path, &[("depth", "infinity")], "").await.text();
        let mut hrefs: Vec<&str> =
            text.split("<D:response><D:href>").skip(1).filter_map(|r| r.split('<').next()).collect();
        hrefs.sort_unstable();
        assert_eq!(hrefs, ["/dav/f/", "/dav/f/a%20b", "/dav/f/sub/", "/dav/f/sub/c"], "{path}");
        assert_eq!(dav.status("MKCOL", path).await, 405, "with and without its slash it is the same folder");
    }
    assert_eq!(dav.put("/dav/f/new", "x").await.status, 201);
    assert_eq!(dav.status("MKCOL", "/dav/f/made").await, 201);
    let listed = dav.list_hrefs("/dav/f/").await.expect("listed");
    assert_eq!(listed, ["/dav/f/a%20b", "/dav/f/made/", "/dav/f/new", "/dav/f/sub/"], "whatever is made is a member");
    assert_eq!(dav.list_hrefs("/dav/f/made/").await, Ok(vec![]), "a new folder has no members");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_xml_is_refused_and_unknown_elements_are_ignored() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "x");
    let dav = dav_as_alice(&gateway).await;
    for method in ["PROPFIND", "PROPPATCH", "LOCK", "REPORT"] {
        for body in ["<propfind xmlns=\"DAV:\"><allprop></propfind>", "<x", "text", "<a:b/>"] {
            assert_eq!(dav.send(method, "/dav/a", &[("depth", "0")], body).await.status, 400, "{method} {body}");
        }
    }
    assert!(!is_locked(&dav, "/dav/a").await);
    let more = "<more xmlns=\"urn:x\" a=\"b\"><allprop xmlns=\"DAV:\"/>text</more>";
    let body =
        format!("<propfind xmlns=\"DAV:\" x:y=\"z\" xmlns:x=\"urn:x\">{more}<prop>{more}<getetag/></prop></propfind>");
    let found = dav.send("PROPFIND", "/dav/a", &[("depth", "0")], body).await;
    assert!(found.status == 207 && found.text().contains("<D:getetag>"), "{}", found.text());
    let body = format!(
        "<propertyupdate xmlns=\"DAV:\">{more}<set>{more}<prop><x xmlns=\"urn:x\">1</x></prop></set></propertyupdate>"
    );
    assert!(dav.send("PROPPATCH", "/dav/a", &[], body).await.text().contains("200 OK"));
    let body = LOCK_BODY.replace("<lockscope>", &format!("{more}<lockscope>"));
    assert_eq!(dav.send("LOCK", "/dav/a", &[("depth", "0")], body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_property_values_are_preserved_verbatim() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "x");
    let dav = dav_as_alice(&gateway).await;
    let value = "<x:p xmlns:x=\"urn:x\" xml:lang=\"de\" x:k=\"&lt;v&gt;\"> mixed <y xmlns=\"urn:y\"/>\n and  spaced <x:z>&amp;</x:z></x:p>";
    let body = format!("<propertyupdate xmlns=\"DAV:\"><set><prop>{value}</prop></set></propertyupdate>");
    assert!(dav.send("PROPPATCH", "/dav/a", &[], body).await.text().contains("200 OK"));
    let found = propfind(&dav, "/dav/a", "<p xmlns=\"urn:x\"/>").await;
    for part in ["xml:lang=\"de\"", "&lt;v&gt;", " mixed <y xmlns=\"urn:y\"/>", " and  spaced <x:z>&amp;</x:z></x:p>"] {
        assert!(found.contains(part), "{part} in {found}");
    }
    let same_name = propfind(&dav, "/dav/a", "<p xmlns=\"urn:other\"/>").await;
    assert!(same_name.contains("404 Not Found"), "the namespace is part of a name");
    let all = dav.send("PROPFIND", "/dav/a", &[("depth", "0")], "").await.text();
    assert!(all.contains("xml:lang=\"de\""), "allprop tells dead properties: {all}");
    let remove_body =
        "<propertyupdate xmlns=\"DAV:\"><remove><prop><q xmlns=\"urn:x\"/></prop></remove></propertyupdate>";
    assert!(
        dav.send("PROPPATCH", "/dav/a", &[], remove_body).await.text().contains("200 OK"),
        "removing nothing is no error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_file_refuses_every_change_without_its_token() {
    let gateway = Fixture::start().await;
    for path in ["/f/a", "/f/sub/c", "/other"] {
        gateway.write_host_file(path, "old");
    }
    let dav = dav_as_alice(&gateway).await;
    let token = lock_token(&dav, "/dav/f/a", "0").await;
    let folder = lock_token(&dav, "/dav/f/sub", "infinity").await;
    let patch = "<propertyupdate xmlns=\"DAV:\"><set><prop><x xmlns=\"u:\"/></prop></set></propertyupdate>";
    let to = |path: &'static str| vec![("destination", path)];
    let partial = vec![("content-type", "application/x-sabredav-partialupdate"), ("x-update-range", "append")];
    let refused: Vec<WebdavRequest<'_>> = vec![
        ("PUT", "/dav/f/a", vec![], "new"),
        ("PATCH", "/dav/f/a", partial, "new"),
        ("PROPPATCH", "/dav/f/a", vec![], patch),
        ("DELETE", "/dav/f/a", vec![], ""),
        ("DELETE", "/dav/f", vec![], ""),
        ("MOVE", "/dav/f/a", to("/dav/b"), ""),
        ("MOVE", "/dav/f", to("/dav/g"), ""),
        ("MOVE", "/dav/other", to("/dav/f/a"), ""),
        ("COPY", "/dav/other", to("/dav/f/a"), ""),
        ("LOCK", "/dav/f/a", vec![("depth", "0")], LOCK_BODY),
        ("LOCK", "/dav/f", vec![("depth", "infinity")], LOCK_BODY),
        ("PUT", "/dav/f/sub/new", vec![], "new"),
        ("PUT", "/dav/f/sub/c", vec![], "new"),
        ("MKCOL", "/dav/f/sub/new", vec![], ""),
        ("DELETE", "/dav/f/sub/c", vec![], ""),
        ("MOVE", "/dav/other", to("/dav/f/sub/new"), ""),
        ("MOVE", "/dav/f/sub/c", to("/dav/c"), ""),
        ("COPY", "/dav/other", to("/dav/f/sub/new"), ""),
        ("PROPPATCH", "/dav/f/sub/c", vec![], patch),
        ("LOCK", "/dav/f/sub/new", vec![("depth", "0")], LOCK_BODY),
    ];
    for (method, path, headers, body) in &refused {
        let answer = dav.send(method, path, headers, *body).await;
        assert_eq!(answer.status, 423, "{method} {path}");
        let text = answer.text();
        let named = text.contains("<D:href>/dav/f/a</D:href>") || text.contains("<D:href>/dav/f/sub/</D:href>");
        let element = if *method == "LOCK" { "no-conflicting-lock" } else { "lock-token-submitted" };
        assert!(named && text.contains(element), "{method} {path}: {text}");
    }
    let paths: Vec<String> = gateway.all_paths().into_iter().filter(|path| !path.starts_with(".patgate")).collect();
    assert_eq!(paths, ["f", "f/a", "f/sub", "f/sub/c", "other"], "nothing has changed, not even a part");
    assert_eq!(dav.send("PUT", "/dav/f/a", &[("if", &format!("({token})"))], "new").await.status, 204);
    assert_eq!(
        dav.send("PUT", "/dav/f/sub/new", &[("if", &format!("</dav/f/sub> ({folder})"))], "new").await.status,
        201
    );
    assert!(is_locked(&dav, "/dav/f/sub/new").await, "what is made in it is locked with it");
    assert_eq!(dav.send("UNLOCK", "/dav/f/sub/c", &[("lock-token", &folder)], "").await.status, 204);
    for path in ["/dav/f/sub", "/dav/f/sub/c", "/dav/f/sub/new"] {
        assert!(!is_locked(&dav, path).await, "an UNLOCK anywhere in it ends all of the lock: {path}");
    }
    assert_eq!(dav.send("UNLOCK", "/dav/f/a", &[], "").await.status, 400);
    assert_eq!(dav.send("UNLOCK", "/dav/f/sub", &[("lock-token", &folder)], "").await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_compatibility_follows_the_rfc_and_locks_are_atomic() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    for (number, (held_scope, requested_scope, status)) in [
        (LOCK_BODY, LOCK_BODY, 423),
        (LOCK_BODY, SHARED_LOCK_BODY, 423),
        (SHARED_LOCK_BODY, LOCK_BODY, 423),
        (SHARED_LOCK_BODY, SHARED_LOCK_BODY, 200),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/dav/{number}");
        gateway.write_host_file(&path["/dav".len()..], "x");
        let first = lock(&dav, &path, "0", held_scope).await;
        let second = lock(&dav, &path, "0", requested_scope).await;
        assert_eq!((first.status, second.status), (200, status), "{held_scope} {requested_scope}");
        let tokens = [first.header("lock-token"), second.header("lock-token")];
        assert!(tokens[0].starts_with("<urn:uuid:") || tokens[0].starts_with("<opaquelocktoken:"), "{tokens:?}");
        assert_ne!(tokens[0], tokens[1], "every lock has a token of its own");
        let properties = propfind(&dav, &path, "<lockdiscovery/><supportedlock/>").await;
        assert_eq!(properties.matches("<D:activelock>").count(), if status == 200 { 2 } else { 1 });
        assert!(properties.contains("<D:lockentry>"), "{properties}");
    }
    gateway.write_host_file("/f/a", "x");
    gateway.write_host_file("/f/b", "x");
    lock_token(&dav, "/dav/f/b", "0").await;
    assert_eq!(lock(&dav, "/dav/f", "infinity", LOCK_BODY).await.status, 423);
    for path in ["/dav/f", "/dav/f/a"] {
        assert!(!is_locked(&dav, path).await, "a lock that is refused locks nothing: {path}");
    }
    assert_eq!(lock(&dav, "/dav/f", "0", LOCK_BODY).await.status, 200, "a lock of the folder alone is no conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_do_not_move_with_the_resource() {
    let gateway = Fixture::start().await;
    for path in ["/a", "/b", "/f/x"] {
        gateway.write_host_file(path, path);
    }
    let dav = dav_as_alice(&gateway).await;
    let token = lock_token(&dav, "/dav/a", "0").await;
    assert_eq!(dav.send("COPY", "/dav/a", &[("destination", "/dav/copy")], "").await.status, 201);
    assert!(!is_locked(&dav, "/dav/copy").await, "a copy is not locked");
    let with = [("destination", "/dav/moved"), ("if", &format!("({token})"))];
    assert_eq!(dav.send("MOVE", "/dav/a", &with, "").await.status, 201);
    assert!(!is_locked(&dav, "/dav/moved").await, "a lock does not move along");
    assert_eq!(dav.put("/dav/a", "another").await.status, 201, "nor does it stay on what is made there");
    assert!(!is_locked(&dav, "/dav/a").await);
    let folder = lock_token(&dav, "/dav/f", "infinity").await;
    let into = [("destination", "/dav/f/b"), ("if", &*format!("</dav/f> ({folder})"))];
    assert_eq!(dav.send("MOVE", "/dav/b", &into, "").await.status, 201);
    assert!(is_locked(&dav, "/dav/f/b").await, "what comes into a locked folder is locked with it");
    let released_token = lock_token(&dav, "/dav/moved", "0").await;
    assert_eq!(dav.send("DELETE", "/dav/moved", &[("if", &format!("({released_token})"))], "").await.status, 204);
    assert_eq!(dav.put("/dav/moved", "new").await.status, 201, "a lock ends with what it was taken on");
    let target = lock_token(&dav, "/dav/moved", "0").await;
    let over = [("destination", "/dav/moved"), ("if", &*format!("</dav/moved> ({target})"))];
    assert_eq!(dav.send("MOVE", "/dav/copy", &over, "").await.status, 204);
    assert!(is_locked(&dav, "/dav/moved").await, "a lock at the target stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_refresh_covers_the_whole_lock_and_lock_times_out() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.write_host_file("/f/a", "x");
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "30d"]));
    let token = lock_token(&dav, "/dav/f", "infinity").await;
    gateway.clock.advance(Duration::from_secs(500));
    let with = [("if", &*format!("({token})")), ("depth", "0"), ("timeout", "Second-600")];
    let refreshed = dav.send("LOCK", "/dav/f/a", &with, "").await;
    assert_eq!((refreshed.status, refreshed.header("lock-token")), (200, ""));
    let text = refreshed.text();
    assert!(
        text.contains("<D:depth>infinity</D:depth>") && text.contains("Second-600"),
        "Depth is passed over: {text}"
    );
    for depth in ["1", "2", "infinity"] {
        let with = [("if", &*format!("({token})")), ("depth", depth), ("timeout", "Second-600")];
        assert_eq!(dav.send("LOCK", "/dav/f/a", &with, "").await.status, 200, "Depth: {depth}");
    }
    gateway.clock.advance(Duration::from_secs(500));
    assert_eq!(dav.put("/dav/f/a", "new").await.status, 423, "its time began anew");
    gateway.clock.advance(Duration::from_secs(101));
    assert_eq!(dav.put("/dav/f/a", "new").await.status, 204);
    assert!(!is_locked(&dav, "/dav/f").await);
    assert_eq!(dav.send("LOCK", "/dav/f", &with, "").await.status, 412, "what has ended can't be refreshed");
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_on_unmapped_url_creates_an_ordinary_file() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let answer = lock(&dav, "/dav/new", "infinity", LOCK_BODY).await;
    assert_eq!(answer.status, 201);
    assert!(answer.text().contains("<D:lockdiscovery><D:activelock>"), "{}", answer.text());
    let token = answer.header("lock-token").to_owned();
    let listed = dav.send("PROPFIND", "/dav/", &[("depth", "1")], "").await.text();
    assert!(listed.contains("<D:response><D:href>/dav/new</D:href>"), "it is a member of its folder: {listed}");
    assert_eq!(dav.send("MKCOL", "/dav/new", &[("if", &format!("({token})"))], "").await.status, 405);
    assert!(!propfind(&dav, "/dav/new", "<resourcetype/>").await.contains("collection"));
    assert_eq!(dav.send("PUT", "/dav/new", &[("if", &format!("({token})"))], "content").await.status, 204);
    assert_eq!(dav.send("UNLOCK", "/dav/new", &[("lock-token", &token)], "").await.status, 204);
    assert_eq!(dav.get("/dav/new").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn authorization_is_checked_before_conditions() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/open/a", "x");
    gateway.write_host_file("/closed/a", "x");
    gateway.create_user("alice", &["/open:r"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let unauthenticated = gateway.dav("alice", "pgt_wrong");
    for condition in [("if-match", "\"other\""), ("if-none-match", "*"), ("if", "([\"other\"])")] {
        assert_eq!(unauthenticated.send("GET", "/dav/open/a", &[condition], "").await.status, 401, "{condition:?}");
        assert_eq!(dav.send("GET", "/dav/closed/a", &[condition], "").await.status, 404, "{condition:?}");
        assert_eq!(dav.send("PUT", "/dav/closed/a", &[condition], "").await.status, 409, "{condition:?}");
        for (method, body) in [("PUT", "new"), ("DELETE", ""), ("LOCK", LOCK_BODY)] {
            assert_eq!(dav.send(method, "/dav/open/a", &[condition], body).await.status, 403, "{method} {condition:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etag_is_never_reused_at_a_path() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let mut seen = BTreeSet::new();
    for round in 0..5 {
        assert_eq!(dav.put("/dav/a", "same").await.status, 201);
        assert_eq!(dav.put("/dav/b", "same").await.status, 201);
        assert!(seen.insert(dav.get("/dav/a").await.header("etag").to_owned()), "made anew, round {round}");
        let over = [("destination", "/dav/a")];
        assert_eq!(dav.send("MOVE", "/dav/b", &over, "").await.status, 204);
        assert!(seen.insert(dav.get("/dav/a").await.header("etag").to_owned()), "moved over, round {round}");
        assert_eq!(dav.send("COPY", "/dav/a", &[("destination", "/dav/b")], "").await.status, 201);
        assert!(seen.insert(dav.get("/dav/b").await.header("etag").to_owned()), "copied, round {round}");
        assert_eq!(dav.status("DELETE", "/dav/a").await, 204);
        assert_eq!(dav.status("DELETE", "/dav/b").await, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_properties_equal_headers_and_overwritten_properties_are_removed() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a.txt", "content");
    gateway.write_host_file("/old/inner", "x");
    let dav = dav_as_alice(&gateway).await;
    let get = dav.get("/dav/a.txt").await;
    let found = propfind(
        &dav,
        "/dav/a.txt",
        "<getcontentlength/><getcontenttype/><getetag/><getlastmodified/><resourcetype/><creationdate/><lockdiscovery/><supportedlock/>",
    )
    .await;
    for (name, header) in [
        ("getcontentlength", "content-length"),
        ("getcontenttype", "content-type"),
        ("getetag", "etag"),
        ("getlastmodified", "last-modified"),
    ] {
        let expected = format!("<D:{name}>{}</D:{name}>", get.header(header));
        assert!(found.contains(&expected), "{expected} in {found}");
    }
    assert!(!found.contains("404"), "{found}");
    let patch = |name: &str| {
        format!("<propertyupdate xmlns=\"DAV:\"><set><prop><{name} xmlns=\"u:\"/></prop></set></propertyupdate>")
    };
    assert_eq!(dav.send("PROPPATCH", "/dav/old", &[], patch("mark")).await.status, 207);
    assert_eq!(dav.send("PROPPATCH", "/dav/a.txt", &[], patch("own")).await.status, 207);
    for method in ["COPY", "MOVE"] {
        let to = [("destination", "/dav/old")];
        assert_eq!(dav.send(method, "/dav/a.txt", &to, "").await.status, 204);
        let found = propfind(&dav, "/dav/old", "<own xmlns=\"u:\"/><mark xmlns=\"u:\"/>").await;
        assert_eq!(
            (found.matches("200 OK").count(), found.matches("404 Not Found").count()),
            (1, 1),
            "{method} {found}"
        );
        assert_eq!(dav.get("/dav/old/inner").await.status, 404, "{method}");
    }
    assert_eq!(dav.get("/dav/a.txt").await.status, 404);
    for (method, status) in [("COPY", 400), ("MOVE", 400)] {
        assert_eq!(dav.status(method, "/dav/old").await, status, "{method} without Destination");
    }
    assert_eq!(dav.put("/dav/none/a", "x").await.status, 409, "no folder is made on the way");
    assert_eq!(dav.put("/dav/", "x").await.status, 405);
    assert_eq!(dav.send("COPY", "/dav/old", &[("destination", "/dav/old")], "").await.status, 403, "onto itself");
}
