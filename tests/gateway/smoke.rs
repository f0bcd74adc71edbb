//! The first steps of a new user, over both protocols: write a file, read it, revoke the token. Run these first when
//! everything fails.

use crate::support::{Fixture, token_id};

#[tokio::test(flavor = "multi_thread")]
async fn file_written_over_one_protocol_is_read_over_the_other() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    let mut sftp = gateway.sftp("alice", &token).await;

    assert_eq!(dav.put("/dav/hello.txt", "over WebDAV").await.status, 201);
    assert_eq!(sftp.get("/hello.txt").await.as_deref(), Ok(&b"over WebDAV"[..]));
    let before = dav.get("/dav/hello.txt").await.header("etag").to_owned();
    sftp.put("/hello.txt", b"over SFTP").await.expect("replaced");
    let after = dav.get("/dav/hello.txt").await;
    assert_eq!(after.text(), "over SFTP");
    assert_ne!(after.header("etag"), before);
    assert_eq!(dav.list_hrefs("/dav/").await, Ok(vec!["/dav/hello.txt".to_owned()]));
    assert_eq!(sftp.list("/").await, Ok(vec!["hello.txt".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoked_by_another_process_is_refused_on_the_next_request() {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    assert_eq!(dav.status("OPTIONS", "/dav/").await, 200);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 401);
    assert!(crate::support::SftpClient::connect(gateway.sftp, "alice", &token).await.is_none());
}
