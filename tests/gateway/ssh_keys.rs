//! Tokens that are proven by an SSH key: login, what holds for them as for those with a secret, rotation, refusals.

use std::path::PathBuf;
use std::sync::Arc;

use russh::MethodKind;
use russh::client::AuthResult;
use russh::keys::ssh_key::EcdsaCurve;
use russh::keys::ssh_key::private::{EcdsaKeypair, Ed25519Keypair, PrivateKey};
use serde_json::{Value, json};

use crate::support::ssh::SshClient;
use crate::support::{Fixture, SftpClient};

/// Returns the key of a number.
fn key(number: u8) -> Arc<PrivateKey> {
    Arc::new(PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32])))
}

fn public_line(key: &PrivateKey) -> String {
    format!("{} somebody@example.org", key.public_key().to_openssh().expect("a line"))
}

fn fingerprint(key: &PrivateKey) -> String {
    key.fingerprint(russh::keys::HashAlg::Sha256).to_string()
}

fn key_file(gateway: &Fixture, key: &PrivateKey) -> String {
    let path: PathBuf = gateway.state().parent().expect("a folder").join("key.pub");
    std::fs::write(&path, public_line(key) + "\n").expect("written");
    path.to_str().expect("text").to_owned()
}

/// Creates a token that a key proves, and returns its id.
fn create_key_token(gateway: &Fixture, login: &str, key: &PrivateKey, options: &[&str]) -> String {
    let file = key_file(gateway, key);
    gateway.create_token(login, &[&["-e", "1h", "--ssh-key", &file], options].concat())
}

async fn login(gateway: &Fixture, login: &str, key: &Arc<PrivateKey>) -> Option<SftpClient> {
    SftpClient::connect_with_keys(gateway.sftp, login, &[Arc::clone(key)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn key_proves_a_token_with_its_scopes_until_it_is_revoked() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.create_user("bob", &["/:rw"]);
    std::fs::create_dir_all(gateway.root().join("in")).expect("a folder");
    let id = create_key_token(&gateway, "alice", &key(1), &["-s", "path:/in:rw"]);
    assert_eq!(id.len(), 8, "-q prints the id, since there is no secret: {id}");
    let mut session = login(&gateway, "alice", &key(1)).await.expect("accepted");
    session.put("/in/file", b"content").await.expect("within its scope");
    assert!(session.put("/outside", b"content").await.is_err());
    for (name, other) in [("bob", key(1)), ("alice", key(2)), ("nobody", key(1)), ("Alice", key(1))] {
        assert!(login(&gateway, name, &other).await.is_none(), "{name}");
    }
    let record: Value = serde_json::from_str(&gateway.run_cli(&["apitoken", "show", &id, "--json"])).expect("JSON");
    assert_eq!(
        (record["sshKey"].as_str(), &record["last_use"]["protocol"]),
        (Some(&*fingerprint(&key(1))), &json!("sftp"))
    );
    assert!(gateway.run_cli(&["apitoken", "show", &id]).contains(&fingerprint(&key(1))));
    assert!(gateway.run_cli(&["audit", "--event", "token.created"]).contains(&fingerprint(&key(1))));

    gateway.run_cli(&["apitoken", "revoke", &id]);
    let ended = async {
        while session.stat("/in").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.expect("the session ends");
    assert!(login(&gateway, "alice", &key(1)).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_with_many_keys_gets_in_where_one_is_right() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    create_key_token(&gateway, "alice", &key(30), &[]);
    let agent: Vec<_> = (1..=30).map(key).collect();
    let mut session = SftpClient::connect_with_keys(gateway.sftp, "alice", &agent).await.expect("the last one");
    session.put("/file", b"content").await.expect("written");
    let refusals = gateway.run_cli(&["audit", "--event", "attempt.refused"]);
    assert!(!refusals.contains("alice"), "what an agent offers is no guess: {refusals}");
    assert!(SftpClient::connect_with_keys(gateway.sftp, "alice", &agent[..29]).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_other_algorithms_are_accepted_and_short_or_private_ones_refused() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let mut random = russh::keys::ssh_key::rand_core::UnwrapErr(getrandom::SysRng);
    for curve in [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521] {
        let key = Arc::new(PrivateKey::from(EcdsaKeypair::random(&mut random, curve).expect("a key")));
        create_key_token(&gateway, "alice", &key, &[]);
        assert!(login(&gateway, "alice", &key).await.is_some(), "{curve:?}");
    }
    for (text, part) in [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("ssh-dss AAAAB3NzaC1kc3MAAAABAQAAAAEBAAAAAQEAAAABAQ==", "not"),
        ("hello", "not one SSH public key"),
        ("", "not one SSH public key"),
    ] {
        let file = key_file(&gateway, &key(1));
        std::fs::write(&file, text).expect("written");
        let output = gateway.try_run_cli(&["admin", "user", "token", "-u", "alice", "-e", "1h", "--ssh-key", &file]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(part) && error.contains("hint: "), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_proves_one_live_token_of_a_user() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.create_user("bob", &["/:rw"]);
    let id = create_key_token(&gateway, "alice", &key(1), &[]);
    let file = key_file(&gateway, &key(1));
    let again = gateway.try_run_cli(&["admin", "user", "token", "-u", "alice", "-e", "1h", "--ssh-key", &file]);
    let error = String::from_utf8_lossy(&again.stderr);
    assert!(error.contains(&format!("this SSH key proves the token {id} of the same user already")), "{error}");
    create_key_token(&gateway, "bob", &key(1), &[]);
    for name in ["alice", "bob"] {
        assert!(login(&gateway, name, &key(1)).await.is_some(), "{name}");
    }
    gateway.run_cli(&["apitoken", "revoke", &id]);
    let second = create_key_token(&gateway, "alice", &key(1), &[]);
    assert_ne!(second, id);
    assert!(login(&gateway, "alice", &key(1)).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_replaces_the_key_at_once_or_after_a_grace() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let id = create_key_token(&gateway, "alice", &key(1), &[]);
    let refused = gateway.try_run_cli(&["apitoken", "rotate", &id]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && error.contains("proven by an SSH key"), "{error}");

    gateway.run_cli(&["apitoken", "rotate", &id, "--ssh-key", &key_file(&gateway, &key(2)), "--grace", "1h"]);
    for number in [1, 2] {
        assert!(login(&gateway, "alice", &key(number)).await.is_some(), "{number}");
    }
    let file = key_file(&gateway, &key(1));
    let taken = gateway.try_run_cli(&["admin", "user", "token", "-u", "alice", "-e", "1h", "--ssh-key", &file]);
    assert_eq!(taken.status.code(), Some(1), "within its grace the old key is taken");
    let mut session = login(&gateway, "alice", &key(2)).await.expect("accepted");
    gateway.run_cli(&["apitoken", "rotate", &id, "--ssh-key", &key_file(&gateway, &key(3))]);
    for number in [1, 2] {
        assert!(login(&gateway, "alice", &key(number)).await.is_none(), "{number}");
    }
    assert!(login(&gateway, "alice", &key(3)).await.is_some());
    let ended = async {
        while session.stat("/").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.expect("the old key's session ends");

    let secret = gateway.create_token("alice", &["-e", "1h"]);
    let shown = gateway.run_cli(&["apitoken", "rotate", &secret[4..12], "--ssh-key", &key_file(&gateway, &key(4))]);
    assert!(shown.contains(&fingerprint(&key(4))) && !shown.contains("pgt_"), "{shown}");
    assert!(SftpClient::connect(gateway.sftp, "alice", &secret).await.is_none(), "the secret is void");
    assert!(login(&gateway, "alice", &key(4)).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_bind_keys_and_expiration_ends_them() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    let elsewhere = create_key_token(&gateway, "alice", &key(1), &["--ip", "192.0.2.0/24"]);
    let of_webdav = create_key_token(&gateway, "alice", &key(2), &["--protocol", "webdav"]);
    for number in [1, 2] {
        assert!(login(&gateway, "alice", &key(number)).await.is_none(), "{number}");
    }
    for id in [elsewhere, of_webdav] {
        // Refusals are written after a while, many in one row.
        let recorded = async {
            while !gateway.run_cli(&["audit", "--token", &id]).contains("the token's limits exclude") {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), recorded).await.expect("the key was shown");
    }
    create_key_token(&gateway, "alice", &key(3), &[]);
    gateway.create_token("alice", &["-a", "30m", "--ssh-key", &key_file(&gateway, &key(4))]);
    assert!(login(&gateway, "alice", &key(3)).await.is_some());
    for _ in 0..3 {
        gateway.clock.advance(std::time::Duration::from_secs(25 * 60));
        let mut session = login(&gateway, "alice", &key(4)).await.expect("each use moves its end");
        session.stat("/").await.expect("a use");
    }
    assert!(login(&gateway, "alice", &key(3)).await.is_none(), "its hour is over");
    gateway.clock.advance(std::time::Duration::from_secs(31 * 60));
    assert!(login(&gateway, "alice", &key(4)).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_asked_for_keys_only_where_tokens_have_some() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let offered = async || {
        let mut client = SshClient::connect(&gateway).await;
        match client.ssh.authenticate_none("alice").await.expect("an answer") {
            AuthResult::Failure { remaining_methods, .. } => remaining_methods.contains(&MethodKind::PublicKey),
            AuthResult::Success => panic!("nobody gets in without a token"),
        }
    };
    assert!(!offered().await);
    create_key_token(&gateway, "alice", &key(1), &[]);
    assert!(offered().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_creates_and_rotates_tokens_with_keys() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let alice = gateway.rest("alice", &gateway.create_token("alice", &["-e", "1h"]));
    let created =
        alice.send("POST", "/api/v1/tokens", json!({ "sshKey": public_line(&key(1)), "lifetime": "30m" })).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let record = created.json();
    assert_eq!((record["sshKey"].as_str(), record.get("token")), (Some(&*fingerprint(&key(1))), None));
    assert!(record["parent"].is_string(), "a child of the token that it was created with");
    assert!(login(&gateway, "alice", &key(1)).await.is_some());
    let again = alice.send("POST", "/api/v1/tokens", json!({ "sshKey": public_line(&key(1)) })).await;
    assert_eq!((again.status, again.problem_kind()), (409, "ssh-key-in-use".to_owned()));
    let path = format!("/api/v1/tokens/{}/rotate", record["id"].as_str().expect("an id"));
    let missing = alice.send("POST", &path, json!({})).await;
    assert_eq!((missing.status, missing.problem_kind()), (409, "ssh-key-missing".to_owned()));
    let rotated = alice.send("POST", &path, json!({ "sshKey": public_line(&key(2)) })).await;
    assert_eq!((rotated.status, rotated.json()["sshKey"].as_str()), (200, Some(&*fingerprint(&key(2)))));
    assert!(login(&gateway, "alice", &key(1)).await.is_none() && login(&gateway, "alice", &key(2)).await.is_some());
    let bad = alice.send("POST", "/api/v1/tokens", json!({ "sshKey": "ssh-ed25519 AAAA" })).await;
    assert!((400..=422).contains(&bad.status) && bad.text().contains("SSH public key"), "{}", bad.text());
    let parent = alice.get("/api/v1/tokens/self").await.json()["id"].as_str().expect("an id").to_owned();
    gateway.run_cli(&["apitoken", "revoke", &parent]);
    assert!(login(&gateway, "alice", &key(2)).await.is_none(), "it ends with its parent");
}
