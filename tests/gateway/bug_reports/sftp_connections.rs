//! Reports about SFTP connections that pause, carry several channels, or transfer in small pieces.

use std::collections::VecDeque;
use std::time::Duration;

use patgate::sftp::SftpOptions;

use super::{READ, REPLACE, status_code};
use crate::support::ssh::{PausableClient, start_gateway};
use crate::support::ssh_packets::{
    CHANNEL_OPEN, CHANNEL_OPEN_FAILURE, DEBUG, GLOBAL_REQUEST, IGNORE, REQUEST_FAILURE, REQUEST_SUCCESS, RawSsh,
    UNIMPLEMENTED,
};
use crate::support::{SftpClient, encode_packet, encode_string, take_u32};

/// Long enough for any machine.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks after a few seconds of silence whether a client lives, and waits much longer for the answer.
fn set_short_keepalive(options: &mut SftpOptions) {
    (options.login_timeout, options.keepalive_interval) = (Duration::from_secs(2), Duration::from_secs(1));
    options.client_timeout = TRANSFER_TIMEOUT;
}

/// Starts SFTP for a client on a network that can be stopped.
async fn start_pausable(token: &str, gateway: &crate::support::Fixture) -> (PausableClient, SftpClient) {
    let mut paused = PausableClient::connect(gateway).await;
    assert!(paused.client.try_password(token).await);
    let channel = paused.client.ssh.channel_open_session().await.expect("a channel");
    channel.request_subsystem(true, "sftp").await.expect("sent");
    let sftp = SftpClient::over_stream(channel.into_stream()).await.expect("SFTP");
    (paused, sftp)
}

/// libssh2 (curl, PHP scripts, file managers) reads nothing while the program does something else, so that no question
/// whether it lives is answered: minutes later it goes on. Seconds stand for minutes here, in the settings as well.
#[tokio::test(flavor = "multi_thread")]
async fn suspended_client_session_survives_missed_keepalives() {
    let (gateway, token) = start_gateway(set_short_keepalive).await;
    let (network, mut sftp) = start_pausable(&token, &gateway).await;
    let open = sftp.open_file(b"/upload", REPLACE).await.expect("opened");
    let asleep = network.running.acquire().await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    drop(asleep);
    assert_eq!(sftp.realpath(".").await.as_deref(), Ok("/"), "it was asked several times, and answers now");
    sftp.write_at(&open, 0, b"later").await.expect("its open files live on");
    sftp.close(&open).await.expect("closed");
    assert_eq!(std::fs::read(gateway.host_path("/upload")).expect("there"), b"later");
    assert!(SftpOptions::default().client_timeout >= Duration::from_secs(1800), "a laptop asleep");
    assert!(SftpOptions::default().idle_timeout.is_zero(), "no end for want of requests");
}

/// sshfs and backup programs whose machine sleeps, or that are stopped, in the middle of a download: what the server had
/// sent waits, and the rest comes when they go on.
#[tokio::test(flavor = "multi_thread")]
async fn paused_download_completes() {
    let (gateway, token) = start_gateway(set_short_keepalive).await;
    let content: Vec<u8> = (0..24u32 << 20).map(|n| (n / 11) as u8).collect();
    gateway.write_host_file("/big", &content);
    let (network, mut sftp) = start_pausable(&token, &gateway).await;
    let handle = sftp.open_file(b"/big", READ).await.expect("opened");
    let mut received = sftp.read_at(&handle, 0, 32_768).await.expect("begun");
    let (mut ids, mut has_slept) = (VecDeque::new(), false);
    let mut offset = received.len() as u64;
    while received.len() < content.len() {
        // As much is asked for at once as the buffers between the two hold, and more.
        while ids.len() < 96 && offset < content.len() as u64 {
            let length = 32_768u32.to_be_bytes();
            ids.push_back(
                sftp.send(5, &[&encode_string(&handle), &offset.to_be_bytes(), &length]).await.expect("asked"),
            );
            offset += 32_768;
        }
        if !has_slept {
            has_slept = true;
            let asleep = network.running.acquire().await.expect("running");
            tokio::time::sleep(Duration::from_secs(6)).await;
            drop(asleep);
        }
        let id = ids.pop_front().expect("something was asked for");
        let (kind, body) =
            tokio::time::timeout(TRANSFER_TIMEOUT, sftp.receive(id)).await.expect("it goes on").expect("data");
        assert_eq!(kind, 103);
        received.extend_from_slice(&body[4..]);
    }
    assert!(received == content);
}

/// A Python library and rsync-like tools open a channel for each transfer; libssh2, JSch and OpenSSH send keepalives of
/// different names, and questions of other kinds: each is answered, none does harm, and nothing is forwarded.
#[tokio::test(flavor = "multi_thread")]
async fn second_channel_and_requests_of_every_kind_are_answered() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let mut first = gateway.sftp("alice", &token).await;
    let mut two = first.open_second_channel().await.expect("a second channel");
    let handle = first.open_file(b"/f", REPLACE).await.expect("opened");
    first.write_at(&handle, 0, b"x").await.expect("written");
    assert_eq!(two.stat("/f").await.expect("the first channel's upload").size, Some(1));
    first.close(&handle).await.expect("closed");

    let mut ssh = RawSsh::logged_in(&gateway, &token).await;
    for (name, rest) in [
        ("keepalive@openssh.com", vec![]),
        ("keepalive@libssh2.org", vec![]),
        ("keepalive@jcraft.com", vec![]),
        ("keep-alive@golang.org", vec![]),
        ("hostkeys-prove-00@openssh.com", vec![]),
        ("tcpip-forward", [encode_string(b""), vec![0; 4]].concat()),
        ("streamlocal-forward@openssh.com", encode_string(b"/tmp/socket")),
    ] {
        ssh.send(GLOBAL_REQUEST, &[&encode_string(name.as_bytes()), &[1], &rest]).await;
        let (kind, _) = ssh.receive().await.expect(name);
        let forwards = name.contains("forward");
        assert!(kind == REQUEST_FAILURE || (kind == REQUEST_SUCCESS && !forwards), "{name}: {kind}");
        // Without a wish for an answer there is none.
        ssh.send(GLOBAL_REQUEST, &[&encode_string(name.as_bytes()), &[0], &rest]).await;
    }
    let address = |port: u8| [encode_string(b"127.0.0.1"), vec![0, 0, 0, port]].concat();
    for (kind, rest) in [
        ("direct-tcpip", [address(22), address(1)].concat()),
        ("forwarded-tcpip", [address(22), address(1)].concat()),
        ("x11", address(1)),
        ("direct-streamlocal@openssh.com", [encode_string(b"/tmp/socket"), encode_string(b""), vec![0; 4]].concat()),
    ] {
        let numbers = [9u32, 1 << 20, 1 << 15].map(u32::to_be_bytes).concat();
        ssh.send(CHANNEL_OPEN, &[&encode_string(kind.as_bytes()), &numbers, &rest]).await;
        let body = ssh.expect(CHANNEL_OPEN_FAILURE).await;
        let reason = take_u32(&mut &body[4..]);
        assert!([1, 2, 3].contains(&reason), "{kind}: {reason}");
    }
    ssh.send(IGNORE, &[&encode_string(&[b'z'; 20_000])]).await;
    ssh.send(DEBUG, &[&[1], &encode_string(b"x"), &encode_string(b"")]).await;
    ssh.send(UNIMPLEMENTED, &[&7u32.to_be_bytes()]).await;
    let channel = ssh.open_session(1 << 20, 1 << 15).await;
    ssh.request_sftp(channel, true).await;
    ssh.send_channel_data(channel, &encode_packet(1, &3u32.to_be_bytes())).await;
    assert_eq!(ssh.read_sftp_packet(&mut Vec::new()).await.0, 2, "VERSION");
}

/// Embedded clients and rclone: a window of a kibibyte and packets of 256 bytes carry a file whole.
#[tokio::test(flavor = "multi_thread")]
async fn download_completes_through_a_1_kib_window() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let content: Vec<u8> = (0..300_000u32).map(|n| (n / 3) as u8).collect();
    gateway.write_host_file("/f", &content);
    let mut ssh = RawSsh::logged_in(&gateway, &token).await;
    let channel = ssh.open_session(1024, 256).await;
    ssh.request_sftp(channel, true).await;
    let open = [&1u32.to_be_bytes()[..], &encode_string(b"/f"), &READ.to_be_bytes(), &[0; 4]].concat();
    ssh.send_channel_data(channel, &[encode_packet(1, &3u32.to_be_bytes()), encode_packet(3, &open)].concat()).await;
    let mut received: Vec<u8> = Vec::new();
    let (mut got, mut handle, mut window) = (Vec::<u8>::new(), Vec::new(), 1024);
    while got.len() < content.len() {
        let complete = received.split_first_chunk::<4>().map(|(length, _)| 4 + u32::from_be_bytes(*length) as usize);
        let Some(end) = complete.filter(|end| *end <= received.len()) else {
            let bytes = ssh.read_channel_data().await;
            assert!(bytes.len() <= 256 && bytes.len() <= window, "{} bytes of {window}", bytes.len());
            window -= bytes.len();
            received.extend(bytes);
            if window < 512 {
                ssh.adjust_window(channel, 1024 - u32::try_from(window).expect("small")).await;
                window = 1024;
            }
            continue;
        };
        let answer: Vec<u8> = received.drain(..end).collect();
        match answer[4] {
            2 => continue,
            102 => handle = answer[9..].to_vec(),
            103 => got.extend(&answer[13..]),
            kind => panic!("{kind}"),
        }
        let range = [&(got.len() as u64).to_be_bytes()[..], &32_768u32.to_be_bytes()].concat();
        ssh.send_channel_data(channel, &encode_packet(5, &[&2u32.to_be_bytes()[..], &handle, &range].concat())).await;
    }
    assert!(got == content);
}

/// rclone and others with much under way: tens of thousands of READs of a byte each are answered in their order.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_reads_are_answered_in_order() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let content: Vec<u8> = (0..65_536u32).map(|n| (n / 3) as u8).collect();
    gateway.write_host_file("/f", &content);
    let mut sftp = gateway.sftp("alice", &token).await;
    let handle = sftp.open_file(b"/f", READ).await.expect("opened");
    let reads: Vec<u8> = (0..65_536u32)
        .flat_map(|n| {
            let range =
                [&(1000 + n).to_be_bytes()[..], &encode_string(&handle), &u64::from(n).to_be_bytes(), &[0, 0, 0, 1]];
            encode_packet(5, &range.concat())
        })
        .collect();
    let mut other = gateway.sftp("alice", &token).await;
    let (answers, whole_file) = tokio::join!(sftp.exchange(&reads, 65_536), other.get("/f"));
    let answers = answers.expect("answered");
    for (number, (id, kind, body)) in answers.into_iter().enumerate() {
        assert_eq!((id as usize, kind), (1000 + number, 103));
        assert_eq!(body[4..], content[number..=number]);
    }
    assert_eq!(whole_file, Ok(content), "another session is not held up");
}

/// Clients that offer another version, or ask for the subsystem without waiting for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_version_gets_version_3_and_want_reply_false_starts_sftp() {
    let (gateway, token) = start_gateway(|_| {}).await;
    for (version, reply) in [(0, true), (2, true), (4, true), (6, true), (3, false)] {
        let mut ssh = RawSsh::logged_in(&gateway, &token).await;
        let channel = ssh.open_session(1 << 20, 1 << 15).await;
        ssh.request_sftp(channel, reply).await;
        ssh.send_channel_data(channel, &encode_packet(1, &u32::to_be_bytes(version))).await;
        let (kind, body) = ssh.read_sftp_packet(&mut Vec::new()).await;
        assert_eq!((kind, &body[..4]), (2, &3u32.to_be_bytes()[..]), "INIT {version}");
    }
}

/// Clients that ask for extensions which another server has: a status for each, and the session goes on; fsync of an
/// upload, which two Go libraries send before CLOSE, works.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_extension_is_refused_and_the_session_continues() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let mut sftp = gateway.sftp("alice", &token).await;
    for name in ["text-seek", "md5-hash", "space-available", "vendor-id", "foo@bar", ""] {
        assert_eq!(status_code(sftp.extended(name, &[b"x"]).await), super::UNSUPPORTED, "{name:?}");
    }
    let handle = sftp.open_file(b"/f", REPLACE).await.expect("opened");
    sftp.write_at(&handle, 0, b"x").await.expect("written");
    sftp.extended("fsync@openssh.com", &[&handle]).await.expect("fsync of an upload");
    sftp.close(&handle).await.expect("closed");
    sftp.extended("fsync@openssh.com", &[&handle]).await.expect_err("of what is closed");
    assert_eq!(sftp.realpath(".").await.as_deref(), Ok("/"));
    assert_eq!(sftp.get("/f").await, Ok(b"x".to_vec()));
}
