//! The PROXY protocol, versions 1 and 2: a proxy prefixes a connection with the client's address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxyHeader, Tlv};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::AcceptedConnection;

/// Signature of version 2; its length suffices to distinguish the versions.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of a version 1 header, with its CRLF.
const V1_HEADER_MAX_BYTES: usize = 107;
/// Maximum length of a version 2 header after its first 16 bytes.
const V2_BODY_MAX_BYTES: usize = 4096;

/// Client on whose behalf a proxy connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxiedClient {
    /// Address of the client; `None` for a connection of the proxy itself.
    pub(super) address: Option<SocketAddr>,
    /// Whether the client connected to the proxy over TLS.
    pub(super) encrypted: bool,
}

impl AcceptedConnection {
    /// Reads the header that a trusted proxy sends first, within `header_timeout`. The connection then has the client's
    /// address, and counts for that address in the connection limits: at the limit it waits for some seconds, as one
    /// does that comes from there.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for an invalid header, [`io::ErrorKind::TimedOut`] for a late one,
    /// [`io::ErrorKind::ConnectionRefused`] where the client's address stays at its limit of unauthenticated
    /// connections; I/O errors of the stream.
    pub async fn read_proxy_header(mut self, header_timeout: Duration) -> io::Result<Self> {
        let client = tokio::time::timeout(header_timeout, read_header(&mut self.stream)).await??;
        self.encrypted = client.encrypted;
        if let Some(address) = client.address {
            self.peer = address;
            // Else all clients of a proxy would share the limit of its address.
            self.permit = self.permit.move_to_address(address.ip()).await.ok_or(io::ErrorKind::ConnectionRefused)?;
        }
        Ok(self)
    }
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ProxiedClient> {
    let header = read_header_bytes(stream).await?;
    parse_header(&header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads what may be a header, and no byte more: what follows belongs to the next protocol.
pub(super) async fn read_header_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        let mut fields = [0; 4];
        stream.read_exact(&mut fields).await?;
        header.extend(fields);
        let [_command, _family, high, low] = fields;
        let length = usize::from(u16::from_be_bytes([high, low]));
        // Before the allocation: the length is the peer's claim.
        if length > V2_BODY_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let body_start = header.len();
        header.resize(body_start + length, 0);
        stream.read_exact(&mut header[body_start..]).await?;
        return Ok(header);
    }
    // A byte at a time: the length of a line is not announced.
    while header.starts_with(b"PROXY ") && header.len() < V1_HEADER_MAX_BYTES && !header.ends_with(b"\r\n") {
        header.push(stream.read_u8().await?);
    }
    Ok(header)
}

/// Parses a header.
///
/// # Errors
/// Those of the library.
pub(super) fn parse_header(bytes: &[u8]) -> Result<ProxiedClient, proxy_header::Error> {
    // LOCAL: a connection of the proxy itself, such as a health check. What follows must be ignored, but the parser
    // would refuse it where it is malformed.
    if bytes.strip_prefix(V2_SIGNATURE).is_some_and(|fields| fields.first() == Some(&0x20)) {
        return Ok(ProxiedClient::default());
    }
    let (header, _) = ProxyHeader::parse(bytes, ParseConfig::default())?;
    let mut client = ProxiedClient::default();
    // No address, or one of UDP: a connection of the proxy itself. What its TLVs claim is not a client's.
    let Some(address) = header.proxied_address().filter(|address| address.protocol == Protocol::Stream) else {
        return Ok(client);
    };
    client.address = Some(SocketAddr::new(address.source.ip().to_canonical(), address.source.port()));
    for tlv in header.tlvs() {
        // A malformed one makes the header void: whether there was TLS may be in the part that can't be read.
        if let Tlv::Ssl(tls) = tlv? {
            client.encrypted |= tls.client_ssl();
        }
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::{ConnectionLimiter, ConnectionLimits};

    const TEST_TIMEOUT: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn proxied_client_at_its_limit_waits_and_leaves_permit_of_proxy() {
        let limiter = ConnectionLimiter::new(ConnectionLimits {
            connections: 10,
            per_user: 10,
            unauthenticated: 10,
            unauthenticated_per_address: 1,
        });
        let client: IpAddr = "192.0.2.1".parse().expect("address");
        let first = limiter.acquire(client).expect("room");
        let request = first.begin_request();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut proxy = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connects");
        proxy.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 22\r\n").await.expect("sent");
        let (stream, peer) = listener.accept().await.expect("accepted");
        let permit = limiter.acquire(peer.ip()).expect("room");
        let connection = AcceptedConnection { stream, peer, encrypted: false, permit };
        let waiting = tokio::spawn(connection.read_proxy_header(TEST_TIMEOUT));
        let permit_of_proxy = async {
            while !waiting.is_finished() {
                if let Some(permit) = limiter.acquire(peer.ip()) {
                    return Some(permit);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            None
        };
        let permit_of_proxy = tokio::time::timeout(TEST_TIMEOUT, permit_of_proxy).await.expect("in time");
        assert!(permit_of_proxy.is_some(), "refused at once");
        drop((request, first));
        let connection = waiting.await.expect("no panic").expect("let in once there is a permit");
        assert_eq!(connection.peer.ip(), client);
        assert!(limiter.acquire(client).is_none(), "it counts for the client's address");
    }

    async fn read_test_header(bytes: &[u8]) -> Result<(Option<String>, bool), io::ErrorKind> {
        let input = [bytes, b"next"].concat();
        let mut stream = input.as_slice();
        let client = read_header(&mut stream).await.map_err(|error| error.kind())?;
        assert_eq!(stream, b"next", "nothing more is read");
        Ok((client.address.map(|address| address.to_string()), client.encrypted))
    }

    fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn v1_header_names_client_address() {
        let cases = [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 22\r\n", Some("192.0.2.7:4711")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 4711 22\r\n", Some("[2001:db8::1]:4711")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4711 22\r\n", Some("192.0.2.7:4711")),
        ];
        for (line, source) in cases {
            assert_eq!(read_test_header(line.as_bytes()).await, Ok((source.map(str::to_owned), false)), "{line}");
        }
        for line in [
            "GET / HTTP/1.1\r\n",
            "SSH-2.0-client\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.1 4711 22\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 99999 22\r\n",
            "PROXY TCP4 192.0.2.7\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 nonsense 4711 22\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 22 more\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 22\rx\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4711 22\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 4711 22\r\n",
            "PROXYTCP4 192.0.2.7 198.51.100.1 4711 22\r\n",
            &format!("PROXY TCP4 {}\r\n", "1".repeat(200)),
        ] {
            assert_eq!(read_test_header(line.as_bytes()).await, Err(io::ErrorKind::InvalidData), "{line}");
        }
        assert_eq!(read_test_header(b"PROXY").await, Err(io::ErrorKind::UnexpectedEof));
    }

    #[tokio::test]
    async fn v2_header_names_client_address() {
        let ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0, 22];
        let ipv6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0x12, 0x67, 0, 22]].concat();
        let tls = |flags: u8| [&ipv4[..], &[0x04, 0, 1, 9], &[0x20, 0, 5, flags, 0, 0, 0, 0]].concat();
        let from = |source: &str, encrypted| Ok((Some(source.to_owned()), encrypted));
        assert_eq!(read_test_header(&v2_header(0x21, 0x11, &ipv4)).await, from("192.0.2.7:4711", false));
        assert_eq!(read_test_header(&v2_header(0x21, 0x21, &ipv6)).await, from("[::1]:4711", false));
        assert_eq!(read_test_header(&v2_header(0x21, 0x11, &tls(1))).await, from("192.0.2.7:4711", true));
        assert_eq!(read_test_header(&v2_header(0x21, 0x11, &tls(0))).await, from("192.0.2.7:4711", false));
        let after_others = [&ipv4[..], &[0xea, 0, 2, 1, 0xff], &[0x20, 0, 5, 1, 0, 0, 0, 0], &[0x04, 0, 0]].concat();
        assert_eq!(read_test_header(&v2_header(0x21, 0x11, &after_others)).await, from("192.0.2.7:4711", true));
        for (family, body) in [(0x11, &ipv4[..]), (0x11, &[1, 2]), (0x00, &[]), (0xff, &tls(1))] {
            assert_eq!(read_test_header(&v2_header(0x20, family, body)).await, Ok((None, false)), "the proxy's own");
        }
        for (family, body) in [(0x31, &[0; 216][..]), (0x12, &ipv4), (0x00, &[]), (0x00, &[9, 9])] {
            assert_eq!(read_test_header(&v2_header(0x21, family, body)).await, Ok((None, false)), "not TCP over IP");
        }
        let truncated = [&ipv4[..], &[0x20, 0, 9, 1]].concat();
        let short_tls = [&ipv4[..], &[0x20, 0, 1, 1]].concat();
        let half_a_tlv = [&ipv4[..], &[0x20, 0]].concat();
        for invalid in [
            v2_header(0x21, 0x11, &ipv4[..11]),
            v2_header(0x11, 0x11, &ipv4),
            v2_header(0x21, 0x11, &truncated),
            v2_header(0x21, 0x11, &short_tls),
            v2_header(0x21, 0x11, &half_a_tlv),
            // A family that the specification doesn't know must be refused.
            v2_header(0x21, 0x41, &ipv4),
            v2_header(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(read_test_header(&invalid).await, Err(io::ErrorKind::InvalidData));
        }
    }
}
