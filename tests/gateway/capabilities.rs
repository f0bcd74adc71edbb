//! A server that was started as root: it serves the files of all users and drops every Linux capability that this
//! doesn't need.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, SftpClient};

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID and NET_BIND_SERVICE, by their numbers.
const FILE_SERVING_CAPABILITY_MASK: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 10;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root has capabilities to give up");
    }
    root
}

fn status_field<'a>(status: &'a str, key: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key} in {status}")).trim()
}

/// The number that a line of `/proc/PID/status` has.
fn capability_set(status: &str, key: &str) -> u64 {
    u64::from_str_radix(status_field(status, key), 16).expect("a set")
}

#[tokio::test(flavor = "multi_thread")]
async fn root_server_drops_unneeded_capabilities_on_every_thread() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("files")).expect("a folder");
    let server = ServerProcess::start(folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder.path(), "alice");
    // A connection has a thread of its own.
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let own = fs::read_to_string("/proc/self/status").expect("a status");
    let threads = server.thread_statuses();
    assert!(threads.iter().any(|status| status_field(status, "Name:") == "sftp"), "{threads:?}");
    for status in &threads {
        for key in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(
                capability_set(status, key),
                capability_set(&own, key) & FILE_SERVING_CAPABILITY_MASK,
                "{key} of {}",
                status_field(status, "Name:")
            );
        }
        assert_eq!((capability_set(status, "CapInh:"), capability_set(status, "CapAmb:")), (0, 0));
        assert_eq!(status_field(status, "NoNewPrivs:"), "1");
    }
    sftp.put("/f", b"x").await.expect("it serves all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_server_serves_files_of_other_users_and_keeps_their_owner() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    fs::create_dir_all(files.join("private")).expect("folders");
    fs::write(files.join("private/f"), "secret").expect("a file");
    let own = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
        chown(path, Some(12_345), Some(12_346)).expect("owner");
    };
    own(&files.join("private/f"), 0o400);
    own(&files.join("private"), 0o2700);
    fs::set_permissions(files.join("private"), fs::Permissions::from_mode(0o2700)).expect("mode");
    let server = ServerProcess::start(folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder.path(), "alice");
    let dav = DavClient::new(server.http, "alice", &token);
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");

    assert_eq!(dav.get("/dav/private/f").await.text(), "secret");
    assert_eq!(dav.put("/dav/private/f", "new").await.status, 204);
    assert_eq!(dav.put("/dav/private/g", "new").await.status, 201);
    sftp.chmod("/private/f", 0o640).await.expect("another user's file");
    sftp.chmod("/private", 0o750).await.expect("another user's directory");
    sftp.put("/private/h", b"x").await.expect("put");
    sftp.remove("/private/g").await.expect("removed");
    let owner = |name: &str| {
        let stat = fs::metadata(files.join(name)).expect("there");
        (stat.uid(), stat.gid(), stat.mode() & 0o7777)
    };
    assert_eq!(owner("private/f"), (12_345, 12_346, 0o640), "a replaced file keeps its owner");
    assert_eq!(owner("private"), (12_345, 12_346, 0o2750), "a group that is handed down is not lost");
    assert_eq!(owner("private/h").1, 12_346, "and is handed down");
}
