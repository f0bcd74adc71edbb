//! Reports about credentials and hosts in HTTP headers: pasted with white space, sent twice, or for another host.

use super::{send_unauthenticated, start_with_alice};
use crate::support::http1::{Http1Connection, authorization_line, request_head};
use crate::support::http2::{connect, request};
use crate::support::send_raw;

/// A cloud drive and a file server whose users copied the password out of a table or a mail: Windows sent the tab along.
/// No token has white space, so none around it counts.
#[tokio::test(flavor = "multi_thread")]
async fn white_space_around_a_pasted_token_is_ignored() {
    let (gateway, _) = start_with_alice().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    for pasted in [
        format!("{token}\n"),
        format!("{token}\r\n"),
        format!("{token}\t"),
        format!("{token} "),
        format!(" {token}"),
        format!("\t{token} "),
        format!("\u{a0}{token}"),
    ] {
        let dav = gateway.dav("alice", &pasted);
        let found = dav.send("PROPFIND", "/dav/", &[("depth", "0")], "").await;
        assert_eq!((found.status, dav.status("GET", "/dav/").await), (207, 200), "{pasted:?}");
        assert_eq!(dav.status("GET", "/api/v1/tokens/self").await, 200, "{pasted:?}");
    }
    let bearer = format!("Bearer \t{token} ");
    let request = format!("GET /dav/ HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nConnection: close\r\n\r\n");
    assert!(send_raw(gateway.http, request.as_bytes()).await.starts_with(b"HTTP/1.1 200"));
    let broken = format!("{} {}", &token[..9], &token[9..]);
    assert_eq!(gateway.dav("alice", &broken).status("GET", "/dav/").await, 401, "white space within one does");
}

/// A proxy that adds its own `Authorization` to a client's: which of two that differ counts is nobody's guess (RFC 9110
/// section 5.3).
#[tokio::test(flavor = "multi_thread")]
async fn conflicting_authorization_headers_are_refused() {
    let (gateway, dav) = start_with_alice().await;
    let right = authorization_line(&dav);
    for (one, other, status) in
        [(&*right, "Authorization: Basic eDp5", 400), ("Authorization: Basic eDp5", &right, 400), (&right, &right, 207)]
    {
        let mut connection = Http1Connection::open(&gateway).await;
        let answer =
            connection.send_request(request_head(&gateway, "PROPFIND", "/dav/", &["Depth: 0", one, other]), "").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

/// A request over HTTP/2 whose `Host` is not its `:authority` is malformed (RFC 9113 section 8.3.1), as one with two
/// hosts is over HTTP/1.1: a proxy in front may have judged the other one.
#[tokio::test(flavor = "multi_thread")]
async fn host_header_that_differs_from_the_authority_is_refused() {
    let (gateway, dav) = start_with_alice().await;
    let mut requests = connect(&gateway).await;
    let own_authority = gateway.http.to_string();
    for (host, status) in [(&*own_authority, 207), ("other.example", 400)] {
        let headers = [("host", host), ("authorization", dav.authorization()), ("depth", "0")];
        let (response, _) =
            requests.send_request(request(&gateway, "PROPFIND", "/dav/", &headers), true).expect("sent");
        assert_eq!(response.await.expect("a response").status(), status, "{host}");
    }
    let mut connection = Http1Connection::open(&gateway).await;
    let two =
        request_head(&gateway, "PROPFIND", "/dav/", &[&*authorization_line(&dav), "Depth: 0", "Host: other.example"]);
    assert_eq!(connection.send_request(two, "").await.status, 400, "two hosts over HTTP/1.1");
}

/// RetroArch, a FUSE client, a media player, Windows and nginx's users: what OPTIONS and HEAD say before and after the
/// login decides whether a client takes the address for WebDAV at all, and which way of login it uses.
#[tokio::test(flavor = "multi_thread")]
async fn options_advertises_capabilities_before_and_after_login() {
    let (gateway, dav) = start_with_alice().await;
    gateway.create_host_directory("/folder");
    for path in ["/dav/", "/dav/folder", "/remote.php/webdav/"] {
        let with = dav.send("OPTIONS", path, &[], "").await;
        for answer in [send_unauthenticated(&gateway, "OPTIONS", path, &[]).await, with] {
            let listed =
                |name: &str| answer.header(name).split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>();
            assert_eq!((answer.status, answer.header("ms-author-via")), (200, "DAV"), "{path}");
            assert!(["1", "2"].iter().all(|class| listed("dav").contains(&(*class).to_owned())), "{answer:?}");
            for method in ["PUT", "PROPFIND", "LOCK", "MOVE"] {
                assert!(listed("allow").contains(&method.to_owned()), "{method} {path}");
            }
        }
    }
    let root = send_unauthenticated(&gateway, "OPTIONS", "/", &[]).await;
    assert_eq!(root.header("ms-author-via"), "DAV", "Windows asks the root of the server");
    for path in ["/dav/", "/dav", "/dav/folder/", "/dav/folder"] {
        let status = dav.status("HEAD", path).await;
        assert!(status == 200 || (!path.ends_with('/') && [301, 307, 308].contains(&status)), "{path}: {status}");
        assert_eq!(dav.send("PROPFIND", path, &[("depth", "0")], "").await.status, 207, "{path}");
    }
    for method in ["HEAD", "GET", "PROPFIND", "PUT"] {
        let refused = send_unauthenticated(&gateway, method, "/dav/", &[]).await;
        assert_eq!(refused.status, 401, "{method}");
        assert!(refused.header("www-authenticate").starts_with("Basic "), "{method}: Basic is the first: {refused:?}");
    }
}
