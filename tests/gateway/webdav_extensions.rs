//! WebDAV beyond RFC 4918: quota (RFC 4331), extended MKCOL (RFC 5689), privileges (RFC 3744), `Prefer:
//! return=minimal`, digests, and the HTML listing. Partial and resumable uploads are in `partial_uploads.rs`, sync
//! reports in `sync_collection.rs`.

use crate::support::{DavClient, Fixture};

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

fn propfind_body(names: &str) -> String {
    format!("<propfind xmlns=\"DAV:\"><prop>{names}</prop></propfind>")
}

/// The elements of an answer, without what declares namespaces.
fn contains_element(text: &str, name: &str) -> bool {
    text.replace('\n', "").contains(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn propfind_returns_quota_and_privileges_on_request() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/share/a", "content");
    gateway.create_user("alice", &["/share:r"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let names = "<quota-available-bytes/><quota-used-bytes/><owner/><current-user-principal/>\
                 <supported-privilege-set/><current-user-privilege-set/>";
    let text = dav.send("PROPFIND", "/dav/share/", &[("depth", "0")], propfind_body(names)).await.text();
    for name in ["quota-available-bytes", "quota-used-bytes"] {
        let value = text.split(&format!("<D:{name}>")).nth(1).and_then(|rest| rest.split('<').next()).expect("told");
        assert!(value.parse::<u64>().is_ok(), "{name} is {value}");
    }
    assert!(
        contains_element(&text, "<D:owner><D:href>/remote.php/dav/principals/users/alice/</D:href></D:owner>"),
        "{text}"
    );
    assert!(contains_element(&text, "<D:privilege><D:read/></D:privilege>"), "{text}");
    let own_privileges = text.split("<D:current-user-privilege-set>").nth(1).expect("told");
    assert!(!own_privileges.contains("<D:write/>"), "{text}");
    assert!(!text.contains("HTTP/1.1 404"), "{text}");
    let all = dav.send("PROPFIND", "/dav/share/", &[("depth", "0")], "").await.text();
    for name in ["quota", "privilege", "owner", "principal"] {
        assert!(!all.contains(name), "{name} only when named");
    }
    let above = dav.send("PROPFIND", "/dav/", &[("depth", "0")], propfind_body("<quota-used-bytes/>")).await.text();
    assert!(above.contains("404 Not Found"), "a merely visible folder has no quota: {above}");
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_mkcol_is_atomic() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let body = |kind: &str, more: &str| {
        format!(
            "<mkcol xmlns=\"DAV:\" xmlns:x=\"u:x\"><set><prop><resourcetype>{kind}</resourcetype>\
             <displayname>Shown</displayname><x:color>red</x:color>{more}</prop></set></mkcol>"
        )
    };
    let xml = ("content-type", "application/xml; charset=utf-8");
    let created = dav.send("MKCOL", "/dav/new", &[xml], body("<collection/>", "")).await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert!(created.text().contains("mkcol-response") && created.text().contains("200 OK"), "{}", created.text());
    let properties = dav.send("PROPFIND", "/dav/new", &[("depth", "0")], "").await.text();
    assert!(properties.contains(">red<") && properties.contains(">Shown<"), "{properties}");
    for (kind, more, reason) in [
        ("<collection/><x:calendar/>", "", "valid-resourcetype"),
        ("", "", "valid-resourcetype"),
        ("<collection/>", "<getetag>x</getetag>", "cannot-modify-protected-property"),
    ] {
        let refused = dav.send("MKCOL", "/dav/other", &[xml], body(kind, more)).await;
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(refused.text().contains(reason) && refused.text().contains("424 Failed Dependency"), "{reason}");
        assert_eq!(dav.get("/dav/other").await.status, 404, "nothing was made");
    }
    let twice = dav.send("MKCOL", "/dav/new", &[xml], body("<collection/>", "")).await;
    assert_eq!(twice.status, 405);
    assert!(twice.text().contains("<D:resource-must-be-null/>"), "{}", twice.text());
    assert_eq!(dav.send("MKCOL", "/dav/other", &[("content-type", "text/plain")], "x").await.status, 415);
    assert_eq!(dav.send("MKCOL", "/dav/other", &[xml], "<mkcol").await.status, 400);
    let minimal = [xml, ("prefer", "return=minimal")];
    let created = dav.send("MKCOL", "/dav/other", &minimal, body("<collection/>", "")).await;
    assert_eq!((created.status, created.text().as_str()), (201, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn prefer_return_minimal_omits_missing_properties() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let dav = dav_as_alice(&gateway).await;
    let names = propfind_body("<getetag/><x xmlns=\"u:x\"/>");
    let minimal = [("depth", "0"), ("prefer", "respond-async, return=minimal")];
    let short = dav.send("PROPFIND", "/dav/a", &minimal, names.clone()).await;
    assert_eq!((short.status, short.header("preference-applied")), (207, "return=minimal"));
    assert!(short.text().contains("getetag") && !short.text().contains("404"), "{}", short.text());
    let full = dav.send("PROPFIND", "/dav/a", &[("depth", "0")], names).await;
    assert!(full.text().contains("404 Not Found") && full.header("preference-applied").is_empty());
    let none = dav.send("PROPFIND", "/dav/a", &minimal, propfind_body("<x xmlns=\"u:x\"/>")).await.text();
    assert!(contains_element(&none, "<D:propstat><D:prop></D:prop><D:status>HTTP/1.1 200 OK</D:status>"), "{none}");
    let patch =
        |value: &str| format!("<propertyupdate xmlns=\"DAV:\"><set><prop>{value}</prop></set></propertyupdate>");
    let done = dav.send("PROPPATCH", "/dav/a", &minimal, patch("<x xmlns=\"u:x\">1</x>")).await;
    assert_eq!((done.status, done.text().as_str(), done.header("preference-applied")), (200, "", "return=minimal"));
    assert_eq!(dav.send("PROPPATCH", "/dav/a", &minimal, patch("<getetag/>")).await.status, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_digest_is_verified_and_returned_on_request() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let sum = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
    let of_abc = [("repr-digest", sum), ("content-digest", sum), ("content-digest", "md5=:kAFQmDzST7DWlj99KOF/cg==:")];
    for header in of_abc {
        assert_eq!(dav.send("PUT", "/dav/a", &[header], "abd").await.status, 400, "{header:?}");
        assert_eq!(dav.get("/dav/a").await.status, 404, "{header:?}");
    }
    assert_eq!(dav.send("PUT", "/dav/a", &of_abc, "abc").await.status, 201);
    for method in ["GET", "HEAD"] {
        let answer = dav.send(method, "/dav/a", &[("want-repr-digest", "sha-512=3, sha-256=10;x=1, x=10")], "").await;
        assert_eq!(answer.header("repr-digest"), sum, "{method}");
    }
    let part = [("want-repr-digest", "sha-256=1"), ("range", "bytes=0-0")];
    assert_eq!(dav.send("GET", "/dav/a", &part, "").await.header("repr-digest"), sum, "of the whole file");
    for preference in ["sha-256=0", "md5=1", "x=5", "nonsense"] {
        let answer = dav.send("GET", "/dav/a", &[("want-repr-digest", preference)], "").await;
        assert_eq!((answer.status, answer.header("repr-digest")), (200, ""), "{preference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_infinity_listing_is_counted_before_the_response_starts() {
    let gateway = Fixture::start_with(patgate::auth::Clock::system(), |settings| {
        settings.webdav_options.propfind_infinity_entries = 20_000;
    })
    .await;
    for number in 0..15_000 {
        gateway.write_host_file(&format!("/deep/{}/{number:0>100}", number % 3), "");
    }
    let dav = dav_as_alice(&gateway).await;
    let full_listing = dav.send("PROPFIND", "/dav/deep/", &[], "").await;
    assert_eq!((full_listing.status, full_listing.text().matches("<D:response>").count()), (207, 15_004));
    assert!(full_listing.body.len() > 4 << 20, "more than is held at once");
    for number in 0..6_000 {
        gateway.write_host_file(&format!("/deep/more/{number}"), "");
    }
    let endless = dav.send("PROPFIND", "/dav/deep/", &[], "").await;
    assert_eq!(endless.status, 403);
    assert!(endless.text().contains("<D:propfind-finite-depth/>"), "{}", endless.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_listing_sorts_directories_first_then_names() {
    let gateway = Fixture::start().await;
    for name in ["/b", "/C", "/a/x", "/Z/x"] {
        gateway.write_host_file(name, "x".repeat(1536));
    }
    let page = dav_as_alice(&gateway).await.get("/dav/").await.text();
    let positions: Vec<_> = ["a/", "Z/", "b", "C"].map(|name| page.find(&format!(">{name}</a>"))).to_vec();
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{page}");
    assert!(page.contains(">1.5 KiB<"), "{page}");
}
