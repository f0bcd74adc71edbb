//! Attacks by unauthenticated clients and by users, one at a time, and how another user is served meanwhile. All at
//! once are in `combined_attacks.rs`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::bystander::Bystander;
use crate::persistent_connection::PersistentConnection;
use crate::support::DavClient;
use crate::support::server::{ServerProcess, create_token, run_cli};

/// Addresses and connections from each: together the default limit on unauthenticated connections.
const UNAUTHENTICATED_CONNECTIONS: (u8, usize) = (4, 64);

fn start_server() -> (TempDir, ServerProcess) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let server = ServerProcess::start(folder.path());
    (folder, server)
}

fn create_user_and_token(folder: &Path, login: &str) -> String {
    run_cli(folder, &["admin", "user", "create", login]);
    create_token(folder, login)
}

async fn connect(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, last], 0).into()).expect("bound");
    socket.connect(to).await.expect("connects")
}

/// Sends a request that needs no credentials, over HTTP/1.1 or HTTP/2, and returns the open connection.
async fn open_idle_connection(last: u8, to: SocketAddr, http2: bool) -> TcpStream {
    let mut stream = connect(last, to).await;
    if http2 {
        let (requests, connection) = h2::client::handshake(&mut stream).await.expect("HTTP/2");
        let asked = async {
            let mut requests = requests.ready().await.expect("ready");
            let request = http::Request::get("http://x/healthz").body(()).expect("a request");
            let (response, _) = requests.send_request(request, true).expect("sent");
            assert_eq!(response.await.expect("an answer").status(), 200);
            requests
        };
        // The request completes before the connection ends: nothing drives the connection afterwards.
        tokio::select! {
            requests = asked => std::mem::forget(requests),
            _ = connection => panic!("the connection ended"),
        }
    } else {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    stream
}

async fn assert_unauthenticated_connections_block_no_user(http2: bool) {
    let (folder, server) = start_server();
    let bystander = Bystander::start(folder.path(), &server).await;
    let (addresses, each) = UNAUTHENTICATED_CONNECTIONS;
    let mut silent = Vec::new();
    for last in 1..=addresses {
        for _ in 0..each {
            silent.push(open_idle_connection(last, server.http, http2).await);
        }
    }
    // The one that makes room has waited for a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bystander.assert_unaffected().await;
    drop(silent);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_http1_connections_at_the_limit_block_no_user() {
    assert_unauthenticated_connections_block_no_user(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_http2_connections_at_the_limit_block_no_user() {
    assert_unauthenticated_connections_block_no_user(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_from_the_same_address_do_not_block_a_valid_token() {
    let (folder, server) = start_server();
    let bystander = Bystander::start(folder.path(), &server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut guessing = JoinSet::new();
    for number in 0..8 {
        let (stop, to) = (Arc::clone(&stop), server.http);
        guessing.spawn(async move {
            let mut connection = PersistentConnection::open("127.0.0.9", to, &format!("pgt_guess{number}")).await;
            let mut throttled = 0;
            while !stop.load(Ordering::Relaxed) {
                match connection.send("PROPFIND", "/dav/", "").await.status {
                    401 => {}
                    429 => throttled += 1,
                    other => panic!("{other}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            throttled
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    bystander.assert_unaffected().await;
    stop.store(true, Ordering::Relaxed);
    let throttled: usize = guessing.join_all().await.iter().sum();
    assert!(throttled > 0, "the attack has begun");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_reports_of_an_emptied_directory_end_and_delay_nobody() {
    let (folder, server) = start_server();
    let bystander = Bystander::start(folder.path(), &server).await;
    let mallory = create_user_and_token(folder.path(), "mallory");
    let many = folder.path().join("files/mallory/d");
    std::fs::create_dir_all(&many).expect("a folder");
    for number in 0..2000 {
        std::fs::write(many.join(number.to_string()), "").expect("a file");
    }
    let dav = DavClient::new(server.http, "mallory", &mallory);
    let body = "<sync-collection xmlns='DAV:'><sync-token/><sync-level>1</sync-level><prop><getetag/></prop></sync-collection>";
    assert_eq!(dav.send("REPORT", "/dav/mallory/d", &[("depth", "0")], body).await.status, 207);
    std::fs::remove_dir_all(&many).expect("removed");
    std::fs::create_dir(&many).expect("a folder");
    let stop = Arc::new(AtomicBool::new(false));
    let mut reporting = JoinSet::new();
    for _ in 0..20 {
        let (dav, stop) = (dav.clone(), Arc::clone(&stop));
        reporting.spawn(async move {
            let mut completed = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = dav.send("REPORT", "/dav/mallory/d", &[("depth", "0")], body).await;
                completed += usize::from(answer.status == 207);
            }
            completed
        });
    }
    bystander.assert_unaffected().await;
    stop.store(true, Ordering::Relaxed);
    let completed = tokio::time::timeout(Duration::from_secs(60), reporting.join_all()).await.expect("all end");
    assert!(completed.iter().all(|completed| *completed > 0), "{completed:?}");
    server.stop();
}
