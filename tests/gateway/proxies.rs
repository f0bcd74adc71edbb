//! Client addresses behind proxies: forwarding headers and the PROXY protocol are used when the proxy is trusted, and
//! ignored otherwise. Public host names behind a proxy are in `bug_reports/webdav_proxies.rs`.

use std::net::SocketAddr;

use patgate::auth::Clock;
use patgate::domain::ForwardingHeaders;
use patgate::gateway::ProxyProtocolListeners;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{DavClient, Fixture, SftpClient, send_raw};

/// A gateway behind proxies in these networks, and the token of somebody who may come from 192.0.2.0/24 alone.
async fn start_behind_proxies(proxies: &str, protocol: ProxyProtocolListeners) -> (Fixture, String) {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.trusted_proxies = vec![proxies.parse().expect("a network")];
        settings.proxy_protocol = protocol;
        settings.insecure_http = true;
    })
    .await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "--ip", "192.0.2.0/24"]);
    (gateway, token)
}

const PROXY_PROTOCOL_OFF: ProxyProtocolListeners = ProxyProtocolListeners { http: false, sftp: false };
const PROXY_PROTOCOL_ON: ProxyProtocolListeners = ProxyProtocolListeners { http: true, sftp: true };

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_address_of_a_trusted_proxy_is_used() {
    let (gateway, token) = start_behind_proxies("127.0.0.0/8", PROXY_PROTOCOL_OFF).await;
    let client = gateway.dav("alice", &token);
    let cases: [(&[(&str, &str)], u16); 8] = [
        (&[], 401),
        (&[("x-forwarded-for", "192.0.2.7")], 207),
        (&[("x-forwarded-for", "198.51.100.1, 192.0.2.7, 127.0.0.3")], 207),
        (&[("x-forwarded-for", "192.0.2.7, 198.51.100.1")], 401),
        (&[("x-forwarded-for", "192.0.2.7, unknown")], 401),
        // nginx hands on what a client sends in the header that it doesn't write itself.
        (&[("forwarded", "for=192.0.2.7")], 401),
        (&[("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "198.51.100.1")], 401),
        (&[("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "192.0.2.7")], 207),
    ];
    for (fields, expected) in cases {
        assert_eq!(propfind_status(&client, fields).await, expected, "{fields:?}");
    }
}

/// Returns the status of a PROPFIND with these headers.
async fn propfind_status(client: &DavClient, fields: &[(&str, &str)]) -> u16 {
    let headers = [fields, &[("depth", "0")]].concat();
    client.send("PROPFIND", "/dav/", &headers, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_header_is_used_only_when_configured() {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.forwarding_headers = ForwardingHeaders::Forwarded;
        settings.insecure_http = true;
    })
    .await;
    gateway.create_user("alice", &["/:rw"]);
    let client = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h", "--ip", "192.0.2.0/24"]));
    let cases: [(&[(&str, &str)], u16); 6] = [
        (&[], 401),
        (&[("forwarded", "for=198.51.100.1, for=\"192.0.2.7:99\"")], 207),
        (&[("forwarded", "for=192.0.2.7, for=198.51.100.1")], 401),
        (&[("x-forwarded-for", "192.0.2.7")], 401),
        (&[("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=198.51.100.1")], 401),
        (&[("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=192.0.2.7")], 207),
    ];
    for (fields, expected) in cases {
        assert_eq!(propfind_status(&client, fields).await, expected, "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_address_of_an_untrusted_peer_is_ignored() {
    let (gateway, token) = start_behind_proxies("10.0.0.0/8", PROXY_PROTOCOL_ON).await;
    let client = gateway.dav("alice", &token);
    let headers = [("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.7"), ("depth", "0")];
    assert_eq!(client.send("PROPFIND", "/dav/", &headers, "").await.status, 401);
    let request = [PROXY_V1_HEADER.as_bytes(), options_request(client.authorization()).as_bytes()].concat();
    assert!(!String::from_utf8_lossy(&send_raw(gateway.http, &request).await).contains(" 207 "));
    assert!(SftpClient::connect(gateway.sftp, "alice", &token).await.is_none());
    let wide = gateway.create_token("alice", &["-e", "1h"]);
    assert!(SftpClient::connect(gateway.sftp, "alice", &wide).await.is_some(), "who is no proxy sends no header");
}

const PROXY_V1_HEADER: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n";

fn options_request(authorization: &str) -> String {
    format!(
        "PROPFIND /dav/ HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nDepth: 0\r\nX-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n"
    )
}

/// Version 2: TCP over IPv4 from 192.0.2.7, over TLS.
const PROXY_V2_HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xc0\0\x02\x07\x7f\0\0\x01\x12\x67\x01\xbb\x20\0\x05\x01\0\0\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn proxy_protocol_sets_the_http_client_address() {
    let (gateway, token) = start_behind_proxies("127.0.0.0/8", PROXY_PROTOCOL_ON).await;
    let request = options_request(gateway.dav("alice", &token).authorization());
    let answer = async |header: &[u8]| {
        let answer = send_raw(gateway.http, &[header, request.as_bytes()].concat()).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(answer(PROXY_V1_HEADER.as_bytes()).await, "207", "and the caller forwards for nobody");
    assert_eq!(answer(PROXY_V2_HEADER).await, "207");
    assert_eq!(answer(b"PROXY TCP4 198.51.100.1 127.0.0.1 4711 443\r\n").await, "401");
    assert_eq!(answer(b"PROXY UNKNOWN\r\n").await, "401", "the proxy's own; it forwards for another");
    assert_eq!(answer(b"").await, "", "a proxy that says nothing of its caller");
    assert_eq!(answer(b"PROXY TCP9 x\r\n").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_protocol_sets_the_sftp_client_address() {
    let (gateway, token) = start_behind_proxies("127.0.0.0/8", PROXY_PROTOCOL_ON).await;
    for (header, expected) in [
        (PROXY_V1_HEADER.as_bytes(), true),
        (PROXY_V2_HEADER, true),
        (b"PROXY TCP4 198.51.100.1 127.0.0.1 4711 22\r\n", false),
        (b"PROXY UNKNOWN\r\n", false),
    ] {
        let relay = proxy_with_header(gateway.sftp, header).await;
        assert_eq!(SftpClient::connect(relay, "alice", &token).await.is_some(), expected, "{header:?}");
    }
}

/// A proxy that sends a header first.
async fn proxy_with_header(to: SocketAddr, header: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(to).await.expect("connected");
            server.write_all(header).await.expect("sent");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    address
}
