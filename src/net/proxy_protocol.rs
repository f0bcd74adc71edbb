//! The PROXY protocol, versions 1 and 2: a proxy prefixes a connection with the client's address.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::AcceptedConnection;

/// Signature of version 2; its length suffices to distinguish the versions.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of a version 1 header, with its CRLF.
const V1_HEADER_MAX_BYTES: usize = 107;
/// Maximum length of a version 2 header after its first 16 bytes.
const V2_BODY_MAX_BYTES: usize = 4096;

/// Parsed header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ProxyHeader {
    /// The client's address; `None` for a connection of the proxy itself.
    source: Option<SocketAddr>,
    /// Whether the client connected to the proxy over TLS.
    encrypted: bool,
}

impl AcceptedConnection {
    /// Reads the header that a trusted proxy sends first. The connection then has the client's address, and counts for
    /// that address in the connection limits. There is no timeout here: the caller bounds the wait.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for an invalid header, [`io::ErrorKind::ConnectionRefused`] when the client's
    /// address is at its limit of unauthenticated connections; I/O errors of the stream.
    pub async fn read_proxy_header(mut self) -> io::Result<Self> {
        let header = read_header(&mut self.stream).await?;
        self.encrypted = header.encrypted;
        if let Some(source) = header.source {
            self.peer = source;
            // Else all clients of a proxy would share the limit of its address.
            if !self.permit.assign_address(source.ip()) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        Ok(self)
    }
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ProxyHeader> {
    let mut start = [0; V2_SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *V2_SIGNATURE {
        return read_v2(stream).await;
    }
    let mut line = start.to_vec();
    // A byte at a time: what follows the line belongs to the next protocol.
    while line.starts_with(b"PROXY ") && line.len() < V1_HEADER_MAX_BYTES && !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
    }
    parse_v1(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_v1(line: &[u8]) -> Option<ProxyHeader> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut fields = text.strip_prefix("PROXY ")?.split(' ');
    let family = fields.next()?;
    // The rest of such a line has to be ignored, as the specification says.
    if family == "UNKNOWN" {
        return Some(ProxyHeader::default());
    }
    let (source, _target, port) =
        (fields.next()?.parse::<IpAddr>().ok()?, fields.next()?, fields.next()?.parse().ok()?);
    // An address of the other family means a broken proxy: refused rather than believed.
    let is_consistent = (family == "TCP4" && source.is_ipv4()) || (family == "TCP6" && source.is_ipv6());
    is_consistent.then(|| ProxyHeader { source: Some(SocketAddr::new(source.to_canonical(), port)), encrypted: false })
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ProxyHeader> {
    let [command, family, high, low] = {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        rest
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // Before the allocation: the length is the peer's claim.
    if length > V2_BODY_MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match command {
        // LOCAL: a connection of the proxy itself, such as a health check. Its addresses must be ignored.
        0x20 => Ok(ProxyHeader::default()),
        0x21 => parse_v2_body(family, &body).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Parses addresses and TLVs; an address family other than TCP over IP yields no address.
fn parse_v2_body(family: u8, body: &[u8]) -> Option<ProxyHeader> {
    let (source, rest) = match family {
        0x11 => {
            let (addresses, rest) = body.split_first_chunk::<12>()?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            (SocketAddr::new([a, b, c, d].into(), u16::from_be_bytes([high, low])), rest)
        }
        0x21 => {
            let (addresses, rest) = body.split_first_chunk::<36>()?;
            let address = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            (SocketAddr::new(IpAddr::from(address).to_canonical(), port), rest)
        }
        // UDP, UNIX sockets and AF_UNSPEC: no address to use, but no error.
        _ => return Some(ProxyHeader::default()),
    };
    Some(ProxyHeader { source: Some(source), encrypted: parse_tls_tlv(rest)? })
}

/// Returns whether the TLVs (type, length, value) say that the client connected over TLS; `None` if one is truncated.
fn parse_tls_tlv(mut rest: &[u8]) -> Option<bool> {
    const TLS: u8 = 0x20;
    let mut encrypted = false;
    while let Some((&[kind, high, low], after)) = rest.split_first_chunk::<3>() {
        let (value, next) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        // PP2_TYPE_SSL: the lowest bit of its first byte is PP2_CLIENT_SSL.
        encrypted |= kind == TLS && value.first().is_some_and(|flags| flags & 1 == 1);
        rest = next;
    }
    // Leftover bytes are a truncated TLV.
    rest.is_empty().then_some(encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_test_header(bytes: &[u8]) -> Result<(Option<String>, bool), io::ErrorKind> {
        let whole = [bytes, b"next"].concat();
        let mut stream = whole.as_slice();
        let header = read_header(&mut stream).await.map_err(|error| error.kind())?;
        assert_eq!(stream, b"next", "nothing more is read");
        Ok((header.source.map(|source| source.to_string()), header.encrypted))
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
        assert_eq!(read_test_header(&v2_header(0x20, 0x11, &ipv4)).await, Ok((None, false)), "the proxy's own");
        assert_eq!(read_test_header(&v2_header(0x21, 0x31, &[0; 216])).await, Ok((None, false)), "not by IP");
        let truncated = [&ipv4[..], &[0x20, 0, 9, 1]].concat();
        for invalid in [
            v2_header(0x21, 0x11, &ipv4[..11]),
            v2_header(0x11, 0x11, &ipv4),
            v2_header(0x21, 0x11, &truncated),
            v2_header(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(read_test_header(&invalid).await, Err(io::ErrorKind::InvalidData));
        }
    }
}
