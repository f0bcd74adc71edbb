//! A proxy on this machine that nobody has named: all its callers would count as one address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, header};

use super::forwarding_header_names::X_FORWARDED_FOR;

/// Whether the warning was given; once is enough for one process.
static WARNED: AtomicBool = AtomicBool::new(false);

/// Warns once of requests that a proxy on loopback hands on without being trusted.
pub(super) fn warn_once(peer: IpAddr, headers: &HeaderMap) {
    if is_untrusted_proxy(peer, headers) && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            address = %peer,
            "requests from this address name other callers, but it is not a trusted proxy: limits on addresses and the \
             count of wrong attempts take all its callers for one; name it in trusted_proxies if it is yours"
        );
    }
}

/// Tells whether a request comes from loopback with headers that name the caller behind a proxy.
fn is_untrusted_proxy(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.is_loopback() && (headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_proxy_is_detected_by_forwarding_headers() {
        let with = |name: &str| {
            let name: http::HeaderName = name.parse().expect("a name");
            HeaderMap::from_iter([(name, http::HeaderValue::from_static("192.0.2.1"))])
        };
        let (local, distant) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([192, 0, 2, 9]));
        assert!(is_untrusted_proxy(local, &with("x-forwarded-for")) && is_untrusted_proxy(local, &with("forwarded")));
        assert!(!is_untrusted_proxy(local, &with("via")) && !is_untrusted_proxy(distant, &with("x-forwarded-for")));
    }
}
