//! One tree over WebDAV and SFTP at the same time: a WebDAV lock refuses changes over SFTP, and each protocol sees a
//! file that the other uploads only once it is complete.

use crate::support::{DavClient, Fixture, LOCK_BODY, SftpClient, SftpError, encode_string};

const READ: u32 = 1;
const WRITE: u32 = 2;
const CREATE: u32 = 8;
const REPLACE: u32 = WRITE | CREATE | 16;

struct CrossProtocolFixture {
    gateway: Fixture,
    dav: DavClient,
    sftp: SftpClient,
}

async fn start_cross_protocol() -> CrossProtocolFixture {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    let sftp = gateway.sftp("alice", &token).await;
    CrossProtocolFixture { gateway, dav, sftp }
}

impl CrossProtocolFixture {
    async fn lock(&self, path: &str, depth: &str) -> String {
        let answer = self.dav.send("LOCK", path, &[("depth", depth)], LOCK_BODY).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.text());
        answer.header("lock-token").to_owned()
    }

    async fn etag(&self, path: &str) -> String {
        let answer = self.dav.send("HEAD", path, &[], "").await;
        assert_eq!(answer.status, 200);
        answer.header("etag").to_owned()
    }
}

/// The sentence of a refusal by a lock.
fn lock_refusal<T: std::fmt::Debug>(result: Result<T, SftpError>) -> String {
    match result {
        Err(SftpError::Status(3, message)) => message,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_lock_refuses_every_sftp_change_of_the_file() {
    let mut both = start_cross_protocol().await;
    both.gateway.write_host_file("/f", "old");
    both.gateway.write_host_file("/other", "other");
    let editor = both.sftp.open_file(b"/f", WRITE).await.expect("before the lock");
    let token = both.lock("/dav/f", "0").await;
    let sftp = &mut both.sftp;
    let size = [&1u32.to_be_bytes()[..], &1u64.to_be_bytes()].concat();
    let refusals = [
        lock_refusal(sftp.write_at(&editor, 0, b"x").await),
        lock_refusal(sftp.request(10, &[&encode_string(&editor), &size]).await),
        lock_refusal(sftp.open_file(b"/f", WRITE).await),
        lock_refusal(sftp.open_file(b"/f", REPLACE).await),
        lock_refusal(sftp.open_file(b"/f", WRITE | 4).await),
        lock_refusal(sftp.request(9, &[&encode_string(b"/f"), &size]).await),
        lock_refusal(sftp.chmod("/f", 0o600).await),
        lock_refusal(sftp.remove("/f").await),
        lock_refusal(sftp.rename("/f", "/g").await),
        lock_refusal(sftp.posix_rename("/other", "/f").await),
    ];
    for refusal in refusals {
        assert_eq!(refusal, "/f is locked by a WebDAV client");
    }
    assert_eq!(sftp.get("/f").await.as_deref(), Ok(&b"old"[..]), "reading goes on");
    assert_eq!(sftp.get("/other").await.as_deref(), Ok(&b"other"[..]));
    let unlock = both.dav.send("UNLOCK", "/dav/f", &[("lock-token", &token)], "").await;
    assert_eq!(unlock.status, 204);
    both.sftp.write_at(&editor, 0, b"new").await.expect("the lock is gone");
    both.sftp.close(&editor).await.expect("closes");
    assert_eq!(both.dav.get("/dav/f").await.text(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_depth_infinity_lock_refuses_sftp_changes_below_the_directory() {
    let mut both = start_cross_protocol().await;
    both.gateway.write_host_file("/d/sub/f", "old");
    both.gateway.write_host_file("/outside", "x");
    both.lock("/dav/d/", "infinity").await;
    let sftp = &mut both.sftp;
    let refusals = [
        lock_refusal(sftp.mkdir("/d/new").await),
        lock_refusal(sftp.put("/d/new", b"x").await),
        lock_refusal(sftp.put("/d/sub/f", b"x").await),
        lock_refusal(sftp.remove("/d/sub/f").await),
        lock_refusal(sftp.rmdir("/d/sub").await),
        lock_refusal(sftp.rename("/d", "/e").await),
        lock_refusal(sftp.rename("/d/sub", "/e").await),
        lock_refusal(sftp.rename("/outside", "/d/in").await),
        lock_refusal(sftp.hard_link("/outside", "/d/in").await),
        lock_refusal(sftp.symlink("sub/f", "/d/link").await),
    ];
    for refusal in refusals {
        assert_eq!(refusal, "/d is locked by a WebDAV client");
    }
    assert_eq!(both.gateway.all_paths(), [".patgate", "d", "d/sub", "d/sub/f", "outside"].map(str::to_owned));
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_upload_appears_over_webdav_on_close_with_a_new_etag() {
    let mut both = start_cross_protocol().await;
    both.sftp.put("/f", b"first").await.expect("uploads");
    let first = both.etag("/dav/f").await;
    let upload = both.sftp.open_file(b"/f", REPLACE).await.expect("opens");
    both.sftp.write_at(&upload, 0, b"other").await.expect("writes");
    assert_eq!(both.dav.get("/dav/f").await.text(), "first", "until CLOSE");
    assert_eq!(both.etag("/dav/f").await, first);
    both.sftp.close(&upload).await.expect("commits");
    assert_eq!(both.dav.get("/dav/f").await.text(), "other");
    let second = both.etag("/dav/f").await;
    assert_ne!(second, first, "of the same length, perhaps within one tick of the clock");
    both.sftp.chmod("/f", 0o600).await.expect("sets");
    both.sftp.rename("/f", "/g").await.expect("renames");
    assert_eq!(both.etag("/dav/g").await, second, "neither a mode nor a name is content");
    let edit = both.sftp.open_file(b"/g", WRITE).await.expect("opens");
    both.sftp.write_at(&edit, 0, b"O").await.expect("writes");
    both.sftp.close(&edit).await.expect("closes");
    assert_ne!(both.etag("/dav/g").await, second);
    assert_eq!(both.dav.get("/dav/g").await.text(), "Other");
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_upload_appears_over_sftp_when_complete_and_open_handles_keep_reading() {
    let mut both = start_cross_protocol().await;
    both.gateway.write_host_file("/f", "the old content");
    let reader = both.sftp.open_file(b"/f", READ).await.expect("opens");
    assert_eq!(both.dav.put("/dav/f", "new").await.status, 204);
    assert_eq!(both.sftp.stat("/f").await.expect("there").size, Some(3));
    assert_eq!(both.sftp.get("/f").await.as_deref(), Ok(&b"new"[..]));
    let rest = both.sftp.read_at(&reader, 4, 100).await;
    assert_eq!(rest.as_deref(), Ok(&b"old content"[..]), "a download under way is of one piece");
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_if_match_fails_after_an_sftp_change() {
    let mut both = start_cross_protocol().await;
    both.sftp.put("/f", b"first").await.expect("uploads");
    let etag = both.etag("/dav/f").await;
    both.sftp.put("/f", b"other").await.expect("uploads");
    let stale = both.dav.send("PUT", "/dav/f", &[("if-match", &etag)], "lost update").await;
    assert_eq!(stale.status, 412);
    assert_eq!(both.dav.get("/dav/f").await.text(), "other");
}
