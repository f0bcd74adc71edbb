//! Properties of the PROXY protocol's parser, for [`crate::fuzzing`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::proxy_protocol::{parse_header, read_header_bytes};

/// Headers of the PROXY protocol: no byte behind the header is read, and the address is the one that a slow reference
/// finds.
pub(crate) fn proxy_header(data: &[u8]) {
    let mut stream = data;
    let reading = pin!(read_header_bytes(&mut stream)).poll(&mut Context::from_waker(Waker::noop()));
    // What has arrived is all that comes: nothing is waited for.
    let Poll::Ready(reading) = reading else { panic!("all bytes are there") };
    let Ok(header) = reading else { return };
    assert!(data.starts_with(&header) && header.len() + stream.len() == data.len());
    assert!(header.len() <= 16 + 4096);
    if let Ok(client) = parse_header(&header)
        && let Some(address) = client.address
    {
        let expected = if header.starts_with(b"PROXY ") { v1_source(&header) } else { v2_source(&header) };
        assert_eq!(expected, Some(address));
        assert!(!client.encrypted || !header.starts_with(b"PROXY "));
    }
}

fn v1_source(header: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    let fields: Vec<&str> = line.split(' ').collect();
    let ["PROXY", "TCP4" | "TCP6", source, _, port, _] = fields[..] else { return None };
    let address: IpAddr = source.parse().ok()?;
    Some(SocketAddr::new(address.to_canonical(), port.parse().ok()?))
}

fn v2_source(header: &[u8]) -> Option<SocketAddr> {
    let (command, family) = (header.get(12)?, header.get(13)?);
    let body = header.get(16..)?;
    let (address, ports): (IpAddr, _) = match (command, family) {
        (0x21, 0x11) => (Ipv4Addr::from(<[u8; 4]>::try_from(body.get(..4)?).ok()?).into(), body.get(8..12)?),
        (0x21, 0x21) => (Ipv6Addr::from(<[u8; 16]>::try_from(body.get(..16)?).ok()?).into(), body.get(32..36)?),
        _ => return None,
    };
    Some(SocketAddr::new(address.to_canonical(), u16::from_be_bytes([ports[0], ports[1]])))
}
