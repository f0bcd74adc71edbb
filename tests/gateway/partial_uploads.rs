//! Uploads over HTTP that write part of a file or take several requests: partial updates, resumable uploads
//! (`Upload-Complete`) and Nextcloud's chunks. What remains of them after a restart is in `upload_persistence.rs`.

use patgate::auth::Clock;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{DavClient, Fixture, HttpResponse, LOCK_BODY};

const SHA1_OF_ABC: &str = "SHA1:a9993e364706816aba3e25717850c26c9cd0d89d";
/// `Content-Digest` of `abc`.
const MD5_OF_ABC: &str = "md5=:kAFQmDzST7DWlj99KOF/cg==:";

async fn dav_as_alice(gateway: &Fixture) -> DavClient {
    let token = gateway.create_user_and_token("alice", "/:rw");
    gateway.dav("alice", &token)
}

/// Returns the number of staged entries.
fn staged_count(gateway: &Fixture) -> usize {
    gateway.all_paths().iter().filter(|path| path.starts_with(".patgate/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_update_is_atomic() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let put = |range: &'static str, content: &'static str| {
        let dav = dav.clone();
        async move { dav.send("PUT", "/dav/a", &[("content-range", range)], content).await }
    };
    let first = put("bytes 0-4/*", "hello").await;
    assert_eq!((first.status, first.header("etag").is_empty()), (201, false));
    assert_eq!(put("bytes 5-10/11", " world").await.status, 204);
    assert_eq!(put("bytes 0-0/*", "J").await.status, 204);
    assert_eq!(dav.get("/dav/a").await.text(), "Jello world");
    let beyond = put("bytes 12-12/13", "x").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */11"));
    for (range, content) in
        [("bytes 0-4/*", "four"), ("bytes 0-4/*", "sixsix"), ("bytes 4-0/*", "x"), ("lines 0-0/*", "x")]
    {
        assert_eq!(put(range, content).await.status, 400, "{range} {content}");
    }
    let tag = dav.get("/dav/a").await.header("etag").to_owned();
    let refused = [("content-range", "bytes 0-0/*"), ("if-match", "\"other\"")];
    assert_eq!(dav.send("PUT", "/dav/a", &refused, "x").await.status, 412);
    let patch = |range: &'static str, content: &'static str| {
        let dav = dav.clone();
        let kind = ("content-type", "application/x-sabredav-partialupdate");
        async move { dav.send("PATCH", "/dav/a", &[kind, ("x-update-range", range)], content).await }
    };
    let appended = patch("append", "!").await;
    assert_eq!(appended.status, 204);
    assert_ne!(appended.header("etag"), tag, "another content, another tag");
    assert_eq!(patch("bytes=-6", "earth").await.status, 204);
    assert_eq!(patch("bytes=0-0", "h").await.status, 204);
    assert_eq!(dav.get("/dav/a").await.text(), "hello earth!");
    assert_eq!(patch("bytes=0-3", "h").await.status, 400);
    assert_eq!(patch("bytes=99-", "h").await.status, 416);
    let other = [("content-type", "text/plain"), ("x-update-range", "append")];
    assert_eq!(dav.send("PATCH", "/dav/a", &other, "x").await.status, 415);
    let kind = ("content-type", "application/x-sabredav-partialupdate");
    assert_eq!(dav.send("PATCH", "/dav/new", &[kind, ("x-update-range", "append")], "x").await.status, 404);
    assert_eq!(dav.get("/dav/a").await.text(), "hello earth!");
    let wrong = [kind, ("x-update-range", "append"), ("content-digest", MD5_OF_ABC)];
    assert_eq!(dav.send("PATCH", "/dav/a", &wrong, "abd").await.status, 400, "another content than was announced");
    assert_eq!(dav.send("PATCH", "/dav/a", &wrong, "abc").await.status, 204, "the digest is the part's");
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_update_obeys_locks_limits_and_permissions() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a", "0123456789");
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "--max-file-size", "12B"]));
    let append = [("content-type", "application/x-sabredav-partialupdate"), ("x-update-range", "append")];
    assert_eq!(dav.send("PATCH", "/dav/a", &append, "ab").await.status, 204);
    assert_eq!(dav.send("PATCH", "/dav/a", &append, "c").await.status, 413);
    let reader = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "-s", "path:/a:r"]));
    assert_eq!(reader.send("PATCH", "/dav/a", &append, "c").await.status, 403);
    assert_eq!(dav.send("LOCK", "/dav/a", &[], LOCK_BODY).await.status, 200);
    assert_eq!(dav.send("PUT", "/dav/a", &[("content-range", "bytes 0-0/*")], "x").await.status, 423);
    assert_eq!(std::fs::read(gateway.host_path("/a")).expect("there"), b"0123456789ab");
    assert_eq!(staged_count(&gateway), 0);
}

async fn begin_upload(dav: &DavClient, path: &str, headers: &[(&str, &str)], content: &'static str) -> HttpResponse {
    let headers: Vec<_> = [("upload-complete", "?0")].into_iter().chain(headers.iter().copied()).collect();
    dav.send("POST", path, &headers, content).await
}

async fn append_upload(
    dav: &DavClient,
    upload: &str,
    offset: &str,
    complete: &str,
    content: &'static str,
) -> HttpResponse {
    let headers =
        [("content-type", "application/partial-upload"), ("upload-offset", offset), ("upload-complete", complete)];
    dav.send("PATCH", upload, &headers, content).await
}

#[tokio::test(flavor = "multi_thread")]
async fn resumable_upload_continues_at_its_offset() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let upload_headers = [("x-oc-mtime", "981173106"), ("oc-checksum", SHA1_OF_ABC), ("upload-length", "3")];
    let created = begin_upload(&dav, "/dav/a", &upload_headers, "a").await;
    assert_eq!((created.status, created.header("upload-complete"), created.header("upload-offset")), (201, "?0", "1"));
    assert!(created.header("upload-limit").contains("max-age="), "{:?}", created.headers);
    let upload = created.header("location").to_owned();
    assert_eq!(dav.get("/dav/a").await.status, 404, "nothing is there before it is complete");
    let head = dav.send("HEAD", &upload, &[], "").await;
    let shown_headers =
        ["upload-offset", "upload-complete", "upload-length", "cache-control"].map(|name| head.header(name));
    assert_eq!((head.status, shown_headers), (204, ["1", "?0", "3", "no-store"]));
    let wrong = append_upload(&dav, &upload, "0", "?0", "x").await;
    assert_eq!((wrong.status, wrong.header("upload-offset")), (409, "1"));
    assert!(wrong.text().contains("mismatching-upload-offset") && wrong.text().contains("\"expected-offset\":1"));
    assert_eq!(append_upload(&dav, &upload, "1", "?0", "xyz").await.status, 400, "more than was announced");
    assert_eq!(append_upload(&dav, &upload, "1", "?0", "b").await.status, 204);
    let short = append_upload(&dav, &upload, "2", "?1", "").await;
    assert_eq!((short.status, short.header("content-type")), (400, "application/problem+json"));
    let done = append_upload(&dav, &upload, "2", "?1", "c").await;
    assert_eq!((done.status, done.header("upload-complete"), done.header("x-oc-mtime")), (201, "?1", "accepted"));
    let get = dav.get("/dav/a").await;
    assert_eq!(
        (get.text().as_str(), get.header("etag"), get.header("oc-checksum")),
        ("abc", done.header("etag"), SHA1_OF_ABC)
    );
    assert_eq!(get.header("last-modified"), "Sat, 03 Feb 2001 04:05:06 GMT");
    assert_eq!(dav.send("HEAD", &upload, &[], "").await.status, 404, "it is over");
    let at_once = dav.send("PUT", "/dav/b", &[("upload-complete", "?1")], "whole").await;
    assert_eq!((at_once.status, at_once.header("upload-complete")), (201, "?1"));
    assert_eq!(staged_count(&gateway), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_limit_header_of_child_token_has_limit_of_its_parent() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let above = gateway.create_token("alice", &["-e", "1h", "--max-file-size", "12B"]);
    let json = [("content-type", "application/json")];
    let created = gateway.dav("alice", &above).send("POST", "/api/v1/tokens", &json, "{}").await;
    assert_eq!(created.status, 201, "{}", created.text());
    let child = gateway.dav("alice", created.json()["token"].as_str().expect("a token"));
    let begun = begin_upload(&child, "/dav/a", &[], "a").await;
    let head = child.send("HEAD", begun.header("location"), &[], "").await;
    for response in [&begun, &head] {
        assert!(response.header("upload-limit").contains("max-size=12,"), "{:?}", response.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_upload_headers_may_have_parameters() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let headers = [("upload-complete", "?0;x"), ("upload-length", "2; y=\"a;b\";z=:YQ==:")];
    let begun = dav.send("POST", "/dav/a", &headers, "a").await;
    assert_eq!((begun.status, begun.header("upload-offset")), (201, "1"), "{}", begun.text());
    let done = append_upload(&dav, begun.header("location"), "1;x=-1.5", "?1;x", "b").await;
    assert_eq!(done.status, 201, "{}", done.text());
    assert_eq!(dav.get("/dav/a").await.text(), "ab");
    for malformed in ["?1;", "?1;X", "?1 x", "?1;x=", "?1;x=\"a", "?2;x", "1;x", "?1, ?1"] {
        let refused = dav.send("PUT", "/dav/b", &[("upload-complete", malformed)], "b").await;
        assert_eq!(refused.status, 400, "{malformed}");
    }
    for malformed in ["1;", "1;x y", "one;x", "-1", "1.0", "1, 1"] {
        let refused = dav.send("POST", "/dav/b", &[("upload-complete", "?0"), ("upload-length", malformed)], "b").await;
        assert_eq!(refused.status, 400, "{malformed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_authorized_again_on_completion() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let created = begin_upload(&dav, "/dav/a", &[("if-none-match", "*")], "mine").await;
    assert_eq!(dav.put("/dav/a", "other").await.status, 201);
    assert_eq!(append_upload(&dav, created.header("location"), "4", "?1", "").await.status, 412);
    assert_eq!(dav.get("/dav/a").await.text(), "other");
    let sum = begin_upload(&dav, "/dav/b", &[("oc-checksum", SHA1_OF_ABC)], "ab").await;
    assert_eq!(append_upload(&dav, sum.header("location"), "2", "?1", "d").await.status, 400);
    assert_eq!(dav.get("/dav/b").await.status, 404);
    let digest = [
        ("content-type", "application/partial-upload"),
        ("upload-offset", "3"),
        ("upload-complete", "?0"),
        ("content-digest", MD5_OF_ABC),
    ];
    assert_eq!(dav.send("PATCH", sum.header("location"), &digest, "abd").await.status, 400);
    let head = dav.send("HEAD", sum.header("location"), &[], "").await;
    assert_eq!(head.header("upload-offset"), "3", "a part that isn't what was announced counts as not sent");

    let upload = begin_upload(&dav, "/dav/c", &[], "mine").await.header("location").to_owned();
    gateway.create_user("bob", &["/:rw"]);
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    for method in ["HEAD", "DELETE"] {
        assert_eq!(bob.send(method, &upload, &[], "").await.status, 404, "another user's");
    }
    assert_eq!(append_upload(&bob, &upload, "4", "?1", "").await.status, 404);
    let other = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    assert_eq!(append_upload(&other, &upload, "4", "?1", "").await.status, 404, "another token's of the same user");
    let grant = |grant: &str| {
        gateway.run_cli(&["admin", "user", "revoke-grant", "alice", "/"]);
        gateway.run_cli(&["admin", "user", "grant", "alice", grant]);
    };
    grant("/:r");
    assert_eq!(append_upload(&dav, &upload, "4", "?1", "").await.status, 403, "rights are asked anew");
    grant("/:rw");
    assert_eq!(append_upload(&dav, &upload, "4", "?1", "").await.status, 201);
    let cancelled = begin_upload(&dav, "/dav/d", &[], "mine").await.header("location").to_owned();
    assert_eq!(dav.send("DELETE", &cancelled, &[], "").await.status, 204);
    assert_eq!(dav.send("DELETE", &cancelled, &[], "").await.status, 404);
    assert_eq!(dav.send("DELETE", sum.header("location"), &[], "").await.status, 204);
    assert_eq!(dav.send("DELETE", created.header("location"), &[], "").await.status, 204, "what was refused stays");
    assert_eq!(staged_count(&gateway), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_keeps_the_received_bytes() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let upload = begin_upload(&dav, "/dav/a", &[], "").await.header("location").to_owned();
    let mut stream = TcpStream::connect(gateway.http).await.expect("connected");
    let head = format!(
        "PATCH {upload} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-length: 9000000\r\nupload-offset: 0\r\n\
         upload-complete: ?1\r\ncontent-type: application/partial-upload\r\n\r\n",
        gateway.http,
        dav.authorization()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&vec![b'x'; 3_000_000]).await.expect("sent");
    let file = loop {
        let path = gateway.all_paths().into_iter().find(|path| path.starts_with(".patgate/")).expect("staged");
        if std::fs::metadata(gateway.root().join(&path)).is_ok_and(|file| file.len() >= 1_000_000) {
            break path;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // The request is still open: HEAD returns its offset and ends it.
    let stands = dav.send("HEAD", &upload, &[], "").await;
    let offset: u64 = stands.header("upload-offset").parse().expect("a number");
    assert!((1_000_000..=3_000_000).contains(&offset), "{offset}");
    assert!(gateway.root().join(&file).exists());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    let more = "x".repeat(3_000_000 - usize::try_from(offset).expect("small"));
    let headers = [
        ("content-type", "application/partial-upload"),
        ("upload-offset", stands.header("upload-offset")),
        ("upload-complete", "?1"),
    ];
    assert_eq!(dav.send("PATCH", &upload, &headers, more).await.status, 201);
    assert_eq!(dav.get("/dav/a").await.body, vec![b'x'; 3_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_bounded_in_number_and_age() {
    let clock = Clock::manual(Clock::system().now());
    let gateway = Fixture::start_with(clock.clone(), |_| {}).await;
    gateway.create_user("alice", &["/:rw"]);
    let dav = gateway.dav("alice", &gateway.create_token("alice", &["-e", "30d"]));
    let first = begin_upload(&dav, "/dav/a", &[], "x").await.header("location").to_owned();
    for number in 1..64 {
        assert_eq!(dav.status("MKCOL", &format!("/remote.php/dav/uploads/alice/{number}")).await, 201);
    }
    assert_eq!(begin_upload(&dav, "/dav/a", &[], "x").await.status, 507);
    assert_eq!(dav.status("MKCOL", "/remote.php/dav/uploads/alice/64").await, 507);
    assert_eq!(staged_count(&gateway), 1);
    clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!(dav.send("HEAD", &first, &[], "").await.status, 404, "it waited too long");
    assert_eq!(dav.status("PROPFIND", "/remote.php/dav/uploads/alice/1").await, 404);
    assert_eq!(dav.status("MKCOL", "/remote.php/dav/uploads/alice/64").await, 201);
    assert_eq!(staged_count(&gateway), 0, "what waited too long is swept when another begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_assembled_in_numeric_order() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    gateway.write_host_file("/folder/a", "old");
    let upload_url = "/remote.php/dav/uploads/alice/up%201";
    assert_eq!(dav.status("MKCOL", upload_url).await, 201);
    assert_eq!(dav.status("MKCOL", upload_url).await, 405);
    for (name, content) in [("10", "c"), ("2", "x"), ("1", "a"), ("2", "b")] {
        let status = dav.send("PUT", &format!("{upload_url}/{name}"), &[], content).await.status;
        assert_eq!(status, if content == "b" { 204 } else { 201 }, "{name} {content}");
    }
    assert_eq!(dav.send("PUT", &format!("{upload_url}/3"), &[("content-digest", MD5_OF_ABC)], "abd").await.status, 400);
    let listed = dav.send("PROPFIND", upload_url, &[("depth", "1")], "").await.text();
    assert_eq!(listed.matches("getcontentlength>1<").count(), 3, "{listed}");
    let to = dav.url("/remote.php/dav/files/alice/folder/a");
    let assembled_url = format!("{upload_url}/.file");
    let wrong = [("destination", &*to), ("oc-total-length", "4")];
    assert_eq!(dav.send("MOVE", &assembled_url, &wrong, "").await.status, 400);
    let no_overwrite = [("destination", &*to), ("overwrite", "F")];
    assert_eq!(dav.send("MOVE", &assembled_url, &no_overwrite, "").await.status, 412);
    let unlike = [("destination", &*to), ("oc-checksum", "SHA1:00")];
    assert_eq!(dav.send("MOVE", &assembled_url, &unlike, "").await.status, 400);
    let foreign = dav.url("/remote.php/dav/files/bob/a");
    assert_eq!(dav.send("MOVE", &assembled_url, &[("destination", &foreign)], "").await.status, 404);
    assert_eq!(std::fs::read(gateway.host_path("/folder/a")).expect("there"), b"old", "nothing has changed yet");
    let headers =
        [("destination", &*to), ("oc-total-length", "3"), ("x-oc-mtime", "981173106"), ("oc-checksum", SHA1_OF_ABC)];
    let moved = dav.send("MOVE", &assembled_url, &headers, "").await;
    assert_eq!((moved.status, moved.header("x-oc-mtime")), (204, "accepted"));
    let get = dav.get("/remote.php/webdav/folder/a").await;
    assert_eq!((get.text().as_str(), get.header("etag")), ("abc", moved.header("etag")));
    assert_eq!(dav.send("MOVE", &assembled_url, &headers, "").await.status, 404, "it is over");
    assert_eq!(staged_count(&gateway), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_of_a_chunked_upload_escapes_its_name() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let upload = "/remote.php/dav/uploads/alice/a&b'";
    assert_eq!(dav.status("MKCOL", upload).await, 201);
    assert_eq!(dav.send("PUT", &format!("{upload}/1&2"), &[], "x").await.status, 201);
    let listed = dav.send("PROPFIND", upload, &[("depth", "1")], "").await.text();
    for href in ["/remote.php/dav/uploads/alice/a%26b%27/", "/remote.php/dav/uploads/alice/a%26b%27/1%262"] {
        assert!(listed.contains(&format!("<D:href>{href}</D:href>")), "{listed}");
    }
    assert!(!listed.contains('&'), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_succeeds_even_if_its_checksum_cannot_be_stored() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    gateway.write_host_file("/a", "old");
    let store = rusqlite::Connection::open(gateway.state().join("patgate.db")).expect("the store");
    store.busy_timeout(Duration::from_secs(10)).expect("set");
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON checksums BEGIN SELECT RAISE(ABORT, 'refused'); END";
    store.execute_batch(trigger).expect("created");
    let sum = ("oc-checksum", SHA1_OF_ABC);
    let put = dav.send("PUT", "/dav/a", &[sum], "abc").await;
    assert_eq!((put.status, put.header("oc-checksum")), (204, ""), "{}", put.text());
    assert_eq!(std::fs::read(gateway.host_path("/a")).expect("there"), b"abc");
    assert_eq!(dav.get("/dav/a").await.header("etag"), put.header("etag"));
    let upload = "/remote.php/dav/uploads/alice/up";
    assert_eq!(dav.status("MKCOL", upload).await, 201);
    assert_eq!(dav.send("PUT", &format!("{upload}/1"), &[], "abc").await.status, 201);
    let headers = [("destination", &*dav.url("/remote.php/dav/files/alice/b")), sum];
    assert_eq!(dav.send("MOVE", &format!("{upload}/.file"), &headers, "").await.status, 201);
    assert_eq!(staged_count(&gateway), 0, "the chunks are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_concurrent_if_none_match_chunked_uploads_wins() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let upload_urls: Vec<_> = (0..4).map(|number| format!("/remote.php/dav/uploads/alice/{number}")).collect();
    for upload_url in &upload_urls {
        assert_eq!(dav.status("MKCOL", upload_url).await, 201);
        assert_eq!(dav.send("PUT", &format!("{upload_url}/1"), &[], vec![b'x'; 8 << 20]).await.status, 201);
    }
    let to = dav.url("/remote.php/dav/files/alice/one");
    let headers = [("destination", &*to), ("overwrite", "F")];
    let finish = async |upload_url: &str| dav.send("MOVE", &format!("{upload_url}/.file"), &headers, "").await.status;
    let [a, b, c, d] = &upload_urls[..] else { panic!("four") };
    let mut statuses = <[u16; 4]>::from(tokio::join!(finish(a), finish(b), finish(c), finish(d)));
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412, 412, 412]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_belong_to_their_user_and_are_authorized_on_assembly() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/mine");
    gateway.create_user("alice", &["/mine:rw", "/:r"]);
    gateway.create_user("bob", &["/:rw"]);
    let alice = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "--max-file-size", "2B"]));
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    let upload_url = "/remote.php/dav/uploads/alice/up";
    assert_eq!(bob.status("MKCOL", upload_url).await, 404);
    assert_eq!(alice.status("MKCOL", upload_url).await, 201);
    assert_eq!(bob.send("PUT", &format!("{upload_url}/1"), &[], "x").await.status, 404);
    assert_eq!(alice.send("PUT", &format!("{upload_url}/1"), &[], "abc").await.status, 413);
    for name in ["1", "2"] {
        assert_eq!(alice.send("PUT", &format!("{upload_url}/{name}"), &[], "x").await.status, 201);
    }
    let to = |path: &str| alice.url(&format!("/remote.php/dav/files/alice{path}"));
    let assembled_url = format!("{upload_url}/.file");
    assert_eq!(alice.send("MOVE", &assembled_url, &[("destination", &to("/a"))], "").await.status, 403);
    assert_eq!(alice.send("MOVE", &assembled_url, &[("destination", &to("/mine/x/a"))], "").await.status, 409);
    assert_eq!(alice.send("PUT", &format!("{upload_url}/3"), &[], "x").await.status, 201);
    assert_eq!(alice.send("MOVE", &assembled_url, &[("destination", &to("/mine/a"))], "").await.status, 413);
    assert_eq!(alice.send("DELETE", &format!("{upload_url}/3"), &[], "").await.status, 204);
    assert_eq!(alice.send("MOVE", &assembled_url, &[("destination", &to("/mine/a"))], "").await.status, 201);
    assert_eq!(std::fs::read(gateway.host_path("/mine/a")).expect("there"), b"xx");
    let reader = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "-s", "path:/mine:r"]));
    assert_eq!(reader.status("MKCOL", "/remote.php/dav/uploads/alice/new").await, 403, "it may write nowhere");
    assert_eq!(alice.status("MKCOL", upload_url).await, 201);
    assert_eq!(alice.send("PUT", &format!("{upload_url}/1"), &[], "x").await.status, 201);
    assert_eq!(alice.status("DELETE", upload_url).await, 204);
    assert_eq!(staged_count(&gateway), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_are_stored_with_their_content() {
    let gateway = Fixture::start().await;
    let dav = dav_as_alice(&gateway).await;
    let sum = ("oc-checksum", SHA1_OF_ABC);
    let put = dav.send("PUT", "/dav/a", &[sum], "abc").await;
    assert_eq!((put.status, put.header("oc-checksum")), (201, SHA1_OF_ABC));
    let stored_checksum = |path: &'static str| {
        let dav = dav.clone();
        async move {
            let body =
                "<propfind xmlns=\"DAV:\"><prop><x:checksums xmlns:x=\"http://owncloud.org/ns\"/></prop></propfind>";
            let found = dav.send("PROPFIND", path, &[("depth", "0")], body).await.text();
            let property = found
                .contains(&format!("<oc:checksum>{SHA1_OF_ABC} MD5:900150983cd24fb0d6963f7d28e17f72</oc:checksum>"));
            assert_eq!(property, !found.contains("404"), "{found}");
            let head = dav.send("HEAD", path, &[], "").await;
            assert_eq!(property, head.header("oc-checksum") == SHA1_OF_ABC, "{path}");
            property
        }
    };
    assert!(stored_checksum("/dav/a").await);
    assert_eq!(dav.send("MOVE", "/dav/a", &[("destination", "/dav/b")], "").await.status, 201);
    assert!(stored_checksum("/dav/b").await, "it follows a rename");
    assert_eq!(dav.put("/dav/b", "abd").await.status, 204);
    assert!(!stored_checksum("/dav/b").await, "it goes with its content");
    assert_eq!(dav.send("PUT", "/dav/b", &[sum], "abc").await.status, 204);
    assert!(stored_checksum("/dav/b").await);
    std::fs::write(gateway.host_path("/b"), "abd").expect("written");
    assert!(!stored_checksum("/dav/b").await, "also when the host changes it");
}
