//! Storage quotas of users and tokens over WebDAV, SFTP, the console, REST and the command line: what is refused and how,
//! that a refusal changes nothing, and what is told of a quota.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, SftpClient, SftpError, encode_string, open_flags, send_raw, token_id};

const FAILURE: u32 = 4;

/// Starts a gateway whose user alice has `/home` and a quota of 100 bytes; returns it with a token of hers.
async fn start_with_quota() -> (Fixture, String) {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/home");
    gateway.run_cli(&["admin", "user", "create", "alice", "--grant", "/home:rw", "--quota", "100"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    (gateway, token)
}

/// Returns the bytes that are counted for a user.
fn used(gateway: &Fixture, login: &str) -> u64 {
    user_json(gateway, login)["quota_used"].as_u64().expect("a number")
}

fn user_json(gateway: &Fixture, login: &str) -> serde_json::Value {
    serde_json::from_str(&gateway.run_cli(&["admin", "user", "show", login, "--json"])).expect("JSON")
}

/// Waits until the files of a user are counted.
async fn wait_until_counted(gateway: &Fixture, login: &str) {
    for _ in 0..600 {
        if user_json(gateway, login)["quota_counted_at"].is_string() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} is not counted", user_json(gateway, login));
}

/// Returns an error's message where it is FAILURE.
fn failure_text<T: std::fmt::Debug>(result: Result<T, SftpError>) -> String {
    match result.expect_err("refused") {
        SftpError::Status(FAILURE, text) => text,
        other => panic!("{other:?}"),
    }
}

/// Replaces a file, and closes the handle whether the content was taken or not.
async fn replace(sftp: &mut SftpClient, path: &str, content: &[u8]) -> Result<(), SftpError> {
    let handle = sftp.open_file(path.as_bytes(), open_flags::REPLACE).await?;
    let written = sftp.write_at(&handle, 0, content).await;
    let closed = sftp.close(&handle).await;
    written.and(closed)
}

async fn write_at(sftp: &mut SftpClient, path: &str, offset: u64, data: &[u8]) -> Result<(), SftpError> {
    let handle = sftp.open_file(path.as_bytes(), open_flags::WRITE).await?;
    let written = sftp.write_at(&handle, offset, data).await;
    let closed = sftp.close(&handle).await;
    written.and(closed)
}

async fn resize(sftp: &mut SftpClient, path: &str, size: u64) -> Result<(), SftpError> {
    // SETSTAT with the size alone
    sftp.request(9, &[&encode_string(path.as_bytes()), &1u32.to_be_bytes(), &size.to_be_bytes()]).await.map(drop)
}

/// Sends a body whose length is not announced, and returns the status line without the reason.
async fn put_without_length(gateway: &Fixture, dav: &DavClient, header: &str, bytes: usize) -> String {
    let request = format!(
        "PUT /dav/home/new HTTP/1.1\r\nhost: a\r\nauthorization: {}\r\ntransfer-encoding: chunked\r\n{header}\
         connection: close\r\n\r\n{bytes:x}\r\n{}\r\n0\r\n\r\n",
        dav.authorization(),
        "x".repeat(bytes)
    );
    String::from_utf8_lossy(&send_raw(gateway.http, request.as_bytes()).await).chars().take(12).collect()
}

async fn destination(dav: &DavClient, method: &str, from: &str, to: &str) -> u16 {
    dav.send(method, from, &[("destination", &dav.url(to))], "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_refuses_what_exceeds_quota_with_507() {
    let (gateway, token) = start_with_quota().await;
    let dav = gateway.dav("alice", &token);
    assert_eq!(dav.put("/dav/home/file", "x".repeat(60)).await.status, 201);
    let refused = dav.put("/dav/home/new", "x".repeat(41)).await;
    assert_eq!(refused.status, 507);
    assert!(refused.text().contains("the storage quota of the user (100) is used up"), "{}", refused.text());
    assert!(refused.text().contains("quota-not-exceeded"), "{}", refused.text());
    assert_eq!(dav.put("/dav/home/file", "y".repeat(101)).await.status, 507);
    for header in ["", "x-expected-entity-length: 41\r\n"] {
        assert_eq!(put_without_length(&gateway, &dav, header, 41).await, "HTTP/1.1 507", "{header}");
    }
    assert_eq!(destination(&dav, "COPY", "/dav/home/file", "/dav/home/copy").await, 507);
    assert_eq!(dav.status("MKCOL", "/dav/home/tree").await, 201);
    assert_eq!(destination(&dav, "MOVE", "/dav/home/file", "/dav/home/tree/file").await, 201, "a move adds nothing");
    assert_eq!(destination(&dav, "COPY", "/dav/home/tree", "/dav/home/copy").await, 507);
    let range = [("content-type", "application/x-sabredav-partialupdate"), ("x-update-range", "append")];
    assert_eq!(dav.send("PATCH", "/dav/home/tree/file", &range, "x".repeat(41)).await.status, 507);
    assert_eq!(fs::read_to_string(gateway.host_path("/home/tree/file")).expect("there"), "x".repeat(60));
    assert_eq!(gateway.all_paths(), [".patgate", "home", "home/tree", "home/tree/file"]);
    assert_eq!(used(&gateway, "alice"), 60);
    assert_eq!(dav.status("DELETE", "/dav/home/tree").await, 204);
    assert_eq!(used(&gateway, "alice"), 0);
    assert_eq!(dav.put("/dav/home/whole", "x".repeat(100)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn length_is_refused_before_body_is_sent() {
    let (gateway, token) = start_with_quota().await;
    let dav = gateway.dav("alice", &token);
    let request = format!(
        "PUT /dav/home/new HTTP/1.1\r\nhost: a\r\nauthorization: {}\r\ncontent-length: 100000\r\nexpect: \
         100-continue\r\nconnection: close\r\n\r\n",
        dav.authorization()
    );
    let answer = String::from_utf8_lossy(&send_raw(gateway.http, request.as_bytes()).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 507"), "{answer}");
    let created = dav.send("MKCOL", "/remote.php/dav/uploads/alice/u", &[("oc-total-length", "101")], "").await;
    assert_eq!(created.status, 507, "{}", created.text());
    let headers = [("upload-complete", "?0"), ("upload-length", "101")];
    assert_eq!(dav.send("PUT", "/dav/home/new", &headers, "x").await.status, 507);
    assert!(gateway.staged_entries().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_assembled_within_quota_only() {
    let (gateway, token) = start_with_quota().await;
    let dav = gateway.dav("alice", &token);
    for (upload, chunk_bytes, status) in [("large", 60, 507), ("small", 50, 201)] {
        let folder = format!("/remote.php/dav/uploads/alice/{upload}");
        assert_eq!(dav.status("MKCOL", &folder).await, 201);
        for chunk in ["1", "2"] {
            assert_eq!(dav.put(&format!("{folder}/{chunk}"), "x".repeat(chunk_bytes)).await.status, 201);
        }
        let target = dav.url("/dav/home/assembled");
        let assembled = dav.send("MOVE", &format!("{folder}/.file"), &[("destination", &target)], "").await;
        assert_eq!(assembled.status, status, "{}", assembled.text());
    }
    assert_eq!(used(&gateway, "alice"), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_refuses_what_exceeds_quota_with_failure() {
    let (gateway, token) = start_with_quota().await;
    let mut sftp = gateway.sftp("alice", &token).await;
    sftp.put("/home/file", &[b'x'; 60]).await.expect("it fits");
    let text = failure_text(replace(&mut sftp, "/home/new", &[b'x'; 41]).await);
    assert!(text.contains("the storage quota of the user (100) is used up"), "{text}");
    failure_text(replace(&mut sftp, "/home/file", &[b'y'; 101]).await);
    failure_text(write_at(&mut sftp, "/home/file", 60, &[b'y'; 41]).await);
    failure_text(resize(&mut sftp, "/home/file", 101).await);
    failure_text(sftp.hard_link("/home/file", "/home/link").await);
    assert_eq!(fs::read_to_string(gateway.host_path("/home/file")).expect("there"), "x".repeat(60));
    assert_eq!(used(&gateway, "alice"), 60);
    write_at(&mut sftp, "/home/file", 60, &[b'y'; 40]).await.expect("it fits");
    assert_eq!(used(&gateway, "alice"), 100);
    resize(&mut sftp, "/home/file", 10).await.expect("less");
    assert_eq!(used(&gateway, "alice"), 10);
    sftp.put("/home/other", &[b'x'; 90]).await.expect("it fits");
    sftp.remove("/home/file").await.expect("removed");
    sftp.posix_rename("/home/other", "/home/file").await.expect("renamed");
    assert_eq!(used(&gateway, "alice"), 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_100_puts_at_once_10_get_in() {
    let (gateway, token) = start_with_quota().await;
    let dav = gateway.dav("alice", &token);
    let puts = (0..100).map(|number| {
        let dav = dav.clone();
        tokio::spawn(async move { dav.put(&format!("/dav/home/{number}"), "x".repeat(10)).await.status })
    });
    let mut statuses = Vec::new();
    for put in puts.collect::<Vec<_>>() {
        statuses.push(put.await.expect("no panic"));
    }
    let count = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!((count(201), count(507)), (10, 90), "{statuses:?}");
    assert_eq!(used(&gateway, "alice"), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_of_token_binds_its_children_and_both_protocols() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/home");
    gateway.create_user("alice", &["/home:rw"]);
    let parent = gateway.create_token("alice", &["-e", "1h", "--quota", "50"]);
    let free = gateway.create_token("alice", &["-e", "1h"]);
    let created = gateway.rest("alice", &parent).send("POST", "/api/v1/tokens", json!({})).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let child = created.json()["token"].as_str().expect("a token").to_owned();
    let (dav, other) = (gateway.dav("alice", &child), gateway.dav("alice", &free));
    assert_eq!(dav.put("/dav/home/a", "x".repeat(50)).await.status, 201);
    let refused = dav.put("/dav/home/b", "x").await;
    assert_eq!(refused.status, 507);
    assert!(refused.text().contains("the storage quota of the token (50)"), "{}", refused.text());
    failure_text(gateway.sftp("alice", &child).await.put("/home/b", b"x").await);
    assert_eq!(other.put("/dav/home/b", "x").await.status, 201, "another token has no quota");
    let record = gateway.rest("alice", &parent).get(&format!("/api/v1/tokens/{}", token_id(&parent))).await.json();
    assert_eq!((&record["limits"]["quota"], &record["quota_used"]), (&json!(50), &json!(51)), "{record}");
    assert_eq!(other.status("DELETE", "/dav/home/a").await, 204);
    assert_eq!(dav.put("/dav/home/a", "x".repeat(49)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_of_token_is_narrowed_by_edit_and_never_widened() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/home/old", "x".repeat(30));
    gateway.create_user("alice", &["/home:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    gateway.run_cli(&["apitoken", "edit", token_id(&token), "--quota", "40"]);
    let record = || -> serde_json::Value {
        serde_json::from_str(&gateway.run_cli(&["apitoken", "show", token_id(&token), "--json"])).expect("JSON")
    };
    for _ in 0..600 {
        if record()["quota_used"] == 30 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(record()["quota_used"], 30);
    assert_eq!(gateway.dav("alice", &token).put("/dav/home/new", "x".repeat(11)).await.status, 507);
    assert!(!gateway.try_run_cli(&["apitoken", "edit", token_id(&token), "--quota", "41"]).status.success());
    assert!(gateway.run_cli(&["apitoken", "show", token_id(&token)]).contains("files of 40 in all"));
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_properties_and_statvfs_show_quota() {
    let (gateway, token) = start_with_quota().await;
    gateway.run_cli(&["admin", "user", "quota", "alice", "1MiB"]);
    wait_until_counted(&gateway, "alice").await;
    let dav = gateway.dav("alice", &token);
    assert_eq!(dav.put("/dav/home/file", "x".repeat(64 << 10)).await.status, 201);
    let names = r#"<propfind xmlns="DAV:"><prop><quota-available-bytes/><quota-used-bytes/></prop></propfind>"#;
    let space = dav.send("PROPFIND", "/dav/home/", &[("depth", "0")], names).await.text();
    assert!(space.contains("<D:quota-available-bytes>983040</D:quota-available-bytes>"), "{space}");
    assert!(space.contains("<D:quota-used-bytes>65536</D:quota-used-bytes>"), "{space}");
    let mut sftp = gateway.sftp("alice", &token).await;
    let handle = sftp.open_file(b"/home/file", open_flags::READ).await.expect("opened");
    for (name, argument) in [("statvfs@openssh.com", &b"/home"[..]), ("fstatvfs@openssh.com", &handle)] {
        let (_, reply) = sftp.extended(name, &[argument]).await.expect(name);
        let number = |index: usize| u64::from_be_bytes(reply[index * 8..][..8].try_into().expect("8 bytes"));
        // f_bsize, f_frsize, f_blocks, f_bfree, f_bavail
        let unit = number(1);
        assert_eq!((number(2) * unit, number(4) * unit), (1 << 20, 983_040), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_is_set_later_changed_and_removed_and_counts_what_is_there() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/home/a/old", "x".repeat(80));
    gateway.create_user("alice", &["/home:rw"]);
    gateway.create_user("root", &["/:rw"]);
    gateway.run_cli(&["admin", "user", "roles", "root", "admin"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let admin = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    let (dav, rest) = (gateway.dav("alice", &token), gateway.rest("root", &admin));
    let said = gateway.run_cli(&["admin", "user", "quota", "alice", "100"]);
    assert_eq!(said, "User alice has a quota of 100 now");
    wait_until_counted(&gateway, "alice").await;
    assert_eq!(used(&gateway, "alice"), 80);
    assert!(gateway.run_cli(&["admin", "user", "show", "alice"]).contains("80 bytes of 100 (counted 20"));
    assert_eq!(dav.put("/dav/home/new", "x".repeat(21)).await.status, 507);

    let changed = rest.send("PATCH", "/api/v1/users/alice", json!({"quota": 101})).await;
    assert_eq!((changed.status, &changed.json()["quota"]), (200, &json!(101)), "{}", changed.text());
    assert_eq!(dav.put("/dav/home/new", "x".repeat(21)).await.status, 201);
    // On the host, then asked for by setting it again.
    fs::remove_file(gateway.host_path("/home/a/old")).expect("removed");
    assert_eq!(rest.send("PATCH", "/api/v1/users/alice", json!({"quota": 101})).await.status, 200);
    wait_until_counted(&gateway, "alice").await;
    assert_eq!(used(&gateway, "alice"), 21);

    let removed = rest.send("PATCH", "/api/v1/users/alice", json!({"quota": null})).await.json();
    assert!(removed.get("quota").is_none() && removed.get("quota_used").is_none(), "{removed}");
    assert_eq!(dav.put("/dav/home/large", "x".repeat(1000)).await.status, 201);
    let created = rest.send("POST", "/api/v1/users", json!({"login": "bob", "quota": 10, "home": true})).await;
    assert_eq!((created.status, &created.json()["quota"]), (201, &json!(10)), "{}", created.text());
    assert_eq!(gateway.run_cli(&["admin", "user", "quota", "bob", "none"]), "User bob has no quota now");
    let events = gateway.run_cli(&["audit", "--event", "user.quota_changed"]);
    assert_eq!(events.lines().filter(|line| line.contains("user.quota_changed")).count(), 6, "{events}");
    assert!(!gateway.try_run_cli(&["admin", "user", "quota", "bob", "much"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn console_sets_and_shows_quota_and_refuses_uploads_past_it() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/home");
    gateway.create_user("root", &["/:rw"]);
    gateway.run_cli(&["admin", "user", "roles", "root", "admin"]);
    gateway.create_user("alice", &["/home:rw"]);
    let admin = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    let browser = Browser::sign_in_new(&gateway, "root", &admin).await;
    let set = browser.submit("/console/people/alice", "/console/people/alice/quota", &[("quota", "1KiB")]).await;
    assert_eq!(set.status, 303, "{}", set.text());
    wait_until_counted(&gateway, "alice").await;
    let page = browser.get("/console/people/alice").await.text();
    assert!(page.contains("0 B of 1KiB used, counted"), "{page}");
    let own = Browser::sign_in_new(&gateway, "alice", &gateway.create_token("alice", &["-e", "1h"])).await;
    let csrf = own.csrf_token().await;
    assert_eq!(own.upload("/console/raw/home/file", &csrf, &"x".repeat(1025)).await, 507);
    assert!(own.upload("/console/raw/home/file", &csrf, &"x".repeat(1024)).await < 300);
    assert_eq!(used(&gateway, "alice"), 1024);
    let removed = browser.submit("/console/people/alice", "/console/people/alice/quota", &[("quota", "")]).await;
    assert_eq!(removed.status, 303);
    assert!(user_json(&gateway, "alice").get("quota").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_other_users_count_for_whose_files_they_are() {
    let (gateway, token) = start_with_quota().await;
    gateway.create_host_directory("/elsewhere");
    let other = gateway.create_user_and_token("bob", "/:rw");
    let (alice, bob) = (gateway.dav("alice", &token), gateway.dav("bob", &other));
    assert_eq!(bob.put("/dav/home/bobs", "x".repeat(150)).await.status, 201, "bob has no quota");
    assert_eq!(used(&gateway, "alice"), 150);
    assert_eq!(alice.put("/dav/home/new", "x").await.status, 507);
    assert_eq!(alice.put("/dav/home/bobs", "x".repeat(140)).await.status, 204, "less than before");
    assert_eq!(destination(&bob, "MOVE", "/dav/home/bobs", "/dav/elsewhere/bobs").await, 201);
    assert_eq!(used(&gateway, "alice"), 0);
    assert_eq!(destination(&bob, "COPY", "/dav/elsewhere/", "/dav/home/tree/").await, 201);
    assert_eq!(used(&gateway, "alice"), 140);
    assert_eq!(bob.status("DELETE", "/dav/home/tree/").await, 204);
    assert_eq!(used(&gateway, "alice"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn count_agrees_with_files_after_kill_and_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir_all(folder.join("files/home")).expect("a folder");
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--grant", "/home:rw", "--quota", "1GiB"]);
    let dav = DavClient::new(server.http, "alice", &create_token(folder, "alice"));
    let uploads = (0..4).map(|client| {
        let dav = dav.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let path = format!("/dav/home/{client}-{}", number % 7);
                let body = "x".repeat(number * 37 % 5000);
                if dav.try_send("PUT", &path, &[], body).await.is_err()
                    || number % 3 == 2 && dav.try_send("DELETE", &path, &[], "").await.is_err()
                {
                    return;
                }
            }
        })
    });
    let uploads: Vec<_> = uploads.collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.kill();
    for upload in uploads {
        upload.await.expect("no panic");
    }
    let server = ServerProcess::start(folder);
    let user = || -> serde_json::Value {
        serde_json::from_str(&run_cli(folder, &["admin", "user", "show", "alice", "--json"])).expect("JSON")
    };
    for _ in 0..600 {
        if user()["quota_counted_at"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let files = fs::read_dir(folder.join("files/home")).expect("listed");
    let on_host: u64 = files.map(|file| file.expect("a file").metadata().expect("there").len()).sum();
    assert_eq!(user()["quota_used"], on_host, "{}", user());
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_sums_of_quotas_and_no_names() {
    let gateway = Fixture::start_with(patgate::auth::Clock::system(), |settings| {
        settings.metrics = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    gateway.create_host_directory("/home");
    gateway.run_cli(&["admin", "user", "create", "alice", "--grant", "/home:rw", "--quota", "100"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    assert_eq!(gateway.dav("alice", &token).put("/dav/home/file", "x".repeat(60)).await.status, 201);
    let page = DavClient::new(gateway.metrics.expect("a listener"), "", "").get("/metrics").await.text();
    assert!(page.contains("patgate_quota_used{quota=\"stored_bytes\"} 60"), "{page}");
    assert!(page.contains("patgate_quota_max{quota=\"stored_bytes\"} 100") && !page.contains("alice"), "{page}");
}
