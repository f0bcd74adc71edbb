//! Reports about request bodies and methods: content codings, content types, chunked bodies, and methods that are not
//! allowed.

use super::{send_unauthenticated, start_with_alice};
use crate::support::http1::{Http1Connection, authorization_line, request_head};

const PROPFIND_BODY: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><d:propfind xmlns:d='DAV:'><d:prop><d:resourcetype/></d:prop></d:propfind>";

/// Cryptomator's and a media player's probes of an address that is no WebDAV folder: a refused method comes with those
/// that are allowed (RFC 9110 section 15.5.6), by which they tell where they are.
#[tokio::test(flavor = "multi_thread")]
async fn method_not_allowed_lists_allowed_methods() {
    let (gateway, dav) = start_with_alice().await;
    gateway.write_host_file("/file", "content");
    for (method, path) in [
        ("PROPFIND", "/"),
        ("PUT", "/"),
        ("LOCK", "/"),
        ("POST", "/healthz"),
        ("OPTIONS", "/healthz"),
        ("PUT", "/readyz"),
        ("POST", "/dav/"),
        ("PUT", "/dav/"),
        ("MKCOL", "/dav/file"),
        ("PROPFIND", "/api/v1/tokens"),
        ("PUT", "/auth/verify"),
        ("MKCOL", "/console/tokens"),
    ] {
        let answer = dav.send(method, path, &[], "").await;
        if !path.starts_with("/console") {
            assert_eq!(answer.status, 405, "{method} {path}");
        }
        assert!(answer.status != 405 || !answer.header("allow").is_empty(), "{method} {path}: {:?}", answer.headers);
    }
    let unauthenticated = send_unauthenticated(&gateway, "PROPFIND", "/", &[]).await;
    assert_eq!((unauthenticated.status, unauthenticated.header("allow").is_empty()), (405, false));
}

/// A Go WebDAV library that a client could not upload through since it named `InodeContent-Encoding: identity`: codings are
/// compared without case, an empty list is none, and a refused one is told with what is taken (RFC 9110 sections 8.4.1
/// and 15.5.16). Compressed requests of other methods are refused as such, not as malformed.
#[tokio::test(flavor = "multi_thread")]
async fn content_codings_other_than_identity_are_refused() {
    let (_gateway, dav) = start_with_alice().await;
    for coding in ["identity", "Identity", "", "identity, "] {
        let stored = dav.send("PUT", "/dav/a", &[("content-encoding", coding)], "a").await;
        assert_eq!(stored.status / 10, 20, "{coding:?}");
        let found =
            dav.send("PROPFIND", "/dav/a", &[("content-encoding", coding), ("depth", "0")], PROPFIND_BODY).await;
        assert_eq!(found.status, 207, "{coding:?}");
    }
    for coding in ["gzip", "GZIP", "identity, br"] {
        for (method, path) in [
            ("PUT", "/dav/a"),
            ("PROPFIND", "/dav/"),
            ("PROPPATCH", "/dav/a"),
            ("LOCK", "/dav/a"),
            ("PUT", "/remote.php/webdav/a"),
            ("POST", "/api/v1/tokens"),
        ] {
            let refused = dav.send(method, path, &[("content-encoding", coding)], "\u{1f}").await;
            assert_eq!((refused.status, refused.header("accept-encoding")), (415, "identity"), "{method} {path}");
        }
    }
    assert_eq!(dav.get("/dav/a").await.text(), "a");
}

/// Joplin, AuthPass, a Rust client, litmus and others send PROPFIND with any `InodeContent-Type` or none, in chunks, in UTF-16,
/// with an empty `prop`, or after `Expect`; servers answered 400 or 415, and the user saw no files.
#[tokio::test(flavor = "multi_thread")]
async fn propfind_body_is_read_chunked_or_with_any_content_type() {
    let (gateway, dav) = start_with_alice().await;
    let propfind = async |headers: &[(&str, &str)], body: Vec<u8>| {
        dav.send("PROPFIND", "/dav/", &[headers, &[("depth", "0")]].concat(), body).await.status
    };
    for kind in [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "text/xml; charset=\"utf-8\"",
        "application/xml",
        "application/octet-stream",
    ] {
        assert_eq!(propfind(&[("content-type", kind)], PROPFIND_BODY.into()).await, 207, "{kind}");
    }
    let utf16 = PROPFIND_BODY.replace("utf-8", "utf-16");
    let units = |to_bytes: fn(u16) -> [u8; 2]| utf16.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
    assert_eq!(
        propfind(&[], [&b"\xff\xfe"[..], &units(u16::to_le_bytes)].concat()).await,
        207,
        "UTF-16, little endian"
    );
    assert_eq!(propfind(&[], [&b"\xfe\xff"[..], &units(u16::to_be_bytes)].concat()).await, 207, "UTF-16, big endian");
    assert_eq!(
        propfind(&[], [&b"\xef\xbb\xbf"[..], PROPFIND_BODY.as_bytes()].concat()).await,
        207,
        "UTF-8 with its mark"
    );
    assert_eq!(propfind(&[], "<d:propfind xmlns:d='DAV:'><d:prop/></d:propfind>".into()).await, 207, "an empty prop");
    assert_eq!(propfind(&[], PROPFIND_BODY.into()).await, 207, "without a type");
    assert_eq!(propfind(&[], Vec::new()).await, 207, "without a body");

    let mut connection = Http1Connection::open(&gateway).await;
    let lines = [&*authorization_line(&dav), "Depth: 0", "Transfer-Encoding: chunked"];
    let chunks: String = PROPFIND_BODY.as_bytes().chunks(7).fold(String::new(), |chunks, part| {
        format!("{chunks}{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part))
    });
    let chunked =
        connection.send_request(request_head(&gateway, "PROPFIND", "/dav/", &lines), chunks + "0\r\n\r\n").await;
    assert_eq!(chunked.status, 207, "in chunks: {chunked:?}");
    let length = format!("Content-Length: {}", PROPFIND_BODY.len());
    let lines = [&*authorization_line(&dav), "Depth: 0", &length, "Expect: 100-continue"];
    let asked_on = connection.send_request(request_head(&gateway, "PROPFIND", "/dav/", &lines), "").await;
    assert_eq!(asked_on.status, 100);
    connection.send(PROPFIND_BODY).await;
    assert_eq!(connection.read_response().await.status, 207);
}
