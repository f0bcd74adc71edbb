//! A full disk below the state directory: tokens can still be revoked and users disabled, and other changes of the
//! store are refused with a reason.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mounts::wait_until;
use crate::support::server::{ServerProcess, run_cli};
use crate::support::{DavClient, LOCK_BODY, RestClient, patgate_command, token_id};

/// Size of the file system of the state.
const TMPFS_SIZE_OPTION: &str = "size=24m";
/// A folder with `files`, and `state` on a small file system of its own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one; says why where that can't be done.
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root may mount a file system for the state directory");
            return None;
        }
        let disk = Self(tempfile::tempdir().expect("a folder"));
        for name in ["files", "state"] {
            fs::create_dir(disk.0.path().join(name)).expect("a folder");
        }
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", TMPFS_SIZE_OPTION, "tmpfs"]).arg(disk.state()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(disk),
            other => {
                eprintln!("SKIPPED: no file system can be mounted for the state directory here: {other:?}");
                None
            }
        }
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn filler_path(&self) -> PathBuf {
        self.state().join("filler")
    }

    /// Has another program take all that is free.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler_path()).expect("a file");
        for size in [1 << 20, 4096] {
            let block = vec![0x5a; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.state()).expect("there");
        disk.f_bavail * disk.f_frsize
    }

    fn ballast_bytes(&self) -> u64 {
        fs::metadata(self.state().join("patgate.ballast")).expect("there").len()
    }

    fn create_user(&self, login: &str, roles: &[&str]) {
        let folder = self.0.path();
        run_cli(folder, &[&["admin", "user", "create", login, "--no-home", "--grant", "/:rw"], roles].concat());
    }

    fn token(&self, login: &str, roles: &[&str]) -> String {
        run_cli(self.0.path(), &[&["admin", "user", "token", "-u", login, "-q", "-e", "1h"], roles].concat())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.state()).status();
    }
}

async fn status(dav: &DavClient) -> u16 {
    dav.send("PROPFIND", "/dav/", &[("depth", "0")], "").await.status
}

/// Sets a property of so many bytes; tells whether it was kept, and else that it was refused as it should be.
async fn try_set_property(dav: &DavClient, path: &str, name: &str, size: usize) -> bool {
    let value = "x".repeat(size);
    let body = format!(
        "<propertyupdate xmlns='DAV:'><set><prop><{name} xmlns='u:'>{value}</{name}></prop></set></propertyupdate>"
    );
    let answer = dav.send("PROPPATCH", path, &[], body).await;
    let text = answer.text();
    assert_eq!(answer.status, 207, "{text}");
    let refused = text.contains("507 Insufficient Storage") && text.contains("state is full");
    assert!(refused || text.contains("200 OK"), "{text}");
    !refused
}

/// Fills the last pages of the store, with rows of all sizes, until nothing more is taken.
async fn fill_store(dav: &DavClient) {
    assert_eq!(dav.put("/dav/filled", "").await.status / 100, 2);
    let mut number = 0;
    for size in [60_000, 6_000, 600, 60] {
        let mut refused = 0;
        while refused < 3 {
            number += 1;
            let path = format!("/dav/filled{}", number % 50);
            assert_eq!(dav.put(&path, "").await.status / 100, 2, "content needs no room in the store");
            refused += usize::from(!try_set_property(dav, &path, &format!("p{number}"), size).await);
            assert!(number < 4000, "it never fills");
        }
    }
}

async fn readiness(server: &ServerProcess) -> (u16, String) {
    let answer = DavClient::new(server.http, "nobody", "nothing").send("GET", "/readyz", &[], "").await;
    (answer.status, answer.text())
}

fn run_doctor(folder: &Path) -> String {
    let output = patgate_command(&folder.join("state")).arg("doctor").output().expect("the program runs");
    String::from_utf8(output.stdout).expect("text")
}

/// The tokens of the test.
struct FullDiskTokens {
    admin: String,
    alice: String,
    mallory: String,
    carol: String,
    /// Others of mallory's.
    mallorys_tokens: Vec<String>,
}

impl FullDiskTokens {
    fn create(disk: &SmallDisk) -> Self {
        disk.create_user("root", &["--role", "admin"]);
        ["alice", "mallory", "carol"].iter().for_each(|login| disk.create_user(login, &[]));
        let token = |login| disk.token(login, &[]);
        Self {
            admin: disk.token("root", &["--role", "admin"]),
            alice: token("alice"),
            mallory: token("mallory"),
            carol: token("carol"),
            mallorys_tokens: (0..4).map(|_| token("mallory")).collect(),
        }
    }

    fn revoked_or_disabled(&self) -> impl Iterator<Item = (&str, &String)> {
        let thieves = self.mallorys_tokens.iter().map(|thief| ("mallory", thief));
        thieves.chain([("mallory", &self.mallory), ("carol", &self.carol)])
    }
}

fn dav(server: &ServerProcess, login: &str, token: &str) -> DavClient {
    DavClient::new(server.http, login, token)
}

/// Revokes over REST and on the state directory, disables a user, and narrows a token, each on a disk that is full.
async fn revoke_disable_and_narrow(disk: &SmallDisk, server: &ServerProcess, tokens: &FullDiskTokens) {
    let (folder, rest) = (disk.0.path(), RestClient::new(dav(server, "root", &tokens.admin)));
    for (number, thief) in tokens.mallorys_tokens.iter().enumerate() {
        disk.fill();
        assert_eq!(status(&dav(server, "mallory", thief)).await, 207);
        if number < 2 {
            let path = format!("/api/v1/tokens/{}", token_id(thief));
            assert_eq!(rest.send("DELETE", &path, serde_json::Value::Null).await.status / 100, 2);
        } else {
            run_cli(folder, &["apitoken", "revoke", token_id(thief)]);
        }
        assert_eq!(status(&dav(server, "mallory", thief)).await, 401);
    }
    disk.fill();
    run_cli(folder, &["apitoken", "edit", token_id(&tokens.carol), "--protocol", "sftp"]);
    assert_eq!(status(&dav(server, "carol", &tokens.carol)).await, 401, "narrowed");
    disk.fill();
    run_cli(folder, &["admin", "user", "disable", "mallory"]);
    assert_eq!(status(&dav(server, "mallory", &tokens.mallory)).await, 401);
}

/// All else is refused, with the reason, and half done nowhere.
async fn assert_other_writes_are_refused(folder: &Path, server: &ServerProcess, tokens: &FullDiskTokens) {
    let (alice, rest) = (dav(server, "alice", &tokens.alice), RestClient::new(dav(server, "root", &tokens.admin)));
    assert!(!try_set_property(&alice, "/dav/filled", "more", 10).await);
    let refused = alice.send("LOCK", "/dav/locked", &[], LOCK_BODY).await;
    assert!(refused.status == 507 && refused.text().contains("state is full"), "{} {}", refused.status, refused.text());
    assert!(!folder.join("files/locked").exists());
    let tagged = alice.send("PUT", "/dav/tagged", &[("x-patgate-tags", "draft")], "x").await;
    assert_eq!((tagged.status, folder.join("files/tagged").exists()), (507, false));
    let rotate = format!("/api/v1/tokens/{}/rotate", token_id(&tokens.alice));
    let rotated = rest.send("POST", &rotate, serde_json::json!({})).await;
    assert_eq!(rotated.status, 507, "{}", rotated.text());
    assert_eq!((status(&alice).await, alice.put("/dav/plain", "x").await.status), (207, 201));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: cargo test --test resilience -- --ignored"]
async fn tokens_can_be_revoked_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = disk.0.path().to_owned();
    let mut server = ServerProcess::start(&folder);
    let tokens = FullDiskTokens::create(&disk);
    let full_ballast = disk.ballast_bytes();
    assert!(full_ballast >= 1 << 20, "{full_ballast}");
    assert_eq!(readiness(&server).await.0, 200);

    disk.fill();
    fill_store(&dav(&server, "mallory", &tokens.mallory)).await;
    assert_eq!(disk.ballast_bytes(), full_ballast, "nobody but revocations gets it");
    // It looks once a second at most.
    wait_until("readyz says that the disk is full", async || {
        let (answer, why) = readiness(&server).await;
        answer == 503 && why.contains("full")
    })
    .await;
    assert!(run_doctor(&folder).contains("is full"), "{}", run_doctor(&folder));
    revoke_disable_and_narrow(&disk, &server, &tokens).await;
    let remaining_ballast = disk.ballast_bytes();
    assert!(remaining_ballast < full_ballast, "it was needed: {remaining_ballast} of {full_ballast}");
    disk.fill();
    assert_other_writes_are_refused(&folder, &server, &tokens).await;
    assert_eq!(disk.ballast_bytes(), remaining_ballast, "what is left of it stays");

    // A restart changes none of it.
    server.stop();
    disk.fill();
    server = ServerProcess::start(&folder);
    assert_eq!(status(&dav(&server, "alice", &tokens.alice)).await, 207);
    for (login, dead) in tokens.revoked_or_disabled() {
        assert_eq!(status(&dav(&server, login, dead)).await, 401);
    }
    disk.fill();
    run_cli(&folder, &["apitoken", "revoke", token_id(&tokens.alice)]);
    assert_eq!(status(&dav(&server, "alice", &tokens.alice)).await, 401);

    // With room it comes back by itself.
    fs::remove_file(disk.filler_path()).expect("removed");
    let ready_again = async {
        while readiness(&server).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ready_again).await.expect("ready again");
    assert_eq!(disk.ballast_bytes(), full_ballast);
    assert!(disk.free_bytes() > 0);
    let alice = disk.token("alice", &[]);
    assert!(try_set_property(&dav(&server, "alice", &alice), "/dav/filled", "more", 10).await);
    let events = run_cli(&folder, &["audit", "--event", "token.revoked", "--json"]);
    for dead in &tokens.mallorys_tokens {
        assert!(events.contains(token_id(dead)), "the trail tells of each");
    }
    server.stop();
}
