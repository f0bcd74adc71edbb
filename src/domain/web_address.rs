//! Configured web addresses: the public URL of the server, and the origins of web applications that may call it; and
//! which characters of a URL are percent-encoded.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// All characters but the unreserved ones (RFC 3986 section 2.3): those that are percent-encoded in a segment or a value
/// of a URL.
pub const ALL_BUT_UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Public URL of the server, as clients use it: scheme, host, a port where it is not the scheme's default, and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: WebOrigin,
    path: String,
}

impl PublicUrl {
    /// Returns scheme and authority.
    pub fn origin(&self) -> &WebOrigin {
        &self.origin
    }

    /// Returns the path without a trailing slash: empty where the server is at the root.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || "give a URL such as https://files.example.org, with a path only where a proxy adds one".to_owned();
        let start = text.find("://").map(|at| at + 3).ok_or_else(error)?;
        let end = text[start..].find('/').map_or(text.len(), |at| start + at);
        let origin = text[..end].parse().map_err(|_| error())?;
        let path = parse_public_prefix(&text.as_bytes()[end..]).ok_or_else(error)?;
        Ok(Self { origin, path })
    }
}

/// Parses a path prefix of all public URLs, without its trailing slash; `None` where it has characters that would have
/// to be escaped in a link, or is longer than 255 bytes.
pub fn parse_public_prefix(path: &[u8]) -> Option<String> {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    let text =
        std::str::from_utf8(path).ok().filter(|path| path.len() <= 255 && path.bytes().all(|b| is_allowed(&b)))?;
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let is_rooted = text.is_empty() || text.starts_with('/');
    let stays_below = !parts.iter().any(|part| matches!(*part, "." | ".."));
    (is_rooted && stays_below).then(|| parts.iter().map(|part| format!("/{part}")).collect())
}

/// Origin of a web page (RFC 6454): scheme, host and port, in the form in which browsers send it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebOrigin(String);

impl WebOrigin {
    /// Returns the origin as browsers write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns host and port.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(scheme, _)| scheme)
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WebOrigin {
    type Err = String;

    /// Parses an origin; a port that is the scheme's default is left out, as browsers do (RFC 6454 section 6.2).
    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("{text:?} is not an origin: give scheme, host and port, such as https://app.example.org");
        let lower = text.trim().to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://").ok_or_else(error)?;
        let (host, port) = split_host_port(authority).ok_or_else(error)?;
        let default_port = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            // Installed applications have schemes of their own: app://obsidian.md, capacitor://localhost.
            _ if is_scheme(scheme) => None,
            _ => return Err(error()),
        };
        let port = port.filter(|port| Some(*port) != default_port).map(|port| format!(":{port}"));
        Ok(Self(format!("{scheme}://{host}{}", port.unwrap_or_default())))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

/// Splits an authority into its host and its port; `None` for an invalid one.
fn split_host_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // A colon within brackets belongs to an IPv6 address.
    let end = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[end..].find(':') {
        Some(at) => (&authority[..end + at], Some(authority[end + at + 1..].parse().ok()?)),
        None => (authority, None),
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    is_valid.then_some((host, port))
}

/// Origins of the web applications that may call the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// No origin.
    #[default]
    None,
    /// Every origin: a token may be used from any page.
    All,
    /// The listed origins.
    Listed(Vec<WebOrigin>),
}

impl AllowedOrigins {
    /// Tells whether a page of this origin may call.
    pub fn allows(&self, origin: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Listed(origins) => {
                origins.iter().any(|allowed| allowed.as_str().as_bytes().eq_ignore_ascii_case(origin))
            }
        }
    }
}

impl FromStr for AllowedOrigins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        match items.as_slice() {
            [] => Ok(Self::None),
            ["*"] => Ok(Self::All),
            // A `*` beside other origins is refused as an invalid origin: the list would look narrower than it is.
            _ => Ok(Self::Listed(items.into_iter().map(str::parse).collect::<Result<_, _>>()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_url_has_a_host_and_may_have_a_path() {
        for (text, authority, path) in [
            ("https://files.example.org", "files.example.org", ""),
            ("https://Files.example.org:443/", "files.example.org", ""),
            ("http://127.0.0.1:8080/a//b/", "127.0.0.1:8080", "/a/b"),
            ("https://[2001:db8::1]:8443/dav-1", "[2001:db8::1]:8443", "/dav-1"),
        ] {
            let url: PublicUrl = text.parse().expect(text);
            assert_eq!((url.origin().authority(), url.path()), (authority, path), "{text}");
        }
        for text in
            ["", "files.example.org", "https://", "https://u:p@h/", "https://h/a?b", "https://h/a b", "https://h/../a"]
        {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn origins_match_in_browser_serialization() {
        let allowed: AllowedOrigins =
            "https://App.example:443, http://localhost:3000,app://obsidian.md".parse().expect("list");
        for origin in ["https://app.example", "http://localhost:3000", "app://obsidian.md"] {
            assert!(allowed.allows(origin.as_bytes()), "{origin}");
        }
        for origin in ["http://app.example", "https://app.example.evil", "https://app.example:8443", "null", ""] {
            assert!(!allowed.allows(origin.as_bytes()), "{origin}");
        }
        assert!("*".parse::<AllowedOrigins>().expect("all").allows(b"null"));
        assert_eq!("".parse(), Ok(AllowedOrigins::None));
        for text in ["app.example", "https://app.example/", "null", "https://a b", "*,https://a"] {
            assert!(text.parse::<AllowedOrigins>().is_err(), "{text}");
        }
    }
}
