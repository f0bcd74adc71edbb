//! All attacks at once, by unauthenticated clients and by users with a token, beside ordinary users: none of the
//! ordinary requests fails, and nothing that was acknowledged is lost. Each attack by itself is in `attacks.rs`.
//!
//! `RESILIENCE_SECONDS` sets the duration; ten minutes by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::server::{ServerProcess, run_cli};
use crate::support::{DavClient, SftpClient, token_id};

const ORDINARY_USERS: usize = 20;
const DEFAULT_ATTACK_SECONDS: u64 = 15;
/// Far longer than any ordinary request takes, with all attacks beside it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The server, and when the attacks are to stop.
#[derive(Clone)]
struct AttackTarget {
    http: SocketAddr,
    sftp: SocketAddr,
    mallory: String,
    stop: Arc<AtomicBool>,
}

impl AttackTarget {
    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
        let Self { http, mallory, .. } = self;
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {http}\r\nAuthorization: Bearer {mallory}\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Connects from an address of this machine, where the server takes it.
    async fn connect(&self, last: u8, to: SocketAddr) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind(([127, 0, 0, last], 0).into()).ok()?;
        tokio::time::timeout(Duration::from_secs(5), socket.connect(to)).await.ok()?.ok()
    }

    /// Sends a request on a new connection, and disconnects.
    async fn send_and_hang_up(&self, request: &[u8]) {
        if let Some(mut stream) = self.connect(1, self.http).await {
            let _ = stream.write_all(request).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a request again and again on one connection; whatever is answered is passed over.
    async fn repeat(&self, request: impl Fn(usize) -> Vec<u8>) {
        let mut number = 0;
        while self.is_running() {
            let Some(mut stream) = self.connect(1, self.http).await else { continue };
            let mut answer = vec![0; 64 * 1024];
            while self.is_running() && stream.write_all(&request(number)).await.is_ok() {
                number += 1;
                match tokio::time::timeout(REQUEST_TIMEOUT, stream.read(&mut answer)).await {
                    Ok(Ok(read)) if read > 0 => {}
                    _ => break,
                }
            }
        }
    }
}

/// Holds unauthenticated connections to both listeners open, from four addresses, and sends no request.
async fn hold_unauthenticated_connections(target: AttackTarget) {
    let mut connections = Vec::new();
    while target.is_running() {
        for last in 11..15 {
            for to in [target.http, target.sftp] {
                connections.extend(target.connect(last, to).await);
            }
        }
        if connections.len() > 600 {
            connections.drain(..200);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Guesses tokens without credentials.
async fn guess_tokens(target: AttackTarget) {
    let guess = |number: usize| {
        format!("GET /dav/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer pgt_guess{number}\r\n\r\n").into_bytes()
    };
    target.repeat(guess).await;
}

/// Requests long listings of properties that don't exist, and disconnects.
async fn abandon_listings(target: AttackTarget) {
    let names: String = (0..200).map(|n| format!("<p{n} xmlns=\"urn:{}\"/>", "x".repeat(200))).collect();
    let body = format!("<propfind xmlns=\"DAV:\"><prop>{names}</prop></propfind>");
    let request = target.request("PROPFIND", "/dav/mallory/many/", "Depth: infinity\r\n", &body);
    while target.is_running() {
        target.send_and_hang_up(&request).await;
    }
}

/// Requests copies of a directory with many files, and disconnects.
async fn abandon_copies(target: AttackTarget) {
    let request =
        target.request("COPY", "/dav/mallory/many/", "Destination: /dav/mallory/copy/\r\nOverwrite: T\r\n", "");
    while target.is_running() {
        target.send_and_hang_up(&request).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Requests digests of a large file, and disconnects.
async fn digests(target: AttackTarget) {
    let request = target.request("GET", "/dav/mallory/holes", "Want-Repr-Digest: sha-512=9\r\n", "");
    while target.is_running() {
        target.send_and_hang_up(&request).await;
    }
}

/// Reports that compare the same folder again and again.
async fn repeat_sync_reports(target: AttackTarget) {
    let body = "<sync-collection xmlns=\"DAV:\"><sync-token/><sync-level>1</sync-level><prop><getetag/></prop></sync-collection>";
    target.repeat(|_| target.request("REPORT", "/dav/mallory/many/", "Depth: 0\r\n", body)).await;
}

/// Tokens that policy does not give, each of which would cost a run of argon2.
async fn request_tokens_beyond_policy(target: AttackTarget) {
    let json = "Content-Type: application/json\r\n";
    target.repeat(|_| target.request("POST", "/api/v1/tokens", json, "{}")).await;
}

/// Properties as large as they may be, on one file after the other.
async fn set_large_properties(target: AttackTarget) {
    let value = "x".repeat(60_000);
    let body = format!(
        "<propertyupdate xmlns=\"DAV:\"><set><prop><large xmlns=\"u:\">{value}</large></prop></set></propertyupdate>"
    );
    target
        .repeat(|number| target.request("PROPPATCH", &format!("/dav/mallory/many/{}", number % 2000), "", &body))
        .await;
}

/// Answers over HTTP/2 that nobody takes.
async fn leave_http2_responses_unread(target: AttackTarget) {
    while target.is_running() {
        let Some(stream) = target.connect(1, target.http).await else { continue };
        let Ok((requests, connection)) = h2::client::handshake(stream).await else { continue };
        let connection = tokio::spawn(connection);
        let mut unread = Vec::new();
        if let Ok(mut requests) = requests.ready().await {
            for _ in 0..60 {
                let get = http::Request::get(format!("http://{}/dav/mallory/large", target.http));
                let get = get.header("authorization", format!("Bearer {}", target.mallory)).body(());
                let Ok((response, _)) = requests.send_request(get.expect("a request"), true) else { break };
                unread.push(response);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection.abort();
    }
}

/// Sessions with as many open files as they get.
async fn exhaust_sftp_handles(target: AttackTarget) {
    while target.is_running() {
        let Some(mut sftp) = SftpClient::connect(target.sftp, "mallory", &target.mallory).await else { continue };
        for number in 0..400 {
            if sftp.open_file(format!("/mallory/open-{number}").as_bytes(), 2 | 8 | 16).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        sftp.drop_connection();
    }
}

/// Writes, reads, lists and removes files over both protocols, and checks what comes back. Returns how often.
async fn run_ordinary_user(target: AttackTarget, login: String, token: String) -> usize {
    let dav = DavClient::new(target.http, &login, &token);
    let mut rounds = 0;
    while target.is_running() {
        let round = async {
            let content = format!("{login} {rounds}").repeat(1 + rounds % 500);
            let path = format!("/dav/{login}/{}", rounds % 8);
            let put = dav.put(&path, content.clone()).await;
            assert!(matches!(put.status, 201 | 204), "PUT of {login}: {}: {}", put.status, put.text());
            let response = dav.get(&path).await;
            assert_eq!((response.status, response.text() == content), (200, true), "GET of {login}");
            let listed = dav.send("PROPFIND", &format!("/dav/{login}/"), &[("depth", "1")], "").await;
            assert_eq!(listed.status, 207, "PROPFIND of {login}: {}", listed.text());
            if rounds % 5 == 0 {
                let mut sftp = SftpClient::connect(target.sftp, &login, &token).await.expect("logged in");
                let place = format!("/{login}/over-sftp");
                sftp.put(&place, content.as_bytes()).await.expect("put");
                assert_eq!(sftp.get(&place).await.expect("got"), content.as_bytes(), "{login} over SFTP");
                assert_eq!(dav.get(&format!("/dav/{login}/over-sftp")).await.text(), content, "{login} over both");
                sftp.close_channel().await;
            }
        };
        tokio::time::timeout(REQUEST_TIMEOUT, round).await.expect("an ordinary round in time");
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rounds
}

fn start_server() -> (TempDir, ServerProcess) {
    let folder = tempfile::tempdir().expect("a folder");
    let many = folder.path().join("files/mallory/many");
    std::fs::create_dir_all(&many).expect("folders");
    for number in 0..2000 {
        std::fs::write(many.join(number.to_string()), "content").expect("a file");
    }
    std::fs::write(folder.path().join("files/mallory/large"), vec![7; 1 << 20]).expect("a file");
    let holes = std::fs::File::create(folder.path().join("files/mallory/holes")).expect("a file");
    holes.set_len(64 << 20).expect("of nothing but holes");
    let server = ServerProcess::start(folder.path());
    (folder, server)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: cargo test --test resilience -- --ignored"]
async fn ordinary_users_are_served_during_all_attacks() {
    let (folder, server) = start_server();
    let run = |arguments: &[&str]| run_cli(folder.path(), arguments);
    let token = |login: &str| run(&["admin", "user", "token", "-u", login, "-e", "2h", "-q"]);
    run(&["admin", "user", "create", "mallory"]);
    let (mallory, stop) = (token("mallory"), Arc::new(AtomicBool::new(false)));
    let target = AttackTarget { http: server.http, sftp: server.sftp, mallory, stop };
    let mut users = JoinSet::new();
    for number in 0..ORDINARY_USERS {
        let login = format!("user{number}");
        run(&["admin", "user", "create", &login]);
        let token = token(&login);
        users.spawn(run_ordinary_user(target.clone(), login, token));
    }
    let mut attacks = JoinSet::new();
    for _ in 0..4 {
        attacks.spawn(hold_unauthenticated_connections(target.clone()));
        attacks.spawn(guess_tokens(target.clone()));
        attacks.spawn(abandon_listings(target.clone()));
        attacks.spawn(abandon_copies(target.clone()));
        attacks.spawn(digests(target.clone()));
        attacks.spawn(repeat_sync_reports(target.clone()));
        attacks.spawn(request_tokens_beyond_policy(target.clone()));
        attacks.spawn(set_large_properties(target.clone()));
        attacks.spawn(leave_http2_responses_unread(target.clone()));
        attacks.spawn(exhaust_sftp_handles(target.clone()));
    }
    let seconds =
        std::env::var("RESILIENCE_SECONDS").map_or(DEFAULT_ATTACK_SECONDS, |text| text.parse().expect("a number"));
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        // A task that ends before it is stopped has failed.
        Some(ended) = users.join_next() => panic!("an ordinary user: {ended:?}"),
    }
    // A revocation holds at once, in the middle of it all.
    let victim = token("user0");
    let dav = DavClient::new(target.http, "user0", &victim);
    assert_eq!(dav.status("PROPFIND", "/dav/user0/").await, 207);
    run(&["apitoken", "revoke", token_id(&victim)]);
    assert_eq!(dav.status("PROPFIND", "/dav/user0/").await, 401);
    target.stop.store(true, Ordering::Relaxed);
    let rounds = users.join_all().await;
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
    println!("rounds of the ordinary users: {rounds:?}; at most {} KiB resident", server.peak_kib());
    attacks.abort_all();
    for number in 0..ORDINARY_USERS {
        let stored = std::fs::read_to_string(folder.path().join(format!("files/user{number}/over-sftp")));
        assert!(stored.expect("a file that was acknowledged").starts_with(&format!("user{number} ")));
    }
    server.stop();
}
