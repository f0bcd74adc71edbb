//! Limits on open files: a user at the limit affects no other user, and a process without free descriptors still
//! revokes tokens and recovers.

use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, SftpClient, SftpError, token_id};

const READ: u32 = 1;
const REPLACE: u32 = 2 | 8 | 16;
const FAILURE: u32 = 4;
/// Limit on the open files of the server.
const OPEN_FILE_LIMIT: usize = 512;

struct OpenFileLimitFixture {
    folder: TempDir,
    server: ServerProcess,
}

impl OpenFileLimitFixture {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        std::fs::write(folder.path().join("files/f"), vec![b'x'; 8 << 20]).expect("a file");
        let mut command = std::process::Command::new("/bin/sh");
        let limited = format!("ulimit -n {OPEN_FILE_LIMIT} && exec \"$@\"");
        command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_patgate")]);
        command.env("PATGATE_STATE", folder.path().join("state"));
        let server = ServerProcess::start_with_command(command, folder.path());
        for login in ["alice", "bob"] {
            run_cli(folder.path(), &["admin", "user", "create", login, "--no-home", "--grant", "/:rw"]);
        }
        Self { folder, server }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn token(&self, login: &str) -> String {
        create_token(self.path(), login)
    }

    async fn sftp(&self, login: &str, token: &str) -> SftpClient {
        SftpClient::connect(self.server.sftp, login, token).await.expect("the login is accepted")
    }

    fn dav(&self, login: &str, token: &str) -> DavClient {
        DavClient::new(self.server.http, login, token)
    }
}

/// Opens a file until that is refused; returns the handles and how it was refused.
async fn open_until_refused(sftp: &mut SftpClient, path: &str, flags: u32) -> (Vec<Vec<u8>>, SftpError) {
    let mut open = Vec::new();
    loop {
        match sftp.open_file(path.as_bytes(), flags).await {
            Ok(handle) => open.push(handle),
            Err(error) => return (open, error),
        }
        assert!(open.len() < OPEN_FILE_LIMIT, "no bound below the limit of the process");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_at_the_open_file_limit_blocks_nobody_else() {
    let fixture = OpenFileLimitFixture::start();
    let token = fixture.token("alice");
    let (mut first, mut second) = (fixture.sftp("alice", &token).await, fixture.sftp("alice", &token).await);
    let (mut open, refused) = open_until_refused(&mut first, "/f", READ).await;
    assert!(open.len() > 2, "{}", open.len());
    assert!(
        matches!(&refused, SftpError::Status(FAILURE, text) if text.contains("too many open files")),
        "{refused:?}"
    );
    let (none, _) = open_until_refused(&mut second, "/f", READ).await;
    assert!(none.is_empty(), "the bound is of the user, not of a connection");
    assert_eq!(open_until_refused(&mut second, "/new", REPLACE).await.0.len(), 0, "uploads count too");
    assert!(second.list("/").await.is_err(), "and directories");
    let dav = fixture.dav("alice", &token);
    for (method, path) in [("GET", "/dav/f"), ("PUT", "/dav/new"), ("PROPFIND", "/dav/")] {
        let answer = dav.send(method, path, &[("Depth", "1")], "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{method}: {answer:?}");
    }
    assert!(!fixture.path().join("files/new").exists(), "a refusal makes nothing");
    assert!(
        fixture.server.open_descriptor_count() + 64 <= OPEN_FILE_LIMIT,
        "{} are open",
        fixture.server.open_descriptor_count()
    );

    // Another user logs in, transfers, and revokes: his own token by REST, hers on the command line.
    let bob_token = fixture.token("bob");
    let mut bob = fixture.sftp("bob", &bob_token).await;
    bob.put("/bobs", b"by SFTP").await.expect("put");
    assert_eq!(bob.get("/bobs").await, Ok(b"by SFTP".to_vec()));
    let dav = fixture.dav("bob", &bob_token);
    assert_eq!(dav.send("PUT", "/dav/bobs", &[], "by WebDAV").await.status, 204);
    assert_eq!(dav.send("GET", "/dav/bobs", &[], "").await.body, b"by WebDAV");
    let revoked = dav.send("DELETE", &format!("/api/v1/tokens/{}", token_id(&bob_token)), &[], "").await;
    assert!(revoked.status < 300, "{revoked:?}");
    assert_eq!(dav.send("GET", "/dav/bobs", &[], "").await.status, 401);

    // Closing a file frees its place, and so does losing the connection.
    first.close(&open.pop().expect("open")).await.expect("closed");
    let reopened = second.open_file(b"/f", READ).await.expect("room again");
    second.close(&reopened).await.expect("closed");
    run_cli(fixture.path(), &["apitoken", "revoke", token_id(&token)]);
    while first.stat("/f").await.is_ok() {}
    let token = fixture.token("alice");
    let mut new_session = fixture.sftp("alice", &token).await;
    let fresh = async {
        while open_until_refused(&mut new_session, "/f", READ).await.0.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), fresh).await.expect("all of the old session is closed");
}

/// Sends HEAD on a connection that stays open; returns the response head.
async fn send_on_connection(connection: &mut TcpStream, method: &str, dav: &DavClient) -> String {
    let request =
        format!("{method} /dav/f HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", dav.authorization());
    connection.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.expect("an answer"));
    }
    String::from_utf8(head).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn process_out_of_descriptors_still_revokes_and_recovers() {
    let fixture = OpenFileLimitFixture::start();
    let token = fixture.token("alice");
    let mut alice = fixture.sftp("alice", &token).await;
    let dav = fixture.dav("alice", &token);
    let mut open_connection = tokio::net::TcpStream::connect(fixture.server.http).await.expect("connected");
    let first = send_on_connection(&mut open_connection, "OPTIONS", &dav).await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    fixture.server.limit_descriptors(1);
    let refused = alice.open_file(b"/f", READ).await.expect_err("no descriptor is left");
    assert!(
        matches!(&refused, SftpError::Status(FAILURE, text) if text.contains("too many open files")),
        "{refused:?}"
    );
    let answer = send_on_connection(&mut open_connection, "HEAD", &dav).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
    // The listener has a connection that it can't accept; meanwhile a revoked token ends its session.
    let waiting = TcpStream::connect(fixture.server.http).await.expect("queued by the system");
    run_cli(fixture.path(), &["apitoken", "revoke", token_id(&token)]);
    while alice.stat("/f").await.is_ok() {}
    fixture.server.limit_descriptors(OPEN_FILE_LIMIT);
    drop(waiting);
    assert_eq!(dav.send("GET", "/dav/f", &[], "").await.status, 401);
    let token = fixture.token("bob");
    assert_eq!(fixture.sftp("bob", &token).await.get("/f").await.map(|content| content.len()), Ok(8 << 20));
    assert_eq!(fixture.dav("bob", &token).send("HEAD", "/dav/f", &[], "").await.status, 200);
}
