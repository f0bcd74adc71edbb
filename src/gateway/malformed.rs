//! Refusal of malformed requests that the HTTP libraries pass on.

use std::net::Ipv6Addr;

use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::http::{ResponseBody, text_response};

/// Refuses a host that is missing, malformed or named twice (RFC 9112 section 3.2, RFC 9113 section 8.3.1), credentials
/// that contradict each other, and a transfer coding that is not supported (RFC 9112 section 6.1). The host is not parsed
/// again where the request before has named the same one (`is_known_host`).
pub(super) fn reject_malformed<B>(request: &Request<B>, is_known_host: bool) -> Option<Response<ResponseBody>> {
    let refuse = |message| Some(text_response(StatusCode::BAD_REQUEST, message));
    if !is_known_host && !has_one_host(request) {
        return refuse("the host is missing, malformed or named twice: send one Host");
    }
    let headers = request.headers();
    // Of two that differ, a proxy in front may have checked another than this server would (RFC 9110 section 5.3).
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = credentials.next()
        && credentials.any(|other| other != first)
    {
        return refuse("the request has two different Authorization headers: send one");
    }
    // Over HTTP/1.1 alone: h2 refuses the field by itself (RFC 9113 section 8.2.2).
    let is_unknown_coding = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if request.version() == Version::HTTP_11 && headers.get_all(header::TRANSFER_ENCODING).iter().any(is_unknown_coding)
    {
        return Some(text_response(StatusCode::NOT_IMPLEMENTED, "no transfer coding but chunked is supported"));
    }
    None
}

fn has_one_host<B>(request: &Request<B>) -> bool {
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host_fields = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    if !target.into_iter().chain(host_fields).all(is_host_and_port) {
        return false;
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (request.version(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) | (Version::HTTP_11, None, None) => false,
        // Over HTTP/2 the target names the host, too; over HTTP/1.1 a target that does replaces `Host` (RFC 9112
        // section 3.2.2).
        (Version::HTTP_2, Some(host), None) => {
            let authority = request.uri().authority();
            authority.is_none_or(|authority| is_same_host(authority, host, request.uri().scheme_str()))
        }
        _ => true,
    }
}

/// Tells whether a text is a host with a port or without (RFC 9110 section 7.2): a server that accepts more than that,
/// such as a user in front of `@`, takes it for another host than a proxy in front or a browser does.
fn is_host_and_port(text: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(text) else { return false };
    let (text, host) = (authority.as_str(), authority.host());
    let is_name = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        // A comma separates two lines that a proxy has joined.
        None => !host.is_empty() && !host.contains(','),
    };
    // Anything before the host is user information.
    let Some(rest) = text.strip_prefix(host) else { return false };
    let is_port = match rest.strip_prefix(':') {
        Some(port) => {
            // An empty port is valid (RFC 3986 section 3.2.3).
            port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
        }
        None => rest.is_empty(),
    };
    is_name && is_port
}

/// Tells whether `Host` names the authority of a target: without regard to case, and to the scheme's usual port.
fn is_same_host(authority: &Authority, host: &HeaderValue, scheme: Option<&str>) -> bool {
    let default_port = if scheme == Some("https") { 443 } else { 80 };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    authority.host().eq_ignore_ascii_case(host.host()) && port(authority) == port(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: Version, target: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reject_malformed(&request.body(()).expect("a request"), false).map(|response| response.status().as_u16())
    }

    #[test]
    fn request_must_name_exactly_one_host() {
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(status(http1, "/", &[]), Some(400));
        assert_eq!(status(http1, "/", &[("host", "a")]), None);
        assert_eq!(status(http1, "/", &[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(status(http1, "http://b/", &[("host", "a")]), None);
        assert_eq!(status(Version::HTTP_10, "/", &[]), None);
        assert_eq!(status(http2, "https://a/", &[]), None);
        for (host, expected) in [("A", None), ("a:443", None), ("a:80", Some(400)), ("b", Some(400)), ("", Some(400))] {
            assert_eq!(status(http2, "https://a/", &[("host", host)]), expected, "{host}");
        }
    }

    #[test]
    fn malformed_host_is_refused() {
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        for host in ["a", "A-b_c.example:8443", "127.0.0.1", "[::1]:80", "[::1]", "a:", "xn--bcher-kva.example"] {
            assert_eq!(status(http1, "/", &[("host", host)]), None, "{host}");
            assert_eq!(status(http2, "/", &[("host", host)]), None, "{host}");
        }
        let malformed = [
            "", " ", "a b", "a@b", "u:p@a", "@a", "a@a", "a:b", "a:65536", "a:-1", "a:80:80", ":80", "[::1", "[x]",
            "[]", "[::1]x", "a/b", "a?b", "a#b", "a\\b", "a,b", "\u{e4}", "http://a",
        ];
        for host in malformed {
            for version in [Version::HTTP_10, http1, http2] {
                assert_eq!(status(version, "/", &[("host", host)]), Some(400), "{version:?} {host:?}");
            }
            assert_eq!(
                status(http1, "http://a/", &[("host", host)]),
                Some(400),
                "{host:?} beside a target that names one"
            );
        }
        for target in ["http://u@a/", "http://u:p@a/", "http://a:99999/", "http://a:b/"] {
            assert_eq!(status(http1, target, &[("host", "a")]), Some(400), "{target}");
            assert_eq!(status(http2, target, &[]), Some(400), "{target}");
        }
    }

    #[test]
    fn differing_authorization_headers_are_refused() {
        let status_of_both = |first, second| {
            status(Version::HTTP_11, "/", &[("host", "a"), ("authorization", first), ("authorization", second)])
        };
        assert_eq!(status_of_both("Basic YTpi", "Bearer x"), Some(400));
        assert_eq!(status_of_both("Basic YTpi", "Basic YTpi"), None);
    }

    #[test]
    fn only_chunked_transfer_coding_is_supported() {
        assert_eq!(status(Version::HTTP_11, "/", &[("host", "a"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(status(Version::HTTP_11, "/", &[("host", "a"), ("transfer-encoding", "gzip")]), Some(501));
    }
}
