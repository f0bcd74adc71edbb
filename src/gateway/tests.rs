//! Tests of HTTP responses while argon2 is busy: they occupy its queue, which only a test inside of the crate can do.
//! Floods over real sockets are in `tests/resilience/argon2_flood.rs`.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::domain::{Login, Permission, Role, TokenText, TreePath};
use crate::tokens::{Grant, HomeOption, Principal, TokenRequest, UserRequest};

const ADMIN: &Principal = &Principal::Administrator;
/// Far longer than anything in these tests takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Running gateway with the users alice and bob.
struct TestGateway {
    _directory: tempfile::TempDir,
    auth: Authenticator,
    tokens: TokenService,
    http: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// Response as it was received.
struct RawResponse(String);

impl RawResponse {
    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    fn has_header(&self, line: &str) -> bool {
        self.0.to_ascii_lowercase().contains(&format!("\r\n{line}\r\n"))
    }

    /// Returns the value of a hidden field of a page.
    fn hidden_input(&self, name: &str) -> &str {
        let value = self.0.split(&format!("name=\"{name}\" value=\"")).nth(1).expect("the field");
        value.split('"').next().expect("a value")
    }

    fn is_busy(&self) -> bool {
        self.status() == 503 && self.has_header("retry-after: 1")
    }
}

impl TestGateway {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("files");
        std::fs::create_dir(&root).expect("a directory");
        let mut settings = GatewaySettings::new(root, directory.path().join("state"));
        settings.http = Some(([127, 0, 0, 1], 0).into());
        settings.sftp = None;
        let gateway = Gateway::open(settings, GatewayDependencies::default()).await.expect("opens");
        let tokens = TokenService::new(gateway.store().clone(), Clock::system()).with_tree(gateway.tree().clone());
        for name in ["alice", "bob"] {
            let everything = Grant { path: TreePath::root(), permission: Permission::RW };
            let roles = [Role::ManageUsers].into_iter().collect();
            let request = UserRequest {
                login: login(name),
                roles,
                grants: vec![everything],
                home: HomeOption::Skip,
                quota: None,
            };
            tokens.create_user(ADMIN, &request).expect("a user");
        }
        let (auth, stop) = (gateway.auth().clone(), CancellationToken::new());
        let http = gateway.http_address().expect("HTTP");
        let running = tokio::spawn(gateway.run(stop.clone()));
        Self { _directory: directory, auth, tokens, http, stop, running }
    }

    fn token(&self, owner: &str) -> TokenText {
        self.tokens.issue(ADMIN, TokenRequest::new(login(owner))).expect("a token").text.expect("a secret")
    }

    async fn send_request(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).await.expect("connects");
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}");
        stream.write_all(format!("{head}\r\n{headers}\r\n{body}").as_bytes()).await.expect("sent");
        stream
    }

    async fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> RawResponse {
        read_response(self.send_request(method, path, headers, body).await).await
    }

    /// Waits until this number of jobs wait for argon2.
    async fn wait_for_hashing_queue(&self, jobs: usize) {
        let queue_reached = async {
            while self.auth.hashing_queue_len() != jobs {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, queue_reached).await.expect("it comes to that");
    }

    async fn shut_down(self) {
        self.stop.cancel();
        self.running.await.expect("ends");
    }
}

async fn read_response(mut stream: TcpStream) -> RawResponse {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("a response");
    RawResponse(String::from_utf8(answer).expect("text"))
}

fn login(name: &str) -> Login {
    name.parse().expect("a login")
}

fn bearer_headers(token: &TokenText) -> String {
    format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", token.reveal().as_str())
}

fn form_headers(cookie: &str) -> String {
    format!("cookie: {cookie}\r\nsec-fetch-site: same-origin\r\ncontent-type: application/x-www-form-urlencoded\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn full_argon2_share_of_a_user_returns_503_with_retry_after_to_that_user_only() {
    let gateway = TestGateway::start().await;
    let [known, first_use] = [(); 2].map(|()| gateway.token("alice"));
    let bob = gateway.token("bob");
    for token in [&known, &bob] {
        assert_eq!(gateway.exchange("GET", "/api/v1/tokens/self", &bearer_headers(token), "").await.status(), 200);
    }
    let sign_in = |token: &TokenText| format!("login=alice&token={}", token.reveal().as_str());
    let signed_in = gateway.exchange("POST", "/console/sign-in", &form_headers(""), &sign_in(&known)).await;
    let cookie = signed_in.0.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next()).expect("a cookie");
    let page = gateway.exchange("GET", "/console/tokens/new", &form_headers(cookie), "").await;
    let form = format!("csrf={}&once={}&name=made", page.hidden_input("csrf"), page.hidden_input("once"));

    let held = gateway.auth.occupy_hashing_threads();
    gateway.auth.fill_hashing_queue_share(&login("alice"));
    let full = gateway.auth.hashing_queue_len();
    let rotate = format!("/api/v1/tokens/{}/rotate", known.id());
    for path in ["/api/v1/tokens", "/auth/token/generate", &rotate] {
        let refused = gateway.exchange("POST", path, &bearer_headers(&known), "{}").await;
        assert!(refused.is_busy() && refused.0.contains("urn:patgate:problem:busy"), "{path}: {}", refused.0);
    }
    for (method, path) in [("PROPFIND", "/dav/"), ("GET", "/api/v1/tokens/self")] {
        let refused = gateway.exchange(method, path, &bearer_headers(&first_use), "").await;
        assert!(refused.is_busy(), "{path}: {}", refused.0);
    }
    let refused = gateway.exchange("POST", "/console/sign-in", &form_headers(""), &sign_in(&first_use)).await;
    assert!(refused.is_busy(), "{}", refused.0);
    let refused = gateway.exchange("POST", "/console/tokens/new", &form_headers(cookie), &form).await;
    assert!(refused.is_busy() && refused.0.contains("value=\"made\""), "the form is shown again: {}", refused.0);
    assert_eq!(
        gateway.exchange("GET", "/api/v1/tokens/self", &bearer_headers(&known), "").await.status(),
        200,
        "a known secret"
    );
    let bob_response = gateway.send_request("POST", "/api/v1/tokens", &bearer_headers(&bob), "{}").await;
    gateway.wait_for_hashing_queue(full + 1).await;
    assert_eq!(gateway.auth.secret_hash_runs(), 0);

    drop(held);
    assert_eq!(read_response(bob_response).await.status(), 201);
    gateway.wait_for_hashing_queue(0).await;
    let form_response = gateway.exchange("POST", "/console/tokens/new", &form_headers(cookie), &form).await;
    assert_eq!(form_response.status(), 201, "the same form, sent again, is done: {}", form_response.0);
    assert_eq!(gateway.exchange("PROPFIND", "/dav/", &bearer_headers(&first_use), "").await.status(), 207);
    assert_eq!(gateway.auth.secret_hash_runs(), 2);
    gateway.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_request_leaves_argon2_queue_unless_another_waits_for_same_token() {
    let gateway = TestGateway::start().await;
    let first_use = gateway.token("alice");
    let authorization = format!("Bearer {}", first_use.reveal().as_str());
    let stream = TcpStream::connect(gateway.http).await.expect("connects");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut requests = requests.ready().await.expect("ready");
    let mut propfind = || {
        let request = http::Request::builder().method("PROPFIND").uri(format!("http://{}/dav/", gateway.http));
        let request = request.header("authorization", &authorization).header("depth", "0").body(()).expect("a request");
        let (response, mut stream): (_, h2::SendStream<bytes::Bytes>) =
            requests.send_request(request, true).expect("sent");
        (response, move || stream.send_reset(h2::Reason::CANCEL))
    };
    let held = gateway.auth.occupy_hashing_threads();
    let (_abandoned, mut reset) = propfind();
    gateway.wait_for_hashing_queue(1).await;
    reset();
    gateway.wait_for_hashing_queue(0).await;
    let ((_abandoned, mut reset), (kept, _stream)) = (propfind(), propfind());
    gateway.wait_for_hashing_queue(1).await;
    reset();
    drop(held);
    assert_eq!(kept.await.expect("a response").status(), 207);
    assert_eq!(gateway.auth.verification_runs(), 1);
    gateway.shut_down().await;
}
