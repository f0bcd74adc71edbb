//! Unfinished uploads of one token, seen by others: they reveal no content that the caller may not read, belong to the
//! token that created them, and can't use up the space of other tokens.

use tokio::task::JoinSet;

use crate::support::{DavClient, Fixture, token_id};

const SHA1_OF_S: &str = "SHA1:02aa629c8b16cd17a44f3a0efec2feed43937642";
const SHA1_OF_T: &str = "SHA1:c2c53d66948214258a26ca9ca845d7ac0c17f8e7";
const SHA1_OF_SECRET: &str = "SHA1:e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4";
const PARTIAL_UPDATE_CONTENT_TYPE: (&str, &str) = ("content-type", "application/x-sabredav-partialupdate");

/// A token of alice's for what its scope says.
fn scoped_dav(gateway: &Fixture, options: &[&str]) -> DavClient {
    let options: Vec<_> = ["-e", "1h"].iter().chain(options).copied().collect();
    gateway.dav("alice", &gateway.create_token("alice", &options))
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_update_in_a_drop_box_reveals_nothing_of_the_file() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/box/file", "secret");
    gateway.create_user("alice", &["/:rw"]);
    let dav = scoped_dav(&gateway, &["-s", "path:/box:w"]);
    for guess in [SHA1_OF_S, SHA1_OF_T, SHA1_OF_SECRET] {
        for digest in [("oc-checksum", guess), ("x-none", "")] {
            for range in ["bytes 0-0/1", "bytes 0-0/*", "bytes 6-6/7"] {
                let put = dav.send("PUT", "/dav/box/file", &[("content-range", range), digest], "s").await;
                assert_eq!((put.status, put.header("content-range")), (403, ""), "{guess} {range}");
            }
            for range in ["append", "bytes=0-", "bytes=99-"] {
                let headers = [PARTIAL_UPDATE_CONTENT_TYPE, ("x-update-range", range), digest];
                let patch = dav.send("PATCH", "/dav/box/file", &headers, "").await;
                assert_eq!((patch.status, patch.header("content-range")), (403, ""), "{guess} {range}");
            }
        }
    }
    assert_eq!(std::fs::read(gateway.host_path("/box/file")).expect("there"), b"secret");
    let created = dav.send("PUT", "/dav/box/new", &[("content-range", "bytes 0-2/3")], "new").await;
    assert_eq!(created.status, 201, "there is nothing to be read");
    assert_eq!(dav.put("/dav/box/file", "other").await.status, 204, "what replaces all of it is the client's own");
    let both = scoped_dav(&gateway, &["-s", "path:/box:rw"]);
    let headers = [PARTIAL_UPDATE_CONTENT_TYPE, ("x-update-range", "append"), ("oc-checksum", SHA1_OF_SECRET)];
    assert_eq!(both.send("PATCH", "/dav/box/file", &headers, "").await.status, 400);
}

async fn begin_upload(dav: &DavClient, path: &str) -> (u16, String) {
    let created = dav.send("PUT", path, &[("upload-complete", "?0")], "hidden").await;
    (created.status, created.header("location").to_owned())
}

async fn append_upload(dav: &DavClient, upload: &str) -> u16 {
    let headers = [("content-type", "application/partial-upload"), ("upload-offset", "6"), ("upload-complete", "?1")];
    dav.send("PATCH", upload, &headers, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_belong_to_the_token_that_created_them() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a");
    gateway.create_host_directory("/b");
    gateway.create_user("alice", &["/:rw"]);
    let secret = gateway.create_token("alice", &["-e", "1h", "-s", "path:/b:w"]);
    let (first, second) = (scoped_dav(&gateway, &["-s", "path:/a:rw"]), gateway.dav("alice", &secret));
    let upload_url = "/remote.php/dav/uploads/alice/up";
    let (part, assembled_url) = (format!("{upload_url}/1"), format!("{upload_url}/.file"));
    assert_eq!(second.status("MKCOL", upload_url).await, 201);
    assert_eq!(second.send("PUT", &part, &[], "hidden").await.status, 201);
    let (status, upload) = begin_upload(&second, "/dav/b/resumed").await;
    assert_eq!(status, 201);
    let to = |folder: &str| first.url(&format!("/remote.php/dav/files/alice/{folder}/file"));
    for (method, path) in [("PROPFIND", upload_url), ("DELETE", upload_url), ("DELETE", &part), ("HEAD", &upload)] {
        assert_eq!(first.status(method, path).await, 404, "{method} {path}");
    }
    assert_eq!(first.send("PUT", &part, &[], "other").await.status, 404);
    assert_eq!(first.send("MOVE", &assembled_url, &[("destination", &to("a"))], "").await.status, 404);
    assert_eq!((append_upload(&first, &upload).await, first.status("DELETE", &upload).await), (404, 404));
    assert_eq!(first.status("MKCOL", upload_url).await, 201, "a name that another token uses is free");
    assert_eq!(first.send("MOVE", &assembled_url, &[("destination", &to("a"))], "").await.status, 201);
    assert_eq!(std::fs::read(gateway.host_path("/a/file")).expect("there"), b"", "of nothing but its own parts");
    let rotated = gateway.run_cli(&["apitoken", "rotate", token_id(&secret), "-q"]);
    let second = gateway.dav("alice", rotated.trim());
    assert_eq!(
        second.send("MOVE", &assembled_url, &[("destination", &to("b"))], "").await.status,
        201,
        "another secret of it"
    );
    assert_eq!(append_upload(&second, &upload).await, 201);
    for file in ["/b/file", "/b/resumed"] {
        assert_eq!(std::fs::read(gateway.host_path(file)).expect(file), b"hidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_cannot_use_up_its_users_unfinished_uploads() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    for expected_count in [64, 64, 64, 64, 0] {
        let dav = scoped_dav(&gateway, &[]);
        let mut started = 0;
        for number in 0..65 {
            match dav.status("MKCOL", &format!("/remote.php/dav/uploads/alice/{number}")).await {
                201 => started += 1,
                status => assert_eq!(status, 507),
            }
        }
        assert_eq!(started, expected_count, "64 of each token, 256 of all");
        assert_eq!(begin_upload(&dav, "/dav/new").await.0, 507);
    }
    gateway.create_user("bob", &["/:rw"]);
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    assert_eq!(bob.status("MKCOL", "/remote.php/dav/uploads/bob/1").await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_and_chunk_names_must_be_valid_file_names() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let dav = scoped_dav(&gateway, &[]);
    let uploads_url = "/remote.php/dav/uploads/alice";
    assert_eq!(dav.status("MKCOL", &format!("{uploads_url}/{}", "x".repeat(255))).await, 201);
    assert_eq!(dav.status("MKCOL", &format!("{uploads_url}/up")).await, 201);
    for (name, status) in [("x".repeat(256), 403), ("x".repeat(60_000), 403), ("a%00b".to_owned(), 400)] {
        assert_eq!(dav.status("MKCOL", &format!("{uploads_url}/{name}")).await, status, "{} bytes", name.len());
        let part = format!("{uploads_url}/up/{name}");
        assert_eq!(dav.send("PUT", &part, &[], "x").await.status, status, "{} bytes", name.len());
    }
    let listed = dav.send("PROPFIND", &format!("{uploads_url}/up"), &[("depth", "1")], "").await.text();
    assert_eq!(listed.matches("<D:response>").count(), 1, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_limit_is_shared_by_all_uploads_of_a_token() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let dav = scoped_dav(&gateway, &[]);
    let upload_url = |upload: u32| format!("/remote.php/dav/uploads/alice/{upload}");
    assert_eq!((dav.status("MKCOL", &upload_url(0)).await, dav.status("MKCOL", &upload_url(1)).await), (201, 201));
    let mut senders = JoinSet::new();
    for first in 0..16 {
        let dav = dav.clone();
        senders.spawn(async move {
            for number in (first..10_000).step_by(16) {
                let part = format!("{}/{number}", upload_url(number / 5_000));
                assert_eq!(dav.put(&part, "").await.status, 201, "{part}");
            }
        });
    }
    senders.join_all().await;
    let part = |upload: u32, name: &str| format!("{}/{name}", upload_url(upload));
    assert_eq!(dav.put(&part(0, "one-more"), "").await.status, 507);
    assert_eq!(dav.put(&part(1, "9999"), "").await.status, 204, "one that is there already");
    assert_eq!(dav.status("DELETE", &part(1, "9999")).await, 204);
    assert_eq!(dav.put(&part(0, "one-more"), "").await.status, 201);
    let other = scoped_dav(&gateway, &[]);
    assert_eq!((other.status("MKCOL", &upload_url(0)).await, other.put(&part(0, "1"), "").await.status), (201, 201));
}
