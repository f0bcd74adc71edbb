//! Address of the server as the sender of a request knows it, which may be that of a proxy.
//!
//! URLs in `Destination` and `If` are absolute: they name the server. Which names are its own is known from the request
//! itself (`Host`), from a trusted proxy, and from the configuration; each of them counts. A path that a proxy cuts off
//! stands in front of all paths that a client sends in headers, and has to stand in front of those that it is given.

use std::fmt;

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::domain::{PublicUrl, WebOrigin};

/// Maximum number of names that proxies can give the server in one request.
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
    /// Reads a host, with a port or without.
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

    /// Reads `:authority` of HTTP/2, an absolute request target, or `Host`.
    fn from_request(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        Self::parse(authority.or_else(|| Some(headers.get(header::HOST)?.as_bytes()))?)
    }

    /// Tells whether a URL of this scheme and authority leads to the server of this name.
    fn matches(&self, scheme: &[u8], other: &Self) -> bool {
        let default_port = if scheme.eq_ignore_ascii_case(b"https") { 443 } else { 80 };
        other.host == self.host && other.port.unwrap_or(default_port) == self.port.unwrap_or(default_port)
    }
}

/// Parts of the public address that proxies in front of the server tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedAddress {
    /// Hosts, with ports or without, the one nearest to the client first.
    pub hosts: Vec<ServerName>,
    /// The port that clients connect to.
    pub port: Option<u16>,
    /// The path that was cut off, without a slash at its end.
    pub prefix: Option<String>,
}

/// Address of the server as the sender of a request knows it; travels as an extension of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicAddress {
    names: Vec<ServerName>,
    prefix: String,
}

impl PublicAddress {
    /// Collects the names of the server: as configured, as proxies forward them, and as the request has it.
    pub fn new(configured: Option<&PublicUrl>, forwarding: ForwardedAddress, uri: &Uri, headers: &HeaderMap) -> Self {
        let ForwardedAddress { hosts, port, prefix } = forwarding;
        let requested = ServerName::from_request(uri, headers);
        let mut names: Vec<ServerName> =
            configured.and_then(|url| ServerName::from_web_origin(url.origin())).into_iter().collect();
        for name in hosts.into_iter().take(MAX_FORWARDED_NAMES).chain(requested) {
            // Proxies that tell the port in a header of its own may leave it out of the host: nginx's `$host` does.
            if let (None, Some(port)) = (name.port, port) {
                names.push(ServerName { host: name.host.clone(), port: Some(port) });
            }
            names.push(name);
        }
        let path = configured.map(|url| url.path().to_owned()).filter(|path| !path.is_empty());
        Self { names, prefix: path.or(prefix).unwrap_or_default() }
    }

    /// Returns the address that was written down with [`PublicAddress::names`] and [`PublicAddress::prefix`].
    pub fn from_parts(names: Vec<ServerName>, prefix: String) -> Self {
        Self { names, prefix }
    }

    /// Returns the names, the one to show to people first.
    pub fn names(&self) -> &[ServerName] {
        &self.names
    }

    /// Returns the path in front of all others, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Tells whether a URL of this scheme and authority leads here.
    pub fn matches_authority(&self, scheme: &[u8], authority: &[u8]) -> bool {
        ServerName::parse(authority).is_some_and(|other| self.names.iter().any(|name| name.matches(scheme, &other)))
    }

    /// Returns what remains of a path behind the prefix; none where it does not begin with one.
    pub fn strip_prefix<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(self.prefix.as_bytes())?;
        (!self.prefix.is_empty() && rest.starts_with(b"/")).then_some(rest)
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
