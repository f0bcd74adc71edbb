//! Two servers whose served directories overlap: the second refuses to start and changes nothing of the first.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;

use crate::mounts::{MountGuard, can_mount};
use crate::support::server::{ServerProcess, create_token, run_cli, staged_entries};
use crate::support::{DavClient, SftpClient, patgate_command};

/// Serves a folder with a state of its own; returns what is said when that is refused.
fn startup_refusal(root: &Path, state: &Path) -> String {
    let mut command = patgate_command(state);
    command.args(["serve", "--http", "127.0.0.1:0", "--sftp", "off", "--root"]).arg(root);
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn fixture_directory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("above/files/below")).expect("folders");
    std::os::unix::fs::symlink("above/files", folder.path().join("files")).expect("a link");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn second_server_on_overlapping_root_is_refused_and_deletes_nothing() {
    let folder = fixture_directory();
    let folder = folder.path();
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder, "alice");
    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let upload = sftp.open_file(b"/file", 2 | 8 | 16).await.expect("opened");
    sftp.write_at(&upload, 0, b"content").await.expect("written");
    let other = folder.join("other");
    for (root, says) in [
        ("above/files", "another server serves this directory"),
        ("files/below", "which another server serves"),
        ("above", "another server serves"),
    ] {
        let message = startup_refusal(&folder.join(root), &other);
        assert!(message.contains(says), "{root}: {message}");
        assert_eq!(staged_entries(&folder.join("files")).len(), 1, "{root}");
    }
    sftp.close(&upload).await.expect("committed");
    assert_eq!(DavClient::new(server.http, "alice", &token).get("/dav/file").await.text(), "content");
    server.stop();
    // Once the first has ended, a folder below may be served by another.
    let below = folder.join("served");
    std::fs::create_dir(&below).expect("a folder");
    std::os::unix::fs::symlink(folder.join("files/below"), below.join("files")).expect("a link");
    drop(ServerProcess::start(&below));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_server_overlapping_through_a_bind_mount_is_refused() {
    if !can_mount() {
        return;
    }
    let folder = fixture_directory();
    let folder = folder.path();
    let _server = ServerProcess::start(folder);
    let _mounted = MountGuard::bind(&folder.join("above/files"), &folder.join("wide/mounted"));
    let message = startup_refusal(&folder.join("wide"), &folder.join("other"));
    assert!(message.contains("another server serves /mounted in it"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_directory_accessible_to_others_is_refused() {
    let folder = fixture_directory();
    let folder = folder.path();
    let reserved = folder.join("files/.patgate");
    std::fs::create_dir(&reserved).expect("a folder");
    let mode = |mode| std::fs::set_permissions(&reserved, PermissionsExt::from_mode(mode)).expect("set");
    for open in [0o770, 0o702] {
        mode(open);
        let message = startup_refusal(&folder.join("files"), &folder.join("state"));
        assert!(message.contains(".patgate has mode") && message.contains("chmod 700"), "{message}");
    }
    mode(0o755);
    drop(ServerProcess::start(folder));
    assert_eq!(std::fs::metadata(&reserved).expect("there").permissions().mode() & 0o777, 0o700);
    if rustix::process::geteuid().is_root() {
        chown(&reserved, Some(65534), None).expect("given away");
        let message = startup_refusal(&folder.join("files"), &folder.join("state"));
        assert!(message.contains(".patgate belongs to the user id 65534, not to 0"), "{message}");
    } else {
        eprintln!("not tested: only root gives files away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_reports_tree_and_lock_support() {
    let folder = fixture_directory();
    let folder = folder.path();
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let look = || {
        let output = patgate_command(&folder.join("state")).args(["doctor", "--json"]).output().expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let found = look();
    assert!(found.contains("a second server on the folder is refused"), "{found}");
    assert!(found.contains("it is the folder that grants and scopes were created for"), "{found}");
    server.stop();
    std::fs::remove_dir_all(folder.join("above/files")).expect("removed");
    std::fs::create_dir(folder.join("above/files")).expect("a folder");
    let found = look();
    assert!(found.contains("it is not the directory that grants and scopes were made for"), "{found}");
}
