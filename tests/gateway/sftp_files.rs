//! SFTP as its clients count on it: uploads, edits, handles and names.

use std::time::Duration;

use patgate::sftp::SftpOptions;

use crate::support::open_flags::{APPEND, CREATE, EXCLUSIVE, READ, REPLACE, WRITE};
use crate::support::{Fixture, Sftp, SftpError, packet, string};

const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const OP_UNSUPPORTED: u32 = 8;

struct Served {
    gateway: Fixture,
    token: String,
}

impl Served {
    async fn start() -> Self {
        let gateway = Fixture::start().await;
        let token = gateway.login("alice", "/:rw");
        Self { gateway, token }
    }

    async fn session(&self) -> Sftp {
        self.gateway.sftp("alice", &self.token).await
    }

    fn content(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.gateway.host(path)).expect("a file")
    }

    /// Waits until staging is empty.
    async fn swept(&self) {
        let staged = || self.gateway.everything().into_iter().filter(|path| path.starts_with(".patgate/"));
        for _ in 0..1000 {
            if staged().all(|path| self.gateway.host(&path).is_dir()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("debris stays: {:?}", staged().collect::<Vec<_>>());
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, SftpError>) -> u32 {
    result.expect_err("refused").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_seen_by_its_own_session_at_once_and_by_others_after_close() {
    let served = Served::start().await;
    served.gateway.write("/old", "old");
    let (mut mine, mut others) = (served.session().await, served.session().await);
    for path in ["/old", "/new"] {
        let handle = mine.open_file(path.as_bytes(), REPLACE).await.expect("opens");
        mine.write_at(&handle, 0, b"fresh content").await.expect("writes");
        assert_eq!(mine.stat(path).await.expect("there").size, Some(13), "{path}");
        assert_eq!(mine.lstat(path).await.expect("there").size, Some(13), "{path}");
        assert_eq!(mine.get(path).await, Ok(b"fresh content".to_vec()));
        assert!(mine.list("/").await.expect("lists").contains(&path[1..].to_owned()));
        if path == "/old" {
            assert_eq!(others.get(path).await, Ok(b"old".to_vec()));
        } else {
            assert_eq!(code(others.stat(path).await), NO_SUCH_FILE);
            assert_eq!(others.list("/").await, Ok(vec!["old".to_owned()]));
        }
        mine.close(&handle).await.expect("commits");
        assert_eq!(others.get(path).await, Ok(b"fresh content".to_vec()));
    }
    assert_eq!(mine.list("/").await, Ok(vec!["new".to_owned(), "old".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_discards_its_uploads() {
    let served = Served::start().await;
    served.gateway.write("/f", "old");
    let mut lost = served.session().await;
    let handle = lost.open_file(b"/f", REPLACE).await.expect("opens");
    lost.write_at(&handle, 0, &[7; 100_000]).await.expect("writes");
    lost.cut();
    served.swept().await;
    assert_eq!(served.content("/f"), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_after_a_close_find_it_done() {
    let served = Served::start().await;
    let mut sftp = served.session().await;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    let write = sftp.send(6, &[&string(&handle), &0u64.to_be_bytes(), &string(b"abc")]).await.expect("sent");
    let close = sftp.send(4, &[&string(&handle)]).await.expect("sent");
    let rename = sftp.send(18, &[&string(b"/f"), &string(b"/g")]).await.expect("sent");
    for (id, what) in [(write, "WRITE"), (close, "CLOSE"), (rename, "RENAME")] {
        let (kind, body) = sftp.receive(id).await.expect(what);
        assert_eq!((kind, &body[..4]), (101, &[0; 4][..]), "{what}");
    }
    assert_eq!(served.content("/g"), b"abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_set_on_an_open_upload_are_committed_with_it() {
    let served = Served::start().await;
    let mut sftp = served.session().await;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"x").await.expect("writes");
    let times = [8u32, 1_000_000_000, 981_173_106].map(u32::to_be_bytes).concat();
    sftp.ask(10, &[&string(&handle), &times]).await.expect("FSETSTAT");
    sftp.chmod("/f", 0o640).await.expect("SETSTAT");
    sftp.close(&handle).await.expect("commits");
    let shown = sftp.stat("/f").await.expect("there");
    assert_eq!((shown.times, shown.mode), (Some((1_000_000_000, 981_173_106)), Some(0o100_640)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_upload_follows_its_rename_and_that_of_its_folder() {
    let served = Served::start().await;
    served.gateway.folder("/d");
    let mut sftp = served.session().await;
    let handle = sftp.open_file(b"/d/a", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"12").await.expect("writes");
    sftp.rename("/d/a", "/d/b").await.expect("renames");
    assert_eq!(served.content("/d/b"), b"12");
    sftp.write_at(&handle, 2, b"34").await.expect("in place");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(served.content("/d/b"), b"1234");
    assert_eq!(code(sftp.stat("/d/a").await), NO_SUCH_FILE);

    let handle = sftp.open_file(b"/d/c", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"56").await.expect("writes");
    assert_eq!(code(sftp.rmdir("/d").await), FAILURE, "it is not empty");
    sftp.rename("/d", "/e").await.expect("renames");
    sftp.write_at(&handle, 2, b"78").await.expect("in place");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(served.content("/e/c"), b"5678");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_name_is_taken_away_is_gone_at_its_close() {
    let served = Served::start().await;
    served.gateway.write("/removed", "old");
    served.gateway.write("/other", "other");
    let mut sftp = served.session().await;

    let handle = sftp.open_file(b"/removed", REPLACE).await.expect("opens");
    sftp.remove("/removed").await.expect("removes");
    assert_eq!(code(sftp.stat("/removed").await), NO_SUCH_FILE);
    sftp.write_at(&handle, 0, b"late").await.expect("writes on");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(code(sftp.stat("/removed").await), NO_SUCH_FILE);

    let handle = sftp.open_file(b"/replaced", REPLACE).await.expect("opens");
    assert_eq!(code(sftp.rename("/other", "/replaced").await), FAILURE, "the session sees a file there");
    sftp.posix_rename("/other", "/replaced").await.expect("renames");
    sftp.write_at(&handle, 0, b"late").await.expect("writes on");
    sftp.close(&handle).await.expect("closes");
    assert_eq!(served.content("/replaced"), b"other");
    served.swept().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_replaced_is_written_in_place() {
    let served = Served::start().await;
    served.gateway.write("/f", "abcdef");
    let mut sftp = served.session().await;

    let edit = sftp.open_file(b"/f", READ | WRITE).await.expect("opens");
    sftp.write_at(&edit, 2, b"XY").await.expect("writes");
    assert_eq!(served.content("/f"), b"abXYef", "at once");
    assert_eq!(sftp.read_at(&edit, 0, 100).await, Ok(b"abXYef".to_vec()));
    sftp.close(&edit).await.expect("closes");

    let append = sftp.open_file(b"/f", WRITE | APPEND).await.expect("opens");
    sftp.write_at(&append, 0, b"!").await.expect("writes");
    sftp.close(&append).await.expect("closes");
    assert_eq!(served.content("/f"), b"abXYef!", "an offset says nothing there");

    assert_eq!(code(sftp.open_file(b"/f", WRITE | CREATE | EXCLUSIVE).await), FAILURE);
    assert_eq!(code(sftp.open_file(b"/none", WRITE).await), NO_SUCH_FILE);
    let new = sftp.open_file(b"/new", WRITE | CREATE | EXCLUSIVE).await.expect("opens");
    assert!(served.gateway.host("/new").exists(), "at once");
    sftp.close(&new).await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_can_be_read_back_before_it_is_committed() {
    let served = Served::start().await;
    served.gateway.write("/f", "old");
    let mut sftp = served.session().await;
    let handle = sftp.open_file(b"/f", READ | REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, b"new").await.expect("writes");
    assert_eq!(sftp.read_at(&handle, 1, 10).await, Ok(b"ew".to_vec()));
    let reader = sftp.open_file(b"/f", READ).await.expect("opens");
    sftp.close(&handle).await.expect("commits");
    assert_eq!(sftp.read_at(&reader, 0, 10).await, Ok(b"new".to_vec()), "a reader outlives the commit");
    assert_eq!(code(sftp.write_at(&reader, 0, b"x").await), FAILURE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_open_upload_commits_it_first() {
    let served = Served::start().await;
    let mut sftp = served.session().await;
    let upload = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    sftp.write_at(&upload, 0, b"1234").await.expect("writes");
    let edit = sftp.open_file(b"/f", WRITE).await.expect("opens");
    sftp.write_at(&edit, 0, b"A").await.expect("writes");
    sftp.write_at(&upload, 3, b"Z").await.expect("in place");
    sftp.close(&upload).await.expect("closes");
    sftp.close(&edit).await.expect("closes");
    assert_eq!(served.content("/f"), b"A23Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_copied_between_open_files() {
    let served = Served::start().await;
    let content: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
    served.gateway.write("/from", &content);
    let mut sftp = served.session().await;
    let from = sftp.open_file(b"/from", READ).await.expect("opens");
    let to = sftp.open_file(b"/to", REPLACE).await.expect("opens");
    let mut copy = async |from: &[u8], offset: u64, length: u64, to: &[u8]| {
        let numbers = [offset, length].map(u64::to_be_bytes).concat();
        let body = [string(b"copy-data"), string(from), numbers, string(to), 1u64.to_be_bytes().to_vec()].concat();
        sftp.ask(200, &[&body]).await.map(drop)
    };
    copy(&from, 5, 0, &to).await.expect("to the end");
    assert_eq!(code(copy(&from, 0, 0, &from).await), FAILURE, "one file");
    assert_eq!(code(copy(&from, 0, 0, b"12345678").await), FAILURE, "no handle");
    sftp.close(&to).await.expect("commits");
    assert_eq!(served.content("/to"), [&[0], &content[5..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_answered_with_the_id_it_came_with() {
    let served = Served::start().await;
    let mut sftp = served.session().await;
    assert_eq!(code(sftp.ask(99, &[b"anything"]).await), OP_UNSUPPORTED);
    assert_eq!(code(sftp.extended("nobody@example.org", &[]).await), OP_UNSUPPORTED);
    assert_eq!(code(sftp.ask(17, &[&[0, 0, 0, 9], b"/f"]).await), BAD_MESSAGE);
    assert_eq!(code(sftp.ask(3, &[&string(b"/f")]).await), BAD_MESSAGE);
    assert_eq!(code(sftp.close(b"12345678").await), FAILURE);
    assert_eq!(code(sftp.close(b"short").await), FAILURE);
    assert_eq!(sftp.list("/").await, Ok(Vec::new()), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_can_not_be_ends_the_channel_after_what_came_before_it() {
    let served = Served::start().await;
    for length in [0u32, 262_145, u32::MAX] {
        let mut sftp = served.session().await;
        let before = packet(16, &[&7u32.to_be_bytes()[..], &string(b"/")].concat());
        sftp.send_raw(&[&before[..], &length.to_be_bytes(), b"xxxx"].concat()).await.expect("sent");
        assert_eq!(sftp.receive(7).await.expect("answered").0, 104);
        assert_eq!(sftp.receive(8).await, Err(SftpError::Gone), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_so_many_handles_and_no_more() {
    let options = SftpOptions { max_handles: 3, ..SftpOptions::default() };
    let gateway = Fixture::start_with(Default::default(), |settings| settings.sftp_options = options).await;
    let token = gateway.login("alice", "/:rw");
    gateway.write("/f", "x");
    let mut sftp = gateway.sftp("alice", &token).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(sftp.open_file(b"/f", READ).await.expect("opens"));
    }
    assert_eq!(code(sftp.open_file(b"/g", REPLACE).await), FAILURE);
    assert_eq!(code(sftp.ask(11, &[&string(b"/")]).await), FAILURE);
    sftp.close(&open[1]).await.expect("closes");
    sftp.open_file(b"/f", READ).await.expect("opens again");
    let (_, limits) = sftp.extended("limits@openssh.com", &[]).await.expect("limits");
    assert_eq!(limits, [262_144u64, 261_120, 261_120, 3].map(u64::to_be_bytes).concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_listings_come_in_answers_of_64_kib_with_names_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let served = Served::start().await;
    for number in 0..500u32 {
        let name = [format!("{number:03}").as_bytes(), &[0xff; 200]].concat();
        std::fs::write(served.gateway.root().join(std::ffi::OsStr::from_bytes(&name)), "x").expect("a file");
    }
    let mut sftp = served.session().await;
    let (_, body) = sftp.ask(11, &[&string(b"/")]).await.expect("opens");
    let (mut answers, mut names, mut raw) = (0, 0, Vec::new());
    while let Ok((kind, found)) = sftp.ask(12, &[&body]).await {
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
async fn paths_are_taken_from_the_start_folder_and_never_lead_out() {
    let gateway = Fixture::start().await;
    gateway.write("/a/b/f", "x");
    std::os::unix::fs::symlink("/etc/passwd", gateway.host("/a/b/out")).expect("a link");
    let token = gateway.login("alice", "/a/b:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    for (path, wanted) in [(".", "/a/b"), ("", "/a/b"), ("f", "/a/b/f"), ("../../../..", "/"), ("new", "/a/b/new")] {
        assert_eq!(sftp.realpath(path).await.as_deref(), Ok(wanted), "{path:?}");
    }
    let mut expand = async |name: &str, path: &str| {
        let (_, body) = sftp.extended(name, &[path.as_bytes()]).await?;
        let length = u32::from_be_bytes(body[4..8].try_into().expect("a length")) as usize;
        Ok::<_, SftpError>(String::from_utf8(body[8..8 + length].to_vec()).expect("text"))
    };
    for (path, wanted) in
        [("~", "/a/b"), ("~/f", "/a/b/f"), ("~alice/f", "/a/b/f"), ("~//f", "/a/b/f"), ("f", "/a/b/f")]
    {
        assert_eq!(expand("expand-path@openssh.com", path).await.as_deref(), Ok(wanted), "{path}");
    }
    assert_eq!(code(expand("expand-path@openssh.com", "~root/x").await), NO_SUCH_FILE);
    assert_eq!(expand("home-directory", "alice").await.as_deref(), Ok("/a/b"));
    assert_eq!(code(expand("home-directory", "root").await), NO_SUCH_FILE);
    for path in ["/.patgate", "x\0y", "out", "/a/c"] {
        assert_eq!(code(sftp.stat(path).await), NO_SUCH_FILE, "{path:?}");
    }
    assert_eq!(code(sftp.readlink("out").await), NO_SUCH_FILE);
    assert_eq!(code(sftp.readlink("f").await), FAILURE, "no link");
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_paths_follow_the_start_folder_when_it_is_renamed() {
    let gateway = Fixture::start().await;
    gateway.write("/a/b/f", "x");
    gateway.user("alice", &["/:rw"]);
    let scope = format!("node:{}:r", gateway.node("/a/b"));
    let scoped = gateway.token("alice", &["-e", "1h", "-s", &scope]);
    let whole = gateway.token("alice", &["-e", "1h"]);
    let mut mounted = gateway.sftp("alice", &scoped).await;
    assert_eq!(mounted.get("f").await, Ok(b"x".to_vec()));
    gateway.sftp("alice", &whole).await.rename("/a/b", "/a/c").await.expect("renames");
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
async fn owners_are_the_login_and_can_not_be_changed() {
    let served = Served::start().await;
    served.gateway.write("/f", "x");
    let mut sftp = served.session().await;
    let set = |uid: u32, mode: u32| [6, uid, 1000, mode].map(u32::to_be_bytes).concat();
    assert_eq!(code(sftp.ask(9, &[&string(b"/f"), &set(0, 0o600)]).await), PERMISSION_DENIED);
    assert_eq!(sftp.stat("/f").await.expect("there").mode, Some(0o100_600), "the rest is set, as OpenSSH does");
    sftp.ask(9, &[&string(b"/f"), &set(1000, 0o640)]).await.expect("the owner that is shown");
    assert_eq!(sftp.stat("/f").await.expect("there").mode, Some(0o100_640));
    let (_, names) =
        sftp.extended("users-groups-by-id@openssh.com", &[&[0, 0, 3, 0xe8], &[0; 4]]).await.expect("names");
    assert_eq!(names, [string(&string(b"alice")), string(&string(b""))].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reads_and_writes_come_whole() {
    let served = Served::start().await;
    let content: Vec<u8> = (0..261_120u32).map(|n| (n / 7) as u8).collect();
    let mut sftp = served.session().await;
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opens");
    sftp.write_at(&handle, 0, &content).await.expect("writes");
    sftp.close(&handle).await.expect("commits");
    let handle = sftp.open_file(b"/f", READ).await.expect("opens");
    assert_eq!(sftp.read_at(&handle, 0, u32::MAX).await.map(|data| data.len()), Ok(261_120));
    assert_eq!(sftp.read_at(&handle, 0, 261_120).await, Ok(content));
    assert_eq!(sftp.read_at(&handle, 261_120, 1).await.expect_err("the end").code(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_is_told_of_every_place_that_can_be_seen() {
    let gateway = Fixture::start().await;
    gateway.write("/alice/a/f", "in a");
    gateway.write("/alice/file", "content");
    let token = gateway.login("alice", "/alice/a:rw");
    let mut sftp = gateway.sftp("alice", &token).await;
    for path in ["/", "/alice", "/alice/a", "/alice/a/f"] {
        sftp.extended("statvfs@openssh.com", &[path.as_bytes()]).await.expect(path);
    }
    assert_eq!(code(sftp.extended("statvfs@openssh.com", &[b"/alice/file"]).await), NO_SUCH_FILE);
}
