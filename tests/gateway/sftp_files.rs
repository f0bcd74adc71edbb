//! SFTP as its clients use it on files and directories: uploads, edits in place, listings, paths and attributes.
//! Packets by themselves are in `sftp.rs` and `sftp_conformance.rs`.

use std::time::Duration;

use patgate::sftp::SftpOptions;

use crate::support::open_flags::{APPEND, CREATE, EXCLUSIVE, READ, REPLACE, WRITE};
use crate::support::{Fixture, SftpClient, SftpError, encode_packet, encode_string, status_code};

const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const OP_UNSUPPORTED: u32 = 8;

struct SftpFilesFixture {
    gateway: Fixture,
    token: String,
}

impl SftpFilesFixture {
    async fn start() -> Self {
        let gateway = Fixture::start().await;
        let token = gateway.create_user_and_token("alice", "/:rw");
        Self { gateway, token }
    }

    async fn session(&self) -> SftpClient {
        self.gateway.sftp("alice", &self.token).await
    }

    fn read_host(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.gateway.host_path(path)).expect("a file")
    }

    /// Waits until staging is empty.
    async fn wait_until_unstaged(&self) {
        let staged = || self.gateway.all_paths().into_iter().filter(|path| path.starts_with(".patgate/"));
        for _ in 0..1000 {
            if staged().all(|path| self.gateway.host_path(&path).is_dir()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("debris stays: {:?}", staged().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_visible_to_its_session_at_once_and_to_others_after_close() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.write_host_file("/old", "old");
    let (mut own_session, mut other_session) = (fixture.session().await, fixture.session().await);
    for path in ["/old", "/new"] {
        let handle = own_session.open_file(path.as_bytes(), REPLACE).await.expect("opens");
        own_session.write_at(&handle, 0, b"fresh content").await.expect("writes");
        assert_eq!(own_session.stat(path).await.expect("there").size, Some(13), "{path}");
        assert_eq!(own_session.lstat(path).await.expect("there").size, Some(13), "{path}");
        assert_eq!(own_session.get(path).await, Ok(b"fresh content".to_vec()));
        assert!(own_session.list("/").await.expect("lists").contains(&path[1..].to_owned()));
        if path == "/old" {
            assert_eq!(other_session.get(path).await, Ok(b"old".to_vec()));
        } else {
            assert_eq!(status_code(other_session.stat(path).await), NO_SUCH_FILE);
            assert_eq!(other_session.list("/").await, Ok(vec!["old".to_owned()]));
        }
        own_session.close(&handle).await.expect("commits");
        assert_eq!(other_session.get(path).await, Ok(b"fresh content".to_vec()));
    }
    assert_eq!(own_session.list("/").await, Ok(vec!["new".to_owned(), "old".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_session_discards_its_uploads() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "old");
    let mut lost = fixture.session().await;
    let handle = lost.open_file(b"/f", REPLACE).await.expect("opens");
    lost.write_at(&handle, 0, &[7; 100_000]).await.expect("writes");
    lost.drop_connection();
    fixture.wait_until_unstaged().await;
    assert_eq!(fixture.read_host("/f"), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_after_close_see_the_committed_file() {
    let fixture = SftpFilesFixture::start().await;
    let mut sftp = fixture.session().await;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    let write =
        sftp.send(6, &[&encode_string(&handle), &0u64.to_be_bytes(), &encode_string(b"abc")]).await.expect("sent");
    let close = sftp.send(4, &[&encode_string(&handle)]).await.expect("sent");
    let rename = sftp.send(18, &[&encode_string(b"/f"), &encode_string(b"/g")]).await.expect("sent");
    for (id, what) in [(write, "WRITE"), (close, "CLOSE"), (rename, "RENAME")] {
        let (kind, body) = sftp.receive(id).await.expect(what);
        assert_eq!((kind, &body[..4]), (101, &[0; 4][..]), "{what}");
    }
    assert_eq!(fixture.read_host("/g"), b"abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_set_on_an_open_upload_are_committed_with_it() {
    let fixture = SftpFilesFixture::start().await;
    let mut sftp = fixture.session().await;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"x").await.expect("writes");
    let times = [8u32, 1_000_000_000, 981_173_106].map(u32::to_be_bytes).concat();
    sftp.request(10, &[&encode_string(&handle), &times]).await.expect("FSETSTAT");
    sftp.chmod("/f", 0o640).await.expect("SETSTAT");
    sftp.close(&handle).await.expect("commits");
    let attributes = sftp.stat("/f").await.expect("there");
    assert_eq!((attributes.times, attributes.mode), (Some((1_000_000_000, 981_173_106)), Some(0o100_640)));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_upload_follows_renames_of_its_file_and_directory() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.create_host_directory("/d");
    let mut sftp = fixture.session().await;
    let handle = sftp.open_file(b"/d/a", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"12").await.expect("writes");
    sftp.rename("/d/a", "/d/b").await.expect("renames");
    assert_eq!(fixture.read_host("/d/b"), b"12");
    sftp.write_at(&handle, 2, b"34").await.expect("in place");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(fixture.read_host("/d/b"), b"1234");
    assert_eq!(status_code(sftp.stat("/d/a").await), NO_SUCH_FILE);

    let handle = sftp.open_file(b"/d/c", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"56").await.expect("writes");
    assert_eq!(status_code(sftp.rmdir("/d").await), FAILURE, "it is not empty");
    sftp.rename("/d", "/e").await.expect("renames");
    sftp.write_at(&handle, 2, b"78").await.expect("in place");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(fixture.read_host("/e/c"), b"5678");
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_whose_name_was_removed_is_discarded_at_close() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.write_host_file("/removed", "old");
    fixture.gateway.write_host_file("/other", "other");
    let mut sftp = fixture.session().await;

    let handle = sftp.open_file(b"/removed", REPLACE).await.expect("opens");
    sftp.remove("/removed").await.expect("removes");
    assert_eq!(status_code(sftp.stat("/removed").await), NO_SUCH_FILE);
    sftp.write_at(&handle, 0, b"late").await.expect("writes on");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(status_code(sftp.stat("/removed").await), NO_SUCH_FILE);

    let handle = sftp.open_file(b"/replaced", REPLACE).await.expect("opens");
    assert_eq!(status_code(sftp.rename("/other", "/replaced").await), FAILURE, "the session sees a file there");
    sftp.posix_rename("/other", "/replaced").await.expect("renames");
    sftp.write_at(&handle, 0, b"late").await.expect("writes on");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(fixture.read_host("/replaced"), b"other");
    fixture.wait_until_unstaged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_without_truncate_writes_in_place() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "abcdef");
    let mut sftp = fixture.session().await;

    let edit = sftp.open_file(b"/f", READ | WRITE).await.expect("opens");
    sftp.write_at(&edit, 2, b"XY").await.expect("writes");
    assert_eq!(fixture.read_host("/f"), b"abXYef", "at once");
    assert_eq!(sftp.read_at(&edit, 0, 100).await, Ok(b"abXYef".to_vec()));
    sftp.close(&edit).await.expect("closes");

    let append = sftp.open_file(b"/f", WRITE | APPEND).await.expect("opens");
    sftp.write_at(&append, 0, b"!").await.expect("writes");
    sftp.close(&append).await.expect("closes");
    assert_eq!(fixture.read_host("/f"), b"abXYef!", "an offset says nothing there");

    assert_eq!(status_code(sftp.open_file(b"/f", WRITE | CREATE | EXCLUSIVE).await), FAILURE);
    assert_eq!(status_code(sftp.open_file(b"/none", WRITE).await), NO_SUCH_FILE);
    let new = sftp.open_file(b"/new", WRITE | CREATE | EXCLUSIVE).await.expect("opens");
    assert!(fixture.gateway.host_path("/new").exists(), "at once");
    sftp.close(&new).await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_file_can_be_read_back_before_commit() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "old");
    let mut sftp = fixture.session().await;
    let handle = sftp.open_file(b"/f", READ | REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"new").await.expect("writes");
    assert_eq!(sftp.read_at(&handle, 1, 10).await, Ok(b"ew".to_vec()));
    let reader = sftp.open_file(b"/f", READ).await.expect("opens");
    sftp.close(&handle).await.expect("commits");
    assert_eq!(sftp.read_at(&reader, 0, 10).await, Ok(b"new".to_vec()), "a reader outlives the commit");
    assert_eq!(status_code(sftp.write_at(&reader, 0, b"x").await), FAILURE);
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_of_an_open_upload_commits_it_first() {
    let fixture = SftpFilesFixture::start().await;
    let mut sftp = fixture.session().await;
    let upload = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    sftp.write_at(&upload, 0, b"1234").await.expect("writes");
    let edit = sftp.open_file(b"/f", WRITE).await.expect("opens");
    sftp.write_at(&edit, 0, b"A").await.expect("writes");
    sftp.write_at(&upload, 3, b"Z").await.expect("in place");
    sftp.close(&upload).await.expect("closes");
    sftp.close(&edit).await.expect("closes");
    assert_eq!(fixture.read_host("/f"), b"A23Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_copied_between_open_files() {
    let fixture = SftpFilesFixture::start().await;
    let content: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
    fixture.gateway.write_host_file("/from", &content);
    let mut sftp = fixture.session().await;
    let from = sftp.open_file(b"/from", READ).await.expect("opens");
    let to = sftp.open_file(b"/to", REPLACE).await.expect("opens");
    let mut copy = async |from: &[u8], offset: u64, length: u64, to: &[u8]| {
        let numbers = [offset, length].map(u64::to_be_bytes).concat();
        let body =
            [encode_string(b"copy-data"), encode_string(from), numbers, encode_string(to), 1u64.to_be_bytes().to_vec()]
                .concat();
        sftp.request(200, &[&body]).await.map(drop)
    };
    copy(&from, 5, 0, &to).await.expect("to the end");
    assert_eq!(status_code(copy(&from, 0, 0, &from).await), FAILURE, "one file");
    assert_eq!(status_code(copy(&from, 0, 0, b"12345678").await), FAILURE, "no handle");
    sftp.close(&to).await.expect("commits");
    assert_eq!(fixture.read_host("/to"), [&[0], &content[5..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_or_malformed_request_is_answered_with_its_id() {
    let fixture = SftpFilesFixture::start().await;
    let mut sftp = fixture.session().await;
    assert_eq!(status_code(sftp.request(99, &[b"anything"]).await), OP_UNSUPPORTED);
    assert_eq!(status_code(sftp.extended("nobody@example.org", &[]).await), OP_UNSUPPORTED);
    assert_eq!(status_code(sftp.request(17, &[&[0, 0, 0, 9], b"/f"]).await), BAD_MESSAGE);
    assert_eq!(status_code(sftp.request(3, &[&encode_string(b"/f")]).await), BAD_MESSAGE);
    assert_eq!(status_code(sftp.close(b"12345678").await), FAILURE);
    assert_eq!(status_code(sftp.close(b"short").await), FAILURE);
    assert_eq!(sftp.list("/").await, Ok(Vec::new()), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_packet_length_closes_the_channel_after_earlier_replies() {
    let fixture = SftpFilesFixture::start().await;
    for length in [0u32, 262_145, u32::MAX] {
        let mut sftp = fixture.session().await;
        let before = encode_packet(16, &[&7u32.to_be_bytes()[..], &encode_string(b"/")].concat());
        sftp.send_raw(&[&before[..], &length.to_be_bytes(), b"xxxx"].concat()).await.expect("sent");
        assert_eq!(sftp.receive(7).await.expect("answered").0, 104);
        assert_eq!(sftp.receive(8).await, Err(SftpError::ConnectionLost), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handle_limit_of_a_session_is_enforced() {
    let options = SftpOptions { max_handles: 3, ..SftpOptions::default() };
    let gateway = Fixture::start_with(Default::default(), |settings| settings.sftp_options = options).await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.write_host_file("/f", "x");
    let mut sftp = gateway.sftp("alice", &token).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(sftp.open_file(b"/f", READ).await.expect("opens"));
    }
    assert_eq!(status_code(sftp.open_file(b"/g", REPLACE).await), FAILURE);
    assert_eq!(status_code(sftp.request(11, &[&encode_string(b"/")]).await), FAILURE);
    sftp.close(&open[1]).await.expect("closes");
    sftp.open_file(b"/f", READ).await.expect("opens again");
    let (_, limits) = sftp.extended("limits@openssh.com", &[]).await.expect("limits");
    assert_eq!(limits, [262_144u64, 261_120, 261_120, 3].map(u64::to_be_bytes).concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_listings_are_split_into_64_kib_replies_with_raw_names() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = SftpFilesFixture::start().await;
    for number in 0..500u32 {
        let name = [format!("{number:03}").as_bytes(), &[0xff; 200]].concat();
        std::fs::write(fixture.gateway.root().join(std::ffi::OsStr::from_bytes(&name)), "x").expect("a file");
    }
    let mut sftp = fixture.session().await;
    let (_, body) = sftp.request(11, &[&encode_string(b"/")]).await.expect("opens");
    let (mut answers, mut names, mut raw) = (0, 0, Vec::new());
    while let Ok((kind, found)) = sftp.request(12, &[&body]).await {
        assert!(kind == 104 && found.len() + 9 <= 64 * 1024, "{}", found.len());
        names += u32::from_be_bytes(found[..4].try_into().expect("a count"));
        answers += 1;
        raw.extend(found);
    }
    assert_eq!(names, 502, "with . and ..");
    assert!(answers > 2, "{answers}");
    assert!(raw.windows(203).any(|part| part == [&b"499"[..], &[0xff; 200]].concat()));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_resolve_from_the_start_directory_and_never_leave_the_root() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a/b/f", "x");
    std::os::unix::fs::symlink("/etc/passwd", gateway.host_path("/a/b/out")).expect("a link");
    let token = gateway.create_user_and_token("alice", "/a/b:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    for (path, expected) in [(".", "/a/b"), ("", "/a/b"), ("f", "/a/b/f"), ("../../../..", "/"), ("new", "/a/b/new")] {
        assert_eq!(sftp.realpath(path).await.as_deref(), Ok(expected), "{path:?}");
    }
    let mut expand = async |name: &str, path: &str| {
        let (_, body) = sftp.extended(name, &[path.as_bytes()]).await?;
        let length = u32::from_be_bytes(body[4..8].try_into().expect("a length")) as usize;
        Ok::<_, SftpError>(String::from_utf8(body[8..8 + length].to_vec()).expect("text"))
    };
    for (path, expected) in
        [("~", "/a/b"), ("~/f", "/a/b/f"), ("~alice/f", "/a/b/f"), ("~//f", "/a/b/f"), ("f", "/a/b/f")]
    {
        assert_eq!(expand("expand-path@openssh.com", path).await.as_deref(), Ok(expected), "{path}");
    }
    assert_eq!(status_code(expand("expand-path@openssh.com", "~root/x").await), NO_SUCH_FILE);
    assert_eq!(expand("home-directory", "alice").await.as_deref(), Ok("/a/b"));
    assert_eq!(status_code(expand("home-directory", "root").await), NO_SUCH_FILE);
    for path in ["/.patgate", "x\0y", "out", "/a/c"] {
        assert_eq!(status_code(sftp.stat(path).await), NO_SUCH_FILE, "{path:?}");
    }
    assert_eq!(status_code(sftp.readlink("out").await), NO_SUCH_FILE);
    assert_eq!(status_code(sftp.readlink("f").await), FAILURE, "no link");
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_paths_follow_the_renamed_start_directory() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a/b/f", "x");
    gateway.create_user("alice", &["/:rw"]);
    let scope = format!("node:{}:r", gateway.node_id("/a/b"));
    let scoped = gateway.create_token("alice", &["-e", "1h", "-s", &scope]);
    let unscoped_token = gateway.create_token("alice", &["-e", "1h"]);
    let mut mounted = gateway.sftp("alice", &scoped).await;
    assert_eq!(mounted.get("f").await, Ok(b"x".to_vec()));
    gateway.sftp("alice", &unscoped_token).await.rename("/a/b", "/a/c").await.expect("renames");
    for _ in 0..500 {
        if mounted.get("f").await == Ok(b"x".to_vec()) {
            assert_eq!(mounted.realpath(".").await.as_deref(), Ok("/a/c"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the start folder stays away: {:?}", mounted.get("f").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_is_the_login_and_cannot_be_changed() {
    let fixture = SftpFilesFixture::start().await;
    fixture.gateway.write_host_file("/f", "x");
    let mut sftp = fixture.session().await;
    let set = |uid: u32, mode: u32| [6, uid, 1000, mode].map(u32::to_be_bytes).concat();
    assert_eq!(status_code(sftp.request(9, &[&encode_string(b"/f"), &set(0, 0o600)]).await), PERMISSION_DENIED);
    assert_eq!(sftp.stat("/f").await.expect("there").mode, Some(0o100_600), "the rest is set, as OpenSSH does");
    sftp.request(9, &[&encode_string(b"/f"), &set(1000, 0o640)]).await.expect("the owner that is shown");
    assert_eq!(sftp.stat("/f").await.expect("there").mode, Some(0o100_640));
    let (_, names) =
        sftp.extended("users-groups-by-id@openssh.com", &[&[0, 0, 3, 0xe8], &[0; 4]]).await.expect("names");
    assert_eq!(names, [encode_string(&encode_string(b"alice")), encode_string(&encode_string(b""))].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reads_and_writes_are_complete() {
    let fixture = SftpFilesFixture::start().await;
    let content: Vec<u8> = (0..261_120u32).map(|n| (n / 7) as u8).collect();
    let mut sftp = fixture.session().await;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, &content).await.expect("writes");
    sftp.close(&handle).await.expect("commits");
    let handle = sftp.open_file(b"/f", READ).await.expect("opens");
    assert_eq!(sftp.read_at(&handle, 0, u32::MAX).await.map(|data| data.len()), Ok(261_120));
    assert_eq!(sftp.read_at(&handle, 0, 261_120).await, Ok(content));
    assert_eq!(sftp.read_at(&handle, 261_120, 1).await.expect_err("the end").code(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn statvfs_works_on_every_visible_path() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/alice/a/f", "in a");
    gateway.write_host_file("/alice/file", "content");
    let token = gateway.create_user_and_token("alice", "/alice/a:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    for path in ["/", "/alice", "/alice/a", "/alice/a/f"] {
        sftp.extended("statvfs@openssh.com", &[path.as_bytes()]).await.expect(path);
    }
    assert_eq!(status_code(sftp.extended("statvfs@openssh.com", &[b"/alice/file"]).await), NO_SUCH_FILE);
}
