//! Addresses as clients and proxies write them: public names of the server, prefixes that are cut off, and spellings.

use patgate::auth::Clock;

use crate::support::{Dav, Fixture, raw};

/// Headers that a proxy adds.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// A gateway behind a proxy on this machine, and a client of a user who may write everywhere.
async fn behind_proxy(public_url: Option<&str>) -> (Fixture, Dav) {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        settings.public_url = public_url.map(|url| url.parse().expect("a URL"));
    })
    .await;
    let token = gateway.login("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    (gateway, client)
}

async fn moved(client: &Dav, forwarded: Fields<'_>, destination: &str) -> u16 {
    client.put("/dav/a", "a").await;
    let headers = [forwarded, &[("x-forwarded-proto", "https"), ("destination", destination)]].concat();
    client.send("MOVE", "/dav/a", &headers, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn destination_names_the_address_that_a_trusted_proxy_forwards() {
    let (gateway, client) = behind_proxy(None).await;
    let cases: [(Fields<'_>, &str, u16); 9] = [
        (&[("x-forwarded-host", "files.example.org")], "https://files.example.org/dav/b", 201),
        (&[("x-forwarded-host", "files.example.org:8443")], "https://files.example.org:8443/dav/b", 204),
        (
            &[("x-forwarded-host", "files.example.org"), ("x-forwarded-port", "8443")],
            "https://files.example.org:8443/dav/b",
            204,
        ),
        (&[("x-forwarded-host", "a.example, files.example.org")], "https://files.example.org/dav/b", 204),
        (&[("forwarded", "for=192.0.2.7;host=\"files.example.org\"")], "https://files.example.org/dav/b", 204),
        (&[("x-forwarded-host", "files.example.org")], "https://evil.example/dav/b", 502),
        (&[("x-forwarded-host", "files.example.org"), ("x-forwarded-prefix", "/cloud")], "/cloud/dav/b", 204),
        (&[("x-forwarded-prefix", "/cloud/")], "/dav/b", 204),
        (&[], "/cloud/dav/b", 502),
    ];
    for (forwarded, destination, wanted) in cases {
        assert_eq!(moved(&client, forwarded, destination).await, wanted, "{forwarded:?} {destination}");
    }
    drop(gateway);
    let stranger = Fixture::start().await;
    let token = stranger.login("alice", "/:rw");
    let forwarded = [("x-forwarded-host", "files.example.org")];
    let status = moved(&stranger.dav("alice", &token), &forwarded, "https://files.example.org/dav/b").await;
    assert_eq!(status, 502, "nobody believes a stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_tag_names_the_public_address() {
    let (_gateway, client) = behind_proxy(None).await;
    let public = ("x-forwarded-host", "files.example.org");
    let body = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let lock = client.send("LOCK", "/dav/l", &[public], body).await;
    let condition = format!("<https://files.example.org/dav//l> ({})", lock.header("lock-token"));
    assert_eq!(client.send("PUT", "/dav/l", &[public, ("if", &condition)], "z").await.status, 204);
    assert_eq!(client.send("PUT", "/dav/l", &[("if", &condition)], "z").await.status, 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn public_url_names_the_server_and_the_path_in_front() {
    let (_gateway, client) = behind_proxy(Some("https://files.example.org/cloud")).await;
    assert_eq!(moved(&client, &[], "https://files.example.org/cloud/dav/b").await, 201);
    assert_eq!(moved(&client, &[], &client.url("/dav/b")).await, 204, "its own name counts as well");
    assert_eq!(moved(&client, &[], "https://files.example.org:8443/cloud/dav/b").await, 502);
    let body = "<propfind xmlns='DAV:'><prop><current-user-principal/></prop></propfind>";
    let listing = client.send("PROPFIND", "/dav/", &[("depth", "1")], body).await.text();
    for href in ["/cloud/dav/", "/cloud/dav/b", "/cloud/remote.php/dav/principals/users/alice/"] {
        assert!(listing.contains(&format!("<D:href>{href}</D:href>")), "{href} in {listing}");
    }
    let page = client.send("GET", "/dav/", &[("accept", "text/html")], "").await.text();
    assert!(!page.contains("\"/dav/"), "{page}");
    let begun = client.send("PUT", "/dav/u", &[("upload-complete", "?0")], "part").await;
    assert!(begun.header("location").starts_with("/cloud/upload/"), "{begun:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_segments_and_needless_escapes_change_nothing() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    let node = gateway.node("/");
    gateway.write("d/a", "a");
    for path in [
        "//dav/d/a",
        "/dav//d///a",
        "/%64av/%64/%61",
        "/dav/d//a",
        "/remote%2Ephp/dav/files/alice//d/a",
        "//remote.php//webdav/d/a",
        &format!("/n%6Fde//{}/d/a", node.replace('-', "%2D")),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            client.authorization()
        );
        let answer = String::from_utf8_lossy(&raw(gateway.http, request.as_bytes()).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\na"), "{path}: {answer}");
    }
    for (path, status) in
        [("/%68ealthz", 200), ("//healthz", 200), ("/api//v1/openapi%2Ejson", 200), ("/c%6Fnsole//", 303)]
    {
        assert_eq!(client.status("GET", path).await, status, "{path}");
    }
    assert_eq!(client.status("MKCOL", "/dav//d//new//").await, 201);
    assert_eq!(client.put("/dav//d//new///b", "b").await.status, 201);
    assert!(gateway.host("d/new/b").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn destination_is_taken_unescaped() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    for (sent, name) in [
        (&b"sp ace.txt"[..], "sp ace.txt"),
        (b"br[ack]et.txt", "br[ack]et.txt"),
        ("\u{e4} \u{f6}.txt".as_bytes(), "\u{e4} \u{f6}.txt"),
        (b"latin-\xe9.txt", "latin-\u{e9}.txt"),
        (b"/doubled", "doubled"),
    ] {
        gateway.write("a", "a");
        let head = format!(
            "MOVE /dav/a HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\nDestination: http://x/dav/",
            client.authorization()
        );
        let answer = raw(gateway.http, &[head.as_bytes(), sent, b"\r\n\r\n"].concat()).await;
        assert!(answer.starts_with(b"HTTP/1.1 201"), "{name}: {}", answer.escape_ascii());
        assert!(gateway.host(name).exists(), "{name}");
    }
    let etag = client.get("/dav/sp%20ace.txt").await.header("etag").to_owned();
    let condition = format!("<{}> ([{etag}])", client.url("/dav/sp ace.txt"));
    assert_eq!(client.send("PUT", "/dav/sp%20ace.txt", &[("if", &condition)], "x").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_in_either_spelling_of_unicode() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    let (composed, decomposed) = ("%C3%A4", "a%CC%88");
    for (there, sent, name) in [(composed, decomposed, "\u{e4}"), (decomposed, composed, "a\u{308}")] {
        gateway.write(&format!("{name}/{name}"), "old");
        assert_eq!(client.get(&format!("/dav/{sent}/{sent}")).await.body, b"old");
        assert_eq!(client.put(&format!("/dav/{sent}/{sent}"), "new").await.status, 204);
        assert_eq!(client.get(&format!("/dav/{there}/{there}")).await.body, b"new");
        assert_eq!(client.put(&format!("/dav/{sent}/x"), "x").await.status, 201);
        assert_eq!(client.status("MKCOL", &format!("/dav/{sent}")).await, 405);
        let to = format!("/dav/{sent}/{sent}");
        let headers = [("destination", to.as_str()), ("overwrite", "F")];
        assert_eq!(client.send("COPY", &format!("/dav/{there}/x"), &headers, "").await.status, 412);
        let etag = client.get(&format!("/dav/{there}/{there}")).await.header("etag").to_owned();
        let condition = format!("</dav/{sent}/{sent}> ([{etag}])");
        assert_eq!(client.send("PUT", "/dav/other", &[("if", &condition)], "x").await.status / 100, 2);
        let mut wanted = [name, &format!("{name}/x"), &format!("{name}/{name}"), "other"].map(str::to_owned);
        wanted.sort();
        let entries = gateway.everything().into_iter().filter(|path| !path.contains(".patgate"));
        assert_eq!(entries.collect::<Vec<_>>(), wanted, "no twin");
        assert_eq!(client.status("DELETE", &format!("/dav/{sent}")).await, 204);
    }
    gateway.write("\u{e4}", "composed");
    let (from, to) = (format!("/dav/{composed}"), format!("/dav/{decomposed}"));
    let moved = client.send("MOVE", &from, &[("destination", &to)], "").await;
    assert_eq!(moved.status, 201, "a move may change the spelling");
    assert!(gateway.host("a\u{308}").exists() && !gateway.host("\u{e4}").exists());
    gateway.write("\u{e4}", "composed");
    assert_eq!(client.get(&format!("/dav/{composed}")).await.body, b"composed", "where both exist, each is itself");
    assert_eq!(client.get(&format!("/dav/{decomposed}")).await.body, b"composed", "the content that was moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_of_a_transfer_names_the_side_at_fault() {
    let gateway = Fixture::start().await;
    gateway.write("open/a", "a");
    gateway.write("open/file", "f");
    gateway.folder("closed");
    gateway.user("alice", &["/closed:r", "/open:rw"]);
    let token = gateway.token("alice", &["-e", "1h"]);
    let client = gateway.dav("alice", &token);
    let long = "n".repeat(256);
    let destination = "the destination can't be used: ";
    for method in ["COPY", "MOVE"] {
        for (from, to, status, words) in [
            ("/dav/open/missing", "/dav/open/b", 404, "no such file or folder"),
            ("/dav/open/no/x", "/dav/open/b", 404, "no such file or folder"),
            ("/dav/open/file/x", "/dav/open/b", 404, "no such file or folder"),
            ("/dav/open/missing", "/dav/open/no/b", 404, "no such file or folder"),
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
    assert!(gateway.host("open/a").exists());
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

#[tokio::test(flavor = "multi_thread")]
async fn options_answers_the_same_with_and_without_a_login() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    for path in [
        "/remote.php/dav/",
        "/remote.php/dav",
        "/remote.php/webdav/",
        "/remote.php/dav/files/bob/",
        "/dav/missing/x",
        "/dav/%zz",
        "/node/none/",
        "/upload/none",
    ] {
        let request = |authorization: &str| {
            format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n").into_bytes()
        };
        let text = async |authorization: String| {
            let answer = String::from_utf8_lossy(&raw(gateway.http, &request(&authorization)).await).into_owned();
            answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
        };
        let stranger = text(String::new()).await;
        assert!(stranger.starts_with("HTTP/1.1 200"), "{path}: {stranger}");
        assert_eq!(text(format!("Authorization: {}\r\n", client.authorization())).await, stranger, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn white_space_pasted_around_a_token_is_passed_over() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    for pasted in [format!("{token}\n"), format!("{token}\r\n"), format!("\t{token} "), format!("\u{a0}{token}")] {
        assert_eq!(gateway.dav("alice", &pasted).status("GET", "/dav/").await, 200, "{pasted:?}");
    }
    let bearer = format!("Bearer \t{token} ");
    let request = format!("GET /dav/ HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n");
    assert!(raw(gateway.http, request.as_bytes()).await.starts_with(b"HTTP/1.1 200"));
}
