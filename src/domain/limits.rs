//! Limits of a token besides its scopes: protocols, addresses, user agents, media types, tags and file size.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::json_values::impl_text_json;
use super::schema;

/// A protocol that the gateway serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// WebDAV below `/dav/` and `/node/`.
    Webdav,
    /// SFTP.
    Sftp,
    /// The REST API and the console.
    Api,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 3] = [Self::Webdav, Self::Sftp, Self::Api];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Webdav => "webdav",
            Protocol::Sftp => "sftp",
            Protocol::Api => "api",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "webdav" => Ok(Protocol::Webdav),
            "sftp" => Ok(Protocol::Sftp),
            "api" => Ok(Protocol::Api),
            _ => Err(format!("the protocol {text:?} is unknown: give webdav, sftp or api")),
        }
    }
}

/// Protocol, address and program of a caller, by which limits and the login throttle decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Protocol of the caller.
    pub protocol: Protocol,
    /// Address of the caller; behind a trusted proxy the one that the proxy passes on.
    pub address: IpAddr,
    /// HTTP `User-Agent` or SSH identification string, where one was sent.
    pub user_agent: Option<String>,
}

/// A number of bytes, written with a unit: `10MiB`, `1GB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Returns a size in bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let error =
            || format!("the size {text:?} is malformed: give whole bytes or a unit, such as 4096, 10MiB, 1GiB or 5MB");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(error()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A pattern of allowed user agents: the exact text of 1 to 256 characters, in which `*` matches any text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct UserAgentPattern(String);

impl UserAgentPattern {
    /// Maximum number of characters of a pattern.
    const MAX_CHARS: usize = 256;

    /// Tells whether a user agent matches, in linear time of both lengths for each `*`.
    pub fn matches(&self, agent: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return self.0 == agent };
        let Some(mut left) = agent.strip_prefix(head) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return left.ends_with(part);
            }
            // Taking the earliest match is enough: it leaves the longest text for the parts that follow.
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

impl FromStr for UserAgentPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A blank pattern would match no client: whoever sends one means no limit.
        match text.trim().is_empty() || text.chars().count() > Self::MAX_CHARS {
            true => Err(format!(
                "a user agent has 1 to {} characters: leave the field out to allow all clients",
                Self::MAX_CHARS
            )),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for UserAgentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern of allowed media types of uploads: `image/png`, a whole type (`image/*`), or all (`*/*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MimePattern(Box<str>);

impl MimePattern {
    /// Tells whether a media type matches. Case and parameters (`; charset=…`) are ignored, and so is the `x-` with
    /// which many types began (RFC 6648): `audio/x-wav` is `audio/wav`.
    pub fn matches(&self, media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match self.0.strip_suffix("/*") {
            Some("*") => true,
            Some(kind) => essence.split('/').next().is_some_and(|k| k.eq_ignore_ascii_case(kind)),
            None => match (essence.split_once('/'), self.0.split_once('/')) {
                (Some((kind, subtype)), Some((own, own_subtype))) => {
                    kind.eq_ignore_ascii_case(own)
                        && without_x_prefix(subtype).eq_ignore_ascii_case(without_x_prefix(own_subtype))
                }
                (None, _) | (_, None) => false,
            },
        }
    }

    /// Tells whether this pattern matches every media type that `other` matches.
    pub fn covers(&self, other: &MimePattern) -> bool {
        &*self.0 == "*/*" || (&*other.0 != "*/*" && self.matches(&other.0))
    }

    /// Returns the pattern as text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns a subtype without the prefix `x-`.
fn without_x_prefix(subtype: &str) -> &str {
    match subtype.split_at_checked(2) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("x-") => rest,
        Some(_) | None => subtype,
    }
}

impl FromStr for MimePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        // RFC 6838, section 4.2
        let is_restricted_name = |part: &str| {
            !part.is_empty()
                && part.len() <= 127
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        let is_valid = match lower.split_once('/') {
            Some(("*", "*")) => true,
            Some((kind, "*")) => is_restricted_name(kind),
            Some((kind, subtype)) => is_restricted_name(kind) && is_restricted_name(subtype),
            None => false,
        };
        match is_valid {
            true => Ok(Self(lower.into())),
            false => {
                Err(format!("{text:?} is not a media type: give one such as image/png, or image/* for all images"))
            }
        }
    }
}

impl fmt::Display for MimePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag of a file: 1 to 64 characters without commas and control characters, and without spaces at its ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTag(Box<str>);

impl FileTag {
    /// Returns the tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let has_valid_length = (1..=64).contains(&text.chars().count()) && text.trim() == text;
        // U+FFFE and U+FFFF are noncharacters, and XML can't hold them.
        let is_forbidden = |c: char| matches!(c, ',' | '\u{fffe}' | '\u{ffff}') || c.is_control();
        match has_valid_length && !text.chars().any(is_forbidden) {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "{text:?} is not a tag: give 1 to 64 characters without comma, control character or white space around"
            )),
        }
    }
}

impl fmt::Display for FileTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl_text_json!(MimePattern, FileTag);

/// Parses a network (`192.0.2.0/24`), or a single address as a network of one address.
///
/// # Errors
/// A message that shows the form.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network
        // Bits beyond the prefix are dropped: 192.0.2.7/24 stands for its network.
        .map(|network| network.trunc())
        .ok_or_else(|| format!("{text:?} is not a network: give an address or a CIDR such as 192.0.2.0/24"))
}

/// Limits on a token; an absent or empty field limits nothing.
// One declaration for the column of the store, for REST and for the remote command line. The texts are those of the
// OpenAPI document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenLimits {
    /// Protocols that the token may be used over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Protocol>)]
    pub protocols: Vec<Protocol>,
    /// Addresses and networks that it may be used from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_networks")]
    #[schema(value_type = Vec<schema::Network>)]
    pub ips: Vec<IpNet>,
    /// User agents that may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_user_agents")]
    #[schema(value_type = Vec<schema::UserAgent>)]
    pub user_agents: Vec<UserAgentPattern>,
    /// Media types that it may upload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Mime>)]
    pub mimes: Vec<MimePattern>,
    /// Tags that its uploads may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Tag>)]
    pub tags: Vec<FileTag>,
    /// Maximum size of a file that it writes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub max_file_size: Option<ByteSize>,
    /// Maximum number of bytes that the files may have, all together, where the token may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota: Option<ByteSize>,
}

/// Deserializes networks; an address is a network of one.
fn deserialize_networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_network(text).map_err(serde::de::Error::custom)).collect()
}

/// Deserializes user agents; null is an empty list.
pub(crate) fn deserialize_user_agents<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<UserAgentPattern>, D::Error> {
    // Null counts as absent: the upload service's clients send it.
    let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

impl TokenLimits {
    /// Tells whether a caller with this protocol, address and program may use the token.
    pub fn allows_peer(&self, peer: &Peer) -> bool {
        // A missing user agent counts as an empty one, which only patterns such as `*` match.
        let agent = peer.user_agent.as_deref().unwrap_or_default();
        self.allows_protocol(peer.protocol) && self.allows_address(peer.address) && self.allows_user_agent(agent)
    }

    /// Tells whether the token allows this protocol.
    pub fn allows_protocol(&self, protocol: Protocol) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&protocol)
    }

    /// Tells whether the token may be used from this address.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        // An IPv4 client of a dual-stack socket has an IPv4-mapped IPv6 address.
        let address = address.to_canonical();
        self.ips.is_empty() || self.ips.iter().any(|net| net.contains(&address))
    }

    /// Tells whether the token may be used by a program with this user agent.
    pub fn allows_user_agent(&self, agent: &str) -> bool {
        self.user_agents.is_empty() || self.user_agents.iter().any(|pattern| pattern.matches(agent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_parse_and_format() {
        for (text, bytes) in [("4096", 4096), ("10MiB", 10 << 20), ("1g", 1 << 30), ("5MB", 5_000_000), ("0", 0)] {
            assert_eq!(text.parse(), Ok(ByteSize::from_bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1PB", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize::from_bytes(10 << 20).to_string(), "10MiB");
        assert_eq!(ByteSize::from_bytes(1025).to_string(), "1025");
    }

    #[test]
    fn user_agent_wildcards_match_any_text() {
        let cases = [
            ("rclone/v1.60", "rclone/v1.60", true),
            ("rclone/v1.60", "rclone/v1.600", false),
            ("rclone/*", "rclone/", true),
            ("*dav*", "a davfs2", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbxc", false),
            ("a*a", "a", false),
            ("*", "", true),
        ];
        for (pattern, agent, fits) in cases {
            assert_eq!(pattern.parse::<UserAgentPattern>().expect("pattern").matches(agent), fits, "{pattern} {agent}");
        }
    }

    #[test]
    fn mime_patterns_parse_and_match() {
        for text in ["", "image", "image/", "/png", "*/png", "image/*x", "image/p ng", "a/b/c"] {
            assert!(text.parse::<MimePattern>().is_err(), "{text}");
        }
        let cases = [
            ("image/*", "image/png", true),
            ("image/*", "imagex/png", false),
            ("Image/PNG", "image/png; q=1", true),
            ("image/png", "image/pngx", false),
            ("image/png", "image", false),
            ("audio/wav", "audio/x-wav", true),
            ("audio/x-wav", "Audio/WAV", true),
            ("audio/x-wav", "audio/x-wave", false),
            ("*/*", "application/x-thing", true),
        ];
        for (pattern, kind, fits) in cases {
            assert_eq!(pattern.parse::<MimePattern>().expect("pattern").matches(kind), fits, "{pattern} {kind}");
        }
        let covers = |a: &str, b: &str| a.parse::<MimePattern>().expect("a").covers(&b.parse().expect("b"));
        assert!(covers("*/*", "image/*") && covers("image/*", "image/*") && covers("image/*", "image/png"));
        assert!(!covers("image/*", "*/*") && !covers("image/png", "image/*"));
    }

    #[test]
    fn invalid_tags_are_refused() {
        for text in ["", " ", "a,b", "a\nb", "a\u{fffe}", " a", "a ", "a\n", &"x".repeat(65)] {
            assert!(text.parse::<FileTag>().is_err(), "{text:?}");
        }
        assert_eq!("holiday 2026".parse::<FileTag>().expect("tag").as_str(), "holiday 2026");
    }

    #[test]
    fn ipv4_mapped_address_matches_ipv4_network() {
        let limits = TokenLimits { ips: vec!["192.0.2.0/24".parse().expect("net")], ..TokenLimits::default() };
        let peer = |address: &str| Peer {
            protocol: Protocol::Webdav,
            address: address.parse().expect("address"),
            user_agent: None,
        };
        assert!(limits.allows_peer(&peer("192.0.2.7")));
        assert!(limits.allows_peer(&peer("::ffff:192.0.2.7")));
        assert!(!limits.allows_peer(&peer("198.51.100.1")));
    }
}
