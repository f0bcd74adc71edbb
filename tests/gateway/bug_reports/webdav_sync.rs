//! Reports about sync and backup programs: lock files, temporary names, and MOVE over an existing file.

use super::{element, propfind, start_with_alice};
use crate::support::http1::{Http1Connection, authorization_line, request_head};

/// floccus keeps bookmarks: a lock file whose age it reads, a temporary file whose size it looks up by PROPFIND without a
/// body and picks out by a pattern, and MOVE over the bookmarks. Users lost them where one of these steps was refused.
#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_sync_through_lock_file_and_temporary_file() {
    let (gateway, dav) = start_with_alice().await;
    gateway.create_host_directory("/sync");
    let (lock, temporary, target) = ("/dav/sync/b.xbel.lock", "/dav/sync/b.xbel.temp", "/dav/sync/b.xbel");
    for (turn, replaced) in [(1, 201), (2, 204)] {
        assert_eq!(dav.get(lock).await.status, 404, "nobody else is at it");
        let html = [("content-type", "text/html")];
        assert_eq!(dav.send("PUT", lock, &html, "<html>lock</html>").await.status, 201);
        let age = dav.send("GET", lock, &[("cache-control", "no-store")], "").await;
        assert_eq!(age.status, 200);
        assert!(age.header("last-modified").ends_with(" GMT"), "its age can be told: {age:?}");
        let bookmarks = format!("<?xml version=\"1.0\"?><xbel>{}</xbel>", "\u{fc}".repeat(100 * turn));
        let xml = [("content-type", "application/xml")];
        assert_eq!(dav.send("PUT", temporary, &xml, bookmarks.clone()).await.status, 201);
        let listing = dav.send("PROPFIND", temporary, &[("depth", "0")], "").await.text();
        assert_eq!(element(&listing, "getcontentlength"), bookmarks.len().to_string(), "{listing}");
        let to = dav.url(target);
        let moved = dav.send("MOVE", temporary, &[("destination", &to), ("overwrite", "T")], "").await;
        assert_eq!(moved.status, replaced);
        assert_eq!(dav.get(target).await.text(), bookmarks);
        assert_eq!(dav.get(temporary).await.status, 404);
        assert_eq!(dav.status("DELETE", lock).await, 204);
    }
}

/// Keepass2Android saves by a transaction: a PUT without credentials that is answered 401, again with them on the same
/// connection, HEAD of the temporary file, and MOVE over the database with a port in `Destination`.
#[tokio::test(flavor = "multi_thread")]
async fn database_is_replaced_on_one_connection_after_a_challenge() {
    let (gateway, dav) = start_with_alice().await;
    gateway.write_host_file("/db.kdbx", "old".repeat(1000));
    let mut connection = Http1Connection::open(&gateway).await;
    let database = "new".repeat(300_000);
    let temporary = "/dav/db.kdbx.tmp.17471909";
    let length = format!("Content-Length: {}", database.len());
    let put = |more: &[&str]| {
        request_head(&gateway, "PUT", temporary, &[&[&*length, "User-Agent: okhttp/4.12.0"], more].concat())
    };
    let challenge = connection.send_request(put(&[]), &database).await;
    assert_eq!(challenge.status, 401);
    let schemes: Vec<_> = challenge.headers.get_all("www-authenticate").iter().collect();
    assert!(schemes.iter().any(|scheme| scheme.as_bytes().to_ascii_lowercase().starts_with(b"basic")), "{schemes:?}");
    let authorization = authorization_line(&dav);
    let stored = connection.send_request(put(&[&authorization]), &database).await;
    assert_eq!(stored.status, 201, "the same connection goes on");
    let about = connection.send_request(request_head(&gateway, "HEAD", temporary, &[&*authorization]), "").await;
    assert_eq!(about.header("content-length"), database.len().to_string());
    let destination = format!("Destination: {}", dav.url("/dav/db.kdbx"));
    let lines = [&*authorization, &*destination, "Overwrite: T"];
    assert_eq!(connection.send_request(request_head(&gateway, "MOVE", temporary, &lines), "").await.status, 204);
    assert!(dav.get("/dav/db.kdbx").await.text() == database);
    assert_eq!(dav.status("HEAD", temporary).await, 404, "no temporary file is left");
}

/// Synology's Hyper Backup makes its folders one after the other, empty lock files with odd names, asks for what is not
/// there yet, and removes what it made: each repetition has its own status (RFC 4918 sections 9.3.1 and 9.7.1).
#[tokio::test(flavor = "multi_thread")]
async fn repeated_mkcol_and_empty_put_of_a_backup_get_the_right_status() {
    let (_gateway, dav) = start_with_alice().await;
    for folder in
        ["/dav/a_2.hbk/", "/dav/a_2.hbk/Control/", "/dav/a_2.hbk/Control/lock/", "/dav/a_2.hbk/Control/@writer/"]
    {
        assert_eq!(dav.status("MKCOL", folder).await, 201, "{folder}");
        assert_eq!(dav.status("MKCOL", folder).await, 405, "{folder} again");
    }
    for name in ["lock_keep_alive.@writer_version_0.eb2457f8-192e-45b9-8e2b-135dddd60c0b", "%40a~b!c%24d", "-"] {
        let lock = format!("/dav/a_2.hbk/Control/lock/{name}");
        let empty = [("content-length", "0")];
        assert_eq!(dav.send("PUT", &lock, &empty, "").await.status, 201, "{name}");
        assert_eq!(dav.send("PUT", &lock, &empty, "").await.status, 204, "{name} once more");
        assert_eq!(dav.send("HEAD", &lock, &[], "").await.header("content-length"), "0");
        assert_eq!(dav.status("DELETE", &lock).await, 204, "{name}");
        assert_eq!(dav.status("DELETE", &lock).await, 404, "{name} again");
    }
    let missing = "/dav/a_2.hbk/Control/@writer/seq_mapping.temp";
    assert_eq!(dav.send("PROPFIND", missing, &[("depth", "0")], "").await.status, 404);
    assert_eq!(dav.status("GET", missing).await, 404);
    assert_eq!(dav.put("/dav/no/such", "x").await.status, 409, "below what is not there");
    assert_eq!(dav.status("MKCOL", "/dav/no/such/").await, 409);
}

/// Cyberduck keeps times in properties of a namespace of its own, and asks for them beside live ones: a missing property
/// comes back with its namespace, a kept one as it was, and the server's own time is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_namespace_times_do_not_change_live_properties() {
    let (gateway, dav) = start_with_alice().await;
    gateway.write_host_file("/a.txt", "a");
    gateway.create_host_directory("/folder");
    for path in ["/dav/a.txt", "/dav/folder"] {
        let names = "<creationdate/><displayname/><getcontentlength/><getcontenttype/><getetag/><getlastmodified/>\
                     <resourcetype/><s:lastmodified xmlns:s='SAR:'/><s:lastmodified_server xmlns:s='SAR:'/>";
        let before = propfind(&dav, path, names).await;
        let missing = before.split("<D:propstat>").find(|part| part.contains(" 404 ")).expect("what is missing");
        for name in ["lastmodified", "lastmodified_server"] {
            assert!(missing.contains(name) && missing.contains("\"SAR:\""), "{name} in {missing}");
        }
        let live = before.split("<D:propstat>").find(|part| part.contains(" 200 ")).expect("what is there");
        let own = element(live, "D:getlastmodified");
        let kept = "Fri, 01 Jan 2021 00:00:00 GMT";
        let body = format!(
            "<D:propertyupdate xmlns:D='DAV:' xmlns:S='SAR:'><D:set><D:prop><S:lastmodified>{kept}</S:lastmodified>\
             <S:lastmodified_server>{own}</S:lastmodified_server></D:prop></D:set></D:propertyupdate>"
        );
        let set = dav.send("PROPPATCH", path, &[("content-type", "text/xml")], body).await;
        assert_eq!((set.status, set.text().contains("200 OK")), (207, true), "{}", set.text());
        let after = propfind(&dav, path, names).await;
        assert!(!after.contains(" 404 ") || path == "/dav/folder", "{after}");
        assert!(after.contains(&format!(">{kept}<")), "{after}");
        assert_eq!(element(&after, "D:getlastmodified"), own, "{path}");
        assert_eq!(after.matches(&format!(">{own}<")).count(), 2, "{after}");
    }
}
