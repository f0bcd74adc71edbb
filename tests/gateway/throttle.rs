//! Wrong secrets are throttled by client address, while a valid token is accepted from a throttled address.

use patgate::domain::{Secret, TokenId, TokenText};

use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, token_id};

/// Writes a token that was never issued, with a right checksum.
fn unissued_token() -> String {
    let mut zeros = |buffer: &mut [u8]| buffer.fill(0);
    TokenText::new(TokenId::generate(&mut zeros), Secret::generate(&mut zeros)).reveal().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_token_is_accepted_while_guesses_from_its_address_are_throttled() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let [http, sftp, dead] = [(); 3].map(|()| gateway.create_token("alice", &["-e", "1h"]));
    gateway.run_cli(&["apitoken", "revoke", token_id(&dead)]);
    let revoked = gateway.dav("alice", &dead);
    for _ in 0..50 {
        assert_eq!(revoked.status("PROPFIND", "/dav/").await, 401, "a revoked token is no guess");
    }
    for text in ["junk", &unissued_token()] {
        let guessing_client = gateway.dav("alice", text);
        let mut last = 0;
        for _ in 0..50 {
            last = guessing_client.status("PROPFIND", "/dav/").await;
        }
        assert_eq!(last, 429, "{text}");
    }
    assert_eq!(gateway.dav("alice", &http).status("PROPFIND", "/dav/").await, 207, "its first use");
    gateway.sftp("alice", &sftp).await.list("/").await.expect("its first use over SFTP");
    assert_eq!(revoked.status("PROPFIND", "/dav/").await, 401, "not taken for a guess now either");
    assert_eq!(gateway.dav("alcie", &http).status("PROPFIND", "/dav/").await, 401, "nor is a mistyped name");
}

#[tokio::test(flavor = "multi_thread")]
async fn untrusted_proxy_on_loopback_is_warned_about() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let log = folder.path().join("log");
    let server = ServerProcess::start_logging(folder.path(), &log);
    run_cli(folder.path(), &["admin", "user", "create", "alice"]);
    let token = create_token(folder.path(), "alice");
    let alice = DavClient::new(server.http, "alice", token.trim());
    let relayed = [("x-forwarded-for", "203.0.113.7")];
    for _ in 0..2 {
        assert_eq!(alice.send("PROPFIND", "/dav/", &relayed, String::new()).await.status, 207);
    }
    server.stop();
    let log = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(log.matches("trusted_proxies").count(), 1, "{log}");
}
