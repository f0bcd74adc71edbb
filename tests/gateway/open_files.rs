//! An open SFTP handle stays on the file that was opened, whatever others rename, replace, lock or remove meanwhile.
//! Directory handles are in `directory_handles.rs`, random sequences against a model in `tests/handles`.

use std::time::Duration;

use patgate::auth::Clock;
use patgate::gateway::GatewaySettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::open_flags::{APPEND, CREATE, EXCLUSIVE, READ, REPLACE, WRITE};
use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, LOCK_BODY, SftpClient, SftpError, encode_string, status_code};

const END: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;

/// A gateway, and two sessions of one user beside a WebDAV client.
struct OpenFilesFixture {
    gateway: Fixture,
    first_session: SftpClient,
    second_session: SftpClient,
    dav: DavClient,
}

impl OpenFilesFixture {
    async fn start() -> Self {
        // Interrupted uploads are discarded here: sftp_resume.rs tests their retention.
        let nothing_kept = |settings: &mut GatewaySettings| settings.sftp_options.upload_retention = Duration::ZERO;
        let gateway = Fixture::start_with(Clock::system(), nothing_kept).await;
        let token = gateway.create_user_and_token("alice", "/:rw");
        let (first, second) = (gateway.sftp("alice", &token).await, gateway.sftp("alice", &token).await);
        let dav = gateway.dav("alice", &token);
        Self { gateway, first_session: first, second_session: second, dav }
    }

    fn read_host(&self, path: &str) -> String {
        std::fs::read_to_string(self.gateway.host_path(path)).unwrap_or_else(|error| format!("{error}"))
    }

    async fn lock(&self, path: &str, depth: &str) -> String {
        let answer = self.dav.send("LOCK", &format!("/dav{path}"), &[("Depth", depth)], LOCK_BODY).await;
        assert!(answer.status == 200 || answer.status == 201, "{answer:?}");
        answer.header("lock-token").to_owned()
    }

    async fn unlock(&self, path: &str, token: &str) {
        let answer = self.dav.send("UNLOCK", &format!("/dav{path}"), &[("Lock-Token", token)], "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    async fn etag(&self, path: &str) -> String {
        self.dav.send("HEAD", &format!("/dav{path}"), &[], "").await.header("etag").to_owned()
    }

    /// Asserts that GET, HEAD and PROPFIND show a tag that was not seen before.
    async fn assert_etag_changed(&self, seen: &mut std::collections::HashSet<String>, by: &str) {
        let etag = self.etag("/f").await;
        assert_eq!(self.dav.get("/dav/f").await.header("etag"), etag, "{by}");
        let listed = self.dav.send("PROPFIND", "/dav/", &[("Depth", "1")], "").await.text();
        assert!(listed.contains(&etag), "{by}: {etag} in {listed}");
        assert!(seen.insert(etag), "{by}");
    }

    /// Waits until something is staged.
    async fn wait_until_staged(&self) {
        for _ in 0..1000 {
            if !self.gateway.staged_entries().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing is staged");
    }

    /// Waits until nothing is staged any more.
    async fn wait_until_unstaged(&self) {
        for _ in 0..1000 {
            if self.gateway.staged_entries().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something stays in staging");
    }
}

async fn upload(sftp: &mut SftpClient, path: &str, content: &str) -> Vec<u8> {
    let handle = sftp.open_file(path.as_bytes(), READ | REPLACE).await.expect(path);
    sftp.write_at(&handle, 0, content.as_bytes()).await.expect(path);
    handle
}

#[tokio::test(flavor = "multi_thread")]
async fn close_fails_if_another_session_committed_since_open() {
    let mut fixture = OpenFilesFixture::start().await;
    for (path, old) in [("/new", None), ("/old", Some("old"))] {
        if let Some(old) = old {
            fixture.gateway.write_host_file(path, old);
        }
        let first = upload(&mut fixture.first_session, path, "first").await;
        let second = upload(&mut fixture.second_session, path, "second").await;
        fixture.first_session.close(&first).await.expect("nobody was before it");
        assert_eq!(
            fixture.second_session.get(path).await,
            Ok(b"first".to_vec()),
            "the second no longer stands there for its session"
        );
        assert_eq!(
            status_code(
                fixture
                    .second_session
                    .request(200, &[&encode_string(b"fsync@openssh.com"), &encode_string(&second)])
                    .await
            ),
            FAILURE
        );
        let refused = fixture.second_session.close(&second).await.expect_err("refused");
        assert!(matches!(&refused, SftpError::Status(FAILURE, text) if text.contains("another client")), "{refused:?}");
        assert_eq!(fixture.read_host(path), "first");
    }
    fixture.gateway.write_host_file("/edited", "old");
    let staged = upload(&mut fixture.first_session, "/edited", "whole").await;
    let edit = fixture.second_session.open_file(b"/edited", WRITE).await.expect("opened");
    fixture.second_session.write_at(&edit, 0, b"ed").await.expect("written");
    assert_eq!(status_code(fixture.first_session.close(&staged).await), FAILURE);
    fixture.second_session.write_at(&edit, 2, b"it").await.expect("written");
    fixture.second_session.close(&edit).await.expect("closed");
    assert_eq!(fixture.read_host("/edited"), "edit");
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_commits_to_a_name_that_was_removed() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/old", "old");
    let handle = upload(&mut fixture.first_session, "/old", "new").await;
    fixture.second_session.rename("/old", "/kept").await.expect("renamed");
    assert_eq!(status_code(fixture.first_session.stat("/old").await), NO_SUCH_FILE);
    fixture.first_session.close(&handle).await.expect("nothing is lost");
    assert_eq!((fixture.read_host("/old"), fixture.read_host("/kept")), ("new".to_owned(), "old".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn close_commits_in_the_directory_that_was_opened() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.first_session.mkdir("/in").await.expect("made");
    let handle = upload(&mut fixture.first_session, "/in/f", "hello").await;
    fixture.second_session.rename("/in", "/done").await.expect("renamed");
    fixture.second_session.mkdir("/in").await.expect("made");
    fixture.first_session.write_at(&handle, 5, b" there").await.expect("goes on");
    assert_eq!(fixture.first_session.stat("/done/f").await.expect("seen there").size, Some(11));
    assert_eq!(fixture.first_session.get("/done/f").await, Ok(b"hello there".to_vec()));
    assert_eq!(status_code(fixture.first_session.stat("/in/f").await), NO_SUCH_FILE);
    fixture.first_session.close(&handle).await.expect("committed");
    assert_eq!(fixture.read_host("/done/f"), "hello there");
    assert_eq!(fixture.second_session.list("/in").await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_operation_commits_no_upload() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "old");
    fixture.gateway.write_host_file("/taken", "taken");
    fixture.gateway.create_host_directory("/folder");
    let handle = upload(&mut fixture.first_session, "/f", "new").await;
    assert_eq!(status_code(fixture.first_session.rename("/f", "/taken").await), FAILURE);
    assert_eq!(status_code(fixture.first_session.posix_rename("/f", "/folder").await), FAILURE);
    let lock = fixture.lock("/folder", "0").await;
    assert_eq!(status_code(fixture.first_session.posix_rename("/f", "/missing/f").await), NO_SUCH_FILE);
    assert_eq!(status_code(fixture.first_session.posix_rename("/f", "/folder/f").await), PERMISSION_DENIED);
    assert_eq!(status_code(fixture.first_session.hard_link("/f", "/taken").await), FAILURE);
    assert_eq!(status_code(fixture.first_session.hard_link("/f", "/folder/f").await), PERMISSION_DENIED);
    assert_eq!(status_code(fixture.first_session.open_file(b"/f", WRITE | CREATE | EXCLUSIVE).await), FAILURE);
    assert_eq!(status_code(fixture.first_session.posix_rename("/folder", "/f").await), NO_SUCH_FILE);
    assert_eq!(fixture.read_host("/f"), "old", "nothing was committed");
    assert_eq!(fixture.first_session.get("/f").await, Ok(b"new".to_vec()), "and it is staged still");
    fixture.unlock("/folder", &lock).await;
    fixture.first_session.posix_rename("/f", "/folder/f").await.expect("renamed");
    assert_eq!(fixture.read_host("/folder/f"), "new");
    fixture.first_session.write_at(&handle, 3, b"er").await.expect("goes on");
    fixture.first_session.close(&handle).await.expect("closed");
    assert_eq!(fixture.read_host("/folder/f"), "newer");
    assert_eq!(fixture.second_session.list("/").await, Ok(vec!["folder".to_owned(), "taken".to_owned()]));
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_upload_of_a_session_supersedes_the_earlier_one() {
    let mut fixture = OpenFilesFixture::start().await;
    let earlier = upload(&mut fixture.first_session, "/f", "earlier").await;
    let later = upload(&mut fixture.first_session, "/f", "later").await;
    assert_eq!(fixture.first_session.stat("/f").await.expect("there").size, Some(5));
    assert_eq!(fixture.first_session.read_at(&earlier, 0, 100).await, Ok(b"earlier".to_vec()));
    fixture.first_session.close(&later).await.expect("committed");
    fixture.first_session.close(&earlier).await.expect("its data was replaced by the session itself");
    assert_eq!(fixture.read_host("/f"), "later");
    let earlier = upload(&mut fixture.first_session, "/f", "earlier").await;
    let later = upload(&mut fixture.first_session, "/f", "latest").await;
    assert_eq!(status_code(fixture.first_session.write_at(&earlier, 0, b"lost").await), FAILURE);
    assert_eq!(status_code(fixture.first_session.close(&earlier).await), FAILURE, "what was refused is told again");
    fixture.first_session.remove("/f").await.expect("removed");
    fixture.first_session.close(&later).await.expect("closed");
    assert_eq!(fixture.second_session.list("/").await, Ok(Vec::new()), "neither comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_handle_keeps_reading_an_upload_after_commit() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "old and longer");
    let handle = upload(&mut fixture.first_session, "/f", "mine").await;
    let reader = fixture.first_session.open_file(b"/f", READ).await.expect("opened");
    fixture.first_session.close(&handle).await.expect("committed");
    assert_eq!(fixture.first_session.read_at(&reader, 0, 100).await, Ok(b"mine".to_vec()));
    fixture.second_session.put("/f", b"another file").await.expect("put");
    assert_eq!(fixture.first_session.read_at(&reader, 0, 100).await, Ok(b"mine".to_vec()));
    fixture.second_session.remove("/f").await.expect("removed");
    assert_eq!(fixture.first_session.read_at(&reader, 1, 100).await, Ok(b"ine".to_vec()));
    assert_eq!(status_code(fixture.first_session.read_at(&reader, 4, 100).await), END);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_handle_cannot_change_size_or_content() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "content");
    let size = [&1u32.to_be_bytes()[..], &0u64.to_be_bytes()].concat();
    for flags in [READ, READ | APPEND, APPEND, READ | CREATE, 0] {
        let handle = fixture.first_session.open_file(b"/f", flags).await.expect("opened");
        assert_eq!(status_code(fixture.first_session.write_at(&handle, 0, b"x").await), FAILURE, "{flags}");
        assert_eq!(
            status_code(fixture.first_session.request(10, &[&encode_string(&handle), &size]).await),
            FAILURE,
            "{flags}"
        );
        assert_eq!(fixture.first_session.read_at(&handle, 0, 100).await, Ok(b"content".to_vec()), "{flags}");
        let mode = [4u32.to_be_bytes(), 0o600u32.to_be_bytes()].concat();
        fixture.first_session.request(10, &[&encode_string(&handle), &mode]).await.expect("the mode is no content");
        fixture.first_session.close(&handle).await.expect("closed");
    }
    assert_eq!(fixture.read_host("/f"), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_writing_handle_shares_the_file_and_appends_at_its_end() {
    let mut fixture = OpenFilesFixture::start().await;
    let handle = upload(&mut fixture.first_session, "/f", "one").await;
    let end = fixture.first_session.open_file(b"/f", WRITE | APPEND).await.expect("opened");
    fixture.first_session.rename("/f", "/g").await.expect("renamed");
    fixture.first_session.write_at(&end, 0, b" two").await.expect("appended");
    fixture.first_session.write_at(&handle, 0, b"ONE").await.expect("written");
    fixture.first_session.write_at(&end, 0, b" three").await.expect("appended");
    fixture.first_session.close(&handle).await.expect("closed");
    fixture.first_session.close(&end).await.expect("closed");
    assert_eq!(fixture.read_host("/g"), "ONE two three");
}

#[tokio::test(flavor = "multi_thread")]
async fn write_to_a_file_replaced_by_an_upload_is_refused() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "old");
    let edit = fixture.first_session.open_file(b"/f", WRITE).await.expect("opened");
    fixture.second_session.put("/f", b"new").await.expect("put");
    assert_eq!(status_code(fixture.first_session.write_at(&edit, 0, b"lost").await), FAILURE);
    fixture.first_session.close(&edit).await.expect("nothing was written through it");
    assert_eq!(fixture.read_host("/f"), "new");
    let edit = fixture.first_session.open_file(b"/f", WRITE).await.expect("opened");
    fixture.second_session.remove("/f").await.expect("removed");
    fixture.first_session.write_at(&edit, 0, b"gone").await.expect("as into any file without a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_follows_the_open_file_through_a_rename() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "content");
    fixture.gateway.create_host_directory("/folder");
    let edit = fixture.first_session.open_file(b"/f", WRITE).await.expect("opened");
    fixture.second_session.rename("/f", "/folder/g").await.expect("renamed");
    let old_name = fixture.lock("/f", "0").await;
    fixture.first_session.write_at(&edit, 0, b"A").await.expect("another file is locked there");
    for (path, depth) in [("/folder/g", "0"), ("/folder", "infinity")] {
        let lock = fixture.lock(path, depth).await;
        assert_eq!(status_code(fixture.first_session.write_at(&edit, 0, b"B").await), PERMISSION_DENIED, "{path}");
        fixture.unlock(path, &lock).await;
        fixture.first_session.write_at(&edit, 0, b"C").await.expect("free again");
    }
    fixture.unlock("/f", &old_name).await;
    fixture.first_session.hard_link("/folder/g", "/link").await.expect("linked");
    for (path, depth) in [("/link", "0"), ("/folder", "infinity")] {
        let lock = fixture.lock(path, depth).await;
        let by_link = fixture.second_session.open_file(b"/link", WRITE).await;
        assert_eq!(status_code(by_link), PERMISSION_DENIED, "{path}");
        assert_eq!(status_code(fixture.first_session.write_at(&edit, 0, b"D").await), PERMISSION_DENIED, "{path}");
        assert_eq!(status_code(fixture.second_session.chmod("/link", 0o600).await), PERMISSION_DENIED, "{path}");
        fixture.unlock(path, &lock).await;
    }
    assert_eq!(fixture.read_host("/link"), "Content");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_does_not_change_the_etag_of_a_locked_file() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "content");
    let edit = fixture.first_session.open_file(b"/f", WRITE).await.expect("opened");
    fixture.first_session.write_at(&edit, 0, b"C").await.expect("written");
    let before = fixture.etag("/f").await;
    let lock = fixture.lock("/f", "0").await;
    let locked = fixture.etag("/f").await;
    assert_ne!(locked, before, "the lock gives what was written its tag");
    fixture.first_session.close(&edit).await.expect("closed");
    assert_eq!(fixture.etag("/f").await, locked);
    fixture.unlock("/f", &lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_moved_out_of_the_scope_fails_at_the_next_read() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/in/read", "content");
    fixture.gateway.write_host_file("/in/write", "content");
    fixture.gateway.write_host_file("/in/list/file", "");
    fixture.gateway.create_host_directory("/in/upload");
    fixture.gateway.create_host_directory("/out");
    let token = fixture.gateway.create_token("alice", &["-e", "1h", "-s", "path:/in:rw"]);
    let mut narrow = fixture.gateway.sftp("alice", &token).await;
    let read = narrow.open_file(b"/in/read", READ).await.expect("opened");
    let write = narrow.open_file(b"/in/write", READ | WRITE).await.expect("opened");
    let staged = upload(&mut narrow, "/in/upload/f", "new").await;
    let (_, body) = narrow.request(11, &[&encode_string(b"/in/list")]).await.expect("opened");
    let list = body[4..].to_vec();
    for name in ["read", "write", "list", "upload"] {
        fixture.second_session.rename(&format!("/in/{name}"), &format!("/out/{name}")).await.expect("renamed");
    }
    assert_eq!(status_code(narrow.read_at(&read, 0, 10).await), PERMISSION_DENIED);
    assert_eq!(status_code(narrow.read_at(&write, 0, 10).await), PERMISSION_DENIED);
    assert_eq!(status_code(narrow.write_at(&write, 0, b"x").await), PERMISSION_DENIED);
    assert_eq!(status_code(narrow.write_at(&staged, 0, b"x").await), PERMISSION_DENIED);
    assert_eq!(status_code(narrow.request(12, &[&encode_string(&list)]).await), PERMISSION_DENIED);
    assert!(narrow.close(&staged).await.is_err());
    assert_eq!(fixture.second_session.list("/out/upload").await, Ok(Vec::new()));
    fixture.second_session.rename("/out/write", "/in/back").await.expect("renamed");
    narrow.write_at(&write, 0, b"C").await.expect("it is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_the_scope_root_keeps_open_handles() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/in/f", "content");
    let token = fixture.gateway.create_token("alice", &["-e", "1h", "-s", "path:/in:rw"]);
    let mut narrow = fixture.gateway.sftp("alice", &token).await;
    let edit = narrow.open_file(b"/in/f", READ | WRITE).await.expect("opened");
    let staged = upload(&mut narrow, "/in/new", "ne").await;
    fixture.second_session.rename("/in", "/moved").await.expect("renamed");
    narrow.write_at(&edit, 0, b"C").await.expect("goes on");
    narrow.write_at(&staged, 2, b"w").await.expect("goes on");
    narrow.close(&staged).await.expect("committed");
    assert_eq!(
        (fixture.read_host("/moved/f"), fixture.read_host("/moved/new")),
        ("Content".to_owned(), "new".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn posix_rename_between_hard_links_keeps_both_names_and_nodes() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/a", "content");
    fixture.first_session.hard_link("/a", "/b").await.expect("linked");
    let nodes = (fixture.gateway.node_id("/a"), fixture.gateway.node_id("/b"));
    fixture.first_session.posix_rename("/a", "/b").await.expect("nothing to do");
    assert_eq!((fixture.gateway.node_id("/a"), fixture.gateway.node_id("/b")), nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_accessible_through_symbolic_links() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.create_host_directory("/d");
    fixture.first_session.symlink("d", "/to-d").await.expect("made");
    fixture.first_session.symlink("to-d/f", "/to-f").await.expect("made");
    let handle = upload(&mut fixture.first_session, "/to-d/f", "new").await;
    for path in ["/d/f", "/to-d/f", "/to-f"] {
        assert_eq!(fixture.first_session.stat(path).await.expect(path).size, Some(3));
        assert_eq!(fixture.first_session.get(path).await, Ok(b"new".to_vec()), "{path}");
        assert_eq!(status_code(fixture.second_session.stat(path).await), NO_SUCH_FILE, "{path}");
    }
    assert_eq!(fixture.first_session.list("/to-d").await, Ok(vec!["f".to_owned()]));
    assert_eq!(fixture.first_session.lstat("/to-f").await.expect("the link").mode.map(|mode| mode >> 12), Some(0o12));
    fixture.first_session.close(&handle).await.expect("committed");
    fixture.second_session.remove("/d/f").await.expect("removed");
    let handle = upload(&mut fixture.first_session, "/to-f", "made behind the link").await;
    fixture.first_session.close(&handle).await.expect("committed");
    assert_eq!(fixture.read_host("/d/f"), "made behind the link");
    assert!(fixture.gateway.host_path("/to-f").is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_download_aborts_when_its_file_leaves_the_scope() {
    let mut fixture = OpenFilesFixture::start().await;
    let size = 64 << 20;
    fixture.gateway.write_host_file("/in/large", vec![7; size]);
    fixture.gateway.create_host_directory("/in/upload");
    fixture.gateway.create_host_directory("/out");
    let token = fixture.gateway.create_token("alice", &["-e", "1h", "-s", "path:/in:rw"]);
    let narrow = fixture.gateway.dav("alice", &token);
    let begin = async |head: String| {
        let mut stream = TcpStream::connect(fixture.gateway.http).await.expect("connected");
        let head = format!("{head}Authorization: {}\r\nHost: {}\r\n\r\n", narrow.authorization(), fixture.gateway.http);
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    };
    let mut get = begin("GET /dav/in/large HTTP/1.1\r\nConnection: close\r\n".to_owned()).await;
    let mut put = begin(format!("PUT /dav/in/upload/f HTTP/1.1\r\nContent-Length: {}\r\n", 8 << 20)).await;
    get.read_exact(&mut vec![0; 1 << 20]).await.expect("it has begun");
    put.write_all(&vec![1; 4 << 20]).await.expect("sent");
    fixture.wait_until_staged().await;
    fixture.first_session.rename("/in/large", "/out/large").await.expect("renamed");
    fixture.first_session.rename("/in/upload", "/out/upload").await.expect("renamed");
    let mut rest = Vec::new();
    let _ = get.read_to_end(&mut rest).await;
    assert!(rest.len() < size - (1 << 20), "it was cut");
    // The answer may come before all is sent.
    let _ = put.write_all(&vec![1; 4 << 20]).await;
    let mut answer = vec![0; 12];
    put.read_exact(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(fixture.second_session.list("/out/upload").await, Ok(Vec::new()));
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_open_file_changes_its_etag_before_close() {
    let mut fixture = OpenFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "0123456789");
    fixture.gateway.write_host_file("/source", "copied");
    let mut seen = std::collections::HashSet::from([fixture.etag("/f").await]);
    let handle = fixture.first_session.open_file(b"/f", READ | WRITE).await.expect("opened");
    assert!(!seen.insert(fixture.etag("/f").await), "nothing was written");
    for byte in b"abc" {
        fixture.first_session.write_at(&handle, 0, &[*byte]).await.expect("written");
        fixture.assert_etag_changed(&mut seen, "WRITE").await;
    }
    // FSETSTAT of a size, then of times, which are no content.
    let size = [&encode_string(&handle)[..], &1u32.to_be_bytes(), &5u64.to_be_bytes()];
    fixture.first_session.request(10, &size).await.expect("cut");
    fixture.assert_etag_changed(&mut seen, "FSETSTAT of a size").await;
    let times = [&encode_string(&handle)[..], &8u32.to_be_bytes(), &7u32.to_be_bytes(), &7u32.to_be_bytes()];
    fixture.first_session.request(10, &times).await.expect("set");
    assert!(!seen.insert(fixture.etag("/f").await), "times are no content");
    let size = [&encode_string(b"/f")[..], &1u32.to_be_bytes(), &3u64.to_be_bytes()];
    fixture.second_session.request(9, &size).await.expect("cut");
    fixture.assert_etag_changed(&mut seen, "SETSTAT of a size").await;
    let source = fixture.first_session.open_file(b"/source", READ).await.expect("opened");
    let zero = 0u64.to_be_bytes();
    let copy =
        [&encode_string(b"copy-data")[..], &encode_string(&source), &zero, &zero, &encode_string(&handle), &zero];
    fixture.first_session.request(200, &copy).await.expect("copied");
    fixture.assert_etag_changed(&mut seen, "copy-data").await;
    fixture.first_session.close(&handle).await.expect("closed");
    assert_eq!(fixture.read_host("/f"), "copied");
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_interrupted_by_a_kill_has_changed_the_etag() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let server = ServerProcess::start(folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder.path(), "alice");
    let etag = async |server: &ServerProcess| {
        let dav = DavClient::new(server.http, "alice", &token);
        dav.send("HEAD", "/dav/f", &[], "").await.header("etag").to_owned()
    };
    assert_eq!(DavClient::new(server.http, "alice", &token).put("/dav/f", "content").await.status, 201);
    let before = etag(&server).await;
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let handle = sftp.open_file(b"/f", WRITE).await.expect("opened");
    sftp.write_at(&handle, 0, b"C").await.expect("written");
    server.kill();
    let server = ServerProcess::start(folder.path());
    assert_ne!(etag(&server).await, before, "the content is another");
    server.kill();
}
