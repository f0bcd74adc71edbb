//! Clients that disconnect while their requests are worked on: the work ends, and queued requests are not started. So a
//! user who sends many and disconnects delays nobody. The same for REST alone is in
//! `tests/gateway/rest_concurrency.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bystander::SCHEDULER_DELAY;
use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, token_id};

const FILE_COUNT: usize = 1000;
/// Properties that no file has, which each entry of the response names: their number, and the length of their namespaces.
const PROPERTY_COUNT_AND_LENGTH: (usize, usize) = (100, 1000);
/// Requests whose client disconnects: fewer than the limit on unauthenticated connections.
const DISCONNECTED_REQUESTS: usize = 60;
/// Requests of the other user whose median time is taken, before and after the disconnects.
const MEASURED_REQUESTS: usize = 40;

/// Returns a request that costs much processor time for few bytes.
fn slow_propfind_request(token: &str) -> Vec<u8> {
    let (count, length) = PROPERTY_COUNT_AND_LENGTH;
    let namespace = "x".repeat(length);
    let names: String = (0..count).map(|number| format!("<a{number} xmlns=\"urn:{namespace}\"/>")).collect();
    let body = format!("<propfind xmlns=\"DAV:\"><prop>{names}</prop></propfind>");
    let length = body.len();
    format!(
        "PROPFIND /dav/mallory/many/ HTTP/1.1\r\nHost: x\r\nDepth: infinity\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn send_request(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request).await.expect("sent");
    stream
}

/// Returns how long a request takes until all of its answer has come.
async fn response_time(address: SocketAddr, request: &[u8]) -> Duration {
    let since = Instant::now();
    let mut stream = send_request(address, request).await;
    let (mut block, mut tail) = (vec![0; 1 << 20], Vec::new());
    while !tail.ends_with(b"0\r\n\r\n") {
        let read = stream.read(&mut block).await.expect("more");
        assert!(read > 0, "cut");
        tail.extend_from_slice(&block[..read]);
        tail.drain(..tail.len().saturating_sub(5));
    }
    since.elapsed()
}

/// Returns the median of the times that a small request takes.
async fn median_response_time(dav: &DavClient) -> Duration {
    let mut times = Vec::new();
    for _ in 0..MEASURED_REQUESTS {
        let since = Instant::now();
        assert_eq!(dav.status("PROPFIND", "/dav/alice/").await, 207);
        times.push(since.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnected_clients_leave_no_work_that_delays_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let many = folder.path().join("files/mallory/many");
    std::fs::create_dir_all(&many).expect("folders");
    for number in 0..FILE_COUNT {
        std::fs::write(many.join(number.to_string()), "").expect("a file");
    }
    let server = ServerProcess::start(folder.path());
    let run = |arguments: &[&str]| run_cli(folder.path(), arguments);
    let token = |login: &str| create_token(folder.path(), login);
    run(&["admin", "user", "create", "mallory"]);
    run(&["admin", "user", "create", "alice"]);
    let (mallory, revoked_token, alice) = (token("mallory"), token("mallory"), token("alice"));
    let alice = DavClient::new(server.http, "alice", &alice);
    let revoked_dav = DavClient::new(server.http, "mallory", &revoked_token);
    let request = slow_propfind_request(&mallory);

    let alone = response_time(server.http, &request).await;
    let before = median_response_time(&alice).await;
    assert_eq!(revoked_dav.status("HEAD", "/dav/mallory/many/1").await, 200);
    for _ in 0..DISCONNECTED_REQUESTS {
        drop(send_request(server.http, &request).await);
    }
    let hung_up = Instant::now();
    let during = median_response_time(&alice).await;
    run(&["apitoken", "revoke", token_id(&revoked_token)]);
    assert_eq!(revoked_dav.status("HEAD", "/dav/mallory/many/1").await, 401, "revoked meanwhile");
    let afterwards = response_time(server.http, &request).await;
    let afterwards_since_disconnect = hung_up.elapsed();
    println!(
        "alone {alone:?}, then {afterwards:?}, {afterwards_since_disconnect:?} after {DISCONNECTED_REQUESTS} callers hung up; others {before:?}, {during:?}"
    );
    // Worked off by as many threads as there are processors, they would take half their number times as long.
    assert!(afterwards < 4 * alone + Duration::from_secs(2), "{afterwards:?} in place of {alone:?}");
    assert!(during < 2 * before + SCHEDULER_DELAY, "{during:?} in place of {before:?}");
    server.stop();
}
