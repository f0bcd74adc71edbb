//! Addresses that the server connects to at the instance of its settings: public ones, and those of networks that are
//! allowed besides. A name that somebody else controls must not lead it to this machine or to its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachableAddresses {
    /// Networks that are allowed although they are not public.
    pub allowed_networks: Vec<IpNet>,
    /// Whether all public addresses are allowed, too.
    pub includes_public: bool,
}

impl ReachableAddresses {
    /// Tells whether an address may be connected to.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.includes_public && is_public(address))
            || self.allowed_networks.iter().any(|network| network.contains(&address))
    }
}

/// Tells whether an address belongs to a host of the public Internet.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_ipv4(address),
        IpAddr::V6(address) => is_public_ipv6(address),
    }
}

/// By the special-purpose registry of IANA (RFC 6890).
fn is_public_ipv4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol_assignment = (a, b, c) == (192, 0, 0) || (a, b, c) == (192, 88, 99);
    let is_benchmark = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 240
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || is_shared
        || is_protocol_assignment
        || is_benchmark)
}

fn is_public_ipv6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let ipv4_at = |at: usize| {
        let [a, b] = segments[at].to_be_bytes();
        let [c, d] = segments[at + 1].to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // NAT64 and 6to4 lead to the IPv4 address in them.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => is_public_ipv4(ipv4_at(6)),
        [0x2002, ..] => is_public_ipv4(ipv4_at(1)),
        // IETF protocols, Teredo among them, and documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // Nothing else outside of this block is assigned to hosts of the Internet.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_only() -> ReachableAddresses {
        ReachableAddresses { allowed_networks: Vec::new(), includes_public: true }
    }

    #[test]
    fn only_public_addresses_are_reachable_by_default() {
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:c0a8:101::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public_only().contains(refused.parse().expect("an address")), "{refused}");
        }
        for public in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "2001:4860:4860::8888",
        ] {
            assert!(public_only().contains(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn allowed_networks_are_reachable_also_as_mapped_addresses() {
        let allowed_networks = vec!["127.0.0.0/8".parse().expect("a network")];
        let mut reachable = ReachableAddresses { allowed_networks, includes_public: false };
        let reaches =
            |reachable: &ReachableAddresses, text: &str| reachable.contains(text.parse().expect("an address"));
        assert!(reaches(&reachable, "127.0.0.1") && reaches(&reachable, "::ffff:127.0.0.1"));
        assert!(!reaches(&reachable, "::1") && !reaches(&reachable, "1.1.1.1"));
        reachable.includes_public = true;
        assert!(reaches(&reachable, "1.1.1.1") && !reaches(&reachable, "10.0.0.1"));
    }
}
