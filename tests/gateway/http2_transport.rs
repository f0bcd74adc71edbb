//! HTTP/2 requests whose stream or connection ends early, and large transfers on concurrent streams. Limits on HTTP/2
//! are in `connection_limits.rs`, slow peers in `slow_peers.rs`, `Expect: 100-continue` in
//! `bug_reports/webdav_early_close.rs`.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http2::{connect, request};
use crate::support::{DavClient, Fixture};

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

/// A header field as HPACK writes it without any table (RFC 7541 section 6.2.2).
fn hpack_literal(name: &str, value: &str) -> Vec<u8> {
    let length = |length: usize| match u8::try_from(length).expect("short") {
        short @ ..127 => vec![short],
        long => vec![127, long - 127],
    };
    [&[0][..], &length(name.len()), name.as_bytes(), &length(value.len()), value.as_bytes()].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_request_is_executed_after_its_stream_or_connection_ends() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let host = gateway.http.to_string();
    let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat();
    let fields = |method: &str, path: &str| {
        [
            hpack_literal(":method", method),
            hpack_literal(":path", path),
            hpack_literal(":scheme", "http"),
            hpack_literal(":authority", &host),
            hpack_literal("authorization", dav.authorization()),
        ]
        .concat()
    };
    let mut connections = Vec::new();
    for number in 0..10 {
        let (file, folder) = (format!("/file{number}"), format!("/folder{number}"));
        let upload = [fields("PUT", &format!("/dav{file}")), hpack_literal("content-length", "5")].concat();
        let mut stream = TcpStream::connect(gateway.http).await.expect("a connection");
        let mut bytes = start.clone();
        bytes.extend(frame(1, 4, 1, &upload));
        bytes.extend(frame(0, 1, 1, b"hello"));
        bytes.extend(frame(1, 5, 3, &fields("MKCOL", &format!("/dav{folder}"))));
        connections.extend([file, folder]);
        if number % 2 == 0 {
            bytes.extend(frame(3, 0, 1, &8u32.to_be_bytes()));
        }
        stream.write_all(&bytes).await.expect("sent");
    }
    for path in connections {
        let appears = async {
            while !gateway.host_path(&path).exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), appears).await.expect(&path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_whose_stream_is_reset_leaves_nothing() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let mut requests = connect(&gateway).await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        for headers in [
            &[("authorization", dav.authorization())][..],
            &[("authorization", dav.authorization()), ("content-length", "10")],
        ] {
            let sent = requests.send_request(request(&gateway, "PUT", "/dav/a", headers), false);
            let (response, mut body) = sent.expect("sent");
            body.send_data("short".into(), false).expect("sent");
            tokio::time::sleep(Duration::from_millis(50)).await;
            body.send_reset(reason);
            drop(response);
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(dav.get("/dav/a").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_work_over_concurrent_streams() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let content: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
    let transfers = (0..8).map(|number| {
        let (client, url, content) = (client.clone(), dav.url(&format!("/dav/{number}")), content.clone());
        let authorization = dav.authorization().to_owned();
        tokio::spawn(async move {
            let put = client.put(&url).header("authorization", &authorization).body(content.clone());
            assert_eq!(put.send().await.expect("stored").status(), 201);
            let head = client.head(&url).header("authorization", &authorization).send().await.expect("a response");
            assert_eq!(head.headers()["content-length"], "8000000");
            let response = client.get(&url).header("authorization", &authorization).send().await.expect("a response");
            assert!(response.headers().contains_key("date"));
            assert_eq!(response.bytes().await.expect("whole"), content);
        })
    });
    for transfer in transfers.collect::<Vec<_>>() {
        transfer.await.expect("no failure");
    }
    let about = client.head(dav.url("/")).send().await.expect("a response");
    assert_eq!(about.status(), 200);
    assert_eq!(about.bytes().await.expect("no body"), Bytes::new());
    let refused = client.put(dav.url("/dav/x")).body(content).send().await.expect("the challenge");
    assert_eq!(refused.status(), 401);
}
