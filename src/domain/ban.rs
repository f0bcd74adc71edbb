//! Bans: networks from which no login is accepted for a time.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::UnixMillis;
use super::json_values::impl_text_json;

/// Length of the prefix by which an IPv6 address is counted: a host draws its addresses from its /64.
const IPV6_PREFIX_LENGTH: u8 = 64;

/// A network that can be banned, without host bits. An IPv4-mapped IPv6 network is the IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BannedNetwork(IpNet);

impl BannedNetwork {
    /// Returns the network that an address is counted as: itself, or the /64 of an IPv6 address.
    pub fn of_address(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpNet::V4(Ipv4Net::from(address)),
            IpAddr::V6(address) => IpNet::V6(prefix_of(address)),
        })
    }

    /// Tells whether it contains an address, or the network that the address is counted as.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Returns its first address.
    pub fn first_address(&self) -> IpAddr {
        self.0.network()
    }

    /// Tells whether it is a single IPv4 address, or one /64: what an automatic ban covers.
    pub fn is_single_host(&self) -> bool {
        match self.0 {
            IpNet::V4(network) => network.prefix_len() == 32,
            IpNet::V6(network) => network.prefix_len() == IPV6_PREFIX_LENGTH,
        }
    }
}

/// Returns the IPv4 network of an IPv4-mapped one; `::/96` and shorter prefixes stay IPv6 networks.
fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED_PREFIX_LENGTH: u8 = 96;
    let length = network.prefix_len().checked_sub(MAPPED_PREFIX_LENGTH);
    match (network.network().to_canonical(), length) {
        (IpAddr::V4(address), Some(length)) if matches!(network, IpNet::V6(_)) => {
            Ipv4Net::new(address, length).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

fn prefix_of(address: Ipv6Addr) -> Ipv6Net {
    // The length is at most 128, so the network exists; without it the address alone would be banned.
    Ipv6Net::new(address, IPV6_PREFIX_LENGTH).map_or(Ipv6Net::from(address), |network| network.trunc())
}

impl fmt::Display for BannedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As people write it: a single address has no prefix length.
        match self.0 {
            IpNet::V4(network) if network.prefix_len() == 32 => write!(f, "{}", network.addr()),
            network => write!(f, "{network}"),
        }
    }
}

impl FromStr for BannedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::of_address(address));
        }
        let network = text.parse::<IpNet>().map_err(|_| {
            format!(
                "{text:?} is not an IP address or network: give one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64"
            )
        })?;
        Ok(Self(canonical_network(network.trunc())))
    }
}

impl_text_json!(BannedNetwork);

/// Reason why a network is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanOrigin {
    /// Too many failed logins.
    Automatic,
    /// An administrator.
    Manual,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The banned network.
    pub network: BannedNetwork,
    /// Time at which the ban began.
    pub since: UnixMillis,
    /// Time at which it ends; `None` for one that holds until it is removed.
    pub until: Option<UnixMillis>,
    /// Who banned the network.
    pub origin: BanOrigin,
    /// Number of automatic bans of the network, each following soon after the one before; 0 for a manual one.
    pub repeats: u32,
    /// Reason, for administrators; may be empty.
    pub reason: String,
}

impl Ban {
    /// Maximum length of a reason, in bytes.
    pub const REASON_MAX_BYTES: usize = 200;

    /// Tells whether the ban is in force at an instant.
    pub fn is_active(&self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Returns the text by which the audit trail describes the ban: network, end and reason.
    pub fn describe(&self) -> String {
        let end = self.until.map_or_else(|| "until it is removed".to_owned(), |until| format!("until {until}"));
        match self.reason.as_str() {
            "" => format!("{} {end}", self.network),
            reason => format!("{} {end}: {reason}", self.network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> BannedNetwork {
        text.parse().expect("a network")
    }

    #[test]
    fn addresses_are_counted_by_host() {
        let of = |address: &str| BannedNetwork::of_address(address.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7", "an IPv4-mapped address is the IPv4 address");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert!(BannedNetwork::of_address("2001:db8::1".parse().expect("an address")).is_single_host());
    }

    #[test]
    fn text_form_is_canonical_and_round_trips() {
        for (text, canonical) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            (" 192.0.2.77/24 ", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8:1:2::7/48", "2001:db8:1::/48"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(network(text).to_string(), canonical);
            assert_eq!(network(canonical), network(text));
        }
        for text in ["", "example.org", "192.0.2.7/33", "192.0.2", "192.0.2.7 192.0.2.8"] {
            let error = text.parse::<BannedNetwork>().expect_err("refused");
            assert!(error.contains("is not an IP address or network: give one such as"), "{error}");
        }
    }

    #[test]
    fn network_contains_mapped_addresses() {
        let contains = |ban: &str, address: &str| network(ban).contains(address.parse().expect("an address"));
        assert!(contains("192.0.2.0/24", "192.0.2.9") && contains("192.0.2.0/24", "::ffff:192.0.2.9"));
        assert!(!contains("192.0.2.0/24", "192.0.3.9") && !contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("2001:db8::/64", "2001:db8::ffff") && !contains("2001:db8::/64", "2001:db8:0:1::1"));
    }
}
