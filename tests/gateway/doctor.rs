//! What the doctor finds beside a running server, and what the next start warns of in the log.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, patgate_command};

/// Returns status and detail of the checks of a name.
fn findings(folder: &Path, name: &str) -> Vec<(String, String)> {
    let output = patgate_command(&folder.join("state")).args(["doctor", "--json"]).output().expect("it runs");
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |check: &Value, key: &str| check[key].as_str().expect("text").to_owned();
    let named = checks.iter().filter(|check| check["what"] == name);
    named.map(|check| (text(check, "verdict"), text(check, "text"))).collect()
}

fn assert_finding(folder: &Path, name: &str, verdict: &str, part: &str) {
    let found = findings(folder, name);
    assert!(found.iter().any(|(status, text)| status == verdict && text.contains(part)), "{name}: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_and_scopes_that_reach_nothing_are_named_and_logged_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for directory in ["kept", "removed", "replaced", "deleted", "revoked"] {
        fs::create_dir_all(folder.join("files").join(directory)).expect("a folder");
    }
    let server = ServerProcess::start(folder);
    let grants = ["--grant", "/kept:rw", "--grant", "/removed:r", "--grant", "/replaced:r", "--grant", "/deleted:rw"];
    run_cli(folder, &[&["admin", "user", "create", "alice", "--no-home"], &grants[..]].concat());
    run_cli(folder, &["admin", "user", "create", "bob", "--no-home", "--grant", "/revoked:rw"]);
    let scoped = ["admin", "user", "token", "-e", "1h", "-q"];
    let of_alice = run_cli(folder, &[&scoped[..], &["-u", "alice", "-s", "path:/removed:r"]].concat());
    run_cli(folder, &[&scoped[..], &["-u", "bob", "-s", "path:/revoked:r"]].concat());
    assert_finding(folder, "grants", "ok", "leads to its file or folder");

    run_cli(folder, &["admin", "user", "revoke-grant", "bob", "/revoked"]);
    run_cli(folder, &["apitoken", "revoke", "--all", "--owner", "bob"]);
    run_cli(folder, &["admin", "user", "create", "carol", "--no-home", "--grant", "/:rw"]);
    let carol = DavClient::new(server.http, "carol", &create_token(folder, "carol"));
    assert_eq!(carol.status("DELETE", "/dav/deleted").await, 204);
    for directory in ["removed", "replaced", "revoked"] {
        fs::remove_dir(folder.join("files").join(directory)).expect("removed");
    }
    fs::create_dir_all(folder.join("files/other/replaced")).expect("another inode");
    fs::rename(folder.join("files/other/replaced"), folder.join("files/replaced")).expect("moved");
    let token_id = &of_alice["pgt_".len()..][..8];
    for part in [
        "alice: nothing is at /removed",
        &format!("token {token_id} of alice: nothing is at /removed"),
        "alice: /replaced is another entry now",
        "was removed",
    ] {
        assert_finding(folder, "grants", "warning", part);
    }
    let (_, detail) = findings(folder, "grants").remove(0);
    assert!(!detail.contains("kept") && !detail.contains("bob"), "{detail}");
    server.stop();

    let mut command = patgate_command(&folder.join("state"));
    command.stderr(Stdio::piped());
    let mut server = ServerProcess::start_with_command(command, folder);
    let mut log = server.take_stderr().expect("piped");
    let mut text = String::new();
    while !text.contains("alice: nothing is at /removed") {
        let mut buffer = [0; 4096];
        let bytes = log.read(&mut buffer).expect("read");
        assert!(bytes > 0, "the log ended: {text}");
        text += &String::from_utf8_lossy(&buffer[..bytes]);
    }
    assert!(text.contains("WARN"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_that_is_not_trusted_is_found_until_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("files")).expect("a folder");
    let server = ServerProcess::start(folder);
    assert_finding(folder, "proxies", "ok", "none is trusted");
    run_cli(folder, &["admin", "user", "create", "alice"]);
    let alice = DavClient::new(server.http, "alice", &create_token(folder, "alice"));
    let forwarded = [("x-forwarded-for", "192.0.2.1")];
    assert_eq!(alice.send("GET", "/dav/", &forwarded, "").await.status, 200);
    // The record is written by a task that runs once a second.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while findings(folder, "proxies")[0].0 == "ok" {
        assert!(std::time::Instant::now() < deadline, "it was never recorded");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_finding(folder, "proxies", "warning", "127.0.0.1 forwards requests and is not trusted");
    server.stop();
    let _server = ServerProcess::start(folder);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while findings(folder, "proxies")[0].0 != "ok" {
        assert!(std::time::Instant::now() < deadline, "the record of the former process stays");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_audit_trail_and_open_modes_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("files")).expect("a folder");
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice"]);
    run_cli(folder, &["admin", "user", "create", "bob"]);
    assert_finding(folder, "audit trail", "ok", "unbroken");
    assert_finding(folder, "versions", "ok", "SQLite 3.");
    assert!(!findings(folder, "space").is_empty() && !findings(folder, "file system").is_empty());
    server.stop();
    let database = Connection::open(folder.join("state/patgate.db")).expect("opens");
    database.execute("UPDATE events SET detail = 'other' WHERE id = 1", []).expect("changed");
    drop(database);
    assert_finding(folder, "audit trail", "fail", "tampered with");
    let acme = folder.join("state/acme");
    fs::create_dir(&acme).expect("a folder");
    fs::write(acme.join("certificate.pem"), "").expect("written");
    assert_finding(folder, "secrets", "fail", "acme/certificate.pem: chmod 600");
}
