//! kill -9 at a bad moment: the old content stands, and a restart leaves no debris.

use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::server::{Server, run};
use crate::support::{Dav, Sftp};

fn staged(folder: &Path) -> usize {
    let staging = folder.join("files/.patgate");
    if staging.exists() { std::fs::read_dir(staging).expect("a folder").count() } else { 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_uploads_leaves_the_old_content_and_no_debris() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("files")).expect("a folder");
    let server = Server::start(folder);
    run(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = run(folder, &["admin", "user", "token", "-u", "alice", "-e", "1h", "-q"]);
    let dav = Dav::new(server.http, "alice", &token);
    for name in ["over-webdav", "over-sftp"] {
        assert_eq!(dav.put(&format!("/dav/{name}"), "old content").await.status, 201);
    }

    let mut sftp = Sftp::connect(server.sftp, "alice", &token).await.expect("logged in");
    let handle = sftp.open_file(b"/over-sftp", 2 | 8 | 16).await.expect("opened");
    sftp.write_at(&handle, 0, &[b'n'; 30_000]).await.expect("written");
    let mut stream = TcpStream::connect(server.http).await.expect("connected");
    let head = format!(
        "PUT /dav/over-webdav HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-length: 9000000\r\n\r\n",
        server.http,
        dav.authorization()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&vec![b'n'; 4_000_000]).await.expect("sent");
    while staged(folder) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.kill();
    for name in ["over-webdav", "over-sftp"] {
        assert_eq!(std::fs::read(folder.join("files").join(name)).expect("there"), b"old content");
    }

    let server = Server::start(folder);
    assert_eq!(staged(folder), 0, "a restart sweeps what was staged");
    let dav = Dav::new(server.http, "alice", &token);
    assert_eq!(dav.get("/dav/over-webdav").await.text(), "old content");
    assert_eq!(dav.put("/dav/over-webdav", "new content").await.status, 204);
    server.kill();
    assert_eq!(std::fs::read(folder.join("files/over-webdav")).expect("there"), b"new content");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_properties_and_tokens_outlive_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("files")).expect("a folder");
    let server = Server::start(folder);
    run(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = run(folder, &["admin", "user", "token", "-u", "alice", "-e", "1h", "-q"]);
    let dead = run(folder, &["admin", "user", "token", "-u", "alice", "-e", "1h", "-q"]);
    let dav = Dav::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/file", "content").await.status, 201);
    let lock = dav.send("LOCK", "/dav/file", &[("depth", "0"), ("timeout", "Second-600")], LOCK).await;
    assert_eq!(lock.status, 200, "{}", lock.text());
    let held = lock.header("lock-token").to_owned();
    let condition = format!("({held})");
    let patched = dav.send("PROPPATCH", "/dav/file", &[("if", &condition)], PROPPATCH).await;
    assert_eq!(patched.status, 207, "{}", patched.text());
    run(folder, &["apitoken", "revoke", crate::support::id_of(&dead)]);
    server.kill();

    let server = Server::start(folder);
    let dav = Dav::new(server.http, "alice", &token);
    assert_eq!(Dav::new(server.http, "alice", &dead).status("PROPFIND", "/dav/").await, 401);
    assert_eq!(dav.put("/dav/file", "unlocked").await.status, 423);
    let seen = dav.send("PROPFIND", "/dav/file", &[("depth", "0")], "").await.text();
    assert!(seen.contains(">red<"), "{seen}");
    assert_eq!(dav.send("UNLOCK", "/dav/file", &[("lock-token", &held)], "").await.status, 204);
    assert_eq!(dav.put("/dav/file", "unlocked").await.status, 204);
    server.kill();
}

const LOCK: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;
const PROPPATCH: &str =
    r#"<propertyupdate xmlns="DAV:"><set><prop><c xmlns="urn:x">red</c></prop></set></propertyupdate>"#;
