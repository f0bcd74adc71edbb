//! Reports about `git push` to a bare repository over WebDAV: git's http-push uses locks, temporary names and MOVE.

use std::path::Path;
use std::process::Command;

use super::{LOCK_BODY, start_with_alice};
use crate::support::{DavClient, Fixture};

/// A user name and token in the address, as git is given them.
fn url_with_credentials(gateway: &Fixture, token: &str, path: &str) -> String {
    format!("http://alice:{token}@{}/dav{path}", gateway.http)
}

/// Puts an object of a repository in place as git does: under a name that ends in the token of the lock, then by MOVE,
/// whose `Destination` names the login as the address of the remote does.
async fn push_object(dav: &DavClient, remote: &str, object: &str, content: &'static str) {
    let temporary = format!("/dav/x.git/objects/{object}_51da341790347681ef044a78ca48dfa04f8e96af");
    assert_eq!(dav.put(&temporary, content).await.status, 201);
    let destination = format!("{remote}/objects/{object}");
    let moved = dav.send("MOVE", &temporary, &[("destination", &destination), ("overwrite", "T")], "").await;
    assert_eq!(moved.status, 201, "{}", moved.text());
}

/// msysgit and Gitblit users, step by step: what git sends for a first push, a second, and the removal of a branch.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_git_http_push_is_answered() {
    let (gateway, dav) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let remote = url_with_credentials(&gateway, &token, "/x.git");
    for folder in ["x.git", "x.git/info", "x.git/objects", "x.git/objects/info", "x.git/refs", "x.git/refs/heads"] {
        assert_eq!(dav.status("MKCOL", &format!("/dav/{folder}/")).await, 201, "{folder}");
    }
    dav.put("/dav/x.git/HEAD", "ref: refs/heads/main\n").await;
    dav.put("/dav/x.git/info/refs", "").await;
    for (turn, object) in [("first", "d0/0491fd"), ("second", "d0/2efc1a")] {
        let about =
            "<D:propfind xmlns:D='DAV:'><D:prop xmlns:R='x'><R:supportedlock/><D:supportedlock/></D:prop></D:propfind>";
        let expecting = [("expect", "100-continue"), ("depth", "0")];
        let supported = dav.send("PROPFIND", "/dav/x.git/", &expecting, about).await;
        assert!(supported.text().contains("<D:exclusive/>") && supported.text().contains("<D:write/>"), "{turn}");
        let mut locks = Vec::new();
        for (path, status) in [("/dav/x.git/info/refs", 200), ("/dav/x.git/refs/heads/main", 201)] {
            let status = if turn == "second" { 200 } else { status };
            let lock = dav.send("LOCK", path, &[("timeout", "Second-600")], LOCK_BODY).await;
            assert_eq!(lock.status, status, "{turn} {path}");
            assert!(lock.text().contains("<D:timeout>Second-600</D:timeout>"), "{}", lock.text());
            locks.push((path, lock.header("lock-token").to_owned()));
        }
        let listed = dav.list_hrefs("/dav/x.git/refs/heads/").await.expect("listed");
        assert!(listed.contains(&"/dav/x.git/refs/heads/main".to_owned()), "{turn}: {listed:?}");
        let folder = dav.status("MKCOL", "/dav/x.git/objects/d0/").await;
        assert_eq!(folder, if turn == "first" { 201 } else { 405 });
        push_object(&dav, &remote, object, "an object").await;
        for (path, token) in &locks {
            assert_eq!(dav.put(path, "without the token").await.status, 423);
            let condition = format!("({token})");
            let refreshed = dav.send("LOCK", path, &[("if", &condition), ("timeout", "Second-600")], "").await;
            assert_eq!(refreshed.status, 200, "a long push refreshes its lock: {}", refreshed.text());
            assert_eq!(dav.send("PUT", path, &[("if", &condition)], turn).await.status, 204, "{turn} {path}");
            assert_eq!(dav.send("UNLOCK", path, &[("lock-token", token)], "").await.status, 204);
        }
        assert_eq!(dav.get("/dav/x.git/refs/heads/main").await.text(), turn);
    }
    assert_eq!(dav.status("DELETE", "/dav/x.git/refs/heads/main").await, 204);
    assert_eq!(dav.list_hrefs("/dav/x.git/refs/heads/").await, Ok(vec![]));
}

/// Runs git in a folder, without anything of the user's own.
fn run_git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.version=0"])
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_SMART_HTTP", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("no_proxy", "127.0.0.1")
        .output()
        .expect("git runs");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "git {arguments:?}: {out}{errors}");
    out.trim().to_owned()
}

/// Tells whether the installed git can push to WebDAV: some systems package that part separately.
fn git_can_push_over_http() -> bool {
    let path = Command::new("git").arg("--exec-path").output().map(|output| output.stdout).unwrap_or_default();
    Path::new(String::from_utf8_lossy(&path).trim()).join("git-http-push").exists()
}

/// The same by git itself: three pushes, a clone, a branch made and removed. Where git can't push to WebDAV its steps
/// are tried alone, by the test above.
#[tokio::test(flavor = "multi_thread")]
async fn git_client_pushes_clones_and_deletes_a_branch() {
    if !git_can_push_over_http() {
        return;
    }
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let remote = url_with_credentials(&gateway, &token, "/x.git");
    let bare = gateway.host_path("/x.git");
    run_git(&gateway.root(), &["init", "-q", "--bare", "-b", "main", "x.git"]);
    run_git(&bare, &["update-server-info"]);
    let scratch = tempfile::tempdir().expect("a folder");
    let work = scratch.path().join("work");
    let pushed = tokio::task::spawn_blocking(move || {
        run_git(scratch.path(), &["init", "-q", "-b", "main", "work"]);
        for turn in ["1", "2", "3"] {
            std::fs::write(work.join(format!("f {turn}")), turn).expect("a file");
            run_git(&work, &["add", "."]);
            run_git(&work, &["commit", "-qm", turn]);
            run_git(&work, &["push", "-q", &remote, "main"]);
        }
        run_git(scratch.path(), &["clone", "-q", &remote, "again"]);
        let second_clone = scratch.path().join("again");
        run_git(&second_clone, &["checkout", "-q", "main"]);
        run_git(&second_clone, &["fsck", "--strict"]);
        run_git(&work, &["push", "-q", &remote, "main:side"]);
        let sides = bare.join("refs/heads/side").exists();
        run_git(&work, &["push", "-q", &remote, ":side"]);
        (run_git(&second_clone, &["log", "--oneline"]).lines().count(), sides, bare.join("refs/heads/side").exists())
    });
    assert_eq!(pushed.await.expect("pushed"), (3, true, false));
}
