//! Warning about a proxy on this machine that is missing in `trusted_proxies`: its clients all count as one address.

use std::net::IpAddr;
use std::sync::OnceLock;

use http::{HeaderMap, header};

use super::forwarding_header_names::X_FORWARDED_FOR;

/// The proxy that was warned of; once per process is enough.
static WARNED_OF: OnceLock<IpAddr> = OnceLock::new();

/// Logs a warning, once, about forwarded requests from a loopback proxy that is not trusted.
pub(super) fn warn_once(peer: IpAddr, headers: &HeaderMap) {
    if WARNED_OF.get().is_none() && is_untrusted_proxy(peer, headers) && WARNED_OF.set(peer).is_ok() {
        tracing::warn!(
            address = %peer,
            "requests from this address are forwarded for other clients, but it is not a trusted proxy: limits by address \
             and failed logins count for all its clients together; add it to trusted_proxies if it is yours"
        );
    }
}

/// Returns the proxy that has forwarded requests to this process without being trusted, if there was one.
pub fn untrusted_proxy() -> Option<IpAddr> {
    WARNED_OF.get().copied()
}

/// Tells whether a request comes from loopback with headers that name a client behind a proxy.
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
