//! What WebDAV clients rely on, method by method: ETags, conditions, ranges, PROPFIND, PROPPATCH, LOCK, COPY and MOVE.
//! Sentences of RFC 4918 that no client here needs are in `rfc4918.rs`, extensions in `webdav_extensions.rs`, reports
//! of particular clients in `bug_reports/`.

use std::time::UNIX_EPOCH;

use crate::support::{DavClient, Fixture, HttpResponse, send_raw, token_id};

const LOCK_BODY: &str = r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>me</owner></lockinfo>"#;
const SHARED_LOCK_BODY: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><shared/></lockscope><locktype><write/></locktype></lockinfo>"#;

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

/// A client whose token may write files of a mebibyte at most.
fn dav_with_size_limit(gateway: &Fixture) -> DavClient {
    gateway.create_user("alice", &["/:rw"]);
    gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "--max-file-size", "1MiB"]))
}

fn propfind_body(names: &str) -> String {
    format!("<propfind xmlns=\"DAV:\"><prop>{names}</prop></propfind>")
}

async fn propfind(dav: &DavClient, path: &str, depth: &str, names: &str) -> HttpResponse {
    dav.send("PROPFIND", path, &[("depth", depth)], propfind_body(names)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_options_answers_the_same_for_every_path() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let mut answers = Vec::new();
    for path in ["/dav/", "/dav/a", "/dav/nothing", "/dav/a/../b", "/node/6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11/"] {
        let request = format!("OPTIONS {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.http);
        let answer = String::from_utf8_lossy(&send_raw(gateway.http, request.as_bytes()).await).into_owned();
        let lines: Vec<String> = answer.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
        answers.push(lines);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let dav = dav_as_alice(&gateway).await;
    let answer = dav.send("OPTIONS", "/dav/", &[], "").await;
    assert_eq!(
        (answer.status, answer.header("dav"), answer.header("ms-author-via")),
        (200, "1, 2, 3, extended-mkcol, sabredav-partialupdate", "DAV")
    );
    assert!(answer.header("allow").contains("PROPFIND"));
    assert_eq!(dav.status("TRACE", "/dav/a").await, 405);
    assert_eq!(dav.status("BREW", "/dav/a").await, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn etag_is_strong_and_identical_in_put_get_and_propfind() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let put = dav.put("/dav/a.txt", "one").await;
    assert_eq!(put.status, 201);
    let tag = put.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let get = dav.get("/dav/a.txt").await;
    assert_eq!((get.header("etag"), get.header("content-type")), (&*tag, "text/plain"));
    let head = dav.send("HEAD", "/dav/a.txt", &[], "").await;
    for name in ["etag", "last-modified", "content-type", "content-length", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert!(
        propfind(&dav, "/dav/a.txt", "0", "<getetag/>").await.text().contains(&format!("<D:getetag>{tag}</D:getetag>"))
    );
    for name in ["content-security-policy", "x-content-type-options"] {
        assert!(!get.header(name).is_empty(), "{name}");
    }
    let response =
        [("<x xmlns=\"u:\">1</x>", ""), ("<getlastmodified>Sat, 03 Feb 2001 04:05:06 GMT</getlastmodified>", "")];
    for (property, _) in response {
        let body = format!("<propertyupdate xmlns=\"DAV:\"><set><prop>{property}</prop></set></propertyupdate>");
        assert_eq!(dav.send("PROPPATCH", "/dav/a.txt", &[], body).await.status, 207);
        assert_eq!(dav.get("/dav/a.txt").await.header("etag"), tag, "after {property}");
    }
    assert_eq!(dav.send("MOVE", "/dav/a.txt", &[("destination", "/dav/b.txt")], "").await.status, 201);
    assert_eq!(dav.get("/dav/b.txt").await.header("etag"), tag, "after a rename");
    let mut seen = vec![tag];
    for content in ["two", "one", "two"] {
        let tag = dav.put("/dav/b.txt", content).await.header("etag").to_owned();
        assert!(!seen.contains(&tag), "within one tick of the clock");
        seen.push(tag);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_concurrent_if_none_match_uploads_wins() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    for round in 0..20 {
        let path = format!("/dav/file-{round}");
        let upload = |content: &'static str| {
            let (dav, path) = (dav.clone(), path.clone());
            tokio::spawn(async move { dav.send("PUT", &path, &[("if-none-match", "*")], content).await.status })
        };
        let tasks: Vec<_> = ["one", "two", "three", "four"].map(upload).into_iter().collect();
        let mut statuses = Vec::new();
        for task in tasks {
            statuses.push(task.await.expect("done"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 412, 412, 412]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_headers_are_honoured_on_reads_and_writes() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let tag = dav.put("/dav/a", "one").await.header("etag").to_owned();
    let date = dav.get("/dav/a").await.header("last-modified").to_owned();
    let read = [
        (("if-none-match", &*tag), 304),
        (("if-none-match", "*"), 304),
        (("if-none-match", "\"other\""), 200),
        (("if-modified-since", &date), 304),
        (("if-match", &tag), 200),
        (("if-match", "\"other\""), 412),
        (("if-unmodified-since", "Sat, 03 Feb 2001 04:05:06 GMT"), 412),
        (("if", &*format!("([{tag}])")), 200),
        (("if", "([\"other\"])"), 412),
    ];
    for (header, status) in read {
        let answer = dav.send("GET", "/dav/a", &[header], "").await;
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304), "{header:?}");
    }
    let refused = [
        ("if-none-match", "*"),
        ("if-none-match", &*tag),
        ("if-match", "\"other\""),
        ("if-match", &*format!("W/{tag}")),
        ("if-unmodified-since", "Sat, 03 Feb 2001 04:05:06 GMT"),
        ("if", "([\"other\"])"),
        ("if", "(<urn:uuid:no-such-lock>)"),
        ("if", &*format!("(Not [{tag}])")),
        ("if", "</dav/b> ([\"other\"])"),
    ];
    for header in refused {
        for (method, more) in [
            ("PUT", None),
            ("DELETE", None),
            ("MOVE", Some(("destination", "/dav/c"))),
            ("COPY", Some(("destination", "/dav/c"))),
        ] {
            let headers: Vec<_> = [Some(header), more].into_iter().flatten().collect();
            assert_eq!(dav.send(method, "/dav/a", &headers, "two").await.status, 412, "{method} {header:?}");
        }
    }
    assert_eq!(dav.get("/dav/a").await.text(), "one");
    assert_eq!(dav.send("PUT", "/dav/a", &[("if-match", &tag)], "two").await.status, 204);
    assert_eq!(dav.send("PUT", "/dav/new", &[("if-match", "*")], "new").await.status, 412);
    assert_eq!(dav.get("/dav/new").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_ranges_return_exactly_the_requested_bytes() {
    let gateway = Fixture::start().await;
    let content: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
    gateway.write_host_file("/a", &content);
    let dav = dav_as_alice(&gateway).await;
    let tag = dav.send("HEAD", "/dav/a", &[], "").await.header("etag").to_owned();
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=100-299", 100..300),
        ("bytes=-5", 699_995..700_000),
        ("bytes=1000-", 1000..700_000),
        ("bytes=262143-524288", 262_143..524_289),
    ] {
        let answer = dav.send("GET", "/dav/a", &[("range", range), ("if-range", &tag)], "").await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {}-{}/700000", expected.start, expected.end - 1));
        assert_eq!(answer.header("content-length"), expected.len().to_string());
        assert!(answer.body == content[expected], "{range}");
    }
    for condition in ["\"other\"", &format!("W/{tag}"), "Sat, 03 Feb 2001 04:05:06 GMT"] {
        let answer = dav.send("GET", "/dav/a", &[("range", "bytes=0-9"), ("if-range", condition)], "").await;
        assert_eq!((answer.status, answer.body.len()), (200, content.len()), "{condition}");
    }
    let none = dav.send("GET", "/dav/a", &[("range", "bytes=0-9"), ("if-none-match", &tag)], "").await;
    assert_eq!((none.status, none.body.len()), (304, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn x_oc_mtime_and_oc_checksum_are_honoured() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let sum = [("oc-checksum", "SHA1:a9993e364706816aba3e25717850c26c9cd0d89d"), ("x-oc-mtime", "981173106")];
    let put = dav.send("PUT", "/dav/a", &sum, "abc").await;
    assert_eq!((put.status, put.header("x-oc-mtime")), (201, "accepted"));
    assert_eq!(put.header("oc-etag"), put.header("etag"));
    assert_eq!(dav.get("/dav/a").await.header("last-modified"), "Sat, 03 Feb 2001 04:05:06 GMT");
    assert_eq!(dav.send("PUT", "/dav/a", &sum, "abd").await.status, 400, "another content");
    let large = "x".repeat(3 << 20);
    assert_eq!(dav.send("PUT", "/dav/a", &sum, large).await.status, 400, "another content, in blocks");
    assert_eq!(dav.get("/dav/a").await.text(), "abc");
    assert_eq!(dav.send("PUT", "/dav/a", &[("x-oc-mtime", "soon")], "abd").await.status, 400);
    let created = dav.send("MKCOL", "/dav/f", &[("x-oc-mtime", "981173106")], "").await;
    assert_eq!((created.status, created.header("x-oc-mtime")), (201, "accepted"));
    let modified = |path: &str| {
        let time = gateway.host_path(path).metadata().and_then(|m| m.modified()).expect("a time");
        time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    };
    assert_eq!(modified("/f"), 981_173_106);
    let body = "<propertyupdate xmlns=\"DAV:\"><set><prop><Z:Win32LastModifiedTime xmlns:Z=\"urn:schemas-microsoft-com:\">\
        Sun, 04 Feb 2001 04:05:06 GMT</Z:Win32LastModifiedTime></prop></set></propertyupdate>";
    let patched = dav.send("PROPPATCH", "/dav/a", &[], body).await;
    assert!(patched.text().contains("HTTP/1.1 200 OK"), "{}", patched.text());
    assert_eq!(modified("/a"), 981_259_506);
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_is_refused_before_the_body() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "old");
    gateway.create_host_directory("/folder");
    let dav = dav_with_size_limit(&gateway);
    let send_head = async |path: &str, authorization: &str, more: &str| {
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {authorization}\r\nExpect: 100-continue\r\n{more}\r\n\r\n",
            gateway.http
        );
        first_line_status(&gateway, &request).await
    };
    let small = "Content-Length: 3";
    assert_eq!(send_head("/dav/a", "Basic d3Jvbmc6d3Jvbmc=", small).await, 401);
    assert_eq!(send_head("/dav/folder", dav.authorization(), small).await, 405);
    assert_eq!(send_head("/dav/none/b", dav.authorization(), small).await, 409);
    assert_eq!(send_head("/dav/a", dav.authorization(), "Content-Length: 3\r\nIf-None-Match: *").await, 412);
    assert_eq!(send_head("/dav/a", dav.authorization(), "Content-Length: 2000000").await, 413);
    assert_eq!(send_head("/dav/a", dav.authorization(), "Content-Length: 3\r\nContent-Range: bytes 2-0/3").await, 400);
    assert_eq!(send_head("/dav/a", dav.authorization(), small).await, 100);
    assert_eq!(dav.get("/dav/a").await.text(), "old");
}

/// The status of the first line that comes back.
async fn first_line_status(gateway: &Fixture, request: &str) -> u16 {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = tokio::net::TcpStream::connect(gateway.http).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.expect("a line");
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn body_above_the_size_limit_changes_nothing() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "old");
    let dav = dav_with_size_limit(&gateway);
    let long = vec![0u8; 1_100_000];
    assert_eq!(dav.put("/dav/a", long.clone()).await.status, 413);
    let chunked = [
        format!("PUT /dav/a HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n", gateway.http, dav.authorization())
            .into_bytes(),
        format!("Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", long.len()).into_bytes(),
        long,
        b"\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    let answer = send_raw(gateway.http, &chunked).await;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{:.100}", String::from_utf8_lossy(&answer));
    assert_eq!(dav.get("/dav/a").await.text(), "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn propfind_returns_found_missing_and_property_names() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/f/a&b.txt", "content");
    let dav = dav_as_alice(&gateway).await;
    let answer = propfind(
        &dav,
        "/dav/f",
        "1",
        "<displayname/><getcontentlength/><resourcetype/><x xmlns=\"u:\"/><quota-available-bytes/>",
    )
    .await;
    let text = answer.text();
    assert_eq!(answer.status, 207);
    let folder = text.split("</D:response>").next().expect("the folder");
    assert!(folder.contains("<D:href>/dav/f/</D:href>") && folder.contains("<D:collection/>"), "{folder}");
    assert!(folder.contains("<D:quota-available-bytes>"), "{folder}");
    let missing = "<D:propstat><D:prop><D:getcontentlength/><x:x xmlns:x=\"u:\"/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>";
    assert!(folder.contains(missing), "{folder}");
    let file = text.split("</D:response>").nth(1).expect("the file");
    assert!(file.contains("<D:href>/dav/f/a%26b.txt</D:href>"), "{file}");
    assert!(file.contains("<D:displayname>a&amp;b.txt</D:displayname><D:getcontentlength>7</D:getcontentlength><D:resourcetype></D:resourcetype>"), "{file}");
    let names = dav
        .send("PROPFIND", "/dav/f/a&b.txt", &[("depth", "0")], "<propfind xmlns=\"DAV:\"><propname/></propfind>")
        .await
        .text();
    assert!(names.contains("<D:getetag/>") && !names.contains("quota"), "{names}");
    for (depth, status) in [("2", 400), ("", 400), ("0", 207), ("1", 207), ("infinity", 207)] {
        assert_eq!(dav.send("PROPFIND", "/dav/f", &[("depth", depth)], "").await.status, status, "{depth}");
    }
    let id = propfind(&dav, "/dav/f", "0", "<node-id xmlns=\"urn:patgate\"/>").await.text();
    assert!(id.contains(&format!("<P:node-id>{}</P:node-id>", gateway.node_id("/f"))), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_listing_is_complete_and_depth_infinity_beyond_the_limit_is_refused() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/long");
    for number in 0..10_001 {
        std::fs::write(gateway.host_path(&format!("/long/file-{number}")), "").expect("a file");
    }
    let dav = dav_as_alice(&gateway).await;
    assert_eq!(dav.list_hrefs("/dav/long").await.map(|list| list.len()), Ok(10_001));
    let endless = dav.send("PROPFIND", "/dav/", &[("depth", "infinity")], "").await;
    assert_eq!(endless.status, 403);
    assert!(endless.text().contains("<D:propfind-finite-depth/>"), "{}", endless.text());
    gateway.write_host_file("/short/a/b/c", "");
    std::os::unix::fs::symlink("..", gateway.host_path("/short/a/up")).expect("a link");
    let deep = dav.send("PROPFIND", "/dav/short", &[], "").await;
    assert_eq!((deep.status, deep.text().matches("<D:response>").count()), (207, 5), "{}", deep.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn proppatch_is_atomic() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let dav = dav_as_alice(&gateway).await;
    let update = |inner: &str| format!("<propertyupdate xmlns=\"DAV:\" xmlns:x=\"u:x\">{inner}</propertyupdate>");
    let set = update("<set><prop><x:a><b>1 &lt; 2</b></x:a></prop></set>");
    assert_eq!(dav.send("PROPPATCH", "/dav/a", &[], set).await.status, 207);
    let mixed = update(
        "<remove><prop><x:a/></prop></remove><set><prop><getetag>1</getetag><getlastmodified>Sat, 03 Feb 2001 04:05:06 GMT</getlastmodified></prop></set>",
    );
    let answer = dav.send("PROPPATCH", "/dav/a", &[], mixed).await;
    let text = answer.text();
    assert_eq!(text.matches("424 Failed Dependency").count(), 2, "{text}");
    assert!(text.contains("403 Forbidden") && text.contains("<D:cannot-modify-protected-property/>"), "{text}");
    assert_ne!(dav.get("/dav/a").await.header("last-modified"), "Sat, 03 Feb 2001 04:05:06 GMT");
    let found = propfind(&dav, "/dav/a", "0", "<a xmlns=\"u:x\"/>").await.text();
    assert!(found.contains("<x:a xmlns:x=\"u:x\"><b xmlns=\"DAV:\">1 &lt; 2</b></x:a>"), "{found}");
    assert_eq!(dav.send("COPY", "/dav/a", &[("destination", "/dav/b")], "").await.status, 201);
    assert!(propfind(&dav, "/dav/b", "0", "<a xmlns=\"u:x\"/>").await.text().contains("1 &lt; 2"), "copied along");
    let removed = update("<remove><prop><x:a/></prop></remove>");
    assert_eq!(dav.send("PROPPATCH", "/dav/a", &[], removed).await.status, 207);
    assert!(propfind(&dav, "/dav/a", "0", "<a xmlns=\"u:x\"/>").await.text().contains("404 Not Found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_excludes_others_and_its_token_refreshes_and_unlocks_it() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/f/a", "content");
    let dav = dav_as_alice(&gateway).await;
    let bob = gateway.dav("bob", &gateway.create_user_and_token("bob", "/:rw"));
    let lock_response = dav.send("LOCK", "/dav/f/a", &[("depth", "0"), ("timeout", "Second-600")], LOCK_BODY).await;
    assert_eq!(lock_response.status, 200);
    let token = lock_response.header("lock-token").to_owned();
    assert!(
        lock_response.text().contains("Second-600") || lock_response.text().contains("Second-599"),
        "{}",
        lock_response.text()
    );
    assert!(lock_response.text().contains(">me</"), "{}", lock_response.text());
    let conflict = bob.send("LOCK", "/dav/f/a", &[("depth", "0")], LOCK_BODY).await;
    assert_eq!(conflict.status, 423);
    assert!(conflict.text().contains("<D:no-conflicting-lock>"), "{}", conflict.text());
    let bare = token.trim_matches(['<', '>']);
    assert!(!propfind(&bob, "/dav/f/a", "0", "<lockdiscovery/>").await.text().contains(bare), "another's token");
    assert!(propfind(&dav, "/dav/f/a", "0", "<lockdiscovery/>").await.text().contains(bare), "one's own token");
    let with = format!("({token})");
    for (client, header, status) in
        [(&bob, None, 423), (&bob, Some(&with), 423), (&dav, None, 423), (&dav, Some(&with), 204)]
    {
        let headers: Vec<_> = header.map(|value| ("if", value.as_str())).into_iter().collect();
        assert_eq!(client.send("PUT", "/dav/f/a", &headers, "new").await.status, status, "{header:?}");
    }
    assert_eq!(bob.status("DELETE", "/dav/f").await, 423, "a lock inside");
    let refreshed = dav.send("LOCK", "/dav/f/a", &[("if", &with), ("timeout", "Second-1200")], "").await;
    assert_eq!((refreshed.status, refreshed.header("lock-token")), (200, ""));
    assert_eq!(dav.send("LOCK", "/dav/f/a", &[("if", "(<urn:uuid:other>) (Not <DAV:no-lock>)")], "").await.status, 412);
    assert_eq!(dav.send("LOCK", "/dav/f/a", &[], "").await.status, 400);
    assert_eq!(bob.send("UNLOCK", "/dav/f/a", &[("lock-token", &token)], "").await.status, 403);
    assert_eq!(dav.send("UNLOCK", "/dav/f", &[("lock-token", &token)], "").await.status, 409);
    assert_eq!(dav.send("UNLOCK", "/dav/f/a", &[("lock-token", &token)], "").await.status, 204);
    assert_eq!(bob.put("/dav/f/a", "bob's").await.status, 204);
    for client in [&dav, &bob] {
        assert_eq!(client.send("LOCK", "/dav/f", &[("depth", "infinity")], SHARED_LOCK_BODY).await.status, 200);
    }
    assert_eq!(dav.send("LOCK", "/dav/f/a", &[("depth", "0")], LOCK_BODY).await.status, 423);
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_on_unmapped_url_creates_an_empty_file() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let answer = dav.send("LOCK", "/dav/new", &[("depth", "0")], LOCK_BODY).await;
    assert_eq!(answer.status, 201);
    assert_eq!(dav.get("/dav/new").await.body.len(), 0);
    assert_eq!(dav.send("LOCK", "/dav/none/new", &[("depth", "0")], LOCK_BODY).await.status, 409);
    assert_eq!(dav.send("LOCK", "/dav/new", &[("depth", "1")], LOCK_BODY).await.status, 400);
    assert_eq!(dav.send("LOCK", "/dav/other", &[], "<lockinfo xmlns=\"DAV:\"/>").await.status, 400);
    assert_eq!(dav.get("/dav/other").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn lockroot_above_the_scope_is_shown_as_the_root() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/t/f/a", "content");
    let dav = dav_as_alice(&gateway).await;
    assert_eq!(dav.send("LOCK", "/dav/t", &[("depth", "infinity")], LOCK_BODY).await.status, 200);
    let root = format!("/node/{}", gateway.node_id("/t/f"));
    let refused = dav.put(&format!("{root}/a"), "new").await;
    assert_eq!(refused.status, 423);
    assert!(refused.text().contains(&format!("<D:href>{root}/</D:href>")), "{}", refused.text());
    let found = propfind(&dav, &format!("{root}/a"), "0", "<lockdiscovery/>").await.text();
    assert!(found.contains(&format!("<D:lockroot><D:href>{root}/</D:href></D:lockroot>")), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_and_move_statuses_follow_rfc_4918() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/f/a", "a");
    gateway.write_host_file("/f/sub/b", "b");
    gateway.write_host_file("/other", "other");
    let dav = dav_as_alice(&gateway).await;
    let send = async |method: &str, from: &str, to: &str, more: &[(&str, &str)]| {
        let to = dav.url(to);
        let headers: Vec<_> = more.iter().copied().chain([("destination", to.as_str())]).collect();
        dav.send(method, from, &headers, "").await.status
    };
    assert_eq!(send("COPY", "/dav/f", "/dav/g/", &[]).await, 201);
    assert_eq!(dav.get("/dav/g/sub/b").await.text(), "b");
    assert_eq!(send("COPY", "/dav/f/", "/dav/g", &[("overwrite", "F")]).await, 412);
    assert_eq!(send("COPY", "/dav/f", "/dav/h", &[("depth", "0")]).await, 201);
    assert_eq!(dav.list_hrefs("/dav/h").await, Ok(vec![]));
    assert_eq!(send("COPY", "/dav/f", "/dav/h", &[("depth", "1")]).await, 400);
    assert_eq!(send("COPY", "/dav/f", "/dav/h", &[("overwrite", "X")]).await, 400);
    assert_eq!(send("MOVE", "/dav/f", "/dav/h", &[("depth", "0")]).await, 400);
    assert_eq!(send("MOVE", "/dav/f/a", "/dav/none/a", &[]).await, 409);
    assert_eq!(send("MOVE", "/dav/none", "/dav/x", &[]).await, 404);
    assert_eq!(send("MOVE", "/dav/other", "/dav/h", &[]).await, 204);
    assert_eq!(dav.get("/dav/h").await.text(), "other");
    assert_eq!(send("MOVE", "/dav/g", "/dav/h", &[("overwrite", "F")]).await, 412);
    assert_eq!(send("MOVE", "/dav/g", "/dav/h", &[]).await, 204);
    assert_eq!(dav.get("/dav/h/a").await.text(), "a");
    assert_eq!(dav.send("DELETE", "/dav/h", &[("depth", "1")], "").await.status, 400);
    assert_eq!(dav.status("DELETE", "/dav/h/").await, 204);
    assert_eq!(dav.status("DELETE", "/dav/h").await, 404);
    assert_eq!(dav.status("MKCOL", "/dav/f").await, 405);
    assert_eq!(dav.status("MKCOL", "/dav/none/f").await, 409);
    assert_eq!(dav.send("MKCOL", "/dav/new", &[], "<x/>").await.status, 415);
    assert_eq!(dav.status("MKCOL", "/dav/.patgate").await, 403);
    assert_eq!(dav.get("/dav/.patgate/x").await.status, 404);
    assert_eq!(dav.put("/dav/.patgate/x", "x").await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_invalid_in_utf8_or_xml_are_listed_and_accessible() {
    use std::os::unix::ffi::OsStrExt;
    let gateway = Fixture::start().await;
    for name in [&b"a\xffb"[..], b"c\x01d", "\u{fffe}".as_bytes(), b"<&\">"] {
        std::fs::write(gateway.root().join(std::ffi::OsStr::from_bytes(name)), name).expect("a file");
    }
    let dav = dav_as_alice(&gateway).await;
    let listed = dav.list_hrefs("/dav/").await.expect("a listing");
    assert_eq!(listed, ["/dav/%3C%26%22%3E", "/dav/%EF%BF%BE", "/dav/a%FFb", "/dav/c%01d"]);
    for href in listed {
        assert_eq!(dav.get(&href).await.status, 200, "{href}");
    }
    let text = dav.send("PROPFIND", "/dav/", &[("depth", "1")], "").await.text();
    let fits = |c: char| matches!(c, '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}');
    assert!(text.chars().all(fits), "not XML: {text}");
    let page = dav.get("/dav/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().contains("&lt;&amp;&quot;&gt;") && !page.text().contains("<script"), "{}", page.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_aborts_a_stalled_upload() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "old");
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    let mut stream = tokio::net::TcpStream::connect(gateway.http).await.expect("a connection");
    let head = format!("PUT /dav/a HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n", gateway.http, dav.authorization());
    let part = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    stream.write_all((head + &part).as_bytes()).await.expect("sent");
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    let mut line = [0; 12];
    let answered = tokio::time::timeout(std::time::Duration::from_secs(2), stream.read_exact(&mut line)).await;
    answered.expect("within a second, and one to spare").expect("an answer");
    assert_eq!(&line, b"HTTP/1.1 401");
    let other = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    assert_eq!(other.get("/dav/a").await.text(), "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_requests_are_answered() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let send = async |method: &str, path: &str, destination: &str, body: Vec<u8>| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = client.request(method, dav.url(path)).header("authorization", dav.authorization());
        let response = request.header("destination", destination).body(body).send().await.expect("an answer");
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        (response.status().as_u16(), response.bytes().await.expect("a body").to_vec())
    };
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(send("PUT", "/dav/a", "", content.clone()).await.0, 201);
    assert_eq!(send("MOVE", "/dav/a", "http://example.com/dav/b", Vec::new()).await.0, 502);
    assert_eq!(send("MOVE", "/dav/a", &dav.url("/dav/b"), Vec::new()).await.0, 201);
    let (status, got) = send("GET", "/dav/b", "", Vec::new()).await;
    assert!(status == 200 && got == content);
}
