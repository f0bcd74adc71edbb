//! The audit trail: logins, refusals, denied operations, expirations and changes are recorded with their actor and
//! without secrets. Which change records what is tested in `src/tokens/tests/audit_events.rs`, the limit on its size in
//! `state_limits.rs`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, token_id};

/// Long enough for any machine; what is awaited normally comes within a second.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// The events that `patgate audit` shows with these options, once there are `least` of them: the server
/// writes down what it sees within a second.
async fn wait_for_events(gateway: &Fixture, options: &[&str], least: usize) -> Vec<Value> {
    let arguments: Vec<&str> = ["audit", "--json"].iter().chain(options).copied().collect();
    let started = Instant::now();
    loop {
        let output = gateway.run_cli(&arguments);
        let events: Vec<Value> = serde_json::from_str(&output).expect("JSON");
        if events.len() >= least {
            return events;
        }
        assert!(started.elapsed() < EVENT_TIMEOUT, "{arguments:?} shows only {events:?}");
        tokio::task::yield_now().await;
    }
}

fn event_field<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_use_is_audited_with_address_client_and_protocol() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    for protocol in ["webdav", "sftp"] {
        let token = gateway.create_token("alice", &["-e", "1h"]);
        match protocol {
            "webdav" => assert_eq!(gateway.dav("alice", &token).status("PROPFIND", "/dav/").await, 207),
            _ => drop(gateway.sftp("alice", &token).await.list("/").await.expect("listed")),
        }
        let events = wait_for_events(&gateway, &["--token", token_id(&token), "--event", "token.first_used"], 1).await;
        let (user, address) = (event_field(&events[0], "user"), event_field(&events[0], "address"));
        assert_eq!((user, address, event_field(&events[0], "protocol")), ("alice", "127.0.0.1", protocol));
        let token_record: Value =
            serde_json::from_str(&gateway.run_cli(&["apitoken", "show", token_id(&token), "--json"])).expect("JSON");
        assert_eq!(
            (event_field(&token_record["last_use"], "from"), event_field(&token_record["last_use"], "protocol")),
            ("127.0.0.1", protocol)
        );
        assert_eq!(token_record["last_use"]["client"], events[0]["client"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_and_retired_secrets_are_audited_without_secrets() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let other = gateway.create_token("alice", &["-e", "1h"]);
    let wrong = format!("{}{}", &other[..13], &gateway.create_token("alice", &["-e", "1h"])[13..]);
    assert_eq!(gateway.dav("alice", &token).status("PROPFIND", "/dav/").await, 207);
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    for (login, text) in [("alice", &token), ("bob", &other), ("alice", &wrong)] {
        assert_eq!(gateway.dav(login, text).status("PROPFIND", "/dav/").await, 401);
        assert!(crate::support::SftpClient::connect(gateway.sftp, login, text).await.is_none());
    }
    let dead = wait_for_events(&gateway, &["--event", "token.dead_secret_used"], 2).await;
    assert!(dead.iter().all(|event| event_field(event, "token") == token_id(&token)), "{dead:?}");
    assert_eq!(wait_for_events(&gateway, &["--event", "attempt.refused", "--user", "alice"], 2).await.len(), 2);

    for entry in std::fs::read_dir(gateway.state()).expect("state") {
        let path = entry.expect("entry").path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for text in [&token, &other, &wrong] {
            let secret = &text.as_bytes()[13..45];
            assert!(!bytes.windows(32).any(|part| part == secret), "{}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expiration_is_audited_and_expired_tokens_are_purged_after_retention() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    gateway.clock.advance(Duration::from_secs(3700));
    let expired = wait_for_events(&gateway, &["--event", "token.expired"], 1).await;
    assert_eq!(event_field(&expired[0], "token"), token_id(&token));
    assert!(gateway.try_run_cli(&["apitoken", "show", token_id(&token)]).status.success(), "kept for its retention");
    gateway.clock.advance(30 * DAY);
    let removed = wait_for_events(&gateway, &["--event", "token.removed"], 1).await;
    assert_eq!(event_field(&removed[0], "token"), token_id(&token));
    assert!(!gateway.try_run_cli(&["apitoken", "show", token_id(&token)]).status.success());
    assert_eq!(wait_for_events(&gateway, &["--token", token_id(&token), "--event", "token.expired"], 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_session_is_audited() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    sftp.list("/").await.expect("listed");
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    let events = wait_for_events(&gateway, &["--event", "session.ended"], 1).await;
    assert_eq!((event_field(&events[0], "token"), event_field(&events[0], "protocol")), (token_id(&token), "sftp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_operations_are_audited_on_both_protocols() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a/f", "text");
    let token = gateway.create_user_and_token("alice", "/a:r");
    assert_eq!(gateway.dav("alice", &token).status("DELETE", "/dav/a/f").await, 403);
    let mut sftp = gateway.sftp("alice", &token).await;
    sftp.list("/a").await.expect("listed");
    assert!(sftp.put("/a/new", b"x").await.is_err());
    let events = wait_for_events(&gateway, &["--event", "access.denied"], 2).await;
    let denied: Vec<_> =
        events.iter().map(|event| (event_field(event, "protocol"), event_field(event, "path"))).collect();
    assert!(denied.contains(&("webdav", "/a/f")) && denied.contains(&("sftp", "/a/new")), "{events:?}");

    let verdict = gateway.run_cli(&["explain", "--token", token_id(&token), "delete", "/a/f", "--json"]);
    let verdict: Value = serde_json::from_str(&verdict).expect("JSON");
    assert_eq!(verdict["allowed"], false);
    assert_eq!(verdict["decided_by"], serde_json::json!({"rule": "no_grant", "at": "/a"}));
    let sentence = gateway.run_cli(&["explain", "--token", token_id(&token), "read", "/a/f"]);
    assert_eq!(sentence, format!("alice may read /a/f with the token {}: it is granted r on /a", token_id(&token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_refused_by_a_limit_is_audited() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "--max-file-size", "1KiB"]);
    assert_eq!(gateway.dav("alice", &token).put("/dav/big", vec![b'x'; 2048]).await.status, 413);
    let events = wait_for_events(&gateway, &["--event", "access.denied"], 1).await;
    assert!(event_field(&events[0], "detail").contains("1KiB"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_log_contains_the_audit_trail_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let log = folder.path().join("log");
    let server = ServerProcess::start_logging(folder.path(), &log);
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = || create_token(folder.path(), "alice");
    let (good, dead) = (token(), token());
    run_cli(folder.path(), &["apitoken", "revoke", token_id(&dead)]);
    for (text, status) in [(&good, 207), (&dead, 401)] {
        assert_eq!(DavClient::new(server.http, "alice", text).status("PROPFIND", "/dav/").await, status);
        assert_eq!(crate::support::SftpClient::connect(server.sftp, "alice", text).await.is_some(), status == 207);
    }
    server.stop();
    let log = std::fs::read_to_string(log).expect("the log");
    for text in [&good, &dead] {
        assert!(!log.contains(&text[13..45]), "{log}");
    }
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let audit_lines: Vec<_> = lines.filter(|line| line["target"] == "patgate::audit").collect();
    let has = |kind: &str, token: &str| {
        audit_lines.iter().any(|line| line["fields"]["event"] == kind && line["fields"]["token"] == token_id(token))
    };
    assert!(has("token.created", &good) && has("token.first_used", &good), "{log}");
    assert!(has("token.revoked", &dead) && has("token.dead_secret_used", &dead), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traversing_visible_directories_is_not_audited_as_denied() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a/b/f", "text");
    let token = gateway.create_user_and_token("alice", "/a/b:r");
    let alice = gateway.dav("alice", &token);
    for path in ["/dav/", "/dav/a/", "/dav/a", "/dav/a/b/"] {
        for (method, status) in [("GET", 200), ("HEAD", 200), ("PROPFIND", 207)] {
            assert_eq!(alice.status(method, path).await, status, "{method} {path}");
        }
    }
    let mut sftp = gateway.sftp("alice", &token).await;
    for path in ["/", "/a", "/a/b"] {
        sftp.stat(path).await.expect("seen");
        sftp.list(path).await.expect("listed");
        sftp.realpath(path).await.expect("found");
    }
    // Recorded after all earlier events.
    assert_eq!(alice.status("DELETE", "/dav/a/").await, 403);
    let events = wait_for_events(&gateway, &["--event", "access.denied"], 1).await;
    let denied: Vec<_> =
        events.iter().map(|event| (event_field(event, "path"), event_field(event, "detail"))).collect();
    assert!(matches!(denied[..], [("/a", detail)] if detail.starts_with("delete: ")), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn actor_is_audited_for_local_and_remote_commands() {
    let gateway = Fixture::start().await;
    let user = std::process::Command::new("id").arg("-un").output().expect("id runs");
    let user = String::from_utf8(user.stdout).expect("a name");
    let by = format!("administrator:{}", user.trim());
    let alice = gateway.create_user_and_token("alice", "/:rw");
    gateway.rest("alice", &alice).send("POST", "/api/v1/tokens", serde_json::json!({})).await;
    let events = wait_for_events(&gateway, &["--event", "token.created"], 2).await;
    let mut actors: Vec<_> = events.iter().map(|event| event_field(event, "by")).collect();
    actors.sort_unstable();
    assert_eq!(actors, [by.as_str(), &format!("alice/{}", token_id(&alice))]);
    assert_eq!(event_field(&wait_for_events(&gateway, &["--event", "user.created"], 1).await[0], "by"), by);
}
