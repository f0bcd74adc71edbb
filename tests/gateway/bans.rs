//! Bans of addresses: for failed logins and by administrators, by command, REST and console, on both protocols. The rules of
//! the defender itself are tested in `src/auth/defender.rs`.

use std::net::IpAddr;
use std::time::Duration;

use patgate::auth::{Clock, DefenderSettings};
use patgate::gateway::ProxyProtocolListeners;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::browser::Browser;
use crate::support::{DavClient, Fixture};

/// Time within which a change of the bans holds everywhere.
const BAN_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway that bans an address after five failed logins, and lets its clients choose their address.
async fn start() -> Fixture {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.proxy_protocol = ProxyProtocolListeners { http: false, sftp: true };
        settings.defender = DefenderSettings { ban_after: 5, ..DefenderSettings::default() };
    })
    .await;
    gateway.create_user("alice", &["/:rw"]);
    gateway
}

async fn status_from(client: &DavClient, address: &str) -> u16 {
    let headers = [("x-forwarded-for", address), ("x-forwarded-proto", "https"), ("depth", "0")];
    client.send("PROPFIND", "/dav/", &headers, "").await.status
}

async fn wait_for_status(client: &DavClient, address: &str, expected: u16) {
    let wait = async {
        while status_from(client, address).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(BAN_TIMEOUT, wait).await;
    assert!(waited.is_ok(), "{address}: never {expected}");
}

async fn guess_from(gateway: &Fixture, address: &str, count: usize) {
    let guesser = gateway.dav("alice", "a guess");
    for _ in 0..count {
        status_from(&guesser, address).await;
    }
}

/// Returns the first bytes of an SSH server for a client at an address; none where it refuses the connection.
async fn ssh_greeting(gateway: &Fixture, address: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.sftp).await.expect("a connection");
    stream.write_all(format!("PROXY TCP4 {address} 127.0.0.1 5000 2022\r\n").as_bytes()).await.expect("sent");
    let mut greeting = vec![0; 4];
    match stream.read(&mut greeting).await {
        Ok(count) => greeting.truncate(count),
        Err(_) => greeting.clear(),
    }
    greeting
}

fn listed_bans(gateway: &Fixture) -> Vec<Value> {
    serde_json::from_str(&gateway.run_cli(&["admin", "ban", "list", "--json"])).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_ban_an_address_on_both_protocols_and_spare_known_ones() {
    let gateway = start().await;
    let alice = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    assert_eq!(status_from(&alice, "203.0.113.9").await, 207, "from now on a known address");
    for address in ["192.0.2.7", "203.0.113.9"] {
        guess_from(&gateway, address, 5).await;
    }
    assert_eq!(status_from(&gateway.dav("alice", "a guess"), "192.0.2.7").await, 429);
    assert_eq!(status_from(&alice, "192.0.2.7").await, 429, "no token was used from there");
    assert_eq!(status_from(&alice, "192.0.2.8").await, 207, "another address");
    assert_eq!(status_from(&alice, "203.0.113.9").await, 207, "a stranger behind the same address bars nobody");
    assert_eq!(ssh_greeting(&gateway, "192.0.2.7").await, b"", "before the key exchange");
    assert_eq!(ssh_greeting(&gateway, "192.0.2.8").await, b"SSH-");
    let wait = async {
        while listed_bans(&gateway).len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(BAN_TIMEOUT, wait).await.expect("stored");
    let bans = listed_bans(&gateway);
    let ban = bans.iter().find(|ban| ban["network"] == "192.0.2.7").expect("listed");
    assert!(ban["automatic"] == true && ban["until"].is_string() && ban["repeats"] == 1, "{ban}");
    assert_eq!(ban["reason"], "5 failed logins within 600 s");
    let events = gateway.run_cli(&["audit", "--event", "ban.added"]);
    assert!(events.contains("192.0.2.7 until"), "{events}");
    gateway.run_cli(&["admin", "ban", "remove", "192.0.2.7"]);
    wait_for_status(&alice, "192.0.2.7", 207).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_over_sftp_count_with_those_over_http() {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.defender = DefenderSettings { ban_after: 5, ..DefenderSettings::default() };
    })
    .await;
    gateway.create_user("alice", &["/:rw"]);
    let guesser = gateway.dav("alice", "a guess");
    for _ in 0..3 {
        assert_eq!(guesser.status("PROPFIND", "/dav/").await, 401);
    }
    for _ in 0..2 {
        assert!(crate::support::SftpClient::connect(gateway.sftp, "alice", "a guess").await.is_none());
    }
    let refused = guesser.send("PROPFIND", "/dav/", &[("depth", "0")], "").await;
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("too many logins have failed from this address"), "{}", refused.text());
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=600).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ban_by_an_administrator_refuses_valid_tokens_and_ends_open_sessions() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let mut session = gateway.sftp("alice", &token).await;
    session.list("/").await.expect("open");
    let output = gateway.run_cli(&["admin", "ban", "add", "127.0.0.1", "--for", "1h", "--reason", "testing"]);
    assert!(output.starts_with("127.0.0.1 is banned until "), "{output}");
    let ended = async { while session.list("/").await.is_ok() {} };
    tokio::time::timeout(BAN_TIMEOUT, ended).await.expect("the session ends");
    let response = gateway.dav("alice", &token).send("PROPFIND", "/dav/", &[("depth", "0")], "").await;
    assert_eq!(response.status, 403);
    assert!(response.text().contains("this address is banned until"), "{}", response.text());
    assert_eq!(response.header("connection"), "close");
    let elsewhere: IpAddr = [127, 0, 0, 2].into();
    let other = gateway.dav("alice", &token).with_local_address(elsewhere);
    assert_eq!(other.status("PROPFIND", "/dav/").await, 207);
    gateway.run_cli(&["admin", "ban", "remove", "127.0.0.1"]);
    let alice = gateway.dav("alice", &token);
    let served = async { while alice.status("PROPFIND", "/dav/").await != 207 {} };
    tokio::time::timeout(BAN_TIMEOUT, served).await.expect("served again");
    let missing = gateway.try_run_cli(&["admin", "ban", "remove", "127.0.0.1"]);
    let stderr = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(1) && stderr.contains("127.0.0.1 is not banned"), "{stderr}");
    for (arguments, code) in [
        (&["admin", "ban", "add", "somewhere"][..], 2),
        (&["admin", "ban", "add", "192.0.2.1", "--for", "0h"], 2),
        (&["admin", "ban", "add", "192.0.2.1", "--reason", "two\nlines"], 1),
    ] {
        assert_eq!(gateway.try_run_cli(arguments).status.code(), Some(code), "{arguments:?}");
    }
    assert_eq!(listed_bans(&gateway), Vec::<Value>::new(), "a refused command changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_are_managed_over_rest_by_those_who_manage_the_policy() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.run_cli(&["admin", "user", "create", "root", "--no-home", "--role", "policy.manage"]);
    let admin = gateway.rest("root", &gateway.create_token("root", &["-e", "1h", "--role", "policy.manage"]));
    let alice = gateway.rest("alice", &gateway.create_token("alice", &["-e", "1h"]));
    for (method, path) in [("GET", "/api/v1/bans"), ("POST", "/api/v1/bans"), ("DELETE", "/api/v1/bans/192.0.2.7")] {
        assert_eq!(alice.send(method, path, json!({ "network": "192.0.2.7" })).await.status, 403, "{method}");
    }
    let created = admin.send("POST", "/api/v1/bans", json!({ "network": "192.0.2.77/24", "duration": "1h" })).await;
    assert_eq!((created.status, created.header("location")), (201, "/api/v1/bans/192.0.2.0/24"));
    assert_eq!(created.json()["automatic"], false);
    for (body, kind) in [
        (json!({ "network": "127.0.0.0/8" }), "invalid-ban"),
        (json!({ "network": "192.0.2.9", "reason": "x".repeat(201) }), "invalid-ban"),
        (json!({ "network": "nowhere" }), "unfit"),
    ] {
        let refused = admin.send("POST", "/api/v1/bans", body).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(kind.ends_with("unfit") || refused.problem_kind() == kind, "{}", refused.text());
    }
    let listed = admin.get("/api/v1/bans").await.json();
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["network"]), (Some(1), &json!("192.0.2.0/24")));
    for (path, status) in
        [("/api/v1/bans/192.0.2.7", 404), ("/api/v1/bans/192.0.2.0%2F24", 204), ("/api/v1/bans/192.0.2.0%2F24", 404)]
    {
        assert_eq!(admin.send("DELETE", path, Value::Null).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_are_managed_in_the_console() {
    let gateway = Fixture::start().await;
    gateway.run_cli(&["admin", "user", "create", "root", "--no-home", "--role", "admin"]);
    let token = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    let browser = Browser::sign_in_new(&gateway, "root", &token).await;
    let refused = browser
        .submit("/console/bans", "/console/bans", &[("network", "nowhere"), ("duration", "1h"), ("reason", "scans")])
        .await;
    assert_eq!(refused.status, 422);
    for kept in ["is not an IP address or network", "value=\"nowhere\"", "value=\"1h\"", "value=\"scans\""] {
        assert!(refused.text().contains(kept), "{kept}: {}", refused.text());
    }
    browser.submit("/console/bans", "/console/bans", &[("network", "192.0.2.7"), ("reason", "scans")]).await;
    let page = browser.get("/console/bans").await.text();
    assert!(page.contains("<code>192.0.2.7</code>") && page.contains("scans"), "{page}");
    browser.submit("/console/bans", "/console/bans/remove", &[("network", "192.0.2.7")]).await;
    assert!(!browser.get("/console/bans").await.text().contains("<code>192.0.2.7</code>"));
    gateway.create_user("alice", &["/:rw"]);
    let alice = Browser::sign_in_new(&gateway, "alice", &gateway.create_token("alice", &["-e", "1h"])).await;
    assert_eq!(alice.get("/console/bans").await.status, 403);
}
