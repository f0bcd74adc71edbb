//! A wall clock that jumps: uploads and locks survive it, an expired token stays expired when it is set back, and a
//! token that a wrong clock expired works again after the correction. Retention of rows after a jump is tested in
//! `src/tokens/tests/clock_jumps.rs`.

use std::time::Duration;

use patgate::auth::Clock;

use crate::support::{DavClient, Fixture, LOCK_BODY, SftpClient};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

async fn start_gateway() -> Fixture {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway
}

async fn authenticates(gateway: &Fixture, token: &str) -> (u16, bool) {
    let status = gateway.dav("alice", token).status("PROPFIND", "/dav/").await;
    (status, SftpClient::connect(gateway.sftp, "alice", token).await.is_some())
}

async fn begin_upload(dav: &DavClient, path: &str) -> String {
    dav.send("PUT", path, &[("upload-complete", "?0")], "x").await.header("location").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_token_stays_expired_when_the_clock_is_set_back() {
    let mut gateway = start_gateway().await;
    let (token, start) = (gateway.create_token("alice", &["-e", "1h"]), gateway.clock.now());
    assert_eq!(authenticates(&gateway, &token).await, (207, true));
    gateway.clock.advance(2 * HOUR);
    assert_eq!(authenticates(&gateway, &token).await, (401, false));
    gateway.clock.set(start);
    assert_eq!(authenticates(&gateway, &token).await, (401, false));
    gateway.clock.set(start.saturating_sub(YEAR));
    gateway.restart().await;
    assert_eq!(authenticates(&gateway, &token).await, (401, false));
    let listed = gateway.run_cli(&["apitoken", "list", "--status", "expired", "--json"]);
    assert!(listed.contains(&token[4..12]), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_expired_by_a_clock_jump_works_again_after_correction() {
    let mut gateway = start_gateway().await;
    let (token, start) = (gateway.create_token("alice", &["-e", "30d"]), gateway.clock.now());
    for restarts in [false, true] {
        gateway.clock.set(start.saturating_add(YEAR));
        assert_eq!(authenticates(&gateway, &token).await, (401, false));
        if restarts {
            gateway.restart().await;
            assert_eq!(authenticates(&gateway, &token).await, (401, false));
        }
        gateway.clock.set(start);
        assert_eq!(authenticates(&gateway, &token).await, (207, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_locks_survive_a_clock_jump() {
    let mut gateway = start_gateway().await;
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "90d"]));
    gateway.create_user("bob", &["/:rw"]);
    let bob = gateway.create_token("bob", &["-e", "90d"]);
    let upload = begin_upload(&dav, "/dav/a").await;
    assert_eq!(dav.status("MKCOL", "/remote.php/dav/uploads/alice/up").await, 201);
    assert_eq!(dav.send("LOCK", "/dav/locked", &[], LOCK_BODY).await.status, 201);
    let right = gateway.clock.now();
    let is_all_there = async |gateway: &Fixture| {
        // Starting an upload removes expired ones.
        let (dav, other) = (&dav, gateway.dav("bob", &bob));
        begin_upload(&other, "/dav/b").await;
        assert_eq!(other.put("/dav/locked", "x").await.status, 423);
        assert_eq!(dav.send("HEAD", &upload, &[], "").await.status, 204);
        assert_eq!(dav.status("PROPFIND", "/remote.php/dav/uploads/alice/up").await, 207);
    };
    for wrong in [right.saturating_add(20 * DAY), right.saturating_sub(20 * DAY)] {
        for time in [wrong, right] {
            gateway.clock.set(time);
            is_all_there(&gateway).await;
        }
    }
    let staged = |gateway: &Fixture| std::fs::read_dir(gateway.host_path("/.patgate")).map_or(0, Iterator::count);
    let before = staged(&gateway);
    for wrong in [right.saturating_add(20 * DAY), right.saturating_sub(20 * DAY), right] {
        gateway.stop().await;
        gateway.clock = Clock::manual(wrong);
        gateway.restart().await;
        let doctor = gateway.run_cli(&["doctor"]);
        assert!(doctor.contains("nothing is deleted by age for 24 h"), "{doctor}");
        assert_eq!(staged(&gateway), before);
    }
}
