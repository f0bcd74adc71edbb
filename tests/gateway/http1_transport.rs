//! HTTP/1.1 connections that end or are refused in the middle of a request: an early close, bodies without or shorter
//! than their announced length, malformed requests. HTTP/2 is in `http2_transport.rs`, what clients have reported in
//! `bug_reports/webdav_early_close.rs`.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::support::http1::{Http1Connection, request_head};
use crate::support::{DavClient, Fixture};

const PROPFIND_BODY: &str = r#"<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>"#;

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

fn complete_requests(gateway: &Fixture, dav: &DavClient, number: usize) -> Vec<String> {
    let authorization = format!("Authorization: {}", dav.authorization());
    let content = "x".repeat(100_000);
    let head =
        |method, path: &str, lines: &[&str]| request_head(gateway, method, path, &[&[&*authorization], lines].concat());
    vec![
        head("PUT", &format!("/dav/plain{number}"), &["Content-Length: 100000"]) + "\r\n" + &content,
        head("PUT", &format!("/dav/closing{number}"), &["Content-Length: 100000", "Connection: close"])
            + "\r\n"
            + &content,
        head("PUT", &format!("/dav/chunked{number}"), &["Transfer-Encoding: chunked"])
            + &format!("\r\n186a0\r\n{content}\r\n0\r\n\r\n"),
        head("MKCOL", &format!("/dav/folder{number}"), &[]) + "\r\n",
        head("PROPFIND", "/dav/", &["Depth: 1", &format!("Content-Length: {}", PROPFIND_BODY.len())])
            + "\r\n"
            + PROPFIND_BODY,
        head("GET", "/dav/file", &[]) + "\r\n",
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_request_is_executed_after_the_client_closes() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    for number in 0..10 {
        for request in &complete_requests(&gateway, &dav, number)[..4] {
            let mut connection = Http1Connection::open(&gateway).await;
            connection.send(request).await;
            drop(connection);
        }
    }
    for number in 0..10 {
        for name in ["plain", "closing", "chunked", "folder"] {
            let path = format!("/{name}{number}");
            let appears = async {
                while !gateway.host_path(&path).exists() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), appears).await.expect(&path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_body_of_unknown_length_announces_the_close() {
    let gateway = Fixture::start().await;
    let mut connection = Http1Connection::open(&gateway).await;
    connection.send(request_head(&gateway, "PUT", "/dav/x", &["Transfer-Encoding: chunked"]) + "\r\n").await;
    let refused = connection.read_response().await;
    assert_eq!((refused.status, refused.header("connection")), (401, "close"));
    for _ in 0..100 {
        connection.send("1000\r\n".to_owned() + &"x".repeat(4096) + "\r\n").await;
    }
    connection.send("0\r\n\r\n").await;
    let mut rest = Vec::new();
    connection.stream.read_to_end(&mut rest).await.expect("closed in order");
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_request_gets_400_while_its_body_still_arrives() {
    let gateway = Fixture::start().await;
    let mut connection = Http1Connection::open(&gateway).await;
    for _ in 0..2 {
        connection.send(request_head(&gateway, "GET", "/healthz", &[]) + "\r\n").await;
        assert_eq!(connection.read_response().await.status, 200);
    }
    connection.send("GET / HTTP/1.1\r\nBad Header\r\n\r\n".to_owned() + &"x".repeat(200_000)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    connection.send("more").await;
    assert_eq!(connection.read_response().await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn body_shorter_than_its_announced_length_is_not_stored() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    gateway.write_host_file("/old", "old");
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

/// Bytes that differ from place to place and from file to file.
fn pattern(seed: u32, length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(31).wrapping_add(seed) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_downloads_are_whole_and_in_order() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let authorization = format!("Authorization: {}", dav.authorization());
    let contents = [pattern(1, 5 << 20), pattern(2, 10), pattern(3, (3 << 20) + 1), pattern(4, 65_536), Vec::new()];
    for (number, content) in contents.iter().enumerate() {
        gateway.write_host_file(&format!("/{number}"), content);
    }
    let mut connection = Http1Connection::open(&gateway).await;
    let head = |path: &str, lines: &[&str]| {
        request_head(&gateway, "GET", path, &[&[&*authorization], lines].concat()) + "\r\n"
    };
    let requests: String = (0..contents.len()).map(|number| head(&format!("/dav/{number}"), &[])).collect();
    let ranges = head("/dav/0", &["Range: bytes=100-2000099, 3000000-3999999"]);
    connection.send(requests + &ranges).await;
    for (number, content) in contents.iter().enumerate() {
        let response = connection.read_response().await;
        assert!(response.status == 200 && response.body == *content, "{number}: {}", response.status);
    }
    let response = connection.read_response().await;
    assert_eq!(response.status, 206);
    let parts = [&contents[0][100..2_000_100], &contents[0][3_000_000..4_000_000]];
    for part in parts {
        let at = response.body.windows(64).position(|window| window == &part[..64]).expect("a part");
        assert!(response.body[at..].starts_with(part));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn download_of_a_file_that_is_truncated_meanwhile_ends_early() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    // Sparse, and more than the buffers of both sockets hold.
    let file = std::fs::File::create(gateway.host_path("/large")).expect("created");
    file.set_len(64 << 20).expect("extended");
    let head = request_head(&gateway, "GET", "/dav/large", &[&format!("Authorization: {}", dav.authorization())]);
    let mut connection = Http1Connection::open(&gateway).await;
    connection.send(head + "\r\n").await;
    let response = connection.read_response_head().await;
    assert_eq!(response.header("content-length"), (64 << 20).to_string());
    file.set_len(1 << 20).expect("truncated");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), connection.stream.read_to_end(&mut rest)).await;
    // A reset or an end: either tells the client that the response is not whole.
    let _ = ended.expect("it ends");
    assert!(rest.len() < 64 << 20);
    assert!(rest.iter().all(|&byte| byte == 0));
}
