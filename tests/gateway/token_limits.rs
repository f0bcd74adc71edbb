//! Every limit of a token (media types, size, tags, protocol, address, user agent), over WebDAV and SFTP: what is
//! allowed, how the rest is refused, and that a refusal changes nothing. A parent's limits apply to its children at
//! once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{DavClient, Fixture, LOCK_BODY, SftpClient, SftpError, encode_string, send_raw, token_id};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";
const PAGE: &[u8] = b"<!DOCTYPE html><p>a page</p>";
/// One byte more than the limit on sizes that is tried here.
const OVERSIZED: &[u8] = &[b'x'; 65];
const MAX_SIZED: &[u8] = &[b'x'; 64];

/// An operation below `/box`.
#[derive(Clone, Copy, Debug)]
enum LimitedOperation {
    /// Replaces or makes a file.
    Put(&'static str, &'static [u8]),
    /// The same without an announced length.
    PutChunked(&'static str, &'static [u8]),
    /// The same, with the size set before any data is sent.
    PutExpectContinue(&'static str, u64),
    /// The same with tags.
    PutTagged(&'static str, &'static str),
    /// Makes an empty file, then writes it, as programs on a mounted folder do.
    CreateThenWrite(&'static str, &'static [u8]),
    /// Writes into a file that is there.
    WriteAt(&'static str, u64, &'static [u8]),
    Append(&'static str, &'static [u8]),
    /// Cuts or pads a file, by its path.
    Resize(&'static str, u64),
    /// The same by a handle.
    ResizeOpen(&'static str, u64),
    Copy(&'static str, &'static str),
    Rename(&'static str, &'static str),
    HardLink(&'static str, &'static str),
    Symlink(&'static str, &'static str),
    /// Labels a file that is there.
    SetTags(&'static str, &'static str),
    /// Locks a name that nothing has.
    LockUnmapped(&'static str),
    MakeDirectory(&'static str),
    Remove(&'static str),
    Read(&'static str),
}

use LimitedOperation::*;

/// A status of each protocol, where it has the act: HTTP's, and SFTP's with 0 for OK.
type ExpectedStatuses = (Option<u16>, Option<u32>);

const fn both(dav: u16, sftp: u32) -> ExpectedStatuses {
    (Some(dav), Some(sftp))
}

const fn dav(status: u16) -> ExpectedStatuses {
    (Some(status), None)
}

const fn sftp(status: u32) -> ExpectedStatuses {
    (None, Some(status))
}

const MIME_CASES: &[(LimitedOperation, ExpectedStatuses)] = &[
    (Put("new.png", PNG), both(201, 0)),
    (Put("new", PNG), both(201, 0)),
    (Put("new.png", b""), both(201, 0)),
    (Put("a.png", PNG), both(204, 0)),
    (Put("a.png", PAGE), both(415, 3)),
    (Put("new.png", PAGE), both(415, 3)),
    (Put("new.png", b"words"), both(415, 3)),
    (Put("new", b"words"), both(415, 3)),
    (Put("new.html", PNG), both(415, 3)),
    (Put("new.html", b""), both(415, 3)),
    (PutChunked("a.png", PAGE), dav(415)),
    (CreateThenWrite("new.png", PNG), both(204, 0)),
    (WriteAt("a.png", 20, b"more"), both(204, 0)),
    (WriteAt("a.png", 0, PAGE), both(415, 3)),
    (WriteAt("page.html", 0, PNG), both(415, 3)),
    (Append("a.png", b"more"), both(204, 0)),
    (Append("page.html", b"more"), both(415, 3)),
    (Resize("a.png", 100), sftp(0)),
    (Resize("a.png", 0), sftp(0)),
    (Resize("a.png", 3), sftp(3)),
    (Resize("page.html", 3), sftp(3)),
    (ResizeOpen("a.png", 100), sftp(0)),
    (ResizeOpen("a.png", 3), sftp(3)),
    (Copy("a.png", "c.png"), both(201, 0)),
    (Copy("a.png", "c.html"), both(415, 3)),
    (Copy("page.html", "c.png"), both(415, 3)),
    (Copy("sub", "copy"), dav(201)),
    (Copy("mixed", "copy"), dav(415)),
    (Rename("a.png", "b.png"), both(201, 0)),
    (Rename("a.png", "b.gif"), both(201, 0)),
    (Rename("a.png", "b.html"), both(415, 3)),
    (Rename("page.html", "b.png"), both(415, 3)),
    (Rename("page.html", "sub/page.html"), both(415, 3)),
    (Rename("sub", "other"), both(201, 0)),
    (Rename("mixed", "other"), both(415, 3)),
    (HardLink("a.png", "l.png"), sftp(0)),
    (HardLink("a.png", "l.html"), sftp(3)),
    (HardLink("page.html", "l.png"), sftp(3)),
    (Symlink("a.png", "l.png"), sftp(0)),
    (Symlink("a.png", "l.html"), sftp(3)),
    (LockUnmapped("new.png"), dav(201)),
    (LockUnmapped("new.html"), dav(415)),
    (MakeDirectory("folder"), both(201, 0)),
    (Remove("page.html"), both(204, 0)),
    (Read("page.html"), both(200, 0)),
];

const SIZE_CASES: &[(LimitedOperation, ExpectedStatuses)] = &[
    (Put("new", MAX_SIZED), both(201, 0)),
    (Put("new", OVERSIZED), both(413, 4)),
    (Put("small", MAX_SIZED), both(204, 0)),
    (Put("small", OVERSIZED), both(413, 4)),
    (PutChunked("small", MAX_SIZED), dav(204)),
    (PutChunked("small", OVERSIZED), dav(413)),
    (PutChunked("new", OVERSIZED), dav(413)),
    (PutExpectContinue("small", 65), both(413, 4)),
    (PutExpectContinue("new", 1 << 40), both(413, 4)),
    (CreateThenWrite("new", MAX_SIZED), both(204, 0)),
    (WriteAt("small", 60, b"1234"), sftp(0)),
    (WriteAt("small", 60, b"12345"), sftp(4)),
    (WriteAt("small", u64::MAX, b"1"), sftp(4)),
    (WriteAt("small", 10, b"1234"), both(204, 0)),
    (WriteAt("large", 0, b"1"), dav(413)),
    (Append("small", b"1234"), both(204, 0)),
    (Append("small", MAX_SIZED), both(413, 4)),
    (Append("large", b"1"), both(413, 4)),
    (Resize("small", 64), sftp(0)),
    (Resize("small", 65), sftp(4)),
    (Resize("large", 65), sftp(0)),
    (ResizeOpen("small", 64), sftp(0)),
    (ResizeOpen("small", 65), sftp(4)),
    (Copy("small", "copy"), both(201, 0)),
    (Copy("large", "copy"), both(413, 4)),
    (Copy("heavy", "copy"), dav(413)),
    (Rename("small", "other"), both(201, 0)),
    (Rename("large", "other"), both(413, 4)),
    (Rename("heavy", "other"), both(413, 4)),
    (Rename("sub", "other"), both(201, 0)),
    (HardLink("small", "link"), sftp(0)),
    (HardLink("large", "link"), sftp(4)),
    (Symlink("large", "link"), sftp(0)),
    (LockUnmapped("new"), dav(201)),
    (MakeDirectory("folder"), both(201, 0)),
    (Remove("large"), both(204, 0)),
    (Read("large"), both(200, 0)),
];

const TAG_CASES: &[(LimitedOperation, ExpectedStatuses)] = &[
    (Put("new", b"x"), both(201, 0)),
    (PutTagged("new", "a, b"), dav(201)),
    (PutTagged("small", "b"), dav(204)),
    (PutTagged("new", ""), dav(201)),
    (PutTagged("new", "c"), dav(403)),
    (PutTagged("small", "a,c"), dav(403)),
    (PutTagged("new", "a,,b"), dav(400)),
    (SetTags("small", "a"), dav(207)),
    (SetTags("small", ""), dav(207)),
    (SetTags("small", "c"), dav(403)),
    (SetTags("small", "a,,b"), dav(400)),
];

/// Puts `/box` back as it was.
fn reset_directory(gateway: &Fixture) {
    if gateway.host_path("/box").exists() {
        for entry in fs::read_dir(gateway.host_path("/box")).expect("a folder").flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().expect("a type").is_dir();
            if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
        }
    }
    gateway.write_host_file("/box/a.png", PNG);
    gateway.write_host_file("/box/page.html", PAGE);
    gateway.write_host_file("/box/small", b"0123456789");
    gateway.write_host_file("/box/large", [b'x'; 200]);
    gateway.write_host_file("/box/sub/deep/b.png", PNG);
    gateway.write_host_file("/box/mixed/words.txt", "words");
    gateway.write_host_file("/box/heavy/deep/large", [b'x'; 65]);
}

/// All that is below a folder, staging too.
fn snapshot(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            let content = if kind.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
            all.insert(path.display().to_string(), content);
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    all
}

fn dav_path(name: &str) -> String {
    format!("/box/{name}")
}

async fn over_webdav(client: &DavClient, gateway: &Fixture, act: LimitedOperation) -> u16 {
    let url = |name: &str| format!("/dav/box/{name}");
    let moves = async |method: &str, from: &str, to: &str| {
        let to = client.url(&url(to));
        client.send(method, &url(from), &[("destination", to.as_str())], "").await.status
    };
    match act {
        Put(name, content) => client.put(&url(name), content).await.status,
        PutChunked(name, content) => chunked(client, gateway, &url(name), content).await,
        PutExpectContinue(name, size) => expect_continue_status(client, gateway, &url(name), size).await,
        PutTagged(name, tags) => client.send("PUT", &url(name), &[("x-patgate-tags", tags)], "x").await.status,
        CreateThenWrite(name, content) => {
            assert_eq!(client.put(&url(name), "").await.status, 201);
            client.put(&url(name), content).await.status
        }
        Copy(from, to) => moves("COPY", from, to).await,
        Rename(from, to) => moves("MOVE", from, to).await,
        SetTags(name, tags) => client.send("PROPPATCH", &url(name), &[], label(tags)).await.status,
        LockUnmapped(name) => {
            let answer = client.send("LOCK", &url(name), &[], LOCK_BODY).await;
            if answer.status == 201 {
                let token = answer.header("lock-token").to_owned();
                assert_eq!(client.send("UNLOCK", &url(name), &[("lock-token", &token)], "").await.status, 204);
            }
            answer.status
        }
        MakeDirectory(name) => client.status("MKCOL", &url(name)).await,
        Remove(name) => client.status("DELETE", &url(name)).await,
        Read(name) => client.get(&url(name)).await.status,
        WriteAt(name, offset, content) => {
            let end = offset + content.len() as u64 - 1;
            patch(client, &url(name), &format!("bytes={offset}-{end}"), content).await
        }
        Append(name, content) => patch(client, &url(name), "append", content).await,
        Resize(..) | ResizeOpen(..) | HardLink(..) | Symlink(..) => 0,
    }
}

async fn patch(client: &DavClient, path: &str, range: &str, content: &'static [u8]) -> u16 {
    let headers = [("content-type", "application/x-sabredav-partialupdate"), ("x-update-range", range)];
    client.send("PATCH", path, &headers, content).await.status
}

fn label(tags: &str) -> String {
    format!(
        "<propertyupdate xmlns=\"DAV:\"><set><prop><p:tags xmlns:p=\"urn:patgate\">{tags}</p:tags></prop></set></propertyupdate>"
    )
}

async fn chunked(client: &DavClient, gateway: &Fixture, path: &str, content: &[u8]) -> u16 {
    let head = request_head(client, path, "Transfer-Encoding: chunked\r\nConnection: close\r\n");
    let mut request = head.into_bytes();
    for block in content.chunks(7) {
        request.extend(format!("{:x}\r\n", block.len()).bytes());
        request.extend(block);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    response_status(&send_raw(gateway.http, &request).await)
}

/// Sends the head with `Expect: 100-continue`, and no body.
async fn expect_continue_status(client: &DavClient, gateway: &Fixture, path: &str, size: u64) -> u16 {
    let fields = format!("Content-Length: {size}\r\nExpect: 100-continue\r\nConnection: close\r\n");
    let answer = send_raw(gateway.http, request_head(client, path, &fields).as_bytes()).await;
    assert!(String::from_utf8_lossy(&answer).contains("larger than the token's limit of 64"), "a body that says why");
    response_status(&answer)
}

fn request_head(client: &DavClient, path: &str, fields: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n{fields}\r\n", client.authorization())
}

fn response_status(answer: &[u8]) -> u16 {
    let line = String::from_utf8_lossy(answer);
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

async fn over_sftp(client: &mut SftpClient, act: LimitedOperation) -> Result<(), SftpError> {
    match act {
        Put(name, content) => put(client, name, 2 | 8 | 16, 0, content).await,
        PutExpectContinue(name, size) => {
            let attributes = [&1u32.to_be_bytes()[..], &size.to_be_bytes()].concat();
            let path = dav_path(name);
            client
                .request(3, &[&encode_string(path.as_bytes()), &(2u32 | 8 | 16).to_be_bytes(), &attributes])
                .await
                .map(drop)
        }
        CreateThenWrite(name, content) => {
            let handle = client.open_file(dav_path(name).as_bytes(), 2 | 8 | 32).await?;
            client.close(&handle).await?;
            put(client, name, 2, 0, content).await
        }
        WriteAt(name, offset, content) => put(client, name, 1 | 2, offset, content).await,
        Append(name, content) => put(client, name, 2 | 4, 0, content).await,
        Resize(name, size) => {
            let change = [&1u32.to_be_bytes()[..], &size.to_be_bytes()].concat();
            client.request(9, &[&encode_string(dav_path(name).as_bytes()), &change]).await.map(drop)
        }
        ResizeOpen(name, size) => {
            let handle = client.open_file(dav_path(name).as_bytes(), 2).await?;
            let change = [&1u32.to_be_bytes()[..], &size.to_be_bytes()].concat();
            let changed = client.request(10, &[&encode_string(&handle), &change]).await.map(drop);
            changed.and(client.close(&handle).await)
        }
        Copy(from, to) => copy_data(client, &dav_path(from), &dav_path(to)).await,
        Rename(from, to) => client.rename(&dav_path(from), &dav_path(to)).await,
        HardLink(from, to) => client.hard_link(&dav_path(from), &dav_path(to)).await,
        Symlink(target, name) => client.symlink(target, &dav_path(name)).await,
        MakeDirectory(name) => client.mkdir(&dav_path(name)).await,
        Remove(name) => client.remove(&dav_path(name)).await,
        Read(name) => client.get(&dav_path(name)).await.map(drop),
        PutChunked(..) | PutTagged(..) | SetTags(..) | LockUnmapped(..) => Ok(()),
    }
}

/// Writes in blocks, and closes the file whatever came of them; the first refusal counts.
async fn put(client: &mut SftpClient, name: &str, flags: u32, offset: u64, content: &[u8]) -> Result<(), SftpError> {
    let handle = client.open_file(dav_path(name).as_bytes(), flags).await?;
    let mut outcome = Ok(());
    let mut position = offset;
    for block in content.chunks(64) {
        outcome = outcome.and(client.write_at(&handle, position, block).await);
        position = position.wrapping_add(block.len() as u64);
    }
    outcome.and(client.close(&handle).await)
}

async fn copy_data(client: &mut SftpClient, from: &str, to: &str) -> Result<(), SftpError> {
    let source = client.open_file(from.as_bytes(), 1).await?;
    let copied = match client.open_file(to.as_bytes(), 2 | 8 | 16).await {
        Ok(target) => {
            let (name, zero) = (encode_string(b"copy-data"), 0u64.to_be_bytes());
            let body: [&[u8]; 6] = [&name, &encode_string(&source), &zero, &zero, &encode_string(&target), &zero];
            let copied = client.request(200, &body).await.map(drop);
            copied.and(client.close(&target).await)
        }
        Err(error) => Err(error),
    };
    client.close(&source).await?;
    copied
}

/// Tries every act over both protocols with a token that has a limit; the old content of what is refused
/// stays, and nothing is left in staging.
async fn assert_limit_holds(limit: &[&str], table: &[(LimitedOperation, ExpectedStatuses)]) {
    let gateway = Fixture::start().await;
    reset_directory(&gateway);
    gateway.create_user("alice", &["/box:rw"]);
    let token = gateway.create_token("alice", &[&["-e", "1h"], limit].concat());
    let client = gateway.dav("alice", &token);
    let mut session = gateway.sftp("alice", &token).await;
    let mut wrong = Vec::new();
    for &(act, (dav, sftp)) in table {
        for (protocol, expected) in [("WebDAV", dav.map(u32::from)), ("SFTP", sftp)] {
            let Some(expected) = expected else { continue };
            reset_directory(&gateway);
            let before = snapshot(&gateway.root());
            let found = match protocol {
                "WebDAV" => u32::from(over_webdav(&client, &gateway, act).await),
                _ => match over_sftp(&mut session, act).await {
                    Ok(()) => 0,
                    Err(SftpError::Status(code, message)) => {
                        assert!(message.contains(' '), "{act:?}: a sentence says why: {message}");
                        code
                    }
                    Err(SftpError::ConnectionLost) => panic!("{act:?}: the session is gone"),
                },
            };
            if found != expected {
                wrong.push(format!("{protocol} {act:?}: {found}, not {expected}"));
            }
            let refused = if protocol == "WebDAV" { expected >= 400 } else { expected != 0 };
            if refused && snapshot(&gateway.root()) != before {
                wrong.push(format!("{protocol} {act:?}: refused, and yet something changed"));
            }
            let staged_count = gateway.staged_entries().len();
            if refused && staged_count > 0 {
                wrong.push(format!("{protocol} {act:?}: {staged_count} things are left in staging"));
            }
        }
    }
    assert!(wrong.is_empty(), "{limit:?}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mime_limit_is_the_same_over_webdav_and_sftp() {
    assert_limit_holds(&["--mime", "image/*"], MIME_CASES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn size_limit_is_the_same_over_webdav_and_sftp() {
    assert_limit_holds(&["--max-file-size", "64"], SIZE_CASES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn size_limit_holds_together_with_a_mime_limit() {
    let tries = |(act, _): &&(LimitedOperation, ExpectedStatuses)| !matches!(act, Resize("large", _));
    let table: Vec<_> = SIZE_CASES.iter().filter(tries).copied().collect();
    assert_limit_holds(&["--max-file-size", "64", "--mime", "*/*"], &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_tags_outside_the_limit_are_refused() {
    assert_limit_holds(&["--tag", "a", "--tag", "b"], TAG_CASES).await;
}

/// Limits on callers, and the responses of WebDAV, REST and SFTP.
const CALLER_LIMIT_CASES: &[(&[&str], u16, u16, bool)] = &[
    (&[], 207, 200, true),
    (&["--protocol", "webdav"], 207, 401, false),
    (&["--protocol", "sftp"], 401, 401, true),
    (&["--protocol", "api"], 401, 200, false),
    (&["--protocol", "webdav,sftp,api"], 207, 200, true),
    (&["--ip", "127.0.0.0/8"], 207, 200, true),
    (&["--ip", "::1", "--ip", "127.0.0.1"], 207, 200, true),
    (&["--ip", "192.0.2.0/24"], 401, 401, false),
    (&["--user-agent", "tester/*"], 207, 200, false),
    (&["--user-agent", "SSH-2.0-*"], 401, 401, true),
    (&["--user-agent", "tester/1", "--user-agent", "SSH*"], 207, 200, true),
    (&["--user-agent", "tester"], 401, 401, false),
    (&["--user-agent", "tester/*", "--ip", "192.0.2.1"], 401, 401, false),
];

#[tokio::test(flavor = "multi_thread")]
async fn protocol_address_and_user_agent_limits_hold_on_every_protocol() {
    let gateway = Fixture::start().await;
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "50"]);
    gateway.create_user("alice", &["/:rw"]);
    let agent = ("user-agent", "tester/1");
    for &(limit, dav, api, sftp) in CALLER_LIMIT_CASES {
        let token = gateway.create_token("alice", &[&["-e", "1h"], limit].concat());
        let client = gateway.dav("alice", &token);
        let listed = client.send("PROPFIND", "/dav/", &[("depth", "0"), agent], "").await;
        assert_eq!(listed.status, dav, "WebDAV {limit:?}");
        let response = client.send("GET", "/api/v1/tokens/self", &[agent], "").await;
        assert_eq!(response.status, api, "REST {limit:?}");
        assert_eq!(SftpClient::connect(gateway.sftp, "alice", &token).await.is_some(), sftp, "SFTP {limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn propfind_returns_tags_and_node_ids_on_request() {
    let gateway = Fixture::start().await;
    let client = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let put = client.send("PUT", "/dav/f", &[("x-patgate-tags", "b & c,a")], "x").await;
    assert_eq!(put.status, 201);
    gateway.write_host_file("/plain", "x");
    let propfind_body = "<propfind xmlns=\"DAV:\"><prop><p:tags xmlns:p=\"urn:patgate\"/><p:node-id xmlns:p=\"urn:patgate\"/></prop></propfind>";
    let named =
        async |path: &str, depth: &str| client.send("PROPFIND", path, &[("depth", depth)], propfind_body).await.text();
    let nodes = || gateway.run_cli(&["node", "list", "/"]).lines().count();
    let before = nodes();
    let listed = named("/dav/", "1").await;
    assert!(listed.contains(">b &amp; c,a</tags>"), "{listed}");
    assert!(listed.contains(&gateway.node_id("/f")), "what has a name shows it: {listed}");
    assert_eq!(nodes(), before, "a listing names nothing");
    let plain_response = named("/dav/plain", "0").await;
    assert_eq!(nodes(), before + 1, "{plain_response}");
    assert!(plain_response.contains(&gateway.node_id("/plain")), "{plain_response}");
    let copied = ("destination".to_owned(), client.url("/dav/g"));
    assert_eq!(client.send("COPY", "/dav/f", &[(copied.0.as_str(), copied.1.as_str())], "").await.status, 201);
    assert!(named("/dav/g", "0").await.contains(">b &amp; c,a</tags>"), "tags are copied");
    assert_eq!(client.send("PROPPATCH", "/dav/g", &[], label("")).await.status, 207);
    assert!(!named("/dav/g", "0").await.contains("</tags>"), "and taken off");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_token_is_bound_by_new_limits_of_its_parents_at_once() {
    let gateway = Fixture::start().await;
    let above = gateway.create_user_and_token("alice", "/:rw");
    let parent = gateway.dav("alice", &above);
    let json = [("content-type", "application/json")];
    let created = parent.send("POST", "/api/v1/tokens", &json, r#"{"limits":{"mimes":["image/*","text/*"]}}"#).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let created = created.json();
    let token = created["token"].as_str().expect("a token");
    let child = gateway.dav("alice", token);
    let mut session = gateway.sftp("alice", token).await;
    assert_eq!(child.put("/dav/a.txt", "words").await.status, 201);
    session.put("/a.png", PNG).await.expect("an image");
    let open = session.open_file(b"/a.txt", 2 | 8 | 16).await.expect("opened");
    session.write_at(&open, 0, b"words").await.expect("written");
    let path = format!("/api/v1/tokens/{}", token_id(&above));
    let narrower = r#"{"limits":{"mimes":["image/*"],"max_file_size":30}}"#;
    let narrowed = parent.send("PATCH", &path, &json, narrower).await;
    assert_eq!(narrowed.status, 200, "{}", narrowed.text());
    let refused = |result: Result<(), SftpError>| result.expect_err("refused").code();
    assert_eq!(refused(session.close(&open).await), 3, "an upload that began before");
    assert_eq!(refused(session.put("/b.txt", b"words").await), 3);
    assert_eq!(refused(session.put("/b.png", &[PNG, MAX_SIZED].concat()).await), 4);
    assert_eq!(child.put("/dav/b.txt", "words").await.status, 415);
    assert_eq!(child.put("/dav/b.png", [PNG, MAX_SIZED].concat()).await.status, 413);
    assert_eq!(child.put("/dav/b.png", PNG).await.status, 201);
    assert_eq!(gateway.dav("alice", token).get("/dav/a.txt").await.text(), "words", "the old content stands");
}
