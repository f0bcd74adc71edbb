//! What a lost SFTP connection has left of an upload is gone on with.

use std::time::Duration;

use patgate::auth::Clock;

use crate::support::open_flags::{APPEND, CREATE, REPLACE, WRITE};
use crate::support::{Fixture, Sftp, SftpError};

const NO_SUCH_FILE: u32 = 2;

struct Served {
    gateway: Fixture,
    token: String,
}

impl Served {
    async fn start() -> Self {
        Self::over(Fixture::with_clock_by_hand().await)
    }

    fn over(gateway: Fixture) -> Self {
        gateway.user("alice", &["/:rw"]);
        let token = gateway.token("alice", &["-e", "30d"]);
        Self { gateway, token }
    }

    async fn session(&self) -> Sftp {
        self.gateway.sftp("alice", &self.token).await
    }

    /// Uploads a part of a file and loses the connection; returns the next session, once the server has noticed.
    async fn cut(&self, path: &str, content: &str) -> Sftp {
        let mut lost = self.session().await;
        let handle = lost.open_file(path.as_bytes(), REPLACE).await.expect("staged");
        lost.write_at(&handle, 0, content.as_bytes()).await.expect("written");
        lost.cut();
        let mut next = self.session().await;
        for _ in 0..1000 {
            if next.stat(path).await.is_ok() {
                return next;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        next
    }

    fn staged(&self) -> usize {
        self.gateway.staged().len()
    }

    async fn swept(&self) {
        for _ in 0..1000 {
            if self.staged() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something stays in staging");
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, SftpError>) -> u32 {
    result.expect_err("refused").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_upload_is_resumed_by_the_next_session_of_its_token() {
    let served = Served::start().await;
    for (path, flags) in
        [("/a", WRITE), ("/b", WRITE | CREATE), ("/c", WRITE | APPEND), ("/d", WRITE | CREATE | APPEND)]
    {
        let mut sftp = served.cut(path, "half").await;
        assert_eq!(sftp.stat(path).await.expect(path).size, Some(4));
        assert!(sftp.list("/").await.expect("listed").contains(&path[1..].to_owned()));
        assert!(!served.gateway.host(path).exists(), "nobody else sees it");
        let handle = sftp.open_file(path.as_bytes(), flags).await.expect(path);
        sftp.write_at(&handle, 4, b" and whole").await.expect(path);
        assert!(!served.gateway.host(path).exists(), "{path}: not before CLOSE");
        sftp.close(&handle).await.expect(path);
        assert_eq!(std::fs::read_to_string(served.gateway.host(path)).expect(path), "half and whole");
    }
    served.swept().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_upload_is_renamed_begun_anew_or_removed() {
    let served = Served::start().await;
    let mut sftp = served.cut("/a.filepart", "all that there was").await;
    sftp.rename("/a.filepart", "/a").await.expect("renamed");
    assert_eq!(std::fs::read_to_string(served.gateway.host("/a")).expect("there"), "all that there was");
    let mut sftp = served.cut("/b", "half").await;
    sftp.put("/b", b"anew").await.expect("put");
    assert_eq!(std::fs::read_to_string(served.gateway.host("/b")).expect("there"), "anew");
    let mut sftp = served.cut("/c", "half").await;
    sftp.remove("/c").await.expect("removed");
    assert_eq!(code(sftp.stat("/c").await), NO_SUCH_FILE);
    served.swept().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_upload_is_shown_to_its_token_alone_and_until_something_stands_there() {
    let served = Served::start().await;
    let mut sftp = served.cut("/a", "half").await;
    let other = served.gateway.token("alice", &["-e", "1h"]);
    let mut other = served.gateway.sftp("alice", &other).await;
    assert_eq!(code(other.stat("/a").await), NO_SUCH_FILE);
    other.put("/a", b"another").await.expect("put");
    assert_eq!(sftp.get("/a").await, Ok(b"another".to_vec()));
    // One that asked and did not go on gives it back.
    let sftp = served.cut("/b", "half").await;
    sftp.end().await;
    let mut next = served.session().await;
    for _ in 0..1000 {
        if next.stat("/b").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_upload_is_discarded_with_its_token_and_after_its_time() {
    let served = Served::start().await;
    drop(served.cut("/a", "half").await);
    served.gateway.clock.advance(Duration::from_secs(86_400));
    served.swept().await;
    drop(served.cut("/b", "half").await);
    served.gateway.patgate(&["apitoken", "revoke", crate::support::id_of(&served.token)]);
    served.gateway.clock.advance(Duration::from_secs(60));
    served.swept().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_where_that_is_configured() {
    let none =
        |settings: &mut patgate::gateway::GatewaySettings| settings.sftp_options.upload_retention = Duration::ZERO;
    let served = Served::over(Fixture::start_with(Clock::system(), none).await);
    let mut lost = served.session().await;
    let handle = lost.open_file(b"/a", REPLACE).await.expect("staged");
    lost.write_at(&handle, 0, b"half").await.expect("written");
    lost.cut();
    served.swept().await;
    assert_eq!(code(served.session().await.stat("/a").await), NO_SUCH_FILE);
}
