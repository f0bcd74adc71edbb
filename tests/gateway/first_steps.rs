//! What a newcomer does first, over both protocols.

use crate::support::{Fixture, id_of};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_protocol_writes_the_other_reads() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    let mut sftp = gateway.sftp("alice", &token).await;

    assert_eq!(dav.put("/dav/hello.txt", "over WebDAV").await.status, 201);
    assert_eq!(sftp.get("/hello.txt").await.as_deref(), Ok(&b"over WebDAV"[..]));
    let before = dav.get("/dav/hello.txt").await.header("etag").to_owned();
    sftp.put("/hello.txt", b"over SFTP").await.expect("replaced");
    let after = dav.get("/dav/hello.txt").await;
    assert_eq!(after.text(), "over SFTP");
    assert_ne!(after.header("etag"), before);
    assert_eq!(dav.list("/dav/").await, Ok(vec!["/dav/hello.txt".to_owned()]));
    assert_eq!(sftp.list("/").await, Ok(vec!["hello.txt".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_revoked_by_another_process_is_refused_by_the_next_request() {
    let gateway = Fixture::start().await;
    let token = gateway.login("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    assert_eq!(dav.status("OPTIONS", "/dav/").await, 200);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
    gateway.patgate(&["apitoken", "revoke", id_of(&token)]);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
    assert!(crate::support::Sftp::connect(gateway.sftp, "alice", &token).await.is_none());
}
