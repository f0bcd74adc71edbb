//! Reports about HTTP connections that are half-closed, closed early, refused before the body, or asked to upgrade.

use std::future::poll_fn;
use std::time::Duration;

use h2::Reason;
use tokio::io::AsyncWriteExt;

use super::start_with_alice;
use crate::support::http1::{Http1Connection, authorization_line, request_head};
use crate::support::http2::{connect, request};
use crate::support::{DavClient, Fixture};

const PROPFIND_BODY: &str = r#"<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>"#;
/// Long enough for any machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that are whole: the first five of them make something.
fn complete_requests(gateway: &Fixture, dav: &DavClient, number: usize) -> Vec<String> {
    let authorization = authorization_line(dav);
    let (content, large) = ("x".repeat(100_000), "y".repeat(1_000_000));
    let head =
        |method, path: &str, lines: &[&str]| request_head(gateway, method, path, &[&[&*authorization], lines].concat());
    let length = |content: &str| format!("Content-Length: {}", content.len());
    vec![
        head("PUT", &format!("/dav/plain{number}"), &[&length(&content)]) + "\r\n" + &content,
        head("PUT", &format!("/dav/large{number}"), &[&length(&large)]) + "\r\n" + &large,
        head("PUT", &format!("/dav/closing{number}"), &[&length(&content), "Connection: close"]) + "\r\n" + &content,
        head("PUT", &format!("/dav/chunked{number}"), &["Transfer-Encoding: chunked"])
            + &format!("\r\n186a0\r\n{content}\r\n0\r\n\r\n"),
        head("MKCOL", &format!("/dav/folder{number}"), &[]) + "\r\n",
        head("PROPFIND", "/dav/", &["Depth: 1", &length(PROPFIND_BODY)]) + "\r\n" + PROPFIND_BODY,
        head("GET", "/dav/file", &[]) + "\r\n",
        head("HEAD", "/dav/file", &[]) + "\r\n",
    ]
}

/// Small HTTP clients, netcat and health checks shut their sending side down once the request is out, and read on;
/// reported to the authors of HTTP's RFCs and of several servers, which took it for the end of the client.
#[tokio::test(flavor = "multi_thread")]
async fn complete_request_is_answered_after_the_client_half_closes() {
    let (gateway, dav) = start_with_alice().await;
    gateway.write_host_file("/file", "content");
    for number in 0..10 {
        for request in complete_requests(&gateway, &dav, number) {
            let mut connection = Http1Connection::open(&gateway).await;
            connection.send(&request).await;
            connection.stream.shutdown().await.expect("shut down");
            let answer = connection.read_response_head().await;
            assert_eq!(answer.status / 100, 2, "{request:.60}: {answer:?}");
        }
    }
}

/// The same by clients that don't wait for the answer at all, as a program that is closed right after saving.
#[tokio::test(flavor = "multi_thread")]
async fn complete_request_is_executed_after_the_client_closes() {
    let (gateway, dav) = start_with_alice().await;
    for number in 0..10 {
        for request in &complete_requests(&gateway, &dav, number)[..5] {
            let mut connection = Http1Connection::open(&gateway).await;
            connection.send(request).await;
            drop(connection);
        }
    }
    for number in 0..10 {
        for name in ["plain", "large", "closing", "chunked", "folder"] {
            let path = format!("/{name}{number}");
            let appears = async {
                while !gateway.host_path(&path).exists() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(RESPONSE_TIMEOUT, appears).await.expect(&path);
        }
    }
}

/// Android apps whose HTTP library (OkHttp) sends a PUT whole before it is asked who it is: a password safe and a
/// document scanner on a slow line saw a reset in place of the challenge, and told their users that the server is away.
#[tokio::test(flavor = "multi_thread")]
async fn slow_upload_without_credentials_sees_the_challenge() {
    let (gateway, dav) = start_with_alice().await;
    let mut connection = Http1Connection::open(&gateway).await;
    connection.send(request_head(&gateway, "PUT", "/dav/slow", &["Content-Length: 2000000"]) + "\r\n").await;
    for _ in 0..20 {
        connection.send(&vec![0; 100_000]).await;
        tokio::time::sleep(Duration::from_millis(350)).await;
    }
    let refused = connection.read_response().await;
    assert_eq!((refused.status, refused.header("connection")), (401, ""));
    assert!(refused.header("www-authenticate").starts_with("Basic "), "{refused:?}");
    // The body was read whole, so that the connection goes on.
    let second_head = request_head(&gateway, "PUT", "/dav/slow", &[&*authorization_line(&dav), "Content-Length: 4"]);
    assert_eq!(connection.send_request(second_head, "slow").await.status, 201);
}

/// The Java client sardine and the JavaScript client `webdav` write the whole body before they read: the refusal of a
/// large one has to be readable after all of it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn large_upload_without_credentials_sees_the_challenge() {
    let (gateway, dav) = start_with_alice().await;
    let block = vec![0; 1 << 20];
    for mebibytes in [1, 15, 64] {
        let mut connection = Http1Connection::open(&gateway).await;
        let length = format!("Content-Length: {}", mebibytes << 20);
        connection.send(request_head(&gateway, "PUT", "/dav/large", &[&*length]) + "\r\n").await;
        for _ in 0..mebibytes {
            connection.send(&block).await;
        }
        assert_eq!(connection.read_response().await.status, 401, "{mebibytes} MiB");
    }
    // Refused for another reason, with credentials.
    let mut connection = Http1Connection::open(&gateway).await;
    let lines = [&*authorization_line(&dav), "Content-Length: 16777216"];
    connection.send(request_head(&gateway, "PUT", "/dav/no/such/large", &lines) + "\r\n").await;
    for _ in 0..16 {
        connection.send(&block).await;
    }
    assert_eq!(connection.read_response().await.status, 409);
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let refused = client.put(dav.url("/dav/large")).body(vec![0; 15 << 20]).send().await.expect("the challenge");
    assert_eq!(refused.status(), 401, "over HTTP/2");
    assert!(!gateway.host_path("/large").exists());
}

/// Asserts that a connection works after a refusal, or that its close was announced.
async fn assert_reusable_or_closed(
    gateway: &Fixture,
    dav: &DavClient,
    connection: &mut Http1Connection,
    refused: &crate::support::HttpResponse,
) {
    if refused.header("connection") != "close" {
        let next = request_head(gateway, "PROPFIND", "/dav/", &[&*authorization_line(dav), "Depth: 0"]);
        assert_eq!(connection.send_request(next, "").await.status, 207);
    }
}

/// sardine and Cyberduck (Apache HttpClient), Duplicati and KeePass (.NET, Mono) ask `Expect: 100-continue`, and can't
/// send a stream twice; Mono sends the body without waiting. A connection that ended unannounced made uploads fail.
#[tokio::test(flavor = "multi_thread")]
async fn refused_expect_100_announces_close_and_drains_the_body() {
    let (gateway, dav) = start_with_alice().await;
    let authorization = authorization_line(&dav);
    for (path, lines, status) in [
        ("/dav/x", vec![], 401),
        ("/dav/no/such/x", vec![&*authorization], 409),
        ("/dav/.patgate", vec![&*authorization], 403),
        ("/nothing", vec![], 404),
        ("/api/v1/tokens", vec![], 405),
        ("/console/raw/x", vec![], 303),
    ] {
        for size in [20_000, 300_000] {
            let length = format!("Content-Length: {size}");
            let waiting = ["Expect: 100-continue", &*length];
            let body = "y".repeat(size);
            let request = request_head(&gateway, "PUT", path, &[&lines[..], &waiting].concat()) + "\r\n";
            // A client that waits for 100 sees the refusal, and that no other request can follow.
            let mut connection = Http1Connection::open(&gateway).await;
            connection.send(&request).await;
            let refused = connection.read_response().await;
            let expected = if path.starts_with("/dav") { refused.status == status } else { refused.status >= 300 };
            assert!(expected && refused.header("connection") == "close", "{path}: {refused:?}");
            connection.send(&body).await;
            // One that has sent its body before it reads sees it, too.
            let mut connection = Http1Connection::open(&gateway).await;
            connection.send(request + &body).await;
            let response = connection.read_response().await;
            assert_eq!(response.status, refused.status, "{path}");
            assert_reusable_or_closed(&gateway, &dav, &mut connection, &response).await;
        }
    }
    let waiting = ["Expect: 100-continue", "Content-Length: 300000", &authorization];
    let mut connection = Http1Connection::open(&gateway).await;
    connection.send(request_head(&gateway, "PUT", "/dav/x", &waiting) + "\r\n").await;
    assert_eq!(connection.read_response().await.status, 100);
    connection.send("y".repeat(300_000)).await;
    let stored = connection.read_response().await;
    assert_eq!((stored.status, stored.header("connection")), (201, ""), "{stored:?}");
}

/// Java's own HTTP client asks `Expect: 100-continue` over HTTP/2 as well, and waited for ever: what is accepted gets
/// its 100 before the body (RFC 9110 section 10.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn expect_100_over_http2_gets_100_before_the_body() {
    let (gateway, dav) = start_with_alice().await;
    let mut requests = connect(&gateway).await;
    let headers =
        [("expect", "100-continue"), ("content-length", "5"), ("authorization", dav.authorization()), ("depth", "0")];
    for (method, path, status) in [("PUT", "/dav/a", 201), ("PROPFIND", "/dav/a", 400)] {
        let (mut response, mut body) =
            requests.send_request(request(&gateway, method, path, &headers), false).expect("sent");
        let interim = tokio::time::timeout(RESPONSE_TIMEOUT, poll_fn(|cx| response.poll_informational(cx)));
        let interim = interim.await.expect("in time").expect("an interim response").expect("no error");
        assert_eq!(interim.status(), 100, "{method}");
        body.send_data("hello".into(), true).expect("sent");
        assert_eq!(response.await.expect("a response").status(), status, "{method}");
    }
    assert_eq!(dav.get("/dav/a").await.text(), "hello");
}

/// The same client where the upload is refused: the status comes before the body, which is not wanted then.
#[tokio::test(flavor = "multi_thread")]
async fn refused_expect_100_over_http2_gets_its_status_before_the_body() {
    let (gateway, dav) = start_with_alice().await;
    let mut requests = connect(&gateway).await;
    for (path, headers, status) in [
        ("/dav/a", &[("expect", "100-continue"), ("content-length", "5")][..], 401),
        ("/dav/no/such", &[("expect", "100-continue"), ("authorization", dav.authorization())], 409),
    ] {
        let (response, mut body) = requests.send_request(request(&gateway, "PUT", path, headers), false).expect("sent");
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, response).await.expect("in time");
        let response = response.expect("a response");
        assert_eq!(response.status(), status);
        assert!(response.headers().get("connection").is_none());
        let reset = poll_fn(|cx| body.poll_reset(cx)).await.expect("a reset");
        assert_eq!(reset, Reason::NO_ERROR, "the body is not wanted (RFC 9113 section 8.1)");
    }
    assert_eq!(dav.get("/dav/a").await.status, 404);
}

/// Java's HTTP client asks every `http://` server for an upgrade to HTTP/2 with its first request, a body included. A
/// server that does not upgrade answers as if it had not been asked.
#[tokio::test(flavor = "multi_thread")]
async fn h2c_upgrade_request_is_answered_over_http1() {
    let (gateway, dav) = start_with_alice().await;
    let mut connection = Http1Connection::open(&gateway).await;
    let content = "x".repeat(300_000);
    for (method, path, body, status) in [
        ("PUT", "/dav/a", &*content, 201),
        ("GET", "/dav/a", "", 200),
        ("PROPFIND", "/dav/", PROPFIND_BODY, 207),
        ("MKCOL", "/dav/folder", "", 201),
        ("DELETE", "/dav/folder", "", 204),
    ] {
        let lines = [
            &*authorization_line(&dav),
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAoAAA",
            &format!("Content-Length: {}", body.len()),
            "Depth: 1",
        ];
        let lines = if method == "PROPFIND" { &lines[..] } else { &lines[..5] };
        let answer = connection.send_request(request_head(&gateway, method, path, lines), body).await;
        assert_eq!(answer.status, status, "{method}: {answer:?}");
        assert!(method != "GET" || answer.body == content.as_bytes());
    }
    let plain =
        connection.send_request(request_head(&gateway, "HEAD", "/dav/a", &[&*authorization_line(&dav)]), "").await;
    assert_eq!(plain.header("content-length"), "300000", "the connection goes on without");
}
