//! Checks of what stands between clients and server: certificate and proxies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::check::{CheckStatus, DoctorCheck, check};
use crate::config::{ListenConfig, TlsFiles};
use crate::gateway;
use crate::net;

/// Days before its end below which a certificate is warned of.
const EXPIRY_WARNING_DAYS: u64 = 14;

pub(super) fn check_certificate(files: &TlsFiles) -> DoctorCheck {
    let problem = net::server_config(&files.certificate, &files.key, &[]);
    let display_path = files.certificate.display();
    match problem.and_then(|_| net::check_certificate(&files.certificate)) {
        Ok(None) => {
            let (status, expiry) = describe_expiry(&files.certificate);
            check("certificate", status, format!("{display_path} and its key can be used{expiry}"))
        }
        Ok(Some(problem)) => {
            let detail = format!("{display_path}: {problem}: clients refuse it; set tls_cert to another one");
            check("certificate", CheckStatus::Fail, detail)
        }
        Err(error) => check("certificate", CheckStatus::Fail, error.to_string()),
    }
}

/// Looks for a key that every user of the machine may read.
pub(super) fn check_key_mode(files: &TlsFiles) -> Option<DoctorCheck> {
    let mode = fs::metadata(&files.key).ok()?.mode() & 0o777;
    let detail = format!("{} has mode {mode:03o}, so every user may read it: chmod 640 it", files.key.display());
    (mode & 0o004 != 0).then(|| check("TLS key", CheckStatus::Warning, detail))
}

/// Describes for how long a certificate is valid.
fn describe_expiry(certificate: &Path) -> (CheckStatus, String) {
    let Ok(Some(validity)) = net::certificate_validity(certificate) else { return (CheckStatus::Ok, String::new()) };
    let days = validity.days_left(SystemTime::now());
    let status = if days < EXPIRY_WARNING_DAYS { CheckStatus::Warning } else { CheckStatus::Ok };
    (status, format!(", for {days} more days"))
}

pub(super) fn check_acme_certificate(state: &Path) -> DoctorCheck {
    let file = state.join("acme/certificate.pem");
    if !file.exists() {
        let detail = "the certificate authority has issued none yet: the log of the server says why";
        return check("certificate", CheckStatus::Warning, detail);
    }
    check_certificate(&TlsFiles { certificate: file.clone(), key: file })
}

/// Checks whether proxies in front of the server are trusted, and nobody else.
pub(super) fn check_proxies(listen_config: &ListenConfig, state: &Path) -> Option<DoctorCheck> {
    let name = "proxies";
    let http = listen_config.http?;
    let trusted = &listen_config.trusted_proxies;
    let warning = |detail: String| Some(check(name, CheckStatus::Warning, detail));
    if let Some(proxy) = gateway::recorded_untrusted_proxy(state) {
        return warning(format!(
            "{proxy} forwards requests and is not trusted: limits by address and failed logins count for all its \
             clients together; add it to trusted_proxies if it is your proxy"
        ));
    }
    if let Some(network) = trusted.iter().find(|network| network.prefix_len() == 0) {
        return warning(format!(
            "trusted_proxies has {network}: every client can pass for any address; name the proxies alone"
        ));
    }
    let is_local = http.ip().to_canonical().is_loopback();
    let is_encrypted = listen_config.tls.is_some() || listen_config.acme;
    let is_public = listen_config.public_url.as_ref().is_some_and(|url| url.origin().scheme() == "https");
    if is_local && is_public && !is_encrypted && trusted.is_empty() {
        return warning(format!(
            "public_url is https and HTTP listens at {http} without TLS, so a proxy is in front of it, which is not \
             trusted: set trusted_proxies to its address"
        ));
    }
    let networks: Vec<_> = trusted.iter().map(ToString::to_string).collect();
    let detail = if networks.is_empty() {
        "none is trusted: the address of a client is that of its connection".to_owned()
    } else {
        format!("{} are trusted about the addresses of clients", networks.join(", "))
    };
    Some(check(name, CheckStatus::Ok, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_that_are_not_trusted_and_networks_that_hold_everybody_are_warned_of() {
        let state = tempfile::tempdir().expect("folder");
        let config = |http: &str, proxies: &[&str], url: Option<&str>| ListenConfig {
            http: Some(http.parse().expect("an address")),
            tls: None,
            acme: false,
            trusted_proxies: proxies.iter().map(|network| network.parse().expect("a network")).collect(),
            public_url: url.map(|url| url.parse().expect("a URL")),
            sftp: None,
            http_connections: 1,
            sftp_connections: 1,
        };
        let status = |config| check_proxies(&config, state.path()).map(|check| check.status);
        let url = Some("https://files.example.org");
        assert_eq!(status(config("127.0.0.1:8080", &[], None)), Some(CheckStatus::Ok));
        assert_eq!(status(config("127.0.0.1:8080", &[], url)), Some(CheckStatus::Warning));
        assert_eq!(status(config("127.0.0.1:8080", &["127.0.0.1/32"], url)), Some(CheckStatus::Ok));
        assert_eq!(status(config("0.0.0.0:8080", &["10.0.0.0/8", "::/0"], None)), Some(CheckStatus::Warning));
        assert_eq!(status(ListenConfig { http: None, ..config("127.0.0.1:1", &[], None) }), None);
        std::fs::write(state.path().join("untrusted-proxy"), "127.0.0.1\n").expect("written");
        assert_eq!(status(config("127.0.0.1:8080", &[], None)), Some(CheckStatus::Warning));
    }
}
