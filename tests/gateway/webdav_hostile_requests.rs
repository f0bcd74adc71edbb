//! WebDAV requests that have crashed or tricked other servers: nested XML, malformed headers, paths and destinations
//! outside of the root, moves onto an ancestor. Each is answered with the right status, changes nothing, and leaves the
//! server able to answer the next request. Floods of requests are in `tests/resilience`.

use std::os::unix::fs::symlink;

use crate::support::{DavClient, Fixture, LOCK_BODY, send_raw};

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

/// The gateway answers, and serves what it should.
async fn assert_healthy(dav: &DavClient) {
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_xml_is_refused() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let dav = dav_as_alice(&gateway).await;
    let inner = format!("{}{}", "<a>".repeat(2000), "</a>".repeat(2000));
    let wrapped = |name: &str| format!("<D:{name} xmlns:D=\"DAV:\"><D:set><D:prop>{inner}</D:prop></D:set></D:{name}>");
    for (method, body) in [
        ("PROPFIND", inner.clone()),
        ("PROPFIND", wrapped("propfind")),
        ("PROPPATCH", wrapped("propertyupdate")),
        ("LOCK", wrapped("lockinfo")),
        ("PROPFIND", "<a>".repeat(300_000)),
    ] {
        assert_eq!(dav.send(method, "/dav/a", &[("depth", "0")], body).await.status, 400, "{method}");
    }
    let entities =
        "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><propfind xmlns=\"DAV:\">&b;<allprop/></propfind>";
    let refused = dav.send("PROPFIND", "/dav/a", &[("depth", "0")], entities).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("<D:no-external-entities/>"), "{}", refused.text());
    let utf16 = [0xfeff].into_iter().chain(entities.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let refused = dav.send("PROPFIND", "/dav/a", &[("depth", "0")], utf16).await;
    assert_eq!(refused.status, 403, "in UTF-16 too");
    let large = format!("<propfind xmlns=\"DAV:\"><allprop/><!--{}--></propfind>", "x".repeat(1 << 20));
    assert_eq!(dav.send("PROPFIND", "/dav/a", &[("depth", "0")], large).await.status, 413);
    assert_healthy(&dav).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_can_be_locked_but_not_deleted_or_moved() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let dav = dav_as_alice(&gateway).await;
    for _ in 0..2 {
        let answer = dav.send("LOCK", "/dav/", &[("depth", "infinity")], LOCK_BODY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let token = answer.header("lock-token").to_owned();
        assert!(answer.text().contains("<D:lockroot><D:href>/dav/</D:href></D:lockroot>"), "{}", answer.text());
        let refused = dav.put("/dav/b", "b").await;
        assert_eq!(refused.status, 423);
        assert!(refused.text().contains("<D:lock-token-submitted><D:href>/dav/</D:href>"), "{}", refused.text());
        assert_eq!(dav.send("PUT", "/dav/b", &[("if", &format!("</dav/> ({token})"))], "b").await.status / 10, 20);
        let wrong = [("lock-token", "<urn:uuid:00000000-0000-4000-8000-000000000000>")];
        assert_eq!(dav.send("UNLOCK", "/dav/", &wrong, "").await.status, 409);
        assert_eq!(dav.send("UNLOCK", "/dav/", &[("lock-token", &token)], "").await.status, 204);
    }
    assert_eq!(dav.status("DELETE", "/dav/").await, 403);
    assert_eq!(dav.status("DELETE", "/dav").await, 403);
    assert_eq!(dav.send("MOVE", "/dav/", &[("destination", "/dav/x")], "").await.status, 403);
    for method in ["COPY", "MOVE"] {
        assert_eq!(
            dav.send(method, "/dav/a", &[("destination", "/dav/")], "").await.status,
            403,
            "{method} onto the root"
        );
    }
    assert_eq!(dav.get("/dav/a").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_url_root_cannot_be_deleted_or_moved() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/t/folder/a", "content");
    let dav = dav_as_alice(&gateway).await;
    for (path, inside) in [("/t/folder", true), ("/t/folder/a", false)] {
        let root = format!("/node/{}", gateway.node_id(path));
        assert_eq!(dav.status("DELETE", &root).await, 403, "{path}");
        let away = [("destination", &*format!("{root}/b"))];
        assert_eq!(dav.send("MOVE", &root, &away, "").await.status, 403, "{path}");
        assert_eq!(dav.status("PROPFIND", &root).await, 207, "{path}");
        if inside {
            assert_eq!(dav.get(&format!("{root}/a")).await.text(), "content");
            assert_eq!(dav.list_hrefs(&root).await, Ok(vec![format!("{root}/a")]));
            let out = [("destination", "/dav/t/out")];
            assert_eq!(dav.send("COPY", &format!("{root}/a"), &out, "").await.status, 502, "out of the root");
        } else {
            assert_eq!(dav.get(&root).await.text(), "content");
            assert_eq!(dav.put(&root, "new").await.status, 204);
            assert_eq!(dav.get("/dav/t/folder/a").await.text(), "new");
            assert_eq!(dav.get(&format!("{root}/a")).await.status, 404);
        }
    }
    assert_eq!(dav.get("/node/00000000-0000-4000-8000-000000000000/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_cannot_be_copied_or_moved_into_itself_or_onto_an_ancestor() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a/b/c/file", "content");
    gateway.write_host_file("/a/other", "other");
    let dav = dav_as_alice(&gateway).await;
    let before = gateway.all_paths();
    let pairs =
        [("/a/b", "/a"), ("/a/b/c", "/a"), ("/a/b", "/a/b"), ("/a/b", "/a/b/c/d"), ("/a", "/a/x"), ("/a/other", "/a")];
    for method in ["COPY", "MOVE"] {
        for (from, to) in pairs {
            let (from, to) = (format!("/dav{from}"), dav.url(&format!("/dav{to}")));
            let headers = [("destination", &*to), ("overwrite", "T"), ("depth", "infinity")];
            let answer = dav.send(method, &from, &headers, "").await;
            assert_eq!(answer.status, 403, "{method} {from} {to}");
            assert_eq!(without_reserved(&gateway.all_paths()), without_reserved(&before), "{method} {from} {to}");
        }
    }
    assert_eq!(dav.get("/dav/a/b/c/file").await.text(), "content");
}

/// Returns the paths outside of the gateway's reserved directory.
fn without_reserved(all: &[String]) -> Vec<&String> {
    all.iter().filter(|path| !path.starts_with(".patgate")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_if_header_is_refused_before_any_change() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let dav = dav_as_alice(&gateway).await;
    for value in [
        "(",
        ")",
        "()",
        "(<a)",
        "<",
        "<>",
        "([\"x)",
        "(Not)",
        "garbage",
        "(<a>",
        "<a> <b>",
        "([",
        "\u{fc}",
        "(<a>),(<b>)",
    ] {
        for method in ["PUT", "DELETE", "GET", "PROPFIND", "LOCK", "MKCOL", "PROPPATCH"] {
            let answer = dav.send(method, "/dav/a", &[("if", value)], "x").await;
            assert_eq!(answer.status, 400, "{method} {value}");
        }
        for method in ["COPY", "MOVE"] {
            let answer = dav.send(method, "/dav/a", &[("if", value), ("destination", "/dav/b")], "").await;
            assert_eq!(answer.status, 400, "{method} {value}");
        }
    }
    assert_eq!(dav.get("/dav/a").await.text(), "content");
    assert_healthy(&dav).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn path_prefix_matches_only_whole_segments() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    gateway.write_host_file("/x/a", "content");
    let dav = dav_as_alice(&gateway).await;
    for path in ["/davx", "/davx/a", "/dav../a", "/nodes", "/node", "/node/x", "/dav%2fa"] {
        assert_eq!(dav.get(path).await.status, 404, "{path}");
    }
    for to in ["/davx/stolen", "/etc/stolen", "/", "/node/x"] {
        for url in [to.to_owned(), dav.url(to)] {
            assert_eq!(dav.send("COPY", "/dav/a", &[("destination", &url)], "").await.status, 502, "{url}");
        }
    }
    assert_eq!(without_reserved(&gateway.all_paths()), ["a", "x", "x/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_on_other_hosts_are_refused() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "content");
    let dav = dav_as_alice(&gateway).await;
    let port = gateway.http.port();
    for url in [
        "http://example.com/dav/b".to_owned(),
        format!("http://example.com:{port}/dav/b"),
        "http://127.0.0.1/dav/b".to_owned(),
        format!("http://127.0.0.1:{}/dav/b", port ^ 1),
        format!("http://127.0.0.1.example.com:{port}/dav/b"),
        // An absolute path with an empty segment in front (RFC 4918 section 8.3 knows no URL without a scheme).
        "//127.0.0.1/dav/b".to_owned(),
    ] {
        for method in ["COPY", "MOVE"] {
            assert_eq!(dav.send(method, "/dav/a", &[("destination", &url)], "").await.status, 502, "{method} {url}");
        }
    }
    for url in ["", "b", "ftp://127.0.0.1/dav/b", "/dav/../b", "/dav/%2e%2e/b", "/dav/b?c", "/dav/b%"] {
        assert_eq!(dav.send("MOVE", "/dav/a", &[("destination", url)], "").await.status, 400, "{url}");
    }
    assert_eq!(dav.send("MOVE", "/dav/a", &[], "").await.status, 400, "no destination");
    assert_eq!(without_reserved(&gateway.all_paths()), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_ranges_cost_no_more_than_the_file() {
    let gateway = Fixture::start().await;
    let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    gateway.write_host_file("/a", &content);
    let dav = dav_as_alice(&gateway).await;
    let greedy = format!("bytes={}", vec!["0-"; 1000].join(","));
    let many_ranges =
        format!("bytes={}", (0..200).map(|i| format!("{}-{}", i * 500, i * 500)).collect::<Vec<_>>().join(","));
    for value in [&greedy, &many_ranges, "bytes=0-,0-,0-", "bytes=99999999999999999999-1", "bytes=5-1", "bytes=x"] {
        let answer = dav.send("GET", "/dav/a", &[("range", value)], "").await;
        assert_eq!((answer.status, answer.body.len()), (200, content.len()), "{value:.40}");
    }
    let joined = dav.send("GET", "/dav/a", &[("range", "bytes=0-9,5-19,10-29")], "").await;
    assert_eq!(
        (joined.status, joined.header("content-range"), &joined.body[..]),
        (206, "bytes 0-29/100000", &content[..30])
    );
    let two_ranges = dav.send("GET", "/dav/a", &[("range", "bytes=0-9,50000-50009")], "").await;
    assert_eq!(two_ranges.status, 206);
    let boundary = two_ranges
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("multipart")
        .to_owned();
    let part = |range: &str, bytes: &[u8]| {
        let head = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/100000\r\n\r\n"
        );
        [head.as_bytes(), bytes, b"\r\n"].concat()
    };
    let end = format!("--{boundary}--\r\n");
    let expected =
        [part("0-9", &content[..10]), part("50000-50009", &content[50_000..50_010]), end.into_bytes()].concat();
    assert_eq!(two_ranges.text(), String::from_utf8_lossy(&expected));
    assert_eq!(two_ranges.header("content-length"), expected.len().to_string());
    let beyond = dav.send("GET", "/dav/a", &[("range", "bytes=100000-")], "").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */100000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_keeps_old_content_and_leaves_no_debris() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "old");
    let dav = dav_as_alice(&gateway).await;
    let long = "x".repeat(3 << 20);
    for (path, head, body) in [
        ("/dav/a", "Content-Length: 10", "short"),
        ("/dav/new", "Content-Length: 10", "short"),
        ("/dav/a", "Content-Length: 100000000", &*long),
        ("/dav/new", "Content-Length: 100000000", &*long),
        ("/dav/a", "Transfer-Encoding: chunked", "5\r\nshort\r\n"),
        ("/dav/new", "Transfer-Encoding: chunked", "5\r\nshort\r\nzz\r\n"),
    ] {
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{head}\r\n\r\n{body}",
            gateway.http,
            dav.authorization()
        );
        send_and_wait_for_close(&gateway, request.as_bytes()).await;
    }
    assert_eq!(dav.get("/dav/a").await.text(), "old");
    assert_eq!(dav.get("/dav/new").await.status, 404);
    let mut gateway = gateway;
    gateway.stop().await;
    assert_eq!(without_reserved(&gateway.all_paths()), ["a"]);
    let staged = gateway
        .all_paths()
        .iter()
        .filter(|path| path.starts_with(".patgate/") && path.matches('/').count() > 1)
        .count();
    assert_eq!(staged, 0, "{:?}", gateway.all_paths());
}

/// Sends bytes, then nothing more, and waits until the gateway has given the connection up.
async fn send_and_wait_for_close(gateway: &Fixture, request: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(gateway.http).await.expect("a connection");
    // The gateway may refuse before it has read everything.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn symbolic_links_cannot_leave_the_root_over_webdav() {
    let gateway = Fixture::start().await;
    let outside = gateway.state().join("outside");
    std::fs::create_dir_all(&outside).expect("a folder");
    std::fs::write(outside.join("secret"), "secret").expect("a file");
    gateway.write_host_file("/in/file", "inside");
    for (target, name) in [
        (outside.join("secret"), "file-out"),
        (outside.clone(), "folder-out"),
        ("../../state/outside".into(), "up-out"),
        ("nowhere".into(), "dangling"),
        ("loop".into(), "loop"),
        ("in".into(), "folder-in"),
        ("in/file".into(), "file-in"),
    ] {
        symlink(target, gateway.host_path(name)).expect("a link");
    }
    let dav = dav_as_alice(&gateway).await;
    for path in ["/dav/file-out", "/dav/folder-out/secret", "/dav/up-out/secret", "/dav/dangling", "/dav/loop"] {
        assert_eq!(dav.get(path).await.status, 404, "{path}");
        assert_eq!(dav.status("PROPFIND", path).await, 404, "{path}");
    }
    assert_eq!(dav.put("/dav/folder-out/new", "x").await.status, 409);
    assert_eq!(dav.get("/dav/file-in").await.text(), "inside");
    assert_eq!(dav.get("/dav/folder-in/file").await.text(), "inside");
    assert_eq!(
        dav.list_hrefs("/dav/").await,
        Ok(vec!["/dav/file-in".to_owned(), "/dav/folder-in/".to_owned(), "/dav/in/".to_owned()])
    );
    assert_eq!(
        dav.send("PUT", "/dav/file-out", &[], "over").await.status / 100,
        2,
        "the link itself is replaced, or refused"
    );
    assert_eq!(std::fs::read(outside.join("secret")).expect("there"), b"secret");
    assert_eq!(dav.status("DELETE", "/dav/folder-in").await, 204);
    assert_eq!(dav.get("/dav/in/file").await.text(), "inside", "the link was removed, not what it led to");
    assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_encoding_escapes_the_root() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let up = "/..".repeat(12);
    let spellings = [
        up.clone(),
        up.replace('.', "%2e"),
        up.replace('.', "%2E"),
        up.replace("/", "%2f"),
        up.replace('/', "//"),
        up.replace("..", ".%00."),
    ];
    for spelling in spellings {
        for method in ["GET", "PUT", "DELETE", "MKCOL", "PROPFIND"] {
            let request = format!(
                "{method} /dav{spelling}/etc/passwd HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                gateway.http,
                dav.authorization()
            );
            let answer = String::from_utf8_lossy(&send_raw(gateway.http, request.as_bytes()).await).into_owned();
            assert!(answer.starts_with("HTTP/1.1 40"), "{method} {spelling}: {answer:.80}");
            assert!(!answer.contains("root:"), "{method} {spelling}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "old");
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let request_status = async |request: &str, headers: &str| {
        let authorization = dav.authorization();
        let head =
            format!("{request} HTTP/1.1\r\nauthorization: {authorization}\r\n{headers}connection: close\r\n\r\n");
        let answer = send_raw(gateway.http, format!("{head}0\r\n\r\n").as_bytes()).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(request_status("GET /dav/a", "host: a\r\n").await, "200");
    assert_eq!(request_status("GET /dav/a", "").await, "400", "no host");
    assert_eq!(request_status("GET /dav/a", "host: a\r\nhost: b\r\n").await, "400");
    assert_eq!(request_status("PUT /dav/a", "host: a\r\ntransfer-encoding: gzip, chunked\r\n").await, "501");
    assert_eq!(
        request_status("PUT /dav/a", "host: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n").await,
        "501"
    );
    let twice = "host: a\r\ndestination: /dav/b\r\ndestination: /dav/c\r\n";
    assert_eq!(request_status("MOVE /dav/a", twice).await, "400");
    assert_eq!(std::fs::read(gateway.host_path("/a")).expect("there"), b"old");
    assert_eq!(request_status("PUT /dav/a", "host: a\r\ntransfer-encoding: Chunked\r\n").await, "204");
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_header_omits_the_refused_method() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/folder");
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let upload = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "a").await.header("location").to_owned();
    assert_eq!(dav.status("MKCOL", "/remote.php/dav/uploads/alice/up").await, 201);
    for (method, path, others) in [
        ("PUT", "/dav/folder", "GET"),
        ("MKCOL", "/dav/folder", "PROPFIND"),
        ("PUT", &*upload, "PATCH"),
        ("LOCK", "/remote.php/dav/uploads/alice/up", "MKCOL"),
        ("PUT", "/remote.php/dav/principals/users/alice", "PROPFIND"),
    ] {
        let refused = dav.send(method, path, &[], "").await;
        let allowed: Vec<_> = refused.header("allow").split(", ").collect();
        assert_eq!(refused.status, 405, "{method} {path}");
        assert!(allowed.contains(&others) && !allowed.contains(&method), "{method} {path}: {allowed:?}");
    }
    assert_eq!(dav.status("OPTIONS", &upload).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_copy_or_move_names_source_or_destination() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("open/a", "a");
    gateway.write_host_file("open/file", "f");
    gateway.create_host_directory("closed");
    gateway.create_user("alice", &["/closed:r", "/open:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let client = gateway.dav("alice", &token);
    let long = "n".repeat(256);
    let destination = "the destination can't be used: ";
    for method in ["COPY", "MOVE"] {
        for (from, to, status, words) in [
            ("/dav/open/missing", "/dav/open/b", 404, "no such file or directory"),
            ("/dav/open/no/x", "/dav/open/b", 404, "no such file or directory"),
            ("/dav/open/file/x", "/dav/open/b", 404, "no such file or directory"),
            ("/dav/open/missing", "/dav/open/no/b", 404, "no such file or directory"),
            ("/dav/open/a", "/dav/open/no/b", 409, destination),
            ("/dav/open/a", "/dav/open/file/b", 409, destination),
            ("/dav/open/a", "/dav/open/file/b/c", 409, destination),
            ("/dav/open/a", &format!("/dav/open/{long}"), 403, "the path is too long"),
            ("/dav/open/a", &format!("/dav/open/{long}/b"), 409, destination),
            ("/dav/open/a", "/dav/open/.patgate", 403, "the name .patgate is reserved"),
            ("/dav/open/a", "/dav/closed/b", 403, destination),
            ("/dav/open/a", "/dav/open/%zz", 400, "the path has a malformed escape"),
            ("/dav/open/a", "/dav/open/../b", 400, "the path has a part . or .."),
        ] {
            let answer = client.send(method, from, &[("destination", to)], "").await;
            assert_eq!(answer.status, status, "{method} {from} {to}: {}", answer.text());
            assert!(answer.text().contains(words), "{method} {from} {to}: {}", answer.text());
            assert_eq!(status != 404, answer.text().starts_with(destination), "{method} {from} {to}");
        }
    }
    assert!(gateway.host_path("open/a").exists());
    let upload = "/remote.php/dav/uploads/alice/u";
    assert_eq!(client.status("MKCOL", upload).await, 201);
    assert_eq!(client.put(&format!("{upload}/1"), "x").await.status, 201);
    for (to, status) in [
        (format!("/dav/open/{long}"), 403),
        ("/dav/open/no/b".to_owned(), 409),
        ("/dav/open/file/b".to_owned(), 409),
        ("/dav/closed/b".to_owned(), 403),
        ("/dav/open/%zz".to_owned(), 400),
    ] {
        let answer = client.send("MOVE", &format!("{upload}/.file"), &[("destination", &to)], "").await;
        assert_eq!((answer.status, answer.text().starts_with(destination)), (status, true), "{to}: {}", answer.text());
    }
    let put = client.put(&format!("/dav/open/{long}"), "x").await;
    assert_eq!(
        (put.status, put.text().as_str()),
        (403, "the name can't be used: the path is too long: 255 bytes a name, 4095 in all\n")
    );
}
