//! Where a request really came from: the socket's peer, or what a trusted proxy says of it.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// Where a request came from and whether it came over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The caller's address.
    pub address: IpAddr,
    /// Whether it came encrypted: by our TLS, or by that of a trusted proxy.
    pub encrypted: bool,
}

impl Origin {
    /// Tells whether a password may be taken: encrypted, or never on a wire.
    pub fn is_private(&self) -> bool {
        self.encrypted || self.address.to_canonical().is_loopback()
    }
}

/// The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts these networks and no others.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Returns the origin of a request that came from `peer`, by TLS of our own or not.
    ///
    /// The last address of `X-Forwarded-For` that is no trusted proxy is the caller; what stands
    /// before it, and anything from a peer that isn't trusted, may be invented and is passed over.
    pub fn origin(&self, peer: IpAddr, encrypted: bool, headers: &HeaderMap) -> Origin {
        if !self.trust(peer) {
            return Origin { address: peer.to_canonical(), encrypted };
        }
        let mut address = peer;
        let lists = headers.get_all("x-forwarded-for").iter().rev();
        let hops = lists.filter_map(|v| v.to_str().ok()).flat_map(|list| list.rsplit(','));
        for hop in hops {
            let Some(parsed) = parse_hop(hop.trim()) else { break };
            address = parsed;
            if !self.trust(address) {
                break;
            }
        }
        let mut protocols = headers.get_all("x-forwarded-proto").iter();
        let encrypted = match (protocols.next().and_then(|v| v.to_str().ok()), protocols.next()) {
            (Some(protocol), None) => protocol.trim().eq_ignore_ascii_case("https"),
            _ => encrypted && address == peer,
        };
        Origin { address: address.to_canonical(), encrypted }
    }
}

fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|s| s.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, fields: &[(&'static str, &str)]) -> (String, bool) {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("net")]);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        let origin = proxies.origin(peer.parse().expect("peer"), false, &headers);
        (origin.address.to_string(), origin.encrypted)
    }

    #[test]
    fn strangers_are_not_believed() {
        let fields = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")];
        assert_eq!(origin("198.51.100.1", &fields), ("198.51.100.1".to_owned(), false));
    }

    #[test]
    fn the_last_untrusted_hop_is_the_caller() {
        let fields = [("x-forwarded-for", "127.0.0.1, 192.0.2.1, 10.0.0.2"), ("x-forwarded-proto", "https")];
        assert_eq!(origin("10.0.0.1", &fields), ("192.0.2.1".to_owned(), true));
        let fields = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "192.0.2.9")];
        assert_eq!(origin("10.0.0.1", &fields), ("192.0.2.9".to_owned(), false));
    }
}
