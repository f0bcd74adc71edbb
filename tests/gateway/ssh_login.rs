//! Login attempts over SSH: their limit and time-outs are reported in the disconnect, and stalled clients don't block
//! others. Accepted methods are in `ssh.rs`, reports of clients in `bug_reports/sftp_login.rs`.

use std::sync::Arc;
use std::time::Duration;

use patgate::sftp::SftpOptions;
use russh::Disconnect;
use russh::client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::ssh::{SshClient, start_gateway};
use crate::support::{Fixture, encode_packet};

#[tokio::test(flavor = "multi_thread")]
async fn login_attempt_limit_is_reported_in_the_disconnect() {
    let (gateway, _) = start_gateway(|options| options.max_login_attempts = 2).await;
    let mut client = SshClient::connect(&gateway).await;
    assert!(!client.try_password("wrong").await && !client.try_password("wrong").await);
    let (reason, words) = client.wait_for_disconnect().await;
    assert!(matches!(reason, Disconnect::NoMoreAuthMethodsAvailable), "{reason:?}");
    assert!(words.contains("2 wrong tokens"), "{words}");

    let mut client = SshClient::connect(&gateway).await;
    let mut probes = 0;
    while client.try_none().await.is_some() {
        probes += 1;
        assert!(probes < 110, "attempts without a token are bounded, too");
    }
    assert!(probes >= 50, "no agent holds so many keys");
    let (_, words) = client.wait_for_disconnect().await;
    assert!(words.contains("too many attempts without a token: give it as password, or the SSH key of one"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_client_between_login_attempts_is_not_disconnected() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let mut client = SshClient::connect(&gateway).await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(!client.try_none().await.expect("answered").success());
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(!client.try_password("wrong").await);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(client.try_password(&token).await);
    assert!(client.starts_sftp().await);
}

/// Key exchanges take turns: a client that stops half way through one occupies none.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_key_exchanges_do_not_block_others() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let mut stalled_clients = Vec::new();
    for number in 0..40 {
        let mut stalled_client = TcpStream::connect(gateway.sftp).await.expect("connects");
        // The identification, and of a KEXINIT of 1 KiB nothing, its length, or its beginning.
        let begin = b"SSH-2.0-stranger\r\n\0\0\x04\0\x04\x14begun";
        stalled_client.write_all(&begin[..18 + [0, 4, 6, 11][number % 4]]).await.expect("sent");
        stalled_clients.push(stalled_client);
    }
    for stalled_client in &mut stalled_clients {
        let mut line = [0; 4];
        stalled_client.read_exact(&mut line).await.expect("the server names itself");
        assert_eq!(&line, b"SSH-");
    }
    let gateway = Arc::new(gateway);
    let logins: Vec<_> = (0..12)
        .map(|_| {
            let (gateway, token) = (gateway.clone(), token.clone());
            tokio::spawn(async move { gateway.sftp("alice", &token).await.stat("/").await.map(drop) })
        })
        .collect();
    for login in logins {
        login.await.expect("no panic").expect("let in");
    }
    drop(stalled_clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn login_timeout_is_reported_in_the_disconnect() {
    let (gateway, _) = start_gateway(|options| options.login_timeout = Duration::from_secs(1)).await;
    let (_, words) = SshClient::connect(&gateway).await.wait_for_disconnect().await;
    assert!(words.contains("no login within 1 s"), "{words}");
}

/// A client that reads, and whose answers reach the server until the task is aborted.
async fn client_with_blockable_network(gateway: &Fixture, token: &str) -> (SshClient, JoinHandle<()>) {
    let (mut from_server, to_server) = TcpStream::connect(gateway.sftp).await.expect("connects").into_split();
    let (client_stream, server_stream) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(server_stream);
    // A half that is dropped would end the connection.
    let to_server = Arc::new(tokio::sync::Mutex::new(to_server));
    let blocked_sender = to_server.clone();
    tokio::spawn(async move {
        let _kept = blocked_sender;
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        // The client sees the end of the connection.
        let _ = to_client.shutdown().await;
    });
    let writing = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = from_client.read(&mut buffer).await {
            if to_server.lock().await.write_all(&buffer[..size]).await.is_err() {
                break;
            }
        }
    });
    let mut client = SshClient::over_stream(client_stream, client::Config::default()).await;
    assert!(client.try_password(token).await);
    (client, writing)
}

/// Sets a keepalive interval of one second, and the time within which clients have to answer.
fn set_short_keepalive(options: &mut SftpOptions, client_timeout: Duration) {
    (options.login_timeout, options.keepalive_interval) = (Duration::from_secs(2), Duration::from_secs(1));
    options.client_timeout = client_timeout;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_that_answer_keepalives_stay_connected() {
    let (gateway, token) = start_gateway(|options| set_short_keepalive(options, Duration::from_secs(1))).await;
    let mut resting = SshClient::connect(&gateway).await;
    assert!(resting.try_password(&token).await);
    let (asleep, writing) = client_with_blockable_network(&gateway, &token).await;
    writing.abort();
    let begin = Instant::now();
    let (reason, words) = asleep.wait_for_disconnect().await;
    assert!(matches!(reason, Disconnect::ConnectionLost) && words.contains("keepalive"), "{reason:?}: {words}");
    let connected_time = begin.elapsed();
    assert!(connected_time > Duration::from_millis(2500), "ended after {connected_time:?}, before it could answer");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(resting.starts_sftp().await, "whoever answers stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_session_is_closed_only_if_configured() {
    let (gateway, token) = start_gateway(|options| options.idle_timeout = Duration::from_secs(1)).await;
    let mut idle = SshClient::connect(&gateway).await;
    assert!(idle.try_password(&token).await);
    let mut busy = gateway.sftp("alice", &token).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        busy.send_raw(&encode_packet(16, &[0, 0, 0, 1, 0, 0, 0, 1, b'/'])).await.expect("it goes on");
    }
    let (_, words) = idle.wait_for_disconnect().await;
    assert!(words.contains("sftp_idle_seconds"), "{words}");
}

#[test]
fn default_timeouts_match_openssh() {
    let options = SftpOptions::default();
    assert_eq!(options.login_timeout, Duration::from_secs(120), "LoginGraceTime");
    assert_eq!(options.max_login_attempts, 6, "MaxAuthTries");
    assert!(options.idle_timeout.is_zero());
    assert!(options.client_timeout >= Duration::from_secs(1800), "a script that rests, a laptop asleep");
}
