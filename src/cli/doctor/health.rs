//! The health check of a running server, as for a container.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;

use crate::cli::backend::{read_ca_certificates, root_cause};
use crate::cli::context::CommandContext;
use crate::cli::{CommandError, Result, output};
use crate::config::ListenConfig;
use crate::net::{self, TlsFailure};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_RESPONSE_BYTES: u64 = 4096;

/// Checks the server at a URL, or else all configured listeners.
pub(super) fn check_health(context: &CommandContext, url: Option<&str>) -> Result {
    match url {
        Some(url) if url.starts_with("https://") => {
            check_https(url, &CertificateTrust::Verified(context.ca_file()))?;
        }
        Some(url) => {
            let (host, path) = parse_http_url(url)?;
            let address = host.to_socket_addrs().ok().and_then(|mut found| found.next());
            let address = address.ok_or_else(|| CommandError::new(format!("{host} can't be resolved")))?;
            check_http(address, &host, &path).map_err(|error| unhealthy(&host, &error))?;
        }
        None => {
            let ListenConfig { http, sftp, tls, acme, .. } = ListenConfig::load(&context.config_sources(Vec::new()))?;
            if let Some(address) = http.map(loopback_if_unspecified) {
                if tls.is_some() || acme {
                    // The certificate names the host that clients connect to, not this address.
                    check_https(&format!("https://{address}/healthz"), &CertificateTrust::AnyCertificate)?;
                } else {
                    check_http(address, &address.to_string(), "/healthz")
                        .map_err(|error| unhealthy(&address.to_string(), &error))?;
                }
            }
            if let Some(address) = sftp.map(loopback_if_unspecified) {
                check_ssh_banner(address).map_err(|error| unhealthy(&address.to_string(), &error))?;
            }
        }
    }
    if context.prints_json() {
        output::print_json(&serde_json::json!({ "healthy": true }))
    } else {
        output::print_line("healthy")
    }
}

/// The policy for server certificates.
enum CertificateTrust {
    /// Certificates of the authority in this file only, or of those that the system trusts.
    Verified(Option<PathBuf>),
    /// Any certificate: the check is for liveness, not identity.
    AnyCertificate,
}

/// Checks a server over TLS, by default at `/healthz`.
fn check_https(url: &str, trust: &CertificateTrust) -> Result {
    let mut url: Url = url.parse().map_err(|_| {
        CommandError::usage(format!("{url:?} is not an https:// URL"))
            .with_hint("give one such as https://host:8443/healthz")
    })?;
    if url.path() == "/" {
        url.set_path("/healthz");
    }
    net::install_default_crypto_provider();
    // A health check is about this server: neither a proxy nor the target of a redirect may answer in its place.
    let client = reqwest::Client::builder().timeout(RESPONSE_TIMEOUT).no_proxy().redirect(Policy::none());
    let client = match trust {
        CertificateTrust::Verified(Some(file)) => client.tls_certs_only(read_ca_certificates(file)?),
        CertificateTrust::Verified(None) => client,
        CertificateTrust::AnyCertificate => client.tls_danger_accept_invalid_certs(true),
    };
    let client =
        client.build().map_err(|error| CommandError::new(format!("TLS can't be used here: {}", root_cause(&error))))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async { client.get(url.clone()).send().await });
    match result {
        Ok(response) if response.status() == reqwest::StatusCode::OK => Ok(()),
        Ok(response) => Err(unhealthy(url.as_str(), &io::Error::other(format!("it answers {}", response.status())))),
        Err(error) => Err(match TlsFailure::find_in(&error) {
            Some(TlsFailure { problem, remedy }) => CommandError::new(format!("{url} {problem}")).with_hint(remedy),
            None => unhealthy(url.as_str(), &io::Error::other(root_cause(&error))),
        }),
    }
}

fn unhealthy(target: &str, error: &io::Error) -> CommandError {
    CommandError::new(format!("{target} is not healthy: {error}")).with_hint("the server's log has the details")
}

/// Splits `http://host:port/path`; the path is `/healthz` when there is none.
fn parse_http_url(url: &str) -> Result<(String, String)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        CommandError::usage(format!("{url} is neither http:// nor https://"))
            .with_hint("give one such as http://127.0.0.1:8080/healthz")
    })?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if path.is_empty() { "/healthz".to_owned() } else { format!("/{path}") };
    if host.is_empty() || url.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(CommandError::usage(format!("{url:?} is not an http:// URL")));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:80") };
    Ok((host, path))
}

/// Returns the address at which this machine reaches a listener.
fn loopback_if_unspecified(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, RESPONSE_TIMEOUT)?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    stream.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
    Ok(stream)
}

fn check_http(address: SocketAddr, host: &str, path: &str) -> io::Result<()> {
    let mut stream = connect(address)?;
    // Sent in one piece: `write!` on the stream would send several segments.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    // Whatever listens there may send without end.
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    let status_line = response.split(|&b| b == b'\r').next().unwrap_or_default();
    // The reason phrase may be missing (RFC 9112 section 4), and 2000 is not 200.
    if status_line.starts_with(b"HTTP/1.1 200 ") || status_line == b"HTTP/1.1 200" {
        return Ok(());
    }
    Err(io::Error::other(format!("it answers {:?}", String::from_utf8_lossy(status_line))))
}

fn check_ssh_banner(address: SocketAddr) -> io::Result<()> {
    let mut banner = [0; 8];
    connect(address)?.read_exact(&mut banner)?;
    if &banner == b"SSH-2.0-" { Ok(()) } else { Err(io::Error::other("it does not answer with an SSH banner")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn one_shot_server(response: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            assert!(request[..length].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(response).expect("an answer");
        });
        address
    }

    #[test]
    fn only_status_200_is_healthy() {
        let cases: [(&[u8], bool); 4] = [
            (b"HTTP/1.1 200 OK\r\n\r\nok", true),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            (b"HTTP/1.1 2000 OK\r\n\r\n", false),
            (b"", false),
        ];
        for (response, good) in cases {
            assert_eq!(
                check_http(one_shot_server(response), "x", "/healthz").is_ok(),
                good,
                "{}",
                response.escape_ascii()
            );
        }
    }

    #[test]
    fn http_url_is_split_into_host_and_path() {
        let split = |url| parse_http_url(url).ok();
        assert_eq!(split("http://h:1/x/y"), Some(("h:1".into(), "/x/y".into())));
        assert_eq!(split("http://h"), Some(("h:80".into(), "/healthz".into())));
        assert_eq!(split("http://[::1]:8080/"), Some(("[::1]:8080".into(), "/healthz".into())));
        assert_eq!(split("https://h/"), None);
        assert_eq!(split("http:///x"), None);
        assert_eq!(split("http://h/a\r\nX: y"), None);
    }
}
