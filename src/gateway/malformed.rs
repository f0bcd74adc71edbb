//! Refusal of requests that hyper passes on although no server may answer them.

use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::http::{Body, text};

/// Refuses a host that is missing or named twice (RFC 9112 section 3.2, RFC 9113 section 8.3.1), credentials that
/// contradict each other, and a coding of the body that nobody here can undo (RFC 9112 section 6.1).
pub(super) fn reject_malformed<B>(request: &Request<B>) -> Option<Response<Body>> {
    let refuse = |line| Some(text(StatusCode::BAD_REQUEST, line));
    if !names_one_host(request) {
        return refuse("a request names one host");
    }
    let headers = request.headers();
    // Of two that differ, a proxy in front may have judged another than this server would (RFC 9110 section 5.3).
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = credentials.next()
        && credentials.any(|other| other != first)
    {
        return refuse("the request has two different Authorization headers: send one");
    }
    let coded = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if request.version() == Version::HTTP_11 && headers.get_all(header::TRANSFER_ENCODING).iter().any(coded) {
        return Some(text(StatusCode::NOT_IMPLEMENTED, "no transfer coding but chunked is known"));
    }
    None
}

fn names_one_host<B>(request: &Request<B>) -> bool {
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

/// Tells whether `Host` names the authority of a target: without regard to case, and to the scheme's usual port.
fn is_same_host(authority: &Authority, host: &HeaderValue, scheme: Option<&str>) -> bool {
    let usual = if scheme == Some("https") { 443 } else { 80 };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
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
        reject_malformed(&request.body(()).expect("a request")).map(|response| response.status().as_u16())
    }

    #[test]
    fn request_names_one_host() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(status(one, "/", &[]), Some(400));
        assert_eq!(status(one, "/", &[("host", "a")]), None);
        assert_eq!(status(one, "/", &[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(status(one, "http://b/", &[("host", "a")]), None);
        assert_eq!(status(Version::HTTP_10, "/", &[]), None);
        assert_eq!(status(two, "https://a/", &[]), None);
        for (host, wanted) in [("A", None), ("a:443", None), ("a:80", Some(400)), ("b", Some(400)), ("", Some(400))] {
            assert_eq!(status(two, "https://a/", &[("host", host)]), wanted, "{host}");
        }
    }

    #[test]
    fn authorization_headers_that_differ_are_refused() {
        let two = |one, other| {
            status(Version::HTTP_11, "/", &[("host", "a"), ("authorization", one), ("authorization", other)])
        };
        assert_eq!(two("Basic YTpi", "Bearer x"), Some(400));
        assert_eq!(two("Basic YTpi", "Basic YTpi"), None);
    }

    #[test]
    fn only_the_chunked_transfer_coding_is_known() {
        assert_eq!(status(Version::HTTP_11, "/", &[("host", "a"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(status(Version::HTTP_11, "/", &[("host", "a"), ("transfer-encoding", "gzip")]), Some(501));
    }
}
