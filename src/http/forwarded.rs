//! Source of a request: the socket's peer, or the client that a trusted proxy names.
//!
//! A proxy appends to a list in `X-Forwarded-For`, or in `Forwarded` (RFC 7239). The last address of the list that is
//! not a trusted proxy is the client; earlier ones, and anything from a peer that isn't trusted, may be forged and are
//! ignored. Most proxies write one of the two headers and pass the other on as the client sent it, nginx among them:
//! only the header that they are configured to write counts.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use super::forwarding_header_names::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PREFIX, X_FORWARDED_PROTO,
};
use super::public_address::{ForwardedAddress, ServerName};
use crate::domain::{ForwardingHeaders, parse_public_prefix};

/// Source of a request: the client's address, and whether it used TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSource {
    /// Address of the client, in canonical form (IPv4-mapped addresses are IPv4).
    pub address: IpAddr,
    /// Whether the request was encrypted: by our TLS, or by that of a trusted proxy.
    pub encrypted: bool,
}

impl RequestSource {
    /// Tells whether a credential may be accepted: the request was encrypted, or never left this machine.
    pub fn is_confidential(&self) -> bool {
        self.encrypted || self.address.to_canonical().is_loopback()
    }
}

/// Proxies whose statements about their clients are trusted.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    headers: ForwardingHeaders,
}

/// One hop of the path that a request took through proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ForwardedHop {
    /// Address that the hop was reached from; `None` where it is malformed or obfuscated (RFC 7239 section 6.3).
    address: Option<IpAddr>,
    /// Whether the hop was reached over TLS, where that is stated.
    encrypted: Option<bool>,
    /// Host of the request, where that is stated.
    host: Option<ServerName>,
}

impl TrustedProxies {
    /// Creates the set of trusted networks, and which headers their proxies write.
    pub fn new(networks: Vec<IpNet>, headers: ForwardingHeaders) -> Self {
        Self { networks, headers }
    }

    /// Tells whether an address is that of a trusted proxy.
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|net| net.contains(&address))
    }

    /// Returns the source of a request from `peer`, whose connection is `encrypted` or not.
    pub fn request_source(&self, peer: IpAddr, encrypted: bool, headers: &HeaderMap) -> RequestSource {
        let peer = peer.to_canonical();
        // Headers of any other peer may be forged: neither the address nor the encryption is taken from them.
        if !self.is_trusted(peer) {
            super::untrusted_proxy::warn_once(peer, headers);
            return RequestSource { address: peer, encrypted };
        }
        // Only the configured header: the proxy passes the other one on as the client sent it.
        let (hops, proto) = match self.headers {
            ForwardingHeaders::XForwarded => (parse_x_forwarded_for(headers), parse_x_forwarded_proto(headers)),
            ForwardingHeaders::Forwarded => (parse_forwarded(headers), None),
        };
        let (address, by_hop) = hops.map_or((peer, None), |hops| self.client_behind_proxies(peer, &hops));
        // Where the proxy states nothing, the encryption of our connection counts only if there is no client behind it.
        let encrypted = proto.or(by_hop).unwrap_or(encrypted && address == peer);
        RequestSource { address, encrypted }
    }

    /// Returns the public address of the server according to trusted proxies.
    pub fn forwarded_address(&self, peer: IpAddr, headers: &HeaderMap) -> ForwardedAddress {
        if !self.is_trusted(peer) {
            return ForwardedAddress::default();
        }
        match self.headers {
            ForwardingHeaders::XForwarded => parse_x_forwarded_address(headers),
            ForwardingHeaders::Forwarded => {
                ForwardedAddress { hosts: self.forwarded_hosts(headers), ..ForwardedAddress::default() }
            }
        }
    }

    /// Returns the hosts in `Forwarded`, of the elements that trusted proxies wrote.
    fn forwarded_hosts(&self, headers: &HeaderMap) -> Vec<ServerName> {
        let mut hosts = Vec::new();
        for hop in parse_forwarded(headers).unwrap_or_default().into_iter().rev() {
            let trusted = hop.address.is_some_and(|address| self.is_trusted(address));
            // The element of an untrusted address was itself written by a trusted proxy, so its host counts.
            hosts.extend(hop.host);
            // Earlier elements were written by a sender that is not trusted.
            if !trusted {
                break;
            }
        }
        hosts.reverse();
        hosts
    }

    /// Walks back over trusted proxies: returns the client behind them, and whether the last of them was reached over
    /// TLS.
    fn client_behind_proxies(&self, peer: IpAddr, hops: &[ForwardedHop]) -> (IpAddr, Option<bool>) {
        let mut client = (peer, None);
        // From the nearest hop backwards: each element is written by the hop after it.
        for hop in hops.iter().rev() {
            // Malformed or obfuscated: nothing before it can be attributed, so the last known address is the client.
            let Some(address) = hop.address else { break };
            client = (address, hop.encrypted);
            if !self.is_trusted(address) {
                break;
            }
        }
        client
    }
}

/// Parses `X-Forwarded-Host`, `-Port` and `-Prefix`.
fn parse_x_forwarded_address(headers: &HeaderMap) -> ForwardedAddress {
    let hosts = header_texts(headers, X_FORWARDED_HOST)
        .flat_map(|list| list.split(','))
        .filter_map(|host| ServerName::parse(host.as_bytes()))
        .collect();
    // One malformed prefix makes all of them void: links with a part of the path would lead elsewhere.
    let prefixes: Option<Vec<String>> = header_texts(headers, X_FORWARDED_PREFIX)
        .flat_map(|list| list.split(','))
        .map(|path| parse_public_prefix(path.trim().as_bytes()))
        .collect();
    let port = header_texts(headers, X_FORWARDED_PORT)
        .flat_map(|list| list.split(','))
        .find_map(|port| port.trim().parse().ok());
    ForwardedAddress { hosts, port, prefix: prefixes.map(|paths| paths.concat()).filter(|path| !path.is_empty()) }
}

/// Returns the values of a header, those that are not text left out.
fn header_texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// Parses `X-Forwarded-For`, the nearest hop last; `None` where it is missing.
fn parse_x_forwarded_for(headers: &HeaderMap) -> Option<Vec<ForwardedHop>> {
    let values = headers.get_all(X_FORWARDED_FOR);
    let parse_hop = |hop: &str| ForwardedHop { address: parse_node_address(hop.trim()), ..ForwardedHop::default() };
    // Lossily: a byte that is no text, in what a client has sent, must not hide what a proxy has put behind it.
    let hops = values.iter().map(|list| String::from_utf8_lossy(list.as_bytes()));
    let hops: Vec<ForwardedHop> = hops.flat_map(|list| list.split(',').map(parse_hop).collect::<Vec<_>>()).collect();
    (!hops.is_empty()).then_some(hops)
}

/// Parses `X-Forwarded-Proto`, to which each of several proxies may append; `None` where it is missing.
fn parse_x_forwarded_proto(headers: &HeaderMap) -> Option<bool> {
    let values = headers.get_all(X_FORWARDED_PROTO);
    let mut protocols = values.iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).peekable();
    protocols.peek()?;
    // One unencrypted hop is enough to have exposed the token.
    Some(protocols.all(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"https")))
}

/// Parses `Forwarded` (RFC 7239 section 4), the nearest hop last; `None` where it is missing.
fn parse_forwarded(headers: &HeaderMap) -> Option<Vec<ForwardedHop>> {
    let values = headers.get_all(header::FORWARDED);
    let hops = values.iter().map(|list| String::from_utf8_lossy(list.as_bytes()));
    let parse_list = |list: &str| split_list(list).into_iter().map(parse_forwarded_element).collect::<Vec<_>>();
    let hops: Vec<ForwardedHop> = hops.flat_map(|list| parse_list(&list)).collect();
    (!hops.is_empty()).then_some(hops)
}

fn parse_forwarded_element(element: &str) -> ForwardedHop {
    let mut hop = ForwardedHop::default();
    for pair in split_unquoted(element, ';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = parse_node_address(value),
            "host" => hop.host = ServerName::parse(value.as_bytes()),
            "proto" => hop.encrypted = Some(value.eq_ignore_ascii_case("https")),
            _ => {}
        }
    }
    hop
}

/// Splits a list at its commas outside of quoted strings. One that ends within a quoted string is split from its end: a
/// quote that a client has opened must not swallow the element that a proxy has put behind it, in the same line.
fn split_list(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        let literal = escaped;
        escaped = quoted && c == '\\' && !literal;
        quoted ^= c == '"' && !literal;
    }
    if !quoted {
        return split_unquoted(text, ',').collect();
    }
    let (mut elements, mut end, mut quoted) = (Vec::new(), text.len(), false);
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b'"' if !text[..at].ends_with('\\') => quoted = !quoted,
            b',' if !quoted => {
                elements.push(&text[at + 1..end]);
                end = at;
            }
            _ => {}
        }
    }
    elements.push(&text[..end]);
    elements.reverse();
    elements
}

/// Splits a text at separators outside of quoted strings.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        // A backslash escapes the next character in a quoted string only (RFC 9110 section 5.6.4).
        let literal = escaped;
        escaped = quoted && c == '\\' && !literal;
        quoted ^= c == '"' && !literal;
        c == separator && !quoted
    })
}

/// Parses an address, with or without brackets and port.
fn parse_node_address(text: &str) -> Option<IpAddr> {
    // `[::1]`, `::1` or `192.0.2.1`, the first and the last also with a port: proxies differ.
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(headers: ForwardingHeaders) -> TrustedProxies {
        TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("net")], headers)
    }

    fn x_forwarded_source(peer: &str, fields: &[(&'static str, &str)]) -> (String, bool) {
        source_from(ForwardingHeaders::XForwarded, peer, fields)
    }

    fn source_from(written: ForwardingHeaders, peer: &str, fields: &[(&'static str, &str)]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        let origin = proxies(written).request_source(peer.parse().expect("peer"), false, &headers);
        (origin.address.to_string(), origin.encrypted)
    }

    fn expected_source(address: &str, encrypted: bool) -> (String, bool) {
        (address.to_owned(), encrypted)
    }

    #[test]
    fn untrusted_peer_headers_are_ignored() {
        let fields = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")];
        assert_eq!(x_forwarded_source("198.51.100.1", &fields), expected_source("198.51.100.1", false));
        let fields = [("forwarded", "for=192.0.2.1;proto=https"), ("x-forwarded-for", "192.0.2.2")];
        assert_eq!(x_forwarded_source("198.51.100.1", &fields), expected_source("198.51.100.1", false));
    }

    #[test]
    fn last_untrusted_hop_is_the_client() {
        let fields = [("x-forwarded-for", "127.0.0.1, 192.0.2.1, 10.0.0.2"), ("x-forwarded-proto", "https")];
        assert_eq!(x_forwarded_source("10.0.0.1", &fields), expected_source("192.0.2.1", true));
        let fields = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "192.0.2.9")];
        assert_eq!(x_forwarded_source("::ffff:10.0.0.1", &fields), expected_source("192.0.2.9", false));
        for (proto, encrypted) in [("https, https", true), ("https,http", false), ("", false)] {
            let fields = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", proto)];
            assert_eq!(x_forwarded_source("10.0.0.1", &fields), expected_source("192.0.2.9", encrypted), "{proto}");
        }
        assert_eq!(
            x_forwarded_source("10.0.0.1", &[("x-forwarded-for", "192.0.2.9, hidden")]),
            expected_source("10.0.0.1", false)
        );
        assert_eq!(x_forwarded_source("10.0.0.1", &[]), expected_source("10.0.0.1", false));
    }

    #[test]
    fn bytes_that_are_no_text_hide_no_proxy() {
        for (kind, name, value) in [
            (ForwardingHeaders::XForwarded, "x-forwarded-for", &b"\xc9, 192.0.2.9"[..]),
            (ForwardingHeaders::Forwarded, "forwarded", b"for=\xc9, for=192.0.2.9"),
        ] {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                http::HeaderValue::from_bytes(value).expect("a value"),
            )]);
            let source = proxies(kind).request_source("10.0.0.1".parse().expect("peer"), false, &headers);
            assert_eq!(source.address.to_string(), "192.0.2.9");
        }
    }

    #[test]
    fn forwarded_header_follows_rfc_7239() {
        let cases = [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", expected_source("192.0.2.60", false)),
            ("For=\"[2001:db8:cafe::17]:4711\"; Proto=HTTPS", expected_source("2001:db8:cafe::17", true)),
            ("for=127.0.0.1, for=192.0.2.43;proto=https, for=10.0.0.9;proto=http", expected_source("192.0.2.43", true)),
            ("for=\"192.0.2.43:47011\"", expected_source("192.0.2.43", false)),
            ("host=\"a,b;for=1.1.1.1\";for=192.0.2.43", expected_source("192.0.2.43", false)),
            ("host=\"\\\",for=1.1.1.1\";for=192.0.2.43", expected_source("192.0.2.43", false)),
            // Behind a quote that a client has opened: the last element is the proxy's all the same.
            ("for=192.0.2.1;proto=https;x=\", for=192.0.2.43", expected_source("192.0.2.43", false)),
            ("for=192.0.2.1;x=\"\\, for=\"192.0.2.43\";proto=https", expected_source("192.0.2.43", true)),
            ("x=\"y, for=192.0.2.1, for=192.0.2.43, for=10.0.0.9", expected_source("192.0.2.43", false)),
            ("for=192.0.2.43, for=unknown", expected_source("10.0.0.1", false)),
            ("for=192.0.2.43, for=_hidden;proto=https", expected_source("10.0.0.1", false)),
            ("nonsense", expected_source("10.0.0.1", false)),
        ];
        for (text, expected) in cases {
            let origin = source_from(ForwardingHeaders::Forwarded, "10.0.0.1", &[("forwarded", text)]);
            assert_eq!(origin, expected, "{text}");
        }
    }

    #[test]
    fn forwarded_address_is_taken_from_trusted_proxies_only() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-host", "a.example, b.example:8443"),
            ("x-forwarded-prefix", "/one/"),
            ("x-forwarded-prefix", "/two"),
            ("x-forwarded-port", "8443"),
            (
                "forwarded",
                "for=192.0.2.9;host=evil.example, for=192.0.2.1;host=\"c.example:99\", for=10.0.0.2;host=d.example",
            ),
        ] {
            headers.append(name, value.parse().expect("value"));
        }
        let hosts = |address: &ForwardedAddress| address.hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (peer, plain) = ("10.0.0.1".parse().expect("peer"), proxies(ForwardingHeaders::XForwarded));
        let address = plain.forwarded_address(peer, &headers);
        assert_eq!(hosts(&address), ["a.example", "b.example:8443"]);
        assert_eq!((address.port, address.prefix.as_deref()), (Some(8443), Some("/one/two")));
        let address = proxies(ForwardingHeaders::Forwarded).forwarded_address(peer, &headers);
        assert_eq!(hosts(&address), ["c.example:99", "d.example"]);
        assert_eq!((address.port, address.prefix), (None, None));
        headers.append("x-forwarded-prefix", "/a\"><b".parse().expect("value"));
        assert_eq!(plain.forwarded_address(peer, &headers).prefix, None);
        assert_eq!(plain.forwarded_address("192.0.2.1".parse().expect("peer"), &headers), ForwardedAddress::default());
    }

    #[test]
    fn unconfigured_forwarding_headers_are_ignored() {
        let fields = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=192.0.2.2;proto=https"),
        ];
        assert_eq!(x_forwarded_source("10.0.0.1", &fields), expected_source("192.0.2.1", false));
        assert_eq!(source_from(ForwardingHeaders::Forwarded, "10.0.0.1", &fields), expected_source("192.0.2.2", true));
        assert_eq!(x_forwarded_source("10.0.0.1", &fields[2..]), expected_source("10.0.0.1", false));
        assert_eq!(
            source_from(ForwardingHeaders::Forwarded, "10.0.0.1", &fields[..2]),
            expected_source("10.0.0.1", false)
        );
    }
}
