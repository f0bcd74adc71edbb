//! OpenSSH certificates: those of users, which map to tokens by their principals, and those of the host keys.

use std::sync::Arc;
use std::time::Duration;

use patgate::auth::Clock;
use patgate::sftp::SshCertificates;
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::{Ed25519Keypair, PrivateKey};

use crate::support::{Fixture, SftpClient};

fn key(number: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
}

/// Returns a certificate of key 1, signed by a key; `change` sets what differs from an ordinary one of an hour for a token.
fn certificate(authority: u8, clock: &Clock, token: &str, change: impl FnOnce(&mut Builder)) -> Certificate {
    certificate_for(authority, clock, (-60, 3600), &[token], change)
}

/// As [`certificate`], valid between two times, in seconds from now, and for these principals.
fn certificate_for(
    authority: u8,
    clock: &Clock,
    (from, to): (i64, i64),
    principals: &[&str],
    change: impl FnOnce(&mut Builder),
) -> Certificate {
    let now = clock.now().as_millis() / 1000;
    let at = |offset: i64| u64::try_from(now + offset).expect("after 1970");
    let mut builder = Builder::new(vec![7; 16], key(1).public_key().clone(), at(from), at(to)).expect("a builder");
    builder.key_id("laptop of alice").expect("set");
    for principal in principals {
        builder.valid_principal(*principal).expect("set");
    }
    change(&mut builder);
    // An error where `change` has set another one.
    let _ = builder.cert_type(CertType::User);
    builder.sign(&key(authority)).expect("signed")
}

/// Starts a gateway that trusts key 100 to certify users.
async fn start() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pub");
    let line = key(100).public_key().to_openssh().expect("a line");
    std::fs::write(&file, format!("# the authority\n\n{line} ops@example.org\n")).expect("written");
    let certificates = SshCertificates::read(Some(&file), &[]).expect("read");
    let clock = Clock::manual(Clock::system().now());
    let gateway = Fixture::start_with(clock, |settings| settings.ssh_certificates = certificates).await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.create_user("bob", &["/:rw"]);
    gateway
}

async fn login(gateway: &Fixture, login: &str, certificate: &Certificate) -> Option<SftpClient> {
    SftpClient::connect_with_certificate(gateway.sftp, login, Arc::new(key(1)), certificate.clone()).await
}

fn token(gateway: &Fixture, options: &[&str]) -> String {
    gateway.create_token("alice", &[&["-e", "10h"], options].concat())[4..12].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_proves_the_token_that_a_principal_names() {
    let gateway = start().await;
    std::fs::create_dir(gateway.root().join("in")).expect("a folder");
    let id = token(&gateway, &["-s", "path:/in:rw"]);
    let valid = certificate(100, &gateway.clock, &id, |_| ());
    let mut session = login(&gateway, "alice", &valid).await.expect("accepted");
    session.put("/in/file", b"content").await.expect("within its scope");
    assert!(session.put("/file", b"content").await.is_err(), "outside");
    assert!(login(&gateway, "bob", &valid).await.is_none(), "the token of another user");
    let among = certificate_for(100, &gateway.clock, (0, 60), &["www-data", "00000000", &id], |_| ());
    assert!(login(&gateway, "alice", &among).await.is_some(), "other principals are for other servers");

    gateway.run_cli(&["apitoken", "revoke", &id]);
    assert!(login(&gateway, "alice", &valid).await.is_none());
    let ended = async {
        while session.stat("/in").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the session ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_that_is_not_valid_or_restricted_otherwise_is_refused() {
    let gateway = start().await;
    let (id, clock) = (token(&gateway, &[]), gateway.clock.clone());
    let with_option = |name: &'static str, value: &'static str| {
        certificate(100, &clock, &id, move |builder| {
            builder.critical_option(name, value).expect("set");
        })
    };
    let of_host = certificate(100, &clock, &id, |builder| {
        builder.cert_type(CertType::Host).expect("set");
    });
    let refused = [
        ("of another authority", certificate(101, &clock, &id, |_| ())),
        ("not valid yet", certificate_for(100, &clock, (600, 3600), &[&id], |_| ())),
        ("expired", certificate_for(100, &clock, (-3600, -60), &[&id], |_| ())),
        ("for another server", certificate_for(100, &clock, (0, 60), &["other"], |_| ())),
        ("of no token", certificate(100, &clock, "00000000", |_| ())),
        ("of a host", of_host),
        ("for another command", with_option("force-command", "/bin/sh")),
        ("for another address", with_option("source-address", "192.0.2.0/24,2001:db8::/32")),
        ("with an unknown option", with_option("verify-required", "")),
    ];
    for (name, certificate) in refused {
        assert!(login(&gateway, "alice", &certificate).await.is_none(), "{name}");
    }
    let accepted = certificate(100, &clock, &id, |builder| {
        builder.critical_option("force-command", "internal-sftp").expect("set");
        builder.critical_option("source-address", "192.0.2.0/24, 127.0.0.0/8").expect("set");
        builder.extension("permit-pty", "").expect("set");
    });
    assert!(login(&gateway, "alice", &accepted).await.is_some());
    let plain = SftpClient::connect_with_keys(gateway.sftp, "alice", &[Arc::new(key(1))]).await;
    assert!(plain.is_none(), "the key without its certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ends_with_its_certificate() {
    let gateway = start().await;
    let id = token(&gateway, &[]);
    let mut short =
        login(&gateway, "alice", &certificate_for(100, &gateway.clock, (0, 600), &[&id], |_| ())).await.expect("in");
    let mut long = login(&gateway, "alice", &certificate(100, &gateway.clock, &id, |_| ())).await.expect("in");
    gateway.clock.advance(Duration::from_secs(590));
    short.stat("/").await.expect("for ten seconds more");
    gateway.clock.advance(Duration::from_secs(20));
    let ended = async {
        while short.stat("/").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the session ends");
    long.stat("/").await.expect("the token lives on");
}

#[test]
fn files_of_certificates_are_checked_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    for text in ["", "# nothing\n", "ssh-ed25519 AAAA\n", "hello"] {
        std::fs::write(&file, text).expect("written");
        let error = SshCertificates::read(Some(&file), &[]).expect_err(text).to_string();
        assert!(error.contains("is not an SSH public key"), "{error}");
        let error = SshCertificates::read(None, std::slice::from_ref(&file)).expect_err(text).to_string();
        assert!(error.contains("is not a host certificate"), "{error}");
    }
    let error = SshCertificates::read(Some(&folder.path().join("none")), &[]).expect_err("missing").to_string();
    assert!(error.contains("can't be read"), "{error}");
}
