//! A served directory with a second file system in it: grants, scopes and node URLs follow a file that is moved from
//! one to the other. Crashes during such a move are tested in `src/tree/view/tests/killed.rs`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, patgate_command};

/// A command that mounts a file system in memory at a folder, for itself alone, and runs what is appended.
fn mount_command(disk: &Path) -> Command {
    let mut command = Command::new("unshare");
    let root = rustix::process::geteuid().is_root();
    let script = "mount -t tmpfs none \"$1\" && shift && exec \"$@\"";
    command.args([if root { "-m" } else { "-rm" }, "sh", "-c", script, "sh"]).arg(disk);
    command
}

/// Tells whether this process may mount file systems.
fn can_mount(disk: &Path) -> bool {
    let outcome = mount_command(disk).arg("true").stderr(Stdio::null()).status();
    let may = outcome.is_ok_and(|status| status.success());
    if !may {
        eprintln!("SKIPPED: nothing can be mounted here (unshare -m, mount -t tmpfs)");
    }
    may
}

async fn move_status(dav: &DavClient, from: &str, to: &str) -> u16 {
    let target = dav.url(to);
    dav.send("MOVE", from, &[("destination", &target)], "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_scopes_and_node_urls_follow_a_cross_device_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let disk = folder.join("files/disk");
    for directory in [&disk, &folder.join("files/a/b"), &folder.join("files/t/old")] {
        std::fs::create_dir_all(directory).expect("a folder");
    }
    std::fs::write(folder.join("files/a/b/file"), "content").expect("written");
    if !can_mount(&disk) {
        return;
    }
    let mut command = mount_command(&disk);
    command
        .arg(patgate_command(Path::new("")).get_program())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("set"));
    command.env("PATGATE_STATE", folder.join("state"));
    let server = ServerProcess::start_with_command(command, folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    run_cli(folder, &["admin", "user", "create", "bob", "--no-home", "--grant", "/a/b:r"]);
    let node = run_cli(folder, &["node", "id", "/a/b/file"]);
    let scope = format!("node:{}:rw", run_cli(folder, &["node", "id", "/a"]));
    let [alice, bob] = ["alice", "bob"].map(|login| create_token(folder, login));
    let narrow = run_cli(folder, &["admin", "user", "token", "-u", "alice", "-e", "1h", "-q", "-s", &scope]);
    let dav = DavClient::new(server.http, "alice", &alice);
    let (bob, narrow) = (DavClient::new(server.http, "bob", &bob), DavClient::new(server.http, "alice", &narrow));
    assert_eq!(dav.put("/dav/disk/probe", "x").await.status, 201);
    assert!(!disk.join("probe").exists(), "it is a file system of the server's own");

    for (from, to, status) in
        [("/dav/a", "/dav/disk/a", 201), ("/dav/disk/a", "/dav/t", 204), ("/dav/t", "/dav/disk/t", 201)]
    {
        assert_eq!(move_status(&dav, from, to).await, status, "{from}");
        assert_eq!(dav.get(from).await.status, 404);
        for who in [&bob, &narrow] {
            assert_eq!(who.get(&format!("{to}/b/file")).await.text(), "content", "{to}");
            assert_eq!(who.get(&format!("{from}/b/file")).await.status, 404, "{from}");
        }
        assert_eq!(bob.get(&format!("/node/{node}")).await.text(), "content", "{to}");
        assert_eq!(narrow.put(&format!("{to}/more"), "more").await.status, if from == "/dav/a" { 201 } else { 204 });
        assert_eq!(bob.get(&format!("{to}/more")).await.status, 404);
    }
    assert_eq!(move_status(&dav, "/dav/disk/t/b/file", "/dav/file").await, 201);
    assert_eq!(dav.get(&format!("/node/{node}")).await.text(), "content");
    assert_eq!(bob.get(&format!("/node/{node}")).await.status, 404);
    server.stop();
}
