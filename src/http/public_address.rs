//! Address of the server as the sender of a request knows it, which may be that of a proxy.
//!
//! URLs in `Destination` and `If` are absolute: they name the server. Its names are known from the request itself
//! (`Host`), from a trusted proxy, and from the configuration; each of them is accepted. A path prefix that a proxy
//! strips is in front of all paths that a client sends in headers, and must be in front of those that it is given.

use std::fmt;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::domain::{PublicUrl, WebOrigin};

/// Maximum number of server names accepted from proxies in one request.
const MAX_FORWARDED_NAMES: usize = 16;

/// Name of a server in a URL: its host, and its port where one is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    host: String,
    port: Option<u16>,
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl ServerName {
    /// Parses a host, with or without a port; `None` where it is malformed. The host is in lower case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let authority = Authority::try_from(text.trim_ascii()).ok()?;
        Some(Self { host: authority.host().to_ascii_lowercase(), port: authority.port_u16() })
    }

    /// Returns the host without its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn from_web_origin(origin: &WebOrigin) -> Option<Self> {
        Self::parse(origin.authority().as_bytes())
    }

    /// Parses `:authority` of HTTP/2, an absolute request target, or `Host`.
    fn from_request(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        Self::parse(authority.or_else(|| Some(headers.get(header::HOST)?.as_bytes()))?)
    }

    /// Tells whether a URL of this scheme and authority refers to the server of this name.
    fn matches(&self, scheme: &[u8], other: &Self) -> bool {
        let default_port = if scheme.eq_ignore_ascii_case(b"https") { 443 } else { 80 };
        other.host == self.host && other.port.unwrap_or(default_port) == self.port.unwrap_or(default_port)
    }
}

/// Parts of the public address that proxies in front of the server state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedAddress {
    /// Hosts, with or without ports, the one nearest to the client first.
    pub hosts: Vec<ServerName>,
    /// Port that clients connect to.
    pub port: Option<u16>,
    /// Path prefix that was stripped, without a trailing slash.
    pub prefix: Option<String>,
}

/// Address of the server as the sender of a request knows it; an extension of the request. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicAddress(Arc<PublicAddressParts>);

#[derive(Debug, Default, PartialEq, Eq)]
struct PublicAddressParts {
    names: Vec<ServerName>,
    prefix: String,
}

impl PublicAddress {
    /// Collects the names of the server: from the configuration, from proxies, and from the request.
    pub fn new(configured: Option<&PublicUrl>, forwarding: ForwardedAddress, uri: &Uri, headers: &HeaderMap) -> Self {
        let ForwardedAddress { hosts, port, prefix } = forwarding;
        let requested = ServerName::from_request(uri, headers);
        let mut names: Vec<ServerName> =
            configured.and_then(|url| ServerName::from_web_origin(url.origin())).into_iter().collect();
        // Bounded: each name is compared with every URL in the headers of a request.
        for name in hosts.into_iter().take(MAX_FORWARDED_NAMES).chain(requested) {
            // Proxies that send the port in a separate header may omit it from the host: nginx's `$host` does.
            if let (None, Some(port)) = (name.port, port) {
                names.push(ServerName { host: name.host.clone(), port: Some(port) });
            }
            names.push(name);
        }
        // The configured prefix wins over that of a proxy.
        let path = configured.map(|url| url.path().to_owned()).filter(|path| !path.is_empty());
        Self::from_parts(names, path.or(prefix).unwrap_or_default())
    }

    /// Rebuilds an address from [`PublicAddress::names`] and [`PublicAddress::prefix`].
    pub fn from_parts(names: Vec<ServerName>, prefix: String) -> Self {
        Self(Arc::new(PublicAddressParts { names, prefix }))
    }

    /// Returns the names, the one to show to users first.
    pub fn names(&self) -> &[ServerName] {
        &self.0.names
    }

    /// Returns the path prefix, without a trailing slash; empty where there is none.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Tells whether a URL of this scheme and authority refers to this server.
    pub fn matches_authority(&self, scheme: &[u8], authority: &[u8]) -> bool {
        ServerName::parse(authority).is_some_and(|other| self.0.names.iter().any(|name| name.matches(scheme, &other)))
    }

    /// Returns the rest of a path after the prefix, with its leading slash; `None` where the path does not start with
    /// the prefix, or there is none.
    pub fn strip_prefix<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(self.0.prefix.as_bytes())?;
        // `/prefixed` does not start with the prefix `/prefix`.
        (!self.0.prefix.is_empty() && rest.starts_with(b"/")).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_address(configured: Option<&str>, forwarding: ForwardedAddress, host: &str) -> PublicAddress {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("host"));
        let configured = configured.map(|url| url.parse().expect("url"));
        PublicAddress::new(configured.as_ref(), forwarding, &Uri::from_static("/"), &headers)
    }

    fn matches_url(address: &PublicAddress, url: &str) -> bool {
        let (scheme, authority) = url.split_once("://").expect("url");
        address.matches_authority(scheme.as_bytes(), authority.as_bytes())
    }

    #[test]
    fn configured_forwarded_and_host_names_all_match() {
        let hosts = vec![ServerName::parse(b"files.example.org").expect("name")];
        let forwarded = ForwardedAddress { hosts, port: Some(8443), prefix: None };
        let address = public_address(Some("https://drive.example"), forwarded, "127.0.0.1:8080");
        for url in [
            "https://drive.example",
            "HTTPS://Drive.example:443",
            "https://files.example.org:8443",
            "https://files.example.org",
            "http://127.0.0.1:8080",
        ] {
            assert!(matches_url(&address, url), "{url}");
        }
        for url in
            ["https://drive.example:8443", "http://127.0.0.1", "https://evil.example", "https://drive.example.evil"]
        {
            assert!(!matches_url(&address, url), "{url}");
        }
        assert_eq!(address.names()[0].to_string(), "drive.example");
    }

    #[test]
    fn configured_path_overrides_forwarded_prefix() {
        let forwarded = ForwardedAddress { prefix: Some("/proxy".into()), ..ForwardedAddress::default() };
        assert_eq!(public_address(Some("https://h/files/"), forwarded.clone(), "h").prefix(), "/files");
        let address = public_address(Some("https://h"), forwarded, "h");
        assert_eq!(address.strip_prefix(b"/proxy/dav"), Some(&b"/dav"[..]));
        assert_eq!(address.strip_prefix(b"/proxyx/dav"), None);
    }
}
