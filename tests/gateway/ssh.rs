//! The SSH layer below SFTP: ways to log in, channels and subsystems, limits, rekeying, and how sessions end. Login
//! attempts and their time-outs are in `ssh_login.rs`, SFTP itself in `sftp*.rs`.

use std::sync::Arc;
use std::time::Duration;

use patgate::auth::Clock;
use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::{Channel, ChannelMsg, Preferred, SshId, cipher, kex, mac};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::ssh::{SSH_TIMEOUT, next_message, start_gateway};
use crate::support::{Fixture, SftpError, encode_packet, encode_string};

struct AcceptAnyHostKey;

impl client::Handler for AcceptAnyHostKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn connect_ssh(gateway: &Fixture) -> Handle<AcceptAnyHostKey> {
    client::connect(Arc::new(client::Config::default()), gateway.sftp, AcceptAnyHostKey).await.expect("connects")
}

async fn login(gateway: &Fixture, token: &str) -> Handle<AcceptAnyHostKey> {
    let mut ssh = connect_ssh(gateway).await;
    assert!(ssh.authenticate_password("alice", token).await.expect("answers").success());
    ssh
}

async fn sftp_channel(ssh: &Handle<AcceptAnyHostKey>) -> Channel<client::Msg> {
    let mut channel = ssh.channel_open_session().await.expect("opens");
    channel.request_subsystem(true, "sftp").await.expect("sent");
    assert!(matches!(next_message(&mut channel).await, Some(ChannelMsg::Success)));
    channel
}

fn sftp_init_packet() -> Vec<u8> {
    encode_packet(1, &3u32.to_be_bytes())
}

fn sftp_request_packet(kind: u8, id: u32, body: &[&[u8]]) -> Vec<u8> {
    encode_packet(kind, &[&id.to_be_bytes()[..], &body.concat()].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_accepted_as_password_or_keyboard_interactive() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let mut ssh = connect_ssh(&gateway).await;
    assert!(!ssh.authenticate_none("alice").await.expect("answers").success());
    let wrong = ssh.authenticate_password("alice", "wrong").await.expect("answers");
    let AuthResult::Failure { remaining_methods, .. } = wrong else { panic!("a wrong token was let in") };
    assert_eq!(remaining_methods.len(), 2, "it can be tried again: {remaining_methods:?}");
    for (answer, is_accepted) in [("wrong", false), (&token[..], true)] {
        let prompt = ssh.authenticate_keyboard_interactive_start("alice", None::<String>).await.expect("answers");
        let KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } = prompt else { panic!("{prompt:?}") };
        assert!(prompts.len() == 1 && !prompts[0].echo, "{prompts:?}");
        let answer = ssh.authenticate_keyboard_interactive_respond(vec![answer.to_owned()]).await.expect("answers");
        assert_eq!(matches!(answer, KeyboardInteractiveAuthResponse::Success), is_accepted, "{answer:?}");
    }
    sftp_channel(&ssh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_shell_and_unknown_subsystems_fail_and_sftp_still_starts() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let ssh = login(&gateway, &token).await;
    let mut channel = ssh.channel_open_session().await.expect("opens");
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.expect("sent");
    channel.set_env(true, "LANG", "C").await.expect("sent");
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.expect("sent");
    channel.agent_forward(true).await.expect("sent");
    channel.exec(true, "id").await.expect("sent");
    channel.request_shell(true).await.expect("sent");
    channel.request_subsystem(true, "netconf").await.expect("sent");
    for what in ["pty", "env", "x11", "agent", "exec", "shell", "subsystem"] {
        let answer = next_message(&mut channel).await;
        assert!(matches!(answer, Some(ChannelMsg::Failure)), "{what}: {answer:?}");
    }
    channel.request_subsystem(true, "sftp").await.expect("sent");
    assert!(matches!(next_message(&mut channel).await, Some(ChannelMsg::Success)));
    channel.request_subsystem(true, "sftp").await.expect("sent");
    assert!(matches!(next_message(&mut channel).await, Some(ChannelMsg::Failure)), "once is enough");
    assert!(ssh.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
    assert!(ssh.tcpip_forward("127.0.0.1", 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_end_sends_reply_exit_status_zero_eof_and_close() {
    let (gateway, token) = start_gateway(|_| {}).await;
    let ssh = login(&gateway, &token).await;
    let mut channel = sftp_channel(&ssh).await;
    let requests = (1..=300).flat_map(|id| sftp_request_packet(16, id, &[&encode_string(b"/")]));
    let bytes: Vec<u8> = sftp_init_packet().into_iter().chain(requests).collect();
    channel.data_bytes(bytes).await.expect("sent");
    channel.eof().await.expect("sent");
    let (mut data, mut rest) = (Vec::new(), Vec::new());
    while let Some(message) = next_message(&mut channel).await {
        match message {
            ChannelMsg::Data { data: part } => data.extend_from_slice(&part),
            other => rest.push(other),
        }
    }
    let mut answers = 0;
    while let Some((length, _)) = data.split_first_chunk::<4>() {
        data.drain(..4 + u32::from_be_bytes(*length) as usize);
        answers += 1;
    }
    assert_eq!(answers, 301, "VERSION and one for each");
    let is_in_order =
        matches!(rest[..], [ChannelMsg::ExitStatus { exit_status: 0 }, ChannelMsg::Eof, ChannelMsg::Close, ..]);
    assert!(is_in_order, "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_of_a_connection_are_capped_and_share_uploads() {
    let (gateway, token) = start_gateway(|options| options.max_channels = 2).await;
    let ssh = login(&gateway, &token).await;
    let (mut first, mut second) = (sftp_channel(&ssh).await, sftp_channel(&ssh).await);
    assert!(ssh.channel_open_session().await.is_err(), "a third");
    let open = sftp_request_packet(3, 1, &[&encode_string(b"/f"), &26u32.to_be_bytes(), &[0; 4]]);
    first.data_bytes([sftp_init_packet(), open].concat()).await.expect("sent");
    let mut seen = Vec::new();
    while !seen.ends_with(&1u64.to_be_bytes()) {
        let Some(ChannelMsg::Data { data }) = next_message(&mut first).await else { panic!("no handle") };
        seen.extend_from_slice(&data);
    }
    second
        .data_bytes([sftp_init_packet(), sftp_request_packet(17, 9, &[&encode_string(b"/f")])].concat())
        .await
        .expect("sent");
    let mut seen = Vec::new();
    while !seen.windows(5).any(|part| part == [105, 0, 0, 0, 9]) {
        let Some(ChannelMsg::Data { data }) = next_message(&mut second).await else { panic!("no attributes") };
        seen.extend_from_slice(&data);
        assert!(!seen.windows(5).any(|part| part == [101, 0, 0, 0, 9]), "the other channel's upload is unseen");
    }
    first.eof().await.expect("sent");
    while next_message(&mut first).await.is_some() {}
    for _ in 0..500 {
        if ssh.channel_open_session().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place of a closed channel is not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connections_are_closed_at_the_login_timeout() {
    let (gateway, _) = start_gateway(|options| options.login_timeout = Duration::from_millis(300)).await;
    let mut silent = TcpStream::connect(gateway.sftp).await.expect("connects");
    let mut heard = Vec::new();
    let read_result = tokio::time::timeout(SSH_TIMEOUT, silent.read_to_end(&mut heard)).await;
    assert!(read_result.is_ok(), "the silent one is still there");
    let ssh = connect_ssh(&gateway).await;
    let closed = async {
        while !ssh.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SSH_TIMEOUT, closed).await.expect("the one without a token is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_per_user_are_limited() {
    let (gateway, token) = start_gateway(|options| options.max_connections_per_user = 1).await;
    gateway.create_user("bob", &["/:r"]);
    let bobs = gateway.create_token("bob", &["-e", "1h"]);
    let first = gateway.sftp("alice", &token).await;
    assert!(
        crate::support::SftpClient::connect(gateway.sftp, "alice", &token).await.is_none(),
        "the disconnect is tested in bug_reports::sftp_login"
    );
    gateway.sftp("bob", &bobs).await;
    first.drop_connection();
    for _ in 0..200 {
        if crate::support::SftpClient::connect(gateway.sftp, "alice", &token).await.is_some() {
            return;
        }
    }
    panic!("the place is not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_survive_rekeying() {
    let (gateway, token) = start_gateway(|options| options.rekey_bytes = 1 << 20).await;
    let content: Vec<u8> = (0..6u32 << 20).map(|n| (n / 3) as u8).collect();
    let mut sftp = gateway.sftp("alice", &token).await;
    let transfer = async {
        sftp.put("/big", &content).await.expect("put");
        sftp.get("/big").await.expect("get")
    };
    let found = tokio::time::timeout(SSH_TIMEOUT, transfer).await.expect("no transfer stalls");
    assert!(found == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_reads_no_replies_is_disconnected() {
    let (gateway, token) = start_gateway(|options| options.client_timeout = Duration::from_millis(500)).await;
    gateway.write_host_file("/big", vec![7; 1 << 20]);
    let tcp = TcpStream::connect(gateway.sftp).await.expect("connects");
    let (mut from_server, mut to_server) = tcp.into_split();
    let (client_stream, server_stream) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(server_stream);
    let reading = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut writing = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut ssh = client::connect_stream(Arc::new(client::Config::default()), client_stream, AcceptAnyHostKey)
        .await
        .expect("connects");
    assert!(ssh.authenticate_password("alice", &token).await.expect("answers").success());
    let mut channel = sftp_channel(&ssh).await;
    let open = sftp_request_packet(3, 1, &[&encode_string(b"/big"), &1u32.to_be_bytes(), &[0; 4]]);
    channel.data_bytes([sftp_init_packet(), open].concat()).await.expect("sent");
    let mut seen = Vec::new();
    while !seen.ends_with(&1u64.to_be_bytes()) {
        let Some(ChannelMsg::Data { data }) = next_message(&mut channel).await else { panic!("no handle") };
        seen.extend_from_slice(&data);
    }
    // From here on nothing of what the server says is taken from the socket, which stays open.
    reading.abort();
    let handle = encode_string(&1u64.to_be_bytes());
    let reads = (0..400).flat_map(|id| sftp_request_packet(5, id, &[&handle, &[0; 8], &261_120u32.to_be_bytes()]));
    channel.data_bytes(reads.collect::<Vec<u8>>()).await.expect("sent");
    let disconnected = async {
        loop {
            tokio::select! {
                _ = &mut writing => return,
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    let _ = channel.data_bytes(sftp_request_packet(16, 1, &[&encode_string(b"/")])).await;
                }
            }
        }
    };
    tokio::time::timeout(SSH_TIMEOUT, disconnected).await.expect("the session ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_server_finishes_open_files_and_refuses_new_channels() {
    let (mut gateway, token) = start_gateway(|_| {}).await;
    let mut busy = gateway.sftp("alice", &token).await;
    let mut idle = gateway.sftp("alice", &token).await;
    let ssh = login(&gateway, &token).await;
    let handle = busy.open_file(b"/f", 2 | 8 | 16).await.expect("opens");
    let halting = tokio::spawn(async move {
        gateway.stop().await;
        gateway
    });
    assert_eq!(
        tokio::time::timeout(SSH_TIMEOUT, idle.receive(0)).await,
        Ok(Err(SftpError::ConnectionLost)),
        "it had nothing open"
    );
    assert!(ssh.channel_open_session().await.is_err());
    busy.write_at(&handle, 0, b"finished").await.expect("goes on");
    busy.close(&handle).await.expect("commits");
    let gateway = tokio::time::timeout(SSH_TIMEOUT, halting).await.expect("then all ends").expect("without a panic");
    assert_eq!(std::fs::read(gateway.host_path("/f")).expect("a file"), b"finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_banner_and_kexinit_offer_no_weak_algorithms() {
    let (gateway, _) = start_gateway(|_| {}).await;
    let mut tcp = TcpStream::connect(gateway.sftp).await.expect("connects");
    tcp.write_all(b"SSH-2.0-Test\r\n").await.expect("sent");
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"\r\n") {
        greeting.push(tcp.read_u8().await.expect("a greeting"));
    }
    let greeting = String::from_utf8(greeting).expect("text");
    assert!(greeting.starts_with("SSH-2.0-patgate_") && greeting.contains(" OpenSSH_"), "{greeting}");
    let length = tcp.read_u32().await.expect("a packet") as usize;
    let mut kexinit = vec![0; length];
    tcp.read_exact(&mut kexinit).await.expect("a packet");
    let (mut rest, mut lists) = (&kexinit[18..], Vec::new());
    for _ in 0..8 {
        let size = u32::from_be_bytes(rest[..4].try_into().expect("a size")) as usize;
        lists.push(std::str::from_utf8(&rest[4..4 + size]).expect("text"));
        rest = &rest[4 + size..];
    }
    assert!(lists[0].starts_with("mlkem768x25519-sha256,curve25519-sha256"), "{}", lists[0]);
    assert_eq!(lists[1], "ssh-ed25519", "throwaway keys are of one kind");
    assert!(lists[2].starts_with("aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305"), "{}", lists[2]);
    assert_eq!(lists[4], "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512");
    assert_eq!(lists[6], "none");
    assert!(!lists[0].contains("group16") && !lists[0].contains("group18"), "the costly ones: {}", lists[0]);
    let weak = ["sha1", "md5", "cbc", "3des", "none", "zlib"];
    assert!(!lists[..6].iter().any(|list| weak.iter().any(|name| list.contains(name))), "{lists:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_only_older_algorithms_can_log_in() {
    let (gateway, token) = start_gateway(|_| {}).await;
    for (who, kex, mac) in [
        ("libssh2 1.10", kex::CURVE25519, mac::HMAC_SHA256),
        ("libssh2 1.8", kex::DH_G14_SHA256, mac::HMAC_SHA512),
        ("JSch 0.1", kex::ECDH_SHA2_NISTP256, mac::HMAC_SHA256),
    ] {
        let preferred = Preferred {
            kex: vec![kex].into(),
            cipher: vec![cipher::AES_128_CTR].into(),
            mac: vec![mac].into(),
            ..Preferred::default()
        };
        let config = client::Config { preferred, ..client::Config::default() };
        let mut ssh = client::connect(Arc::new(config), gateway.sftp, AcceptAnyHostKey).await.expect(who);
        assert!(ssh.authenticate_password("alice", &token).await.expect("answered").success(), "{who}");
        sftp_channel(&ssh).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn symlink_argument_order_follows_the_client() {
    let (gateway, token) = start_gateway(|_| {}).await;
    gateway.write_host_file("/target", "x");
    for (name, link_first) in [
        ("SSH-2.0-ssh2js1.17.0", true),
        ("SSH-2.0-WinSCP_release_6.5", true),
        ("SSH-2.0-phpseclib_3.0 (libsodium, openssl)", true),
        ("SSH-2.0-Go", false),
    ] {
        let config = client::Config { client_id: SshId::Standard(name.into()), ..client::Config::default() };
        let mut ssh = client::connect(Arc::new(config), gateway.sftp, AcceptAnyHostKey).await.expect("connected");
        assert!(ssh.authenticate_password("alice", &token).await.expect("answered").success(), "{name}");
        let mut channel = sftp_channel(&ssh).await;
        let (link, target) = (encode_string(b"link"), encode_string(b"target"));
        let arguments = if link_first { [&link[..], &target] } else { [&target[..], &link] };
        channel.data_bytes([sftp_init_packet(), sftp_request_packet(20, 1, &arguments)].concat()).await.expect("sent");
        channel.eof().await.expect("sent");
        while channel.wait().await.is_some() {}
        assert_eq!(std::fs::read_link(gateway.host_path("/link")).expect(name).to_str(), Some("target"), "{name}");
        std::fs::remove_file(gateway.host_path("/link")).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hashing_a_large_file_blocks_no_other_channel_and_stops_with_the_connection() {
    let long = |settings: &mut patgate::gateway::GatewaySettings| settings.drain_timeout = Duration::from_secs(3600);
    let mut gateway = Fixture::start_with(Clock::system(), long).await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let large = std::fs::File::create(gateway.host_path("/large")).expect("a file");
    large.set_len(64 << 30).expect("of nothing but holes");
    let ssh = login(&gateway, &token).await;
    let (hashing, mut other) = (sftp_channel(&ssh).await, sftp_channel(&ssh).await);
    let check =
        [&encode_string(b"check-file-name")[..], &encode_string(b"/large"), &encode_string(b"sha512"), &[0; 20]];
    hashing.data_bytes([sftp_init_packet(), sftp_request_packet(200, 1, &check)].concat()).await.expect("sent");
    other
        .data_bytes([sftp_init_packet(), sftp_request_packet(17, 9, &[&encode_string(b"/large")])].concat())
        .await
        .expect("sent");
    let mut seen = Vec::new();
    while !seen.windows(5).any(|part| part == [105, 0, 0, 0, 9]) {
        let Some(ChannelMsg::Data { data }) = next_message(&mut other).await else { panic!("no attributes") };
        seen.extend_from_slice(&data);
    }
    ssh.disconnect(russh::Disconnect::ByApplication, "", "").await.expect("sent");
    let stopped = tokio::time::timeout(SSH_TIMEOUT, gateway.stop()).await;
    assert!(stopped.is_ok(), "hashes are reckoned on for nobody");
}
