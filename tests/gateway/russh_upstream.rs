//! Limitations of the russh library that patgate works around. A test here fails once a newer russh has fixed one, and
//! says which workaround to remove then; `docs/russh-login.md` describes them.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::keys::ssh_key::private::{Ed25519Keypair, PrivateKey};
use russh::server::{self, Auth};
use russh::{Preferred, cipher, compression, kex, mac};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::encode_string;

const SERVICE_REQUEST: u8 = 5;
const SERVICE_ACCEPT: u8 = 6;
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const USERAUTH_REQUEST: u8 = 50;
const USERAUTH_FAILURE: u8 = 51;

/// Longest time until russh answers.
const RUSSH_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

struct RefusesAll;

impl server::Handler for RefusesAll {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::reject())
    }
}

/// A client of a russh server that encrypts nothing, packet by packet.
struct RawClient(DuplexStream);

impl RawClient {
    /// Connects, exchanges no keys, and has `ssh-userauth` accepted.
    async fn connect() -> Self {
        let (client_stream, server_stream) = tokio::io::duplex(1 << 16);
        let preferred = Preferred {
            kex: vec![kex::NONE].into(),
            key: vec![Algorithm::Ed25519].into(),
            cipher: vec![cipher::NONE].into(),
            mac: vec![mac::NONE].into(),
            compression: vec![compression::NONE].into(),
            ..Preferred::default()
        };
        let config = server::Config {
            keys: vec![PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))],
            auth_rejection_time: Duration::ZERO,
            preferred,
            ..server::Config::default()
        };
        tokio::spawn(async move { server::run_stream(Arc::new(config), server_stream, RefusesAll).await?.await });
        let mut client = Self(client_stream);
        client.0.write_all(b"SSH-2.0-raw\r\n").await.expect("sent");
        while client.0.read_u8().await.expect("a line") != b'\n' {}
        let lists = ["none", "ssh-ed25519", "none", "none", "none", "none", "none", "none", "", ""];
        let lists = lists.map(|list| encode_string(list.as_bytes())).concat();
        client.send(KEXINIT, &[&[0; 16][..], &lists, &[0; 5]].concat()).await;
        assert_eq!(client.next_packet_kind().await, Some(KEXINIT));
        assert_eq!(client.next_packet_kind().await, Some(NEWKEYS));
        client.send(NEWKEYS, &[]).await;
        client.send(SERVICE_REQUEST, &encode_string(b"ssh-userauth")).await;
        assert_eq!(client.next_packet_kind().await, Some(SERVICE_ACCEPT));
        client
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        // RFC 4253 section 6: at least four bytes of padding, to a multiple of eight.
        let padding = 4 + (8 - (4 + 1 + 1 + body.len() + 4) % 8) % 8;
        let length = u32::try_from(1 + 1 + body.len() + padding).expect("a short packet");
        let head = [&length.to_be_bytes()[..], &[u8::try_from(padding).expect("short"), kind]].concat();
        self.0.write_all(&[&head, body, &vec![0; padding]].concat()).await.expect("sent");
    }

    /// The kind of the next packet; `None` when there is none in time.
    async fn next_packet_kind(&mut self) -> Option<u8> {
        let packet = async {
            let length = self.0.read_u32().await.ok()?;
            let mut packet = vec![0; length as usize];
            self.0.read_exact(&mut packet).await.ok()?;
            packet.get(1).copied()
        };
        tokio::time::timeout(RUSSH_ANSWER_TIMEOUT, packet).await.ok().flatten()
    }

    async fn userauth_attempt(&mut self, method: &[&[u8]]) -> Option<u8> {
        let names = [&b"alice"[..], b"ssh-connection"].map(encode_string).concat();
        self.send(USERAUTH_REQUEST, &[names, method.concat()].concat()).await;
        self.next_packet_kind().await
    }
}

#[tokio::test]
async fn russh_leaves_a_second_service_request_unanswered() {
    let mut client = RawClient::connect().await;
    assert_eq!(client.userauth_attempt(&[&encode_string(b"none")]).await, Some(USERAUTH_FAILURE));
    client.send(SERVICE_REQUEST, &encode_string(b"ssh-userauth")).await;
    let answer = client.next_packet_kind().await;
    assert_eq!(
        answer, None,
        "russh answers it now: change docs/russh-login.md, the hints of `patgate client`, and what tells of it in sftp"
    );
}

#[tokio::test]
async fn russh_disconnects_on_an_unparsable_public_key() {
    let mut client = RawClient::connect().await;
    // A type of key that russh knows, with less in it than belongs there.
    let key = encode_string(&encode_string(b"ssh-ed25519"));
    let answer =
        client.userauth_attempt(&[&encode_string(b"publickey"), &[0], &encode_string(b"ssh-ed25519"), &key]).await;
    assert_eq!(answer, None, "russh refuses such a key now: change docs/russh-login.md");
    let read_result = tokio::time::timeout(RUSSH_ANSWER_TIMEOUT, client.0.read_u8()).await.expect("no silence either");
    assert!(read_result.is_err(), "the connection is gone");
}
