//! The order of refusals over WebDAV: rights and locks are judged before a fault of the request's own is told.

use crate::support::{Answer, Dav, Fixture};

const LOCK: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;
const XML: (&str, &str) = ("content-type", "application/xml");

/// Properties that can't be set, each with the status of a PROPPATCH by who may set others.
fn unfit() -> [(String, u16); 3] {
    let long = "x".repeat(65);
    [
        ("<D:getetag xmlns:D=\"DAV:\">x</D:getetag>".to_owned(), 207),
        ("<D:getlastmodified xmlns:D=\"DAV:\">yesterday</D:getlastmodified>".to_owned(), 207),
        (format!("<P:tags xmlns:P=\"urn:patgate\">{long}</P:tags>"), 400),
    ]
}

async fn patch(dav: &Dav, path: &str, property: &str, headers: &[(&str, &str)]) -> Answer {
    let body =
        format!("<D:propertyupdate xmlns:D=\"DAV:\"><D:set><D:prop>{property}</D:prop></D:set></D:propertyupdate>");
    dav.send("PROPPATCH", path, headers, body).await
}

async fn make(dav: &Dav, path: &str, property: &str, headers: &[(&str, &str)]) -> Answer {
    let body = format!(
        "<D:mkcol xmlns:D=\"DAV:\"><D:set><D:prop><D:resourcetype><D:collection/></D:resourcetype>{property}\
         </D:prop></D:set></D:mkcol>"
    );
    dav.send("MKCOL", path, &[&[XML], headers].concat(), body).await
}

fn content(gateway: &Fixture, path: &str) -> String {
    std::fs::read_to_string(gateway.host(path)).expect("a file")
}

/// A user who may read `/read` and write `/write`, another who has locked `/write/locked` with all in it.
async fn fixture() -> (Fixture, Dav) {
    let gateway = Fixture::start().await;
    for file in ["/read/file", "/write/file", "/write/locked/file", "/hidden/file"] {
        gateway.write(file, "content");
    }
    gateway.user("alice", &["/read:r", "/write:rw"]);
    gateway.user("bob", &["/:rw"]);
    let alice = gateway.dav("alice", &gateway.token("alice", &["-e", "1h"]));
    let bob = gateway.dav("bob", &gateway.token("bob", &["-e", "1h"]));
    assert_eq!(bob.send("LOCK", "/dav/write/locked", &[], LOCK).await.status, 200);
    (gateway, alice)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_cannot_be_set_is_told_to_none_who_may_not_set_others() {
    let (_gateway, dav) = fixture().await;
    for (property, status) in unfit() {
        let property = property.as_str();
        assert_eq!(patch(&dav, "/dav/write/file", property, &[]).await.status, status, "{property}");
        for (path, refused) in [
            ("/dav/read/file", 403),
            ("/dav/read", 403),
            ("/dav/", 403),
            ("/dav/hidden/file", 404),
            ("/dav/write/locked/file", 423),
            ("/dav/write/locked", 423),
            ("/dav/write/none", 404),
        ] {
            assert_eq!(patch(&dav, path, property, &[]).await.status, refused, "{path}: {property}");
        }
        let unlike = patch(&dav, "/dav/write/file", property, &[("if-match", "\"other\"")]).await;
        assert_eq!(unlike.status, 412, "{property}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_property_that_cannot_be_set_is_judged_as_one_without() {
    let (gateway, dav) = fixture().await;
    for (property, _) in unfit() {
        let property = property.as_str();
        assert_eq!(make(&dav, "/dav/write/new", property, &[]).await.status, 403, "{property}");
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
            let answer = make(&dav, path, property, &[]).await;
            assert_eq!(answer.status, refused, "{path}: {property}: {}", answer.text());
            let plain = dav.send("MKCOL", path, &[], "").await;
            assert_eq!(plain.status, refused, "{path}, as without properties");
        }
        let unlike = make(&dav, "/dav/write/new", property, &[("if-match", "*")]).await;
        assert_eq!(unlike.status, 412, "{property}");
        assert!(!gateway.root().join("write/new").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_below_a_file_is_a_conflict_whatever_roots_are_nested() {
    let gateway = Fixture::start().await;
    gateway.write("/outer/inner/file", "content");
    for (user, grants) in [
        ("outer-reads", &["/:r", "/outer/inner:rw"][..]),
        ("outer-drops", &["/outer:w", "/outer/inner:rw"]),
        ("inner-drops", &["/outer:r", "/outer/inner:w"]),
        ("all", &["/:rw", "/outer/inner:rw"]),
        ("one", &["/outer/inner:rw"]),
    ] {
        gateway.user(user, grants);
        let token = gateway.token(user, &["-e", "1h"]);
        let dav = gateway.dav(user, &token);
        for below in ["new", "more/new"] {
            let path = format!("/dav/outer/inner/file/{below}");
            assert_eq!(dav.put(&path, "x").await.status, 409, "PUT {path} by {user}");
            assert_eq!(dav.send("MKCOL", &path, &[], "").await.status, 409, "MKCOL {path} by {user}");
            assert_eq!(dav.send("LOCK", &path, &[], LOCK).await.status, 409, "LOCK {path} by {user}");
            for method in ["COPY", "MOVE"] {
                if user == "inner-drops" && method == "COPY" {
                    continue;
                }
                let source = "/dav/outer/inner/source";
                gateway.write("/outer/inner/source", "x");
                let answer = dav.send(method, source, &[("destination", &path)], "").await;
                assert_eq!(answer.status, 409, "{method} {source} to {path} by {user}: {}", answer.text());
            }
        }
        let mut sftp = gateway.sftp(user, &token).await;
        let refused = sftp.put("/outer/inner/file/new", b"x").await;
        assert!(refused.is_err(), "OPEN by {user}");
        assert_eq!(content(&gateway, "/outer/inner/file"), "content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_matters_to_folders_alone() {
    let gateway = Fixture::start().await;
    let dav = gateway.dav("alice", &gateway.login("alice", "/:rw"));
    for (method, depth) in
        [("MOVE", "0"), ("MOVE", "1"), ("COPY", "1"), ("COPY", "0"), ("DELETE", "0"), ("DELETE", "1")]
    {
        gateway.write("/file", "content");
        gateway.write("/folder/file", "content");
        let headers = |to| [("depth", depth), ("destination", to)];
        let moved = dav.send(method, "/dav/file", &headers("/dav/moved"), "").await;
        assert_eq!(moved.status, if method == "DELETE" { 204 } else { 201 }, "{method} with {depth}");
        assert_eq!(gateway.root().join("file").exists(), method == "COPY", "{method} with {depth}");
        let folder = dav.send(method, "/dav/folder", &headers("/dav/moved-folder"), "").await;
        let allowed = (method, depth) == ("COPY", "0");
        assert_eq!(folder.status, if allowed { 201 } else { 400 }, "{method} with {depth}: {}", folder.text());
        assert_eq!(content(&gateway, "/folder/file"), "content");
        for made in ["/dav/moved", "/dav/moved-folder"] {
            dav.send("DELETE", made, &[], "").await;
        }
    }
}
