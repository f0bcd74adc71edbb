//! A full disk below the state directory: what ends tokens and users is written down, and what else is refused is told.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mounts::until;
use crate::support::server::{Server, run};
use crate::support::{Dav, Rest, id_of, program};

/// Size of the file system of the state.
const DISK: &str = "size=24m";
const LOCK: &str = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";

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
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(disk.state()).output();
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

    fn filler(&self) -> PathBuf {
        self.state().join("filler")
    }

    /// Has another program take all that is free.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).expect("a file");
        for size in [1 << 20, 4096] {
            let block = vec![0x5a; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.state()).expect("there");
        disk.f_bavail * disk.f_frsize
    }

    fn ballast(&self) -> u64 {
        fs::metadata(self.state().join("patgate.ballast")).expect("there").len()
    }

    fn user(&self, login: &str, roles: &[&str]) {
        let folder = self.0.path();
        run(folder, &[&["admin", "user", "create", login, "--no-home", "--grant", "/:rw"], roles].concat());
    }

    fn token(&self, login: &str, roles: &[&str]) -> String {
        run(self.0.path(), &[&["admin", "user", "token", "-u", login, "-q", "-e", "1h"], roles].concat())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.state()).status();
    }
}

async fn status(dav: &Dav) -> u16 {
    dav.send("PROPFIND", "/dav/", &[("depth", "0")], "").await.status
}

/// Sets a property of so many bytes; tells whether it was kept, and else that it was refused as it should be.
async fn keeps_property(dav: &Dav, path: &str, name: &str, size: usize) -> bool {
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
async fn fill_store(dav: &Dav) {
    assert_eq!(dav.put("/dav/filled", "").await.status / 100, 2);
    let mut number = 0;
    for size in [60_000, 6_000, 600, 60] {
        let mut refused = 0;
        while refused < 3 {
            number += 1;
            let path = format!("/dav/filled{}", number % 50);
            assert_eq!(dav.put(&path, "").await.status / 100, 2, "content needs no room in the store");
            refused += usize::from(!keeps_property(dav, &path, &format!("p{number}"), size).await);
            assert!(number < 4000, "it never fills");
        }
    }
}

async fn ready(server: &Server) -> (u16, String) {
    let answer = Dav::new(server.http, "nobody", "nothing").send("GET", "/readyz", &[], "").await;
    (answer.status, answer.text())
}

fn doctor(folder: &Path) -> String {
    let output = program(&folder.join("state")).arg("doctor").output().expect("the program runs");
    String::from_utf8(output.stdout).expect("text")
}

/// The tokens of the test.
struct Tokens {
    admin: String,
    alice: String,
    mallory: String,
    carol: String,
    /// Others of mallory's.
    thieves: Vec<String>,
}

impl Tokens {
    fn make(disk: &SmallDisk) -> Self {
        disk.user("root", &["--role", "admin"]);
        ["alice", "mallory", "carol"].iter().for_each(|login| disk.user(login, &[]));
        let token = |login| disk.token(login, &[]);
        Self {
            admin: disk.token("root", &["--role", "admin"]),
            alice: token("alice"),
            mallory: token("mallory"),
            carol: token("carol"),
            thieves: (0..4).map(|_| token("mallory")).collect(),
        }
    }

    fn dead(&self) -> impl Iterator<Item = (&str, &String)> {
        let thieves = self.thieves.iter().map(|thief| ("mallory", thief));
        thieves.chain([("mallory", &self.mallory), ("carol", &self.carol)])
    }
}

fn dav(server: &Server, login: &str, token: &str) -> Dav {
    Dav::new(server.http, login, token)
}

/// Revokes over REST and on the state directory, disables a user, and narrows a token, each on a disk that is full.
async fn end_tokens(disk: &SmallDisk, server: &Server, tokens: &Tokens) {
    let (folder, rest) = (disk.0.path(), Rest::new(dav(server, "root", &tokens.admin)));
    for (number, thief) in tokens.thieves.iter().enumerate() {
        disk.fill();
        assert_eq!(status(&dav(server, "mallory", thief)).await, 207);
        if number < 2 {
            let path = format!("/api/v1/tokens/{}", id_of(thief));
            assert_eq!(rest.send("DELETE", &path, serde_json::Value::Null).await.status / 100, 2);
        } else {
            run(folder, &["apitoken", "revoke", id_of(thief)]);
        }
        assert_eq!(status(&dav(server, "mallory", thief)).await, 401);
    }
    disk.fill();
    run(folder, &["apitoken", "edit", id_of(&tokens.carol), "--protocol", "sftp"]);
    assert_eq!(status(&dav(server, "carol", &tokens.carol)).await, 401, "narrowed");
    disk.fill();
    run(folder, &["admin", "user", "disable", "mallory"]);
    assert_eq!(status(&dav(server, "mallory", &tokens.mallory)).await, 401);
}

/// All else is refused, with the reason, and half done nowhere.
async fn refuse_the_rest(folder: &Path, server: &Server, tokens: &Tokens) {
    let (alice, rest) = (dav(server, "alice", &tokens.alice), Rest::new(dav(server, "root", &tokens.admin)));
    assert!(!keeps_property(&alice, "/dav/filled", "more", 10).await);
    let refused = alice.send("LOCK", "/dav/locked", &[], LOCK).await;
    assert!(refused.status == 507 && refused.text().contains("state is full"), "{} {}", refused.status, refused.text());
    assert!(!folder.join("files/locked").exists());
    let tagged = alice.send("PUT", "/dav/tagged", &[("x-patgate-tags", "draft")], "x").await;
    assert_eq!((tagged.status, folder.join("files/tagged").exists()), (507, false));
    let rotate = format!("/api/v1/tokens/{}/rotate", id_of(&tokens.alice));
    let rotated = rest.send("POST", &rotate, serde_json::json!({})).await;
    assert_eq!(rotated.status, 507, "{}", rotated.text());
    assert_eq!((status(&alice).await, alice.put("/dav/plain", "x").await.status), (207, 201));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: cargo test --test resilience -- --ignored"]
async fn full_disk_makes_no_token_irrevocable() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = disk.0.path().to_owned();
    let mut server = Server::start(&folder);
    let tokens = Tokens::make(&disk);
    let whole = disk.ballast();
    assert!(whole >= 1 << 20, "{whole}");
    assert_eq!(ready(&server).await.0, 200);

    disk.fill();
    fill_store(&dav(&server, "mallory", &tokens.mallory)).await;
    assert_eq!(disk.ballast(), whole, "nobody but revocations gets it");
    // It looks once a second at most.
    until("readyz says that the disk is full", async || {
        let (answer, why) = ready(&server).await;
        answer == 503 && why.contains("full")
    })
    .await;
    assert!(doctor(&folder).contains("is full"), "{}", doctor(&folder));
    end_tokens(&disk, &server, &tokens).await;
    let left = disk.ballast();
    assert!(left < whole, "it was needed: {left} of {whole}");
    disk.fill();
    refuse_the_rest(&folder, &server, &tokens).await;
    assert_eq!(disk.ballast(), left, "what is left of it stays");

    // A restart changes none of it.
    server.stop();
    disk.fill();
    server = Server::start(&folder);
    assert_eq!(status(&dav(&server, "alice", &tokens.alice)).await, 207);
    for (login, dead) in tokens.dead() {
        assert_eq!(status(&dav(&server, login, dead)).await, 401);
    }
    disk.fill();
    run(&folder, &["apitoken", "revoke", id_of(&tokens.alice)]);
    assert_eq!(status(&dav(&server, "alice", &tokens.alice)).await, 401);

    // With room it comes back by itself.
    fs::remove_file(disk.filler()).expect("removed");
    let back = async {
        while ready(&server).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), back).await.expect("ready again");
    assert_eq!(disk.ballast(), whole);
    assert!(disk.free() > 0);
    let alice = disk.token("alice", &[]);
    assert!(keeps_property(&dav(&server, "alice", &alice), "/dav/filled", "more", 10).await);
    let events = run(&folder, &["audit", "--event", "token.revoked", "--json"]);
    for dead in &tokens.thieves {
        assert!(events.contains(id_of(dead)), "the trail tells of each");
    }
    server.stop();
}
