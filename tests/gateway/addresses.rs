//! Addresses as clients and proxies write them: public names of the server, prefixes that are cut off, and spellings.

use patgate::auth::Clock;

use crate::support::{Dav, Fixture, raw};

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

async fn moved(client: &Dav, forwarded: &[(&str, &str)], destination: &str) -> u16 {
    client.put("/dav/a", "a").await;
    let headers = [forwarded, &[("x-forwarded-proto", "https"), ("destination", destination)]].concat();
    client.send("MOVE", "/dav/a", &headers, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn destination_names_the_address_that_a_trusted_proxy_forwards() {
    let (gateway, client) = behind_proxy(None).await;
    let cases: [(&[(&str, &str)], &str, u16); 9] = [
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
}
