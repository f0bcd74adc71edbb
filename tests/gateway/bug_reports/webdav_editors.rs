//! Reports about editors that lock files: one that crashed with its lock, and the way in which Windows saves a
//! document.

use super::{LOCK_BODY, element, propfind, start_with_alice};

/// An editor crashed and left its lock: users of several servers could not save for days. Its owner finds the token, may
/// refresh or end the lock from anywhere, and no lock is for ever.
#[tokio::test(flavor = "multi_thread")]
async fn lock_of_a_crashed_editor_is_discovered_refreshed_and_removed_by_its_owner() {
    let (gateway, dav) = start_with_alice().await;
    gateway.write_host_file("/a.odt", "a");
    for timeout in ["Infinite, Second-4100000000", "Second-4100000000", ""] {
        let lock = dav.send("LOCK", "/dav/a.odt", &[("timeout", timeout)], LOCK_BODY).await;
        assert_eq!(lock.status, 200, "{}", lock.text());
        for (method, more) in [("PUT", None), ("DELETE", None), ("MOVE", Some(("destination", "/dav/b.odt")))] {
            let headers: Vec<_> = more.into_iter().collect();
            assert_eq!(dav.send(method, "/dav/a.odt", &headers, "b").await.status, 423, "{method}");
        }
        // The owner comes back with nothing but the login.
        let found = propfind(&dav, "/dav/a.odt", "<lockdiscovery/>").await;
        let token = found.split("<D:locktoken>").nth(1).map(|rest| element(rest, "D:href")).unwrap_or_default();
        assert_eq!(format!("<{token}>"), lock.header("lock-token"), "{found}");
        let left = element(&found, "D:timeout");
        let seconds: u64 = left.strip_prefix("Second-").expect(&left).parse().expect("a number");
        assert!(seconds <= 7 * 86_400, "{seconds}");
        let condition = format!("(<{token}>)");
        let refreshed = dav.send("LOCK", "/dav/a.odt", &[("if", &condition), ("timeout", "Second-60")], "").await;
        assert_eq!(refreshed.status, 200, "{}", refreshed.text());
        assert_eq!(element(&refreshed.text(), "D:timeout"), "Second-60");
        let lock_token = format!("<{token}>");
        assert_eq!(dav.send("UNLOCK", "/dav/a.odt", &[("lock-token", &lock_token)], "").await.status, 204);
        assert_eq!(dav.put("/dav/a.odt", "b").await.status, 204, "writes go on");
    }
}

/// Windows Explorer and Office save by a temporary file: two locks taken and given back, a third on the temporary file,
/// and MOVE over the document with that one alone. Go's library and others answered 423 or 412, and the document was gone.
#[tokio::test(flavor = "multi_thread")]
async fn windows_saves_a_document_through_a_locked_temporary_file() {
    let (gateway, dav) = start_with_alice().await;
    gateway.write_host_file("/original.xlsx", "old");
    let lock = async |path: &str| {
        let headers = [
            ("timeout", "Second-3600"),
            ("content-type", "text/xml; charset=\"utf-8\""),
            ("user-agent", "Microsoft-WebDAV-MiniRedir/10.0.26100"),
        ];
        let body = LOCK_BODY.replace("someone", "<D:href>PC\\user</D:href>");
        dav.send("LOCK", path, &headers, body).await.header("lock-token").to_owned()
    };
    let (document, temporary) = ("/dav/original.xlsx", "/dav/~tmpAB12.TMP");
    let content = "new".repeat(1000);
    for turn in 0..2 {
        let on_document = lock(document).await;
        assert_eq!(dav.put(temporary, "").await.status, 201);
        let on_temporary = lock(temporary).await;
        let condition = format!("({on_temporary})");
        assert_eq!(dav.put(temporary, "no token").await.status, 423);
        assert_eq!(dav.send("PUT", temporary, &[("if", &condition)], content.clone()).await.status, 204);
        for (path, token) in [(document, &on_document), (temporary, &on_temporary)] {
            assert_eq!(dav.send("UNLOCK", path, &[("lock-token", token)], "").await.status, 204, "{path}");
        }
        let condition = format!("({})", lock(temporary).await);
        let to = dav.url(document);
        let headers = [("destination", to.as_str()), ("overwrite", "T"), ("if", &condition)];
        let moved = dav.send("MOVE", temporary, &headers, "").await;
        assert_eq!(moved.status, 204, "{turn}: {}", moved.text());
        assert_eq!(dav.get(document).await.text(), content);
        assert_eq!(dav.status("HEAD", temporary).await, 404);
        assert_eq!(dav.put(document, "next").await.status, 204, "no lock came along");
    }
}
