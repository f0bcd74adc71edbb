//! Reports about URLs as clients and proxies build them: doubled slashes, unescaped names, trailing slashes.

use super::start_with_alice;
use crate::support::send_raw;

/// Kodi (a location that was added by hand), the clients of dCache, ownCloud, Nextcloud and eXist-db, floccus, and proxies
/// join base and path with one slash too many. nginx and Apache take two slashes for one, and so did the users.
#[tokio::test(flavor = "multi_thread")]
async fn empty_segments_and_unneeded_percent_encoding_are_equivalent() {
    let (gateway, client) = start_with_alice().await;
    let node = gateway.node_id("/");
    gateway.write_host_file("d/a", "a");
    for path in [
        "//dav/d/a",
        "/dav//d///a",
        "/%64av/%64/%61",
        "/dav/d//a",
        "/remote%2Ephp/dav/files/alice//d/a",
        "//remote.php//webdav/d/a",
        &format!("/n%6Fde//{}/d/a", node.replace('-', "%2D")),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            client.authorization()
        );
        let answer = String::from_utf8_lossy(&send_raw(gateway.http, request.as_bytes()).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\na"), "{path}: {answer}");
    }
    for (path, status) in
        [("/%68ealthz", 200), ("//healthz", 200), ("/api//v1/openapi%2Ejson", 200), ("/c%6Fnsole//", 303)]
    {
        assert_eq!(client.status("GET", path).await, status, "{path}");
    }
    assert_eq!(client.status("MKCOL", "/dav//d//new//").await, 201);
    assert_eq!(client.put("/dav//d//new///b", "b").await.status, 201);
    assert!(gateway.host_path("d/new/b").exists());
    for path in ["/dav/d//", "//dav/d/", "/dav//d//new"] {
        let listing = client.send("PROPFIND", path, &[("depth", "1")], "").await;
        assert_eq!((listing.status, listing.text().contains("/dav//")), (207, false), "{path}: {}", listing.text());
    }
    for (method, to, status) in [("COPY", "//dav//d//c", 201), ("MOVE", "/dav/d//c", 204), ("MOVE", "/dav//e", 201)] {
        client.put("/dav/d/a", "a").await;
        let to = client.url(to);
        let answer = client.send(method, "/dav/d//a", &[("destination", &to)], "").await;
        assert_eq!(answer.status, status, "{method} to {to}: {}", answer.text());
    }
    assert!(gateway.host_path("d/c").exists() && gateway.host_path("e").exists());
}

/// .NET and JavaScript libraries and a FUSE client write names into `Destination` as they are, with spaces and umlauts;
/// nginx, Apache and Go's library take them.
#[tokio::test(flavor = "multi_thread")]
async fn unescaped_destination_header_is_accepted() {
    let (gateway, client) = start_with_alice().await;
    for (sent, name) in [
        (&b"sp ace.txt"[..], "sp ace.txt"),
        (b"br[ack]et.txt", "br[ack]et.txt"),
        ("\u{e4} \u{f6}.txt".as_bytes(), "\u{e4} \u{f6}.txt"),
        (b"latin-\xe9.txt", "latin-\u{e9}.txt"),
        (b"/doubled", "doubled"),
        (b"plus+tilde~.txt", "plus+tilde~.txt"),
        (b"per%20cent and space", "per cent and space"),
    ] {
        gateway.write_host_file("a", "a");
        let head = format!(
            "MOVE /dav/a HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\nDestination: http://x/dav/",
            client.authorization()
        );
        let answer = send_raw(gateway.http, &[head.as_bytes(), sent, b"\r\n\r\n"].concat()).await;
        assert!(answer.starts_with(b"HTTP/1.1 201"), "{name}: {}", answer.escape_ascii());
        assert!(gateway.host_path(name).exists(), "{name}");
    }
    for method in ["COPY", "MOVE"] {
        gateway.write_host_file("a", "a");
        let to = client.url("/dav/of two words");
        assert_eq!(client.send(method, "/dav/a", &[("destination", &to)], "").await.status / 10, 20, "{method}");
        assert_eq!(client.get("/dav/of%20two%20words").await.body, b"a");
    }
    let etag = client.get("/dav/sp%20ace.txt").await.header("etag").to_owned();
    let condition = format!("<{}> ([{etag}])", client.url("/dav/sp ace.txt"));
    assert_eq!(client.send("PUT", "/dav/sp%20ace.txt", &[("if", &condition)], "x").await.status, 204);
}

/// Nextcloud's desktop client and GNOME Online Accounts look for the base of the server by OPTIONS, some before and some
/// after the login: both are told the same, or the account can't be added.
#[tokio::test(flavor = "multi_thread")]
async fn options_answers_the_same_with_and_without_a_login() {
    let (gateway, client) = start_with_alice().await;
    for path in [
        "/remote.php/dav/",
        "/remote.php/dav",
        "/remote.php/webdav/",
        "/remote.php/dav/files/bob/",
        "/dav/",
        "/dav/missing/x",
        "/dav/%zz",
        "/node/none/",
        "/upload/none",
    ] {
        let request = |authorization: &str| {
            format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n").into_bytes()
        };
        let text = async |authorization: String| {
            let answer = String::from_utf8_lossy(&send_raw(gateway.http, &request(&authorization)).await).into_owned();
            answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
        };
        let unauthenticated = text(String::new()).await;
        assert!(unauthenticated.starts_with("HTTP/1.1 200"), "{path}: {unauthenticated}");
        assert_eq!(text(format!("Authorization: {}\r\n", client.authorization())).await, unauthenticated, "{path}");
    }
}

/// A web file manager, a PHP library and an Android file manager put a slash behind what they take for a folder, or leave
/// it out: DELETE and MOVE of a folder work either way, and a PUT with a slash behind makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn trailing_slash_on_files_and_collections_is_handled() {
    let (gateway, client) = start_with_alice().await;
    for (removed, kept) in [("/dav/d", "/dd"), ("/dav/e/", "/ee")] {
        let folder = removed.trim_end_matches('/').trim_start_matches("/dav");
        gateway.write_host_file(&format!("{folder}/x"), "x");
        gateway.write_host_file(kept, "near");
        assert_eq!(client.status("DELETE", removed).await, 204, "{removed}");
        assert!(!gateway.host_path(folder).exists());
        assert!(gateway.host_path(kept).exists(), "a neighbour whose name begins alike stays");
    }
    gateway.write_host_file("/f", "f");
    for (path, name) in [("/dav/new/", "/new"), ("/dav/dd/", "/dd"), ("/dav/none/new/", "/none")] {
        let before = std::fs::read(gateway.host_path(name)).ok();
        let status = client.put(path, "n").await.status;
        assert!([400, 403, 405, 409].contains(&status), "{path}: {status}");
        assert_eq!(std::fs::read(gateway.host_path(name)).ok(), before, "{path}");
    }
    assert_eq!(client.status("HEAD", "/dav/new").await, 404);
    gateway.create_host_directory("/g");
    for (method, from, to) in
        [("MOVE", "/dav/g/", "/dav/g2"), ("MOVE", "/dav/g2", "/dav/g3/"), ("COPY", "/dav/g3", "/dav/g4/")]
    {
        assert_eq!(client.send(method, from, &[("destination", to)], "").await.status, 201, "{method} {from} {to}");
    }
    assert!(
        gateway.host_path("/g3").is_dir() && gateway.host_path("/g4").is_dir() && !gateway.host_path("/g2").exists()
    );
}
