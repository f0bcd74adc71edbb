//! Properties of the parsers of this module, for [`crate::fuzzing`]: each function takes any bytes, and panics where a
//! property does not hold.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;

use super::{
    ServerName, TrustedProxies, has_content_coding, is_path_within, normalized_path, normalized_target,
    parse_credential,
};
use crate::domain::ForwardingHeaders;

/// Returns the headers in lines of `name: value`; lines that are none are left out.
pub(crate) fn header_map(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Credentials: what was encoded comes back, apart from white space around a token; and what is accepted has no more in
/// it than the header.
pub(crate) fn credential(data: &[u8]) {
    let headers = header_map(&[b"authorization: ", data].concat());
    if let Some(credential) = parse_credential(&headers) {
        assert!(credential.token.len() + credential.login.map_or(0, |login| login.len()) <= data.len());
        assert_eq!(credential.token[..].trim_ascii(), &credential.token[..]);
    }
    let (login, token) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let token = token.trim_ascii();
    let is_text = std::str::from_utf8(token).is_ok_and(|text| text.trim().len() == text.len());
    if let (Ok(login), true) = (std::str::from_utf8(login), is_text)
        && !login.contains(':')
    {
        let pair = STANDARD.encode([login.as_bytes(), b":", token].concat());
        let parsed = parse_credential(&header_map(format!("authorization: Basic {pair}").as_bytes()));
        let parsed = parsed.map(|credential| (credential.login.unwrap_or_default(), credential.token.to_vec()));
        assert_eq!(parsed, Some((login.to_owned(), token.to_vec())));
    }
}

/// Forwarded addresses: whatever a client puts before the element of a trusted proxy, the source is the client that the
/// proxy names, or the proxy where the header is malformed; and nothing is encrypted because the client says so.
pub(crate) fn forwarded(data: &[u8]) {
    let (client, proxy) = (IpAddr::from(Ipv4Addr::new(203, 0, 113, 7)), IpAddr::from(Ipv4Addr::new(10, 0, 0, 1)));
    let networks: Vec<IpNet> = "10.0.0.0/8".parse().into_iter().collect();
    for (kind, name, element) in [
        (ForwardingHeaders::Forwarded, "forwarded", "for=203.0.113.7;proto=http;host=\"h\""),
        (ForwardingHeaders::XForwarded, "x-forwarded-for", "203.0.113.7"),
    ] {
        let proxies = TrustedProxies::new(networks.clone(), kind);
        let sent = header_map(data);
        assert_eq!(proxies.request_source(client, true, &sent).address, client);
        let _ = proxies.request_source(proxy, true, &sent);
        assert!(proxies.forwarded_address(client, &sent).hosts.is_empty());
        // In a line of its own.
        let mut headers = sent.clone();
        headers.append(name, HeaderValue::from_static(element));
        assert_eq!(proxies.request_source(proxy, false, &headers).address, client);
        assert!(kind == ForwardingHeaders::XForwarded || !proxies.request_source(proxy, false, &headers).encrypted);
        // Behind what the client has sent, in the same line.
        let Ok(line) = HeaderValue::from_bytes(&[data, b", ", element.as_bytes()].concat()) else { continue };
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), line)]);
        let source = proxies.request_source(proxy, false, &headers);
        assert_eq!(source.address, client);
        assert!(kind == ForwardingHeaders::XForwarded || !source.encrypted);
        let hosts = proxies.forwarded_address(proxy, &headers).hosts;
        assert!(kind == ForwardingHeaders::XForwarded || hosts.last() == ServerName::parse(b"h").as_ref(), "{hosts:?}");
    }
}

/// Targets: normalization is done after one pass, agrees with a slow reference, and `Content-Encoding` is compared as a
/// list.
pub(crate) fn request_target(data: &[u8]) {
    let path = normalized_path(data).into_owned();
    assert_eq!(path, normalized_slowly(data));
    assert_eq!(normalized_slowly(&path), path);
    assert!(!path.windows(2).any(|pair| pair == b"//"));
    if let Ok(uri) = Uri::try_from(data) {
        let target = normalized_target(&uri);
        assert!(target.is_none_or(|target| target.path().as_bytes() == normalized_slowly(uri.path().as_bytes())));
        let within = is_path_within(uri.path(), "/dav");
        assert_eq!(within, uri.path() == "/dav" || uri.path().starts_with("/dav/"));
    }
    let listed = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let codings = header_map(&[b"content-encoding: ", listed].concat());
    if codings.len() == 1 && !listed.contains(&b',') {
        let coding = listed.trim_ascii().to_ascii_lowercase();
        assert_eq!(has_content_coding(&codings), !coding.is_empty() && coding != b"identity");
    }
}

/// Normalizes as [`normalized_path`], token by token: escapes, signs that begin none, and other bytes; then the slashes.
fn normalized_slowly(path: &[u8]) -> Vec<u8> {
    let (mut tokens, mut at): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while at < path.len() {
        let digits = path.get(at + 1..at + 3).filter(|_| path[at] == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let is_dangling = |back: usize| tokens.iter().rev().nth(back).is_some_and(|token| token == b"%");
        let is_digit = |token: &Vec<u8>| matches!(token[..], [digit] if digit.is_ascii_hexdigit());
        let completes_escape = is_dangling(0) || (is_dangling(1) && tokens.last().is_some_and(is_digit));
        let plain = byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
        let (token, length) = match (plain, byte) {
            (Some(plain), _) if !(completes_escape && plain.is_ascii_hexdigit()) => (vec![plain], 3),
            (_, Some(_)) => (path[at..at + 3].to_vec(), 3),
            (_, None) => (vec![path[at]], 1),
        };
        tokens.push(token);
        at += length;
    }
    let mut normalized = tokens.concat();
    let mut previous = 0;
    normalized.retain(|byte| {
        let is_doubled = (previous, *byte) == (b'/', b'/');
        previous = *byte;
        !is_doubled
    });
    normalized
}
