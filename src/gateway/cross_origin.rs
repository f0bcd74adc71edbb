//! Refusal of changes that a page of another origin makes a browser request.
//!
//! A browser that has stored a token as Basic password adds it to every request that any page sends to the gateway. A
//! credential that a page adds itself (Bearer) is no such credential, and a request without effect passes: without CORS
//! the page can't read the response.

use http::{HeaderMap, HeaderValue, Request, header};

use crate::domain::AllowedOrigins;
use crate::http::{PublicAddress, RequestSource, is_cross_origin};

/// Methods without effect.
const SAFE_METHODS: [&str; 6] = ["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "TRACE"];
/// Message of the refusal.
pub(super) const REFUSAL_MESSAGE: &str = "a page of another origin may change nothing here with a password that the browser \
    keeps: name its origin in cors_origins, or send the token as Bearer";

/// Tells whether a request would change something with a credential that the browser may have added by itself, for a
/// page whose origin is not configured.
pub(super) fn is_refused<B>(origins: &AllowedOrigins, request: &Request<B>, origin: RequestSource) -> bool {
    let headers = request.headers();
    // A list of safe methods and not of changing ones: a method that is added later is refused until it is listed.
    if SAFE_METHODS.contains(&request.method().as_str()) || !has_ambient_credential(headers) {
        return false;
    }
    if headers.get(header::ORIGIN).is_some_and(|origin| origins.allows(origin.as_bytes())) {
        return false;
    }
    // Compared with the address that clients see: behind a proxy, `Host` may be the gateway's internal name.
    let server = request.extensions().get::<PublicAddress>().cloned().unwrap_or_default();
    is_cross_origin(&server, origin.encrypted, headers)
}

/// Tells whether a request has a credential that browsers store. One without any gets a challenge; a browser that then
/// adds one sends the request anew.
fn has_ambient_credential(headers: &HeaderMap) -> bool {
    let is_bearer =
        |value: &HeaderValue| value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"));
    headers.get_all(header::AUTHORIZATION).iter().any(|value| !is_bearer(value))
}
