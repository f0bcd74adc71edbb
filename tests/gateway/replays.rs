//! Exchanges of clients that can't be run here, replayed as they send them, with the answers they need to go on:
//! Windows Explorer (the WebDAV Mini-Redirector), macOS Finder (webdavfs) and Microsoft Office.

use std::time::UNIX_EPOCH;

use crate::support::{Dav, Fixture, raw};

/// One client: how it names itself, and who it is.
struct Client<'a> {
    gateway: &'a Fixture,
    dav: Dav,
    agent: &'static str,
}

/// What came back.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    /// A header's value, empty when it is not there.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

impl<'a> Client<'a> {
    async fn new(gateway: &'a Fixture, agent: &'static str) -> Self {
        gateway.user("alice", &["/:rw"]);
        let token = gateway.token("alice", &["-e", "1h"]);
        Self { gateway, dav: gateway.dav("alice", &token), agent }
    }

    /// Sends a request line, headers and a body as they are, on a connection of its own.
    async fn say(&self, line: &str, headers: &[&str], body: &[u8]) -> Reply {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nConnection: close\r\n{headers}\r\n",
            self.gateway.http, self.agent
        );
        let answer = raw(self.gateway.http, &[head.as_bytes(), body].concat()).await;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {text}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Likewise, with the credentials and the body's length.
    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let (length, login) = (format!("Content-Length: {}", body.len()), self.login());
        self.say(line, &[&[&*length, &*login], headers].concat(), body.as_bytes()).await
    }

    fn login(&self) -> String {
        format!("Authorization: {}", self.dav.authorization())
    }
}

const REDIRECTOR: &str = "Microsoft-WebDAV-MiniRedir/10.0.19045";
const WINDOWS_LOCK: &str = r#"<?xml version="1.0" encoding="utf-8" ?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner><D:href>DESKTOP\alice</D:href></D:owner></D:lockinfo>"#;

fn windows_times(modified: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop><Z:Win32CreationTime>Sat, 03 Feb 2001 04:05:06 GMT</Z:Win32CreationTime><Z:Win32LastAccessTime>{modified}</Z:Win32LastAccessTime><Z:Win32LastModifiedTime>{modified}</Z:Win32LastModifiedTime><Z:Win32FileAttributes>00000020</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_explorer_maps_a_drive() {
    let gateway = Fixture::start().await;
    gateway.write("/a folder/report.docx", "content");
    let windows = Client::new(&gateway, REDIRECTOR).await;
    for path in ["/", "/dav", "/dav/"] {
        let options = windows.say(&format!("OPTIONS {path}"), &["translate: f", "Content-Length: 0"], b"").await;
        assert_eq!(options.status, 200, "{path}");
        assert_eq!(options.header("ms-author-via"), "DAV", "{path}");
        assert!(options.header("dav").starts_with("1, 2"), "{path}: {}", options.header("dav"));
    }
    let stranger = windows.say("PROPFIND /dav", &["Depth: 0", "translate: f", "Content-Length: 0"], b"").await;
    assert_eq!(stranger.status, 401);
    assert!(stranger.header("www-authenticate").starts_with("Basic realm="), "{}", stranger.head);
    for path in ["/dav", "/dav/", "/dav/a%20folder", "/dav/a%20folder/report.docx"] {
        let found = windows.ask(&format!("PROPFIND {path}"), &["Depth: 0", "translate: f"], "").await;
        assert_eq!(found.status, 207, "{path}");
        for property in ["creationdate", "getlastmodified", "resourcetype", "displayname"] {
            assert!(found.body.contains(&format!("<D:{property}>")), "{path} has no {property}: {}", found.body);
        }
        assert_eq!(found.body.contains("<D:collection/>"), !path.ends_with("docx"), "{path}");
    }
    let listing = windows.ask("PROPFIND /dav/a%20folder", &["Depth: 1", "translate: f"], "").await;
    assert!(listing.body.contains("<D:href>/dav/a%20folder/report.docx</D:href>"), "{}", listing.body);
    assert!(listing.body.contains("<D:getcontentlength>7</D:getcontentlength>"), "{}", listing.body);
    for missing in ["/dav/desktop.ini", "/dav/a%20folder/Thumbs.db", "/dav/AutoRun.inf"] {
        assert_eq!(windows.ask(&format!("PROPFIND {missing}"), &["Depth: 0", "translate: f"], "").await.status, 404);
    }
    let file = windows.ask("GET /dav/a%20folder/report.docx", &["translate: f"], "").await;
    assert_eq!((file.status, &*file.body), (200, "content"));
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_explorer_copies_a_file_in_with_its_times() {
    let gateway = Fixture::start().await;
    let windows = Client::new(&gateway, REDIRECTOR).await;
    let path = "/dav/new%20file.txt";
    assert_eq!(windows.ask(&format!("PROPFIND {path}"), &["Depth: 0", "translate: f"], "").await.status, 404);
    assert_eq!(windows.ask(&format!("PUT {path}"), &["translate: f"], "").await.status, 201, "of no bytes");
    let headers = ["translate: f", "Timeout: Second-3600", "Content-Type: text/xml; charset=\"utf-8\""];
    let lock = windows.ask(&format!("LOCK {path}"), &headers, WINDOWS_LOCK).await;
    assert_eq!(lock.status, 200);
    let token = lock.header("lock-token").to_owned();
    assert!(lock.body.contains("<D:timeout>Second-3600</D:timeout>"), "{}", lock.body);
    assert!(lock.body.contains("DESKTOP\\alice"), "the owner is kept: {}", lock.body);
    let held = format!("If: ({token})");
    let early = windows_times("Sun, 22 Jun 2003 10:11:12 GMT");
    let patched = windows.ask(&format!("PROPPATCH {path}"), &["translate: f", &held], &early).await;
    assert_eq!(patched.status, 207);
    assert!(!patched.body.contains("403") && patched.body.contains("200 OK"), "{}", patched.body);
    let head = windows.ask(&format!("HEAD {path}"), &["translate: f"], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "0"));
    let put = windows.ask(&format!("PUT {path}"), &["translate: f", &held], "what was copied").await;
    assert_eq!(put.status, 204);
    let late = windows_times("Sun, 22 Jun 2003 10:11:13 GMT");
    assert_eq!(windows.ask(&format!("PROPPATCH {path}"), &["translate: f", &held], &late).await.status, 207);
    let unlock = windows.ask(&format!("UNLOCK {path}"), &["translate: f", &format!("Lock-Token: {token}")], "").await;
    assert_eq!(unlock.status, 204);
    assert_eq!(
        windows.ask(&format!("HEAD {path}"), &[], "").await.header("last-modified"),
        "Sun, 22 Jun 2003 10:11:13 GMT"
    );
    let modified = gateway.host("/new file.txt").metadata().and_then(|file| file.modified()).expect("a time");
    let since = modified.duration_since(UNIX_EPOCH).expect("after 1970");
    assert_eq!(since.as_secs(), 1_056_276_673, "on the host's file, too");
    let properties = r#"<propfind xmlns="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><prop><Z:Win32FileAttributes/><Z:Win32LastModifiedTime/></prop></propfind>"#;
    let found = windows.ask(&format!("PROPFIND {path}"), &["Depth: 0"], properties).await;
    assert!(found.body.contains("00000020"), "attributes are kept: {}", found.body);
    let target = format!("Destination: {}", windows.dav.url("/dav/renamed%20file.txt"));
    assert_eq!(windows.ask(&format!("MOVE {path}"), &["translate: f", "Overwrite: F", &target], "").await.status, 201);
    assert_eq!(windows.ask("MKCOL /dav/New%20folder", &["translate: f"], "").await.status, 201);
    assert_eq!(windows.ask("DELETE /dav/New%20folder", &["translate: f"], "").await.status, 204);
}

const FINDER: &str = "WebDAVFS/3.0.0 (03008000) Darwin/23.6.0 (arm64)";
const FINDER_LOCK: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<D:lockinfo xmlns:D="DAV:">
<D:lockscope><D:exclusive/></D:lockscope>
<D:locktype><D:write/></D:locktype>
<D:owner>
<D:href>http://www.apple.com/webdav_fs/</D:href>
</D:owner>
</D:lockinfo>
"#;

fn finder_find(properties: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:propfind xmlns:D=\"DAV:\">\n<D:prop>{properties}</D:prop>\n</D:propfind>\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn macos_finder_mounts_and_asks_for_the_room() {
    let gateway = Fixture::start().await;
    gateway.write("/folder/file", "content");
    let finder = Client::new(&gateway, FINDER).await;
    let options = finder.say("OPTIONS /dav/", &["Accept: */*", "Content-Length: 0"], b"").await;
    assert_eq!(options.status, 200);
    let classes: Vec<_> = options.header("dav").split(", ").collect();
    assert!(classes.contains(&"2"), "without class 2 it mounts read-only: {classes:?}");
    let space = "<D:quota-available-bytes/><D:quota-used-bytes/><D:quota/><D:quotaused/>";
    let depth = ["Accept: */*", "Content-Type: text/xml", "Depth: 0"];
    assert_eq!(finder.say("PROPFIND /dav/", &[&depth[..], &["Content-Length: 0"]].concat(), b"").await.status, 401);
    let room = finder.ask("PROPFIND /dav/", &depth, &finder_find(space)).await;
    assert_eq!(room.status, 207);
    let bytes = |name: &str| {
        let text = room.body.split(&format!("<D:{name}>")).nth(1).and_then(|rest| rest.split('<').next());
        text.and_then(|digits| digits.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name}: {}", room.body))
    };
    assert!(bytes("quota-available-bytes") > 0);
    bytes("quota-used-bytes");
    assert!(room.body.contains("404 Not Found"), "quota and quotaused are no properties: {}", room.body);
    let wanted = "<D:getlastmodified/><D:getcontentlength/><D:creationdate/><D:resourcetype/>";
    let one = ["Accept: */*", "Content-Type: text/xml", "Depth: 1"];
    let listing = finder.ask("PROPFIND /dav/folder", &one, &finder_find(wanted)).await;
    assert_eq!(listing.status, 207, "a folder without its slash");
    assert!(listing.body.contains("<D:href>/dav/folder/file</D:href>"), "{}", listing.body);
    for name in ["._.", ".hidden", ".DS_Store", "._folder", ".metadata_never_index", "Backups.backupdb"] {
        let missing = finder.ask(&format!("PROPFIND /dav/{name}"), &depth, &finder_find(wanted)).await;
        assert_eq!(missing.status, 404, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn macos_finder_copies_a_file_in_and_the_companion_it_keeps_beside_it() {
    let gateway = Fixture::start().await;
    let finder = Client::new(&gateway, FINDER).await;
    for (path, content) in [("/dav/caf%CC%81e.bin", vec![7u8; 150_000]), ("/dav/._caf%CC%81e.bin", vec![0u8; 4096])] {
        assert_eq!(finder.ask(&format!("PUT {path}"), &["Accept: */*"], "").await.status, 201, "of no bytes");
        let headers = ["Accept: */*", "Content-Type: text/xml; charset=\"utf-8\"", "Depth: 0", "Timeout: Second-600"];
        let lock = finder.ask(&format!("LOCK {path}"), &headers, FINDER_LOCK).await;
        assert_eq!(lock.status, 200);
        let token = lock.header("lock-token").to_owned();
        let (held, login) = (format!("If: ({token})"), finder.login());
        let length = format!("X-Expected-Entity-Length: {}", content.len());
        let mut chunks = Vec::new();
        for piece in content.chunks(65_536) {
            chunks.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunks.extend_from_slice(piece);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        let headers = [&*login, "Accept: */*", &length, &held, "Transfer-Encoding: Chunked"];
        assert_eq!(finder.say(&format!("PUT {path}"), &headers, &chunks).await.status, 204);
        let refresh = finder.ask(&format!("LOCK {path}"), &["Accept: */*", "Timeout: Second-600", &held], "").await;
        assert_eq!(refresh.status, 200, "an empty LOCK is a refresh");
        let unlock = [&*format!("Lock-Token: {token}"), "Accept: */*"];
        assert_eq!(finder.ask(&format!("UNLOCK {path}"), &unlock, "").await.status, 204);
        let head = finder.ask(&format!("HEAD {path}"), &[], "").await;
        assert_eq!(head.header("content-length"), content.len().to_string());
    }
    assert_eq!(std::fs::read(gateway.host("/caf\u{301}e.bin")).expect("under the name as it came").len(), 150_000);
    assert_eq!(finder.ask("DELETE /dav/._caf%CC%81e.bin", &["Accept: */*"], "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn office_opens_locks_saves_and_unlocks_a_document() {
    let gateway = Fixture::start().await;
    gateway.write("/docs/plan.docx", "first version");
    let office = Client::new(&gateway, "Microsoft Office Word 2016").await;
    let path = "/dav/docs/plan.docx";
    let discovery =
        office.ask("OPTIONS /dav/docs/", &["X-Office-Major-Version: 16", "X-MS-CookieUri-Requested: t"], "").await;
    assert_eq!((discovery.status, discovery.header("ms-author-via")), (200, "DAV"));
    assert!(discovery.header("allow").contains("LOCK"), "{}", discovery.head);
    let head = office.ask(&format!("HEAD {path}"), &["X-Office-Major-Version: 16"], "").await;
    assert_eq!(head.status, 200);
    let kind = head.header("content-type");
    assert_eq!(kind, "application/vnd.openxmlformats-officedocument.wordprocessingml.document");
    let headers = ["Content-Type: text/xml; charset=\"utf-8\"", "Timeout: Second-3600", "Depth: 0", "translate: f"];
    let lock = office.ask(&format!("LOCK {path}"), &headers, WINDOWS_LOCK).await;
    assert_eq!(lock.status, 200);
    let token = lock.header("lock-token").to_owned();
    assert!(token.starts_with('<') && lock.body.contains(token.trim_matches(['<', '>'])), "in header and body");
    let get = office.ask(&format!("GET {path}"), &["translate: f"], "").await;
    assert_eq!((get.status, &*get.body), (200, "first version"));
    let etag = get.header("etag").to_owned();
    for (line, status) in [("GET /_vti_inf.html", 404), ("PROPFIND /dav/docs/~$plan.docx", 404)] {
        assert_eq!(office.ask(line, &["Depth: 0"], "").await.status, status, "{line}");
    }
    let frontpage = office
        .ask(
            "POST /_vti_bin/shtml.exe/_vti_rpc",
            &["X-Vermeer-Content-Type: application/x-www-form-urlencoded"],
            "method=server+version",
        )
        .await;
    assert!([404, 405].contains(&frontpage.status), "{}", frontpage.status);
    let stranger = office.ask(&format!("PUT {path}"), &["translate: f"], "stolen").await;
    assert_eq!(stranger.status, 423, "without the lock");
    let held = format!("If: ({token})");
    let refresh = office.ask(&format!("LOCK {path}"), &["Timeout: Second-3600", &held], "").await;
    assert_eq!(refresh.status, 200);
    let save = office
        .ask(&format!("PUT {path}"), &["translate: f", &held, kind_header(), "Overwrite: T"], "second version")
        .await;
    assert_eq!(save.status, 204);
    assert!(!save.header("etag").is_empty() && save.header("etag") != etag, "{}", save.head);
    let unlock = office.ask(&format!("UNLOCK {path}"), &["translate: f", &format!("Lock-Token: {token}")], "").await;
    assert_eq!(unlock.status, 204);
    assert_eq!(office.ask(&format!("GET {path}"), &[], "").await.body, "second version");
}

fn kind_header() -> &'static str {
    "Content-Type: application/vnd.openxmlformats-officedocument.wordprocessingml.document"
}
