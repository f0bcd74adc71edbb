//! The host that the last request of a connection named: nearly every request repeats it.

use http::{HeaderValue, Request, Version, header};
use parking_lot::Mutex;

use crate::http::PublicAddress;

/// Host that the last request of a connection named, found to be well-formed, and the address of the server that follows
/// from it. Only for a peer whose forwarding headers don't count.
#[derive(Default)]
pub(super) struct LastHost(Mutex<Option<NamedHost>>);

struct NamedHost {
    version: Version,
    /// A copy: the header itself is a part of the whole read buffer, which would stay with an idle connection.
    host: Box<[u8]>,
    address: PublicAddress,
}

impl LastHost {
    /// Returns the address of the server if this request names the same host, in the same way.
    pub(super) fn address<B>(&self, request: &Request<B>) -> Option<PublicAddress> {
        let host = only_host(request)?;
        let last = self.0.lock();
        let is_same = |named: &&NamedHost| named.version == request.version() && *named.host == *host;
        last.as_ref().filter(is_same).map(|named| named.address.clone())
    }

    /// Remembers the host of a request that is not malformed, in place of the one before.
    pub(super) fn set<B>(&self, request: &Request<B>, address: &PublicAddress) {
        let named = only_host(request).map(|host| NamedHost {
            version: request.version(),
            host: host.into(),
            address: address.clone(),
        });
        *self.0.lock() = named;
    }
}

/// Returns the host of a request that names it once: in `:authority` over HTTP/2, in `Host` over HTTP/1.
fn only_host<B>(request: &Request<B>) -> Option<&[u8]> {
    let mut fields = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    match (request.version(), target, fields.next(), fields.next()) {
        (Version::HTTP_2, Some(host), None, _) => Some(host),
        (Version::HTTP_10 | Version::HTTP_11, None, Some(host), None) => Some(host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, target: &str, hosts: &[&str]) -> Request<()> {
        let request = Request::builder().version(version).uri(target);
        let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
        request.body(()).expect("a request")
    }

    #[test]
    fn only_the_same_host_named_in_the_same_way_is_known() {
        let (last, address) = (LastHost::default(), PublicAddress::default());
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        last.set(&request(http1, "/a", &["h:1"]), &address);
        assert!(last.address(&request(http1, "/b", &["h:1"])).is_some());
        for other in [
            request(http1, "/a", &["h:2"]),
            request(http1, "/a", &["h:1", "h:1"]),
            request(http1, "/a", &[]),
            request(http1, "http://h:1/a", &["h:1"]),
            request(Version::HTTP_10, "/a", &["h:1"]),
            request(http2, "http://h:1/a", &[]),
        ] {
            assert!(last.address(&other).is_none(), "{other:?}");
        }
        last.set(&request(http2, "https://h/a", &[]), &address);
        assert!(last.address(&request(http2, "https://h/b", &[])).is_some());
        assert!(last.address(&request(http2, "https://h/b", &["h"])).is_none());
        assert!(last.address(&request(http1, "/a", &["h"])).is_none());
    }
}
