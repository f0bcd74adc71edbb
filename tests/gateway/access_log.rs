//! The access log: one line for each operation on both protocols, without secrets, and none that a client forges.

use std::path::PathBuf;
use std::time::Duration;

use patgate::auth::Clock;
use patgate::telemetry::{AccessLogFormat, AccessLogSettings, AccessLogTarget};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::{Fixture, SftpClient, open_flags, token_id};

/// A gateway with an access log.
struct LoggedGateway {
    gateway: Fixture,
    folder: TempDir,
}

impl LoggedGateway {
    async fn start(format: AccessLogFormat, writes_only: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let target = AccessLogTarget::File(folder.path().join("access.log"));
        let settings = AccessLogSettings { target, format, writes_only };
        let gateway = Fixture::start_with(Clock::system(), |gateway| gateway.access_log = Some(settings)).await;
        Self { gateway, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// Stops the gateway, which writes all lines, and returns them.
    async fn into_lines(mut self) -> Vec<String> {
        self.gateway.stop().await;
        let text = std::fs::read_to_string(self.path()).expect("the log");
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines");
        text.lines().map(str::to_owned).collect()
    }

    async fn into_json(self) -> Vec<Value> {
        let lines = self.into_lines().await;
        lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

/// Returns operation, path, status and bytes in both directions of each line.
fn summaries(lines: &[Value]) -> Vec<(String, String, u64, u64, u64)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let number = |line: &Value, key: &str| line[key].as_u64().expect("a number");
    let summary = |line: &Value| {
        let (status, bytes_in, bytes_out) =
            (number(line, "status"), number(line, "bytes_in"), number(line, "bytes_out"));
        (text(line, "operation"), text(line, "path"), status, bytes_in, bytes_out)
    };
    lines.iter().map(summary).collect()
}

fn summary(operation: &str, path: &str, status: u64, bytes: (u64, u64)) -> (String, String, u64, u64, u64) {
    (operation.to_owned(), path.to_owned(), status, bytes.0, bytes.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_over_http_has_a_line() {
    let logged = LoggedGateway::start(AccessLogFormat::Json, false).await;
    let gateway = &logged.gateway;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    let put = alice.send("PUT", "/dav/a%20b", &[("user-agent", "test/1"), ("x-request-id", "mine")], "hello").await;
    assert_eq!(put.status, 201);
    let id = put.header("x-request-id").to_owned();
    assert!(id.len() == 16 && id != "mine", "an id of its own: {id}");
    assert_eq!(alice.get("/dav/a%20b").await.body, b"hello");
    let destination = alice.url("/dav/c");
    assert_eq!(alice.send("MOVE", "/dav/a%20b", &[("destination", &destination)], "").await.status, 201);
    assert_eq!(alice.get("/dav/missing?_token=secret").await.status, 404);
    assert_eq!(gateway.dav("alice", "wrong").get("/dav/c").await.status, 401);
    assert_eq!(alice.status("GET", "/healthz").await, 200);
    let lines = logged.into_json().await;
    let expected = [
        summary("PUT", "/dav/a b", 201, (5, 0)),
        summary("GET", "/dav/a b", 200, (0, 5)),
        summary("MOVE", "/dav/a b", 201, (0, 0)),
    ];
    assert_eq!(summaries(&lines)[..3], expected);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let first = &lines[0];
    assert_eq!(
        (&first["request"], &first["user"], &first["protocol"]),
        (&id.into(), &"alice".into(), &"webdav".into())
    );
    assert_eq!((&first["token"], &first["client"]), (&token_id(&token).into(), &"test/1".into()));
    assert_eq!((&first["address"], &first["login"]), (&"127.0.0.1".into(), &"accepted".into()));
    assert_eq!((lines[2]["target"].as_str(), lines[3]["path"].as_str()), (Some("/dav/c"), Some("/dav/missing")));
    assert_eq!(
        (&lines[4]["login"], &lines[4]["status"], &lines[4]["user"]),
        (&"refused".into(), &401.into(), &Value::Null)
    );
    assert_eq!((&lines[5]["protocol"], &lines[5]["login"]), (&"http".into(), &Value::Null));
}

/// Reads and writes files, and makes requests that are refused.
async fn use_sftp(sftp: &mut SftpClient) {
    sftp.put("/a", b"hello").await.expect("written");
    assert_eq!(sftp.get("/a").await.expect("read"), b"hello");
    sftp.list("/").await.expect("listed");
    sftp.rename("/a", "/b").await.expect("renamed");
    sftp.open_file(b"/missing", open_flags::READ).await.expect_err("refused");
    sftp.stat("relative").await.expect_err("refused");
    sftp.remove("/b").await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_over_sftp_has_a_line_and_each_file_one() {
    let logged = LoggedGateway::start(AccessLogFormat::Json, false).await;
    let gateway = &logged.gateway;
    let token = gateway.create_user_and_token("alice", "/:rw");
    assert!(SftpClient::connect(gateway.sftp, "alice", "wrong").await.is_none());
    let mut sftp = gateway.sftp("alice", &token).await;
    use_sftp(&mut sftp).await;
    let upload = sftp.open_file(b"/cut", open_flags::REPLACE).await.expect("opened");
    sftp.write_at(&upload, 0, b"half").await.expect("written");
    sftp.disconnect().await;
    let lines = logged.into_json().await;
    let expected = [
        summary("LOGIN", "", 3, (0, 0)),
        summary("LOGIN", "", 0, (0, 0)),
        summary("WRITE", "/a", 0, (5, 0)),
        summary("READ", "/a", 0, (0, 5)),
        summary("READDIR", "/", 0, (0, 0)),
        summary("RENAME", "/a", 0, (0, 0)),
        summary("READ", "/missing", 2, (0, 0)),
        summary("STAT", "/relative", 2, (0, 0)),
        summary("REMOVE", "/b", 0, (0, 0)),
    ];
    let found: Vec<_> = summaries(&lines).into_iter().filter(|line| line.0 != "FSTAT").collect();
    assert_eq!(found[..expected.len()], expected);
    // The client said goodbye: what it had opened is closed for it.
    let last = found.last().expect("a line");
    assert_eq!((last.0.as_str(), last.1.as_str(), last.3), ("WRITE", "/cut", 4), "{lines:#?}");
    let find = |operation: &str| lines.iter().find(|line| line["operation"] == operation).expect("a line");
    assert_eq!(find("RENAME")["target"], "/b");
    assert_eq!((&lines[0]["login"], &lines[0]["user"]), (&"refused".into(), &Value::Null));
    assert_eq!((&lines[1]["login"], &lines[1]["user"]), (&"accepted".into(), &"alice".into()));
    let write = find("WRITE");
    assert_eq!(
        (&write["user"], &write["token"], &write["protocol"]),
        (&"alice".into(), &token_id(&token).into(), &"sftp".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_writes_has_changes_and_refused_logins_alone() {
    let logged = LoggedGateway::start(AccessLogFormat::Json, true).await;
    let gateway = &logged.gateway;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    assert_eq!(alice.put("/dav/x", "1").await.status, 201);
    assert_eq!(alice.get("/dav/x").await.status, 200);
    assert_eq!(alice.status("PROPFIND", "/dav/").await, 207);
    assert_eq!(gateway.dav("alice", "wrong").get("/dav/x").await.status, 401);
    let mut sftp = gateway.sftp("alice", &token).await;
    use_sftp(&mut sftp).await;
    sftp.disconnect().await;
    let operations: Vec<_> =
        logged.into_json().await.iter().map(|line| line["operation"].as_str().map(str::to_owned)).collect();
    let expected = ["PUT", "GET", "WRITE", "RENAME", "REMOVE"].map(|name| Some(name.to_owned()));
    assert_eq!(operations, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_can_neither_forge_a_line_nor_have_a_token_logged() {
    for format in [AccessLogFormat::Json, AccessLogFormat::Combined] {
        let logged = LoggedGateway::start(format, false).await;
        let gateway = &logged.gateway;
        let token = gateway.create_user_and_token("alice", "/:rw");
        let alice = gateway.dav("alice", &token);
        let forged = "%0A%7B%22login%22%3A%22refused%22%7D%0D%0A192.0.2.9%20-%20-%20%22GET%20%2F%22%C2%85%E2%80%A8";
        alice.send("GET", &format!("/dav/{forged}"), &[("user-agent", "x\" 401 1 \"y")], "").await;
        alice.send("GET", &format!("/dav/{token}?_token={token}"), &[("user-agent", &token)], "").await;
        let encoded = token.replace('_', "%5F").replace('.', "%2E");
        let destination = format!("http://alice:{token}@{}/dav/{token}", gateway.http);
        alice.send("COPY", &format!("/dav/{encoded}"), &[("destination", &destination)], "").await;
        let mut sftp = gateway.sftp("alice", &token).await;
        sftp.stat("/a\n{\"login\":\"refused\"}\r\nb").await.expect_err("missing");
        sftp.stat(&format!("/{token}")).await.expect_err("missing");
        sftp.open_file(format!("/x\ny{token}").as_bytes(), open_flags::READ).await.expect_err("missing");
        sftp.disconnect().await;
        let lines = logged.into_lines().await;
        assert_eq!(lines.len(), 3 + 1 + 3, "{lines:#?}");
        for line in &lines {
            assert!(!line.contains(&token[13..]), "{line}");
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}'), "{line:?}");
            match format {
                AccessLogFormat::Json => {
                    assert_ne!(serde_json::from_str::<Value>(line).expect("JSON")["login"], "refused")
                }
                AccessLogFormat::Combined => assert_eq!(line.matches('"').count(), 6, "{line}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_combined_format_are_those_of_web_servers() {
    let logged = LoggedGateway::start(AccessLogFormat::Combined, false).await;
    let gateway = &logged.gateway;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    assert_eq!(alice.send("PUT", "/dav/a%20b", &[("user-agent", "test/1 (x)")], "hello").await.status, 201);
    assert_eq!(gateway.dav("alice", "wrong").get("/dav/a").await.status, 401);
    let lines = logged.into_lines().await;
    let pattern = regex::Regex::new(
        r#"^127\.0\.0\.1 - (alice|-) \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "([A-Z]+ \S+ HTTP/1\.1)" (\d{3}) (\d+) "-" "([^"]*)"$"#,
    );
    let pattern = pattern.expect("a pattern");
    let fields: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| {
            pattern.captures(line).expect(line).iter().skip(1).map(|field| field.map_or("", |f| f.as_str())).collect()
        })
        .collect();
    assert_eq!(fields[0], ["alice", "PUT /dav/a%20b HTTP/1.1", "201", "0", "test/1 (x)"]);
    assert_eq!(fields[1][..3], ["-", "GET /dav/a HTTP/1.1", "401"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn response_has_no_request_id_without_a_log() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let response = gateway.dav("alice", &token).send("GET", "/dav/", &[("x-request-id", "mine")], "").await;
    assert_eq!((response.status, response.header("x-request-id")), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_hangs_delays_no_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    // Opened and never read: a write waits once the pipe is full.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
    let target = AccessLogTarget::File(path);
    let settings = AccessLogSettings { target, format: AccessLogFormat::Json, writes_only: false };
    let gateway = Fixture::start_with(Clock::system(), |gateway| gateway.access_log = Some(settings)).await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let alice = gateway.dav("alice", &token);
    let requests = async {
        for _ in 0..1000 {
            assert_eq!(alice.status("OPTIONS", "/dav/").await, 200);
        }
    };
    tokio::time::timeout(Duration::from_secs(120), requests).await.expect("no request waits for the log");
    // Read in the end, so that the gateway can write what it has and stop.
    std::thread::spawn(move || std::io::copy(&mut std::io::BufReader::new(reader), &mut std::io::sink()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_console_have_their_user() {
    let logged = LoggedGateway::start(AccessLogFormat::Json, false).await;
    let token = logged.gateway.create_user_and_token("alice", "/:rw");
    let alice = Browser::sign_in_new(&logged.gateway, "alice", &token).await;
    assert_eq!(alice.get("/console/tokens").await.status, 200);
    assert_eq!(alice.get("/console/tokens/unknown").await.status, 404);
    assert_eq!(Browser::new(&logged.gateway).get("/console/tokens").await.status, 303);
    let id = token_id(&token);
    let lines = logged.into_json().await;
    let users: Vec<_> =
        lines.iter().map(|line| (line["status"].as_u64(), line["user"].as_str(), line["token"].as_str())).collect();
    let of_alice = |status| (Some(status), Some("alice"), Some(id));
    assert_eq!(users, [of_alice(303), of_alice(200), of_alice(404), (Some(303), None, None)]);
}
