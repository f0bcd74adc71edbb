//! Guesses are throttled by address; whoever holds a right token gets in from there.

use patgate::domain::{Secret, TokenId, TokenText};

use crate::support::server::{Server, run};
use crate::support::{Dav, Fixture, id_of};

/// Writes a token that was never issued, with a right checksum.
fn guess() -> String {
    let mut zeros = |buffer: &mut [u8]| buffer.fill(0);
    TokenText::new(TokenId::generate(&mut zeros), Secret::generate(&mut zeros)).reveal().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn right_token_gets_in_on_both_protocols_while_strangers_guess_from_its_address() {
    let gateway = Fixture::with_clock_by_hand().await;
    gateway.user("alice", &["/:rw"]);
    let [http, sftp, dead] = [(); 3].map(|()| gateway.token("alice", &["-e", "1h"]));
    gateway.patgate(&["apitoken", "revoke", id_of(&dead)]);
    let revoked = gateway.dav("alice", &dead);
    for _ in 0..50 {
        assert_eq!(revoked.status("PROPFIND", "/dav/").await, 401, "a revoked token is no guess");
    }
    for text in ["junk", &guess()] {
        let stranger = gateway.dav("alice", text);
        let mut last = 0;
        for _ in 0..50 {
            last = stranger.status("PROPFIND", "/dav/").await;
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
    let server = Server::start_logging(folder.path(), &log);
    run(folder.path(), &["admin", "user", "create", "alice"]);
    let token = run(folder.path(), &["admin", "user", "token", "-u", "alice", "-e", "1h", "-q"]);
    let alice = Dav::new(server.http, "alice", token.trim());
    let relayed = [("x-forwarded-for", "203.0.113.7")];
    for _ in 0..2 {
        assert_eq!(alice.send("PROPFIND", "/dav/", &relayed, String::new()).await.status, 207);
    }
    server.stop();
    let log = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(log.matches("trusted_proxies").count(), 1, "{log}");
}
