//! The end of a token: expiration, sliding windows, revocation, disabled users and revoked grants, and what each does
//! to open sessions and running transfers. Changes to a busy token are in `immediate_revocation.rs`, a clock that jumps
//! in `clock_jumps.rs`.

use std::time::{Duration, Instant};

use crate::support::{Fixture, SftpError, token_id};

/// Long enough for any machine; what is awaited normally comes within a second.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn hard_limit_is_not_extended_by_use() {
    let started = Instant::now();
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "10m"]);
    // The command line creates the token by the system's clock, which may be ahead on a slow machine.
    gateway.clock.advance(started.elapsed());
    let dav = gateway.dav("alice", &token);
    for _ in 0..9 {
        assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
        gateway.clock.advance(Duration::from_secs(60));
    }
    gateway.clock.advance(Duration::from_secs(61));
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn sliding_window_is_extended_by_use_only() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-a", "10m", "-e", "1h"]);
    let dav = gateway.dav("alice", &token);
    for _ in 0..6 {
        gateway.clock.advance(Duration::from_secs(9 * 60));
        assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
    }
    gateway.clock.advance(Duration::from_secs(7 * 60));
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401, "the hard limit caps the window");

    let rested = gateway.create_token("alice", &["-a", "600"]);
    let dav = gateway.dav("alice", &rested);
    gateway.clock.advance(Duration::from_secs(11 * 60));
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401, "it rested longer than its window");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_do_not_extend_a_sliding_window() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-a", "10m"]);
    let (dav, wrong) = (gateway.dav("alice", &token), gateway.dav("bob", &token));
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
    gateway.clock.advance(Duration::from_secs(9 * 60));
    assert_eq!(wrong.status("PROPFIND", "/dav/").await, 401);
    gateway.clock.advance(Duration::from_secs(2 * 60));
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_sliding_window_survives_a_restart() {
    let mut gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-a", "10m"]);
    gateway.clock.advance(Duration::from_secs(9 * 60));
    assert_eq!(gateway.dav("alice", &token).status("PROPFIND", "/dav/").await, 207);
    gateway.restart().await;
    gateway.clock.advance(Duration::from_secs(9 * 60));
    assert_eq!(gateway.dav("alice", &token).status("PROPFIND", "/dav/").await, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn expiration_closes_an_idle_sftp_session() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "10m"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    assert_eq!(sftp.list("/").await, Ok(Vec::new()));
    gateway.clock.advance(Duration::from_secs(11 * 60));
    let disconnect =
        tokio::time::timeout(EVENT_TIMEOUT, sftp.receive(u32::MAX)).await.expect("the session ends by itself");
    assert_eq!(disconnect, Err(SftpError::ConnectionLost));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoked_by_another_process_closes_open_sftp_session() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.write_host_file("/old", "old content");
    let mut sftp = gateway.sftp("alice", &token).await;
    let handle = sftp.open_file(b"/old", 2 | 8 | 16).await.expect("staged");
    sftp.write_at(&handle, 0, b"half of the n").await.expect("written");
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    let disconnect =
        tokio::time::timeout(EVENT_TIMEOUT, sftp.receive(u32::MAX)).await.expect("the session ends by itself");
    assert_eq!(disconnect, Err(SftpError::ConnectionLost));
    assert_eq!(std::fs::read(gateway.host_path("/old")).expect("there"), b"old content");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoked_by_another_process_aborts_running_get() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.write_host_file("/large", vec![7; 64 << 20]);
    let dav = gateway.dav("alice", &token);
    let mut response = dav.send_streaming("GET", "/dav/large", &[], "").await;
    assert_eq!(response.status().as_u16(), 200);
    let mut read = response.chunk().await.expect("a first block").map_or(0, |block| block.len());
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let received_until_abort = loop {
        match response.chunk().await {
            Ok(Some(block)) => read += block.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(received_until_abort && read < 64 << 20, "the answer went on to its end: {read} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_user_is_refused_until_enabled_again() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    let mut sftp = gateway.sftp("alice", &token).await;
    gateway.run_cli(&["admin", "user", "disable", "alice"]);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
    let disconnect =
        tokio::time::timeout(EVENT_TIMEOUT, sftp.receive(u32::MAX)).await.expect("the session ends by itself");
    assert_eq!(disconnect, Err(SftpError::ConnectionLost));
    gateway.run_cli(&["admin", "user", "enable", "alice"]);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_grant_narrows_an_open_session() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a/file", "a");
    gateway.write_host_file("/b/file", "b");
    gateway.create_user("alice", &["/a:rw", "/b:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    assert_eq!(sftp.get("/b/file").await.as_deref(), Ok(&b"b"[..]));
    gateway.run_cli(&["admin", "user", "revoke-grant", "alice", "/b"]);
    let narrowed = tokio::time::timeout(EVENT_TIMEOUT, async {
        while sftp.stat("/b/file").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    narrowed.await.expect("the session narrows by itself");
    assert_eq!(sftp.stat("/b/file").await.map_err(|e| e.code()), Err(2));
    assert_eq!(sftp.get("/a/file").await.as_deref(), Ok(&b"a"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_credential_gets_the_same_answer() {
    let gateway = Fixture::start().await;
    let good = gateway.create_user_and_token("alice", "/:rw");
    gateway.create_user("bob", &["/:rw"]);
    let revoked = gateway.create_token("bob", &["-e", "1h"]);
    gateway.run_cli(&["apitoken", "revoke", token_id(&revoked)]);
    let mistyped = format!("{}x", &good[..50]);
    let mut answers = Vec::new();
    for (login, token) in [("bob", good.as_str()), ("bob", &revoked), ("alice", &mistyped), ("alice", ""), ("zoe", "x")]
    {
        answers.push(gateway.dav(login, token).send("PROPFIND", "/dav/", &[], "").await.without_date());
    }
    assert_eq!(answers[0].status, 401);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}
