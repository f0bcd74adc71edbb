//! Reports about logins over SFTP: clients that offer keys first, pasted tokens, people who type slowly, and clients
//! with few algorithms. Limits on attempts are in `../ssh_login.rs`.

use std::time::Duration;

use patgate::sftp::SftpOptions;
use russh::client::{self, GexParams};
use russh::{Disconnect, Preferred, kex};

use crate::support::ssh::{SshClient, start_gateway};
use crate::support::ssh_packets::{
    DISCONNECT, RawSsh, SERVICE_ACCEPT, SERVICE_REQUEST, USERAUTH_FAILURE, USERAUTH_SUCCESS,
};
use crate::support::{SftpClient, encode_string, take_string};

/// The SSH_DISCONNECT_ reason "service not available" (RFC 4253 section 11.1).
const DISCONNECT_SERVICE_NOT_AVAILABLE: [u8; 4] = 7u32.to_be_bytes();

/// paramiko, and duplicity, fsspec and Ansible on top of it, ask for the login service before each attempt: with a key in
/// `~/.ssh` the password was never tried, and the program hung. russh answers no second request (`docs/russh-login.md`),
/// so the end of the connection has to say at once what to do, after each kind of attempt.
#[tokio::test(flavor = "multi_thread")]
async fn second_service_request_disconnects_with_an_explanation() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let key = [encode_string(b"ssh-ed25519"), encode_string(&[1; 32])].concat();
    let key = [&[0][..], &encode_string(b"ssh-ed25519"), &encode_string(&key)].concat();
    let wrong = [&[0][..], &encode_string(b"wrong")].concat();
    for (method, rest) in [(&b"none"[..], &[][..]), (b"publickey", &key), (b"password", &wrong)] {
        let mut ssh = RawSsh::connect_to_userauth(&gateway).await;
        assert_eq!(ssh.userauth_attempt(method, &[rest]).await, USERAUTH_FAILURE, "{}", method.escape_ascii());
        ssh.send(SERVICE_REQUEST, &[&encode_string(b"ssh-userauth")]).await;
        let (kind, body) = ssh.receive().await.expect("an answer and not the bare end");
        if kind == SERVICE_ACCEPT {
            panic!("russh answers it now: take the words about it out of `sftp`, and let this go on with the token");
        }
        assert_eq!((kind, &body[..4]), (DISCONNECT, &DISCONNECT_SERVICE_NOT_AVAILABLE[..]));
        let words = String::from_utf8_lossy(take_string(&mut &body[4..])).into_owned();
        assert!(words.contains("look_for_keys=False") && words.contains("patgate client"), "{words}");
        assert_eq!(ssh.receive().await, None, "and then it ends");
    }
    // A client that asks once has its key refused, and a wrong token, and comes in.
    let mut ssh = RawSsh::connect_to_userauth(&gateway).await;
    for (method, rest) in [(&b"publickey"[..], &key), (b"password", &wrong)] {
        assert_eq!(ssh.userauth_attempt(method, &[rest]).await, USERAUTH_FAILURE);
    }
    assert_eq!(ssh.userauth_attempt(b"password", &[&[0], &encode_string(token.as_bytes())]).await, USERAUTH_SUCCESS);
}

/// KeeAgent, Cyberduck and the users of a container with SFTP: an agent with more keys than a server allows attempts; the
/// connection ended before the password was asked for. Keys that nobody can use, and `none`, cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_and_none_do_not_use_up_login_attempts() {
    for (attempts, keys) in [(SftpOptions::default().max_login_attempts, 5), (2, 8)] {
        let (gateway, token) = start_gateway(|options| options.max_login_attempts = attempts).await;
        for none in [false, true] {
            let mut client = SshClient::connect(&gateway).await;
            assert!(!none || !client.try_none().await.expect("answered").success());
            for number in 0..keys {
                assert!(!client.try_new_key(number).await);
            }
            assert!(!client.try_password("wrong").await);
            assert!(client.try_password(&token).await, "one wrong token of {attempts}");
            assert!(client.starts_sftp().await);
        }
    }
}

/// WS_FTP and old paramiko know one key exchange without SHA-1: `diffie-hellman-group-exchange-sha256`.
#[tokio::test(flavor = "multi_thread")]
async fn client_with_only_group_exchange_can_log_in() {
    let (gateway, token) = start_gateway(|_| {}).await;
    for (smallest, preferred, largest) in [(2048, 2048, 8192), (3072, 8192, 8192)] {
        let gex = GexParams::new(smallest, preferred, largest).expect("a request");
        let preferred = Preferred { kex: vec![kex::DH_GEX_SHA256].into(), ..Preferred::default() };
        let config = client::Config { preferred, gex, ..client::Config::default() };
        let mut client = SshClient::connect_with(&gateway, config).await;
        assert!(client.try_password(&token).await);
        assert!(client.starts_sftp().await);
    }
}

/// A game panel's and rclone's users with more connections at once than one user may have: the right token was called
/// wrong, and the program asked for it again.
#[tokio::test(flavor = "multi_thread")]
async fn connection_above_the_per_user_limit_is_not_reported_as_wrong_token() {
    let (gateway, token) = start_gateway(|options| options.max_connections_per_user = 2).await;
    let (first, _second) = (gateway.sftp("alice", &token).await, gateway.sftp("alice", &token).await);
    let mut third = SshClient::connect(&gateway).await;
    assert!(third.try_password(&token).await, "the token is right");
    assert!(!third.starts_sftp().await);
    let (reason, words) = third.wait_for_disconnect().await;
    assert!(matches!(reason, Disconnect::TooManyConnections), "{reason:?}");
    assert!(words.contains("has 2 SFTP connections open"), "{words}");
    assert!(SftpClient::answer_prompt(gateway.sftp, "alice", &token).await, "right at a prompt, too");
    let mut wrong = SshClient::connect(&gateway).await;
    assert!(!wrong.try_password("wrong").await, "a wrong one is still wrong");
    first.disconnect().await;
    for _ in 0..1000 {
        if SftpClient::connect(gateway.sftp, "alice", &token).await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place is not given back");
}

/// Tokens that are pasted, or read from a file with an end of line: command-line tools and file shares refused them as
/// wrong. A token has no white space, and neither has a login.
#[tokio::test(flavor = "multi_thread")]
async fn white_space_around_token_and_login_is_ignored() {
    let (gateway, token) = start_gateway(|_| {}).await;
    for pasted in [
        format!("{token}\n"),
        format!("{token}\r\n"),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\t"),
        format!(" {token}\t"),
    ] {
        assert!(SftpClient::connect(gateway.sftp, "alice", &pasted).await.is_some(), "{pasted:?}");
        assert!(SftpClient::answer_prompt(gateway.sftp, "alice", &pasted).await, "{pasted:?}");
    }
    for login in ["alice ", "alice\n"] {
        assert!(SftpClient::connect(gateway.sftp, login, &token).await.is_some(), "{login:?}");
    }
    let broken = format!("{} {}", &token[..9], &token[9..]);
    assert!(SftpClient::connect(gateway.sftp, "alice", &broken).await.is_none());
}

/// A person who compares the host key, looks up the token and pastes it takes a minute; OpenSSH gives two. Between the
/// attempts no shorter time may end the connection: a few seconds stand for each pause.
#[tokio::test(flavor = "multi_thread")]
async fn slow_interactive_login_succeeds() {
    let (gateway, token) = start_gateway(|_| {}).await;
    assert!(SftpOptions::default().login_timeout >= Duration::from_secs(120), "LoginGraceTime");
    let login = async |by_prompt: bool| {
        let mut client = SshClient::connect(&gateway).await;
        tokio::time::sleep(Duration::from_millis(2200)).await;
        assert!(!client.try_none().await.expect("answered").success());
        if by_prompt {
            // The prompt is shown for as long.
            let prompt = client.ssh.authenticate_keyboard_interactive_start("alice", None::<String>).await;
            assert!(prompt.is_ok(), "{prompt:?}");
            tokio::time::sleep(Duration::from_millis(2200)).await;
            let answer = client.ssh.authenticate_keyboard_interactive_respond(vec![token.clone()]).await;
            assert!(matches!(answer, Ok(client::KeyboardInteractiveAuthResponse::Success)), "{answer:?}");
        } else {
            tokio::time::sleep(Duration::from_millis(2200)).await;
            assert!(!client.try_password("wrong").await);
            tokio::time::sleep(Duration::from_millis(2200)).await;
            assert!(client.try_password(&token).await);
        }
        assert!(client.starts_sftp().await);
    };
    tokio::join!(login(false), login(true));
}
