//! The order of refusals over WebDAV: permissions and locks are checked before faults of the request are reported, so
//! that a caller without permission learns nothing.

use crate::support::{DavClient, Fixture, HttpResponse, LOCK_BODY};

const XML: (&str, &str) = ("content-type", "application/xml");

/// Properties that can't be set, each with the status of a PROPPATCH by who may set others.
fn protected_properties() -> [(String, u16); 3] {
    let long = "x".repeat(65);
    [
        ("<D:getetag xmlns:D=\"DAV:\">x</D:getetag>".to_owned(), 207),
        ("<D:getlastmodified xmlns:D=\"DAV:\">yesterday</D:getlastmodified>".to_owned(), 207),
        (format!("<P:tags xmlns:P=\"urn:patgate\">{long}</P:tags>"), 400),
    ]
}

async fn proppatch(dav: &DavClient, path: &str, property: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let body =
        format!("<D:propertyupdate xmlns:D=\"DAV:\"><D:set><D:prop>{property}</D:prop></D:set></D:propertyupdate>");
    dav.send("PROPPATCH", path, headers, body).await
}

async fn extended_mkcol(dav: &DavClient, path: &str, property: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let body = format!(
        "<D:mkcol xmlns:D=\"DAV:\"><D:set><D:prop><D:resourcetype><D:collection/></D:resourcetype>{property}\
         </D:prop></D:set></D:mkcol>"
    );
    dav.send("MKCOL", path, &[&[XML], headers].concat(), body).await
}

fn read_host(gateway: &Fixture, path: &str) -> String {
    std::fs::read_to_string(gateway.host_path(path)).expect("a file")
}

/// A user who may read `/read` and write `/write`, another who has locked `/write/locked` with all in it.
async fn start_gateway() -> (Fixture, DavClient) {
    let gateway = Fixture::start().await;
    for file in ["/read/file", "/write/file", "/write/locked/file", "/hidden/file"] {
        gateway.write_host_file(file, "content");
    }
    gateway.create_user("alice", &["/read:r", "/write:rw"]);
    gateway.create_user("bob", &["/:rw"]);
    let alice = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    assert_eq!(bob.send("LOCK", "/dav/write/locked", &[], LOCK_BODY).await.status, 200);
    (gateway, alice)
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_property_is_reported_only_to_callers_with_write_permission() {
    let (_gateway, dav) = start_gateway().await;
    for (property, status) in protected_properties() {
        let property = property.as_str();
        assert_eq!(proppatch(&dav, "/dav/write/file", property, &[]).await.status, status, "{property}");
        for (path, refused) in [
            ("/dav/read/file", 403),
            ("/dav/read", 403),
            ("/dav/", 403),
            ("/dav/hidden/file", 404),
            ("/dav/write/locked/file", 423),
            ("/dav/write/locked", 423),
            ("/dav/write/none", 404),
        ] {
            assert_eq!(proppatch(&dav, path, property, &[]).await.status, refused, "{path}: {property}");
        }
        let unlike = proppatch(&dav, "/dav/write/file", property, &[("if-match", "\"other\"")]).await;
        assert_eq!(unlike.status, 412, "{property}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mkcol_with_protected_property_is_authorized_like_plain_mkcol() {
    let (gateway, dav) = start_gateway().await;
    for (property, _) in protected_properties() {
        let property = property.as_str();
        assert_eq!(extended_mkcol(&dav, "/dav/write/new", property, &[]).await.status, 403, "{property}");
        for (path, refused) in [
            ("/dav/read/new", 403),
            ("/dav/new", 403),
            ("/dav/hidden/new", 409),
            ("/dav/write/none/new", 409),
            ("/dav/write/file/new", 409),
            ("/dav/write/locked/new", 423),
            ("/dav/write/file", 405),
            ("/dav/read/file", 405),
        ] {
            let answer = extended_mkcol(&dav, path, property, &[]).await;
            assert_eq!(answer.status, refused, "{path}: {property}: {}", answer.text());
            let plain = dav.send("MKCOL", path, &[], "").await;
            assert_eq!(plain.status, refused, "{path}, as without properties");
        }
        let unlike = extended_mkcol(&dav, "/dav/write/new", property, &[("if-match", "*")]).await;
        assert_eq!(unlike.status, 412, "{property}");
        assert!(!gateway.root().join("write/new").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_below_a_file_is_a_conflict_under_nested_grants() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/outer/inner/file", "content");
    for (user, grants) in [
        ("outer-reads", &["/:r", "/outer/inner:rw"][..]),
        ("outer-drops", &["/outer:w", "/outer/inner:rw"]),
        ("inner-drops", &["/outer:r", "/outer/inner:w"]),
        ("all", &["/:rw", "/outer/inner:rw"]),
        ("one", &["/outer/inner:rw"]),
    ] {
        gateway.create_user(user, grants);
        let token = gateway.create_token(user, &["-e", "1h"]);
        let dav = gateway.dav(user, &token);
        for below in ["new", "more/new"] {
            let path = format!("/dav/outer/inner/file/{below}");
            assert_eq!(dav.put(&path, "x").await.status, 409, "PUT {path} by {user}");
            assert_eq!(dav.send("MKCOL", &path, &[], "").await.status, 409, "MKCOL {path} by {user}");
            assert_eq!(dav.send("LOCK", &path, &[], LOCK_BODY).await.status, 409, "LOCK {path} by {user}");
            for method in ["COPY", "MOVE"] {
                if user == "inner-drops" && method == "COPY" {
                    continue;
                }
                let source = "/dav/outer/inner/source";
                gateway.write_host_file("/outer/inner/source", "x");
                let answer = dav.send(method, source, &[("destination", &path)], "").await;
                assert_eq!(answer.status, 409, "{method} {source} to {path} by {user}: {}", answer.text());
            }
        }
        let mut sftp = gateway.sftp(user, &token).await;
        let refused = sftp.put("/outer/inner/file/new", b"x").await;
        assert!(refused.is_err(), "OPEN by {user}");
        assert_eq!(read_host(&gateway, "/outer/inner/file"), "content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_header_applies_only_to_collections() {
    let gateway = Fixture::start().await;
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    for (method, depth) in
        [("MOVE", "0"), ("MOVE", "1"), ("COPY", "1"), ("COPY", "0"), ("DELETE", "0"), ("DELETE", "1")]
    {
        gateway.write_host_file("/file", "content");
        gateway.write_host_file("/folder/file", "content");
        let headers = |to| [("depth", depth), ("destination", to)];
        let moved = dav.send(method, "/dav/file", &headers("/dav/moved"), "").await;
        assert_eq!(moved.status, if method == "DELETE" { 204 } else { 201 }, "{method} with {depth}");
        assert_eq!(gateway.root().join("file").exists(), method == "COPY", "{method} with {depth}");
        let folder = dav.send(method, "/dav/folder", &headers("/dav/moved-folder"), "").await;
        let allowed = (method, depth) == ("COPY", "0");
        assert_eq!(folder.status, if allowed { 201 } else { 400 }, "{method} with {depth}: {}", folder.text());
        assert_eq!(read_host(&gateway, "/folder/file"), "content");
        for created in ["/dav/moved", "/dav/moved-folder"] {
            dav.send("DELETE", created, &[], "").await;
        }
    }
}
