//! An SSH client that sends single packets, so that a test can do what no library would: repeat a request, open a
//! window of 1 KiB, send any message.
//!
//! It supports `curve25519-sha256` (RFC 8731) and `aes256-gcm@openssh.com` (RFC 5647) alone, and checks no host key.

use std::time::Duration;

use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_256_GCM_SHA384, kx_group::X25519};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::PacketKey;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Fixture, encode_string};

pub(crate) const DISCONNECT: u8 = 1;
pub(crate) const IGNORE: u8 = 2;
pub(crate) const UNIMPLEMENTED: u8 = 3;
pub(crate) const DEBUG: u8 = 4;
pub(crate) const SERVICE_REQUEST: u8 = 5;
pub(crate) const SERVICE_ACCEPT: u8 = 6;
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const KEX_ECDH_INIT: u8 = 30;
const KEX_ECDH_REPLY: u8 = 31;
const USERAUTH_REQUEST: u8 = 50;
pub(crate) const USERAUTH_FAILURE: u8 = 51;
pub(crate) const USERAUTH_SUCCESS: u8 = 52;
const USERAUTH_BANNER: u8 = 53;
pub(crate) const GLOBAL_REQUEST: u8 = 80;
pub(crate) const REQUEST_SUCCESS: u8 = 81;
pub(crate) const REQUEST_FAILURE: u8 = 82;
pub(crate) const CHANNEL_OPEN: u8 = 90;
pub(crate) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
pub(crate) const CHANNEL_OPEN_FAILURE: u8 = 92;
const CHANNEL_WINDOW_ADJUST: u8 = 93;
const CHANNEL_DATA: u8 = 94;
const CHANNEL_CLOSE: u8 = 97;
const CHANNEL_REQUEST: u8 = 98;
pub(crate) const CHANNEL_SUCCESS: u8 = 99;

/// Long enough for any machine.
const PACKET_TIMEOUT: Duration = Duration::from_secs(30);
const VERSION: &[u8] = b"SSH-2.0-packets";

/// One direction of an encrypted connection.
struct PacketCipher {
    key: Box<dyn PacketKey>,
    /// The counter of the first packet: the last eight bytes of the initial vector.
    initial_counter: u64,
    packets: u64,
}

impl PacketCipher {
    fn new(iv: [u8; 32], key: [u8; 32]) -> Self {
        let suite = TLS13_AES_256_GCM_SHA384.tls13().and_then(|suite| suite.quic).expect("AES-GCM");
        let iv: [u8; 12] = iv[..12].try_into().expect("12 bytes");
        let first = u64::from_be_bytes(iv[4..].try_into().expect("8 bytes"));
        Self { key: suite.packet_key(AeadKey::from(key), Iv::new(iv)), initial_counter: first, packets: 0 }
    }

    /// The number that makes QUIC's nonce (the vector XOR a number) that of SSH (the vector plus the packets before).
    fn next_sequence_number(&mut self) -> u64 {
        let number = self.initial_counter.wrapping_add(self.packets) ^ self.initial_counter;
        self.packets += 1;
        number
    }
}

/// An SSH connection, packet by packet.
pub(crate) struct RawSsh {
    stream: TcpStream,
    ciphers: Option<(PacketCipher, PacketCipher)>,
}

impl RawSsh {
    /// Connects and exchanges keys.
    pub(crate) async fn connect(gateway: &Fixture) -> Self {
        let mut ssh = Self { stream: TcpStream::connect(gateway.sftp).await.expect("connects"), ciphers: None };
        ssh.stream.write_all(&[VERSION, b"\r\n"].concat()).await.expect("sent");
        let mut version = Vec::new();
        while !version.ends_with(b"\r\n") {
            version.push(ssh.stream.read_u8().await.expect("a line"));
        }
        let (aead, mac) = ("aes256-gcm@openssh.com", "hmac-sha2-256");
        let lists = ["curve25519-sha256", "ssh-ed25519", aead, aead, mac, mac, "none", "none", "", ""];
        let lists = lists.map(|list| encode_string(list.as_bytes())).concat();
        let client_kexinit = [&[7; 16][..], &lists, &[0; 5]].concat();
        ssh.send(KEXINIT, &[&client_kexinit]).await;
        let server_kexinit = ssh.expect(KEXINIT).await;
        let exchange = X25519.start().expect("a key");
        let public = exchange.pub_key().to_vec();
        ssh.send(KEX_ECDH_INIT, &[&encode_string(&public)]).await;
        let reply = ssh.expect(KEX_ECDH_REPLY).await;
        let mut rest = &reply[..];
        let (host_key, server_public) = (super::take_string(&mut rest), super::take_string(&mut rest));
        let shared = exchange.complete(server_public).expect("a shared secret");
        let shared = encode_mpint(shared.secret_bytes());
        let hash = [
            encode_string(VERSION),
            encode_string(version.trim_ascii_end()),
            encode_string(&[&[KEXINIT], &client_kexinit[..]].concat()),
            encode_string(&[&[KEXINIT], &server_kexinit[..]].concat()),
            encode_string(host_key),
            encode_string(&public),
            encode_string(server_public),
            shared.clone(),
        ];
        let hash = Sha256::digest(hash.concat());
        let derived =
            |letter: u8| -> [u8; 32] { Sha256::digest([&shared[..], &hash[..], &[letter], &hash[..]].concat()).into() };
        ssh.send(NEWKEYS, &[]).await;
        ssh.expect(NEWKEYS).await;
        let outgoing = PacketCipher::new(derived(b'A'), derived(b'C'));
        ssh.ciphers = Some((outgoing, PacketCipher::new(derived(b'B'), derived(b'D'))));
        ssh
    }

    /// Connects and has the login service accepted.
    pub(crate) async fn connect_to_userauth(gateway: &Fixture) -> Self {
        let mut ssh = Self::connect(gateway).await;
        ssh.send(SERVICE_REQUEST, &[&encode_string(b"ssh-userauth")]).await;
        ssh.expect(SERVICE_ACCEPT).await;
        ssh
    }

    /// Connects and logs in with a token.
    pub(crate) async fn logged_in(gateway: &Fixture, token: &str) -> Self {
        let mut ssh = Self::connect_to_userauth(gateway).await;
        assert_eq!(
            ssh.userauth_attempt(b"password", &[&[0], &encode_string(token.as_bytes())]).await,
            USERAUTH_SUCCESS
        );
        ssh
    }

    /// Makes an attempt to log in as `alice`; returns the kind of the answer.
    pub(crate) async fn userauth_attempt(&mut self, method: &[u8], rest: &[&[u8]]) -> u8 {
        let names = [&b"alice"[..], b"ssh-connection", method].map(encode_string).concat();
        self.send(USERAUTH_REQUEST, &[&names, &rest.concat()]).await;
        loop {
            match self.receive().await.expect("an answer").0 {
                USERAUTH_BANNER => {}
                kind => return kind,
            }
        }
    }

    /// Sends a packet.
    pub(crate) async fn send(&mut self, kind: u8, body: &[&[u8]]) {
        let body = body.concat();
        // AES-GCM leaves the length out of what is encrypted.
        let (block, length_bytes) = if self.ciphers.is_some() { (16, 0) } else { (8, 4) };
        // RFC 4253 section 6: at least four bytes of padding, to a multiple of the block.
        let padding = 4 + (block - (length_bytes + 1 + 1 + body.len() + 4) % block) % block;
        let length = u32::try_from(1 + 1 + body.len() + padding).expect("a short packet").to_be_bytes();
        let head = [u8::try_from(padding).expect("short"), kind];
        let mut packet = [&head[..], &body, &vec![0; padding]].concat();
        let mut sealed = length.to_vec();
        if let Some((cipher, _)) = &mut self.ciphers {
            let number = cipher.next_sequence_number();
            let tag = cipher.key.encrypt_in_place(number, &length, &mut packet).expect("encrypted");
            packet.extend(tag.as_ref());
        }
        sealed.extend(packet);
        // A server that has ended the connection still has something to be read.
        let _ = self.stream.write_all(&sealed).await;
    }

    /// Reads a packet: its kind and body; `None` at the end of the connection.
    pub(crate) async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = self.read();
        tokio::time::timeout(PACKET_TIMEOUT, read).await.expect("the server says something")
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let size = u32::from_be_bytes(length) as usize;
        let tag = if self.ciphers.is_some() { 16 } else { 0 };
        let mut packet = vec![0; size + tag];
        self.stream.read_exact(&mut packet).await.ok()?;
        if let Some((_, cipher)) = &mut self.ciphers {
            let number = cipher.next_sequence_number();
            cipher.key.decrypt_in_place(number, &length, &mut packet).expect("decrypted");
        }
        let padding = usize::from(packet[0]);
        Some((packet[1], packet[2..size - padding].to_vec()))
    }

    /// Reads the body of the next packet, which must be of this kind.
    pub(crate) async fn expect(&mut self, expected_kind: u8) -> Vec<u8> {
        loop {
            match self.receive().await.expect("a packet") {
                (USERAUTH_BANNER | CHANNEL_WINDOW_ADJUST | GLOBAL_REQUEST, _) => {}
                (kind, body) if kind == expected_kind => return body,
                (kind, body) => panic!("{kind}, not {expected_kind}: {}", body.escape_ascii()),
            }
        }
    }

    /// Opens a session channel that takes so many bytes at once and in a packet; returns the server's number for it.
    pub(crate) async fn open_session(&mut self, window: u32, packet: u32) -> u32 {
        let numbers = [7, window, packet].map(u32::to_be_bytes).concat();
        self.send(CHANNEL_OPEN, &[&encode_string(b"session"), &numbers]).await;
        let body = self.expect(CHANNEL_OPEN_CONFIRMATION).await;
        super::take_u32(&mut &body[4..])
    }

    /// Requests the SFTP subsystem on a channel, with or without `want_reply`.
    pub(crate) async fn request_sftp(&mut self, channel: u32, reply: bool) {
        let subsystem = [encode_string(b"subsystem"), vec![u8::from(reply)], encode_string(b"sftp")].concat();
        self.send(CHANNEL_REQUEST, &[&channel.to_be_bytes(), &subsystem]).await;
        if reply {
            self.expect(CHANNEL_SUCCESS).await;
        }
    }

    /// Sends bytes on a channel.
    pub(crate) async fn send_channel_data(&mut self, channel: u32, bytes: &[u8]) {
        self.send(CHANNEL_DATA, &[&channel.to_be_bytes(), &encode_string(bytes)]).await;
    }

    /// Enlarges the window of a channel.
    pub(crate) async fn adjust_window(&mut self, channel: u32, bytes: u32) {
        self.send(CHANNEL_WINDOW_ADJUST, &[&channel.to_be_bytes(), &bytes.to_be_bytes()]).await;
    }

    /// Reads the next bytes of the only channel.
    pub(crate) async fn read_channel_data(&mut self) -> Vec<u8> {
        let body = self.expect(CHANNEL_DATA).await;
        super::take_string(&mut &body[4..]).to_vec()
    }

    /// Reads the next whole SFTP packet of the only channel: its type and what follows.
    pub(crate) async fn read_sftp_packet(&mut self, received: &mut Vec<u8>) -> (u8, Vec<u8>) {
        loop {
            if let Some((length, rest)) = received.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let packet = rest[..length].to_vec();
                    received.drain(..4 + length);
                    return (packet[0], packet[1..].to_vec());
                }
            }
            let bytes = self.read_channel_data().await;
            received.extend(bytes);
        }
    }

    /// Closes a channel without ending its data first.
    pub(crate) async fn close_channel(&mut self, channel: u32) {
        self.send(CHANNEL_CLOSE, &[&channel.to_be_bytes()]).await;
    }
}

/// A positive number as SSH writes it (RFC 4251 section 5, `mpint`).
fn encode_mpint(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let digits = &bytes[zeros..];
    match digits.first() {
        Some(128..) => encode_string(&[&[0], digits].concat()),
        _ => encode_string(digits),
    }
}
