//! Unfinished HTTP uploads survive a kill or a restart of the server: with the bytes that were acknowledged, for the
//! token that created them, and within the same limits. What happens without a restart is in `partial_uploads.rs`, SFTP
//! uploads are in `sftp_resume.rs`.

use std::path::Path;
use std::time::Duration;

use patgate::auth::Clock;
use patgate::domain::UploadSpace;
use sha1::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::{ServerProcess, create_token, run_cli, staged_entries};
use crate::support::{DavClient, Fixture, LOCK_BODY, token_id};

const CHUNKED_UPLOAD_PATH: &str = "/remote.php/dav/uploads/alice/up";
const MIB: usize = 1 << 20;

/// Returns content for an upload in which no two blocks are equal.
fn patterned_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect()
}

fn checksum_of(content: &[u8]) -> String {
    let digits: String = sha1::Sha1::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("SHA1:{digits}")
}

/// A folder that is served, with alice, who may do all in it, and her token.
fn start_server() -> (tempfile::TempDir, ServerProcess, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let server = ServerProcess::start(folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder.path(), "alice");
    (folder, server, token)
}

async fn append_upload(dav: &DavClient, upload: &str, offset: usize, complete: &str, content: &[u8]) -> u16 {
    let offset = offset.to_string();
    let headers =
        [("content-type", "application/partial-upload"), ("upload-offset", &*offset), ("upload-complete", complete)];
    dav.send("PATCH", upload, &headers, content.to_vec()).await.status
}

async fn upload_offset(dav: &DavClient, upload: &str) -> usize {
    let head = dav.send("HEAD", upload, &[], "").await;
    assert_eq!(head.status, 204, "it is there");
    head.header("upload-offset").parse().expect("a number")
}

/// Sends the head and a part of a request's body, and leaves it open.
async fn send_partial_request(
    dav: &DavClient,
    server: &ServerProcess,
    request: &str,
    length: usize,
    body: &[u8],
) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).await.expect("connected");
    let head = format!(
        "{request}\r\nhost: {}\r\nauthorization: {}\r\ncontent-length: {length}\r\n\r\n",
        server.http,
        dav.authorization()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    stream
}

/// Waits until a file in staging is so long.
async fn wait_for_staged_length(root: &Path, length: usize) {
    let long = |path: &std::path::PathBuf| path.metadata().is_ok_and(|file| file.len() >= length as u64);
    while !staged_entries(root).iter().any(long) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_resumes_after_a_kill() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let (content, dav) = (patterned_bytes(24 * MIB), DavClient::new(server.http, "alice", &token));
    let (length, sum) = (content.len().to_string(), checksum_of(&content));
    let upload_headers = [
        ("upload-complete", "?0"),
        ("upload-length", &*length),
        ("oc-checksum", &*sum),
        ("x-oc-mtime", "981173106"),
        ("if-none-match", "*"),
        ("x-patgate-tags", "kept"),
    ];
    let created = dav.send("POST", "/dav/a", &upload_headers, content[..MIB].to_vec()).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let upload = created.header("location").to_owned();
    assert_eq!(append_upload(&dav, &upload, MIB, "?0", &content[MIB..2 * MIB]).await, 204);

    let request = format!(
        "PATCH {upload} HTTP/1.1\r\nupload-offset: {}\r\nupload-complete: ?1\r\n\
         content-type: application/partial-upload",
        2 * MIB
    );
    let stream = send_partial_request(&dav, &server, &request, 22 * MIB, &content[2 * MIB..23 * MIB]).await;
    wait_for_staged_length(&root, 23 * MIB - 600 * 1024).await;
    // A file that nobody waits for is debris; what was begun and acknowledged is not.
    let debris = send_partial_request(&dav, &server, "PUT /dav/b HTTP/1.1", 9 * MIB, &content[..4 * MIB]).await;
    while staged_entries(&root).len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    drop((stream, debris));

    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(staged_entries(&root).len(), 1, "debris is swept, what waits is kept");
    assert_eq!(dav.get("/dav/a").await.status, 404, "nothing of it is to be seen");
    assert!(!dav.send("PROPFIND", "/dav/", &[("depth", "1")], "").await.text().contains(".patgate"));
    let at = upload_offset(&dav, &upload).await;
    assert!((18 * MIB..23 * MIB).contains(&at), "a long request is written down now and then: {at}");
    let staged_length = staged_entries(&root)[0].metadata().expect("a file").len();
    assert_eq!(staged_length, at as u64, "no more is held than is counted");
    let length = dav.send("HEAD", &upload, &[], "").await.header("upload-length").to_owned();
    assert_eq!(length, content.len().to_string());
    server.kill();

    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(upload_offset(&dav, &upload).await, at, "what was acknowledged stays so");
    assert_eq!(append_upload(&dav, &upload, at, "?1", &content[at..]).await, 201);
    let get = dav.get("/dav/a").await;
    assert!(get.body == content);
    assert_eq!(get.header("oc-checksum"), sum);
    assert_eq!(get.header("last-modified"), "Sat, 03 Feb 2001 04:05:06 GMT");
    let body = "<propfind xmlns=\"DAV:\"><prop><t:tags xmlns:t=\"urn:patgate\"/></prop></propfind>";
    assert!(dav.send("PROPFIND", "/dav/a", &[("depth", "0")], body).await.text().contains("kept"));
    assert_eq!(dav.send("HEAD", &upload, &[], "").await.status, 404, "it is over");
    assert!(staged_entries(&root).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_checksums_of_an_upload_survive_a_restart() {
    let (folder, server, token) = start_server();
    let dav = DavClient::new(server.http, "alice", &token);
    let sum = checksum_of(b"abc");
    let mut uploads = Vec::new();
    for (path, header) in [("/dav/a", ("if-none-match", "*")), ("/dav/b", ("oc-checksum", &*sum))] {
        let created = dav.send("PUT", path, &[("upload-complete", "?0"), header], "ab").await;
        assert_eq!(created.status, 201);
        uploads.push(created.header("location").to_owned());
    }
    server.kill();
    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/a", "other").await.status, 201);
    assert_eq!(append_upload(&dav, &uploads[0], 2, "?1", b"c").await, 412);
    assert_eq!(
        append_upload(&dav, &uploads[1], 2, "?1", b"d").await,
        400,
        "all of it is hashed, not what came last alone"
    );
    assert_eq!((dav.get("/dav/a").await.text().as_str(), dav.get("/dav/b").await.status), ("other", 404));
    for upload in &uploads {
        assert_eq!(
            (upload_offset(&dav, upload).await, dav.status("DELETE", upload).await),
            (3, 204),
            "what was refused stays"
        );
    }
    assert!(staged_entries(&folder.path().join("files")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_chunks_survive_a_kill() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let (content, dav) = (patterned_bytes(5 * MIB), DavClient::new(server.http, "alice", &token));
    assert_eq!(dav.status("MKCOL", CHUNKED_UPLOAD_PATH).await, 201);
    for (name, part) in [("10", &b"later"[..]), ("2", &content[2 * MIB..4 * MIB]), ("1", &content[..2 * MIB])] {
        assert_eq!(dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/{name}"), &[], part.to_vec()).await.status, 201);
    }
    assert_eq!(
        dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/10"), &[], content[4 * MIB..].to_vec()).await.status,
        204
    );
    assert_eq!(dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/11"), &[], "not wanted").await.status, 201);
    assert_eq!(dav.status("DELETE", &format!("{CHUNKED_UPLOAD_PATH}/11")).await, 204);
    let stream = send_partial_request(
        &dav,
        &server,
        &format!("PUT {CHUNKED_UPLOAD_PATH}/2 HTTP/1.1"),
        4 * MIB,
        &content[..3 * MIB],
    )
    .await;
    while staged_entries(&root).len() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    drop(stream);

    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(staged_entries(&root).len(), 3, "a part that was cut is debris");
    let listed = dav.send("PROPFIND", CHUNKED_UPLOAD_PATH, &[("depth", "1")], "").await.text();
    let count = |size: usize| listed.matches(&format!("getcontentlength>{size}<")).count();
    assert_eq!((count(2 * MIB), count(MIB)), (2, 1), "{listed}");
    assert_eq!(dav.status("MKCOL", CHUNKED_UPLOAD_PATH).await, 405, "its name is taken");
    let (to, sum) = (dav.url("/remote.php/dav/files/alice/a"), checksum_of(&content));
    let length = content.len().to_string();
    let headers = [("destination", &*to), ("oc-total-length", &*length), ("oc-checksum", &*sum)];
    assert_eq!(dav.send("MOVE", &format!("{CHUNKED_UPLOAD_PATH}/.file"), &headers, "").await.status, 201);
    let get = dav.get("/dav/a").await;
    assert!(get.body == content);
    assert_eq!(get.header("oc-checksum"), sum);
    assert!(staged_entries(&root).is_empty());
    server.kill();
    let _server = ServerProcess::start(folder.path());
    assert!(staged_entries(&root).is_empty(), "what is complete is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_interrupted_by_shutdown_can_be_resumed() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let (content, dav) = (patterned_bytes(3 * MIB), DavClient::new(server.http, "alice", &token));
    let created = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "").await;
    let upload = created.header("location").to_owned();
    let request = format!(
        "PATCH {upload} HTTP/1.1\r\nupload-offset: 0\r\nupload-complete: ?1\r\n\
         content-type: application/partial-upload"
    );
    let stream = send_partial_request(&dav, &server, &request, 9 * MIB, &content).await;
    wait_for_staged_length(&root, 2 * MIB).await;
    drop(stream);
    let at = upload_offset(&dav, &upload).await;
    assert!(at >= 2 * MIB, "{at}");
    server.stop();
    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(upload_offset(&dav, &upload).await, at);
    assert_eq!(append_upload(&dav, &upload, at, "?1", &content[at..]).await, 201);
    assert!(dav.get("/dav/a").await.body == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_a_revoked_token_are_deleted_at_start() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let child = create_token(folder.path(), "alice");
    run_cli(folder.path(), &["admin", "user", "create", "bob", "--no-home", "--grant", "/:rw"]);
    let bob = create_token(folder.path(), "bob");
    let mut upload_urls = String::new();
    for (login, token) in [("alice", &token), ("alice", &child), ("bob", &bob)] {
        let dav = DavClient::new(server.http, login, token);
        let upload_url = format!("/remote.php/dav/uploads/{login}/up");
        assert_eq!(dav.status("MKCOL", &upload_url).await, 201);
        assert_eq!(dav.put(&format!("{upload_url}/1"), "x").await.status, 201);
        let created = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "x").await;
        assert_eq!(created.status, 201);
        upload_urls = if token == &child { created.header("location").to_owned() } else { upload_urls };
    }
    assert_eq!(staged_entries(&root).len(), 6);
    server.kill();
    run_cli(folder.path(), &["apitoken", "revoke", token_id(&token)]);
    run_cli(folder.path(), &["admin", "user", "delete", "bob"]);
    let server = ServerProcess::start(folder.path());
    assert_eq!(staged_entries(&root).len(), 2, "those of the token that lives");
    let dav = DavClient::new(server.http, "alice", &child);
    assert_eq!(upload_offset(&dav, &upload_urls).await, 1);
    run_cli(folder.path(), &["admin", "user", "delete", "alice"]);
    run_cli(folder.path(), &["admin", "user", "create", "carol", "--no-home", "--grant", "/:rw"]);
    let carol = create_token(folder.path(), "carol");
    let dav = DavClient::new(server.http, "carol", &carol);
    assert_eq!(dav.status("MKCOL", "/remote.php/dav/uploads/carol/up").await, 201);
    assert!(staged_entries(&root).is_empty(), "they are swept whenever another begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_uploads_are_deleted_at_start() {
    let mut gateway = Fixture::start_with(Clock::manual(Clock::system().now()), |_| {}).await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "30d"]);
    let begin = async |gateway: &Fixture, name: &str| {
        let dav = gateway.dav("alice", &token);
        assert_eq!(dav.status("MKCOL", &format!("/remote.php/dav/uploads/alice/{name}")).await, 201);
        assert_eq!(dav.put(&format!("/remote.php/dav/uploads/alice/{name}/1"), "x").await.status, 201);
        let created = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "x").await;
        created.header("location").to_owned()
    };
    let old = begin(&gateway, "old").await;
    gateway.clock.advance(Duration::from_secs(20 * 3600));
    let new = begin(&gateway, "new").await;
    gateway.stop().await;
    assert_eq!(staged_entries(&gateway.root()).len(), 4, "a stop leaves them");
    gateway.clock.advance(Duration::from_secs(5 * 3600));
    gateway.restart().await;
    assert_eq!(staged_entries(&gateway.root()).len(), 2);
    let dav = gateway.dav("alice", &token);
    assert_eq!((dav.status("HEAD", &old).await, dav.status("HEAD", &new).await), (404, 204));
    let upload_url = |name: &str| format!("/remote.php/dav/uploads/alice/{name}");
    assert_eq!(
        (dav.status("PROPFIND", &upload_url("old")).await, dav.status("PROPFIND", &upload_url("new")).await),
        (404, 207)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_count_limits_hold_after_a_restart() {
    let mut gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let dav = gateway.dav("alice", &token);
    for number in 0..64 {
        assert_eq!(dav.status("MKCOL", &format!("/remote.php/dav/uploads/alice/{number}")).await, 201);
    }
    gateway.restart().await;
    let dav = gateway.dav("alice", &token);
    assert_eq!(dav.status("MKCOL", CHUNKED_UPLOAD_PATH).await, 507);
    assert_eq!(dav.status("DELETE", "/remote.php/dav/uploads/alice/7").await, 204);
    assert_eq!(dav.status("MKCOL", CHUNKED_UPLOAD_PATH).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_upload_space_is_limited_in_total() {
    let most = |settings: &mut patgate::gateway::GatewaySettings| {
        settings.webdav_options.upload_space.total = UploadSpace::Bytes(1_000_000);
    };
    let gateway = Fixture::start_with(Clock::system(), most).await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.create_user("bob", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    let bytes = |count: usize| vec![b'x'; count];

    let announced = dav.send("MKCOL", CHUNKED_UPLOAD_PATH, &[("oc-total-length", "1000001")], "").await;
    assert_eq!(announced.status, 507);
    assert!(announced.text().contains("space for unfinished uploads is used up"), "{}", announced.text());
    let long = [("upload-complete", "?0"), ("upload-length", "1000001")];
    assert_eq!(dav.send("PUT", "/dav/a", &long, "x").await.status, 507);
    assert_eq!(dav.send("PUT", "/dav/a", &long[..1], bytes(1_000_001)).await.status, 507);
    assert!(staged_entries(&gateway.root()).is_empty(), "refused before anything was done");

    assert_eq!(dav.send("MKCOL", CHUNKED_UPLOAD_PATH, &[("oc-total-length", "1000000")], "").await.status, 201);
    assert_eq!(dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/1"), &[], bytes(600_000)).await.status, 201);
    assert_eq!(bob.send("PUT", "/dav/b", &long[..1], bytes(400_001)).await.status, 507);
    let created = bob.send("PUT", "/dav/b", &long[..1], bytes(300_000)).await;
    assert_eq!(created.status, 201);
    let upload = created.header("location");
    assert_eq!(append_upload(&bob, upload, 300_000, "?0", &bytes(100_001)).await, 507);
    assert_eq!(upload_offset(&bob, upload).await, 300_000, "nothing of what was refused");
    assert_eq!(dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/2"), &[], bytes(100_001)).await.status, 507);
    assert_eq!(dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/2"), &[], bytes(100_000)).await.status, 201);
    assert_eq!(append_upload(&bob, upload, 300_000, "?0", b"x").await, 507, "all is taken");
    assert_eq!(dav.put("/dav/c", bytes(2_000_000)).await.status, 201, "what is complete is none of them");
    assert_eq!(dav.status("DELETE", &format!("{CHUNKED_UPLOAD_PATH}/1")).await, 204);
    assert_eq!(append_upload(&bob, upload, 300_000, "?1", &bytes(600_000)).await, 201);
    assert_eq!(
        dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/1"), &[], bytes(900_000)).await.status,
        201,
        "and what was is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_lost_in_a_power_failure_are_not_reported_as_received() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let dav = DavClient::new(server.http, "alice", &token);
    let content = patterned_bytes(1000);
    let upload = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], content.clone()).await;
    let upload = upload.header("location").to_owned();
    assert_eq!(dav.status("MKCOL", CHUNKED_UPLOAD_PATH).await, 201);
    for (name, length) in [("1", 2000), ("2", 3000), ("3", 4000)] {
        assert_eq!(
            dav.send("PUT", &format!("{CHUNKED_UPLOAD_PATH}/{name}"), &[], patterned_bytes(length)).await.status,
            201
        );
    }
    server.kill();
    for path in staged_entries(&root) {
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
        match file.metadata().expect("there").len() {
            1000 => file.set_len(600).expect("cut"),
            2000 => file.set_len(1500).expect("cut"),
            3000 => std::fs::remove_file(&path).expect("removed"),
            _ => {}
        }
    }
    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    let listed = dav.send("PROPFIND", CHUNKED_UPLOAD_PATH, &[("depth", "1")], "").await.text();
    assert_eq!((listed.matches("<D:getcontentlength>").count(), listed.contains(">4000<")), (1, true), "{listed}");
    assert_eq!(staged_entries(&root).len(), 2, "a part that is not whole is debris");
    assert_eq!(upload_offset(&dav, &upload).await, 600);
    assert_eq!(append_upload(&dav, &upload, 600, "?1", &content[600..]).await, 201);
    assert!(dav.get("/dav/a").await.body == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_that_fails_to_commit_is_kept_for_retry() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "--mime", "image/png"]));
    let created = dav.send("PUT", "/dav/a.png", &[("upload-complete", "?0")], "no picture at all").await;
    let upload = created.header("location");
    for _ in 0..2 {
        assert_eq!(append_upload(&dav, upload, 17, "?1", b"").await, 415);
        assert_eq!(upload_offset(&dav, upload).await, 17);
    }
    assert_eq!((dav.status("DELETE", upload).await, dav.get("/dav/a.png").await.status), (204, 404));
    assert!(staged_entries(&gateway.root()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_upload_data_uses_no_space() {
    let most = |settings: &mut patgate::gateway::GatewaySettings| {
        settings.webdav_options.upload_space.total = UploadSpace::Bytes(1_000_000);
    };
    let gateway = Fixture::start_with(Clock::system(), most).await;
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let created = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "abc").await;
    let headers = [
        ("content-type", "application/partial-upload"),
        ("upload-offset", "3"),
        ("upload-complete", "?0"),
        ("content-digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"),
    ];
    let refused = dav.send("PATCH", created.header("location"), &headers, vec![b'x'; 900_000]).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let staged_bytes: u64 =
        staged_entries(&gateway.root()).iter().map(|path| path.metadata().expect("a file").len()).sum();
    assert_eq!(staged_bytes, 3, "no more is held than is counted");
    assert_eq!(upload_offset(&dav, created.header("location")).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_staged_upload_does_not_lose_other_uploads() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let dav = DavClient::new(server.http, "alice", &token);
    let mut uploads = Vec::new();
    for (path, body) in [("/dav/a", "a"), ("/dav/b", "bb")] {
        let created = dav.send("PUT", path, &[("upload-complete", "?0")], body).await;
        uploads.push(created.header("location").to_owned());
    }
    server.kill();
    let broken =
        staged_entries(&root).into_iter().find(|path| path.metadata().expect("there").len() == 1).expect("the first");
    std::fs::remove_file(&broken).expect("removed");
    std::fs::create_dir(&broken).expect("made");
    std::fs::write(broken.join("within"), "x").expect("written");
    let server = ServerProcess::start(folder.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.status("HEAD", &uploads[0]).await, 404);
    assert_eq!(upload_offset(&dav, &uploads[1]).await, 2);
    assert_eq!(append_upload(&dav, &uploads[1], 2, "?1", b"b").await, 201);
    server.kill();
    let _server = ServerProcess::start(folder.path());
    assert!(staged_entries(&root).is_empty(), "what can't be opened is debris");
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_set_by_a_killed_commit_is_reverted() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let dav = DavClient::new(server.http, "alice", &token);
    let created = dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "abc").await;
    server.kill();
    let waits = staged_entries(&root).remove(0);
    std::fs::set_permissions(&waits, std::fs::Permissions::from_mode(0o044)).expect("set");
    let server = ServerProcess::start(folder.path());
    let mode = waits.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "the server can go on with it, whoever it runs as");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(append_upload(&dav, created.header("location"), 3, "?1", b"d").await, 201);
}

/// Tells whether any file below a directory contains these bytes.
fn any_file_contains(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        match path.symlink_metadata().expect("there") {
            there if there.is_dir() => any_file_contains(&path, bytes),
            there if there.is_file() => std::fs::read(&path).expect("read").windows(bytes.len()).any(|at| at == bytes),
            _ => false,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_upload_request_contains_no_secret() {
    let (folder, server, token) = start_server();
    let dav = DavClient::new(server.http, "alice", &token);
    let plain = server.http.to_string();
    let targets = [
        (format!("http://alice:{token}@{plain}/dav/marked-path"), plain.clone(), 400),
        ("/dav/marked-path".to_owned(), format!("alice:{token}@{plain}"), 400),
        (format!("/dav/marked-path?token={token}"), plain, 201),
    ];
    for (target, host, status) in targets {
        let mut stream = TcpStream::connect(server.http).await.expect("connected");
        let head = format!(
            "PUT {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\nupload-complete: ?0\r\n\
             content-length: 1\r\nconnection: close\r\n\r\nx",
            dav.authorization()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    server.kill();
    assert!(any_file_contains(folder.path(), b"marked-path"), "the request is written down");
    assert!(!any_file_contains(folder.path(), token.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_token_of_the_first_request_is_valid_until_completion() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.write_host_file("/a", "old");
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let lock = dav.send("LOCK", "/dav/a", &[], LOCK_BODY).await;
    assert_eq!(dav.send("PUT", "/dav/a", &[("upload-complete", "?0")], "n").await.status, 423);
    let lock_headers = [("upload-complete", "?0"), ("lock-token", lock.header("lock-token"))];
    let created = dav.send("PUT", "/dav/a", &lock_headers, "n").await;
    assert_eq!(created.status, 201);
    assert_eq!(append_upload(&dav, created.header("location"), 1, "?0", b"e").await, 204);
    assert_eq!(append_upload(&dav, created.header("location"), 2, "?1", b"w").await, 204);
    assert_eq!(dav.get("/dav/a").await.text(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_upload_length_counts_as_used_space() {
    let (folder, server, token) = start_server();
    let root = folder.path().join("files");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.status("MKCOL", CHUNKED_UPLOAD_PATH).await, 201);
    let space = rustix::fs::statvfs(&root).expect("asked");
    let percent = |percent: u64| space.f_bavail * space.f_frsize / 100 * percent;
    let length = usize::try_from(percent(20)).expect("a length");
    let _open =
        send_partial_request(&dav, &server, &format!("PUT {CHUNKED_UPLOAD_PATH}/1 HTTP/1.1"), length, b"x").await;
    while staged_entries(&root).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let announced = async |more: u64| {
        let length = percent(more).to_string();
        dav.send("MKCOL", &format!("{CHUNKED_UPLOAD_PATH}{more}"), &[("oc-total-length", &*length)], "").await.status
    };
    assert_eq!(announced(10).await, 507, "a quarter of what is free is the most of one user");
    assert_eq!(announced(2).await, 201);
}

/// A body that goes on for ever after its first bytes.
struct EndlessBody(Option<&'static [u8]>);

impl hyper::body::Body for EndlessBody {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>>> {
        let first = self.0.take().map(|first| Some(Ok(hyper::body::Frame::data(bytes::Bytes::from_static(first)))));
        first.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_first_request_leaves_no_upload() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let request = client.put(dav.url("/dav/a")).header("authorization", dav.authorization());
    let request = request.header("upload-complete", "?0").body(reqwest::Body::wrap(EndlessBody(Some(b"abc"))));
    let sending = tokio::spawn(request.send());
    while staged_entries(&gateway.root()).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sending.abort();
    let upload_deleted = async {
        while !staged_entries(&gateway.root()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), upload_deleted).await.expect("nobody knows it, so it ends");
}
