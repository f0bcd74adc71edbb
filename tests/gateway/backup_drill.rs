//! A drill: a server with users, grants, tokens and locks is backed up while writes go on, and killed; state and tree are
//! lost. The backup is restored into another directory, with a copy of the tree, and nodes are reattached.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, LOCK_BODY, SftpClient, patgate_command, token_id};

/// Copies a tree: every directory and file gets another inode and birth time.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        // The reserved directory is not part of what people back up.
        if entry.file_name() == ".patgate" {
            continue;
        }
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

fn scoped_token(folder: &Path, login: &str, scope: &str) -> String {
    run_cli(folder, &["admin", "user", "token", "-u", login, "-e", "1h", "-s", scope, "-q"])
}

/// Writes files, and creates and revokes tokens, until it is told to stop.
async fn write_without_pause(dav: DavClient, folder: std::path::PathBuf, stop: Arc<AtomicBool>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        assert_eq!(dav.put(&format!("/dav/alice/busy-{number}"), "x").await.status, 201);
        let folder = folder.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let token = create_token(&folder, "busy");
            run_cli(&folder, &["apitoken", "revoke", token_id(&token)]);
        });
        changed.await.expect("changed");
    }
    assert!(number > 0, "nothing was written meanwhile");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Tokens of the drill, and the token of a lock.
struct DrillSecrets {
    alice: String,
    bob: String,
    scoped: String,
    /// Revoked before the backup.
    dead: String,
    lock_token: String,
}

/// Creates users with grants and tokens, files, and a lock.
async fn prepare_state(folder: &Path, server: &ServerProcess) -> DrillSecrets {
    run_cli(folder, &["admin", "user", "create", "alice"]);
    run_cli(folder, &["admin", "user", "create", "busy"]);
    run_cli(folder, &["admin", "user", "create", "bob", "--no-home", "--grant", "/team:r", "--grant", "/alice:r"]);
    let [alice, bob, dead] = ["alice", "bob", "alice"].map(|login| create_token(folder, login));
    let scoped = scoped_token(folder, "bob", "path:/team/plans:r");
    run_cli(folder, &["apitoken", "revoke", token_id(&dead)]);
    let dav = DavClient::new(server.http, "alice", &alice);
    assert_eq!(dav.put("/dav/alice/notes", "content").await.status, 201);
    fs::write(folder.join("files/team/plans/next"), "plan").expect("written");
    let lock = dav.send("LOCK", "/dav/alice/notes", &[("depth", "0"), ("timeout", "Second-600")], LOCK_BODY).await;
    assert_eq!(lock.status, 200, "{}", lock.text());
    DrillSecrets { alice, bob, scoped, dead, lock_token: lock.header("lock-token").to_owned() }
}

/// Backs up several times while files and tokens are written; the last backup counts.
async fn back_up_during_writes(folder: &Path, server: &ServerProcess, alice: &str, backup: &str) {
    let stop = Arc::new(AtomicBool::new(false));
    let dav = DavClient::new(server.http, "alice", alice);
    let writer = tokio::spawn(write_without_pause(dav, folder.to_owned(), Arc::clone(&stop)));
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        run_cli(folder, &["admin", "backup", backup, "--overwrite"]);
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("written");
}

/// Restores the backup, and reattaches nodes to a tree that was copied. Returns the report.
fn restore_and_reattach(folder: &Path, backup: &str) -> Value {
    let report = json(&run_cli(folder, &["admin", "restore", backup, "--json"]));
    assert_eq!((report["holds"]["users"].as_u64(), report["holds"]["grants"].as_u64()), (Some(3), Some(4)), "{report}");
    assert!(report["doctor"].as_array().is_some_and(|checks| checks.len() > 5), "{report}");
    let refused = patgate_command(&folder.join("state"))
        .args(["serve", "--http", "127.0.0.1:0", "--sftp", "off", "--root"])
        .arg(folder.join("files"))
        .output()
        .expect("the program runs");
    let refusal = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && refusal.contains("reattach"), "{refusal}");
    let root = folder.join("files").display().to_string();
    let nodes = json(&run_cli(folder, &["node", "reattach", "--root", &root, "--json"]));
    let states: Vec<_> = nodes.as_array().expect("a list").iter().map(|node| node["state"].as_str()).collect();
    assert!(states.contains(&Some("another")) && !states.contains(&Some("missing")), "{nodes}");
    run_cli(folder, &["node", "reattach", "--root", &root, "--yes"]);
    assert!(run_cli(folder, &["audit", "verify"]).contains("ok"));
    report
}

async fn check_access(server: &ServerProcess, secrets: &DrillSecrets, lost: &str) {
    let status = async |login: &str, token: &str, path: &str| {
        DavClient::new(server.http, login, token).status("GET", path).await
    };
    let DrillSecrets { alice, bob, scoped, dead, lock_token } = secrets;
    assert_eq!(status("alice", alice, "/dav/alice/notes").await, 200);
    assert_eq!(status("bob", bob, "/dav/team/plans/next").await, 200, "revoked after the backup: it works again");
    assert_eq!(status("bob", bob, "/dav/alice/notes").await, 200);
    assert_eq!(status("bob", scoped, "/dav/team/plans/next").await, 200);
    assert_eq!(status("bob", scoped, "/dav/alice/notes").await, 404, "outside of its scope");
    for (login, token) in [("alice", &**dead), ("alice", lost)] {
        assert_eq!(status(login, token, "/dav/alice/notes").await, 401);
        assert!(SftpClient::connect(server.sftp, login, token).await.is_none());
    }
    let dav = DavClient::new(server.http, "alice", alice);
    assert_eq!(dav.put("/dav/alice/notes", "unlocked").await.status, 423, "the lock is as it was");
    let unlocked = dav.send("UNLOCK", "/dav/alice/notes", &[("lock-token", lock_token)], "").await;
    assert_eq!(unlocked.status, 204, "{}", unlocked.text());
    assert_eq!(dav.put("/dav/alice/notes", "more").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_backup_and_copied_tree_serve_what_they_did() {
    let (old, new) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let folder = old.path();
    fs::create_dir_all(folder.join("files/team/plans")).expect("a folder");
    let server = ServerProcess::start(folder);
    let secrets = prepare_state(folder, &server).await;
    let backup = new.path().join("backup.tar").display().to_string();
    back_up_during_writes(folder, &server, &secrets.alice, &backup).await;
    let lost = create_token(folder, "alice");
    run_cli(folder, &["apitoken", "revoke", token_id(&secrets.bob)]);
    server.kill();

    copy_tree(&folder.join("files"), &new.path().join("files"));
    drop(old);
    let folder = new.path();
    let report = restore_and_reattach(folder, &backup);
    let server = ServerProcess::start(folder);
    let busy = patgate_command(&folder.join("state")).args(["admin", "restore", &backup, "--replace"]).output();
    let busy = String::from_utf8(busy.expect("the program runs").stderr).expect("text");
    assert!(busy.contains("a server uses the state"), "{busy}");
    check_access(&server, &secrets, &lost).await;
    let live = json(&run_cli(folder, &["apitoken", "list", "--status", "live", "--json"]));
    let live_count = live.as_array().and_then(|tokens| u64::try_from(tokens.len()).ok());
    assert_eq!(live_count, report["holds"]["live_tokens"].as_u64());
    server.stop();
}
