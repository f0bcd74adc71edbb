//! Recorded requests of clients that can't run in the tests, each with the answer that the client needs to continue:
//! Windows Explorer (the WebDAV Mini-Redirector), macOS Finder (webdavfs), Microsoft Office and Zotero.
//!
//! The order, headers and bodies come from recordings that people have published: mar10/wsgidav issue 112,
//! swisspol/GCDWebServer issue 319, danmunn/redmine_dmsf issue 334 and 9001/copyparty issue 910 for Explorer,
//! OpenMarshal/npm-WebDAV-Server issue 37, mikedeboer/jsDAV issue 129 and sabre-io/dav issue 980 for Office,
//! owncloud/core issue 24753 for Finder, zotero/zotero-ios issue 512 for Zotero, all on GitHub; and from the sources
//! that Apple (webdavfs) and Zotero have published.

use std::time::{Duration, UNIX_EPOCH};

use crate::support::{DavClient, Fixture, send_raw};

/// One client: how it names itself, and who it is.
struct ReplayClient<'a> {
    gateway: &'a Fixture,
    dav: DavClient,
    agent: &'static str,
}

/// A response.
struct ReplayResponse {
    status: u16,
    head: String,
    body: String,
}

impl ReplayResponse {
    /// A header's value, empty when it is not there.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

impl<'a> ReplayClient<'a> {
    async fn new(gateway: &'a Fixture, agent: &'static str) -> Self {
        gateway.create_user("alice", &["/:rw"]);
        let token = gateway.create_token("alice", &["-e", "1h"]);
        Self { gateway, dav: gateway.dav("alice", &token), agent }
    }

    /// Sends a request line, headers and a body as they are, on a connection of its own.
    async fn send_raw(&self, line: &str, headers: &[&str], body: &[u8]) -> ReplayResponse {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nConnection: close\r\n{headers}\r\n",
            self.gateway.http, self.agent
        );
        let answer = send_raw(self.gateway.http, &[head.as_bytes(), body].concat()).await;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {text}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        ReplayResponse { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Sends a request with the credentials and the body's length.
    async fn send_authenticated(&self, line: &str, headers: &[&str], body: &str) -> ReplayResponse {
        let (length, login) = (format!("Content-Length: {}", body.len()), self.authorization_header());
        self.send_raw(line, &[&[&*length, &*login], headers].concat(), body.as_bytes()).await
    }

    fn authorization_header(&self) -> String {
        format!("Authorization: {}", self.dav.authorization())
    }
}

const WINDOWS_USER_AGENT: &str = "Microsoft-WebDAV-MiniRedir/10.0.19045";
const WINDOWS_LOCK_BODY: &str = r#"<?xml version="1.0" encoding="utf-8" ?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner><D:href>DESKTOP\alice</D:href></D:owner></D:lockinfo>"#;

fn windows_proppatch_body(properties: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>{properties}</D:prop></D:set></D:propertyupdate>"#
    )
}

fn windows_times_body(modified: &str) -> String {
    windows_proppatch_body(&format!(
        "<Z:Win32CreationTime>Sat, 03 Feb 2001 04:05:06 GMT</Z:Win32CreationTime><Z:Win32LastAccessTime>{modified}</Z:Win32LastAccessTime><Z:Win32LastModifiedTime>{modified}</Z:Win32LastModifiedTime><Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_explorer_maps_a_drive() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/a folder/report.docx", "content");
    let windows = ReplayClient::new(&gateway, WINDOWS_USER_AGENT).await;
    for path in ["/", "/dav", "/dav/"] {
        let options = windows.send_raw(&format!("OPTIONS {path}"), &["translate: f", "Content-Length: 0"], b"").await;
        assert_eq!(options.status, 200, "{path}");
        assert_eq!(options.header("ms-author-via"), "DAV", "{path}");
        assert!(options.header("dav").starts_with("1, 2"), "{path}: {}", options.header("dav"));
    }
    let unauthenticated =
        windows.send_raw("PROPFIND /dav", &["Depth: 0", "translate: f", "Content-Length: 0"], b"").await;
    assert_eq!(unauthenticated.status, 401);
    assert!(unauthenticated.header("www-authenticate").starts_with("Basic realm="), "{}", unauthenticated.head);
    for path in ["/dav", "/dav/", "/dav/a%20folder", "/dav/a%20folder/report.docx"] {
        let found = windows.send_authenticated(&format!("PROPFIND {path}"), &["Depth: 0", "translate: f"], "").await;
        assert_eq!(found.status, 207, "{path}");
        for property in ["creationdate", "getlastmodified", "resourcetype", "displayname"] {
            assert!(found.body.contains(&format!("<D:{property}>")), "{path} has no {property}: {}", found.body);
        }
        assert_eq!(found.body.contains("<D:collection/>"), !path.ends_with("docx"), "{path}");
    }
    let listing = windows.send_authenticated("PROPFIND /dav/a%20folder", &["Depth: 1", "translate: f"], "").await;
    assert!(listing.body.contains("<D:href>/dav/a%20folder/report.docx</D:href>"), "{}", listing.body);
    assert!(listing.body.contains("<D:getcontentlength>7</D:getcontentlength>"), "{}", listing.body);
    for missing in ["/dav/desktop.ini", "/dav/a%20folder/Thumbs.db", "/dav/AutoRun.inf"] {
        assert_eq!(
            windows.send_authenticated(&format!("PROPFIND {missing}"), &["Depth: 0", "translate: f"], "").await.status,
            404
        );
    }
    let file = windows.send_authenticated("GET /dav/a%20folder/report.docx", &["translate: f"], "").await;
    assert_eq!((file.status, &*file.body), (200, "content"));
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_explorer_copies_a_file_in_with_its_times() {
    let gateway = Fixture::start().await;
    let windows = ReplayClient::new(&gateway, WINDOWS_USER_AGENT).await;
    let path = "/dav/new%20file.txt";
    assert_eq!(
        windows.send_authenticated(&format!("PROPFIND {path}"), &["Depth: 0", "translate: f"], "").await.status,
        404
    );
    assert_eq!(
        windows.send_authenticated(&format!("PUT {path}"), &["translate: f"], "").await.status,
        201,
        "of no bytes"
    );
    let headers = ["translate: f", "Timeout: Second-3600", "Content-Type: text/xml; charset=\"utf-8\""];
    let lock = windows.send_authenticated(&format!("LOCK {path}"), &headers, WINDOWS_LOCK_BODY).await;
    assert_eq!(lock.status, 200);
    let token = lock.header("lock-token").to_owned();
    assert!(lock.body.contains("<D:timeout>Second-3600</D:timeout>"), "{}", lock.body);
    assert!(lock.body.contains("DESKTOP\\alice"), "the owner is kept: {}", lock.body);
    let if_header = format!("If: ({token})");
    let early = windows_times_body("Sun, 22 Jun 2003 10:11:12 GMT");
    let patched = windows.send_authenticated(&format!("PROPPATCH {path}"), &["translate: f", &if_header], &early).await;
    assert_eq!(patched.status, 207);
    assert!(!patched.body.contains("403") && patched.body.contains("200 OK"), "{}", patched.body);
    let head = windows.send_authenticated(&format!("HEAD {path}"), &["translate: f"], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "0"));
    let put =
        windows.send_authenticated(&format!("PUT {path}"), &["translate: f", &if_header], "what was copied").await;
    assert_eq!(put.status, 204);
    let late = windows_proppatch_body(
        "<Z:Win32LastModifiedTime>Sun, 22 Jun 2003 10:11:13 GMT</Z:Win32LastModifiedTime><Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>",
    );
    assert_eq!(
        windows.send_authenticated(&format!("PROPPATCH {path}"), &["translate: f", &if_header], &late).await.status,
        207
    );
    let unlock = windows
        .send_authenticated(&format!("UNLOCK {path}"), &["translate: f", &format!("Lock-Token: {token}")], "")
        .await;
    assert_eq!(unlock.status, 204);
    assert_eq!(
        windows.send_authenticated(&format!("HEAD {path}"), &[], "").await.header("last-modified"),
        "Sun, 22 Jun 2003 10:11:13 GMT"
    );
    let modified = gateway.host_path("/new file.txt").metadata().and_then(|file| file.modified()).expect("a time");
    let since = modified.duration_since(UNIX_EPOCH).expect("after 1970");
    assert_eq!(since.as_secs(), 1_056_276_673, "on the host's file, too");
    let properties = r#"<propfind xmlns="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><prop><Z:Win32FileAttributes/><Z:Win32LastModifiedTime/></prop></propfind>"#;
    let found = windows.send_authenticated(&format!("PROPFIND {path}"), &["Depth: 0"], properties).await;
    assert!(found.body.contains("00000020"), "attributes are kept: {}", found.body);
    let target = format!("Destination: {}", windows.dav.url("/dav/renamed%20file.txt"));
    assert_eq!(
        windows
            .send_authenticated(&format!("MOVE {path}"), &["translate: f", "Overwrite: F", &target], "")
            .await
            .status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_explorer_creates_renames_and_deletes_a_directory() {
    let gateway = Fixture::start().await;
    let windows = ReplayClient::new(&gateway, WINDOWS_USER_AGENT).await;
    let usual = ["Cache-Control: no-cache", "Pragma: no-cache", "translate: f"];
    let depth = [&usual[..], &["Depth: 0"]].concat();
    let folder = "/dav/New%20folder";
    assert_eq!(windows.send_authenticated(&format!("PROPFIND {folder}"), &depth, "").await.status, 404);
    assert_eq!(windows.send_authenticated(&format!("MKCOL {folder}"), &usual, "").await.status, 201);
    let times = windows_times_body("Sun, 22 Jun 2003 10:11:12 GMT");
    let patched = windows.send_authenticated(&format!("PROPPATCH {folder}"), &usual, &times).await;
    assert_eq!(patched.status, 207, "without a slash");
    assert!(!patched.body.contains("403") && patched.body.contains("200 OK"), "{}", patched.body);
    let found = windows.send_authenticated(&format!("PROPFIND {folder}"), &depth, "").await;
    assert!(found.body.contains("<D:getlastmodified>Sun, 22 Jun 2003 10:11:12 GMT<"), "{}", found.body);
    let target = format!("Destination: {}", windows.dav.url("/dav/papers"));
    let moved = [&usual[..], &["Overwrite: F", &target]].concat();
    assert_eq!(windows.send_authenticated(&format!("MOVE {folder}"), &moved, "").await.status, 201);
    assert_eq!(windows.send_authenticated(&format!("PROPFIND {folder}"), &depth, "").await.status, 404);
    let listing = windows.send_authenticated("PROPFIND /dav/papers", &[&usual[..], &["Depth: 1"]].concat(), "").await;
    assert_eq!((listing.status, listing.body.matches("<D:response>").count()), (207, 1), "{}", listing.body);
    assert_eq!(windows.send_authenticated("DELETE /dav/papers", &usual, "").await.status, 204);
}

/// An editor that opens a file of a mapped drive holds its lock while the redirector reads it, and keeps a file of its
/// own beside it, which it locks, reads and unlocks again.
#[tokio::test(flavor = "multi_thread")]
async fn windows_explorer_locks_a_file_open_in_an_editor() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/plan.docx", "first version");
    let windows = ReplayClient::new(&gateway, WINDOWS_USER_AGENT).await;
    let (path, owner_file) = ("/dav/plan.docx", "/dav/~%24plan.docx");
    let headers = ["translate: f", "Timeout: Second-3600", "Content-Type: text/xml; charset=\"utf-8\""];
    let lock = windows.send_authenticated(&format!("LOCK {path}"), &headers, WINDOWS_LOCK_BODY).await;
    assert_eq!(lock.status, 200);
    let lock_token = lock.header("lock-token").to_owned();
    assert_eq!(
        windows.send_authenticated(&format!("GET {path}"), &["translate: f"], "").await.body,
        "first version",
        "while locked"
    );
    assert_eq!(
        windows.send_authenticated(&format!("PROPFIND {owner_file}"), &["Depth: 0", "translate: f"], "").await.status,
        404
    );
    assert_eq!(windows.send_authenticated(&format!("PUT {owner_file}"), &["translate: f"], "").await.status, 201);
    for content in ["alice", ""] {
        let lock = windows.send_authenticated(&format!("LOCK {owner_file}"), &headers, WINDOWS_LOCK_BODY).await;
        assert_eq!(lock.status, 200, "again, once it is unlocked");
        let token = lock.header("lock-token").to_owned();
        let unlock = format!("Lock-Token: {token}");
        if content.is_empty() {
            assert_eq!(
                windows.send_authenticated(&format!("GET {owner_file}"), &["translate: f"], "").await.body,
                "alice"
            );
        } else {
            let submitted = format!("If: ({token})");
            assert_eq!(
                windows.send_authenticated(&format!("HEAD {owner_file}"), &["translate: f"], "").await.status,
                200
            );
            let put =
                windows.send_authenticated(&format!("PUT {owner_file}"), &["translate: f", &submitted], content).await;
            assert_eq!(put.status, 204);
            let hidden = windows_proppatch_body("<Z:Win32FileAttributes>00000022</Z:Win32FileAttributes>");
            let patched = windows
                .send_authenticated(&format!("PROPPATCH {owner_file}"), &["translate: f", &submitted], &hidden)
                .await;
            assert!(patched.body.contains("200 OK"), "{}", patched.body);
        }
        assert_eq!(
            windows.send_authenticated(&format!("UNLOCK {owner_file}"), &["translate: f", &unlock], "").await.status,
            204
        );
    }
    let submitted = format!("If: ({lock_token})");
    assert_eq!(
        windows
            .send_authenticated(&format!("PUT {path}"), &["translate: f", &submitted], "second version")
            .await
            .status,
        204
    );
    let unlock = format!("Lock-Token: {lock_token}");
    assert_eq!(windows.send_authenticated(&format!("UNLOCK {path}"), &["translate: f", &unlock], "").await.status, 204);
    assert_eq!(windows.send_authenticated(&format!("DELETE {owner_file}"), &["translate: f"], "").await.status, 204);
}

const FINDER_USER_AGENT: &str = "WebDAVFS/3.0.0 (03008000) Darwin/23.6.0 (arm64)";
const FINDER_LOCK_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<D:lockinfo xmlns:D="DAV:">
<D:lockscope><D:exclusive/></D:lockscope>
<D:locktype><D:write/></D:locktype>
<D:owner>
<D:href>http://www.apple.com/webdav_fs/</D:href>
</D:owner>
</D:lockinfo>
"#;

fn finder_propfind_body(properties: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:propfind xmlns:D=\"DAV:\">\n<D:prop>{properties}</D:prop>\n</D:propfind>\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn macos_finder_mounts_and_reads_the_quota() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/folder/file", "content");
    let finder = ReplayClient::new(&gateway, FINDER_USER_AGENT).await;
    let options = finder.send_raw("OPTIONS /dav/", &["Accept: */*", "Content-Length: 0"], b"").await;
    assert_eq!(options.status, 200);
    let classes: Vec<_> = options.header("dav").split(", ").collect();
    assert!(classes.contains(&"2"), "without class 2 it mounts read-only: {classes:?}");
    let space = "<D:quota-available-bytes/><D:quota-used-bytes/><D:quota/><D:quotaused/>";
    let depth = ["Accept: */*", "Content-Type: text/xml", "Depth: 0"];
    assert_eq!(
        finder.send_raw("PROPFIND /dav/", &[&depth[..], &["Content-Length: 0"]].concat(), b"").await.status,
        401
    );
    let quota = finder.send_authenticated("PROPFIND /dav/", &depth, &finder_propfind_body(space)).await;
    assert_eq!(quota.status, 207);
    let bytes = |name: &str| {
        let text = quota.body.split(&format!("<D:{name}>")).nth(1).and_then(|rest| rest.split('<').next());
        text.and_then(|digits| digits.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name}: {}", quota.body))
    };
    assert!(bytes("quota-available-bytes") > 0);
    bytes("quota-used-bytes");
    assert!(quota.body.contains("404 Not Found"), "quota and quotaused are no properties: {}", quota.body);
    let expected = "<D:getlastmodified/><D:getcontentlength/><D:creationdate/><D:resourcetype/>";
    let depth_one = ["Accept: */*", "Content-Type: text/xml", "Depth: 1"];
    let listing = finder.send_authenticated("PROPFIND /dav/folder", &depth_one, &finder_propfind_body(expected)).await;
    assert_eq!(listing.status, 207, "a folder without its slash");
    assert!(listing.body.contains("<D:href>/dav/folder/file</D:href>"), "{}", listing.body);
    for name in ["._.", ".hidden", ".DS_Store", "._folder", ".metadata_never_index", "Backups.backupdb"] {
        let missing =
            finder.send_authenticated(&format!("PROPFIND /dav/{name}"), &depth, &finder_propfind_body(expected)).await;
        assert_eq!(missing.status, 404, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn macos_finder_copies_a_file_with_its_appledouble_companion() {
    let gateway = Fixture::start().await;
    let finder = ReplayClient::new(&gateway, FINDER_USER_AGENT).await;
    for (path, content) in [("/dav/caf%CC%81e.bin", vec![7u8; 150_000]), ("/dav/._caf%CC%81e.bin", vec![0u8; 4096])] {
        assert_eq!(
            finder.send_authenticated(&format!("PUT {path}"), &["Accept: */*"], "").await.status,
            201,
            "of no bytes"
        );
        let headers = ["Accept: */*", "Content-Type: text/xml; charset=\"utf-8\"", "Depth: 0", "Timeout: Second-600"];
        let lock = finder.send_authenticated(&format!("LOCK {path}"), &headers, FINDER_LOCK_BODY).await;
        assert_eq!(lock.status, 200);
        let token = lock.header("lock-token").to_owned();
        let (if_header, login) = (format!("If: ({token})"), finder.authorization_header());
        let length = format!("X-Expected-Entity-Length: {}", content.len());
        let mut chunks = Vec::new();
        for piece in content.chunks(65_536) {
            chunks.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunks.extend_from_slice(piece);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        let headers = [&*login, "Accept: */*", &length, &if_header, "Transfer-Encoding: Chunked"];
        assert_eq!(finder.send_raw(&format!("PUT {path}"), &headers, &chunks).await.status, 204);
        let refresh = finder
            .send_authenticated(&format!("LOCK {path}"), &["Accept: */*", "Timeout: Second-600", &if_header], "")
            .await;
        assert_eq!(refresh.status, 200, "an empty LOCK is a refresh");
        let unlock = [&*format!("Lock-Token: {token}"), "Accept: */*"];
        assert_eq!(finder.send_authenticated(&format!("UNLOCK {path}"), &unlock, "").await.status, 204);
        let head = finder.send_authenticated(&format!("HEAD {path}"), &[], "").await;
        assert_eq!(head.header("content-length"), content.len().to_string());
    }
    assert_eq!(std::fs::read(gateway.host_path("/caf\u{301}e.bin")).expect("under the name as it came").len(), 150_000);
    assert_eq!(finder.send_authenticated("DELETE /dav/._caf%CC%81e.bin", &["Accept: */*"], "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn macos_finder_reads_ranges_moves_and_deletes() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/folder/file", "0123456789");
    let old = UNIX_EPOCH + Duration::from_secs(981_173_106);
    let file = std::fs::File::options().write(true).open(gateway.host_path("/folder/file")).expect("open");
    file.set_modified(old).expect("a time at which a date is a strong validator");
    let finder = ReplayClient::new(&gateway, FINDER_USER_AGENT).await;
    let cached = "<D:getlastmodified/><D:getcontentlength/><D:resourcetype/><A:appledoubleheader xmlns:A=\"http://www.apple.com/webdav_fs/props/\"/>";
    let depth_one = ["Accept: */*", "Content-Type: text/xml", "Depth: 1"];
    let listing = finder.send_authenticated("PROPFIND /dav/folder/", &depth_one, &finder_propfind_body(cached)).await;
    assert_eq!(listing.status, 207);
    assert!(listing.body.contains("404 Not Found"), "there is no appledoubleheader: {}", listing.body);
    let get = finder.send_authenticated("GET /dav/folder/file", &["Accept: */*"], "").await;
    assert_eq!((get.status, &*get.body), (200, "0123456789"));
    let since = format!("If-Modified-Since: {}", get.header("last-modified"));
    assert_eq!(finder.send_authenticated("GET /dav/folder/file", &["Accept: */*", &since], "").await.status, 304);
    let rest = format!("If-Range: {}", get.header("last-modified"));
    let part = finder.send_authenticated("GET /dav/folder/file", &["Accept: */*", &rest, "Range: bytes=4-"], "").await;
    assert_eq!((part.status, &*part.body), (206, "456789"));
    let target = format!("Destination: {}", finder.dav.url("/dav/folder/other"));
    assert_eq!(finder.send_authenticated("MOVE /dav/folder/file", &["Accept: */*", &target], "").await.status, 201);
    let lock = ["Accept: */*", "Content-Type: text/xml; charset=\"utf-8\"", "Depth: 0", "Timeout: Second-600"];
    let lock = finder.send_authenticated("LOCK /dav/folder/other", &lock, FINDER_LOCK_BODY).await;
    let if_header = format!("If: ({})", lock.header("lock-token"));
    assert_eq!(
        finder.send_authenticated("DELETE /dav/folder/other", &["Accept: */*", &if_header], "").await.status,
        204,
        "while locked"
    );
    let count = finder
        .send_authenticated("PROPFIND /dav/folder/", &depth_one, &finder_propfind_body("<D:resourcetype/>"))
        .await;
    assert_eq!(count.body.matches("<D:response>").count(), 1, "it removes a folder only when it is empty");
    assert_eq!(finder.send_authenticated("DELETE /dav/folder/", &["Accept: */*"], "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn office_opens_locks_saves_and_unlocks_a_document() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/docs/plan.docx", "first version");
    let office = ReplayClient::new(&gateway, "Microsoft Office Word 2016").await;
    let path = "/dav/docs/plan.docx";
    let discovery = office
        .send_authenticated("OPTIONS /dav/docs/", &["X-Office-Major-Version: 16", "X-MS-CookieUri-Requested: t"], "")
        .await;
    assert_eq!((discovery.status, discovery.header("ms-author-via")), (200, "DAV"));
    assert!(discovery.header("allow").contains("LOCK"), "{}", discovery.head);
    let head = office.send_authenticated(&format!("HEAD {path}"), &["X-Office-Major-Version: 16"], "").await;
    assert_eq!(head.status, 200);
    let kind = head.header("content-type");
    assert_eq!(kind, "application/vnd.openxmlformats-officedocument.wordprocessingml.document");
    let headers = ["Content-Type: text/xml; charset=\"utf-8\"", "Timeout: Second-3600", "Depth: 0", "translate: f"];
    let lock = office.send_authenticated(&format!("LOCK {path}"), &headers, WINDOWS_LOCK_BODY).await;
    assert_eq!(lock.status, 200);
    let token = lock.header("lock-token").to_owned();
    assert!(token.starts_with('<') && lock.body.contains(token.trim_matches(['<', '>'])), "in header and body");
    let get = office.send_authenticated(&format!("GET {path}"), &["translate: f"], "").await;
    assert_eq!((get.status, &*get.body), (200, "first version"));
    let etag = get.header("etag").to_owned();
    for (line, status) in [("GET /_vti_inf.html", 404), ("PROPFIND /dav/docs/~$plan.docx", 404)] {
        assert_eq!(office.send_authenticated(line, &["Depth: 0"], "").await.status, status, "{line}");
    }
    let frontpage = office
        .send_authenticated(
            "POST /_vti_bin/shtml.exe/_vti_rpc",
            &["X-Vermeer-Content-Type: application/x-www-form-urlencoded"],
            "method=server+version",
        )
        .await;
    assert!([404, 405].contains(&frontpage.status), "{}", frontpage.status);
    let without_token = office.send_authenticated(&format!("PUT {path}"), &["translate: f"], "stolen").await;
    assert_eq!(without_token.status, 423, "without the lock");
    let if_header = format!("If: ({token})");
    let refresh = office.send_authenticated(&format!("LOCK {path}"), &["Timeout: Second-3600", &if_header], "").await;
    assert_eq!(refresh.status, 200);
    let save = office
        .send_authenticated(
            &format!("PUT {path}"),
            &["translate: f", &if_header, docx_content_type_header(), "Overwrite: T"],
            "second version",
        )
        .await;
    assert_eq!(save.status, 204);
    assert!(!save.header("etag").is_empty() && save.header("etag") != etag, "{}", save.head);
    let unlock = office
        .send_authenticated(&format!("UNLOCK {path}"), &["translate: f", &format!("Lock-Token: {token}")], "")
        .await;
    assert_eq!(unlock.status, 204);
    assert_eq!(office.send_authenticated(&format!("GET {path}"), &[], "").await.body, "second version");
}

fn docx_content_type_header() -> &'static str {
    "Content-Type: application/vnd.openxmlformats-officedocument.wordprocessingml.document"
}

/// Office looks for a document that was opened from a mapped drive before it has any credential of its own; what it is
/// told is the same whether there is one or not.
#[tokio::test(flavor = "multi_thread")]
async fn office_discovers_the_server_without_credentials() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/docs/plan.docx", "content");
    let office = ReplayClient::new(&gateway, "Microsoft Office Existence Discovery").await;
    let mut answers = Vec::new();
    for credential in [&["Authorization: Bearer"][..], &[]] {
        let headers =
            [&["X-Office-Major-Version: 16", "X-IDCRL_ACCEPTED: t", "Content-Length: 0"], credential].concat();
        let options = office.send_raw("OPTIONS /dav/docs/", &headers, b"").await;
        assert_eq!((options.status, options.header("ms-author-via")), (200, "DAV"), "{credential:?}");
        for path in ["/dav/docs/plan.docx", "/dav/docs/missing.docx", "/dav/none/at/all"] {
            let head = office.send_raw(&format!("HEAD {path}"), &headers, b"").await;
            assert_eq!(head.status, 200, "{path} {credential:?}");
            answers.push(head.head.lines().filter(|line| !line.starts_with("date")).collect::<Vec<_>>().join("\n"));
        }
        let get = office.send_raw("GET /dav/docs/plan.docx", &headers, b"").await;
        assert_eq!(get.status, 401, "{credential:?}");
        assert!(get.header("www-authenticate").starts_with("Basic realm="), "{}", get.head);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let headers = ["Authorization: Bearer pgt_wrong", "Content-Length: 0"];
    assert_eq!(office.send_raw("HEAD /dav/docs/plan.docx", &headers, b"").await.status, 401, "a wrong one is refused");
    let other = ReplayClient { gateway: &gateway, dav: gateway.dav("alice", "none"), agent: "curl/8" };
    assert_eq!(other.send_raw("HEAD /dav/docs/plan.docx", &["Content-Length: 0"], b"").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn word_2016_saves_with_its_lock_in_another_header() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/plan.docx", "first version");
    let office = ReplayClient::new(&gateway, "Microsoft Office Word 2016").await;
    let headers = ["Content-Type: text/xml; charset=\"utf-8\"", "Timeout: Second-3600", "Depth: 0", "translate: f"];
    let lock = office.send_authenticated("LOCK /dav/plan.docx", &headers, WINDOWS_LOCK_BODY).await;
    let token = lock.header("lock-token").to_owned();
    let another = "Lock-Token: <urn:uuid:00000000-0000-4000-8000-000000000000>";
    assert_eq!(office.send_authenticated("PUT /dav/plan.docx", &["translate: f", another], "stolen").await.status, 423);
    let lock_header = format!("Lock-Token: {token}");
    assert_eq!(
        office.send_authenticated("PUT /dav/plan.docx", &["translate: f", &lock_header], "second version").await.status,
        204
    );
    assert_eq!(
        office.send_authenticated("UNLOCK /dav/plan.docx", &["translate: f", &lock_header], "").await.status,
        204
    );
    assert_eq!(std::fs::read(gateway.host_path("/plan.docx")).expect("read"), b"second version");
}

const ZOTERO_USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Zotero/7.0.0";

#[tokio::test(flavor = "multi_thread")]
async fn zotero_verifies_the_server_and_stores_attachments() {
    let gateway = Fixture::start().await;
    let zotero = ReplayClient::new(&gateway, ZOTERO_USER_AGENT).await;
    let xml = ["Content-Type: text/xml; charset=UTF-8", "Depth: 0", "Accept: */*"];
    let find = "<propfind xmlns='DAV:'><prop><getcontentlength/></prop></propfind>";
    let options = zotero.send_authenticated("OPTIONS /dav/zotero/", &["Accept: */*"], "").await;
    assert!(options.status == 200 && !options.header("dav").is_empty(), "{}", options.head);
    assert_eq!(zotero.send_authenticated("PROPFIND /dav/zotero/", &xml, find).await.status, 404);
    assert_eq!(
        zotero.send_authenticated("PROPFIND /dav/", &xml, find).await.status,
        207,
        "it offers to make the folder"
    );
    assert_eq!(zotero.send_authenticated("MKCOL /dav/zotero/", &["Accept: */*"], "").await.status, 201);
    assert_eq!(zotero.send_authenticated("PROPFIND /dav/zotero/", &xml, find).await.status, 207);
    assert_eq!(zotero.send_authenticated("GET /dav/zotero/nonexistent.prop", &["Accept: */*"], "").await.status, 404);
    let test = "/dav/zotero/zotero-test-file.prop";
    assert_eq!(
        zotero
            .send_authenticated(&format!("PUT {test}"), &["Content-Type: text/plain;charset=UTF-8"], " ")
            .await
            .status,
        201
    );
    assert_eq!(zotero.send_authenticated(&format!("GET {test}"), &["Accept: */*"], "").await.body, " ");
    assert_eq!(zotero.send_authenticated(&format!("DELETE {test}"), &["Accept: */*"], "").await.status, 204);

    let (zip, prop) = ("/dav/zotero/S37JLNQD.zip", "/dav/zotero/S37JLNQD.prop");
    let about = r#"<properties version="1"><mtime>1635996000000</mtime><hash>0cc175b9c0f1b6a831c399e269772661</hash></properties>"#;
    let dropped = zotero.send_authenticated("POST /dav/zotero/", &["Accept: */*"], "").await;
    assert!([404, 405].contains(&dropped.status), "sent by the app for phones, and passed over by it");
    assert_eq!(zotero.send_authenticated(&format!("GET {prop}"), &["Cache-Control: no-cache"], "").await.status, 404);
    for (round, expected) in [("first", 201), ("second", 204)] {
        assert_eq!(
            zotero.send_authenticated(&format!("PUT {zip}"), &["Content-Type: application/zip"], round).await.status,
            expected
        );
        assert_eq!(
            zotero.send_authenticated(&format!("PUT {prop}"), &["Content-Type: text/xml"], about).await.status,
            201
        );
        let read = zotero.send_authenticated(&format!("GET {prop}"), &["Cache-Control: no-cache"], "").await;
        assert_eq!((read.status, &*read.body), (200, about));
        if round == "first" {
            assert_eq!(
                zotero.send_authenticated(&format!("DELETE {prop}"), &["Accept: */*"], "").await.status,
                204,
                "before the new .zip"
            );
        }
    }
    let dates = "<propfind xmlns='DAV:'><prop><getlastmodified/></prop></propfind>";
    let deep = ["Content-Type: text/xml; charset=UTF-8", "Depth: 1"];
    let listing = zotero.send_authenticated("PROPFIND /dav/zotero/", &deep, dates).await;
    for href in ["/dav/zotero/", zip, prop] {
        assert!(listing.body.contains(&format!("<D:href>{href}</D:href>")), "{href}: {}", listing.body);
    }
    for (path, status) in [(prop, 204), (zip, 204), (zip, 404)] {
        assert_eq!(
            zotero.send_authenticated(&format!("DELETE {path}"), &["Accept: */*"], "").await.status,
            status,
            "{path}"
        );
    }
}
