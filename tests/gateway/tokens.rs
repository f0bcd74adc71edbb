//! Creation of tokens by several processes at once, values of tokens over command line and REST, and what a change of a
//! parent token does to open sessions of its children. Limits are in `token_limits.rs`, expiration in
//! `token_lifetime.rs`.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use patgate::auth::{Authenticator, Clock, Credential};
use patgate::domain::{Login, Peer, Protocol, TokenLimits};
use patgate::store::Store;
use patgate::tokens::{NarrowRequest, Principal, TokenRequest, TokenService};

use crate::support::{Fixture, SftpError, patgate_command, token_id};

/// Long enough for any machine; what is awaited normally comes within a second.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a token with a token, as a caller of the API would, in a process that is not the server's.
async fn create_child_token(gateway: &Fixture, token: &str) -> (TokenService, Principal, String) {
    let store = Store::open(&gateway.state()).expect("opens");
    let auth = Authenticator::new(store.clone(), Clock::system()).expect("opens");
    let credential = Credential { login: None, token: token.as_bytes().to_vec().into() };
    let address = ([127, 0, 0, 1]).into();
    let peer = Peer { protocol: Protocol::Api, address, user_agent: None };
    let who = Principal::Session(auth.authenticate(credential, peer).await.expect("let in"));
    let tokens = TokenService::new(store, Clock::system());
    let owner: Login = "alice".parse().expect("login");
    let issued = tokens.issue(&who, TokenRequest::new(owner)).expect("a child");
    (tokens, who, issued.text.expect("a secret").reveal().to_string())
}

fn token_json(gateway: &Fixture, id: &str) -> serde_json::Value {
    serde_json::from_str(&gateway.run_cli(&["--json", "apitoken", "show", id])).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_processes_never_exceed_max_tokens_per_user() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let begin = |_| -> Child {
        let mut command = patgate_command(&gateway.state());
        command.args(["apitoken", "create", "--owner", "alice", "-q"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let mut outputs = Vec::new();
    for _ in 0..3 {
        let racing: Vec<Child> = (0..4).map(begin).collect();
        outputs.extend(racing.into_iter().map(|child| child.wait_with_output().expect("it ends")));
    }
    let (accepted, refused): (Vec<Output>, Vec<Output>) =
        outputs.into_iter().partition(|output| output.status.success());
    assert_eq!(accepted.len(), 5);
    for output in refused {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && stderr.contains("max-tokens-per-user"), "{stderr}");
    }
    let live = gateway.run_cli(&["--json", "apitoken", "list", "--owner", "alice"]);
    let live: Vec<serde_json::Value> = serde_json::from_str(&live).expect("JSON");
    assert_eq!(live.len(), 5);
    let token = String::from_utf8(accepted[0].stdout.clone()).expect("text");
    assert_eq!(gateway.dav("alice", token.trim()).status("PROPFIND", "/dav/").await, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn lowering_max_lifetime_extends_no_token() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let tokens = [&[][..], &["-e", "30d"], &["-a", "10d"], &["-a", "1d", "-e", "20d"]];
    let tokens = tokens.map(|options| gateway.create_token("alice", options));
    let expirations = || {
        tokens.clone().map(|token| {
            let facts = token_json(&gateway, token_id(&token));
            (facts["expires_at"].clone(), facts["hard_limit"].clone())
        })
    };
    let before = expirations();
    for setting in [["default-lifetime", "5d"], ["max-lifetime", "6d"], ["default-lifetime", "1s"]] {
        gateway.run_cli(&["policy", "set", setting[0], setting[1]]);
        assert_eq!(expirations(), before, "{setting:?}");
    }
    let rotated = gateway.run_cli(&["apitoken", "rotate", token_id(&tokens[0]), "-q"]);
    assert_eq!(expirations(), before, "a rotation");
    assert_eq!(gateway.dav("alice", &rotated).status("PROPFIND", "/dav/").await, 207);
    let refused = gateway.try_run_cli(&["policy", "set", "default-lifetime", "7d"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("may not exceed max-lifetime"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_media_types_and_tags_are_set_shown_and_validated() {
    let gateway = Fixture::start().await;
    gateway.run_cli(&["admin", "user", "create", "helen", "--no-home", "--role", "security.revoke_tokens"]);
    let limits = ["--mime", "image/*,text/plain", "--tag", "holiday 2026", "--tag", "work"];
    let role = ["--role", "security.revoke_tokens"];
    let create = ["apitoken", "create", "--owner", "helen", "-q"];
    let token = gateway.run_cli(&[&create[..], &limits, &role].concat());
    let record = token_json(&gateway, token_id(&token));
    assert_eq!(record["roles"], serde_json::json!(["security.revoke_tokens"]));
    assert_eq!(record["limits"]["mimes"], serde_json::json!(["image/*", "text/plain"]));
    assert_eq!(record["limits"]["tags"], serde_json::json!(["holiday 2026", "work"]));
    let text = gateway.run_cli(&["apitoken", "show", token_id(&token)]);
    for part in ["security.revoke_tokens", "image/* or text/plain", "holiday 2026 or work"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let same = gateway.create_token("helen", &[&limits[..], &role].concat());
    assert_eq!(token_json(&gateway, token_id(&same))["roles"], record["roles"], "both commands take the same flags");

    let refused = [
        (&["--role", "admin"][..], 1, "does not hold the role admin"),
        (&["--role", "king"], 2, "the role \"king\" is unknown"),
        (&["--mime", "pictures"], 2, "is not a media type"),
        (&["--tag", "a\nb"], 2, "is not a tag"),
    ];
    for (flags, code, message) in refused {
        let output = gateway.try_run_cli(&[&create[..], flags].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && words.contains(message), "{flags:?}: {words}");
    }
    let all = gateway.run_cli(&["--json", "apitoken", "list", "--owner", "helen"]);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&all).expect("JSON").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_parent_closes_its_childs_open_session() {
    let gateway = Fixture::start().await;
    let parent = gateway.create_user_and_token("alice", "/:rw");
    gateway.write_host_file("/file", "content");
    let (_, _, child) = create_child_token(&gateway, &parent).await;
    let dav = gateway.dav("alice", &child);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
    let mut sftp = gateway.sftp("alice", &child).await;
    assert_eq!(sftp.get("/file").await.as_deref(), Ok(&b"content"[..]));
    gateway.run_cli(&["apitoken", "revoke", token_id(&parent)]);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
    let disconnect =
        tokio::time::timeout(EVENT_TIMEOUT, sftp.receive(u32::MAX)).await.expect("the session ends by itself");
    assert_eq!(disconnect, Err(SftpError::ConnectionLost));
    assert_eq!(token_json(&gateway, token_id(&child))["state"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn narrowing_a_parent_narrows_its_childs_open_session() {
    let gateway = Fixture::start().await;
    let parent = gateway.create_user_and_token("alice", "/:rw");
    let (tokens, who, child) = create_child_token(&gateway, &parent).await;
    let dav = gateway.dav("alice", &child);
    let mut sftp = gateway.sftp("alice", &child).await;
    assert_eq!(sftp.list("/").await, Ok(Vec::new()));
    let limits = TokenLimits { protocols: vec![Protocol::Webdav, Protocol::Api], ..TokenLimits::default() };
    let id = token_id(&parent).parse().expect("id");
    tokens.narrow(&who, id, &NarrowRequest { limits, ..NarrowRequest::default() }, None).expect("narrowed");
    let disconnect =
        tokio::time::timeout(EVENT_TIMEOUT, sftp.receive(u32::MAX)).await.expect("the session ends by itself");
    assert_eq!(disconnect, Err(SftpError::ConnectionLost));
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207, "that door is open still");

    let soon = Clock::system().now();
    tokens
        .narrow(&who, id, &NarrowRequest { expires_at: Some(soon), ..NarrowRequest::default() }, None)
        .expect("narrowed");
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401, "a child does not outlive a narrowed parent");
}
