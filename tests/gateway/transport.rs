//! HTTP as clients speak it over a socket: they close early, upload before they are asked who they are, and wait for 100.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Dav, Fixture};

const PROPFIND: &str = r#"<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>"#;

async fn alice(gateway: &Fixture) -> Dav {
    let token = gateway.login("alice", "/:rw");
    gateway.dav("alice", &token)
}

/// A connection on which requests are written by hand.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// Status and head of a response.
struct Head {
    status: u16,
    text: String,
}

impl Head {
    fn has(&self, line: &str) -> bool {
        self.text.lines().any(|other| other.eq_ignore_ascii_case(line))
    }
}

impl Connection {
    async fn open(gateway: &Fixture) -> Self {
        Self { stream: TcpStream::connect(gateway.http).await.expect("a connection"), received: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Reads a response and its body.
    async fn response(&mut self) -> Head {
        let head = loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break self.received.drain(..end + 4).collect::<Vec<u8>>();
            }
            self.more().await;
        };
        let text = String::from_utf8(head).expect("text").to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        while self.received.len() < length {
            self.more().await;
        }
        self.received.drain(..length);
        Head { status: text[9..12].parse().expect("a status"), text }
    }

    async fn more(&mut self) {
        let mut block = [0; 16 * 1024];
        let count = self.stream.read(&mut block).await.expect("an answer and not a reset");
        assert_ne!(count, 0, "closed without an answer");
        self.received.extend_from_slice(&block[..count]);
    }
}

/// The head of a request, without the empty line behind it.
fn head(gateway: &Fixture, method: &str, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{lines}", gateway.http)
}

fn whole_requests(gateway: &Fixture, dav: &Dav, number: usize) -> Vec<String> {
    let authorization = format!("Authorization: {}", dav.authorization());
    let content = "x".repeat(100_000);
    let head = |method, path: &str, lines: &[&str]| head(gateway, method, path, &[&[&*authorization], lines].concat());
    vec![
        head("PUT", &format!("/dav/plain{number}"), &["Content-Length: 100000"]) + "\r\n" + &content,
        head("PUT", &format!("/dav/closing{number}"), &["Content-Length: 100000", "Connection: close"])
            + "\r\n"
            + &content,
        head("PUT", &format!("/dav/chunked{number}"), &["Transfer-Encoding: chunked"])
            + &format!("\r\n186a0\r\n{content}\r\n0\r\n\r\n"),
        head("MKCOL", &format!("/dav/folder{number}"), &[]) + "\r\n",
        head("PROPFIND", "/dav/", &["Depth: 1", &format!("Content-Length: {}", PROPFIND.len())]) + "\r\n" + PROPFIND,
        head("GET", "/dav/file", &[]) + "\r\n",
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_request_is_answered_after_its_sender_shuts_down() {
    let gateway = Fixture::start().await;
    gateway.write("/file", "content");
    let dav = alice(&gateway).await;
    for number in 0..10 {
        for request in whole_requests(&gateway, &dav, number) {
            let mut connection = Connection::open(&gateway).await;
            connection.send(&request).await;
            connection.stream.shutdown().await.expect("shut down");
            let answer = connection.response().await;
            assert_eq!(answer.status / 100, 2, "{request:.60}: {}", answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_request_is_carried_out_after_its_sender_closes() {
    let gateway = Fixture::start().await;
    let dav = alice(&gateway).await;
    for number in 0..10 {
        for request in &whole_requests(&gateway, &dav, number)[..4] {
            let mut connection = Connection::open(&gateway).await;
            connection.send(request).await;
            drop(connection);
        }
    }
    for number in 0..10 {
        for name in ["plain", "closing", "chunked", "folder"] {
            let path = format!("/{name}{number}");
            let appears = async {
                while !gateway.host(&path).exists() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), appears).await.expect(&path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_expectation_announces_the_close_and_takes_a_body_that_comes_anyway() {
    let gateway = Fixture::start().await;
    let dav = alice(&gateway).await;
    let authorization = format!("Authorization: {}", dav.authorization());
    let waiting = ["Expect: 100-continue", "Content-Length: 300000"];
    let body = "y".repeat(300_000);
    for (path, lines, status) in [
        ("/dav/x", vec![], 401),
        ("/dav/no/such/x", vec![&*authorization], 409),
        ("/dav/.patgate", vec![&*authorization], 403),
        ("/nothing", vec![], 404),
        ("/api/v1/tokens", vec![], 405),
        ("/console/raw/x", vec![], 303),
    ] {
        let request = head(&gateway, "PUT", path, &[&lines[..], &waiting].concat()) + "\r\n";
        // A client that waits for 100 sees the refusal, and that no other request can follow.
        let mut connection = Connection::open(&gateway).await;
        connection.send(&request).await;
        let refused = connection.response().await;
        let expected = if path.starts_with("/dav") { refused.status == status } else { refused.status >= 300 };
        assert!(expected && refused.has("connection: close"), "{path}: {}", refused.text);
        connection.send(&body).await;
        // One that has sent its body before it reads sees it, too.
        let mut connection = Connection::open(&gateway).await;
        connection.send(request + &body).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(connection.response().await.status, refused.status, "{path}");
    }
    let request = head(&gateway, "PUT", "/dav/x", &[&[&*authorization], &waiting[..]].concat()) + "\r\n";
    let mut connection = Connection::open(&gateway).await;
    connection.send(&request).await;
    assert_eq!(connection.response().await.status, 100);
    connection.send(&body).await;
    let stored = connection.response().await;
    assert!(stored.status == 201 && !stored.has("connection: close"), "{}", stored.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_without_credentials_sees_the_challenge_whatever_its_size_and_speed() {
    let gateway = Fixture::start().await;
    let blind = async {
        let mut connection = Connection::open(&gateway).await;
        connection.send(head(&gateway, "PUT", "/dav/large", &["Content-Length: 67108864"]) + "\r\n").await;
        for _ in 0..64 {
            connection.send(&vec![0; 1 << 20]).await;
        }
        connection.response().await.status
    };
    let slow = async {
        let mut connection = Connection::open(&gateway).await;
        connection.send(head(&gateway, "PUT", "/dav/slow", &["Content-Length: 2000000"]) + "\r\n").await;
        for _ in 0..20 {
            connection.send(&vec![0; 100_000]).await;
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        let status = connection.response().await.status;
        // The body was read whole, so that the connection goes on.
        connection.send(head(&gateway, "GET", "/healthz", &[]) + "\r\n").await;
        (status, connection.response().await.status)
    };
    assert_eq!(tokio::join!(blind, slow), (401, (401, 200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_body_of_unknown_length_announces_the_close() {
    let gateway = Fixture::start().await;
    let mut connection = Connection::open(&gateway).await;
    connection.send(head(&gateway, "PUT", "/dav/x", &["Transfer-Encoding: chunked"]) + "\r\n").await;
    let refused = connection.response().await;
    assert!(refused.status == 401 && refused.has("connection: close"), "{}", refused.text);
    for _ in 0..100 {
        connection.send("1000\r\n".to_owned() + &"x".repeat(4096) + "\r\n").await;
    }
    connection.send("0\r\n\r\n").await;
    let mut rest = Vec::new();
    connection.stream.read_to_end(&mut rest).await.expect("closed in order");
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_request_is_told_so_although_more_of_it_comes() {
    let gateway = Fixture::start().await;
    let mut connection = Connection::open(&gateway).await;
    for _ in 0..2 {
        connection.send(head(&gateway, "GET", "/healthz", &[]) + "\r\n").await;
        assert_eq!(connection.response().await.status, 200);
    }
    connection.send("GET / HTTP/1.1\r\nBad Header\r\n\r\n".to_owned() + &"x".repeat(200_000)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    connection.send("more").await;
    assert_eq!(connection.response().await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn method_that_is_not_allowed_is_told_with_those_that_are() {
    let gateway = Fixture::start().await;
    let dav = alice(&gateway).await;
    gateway.write("/file", "content");
    for (method, path) in [
        ("PROPFIND", "/"),
        ("PUT", "/"),
        ("LOCK", "/"),
        ("POST", "/healthz"),
        ("OPTIONS", "/healthz"),
        ("PUT", "/readyz"),
        ("POST", "/dav/"),
        ("PUT", "/dav/"),
        ("MKCOL", "/dav/file"),
        ("PROPFIND", "/api/v1/tokens"),
        ("PUT", "/auth/verify"),
        ("MKCOL", "/console/tokens"),
    ] {
        let answer = dav.send(method, path, &[], "").await;
        if !path.starts_with("/console") {
            assert_eq!(answer.status, 405, "{method} {path}");
        }
        assert!(answer.status != 405 || !answer.header("allow").is_empty(), "{method} {path}: {:?}", answer.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorization_headers_that_differ_are_refused() {
    let gateway = Fixture::start().await;
    let dav = alice(&gateway).await;
    let right = format!("Authorization: {}", dav.authorization());
    for (one, other, status) in
        [(&*right, "Authorization: Basic eDp5", 400), ("Authorization: Basic eDp5", &right, 400), (&right, &right, 207)]
    {
        let mut connection = Connection::open(&gateway).await;
        connection.send(head(&gateway, "PROPFIND", "/dav/", &["Depth: 0", one, other]) + "\r\n").await;
        let answer = connection.response().await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_codings_are_refused_and_identity_is_none() {
    let gateway = Fixture::start().await;
    let dav = alice(&gateway).await;
    for coding in ["identity", "Identity", "", "identity, "] {
        let stored = dav.send("PUT", "/dav/a", &[("content-encoding", coding)], "a").await;
        assert_eq!(stored.status / 10, 20, "{coding:?}");
    }
    for (method, path) in [
        ("PUT", "/dav/a"),
        ("PROPFIND", "/dav/"),
        ("PROPPATCH", "/dav/a"),
        ("LOCK", "/dav/a"),
        ("PUT", "/remote.php/webdav/a"),
        ("POST", "/api/v1/tokens"),
    ] {
        let refused = dav.send(method, path, &[("content-encoding", "gzip")], "\u{1f}").await;
        assert_eq!((refused.status, refused.header("accept-encoding")), (415, "identity"), "{method} {path}");
    }
    assert_eq!(dav.get("/dav/a").await.text(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn body_shorter_than_an_announced_length_is_not_stored() {
    let gateway = Fixture::start().await;
    let dav = alice(&gateway).await;
    gateway.write("/old", "old");
    for name in ["x-expected-entity-length", "oc-total-length", "oc-total-file-length", "upload-length"] {
        for path in ["/dav/old", "/dav/new"] {
            let refused = dav.send("PUT", path, &[(name, "10")], "short").await;
            assert_eq!(refused.status, 400, "{name} {path}");
            assert_eq!(dav.send("PUT", path, &[(name, "much")], "short").await.status, 400, "{name} {path}");
        }
        assert_eq!(dav.send("PUT", "/dav/fits", &[(name, "5")], "whole").await.status / 10, 20, "{name}");
    }
    let large = "x".repeat(2 << 20);
    assert_eq!(dav.send("PUT", "/dav/new", &[("oc-total-length", "3000000")], large).await.status, 400);
    assert_eq!(dav.get("/dav/old").await.text(), "old");
    assert_eq!(dav.get("/dav/new").await.status, 404);
    let part = [("oc-chunked", "1"), ("oc-total-length", "100")];
    assert_eq!(dav.send("PUT", "/dav/f-chunking-1-2-0", &part, "part").await.status, 201, "the length of all parts");
}
