//! The addresses of the gateway in the forms that clients take.

use std::net::IpAddr;

use percent_encoding::utf8_percent_encode;

use crate::domain::{ALL_BUT_UNRESERVED, Login};

/// The port of SFTP where none is given.
const DEFAULT_SFTP_PORT: u16 = 2022;

/// Addresses of a gateway and the login of a user, for which a guide is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionDetails {
    https: bool,
    host: String,
    port: Option<u16>,
    path: String,
    sftp_host: String,
    sftp_port: u16,
    login: Login,
}

impl ConnectionDetails {
    /// Parses the gateway's WebDAV address, and that of SFTP (`HOST:PORT` or `HOST`) where it is not the same host
    /// at port 2022. An address without a path gets `/dav/`.
    pub fn new(url: &str, sftp: Option<&str>, login: Login) -> Result<Self, InvalidGatewayAddress> {
        let error = || InvalidGatewayAddress(url.chars().take(200).collect());
        let (scheme, rest) = url.split_once("://").ok_or_else(error)?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(error()),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // No query, no fragment, and no character that ends a quoted text in a command or a file, or expands in it.
        let is_allowed = |b: u8| b.is_ascii_graphic() && !b"\"'<>\\^`{|}?#$".contains(&b);
        if !path.bytes().all(is_allowed) {
            return Err(error());
        }
        let (host, port) = parse_host_port(authority).ok_or_else(error)?;
        let path = match path {
            "" | "/" => "/dav/".to_owned(),
            path if path.ends_with('/') => path.to_owned(),
            path => format!("{path}/"),
        };
        let (sftp_host, sftp_port) = match sftp {
            None => (host.clone(), None),
            Some(address) => {
                parse_host_port(address).ok_or_else(|| InvalidGatewayAddress(address.chars().take(200).collect()))?
            }
        };
        Ok(Self { https, host, port, path, sftp_host, sftp_port: sftp_port.unwrap_or(DEFAULT_SFTP_PORT), login })
    }

    /// Returns the WebDAV address without its path: `https://files.example.org`.
    pub fn origin(&self) -> String {
        let url = self.url();
        url.strip_suffix(&self.path).unwrap_or(&url).to_owned()
    }

    /// Returns the WebDAV address with its trailing slash: `https://files.example.org/dav/`.
    pub fn url(&self) -> String {
        self.format_url(if self.https { "https" } else { "http" }, "")
    }

    /// Tells whether WebDAV uses TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Tells whether the token would travel unencrypted to another machine over WebDAV.
    pub fn sends_cleartext(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback =
            address.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        !self.https && !is_loopback
    }

    /// Returns the host of WebDAV.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port of WebDAV.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Returns the path of the WebDAV address, from its first slash to its last.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the host of SFTP for a URL: an IPv6 address in brackets.
    pub fn sftp_host(&self) -> &str {
        &self.sftp_host
    }

    /// Returns the host of SFTP for an input field: an IPv6 address without brackets.
    pub fn sftp_hostname(&self) -> &str {
        self.sftp_host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port of SFTP.
    pub fn sftp_port(&self) -> u16 {
        self.sftp_port
    }

    /// Returns the login of the user.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Returns the WebDAV address with another scheme, which gets an `s` for TLS: `dav` gives `davs://…`.
    pub(super) fn url_with_scheme(&self, base_scheme: &str, with_login: bool) -> String {
        let scheme = format!("{base_scheme}{}", if self.https { "s" } else { "" });
        let login = if with_login { format!("{}@", percent_encode_login(&self.login)) } else { String::new() };
        self.format_url(&scheme, &login)
    }

    /// Returns the SFTP address with the login: `sftp://alice@files.example.org:2022`, without a trailing slash.
    pub(super) fn sftp_url(&self) -> String {
        format!("sftp://{}@{}:{}", percent_encode_login(&self.login), self.sftp_host, self.sftp_port)
    }

    fn format_url(&self, scheme: &str, login: &str) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{login}{}{port}{}", self.host, self.path)
    }
}

/// Returns a login for a URL, with all but unreserved characters percent-encoded (RFC 3986 section 2.3).
fn percent_encode_login(login: &Login) -> String {
    utf8_percent_encode(login.as_str(), &ALL_BUT_UNRESERVED).to_string()
}

/// Parses `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
fn parse_host_port(text: &str) -> Option<(String, Option<u16>)> {
    let port_at = match text.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(port_at);
    let inner = host.strip_prefix('[').map_or(host, |inner| inner.trim_end_matches(']'));
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    // A host that starts with `-` would be an option to the programs of the guides.
    if inner.is_empty() || inner.starts_with('-') || !inner.bytes().all(is_allowed) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok().filter(|port| *port != 0)?),
        None if port.is_empty() => None,
        None => return None,
    };
    Some((host.to_owned(), port))
}

/// A text that is not the address of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address of a gateway: give https://HOST[:PORT]/dav/ for WebDAV and HOST[:PORT] for SFTP")]
pub struct InvalidGatewayAddress(String);
