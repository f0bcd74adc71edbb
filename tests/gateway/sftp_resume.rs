//! Resuming an SFTP upload after its connection was lost: who sees the interrupted upload, what may be done with it,
//! and when it is discarded.

use std::time::Duration;

use patgate::auth::Clock;

use crate::support::open_flags::{APPEND, CREATE, REPLACE, WRITE};
use crate::support::{Fixture, SftpClient, status_code};

const NO_SUCH_FILE: u32 = 2;

struct SftpResumeFixture {
    gateway: Fixture,
    token: String,
}

impl SftpResumeFixture {
    async fn start() -> Self {
        Self::with_gateway(Fixture::with_manual_clock().await)
    }

    fn with_gateway(gateway: Fixture) -> Self {
        gateway.create_user("alice", &["/:rw"]);
        let token = gateway.create_token("alice", &["-e", "30d"]);
        Self { gateway, token }
    }

    async fn session(&self) -> SftpClient {
        self.gateway.sftp("alice", &self.token).await
    }

    /// Uploads a part of a file and loses the connection; returns the next session, once the server has noticed.
    async fn interrupt_upload(&self, path: &str, content: &str) -> SftpClient {
        let mut lost = self.session().await;
        let handle = lost.open_file(path.as_bytes(), REPLACE).await.expect("staged");
        lost.write_at(&handle, 0, content.as_bytes()).await.expect("written");
        lost.drop_connection();
        let mut next = self.session().await;
        for _ in 0..1000 {
            if next.stat(path).await.is_ok() {
                return next;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        next
    }

    fn staged_count(&self) -> usize {
        self.gateway.staged_entries().len()
    }

    async fn wait_until_unstaged(&self) {
        for _ in 0..1000 {
            if self.staged_count() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something stays in staging");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_is_resumed_by_the_next_session_of_its_token() {
    let fixture = SftpResumeFixture::start().await;
    for (path, flags) in
        [("/a", WRITE), ("/b", WRITE | CREATE), ("/c", WRITE | APPEND), ("/d", WRITE | CREATE | APPEND)]
    {
        let mut sftp = fixture.interrupt_upload(path, "half").await;
        assert_eq!(sftp.stat(path).await.expect(path).size, Some(4));
        assert!(sftp.list("/").await.expect("listed").contains(&path[1..].to_owned()));
        assert!(!fixture.gateway.host_path(path).exists(), "nobody else sees it");
        let handle = sftp.open_file(path.as_bytes(), flags).await.expect(path);
        sftp.write_at(&handle, 4, b" and whole").await.expect(path);
        assert!(!fixture.gateway.host_path(path).exists(), "{path}: not before CLOSE");
        sftp.close(&handle).await.expect(path);
        assert_eq!(std::fs::read_to_string(fixture.gateway.host_path(path)).expect(path), "half and whole");
    }
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_can_be_renamed_restarted_or_removed() {
    let fixture = SftpResumeFixture::start().await;
    let mut sftp = fixture.interrupt_upload("/a.filepart", "all that there was").await;
    sftp.rename("/a.filepart", "/a").await.expect("renamed");
    assert_eq!(std::fs::read_to_string(fixture.gateway.host_path("/a")).expect("there"), "all that there was");
    let mut sftp = fixture.interrupt_upload("/b", "half").await;
    sftp.put("/b", b"anew").await.expect("put");
    assert_eq!(std::fs::read_to_string(fixture.gateway.host_path("/b")).expect("there"), "anew");
    let mut sftp = fixture.interrupt_upload("/c", "half").await;
    sftp.remove("/c").await.expect("removed");
    assert_eq!(status_code(sftp.stat("/c").await), NO_SUCH_FILE);
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_is_visible_only_to_its_token_while_the_name_is_free() {
    let fixture = SftpResumeFixture::start().await;
    let mut sftp = fixture.interrupt_upload("/a", "half").await;
    let other = fixture.gateway.create_token("alice", &["-e", "1h"]);
    let mut other = fixture.gateway.sftp("alice", &other).await;
    assert_eq!(status_code(other.stat("/a").await), NO_SUCH_FILE);
    other.put("/a", b"another").await.expect("put");
    assert_eq!(sftp.get("/a").await, Ok(b"another".to_vec()));
    // One that asked and did not go on gives it back.
    let sftp = fixture.interrupt_upload("/b", "half").await;
    sftp.close_channel().await;
    let mut next = fixture.session().await;
    for _ in 0..1000 {
        if next.stat("/b").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_is_discarded_with_its_token_and_after_retention() {
    let fixture = SftpResumeFixture::start().await;
    drop(fixture.interrupt_upload("/a", "half").await);
    fixture.gateway.clock.advance(Duration::from_secs(86_400));
    fixture.wait_until_unstaged().await;
    drop(fixture.interrupt_upload("/b", "half").await);
    fixture.gateway.run_cli(&["apitoken", "revoke", crate::support::token_id(&fixture.token)]);
    fixture.gateway.clock.advance(Duration::from_secs(60));
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_retention_keeps_no_interrupted_upload() {
    let none =
        |settings: &mut patgate::gateway::GatewaySettings| settings.sftp_options.upload_retention = Duration::ZERO;
    let fixture = SftpResumeFixture::with_gateway(Fixture::start_with(Clock::system(), none).await);
    let mut lost = fixture.session().await;
    let handle = lost.open_file(b"/a", REPLACE).await.expect("staged");
    lost.write_at(&handle, 0, b"half").await.expect("written");
    lost.drop_connection();
    fixture.wait_until_unstaged().await;
    assert_eq!(status_code(fixture.session().await.stat("/a").await), NO_SUCH_FILE);
}
