//! Paths and attributes over SFTP mean what POSIX and OpenSSH mean by them.

use crate::support::{Fixture, Sftp, SftpError, string};

const REPLACE: u32 = 2 | 8 | 16;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;

async fn started(grant: &str) -> (Fixture, Sftp) {
    let gateway = Fixture::start().await;
    gateway.write("/alice/file", "content");
    gateway.folder("/alice/a/b");
    gateway.write("/alice/a/f", "in a");
    let token = gateway.login("alice", grant);
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, sftp)
}

fn code<T: std::fmt::Debug>(result: Result<T, SftpError>) -> u32 {
    result.expect_err("refused").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_behind_a_file_is_refused_in_every_request() {
    let (gateway, mut sftp) = started("/alice:rw").await;
    for path in ["/alice/file/", "/alice/file/.", "/alice/file//", "file/"] {
        assert_eq!(code(sftp.stat(path).await), NO_SUCH_FILE, "{path}");
        assert_eq!(code(sftp.lstat(path).await), NO_SUCH_FILE, "{path}");
        assert_eq!(code(sftp.open_file(path.as_bytes(), 1).await), NO_SUCH_FILE, "{path}");
        assert_eq!(code(sftp.open_file(path.as_bytes(), REPLACE).await), NO_SUCH_FILE, "{path}");
        assert_eq!(code(sftp.chmod(path, 0o600).await), NO_SUCH_FILE, "{path}");
        assert!(sftp.remove(path).await.is_err(), "{path}");
        assert!(sftp.rename(path, "/alice/other").await.is_err(), "{path}");
        assert!(sftp.hard_link(path, "/alice/other").await.is_err(), "{path}");
    }
    for path in ["/alice/new/", "/alice/new/."] {
        assert!(sftp.open_file(path.as_bytes(), REPLACE).await.is_err(), "{path}");
        assert!(sftp.rename("/alice/file", path).await.is_err(), "{path}");
        assert!(sftp.hard_link("/alice/file", path).await.is_err(), "{path}");
        assert!(sftp.symlink("file", path).await.is_err(), "{path}");
    }
    assert!(!gateway.host("/alice/new").exists() && gateway.host("/alice/file").exists());
    sftp.mkdir("/alice/new/").await.expect("a directory may be written so");
    sftp.rename("/alice/new/", "/alice/newer/").await.expect("renamed");
    sftp.rmdir("/alice/newer/").await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn dots_go_up_from_where_a_directory_really_is() {
    let (gateway, mut sftp) = started("/alice:rw").await;
    for path in ["/alice/missing/..", "/alice/missing/../file", "/alice/file/..", "missing/../file"] {
        assert_eq!(code(sftp.stat(path).await), NO_SUCH_FILE, "{path}");
        assert!(sftp.open_file(path.as_bytes(), REPLACE).await.is_err(), "{path}");
    }
    sftp.symlink("a/b", "/alice/link").await.expect("made");
    assert_eq!(sftp.get("/alice/link/../f").await, Ok(b"in a".to_vec()));
    assert_eq!(sftp.realpath("/alice/link/..").await.as_deref(), Ok("/alice/a"));
    assert_eq!(sftp.realpath("a/b/../..").await.as_deref(), Ok("/alice"));
    assert_eq!(sftp.realpath("/../..").await.as_deref(), Ok("/"));
    assert!(sftp.rename("/alice/a/.", "/alice/x").await.is_err());
    assert!(sftp.rmdir("/alice/a/b/.").await.is_err());
    assert!(sftp.rmdir("/alice/link/").await.is_err() && sftp.remove("/alice/link/").await.is_err());
    assert_eq!(sftp.lstat("/alice/link/").await.expect("the directory").mode.map(|mode| mode >> 12), Some(0o4));
    assert!(gateway.host("/alice/a/b").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_exists_is_told_so_before_rights_are() {
    let (gateway, mut sftp) = started("/alice:rw").await;
    for path in ["/", "/alice", ".", "..", "/alice/a", "/alice/file"] {
        assert_eq!(code(sftp.mkdir(path).await), FAILURE, "{path}");
    }
    assert_eq!(code(sftp.mkdir("/nobodys").await), PERMISSION_DENIED);
    let token = gateway.token("alice", &["-e", "1h"]);
    let answer = gateway.dav("alice", &token).send("MKCOL", "/dav/alice/", &[], "").await;
    assert_eq!(answer.status, 405, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_that_stay_are_no_change_and_the_rest_of_a_refused_request_is_set() {
    let (_gateway, mut sftp) = started("/alice:rw").await;
    let set = async |sftp: &mut Sftp, owner: (u32, u32)| {
        let numbers = [2 | 4 | 8, owner.0, owner.1, 0o601, 9, 10];
        let attributes: Vec<u8> = numbers.iter().flat_map(|number: &u32| number.to_be_bytes()).collect();
        sftp.ask(9, &[&string(b"/alice/file"), &attributes]).await.map(drop)
    };
    for owner in [(1000, 1000), (u32::MAX, 1000), (1000, u32::MAX), (u32::MAX, u32::MAX)] {
        set(&mut sftp, owner).await.expect("nothing changes");
    }
    sftp.chmod("/alice/file", 0o644).await.expect("set");
    assert_eq!(code(set(&mut sftp, (0, 0)).await), PERMISSION_DENIED);
    let now = sftp.stat("/alice/file").await.expect("there");
    assert_eq!((now.mode.map(|mode| mode & 0o777), now.times), (Some(0o601), Some((9, 10))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_is_told_of_every_place_that_can_be_seen() {
    let (_gateway, mut sftp) = started("/alice/a:rw").await;
    for path in ["/", "/alice", "/alice/a", "/alice/a/f"] {
        sftp.extended("statvfs@openssh.com", &[path.as_bytes()]).await.expect(path);
    }
    assert_eq!(code(sftp.extended("statvfs@openssh.com", &[b"/alice/file"]).await), NO_SUCH_FILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_not_allowed_is_refused_at_the_write_that_shows_it() {
    let (gateway, _) = started("/alice:rw").await;
    let token = gateway.token("alice", &["-e", "1h", "--mime", "image/*"]);
    let mut sftp = gateway.sftp("alice", &token).await;
    let text = b"words, no picture\n".repeat(60);
    for (path, content) in [("/alice/a.png", &text[..]), ("/alice/b.png", b"PK\x03\x04\x14\0\0\0\x08\0")] {
        let handle = sftp.open_file(path.as_bytes(), REPLACE).await.expect("opened");
        assert_eq!(code(sftp.write_at(&handle, 0, content).await), PERMISSION_DENIED, "{path}");
        assert!(sftp.close(&handle).await.is_err(), "{path}: and at CLOSE once more");
    }
    // Blocks out of order are judged when nothing is missing before them.
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01".as_slice(), &[0; 1000]].concat();
    let handle = sftp.open_file(b"/alice/c.png", REPLACE).await.expect("opened");
    sftp.write_at(&handle, 600, &png[600..]).await.expect("written");
    sftp.write_at(&handle, 0, &png[..600]).await.expect("written");
    sftp.close(&handle).await.expect("a picture");
}
