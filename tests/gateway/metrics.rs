//! Metrics: exact counts of known operations on both protocols, the two addresses at which they are read, and who may
//! read them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use patgate::auth::Clock;

use crate::support::browser::Browser;
use crate::support::{Fixture, open_flags, send_raw};

async fn start_gateway() -> Fixture {
    Fixture::start_with(Clock::system(), |settings| settings.metrics = Some(([127, 0, 0, 1], 0).into())).await
}

/// Sends a request to an address and returns head and body of the response.
async fn exchange(address: SocketAddr, head: &str) -> (String, String) {
    let response = send_raw(address, format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let response = String::from_utf8(response).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    (head.to_owned(), body.to_owned())
}

/// Values of the page, by name and labels.
fn values(page: &str) -> BTreeMap<String, f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

async fn read_metrics(gateway: &Fixture) -> BTreeMap<String, f64> {
    let (head, page) = exchange(gateway.metrics.expect("a listener"), "GET /metrics HTTP/1.1").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    values(&page)
}

/// Reads metrics until a value is there: the end of a response is reported once it was sent.
async fn wait_for(gateway: &Fixture, expected: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let mut found = read_metrics(gateway).await;
    for _ in 0..200 {
        if expected.iter().all(|(name, value)| found.get(*name) == Some(value)) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        found = read_metrics(gateway).await;
    }
    for (name, value) in expected {
        assert_eq!(found.get(*name), Some(value), "{name}: {found:#?}");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_over_webdav_are_counted_exactly() {
    let gateway = start_gateway().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    assert_eq!(alice.put("/dav/a", "hello").await.status, 201);
    for _ in 0..3 {
        assert_eq!(alice.get("/dav/a").await.body, b"hello");
    }
    assert_eq!(alice.get("/dav/missing").await.status, 404);
    assert_eq!(alice.status("HEAD", "/dav/a").await, 200);
    for method in ["BREW", "TRACE", "get"] {
        assert!(alice.status(method, "/dav/a").await >= 400);
    }
    assert_eq!(alice.status("GET", "/healthz").await, 200);
    assert_eq!(alice.status("GET", "/nowhere").await, 404);
    assert_eq!(alice.status("GET", "/api/v1/tokens/self").await, 200);
    assert_eq!(gateway.dav("alice", "pgt_wrong").get("/dav/a").await.status, 401);
    let found = wait_for(
        &gateway,
        &[
            ("patgate_requests_total{protocol=\"webdav\",operation=\"PUT\",status=\"2xx\"}", 1.0),
            ("patgate_requests_total{protocol=\"webdav\",operation=\"GET\",status=\"2xx\"}", 3.0),
            ("patgate_requests_total{protocol=\"webdav\",operation=\"GET\",status=\"4xx\"}", 2.0),
            ("patgate_requests_total{protocol=\"webdav\",operation=\"HEAD\",status=\"2xx\"}", 1.0),
            ("patgate_requests_total{protocol=\"http\",operation=\"GET\",status=\"2xx\"}", 1.0),
            ("patgate_requests_total{protocol=\"http\",operation=\"GET\",status=\"4xx\"}", 1.0),
            ("patgate_requests_total{protocol=\"api\",operation=\"GET\",status=\"2xx\"}", 1.0),
            ("patgate_received_bytes_total{protocol=\"webdav\",operation=\"PUT\"}", 5.0),
            ("patgate_authentications_total{protocol=\"webdav\",outcome=\"malformed\"}", 1.0),
            ("patgate_authentications_total{protocol=\"api\",outcome=\"accepted\"}", 1.0),
            ("patgate_argon2_runs_total{purpose=\"verify\"}", 1.0),
            ("patgate_tokens{status=\"live\"}", 1.0),
            ("patgate_users{status=\"enabled\"}", 1.0),
            ("patgate_bans{origin=\"manual\"}", 0.0),
            ("patgate_root_available", 1.0),
            ("patgate_store_healthy", 1.0),
            ("patgate_connections_max{listener=\"sftp\",state=\"open\"}", 1024.0),
        ],
    )
    .await;
    let others: Vec<_> = found.keys().filter(|name| name.contains("operation=\"other\"")).collect();
    assert!(!others.is_empty() && !found.keys().any(|name| name.contains("BREW")), "{others:?}");
    assert!(!found.keys().any(|name| name.contains("alice") || name.contains("pgt_")), "no names");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_over_sftp_are_counted_exactly() {
    let gateway = start_gateway().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    sftp.put("/a", b"hello").await.expect("written");
    let handle = sftp.open_file(b"/a", open_flags::READ).await.expect("opened");
    assert_eq!(sftp.read_at(&handle, 0, 3).await.expect("read"), b"hel");
    assert_eq!(sftp.read_at(&handle, 3, 100).await.expect("read"), b"lo");
    sftp.read_at(&handle, 5, 100).await.expect_err("the end");
    sftp.close(&handle).await.expect("closed");
    sftp.stat("/missing").await.expect_err("refused");
    sftp.mkdir("/d").await.expect("created");
    sftp.extended("nonsense@example.org", &[]).await.expect_err("refused");
    let sample = |operation: &str, status: &str| {
        format!("patgate_requests_total{{protocol=\"sftp\",operation=\"{operation}\",status=\"{status}\"}}")
    };
    let names = [
        (sample("OPEN", "ok"), 2.0),
        (sample("CLOSE", "ok"), 2.0),
        (sample("WRITE", "ok"), 1.0),
        (sample("READ", "ok"), 2.0),
        (sample("READ", "eof"), 1.0),
        (sample("STAT", "no_such_file"), 1.0),
        (sample("MKDIR", "ok"), 1.0),
        (sample("other", "op_unsupported"), 1.0),
        ("patgate_received_bytes_total{protocol=\"sftp\",operation=\"WRITE\"}".to_owned(), 5.0),
        ("patgate_sent_bytes_total{protocol=\"sftp\",operation=\"READ\"}".to_owned(), 5.0),
        ("patgate_connections{listener=\"sftp\",state=\"authenticated\"}".to_owned(), 1.0),
        ("patgate_sessions{protocol=\"sftp\"}".to_owned(), 1.0),
        ("patgate_authentications_total{protocol=\"sftp\",outcome=\"accepted\"}".to_owned(), 1.0),
    ];
    let expected: Vec<_> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    wait_for(&gateway, &expected).await;
    sftp.disconnect().await;
    wait_for(&gateway, &[("patgate_sessions{protocol=\"sftp\"}", 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn histogram_has_every_operation_once_and_grows_with_its_bounds() {
    let gateway = start_gateway().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    for _ in 0..20 {
        assert_eq!(alice.status("PROPFIND", "/dav/").await, 207);
    }
    let found = wait_for(
        &gateway,
        &[("patgate_requests_total{protocol=\"webdav\",operation=\"PROPFIND\",status=\"2xx\"}", 20.0)],
    )
    .await;
    let name =
        |part: &str| format!("patgate_request_duration_seconds_{part}{{protocol=\"webdav\",operation=\"PROPFIND\"");
    let prefix = format!("{},le=", name("bucket"));
    let bounds: Vec<(f64, f64)> = found
        .iter()
        .filter_map(|(name, count)| {
            let bound = name.strip_prefix(&prefix)?.trim_matches(['"', '}']);
            Some((bound.parse().unwrap_or(f64::INFINITY), *count))
        })
        .collect();
    let mut sorted = bounds.clone();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(sorted.len(), 13);
    assert!(sorted.is_sorted_by(|a, b| a.1 <= b.1), "{sorted:?}");
    assert_eq!(sorted.last(), Some(&(f64::INFINITY, 20.0)));
    assert_eq!(found.get(&format!("{}}}", name("count"))), Some(&20.0));
    assert!(found.get(&format!("{}}}", name("sum"))).is_some_and(|sum| *sum > 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_download_counts_the_bytes_that_were_taken() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = start_gateway().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let size = 64 << 20;
    gateway.write_host_file("large", vec![7; size]);
    let alice = gateway.dav("alice", &token);
    let mut stream = tokio::net::TcpStream::connect(gateway.http).await.expect("connected");
    let head = format!("GET /dav/large HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n", alice.authorization());
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.read_exact(&mut [0; 1024]).await.expect("some of it");
    drop(stream);
    let name = "patgate_requests_total{protocol=\"webdav\",operation=\"GET\",status=\"2xx\"}";
    let found = wait_for(&gateway, &[(name, 1.0)]).await;
    let sent = found["patgate_sent_bytes_total{protocol=\"webdav\",operation=\"GET\"}"];
    assert!(sent >= 1.0 && sent < size as f64, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_listener_serves_metrics_and_nothing_else() {
    let gateway = start_gateway().await;
    let address = gateway.metrics.expect("a listener");
    let (head, body) = exchange(address, "HEAD /metrics HTTP/1.1").await;
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{head}");
    for (request, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /dav/ HTTP/1.1", "404"),
        ("GET /metrics/ HTTP/1.1", "404"),
        ("GET /api/v1/tokens HTTP/1.1", "404"),
        ("POST /metrics HTTP/1.1", "405"),
        ("DELETE /metrics HTTP/1.1", "405"),
    ] {
        let (head, _) = exchange(address, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
    // The page says what kind each metric is, and each is there once.
    let (_, page) = exchange(address, "GET /metrics HTTP/1.1").await;
    let kinds: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let mut distinct = kinds.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(kinds.len() > 20 && distinct.len() == kinds.len(), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn main_listener_serves_metrics_to_tokens_with_the_role() {
    let gateway = start_gateway().await;
    gateway.run_cli(&["admin", "user", "create", "prometheus", "--no-home", "--role", "metrics.read"]);
    gateway.run_cli(&["admin", "user", "create", "root", "--no-home", "--role", "admin"]);
    let alice = gateway.create_user_and_token("alice", "/:rw");
    let reader = gateway.create_token("prometheus", &["-e", "1h", "--role", "metrics.read"]);
    let without = gateway.create_token("prometheus", &["-e", "1h", "--role", "none"]);
    let root = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    for (login, token) in [("prometheus", &reader), ("root", &root)] {
        let page = gateway.dav(login, token).get("/metrics").await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/plain; version=0.0.4"), "{login}");
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(values(&page.text())["patgate_users{status=\"enabled\"}"] >= 3.0, "{login}");
    }
    for (login, token) in [("prometheus", &without), ("alice", &alice)] {
        let refused = gateway.rest(login, token).get("/metrics").await;
        assert_eq!((refused.status, refused.problem_kind().as_str()), (403, "role-missing"), "{login}");
        assert_eq!(refused.json()["role"], "metrics.read");
    }
    let (head, _) = exchange(gateway.http, "GET /metrics HTTP/1.1").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    assert_eq!(gateway.dav("root", &root).status("POST", "/metrics").await, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_events_and_outages_are_shown() {
    let gateway = start_gateway().await;
    gateway.create_user("alice", &[]);
    wait_for(&gateway, &[("patgate_audit_events_total{event=\"user.created\"}", 1.0)]).await;
    // Until the row counts are read anew, the page has the ones before.
    let found = read_metrics(&gateway).await;
    assert_eq!(found["patgate_tree_outages"], 0.0);
    assert!(
        found["patgate_ballast_bytes"] > 0.0 && found["patgate_ballast_bytes"] == found["patgate_ballast_target_bytes"]
    );
    assert!(!found.contains_key("patgate_certificate_expiry_timestamp_seconds"), "there is no certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_per_user_have_operations_bytes_and_storage() {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.metrics = Some(([127, 0, 0, 1], 0).into());
        settings.metrics_per_user = true;
    })
    .await;
    gateway.create_host_directory("/home");
    gateway.run_cli(&["admin", "user", "create", "alice", "--grant", "/home:rw", "--quota", "100"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let alice = gateway.dav("alice", &token);
    assert_eq!(alice.put("/dav/home/file", "hello").await.status, 201);
    assert_eq!(alice.get("/dav/home/file").await.body, b"hello");
    assert_eq!(alice.get("/dav/home/missing").await.status, 404);
    let mut sftp = gateway.sftp("alice", &token).await;
    sftp.put("/home/other", b"four").await.expect("written");
    let bob_token = gateway.create_user_and_token("bob", "/:r");
    let bob = Browser::sign_in_new(&gateway, "bob", &bob_token).await;
    assert_eq!(bob.get("/console/tokens").await.status, 200);
    assert_eq!(gateway.dav("bob", &token).get("/dav/home/file").await.status, 401);
    let found = wait_for(
        &gateway,
        &[
            ("patgate_user_requests_total{user=\"alice\",protocol=\"webdav\"}", 3.0),
            ("patgate_user_received_bytes_total{user=\"alice\",protocol=\"webdav\"}", 5.0),
            ("patgate_user_received_bytes_total{user=\"alice\",protocol=\"sftp\"}", 4.0),
            ("patgate_user_requests_total{user=\"bob\",protocol=\"console\"}", 2.0),
            ("patgate_user_stored_bytes{user=\"alice\"}", 9.0),
            ("patgate_user_storage_quota_bytes{user=\"alice\"}", 100.0),
        ],
    )
    .await;
    // LOGIN, OPEN, WRITE and CLOSE at least.
    assert!(found["patgate_user_requests_total{user=\"alice\",protocol=\"sftp\"}"] >= 4.0, "{found:#?}");
    assert!(found["patgate_user_sent_bytes_total{user=\"alice\",protocol=\"webdav\"}"] >= 5.0, "{found:#?}");
    let names: Vec<_> = found.keys().filter(|name| name.contains("bob") || name.contains("(others)")).collect();
    assert!(names.iter().all(|name| name.contains("console")), "a refused login is nobody's operation: {names:?}");
}
