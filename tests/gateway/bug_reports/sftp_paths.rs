//! Reports about paths over SFTP: absolute and relative ones, trailing slashes, `..`, and missing targets.

use std::os::unix::fs::MetadataExt;

use super::{FAILURE, NO_SUCH_FILE, PERMISSION_DENIED, READ, REPLACE, WRITE, status_code};
use crate::support::{Fixture, SftpClient, encode_string};

async fn start_sftp(grant: &str) -> (Fixture, SftpClient) {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/alice/file", "content");
    gateway.create_host_directory("/alice/a/b");
    gateway.write_host_file("/alice/a/f", "in a");
    let token = gateway.create_user_and_token("alice", grant);
    let sftp = gateway.sftp("alice", &token).await;
    (gateway, sftp)
}

fn is_directory(mode: Option<u32>) -> bool {
    mode.is_some_and(|mode| mode >> 12 == 0o4)
}

/// sshfs through fsspec, and other programs that make every directory of an absolute path: FAILURE means that it is there
/// already; PERMISSION_DENIED ended the upload.
#[tokio::test(flavor = "multi_thread")]
async fn mkdir_of_an_existing_directory_fails_as_existing_before_permission() {
    let (gateway, mut sftp) = start_sftp("/alice:rw").await;
    let home = sftp.realpath(".").await.expect("home");
    for path in ["/", &home, "/alice", ".", "..", "/alice/a", "/alice/a/", "/alice/file"] {
        assert_eq!(status_code(sftp.mkdir(path).await), FAILURE, "{path}");
    }
    assert_eq!(status_code(sftp.mkdir("/nobodys").await), PERMISSION_DENIED);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let answer = gateway.dav("alice", &token).send("MKCOL", "/dav/alice/", &[], "").await;
    assert_eq!(answer.status, 405, "{answer:?}");
}

/// asyncssh's `makedirs` of an absolute path, as Debian has it: from the root it asks for each directory, takes FAILURE
/// for one that it then looks at, and gives up at any other refusal.
#[tokio::test(flavor = "multi_thread")]
async fn recursive_mkdir_of_an_absolute_path_works() {
    let (gateway, mut sftp) = start_sftp("/alice/a:rw").await;
    for turn in 0..2 {
        let mut path = String::new();
        for name in ["alice", "a", "mk", "x", "y"] {
            path = format!("{path}/{name}");
            match sftp.mkdir(&path).await {
                Ok(()) => assert_eq!(turn, 0, "{path}"),
                Err(error) => {
                    assert_eq!(error.code(), FAILURE, "{path}");
                    assert!(is_directory(sftp.stat(&path).await.expect("there").mode), "{path}");
                }
            }
        }
        assert!(gateway.host_path("/alice/a/mk/x/y").is_dir());
    }
}

/// Terraform's and gulp's users sent a file to `folder/`, which was not there: it became a file of that name, and the
/// next one replaced it. A slash asks for a directory, in every request.
#[tokio::test(flavor = "multi_thread")]
async fn trailing_slash_on_a_file_is_refused_in_every_request() {
    let (gateway, mut sftp) = start_sftp("/alice:rw").await;
    for path in ["/alice/file/", "/alice/file/.", "/alice/file//", "file/"] {
        assert_eq!(status_code(sftp.stat(path).await), NO_SUCH_FILE, "{path}");
        assert_eq!(status_code(sftp.lstat(path).await), NO_SUCH_FILE, "{path}");
        for flags in [READ, WRITE, REPLACE] {
            assert_eq!(status_code(sftp.open_file(path.as_bytes(), flags).await), NO_SUCH_FILE, "{path}");
        }
        assert_eq!(status_code(sftp.chmod(path, 0o600).await), NO_SUCH_FILE, "{path}");
        assert_eq!(
            status_code(sftp.remove(path).await),
            if path.ends_with('.') { FAILURE } else { NO_SUCH_FILE },
            "{path}"
        );
        assert!(sftp.rename(path, "/alice/other").await.is_err(), "{path}");
        assert!(sftp.hard_link(path, "/alice/other").await.is_err(), "{path}");
    }
    for path in ["/alice/new/", "/alice/new/.", "new/"] {
        for _ in 0..2 {
            let refused = status_code(sftp.open_file(path.as_bytes(), REPLACE).await);
            assert!([FAILURE, NO_SUCH_FILE].contains(&refused), "{path}: {refused}");
        }
        assert!(sftp.rename("/alice/file", path).await.is_err(), "{path}");
        assert!(sftp.hard_link("/alice/file", path).await.is_err(), "{path}");
        assert!(sftp.symlink("file", path).await.is_err(), "{path}");
        assert_eq!(status_code(sftp.lstat("/alice/new").await), NO_SUCH_FILE, "{path}");
    }
    assert!(!gateway.host_path("/alice/new").exists() && gateway.host_path("/alice/file").exists());
    sftp.mkdir("/alice/new/").await.expect("a directory may be written so");
    sftp.rename("/alice/new/", "/alice/newer/").await.expect("renamed");
    sftp.rmdir("/alice/newer/").await.expect("removed");
}

/// What POSIX refuses and a server that cuts paths by text takes: `..` behind what is missing or no directory, `.` as the
/// name to rename; `..` goes up from where a link leads.
#[tokio::test(flavor = "multi_thread")]
async fn dot_dot_resolves_from_the_physical_directory() {
    let (gateway, mut sftp) = start_sftp("/alice:rw").await;
    for path in ["/alice/missing/..", "/alice/missing/../file", "/alice/file/..", "missing/../file"] {
        assert_eq!(status_code(sftp.stat(path).await), NO_SUCH_FILE, "{path}");
        assert!(sftp.open_file(path.as_bytes(), REPLACE).await.is_err(), "{path}");
    }
    sftp.symlink("a/b", "/alice/link").await.expect("made");
    assert_eq!(sftp.get("/alice/link/../f").await, Ok(b"in a".to_vec()));
    assert_eq!(sftp.realpath("/alice/link/..").await.as_deref(), Ok("/alice/a"));
    assert_eq!(sftp.realpath("a/b/../..").await.as_deref(), Ok("/alice"));
    assert_eq!(sftp.realpath("/../..").await.as_deref(), Ok("/"));
    assert!(sftp.remove("/alice/file/").await.is_err() && gateway.host_path("/alice/file").exists());
    assert!(sftp.rename("/alice/a/.", "/alice/x").await.is_err());
    assert!(!gateway.host_path("/alice/x").exists());
    assert!(sftp.rmdir("/alice/a/b/.").await.is_err());
    assert!(sftp.rmdir("/alice/link/").await.is_err() && sftp.remove("/alice/link/").await.is_err());
    assert!(is_directory(sftp.lstat("/alice/link/").await.expect("the directory").mode));
    assert!(gateway.host_path("/alice/a/b").is_dir());
}

/// Node's ssh2, Windows' OpenSSH, sshj and a PHP deployment tool: STAT of the root and of what is above, REALPATH of
/// nothing and of what is missing. What is to be made may be missing; what leads there may not.
#[tokio::test(flavor = "multi_thread")]
async fn realpath_of_root_and_relative_paths_matches_openssh() {
    let (_gateway, mut sftp) = start_sftp("/alice:rw").await;
    let home = sftp.realpath(".").await.expect("home");
    assert_eq!(home, "/alice");
    for path in ["/", ".", "..", "", &home] {
        assert!(is_directory(sftp.stat(path).await.expect(path).mode), "{path:?}");
        assert!(is_directory(sftp.lstat(path).await.expect(path).mode), "{path:?}");
    }
    for (path, wanted) in [
        ("", "/alice"),
        ("/", "/"),
        ("/..", "/"),
        ("/../../", "/"),
        ("a/new", "/alice/a/new"),
        ("./a//b/", "/alice/a/b"),
        ("../alice/a", "/alice/a"),
    ] {
        assert_eq!(sftp.realpath(path).await.as_deref(), Ok(wanted), "{path:?}");
    }
    assert_eq!(status_code(sftp.realpath("no/new").await), NO_SUCH_FILE);
    for path in ["none", "a/none/x", "/alice/none", "/nobody", "file/x"] {
        assert_eq!(status_code(sftp.stat(path).await), NO_SUCH_FILE, "{path}");
        assert_eq!(status_code(sftp.lstat(path).await), NO_SUCH_FILE, "{path}");
    }
    // What later drafts of the protocol put behind a path is passed over.
    let (kind, _) = sftp.request(16, &[&encode_string(b"."), &[1], &encode_string(b"x")]).await.expect("REALPATH");
    assert_eq!(kind, 104);
    sftp.mkdir("a/slash/").await.expect("with a slash behind");
}

/// WinSCP removes the target before it renames its `.filepart`: NO_SUCH_FILE for what is not there lets it go on, and a
/// plain rename onto a file is refused before that.
#[tokio::test(flavor = "multi_thread")]
async fn missing_rename_target_is_no_such_file_and_part_file_is_renamed() {
    let (gateway, mut sftp) = start_sftp("/alice:rw").await;
    for path in ["/alice/none", "/alice/none/x", "none", "/alice/file/x"] {
        assert_eq!(status_code(sftp.remove(path).await), NO_SUCH_FILE, "{path}");
        assert_eq!(status_code(sftp.rmdir(path).await), NO_SUCH_FILE, "{path}");
        assert_eq!(status_code(sftp.rename(path, "/alice/new").await), NO_SUCH_FILE, "{path}");
    }
    for (part, target, old) in [("x.filepart", "x", Some("old")), ("y.filepart", "y", None)] {
        let (part, target) = (format!("/alice/{part}"), format!("/alice/{target}"));
        sftp.put(&part, b"new").await.expect("put");
        if let Some(old) = old {
            gateway.write_host_file(&target, old);
            assert_eq!(status_code(sftp.rename(&part, &target).await), FAILURE);
            assert_eq!(sftp.get(&target).await, Ok(old.as_bytes().to_vec()));
            sftp.remove(&target).await.expect("removed");
        } else {
            assert_eq!(status_code(sftp.remove(&target).await), NO_SUCH_FILE);
        }
        sftp.rename(&part, &target).await.expect("renamed");
        assert_eq!(sftp.get(&target).await, Ok(b"new".to_vec()));
        assert!(!gateway.host_path(&part).exists());
    }
}

/// Windows' OpenSSH and its users: `posix-rename@openssh.com` replaces a file, a link that leads nowhere, and an empty
/// directory; an upload that is open goes on under its new name.
#[tokio::test(flavor = "multi_thread")]
async fn posix_rename_replaces_an_existing_target() {
    let (gateway, mut sftp) = start_sftp("/alice:rw").await;
    sftp.put("a.txt", b"a").await.expect("put");
    sftp.put("b.txt", b"b").await.expect("put");
    sftp.posix_rename("a.txt", "b.txt").await.expect("file onto file");
    assert_eq!(sftp.get("b.txt").await, Ok(b"a".to_vec()));
    sftp.symlink("nowhere", "link").await.expect("made");
    sftp.posix_rename("b.txt", "link").await.expect("file onto a link");
    assert_eq!(sftp.get("link").await, Ok(b"a".to_vec()));
    assert!(!gateway.host_path("/alice/nowhere").exists(), "the link is replaced, not followed");
    sftp.mkdir("empty").await.expect("made");
    let node = gateway.host_path("/alice/a").metadata().expect("there").ino();
    sftp.posix_rename("a", "empty").await.expect("directory onto an empty one");
    assert_eq!(sftp.get("empty/f").await, Ok(b"in a".to_vec()));
    assert_eq!(gateway.host_path("/alice/empty").metadata().expect("there").ino(), node);
    sftp.mkdir("full").await.expect("made");
    sftp.put("full/x", b"x").await.expect("put");
    assert!(sftp.posix_rename("empty", "full").await.is_err(), "not onto one that is not empty");
    let upload = sftp.open_file(b"t.tmp", REPLACE).await.expect("opened");
    sftp.write_at(&upload, 0, b"1").await.expect("written");
    sftp.posix_rename("t.tmp", "t").await.expect("renamed before CLOSE");
    sftp.write_at(&upload, 1, b"2").await.expect("it goes on");
    sftp.close(&upload).await.expect("closed");
    assert_eq!(sftp.get("t").await, Ok(b"12".to_vec()));
}
